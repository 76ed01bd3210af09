import { type Abortable, signalOf, unlessAborted } from "../base/abortable.js";
import type { Closable } from "../base/closable.js";
import type { Clock, Random } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { latest } from "../base/latest.js";
import { Signal } from "../base/signal.js";
import type { ServiceSync } from "../exports/service-sync.js";
import { type Peering, type PeeringState, type Role, roleOf } from "../peering/peering.js";
import type { PeeringWrite } from "../peering/peering-write.js";
import type { ImportStore } from "../stores/import-store.js";
import { type PeeringPatches, UnreadPatches } from "../stores/peering-changes.js";
import type { GivenSecrets, PeeringRecords } from "../stores/records.js";
import { lowerCase } from "../syntax/names.js";
import type { PeeringToken, TokenCodec } from "../token/token-codec.js";
import type { Transport } from "../transport/transport.js";
import { type CertificateAuthority, peeringServerName } from "../trust/authority.js";
import { activeRootFault, ROOT_REMEDY } from "../trust/root-validity.js";
import type { RemoteInfo } from "../wire/messages.js";
import { StatusCode } from "../wire/status.js";
import type { Deletion } from "./deletion.js";
import type { DialPlaces } from "./dial-places.js";
import type { DialRule } from "./dial-rule.js";
import { type Dialer, exchangeSecret } from "./dialer.js";
import type { GivenTokens } from "./given-tokens.js";
import type { Leadership } from "./leadership.js";
import { type Metric, peeringMetrics } from "./metrics.js";
import type { PeeringStatus, StatusBoard } from "./status-board.js";
import type { Streams } from "./streams.js";
import { type PeeringTransition, transitionOf } from "./transitions.js";

/** A peering as read: its record, the state a Consul client would be shown, and the facts behind it. */
export interface PeeringView {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** ACTIVE and FAILING are computed from the record, the live stream and now; the others are stored. */
  readonly state: PeeringState;
  /** Milliseconds since the epoch; set while DELETING. */
  readonly deletedAt: number | undefined;
  readonly meta: Readonly<Record<string, string>>;
  /** The acceptor's id of the peering, as the dialer knows it; `""` on the acceptor. */
  readonly peerId: string;
  readonly peerServerName: string;
  readonly peerServerAddresses: readonly string[];
  readonly manualServerAddresses: readonly string[];
  readonly peerCaPems: readonly string[];
  /** The other cluster's description of itself; empty before the first stream. */
  readonly remote: RemoteInfo;
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
  readonly status: PeeringStatus;
}

/** A change of the list of peerings, their records or their streams. */
export interface PeeringsChange {
  /** All peerings that are watched, by name. */
  readonly peerings: readonly PeeringView[];
  /**
   * How records changed, since the change before. None at first, and where a stream alone has changed. A record
   * that came and went in between is left out.
   */
  readonly changes: readonly PeeringPatches[];
}

export interface GenerateTokenOptions {
  /** Our name for the cluster that will use the token: a DNS label of at most 63 lower-case characters. */
  readonly peerName: string;
  /** Free key/values kept with a new record; ignored when the peering exists already, as in Consul. */
  readonly meta?: Readonly<Record<string, string>>;
  /** `host:port` that the other side dials instead of the advertised addresses. Not looked at, as in Consul. */
  readonly serverExternalAddresses?: readonly string[];
}

export interface WatchPeeringsOptions extends Abortable {
  /** Of the one peering to watch (without regard to case), whether or not there is one. Default: all. */
  readonly name?: string;
}

export interface EstablishOptions extends Abortable {
  /** Our name for the cluster that generated the token. */
  readonly peerName: string;
  readonly token: string;
  readonly meta?: Readonly<Record<string, string>>;
  /** Gives up the secret exchange. The record of the attempt stays, as in Consul. Default: it is tried until it is decided. */
  readonly signal?: AbortSignal;
}

/** @internal */
export interface PeeringsParts {
  readonly records: PeeringRecords;
  readonly streams: Streams;
  readonly dialer: Dialer;
  readonly deletion: Deletion;
  readonly board: StatusBoard;
  readonly imports: Pick<ImportStore, "services">;
  readonly transport: Transport;
  readonly dialRule: DialRule;
  readonly places: DialPlaces;
  readonly clock: Clock;
  readonly random: Random;
  readonly authority: CertificateAuthority;
  readonly datacenter: string;
  readonly remote: RemoteInfo;
  /** The addresses that peers can dial us at now; undefined when there are none. */
  readonly serverAddresses: () => readonly string[] | undefined;
  readonly throughGateways: () => boolean;
  readonly leadership: Leadership;
  readonly enabled: boolean;
  readonly codec: typeof TokenCodec;
  readonly givenTokens: GivenTokens;
}

/** The peerings of a host: made, read, watched and deleted here. */
export class Peerings implements Closable {
  readonly #parts: PeeringsParts;
  readonly #stop = new AbortController();
  readonly #ended = new Signal();
  readonly #running = new Set<Promise<unknown>>();

  /** @internal */
  constructor(parts: PeeringsParts) {
    this.#parts = parts;
  }

  /**
   * Generates a token for the cluster that will be known here as `peerName`, and its record where there is none. A token
   * works once; generating another one voids an unused one and disturbs nothing that runs.
   * @returns The token's text. Its holder can peer: keep it secret.
   * @throws {PeeringError} `invalid-name`, `invalid-argument` (meta); `wrong-role`: the name belongs to a
   *   peering we dial; `invalid-record`: the peering is being deleted, or was terminated by the peer and must be deleted
   *   first; `unavailable`: this host listens nowhere, or its root certificate is not valid; `storage-failed`.
   */
  async generateToken(options: GenerateTokenOptions): Promise<string> {
    this.requireEnabled();
    const { records, authority, datacenter, remote, codec, givenTokens, clock } = this.#parts;
    const serverAddresses = this.#parts.serverAddresses();
    if (serverAddresses === undefined) {
      // Looked up before the record is written, so that a failure leaves no record behind (D-16).
      throw this.#parts.throughGateways()
        ? new PeeringError(
            "unavailable",
            "servers are configured to PeerThroughMeshGateways, but no mesh gateway instances are registered",
            { remedy: "Register a mesh gateway, or let peers dial the servers." },
          )
        : new PeeringError("unavailable", "a grpc bind port must be specified in the configuration for all servers", {
            remedy: "Give the transport an address to listen on, or set `advertise`.",
          });
    }
    const fault = activeRootFault(authority, clock.wall());
    if (fault !== undefined) {
      throw new PeeringError("unavailable", `the root certificate that a token would name is not valid now: ${fault}`, {
        remedy: ROOT_REMEDY,
      });
    }
    const manualServerAddresses = options.serverExternalAddresses ?? [];
    givenTokens.requireFewAddresses({ manualServerAddresses, serverAddresses });
    const { peering, establishmentSecret } = await records.generateToken({
      peerName: options.peerName,
      meta: options.meta ?? {},
    });
    const token: PeeringToken = {
      ca: authority.roots().map((root) => root.certificatePem),
      manualServerAddresses,
      serverAddresses,
      serverName: peeringServerName(datacenter, authority.trustDomain),
      peerId: peering.id,
      establishmentSecret,
      remote,
    };
    return codec.encode(token);
  }

  /**
   * Judges the text of a token as {@link establish} does, and does nothing else.
   * @throws {PeeringError} `invalid-token`
   */
  requireSound(token: string): void {
    this.#parts.givenTokens.read(token);
  }

  /** The peerings whose last token is unused, by name. The holder of such a token can peer under that name. */
  outstandingTokens(): readonly PeeringView[] {
    this.requireEnabled();
    return this.#parts.records.outstandingTokens().map((peering) => this.#view(peering));
  }

  /**
   * Makes the last token of a peering worthless, if it is unused. The stream, if there is one, goes on.
   * @returns Whether there was one.
   * @throws {PeeringError} `storage-failed`, `unavailable`: it may have been revoked.
   */
  async revokeToken(name: string): Promise<boolean> {
    this.requireEnabled();
    return this.#parts.records.revokeToken(name);
  }

  /**
   * Peers with the cluster that generated `token`: exchanges the secrets and starts to dial. Resolves once the secret is
   * stored; the stream follows by itself. Establishing again under the same name re-establishes in place: a stream that is up
   * goes on, and an attempt that fails changes nothing of a peering that works but its metadata.
   * @throws {PeeringError} `invalid-name`, `invalid-token`, `invalid-argument`; `same-cluster`: the token is our own;
   *   `wrong-role`: the name belongs to a peering that waits to be dialed; `permission-denied`: the token was used or
   *   superseded; `unavailable`: no address of it answered; `invalid-record`: the peering is being deleted;
   *   `storage-failed`; `options.signal.reason` when aborted.
   */
  async establish(options: EstablishOptions): Promise<PeeringView> {
    this.requireEnabled();
    const running = this.#establish(options);
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Consul's gauges of peerings, read now. */
  metrics(): readonly Metric[] {
    if (!this.#parts.enabled) return [];
    return peeringMetrics(this.list(), this.#parts.leadership.isLeader);
  }

  /** The peering called `name` (without regard to case), or undefined. */
  read(name: string): PeeringView | undefined {
    this.requireEnabled();
    const peering = this.#parts.records.byName(name);
    return peering === undefined ? undefined : this.#view(peering);
  }

  /**
   * How far each service has come, in both directions, as of now; undefined where there is no such peering. Its cost grows
   * with the number of services, which that of {@link read} does not.
   */
  services(name: string): ServiceSync | undefined {
    this.requireEnabled();
    const { records, board, imports } = this.#parts;
    const peering = records.byName(name);
    return peering === undefined ? undefined : board.servicesOf(peering.id, imports.services(peering.id));
  }

  /**
   * Another number after anything was seen of any stream. While it is the same, and no record and no import changes, {@link read} and
   * {@link list} show the same, but for what passes with time where there has been a failure.
   * @internal
   */
  get observations(): number {
    return this.#parts.board.observations;
  }

  /** All peerings, by name. */
  list(): readonly PeeringView[] {
    this.requireEnabled();
    return this.#parts.records.list().map((peering) => this.#view(peering));
  }

  /**
   * The peerings now, and again after each change of a record or of a stream. The newest state is never skipped; states in
   * between may be. Ends when the host is closed, too.
   */
  watch(options: WatchPeeringsOptions = {}): AsyncGenerator<PeeringsChange, void, undefined> {
    const { records, board } = this.#parts;
    const key = options.name === undefined ? undefined : lowerCase(options.name);
    const isWatched = (name: string): boolean => key === undefined || lowerCase(name) === key;
    const watched = (): readonly Peering[] => records.list().filter(({ name }) => isWatched(name));
    let unread = new UnreadPatches([]);
    return latest({
      signal: signalOf(options),
      isClosed: () => this.#stop.signal.aborted,
      subscribe: (wake) => {
        unread = new UnreadPatches(watched().map(({ id }) => id));
        const forget = [
          records.onChange((change) => {
            if (change.patches.length === 0 || !isWatched(change.name)) return;
            unread.add(change);
            wake();
          }),
          board.onChange((peeringId) => {
            const peering = records.byId(peeringId);
            if (peering !== undefined && isWatched(peering.name)) wake();
          }),
          this.#ended.on(wake),
        ];
        return () => {
          for (const stop of forget) stop();
        };
      },
      read: () => {
        this.requireEnabled();
        return { peerings: watched().map((peering) => this.#view(peering)), changes: unread.take() };
      },
    });
  }

  /**
   * Calls `listener` after each step in the life of a peering that is stored, in order: the feed of an audit log. A `listener`
   * that throws is reported (`event-listener-failed`) and called again at the next step.
   * @returns Ends it.
   */
  onTransition(listener: (transition: PeeringTransition) => void): () => void {
    const { records, clock } = this.#parts;
    return records.onChange((change) => listener(transitionOf(change, clock.wall())));
  }

  /**
   * Deletes the peering: the peer is told if it can be reached, everything imported from it goes, then the record.
   * Resolves once the deletion is decided and stored; an unknown name, or one being deleted already, is success.
   * @throws {PeeringError} `storage-failed`.
   */
  async delete(name: string): Promise<void> {
    this.requireEnabled();
    await this.#parts.records.markDeleting(name);
  }

  /**
   * Writes a record as it is given, in place of the one of that name, whose id it keeps: Consul's `PeeringWrite`, an aid for tests.
   * It goes round the state machine, and is held by the rules of the store alone.
   * @throws {PeeringError} `invalid-record`, `wrong-role`, `invalid-secret`, `invalid-name` (of a new record);
   *   `storage-failed`.
   */
  async write(record: Omit<PeeringWrite, "id">, secrets?: GivenSecrets): Promise<void> {
    this.requireEnabled();
    await this.#parts.records.write(record, secrets);
  }

  /**
   * Resolves when the cleanup that a delete or a termination started for `name`, if any, is over.
   * @throws `options.signal.reason` when aborted; the cleanup goes on.
   */
  async deleted(name: string, options: Abortable = {}): Promise<void> {
    const { records, deletion } = this.#parts;
    const peering = records.byName(name);
    if (peering !== undefined) await unlessAborted(deletion.settled(peering.id), options);
  }

  /** @internal What every call begins with. @throws {PeeringError} with status FAILED_PRECONDITION. */
  requireEnabled(): void {
    if (this.#parts.enabled) return;
    throw new PeeringError("invalid-argument", "peering must be enabled to use this endpoint", {
      status: StatusCode.FailedPrecondition,
      remedy: "Compose the host without `peeringEnabled: false`.",
    });
  }

  async close(): Promise<void> {
    this.#stop.abort(new PeeringError("closed", "the host was disposed of"));
    this.#ended.emit();
    await Promise.allSettled(this.#running);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #establish(options: EstablishOptions): Promise<PeeringView> {
    const { records, streams, transport, clock, random, authority, datacenter, givenTokens, dialRule, places } =
      this.#parts;
    const token = givenTokens.read(options.token);
    const fault = dialRule.faultOf([...token.manualServerAddresses, ...token.serverAddresses]);
    if (fault !== undefined) throw new PeeringError("invalid-token", fault);
    const signals = options.signal === undefined ? [this.#stop.signal] : [options.signal, this.#stop.signal];
    const signal = AbortSignal.any(signals);
    signal.throwIfAborted();
    const existing = records.byName(options.peerName);
    const begun = await records.beginEstablish({
      peerName: options.peerName,
      token,
      meta: options.meta ?? {},
      connected: existing !== undefined && streams.isConnected(existing.id),
      ownServerName: peeringServerName(datacenter, authority.trustDomain),
    });
    let streamSecret: string;
    try {
      const parts = { transport, clock, random, signal, places };
      streamSecret = await exchangeSecret(
        parts,
        { ...begun.fields, name: options.peerName },
        {
          peerId: token.peerId,
          establishmentSecret: token.establishmentSecret,
        },
      );
    } catch (error) {
      records.observe(begun.id, { type: "establish-failed" });
      throw error;
    }
    return this.#view(await records.finishEstablish(begun, streamSecret));
  }

  #view(peering: Peering): PeeringView {
    const { board } = this.#parts;
    return {
      id: peering.id,
      name: peering.name,
      role: roleOf(peering),
      state: board.stateOf(peering),
      deletedAt: peering.deletedAt,
      meta: peering.meta,
      peerId: peering.peerId,
      peerServerName: peering.peerServerName,
      peerServerAddresses: peering.peerServerAddresses,
      manualServerAddresses: peering.manualServerAddresses,
      peerCaPems: peering.peerCaPems,
      remote: peering.remote,
      createIndex: peering.createIndex,
      modifyIndex: peering.modifyIndex,
      status: board.statusOf(peering.id),
    };
  }
}
