import { createHash } from "node:crypto";
import { encodeServicePayload } from "../../catalog/exported-payload.js";
import { decodePayload, diffInstances } from "../../catalog/imported-payload.js";
import { errorText, PeeringError } from "../../errors.js";
import { createHost, type PeeringHost } from "../../host/host.js";
import { isActive } from "../../peering/peering.js";
import { digestSecret, matchStreamSecret } from "../../peering/secrets.js";
import { memoryStorage } from "../../storage/memory.js";
import type { Storage } from "../../storage/storage.js";
import { decodeMessage } from "../../wire/codec.js";
import { type FixedAuthority, fixedAuthority } from "../fixed-authority.js";
import { InvariantChecker } from "./invariants.js";
import { type Life, Scheduler, SeededRandom, virtualClock } from "./scheduler.js";
import { SimNetwork, type SimStream } from "./sim-network.js";
import { type CommitFate, SimStorage } from "./sim-storage.js";

export interface SimulationOptions {
  /** Decides everything: the same seed gives the same run, byte for byte. */
  readonly seed: number;
  /** 2 to 5. Default: drawn from the seed. */
  readonly hosts?: number;
  /** Operations and faults before the world is left in peace. Default 60. */
  readonly steps?: number;
  /** Called with each line of the trace as it is written. */
  readonly onTrace?: (line: string) => void;
}

export interface SimulationResult {
  readonly seed: number;
  /** What did not hold, in the order it was found; empty for a good run. */
  readonly failures: readonly string[];
  /** What happened, one line each, with virtual times. */
  readonly trace: readonly string[];
  /** SHA-256 of the trace: equal for equal runs. */
  readonly digest: string;
  readonly virtualMs: number;
  /** What the run went through, to see that a set of seeds covers the ground. */
  readonly counts: Readonly<Record<string, number>>;
}

/** One simulated cluster: what survives its crashes, and the life it leads now. */
export interface SimCluster {
  readonly index: number;
  readonly name: string;
  readonly address: string;
  readonly disk: Storage;
  readonly authority: FixedAuthority;
  life: { alive: boolean };
  host: PeeringHost | undefined;
}

const SERVICES = ["web", "db", "cache", "billing", "Auth", "mail"];
const NODES = ["node-1", "node-2", "node-3", "node-4"];
const STATUSES = ["passing", "passing", "warning", "critical"];
/** After the faults: enough for a heartbeat timeout, the longest back-off and a connect bound, several times over. */
const CALM_MS = 20 * 60_000;
const CALM_CHECK_MS = 5_000;

/**
 * Runs a world of two to five hosts under a seeded adversary: delays, lost and half-open connections, partitions, slow
 * readers, disks that fail, lag or die before or after a commit. The invariants of specification chapter 3, section 15.3
 * are checked after every event; when the faults have stopped, every peering that can connect must be ACTIVE, every
 * exported service imported and equal, and what was deleted gone.
 */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const world = new World(options);
  return world.run();
}

class World {
  readonly #seed: number;
  readonly #steps: number;
  readonly #onTrace: ((line: string) => void) | undefined;
  readonly #random: SeededRandom;
  readonly #scheduler = new Scheduler();
  readonly #network: SimNetwork;
  readonly #clusters: SimCluster[] = [];
  readonly #checker: InvariantChecker;
  readonly #trace: string[] = [];
  readonly #counts: Record<string, number> = {};
  readonly #terminated = new WeakSet<SimStream>();
  #faults = true;
  #failRate = 0;
  #crashRate = 0.002;
  #diskMs = 1;
  #done = 0;

  constructor(options: SimulationOptions) {
    this.#seed = options.seed;
    this.#steps = options.steps ?? 60;
    this.#onTrace = options.onTrace;
    this.#random = new SeededRandom(options.seed);
    this.#network = new SimNetwork(this.#scheduler, new SeededRandom(options.seed ^ 0x5bd1e995));
    this.#network.onSend = (stream, messages) => this.#sent(stream, messages);
    this.#network.onExchange = (secret) => this.#checker.exchanged(secret);
    this.#checker = new InvariantChecker((text) => this.#note(`FAILURE ${text}`));
    const hosts = options.hosts ?? 2 + this.#random.below(4);
    if (!Number.isInteger(hosts) || hosts < 2 || hosts > 5) throw new TypeError("hosts must be 2 to 5");
    for (let index = 0; index < hosts; index++) {
      const digits = String(index + 1).repeat(8);
      this.#clusters.push({
        index,
        name: `h${index}`,
        address: `h${index}:8503`,
        disk: memoryStorage(),
        authority: fixedAuthority({
          trustDomain: `${digits}-2222-3333-4444-555555555555.consul`,
          cluster: index,
          clock: virtualClock(this.#scheduler, { alive: true }),
        }),
        life: { alive: false },
        host: undefined,
      });
    }
  }

  async run(): Promise<SimulationResult> {
    for (const cluster of this.#clusters) this.#start(cluster);
    this.#scheduler.after(200, () => this.#act());
    await this.#runUntil(Number.POSITIVE_INFINITY, () => this.#done >= this.#steps || this.#failed);
    if (!this.#failed) {
      this.#calmDown();
      await this.#converge();
    }
    const clusters = this.#clusters;
    const virtualMs = this.#scheduler.now;
    for (const cluster of clusters) cluster.life.alive = false;
    return {
      seed: this.#seed,
      failures: this.#checker.failures,
      trace: this.#trace,
      digest: createHash("sha256").update(this.#trace.join("\n")).digest("hex"),
      virtualMs,
      counts: this.#counts,
    };
  }

  get #failed(): boolean {
    return this.#checker.failures.length > 0;
  }

  #runUntil(untilMs: number, done: () => boolean): Promise<void> {
    return this.#scheduler.run(untilMs, done, () => {
      for (const cluster of this.#clusters) this.#checker.check(cluster);
    });
  }

  // --- lives ---------------------------------------------------------------------------------------------------------

  #start(cluster: SimCluster): void {
    const life: Life & { alive: boolean } = { alive: true };
    cluster.life = life;
    this.#note(`${cluster.name} starts`);
    createHost({
      datacenter: `dc${cluster.index}`,
      storage: new SimStorage({
        scheduler: this.#scheduler,
        random: this.#random,
        life,
        disk: cluster.disk,
        fate: () => this.#fateOf(),
        latencyMs: () => this.#random.between(0, this.#diskMs),
        crash: () => this.#crash(cluster, life),
      }),
      transport: this.#network.transport(cluster.address, life),
      authority: cluster.authority,
      clock: virtualClock(this.#scheduler, life),
      random: new SeededRandom(this.#random.below(2 ** 32)),
    }).then(
      (host) => {
        if (!life.alive) return;
        cluster.host = host;
        this.#note(`${cluster.name} is up`);
      },
      (error: unknown) => {
        if (!life.alive) return;
        // A host that cannot start (its disk refused) is started again, as a supervisor would.
        life.alive = false;
        this.#note(`${cluster.name} failed to start: ${errorText(error)}`);
        this.#scheduler.after(1_000, () => this.#start(cluster));
      },
    );
  }

  #crash(cluster: SimCluster, life: Life & { alive: boolean }): void {
    if (!life.alive) return;
    life.alive = false;
    cluster.host = undefined;
    this.#network.processDied(cluster.address);
    this.#checker.restarted(cluster);
    this.#count("crash");
    this.#note(`${cluster.name} crashes`);
    this.#scheduler.after(this.#random.between(10, 30_000), () => this.#start(cluster));
  }

  #fateOf(): CommitFate {
    if (!this.#faults) return "succeed";
    if (this.#random.chance(this.#failRate)) return this.#counted("commit-failed", "fail");
    if (this.#random.chance(this.#crashRate)) return this.#counted("crash-before-commit", "crash-before");
    return this.#random.chance(this.#crashRate) ? this.#counted("crash-after-commit", "crash-after") : "succeed";
  }

  // --- the adversary and the operators -------------------------------------------------------------------------------

  #act(): void {
    if (!this.#faults) return;
    this.#done++;
    const choice = this.#random.fraction();
    if (choice < 0.3) this.#catalogChange();
    else if (choice < 0.4) this.#exportChange();
    else if (choice < 0.58) this.#peer();
    else if (choice < 0.64) this.#delete();
    else if (choice < 0.68) this.#rotate();
    else if (choice < 0.74) this.#crashSome();
    else if (choice < 0.82) this.#partitionSome();
    else if (choice < 0.94) this.#disturbConnection();
    else this.#disturbDisk();
    const long = this.#random.chance(0.1);
    const waitMs = long ? this.#random.between(10_000, 180_000) : this.#random.between(1, 3_000);
    this.#scheduler.after(waitMs, () => this.#act());
  }

  #someHost(): { readonly cluster: SimCluster; readonly host: PeeringHost } | undefined {
    const up = this.#clusters.flatMap((cluster) =>
      cluster.host === undefined ? [] : [{ cluster, host: cluster.host }],
    );
    return this.#random.pick(up);
  }

  #other(cluster: SimCluster): SimCluster {
    const others = this.#clusters.filter((candidate) => candidate !== cluster);
    return this.#random.pick(others) ?? cluster;
  }

  #catalogChange(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const service = this.#random.pick(SERVICES) ?? "web";
    const node = this.#random.pick(NODES) ?? "node-1";
    const id = `${service.toLowerCase()}-${this.#random.below(3)}`;
    if (this.#random.chance(0.3)) {
      this.#attempt("deregister", `${cluster.name} ${node}/${id}`, host.catalog.deregister({ node, serviceId: id }));
      return;
    }
    const status = this.#random.pick(STATUSES) ?? "passing";
    const port = 1_000 + this.#random.below(1_000);
    const registration = host.catalog.register({
      node,
      address: `10.${cluster.index}.0.${NODES.indexOf(node) + 1}`,
      nodeMeta: { rack: `r${this.#random.below(3)}` },
      service: { id, name: service, port, tags: [`t${this.#random.below(4)}`] },
      checks: [{ checkId: `${id}-check`, name: "alive", status, serviceId: id }],
    });
    this.#attempt("register", `${cluster.name} ${node}/${id} ${status} port ${port}`, registration);
  }

  #exportChange(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    if (this.#random.chance(0.1)) {
      this.#attempt("unexport", cluster.name, host.exports.delete());
      return;
    }
    const names = this.#random.chance(0.5) ? ["*"] : SERVICES.filter(() => this.#random.chance(0.5));
    const services = names.map((name) => ({
      name,
      consumers: this.#clusters
        .filter((consumer) => consumer !== cluster && this.#random.chance(0.8))
        .map((consumer) => ({ peer: consumer.name })),
    }));
    const usable = services.filter(({ consumers }) => consumers.length > 0);
    const text = usable
      .map(({ name, consumers }) => `${name}>${consumers.map(({ peer }) => peer).join("+")}`)
      .join(" ");
    this.#attempt("export", `${cluster.name} ${text}`, host.exports.set({ services: usable }));
  }

  #peer(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster: acceptor, host } = chosen;
    const dialer = this.#other(acceptor);
    const twice = this.#random.chance(0.1);
    const work = host.peerings.generateToken({ peerName: dialer.name }).then(async (token) => {
      if (!dialer.life.alive || dialer.host === undefined)
        throw new PeeringError("unavailable", "nobody took the token");
      const establish = (): Promise<unknown> | undefined =>
        dialer.host?.peerings.establish({ peerName: acceptor.name, token });
      await (twice ? Promise.any([establish(), establish()]) : establish());
    });
    this.#attempt("peer", `${dialer.name} dials ${acceptor.name}${twice ? " twice" : ""}`, work);
  }

  #delete(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const peer = this.#other(cluster);
    this.#attempt("delete", `${cluster.name} ${peer.name}`, host.peerings.delete(peer.name));
    if (this.#random.chance(0.2) && peer.host !== undefined) {
      this.#attempt("delete", `${peer.name} ${cluster.name}`, peer.host.peerings.delete(cluster.name));
    }
  }

  #rotate(): void {
    const cluster = this.#random.pick(this.#clusters);
    if (cluster === undefined) return;
    this.#count("rotate");
    this.#note(`rotate ${cluster.name}`);
    cluster.authority.rotate();
    if (this.#random.chance(0.5)) cluster.authority.prune();
  }

  #crashSome(): void {
    const chosen = this.#someHost();
    if (chosen !== undefined) this.#crash(chosen.cluster, chosen.cluster.life);
  }

  #partitionSome(): void {
    const cluster = this.#random.pick(this.#clusters);
    if (cluster === undefined) return;
    const other = this.#other(cluster);
    this.#count("partition");
    this.#note(`partition ${cluster.name} ${other.name}`);
    this.#network.partition(cluster.address, other.address);
    this.#scheduler.after(this.#random.between(10, 300_000), () => {
      this.#note(`heal ${cluster.name} ${other.name}`);
      this.#network.heal(cluster.address, other.address);
    });
  }

  #disturbConnection(): void {
    const connection = this.#random.pick(this.#network.connections);
    if (connection === undefined) return;
    const ends = `${connection.dialer.address} ${connection.acceptor.address}`;
    const kind = this.#random.fraction();
    if (kind < 0.4) {
      this.#count("cut");
      this.#note(`cut ${ends}`);
      this.#network.cut(connection);
    } else if (kind < 0.7) {
      this.#count("half-open");
      this.#note(`half-open ${ends}`);
      this.#network.freeze(connection);
    } else {
      this.#count("slow-reader");
      this.#note(`slow reader ${ends}`);
      connection.pausedUntil = this.#scheduler.now + this.#random.between(1_000, 100_000);
    }
  }

  #disturbDisk(): void {
    const lag = this.#random.chance(0.5);
    this.#count(lag ? "lagging-disk" : "failing-disk");
    this.#note(lag ? "disks lag" : "disks fail");
    if (lag) this.#diskMs = 2_000;
    else this.#failRate = 0.4;
    this.#scheduler.after(this.#random.between(100, 20_000), () => {
      this.#diskMs = 1;
      this.#failRate = 0;
    });
  }

  #attempt(kind: string, text: string, work: Promise<unknown>): void {
    this.#count(kind);
    this.#note(`${kind} ${text}`);
    work.then(
      () => this.#note(`${kind} ${text}: done`),
      (error: unknown) => {
        if (!(error instanceof PeeringError) && !(error instanceof AggregateError)) {
          this.#checker.fail(`${kind} ${text} failed without a typed error: ${errorText(error)}`);
        }
        this.#note(`${kind} ${text}: ${errorText(error).replaceAll("\n", " ")}`);
      },
    );
  }

  // --- afterwards ----------------------------------------------------------------------------------------------------

  #calmDown(): void {
    this.#note("the faults stop");
    this.#faults = false;
    this.#failRate = 0;
    this.#diskMs = 1;
    this.#network.healAll();
  }

  async #converge(): Promise<void> {
    const end = this.#scheduler.now + CALM_MS;
    let missing: readonly string[] = [];
    for (let at = this.#scheduler.now; at < end && !this.#failed; at += CALM_CHECK_MS) {
      await this.#runUntil(at + CALM_CHECK_MS, () => this.#failed);
      missing = (await this.#settled(this.#missing())) ?? [];
      if (this.#failed) return;
      if (missing.length === 0) {
        this.#note(`converged`);
        return;
      }
    }
    for (const text of missing) this.#checker.fail(`did not converge: ${text}`);
  }

  /** Lets virtual time go on until `work`, which may read from simulated disks, is done. */
  async #settled<T>(work: Promise<T>): Promise<T | undefined> {
    let over = false;
    const settled = work.finally(() => {
      over = true;
    });
    settled.catch(() => {});
    await this.#runUntil(Number.POSITIVE_INFINITY, () => over || this.#failed);
    return over ? settled : undefined;
  }

  async #missing(): Promise<readonly string[]> {
    const missing: string[] = [];
    for (const cluster of this.#clusters) {
      const { host } = cluster;
      if (host === undefined) {
        missing.push(`${cluster.name} is not up`);
        continue;
      }
      for (const peering of host.peerings.list()) {
        if (peering.state === "deleting") missing.push(`${cluster.name} still deletes ${peering.name}`);
        const imported = host.imports.services({ peer: peering.name });
        if (peering.state === "terminated" && imported.length > 0) {
          missing.push(`${cluster.name} keeps imports of ${peering.name}, which is terminated`);
        }
        const other = this.#clusters.find((candidate) => candidate.name === peering.name);
        if (other?.host === undefined || peering.role !== "dialer") continue;
        missing.push(...(await this.#pairMissing(cluster, host, other, other.host)));
      }
    }
    return missing;
  }

  /** What a dialer and its acceptor still lack. Where the two records do not belong together, nothing is promised. */
  async #pairMissing(
    dialer: SimCluster,
    dialerHost: PeeringHost,
    acceptor: SimCluster,
    acceptorHost: PeeringHost,
  ): Promise<readonly string[]> {
    const d = dialerHost.peerings.read(acceptor.name);
    const a = acceptorHost.peerings.read(dialer.name);
    if (d === undefined || a === undefined || a.role !== "acceptor" || d.peerId !== a.id) return [];
    if (!(await this.#canConnect(dialerHost, d.id, acceptorHost, a.id))) return [];
    const missing: string[] = [];
    for (const [view, at, of] of [
      [d, dialer, acceptor],
      [a, acceptor, dialer],
    ] as const) {
      if (view.state === "active") continue;
      const { phase, lastFailure, failedAttempts } = view.status;
      const why = `${phase}, ${failedAttempts} failed attempts, last: ${lastFailure?.message ?? "none"}`;
      missing.push(`${at.name} reads ${view.state} for ${of.name} (${why})`);
    }
    missing.push(...(await importMissing(dialerHost, acceptor.name, acceptorHost, dialer.name)));
    missing.push(...(await importMissing(acceptorHost, dialer.name, dialerHost, acceptor.name)));
    const bundle = d.peerCaPems.join("");
    const roots = acceptor.authority.roots().map((root) => root.certificatePem);
    if (bundle !== roots.join("")) missing.push(`${dialer.name} does not trust the roots of ${acceptor.name}`);
    return missing;
  }

  /** Liveness L1: the dialer is to be connected when it holds a secret that its active acceptor knows. */
  async #canConnect(
    dialer: PeeringHost,
    dialerId: string,
    acceptor: PeeringHost,
    acceptorId: string,
  ): Promise<boolean> {
    const record = dialer.internals.records.byId(dialerId);
    if (record?.state !== "establishing") return false;
    const secret = await dialer.internals.records.streamSecret(dialerId);
    const row = acceptor.internals.records.tables.secrets.get(acceptorId);
    if (secret === undefined || row?.role !== "acceptor") return false;
    return (
      isActive(acceptor.internals.records.byId(acceptorId)) &&
      matchStreamSecret(row, digestSecret(secret)) !== undefined
    );
  }

  // --- observation ---------------------------------------------------------------------------------------------------

  #sent(stream: SimStream, messages: readonly Uint8Array[]): void {
    for (const bytes of messages) {
      const message = decodeMessage(bytes);
      if (this.#terminated.has(stream) && message.type !== "heartbeat") {
        this.#checker.fail(`${stream.address} sent ${message.type} after Terminated (I21)`);
      }
      if (message.type === "terminated") this.#terminated.add(stream);
      this.#count(`sent-${message.type}`);
    }
  }

  #counted<T>(kind: string, value: T): T {
    this.#count(kind);
    return value;
  }

  #count(kind: string): void {
    this.#counts[kind] = (this.#counts[kind] ?? 0) + 1;
  }

  #note(text: string): void {
    const line = `${this.#scheduler.now.toFixed(3)} ${text}`;
    this.#trace.push(line);
    this.#onTrace?.(line);
  }
}

/** What `importer` lacks of what `exporter` exports to it. */
async function importMissing(
  importer: PeeringHost,
  exporterName: string,
  exporter: PeeringHost,
  importerName: string,
): Promise<readonly string[]> {
  const missing: string[] = [];
  const listed = exporter.exports.forPeer(importerName);
  const filled = new Set<string>();
  for (const name of listed) {
    const expected = decodePayload(encodeServicePayload(name, exporter.catalog.instances(name)).value);
    const actual = await importer.imports.instances({ peer: exporterName, service: name });
    if (expected.length > 0) filled.add(name.toLowerCase());
    const { added, changed, removed } = diffInstances(expected, actual);
    if (added.length + changed.length + removed.length > 0) {
      missing.push(
        `${name} of ${exporterName} at ${importerName}: ${removed.length} missing, ${changed.length} differ, ${added.length} too many`,
      );
    }
  }
  for (const { name } of importer.imports.services({ peer: exporterName })) {
    if (!filled.has(name.toLowerCase())) missing.push(`${name} of ${exporterName} at ${importerName} should be gone`);
  }
  return missing;
}
