/** Bounds on what connected proxies cost. Beyond each of them there is one line of the log now and then, and a counter. */
export interface XdsLimits {
  /** Proxies that are connected at once. Default 4 096; further ones are refused with RESOURCE_EXHAUSTED, and come again by themselves. */
  readonly proxies: number;
  /** Resources of one proxy. Default 65 536; one that would have more keeps those it has. */
  readonly proxyResources: number;
  /** Names of one type that one proxy may ask for. Default 65 536; its stream is ended beyond. */
  readonly subscribedNames: number;
  /** Bytes of resources in one response. Default 4 MiB; the others follow once it is answered. A larger resource has one for itself. */
  readonly responseBytes: number;
  /** Bytes of one message of a proxy. Default 16 MiB; its stream is ended beyond. */
  readonly messageBytes: number;
  /** Upstreams of a transparent proxy that its registration does not name. Default 10 000; further ones are not told to it. */
  readonly implicitUpstreams: number;
  /** How long a response may wait for its answer before that is reported, in milliseconds. Default 60 000. */
  readonly unansweredMs: number;
  /** How long a proxy may take to accept one message, in milliseconds. Default 60 000; its stream is cut off then. */
  readonly writeTimeoutMs: number;
}

export const defaultXdsLimits: XdsLimits = {
  proxies: 4_096,
  proxyResources: 65_536,
  subscribedNames: 65_536,
  responseBytes: 4 * 1024 * 1024,
  messageBytes: 16 * 1024 * 1024,
  implicitUpstreams: 10_000,
  unansweredMs: 60_000,
  writeTimeoutMs: 60_000,
};
