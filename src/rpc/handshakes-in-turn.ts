import type { Socket } from "node:net";
import type { Server, TLSSocket } from "node:tls";
import type { Connection } from "../transport/connection-limits.js";

/** Where a connection comes from: tells connections to one listener apart. */
export function placeOf({ remoteAddress, remotePort, localAddress }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}

/**
 * Has the handshakes of a server wait for their turn: Node begins one as soon as it accepts a connection. The listeners of "secureConnection" that are
 * to be replaced must be gone before.
 * @returns begins the handshake of an accepted connection in its turn, and tells the client once it is over.
 */
export function handshakesInTurn(
  server: Server,
): (socket: Socket, known: Connection, secured: (client: TLSSocket) => void) => void {
  const shakeHands = server.listeners("connection");
  server.removeAllListeners("connection");
  /** Those whose handshake is not over, by where they come from. */
  const waiting = new Map<string, (client: TLSSocket) => void>();
  server.on("secureConnection", (client) => waiting.get(placeOf(client))?.(client));
  return (socket, known, secured) => {
    const place = placeOf(socket);
    const over = known.handshake(() => {
      for (const listener of shakeHands) listener.call(server, socket);
    });
    waiting.set(place, (client) => {
      over();
      secured(client);
    });
    socket.once("close", () => waiting.delete(place));
  };
}
