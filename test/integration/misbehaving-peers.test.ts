// Peers that keep to no rule: what they can make a host hold is bounded, other peerings do not notice, status says what is
// wrong, and all is well again once they behave.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { wellBehaved } from "../../src/testing/fake-peer/index.js";
import { ResourceUrl } from "../../src/wire/messages.js";
import { servicePayload } from "../support/messages.js";
import { has, INSTANCE_BYTES, type Kind, load, type Role, type Scene, scene } from "../support/misbehaving.js";
import { startRelay } from "../unit/transport/relay.js";

const MiB = 1024 * 1024;

/** More services than what a transport takes for a peer that does not read, and what that is at most. */
const LOADS: Readonly<Record<Kind, { readonly services: number; readonly takenAheadBytes: number }>> = {
  // 256 KiB in the pipe, 256 KiB in the writer's hands, and a message that may exceed either.
  memory: { services: 16, takenAheadBytes: 1 * MiB },
  // 4 MiB of HTTP/2 window, 1 MiB read ahead by the peer, 512 KiB ahead of the wire and 256 KiB in the writer's hands.
  grpc: { services: 72, takenAheadBytes: 6.5 * MiB },
};
/** Over gRPC time is real, so less of it is waited. */
const stalls = (kind: Kind): object => (kind === "memory" ? {} : { host: { timings: { sendStallMs: STALL_MS } } });
const STALL_MS = 3_000;
const ROUNDS = 4;

async function isUp(at: Scene): Promise<void> {
  await at.until(() => at.view().state === "active" && at.view().status.lagMs === 0, "the stream is up");
}

async function goodHas(at: Scene, services: number, version: string): Promise<void> {
  await at.until(() => has(at.good, services, version), "the good peer has everything");
}

/** The good one had one stream all the time, and lacks nothing. */
async function goodIsUndisturbed(at: Scene): Promise<void> {
  await at.until(() => at.host.peerings.read("good")?.status.lagMs === 0, "the good peer is in step");
  assert.deepEqual([at.good.streams.length, at.good.stream.end], [1, undefined]);
}

async function recovers(at: Scene, services: number, version: string): Promise<void> {
  at.bad.behave(wellBehaved);
  if (at.view().state !== "active") await at.again();
  await at.until(() => has(at.bad, services, version), "the bad one has everything, too");
  await at.until(() => at.view().status.lagMs === 0, "and has acknowledged it");
  const { status, state } = at.view();
  assert.deepEqual([state, status.withheldServices.size, status.stalledMs], ["active", 0, 0]);
  await goodIsUndisturbed(at);
}

for (const kind of ["memory", "grpc"] as const satisfies readonly Kind[]) {
  for (const role of ["acceptor", "dialer"] as const satisfies readonly Role[]) {
    describe(`a peer that misbehaves, as ${role} over ${kind}`, { concurrency: false }, () => {
      const { services, takenAheadBytes } = LOADS[kind];

      for (const misbehaviour of ["stops-reading", "one-byte-a-second"] as const) {
        it(`${misbehaviour}: the queue is bounded by the number of exports, and the stream ends (ch1 case 119)`, async () => {
          await using at = await scene(kind, role, stalls(kind));
          const { host, bad } = at;
          await isUp(at);
          bad.behave(misbehaviour);
          await load(host, services, "v0");
          await goodHas(at, services, "v0");
          const exportedBytes = services * 4 * INSTANCE_BYTES;
          const first = at.view();
          assert.deepEqual([first.state, first.status.phase], ["active", "connected"]);
          assert.ok(first.status.queuedBytes >= exportedBytes - takenAheadBytes, `${first.status.queuedBytes} wait`);
          const progress = [...(host.peerings.services("bad")?.exported.values() ?? [])].map((one) => one.progress);
          assert.ok(progress.filter((one) => one === "queued").length >= first.status.queuedResources - 3);

          for (let round = 1; round <= ROUNDS && at.view().status.phase === "connected"; round++) {
            await load(host, services, `v${round}`);
            await goodHas(at, services, `v${round}`);
            const { queuedResources, queuedBytes } = at.view().status;
            assert.ok(queuedResources <= services + 3, `${queuedResources} resources wait`);
            assert.ok(queuedBytes <= exportedBytes * 1.1, `${queuedBytes} bytes wait`);
          }
          const last = await lastVersion(at);
          await at.until(() => at.view().state === "failing", "the stream is given up");
          const { status } = at.view();
          assert.deepEqual(
            [status.lastFailure?.code, status.lastFailure?.message, status.queuedBytes],
            ["peer-stalled", "peer accepts no data", 0],
          );
          await recovers(at, services, last);
        });
      }

      it("never acknowledges: everything is sent, and how long it has waited for an answer shows", async () => {
        await using at = await scene(kind, role);
        const { host, bad } = at;
        await isUp(at);
        bad.behave("never-acknowledges");
        await load(host, services, "v0");
        await goodHas(at, services, "v0");
        await at.until(() => has(bad, services, "v0"), "it was sent everything");
        if (kind === "memory") await at.pass(300_000);
        const { state, status } = at.view();
        assert.deepEqual([state, status.queuedResources, status.stalledMs], ["active", 0, 0]);
        assert.ok(status.unacknowledged >= services && status.unacknowledged <= services + 3);
        assert.ok((status.lagMs ?? 0) > (kind === "memory" ? 299_000 : 0));
        assert.equal(host.peerings.services("bad")?.exported.get("service-0")?.progress, "sent");
        await recovers(at, services, "v0");
      });

      it("refuses everything: each service is named with the reason, and nothing is sent again", async () => {
        await using at = await scene(kind, role);
        const { host, bad } = at;
        await isUp(at);
        if (kind === "memory") await at.pass(1_000);
        bad.behave("refuses-everything");
        await load(host, services, "v0");
        await goodHas(at, services, "v0");
        const isRefused = (name: string): boolean => at.view().status.withheldServices.has(name);
        await at.until(
          () =>
            at.view().status.lagMs === 0 && Array.from({ length: services }, (_, i) => `service-${i}`).every(isRefused),
          "every service is refused",
        );
        const sent = bad.stream.heard.length;
        const { state, status } = at.view();
        assert.deepEqual([state, status.queuedResources], ["active", 0]);
        assert.equal(status.withheldServices.get("service-0"), "refused by the peer: refused by the fake peer");
        const { progress } = host.peerings.services("bad")?.exported.get("service-0") ?? {};
        assert.equal(progress, "refused");
        if (kind === "memory") {
          await at.pass(121_000);
          assert.deepEqual([at.view().state, at.view().status.healthy], ["active", false]);
          const since = bad.stream.heard.slice(sent).filter(({ type }) => type === "response");
          assert.deepEqual(since, [], "only heartbeats");
        }
        // A service that it refused comes again when it changes.
        bad.behave(wellBehaved);
        await load(host, services, "v1");
        await at.until(() => has(bad, services, "v1"), "all of the next version is taken");
        await at.until(() => at.view().status.lagMs === 0, "and acknowledged");
        assert.deepEqual([...at.view().status.withheldServices.keys()], [ResourceUrl.exportedServiceList]);
        // An unchanged service comes again with the next stream.
        await bad.drop();
        await at.until(() => at.view().state === "failing", "the stream is lost");
        await recovers(at, services, "v1");
      });

      it("floods one service with versions: the last one stands, and none is left unanswered", async () => {
        await using at = await scene(kind, role);
        const { host, bad, good } = at;
        await load(host, 4, "v0");
        await isUp(at);
        let mostApplying = 0;
        const { stream } = bad;
        const versions = Array.from({ length: 16 }, (_, index) => servicePayload("flood", index + 1));
        const flooded = stream.flood(16_000, (index) => {
          mostApplying = Math.max(mostApplying, at.view().status.applyingBytes);
          return stream.response(ResourceUrl.exportedService, "flood", versions[index % 16] ?? new Uint8Array());
        });
        await load(host, 4, "v1");
        await at.until(() => has(good, 4, "v1"), "the good peer gets an update meanwhile");
        assert.equal(await flooded, 16_000);
        await at.until(() => bad.acknowledged("flood"), "the last version is acknowledged");
        assert.equal(host.imports.services({ peer: "bad" })[0]?.instances, 16);
        assert.ok(mostApplying < 16 * MiB, `${mostApplying} bytes waited at most`);
        const { status, state } = at.view();
        assert.deepEqual([state, status.applying, status.applyingBytes], ["active", 0, 0]);
        assert.deepEqual(host.peerings.services("bad")?.imported.get("flood")?.progress, "applied");
        await goodIsUndisturbed(at);
      });

      it("floods and does not read: what waits for it is bounded, and the stream ends with the reason", async () => {
        const answerBytes = 256 * 1024;
        await using at = await scene(kind, role, { host: { limits: { answerBytes } } });
        const { host, bad, good } = at;
        await isUp(at);
        bad.behave({ reads: false });
        const { stream } = bad;
        const junk = servicePayload("junk");
        let most = 0;
        // Over gRPC a few megabytes of answers find room on the way; each of these costs a long one.
        const flooded = stream.flood(100_000, (index) => {
          most = Math.max(most, at.view().status.answerBytes);
          return stream.response(ResourceUrl.exportedService, `${"long-".repeat(200)}${index}`, junk);
        });
        await load(host, 4, "v1");
        await at.until(() => has(good, 4, "v1"), "the good peer gets an update meanwhile");
        await at.until(() => at.view().state === "failing", "the stream is given up");
        assert.ok(most <= answerBytes, `${most} bytes waited at most`);
        assert.deepEqual(at.view().status.lastFailure?.code, "resource-exhausted");
        assert.match(
          at.view().status.lastFailure?.message ?? "",
          /^too many answers wait for the peer to read: \d+ bytes$/,
        );
        bad.behave(wellBehaved);
        assert.ok((await flooded) < 100_000);
        await recovers(at, 4, "v1");
      });
    });
  }
}

describe("a line that carries one byte a second, under TLS", () => {
  for (const role of ["acceptor", "dialer"] as const satisfies readonly Role[]) {
    it(`is given up by a host whose peer is the ${role}, and the next one serves`, async () => {
      await using relay = await startRelay();
      const { services, takenAheadBytes } = LOADS.grpc;
      // The acceptor advertises the relay's address.
      const host = { timings: { sendStallMs: STALL_MS } };
      await using at = await scene("grpc", role, {
        host: role === "dialer" ? { ...host, advertise: [relay.address] } : host,
        bad: role === "acceptor" ? { advertise: relay.address } : {},
        onListen: ({ host: listening, bad }) => relay.forwardTo((role === "dialer" ? listening : bad) ?? ""),
      });
      await isUp(at);
      relay.trickle();
      await load(at.host, services, "v0");
      // The good peer goes through the relay, too, where the host is dialed: its line is as slow.
      if (role === "acceptor") await goodHas(at, services, "v0");
      const { queuedBytes, queuedResources } = at.view().status;
      assert.ok(queuedBytes >= services * 4 * INSTANCE_BYTES - takenAheadBytes || at.view().state === "failing");
      assert.ok(queuedResources <= services + 3);
      await at.until(() => at.view().state === "failing", "the line is given up");
      assert.equal(at.view().status.lastFailure?.code, "peer-stalled");
      relay.cut();
      await at.again();
      await at.until(() => has(at.bad, services, "v0"), "everything comes over the next line");
    });
  }
});

/** The version of what the good peer was sent last. */
async function lastVersion({ good }: Scene): Promise<string> {
  return [...good.imported.values()][0]?.[0]?.service.tags[0] ?? "";
}
