import { isDeepStrictEqual } from "node:util";
import type { Peering } from "../peering/peering.js";
import type { PeeringEventType, PeeringPatch } from "../peering/state-machine.js";

/** One committed change of a peering: of its record, or of its secrets or trust bundle. */
export interface PeeringChange {
  readonly peeringId: string;
  readonly name: string;
  /** The event; undefined: the record was written by another process on the same storage, or by `PeeringWrite`. */
  readonly event: PeeringEventType | undefined;
  /** Undefined: there was no record. */
  readonly before: Peering | undefined;
  /** The record now; undefined once it is removed. */
  readonly peering: Peering | undefined;
  /**
   * From the record before to the one now, as the state machine says. An empty path: the record was made, or is removed. None:
   * the record is as it was.
   */
  readonly patches: readonly PeeringPatch[];
  /** Other rows of the commit. */
  readonly beside: readonly ("secrets" | "trustBundle")[];
  /** The revision of the storage that holds it. */
  readonly revision: bigint;
}

/** The change of the record of one peering. */
export interface PeeringPatches {
  /** Our own UUID of the peering. */
  readonly id: string;
  readonly name: string;
  /** In the order in which they apply. An empty path: the record as a whole; its value is undefined once the record is removed. */
  readonly patches: readonly PeeringPatch[];
}

/** The patches of a record that was made (`peering`), or removed (undefined). */
export function wholeRecord(peering: Peering | undefined): readonly PeeringPatch[] {
  return [{ op: "replace", path: [], value: peering }];
}

/** The patches from one record to another, of a change that the state machine did not make. */
export function patchesBetween(before: Peering | undefined, after: Peering | undefined): readonly PeeringPatch[] {
  if (before === undefined || after === undefined) return before === after ? [] : wholeRecord(after);
  const [old, now] = [fieldsOf(before), fieldsOf(after)];
  const fields = [...new Set([...old.keys(), ...now.keys()])];
  return fields
    .filter((field) => !isDeepStrictEqual(old.get(field), now.get(field)))
    .map((field) => fieldPatch(field, now));
}

/**
 * The patches that one reader of the feed has not taken yet. They are one set per peering: those of several changes are joined
 * field by field, so a reader that never looks costs no more than the records it does not know.
 */
export class UnreadPatches {
  /** The ids of the records that the reader knows. */
  readonly #known: Set<string>;
  readonly #unread = new Map<string, PeeringPatches>();

  /** @param known - the ids of the records that there are now. */
  constructor(known: Iterable<string>) {
    this.#known = new Set(known);
  }

  add({ peeringId: id, name, peering, patches }: PeeringChange): void {
    const older = this.#unread.get(id)?.patches;
    this.#unread.delete(id);
    // A record that came and went again is no news.
    if (peering === undefined && !this.#known.has(id)) return;
    this.#unread.set(id, { id, name, patches: older === undefined ? patches : joined(older, patches, peering) });
  }

  /** All of them, the least recent first. */
  take(): readonly PeeringPatches[] {
    const taken = [...this.#unread.values()];
    this.#unread.clear();
    for (const { id, patches } of taken) {
      if (patches.some(isRemoval)) this.#known.delete(id);
      else this.#known.add(id);
    }
    return taken;
  }
}

/** @param peering - the record after both. */
function joined(
  older: readonly PeeringPatch[],
  newer: readonly PeeringPatch[],
  peering: Peering | undefined,
): readonly PeeringPatch[] {
  const both = [...older, ...newer];
  if (peering === undefined || both.some(isWhole)) return wholeRecord(peering);
  const now = fieldsOf(peering);
  return [...new Set(both.map(({ path }) => String(path[0])))].map((field) => fieldPatch(field, now));
}

function isWhole({ path }: PeeringPatch): boolean {
  return path.length === 0;
}

function isRemoval(patch: PeeringPatch): boolean {
  return isWhole(patch) && patch.value === undefined;
}

function fieldPatch(field: string, now: ReadonlyMap<string, unknown>): PeeringPatch {
  const value = now.get(field);
  return value === undefined ? { op: "remove", path: [field] } : { op: "replace", path: [field], value };
}

/** Fields that are not set are left out. */
export function fieldsOf(peering: Peering): ReadonlyMap<string, unknown> {
  return new Map(Object.entries(peering).filter(([, value]) => value !== undefined));
}
