import { lookup } from "node:dns";
import type { LookupFunction } from "node:net";

/** Why an address, which is one of these, is not connected to. */
export function forbidden(address: string, ips: readonly string[]): string {
  return `${address} must not be dialed: it is ${ips.join(", ")}`;
}

/** Looks a name up, and keeps those of its addresses that may be dialed: only addresses that were checked are connected to. */
export function lookupAllowed(address: string, mayDial: (ip: string) => boolean): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, "");
      const ips = found.map((each) => each.address);
      const allowed = found.filter((each) => mayDial(each.address));
      const [first] = allowed;
      if (first === undefined) callback(new Error(forbidden(address, ips)), "");
      else if (options.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}
