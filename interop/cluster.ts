import type { ConsulClient } from "../src/client/index.js";

/** One side of a peering, driven through Consul's HTTP API, which both sides serve. */
export interface Cluster {
  /** The other side's name for it. */
  readonly name: string;
  readonly datacenter: string;
  readonly client: ConsulClient;
  /** `<cluster uuid>.consul`. */
  trustDomain(): Promise<string>;
  /** Names of everything imported from `peer`, sidecars included, sorted. */
  importedNames(peer: string): Promise<readonly string[]>;
}
