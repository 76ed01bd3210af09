import type { SimCluster } from "./cluster.js";
import type { Court } from "./record-judge.js";
import { type DiskView, digestOf, isSecrets } from "./stored-forms.js";

/** Whom a stream secret was given for. */
interface Given {
  readonly peerId: string;
}

/**
 * Knows every secret of a world as it is, which no acceptor does. Says which one opens what, and finds those that a disk
 * holds in a form that can be read.
 */
export class SecretLedger {
  readonly #court: Court;
  readonly #secrets = new Set<string>();
  readonly #streamSecrets = new Map<string, Given>();
  readonly #exchanged = new Set<string>();
  /** Digests that each cluster has stored in a slot so far. */
  readonly #stored = new Map<string, Set<string>>();

  constructor(court: Court) {
    this.#court = court;
  }

  /** The secrets on the disk of a cluster after a commit that wrote some. */
  stored(cluster: SimCluster, disk: DiskView): void {
    const stored = this.#storedOf(cluster);
    for (const [id, row] of disk.secrets) {
      if (row.role !== "acceptor") continue;
      for (const digest of [row.establishment, row.pending, row.active]) {
        if (digest === "") continue;
        if (!/^[0-9a-f]{64}$/.test(digest))
          this.#court.fail(`${cluster.name} ${id}: stores a secret that is no digest`);
        stored.add(digest);
      }
    }
  }

  /** `cluster` has handed out this token. */
  tokenGiven(cluster: SimCluster, text: string): void {
    const token: { readonly EstablishmentSecret: string } = JSON.parse(Buffer.from(text, "base64").toString());
    this.#learn(token.EstablishmentSecret);
    if (!this.#storedOf(cluster).has(digestOf(token.EstablishmentSecret))) {
      this.#court.fail(`${cluster.name} gave a token of whose secret it stores no digest (I6)`);
    }
  }

  /**
   * An exchange succeeded (I4, I5).
   * @param committed - whether an acceptor has committed one with this digest; undefined for a peer that is not a host.
   */
  exchanged(
    cluster: SimCluster | undefined,
    peerId: string,
    establishment: string,
    streamSecret: string,
    committed: (digest: string) => boolean,
  ): void {
    this.#learn(establishment);
    this.#learn(streamSecret);
    this.#streamSecrets.set(streamSecret, { peerId: peerId.toLowerCase() });
    if (cluster === undefined) return;
    if (this.#exchanged.has(establishment)) this.#court.fail("an establishment secret was exchanged twice (I5)");
    this.#exchanged.add(establishment);
    if (!committed(digestOf(establishment))) {
      this.#court.fail(`${cluster.name} exchanged an establishment secret that it never gave out (I4, I5)`);
    }
    if (!this.#storedOf(cluster).has(digestOf(streamSecret))) {
      this.#court.fail(`${cluster.name} gave a stream secret of which it stores no digest (I6)`);
    }
  }

  /** Whether this secret was given for the peering of this PeerID. */
  isFor(secret: string, peerId: string): boolean {
    return this.#streamSecrets.get(secret)?.peerId === peerId.toLowerCase();
  }

  /** Every secret there was so far. */
  get known(): readonly string[] {
    return [...this.#secrets];
  }

  /** Looks for secrets in all that a disk holds: in text, and as the encodings of bytes that texts are made of. */
  async search(cluster: SimCluster): Promise<void> {
    const { entries } = await cluster.disk.read([]);
    for (const { key, value } of entries) {
      const isOwn = isSecrets(key);
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      // A dialer without a key for it keeps the one secret it needs as it is.
      const needed = isOwn && !cluster.sealed && bytes.includes('"role":"dialer"');
      if (needed) continue;
      const sealed = /"sealedActive":"([^"]*)"/.exec(isOwn ? bytes.toString() : "")?.[1] ?? "";
      const all = Buffer.concat([bytes, Buffer.from(sealed, "base64")]);
      for (const secret of this.#secrets) {
        const forms = [
          secret,
          Buffer.from(secret).toString("hex"),
          Buffer.from(secret).toString("base64").slice(0, 44),
        ];
        if (forms.some((form) => all.includes(form))) {
          this.#court.fail(`${cluster.name} stores a secret that can be read, at ${key.join("/")}`);
        }
      }
    }
  }

  #learn(secret: string): void {
    if (secret !== "") this.#secrets.add(secret);
  }

  #storedOf(cluster: SimCluster): Set<string> {
    const stored = this.#stored.get(cluster.name) ?? new Set();
    this.#stored.set(cluster.name, stored);
    return stored;
  }
}
