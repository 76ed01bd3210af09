import fc from "fast-check";
import { type Clock, silentLogger, systemClock } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import { KeptReplies } from "../../../src/dns/kept-replies.js";
import { type LargeAnswerLimits, LargeAnswers } from "../../../src/dns/large-answers.js";
import type { DnsRecord } from "../../../src/dns/records.js";
import { Resolver, type ResolverSettings } from "../../../src/dns/resolver.js";
import { type Origin, Responder } from "../../../src/dns/responder.js";
import type { AddressOwner, DnsSource, QueryAnswer } from "../../../src/dns/source.js";
import type { Check, Node, Service, ServiceInstance } from "../../../src/model/instance.js";
import { SeededRandom } from "../../../src/testing/simulator/scheduler.js";
import { type Ask, type Asked, query, readAnswer } from "./client.js";

const label = fc.stringMatching(/^[a-z0-9é-]{1,12}$/);
const ends = fc.constantFrom("node.dc1.consul", "node.east.peer.consul", "service.consul", "consul", "Consul");
const name = fc
  .tuple(fc.array(label, { minLength: 1, maxLength: 3 }), ends)
  .map(([labels, end]) => [...labels, end].join("."));
const base = { name, ttl: fc.nat() };
/** Records of every type, whose names share their ends. */
export const record: fc.Arbitrary<DnsRecord> = fc.oneof(
  fc.record({ ...base, type: fc.constant("A" as const), data: fc.ipV4() }),
  fc.record({ ...base, type: fc.constant("AAAA" as const), data: fc.constant("fd00::1") }),
  fc.record({ ...base, type: fc.constantFrom("CNAME" as const, "NS" as const, "PTR" as const), data: name }),
  fc.record({
    ...base,
    type: fc.constant("SRV" as const),
    data: fc.record({ priority: fc.constant(1), weight: fc.constant(1), port: fc.nat(65_535), target: name }),
  }),
  fc.record({
    ...base,
    type: fc.constant("SOA" as const),
    data: fc.record({
      mname: name,
      rname: name,
      ...{ serial: fc.nat(), refresh: fc.nat(), retry: fc.nat(), expire: fc.nat(), minimum: fc.nat() },
    }),
  }),
  fc.record({
    ...base,
    type: fc.constant("TXT" as const),
    data: fc.array(fc.string({ maxLength: 60 }), { minLength: 1, maxLength: 3 }),
  }),
);

export interface InstanceInput {
  readonly node?: Partial<Node>;
  readonly service: Partial<Service> & { readonly name: string };
  /** Statuses, or whole checks. */
  readonly checks?: readonly (string | Partial<Check>)[];
}

export function instance({ node, service, checks = ["passing"] }: InstanceInput): ServiceInstance {
  const host: Node = {
    id: "",
    name: "n1",
    address: "10.0.0.1",
    datacenter: "dc1",
    taggedAddresses: {},
    meta: {},
    ...node,
  };
  const full: Service = {
    kind: "",
    id: `${service.name}-${host.name}`,
    tags: [],
    address: "",
    port: 80,
    socketPath: "",
    taggedAddresses: {},
    meta: {},
    weights: { passing: 1, warning: 1 },
    enableTagOverride: false,
    ...service,
  };
  return {
    node: host,
    service: full,
    checks: checks.map((check, index) => ({
      node: host.name,
      checkId: `check-${index}`,
      name: "",
      notes: "",
      output: "",
      serviceId: full.id,
      serviceName: full.name,
      serviceTags: [],
      type: "",
      interval: "",
      timeout: "",
      exposedPort: 0,
      definition: {},
      ...(typeof check === "string" ? { status: check } : { status: "passing", ...check }),
    })),
  };
}

export interface SourceInput {
  readonly datacenter?: string;
  /** By peer; `""` is local. */
  readonly instances?: Readonly<Record<string, readonly ServiceInstance[]>>;
  readonly virtualIps?: Readonly<Record<string, string>>;
  readonly owners?: Readonly<Record<string, AddressOwner>>;
  readonly queries?: Readonly<Record<string, QueryAnswer>>;
}

export function sourceOf(input: SourceInput): DnsSource {
  const { datacenter = "dc1", instances = {}, virtualIps = {}, owners = {}, queries = {} } = input;
  const of = (peer: string): readonly ServiceInstance[] => instances[peer] ?? [];
  return {
    datacenter,
    isPeering: (name) => name !== "" && Object.hasOwn(instances, name),
    instances: async (peer, service) => of(peer).filter((one) => one.service.name.toLowerCase() === service),
    connectInstances: async (service) =>
      of("").filter(
        (one) => one.service.proxy?.destinationServiceName === service || one.service.connect?.native === true,
      ),
    ingressInstances: async () => [],
    node: async (peer, name) => of(peer).find((one) => one.node.name.toLowerCase() === name)?.node,
    virtualIp: async (peer, service) => virtualIps[`${peer}/${service}`],
    query: async (nameOrId, _, visible = async (__, all) => all) => {
      const found = queries[nameOrId];
      return found && { ...found, instances: await visible(found.peer, found.instances, "") };
    },
    ownerOf: async (address) => owners[address],
  };
}

export interface ResponderInput extends Partial<ResolverSettings> {
  readonly udpAnswerLimit?: number;
  readonly maxUdpBytes?: number;
  readonly enableTruncate?: boolean;
  readonly largeAnswers?: Partial<LargeAnswerLimits>;
  readonly keptReplyBytes?: number;
  readonly clock?: Clock;
  readonly incidents?: Incidents;
}

export function responderOf(source: DnsSource, input: ResponderInput = {}): Responder {
  const {
    udpAnswerLimit = 3,
    maxUdpBytes = 1_232,
    enableTruncate = false,
    keptReplyBytes = 1_000_000,
    ...others
  } = input;
  // Questions of a test have no limit, unless it sets one.
  const { largeAnswers = {}, clock = systemClock, incidents = new Incidents(), ...settings } = others;
  const limits = { factor: 3, perSecond: Number.MAX_SAFE_INTEGER, networks: 1_000, ...largeAnswers };
  const random = new SeededRandom(1);
  return new Responder({
    resolver: new Resolver({
      source,
      settings: {
        domains: ["consul"],
        bareLabelIsPeer: true,
        onlyPassing: false,
        nodeTtl: 0,
        serviceTtls: {},
        soa: { refresh: 3_600, retry: 600, expire: 86_400, minTtl: 0 },
        addressLimit: 0,
        translateWanAddresses: false,
        nodeMetaTxt: true,
        ...settings,
      },
      fraction: () => random.fraction(),
      wall: () => 1_700_000_000_000,
    }),
    logger: silentLogger,
    udpAnswerLimit,
    maxUdpBytes,
    enableTruncate,
    largeAnswers: new LargeAnswers(limits, clock, incidents),
    keptReplies: new KeptReplies(source, incidents, keptReplyBytes),
  });
}

/** A question over UDP comes from this address, unless a test says another. */
export function originOf(transport: "udp" | "tcp", from = "10.0.0.9:5353"): Origin {
  return { transport, from };
}

/** The answer to `name type`, without any socket. */
export async function answerOf(responder: Responder, question: Ask): Promise<Asked> {
  const reply = await responder.respond(query(question), originOf(question.transport ?? "udp"));
  if (reply === undefined) throw new Error("no answer");
  return readAnswer(reply);
}
