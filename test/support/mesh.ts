import { systemRandom } from "../../src/base/environment.js";
import { splitHostPort } from "../../src/base/host-port.js";
import type { PeeringHost } from "../../src/host/host.js";
import type { HostOptions } from "../../src/host/options.js";
import { type Cluster, eventually, peerThem, type TwoHosts, twoHosts } from "./hosts.js";
import { SniGateway } from "./sni-gateway.js";

/** Two peered hosts, with a mesh gateway in front of the one that exports. */
export interface MeshPair extends AsyncDisposable {
  readonly exporter: Cluster;
  readonly importer: Cluster;
  readonly gateway: SniGateway;
  /** Registers a service of the exporter at `address`, has the gateway lead to it, and waits until the importer knows. */
  offer(service: string, address: string): Promise<void>;
}

/** The server name by which `importer` reaches a service of `exporter`. */
export function serverName(service: string, exporter: PeeringHost, importerName: string): string {
  return `${service}.default.default.${importerName}.external.${exporter.trustDomain}`;
}

export async function registerGateway(host: PeeringHost, id: string, port: number): Promise<void> {
  await host.catalog.register({
    node: id,
    address: "127.0.0.1",
    service: { id, name: "mesh-gateway", kind: "mesh-gateway", port, address: "127.0.0.1" },
  });
}

export async function registerNative(host: PeeringHost, service: string, address: string): Promise<void> {
  const port = splitHostPort(address)?.port ?? 0;
  await host.catalog.register({
    node: "node-1",
    address: "127.0.0.1",
    service: { name: service, port, address: "127.0.0.1", connect: { native: true } },
  });
}

export async function meshPair(options: Partial<HostOptions> = {}): Promise<MeshPair> {
  // A rotation is followed at once, not at a random moment of the next 30 s.
  const hosts: TwoHosts = await twoHosts("memory", { random: { ...systemRandom, fraction: () => 0 }, ...options });
  const { acceptor: exporter, dialer: importer } = hosts;
  const gateway = await SniGateway.open();
  await peerThem(hosts);
  await registerGateway(exporter.host, "gateway-1", gateway.port);
  const consumers = [{ peer: importer.name }];
  return {
    exporter,
    importer,
    gateway,
    async offer(service, address) {
      await registerNative(exporter.host, service, address);
      gateway.routes.set(serverName(service, exporter.host, importer.name), address);
      const services = [...(exporter.host.exports.get()?.services ?? []), { name: service, consumers }];
      await exporter.host.exports.set({ services });
      const proxies = { peer: exporter.name, service: `${service}-sidecar-proxy` };
      await eventually(
        async () => (await importer.host.imports.instances(proxies)).length > 0,
        `${importer.name} imports ${service}`,
      );
      await eventually(
        () => exporter.host.view.trustBundle(importer.name) !== undefined,
        `${exporter.name} has the roots of ${importer.name}`,
      );
    },
    async [Symbol.asyncDispose]() {
      await gateway[Symbol.asyncDispose]();
      await hosts[Symbol.asyncDispose]();
    },
  };
}

/** Who may call a service of `host`. */
export async function intend(
  host: PeeringHost,
  destination: string,
  sources: readonly Readonly<Record<string, unknown>>[],
): Promise<void> {
  await host.configEntries.set({ kind: "service-intentions", name: destination, sources } as never);
}
