import { PeeringError } from "../base/errors.js";
import { isActive, isRemoteEmpty, type Peering, roleOf, type StoredState, shouldDial } from "./peering.js";
import type { RecordTables } from "./record-tables.js";
import type { SecretsRequest } from "./secrets.js";
import { isSameCluster, NO_CHANGES, type RecordChanges, secretsAfter, WRITING_RECORD } from "./transactions.js";

/** A record to write. No `state` keeps the stored one, or means PENDING; an empty `remote` keeps the stored one. */
export type PeeringWrite = Omit<Peering, "state" | "createIndex" | "modifyIndex"> & { readonly state?: StoredState };

/**
 * Writes a record, and what becomes of its secrets, or nothing (Consul's PeeringWrite, 1.21). The record is replaced as
 * a whole; a record that is not active loses its secrets, and so does a dialer's record that now names another cluster: a
 * stream secret is shown only to the cluster that gave it.
 * @throws {PeeringError} `invalid-record`, `wrong-role`, `invalid-secret` with Consul's texts.
 */
export function writePeering(tables: RecordTables, write: PeeringWrite, secrets?: SecretsRequest): RecordChanges {
  requireWellFormed(write);
  const existing = tables.byName(write.name);
  const normal = withoutEpoch(write);
  const record = existing === undefined ? newRecord(tables, normal) : replacedRecord(existing, normal);
  if (record === undefined) return NO_CHANGES;

  let row = tables.secrets.get(record.id);
  if (!isActive(record) || (row?.role === "dialer" && !isSameCluster(existing, record))) row = undefined;
  if (secrets !== undefined) row = secretsAfter(tables, roleOf(record), row, secrets, WRITING_RECORD);
  return {
    ...NO_CHANGES,
    peerings: new Map([[record.id, record]]),
    secrets: row === tables.secrets.get(record.id) ? NO_CHANGES.secrets : new Map([[record.id, row]]),
  };
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
    throw new PeeringError("invalid-record", "cannot write to peering that is marked for deletion");
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

/** @throws {PeeringError} `invalid-record` for a time that is not a number or out of range. */
function isDeletionTime(deletedAt: number | undefined): boolean {
  if (deletedAt !== undefined && !(Math.abs(deletedAt) <= LATEST_MS)) {
    throw new PeeringError("invalid-record", "Invalid deletion time");
  }
  return deletedAt !== undefined && deletedAt !== 0;
}
