import { compareUtf8 } from "../base/byte-order.js";
import { KeptOrder } from "../base/kept-order.js";
import type { Steps } from "../base/steps.js";
import type { CheckRecords, InstanceRecord, NodeRecord } from "./catalog-record.js";
import { isCritical } from "./health.js";

/** How many of something there are, and in which state. */
export interface HealthCounts {
  readonly name: string;
  readonly total: number;
  readonly passing: number;
  readonly warning: number;
  readonly critical: number;
}

/** A catalog in numbers. */
export interface CountedCatalog {
  readonly nodes: HealthCounts;
  readonly services: readonly HealthCounts[];
  readonly checks: readonly HealthCounts[];
}

type State = "passing" | "warning" | "critical";

const none: HealthCounts = { name: "", total: 0, passing: 0, warning: 0, critical: 0 };

function counted(before: HealthCounts, state: State, by: 1 | -1): HealthCounts {
  return { ...before, total: before.total + by, [state]: before[state] + by };
}

function stateOf(status: string): State {
  if (isCritical(status)) return "critical";
  return status === "warning" ? "warning" : "passing";
}

/** The worst of some checks; without any it passes. */
function worstOf(checks: CheckRecords): State {
  let worst: State = "passing";
  for (const { check } of checks.values()) {
    const state = stateOf(check.status);
    if (state === "critical") return state;
    if (state === "warning") worst = state;
  }
  return worst;
}

interface Slot {
  counts: HealthCounts;
}

/** Counts by name. Those of one name are another object after each change. */
class CountsByName {
  readonly #slots = new Map<string, Slot>();
  readonly #order = new KeptOrder<Slot>((left, right) => compareUtf8(left.counts.name, right.counts.name));

  count(name: string, state: State, by: 1 | -1): void {
    let slot = this.#slots.get(name);
    if (slot === undefined) {
      slot = { counts: { ...none, name } };
      this.#slots.set(name, slot);
      this.#order.add(slot);
    }
    slot.counts = counted(slot.counts, state, by);
    if (slot.counts.total > 0) return;
    this.#slots.delete(name);
    this.#order.remove(slot);
  }

  /** In byte order of the names. */
  *steps(): Steps<readonly HealthCounts[]> {
    const sorted = yield* this.#order.steps(() => this.#slots.values());
    return sorted.map(({ counts }) => counts);
  }
}

/** A catalog in numbers, kept as records come and go. */
export class CatalogCounts {
  /** By their own checks. */
  nodes: HealthCounts = none;
  /** Instances by the name of their service and by their own checks. */
  readonly services: CountsByName = new CountsByName();
  readonly checks: CountsByName = new CountsByName();

  node(record: NodeRecord | undefined, by: 1 | -1): void {
    if (record === undefined) return;
    this.nodes = counted(this.nodes, worstOf(record.checks), by);
    this.#checks(record.checks, by);
  }

  instance(record: InstanceRecord | undefined, by: 1 | -1): void {
    if (record === undefined) return;
    this.services.count(record.service.name, worstOf(record.checks), by);
    this.#checks(record.checks, by);
  }

  #checks(checks: CheckRecords, by: 1 | -1): void {
    for (const { check } of checks.values()) this.checks.count(check.name, stateOf(check.status), by);
  }
}
