import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ConsulClient } from "../src/client/index.js";
import { asObject, parseJson, textOf } from "../src/client/json-reader.js";
import type { Cluster } from "./cluster.js";
import type { Child, Processes } from "./processes.js";
import { settles } from "./settles.js";

/** A busy machine compiles it first. */
const STARTING_MS = 90_000;

export interface OurAgentOptions {
  /** Default `peerage`: what the other side calls it. */
  readonly name?: string;
  /** Default `ours`. */
  readonly datacenter?: string;
  /** More flags of the agent. */
  readonly flags?: readonly string[];
  /** Configuration in the words of Consul's, in HCL. Default: none. */
  readonly hcl?: string;
}

/** The program `peerage`, as arguments of Node. */
export function ourProgram(): readonly string[] {
  // As compiled, this file lies one folder deeper, and the program in the package.
  const compiled = import.meta.url.endsWith(".js");
  const program = new URL(compiled ? "../../dist/cli/main.js" : "../src/cli/main.ts", import.meta.url);
  return [...process.execArgv, fileURLToPath(program)];
}

/** A host of ours in a process of its own, as `peerage agent` runs it: one that can be killed. */
export class OurAgent implements Cluster, AsyncDisposable {
  readonly name: string;
  readonly datacenter: string;
  readonly client: ConsulClient;
  readonly #flags: readonly string[];
  readonly #hcl: string;
  readonly #processes: Processes;
  readonly #directory: string;
  readonly #ports: readonly number[];
  #child: Child | undefined;

  private constructor(
    processes: Processes,
    directory: string,
    ports: readonly number[],
    { name = "peerage", datacenter = "ours", flags = [], hcl = "" }: OurAgentOptions,
  ) {
    this.name = name;
    this.datacenter = datacenter;
    this.#flags = flags;
    this.#hcl = hcl;
    this.#processes = processes;
    this.#directory = directory;
    this.#ports = ports;
    this.client = new ConsulClient({ address: this.http });
  }

  static async start(processes: Processes, options: OurAgentOptions = {}): Promise<OurAgent> {
    const directory = await mkdtemp(join(tmpdir(), "peerage-interop-"));
    const agent = new OurAgent(processes, directory, await processes.ports(3), options);
    await agent.start();
    return agent;
  }

  get http(): string {
    return `127.0.0.1:${this.#ports[0]}`;
  }

  /** `host:port` of its DNS. */
  get dns(): string {
    return `127.0.0.1:${this.#ports[2]}`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get output(): string {
    return this.#child?.output ?? "";
  }

  /** Runs it, again after its end, on the same data, until it answers. */
  async start(): Promise<void> {
    const file = join(this.#directory, "agent.hcl");
    await writeFile(file, this.#hcl);
    const child = this.#processes.start(process.execPath, [
      ...ourProgram(),
      ...["agent", "-datacenter", this.datacenter, "-node", "ours", "-data-dir", join(this.#directory, "data")],
      ...["-config-file", file],
      ...["-http", this.http, "-grpc-tls", `127.0.0.1:${this.#ports[1]}`, "-dns", this.dns, ...this.#flags],
    ]);
    this.#child = child;
    const answers = async (): Promise<void> => {
      if (child.running) await this.client.peerings.list();
    };
    await settles(answers, "the agent answers", STARTING_MS);
    if (!child.running) throw new Error(`the agent ended: ${child.output}`);
  }

  /** Not asked, and not told: what was not written by now is lost. */
  async kill(): Promise<void> {
    await this.#child?.end("SIGKILL");
  }

  async trustDomain(): Promise<string> {
    const answer = await fetch(`http://${this.http}/v1/connect/ca/roots`);
    return textOf(asObject(parseJson(await answer.text(), "roots"), "roots"), "TrustDomain");
  }

  async importedNames(peer: string): Promise<readonly string[]> {
    return Object.keys((await this.client.catalog.services({ peer })).value).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }
}
