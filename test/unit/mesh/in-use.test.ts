import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InUse } from "../../../src/mesh/in-use.js";

describe("values in use", () => {
  it("are made once for all users, and kept until the last one gives them up", () => {
    const values = new InUse<object>();
    const [first, second] = [new Set<string>(), new Set<string>()];
    const made = values.use("a", first, () => ({}));
    assert.equal(
      values.use("a", first, () => ({})),
      made,
    );
    assert.equal(
      values.use("a", second, () => ({})),
      made,
    );
    values.release(first);
    assert.equal(
      values.use("a", second, () => ({})),
      made,
    );
    values.release(second);
    assert.equal(values.size, 0);
    assert.notEqual(
      values.use("a", first, () => ({})),
      made,
    );
  });

  it("are given up once, however often their user says so", () => {
    const values = new InUse<object>();
    const [first, second] = [new Set<string>(), new Set<string>()];
    values.use("a", first, () => ({}));
    values.use("a", second, () => ({}));
    values.release(first);
    values.release(first);
    assert.equal(values.size, 1);
  });
});
