// A fake peer, for the tests of your own project: it exports what the test says, shows what it was sent, and
// misbehaves on command. No binaries, no ports, and time passes when the test wants it to.
//
//   node --test build/examples/fake-peer.js
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost, type PeeringHost } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { fakePeer, recordedScript, testClock, wellBehaved } from "peerage/testing";
import { memoryNetwork } from "peerage/transport/memory";

// The code under test: a line about a peer for a dashboard.
function summary(host: PeeringHost, name: string): string {
  const view = host.peerings.read(name);
  if (view === undefined) return `${name}: not peered`;
  const { state, status } = view;
  if (state === "failing") return `${name}: failing, ${status.lastFailure?.code}`;
  if (status.stalledMs > 30_000) return `${name}: takes nothing for ${status.stalledMs / 1_000} s`;
  return `${name}: ${state}, ${host.imports.services({ peer: name }).length} services`;
}

const web = { node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } };

/** Our host, peered with a fake that it calls `theirs`. */
async function peered() {
  const network = memoryNetwork();
  const clock = testClock();
  const peer = await fakePeer({ transport: network.transport({ listen: "theirs:8503" }), clock });
  const host = await createHost({ storage: memoryStorage(), transport: network.transport(), clock });
  await host.peerings.establish({ peerName: "theirs", token: peer.token() });
  return {
    clock,
    peer,
    host,
    async [Symbol.asyncDispose]() {
      await host.close();
      await peer.close();
    },
  };
}

describe("the dashboard", () => {
  it("counts what the peer exports", async () => {
    await using both = await peered();
    both.peer.offer(web);
    await both.peer.until(() => both.peer.acknowledged("web"));
    assert.equal(summary(both.host, "theirs"), "theirs: active, 1 services");
  });

  it("says that the peer takes nothing, that it was given up, and that it is back", async () => {
    await using both = await peered();
    const { peer, host, clock } = both;
    await peer.connected();
    peer.behave("stops-reading");
    const meta = Object.fromEntries(Array.from({ length: 64 }, (_, index) => [`key-${index}`, "x".repeat(500)]));
    const large = Array.from({ length: 40 }, (_, index) => ({
      ...web,
      node: `n${index}`,
      service: { ...web.service, meta },
    }));
    await host.catalog.registerAll(large);
    await host.exports.set({ services: [{ name: "*", consumers: [{ peer: "theirs" }] }] });
    await clock.advance(60_000);
    assert.match(summary(host, "theirs"), /^theirs: takes nothing for \d+ s$/);
    await clock.advance(65_000);
    assert.equal(summary(host, "theirs"), "theirs: failing, peer-stalled");

    peer.behave(wellBehaved);
    await clock.advance(10_000);
    await peer.until(() => peer.imported.get("web")?.length === 40);
    assert.equal(summary(host, "theirs"), "theirs: active, 0 services");
  });

  it("shows the same for what was recorded once", async () => {
    await using first = await peered();
    first.peer.offer(web);
    await first.peer.until(() => first.peer.acknowledged("web"));
    const { transcript } = first.peer.stream;

    const network = memoryNetwork();
    const transport = network.transport({ listen: "theirs:8503" });
    await using peer = await fakePeer({ transport, script: recordedScript(transcript) });
    await using host = await createHost({ storage: memoryStorage(), transport: network.transport() });
    await host.peerings.establish({ peerName: "theirs", token: peer.token() });
    await peer.until(() => peer.acknowledged("web"));
    assert.equal(summary(host, "theirs"), "theirs: active, 1 services");
  });
});
