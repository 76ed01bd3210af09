import type { Write } from "../../storage/storage.js";
import type { SimCluster } from "./cluster.js";
import { type Court, UNDER_WAY_MS } from "./record-judge.js";
import { type DiskView, dials, isBundle, isImport, isStanding, type StoredRecord } from "./stored-forms.js";
import type { HostEnd, Received } from "./stream-judge.js";

/** A commit that was begun before its stream ended may wait this long for its turn. */
const TURN_MS = 5_000;
const SIDECAR = "-sidecar-proxy";

/** A place in all that was received for a peering: which stream, and which message of it. */
interface Place {
  readonly order: number;
  readonly index: number;
}

/** The questions that the judge of the replication asks others. */
export interface ReplicationWitnesses {
  readonly disk: (cluster: SimCluster) => DiskView;
  /** The streams of a peering, the newest first. */
  readonly streamsOf: (cluster: SimCluster, id: string) => readonly HostEnd[];
  /** Whether a token for the peering of this PeerID named exactly these addresses. */
  readonly isInToken: (peerId: string, addresses: readonly string[]) => boolean;
}

/**
 * Judges what hosts store of what their peers send: that each change has a message that asks for it, in the order of the
 * messages, that nothing is taken from a stream that does not count any more, and that an ACK speaks the truth.
 */
export class ReplicationJudge {
  readonly #court: Court;
  readonly #witnesses: ReplicationWitnesses;
  /** The message that each stored thing was last changed by, by cluster, id of the peering and what it is. */
  readonly #places = new Map<string, Place>();
  /** Cluster and peering whose stream was last seen up, and when. */
  readonly #linked = new Map<string, number>();

  constructor(court: Court, witnesses: ReplicationWitnesses) {
    this.#court = court;
    this.#witnesses = witnesses;
  }

  /** The peering has a stream now. */
  linked(cluster: SimCluster, id: string): void {
    this.#linked.set(`${cluster.name} ${id}`, this.#court.now());
  }

  /** @param before - the records that the commit wrote, as they were; the disk is as it is after it. */
  committed(
    cluster: SimCluster,
    before: ReadonlyMap<string, StoredRecord | undefined>,
    writes: readonly Write[],
    begunAt: number,
  ): void {
    const disk = this.#witnesses.disk(cluster);
    for (const { key, value } of writes) {
      // Rows that cannot be read any more may go without a message of the peer, which sends them again.
      if (isImport(key) && value === undefined && cluster.damage.has(key)) continue;
      if (isImport(key)) this.#importMoved(cluster, disk, key[1] ?? "", key[2] ?? "", value, begunAt);
      else if (isBundle(key) && value !== undefined) this.#bundleStored(cluster, disk, key[2] ?? "");
    }
    for (const [id, was] of before) {
      const record = disk.records.get(id);
      if (record === undefined) this.#forget(`${cluster.name} ${id} `);
      else if (was !== undefined) this.#addressesMoved(cluster, was, record);
    }
  }

  /** A host acknowledges: the resource it was sent, or a newer version, must be on its disk. */
  acknowledged(end: HostEnd, received: Received): void {
    const { cluster, recordId } = end;
    const disk = this.#witnesses.disk(cluster);
    const record = disk.records.get(recordId);
    if (!end.isCurrent || record === undefined || !isStanding(record)) return;
    if (dials(record) && record.peerId !== end.generation) return;
    const at = `${cluster.name} to ${record.name}`;
    const { content } = received;
    const since = end.received.slice(received.index).map((one) => one.content);
    switch (content.kind) {
      case "service": {
        const stored = disk.importsOf(recordId).get(content.key);
        if (!since.some((later) => leadsTo(later, content.key, stored))) {
          this.#court.fail(`${at}: acknowledges ${content.key}, which is not what its disk holds`);
        }
        return;
      }
      case "list":
        for (const key of disk.importsOf(recordId).keys()) {
          if (isListed(content.names, key)) continue;
          if (since.some((later) => later.kind === "service" && later.key === key)) continue;
          this.#court.fail(`${at}: acknowledges a list without ${key}, which its disk still holds`);
        }
        return;
      case "bundle": {
        const stored = disk.bundles.get(record.name.toLowerCase())?.rootPems ?? [];
        if (!since.some((later) => later.kind === "bundle" && sameTexts(later.rootPems, stored))) {
          this.#court.fail(`${at}: acknowledges a trust bundle that is not on its disk`);
        }
        return;
      }
      case "addresses":
        if (!dials(record)) this.#court.fail(`${at}: acknowledges addresses, and does not dial`);
        else if (
          !since.some((later) => later.kind === "addresses" && sameTexts(later.addresses, record.peerServerAddresses))
        ) {
          this.#court.fail(`${at}: acknowledges addresses that are not on its disk`);
        }
        return;
      case "bad":
        return;
    }
  }

  /** I17, I18, I20 and I26: an entry of the imports was written or deleted. */
  #importMoved(
    cluster: SimCluster,
    disk: DiskView,
    id: string,
    key: string,
    value: Uint8Array | undefined,
    begunAt: number,
  ): void {
    const record = disk.records.get(id);
    const at = `${cluster.name} ${record?.name ?? id}`;
    const standing = isStanding(record);
    const thawedAt = cluster.life.frozenUntil;
    if (this.#court.now() - Math.max(cluster.ledUntil(), thawedAt) > UNDER_WAY_MS) {
      this.#court.fail(`${at}: imports of a follower changed (I26)`);
    }
    if (value !== undefined && !standing) this.#court.fail(`${at}: imported without a standing record (I17)`);
    // A cleanup takes everything.
    if (!standing) return;
    const streams = this.#witnesses.streamsOf(cluster, id);
    // A stream that is lost while it is accepted counts for no longer than a turn: no event falls into that time.
    const linkedAt = Math.max(
      this.#linked.get(`${cluster.name} ${id}`) ?? Number.NEGATIVE_INFINITY,
      streams[0]?.boundAt ?? Number.NEGATIVE_INFINITY,
      thawedAt,
    );
    if (this.#court.now() - linkedAt > UNDER_WAY_MS) {
      this.#court.fail(`${at}: imports changed without a stream (I20)`);
    }
    const what = `${cluster.name} ${id} service ${key}`;
    const asked = this.#askedFor(what, streams, begunAt, (content) => leadsTo(content, key, value));
    if (asked === undefined) return;
    const verb = value === undefined ? "removed" : "imported";
    this.#court.fail(`${at}: ${key} was ${verb}, ${asked} (I14, I17, I20)`);
  }

  /** I19: the bundle is the peer's own, and no older than the one before. */
  #bundleStored(cluster: SimCluster, disk: DiskView, name: string): void {
    const record = disk.recordOf(name);
    const { rootPems } = disk.bundles.get(name) ?? { rootPems: [] };
    if (record === undefined) return;
    const streams = this.#ofGeneration(cluster, record);
    const what = `${cluster.name} ${record.id} bundle`;
    const asked = this.#askedFor(what, streams, undefined, (content) => {
      return content.kind === "bundle" && sameTexts(content.rootPems, rootPems);
    });
    if (asked !== undefined) this.#court.fail(`${cluster.name} ${name}: a trust bundle was stored, ${asked} (I19)`);
  }

  /** Addresses change by a push of the peer that is dialed, or by a token for it. */
  #addressesMoved(cluster: SimCluster, was: StoredRecord, record: StoredRecord): void {
    const { id, name, peerId, peerServerAddresses: addresses } = record;
    if (was.peerId !== peerId || sameTexts(was.peerServerAddresses, addresses) || !isStanding(record)) return;
    if (this.#witnesses.isInToken(peerId, addresses)) return;
    if (!sameTexts(was.manualServerAddresses, record.manualServerAddresses)) {
      this.#court.fail(`${cluster.name} ${name}: a push changed the addresses of its operator (I27)`);
    }
    const what = `${cluster.name} ${id} addresses`;
    const asked = this.#askedFor(what, this.#ofGeneration(cluster, record), undefined, (content) => {
      return content.kind === "addresses" && sameTexts(content.addresses, addresses);
    });
    if (asked !== undefined) this.#court.fail(`${cluster.name} ${name}: its addresses changed, ${asked} (D-12)`);
  }

  #ofGeneration(cluster: SimCluster, record: StoredRecord): readonly HostEnd[] {
    const generation = dials(record) ? record.peerId : record.id;
    return this.#witnesses.streamsOf(cluster, record.id).filter((end) => end.generation === generation);
  }

  /** Undefined where a message of these streams asks for it, no older than the last one that was followed; else why not. */
  #askedFor(
    what: string,
    streams: readonly HostEnd[],
    begunAt: number | undefined,
    asks: (content: Received["content"]) => boolean,
  ): string | undefined {
    const last = this.#places.get(what) ?? { order: -1, index: 0 };
    let why = "which no newer message asks for than the last one";
    // The oldest message that fits: the newer ones may still be to come.
    for (const end of streams.toReversed()) {
      const { order = -1 } = end;
      if (order < last.order) continue;
      const since = order === last.order ? end.received.slice(last.index) : end.received;
      const found = since.find(({ content, answer }) => answer !== "nack" && asks(content));
      if (found === undefined) continue;
      if (begunAt === undefined || !isLate(end, begunAt)) {
        this.#places.set(what, { order, index: found.index });
        return undefined;
      }
      why = "which a stream asked for that did not count any more";
    }
    return why;
  }

  #forget(prefix: string): void {
    for (const what of [...this.#places.keys()]) if (what.startsWith(prefix)) this.#places.delete(what);
  }
}

/** Whether a commit was begun that the end of this stream forbids. */
function isLate({ terminatedInAt, replacedAt, closedAt }: HostEnd, begunAt: number): boolean {
  if (terminatedInAt !== undefined && begunAt > terminatedInAt) return true;
  return [replacedAt, closedAt].some((endedAt) => endedAt !== undefined && begunAt > endedAt + TURN_MS);
}

/** Whether this message leaves the service as `stored`: the payload behind what its owner keeps with it, or nothing. */
function leadsTo(content: Received["content"], key: string, stored: Uint8Array | undefined): boolean {
  if (content.kind === "list") return stored === undefined && !isListed(content.names, key);
  if (content.kind !== "service" || content.key !== key) return false;
  return stored === undefined
    ? content.value.length === 0
    : content.value.length > 0 && endsWith(stored, content.value);
}

function isListed(names: ReadonlySet<string>, key: string): boolean {
  return names.has(key) || (key.endsWith(SIDECAR) && names.has(key.slice(0, -SIDECAR.length)));
}

function endsWith(stored: Uint8Array, payload: Uint8Array): boolean {
  if (stored.length < payload.length) return false;
  return Buffer.compare(stored.subarray(stored.length - payload.length), payload) === 0;
}

function sameTexts(left: readonly string[], right: readonly string[]): boolean {
  const text = (list: readonly string[]): string => list.map((one) => one.trim()).join("\n");
  return text(left) === text(right);
}
