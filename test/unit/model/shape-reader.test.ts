import assert from "node:assert/strict";
import { test } from "node:test";
import type { JsonObject } from "../../../src/model/instance.js";
import { KeptShape } from "../../../src/model/shape-reader.js";
import { type Shape, upstreamShape } from "../../../src/model/shapes.js";

/** A shape, and how often all of its fields were looked at. */
function counted(shape: Shape): { readonly shape: Shape; readonly looks: () => number } {
  let looks = 0;
  const observed = new Proxy(shape, {
    ownKeys(target) {
      looks++;
      return Reflect.ownKeys(target);
    },
  });
  return { shape: observed, looks: () => looks };
}

const UPSTREAM: JsonObject = { DestinationName: "db", LocalBindPort: 5432 };

for (const [what, use] of Object.entries({
  "are read": (kept: KeptShape): unknown => kept.kept(UPSTREAM, "upstream"),
  "get the names of the library": (kept: KeptShape): unknown => kept.ownForm(UPSTREAM),
  "get the names of Consul": (kept: KeptShape): unknown => kept.consulForm({ destinationName: "db" }),
})) {
  test(`a shape is worked out once, however many records of it ${what}`, () => {
    const { shape, looks } = counted(upstreamShape);
    const kept = new KeptShape(shape);
    use(kept);
    const first = looks();
    assert.ok(first > 0, "the shape was looked at");
    for (let record = 0; record < 1_000; record++) use(kept);
    assert.equal(looks(), first);
  });
}

test("records of one shape that are kept have the names that are asked for", () => {
  const kept = new KeptShape(upstreamShape);
  assert.deepEqual(kept.ownForm(UPSTREAM), { destinationName: "db", localBindPort: 5432 });
  assert.deepEqual(kept.consulForm({ destinationName: "db", localBindPort: 5432 }), UPSTREAM);
  assert.deepEqual(kept.kept(UPSTREAM, "upstream"), UPSTREAM);
});
