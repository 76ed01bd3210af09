import { sameValue } from "../base/same-value.js";
import { lowerCase } from "../syntax/names.js";
import type { Check, JsonObject, Node, Proxy as ProxyDefinition, Service, StringMap } from "./instance.js";
import { type Table, type Uses, useFields } from "./record-table.js";
import {
  addressTable,
  checkTable,
  localityTable,
  nodeTable,
  portTable,
  serviceTable,
  weightsTable,
  writtenOutOfCheck,
  writtenOutOfNode,
  writtenOutOfService,
} from "./records.js";

/*
 * Whether a write changes anything: one that does not keeps the stored record and its indexes. Records are normalised when they are parsed or decoded, so
 * absent and empty lists and maps are the same value here already.
 */

function sameList(left: readonly string[], right: readonly string[]): boolean {
  if (left === right) return true;
  if (left.length !== right.length) return false;
  for (let at = 0; at < left.length; at++) if (left[at] !== right[at]) return false;
  return true;
}

function sameMap<Value>(
  left: Readonly<Record<string, Value>>,
  right: Readonly<Record<string, Value>>,
  same: (left: Value, right: Value) => boolean,
): boolean {
  if (left === right) return true;
  const keys = Object.keys(left);
  if (keys.length !== Object.keys(right).length) return false;
  for (const key of keys) {
    const a = left[key];
    const b = right[key];
    if (!Object.hasOwn(right, key) || a === undefined || b === undefined || !same(a, b)) return false;
  }
  return true;
}

function identical(left: string, right: string): boolean {
  return left === right;
}

function sameProxy(left: ProxyDefinition | undefined, right: ProxyDefinition | undefined): boolean {
  if (left === right) return true;
  return (
    left !== undefined &&
    right !== undefined &&
    left.destinationServiceName === right.destinationServiceName &&
    left.destinationServiceId === right.destinationServiceId &&
    left.localServiceAddress === right.localServiceAddress &&
    left.localServicePort === right.localServicePort &&
    left.localServiceSocketPath === right.localServiceSocketPath &&
    left.mode === right.mode &&
    left.meshGatewayMode === right.meshGatewayMode &&
    sameValue(left.config ?? {}, right.config ?? {}) &&
    sameValue(left.upstreams ?? [], right.upstreams ?? []) &&
    sameValue(left.extra ?? {}, right.extra ?? {})
  );
}

function sameConnect(left: Service["connect"], right: Service["connect"]): boolean {
  if (left === right) return true;
  if ((left?.native ?? false) !== (right?.native ?? false)) return false;
  if (!sameValue(left?.sidecarService ?? {}, right?.sidecarService ?? {})) return false;
  const a = left?.peerMeta;
  const b = right?.peerMeta;
  if (a === undefined || b === undefined) return a === b;
  return sameList(a.sni, b.sni) && sameList(a.spiffeId, b.spiffeId) && a.protocol === b.protocol;
}

type Same<Value> = (left: Value, right: Value) => boolean;

function sameGiven<Value>(left: Value | undefined, right: Value | undefined, same: Same<Value>): boolean {
  return left === right || (left !== undefined && right !== undefined && same(left, right));
}

function sameElements<Value>(
  left: readonly Value[] | undefined,
  right: readonly Value[] | undefined,
  same: Same<Value>,
): boolean {
  if (left === right) return true;
  const [a, b] = [left ?? [], right ?? []];
  return (
    a.length === b.length &&
    a.every((each, at) => {
      const other = b[at];
      return other !== undefined && same(each, other);
    })
  );
}

/** How values are compared, by kind. */
class SameUses<Item> implements Uses<Item, Same<Item>> {
  text(get: (item: Item) => string): Same<Item> {
    return (left, right) => get(left) === get(right);
  }

  flag(get: (item: Item) => boolean): Same<Item> {
    return (left, right) => get(left) === get(right);
  }

  int(get: (item: Item) => number): Same<Item> {
    return (left, right) => get(left) === get(right);
  }

  index(get: (item: Item) => bigint): Same<Item> {
    return (left, right) => get(left) === get(right);
  }

  texts(get: (item: Item) => readonly string[]): Same<Item> {
    return (left, right) => sameList(get(left), get(right));
  }

  textMap(get: (item: Item) => StringMap): Same<Item> {
    return (left, right) => sameMap(get(left), get(right), identical);
  }

  one<Inner>(get: (item: Item) => Inner | undefined, table: Table<Inner>): Same<Item> {
    const same = sameBy(table);
    return (left, right) => sameGiven(get(left), get(right), same);
  }

  list<Inner>(get: (item: Item) => readonly Inner[] | undefined, table: Table<Inner>): Same<Item> {
    const same = sameBy(table);
    return (left, right) => sameElements(get(left), get(right), same);
  }

  map<Inner>(get: (item: Item) => Readonly<Record<string, Inner>>, table: Table<Inner>): Same<Item> {
    const same = sameBy(table);
    return (left, right) => sameMap(get(left), get(right), same);
  }

  kept(get: (item: Item) => JsonObject | undefined): Same<Item> {
    return (left, right) => sameValue(get(left) ?? {}, get(right) ?? {});
  }

  proxy(get: (item: Item) => ProxyDefinition | undefined): Same<Item> {
    return (left, right) => sameProxy(get(left), get(right));
  }
}

/** @param except - fields that are compared elsewhere, or do not count. */
function sameBy<Item>(table: Table<Item>, except?: ReadonlySet<keyof Item>): Same<Item> {
  const uses = new SameUses<Item>();
  const all = useFields(table, () => uses, except);
  return (left, right) => {
    if (left === right) return true;
    for (const same of all) if (!same(left, right)) return false;
    return true;
  };
}

/** Names compare without case: a record written again with only their spelling changed keeps the old one. */
function sameName(left: string, right: string): boolean {
  return left === right || lowerCase(left) === lowerCase(right);
}

const sameAddress = sameBy(addressTable);
const samePort = sameBy(portTable);
const sameWeights = sameBy(weightsTable);
const sameLocality = sameBy(localityTable);

const sameOtherNodeFields = sameBy(nodeTable, writtenOutOfNode);

export function sameNode(left: Node, right: Node): boolean {
  return (
    left === right ||
    (left.id === right.id &&
      sameName(left.name, right.name) &&
      left.address === right.address &&
      left.datacenter === right.datacenter &&
      sameMap(left.taggedAddresses, right.taggedAddresses, identical) &&
      sameMap(left.meta, right.meta, identical) &&
      // A node that has an empty locality is written again for no other reason.
      (left.locality === right.locality ||
        sameLocality(left.locality ?? localityTable.empty, right.locality ?? localityTable.empty)) &&
      sameOtherNodeFields(left, right))
  );
}

const sameOtherServiceFields = sameBy(serviceTable, writtenOutOfService);

/**
 * Every field of the definition counts, also the order of ports and which is the default; in Consul 1.22 only their names and
 * numbers do, so that it misses such changes.
 */
export function sameService(left: Service, right: Service): boolean {
  return (
    left === right ||
    (left.kind === right.kind &&
      left.id === right.id &&
      left.name === right.name &&
      sameList(left.tags, right.tags) &&
      left.address === right.address &&
      sameMap(left.taggedAddresses, right.taggedAddresses, sameAddress) &&
      sameMap(left.meta, right.meta, identical) &&
      left.port === right.port &&
      sameElements(left.ports, right.ports, samePort) &&
      left.socketPath === right.socketPath &&
      sameWeights(left.weights, right.weights) &&
      left.enableTagOverride === right.enableTagOverride &&
      sameGiven(left.locality, right.locality, sameLocality) &&
      sameProxy(left.proxy, right.proxy) &&
      sameConnect(left.connect, right.connect) &&
      sameOtherServiceFields(left, right))
  );
}

const sameOtherCheckFields = sameBy(checkTable, writtenOutOfCheck);

/** Type, interval, timeout and exposed port do not count, as in Consul 1.13 to 1.22. */
export function sameCheck(left: Check, right: Check): boolean {
  return (
    left === right ||
    (sameName(left.node, right.node) &&
      left.checkId === right.checkId &&
      left.name === right.name &&
      left.status === right.status &&
      left.notes === right.notes &&
      left.output === right.output &&
      left.serviceId === right.serviceId &&
      left.serviceName === right.serviceName &&
      sameList(left.serviceTags, right.serviceTags) &&
      sameValue(left.definition, right.definition) &&
      sameOtherCheckFields(left, right))
  );
}
