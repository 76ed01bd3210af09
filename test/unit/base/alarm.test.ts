import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Alarm } from "../../../src/base/alarm.js";
import { testClock } from "../../../src/testing/index.js";

describe("Alarm", () => {
  it("calls its action once at the time that was set last, and again when it is set again", async () => {
    const clock = testClock();
    const begunMs = clock.now();
    const calledAtMs: number[] = [];
    const alarm = new Alarm(clock, () => calledAtMs.push(clock.now() - begunMs));
    assert.equal(alarm.isSet, false);
    alarm.set(10);
    alarm.set(30);
    assert.equal(alarm.isSet, true);
    await clock.advance(100);
    assert.deepEqual(calledAtMs, [30]);
    assert.equal(alarm.isSet, false);
    alarm.set(5);
    await clock.advance(100);
    assert.deepEqual(calledAtMs, [30, 105]);
  });

  it("keeps the time that is set when it is only ensured", async () => {
    const clock = testClock();
    const begunMs = clock.now();
    const calledAtMs: number[] = [];
    const alarm = new Alarm(clock, () => calledAtMs.push(clock.now() - begunMs));
    alarm.ensure(30);
    alarm.ensure(10);
    await clock.advance(100);
    alarm.ensure(10);
    await clock.advance(100);
    assert.deepEqual(calledAtMs, [30, 110]);
  });

  it("does not call its action once it is cancelled, until it is set again", async () => {
    const clock = testClock();
    let calls = 0;
    const alarm = new Alarm(clock, () => void calls++);
    alarm.cancel();
    alarm.set(10);
    alarm.cancel();
    assert.equal(alarm.isSet, false);
    await clock.advance(100);
    assert.equal(calls, 0);
    alarm.ensure(10);
    await clock.advance(100);
    assert.equal(calls, 1);
  });

  it("may be set by its own action", async () => {
    const clock = testClock();
    let calls = 0;
    const alarm: Alarm = new Alarm(clock, () => {
      if (++calls < 3) alarm.ensure(10);
    });
    alarm.set(10);
    await clock.advance(1_000);
    assert.equal(calls, 3);
  });
});
