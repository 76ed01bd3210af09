import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { splitHostPort } from "../base/host-port.js";
import type { PeeringHost } from "../host/host.js";
import { FOLLOWED_VERSION } from "../http/index.js";
import { MEMBERSHIP_CHECK } from "../model/health.js";
import { lowerCase } from "../syntax/names.js";

/** Addresses that mean every interface, and lead nowhere. */
const EVERYWHERE: readonly string[] = ["0.0.0.0", "::", ""];

/** An id that stays for as long as the node has its name, without being stored. */
function nodeIdOf(trustDomain: string, node: string): string {
  const hex = createHash("sha256")
    .update(`${trustDomain}/${lowerCase(node)}`)
    .digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}

export interface ServerNode {
  readonly node: string;
  /** Where peers reach it, as its tokens tell them; the first is its address. */
  readonly advertised: readonly string[];
  /** Undefined: made from the name. */
  readonly nodeId: string | undefined;
  readonly nodeMeta: Readonly<Record<string, string>>;
}

/**
 * Registers the agent as the one server of its cluster, as Consul registers each of its servers: catalogs list it, and DNS
 * names it as the domain's name server. It is never exported.
 * @throws {PeeringError} as `Catalog.register`.
 */
export async function registerServer(host: PeeringHost, server: ServerNode): Promise<void> {
  const { catalog } = host;
  const { node, advertised, nodeId, nodeMeta } = server;
  const place = splitHostPort(advertised[0] ?? host.listenAddress ?? "");
  const address = place === undefined || EVERYWHERE.includes(place.host) ? "127.0.0.1" : place.host;
  // Of a former life under another name.
  for (const instance of catalog.instances("consul")) {
    if (instance.node.name !== node && instance.service.id === "consul") {
      await catalog.deregister({ node: instance.node.name, serviceId: "consul" });
    }
  }
  const family = isIP(address);
  await catalog.register({
    node,
    id: nodeId ?? nodeIdOf(host.trustDomain, node),
    address,
    taggedAddresses: {
      lan: address,
      wan: address,
      ...(family === 0 ? {} : { [`lan_ipv${family}`]: address, [`wan_ipv${family}`]: address }),
    },
    nodeMeta: { ...nodeMeta, "consul-network-segment": "", "consul-version": FOLLOWED_VERSION },
    service: { id: "consul", name: "consul", port: splitHostPort(host.listenAddress ?? "")?.port ?? 0 },
    checks: [
      { checkId: MEMBERSHIP_CHECK, name: "Serf Health Status", status: "passing", output: "Agent alive and reachable" },
    ],
  });
}
