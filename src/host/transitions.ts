import { isDeepStrictEqual } from "node:util";
import type { Peering, StoredState } from "../peering/peering.js";
import type { PeeringEventType, PeeringPatch } from "../peering/state-machine.js";

/**
 * One stored step in the life of a peering, for an audit log: what happened and which fields it changed, never a value, so
 * that no secret, certificate or metadata is told.
 */
export interface PeeringTransition {
  /** When this host stored it, or noticed it, in milliseconds since the Unix epoch. */
  readonly at: number;
  /** Our own UUID of the peering. */
  readonly id: string;
  readonly name: string;
  /**
   * What happened, as the table of the state machine calls it. Undefined: the record was written by another process on the
   * same storage, or by `PeeringWrite`; what happened there is not known.
   */
  readonly event: PeeringEventType | undefined;
  /** The stored state before; `initial`: there was no record. */
  readonly before: StoredState | "initial";
  /** The stored state afterwards; `initial`: the record is removed. */
  readonly after: StoredState | "initial";
  /** Names of the fields of the record that changed, sorted; `secrets` and `trustBundle` where those were written. */
  readonly changed: readonly string[];
  /** The revision of the storage that holds it. */
  readonly revision: bigint;
}

/** Fields that say nothing of what happened. */
const INDEXES = new Set(["createIndex", "modifyIndex"]);

/** The fields that differ. @param patches - from the one to the other, where they are known. */
export function changedFields(
  before: Peering | undefined,
  after: Peering | undefined,
  patches: readonly PeeringPatch[] | undefined,
): readonly string[] {
  const paths = patches?.map(({ path }) => path[0]);
  // A patch with an empty path replaces the record as a whole.
  const fields = paths === undefined || paths.includes(undefined) ? differing(before, after) : paths.map(String);
  return [...new Set(fields)].filter((field) => !INDEXES.has(field));
}

function differing(before: Peering | undefined, after: Peering | undefined): readonly string[] {
  const [old, now] = [new Map<string, unknown>(entries(before)), new Map<string, unknown>(entries(after))];
  return [...new Set([...old.keys(), ...now.keys()])].filter(
    (field) => !isDeepStrictEqual(old.get(field), now.get(field)),
  );
}

function entries(peering: Peering | undefined): readonly (readonly [string, unknown])[] {
  return peering === undefined ? [] : Object.entries(peering);
}
