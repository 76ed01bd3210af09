import { decodePeering, decodeSecrets } from "../../host/record-codec.js";
import { addressesToDial, isActive, type Peering, roleOf } from "../../peering/peering.js";
import { type AcceptorSecrets, digestSecret, matchStreamSecret, type SecretsRow } from "../../peering/secrets.js";
import { IMPORTS_PREFIX, PEERING_SECRETS_PREFIX, PEERINGS_PREFIX } from "../../storage/keys.js";
import type { Key, Write } from "../../storage/storage.js";
import { decodeTrustBundle, TRUST_BUNDLES_PREFIX } from "../../trust/trust-bundle-store.js";
import type { ReplicationMessage } from "../../wire/messages.js";
import type { Connection, SimStream } from "./sim-network.js";
import type { SimCluster } from "./world.js";

/** A commit or a last message may be under way this long after what gave it the right to be. */
const UNDER_WAY_MS = 30_000;
/** No retry path of a host tries one address more often: 8 ms five times, then doubling, beside a few restarts. */
const ATTEMPTS_PER_SECOND = 40;

/** What one disk holds, decoded, as of its last commit. */
class DiskView {
  readonly peerings: Map<string, Peering> = new Map();
  readonly secrets: Map<string, SecretsRow> = new Map();
  /** How many entries are imported, by id of the peering. */
  readonly imports: Map<string, Set<string>> = new Map();
  /** Digests that have left their slot. */
  readonly dead: Set<string> = new Set();
}

/**
 * The safety invariants of specification chapter 3, section 15.3, as an observer sees them who reads every disk, hears
 * every message and looks into every host after each event. Disks are judged commit by commit, for that is what the next
 * start finds.
 */
export class InvariantChecker {
  readonly failures: string[] = [];
  readonly #onFailure: (text: string) => void;
  readonly #now: () => number;
  readonly #disks = new Map<string, DiskView>();
  readonly #exchanged = new Set<string>();
  /** Cluster and peering whose stream was last seen bound, and when. */
  readonly #linked = new Map<string, number>();
  /** Cluster and PeerID of streams on which the peer said `Terminated`. */
  readonly #terminations = new Set<string>();
  readonly #silenced = new WeakSet<SimStream>();
  readonly #greeted = new WeakSet<Connection>();
  readonly #attempts = new Map<string, number[]>();

  constructor(onFailure: (text: string) => void, now: () => number) {
    this.#onFailure = onFailure;
    this.#now = now;
  }

  fail(text: string): void {
    this.failures.push(text);
    this.#onFailure(text);
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

  /** An exchange of this establishment secret succeeded (I4, I5). */
  exchanged(secret: string): void {
    if (this.#exchanged.has(secret)) this.fail("an establishment secret was exchanged twice (I5)");
    this.#exchanged.add(secret);
  }

  attempted(from: string, to: string): void {
    const key = `${from} ${to}`;
    const since = this.#now() - 1_000;
    const recent = (this.#attempts.get(key) ?? []).filter((at) => at > since);
    recent.push(this.#now());
    this.#attempts.set(key, recent);
    if (recent.length > ATTEMPTS_PER_SECOND) this.fail(`${from} tries ${to} without a pause (I25)`);
  }

  /** `sender` is undefined for a peer that is no host. */
  sent(
    sender: SimCluster | undefined,
    receiver: SimCluster | undefined,
    stream: SimStream,
    message: ReplicationMessage,
  ): void {
    const { connection, role } = stream;
    if (message.type === "open") connection.opened ??= message;
    const { opened } = connection;
    if (message.type === "terminated" && receiver !== undefined) {
      this.#terminations.add(`${receiver.name} ${opened?.peerId ?? ""}`);
    }
    if (sender?.host === undefined) return;
    const { records } = sender.host.internals;
    if (this.#silenced.has(stream)) this.fail(`${stream.address} sent ${message.type} after Terminated (I21)`);
    if (message.type === "open") {
      const record = records.list().find((peering) => peering.peerId === message.peerId);
      if (record === undefined || !isActive(record)) this.fail(`${sender.name} dials without an active record (I13)`);
      else if (!this.disk(sender).secrets.has(record.id)) this.fail(`${sender.name} dials without a secret (I13)`);
      if (!sender.leadership.isLeader) this.fail(`${sender.name} dials, and does not lead (I26)`);
    } else if (message.type === "terminated") {
      this.#silenced.add(stream);
      const record =
        role === "acceptor"
          ? records.byId(opened?.peerId ?? "")
          : records.list().find((peering) => peering.peerId !== "" && peering.peerId === opened?.peerId);
      if (isActive(record)) this.fail(`${sender.name} sent Terminated for ${record?.name}, which is active (I21)`);
    } else if (role === "acceptor" && !this.#greeted.has(connection)) {
      this.#greeted.add(connection);
      const id = opened?.peerId ?? "";
      const row = this.disk(sender).secrets.get(id);
      if (!isActive(records.byId(id)))
        this.fail(`${sender.name} accepted a stream for a record that is not active (I12)`);
      if (row?.role !== "acceptor" || matchStreamSecret(row, digestSecret(opened?.streamSecretId ?? "")) !== "active") {
        this.fail(`${sender.name} accepted a stream with a secret that is not the active one (I4, I12)`);
      }
      if (!sender.leadership.isLeader) this.fail(`${sender.name} accepts, and does not lead (I26)`);
    }
  }

  // --- disks -----------------------------------------------------------------------------------------------------------

  /** A commit took effect on the disk of `cluster`. */
  committed(cluster: SimCluster, writes: readonly Write[]): void {
    const disk = this.disk(cluster);
    const at = (id: string): string => `${cluster.name} ${id}`;
    const records = new Map<string, Peering | undefined>();
    for (const { key, value } of writes) {
      if (!isUnder(key, PEERINGS_PREFIX)) continue;
      records.set(last(key), value === undefined ? undefined : decodePeering({ key, value, revision: 1n }));
    }
    const before = new Map([...records.keys()].map((id) => [id, disk.peerings.get(id)]));
    for (const [id, record] of records) setOrDelete(disk.peerings, id, record);
    for (const { key, value } of writes) {
      if (!isUnder(key, PEERING_SECRETS_PREFIX)) continue;
      const id = last(key);
      const row = value === undefined ? undefined : decodeSecrets({ key, value, revision: 1n });
      this.#secretsMoved(at(id), disk, disk.secrets.get(id), row, disk.peerings.get(id), records.has(id));
      setOrDelete(disk.secrets, id, row);
    }
    for (const { key, value } of writes) {
      if (isUnder(key, IMPORTS_PREFIX)) this.#importMoved(cluster, disk, key, value !== undefined);
      if (isUnder(key, TRUST_BUNDLES_PREFIX) && value !== undefined) this.#bundleStored(at(last(key)), value, records);
    }
    for (const [id, record] of records) {
      if (record === undefined) this.#removed(cluster, disk, id, before.get(id));
      else this.#recordMoved(cluster, before.get(id), record);
    }
    this.#secretsAsAWhole(cluster.name, disk);
  }

  /** I4, I5, I6, I23, I24: one step in the life of the secrets of one record. */
  #secretsMoved(
    at: string,
    disk: DiskView,
    before: SecretsRow | undefined,
    after: SecretsRow | undefined,
    record: Peering | undefined,
    withRecord: boolean,
  ): void {
    if (after === undefined) {
      if (isActive(record)) this.fail(`${at}: an active record lost its secrets (I23)`);
    } else if (after.role === "dialer") {
      if (!withRecord || record?.state !== "establishing") this.fail(`${at}: a stream secret without its record (I6)`);
    } else {
      const was: AcceptorSecrets = before?.role === "acceptor" ? before : noSecrets;
      if (after.active !== was.active) {
        if (after.active !== was.pending || after.pending !== "") this.fail(`${at}: S was not promoted from P (I4)`);
        if (!withRecord) this.fail(`${at}: promoted without the record (I6)`);
      } else if (after.pending !== was.pending) {
        if (was.establishment === "" || after.establishment !== "") this.fail(`${at}: P without an exchange of E (I5)`);
      } else if (after.establishment !== "" && !withRecord) {
        this.fail(`${at}: a token without its record (I6)`);
      }
      if (after.establishment !== "" && after.establishment !== was.establishment) {
        if (after.pending !== was.pending || after.active !== was.active)
          this.fail(`${at}: a token disturbed P or S (I24)`);
      }
    }
    const held = slots(after);
    for (const digest of held) if (disk.dead.has(digest)) this.fail(`${at}: a secret came back (I4)`);
    for (const digest of slots(before)) if (!held.includes(digest)) disk.dead.add(digest);
  }

  /** I1, I2 and I7. I3 holds by construction: the digests in use are those of the rows. */
  #secretsAsAWhole(cluster: string, disk: DiskView): void {
    const used = new Set<string>();
    for (const [id, row] of disk.secrets) {
      const peering = disk.peerings.get(id);
      if (peering === undefined || peering.state === "deleting") {
        this.fail(`${cluster} ${id}: secrets of a record that is ${peering?.state ?? "gone"} (I7)`);
      } else if (roleOf(peering) !== row.role) this.fail(`${cluster} ${id}: secrets of the other role (I1)`);
      for (const digest of slots(row)) {
        if (used.has(digest)) this.fail(`${cluster} ${id}: a secret is held twice (I2)`);
        used.add(digest);
      }
    }
  }

  /** I17, I18, I20 and I26: an entry of the imports was written or deleted. */
  #importMoved(cluster: SimCluster, disk: DiskView, key: Key, written: boolean): void {
    const id = key[1] ?? "";
    const active = isActive(disk.peerings.get(id));
    const entries = disk.imports.get(id) ?? new Set();
    disk.imports.set(id, entries);
    if (written) entries.add(last(key));
    else entries.delete(last(key));
    const at = `${cluster.name} ${disk.peerings.get(id)?.name ?? id}`;
    if (written && !active) this.fail(`${at}: imported without an active record (I17)`);
    // What was under way when a process froze goes on when it thaws.
    const linkedAt = Math.max(
      this.#linked.get(`${cluster.name} ${id}`) ?? -UNDER_WAY_MS - 1,
      cluster.life.frozenUntil || -UNDER_WAY_MS - 1,
    );
    if (active && this.#now() - linkedAt > UNDER_WAY_MS) {
      this.fail(`${at}: what was imported changed without a stream (I20)`);
    }
    if (this.#now() - Math.max(cluster.ledUntil(), cluster.life.frozenUntil) > UNDER_WAY_MS)
      this.fail(`${at}: imports of a follower changed (I26)`);
  }

  /** I19. */
  #bundleStored(at: string, value: Uint8Array, records: ReadonlyMap<string, Peering | undefined>): void {
    const bundle = decodeTrustBundle(value);
    if (bundle === undefined || bundle.rootPems.length === 0) {
      this.fail(`${at}: an empty trust bundle (I19)`);
      return;
    }
    const record = [...records.values()].find((peering) => peering?.name === bundle.peerName);
    if (!isActive(record)) this.fail(`${at}: a bundle without its active record (I17, I19)`);
    else if (record?.peerCaPems.join("").trim() !== bundle.rootPems.join("").trim()) {
      this.fail(`${at}: the record trusts other roots than the bundle holds (I19)`);
    }
  }

  #removed(cluster: SimCluster, disk: DiskView, id: string, before: Peering | undefined): void {
    const at = `${cluster.name} ${before?.name ?? id}`;
    if (isActive(before)) this.fail(`${at}: an active record vanished (I11)`);
    if ((disk.imports.get(id)?.size ?? 0) > 0) this.fail(`${at}: imports without a record (I17)`);
    if (this.#now() - Math.max(cluster.ledUntil(), cluster.life.frozenUntil) > UNDER_WAY_MS)
      this.fail(`${at}: removed by a follower (I26)`);
  }

  /** I8 to I11, I22 and I27: one step of one record. */
  #recordMoved(cluster: SimCluster, was: Peering | undefined, peering: Peering): void {
    const at = `${cluster.name} ${peering.name}`;
    const { state } = peering;
    const role = roleOf(peering);
    if ((peering.deletedAt !== undefined) !== (state === "deleting")) this.fail(`${at}: DeletedAt while ${state} (I9)`);
    if (state !== "deleting" && (role === "dialer") !== (peering.peerId !== "")) {
      this.fail(`${at}: the role and PeerID disagree (I8)`);
    }
    if (was === undefined) {
      if (!isActive(peering)) this.fail(`${at}: created as ${state} (I11)`);
      return;
    }
    if (roleOf(was) !== role || was.name !== peering.name) this.fail(`${at}: role or name changed (I8)`);
    if (was.state === "deleting" && state !== "deleting") this.fail(`${at}: DELETING became ${state} (I10)`);
    if (was.state === "terminated" && (state === "pending" || (state === "establishing" && role !== "dialer"))) {
      this.fail(`${at}: TERMINATED became ${state} (I10)`);
    }
    if (state === "terminated" && was.state !== "terminated") {
      const generation = role === "dialer" ? peering.peerId : peering.id;
      if (!this.#terminations.has(`${cluster.name} ${generation}`)) {
        this.fail(`${at}: TERMINATED without a word of that peer (I22)`);
      }
    }
    if (was.peerId !== peering.peerId || was.state !== state) return;
    if (role === "dialer" && addressesToDial(peering).length === 0) this.fail(`${at}: nothing left to dial (I27)`);
    const pushed = was.peerServerAddresses.join() !== peering.peerServerAddresses.join();
    if (pushed && was.manualServerAddresses.join() !== peering.manualServerAddresses.join()) {
      this.fail(`${at}: manual addresses changed with the others (I27)`);
    }
  }

  // --- hosts -----------------------------------------------------------------------------------------------------------

  /** What is seen in a host between two events: I14 to I16, and that memory is not ahead of the disk. */
  check(cluster: SimCluster): void {
    const { host } = cluster;
    if (host === undefined) return;
    const { records, links, board } = host.internals;
    for (const peering of records.list()) {
      const { id, state } = peering;
      const phase = links.phaseOf(id);
      if (phase !== undefined) this.#linked.set(`${cluster.name} ${id}`, this.#now());
      const reported = board.stateOf(peering);
      const at = `${cluster.name} ${peering.name}`;
      if (state === "deleting" || state === "terminated") {
        if (reported !== state) this.fail(`${at}: ${state} reads ${reported} (I16)`);
      } else if (phase === "connected" && reported !== "active") {
        this.fail(`${at}: its stream is up and it reads ${reported} (I15, I16)`);
      } else if (phase === undefined && reported === "active") {
        this.fail(`${at}: it reads active without a stream (I15, I16)`);
      }
    }
    for (const name of links.contested()) this.fail(`${cluster.name}: two streams apply for ${name} (I14)`);
  }
}

const noSecrets: AcceptorSecrets = { role: "acceptor", establishment: "", pending: "", active: "" };

function slots(row: SecretsRow | undefined): readonly string[] {
  if (row?.role !== "acceptor") return [];
  return [row.establishment, row.pending, row.active].filter((digest) => digest !== "");
}

function isUnder(key: Key, prefix: Key): boolean {
  return prefix.every((part, index) => key[index] === part);
}

function last(key: Key): string {
  return key.at(-1) ?? "";
}

function setOrDelete<V>(map: Map<string, V>, key: string, value: V | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
