import { randomId } from "../../environment.js";
import type { PeeringHost } from "../../host/host.js";
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
import { fakePeer } from "../fake-peer/fake-peer.js";
import type { FakeStream } from "../fake-peer/fake-stream.js";
import type { FakePeerScript } from "../fake-peer/script.js";
import { fixedAuthority } from "../fixed-authority.js";
import { type Scheduler, type SeededRandom, virtualClock } from "./scheduler.js";
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
const HEARTBEAT_MS = 15_000;
const ALIVE = { alive: true };

/**
 * A peer that keeps to nothing but its script, over the same network as the hosts.
 * @returns once it has been let in or turned away; what it does then goes on by itself.
 */
export async function scriptedPeer(options: ScriptedPeerOptions): Promise<void> {
  const { script, name, victim, network, scheduler, random } = options;
  if (script === "hot-loop") return hotLoop(options);
  const clock = virtualClock(scheduler, ALIVE);
  const peer = await fakePeer({
    transport: network.transport(`${name}:8503`, ALIVE),
    datacenter: name,
    authority: fixedAuthority({ trustDomain: `${randomId(random)}.consul`, clock }),
    clock,
    random,
    script: scriptOf(script, options),
  });
  if (script === "dropping-acceptor") await victim.peerings.establish({ peerName: name, token: peer.token() });
  else await peer.establish(await victim.peerings.generateToken({ peerName: name }));
}

function scriptOf(script: Exclude<Script, "hot-loop">, options: ScriptedPeerOptions): FakePeerScript {
  switch (script) {
    case "nack-everything":
      return (stream, peer) => refuseEverything(stream, peer.openMessage(), options);
    case "nonsense":
      return async (stream, peer) => {
        const refusing = refuseEverything(stream, peer.openMessage(), options);
        await stream.send(...nonsense(stream, options.random));
        await refusing;
      };
    case "terminated-after-open":
      return async (stream, peer) => {
        await stream.send(peer.openMessage(), { type: "terminated" });
        await stream.finish();
      };
    case "dropping-acceptor":
      return (stream) => pushAndDrop(stream, options);
  }
}

/** Opens as fast as it can, whether or not it is let in. */
function hotLoop({ name, victim, victimAddress, network, random, scheduler, lastsMs }: ScriptedPeerOptions): void {
  const transport = network.transport(`${name}:8503`, ALIVE);
  const target = { address: victimAddress, serverName: "", caPems: [] };
  const peerId = victim.peerings.list()[0]?.id ?? randomId(random);
  const endsAt = scheduler.now + lastsMs;
  const open = async (): Promise<void> => {
    const stream = await transport.openStream(target, new AbortController().signal);
    await stream.send(encodeMessages([{ type: "open", peerId, streamSecretId: randomId(random) }]));
    while ((await stream.receive()) !== undefined);
    await stream.close();
  };
  const again = (left: number): void => {
    if (left === 0 || scheduler.now >= endsAt) return;
    // It is there to be refused.
    open().catch(() => {});
    scheduler.after(1, () => again(left - 1));
  };
  again(300);
}

async function refuseEverything(
  stream: FakeStream,
  open: ReplicationMessage & { readonly type: "open" },
  { random, scheduler, lastsMs }: ScriptedPeerOptions,
): Promise<void> {
  const endsAt = scheduler.now + lastsMs;
  const beat = (): void => {
    if (scheduler.now >= endsAt) void stream.close();
    else {
      void stream.send({ type: "heartbeat" });
      scheduler.after(HEARTBEAT_MS, beat);
    }
  };
  scheduler.after(HEARTBEAT_MS, beat);
  void stream.send(open, ...ALL_URLS.map((url) => request(url, "", open.peerId)));
  for await (const message of stream) {
    if (message.type !== "response") continue;
    const nonces = random.chance(0.3) ? [message.nonce, "ffffffff", ""] : [message.nonce];
    const error = { code: StatusCode.Internal, message: "out of spite" };
    void stream.send(...nonces.map((nonce) => ({ ...request(message.resourceUrl, nonce), error })));
  }
}

/** Pushes what would cut the dialer off, and drops the stream. */
async function pushAndDrop(stream: FakeStream, { name, random, scheduler }: ScriptedPeerOptions): Promise<void> {
  const addresses = (...list: readonly string[]): ResponseMessage =>
    stream.response(ResourceUrl.serverAddresses, ResourceId.serverAddresses, encodeServerAddresses(list));
  void stream.send(
    ...ALL_URLS.slice(0, 3).map((url) => request(url, "")),
    stream.response(ResourceUrl.trustBundle, ResourceId.trustBundle, encodeTrustBundle(noRoots)),
    addresses(),
    addresses(`${name}:8503`, `nowhere-${random.below(1_000)}:1`),
  );
  scheduler.after(random.between(1, 200), () => {
    void stream.close({ code: StatusCode.Unknown, message: "dropped" });
  });
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
