// Two agents under load: many who wait for changes and many who ask by DNS, while one side changes and the other replicates.
import assert from "node:assert/strict";
import { createSocket, type Socket } from "node:dgram";
import { once, setMaxListeners } from "node:events";
import { ConsulClient, watch } from "../../src/client/index.js";
import { placeOf, query, readAnswer } from "../unit/dns/client.js";
import { eventually } from "./hosts.js";

export interface LoadOptions {
  readonly services: number;
  /** Of each service, each on a node of its own. */
  readonly instances: number;
  /** Who wait for the changes of one service each, at the importing side. */
  readonly watchers: number;
  /** Each changes the address and the tag of one instance. */
  readonly updates: number;
  /** Updates under way at once. */
  readonly writers: number;
  /** Questions a second, to the importing side; undefined: some under way at any time, as fast as they are answered. */
  readonly questionsPerSecond?: number;
  /** How long questions are asked before the burst and after it, in milliseconds. Default 0. */
  readonly calmMs?: number;
  /** Told once everybody waits, and the load begins. */
  readonly onLoad?: () => void;
}

/** Where two agents answer, `host:port`: `a` exports to `b`. */
export interface LoadTargets {
  readonly a: string;
  readonly b: string;
  readonly dnsOfB: string;
}

export interface LoadFigures {
  /** From the first update to the last watcher that saw the last state. */
  readonly burstSeconds: number;
  /** Answers that watchers were woken with. */
  readonly wakes: number;
  readonly questions: number;
  /** How long they were asked. */
  readonly questionSeconds: number;
  /** Questions that had to be asked again, as a resolver does when nothing comes. */
  readonly askedAgain: number;
  /** From the last question to its answer, in milliseconds, ascending. */
  readonly answerMs: readonly number[];
}

const PER_NODE = 10;
const PEER_OF_A = "importer";
const PEER_OF_B = "exporter";
/** Questions under way when nobody says how many a second. */
const UNDER_WAY = 8;
const ASK_AGAIN_MS = 2_000;
const TICK_MS = 5;

/**
 * Fills, peers, and puts the load on. Fails when anything is refused, when an answer is wrong or older than one before it,
 * or, by the caller's time limit, when a waiting reader is not woken for the last state.
 */
export async function putLoadOn(targets: LoadTargets, options: LoadOptions): Promise<LoadFigures> {
  const { services, instances, watchers, updates, writers, calmMs = 0 } = options;
  using a = new ConsulClient({ address: targets.a });
  using b = new ConsulClient({ address: targets.b });
  const register = (update: number): Promise<unknown> => a.catalog.register(registration(update, services, instances));
  // The rounds go on where these have begun.
  const seeds = services * instances;
  await inParallel(seeds, writers, register);
  await a.config.write({
    Kind: "exported-services",
    Name: "default",
    Services: [{ Name: "*", Consumers: [{ Peer: PEER_OF_A }] }],
  });
  const token = await a.peerings.generateToken({ peerName: PEER_OF_A });
  await b.peerings.establish({ peerName: PEER_OF_B, token });
  await eventually(async () => {
    const { value } = await b.peerings.read(PEER_OF_B);
    return value?.StreamStatus.ImportedServices.length === services;
  }, "all services arrive");

  const rounds = lastRounds(seeds + updates, services, instances);
  const stop = new AbortController();
  setMaxListeners(watchers, stop.signal);
  let wakes = 0;
  let ready = 0;
  const follow = async (watcher: number): Promise<void> => {
    const service = watcher % services;
    let seen: readonly number[] = [];
    let index = 0n;
    // A client has as many connections as calls under way, so that one is enough for all who wait.
    for await (const answer of watch((read) => b.health.service(nameOf(service), { ...read, peer: PEER_OF_B }), stop)) {
      const { value } = answer;
      assert.ok((answer.index ?? 0n) > index, "an index goes up");
      index = answer.index ?? 0n;
      assert.equal(value.length, instances, `instances of ${nameOf(service)}`);
      const now = value.map(({ Service: { Address } }) => roundOf(Address, service));
      for (const [instance, round] of seen.entries()) assert.ok((now[instance] ?? 0) >= round, "nobody looks back");
      if (seen.length === 0) ready++;
      else wakes++;
      seen = now;
      if (now.every((round, instance) => round === rounds[service * instances + instance])) return;
    }
  };
  const following = Array.from({ length: watchers }, (_, watcher) => follow(watcher));
  const failed = new AbortController();
  for (const each of following) each.catch((error: unknown) => failed.abort(error));
  const resolver = await Resolver.open(targets.dnsOfB, services);
  try {
    await eventually(() => {
      failed.signal.throwIfAborted();
      return ready === watchers;
    }, "all watchers wait");
    options.onLoad?.();
    const asking = performance.now();
    resolver.start(options.questionsPerSecond);
    await pause(calmMs);
    const began = performance.now();
    await inParallel(updates, writers, (update) => register(seeds + update));
    await Promise.all(following);
    const burstSeconds = (performance.now() - began) / 1_000;
    await pause(calmMs);
    await resolver.finish();
    const questionSeconds = (performance.now() - asking) / 1_000;
    const { questions, askedAgain, answerMs } = resolver;
    return { burstSeconds, wakes, questions, questionSeconds, askedAgain, answerMs: answerMs.sort((x, y) => x - y) };
  } finally {
    stop.abort();
    resolver.close();
    await Promise.allSettled(following);
  }
}

function nameOf(service: number): string {
  return `svc-${service}`;
}

/** An update takes the next instance in turn; its address says which service it is, and how often it was changed. */
function registration(update: number, services: number, instances: number) {
  const slot = update % (services * instances);
  const round = Math.floor(update / (services * instances));
  const service = Math.floor(slot / instances);
  const instance = slot % instances;
  // Ten neighbouring services share their nodes.
  const node = Math.floor(service / PER_NODE) * instances + instance;
  return {
    Node: `node-${node}`,
    Address: `10.255.${node >> 8}.${node & 255}`,
    Service: {
      ID: `${nameOf(service)}-${instance}`,
      Service: nameOf(service),
      Port: 8_000 + instance,
      Address: `10.${round}.${service >> 8}.${service & 255}`,
      Tags: [`r${round}`],
    },
    Checks: [
      {
        Node: `node-${node}`,
        CheckID: `check-${slot}`,
        Name: "alive",
        Status: "passing",
        ServiceID: `${nameOf(service)}-${instance}`,
      },
    ],
  };
}

/** The last round of each instance, after so many updates. */
function lastRounds(updates: number, services: number, instances: number): readonly number[] {
  const slots = services * instances;
  return Array.from({ length: slots }, (_, slot) => Math.floor((updates - 1 - slot) / slots));
}

/** @throws when the address is another service's. */
function roundOf(address: string, service: number): number {
  const [, round, high, low] = /^10\.(\d+)\.(\d+)\.(\d+)$/.exec(address) ?? [];
  assert.equal(`${high}.${low}`, `${service >> 8}.${service & 255}`, `${address} answers for ${nameOf(service)}`);
  return Number(round);
}

async function inParallel(count: number, width: number, action: (number: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < count) await action(next++);
    }),
  );
}

function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

interface Pending {
  readonly service: number;
  readonly packet: Buffer;
  /** No answer may be older than what an earlier one said. */
  readonly atLeast: number;
  sentAt: number;
}

/** Asks for the services in turn over one socket. */
class Resolver {
  questions = 0;
  askedAgain = 0;
  readonly answerMs: number[] = [];
  readonly #socket: Socket;
  readonly #services: number;
  readonly #pending = new Map<number, Pending>();
  /** The newest round that was answered, by service. */
  readonly #newest: number[] = [];
  #failure: unknown;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  /** The answer to one question is when the next is asked. */
  #endless = false;
  #emptied = (): void => {};

  private constructor(socket: Socket, services: number) {
    this.#socket = socket;
    this.#services = services;
    socket.on("message", (message) => {
      try {
        this.#take(message);
      } catch (error) {
        this.#failure ??= error;
      }
    });
  }

  static async open(address: string, services: number): Promise<Resolver> {
    const socket = createSocket({ type: "udp4", recvBufferSize: 1024 * 1024 });
    const { host, port } = placeOf(address);
    socket.connect(port, host);
    await once(socket, "connect");
    return new Resolver(socket, services);
  }

  start(perSecond: number | undefined): void {
    const began = performance.now();
    const tick = (): void => {
      const due = perSecond === undefined ? 0 : ((performance.now() - began) / 1_000) * perSecond;
      if (!this.#stopped) while (this.questions < due) this.#ask();
      const now = performance.now();
      for (const pending of this.#pending.values()) {
        if (now - pending.sentAt <= ASK_AGAIN_MS) continue;
        this.askedAgain++;
        this.#send(pending);
      }
    };
    this.#timer = setInterval(tick, TICK_MS);
    this.#endless = perSecond === undefined;
    if (this.#endless) for (let asked = 0; asked < UNDER_WAY; asked++) this.#ask();
  }

  /** Asks nothing more; resolves once all was answered. @throws for the first answer that was wrong. */
  async finish(): Promise<void> {
    this.#stopped = true;
    if (this.#pending.size > 0) await new Promise<void>((resolve) => (this.#emptied = resolve));
    if (this.#failure !== undefined) throw this.#failure;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#socket.close();
  }

  #ask(): void {
    const service = this.questions % this.#services;
    // Ids come round again long after their answers have come.
    const id = this.questions % 65_536;
    this.questions++;
    const packet = query({ name: `${nameOf(service)}.service.${PEER_OF_B}.peer.consul`, type: "A" }, id);
    const pending = { service, packet, atLeast: this.#newest[service] ?? 0, sentAt: 0 };
    this.#pending.set(id, pending);
    this.#send(pending);
  }

  #send(pending: Pending): void {
    pending.sentAt = performance.now();
    this.#socket.send(pending.packet);
  }

  #take(message: Buffer): void {
    const id = message.readUInt16BE(0);
    const pending = this.#pending.get(id);
    // The late answer to what was asked again.
    if (pending === undefined) return;
    this.#pending.delete(id);
    this.answerMs.push(performance.now() - pending.sentAt);
    const { service, atLeast } = pending;
    if (this.#endless && !this.#stopped) this.#ask();
    if (this.#pending.size === 0) this.#emptied();
    const { code, answers } = readAnswer(message);
    assert.equal(code, "NOERROR", nameOf(service));
    assert.ok(answers.length > 0, `${nameOf(service)} has addresses`);
    const rounds = answers.map((answer) => roundOf(answer.split(" ").at(-1) ?? "", service));
    const newest = Math.max(...rounds);
    assert.ok(newest >= atLeast, `${nameOf(service)} is ${newest}, and was ${atLeast}`);
    this.#newest[service] = Math.max(this.#newest[service] ?? 0, newest);
  }
}
