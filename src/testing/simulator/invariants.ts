import type { Entry, Write } from "../../storage/storage.js";
import type { ExchangeSecretRequest } from "../../transport/transport.js";
import { decodeMessage } from "../../wire/codec.js";
import type { Status } from "../../wire/status.js";
import type { SimCluster } from "./cluster.js";
import { IndexJudge } from "./index-judge.js";
import { type Court, RecordJudge } from "./record-judge.js";
import { ReplicationJudge } from "./replication-judge.js";
import { SecretLedger } from "./secret-ledger.js";
import type { SimStream } from "./sim-network.js";
import { DiskView, dialedAddresses, isRecord, isSecrets, isStanding } from "./stored-forms.js";
import { StreamJudge } from "./stream-judge.js";

/** No retry path of a host tries one address more often: 8 ms five times, then doubling, beside a few restarts. */
const ATTEMPTS_PER_SECOND = 40;
/** Whatever the other side does with the streams. */
const ATTEMPTS_PER_MINUTE = 100;
const MINUTE_MS = 60_000;
/** A dial that was planned may have to wait so long for the disk before it is begun. */
const PLANNED_MS = 10_000;

/**
 * Checks the invariants of docs/invariants.md. It reads every disk, hears every message and looks into every host after
 * each event. Disks are judged commit by commit, because the next start finds what a commit left.
 *
 * Neither this class nor the judges take the right value from the code under test: they only read the state of a host.
 */
export class InvariantChecker {
  readonly failures: string[] = [];
  readonly #court: Court;
  readonly #disks = new Map<string, DiskView>();
  readonly #attempts = new Map<string, number[]>();
  /** Addresses that a cluster was told to dial, and until when. */
  readonly #dialable = new Map<string, number>();
  readonly #records: RecordJudge;
  readonly #ledger: SecretLedger;
  readonly #streams: StreamJudge;
  readonly #replication: ReplicationJudge;
  readonly #indexes: IndexJudge;
  /** Addresses that tokens named, with the PeerID they were for. */
  readonly #tokenAddresses = new Set<string>();
  #watchedAt = 0;

  constructor(onFailure: (text: string) => void, now: () => number) {
    this.#court = {
      now,
      fail: (text) => {
        this.failures.push(text);
        onFailure(text);
      },
    };
    const disk = (cluster: SimCluster): DiskView => this.disk(cluster);
    this.#records = new RecordJudge(this.#court);
    this.#indexes = new IndexJudge(this.#court);
    this.#ledger = new SecretLedger(this.#court);
    this.#streams = new StreamJudge(this.#court, {
      disk,
      isFor: (secret, peerId) => this.#ledger.isFor(secret, peerId),
      onTerminated: (cluster, peerId) => this.#records.terminated(cluster, peerId),
      onAck: (end, received) => this.#replication.acknowledged(end, received),
    });
    this.#replication = new ReplicationJudge(this.#court, {
      disk,
      streamsOf: (cluster, id) => this.#streams.streamsOf(cluster, id),
      isInToken: (peerId, addresses) => this.#tokenAddresses.has(`${peerId} ${addresses.join()}`),
    });
  }

  fail(text: string): void {
    this.#court.fail(text);
  }

  disk(cluster: SimCluster): DiskView {
    let view = this.#disks.get(cluster.name);
    if (view === undefined) {
      view = new DiskView();
      this.#disks.set(cluster.name, view);
    }
    return view;
  }

  // --- the network -----------------------------------------------------------------------------------------------------

  /** A token was handed out, by a host or by a scripted peer. */
  tokenGiven(cluster: SimCluster | undefined, text: string): void {
    const token: { readonly PeerID: string; readonly ServerAddresses: readonly string[] | null } = JSON.parse(
      Buffer.from(text, "base64").toString(),
    );
    this.#tokenAddresses.add(`${token.PeerID} ${(token.ServerAddresses ?? []).join()}`);
    if (cluster !== undefined) this.#ledger.tokenGiven(cluster, text);
  }

  /** An exchange succeeded at an acceptor, a host or not. */
  exchanged(cluster: SimCluster | undefined, request: ExchangeSecretRequest, streamSecret: string): void {
    const { peerId, establishmentSecret } = request;
    this.#ledger.exchanged(cluster, peerId, establishmentSecret, streamSecret, (digest) => {
      return cluster !== undefined && this.#records.wasExchanged(cluster, digest);
    });
  }

  attempted(cluster: SimCluster, to: string, purpose: "stream" | "exchange"): void {
    const key = `${cluster.name} ${to}`;
    const now = this.#court.now();
    const recent = (this.#attempts.get(key) ?? []).filter((at) => at > now - MINUTE_MS);
    recent.push(now);
    this.#attempts.set(key, recent);
    const ofSecond = recent.filter((at) => at > now - 1_000).length;
    if (ofSecond > ATTEMPTS_PER_SECOND || recent.length > ATTEMPTS_PER_MINUTE) {
      this.fail(`${cluster.name} tries ${to} without a pause (I25)`);
    }
    if (purpose === "exchange") return;
    const since = (at: number): number => now - Math.max(at, cluster.life.frozenUntil);
    if (since(cluster.ledUntil()) > PLANNED_MS) this.fail(`${cluster.name} dials ${to}, and does not lead (I26)`);
    const told = [...this.disk(cluster).records.values()].some((record) => dialedAddresses(record).includes(to));
    if (!told && since(this.#dialable.get(key) ?? Number.NEGATIVE_INFINITY) > PLANNED_MS) {
      this.fail(`${cluster.name} dials ${to}, which no record of it names (D-4)`);
    }
  }

  /** @param sender, receiver - undefined for a peer that is no host. */
  sent(sender: SimCluster | undefined, receiver: SimCluster | undefined, stream: SimStream, bytes: Uint8Array): string {
    const message = decodeMessage(bytes);
    const { connection } = stream;
    if (message.type === "open") connection.opened ??= message;
    if (receiver !== undefined) this.#streams.opened(other(stream), receiver);
    if (sender?.host !== undefined) this.#streams.sent(stream, sender, message);
    return message.type;
  }

  received(cluster: SimCluster, stream: SimStream, bytes: Uint8Array): void {
    if (cluster.host !== undefined) this.#streams.received(stream, cluster, bytes);
  }

  closed(cluster: SimCluster, stream: SimStream, status: Status): void {
    this.#streams.closed(stream, cluster, status);
  }

  // --- disks -----------------------------------------------------------------------------------------------------------

  /** A commit took effect on the disk of `cluster`, which its host began at `begunAt`. */
  committed(cluster: SimCluster, writes: readonly Write[], begunAt: number, revision: bigint): void {
    this.#indexes.committed(cluster, writes, revision);
    const disk = this.disk(cluster);
    const ids = writes.flatMap(({ key }) => (isRecord(key) ? [key[2] ?? ""] : []));
    const before = new Map(ids.map((id) => [id, disk.records.get(id)]));
    for (const record of before.values()) {
      for (const address of record === undefined ? [] : dialedAddresses(record)) {
        this.#dialable.set(`${cluster.name} ${address}`, this.#court.now());
      }
    }
    this.#records.committed(cluster, disk, writes);
    if (writes.some(({ key }) => isSecrets(key))) this.#ledger.stored(cluster, disk);
    this.#replication.committed(cluster, before, writes, begunAt);
  }

  /** The power failed, and this is left on the disk of `cluster`. */
  lost(cluster: SimCluster, left: readonly Entry[]): void {
    const view = new DiskView();
    view.apply(left);
    this.#disks.set(cluster.name, view);
  }

  /** Every secret that was given to anyone so far. */
  get secrets(): readonly string[] {
    return this.#ledger.known;
  }

  /** Looks through all that the disks hold for secrets that can be read. */
  async searchDisks(clusters: readonly SimCluster[]): Promise<void> {
    for (const cluster of clusters) await this.#ledger.search(cluster);
  }

  // --- hosts -----------------------------------------------------------------------------------------------------------

  /** Looks into a host between two events: I14 to I16, and the deadlines of its streams. */
  check(cluster: SimCluster): void {
    const machinery = cluster.machinery();
    if (machinery === undefined) return;
    this.#indexes.look(cluster);
    const { records, streams, board } = machinery;
    for (const peering of records.list()) {
      const { id, state } = peering;
      const phase = streams.phaseOf(id);
      if (phase !== undefined) this.#replication.linked(cluster, id);
      const reported = board.stateOf(peering);
      const at = `${cluster.name} ${peering.name}`;
      if (!isStanding(peering)) {
        if (reported !== state) this.fail(`${at}: ${state} reads ${reported} (I16)`);
      } else if (phase === "connected" && reported !== "active") {
        this.fail(`${at}: its stream is up and it reads ${reported} (I15, I16)`);
      } else if (phase === undefined && reported === "active") {
        this.fail(`${at}: it reads active without a stream (I15, I16)`);
      }
    }
    for (const name of streams.contested()) this.fail(`${cluster.name}: two streams apply for ${name} (I14)`);
  }

  /** To be called after every event: looks at the watchdogs once a virtual second. */
  watch(clusters: readonly SimCluster[]): void {
    if (this.#court.now() - this.#watchedAt < 1_000) return;
    this.#watchedAt = this.#court.now();
    for (const cluster of clusters) this.#streams.watch(cluster);
  }

  /** The unfinished work of a host at rest, in words. */
  undone(cluster: SimCluster): readonly string[] {
    const disk = this.disk(cluster);
    const undone = [...this.#streams.unanswered(cluster)];
    for (const { id, name, state } of disk.records.values()) {
      if (state !== "terminated") continue;
      if (disk.importsOf(id).size > 0)
        undone.push(`${cluster.name} keeps imports of ${name}, which is terminated (I18)`);
      if (disk.bundles.has(name.toLowerCase())) undone.push(`${cluster.name} keeps the bundle of ${name}, too (I18)`);
    }
    for (const name of disk.bundles.keys()) {
      if (disk.recordOf(name) === undefined) undone.push(`${cluster.name} keeps a bundle of ${name}, which is gone`);
    }
    for (const [peer, services] of disk.virtualIps) {
      const record = disk.recordOf(peer);
      // "" and its like: the cluster's own.
      if (record === undefined && /^[hx]\d+$/.test(peer) && services.size > 0) {
        undone.push(`${cluster.name} keeps virtual addresses of ${peer}, which is gone`);
      }
    }
    return undone;
  }
}

function other(stream: SimStream): SimStream {
  const { dialer, acceptor } = stream.connection;
  return stream === dialer ? acceptor : dialer;
}
