import assert from "node:assert/strict";
import type { CheckRecord, InstanceRecord, JsonObject } from "../src/client/index.js";
import type { Cluster } from "./cluster.js";
import { settles } from "./settles.js";

/** An instance as `/v1/catalog/register` takes it, with something in every field that all versions tell peers of. */
export function registration(service: string, instance: number, changes: Changes = {}): JsonObject {
  const { status = "passing", tags = ["v1", `i${instance}`], node = `node-${instance}` } = changes;
  const id = `${service}-${instance}`;
  return {
    Node: node,
    ID: nodeId(node),
    Address: `10.0.0.${instance + 1}`,
    NodeMeta: { rack: `r${instance}`, "with space": "ä ö" },
    TaggedAddresses: { lan: `10.0.0.${instance + 1}`, wan: `192.0.2.${instance + 1}` },
    Service: {
      ID: id,
      Service: service,
      Port: 8_000 + instance,
      Address: instance % 2 === 0 ? "" : `10.1.0.${instance}`,
      Tags: tags,
      Meta: { version: `${instance}`, empty: "" },
      Weights: { Passing: 10 + instance, Warning: 1 },
      TaggedAddresses: { wan: { Address: `198.51.100.${instance + 1}`, Port: 80 } },
      EnableTagOverride: instance % 2 === 1,
    },
    Checks: [
      { Node: node, CheckID: `${id}-alive`, Name: "alive", ServiceID: id, Status: status, Output: "fine", Notes: "n" },
      { Node: node, CheckID: "disk", Name: "disk", Status: "passing" },
    ],
  };
}

export interface Changes {
  readonly status?: string;
  readonly tags?: readonly string[];
  readonly node?: string;
}

/** The same for the same name, as node ids are. */
function nodeId(node: string): string {
  const hex = Buffer.from(node).toString("hex").padEnd(12, "0").slice(-12);
  return `00000000-0000-0000-0000-${hex}`;
}

export async function register(cluster: Cluster, service: string, instances = 2, changes: Changes = {}): Promise<void> {
  for (let instance = 0; instance < instances; instance++) {
    await cluster.client.catalog.register(registration(service, instance, changes));
  }
}

export async function deregister(cluster: Cluster, service: string, instance: number): Promise<void> {
  await cluster.client.catalog.deregister({ Node: `node-${instance}`, ServiceID: `${service}-${instance}` });
}

/** Exports exactly these names, which may be `*`, to `peer`. */
export async function exportTo(cluster: Cluster, peer: Pick<Cluster, "name">, names: readonly string[]): Promise<void> {
  await cluster.client.config.write({
    Kind: "exported-services",
    Name: "default",
    Services: names.map((name) => ({ Name: name, Consumers: [{ Peer: peer.name }] })),
  });
}

/**
 * Resolves once `importer` has, of `exporter`, exactly the services `names` (those without instances are not seen), and
 * each equal to what the exporter has itself.
 */
export async function inStep(
  exporter: Cluster,
  importer: Cluster,
  names: readonly string[],
  withinMs?: number,
): Promise<void> {
  await settles(
    async () => {
      assert.deepEqual(await importer.importedNames(exporter.name), [...names].sort());
      for (const name of names) {
        const sent = await exporter.client.health.service(name);
        const arrived = await importer.client.health.service(name, { peer: exporter.name });
        assert.deepEqual(sorted(arrived.value.map(asImported)), sorted(sent.value.map(asExported)));
      }
    },
    `${importer.name} has ${names.join()} of ${exporter.name}`,
    withinMs,
  );
}

interface Compared {
  readonly node: JsonObject;
  readonly service: JsonObject;
  readonly checks: readonly JsonObject[];
}

function sorted(instances: readonly Compared[]): readonly Compared[] {
  return instances.toSorted((one, other) => (JSON.stringify(one.service) < JSON.stringify(other.service) ? -1 : 1));
}

/** A local instance as it must arrive: its checks made one. */
function asExported(instance: InstanceRecord): Compared {
  const { Node, Service, Checks } = instance;
  const check = {
    CheckID: `${Service.ID}:overall-check`,
    Name: "overall-check",
    Status: overallStatus(Checks),
    ...{ Node: Node.Node, ServiceID: Service.ID, ServiceName: Service.Service, Output: "", Notes: "" },
  };
  return { ...endpointOf(instance), checks: Checks.length === 0 ? [] : [check] };
}

function asImported(instance: InstanceRecord): Compared {
  const checks = instance.Checks.map(({ CheckID, Name, Status, Node, ServiceID, ServiceName, Output, Notes }) => ({
    ...{ CheckID, Name, Status, Node, ServiceID, ServiceName, Output, Notes },
  }));
  return { ...endpointOf(instance), checks };
}

function endpointOf({ Node, Service }: InstanceRecord): Omit<Compared, "checks"> {
  const { ID, Address, Datacenter, TaggedAddresses, Meta } = Node;
  // Each importer assigns its own virtual address, for its own proxies.
  const { "consul-virtual": _, ...addresses } = Service.TaggedAddresses;
  return {
    node: { ID, Node: Node.Node, Address, Datacenter, TaggedAddresses, Meta },
    service: {
      ...{ ID: Service.ID, Service: Service.Service, Kind: Service.Kind, Tags: Service.Tags },
      ...{ Address: Service.Address, Port: Service.Port, TaggedAddresses: plain(addresses), Meta: Service.Meta },
      ...{ Weights: Service.Weights, EnableTagOverride: Service.EnableTagOverride },
    },
  };
}

function plain(addresses: InstanceRecord["Service"]["TaggedAddresses"]): JsonObject {
  return Object.fromEntries(Object.entries(addresses).map(([key, { Address, Port }]) => [key, { Address, Port }]));
}

const SEVERITY = ["passing", "warning", "critical"];

function overallStatus(checks: readonly CheckRecord[]): string {
  const worst = Math.max(...checks.map(({ Status }) => SEVERITY.indexOf(Status)));
  return SEVERITY[worst] ?? "passing";
}

/** Something exported each way, and arrived: `ours-…` and `theirs-…`. */
export async function exchange({ ours, consul }: { readonly ours: Cluster; readonly consul: Cluster }): Promise<void> {
  await register(ours, "ours-web", 2);
  await register(consul, "theirs-web", 2);
  await exportTo(ours, consul, ["*"]);
  await exportTo(consul, ours, ["*"]);
  await exchanged({ ours, consul });
}

/** Resolves once each has everything the other exports, after {@link exchange} and changes of the same services. */
export async function exchanged(
  { ours, consul }: { readonly ours: Cluster; readonly consul: Cluster },
  withinMs?: number,
): Promise<void> {
  await Promise.all([inStep(ours, consul, ["ours-web"], withinMs), inStep(consul, ours, ["theirs-web"], withinMs)]);
}

/** Changes what {@link exchange} exports, each way; every change is another one. */
export async function change(
  { ours, consul }: { readonly ours: Cluster; readonly consul: Cluster },
  tag: string,
): Promise<void> {
  await register(ours, "ours-web", 2, { tags: [tag] });
  await register(consul, "theirs-web", 2, { tags: [tag] });
}
