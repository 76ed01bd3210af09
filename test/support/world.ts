import { PeeringError } from "../../src/base/errors.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import type { Leadership } from "../../src/host/leadership.js";
import type { HostOptions } from "../../src/host/options.js";
import type { PeeringView } from "../../src/host/peerings.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage } from "../../src/storage/storage.js";
import { type FixedAuthority, fixedAuthority } from "../../src/testing/fixed-authority.js";
import { Scheduler, SeededRandom, virtualClock } from "../../src/testing/simulator/scheduler.js";
import { SimNetwork } from "../../src/testing/simulator/sim-network.js";
import { type CommitFate, SimStorage } from "../../src/testing/simulator/sim-storage.js";
import type { AcceptHandler, DialTarget, ReplicationStream } from "../../src/transport/transport.js";
import { decodeMessage, encodeMessages } from "../../src/wire/codec.js";
import type { ReplicationMessage } from "../../src/wire/messages.js";
import { LogRecorder } from "./log-recorder.js";

/** Longer than the longest back-off, a connect bound and a heartbeat timeout together. */
const PATIENCE_MS = 10 * 60_000;

/** A message as it was handed to the network. */
export interface SentMessage {
  readonly at: number;
  /** Address of the sender. */
  readonly from: string;
  readonly message: ReplicationMessage;
}

interface Waiter {
  readonly condition: () => boolean;
  readonly end: number;
  readonly resolve: (held: boolean) => void;
}

export interface SiteOptions extends Partial<Omit<HostOptions, "storage" | "transport" | "authority" | "clock">> {
  readonly leadership?: Leadership;
}

class SiteDownError extends Error {}

/** A cluster of a {@link World}: its disk and roots survive, its host lives and dies. */
export class Site {
  readonly name: string;
  /** Where its next life listens. */
  address: string;
  readonly disk: Storage = memoryStorage();
  readonly authority: FixedAuthority;
  readonly log: LogRecorder = new LogRecorder();
  /** Judges each commit of the running life, counted from 1 in {@link commits}. */
  fate: (commit: number) => CommitFate = () => "succeed";
  commits = 0;
  /** Whether the next read of the disk fails. */
  failsToRead: () => boolean = () => false;
  /** How long each operation of the disk takes. */
  latencyMs = 0.5;
  readonly #world: World;
  #options: SiteOptions;
  #life: { alive: boolean } = { alive: false };
  #host: PeeringHost | undefined;

  constructor(world: World, name: string, index: number, options: SiteOptions) {
    this.#world = world;
    this.name = name;
    this.address = `${name}:8503`;
    this.#options = options;
    this.authority = fixedAuthority({
      trustDomain: `${String(index + 1).repeat(8)}-2222-3333-4444-555555555555.consul`,
      cluster: index,
      clock: virtualClock(world.scheduler, { alive: true }),
    });
  }

  get host(): PeeringHost {
    if (this.#host === undefined) throw new SiteDownError(`${this.name} is down`);
    return this.#host;
  }

  get up(): boolean {
    return this.#host !== undefined;
  }

  /** Starts a host on what the disk holds. */
  async start(options: SiteOptions = {}): Promise<PeeringHost> {
    this.#options = { ...this.#options, ...options };
    const { scheduler, network } = this.#world;
    const life = { alive: true };
    this.#life = life;
    const storage = new SimStorage({
      scheduler,
      life,
      disk: this.disk,
      fate: () => this.fate(++this.commits),
      failsToRead: () => this.failsToRead(),
      latencyMs: () => this.latencyMs,
      crash: () => this.crash(),
    });
    this.#host = await this.#world.result(
      createHost({
        datacenter: `dc-${this.name}`,
        random: new SeededRandom(this.#world.random.below(2 ** 32)),
        logger: this.log,
        ...this.#options,
        storage,
        transport: network.transport(this.address, life),
        authority: this.authority,
        clock: virtualClock(scheduler, life),
      }),
    );
    return this.#host;
  }

  /** The process is gone between two instructions. */
  crash(): void {
    this.#life.alive = false;
    this.#host = undefined;
    this.#world.network.processDied(this.address);
  }

  async restart(options: SiteOptions = {}): Promise<PeeringHost> {
    if (this.up) this.crash();
    return this.start(options);
  }

  /** Stops the host as a program does that ends in peace. */
  async stop(): Promise<void> {
    const host = this.host;
    this.#host = undefined;
    await this.#world.result(host[Symbol.asyncDispose]());
    this.#life.alive = false;
  }

  peering(name: string): PeeringView {
    const view = this.host.peerings.read(name);
    if (view === undefined) throw new Error(`${this.name} has no peering ${name}`);
    return view;
  }

  /** The state as reported, or `none`. */
  state(name: string): string {
    return this.host.peerings.read(name)?.state ?? "none";
  }

  /** Names and instance counts of what is imported. */
  imported(peer: string): Readonly<Record<string, number>> {
    const services = this.host.imports.services({ peer });
    return Object.fromEntries(services.map(({ name, instances }) => [name, instances]));
  }

  /** How many instances of one service are imported. */
  count(peer: string, service: string): number {
    return this.imported(peer)[service] ?? 0;
  }
}

/** Clusters in virtual time: nothing waits for a real clock, and every run is the same. */
export class World {
  readonly scheduler: Scheduler = new Scheduler();
  readonly random: SeededRandom = new SeededRandom(1);
  readonly network: SimNetwork = new SimNetwork(this.scheduler, new SeededRandom(2));
  readonly sent: SentMessage[] = [];
  readonly #waiters = new Set<Waiter>();
  #pumping = false;
  #sites = 0;

  constructor() {
    this.network.onSend = (stream, messages) => {
      for (const bytes of messages) {
        this.sent.push({ at: this.scheduler.now, from: stream.address, message: decodedOrUnknown(bytes) });
      }
    };
  }

  /** A cluster that is up. */
  async site(name: string, options: SiteOptions = {}): Promise<Site> {
    const site = new Site(this, name, this.#sites++, options);
    await site.start();
    return site;
  }

  /** Lets virtual time pass. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.scheduler.now + milliseconds;
    this.scheduler.after(milliseconds, () => {});
    await this.#wait(() => this.scheduler.now >= end, Number.POSITIVE_INFINITY);
  }

  /** Lets virtual time pass until `condition` holds, and fails when it does not in ten minutes. */
  async until(condition: () => boolean, what: string, withinMs: number = PATIENCE_MS): Promise<void> {
    if (await this.#wait(condition, this.scheduler.now + withinMs)) return;
    throw new Error(`within ${withinMs} ms of virtual time it did not happen that ${what}`);
  }

  /** Whether `condition` came to hold before `end`. However many wait, one loop moves time, and no faster than all of them. */
  #wait(condition: () => boolean, end: number): Promise<boolean> {
    return new Promise((resolve) => {
      this.#waiters.add({ condition, end, resolve });
      if (this.#pumping) return;
      this.#pumping = true;
      void this.#pump();
    });
  }

  async #pump(): Promise<void> {
    const due = (waiter: Waiter): boolean => held(waiter) || waiter.end <= this.scheduler.now;
    while (this.#waiters.size > 0) {
      const waiters = [...this.#waiters];
      const end = Math.min(...waiters.map((waiter) => waiter.end));
      await this.scheduler.run(
        end,
        () => [...this.#waiters].some(due),
        () => {},
      );
      // With nothing left to happen, nobody's condition will come to hold any more.
      const ready = [...this.#waiters].filter(due);
      for (const waiter of ready.length > 0 ? ready : waiters) {
        this.#waiters.delete(waiter);
        waiter.resolve(held(waiter));
      }
      // Code that was woken runs before time goes on.
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#pumping = false;
  }

  /** The result of `work`, while virtual time passes. */
  async result<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const watched = work.finally(() => {
      settled = true;
    });
    watched.catch(() => {});
    await this.until(() => settled, "a promise settled");
    return watched;
  }

  /** The typed error that `work` is rejected with. */
  async refusal(work: Promise<unknown>): Promise<PeeringError> {
    const outcome = await this.result(
      work.then(
        (value: unknown) => new Error(`resolved with ${String(value)}`),
        (error: unknown) => error,
      ),
    );
    if (outcome instanceof PeeringError) return outcome;
    throw outcome;
  }

  /** Messages of one kind that `from` sent since `since`. */
  messages<T extends ReplicationMessage["type"]>(
    from: Site,
    type: T,
    since = 0,
  ): readonly Extract<ReplicationMessage, { readonly type: T }>[] {
    return this.sent.flatMap((sent) =>
      sent.from === from.address && sent.at >= since && isOfType(sent.message, type) ? [sent.message] : [],
    );
  }

  /** A program that is no host and dials `site`: says what it is told to, and keeps what it hears. */
  async raw(site: Site, target: Partial<DialTarget> = {}): Promise<RawStream> {
    const transport = this.network.transport("raw:1", { alive: true });
    const full = { address: site.address, serverName: "", caPems: [], ...target };
    return new RawStream(this, await this.result(transport.openStream(full, { signal: new AbortController().signal })));
  }

  /** A program that is no host and is dialed by one. */
  async rawAcceptor(address: string, handler: AcceptHandler): Promise<void> {
    const identity = { serverName: "raw", current: () => ({ certificateChainPem: "", privateKeyPem: "" }) };
    await this.network.transport(address, { alive: true }).listen(handler, identity);
  }

  /** Waits until the streams of both are up and everything queued on them is acknowledged. */
  async settled(a: Site, nameOfB: string, b: Site, nameOfA: string): Promise<void> {
    await this.until(
      () =>
        [a.host.peerings.read(nameOfB), b.host.peerings.read(nameOfA)].every(
          (view) => view?.state === "active" && view.status.lagMs === 0 && view.status.applying === 0,
        ),
      `${a.name} and ${b.name} are in step`,
    );
  }
}

/** A condition may look at a host that is down for the moment. */
function held(waiter: Waiter): boolean {
  try {
    return waiter.condition();
  } catch (error) {
    if (error instanceof SiteDownError) return false;
    throw error;
  }
}

function decodedOrUnknown(bytes: Uint8Array): ReplicationMessage {
  try {
    return decodeMessage(bytes);
  } catch {
    return { type: "unknown" };
  }
}

function isOfType<T extends ReplicationMessage["type"]>(
  message: ReplicationMessage,
  type: T,
): message is Extract<ReplicationMessage, { readonly type: T }> {
  return message.type === type;
}

/** One end of a stream, driven by hand. */
export class RawStream {
  readonly received: ReplicationMessage[] = [];
  /** How the stream ended: undefined while it stands, `ok` for status OK or a half-close. */
  end: PeeringError | "ok" | undefined;
  readonly #world: World;
  readonly #stream: ReplicationStream;

  constructor(world: World, stream: ReplicationStream) {
    this.#world = world;
    this.#stream = stream;
    void this.#read();
  }

  async say(...messages: readonly ReplicationMessage[]): Promise<void> {
    await this.#world.result(this.#stream.send(encodeMessages(messages)));
  }

  async sayBytes(...messages: readonly Uint8Array[]): Promise<void> {
    await this.#world.result(this.#stream.send(messages));
  }

  async close(): Promise<void> {
    await this.#world.result(this.#stream.close());
  }

  /** Waits for the end that the other side gives the stream. */
  async ended(): Promise<PeeringError | "ok"> {
    await this.#world.until(() => this.end !== undefined, "the stream ended");
    return this.end ?? "ok";
  }

  async #read(): Promise<void> {
    try {
      for (let batch = await this.#stream.receive(); batch !== undefined; batch = await this.#stream.receive()) {
        for (const bytes of batch) this.received.push(decodeMessage(bytes));
      }
      this.end = "ok";
    } catch (error) {
      this.end = error instanceof PeeringError ? error : new PeeringError("invalid-message", String(error));
    }
  }
}

export interface PeeredOptions {
  readonly acceptor?: SiteOptions;
  readonly dialer?: SiteOptions;
}

/**
 * Two clusters that are peered and in step: `acceptor` calls the other `dialer`, and that one calls it `acceptor`. The
 * acceptor exports `web` and `db`, the dialer `api`.
 */
export async function peered(
  world: World,
  options: PeeredOptions = {},
): Promise<{ readonly acceptor: Site; readonly dialer: Site }> {
  const acceptor = await world.site("acceptor", options.acceptor);
  const dialer = await world.site("dialer", options.dialer);
  await offer(world, acceptor, "dialer", "web", "db");
  await offer(world, dialer, "acceptor", "api");
  await peer(world, acceptor, dialer);
  await world.settled(acceptor, "dialer", dialer, "acceptor");
  return { acceptor, dialer };
}

/** Generates a token on `acceptor` and establishes with it on `dialer`; each calls the other by its site's name. */
export async function peer(world: World, acceptor: Site, dialer: Site): Promise<void> {
  const token = await world.result(acceptor.host.peerings.generateToken({ peerName: dialer.name }));
  await world.result(dialer.host.peerings.establish({ peerName: acceptor.name, token }));
}

/** Registers one instance of each service and exports exactly these to `peerName`. */
export async function offer(world: World, site: Site, peerName: string, ...services: readonly string[]): Promise<void> {
  for (const name of services) await world.result(register(site.host, name));
  await exportTo(world, site, peerName, ...services);
}

export async function exportTo(
  world: World,
  site: Site,
  peerName: string,
  ...services: readonly string[]
): Promise<void> {
  const entry = { services: services.map((name) => ({ name, consumers: [{ peer: peerName }] })) };
  await world.result(services.length === 0 ? site.host.exports.delete() : site.host.exports.set(entry));
}

export async function register(host: PeeringHost, name: string, instance = "1"): Promise<void> {
  await host.catalog.register({
    node: `node-${instance}`,
    address: `10.0.0.${instance}`,
    service: { id: `${name}-${instance}`, name, port: 8080, tags: ["v1"] },
    checks: [{ checkId: `${name}-${instance}`, name: "alive", status: "passing", serviceId: `${name}-${instance}` }],
  });
}

/** A leadership that the test moves. */
export class MovableLeadership implements Leadership {
  isLeader = true;
  leaderAddress = "";
  readonly #listeners = new Set<() => void>();

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  move(isLeader: boolean, leaderAddress = ""): void {
    this.isLeader = isLeader;
    this.leaderAddress = leaderAddress;
    for (const listener of this.#listeners) listener();
  }
}
