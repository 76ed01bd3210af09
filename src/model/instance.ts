/** Where something runs (Consul 1.16 and later). */
export interface Locality {
  readonly region: string;
  readonly zone: string;
}

export type StringMap = Readonly<Record<string, string>>;

/** A node as the catalog keeps it. The name is the key (case-insensitive); the id, a UUID, is optional (`""`). */
export interface Node {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly datacenter: string;
  readonly taggedAddresses: StringMap;
  readonly meta: StringMap;
  readonly locality?: Locality;
}

export type ServiceKind =
  | ""
  | "connect-proxy"
  | "mesh-gateway"
  | "terminating-gateway"
  | "ingress-gateway"
  | "api-gateway"
  | "destination";

export interface ServiceAddress {
  readonly address: string;
  readonly port: number;
}

/** One of several ports of an instance (Consul 1.22 and later). */
export interface ServicePort {
  /** Unique among those of the instance. */
  readonly name: string;
  readonly port: number;
  /** Whether it stands for all of them where only one can be told. One does. */
  readonly default: boolean;
}

/** A JSON value, as `google.protobuf.Struct` carries it. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };
export type JsonObject = { readonly [key: string]: JsonValue };

/**
 * Lists and objects in one another that a {@link JsonObject} may have, itself included (D-66): deeper than any configuration, and far
 * from the end of the stack for all that reads, compares and writes it.
 */
export const MAX_JSON_DEPTH = 64;

/** The fields of a proxy that Consul's exporter fills, and that local registrations keep. */
export interface Proxy {
  readonly destinationServiceName: string;
  readonly destinationServiceId: string;
  readonly localServiceAddress: string;
  readonly localServicePort: number;
  readonly localServiceSocketPath: string;
  readonly mode: string;
  readonly config?: JsonObject;
  /** Fields of Consul's `Upstream`, with a small first letter: `destinationName`, `destinationPeer`, `localBindPort`. */
  readonly upstreams?: readonly JsonObject[];
  readonly meshGatewayMode: string;
  /** `EnvoyExtensions`, `Expose`, `TransparentProxy` and `AccessLogs` as Consul has them: kept, and not interpreted. */
  readonly extra?: JsonObject;
}

/** A proxy of which nothing is said. */
export const emptyProxy: Proxy = {
  destinationServiceName: "",
  destinationServiceId: "",
  localServiceAddress: "",
  localServicePort: 0,
  localServiceSocketPath: "",
  mode: "",
  meshGatewayMode: "",
};

/** How to reach an exported service through the exporter's mesh gateways. */
export interface PeerMeta {
  readonly sni: readonly string[];
  readonly spiffeId: readonly string[];
  readonly protocol: string;
}

export interface Connect {
  readonly native: boolean;
  readonly peerMeta?: PeerMeta;
  /** The sidecar that a registration with the catalog speaks of, as Consul has it: kept, and not interpreted. */
  readonly sidecarService?: JsonObject;
}

export interface Weights {
  readonly passing: number;
  readonly warning: number;
}

/** One instance of a service, without its node and checks. The id is unique per node (case-insensitive). */
export interface Service {
  /** A {@link ServiceKind}; imported services may carry any text. */
  readonly kind: string;
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly address: string;
  /** Of an instance with several ports, the default one. */
  readonly port: number;
  /** Absent unless the instance was registered with named ports. */
  readonly ports?: readonly ServicePort[];
  readonly socketPath: string;
  readonly taggedAddresses: Readonly<Record<string, ServiceAddress>>;
  readonly meta: StringMap;
  readonly weights: Weights;
  readonly enableTagOverride: boolean;
  readonly proxy?: Proxy;
  readonly connect?: Connect;
  readonly locality?: Locality;
}

/** A health check. `serviceId` is `""` for a check of the node. Status is free text: unknown ones are stored as they are. */
export interface Check {
  readonly node: string;
  readonly checkId: string;
  readonly name: string;
  readonly status: string;
  readonly notes: string;
  readonly output: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly serviceTags: readonly string[];
  readonly type: string;
  readonly interval: string;
  readonly timeout: string;
  readonly exposedPort: number;
  readonly definition: JsonObject;
}

/** Consul's CheckServiceNode: one instance, its node, and the checks of both. The unit of replication. */
export interface ServiceInstance {
  readonly node: Node;
  readonly service: Service;
  readonly checks: readonly Check[];
}
