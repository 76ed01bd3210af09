import type { Socket } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import type { Closable } from "../../base/closable.js";
import { joinHostPort } from "../../base/host-port.js";
import { handshakesInTurn } from "../../rpc/handshakes-in-turn.js";
import { type ServerTls, secureContext } from "../../rpc/server-tls.js";
import { bind } from "../../transport/bind.js";
import type { ConnectionLimits } from "../../transport/connection-limits.js";

export interface TcpServerOptions {
  /** `host:port`. */
  readonly listen: string;
  readonly tls: ServerTls;
  readonly connectionLimits: ConnectionLimits;
  readonly connectionsPerSource: number;
  readonly connections: number;
  readonly handshakeTimeoutMs: number;
  /**
   * Gets each client whose handshake is over, whether or not it is `authorized`, and returns whether it is served. One that is not may stay
   * for as long as a handshake.
   */
  readonly accept: (client: TLSSocket) => boolean;
}

/** A server of connections whose clients show certificates. */
export interface TcpServer extends Closable {
  readonly address: string;
  replaceCertificates(tls: ServerTls): void;
}

/** @throws {PeeringError} `invalid-argument`: address or certificates cannot be used. `unavailable`: it cannot be bound. */
export async function tcpServer(options: TcpServerOptions): Promise<TcpServer> {
  const { listen, tls, accept, handshakeTimeoutMs } = options;
  const server = createServer({
    ...secureContext(tls, true),
    requestCert: true,
    // `accept` judges: Node would close the connection, and tell nobody why.
    rejectUnauthorized: false,
    allowHalfOpen: true,
  });
  const shakeHands = handshakesInTurn(server);
  const guard = options.connectionLimits.listener("mesh", {
    perSource: options.connectionsPerSource,
    inAll: options.connections,
    firstRequestMs: handshakeTimeoutMs,
    idleMs: handshakeTimeoutMs,
  });
  const open = new Set<Socket>();
  server.on("tlsClientError", (_error, client) => client.destroy());
  server.on("connection", (socket: Socket) => {
    const known = guard.admit(socket);
    if (known === undefined) return;
    open.add(socket);
    shakeHands(socket, known, (client) => {
      // One that is served is at work for as long as it stands.
      if (accept(client)) client.once("close", known.request());
    });
    socket.once("close", () => open.delete(socket));
  });
  const bound = await bind(server, listen).catch((error: unknown) => {
    guard.close();
    throw error;
  });
  server.on("error", (error) => guard.failed(error));
  let closed: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    guard.close();
    const over = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of open) socket.destroy();
    await over;
  };
  const close = (): Promise<void> => {
    closed ??= stop();
    return closed;
  };
  return {
    address: joinHostPort(bound.address, bound.port),
    replaceCertificates: (replacement) => server.setSecureContext(secureContext(replacement, true)),
    close,
    [Symbol.asyncDispose]: close,
  };
}
