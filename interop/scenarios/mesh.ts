import assert from "node:assert/strict";
import type { InstanceRecord, JsonObject } from "../../src/client/index.js";
import type { Cluster } from "../cluster.js";
import type { Scenario } from "../scenario.js";
import { deregister, exportTo, register } from "../services.js";
import { settles } from "../settles.js";

const GATEWAY_PORT = 8_443;

async function registerSidecar(cluster: Cluster, service: string): Promise<void> {
  await cluster.client.catalog.register({
    Node: "node-0",
    Address: "10.0.0.1",
    SkipNodeUpdate: true,
    Service: {
      Kind: "connect-proxy",
      ID: `${service}-sidecar`,
      Service: `${service}-sidecar`,
      Port: 21_000,
      Proxy: { DestinationServiceName: service, DestinationServiceID: `${service}-0` },
    },
  });
}

async function registerGateway(cluster: Cluster, number: number): Promise<void> {
  const id = `gateway-${number}`;
  await cluster.client.catalog.register({
    Node: id,
    Address: `10.2.0.${number}`,
    Service: {
      ...{ Kind: "mesh-gateway", ID: id, Service: "mesh-gateway", Port: GATEWAY_PORT, Address: `10.2.1.${number}` },
      TaggedAddresses: {
        lan: { Address: `10.2.1.${number}`, Port: GATEWAY_PORT },
        wan: { Address: `198.51.100.${number}`, Port: 443 },
      },
    },
    Checks: [{ Node: id, CheckID: "alive", Name: "alive", ServiceID: id, Status: "passing" }],
  });
}

/** The records by which `importer` reaches `service` of `exporter` through its gateways. */
async function proxiesOf(exporter: Cluster, importer: Cluster, service: string): Promise<readonly InstanceRecord[]> {
  const { value } = await importer.client.health.connect(service, { peer: exporter.name });
  return value.toSorted((one, other) => (one.Service.ID < other.Service.ID ? -1 : 1));
}

/** @param targets - other services the chain may end at. */
async function peerMetaOf(
  exporter: Cluster,
  importer: Cluster,
  service: string,
  protocol = "tcp",
  targets: readonly string[] = [],
): Promise<JsonObject> {
  const domain = await exporter.trustDomain();
  const identity = (name: string): string => `spiffe://${domain}/ns/default/dc/${exporter.datacenter}/svc/${name}`;
  return {
    // The exporter's name of the importer, not the importer's of the exporter.
    SNI: [`${service}.default.default.${importer.name}.external.${domain}`],
    SpiffeID: [
      identity(service),
      `spiffe://${domain}/gateway/mesh/dc/${exporter.datacenter}`,
      ...targets.map((name) => identity(name)),
    ],
    Protocol: protocol,
  };
}

async function hasProxies(
  exporter: Cluster,
  importer: Cluster,
  service: string,
  gateways: readonly number[],
  meta: JsonObject,
): Promise<void> {
  await settles(async () => {
    const proxies = await proxiesOf(exporter, importer, service);
    assert.deepEqual(
      proxies.map(({ Node, Service }) => ({
        node: Node.Node,
        id: Service.ID,
        name: Service.Service,
        kind: Service.Kind,
        address: Service.Address,
        port: Service.Port,
        wan: Service.TaggedAddresses["wan"],
        destination: [Service.Proxy["DestinationServiceName"], Service.Proxy["DestinationServiceID"]],
        meta: Service.Connect["PeerMeta"],
      })),
      gateways.map((number, index) => ({
        node: `gateway-${number}`,
        id: `${service}-sidecar-proxy-instance-${index}`,
        name: `${service}-sidecar-proxy`,
        kind: "connect-proxy",
        address: `10.2.1.${number}`,
        port: GATEWAY_PORT,
        wan: { Address: `198.51.100.${number}`, Port: 443 },
        destination: [service, `${service}-instance-${index}`],
        meta,
      })),
    );
    const statuses = proxies.flatMap(({ Checks }) => Checks.map(({ Status, Name }) => [Name, Status]));
    assert.deepEqual(
      statuses,
      gateways.map(() => ["overall-check", "passing"]),
    );
  }, `${importer.name} reaches ${service} through ${gateways.length} gateways`);
}

/** The mesh: what each side tells the other of sidecars, gateways and discovery chains. */
export const meshScenarios: readonly Scenario[] = (["ours", "consul"] as const)
  .flatMap((from): Scenario[] => {
    const whose = from === "ours" ? "ours, at Consul" : "Consul's, at ours";
    return [
      {
        name: `sidecars and gateways: ${whose}`,
        proves: "ch1 cases 76, 86, 87; ch4 cases 36, 59",
        async run(stage) {
          const pair = await stage.pair();
          const exporter = pair[from];
          const importer = from === "ours" ? pair.consul : pair.ours;
          await register(exporter, "web", 1);
          await registerSidecar(exporter, "web");
          await registerGateway(exporter, 1);
          await exportTo(exporter, importer, ["web"]);
          const meta = await peerMetaOf(exporter, importer, "web");
          await hasProxies(exporter, importer, "web", [1], meta);
          await registerGateway(exporter, 2);
          await hasProxies(exporter, importer, "web", [1, 2], meta);
          assert.deepEqual(await importer.importedNames(exporter.name), ["web", "web-sidecar-proxy"]);
          // A sidecar itself is nothing a peer may dial.
          assert.equal((await importer.client.health.service("web-sidecar", { peer: exporter.name })).value.length, 0);

          await exporter.client.catalog.deregister({ Node: "gateway-1" });
          await hasProxies(exporter, importer, "web", [2], meta);
          await exporter.client.catalog.deregister({ Node: "node-0", ServiceID: "web-sidecar" });
          await hasProxies(exporter, importer, "web", [], meta);
          await settles(
            async () => assert.deepEqual(await importer.importedNames(exporter.name), ["web"]),
            "only the service itself is left",
          );
        },
      },
      {
        name: `discovery chains: ${whose}`,
        proves: "ch1 cases 77, 85; ch4 case 59",
        async run(stage) {
          const pair = await stage.pair();
          const exporter = pair[from];
          const importer = from === "ours" ? pair.consul : pair.ours;
          await registerGateway(exporter, 1);
          for (const name of ["routed", "split", "backup"]) {
            await exporter.client.config.write({ Kind: "service-defaults", Name: name, Protocol: "http" });
          }
          await exporter.client.config.write({ Kind: "service-router", Name: "routed" });
          await exporter.client.config.write({
            Kind: "service-splitter",
            Name: "split",
            Splits: [
              { Weight: 50, Service: "split" },
              { Weight: 50, Service: "backup" },
            ],
          });
          await exporter.client.config.write({
            Kind: "service-resolver",
            Name: "resolved",
            Failover: { "*": { Service: "spare" } },
          });
          await register(exporter, "web", 1);
          await exportTo(exporter, importer, ["routed", "split", "resolved", "web"]);
          await hasProxies(exporter, importer, "routed", [1], await peerMetaOf(exporter, importer, "routed", "http"));
          await hasProxies(exporter, importer, "split", [1], await peerMetaOf(exporter, importer, "split", "http"));
          const targets = ["spare"];
          const resolved = await peerMetaOf(exporter, importer, "resolved", "tcp", targets);
          await hasProxies(exporter, importer, "resolved", [1], resolved);

          await exporter.client.config.delete("service-resolver", "resolved");
          await hasProxies(exporter, importer, "resolved", [], resolved);
          await exporter.client.config.write({ Kind: "service-defaults", Name: "routed", Protocol: "http2" });
          await hasProxies(exporter, importer, "routed", [1], await peerMetaOf(exporter, importer, "routed", "http2"));
          await deregister(exporter, "web", 0);
          await settles(
            async () =>
              assert.deepEqual(await importer.importedNames(exporter.name), [
                "routed-sidecar-proxy",
                "split-sidecar-proxy",
              ]),
            "only the chains are left",
          );
        },
      },
    ];
  })
  .concat({
    name: "chains that only a wildcard exports stay",
    proves: "ch1 case 121",
    async run(stage) {
      const { ours, consul } = await stage.pair();
      await registerGateway(ours, 1);
      await ours.client.config.write({ Kind: "service-defaults", Name: "routed", Protocol: "http" });
      await ours.client.config.write({ Kind: "service-router", Name: "routed" });
      await exportTo(ours, consul, ["*"]);
      const meta = await peerMetaOf(ours, consul, "routed", "http");
      await hasProxies(ours, consul, "routed", [1], meta);
      for (const name of ["a", "b", "c"]) await register(ours, name, 1);
      await settles(
        async () => assert.deepEqual(await consul.importedNames(ours.name), ["a", "b", "c", "routed-sidecar-proxy"]),
        "the list has changed and the chain is still there",
      );
      await hasProxies(ours, consul, "routed", [1], meta);
    },
  });
