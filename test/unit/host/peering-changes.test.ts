import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { applyPatches, enablePatches, type Patch } from "immer";
import type { Peering } from "../../../src/peering/peering.js";
import type { PeeringPatch } from "../../../src/peering/state-machine.js";
import { type PeeringChange, patchesBetween, UnreadPatches, wholeRecord } from "../../../src/stores/peering-changes.js";
import { seededRandom } from "../stores/records-fixture.js";

enablePatches();

const RECORD: Peering = {
  id: "id-west",
  name: "west",
  state: "pending",
  meta: { team: "a", tier: "1" },
  peerId: "",
  peerCaPems: ["root 1\n"],
  peerServerName: "",
  peerServerAddresses: [],
  manualServerAddresses: [],
  remote: { partition: "", datacenter: "" },
  createIndex: 1n,
  modifyIndex: 1n,
};

function changeTo(
  before: Peering | undefined,
  peering: Peering | undefined,
  patches?: readonly PeeringPatch[],
): PeeringChange {
  const record = peering ?? before ?? RECORD;
  return {
    peeringId: record.id,
    name: record.name,
    event: undefined,
    before,
    peering,
    patches: patches ?? patchesBetween(before, peering),
    beside: [],
    revision: record.modifyIndex,
  };
}

/** A record as a reader has it who applies patches. */
function patched(record: Peering | undefined, patches: readonly PeeringPatch[]): unknown {
  const copies = patches.map((patch): Patch => ({ ...patch, path: [...patch.path] }));
  // immer applies patches to something: what replaces it as a whole stands alone.
  return applyPatches(
    { record },
    copies.map((patch) => ({ ...patch, path: ["record", ...patch.path] })),
  ).record;
}

describe("patchesBetween", () => {
  it("names the fields that differ, and leads from the one record to the other", () => {
    const after: Peering = { ...RECORD, state: "deleting", deletedAt: 5, meta: { team: "b" }, modifyIndex: 2n };
    const patches = patchesBetween(RECORD, after);
    assert.deepEqual(patches.map(({ op, path }) => `${op} ${path.join(".")}`).sort(), [
      "replace deletedAt",
      "replace meta",
      "replace modifyIndex",
      "replace state",
    ]);
    assert.deepEqual(patched(RECORD, patches), after);
    const back = patchesBetween(after, RECORD);
    assert.ok(back.some(({ op, path }) => op === "remove" && path[0] === "deletedAt"));
    assert.deepEqual(patched(after, back), RECORD);
  });

  it("replaces a record that was made or is removed as a whole, and says nothing of one that is the same", () => {
    assert.deepEqual(patchesBetween(undefined, RECORD), [{ op: "replace", path: [], value: RECORD }]);
    assert.deepEqual(patchesBetween(RECORD, undefined), [{ op: "replace", path: [], value: undefined }]);
    assert.deepEqual(patchesBetween(RECORD, { ...RECORD }), []);
    assert.deepEqual(patchesBetween(undefined, undefined), []);
  });
});

describe("UnreadPatches", () => {
  it("gives the patches of one change as they came, once", () => {
    const unread = new UnreadPatches([RECORD.id]);
    const patches: readonly PeeringPatch[] = [{ op: "replace", path: ["meta", "team"], value: "b" }];
    unread.add(changeTo(RECORD, { ...RECORD, meta: { ...RECORD.meta, team: "b" } }, patches));
    assert.deepEqual(unread.take(), [{ id: RECORD.id, name: "west", patches }]);
    assert.deepEqual(unread.take(), []);
  });

  it("joins the changes of one record field by field, with the newest values", () => {
    const unread = new UnreadPatches([RECORD.id]);
    const first: Peering = { ...RECORD, state: "terminated", meta: { team: "b" } };
    const second: Peering = { ...first, meta: {} };
    unread.add(
      changeTo(RECORD, first, [
        { op: "replace", path: ["state"], value: "terminated" },
        { op: "replace", path: ["meta", "team"], value: "b" },
        { op: "remove", path: ["meta", "tier"] },
      ]),
    );
    unread.add(changeTo(first, second, [{ op: "remove", path: ["meta", "team"] }]));
    const [change] = unread.take();
    assert.deepEqual(change?.patches, [
      { op: "replace", path: ["state"], value: "terminated" },
      { op: "replace", path: ["meta"], value: {} },
    ]);
    assert.deepEqual(patched(RECORD, change?.patches ?? []), second);
  });

  it("tells of a record that was made and changed as it is, and not of one that came and went", () => {
    const unread = new UnreadPatches([]);
    const changed: Peering = { ...RECORD, state: "terminated" };
    unread.add(changeTo(undefined, RECORD));
    unread.add(changeTo(RECORD, changed));
    assert.deepEqual(unread.take(), [{ id: RECORD.id, name: "west", patches: wholeRecord(changed) }]);
    unread.add(changeTo(changed, undefined));
    assert.deepEqual(unread.take(), [{ id: RECORD.id, name: "west", patches: wholeRecord(undefined) }]);
    for (let round = 0; round < 100; round++) {
      const id = `id-${round}`;
      unread.add(changeTo(undefined, { ...RECORD, id }));
      unread.add(changeTo({ ...RECORD, id }, undefined));
    }
    assert.deepEqual(unread.take(), []);
  });

  it("leads every reader to the records of now, however seldom it looks, with no more than a patch per field", () => {
    const random = seededRandom(7);
    const pick = (count: number): number => Math.floor(random.fraction() * count);
    for (let run = 0; run < 200; run++) {
      const records = new Map<string, Peering>();
      const mirror = new Map<string, unknown>();
      const unread = new UnreadPatches([]);
      const look = (): void => {
        for (const { id, patches } of unread.take()) {
          assert.ok(patches.length <= Object.keys(RECORD).length + 1, `${patches.length} patches`);
          const known = mirror.get(id);
          const next = patched(known as Peering | undefined, patches);
          if (next === undefined) mirror.delete(id);
          else mirror.set(id, next);
        }
        assert.deepEqual(new Map([...mirror].toSorted()), new Map([...records].toSorted()));
      };
      for (let step = 0; step < 40; step++) {
        const id = `id-${pick(3)}-${Math.floor(step / 10)}`;
        const before = records.get(id);
        const after: Peering | undefined =
          before !== undefined && pick(4) === 0
            ? undefined
            : {
                ...(before ?? { ...RECORD, id }),
                ...(pick(2) === 0 ? { state: "deleting", deletedAt: step } : { meta: { step: String(step) } }),
                modifyIndex: BigInt(step + 2),
              };
        if (after === undefined) records.delete(id);
        else records.set(id, after);
        unread.add(changeTo(before, after));
        if (pick(5) === 0) look();
      }
      look();
    }
  });
});
