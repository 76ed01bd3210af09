import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Clock } from "../../../src/base/environment.js";
import { retry } from "../../../src/base/retry.js";

/** A clock whose waits are over at once, and written down. */
function instantClock(): Clock & { readonly waits: number[] } {
  const waits: number[] = [];
  return {
    waits,
    now: () => 0,
    wall: () => 0,
    after: (delayMs, action) => {
      waits.push(delayMs);
      queueMicrotask(action);
      return { cancel: () => {} };
    },
  };
}

describe("retry", () => {
  /** Fails so often, then answers. */
  const failing = (times: number) => {
    let left = times;
    return async (): Promise<string> => {
      if (left-- > 0) throw new Error(`failure ${times - left}`);
      return "done";
    };
  };
  const { signal } = new AbortController();

  it("attempts again with waits that double up to the longest", async () => {
    const clock = instantClock();
    const told: string[] = [];
    const onFailure = (error: unknown, waitMs: number): void => {
      told.push(`${error} ${waitMs}`);
    };
    assert.equal(await retry(failing(5), { clock, signal, firstMs: 100, maxMs: 500, onFailure }), "done");
    assert.deepEqual(clock.waits, [100, 200, 400, 500, 500]);
    assert.deepEqual(told.slice(0, 2), ["Error: failure 1 100", "Error: failure 2 200"]);
  });

  it("makes the second attempt at once where that is asked for", async () => {
    const clock = instantClock();
    await retry(failing(4), { clock, signal, firstMs: 100, maxMs: 500, atOnce: true });
    assert.deepEqual(clock.waits, [0, 100, 200, 400]);
  });

  it("begins with the first wait again after the task has worked", async () => {
    const clock = instantClock();
    let attempts = 0;
    await retry(
      async (works) => {
        attempts++;
        if (attempts === 4) works();
        if (attempts < 6) throw new Error("no");
      },
      { clock, signal, firstMs: 100, maxMs: 5_000 },
    );
    assert.deepEqual(clock.waits, [100, 200, 400, 100, 200]);
  });

  it("gives up when it is aborted, and when the listener throws", async () => {
    const clock = instantClock();
    const stop = new AbortController();
    const onFailure = (): void => stop.abort(new Error("enough"));
    const options = { clock, signal: stop.signal, firstMs: 1, maxMs: 1, onFailure };
    await assert.rejects(retry(failing(9), options), /enough/);
    const refusing = (error: unknown): void => {
      throw error;
    };
    await assert.rejects(retry(failing(9), { clock, signal, firstMs: 1, maxMs: 1, onFailure: refusing }), /failure 1/);
  });
});
