import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Incidents } from "../../../src/base/incidents.js";
import { Signal } from "../../../src/base/signal.js";

describe("Signal", () => {
  it("calls its listeners with the values, in the order in which they were added, until they are removed", () => {
    const signal = new Signal<[string, number]>();
    const heard: string[] = [];
    const end = signal.on((text, count) => heard.push(`first ${text} ${count}`));
    signal.on((text) => heard.push(`second ${text}`));
    signal.emit("a", 1);
    end();
    end();
    signal.emit("b", 2);
    assert.deepEqual(heard, ["first a 1", "second a", "second b"]);
  });

  it("calls a listener that was added twice twice, and removing one of them leaves the other", () => {
    const signal = new Signal();
    let calls = 0;
    const listener = (): void => void calls++;
    const end = signal.on(listener);
    signal.on(listener);
    signal.emit();
    assert.equal(calls, 2);
    end();
    end();
    signal.emit();
    assert.equal(calls, 3);
    assert.equal(signal.size, 1);
  });

  it("calls every listener whatever another one throws, and reports each failure", () => {
    const incidents = new Incidents();
    const signal = new Signal<[string]>(incidents);
    const heard: string[] = [];
    signal.on(() => {
      throw new Error("first");
    });
    signal.on((text) => heard.push(text));
    signal.on(() => {
      throw "second";
    });
    signal.on((text) => heard.push(text));
    signal.emit("x");
    assert.deepEqual(heard, ["x", "x"]);
    assert.equal(incidents.counts().get("event-listener-failed"), 2);
    signal.emit("y");
    assert.deepEqual(heard, ["x", "x", "y", "y"], "a listener that threw is called again");
    assert.equal(incidents.counts().get("event-listener-failed"), 4);
  });

  it("throws the errors of listeners where there are no incidents, after all listeners were called", () => {
    const signal = new Signal();
    let calls = 0;
    const failure = new Error("no");
    signal.on(() => {
      throw failure;
    });
    signal.on(() => calls++);
    assert.throws(() => signal.emit(), failure);
    assert.equal(calls, 1);
    signal.on(() => {
      throw new Error("another");
    });
    assert.throws(() => signal.emit(), AggregateError);
    assert.equal(calls, 2);
  });

  it("does not call a listener that another one has removed, nor one that was added meanwhile", () => {
    const signal = new Signal();
    const heard: string[] = [];
    signal.on(() => {
      heard.push("first");
      endThird();
      if (heard.length === 1) signal.on(() => heard.push("late"));
    });
    signal.on(() => heard.push("second"));
    const endThird = signal.on(() => heard.push("third"));
    signal.emit();
    assert.deepEqual(heard, ["first", "second"]);
    signal.emit();
    assert.deepEqual(heard, ["first", "second", "first", "second", "late"]);
  });

  it("lets a listener emit again: each event reaches all", () => {
    const signal = new Signal<[number]>();
    const heard: number[] = [];
    signal.on((value) => {
      if (value > 0) signal.emit(value - 1);
    });
    signal.on((value) => heard.push(value));
    signal.emit(2);
    assert.deepEqual(heard, [0, 1, 2]);
  });

  it("ends the wait of all who wait for the next event, and keeps no listener of theirs", async () => {
    const signal = new Signal<[string]>();
    const ended: string[] = [];
    const waits = ["first", "second"].map((name) => signal.next().then(() => ended.push(name)));
    await setImmediate();
    assert.deepEqual([ended, signal.size], [[], 2]);
    signal.emit("now");
    await Promise.all(waits);
    assert.deepEqual([ended, signal.size], [["first", "second"], 0]);
    const next = signal.next().then(() => ended.push("third"));
    await setImmediate();
    assert.equal(ended.length, 2, "an event of the past ends no wait");
    signal.emit("again");
    await next;
  });

  it("keeps nothing of listeners that were removed or cleared", () => {
    const signal = new Signal();
    const ends = Array.from({ length: 100 }, () => signal.on(() => assert.fail("it was removed")));
    assert.equal(signal.size, 100);
    for (const end of ends.slice(0, 50)) end();
    assert.equal(signal.size, 50);
    signal.clear();
    assert.equal(signal.size, 0);
    signal.emit();
  });
});
