import { networkInterfaces } from "node:os";
import { isDeepStrictEqual } from "node:util";
import { compareUtf8 } from "../base/byte-order.js";
import { atOnce, StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import { compileChain } from "../config/chain.js";
import type { PeeringHost } from "../host/host.js";
import { type LeafHolder, MESH_GATEWAY } from "../host/leaf-certificates.js";
import { compileFilter } from "../http/filter/filter.js";
import { instanceFields } from "../http/records.js";
import { type CheckGroup, groupsOf, withGroups } from "../model/check-groups.js";
import type { Check, ServiceInstance } from "../model/instance.js";
import { SIDECAR_SUFFIX, sidecarName } from "../payload/exported-payload.js";
import { addressesToDial, shouldDial, type TrustBundle } from "../peering/peering.js";
import type { IndexedCheck } from "../stores/catalog.js";
import { lowerCase } from "../syntax/names.js";
import { type Endpoints, endpointsOf } from "./snapshot/endpoints.js";
import { speakersFor } from "./snapshot/peered.js";
import type { CheckAtProxy, ExportedMeshService, MeshView, PeerServers, ProxyLeaf } from "./snapshot/view.js";
import { madeAt, madeInSteps, ViewMemory, type ViewMemoryUser } from "./view-memory.js";

/** The parts of a view that are not read from the host at once, and how its user follows it. */
export interface HostViewParts {
  readonly allowsByDefault: boolean;
  /** Is told each fact that was looked at, under a key of its own. `read` gives another value once the fact has changed. */
  readonly depend: (key: string, read: () => unknown) => void;
  /** Changes with what `onReachingChange` of the exports tells. */
  readonly exportsMark: () => unknown;
  /** A text says why there is none. */
  readonly leaf: (holder: LeafHolder) => ProxyLeaf | string;
  /** The instances that speak for a service of a peer in the mesh; undefined: they are not read yet. */
  readonly imported: (peer: string, service: string) => readonly ServiceInstance[] | undefined;
  /** Has what other views have made already. Default: nothing of that. */
  readonly memory?: ViewMemoryUser;
}

/** A host as its proxies, its programs, and those who ask for explanations see it: one answer for all of them. */
export function hostView(host: PeeringHost, parts: HostViewParts): MeshView {
  const { depend, leaf, memory = new ViewMemory().user() } = parts;
  const { catalog, configEntries } = host;
  const entries = configEntries.entries;
  depend("entries", () => configEntries.index);
  const bundlesOf = (peers: readonly string[]): readonly TrustBundle[] =>
    peers.flatMap((peer) => host.view.trustBundle(peer) ?? []);
  return {
    datacenter: host.datacenter,
    trustDomain: host.trustDomain,
    allowsByDefault: parts.allowsByDefault,
    entries,
    rootPems: () => {
      depend("roots", () =>
        host.authority
          .roots()
          .map(({ id, active }) => `${id}${active}`)
          .join(),
      );
      return host.authority.roots().map(({ certificatePem }) => certificatePem);
    },
    leaf,
    gatewayLeaf: () => leaf(MESH_GATEWAY),
    chain: (service, overrides = {}) =>
      madeAt(memory.chain(JSON.stringify([service, overrides])), entries, (former) => {
        const chain = compileChain(entries, service, host.datacenter, overrides);
        // Most changes of config entries change few chains.
        return former !== undefined && isDeepStrictEqual(chain, former) ? former : chain;
      }),
    targetEndpoints: ({ service, subset, subsetDefinition }) => {
      const { filter = "", onlyPassing = false } = subsetDefinition;
      const index = (): bigint => host.gateways.connectIndex(service);
      depend(`connect ${lowerCase(service)}`, index);
      const key = JSON.stringify([service, subset === "" ? "" : filter, onlyPassing]);
      return madeInSteps(memory.endpoints(key), index(), function* () {
        const all = Array.from(host.gateways.connectInstances(service));
        return endpointsOf(subset === "" ? all : yield* filtered(all, filter), "lan", onlyPassing);
      });
    },
    meshServices: () => {
      const index = (): bigint => catalog.index.services;
      depend("services", index);
      return madeAt(memory.meshServices, index(), () => {
        const found: string[] = [];
        for (const { name, connectEnabled } of catalog.kinds().values()) if (connectEnabled) found.push(name);
        return found.sort(compareUtf8);
      });
    },
    localGateways: () => {
      const gateways = (): readonly ServiceInstance[] => host.exports.meshGateways;
      depend("gateways", gateways);
      return madeAt(memory.gateways, gateways(), () => endpointsOf(gateways(), "lan"));
    },
    exposedChecks: (node, serviceId) => {
      if (lowerCase(node) !== lowerCase(host.nodeName)) return undefined;
      const read = (): readonly CheckAtProxy[] =>
        host.checks.exposed(serviceId).map((check) => {
          if ("problem" in check) return check;
          const { path, protocol, localPort } = check.target;
          return { checkId: check.checkId, path, protocol, localPort, listenerPort: check.port };
        });
      depend(`exposed ${lowerCase(serviceId)}`, () => JSON.stringify(read()));
      return read();
    },
    hasIpv6: () => Object.values(networkInterfaces()).some((all) => all?.some(({ family }) => family === "IPv6")),
    servers: () => {
      depend("servers", () => catalog.index.service(SERVERS));
      return catalog.instances(SERVERS);
    },
    bundle: (peer) => {
      depend(`bundle ${lowerCase(peer)}`, () => host.view.trustBundleIndex(peer));
      return host.view.trustBundle(peer);
    },
    bundles: () => {
      depend("bundles", () => host.view.trustBundlesIndex);
      return host.view.trustBundles();
    },
    bundlesReaching: (service) => {
      depend("bundles", () => host.view.trustBundlesIndex);
      depend(`reaching ${lowerCase(service)}`, () => host.exports.peersReaching(service).join());
      return bundlesOf(host.exports.peersReaching(service));
    },
    imported: parts.imported,
    mayDial: (peer, address) => host.view.mayDial(peer, address),
    importedServices: (peer) => {
      const index = (): bigint => host.imports.index({ peer });
      depend(`imports ${lowerCase(peer)}`, index);
      return madeAt(memory.importedNames(lowerCase(peer)), index(), () =>
        host.imports
          .services({ peer })
          .flatMap(({ name }) => (name.endsWith(SIDECAR_SUFFIX) ? [name.slice(0, -SIDECAR_SUFFIX.length)] : []))
          .sort(compareUtf8),
      );
    },
    exported: () => {
      depend("exported", () => `${parts.exportsMark()} ${host.view.index} ${host.exports.resolvedIndex}`);
      return exportedServices(host);
    },
    peerServers: () => {
      depend("peerings", () => host.view.index);
      return host.view.peerings().flatMap((peering): readonly PeerServers[] => {
        if (!shouldDial(peering)) return [];
        return [
          { serverName: peering.peerServerName, addresses: addressesToDial(peering), index: peering.modifyIndex },
        ];
      });
    },
    virtualIp: (service, peer) => {
      depend("virtual addresses", () => catalog.index.virtualIps);
      return catalog.virtualIp(service, peer);
    },
  };
}

/**
 * Computes something from the present view of a host, as often as it takes until all imports that it looks at are read. Nothing in it may depend on
 * certificates, which the view has none of.
 */
export async function computed<Result>(
  host: PeeringHost,
  { allowsByDefault }: Pick<HostViewParts, "allowsByDefault">,
  compute: (view: MeshView) => Result,
): Promise<Result> {
  const known = new Map<string, readonly ServiceInstance[]>();
  const endpoints = new Map<string, Endpoints>();
  for (;;) {
    const wanted = new Map<string, { readonly peer: string; readonly service: string }>();
    const unfiltered = new Map<string, Steps<Endpoints>>();
    const view = hostView(host, {
      allowsByDefault,
      depend: () => {},
      exportsMark: () => 0,
      leaf: () => "it is not looked at",
      imported: (peer, service) => {
        const key = `${lowerCase(peer)} ${lowerCase(service)}`;
        const instances = known.get(key);
        if (instances === undefined) wanted.set(key, { peer, service });
        return instances;
      },
    });
    const result = compute({
      ...view,
      targetEndpoints: (target) => {
        const key = JSON.stringify([target.service, target.subset, target.subsetDefinition]);
        const found = endpoints.get(key);
        if (found === undefined) unfiltered.set(key, view.targetEndpoints(target));
        return atOnce(found ?? NOWHERE);
      },
    });
    if (wanted.size + unfiltered.size === 0) return result;
    // A filter may take long for many instances.
    for (const [key, steps] of unfiltered) endpoints.set(key, await inTurns(steps));
    for (const [key, { peer, service }] of wanted) {
      known.set(key, speakersFor(service, await host.imports.instances({ peer, service: sidecarName(service) })));
    }
  }
}

const NOWHERE: Endpoints = { list: [], hostnames: false };

function exportedServices(host: PeeringHost): readonly ExportedMeshService[] {
  const found = new Map<string, string[]>();
  for (const { name, state } of host.view.peerings()) {
    if (state === "deleting" || state === "terminated") continue;
    for (const service of host.exports.forPeer(name)) {
      const peers = found.get(service);
      if (peers === undefined) found.set(service, [name]);
      else peers.push(name);
    }
  }
  return [...found].map(([service, peers]) => ({ service, peers: peers.sort(compareUtf8) }));
}

/** The name that the servers of a cluster are registered under. */
const SERVERS = "consul";

/** Weight of a filter in a step: of an instance, and characters that take as long as one field. */
const INSTANCE_SIZE = 20;
const FIELD_CHARACTERS = 4;

/** Those that a subset has, found in steps. A filter that cannot be understood has none: its calls must not reach others. */
function* filtered(instances: readonly ServiceInstance[], expression: string): Steps<readonly ServiceInstance[]> {
  if (expression === "") return instances;
  try {
    const filter = compileFilter(expression, instanceFields);
    const indexes = { createIndex: 0n, modifyIndex: 0n };
    const indexed = (check: Check): IndexedCheck => ({ ...check, ...indexes });
    // One for all instances that share it.
    const groups = new Map<CheckGroup, CheckGroup<IndexedCheck>>();
    const indexedGroup = (group: CheckGroup): CheckGroup<IndexedCheck> => {
      const known = groups.get(group) ?? group.map(indexed);
      groups.set(group, known);
      return known;
    };
    const holds = (instance: ServiceInstance): boolean => {
      const { node, service } = instance;
      const fields = { peer: "", node: { ...node, ...indexes }, service: { ...service, ...indexes } };
      const held = groupsOf(instance);
      if (held === undefined) return filter.holds({ ...fields, checks: instance.checks.map(indexed) });
      const { ofNode, own } = held;
      return filter.holds(withGroups(fields, { ofNode: indexedGroup(ofNode), own: own.map(indexed) }));
    };
    const found: ServiceInstance[] = [];
    const meter = new StepMeter();
    for (const instance of instances) {
      if (meter.isOver(INSTANCE_SIZE + expression.length / FIELD_CHARACTERS)) yield;
      if (holds(instance)) found.push(instance);
    }
    return found;
  } catch {
    return [];
  }
}
