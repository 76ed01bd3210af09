import { decodeMessage } from "../../wire/codec.js";
import type { OpenMessage, ReplicationMessage, RequestMessage, ResponseMessage } from "../../wire/messages.js";
import { Operation, ResourceUrl } from "../../wire/messages.js";
import { decodeExportedServiceList, decodeServerAddresses, decodeTrustBundle } from "../../wire/resources.js";
import type { Status } from "../../wire/status.js";
import { StatusCode } from "../../wire/status.js";
import type { SimCluster } from "./cluster.js";
import { type Court, UNDER_WAY_MS } from "./record-judge.js";
import type { Connection, SimStream } from "./sim-network.js";
import { type DiskView, digestOf, isStanding } from "./stored-forms.js";

/** Times that the protocol allows, as in Consul, and what a virtual world takes beside them. */
const HEARTBEAT_MS = 15_000;
const SILENCE_MS = 120_000;
const STALL_MS = 120_000;
const DRAIN_MS = 5_000;
const SLACK_MS = 5_000;
/** Opens of one source that are judged in one second, at most: twice the limit, where two windows meet. */
const JUDGED_PER_SECOND = 400;
/** A source that tries less often than this is no flood. */
const CALM_PER_SECOND = 100;
/** How a stream ends that was accepted, as in Consul; one that was not ends with other words. */
const ENDS_AFTER_ACCEPTANCE = [
  "unexpected error receiving from the stream",
  "stream ended unexpectedly",
  "subscription request to unknown resource URL",
  "initial subscription requests for a resource type",
];

/** The operation of a response on its resource. */
export type Content =
  | { readonly kind: "service"; readonly key: string; readonly value: Uint8Array }
  | { readonly kind: "list"; readonly names: ReadonlySet<string> }
  | { readonly kind: "bundle"; readonly rootPems: readonly string[] }
  | { readonly kind: "addresses"; readonly addresses: readonly string[] }
  /** No host may apply it. */
  | { readonly kind: "bad" };

/** A response as a host received it. */
export interface Received {
  /** Its place among those of the stream. */
  readonly index: number;
  readonly nonce: string;
  readonly url: string;
  readonly resourceId: string;
  readonly content: Content;
  answer: "ack" | "nack" | undefined;
}

/** One end of a stream that belongs to a host, as an observer of the network sees it. */
export class HostEnd {
  readonly stream: SimStream;
  readonly cluster: SimCluster;
  /** The host that held it: streams do not survive it. */
  readonly host: SimCluster["host"];
  readonly openedAt: number;
  /** Its place among all streams that were bound to a peering; undefined before. */
  order: number | undefined;
  /** The local id of its peering. */
  recordId = "";
  boundAt: number | undefined;
  /** When a newer stream of its peering was bound. */
  replacedAt: number | undefined;
  closedAt: number | undefined;
  terminatedOutAt: number | undefined;
  terminatedInAt: number | undefined;
  /** When its peering was first seen to be terminated. */
  orphanedAt: number | undefined;
  lastHeartbeatOutAt: number | undefined;
  lastHeartbeatInAt: number | undefined;
  lastReceivedAt: number | undefined;
  /** Whether it was found to be wrong: once is enough. */
  condemned = false;
  lastNonce = 0n;
  readonly received: Received[] = [];
  readonly subscriptions: Set<string> = new Set();
  /** The last message of each type that has one resource. */
  readonly lastSent: Map<string, string> = new Map();

  constructor(stream: SimStream, cluster: SimCluster, openedAt: number) {
    this.stream = stream;
    this.cluster = cluster;
    this.host = cluster.host;
    this.openedAt = openedAt;
  }

  /** Whether it still counts: neither replaced, nor closed, nor about to end. */
  get isCurrent(): boolean {
    return this.boundAt !== undefined && this.replacedAt === undefined && !this.isEnding;
  }

  get isEnding(): boolean {
    return this.closedAt !== undefined || this.terminatedInAt !== undefined || this.terminatedOutAt !== undefined;
  }

  /** PeerID of the `Open` that began it. */
  get generation(): string {
    return this.stream.connection.opened?.peerId ?? "";
  }
}

/** The questions that the judge of the streams asks others. */
export interface StreamWitnesses {
  readonly disk: (cluster: SimCluster) => DiskView;
  /** Whether the secret was given for the peering of this PeerID. */
  readonly isFor: (secret: string, peerId: string) => boolean;
  readonly onTerminated: (cluster: SimCluster, peerId: string) => void;
  /** A host is about to acknowledge. */
  readonly onAck: (end: HostEnd, received: Received) => void;
}

/** Judges what hosts say and hear on their streams, message by message, and whether their watchdogs wake. */
export class StreamJudge {
  readonly #court: Court;
  readonly #witnesses: StreamWitnesses;
  readonly #ends = new WeakMap<SimStream, HostEnd>();
  /** Those that stand. */
  readonly #standing = new Set<HostEnd>();
  /** Of each peering, all streams that were bound to it, the oldest first; by cluster and id. */
  readonly #bound = new Map<string, HostEnd[]>();
  readonly #greeted = new WeakSet<Connection>();
  /** When each source tried to open a stream at each cluster. */
  readonly #opens = new Map<string, number[]>();
  /** When opens of each source were looked at by each cluster. */
  readonly #judged = new Map<string, number[]>();
  #order = 0;

  constructor(court: Court, witnesses: StreamWitnesses) {
    this.#court = court;
    this.#witnesses = witnesses;
  }

  /** The streams of a peering, the newest first. */
  streamsOf(cluster: SimCluster, id: string): readonly HostEnd[] {
    return (this.#bound.get(`${cluster.name} ${id}`) ?? []).toReversed();
  }

  /** A stream came into being at a host. */
  opened(stream: SimStream, cluster: SimCluster): HostEnd {
    const known = this.#ends.get(stream);
    if (known !== undefined) return known;
    const end = new HostEnd(stream, cluster, this.#court.now());
    this.#ends.set(stream, end);
    if (!stream.closed) this.#standing.add(end);
    if (stream.role === "acceptor") this.#note(this.#opens, `${stream.remoteAddress} ${cluster.name}`, end.openedAt);
    return end;
  }

  /** A host hands this to the network. */
  sent(stream: SimStream, cluster: SimCluster, message: ReplicationMessage): void {
    const end = this.opened(stream, cluster);
    const at = `${stream.address} to ${stream.remoteAddress}`;
    if (end.terminatedOutAt !== undefined) this.#court.fail(`${at}: ${message.type} after Terminated (I21)`);
    if (message.type === "open") this.#dialed(end, message);
    else if (stream.role === "acceptor" && message.type !== "terminated") this.#accepted(end);
    switch (message.type) {
      case "response":
        this.#offered(end, message);
        break;
      case "request":
        this.#answered(end, message);
        break;
      case "heartbeat":
        end.lastHeartbeatOutAt = this.#court.now();
        break;
      case "terminated":
        this.#saidTerminated(end);
        break;
    }
  }

  /** A host takes this from the network. */
  received(stream: SimStream, cluster: SimCluster, bytes: Uint8Array): void {
    const end = this.opened(stream, cluster);
    end.lastReceivedAt = this.#court.now();
    // Messages that arrive then are discarded.
    if (end.isEnding || end.replacedAt !== undefined) return;
    let message: ReplicationMessage;
    try {
      message = decodeMessage(bytes);
    } catch {
      return;
    }
    switch (message.type) {
      case "response":
        end.received.push(receivedOf(message, end.received.length));
        break;
      case "heartbeat":
        end.lastHeartbeatInAt = this.#court.now();
        break;
      case "terminated":
        end.terminatedInAt = this.#court.now();
        this.#witnesses.onTerminated(cluster, end.generation);
        break;
    }
  }

  /** A host closes its end. */
  closed(stream: SimStream, cluster: SimCluster, status: Status): void {
    const end = this.opened(stream, cluster);
    end.closedAt = this.#court.now();
    this.#standing.delete(end);
    if (stream.role === "dialer") return;
    // Lost, or over, while it was judged: what arrived behind its Open is followed, and nothing is sent before its end.
    if (ENDS_AFTER_ACCEPTANCE.some((text) => status.message.startsWith(text))) this.#accepted(end);
    const source = `${stream.remoteAddress} ${cluster.name}`;
    const limited = status.code === StatusCode.ResourceExhausted && status.message.startsWith("rate limit");
    if (limited && this.#within(this.#opens, source, end.openedAt) < CALM_PER_SECOND) {
      this.#court.fail(`${cluster.name} refuses ${stream.remoteAddress} for what others do`);
    }
    // A follower says so to every caller, whatever the secret.
    if (limited || end.boundAt !== undefined || status.code === StatusCode.FailedPrecondition) return;
    // By when it came: the answers may come all at once, when a disk answers again.
    this.#note(this.#judged, source, end.openedAt);
    if (this.#within(this.#judged, source, end.openedAt) > JUDGED_PER_SECOND) {
      this.#court.fail(`${cluster.name} looks at every one of the many streams that ${stream.remoteAddress} opens`);
    }
  }

  /** The actions that are due on the streams of a host as time goes by. */
  watch(cluster: SimCluster): void {
    const now = this.#court.now();
    for (const end of this.#standing) {
      const { stream } = end;
      if (end.cluster !== cluster || end.condemned) continue;
      if (end.host !== cluster.host || stream.lost) {
        this.#standing.delete(end);
        continue;
      }
      if (cluster.life.frozenUntil > now) continue;
      const since = (at: number | undefined): number => now - Math.max(at ?? end.openedAt, cluster.life.frozenUntil);
      const at = `${stream.address} to ${stream.remoteAddress}`;
      const ending = end.terminatedOutAt ?? end.terminatedInAt;
      if (ending !== undefined) {
        if (since(ending) > DRAIN_MS + SLACK_MS) this.#failOnce(end, `${at} drains for ever (D-2)`);
        continue;
      }
      if (since(end.lastHeartbeatInAt) > SILENCE_MS + SLACK_MS) {
        this.#failOnce(end, `${at} stands although nothing is heard from there (L8)`);
      }
      if (stream.stalledSince !== undefined) {
        if (since(stream.stalledSince) > STALL_MS + SLACK_MS) {
          this.#failOnce(end, `${at} stands although the other side takes nothing (D-10)`);
        }
        continue;
      }
      if (this.#witnesses.disk(cluster).records.get(end.recordId)?.state === "terminated") {
        end.orphanedAt ??= now;
        if (since(end.orphanedAt) > SLACK_MS) this.#failOnce(end, `${at} stands although the peering is terminated`);
      }
      if (end.boundAt !== undefined && since(end.lastHeartbeatOutAt ?? end.boundAt) > HEARTBEAT_MS + SLACK_MS) {
        this.#failOnce(end, `${at}: no heartbeat is sent`);
      }
      // A dialed stream ends at once, an accepted one at its next message.
      const led = Math.max(cluster.ledUntil(), cluster.life.frozenUntil);
      const told = stream.role === "dialer" ? now : (end.lastReceivedAt ?? 0);
      if (told > led + SLACK_MS && end.boundAt !== undefined) {
        this.#failOnce(end, `${at} stands although ${cluster.name} does not lead (I26)`);
      }
    }
  }

  /** Messages that a standing stream has received and not answered, in words. None where nothing moves any more. */
  unanswered(cluster: SimCluster): readonly string[] {
    return [...this.#standing]
      .filter((end) => end.cluster === cluster && end.isCurrent && !end.stream.connection.frozen)
      .flatMap((end) => end.received.filter(({ answer }) => answer === undefined).map(({ url }) => ({ end, url })))
      .map(
        ({ end, url }) =>
          `${cluster.name} has not answered a ${url.split(".").at(-1)} from ${end.stream.remoteAddress}`,
      );
  }

  #dialed(end: HostEnd, open: OpenMessage): void {
    const { cluster, stream } = end;
    const fail = (text: string): void => this.#court.fail(`${cluster.name} dials ${stream.remoteAddress} ${text}`);
    const disk = this.#witnesses.disk(cluster);
    const record = [...disk.records.values()].find(({ peerId }) => peerId === open.peerId);
    if (record === undefined || !isStanding(record)) fail("without a standing record (I13)");
    else if (disk.secrets.get(record.id)?.role !== "dialer") fail("without a secret (I13)");
    if (!this.#witnesses.isFor(open.streamSecretId, open.peerId)) fail("with the secret of another peering (D-19)");
    if (!cluster.leadership.isLeader) fail("and does not lead (I26)");
    this.#bind(end, record?.id ?? "");
  }

  /** The first word of an acceptor is its verdict, even if it is its last one. */
  #accepted(end: HostEnd): void {
    const { cluster, stream } = end;
    if (this.#greeted.has(stream.connection)) return;
    this.#greeted.add(stream.connection);
    const { opened } = stream.connection;
    const id = opened?.peerId.toLowerCase() ?? "";
    const fail = (text: string): void => this.#court.fail(`${cluster.name} accepts ${stream.remoteAddress} ${text}`);
    const row = this.#witnesses.disk(cluster).secrets.get(id);
    if (!isStanding(cluster.machinery()?.records.byId(id))) fail("for a record that does not stand (I12)");
    if (row?.role !== "acceptor" || row.active !== digestOf(opened?.streamSecretId ?? "")) {
      fail("with a secret that is not the active one (I4, I12)");
    }
    if (!cluster.leadership.isLeader) fail("and does not lead (I26)");
    this.#bind(end, id);
  }

  #bind(end: HostEnd, recordId: string): void {
    const now = this.#court.now();
    end.recordId = recordId;
    end.boundAt = now;
    end.order = this.#order++;
    const key = `${end.cluster.name} ${recordId}`;
    const streams = this.#bound.get(key) ?? [];
    this.#bound.set(key, streams);
    for (const older of streams) older.replacedAt ??= now;
    streams.push(end);
  }

  #offered(end: HostEnd, { nonce, resourceUrl, resource }: ResponseMessage): void {
    const at = `${end.stream.address} to ${end.stream.remoteAddress}`;
    const value = /^[0-9a-f]{8,}$/.test(nonce) ? BigInt(`0x${nonce}`) : 0n;
    if (value <= end.lastNonce) this.#court.fail(`${at}: the nonce ${nonce} after ${end.lastNonce.toString(16)}`);
    end.lastNonce = value;
    if (resourceUrl === ResourceUrl.exportedService) return;
    const text = Buffer.from(resource?.value ?? []).toString("latin1");
    if (end.lastSent.get(resourceUrl) === text) this.#court.fail(`${at}: sends ${resourceUrl} again, unchanged`);
    end.lastSent.set(resourceUrl, text);
  }

  #answered(end: HostEnd, request: RequestMessage): void {
    const { responseNonce: nonce, resourceUrl: url, error } = request;
    const at = `${end.stream.address} to ${end.stream.remoteAddress}`;
    if (nonce === "" && error === undefined) {
      if (end.subscriptions.has(url)) this.#court.fail(`${at}: subscribes twice to ${url}`);
      end.subscriptions.add(url);
      return;
    }
    const received = end.received.find((one) => one.nonce === nonce && one.url === url && one.answer === undefined);
    if (received === undefined) {
      this.#court.fail(`${at}: answers the nonce ${nonce}, which waits for no answer`);
      return;
    }
    received.answer = error === undefined ? "ack" : "nack";
    if (received.answer === "nack") return;
    // A newer version speaks for those that it superseded.
    const spoken = end.received
      .slice(received.index)
      .some((one) => one.url === url && one.resourceId === received.resourceId && one.content.kind !== "bad");
    if (!spoken) this.#court.fail(`${at}: acknowledges what nobody may apply, ${url}`);
    else if (received.content.kind !== "bad") this.#witnesses.onAck(end, received);
  }

  #saidTerminated(end: HostEnd): void {
    const { cluster, stream } = end;
    end.terminatedOutAt = this.#court.now();
    const { records } = cluster.machinery() ?? {};
    const record =
      stream.role === "acceptor"
        ? records?.byId(end.generation)
        : records?.list().find(({ peerId }) => peerId !== "" && peerId === end.generation);
    if (isStanding(record)) this.#court.fail(`${cluster.name} says Terminated of ${record?.name}, which stands (I21)`);
  }

  #failOnce(end: HostEnd, text: string): void {
    end.condemned = true;
    this.#court.fail(text);
  }

  #note(times: Map<string, number[]>, key: string, at: number): void {
    const kept = (times.get(key) ?? []).filter((other) => other > at - UNDER_WAY_MS);
    kept.push(at);
    times.set(key, kept);
  }

  /** How many there were in the second before. */
  #within(times: ReadonlyMap<string, readonly number[]>, key: string, before: number): number {
    return (times.get(key) ?? []).filter((at) => at > before - 1_000 && at <= before).length;
  }
}

function receivedOf(message: ResponseMessage, index: number): Received {
  const { nonce, resourceUrl: url, resourceId } = message;
  return { index, nonce, url, resourceId, content: contentOf(message), answer: undefined };
}

function contentOf({ resourceUrl, resourceId, operation, resource }: ResponseMessage): Content {
  if (resource === undefined || resource.typeUrl !== resourceUrl || operation !== Operation.Upsert)
    return { kind: "bad" };
  const { value } = resource;
  try {
    switch (resourceUrl) {
      case ResourceUrl.exportedService:
        return { kind: "service", key: resourceId.toLowerCase(), value: Uint8Array.from(value) };
      case ResourceUrl.exportedServiceList:
        return {
          kind: "list",
          names: new Set(decodeExportedServiceList(value).map((name) => name.toLowerCase())),
        };
      case ResourceUrl.trustBundle: {
        const { rootPems } = decodeTrustBundle(value);
        return rootPems.length === 0 ? { kind: "bad" } : { kind: "bundle", rootPems };
      }
      case ResourceUrl.serverAddresses: {
        const addresses = decodeServerAddresses(value);
        return addresses.length === 0 ? { kind: "bad" } : { kind: "addresses", addresses };
      }
    }
  } catch {
    // No message at all.
  }
  return { kind: "bad" };
}
