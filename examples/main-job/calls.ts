// The calls of the main job to its two cluster processes, and how the answers come back.
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { ExportedServicesInput, ImportedService, PeeringState, Registration, ServiceInstance } from "peerage";

export interface ClusterCall {
  address(): Promise<string>;
  register(argument: { registrations: readonly Registration[] }): Promise<void>;
  export(argument: { entry: ExportedServicesInput }): Promise<void>;
  generateToken(argument: { peerName: string }): Promise<string>;
  establish(argument: { peerName: string; token: string }): Promise<void>;
  state(argument: { peerName: string }): Promise<PeeringState>;
  imported(argument: { peerName: string }): Promise<{ services: number; instances: number }>;
  services(argument: { peerName: string }): Promise<readonly ImportedService[]>;
  instances(argument: { peerName: string; service: string }): Promise<readonly ServiceInstance[]>;
  exported(argument: { peerName: string }): Promise<Record<string, readonly ServiceInstance[]>>;
  rotateCertificateAuthority(): Promise<number>;
  trustedRoots(argument: { peerName: string }): Promise<number>;
  stop(): Promise<void>;
}

export interface ClusterRequest {
  readonly id: number;
  readonly method: keyof ClusterCall;
  readonly argument: unknown;
}

export type ClusterReply = { readonly id: number } & ({ readonly result: unknown } | { readonly error: string });

type Answer = { readonly resolve: (result: unknown) => void; readonly reject: (error: Error) => void };

/** A cluster process, seen from the parent. */
export class ClusterProcess {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Answer>();
  #next = 0;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#child = child;
    child.on("message", (message: { ready: true } | ClusterReply) => {
      if (!("id" in message)) return;
      const answer = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if ("error" in message) answer?.reject(new Error(`${name}: ${message.error}`));
      else answer?.resolve(message.result);
    });
    child.on("exit", () => {
      for (const answer of this.#waiting.values()) answer.reject(new Error(`${name} has ended`));
      this.#waiting.clear();
    });
  }

  /** Starts the process and resolves once its host is up. */
  static async start(name: string, directory: string, listen: string, datacenter: string): Promise<ClusterProcess> {
    const script = fileURLToPath(new URL("cluster.js", import.meta.url));
    const child = fork(script, [directory, listen, datacenter], { serialization: "advanced" });
    const process = new ClusterProcess(name, child);
    const ready = once(child, "message");
    const ended = once(child, "exit").then(() => {
      throw new Error(`${name} ended before it was ready`);
    });
    await Promise.race([ready, ended]);
    ended.catch(() => {});
    return process;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  call<Method extends keyof ClusterCall>(
    method: Method,
    ...[argument]: Parameters<ClusterCall[Method]>
  ): ReturnType<ClusterCall[Method]> {
    const id = this.#next++;
    const answered = new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.send({ id, method, argument } satisfies ClusterRequest);
    });
    return answered as ReturnType<ClusterCall[Method]>;
  }

  /** SIGKILL: nothing is said, nothing is flushed. Does nothing where the process has ended. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, "exit");
    await this.call("stop");
    await ended;
  }
}
