import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import { parseConfigEntry } from "../../../src/config/config-entry.js";
import { ConfigEntrySet } from "../../../src/config/config-entry-set.js";
import type { ExportInput } from "../../../src/config/exports.js";
import type { Check, Node, Service, ServiceInstance } from "../../../src/model/instance.js";
import { ServiceIndex } from "../../../src/model/service-index.js";

export const TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul";

export function node(name: string, fields: Partial<Node> = {}): Node {
  return { id: "", name, address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, meta: {}, ...fields };
}

export function service(name: string, fields: Partial<Service> = {}): Service {
  return {
    kind: "",
    id: `${name}-1`,
    name,
    tags: [],
    address: "",
    port: 8080,
    socketPath: "",
    taggedAddresses: {},
    meta: {},
    weights: { passing: 1, warning: 1 },
    enableTagOverride: false,
    ...fields,
  };
}

export function check(checkId: string, status: string): Check {
  return {
    node: "",
    checkId,
    name: checkId,
    status,
    notes: "some notes",
    output: "some output",
    serviceId: "",
    serviceName: "",
    serviceTags: [],
    type: "http",
    interval: "10s",
    timeout: "1s",
    exposedPort: 0,
    definition: {},
  };
}

export function instance(
  name: string,
  fields: Partial<Service> = {},
  nodeName = "node-1",
  checks: readonly Check[] = [],
): ServiceInstance {
  return { node: node(nodeName), service: service(name, fields), checks };
}

export function sidecarOf(name: string): ServiceInstance {
  return instance(`${name}-sidecar-proxy`, {
    kind: "connect-proxy",
    proxy: {
      destinationServiceName: name,
      destinationServiceId: `${name}-1`,
      localServiceAddress: "",
      localServicePort: 0,
      localServiceSocketPath: "",
      mode: "",
      meshGatewayMode: "",
    },
  });
}

export function gateway(id: string, nodeName: string, port = 8443, fields: Partial<Service> = {}): ServiceInstance {
  return instance("mesh-gateway", { kind: "mesh-gateway", id, port, ...fields }, nodeName);
}

/** Instances by the name they are registered under. */
export function byName(instances: readonly ServiceInstance[]): Map<string, readonly ServiceInstance[]> {
  const map = new Map<string, ServiceInstance[]>();
  for (const item of instances) {
    const list = map.get(item.service.name);
    if (list === undefined) map.set(item.service.name, [item]);
    else list.push(item);
  }
  return map;
}

export function entrySet(...entries: readonly ConfigEntryInput[]): ConfigEntrySet {
  return ConfigEntrySet.of(entries.map((entry) => parseConfigEntry(entry)));
}

/** An exported-services entry from names to their peers. */
export function exporting(...blocks: readonly (readonly [string, ...string[]])[]): ConfigEntryInput {
  return {
    kind: "exported-services",
    services: blocks.map(([name, ...peers]) => ({ name, consumers: peers.map((peer) => ({ peer })) })),
  };
}

export function exportInput(
  entries: ConfigEntrySet,
  instances: readonly ServiceInstance[],
  options: Partial<ExportInput> = {},
): ExportInput {
  const names = new ServiceIndex();
  names.apply(byName(instances), true);
  return { entries, names, datacenter: "dc1", connect: true, strictConsul: false, ...options };
}
