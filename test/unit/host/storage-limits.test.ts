import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { eventually } from "../../support/hosts.js";
import { storageWith } from "../../support/storage.js";

const LIMITS = { writes: 16, bytes: 64 * 1024 };

/** A storage with small limits, that notes how a commit was asked for, by the first part of its keys. */
function limited(): { readonly storage: Storage; readonly durabilities: Map<string, Set<string>> } {
  const inner = memoryStorage({ limits: LIMITS });
  const durabilities = new Map<string, Set<string>>();
  const storage = storageWith(inner, {
    commit: async (...given) => {
      const [writes, , options] = given;
      const revision = await inner.commit(...given);
      for (const { key } of writes) {
        const known = durabilities.get(key[0] ?? "") ?? new Set();
        durabilities.set(key[0] ?? "", known.add(options?.durability ?? "durable"));
      }
      return revision;
    },
  });
  return { storage, durabilities };
}

const service = (index: number, meta: Record<string, string> = {}) => ({
  node: `n${index % 7}`,
  address: "10.0.0.1",
  service: { name: `s${index}`, port: 80, meta },
});

describe("hosts on storages with small limits", () => {
  it("peer, import, take what changes, and remove it; what is imported is relaxed, but for what is removed, and nothing else", async () => {
    const network = memoryNetwork();
    const [atA, atB] = [limited(), limited()];
    const transport = network.transport({ listen: "a:1" });
    await using a = await createHost({ storage: atA.storage, transport });
    await using b = await createHost({ datacenter: "dc2", storage: atB.storage, transport: network.transport() });
    const count = 100;
    for (let index = 0; index < count; index++) await a.catalog.register(service(index));
    await a.exports.set({ services: [{ name: "*", consumers: [{ peer: "b" }] }] });
    await b.peerings.establish({ peerName: "a", token: await a.peerings.generateToken({ peerName: "b" }) });
    const imported = (): number => b.imports.services({ peer: "a" }).length;
    await eventually(() => imported() === count, "everything is imported");
    const instances = [await b.imports.instances({ peer: "a", service: "s99" })].flat();
    assert.equal(instances.length, 1);
    const ofImports = (): readonly string[] => [...(atB.durabilities.get("imports") ?? [])];
    assert.deepEqual(ofImports(), ["relaxed"]);

    for (let index = 0; index < count; index += 2) {
      await a.catalog.deregister({ node: `n${index % 7}`, serviceId: `s${index}` });
    }
    await eventually(() => imported() === count / 2, "half of it is gone");
    assert.deepEqual(ofImports(), ["relaxed", "durable"], "what is withdrawn stays so");

    atB.durabilities.clear();
    await b.peerings.delete("a");
    await eventually(() => b.peerings.read("a") === undefined, "the peering is gone");
    assert.deepEqual((await atB.storage.read(["imports"])).entries, []);
    assert.deepEqual(ofImports(), ["durable"], "what is removed stays so");
    for (const { durabilities } of [atA, atB]) {
      for (const [prefix, seen] of durabilities) {
        if (prefix !== "imports") assert.deepEqual([...seen], ["durable"], prefix);
      }
    }
    assert.deepEqual([...a.incidents.counts(), ...b.incidents.counts()], []);
  });

  it("refuse by name a service that is larger than the storage takes, and import the others", async () => {
    const network = memoryNetwork();
    const { storage } = limited();
    await using a = await createHost({ storage: memoryStorage(), transport: network.transport({ listen: "a:1" }) });
    await using b = await createHost({ datacenter: "dc2", storage, transport: network.transport() });
    const wide = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`key${index}`, "x".repeat(500)]));
    for (let index = 0; index < 4; index++) {
      const { service: large, ...node } = service(0, wide);
      await a.catalog.register({ ...node, service: { ...large, name: "large", id: `large-${index}` } });
    }
    await a.catalog.register(service(1));
    await a.exports.set({ services: [{ name: "*", consumers: [{ peer: "b" }] }] });
    await b.peerings.establish({ peerName: "a", token: await a.peerings.generateToken({ peerName: "b" }) });
    await eventually(() => b.imports.services({ peer: "a" }).length === 1, "the other one is imported");
    await eventually(() => a.peerings.read("b")?.status.withheldServices.has("large") === true, "the exporter is told");
    assert.equal(b.incidents.counts().get("storage-limit"), undefined, "the storage was not asked for it");
    assert.deepEqual(
      b.imports.services({ peer: "a" }).map(({ name }) => name),
      ["s1"],
    );
  });

  it("take many writes of the catalog that are made at once, in several commits", async () => {
    await withHost(async (host) => {
      await Promise.all(Array.from({ length: 200 }, (_, index) => host.catalog.register(service(index))));
      assert.equal(host.catalog.services().size, 200);
      assert.deepEqual([...host.incidents.counts()], []);
    });
  });

  it("refuse what is to be all or nothing and is too much, say so, and go on", async () => {
    await withHost(async (host) => {
      const many = Array.from({ length: 20 }, (_, index) => service(index));
      const few = host.catalog.register(service(100));
      await assert.rejects(host.catalog.registerAll(many), tooMuch);
      await few;
      await host.catalog.registerAll(many.slice(0, 2));
      assert.equal(host.catalog.services().size, 3);
      assert.deepEqual([...host.incidents.counts().keys()], ["storage-limit"]);
    });
  });

  it("give addresses to many services, and take them away", async () => {
    const names = Array.from({ length: 60 }, (_, index) => `${"long-".repeat(40)}${index}`);
    await using catalog = await Catalog.open({ storage: limited().storage, datacenter: "dc1" });
    const index = await catalog.claimVirtualIps("peer", names);
    assert.equal(index, catalog.revision);
    assert.deepEqual(catalog.claimedVirtualIps("peer"), new Set(names));
    await catalog.releaseVirtualIps("peer", names);
    assert.equal(catalog.claimedVirtualIps("peer").size, 0);
  });

  it("seal many rows again with another key", async () => {
    const storage = storageWith(limited().storage, { [Symbol.asyncDispose]: async () => {} });
    const old = new Uint8Array(32).fill(1);
    const other = new Uint8Array(32).fill(2);
    const count = 40;
    {
      const network = memoryNetwork();
      const secretBox = sealedSecretBox(old);
      await using host = await createHost({ storage, secretBox, transport: network.transport() });
      for (let index = 0; index < count; index++) {
        const at = network.transport({ listen: `peer${index}:1` });
        await using acceptor = await createHost({ storage: memoryStorage(), transport: at });
        const token = await acceptor.peerings.generateToken({ peerName: "b" });
        await host.peerings.establish({ peerName: `peer${index}`, token });
      }
    }
    const secrets = async (): Promise<readonly string[]> =>
      (await storage.read(["peerings", "secrets"])).entries.map(({ value }) => Buffer.from(value).toString("latin1"));
    const before = await secrets();
    assert.equal(before.length, count);
    await using _ = await createHost({
      storage,
      secretBox: sealedSecretBox([other, old]),
      transport: memoryNetwork().transport(),
    });
    const after = await secrets();
    assert.equal(after.filter((row) => !before.includes(row)).length, count, "each is another one");
  });
});

function tooMuch(error: unknown): boolean {
  assert.ok(error instanceof PeeringError && error.code === "resource-exhausted", String(error));
  assert.match(error.message, /over the limits of the storage \(16 writes, 65536 bytes\)/);
  return true;
}

async function withHost(action: (host: PeeringHost) => Promise<void>): Promise<void> {
  await using host = await createHost({ storage: limited().storage, transport: memoryNetwork().transport() });
  await action(host);
}
