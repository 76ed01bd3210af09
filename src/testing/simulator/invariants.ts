import { isActive, type Peering, roleOf } from "../../peering/peering.js";
import type { RecordTables } from "../../peering/transactions.js";
import type { SimCluster } from "./world.js";

interface Remembered {
  readonly peering: Peering;
  readonly imported: number;
}

/**
 * The safety invariants of specification chapter 3, section 15.3, as far as one can see them from outside one event:
 * each check compares a cluster with what it was after the event before.
 */
export class InvariantChecker {
  readonly failures: string[] = [];
  readonly #onFailure: (text: string) => void;
  readonly #before = new Map<string, Remembered>();
  readonly #exchanged = new Map<string, number>();

  constructor(onFailure: (text: string) => void) {
    this.#onFailure = onFailure;
  }

  fail(text: string): void {
    this.failures.push(text);
    this.#onFailure(text);
  }

  /** An exchange of this establishment secret succeeded (I5). */
  exchanged(secret: string): void {
    const times = (this.#exchanged.get(secret) ?? 0) + 1;
    this.#exchanged.set(secret, times);
    if (times > 1) this.fail("an establishment secret was exchanged twice (I5)");
  }

  /** A crash: what was in memory only may differ now. */
  restarted(cluster: SimCluster): void {
    for (const [key, remembered] of this.#before) {
      if (key.startsWith(`${cluster.name} `))
        this.#before.set(key, { ...remembered, imported: Number.POSITIVE_INFINITY });
    }
  }

  check(cluster: SimCluster): void {
    const { host } = cluster;
    if (host === undefined) return;
    const { records, imports, links } = host.internals;
    const present = new Set<string>();
    for (const peering of records.list()) {
      const key = `${cluster.name} ${peering.id}`;
      present.add(key);
      const imported = imports.services(peering.id).length;
      this.#checkRecord(cluster.name, peering, imported, this.#before.get(key));
      this.#before.set(key, { peering, imported });
    }
    for (const [key, { peering }] of this.#before) {
      if (!key.startsWith(`${cluster.name} `) || present.has(key)) continue;
      if (isActive(peering)) this.fail(`${key}: an active record vanished (I11)`);
      if (imports.services(peering.id).length > 0) this.fail(`${key}: imports without a record (I17)`);
      this.#before.delete(key);
    }
    this.#checkSecrets(cluster.name, records.tables);
    for (const name of links.contested()) this.fail(`${cluster.name}: two streams apply for ${name} (I14)`);
  }

  /** I1, I2 and I7. I3 holds by construction: the digests in use are those of the rows. */
  #checkSecrets(cluster: string, tables: RecordTables): void {
    const used = new Set<string>();
    for (const [id, row] of tables.secrets) {
      const peering = tables.peerings.get(id);
      if (peering === undefined || peering.state === "deleting") {
        this.fail(`${cluster} ${id}: secrets of a record that is ${peering?.state ?? "gone"} (I7)`);
      }
      if (row.role !== "acceptor") continue;
      for (const digest of [row.establishment, row.pending, row.active]) {
        if (digest === "") continue;
        if (used.has(digest)) this.fail(`${cluster} ${id}: a secret is held twice (I2)`);
        used.add(digest);
      }
    }
  }

  #checkRecord(cluster: string, peering: Peering, imported: number, before: Remembered | undefined): void {
    const at = `${cluster} ${peering.name}`;
    const { state } = peering;
    if ((peering.deletedAt !== undefined) !== (state === "deleting")) this.fail(`${at}: DeletedAt while ${state} (I9)`);
    if (state !== "deleting" && (roleOf(peering) === "dialer") !== (peering.peerId !== "")) {
      this.fail(`${at}: the role and PeerID disagree (I8)`);
    }
    if (before === undefined) {
      if (!isActive(peering)) this.fail(`${at}: created as ${state} (I11)`);
      return;
    }
    const was = before.peering;
    if (roleOf(was) !== roleOf(peering) || was.name !== peering.name) this.fail(`${at}: role or name changed (I8)`);
    if (was.state === "deleting" && state !== "deleting") this.fail(`${at}: DELETING became ${state} (I10)`);
    if (was.state === "terminated" && (state === "pending" || (state === "establishing" && roleOf(was) !== "dialer"))) {
      this.fail(`${at}: TERMINATED became ${state} (I10)`);
    }
    if (!isActive(was) && !isActive(peering) && imported > before.imported) {
      this.fail(`${at}: imported while ${state} (I17)`);
    }
  }
}
