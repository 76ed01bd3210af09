import { systemRandom } from "../../src/base/environment.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import type { HostOptions } from "../../src/host/options.js";
import { type XdsServer, type XdsServerOptions, xdsServer } from "../../src/mesh/index.js";
import type { Registration } from "../../src/model/registration.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { freePorts } from "./envoy.js";
import { borrowed } from "./hosts.js";

export interface EnvoyClusterOptions {
  readonly host?: Partial<HostOptions>;
  readonly xds?: Partial<XdsServerOptions>;
}

interface Running {
  readonly host: PeeringHost;
  readonly xds: XdsServer;
}

/** A host with a server for its Envoys, where nobody may call anybody unless an intention says so. */
export class EnvoyCluster implements AsyncDisposable {
  readonly #begin: () => Promise<Running>;
  #running: Running;

  private constructor(running: Running, begin: () => Promise<Running>) {
    this.#running = running;
    this.#begin = begin;
  }

  static async open(datacenter: string, options: EnvoyClusterOptions = {}): Promise<EnvoyCluster> {
    const [peers = 0, proxies = 0] = await freePorts(2);
    // Outlives the host, as a disk does.
    const disk = memoryStorage();
    const begin = async (): Promise<Running> => {
      const host = await createHost({
        datacenter,
        storage: borrowed(disk),
        transport: grpcTransport({ listen: `127.0.0.1:${peers}` }),
        nodeName: NODE.node,
        // A rotation is followed at once, not at a random moment of the next 30 s.
        random: { ...systemRandom, fraction: () => 0 },
        ...options.host,
      });
      const listen = `127.0.0.1:${proxies}`;
      return { host, xds: await xdsServer(host, { listen, defaultIntentionPolicy: "deny", ...options.xds }) };
    };
    return new EnvoyCluster(await begin(), begin);
  }

  get host(): PeeringHost {
    return this.#running.host;
  }

  get xds(): XdsServer {
    return this.#running.xds;
  }

  /** Ends the host and its server, and begins others on the same data and addresses: peers and proxies connect again. */
  async restart(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#running = await this.#begin();
  }

  /** Whether so many proxies are connected, and have taken all that they are to know. */
  hasTold(proxies: number): boolean {
    const shown = this.xds.proxies();
    return (
      shown.length === proxies && shown.every(({ missing, unanswered }) => missing.length + unanswered.length === 0)
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.xds.close();
    await this.host.close();
  }
}

const NODE = { node: "n1", address: "127.0.0.1" };

/** Registers a service with its sidecar, whose id is `<name>-sidecar-proxy`. */
export async function addService(
  { host }: EnvoyCluster,
  name: string,
  ports: { readonly app: number; readonly proxy: number },
  upstreams: readonly object[] = [],
  more: NonNullable<NonNullable<Registration["service"]>["proxy"]> = {},
): Promise<void> {
  await host.catalog.register({ ...NODE, service: { name, port: ports.app } });
  const proxy = { destinationServiceName: name, localServicePort: ports.app, upstreams: upstreams as never, ...more };
  const id = `${name}-sidecar-proxy`;
  await host.catalog.register({ ...NODE, service: { kind: "connect-proxy", id, name: id, port: ports.proxy, proxy } });
}

/** Registers a mesh gateway. */
export async function addGateway({ host }: EnvoyCluster, port: number, id = "gateway"): Promise<void> {
  const place = { address: "127.0.0.1", port };
  await host.catalog.register({
    ...NODE,
    service: { kind: "mesh-gateway", id, name: "gateway", ...place, taggedAddresses: { lan: place, wan: place } },
  });
}

/** Says whether the sidecar of a service, or a gateway, is well. */
export async function sayWell({ host }: EnvoyCluster, serviceId: string, well: boolean): Promise<void> {
  const status = well ? "passing" : "critical";
  await host.catalog.register({ ...NODE, checks: [{ checkId: `${serviceId}-said`, name: "said", status, serviceId }] });
}
