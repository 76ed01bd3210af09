import { isIP } from "node:net";
import { AddressRanges } from "../base/address-ranges.js";
import { splitPushedAddress } from "../base/host-port.js";
import type { Incidents } from "../base/incidents.js";

/**
 * Ranges that no peer may have us connect to: this host and its links under unassigned addresses, multicast groups, and
 * the addresses at which clouds give a machine its credentials.
 */
export const defaultForbiddenAddresses: readonly string[] = [
  "0.0.0.0/8",
  "169.254.0.0/16",
  "224.0.0.0/4",
  "255.255.255.255/32",
  "::/128",
  "fe80::/10",
  "ff00::/8",
  // Alibaba Cloud, Azure, Oracle Cloud; AWS and Google Cloud over IPv6. Those of most clouds are link-local.
  "100.100.100.200/32",
  "168.63.129.16/32",
  "192.0.0.192/32",
  "fd00:ec2::254/128",
  "fd20:ce::254/128",
];

/** Which addresses of peers are dialed (D-57): tokens and peers name them, and must not choose everything that we connect to. */
export class DialRule {
  readonly #forbidden: AddressRanges;
  readonly #incidents: Incidents;

  /** @throws {TypeError} for an invalid range. */
  constructor(forbidden: readonly string[], incidents: Incidents) {
    this.#forbidden = new AddressRanges(forbidden);
    this.#incidents = incidents;
  }

  /**
   * The fault of the first address that is not `host:port`, or whose host is forbidden; undefined if all are good.
   * The addresses of a name are found out, and judged by {@link mayDial}, when it is dialed.
   */
  faultOf(addresses: readonly string[]): string | undefined {
    for (const address of addresses) {
      const host = splitPushedAddress(address)?.host;
      if (host === undefined) return `${address} is not a valid peering server address`;
      if (isIP(host) !== 0 && this.#forbidden.leadsInto(host)) {
        return `${address} is not a valid peering server address: ${host} is in a range that must not be dialed`;
      }
    }
    return undefined;
  }

  /** For {@link DialTarget.mayDial}. */
  mayDial(peerName: string): (ip: string) => boolean {
    return (ip) => {
      if (!this.#forbidden.leadsInto(ip)) return true;
      this.#incidents.report("dial-forbidden", "an address of a peer is in a range that must not be dialed", {
        peer: peerName,
        address: ip,
      });
      return false;
    };
  }
}
