import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { InvariantError } from "../../../src/base/errors.js";
import { latest, Wake } from "../../../src/base/latest.js";
import { Signal } from "../../../src/base/signal.js";

/** Whether a promise is settled after everything that can happen by itself has happened. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const note = (): void => {
    settled = true;
  };
  promise.then(note, note);
  await setImmediate();
  return settled;
}

const listeners = (signal: AbortSignal): number => getEventListeners(signal, "abort").length;

describe("Wake", () => {
  it("ends a wait when it is called", async () => {
    const wake = new Wake();
    const waiting = wake.wait();
    assert.equal(await isSettled(waiting), false);
    wake.call();
    await waiting;
  });

  it("keeps a call that came while nobody waited, once", async () => {
    const wake = new Wake();
    wake.call();
    wake.call();
    await wake.wait();
    const next = wake.wait();
    assert.equal(await isSettled(next), false);
    wake.call();
    await next;
  });

  it("keeps a call that comes after the wait is over and before its caller goes on", async () => {
    const wake = new Wake();
    const first = wake.wait();
    wake.call();
    wake.call();
    await first;
    await wake.wait();
  });

  it("forgets a call when it is cleared, and not one that comes later", async () => {
    const wake = new Wake();
    wake.call();
    wake.clear();
    const waiting = wake.wait();
    assert.equal(await isSettled(waiting), false);
    wake.call();
    await waiting;
  });

  it("ends a wait when the signal is aborted, before or during it, and listens to it no longer than it waits", async () => {
    const wake = new Wake();
    const stop = new AbortController();
    const called = wake.wait(stop.signal);
    assert.equal(listeners(stop.signal), 1);
    wake.call();
    await called;
    assert.equal(listeners(stop.signal), 0);
    const waiting = wake.wait(stop.signal);
    stop.abort();
    await waiting;
    await wake.wait(stop.signal);
    assert.equal(listeners(stop.signal), 0);
  });

  it("refuses a second caller, and the first one goes on to wait", async () => {
    const wake = new Wake();
    const waiting = wake.wait();
    await assert.rejects(wake.wait(), InvariantError);
    assert.equal(await isSettled(waiting), false);
    wake.call();
    await waiting;
  });
});

describe("latest", () => {
  const source = () => {
    const signal = new Signal();
    const state = { value: 0, reads: 0 };
    const stop = new AbortController();
    const values = latest({
      subscribe: (wake) => signal.on(wake),
      read: () => {
        state.reads++;
        return state.value;
      },
      signal: stop.signal,
    });
    const set = (value: number): void => {
      state.value = value;
      signal.emit();
    };
    return { signal, state, stop, values, set };
  };

  it("begins with the present state, and yields the newest after each change", async () => {
    const { values, set, state } = source();
    assert.equal((await values.next()).value, 0);
    const next = values.next();
    assert.equal(await isSettled(next), false);
    set(1);
    assert.equal((await next).value, 1);
    for (const value of [2, 3, 4]) set(value);
    assert.equal((await values.next()).value, 4);
    assert.equal(await isSettled(values.next()), false);
    assert.equal(state.reads, 3, "what lay in between was not read");
  });

  it("loses no change that comes while the consumer is busy, or while it reads", async () => {
    const stop = new AbortController();
    const signal = new Signal();
    let value = 0;
    const values = latest({
      subscribe: (wake) => signal.on(wake),
      read: () => {
        const now = value;
        if (now === 1) {
          value = 2;
          signal.emit();
        }
        return now;
      },
      signal: stop.signal,
    });
    assert.equal((await values.next()).value, 0);
    value = 1;
    signal.emit();
    assert.equal((await values.next()).value, 1);
    assert.equal((await values.next()).value, 2);
  });

  it("tells nothing where there is no news", async () => {
    const signal = new Signal();
    const news: string[] = [];
    const values = latest({
      subscribe: (wake) => signal.on(wake),
      read: () => news.shift(),
      signal: new AbortController().signal,
    });
    const next = values.next();
    signal.emit();
    assert.equal(await isSettled(next), false);
    news.push("a");
    signal.emit();
    assert.equal((await next).value, "a");
  });

  it("ends quietly when a signal is aborted: before it begins, while it waits, and between two values", async () => {
    const ended = source();
    ended.stop.abort();
    assert.equal((await ended.values.next()).done, true);
    assert.equal(ended.state.reads, 0);
    assert.equal(ended.signal.size, 0);

    const waiting = source();
    await waiting.values.next();
    const next = waiting.values.next();
    assert.equal(await isSettled(next), false);
    waiting.stop.abort();
    assert.equal((await next).done, true);
    assert.equal(waiting.signal.size, 0);

    const between = source();
    await between.values.next();
    between.set(1);
    between.stop.abort();
    assert.equal((await between.values.next()).done, true);
    assert.equal(between.signal.size, 0);
  });

  it("ends when its source is closed, as soon as that wakes it, and does not listen to a signal while it reads", async () => {
    const signal = new Signal();
    let closed = false;
    const stop = new AbortController();
    const open = (): AsyncGenerator<number, void, undefined> =>
      latest({
        subscribe: (wake) => signal.on(wake),
        read: () => 1,
        isClosed: () => closed,
        signal: stop.signal,
      });
    const values = open();
    await values.next();
    assert.equal(listeners(stop.signal), 0);
    const next = values.next();
    assert.equal(await isSettled(next), false);
    closed = true;
    signal.emit();
    assert.equal((await next).done, true);
    assert.equal((await open().next()).done, true);
    assert.deepEqual([signal.size, listeners(stop.signal)], [0, 0]);
  });

  it("keeps nothing after its end: no listener of the source, none of the signals", async () => {
    const { values, signal, stop, set } = source();
    let seen = 0;
    for await (const _ of values) {
      seen++;
      if (seen === 3) break;
      set(seen);
    }
    assert.equal(signal.size, 0);
    assert.equal(listeners(stop.signal), 0);
  });

  it("passes on what reading throws, and keeps nothing", async () => {
    const signal = new Signal();
    const stop = new AbortController();
    const values = latest<number>({
      subscribe: (wake) => signal.on(wake),
      read: () => {
        throw new Error("unreadable");
      },
      signal: stop.signal,
    });
    await assert.rejects(values.next(), /unreadable/);
    assert.equal(signal.size, 0);
    assert.equal(listeners(stop.signal), 0);
  });
});
