// Work on one peering takes as long with many of them as with few.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemClock } from "../../../src/base/environment.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { PeeringRecords } from "../../../src/stores/records.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { plainSecretBox } from "../../../src/trust/secret-box.js";
import { TrustBundles } from "../../../src/trust/trust-bundle-store.js";
import { assertLinear } from "../../support/growth.js";
import { judged, OWN_TRUST_DOMAIN, REMOTE, seededRandom, tokenOf } from "./records-fixture.js";

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);
const [A = "", B = ""] = fixedRootPems;

interface Kept {
  readonly records: PeeringRecords;
  readonly bundles: TrustBundles;
  /** By the number of the peering. */
  readonly secrets: Map<number, string>;
}

async function kept(): Promise<Kept> {
  const storage = memoryStorage();
  const authority = { trustDomain: OWN_TRUST_DOMAIN, roots: () => [], onRootsChanged: () => () => {} };
  const records = await PeeringRecords.open({
    storage,
    clock: systemClock,
    random: seededRandom(),
    secretBox: plainSecretBox,
    trustDomain: OWN_TRUST_DOMAIN,
  });
  const bundles = new TrustBundles(records.trustDomains, { authority });
  records.onBundlesChange((withheld) => bundles.changed(withheld));
  return { records, bundles, secrets: new Map() };
}

async function each(size: number, action: (index: number) => Promise<unknown> | unknown): Promise<void> {
  for (const index of numbers(size)) await action(index);
}

const idOf = ({ records }: Kept, index: number): string => records.byName(`p${index}`)?.id ?? "";

function generate({ records, secrets }: Kept, size: number): Promise<void> {
  return each(size, async (index) => {
    const { establishmentSecret } = await records.generateToken({ peerName: `p${index}` });
    secrets.set(index, establishmentSecret);
  });
}

describe("the time of one peering does not grow with how many there are", () => {
  it("in records of acceptors", () =>
    assertLinear<Kept>({
      size: 500,
      prepare: kept,
      dispose: ({ records }) => records[Symbol.asyncDispose](),
      steps: {
        "generate a token": generate,
        "generate another": generate,
        "exchange it": (world, of) =>
          each(of, async (index) => {
            const establishmentSecret = world.secrets.get(index) ?? "";
            const secret = await world.records.exchangeSecret({ peerId: idOf(world, index), establishmentSecret });
            world.secrets.set(index, secret);
          }),
        "open a stream": (world, of) =>
          each(of, async (index) => {
            const streamSecretId = world.secrets.get(index) ?? "";
            const open = { type: "open", peerId: idOf(world, index), streamSecretId, remote: REMOTE } as const;
            assert.equal((await judged(world.records, open)).verdict, "authorized");
          }),
        "read by name": ({ records }, of) =>
          each(of, (index) => assert.equal(records.byName(`p${index}`)?.name, `p${index}`)),
        list: ({ records }, of) => assert.equal(records.list().length, of),
        delete: ({ records }, of) => each(of, (index) => records.markDeleting(`p${index}`)),
        remove: (world, of) => each(of, (index) => world.records.remove(idOf(world, index))),
        "list none": ({ records }) => assert.deepEqual(records.list(), []),
      },
    }));

  it("in records of dialers", () =>
    assertLinear<Kept>({
      size: 300,
      prepare: kept,
      dispose: ({ records }) => records[Symbol.asyncDispose](),
      steps: {
        establish: ({ records }, of) =>
          each(of, async (index) => {
            const token = tokenOf(`${index}`.padStart(8, "0").concat("-0000-0000-0000-000000000000"));
            const begun = await records.beginEstablish({ peerName: `p${index}`, token, connected: false });
            await records.finishEstablish(begun, `secret ${index}`);
          }),
        "read what to dial": (world, of) =>
          each(of, async (index) => assert.ok(await world.records.dialable(idOf(world, index)))),
        "take addresses": (world, of) =>
          each(of, (index) => world.records.writeServerAddresses(idOf(world, index), ["h:1"])),
        terminate: (world, of) =>
          each(of, async (index) => assert.equal(await world.records.terminate(idOf(world, index)), true)),
      },
    }));

  for (const [name, domain] of [
    ["of clusters of their own", (index: number) => `d${index}.consul`],
    ["of one cluster", () => "d.consul"],
  ] as const) {
    it(`in trust bundles ${name}`, () => {
      const written = (index: number, ...rootPems: readonly string[]) => ({
        trustDomain: domain(index),
        rootPems,
        exportedPartition: "",
      });
      return assertLinear<Kept>({
        size: 60,
        prepare: async (size) => {
          const world = await kept();
          await each(size, (index) => world.records.generateToken({ peerName: `p${index}` }));
          return world;
        },
        dispose: ({ records }) => records[Symbol.asyncDispose](),
        steps: {
          write: (world, of) =>
            each(of, (index) => world.records.writeTrustBundle(idOf(world, index), written(index, A, B))),
          "write others": (world, of) =>
            each(of, (index) => world.records.writeTrustBundle(idOf(world, index), written(index, B, A))),
          read: ({ records, bundles }, of) =>
            each(of, (index) => {
              assert.ok(records.trustBundle(`p${index}`) !== undefined && records.trustBundleIndex(`p${index}`) > 0n);
              assert.ok(bundles.read(`p${index}`));
            }),
          list: ({ records, bundles }, of) => {
            assert.equal(records.trustBundles().length, of);
            assert.equal(bundles.list().length, of);
          },
          // The oldest first: each time the trust domain of one cluster goes to the next one.
          delete: (world, of) =>
            each(of, async (index) => {
              await world.records.markDeleting(`p${index}`);
              await world.records.remove(idOf(world, index));
            }),
          "list none": ({ records, bundles }) => assert.deepEqual([...records.trustBundles(), ...bundles.list()], []),
        },
      });
    });
  }

  it("in a host", () =>
    assertLinear<PeeringHost>({
      size: 200,
      prepare: () => {
        const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
        return createHost({ datacenter: "dc1", storage: memoryStorage(), transport });
      },
      dispose: (host) => host[Symbol.asyncDispose](),
      steps: {
        "generate a token": ({ peerings }, of) =>
          each(of, (index) => peerings.generateToken({ peerName: `p${index}` })),
        read: ({ peerings }, of) => each(of, (index) => assert.equal(peerings.read(`p${index}`)?.name, `p${index}`)),
        list: ({ peerings }, of) => assert.equal(peerings.list().length, of),
        delete: ({ peerings }, of) =>
          each(of, async (index) => {
            await peerings.delete(`p${index}`);
            await peerings.deleted(`p${index}`);
          }),
        "list none": ({ peerings }) => assert.deepEqual(peerings.list(), []),
      },
    }));
});
