import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Incidents } from "../../../src/base/incidents.js";
import { type Json, JsonWriter, writeJson } from "../../../src/http/json.js";
import { KeptTexts } from "../../../src/http/kept-texts.js";
import { derived, type Listing } from "../../../src/model/listing.js";

interface Item {
  readonly id: number;
  readonly text: string;
}

const MIB = 1_024 * 1_024;

/** All pieces of a value. */
function pieces(json: Json): readonly Buffer[] {
  const writer = new JsonWriter(json);
  const made: Buffer[] = [];
  while (!writer.done) made.push(writer.piece(64 * 1_024));
  return made;
}

const textOf = (json: Json): string => Buffer.concat([...pieces(json)]).toString();
const listOf = (items: readonly Item[]): Listing<Item> => derived(items, (item) => item);
const items = (count: number, length: number, first = 0): Item[] =>
  Array.from({ length: count }, (_, index) => ({ id: first + index, text: "x".repeat(length) }));

describe("the kept texts of lists", () => {
  it("of a map are in the order of its keys, also where one that is not takes the place of one that was", async () => {
    const kept = new KeptTexts(MIB, new Incidents());
    const keyOf = ({ id }: Item): string => String(id).padStart(9, "0");
    const all = items(100, 10, 100);
    for (const now of [all, all.with(50, { id: 1, text: "first" }), all.with(0, { id: 500, text: "last" }), all]) {
      const json = await kept.map("form", listOf(now), keyOf, (item) => ({ ...item }));
      assert.equal(textOf(json), writeJson(new Map(now.map((item) => [keyOf(item), { ...item }]))));
    }
  });

  it("show what the elements are, whatever came, went and changed, and in whatever order", async () => {
    const changes = fc.array(
      fc.record({
        place: fc.nat(),
        remove: fc.nat(40),
        add: fc.nat(40),
        length: fc.constantFrom(1, 300, 3_000),
        long: fc.nat(7),
      }),
      { minLength: 1, maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(changes, fc.boolean(), async (steps, isMap) => {
        const kept = new KeptTexts(MIB, new Incidents());
        let now: Item[] = items(100, 500);
        let next = 1_000;
        const json = async (): Promise<Json> =>
          isMap
            ? kept.map(
                "form",
                listOf(now),
                ({ id }) => String(id).padStart(9, "0"),
                (item) => ({ ...item }),
              )
            : kept.list("form", listOf(now), (item) => ({ ...item }));
        const plain = (): Json =>
          isMap
            ? new Map(now.map((item) => [String(item.id).padStart(9, "0"), { ...item }]))
            : now.map((item) => ({ ...item }));
        for (const { place, remove, add, length, long } of steps) {
          const at = place % (now.length + 1);
          now = now.toSpliced(
            at,
            remove,
            ...items(add, length, next),
            ...items(long === 0 ? 1 : 0, 300_000, next + add),
          );
          if (isMap) now.sort((left, right) => left.id - right.id);
          next += add + 1;
          for (let time = 0; time < 2; time++) assert.equal(textOf(await json()), writeJson(plain()));
          assert.ok(kept.bytes <= MIB);
        }
      }),
      { numRuns: 12 },
    );
  });

  it("are written again where an element has changed, and only near it", () => {
    const kept = new KeptTexts(10 * MIB, new Incidents());
    let written = 0;
    const show = (shown: readonly Item[], basis = 0n): string =>
      textOf(
        kept.list(
          "form",
          listOf(shown),
          (item) => {
            written++;
            return { ...item };
          },
          basis,
        ),
      );
    const before = items(2_000, 1_000);
    const after = before.with(1_234, { id: -1, text: "other" });
    show(before);
    assert.equal(written, 2_000);
    written = 0;
    assert.ok(show(after).includes("other"));
    assert.ok(written > 0 && written < 100, `${written} elements`);
    written = 0;
    show(after);
    assert.equal(written, 0);
    show(after, 1n);
    assert.equal(written, 2_000);
  });

  it("are not given to a list that shows other records, such as those that another caller may see", () => {
    const kept = new KeptTexts(10 * MIB, new Incidents());
    const all = items(200, 1_000);
    textOf(kept.list("form", listOf(all), (item) => ({ ...item })));
    const some = all.filter(({ id }) => id % 7 !== 3);
    assert.deepEqual(JSON.parse(textOf(kept.list("form", listOf(some), (item) => ({ ...item })))), some);
  });

  it("of a list inside of another are kept where the outer one is too long for that", () => {
    const kept = new KeptTexts(10 * MIB, new Incidents());
    let written = 0;
    const inner = items(1_000, 1_000);
    const outer = Array.from({ length: 40 }, (_, id) => ({ id, text: "" }));
    const show = (): string =>
      textOf(
        kept.list("outer", listOf(outer), ({ id }) =>
          id !== 20
            ? { id }
            : {
                id,
                Inner: kept.list("inner", listOf(inner), (item) => {
                  written++;
                  return { ...item };
                }),
              },
        ),
      );
    const first = show();
    written = 0;
    assert.equal(show(), first);
    assert.ok(written < 400, `${written} elements`);
  });

  it("take no more memory than they may: what was asked for long ago goes first, and lists that do not fit are written each time", () => {
    const incidents = new Incidents();
    const kept = new KeptTexts(MIB, incidents);
    const show = (form: string, count: number): void => {
      textOf(kept.list(form, listOf(items(count, 1_000)), (item) => ({ ...item })));
    };
    show("a", 500);
    assert.ok(kept.bytes > MIB / 3);
    show("large", 2_000);
    assert.ok(kept.bytes <= MIB);
    assert.ok((incidents.counts().get("kept-texts-full") ?? 0) > 0);
  });

  it("are those of JSON that is not written for people", () => {
    const kept = new KeptTexts(MIB, new Incidents());
    const all = items(50, 10);
    const json = kept.list("form", listOf(all), (item) => ({ ...item }));
    textOf(json);
    const writer = new JsonWriter(json, true);
    let text = "";
    while (!writer.done) text += writer.piece(1_000).toString();
    assert.equal(
      text,
      writeJson(
        all.map((item) => ({ ...item })),
        true,
      ),
    );
  });
});
