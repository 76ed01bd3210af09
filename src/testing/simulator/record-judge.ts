import type { Write } from "../../storage/storage.js";
import type { SimCluster } from "./cluster.js";
import {
  type DiskView,
  dialedAddresses,
  dials,
  isBundle,
  isRecord,
  isSecrets,
  isStanding,
  type StoredRecord,
  type StoredSecrets,
} from "./stored-forms.js";

/** A commit or a last message may be under way this long after what gave it the right to be. */
export const UNDER_WAY_MS = 30_000;
/** A commit that was begun while its node led may take this long. */
const COMMIT_MS = 20_000;

export interface Court {
  readonly fail: (text: string) => void;
  readonly now: () => number;
}

type Role = "acceptor" | "dialer";

/** The states that may follow a stored state in one commit, by role (I10); `none`: the record is removed. */
const NEXT: Readonly<Record<Role, Readonly<Record<string, readonly string[]>>>> = {
  acceptor: {
    none: ["pending"],
    pending: ["pending", "terminated", "deleting"],
    terminated: ["deleting"],
    deleting: ["none"],
  },
  dialer: {
    none: ["pending"],
    pending: ["pending", "establishing", "terminated", "deleting"],
    establishing: ["establishing", "terminated", "deleting"],
    // Established again over the old record: first the fields of the token, then the secret.
    terminated: ["terminated", "establishing", "deleting"],
    deleting: ["none"],
  },
};

/** Judges what commits do to records, their secrets and their trust bundles. */
export class RecordJudge {
  readonly #court: Court;
  /** Cluster and PeerID of streams on which the peer said `Terminated`. */
  readonly #terminations = new Set<string>();
  /** Digests that have left their slot, by cluster. */
  readonly #dead = new Map<string, Set<string>>();
  /** Ids of records that were removed. */
  readonly #removed = new Set<string>();
  /** Establishment digests that were used up, with cluster and id. */
  readonly #exchanged = new Set<string>();

  constructor(court: Court) {
    this.#court = court;
  }

  /** The peer has said `Terminated` to `cluster` about the peering it knows by this PeerID. */
  terminated(cluster: SimCluster, peerId: string): void {
    this.#terminations.add(`${cluster.name} ${peerId}`);
  }

  /** Whether an exchange of this digest was committed at that cluster. */
  wasExchanged(cluster: SimCluster, digest: string): boolean {
    return this.#exchanged.has(`${cluster.name} ${digest}`);
  }

  /** @param disk - before the commit. It is brought up to date here. */
  committed(cluster: SimCluster, disk: DiskView, writes: readonly Write[]): void {
    const touched = [...new Set(writes.filter(({ key }) => isRecord(key)).map(({ key }) => key[2] ?? ""))];
    const before = new Map(touched.map((id) => [id, disk.records.get(id)]));
    const secrets = writes.filter(({ key }) => isSecrets(key)).map(({ key }) => key[2] ?? "");
    const secretsBefore = new Map(secrets.map((id) => [id, disk.secrets.get(id)]));
    disk.apply(writes);
    for (const id of touched) this.#recordMoved(cluster, disk, id, before.get(id));
    for (const id of secrets) this.#secretsMoved(cluster, disk, id, secretsBefore.get(id), touched.includes(id));
    if (touched.length > 0 || secrets.length > 0) this.#together(cluster, disk);
    for (const { key, value } of writes) {
      if (isBundle(key) && value !== undefined) this.#bundleStored(cluster, disk, key[2] ?? "", touched);
    }
  }

  /** I8 to I11, I22 and I27: one step of one record. */
  #recordMoved(cluster: SimCluster, disk: DiskView, id: string, was: StoredRecord | undefined): void {
    const record = disk.records.get(id);
    const at = `${cluster.name} ${record?.name ?? was?.name ?? id}`;
    const fail = (text: string): void => this.#court.fail(`${at}: ${text}`);
    const known = record ?? was;
    if (known === undefined) return;
    const role: Role = dials(known) ? "dialer" : "acceptor";
    const from = was?.state ?? "none";
    const to = record?.state ?? "none";
    if (NEXT[role][from]?.includes(to) !== true) fail(`a record of ${role}s went from ${from} to ${to} (I10, I11)`);
    if (record === undefined) {
      this.#removed.add(id);
      const left = disk.leftOf(id, known.name);
      if (left.length > 0) fail(`the record is gone and left ${left.join(" and ")} (I7, I17)`);
      if (this.#court.now() - Math.max(cluster.ledUntil(), cluster.life.frozenUntil) > COMMIT_MS) {
        fail("removed by a follower (I26)");
      }
      return;
    }
    if (was === undefined && this.#removed.has(id)) fail("a record that was removed came back (I11)");
    if (disk.recordOf(record.name)?.id !== id) fail("its name leads to another record");
    if ((record.deletedAt !== undefined) !== (to === "deleting")) fail(`DeletedAt while ${to} (I9)`);
    if (to !== "deleting" && (role === "dialer") !== (record.peerId !== "")) fail("the role and PeerID disagree (I8)");
    if (!disk.fences.has(id)) fail("it has no fence");
    if (was === undefined) return;
    if (dials(was) !== dials(record) || was.name !== record.name) fail("role or name changed (I8)");
    if (to === "terminated" && from !== "terminated") {
      const generation = role === "dialer" ? record.peerId : id;
      if (!this.#terminations.has(`${cluster.name} ${generation}`))
        fail("TERMINATED without a word of that peer (I22)");
    }
    if (was.peerId !== record.peerId || from !== to) return;
    if (role === "dialer" && dialedAddresses(record).length === 0) fail("nothing left to dial (I27)");
    const pushed = was.peerServerAddresses.join() !== record.peerServerAddresses.join();
    if (pushed && record.peerServerAddresses.length === 0) fail("a push emptied the server addresses (I27)");
  }

  /** I4, I5, I6, I23, I24: one step in the life of the secrets of one record. */
  #secretsMoved(
    cluster: SimCluster,
    disk: DiskView,
    id: string,
    before: StoredSecrets | undefined,
    withRecord: boolean,
  ): void {
    const after = disk.secrets.get(id);
    const record = disk.records.get(id);
    const fail = (text: string): void => this.#court.fail(`${cluster.name} ${record?.name ?? id}: ${text}`);
    if (after === undefined) {
      if (isStanding(record)) fail("a standing record lost its secrets (I23)");
    } else if (after.role === "dialer") {
      if (!withRecord || record?.state !== "establishing") fail("a stream secret without its record (I6)");
    } else {
      const was = before?.role === "acceptor" ? before : { establishment: "", pending: "", active: "" };
      if (after.active !== was.active) {
        if (after.active !== was.pending || after.pending !== "") fail("S was not promoted from P (I4)");
        if (!withRecord) fail("promoted without the record (I6)");
      } else if (after.pending !== was.pending) {
        if (was.establishment === "" || after.establishment !== "") fail("P without an exchange of E (I5)");
        this.#exchanged.add(`${cluster.name} ${was.establishment}`);
      } else if (after.establishment !== "" && !withRecord) {
        fail("a token without its record (I6)");
      }
      if (after.establishment !== "" && after.establishment !== was.establishment) {
        if (after.pending !== was.pending || after.active !== was.active) fail("a token disturbed P or S (I24)");
      }
    }
    const dead = this.#dead.get(cluster.name) ?? new Set();
    this.#dead.set(cluster.name, dead);
    const held = slots(after);
    for (const digest of held) if (dead.has(digest)) fail("a secret came back (I4)");
    for (const digest of slots(before)) if (!held.includes(digest)) dead.add(digest);
  }

  /** I1, I2, I7, and that names are unique. */
  #together(cluster: SimCluster, disk: DiskView): void {
    const fail = (id: string, text: string): void => this.#court.fail(`${cluster.name} ${id}: ${text}`);
    const used = new Set<string>();
    for (const [id, row] of disk.secrets) {
      const record = disk.records.get(id);
      if (record === undefined || record.state === "deleting") {
        fail(id, `secrets of a record that is ${record?.state ?? "gone"} (I7)`);
      } else if ((dials(record) ? "dialer" : "acceptor") !== row.role) fail(id, "secrets of the other role (I1)");
      for (const digest of slots(row)) {
        if (used.has(digest)) fail(id, "a secret is held twice (I2)");
        used.add(digest);
      }
    }
    const names = new Set<string>();
    for (const { id, name } of disk.records.values()) {
      if (names.has(name.toLowerCase())) fail(id, `two records are called ${name}`);
      names.add(name.toLowerCase());
    }
  }

  /** I17 and I19. */
  #bundleStored(cluster: SimCluster, disk: DiskView, name: string, touched: readonly string[]): void {
    const fail = (text: string): void => this.#court.fail(`${cluster.name} ${name}: ${text}`);
    const bundle = disk.bundles.get(name);
    const record = disk.recordOf(name);
    if (bundle === undefined || bundle.rootPems.length === 0) fail("an empty trust bundle (I19)");
    else if (!isStanding(record) || !touched.includes(record?.id ?? "")) fail("a bundle without its record (I17, I19)");
    else if (record?.peerCaPems.join("").trim() !== bundle.rootPems.join("").trim()) {
      fail("the record trusts other roots than the bundle holds (I19)");
    }
  }
}

function slots(row: StoredSecrets | undefined): readonly string[] {
  if (row?.role !== "acceptor") return [];
  return [row.establishment, row.pending, row.active].filter((digest) => digest !== "");
}
