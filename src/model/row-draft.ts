import type { AppliedDraft, CommittedCatalog, NodeChanges } from "./catalog-draft.js";
import {
  type CheckRecord,
  type CheckRecords,
  type InstanceRecord,
  type NodeRecord,
  noChecks,
  type Stamp,
  type VirtualIpRecord,
  withSharedTags,
} from "./catalog-record.js";
import type { Service } from "./instance.js";
import { virtualIpKey } from "./virtual-ips.js";

interface RowsOfNode {
  /** Without checks. Undefined: it is removed. */
  record: NodeRecord | undefined;
  recordChanged: boolean;
  /** By key, without checks. Undefined: it is removed. */
  readonly instances: Map<string, InstanceRecord | undefined>;
  /** By the key of the service, `""` for the node itself, and their own key. Undefined: it is removed. */
  readonly checks: Map<string, Map<string, CheckRecord | undefined>>;
}

/**
 * Rows that another process has committed, in any order, as a draft that the catalog applies. Nothing of it is judged: the
 * process that committed them has done that.
 */
export class RowDraft implements AppliedDraft {
  readonly stamp: Stamp = { index: 0n };
  readonly nodes: Map<string, NodeChanges> = new Map();
  readonly virtualIps: { readonly changes: Map<string, VirtualIpRecord | undefined> } = { changes: new Map() };
  readonly #base: CommittedCatalog;
  readonly #rows = new Map<string, RowsOfNode>();

  constructor(base: CommittedCatalog) {
    this.#base = base;
  }

  setNode(nodeKey: string, record: NodeRecord | undefined): void {
    const rows = this.#rowsOf(nodeKey);
    rows.record = record;
    rows.recordChanged = true;
  }

  setInstance(nodeKey: string, key: string, record: InstanceRecord | undefined): void {
    this.#rowsOf(nodeKey).instances.set(key, record);
  }

  /** @param owner - key of its service; `""`: it is one of the node. */
  setCheck(nodeKey: string, owner: string, key: string, record: CheckRecord | undefined): void {
    const { checks } = this.#rowsOf(nodeKey);
    const owned = checks.get(owner) ?? new Map<string, CheckRecord | undefined>();
    checks.set(owner, owned.set(key, record));
  }

  setVirtualIp(peer: string, service: string, record: VirtualIpRecord | undefined): void {
    this.virtualIps.changes.set(virtualIpKey(peer, service), record);
  }

  /** Joins the rows that were set. Call it once, before the draft is applied. */
  build(): void {
    for (const [nodeKey, rows] of this.#rows) this.nodes.set(nodeKey, this.#changesOf(nodeKey, rows));
  }

  checkRecord(nodeKey: string, checkKey: string): CheckRecord | undefined {
    const changes = this.nodes.get(nodeKey);
    const owner = changes?.checkOwners.get(checkKey);
    if (changes === undefined || owner === undefined) return undefined;
    const holder = owner === "" ? changes.record : changes.instances.get(owner);
    return holder?.checks.get(checkKey);
  }

  #rowsOf(nodeKey: string): RowsOfNode {
    const known = this.#rows.get(nodeKey);
    if (known !== undefined) return known;
    const rows = { record: undefined, recordChanged: false, instances: new Map(), checks: new Map() };
    this.#rows.set(nodeKey, rows);
    return rows;
  }

  #changesOf(nodeKey: string, rows: RowsOfNode): NodeChanges {
    const before = this.#base.nodeRecord(nodeKey);
    const node = rows.recordChanged ? rows.record : before;
    const ofNode = rows.checks.get("");
    const changes: NodeChanges = {
      record: node && { ...node, checks: withChanges(before?.checks, ofNode) },
      recordChanged: rows.recordChanged || ofNode !== undefined,
      instances: new Map(),
      checkOwners: new Map(),
    };
    for (const key of new Set([...rows.instances.keys(), ...rows.checks.keys()])) {
      if (key === "") continue;
      const held = this.#base.instanceRecord(nodeKey, key);
      const instance = rows.instances.has(key) ? rows.instances.get(key) : held;
      const checks = withChanges(held?.checks, rows.checks.get(key), instance?.service);
      changes.instances.set(key, instance && { ...instance, checks, view: undefined, viewOf: undefined });
    }
    this.#setOwners(nodeKey, rows, changes);
    return changes;
  }

  /** A check that has gone to another service is removed there and set here: the new row counts. */
  #setOwners(nodeKey: string, { checks }: RowsOfNode, { checkOwners }: NodeChanges): void {
    for (const [owner, owned] of checks) {
      for (const [key, record] of owned) {
        if (record !== undefined) checkOwners.set(key, owner);
        else if (!checkOwners.has(key) && this.#base.checkOwner(nodeKey, key) === owner)
          checkOwners.set(key, undefined);
      }
    }
  }
}

function withChanges(
  checks: CheckRecords = noChecks,
  changes: ReadonlyMap<string, CheckRecord | undefined> = new Map(),
  service?: Service,
): CheckRecords {
  let changed = checks;
  for (const [key, record] of changes) {
    if (record === undefined) changed = changed.without(key);
    else changed = changed.with(key, service === undefined ? record : withSharedTags(record, service));
  }
  return changed;
}
