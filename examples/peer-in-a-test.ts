// A peer inside a test: no binaries, no ports, up in milliseconds, and the network fails when the test wants it to.
//
//   node --test build/examples/peer-in-a-test.js
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost, type PeeringHost, type PeeringState } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

// The code under test: picks an address of a service that another cluster runs.
async function resolve(host: PeeringHost, peer: string, service: string): Promise<string> {
  for (const { node, service: found, checks } of await host.imports.instances({ peer, service })) {
    if (checks.some(({ status }) => status === "critical")) continue;
    return `${found.address === "" ? node.address : found.address}:${found.port}`;
  }
  throw new Error(`no healthy ${service} at ${peer}`);
}

/** Our cluster, and the one of the other team, played by a host of the test. */
async function twoClusters() {
  const network = memoryNetwork();
  const theirs = await createHost({
    storage: memoryStorage(),
    transport: network.transport({ listen: "theirs:8503" }),
  });
  const ours = await createHost({ storage: memoryStorage(), transport: network.transport() });
  await theirs.exports.set({ services: [{ name: "*", consumers: [{ peer: "ours" }] }] });
  const token = await theirs.peerings.generateToken({ peerName: "ours" });
  await ours.peerings.establish({ peerName: "theirs", token });
  return {
    network,
    ours,
    theirs,
    async [Symbol.asyncDispose]() {
      await ours.close();
      await theirs.close();
    },
  };
}

/** Waits for a fact about what we import. No sleeping: every change wakes it. */
async function until(host: PeeringHost, holds: () => Promise<boolean>): Promise<void> {
  for await (const _ of host.imports.watch({ peer: "theirs", signal: AbortSignal.timeout(10_000) })) {
    if (await holds()) return;
  }
  assert.fail("it never came to hold");
}

async function state(host: PeeringHost, wanted: PeeringState): Promise<void> {
  for await (const _ of host.peerings.watch({ signal: AbortSignal.timeout(10_000) })) {
    if (host.peerings.read("theirs")?.state === wanted) return;
  }
  assert.fail(`it never became ${wanted}`);
}

describe("resolve", () => {
  it("finds the healthy instance", async () => {
    await using clusters = await twoClusters();
    const { ours, theirs } = clusters;
    await theirs.catalog.registerAll([
      {
        node: "n1",
        address: "10.0.0.1",
        service: { name: "web", port: 80 },
        check: { name: "alive", status: "critical", serviceId: "web" },
      },
      { node: "n2", address: "10.0.0.2", service: { name: "web", port: 80 } },
    ]);
    await until(ours, async () => (await ours.imports.instances({ peer: "theirs", service: "web" })).length === 2);
    assert.equal(await resolve(ours, "theirs", "web"), "10.0.0.2:80");
  });

  it("goes on with what it knows while the connection is lost", async () => {
    await using clusters = await twoClusters();
    const { network, ours, theirs } = clusters;
    await theirs.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    await until(ours, async () => (await ours.imports.instances({ peer: "theirs", service: "web" })).length === 1);
    network.cut();
    await state(ours, "failing");
    assert.equal(await resolve(ours, "theirs", "web"), "10.0.0.1:80");
  });

  it("says so when the service is gone", async () => {
    await using clusters = await twoClusters();
    const { ours, theirs } = clusters;
    await theirs.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    await until(ours, async () => (await ours.imports.instances({ peer: "theirs", service: "web" })).length === 1);
    await theirs.catalog.deregister({ node: "n1" });
    await until(ours, async () => (await ours.imports.instances({ peer: "theirs", service: "web" })).length === 0);
    await assert.rejects(resolve(ours, "theirs", "web"), /no healthy web at theirs/);
  });
});
