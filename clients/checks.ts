import { errorText } from "../src/base/errors.js";
import type { Outcome } from "./client.js";

/** Makes checks one after the other, and keeps what became of them. */
export class Checks {
  readonly outcomes: Outcome[] = [];

  async check(name: string, run: () => Promise<void> | void): Promise<void> {
    let message = "";
    try {
      await run();
    } catch (error) {
      message = errorText(error).replaceAll("\n", " ") || "it failed";
    }
    this.outcomes.push({ check: name, passed: message === "", message });
  }
}
