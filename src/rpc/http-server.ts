import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { createServer as createHttp2Server, type Http2ServerRequest, type Http2Session } from "node:http2";
import type { Socket } from "node:net";
import { type Clock, type Logger, silentLogger, systemClock } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import { Pipeline } from "../http/pipeline.js";
import { Incidents } from "../incidents.js";
import { formatAddress, parseAddress } from "../transport/address.js";
import { type Connection, ConnectionLimits, hangUp } from "../transport/connection-limits.js";
import { keepAlive } from "../transport/keepalive.js";
import { areHeadersTooLarge, isFlood, MAX_HEADER_BYTES } from "../transport/session-options.js";
import type { RpcListener } from "./peering-rpc.js";
import { feedInPieces } from "./request-feed.js";

export interface HttpServerOptions {
  /** `host:port`. Port 0: any that is free. Consul's is 8500. */
  readonly listen: string;
  /** Answers calls, over HTTP/1.1 and HTTP/2. */
  readonly rpc: RpcListener;
  /** Answers what else is asked over HTTP/1.1, such as the listener that `httpHandler` of `peerage/http` makes. Default: 404. */
  readonly http?: RequestListener;
  /** How long the head of a request, or the first bytes of a connection, may take, in milliseconds. Default 10 000. */
  readonly headersTimeoutMs?: number;
  /** How long a whole request may take over HTTP/1.1, in milliseconds. Default 60 000. */
  readonly requestTimeoutMs?: number;
  /**
   * How long a connection is kept on which nothing is asked, in milliseconds. Default 120 000: longer than Consul's Go client
   * keeps one (90 s), so that it never asks on a connection that is being closed.
   */
  readonly keepAliveTimeoutMs?: number;
  /**
   * Connections of one source: an IPv4 address, or the /64 of an IPv6 one. Default 2 048, for many clients may come through one
   * proxy; beyond this, new ones are closed.
   */
  readonly connectionsPerSource?: number;
  /** Bounds the connections of all listeners that it is passed to. Default: one of its own. */
  readonly connectionLimits?: ConnectionLimits;
  /** How long calls that are under way may go on once the server is disposed of, in milliseconds. Default 2 000. */
  readonly drainMs?: number;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Default: silent. */
  readonly logger?: Logger;
  /** Counts what limits refuse. Pass one to everything in a process. Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

/** A server that runs until it is disposed of. */
export interface HttpServer extends AsyncDisposable {
  /** `host:port` it really listens on. */
  readonly address: string;
}

/** What a client of HTTP/2 says first; no request of HTTP/1.1 begins so (RFC 9113, 3.4). */
const PREFACE = "PRI * HTTP/2.0\r\n";
const MAX_CONCURRENT_STREAMS = 256;
/** How often, while the head of a request may take its time, one looks whether it has. */
const LOOKS = 4;
/** Of Node, by the code of the error that a connection is closed with. */
const HTTP1_LIMITS: ReadonlyMap<string, { readonly kind: string; readonly message: string }> = new Map([
  ["HPE_HEADER_OVERFLOW", { kind: "headers-too-large", message: "a request had too large headers: it was refused" }],
  [
    "ERR_HTTP_REQUEST_TIMEOUT",
    { kind: "request-timeout", message: "a request took too long to arrive: it was refused" },
  ],
]);
const PING = { intervalMs: 30_000, timeoutMs: 10_000 };

/**
 * Serves HTTP/1.1 and, for clients of gRPC, HTTP/2 with prior knowledge on one port, in plaintext: the first bytes of a
 * connection tell which it is.
 * @throws {PeeringError} `invalid-argument` for an address that is none, `unavailable` when it cannot be bound.
 */
export async function httpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { rpc, http, headersTimeoutMs = 10_000, keepAliveTimeoutMs = 120_000, drainMs = 2_000 } = options;
  const clock = options.clock ?? systemClock;
  const logger = options.logger ?? silentLogger;
  const incidents = options.incidents ?? new Incidents({ clock, logger });
  const { host, port } = parseAddress(options.listen);
  /** Also those whose session has ended: it leaves it to its client to close them. */
  const connections = new Map<Socket, Connection>();
  const sessions = new Map<Http2Session, Socket>();
  const sessionOver = new WeakMap<Socket, Http2Session>();
  const connectionOf = ({ stream }: Http2ServerRequest): Connection | undefined => {
    const socket = stream.session && sessions.get(stream.session);
    return socket && connections.get(socket);
  };
  const pipeline = new Pipeline();
  const server = createServer(
    {
      headersTimeout: headersTimeoutMs,
      requestTimeout: options.requestTimeoutMs ?? 60_000,
      keepAliveTimeout: keepAliveTimeoutMs,
      // By default Node looks for those who are late twice a minute.
      connectionsCheckingInterval: Math.ceil(headersTimeoutMs / LOOKS),
    },
    (request, response) => {
      const answered = connections.get(request.socket)?.request();
      if (answered !== undefined) response.once("close", answered);
      pipeline.enter(request, response, () => rpc(request, response, http && (() => http(request, response))));
    },
  );
  const http2 = createHttp2Server(
    {
      settings: {
        enablePush: false,
        maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
        maxHeaderListSize: MAX_HEADER_BYTES,
      },
    },
    (request, response) => {
      const answered = connectionOf(request)?.request();
      // A client that goes on sending keeps the stream, but not what its connection is allowed for a request.
      if (answered !== undefined) response.once("finish", answered).once("close", answered);
      if (areHeadersTooLarge(request.headers)) {
        const fields = { source: request.socket.remoteAddress ?? "", limit: MAX_HEADER_BYTES };
        incidents.report("headers-too-large", "a request had too large headers: it was refused", fields);
        response.writeHead(431);
        response.end();
        return;
      }
      rpc(request, response);
    },
  );
  /** Of the session which begins. */
  let connection: Socket | undefined;
  http2.on("session", (session) => {
    const own = connection;
    if (own !== undefined) {
      sessions.set(session, own);
      sessionOver.set(own, session);
    }
    session.once("close", () => sessions.delete(session));
    session.on("error", (error) => logger.debug("connection lost", { error: errorText(error) }));
    const { socket } = session;
    keepAlive(
      session,
      PING,
      () => socket.bytesRead,
      () => {
        session.destroy();
        own?.destroy();
      },
    );
  });
  http2.on("sessionError", (error) => {
    logger.debug("connection failed", { error: errorText(error) });
    if (!isFlood(error)) return;
    const fields = { listener: "http", error: errorText(error) };
    incidents.report("session-flooded", "a connection sent too many frames of HTTP/2: it was closed", fields);
  });

  // The server of HTTP/1.1 listens, so that its limits hold; only what a connection is comes before its own look at it.
  const serveHttp1 = server.listeners("connection");
  server.removeAllListeners("connection");
  const unknown = new Set<Socket>();
  const guard = (options.connectionLimits ?? new ConnectionLimits({ clock, incidents })).listener("http", {
    perSource: options.connectionsPerSource ?? 2_048,
    inAll: Number.POSITIVE_INFINITY,
    firstRequestMs: headersTimeoutMs,
    idleMs: keepAliveTimeoutMs,
  });
  server.on("connection", (socket: Socket) => {
    const known = guard.admit(socket, () => hangUp(socket, sessionOver.get(socket)));
    if (known === undefined) return;
    connections.set(socket, known);
    // Node has answered by itself then.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      const limit = HTTP1_LIMITS.get(error.code ?? "");
      if (limit === undefined) return;
      incidents.report(limit.kind, limit.message, { source: socket.remoteAddress ?? "" });
    });
    socket.once("close", () => connections.delete(socket));
    unknown.add(socket);
    socket.once("close", () => unknown.delete(socket));
    recognise(socket, (isHttp2) => {
      unknown.delete(socket);
      if (isHttp2) {
        // A client that has ended its side of a session is gone; only HTTP/1.1 has a use for the other half.
        socket.allowHalfOpen = false;
        connection = socket;
        http2.emit("connection", socket);
      } else {
        for (const serve of serveHttp1) serve.call(server, socket);
        feedInPieces(socket, () => pipeline.holdsUp(socket));
      }
    });
  });

  try {
    server.listen({ port, ...(host === "" ? {} : { host }) });
    await once(server, "listening");
  } catch (error) {
    guard.close();
    throw new PeeringError("unavailable", `cannot listen on ${options.listen}: ${errorText(error)}`, { cause: error });
  }
  server.on("error", (error) => guard.failed(error));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new TypeError("a listener on a port has a port");

  const stop = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    guard.close();
    for (const socket of unknown) socket.destroy();
    for (const session of sessions.keys()) session.close();
    const timer = clock.after(drainMs, () => {
      server.closeAllConnections();
      for (const session of sessions.keys()) session.destroy();
      for (const socket of connections.keys()) socket.destroy();
    });
    await closed;
    timer.cancel();
  };
  let stopped: Promise<void> | undefined;
  return {
    address: formatAddress(bound.address, bound.port),
    [Symbol.asyncDispose]: () => {
      stopped ??= stop();
      return stopped;
    },
  };
}

/** Reads as much of a connection as tells what it is, and puts it back. */
function recognise(socket: Socket, recognised: (isHttp2: boolean) => void): void {
  let head = Buffer.alloc(0);
  // Whoever takes the connection over listens for himself; until then a reset would end the process.
  socket.on("error", () => {});
  // It may be half open, for HTTP/1.1; but who says no more before a word of that is gone.
  const gone = (): void => void socket.destroy();
  socket.once("end", gone);
  const look = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const begun = head.toString("latin1", 0, PREFACE.length);
    const isHttp2 = begun === PREFACE;
    if (!isHttp2 && PREFACE.startsWith(begun)) return;
    socket.off("data", look);
    socket.off("end", gone);
    socket.pause();
    socket.unshift(head);
    recognised(isHttp2);
    // A session of HTTP/2 reads by itself what was put back.
    if (!isHttp2) socket.resume();
  };
  socket.on("data", look);
}
