import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { retry } from "../../../src/base/retry.js";
import { dialBackoffMs, exchangeDelayMs, statusCodeOf } from "../../../src/replication/backoff.js";
import { StatusCode } from "../../../src/wire/status.js";
import { instantClock } from "../../support/instant-clock.js";

test("backs off after FAILED_PRECONDITION: 8 ms, then doubling up to 8192 ms (ch1 case 68, ch3 case 10)", () => {
  const waits: readonly (readonly [number, number])[] = [
    ...[0, 1, 2, 3, 4, 5].map((n) => [n, 8] as const),
    [6, 16],
    [7, 32],
    [13, 2048],
    [14, 4096],
    [15, 8192],
    [16, 8192],
    [17, 8192],
  ];
  for (const [n, wait] of waits) assert.equal(dialBackoffMs(n, StatusCode.FailedPrecondition), wait, `n = ${n}`);
});

test("backs off after any other error: 2 s, doubling up to 64 s (ch1 case 69, ch3 case 11)", () => {
  const seconds = [1, 2, 4, 8, 16, 32, 64];
  for (const status of [StatusCode.Unknown, StatusCode.PermissionDenied, StatusCode.Unavailable, 99, undefined]) {
    seconds.forEach((wait, n) => {
      assert.equal(dialBackoffMs(n, status), wait * 1_000, `n = ${n}`);
    });
    for (const n of [10, 20]) assert.equal(dialBackoffMs(n, status), 64_000, `n = ${n}`);
  }
});

test("back-off saturates and is never 0 (ch3 case 12)", () => {
  for (const n of [0, 1, 46, 60, 63, 64, 1000, 100_000]) {
    assert.equal(dialBackoffMs(n, StatusCode.ResourceExhausted), 8_192, `n = ${n}`);
  }
  for (const n of [46, 60, 63, 64, 1000, 2000, Number.MAX_SAFE_INTEGER]) {
    assert.equal(dialBackoffMs(n, StatusCode.FailedPrecondition), 8_192, `n = ${n}`);
    assert.equal(dialBackoffMs(n, StatusCode.Unavailable), 64_000, `n = ${n}`);
  }
  fc.assert(
    fc.property(fc.nat(), fc.option(fc.nat(20), { nil: undefined }), (n, status) => {
      const wait = dialBackoffMs(n, status);
      assert.ok(wait >= 8 && wait <= 64_000);
      assert.ok(dialBackoffMs(n + 1, status) >= wait);
    }),
  );
});

test("the status is found through wrapped errors (ch1 case 70, ch3 case 15)", () => {
  for (const status of [StatusCode.FailedPrecondition, StatusCode.ResourceExhausted, StatusCode.DeadlineExceeded]) {
    const inner = new PeeringError("unavailable", "inner", { status });
    assert.equal(statusCodeOf(inner), status);
    assert.equal(statusCodeOf(new Error("one", { cause: inner })), status);
    assert.equal(
      statusCodeOf(new PeeringError("unavailable", "two", { cause: new Error("", { cause: inner }) })),
      status,
    );
  }
  assert.equal(statusCodeOf(new Error("bare")), undefined);
  assert.equal(statusCodeOf("text"), undefined);
  const ring = new Error("ring");
  ring.cause = ring;
  assert.equal(statusCodeOf(ring), undefined);
});

/** The waits of a dial loop whose attempts fail with these, one after the other, and then succeed. */
async function waitsAfter(
  failures: readonly (number | Error | "stood")[],
  signal?: AbortSignal,
): Promise<readonly number[]> {
  const clock = instantClock();
  const left = [...failures];
  const attempt = async (works: () => void): Promise<void> => {
    const failure = left.shift();
    if (failure === undefined) return;
    if (failure === "stood") works();
    const status = typeof failure === "number" ? failure : StatusCode.Unavailable;
    throw failure instanceof Error ? failure : new PeeringError("unavailable", "failed", { status });
  };
  await retry(attempt, {
    clock,
    signal: signal ?? new AbortController().signal,
    waitMs: (count, error) => dialBackoffMs(count, statusCodeOf(error)),
  });
  return clock.waits;
}

test("the count starts over after a stream that stood, and all kinds of failure share it (D-5)", async () => {
  const { Unavailable, FailedPrecondition } = StatusCode;
  const waits = await waitsAfter([
    Unavailable,
    Unavailable,
    Unavailable,
    FailedPrecondition,
    Unavailable,
    "stood",
    Unavailable,
  ]);
  assert.deepEqual(waits, [2_000, 4_000, 8_000, 8, 32_000, 2_000, 4_000]);
});

test("a dial loop stops on success and on cancellation (ch1 case 71, ch3 cases 13 and 14)", async () => {
  assert.deepEqual(await waitsAfter([new Error("error 1"), new Error("error 2")]), [2_000, 4_000]);
  const stopped = AbortSignal.abort(new Error("stopped"));
  await assert.rejects(waitsAfter([new Error("error 1")], stopped), /stopped/);
});

test("the gap between two secret exchanges is 150 ms and up to a quarter more", () => {
  assert.equal(exchangeDelayMs(0), 150);
  assert.equal(exchangeDelayMs(0.5), 168.75);
  assert.ok(exchangeDelayMs(0.999_999) < 187.5);
});
