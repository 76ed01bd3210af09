import { joinHostPort } from "../../base/host-port.js";
import { doAll } from "../../base/steps.js";
import { type CompiledChain, isHttpLike, type ResolvedTarget } from "../../config/chain.js";
import type { ExportExplanation } from "../../config/exports.js";
import { IntentionRules } from "../../config/intention-rules.js";
import { intentionFor } from "../../config/intentions.js";
import { peerIntentionWarnings } from "../../config/peer-intentions.js";
import type {
  ConnectionExplanation,
  ConnectionPart,
  ConnectionQuestion,
  ConnectionStep,
  MeshEnd,
} from "../../model/connection-explanation.js";
import type { ServiceInstance } from "../../model/instance.js";
import { lowerCase } from "../../syntax/names.js";
import { peeredServiceSni } from "../../trust/names.js";
import { joinPems } from "./bundles.js";
import { type Endpoint, type Endpoints, endpointsOf } from "./endpoints.js";
import { bundleOf, carriedProtocol, goesThroughOwnGateways, peeredFindings, remoteEndpoints } from "./peered.js";
import type { Upstream } from "./settings.js";
import { chainOf, gatewayModeOf, upstreamOf } from "./sidecar.js";
import type { MeshView } from "./view.js";

/** Facts beside a {@link MeshView} that explain a connection. */
export interface ConnectionFacts {
  /** The state of a peering as it is shown; undefined: there is none of that name. */
  peeringState(peer: string): string | undefined;
  exportOf(service: string, peer: string): ExportExplanation;
  /** The peers whose callers may reach the instances of a service, also through the chain of another one. */
  peersReaching(service: string): readonly string[];
  /** Whether a peer exports a service of that name in any form. */
  isImported(peer: string, service: string): boolean;
  /** Why a service, or without a name the mesh gateways, can have no certificate; undefined: they can. */
  certificateProblem(service?: string): string | undefined;
  /** The mesh gateways of this cluster. */
  meshGateways(): readonly ServiceInstance[];
  /** The upstreams of the sidecars of a service, with the settings of config entries. */
  registeredUpstreams(service: string): readonly Upstream[];
}

/** The steps about each place that a chain leads to, by the id of its target. */
type Places = ReadonlyMap<string, readonly ConnectionStep[]>;

/**
 * Whether one service reaches another, by the same decisions that proxies and programs of this cluster go by, in the order in which they count. Of what
 * the other cluster decides, nothing is known here, and that is said.
 * @param path - normalised.
 */
export function explain(view: MeshView, facts: ConnectionFacts, question: ConnectionQuestion): ConnectionExplanation {
  const { source, destination, peer = "", sourcePeer = "" } = question;
  const explained =
    sourcePeer !== ""
      ? inbound(view, facts, question, sourcePeer)
      : peer !== ""
        ? outbound(view, facts, question, peer)
        : within(view, facts, question);
  return {
    source: { service: source, peer: sourcePeer },
    destination: { service: destination, peer },
    ...explained,
  };
}

type Explained = Pick<ConnectionExplanation, "steps" | "failed" | "hints">;

function step(
  part: ConnectionPart,
  result: ConnectionStep["result"],
  text: string,
  more: { readonly remedy?: string; readonly place?: string } = {},
): ConnectionStep {
  return { part, result, text, remedy: more.remedy ?? "", place: more.place ?? "" };
}

function firstFailed(steps: readonly ConnectionStep[]): ConnectionStep | undefined {
  return steps.find(({ result }) => result === "failed");
}

/** From a service here to one of a peer. */
function outbound(view: MeshView, facts: ConnectionFacts, question: ConnectionQuestion, peer: string): Explained {
  const { source, destination } = question;
  const upstream = usedUpstream(view, facts, question, peer);
  const target: MeshEnd = { service: destination, peer };
  const steps = [
    peeringStep(facts, peer),
    ...peeredSteps(view, facts, target, gatewayModeOf(upstream.settings), ""),
    certificateStep(facts, source),
    foreignIntentions(source, target),
  ];
  return { steps, failed: firstFailed(steps), hints: upstreamHints(facts, source, target) };
}

/** From a service here to a service here, whose chain may lead to others, also of peers. */
function within(view: MeshView, facts: ConnectionFacts, question: ConnectionQuestion): Explained {
  const { source, destination } = question;
  const { settings } = usedUpstream(view, facts, question, "");
  const chain = chainOf(view, destination, settings);
  const before = [chainStep(chain)];
  const places: Places = new Map(
    chain.targets.map((target) => {
      const place = placeName(target);
      const steps =
        target.peer === ""
          ? [
              ...localSteps(view, target, place),
              intentionStep(view, { ...question, destination: target.service }, chain, place),
            ]
          : [
              peeringStep(facts, target.peer, place),
              ...peeredSteps(view, facts, target, gatewayModeOf(settings, target), place),
              foreignIntentions(source, target, place),
            ];
      return [target.id, steps] as const;
    }),
  );
  const after = [rootsStep(view), certificateStep(facts, source)];
  const steps = [...before, ...[...places.values()].flat(), ...after];
  const failed = firstFailed(before) ?? failedPlace(chain, places) ?? firstFailed(after);
  return { steps, failed, hints: upstreamHints(facts, source, { service: destination, peer: "" }) };
}

/** From a service of a peer to a service here. */
function inbound(view: MeshView, facts: ConnectionFacts, question: ConnectionQuestion, peer: string): Explained {
  const { destination } = question;
  const chain = view.chain(destination);
  const before = [peeringStep(facts, peer), exportStep(facts, destination, peer), chainStep(chain)];
  // A gateway passes no call on to another cluster.
  const own = chain.targets.filter(({ peer: other, datacenter }) => other === "" && datacenter === view.datacenter);
  const places: Places = new Map(
    own.map((target) => {
      const place = placeName(target);
      const asked = { ...question, destination: target.service };
      const steps = [
        ...localSteps(view, target, place),
        certificateStep(facts, target.service, place),
        intentionStep(view, asked, chain, place),
      ];
      return [target.id, steps] as const;
    }),
  );
  const reached =
    chain.problem === undefined && own.length === 0
      ? [
          step(
            "instances",
            "failed",
            "its chain leads to other clusters alone, and a gateway passes no call of a peer on to another",
            {
              remedy: "Let the peer call the other cluster itself, by a peering with it.",
            },
          ),
        ]
      : [];
  const sni = peeredServiceSni({ service: destination, peer, trustDomain: view.trustDomain });
  const after = [
    step("names", "ok", `callers of the peer ask the gateway for ${sni}`),
    bundleStep(view, peer),
    rootsStep(view),
    ...ownGatewaySteps(facts, chain),
    step(
      "other-cluster",
      "unknown",
      `whether "${question.source}" has a certificate there, and its cluster can dial the gateway, only the peer "${peer}" knows`,
    ),
  ];
  const steps = [...before, ...reached, ...[...places.values()].flat(), ...after];
  const failed = firstFailed(before) ?? firstFailed(reached) ?? failedPlace(chain, places) ?? firstFailed(after);
  const exported = [{ service: destination, peers: [peer] }];
  const byDefault = view.allowsByDefault ? "allow" : "deny";
  return {
    steps,
    failed,
    hints: doAll(peerIntentionWarnings(view.entries, byDefault, exported)).map(({ text }) => text),
  };
}

/** The settings by which the source calls: those of its registered sidecar, else those that config entries give. */
function usedUpstream(
  view: MeshView,
  facts: ConnectionFacts,
  { source, destination, meshGateway = "" }: ConnectionQuestion,
  peer: string,
): Upstream {
  const registered = facts
    .registeredUpstreams(source)
    .find(({ id }) => id.name === destination && id.peer === peer && id.type === "");
  if (registered !== undefined && meshGateway === "") return registered;
  return upstreamOf(view, { source, service: destination, peer, mode: meshGateway });
}

/** A step that failed of the first way through the chain that leads to no working place. */
function failedPlace(chain: CompiledChain, places: Places): ConnectionStep | undefined {
  for (const node of chain.nodes.values()) {
    if (node.type !== "resolver") continue;
    const ways = [node.target, ...(node.failover?.targets ?? [])].map((id) => places.get(id));
    const failures = ways.flatMap((steps) => (steps === undefined ? [] : [firstFailed(steps)]));
    // One that works is enough: calls fail over to it.
    if (failures.length > 0 && !failures.includes(undefined)) return failures[0];
  }
  return undefined;
}

function placeName({ service, subset, peer }: ResolvedTarget): string {
  const of = subset === "" ? `"${service}"` : `subset "${subset}" of "${service}"`;
  return peer === "" ? of : `${of} of the peer "${peer}"`;
}

function peeringStep(facts: ConnectionFacts, peer: string, place = ""): ConnectionStep {
  const state = facts.peeringState(peer);
  const of = `the peering "${peer}"`;
  switch (state) {
    case undefined:
      return step("peering", "failed", `there is no peering "${peer}"`, {
        place,
        remedy: "Generate a token in one cluster, and establish the peering with it in the other.",
      });
    case "active":
      return step("peering", "ok", `${of} is active`, { place });
    case "failing":
      return step("peering", "ok", `${of} has lost its stream: connections go on by what was known before`, { place });
    case "pending":
    case "establishing":
      return step("peering", "failed", `${of} is ${state}: its peer has never connected`, {
        place,
        remedy: "Establish it in the other cluster, and see that the address in its token can be reached from there.",
      });
    default:
      return step("peering", "failed", `${of} is ${state}`, { place, remedy: "Delete it, and establish it again." });
  }
}

function exportStep(facts: ConnectionFacts, service: string, peer: string): ConnectionStep {
  if (facts.peeringState(peer) === undefined) {
    return step("export", "failed", `nothing is exported to "${peer}", which is no peering`, {
      remedy: "Name a peering.",
    });
  }
  const explanation = facts.exportOf(service, peer);
  if (explanation.mesh) return step("export", "ok", explanation.text);
  if (facts.peersReaching(service).includes(peer)) {
    const text = `"${service}" is reached through the chain of another service that is exported to "${peer}"`;
    return step("export", "ok", text);
  }
  if (explanation.exported) {
    return step(
      "export",
      "failed",
      `${explanation.text} It goes out as an ordinary service, which is outside of the mesh.`,
      {
        remedy: `Register a sidecar for "${service}", or the service itself with \`connect: { native: true }\`.`,
      },
    );
  }
  return step("export", "failed", explanation.text, {
    remedy: `Name "${service}" with the consumer "${peer}" in the config entry exported-services.`,
  });
}

function chainStep(chain: CompiledChain): ConnectionStep {
  if (chain.problem !== undefined) {
    return step("chain", "failed", `its discovery chain cannot be used: ${chain.problem}`, {
      remedy: "Mend its service-router, service-splitter, service-resolver and service-defaults.",
    });
  }
  const protocol = `the protocol is ${chain.protocol}`;
  if (chain.isDefault) return step("chain", "ok", `no config entry leads calls elsewhere; ${protocol}`);
  const kinds = new Set([...chain.nodes.values()].map(({ type }) => type));
  const through = [...kinds].filter((type) => type !== "resolver").join(" and ");
  const targets = chain.targets.map(placeName).join(", ");
  return step("chain", "ok", `${through === "" ? "it leads" : `its ${through} leads`} to ${targets}; ${protocol}`);
}

/** About a service of a peer, as our side knows it. */
function peeredSteps(
  view: MeshView,
  facts: ConnectionFacts,
  { service, peer }: MeshEnd,
  mode: string,
  place: string,
): readonly ConnectionStep[] {
  const { instances, names } = peeredFindings(view, peer, service);
  const steps: ConnectionStep[] = [];
  if (instances.type === "known") {
    steps.push(step("import", "ok", `the peer "${peer}" exports "${service}" to us, in the mesh`, { place }));
  } else {
    const plain = facts.isImported(peer, service)
      ? `; it is exported as an ordinary service: it has no sidecar there, or the peer has no mesh gateway`
      : "";
    steps.push(
      step("import", view.imported(peer, service) === undefined ? "unknown" : "failed", `${instances.text}${plain}`, {
        place,
        remedy: `In the cluster of "${peer}": export the service to us, give it a sidecar, and register a mesh gateway.`,
      }),
    );
  }
  if (names.type === "known") {
    const { protocol, sni, spiffeIds } = names.part;
    const carried = carriedProtocol(protocol);
    steps.push(
      carried === protocol.toLowerCase()
        ? step("protocol", "ok", `the peer says that it speaks ${carried}`, { place })
        : step(
            "protocol",
            "ok",
            `the peer says that it speaks ${JSON.stringify(protocol)}, which is carried as ${carried}`,
            {
              place,
            },
          ),
      step("names", "ok", `it is reached as ${sni}, and must show ${spiffeIds.join(" or ")}`, { place }),
    );
  } else {
    const remedy = `See that the peer "${peer}" runs a version of Consul or Peerage with a mesh (Connect), and has a mesh gateway.`;
    steps.push(step("names", "failed", names.text, { place, remedy }));
  }
  steps.push(bundleStep(view, peer, place));
  steps.push(
    goesThroughOwnGateways(mode)
      ? localGatewayStep(view.localGateways(), `calls go through our own mesh gateways first (mode "local")`, place)
      : remoteGatewayStep(view, peer, instances.type === "known" ? instances.part : [], place),
  );
  return steps;
}

function bundleStep(view: MeshView, peer: string, place = ""): ConnectionStep {
  const bundle = bundleOf(view, peer);
  if (bundle.type === "problem") {
    return step("trust", "failed", bundle.text, {
      place,
      remedy: `See that the stream to "${peer}" stands, and that no other peering names its trust domain.`,
    });
  }
  const { trustDomain, rootPems } = bundle.part;
  return step("trust", "ok", `${rootPems.length} root(s) of ${trustDomain} are known`, { place });
}

function rootsStep(view: MeshView): ConnectionStep {
  return joinPems(view.rootPems()).trim() === ""
    ? step("trust", "failed", "the roots of this cluster are not known", {
        remedy: "Give the certificate authority a root.",
      })
    : step("trust", "ok", `${view.rootPems().length} root(s) of this cluster are known`);
}

function remoteGatewayStep(
  view: MeshView,
  peer: string,
  instances: Parameters<typeof remoteEndpoints>[2],
  place: string,
): ConnectionStep {
  const told = endpointsOf(instances, "wan");
  const allowed = remoteEndpoints(view, peer, instances);
  if (told.list.length === 0) {
    return step("gateway", "failed", `the peer "${peer}" tells no address of a mesh gateway`, {
      place,
      remedy: `Register a mesh gateway with an address and a port in the cluster of "${peer}".`,
    });
  }
  if (allowed.list.length === 0) {
    return step("gateway", "failed", `its mesh gateways may not be dialed (forbiddenAddresses): ${shown(told.list)}`, {
      place,
      remedy: "Allow these addresses, or have the peer tell others (tagged address `wan`).",
    });
  }
  const rule = told.hostnames ? "; addresses of names are looked up, and judged, when they are dialed" : "";
  return healthy(allowed.list, `the mesh gateways of "${peer}" are dialed${rule}`, place);
}

function localGatewayStep({ list }: Endpoints, what: string, place = ""): ConnectionStep {
  if (list.length === 0) {
    return step("gateway", "failed", `${what}, and this cluster has none with an address and a port`, {
      place,
      remedy:
        "Register a mesh gateway (`peerage connect envoy -gateway mesh -register`, or any service of kind mesh-gateway).",
    });
  }
  return healthy(list, what, place);
}

function healthy(list: readonly Endpoint[], what: string, place: string): ConnectionStep {
  const working = list.filter((endpoint) => endpoint.healthy);
  if (working.length === 0) {
    return step("gateway", "failed", `${what}, and none of them is healthy: ${shown(list)}`, {
      place,
      remedy: "See why its health checks fail.",
    });
  }
  return step("gateway", "ok", `${what}: ${shown(working)}`, { place });
}

const SHOWN_ADDRESSES = 5;

function shown(list: readonly Endpoint[]): string {
  const all = list.map(({ address, port }) => joinHostPort(address, port));
  const more = all.length - SHOWN_ADDRESSES;
  return all.slice(0, SHOWN_ADDRESSES).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Peers come in by our own gateways, which end the TLS of requests and need a certificate for that. */
function ownGatewaySteps(facts: ConnectionFacts, chain: CompiledChain): readonly ConnectionStep[] {
  const steps = [localGatewayStep(endpointsOf(facts.meshGateways(), "wan"), "peers come in by our mesh gateways")];
  if (isHttpLike(chain.protocol)) {
    const problem = facts.certificateProblem();
    steps.push(
      problem !== undefined
        ? step("certificate", "failed", `there is no certificate for the mesh gateways: ${problem}`, {
            remedy: SIGNING_REMEDY,
          })
        : step("certificate", "ok", "there is a certificate for the mesh gateways"),
    );
  }
  return steps;
}

function localSteps(view: MeshView, target: ResolvedTarget, place: string): readonly ConnectionStep[] {
  if (target.datacenter !== view.datacenter) {
    return [
      step(
        "instances",
        "failed",
        `it is in the datacenter "${target.datacenter}", and other datacenters are not served`,
        {
          place,
          remedy: "Lead its chain to this datacenter, or to a peer.",
        },
      ),
    ];
  }
  const { list } = doAll(view.targetEndpoints(target));
  if (list.length === 0) {
    return [
      step("instances", "failed", "nothing with an address and a port speaks for it in the mesh", {
        place,
        remedy: "Register a sidecar for it, or the service itself with `connect: { native: true }`.",
      }),
    ];
  }
  const working = list.filter((endpoint) => endpoint.healthy);
  return [
    working.length === 0
      ? step("instances", "failed", `none of its ${list.length} instance(s) is healthy: ${shown(list)}`, {
          place,
          remedy: "See why their health checks fail.",
        })
      : step("instances", "ok", `${working.length} of ${list.length} instance(s) are healthy: ${shown(working)}`, {
          place,
        }),
  ];
}

const SIGNING_REMEDY = "Mend the certificate authority: it must be able to sign.";

function certificateStep(facts: ConnectionFacts, service: string, place = ""): ConnectionStep {
  const problem = facts.certificateProblem(service);
  return problem !== undefined
    ? step("certificate", "failed", `there is no certificate for "${service}": ${problem}`, {
        place,
        remedy: SIGNING_REMEDY,
      })
    : step("certificate", "ok", `"${service}" has a certificate, or can have one`, { place });
}

/** Intentions are looked at where the called service is. */
function foreignIntentions(source: string, { service, peer }: MeshEnd, place = ""): ConnectionStep {
  const text =
    `whether the peer "${peer}" trusts our roots, and an intention there lets "${source}" in, only "${peer}" knows: ` +
    `ask there with \`peerage explain connection ${service} -source ${source} -source-peer <its name of us>\``;
  return step("intention", "unknown", text, { place });
}

function intentionStep(
  view: MeshView,
  { source, destination, sourcePeer = "", method = "GET", path }: ConnectionQuestion,
  chain: CompiledChain,
  place: string,
): ConnectionStep {
  const entryOf = (name: string) => view.entries.get("service-intentions", name);
  const call = { source, peer: sourcePeer, destination };
  const rules = new IntentionRules(entryOf, { byDefault: view.allowsByDefault ? "allow" : "deny" });
  const permissions = intentionFor(call, (name) => entryOf(name)?.sources ?? [])?.permissions;
  const asked = permissions !== undefined && isHttpLike(chain.protocol);
  if (asked && path === undefined) {
    const text = `its intention has ${permissions.length} permission(s) for requests: give a path and a method`;
    return step("intention", "unknown", text, { place });
  }
  const verdict = asked
    ? rules.request(call, { method, path: path ?? "/", header: () => undefined })
    : rules.connection(call);
  const request = asked ? `${method} ${path} without headers is ` : "";
  if (verdict.allowed) return step("intention", "ok", `${request}${verdict.reason}`, { place });
  const from = sourcePeer === "" ? `"${source}"` : `"${source}" with peer "${sourcePeer}"`;
  return step("intention", "failed", `${request}${verdict.reason}`, {
    place,
    remedy: `Allow the source ${from} in the service-intentions of "${destination}".`,
  });
}

/** A program without a sidecar needs no upstream, so it is none of the steps. */
function upstreamHints(facts: ConnectionFacts, source: string, { service, peer }: MeshEnd): readonly string[] {
  const upstreams = facts.registeredUpstreams(source);
  const isNamed = upstreams.some(
    ({ id }) => lowerCase(id.name) === lowerCase(service) && lowerCase(id.peer) === lowerCase(peer),
  );
  if (upstreams.length === 0 || isNamed) return [];
  return [
    `The sidecar of "${source}" has upstreams, and none of them is this service: unless it is transparent, it does not lead there.`,
  ];
}
