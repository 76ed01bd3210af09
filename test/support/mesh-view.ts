import { createRegistry, type DescMessage, fromBinary, type JsonValue, toJson } from "@bufbuild/protobuf";
import { atOnce, doAll } from "../../src/base/steps.js";
import { compileChain } from "../../src/config/chain.js";
import { ConfigEntrySet } from "../../src/config/config-entry-set.js";
import { endpointsOf } from "../../src/mesh/snapshot/endpoints.js";
import type { NotReady } from "../../src/mesh/snapshot/sidecar.js";
import type { MeshView, ProxyLeaf } from "../../src/mesh/snapshot/view.js";
import { KeptParts } from "../../src/mesh/xds/kept-parts.js";
import { type ProxyResources, proxyResources } from "../../src/mesh/xds/proxy.js";
import { ResourceEncoder, type ResourceSet } from "../../src/mesh/xds/resources.js";
import type { TlsPlacement } from "../../src/mesh/xds/tls.js";
import type { ResourceType } from "../../src/model/connected-proxy.js";
import type { Check, ServiceInstance } from "../../src/model/instance.js";
import { parseRegistration, type ServiceRegistration } from "../../src/model/registration.js";
import type { TrustBundle } from "../../src/peering/peering.js";
import { fixedRootPems } from "../../src/testing/fixed-roots.js";
import * as envoy from "../../src/wire/envoy.js";

export const OWN_DOMAIN = "11111111-2222-3333-4444-555555555555.consul";
export const A_DOMAIN = "1c053652-8512-4373-90cf-5a7f6263a994.consul";
export const B_DOMAIN = "d89ac423-e95a-475d-94f2-1c557c57bf31.consul";
export const LEAF = { certificateChainPem: "the certificate\n", privateKeyPem: "the key\n" };

/** A root that is a certificate. */
export function root(at: number): string {
  return fixedRootPems[at] ?? "";
}

export function bundle(peerName: string, trustDomain: string, rootPems: readonly string[] = [root(1)]): TrustBundle {
  return { peerName, trustDomain, rootPems, exportedPartition: "" };
}

/** A local instance, as it was registered. */
export function instance(
  service: ServiceRegistration,
  options: { readonly node?: string; readonly address?: string; readonly checks?: readonly Check[] } = {},
): ServiceInstance {
  const { node = "node", address = "10.0.0.1", checks = [] } = options;
  const parsed = parseRegistration({ node, address, service }, "dc1");
  const { service: registered } = parsed;
  if (registered === undefined) throw new TypeError("there is a service");
  return {
    node: { id: "", name: node, address, datacenter: "dc1", taggedAddresses: {}, meta: {} },
    service: registered,
    checks,
  };
}

/** A sidecar of a local service. */
export function sidecar(name: string, proxy: ServiceRegistration["proxy"] = {}, port = 9999): ServiceInstance {
  return instance({
    kind: "connect-proxy",
    id: `${name}-sidecar-proxy`,
    name: `${name}-sidecar-proxy`,
    port,
    proxy: { destinationServiceName: name, localServiceAddress: "127.0.0.1", localServicePort: 8080, ...proxy },
  });
}

/** An instance of a service as a peer tells it: one for each gateway. */
export function imported(
  service: string,
  peer: string,
  options: {
    readonly wan?: string;
    readonly port?: number;
    readonly protocol?: string;
    readonly meta?: boolean;
    readonly trustDomain?: string;
    readonly node?: string;
  } = {},
): ServiceInstance {
  const {
    wan = "198.18.0.1",
    port = 8080,
    protocol = "tcp",
    meta = true,
    trustDomain = A_DOMAIN,
    node = "gateway",
  } = options;
  const base = instance({
    kind: "connect-proxy",
    id: `${service}-sidecar-proxy`,
    name: `${service}-sidecar-proxy`,
    port: 9090,
    taggedAddresses: { wan: { address: wan, port } },
    proxy: { destinationServiceName: service },
  });
  const peerMeta = {
    sni: [`${service}.default.default.${peer}.external.${trustDomain}`],
    spiffeId: [
      `spiffe://${trustDomain}/ns/default/dc/dc9/svc/${service}`,
      `spiffe://${trustDomain}/gateway/mesh/dc/dc9`,
    ],
    protocol,
  };
  return {
    ...base,
    node: { ...base.node, name: node },
    service: { ...base.service, connect: { native: false, ...(meta && { peerMeta }) } },
  };
}

export interface ViewParts {
  readonly entries?: Parameters<typeof ConfigEntrySet.of>[0];
  readonly allowsByDefault?: boolean;
  /** Those that speak for each service. */
  readonly instances?: Readonly<Record<string, readonly ServiceInstance[]>>;
  readonly gateways?: readonly ServiceInstance[];
  readonly bundles?: readonly TrustBundle[];
  readonly inbound?: readonly TrustBundle[];
  /** By `service?peer=peer`; undefined: not read. */
  readonly imports?: Readonly<Record<string, readonly ServiceInstance[] | undefined>>;
  readonly exported?: readonly { readonly service: string; readonly peers: readonly string[] }[];
  /** The certificate of every proxy; default: texts without one. */
  readonly material?: ProxyLeaf;
  /** Why there is none. */
  readonly leaf?: string;
  readonly gatewayLeaf?: string;
  readonly rootPems?: readonly string[];
  /** Addresses at which no peer is dialed. */
  readonly forbidden?: readonly string[];
  readonly virtualIps?: Readonly<Record<string, string>>;
  readonly servers?: readonly ServiceInstance[];
  readonly peerServers?: ReturnType<MeshView["peerServers"]>;
  /** Of every service; default: those of its node are run elsewhere. */
  readonly exposedChecks?: ReturnType<MeshView["exposedChecks"]>;
  readonly hasIpv6?: boolean;
}

/** A cluster of given parts. */
export function viewOf(parts: ViewParts): MeshView {
  const { instances = {}, bundles = [], imports = {}, virtualIps = {} } = parts;
  const entries = ConfigEntrySet.of(parts.entries ?? []);
  return {
    datacenter: "dc1",
    trustDomain: OWN_DOMAIN,
    allowsByDefault: parts.allowsByDefault ?? false,
    entries,
    chain: (service, overrides) => compileChain(entries, service, "dc1", overrides),
    rootPems: () => parts.rootPems ?? [root(0)],
    leaf: () => parts.leaf ?? parts.material ?? LEAF,
    gatewayLeaf: () => parts.gatewayLeaf ?? parts.material ?? LEAF,
    targetEndpoints: ({ service, subsetDefinition }) =>
      atOnce(endpointsOf(instances[service] ?? [], "lan", subsetDefinition.onlyPassing === true)),
    meshServices: () => Object.keys(instances),
    localGateways: () => endpointsOf(parts.gateways ?? [], "lan"),
    servers: () => parts.servers ?? [],
    bundle: (peer) => bundles.find(({ peerName }) => peerName === peer),
    bundles: () => bundles,
    bundlesReaching: () => parts.inbound ?? [],
    imported: (peer, service) => imports[`${service}?peer=${peer}`],
    mayDial: (_peer, address) => !(parts.forbidden ?? []).includes(address),
    importedServices: (peer) =>
      Object.keys(imports).flatMap((key) =>
        key.endsWith(`?peer=${peer}`) ? [key.slice(0, -`?peer=${peer}`.length)] : [],
      ),
    exported: () => parts.exported ?? [],
    peerServers: () => parts.peerServers ?? [],
    exposedChecks: () => parts.exposedChecks,
    hasIpv6: () => parts.hasIpv6 ?? false,
    virtualIp: (service, peer) => virtualIps[peer === "" ? service : `${service}?peer=${peer}`],
  };
}

type Shown = Readonly<Record<ResourceType, Readonly<Record<string, JsonValue>>>>;

const messages = Object.values(envoy).filter(
  (one): one is typeof one & DescMessage => typeof one === "object" && "kind" in one && one.kind === "message",
);
const registry = createRegistry(...messages);
const SCHEMAS: Readonly<Record<ResourceType, DescMessage>> = {
  secret: envoy.SecretSchema,
  cluster: envoy.ClusterSchema,
  endpoint: envoy.ClusterLoadAssignmentSchema,
  listener: envoy.ListenerSchema,
  route: envoy.RouteConfigurationSchema,
};

/** Resources as Envoy would print them, by type and name. */
export function shown({ resources }: ResourceSet): Shown {
  const of = (type: ResourceType): Readonly<Record<string, JsonValue>> => {
    const schema = SCHEMAS[type];
    const entries = Array.from(
      resources[type],
      ([name, { bytes }]) => [name, toJson(schema, fromBinary(schema, bytes), { registry })] as const,
    );
    return Object.fromEntries(entries);
  };
  return {
    secret: of("secret"),
    cluster: of("cluster"),
    endpoint: of("endpoint"),
    listener: of("listener"),
    route: of("route"),
  };
}

/** A resource as Envoy dumps it. */
export function dumped(type: ResourceType, bytes: Uint8Array): JsonValue {
  const schema = SCHEMAS[type];
  return toJson(schema, fromBinary(schema, bytes), { registry, useProtoFieldName: true });
}

export interface MadeResources {
  readonly shown: Shown;
  readonly set: ResourceSet;
  readonly missing: readonly string[];
}

/** Everything that a proxy is told. */
export function resourcesOf(
  proxy: ServiceInstance,
  view: MeshView,
  placement: TlsPlacement = "inline",
  options: Partial<Parameters<typeof proxyResources>[2]> = {},
): ProxyResources | NotReady {
  const parts = { kept: new KeptParts(), encoder: new ResourceEncoder(), limits: { implicitUpstreams: 100 } };
  return doAll(proxyResources(proxy, view, { placement, ...parts, ...options }));
}

/** The resources of a proxy, which must not have to wait for anything. */
export function made(proxy: ServiceInstance, parts: ViewParts, placement: TlsPlacement = "inline"): MadeResources {
  const resources = resourcesOf(proxy, viewOf(parts), placement);
  if (resources.type !== "ready") throw new Error(`it waits for ${resources.waitsFor.join(", ")}`);
  return { shown: shown(resources.set), set: resources.set, missing: resources.missing };
}

/** The value at a path of members and positions; undefined where there is none. */
export function at(value: JsonValue | undefined, ...path: readonly (string | number)[]): JsonValue | undefined {
  let found: unknown = value;
  for (const step of path) {
    if (typeof found !== "object" || found === null) return undefined;
    found = Object.entries(found).find(([key]) => key === String(step))?.[1];
  }
  return found as JsonValue | undefined;
}
