import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Answer } from "../../../src/http/answer.js";
import { type Asked, SharedAnswers } from "../../../src/http/shared-answers.js";

const identity = { accessorId: "a" };
const caller = { signal: new AbortController().signal, giveTurn: () => {} };
const asked = (index: bigint): Asked => ({ index, identity });

/** Counts what it makes. */
function maker(): { readonly make: () => Promise<Answer>; readonly made: () => number } {
  let made = 0;
  return { make: async () => ({ text: `answer ${++made}` }), made: () => made };
}

describe("an answer that several wait for", () => {
  it("is made once for all that one change has woken", async () => {
    const shared = new SharedAnswers();
    const { make, made } = maker();
    const calls = Array.from({ length: 10 }, () => shared.join("question"));
    for (const call of calls) call.woken();
    const answers = await Promise.all(calls.map((call) => call.answer(asked(5n), caller, make)));
    assert.deepEqual([made(), new Set(answers).size], [1, 1]);
  });

  it("is made for each question and identity, and for those who did not wait", async () => {
    const shared = new SharedAnswers();
    const { make, made } = maker();
    const calls = [
      [shared.join("question"), identity],
      [shared.join("another"), identity],
      [shared.join("question"), { accessorId: "a" }],
      [shared.join("question"), undefined],
    ] as const;
    for (const [call] of calls) call.woken();
    for (const [call, each] of calls) await call.answer({ index: 5n, identity: each }, caller, make);
    assert.equal(made(), 4);
    await shared.join("question").answer(asked(5n), caller, make);
    assert.equal(made(), 5);
  });

  it("is created again for a later index, and when no call is left that the change has woken", async () => {
    const shared = new SharedAnswers();
    const { make, made } = maker();
    const [one, other] = [shared.join("question"), shared.join("question")];
    for (const call of [one, other]) call.woken();
    await one.answer(asked(5n), caller, make);
    await other.answer(asked(6n), caller, make);
    assert.equal(made(), 2);
    one.leave();
    other.asleep();
    other.woken();
    await other.answer(asked(6n), caller, make);
    assert.equal(made(), 3);
  });

  it("is not given to callers that left while it was made", async () => {
    const shared = new SharedAnswers();
    const [one, other] = [shared.join("question"), shared.join("question")];
    for (const call of [one, other]) call.woken();
    const gone = new AbortController();
    let finish = (): void => {};
    const half = one.answer(asked(5n), { ...caller, signal: gone.signal }, async () => {
      await new Promise<void>((resolve) => {
        finish = resolve;
      });
      return { text: "half" };
    });
    const whole = other.answer(asked(5n), caller, async () => ({ text: "whole" }));
    gone.abort(new Error("gone"));
    finish();
    await assert.rejects(half, /^Error: gone$/);
    assert.deepEqual(await whole, { text: "whole" });
  });

  it("fails for all of them when it fails", async () => {
    const shared = new SharedAnswers();
    const calls = [shared.join("question"), shared.join("question")];
    for (const call of calls) call.woken();
    const fail = async (): Promise<Answer> => {
      throw new Error("no storage");
    };
    for (const call of calls) await assert.rejects(call.answer(asked(5n), caller, fail), /^Error: no storage$/);
  });
});
