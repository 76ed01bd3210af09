import type { StoredState } from "../peering/peering.js";
import type { PeeringEventType } from "../peering/state-machine.js";
import { fieldsOf, type PeeringChange } from "../stores/peering-changes.js";

/**
 * One stored step in the life of a peering, for an audit log: the event and the names of the changed fields, never a value, so
 * that no secret, certificate or metadata is revealed.
 */
export interface PeeringTransition {
  /** When this host stored it, or noticed it, in milliseconds since the Unix epoch. */
  readonly at: number;
  /** Our own UUID of the peering. */
  readonly id: string;
  readonly name: string;
  /**
   * The event, as the table of the state machine calls it. Undefined: the record was written by another process on the
   * same storage, or by `PeeringWrite`; the event there is not known.
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

/** Fields that reveal nothing about the event. */
const INDEXES = new Set(["createIndex", "modifyIndex"]);

/** A change in the form for an audit log. */
export function transitionOf(change: PeeringChange, at: number): PeeringTransition {
  const { peeringId, name, event, before, peering, patches, beside, revision } = change;
  const record = peering ?? before;
  const fields = patches.flatMap(({ path }): readonly string[] => {
    if (path.length > 0) return [String(path[0])];
    return record === undefined ? [] : [...fieldsOf(record).keys()];
  });
  const changed = [...new Set([...fields, ...beside])].filter((field) => !INDEXES.has(field));
  return {
    at,
    id: peeringId,
    name,
    event,
    before: before?.state ?? "initial",
    after: peering?.state ?? "initial",
    changed: changed.sort(),
    revision,
  };
}
