import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemClock } from "../../../src/base/environment.js";
import type { Peering } from "../../../src/peering/peering.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { encodePeering, encodeSecrets } from "../../../src/stores/record-codec.js";
import { PeeringRecords } from "../../../src/stores/records.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { plainSecretBox } from "../../../src/trust/secret-box.js";
import { encodeTrustBundle } from "../../../src/trust/trust-bundle-store.js";
import { blankPeering } from "../../support/peerings.js";
import { storageWith } from "../../support/storage.js";
import { OWN_TRUST_DOMAIN, seededRandom } from "./records-fixture.js";

const ids = ["11111111-0000-0000-0000-000000000001", "11111111-0000-0000-0000-000000000002"] as const;
const [root1 = "", root2 = ""] = fixedRootPems;

function peering(id: string, name: string, state: Peering["state"]): Peering {
  return { ...blankPeering, id, name, state };
}

/** As an early version of 0.1 stored two peerings; the first is changed once more. */
async function former(storage: Storage): Promise<void> {
  const text = (value: string): Uint8Array => new TextEncoder().encode(value);
  for (const [index, id] of ids.entries()) {
    const name = `peer-${index}`;
    const bundle = {
      peerName: name,
      trustDomain: "x.consul",
      rootPems: [[root1, root2][index] ?? ""],
      exportedPartition: "",
    };
    await storage.commit([
      { key: ["peerings", id], value: encodePeering(peering(id, name, index === 0 ? "pending" : "terminated")) },
      { key: ["peering-names", name], value: text(id) },
      { key: ["peering-gates", id], value: new Uint8Array() },
      {
        key: ["peering-secrets", id],
        value: encodeSecrets({ role: "acceptor", establishment: "", pending: "", active: "" }),
      },
      { key: ["trust-bundles", name], value: encodeTrustBundle(bundle) },
    ]);
  }
}

function open(storage: Storage): Promise<PeeringRecords> {
  return PeeringRecords.open({
    storage,
    clock: systemClock,
    random: seededRandom(),
    secretBox: plainSecretBox,
    trustDomain: OWN_TRUST_DOMAIN,
  });
}

describe("peerings of an early version of 0.1", () => {
  it("are there again, with their indexes, secrets, fences and the order of their trust domains", async () => {
    const storage = memoryStorage();
    await former(storage);
    await using records = await open(storage);
    assert.deepEqual(
      records.list().map(({ name, state, createIndex }) => [name, state, createIndex]),
      [
        ["peer-0", "pending", 1n],
        ["peer-1", "terminated", 2n],
      ],
    );
    assert.equal(records.tables.secrets.size, 2);
    assert.deepEqual(
      records.trustBundles().map(({ peerName }) => peerName),
      ["peer-0"],
    );
    await storage.commit([{ key: ["imports", ids[0], "web"], value: new Uint8Array() }], records.expectation(ids[0]));
    const { entries } = await storage.read([]);
    assert.deepEqual([...new Set(entries.map(({ key }) => key[0]))].sort(), ["imports", "peerings"]);
    assert.ok(entries.every(({ key }) => key.length === 3 || key[1] === "head"));
  });

  it("are looked for once: a later start reads the head of the peerings, and no other prefix", async () => {
    const storage = memoryStorage();
    await former(storage);
    await (await open(storage))[Symbol.asyncDispose]();
    const asked: string[] = [];
    const counting = storageWith(storage, {
      read: (prefix, signal) => {
        asked.push(`read ${prefix.join("/")}`);
        return storage.read(prefix, signal);
      },
      pages: (prefix, bytes, signal) => {
        asked.push(`pages ${prefix.join("/")}`);
        return storage.pages(prefix, bytes, signal);
      },
    });
    await using records = await open(counting);
    assert.equal(records.list().length, 2);
    assert.deepEqual(asked.slice(0, 2), ["read peerings/head", "pages peerings"]);
    assert.ok(
      asked.every((each) => each.endsWith("peerings") || each.endsWith("peerings/head")),
      asked.join(),
    );
  });

  it("are moved once by two processes that start together: later changes of the first one stay", async () => {
    const storage = memoryStorage();
    await former(storage);
    let done = false;
    const slow = storageWith(storage, {
      async *pages(prefix, bytes, signal) {
        yield* storage.pages(prefix, bytes, signal);
        // The slow host's read of the last prefix is old by the time it writes.
        if (prefix[0] !== "peering-names" || done) return;
        done = true;
        await using fast = await open(storage);
        await fast.generateToken({ peerName: "peer-0" });
        await fast.markDeleting("peer-1");
        await fast.remove(ids[1]);
      },
    });
    await using records = await open(slow);
    assert.ok(done);
    assert.deepEqual(
      records.list().map(({ name }) => name),
      ["peer-0"],
    );
    assert.deepEqual(
      records.outstandingTokens().map(({ name }) => name),
      ["peer-0"],
    );
  });

  it("are moved in commits that the storage takes, and the rest after a crash", async () => {
    const storage = memoryStorage({ limits: { writes: 4 } });
    const whole = memoryStorage();
    await former(whole);
    for (const { key, value } of (await whole.read([])).entries) await storage.commit([{ key, value }]);
    let left = 3;
    const crashing: Storage = {
      limits: storage.limits,
      read: (...given) => storage.read(...given),
      pages: (...given) => storage.pages(...given),
      changes: (...given) => storage.changes(...given),
      commit: (...given) => (left-- > 0 ? storage.commit(...given) : Promise.reject(new Error("crash"))),
      [Symbol.asyncDispose]: async () => {},
    };
    await assert.rejects(open(crashing), /crash/);
    await using records = await open(storage);
    assert.equal(records.list().length, 2);
    assert.equal(records.tables.secrets.size, 2);
    assert.equal(records.tables.bundles.size, 2);
  });
});
