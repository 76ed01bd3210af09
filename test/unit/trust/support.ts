import assert from "node:assert/strict";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { connect, createSecureContext, TLSSocket } from "node:tls";
import type { Clock, Timer } from "../../../src/base/environment.js";

/** A clock that only the test moves. Timers run in the order in which they are due, then in that of their creation. */
export class ManualClock implements Clock {
  #now: number;
  #timers: { readonly at: number; readonly action: () => void }[] = [];

  constructor(wall: number) {
    this.#now = wall;
  }

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now;
  }

  after(delayMs: number, action: () => void): Timer {
    const timer = { at: this.#now + delayMs, action };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  get pending(): number {
    return this.#timers.length;
  }

  /** Moves on to the next timer and runs it, unless it is due later than `until`. Whether one ran. */
  runNext(until = Number.POSITIVE_INFINITY): boolean {
    const [next] = this.#timers.toSorted((a, b) => a.at - b.at);
    if (next === undefined || next.at > until) return false;
    this.#timers = this.#timers.filter((timer) => timer !== next);
    this.#now = Math.max(this.#now, next.at);
    next.action();
    return true;
  }

  /** Moves the calendar without running timers, as a machine that slept. */
  skip(milliseconds: number): void {
    this.#now += milliseconds;
  }

  /** Runs everything due in the next `milliseconds`, letting promises settle in between. */
  async advance(milliseconds: number): Promise<void> {
    const until = this.#now + milliseconds;
    await settle();
    while (this.runNext(until)) await settle();
    this.#now = until;
  }
}

/** Lets every promise that waits for nothing but other promises come to its end. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** One TLS handshake on loopback, as a dialer does it: only these roots, this name. Rejects when it is not accepted. */
export async function handshake(
  identity: { readonly certificateChainPem: string; readonly privateKeyPem: string },
  client: { readonly ca: readonly string[]; readonly servername: string },
): Promise<void> {
  const context = createSecureContext({ cert: identity.certificateChainPem, key: identity.privateKeyPem });
  const server = createTcpServer((socket) => {
    const secured = new TLSSocket(socket, { isServer: true, secureContext: context, ALPNProtocols: ["h2"] });
    secured.on("error", () => secured.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    await new Promise<void>((resolve, reject) => {
      const socket = connect({ host: "127.0.0.1", port, ca: [...client.ca], servername: client.servername });
      socket.once("secureConnect", () => {
        assert.equal(socket.authorized, true);
        socket.destroy();
        resolve();
      });
      socket.once("error", reject);
    });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}
