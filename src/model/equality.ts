import { lowerCase } from "../syntax/names.js";
import type {
  Check,
  JsonValue,
  Locality,
  Node,
  Proxy as ProxyDefinition,
  Service,
  ServiceAddress,
} from "./instance.js";
import { samePorts } from "./ports.js";
import { localityTable } from "./records.js";

/*
 * Whether a write changes anything: one that does not keeps the stored record and its indexes. Records are normalised when they are parsed or decoded, so
 * absent and empty lists and maps are the same value here already.
 */

function sameList(left: readonly string[], right: readonly string[]): boolean {
  if (left === right) return true;
  return left.length === right.length && left.every((element, index) => element === right[index]);
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

function sameAddress(left: ServiceAddress, right: ServiceAddress): boolean {
  return left.address === right.address && left.port === right.port;
}

/** A locality that says nothing; a node that has this one is written again for no other reason. */

function sameLocality(left: Locality | undefined, right: Locality | undefined): boolean {
  return left === right || (left?.region === right?.region && left?.zone === right?.zone);
}

function isList(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** Deep equality of JSON values; the order of an object's keys does not matter. */
export function sameJson(left: JsonValue, right: JsonValue): boolean {
  if (left === right) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false;
  if (isList(left)) {
    return (
      isList(right) &&
      left.length === right.length &&
      left.every((element, index) => {
        const other = right[index];
        return other !== undefined && sameJson(element, other);
      })
    );
  }
  return !isList(right) && sameMap(left, right, sameJson);
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
    sameJson(left.config ?? {}, right.config ?? {}) &&
    sameJson(left.upstreams ?? [], right.upstreams ?? []) &&
    sameJson(left.extra ?? {}, right.extra ?? {})
  );
}

function sameConnect(left: Service["connect"], right: Service["connect"]): boolean {
  if (left === right) return true;
  if ((left?.native ?? false) !== (right?.native ?? false)) return false;
  if (!sameJson(left?.sidecarService ?? {}, right?.sidecarService ?? {})) return false;
  const a = left?.peerMeta;
  const b = right?.peerMeta;
  if (a === undefined || b === undefined) return a === b;
  return sameList(a.sni, b.sni) && sameList(a.spiffeId, b.spiffeId) && a.protocol === b.protocol;
}

/** Names compare without case: a node written again with only its spelling changed keeps the old one. */
export function sameNode(left: Node, right: Node): boolean {
  return (
    left === right ||
    (left.id === right.id &&
      (left.name === right.name || lowerCase(left.name) === lowerCase(right.name)) &&
      left.address === right.address &&
      left.datacenter === right.datacenter &&
      sameMap(left.taggedAddresses, right.taggedAddresses, identical) &&
      sameMap(left.meta, right.meta, identical) &&
      sameLocality(left.locality ?? localityTable.empty, right.locality ?? localityTable.empty))
  );
}

/** Every field of the definition counts. */
export function sameService(left: Service, right: Service): boolean {
  return (
    left === right ||
    (left.kind === right.kind &&
      left.id === right.id &&
      left.name === right.name &&
      sameList(left.tags, right.tags) &&
      left.address === right.address &&
      left.port === right.port &&
      samePorts(left.ports, right.ports) &&
      left.socketPath === right.socketPath &&
      sameMap(left.taggedAddresses, right.taggedAddresses, sameAddress) &&
      sameMap(left.meta, right.meta, identical) &&
      left.weights.passing === right.weights.passing &&
      left.weights.warning === right.weights.warning &&
      left.enableTagOverride === right.enableTagOverride &&
      sameProxy(left.proxy, right.proxy) &&
      sameConnect(left.connect, right.connect) &&
      sameLocality(left.locality, right.locality))
  );
}

/** Type, interval, timeout and exposed port do not count, as in Consul 1.13 to 1.22. */
export function sameCheck(left: Check, right: Check): boolean {
  return (
    left === right ||
    ((left.node === right.node || lowerCase(left.node) === lowerCase(right.node)) &&
      left.checkId === right.checkId &&
      left.name === right.name &&
      left.status === right.status &&
      left.notes === right.notes &&
      left.output === right.output &&
      left.serviceId === right.serviceId &&
      left.serviceName === right.serviceName &&
      sameList(left.serviceTags, right.serviceTags) &&
      sameJson(left.definition, right.definition))
  );
}
