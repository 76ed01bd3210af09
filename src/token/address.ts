/** An address split as a dialer needs it. */
export interface HostPort {
  /** Without brackets; may be a name, or `""`. */
  readonly host: string;
  /** 1 to 65535. */
  readonly port: number;
}

/**
 * Splits `host:port`, an IPv6 host in brackets, by the rules of Go's `net.SplitHostPort`. `undefined` when it cannot be
 * split or the port is no decimal from 1 to 65535. The host may be empty or a name; nothing is looked up.
 */
export function splitHostPort(address: string): HostPort | undefined {
  const colon = address.lastIndexOf(":");
  if (colon < 0) return undefined;
  let host = address.slice(0, colon);
  if (host.startsWith("[") && host.endsWith("]")) host = host.slice(1, -1);
  else if (host.includes(":")) return undefined;
  const port = portOf(address.slice(colon + 1));
  return port === undefined || /[[\]]/.test(host) ? undefined : { host, port };
}

/**
 * As {@link splitHostPort}, but takes an IPv6 host without brackets too, split at the last colon: so Consul writes its
 * own addresses in `PeeringServerAddresses` (1.13 to 1.22). Not for tokens, where it is an error.
 */
export function splitPushedAddress(address: string): HostPort | undefined {
  const strict = splitHostPort(address);
  if (strict !== undefined) return strict;
  const colon = address.lastIndexOf(":");
  const host = address.slice(0, Math.max(colon, 0));
  const port = portOf(address.slice(colon + 1));
  return port !== undefined && /^[0-9a-f]*:[0-9a-f]*:[0-9a-f:.]*(?:%.+)?$/i.test(host) ? { host, port } : undefined;
}

/** `host:port`, with brackets around an IPv6 host (D-22). */
export function joinHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function portOf(text: string): number | undefined {
  if (!/^[0-9]+$/.test(text)) return undefined;
  const port = Number(text);
  return port >= 1 && port <= 65_535 ? port : undefined;
}
