import assert from "node:assert/strict";
import { TRANSIT_PATH_KEY } from "../../src/config/transit.js";
import { TokenCodec } from "../../src/token/token-codec.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { decodeMessage, encodeMessage } from "../../src/wire/codec.js";
import { ResourceUrl } from "../../src/wire/messages.js";
import type { Cluster } from "../cluster.js";
import { ConsulServer, consulBinary } from "../consul.js";
import type { Scenario } from "../scenario.js";
import { deregister, inStep, register, registration } from "../services.js";
import { settles } from "../settles.js";
import { type Pair, type Stage, stateOf } from "../stage.js";

/** Consul 1.13 looks at what it exports after waits that grow with each change, up to two minutes on an old stream. */
const THROTTLED_MS = 150_000;

/** As `exportTo`, in the spelling of 1.13. */
async function exportTo(cluster: Cluster, peer: Cluster, names: readonly string[]): Promise<void> {
  const old = cluster instanceof ConsulServer && cluster.binary.band === "legacy";
  const consumer = old ? { PeerName: peer.name } : { Peer: peer.name };
  await cluster.client.config.write({
    Kind: "exported-services",
    Name: "default",
    Services: names.map((name) => ({ Name: name, Consumers: [consumer] })),
  });
}

/** Some later Consul, if one was given, else a host of ours. */
async function laterCluster(stage: Stage): Promise<Cluster> {
  const options = { name: "new", datacenter: "dc-new" };
  for (const path of (process.env["CONSUL_BIN"] ?? "").split(":")) {
    const binary = await consulBinary(path);
    if (binary.band === "legacy") continue;
    stage.remark(`to Consul ${binary.version}`);
    return stage.use(await ConsulServer.start(stage.processes, binary, options)).ready();
  }
  return stage.ours(options);
}

function seenAsLegacy({ ours, consul }: Pair): void {
  assert.equal(ours.peering(consul.name).status.dialect, "legacy");
}

/** Consul 1.13, which no later Consul can peer with. */
export const legacyScenarios: readonly Scenario[] = [
  {
    name: "1.13: peered, services equal on both sides",
    proves: "ch1 cases 112, 113, 114 and 116",
    bands: ["legacy"],
    async run(stage) {
      const pair = await stage.pair();
      const { ours, consul } = pair;
      seenAsLegacy(pair);
      for (const cluster of [ours, consul]) {
        await register(cluster, "web", 3);
        await register(cluster, "warned", 1, { status: "warning" });
        await register(cluster, "private", 1);
      }
      await exportTo(ours, consul, ["web", "warned", "not-there-yet"]);
      await exportTo(consul, ours, ["web", "warned", "not-there-yet"]);
      await inStep(ours, consul, ["warned", "web"]);
      await inStep(consul, ours, ["warned", "web"], THROTTLED_MS);
      const { status } = ours.peering(consul.name);
      assert.deepEqual(status.stream.importedServices, ["warned", "web"]);
      assert.deepEqual(status.stream.exportedServices, ["warned", "web"]);
      assert.equal(status.lastFailure, undefined);
    },
  },
  ...(["ours", "consul"] as const).map(
    (from): Scenario => ({
      name: `1.13: every change ${from === "ours" ? "of ours reaches Consul" : "of Consul's reaches us"}`,
      proves: "ch1 cases 113 and 114",
      bands: ["legacy"],
      async run(stage) {
        const pair = await stage.pair();
        const exporter = pair[from];
        const importer = from === "ours" ? pair.consul : pair.ours;
        const arrived = (names: readonly string[]): Promise<void> => inStep(exporter, importer, names, THROTTLED_MS);
        await register(exporter, "web", 3);
        await register(exporter, "api", 2);
        await exportTo(exporter, importer, ["web", "api"]);
        await arrived(["api", "web"]);
        await exporter.client.catalog.register(registration("web", 1, { tags: ["v2"] }));
        await exporter.client.catalog.register(registration("web", 2, { status: "critical" }));
        await deregister(exporter, "web", 0);
        await arrived(["api", "web"]);
        for (const instance of [1, 2]) await deregister(exporter, "web", instance);
        await arrived(["api"]);
        await register(exporter, "web", 1);
        await arrived(["api", "web"]);
        await exportTo(exporter, importer, ["web"]);
        await arrived(["web"]);
        // 1.13 exports its own servers, too, which later ones never do.
        await exportTo(exporter, importer, ["*"]);
        await arrived(["api", ...(from === "ours" ? [] : ["consul"]), "web"]);
        await exporter.client.config.delete("exported-services", "default");
        await arrived([]);
      },
    }),
  ),
  ...(["ours", "consul"] as const).map(
    (by): Scenario => ({
      name: `1.13: deleted by ${by}`,
      bands: ["legacy"],
      async run(stage) {
        const pair = await stage.pair();
        const { ours, consul } = pair;
        for (const cluster of [ours, consul]) await register(cluster, "web", 1);
        await exportTo(ours, consul, ["web"]);
        await exportTo(consul, ours, ["web"]);
        await inStep(ours, consul, ["web"]);
        await inStep(consul, ours, ["web"], THROTTLED_MS);
        const [deleting, other] = by === "ours" ? [ours, consul] : [consul, ours];
        await deleting.client.peerings.delete(other.name);
        await settles(async () => {
          assert.equal(await stateOf(other, deleting), "TERMINATED");
          assert.equal(await stateOf(deleting, other), undefined);
          assert.deepEqual(await other.importedNames(deleting.name), []);
          assert.deepEqual(await deleting.importedNames(other.name), []);
        }, "the peering is gone on one side and TERMINATED on the other");
      },
    }),
  ),
  ...(["ours", "consul"] as const).map(
    (restarted): Scenario => ({
      name: `1.13: ${restarted} restarted`,
      bands: ["legacy"],
      async run(stage) {
        const pair = await stage.pair({ consul: { durable: true } });
        const { ours, consul } = pair;
        for (const cluster of [ours, consul]) {
          await register(cluster, "web", 2);
          await register(cluster, "api", 1);
        }
        await exportTo(ours, consul, ["web", "api"]);
        await exportTo(consul, ours, ["web", "api"]);
        await inStep(ours, consul, ["api", "web"]);
        await inStep(consul, ours, ["api", "web"], THROTTLED_MS);
        if (restarted === "ours") await ours.restart();
        else await consul.restart("SIGKILL");
        await pair.active(THROTTLED_MS);
        seenAsLegacy(pair);
        for (const cluster of [ours, consul]) {
          await register(cluster, "web", 1, { tags: ["after"] });
          await deregister(cluster, "api", 0);
        }
        await inStep(ours, consul, ["web"], THROTTLED_MS);
        await inStep(consul, ours, ["web"], THROTTLED_MS);
      },
    }),
  ),
  {
    name: "1.13: in plaintext, where we listen for it",
    proves: "ch1 case 6",
    bands: ["legacy"],
    roles: ["acceptor"],
    async run(stage) {
      const [port = 0] = await stage.processes.ports(1);
      const plaintext = `127.0.0.1:${port}`;
      const pair = await stage.strangers({ ours: { transport: { plaintextListen: plaintext } } });
      const { ours, consul } = pair;
      const token = TokenCodec.decode(await pair.token());
      await consul.client.peerings.establish({
        peerName: ours.name,
        token: TokenCodec.encode({ ...token, ca: [], serverAddresses: [plaintext] }),
      });
      await pair.active();
      await register(ours, "web", 1);
      await exportTo(ours, consul, ["web"]);
      await inStep(ours, consul, ["web"]);
    },
  },
  {
    name: "1.13: a service over 4 MiB is held back alone",
    proves: "ch1 case 123",
    bands: ["legacy"],
    async run(stage) {
      const pair = await stage.pair();
      const { ours, consul } = pair;
      const service = { id: "big-0", name: "big", port: 1 };
      const node = { node: "node-0", address: "10.0.0.1" };
      await ours.host.catalog.register({ ...node, service: { ...service, tags: ["x".repeat(4 * 1024 * 1024)] } });
      await register(ours, "web", 1);
      await exportTo(ours, consul, ["big", "web"]);
      await inStep(ours, consul, ["web"]);
      const { status } = ours.peering(consul.name);
      assert.match(status.withheldServices.get("big") ?? "", /^4\d{6} bytes are more than the peer accepts/);
      await ours.host.catalog.register({ ...node, service });
      await inStep(ours, consul, ["big", "web"]);
      assert.equal(ours.peering(consul.name).status.withheldServices.size, 0);
      assert.equal(ours.peering(consul.name).status.lastFailure, undefined);
    },
  },
  {
    name: "1.13: 300 services of 10 instances each way",
    bands: ["legacy"],
    alone: true,
    async run(stage) {
      const pair = await stage.strangers();
      const { ours, consul } = pair;
      const names = Array.from({ length: 300 }, (_, index) => `service-${index}`);
      const all = names.flatMap((name) => Array.from({ length: 10 }, (_, index) => registration(name, index)));
      for (const cluster of [ours, consul]) {
        const rest = all.values();
        const work = async (): Promise<void> => {
          for (const one of rest) await cluster.client.catalog.register(one);
        };
        await Promise.all(Array.from({ length: 16 }, work));
      }
      await exportTo(ours, consul, names);
      await exportTo(consul, ours, names);
      const began = performance.now();
      await pair.peer();
      const count = async (importer: Cluster, exporter: Cluster, name: string): Promise<number> =>
        (await importer.client.health.service(name, { peer: exporter.name })).value.length;
      await settles(
        async () => {
          for (const name of names.toReversed()) {
            assert.equal(await count(ours, consul, name), 10, `of ${name} at ours`);
            assert.equal(await count(consul, ours, name), 10, `of ${name} at Consul`);
          }
        },
        "both have all instances",
        THROTTLED_MS,
      );
      stage.remark(`complete after ${((performance.now() - began) / 1_000).toFixed(1)} s`);
      const { status } = ours.peering(consul.name);
      assert.equal(status.lastFailure, undefined);
      assert.equal(status.facts.connected, true);
    },
  },
  {
    name: "1.13: its services get through us to a later one, and those of that one to it",
    bands: ["legacy"],
    async run(stage) {
      const later = await laterCluster(stage);
      const transit = [
        { from: "old", to: "new", services: ["*"] },
        { from: "new", to: "old", services: ["*"] },
      ];
      const { ours, consul: old } = await stage.pair({ consul: { name: "old" }, ours: { host: { transit } } });
      const token = await later.client.peerings.generateToken({ peerName: ours.name });
      await ours.client.peerings.establish({ peerName: later.name, token });
      await settles(async () => {
        assert.equal(await stateOf(ours, later), "ACTIVE");
      }, "we are peered with the later one");
      await register(old, "from-old", 2);
      await register(later, "from-new", 2, { status: "warning" });
      await exportTo(old, ours, ["*"]);
      await exportTo(later, ours, ["from-new"]);
      const arrived = (at: Cluster, from: Cluster, service: string): Promise<void> =>
        settles(
          async () => {
            const { value } = await at.client.health.service(service, { peer: ours.name });
            const sent = (await from.client.health.service(service)).value;
            assert.equal(value.length, sent.length);
            const path = [await from.trustDomain(), await ours.trustDomain()].join(" ");
            for (const { Node, Service, Checks } of value) {
              const before = sent.find((one) => one.Service.ID === Service.ID);
              assert.equal(Node.Node, `${before?.Node.Node}.${from.name}`);
              assert.deepEqual(Service.Meta, { ...before?.Service.Meta, [TRANSIT_PATH_KEY]: path });
              assert.deepEqual(
                [Service.Address, Service.Port, Service.Tags, Node.Address],
                [before?.Service.Address, before?.Service.Port, before?.Service.Tags, before?.Node.Address],
              );
              assert.equal(Checks.length, 1);
              assert.equal(Checks[0]?.Status, service === "from-new" ? "warning" : "passing");
            }
          },
          `${at.name} has ${service}`,
          THROTTLED_MS,
        );
      await arrived(later, old, "from-old");
      await arrived(old, later, "from-new");
      assert.deepEqual(await later.importedNames(ours.name), ["from-old"]);
      await deregister(old, "from-old", 0);
      await arrived(later, old, "from-old");
      await ours.client.peerings.delete(old.name);
      await settles(async () => {
        assert.deepEqual(await later.importedNames(ours.name), []);
        assert.deepEqual(await old.importedNames(ours.name), []);
      }, "it goes with the peering");
    },
  },
  {
    name: "1.13: asked for a list, it ends the stream (control)",
    proves: "ch1 case 115",
    bands: ["legacy"],
    roles: ["dialer"],
    async run(stage) {
      const consul = await stage.consul();
      await consul.ready();
      const token = TokenCodec.decode(await consul.client.peerings.generateToken({ peerName: "newer" }));
      const { serverName, ca: caPems, peerId, establishmentSecret } = token;
      const target = { address: consul.grpc, serverName, caPems };
      const { signal } = new AbortController();
      await using transport = grpcTransport();
      const { streamSecret: streamSecretId } = await transport.exchangeSecret(
        target,
        { peerId, establishmentSecret },
        { timeoutMs: 5_000, signal },
      );
      const stream = await transport.openStream(target, { signal });
      const remote = { partition: "", datacenter: "dc9" };
      const resourceUrl = ResourceUrl.exportedServiceList;
      await stream.send([
        encodeMessage({ type: "open", peerId, streamSecretId, remote }),
        encodeMessage({ type: "request", peerId, responseNonce: "", resourceUrl }),
      ]);
      const asked: string[] = [];
      const end = await (async (): Promise<unknown> => {
        try {
          for (let batch = await stream.receive(); batch !== undefined; batch = await stream.receive()) {
            for (const bytes of batch) {
              const message = decodeMessage(bytes);
              if (message.type === "request") asked.push(message.resourceUrl);
            }
          }
          return undefined;
        } catch (error) {
          return error;
        }
      })();
      assert.match(String(end), new RegExp(`subscription request to unknown resource URL: ${resourceUrl}`));
      assert.deepEqual(asked, [ResourceUrl.exportedService, ResourceUrl.trustBundle, ResourceUrl.serverAddresses]);
    },
  },
];
