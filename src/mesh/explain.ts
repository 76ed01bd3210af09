import { PeeringError } from "../base/errors.js";
import { withCentralConfig } from "../config/central-config.js";
import type { IntentionAction } from "../config/intentions.js";
import type { PeeringHost } from "../host/host.js";
import { MESH_GATEWAY } from "../host/leaf-certificates.js";
import type { ConnectionExplanation, ConnectionQuestion } from "../model/connection-explanation.js";
import { lowerCase } from "../syntax/names.js";
import { normalizedTarget } from "./connect/request-path.js";
import { computed } from "./host-view.js";
import { type ConnectionFacts, explain } from "./snapshot/explain.js";
import { upstreamsOf } from "./snapshot/settings.js";

export interface ExplainConnectionOptions extends ConnectionQuestion {
  /** The decision on callers that no intention names. Default `deny`, as that of `meshListener`. */
  readonly defaultIntention?: IntentionAction;
}

/**
 * Whether a service reaches another through the mesh, and the first thing that keeps it from it: a service of this cluster one of a peer (`peer`) or of
 * this cluster, or a service of a peer (`sourcePeer`) one of this cluster. By the same decisions as proxies and programs of this host; of
 * what the other cluster decides it says that only that one knows. It connects to nothing, and issues nothing.
 * @throws {PeeringError} `invalid-argument`: a name is missing, both ends belong to peers, or the path is none.
 */
export async function explainConnection(
  host: PeeringHost,
  options: ExplainConnectionOptions,
): Promise<ConnectionExplanation> {
  const { source, destination, method, path, defaultIntention = "deny" } = options;
  const known = (name = ""): string => host.view.peering(name)?.name ?? name;
  const peer = known(options.peer);
  const sourcePeer = known(options.sourcePeer);
  if (source === "" || destination === "") throw invalid("a connection has a source and a destination");
  if (peer !== "" && sourcePeer !== "") {
    throw invalid("calls from one peer to another do not come through this cluster: one of both belongs to it");
  }
  const target = path === undefined ? undefined : normalizedTarget(path);
  if (path !== undefined && target === undefined) throw invalid(`${JSON.stringify(path)} is no path of a request`);
  const question: ConnectionQuestion = {
    ...options,
    peer,
    sourcePeer,
    ...(method !== undefined && { method: method.toUpperCase() }),
    ...(target !== undefined && { path: target.path }),
  };
  const facts = factsOf(host);
  return await computed(host, { allowsByDefault: defaultIntention === "allow" }, (view) =>
    explain(view, facts, question),
  );
}

function factsOf(host: PeeringHost): ConnectionFacts {
  return {
    peeringState: (peer) => host.peerings.read(peer)?.state,
    exportOf: (service, peer) => host.exports.explain(service, peer),
    peersReaching: (service) => host.exports.peersReaching(service),
    isImported: (peer, service) =>
      host.imports.services({ peer }).some(({ name }) => lowerCase(name) === lowerCase(service)),
    certificateProblem: (service) => host.leafCertificates.problem(service ?? MESH_GATEWAY),
    meshGateways: () => host.exports.meshGateways,
    registeredUpstreams: (service) =>
      [...host.gateways.connectInstances(service)]
        .filter((instance) => instance.service.kind === "connect-proxy")
        .flatMap((instance) => upstreamsOf(withCentralConfig(instance.service, host.configEntries.entries))),
  };
}

function invalid(message: string): PeeringError {
  return new PeeringError("invalid-argument", message);
}
