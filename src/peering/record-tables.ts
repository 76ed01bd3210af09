import { lowerCase } from "../syntax/names.js";
import type { Peering, TrustBundle } from "./peering.js";
import type { SecretDigest, SecretsRow } from "./secrets.js";

/**
 * The tables of peering records as they are at one moment, with what transactions look for in them. Each change keeps the
 * indexes, so that a look takes as long with many records as with few.
 */
export class RecordTables {
  readonly #peerings = new Map<string, Peering>();
  readonly #secrets = new Map<string, SecretsRow>();
  readonly #bundles = new Map<string, TrustBundle>();
  /** Local ids by {@link lowerCase}. */
  readonly #idByName = new Map<string, string>();
  /** How many slots of acceptors hold a digest. */
  readonly #digests = new Map<SecretDigest, number>();

  /** By local id. */
  get peerings(): ReadonlyMap<string, Peering> {
    return this.#peerings;
  }

  /** By local id. */
  get secrets(): ReadonlyMap<string, SecretsRow> {
    return this.#secrets;
  }

  /** By {@link lowerCase} of the peer's name. */
  get bundles(): ReadonlyMap<string, TrustBundle> {
    return this.#bundles;
  }

  /** The record of that name, compared without case. */
  byName(name: string): Peering | undefined {
    const id = this.#idByName.get(lowerCase(name));
    return id === undefined ? undefined : this.#peerings.get(id);
  }

  /** Whether an acceptor record holds that secret in any slot. Dialers' secrets are made elsewhere and do not count. */
  isSecretInUse(digest: SecretDigest): boolean {
    return this.#digests.has(digest);
  }

  /** @param peering - undefined: it is gone. */
  setPeering(id: string, peering: Peering | undefined): void {
    const before = this.#peerings.get(id);
    if (before !== undefined) this.#idByName.delete(lowerCase(before.name));
    if (peering === undefined) this.#peerings.delete(id);
    else {
      this.#peerings.set(id, peering);
      this.#idByName.set(lowerCase(peering.name), id);
    }
  }

  /** @param row - undefined: they are gone. */
  setSecrets(id: string, row: SecretsRow | undefined): void {
    this.#count(this.#secrets.get(id), -1);
    this.#count(row, 1);
    if (row === undefined) this.#secrets.delete(id);
    else this.#secrets.set(id, row);
  }

  /** @param name - a {@link lowerCase}. @param bundle - undefined: it is gone. */
  setBundle(name: string, bundle: TrustBundle | undefined): void {
    if (bundle === undefined) this.#bundles.delete(name);
    else this.#bundles.set(name, bundle);
  }

  #count(row: SecretsRow | undefined, by: 1 | -1): void {
    if (row?.role !== "acceptor") return;
    for (const digest of [row.establishment, row.pending, row.active]) {
      if (digest === "") continue;
      const count = (this.#digests.get(digest) ?? 0) + by;
      if (count > 0) this.#digests.set(digest, count);
      else this.#digests.delete(digest);
    }
  }
}
