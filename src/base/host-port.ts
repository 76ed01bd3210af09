import { isIP } from "node:net";

/** An address split as a dialer or a listener needs it. */
export interface HostPort {
  /** Without brackets; may be a name, or `""` where the address was `":port"`. */
  readonly host: string;
  readonly port: number;
}

/** Whether a number is a port that can be dialed. */
export function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port <= MAX_PORT;
}

const MAX_PORT = 65_535;

/**
 * Splits `host:port`, an IPv6 host in brackets; nothing is looked up. The port is a decimal from 0 to 65535.
 * @returns the reason, in the words of Go's `net.SplitHostPort`, for an address that cannot be split.
 */
export function readHostPort(address: string): HostPort | string {
  const colon = address.lastIndexOf(":");
  if (colon < 0) return "missing port in address";
  let host = address.slice(0, colon);
  if (address.startsWith("[")) {
    const bracket = address.indexOf("]");
    if (bracket < 0) return "missing ']' in address";
    if (bracket === address.length - 1) return "missing port in address";
    if (bracket + 1 !== colon) return "too many colons in address";
    host = address.slice(1, bracket);
  } else if (host.includes(":")) {
    return "too many colons in address";
  }
  if (/[[\]]/.test(host)) return "unexpected bracket in address";
  const text = address.slice(colon + 1);
  const port = Number(text);
  return /^[0-9]+$/.test(text) && port <= MAX_PORT ? { host, port } : `invalid port "${text}"`;
}

/** As {@link readHostPort}; undefined when it cannot be split, or when the port is 0, which cannot be dialed. */
export function splitHostPort(address: string): HostPort | undefined {
  const read = readHostPort(address);
  return typeof read === "string" || read.port === 0 ? undefined : read;
}

/**
 * As {@link splitHostPort}, but takes an IPv6 host without brackets too, split at the last colon: so Consul writes its
 * own addresses in `PeeringServerAddresses` (1.13 to 1.22). Not for tokens, where it is an error.
 */
export function splitPushedAddress(address: string): HostPort | undefined {
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, Math.max(colon, 0));
  const isBare = /^[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*(?:%.+)?$/i.test(host);
  return splitHostPort(isBare ? `[${host}]${address.slice(colon)}` : address);
}

/** `host:port`, with brackets around an IPv6 host (D-22). */
export function joinHostPort(host: string, port: number | string): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The host of an address that is known to be one, without brackets; of one without a port, all of it. */
export function hostOf(address: string): string {
  return withoutBrackets(address.replace(/:\d*$/, ""));
}

/** An IPv6 address as it is outside of an address with a port or of a URL; other hosts as they are. */
export function withoutBrackets(host: string): string {
  return host.replace(/^\[(.*)\]$/, "$1");
}

/** 4 or 6 for an IP address; 0: it is none, such as a name. */
export function ipVersion(address: string): 0 | 4 | 6 {
  const version = isIP(address);
  return version === 4 || version === 6 ? version : 0;
}
