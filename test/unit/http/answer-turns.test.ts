import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { type Answerer, AnswerTurns, type Unread } from "../../../src/http/answer-turns.js";
import { testClock } from "../../../src/testing/index.js";

const LIMITS = { atOnce: 3, unsentPerConnection: 10, unsentPerSource: 20, unsentInAll: 40, slowReaderMs: 5_000 };

interface Asked {
  readonly answerer: Answerer;
  started: boolean;
}

/** Turns that are watched: none may begin beyond a limit. */
class Watched {
  readonly clock = testClock();
  readonly turns = new AnswerTurns(LIMITS, (what) => this.unread.push(what), this.clock);
  readonly unread: Unread[] = [];
  readonly unsent = new Map<unknown, number>();
  making = 0;

  ask(answerer: Answerer): Asked {
    const asked: Asked = { answerer, started: false };
    this.turns.wait(answerer, () => {
      asked.started = true;
      assert.ok(++this.making <= LIMITS.atOnce);
      assert.ok(this.of(answerer.connection) < LIMITS.unsentPerConnection);
      assert.ok(this.of(answerer.source) < LIMITS.unsentPerSource);
      assert.ok(this.of("all") < LIMITS.unsentInAll);
    });
    return asked;
  }

  of(key: unknown): number {
    return this.unsent.get(key) ?? 0;
  }

  made(answerer: Answerer, bytes: number): void {
    this.#count(answerer, bytes);
    this.turns.hold(answerer, bytes);
    this.making--;
    this.turns.done();
  }

  sent(answerer: Answerer, bytes: number): void {
    this.#count(answerer, -bytes);
    this.turns.release(answerer, bytes);
  }

  #count({ source, connection }: Answerer, bytes: number): void {
    for (const key of [source, connection, "all"]) this.unsent.set(key, this.of(key) + bytes);
  }
}

const answererOf = (source: string, connection: object = {}): Answerer => ({ source, connection, cutOff: () => {} });

async function started(asked: readonly Asked[]): Promise<readonly boolean[]> {
  for (let turn = 0; turn <= asked.length; turn++) await setImmediate();
  return asked.map((each) => each.started);
}

describe("turns to answer", () => {
  it("come at once where no other answer waits, then one with each turn of the event loop", async () => {
    const watched = new Watched();
    const asked = Array.from({ length: LIMITS.atOnce }, () => watched.ask(answererOf("a")));
    const counts: number[] = [];
    for (let turn = 0; turn < LIMITS.atOnce; turn++) {
      counts.push(asked.filter((each) => each.started).length);
      await setImmediate();
    }
    assert.deepEqual(counts, [1, 2, 3]);
  });

  it("are few at the same time: the next comes when an answer is made, or there is none", async () => {
    const watched = new Watched();
    const asked = Array.from({ length: 5 }, () => watched.ask(answererOf("a")));
    assert.deepEqual(await started(asked), [true, true, true, false, false]);
    watched.made(answererOf("a"), 1);
    assert.deepEqual(await started(asked), [true, true, true, true, false]);
  });

  it("come to each source in turn, and to each connection of a source, however many ask before", async () => {
    const watched = new Watched();
    const [first, second] = [{}, {}];
    const many = Array.from({ length: 10 }, () => watched.ask(answererOf("a", first)));
    const other = watched.ask(answererOf("a", second));
    const few = watched.ask(answererOf("b"));
    assert.deepEqual(await started([few]), [true]);
    assert.ok(!other.started);
    watched.made(answererOf("a", first), 0);
    assert.deepEqual(await started([other]), [true]);
    assert.equal(many.filter((each) => each.started).length, 2);
  });

  it("do not come to a connection, a source, or anyone, as long as too much is unread, and then to others", async () => {
    const watched = new Watched();
    const [reads, readsNot] = [answererOf("a"), answererOf("a")];
    watched.ask(readsNot);
    watched.made(readsNot, LIMITS.unsentPerConnection);
    const [blocked, free] = [watched.ask(readsNot), watched.ask(reads)];
    assert.deepEqual(await started([blocked, free]), [false, true]);
    watched.made(reads, LIMITS.unsentPerSource - LIMITS.unsentPerConnection);
    const [third, elsewhere] = [watched.ask(answererOf("a")), watched.ask(answererOf("b"))];
    assert.deepEqual(await started([blocked, third, elsewhere]), [false, false, true]);
    watched.made(elsewhere.answerer, LIMITS.unsentInAll - LIMITS.unsentPerSource);
    // A turn in which nothing else was asked: who comes then would begin at once.
    assert.deepEqual(await started([blocked, third]), [false, false]);
    const last = watched.ask(answererOf("c"));
    assert.deepEqual(await started([blocked, third, last]), [false, false, false]);
    watched.sent(readsNot, 1);
    assert.deepEqual(await started([blocked, third, last]), [true, true, true]);
    assert.deepEqual(watched.unread, ["connection", "source", "all"]);
  });

  it("come to the pieces of answers that are begun, and to new answers, in turn, whatever others have not read", async () => {
    const watched = new Watched();
    const order: string[] = [];
    const answerer = answererOf("a");
    const piece = (): void => {
      order.push("piece");
      if (order.length < 12) watched.turns.goOn(answerer, piece);
    };
    const fresh = (): void => {
      order.push("new");
      watched.turns.done();
      if (order.length < 12) watched.turns.wait(answererOf("a"), fresh);
    };
    watched.turns.goOn(answerer, piece);
    watched.turns.wait(answererOf("a"), fresh);
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    assert.deepEqual(order.slice(1, 9), ["piece", "new", "piece", "new", "piece", "new", "piece", "new"]);
    watched.made(answererOf("b"), LIMITS.unsentInAll);
    let went = false;
    watched.turns.goOn(answerer, () => {
      went = true;
    });
    for (let turn = 0; turn < 3; turn++) await setImmediate();
    assert.ok(went);
  });

  it("do not come where too much is kept, of which what several have is counted once", async () => {
    const watched = new Watched();
    const answerers = [answererOf("a"), answererOf("a"), answererOf("b")];
    const kept = {};
    const leave = answerers.map((answerer) => watched.turns.share(answerer, kept, LIMITS.unsentPerSource - 1));
    assert.deepEqual(await started([watched.ask(answererOf("a"))]), [true]);
    watched.turns.keep(answererOf("a"), 1);
    const held = watched.ask(answererOf("a"));
    assert.deepEqual(await started([held, watched.ask(answererOf("b"))]), [false, true]);
    // The share of the first two belongs to the last one now.
    leave[0]?.();
    assert.deepEqual(await started([held]), [false]);
    leave[1]?.();
    assert.deepEqual(await started([held]), [true]);
    watched.turns.keep(answererOf("b"), 1);
    watched.turns.done();
    assert.deepEqual(await started([watched.ask(answererOf("b"))]), [false]);
  });

  it("come to those who wait once the longest of the slow readers for whom they do has been cut off", async () => {
    const clock = testClock();
    const turns = new AnswerTurns(LIMITS, () => {}, clock);
    const cut: string[] = [];
    const reader = (name: string, source: string, bytes: number): void => {
      const answerer = {
        ...answererOf(source),
        cutOff: () => {
          cut.push(name);
          turns.release(answerer, bytes);
        },
      };
      turns.hold(answerer, bytes);
    };
    reader("of another source", "b", LIMITS.unsentPerSource - 1);
    await clock.advance(1);
    reader("first", "a", LIMITS.unsentPerSource - 1);
    await clock.advance(1);
    reader("second", "a", 1);
    await clock.advance(LIMITS.slowReaderMs);
    assert.deepEqual(cut, [], "no answer waits");
    let begun = false;
    turns.wait(answererOf("a"), () => {
      begun = true;
    });
    for (let turn = 0; turn < 3; turn++) await setImmediate();
    assert.deepEqual([cut, begun], [["first"], true]);
    // All together: the source that has most.
    reader("third", "c", LIMITS.unsentInAll);
    await clock.advance(LIMITS.slowReaderMs - 1);
    turns.wait(answererOf("d"), () => {});
    for (let turn = 0; turn < 3; turn++) await setImmediate();
    await clock.advance(1);
    assert.deepEqual(cut, ["first", "third"]);
  });

  it("come to everybody in the end who has not given up, whatever happens in whichever order", async () => {
    const action = fc.record({
      what: fc.constantFrom("ask", "give up", "made", "sent"),
      source: fc.constantFrom("a", "b", "c"),
      connection: fc.nat(2),
      bytes: fc.nat(15),
      turns: fc.nat(2),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const watched = new Watched();
        const connections = new Map<string, object>();
        const waiting = new Set<{ readonly asked: Asked; readonly giveUp: () => void }>();
        const making: Answerer[] = [];
        const unread: { readonly answerer: Answerer; readonly bytes: number }[] = [];
        const collect = (): void => {
          for (const each of waiting) {
            if (!each.asked.started) continue;
            waiting.delete(each);
            making.push(each.asked.answerer);
          }
        };
        const send = (): void => {
          const next = unread.shift();
          if (next !== undefined) watched.sent(next.answerer, next.bytes);
        };
        const make = (bytes: number): void => {
          const answerer = making.shift();
          if (answerer === undefined) return;
          watched.made(answerer, bytes);
          unread.push({ answerer, bytes });
        };
        for (const { what, source, connection: number, bytes, turns } of actions) {
          const key = `${source}${number}`;
          const connection = connections.get(key) ?? {};
          connections.set(key, connection);
          if (what === "ask") {
            const asked: Asked = { answerer: answererOf(source, connection), started: false };
            const giveUp = watched.turns.wait(asked.answerer, () => {
              asked.started = true;
              assert.ok(++watched.making <= LIMITS.atOnce);
              for (const [what, limit] of [
                [connection, LIMITS.unsentPerConnection],
                [source, LIMITS.unsentPerSource],
                ["all", LIMITS.unsentInAll],
              ] as const) {
                assert.ok(watched.of(what) < limit);
              }
            });
            waiting.add({ asked, giveUp });
          } else if (what === "give up") {
            const [first] = waiting;
            if (first !== undefined && !first.asked.started) {
              first.giveUp();
              waiting.delete(first);
            }
          } else if (what === "made") make(bytes);
          else send();
          for (let turn = 0; turn < turns; turn++) await setImmediate();
          collect();
        }
        for (let round = 0; round < 300 && waiting.size + making.length > 0; round++) {
          make(0);
          send();
          await setImmediate();
          collect();
        }
        assert.equal(waiting.size, 0);
      }),
      { numRuns: 100 },
    );
  });
});
