import assert from "node:assert/strict";
import type { JsonObject } from "../../src/client/index.js";
import { givenRoot } from "../../test/support/given-root.js";
import type { ConsulServer } from "../consul.js";
import type { Scenario } from "../scenario.js";
import { change, exchange, exchanged, exportTo, inStep, register } from "../services.js";
import { settles } from "../settles.js";
import { Pair, recordOf, type Stage } from "../stage.js";

/** Consul makes a new root when another kind of key is configured. */
async function rotate(consul: ConsulServer, bits: 256 | 384, crossSign = true): Promise<void> {
  await consul.put("/v1/connect/ca/configuration", {
    Provider: "consul",
    Config: { PrivateKeyType: "ec", PrivateKeyBits: bits },
    ForceWithoutCrossSigning: !crossSign,
  });
}

async function hasRoots(pair: Pair, of: "ours" | "consul", count: number): Promise<void> {
  const [holder, peer] = of === "ours" ? [pair.consul, pair.ours] : [pair.ours, pair.consul];
  await settles(
    async () => assert.equal((await recordOf(holder, peer)).PeerCAPems.length, count),
    `${holder.name} has ${count} roots of ${peer.name}`,
  );
}

async function worksAfterRestarts(pair: Pair): Promise<void> {
  const { ours, consul } = pair;
  await change(pair, "rotated");
  await exchanged(pair);
  await consul.restart();
  await pair.active();
  await change(pair, "theirs-restarted");
  await exchanged(pair);
  await ours.restart();
  await pair.active();
  await change(pair, "ours-restarted");
  await exchanged(pair);
}

/** The second datacenter of a federation. Its certificates are issued by an intermediate of the first one's root. */
async function federated(stage: Stage): Promise<{ readonly primary: ConsulServer; readonly secondary: ConsulServer }> {
  const hcl = 'primary_datacenter = "dc1"';
  const primary = await stage.consul({ name: "primary", hcl });
  await primary.ready();
  const join = `retry_join_wan = ["127.0.0.1:${primary.ports.wan}"], retry_interval_wan = "1s"`;
  const secondary = await stage.consul({ datacenter: "dc2", hcl: `${hcl}, ${join}` });
  await secondary.ready();
  assert.equal(await secondary.trustDomain(), await primary.trustDomain());
  return { primary, secondary };
}

/** Rotations of either authority, whatever the link does meanwhile. */
export const trustScenarios: readonly Scenario[] = [
  {
    name: "Consul's CA rotates while connected, then each restarts",
    proves: "ch1 case 90; ch3 cases 90, 92",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      await rotate(pair.consul, 384);
      await hasRoots(pair, "consul", 2);
      await worksAfterRestarts(pair);
    },
  },
  {
    name: "Consul's CA rotates without cross-signing, then each restarts",
    proves: "ch3 case 93",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      await rotate(pair.consul, 384, false);
      await hasRoots(pair, "consul", 2);
      await worksAfterRestarts(pair);
    },
  },
  {
    name: "Consul's CA rotates while we are down",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      await pair.ours.stop();
      await rotate(pair.consul, 384);
      // Shows the certificate of the new root from now on, and would have within half a minute anyway.
      await pair.consul.restart();
      await pair.ours.start();
      await pair.active(PATIENCE_MS);
      await hasRoots(pair, "consul", 2);
      await worksAfterRestarts(pair);
    },
  },
  {
    name: "our CA rotates while connected, then each restarts",
    proves: "ch1 case 90; ch3 case 90",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      await pair.ours.authority.rotate();
      await hasRoots(pair, "ours", 2);
      await worksAfterRestarts(pair);
    },
  },
  {
    name: "our CA is configured over HTTP: another kind of key, and a root that is given",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      const { connect } = pair.ours.client;
      const { trustDomain } = pair.ours.host;
      const configure = (Config: JsonObject): Promise<void> =>
        connect.setCaConfiguration({ Provider: "consul", Config });
      await configure({ PrivateKeyType: "rsa", PrivateKeyBits: 2048 });
      await hasRoots(pair, "ours", 2);
      const given = await givenRoot();
      await configure({ PrivateKey: given.keyPem, RootCert: given.certificatePem });
      await hasRoots(pair, "ours", 3);
      await pair.active();
      // A root that is known already changes nothing.
      await configure({ RootCert: given.certificatePem });
      assert.equal(pair.ours.authority.roots().length, 3);
      await worksAfterRestarts(pair);
      assert.equal(pair.ours.host.trustDomain, trustDomain);
    },
  },
  {
    name: "a secondary datacenter of a federation, and a rotation at the primary",
    proves: "ch3 case 96",
    async run(stage) {
      const [{ primary, secondary }, ours] = await Promise.all([federated(stage), stage.ours()]);
      const pair = new Pair(ours, secondary, stage.role);
      await pair.peer();
      await pair.active(PATIENCE_MS);
      // It can be exported to, and no more: what it exports itself can be written at the primary alone, which keeps it there.
      await register(ours, "ours-web", 2);
      await exportTo(ours, secondary, ["*"]);
      await inStep(ours, secondary, ["ours-web"]);
      await rotate(primary, 384);
      await hasRoots(pair, "consul", 2);
      await ours.restart();
      await pair.active(PATIENCE_MS);
      await register(ours, "ours-web", 2, { tags: ["rotated"] });
      await inStep(ours, secondary, ["ours-web"]);
    },
  },
  {
    name: "our CA rotates twice while Consul is down",
    async run(stage) {
      const pair = await stage.pair({ consul: { durable: true } });
      await exchange(pair);
      await pair.consul.stop();
      await pair.ours.authority.rotate();
      await pair.ours.authority.rotate();
      pair.consul.start();
      await pair.consul.ready();
      await pair.active(PATIENCE_MS);
      await hasRoots(pair, "ours", 3);
      await worksAfterRestarts(pair);
    },
  },
];

/** The dialer's back-off may have grown while the other side was away. */
const PATIENCE_MS = 60_000;
