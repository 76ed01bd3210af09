import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { ConsulServer } from "./consul.js";
import type { Child, Processes } from "./processes.js";
import { settles } from "./settles.js";

const run = promisify(execFile);

/** The Envoy to test with; undefined: there is none. */
export function envoyBinary(): string | undefined {
  const path = process.env["ENVOY_BIN"];
  return path === "" ? undefined : path;
}

/** An Envoy that Consul configures. */
export class Envoy implements AsyncDisposable {
  readonly name: string;
  readonly #child: Child;
  readonly #directory: string;

  private constructor(name: string, child: Child, directory: string) {
    this.name = name;
    this.#child = child;
    this.#directory = directory;
  }

  /**
   * Runs one once it listens at each of `ports`.
   * @param proxy - flags that name the proxy, such as `-sidecar-for web`.
   * @param grpcPort - where Consul serves xDS in plaintext.
   */
  static async start(
    processes: Processes,
    consul: ConsulServer,
    options: {
      readonly binary: string;
      readonly proxy: readonly string[];
      readonly grpcPort: number;
      readonly ports: readonly number[];
    },
  ): Promise<Envoy> {
    const { binary, proxy, grpcPort, ports } = options;
    const [admin = 0] = await processes.ports(1);
    const directory = await mkdtemp(join(tmpdir(), "peerage-envoy-"));
    const args = ["connect", "envoy", ...proxy, "-bootstrap", "-admin-bind", `127.0.0.1:${admin}`];
    const env = { PATH: process.env["PATH"], CONSUL_HTTP_ADDR: consul.http };
    const addresses = ["-http-addr", consul.http, "-grpc-addr", `127.0.0.1:${grpcPort}`];
    const { stdout } = await run(consul.binary.path, [...args, ...addresses], { env });
    const file = join(directory, "bootstrap.json");
    await writeFile(file, stdout);
    const child = processes.start(binary, ["-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
    const envoy = new Envoy(proxy.join(" "), child, directory);
    for (const port of ports) await settles(() => listens(port), `Envoy ${envoy.name} listens at ${port}`);
    return envoy;
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
