import type { IncomingHttpHeaders } from "node:http";
import { isIPv6, Server, type Socket } from "node:net";
import { AddressRanges } from "../base/address-ranges.js";
import type { Clock, LogFields } from "../base/environment.js";
import type { Incidents } from "../base/incidents.js";
import type { HttpRequest } from "./messages.js";
import { RequestRate } from "./request-rate.js";

/** Which requests are taken at all, whatever token they carry. */
export interface RequestGuardOptions {
  /**
   * Names and addresses, without a port, that a request may give as its `Host`; `*`: any. A server that listens on a loopback
   * address takes these beside loopback names and addresses (`localhost`, `127.0.0.0/8`, `[::1]`), so that a page whose name
   * was made to resolve to 127.0.0.1 cannot use it. Any other server takes these and no others, and everything while there are
   * none. Default: none. Beyond: 403.
   */
  readonly allowedHosts?: readonly string[];
  /**
   * Origins whose pages may call from a browser and read the answers, such as `https://ui.example.com`; `*`: all. A browser's
   * write from a page of another origin is answered 403. Clients that are no browsers send no origin. Default: none.
   */
  readonly allowedOrigins?: readonly string[];
  /**
   * Networks, such as `10.0.0.0/8`, from whose addresses writes are taken; others are answered 403. As Consul's
   * `http_config.allow_write_http_from`. Default: none, which takes writes from everywhere.
   */
  readonly allowWriteFrom?: readonly string[];
  /**
   * Requests a second that are taken from one source (an IPv4 address, or the /64 of an IPv6 one), and as many at once; the
   * HTTP API and calls count by themselves. Clients behind one proxy are one source. Default: as many as come, as in Consul.
   * Beyond: 429.
   */
  readonly requestsPerSecond?: number;
}

/** The parts of a request that are looked at. */
type GuardedRequest = Pick<HttpRequest, "method" | "httpVersion" | "headers" | "rawHeaders" | "socket">;

export interface Refusal {
  readonly status: 400 | 403 | 429;
  readonly text: string;
}

/** Longest text of a client's that goes into an answer or a log line. */
const QUOTED_LENGTH = 100;
const ANY = "*";
/** Loopback hosts, as {@link canonicalHost} writes them. Names below `localhost` never leave a machine (RFC 6761, 6.3). */
const LOOPBACK_HOST = /^(?:(?:.+\.)?localhost|127(?:\.\d+){3}|\[::1\]|\[::ffff:7f[\da-f]{2}:[\da-f]{1,4}\])$/;
/** The beginning of every browser's `User-Agent`. */
const BROWSER = /^Mozilla\//;

/**
 * Keeps out requests that web pages send through the browser of a person who can reach a server, and writes from elsewhere than they
 * are allowed from. One rule for the HTTP API and for calls.
 */
export class RequestGuard {
  readonly #incidents: Incidents;
  readonly #hosts: ReadonlySet<string>;
  readonly #origins: ReadonlySet<string>;
  readonly #writers: AddressRanges | undefined;
  readonly #rate: RequestRate | undefined;
  readonly #perSecond: number | undefined;

  /** @throws {TypeError} for an invalid host, origin or network, and for a rate of 0. */
  constructor(
    { allowedHosts = [], allowedOrigins = [], allowWriteFrom = [], requestsPerSecond }: RequestGuardOptions,
    incidents: Incidents,
    clock: Clock,
  ) {
    if (requestsPerSecond !== undefined && !(requestsPerSecond >= 1)) {
      throw new TypeError(`requestsPerSecond must be at least 1, not ${requestsPerSecond}`);
    }
    this.#perSecond = requestsPerSecond;
    this.#rate = requestsPerSecond === undefined ? undefined : new RequestRate(requestsPerSecond, clock);
    this.#incidents = incidents;
    this.#hosts = new Set(allowedHosts.map(allowedHost));
    this.#origins = new Set(allowedOrigins.map(allowedOrigin));
    this.#writers = allowWriteFrom.length === 0 ? undefined : new AddressRanges(allowWriteFrom, { needsLength: true });
  }

  /** Whether answers differ by the origin of their request. */
  get variesByOrigin(): boolean {
    return this.#origins.size > 0;
  }

  /** Counts a request that is known to be allowed, but for its rate. False: it is one too many. */
  admits({ remoteAddress = "" }: Socket): boolean {
    return this.#rate?.admit(remoteAddress) !== false;
  }

  /** Why a request is refused: its rate, its host or its origin; undefined: it is not. */
  judge(request: GuardedRequest): Refusal | undefined {
    if (!this.admits(request.socket)) {
      const fields = { limit: this.#perSecond };
      this.#report("http-requests-per-source", "a source asks more often than it may", request, fields);
      return { status: 429, text: `Your address may send ${this.#perSecond} requests a second.` };
    }
    return this.#judgeHost(request) ?? (isWrite(request.method) ? this.#judgeOrigin(request) : undefined);
  }

  /** Whether a write is not allowed from where it comes; undefined: it is. */
  judgeWriter(request: GuardedRequest): Refusal | undefined {
    const { remoteAddress = "" } = request.socket;
    if (this.#writers === undefined || this.#writers.includes(remoteAddress)) return undefined;
    this.#report("http-write-refused", "a write came from an address that may not write", request, {});
    // Consul's text (1.21).
    return { status: 403, text: "Access is restricted" };
  }

  /** The origin of a request, when its pages may call; undefined: it has none, or a forbidden one. */
  allowedOrigin({ origin }: IncomingHttpHeaders): string | undefined {
    if (origin === undefined) return undefined;
    return this.#origins.has(ANY) || this.#origins.has(origin) ? origin : undefined;
  }

  #judgeHost(request: GuardedRequest): Refusal | undefined {
    const [named, ...others] = namedHosts(request.rawHeaders);
    // Two servers on the way could each believe another one (RFC 9112, 3.2). HTTP/2 has two places for the same host.
    if (others.some((other) => other !== named || request.httpVersion.startsWith("1."))) {
      return { status: 400, text: "400 Bad Request: more than one Host" };
    }
    // No browser leaves it out; health checks over HTTP/1.0 do.
    if (named === undefined) return undefined;
    const loopback = this.#arrivedAtLoopback(request.socket);
    if (this.#hosts.has(ANY) || (!loopback && this.#hosts.size === 0)) return undefined;
    const host = canonicalHost(named);
    if (host !== undefined && (this.#hosts.has(host) || (loopback && LOOPBACK_HOST.test(host)))) return undefined;
    const shown = quoted(named);
    this.#report("http-host-refused", "a request named a host that is not allowed", request, { host: shown });
    return {
      status: 403,
      text: `Host ${JSON.stringify(shown)} is not allowed. An agent takes it with -allowed-host, a program with allowedHosts.`,
    };
  }

  #judgeOrigin(request: GuardedRequest): Refusal | undefined {
    const { headers } = request;
    const { origin, "sec-fetch-site": site } = headers;
    if (this.allowedOrigin(headers) !== undefined) return undefined;
    // No page can have a browser say something else here. Browsers of before 2023 say nothing.
    if (site === "same-origin" || site === "none") return undefined;
    if (
      site === undefined &&
      (origin === undefined ? !isOldForm(request) : isOwnOrigin(origin, namedHosts(request.rawHeaders)[0]))
    ) {
      return undefined;
    }
    const shown = quoted(origin ?? "");
    this.#report("http-origin-refused", "a web page of an origin that is not allowed tried to write", request, {
      origin: shown,
    });
    return {
      status: 403,
      text: `Origin ${JSON.stringify(shown)} is not allowed to write. An agent takes it with -allowed-origin, a program with allowedOrigins.`,
    };
  }
  /** Whether the server that took a connection listens on a loopback address. */
  #arrivedAtLoopback(socket: Socket): boolean {
    // Node tells each socket which server took it.
    const server: unknown = "server" in socket ? socket.server : undefined;
    const bound = server instanceof Server ? server.address() : null;
    // Of a server that is closing only the connections still have an address.
    if (bound === null) return isLoopback(socket.localAddress);
    // A server on a Unix socket has a path instead; no page reaches that.
    return typeof bound !== "string" && isLoopback(bound.address);
  }

  #report(kind: string, message: string, { method, socket }: GuardedRequest, fields: LogFields): void {
    this.#incidents.report(kind, message, { ...fields, method, source: socket.remoteAddress });
  }
}

/** Methods that only read, as Consul tells them apart (1.21). */
function isWrite(method: string | undefined): boolean {
  return method !== "GET" && method !== "HEAD" && method !== "OPTIONS";
}

/** Every host that a request names. */
function namedHosts(rawHeaders: readonly string[]): readonly string[] {
  return rawHeaders.filter((_, index) => index % 2 === 1 && /^(?:host|:authority)$/i.test(rawHeaders[index - 1] ?? ""));
}

/** The host of `host[:port]` in the one spelling that the URL standard has for it; undefined for an invalid host. */
function canonicalHost(authority: string): string | undefined {
  if (!/^(?:\[[\da-f:.]+\]|[\w.-]+)(?::\d*)?$/i.test(authority)) return undefined;
  try {
    return new URL(`http://${authority}`).hostname.replace(/\.$/, "");
  } catch {
    return undefined;
  }
}

function isLoopback(address: string | undefined): boolean {
  if (address === undefined) return false;
  return LOOPBACK_HOST.test(canonicalHost(isIPv6(address) ? `[${address}]` : address) ?? "");
}

/** @throws {TypeError} for an invalid host. */
function allowedHost(text: string): string {
  if (text === ANY) return ANY;
  const host = isIPv6(text) ? `[${text}]` : text;
  const canonical = /:\d*$/.test(host) ? undefined : canonicalHost(host);
  if (canonical === undefined)
    throw new TypeError(`allowed host ${JSON.stringify(text)}: no name or address, without a port`);
  return canonical;
}

/** @throws {TypeError} for an invalid origin. */
function allowedOrigin(text: string): string {
  if (text === ANY || text === "null") return text;
  try {
    const { protocol, origin, pathname, search, hash, host } = new URL(text);
    // Those of browser extensions have a scheme of their own, which the URL standard has no origin for.
    if (host !== "" && /^\/?$/.test(pathname) && search + hash === "") {
      return origin === "null" ? `${protocol}//${host}` : origin;
    }
  } catch {
    // Refused below.
  }
  throw new TypeError(`allowed origin ${JSON.stringify(text)}: not scheme://host[:port]`);
}

/** Whether a page comes from the very server that it writes to. */
function isOwnOrigin(origin: string, host: string | undefined): boolean {
  try {
    const { protocol, host: own } = new URL(origin);
    return own === new URL(`${protocol}//${host}`).host;
  } catch {
    return false;
  }
}

/**
 * A form of HTML in a browser so old that it does not tell where the form comes from. Of the types that forms have, only this
 * one can be made to look like JSON. Programs that send a text as such a type have another name.
 */
function isOldForm({ method, headers }: GuardedRequest): boolean {
  return (
    method === "POST" &&
    /^text\/plain\b/i.test(headers["content-type"] ?? "") &&
    BROWSER.test(headers["user-agent"] ?? "")
  );
}

function quoted(text: string): string {
  return text.slice(0, QUOTED_LENGTH);
}
