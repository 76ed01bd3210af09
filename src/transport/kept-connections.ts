import { type Clock, systemClock, type Timer } from "../base/environment.js";
import { splitHostPort } from "../base/host-port.js";
import type { ClientConnection } from "./client-connection.js";
import type { DialTarget } from "./transport.js";

/** Connections that are kept at the same time; beyond, the oldest one is closed. */
const MAX_KEPT = 16;
/** How long one is kept: the stream follows as soon as the secret is stored. */
const KEPT_MS = 2_000;

/** The part of a connection that is of use here. */
type Keepable = Pick<ClientConnection, "remoteAddress" | "failure" | "close"> & {
  readonly session: { readonly closed: boolean; once(event: "close", listener: () => void): unknown };
};

interface Kept<Connection> {
  readonly connection: Connection;
  readonly timer: Timer;
}

/**
 * Connections over which a secret was exchanged, for the stream that follows: it is opened at the same address, and is to trust the
 * same certificate. Consul's servers, too, have both calls on one port. Each is handed on once.
 */
export class KeptConnections<Connection extends Keepable> {
  /** The oldest one first. */
  readonly #kept = new Map<string, Kept<Connection>>();
  readonly #clock: Clock;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** How many are kept. */
  get size(): number {
    return this.#kept.size;
  }

  /** Keeps a connection that stands, or closes it. */
  keep(target: DialTarget, connection: Connection): void {
    const key = keyOf(target);
    this.#drop(key);
    const timer = this.#clock.after(KEPT_MS, () => this.#drop(key));
    this.#kept.set(key, { connection, timer });
    connection.session.once("close", () => {
      if (this.#kept.get(key)?.connection === connection) this.#drop(key);
    });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_KEPT && oldest !== undefined) this.#drop(oldest);
  }

  /** The connection that was kept of this very target, if it stands, and leads to an address that may be dialed still. */
  take(target: DialTarget): Connection | undefined {
    const key = keyOf(target);
    const kept = this.#kept.get(key);
    if (kept === undefined) return undefined;
    const { connection } = kept;
    const host = splitHostPort(connection.remoteAddress)?.host ?? "";
    const { session } = connection;
    const stands = !session.closed && connection.failure() === undefined;
    if (!stands || target.mayDial?.(host) === false) {
      this.#drop(key);
      return undefined;
    }
    kept.timer.cancel();
    this.#kept.delete(key);
    return connection;
  }

  /** Closes all of them. */
  clear(): void {
    for (const key of [...this.#kept.keys()]) this.#drop(key);
  }

  #drop(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    kept.timer.cancel();
    this.#kept.delete(key);
    void kept.connection.close();
  }
}

/** All that the verification of its certificate depends on. */
function keyOf({ address, serverName, caPems }: DialTarget): string {
  return JSON.stringify([address, serverName, caPems]);
}
