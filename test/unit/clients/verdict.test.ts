import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { goTestOutcomes, type Outcome, outcomesOf } from "../../../clients/client.js";
import { judge } from "../../../clients/verdict.js";

const passed = (check: string): Outcome => ({ check, passed: true, message: "" });
const failed = (check: string): Outcome => ({ check, passed: false, message: "why" });
const nothingKnown = { differences: [] };

describe("the verdict on a client", () => {
  it("is good when both sides pass", () => {
    const verdict = judge(nothingKnown, [passed("a"), passed("b")], [passed("a"), passed("b")]);
    assert.deepEqual(verdict, { consul: "2 of 2", peerage: "2 of 2", lines: [], failed: false });
  });

  it("is bad for a check that fails at Peerage and has no reason", () => {
    const verdict = judge(nothingKnown, [passed("a")], [failed("a")]);
    assert.deepEqual([verdict.failed, verdict.peerage], [true, "0 of 1"]);
    assert.deepEqual(verdict.lines, ["WRONG: a fails at Peerage: why"]);
  });

  it("is good for a difference that has a reason, and shows it", () => {
    const known = { differences: [{ reason: "not served.", checks: ["a"] }] };
    const verdict = judge(known, [passed("a"), passed("b")], [failed("a"), passed("b")]);
    assert.deepEqual(verdict, { consul: "2 of 2", peerage: "1 of 2", lines: ["a: not served."], failed: false });
  });

  it("is bad for a reason whose check passes, or is not made", () => {
    const known = { differences: [{ reason: "not served.", checks: ["a"] }] };
    assert.equal(judge(known, [passed("a")], [passed("a")]).failed, true);
    assert.equal(judge(known, [passed("b")], [passed("b")]).failed, true);
  });

  it("is bad for a check that fails at Consul, unless it is known to fail there, and then it counts for nobody", () => {
    assert.equal(judge(nothingKnown, [failed("a")], [passed("a")]).failed, true);
    const known = { differences: [], failAtConsul: [{ reason: "wants a container.", checks: ["a"] }] };
    const verdict = judge(known, [failed("a"), passed("b")], [failed("a"), passed("b")]);
    assert.deepEqual([verdict.failed, verdict.consul, verdict.peerage], [false, "1 of 1", "1 of 1"]);
    assert.equal(judge(known, [passed("a")], [passed("a")]).failed, true);
  });

  it("takes either from a check that some builds of Consul fail, but Peerage must pass it", () => {
    const known = { differences: [], failAtSomeConsuls: [{ reason: "refuses names.", checks: ["a"] }] };
    assert.equal(judge(known, [failed("a")], [passed("a")]).failed, false);
    assert.equal(judge(known, [passed("a")], [passed("a")]).failed, false);
    assert.equal(judge(known, [failed("a")], [failed("a")]).failed, true);
  });

  it("is bad for a check that only one side made", () => {
    assert.equal(judge(nothingKnown, [passed("a"), passed("b")], [passed("a")]).failed, true);
    assert.equal(judge(nothingKnown, [passed("a")], [passed("a"), passed("b")]).failed, true);
  });

  it("judges Peerage alone where there is no Consul", () => {
    assert.equal(judge(nothingKnown, undefined, [passed("a")]).failed, false);
    assert.equal(judge(nothingKnown, undefined, [failed("a")]).failed, true);
  });
});

describe("what a client printed", () => {
  it("is read line by line", () => {
    const outcomes = outcomesOf({ output: "noise\nok one\nnot ok two: 1 !== 2\n", code: 0 });
    const two = { check: "two", passed: false, message: "1 !== 2" };
    assert.deepEqual(outcomes, [passed("one"), two, passed("runs to its end")]);
  });

  it("is not enough when it printed nothing, or ended badly", () => {
    for (const result of [
      { output: "", code: 0 },
      { output: "ok one\n", code: 1 },
    ]) {
      assert.equal(outcomesOf(result).at(-1)?.passed, false);
    }
  });

  it("of Go tests counts each test, and what the failed ones said", () => {
    const output = [
      ...["=== RUN   TestA", "    a_test.go:7: bad value", "--- FAIL: TestA (0.1s)"],
      ...["=== RUN   TestB", "--- PASS: TestB (0.1s)", "--- SKIP: TestC (0.0s)", "FAIL", ""],
    ].join("\n");
    const outcomes = goTestOutcomes({ output, code: 1 });
    const one = { check: "TestA", passed: false, message: "a_test.go:7: bad value" };
    assert.deepEqual(outcomes, [one, passed("TestB"), passed("runs to its end")]);
    assert.equal(goTestOutcomes({ output: `${output}\npanic: oh`, code: 2 }).at(-1)?.passed, false);
    assert.equal(goTestOutcomes({ output: "", code: 0 }).at(-1)?.passed, false);
  });
});
