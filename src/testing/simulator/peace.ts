import { errorText } from "../../base/errors.js";
import { machineryOf, type PeeringHost } from "../../host/host.js";
import type { PeeringView } from "../../host/peerings.js";
import { encodeServicePayload } from "../../payload/exported-payload.js";
import { decodePayload, diffInstances } from "../../payload/imported-payload.js";
import type { Key } from "../../storage/storage.js";
import { TokenCodec } from "../../token/token-codec.js";
import type { SimCluster } from "./cluster.js";
import { type Observer, observe } from "./observers.js";
import { type Script, scriptedPeer } from "./scripted-peers.js";
import type { Connection } from "./sim-network.js";
import type { SimWorld } from "./sim-world.js";
import { dials, digestOf, isSentAgain, isStanding } from "./stored-forms.js";

/** After the faults: enough for a heartbeat timeout, the longest back-off and a connect bound, several times over. */
const CALM_MS = 20 * 60_000;
const CALM_CHECK_MS = 5_000;
/** Longest back-off, connect bound and some: in this time a dialer is back after a path has healed (L1). */
const RECONNECT_MS = 90_000;
/** Heartbeat timeout and some: in this time a peer that fell silent reads FAILING (L8). */
const SILENCE_MS = 125_000;
const SIDECAR = "-sidecar-proxy";
/** How the log names a damaged row, by the first part of its key. */
const DAMAGE_TOLD = [
  ["imports", "import-damaged"],
  ["peerings", "trust-bundle-damaged"],
  ["catalog", "virtual-ip-damaged"],
] as const;

const POWER_LOSSES = 3;

/** Whose word counts of the node of a two-faced peer, one after another. */
const TWO_FACED_TURNS = ["left", "right", "left"];

/** Scenes that are played when everything is at rest. Each checks a promise. */
const SCENES = [
  "acceptor deletes",
  "dialer deletes",
  "both delete",
  "a delete into silence",
  "restart",
  "silence",
  "rotate",
  "terminated right after Open",
  "terminated while the disk fails",
  "peered again during the cleanup",
  "established by another process during the cleanup",
  "cleanup without answers",
  "the disk fails for a moment",
  "a follower has to clean",
  "a follower has to dial",
  "deaf",
  "wrong nonces",
  "near-miss",
  "two-faced",
  "order-matters",
  "two-streams",
  "terminated-and-back",
  "usurped",
  "deleted-while-establishing",
  "address-pusher",
  "busy",
  "the mesh goes",
  "what is sent again is damaged",
  "what is not sent again is damaged",
  "the power fails",
] as const;
export type Scene = (typeof SCENES)[number];

/** The conditions that must come true once the faults have stopped: L1 to L9 of docs/invariants.md. */
export class Peace {
  readonly #world: SimWorld;
  readonly #observers: readonly Observer[];

  constructor(world: SimWorld, observers: readonly Observer[]) {
    this.#world = world;
    this.#observers = observers;
  }

  /** Every peering that can connect becomes ACTIVE, every exported service imported and equal, and every deleted peering gone. */
  async converge(): Promise<void> {
    const { clusters, scheduler, checker } = this.#world;
    // Hosts that are still frozen thaw first: until then nothing can be expected of them.
    const thawed = Math.max(...clusters.map(({ life }) => life.frozenUntil));
    await this.#runUntil(thawed);
    const end = scheduler.now + CALM_MS;
    let missing: readonly string[] = [];
    for (let at = scheduler.now; at < end && !this.#failed; at += CALM_CHECK_MS) {
      await this.#runUntil(at + CALM_CHECK_MS);
      missing = (await this.#world.settled(this.#missing())) ?? [];
      if (this.#failed) return;
      if (missing.length === 0) {
        this.#world.note("converged");
        await this.#compareObservers();
        return;
      }
    }
    for (const text of missing) checker.fail(`did not converge: ${text}`);
  }

  /** Where nothing happens, nothing is done: streams stand, heartbeats flow, and that is all. */
  async rest(): Promise<void> {
    const { network, scheduler, scriptsUntil, clusters, checker } = this.#world;
    // The last words of peers that are no hosts, and what becomes of their streams.
    await this.#runUntil(Math.max(scheduler.now, scriptsUntil) + SILENCE_MS);
    if (this.#failed) return;
    const standing = this.#betweenHosts();
    const sentBefore = this.#world.counts["sent-between-hosts"] ?? 0;
    const revisions = await Promise.all(clusters.map(async ({ disk }) => (await disk.read([])).revision));
    await this.#runUntil(scheduler.now + this.#world.random.between(SILENCE_MS, 3 * SILENCE_MS));
    if (this.#failed) return;
    for (const connection of standing) {
      if (network.connections.includes(connection)) continue;
      checker.fail(`the stream of ${connection.dialer.address} to ${connection.acceptor.address} ended for no reason`);
    }
    const sent = (this.#world.counts["sent-between-hosts"] ?? 0) - sentBefore;
    if (sent > 0) checker.fail(`${sent} resources were sent although nothing changed`);
    for (const [index, cluster] of clusters.entries()) {
      const { revision } = await cluster.disk.read([]);
      if (revision !== revisions[index]) checker.fail(`${cluster.name} writes to its disk although nothing changed`);
    }
    await checker.searchDisks(clusters);
  }

  /** Plays some scenes, one after another. */
  async scenes(count: number): Promise<void> {
    for (let left = count; left > 0 && !this.#failed; left--) {
      const [acceptor, dialer] = (await this.#peeredPair()) ?? [];
      if (acceptor === undefined || dialer === undefined || this.#failed) return;
      const scene = this.#world.random.pick(SCENES) ?? "restart";
      this.#world.count(`scene-${scene}`);
      this.#world.note(`scene: ${scene}, ${dialer.name} dials ${acceptor.name}`);
      await this.#play(scene, acceptor, dialer);
    }
    if (!this.#failed) await this.#world.checker.searchDisks(this.#world.clusters);
  }

  async #play(scene: Scene, acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const { random } = this.#world;
    const [one, other] = random.chance(0.5) ? [acceptor, dialer] : [dialer, acceptor];
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
        await this.#deleteIntoSilence(one, acceptor, dialer);
        return this.#peerAgain(acceptor, dialer);
      case "restart":
        return this.#restartOne([one, other], acceptor, dialer);
      case "silence":
        return this.#fallSilent(acceptor, dialer);
      case "rotate":
        acceptor.authority.rotate();
        if (random.chance(0.5)) acceptor.authority.prune();
        return this.#within(5_000, `L6: ${dialer.name} trusts the new roots`, () => this.#inStep(acceptor, dialer));
      case "terminated right after Open": {
        const name = await this.#script("terminated-after-open", acceptor);
        return this.#within(10_000, `${acceptor.name} has heard a Terminated right behind the Open`, () => {
          return acceptor.host?.peerings.read(name)?.state === "terminated";
        });
      }
      case "terminated while the disk fails":
        return this.#terminatedIntoFailure(one, other, acceptor, dialer);
      case "peered again during the cleanup":
        return this.#peerDuringCleanup(acceptor, dialer);
      case "established by another process during the cleanup":
        return this.#establishElsewhere(acceptor, dialer);
      case "the disk fails for a moment":
        return this.#failForAMoment(one, other, acceptor, dialer);
      case "cleanup without answers":
        return this.#cleanWithoutAnswers(one, other, acceptor, dialer);
      case "a follower has to clean":
        return this.#followerCleans(one, other, acceptor, dialer);
      case "a follower has to dial":
        return this.#followerDials(acceptor, dialer);
      case "the mesh goes":
        return this.#meshGoes(one, other, acceptor, dialer);
      case "what is sent again is damaged":
        return this.#damageWhatIsSentAgain(one, other, acceptor, dialer);
      case "what is not sent again is damaged":
        return this.#damageWhatIsNotSentAgain(one, acceptor, dialer);
      case "the power fails":
        return this.#losePower(one, other, acceptor, dialer);
      case "deaf":
        return this.#deaf(one);
      case "wrong nonces":
        return this.#wrongNonces(one);
      case "two-faced":
        return this.#twoFaced(one);
      default: {
        await this.#script(scene, one);
        await this.#runUntil(this.#world.scheduler.now + 15_000);
      }
    }
  }

  // --- Scenes ------------------------------------------------------------------------------------------------------------

  /** A pair that is ACTIVE on both sides; one is made where there is none (L7). */
  async #peeredPair(): Promise<readonly [SimCluster, SimCluster] | undefined> {
    const { clusters, random } = this.#world;
    const pairs = clusters.flatMap((dialer) =>
      (dialer.host?.peerings.list() ?? []).flatMap((view): (readonly [SimCluster, SimCluster])[] => {
        const acceptor = clusters.find(({ name }) => name === view.name);
        const other = acceptor?.host?.peerings.read(dialer.name);
        const up = view.role === "dialer" && view.state === "active" && other?.state === "active";
        return acceptor === undefined || !up ? [] : [[acceptor, dialer]];
      }),
    );
    const found = random.pick(pairs);
    if (found !== undefined) return found;
    const [acceptor, dialer] = clusters;
    if (acceptor === undefined || dialer === undefined) return undefined;
    await this.#bothDelete(acceptor, dialer);
    await this.#peerAgain(acceptor, dialer);
    return [acceptor, dialer];
  }

  async #oneDeletes(cluster: SimCluster, peer: SimCluster): Promise<void> {
    await this.#world.settled(cluster.host?.peerings.delete(peer.name) ?? Promise.resolve());
    await this.#within(20_000, `L2: ${cluster.name} has deleted ${peer.name}`, () => {
      return cluster.host?.peerings.read(peer.name) === undefined;
    });
    await this.#within(20_000, `L3: ${peer.name} has heard that ${cluster.name} deleted it`, () => {
      return this.#isTerminated(peer, cluster);
    });
  }

  /** A peer that cannot be reached delays a delete by no more than the drain, and gets no message later (L2, L4). */
  async #deleteIntoSilence(deleting: SimCluster, acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const { network } = this.#world;
    const other = deleting === acceptor ? dialer : acceptor;
    network.partition(acceptor.address, dialer.address);
    await this.#world.settled(deleting.host?.peerings.delete(other.name) ?? Promise.resolve());
    await this.#within(10_000, `L2: ${deleting.name} has deleted ${other.name}, which does not answer`, () => {
      return deleting.host?.peerings.read(other.name) === undefined;
    });
    await this.#within(SILENCE_MS, `L4, L8: ${other.name} reads FAILING for ${deleting.name}`, () => {
      return other.host?.peerings.read(deleting.name)?.state === "failing";
    });
    network.healAll();
    await this.#bothDelete(acceptor, dialer);
  }

  async #bothDelete(a: SimCluster, b: SimCluster): Promise<void> {
    const deletions = Promise.all([a.host?.peerings.delete(b.name), b.host?.peerings.delete(a.name)]);
    await this.#world.settled(deletions);
    await this.#within(60_000, `L2: ${a.name} and ${b.name} have deleted each other`, () => {
      return a.host?.peerings.read(b.name) === undefined && b.host?.peerings.read(a.name) === undefined;
    });
  }

  async #peerAgain(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    if (this.#failed) return;
    const work = async (): Promise<void> => {
      const token = await this.#world.generateToken(acceptor, dialer.name);
      await this.#world.establish(dialer, acceptor.name, token);
    };
    await this.#world.settled(work().catch((error: unknown) => this.#fail(`L7: ${errorText(error)}`)));
    await this.#within(30_000, `L7, L9: ${acceptor.name} and ${dialer.name} are peered again`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  async #restartOne(
    [restarting, peer]: readonly [SimCluster, SimCluster],
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    // The last removals of the scene before may be under way still.
    await this.#within(RECONNECT_MS, `${restarting.name} has what ${peer.name} exports`, () =>
      this.#inStep(acceptor, dialer),
    );
    const before = await this.#world.settled(importsOf(restarting, peer));
    this.#world.crash(restarting, restarting.life, 1_000);
    await this.#world.runUntil(Number.POSITIVE_INFINITY, () => restarting.host !== undefined || this.#failed);
    const after = await this.#world.settled(importsOf(restarting, peer));
    if (before !== after) this.#fail(`${restarting.name}: imports changed by a restart (I20)`);
    await this.#within(RECONNECT_MS, `L1: ${dialer.name} is back at ${acceptor.name}`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  /** A process ends, or the power fails for all of them, and some of the rows it finds afterwards are damaged. */
  async #restartDamaged(
    cluster: SimCluster,
    choose: (keys: readonly Key[]) => readonly Key[],
  ): Promise<readonly Key[]> {
    const { random, clusters, scheduler } = this.#world;
    const others = random.chance(0.3) ? clusters.filter((other) => other !== cluster) : [];
    cluster.refusal = undefined;
    for (const each of [...others, cluster]) this.#world.crash(each, each.life, 1_000);
    await this.#runUntil(scheduler.now + 500);
    const { entries } = await cluster.disk.read([]);
    const damaged = choose(entries.map(({ key }) => key));
    for (const key of damaged) cluster.damage.add(key);
    this.#world.note(`damaged at ${cluster.name}: ${damaged.map((key) => key.join("/")).join(", ")}`);
    await this.#world.runUntil(
      scheduler.now + 60_000,
      () => cluster.host !== undefined || cluster.refusal !== undefined || this.#failed,
    );
    return damaged;
  }

  /** It starts nevertheless, reports each, shows nothing that is wrong, and has it all again soon. */
  async #damageWhatIsSentAgain(
    damaged: SimCluster,
    peer: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const { random } = this.#world;
    const record = this.#world.checker.disk(damaged).recordOf(peer.name);
    if (record === undefined) return this.#fail(`${damaged.name} has no record of ${peer.name}`);
    // Services that the scene before removed at the peer may be here still, and do not come again.
    await this.#within(RECONNECT_MS, `${damaged.name} has what ${peer.name} exports`, () =>
      this.#inStep(acceptor, dialer),
    );
    const before = (await this.#world.settled(servicesOf(damaged, peer))) ?? new Map();
    const all = random.chance(0.2);
    const keys = await this.#restartDamaged(damaged, (stored) =>
      stored.filter((key) => isSentAgain(key, record) && (all || random.chance(0.4))),
    );
    const { host } = damaged;
    if (host === undefined) {
      return this.#fail(`${damaged.name} does not start, for what its peer sends again: ${errorText(damaged.refusal)}`);
    }
    for (const [owner, kind] of DAMAGE_TOLD) {
      const told = host.incidents.counts().get(kind) ?? 0;
      const count = keys.filter((key) => key[0] === owner).length;
      if (told < count) this.#fail(`${damaged.name} tells of ${told} of ${count} damaged ${owner}`);
    }
    const left = damaged.damage.keys.map((key) => key.join("/"));
    if (left.length > 0) this.#fail(`${damaged.name} keeps what is damaged: ${left.join(", ")}`);
    await this.#within(RECONNECT_MS, `${damaged.name} has again what was damaged`, async () => {
      for (const [name, instances] of await servicesOf(damaged, peer)) {
        if (before.get(name) !== instances) this.#fail(`${damaged.name} shows ${name} as it never was`);
      }
      return this.#inStep(acceptor, dialer);
    });
    const after = (await this.#world.settled(servicesOf(damaged, peer))) ?? new Map();
    const lost = [...before.keys()].filter((name) => !after.has(name));
    if (lost.length > 0) this.#fail(`${damaged.name} has lost ${lost.join(", ")}`);
  }

  /** It does not start, and names the row; with the original row, from a backup, it goes on. */
  async #damageWhatIsNotSentAgain(damaged: SimCluster, acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const { random, scheduler } = this.#world;
    const records = [...this.#world.checker.disk(damaged).records.values()];
    const [key = []] = await this.#restartDamaged(damaged, (stored) => {
      // A host makes the list of names from the records, and reads none of its rows.
      const own = stored.filter((key) => !records.some((one) => isSentAgain(key, one)));
      // Rows of one owner may be many: a record is to be damaged as often as a service.
      const owner = random.pick([...new Set(own.map(([first]) => first))]);
      const chosen = random.pick(own.filter(([first]) => first === owner));
      return chosen === undefined ? [] : [chosen];
    });
    await this.#runUntil(scheduler.now + 5_000);
    const why = errorText(damaged.refusal);
    if (damaged.host !== undefined) this.#fail(`${damaged.name} starts although ${key.join("/")} is damaged`);
    else if (!why.includes(key.join("/"))) this.#fail(`${damaged.name} does not name ${key.join("/")}: ${why}`);
    damaged.damage.mend();
    await this.#within(RECONNECT_MS, `${damaged.name} goes on with what was written`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  async #fallSilent(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const { network, scheduler, random } = this.#world;
    const both = async (): Promise<string> =>
      `${await importsOf(acceptor, dialer)} ${await importsOf(dialer, acceptor)}`;
    // The last removals of the scene before may be under way still.
    await this.#within(RECONNECT_MS, `${acceptor.name} and ${dialer.name} have what the other exports`, () =>
      this.#inStep(acceptor, dialer),
    );
    const before = await this.#world.settled(both());
    network.partition(acceptor.address, dialer.address);
    await this.#within(SILENCE_MS, `L8: ${acceptor.name} and ${dialer.name} read FAILING`, () => {
      const states = [
        acceptor.host?.peerings.read(dialer.name)?.state,
        dialer.host?.peerings.read(acceptor.name)?.state,
      ];
      return states.every((state) => state === "failing");
    });
    if (before !== (await this.#world.settled(both()))) this.#fail("imports changed while FAILING (I20)");
    await this.#runUntil(scheduler.now + random.between(0, 200_000));
    network.healAll();
    await this.#within(RECONNECT_MS, `L1: ${dialer.name} is back at ${acceptor.name} after the path healed`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  /** A message that the peer sends once must be stored in the end, however long the disk refuses. */
  async #terminatedIntoFailure(
    deleting: SimCluster,
    hearing: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    this.#world.failingDisks.add(hearing);
    await this.#world.settled(deleting.host?.peerings.delete(hearing.name) ?? Promise.resolve());
    await this.#runUntil(this.#world.scheduler.now + 3_500);
    this.#world.failingDisks.clear();
    await this.#within(20_000, `L3: ${hearing.name} has stored that ${deleting.name} deleted it`, () => {
      return this.#isTerminated(hearing, deleting);
    });
    await this.#bothDelete(acceptor, dialer);
    await this.#peerAgain(acceptor, dialer);
  }

  /** A record that is established again while its cleanup is under way: imports from then on are the new peering's. */
  async #peerDuringCleanup(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const { scheduler, random } = this.#world;
    this.#world.diskMs = random.between(50, 1_500);
    await this.#world.settled(acceptor.host?.peerings.delete(dialer.name) ?? Promise.resolve());
    await this.#within(60_000, `${acceptor.name} has deleted ${dialer.name}`, () => {
      return acceptor.host?.peerings.read(dialer.name) === undefined;
    });
    const work = async (): Promise<void> => {
      const token = await this.#world.generateToken(acceptor, dialer.name);
      await this.#world.establish(dialer, acceptor.name, token);
    };
    await this.#world.settled(work().catch((error: unknown) => this.#fail(`L7: ${errorText(error)}`)));
    await this.#runUntil(scheduler.now + 2_000);
    this.#world.diskMs = 1;
    await this.#within(60_000, `L9: ${acceptor.name} and ${dialer.name} are peered again`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  /**
   * The record is established again by another process on the same disk, while this one still cleans up after the former
   * peering: the imports belong to the record that stands.
   */
  async #establishElsewhere(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    const { scheduler, network, failingImports } = this.#world;
    await this.#offer(acceptor, dialer, "kept");
    await this.#within(30_000, `${dialer.name} has what it is to keep`, () => this.#inStep(acceptor, dialer));
    failingImports.add(dialer);
    await this.#world.settled(acceptor.host?.peerings.delete(dialer.name) ?? Promise.resolve());
    await this.#within(60_000, `${dialer.name} has heard that ${acceptor.name} deleted it`, () => {
      return dialer.host?.peerings.read(acceptor.name)?.state === "terminated";
    });
    const work = async (): Promise<void> => {
      const text = await this.#world.generateToken(acceptor, dialer.name);
      await this.#world.anotherProcess(dialer, async (records) => {
        const token = TokenCodec.decode(text);
        const begun = await records.beginEstablish({ peerName: acceptor.name, token, connected: false });
        const target = { address: acceptor.address, serverName: token.serverName, caPems: token.ca };
        const exchange = { timeoutMs: 5_000, signal: new AbortController().signal };
        const { streamSecret } = await network
          .transport("elsewhere:1", { alive: true })
          .exchangeSecret(target, token, exchange);
        await records.finishEstablish(begun, streamSecret);
      });
    };
    await this.#world.settled(work().catch((error: unknown) => this.#fail(`L9: ${errorText(error)}`)));
    failingImports.clear();
    await this.#runUntil(scheduler.now + 30_000);
    await this.#bothDelete(acceptor, dialer);
    await this.#peerAgain(acceptor, dialer);
  }

  /** Writes that a disk refused are attempted again. */
  async #failForAMoment(
    importing: SimCluster,
    exporting: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const { scheduler, failingImports } = this.#world;
    failingImports.add(importing);
    await this.#offer(exporting, importing, `refused-${scheduler.now.toFixed(0)}`);
    await this.#runUntil(scheduler.now + 2_000);
    failingImports.clear();
    await this.#within(RECONNECT_MS, `${importing.name} has what its disk had refused`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  /** Services of the mesh have virtual addresses at the other side, for as long as they are there. */
  async #meshGoes(
    importing: SimCluster,
    exporting: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const { checker } = this.#world;
    const name = "meshed";
    const proxy = { destinationServiceName: name };
    const sidecar = { kind: "connect-proxy" as const, name: `${name}-sidecar-proxy`, port: 2, proxy };
    await this.#offer(exporting, importing, name);
    const gateway = { kind: "mesh-gateway" as const, name: "gateway", port: 443 };
    const where = { node: "late", address: "10.8.8.8" };
    const services = [sidecar, gateway].map((service) => exporting.host?.catalog.register({ ...where, service }));
    await this.#world.settled(Promise.all(services));
    const held = (): boolean => checker.disk(importing).virtualIps.get(exporting.name)?.has(name) === true;
    await this.#within(10_000, `${importing.name} gives ${name} of ${exporting.name} a virtual address`, held);
    if (this.#world.random.chance(0.5)) {
      await this.#bothDelete(acceptor, dialer);
    } else {
      await this.#world.settled(Promise.all([exporting.host?.catalog.deregister({ node: "late" })]));
    }
    await this.#within(10_000, `${importing.name} takes back the virtual address of ${name}`, () => !held());
    if (importing.host?.peerings.read(exporting.name) === undefined) await this.#peerAgain(acceptor, dialer);
  }

  /** Imports of which readers were told may be lost: they come again, and no reader is told their index for something else. */
  async #losePower(
    importing: SimCluster,
    exporting: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const world = this.#world;
    for (let round = 0; round < POWER_LOSSES && !this.#failed; round++) {
      const name = `power-${round}`;
      await this.#offer(exporting, importing, name);
      await this.#within(10_000, `${importing.name} imports ${name} of ${exporting.name}`, () => {
        return (
          importing.host?.imports.services({ peer: exporting.name }).some((service) => service.name === name) === true
        );
      });
      world.crash(importing, importing.life, 1_000, "power-loss");
      await world.runUntil(Number.POSITIVE_INFINITY, () => importing.host !== undefined || this.#failed);
      // Something else is committed before the peer sends it again.
      await world.settled(Promise.all([importing.host?.catalog.register({ node: name, address: "10.9.9.9" })]));
      await world.settled(Promise.all([importing.host?.catalog.deregister({ node: name })]));
      await this.#within(RECONNECT_MS, `L1: ${dialer.name} is back at ${acceptor.name}`, () => {
        return this.#inStep(acceptor, dialer);
      });
    }
    await world.settled(Promise.all([exporting.host?.catalog.deregister({ node: "late" })]));
  }

  /** Registers a service and exports everything to this peer. */
  async #offer(exporter: SimCluster, peer: SimCluster, name: string): Promise<void> {
    const { host } = exporter;
    const registration = { node: "late", address: "10.8.8.8", service: { name, port: 1 } };
    const exports = { services: [{ name: "*", consumers: [{ peer: peer.name }] }] };
    await this.#world.settled(Promise.all([host?.catalog.register(registration), host?.exports.set(exports)]));
  }

  /** Commits that were made and not answered leave nothing behind when the peering goes, though no read showed them. */
  async #cleanWithoutAnswers(
    deleting: SimCluster,
    peer: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const { scheduler, silentDisks, unreadableDisks } = this.#world;
    silentDisks.add(deleting);
    await this.#offer(peer, deleting, `late-${scheduler.now.toFixed(0)}`);
    await this.#within(10_000, `${deleting.name} stores what it is not answered for`, () => {
      return unreadableDisks.has(deleting);
    });
    // Long enough for all tries to find out, and not for the stream to come back after them.
    await this.#runUntil(scheduler.now + 500);
    silentDisks.clear();
    unreadableDisks.clear();
    await this.#world.settled(deleting.host?.peerings.delete(peer.name) ?? Promise.resolve());
    await this.#bothDelete(acceptor, dialer);
    await this.#peerAgain(acceptor, dialer);
  }

  /** The leader finishes a cleanup, once it can. */
  async #followerCleans(
    following: SimCluster,
    deleting: SimCluster,
    acceptor: SimCluster,
    dialer: SimCluster,
  ): Promise<void> {
    const { scheduler, failingDisks } = this.#world;
    await this.#world.settled(deleting.host?.peerings.delete(following.name) ?? Promise.resolve());
    await this.#within(20_000, `${following.name} has heard that ${deleting.name} deleted it`, () => {
      return following.host?.peerings.read(deleting.name)?.state === "terminated";
    });
    await this.#world.settled(following.host?.peerings.delete(deleting.name) ?? Promise.resolve());
    failingDisks.add(following);
    this.#world.unseat(following, 100_000);
    await this.#runUntil(scheduler.now + 35_000);
    failingDisks.clear();
    await this.#runUntil(scheduler.now + 70_000);
    await this.#bothDelete(acceptor, dialer);
    await this.#peerAgain(acceptor, dialer);
  }

  async #followerDials(acceptor: SimCluster, dialer: SimCluster): Promise<void> {
    this.#world.unseat(dialer, 60_000);
    await this.#runUntil(this.#world.scheduler.now + 60_001);
    await this.#within(RECONNECT_MS, `${dialer.name} dials ${acceptor.name} again when it leads again`, () => {
      return this.#inStep(acceptor, dialer);
    });
  }

  /** A peer that takes nothing loses its stream, although it sends heartbeats. */
  async #deaf(victim: SimCluster): Promise<void> {
    const name = await this.#script("deaf", victim, 10 * 60_000);
    await this.#runUntil(this.#world.scheduler.now + 2 * SILENCE_MS);
    if (victim.host?.peerings.read(name)?.state === "active") {
      this.#fail(`${victim.name} holds a stream whose peer takes nothing (D-10)`);
    }
  }

  /** An ACK with an unused nonce acknowledges nothing. */
  async #wrongNonces(victim: SimCluster): Promise<void> {
    const { host } = victim;
    const name = await this.#script("wrong-nonces", victim, 60_000);
    await this.#within(10_000, `${victim.name} and ${name} have a stream`, () => {
      return host?.peerings.read(name)?.state === "active";
    });
    await this.#runUntil(this.#world.scheduler.now + 5_000);
    const unacknowledged = host?.peerings.read(name)?.status.unacknowledged ?? 0;
    // A dialer is sent the bundle, the addresses and the list, at least.
    if (unacknowledged < 3) this.#fail(`${victim.name} takes answers to nonces that it never used`);
  }

  /**
   * A node is what the newest of the services says that are still on it: for who has read the service before, for who
   * watches it, and after a restart.
   */
  async #twoFaced(victim: SimCluster): Promise<void> {
    const { host } = victim;
    const name = await this.#script("two-faced", victim, 200_000);
    if (host === undefined) return;
    const saysAs = (service: string) => async (): Promise<boolean> => {
      const instances = await victim.host?.imports.instances({ peer: name, service: "left" });
      return instances?.[0]?.node.meta["rack"] === `as ${service} says`;
    };
    const observer = observe(this.#world, victim, host, name, 0);
    // A read is kept in memory, and must be dropped when another service says otherwise, or that one goes.
    for (const service of TWO_FACED_TURNS) {
      await this.#within(5_000, `the node of ${name} at ${victim.name} is as ${service} says`, saysAs(service));
      await this.#within(200, `${victim.name} tells of it who watches ${name}`, async () => {
        return (await observer.differs()) === undefined;
      });
    }
    const saysAsLeft = saysAs("left");
    this.#world.crash(victim, victim.life, 1_000);
    await this.#world.runUntil(Number.POSITIVE_INFINITY, () => victim.host !== undefined || this.#failed);
    await this.#within(1_000, `the node of ${name} at ${victim.name} is the same after a restart`, saysAsLeft);
    await this.#within(
      RECONNECT_MS,
      `${victim.name} is in step again`,
      async () => (await this.#missing()).length === 0,
    );
  }

  /** @returns The name that the victim knows the scripted peer by. */
  async #script(script: Script, victim: SimCluster, lastsMs = 10_000): Promise<string> {
    const name = this.#world.nextScripted();
    const { host } = victim;
    if (host === undefined) return name;
    const work = scriptedPeer(this.#world, { script, name, cluster: victim, host, lastsMs });
    // Its refusals are right; the observer sees what must not happen.
    await this.#world.settled(work.catch(() => {}));
    return name;
  }

  // --- Promises -----------------------------------------------------------------------------------------------------------

  async #within(limitMs: number, what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    const { scheduler } = this.#world;
    const end = scheduler.now + limitMs;
    while (!this.#failed) {
      if ((await this.#world.settled(Promise.resolve(holds()))) === true) return;
      if (scheduler.now >= end) return this.#fail(`not within ${limitMs} ms: ${what}`);
      await this.#runUntil(Math.min(end, scheduler.now + 250));
    }
  }

  #isTerminated(cluster: SimCluster, peer: SimCluster): boolean {
    const { host } = cluster;
    return (
      host?.peerings.read(peer.name)?.state === "terminated" && host.imports.services({ peer: peer.name }).length === 0
    );
  }

  async #inStep(acceptor: SimCluster, dialer: SimCluster): Promise<boolean> {
    if (acceptor.host === undefined || dialer.host === undefined) return false;
    const views = [acceptor.host.peerings.read(dialer.name), dialer.host.peerings.read(acceptor.name)];
    if (!views.every((view) => view?.state === "active")) return false;
    return (await this.#pairMissing(dialer, dialer.host, acceptor, acceptor.host)).length === 0;
  }

  async #missing(): Promise<readonly string[]> {
    const { clusters, network, checker } = this.#world;
    const missing: string[] = [];
    for (const cluster of clusters) {
      const { host } = cluster;
      if (host === undefined) {
        missing.push(`${cluster.name} is not up`);
        continue;
      }
      missing.push(...checker.undone(cluster), ...this.#diskMissing(cluster, host));
      const streams = network.connections.filter(({ dialer, acceptor }) => {
        return dialer.address === cluster.address || acceptor.address === cluster.address;
      });
      if (machineryOf(host).streams.count > streams.length) {
        missing.push(
          `${cluster.name} serves ${machineryOf(host).streams.count} streams, of which ${streams.length} exist`,
        );
      }
      for (const peering of host.peerings.list()) {
        if (peering.state === "deleting") missing.push(`${cluster.name} still deletes ${peering.name}`);
        const other = clusters.find((candidate) => candidate.name === peering.name);
        if (other?.host === undefined || peering.role !== "dialer") continue;
        missing.push(...(await this.#pairMissing(cluster, host, other, other.host)));
      }
    }
    return missing;
  }

  /** The differences between a dialer and its acceptor. Where the two records do not belong together, nothing is promised. */
  async #pairMissing(
    dialer: SimCluster,
    dialerHost: PeeringHost,
    acceptor: SimCluster,
    acceptorHost: PeeringHost,
  ): Promise<readonly string[]> {
    const d = dialerHost.peerings.read(acceptor.name);
    const a = acceptorHost.peerings.read(dialer.name);
    if (d === undefined || a === undefined || a.role !== "acceptor" || d.peerId !== a.id) return [];
    if (!(await this.#canConnect(dialer, dialerHost, d.id, acceptor, a.id))) return [];
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
    const standing = this.#betweenHosts().filter((connection) => {
      return connection.dialer.address === dialer.address && connection.acceptor.address === acceptor.address;
    });
    if (standing.length !== 1) missing.push(`${standing.length} streams between ${dialer.name} and ${acceptor.name}`);
    missing.push(...listsMissing(dialer.name, d, acceptorHost.exports.forPeer(dialer.name)));
    missing.push(...listsMissing(acceptor.name, a, dialerHost.exports.forPeer(acceptor.name)));
    missing.push(...(await importMissing(dialerHost, acceptor.name, acceptorHost, dialer.name)));
    missing.push(...(await importMissing(acceptorHost, dialer.name, dialerHost, acceptor.name)));
    const bundle = d.peerCaPems.join("");
    const roots = acceptor.authority.roots().map((root) => root.certificatePem);
    if (bundle !== roots.join("")) missing.push(`${dialer.name} does not trust the roots of ${acceptor.name}`);
    const own = d.peerServerAddresses;
    if (own.join() !== acceptor.advertised.join()) {
      missing.push(`${dialer.name} knows ${acceptor.name} at ${own.join(" ")}, and not at ${acceptor.advertised}`);
    }
    return missing;
  }

  /** The next start would find exactly the state in memory: no orphans, nothing missing. */
  #diskMissing(cluster: SimCluster, host: PeeringHost): readonly string[] {
    const { records, imports } = machineryOf(host);
    const disk = this.#world.checker.disk(cluster);
    const missing: string[] = [];
    const known = new Map(disk.records);
    for (const { id, name, state, peerId } of records.list()) {
      const stored = known.get(id);
      if (stored?.state !== state || stored.peerId !== peerId) {
        missing.push(`${cluster.name} holds another ${name} than its disk`);
      }
      known.delete(id);
      const { services } = imports.count(id);
      const there = disk.importsOf(id).size;
      if (services !== there) missing.push(`${cluster.name} knows ${services} imports of ${name}, its disk ${there}`);
    }
    for (const { name } of known.values()) missing.push(`${cluster.name} does not know ${name} on its disk`);
    for (const [id, services] of disk.imports) {
      if (services.size > 0 && !disk.records.has(id)) {
        missing.push(`${cluster.name} keeps imports of ${id}, of which there is no record`);
      }
    }
    return missing;
  }

  /** Liveness L1: the dialer is to be connected when it holds a secret that its standing acceptor knows. */
  async #canConnect(
    dialer: SimCluster,
    dialerHost: PeeringHost,
    dialerId: string,
    acceptor: SimCluster,
    acceptorId: string,
  ): Promise<boolean> {
    const record = this.#world.checker.disk(dialer).records.get(dialerId);
    if (record?.state !== "establishing" || !dials(record)) return false;
    const { streamSecret: secret } = (await machineryOf(dialerHost).records.dialable(dialerId)) ?? {};
    const disk = this.#world.checker.disk(acceptor);
    const row = disk.secrets.get(acceptorId);
    if (secret === undefined || row?.role !== "acceptor") return false;
    return isStanding(disk.records.get(acceptorId)) && [row.active, row.pending].includes(digestOf(secret));
  }

  async #compareObservers(): Promise<void> {
    for (const observer of this.#observers) {
      // A slow one may not have finished.
      await this.#within(
        CALM_MS,
        "an observer has seen everything",
        async () => (await observer.differs()) === undefined,
      );
    }
  }

  #betweenHosts(): readonly Connection[] {
    return this.#world.network.connections.filter(({ dialer, acceptor, frozen }) => {
      const hosts = [dialer, acceptor].map(({ address }) => this.#world.clusterAt(address)?.host);
      return !frozen && hosts.every((host) => host !== undefined);
    });
  }

  get #failed(): boolean {
    return this.#world.failed;
  }

  #fail(text: string): void {
    this.#world.checker.fail(text);
  }

  #runUntil(untilMs: number): Promise<void> {
    return this.#world.runUntil(untilMs, () => this.#failed);
  }
}

/** All that is imported, with the nodes as they are read. */
async function importsOf(cluster: SimCluster, peer: SimCluster): Promise<string> {
  const { imports } = cluster.host ?? {};
  const read: unknown[] = [];
  for (const { name, revision } of imports?.services({ peer: peer.name }) ?? []) {
    read.push([name, String(revision), await imports?.instances({ peer: peer.name, service: name })]);
  }
  return JSON.stringify(read);
}

/** Instances of each imported service, without what says when they were stored. */
async function servicesOf(cluster: SimCluster, peer: SimCluster): Promise<ReadonlyMap<string, string>> {
  const read = new Map<string, string>();
  for (const { name } of cluster.host?.imports.services({ peer: peer.name }) ?? []) {
    const instances = await cluster.host?.imports.instances({ peer: peer.name, service: name });
    // Dropped meanwhile.
    if (instances !== undefined) read.set(name, JSON.stringify(instances));
  }
  return read;
}

/** Parts of a peering's status that cannot be true while it is ACTIVE and at rest. */
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

/** Whether the importer's status shows the list that the exporter exports. */
function listsMissing(importer: string, view: PeeringView, exported: readonly string[]): readonly string[] {
  const shown = view.status.stream.importedServices.map((name) => name.toLowerCase()).toSorted();
  const expected = exported.map((name) => name.toLowerCase()).toSorted();
  if (shown.join() === expected.join()) return [];
  return [`${importer} shows [${shown.join(" ")}] of ${view.name}, which exports [${expected.join(" ")}]`];
}

/** Exports of `exporter` that `importer` lacks. */
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
    const key = name.toLowerCase();
    // The sidecar of a listed service stands for its way through the mesh.
    const sidecarOf = key.endsWith(SIDECAR) ? key.slice(0, -SIDECAR.length) : undefined;
    if (filled.has(key) || listed.some((other) => other.toLowerCase() === sidecarOf)) continue;
    missing.push(`${name} of ${exporterName} at ${importerName} should be gone`);
  }
  return missing;
}
