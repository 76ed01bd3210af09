/** The types of Envoy's resources that are served, in the order in which changes are sent. */
export type ResourceType = "secret" | "cluster" | "endpoint" | "listener" | "route";

/** A response that a proxy refused. */
export interface Refusal {
  readonly resourceType: ResourceType;
  readonly nonce: string;
  /** The resources of that response, in byte order; the first ones of many. */
  readonly names: readonly string[];
  readonly message: string;
}

/** A refused response, as it is shown. */
export interface ShownRefusal extends Refusal {
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** A connected proxy, as its operator sees it. */
export interface ConnectedProxy {
  /** Id of the registration; `""`: it has not said yet. */
  readonly id: string;
  readonly node: string;
  /** The service that a sidecar stands for, or the name of a gateway; `""`: it is not known. */
  readonly service: string;
  readonly kind: string;
  /** `""`: it does not say. */
  readonly envoyVersion: string;
  /** Milliseconds since the epoch. */
  readonly connectedAt: number;
  /** Without these it is told nothing. Empty: it was told its resources. */
  readonly waitsFor: readonly string[];
  /** Parts of the mesh that it is not told of yet, and why. */
  readonly missing: readonly string[];
  /** The last refusal of each type, until a response of the type is accepted. */
  readonly refusals: readonly ShownRefusal[];
  /** Types of which a response is not answered. */
  readonly unanswered: readonly ResourceType[];
  /** How many resources of each type it is to have. */
  readonly resources: Readonly<Record<ResourceType, number>>;
}

/** The oldest Envoy that is served, major and minor: older ones do not know all that is sent. */
export const OLDEST_ENVOY: readonly [number, number] = [1, 20];
