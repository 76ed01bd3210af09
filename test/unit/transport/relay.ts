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
  /** From now on the connections there are carry one byte a second, each way. Those that are made later are as fast as ever. */
  trickle(): void;
}

export async function startRelay(): Promise<Relay> {
  let upstream: { host: string; port: number } | undefined;
  const sockets = new Set<Socket>();
  const opposite = new Map<Socket, Socket>();
  const timers = new Set<NodeJS.Timeout>();
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      sockets.delete(socket);
      opposite.delete(socket);
    });
  };
  const server: Server = createServer((incoming) => {
    keep(incoming);
    if (upstream === undefined) {
      incoming.destroy();
      return;
    }
    const outgoing = connect(upstream);
    keep(outgoing);
    opposite.set(incoming, outgoing);
    opposite.set(outgoing, incoming);
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
    trickle() {
      for (const [from, to] of opposite) {
        from.unpipe();
        from.pause();
        const timer = setInterval(() => {
          const byte: Buffer | null = from.read(1);
          if (byte !== null && !to.destroyed) to.write(byte);
        }, 1_000);
        timers.add(timer);
      }
    },
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearInterval(timer);
      cut();
      server.close();
      await once(server, "close");
    },
  };
}
