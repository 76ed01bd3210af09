import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { dialBackoffMs, exchangeDelayMs, RetryCounter, statusCodeOf } from "../../../src/replication/backoff.js";
import { StatusCode } from "../../../src/wire/status.js";

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
    assert.equal(
      new RetryCounter().failed(new Error("wrapped", { cause: inner })),
      dialBackoffMs(1, status),
      "the counter looks through wrappers too",
    );
  }
  assert.equal(statusCodeOf(new Error("bare")), undefined);
  assert.equal(statusCodeOf("text"), undefined);
  const ring = new Error("ring");
  ring.cause = ring;
  assert.equal(statusCodeOf(ring), undefined);
});

test("the count starts over after a stream of 60 s, or when told so, and all classes share it (D-5)", () => {
  const retries = new RetryCounter();
  assert.deepEqual(
    [1, 2, 3].map(() => retries.failed(StatusCode.Unavailable)),
    [2_000, 4_000, 8_000],
  );
  assert.equal(retries.failed(StatusCode.FailedPrecondition), 8);
  assert.equal(retries.failed(StatusCode.Unavailable, 59_999), 32_000);
  assert.equal(retries.failed(StatusCode.Unavailable, 60_000), 2_000);
  assert.equal(retries.failed(StatusCode.Unavailable), 4_000);
  retries.reset();
  assert.equal(retries.failures, 0);
  assert.equal(retries.failed(StatusCode.Unavailable), 2_000);
});

/** The retry loop without its waiting: what the host runs around the counter. */
function retryLoop(
  attempt: (count: number) => Error | undefined,
  cancelled: () => boolean,
): { readonly calls: number; readonly errors: readonly string[]; readonly waits: readonly number[] } {
  const retries = new RetryCounter();
  const errors: string[] = [];
  const waits: number[] = [];
  for (let calls = 1; ; calls++) {
    const error = attempt(calls);
    if (error === undefined) return { calls, errors, waits };
    errors.push(error.message);
    const wait = retries.failed(error);
    if (cancelled()) return { calls, errors, waits };
    waits.push(wait);
  }
}

test("a loop around the counter stops on success and on cancellation (ch1 case 71, ch3 cases 13 and 14)", () => {
  const twice = (count: number): Error | undefined => (count <= 2 ? new Error(`error ${count}`) : undefined);
  assert.deepEqual(
    retryLoop(twice, () => false),
    { calls: 3, errors: ["error 1", "error 2"], waits: [2_000, 4_000] },
  );
  assert.deepEqual(
    retryLoop(twice, () => true),
    { calls: 1, errors: ["error 1"], waits: [] },
  );
});

test("the gap between two secret exchanges is 150 ms and up to a quarter more", () => {
  assert.equal(exchangeDelayMs(0), 150);
  assert.equal(exchangeDelayMs(0.5), 168.75);
  assert.ok(exchangeDelayMs(0.999_999) < 187.5);
});
