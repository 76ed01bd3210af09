import type { Incidents } from "../base/incidents.js";
import type { ServiceInstance } from "../model/instance.js";
import { insideAddress } from "../model/server-addresses.js";
import { addressesToDial, type Peering } from "../peering/peering.js";
import type { DialTarget } from "../transport/transport.js";
import type { DialRule } from "./dial-rule.js";

/** One address at which a peer is dialed. */
export type DialPlace = Pick<DialTarget, "address" | "mayDial">;

export interface DialPlacesOptions {
  readonly dialRule: DialRule;
  readonly incidents: Incidents;
  readonly throughGateways: () => boolean;
  /** The mesh gateways of this cluster. */
  readonly gateways: () => readonly ServiceInstance[];
}

/** Where peers are dialed: where peerings go through mesh gateways, at our own ones first, which lead on by the server name. */
export class DialPlaces {
  readonly #options: DialPlacesOptions;

  constructor(options: DialPlacesOptions) {
    this.#options = options;
  }

  /** In the order in which they are tried. */
  of(peering: Pick<Peering, "name" | "peerServerAddresses" | "manualServerAddresses">): readonly DialPlace[] {
    const mayDial = this.#options.dialRule.mayDial(peering.name);
    const direct = addressesToDial(peering).map((address) => ({ address, mayDial }));
    // Without an address of the peer there is nothing that a gateway could lead to.
    return direct.length === 0 ? [] : [...this.ownGateways(), ...direct];
  }

  /** Registered here by somebody with the right to do so: no rule about addresses of peers holds for them. */
  ownGateways(): readonly DialPlace[] {
    const { incidents, throughGateways, gateways } = this.#options;
    if (!throughGateways()) return [];
    const found = gateways().map((gateway) => ({ address: insideAddress(gateway) }));
    if (found.length === 0) {
      incidents.report(
        "no-own-mesh-gateway",
        "peers are to be dialed through mesh gateways, and none is registered: they are dialed directly",
      );
    }
    return found;
  }
}
