/**
 * Clusters that reach each other over gRPC, as Consul's do: TLS over HTTP/2.
 *
 * @module
 */

import type { ClientHttp2Stream } from "node:http2";
import { isIP } from "node:net";
import type { Closable } from "../base/closable.js";
import { type Logger, silentLogger } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { StatusCode } from "../wire/status.js";
import { type ClientConnection, connectTo } from "./client-connection.js";
import { type ConnectRouter, unaryCalls } from "./connect.js";
import { ConnectionLimits } from "./connection-limits.js";
import { callExchangeSecret } from "./exchange.js";
import { STREAM_RESOURCES, startServer } from "./grpc-server.js";
import { ClientGrpcStream } from "./grpc-stream.js";
import type { KeepaliveOptions } from "./keepalive.js";
import { KeptConnections } from "./kept-connections.js";
import type {
  AcceptHandler,
  DialTarget,
  ExchangeSecretRequest,
  Listener,
  ReplicationStream,
  ServerIdentity,
  Transport,
} from "./transport.js";
import { RootsReader } from "./trusted-roots.js";

export type { KeepaliveOptions } from "./keepalive.js";

/** Sizes and times of a gRPC transport. */
export interface GrpcLimits {
  /** Largest message taken from a dialer, in bytes. Default 50 MiB, as Consul 1.14 and later. */
  readonly maxReceiveFromDialerBytes: number;
  /**
   * Largest message taken from an acceptor, in bytes. Default 50 MiB. Consul's acceptors send whatever there is, and its
   * dialers, which take 8 MiB (1.14.2 and later), lose the whole stream to one service above that, again and again (D-64).
   */
  readonly maxReceiveFromAcceptorBytes: number;
  /** Bound on a connection attempt, TCP, TLS and HTTP/2 settings together, in milliseconds. Default 20 000, as grpc-go. */
  readonly connectTimeoutMs: number;
  /** How long closing a stream waits for a peer that takes nothing any more, in milliseconds. Default 5 000. */
  readonly closeGraceMs: number;
  /** How long the TLS handshake of a dialer may take, in milliseconds. Default 10 000; then its connection is closed. */
  readonly handshakeTimeoutMs: number;
  /**
   * How long a connection may be without a stream that was authorised, in milliseconds, its handshake included. Default 30 000;
   * then it is closed. Calls of further services (`routes`) keep a connection open, too.
   */
  readonly unauthorizedTimeoutMs: number;
  /**
   * Connections of one source without a stream that was authorised. A source is an IPv4 address, or the /64 of an IPv6 one.
   * Default 256; beyond this, new ones are closed.
   */
  readonly unauthorizedConnectionsPerSource: number;
  /** The same for all sources together. Default 1 024; beyond this, a new one takes the place of an older one. */
  readonly unauthorizedConnections: number;
  /**
   * Largest message of a caller that was not authorised, in bytes: an `Open`, or what exchanges a secret. Default 16 KiB;
   * beyond this and the next: RESOURCE_EXHAUSTED.
   */
  readonly unauthorizedMessageBytes: number;
  /** All bytes that such a caller may send on one stream: an `Open` and the messages right behind it. Default 32 KiB. */
  readonly unauthorizedStreamBytes: number;
  /**
   * Calls of peers that are open on one connection and were not authorised. Default 4, of which a dialer needs one; beyond this and
   * the next the connection is closed. So all that strangers can have held is the product of this, of
   * `unauthorizedConnections`, and of `unauthorizedStreamBytes`: 128 MiB by default, 32 MiB from one source.
   */
  readonly unauthorizedStreamsPerConnection: number;
  /** Calls of peers, and calls that are refused, on one connection in all. Default 100. */
  readonly unauthorizedCallsPerConnection: number;
}

export interface GrpcTransportOptions {
  /** `host:port` to accept peers on, with TLS. Port 0 takes a free one. Default: none. */
  readonly listen?: string;
  /**
   * `host:port` to accept peers on in plaintext. Insecure: a program that can listen on the network reads what is replicated and
   * the secrets of streams. Only for dialers of Consul 1.13 that were given a token without CA; with the tokens of a host
   * they use TLS. Default: none.
   */
  readonly plaintextListen?: string;
  readonly limits?: Partial<GrpcLimits>;
  /** PINGs of a dialer. Default 30 s of silence and 10 s for the answer, as Consul. Below 15 s Consul's servers hang up. */
  readonly dialerKeepalive?: KeepaliveOptions;
  /** PINGs of an acceptor. Default 30 s of silence and 20 s for the answer, as Consul 1.16.3 and later. */
  readonly acceptorKeepalive?: KeepaliveOptions;
  /**
   * Further gRPC services of the program on the same listeners. Peers do not reach them: under the peering server name
   * they are answered PERMISSION_DENIED, as by Consul.
   */
  readonly routes?: (router: ConnectRouter) => void;
  /** Bounds the connections of all listeners that it is passed to. Default: one of its own. */
  readonly connectionLimits?: ConnectionLimits;
  /** Default: silent. */
  readonly logger?: Logger;
  /** Counts refusals by limits. Pass one to everything in a process. Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

const defaultLimits: GrpcLimits = {
  maxReceiveFromDialerBytes: 50 * 1024 * 1024,
  maxReceiveFromAcceptorBytes: 50 * 1024 * 1024,
  connectTimeoutMs: 20_000,
  closeGraceMs: 5_000,
  handshakeTimeoutMs: 10_000,
  unauthorizedTimeoutMs: 30_000,
  unauthorizedConnectionsPerSource: 256,
  unauthorizedConnections: 1_024,
  unauthorizedMessageBytes: 16 * 1024,
  unauthorizedStreamBytes: 32 * 1024,
  unauthorizedStreamsPerConnection: 4,
  unauthorizedCallsPerConnection: 100,
};
/** How long a connection is kept on which a further service was called before, and is not now. */
const IDLE_MS = 120_000;

/** A transport over gRPC. Without an address to listen on it only dials. */
export function grpcTransport(options: GrpcTransportOptions = {}): Transport & Closable {
  return new GrpcTransport(options);
}

/**
 * Node makes some things at their first use, which takes milliseconds: the expression by which every connection tells addresses from
 * names, in two steps, and the headers of the exchange. Better at the start than within the first call.
 */
function prepare(): void {
  setImmediate(() => [isIP("localhost"), isIP("localhost"), new Headers()]).unref();
}

class GrpcTransport implements Transport, Closable {
  readonly #options: GrpcTransportOptions;
  readonly #limits: GrpcLimits;
  readonly #listeners = new Set<Listener>();
  readonly #connections = new Set<ClientConnection>();
  readonly #attempts = new Set<AbortController>();
  readonly #incidents: Incidents;
  readonly #roots = new RootsReader();
  readonly #kept = new KeptConnections<ClientConnection>();
  #disposed: PeeringError | undefined;

  constructor(options: GrpcTransportOptions) {
    this.#options = options;
    this.#incidents = options.incidents ?? new Incidents({ logger: options.logger ?? silentLogger });
    this.#limits = { ...defaultLimits, ...options.limits };
    prepare();
  }

  async listen(handler: AcceptHandler, identity: ServerIdentity): Promise<Listener | undefined> {
    if (this.#disposed !== undefined) throw this.#disposed;
    const { listen, plaintextListen, routes } = this.#options;
    const { maxReceiveFromDialerBytes: maxReceiveBytes, closeGraceMs, handshakeTimeoutMs } = this.#limits;
    const incidents = this.#incidents;
    const connectionLimits = this.#options.connectionLimits ?? new ConnectionLimits({ incidents });
    const guard = connectionLimits.listener("peering", {
      perSource: this.#limits.unauthorizedConnectionsPerSource,
      inAll: this.#limits.unauthorizedConnections,
      firstRequestMs: this.#limits.unauthorizedTimeoutMs,
      idleMs: IDLE_MS,
    });
    const serverOptions = {
      handler,
      unary: unaryCalls(routes, maxReceiveBytes),
      maxReceiveBytes,
      unauthorized: this.#limits,
      handshakeTimeoutMs,
      guard,
      incidents,
      closeGraceMs,
      keepalive: this.#options.acceptorKeepalive ?? { intervalMs: 30_000, timeoutMs: 20_000 },
      logger: this.#options.logger ?? silentLogger,
    };
    const servers: Listener[] = [];
    const disposeAll = async (): Promise<void> => {
      guard.close();
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    };
    try {
      if (listen !== undefined) servers.push(await startServer(listen, identity, serverOptions));
      if (plaintextListen !== undefined) servers.push(await startServer(plaintextListen, undefined, serverOptions));
    } catch (error) {
      await disposeAll();
      throw error;
    }
    const [first] = servers;
    if (first === undefined) {
      guard.close();
      return undefined;
    }
    const listener: Listener = {
      address: first.address,
      [Symbol.asyncDispose]: async () => {
        await disposeAll();
        this.#listeners.delete(listener);
      },
    };
    this.#listeners.add(listener);
    if (this.#disposed !== undefined) await listener[Symbol.asyncDispose]();
    return listener;
  }

  async exchangeSecret(
    target: DialTarget,
    request: ExchangeSecretRequest,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<{ readonly streamSecret: string }> {
    const { timeoutMs, signal } = options;
    const timeout = new PeeringError("timeout", `no answer from ${target.address} within ${timeoutMs} ms`, {
      status: StatusCode.DeadlineExceeded,
    });
    // One bound for everything: a reset before the headers would otherwise leave the call waiting for ever.
    const bound = new AbortController();
    const timer = setTimeout(() => bound.abort(timeout), timeoutMs);
    const abort = (): void => bound.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
    let connection: ClientConnection | undefined;
    try {
      connection = await this.#connect(target, bound.signal, undefined);
      const answer = await callExchangeSecret(connection, request, bound.signal);
      if (this.#disposed === undefined) this.#kept.keep(target, connection);
      return answer;
    } catch (error) {
      // Nothing depends on its goodbye; disposal waits for it.
      void connection?.close();
      throw bound.signal.aborted ? bound.signal.reason : error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }

  async openStream(target: DialTarget, { signal }: { readonly signal: AbortSignal }): Promise<ReplicationStream> {
    const keepalive = this.#options.dialerKeepalive ?? { intervalMs: 30_000, timeoutMs: 10_000 };
    const connection = this.#takeKept(target, signal, keepalive) ?? (await this.#connect(target, signal, keepalive));
    try {
      return this.#call(connection, STREAM_RESOURCES, this.#limits.maxReceiveFromAcceptorBytes, new AbortController());
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    const reason = new PeeringError("closed", "the transport is closed", { status: StatusCode.Canceled });
    this.#disposed ??= reason;
    this.#kept.clear();
    for (const attempt of this.#attempts) attempt.abort(reason);
    await Promise.all([
      ...[...this.#listeners].map((listener) => listener[Symbol.asyncDispose]()),
      ...[...this.#connections].map((connection) => connection.abort(reason)),
    ]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The connection over which the secret of this stream was exchanged, if there is one still. */
  #takeKept(target: DialTarget, signal: AbortSignal, keepalive: KeepaliveOptions): ClientConnection | undefined {
    if (this.#disposed !== undefined) throw this.#disposed;
    signal.throwIfAborted();
    const connection = this.#kept.take(target);
    connection?.carryStream(keepalive);
    return connection;
  }

  /** Opens a call, which owns the connection from then on. `cancellation` ends it early. */
  #call(
    connection: ClientConnection,
    path: string,
    maxReceiveBytes: number,
    cancellation: AbortController,
  ): ClientGrpcStream {
    let stream: ClientHttp2Stream;
    try {
      stream = connection.session.request(
        {
          ":method": "POST",
          ":scheme": connection.scheme,
          ":authority": connection.authority,
          ":path": path,
          "content-type": "application/grpc",
          te: "trailers",
          "user-agent": "peerage",
        },
        { endStream: false, signal: cancellation.signal },
      );
    } catch (error) {
      // The acceptor may have hung up in the meantime; a request on such a session throws.
      throw connection.failure() ?? error;
    }
    return new ClientGrpcStream(
      stream,
      {
        remoteAddress: connection.remoteAddress,
        maxReceiveBytes,
        closeGraceMs: this.#limits.closeGraceMs,
        connectionFailure: () => connection.failure(),
      },
      { cancel: () => cancellation.abort(), close: () => connection.close() },
    );
  }

  async #connect(
    target: DialTarget,
    signal: AbortSignal,
    keepalive: KeepaliveOptions | undefined,
  ): Promise<ClientConnection> {
    if (this.#disposed !== undefined) throw this.#disposed;
    signal.throwIfAborted();
    const attempt = new AbortController();
    const abort = (): void => attempt.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    this.#attempts.add(attempt);
    try {
      const timeoutMs = this.#limits.connectTimeoutMs;
      const connection = await connectTo(target, {
        timeoutMs,
        keepalive,
        roots: this.#roots,
        incidents: this.#incidents,
        signal: attempt.signal,
      });
      this.#connections.add(connection);
      connection.session.once("close", () => this.#connections.delete(connection));
      return connection;
    } finally {
      signal.removeEventListener("abort", abort);
      this.#attempts.delete(attempt);
    }
  }
}
