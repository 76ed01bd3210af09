import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { statisticOf } from "../test/support/envoy.js";
import type { Child, Processes } from "./processes.js";
import { settles } from "./settles.js";

const run = promisify(execFile);

/** The Envoy to test with; undefined: there is none. */
export function envoyBinary(): string | undefined {
  const path = process.env["ENVOY_BIN"];
  return path === "" ? undefined : path;
}

/** An Envoy with the bootstrap of Consul's command line, told the rest by a Consul or by an agent of ours. */
export class Envoy implements AsyncDisposable {
  readonly name: string;
  readonly #child: Child;
  readonly #directory: string;
  readonly #admin: string;

  private constructor(name: string, child: Child, directory: string, admin: string) {
    this.name = name;
    this.#child = child;
    this.#directory = directory;
    this.#admin = admin;
  }

  /**
   * Runs one once it listens at each of `ports`.
   * @param options.consul - the program of Consul.
   * @param options.http - of the agent at which the proxy is registered.
   * @param options.proxy - flags that name the proxy, such as `-sidecar-for web`.
   * @param options.grpcPort - where xDS is served in plaintext.
   */
  static async start(
    processes: Processes,
    options: {
      readonly binary: string;
      readonly consul: string;
      readonly http: string;
      readonly proxy: readonly string[];
      readonly grpcPort: number;
      readonly ports: readonly number[];
    },
  ): Promise<Envoy> {
    const { binary, consul, http, proxy, grpcPort, ports } = options;
    const [port = 0] = await processes.ports(1);
    const admin = `127.0.0.1:${port}`;
    const directory = await mkdtemp(join(tmpdir(), "peerage-envoy-"));
    const args = ["connect", "envoy", ...proxy, "-bootstrap", "-admin-bind", admin];
    const env = { PATH: process.env["PATH"], CONSUL_HTTP_ADDR: http };
    const addresses = ["-http-addr", http, "-grpc-addr", `127.0.0.1:${grpcPort}`];
    const { stdout } = await run(consul, [...args, ...addresses], { env });
    const file = join(directory, "bootstrap.json");
    await writeFile(file, stdout);
    const child = processes.start(binary, ["-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
    const envoy = new Envoy(proxy.join(" "), child, directory, admin);
    for (const each of ports) await settles(() => listens(each), `Envoy ${envoy.name} listens at ${each}`);
    return envoy;
  }

  /** A counter or gauge; 0 where there is none of the name. */
  statistic(name: string): Promise<number> {
    return statisticOf(`http://${this.#admin}`, name);
  }

  /** The end of what it printed. */
  get output(): string {
    return this.#child.output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.end("SIGKILL");
    await rm(this.#directory, { recursive: true, force: true });
  }
}

async function listens(port: number): Promise<void> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
  } finally {
    socket.destroy();
  }
}
