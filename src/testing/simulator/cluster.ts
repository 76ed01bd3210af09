import type { HostMachinery, PeeringHost } from "../../host/host.js";
import type { FixedAuthority } from "../fixed-authority.js";
import type { Damage } from "./damage.js";
import type { SimDisk } from "./sim-disk.js";
import type { SimLeadership } from "./sim-leadership.js";

/** One simulated cluster: what survives its crashes, and the life it leads now. */
export interface SimCluster {
  readonly index: number;
  readonly name: string;
  readonly address: string;
  /** Where it says that it is to be dialed. */
  advertised: readonly string[];
  readonly disk: SimDisk;
  readonly damage: Damage;
  /** Why its last life has not begun. */
  refusal: unknown;
  readonly authority: FixedAuthority;
  /** Whether it has a key for secrets that must be readable again. */
  readonly sealed: boolean;
  life: MutableLife;
  leadership: SimLeadership;
  /** Virtual time until which this process certainly led: now, while it does. */
  readonly ledUntil: () => number;
  host: PeeringHost | undefined;
  /** @internal The parts of its host that the judges look into. */
  readonly machinery: () => HostMachinery | undefined;
}

export interface MutableLife {
  alive: boolean;
  frozenUntil: number;
  wallAheadMs: number;
}
