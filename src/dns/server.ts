import { createSocket, type SocketOptions, type Socket as UdpSocket } from "node:dgram";
import { lookup } from "node:dns";
import { once } from "node:events";
import {
  createServer as createTcpServer,
  isIP,
  isIPv6,
  type Server as TcpServer,
  type Socket as TcpSocket,
} from "node:net";
import { setImmediate } from "node:timers/promises";
import type { Authorizer } from "../access/authorizer.js";
import type { Closable } from "../base/closable.js";
import { type Clock, type Logger, type Random, silentLogger, systemClock } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import { Incidents } from "../base/incidents.js";
import type { PeeringHost } from "../host/host.js";
import { parseAddress } from "../transport/address.js";
import {
  type Connection,
  type ConnectionGuard,
  ConnectionLimits,
  type ListenerLimits,
} from "../transport/connection-limits.js";
import { KeptReplies } from "./kept-replies.js";
import { type LargeAnswerLimits, LargeAnswers } from "./large-answers.js";
import { MAX_QUERY_BYTES } from "./packet.js";
import { isEncodable, nameKey } from "./records.js";
import { Resolver } from "./resolver.js";
import { Responder } from "./responder.js";
import { UDP_BYTES, UDP_MOST_BYTES } from "./size.js";
import { type DnsSource, hostSource, permittedSource } from "./source.js";

/** Defaults are Consul's where it has such a setting. */
export interface DnsServerOptions {
  /** `host:port`, for UDP and TCP alike. Port 0: any that is free. Consul's is 8600. */
  readonly listen: string;
  /** The domain that names end in. Default `"consul"`. */
  readonly domain?: string;
  /** A second domain that is answered for. Default: none. */
  readonly altDomain?: string;
  /**
   * As Consul, which knows a peer by `.<peer>.peer` alone. Default false: `web.service.<peer>.consul` and
   * `n1.node.<peer>.consul` are answered, too, unless the label is the name of our own datacenter (D-39).
   */
  readonly strict?: boolean;
  /** Leaves out instances with any check that is not `passing`, not only those with a `critical` one. Default false. */
  readonly onlyPassing?: boolean;
  /** TTL of nodes, virtual IPs and `addr` names, in seconds. Default 0. */
  readonly nodeTtlSeconds?: number;
  /** TTL of services, in seconds, by name or by a prefix and `*`; the longest that fits counts. Default: 0 for all. */
  readonly serviceTtlSeconds?: Readonly<Record<string, number>>;
  /** Seconds of the SOA record. Default: refresh 3600, retry 600, expire 86400, minTtl 0. */
  readonly soa?: {
    readonly refresh?: number;
    readonly retry?: number;
    readonly expire?: number;
    readonly minTtl?: number;
  };
  /** Most answers over UDP to an asker without EDNS; never more than 8. Default 3. */
  readonly udpAnswerLimit?: number;
  /**
   * Most bytes of an answer over UDP, whatever size a client with EDNS accepts: at least 512, at most 65 467. What goes beyond
   * is cut, and the TC bit sends the asker to TCP. Default 1 232, which fits any network in one piece, as resolvers agreed
   * (DNS Flag Day 2020); Consul has no such limit (D-60).
   */
  readonly maxUdpBytes?: number;
  /** Bounds large answers over UDP, whose address may be forged. Beyond them the TC bit sends the asker to TCP, without an answer. */
  readonly largeAnswers?: {
    /** An answer is large when it is longer than so many times its question. Default 3, as QUIC allows. */
    readonly factor?: number;
    /** Large answers to one network, an IPv4 /24 or an IPv6 /56, within a second. Default 500. */
    readonly perSecond?: number;
    /** Networks that get large answers within a second; others get none. Default 10 000. */
    readonly networks?: number;
  };
  /**
   * Bytes of replies about services that are kept while nothing of these changes, for askers of the same. Default 16 MiB; 0:
   * none are kept.
   */
  readonly keptReplyBytes?: number;
  /** Most addresses in an answer, over any transport. Default 0: no limit. */
  readonly addressLimit?: number;
  /** Sets the TC bit on answers that were cut. Default false, as in Consul: the client takes the answer as complete. */
  readonly enableTruncate?: boolean;
  /** Answers with the `wan` addresses of services in other clusters. Default false. */
  readonly translateWanAddresses?: boolean;
  /** Adds the metadata of nodes as TXT records. Default true. */
  readonly nodeMetaTxt?: boolean;
  /** Open TCP connections. Default 256; when there are as many, a silent one makes room for a new one. */
  readonly maxTcpConnections?: number;
  /**
   * Open TCP connections of one source: an IPv4 address, or the /64 of an IPv6 one. Default 128; beyond this, new ones are closed.
   */
  readonly maxTcpConnectionsPerSource?: number;
  /** Bounds the connections of all listeners that it is passed to. Default: one of its own. */
  readonly connectionLimits?: ConnectionLimits;
  /** How long a TCP connection may take from one answer to the next, in milliseconds. Default 10 000. */
  readonly tcpTimeoutMs?: number;
  /** Where answers come from. Default: the host. */
  readonly source?: DnsSource;
  /** Limits answers to what callers without a token may read. Default: everything. */
  readonly authorizer?: Authorizer;
  readonly clock?: Clock;
  /** Shuffles answers. Default: the process's own. */
  readonly random?: Pick<Random, "fraction">;
  /** Default: silent. */
  readonly logger?: Logger;
  /** Counts refusals by limits. Pass one to everything in a process. Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

/** A DNS server that runs until it is disposed of. */
export interface DnsServer extends Closable {
  /** `host:port` it really listens on, over UDP and TCP. */
  readonly address: string;
}

/** Questions worked on at the same time; more over UDP are dropped, as a full socket buffer would. */
const MAX_IN_FLIGHT = 2_000;
const DEFAULT_KEPT_BYTES = 16 * 1024 * 1024;
/** A free port of UDP may be taken for TCP; then another is tried. */
const PORT_TRIES = 10;
/** Questions wait here while the process does something else. Default buffers hold fewer than three hundred. */
const UDP_BUFFER_BYTES = 1024 * 1024;

/**
 * Serves DNS for a host's own and imported services, as Consul 1.18 to 1.22 does. The host is only
 * read, and outlives the server.
 * @throws {TypeError} for an impossible option.
 * @throws {PeeringError} `invalid-argument` for an invalid address, `unavailable` when it cannot be bound.
 */
export async function dnsServer(host: PeeringHost, options: DnsServerOptions): Promise<DnsServer> {
  const clock = options.clock ?? systemClock;
  const logger = options.logger ?? silentLogger;
  const whole = options.source ?? hostSource(host);
  const source = options.authorizer === undefined ? whole : permittedSource(whole, options.authorizer);
  const resolver = new Resolver({
    source,
    settings: {
      domains: domainsOf(options),
      bareLabelIsPeer: !(options.strict ?? false),
      onlyPassing: options.onlyPassing ?? false,
      nodeTtl: seconds("nodeTtlSeconds", options.nodeTtlSeconds ?? 0),
      serviceTtls: serviceTtls(options.serviceTtlSeconds ?? {}),
      soa: soaOf(options.soa ?? {}),
      addressLimit: count("addressLimit", options.addressLimit ?? 0),
      translateWanAddresses: options.translateWanAddresses ?? false,
      nodeMetaTxt: options.nodeMetaTxt ?? true,
    },
    // Which instance comes first is no secret, and there may be thousands to shuffle.
    fraction: options.random === undefined ? Math.random : () => options.random?.fraction() ?? 0,
    wall: () => clock.wall(),
  });
  const incidents = options.incidents ?? new Incidents({ clock, logger });
  const tcpTimeoutMs = count("tcpTimeoutMs", options.tcpTimeoutMs ?? 10_000);
  const perSource = count("maxTcpConnectionsPerSource", options.maxTcpConnectionsPerSource ?? 128);
  const inAll = count("maxTcpConnections", options.maxTcpConnections ?? 256);
  const server = new Server({
    responder: new Responder({
      resolver,
      logger,
      udpAnswerLimit: Math.max(1, count("udpAnswerLimit", options.udpAnswerLimit ?? 3)),
      maxUdpBytes: udpBytes(options.maxUdpBytes ?? 1_232),
      enableTruncate: options.enableTruncate ?? false,
      largeAnswers: new LargeAnswers(largeAnswerLimits(options.largeAnswers ?? {}), clock, incidents),
      keptReplies: new KeptReplies(
        source,
        incidents,
        count("keptReplyBytes", options.keptReplyBytes ?? DEFAULT_KEPT_BYTES),
      ),
    }),
    clock,
    logger,
    incidents,
    tcpTimeoutMs,
    connectionLimits: options.connectionLimits ?? new ConnectionLimits({ clock, incidents }),
    tcpLimits: { perSource, inAll, firstRequestMs: tcpTimeoutMs, idleMs: tcpTimeoutMs },
  });
  await server.listen(options.listen);
  return server;
}

interface ServerParts {
  readonly responder: Responder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly incidents: Incidents;
  readonly tcpTimeoutMs: number;
  readonly connectionLimits: ConnectionLimits;
  readonly tcpLimits: ListenerLimits;
}

class Server implements DnsServer {
  readonly #parts: ServerParts;
  readonly #connections = new Set<TcpSocket>();
  readonly #work = new Set<Promise<void>>();
  #turn = Promise.resolve();
  #udp: UdpSocket | undefined;
  #tcp: TcpServer | undefined;
  #guard: ConnectionGuard | undefined;
  #address = "";
  #disposed: Promise<void> | undefined;

  constructor(parts: ServerParts) {
    this.#parts = parts;
  }

  get address(): string {
    return this.#address;
  }

  async listen(address: string): Promise<void> {
    const { host, port } = parseAddress(address);
    for (let attempt = 1; ; attempt++) {
      try {
        this.#udp = await bindUdp(host, port);
        this.#tcp = await bindTcp(host, this.#udp.address().port);
        break;
      } catch (error) {
        this.#udp?.close();
        this.#udp = undefined;
        if (port === 0 && attempt < PORT_TRIES) continue;
        throw new PeeringError("unavailable", `cannot listen on ${address}: ${errorText(error)}`, { cause: error });
      }
    }
    const bound = this.#udp.address();
    this.#address = joinHostPort(bound.address, bound.port);
    this.#serveUdp(this.#udp);
    this.#serveTcp(this.#tcp);
  }

  close(): Promise<void> {
    this.#disposed ??= this.#close();
    return this.#disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const { promise: closed, resolve } = deferred();
    this.#guard?.close();
    this.#udp?.close();
    this.#tcp?.close(() => resolve());
    for (const connection of this.#connections) connection.destroy();
    await Promise.all([...this.#work, this.#tcp === undefined ? undefined : closed]);
  }

  /** Whatever fails in `work` is its own business: it must not end the process. */
  #own(work: Promise<void>): void {
    const owned = work
      .catch((error: unknown) => this.#parts.logger.debug("DNS exchange failed", { error: errorText(error) }))
      .finally(() => this.#work.delete(owned));
    this.#work.add(owned);
  }

  #serveUdp(socket: UdpSocket): void {
    socket.on("error", (error) => this.#parts.logger.warn("DNS socket failed", { error: errorText(error) }));
    const onSent = (error: Error | null): void => {
      if (error !== null) this.#parts.logger.debug("DNS answer not sent", { error: errorText(error) });
    };
    socket.on("message", (message, from) => {
      if (this.#disposed !== undefined) return;
      if (this.#work.size >= MAX_IN_FLIGHT) {
        const limit = MAX_IN_FLIGHT;
        this.#parts.incidents.report("dns-question-dropped", "too many DNS questions at a time: one was dropped", {
          limit,
        });
        return;
      }
      const send = (reply: Buffer | undefined): void => {
        if (reply !== undefined && this.#disposed === undefined) socket.send(reply, from.port, from.address, onSent);
      };
      const origin = { transport: "udp", from: joinHostPort(from.address, from.port) } as const;
      const reply = this.#parts.responder.respond(message, origin);
      if (reply instanceof Promise) this.#own(reply.then(send));
      else send(reply);
    });
  }

  #serveTcp(server: TcpServer): void {
    const guard = this.#parts.connectionLimits.listener("dns", this.#parts.tcpLimits);
    this.#guard = guard;
    server.on("error", (error) => guard.failed(error));
    server.on("connection", (socket) => {
      if (this.#disposed !== undefined) {
        socket.destroy();
        return;
      }
      const connection = guard.admit(socket);
      if (connection === undefined) return;
      this.#connections.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => this.#connections.delete(socket));
      this.#own(this.#serveConnection(socket, connection));
    });
  }

  /** One question after the other, in the order they came. A client that is slow to ask or to take answers is cut off. */
  async #serveConnection(socket: TcpSocket, connection: Connection): Promise<void> {
    try {
      let pending: Buffer = Buffer.alloc(0);
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
        while (pending.length >= 2) {
          const length = pending.readUInt16BE(0);
          // A stream that is out of step cannot be put right.
          if (length > MAX_QUERY_BYTES) return;
          if (pending.length < 2 + length) break;
          await this.#nextTurn();
          if (!(await this.#answer(socket, pending.subarray(2, 2 + length), connection))) return;
          pending = pending.subarray(2 + length);
        }
        // Copied, so that a few bytes do not keep a whole chunk alive.
        pending = Buffer.from(pending);
      }
    } finally {
      socket.destroy();
    }
  }

  /** Over TCP one question is answered in a turn of the event loop, as a client may send thousands at once. */
  #nextTurn(): Promise<void> {
    this.#turn = this.#turn.then(() => setImmediate());
    return this.#turn;
  }

  /** False: there is no answer to that. */
  async #answer(socket: TcpSocket, question: Buffer, connection: Connection): Promise<boolean> {
    const { clock, responder, tcpTimeoutMs } = this.#parts;
    const deadline = clock.after(tcpTimeoutMs, () => socket.destroy());
    const answered = connection.request();
    try {
      const from = joinHostPort(socket.remoteAddress ?? "", socket.remotePort ?? 0);
      const reply = await responder.respond(question, { transport: "tcp", from });
      if (reply === undefined) return false;
      await write(socket, reply);
      return true;
    } finally {
      answered();
      deadline.cancel();
    }
  }
}

async function bindUdp(host: string, port: number): Promise<UdpSocket> {
  const type = isIPv6(host) ? "udp6" : "udp4";
  const socket = createSocket({ type, recvBufferSize: UDP_BUFFER_BYTES, lookup: lookUp });
  try {
    const listening = once(socket, "listening");
    socket.bind(port, host === "" ? undefined : host);
    await listening;
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** Node looks up the address of every answer that is sent, which here is an IP already. */
const lookUp: NonNullable<SocketOptions["lookup"]> = (host, options, callback) => {
  const family = isIP(host);
  if (family === 0) lookup(host, options, callback);
  else callback(null, host, family);
};

async function bindTcp(host: string, port: number): Promise<TcpServer> {
  // A client may close its side after its question and still read the answer.
  const server = createTcpServer({ allowHalfOpen: true, noDelay: true });
  server.listen(port, host === "" ? "0.0.0.0" : host);
  await once(server, "listening");
  return server;
}

/** Resolves when the kernel has taken it. */
function write(socket: TcpSocket, reply: Buffer): Promise<void> {
  const framed = Buffer.alloc(2 + reply.length);
  framed.writeUInt16BE(reply.length, 0);
  reply.copy(framed, 2);
  return new Promise((resolve, reject) => {
    socket.write(framed, (error) => (error ? reject(error) : resolve()));
  });
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

function domainsOf({ domain, altDomain }: DnsServerOptions): readonly [string, ...string[]] {
  const own = domainOf("domain", domain ?? "consul");
  return altDomain === undefined || altDomain === "" ? [own] : [own, domainOf("altDomain", altDomain)];
}

function domainOf(option: string, value: string): string {
  const domain = nameKey(value.replace(/\.$/, ""));
  // Names are built below it: with a longer one there would be no room for them.
  if (!isEncodable(domain) || domain.length > 128) throw new TypeError(`${option} is no domain name: ${value}`);
  return domain;
}

function serviceTtls(ttls: Readonly<Record<string, number>>): Readonly<Record<string, number>> {
  for (const [service, ttl] of Object.entries(ttls)) seconds(`serviceTtlSeconds of ${service}`, ttl);
  return ttls;
}

function soaOf(soa: NonNullable<DnsServerOptions["soa"]>): {
  readonly refresh: number;
  readonly retry: number;
  readonly expire: number;
  readonly minTtl: number;
} {
  return {
    refresh: seconds("soa.refresh", soa.refresh ?? 3_600),
    retry: seconds("soa.retry", soa.retry ?? 600),
    expire: seconds("soa.expire", soa.expire ?? 86_400),
    minTtl: seconds("soa.minTtl", soa.minTtl ?? 0),
  };
}

function udpBytes(bytes: number): number {
  if (count("maxUdpBytes", bytes) >= UDP_BYTES && bytes <= UDP_MOST_BYTES) return bytes;
  throw new TypeError(`maxUdpBytes must be from ${UDP_BYTES} to ${UDP_MOST_BYTES}: ${bytes}`);
}

function largeAnswerLimits(limits: NonNullable<DnsServerOptions["largeAnswers"]>): LargeAnswerLimits {
  return {
    factor: count("largeAnswers.factor", limits.factor ?? 3),
    perSecond: count("largeAnswers.perSecond", limits.perSecond ?? 500),
    networks: count("largeAnswers.networks", limits.networks ?? 10_000),
  };
}

function seconds(option: string, value: number): number {
  if (count(option, value) > 2_147_483_647) throw new TypeError(`${option} does not fit a TTL: ${value}`);
  return value;
}

function count(option: string, value: number): number {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new TypeError(`${option} must be a whole number from 0 on: ${value}`);
  return value;
}
