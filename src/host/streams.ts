import type { Clock, Logger } from "../base/environment.js";
import { asPeeringError, errorText, isStorageFault, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { retry } from "../base/retry.js";
import { inTurns } from "../base/turns.js";
import type { ExportEngine } from "../exports/export-engine.js";
import { isActive, type Peering, roleOf } from "../peering/peering.js";
import { ReplicationSession } from "../replication/session.js";
import type { ExportedResource, SessionPhase, SessionTimings } from "../replication/types.js";
import type { ImportItem, ImportStore } from "../stores/import-store.js";
import type { Dialable, HostTask, PeeringRecords } from "../stores/records.js";
import type { DialTarget, ReplicationStream, Transport } from "../transport/transport.js";
import { type OpenMessage, type RemoteInfo, ResourceUrl } from "../wire/messages.js";
import {
  decodeServerAddresses,
  decodeTrustBundle,
  exportedServiceListSteps,
  type TrustBundlePayload,
} from "../wire/resources.js";
import { type Status, StatusCode } from "../wire/status.js";
import { Admission } from "./admission.js";
import { ApplyQueue, type QueuedUpdate } from "./apply-queue.js";
import type { DialRule } from "./dial-rule.js";
import type { Leadership } from "./leadership.js";
import type { HostLimits } from "./options.js";
import type { BoardStream, StatusBoard } from "./status-board.js";
import { type LinkEffect, type LinkEnd, StreamLink } from "./stream-link.js";

/** A stream that waits to be accepted or refused. */
export interface OpenedStream {
  accept(peering: Peering): void;
  refuse(status: Status, terminated: boolean): void;
}

export interface StreamsOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly incidents: Incidents;
  readonly transport: Transport;
  readonly dialRule: DialRule;
  readonly records: PeeringRecords;
  readonly imports: ImportStore;
  readonly exports: Pick<ExportEngine, "attach">;
  readonly board: StatusBoard;
  readonly leadership: Leadership;
  readonly limits: HostLimits;
  readonly timings: Partial<SessionTimings>;
  readonly strictConsul: boolean;
  readonly remote: RemoteInfo;
  /** Roots and, for dialers, server addresses: what every stream of that role carries besides services. */
  readonly clusterResources: (role: "acceptor" | "dialer") => readonly ExportedResource[];
  /** Accepts or refuses a stream. */
  readonly perform: (task: HostTask, stream: OpenedStream) => void;
}

/** A trust bundle that was refused, while the stream stands over which it came. */
interface RefusedBundle {
  readonly live: ActiveStream;
  readonly bundle: TrustBundlePayload;
  readonly servers: boolean;
}

/** One stream bound to its peering. */
interface ActiveStream {
  readonly peering: Peering;
  readonly link: StreamLink;
  readonly applyQueue: ApplyQueue;
  readonly seen: BoardStream;
  detach: () => void;
  /** The peer has said `Terminated`: no message is due any more, only the end of the drain. */
  peerTerminated: boolean;
}

const REPLACED: Status = { code: StatusCode.Unavailable, message: "replaced by a newer stream" };
const ESTABLISHED_ANEW: Status = { code: StatusCode.Unavailable, message: "the peering was established again" };
const DAMAGED: Status = {
  code: StatusCode.Unavailable,
  message: "imports that are stored were damaged, and are to be sent again",
};
const SHUT_DOWN: Status = { code: StatusCode.Unavailable, message: "the host shuts down" };
const RATE_LIMITED: Status = {
  code: StatusCode.ResourceExhausted,
  message: "rate limit exceeded, try again later or against a different server",
};
/** Commits of imports that lose against a change of the record are tried again this often. */
const FENCE_TRIES = 5;
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;

/**
 * The live streams, at most one per peering: the newest authorised one (D-1). Connects a stream with the data it replicates: our
 * exports and roots outward, the import store and the records inward.
 */
export class Streams implements AsyncDisposable {
  readonly #options: StreamsOptions;
  readonly #live = new Map<string, ActiveStream>();
  readonly #bound = new Set<ActiveStream>();
  /** By peering: streams that have come up, and are not bound yet. */
  readonly #arriving = new Map<string, StreamLink>();
  readonly #running = new Set<StreamLink>();
  readonly #admission: Admission;
  readonly #stop = new AbortController();
  /** By peering. */
  readonly #refusedBundles = new Map<string, RefusedBundle>();
  readonly #stopListening: () => void;

  constructor(options: StreamsOptions) {
    this.#options = options;
    this.#stopListening = options.records.onBundlesChange(() => this.#tryRefusedBundles());
    this.#admission = new Admission(options.clock, options.limits, options.incidents);
  }

  /** Counts one unauthorised attempt. False: over the limit, refuse without looking closer. */
  admit(remoteAddress: string): boolean {
    return this.#admission.admit(remoteAddress);
  }

  static readonly rateLimited: Status = RATE_LIMITED;

  isConnected(peeringId: string): boolean {
    return this.#live.get(peeringId)?.link.session.status.phase === "connected";
  }

  /** Serves a stream that a dialer opened. */
  accept(stream: ReplicationStream): void {
    const { leadership, clock, timings, strictConsul, limits } = this.#options;
    if (this.#stop.signal.aborted) return void stream.close(SHUT_DOWN);
    if (!leadership.isLeader) {
      return void stream.close({
        code: StatusCode.FailedPrecondition,
        message: "cannot establish a peering stream on a follower node",
        leaderAddress: leadership.leaderAddress,
      });
    }
    const place = this.#admission.admitStream(stream.remoteAddress, () =>
      link.feed({ type: "abort", status: RATE_LIMITED }),
    );
    if (place === undefined) return void stream.close(RATE_LIMITED);
    const session = new ReplicationSession({
      role: "acceptor",
      maxSendBytes: limits.maxSendToDialerBytes,
      timings,
      limits,
      strictConsul,
    });
    let live: ActiveStream | undefined;
    const link: StreamLink = new StreamLink({
      stream,
      session,
      clock,
      limits,
      perform: (effect) => {
        if (effect.type === "authorize") {
          place.work();
          void this.#authorize(link, effect.open, (bound) => {
            live = bound;
            place.leave();
          });
        } else if (live !== undefined) this.#perform(live, effect);
      },
      onProgress: () => live?.seen.progress(),
    });
    void this.#run(link).then((end) => {
      place.leave();
      if (live !== undefined) this.#unbind(live, end);
      else if (end.error !== undefined) {
        this.#options.logger.debug("stream refused", { address: stream.remoteAddress, error: end.error.message });
      }
    });
  }

  /** Opens a stream to `target` and serves it until its end. @throws {PeeringError} when it cannot be opened. */
  async dial(
    plan: Dialable,
    target: DialTarget,
    signal: AbortSignal,
  ): Promise<{ readonly end: LinkEnd; readonly connectedMs: number }> {
    const { clock, transport, timings, strictConsul, limits, remote, leadership } = this.#options;
    const stream = await transport.openStream(target, { signal });
    const session = new ReplicationSession({
      role: "dialer",
      remoteId: plan.peering.peerId,
      streamSecretId: plan.streamSecret,
      remote,
      maxSendBytes: limits.maxSendToAcceptorBytes,
      timings,
      limits,
      strictConsul,
    });
    let live: ActiveStream | undefined;
    const link = new StreamLink({
      stream,
      session,
      clock,
      limits,
      perform: (effect) => {
        if (live !== undefined) this.#perform(live, effect);
      },
      onProgress: () => live?.seen.progress(),
    });
    // Connecting takes time: the record may be deleted by now, or belong to another peering.
    if (!this.#connect(link, plan.peering)) {
      await link.ended;
      throw new PeeringError("aborted", "the peering changed while it was being dialed", {
        status: StatusCode.Canceled,
      });
    }
    const bound = this.#bind(link, plan.peering, (binding) => {
      live = binding;
    });
    if (!leadership.isLeader || signal.aborted || this.#stop.signal.aborted)
      link.feed({ type: "abort", status: SHUT_DOWN });
    const end = await this.#run(link);
    this.#unbind(bound, end);
    const connectedAt = session.status.connectedAtMs;
    return { end, connectedMs: connectedAt === undefined ? 0 : clock.now() - connectedAt };
  }

  /**
   * Ends the stream that comes up for this peering just now, or else the one that stands; one over which the peer has said
   * `Terminated` ends by itself. @param peerId - only a stream that was opened for that peer.
   */
  dismiss(peeringId: string, peerId?: string): void {
    const status = { code: StatusCode.Aborted, message: `peering is marked as deleted: ${peeringId}` };
    const arriving = this.#arriving.get(peeringId);
    const live = this.#live.get(peeringId);
    if (arriving !== undefined) arriving.feed({ type: "abort", status });
    else if (live !== undefined && !live.peerTerminated && (peerId === undefined || live.peering.peerId === peerId)) {
      live.link.feed({ type: "abort", status });
    }
  }

  /** Tells the peer `Terminated`, over a stream that stands or comes up just now. */
  terminate(peeringId: string): void {
    const link = this.#arriving.get(peeringId) ?? this.#live.get(peeringId)?.link;
    link?.feed({ type: "stop" });
  }

  /**
   * Resolves when the stream of this peering is gone, unless the peer has said `Terminated` over it. What was received
   * before finds the fence in storage closed: the record is not active any more.
   */
  async drained(peeringId: string): Promise<void> {
    const live = this.#live.get(peeringId);
    if (live !== undefined && !live.peerTerminated) await live.link.ended;
  }

  /** Ends a stream that was opened for another peer than the one this peering is established with now. */
  retire(peeringId: string, peerId: string): void {
    const live = this.#live.get(peeringId);
    if (live !== undefined && live.peering.peerId !== peerId)
      live.link.feed({ type: "abort", status: ESTABLISHED_ANEW });
  }

  /** Some stored imports were damaged and dropped: the next stream brings everything again. */
  fetchAgain(peeringId: string): void {
    this.#live.get(peeringId)?.link.feed({ type: "abort", status: DAMAGED });
  }

  /** Our roots or addresses changed: every stream gets them. */
  clusterResourcesChanged(): void {
    for (const { link, peering } of this.#live.values()) {
      link.feed({ type: "exported", resources: this.#options.clusterResources(roleOf(peering)) });
    }
  }

  /** @internal The phase of the stream that counts for this peering; undefined where there is none. */
  phaseOf(peeringId: string): SessionPhase | undefined {
    return this.#live.get(peeringId)?.link.session.status.phase;
  }

  /** @internal Streams that are served now, authorised or not. */
  get count(): number {
    return this.#running.size;
  }

  /** @internal Peerings of which more than one stream is up or may still apply updates: never any (D-1, I14). */
  contested(): readonly string[] {
    const seen = new Set<string>();
    const contested: string[] = [];
    for (const { peering, applyQueue, link } of this.#bound) {
      if (applyQueue.closed && link.session.status.phase !== "connected") continue;
      if (seen.has(peering.id)) contested.push(peering.name);
      seen.add(peering.id);
    }
    return contested;
  }

  /** Tells every session; an acceptor's streams end at their next message, dialed ones at once. */
  leadershipChanged(): void {
    const { isLeader, leaderAddress } = this.#options.leadership;
    for (const link of this.#running) link.feed({ type: "leadership", leader: isLeader, leaderAddress });
    if (isLeader) return;
    for (const live of this.#live.values()) {
      if (roleOf(live.peering) === "dialer") live.link.feed({ type: "abort", status: SHUT_DOWN });
    }
  }

  /** Ends every stream with UNAVAILABLE, never with `Terminated`: the peers will come again. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#stopListening();
    const running = [...this.#running];
    for (const link of running) link.feed({ type: "abort", status: SHUT_DOWN });
    await Promise.all(running.map((link) => link.ended));
  }

  async #run(link: StreamLink): Promise<LinkEnd> {
    this.#running.add(link);
    try {
      return await link.run();
    } finally {
      this.#running.delete(link);
    }
  }

  /** `onBound` is called before the session hears of it, for what waited behind the Open takes effect at once then. */
  async #authorize(link: StreamLink, open: OpenMessage, onBound: (live: ActiveStream) => void): Promise<void> {
    const { records, logger, perform } = this.#options;
    const opened: OpenedStream = {
      refuse: (status, terminated) => link.feed({ type: "refused", status, terminated }),
      accept: (peering) => {
        // Gone while it was judged: it must not take the place of a stream that stands.
        if (link.closed || !this.#connect(link, peering)) return;
        logger.info("accepted initial replication request from peer", {
          peer: peering.name,
          peering: peering.id,
        });
        this.#bind(link, peering, onBound);
        link.feed({ type: "authorized" });
      },
    };
    try {
      await records.authorizeOpen(open, (task) => perform(task, opened));
    } catch (error) {
      const failure = asPeeringError(error, "storage-failed");
      const status = { code: failure.status ?? StatusCode.Internal, message: failure.message };
      link.feed({ type: "refused", status, terminated: false });
    }
  }

  /** A stream has come up. @returns Whether it may go on: the peering may be another one by now. */
  #connect(link: StreamLink, { id, peerId }: Peering): boolean {
    this.#arriving.set(id, link);
    this.#options.records.observe(id, { type: "stream-connected", peerId });
    this.#arriving.delete(id);
    return !link.closed;
  }

  /** @param onBound - is called before the session hears of exports: it may have something to say of them. */
  #bind(link: StreamLink, peering: Peering, onBound: (live: ActiveStream) => void): ActiveStream {
    const { clock, exports, imports, board, clusterResources } = this.#options;
    const older = this.#live.get(peering.id);
    older?.applyQueue.close();
    const stored = (): readonly string[] => imports.services(peering.id).map(({ name }) => name);
    const seen = board.open(peering.id, link.session, stored);
    const applyQueue: ApplyQueue = new ApplyQueue({
      clock,
      apply: (items) => this.#apply(live, items),
      done: (results) => link.feed({ type: "applied", results }),
    });
    const live: ActiveStream = {
      peering,
      link,
      applyQueue,
      seen,
      peerTerminated: false,
      detach: () => {},
    };
    this.#live.set(peering.id, live);
    this.#bound.add(live);
    onBound(live);
    live.detach = exports.attach({ id: peering.id, name: peering.name }, (input) => link.feed(input));
    link.feed({ type: "exported", resources: clusterResources(roleOf(peering)) });
    older?.link.feed({ type: "abort", status: REPLACED });
    return live;
  }

  #unbind(live: ActiveStream, end: LinkEnd): void {
    const { logger } = this.#options;
    live.detach();
    live.applyQueue.close();
    this.#bound.delete(live);
    if (this.#refusedBundles.get(live.peering.id)?.live === live) this.#refusedBundles.delete(live.peering.id);
    const { id, name } = live.peering;
    if (end.error === undefined) logger.info("closed stream", { peer: name, peering: id });
    else logger.warn("stream ended", { peer: name, peering: id, error: end.error.message });
    if (end.error?.code === "resource-exhausted") {
      this.#options.incidents.report("peer-stream-over-limit", "a stream ended because a limit was exceeded", {
        peer: name,
        error: end.error.message,
      });
    }
    live.seen.ended(end.error);
    if (this.#live.get(id) === live) this.#live.delete(id);
  }

  #perform(live: ActiveStream, effect: LinkEffect): void {
    switch (effect.type) {
      case "apply":
        live.applyQueue.add(effect.id, effect.resource);
        break;
      case "peer-terminated":
        live.peerTerminated = true;
        live.applyQueue.close();
        void this.#peerTerminated(live);
        break;
      case "held-back":
        this.#options.logger.warn("service is too large for the peer and is held back", {
          peer: live.peering.name,
          service: effect.resourceId,
          bytes: effect.bytes,
          limit: effect.limit,
        });
        live.seen.withheldChanged();
        break;
      case "authorize":
        break;
    }
  }

  async #peerTerminated(live: ActiveStream): Promise<void> {
    const { records, logger, clock } = this.#options;
    const { id, name, peerId } = live.peering;
    logger.info("peering was deleted by our peer: marking peering as terminated and cleaning up imported resources", {
      peer: name,
      peering: id,
    });
    // The peer does not say it again, so a storage that refuses is asked until it accepts.
    try {
      await retry(() => records.terminate(id, { peerId }), {
        clock,
        signal: this.#stop.signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        onFailure: (error) =>
          logger.error("failed to mark peering as terminated", {
            peer: name,
            peering: id,
            error: errorText(error),
          }),
      });
    } catch {
      // The host is closed.
    }
  }

  /**
   * Applies messages of a peer, in order: services and lists that follow each other in one commit, each commit bound to a
   * record that is still active (I17), and none begun once the stream has been replaced: a newer one may have said
   * something else since (I14).
   */
  async #apply(live: ActiveStream, items: readonly QueuedUpdate[]): Promise<readonly (PeeringError | undefined)[]> {
    const results: (PeeringError | undefined)[] = [];
    let run: ImportItem[] = [];
    const flush = async (): Promise<void> => {
      if (run.length === 0) return;
      const batch = run;
      run = [];
      results.push(...(await this.#commitImports(live, batch)));
    };
    for (const { resource } of items) {
      const { resourceUrl, resourceId, value } = resource;
      if (resourceUrl === ResourceUrl.exportedService) {
        run.push({ type: "service", name: resourceId, value });
        continue;
      }
      let refusal: PeeringError | undefined;
      if (resourceUrl === ResourceUrl.exportedServiceList) {
        try {
          const names = await inTurns(exportedServiceListSteps(value, this.#options.limits.servicesPerPeer));
          run.push({ type: "list", names });
          continue;
        } catch (error) {
          refusal = asPeeringError(error, "invalid-message");
        }
      }
      await flush();
      if (live.applyQueue.closed) results.push(REPLACED_MEANWHILE);
      else {
        refusal ??= await this.#applyToRecord(live, resourceUrl, value);
        if (refusal !== undefined) this.#noteRefusal(live.peering, resourceUrl, refusal);
        const undecoded = refusal?.code === "invalid-message" || refusal?.code === "resource-exhausted";
        const told = refusal !== undefined && undecoded ? undecodable(refusal) : refusal;
        live.seen.appliedResource(resourceUrl, told?.message);
        results.push(told);
      }
    }
    await flush();
    return results;
  }

  /** Counts refused resources of a peer, except malformed ones. The others go on. */
  #noteRefusal(peering: Peering, resource: string, { code, message }: PeeringError): void {
    const { incidents } = this.#options;
    const fields = { peer: peering.name, resource, reason: message };
    if (code === "resource-exhausted") {
      incidents.report("import-over-limit", "what a peer exports is beyond a limit and is refused", fields);
    } else if (code === "invalid-bundle") {
      incidents.report("trust-bundle-refused", "the trust bundle of a peer is refused", fields);
    } else if (code === "invalid-argument") {
      incidents.report("server-addresses-refused", "where a peer says it can be dialed is refused", fields);
    }
  }

  async #commitImports(
    live: ActiveStream,
    batch: readonly ImportItem[],
  ): Promise<readonly (PeeringError | undefined)[]> {
    const { records, imports } = this.#options;
    const { peering, seen, applyQueue } = live;
    for (let attempt = 1; ; attempt++) {
      if (applyQueue.closed) return batch.map(() => REPLACED_MEANWHILE);
      try {
        const { results } = await imports.apply(peering.id, batch, records.expectation(peering.id));
        batch.forEach((item, index) => {
          const refusal = results[index];
          const resource = item.type === "service" ? item.name : ResourceUrl.exportedServiceList;
          if (refusal !== undefined) this.#noteRefusal(peering, resource, refusal);
          if (item.type === "service") seen.appliedService(resource, refusal?.message);
          else seen.appliedResource(resource, refusal?.message);
          if (item.type === "list" && refusal === undefined) seen.imported(item.names);
        });
        return results;
      } catch (error) {
        const failure = asPeeringError(error, "storage-failed");
        if (failure.code !== "conflict") throw failure;
        if (attempt === FENCE_TRIES || !isActive(records.byId(peering.id))) {
          const refused = new PeeringError("aborted", "peering does not exist or has been marked for deletion");
          return batch.map(() => refused);
        }
      }
    }
  }

  async #applyToRecord(live: ActiveStream, resourceUrl: string, value: Uint8Array): Promise<PeeringError | undefined> {
    const { records, limits, dialRule } = this.#options;
    const { id, peerId } = live.peering;
    try {
      if (resourceUrl === ResourceUrl.trustBundle) {
        await this.#writeTrustBundle(live, decodeTrustBundle(value, limits));
      } else {
        const addresses = decodeServerAddresses(value, limits);
        const fault = dialRule.faultOf(addresses);
        if (fault !== undefined) throw new PeeringError("invalid-argument", fault);
        await records.writeServerAddresses(id, addresses, { peerId });
      }
      return undefined;
    } catch (error) {
      const failure = asPeeringError(error, "storage-failed");
      if (isStorageFault(failure)) throw failure;
      return failure;
    }
  }

  async #writeTrustBundle(live: ActiveStream, bundle: TrustBundlePayload): Promise<void> {
    const { records } = this.#options;
    const { id, peerId } = live.peering;
    // The roots of a 1.13 mesh have nothing to do with the certificates of its servers, if they have any at all.
    const servers = live.seen.session.status.dialect !== "legacy";
    this.#refusedBundles.delete(id);
    try {
      await records.writeTrustBundle(id, bundle, { peerId, servers });
    } catch (error) {
      if (!(error instanceof PeeringError) || error.code !== "invalid-bundle") throw error;
      if (!live.applyQueue.closed) this.#refusedBundles.set(id, { live, bundle, servers });
      throw error;
    }
  }

  /**
   * A peer does not send a bundle again that was refused. Where it was because of another peering, whose bundle has changed
   * or is gone now, it is stored without.
   */
  #tryRefusedBundles(): void {
    for (const [id, refused] of this.#refusedBundles) {
      const { live, bundle, servers } = refused;
      const { name, peerId } = live.peering;
      if (live.applyQueue.closed) continue;
      this.#options.records.writeTrustBundle(id, bundle, { peerId, servers }).then(
        () => {
          if (this.#refusedBundles.get(id) === refused) this.#refusedBundles.delete(id);
          live.seen.appliedResource(ResourceUrl.trustBundle, undefined);
          this.#options.logger.info("stored the trust bundle that was refused before", {
            peer: name,
            peering: id,
          });
        },
        // It stays refused.
        () => {},
      );
    }
  }
}

/** Discarded: a closed applyQueue sends no answers. */
const REPLACED_MEANWHILE = new PeeringError("aborted", "the stream was replaced or has ended");

function undecodable(error: unknown): PeeringError {
  return new PeeringError("invalid-message", `failed to unmarshal resource: ${errorText(error)}`, { cause: error });
}
