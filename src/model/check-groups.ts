import { isCritical, isMaintenance } from "./health.js";
import type { Check } from "./instance.js";
import { joined, type Listing } from "./listing.js";

/** With more checks than this, an instance holds them in groups. With fewer, a list of its own costs less. */
export const LISTED_AT_ONCE = 64;

/** The state of an instance, or of a group of checks, as far as the checks decide it. */
export interface Health {
  readonly total: number;
  readonly passing: number;
  readonly warning: number;
  /** Those that keep an instance from being handed out. */
  readonly critical: number;
  /** Whether one of them stands for maintenance by its id. */
  readonly maintenance: boolean;
  /** The most important status; `passing` without checks. Of two unknown texts it is the later one. */
  readonly worst: string;
}

/** Importance of a status when checks are flattened; a status that Consul does not know comes first. */
const importance: ReadonlyMap<string, number> = new Map([
  ["maintenance", 1],
  ["critical", 2],
  ["warning", 3],
  ["passing", 4],
]);

/** On a tie the later one wins, which shows between two unknown texts. */
function worseOf(before: string, later: string): string {
  return (importance.get(later) ?? 0) <= (importance.get(before) ?? 0) ? later : before;
}

type CheckState = Pick<Check, "checkId" | "status">;

const noHealth: Health = { total: 0, passing: 0, warning: 0, critical: 0, maintenance: false, worst: "passing" };

function healthIn(checks: Iterable<CheckState>): Health {
  let { total, passing, warning, critical, maintenance, worst } = noHealth;
  for (const { checkId, status } of checks) {
    total++;
    if (status === "passing") passing++;
    else if (status === "warning") warning++;
    else if (isCritical(status)) critical++;
    maintenance ||= isMaintenance(checkId);
    worst = worseOf(worst, status);
  }
  return { total, passing, warning, critical, maintenance, worst };
}

function healthOfBoth(left: Health, right: Health): Health {
  return {
    total: left.total + right.total,
    passing: left.passing + right.passing,
    warning: left.warning + right.warning,
    critical: left.critical + right.critical,
    maintenance: left.maintenance || right.maintenance,
    worst: worseOf(left.worst, right.worst),
  };
}

function byStatus<Item extends CheckState>(checks: readonly Item[]): ReadonlyMap<string, readonly Item[]> {
  const found = new Map<string, Item[]>();
  for (const check of checks) {
    const known = found.get(check.status);
    if (known === undefined) found.set(check.status, [check]);
    else known.push(check);
  }
  return found;
}

/** Checks that are held once for all who have them. They never change, so their health is found once. */
export class CheckGroup<Item extends CheckState = Check> {
  readonly size: number;
  /** Until the list is made. */
  #source: (() => Iterable<Item>) | undefined;
  #list: readonly Item[] | undefined;
  #health: Health | undefined;
  #failing: ReadonlyMap<string, readonly Item[]> | undefined;

  /** @param source - the checks, which must be the same each time. */
  constructor(size: number, source: () => Iterable<Item>) {
    this.size = size;
    this.#source = source;
  }

  /** Made at the first look. */
  get list(): readonly Item[] {
    this.#list ??= Object.freeze(this.#source === undefined ? [] : [...this.#source()]);
    this.#source = undefined;
    return this.#list;
  }

  get health(): Health {
    this.#health ??= healthIn(this.#list ?? this.#source?.() ?? []);
    return this.#health;
  }

  /** Those with a status that is not `passing`, in their order. */
  failing(status: string): readonly Item[] {
    this.#failing ??= byStatus(this.list.filter((check) => check.status !== "passing"));
    return this.#failing.get(status) ?? [];
  }

  /** How many checks are still to be looked at for {@link health}. */
  get unknown(): number {
    return this.#health === undefined ? this.size : 0;
  }

  /** The same checks in another form. */
  map<Other extends CheckState>(make: (item: Item) => Other): CheckGroup<Other> {
    return new CheckGroup(this.size, () => this.list.map(make));
  }
}

/** The checks of an instance: those of its node, which all instances on the node share, and its own. */
export interface CheckGroups<Item extends CheckState = Check> {
  readonly ofNode: CheckGroup<Item>;
  readonly own: CheckGroup<Item>;
}

const GROUPS: unique symbol = Symbol("check groups");

interface Checked<Item extends CheckState> {
  readonly checks: readonly Item[];
  /** There where the instance has many checks; not enumerable, so that copies and comparisons see `checks` alone. */
  readonly [GROUPS]?: CheckGroups<Item>;
}

/**
 * An instance that holds its checks in groups. Many instances of a node with many checks would otherwise hold a long list each.
 * `checks` is made at each look, unless the instance has none of its own.
 */
export function withGroups<Fields extends object, Item extends CheckState>(
  fields: Fields,
  groups: CheckGroups<Item>,
): Fields & { readonly checks: readonly Item[] } {
  const { ofNode, own } = groups;
  const instance = {
    ...fields,
    get checks(): readonly Item[] {
      if (own.size === 0) return ofNode.list;
      return ofNode.size === 0 ? own.list : Object.freeze([...ofNode.list, ...own.list]);
    },
  };
  Object.defineProperty(instance, GROUPS, { value: groups });
  return Object.freeze(instance);
}

/** Another form of an instance, which holds its checks as that does. @param make - makes it with these checks. */
export function withChecksOf<View extends { readonly checks: readonly Item[] }, Item extends CheckState>(
  instance: Checked<Item>,
  make: (checks: readonly Item[]) => View,
): View {
  const groups = instance[GROUPS];
  // No copy of what was made: most instances have few checks, and this is done for each that is shown.
  return groups === undefined ? make(instance.checks) : withGroups(make([]), groups);
}

/** The groups in which an instance holds its checks; undefined: it has few, or comes from elsewhere, and lists them. */
export function groupsOf<Item extends CheckState>(instance: Checked<Item>): CheckGroups<Item> | undefined {
  return instance[GROUPS];
}

/** The checks of an instance one after another, those of its node first. No list of them is made. */
export function checksOf<Item extends CheckState>(instance: Checked<Item>): Listing<Item> {
  const groups = instance[GROUPS];
  return groups === undefined ? instance.checks : joined([groups.ofNode.list, groups.own.list]);
}

/** The health of an instance. Checks that it shares with others, or that were looked at before, cost nothing. */
export function healthOf(instance: Checked<CheckState>): Health {
  const groups = instance[GROUPS];
  if (groups === undefined) return healthIn(instance.checks);
  return healthOfBoth(groups.ofNode.health, groups.own.health);
}

/** How many checks {@link healthOf} has to look at. */
export function unknownChecks(instance: Checked<CheckState>): number {
  const groups = instance[GROUPS];
  return groups === undefined ? instance.checks.length : groups.ofNode.unknown + groups.own.unknown;
}

/**
 * The one status that stands for all checks of an instance on the wire; `undefined` without checks. Anything that keeps
 * the instance out here is `critical`, so that no importer hands it out (D-52); else an unknown status text beats every known one and
 * travels as it is.
 * @param strictConsul - as Consul 1.13.4, 1.14.2 and later. Maintenance is `maintenance`, which its importers hand out, and an
 *   unknown text beats `critical`.
 */
export function flattenedStatus(instance: Checked<CheckState>, strictConsul: boolean): string | undefined {
  const { total, critical, maintenance, worst } = healthOf(instance);
  if (total === 0) return undefined;
  if (!strictConsul && (critical > 0 || maintenance)) return "critical";
  return maintenance ? "maintenance" : worst;
}
