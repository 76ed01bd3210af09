import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { sleep, systemClock } from "../../../src/base/environment.js";

describe("the system's clock", () => {
  it("keeps a program alive that waits for nothing else, and lets it end when the wait is cancelled", () => {
    const { href } = new URL(
      `../../../src/base/environment${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`,
      import.meta.url,
    );
    const program = `
      import { systemClock } from ${JSON.stringify(href)};
      systemClock.after(3_600_000, () => {}).cancel();
      systemClock.after(20, () => console.log("fired"));`;
    const { status, stdout } = spawnSync(
      process.execPath,
      [
        ...process.execArgv.filter((argument) => !argument.startsWith("--test")),
        "--input-type=module",
        "--eval",
        program,
      ],
      { encoding: "utf8", timeout: 60_000, env: { ...process.env, NODE_TEST_CONTEXT: undefined } },
    );
    assert.deepEqual({ status, stdout }, { status: 0, stdout: "fired\n" });
  });

  it("a sleep rejects with the reason of an abort, before or meanwhile", async () => {
    const reason = new Error("enough");
    await assert.rejects(sleep(systemClock, 3_600_000, AbortSignal.abort(reason)), (error) => error === reason);
    const stop = new AbortController();
    const sleeping = sleep(systemClock, 3_600_000, stop.signal);
    stop.abort(reason);
    await assert.rejects(sleeping, (error) => error === reason);
  });
});
