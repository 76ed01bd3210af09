import { once } from "node:events";
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
import type { Logger } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import { type Status, StatusCode } from "../wire/status.js";
import { formatAddress, parseAddress } from "./address.js";
import type { UnaryCalls } from "./connect.js";
import { serveExchangeSecret } from "./exchange.js";
import { isGrpcContentType } from "./grpc-status.js";
import { respondTrailersOnly, ServerGrpcStream } from "./grpc-stream.js";
import { type KeepaliveOptions, keepAlive } from "./keepalive.js";
import { sessionOptions, WINDOW_BYTES } from "./session-options.js";
import type { AcceptHandler, Listener, ServerIdentity } from "./transport.js";

const PEER_STREAM_SERVICE = "hashicorp.consul.internal.peerstream.PeerStreamService";
export const STREAM_RESOURCES: string = `/${PEER_STREAM_SERVICE}/StreamResources`;
export const EXCHANGE_SECRET: string = `/${PEER_STREAM_SERVICE}/ExchangeSecret`;
/** As Consul's servers. */
const MAX_CONCURRENT_STREAMS = 2048;
const HANDSHAKE_TIMEOUT_MS = 20_000;
/** Two ids, with room to spare. */
const EXCHANGE_BYTES = 64 * 1024;
/** Before the first answer, which only a peer gets. A dialer has an `Open` and four subscriptions to say. */
const OPENING_BYTES = 1024 * 1024;
/** How long a disposed listener waits for its sockets to say goodbye. */
const CLOSE_GRACE_MS = 1000;

type AnyServer = Http2Server | Http2SecureServer;

export interface GrpcServerOptions {
  readonly handler: AcceptHandler;
  readonly unary: UnaryCalls;
  readonly maxReceiveBytes: number;
  readonly keepalive: KeepaliveOptions;
  readonly closeGraceMs: number;
  readonly logger: Logger;
}

/**
 * Serves one address.
 * @param identity - undefined: plaintext, HTTP/2 with prior knowledge.
 * @throws {PeeringError} `unavailable` when the address cannot be bound, `invalid-argument` for one that is none.
 */
export async function startServer(
  address: string,
  identity: ServerIdentity | undefined,
  options: GrpcServerOptions,
): Promise<Listener> {
  const { host, port } = parseAddress(address);
  const settings = {
    ...sessionOptions,
    settings: { ...sessionOptions.settings, maxConcurrentStreams: MAX_CONCURRENT_STREAMS },
  };
  const server =
    identity === undefined
      ? createServer(settings)
      : // `ALPNProtocols` is h2 alone; a client that offers none is refused, which no gRPC client does.
        createSecureServer({ ...settings, minVersion: "TLSv1.2", handshakeTimeout: HANDSHAKE_TIMEOUT_MS });
  const sockets = new Map<string, Socket>();
  const sessions = new Set<ServerHttp2Session>();
  const streams = new Set<ServerHttp2Stream>();
  if (identity !== undefined) {
    const refresh = certificateRefresher(server as Http2SecureServer, identity, options.logger);
    // Before the listener that starts the handshake: each one sees the certificate of now, with any SNI and with none.
    server.prependListener("connection", refresh);
  }
  // Before the listener that makes a session of it, which asks for it.
  server.prependListener("connection", (socket: Socket) => {
    const source = sourceOf(socket);
    sockets.set(source, socket);
    socket.once("close", () => sockets.delete(source));
  });
  server.on("session", (session: ServerHttp2Session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    startSession(session, sockets.get(sourceOf(session.socket)), options);
  });
  server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    streams.add(stream);
    stream.once("close", () => streams.delete(stream));
    // Unheard, the reset of a stream nobody has taken over yet would end the process.
    stream.on("error", () => {});
    try {
      serve(stream, headers, identity?.serverName, options);
    } catch (error) {
      // The peer may be gone between its request and our answer.
      options.logger.debug("a call could not be answered", { error: errorText(error) });
      stream.destroy();
    }
  });
  for (const event of ["sessionError", "tlsClientError", "clientError"]) {
    server.on(event, (error: unknown) => options.logger.debug("connection failed", { event, error: errorText(error) }));
  }
  server.on("error", (error) => options.logger.warn("listener failed", { error: errorText(error) }));

  await bind(server, host, port, address);
  let disposed: Promise<void> | undefined;
  return {
    address: boundAddress(server, host),
    [Symbol.asyncDispose]: () => {
      disposed ??= stop(server, { streams, sessions, sockets: [...sockets.values()] });
      return disposed;
    },
  };
}

async function bind(server: AnyServer, host: string, port: number, address: string): Promise<void> {
  try {
    const listening = once(server, "listening");
    server.listen({ port, ...(host === "" ? {} : { host }) });
    await listening;
  } catch (error) {
    throw new PeeringError("unavailable", `cannot listen on ${address}: ${errorText(error)}`, { cause: error });
  }
}

function boundAddress(server: AnyServer, host: string): string {
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new TypeError("a listener on a port has a port");
  return formatAddress(host === "" ? bound.address : host, bound.port);
}

async function stop(
  server: AnyServer,
  open: {
    readonly streams: ReadonlySet<ServerHttp2Stream>;
    readonly sessions: ReadonlySet<ServerHttp2Session>;
    readonly sockets: readonly Socket[];
  },
): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const timer = setTimeout(() => {
    for (const session of open.sessions) session.destroy();
    for (const socket of open.sockets) socket.destroy();
  }, CLOSE_GRACE_MS);
  timer.unref();
  // A stream that was ended is given the time to say so; any other is cancelled.
  for (const stream of open.streams) if (!stream.writableEnded) stream.close(constants.NGHTTP2_CANCEL);
  const withSession = new Set(
    [...open.sessions].filter((session) => !session.destroyed).map(({ socket }) => socket.remotePort),
  );
  for (const session of open.sessions) session.close();
  // Those still in their handshake have nothing to say.
  for (const socket of open.sockets) if (!withSession.has(socket.remotePort)) socket.destroy();
  await closed;
  clearTimeout(timer);
}

/** Gives the server the certificate of now. Without one the handshake fails, and the dialer tries again. */
function certificateRefresher(server: Http2SecureServer, identity: ServerIdentity, logger: Logger): () => void {
  let used: string | undefined;
  return () => {
    try {
      const { certificateChainPem, privateKeyPem } = identity.current();
      if (used === certificateChainPem) return;
      server.setSecureContext({ cert: certificateChainPem, key: privateKeyPem, minVersion: "TLSv1.2" });
      used = certificateChainPem;
    } catch (error) {
      logger.warn("no server certificate", { error: errorText(error) });
      server.setSecureContext({ minVersion: "TLSv1.2" });
      used = undefined;
    }
  };
}

/** Tells connections to one listener apart. */
function sourceOf({ remoteAddress, remotePort }: Socket | TLSSocket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** @param connection - what is under the session, and stays when that has ended. */
function startSession(session: ServerHttp2Session, connection: Socket | undefined, options: GrpcServerOptions): void {
  session.setLocalWindowSize(WINDOW_BYTES);
  session.on("error", (error) => options.logger.debug("connection lost", { error: errorText(error) }));
  const { socket } = session;
  keepAlive(
    session,
    options.keepalive,
    () => socket.bytesRead,
    () => {
      session.destroy();
      connection?.destroy();
    },
  );
}

/** Answers one call. */
function serve(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  peeringServerName: string | undefined,
  options: GrpcServerOptions,
): void {
  // A client that resets at once may already have taken its session with it.
  const session = stream.session;
  if (session === undefined || session.destroyed) return;
  const path = headers[":path"] ?? "";
  const refusal = refuse(headers, path, session, peeringServerName, options.unary);
  if (refusal !== undefined) {
    respondTrailersOnly(stream, refusal, refusal.http);
    return;
  }
  if (path !== STREAM_RESOURCES && path !== EXCHANGE_SECRET) {
    options.unary.serve(path, stream, headers).catch((error: unknown) => {
      options.logger.debug("a call failed", { path, error: errorText(error) });
      stream.destroy();
    });
    return;
  }
  const { remoteAddress = "", remotePort = 0 } = session.socket;
  const call = new ServerGrpcStream(stream, {
    remoteAddress: formatAddress(remoteAddress, remotePort),
    maxReceiveBytes: path === EXCHANGE_SECRET ? EXCHANGE_BYTES : options.maxReceiveBytes,
    maxReceiveAtFirstBytes: OPENING_BYTES,
    closeGraceMs: options.closeGraceMs,
    connectionFailure: () =>
      session.destroyed
        ? new PeeringError("unavailable", "the connection was lost", { status: StatusCode.Unavailable })
        : undefined,
  });
  if (path === EXCHANGE_SECRET) {
    void serveExchangeSecret(call, options.handler);
    return;
  }
  // A dialer uses a connection for one stream. Consul's wait for its end even after the status (specification 1.3.9).
  stream.once("close", () => session.destroyed || session.close());
  options.handler.stream(call);
}

/** What a call is refused with before anything else happens, as grpc-go and Consul's servers do; undefined: served. */
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
