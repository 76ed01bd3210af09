import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { splitHostPort } from "../../src/base/host-port.js";

/** The server name in the first bytes of a TLS client: `""` where it sends none, undefined as long as they are not complete. */
export function serverNameIn(hello: Buffer): string | undefined {
  if (hello.length < 5 || hello.length < 5 + hello.readUInt16BE(3)) return undefined;
  // Record, handshake, version and random; then the session, the ciphers and the compressions.
  let at = 5 + 4 + 2 + 32;
  at += 1 + hello.readUInt8(at);
  at += 2 + hello.readUInt16BE(at);
  at += 1 + hello.readUInt8(at);
  const end = at + 2 + hello.readUInt16BE(at);
  for (at += 2; at < end; at += 4 + hello.readUInt16BE(at + 2)) {
    if (hello.readUInt16BE(at) !== 0) continue;
    const length = hello.readUInt16BE(at + 7);
    return hello.toString("latin1", at + 9, at + 9 + length);
  }
  return "";
}

/** A mesh gateway as far as services of TCP need one: it leads each connection to where its server name belongs, and opens none. */
export class SniGateway implements AsyncDisposable {
  /** `host:port` by server name. */
  readonly routes = new Map<string, string>();
  /** Server names that were asked for, in order. */
  readonly asked: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(): Promise<SniGateway> {
    const server = createServer({ allowHalfOpen: true });
    const gateway = new SniGateway(server);
    server.on("connection", (socket) => gateway.#accept(socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return gateway;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Connections through it now. */
  get connections(): number {
    return this.#sockets.size;
  }

  #accept(socket: Socket): void {
    this.#keep(socket);
    let hello = Buffer.alloc(0);
    const look = (chunk: Buffer): void => {
      hello = Buffer.concat([hello, chunk]);
      const name = serverNameIn(hello);
      if (name === undefined) return;
      socket.off("data", look);
      this.asked.push(name);
      const target = splitHostPort(this.routes.get(name) ?? "");
      if (target === undefined) {
        socket.resetAndDestroy();
        return;
      }
      const onward = connect({ ...target, allowHalfOpen: true });
      this.#keep(onward);
      onward.write(hello);
      socket.pipe(onward);
      onward.pipe(socket);
      socket.once("close", () => onward.destroy());
      onward.once("close", () => socket.destroySoon());
    };
    socket.on("data", look);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => this.#sockets.delete(socket));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
