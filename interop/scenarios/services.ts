import assert from "node:assert/strict";
import type { JsonObject } from "../../src/client/index.js";
import type { Cluster } from "../cluster.js";
import { isBefore } from "../consul.js";
import { askDns } from "../dns.js";
import type { Scenario } from "../scenario.js";
import { deregister, exportTo, inStep, register, registration } from "../services.js";
import { pause, settles } from "../settles.js";
import { lastHeartbeatAt, recordOf } from "../stage.js";

/** A heartbeat comes every 15 s. */
const HEARTBEAT_MS = 20_000;

/** Ordinary services, each way: that they arrive, and that every change of them does. */
export const serviceScenarios: readonly Scenario[] = [
  {
    name: "services equal on both sides",
    proves: "ch4 case 59",
    async run(stage) {
      const { ours, consul } = await stage.pair();
      const offers = [
        { exporter: ours, importer: consul, names: ["web", "api", "with-dash.and.dots"] },
        { exporter: consul, importer: ours, names: ["web", "db"] },
      ];
      for (const { exporter, importer, names } of offers) {
        for (const [index, name] of names.entries()) await register(exporter, name, index + 1);
        await register(exporter, "warned", 1, { status: "warning" });
        await register(exporter, "private", 1);
        await exportTo(exporter, importer, [...names, "warned", "not-there-yet"]);
      }
      for (const { exporter, importer, names } of offers) await inStep(exporter, importer, [...names, "warned"]);
    },
  },
  {
    name: "Consul's DNS answers with our services",
    async run(stage) {
      const { ours, consul } = await stage.pair();
      await register(ours, "web", 2);
      await exportTo(ours, consul, ["web"]);
      await inStep(ours, consul, ["web"]);
      const name = `web.service.${ours.name}.peer.consul`;
      const { answers = [] } = await askDns(consul.ports.dns, name, "A");
      assert.deepEqual(
        answers.flatMap((answer) => (answer.type === "A" ? [answer.data] : [])).sort(),
        // The address of an instance, or else that of its node.
        ["10.0.0.1", "10.1.0.1"],
      );
      const services = await askDns(consul.ports.dns, name, "SRV");
      const ports = (services.answers ?? []).flatMap((answer) => (answer.type === "SRV" ? [answer.data.port] : []));
      assert.deepEqual(ports.sort(), [8_000, 8_001]);
    },
  },
  {
    name: "counts and heartbeats on both sides",
    proves: "ch1 case 60",
    async run(stage) {
      const { ours, consul } = await stage.pair();
      for (const name of ["a", "b", "c"]) await register(ours, name, 1);
      for (const name of ["d", "e"]) await register(consul, name, 1);
      await exportTo(ours, consul, ["*"]);
      await exportTo(consul, ours, ["*"]);
      await inStep(ours, consul, ["a", "b", "c"]);
      await inStep(consul, ours, ["d", "e"]);
      await settles(
        async () => {
          const theirs = (await recordOf(consul, ours)).StreamStatus;
          assert.deepEqual(theirs.ImportedServices, ["a", "b", "c"]);
          assert.deepEqual(theirs.ExportedServices, ["d", "e"]);
          assert.ok(await lastHeartbeatAt(consul, ours), "Consul has seen no heartbeat of ours");
          const { status } = ours.peering(consul.name);
          assert.deepEqual(status.stream.importedServices, ["d", "e"]);
          assert.deepEqual(status.stream.exportedServices, ["a", "b", "c"]);
          assert.ok(status.facts.lastReceiveHeartbeat, "we have seen no heartbeat of Consul's");
          assert.ok(status.lastHeartbeatSent, "we have sent no heartbeat");
          assert.equal(status.phase, "connected");
          assert.deepEqual(
            [status.queuedResources, status.unacknowledged, status.lagMs, status.applying],
            [0, 0, 0, 0],
          );
          assert.ok(status.healthy, "healthy");
        },
        "counts and heartbeats are right",
        HEARTBEAT_MS,
      );
    },
  },
  ...(["ours", "consul"] as const).map(
    (from): Scenario => ({
      name: `every change ${from === "ours" ? "of ours reaches Consul" : "of Consul's reaches us"}`,
      proves: "ch4 case 59",
      async run(stage) {
        const pair = await stage.pair();
        const exporter = pair[from];
        const importer = from === "ours" ? pair.consul : pair.ours;
        const arrived = (names: readonly string[]): Promise<void> => inStep(exporter, importer, names);
        await register(exporter, "web", 3);
        await register(exporter, "api", 2);
        await exportTo(exporter, importer, ["web"]);
        await arrived(["web"]);

        await exporter.client.catalog.register(registration("web", 3));
        await arrived(["web"]);
        await exporter.client.catalog.register(registration("web", 1, { tags: ["v2"] }));
        await arrived(["web"]);
        await exporter.client.catalog.register(registration("web", 2, { status: "critical" }));
        await arrived(["web"]);
        const passing = await importer.client.health.service("web", { peer: exporter.name, passing: true });
        assert.deepEqual(passing.value.map(({ Service }) => Service.ID).sort(), ["web-0", "web-1", "web-3"]);
        await deregister(exporter, "web", 0);
        await arrived(["web"]);

        await exportTo(exporter, importer, ["web", "api"]);
        await arrived(["web", "api"]);
        for (const instance of [1, 2, 3]) await deregister(exporter, "web", instance);
        await arrived(["api"]);
        await register(exporter, "web", 1);
        await arrived(["api", "web"]);
        await exportTo(exporter, importer, ["api"]);
        await arrived(["api"]);

        await exportTo(exporter, importer, ["*"]);
        await arrived(["api", "web"]);
        await register(exporter, "late", 1);
        await arrived(["api", "late", "web"]);
        // Renamed: the same instances under another name, and no more under the old one.
        for (const instance of [0, 1]) await deregister(exporter, "api", instance);
        await register(exporter, "api-v2", 2);
        await arrived(["api-v2", "late", "web"]);
        await exportTo(exporter, importer, ["web"]);
        await arrived(["web"]);
        await exporter.client.config.delete("exported-services", "default");
        await arrived([]);
      },
    }),
  ),
  {
    name: "services with several ports",
    async run(stage) {
      const { ours, consul } = await stage.pair();
      const knows = !isBefore(stage.binary.version, "1.22.0");
      const http = { Name: "http", Port: 8_080, Default: true };
      const metrics = { Name: "metrics", Port: 9_090, Default: false };
      const offer = (cluster: Cluster, ports: readonly JsonObject[]): Promise<void> =>
        cluster.client.catalog.register({
          ...{ Node: "n1", Address: "10.0.0.1" },
          Service: { ID: "web-1", Service: "web", Ports: ports },
        });
      const arrives = (from: Cluster, at: Cluster, port: number, ports: readonly JsonObject[]): Promise<void> =>
        settles(async () => {
          const { value } = await at.client.health.service("web", { peer: from.name });
          assert.deepEqual(
            value.map(({ Service }) => [Service.Port, Service.Ports]),
            [[port, ports]],
          );
        }, `${at.name} has port ${port}`);

      await offer(ours, [http, metrics]);
      await exportTo(ours, consul, ["web"]);
      // A Consul that knows only one port has at least the default one.
      await arrives(ours, consul, 8_080, knows ? [http, metrics] : []);
      const moved = { ...metrics, Default: true };
      await offer(ours, [{ ...http, Default: false }, moved]);
      await arrives(ours, consul, 9_090, knows ? [{ ...http, Default: false }, moved] : []);
      if (!knows) return;
      const name = `_web._tcp.service.${ours.name}.peer.http.port.consul`;
      const { answers = [] } = await askDns(consul.ports.dns, name, "SRV");
      assert.deepEqual(
        answers.flatMap((answer) => (answer.type === "SRV" ? [answer.data.port] : [])),
        [8_080],
      );

      await offer(consul, [http, metrics]);
      await exportTo(consul, ours, ["web"]);
      await arrives(consul, ours, 8_080, [http, metrics]);
      const [instance] = await ours.host.imports.instances({ peer: consul.name, service: "web" });
      assert.deepEqual(
        instance?.service.ports?.map((port) => port.name),
        ["http", "metrics"],
      );
      await offer(consul, [http]);
      await arrives(consul, ours, 8_080, [http]);
    },
  },
  {
    name: "a burst of changes ends in the last state",
    async run(stage) {
      const { ours, consul } = await stage.pair();
      for (const cluster of [ours, consul]) {
        await register(cluster, "web", 2);
        await register(cluster, "api", 2);
      }
      await exportTo(ours, consul, ["*"]);
      await exportTo(consul, ours, ["*"]);
      for (let round = 0; round < 50; round++) {
        const changes = { tags: [`r${round}`], status: round % 2 === 0 ? "critical" : "passing" };
        await Promise.all([ours, consul].map((cluster) => register(cluster, "web", 2, changes)));
        if (round % 10 === 0) await pause(20);
      }
      await inStep(ours, consul, ["api", "web"]);
      await inStep(consul, ours, ["api", "web"]);
    },
  },
];
