// The calls of the benchmark to its two processes.
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/**
 * The registrations: `services` of `instances` each, whose names begin with `prefix` (`svc`); ten neighbouring services share a node, or
 * all share `nodes`.
 */
export interface Load {
  readonly prefix?: string;
  readonly services: number;
  readonly instances: number;
  readonly perNode: number;
  readonly nodes?: number;
}

/** Where to connect to, and what to trust there. */
export interface BareServer {
  readonly port: number;
  readonly root: string;
  readonly serverName: string;
}

export interface Started {
  readonly seconds: number;
  /** Services of its own. */
  readonly registered: number;
  /** Instances of peers. */
  readonly imported: number;
}

export interface Usage {
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  /** After a collection, where the process was started with `--expose-gc`. */
  readonly heapMiB: number;
  /** The longest turn of the event loop since the last look. */
  readonly turnMs: number;
}

/** Times are milliseconds on the machine's monotonic clock, comparable between processes. */
export interface BenchCalls {
  /** With limits that admit `instances` of one peer. The seconds that it took, and how much is there then. */
  start(argument: { directory: string; datacenter: string; instances?: number }): Promise<Started>;
  fill(argument: { load: Load; consumers: readonly string[] }): Promise<void>;
  token(argument: { peerName: string }): Promise<string>;
  establish(argument: { peerName: string; token: string }): Promise<number>;
  imported(argument: { peerName: string; instances: number }): Promise<number>;
  update(argument: { load: Load; service: number; tag: string }): Promise<number>;
  /** Starts to watch all that is imported; resolves once the first state was delivered. */
  watch(argument: { peerName: string }): Promise<void>;
  /** When the watcher was told of `count` services that have an instance with the tag. */
  sees(argument: { count: number; tag: string }): Promise<number>;
  burst(argument: { load: Load; count: number; tag: string }): Promise<number>;
  /** The time on that clock. */
  now(): Promise<number>;
  /** Begins to measure turns of the event loop again. */
  usage(): Promise<Usage>;
  /** Deletes a peering with all that was imported from it, and returns when that is gone. */
  forget(argument: { peerName: string }): Promise<void>;
  /** The bytes on the stream of the initial sync towards the importer, with envelopes and frames. */
  exportedBytes(argument: { peerName: string }): Promise<number>;
  /**
   * Dials the acceptor of `token` as a peer that acknowledges whatever comes and keeps nothing: the seconds from the
   * exchange of secrets until `services` services have arrived.
   */
  drain(argument: { token: string; services: number }): Promise<number>;
  /** The port of its HTTP API. */
  serveHttp(): Promise<number>;
  /** The port of its DNS, which bounds no large answers. */
  serveDns(): Promise<number>;
  /**
   * Becomes one such peer for each token, and stays connected. @returns when the last one had been sent `services` services.
   */
  becomePeers(argument: { tokens: readonly string[]; services: number }): Promise<number>;
  /** When all of these peers have been sent a service once more. */
  peersSee(argument: { service: string }): Promise<number>;
  /** Sends back each byte that comes to the port. */
  serveEcho(): Promise<number>;
  /** Milliseconds that a byte takes to the echo of another process and back, over one connection that is kept. */
  roundTrip(argument: { port: number }): Promise<number>;
  /** Milliseconds that one `fdatasync` of a few hundred new bytes takes, on the disk of the host's storage. */
  sync(): Promise<number>;
  serveBare(): Promise<BareServer>;
  /** Seconds from `connect` to the last byte read by the server. */
  sendBare(argument: BareServer & { bytes: number }): Promise<number>;
  stop(): Promise<void>;
}

interface Request {
  readonly id: number;
  readonly method: keyof BenchCalls;
  readonly argument: unknown;
}

interface Reply {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
}

export function serveCalls(calls: BenchCalls): void {
  process.on("message", (request: Request) => {
    const call = calls[request.method] as (argument: unknown) => Promise<unknown>;
    call(request.argument).then(
      (result) => process.send?.({ id: request.id, result } satisfies Reply),
      (error: unknown) => process.send?.({ id: request.id, error: String(error) } satisfies Reply),
    );
  });
  process.on("disconnect", () => process.exit(0));
}

export class BenchProcess {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  #next = 0;

  constructor(execArgv: readonly string[] = process.execArgv) {
    this.#child = fork(fileURLToPath(new URL("cluster.js", import.meta.url)), [], { execArgv: [...execArgv] });
    this.#child.on("message", ({ id, result, error }: Reply) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(result);
      else waiting?.reject(new Error(error));
    });
    this.#child.on("exit", (code) => {
      for (const waiting of this.#waiting.values()) waiting.reject(new Error(`a benchmark process ended with ${code}`));
    });
  }

  call<Method extends keyof BenchCalls>(
    method: Method,
    ...[argument]: Parameters<BenchCalls[Method]>
  ): ReturnType<BenchCalls[Method]> {
    const id = this.#next++;
    const answered = new Promise<unknown>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#child.send({ id, method, argument } satisfies Request);
    });
    return answered as ReturnType<BenchCalls[Method]>;
  }

  async end(): Promise<void> {
    const ended = once(this.#child, "exit");
    await this.call("stop").catch(() => {});
    this.#child.disconnect();
    await ended;
  }
}
