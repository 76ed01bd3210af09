/** The parts of a connection through the mesh, in the order in which they are looked at. */
export type ConnectionPart =
  | "peering"
  | "export"
  | "chain"
  | "import"
  | "instances"
  | "protocol"
  | "names"
  | "trust"
  | "gateway"
  | "certificate"
  | "intention"
  | "other-cluster";

/** One part of a connection, and whether anything speaks against it. */
export interface ConnectionStep {
  readonly part: ConnectionPart;
  /** `unknown`: it cannot be said here, as only the other cluster knows, or the answer depends on the request. */
  readonly result: "ok" | "failed" | "unknown";
  /** The place of the discovery chain that the step is about; `""`: the connection as a whole. */
  readonly place: string;
  readonly text: string;
  /** The way to mend it; `""` where nothing failed. */
  readonly remedy: string;
}

/** A service, by its name in the cluster that it belongs to. */
export interface MeshEnd {
  readonly service: string;
  /** Our name of the peering; `""`: this cluster. */
  readonly peer: string;
}

/** Whether one service reaches another through the mesh, step by step. */
export interface ConnectionExplanation {
  readonly source: MeshEnd;
  readonly destination: MeshEnd;
  readonly steps: readonly ConnectionStep[];
  /** The first step that keeps the connection from being made; undefined: none is known here. */
  readonly failed: ConnectionStep | undefined;
  /** Things to look at that need not be wrong. */
  readonly hints: readonly string[];
}

/** A question about a connection. */
export interface ConnectionQuestion {
  /** The service that calls. */
  readonly source: string;
  /** The service that is called. */
  readonly destination: string;
  /** Our name of the peering that the destination belongs to. Default: it is a service of this cluster. */
  readonly peer?: string;
  /** Our name of the peering that the source belongs to. Default: it is a service of this cluster. */
  readonly sourcePeer?: string;
  /** The method of a request, for intentions with permissions. Default `GET` where a path is given. */
  readonly method?: string;
  /** The path of a request, for intentions with permissions. Default: the connection alone is explained. */
  readonly path?: string;
  /** How calls to a peer go out: `local`, `remote` or `none`. Default: as the sidecar of the source, or config entries, say. */
  readonly meshGateway?: string;
}

/** Explains connections of one cluster. */
export type ExplainConnection = (
  question: ConnectionQuestion & { readonly defaultIntention: "allow" | "deny" },
) => Promise<ConnectionExplanation>;
