// Imports stay within their bounds of memory, for any sender and any number of watchers.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { type ImportItem, type ImportLimits, ImportStore } from "../../../src/stores/import-store.js";
import { bytesInUse } from "../../support/heap.js";
import { storageWith } from "../../support/storage.js";
import { payload, wireInstance } from "../payload/import-fixtures.js";

const MiB = 1024 * 1024;
const PEER = "11111111-0000-0000-0000-000000000000";
const OTHER = "22222222-0000-0000-0000-000000000000";

function service(name: string, count: number, port = 80): ImportItem {
  const instances = Array.from({ length: count }, (_, index) =>
    wireInstance(name, { node: `n${index}`, id: `${name}-${index}`, port, status: "passing" }),
  );
  return { type: "service", name, value: payload(...instances) };
}

/** Refusals, by their code and whether they say why. */
async function apply(
  store: ImportStore,
  peer: string,
  items: readonly ImportItem[],
): Promise<readonly (string | undefined)[]> {
  const { results } = await store.apply(peer, items);
  return results.map((refused) => refused && `${refused.code}: ${refused.message}`);
}

describe("limits on stored imports", () => {
  // Two services of ten instances each are within the limit, and nothing is added to them.
  const cases: readonly [limit: keyof ImportLimits, most: (bytes: number) => number, reason: RegExp, inAll: boolean][] =
    [
      ["servicesPerPeer", () => 2, /more than 2 services of one peer/, false],
      ["instancesPerPeer", () => 20, /more than 20 instances of one peer/, false],
      ["payloadBytesPerPeer", (bytes) => 2 * bytes, /bytes of one peer/, false],
      ["payloadBytesInAll", (bytes) => 2 * bytes, /bytes of all peers/, true],
      ["indexBytesPerPeer", () => 6_000, /bytes of memory for names and nodes of one peer/, false],
      ["indexBytesInAll", () => 6_000, /bytes of memory for names and nodes of all peers/, true],
    ];
  for (const [limit, most, reason, inAll] of cases) {
    it(`${limit}: a service beyond it is refused by name, known ones go on, and a service that goes makes room`, async () => {
      const bytes = service("aa", 10).type === "service" ? payloadBytes(service("aa", 10)) : 0;
      const storage = memoryStorage();
      const limits = { [limit]: most(bytes) };
      let store = await ImportStore.open(storage, { limits });
      const names = ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh"];
      const first = await apply(
        store,
        PEER,
        names.map((name) => service(name, 10)),
      );
      const kept = names.filter((_, index) => first[index] === undefined);
      const [refused = "", ...more] = names.filter((_, index) => first[index] !== undefined);
      assert.ok(kept.length >= 2 && more.length >= 1, "some are kept, and some refused");
      for (const answer of first.filter((text) => text !== undefined)) {
        assert.match(answer, /^resource-exhausted: /);
        assert.match(answer, reason);
      }
      assert.match(first[names.indexOf(refused)] ?? "", new RegExp(`service="${refused}"`));
      // The next start finds the same, and counts the same.
      store = await ImportStore.open(storage, { limits });
      assert.deepEqual(store.count(PEER), { services: kept.length, instances: 10 * kept.length });
      const [known = ""] = kept;
      assert.deepEqual(await apply(store, PEER, [service(known, 10, 81)]), [undefined]);
      assert.equal((await store.instances(PEER, known))[0]?.service.port, 81);
      const ofAnother = await apply(store, OTHER, [service("zz", 10)]);
      assert.equal(ofAnother[0] !== undefined, inAll);
      // A service that goes in the same batch makes room as well.
      const gone: ImportItem = { type: "service", name: known, value: new Uint8Array() };
      assert.deepEqual(await apply(store, PEER, [gone, service(refused, 10)]), [undefined, undefined]);
      await store.removePeer(PEER);
      assert.deepEqual(await apply(store, OTHER, [service("zz", 10)]), [undefined]);
    });
  }
});

function payloadBytes(item: ImportItem): number {
  return item.type === "service" ? item.value.length : 0;
}

/** Notes how each page was asked for, and how many bytes it brought. */
function noting(inner: Storage): { readonly storage: Storage; readonly reads: { asked: number; bytes: number }[] } {
  const reads: { asked: number; bytes: number }[] = [];
  const storage = storageWith(inner, {
    async *pages(prefix, asked, signal) {
      for await (const page of inner.pages(prefix, asked, signal)) {
        reads.push({ asked, bytes: page.entries.reduce((sum, { value }) => sum + value.length, 0) });
        yield page;
      }
    },
  });
  return { storage, reads };
}

describe("a start with many imports", () => {
  it("reads them in pages, and keeps none of their payloads", async () => {
    const inner = memoryStorage();
    const filled = await ImportStore.open(inner);
    const wide = "x".repeat(1_000);
    for (let first = 0; first < 40; first++) {
      const instances = Array.from({ length: 1_000 }, (_, index) =>
        wireInstance(`s${first}`, { node: `n${index}`, id: `${index}`, address: wide }),
      );
      await filled.apply(PEER, [{ type: "service", name: `s${first}`, value: payload(...instances) }]);
    }
    const { storage, reads } = noting(inner);
    const before = await bytesInUse();
    const store = await ImportStore.open(storage);
    const taken = (await bytesInUse()) - before;
    assert.equal(store.count(PEER).instances, 40_000);
    const all = reads.reduce((sum, { bytes }) => sum + bytes, 0);
    assert.ok(all > 30 * MiB, "the payloads were read");
    assert.ok(reads.every(({ asked }) => asked <= 16 * MiB));
    assert.ok(reads.every(({ bytes }) => bytes <= 18 * MiB));
    assert.ok(taken < all / 4, `${taken} of ${all} bytes are kept`);
  });
});

describe("many watchers of the same imports", () => {
  it("are told the same objects, and take next to nothing each", async () => {
    const store = await ImportStore.open(memoryStorage());
    await store.apply(PEER, [service("web", 5_000)]);
    const ended = new AbortController();
    const open = () => store.watch({ peeringId: PEER, signal: ended.signal })[Symbol.asyncIterator]();
    const told = async (watch: ReturnType<typeof open>) => {
      const { value } = await watch.next();
      return value?.type === "snapshot" ? value.services.get("web") : value?.changed;
    };
    const first = open();
    const web = await told(first);
    assert.equal(web?.length, 5_000);
    const before = await bytesInUse();
    const others = Array.from({ length: 50 }, open);
    for (const watch of others) assert.equal((await told(watch))?.[0], web?.[0]);
    const taken = (await bytesInUse()) - before;
    assert.ok(taken < 8 * MiB, `${taken} bytes for 50 watchers of 5,000 instances`);
    await store.apply(PEER, [service("web", 5_000, 81)]);
    const changed = await told(first);
    assert.equal(changed?.length, 5_000);
    for (const watch of others) assert.equal((await told(watch))?.[0], changed?.[0]);
    ended.abort();
  });
});

describe("a service that somebody waits for", () => {
  it("is answered from memory once it has changed, and another one from the storage", async () => {
    const { storage, reads } = noting(memoryStorage());
    const store = await ImportStore.open(storage);
    await store.apply(PEER, [service("web", 2), service("other", 2)]);
    const end = store.onChange(PEER, "web", () => {});
    await store.apply(PEER, [service("web", 2, 81), service("other", 2, 81)]);
    const before = reads.length;
    assert.equal((await store.instances(PEER, "web"))[0]?.service.port, 81);
    assert.equal(reads.length, before);
    assert.equal((await store.instances(PEER, "other"))[0]?.service.port, 81);
    assert.equal(reads.length, before + 1);
    end();
    await store.apply(PEER, [service("web", 2, 82)]);
    assert.equal((await store.instances(PEER, "web"))[0]?.service.port, 82);
    assert.equal(reads.length, before + 2, "nobody waited for it any more");
  });
});
