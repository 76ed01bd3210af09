import { errorText, PeeringError } from "../errors.js";
import type { RemoteInfo } from "../wire/messages.js";
import { nameKey } from "./names.js";
import { isActive, type Peering, roleOf, type StoredState, shouldDial, type TrustBundle } from "./peering.js";
import type { RecordTables } from "./record-tables.js";
import {
  applySecretsRequest,
  type SecretDigest,
  type SecretsRequest,
  type SecretsRow,
  validateSecretsRequest,
} from "./secrets.js";

/**
 * What a transaction does: new rows by key, `undefined` for removed ones; empty for a transaction that changes nothing.
 * Indexes of written records are those of the commit, so `modifyIndex` here (and `createIndex` of new ones) is 0n.
 */
export interface RecordChanges {
  readonly peerings: ReadonlyMap<string, Peering | undefined>;
  readonly secrets: ReadonlyMap<string, SecretsRow | undefined>;
  readonly bundles: ReadonlyMap<string, TrustBundle | undefined>;
}

/** A record to write. No `state` keeps the stored one, or means PENDING; an empty `remote` keeps the stored one. */
export type PeeringWrite = Omit<Peering, "state" | "createIndex" | "modifyIndex"> & { readonly state?: StoredState };

const NOTHING: RecordChanges = { peerings: new Map(), secrets: new Map(), bundles: new Map() };

export function isUnchanged(changes: RecordChanges): boolean {
  return changes.peerings.size === 0 && changes.secrets.size === 0 && changes.bundles.size === 0;
}

/**
 * Writes a record, and what becomes of its secrets, or nothing (Consul's PeeringWrite, 1.21). The record is replaced as
 * a whole; a record that is not active loses its secrets, and so does a dialer's whose cluster is another one now: a
 * stream secret is shown to nobody but who gave it.
 * @throws {PeeringError} `invalid-record`, `wrong-role`, `invalid-secret` with Consul's texts.
 */
export function writePeering(tables: RecordTables, write: PeeringWrite, secrets?: SecretsRequest): RecordChanges {
  requireWellFormed(write);
  const existing = tables.byName(write.name);
  const normal = withoutEpoch(write);
  const record = existing === undefined ? newRecord(tables, normal) : replacedRecord(existing, normal);
  if (record === undefined) return NOTHING;

  let row = tables.secrets.get(record.id);
  if (!isActive(record) || (row?.role === "dialer" && !isSameCluster(existing, record))) row = undefined;
  if (secrets !== undefined) {
    try {
      validateSecretsRequest(secrets);
      row = applySecretsRequest(roleOf(record), row, secrets, (digest) => tables.isSecretInUse(digest));
    } catch (error) {
      throw prefixed("failed to write peering establishment secret", error);
    }
  }
  return {
    ...NOTHING,
    peerings: new Map([[record.id, record]]),
    secrets: row === tables.secrets.get(record.id) ? NOTHING.secrets : new Map([[record.id, row]]),
  };
}

/**
 * Writes secrets alone. No request changes nothing; no record is touched either way.
 * @throws {PeeringError} `invalid-secret` with Consul's texts.
 */
export function writeSecrets(tables: RecordTables, peerId: string, request?: SecretsRequest): RecordChanges {
  if (request === undefined) return NOTHING;
  try {
    if (peerId === "") throw new PeeringError("invalid-secret", "invalid secret write request: missing peer ID");
    validateSecretsRequest(request);
    const peering = tables.peerings.get(peerId);
    if (peering === undefined) throw new PeeringError("invalid-secret", `unknown peering "${peerId}" for secret`);
    const inUse = (digest: SecretDigest): boolean => tables.isSecretInUse(digest);
    const row = applySecretsRequest(roleOf(peering), tables.secrets.get(peerId), request, inUse);
    return { ...NOTHING, secrets: new Map([[peerId, row]]) };
  } catch (error) {
    throw prefixed("failed to write peering secret", error);
  }
}

/**
 * Marks a record as ended by its peer; nothing else of it changes. Unknown and TERMINATED: nothing. DELETING: nothing
 * either, where Consul brings back a record that was to go (D-12).
 */
export function terminatePeering(tables: RecordTables, id: string): RecordChanges {
  const peering = tables.peerings.get(id);
  if (peering === undefined || !isActive(peering)) return NOTHING;
  return { ...NOTHING, peerings: new Map([[id, { ...peering, state: "terminated", modifyIndex: 0n }]]) };
}

/**
 * Removes a record, with what is left of its secrets. Unknown: nothing.
 * @throws {PeeringError} `invalid-record` while it is active.
 */
export function deletePeering(tables: RecordTables, name: string): RecordChanges {
  const peering = tables.byName(name);
  if (peering === undefined) return NOTHING;
  if (isActive(peering)) {
    throw new PeeringError("invalid-record", "cannot delete a peering without first marking for deletion");
  }
  return {
    ...NOTHING,
    peerings: new Map([[peering.id, undefined]]),
    secrets: tables.secrets.has(peering.id) ? new Map([[peering.id, undefined]]) : NOTHING.secrets,
  };
}

/**
 * Stores what a peer's cluster is trusted by, and gives its roots to the record, where the next dial finds them. That
 * the roots are usable (D-23) is for whoever can parse certificates to check.
 * @param servers - false: the record keeps its roots, as in Consul 1.13.
 * @throws {PeeringError} `invalid-record` with Consul's texts.
 */
export function writeTrustBundle(tables: RecordTables, bundle: TrustBundle, servers = true): RecordChanges {
  if (bundle.peerName === "") throw new PeeringError("invalid-record", "missing peer name");
  const peering = tables.byName(bundle.peerName);
  if (peering === undefined) {
    throw new PeeringError(
      "invalid-record",
      `cannot write peering trust bundle for unknown peering ${bundle.peerName}`,
    );
  }
  if (peering.state === "deleting") throw markedForDeletion();
  const peerCaPems = servers ? bundle.rootPems.map(withNewline) : peering.peerCaPems;
  return {
    ...NOTHING,
    // Also where it stays as it is: the commit is bound to a record that is there still.
    peerings: new Map([[peering.id, { ...peering, peerCaPems, modifyIndex: 0n }]]),
    bundles: new Map([[nameKey(bundle.peerName), bundle]]),
  };
}

/** Removes a bundle; the record keeps its roots. Unknown: nothing. */
export function deleteTrustBundle(tables: RecordTables, name: string): RecordChanges {
  const key = nameKey(name);
  return tables.bundles.has(key) ? { ...NOTHING, bundles: new Map([[key, undefined]]) } : NOTHING;
}

/** Both together. Of a row that both change, `later` wins. */
export function combineChanges(earlier: RecordChanges, later: RecordChanges): RecordChanges {
  return {
    peerings: new Map([...earlier.peerings, ...later.peerings]),
    secrets: new Map([...earlier.secrets, ...later.secrets]),
    bundles: new Map([...earlier.bundles, ...later.bundles]),
  };
}

export function isRemoteEmpty(remote: RemoteInfo): boolean {
  const { partition, datacenter, locality } = remote;
  const nowhere = locality === undefined || (locality.region === "" && locality.zone === "");
  return partition === "" && datacenter === "" && nowhere;
}

export function withNewline(pem: string): string {
  return pem.endsWith("\n") ? pem : `${pem}\n`;
}

/** @internal */
export function markedForDeletion(): PeeringError {
  return new PeeringError("invalid-record", "cannot write to peering that is marked for deletion");
}

/** `error` with `prefix` before its text, as Consul wraps errors; code, status and cause are kept. */
export function prefixed(prefix: string, error: unknown, status?: number): PeeringError {
  const options = { cause: error, ...(status === undefined ? {} : { status }) };
  if (!(error instanceof PeeringError))
    return new PeeringError("storage-failed", `${prefix}: ${errorText(error)}`, options);
  return new PeeringError(error.code, `${prefix}: ${error.message}`, {
    ...(error.status === undefined ? {} : { status: error.status }),
    ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
    ...options,
  });
}

/** Whether a dial of `after` reaches whom a dial of `before` reached, wherever they are by now. */
function isSameCluster(before: Peering | undefined, after: Peering): boolean {
  return (
    before?.peerId === after.peerId &&
    before.peerServerName === after.peerServerName &&
    before.peerCaPems.join() === after.peerCaPems.join()
  );
}

function requireWellFormed(write: PeeringWrite): void {
  if (write.id === "") throw new PeeringError("invalid-record", "Missing Peering ID");
  if (write.name === "") throw new PeeringError("invalid-record", "Missing Peering Name");
  const deleted = isDeletionTime(write.deletedAt);
  if (write.state === "deleting" && !deleted) {
    throw new PeeringError("invalid-record", "Missing deletion time for peering in deleting state");
  }
  if (write.state !== "deleting" && deleted) {
    const state = (write.state ?? "undefined").toUpperCase();
    throw new PeeringError("invalid-record", `Unexpected state for peering with deletion time: ${state}`);
  }
}

function replacedRecord(existing: Peering, write: PeeringWrite): Peering | undefined {
  if (shouldDial(existing) !== shouldDial(write)) {
    throw new PeeringError(
      "wrong-role",
      `Cannot switch peering dialing mode from ${shouldDial(existing)} to ${shouldDial(write)}`,
    );
  }
  if (existing.id !== write.id) {
    throw new PeeringError(
      "invalid-record",
      `A peering already exists with the name "${write.name}" and a different ID "${existing.id}"`,
    );
  }
  const ended = write.state === "deleting" || write.state === "terminated";
  if (existing.state === "deleting") {
    if (ended) return undefined;
    throw markedForDeletion();
  }
  if (existing.state === "terminated" && write.state === "terminated") return undefined;
  return {
    ...write,
    state: write.state ?? existing.state,
    remote: isRemoteEmpty(write.remote) ? existing.remote : write.remote,
    createIndex: existing.createIndex,
    modifyIndex: 0n,
  };
}

function newRecord(tables: RecordTables, write: PeeringWrite): Peering {
  const sameId = tables.peerings.get(write.id);
  if (sameId !== undefined) {
    throw new PeeringError(
      "invalid-record",
      `A peering already exists with the ID "${write.id}" and a different name "${sameId.name}"`,
    );
  }
  const record: Peering = { ...write, state: write.state ?? "pending", createIndex: 0n, modifyIndex: 0n };
  if (!isActive(record)) {
    throw new PeeringError("invalid-record", "cannot create a new peering marked for deletion");
  }
  return record;
}

/** The Unix epoch counts as no deletion time; stored, one is there exactly while the record is DELETING. */
function withoutEpoch(write: PeeringWrite): PeeringWrite {
  const { deletedAt, ...rest } = write;
  return deletedAt === undefined || deletedAt === 0 ? rest : write;
}

/** The latest moment that a date can be, in milliseconds. */
const LATEST_MS = 8.64e15;

/** @throws {PeeringError} `invalid-record` for what is no time at all. */
function isDeletionTime(deletedAt: number | undefined): boolean {
  if (deletedAt !== undefined && !(Math.abs(deletedAt) <= LATEST_MS)) {
    throw new PeeringError("invalid-record", "Invalid deletion time");
  }
  return deletedAt !== undefined && deletedAt !== 0;
}
