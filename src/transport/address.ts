import { PeeringError } from "../base/errors.js";
import { StatusCode } from "../wire/status.js";

export interface HostPort {
  /** Without brackets. `""` where the address was `":port"`. */
  readonly host: string;
  readonly port: number;
}

function refuse(address: string, reason: string): PeeringError {
  return new PeeringError("invalid-argument", `address ${address}: ${reason}`, { status: StatusCode.Unavailable });
}

/**
 * Splits `host:port` or `[v6]:port`, with the error texts of Go's `net.SplitHostPort`, which operators of Consul know
 * from its logs.
 * @throws {PeeringError} `invalid-argument`, status 14.
 */
export function parseAddress(address: string): HostPort {
  const colon = address.lastIndexOf(":");
  if (colon < 0) throw refuse(address, "missing port in address");
  let host = address.slice(0, colon);
  if (address.startsWith("[")) {
    const bracket = address.indexOf("]");
    if (bracket < 0) throw refuse(address, "missing ']' in address");
    if (bracket === address.length - 1) throw refuse(address, "missing port in address");
    if (bracket + 1 !== colon) throw refuse(address, "too many colons in address");
    host = address.slice(1, bracket);
  } else if (host.includes(":")) {
    throw refuse(address, "too many colons in address");
  }
  if (/[[\]]/.test(host)) throw refuse(address, "unexpected bracket in address");
  const text = address.slice(colon + 1);
  const port = Number(text);
  if (!/^[0-9]{1,5}$/.test(text) || port > 65_535) throw refuse(address, `invalid port "${text}"`);
  return { host, port };
}

/** `host:port`, an IPv6 host in brackets. */
export function formatAddress(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
