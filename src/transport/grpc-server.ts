import {
  constants,
  createSecureServer,
  createServer,
  type Http2SecureServer,
  type Http2Server,
  type Http2Session,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { type Logger, systemClock } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import type { Incidents } from "../base/incidents.js";
import { type Status, StatusCode } from "../wire/status.js";
import { parseAddress } from "./address.js";
import { bind } from "./bind.js";
import type { UnaryCalls } from "./connect.js";
import { type Connection, type ConnectionGuard, hangUp } from "./connection-limits.js";
import { serveExchangeSecret } from "./exchange.js";
import { isGrpcContentType } from "./grpc-status.js";
import { respondTrailersOnly, ServerGrpcStream } from "./grpc-stream.js";
import { type KeepaliveOptions, keepAlive } from "./keepalive.js";
import { closeAfterResets } from "./resets.js";
import {
  areHeadersTooLarge,
  isFlood,
  MAX_HEADER_BYTES,
  sessionOptions,
  UNAUTHORIZED_WINDOW_BYTES,
  WINDOW_BYTES,
} from "./session-options.js";
import type { AcceptHandler, Listener, ServerIdentity } from "./transport.js";

const PEER_STREAM_SERVICE = "hashicorp.consul.internal.peerstream.PeerStreamService";
export const STREAM_RESOURCES: string = `/${PEER_STREAM_SERVICE}/StreamResources`;
const EXCHANGE_SECRET: string = `/${PEER_STREAM_SERVICE}/ExchangeSecret`;
/** A dialer uses a connection for one stream; the others are for the program's own services. */
const MAX_CONCURRENT_STREAMS = 100;
const FLOODED = "a connection sent too many frames of HTTP/2: it was closed";
/** How long a disposed listener waits for its sockets to say goodbye. */
const CLOSE_GRACE_MS = 1000;

type AnyServer = Http2Server | Http2SecureServer;

/** Bounds on callers that are not authorised. Each is explained at {@link GrpcLimits}. */
export interface UnauthorizedLimits {
  readonly unauthorizedMessageBytes: number;
  readonly unauthorizedStreamBytes: number;
  readonly unauthorizedStreamsPerConnection: number;
  readonly unauthorizedCallsPerConnection: number;
}

export interface GrpcServerOptions {
  readonly handler: AcceptHandler;
  readonly unary: UnaryCalls;
  readonly maxReceiveBytes: number;
  readonly unauthorized: UnauthorizedLimits;
  readonly handshakeTimeoutMs: number;
  readonly guard: ConnectionGuard;
  readonly incidents: Incidents;
  readonly keepalive: KeepaliveOptions;
  readonly closeGraceMs: number;
  readonly logger: Logger;
}

/**
 * Serves one address.
 * @param identity - undefined: plaintext, HTTP/2 with prior knowledge.
 * @throws {PeeringError} `unavailable` when the address cannot be bound, `invalid-argument` for an invalid one.
 */
export async function startServer(
  address: string,
  identity: ServerIdentity | undefined,
  options: GrpcServerOptions,
): Promise<Listener> {
  const { host } = parseAddress(address);
  const settings = {
    ...sessionOptions,
    settings: {
      ...sessionOptions.settings,
      maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
      // Raised once a peer is authorised: until then it has little to say.
      initialWindowSize: UNAUTHORIZED_WINDOW_BYTES,
    },
  };
  const server =
    identity === undefined
      ? createServer(settings)
      : // `ALPNProtocols` is h2 alone; a client that offers no protocol is refused, and every gRPC client offers h2.
        createSecureServer({ ...settings, minVersion: "TLSv1.2", handshakeTimeout: options.handshakeTimeoutMs });
  const connections = new Map<string, ServerConnection>();
  const sessions = new Map<Http2Session, ServerConnection>();
  const streams = new Set<ServerHttp2Stream>();
  const refresh =
    identity === undefined ? () => {} : certificateRefresher(server as Http2SecureServer, identity, options.incidents);
  // The listeners that take a connection over, for a handshake or a session, run after our own check of it.
  const take = server.listeners("connection");
  server.removeAllListeners("connection");
  server.on("connection", (socket: Socket) => {
    const known = options.guard.admit(socket, () => hangUp(socket, connection?.session));
    if (known === undefined) return;
    const key = keyOf(socket);
    const connection: ServerConnection = { socket, known, session: undefined, secured: () => {}, waiting: 0, calls: 0 };
    connections.set(key, connection);
    socket.once("close", () => connections.delete(key));
    const begin = (): void => {
      // Each handshake sees the certificate of now, with any SNI and with none.
      refresh();
      for (const each of take) each.call(server, socket);
    };
    if (identity === undefined) begin();
    else connection.secured = known.handshake(begin);
  });
  server.on("session", (session: ServerHttp2Session) => {
    const connection = connections.get(keyOf(session.socket));
    // It has gone between its handshake and now.
    if (connection === undefined) return session.destroy();
    connection.secured();
    connection.session = session;
    sessions.set(session, connection);
    session.once("close", () => sessions.delete(session));
    startSession(session, connection.socket, options);
  });
  server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    streams.add(stream);
    stream.once("close", () => streams.delete(stream));
    // Without a listener, the reset of a stream that has no handler yet would end the process.
    stream.on("error", () => {});
    try {
      // A client that resets at once may already have taken its session with it.
      const connection = stream.session === undefined ? undefined : sessions.get(stream.session);
      if (connection !== undefined) serve(stream, headers, identity?.serverName, connection, options);
    } catch (error) {
      // The peer may be gone between its request and our answer.
      options.logger.debug("a call could not be answered", { error: errorText(error) });
      stream.destroy();
    }
  });
  reportFailures(server, options);
  server.on("error", (error) => options.guard.failed(error));

  const bound = await bind(server, address);
  let disposed: Promise<void> | undefined;
  return {
    address: joinHostPort(host === "" ? bound.address : host, bound.port),
    [Symbol.asyncDispose]: () => {
      disposed ??= stop(server, streams, [...connections.values()]);
      return disposed;
    },
  };
}

/** Reports connections that fail before they carry a call. Node closes them by itself. */
function reportFailures(server: AnyServer, { incidents, logger, handshakeTimeoutMs }: GrpcServerOptions): void {
  server.on("tlsClientError", (error: unknown) => {
    logger.debug("a handshake failed", { error: errorText(error) });
    if (!(error instanceof Error && "code" in error) || error.code !== "ERR_TLS_HANDSHAKE_TIMEOUT") return;
    const message = "a TLS handshake took too long: its connection was closed";
    incidents.report("handshake-timeout", message, { limitMs: handshakeTimeoutMs });
  });
  server.on("sessionError", (error: unknown) => {
    logger.debug("a connection failed", { error: errorText(error) });
    if (!isFlood(error)) return;
    incidents.report("session-flooded", FLOODED, { listener: "peering", error: errorText(error) });
  });
}

async function stop(
  server: AnyServer,
  streams: ReadonlySet<ServerHttp2Stream>,
  connections: readonly ServerConnection[],
): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const timer = setTimeout(() => {
    for (const { session, socket } of connections) {
      session?.destroy();
      socket.destroy();
    }
  }, CLOSE_GRACE_MS);
  timer.unref();
  // A stream that was ended is given the time to say so; any other is cancelled.
  for (const stream of streams) if (!stream.writableEnded) stream.close(constants.NGHTTP2_CANCEL);
  for (const { session, socket } of connections) {
    // Those still in their handshake have nothing to say.
    if (session === undefined || session.destroyed) socket.destroy();
    else session.close();
  }
  await closed;
  clearTimeout(timer);
}

/** Gives the server the certificate of now. Without one the handshake fails, and the dialer tries again. */
function certificateRefresher(server: Http2SecureServer, identity: ServerIdentity, incidents: Incidents): () => void {
  let used: string | undefined;
  return () => {
    try {
      const { certificateChainPem, privateKeyPem } = identity.current();
      if (used === certificateChainPem) return;
      server.setSecureContext({ cert: certificateChainPem, key: privateKeyPem, minVersion: "TLSv1.2" });
      used = certificateChainPem;
    } catch (error) {
      const message = "there is no server certificate: every handshake fails";
      incidents.report("no-server-certificate", message, { error: errorText(error) });
      server.setSecureContext({ minVersion: "TLSv1.2" });
      used = undefined;
    }
  };
}

interface ServerConnection {
  /** The socket under the session, which outlives it. */
  readonly socket: Socket;
  readonly known: Connection;
  session: ServerHttp2Session | undefined;
  /** Its handshake is over. */
  secured: () => void;
  /** Open calls of peers that are not authorised yet. */
  waiting: number;
  /** Calls so far but those of the program's own services. */
  calls: number;
}

/** Tells connections to one listener apart. */
function keyOf({ remoteAddress, remotePort }: Socket | TLSSocket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** @param socket - under the session, which it outlives. */
function startSession(session: ServerHttp2Session, socket: Socket, options: GrpcServerOptions): void {
  session.on("error", (error) => options.logger.debug("connection lost", { error: errorText(error) }));
  const connection = session.socket;
  const end = (): void => {
    session.destroy();
    socket.destroy();
  };
  keepAlive(session, options.keepalive, () => connection.bytesRead, end);
  closeAfterResets(session, systemClock, () => {
    options.incidents.report("session-flooded", FLOODED, { listener: "peering", error: "it reset too many streams" });
    end();
  });
}

const HEADERS_TOO_LARGE: Status & { readonly http: number } = {
  http: 431,
  code: StatusCode.ResourceExhausted,
  message: `the headers are larger than ${MAX_HEADER_BYTES} bytes`,
};

/** Answers one call. */
function serve(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  peeringServerName: string | undefined,
  connection: ServerConnection,
  options: GrpcServerOptions,
): void {
  const { session, known } = connection;
  if (session === undefined || session.destroyed) return;
  const path = headers[":path"] ?? "";
  const tooLarge = areHeadersTooLarge(headers);
  if (tooLarge) {
    const fields = { source: session.socket.remoteAddress ?? "", limit: MAX_HEADER_BYTES };
    options.incidents.report("headers-too-large", "a call had too large headers: it was refused", fields);
  }
  const refusal = tooLarge ? HEADERS_TOO_LARGE : refuse(headers, path, session, peeringServerName, options.unary);
  if (refusal === undefined && path !== STREAM_RESOURCES && path !== EXCHANGE_SECRET) {
    const closed = known.stream();
    if (closed === undefined) {
      stream.close(constants.NGHTTP2_REFUSED_STREAM);
      return;
    }
    stream.once("close", closed).once("close", known.request());
    options.unary.serve(path, stream, headers).catch((error: unknown) => {
      options.logger.debug("a call failed", { path, error: errorText(error) });
      stream.destroy();
    });
    return;
  }
  connection.calls++;
  const overLimit = exhausted(connection, options);
  const answer = refusal ?? overLimit;
  if (answer !== undefined) {
    respondTrailersOnly(stream, answer, answer.http);
    if (overLimit !== undefined) hangUp(connection.socket, session);
    return;
  }
  servePeer(stream, path, session, connection, options);
}

/** Serves one of the two calls of peers. */
function servePeer(
  stream: ServerHttp2Stream,
  path: string,
  session: ServerHttp2Session,
  connection: ServerConnection,
  options: GrpcServerOptions,
): void {
  const { remoteAddress = "", remotePort = 0 } = session.socket;
  const { unauthorizedMessageBytes, unauthorizedStreamBytes } = options.unauthorized;
  connection.waiting++;
  let waits = true;
  const waitsNoMore = (): void => {
    if (waits) connection.waiting--;
    waits = false;
  };
  stream.once("close", waitsNoMore);
  const call = new ServerGrpcStream(stream, {
    remoteAddress: joinHostPort(remoteAddress, remotePort),
    maxReceiveBytes: options.maxReceiveBytes,
    closeGraceMs: options.closeGraceMs,
    connectionFailure: () =>
      session.destroyed
        ? new PeeringError("unavailable", "the connection was lost", { status: StatusCode.Unavailable })
        : undefined,
    untilAuthorized: {
      maxMessageBytes: unauthorizedMessageBytes,
      maxBytes: unauthorizedStreamBytes,
      refused: (error) => {
        const source = remoteAddress;
        const message = "an unauthorised caller sent too much: its call was refused";
        options.incidents.report("unauthorized-bytes", message, { source, error: error.message });
      },
      // The first answer: on a stream only a peer gets one.
      authorized: () => {
        if (path === EXCHANGE_SECRET || stream.destroyed || session.destroyed) return;
        waitsNoMore();
        stream.once("close", connection.known.authorized());
        session.setLocalWindowSize(WINDOW_BYTES);
        session.settings(sessionOptions.settings ?? {});
      },
    },
  });
  if (path === EXCHANGE_SECRET) {
    void serveExchangeSecret(call, options.handler);
    return;
  }
  // A dialer uses a connection for one stream. Consul's waits for its end even after the status (D-2).
  stream.once("close", () => session.destroyed || session.close());
  options.handler.stream(call);
}

/** The answer to a connection that makes, or has open, more calls than it may before it is authorised. */
function exhausted(
  { waiting, calls }: ServerConnection,
  { unauthorized, incidents }: GrpcServerOptions,
): (Status & { readonly http: number }) | undefined {
  const { unauthorizedStreamsPerConnection, unauthorizedCallsPerConnection } = unauthorized;
  if (waiting < unauthorizedStreamsPerConnection && calls <= unauthorizedCallsPerConnection) return undefined;
  const message = "too many calls on an unauthorised connection: it was closed";
  incidents.report("unauthorized-calls", message, { waiting, calls });
  return { http: 200, code: StatusCode.ResourceExhausted, message: "too many calls before one was authorized" };
}

/** The status with which a call is refused before anything else happens, as grpc-go and Consul's servers do; undefined: served. */
function refuse(
  headers: IncomingHttpHeaders,
  path: string,
  session: Http2Session,
  peeringServerName: string | undefined,
  unary: UnaryCalls,
): (Status & { readonly http: number }) | undefined {
  const method = headers[":method"] ?? "";
  if (method !== "POST") {
    const message = `http2Server.operateHeaders parsed a :method field: ${JSON.stringify(method)} which should be POST`;
    return { http: 405, code: StatusCode.Internal, message };
  }
  const contentType = headers["content-type"] ?? "";
  if (!isGrpcContentType(contentType)) {
    const message = `invalid gRPC request content-type ${JSON.stringify(contentType)}`;
    return { http: 415, code: StatusCode.InvalidArgument, message };
  }
  if (path === STREAM_RESOURCES || path === EXCHANGE_SECRET) return undefined;
  const slash = path.lastIndexOf("/");
  if (!path.startsWith("/") || slash < 1) {
    return { http: 200, code: StatusCode.Unimplemented, message: `malformed method name: ${JSON.stringify(path)}` };
  }
  const service = path.slice(1, slash);
  if (service !== PEER_STREAM_SERVICE && !unary.services.has(service)) {
    return { http: 200, code: StatusCode.Unimplemented, message: `unknown service ${service}` };
  }
  if (!unary.has(path)) {
    const message = `unknown method ${path.slice(slash + 1)} for service ${service}`;
    return { http: 200, code: StatusCode.Unimplemented, message };
  }
  const { socket } = session;
  const restricted = socket instanceof TLSSocket && Reflect.get(socket, "servername") === peeringServerName;
  if (restricted && service !== PEER_STREAM_SERVICE) {
    const message = "invalid permissions to the specified endpoint";
    return { http: 200, code: StatusCode.PermissionDenied, message };
  }
  return undefined;
}
