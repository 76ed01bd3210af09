import { randomId } from "../../environment.js";
import type { PeeringHost } from "../../host/host.js";
import { TokenCodec } from "../../token/token-codec.js";
import type { ReplicationStream, Transport } from "../../transport/transport.js";
import { decodeMessage, encodeMessages } from "../../wire/codec.js";
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
import type { Scheduler, SeededRandom } from "./scheduler.js";
import type { SimNetwork } from "./sim-network.js";

/** What a peer that is no host may be like. */
export type Script =
  /** Opens with a valid secret and refuses everything, with the nonces it was given and with others. */
  | "nack-everything"
  /** Opens, and says `Terminated` in the same breath, as a dialer of Consul may (quirk Q-7). */
  | "terminated-after-open"
  /** Opens as fast as it can, with secrets that never were any. */
  | "hot-loop"
  /** Opens, then sends what no peer should. */
  | "nonsense"
  /** Waits to be dialed; takes each stream, pushes what would cut the dialer off, and drops it. */
  | "dropping-acceptor";

export const SCRIPTS: readonly Script[] = [
  "nack-everything",
  "terminated-after-open",
  "hot-loop",
  "nonsense",
  "dropping-acceptor",
];

export interface ScriptedPeerOptions {
  readonly script: Script;
  /** The name its victim shall know it by; also the host part of its address. */
  readonly name: string;
  readonly victim: PeeringHost;
  readonly victimAddress: string;
  readonly network: SimNetwork;
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  /** How long it goes on, in virtual milliseconds. */
  readonly lastsMs: number;
}

const ALL_URLS = [
  ResourceUrl.exportedService,
  ResourceUrl.exportedServiceList,
  ResourceUrl.trustBundle,
  ResourceUrl.serverAddresses,
];

/**
 * A peer that keeps to nothing but its script, over the same network as the hosts.
 * @returns once it has been let in or turned away; what it does then goes on by itself.
 */
export function scriptedPeer(options: ScriptedPeerOptions): Promise<void> {
  return new ScriptedPeer(options).start();
}

class ScriptedPeer {
  readonly #options: ScriptedPeerOptions;
  readonly #life = { alive: true };
  readonly #transport: Transport;
  readonly #endsAt: number;
  #nonce = 0;

  constructor(options: ScriptedPeerOptions) {
    this.#options = options;
    this.#transport = options.network.transport(`${options.name}:8503`, this.#life);
    this.#endsAt = options.scheduler.now + options.lastsMs;
  }

  start(): Promise<void> {
    const { script } = this.#options;
    if (script === "hot-loop") return this.#hotLoop();
    return script === "dropping-acceptor" ? this.#acceptor() : this.#dialer(script);
  }

  get #isOver(): boolean {
    return this.#options.scheduler.now >= this.#endsAt;
  }

  async #dialer(script: Script): Promise<void> {
    const { victim, victimAddress, name } = this.#options;
    const token = TokenCodec.decode(await victim.peerings.generateToken({ peerName: name }));
    const { peerId, establishmentSecret, serverName, ca } = token;
    const target = { address: victimAddress, serverName, caPems: ca };
    const signal = new AbortController().signal;
    const { streamSecret } = await this.#transport.exchangeSecret(
      target,
      { peerId, establishmentSecret },
      { timeoutMs: 5_000, signal },
    );
    const stream = await this.#transport.openStream(target, signal);
    const open: ReplicationMessage = {
      type: "open",
      peerId,
      streamSecretId: streamSecret,
      remote: { partition: "", datacenter: name },
    };
    if (script === "terminated-after-open") {
      await stream.send(encodeMessages([open, { type: "terminated" }]));
      await stream.halfClose();
      this.#read(stream, () => {});
      return;
    }
    await stream.send(encodeMessages([open, ...ALL_URLS.map((url) => request(url, "", peerId))]));
    this.#heartbeats(stream);
    this.#read(stream, (message) => {
      if (message.type !== "response") return;
      const nonces = this.#options.random.chance(0.3) ? [message.nonce, "ffffffff", ""] : [message.nonce];
      const answers = nonces.map((nonce) => ({
        ...request(message.resourceUrl, nonce),
        error: { code: StatusCode.Internal, message: "out of spite" },
      }));
      this.#say(stream, ...answers);
    });
    if (script === "nonsense") this.#say(stream, ...this.#nonsense());
  }

  async #hotLoop(): Promise<void> {
    const { victimAddress, victim, random, scheduler } = this.#options;
    const target = { address: victimAddress, serverName: "", caPems: [] };
    const known = victim.peerings.list()[0]?.id ?? randomId(random);
    const again = (left: number): void => {
      if (left === 0 || this.#isOver) return;
      this.#transport
        .openStream(target, new AbortController().signal)
        .then(
          async (stream) => {
            await stream.send(encodeMessages([{ type: "open", peerId: known, streamSecretId: randomId(random) }]));
            this.#read(stream, () => {});
          },
          () => {},
        )
        .catch(() => {});
      scheduler.after(1, () => again(left - 1));
    };
    again(300);
  }

  async #acceptor(): Promise<void> {
    const { victim, name, random } = this.#options;
    const address = `${name}:8503`;
    const identity = { serverName: name, current: () => ({ certificateChainPem: "", privateKeyPem: "" }) };
    const peerId = randomId(random);
    await this.#transport.listen(
      {
        exchangeSecret: async () => ({ streamSecret: randomId(random) }),
        stream: (stream) => {
          const pushes = [
            this.#response(ResourceUrl.trustBundle, ResourceId.trustBundle, encodeTrustBundle(noRoots)),
            this.#response(ResourceUrl.serverAddresses, ResourceId.serverAddresses, encodeServerAddresses([])),
            this.#response(
              ResourceUrl.serverAddresses,
              ResourceId.serverAddresses,
              encodeServerAddresses([address, `nowhere-${this.#nonce}:1`]),
            ),
          ];
          this.#say(stream, ...ALL_URLS.slice(0, 3).map((url) => request(url, "")), ...pushes);
          this.#read(stream, () => {});
          const { scheduler } = this.#options;
          scheduler.after(random.between(1, 200), () => {
            void stream.close({ code: StatusCode.Unknown, message: "dropped" });
          });
        },
      },
      identity,
    );
    const token = TokenCodec.encode({
      ca: victim.authority.roots().map((root) => root.certificatePem),
      manualServerAddresses: [],
      serverAddresses: [address],
      serverName: `server.${name}.peering.somewhere.consul`,
      peerId,
      establishmentSecret: randomId(random),
      remote: { partition: "", datacenter: name },
    });
    await victim.peerings.establish({ peerName: name, token });
  }

  #nonsense(): readonly ReplicationMessage[] {
    const { random } = this.#options;
    const junk = random.bytes(40);
    const good = this.#response(ResourceUrl.exportedServiceList, "any", encodeExportedServiceList(["a", "", "a"]));
    const { resource: _resource, ...empty } = good;
    return [
      { type: "unknown" },
      { type: "open", peerId: "again", streamSecretId: "again" },
      ...ALL_URLS.map((url) => this.#response(url, "junk", junk)),
      { ...good, nonce: "" },
      { ...good, operation: Operation.Delete },
      empty,
      { ...good, resource: { typeUrl: ResourceUrl.trustBundle, value: junk } },
      { ...good, resourceUrl: "type.googleapis.com/nothing" },
      this.#response(ResourceUrl.trustBundle, ResourceId.trustBundle, encodeTrustBundle(noRoots)),
      good,
      ...(random.chance(0.5) ? [request("type.googleapis.com/nothing", "")] : []),
    ];
  }

  #response(resourceUrl: string, resourceId: string, value: Uint8Array): ResponseMessage {
    this.#nonce++;
    return {
      type: "response",
      nonce: this.#nonce.toString(16).padStart(8, "0"),
      resourceUrl,
      resourceId,
      operation: Operation.Upsert,
      resource: { typeUrl: resourceUrl, value },
    };
  }

  #heartbeats(stream: ReplicationStream): void {
    this.#options.scheduler.after(15_000, () => {
      if (this.#isOver) void stream.close();
      else {
        this.#say(stream, { type: "heartbeat" });
        this.#heartbeats(stream);
      }
    });
  }

  #say(stream: ReplicationStream, ...messages: readonly ReplicationMessage[]): void {
    stream.send(encodeMessages(messages)).catch(() => {});
  }

  #read(stream: ReplicationStream, heard: (message: ReplicationMessage) => void): void {
    const read = async (): Promise<void> => {
      for (let batch = await stream.receive(); batch !== undefined; batch = await stream.receive()) {
        for (const bytes of batch) heard(decodeMessage(bytes));
      }
      await stream.close();
    };
    read().catch(() => stream.close());
  }
}

const noRoots = { trustDomain: "x.consul", rootPems: [], exportedPartition: "" };

function request(resourceUrl: string, responseNonce: string, peerId = ""): RequestMessage {
  return { type: "request", peerId, responseNonce, resourceUrl };
}
