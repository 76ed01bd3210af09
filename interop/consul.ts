import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { promisify } from "node:util";
import { ConsulClient } from "../src/client/index.js";
import {
  asList,
  asObject,
  type Json,
  type JsonObject,
  numberOf,
  parseJson,
  textOf,
} from "../src/client/json-reader.js";
import type { Cluster } from "./cluster.js";
import type { Child, Processes } from "./processes.js";
import { settles } from "./settles.js";

const run = promisify(execFile);

/** Consul 1.13, which speaks another profile of the protocol, or a later one. */
export type Band = "legacy" | "modern";

/** A program to test with. */
export interface ConsulBinary {
  readonly path: string;
  /** Such as `1.21.4` or `2.1.0-dev`. */
  readonly version: string;
  readonly band: Band;
}

/** @throws {Error} when `path` is no Consul. */
export async function consulBinary(path: string): Promise<ConsulBinary> {
  const { stdout } = await run(path, ["version"]);
  const [, version] = /^Consul v(\d+\.\d+\.\d+(?:-(?:dev|rc\d+))?)/.exec(stdout) ?? [];
  if (version === undefined) throw new Error(`${path} does not say which Consul it is`);
  return { path, version, band: isBefore(version, "1.14.0") ? "legacy" : "modern" };
}

/** Whether `version` came out before `other`, both as Consul writes them. What precedes a release counts as the release. */
export function isBefore(version: string, other: string): boolean {
  const [left, right] = [numbersOf(version), numbersOf(other)];
  const differs = left.findIndex((number, index) => number !== right[index]);
  return (left[differs] ?? 0) < (right[differs] ?? 0);
}

function numbersOf(version: string): readonly number[] {
  return version.replace(/-.*/, "").split(".").map(Number);
}

export interface ConsulOptions {
  /** Default `consul`: what the other side calls it. */
  readonly name?: string;
  /** Default `dc1`. */
  readonly datacenter?: string;
  /** Default: a server in development mode, which forgets everything when it ends. With data it can be started again. */
  readonly durable?: boolean;
  /** More configuration, in HCL. */
  readonly hcl?: string;
  /** More flags of the agent. */
  readonly flags?: readonly string[];
  /** How many servers make the cluster. Default 1. */
  readonly expect?: number;
  /** Addresses of servers to join. */
  readonly join?: readonly string[];
}

interface Ports {
  readonly http: number;
  readonly dns: number;
  readonly grpc: number;
  readonly server: number;
  readonly lan: number;
  readonly wan: number;
}

/** A server of a real Consul on 127.0.0.1. */
export class ConsulServer implements Cluster, AsyncDisposable {
  readonly name: string;
  readonly datacenter: string;
  readonly node: string;
  readonly binary: ConsulBinary;
  readonly client: ConsulClient;
  readonly ports: Ports;
  readonly #processes: Processes;
  readonly #options: ConsulOptions;
  readonly #directory: string;
  #grpcPort: number;
  #child: Child | undefined;

  private constructor(
    parts: Pick<ConsulServer, "binary" | "ports"> & { processes: Processes; options: ConsulOptions; directory: string },
  ) {
    const { binary, ports, processes, options, directory } = parts;
    this.binary = binary;
    this.ports = ports;
    this.name = options.name ?? "consul";
    this.datacenter = options.datacenter ?? "dc1";
    this.node = `server-${ports.http}`;
    this.client = new ConsulClient({ address: this.http });
    this.#processes = processes;
    this.#options = options;
    this.#directory = directory;
    this.#grpcPort = ports.grpc;
  }

  /** A server that runs; whether it leads is asked with {@link ConsulServer.ready}. */
  static async start(processes: Processes, binary: ConsulBinary, options: ConsulOptions = {}): Promise<ConsulServer> {
    const [http = 0, dns = 0, grpc = 0, server = 0, lan = 0, wan = 0] = await processes.ports(6);
    const directory = await mkdtemp(join(tmpdir(), "peerage-interop-"));
    const ports = { http, dns, grpc, server, lan, wan };
    const started = new ConsulServer({ binary, ports, processes, options, directory });
    started.start();
    return started;
  }

  /** `host:port` of its HTTP API. */
  get http(): string {
    return `127.0.0.1:${this.ports.http}`;
  }

  /** `host:port` on which it accepts peers. */
  get grpc(): string {
    return `127.0.0.1:${this.#grpcPort}`;
  }

  /** `host:port` of its DNS. */
  get dns(): string {
    return `127.0.0.1:${this.ports.dns}`;
  }

  /** Where other servers of its cluster join it. */
  get lan(): string {
    return `127.0.0.1:${this.ports.lan}`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** The end of what it printed. */
  get output(): string {
    return this.#child?.output ?? "";
  }

  /** Runs it, again after a stop. `grpcPort` is the port for peers from now on. */
  start(grpcPort: number = this.#grpcPort): void {
    this.#grpcPort = grpcPort;
    const { hcl, flags, expect, join: others, durable } = this.#options;
    const { http, dns, server, lan, wan } = this.ports;
    const peers = this.binary.band === "legacy" ? `grpc = ${grpcPort}` : `grpc = -1, grpc_tls = ${grpcPort}`;
    const mode =
      durable === true || expect !== undefined
        ? ["-server", `-bootstrap-expect=${expect ?? 1}`, "-data-dir", this.#directory]
        : ["-dev"];
    const configuration = [
      `ports { http = ${http}, dns = ${dns}, server = ${server}, serf_lan = ${lan}, serf_wan = ${wan}, ${peers} }`,
      "connect { enabled = true }",
      "performance { raft_multiplier = 1 }",
      "disable_update_check = true",
      'log_level = "info"',
      ...(this.binary.band === "legacy" ? ["peering { enabled = true }"] : []),
      ...(hcl === undefined ? [] : [hcl]),
    ];
    this.#child = this.#processes.start(
      this.binary.path,
      [
        ...["agent", ...mode, "-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", this.node],
        ...["-datacenter", this.datacenter, ...(flags ?? [])],
        ...configuration.flatMap((text) => ["-hcl", text]),
        ...(others ?? []).flatMap((address) => ["-retry-join", address, "-retry-interval", "1s"]),
      ],
      // Variables of the environment for another Consul are not for this one.
      { PATH: process.env["PATH"], HOME: this.#directory },
    );
  }

  /** Resolves once its cluster has a leader that can generate tokens. @param withinMs - as of {@link settles}. */
  async ready(withinMs?: number): Promise<this> {
    await settles(
      async () => {
        if (this.#child?.running !== true) throw new Error(`Consul ended:\n${this.output.slice(-2_000)}`);
        if ((await this.get("/v1/status/leader")) === "") throw new Error("no leader");
        if ((await this.trustDomain()) === "") throw new Error("no certificate authority");
        const { value } = await this.client.catalog.service("consul");
        if (value.length === 0) throw new Error("the server is not in the catalog");
        // Tokens can be had before the certificate is there that their users will ask for.
        if (this.binary.band === "modern") await this.#showsCertificate();
      },
      "Consul is ready",
      withinMs,
    );
    return this;
  }

  async #showsCertificate(): Promise<void> {
    const servername = `server.${this.datacenter}.peering.${await this.trustDomain()}`;
    const socket = connect({ host: "127.0.0.1", port: this.#grpcPort, servername, rejectUnauthorized: false });
    try {
      await once(socket, "secureConnect");
    } finally {
      socket.destroy();
    }
  }

  /** Of the cluster, as the leader's address for its own kind. */
  async leader(): Promise<string> {
    const leader = await this.get("/v1/status/leader");
    return typeof leader === "string" ? leader : "";
  }

  get leads(): Promise<boolean> {
    return this.leader().then((leader) => leader.endsWith(`:${this.ports.server}`));
  }

  /** An endpoint that the client has no call for. */
  get(path: string): Promise<Json> {
    return this.#request("GET", path);
  }

  put(path: string, body?: JsonObject): Promise<Json> {
    return this.#request("PUT", path, body);
  }

  /** Consul's command line, talking to this server; what it printed. */
  async command(...args: readonly string[]): Promise<string> {
    const env = { PATH: process.env["PATH"], CONSUL_HTTP_ADDR: this.http };
    const { stdout } = await run(this.binary.path, args, { env });
    return stdout;
  }

  async trustDomain(): Promise<string> {
    return textOf(asObject(await this.get("/v1/connect/ca/roots"), "roots"), "TrustDomain");
  }

  async importedNames(peer: string): Promise<readonly string[]> {
    // The one list of imported services that every version has.
    const services = asList(await this.get("/v1/internal/ui/services"), "services").map((one) =>
      asObject(one, "service"),
    );
    // A service that can only be reached through its proxies is listed, too, with no instance of its own.
    const imported = services.filter(
      (service) => textOf(service, "PeerName") === peer && numberOf(service, "InstanceCount") > 0,
    );
    return imported.map((service) => textOf(service, "Name")).sort();
  }

  /** Stops the process where it is: connections stay open, and nobody answers. */
  freeze(): void {
    this.#child?.signal("SIGSTOP");
  }

  thaw(): void {
    this.#child?.signal("SIGCONT");
  }

  async stop(how: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    await this.#child?.end(how);
  }

  async restart(how: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    await this.stop(how);
    this.start();
    await this.ready();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    await this.#child?.end("SIGKILL");
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #request(method: "GET" | "PUT", path: string, body?: JsonObject): Promise<Json> {
    const answer = await fetch(`http://${this.http}${path}`, {
      method,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === "" ? null : parseJson(text, path);
  }
}
