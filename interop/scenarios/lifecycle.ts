import assert from "node:assert/strict";
import type { Cluster } from "../cluster.js";
import type { Scenario } from "../scenario.js";
import { change, exchange, exchanged } from "../services.js";
import { pause, settles } from "../settles.js";
import { type Pair, recordOf, stateOf } from "../stage.js";

/** Consul says `Terminated` up to 6 s late. */
const PATIENCE_MS = 60_000;

interface Sides {
  readonly deleter: Cluster;
  readonly other: Cluster;
}

const sidesOf = (pair: Pair, by: "ours" | "consul"): Sides =>
  by === "ours" ? { deleter: pair.ours, other: pair.consul } : { deleter: pair.consul, other: pair.ours };

async function isGone(cluster: Cluster, peer: Cluster): Promise<void> {
  await settles(
    async () => {
      assert.equal(await stateOf(cluster, peer), undefined);
      assert.deepEqual(await cluster.importedNames(peer.name), []);
    },
    `nothing of ${peer.name} is left at ${cluster.name}`,
    PATIENCE_MS,
  );
}

async function isTerminated(cluster: Cluster, peer: Cluster): Promise<void> {
  await settles(
    async () => {
      assert.equal(await stateOf(cluster, peer), "TERMINATED");
      assert.deepEqual(await cluster.importedNames(peer.name), []);
    },
    `${cluster.name} knows that ${peer.name} has deleted the peering`,
    PATIENCE_MS,
  );
}

async function hasOwn(cluster: Cluster, service: string): Promise<void> {
  const { value } = await cluster.client.health.service(service);
  assert.equal(value.length, 2, `${cluster.name} still has its own ${service}`);
}

/** Deletes at `cluster` and peers again under the same names. */
async function startAnew(pair: Pair, cluster: Cluster, peer: Cluster): Promise<void> {
  await cluster.client.peerings.delete(peer.name);
  await isGone(cluster, peer);
  await pair.peer();
  await pair.active();
  await exchanged(pair);
}

/** The life of a peering between its token and its end. */
export const lifecycleScenarios: readonly Scenario[] = [
  ...(["ours", "consul"] as const).flatMap((by): Scenario[] => {
    const who = by === "ours" ? "we delete" : "Consul deletes";
    return [
      {
        name: who,
        proves: "ch1 cases 61, 62, 63; ch2 LC10, LC11, LC12; ch3 cases 60, 61, 64; ch4 case 57",
        async run(stage) {
          const pair = await stage.pair();
          await exchange(pair);
          const { deleter, other } = sidesOf(pair, by);
          const former = await recordOf(other, deleter);
          await deleter.client.peerings.delete(other.name);
          await isGone(deleter, other);
          await isTerminated(other, deleter);
          await hasOwn(pair.ours, "ours-web");
          await hasOwn(pair.consul, "theirs-web");
          if (other === pair.dialer) {
            // A dialer may establish over what was terminated, and keeps its own id.
            await pair.peer();
            await pair.active();
            await exchanged(pair);
            const now = await recordOf(other, deleter);
            assert.equal(now.ID, former.ID);
            assert.notEqual(now.PeerID, former.PeerID);
          } else {
            await startAnew(pair, other, deleter);
          }
        },
      },
      {
        name: `${who} while the other is down`,
        proves: "ch2 LC16; ch3 cases 67, 68",
        async run(stage) {
          const pair = await stage.pair({ consul: { durable: true } });
          await exchange(pair);
          const { deleter, other } = sidesOf(pair, by);
          if (by === "ours") await pair.consul.stop();
          else await pair.ours.stop();
          await deleter.client.peerings.delete(other.name);
          await isGone(deleter, other);
          if (by === "ours") {
            pair.consul.start();
            await pair.consul.ready();
          } else {
            await pair.ours.start();
          }
          if (other === pair.dialer) {
            // Nobody tells it, so it is refused from now on and keeps what it has until somebody deletes here, too.
            await settles(
              async () => assert.equal(await stateOf(other, deleter), "FAILING"),
              "it reads FAILING",
              PATIENCE_MS,
            );
            assert.notDeepEqual(await other.importedNames(deleter.name), []);
            if (other === pair.ours) {
              const { lastFailure } = pair.ours.peering(pair.consul.name).status;
              assert.match(lastFailure?.message ?? "", /initial subscription for unknown PeerID/);
            }
          } else if (other === pair.ours) {
            // Consul goes on dialing with what it had, and says `Terminated` when it next looks at its peerings.
            await settles(
              async () => {
                await pair.consul.client.peerings.generateToken({ peerName: "somebody-else" });
                await pause(1_000);
                assert.equal(pair.ours.peering(pair.consul.name).state, "terminated");
              },
              "Consul says that it has deleted the peering",
              PATIENCE_MS,
            );
          } else {
            assert.equal(await stateOf(other, deleter), "PENDING");
          }
          await startAnew(pair, other, deleter);
        },
      },
    ];
  }),
  {
    name: "both delete at once",
    proves: "ch3 case 73",
    async run(stage) {
      const pair = await stage.pair();
      await exchange(pair);
      const { ours, consul } = pair;
      await Promise.all([ours.client.peerings.delete(consul.name), consul.client.peerings.delete(ours.name)]);
      await isGone(ours, consul);
      await settles(
        async () => {
          // Consul may take our word for more than its own decision, and must then be told again.
          if ((await stateOf(consul, ours)) === "TERMINATED") await consul.client.peerings.delete(ours.name);
          assert.equal(await stateOf(consul, ours), undefined);
        },
        "Consul has no peering any more",
        PATIENCE_MS,
      );
    },
  },
  {
    name: "a newer token voids the older one, and no stream",
    proves: "ch2 LC1; ch3 case 79",
    async run(stage) {
      const pair = await stage.strangers();
      const older = await pair.token();
      const newer = await pair.token();
      await assert.rejects(pair.establish(older), /403 .*a new peering token must be generated/);
      await pair.establish(newer);
      await pair.active();
      await exchange(pair);
      const { connectTime } = pair.ours.peering(pair.consul.name).status.facts;
      await pair.token();
      await change(pair, "token generated");
      await exchanged(pair);
      assert.equal(pair.ours.peering(pair.consul.name).status.facts.connectTime, connectTime);
    },
  },
  {
    name: "established again over a live peering",
    proves: "ch2 LC8, LC9; ch3 cases 19, 86",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      const before = await recordOf(pair.dialer, pair.acceptor);
      const { connectTime } = pair.ours.peering(pair.consul.name).status.facts;
      // Its addresses are not looked at while there is a stream.
      await pair.establish(edited(await pair.token(), { ServerAddresses: ["127.0.0.1:1"] }));
      await pair.active();
      await change(pair, "established again");
      await exchanged(pair);
      const after = await recordOf(pair.dialer, pair.acceptor);
      assert.equal(after.ID, before.ID);
      assert.equal(after.PeerID, before.PeerID);
      assert.deepEqual(after.PeerServerAddresses, before.PeerServerAddresses);
      assert.equal(pair.ours.peering(pair.consul.name).status.facts.connectTime, connectTime);
      // The next stream opens with the new secret, and after it with that one again.
      for (const round of ["first", "second"]) {
        await pair.consul.restart();
        await pair.active(PATIENCE_MS);
        await change(pair, round);
        await exchanged(pair);
      }
    },
  },
  {
    name: "a token that leads nowhere, then the right one",
    proves: "ch2 LC5; ch3 cases 32, 36",
    async run(stage) {
      const pair = await stage.strangers();
      const { acceptor, dialer } = pair;
      const token = await pair.token();
      const nowhere = ["127.0.0.1:1"];
      const began = performance.now();
      await assert.rejects(
        pair.establish(edited(token, { ServerAddresses: nowhere })),
        /connection refused|ECONNREFUSED/,
      );
      assert.ok(performance.now() - began > 3_000, "it gave up early");
      const pending = await recordOf(dialer, acceptor);
      assert.equal(pending.State, "PENDING");
      assert.deepEqual(pending.PeerServerAddresses, nowhere);
      await pair.establish(token);
      await pair.active();
      assert.equal((await recordOf(dialer, acceptor)).ID, pending.ID);
    },
  },
  {
    name: "a token for another name or of another authority",
    proves: "ch1 cases 4, 5; ch3 case 22",
    async run(stage) {
      const pair = await stage.strangers();
      const stranger = await stage.ours({ name: "stranger" });
      const token = await pair.token();
      const domain = await pair.acceptor.trustDomain();
      const otherName = `server.elsewhere.peering.${domain}`;
      await assert.rejects(
        pair.establish(edited(token, { ServerName: otherName })),
        /certificate is valid for|Hostname\/IP does not match|altnames/,
      );
      const { ca } = { ca: stranger.authority.roots().map(({ certificatePem }) => certificatePem) };
      await assert.rejects(
        pair.establish(edited(token, { CA: ca })),
        /signed by unknown authority|self-signed certificate|unable to (get|verify)|certificate signature failure/,
      );
      await pair.establish(token);
      await pair.active();
    },
  },
  {
    name: "names of the other role and own tokens are refused, on both sides alike",
    proves: "ch2 cases LC6, LC7; ch3 cases 34, 35",
    async run(stage) {
      const pair = await stage.pair();
      const { acceptor, dialer } = pair;
      await assert.rejects(
        dialer.client.peerings.generateToken({ peerName: acceptor.name }),
        /cannot create peering with name: "\w+"; there is already an established peering/,
      );
      const own = await acceptor.client.peerings.generateToken({ peerName: "somebody" });
      await assert.rejects(
        dialer.client.peerings.establish({ peerName: "another", token: await selfMade(dialer, own) }),
        /cannot create a peering within the same cluster/,
      );
      await assert.rejects(
        acceptor.client.peerings.establish({ peerName: "another", token: own }),
        /cannot create a peering within the same cluster/,
      );
      const stranger = await stage.ours({ name: "stranger" });
      const token = await stranger.client.peerings.generateToken({ peerName: "anybody" });
      await assert.rejects(
        acceptor.client.peerings.establish({ peerName: dialer.name, token }),
        /cannot create peering with name: "\w+"; there is an existing peering expecting to be dialed/,
      );
      await exchange(pair);
    },
  },
  {
    name: "control: a token of Consul's for a terminated peering is dead",
    proves: "ch3 case 69",
    roles: ["dialer"],
    async run(stage) {
      const pair = await stage.pair();
      const { ours, consul } = pair;
      await ours.client.peerings.delete(consul.name);
      await isTerminated(consul, ours);
      await isGone(ours, consul);
      await assert.rejects(pair.peer(), /a new peering token must be generated: invalid peering establishment secret/);
      await consul.client.peerings.delete(ours.name);
      await isGone(consul, ours);
      await pair.peer();
      await pair.active();
    },
  },
  {
    name: "one token, two that establish at once",
    proves: "ch1 case 15; ch2 LC4; ch3 case 84",
    async run(stage) {
      const pair = await stage.strangers();
      const second =
        stage.role === "dialer" ? await stage.ours({ name: "second" }) : await stage.consul({ name: "second" });
      if ("ready" in second) await second.ready();
      const token = await pair.token();
      const results = await Promise.allSettled([
        pair.establish(token),
        second.client.peerings.establish({ peerName: pair.acceptor.name, token }),
      ]);
      assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
      const winner = results[0]?.status === "fulfilled" ? pair.dialer : second;
      await settles(
        async () => assert.equal(await stateOf(winner, pair.acceptor), "ACTIVE"),
        "the one that succeeded is ACTIVE",
      );
    },
  },
];

/** `token` as if `cluster` had generated it. */
async function selfMade(cluster: Cluster, token: string): Promise<string> {
  const ServerName = `server.${cluster.datacenter}.peering.${await cluster.trustDomain()}`;
  return edited(token, { ServerName });
}

/** A token with other values in it. */
function edited(token: string, changes: Readonly<Record<string, unknown>>): string {
  const decoded: unknown = JSON.parse(Buffer.from(token, "base64").toString("utf8"));
  assert.ok(typeof decoded === "object", "a token is an object");
  return Buffer.from(JSON.stringify({ ...decoded, ...changes })).toString("base64");
}
