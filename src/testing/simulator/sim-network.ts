import { PeeringError } from "../../base/errors.js";
import { Signal } from "../../base/signal.js";
import type {
  AcceptHandler,
  DialTarget,
  ExchangeSecretRequest,
  Listener,
  ReplicationStream,
  Transport,
} from "../../transport/transport.js";
import { type Status, StatusCode } from "../../wire/status.js";
import { type Life, type Scheduler, type SeededRandom, whenAwake } from "./scheduler.js";

/** Bytes a sender may have under way before it waits. */
const WINDOW_BYTES = 64 * 1024;
const CONNECT_BOUND_MS = 20_000;
/** How long an acceptor tries to deliver the messages before its end. */
const FLUSH_MS = 500;

/** How the network is at the moment. */
export interface NetworkWeather {
  /** One way, in virtual milliseconds. */
  readonly lowestDelayMs: number;
  readonly highestDelayMs: number;
}

interface Site {
  readonly address: string;
  readonly life: Life;
  readonly handler: AcceptHandler;
}

/** The network of a simulated world: named addresses, partitions, and connections that can be cut or frozen. */
export class SimNetwork {
  readonly #scheduler: Scheduler;
  readonly #random: SeededRandom;
  readonly #sites = new Map<string, Site>();
  readonly #partitions = new Set<string>();
  readonly #connections = new Set<Connection>();
  /** Other addresses of a site. */
  readonly #aliases = new Map<string, string>();
  readonly #blocked = new Set<string>();
  /** Sees every batch as it is handed to the network. */
  onSend: ((stream: SimStream, messages: readonly Uint8Array[]) => void) | undefined;
  /** Sees every exchange that succeeded at `address`, whether or not the answer arrives. */
  onExchange: ((address: string, request: ExchangeSecretRequest, streamSecret: string) => void) | undefined;
  /** Sees every attempt of `from` to open a stream or to exchange a secret with who is known as `to`. */
  onAttempt: ((from: string, to: string, purpose: "stream" | "exchange") => void) | undefined;
  /** Sees every batch as its receiver takes it. */
  onReceive: ((stream: SimStream, messages: readonly Uint8Array[]) => void) | undefined;
  /** Sees each end of a stream being closed by its owner. */
  onClose: ((stream: SimStream, status: Status) => void) | undefined;
  weather: NetworkWeather = { lowestDelayMs: 0.1, highestDelayMs: 5 };

  constructor(scheduler: Scheduler, random: SeededRandom) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  /** The transport of one life of the process at `address`. */
  transport(address: string, life: Life): Transport {
    return new SimTransport(this, this.#scheduler, address, life);
  }

  /** Nothing passes between the two until {@link heal}; connections between them freeze without a word. */
  partition(a: string, b: string): void {
    this.#partitions.add(pair(a, b));
  }

  heal(a: string, b: string): void {
    this.#partitions.delete(pair(a, b));
  }

  healAll(): void {
    this.#partitions.clear();
    this.#blocked.clear();
    for (const connection of this.#connections) {
      // A half-open connection stays dead: its packets are gone. Both ends find out now at the latest. And messages that a slow
      // reader still has to come would be late for a long time.
      const late = connection.dialer.isLate || connection.acceptor.isLate;
      if (connection.frozen || late) this.cut(connection);
      connection.pausedUntil = 0;
    }
  }

  isPartitioned(a: string, b: string): boolean {
    return this.#partitions.has(pair(a, b));
  }

  get connections(): readonly Connection[] {
    return [...this.#connections];
  }

  /** Both ends learn that the connection is lost. */
  cut(connection: Connection): void {
    this.#connections.delete(connection);
    connection.dialer.lose("connection reset by peer");
    connection.acceptor.lose("connection reset by peer");
  }

  /** A half-open connection: one end, or both, goes on as if the other were there. */
  freeze(connection: Connection): void {
    connection.frozen = true;
  }

  /** The process at `address` died: its peers' kernels are told, unless a partition is in between. */
  processDied(address: string): void {
    this.#sites.delete(address);
    for (const connection of this.#connections) {
      if (connection.dialer.address !== address && connection.acceptor.address !== address) continue;
      if (this.isPartitioned(connection.dialer.address, connection.acceptor.address)) connection.frozen = true;
      else this.cut(connection);
    }
  }

  /** `alias` leads to the listener at `address`, too. */
  addAlias(alias: string, address: string): void {
    this.#aliases.set(alias, address);
  }

  /** Nothing is reached at this address until {@link healAll}, also if a host listens there. */
  block(address: string): void {
    this.#blocked.add(address);
  }

  /** The host behind an address; `""` where it leads nowhere. */
  resolve(address: string): string {
    return this.#blocked.has(address) ? "" : (this.#aliases.get(address) ?? address);
  }

  delay(): number {
    return this.#random.between(this.weather.lowestDelayMs, this.weather.highestDelayMs);
  }

  listen(site: Site): void {
    this.#sites.set(site.address, site);
  }

  close(site: Site): void {
    if (this.#sites.get(site.address) === site) this.#sites.delete(site.address);
  }

  /** Whether nothing that `from` sends to `to` is answered. */
  isSilent(from: string, to: string): boolean {
    return this.isPartitioned(from, to) || (this.#sites.get(to)?.life.frozenUntil ?? 0) > this.#scheduler.now;
  }

  /** The listener at `to`, as far as `from` can tell. */
  reach(from: string, to: string): Site | undefined {
    return this.isPartitioned(from, to) ? undefined : this.#sites.get(to);
  }

  connect(from: string, life: Life, site: Site): Connection {
    const connection = new Connection(this, this.#scheduler, { address: from, life }, site);
    this.#connections.add(connection);
    return connection;
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
  }
}

function pair(a: string, b: string): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}

/** One connection with its one stream. */
export class Connection {
  /** PeerID of the `Open` that the dialer sent, once it did, and its secret. Set by the observer of the network. */
  opened: { readonly peerId: string; readonly streamSecretId: string } | undefined;
  readonly dialer: SimStream;
  readonly acceptor: SimStream;
  /** Half-open: messages go nowhere, without an error. */
  frozen = false;
  /** A slow reader: nothing is delivered before this virtual time. */
  pausedUntil = 0;
  /** Bytes that either end may have under way before it waits. */
  windowBytes: number = WINDOW_BYTES;

  constructor(
    network: SimNetwork,
    scheduler: Scheduler,
    dialer: { readonly address: string; readonly life: Life },
    acceptor: Site,
  ) {
    this.dialer = new SimStream(network, scheduler, this, "dialer", dialer.address, dialer.life);
    this.acceptor = new SimStream(network, scheduler, this, "acceptor", acceptor.address, acceptor.life);
  }
}

type Delivery =
  | { readonly type: "messages"; readonly messages: readonly Uint8Array[]; readonly bytes: number }
  | { readonly type: "half-close" }
  | { readonly type: "end"; readonly status: Status };

/** One end of a stream. */
export class SimStream implements ReplicationStream {
  readonly address: string;
  readonly connection: Connection;
  readonly role: "dialer" | "acceptor";
  readonly #network: SimNetwork;
  readonly #scheduler: Scheduler;
  readonly #life: Life;
  readonly #inbox: Delivery[] = [];
  #lost: PeeringError | undefined;
  #closed = false;
  #lastDelivery = 0;
  #underWay = 0;
  #stalledSince: number | undefined;
  /** There may be something to receive, or room to send more. */
  readonly #changed = new Signal();

  constructor(
    network: SimNetwork,
    scheduler: Scheduler,
    connection: Connection,
    role: "dialer" | "acceptor",
    address: string,
    life: Life,
  ) {
    this.#network = network;
    this.#scheduler = scheduler;
    this.connection = connection;
    this.role = role;
    this.address = address;
    this.#life = life;
  }

  get remoteAddress(): string {
    return this.#other.address;
  }

  get #other(): SimStream {
    return this.role === "dialer" ? this.connection.acceptor : this.connection.dialer;
  }

  /** Whether its owner has closed it. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Whether its owner has been told that the connection is gone. */
  get lost(): boolean {
    return this.#lost !== undefined;
  }

  /** Since when its owner waits for the other side to read; undefined while it may send. */
  get stalledSince(): number | undefined {
    return this.#stalledSince;
  }

  /** Whether something sent here arrives much later than the network takes. */
  get isLate(): boolean {
    return this.#lastDelivery > this.#scheduler.now + this.#network.weather.highestDelayMs;
  }

  async receive(): Promise<readonly Uint8Array[] | undefined> {
    for (;;) {
      const delivery = this.#inbox.shift();
      if (delivery?.type === "messages") {
        this.#other.#consumed(delivery.bytes);
        this.#network.onReceive?.(this, delivery.messages);
        return delivery.messages;
      }
      if (delivery?.type === "half-close") return undefined;
      if (delivery?.type === "end") {
        if (delivery.status.code === StatusCode.Ok) return undefined;
        throw new PeeringError(codeOf(delivery.status.code), delivery.status.message, { status: delivery.status.code });
      }
      if (this.#lost !== undefined) throw this.#lost;
      if (this.#closed) throw new PeeringError("closed", "the stream is closed", { status: StatusCode.Canceled });
      await this.#changed.next();
    }
  }

  async send(messages: readonly Uint8Array[]): Promise<void> {
    // Messages of a process that died are not sent.
    if (!this.#life.alive) return new Promise(() => {});
    this.#mustStand();
    const bytes = messages.reduce((sum, message) => sum + message.length, 0);
    this.#underWay += bytes;
    this.#network.onSend?.(this, messages);
    this.#deliver({ type: "messages", messages, bytes });
    while (this.#underWay > this.connection.windowBytes) {
      this.#stalledSince ??= this.#scheduler.now;
      await this.#changed.next();
      this.#mustStand();
    }
  }

  async halfClose(): Promise<void> {
    if (this.role === "dialer" && !this.#closed) this.#deliver({ type: "half-close" });
  }

  async close(status: Status = { code: StatusCode.Ok, message: "" }): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#network.onClose?.(this, status);
    this.#changed.emit();
    if (this.role === "acceptor") {
      this.#deliver({ type: "end", status });
      // Earlier messages go ahead of the end, which takes time if the other side does not read.
      if (this.#stalledSince !== undefined) {
        await new Promise<void>((resolve) => this.#scheduler.after(FLUSH_MS, resolve));
      }
      return;
    }
    this.#deliver({ type: "end", status: { code: StatusCode.Canceled, message: "context canceled" } });
    this.#network.forget(this.connection);
  }

  /** The connection is gone; messages that had arrived can still be read. */
  lose(reason: string): void {
    whenAwake(this.#scheduler, this.#life, () => {
      this.#lost ??= new PeeringError("unavailable", reason, { status: StatusCode.Unavailable });
      this.#changed.emit();
    });
  }

  #deliver(delivery: Delivery): void {
    const connection = this.connection;
    // In order, and never before a slow reader reads again.
    this.#lastDelivery = Math.max(
      this.#lastDelivery,
      this.#scheduler.now + this.#network.delay(),
      connection.pausedUntil,
    );
    const attempt = (): void => {
      const other = this.#other;
      if (connection.frozen || this.#network.isPartitioned(this.address, other.address)) {
        // Lost: a connection whose packets went missing never delivers anything again.
        connection.frozen = true;
        return;
      }
      whenAwake(this.#scheduler, other.#life, () => {
        other.#inbox.push(delivery);
        other.#changed.emit();
      });
    };
    this.#scheduler.after(this.#lastDelivery - this.#scheduler.now, attempt);
  }

  #consumed(bytes: number): void {
    this.#underWay -= bytes;
    if (this.#underWay > this.connection.windowBytes) return;
    this.#stalledSince = undefined;
    this.#changed.emit();
  }

  #mustStand(): void {
    if (this.#lost !== undefined) throw this.#lost;
    if (this.#closed) throw new PeeringError("closed", "the stream is closed", { status: StatusCode.Canceled });
  }
}

function codeOf(status: number): "aborted" | "invalid-argument" | "permission-denied" | "unavailable" {
  if (status === StatusCode.Aborted) return "aborted";
  if (status === StatusCode.InvalidArgument) return "invalid-argument";
  return status === StatusCode.PermissionDenied ? "permission-denied" : "unavailable";
}

class SimTransport implements Transport {
  readonly #network: SimNetwork;
  readonly #scheduler: Scheduler;
  readonly #address: string;
  readonly #life: Life;

  constructor(network: SimNetwork, scheduler: Scheduler, address: string, life: Life) {
    this.#network = network;
    this.#scheduler = scheduler;
    this.#address = address;
    this.#life = life;
  }

  async listen(handler: AcceptHandler): Promise<Listener> {
    const site: Site = { address: this.#address, life: this.#life, handler };
    this.#network.listen(site);
    return {
      address: this.#address,
      [Symbol.asyncDispose]: async () => this.#network.close(site),
    };
  }

  async exchangeSecret(
    target: DialTarget,
    request: ExchangeSecretRequest,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<{ readonly streamSecret: string }> {
    const { timeoutMs, signal } = options;
    // A request of a process that died is not sent.
    if (!this.#life.alive) return new Promise(() => {});
    const address = this.#network.resolve(target.address);
    this.#network.onAttempt?.(this.#address, target.address, "exchange");
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(signal.reason);
      const timer = this.#scheduler.after(timeoutMs, () => {
        signal.removeEventListener("abort", abort);
        this.#awake(() => reject(deadlineExceeded()));
      });
      signal.addEventListener("abort", abort, { once: true });
      const finish = (settle: () => void): void => {
        timer.cancel();
        signal.removeEventListener("abort", abort);
        this.#awake(settle);
      };
      this.#scheduler.after(this.#network.delay(), () => {
        if (this.#network.isSilent(this.#address, address)) return;
        const site = this.#network.reach(this.#address, address);
        if (site === undefined) return finish(() => reject(refused(target.address)));
        const answer = (settle: () => void): void => {
          this.#scheduler.after(this.#network.delay(), () => {
            // The answer may be lost although the other side has acted.
            if (!this.#network.isPartitioned(this.#address, address) && site.life.alive) finish(settle);
          });
        };
        site.handler.exchangeSecret(request, this.#address).then(
          (response) => {
            this.#network.onExchange?.(address, request, response.streamSecret);
            answer(() => resolve(response));
          },
          (error: unknown) => answer(() => reject(error)),
        );
      });
    });
  }

  openStream(target: DialTarget, { signal }: { readonly signal: AbortSignal }): Promise<ReplicationStream> {
    if (!this.#life.alive) return new Promise(() => {});
    const address = this.#network.resolve(target.address);
    this.#network.onAttempt?.(this.#address, target.address, "stream");
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(signal.reason);
      const timer = this.#scheduler.after(CONNECT_BOUND_MS, () => {
        signal.removeEventListener("abort", abort);
        this.#awake(() => reject(deadlineExceeded()));
      });
      signal.addEventListener("abort", abort, { once: true });
      const connect = (): void => {
        if (this.#network.isSilent(this.#address, address) || signal.aborted) return;
        timer.cancel();
        signal.removeEventListener("abort", abort);
        const site = this.#network.reach(this.#address, address);
        if (site === undefined) {
          reject(refused(target.address));
          return;
        }
        const { dialer, acceptor } = this.#network.connect(this.#address, this.#life, site);
        resolve(dialer);
        site.handler.stream(acceptor);
      };
      this.#scheduler.after(this.#network.delay(), () => this.#awake(connect));
    });
  }

  #awake(action: () => void): void {
    whenAwake(this.#scheduler, this.#life, action);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function refused(address: string): PeeringError {
  return new PeeringError("unavailable", `connection error: ${address} refused the connection`, {
    status: StatusCode.Unavailable,
  });
}

function deadlineExceeded(): PeeringError {
  return new PeeringError("timeout", "context deadline exceeded", { status: StatusCode.DeadlineExceeded });
}
