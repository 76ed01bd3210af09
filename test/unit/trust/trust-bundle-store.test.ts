import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Logger } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { TrustBundle } from "../../../src/peering/peering.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Write } from "../../../src/storage/storage.js";
import { fixedAuthority } from "../../../src/testing/fixed-authority.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { certificatesIn } from "../../../src/token/pem.js";
import {
  decodeTrustBundle,
  encodeTrustBundle,
  TRUST_BUNDLES_PREFIX,
  TrustBundleStore,
  type TrustBundleView,
  validateBundle,
} from "../../../src/trust/trust-bundle-store.js";

const trustDomain = "11111111-2222-3333-4444-555555555555.consul";
const refused = {
  name: "PeeringError",
  code: "invalid-bundle",
  message: "trust bundle without a usable root certificate",
};

const tooMuch = { code: "invalid-bundle", message: "trust bundle with too many or too large root certificates" };

function root(index: number): string {
  const pem = fixedRootPems[index];
  assert.ok(pem);
  return pem;
}

function bundle(peerName: string, rootPems: readonly string[], fields: Partial<TrustBundle> = {}): TrustBundle {
  return { peerName, rootPems, trustDomain: `${peerName}.consul`.toLowerCase(), exportedPartition: "", ...fields };
}

// The authority of cluster 0 takes roots 0, 5, 10, ...: those of peers below are others.
async function newStore(): Promise<{
  store: TrustBundleStore;
  storage: ReturnType<typeof memoryStorage>;
  authority: ReturnType<typeof fixedAuthority>;
  logger: Logger;
  warnings: string[];
}> {
  const storage = memoryStorage();
  const authority = fixedAuthority({ trustDomain });
  const warnings: string[] = [];
  const ignore = (): void => {};
  const logger = {
    debug: ignore,
    info: ignore,
    error: ignore,
    warn: (message: string, fields?: object) => warnings.push(`${message} ${JSON.stringify(fields)}`),
  };
  return { store: await TrustBundleStore.open({ storage, authority, logger }), storage, authority, logger, warnings };
}

test("a bundle without roots, or with an entry that holds no certificate, is refused (ch1 case 122)", () => {
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  for (const rootPems of [
    [],
    [""],
    ["nonsense"],
    [broken],
    [root(1), ""],
    [root(1), broken],
    [root(1).slice(0, 200)],
  ]) {
    assert.throws(() => validateBundle({ rootPems }), refused);
  }
  assert.throws(() => validateBundle({ rootPems: Array.from({ length: 101 }, () => root(1)) }), tooMuch);
  assert.throws(() => validateBundle({ rootPems: [root(1) + "#".repeat(64 * 1024)] }), tooMuch);
  validateBundle({ rootPems: [root(1)] });
  validateBundle({ rootPems: [root(1).trimEnd(), `# our root\n${root(2)}`] });
  validateBundle({ rootPems: [`${broken}${root(2)}`] });
});

test("of a bundle its certificates are kept, once each, and nothing that stands beside them", async () => {
  const { store, storage } = await newStore();
  const junk = "x".repeat(60_000);
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const rootPems = [`${root(1)}${junk}`, `${junk}\n${broken}${root(2)}`, `${root(1)}\n\n\n`, root(3).trimEnd()];
  await store.write(bundle("b", rootPems));
  const kept = [root(1), root(2), root(3).trimEnd()];
  assert.deepEqual(store.read("b")?.rootPems, kept);
  const [entry] = (await storage.read(["trust-bundles", "b"])).entries;
  assert.ok(entry !== undefined && entry.value.length < 10_000);
  assert.deepEqual(validateBundle({ rootPems: kept }).rootPems, kept);
});

test("a bundle is judged by its limits before a certificate is parsed", () => {
  const limits = { rootsPerPeer: 2, trustBundleBytes: 5_000 };
  const all = [1, 2, 3].map(root);
  validateBundle({ rootPems: all.slice(1) }, limits);
  assert.throws(() => validateBundle({ rootPems: all }, limits), tooMuch);
  // In one entry, and in markers that nothing follows.
  assert.throws(() => validateBundle({ rootPems: [all.join("")] }, limits), tooMuch);
  assert.throws(
    () => validateBundle({ rootPems: [root(1) + "-----BEGIN CERTIFICATE-----\n".repeat(4)] }, limits),
    tooMuch,
  );
  assert.throws(() => validateBundle({ rootPems: all.slice(1) }, { ...limits, trustBundleBytes: 1_000 }), tooMuch);
});

test("looking for certificates in hostile text takes time in proportion to its length", () => {
  const begin = "-----BEGIN CERTIFICATE-----";
  const end = "-----END CERTIFICATE-----";
  // Quadratic scanning of any of these would take minutes: the test would not come back.
  for (const text of [begin.repeat(300_000), end.repeat(300_000), begin.repeat(300_000) + end]) {
    assert.deepEqual(certificatesIn(text), []);
    assert.throws(() => validateBundle({ rootPems: [text] }), tooMuch);
  }
});

/** The write that stores a bundle as it is. */
function bundleWrite(stored: TrustBundle): Write {
  return { key: [...TRUST_BUNDLES_PREFIX, stored.peerName.toLowerCase()], value: encodeTrustBundle(stored) };
}

test("a stored bundle reads back as it was received, without a newline added", () => {
  fc.assert(
    fc.property(
      fc.record(
        {
          trustDomain: fc.string(),
          peerName: fc.string(),
          rootPems: fc.array(fc.string()),
          exportedPartition: fc.string(),
        },
        { noNullPrototype: true },
      ),
      (stored) => assert.deepEqual(decodeTrustBundle(encodeTrustBundle(stored))?.bundle, stored),
    ),
  );
});

test("other bytes are no bundle, and never an exception", () => {
  for (const text of ["", "null", "[]", "7", "{}", '{"trustDomain":"a","peerName":"b","rootPems":[1]}']) {
    assert.equal(decodeTrustBundle(Buffer.from(text)), undefined);
  }
  fc.assert(fc.property(fc.uint8Array(), (value) => assert.equal(decodeTrustBundle(value), undefined)));
});

test("bundles are written, read, listed, removed, and survive a restart", async () => {
  const { store, storage, authority } = await newStore();
  await store.write(bundle("peer-b", [root(2)]));
  await store.write(bundle("Peer-A", [root(1)]));
  await store.write(bundle("peer-a", [root(3)]));
  assert.deepEqual(store.read("PEER-A"), bundle("peer-a", [root(3)]));
  assert.deepEqual(
    store.list().map(({ peerName }) => peerName),
    ["peer-a", "peer-b"],
  );
  const reopened = await TrustBundleStore.open({ storage, authority });
  assert.deepEqual(reopened.list(), store.list());
  await store.remove("PEER-B");
  await store.remove("unknown");
  assert.equal(store.read("peer-b"), undefined);
  const views = reopened.watch();
  while (reopened.read("peer-b") !== undefined) await views.next();
  assert.deepEqual(reopened.list(), store.list());
});

test("a refused bundle leaves the former one", async () => {
  const { store } = await newStore();
  await store.write(bundle("peer-a", [root(1)]));
  await assert.rejects(store.write(bundle("peer-a", [])), refused);
  assert.deepEqual(store.read("peer-a")?.rootPems, [root(1)]);
});

test("the union holds our own roots and those of every peer once, one certificate an entry", async () => {
  const { store, authority } = await newStore();
  assert.deepEqual(store.union(), [root(0)]);
  await store.write(bundle("peer-a", [root(1).trimEnd(), `${root(2)}${root(3)}`]));
  await store.write(bundle("peer-b", [root(3), root(4)]));
  assert.deepEqual(store.union(), [root(0), root(1), root(2), root(3), root(4)]);
  authority.rotate();
  assert.deepEqual(store.union(), [root(0), root(5), root(1), root(2), root(3), root(4)]);
  await store.remove("peer-a");
  assert.deepEqual(store.union(), [root(0), root(5), root(3), root(4)]);
});

test("a bundle with our own trust domain, or with an invalid one, is refused (D-24)", async () => {
  const { store, storage } = await newStore();
  for (const claimed of [trustDomain, trustDomain.toUpperCase(), "", " ", `${trustDomain}.`, ` ${trustDomain}`]) {
    await assert.rejects(store.write(bundle("peer-a", [root(1)], { trustDomain: claimed })), {
      code: "invalid-bundle",
    });
  }
  assert.deepEqual(store.list(), []);
  assert.deepEqual((await storage.read(["trust-bundles"])).entries, []);
});

test("a trust domain belongs to the first peering that names it; another one may name it with no other roots (D-24)", async () => {
  const { store, storage, authority } = await newStore();
  const late = bundle("peer-b", [root(3)], { trustDomain: "PEER-A.consul" });
  await store.write(bundle("peer-a", [root(1), root(2)]));
  await assert.rejects(store.write(late), {
    code: "invalid-bundle",
    message: 'trust bundle claims the trust domain of another peering, with other roots: "PEER-A.consul"',
  });
  await store.write({ ...late, rootPems: [root(2)] });
  // The first peering stays first, also if its bundle is the younger one, and after a restart.
  await store.write(bundle("peer-a", [root(1), root(2), root(4)]));
  for (const each of [store, await TrustBundleStore.open({ storage, authority })]) {
    await assert.rejects(each.write(late), { code: "invalid-bundle" });
    assert.deepEqual(each.union(), [root(0), root(1), root(2), root(4)]);
    assert.deepEqual([...each.withheld()], []);
  }
  await store.remove("peer-a");
  await store.write(late);
  assert.deepEqual(store.union(), [root(0), root(3)]);
});

test("a stored bundle that names a foreign trust domain is not handed out, from the start (D-24)", async () => {
  const { storage, authority, logger, warnings } = await newStore();
  await storage.commit([bundleWrite(bundle("first", [root(1)], { trustDomain: "shared.consul" }))]);
  await storage.commit([
    bundleWrite(bundle("second", [root(2)], { trustDomain: "Shared.Consul" })),
    bundleWrite(bundle("a-third", [root(3)], { trustDomain: trustDomain.toUpperCase() })),
  ]);
  const incidents = new Incidents({ logger });
  const store = await TrustBundleStore.open({ storage, authority, incidents });
  assert.deepEqual(
    store.list().map(({ peerName }) => peerName),
    ["first"],
  );
  assert.deepEqual([store.read("second"), store.read("a-third")], [undefined, undefined]);
  assert.deepEqual(store.union(), [root(0), root(1)]);
  assert.deepEqual([...store.withheld()].sort(), [
    ["a-third", "own-trust-domain"],
    ["second", "trust-domain-of-another-peering"],
  ]);
  assert.equal(incidents.counts().get("trust-bundle-withheld"), 2);
  assert.match(warnings.join(), /trust bundle is withheld.*"peer":"(?:second|a-third)"/);
  await store.remove("first");
  assert.deepEqual(store.read("second")?.rootPems, [root(2)], "the next one has it");
});

test("stored entries that are no bundle, or have no usable root, do not spoil the others", async () => {
  const { storage, authority } = await newStore();
  await storage.commit([
    { key: [...TRUST_BUNDLES_PREFIX, "bad"], value: Buffer.from("{") },
    bundleWrite(bundle("empty", [])),
    bundleWrite(bundle("good", [root(1)])),
  ]);
  const store = await TrustBundleStore.open({ storage, authority });
  assert.deepEqual(store.union(), [root(0), root(1)]);
  assert.deepEqual([...store.withheld()], [["empty", "no-usable-root"]]);
  assert.equal(store.read("bad"), undefined);
});

test("a watch begins with the view of now, and a slow reader gets the newest", async () => {
  const { store, authority } = await newStore();
  const abort = new AbortController();
  const views = store.watch({ signal: abort.signal });
  const take = async (): Promise<TrustBundleView | undefined> => {
    const { value } = await views.next();
    return value ?? undefined;
  };
  assert.deepEqual((await take())?.union, [root(0)]);
  for (const index of [1, 2, 3]) await store.write(bundle("peer-a", [root(index)]));
  assert.deepEqual((await take())?.union, [root(0), root(3)]);
  const waiting = take();
  authority.rotate();
  assert.deepEqual((await waiting)?.union, [root(0), root(5), root(3)]);
  const last = views.next();
  abort.abort();
  assert.equal((await last).done, true);
});

test("disposing of the store ends its watches and leaves the storage open", async () => {
  const { store, storage, authority } = await newStore();
  const views = store.watch();
  await views.next();
  const last = views.next();
  await store[Symbol.asyncDispose]();
  assert.equal((await last).done, true);
  authority.rotate();
  assert.deepEqual(store.union(), [root(0)]);
  await storage.read([]);
});
