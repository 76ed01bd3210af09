import assert from "node:assert/strict";
import type { Cluster } from "../cluster.js";
import { complete, each, fill, type Load, loadRegistration, missing, nameOf } from "../load.js";
import type { Ours } from "../ours.js";
import type { Scenario } from "../scenario.js";
import { exportTo, register } from "../services.js";
import { pause, present, settles } from "../settles.js";
import { lastHeartbeatAt, type Pair, recordOf, type Stage, stateOf } from "../stage.js";

/** A heartbeat comes every 15 s. */
const HEARTBEAT_MS = 30_000;
const TWICE_MS = 60_000;
/** By then two Consuls that do not get stuck would have finished many times over. */
const STUCK_MS = 30_000;
/** Of a load of a thousand instances each way, about. */
const SYNC_MS = 2_000;
const RESTARTS = 4;
const LOOK_MS = 100;

/** Our status while `work` went on. */
async function watched(ours: Ours, peer: Cluster, work: Promise<void>) {
  const seen = { queued: 0, unacknowledged: 0, lag: 0, services: new Set<string>(), phases: new Set<string>() };
  let over = false;
  const look = async (): Promise<void> => {
    while (!over) {
      const status = ours.host.peerings.read(peer.name)?.status;
      if (status !== undefined) {
        seen.queued = Math.max(seen.queued, status.queuedResources);
        seen.unacknowledged = Math.max(seen.unacknowledged, status.unacknowledged);
        seen.lag = Math.max(seen.lag, status.lagMs ?? 0);
        seen.phases.add(status.phase);
        const { imported, exported } = present(ours.host.peerings.services(peer.name), "peering");
        for (const { progress } of [...imported.values(), ...exported.values()]) seen.services.add(progress);
      }
      await pause(LOOK_MS);
    }
  };
  const looking = look();
  try {
    await work;
  } finally {
    over = true;
    await looking;
  }
  return seen;
}

async function noWedge(stage: Stage, load: Load): Promise<void> {
  const pair: Pair = await stage.strangers();
  const { ours, consul } = pair;
  await fill(ours, consul, load);
  await fill(consul, ours, load);
  const began = performance.now();
  await pair.peer();
  const both = Promise.all([complete(ours, consul, load), complete(consul, ours, load)]);
  const seen = await watched(
    ours,
    consul,
    both.then(() => {}),
  );
  const seconds = (performance.now() - began) / 1_000;
  stage.remark(
    `complete after ${seconds.toFixed(1)} s, most queued ${seen.queued}, unacknowledged ${seen.unacknowledged}, longest lag ${Math.round(seen.lag)} ms`,
  );
  // An acceptor's first send may be everything there is: then it waits for answers, and for nothing else.
  assert.ok(seen.unacknowledged > 0 && seen.lag > 0, "status said what was in progress");
  assert.ok(
    ["listed", "sent"].some((progress) => seen.services.has(progress)),
    "it said so of single services, too",
  );
  assert.ok(!seen.phases.has("waiting"), "the first stream was the only one");

  await settles(
    async () => {
      assert.ok(await lastHeartbeatAt(consul, ours), "Consul has seen no heartbeat");
      assert.ok(ours.peering(consul.name).status.facts.lastReceiveHeartbeat, "we have seen no heartbeat");
    },
    "heartbeats go both ways",
    HEARTBEAT_MS,
  );
  const { status, state } = ours.peering(consul.name);
  assert.equal(state, "active");
  assert.equal(status.lastFailure, undefined);
  assert.deepEqual([status.queuedResources, status.unacknowledged, status.applying, status.lagMs], [0, 0, 0, 0]);
  assert.equal(status.withheldServices.size, 0);
  assert.equal(status.stream.importedServices.length, load.services);
  const { imported, exported } = present(ours.host.peerings.services(consul.name), "peering");
  assert.equal([...imported.values()].filter(({ progress }) => progress === "applied").length, load.services);
  assert.equal([...exported.values()].filter(({ progress }) => progress === "acknowledged").length, load.services);
  assert.equal((await recordOf(consul, ours)).StreamStatus.ImportedServices.length, load.services);

  for (const [exporter, importer] of [
    [ours, consul],
    [consul, ours],
  ] as const) {
    await exporter.client.catalog.register(loadRegistration(load, load.services - 1, 0, "after"));
    await settles(async () => {
      const { value } = await importer.client.health.service(nameOf(load.services - 1), { peer: exporter.name });
      assert.ok(
        value.some(({ Service }) => Service.Tags.includes("after")),
        "the old version",
      );
    }, `${importer.name} hears of a change after it all`);
  }
}

const MIB = 1024 * 1024;
const META_PAIRS = 64;
const META_VALUE = 512;

/** About 33 KiB, of as much as Consul lets an instance have. */
const largeMeta = Object.fromEntries(
  Array.from({ length: META_PAIRS }, (_, pair) => [`k${pair}`, "v".repeat(META_VALUE)]),
);

/** Instances of a service of ours, each with as large a meta as there can be, in one write. */
async function registerLarge(ours: Ours, service: string, instances: number): Promise<void> {
  await ours.host.catalog.registerAll(
    Array.from({ length: instances }, (_, instance) => ({
      node: `large-${instance}`,
      address: "10.0.0.1",
      service: { id: `${service}-${instance}`, name: service, port: 80, meta: largeMeta },
    })),
  );
}

/** In one write, too. */
async function deregisterLarge(ours: Ours, from: number, to: number): Promise<void> {
  const nodes = Array.from({ length: to - from }, (_, number) =>
    ours.host.catalog.deregister({ node: `large-${from + number}` }),
  );
  await Promise.all(nodes);
}

/** Load, each way at once, and services that are too large for one message. */
export const loadScenarios: readonly Scenario[] = [
  ...[
    { services: 300, instances: 10 },
    { services: 1_000, instances: 10 },
    { services: 2_000, instances: 5 },
  ].map(
    (load): Scenario => ({
      name: `no wedge: ${load.services} services of ${load.instances} instances each way`,
      proves: "ch1 case 120",
      alone: true,
      run: (stage) => noWedge(stage, load),
    }),
  ),
  {
    name: "each restarts in the middle of a sync",
    proves: "ch3 cases 16, 17",
    async run(stage) {
      const load = { services: 200, instances: 5 };
      const pair = await stage.strangers({ consul: { durable: true } });
      const { ours, consul } = pair;
      await fill(ours, consul, load);
      await fill(consul, ours, load);
      await pair.peer();
      for (let round = 0; round < RESTARTS; round++) {
        await pause(Math.random() * SYNC_MS);
        if (round % 2 === 0) await ours.restart();
        else await consul.restart("SIGKILL");
      }
      await Promise.all([complete(ours, consul, load), complete(consul, ours, load)]);
      await pair.active();
    },
  },
  {
    name: "control: two Consuls with 300 of 10 each way get stuck",
    // Neither side is ours.
    roles: ["dialer"],
    alone: true,
    async run(stage) {
      const load = { services: 300, instances: 10 };
      const one = await stage.consul({ name: "one", datacenter: "dc1" });
      const other = await stage.consul({ name: "other", datacenter: "dc2" });
      await Promise.all([one.ready(), other.ready()]);
      await fill(one, other, load);
      await fill(other, one, load);
      const token = await one.client.peerings.generateToken({ peerName: other.name });
      await other.client.peerings.establish({ peerName: one.name, token });
      await pause(STUCK_MS);
      const all = Array.from({ length: load.services }, (_, service) => service);
      const atOther = load.services - (await missing(one, other, load, all)).length;
      const atOne = load.services - (await missing(other, one, load, all)).length;
      stage.remark(`after ${STUCK_MS / 1_000} s ${atOne} and ${atOther} of ${load.services} services`);
      assert.ok(atOne < load.services && atOther < load.services, "they got through");
      assert.equal(await stateOf(one, other), "ACTIVE");
      assert.equal(await stateOf(other, one), "ACTIVE");
      assert.equal(await lastHeartbeatAt(one, other), undefined);
    },
  },
  {
    name: "a service too large for Consul is held back alone",
    proves: "ch1 case 123",
    alone: true,
    async run(stage) {
      const pair = await stage.pair();
      const { ours, consul } = pair;
      const limit = stage.role === "dialer" ? 50 * MIB : 8 * MIB;
      const instances = Math.ceil((limit * 1.1) / (META_PAIRS * META_VALUE));
      await register(ours, "small", 1);
      await registerLarge(ours, "large", 1);
      await exportTo(ours, consul, ["*"]);
      const has = (service: string, count: number): Promise<void> =>
        settles(async () => {
          const { value } = await consul.client.health.service(service, { peer: ours.name });
          assert.equal(value.length, count);
        }, `Consul has ${count} instances of ${service}`);
      await has("small", 1);
      await has("large", 1);
      const { connectTime } = ours.peering(consul.name).status.facts;

      const told = new AbortController();
      const event = (async () => {
        for await (const { peerings } of ours.host.peerings.watch({ signal: told.signal })) {
          const reason = peerings.find(({ name }) => name === consul.name)?.status.withheldServices.get("large");
          if (reason !== undefined) return reason;
        }
        return undefined;
      })();
      await registerLarge(ours, "large", instances);
      const reason = await settles(() => {
        const withheld = ours.peering(consul.name).status.withheldServices;
        assert.deepEqual([...withheld.keys()], ["large"]);
        return withheld.get("large") ?? "";
      }, "status names the service");
      const [, bytes] = /^(\d+) bytes are more than the peer accepts/.exec(reason) ?? [];
      assert.ok(Number(bytes) > limit, reason);
      stage.remark(`${(Number(bytes) / MIB).toFixed(1)} MiB`);
      await settles(
        async () => assert.match((await Promise.race([event, pause(0)])) ?? "", /bytes are more/),
        "an event names it",
      );
      told.abort();

      await register(ours, "small", 2);
      await has("small", 2);
      const kept = await consul.client.health.service("large", { peer: ours.name });
      assert.ok(kept.value.length > 0 && kept.value.length < instances, "Consul keeps the last version that fitted");

      await deregisterLarge(ours, 2, instances);
      await has("large", 2);
      const { status } = ours.peering(consul.name);
      assert.equal(status.withheldServices.size, 0);
      assert.equal(status.facts.connectTime, connectTime, "the stream was not disturbed");
    },
  },
  {
    name: "a service too large for dialers of Consul reaches us",
    roles: ["dialer"],
    alone: true,
    async run(stage) {
      const pair = await stage.pair();
      const { ours, consul } = pair;
      const instances = Math.ceil((9 * MIB) / (META_PAIRS * META_VALUE));
      await each(instances, async (instance) => {
        await consul.client.catalog.register({
          Node: `large-${instance}`,
          Address: "10.0.0.1",
          Service: { ID: `large-${instance}`, Service: "large", Port: 80, Meta: largeMeta },
        });
      });
      await register(consul, "small", 1);
      const { connectTime } = ours.peering(consul.name).status.facts;
      await exportTo(consul, ours, ["*"]);
      await settles(async () => {
        const found = ours.host.imports.services({ peer: consul.name });
        assert.deepEqual(
          found.map(({ name, instances: count }) => [name, count]),
          [
            ["large", instances],
            ["small", 1],
          ],
        );
      }, "all of it has arrived");
      assert.equal(ours.peering(consul.name).status.facts.connectTime, connectTime, "on the first stream");
    },
  },
  {
    name: "control: a stream of Consul's does not survive such a service",
    proves: "ch1 case 11",
    roles: ["acceptor"],
    alone: true,
    async run(stage) {
      // With a limit that is not Consul's, so that it is sent what it cannot take.
      const pair = await stage.pair({
        consul: { hcl: 'log_level = "debug"' },
        ours: { host: { limits: { maxSendToDialerBytes: 50 * MIB } } },
      });
      const { ours, consul } = pair;
      await registerLarge(ours, "large", Math.ceil((9 * MIB) / (META_PAIRS * META_VALUE)));
      await exportTo(ours, consul, ["*"]);
      // It would wait 8 s, but storing our bundle makes it look for whom to dial, which it does every 5 s.
      const exhausted = "stream disconnected due to 'resource exhausted' error";
      await settles(
        () => assert.ok(consul.output.split(exhausted).length > 2, "not twice yet"),
        "it fails, comes back and fails again",
        TWICE_MS,
      );
    },
  },
];
