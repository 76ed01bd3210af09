import type { Socket } from "node:net";
import type { HttpRequest, HttpResponse } from "./messages.js";

interface WaitingCall {
  readonly response: HttpResponse;
  readonly begin: () => void;
}

/**
 * Lets each connection of HTTP/1.1 have one call at a time, as Go's server does: a call begins when the system has taken the
 * whole answer to the one before. A client that sends many requests and reads no answers costs one answer. While a request
 * waits, nothing more is read from its connection.
 */
export class Pipeline {
  readonly #connections = new WeakMap<Socket, Connection>();

  /**
   * Calls `begin` in turn, at once if nothing is under way; never, if the connection is closed before. HTTP/2 has many answers
   * under way on one connection, each with a window of its own: its calls begin at once.
   */
  enter({ httpVersion, socket }: HttpRequest, response: HttpResponse, begin: () => void): void {
    if (httpVersion.startsWith("2")) {
      begin();
      return;
    }
    const connection = this.#connections.get(socket) ?? new Connection(socket);
    this.#connections.set(socket, connection);
    connection.enter({ response, begin });
  }

  /** Whether a request of a connection is being answered. */
  isBusy(socket: Socket): boolean {
    return this.#connections.get(socket)?.isBusy ?? false;
  }

  /** Whether requests of a connection wait behind another. */
  holdsUp(socket: Socket): boolean {
    return this.#connections.get(socket)?.holdsUp ?? false;
  }
}

class Connection {
  readonly #socket: Socket;
  readonly #waiting: WaitingCall[] = [];
  #busy = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Node resumes a connection for reasons of its own, such as a request that is complete.
    socket.on("resume", () => {
      if (this.holdsUp) socket.pause();
    });
  }

  get isBusy(): boolean {
    return this.#busy;
  }

  get holdsUp(): boolean {
    return this.#waiting.length > 0;
  }

  enter(call: WaitingCall): void {
    if (this.#busy) {
      this.#waiting.push(call);
      this.#socket.pause();
    } else this.#begin(call);
  }

  #begin({ response, begin }: WaitingCall): void {
    this.#busy = true;
    response.once("close", () => {
      this.#busy = this.holdsUp;
      // In a turn of its own: other connections must not wait for all that one of them has sent.
      if (this.#busy) setImmediate(() => this.#next());
    });
    begin();
  }

  #next(): void {
    const next = this.#waiting.shift();
    // Not writable: that was the last answer on this connection.
    if (next === undefined || !this.#socket.writable) return;
    this.#begin(next);
    // Later, for a client that ends its side of the connection with the last request: Node ends ours when it reads that.
    setImmediate(() => {
      if (!this.holdsUp) this.#socket.resume();
    });
  }
}
