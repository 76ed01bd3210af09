import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LogFields, Logger } from "../src/base/environment.js";
import { ConsulClient } from "../src/client/index.js";
import { createHost, type PeeringHost } from "../src/host/host.js";
import type { HostOptions } from "../src/host/options.js";
import type { PeeringView } from "../src/host/peerings.js";
import { httpHandler } from "../src/http/index.js";
import { openLevel } from "../src/storage/level.js";
import { type GrpcTransportOptions, grpcTransport } from "../src/transport/grpc.js";
import type { CertificateAuthority } from "../src/trust/authority.js";
import { type BuiltInAuthority, builtInAuthority } from "../src/trust/built-in-authority.js";
import type { Cluster } from "./cluster.js";
import type { Processes } from "./processes.js";
import { present } from "./settles.js";

const KEPT_LINES = 200;
const KEEP_ALIVE_MS = 120_000;

/** How a host of ours differs from one with nothing but defaults. */
export interface OursOptions {
  readonly host?: Partial<Pick<HostOptions, "timings" | "limits" | "strictConsul" | "connect" | "transit">>;
  readonly transport?: Omit<GrpcTransportOptions, "listen">;
  readonly advertise?: readonly string[];
  /** The authority in place of the built-in one of this host. */
  readonly authority?: (own: BuiltInAuthority) => CertificateAuthority;
  /** Default `peerage`: what the other side calls it. */
  readonly name?: string;
}

interface Running {
  readonly host: PeeringHost;
  readonly authority: BuiltInAuthority;
  readonly api: Server;
}

/** A host of ours in this process: its data on disk, its peers over TLS, and Consul's HTTP API in front of it. */
export class Ours implements Cluster, AsyncDisposable {
  readonly name: string;
  readonly datacenter = "ours";
  readonly client: ConsulClient;
  readonly #directory: string;
  readonly #apiPort: number;
  readonly #lines: string[] = [];
  #options: OursOptions;
  #peerPort: number;
  #running: Running | undefined;

  private constructor(parts: { options: OursOptions; directory: string; apiPort: number; peerPort: number }) {
    this.name = parts.options.name ?? "peerage";
    this.#options = parts.options;
    this.#directory = parts.directory;
    this.#apiPort = parts.apiPort;
    this.#peerPort = parts.peerPort;
    this.client = new ConsulClient({ address: `127.0.0.1:${parts.apiPort}` });
  }

  static async start(processes: Processes, options: OursOptions = {}): Promise<Ours> {
    const [apiPort = 0, peerPort = 0] = await processes.ports(2);
    const directory = await mkdtemp(join(tmpdir(), "peerage-interop-"));
    const ours = new Ours({ options, directory, apiPort, peerPort });
    await ours.start();
    return ours;
  }

  get host(): PeeringHost {
    return present(this.#running, "host that runs").host;
  }

  get authority(): BuiltInAuthority {
    return present(this.#running, "host that runs").authority;
  }

  /** `host:port` on which it accepts peers. */
  get address(): string {
    return `127.0.0.1:${this.#peerPort}`;
  }

  /** Its last log lines. */
  get output(): string {
    return this.#lines.join("\n");
  }

  /** Our own view of a peering, with all its facts. @throws {Error} when there is none. */
  peering(name: string): PeeringView {
    return present(this.host.peerings.read(name), `peering ${name}`);
  }

  /** Runs it, again after a stop, on the same data; `peerPort` is where it accepts peers from now on. */
  async start(options: OursOptions = this.#options, peerPort: number = this.#peerPort): Promise<void> {
    this.#options = options;
    this.#peerPort = peerPort;
    const storage = await openLevel(join(this.#directory, "data"));
    const authority = await builtInAuthority({ storage });
    const host = await createHost({
      datacenter: this.datacenter,
      storage,
      authority: options.authority?.(authority) ?? authority,
      transport: grpcTransport({ listen: this.address, ...options.transport }),
      logger: this.#logger(),
      ...(options.advertise !== undefined && { advertise: options.advertise }),
      ...options.host,
    });
    // The process has much to do here: a connection must not end because nobody had the time to look at it.
    const api = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, httpHandler(host));
    api.listen(this.#apiPort, "127.0.0.1");
    await once(api, "listening");
    this.#running = { host, authority, api };
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    if (running === undefined) return;
    running.api.close();
    running.api.closeAllConnections();
    await running.host[Symbol.asyncDispose]();
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  async trustDomain(): Promise<string> {
    return this.host.trustDomain;
  }

  async importedNames(peer: string): Promise<readonly string[]> {
    const services = this.host.imports.services({ peer });
    return services.map(({ name }) => name).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    await this.stop();
    await rm(this.#directory, { recursive: true, force: true });
  }

  #logger(): Logger {
    const line = (level: string) => (message: string, fields?: LogFields) => {
      this.#lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
      if (this.#lines.length > KEPT_LINES) this.#lines.shift();
    };
    return { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };
  }
}
