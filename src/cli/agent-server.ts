import type { PeeringHost } from "../host/host.js";
import { splitHostPort } from "../token/address.js";

/** Addresses that mean every interface, and lead nowhere. */
const EVERYWHERE: readonly string[] = ["0.0.0.0", "::", ""];

/**
 * Registers the agent as the one server of its cluster, as Consul registers each of its servers: catalogs list it, and DNS
 * names it as the domain's name server. It is never exported.
 * @param advertised - where peers reach it, as its tokens tell them; the first is its address.
 * @throws {PeeringError} as `Catalog.register`.
 */
export async function registerServer(host: PeeringHost, node: string, advertised: readonly string[]): Promise<void> {
  const { catalog } = host;
  const place = splitHostPort(advertised[0] ?? host.listenAddress ?? "");
  const address = place === undefined || EVERYWHERE.includes(place.host) ? "127.0.0.1" : place.host;
  // Of a former life under another name.
  for (const instance of catalog.instances("consul")) {
    if (instance.node.name !== node && instance.service.id === "consul") {
      await catalog.deregister({ node: instance.node.name, serviceId: "consul" });
    }
  }
  await catalog.register({
    node,
    address,
    taggedAddresses: { lan: address, wan: address },
    service: { id: "consul", name: "consul", port: splitHostPort(host.listenAddress ?? "")?.port ?? 0 },
    checks: [
      { checkId: "serfHealth", name: "Serf Health Status", status: "passing", output: "Agent alive and reachable" },
    ],
  });
}
