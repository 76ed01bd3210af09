import { PeeringError } from "../base/errors.js";
import { isActive, type Peering, roleOf } from "../peering/peering.js";
import { RecordTables } from "../peering/record-tables.js";
import type { SecretsRow } from "../peering/secrets.js";
import type { RecordChanges } from "../peering/transactions.js";
import { fenceKey, PEERING_SECRETS_PREFIX, PEERINGS_PREFIX } from "../storage/keys.js";
import type { Loader, Receiver, ReplicaContents } from "../storage/replica.js";
import type { Key, Write } from "../storage/storage.js";
import { lowerCase } from "../syntax/names.js";
import { decodeTrustBundle, encodeTrustBundle } from "../trust/trust-bundle-store.js";
import { claimedSince, type StoredClaim, TrustDomains } from "../trust/trust-domains.js";
import { decodePeering, decodeSecrets, encodePeering, encodeSecrets } from "./record-codec.js";

export function recordKey(id: string): Key {
  return [...PEERINGS_PREFIX, "record", id];
}

function secretsKey(id: string): Key {
  return [...PEERING_SECRETS_PREFIX, id];
}

/** @param name - a {@link lowerCase}. */
export function bundleKey(name: string): Key {
  return [...PEERINGS_PREFIX, "bundle", name];
}

/** The rows of peerings that a commit changed. Undefined: the row is gone. */
export interface CommittedRows {
  /** By id. */
  readonly peerings: ReadonlyMap<string, Peering | undefined>;
  readonly secrets: ReadonlyMap<string, SecretsRow | undefined>;
  /** Revisions of the fences. */
  readonly fences: ReadonlyMap<string, bigint | undefined>;
  /** Trust bundles by {@link lowerCase} of the peer's name. */
  readonly claims: ReadonlyMap<string, StoredClaim | undefined>;
}

/** The peerings in memory with their secrets and trust bundles, and how they are stored. */
export class HeldPeerings extends RecordTables implements ReplicaContents {
  /** Which trust bundles may be told. */
  readonly domains: TrustDomains;
  /** Since when a trust bundle is served unchanged, by {@link lowerCase}. */
  readonly bundleRevisions: Map<string, bigint> = new Map();
  /** By id: the revision at which the record began or ceased to be active. */
  readonly fences: Map<string, bigint> = new Map();
  /** Called with the commits of other processes, before they are taken into memory by {@link take}. */
  onForeign: (rows: CommittedRows, revision: bigint) => void = (rows, revision) => {
    this.take(rows, revision);
  };

  /** @param trustDomain - our own. */
  constructor(trustDomain: string) {
    super();
    this.domains = new TrustDomains(trustDomain);
  }

  /** The writes that store changes planned on these tables. */
  writesOf(changes: RecordChanges): readonly Write[] {
    const writes: Write[] = [];
    for (const [id, peering] of changes.peerings) {
      writes.push({ key: recordKey(id), value: peering && encodePeering(peering) });
      if (movesFence(this.peerings.get(id), peering)) {
        writes.push({ key: fenceKey(id), value: peering && new Uint8Array() });
      }
    }
    for (const [id, row] of changes.secrets) writes.push({ key: secretsKey(id), value: row && encodeSecrets(row) });
    for (const [name, bundle] of changes.bundles) {
      const since = bundle && claimedSince(this.domains.claims.get(name), bundle);
      writes.push({ key: bundleKey(name), value: bundle && encodeTrustBundle(bundle, since) });
    }
    return writes;
  }

  /** The rows of these changes once they are committed as `revision`. */
  committed(changes: RecordChanges, revision: bigint): CommittedRows {
    const fences = new Map<string, bigint | undefined>();
    const peerings = new Map<string, Peering | undefined>();
    for (const [id, written] of changes.peerings) {
      if (movesFence(this.peerings.get(id), written)) fences.set(id, written && revision);
      const createIndex = written?.createIndex || revision;
      peerings.set(id, written && Object.freeze({ ...written, createIndex, modifyIndex: revision }));
    }
    const claims = new Map<string, StoredClaim | undefined>();
    for (const [name, bundle] of changes.bundles) {
      const since = bundle && (claimedSince(this.domains.claims.get(name), bundle) ?? revision);
      claims.set(name, bundle && { bundle, since: since ?? revision });
    }
    return { peerings, secrets: changes.secrets, fences, claims };
  }

  /** Updates memory to a commit. @returns names of peers whose bundles are withheld since then. */
  take({ peerings, secrets, fences, claims }: CommittedRows, revision: bigint): readonly string[] {
    for (const [id, fence] of fences) setOrDelete(this.fences, id, fence);
    // First the removed ones: another record may have the name of one.
    for (const [id, peering] of peerings) if (peering === undefined) this.setPeering(id, undefined);
    for (const [id, peering] of peerings) if (peering !== undefined) this.setPeering(id, peering);
    for (const [id, row] of secrets) this.setSecrets(id, row);
    const withheld: string[] = [];
    for (const [name, claim] of [...claims].sort(byAge)) {
      this.setBundle(name, claim?.bundle);
      setOrDelete(this.bundleRevisions, name, claim && revision);
      const changed = this.domains.set(name, claim);
      // Bundles that may be served again are news, too.
      for (const served of changed.served) this.bundleRevisions.set(served, revision);
      withheld.push(...changed.withheld);
    }
    return withheld;
  }

  load(): Loader {
    const rows = new ReceivedRows();
    return {
      put: (entry) => rows.put(entry),
      damaged: () => {},
      remove: () => {},
      done: (revision) => {
        requireConsistent(rows);
        for (const id of this.peerings.keys()) if (!rows.peerings.has(id)) rows.peerings.set(id, undefined);
        for (const id of this.secrets.keys()) if (!rows.secrets.has(id)) rows.secrets.set(id, undefined);
        for (const id of this.fences.keys()) if (!rows.fences.has(id)) rows.fences.set(id, undefined);
        for (const name of this.bundles.keys()) if (!rows.claims.has(name)) rows.claims.set(name, undefined);
        // A row that memory holds already is no change.
        for (const [id, peering] of rows.peerings) {
          if (peering !== undefined && this.peerings.get(id)?.modifyIndex === peering.modifyIndex)
            rows.peerings.delete(id);
        }
        this.onForeign(rows, revision);
      },
    };
  }

  follow(): Receiver {
    const rows = new ReceivedRows();
    return {
      put: (entry) => rows.put(entry),
      remove: (key) => rows.remove(key),
      done: (revision) => this.onForeign(rows, revision),
    };
  }
}

/** Rows as they come from the storage. */
class ReceivedRows implements CommittedRows {
  readonly peerings: Map<string, Peering | undefined> = new Map();
  readonly secrets: Map<string, SecretsRow | undefined> = new Map();
  readonly fences: Map<string, bigint | undefined> = new Map();
  readonly claims: Map<string, StoredClaim | undefined> = new Map();

  put({ key, value, revision }: { readonly key: Key; readonly value: Uint8Array; readonly revision: bigint }): void {
    const [, type, id = ""] = key;
    switch (type) {
      case "record":
        this.peerings.set(id, Object.freeze(decodePeering(id, value, revision)));
        return;
      case "secrets":
        this.secrets.set(id, decodeSecrets(value));
        return;
      case "gate":
        this.fences.set(id, revision);
        return;
      case "bundle": {
        const stored = decodeTrustBundle(value);
        if (stored === undefined) throw new TypeError("it is no trust bundle");
        this.claims.set(id, { bundle: stored.bundle, since: stored.since ?? revision });
        return;
      }
      default:
        throw new TypeError("it is of no known type");
    }
  }

  remove([, type, id = ""]: Key): void {
    if (type === "record") this.peerings.set(id, undefined);
    else if (type === "secrets") this.secrets.set(id, undefined);
    else if (type === "gate") this.fences.set(id, undefined);
    else if (type === "bundle") this.claims.set(id, undefined);
  }
}

/** @throws {PeeringError} `storage-failed`: rows do not fit together; the key of one is named. */
function requireConsistent({ peerings, secrets }: CommittedRows): void {
  const names = new Set<string>();
  for (const [id, peering] of peerings) {
    const name = lowerCase(peering?.name ?? "");
    if (names.has(name)) throw inconsistent(recordKey(id), "name used twice");
    names.add(name);
  }
  for (const [id, row] of secrets) {
    const peering = peerings.get(id);
    if (peering !== undefined && roleOf(peering) !== row?.role) throw inconsistent(secretsKey(id), "of the wrong role");
  }
}

function inconsistent(key: Key, why: string): PeeringError {
  return new PeeringError("storage-failed", `stored peering entry ${key.join("/")} is damaged: ${why}`);
}

/** Whether a record begins or ceases to be active. */
function movesFence(before: Peering | undefined, after: Peering | undefined): boolean {
  return (before === undefined) !== (after === undefined) || isActive(before) !== isActive(after);
}

/** The earliest claim first, as they were committed. */
function byAge(
  [, left]: readonly [string, StoredClaim | undefined],
  [, right]: readonly [string, StoredClaim | undefined],
): number {
  const [a, b] = [left?.since ?? 0n, right?.since ?? 0n];
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function setOrDelete<K, V>(map: Map<K, V>, key: K, value: V | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
