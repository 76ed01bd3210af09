import assert from "node:assert/strict";
import { asList, asObject, textOf } from "../../src/client/json-reader.js";
import { OurAgent } from "../agent.js";
import type { Cluster } from "../cluster.js";
import { type ConsulOptions, type ConsulServer, isBefore } from "../consul.js";
import type { Scenario } from "../scenario.js";
import { change, deregister, exchange, exchanged, exportTo, inStep, register } from "../services.js";
import { pause, present, settles } from "../settles.js";
import { Pair, recordOf, type Stage, stateOf } from "../stage.js";

/** The dialer's back-off may have grown, and each attempt into silence takes 20 s. */
const PATIENCE_MS = 120_000;
const LONG_OUTAGE_MS = 310_000;

/** Both sides notice a silent link within seconds, where they can be told to. Consul's dialer cannot: it takes 40 s. */
const quick = {
  consul: { hcl: 'performance { raft_multiplier = 1, grpc_keepalive_interval = "5s", grpc_keepalive_timeout = "5s" }' },
  ours: {
    transport: {
      // Consul's servers hang up on who asks more often than every 15 s.
      dialerKeepalive: { intervalMs: 15_000, timeoutMs: 5_000 },
      acceptorKeepalive: { intervalMs: 5_000, timeoutMs: 5_000 },
    },
  },
} as const;

/** Consul servers before 1.16.3 cannot be told how often to look (but 1.14.11 and 1.15.7, which are not told either). */
function quickFor(stage: Stage) {
  return isBefore(stage.binary.version, "1.16.3") ? { ours: quick.ours } : quick;
}

/** @param outageMs - how long it lasts after both, or who can, have noticed. */
async function partition(stage: Stage, outageMs: number): Promise<void> {
  const pair = await stage.strangers(quickFor(stage));
  const { ours, consul } = pair;
  const relay = await stage.relay(pair.acceptorAddress);
  await pair.peer([relay.address]);
  await pair.active();
  await exchange(pair);
  relay.silence();
  await settles(
    async () => {
      const { state, status } = ours.peering(consul.name);
      assert.equal(state, "failing");
      assert.match(`${status.lastFailure?.code}`, /unavailable|peer-silent|timeout/);
    },
    "we read FAILING, and say that the peer cannot be reached",
    PATIENCE_MS,
  );
  await pause(outageMs);
  await change(pair, "cut off");
  await exportTo(ours, consul, ["ours-web", "other"]);
  await register(ours, "other", 1);
  // Imports stay while the other cannot be reached.
  assert.deepEqual(await ours.importedNames(consul.name), ["theirs-web"]);
  assert.deepEqual(await consul.importedNames(ours.name), ["ours-web"]);
  relay.heal();
  const healed = performance.now();
  await pair.active(PATIENCE_MS);
  stage.remark(`back after ${((performance.now() - healed) / 1_000).toFixed(1)} s`);
  await inStep(ours, consul, ["other", "ours-web"], PATIENCE_MS);
  await inStep(consul, ours, ["theirs-web"], PATIENCE_MS);
}

/** Otherwise a server that joins waits for 10 s until it may vote. */
const quickVotes: ConsulOptions = { hcl: 'autopilot { server_stabilization_time = "1s" }' };

/** Three servers that have elected a leader. */
async function threeServers(stage: Stage, options: ConsulOptions = {}): Promise<readonly ConsulServer[]> {
  const first = await stage.consul({ ...options, expect: 3 });
  const rest = await Promise.all([1, 2].map(() => stage.consul({ ...options, expect: 3, join: [first.lan] })));
  const servers = [first, ...rest];
  await Promise.all(servers.map((server) => server.ready()));
  await settles(async () => {
    const { value } = await first.client.catalog.service("consul");
    assert.equal(value.length, servers.length);
  }, "all servers are in the catalog");
  return servers;
}

async function split(
  servers: readonly ConsulServer[],
): Promise<{ leader: ConsulServer; followers: readonly ConsulServer[] }> {
  return settles(
    async () => {
      const leads = await Promise.all(servers.map((server) => server.leads));
      const leader = present(
        servers.find((_, index) => leads[index]),
        "leader",
      );
      return { leader, followers: servers.filter((server) => server !== leader) };
    },
    "one of the servers leads",
    PATIENCE_MS,
  );
}

/** Resolves once `server` has a vote in its cluster. */
async function votes(server: ConsulServer): Promise<void> {
  await settles(
    async () => {
      const configuration = asObject(await server.get("/v1/operator/raft/configuration"), "configuration");
      const members = asList(configuration["Servers"] ?? null, "servers").map((one) => asObject(one, "server"));
      const own = members.find((member) => textOf(member, "Node") === server.node);
      assert.equal(own?.["Voter"], true);
    },
    `${server.node} votes`,
    PATIENCE_MS,
  );
}

async function activeAt(cluster: Cluster, peer: Cluster): Promise<void> {
  await settles(
    async () => assert.equal(await stateOf(cluster, peer), "ACTIVE"),
    `${cluster.name} reads ACTIVE`,
    PATIENCE_MS,
  );
}

/** Restarts, crashes, and links and servers that fail. */
export const outageScenarios: readonly Scenario[] = [
  {
    name: "each restarts, and what changed meanwhile arrives",
    proves: "ch1 cases 64, 65; ch2 LC15; ch3 cases 16, 17",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      const { ours, consul } = pair;
      await exchange(pair);
      await register(ours, "soon-private", 1);
      await register(consul, "soon-private", 1);
      await inStep(ours, consul, ["ours-web", "soon-private"]);
      await inStep(consul, ours, ["soon-private", "theirs-web"]);

      await consul.stop();
      await settles(() => assert.equal(ours.peering(consul.name).state, "failing"), "we read FAILING");
      assert.deepEqual(await ours.importedNames(consul.name), ["soon-private", "theirs-web"]);
      await register(ours, "ours-web", 3, { tags: ["meanwhile"] });
      await exportTo(ours, consul, ["ours-web"]);
      consul.start();
      await consul.ready();
      await pair.active(PATIENCE_MS);
      await inStep(ours, consul, ["ours-web"]);

      await ours.stop();
      await settles(async () => assert.equal(await stateOf(consul, ours), "FAILING"), "Consul reads FAILING");
      await deregister(consul, "theirs-web", 0);
      await exportTo(consul, ours, ["theirs-web"]);
      await ours.start();
      await pair.active(PATIENCE_MS);
      await inStep(consul, ours, ["theirs-web"]);
      await inStep(ours, consul, ["ours-web"]);
    },
  },
  {
    name: "Consul is killed, again and again",
    proves: "ch2 LC15; ch3 case 16",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      for (let round = 0; round < 3; round++) {
        await change(pair, `round ${round}`);
        await pair.consul.restart("SIGKILL");
        await pair.active(PATIENCE_MS);
        await exchanged(pair);
      }
    },
  },
  {
    name: "we are killed, again and again",
    proves: "ch3 case 17",
    async run(stage) {
      const [ours, consul] = await Promise.all([OurAgent.start(stage.processes), stage.consul()]);
      stage.use(ours);
      await consul.ready();
      const [acceptor, dialer] = stage.role === "acceptor" ? [ours, consul] : [consul, ours];
      const token = await acceptor.client.peerings.generateToken({ peerName: dialer.name });
      await dialer.client.peerings.establish({ peerName: acceptor.name, token });
      // Before anything else: the secret that was exchanged must have been kept.
      await ours.kill();
      await ours.start();
      await activeAt(ours, consul);
      await exchange({ ours, consul });
      for (let round = 0; round < 2; round++) {
        await change({ ours, consul }, `round ${round}`);
        await ours.kill();
        await ours.start();
        await activeAt(consul, ours);
        await activeAt(ours, consul);
        await exchanged({ ours, consul });
      }
    },
  },
  {
    name: "a partition, and recovery from it",
    proves: "ch1 case 64",
    run: (stage) => partition(stage, 5_000),
  },
  {
    name: "a partition of five minutes",
    long: true,
    run: (stage) => partition(stage, LONG_OUTAGE_MS),
  },
  {
    name: "the connection is cut, again and again",
    async run(stage) {
      const pair = await stage.strangers();
      const relay = await stage.relay(pair.acceptorAddress);
      await pair.peer([relay.address]);
      await pair.active();
      await exchange(pair);
      for (let round = 0; round < 3; round++) {
        await change(pair, `round ${round}`);
        relay.cut();
        await settles(async () => {
          assert.notEqual(pair.ours.peering(pair.consul.name).status.facts.disconnectTime, undefined);
        }, "we have noticed");
        await pair.active(PATIENCE_MS);
        await exchanged(pair);
      }
    },
  },
  {
    name: "Consul is frozen, and goes on",
    proves: "ch3 case 26",
    async run(stage) {
      const pair = await stage.pair(quickFor(stage));
      const { ours, consul } = pair;
      await exchange(pair);
      consul.freeze();
      const frozen = performance.now();
      await settles(() => assert.equal(ours.peering(consul.name).state, "failing"), "we read FAILING", PATIENCE_MS);
      stage.remark(`FAILING after ${((performance.now() - frozen) / 1_000).toFixed(1)} s`);
      await register(ours, "ours-web", 2, { tags: ["frozen"] });
      consul.thaw();
      const thawed = performance.now();
      await pair.active(PATIENCE_MS);
      stage.remark(`back after ${((performance.now() - thawed) / 1_000).toFixed(1)} s`);
      await exchanged(pair, PATIENCE_MS);
    },
  },
  {
    name: "a follower answers: the next address is dialed",
    proves: "ch1 cases 17 and 19; ch3 case 21",
    roles: ["dialer"],
    async run(stage) {
      const servers = await threeServers(stage);
      const { leader, followers } = await split(servers);
      const ours = await stage.ours();
      const token = await leader.client.peerings.generateToken({
        peerName: ours.name,
        // The leader last, so that a follower is asked for the secret, and for the stream.
        serverExternalAddresses: [...followers, leader].map(({ grpc }) => grpc),
      });
      await ours.host.peerings.establish({ peerName: "consul", token });
      await activeAt(ours, leader);
      await exchange({ ours, consul: leader });
      const { failedAttempts } = ours.peering("consul").status;
      assert.equal(failedAttempts, 0);
      assert.match(ours.output, /follower node/);
      assert.doesNotMatch(
        ours.output,
        new RegExp(`address":"127.0.0.1:(${servers.map(({ ports }) => ports.server).join("|")})"`),
      );

      await leader.stop("SIGKILL");
      const rest = await split(followers);
      await activeAt(ours, rest.leader);
      await activeAt(rest.leader, ours);
      await change({ ours, consul: rest.leader }, "another leader");
      await exchanged({ ours, consul: rest.leader }, PATIENCE_MS);
    },
  },
  {
    name: "another server of Consul's cluster dials us",
    proves: "ch3 case 21",
    roles: ["acceptor"],
    async run(stage) {
      const servers = await threeServers(stage);
      const { leader, followers } = await split(servers);
      const ours = await stage.ours();
      const token = await ours.host.peerings.generateToken({ peerName: "consul" });
      // A follower forwards it to its leader.
      await present(followers[0], "follower").client.peerings.establish({ peerName: ours.name, token });
      await activeAt(ours, leader);
      await exchange({ ours, consul: leader });
      await leader.stop("SIGKILL");
      const rest = await split(followers);
      await activeAt(rest.leader, ours);
      await activeAt(ours, rest.leader);
      await change({ ours, consul: rest.leader }, "another leader");
      await exchanged({ ours, consul: rest.leader }, PATIENCE_MS);
    },
  },
  {
    name: "the acceptor's addresses change",
    proves: "ch1 case 53; ch3 case 20",
    async run(stage) {
      if (stage.role === "acceptor") {
        const pair = await stage.pair();
        const { ours, consul } = pair;
        await exchange(pair);
        const [port = 0] = await stage.processes.ports(1);
        const moved = `127.0.0.1:${port}`;
        await ours.stop();
        await ours.start({ advertise: [ours.address, moved] });
        await settles(
          async () => assert.deepEqual((await recordOf(consul, ours)).PeerServerAddresses, [ours.address, moved]),
          "Consul knows both addresses",
          PATIENCE_MS,
        );
        await ours.stop();
        await ours.start({ advertise: [moved] }, port);
        await pair.active(PATIENCE_MS);
        await settles(
          async () => assert.deepEqual((await recordOf(consul, ours)).PeerServerAddresses, [moved]),
          "Consul knows the new address",
        );
        await change(pair, "moved");
        await exchanged(pair);
        return;
      }
      const servers = await threeServers(stage, quickVotes);
      const { leader, followers } = await split(servers);
      const ours = await stage.ours();
      const token = await leader.client.peerings.generateToken({ peerName: ours.name });
      await ours.host.peerings.establish({ peerName: "consul", token });
      await activeAt(ours, leader);
      await exchange({ ours, consul: leader });
      const follower = present(followers[0], "follower");
      const former = follower.grpc;
      const [port = 0] = await stage.processes.ports(1);
      await follower.stop();
      // A server that is back before it was missed, with nothing but another port, is no change to Consul.
      await settles(
        () => assert.ok(!ours.peering("consul").peerServerAddresses.includes(former), "still listed"),
        "we know that the server is gone",
        PATIENCE_MS,
      );
      follower.start(port);
      await follower.ready();
      await settles(
        () => {
          const addresses = ours.peering("consul").peerServerAddresses;
          assert.equal(addresses.length, servers.length);
          assert.ok(addresses.includes(follower.grpc) && !addresses.includes(former), addresses.join());
        },
        "we know where the server has moved",
        PATIENCE_MS,
      );
      // It was removed from the cluster perhaps, and must be trusted again before another one can go.
      await votes(follower);
      // The one that moved stays, and the two that we knew from the token go down one after the other, as in an upgrade.
      await leader.stop();
      const rest = await split(followers);
      await activeAt(ours, rest.leader);
      await change({ ours, consul: rest.leader }, "moved");
      await exchanged({ ours, consul: rest.leader }, PATIENCE_MS);
    },
  },
  {
    name: "every server of Consul's cluster is replaced, one by one",
    proves: "ch3 case 20",
    async run(stage) {
      let servers = await threeServers(stage, quickVotes);
      const { leader, followers } = await split(servers);
      const ours = await stage.ours();
      const pair = new Pair(ours, leader, stage.role);
      await pair.peer();
      await activeAt(ours, leader);
      await exchange(pair);
      for (const leaving of [...followers, leader]) {
        const added = await stage.consul({ ...quickVotes, expect: 3, join: servers.map(({ lan }) => lan) });
        await added.ready();
        await votes(added);
        await leaving.command("leave");
        servers = [...servers.filter((server) => server !== leaving), added];
        await split(servers);
        assert.deepEqual(await ours.importedNames("consul"), ["theirs-web"]);
        if (stage.role === "acceptor") continue;
        const expected = servers.map(({ grpc }) => grpc).sort();
        await settles(
          () => assert.deepEqual([...ours.peering("consul").peerServerAddresses].sort(), expected),
          "we know the servers that are left",
          PATIENCE_MS,
        );
      }
      const now = await split(servers);
      await activeAt(now.leader, ours);
      await activeAt(ours, now.leader);
      await change({ ours, consul: now.leader }, "all replaced");
      await exchanged({ ours, consul: now.leader }, PATIENCE_MS);
    },
  },
  {
    name: "the first address of the token answers nobody",
    proves: "ch3 case 38",
    roles: ["dialer"],
    async run(stage) {
      const pair = await stage.strangers();
      const relay = await stage.relay(pair.acceptorAddress);
      relay.silence();
      await pair.peer([relay.address, pair.acceptorAddress]);
      await pair.active(PATIENCE_MS);
      await exchange(pair);
    },
  },
];
