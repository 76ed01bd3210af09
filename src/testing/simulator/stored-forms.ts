import { createHash } from "node:crypto";
import { CATALOG_PREFIX, IMPORTS_PREFIX, PEERINGS_PREFIX } from "../../storage/keys.js";
import type { Key, Write } from "../../storage/storage.js";

// The content of a disk, read without the code that wrote it: a judge must not ask the host that it judges.

export interface StoredRecord {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly deletedAt?: number;
  readonly peerId: string;
  readonly peerCaPems: readonly string[];
  readonly peerServerAddresses: readonly string[];
  readonly manualServerAddresses: readonly string[];
}

export type StoredSecrets =
  | { readonly role: "acceptor"; readonly establishment: string; readonly pending: string; readonly active: string }
  | { readonly role: "dialer"; readonly sealedActive: string };

export interface StoredBundle {
  readonly peerName: string;
  readonly trustDomain: string;
  readonly rootPems: readonly string[];
}

// Written out here rather than imported: the layout of the disk is judged, too.
const RECORDS_PREFIX: Key = [...PEERINGS_PREFIX, "record"];
const SECRETS_PREFIX: Key = [...PEERINGS_PREFIX, "secrets"];
const BUNDLES_PREFIX: Key = [...PEERINGS_PREFIX, "bundle"];
const FENCES_PREFIX: Key = [...PEERINGS_PREFIX, "gate"];
const IMPORT_HEADS_PREFIX: Key = [...IMPORTS_PREFIX, ""];

/** Neither terminated nor about to be deleted. */
export function isStanding(record: { readonly state: string } | undefined): boolean {
  return record !== undefined && record.state !== "terminated" && record.state !== "deleting";
}

/** A record with addresses dials. */
export function dials(record: Pick<StoredRecord, "peerServerAddresses" | "manualServerAddresses">): boolean {
  return record.peerServerAddresses.length + record.manualServerAddresses.length > 0;
}

/** Where a dialer dials: where its operator said, else where its peer said. */
export function dialedAddresses(record: StoredRecord): readonly string[] {
  return record.manualServerAddresses.length > 0 ? record.manualServerAddresses : record.peerServerAddresses;
}

/** The form in which an acceptor stores a secret. */
export function digestOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

/** The content of one disk, as of its last commit. */
export class DiskView {
  readonly records: Map<string, StoredRecord> = new Map();
  readonly secrets: Map<string, StoredSecrets> = new Map();
  /** By lower-cased name of the peer. */
  readonly bundles: Map<string, StoredBundle> = new Map();
  readonly fences: Set<string> = new Set();
  /** Values by service, by id of the peering. */
  readonly imports: Map<string, Map<string, Uint8Array>> = new Map();
  /** Ids of peerings. */
  readonly importHeads: Set<string> = new Set();
  /** Services with a virtual address, by lower-cased name of the peer. */
  readonly virtualIps: Map<string, Set<string>> = new Map();

  /** The record of this name, the case aside. */
  recordOf(name: string): StoredRecord | undefined {
    for (const record of this.records.values()) if (record.name.toLowerCase() === name.toLowerCase()) return record;
    return undefined;
  }

  importsOf(id: string): ReadonlyMap<string, Uint8Array> {
    return this.imports.get(id) ?? new Map();
  }

  /** Leftovers of a peering without a record, in words. */
  leftOf(id: string, name: string): readonly string[] {
    const left: string[] = [];
    if (this.importsOf(id).size > 0) left.push("imports");
    if (this.importHeads.has(id)) left.push("the head of its imports");
    if (this.secrets.has(id)) left.push("secrets");
    if (this.fences.has(id)) left.push("its fence");
    if (this.recordOf(name) === undefined && this.bundles.has(name.toLowerCase())) left.push("its trust bundle");
    return left;
  }

  apply(writes: readonly Write[]): void {
    for (const { key, value } of writes) this.#applyOne(key, value);
  }

  #applyOne(key: Key, value: Uint8Array | undefined): void {
    const [, peeringId = "", id = ""] = key;
    if (isUnder(key, RECORDS_PREFIX)) setOrDelete(this.records, id, value && readJson<StoredRecord>(value));
    else if (isUnder(key, SECRETS_PREFIX)) setOrDelete(this.secrets, id, value && readJson(value));
    else if (isUnder(key, BUNDLES_PREFIX)) setOrDelete(this.bundles, id, value && readJson(value));
    else if (isUnder(key, FENCES_PREFIX)) {
      if (value === undefined) this.fences.delete(id);
      else this.fences.add(id);
    } else if (isUnder(key, IMPORT_HEADS_PREFIX)) {
      if (value === undefined) this.importHeads.delete(id);
      else this.importHeads.add(id);
    } else if (isImport(key)) {
      const services = this.imports.get(peeringId) ?? new Map<string, Uint8Array>();
      this.imports.set(peeringId, services);
      setOrDelete(services, key[2] ?? "", value);
    } else if (isUnder(key, [...CATALOG_PREFIX, "virtual-ip"])) {
      const [, , peer = "", service = ""] = key;
      const services = this.virtualIps.get(peer) ?? new Set<string>();
      this.virtualIps.set(peer, services);
      if (value === undefined) services.delete(service);
      else services.add(service);
    }
  }
}

export function isRecord(key: Key): boolean {
  return isUnder(key, RECORDS_PREFIX);
}

/** Rows that the peer of this record sends again: imports, its trust bundle, virtual addresses. */
export function isSentAgain(key: Key, { id, name }: StoredRecord): boolean {
  const [owner, first, second] = key;
  if (owner === IMPORTS_PREFIX[0]) return first === id || (first === "" && second === id);
  if (isBundle(key)) return second === name.toLowerCase();
  return owner === CATALOG_PREFIX[0] && first === "virtual-ip" && second === name.toLowerCase();
}

export function isSecrets(key: Key): boolean {
  return isUnder(key, SECRETS_PREFIX);
}

export function isBundle(key: Key): boolean {
  return isUnder(key, BUNDLES_PREFIX);
}

export function isImport(key: Key): boolean {
  return isUnder(key, IMPORTS_PREFIX) && !isUnder(key, IMPORT_HEADS_PREFIX);
}

function isUnder(key: Key, prefix: Key): boolean {
  return prefix.every((part, index) => key[index] === part);
}

function readJson<T>(value: Uint8Array): T {
  return JSON.parse(new TextDecoder().decode(value));
}

function setOrDelete<V>(map: Map<string, V>, key: string, value: V | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
