import type { Node } from "../model/instance.js";
import type { Call } from "./call.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { goBoolOf, type ReadOptions } from "./query.js";

/** The parameters that every read of the catalog and of health shares. */
export interface DiscoveryOptions extends ReadOptions {
  readonly peer: string;
  readonly nodeMeta: readonly (readonly [string, string])[];
}

/** Those of a read about one thing, which the path names. */
export interface NamedOptions extends DiscoveryOptions {
  readonly name: string;
}

/** Those of a read of `/v1/health` about the instances of a service. */
export interface InstanceOptions extends NamedOptions {
  readonly passing: boolean;
  /** `""` when the caller asks for none. */
  readonly samenessGroup: string;
}

// A request is judged in Consul's order: faults of its text alone are reported before another datacenter is.

/** @throws {HttpRefusal} with Consul's text, 400 or 500. */
export function discoveryOptions(call: Call): DiscoveryOptions {
  const options = sharedOptions(call);
  ownDatacenter(call);
  return options;
}

/** @param what - the path names. @throws {HttpRefusal} as {@link discoveryOptions}, and 400 without a name. */
export function namedOptions(call: Call, what: string): NamedOptions {
  const options = sharedOptions(call);
  const name = nameInPath(call, what);
  ownDatacenter(call);
  return { ...options, name };
}

/** @throws {HttpRefusal} as {@link namedOptions}, and 400 for a bad `passing`, or a peer together with a sameness group. */
export function instanceOptions(call: Call): InstanceOptions {
  const options = sharedOptions(call);
  const samenessGroup = call.query.get("sameness-group") || call.query.get("sg") || "";
  if (samenessGroup !== "" && options.peer !== "") {
    throw badRequest("peer-name and sameness-group are mutually exclusive");
  }
  const name = nameInPath(call, "service name");
  const passing = onlyPassing(call);
  ownDatacenter(call);
  return { ...options, name, passing, samenessGroup };
}

function sharedOptions(call: Call): DiscoveryOptions {
  call.refuseNamespace();
  call.refusePartition();
  const { query, host } = call;
  const options = call.readOptions();
  const asked = query.get("peer") ?? "";
  const peer = asked === "" ? "" : (host.view.peering(asked)?.name ?? asked);
  return { ...options, peer, nodeMeta: query.getAll("node-meta").map(pair) };
}

/** Present and empty means yes; a word is read as Go reads bools. @throws {HttpRefusal} 400 for another. */
function onlyPassing(call: Call): boolean {
  const given = call.query.get("passing");
  if (given === null) return false;
  const wanted = given === "" ? true : goBoolOf(given);
  if (wanted !== undefined) return wanted;
  throw badRequest("Invalid value for ?passing");
}

/** @throws {HttpRefusal} 500 for the name of another datacenter: names in other capitals are others, as in Consul. */
export function ownDatacenter(call: Call): void {
  const datacenter = call.query.get("datacenter") || call.query.get("dc") || "";
  if (datacenter !== "" && datacenter !== call.host.datacenter) throw new HttpRefusal(500, "No path to datacenter");
}

function pair(given: string): readonly [string, string] {
  const colon = given.indexOf(":");
  return colon < 0 ? [given, ""] : [given.slice(0, colon), given.slice(colon + 1)];
}

/** The name that follows the path of an endpoint. @throws {HttpRefusal} 400 `Missing <what>` when there is none. */
function nameInPath(call: Call, what: string): string {
  if (call.rest === "") throw badRequest(`Missing ${what}`);
  return call.rest;
}

export function hasNodeMeta(node: Node, wanted: readonly (readonly [string, string])[]): boolean {
  return wanted.every(([key, value]) => Object.hasOwn(node.meta, key) && node.meta[key] === value);
}
