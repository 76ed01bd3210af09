import { randomId } from "../../base/environment.js";
import type { PeeringHost } from "../../host/host.js";
import { parseRegistration } from "../../model/registration.js";
import { encodeServicePayload } from "../../payload/exported-payload.js";
import { TokenCodec } from "../../token/token-codec.js";
import type { Transport } from "../../transport/transport.js";
import { encodeMessages } from "../../wire/codec.js";
import {
  Operation,
  type ReplicationMessage,
  type RequestMessage,
  ResourceId,
  ResourceUrl,
  type ResponseMessage,
} from "../../wire/messages.js";
import { encodeExportedServiceList, encodeServerAddresses, encodeTrustBundle } from "../../wire/resources.js";
import { StatusCode } from "../../wire/status.js";
import type { FakePeer, FakePeerScript } from "../fake-peer/fake-peer.js";
import type { FakeStream } from "../fake-peer/fake-stream.js";
import { fakePeer } from "../fake-peer/start.js";
import { type FixedAuthority, fixedAuthority } from "../fixed-authority.js";
import type { SimCluster } from "./cluster.js";
import { type SeededRandom, virtualClock } from "./scheduler.js";
import type { SimWorld } from "./sim-world.js";
import { digestOf } from "./stored-forms.js";

/** The ways of a peer that is not a host. */
export const SCRIPTS = [
  /** Opens with a valid secret and refuses everything, with the nonces it was given and with others. */
  "nack-everything",
  /** Opens, and says `Terminated` in the same breath, as a dialer of Consul may. */
  "terminated-after-open",
  /** Opens as fast as it can, with secrets that never existed, as a dialer of Consul may. */
  "hot-loop",
  /** Opens, then sends messages that no peer should. */
  "nonsense",
  /** Waits to be dialed; takes each stream, pushes addresses that would cut the dialer off, and drops it. */
  "dropping-acceptor",
  /** Opens with the right secret, then with many that are almost right. */
  "near-miss",
  /** Opens, says that it is there, and takes nothing. */
  "deaf",
  /** Opens connections, and says nothing on them. */
  "mute",
  /** Acknowledges nonces that it was never sent. */
  "wrong-nonces",
  /** Opens another stream, several times, while the one before is full of older versions. */
  "two-streams",
  /** Sends services, lists and `Terminated` so that their order matters. */
  "order-matters",
  /** Says different things of one node in different services. */
  "two-faced",
  /** Two acceptors after each other under one name; the first one goes on as long as it can. */
  "usurped",
  /** Has much under way when it is deleted, or when it says `Terminated`. */
  "busy",
  /** Says `Terminated`, and opens another stream before its victim has stored that. */
  "terminated-and-back",
  /** Is deleted while it still exchanges secrets. */
  "deleted-while-establishing",
  /** Waits to be dialed where its operator said, and pushes no address, or one twice. */
  "address-pusher",
] as const;

export type Script = (typeof SCRIPTS)[number];

export interface ScriptedPeerOptions {
  readonly script: Script;
  /** The name its victim is to know it by; also the host part of its address. */
  readonly name: string;
  readonly cluster: SimCluster;
  readonly host: PeeringHost;
  /** How long it goes on, in virtual milliseconds. */
  readonly lastsMs: number;
}

const ALL_URLS = [
  ResourceUrl.exportedService,
  ResourceUrl.exportedServiceList,
  ResourceUrl.trustBundle,
  ResourceUrl.serverAddresses,
];
const HEARTBEAT_MS = 15_000;
/** More than a host judges in a second. */
const OPENS = 500;
/** Less than a subscription. */
const TINY_WINDOW_BYTES = 100;
const SLOW_EXCHANGE_MS = 1_200;
/** For some seconds. */
const PUSHES = 40;

/**
 * A peer that keeps to nothing but its script, over the same network as the hosts.
 * @returns once it has been accepted or refused; its later actions go on without the caller.
 */
export function scriptedPeer(world: SimWorld, options: ScriptedPeerOptions): Promise<void> {
  world.scriptsUntil = Math.max(world.scriptsUntil, world.scheduler.now + options.lastsMs);
  return new Scripted(world, options).run();
}

class Scripted {
  readonly #world: SimWorld;
  readonly #options: ScriptedPeerOptions;
  readonly #life = { alive: true };

  constructor(world: SimWorld, options: ScriptedPeerOptions) {
    this.#world = world;
    this.#options = options;
    this.#after(options.lastsMs, () => {
      this.#life.alive = false;
      for (const address of [`${options.name}:8503`, `${options.name}b:8503`]) world.network.processDied(address);
    });
  }

  async run(): Promise<void> {
    const { script, name } = this.#options;
    switch (script) {
      case "hot-loop":
        return this.#hotLoop();
      case "mute":
        return this.#mute();
      case "near-miss":
        return this.#nearMiss();
      case "two-streams":
        return this.#twoStreams();
      case "usurped":
        return this.#usurped();
      case "busy":
        return this.#busy();
      case "terminated-and-back":
        return this.#terminatedAndBack();
      case "deleted-while-establishing":
        return this.#deletedWhileEstablishing();
      case "dropping-acceptor": {
        const { peer } = await this.#peer((stream) => this.#pushAndDrop(stream));
        return this.#establish(this.#tokenOf(peer));
      }
      case "address-pusher": {
        const { peer } = await this.#peer((stream) => this.#pushAddresses(stream));
        const token = withManualAddresses(this.#tokenOf(peer), [`${name}:8503`]);
        return this.#establish(token);
      }
      default: {
        const { peer } = await this.#peer(this.#scriptOf(script));
        if (script === "deaf") peer.behave("stops-reading");
        await this.#dial(peer);
      }
    }
  }

  #scriptOf(
    script:
      | "nack-everything"
      | "nonsense"
      | "terminated-after-open"
      | "deaf"
      | "wrong-nonces"
      | "order-matters"
      | "two-faced",
  ): FakePeerScript {
    switch (script) {
      case "nack-everything":
        return (stream, peer) => this.#refuseEverything(stream, peer);
      case "nonsense":
        return async (stream, peer) => {
          const refusing = this.#refuseEverything(stream, peer);
          await stream.send(...nonsense(stream, this.#world.random));
          await refusing;
        };
      case "terminated-after-open":
        return async (stream, peer) => {
          await stream.send(peer.openMessage(), { type: "terminated" });
          await stream.finish();
        };
      case "deaf":
        return async (stream, peer) => {
          for (const connection of this.#world.network.connections) {
            if (connection.dialer.address === `${this.#options.name}:8503`) connection.windowBytes = TINY_WINDOW_BYTES;
          }
          this.#open(stream, peer);
        };
      case "wrong-nonces":
        return async (stream, peer) => {
          this.#open(stream, peer);
          for await (const message of stream) {
            if (message.type === "response") void stream.send(request(message.resourceUrl, "ffffffff"));
          }
        };
      case "order-matters":
        return (stream, peer) => this.#orderMatters(stream, peer);
      case "two-faced":
        return async (stream, peer) => {
          this.#open(stream, peer);
          for (const response of twoFaces(stream)) {
            await this.#wait(1_000);
            void stream.send(response);
          }
        };
    }
  }

  // --- Dialers -----------------------------------------------------------------------------------------------------------

  /** Opens as fast as it can, whether or not it is let in. */
  async #hotLoop(): Promise<void> {
    const { scheduler, random } = this.#world;
    const transport = this.#transport();
    const peerId = this.#options.host.peerings.list()[0]?.id ?? randomId(random);
    const again = (left: number): void => {
      if (left === 0) return;
      // It is there to be refused.
      this.#knock(transport, peerId, randomId(random)).catch(() => {});
      scheduler.after(1, () => again(left - 1));
    };
    again(OPENS);
  }

  async #mute(): Promise<void> {
    const transport = this.#transport();
    for (let left = 5; left > 0; left--) {
      await transport.openStream(this.#target(), { signal: new AbortController().signal });
    }
  }

  /** Tries what looks like a secret it has, or that of another. */
  async #nearMiss(): Promise<void> {
    const { checker, network } = this.#world;
    const { peer } = await this.#peer(async (stream, peer) => this.#open(stream, peer));
    // Of a peering that has not been opened yet, and for which there is no stream secret.
    const unused = await this.#world.generateToken(this.#options.cluster, this.#options.name);
    const { peerId: ours, establishmentSecret } = TokenCodec.decode(unused);
    const strange = network.transport(`${this.#options.name}k:8503`, this.#life);
    for (const guess of ["", establishmentSecret, digestOf("")])
      await this.#knock(strange, ours, guess).catch(() => {});
    await this.#dial(peer);
    const { peerId, streamSecretId: former } = peer.openMessage();
    // Promoted in place of the former one.
    await this.#dial(peer);
    const { streamSecretId: secret } = peer.openMessage();
    const others = checker.secrets.filter((other) => other !== secret).slice(-3);
    const wrong = [...nearMisses(secret), former, digestOf(secret), twinOf(secret), ...others];
    for (const guess of wrong) await this.#knock(strange, peerId, guess).catch(() => {});
  }

  /** Messages that a stream still brings are older than those of the next one. */
  async #twoStreams(): Promise<void> {
    const { random, network, scheduler } = this.#world;
    const lasting = (stream: FakeStream, from: number): void => {
      const responses = Array.from({ length: 12 }, (_, index) => service(stream, `svc-${index % 3}`, from + index));
      for (const response of responses) scheduler.after(random.between(0, 30), () => void stream.send(response));
    };
    let opened = 0;
    const { peer } = await this.#peer(async (stream, peer) => {
      const version = 100 * ++opened;
      this.#open(stream, peer);
      lasting(stream, version);
    });
    await this.#dial(peer);
    peer.behave("stops-reading");
    this.#slowDisks(random.between(20, 400), 1_000);
    // Once is seldom the moment that counts.
    for (let left = 4; left > 0; left--) {
      for (const connection of network.connections) {
        // So that the host has something left to say when it is replaced, which then takes a moment.
        if (connection.dialer.address === `${this.#options.name}:8503`) connection.windowBytes = TINY_WINDOW_BYTES;
      }
      await this.#wait(random.between(5, 60));
      await peer.connect();
    }
  }

  async #busy(): Promise<void> {
    const { random, failingRecords } = this.#world;
    const { host, name } = this.#options;
    const says = random.chance(0.5);
    this.#slowDisks(random.between(50, 300), 3_000);
    const { peer } = await this.#peer(async (stream, peer) => {
      this.#open(stream, peer);
      for (let version = 0; version < 200 && stream.end === undefined; version++) {
        void stream.send(service(stream, `svc-${version % 5}`, version));
        await this.#wait(3);
        if (!says || version !== 150) continue;
        // Its messages are stored late, and earlier ones are not applied meanwhile.
        this.#fail(failingRecords, 1_000);
        void stream.send({ type: "terminated" });
      }
    });
    await this.#dial(peer);
    await this.#wait(random.between(200, 500));
    if (!says) await host.peerings.delete(name);
  }

  async #terminatedAndBack(): Promise<void> {
    const { failingDisks } = this.#world;
    let opened = 0;
    const { peer } = await this.#peer(async (stream, peer) => {
      this.#open(stream, peer);
      if (++opened > 1) return;
      await this.#wait(100);
      this.#fail(failingDisks, 2_000);
      void stream.send({ type: "terminated" });
    });
    await this.#dial(peer);
    await this.#wait(200);
    await peer.connect();
  }

  async #orderMatters(stream: FakeStream, peer: FakePeer): Promise<void> {
    const { random } = this.#world;
    this.#slowDisks(random.between(5, 100), 2_000);
    this.#open(stream, peer);
    await this.#wait(20);
    for (let round = 0; round < 6; round++) {
      void stream.send(
        service(stream, "a", round),
        service(stream, "b", round),
        list(stream, "b"),
        service(stream, "a", 100 + round),
      );
      await this.#wait(random.between(0, 40));
    }
    if (random.chance(0.5)) return;
    void stream.send(service(stream, "a", 1_000), service(stream, "b", 1_000));
    await this.#wait(random.between(1, 20));
    void stream.send(service(stream, "a", 1_001), service(stream, "c", 1_001), { type: "terminated" });
    await stream.finish();
  }

  async #refuseEverything(stream: FakeStream, peer: FakePeer): Promise<void> {
    const { random } = this.#world;
    this.#open(stream, peer);
    for await (const message of stream) {
      if (message.type !== "response") continue;
      const nonces = random.chance(0.3) ? [message.nonce, "ffffffff", ""] : [message.nonce];
      const error = { code: StatusCode.Internal, message: "out of spite" };
      void stream.send(...nonces.map((nonce) => ({ ...request(message.resourceUrl, nonce), error })));
    }
  }

  // --- Acceptors ---------------------------------------------------------------------------------------------------------

  /** Pushes addresses that would cut the dialer off, and drops the stream. */
  async #pushAndDrop(stream: FakeStream): Promise<void> {
    const { random } = this.#world;
    const { name } = this.#options;
    void stream.send(
      ...ALL_URLS.slice(0, 3).map((url) => request(url, "")),
      stream.response(ResourceUrl.trustBundle, ResourceId.trustBundle, encodeTrustBundle(noRoots)),
      addresses(stream),
      addresses(stream, `${name}:8503`, `nowhere-${random.below(1_000)}:1`),
    );
    this.#after(random.between(1, 200), () => {
      void stream.close({ code: StatusCode.Unknown, message: "dropped" });
    });
  }

  async #pushAddresses(stream: FakeStream): Promise<void> {
    const { name } = this.#options;
    this.#subscribe(stream);
    void stream.send(addresses(stream), addresses(stream, `${name}:8503`, `${name}:8503`), addresses(stream));
  }

  /** The record is established again with another acceptor while the stream of the first one stands. */
  async #usurped(): Promise<void> {
    const { random, network } = this.#world;
    const { name } = this.#options;
    const { peer: former, authority } = await this.#peer(async (stream) => {
      this.#subscribe(stream);
      const roots = authority.roots().map(({ certificatePem }) => certificatePem);
      const bundle = { trustDomain: authority.trustDomain, rootPems: roots, exportedPartition: "" };
      const push = (left: number): void => {
        if (stream.end !== undefined || left === 0) return;
        void stream.send(
          stream.response(ResourceUrl.trustBundle, ResourceId.trustBundle, encodeTrustBundle(bundle)),
          addresses(stream, `${name}:8503`, `former-${random.below(1_000)}:1`),
        );
        this.#after(random.between(50, 150), () => push(left - 1));
      };
      push(PUSHES);
    });
    await this.#establish(this.#tokenOf(former));
    await this.#wait(random.between(100, 600));
    // So that messages of the former stream meet the commit of the latter.
    this.#slowDisks(random.between(20, 400), 4_000);
    const { peer: latter } = await this.#peer(async (stream) => this.#subscribe(stream), `${name}b`, SLOW_EXCHANGE_MS);
    const ending = random.below(3);
    this.#after(SLOW_EXCHANGE_MS + random.between(-100, 400), () => {
      if (ending === 0) void former.terminate().catch(() => {});
      if (ending !== 1) return;
      for (const connection of network.connections) {
        if (connection.acceptor.address === `${name}:8503`) network.cut(connection);
      }
    });
    await this.#establish(this.#tokenOf(latter));
  }

  async #deletedWhileEstablishing(): Promise<void> {
    const { random } = this.#world;
    const { name, host } = this.#options;
    const { peer } = await this.#peer(async (stream) => this.#subscribe(stream), name, SLOW_EXCHANGE_MS);
    const establishing = this.#establish(this.#tokenOf(peer));
    establishing.catch(() => {});
    await this.#wait(random.between(50, 500));
    await host.peerings.delete(name);
    await establishing;
  }

  // --- Common to them ------------------------------------------------------------------------------------------------------

  async #peer(
    script: FakePeerScript,
    name: string = this.#options.name,
    exchangeMs = 0,
  ): Promise<{ readonly peer: FakePeer; readonly authority: FixedAuthority }> {
    const { random, scheduler, network } = this.#world;
    const clock = virtualClock(scheduler, this.#life);
    const authority = fixedAuthority({ trustDomain: `${randomId(random)}.consul`, clock });
    const transport = network.transport(`${name}:8503`, this.#life);
    const peer = await fakePeer({
      transport: exchangeMs === 0 ? transport : slowly(transport, () => this.#wait(exchangeMs)),
      datacenter: name,
      authority,
      clock,
      random,
      script,
    });
    return { peer, authority };
  }

  async #dial(peer: FakePeer): Promise<FakeStream> {
    return peer.establish(await this.#world.generateToken(this.#options.cluster, this.#options.name));
  }

  #establish(token: string): Promise<void> {
    return this.#world.establish(this.#options.cluster, this.#options.name, token);
  }

  #tokenOf(peer: FakePeer): string {
    const token = peer.token();
    this.#world.checker.tokenGiven(undefined, token);
    return token;
  }

  /** A dialer says who it is, that it wants everything, and from then on that it is there. */
  #open(stream: FakeStream, peer: FakePeer): void {
    const open = peer.openMessage();
    void stream.send(open, ...ALL_URLS.map((url) => request(url, "", open.peerId)));
    this.#beat(stream);
  }

  #subscribe(stream: FakeStream): void {
    void stream.send(...ALL_URLS.slice(0, 3).map((url) => request(url, "")));
    this.#beat(stream);
  }

  #beat(stream: FakeStream): void {
    this.#after(HEARTBEAT_MS, () => {
      if (!this.#life.alive || stream.end !== undefined) return;
      void stream.send({ type: "heartbeat" });
      this.#beat(stream);
    });
  }

  async #knock(transport: Transport, peerId: string, streamSecretId: string): Promise<void> {
    const stream = await transport.openStream(this.#target(), { signal: new AbortController().signal });
    await stream.send(encodeMessages([{ type: "open", peerId, streamSecretId }]));
    // Let in by mistake, it leaves again.
    this.#after(1_000, () => void stream.close());
    try {
      while ((await stream.receive()) !== undefined);
    } finally {
      await stream.close();
    }
  }

  /** Writes that the set stands for fail at the victim for a while. */
  #fail(disks: Set<SimCluster>, forMs: number): void {
    const { cluster } = this.#options;
    disks.add(cluster);
    this.#after(forMs, () => disks.delete(cluster));
  }

  #slowDisks(ms: number, forMs: number): void {
    if (this.#world.diskMs !== 1) return;
    this.#world.diskMs = ms;
    this.#after(forMs, () => {
      this.#world.diskMs = 1;
    });
  }

  #transport(): Transport {
    return this.#world.network.transport(`${this.#options.name}:8503`, this.#life);
  }

  #target(): { readonly address: string; readonly serverName: string; readonly caPems: readonly string[] } {
    return { address: this.#options.cluster.address, serverName: "", caPems: [] };
  }

  #after(delayMs: number, action: () => void): void {
    this.#world.scheduler.after(delayMs, action);
  }

  #wait(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#after(delayMs, resolve));
  }
}

/** Secrets that a careless comparison would take for this one. */
export function nearMisses(secret: string): readonly string[] {
  const last = secret.endsWith("0") ? "1" : "0";
  return [secret.slice(0, -1) + last, secret.slice(0, 8), secret.toUpperCase(), `${secret}\n`, "", secret.slice(1)];
}

/** The token with a secret that is almost the one it holds. */
export function nearlyToken(token: string, how: number): string {
  const fields: Record<string, unknown> = JSON.parse(Buffer.from(token, "base64").toString());
  const misses = nearMisses(String(fields["EstablishmentSecret"]));
  const secret = misses[how % misses.length];
  return Buffer.from(JSON.stringify({ ...fields, EstablishmentSecret: secret })).toString("base64");
}

function withManualAddresses(token: string, manual: readonly string[]): string {
  const fields: Record<string, unknown> = JSON.parse(Buffer.from(token, "base64").toString());
  return Buffer.from(JSON.stringify({ ...fields, ManualServerAddresses: manual })).toString("base64");
}

/** Another secret whose digest begins as that of this one does. */
function twinOf(secret: string): string {
  const beginning = digestOf(secret).slice(0, 4);
  let number = 0;
  while (!digestOf(`twin-${number}`).startsWith(beginning)) number++;
  return `twin-${number}`;
}

/** Exchanges take their time. */
function slowly(transport: Transport, wait: () => Promise<void>): Transport {
  return {
    listen: (handler, identity) =>
      transport.listen(
        {
          stream: (stream) => handler.stream(stream),
          exchangeSecret: async (exchange, remoteAddress) => {
            const answer = await handler.exchangeSecret(exchange, remoteAddress);
            await wait();
            return answer;
          },
        },
        identity,
      ),
    exchangeSecret: (target, exchange, options) => transport.exchangeSecret(target, exchange, options),
    openStream: (target, options) => transport.openStream(target, options),
    [Symbol.asyncDispose]: () => transport[Symbol.asyncDispose](),
  };
}

/** A service with one instance, whose port says which version it is. */
function service(stream: FakeStream, name: string, version: number, node = "node", rack = "r0"): ResponseMessage {
  const registration = parseRegistration(
    { node, address: "10.9.9.9", nodeMeta: { rack }, service: { id: name, name, port: 1 + version } },
    "fake",
  );
  const { service: instance } = registration;
  const instances = instance === undefined ? [] : [{ node: registration.node, service: instance, checks: [] }];
  return stream.response(ResourceUrl.exportedService, name, encodeServicePayload(name, instances).value);
}

function list(stream: FakeStream, ...names: readonly string[]): ResponseMessage {
  const { exportedServiceList: id } = ResourceId;
  return stream.response(ResourceUrl.exportedServiceList, id, encodeExportedServiceList(names));
}

function addresses(stream: FakeStream, ...pushed: readonly string[]): ResponseMessage {
  return stream.response(ResourceUrl.serverAddresses, ResourceId.serverAddresses, encodeServerAddresses(pushed));
}

/** `left` and `right` disagree about their node; then `right` goes, and what `left` says holds again. */
function twoFaces(stream: FakeStream): readonly ResponseMessage[] {
  return [
    list(stream, "left", "right"),
    service(stream, "left", 1, "janus", "as left says"),
    service(stream, "right", 1, "janus", "as right says"),
    list(stream, "left"),
  ];
}

function nonsense(stream: FakeStream, random: SeededRandom): readonly ReplicationMessage[] {
  const junk = random.bytes(40);
  const good = stream.response(ResourceUrl.exportedServiceList, "any", encodeExportedServiceList(["a", "", "a"]));
  const { resource: _resource, ...empty } = good;
  return [
    { type: "unknown" },
    { type: "open", peerId: "again", streamSecretId: "again" },
    ...ALL_URLS.map((url) => stream.response(url, "junk", junk)),
    { ...good, nonce: "" },
    { ...good, operation: Operation.Delete },
    empty,
    { ...good, resource: { typeUrl: ResourceUrl.trustBundle, value: junk } },
    { ...good, resourceUrl: "type.googleapis.com/nothing" },
    stream.response(ResourceUrl.trustBundle, ResourceId.trustBundle, encodeTrustBundle(noRoots)),
    good,
    ...(random.chance(0.5) ? [request("type.googleapis.com/nothing", "")] : []),
  ];
}

const noRoots = { trustDomain: "x.consul", rootPems: [], exportedPartition: "" };

function request(resourceUrl: string, responseNonce: string, peerId = ""): RequestMessage {
  return { type: "request", peerId, responseNonce, resourceUrl };
}
