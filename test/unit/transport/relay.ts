import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** A TCP hop between two sides, for tests that cut or freeze the line. */
export interface Relay extends AsyncDisposable {
  /** `host:port` to dial. */
  readonly address: string;
  /** Where connections go from now on. */
  forwardTo(address: string): void;
  /** Loses every connection. */
  cut(): void;
  /** Carries nothing more, in either direction, without closing anything. */
  freeze(): void;
}

export async function startRelay(): Promise<Relay> {
  let upstream: { host: string; port: number } | undefined;
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => sockets.delete(socket));
  };
  const server: Server = createServer((incoming) => {
    keep(incoming);
    if (upstream === undefined) {
      incoming.destroy();
      return;
    }
    const outgoing = connect(upstream);
    keep(outgoing);
    incoming.pipe(outgoing);
    outgoing.pipe(incoming);
    incoming.once("close", () => outgoing.destroy());
    outgoing.once("close", () => incoming.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new TypeError("a relay listens on a port");
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    address: `127.0.0.1:${bound.port}`,
    forwardTo(address) {
      const colon = address.lastIndexOf(":");
      upstream = { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
    },
    cut,
    freeze() {
      for (const socket of sockets) {
        socket.unpipe();
        socket.pause();
      }
    },
    async [Symbol.asyncDispose]() {
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
