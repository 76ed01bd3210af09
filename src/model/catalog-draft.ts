import { compareUtf8 } from "../base/byte-order.js";
import { PeeringError } from "../base/errors.js";
import { lowerCase } from "../syntax/names.js";
import {
  type CheckRecord,
  type CheckRecords,
  type InstanceRecord,
  type NodeRecord,
  noChecks,
  type Stamp,
  type VirtualIpRecord,
} from "./catalog-record.js";
import { sameCheck, sameNode, sameService } from "./equality.js";
import { MEMBERSHIP_CHECK } from "./health.js";
import type { Check, Node, Service } from "./instance.js";
import { emptyList } from "./record-table.js";
import { emptyCheck } from "./records.js";
import {
  invalid,
  metaProblem,
  type OperationError,
  type ParsedDeregistration,
  type ParsedOperation,
  type ParsedRegistration,
  TransactionError,
} from "./registration.js";
import {
  checkManualAddresses,
  VirtualIpDraft,
  type VirtualIps,
  virtualIpAddress,
  virtualIpKey,
} from "./virtual-ips.js";

/** The reads of a draft from the committed catalog. Keys are lower-cased. */
export interface CommittedCatalog {
  nodeRecord(nodeKey: string): NodeRecord | undefined;
  instanceRecord(nodeKey: string, serviceKey: string): InstanceRecord | undefined;
  instanceRecordsOn(nodeKey: string): Iterable<InstanceRecord>;
  /** The key of the service a check belongs to; `""` for a check of the node; undefined when there is no such check. */
  checkOwner(nodeKey: string, checkKey: string): string | undefined;
  nodeKeyOfId(id: string): string | undefined;
  /** Instances with this name. */
  countNamed(serviceKey: string): number;
  /** Proxies for this name, and instances of this name that are connect-native. */
  countConnect(serviceKey: string): number;
  /** The name as its instances spell it; undefined: there are none. */
  serviceName(serviceKey: string): string | undefined;
  readonly virtualIps: VirtualIps;
}

/** The differences on one node. A key that maps to undefined is deleted. */
export interface NodeChanges {
  /** The record as it is now; only meaningful when `recordChanged`. */
  record: NodeRecord | undefined;
  recordChanged: boolean;
  readonly instances: Map<string, InstanceRecord | undefined>;
  /** Every check that was written or removed has its key here. */
  readonly checkOwners: Map<string, string | undefined>;
}

/** Changes that the committed catalog can take over. */
export interface AppliedDraft {
  /** The index of everything that it wrote, once the commit has one. */
  readonly stamp: Stamp;
  /** By lower-cased name. */
  readonly nodes: ReadonlyMap<string, NodeChanges>;
  /** By {@link virtualIpKey}. Undefined: it is freed. */
  readonly virtualIps: { readonly changes: ReadonlyMap<string, VirtualIpRecord | undefined> };
  /** A check as it is after the changes. Asked only for checks of which the changes of their node know the owner. */
  checkRecord(nodeKey: string, checkKey: string): CheckRecord | undefined;
}

/** Something that an operation changes, under a name that it had before or has afterwards. */
export type Touched =
  /** The node itself, or a check of it. */
  | { readonly type: "node"; readonly node: string }
  /** An instance of the service on that node, or a check of one. `removed`: it is gone, or has gone to another service. */
  | { readonly type: "service"; readonly node: string; readonly service: string; readonly removed: boolean };

/** Looks at what an operation changes before it counts. What it throws is what the operation fails with. */
export type Judge = (touched: readonly Touched[]) => void;

/** Which checks of a node are to have a port at their proxies. */
export interface CheckExposure {
  /** The ids of all that are, those that come first for a free port first. */
  readonly exposed: readonly string[];
  /** Those that are to have none. */
  readonly hidden: readonly string[];
  /** Ports from the first to the last. */
  readonly first: number;
  readonly last: number;
  /** Ports that have another use. */
  readonly avoided: Iterable<number>;
  /** Whether a check may go on with the port that it has. */
  readonly keeps: (port: number) => boolean;
}

/** The record that one operation of a transaction read or wrote; the stamps are filled in by the commit. */
export type OperationRecord =
  | { readonly type: "node"; readonly record: NodeRecord }
  | { readonly type: "service"; readonly node: string; readonly record: InstanceRecord }
  | { readonly type: "check"; readonly record: CheckRecord };

/** The mesh destination that an instance stands for: a proxy's destination, a native instance's own name; else undefined. */
export function connectName(service: Service): string | undefined {
  if (service.kind === "connect-proxy") return service.proxy?.destinationServiceName;
  return service.connect?.native === true ? service.name : undefined;
}

function requireCheckId({ checkId }: Check): void {
  if (checkId === "") throw invalid("Must provide check ID or name");
}

function checkKeyOf(check: Check): string {
  return lowerCase(check.checkId);
}

const MEMBERSHIP_KEY = lowerCase(MEMBERSHIP_CHECK);
const VIRTUAL_TAG = "consul-virtual";

/**
 * Changes that are not committed: reads see them, the committed catalog does not. Each operation applies as a whole or,
 * when it throws, not at all.
 */
export class CatalogDraft implements AppliedDraft {
  /** The index everything written here gets, once the commit has one. */
  readonly stamp: Stamp = { index: 0n };
  readonly nodes: Map<string, NodeChanges> = new Map();
  readonly nodeIds: Map<string, string | undefined> = new Map();
  readonly virtualIps: VirtualIpDraft;

  readonly #base: CommittedCatalog;
  readonly #named = new Map<string, number | undefined>();
  readonly #connect = new Map<string, number | undefined>();
  /** How to take back what the operation being applied did so far, in order. */
  readonly #undo: (() => void)[] = [];
  /**
   * The changes of the operation being applied: only the state before its first change is to be put back. So an
   * operation with many checks does not hold the checks of its node or service as they were before each of them.
   */
  readonly #changed = new Map<object, Set<string>>();
  /** The records that the operation being applied has changed so far. */
  #touched: Touched[] = [];

  constructor(base: CommittedCatalog) {
    this.#base = base;
    this.virtualIps = new VirtualIpDraft(base.virtualIps);
  }

  /** @throws {PeeringError} `invalid-registration` with Consul's text, what `judge` throws; then nothing of it is applied. */
  register(registration: ParsedRegistration, judge?: Judge): void {
    this.#judged(judge, () => {
      const { node, service, checks } = registration;
      const nodeKey = lowerCase(node.name);
      for (const check of checks) {
        if (check.serviceId === "") continue;
        // As it is written, in Consul too: elsewhere ids compare without case.
        const known = this.#instance(nodeKey, lowerCase(check.serviceId))?.service.id;
        if (check.serviceId !== service?.id && check.serviceId !== known) {
          throw invalid(`Unknown service ID '${check.serviceId}' for check ID '${check.checkId}'`);
        }
      }
      if (!registration.skipNodeUpdate || this.#node(nodeKey) === undefined) {
        withPrefix("failed inserting node: ", () => this.#putNode(node));
      }
      if (service !== undefined) withPrefix("failed inserting service: ", () => this.#putService(node.name, service));
      for (const check of checks) {
        withPrefix(`failed inserting check on node "${node.name}": `, () => this.#putCheck(check));
      }
    });
  }

  /** A missing target is no failure. @throws what `judge` throws; then nothing of it is applied. */
  deregister(target: ParsedDeregistration, judge?: Judge): void {
    this.#judged(judge, () => {
      const nodeKey = lowerCase(target.node);
      if (target.serviceId !== "") this.#deleteInstance(nodeKey, lowerCase(target.serviceId));
      else if (target.checkId !== "") this.#deleteCheck(nodeKey, lowerCase(target.checkId));
      else this.#deleteNode(nodeKey);
    });
  }

  /** Changes what a check found last. False: there is no such check. */
  updateCheck(node: string, checkId: string, status: string, output: string): boolean {
    return this.#atomically(() => {
      const before = this.checkRecord(lowerCase(node), lowerCase(checkId));
      if (before === undefined) return false;
      this.#putCheck(Object.freeze({ ...before.check, status, output }));
      return true;
    });
  }

  /**
   * Gives checks of a node the ports by which their proxies lead to them. A port that a check has stays its own.
   * @returns those that are left without one, of `exposed`.
   */
  exposeChecks(node: string, { exposed, hidden, first, last, avoided, keeps }: CheckExposure): readonly string[] {
    return this.#atomically(() => {
      const nodeKey = lowerCase(node);
      const taken = new Set(avoided);
      const without: CheckRecord[] = [];
      for (const id of exposed) {
        const record = this.checkRecord(nodeKey, lowerCase(id));
        if (record === undefined) continue;
        const { exposedPort: port } = record.check;
        if (keeps(port) && !taken.has(port)) taken.add(port);
        else without.push(record);
      }
      const left: string[] = [];
      let next = Math.max(first, 1);
      for (const record of without) {
        while (next <= last && taken.has(next)) next++;
        if (next > last) left.push(record.check.checkId);
        this.#setExposedPort(nodeKey, record, next > last ? 0 : next++);
      }
      for (const id of hidden) {
        const record = this.checkRecord(nodeKey, lowerCase(id));
        if (record !== undefined) this.#setExposedPort(nodeKey, record, 0);
      }
      return left;
    });
  }

  /** Beside {@link CatalogDraft.register}, for which checks that differ in this port alone are the same. */
  #setExposedPort(nodeKey: string, { check, created }: CheckRecord, exposedPort: number): void {
    if (check.exposedPort === exposedPort) return;
    const changed = { check: Object.freeze({ ...check, exposedPort }), created, modified: this.stamp };
    const [owner, checkKey] = [lowerCase(check.serviceId), checkKeyOf(check)];
    this.#changeChecks(nodeKey, owner, (checks) => checks.with(checkKey, changed));
    this.#set(this.#changes(nodeKey).checkOwners, checkKey, owner);
  }

  /**
   * @param judge - looks at each operation by itself.
   * @throws {TransactionError} with every operation that failed; then nothing of any is applied.
   */
  transaction(operations: readonly ParsedOperation[], judge?: Judge): readonly OperationRecord[] {
    return this.#atomically(() => {
      const results: OperationRecord[] = [];
      const errors: OperationError[] = [];
      operations.forEach((operation, operationIndex) => {
        try {
          const result = this.#observed(judge, () => this.#operate(operation));
          if (result !== undefined) results.push(result);
        } catch (error) {
          if (!(error instanceof PeeringError)) throw error;
          errors.push({ operationIndex, what: error.message });
        }
      });
      if (errors.length > 0) throw new TransactionError(errors);
      return results;
    });
  }

  /**
   * Holds, or lets go of, the virtual IP of a service for something that is not an instance of this catalog.
   * @throws {PeeringError} `invalid-registration` when no address is left.
   */
  claimVirtualIp(peer: string, service: string, claimed: boolean): void {
    this.#atomically(() => {
      const key = virtualIpKey(lowerCase(peer), lowerCase(service));
      const record = this.virtualIps.get(key);
      if (claimed) {
        if (record?.claimed === true) return;
        this.#setVirtualIp(key, {
          ...(record ?? { peer: lowerCase(peer), service: lowerCase(service), offset: this.virtualIps.lowestFree() }),
          claimed,
        });
      } else if (record?.claimed === true) {
        this.#setVirtualIp(key, { ...record, claimed });
        this.#freeUnused(record.peer, record.service);
      }
    });
  }

  /**
   * Gives a local service, if it has a virtual IP, these addresses besides, and takes them from the services that had them.
   * @returns the services they were taken from, by name; undefined: the service has no virtual IP.
   * @throws {PeeringError} `invalid-registration` for an invalid address, and for too many.
   */
  setManualVirtualIps(service: string, addresses: readonly string[]): readonly string[] | undefined {
    checkManualAddresses(addresses);
    const key = virtualIpKey("", lowerCase(service));
    const own = this.virtualIps.get(key);
    if (own === undefined) return undefined;
    return this.#atomically(() => {
      const taken: string[] = [];
      for (const address of addresses) {
        const holder = this.virtualIps.manualHolder(address);
        const record = holder === undefined || holder === key ? undefined : this.virtualIps.get(holder);
        if (record === undefined) continue;
        taken.push(record.service);
        const left = (record.manual ?? []).filter((each) => !addresses.includes(each));
        this.#setVirtualIp(virtualIpKey("", record.service), withManual(record, left));
      }
      const { manual = [] } = own;
      if (manual.length !== addresses.length || manual.some((address, index) => address !== addresses[index])) {
        this.#setVirtualIp(key, withManual(own, addresses));
      }
      return taken.sort(compareUtf8);
    });
  }

  #judged<Result>(judge: Judge | undefined, action: () => Result): Result {
    return this.#atomically(() => this.#observed(judge, action));
  }

  #observed<Result>(judge: Judge | undefined, action: () => Result): Result {
    this.#touched = [];
    const result = action();
    judge?.(this.#touched);
    return result;
  }

  #atomically<Result>(action: () => Result): Result {
    try {
      return action();
    } catch (error) {
      for (const takeBack of this.#undo.reverse()) takeBack();
      throw error;
    } finally {
      this.#undo.length = 0;
      this.#changed.clear();
    }
  }

  // Reads: a record changed here, else the committed one.

  #changes(nodeKey: string): NodeChanges {
    const known = this.nodes.get(nodeKey);
    if (known !== undefined) return known;
    const changes: NodeChanges = {
      record: undefined,
      recordChanged: false,
      instances: new Map(),
      checkOwners: new Map(),
    };
    this.nodes.set(nodeKey, changes);
    return changes;
  }

  #node(nodeKey: string): NodeRecord | undefined {
    const changes = this.nodes.get(nodeKey);
    return changes?.recordChanged === true ? changes.record : this.#base.nodeRecord(nodeKey);
  }

  #instance(nodeKey: string, serviceKey: string): InstanceRecord | undefined {
    const instances = this.nodes.get(nodeKey)?.instances;
    return instances?.has(serviceKey) === true
      ? instances.get(serviceKey)
      : this.#base.instanceRecord(nodeKey, serviceKey);
  }

  #instancesOn(nodeKey: string): readonly InstanceRecord[] {
    const changed = this.nodes.get(nodeKey)?.instances;
    const found: InstanceRecord[] = [];
    for (const record of this.#base.instanceRecordsOn(nodeKey)) {
      if (changed?.has(record.key) !== true) found.push(record);
    }
    for (const record of changed?.values() ?? emptyList) if (record !== undefined) found.push(record);
    return found;
  }

  /** As {@link CommittedCatalog.checkOwner}, with the changes applied. */
  checkOwner(nodeKey: string, checkKey: string): string | undefined {
    const owners = this.nodes.get(nodeKey)?.checkOwners;
    return owners?.has(checkKey) === true ? owners.get(checkKey) : this.#base.checkOwner(nodeKey, checkKey);
  }

  /** A check as it is after the changes. */
  checkRecord(nodeKey: string, checkKey: string): CheckRecord | undefined {
    const owner = this.checkOwner(nodeKey, checkKey);
    if (owner === undefined) return undefined;
    const holder = owner === "" ? this.#node(nodeKey) : this.#instance(nodeKey, owner);
    return holder?.checks.get(checkKey);
  }

  #nodeKeyOfId(id: string): string | undefined {
    return this.nodeIds.has(id) ? this.nodeIds.get(id) : this.#base.nodeKeyOfId(id);
  }

  // Elementary changes: each can be taken back.

  /** Whether the operation being applied changes this for the first time. */
  #isFirstChange(of: object, key: string): boolean {
    const keys = this.#changed.get(of) ?? new Set();
    if (keys.has(key)) return false;
    this.#changed.set(of, keys.add(key));
    return true;
  }

  #set<Value>(map: Map<string, Value | undefined>, key: string, value: Value | undefined): void {
    if (!this.#isFirstChange(map, key)) {
      map.set(key, value);
      return;
    }
    if (map.has(key)) {
      const before = map.get(key);
      this.#undo.push(() => map.set(key, before));
    } else this.#undo.push(() => map.delete(key));
    map.set(key, value);
  }

  #setNode(nodeKey: string, record: NodeRecord | undefined): void {
    const changes = this.#changes(nodeKey);
    if (this.#isFirstChange(this.nodes, nodeKey)) {
      const { record: before, recordChanged } = changes;
      this.#undo.push(() => {
        changes.record = before;
        changes.recordChanged = recordChanged;
      });
    }
    changes.record = record;
    changes.recordChanged = true;
  }

  #setInstance(record: InstanceRecord): void {
    this.#set(this.#changes(record.nodeKey).instances, record.key, record);
  }

  #setVirtualIp(key: string, record: VirtualIpRecord | undefined): void {
    const before = this.virtualIps.get(key);
    this.#undo.push(() => this.virtualIps.set(key, before));
    this.virtualIps.set(key, record);
  }

  #count(service: Service, by: 1 | -1): void {
    const name = lowerCase(service.name);
    this.#set(this.#named, name, (this.#named.get(name) ?? 0) + by);
    const connect = connectName(service);
    if (connect === undefined) return;
    const connectKey = lowerCase(connect);
    this.#set(this.#connect, connectKey, (this.#connect.get(connectKey) ?? 0) + by);
  }

  // Operations, each as Consul's store does it: a write that changes nothing keeps the stored record and its indexes.

  #putNode(node: Node): NodeRecord {
    const nodeKey = lowerCase(node.name);
    let before: NodeRecord | undefined;
    if (node.id !== "") {
      const idKey = lowerCase(node.id);
      const knownKey = this.#nodeKeyOfId(idKey);
      if (knownKey !== nodeKey) this.#requireFreeName(node, nodeKey, knownKey === undefined);
      if (knownKey !== undefined && knownKey !== nodeKey) {
        before = this.#node(knownKey);
        this.#deleteNode(knownKey);
      }
    }
    const current = this.#node(nodeKey);
    before ??= current;
    if (current !== undefined && sameNode(current.node, node)) return current;
    if (current !== undefined && current.node.id !== "") this.#set(this.nodeIds, lowerCase(current.node.id), undefined);
    if (node.id !== "") this.#set(this.nodeIds, lowerCase(node.id), nodeKey);
    this.#touchNode(node.name, current);
    const record: NodeRecord = {
      node,
      checks: current?.checks ?? noChecks,
      created: before?.created ?? this.stamp,
      modified: this.stamp,
    };
    this.#setNode(nodeKey, record);
    return record;
  }

  /** A name belongs to another UUID as long as gossip says that node lives. */
  #requireFreeName(node: Node, nodeKey: string, allowWithoutId: boolean): void {
    const other = this.#node(nodeKey);
    if (other === undefined || lowerCase(other.node.id) === lowerCase(node.id)) return;
    if (other.node.id === "" && allowWithoutId) return;
    const isOfNode = this.checkOwner(nodeKey, MEMBERSHIP_KEY) === "";
    const membership = isOfNode ? this.checkRecord(nodeKey, MEMBERSHIP_KEY) : undefined;
    if (membership === undefined || membership.check.status === "critical") return;
    throw invalid(
      `Error while renaming Node ID: "${node.id}": Node name ${node.name} is reserved by node ${other.node.id} ` +
        `with name ${other.node.name} (${other.node.address})`,
    );
  }

  #deleteNode(nodeKey: string): void {
    const record = this.#node(nodeKey);
    if (record === undefined) return;
    this.#touchNode(record.node.name);
    for (const instance of this.#instancesOn(nodeKey)) this.#deleteInstance(nodeKey, instance.key);
    const { checkOwners } = this.#changes(nodeKey);
    for (const checkKey of record.checks.keys()) this.#set(checkOwners, checkKey, undefined);
    if (record.node.id !== "") this.#set(this.nodeIds, lowerCase(record.node.id), undefined);
    this.#setNode(nodeKey, undefined);
  }

  #putService(nodeName: string, service: Service): InstanceRecord {
    const nodeKey = lowerCase(nodeName);
    if (this.#node(nodeKey) === undefined) throw invalid("Missing node registration");
    const problem = metaProblem(service.meta, service.kind);
    if (problem !== undefined) {
      throw invalid(`Invalid Service Meta for node ${nodeName} and serviceID ${service.id}: ${problem}`);
    }
    const key = lowerCase(service.id);
    const before = this.#instance(nodeKey, key);
    const definition = this.#withVirtualIp(service);
    if (before !== undefined && sameService(before.service, definition)) return before;
    const record: InstanceRecord = {
      nodeKey,
      key,
      service: definition,
      checks: before?.checks ?? noChecks,
      created: before?.created ?? this.stamp,
      modified: this.stamp,
      view: undefined,
      viewOf: undefined,
    };
    this.#setInstance(record);
    this.#touchServices(nodeName, definition, before?.service);
    // Most writes change neither name nor destination, and then nothing moves.
    if (before?.service.name === service.name && connectName(before.service) === connectName(service)) return record;
    this.#count(definition, 1);
    if (before !== undefined) {
      this.#count(before.service, -1);
      this.#freeUnusedOf(before.service);
    }
    return record;
  }

  #withVirtualIp(service: Service): Service {
    const name = connectName(service);
    if (name === undefined || name === "") return service;
    const serviceKey = lowerCase(name);
    const key = virtualIpKey("", serviceKey);
    let record = this.virtualIps.get(key);
    if (record === undefined) {
      record = { peer: "", service: serviceKey, offset: this.virtualIps.lowestFree(), claimed: false };
      this.#setVirtualIp(key, record);
    }
    const virtual = Object.freeze({ address: virtualIpAddress(record.offset), port: service.port });
    return Object.freeze({
      ...service,
      taggedAddresses: Object.freeze({ ...service.taggedAddresses, [VIRTUAL_TAG]: virtual }),
    });
  }

  #freeUnusedOf(service: Service): void {
    this.#freeUnused("", lowerCase(service.name));
    const connect = connectName(service);
    if (connect !== undefined) this.#freeUnused("", lowerCase(connect));
  }

  /** Freed exactly when neither an instance of the name, nor a proxy for it, nor a claim is left (D-38). */
  #freeUnused(peer: string, serviceKey: string): void {
    const key = virtualIpKey(peer, serviceKey);
    const record = this.virtualIps.get(key);
    if (record === undefined || record.claimed) return;
    if (peer === "") {
      const named = this.#base.countNamed(serviceKey) + (this.#named.get(serviceKey) ?? 0);
      const connect = this.#base.countConnect(serviceKey) + (this.#connect.get(serviceKey) ?? 0);
      if (named + connect > 0) return;
    }
    this.#setVirtualIp(key, undefined);
  }

  #deleteInstance(nodeKey: string, serviceKey: string): void {
    const record = this.#instance(nodeKey, serviceKey);
    if (record === undefined) return;
    this.#touchRemoved(nodeKey, record.service);
    const { instances, checkOwners } = this.#changes(nodeKey);
    for (const checkKey of record.checks.keys()) this.#set(checkOwners, checkKey, undefined);
    this.#set(instances, serviceKey, undefined);
    this.#count(record.service, -1);
    this.#freeUnusedOf(record.service);
  }

  #putCheck(check: Check): CheckRecord {
    const nodeKey = lowerCase(check.node);
    if (this.#node(nodeKey) === undefined) throw invalid("Missing node registration");
    requireCheckId(check);
    const owner = lowerCase(check.serviceId);
    let definition = check;
    if (owner !== "") {
      const service = this.#instance(nodeKey, owner)?.service;
      if (service === undefined) throw invalid("Missing service registration");
      // Into a literal that has room for all fields: a spread object holds most of them in a list beside it.
      const owned = emptyCheck();
      Object.assign(owned, check);
      owned.serviceName = service.name;
      owned.serviceTags = service.tags;
      definition = Object.freeze(owned);
    }
    const checkKey = checkKeyOf(definition);
    const before = this.checkRecord(nodeKey, checkKey);
    if (before !== undefined && sameCheck(before.check, definition)) return before;
    const record: CheckRecord = {
      check: definition,
      created: before?.created ?? this.stamp,
      modified: this.stamp,
    };
    const previousOwner = this.checkOwner(nodeKey, checkKey);
    if (previousOwner !== undefined && previousOwner !== owner) this.#removeCheck(nodeKey, previousOwner, checkKey);
    this.#touchOwner(nodeKey, owner, false);
    this.#changeChecks(nodeKey, owner, (checks) => checks.with(checkKey, record));
    this.#set(this.#changes(nodeKey).checkOwners, checkKey, owner);
    return record;
  }

  #deleteCheck(nodeKey: string, checkKey: string): void {
    const owner = this.checkOwner(nodeKey, checkKey);
    if (owner === undefined) return;
    this.#removeCheck(nodeKey, owner, checkKey);
    this.#set(this.#changes(nodeKey).checkOwners, checkKey, undefined);
  }

  #removeCheck(nodeKey: string, owner: string, checkKey: string): void {
    this.#touchOwner(nodeKey, owner, true);
    this.#changeChecks(nodeKey, owner, (checks) => checks.without(checkKey));
  }

  /** Of the node itself, or of an instance on it. */
  #changeChecks(nodeKey: string, owner: string, change: (checks: CheckRecords) => CheckRecords): void {
    if (owner === "") {
      const node = this.#node(nodeKey);
      if (node !== undefined) this.#setNode(nodeKey, { ...node, checks: change(node.checks) });
      return;
    }
    const instance = this.#instance(nodeKey, owner);
    if (instance === undefined) return;
    this.#setInstance({ ...instance, checks: change(instance.checks), view: undefined, viewOf: undefined });
  }

  // The records that an operation touches.

  /** @param before - the node that had the name, in its own spelling. */
  #touchNode(name: string, before?: NodeRecord): void {
    for (const node of new Set([name, before?.node.name ?? name])) this.#touched.push({ type: "node", node });
  }

  /**
   * Of an instance that is written, and of what it speaks for in the mesh. Names compare without case: a service that has
   * instances already is touched under their spelling, too.
   */
  #touchServices(node: string, service: Service, before: Service | undefined): void {
    const names = new Set([service.name, connectName(service) ?? service.name]);
    for (const name of [...names]) names.add(this.#base.serviceName(lowerCase(name)) ?? name);
    if (before !== undefined) names.add(before.name);
    for (const name of names) this.#touched.push({ type: "service", node, service: name, removed: false });
  }

  #touchRemoved(nodeKey: string, { name }: Service): void {
    const node = this.#node(nodeKey)?.node.name ?? nodeKey;
    this.#touched.push({ type: "service", node, service: name, removed: true });
  }

  /** Of a check that is written or removed. */
  #touchOwner(nodeKey: string, owner: string, removed: boolean): void {
    const node = this.#node(nodeKey)?.node.name ?? nodeKey;
    if (owner === "") {
      this.#touched.push({ type: "node", node });
      return;
    }
    const service = this.#instance(nodeKey, owner)?.service.name;
    if (service !== undefined) this.#touched.push({ type: "service", node, service, removed });
  }

  #operate(operation: ParsedOperation): OperationRecord | undefined {
    switch (operation.type) {
      case "node": {
        const { node } = operation;
        const nodeKey = lowerCase(node.name);
        return this.#perform(operation, {
          object: `node "${node.name}"`,
          current: () => {
            const record = this.#node(nodeKey);
            return record && { type: "node", record };
          },
          set: () => ({ type: "node", record: this.#putNode(node) }),
          remove: () => this.#deleteNode(nodeKey),
        });
      }
      case "service": {
        const { node, service } = operation;
        const nodeKey = lowerCase(node);
        const serviceKey = lowerCase(service.id);
        return this.#perform(operation, {
          object: `service "${service.id}" on node "${node}"`,
          current: () => {
            const record = this.#instance(nodeKey, serviceKey);
            return record && { type: "service", node: this.#node(nodeKey)?.node.name ?? node, record };
          },
          set: () => ({ type: "service", node, record: this.#putService(node, service) }),
          remove: () => this.#deleteInstance(nodeKey, serviceKey),
        });
      }
      case "check": {
        const { check } = operation;
        requireCheckId(check);
        const nodeKey = lowerCase(check.node);
        const checkKey = checkKeyOf(check);
        return this.#perform(operation, {
          object: `check "${check.checkId}" on node "${check.node}"`,
          current: () => {
            const record = this.checkRecord(nodeKey, checkKey);
            return record && { type: "check", record };
          },
          set: () => ({ type: "check", record: this.#putCheck(check) }),
          remove: () => this.#deleteCheck(nodeKey, checkKey),
        });
      }
    }
  }

  #perform(
    { verb, modifyIndex }: ParsedOperation,
    target: {
      readonly object: string;
      readonly current: () => OperationRecord | undefined;
      readonly set: () => OperationRecord;
      readonly remove: () => void;
    },
  ): OperationRecord | undefined {
    const current = target.current();
    switch (verb) {
      case "get":
        if (current === undefined) throw invalid(`${target.object} doesn't exist`);
        return current;
      case "set":
        return target.set();
      case "cas":
        if (current === undefined ? modifyIndex !== 0n : !isAt(current, modifyIndex)) {
          throw invalid(`failed to set ${target.object}, index is stale`);
        }
        return target.set();
      case "delete":
        target.remove();
        return undefined;
      case "delete-cas":
        if (current === undefined || !isAt(current, modifyIndex)) {
          throw invalid(`failed to delete ${target.object}, index is stale`);
        }
        target.remove();
        return undefined;
    }
  }
}

/** A record written by this very commit has no index yet, so no caller can name it. */
function isAt({ record }: OperationRecord, index: bigint): boolean {
  return index !== 0n && record.modified.index === index;
}

function withPrefix(prefix: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof PeeringError)) throw error;
    throw new PeeringError(error.code, prefix + error.message, { cause: error });
  }
}

function withManual({ manual: _, ...record }: VirtualIpRecord, manual: readonly string[]): VirtualIpRecord {
  return manual.length === 0 ? record : { ...record, manual };
}
