import { closeSync, fstatSync, openSync, readdirSync, readFileSync } from "node:fs";
import type { Http2Session } from "node:http2";
import type { Socket } from "node:net";
import { Alarm } from "../base/alarm.js";
import { type Clock, systemClock } from "../base/environment.js";
import { errorCode, errorText } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import { Incidents } from "../base/incidents.js";
import { type NoPlace, type Place, Places, sourceOf } from "../base/sources.js";

import { Handshakes } from "./handshakes.js";

export interface ConnectionLimitsOptions {
  /**
   * Descriptors that the process may have open, as `ulimit -n` shows. Default: what `/proc/self/limits` says, and 1 024 where
   * there is none.
   */
  readonly descriptors?: number;
  /**
   * How many of them no accepted connection may use: they are for storage and for dialing. Default: a quarter, but no fewer
   * than 64 and no more than 1 024, nor than half.
   */
  readonly reservedDescriptors?: number;
  /**
   * Connections of all listeners together. Default: as many as the descriptors allow, but no more than 4 096. An eighth is kept for
   * each listener, whatever the others hold.
   */
  readonly connections?: number;
  /**
   * How long a connection is safe after it was accepted or its last request has ended, in milliseconds, when all places are
   * taken and another one wants to connect. Default 2 000.
   */
  readonly graceMs?: number;
  /**
   * TLS handshakes of one source that are under way at one listener. Default 64; others wait, as long as a connection may take for
   * its first request.
   */
  readonly handshakesPerSource?: number;
  /**
   * TLS handshakes of all sources that are under way at one listener. Default 512; others wait, and the place of one that takes
   * longer than `graceMs` goes to one that waits.
   */
  readonly handshakes?: number;
  /**
   * Calls of one source over HTTP/2 that are open, whatever they wait for. Default 4 096; more are answered REFUSED_STREAM, which
   * tells a client that they have not begun.
   */
  readonly streamsPerSource?: number;
  /** The same for all sources; of the second half a source gets the less, the more it has. Default 16 384. */
  readonly streams?: number;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Gets a report of each connection that is refused, displaced, or closed because it was silent. Default: no reports. */
  readonly incidents?: Incidents;
}

/** How many connections one listener takes, and for how long one may say nothing. */
export interface ListenerLimits {
  /** Connections of one source: an IPv4 address, or the /64 of an IPv6 one. */
  readonly perSource: number;
  /** Connections of all sources. */
  readonly inAll: number;
  /** How long a new one may take until its first request, or its handshake, is complete, in milliseconds. */
  readonly firstRequestMs: number;
  /** How long one may be without a request later, in milliseconds. */
  readonly idleMs: number;
}

/** A connection that was taken in. */
export interface Connection {
  /**
   * Calls `begin` when its TLS handshake may begin, which may be at once, or never if it is closed before.
   * @returns the handshake is over.
   */
  handshake(begin: () => void): () => void;
  /** It has a request. Call the returned function, once or more often, when that has been answered. */
  request(): () => void;
  /**
   * It has a call over HTTP/2. Call the returned function, once or more often, when its stream is closed.
   * @returns undefined: there are too many, and it must be refused.
   */
  stream(): (() => void) | undefined;
  /** It belongs to an authorised peer: it counts against no limit and cannot be displaced. Until the returned function is called. */
  authorized(): () => void;
}

/** Admits the connections of one listener. */
export interface ConnectionGuard {
  /**
   * Counts a connection, or closes it. It is given back when the socket closes.
   * @param end - ends a connection that was silent for too long. Default: destroys the socket, as when it is displaced.
   */
  admit(socket: Socket, end?: () => void): Connection | undefined;
  /** The listener has failed, or could not accept a connection. */
  failed(error: unknown): void;
  /** The listener is closed. */
  close(): void;
}

interface Listener {
  readonly name: string;
  readonly places: Places;
  readonly handshakes: Handshakes;
  /** All connections, also those of authorised peers. */
  connections: number;
}

/** How often it is looked at the descriptors of the process. */
const PROBE_MS = 1_000;
/** Where Linux and macOS list them. */
const OPEN_DESCRIPTORS = "/dev/fd";

const DESCRIPTORS_WHERE_UNKNOWN = 1_024;
const MAX_CONNECTIONS = 4_096;
const DEFAULT_GRACE_MS = 2_000;
const DEFAULT_HANDSHAKES_PER_SOURCE = 64;
const DEFAULT_HANDSHAKES = 512;
const DEFAULT_STREAMS_PER_SOURCE = 4_096;
const DEFAULT_STREAMS = 16_384;
/** One in so many places is kept for each listener: few, as these places may have to be taken from connections at work. */
const GUARANTEED_PART = 8;

/**
 * The connections that all listeners of a process may hold together, so that strangers never take the descriptors that storage
 * and dialing need. Pass one to each listener of a process.
 */
export class ConnectionLimits {
  readonly #most: number;
  /** Descriptors that may be open before the reserve begins. */
  readonly #ceiling: number;
  readonly #graceMs: number;
  readonly #handshakes: { readonly perSource: number; readonly inAll: number };
  readonly #streamLimits: { readonly perSource: number; readonly inAll: number };
  /** Open calls over HTTP/2, by source. */
  readonly #streams = new Map<string, number>();
  #streamsInAll = 0;
  readonly #clock: Clock;
  readonly #incidents: Incidents;
  readonly #listeners = new Set<Listener>();
  readonly #nextProbe: Alarm;
  /** Descriptors that are no connections, when it was last looked. */
  #others = 0;

  constructor(options: ConnectionLimitsOptions = {}) {
    const descriptors = options.descriptors ?? descriptorLimit() ?? DESCRIPTORS_WHERE_UNKNOWN;
    const reserved =
      options.reservedDescriptors ?? Math.floor(Math.min(1_024, Math.max(64, descriptors / 4), descriptors / 2));
    if (reserved >= descriptors) {
      throw new TypeError(`of ${descriptors} descriptors, ${reserved} are reserved: none is left for connections`);
    }
    this.#ceiling = descriptors - reserved;
    this.#most = options.connections ?? MAX_CONNECTIONS;
    this.#graceMs = options.graceMs ?? DEFAULT_GRACE_MS;
    this.#handshakes = {
      perSource: options.handshakesPerSource ?? DEFAULT_HANDSHAKES_PER_SOURCE,
      inAll: options.handshakes ?? DEFAULT_HANDSHAKES,
    };
    this.#streamLimits = {
      perSource: options.streamsPerSource ?? DEFAULT_STREAMS_PER_SOURCE,
      inAll: options.streams ?? DEFAULT_STREAMS,
    };
    this.#clock = options.clock ?? systemClock;
    this.#nextProbe = new Alarm(this.#clock, () => this.#probe());
    this.#incidents = options.incidents ?? new Incidents();
  }

  /** @param name - for log lines: of the protocol, such as `http`. */
  listener(name: string, limits: ListenerLimits): ConnectionGuard {
    const places = new Places({ ...limits, graceMs: this.#graceMs }, this.#clock);
    const handshakeLimits = { ...this.#handshakes, graceMs: this.#graceMs };
    const handshakes = new Handshakes(name, handshakeLimits, this.#clock, this.#incidents);
    const listener: Listener = { name, places, handshakes, connections: 0 };
    this.#listeners.add(listener);
    if (!this.#nextProbe.isSet) this.#probe();
    return {
      admit: (socket, end) => this.#admit(listener, limits, socket, end ?? (() => socket.destroy())),
      failed: (error) => {
        if (isOutOfDescriptors(error)) return this.#outOfDescriptors(error);
        const fields = { listener: name, error: errorText(error) };
        this.#incidents.report("listener-failed", "a listener failed or could not accept a connection", fields);
      },
      close: () => {
        this.#listeners.delete(listener);
        if (this.#listeners.size === 0) this.#nextProbe.cancel();
      },
    };
  }

  #admit(listener: Listener, limits: ListenerLimits, socket: Socket, end: () => void): Connection | undefined {
    const { name, places } = listener;
    const { remoteAddress, remotePort = 0 } = socket;
    if (remoteAddress === undefined) {
      // It has gone while it waited to be accepted.
      socket.destroy();
      return undefined;
    }
    const source = sourceOf(joinHostPort(remoteAddress, remotePort));
    const report = (kind: string, message: string): void =>
      this.#incidents.report(kind, message, { listener: name, source });
    const refuse = (reason: NoPlace): undefined => {
      if (reason === "source") report("connection-refused-to-source", "a source has as many connections as it may");
      else report("connection-refused", "all places for connections are taken: a new one was closed");
      socket.destroy();
    };
    // In this order: a connection that its source may not have displaces none.
    const none = places.makeRoom(source);
    if (none !== undefined) return refuse(none);
    if (this.#connections >= this.#room && !this.#makeRoom(listener, source)) return refuse("all");
    let place: Place | undefined;
    let requests = 0;
    let peers = 0;
    let used = false;
    const idle = new Alarm(this.#clock, () => {
      if (!used) report("connection-silent", "a connection made no request in time and was closed");
      end();
    });
    let counted = false;
    let handshakeOver = (): void => {};
    const leave = (): void => {
      idle.cancel();
      handshakeOver();
      place?.leave();
      if (counted) listener.connections--;
      counted = false;
    };
    const drop = (): void => {
      // At once, and not when the socket says that it is closed: the next newcomer is counted before.
      leave();
      socket.destroy();
    };
    const take = (): void => {
      const taken = places.take(source, () => {
        report("connection-displaced", "all places for connections are taken: an older one was closed for a new one");
        drop();
      });
      if (typeof taken === "object") {
        place = taken;
        return;
      }
      leave();
      refuse(taken);
    };
    const settle = (): void => {
      idle.cancel();
      if (socket.destroyed) return;
      if (requests > 0) {
        place?.work();
        return;
      }
      place?.wait();
      idle.set(used ? limits.idleMs : limits.firstRequestMs);
    };
    const begin = (over: () => void): (() => void) => {
      used = true;
      requests++;
      settle();
      let ended = false;
      return () => {
        if (ended) return;
        ended = true;
        requests--;
        over();
        settle();
      };
    };
    take();
    if (socket.destroyed) return undefined;
    counted = true;
    listener.connections++;
    socket.once("close", leave);
    settle();
    return {
      handshake: (start) => {
        handshakeOver = listener.handshakes.enter(source, start, drop);
        return () => handshakeOver();
      },
      request: () => begin(() => {}),
      stream: () => this.#takeStream(name, source),
      authorized: () => {
        place?.leave();
        place = undefined;
        peers++;
        return begin(() => {
          peers--;
          if (peers === 0 && !socket.destroyed) take();
        });
      },
    };
  }

  #takeStream(listener: string, source: string): (() => void) | undefined {
    const { perSource, inAll } = this.#streamLimits;
    const own = (this.#streams.get(source) ?? 0) + 1;
    if (own > perSource) {
      const fields = { listener, source, limit: perSource };
      this.#incidents.report("stream-refused-to-source", "a source has as many calls open as it may", fields);
      return undefined;
    }
    if (this.#streamsInAll >= (inAll * (1 + 1 / own)) / 2) {
      const fields = { listener, source, limit: inAll };
      this.#incidents.report("stream-refused", "as many calls are open as may be", fields);
      return undefined;
    }
    this.#streams.set(source, own);
    this.#streamsInAll++;
    let closed = false;
    return () => {
      if (closed) return;
      closed = true;
      const left = (this.#streams.get(source) ?? 0) - 1;
      if (left > 0) this.#streams.set(source, left);
      else this.#streams.delete(source);
      this.#streamsInAll--;
    };
  }

  get #connections(): number {
    let sum = 0;
    for (const { connections } of this.#listeners) sum += connections;
    return sum;
  }

  /** Connections that there may be. */
  get #room(): number {
    return Math.min(this.#most, this.#ceiling - this.#others);
  }

  /**
   * Displaces another connection, so that a new one of `source` can take its place: one that only waits, of the listener with most
   * of these; one that works only for a listener that has next to nothing, or for a source that holds less.
   */
  #makeRoom(listener: Listener, source: string): boolean {
    if (this.#displaceStale()) return true;
    const guaranteed = this.#room / GUARANTEED_PART;
    const others = [...this.#listeners].filter((one) => one !== listener && one.connections > guaranteed);
    const [idlest] = others.sort((one, other) => other.places.waiting - one.places.waiting);
    if (idlest !== undefined && idlest.places.waiting > listener.places.waiting) return idlest.places.displaceWaiting();
    if (listener.connections < guaranteed && others.some(({ places }) => places.displaceFor(undefined))) return true;
    return listener.places.displaceFor(source);
  }

  #displaceStale(): boolean {
    const byConnections = [...this.#listeners].sort((one, other) => other.connections - one.connections);
    return byConnections.some(({ places }) => places.displaceStale());
  }

  /**
   * Looks how many descriptors others hold, and whether one can be opened at all: a listener of Node is not told when there is
   * none to accept with. Such a connection is closed by the system interface below it.
   */
  #probe(): void {
    this.#nextProbe.set(PROBE_MS);
    try {
      this.#others = countDescriptors() - this.#connections;
    } catch (error) {
      // Where the system does not list them, only connections are counted.
      if (isOutOfDescriptors(error)) this.#outOfDescriptors(error);
    }
  }

  #outOfDescriptors(error: unknown): void {
    reportOutOfDescriptors(this.#incidents, error);
    // Connections that only wait give their descriptors back.
    while (this.#displaceStale());
  }
}

/** @throws where the system tells nothing of them, or there is none left to look with. */
function countDescriptors(): number {
  const looking = openSync(OPEN_DESCRIPTORS, "r");
  try {
    // Linux tells it since 6.2: with thousands of connections, to list them takes tens of milliseconds.
    const { size } = fstatSync(looking);
    if (process.platform === "linux" && size > 0) return size;
  } finally {
    closeSync(looking);
  }
  return readdirSync(OPEN_DESCRIPTORS).length;
}

/** How long the other side may take to close a connection once it was told that the session ends. */
const GOODBYE_MS = 1_000;

/** Ends a connection: at once, or, where it has a session of HTTP/2, after it was told. */
export function hangUp(socket: Socket, session: Http2Session | undefined): void {
  if (session === undefined || session.destroyed) {
    socket.destroy();
    return;
  }
  session.close();
  setTimeout(() => {
    session.destroy();
    socket.destroy();
  }, GOODBYE_MS).unref();
}

/** Whether the process, or the system, cannot open one more file or socket. */
export function isOutOfDescriptors(error: unknown): boolean {
  const code = errorCode(error);
  return code === "EMFILE" || code === "ENFILE";
}

/** Tells of what {@link isOutOfDescriptors} finds, wherever it is found. */
export function reportOutOfDescriptors(incidents: Incidents, error: unknown): void {
  const message = "the process has no descriptor left: connections are lost, and storage and dialing fail";
  incidents.report("descriptors-exhausted", message, { error: errorText(error) });
}

/** The soft limit of the process on open descriptors, where the system tells it. Node has raised it to the hard one. */
function descriptorLimit(): number | undefined {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1")) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
