import { errorText, PeeringError } from "../../base/errors.js";
import { createHost, machineryOf, type PeeringHost } from "../../host/host.js";
import type { Write } from "../../storage/storage.js";
import { PeeringRecords } from "../../stores/records.js";
import { plainSecretBox, type SecretBox, sealedSecretBox } from "../../trust/secret-box.js";
import { fixedAuthority } from "../fixed-authority.js";
import type { MutableLife, SimCluster } from "./cluster.js";
import { Damage } from "./damage.js";
import { InvariantChecker } from "./invariants.js";
import { Scheduler, SeededRandom, virtualClock } from "./scheduler.js";
import { SimDisk } from "./sim-disk.js";
import { SimLeadership } from "./sim-leadership.js";
import { SimNetwork, type SimStream } from "./sim-network.js";
import { type CommitFate, SimStorage } from "./sim-storage.js";
import { isImport, isRecord } from "./stored-forms.js";

/** Where a crash is forced: at that commit of that host, counted from 1, or right after it. */
export interface ForcedCrash {
  readonly host: number;
  readonly commit: number;
  readonly when: "before" | "after";
}

export interface SimWorldOptions {
  readonly seed: number;
  readonly hosts: number | undefined;
  readonly crashAt: ForcedCrash | undefined;
  readonly onTrace: ((line: string) => void) | undefined;
}

/** How a process ends that does not end by itself. */
export type CrashKind = "killed" | "power-loss";

/** Clusters on one network in virtual time, and everything that is to be seen of them. */
export class SimWorld {
  readonly random: SeededRandom;
  readonly scheduler: Scheduler = new Scheduler();
  readonly network: SimNetwork;
  readonly clusters: SimCluster[] = [];
  readonly checker: InvariantChecker;
  readonly trace: string[] = [];
  readonly counts: Record<string, number> = {};
  /** Whether anything goes wrong on purpose. */
  faults = true;
  failRate = 0;
  /** Whose disks refuse every write now. */
  readonly failingDisks: Set<SimCluster> = new Set<SimCluster>();
  /** Whose disks refuse to change records now. */
  readonly failingRecords: Set<SimCluster> = new Set<SimCluster>();
  /** Whose disks refuse to change imports now. */
  readonly failingImports: Set<SimCluster> = new Set<SimCluster>();
  /** Whose disks take every import now and do not answer; they can then not be read either. */
  readonly silentDisks: Set<SimCluster> = new Set<SimCluster>();
  /** Whose disks refuse every read now. */
  readonly unreadableDisks: Set<SimCluster> = new Set<SimCluster>();
  diskMs = 1;
  /** How likely a commit is to be the last one of a life; most worlds crash seldom, some all the time. */
  crashRate: number;
  /** Until when peers that are no hosts may go on. */
  scriptsUntil = 0;
  readonly #crashAt: ForcedCrash | undefined;
  readonly #onTrace: ((line: string) => void) | undefined;
  /** By itself, so that it decides nothing else. */
  readonly #power: SeededRandom;
  readonly #commits = new Map<SimCluster, number>();
  /** Since when these do not lead. */
  readonly #followers = new Map<SimCluster, number>();
  #scripted = 0;
  #aliases = 0;

  constructor({ seed, hosts: given, crashAt, onTrace }: SimWorldOptions) {
    this.#crashAt = crashAt;
    this.#onTrace = onTrace;
    this.random = new SeededRandom(seed);
    this.#power = new SeededRandom(seed ^ 0x2545f491);
    this.network = new SimNetwork(this.scheduler, new SeededRandom(seed ^ 0x5bd1e995));
    this.checker = new InvariantChecker(
      (text) => this.note(`FAILURE ${text}`),
      () => this.scheduler.now,
    );
    this.#listen();
    const hosts = given ?? 2 + this.random.below(4);
    if (!Number.isInteger(hosts) || hosts < 2 || hosts > 5) throw new TypeError("hosts must be 2 to 5");
    this.crashRate = this.random.chance(0.1) ? 0.03 : 0.002;
    for (let index = 0; index < hosts; index++) this.clusters.push(this.#cluster(index));
  }

  get failed(): boolean {
    return this.checker.failures.length > 0;
  }

  runUntil(untilMs: number, done: () => boolean): Promise<void> {
    return this.scheduler.run(untilMs, done, () => {
      for (const cluster of this.clusters) this.checker.check(cluster);
      this.checker.watch(this.clusters);
    });
  }

  /** Lets virtual time go on until `work`, which may read from simulated disks, is done. */
  async settled<T>(work: Promise<T>): Promise<T | undefined> {
    let over = false;
    const settled = work.finally(() => {
      over = true;
    });
    settled.catch(() => {});
    await this.runUntil(Number.POSITIVE_INFINITY, () => over || this.failed);
    return over ? settled : undefined;
  }

  count(kind: string): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
  }

  note(text: string): void {
    const line = `${this.scheduler.now.toFixed(3)} ${text}`;
    this.trace.push(line);
    this.#onTrace?.(line);
  }

  clusterAt(address: string): SimCluster | undefined {
    return this.clusters.find((cluster) => cluster.address === address);
  }

  isFrozen(cluster: SimCluster): boolean {
    return cluster.life.frozenUntil > this.scheduler.now;
  }

  /** The name of the next peer that is no host. */
  nextScripted(): string {
    return `x${this.#scripted++}`;
  }

  // --- lives -----------------------------------------------------------------------------------------------------------

  start(cluster: SimCluster): void {
    const life: MutableLife = { alive: true, frozenUntil: 0, wallAheadMs: cluster.life.wallAheadMs };
    cluster.life = life;
    cluster.leadership = new SimLeadership();
    this.note(`${cluster.name} starts`);
    this.#host(cluster, life).then(
      (host) => {
        if (!life.alive) return;
        cluster.host = host;
        this.note(`${cluster.name} is up`);
      },
      (error: unknown) => {
        if (!life.alive) return;
        // A host that cannot start (its disk refused) is started again, as a supervisor would.
        life.alive = false;
        cluster.refusal = error;
        this.note(`${cluster.name} failed to start: ${errorText(error)}`);
        this.scheduler.after(1_000, () => this.start(cluster));
      },
    );
  }

  /** @param kind - after a loss of power, commits that were not durable may be gone. */
  crash(
    cluster: SimCluster,
    life: MutableLife,
    downMs: number = this.random.between(10, 30_000),
    kind: CrashKind = "killed",
  ): void {
    if (!life.alive) return;
    life.alive = false;
    this.#endDisk(cluster, kind);
    cluster.host = undefined;
    this.network.processDied(cluster.address);
    this.count("crash");
    this.note(`${cluster.name} crashes`);
    this.scheduler.after(downMs, () => this.start(cluster));
  }

  #endDisk(cluster: SimCluster, kind: CrashKind): void {
    const { disk } = cluster;
    const kept = kind === "killed" ? disk.relaxed : this.#power.below(disk.relaxed + 1);
    if (kept < disk.relaxed) {
      this.count("commits-lost-with-power");
      this.note(`${cluster.name} loses ${disk.relaxed - kept} commits`);
    }
    this.checker.lost(cluster, disk.crashed(kept));
  }

  /** The disk of a cluster as one of its processes sees it. */
  storage(cluster: SimCluster, life: MutableLife, crash: () => void): SimStorage {
    return new SimStorage({
      scheduler: this.scheduler,
      life,
      disk: cluster.disk,
      damage: cluster.damage,
      fate: (writes) => this.#fateOf(cluster, writes),
      failsToRead: () => this.unreadableDisks.has(cluster) || (this.faults && this.random.chance(this.failRate)),
      onCommit: (writes, begunAt, revision) => this.checker.committed(cluster, writes, begunAt, revision),
      latencyMs: () => this.random.between(0, this.diskMs),
      crash,
    });
  }

  // --- who leads, and where who is reached -----------------------------------------------------------------------------

  unseat(cluster: SimCluster, forMs: number): void {
    this.count("leadership");
    this.note(`${cluster.name} leads no more`);
    const { leadership } = cluster;
    this.#followers.set(cluster, this.scheduler.now);
    leadership.move(false);
    this.scheduler.after(forMs, () => {
      this.note(`${cluster.name} leads again`);
      leadership.move(true);
    });
  }

  partition(cluster: SimCluster, other: SimCluster): void {
    this.count("partition");
    this.note(`partition ${cluster.name} ${other.name}`);
    this.network.partition(cluster.address, other.address);
    this.scheduler.after(this.random.between(10, 300_000), () => {
      // In peace everything has been healed: a partition then is deliberate.
      if (!this.faults) return;
      this.note(`heal ${cluster.name} ${other.name}`);
      this.network.heal(cluster.address, other.address);
    });
  }

  /**
   * The cluster starts again with another address to be dialed at. Dialers that know the old one have a while to learn it, then
   * no host is reached there until the faults stop.
   */
  moveAddress(cluster: SimCluster): void {
    const former = cluster.advertised;
    const alias = `${cluster.name}-${++this.#aliases}:8503`;
    this.network.addAlias(alias, cluster.address);
    // Consul sends what its servers say, and two of them may say the same.
    cluster.advertised = this.random.chance(0.3) ? [alias, alias] : [alias];
    this.count("move");
    this.note(`${cluster.name} moves to ${cluster.advertised.join(" ")}`);
    this.crash(cluster, cluster.life, this.random.between(10, 1_000));
    this.scheduler.after(this.random.between(60_000, 200_000), () => {
      if (!this.faults) return;
      this.note(`${former.join(" ")} leads nowhere any more`);
      for (const address of former) this.network.block(address);
    });
  }

  /** Everything that goes wrong on purpose ends. */
  calmDown(): void {
    this.note("the faults stop");
    this.faults = false;
    this.failRate = 0;
    this.diskMs = 1;
    this.network.healAll();
    for (const cluster of this.clusters) cluster.leadership.move(true);
  }

  #cluster(index: number): SimCluster {
    const digits = String(index + 1).repeat(8);
    const address = `h${index}:8503`;
    const cluster: SimCluster = {
      index,
      name: `h${index}`,
      address,
      advertised: [address],
      disk: new SimDisk(),
      damage: new Damage(),
      refusal: undefined,
      authority: fixedAuthority({
        trustDomain: `${digits}-2222-3333-4444-555555555555.consul`,
        cluster: index,
        clock: virtualClock(this.scheduler, { alive: true }),
      }),
      sealed: this.random.chance(0.5),
      life: { alive: false, frozenUntil: 0, wallAheadMs: 0 },
      leadership: new SimLeadership(),
      ledUntil: () => (cluster.leadership.isLeader ? this.scheduler.now : (this.#followers.get(cluster) ?? 0)),
      host: undefined,
      machinery: () => cluster.host && machineryOf(cluster.host),
    };
    return cluster;
  }

  #host(cluster: SimCluster, life: MutableLife): Promise<PeeringHost> {
    const random = new SeededRandom(this.random.below(2 ** 32));
    return createHost({
      datacenter: `dc${cluster.index}`,
      storage: this.storage(cluster, life, () =>
        this.crash(cluster, life, undefined, this.#power.chance(0.3) ? "power-loss" : "killed"),
      ),
      transport: this.network.transport(cluster.address, life),
      authority: cluster.authority,
      leadership: cluster.leadership,
      clock: virtualClock(this.scheduler, life),
      random,
      advertise: cluster.advertised,
      secretBox: secretBoxOf(cluster, random),
    });
  }

  #fateOf(cluster: SimCluster, writes: readonly Write[]): CommitFate {
    const imports = writes.some(({ key }) => isImport(key));
    if (this.failingDisks.has(cluster) || (imports && this.failingImports.has(cluster))) return "fail";
    if (this.failingRecords.has(cluster) && writes.some(({ key }) => isRecord(key))) return "fail";
    if (imports && this.silentDisks.has(cluster)) {
      this.unreadableDisks.add(cluster);
      return "unanswered";
    }
    if (!this.faults) return "succeed";
    const commit = (this.#commits.get(cluster) ?? 0) + 1;
    this.#commits.set(cluster, commit);
    if (this.#crashAt?.host === cluster.index && this.#crashAt.commit === commit) {
      return this.#counted("crash-at-commit", this.#crashAt.when === "before" ? "crash-before" : "crash-after");
    }
    if (this.random.chance(this.failRate)) {
      const kind = this.random.fraction();
      if (kind < 0.6) return this.#counted("commit-failed", "fail");
      return kind < 0.8 ? this.#counted("commit-lost", "lost") : this.#counted("commit-unanswered", "unanswered");
    }
    if (this.random.chance(this.crashRate)) return this.#counted("crash-before-commit", "crash-before");
    return this.random.chance(this.crashRate) ? this.#counted("crash-after-commit", "crash-after") : "succeed";
  }

  #counted<T>(kind: string, value: T): T {
    this.count(kind);
    return value;
  }

  #listen(): void {
    const { network, checker } = this;
    network.onSend = (stream, messages) => this.#sent(stream, messages);
    network.onReceive = (stream, messages) => {
      const receiver = this.clusterAt(stream.address);
      if (receiver !== undefined) for (const bytes of messages) checker.received(receiver, stream, bytes);
    };
    network.onClose = (stream, status) => {
      const owner = this.clusterAt(stream.address);
      if (owner !== undefined) checker.closed(owner, stream, status);
    };
    network.onExchange = (address, request, streamSecret) => {
      checker.exchanged(this.clusterAt(address), request, streamSecret);
    };
    network.onAttempt = (from, to, purpose) => {
      const dialer = this.clusterAt(from);
      if (dialer !== undefined) checker.attempted(dialer, to, purpose);
    };
  }

  #sent(stream: SimStream, messages: readonly Uint8Array[]): void {
    const sender = this.clusterAt(stream.address);
    const receiver = this.clusterAt(stream.remoteAddress);
    for (const bytes of messages) {
      const type = this.checker.sent(sender, receiver, stream, bytes);
      if (sender !== undefined) this.count(`sent-${type}`);
      if (sender !== undefined && receiver !== undefined && type === "response") this.count("sent-between-hosts");
    }
  }

  /** Does something that callers of a host do, and notes what becomes of it. Whatever fails must say so with a typed error. */
  attempt(kind: string, text: string, work: Promise<unknown>): void {
    this.count(kind);
    this.note(`${kind} ${text}`);
    work.then(
      () => this.note(`${kind} ${text}: done`),
      (error: unknown) => {
        if (!(error instanceof PeeringError) && !(error instanceof AggregateError)) {
          this.checker.fail(`${kind} ${text} failed without a typed error: ${errorText(error)}`);
        }
        this.note(`${kind} ${text}: ${errorText(error).replaceAll("\n", " ")}`);
      },
    );
  }

  /** A second process writes to the disk of a cluster, which its host follows. */
  async anotherProcess(cluster: SimCluster, work: (records: PeeringRecords) => Promise<void>): Promise<void> {
    const life = { alive: true, frozenUntil: 0, wallAheadMs: 0 };
    const random = new SeededRandom(this.random.below(2 ** 32));
    const storage = this.storage(cluster, life, () => {
      life.alive = false;
    });
    const secretBox = secretBoxOf(cluster, random);
    const clock = virtualClock(this.scheduler, life);
    const { trustDomain } = cluster.authority;
    await using records = await PeeringRecords.open({ storage, clock, random, secretBox, trustDomain });
    await work(records);
  }

  /** An operator of a cluster establishes a peering. */
  async establish(cluster: SimCluster, peerName: string, token: string): Promise<void> {
    const { host } = cluster;
    if (host === undefined || this.isFrozen(cluster)) throw new PeeringError("unavailable", "nobody took the token");
    await host.peerings.establish({ peerName, token });
  }

  /** A token of a host, of which the observer is told. */
  async generateToken(cluster: SimCluster, peerName: string): Promise<string> {
    const { host } = cluster;
    if (host === undefined) throw new PeeringError("unavailable", "nobody gives a token");
    const manual = this.random.chance(0.1) ? { serverExternalAddresses: [cluster.address] } : {};
    const token = await host.peerings.generateToken({ peerName, ...manual });
    // The messages of a process that died are not sent.
    if (cluster.host === host) this.checker.tokenGiven(cluster, token);
    return token;
  }
}

/** How a cluster keeps secrets that must be readable again. */
function secretBoxOf({ sealed, index }: SimCluster, random: SeededRandom): SecretBox {
  return sealed ? sealedSecretBox(new Uint8Array(32).fill(index + 1), random) : plainSecretBox;
}
