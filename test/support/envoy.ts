import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { splitHostPort } from "../../src/base/host-port.js";

/** The program of Envoy, or why there is none. */
export const envoyProgram: { readonly path: string } | { readonly missing: string } = process.env["ENVOY_BIN"]
  ? { path: process.env["ENVOY_BIN"] }
  : { missing: "ENVOY_BIN names no program of Envoy" };

/** Skips tests that need Envoy, with the reason. */
export const withoutEnvoy: string | false = "missing" in envoyProgram ? envoyProgram.missing : false;

/** Ports that were free a moment ago, all of them different. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => {
    const address = server.address();
    if (address === null || typeof address === "string") throw new TypeError("a listener has a port");
    return address.port;
  });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** A counter or gauge that an Envoy shows at the URL `admin`; 0 where there is none of the name. */
export async function statisticOf(admin: string, name: string): Promise<number> {
  const response = await fetch(`${admin}/stats?filter=${encodeURIComponent(`^${name.replaceAll(".", "\\.")}$`)}`);
  return Number((await response.text()).split(": ")[1] ?? 0);
}

/** An Envoy as `consul connect envoy` starts one. */
export class RunningEnvoy implements AsyncDisposable {
  readonly id: string;
  readonly #child: ChildProcess;
  readonly #admin: string;
  #log = "";

  private constructor(id: string, child: ChildProcess, admin: string) {
    this.id = id;
    this.#child = child;
    this.#admin = admin;
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
  }

  static async start(options: {
    readonly id: string;
    /** Of the server of the discovery service. */
    readonly xds: string;
    readonly adminPort: number;
    readonly directory: string;
    readonly token?: string;
  }): Promise<RunningEnvoy> {
    if ("missing" in envoyProgram) throw new TypeError(envoyProgram.missing);
    const { id, adminPort, directory } = options;
    const path = join(directory, `${adminPort}.json`);
    await writeFile(path, JSON.stringify(bootstrap(options)));
    // A change of rules holds for a connection that stands after one more request, and not within ten minutes.
    const drain = ["--drain-strategy", "immediate"];
    const args = ["-c", path, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning", ...drain];
    const child = spawn(envoyProgram.path, args, { stdio: ["ignore", "ignore", "pipe"] });
    await once(child, "spawn");
    return new RunningEnvoy(id, child, `http://127.0.0.1:${adminPort}`);
  }

  /** Whether it has been told all that it asked for. */
  async isReady(): Promise<boolean> {
    try {
      const response = await fetch(`${this.#admin}/ready`);
      return response.ok;
    } catch {
      if (this.#child.exitCode !== null) throw new Error(`Envoy ${this.id} has ended: ${this.#log.slice(-2_000)}`);
      return false;
    }
  }

  /** A counter or gauge; 0 where there is none of the name. */
  statistic(name: string): Promise<number> {
    return statisticOf(this.#admin, name);
  }

  /** Has it end its connections, each after one more request, while it goes on to take new ones. */
  async drain(): Promise<void> {
    await fetch(`${this.#admin}/drain_listeners?graceful`, { method: "POST" });
  }

  /** The serial numbers of the certificates that it shows. */
  async leafSerials(): Promise<readonly string[]> {
    const response = await fetch(`${this.#admin}/certs`);
    const { certificates = [] } = (await response.json()) as {
      readonly certificates?: readonly { readonly cert_chain?: readonly { readonly serial_number: string }[] }[];
    };
    return certificates.flatMap(({ cert_chain: [leaf] = [] }) => leaf?.serial_number ?? []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}

/** Patterns as long as Consul's bootstraps allow them: those of forwarded callers are longer than Envoy takes by itself. */
export const patternRuntime: object = {
  layers: [{ name: "base", static_layer: { "re2.max_program_size.error_level": 1_048_576 } }],
};

function bootstrap(options: {
  readonly id: string;
  readonly xds: string;
  readonly adminPort: number;
  readonly token?: string;
}): object {
  const { id, xds, adminPort, token = "" } = options;
  const { host = "", port = 0 } = splitHostPort(xds) ?? {};
  const ads = { ads: {}, initial_fetch_timeout: "0s", resource_api_version: "V3" };
  const http2 = {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    explicit_http_config: { http2_protocol_options: {} },
  };
  return {
    admin: { address: { socket_address: { address: "127.0.0.1", port_value: adminPort } } },
    node: { id, cluster: id, metadata: { namespace: "default", partition: "default" } },
    layered_runtime: patternRuntime,
    static_resources: {
      clusters: [
        {
          name: "local_agent",
          connect_timeout: "1s",
          type: "STATIC",
          typed_extension_protocol_options: { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2 },
          load_assignment: {
            cluster_name: "local_agent",
            endpoints: [
              { lb_endpoints: [{ endpoint: { address: { socket_address: { address: host, port_value: port } } } }] },
            ],
          },
        },
      ],
    },
    dynamic_resources: {
      lds_config: ads,
      cds_config: ads,
      ads_config: {
        api_type: "DELTA_GRPC",
        transport_api_version: "V3",
        grpc_services: {
          initial_metadata: [{ key: "x-consul-token", value: token }],
          envoy_grpc: { cluster_name: "local_agent" },
        },
      },
    },
  };
}

/** Whether Envoy takes a configuration; rejects with what it says against it. */
export async function validate(configuration: object, directory: string): Promise<void> {
  if ("missing" in envoyProgram) throw new TypeError(envoyProgram.missing);
  const path = join(directory, "validated.json");
  await writeFile(path, JSON.stringify(configuration));
  await promisify(execFile)(envoyProgram.path, ["--mode", "validate", "-c", path, "-l", "error"]);
}
