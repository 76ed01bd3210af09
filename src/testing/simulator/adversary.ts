import type { PeeringHost } from "../../host/host.js";
import type { SimCluster } from "./cluster.js";
import { type Observer, observe } from "./observers.js";
import { nearlyToken, SCRIPTS, scriptedPeer } from "./scripted-peers.js";
import type { SimWorld } from "./sim-world.js";
import { isSentAgain } from "./stored-forms.js";

const SERVICES = ["web", "db", "cache", "billing", "Auth", "mail"];
const NODES = ["node-1", "node-2", "node-3", "node-4"];
const STATUSES = ["passing", "passing", "warning", "critical"];
/** Longer than peers wait for a heartbeat. */
const SILENCE_MS = 125_000;
const DAY_MS = 24 * 60 * 60_000;

interface ExportedServiceRule {
  readonly name: string;
  readonly consumers: readonly { readonly peer: string }[];
}

const WAYS_TO_PEER = [
  "once",
  "once",
  "once",
  "once",
  "once",
  "once",
  "same token twice",
  "two tokens at once",
  "superseded token",
  "nearly right token",
  "deleted meanwhile",
] as const;

/** Operators that do what operators do, at the wrong moments, and everything that can go wrong without them. */
export class Adversary {
  readonly #world: SimWorld;
  readonly #exported = new Map<SimCluster, readonly ExportedServiceRule[]>();
  readonly #observers: Observer[] = [];
  #acts = 0;

  constructor(world: SimWorld) {
    this.#world = world;
  }

  /** How often it has acted. */
  get acts(): number {
    return this.#acts;
  }

  get observers(): readonly Observer[] {
    return this.#observers;
  }

  /** Acts, and again after a while, until the faults stop. */
  act(): void {
    const { random, scheduler, faults } = this.#world;
    if (!faults) return;
    this.#acts++;
    const choice = random.fraction();
    if (choice < 0.26) this.#catalogChange();
    else if (choice < 0.35) this.#exportChange();
    else if (choice < 0.5) this.#peer();
    else if (choice < 0.56) this.#delete();
    else if (choice < 0.59) this.#rotate();
    else if (choice < 0.635) this.#crashSome();
    else if (choice < 0.645) this.#losePower();
    else if (choice < 0.69) this.#partitionSome();
    else if (choice < 0.77) this.#disturbConnection();
    else if (choice < 0.81) this.#disturbDisk();
    else if (choice < 0.84) this.#moveLeadership();
    else if (choice < 0.86) this.#freeze();
    else if (choice < 0.87) this.#replace();
    else if (choice < 0.885) this.#moveAddress();
    else if (choice < 0.893) this.#damage();
    else if (choice < 0.9) this.#setClock();
    else if (choice < 0.92) this.#anotherProcess();
    else if (choice < 0.95) this.#observeSome();
    else this.#letLoose();
    const long = random.chance(0.1);
    const waitMs = long ? random.between(10_000, 180_000) : random.between(1, 3_000);
    scheduler.after(waitMs, () => this.act());
  }

  #someHost(): { readonly cluster: SimCluster; readonly host: PeeringHost } | undefined {
    const up = this.#world.clusters.flatMap((cluster) =>
      cluster.host === undefined || this.#world.isFrozen(cluster) ? [] : [{ cluster, host: cluster.host }],
    );
    return this.#world.random.pick(up);
  }

  #other(cluster: SimCluster): SimCluster {
    const others = this.#world.clusters.filter((candidate) => candidate !== cluster);
    return this.#world.random.pick(others) ?? cluster;
  }

  // --- services --------------------------------------------------------------------------------------------------------

  #catalogChange(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    if (this.#world.random.chance(0.1)) this.#burst(chosen.cluster);
    else this.#catalogChangeAt(chosen.cluster, chosen.host);
  }

  #catalogChangeAt(cluster: SimCluster, host: PeeringHost): void {
    const { random } = this.#world;
    const service = random.pick(SERVICES) ?? "web";
    const node = random.pick(NODES) ?? "node-1";
    const proxy = random.chance(0.15);
    const id = `${service.toLowerCase()}-${proxy ? "proxy" : random.below(3)}`;
    const attempt = (kind: string, text: string, work: Promise<unknown>): void => {
      this.#world.attempt(kind, `${cluster.name} ${text}`, work);
    };
    if (random.chance(0.3)) {
      attempt("deregister", `${node}/${id}`, host.catalog.deregister({ node, serviceId: id }));
      return;
    }
    const where = { node, address: `10.${cluster.index}.0.${NODES.indexOf(node) + 1}` };
    if (proxy) {
      // In the mesh: its peers give it virtual addresses.
      const name = `${service}-sidecar-proxy`;
      const sidecar = {
        kind: "connect-proxy" as const,
        id,
        name,
        port: 21_000,
        proxy: { destinationServiceName: service },
      };
      attempt("register-proxy", `${node}/${id}`, host.catalog.register({ ...where, service: sidecar }));
      if (random.chance(0.3)) {
        const gateway = { kind: "mesh-gateway" as const, id: "gateway", name: "gateway", port: 443 };
        attempt("register-gateway", node, host.catalog.register({ ...where, service: gateway }));
      }
      return;
    }
    const status = random.pick(STATUSES) ?? "passing";
    const port = 1_000 + random.below(1_000);
    const registration = host.catalog.register({
      ...where,
      nodeMeta: { rack: `r${random.below(3)}` },
      service: { id, name: service, port, tags: [`t${random.below(4)}`] },
      checks: [{ checkId: `${id}-check`, name: "alive", status, serviceId: id }],
    });
    attempt("register", `${node}/${id} ${status} port ${port}`, registration);
  }

  /** Several changes at once, on disks that take their time for a moment. */
  #burst(cluster: SimCluster): void {
    const { random, scheduler, diskMs } = this.#world;
    const { host } = cluster;
    if (host === undefined || this.#world.isFrozen(cluster)) return;
    this.#world.count("burst");
    if (diskMs === 1) {
      this.#world.diskMs = random.between(1, 60);
      scheduler.after(random.between(10, 500), () => {
        this.#world.diskMs = 1;
      });
    }
    for (let left = 3 + random.below(6); left > 0; left--) {
      scheduler.after(random.between(0, 40), () => {
        if (cluster.host === host && !this.#world.isFrozen(cluster)) this.#catalogChangeAt(cluster, host);
      });
    }
  }

  #exportChange(): void {
    const { random, scheduler, clusters } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    if (random.chance(0.3)) {
      const before = this.#exported.get(cluster);
      this.#world.attempt("unexport", cluster.name, host.exports.delete());
      if (before === undefined || random.chance(0.3)) return;
      // And exported again: the stream that stands must send it again.
      scheduler.after(random.between(1, 200), () => {
        if (cluster.host === host && !this.#world.isFrozen(cluster)) {
          this.#world.attempt("export", `${cluster.name} as before`, host.exports.set({ services: before }));
        }
      });
      return;
    }
    const names = random.chance(0.5) ? ["*"] : SERVICES.filter(() => random.chance(0.5));
    const services = names.map((name) => ({
      name,
      consumers: clusters
        .filter((consumer) => consumer !== cluster && random.chance(0.8))
        .map((consumer) => ({ peer: consumer.name })),
    }));
    const usable = services.filter(({ consumers }) => consumers.length > 0);
    const text = usable
      .map(({ name, consumers }) => `${name}>${consumers.map(({ peer }) => peer).join("+")}`)
      .join(" ");
    this.#exported.set(cluster, usable);
    this.#world.attempt("export", `${cluster.name} ${text}`, host.exports.set({ services: usable }));
  }

  // --- peerings --------------------------------------------------------------------------------------------------------

  #peer(): void {
    const { random } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const acceptor = chosen.cluster;
    const dialer = this.#other(acceptor);
    const way = random.pick(WAYS_TO_PEER) ?? "once";
    const generate = (): Promise<string> => this.#world.generateToken(acceptor, dialer.name);
    const establish = (token: string): Promise<void> => this.#world.establish(dialer, acceptor.name, token);
    const work = async (): Promise<unknown> => {
      const token = await generate();
      switch (way) {
        case "once":
          return establish(token);
        case "same token twice":
          return Promise.any([establish(token), establish(token)]);
        case "two tokens at once": {
          const first = establish(token);
          // Whatever happens to the first one, the second one counts.
          first.catch(() => {});
          return establish(await generate());
        }
        case "superseded token": {
          await generate();
          return establish(token);
        }
        case "nearly right token":
          return establish(nearlyToken(token, random.below(6)));
        case "deleted meanwhile": {
          const running = establish(token);
          running.catch(() => {});
          await dialer.host?.peerings.delete(acceptor.name);
          return running;
        }
      }
    };
    this.#world.attempt("peer", `${dialer.name} dials ${acceptor.name}: ${way}`, work());
  }

  #delete(): void {
    const { random } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const peer = this.#other(cluster);
    // Deleted, and replaced, while much is under way: the races are there.
    if (random.chance(0.5)) this.#burst(peer);
    this.#world.attempt("delete", `${cluster.name} ${peer.name}`, host.peerings.delete(peer.name));
    if (random.chance(0.2) && peer.host !== undefined && !this.#world.isFrozen(peer)) {
      this.#world.attempt("delete", `${peer.name} ${cluster.name}`, peer.host.peerings.delete(cluster.name));
    }
  }

  /**
   * An acceptor deletes a peering and creates it again, and its dialer establishes over the old record before it has read
   * the `Terminated` of the old stream: that one must not end the new peering (D-12).
   */
  #replace(): void {
    const { random, scheduler, network } = this.#world;
    const streams = network.connections.filter(({ frozen, pausedUntil }) => !frozen && pausedUntil === 0);
    const connection = random.pick(streams);
    const acceptor = this.#world.clusterAt(connection?.acceptor.address ?? "");
    const dialer = this.#world.clusterAt(connection?.dialer.address ?? "");
    if (connection === undefined || acceptor === undefined || dialer === undefined) return;
    if (this.#world.isFrozen(acceptor)) return;
    connection.pausedUntil = scheduler.now + random.between(5_000, 8_000);
    this.#world.diskMs = 1_500;
    scheduler.after(10_000, () => {
      this.#world.diskMs = 1;
    });
    const work = async (): Promise<void> => {
      await acceptor.host?.peerings.delete(dialer.name);
      await acceptor.host?.peerings.deleted(dialer.name);
      const token = await this.#world.generateToken(acceptor, dialer.name);
      await this.#world.establish(dialer, acceptor.name, token);
    };
    this.#world.attempt("replace", `${dialer.name} at ${acceptor.name}`, work());
  }

  /**
   * A second process on the same disk gives a token for the same peer at the same time: of two records of one name one
   * must win. The host learns of the other's write a while later.
   */
  #anotherProcess(): void {
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const peer = this.#other(cluster);
    const work = this.#world.anotherProcess(cluster, async (records) => {
      const generating = records.generateToken({ peerName: peer.name });
      generating.catch(() => {});
      if (cluster.host === host) await this.#world.generateToken(cluster, peer.name);
      await generating;
    });
    this.#world.attempt("another-process", `${cluster.name} ${peer.name}`, work);
  }

  #rotate(): void {
    const { random } = this.#world;
    const cluster = random.pick(this.#world.clusters);
    if (cluster === undefined || this.#world.isFrozen(cluster)) return;
    if (random.chance(0.3)) this.#world.partition(cluster, this.#other(cluster));
    this.#world.count("rotate");
    this.#world.note(`rotate ${cluster.name}`);
    cluster.authority.rotate();
    if (random.chance(0.5)) cluster.authority.prune();
  }

  // --- processes, networks, disks, clocks ------------------------------------------------------------------------------

  #crashSome(): void {
    const chosen = this.#someHost();
    if (chosen !== undefined) this.#world.crash(chosen.cluster, chosen.cluster.life);
  }

  /** Several processes die at one moment, with all that is under way to their disks. */
  #losePower(): void {
    const { random, clusters } = this.#world;
    this.#world.count("power-loss");
    this.#world.note("the power fails");
    for (const cluster of clusters) {
      if (random.chance(0.7)) this.#world.crash(cluster, cluster.life, undefined, "power-loss");
    }
  }

  /** A process dies, and some of the resources its peers sent cannot be read any more when it starts again. */
  #damage(): void {
    const { random } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster } = chosen;
    this.#world.crash(cluster, cluster.life);
    const records = [...this.#world.checker.disk(cluster).records.values()];
    const mark = async (): Promise<void> => {
      for (const { key } of (await cluster.disk.read([])).entries) {
        if (!records.some((record) => isSentAgain(key, record)) || !random.chance(0.3)) continue;
        cluster.damage.add(key);
        this.#world.count("damage");
        this.#world.note(`${cluster.name}: ${key.join("/")} is damaged`);
      }
    };
    void mark();
  }

  #moveAddress(): void {
    const chosen = this.#someHost();
    if (chosen !== undefined) this.#world.moveAddress(chosen.cluster);
  }

  /** The wall clock of a process is set, forwards or backwards. */
  #setClock(): void {
    const { random } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { life, name } = chosen.cluster;
    life.wallAheadMs = random.between(-20, 20) * DAY_MS;
    this.#world.count("clock-set");
    this.#world.note(`the clock of ${name} is ${(life.wallAheadMs / DAY_MS).toFixed(1)} days ahead`);
  }

  #partitionSome(): void {
    const cluster = this.#world.random.pick(this.#world.clusters);
    if (cluster !== undefined) this.#world.partition(cluster, this.#other(cluster));
  }

  #disturbConnection(): void {
    const { random, scheduler, network } = this.#world;
    const connection = random.pick(network.connections);
    if (connection === undefined) return;
    const ends = `${connection.dialer.address} ${connection.acceptor.address}`;
    const kind = random.fraction();
    if (kind < 0.4) {
      this.#world.count("cut");
      this.#world.note(`cut ${ends}`);
      network.cut(connection);
    } else if (kind < 0.7) {
      this.#world.count("half-open");
      this.#world.note(`half-open ${ends}`);
      network.freeze(connection);
    } else {
      this.#world.count("slow-reader");
      this.#world.note(`slow reader ${ends}`);
      connection.pausedUntil = scheduler.now + random.between(1_000, 100_000);
    }
  }

  #moveLeadership(): void {
    const chosen = this.#someHost();
    if (chosen !== undefined) this.#world.unseat(chosen.cluster, this.#world.random.between(1, 100_000));
  }

  /** Stops a process for longer than its peers wait for a heartbeat, or a little while. */
  #freeze(): void {
    const { random, scheduler } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster } = chosen;
    const forMs = random.between(1_000, 200_000);
    this.#world.count(forMs > SILENCE_MS ? "frozen-long" : "frozen");
    this.#world.note(`${cluster.name} is frozen for ${forMs.toFixed(0)} ms`);
    cluster.life.frozenUntil = scheduler.now + forMs;
  }

  #disturbDisk(): void {
    const { random, scheduler } = this.#world;
    const lag = random.chance(0.5);
    this.#world.count(lag ? "lagging-disk" : "failing-disk");
    this.#world.note(lag ? "disks lag" : "disks fail");
    if (lag) this.#world.diskMs = 2_000;
    else this.#world.failRate = 0.4;
    scheduler.after(random.between(100, 20_000), () => {
      this.#world.diskMs = 1;
      this.#world.failRate = 0;
    });
  }

  // --- others ----------------------------------------------------------------------------------------------------------

  /** An observer watches the imports of a host, as fast as they come or slowly. */
  #observeSome(): void {
    const { random } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const peer = this.#other(cluster);
    this.#world.count("observer");
    this.#observers.push(observe(this.#world, cluster, host, peer.name, random.chance(0.5) ? 0 : 5_000));
    this.#world.attempt("read", `${cluster.name} ${peer.name}`, readAll(host, peer.name));
  }

  /** A peer that is no host, and keeps to nothing. */
  #letLoose(): void {
    const { random } = this.#world;
    const chosen = this.#someHost();
    if (chosen === undefined) return;
    const { cluster, host } = chosen;
    const script = random.pick(SCRIPTS) ?? "nonsense";
    const name = this.#world.nextScripted();
    const work = scriptedPeer(this.#world, { script, name, cluster, host, lastsMs: random.between(1_000, 300_000) });
    this.#world.attempt(`script-${script}`, `${name} at ${cluster.name}`, work);
  }
}

async function readAll(host: PeeringHost, peer: string): Promise<void> {
  for (const { name } of host.imports.services({ peer })) await host.imports.instances({ peer, service: name });
}
