import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** Stands between a dialer and an acceptor, and is the network that fails. */
export class Relay implements AsyncDisposable {
  readonly name = "relay";
  readonly output = "";
  /** `host:port` to dial. */
  readonly address: string;
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #held: Socket[] = [];
  #silent = false;

  private constructor(server: Server, port: number, target: string) {
    this.#server = server;
    this.address = `127.0.0.1:${port}`;
    const [host = "", targetPort = ""] = target.split(":");
    this.#target = { host, port: Number(targetPort) };
    server.on("connection", (socket) => this.#accept(socket));
  }

  /** A way to `target` (`host:port`) that is open. */
  static async open(port: number, target: string): Promise<Relay> {
    const server = createServer({ pauseOnConnect: true });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return new Relay(server, port, target);
  }

  /** From now on nothing arrives, and nobody is told: as if every packet were lost. */
  silence(): void {
    this.#silent = true;
    for (const sockets of this.#pairs) {
      for (const socket of sockets) socket.unpipe().pause();
    }
  }

  /** Ends every connection there is. */
  cut(): void {
    for (const sockets of this.#pairs) for (const socket of sockets) socket.destroy();
    for (const socket of this.#held) socket.destroy();
    this.#held = [];
  }

  /** Everything that was lost arrives after all, as TCP has it. */
  heal(): void {
    this.#silent = false;
    for (const sockets of this.#pairs) {
      const [near, far] = sockets;
      if (near.destroyed || far.destroyed) {
        for (const socket of sockets) socket.destroy();
        this.#pairs.delete(sockets);
      } else {
        near.pipe(far);
        far.pipe(near);
      }
    }
    const held = this.#held;
    this.#held = [];
    for (const socket of held) this.#forward(socket);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.cut();
    await closed;
  }

  #accept(socket: Socket): void {
    socket.on("error", () => socket.destroy());
    if (this.#silent) this.#held.push(socket);
    else this.#forward(socket);
  }

  #forward(near: Socket): void {
    const far = connect(this.#target);
    const sockets = [near, far] as const;
    this.#pairs.add(sockets);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => one.destroy());
      one.on("close", () => {
        // While nothing arrives, the other side does not hear of it.
        if (this.#silent) return;
        this.#pairs.delete(sockets);
        other.destroy();
      });
      if (!this.#silent) one.pipe(other);
    }
  }
}
