import type { Clock } from "../base/environment.js";
import type { PeeringError, PeeringErrorCode } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import { exportSync, ImportOutcomes, type ServiceSync } from "../exports/service-sync.js";
import { SIDECAR_SUFFIX } from "../payload/exported-payload.js";
import {
  isHealthy,
  NO_STREAM_FACTS,
  type ReportedState,
  reportedState,
  type StreamFacts,
  type StreamInstance,
  type StreamObservations,
  type StreamStatus,
  StreamTracker,
  streamStatus,
} from "../peering/observed.js";
import type { Peering } from "../peering/peering.js";
import type { Session, SessionDialect, SessionPhase, SessionStatus } from "../replication/types.js";
import type { ImportedService } from "../stores/import-store.js";

/** Why a stream, or an attempt at one, ended. */
export interface PeeringFailure {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly code: PeeringErrorCode;
  readonly message: string;
  /** The address dialed; undefined on an acceptor, and where the attempt failed before one was dialed. */
  readonly address: string | undefined;
  /** When the present series of failures began, in milliseconds since the epoch; a working stream ends a series. */
  readonly since: number;
}

/** Facts about a peering's streams, with times (milliseconds since the epoch), undefined while unseen. */
export interface PeeringStatus {
  /** `idle`: no stream and no attempt; `waiting`: between two attempts; else the phase of the stream there is. */
  readonly phase: "idle" | "waiting" | SessionPhase;
  /** Whether the other end of the present stream speaks as Consul 1.13 (`legacy`) or as later ones; undefined without a stream. */
  readonly dialect: SessionDialect | undefined;
  /** StreamStatus, as Consul calls it: lists of names, and times of the last traffic. */
  readonly stream: StreamStatus;
  readonly facts: StreamFacts;
  /** Consul's health rule: see `isHealthy`. */
  readonly healthy: boolean;
  readonly lastHeartbeatSent: number | undefined;
  readonly lastFailure: PeeringFailure | undefined;
  /** Consecutive failed attempts to dial, and when the next one comes. */
  readonly failedAttempts: number;
  readonly nextAttemptAt: number | undefined;
  /** Outward. */
  readonly queuedResources: number;
  readonly queuedBytes: number;
  readonly unacknowledged: number;
  /** How long something of ours has not reached the peer: 0 when all is acknowledged, undefined without a stream. */
  readonly lagMs: number | undefined;
  /** How long the peer has accepted nothing although something waits; 0 while nothing waits or all flows. */
  readonly stalledMs: number;
  /** Our answers that wait to be sent. */
  readonly answerBytes: number;
  /** Services we hold back, or the peer refused: name to reason. */
  readonly withheldServices: ReadonlyMap<string, string>;
  /**
   * Services of the peer that were refused on the stream there is, or was last, and resources of other types by their type
   * URL: name to reason. Their former versions are kept. Of very many, the first 10 000.
   */
  readonly refusedImports: ReadonlyMap<string, string>;
  /** Inward: responses received and not applied yet. */
  readonly applying: number;
  readonly applyingBytes: number;
}

interface BoardEntry {
  stream: BoardStream | undefined;
  lastFailure: PeeringFailure | undefined;
  failingSince: number | undefined;
  failedAttempts: number;
  nextAttemptAt: number | undefined;
  readonly heldBack: Map<string, string>;
  /** Of the stream there is, or was last. */
  outcomes: ImportOutcomes;
}

const SAMPLE_MS = 100;

/** One stream as the board follows it. Reports of a replaced stream change nothing (D-1). */
export class BoardStream {
  readonly #board: StatusBoard;
  readonly #instance: StreamInstance;
  readonly #clock: Clock;
  readonly session: Session;
  readonly #stored: () => readonly string[];
  readonly #outcomes: ImportOutcomes;
  readonly #withheld: Pick<SessionStatus, "heldBack" | "refusedByPeer">;
  #withheldSizes = "0 0";
  #connected = false;
  #sampledAt = Number.NEGATIVE_INFINITY;
  #inSyncAt: number;

  /** @internal */
  constructor(
    board: StatusBoard,
    instance: StreamInstance,
    session: Session,
    clock: Clock,
    stored: () => readonly string[],
    outcomes: ImportOutcomes,
  ) {
    this.#stored = stored;
    this.#outcomes = outcomes;
    this.#withheld = session.status;
    this.#board = board;
    this.#instance = instance;
    this.#clock = clock;
    this.session = session;
    this.#inSyncAt = clock.now();
  }

  /** Something happened on the stream. Cheap: called after every input. */
  progress(): void {
    this.#board.observed();
    if (!this.#connected) {
      if (this.session.status.phase !== "connected") return;
      this.#connected = true;
      this.#instance.connect(this.#clock.wall());
      this.#board.connected(this.#instance.peeringId);
      return;
    }
    const now = this.#clock.now();
    if (now - this.#sampledAt >= SAMPLE_MS) this.sample(now);
    const { heldBack, refusedByPeer } = this.#withheld;
    const sizes = `${heldBack.size} ${refusedByPeer.size}`;
    if (sizes === this.#withheldSizes) return;
    this.#withheldSizes = sizes;
    this.withheldChanged();
  }

  /** Other services than before are held back, or refused by the peer. */
  withheldChanged(): void {
    this.#board.changed(this.#instance.peeringId);
  }

  /** Looks whether everything of ours has been acknowledged. */
  sample(now: number): number {
    this.#sampledAt = now;
    const { queuedResources, unacknowledged } = this.session.status;
    if (queuedResources === 0 && unacknowledged === 0) {
      this.#inSyncAt = now;
      return 0;
    }
    // However coarse the clock: 0 says that nothing is under way.
    return Math.max(1, now - this.#inSyncAt);
  }

  /** A list of the peer's was applied. */
  imported(services: readonly string[]): void {
    this.#board.observed();
    this.#outcomes.list(services);
    this.#instance.observe({ type: "imported", services });
  }

  /** A service of the peer's was applied, or refused for a reason. */
  appliedService(name: string, refusal: string | undefined): void {
    this.#board.observed();
    this.#outcomes.note(name, refusal);
  }

  /** A resource of another type was applied, or refused for a reason. */
  appliedResource(resourceUrl: string, refusal: string | undefined): void {
    this.#board.observed();
    this.#outcomes.noteResource(resourceUrl, refusal);
  }

  /** Copies the session's facts into those that outlive it. */
  settle(): void {
    // Consul 1.13 sends no list: its exports are the services that came.
    if (this.session.status.dialect === "legacy") {
      this.#instance.observe({ type: "imported", services: withoutSidecars(this.#stored()) });
    }
    this.#instance.observe({ type: "progress", facts: observations(this.session.status, this.#clock) });
  }

  ended(error: PeeringError | undefined): void {
    this.settle();
    const wasCurrent = this.#instance.current;
    this.#instance.end(this.#clock.wall(), error?.message);
    if (wasCurrent) this.#board.streamEnded(this.#instance.peeringId, this, error);
  }
}

/** Status of every peering: the results of Consul's rules, and our own facts beside them. In memory only. */
export class StatusBoard {
  readonly #clock: Clock;
  readonly #tracker = new StreamTracker();
  readonly #entries = new Map<string, BoardEntry>();
  readonly #changed: Signal<[peeringId: string]>;
  #observations = 0;

  /** @param incidents - gets a report of each listener that throws. */
  constructor(clock: Clock, incidents: Incidents) {
    this.#clock = clock;
    this.#changed = new Signal(incidents);
  }

  /**
   * A new stream of this peering, the only one that counts from now on.
   * @param stored - names of all services that are imported from this peer now.
   */
  open(peeringId: string, session: Session, stored: () => readonly string[]): BoardStream {
    const entry = this.#entry(peeringId);
    entry.outcomes = new ImportOutcomes();
    const instance = this.#tracker.open(peeringId);
    const stream = new BoardStream(this, instance, session, this.#clock, stored, entry.outcomes);
    entry.stream = stream;
    entry.nextAttemptAt = undefined;
    return stream;
  }

  /** Another number after anything was seen of any stream: what {@link statusOf} tells is else the same, but for what passes with time. */
  get observations(): number {
    return this.#observations;
  }

  /** @internal */
  observed(): void {
    this.#observations++;
  }

  /** Calls `listener` after each change of a stream's state. */
  onChange(listener: (peeringId: string) => void): () => void {
    return this.#changed.on(listener);
  }

  dialFailed(peeringId: string, error: PeeringError, address: string | undefined, waitMs: number): void {
    const entry = this.#entry(peeringId);
    this.#failed(entry, error, address);
    entry.failedAttempts++;
    entry.nextAttemptAt = this.#clock.wall() + waitMs;
    this.#tracker.dialFailed(peeringId, this.#clock.wall(), error.message);
    this.#notify(peeringId);
  }

  /** No next attempt is planned any more. */
  dialStopped(peeringId: string): void {
    const entry = this.#entries.get(peeringId);
    if (entry?.nextAttemptAt === undefined) return;
    entry.nextAttemptAt = undefined;
    this.#notify(peeringId);
  }

  /** A service of ours that no peer could survive is not sent (D-28). */
  heldBack(peeringId: string, service: string, reason: string): void {
    this.#entry(peeringId).heldBack.set(service, reason);
    this.#notify(peeringId);
  }

  /** It is sent again, or exported no more. */
  released(peeringId: string, service: string): void {
    if (this.#entry(peeringId).heldBack.delete(service)) this.#notify(peeringId);
  }

  forget(peeringId: string): void {
    this.#tracker.forget(peeringId);
    this.#entries.delete(peeringId);
    this.#notify(peeringId);
  }

  stateOf(peering: Peering): ReportedState {
    return reportedState(peering, this.#tracker.facts(peering.id));
  }

  /** @param stored - the names of the imports from this peer. */
  servicesOf(peeringId: string, stored: readonly ImportedService[]): ServiceSync {
    const entry = this.#entries.get(peeringId);
    const services = entry?.stream?.session.services();
    const listed = this.#tracker.facts(peeringId)?.importedServices ?? [];
    return {
      imported: (entry?.outcomes ?? new ImportOutcomes()).sync(listed, services?.applying ?? new Set(), stored),
      exported: exportSync(services, entry?.heldBack ?? new Map(), this.statusOf(peeringId).withheldServices),
    };
  }

  statusOf(peeringId: string): PeeringStatus {
    const entry = this.#entries.get(peeringId);
    const stream = entry?.stream;
    stream?.settle();
    const facts = this.#tracker.facts(peeringId);
    const session = stream?.session.status;
    const now = this.#clock.now();
    const withheld = new Map(entry?.heldBack);
    for (const [service, bytes] of session?.heldBack ?? []) {
      withheld.set(service, `${bytes} bytes are more than the peer accepts in one message`);
    }
    for (const [service, reason] of session?.refusedByPeer ?? [])
      withheld.set(service, `refused by the peer: ${reason}`);
    return {
      phase: session?.phase ?? (entry?.nextAttemptAt === undefined ? "idle" : "waiting"),
      dialect: session?.dialect,
      stream: streamStatus(facts),
      facts: facts ?? NO_STREAM_FACTS,
      healthy: facts !== undefined && !facts.neverConnected && isHealthy(facts, this.#clock.wall()),
      lastHeartbeatSent: wallTime(session?.lastHeartbeatOutMs, this.#clock),
      lastFailure: entry?.lastFailure,
      failedAttempts: entry?.failedAttempts ?? 0,
      nextAttemptAt: entry?.nextAttemptAt,
      queuedResources: session?.queuedResources ?? 0,
      queuedBytes: session?.queuedBytes ?? 0,
      unacknowledged: session?.unacknowledged ?? 0,
      lagMs: stream?.sample(now),
      stalledMs: session?.stalledSinceMs === undefined ? 0 : Math.max(0, now - session.stalledSinceMs),
      answerBytes: session?.answerBytes ?? 0,
      withheldServices: withheld,
      refusedImports: entry?.outcomes.refused() ?? new Map(),
      applying: session?.applying ?? 0,
      applyingBytes: session?.applyingBytes ?? 0,
    };
  }

  /** @internal */
  changed(peeringId: string): void {
    this.#notify(peeringId);
  }

  /** @internal */
  connected(peeringId: string): void {
    const entry = this.#entry(peeringId);
    entry.failedAttempts = 0;
    entry.failingSince = undefined;
    this.#notify(peeringId);
  }

  /** @internal */
  streamEnded(peeringId: string, stream: BoardStream, error: PeeringError | undefined): void {
    const entry = this.#entry(peeringId);
    if (entry.stream === stream) entry.stream = undefined;
    if (error !== undefined) this.#failed(entry, error, undefined);
    this.#notify(peeringId);
  }

  #failed(entry: BoardEntry, { code, message }: PeeringError, address: string | undefined): void {
    const at = this.#clock.wall();
    entry.failingSince ??= at;
    entry.lastFailure = { at, code, message, address, since: entry.failingSince };
  }

  #entry(peeringId: string): BoardEntry {
    let entry = this.#entries.get(peeringId);
    if (entry === undefined) {
      entry = {
        stream: undefined,
        lastFailure: undefined,
        failingSince: undefined,
        failedAttempts: 0,
        nextAttemptAt: undefined,
        heldBack: new Map(),
        outcomes: new ImportOutcomes(),
      };
      this.#entries.set(peeringId, entry);
    }
    return entry;
  }

  #notify(peeringId: string): void {
    this.#observations++;
    this.#changed.emit(peeringId);
  }
}

function wallTime(monotonicMs: number | undefined, clock: Clock): number | undefined {
  return monotonicMs === undefined ? undefined : clock.wall() - (clock.now() - monotonicMs);
}

/** The session's facts as times for people; an event that this stream has not seen leaves the older fact in place. */
function observations(status: SessionStatus, clock: Clock): StreamObservations {
  const { dialect, exportedServices } = status;
  const at = (monotonicMs: number | undefined): number | undefined => wallTime(monotonicMs, clock);
  return {
    ...(status.lastAckMs === undefined ? {} : { lastAck: at(status.lastAckMs) }),
    ...(status.lastNackMs === undefined
      ? {}
      : { lastNack: at(status.lastNackMs), lastNackMessage: status.lastNackMessage }),
    ...(status.lastSendSuccessMs === undefined ? {} : { lastSendSuccess: at(status.lastSendSuccessMs) }),
    ...(status.lastHeartbeatInMs === undefined ? {} : { lastReceiveHeartbeat: at(status.lastHeartbeatInMs) }),
    ...(status.lastReceiveSuccessMs === undefined
      ? {}
      : { lastReceiveResourceSuccess: at(status.lastReceiveSuccessMs) }),
    ...(status.lastReceiveErrorMs === undefined
      ? {}
      : { lastReceiveError: at(status.lastReceiveErrorMs), lastReceiveErrorMessage: status.lastReceiveErrorMessage }),
    ...(exportedServices === undefined
      ? {}
      : { exportedServices: dialect === "legacy" ? withoutSidecars(exportedServices) : exportedServices }),
  };
}

/** As the list of a later Consul names them. */
function withoutSidecars(services: readonly string[]): readonly string[] {
  return services.filter((name) => !name.endsWith(SIDECAR_SUFFIX));
}
