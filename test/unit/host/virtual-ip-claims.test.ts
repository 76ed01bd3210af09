import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { silentLogger } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { alwaysLeader } from "../../../src/host/leadership.js";
import { VirtualIpClaims } from "../../../src/host/virtual-ip-claims.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { type ImportedAddresses, type ImportItem, ImportStore } from "../../../src/stores/import-store.js";
import { eventually, type TwoHosts, twoHosts } from "../../support/hosts.js";
import { storageWith } from "../../support/storage.js";
import { payload, wireInstance } from "../payload/import-fixtures.js";
import { ManualClock } from "../trust/support.js";

const PEER = "11111111-0000-0000-0000-000000000000";

function plain(name: string): ImportItem {
  return { type: "service", name, value: payload(wireInstance(name)) };
}

function sidecar(name: string, port = 80): ImportItem {
  const instance = wireInstance(`${name}-sidecar-proxy`, { port });
  const Service = { ...instance.Service, Kind: "connect-proxy", Proxy: { DestinationServiceName: name } };
  return { type: "service", name: `${name}-sidecar-proxy`, value: payload({ ...instance, Service }) };
}

function gone(name: string): ImportItem {
  return { type: "service", name, value: new Uint8Array() };
}

/** Writes down what is claimed and released. */
function notebook(): ImportedAddresses & { readonly notes: string[] } {
  const notes: string[] = [];
  return {
    notes,
    claim: async (_, services) => void notes.push(`claim ${services.join(" ")}`),
    release: async (_, services) => void notes.push(`release ${services.join(" ")}`),
  };
}

/** Notes commits of imports beside the claims. */
async function noted(): Promise<{
  readonly store: ImportStore;
  readonly notes: string[];
  readonly take: () => readonly string[];
  readonly fail: { reason: PeeringError | undefined };
}> {
  const addresses = notebook();
  const { notes } = addresses;
  const inner = memoryStorage();
  const fail: { reason: PeeringError | undefined } = { reason: undefined };
  const storage = storageWith(inner, {
    commit: (...given) => {
      if (fail.reason !== undefined) return Promise.reject(fail.reason);
      notes.push("commit");
      return inner.commit(...given);
    },
  });
  const store = await ImportStore.open(storage, { addresses });
  return { store, notes, take: () => notes.splice(0), fail };
}

describe("addresses of imported services", () => {
  it("are claimed before the import that shows them is visible, and for plain services nothing is done", async () => {
    const { store, take } = await noted();
    await store.apply(PEER, [plain("web"), plain("db")]);
    await store.apply(PEER, [gone("db")]);
    assert.deepEqual(take(), ["commit", "commit"]);
    await store.apply(PEER, [plain("api"), sidecar("web"), sidecar("api")]);
    assert.deepEqual(take(), ["claim web api", "commit"]);
    await store.apply(PEER, [sidecar("web", 81)]);
    assert.deepEqual(take(), ["commit"], "it has one already");
  });

  it("are freed when neither a plain instance nor a proxy is left, whichever goes first (ch4 case 83)", async () => {
    for (const order of [
      ["web", "web-sidecar-proxy"],
      ["web-sidecar-proxy", "web"],
    ]) {
      const { store, take } = await noted();
      await store.apply(PEER, [plain("web"), sidecar("web")]);
      take();
      for (const name of order) await store.apply(PEER, [gone(name)]);
      assert.deepEqual(take(), ["commit", "commit", "release web"]);
    }
    const { store, take } = await noted();
    await store.apply(PEER, [plain("web"), sidecar("web"), sidecar("chain-only")]);
    await store.apply(PEER, [{ type: "list", names: ["web"] }]);
    await store.removePeer(PEER);
    assert.deepEqual(take(), [
      "claim web chain-only",
      "commit",
      "commit",
      "release chain-only",
      "commit",
      "release web",
      "commit",
    ]);
  });

  it("are released again when the import is refused", async () => {
    const { store, take, fail } = await noted();
    fail.reason = new PeeringError("conflict", "the record is not active");
    await assert.rejects(store.apply(PEER, [sidecar("web")]), { code: "conflict" });
    assert.deepEqual(take(), ["claim web", "release web"]);
    fail.reason = new PeeringError("unavailable", "it may have been written");
    await assert.rejects(store.apply(PEER, [sidecar("web")]), { code: "unavailable" });
    fail.reason = undefined;
    await store.apply(PEER, [sidecar("web")]);
    assert.deepEqual(take(), ["claim web", "commit"]);
  });

  it("are released with the peering, also those of an import that was never stored", async () => {
    const { store, take, fail } = await noted();
    fail.reason = new PeeringError("storage-failed", "disk full");
    await assert.rejects(store.apply(PEER, [sidecar("web")]), { code: "storage-failed" });
    fail.reason = undefined;
    assert.deepEqual(take(), ["claim web"]);
    await store.removePeer(PEER);
    assert.deepEqual(take(), ["release web"]);
  });

  it("are put right where a crash came between", async () => {
    const { store, take } = await noted();
    await store.apply(PEER, [plain("web"), sidecar("api"), plain("db")]);
    take();
    await store.repairAddresses(PEER, new Set(["web", "gone"]));
    assert.deepEqual(take(), ["claim api", "release gone"]);
    await store.repairAddresses(PEER, new Set(["web", "api"]));
    assert.deepEqual(take(), []);
    await store.apply(PEER, [gone("web")]);
    assert.deepEqual(take(), ["commit", "release web"]);
  });
});

/** `web` in the mesh and `plain`, exported by the acceptor to the dialer, who has them. */
async function exporting(): Promise<TwoHosts> {
  const hosts = await twoHosts("memory");
  const { acceptor, dialer } = hosts;
  await acceptor.host.catalog.registerAll([
    { node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } },
    { node: "n1", address: "10.0.0.1", service: { name: "plain", port: 81 } },
    {
      node: "n1",
      address: "10.0.0.1",
      service: { kind: "connect-proxy", name: "web-sidecar-proxy", port: 82, proxy: { destinationServiceName: "web" } },
    },
    { node: "gw", address: "10.0.0.2", service: { kind: "mesh-gateway", name: "gw", port: 443 } },
  ]);
  const consumers = [{ peer: "importer" }];
  await acceptor.host.exports.set({ services: ["web", "plain"].map((name) => ({ name, consumers })) });
  const token = await acceptor.host.peerings.generateToken({ peerName: "importer" });
  await dialer.host.peerings.establish({ peerName: "exporter", token });
  await eventually(() => dialer.host.imports.count({ peer: "exporter" }).services === 3, "everything is imported");
  return hosts;
}

function addressOf({ dialer }: TwoHosts, service: string): string | undefined {
  return dialer.host.catalog.virtualIp(service, "exporter");
}

describe("virtual addresses that could not be released", () => {
  it("are released as soon as the storage takes commits again, also those of a peering that is gone by then", async () => {
    const inner = memoryStorage();
    let fails = false;
    const storage = storageWith(inner, {
      commit: (...given) =>
        fails ? Promise.reject(new PeeringError("storage-failed", "disk full")) : inner.commit(...given),
    });
    const clock = new ManualClock(0);
    await using catalog = await Catalog.open({ storage, datacenter: "dc1" });
    const configEntries = await ConfigEntries.open({ storage: inner, datacenter: "dc1" });
    let peerings = [{ id: PEER, name: "East" }];
    await using claims = new VirtualIpClaims({
      catalog,
      configEntries,
      records: { list: () => peerings, byId: (id) => peerings.find((peering) => peering.id === id) },
      leadership: alwaysLeader,
      clock,
      logger: silentLogger,
    });
    // Nothing is imported.
    await claims.repair({ repairAddresses: (id, claimed) => claims.release(id, [...claimed]) });
    await claims.claim(PEER, ["web", "db"]);
    fails = true;
    await claims.release(PEER, ["web"]);
    peerings = [];
    for (let second = 0; second < 5; second++) await clock.advance(1_000);
    assert.notEqual(catalog.virtualIp("web", "east"), undefined);
    fails = false;
    for (let second = 0; second < 60; second++) await clock.advance(1_000);
    assert.deepEqual(catalog.claimingPeers(), []);
    assert.equal(clock.pending, 0);
  });
});

describe("virtual addresses of a host", () => {
  it("belong to the imported services of the mesh, and survive a restart (ch4 case 83)", async () => {
    await using hosts = await exporting();
    const { acceptor, dialer } = hosts;
    assert.equal(addressOf(hosts, "web"), "240.0.0.1");
    assert.equal(addressOf(hosts, "plain"), undefined);
    await dialer.restart();
    assert.equal(addressOf(hosts, "web"), "240.0.0.1");
    await acceptor.host.catalog.deregister({ node: "n1", serviceId: "web" });
    await eventually(() => dialer.host.imports.count({ peer: "exporter" }).services === 2, "the instance is gone");
    assert.equal(addressOf(hosts, "web"), "240.0.0.1", "the proxy is left");
    await acceptor.host.catalog.deregister({ node: "n1", serviceId: "web-sidecar-proxy" });
    await eventually(() => addressOf(hosts, "web") === undefined, "the address is free");
    await dialer.host.catalog.claimVirtualIps("", ["next"]);
    assert.equal(dialer.host.catalog.virtualIp("next"), "240.0.0.1", "and given to the next");
  });

  it("are free when the peering is deleted, and those of a peer that is unknown when the host starts", async () => {
    await using hosts = await exporting();
    const { dialer } = hosts;
    await dialer.host.catalog.claimVirtualIps("long-gone", ["web"]);
    await dialer.host.peerings.delete("exporter");
    await eventually(() => dialer.host.peerings.read("exporter") === undefined, "the peering is gone");
    assert.equal(addressOf(hosts, "web"), undefined);
    await dialer.restart();
    assert.equal(dialer.host.catalog.virtualIp("web", "long-gone"), undefined);
  });

  it("that a crash left out, or left over, are put right by the next start", async () => {
    await using hosts = await exporting();
    const { dialer } = hosts;
    await dialer.host.catalog.releaseVirtualIps("exporter", ["web"]);
    await dialer.host.catalog.claimVirtualIps("exporter", ["never-imported"]);
    await dialer.restart();
    assert.notEqual(addressOf(hosts, "web"), undefined);
    assert.equal(addressOf(hosts, "never-imported"), undefined);
  });

  it("belong to the local services that entries name, as long as they do", async () => {
    await using hosts = await twoHosts("memory");
    const { host } = hosts.acceptor;
    const has = (name: string): boolean => host.catalog.virtualIp(name) !== undefined;
    await host.configEntries.set({ kind: "service-defaults", name: "web" });
    await host.configEntries.set({ kind: "service-resolver", name: "Web" });
    await host.configEntries.set({
      kind: "terminating-gateway",
      name: "tgw",
      services: [{ name: "db" }, { name: "*" }],
    });
    await host.configEntries.set({
      kind: "service-intentions",
      name: "*",
      sources: [{ name: "api", action: "allow" }],
    });
    await eventually(() => has("web") && has("db"), "they have one");
    // As in Consul, that of all services is for the gateway of all services.
    assert.deepEqual([has("tgw"), has("*"), has("api")], [false, true, false]);
    await host.configEntries.delete("service-defaults", "web");
    await host.configEntries.delete("terminating-gateway", "tgw");
    await eventually(() => !has("db") && !has("*"), "those of the gateway are free");
    assert.ok(has("web"));
    await host.configEntries.delete("service-resolver", "web");
    await eventually(() => !has("web"), "all are free");
  });
});
