import { healthOf } from "../model/check-groups.js";
import type { Node, ServiceInstance } from "../model/instance.js";
import { nameLength } from "./compression.js";
import { addressOf, type DnsRecord, hexLabel, isEncodable, nameKey, type QuestionType } from "./records.js";
import { recordLength, tooManyRecords } from "./size.js";

/** Everything besides the data that the making of records depends on. */
export interface AnswerSettings {
  /** Of this cluster. */
  readonly datacenter: string;
  readonly onlyPassing: boolean;
  readonly translateWanAddresses: boolean;
  readonly nodeMetaTxt: boolean;
  /** Most addresses in an answer; 0: no limit. */
  readonly addressLimit: number;
  readonly nodeTtl: number;
  readonly serviceTtls: Readonly<Record<string, number>>;
}

/** The question, and whose data answers it. */
export interface AnswerContext {
  readonly settings: AnswerSettings;
  /** As the asker wrote it. */
  readonly name: string;
  readonly type: QuestionType;
  /** As the asker wrote it. */
  readonly domain: string;
  /** `""`: our own data. */
  readonly peer: string;
  /** Name of the port that SRV records tell, lower-cased; undefined: that of the service. */
  readonly port: string | undefined;
  readonly ttl: number;
}

/** Where an instance is reached. */
interface Location {
  readonly address: string;
  /** Undefined: the address is a name. */
  readonly ip: ReturnType<typeof addressOf>;
  /** The node's own address as registered, so that the node's name stands for it. */
  readonly isNode: boolean;
}

/** The healthy ones: without a critical check or, where only passing ones are wanted, with passing ones alone. */
export function healthy(instances: readonly ServiceInstance[], onlyPassing: boolean): readonly ServiceInstance[] {
  return instances.filter((instance) => {
    const { total, passing, critical } = healthOf(instance);
    return onlyPassing ? passing === total : critical === 0;
  });
}

/** Those that carry a tag, whatever its case. */
export function tagged(instances: readonly ServiceInstance[], tag: string): readonly ServiceInstance[] {
  const wanted = nameKey(tag);
  return instances.filter(({ service }) => service.tags.some((own) => nameKey(own) === wanted));
}

/**
 * The port of an instance that is asked for; undefined when it has none of that name. Without regard to case, as names in
 * DNS are: Consul 1.22 does not find a name with capitals.
 */
export function portOf({ service }: ServiceInstance, name: string | undefined): number | undefined {
  if (name === undefined) return service.port;
  return service.ports?.find((port) => nameKey(port.name) === name)?.port;
}

/** A uniformly random order. */
export function shuffled<Item>(items: readonly Item[], fraction: () => number): readonly Item[] {
  const order = [...items];
  for (let index = order.length - 1; index > 0; index--) {
    const other = Math.floor(fraction() * (index + 1));
    const [left, right] = [order[index], order[other]];
    if (left === undefined || right === undefined) continue;
    order[index] = right;
    order[other] = left;
  }
  return order;
}

/** The TTL of a service in seconds: its own, else that of the longest pattern `we*` or `*` that fits, else 0. */
export function serviceTtl(ttls: Readonly<Record<string, number>>, service: string): number {
  const name = nameKey(service);
  let best: { readonly length: number; readonly ttl: number } | undefined;
  for (const [pattern, ttl] of Object.entries(ttls)) {
    const key = nameKey(pattern);
    if (key === name) return ttl;
    if (!key.endsWith("*") || !name.startsWith(key.slice(0, -1))) continue;
    if (best === undefined || key.length > best.length) best = { length: key.length, ttl };
  }
  return best?.ttl ?? 0;
}

/** The weight of an instance in SRV records (Consul 1.13 to 1.22). */
export function weightOf(instance: ServiceInstance): number {
  const { weights } = instance.service;
  const { total, passing, warning, critical, maintenance } = healthOf(instance);
  if (maintenance) return 0;
  // A status that Consul does not know.
  if (passing + warning + critical < total) return 1;
  if (critical > 0) return 0;
  const weight = warning > 0 ? weights.warning : weights.passing;
  return Math.min(Math.max(Math.trunc(weight), 0), 65_535);
}

/** The name of a node below the domain that was asked. */
export function nodeName(node: string, { peer, domain, settings }: AnswerContext): string {
  return peer === "" ? `${node}.node.${settings.datacenter}.${domain}` : `${node}.node.${peer}.peer.${domain}`;
}

/** A node's metadata, as TXT records of its name: RFC 1464, or raw for keys that begin with `rfc1035-`. */
export function metaRecords(node: Node, owner: string, ttl: number): readonly DnsRecord[] {
  if (!isEncodable(owner)) return [];
  return Object.entries(node.meta).map(([key, value]) => {
    const text = key.toLowerCase().startsWith("rfc1035-") ? value : `${rfc1464(key)}=${value}`;
    return { type: "TXT", name: owner, ttl, data: chunks(text) } as const;
  });
}

/** The record of an address that is a node's: A, AAAA, or CNAME when it is a name. */
export function nodeAddressRecord(node: Node, context: AnswerContext): DnsRecord | undefined {
  const address = nodeAddress(node, context);
  if (address === "") return undefined;
  const ip = addressOf(address);
  if (ip !== undefined) return fitsType(ip.type, context.type) ? ipRecord(ip, context.name, context.ttl) : undefined;
  const target = withoutDot(address);
  return isTarget(target) ? { type: "CNAME", name: context.name, ttl: context.ttl, data: target } : undefined;
}

/**
 * Answers to A, AAAA, ANY and TXT: all addresses, or one alias when there is no address at all.
 * The answer is empty when instances exist but none fits the type.
 * @param bytes - of the packet: records that no longer fit are not made.
 */
export function addressRecords(
  instances: readonly ServiceInstance[],
  context: AnswerContext,
  bytes: number,
): readonly DnsRecord[] {
  const { name, ttl, settings, type } = context;
  const most = Math.min(settings.addressLimit || Number.POSITIVE_INFINITY, tooManyRecords(bytes));
  const addresses = new Map<string, DnsRecord>();
  let alias: DnsRecord | undefined;
  for (const instance of instances) {
    if (addresses.size >= most) break;
    const location = locate(instance, context, serviceAddress(instance, context));
    if (location === undefined) continue;
    const { ip, address } = location;
    if (ip === undefined) alias ??= { type: "CNAME", name, ttl, data: address };
    else if (fitsType(ip.type, type)) addresses.set(`${ip.type} ${ip.data}`, ipRecord(ip, name, ttl));
  }
  if (addresses.size > 0) return [...addresses.values()];
  return alias === undefined ? [] : [alias];
}

export interface SrvRecords {
  readonly answers: readonly DnsRecord[];
  /** Without the addresses of {@link SrvRecords.aliases}, which must be looked up. */
  readonly additionals: readonly DnsRecord[];
  /** Targets that are names of the instances' own choosing. */
  readonly aliases: readonly string[];
}

/**
 * Answers to SRV: one for each distinct node, address and port, with the addresses of their targets.
 * @param bytes - of the packet: records that no longer fit are not made.
 */
export function srvRecords(instances: readonly ServiceInstance[], context: AnswerContext, bytes: number): SrvRecords {
  const { name, ttl, peer, domain, settings } = context;
  const seen = new Set<string>();
  const answers: DnsRecord[] = [];
  const additionals: DnsRecord[] = [];
  const owners = new Set<string>();
  const aliases = new Set<string>();
  const most = tooManyRecords(bytes);
  let metaBytes = 0;
  for (const instance of instances) {
    if (answers.length >= most) break;
    const { node } = instance;
    const own = serviceAddress(instance, context);
    const ownPort = translatedPort(instance, context);
    const tuple = `${nameKey(node.name)}\0${own}\0${ownPort}`;
    if (seen.has(tuple)) continue;
    seen.add(tuple);
    const location = locate(instance, context, own);
    if (location === undefined) continue;
    const { ip, address, isNode } = location;
    const port = ownPort ?? 0;
    const canonical = nodeName(node.name, context);
    let target: string;
    if (ip === undefined) target = address;
    else if (isNode) target = canonical;
    else target = `${hexLabel(ip)}.addr.${peer === "" ? `${settings.datacenter}.` : ""}${domain}`;
    // A peer's description of its nodes need not fit a record.
    if (!isEncodable(target) || !Number.isInteger(port) || port < 0 || port > 65_535) continue;
    answers.push({ type: "SRV", name, ttl, data: { priority: 1, weight: weightOf(instance), port, target } });
    if (ip === undefined) aliases.add(target);
    else if (!owners.has(nameKey(target))) additionals.push(ipRecord(ip, target, ttl));
    owners.add(nameKey(target));
    const described = `TXT ${nameKey(canonical)}`;
    // Once there is too much of it, all of it is left out.
    if (settings.nodeMetaTxt && !owners.has(described) && metaBytes <= bytes) {
      const meta = metaRecords(node, canonical, ttl);
      for (const record of meta) metaBytes += recordLength(record) - nameLength(record.name);
      additionals.push(...meta);
    }
    owners.add(described);
  }
  return { answers, additionals, aliases: [...aliases] };
}

export function ipRecord(
  ip: { readonly type: "A" | "AAAA"; readonly data: string },
  name: string,
  ttl: number,
): DnsRecord {
  return { type: ip.type, name, ttl, data: ip.data };
}

/** Consul answers A and AAAA with their own kind and everything else with any address. */
function fitsType(record: "A" | "AAAA", asked: QuestionType): boolean {
  return asked === record || asked === "ANY" || asked === "TXT";
}

/** @param ofService - the address of the service that answers the question. */
function locate({ node }: ServiceInstance, context: AnswerContext, ofService: string): Location | undefined {
  const own = withoutDot(ofService);
  const ip = addressOf(own);
  if (ip !== undefined) return { address: own, ip, isNode: false };
  const ofNode = withoutDot(nodeAddress(node, context));
  const nodeIp = addressOf(ofNode);
  // An alias of itself leads nowhere.
  const isItself = nameKey(own) === nameKey(context.name);
  if (own === "" || (nodeIp !== undefined && isItself)) {
    const location = { address: ofNode, ip: nodeIp, isNode: ofNode === withoutDot(node.address) };
    return nodeIp !== undefined || isTarget(ofNode) ? location : undefined;
  }
  return isTarget(own) && !isItself ? { address: own, ip, isNode: false } : undefined;
}

/** The addresses at which a node or service is reached. */
interface Addresses {
  readonly address: string;
  readonly ipv4: string;
  readonly ipv6: string;
}

/**
 * The one address that answers a question: that of the family which is asked for, IPv6 first where either will do, else the
 * address that counts for all (Consul 1.13 to 1.22).
 */
function addressFor(type: QuestionType, { address, ipv4, ipv6 }: Addresses): string {
  if (type !== "A" && ipv6 !== "") return ipv6;
  if (type !== "AAAA" && ipv4 !== "") return ipv4;
  return address;
}

/** Addresses by their tags, `wan` before `lan` where that is wanted. */
function taggedAddresses(address: string, tagged: (tag: string) => string | undefined, wan: boolean): Addresses {
  const either = (tag: string): string | undefined => (wan ? tagged(`wan${tag}`) : undefined);
  return {
    address: either("") ?? address,
    ipv4: either("_ipv4") ?? tagged("lan_ipv4") ?? "",
    ipv6: either("_ipv6") ?? tagged("lan_ipv6") ?? "",
  };
}

function ownMember<Value>(members: Readonly<Record<string, Value>>, key: string): Value | undefined {
  return Object.hasOwn(members, key) ? members[key] : undefined;
}

/** A peer's services are always of another datacenter, even where that has the name of ours (Consul 1.14 to 1.22). */
function translates({ settings, peer }: AnswerContext): boolean {
  return settings.translateWanAddresses && peer !== "";
}

function serviceAddress({ service }: ServiceInstance, context: AnswerContext): string {
  const tagged = (tag: string): string | undefined => ownMember(service.taggedAddresses, tag)?.address;
  return addressFor(context.type, taggedAddresses(service.address, tagged, translates(context)));
}

function translatedPort(instance: ServiceInstance, context: AnswerContext): number | undefined {
  const wan = translates(context) ? ownMember(instance.service.taggedAddresses, "wan") : undefined;
  return wan === undefined || wan.port === 0 ? portOf(instance, context.port) : wan.port;
}

/** The address of a node that answers a question of a type. */
export function nodeAddress(node: Node, { settings, type }: Pick<AnswerContext, "settings" | "type">): string {
  const wan = settings.translateWanAddresses && nameKey(node.datacenter) !== nameKey(settings.datacenter);
  return addressFor(
    type,
    taggedAddresses(node.address, (tag) => ownMember(node.taggedAddresses, tag), wan),
  );
}

function withoutDot(name: string): string {
  return name.endsWith(".") ? name.slice(0, -1) : name;
}

/** Whether an address that is no IP can be the name of something. */
function isTarget(address: string): boolean {
  return isEncodable(address) && !/[\s:%]/.test(address);
}

function rfc1464(key: string): string {
  const quote = (text: string): string => text.replace(/[`=]/g, "`$&");
  const isBlank = (index: number): boolean => key[index] === " " || key[index] === "\t";
  let [start, end] = [0, key.length];
  while (start < end && isBlank(start)) start++;
  while (end > start && isBlank(end - 1)) end--;
  const quoteBlanks = (blanks: string): string => blanks.replace(/[ \t]/g, "`$&");
  return `${quoteBlanks(key.slice(0, start))}${quote(key.slice(start, end))}${quoteBlanks(key.slice(end))}`;
}

/** Strings of at most 255 bytes, as a TXT record takes them. */
function chunks(text: string): readonly string[] {
  if (Buffer.byteLength(text) <= 255) return [text];
  const parts: string[] = [];
  let part = "";
  let length = 0;
  for (const character of text) {
    const bytes = Buffer.byteLength(character);
    if (length + bytes > 255) {
      parts.push(part);
      part = "";
      length = 0;
    }
    part += character;
    length += bytes;
  }
  return [...parts, part];
}
