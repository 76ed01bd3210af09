import { createHash } from "node:crypto";
import { encodeServicePayload } from "../../catalog/exported-payload.js";
import { decodePayload, diffInstances } from "../../catalog/imported-payload.js";
import { errorText, PeeringError } from "../../errors.js";
import { createHost, type PeeringHost } from "../../host/host.js";
import type { PeeringView } from "../../host/peerings.js";
import { decodePeering } from "../../host/record-codec.js";
import { isActive } from "../../peering/peering.js";
import { digestSecret, matchStreamSecret } from "../../peering/secrets.js";
import { IMPORTS_PREFIX, PEERINGS_PREFIX } from "../../storage/keys.js";
import { memoryStorage } from "../../storage/memory.js";
import type { Storage } from "../../storage/storage.js";
import { decodeMessage } from "../../wire/codec.js";
import { type FixedAuthority, fixedAuthority } from "../fixed-authority.js";
import { InvariantChecker } from "./invariants.js";
import { Scheduler, SeededRandom, virtualClock } from "./scheduler.js";
import { SCRIPTS, scriptedPeer } from "./scripted-peers.js";
import { SimLeadership } from "./sim-leadership.js";
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
  life: MutableLife;
  leadership: SimLeadership;
  /** Virtual time until which this process certainly led: now, while it does. */
  readonly ledUntil: () => number;
  host: PeeringHost | undefined;
}

interface MutableLife {
  alive: boolean;
  frozenUntil: number;
}

const SERVICES = ["web", "db", "cache", "billing", "Auth", "mail"];
const NODES = ["node-1", "node-2", "node-3", "node-4"];
const STATUSES = ["passing", "passing", "warning", "critical"];
interface ExportedServiceRule {
  readonly name: string;
  readonly consumers: readonly { readonly peer: string }[];
}

type WayToPeer = "once" | "same token twice" | "two tokens at once" | "superseded token";
const WAYS_TO_PEER: readonly WayToPeer[] = [
  "once",
  "once",
  "once",
  "once",
  "once",
  "once",
  "same token twice",
  "two tokens at once",
  "superseded token",
];
const SCENES = [
  "acceptor deletes",
  "dialer deletes",
  "both delete",
  "a delete into silence",
  "restart",
  "silence",
  "rotate",
  "terminated right after Open",
] as const;
/** After the faults: enough for a heartbeat timeout, the longest back-off and a connect bound, several times over. */
const CALM_MS = 20 * 60_000;
const CALM_CHECK_MS = 5_000;
/** Longest back-off, connect bound and some: in this time a dialer is back after a path has healed (L1). */
const RECONNECT_MS = 90_000;
/** Heartbeat timeout and some: in this time a peer that fell silent reads FAILING (L8). */
const SILENCE_MS = 125_000;

/**
 * Runs a world of two to five hosts under a seeded adversary: delays, lost and half-open connections, partitions, slow
 * readers, disks that fail, lag or die before or after a commit. The invariants of specification chapter 3, section 15.3
 * are checked after every event; when the faults have stopped, every peering that can connect must be ACTIVE, every
 * exported service imported and equal, and what was deleted gone.
 */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const world = new World(options);
  try {
    return await world.run();
  } catch (error) {
    throw new Error(`seed ${options.seed}: ${errorText(error)}`, { cause: error });
  }
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
  /** Since when these do not lead. */
  readonly #followers = new Map<SimCluster, number>();
  readonly #exported = new Map<SimCluster, readonly ExportedServiceRule[]>();
  #scripted = 0;
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
    this.#network.onExchange = (address, secret) => {
      if (this.#clusterAt(address) !== undefined) this.#checker.exchanged(secret);
    };
    this.#network.onAttempt = (from, to) => {
      if (this.#clusterAt(from) !== undefined) this.#checker.attempted(from, to);
    };
    this.#checker = new InvariantChecker(
      (text) => this.#note(`FAILURE ${text}`),
      () => this.#scheduler.now,
    );
    const hosts = options.hosts ?? 2 + this.#random.below(4);
    if (!Number.isInteger(hosts) || hosts < 2 || hosts > 5) throw new TypeError("hosts must be 2 to 5");
    for (let index = 0; index < hosts; index++) {
      const digits = String(index + 1).repeat(8);
      const cluster: SimCluster = {
        index,
        name: `h${index}`,
        address: `h${index}:8503`,
        disk: memoryStorage(),
        authority: fixedAuthority({
          trustDomain: `${digits}-2222-3333-4444-555555555555.consul`,
          cluster: index,
          clock: virtualClock(this.#scheduler, { alive: true }),
        }),
        life: { alive: false, frozenUntil: 0 },
        leadership: new SimLeadership(),
        ledUntil: () => (cluster.leadership.isLeader ? this.#scheduler.now : (this.#followers.get(cluster) ?? 0)),
        host: undefined,
      };
      this.#clusters.push(cluster);
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
    if (!this.#failed) await this.#epilogue();
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
    const life: MutableLife = { alive: true, frozenUntil: 0 };
    cluster.life = life;
    cluster.leadership = new SimLeadership();
    this.#note(`${cluster.name} starts`);
    createHost({
      datacenter: `dc${cluster.index}`,
      storage: new SimStorage({
        scheduler: this.#scheduler,
        life,
        disk: cluster.disk,
        fate: () => this.#fateOf(),
        failsToRead: () => this.#faults && this.#random.chance(this.#failRate),
        onCommit: (writes) => this.#checker.committed(cluster, writes),
        latencyMs: () => this.#random.between(0, this.#diskMs),
        crash: () => this.#crash(cluster, life),
      }),
      transport: this.#network.transport(cluster.address, life),
      authority: cluster.authority,
      leadership: cluster.leadership,
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

  #crash(cluster: SimCluster, life: MutableLife, downMs: number = this.#random.between(10, 30_000)): void {
    if (!life.alive) return;
    life.alive = false;
    cluster.host = undefined;
    this.#network.processDied(cluster.address);
    this.#count("crash");
    this.#note(`${cluster.name} crashes`);
    this.#scheduler.after(downMs, () => this.#start(cluster));
  }

  #fateOf(): CommitFate {
    if (!this.#faults) return "succeed";
    if (this.#random.chance(this.#failRate)) {
      const kind = this.#random.fraction();
      if (kind < 0.6) return this.#counted("commit-failed", "fail");
      return kind < 0.8 ? this.#counted("commit-lost", "lost") : this.#counted("commit-unanswered", "unanswered");
    }
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
    else if (choice < 0.73) this.#crashSome();
    else if (choice < 0.79) this.#partitionSome();
    else if (choice < 0.88) this.#disturbConnection();
    else if (choice < 0.92) this.#disturbDisk();
    else if (choice < 0.95) this.#moveLeadership();
    else if (choice < 0.97) this.#freeze();
    else if (choice < 0.98) this.#replace();
    else this.#letLoose();
    const long = this.#random.chance(0.1);
    const waitMs = long ? this.#random.between(10_000, 180_000) : this.#random.between(1, 3_000);
    this.#scheduler.after(waitMs, () => this.#act());
  }

  #someHost(): { readonly cluster: SimCluster; readonly host: PeeringHost } | undefined {
    const up = this.#clusters.flatMap((cluster) =>
      cluster.host === undefined || this.#isFrozen(cluster) ? [] : [{ cluster, host: cluster.host }],
    );
    return this.#random.pick(up);
  }

  #isFrozen(cluster: SimCluster): boolean {
    return cluster.life.frozenUntil > this.#scheduler.now;
  }

  #clusterAt(address: string): SimCluster | undefined {
    return this.#clusters.find((cluster) => cluster.address === address);
  }

  #other(cluster: SimCluster): SimCluster {
    const others = this.#clusters.filter((candidate) => candidate !== cluster);
    return this.#random.pick(others) ?? cluster;
  }

  #catalogChange(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    if (this.#random.chance(0.1)) this.#burst(chosen.cluster);
    else this.#catalogChangeAt(chosen.cluster, chosen.host);
  }

  #catalogChangeAt(cluster: SimCluster, host: PeeringHost): void {
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

  /** Several changes at once, on disks that take their time for a moment. */
  #burst(cluster: SimCluster): void {
    const { host } = cluster;
    if (host === undefined || this.#isFrozen(cluster)) return;
    this.#count("burst");
    if (this.#diskMs === 1) {
      this.#diskMs = this.#random.between(1, 60);
      this.#scheduler.after(this.#random.between(10, 500), () => {
        this.#diskMs = 1;
      });
    }
    for (let left = 3 + this.#random.below(6); left > 0; left--) {
      this.#scheduler.after(this.#random.between(0, 40), () => {
        if (cluster.host === host && !this.#isFrozen(cluster)) this.#catalogChangeAt(cluster, host);
      });
    }
  }

  #exportChange(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    if (this.#random.chance(0.3)) {
      const before = this.#exported.get(cluster);
      this.#attempt("unexport", cluster.name, host.exports.delete());
      if (before === undefined || this.#random.chance(0.3)) return;
      // And again what was exported before: the stream that stands must bring it again.
      this.#scheduler.after(this.#random.between(1, 200), () => {
        if (cluster.host === host && !this.#isFrozen(cluster)) {
          this.#attempt("export", `${cluster.name} as before`, host.exports.set({ services: before }));
        }
      });
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
    this.#exported.set(cluster, usable);
    this.#attempt("export", `${cluster.name} ${text}`, host.exports.set({ services: usable }));
  }

  #peer(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster: acceptor, host } = chosen;
    const dialer = this.#other(acceptor);
    const way = this.#random.pick(WAYS_TO_PEER) ?? "once";
    const generate = (): Promise<string> => host.peerings.generateToken({ peerName: dialer.name });
    const establish = (token: string): Promise<unknown> => {
      if (!dialer.life.alive || dialer.host === undefined || this.#isFrozen(dialer)) {
        return Promise.reject(new PeeringError("unavailable", "nobody took the token"));
      }
      return dialer.host.peerings.establish({ peerName: acceptor.name, token });
    };
    const work = async (): Promise<unknown> => {
      const token = await generate();
      switch (way) {
        case "once":
          return establish(token);
        case "same token twice":
          return Promise.any([establish(token), establish(token)]);
        case "two tokens at once": {
          const first = establish(token);
          // Whatever becomes of it, the second one is what counts.
          first.catch(() => {});
          return establish(await generate());
        }
        case "superseded token": {
          await generate();
          return establish(token);
        }
      }
    };
    this.#attempt("peer", `${dialer.name} dials ${acceptor.name}: ${way}`, work());
  }

  #delete(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const peer = this.#other(cluster);
    // Deleted, and replaced, while much is under way: the races are there.
    if (this.#random.chance(0.5)) this.#burst(peer);
    this.#attempt("delete", `${cluster.name} ${peer.name}`, host.peerings.delete(peer.name));
    if (this.#random.chance(0.2) && peer.host !== undefined && !this.#isFrozen(peer)) {
      this.#attempt("delete", `${peer.name} ${cluster.name}`, peer.host.peerings.delete(cluster.name));
    }
  }

  /**
   * An acceptor deletes a peering and makes it anew, and its dialer establishes over the old record before it has read
   * the `Terminated` of the old stream: that one must not end the new peering (D-12).
   */
  #replace(): void {
    const streams = this.#network.connections.filter(({ frozen, pausedUntil }) => !frozen && pausedUntil === 0);
    const connection = this.#random.pick(streams);
    const acceptor = this.#clusterAt(connection?.acceptor.address ?? "");
    const dialer = this.#clusterAt(connection?.dialer.address ?? "");
    if (connection === undefined || acceptor === undefined || dialer === undefined || this.#isFrozen(acceptor)) return;
    connection.pausedUntil = this.#scheduler.now + this.#random.between(5_000, 8_000);
    this.#diskMs = 1_500;
    this.#scheduler.after(10_000, () => {
      this.#diskMs = 1;
    });
    const work = async (): Promise<void> => {
      await acceptor.host?.peerings.delete(dialer.name);
      await acceptor.host?.peerings.deleted(dialer.name);
      const token = await acceptor.host?.peerings.generateToken({ peerName: dialer.name });
      if (this.#isFrozen(dialer) || token === undefined) throw new PeeringError("unavailable", "nobody took the token");
      await dialer.host?.peerings.establish({ peerName: acceptor.name, token });
    };
    this.#attempt("replace", `${dialer.name} at ${acceptor.name}`, work());
  }

  #rotate(): void {
    const cluster = this.#random.pick(this.#clusters);
    if (cluster === undefined || this.#isFrozen(cluster)) return;
    if (this.#random.chance(0.3)) this.#partition(cluster, this.#other(cluster));
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
    if (cluster !== undefined) this.#partition(cluster, this.#other(cluster));
  }

  #partition(cluster: SimCluster, other: SimCluster): void {
    this.#count("partition");
    this.#note(`partition ${cluster.name} ${other.name}`);
    this.#network.partition(cluster.address, other.address);
    this.#scheduler.after(this.#random.between(10, 300_000), () => {
      // In peace everything has been healed, and what is partitioned then is so on purpose.
      if (!this.#faults) return;
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

  #moveLeadership(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster } = chosen;
    this.#count("leadership");
    this.#note(`${cluster.name} leads no more`);
    const { leadership } = cluster;
    this.#followers.set(cluster, this.#scheduler.now);
    leadership.move(false);
    this.#scheduler.after(this.#random.between(1, 60_000), () => {
      this.#note(`${cluster.name} leads again`);
      leadership.move(true);
    });
  }

  /** Stops a process for longer than its peers wait for a heartbeat, or a little while. */
  #freeze(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster } = chosen;
    const forMs = this.#random.between(1_000, 200_000);
    this.#count(forMs > SILENCE_MS ? "frozen-long" : "frozen");
    this.#note(`${cluster.name} is frozen for ${forMs.toFixed(0)} ms`);
    cluster.life.frozenUntil = this.#scheduler.now + forMs;
  }

  /** A peer that is no host, and keeps to nothing. */
  #letLoose(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const script = this.#random.pick(SCRIPTS) ?? "nonsense";
    const name = `x${this.#scripted++}`;
    const work = scriptedPeer({
      script,
      name,
      victim: host,
      victimAddress: cluster.address,
      network: this.#network,
      scheduler: this.#scheduler,
      random: new SeededRandom(this.#random.below(2 ** 32)),
      lastsMs: this.#random.between(1_000, 300_000),
    });
    this.#attempt(`script-${script}`, `${name} at ${cluster.name}`, work);
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
    for (const cluster of this.#clusters) cluster.leadership.move(true);
  }

  async #converge(): Promise<void> {
    // What is frozen still thaws first: until then nothing can be expected of it.
    const thawed = Math.max(...this.#clusters.map(({ life }) => life.frozenUntil));
    await this.#runUntil(thawed, () => this.#failed);
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

  // --- what is promised in peace (chapter 3, section 15.4) -----------------------------------------------------------

  async #epilogue(): Promise<void> {
    const [acceptor, dialer] = (await this.#peeredPair()) ?? [];
    if (acceptor === undefined || dialer === undefined || this.#failed) return;
    const scene = this.#random.pick(SCENES) ?? "restart";
    this.#count(`epilogue-${scene}`);
    this.#note(`epilogue: ${scene}, ${dialer.name} dials ${acceptor.name}`);
    switch (scene) {
      case "acceptor deletes":
        await this.#oneDeletes(acceptor, dialer);
        // The dialer's record stays TERMINATED; a fresh token is established over it (L9).
        return this.#peerAgain(acceptor, dialer);
      case "dialer deletes":
        await this.#oneDeletes(dialer, acceptor);
        await this.#bothDelete(acceptor, dialer);
        return this.#peerAgain(acceptor, dialer);
      case "both delete":
        await this.#bothDelete(acceptor, dialer);
        return this.#peerAgain(acceptor, dialer);
      case "a delete into silence":
        await this.#deleteIntoSilence(this.#random.chance(0.5) ? acceptor : dialer, acceptor, dialer);
        return this.#peerAgain(acceptor, dialer);
      case "restart":
        return this.#restartOne(this.#random.chance(0.5) ? [acceptor, dialer] : [dialer, acceptor], acceptor, dialer);
      case "silence":
        return this.#fallSilent(acceptor, dialer);
      case "rotate": {
        acceptor.authority.rotate();
        if (this.#random.chance(0.5)) acceptor.authority.prune();
        return this.#within(5_000, `L6: ${dialer.name} trusts the new roots`, () => this.#inStep(acceptor, dialer));
      }
      case "terminated right after Open":
        return this.#terminatedAtOnce(acceptor);
    }
  }

  /** A pair that is ACTIVE on both sides; one is made where there is none (L7). */
  async #peeredPair(): Promise<readonly [SimCluster, SimCluster] | undefined> {
    const pairs = this.#clusters.flatMap((dialer) =>
      (dialer.host?.peerings.list() ?? []).flatMap((view): (readonly [SimCluster, SimCluster])[] => {
        const acceptor = this.#clusters.find(({ name }) => name === view.name);
        const other = acceptor?.host?.peerings.read(dialer.name);
        const up = view.role === "dialer" && view.state === "active" && other?.state === "active";
        return acceptor === undefined || !up ? [] : [[acceptor, dialer]];
      }),
    );
    const found = this.#random.pick(pairs);
    if (found !== undefined) return found;
    const [acceptor, dialer] = this.#clusters;
    if (acceptor === undefined || dialer === undefined) return undefined;
    await this.#bothDelete(acceptor, dialer);
    await this.#peerAgain(acceptor, dialer);
    return [acceptor, dialer];
  }

  async #oneDeletes(cluster: SimCluster, peer: SimCluster): Promise<void> {
    await this.#settled(cluster.host?.peerings.delete(peer.name) ?? Promise.resolve());
    await this.#within(20_000, `L2: ${cluster.name} has deleted ${peer.name}`, () => {
      return cluster.host?.peerings.read(peer.name) === undefined;
    });
    await this.#within(20_000, `L3: ${peer.name} has heard that ${cluster.name} deleted it`, () => {
      const view = peer.host?.peerings.read(cluster.name);
      return view?.state === "terminated" && importsOf(peer, cluster).length === 0;
    });
  }

  /** A peer that cannot be reached delays a delete by no more than the drain, and is told nothing later (L2, L4). */
  async #deleteIntoSilence(deleting: SimCluster, acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const other = deleting === acceptor ? dialer : acceptor;
    this.#network.partition(acceptor.address, dialer.address);
    await this.#settled(deleting.host?.peerings.delete(other.name) ?? Promise.resolve());
    await this.#within(10_000, `L2: ${deleting.name} has deleted ${other.name}, which does not answer`, () => {
      return deleting.host?.peerings.read(other.name) === undefined;
    });
    await this.#within(SILENCE_MS, `L4, L8: ${other.name} reads FAILING for ${deleting.name}`, () => {
      return other.host?.peerings.read(deleting.name)?.state === "failing";
    });
    this.#network.healAll();
    await this.#bothDelete(acceptor, dialer);
  }

  async #bothDelete(a: SimCluster, b: SimCluster): Promise<void> {
    const deletions = Promise.all([a.host?.peerings.delete(b.name), b.host?.peerings.delete(a.name)]);
    await this.#settled(deletions);
    await this.#within(60_000, `L2: ${a.name} and ${b.name} have deleted each other`, () => {
      return a.host?.peerings.read(b.name) === undefined && b.host?.peerings.read(a.name) === undefined;
    });
  }

  async #peerAgain(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    if (this.#failed) return;
    const work = async (): Promise<void> => {
      const token = await acceptor.host?.peerings.generateToken({ peerName: dialer.name });
      await dialer.host?.peerings.establish({ peerName: acceptor.name, token: token ?? "" });
    };
    await this.#settled(work().catch((error: unknown) => this.#checker.fail(`L7: ${errorText(error)}`)));
    await this.#within(30_000, `L7, L9: ${acceptor.name} and ${dialer.name} are peered again`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  async #restartOne(
    [restarting, peer]: readonly [SimCluster, SimCluster],
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const before = JSON.stringify(importsOf(restarting, peer));
    this.#crash(restarting, restarting.life, 1_000);
    await this.#runUntil(Number.POSITIVE_INFINITY, () => restarting.host !== undefined || this.#failed);
    const after = JSON.stringify(importsOf(restarting, peer));
    if (before !== after) this.#checker.fail(`${restarting.name}: imports changed by a restart (I20)`);
    await this.#within(RECONNECT_MS, `L1: ${dialer.name} is back at ${acceptor.name}`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  async #fallSilent(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const before = [importsOf(acceptor, dialer), importsOf(dialer, acceptor)];
    this.#network.partition(acceptor.address, dialer.address);
    await this.#within(SILENCE_MS, `L8: ${acceptor.name} and ${dialer.name} read FAILING`, () => {
      const states = [
        acceptor.host?.peerings.read(dialer.name)?.state,
        dialer.host?.peerings.read(acceptor.name)?.state,
      ];
      return states.every((state) => state === "failing");
    });
    const after = [importsOf(acceptor, dialer), importsOf(dialer, acceptor)];
    if (JSON.stringify(before) !== JSON.stringify(after)) this.#checker.fail("imports changed while FAILING (I20)");
    await this.#runUntil(this.#scheduler.now + this.#random.between(0, 200_000), () => this.#failed);
    this.#network.healAll();
    await this.#within(RECONNECT_MS, `L1: ${dialer.name} is back at ${acceptor.name} after the path healed`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  async #terminatedAtOnce(victim: SimCluster): Promise<void> {
    const { host } = victim;
    if (host === undefined) return;
    const name = `x${this.#scripted++}`;
    const work = scriptedPeer({
      script: "terminated-after-open",
      name,
      victim: host,
      victimAddress: victim.address,
      network: this.#network,
      scheduler: this.#scheduler,
      random: new SeededRandom(this.#random.below(2 ** 32)),
      lastsMs: 10_000,
    });
    await this.#settled(work);
    await this.#within(10_000, `${victim.name} has heard a Terminated right behind the Open`, () => {
      return host.peerings.read(name)?.state === "terminated";
    });
  }

  async #within(limitMs: number, what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    const end = this.#scheduler.now + limitMs;
    while (!this.#failed) {
      if ((await this.#settled(Promise.resolve(holds()))) === true) return;
      if (this.#scheduler.now >= end) return this.#checker.fail(`not within ${limitMs} ms: ${what}`);
      await this.#runUntil(Math.min(end, this.#scheduler.now + 250), () => this.#failed);
    }
  }

  async #inStep(acceptor: SimCluster, dialer: SimCluster): Promise<boolean> {
    if (acceptor.host === undefined || dialer.host === undefined) return false;
    const views = [acceptor.host.peerings.read(dialer.name), dialer.host.peerings.read(acceptor.name)];
    if (!views.every((view) => view?.state === "active")) return false;
    return (await this.#pairMissing(dialer, dialer.host, acceptor, acceptor.host)).length === 0;
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
      missing.push(...(await this.#diskMissing(cluster, host)));
      const streams = this.#network.connections.filter(({ dialer, acceptor }) => {
        return dialer.address === cluster.address || acceptor.address === cluster.address;
      });
      if (host.internals.links.streams > streams.length) {
        missing.push(
          `${cluster.name} serves ${host.internals.links.streams} streams, of which ${streams.length} exist`,
        );
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
      if (view.state === "active") {
        missing.push(...statusMissing(view).map((text) => `${at.name} for ${of.name}: ${text}`));
        continue;
      }
      const { phase, lastFailure, failedAttempts } = view.status;
      const why = `${phase}, ${failedAttempts} failed attempts, last: ${lastFailure?.message ?? "none"}`;
      missing.push(`${at.name} reads ${view.state} for ${of.name} (${why})`);
    }
    if (missing.length > 0) return missing;
    const standing = this.#network.connections.filter(
      (connection) =>
        connection.dialer.address === dialer.address &&
        connection.acceptor.address === acceptor.address &&
        !connection.frozen,
    );
    if (standing.length !== 1) missing.push(`${standing.length} streams between ${dialer.name} and ${acceptor.name}`);
    missing.push(...listsMissing(dialer.name, d, acceptorHost.exports.forPeer(dialer.name)));
    missing.push(...listsMissing(acceptor.name, a, dialerHost.exports.forPeer(acceptor.name)));
    missing.push(...(await importMissing(dialerHost, acceptor.name, acceptorHost, dialer.name)));
    missing.push(...(await importMissing(acceptorHost, dialer.name, dialerHost, acceptor.name)));
    const bundle = d.peerCaPems.join("");
    const roots = acceptor.authority.roots().map((root) => root.certificatePem);
    if (bundle !== roots.join("")) missing.push(`${dialer.name} does not trust the roots of ${acceptor.name}`);
    return missing;
  }

  /** What the next start would find is what is in memory, and nothing else: no orphans, nothing forgotten. */
  async #diskMissing(cluster: SimCluster, host: PeeringHost): Promise<readonly string[]> {
    const { records, imports } = host.internals;
    const missing: string[] = [];
    const stored = await cluster.disk.read(PEERINGS_PREFIX);
    const known = new Map(stored.entries.map((entry) => [entry.key.at(-1), decodePeering(entry)]));
    for (const peering of records.list()) {
      if (known.get(peering.id)?.modifyIndex !== peering.modifyIndex) {
        missing.push(`${cluster.name} holds another ${peering.name} than its disk`);
      }
      known.delete(peering.id);
    }
    for (const peering of known.values()) missing.push(`${cluster.name} does not know ${peering.name} on its disk`);
    const counts = new Map<string, number>();
    for (const { key } of (await cluster.disk.read(IMPORTS_PREFIX)).entries) {
      counts.set(key[1] ?? "", (counts.get(key[1] ?? "") ?? 0) + 1);
    }
    for (const { id, name } of records.list()) {
      const { services } = imports.count(id);
      if (services !== (counts.get(id) ?? 0)) {
        missing.push(`${cluster.name} knows ${services} imports of ${name}, its disk ${counts.get(id) ?? 0}`);
      }
      counts.delete(id);
    }
    for (const id of counts.keys()) missing.push(`${cluster.name} keeps imports of ${id}, of which there is no record`);
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
    const dialable = await dialer.internals.records.dialable(dialerId);
    const row = acceptor.internals.records.tables.secrets.get(acceptorId);
    if (dialable === undefined || row?.role !== "acceptor") return false;
    return (
      isActive(acceptor.internals.records.byId(acceptorId)) &&
      matchStreamSecret(row, digestSecret(dialable.streamSecret)) !== undefined
    );
  }

  // --- observation ---------------------------------------------------------------------------------------------------

  #sent(stream: SimStream, messages: readonly Uint8Array[]): void {
    const sender = this.#clusterAt(stream.address);
    const receiver = this.#clusterAt(stream.remoteAddress);
    for (const bytes of messages) {
      const message = decodeMessage(bytes);
      this.#checker.sent(sender, receiver, stream, message);
      if (sender !== undefined) this.#count(`sent-${message.type}`);
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

function importsOf(cluster: SimCluster, peer: SimCluster): readonly unknown[] {
  const services = cluster.host?.imports.services({ peer: peer.name }) ?? [];
  return services.map(({ name, instances, revision }) => [name, instances, String(revision)]);
}

/** What the status of a peering says that cannot be true of one that is ACTIVE and at rest. */
function statusMissing({ status }: PeeringView): readonly string[] {
  const wrong: string[] = [];
  const expect = (holds: boolean, text: string): void => {
    if (!holds) wrong.push(text);
  };
  expect(status.phase === "connected", `phase ${status.phase}`);
  expect(status.queuedResources === 0, `${status.queuedResources} resources queued`);
  expect(status.queuedBytes === 0, `${status.queuedBytes} bytes queued`);
  expect(status.unacknowledged === 0, `${status.unacknowledged} resources not acknowledged`);
  expect(status.applying === 0, `${status.applying} responses not applied`);
  expect(status.lagMs === 0, `lag of ${status.lagMs} ms`);
  expect(status.failedAttempts === 0, `${status.failedAttempts} failed attempts`);
  expect(status.nextAttemptAt === undefined, "a next attempt");
  expect(status.withheldServices.size === 0, `${status.withheldServices.size} services withheld`);
  expect(status.healthy, "not healthy");
  return wrong;
}

/** Whether the list that the importer's status shows is what the exporter exports. */
function listsMissing(importer: string, view: PeeringView, exported: readonly string[]): readonly string[] {
  const shown = view.status.stream.importedServices.map((name) => name.toLowerCase()).toSorted();
  const expected = exported.map((name) => name.toLowerCase()).toSorted();
  if (shown.join() === expected.join()) return [];
  return [`${importer} shows [${shown.join(" ")}] of ${view.name}, which exports [${expected.join(" ")}]`];
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
