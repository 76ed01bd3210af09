import type { Role, StateColumn } from "../../src/peering/peering.js";
import {
  type Cell,
  type PeeringEffectType,
  type PeeringEventType,
  type Refusal,
  type StreamRefusal,
  TRANSITIONS,
} from "../../src/peering/state-machine.js";
import type { PlantedFault } from "./faults.js";

/** The host test that goes through every cell, and must notice a change of any. */
export const TABLE_TEST = "test/unit/host/table.test.ts";

const MACHINE = "src/peering/state-machine.ts";
/** In front of this the rows are complete, and not expanded yet. */
const PLACE = "/** Every event in every state and role, as data: documentation and tests are made from it. */";
const ROLES: readonly Role[] = ["acceptor", "dialer"];

/** One cell of the table as its rows are written, and where it stands. */
export interface PlacedCell {
  readonly event: PeeringEventType;
  readonly column: Exclude<StateColumn, "undefined">;
  /** Undefined: before there is a record there is no role. */
  readonly role: Role | undefined;
  readonly cell: Cell;
}

/** One cell that is another one. */
export interface TableMutant extends PlacedCell {
  readonly fault: PlantedFault;
}

/**
 * Every cell but those of a state that no host knows, of which a test shows that no host starts on it. Of the states that
 * share their cells one stands for all.
 */
export function cells(): readonly PlacedCell[] {
  const events = Object.keys(TRANSITIONS).filter((event): event is PeeringEventType => event in TRANSITIONS);
  return events.flatMap((event) => {
    const { initial, pending, deleting, terminated } = TRANSITIONS[event];
    const columns = [
      ["living", pending],
      ["deleting", deleting],
      ["terminated", terminated],
    ] as const;
    return [
      { event, column: "initial" as const, role: undefined, cell: initial.acceptor },
      ...columns.flatMap(([column, byRole]) => ROLES.map((role) => ({ event, column, role, cell: byRole[role] }))),
    ];
  });
}

/** The other contents that a cell could have: every effect left out, another outcome, another refusal. */
export function mutants(): readonly TableMutant[] {
  return cells().flatMap((placed) => {
    if (placed.cell.unreachable !== undefined) return [];
    return others(placed).map(([what, cell]) => ({ ...placed, fault: faultOf(placed, what, cell) }));
  });
}

/** Ends the process where a cell is looked up that no host reaches: no check may find it. */
export const tripwire: PlantedFault = {
  name: "unreachable",
  what: "a cell that no host reaches ends the process",
  edits: [
    {
      file: MACHINE,
      find: '  if (event.type === "server-addresses-received" && event.addresses.length === 0',
      replace:
        "  if (cell.unreachable !== undefined) process.exit(86);\n" +
        '  if (event.type === "server-addresses-received" && event.addresses.length === 0',
    },
  ],
  foundBy: [TABLE_TEST],
};

function others({ event, column, cell }: PlacedCell): readonly (readonly [string, unknown])[] {
  switch (cell.outcome) {
    case "refused":
      return [
        [`refused as ${otherRefusal(cell.refusal)}`, { ...cell, refusal: otherRefusal(cell.refusal) }],
        ["not refused", { outcome: "unchanged", effects: [] }],
      ];
    case "stream-refused":
      return [
        [`refused as ${otherStreamRefusal(cell.refusal)}`, { ...cell, refusal: otherStreamRefusal(cell.refusal) }],
        ["accepted", { outcome: "unchanged", effects: ["accept-stream"] }],
      ];
    case "unchanged":
    case "updated":
    case "moved": {
      if (cell.redundant !== undefined) return [];
      const without = cell.effects.map(
        (effect) =>
          [`without ${effect}`, { ...cell, effects: cell.effects.filter((other) => other !== effect) }] as const,
      );
      return [...without, ...added(event, column, cell.effects), ...otherOutcomes(event, column, cell)];
    }
  }
}

/** The rows of what is only seen cannot hold another outcome, which their type says, but effects that do not belong there. */
function added(
  event: PeeringEventType,
  column: StateColumn,
  effects: readonly PeeringEffectType[],
): readonly (readonly [string, unknown])[] {
  const isEmpty = effects.length === 0 && (event === "stream-connected" || event === "resumed");
  if (!isEmpty || column !== "living") return [];
  return [["with end-stream", { outcome: "unchanged", effects: ["end-stream"] }]];
}

function otherOutcomes(
  event: PeeringEventType,
  column: StateColumn,
  cell: Extract<Cell, { readonly effects: unknown }>,
): readonly (readonly [string, unknown])[] {
  if (SEEN.has(event)) return [];
  const { effects } = cell;
  const refusedInstead = ["refused", { outcome: "refused", refusal: "unknown-state" }] as const;
  if (cell.outcome === "unchanged") return [refusedInstead];
  const stays = ["record not written", { outcome: "unchanged", effects }] as const;
  if (cell.outcome === "updated")
    return [stays, ["moved", { outcome: "moved", to: column === "terminated" ? "pending" : "terminated", effects }]];
  // Nothing can be written in the same state where there is nothing, and nothing but the removal leads to nothing.
  return [column === "initial" ? refusedInstead : ["state stays", { outcome: "updated", effects }], stays];
}

/** Events whose type allows no other outcome. */
const SEEN: ReadonlySet<PeeringEventType> = new Set([
  "establish-failed",
  "stream-connected",
  "stream-lost",
  "resumed",
] as const);

function otherRefusal(refusal: Refusal): Refusal {
  return refusal === "not-active" ? "not-marked" : "not-active";
}

function otherStreamRefusal(refusal: StreamRefusal): StreamRefusal {
  return refusal === "deleting" || refusal === "unknown-state" ? "wrong-end" : "unknown-state";
}

function faultOf({ event, column, role }: PlacedCell, what: string, cell: unknown): PlantedFault {
  const name = [event, column, ...(role === undefined ? [] : [role])].join("/");
  const target = role === undefined ? `rows["${event}"]` : `rows["${event}"].${column}`;
  const key = role ?? column;
  return planted(`${name}: ${what}`, what, `Object.assign(${target}, ${JSON.stringify({ [key]: cell })});\n`);
}

function planted(name: string, what: string, code: string): PlantedFault {
  return { name, what, edits: [{ file: MACHINE, find: PLACE, replace: `${code}${PLACE}` }], foundBy: [TABLE_TEST] };
}
