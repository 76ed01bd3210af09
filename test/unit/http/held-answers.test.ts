import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Answer } from "../../../src/http/answer.js";
import { type AskedAt, HeldAnswers, type Holder, type Kept } from "../../../src/http/held-answers.js";

const identity = { accessorId: "a" };
const asked: AskedAt = { index: 5n, identity, state: [1n, 7n] };

/** A call that ends when it is told to. */
class TestCall implements Holder {
  readonly gone = new AbortController();
  readonly kept: Kept[] = [];
  readonly log: string[] = [];
  readonly #whenSent: (() => void)[] = [];

  get signal(): AbortSignal {
    return this.gone.signal;
  }
  giveTurn(): void {
    this.log.push("gives its turn");
  }
  async turn(): Promise<void> {
    this.signal.throwIfAborted();
    this.log.push("has its turn");
  }
  hold(kept: Kept): void {
    this.kept.push(kept);
  }
  whenSent(action: () => void): void {
    this.#whenSent.push(action);
  }
  end(): void {
    for (const action of this.#whenSent.splice(0)) action();
  }
}

/** Counts what it makes; makes nothing before it may. */
class Maker {
  made = 0;
  finish = (): void => {};
  readonly make = async (): Promise<Answer> => {
    this.made++;
    const text = `answer ${this.made}`;
    await new Promise<void>((resolve) => {
      this.finish = resolve;
    });
    return { text };
  };
}

describe("an answer that several ask for at once", () => {
  it("is made once, also for those who ask while it is sent to others, and each notes what it holds", async () => {
    const held = new HeldAnswers();
    const maker = new Maker();
    const [first, second, third] = [new TestCall(), new TestCall(), new TestCall()];
    const answers = [first, second].map((call) => held.answer("question", asked, call, maker.make));
    const kept = { what: {}, bytes: 10, long: true };
    first.kept.push(kept);
    maker.finish();
    assert.deepEqual(await Promise.all(answers), [{ text: "answer 1" }, { text: "answer 1" }]);
    first.end();
    assert.deepEqual(await held.answer("question", asked, third, maker.make), { text: "answer 1" });
    assert.equal(maker.made, 1);
    assert.deepEqual([first.kept, second.kept, third.kept], [[kept], [kept], [kept]]);
    assert.deepEqual([first.log, second.log], [[], ["gives its turn", "has its turn"]]);
  });

  it("is made again when all of its calls have been answered", async () => {
    const held = new HeldAnswers();
    const maker = new Maker();
    for (const text of ["answer 1", "answer 2"]) {
      const call = new TestCall();
      const answer = held.answer("question", asked, call, maker.make);
      maker.finish();
      assert.deepEqual(await answer, { text });
      call.end();
    }
  });

  it("is for those alone who ask the same, with the same rights, after the same write", async () => {
    const others: (readonly [string, AskedAt])[] = [
      ["another", asked],
      ["question", { ...asked, index: 6n }],
      ["question", { ...asked, identity: { accessorId: "a" } }],
      ["question", { ...asked, identity: undefined }],
      ["question", { ...asked, state: [1n, 8n] }],
    ];
    for (const [question, each] of others) {
      const held = new HeldAnswers();
      const maker = new Maker();
      const first = held.answer("question", asked, new TestCall(), maker.make);
      maker.finish();
      await first;
      const other = held.answer(question, each, new TestCall(), maker.make);
      maker.finish();
      await other;
      assert.equal(maker.made, 2);
    }
  });

  it("is made by another call when the one that makes it goes away", async () => {
    const held = new HeldAnswers();
    const maker = new Maker();
    const [first, ...others] = [new TestCall(), new TestCall(), new TestCall()];
    const lost = held.answer("question", asked, first, maker.make);
    const answers = others.map((call) => held.answer("question", asked, call, maker.make));
    first.gone.abort(new Error("gone"));
    first.end();
    maker.finish();
    await assert.rejects(lost, /^Error: gone$/);
    while (maker.made < 2) await Promise.resolve();
    maker.finish();
    assert.deepEqual(await Promise.all(answers), [{ text: "answer 2" }, { text: "answer 2" }]);
  });

  it("fails for those who wait for it, and is made again for the next", async () => {
    const held = new HeldAnswers();
    const fail = async (): Promise<Answer> => {
      throw new Error("no storage");
    };
    const answers = [new TestCall(), new TestCall()].map((call) => held.answer("question", asked, call, fail));
    for (const answer of answers) await assert.rejects(answer, /^Error: no storage$/);
    const answer = await held.answer("question", asked, new TestCall(), async () => ({ text: "made" }));
    assert.deepEqual(answer, { text: "made" });
  });
});
