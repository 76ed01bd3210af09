import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { type Clock, type Logger, silentLogger, systemClock } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import { formatAddress, parseAddress } from "../transport/address.js";
import { keepAlive } from "../transport/keepalive.js";
import type { RpcListener } from "./peering-rpc.js";

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
   * How long a connection of HTTP/1.1 is kept on which nothing is asked, in milliseconds. Default 120 000: longer than
   * Consul's Go client keeps one (90 s), so that it never asks on a connection that is being closed.
   */
  readonly keepAliveTimeoutMs?: number;
  /** How long calls that are under way may go on once the server is disposed of, in milliseconds. Default 2 000. */
  readonly drainMs?: number;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Default: silent. */
  readonly logger?: Logger;
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
  const { host, port } = parseAddress(options.listen);
  const server = createServer(
    {
      headersTimeout: headersTimeoutMs,
      requestTimeout: options.requestTimeoutMs ?? 60_000,
      keepAliveTimeout: keepAliveTimeoutMs,
      // By default Node looks for those who are late twice a minute.
      connectionsCheckingInterval: headersTimeoutMs / LOOKS,
    },
    (request, response) => rpc(request, response, http && (() => http(request, response))),
  );
  const http2 = createHttp2Server(
    { settings: { enablePush: false, maxConcurrentStreams: MAX_CONCURRENT_STREAMS } },
    (request, response) => rpc(request, response),
  );
  const sessions = new Set<ServerHttp2Session>();
  /** Under those: a session that has ended leaves it to its client to close them. */
  const connections = new Set<Socket>();
  /** That of the session which begins. */
  let connection: Socket | undefined;
  http2.on("session", (session) => {
    const own = connection;
    sessions.add(session);
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
  http2.on("sessionError", (error) => logger.debug("connection failed", { error: errorText(error) }));

  // The server of HTTP/1.1 listens, so that its limits hold; only what a connection is comes before its own look at it.
  const serveHttp1 = server.listeners("connection");
  server.removeAllListeners("connection");
  const unknown = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    unknown.add(socket);
    socket.once("close", () => unknown.delete(socket));
    recognise(socket, headersTimeoutMs, clock, (isHttp2) => {
      unknown.delete(socket);
      if (isHttp2) {
        // A client that has ended its side of a session is gone; only HTTP/1.1 has a use for the other half.
        socket.allowHalfOpen = false;
        connection = socket;
        connections.add(socket);
        socket.once("close", () => connections.delete(socket));
        http2.emit("connection", socket);
      } else for (const serve of serveHttp1) serve.call(server, socket);
    });
  });

  try {
    server.listen({ port, ...(host === "" ? {} : { host }) });
    await once(server, "listening");
  } catch (error) {
    throw new PeeringError("unavailable", `cannot listen on ${options.listen}: ${errorText(error)}`, { cause: error });
  }
  server.on("error", (error) => logger.warn("the HTTP listener failed", { error: errorText(error) }));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new TypeError("a listener on a port has a port");

  const stop = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of unknown) socket.destroy();
    for (const session of sessions) session.close();
    const timer = clock.after(drainMs, () => {
      server.closeAllConnections();
      for (const session of sessions) session.destroy();
      for (const socket of connections) socket.destroy();
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

/** Reads as much of a connection as tells what it is, and puts it back. One that says too little for too long is closed. */
function recognise(socket: Socket, timeoutMs: number, clock: Clock, recognised: (isHttp2: boolean) => void): void {
  let head = Buffer.alloc(0);
  const timer = clock.after(timeoutMs, () => socket.destroy());
  // Whoever takes the connection over listens for himself; until then a reset would end the process.
  socket.on("error", () => {});
  socket.once("close", () => timer.cancel());
  const look = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const begun = head.toString("latin1", 0, PREFACE.length);
    const isHttp2 = begun === PREFACE;
    if (!isHttp2 && PREFACE.startsWith(begun)) return;
    timer.cancel();
    socket.off("data", look);
    socket.pause();
    socket.unshift(head);
    recognised(isHttp2);
    // A session of HTTP/2 reads by itself what was put back.
    if (!isHttp2) socket.resume();
  };
  socket.on("data", look);
}
