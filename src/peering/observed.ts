import { PeeringError } from "../base/errors.js";
import { isActive, type Peering, type StoredState } from "./peering.js";

/**
 * Observations of the streams of one peering since this process began: facts, each with its time in milliseconds since
 * the Unix epoch, undefined while it did not happen. Times and lists outlive the stream they came from.
 */
export interface StreamFacts {
  /** Acceptor: from the accepted `Open`. Dialer: from the acceptor's first message (D-7). */
  readonly connected: boolean;
  readonly neverConnected: boolean;
  /** When the stream that is up came up. Ours. */
  readonly connectTime: number | undefined;
  /** When the last stream ended; undefined while one is up (D-8). */
  readonly disconnectTime: number | undefined;
  /** Why the last stream ended, `""` for a graceful end or while one is up. */
  readonly disconnectErrorMessage: string;
  /** Last ACK or new subscription received. */
  readonly lastAck: number | undefined;
  readonly lastNack: number | undefined;
  readonly lastNackMessage: string;
  /** Last `Response` sent. Heartbeats, ACKs and subscriptions are not counted. */
  readonly lastSendSuccess: number | undefined;
  /** Last `Response` that could not be sent; on a dialer also the last failed dial or broken stream. */
  readonly lastSendError: number | undefined;
  readonly lastSendErrorMessage: string;
  readonly lastReceiveHeartbeat: number | undefined;
  /** Last `Response` applied. */
  readonly lastReceiveResourceSuccess: number | undefined;
  /** Last `Response` refused, or the stream's receive error. */
  readonly lastReceiveError: number | undefined;
  readonly lastReceiveErrorMessage: string;
  /** Names of the last exported-service list applied. */
  readonly importedServices: readonly string[];
  /** Names of the last exported-service list sent. */
  readonly exportedServices: readonly string[];
}

/** Facts that a running stream adds to; connecting and ending it set whether it is up. */
export type StreamObservations = Partial<
  Omit<StreamFacts, "connected" | "neverConnected" | "connectTime" | "disconnectTime" | "disconnectErrorMessage">
>;

/** Something seen on a stream, `at` a time in milliseconds since the Unix epoch. */
export type StreamObservation =
  | { readonly type: "connected"; readonly at: number }
  | { readonly type: "ended"; readonly at: number; readonly error?: string }
  | { readonly type: "acknowledged"; readonly at: number }
  | { readonly type: "refused"; readonly at: number; readonly message: string }
  | { readonly type: "sent"; readonly at: number }
  | { readonly type: "send-failed"; readonly at: number; readonly message: string }
  | { readonly type: "heartbeat-received"; readonly at: number }
  | { readonly type: "applied"; readonly at: number }
  | { readonly type: "receive-failed"; readonly at: number; readonly message: string }
  | { readonly type: "imported"; readonly services: readonly string[] }
  | { readonly type: "exported"; readonly services: readonly string[] }
  | { readonly type: "progress"; readonly facts: StreamObservations };

/** The facts of a peering that had no stream yet. */
export const NO_STREAM_FACTS: StreamFacts = {
  connected: false,
  neverConnected: true,
  connectTime: undefined,
  disconnectTime: undefined,
  disconnectErrorMessage: "",
  lastAck: undefined,
  lastNack: undefined,
  lastNackMessage: "",
  lastSendSuccess: undefined,
  lastSendError: undefined,
  lastSendErrorMessage: "",
  lastReceiveHeartbeat: undefined,
  lastReceiveResourceSuccess: undefined,
  lastReceiveError: undefined,
  lastReceiveErrorMessage: "",
  importedServices: [],
  exportedServices: [],
};

/** The facts after `observation`; the given ones are unchanged. */
export function observe(facts: StreamFacts, observation: StreamObservation): StreamFacts {
  switch (observation.type) {
    case "connected":
      // Consul leaves neverConnected and a zero disconnectTime behind, which makes its health metric wrong (D-8).
      return {
        ...facts,
        connected: true,
        neverConnected: false,
        connectTime: observation.at,
        disconnectTime: undefined,
        disconnectErrorMessage: "",
      };
    case "ended":
      return {
        ...facts,
        connected: false,
        connectTime: undefined,
        disconnectTime: observation.at,
        disconnectErrorMessage: observation.error ?? "",
      };
    case "acknowledged":
      return { ...facts, lastAck: observation.at };
    case "refused":
      return {
        ...facts,
        lastNack: observation.at,
        lastNackMessage: `client peer was unable to apply resource: ${observation.message}`,
      };
    case "sent":
      return { ...facts, lastSendSuccess: observation.at };
    case "send-failed":
      return { ...facts, lastSendError: observation.at, lastSendErrorMessage: observation.message };
    case "heartbeat-received":
      return { ...facts, lastReceiveHeartbeat: observation.at };
    case "applied":
      return { ...facts, lastReceiveResourceSuccess: observation.at };
    case "receive-failed":
      return { ...facts, lastReceiveError: observation.at, lastReceiveErrorMessage: observation.message };
    case "imported":
      return { ...facts, importedServices: observation.services };
    case "exported":
      return { ...facts, exportedServices: observation.services };
    case "progress":
      return { ...facts, ...observation.facts };
  }
}

/** The facts in the form for readers. */
export type ReportedState = StoredState | "active" | "failing";

/**
 * The state shown to operators: the one place where ACTIVE and FAILING are computed (Consul 1.13 to 1.22). A stored
 * DELETING or TERMINATED is shown as it is, whatever the last stream still does (D-9). No clock is needed: a stream
 * without heartbeats is ended by a watchdog of its own, so ACTIVE is never older than that.
 * @param facts - undefined: no stream was seen since this process began.
 */
export function reportedState(peering: Pick<Peering, "state">, facts: StreamFacts | undefined): ReportedState {
  if (!isActive(peering)) return peering.state;
  if (facts?.connected === true) return "active";
  return facts !== undefined && facts.disconnectErrorMessage !== "" ? "failing" : peering.state;
}

/** Consul's StreamStatus. Times are milliseconds since the Unix epoch. */
export interface StreamStatus {
  readonly importedServices: readonly string[];
  readonly exportedServices: readonly string[];
  readonly lastHeartbeat: number | undefined;
  /** {@link ZERO_TIME} where facts are kept but nothing was received yet, as Consul 1.15 and later. */
  readonly lastReceive: number | undefined;
  /** {@link ZERO_TIME} where facts are kept but nothing was sent yet. */
  readonly lastSend: number | undefined;
}

/** `0001-01-01T00:00:00Z`, the time that Consul prints for "never" in some places, in Unix milliseconds. */
export const ZERO_TIME = -62_135_596_800_000;

/** The stream facts that a read shows. Without facts everything is unset. */
export function streamStatus(facts: StreamFacts | undefined): StreamStatus {
  if (facts === undefined) {
    return {
      importedServices: [],
      exportedServices: [],
      lastHeartbeat: undefined,
      lastReceive: undefined,
      lastSend: undefined,
    };
  }
  const { lastReceiveHeartbeat, lastReceiveError, lastReceiveResourceSuccess } = facts;
  return {
    importedServices: facts.importedServices,
    exportedServices: facts.exportedServices,
    lastHeartbeat: lastReceiveHeartbeat,
    lastReceive: latest(lastReceiveHeartbeat, lastReceiveError, lastReceiveResourceSuccess),
    lastSend: latest(facts.lastSendError, facts.lastSendSuccess),
  };
}

function latest(...times: readonly (number | undefined)[]): number {
  return Math.max(ZERO_TIME, ...times.map((time) => time ?? ZERO_TIME));
}

/** How long a trouble may last before it makes a peering unhealthy. As in Consul. */
export const HEALTH_TIMEOUT_MS = 120_000;

/**
 * Whether the metric calls the peering healthy: no disconnection, no NACK without a later ACK and no receive error
 * without a later success is older than `timeoutMs`. Heartbeats and send errors play no part.
 * @param now - milliseconds since the Unix epoch.
 */
export function isHealthy(facts: StreamFacts, now: number, timeoutMs: number = HEALTH_TIMEOUT_MS): boolean {
  const beginning = Number.NEGATIVE_INFINITY;
  const { disconnectTime, lastNack, lastReceiveError } = facts;
  if (disconnectTime !== undefined && now - disconnectTime > timeoutMs) return false;
  const lastAck = facts.lastAck ?? beginning;
  if (lastNack !== undefined && lastNack > lastAck && now - lastAck > timeoutMs) return false;
  const lastSuccess = facts.lastReceiveResourceSuccess ?? beginning;
  return !(lastReceiveError !== undefined && lastReceiveError > lastSuccess && now - lastReceiveError > timeoutMs);
}

/** One stream of a peering. Once a newer one was opened, observations of this one change nothing any more (D-1). */
export interface StreamInstance {
  readonly peeringId: string;
  /** Whether this is the newest stream of its peering and has not ended. */
  readonly current: boolean;
  /** The stream is up. Before, a dialer's stream is only being tried (D-7). */
  connect(at: number): void;
  observe(observation: Exclude<StreamObservation, { readonly type: "connected" | "ended" }>): void;
  /** The stream is over; `error` is absent for a graceful end. */
  end(at: number, error?: string): void;
}

/** The facts about the streams of every peering, by local id. In memory only: a restart begins without any. */
export class StreamTracker {
  readonly #entries = new Map<string, TrackerEntry>();

  /** Keeps facts for `peeringId` from now on. */
  register(peeringId: string): void {
    this.#entry(peeringId);
  }

  /**
   * A new stream, not up yet. It replaces an older one, whose end then changes nothing; the facts of the older one stand
   * until this one connects or ends.
   */
  open(peeringId: string): StreamInstance {
    const entry = this.#entry(peeringId);
    const instance = new TrackedStream(peeringId, entry);
    entry.current = instance;
    return instance;
  }

  /**
   * Consul's contract: a new stream that is up, unless one is.
   * @throws {PeeringError} `conflict`, without any effect on the stream that is up.
   */
  connected(peeringId: string, at: number): StreamInstance {
    if (this.#entries.get(peeringId)?.facts.connected === true) {
      throw new PeeringError("conflict", `there is an active stream for the given PeerID "${peeringId}"`);
    }
    const instance = this.open(peeringId);
    instance.connect(at);
    return instance;
  }

  /** A dial attempt failed before there was a stream. The state shown stays as it was. */
  dialFailed(peeringId: string, at: number, message: string): void {
    const entry = this.#entry(peeringId);
    entry.facts = observe(entry.facts, { type: "send-failed", at, message });
  }

  /** Undefined where nothing was registered, or all was forgotten. */
  facts(peeringId: string): StreamFacts | undefined {
    return this.#entries.get(peeringId)?.facts;
  }

  /** The streams that are up. */
  connectedStreams(): ReadonlyMap<string, StreamInstance> {
    const streams = new Map<string, StreamInstance>();
    for (const [id, { facts, current }] of this.#entries) {
      if (facts.connected && current !== undefined) streams.set(id, current);
    }
    return streams;
  }

  /** Forgets a peering: its stream was ended because its record went. */
  forget(peeringId: string): void {
    const entry = this.#entries.get(peeringId);
    if (entry !== undefined) entry.current = undefined;
    this.#entries.delete(peeringId);
  }

  #entry(peeringId: string): TrackerEntry {
    let entry = this.#entries.get(peeringId);
    if (entry === undefined) {
      entry = { facts: NO_STREAM_FACTS, current: undefined };
      this.#entries.set(peeringId, entry);
    }
    return entry;
  }
}

interface TrackerEntry {
  facts: StreamFacts;
  current: StreamInstance | undefined;
}

class TrackedStream implements StreamInstance {
  readonly peeringId: string;
  readonly #entry: TrackerEntry;

  constructor(peeringId: string, entry: TrackerEntry) {
    this.peeringId = peeringId;
    this.#entry = entry;
  }

  get current(): boolean {
    return this.#entry.current === this;
  }

  connect(at: number): void {
    this.#observe({ type: "connected", at });
  }

  observe(observation: StreamObservation): void {
    this.#observe(observation);
  }

  end(at: number, error?: string): void {
    this.#observe(error === undefined ? { type: "ended", at } : { type: "ended", at, error });
    if (this.current) this.#entry.current = undefined;
  }

  #observe(observation: StreamObservation): void {
    if (this.current) this.#entry.facts = observe(this.#entry.facts, observation);
  }
}
