import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { errorText, PeeringError } from "../../base/errors.js";

/** An alert of the other side, which may come after the handshake where it is TLS 1.3. */
const ALERT = /^ERR_SSL_.*_ALERT_/;

/** A connection to a service of the mesh, whose certificate was verified. */
export type MeshConnection = Duplex & {
  /** The SPIFFE id that the other side has shown. */
  readonly identity: string;
  /** `host:port` of the gateway or instance. */
  readonly address: string;
};

/** Reads and writes as any stream does, and also takes the calls with which `node:http` treats a socket. */
export class MeshSocket extends Duplex {
  readonly identity: string;
  readonly address: string;
  readonly #socket: TLSSocket;
  #hasRead = false;

  constructor(socket: TLSSocket, parts: { readonly identity: string; readonly address: string }) {
    super({ allowHalfOpen: true, autoDestroy: true });
    this.identity = parts.identity;
    this.address = parts.address;
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#hasRead = true;
      if (!this.push(chunk)) socket.pause();
    });
    socket.on("end", () => this.#ended());
    socket.on("error", (error) => this.destroy(connectionError(error)));
    socket.on("close", () => this.destroy());
    socket.on("timeout", () => this.emit("timeout"));
    // Nothing is read before the other side asks for it.
    socket.pause();
  }

  /** As of a socket. */
  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  setKeepAlive(...given: Parameters<Socket["setKeepAlive"]>): this {
    this.#socket.setKeepAlive(...given);
    return this;
  }

  setNoDelay(...given: Parameters<Socket["setNoDelay"]>): this {
    this.#socket.setNoDelay(...given);
    return this;
  }

  setTimeout(...given: Parameters<Socket["setTimeout"]>): this {
    const [timeoutMs, listener] = given;
    this.#socket.setTimeout(timeoutMs);
    if (listener !== undefined) this.once("timeout", listener);
    return this;
  }

  ref(): this {
    this.#socket.ref();
    return this;
  }

  unref(): this {
    this.#socket.unref();
    return this;
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#socket.write(chunk, (error) => callback(error && connectionError(error)));
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#socket.end(() => callback());
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#socket.destroy();
    callback(error);
  }

  #ended(): void {
    // So a sidecar closes a connection that no intention allows, and what was written to it is lost.
    if (this.#hasRead) this.push(null);
    else this.destroy(endedUnanswered());
  }
}

function endedUnanswered(): PeeringError {
  const text = "the other side closed the connection before its first byte: perhaps it is denied by an intention";
  return new PeeringError("unavailable", text, {
    remedy: "Look at the intentions of the service, and at the roots that its cluster trusts.",
  });
}

/** An error of a connection for a caller: an alert says that our certificate was refused. */
export function connectionError(error: unknown): PeeringError {
  if (error instanceof PeeringError) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (!ALERT.test(code)) {
    return new PeeringError("unavailable", `the connection was lost: ${errorText(error)}`, { cause: error });
  }
  const alert = code
    .replace(/^.*_ALERT_/, "")
    .toLowerCase()
    .replaceAll("_", " ");
  return new PeeringError("permission-denied", `the other side refused our certificate: ${alert}`, { cause: error });
}
