import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import {
  constants,
  createServer as createHttp2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type Http2Session,
} from "node:http2";
import { createServer as createTlsServer } from "node:https";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import type { Closable } from "../base/closable.js";
import { type Clock, type Logger, silentLogger, systemClock } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import { Incidents } from "../base/incidents.js";
import type { HttpListener } from "../http/messages.js";
import { Pipeline } from "../http/pipeline.js";
import { bind } from "../transport/bind.js";
import { type Connection, ConnectionLimits, hangUp } from "../transport/connection-limits.js";
import { endRequest } from "../transport/grpc-stream.js";
import { keepAlive } from "../transport/keepalive.js";
import { closeAfterResets } from "../transport/resets.js";
import { areHeadersTooLarge, isFlood, MAX_HEADER_BYTES } from "../transport/session-options.js";
import { FewInATurn } from "./few-in-a-turn.js";
import { handshakesInTurn } from "./handshakes-in-turn.js";
import type { RpcListener } from "./peering-rpc.js";
import { RepeatingConnection } from "./repeated-requests.js";
import { feedInPieces } from "./request-feed.js";
import { type ServerTls, secureContext } from "./server-tls.js";

export interface HttpServerOptions {
  /** `host:port`. Port 0: any that is free. Consul's is 8500. */
  readonly listen: string;
  /** Answers calls, over HTTP/1.1 and HTTP/2. */
  readonly rpc: RpcListener;
  /** Answers all other requests, such as the listener that `httpHandler` of `peerage/http` makes. Default: 404. */
  readonly http?: HttpListener;
  /** Serves over TLS 1.2 or 1.3, with HTTP/2 for clients that offer it. Default: in plaintext. */
  readonly tls?: ServerTls;
  /** Whether clients must show a certificate of an authority of `tls`. Default false. */
  readonly verifiesClients?: boolean;
  /**
   * @internal Judges each client over TLS whose handshake is over, in place of Node, before anything of it is read: false closes the
   * connection. It must look at `authorized`. Default: clients that `verifiesClients` refuses are closed.
   */
  readonly admits?: (client: TLSSocket) => boolean;
  /**
   * How long the head of a request, or the handshake and the first bytes of a connection, may take, in milliseconds. Default
   * 10 000.
   */
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
  /** Counts refusals by limits. Pass one to everything in a process. Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

/** A server that runs until it is disposed of. */
export interface HttpServer extends Closable {
  /** `host:port` it really listens on. */
  readonly address: string;
  /**
   * Shows this certificate, and lets in clients of these authorities, from the next connection on.
   * @throws {PeeringError} `invalid-argument`: they cannot be used; those of before stay. `TypeError` for a server in
   *   plaintext.
   */
  replaceCertificates(tls: ServerTls): void;
}

/** The first bytes of a client of HTTP/2; no request of HTTP/1.1 begins so (RFC 9113, 3.4). */
const PREFACE = "PRI * HTTP/2.0\r\n";
const MAX_CONCURRENT_STREAMS = 256;
/** Sessions of HTTP/2 that begin in one turn of the event loop: a thousand Envoys come back at once where a host is started again. */
const SESSIONS_A_TURN = 4;
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
const FLOODED = "a connection sent too many frames of HTTP/2: it was closed";
const PING = { intervalMs: 30_000, timeoutMs: 10_000 };

/**
 * Serves HTTP/1.1 and HTTP/2 on one port: the first bytes of a connection tell which it is. In plaintext, clients of HTTP/2 must
 * know that beforehand, as those of gRPC do.
 * @throws {PeeringError} `invalid-argument` for an invalid address, or certificates that cannot be used, `unavailable` when
 *   it cannot be bound.
 */
export async function httpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { rpc, http, tls, verifiesClients = false, headersTimeoutMs = 10_000, keepAliveTimeoutMs = 120_000 } = options;
  const { drainMs = 2_000 } = options;
  const clock = options.clock ?? systemClock;
  const logger = options.logger ?? silentLogger;
  const incidents = options.incidents ?? new Incidents({ clock, logger });
  /** Also those whose session has ended: it leaves it to its client to close them. */
  const connections = new Map<Socket, Connection>();
  const sessions = new Map<Http2Session, Socket>();
  const sessionOver = new WeakMap<Socket, Http2Session>();
  const connectionOf = ({ stream }: Http2ServerRequest): Connection | undefined => {
    const socket = stream.session && sessions.get(stream.session);
    return socket && connections.get(socket);
  };
  const pipeline = new Pipeline();
  const repeater = rpc.leavesOthers === true ? http?.repeater : undefined;
  const repeated = repeater?.requests({ keepAliveMs: keepAliveTimeoutMs });
  const repeating = new WeakMap<Socket, RepeatingConnection>();
  let isStopping = false;
  const settings = {
    headersTimeout: headersTimeoutMs,
    requestTimeout: options.requestTimeoutMs ?? 60_000,
    keepAliveTimeout: keepAliveTimeoutMs,
    // By default Node looks for late clients twice a minute.
    connectionsCheckingInterval: Math.ceil(headersTimeoutMs / LOOKS),
  };
  const serve: RequestListener = (request, response) => {
    const answered = connections.get(request.socket)?.request();
    if (answered !== undefined) response.once("close", answered);
    repeating.get(request.socket)?.begin(request);
    pipeline.enter(request, response, () => rpc(request, response, http && (() => http(request, response))));
  };
  const secure =
    tls === undefined
      ? undefined
      : createTlsServer(
          {
            ...settings,
            ...secureContext(tls, verifiesClients),
            requestCert: verifiesClients,
            rejectUnauthorized: verifiesClients && options.admits === undefined,
            ALPNProtocols: ["h2", "http/1.1"],
          },
          serve,
        );
  const server = secure ?? createServer(settings, serve);
  server.on("checkContinue", (request, response) => {
    continueWhenRead(request, response);
    serve(request, response);
  });
  const http2 = createHttp2Server(
    {
      settings: {
        enablePush: false,
        maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
        maxHeaderListSize: MAX_HEADER_BYTES,
      },
    },
    (request, response) => {
      const { stream } = request;
      // It was reset before Node could tell of it.
      if (stream.destroyed) return;
      const known = connectionOf(request);
      const closed = known?.stream();
      if (known !== undefined && closed === undefined) {
        stream.close(constants.NGHTTP2_REFUSED_STREAM);
        return;
      }
      if (closed !== undefined) stream.once("close", closed);
      const answered = known?.request();
      // A client that goes on sending keeps the stream, but not its connection's allowance for a request. The response of
      // Node says that it has finished when its stream is closed.
      if (answered !== undefined) stream.once("finish", answered).once("close", answered);
      if (areHeadersTooLarge(request.headers)) {
        const fields = { source: request.socket.remoteAddress ?? "", limit: MAX_HEADER_BYTES };
        incidents.report("headers-too-large", "a request had too large headers: it was refused", fields);
        response.writeHead(431);
        response.end();
        return;
      }
      rpc(request, response, http && (() => answerOverHttp2(http, request, response)));
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
    const end = (): void => {
      session.destroy();
      own?.destroy();
    };
    keepAlive(session, PING, () => socket.bytesRead, end);
    closeAfterResets(session, clock, () => {
      const fields = { listener: "http", error: "it reset too many streams" };
      incidents.report("session-flooded", FLOODED, fields);
      end();
    });
  });
  http2.on("sessionError", (error) => {
    logger.debug("connection failed", { error: errorText(error) });
    if (!isFlood(error)) return;
    const fields = { listener: "http", error: errorText(error) };
    incidents.report("session-flooded", FLOODED, fields);
  });

  // The server of HTTP/1.1 listens, so that its limits hold; only the check for the protocol comes before its own parsing.
  const begun = secure === undefined ? "connection" : "secureConnection";
  const serveHttp1 = server.listeners(begun);
  server.removeAllListeners(begun);
  const shakeHands = secure && handshakesInTurn(secure);
  const unknown = new Set<Socket>();
  const sessionsBegin = new FewInATurn(SESSIONS_A_TURN);
  const guard = (options.connectionLimits ?? new ConnectionLimits({ clock, incidents })).listener("http", {
    perSource: options.connectionsPerSource ?? 2_048,
    inAll: Number.POSITIVE_INFINITY,
    // Node answers a late head of HTTP/1.1 with 408, when it looks next: this closes connections that it does not see.
    firstRequestMs: headersTimeoutMs * (1 + 2 / LOOKS),
    idleMs: keepAliveTimeoutMs,
  });
  const repeatingOf = (socket: Socket, known: Connection): RepeatingConnection | undefined => {
    if (repeated === undefined) return undefined;
    const isIdle = (): boolean => !isStopping && socket.writable && !socket.isPaused() && !pipeline.isBusy(socket);
    const connection = new RepeatingConnection(socket, repeated, isIdle, () => known.request());
    repeating.set(socket, connection);
    return connection;
  };
  /** Detects the protocol of a connection, in plaintext or decrypted, and has it served. */
  const begin = (socket: Socket, known: Connection): void => {
    connections.set(socket, known);
    // Node has answered already then.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      const limit = HTTP1_LIMITS.get(error.code ?? "");
      if (limit === undefined) return;
      incidents.report(limit.kind, limit.message, { source: socket.remoteAddress ?? "" });
    });
    socket.once("close", () => connections.delete(socket));
    unknown.add(socket);
    socket.once("close", () => unknown.delete(socket));
    recognise(socket, (isHttp2) => {
      if (isHttp2) {
        // A client that has ended its side of a session is gone; only HTTP/1.1 has a use for the other half.
        socket.allowHalfOpen = false;
        // Envoys that know of HTTP/2 beforehand offer no protocol by ALPN, and Node would refuse them.
        if (socket instanceof TLSSocket && socket.alpnProtocol === false) socket.alpnProtocol = "h2";
        sessionsBegin.run(() => {
          unknown.delete(socket);
          if (socket.destroyed) return;
          connection = socket;
          http2.emit("connection", socket);
        });
      } else {
        unknown.delete(socket);
        for (const serve of serveHttp1) serve.call(server, socket);
        feedInPieces(socket, () => pipeline.holdsUp(socket), clock, repeatingOf(socket, known));
      }
    });
  };
  secure?.on("tlsClientError", (error) => logger.debug("a handshake failed", { error: errorText(error) }));
  server.on("connection", (socket: Socket) => {
    let end = (): void => void socket.destroy();
    const known = guard.admit(socket, () => end());
    if (known === undefined) return;
    const carry = (carrier: Socket): void => {
      end = () => hangUp(carrier, sessionOver.get(carrier));
      begin(carrier, known);
    };
    if (shakeHands === undefined) return carry(socket);
    unknown.add(socket);
    shakeHands(socket, known, (secured) => {
      unknown.delete(socket);
      if (options.admits?.(secured) === false) secured.destroy();
      else carry(secured);
    });
    socket.once("close", () => unknown.delete(socket));
  });

  const bound = await bind(server, options.listen).catch((error: unknown) => {
    guard.close();
    throw error;
  });
  server.on("error", (error) => guard.failed(error));

  const stop = async (): Promise<void> => {
    isStopping = true;
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
  const close = (): Promise<void> => {
    stopped ??= stop();
    return stopped;
  };
  return {
    address: joinHostPort(bound.address, bound.port),
    replaceCertificates: (replacement) => {
      if (secure === undefined) throw new TypeError("this server does not serve over TLS");
      secure.setSecureContext(secureContext(replacement, verifiesClients));
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Answers, and tells a client that then still sends that its body is not read. */
function answerOverHttp2(http: HttpListener, request: Http2ServerRequest, response: Http2ServerResponse): void {
  const { stream } = request;
  stream.once("finish", () => endRequest(stream));
  http(request, response);
}

/**
 * Tells a client that asks whether to send its body to do so when a handler reads it. Where none does, Node ends the connection
 * with the answer: the next bytes may be the body or another request.
 */
function continueWhenRead(request: IncomingMessage, response: ServerResponse): void {
  request.once("resume", () => {
    if (!response.headersSent) response.writeContinue();
  });
}

/** Reads as much of a connection as its protocol takes to detect, and puts it back. */
function recognise(socket: Socket, recognised: (isHttp2: boolean) => void): void {
  let head = Buffer.alloc(0);
  // The server that takes the connection over has its own listener; until then a reset would end the process.
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
    // An HTTP/2 session reads the bytes that were put back on its own.
    if (!isHttp2) socket.resume();
  };
  socket.on("data", look);
}
