import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import type { Clock } from "../../../src/base/environment.js";
import { backoffMs, retry } from "../../../src/base/retry.js";
import { instantClock } from "../../support/instant-clock.js";

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

  it("makes each wait longer by a random share of it, and no wait longer than the longest and its share", async () => {
    const clock = instantClock();
    const fractions = [0, 0.5, 0.999, 0.25];
    const random = {
      bytes: () => new Uint8Array(),
      fraction: () => fractions.shift() ?? assert.fail("drawn too often"),
    };
    const jitter = { share: 0.2, random };
    await retry(failing(4), { clock, signal, firstMs: 100, maxMs: 400, jitter });
    assert.deepEqual(clock.waits.map(Math.round), [100, 220, 480, 420]);
    assert.deepEqual(fractions, []);
    assert.equal(backoffMs(5_000, { firstMs: 100, maxMs: 400 }), 400, "however often it has failed");
  });

  it("gives up after so many attempts in a row, with the last failure, and no wait after it", async () => {
    const clock = instantClock();
    await assert.rejects(retry(failing(9), { clock, signal, firstMs: 100, maxMs: 5_000, maxAttempts: 3 }), /failure 3/);
    assert.deepEqual(clock.waits, [100, 200]);
    let attempts = 0;
    const working = retry(
      async (works) => {
        if (++attempts === 6) return "done";
        works();
        throw new Error("no");
      },
      { clock, signal, firstMs: 100, maxMs: 5_000, maxAttempts: 2 },
    );
    assert.equal(await working, "done", "a task that works in between does not fail in a row");
  });

  it("ends during a wait when it is aborted, with the reason, and leaves no timer and no listener", async () => {
    const stop = new AbortController();
    let timers = 0;
    const clock: Clock = {
      now: () => 0,
      wall: () => 0,
      after: () => {
        timers++;
        return { cancel: () => timers-- };
      },
    };
    let attempts = 0;
    const task = async (): Promise<void> => {
      attempts++;
      throw new Error("no");
    };
    const ended = retry(task, { clock, signal: stop.signal, firstMs: 100, maxMs: 100 });
    await setImmediate();
    assert.deepEqual([attempts, timers, getEventListeners(stop.signal, "abort").length], [1, 1, 1]);
    stop.abort(new Error("closed"));
    await assert.rejects(ended, /closed/);
    assert.deepEqual([attempts, timers], [1, 0]);
    await assert.rejects(retry(task, { clock, signal: stop.signal, firstMs: 100, maxMs: 100 }), /closed/);
    assert.equal(attempts, 1, "nothing is attempted afterwards");
  });

  it("makes the second attempt at once where that is asked for", async () => {
    const clock = instantClock();
    await retry(failing(4), { clock, signal, firstMs: 100, maxMs: 500, atOnce: true });
    assert.deepEqual(clock.waits, [0, 100, 200, 400]);
  });

  it("asks a rule for each wait, with the failures in a row and the last error", async () => {
    const clock = instantClock();
    const asked: string[] = [];
    const waitMs = (failures: number, error: unknown): number => {
      asked.push(`${failures} ${error}`);
      return failures * 7;
    };
    await retry(failing(3), { clock, signal, waitMs });
    assert.deepEqual(asked, ["1 Error: failure 1", "2 Error: failure 2", "3 Error: failure 3"]);
    assert.deepEqual(clock.waits, [7, 14, 21]);
    await retry(failing(3), { clock, signal, waitMs, atOnce: true });
    assert.deepEqual(clock.waits.slice(3), [0, 7, 14]);
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
