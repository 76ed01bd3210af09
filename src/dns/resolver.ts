import { nearFirst } from "../config/prepared-query.js";
import type { ServiceInstance } from "../model/instance.js";
import {
  type AnswerContext,
  type AnswerSettings,
  addressRecords,
  healthy,
  ipRecord,
  metaRecords,
  nodeAddress,
  nodeAddressRecord,
  portOf,
  serviceTtl,
  shuffled,
  srvRecords,
  tagged,
} from "./answer.js";
import { type Lookup, type ParsedName, parseName, type Scope } from "./question.js";
import {
  addressOf,
  addressOfHex,
  type DnsAnswer,
  type DnsRecord,
  emptyAnswer,
  isEncodable,
  nameKey,
  type QuestionType,
  type ServiceOfAnswer,
} from "./records.js";
import type { DnsSource } from "./source.js";

export interface ResolverSettings extends Omit<AnswerSettings, "datacenter"> {
  /** Domains answered for, the first of them being ours by name. Lower-cased, without a dot at the end. */
  readonly domains: readonly [string, ...string[]];
  readonly bareLabelIsPeer: boolean;
  readonly soa: { readonly refresh: number; readonly retry: number; readonly expire: number; readonly minTtl: number };
}

export interface ResolverParts {
  readonly source: DnsSource;
  readonly settings: ResolverSettings;
  /** In [0, 1). */
  readonly fraction: () => number;
  /** Milliseconds since the Unix epoch. */
  readonly wall: () => number;
}

export interface ResolverQuestion {
  /** Without a dot at the end; `.` for the root. */
  readonly name: string;
  readonly type: QuestionType;
  readonly edns: boolean;
  /** The size that the answer may have, which bounds the work of making it. */
  readonly bytes: number;
  /** The address of the asker, or of the client that it asks for. */
  readonly from: string;
}

const MAX_SERVERS = 3;
const MAX_ALIAS_LEVELS = 3;
/** Records taken of an alias for an asker without EDNS. */
const MAX_ALIAS_RECORDS = 5;
/** Names of our own domain looked up for one question: instances choose them, and must not choose how long it takes. */
const MAX_ALIAS_LOOKUPS = 16;
const TRANSFERS: ReadonlySet<QuestionType> = new Set(["AXFR", "IXFR"]);
const NODE_TYPES: ReadonlySet<QuestionType> = new Set(["A", "AAAA", "ANY", "TXT"]);

/** The work that one question may still cause. */
interface Budget {
  lookups: number;
  readonly edns: boolean;
  readonly bytes: number;
  readonly from: string;
}

type ReadService = Pick<ServiceOfAnswer, "service" | "revision">;

/** Answers questions from a {@link DnsSource}, as Consul 1.18 to 1.22 does, whole and uncut. */
export class Resolver {
  readonly #source: DnsSource;
  readonly #settings: ResolverSettings;
  readonly #fraction: () => number;
  readonly #wall: () => number;
  readonly #answerSettings: AnswerSettings;

  constructor(parts: ResolverParts) {
    this.#source = parts.source;
    this.#settings = parts.settings;
    this.#answerSettings = { ...parts.settings, datacenter: parts.source.datacenter };
    this.#fraction = parts.fraction;
    this.#wall = parts.wall;
  }

  /** @throws the error of the source: the client then gets SERVFAIL. */
  async resolve(question: ResolverQuestion): Promise<DnsAnswer> {
    if (TRANSFERS.has(question.type)) return emptyAnswer("NOTIMP", true);
    const { edns, bytes, from } = question;
    const budget: Budget = { lookups: MAX_ALIAS_LOOKUPS, edns, bytes, from };
    return this.#answer(question.name, question.type, 0, budget);
  }

  async #answer(name: string, type: QuestionType, level: number, budget: Budget): Promise<DnsAnswer> {
    const parsed = parseName(name, type, {
      domains: this.#settings.domains,
      datacenter: this.#source.datacenter,
      bareLabelIsPeer: this.#settings.bareLabelIsPeer,
      isPeering: (peer) => this.#source.isPeering(peer),
    });
    if (parsed.type === "outside") return emptyAnswer("REFUSED", false);
    if (parsed.type === "reverse") return this.#reverse(name, type, parsed.address);
    if (type === "SOA") return this.#start(parsed.domain, parsed.zone);
    if (type === "NS") return this.#servers(parsed.domain, parsed.zone);
    return this.#lookUp(parsed, name, type, level, budget);
  }

  async #lookUp(
    { domain, zone, lookup }: Extract<ParsedName, { readonly type: "inside" }>,
    name: string,
    type: QuestionType,
    level: number,
    budget: Budget,
  ): Promise<DnsAnswer> {
    const context = (scope: Scope, ttl: number, port?: string): AnswerContext => ({
      settings: this.#answerSettings,
      name,
      type,
      domain,
      peer: peerOf(scope),
      port,
      ttl,
    });
    switch (lookup.type) {
      case "malformed":
        return this.#absent(zone);
      case "addr":
        return this.#address(lookup.hex, ownerOf(name, domain), type, zone);
      case "virtual":
        return this.#virtual(lookup, ownerOf(name, domain));
      case "node":
        return this.#node(lookup, zone, context(lookup.scope, this.#settings.nodeTtl), level, budget);
      case "query": {
        if (lookup.scope.type === "elsewhere") return this.#absent(zone);
        const found = await this.#source.query(lookup.query, budget.from);
        if (found === undefined) return this.#absent(zone);
        const ttl = found.ttl ?? serviceTtl(this.#settings.serviceTtls, found.service);
        const scope: Scope = found.peer === "" ? lookup.scope : { type: "peer", peer: found.peer };
        return this.#service(found.instances, zone, context(scope, ttl), level, budget, { near: found.near });
      }
      default: {
        if (lookup.scope.type === "elsewhere") return this.#absent(zone);
        // Before the read: where something changes meanwhile, it is too old.
        const revision =
          lookup.type === "service" ? this.#source.revision?.(peerOf(lookup.scope), lookup.service) : undefined;
        const instances = await this.#instances(lookup);
        const ttl = serviceTtl(this.#settings.serviceTtls, lookup.service);
        const port = lookup.type === "service" ? lookup.port : undefined;
        const of = revision === undefined ? undefined : { service: lookup.service, revision };
        return this.#service(instances, zone, context(lookup.scope, ttl, port), level, budget, { of });
      }
    }
  }

  async #instances(
    lookup: Extract<Lookup, { readonly type: "service" | "connect" | "ingress" }>,
  ): Promise<readonly ServiceInstance[]> {
    const all = await this.#allInstances(lookup);
    const named = lookup.type === "service" && lookup.tag !== undefined ? tagged(all, lookup.tag) : all;
    return healthy(named, this.#settings.onlyPassing);
  }

  #allInstances(
    lookup: Extract<Lookup, { readonly type: "service" | "connect" | "ingress" }>,
  ): Promise<readonly ServiceInstance[]> {
    switch (lookup.type) {
      case "connect":
        return this.#source.connectInstances(lookup.service);
      case "ingress":
        return this.#source.ingressInstances(lookup.service);
      case "service":
        return this.#source.instances(peerOf(lookup.scope), lookup.service);
    }
  }

  async #service(
    instances: readonly ServiceInstance[],
    zone: string,
    context: AnswerContext,
    level: number,
    budget: Budget,
    { near = "", of }: { readonly near?: string | undefined; readonly of?: ReadService | undefined },
  ): Promise<DnsAnswer> {
    if (instances.length === 0) return this.#absent(zone);
    const order = nearFirst(shuffled(instances, this.#fraction), near);
    let answers: readonly DnsRecord[];
    let additionals: readonly DnsRecord[] = [];
    let hasAlias: boolean;
    if (context.type === "SRV") {
      // As in Consul 1.22: the name is one of all instances or of none.
      if (order.some((instance) => portOf(instance, context.port) === undefined)) return this.#absent(zone);
      const records = srvRecords(order, context, budget.bytes);
      const aliased: DnsRecord[] = [];
      for (const alias of records.aliases) aliased.push(...(await this.#alias(alias, level, budget)));
      answers = records.answers;
      additionals = [...records.additionals, ...aliased];
      hasAlias = records.aliases.length > 0;
    } else {
      answers = await this.#withAlias(addressRecords(order, context, budget.bytes), level, budget);
      hasAlias = answers[0]?.type === "CNAME";
    }
    if (answers.length === 0) return { ...emptyAnswer("NOERROR", true), authorities: [this.#soa(zone)] };
    const answer = { ...emptyAnswer("NOERROR", true), answers, additionals };
    // The target of an alias may change by itself.
    if (of === undefined || hasAlias) return answer;
    return { ...answer, of: { ...of, peer: context.peer, instances: instances.length } };
  }

  async #node(
    lookup: Extract<Lookup, { readonly type: "node" }>,
    zone: string,
    context: AnswerContext,
    level: number,
    budget: Budget,
  ): Promise<DnsAnswer> {
    const { type, name, ttl } = context;
    // Consul looks at the type before it looks for the node, or even at the datacenter.
    if (!NODE_TYPES.has(type)) return emptyAnswer("NOERROR", true);
    if (lookup.scope.type === "elsewhere") return this.#absent(zone);
    const node = await this.#source.node(peerOf(lookup.scope), lookup.node);
    if (node === undefined) return this.#absent(zone);
    const record = type === "TXT" ? undefined : nodeAddressRecord(node, context);
    const address = record === undefined ? [] : await this.#withAlias([record], level, budget);
    const meta = this.#settings.nodeMetaTxt || type === "TXT" || type === "ANY" ? metaRecords(node, name, ttl) : [];
    const inAnswer = type === "TXT" || type === "ANY";
    return {
      ...emptyAnswer("NOERROR", true),
      answers: inAnswer ? [...address, ...meta] : address,
      additionals: inAnswer ? [] : meta,
    };
  }

  async #virtual({ service, peer }: Extract<Lookup, { readonly type: "virtual" }>, owner: string): Promise<DnsAnswer> {
    const address = await this.#source.virtualIp(peer, service);
    const ip = address === undefined ? undefined : addressOf(address);
    if (ip === undefined) return emptyAnswer("NOERROR", true);
    return { ...emptyAnswer("NOERROR", true), answers: [ipRecord(ip, owner, this.#settings.nodeTtl)] };
  }

  #address(hex: string, owner: string, type: QuestionType, zone: string): DnsAnswer {
    const ip = addressOfHex(hex);
    if (ip === undefined) return this.#absent(zone);
    const record = ipRecord(ip, owner, this.#settings.nodeTtl);
    const fits = type === ip.type || type === "ANY";
    return {
      ...emptyAnswer("NOERROR", true),
      answers: fits ? [record] : [],
      additionals: fits ? [] : [record],
    };
  }

  /** Only our own nodes and services are searched. */
  async #reverse(name: string, type: QuestionType, address: string | undefined): Promise<DnsAnswer> {
    if (type !== "PTR" && type !== "ANY") return emptyAnswer("REFUSED", false);
    const [domain] = this.#settings.domains;
    const owner = address === undefined ? undefined : await this.#source.ownerOf(address);
    if (owner === undefined) return this.#absent(domain);
    const data = `${owner.name}.${owner.type}.${this.#source.datacenter}.${domain}`;
    if (!isEncodable(data)) return this.#absent(domain);
    return { ...emptyAnswer("NOERROR", true), answers: [{ type: "PTR", name, ttl: 0, data }] };
  }

  async #start(domain: string, zone: string): Promise<DnsAnswer> {
    const { answers, additionals } = await this.#servers(domain, zone);
    return { ...emptyAnswer("NOERROR", true), answers: [this.#soa(zone)], authorities: answers, additionals };
  }

  /** The nodes of service `consul`, where one is registered. Consul owns the records in the asker's spelling. */
  async #servers(domain: string, zone: string): Promise<DnsAnswer> {
    const ttl = this.#settings.nodeTtl;
    const servers = healthy(await this.#source.instances("", "consul"), false);
    const answers: DnsRecord[] = [];
    const additionals: DnsRecord[] = [];
    for (const { node } of shuffled(servers, this.#fraction)) {
      if (answers.length === MAX_SERVERS) break;
      if (!/^[A-Za-z0-9-]{1,63}$/.test(node.name)) continue;
      const data = `${node.name}.node.${this.#source.datacenter}.${zone}`;
      if (!isEncodable(data) || answers.some((record) => record.data === data)) continue;
      answers.push({ type: "NS", name: domain, ttl, data });
      const ip = addressOf(nodeAddress(node, { settings: this.#answerSettings, type: "ANY" }));
      if (ip !== undefined) additionals.push(ipRecord(ip, data, ttl));
    }
    return { ...emptyAnswer("NOERROR", true), answers, additionals };
  }

  /** An answer that is an alias, with the records of its target. */
  async #withAlias(records: readonly DnsRecord[], level: number, budget: Budget): Promise<readonly DnsRecord[]> {
    const [first] = records;
    if (first?.type !== "CNAME") return records;
    return [first, ...(await this.#alias(first.data, level, budget))];
  }

  /** The target of an alias, if that name lies in our domains. Clients look up other names themselves. */
  async #alias(name: string, level: number, budget: Budget): Promise<readonly DnsRecord[]> {
    if (level >= MAX_ALIAS_LEVELS || budget.lookups <= 0 || !this.#isOurs(name)) return [];
    budget.lookups--;
    const { answers } = await this.#answer(name.replace(/\.$/, ""), "ANY", level + 1, budget);
    const useful = answers.filter(({ type }) => type === "A" || type === "AAAA" || type === "CNAME");
    return budget.edns ? useful : useful.slice(0, MAX_ALIAS_RECORDS);
  }

  #isOurs(name: string): boolean {
    const key = nameKey(name.replace(/\.$/, ""));
    return this.#settings.domains.some((domain) => key.endsWith(`.${domain}`));
  }

  #absent(zone: string): DnsAnswer {
    return { ...emptyAnswer("NXDOMAIN", true), authorities: [this.#soa(zone)] };
  }

  #soa(zone: string): DnsRecord {
    const { refresh, retry, expire, minTtl } = this.#settings.soa;
    return {
      type: "SOA",
      name: zone,
      ttl: minTtl,
      data: {
        mname: `ns.${zone}`,
        rname: `hostmaster.${zone}`,
        // Unsigned 32 bits: it wraps in 2106.
        serial: Math.floor(this.#wall() / 1_000) % 2 ** 32,
        refresh,
        retry,
        expire,
        minimum: minTtl,
      },
    };
  }
}

/** Virtual and `addr` names are answered in lower case, except for the domain. */
function ownerOf(name: string, domain: string): string {
  return nameKey(name.slice(0, name.length - domain.length)) + domain;
}

function peerOf(scope: Scope): string {
  return scope.type === "peer" ? scope.peer : "";
}
