import type { Abortable } from "../../base/abortable.js";
import type { Closable } from "../../base/closable.js";
import { type Clock, type Random, randomId } from "../../base/environment.js";
import { PeeringError } from "../../base/errors.js";
import { Wake } from "../../base/latest.js";
import { Signal } from "../../base/signal.js";
import type { ServiceInstance } from "../../model/instance.js";
import { parseRegistration, type Registration } from "../../model/registration.js";
import { encodeServicePayload } from "../../payload/exported-payload.js";
import { decodePayload } from "../../payload/imported-payload.js";
import { type PeeringToken, TokenCodec } from "../../token/token-codec.js";
import type { DialTarget, Listener, ReplicationStream, Transport } from "../../transport/transport.js";
import type { CertificateAuthority } from "../../trust/authority.js";
import type { ServerCertificate } from "../../trust/server-certificate.js";
import {
  type OpenMessage,
  type ReplicationMessage,
  ResourceId,
  ResourceUrl,
  type ResponseMessage,
} from "../../wire/messages.js";
import {
  decodeExportedServiceList,
  decodeServerAddresses,
  decodeTrustBundle,
  encodeExportedServiceList,
  encodeServerAddresses,
  encodeTrustBundle,
  type TrustBundlePayload,
} from "../../wire/resources.js";
import { type Status, StatusCode } from "../../wire/status.js";
import { type Behaviour, type Misbehaviour, misbehaviours, wellBehaved } from "./behaviour.js";
import { FakeStream } from "./fake-stream.js";

/**
 * The actions of a fake peer on one stream, from its beginning on. The stream is not closed when the script is over; an error that a
 * script throws while its stream stands is thrown by the peer's `until` and disposal.
 */
export type FakePeerScript = (stream: FakeStream, peer: FakePeer) => Promise<void>;

export interface FakePeerOptions {
  /** How it is reached and reaches others; with an address to listen on it can mint tokens. It owns the transport. */
  readonly transport: Transport;
  /** Run on each stream. Default: it keeps the protocol, within its behaviour. */
  readonly script?: FakePeerScript;
  /** How it behaves from the beginning on. Default: well. */
  readonly behaviour?: Misbehaviour | Partial<Behaviour>;
  /** `host:port` its tokens and pushes say it is to be dialed at. Default: where it listens. */
  readonly advertise?: string;
  /** The datacenter it says to be. Default `"fake"`. */
  readonly datacenter?: string;
  /** Its roots, and the certificate it shows. Default: a CA of its own that lives as long as it. */
  readonly authority?: CertificateAuthority;
  /** For its heartbeats and delays. Default: the system's. */
  readonly clock?: Clock;
  /** For ids and secrets. Default: the system's. */
  readonly random?: Random;
}

/** The host's answer to the newest version of a resource. */
export interface HostAnswer {
  /** `""` while it was not sent yet. */
  readonly nonce: string;
  /** Undefined: not answered yet. `""`: acknowledged. Else the text it was refused with. */
  readonly refusal: string | undefined;
}

const EXCHANGE_MS = 5_000;

interface Parts extends FakePeerOptions {
  readonly script: FakePeerScript;
  readonly datacenter: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly authority: CertificateAuthority;
  readonly certificate: ServerCertificate;
}

/** See {@link fakePeer}. */
export class FakePeer implements Closable {
  readonly clock: Clock;
  readonly #parts: Parts;
  /** Its own id of the peering, as an acceptor. */
  readonly #id: string;
  readonly #establishmentSecrets = new Set<string>();
  readonly #streamSecrets = new Set<string>();
  #listener: Listener | undefined;
  #dialed: { readonly target: DialTarget; readonly peerId: string; readonly streamSecret: string } | undefined;
  #behaviour: Behaviour;
  #change = new AbortController();
  readonly #offered = new Map<string, Map<string, ServiceInstance>>();
  readonly #offerChanged = new Signal<[names: readonly string[]]>();
  readonly #behaviourChanged = new Signal();
  readonly #streams: FakeStream[] = [];
  readonly #events = new Signal();
  readonly #imported = new Map<string, readonly ServiceInstance[]>();
  readonly #answers = new Map<string, HostAnswer>();
  /** The resource that each newest nonce belongs to. */
  readonly #nonces = new Map<string, string>();
  #listed: readonly string[] | undefined;
  #trustBundle: TrustBundlePayload | undefined;
  #serverAddresses: readonly string[] | undefined;
  #failure: { readonly error: unknown; seen: boolean } | undefined;
  #disposed = false;

  /** @internal */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.clock = parts.clock;
    this.#id = randomId(parts.random);
    this.#behaviour = { ...wellBehaved, ...behaviourOf(parts.behaviour ?? {}) };
  }

  /** @internal */
  async listen(): Promise<void> {
    const { transport, certificate } = this.#parts;
    this.#listener = await transport.listen(
      {
        exchangeSecret: async ({ peerId, establishmentSecret }) => this.#exchange(peerId, establishmentSecret),
        stream: (stream) => {
          this.#serve(stream, "acceptor");
        },
      },
      certificate,
    );
  }

  // --- Peering -----------------------------------------------------------------------------------------------------------

  /** The address it listens at; undefined for a peer that only dials. */
  get listenAddress(): string | undefined {
    return this.#listener?.address;
  }

  /** The address to dial it at; undefined for a peer that only dials. */
  get address(): string | undefined {
    return this.#listener === undefined ? undefined : (this.#parts.advertise ?? this.#listener.address);
  }

  /**
   * A token to establish with, which works once.
   * @throws {TypeError} its transport listens nowhere.
   */
  token(): string {
    const { authority, certificate, random, datacenter } = this.#parts;
    const { address } = this;
    if (address === undefined) throw new TypeError("a fake peer that listens nowhere has no tokens");
    const establishmentSecret = randomId(random);
    this.#establishmentSecrets.add(establishmentSecret);
    const token: PeeringToken = {
      ca: authority.roots().map((root) => root.certificatePem),
      manualServerAddresses: [],
      serverAddresses: [address],
      serverName: certificate.serverName,
      peerId: this.#id,
      establishmentSecret,
      remote: { partition: "", datacenter },
    };
    return TokenCodec.encode(token);
  }

  /**
   * Uses a token of the host: exchanges its secret, and opens a stream. It does not dial again on its own: see
   * {@link connect}.
   * @throws {PeeringError} as `TokenCodec.decode` and `Transport.exchangeSecret`.
   */
  async establish(token: string): Promise<FakeStream> {
    const { transport } = this.#parts;
    const { peerId, establishmentSecret, serverName, ca, serverAddresses, manualServerAddresses } =
      TokenCodec.decode(token);
    const [address = ""] = [...manualServerAddresses, ...serverAddresses];
    const target: DialTarget = { address, serverName, caPems: ca };
    const { streamSecret } = await transport.exchangeSecret(
      target,
      { peerId, establishmentSecret },
      { timeoutMs: EXCHANGE_MS, signal: new AbortController().signal },
    );
    this.#dialed = { target, peerId, streamSecret };
    return this.connect();
  }

  /**
   * Opens a stream, another one if there is one already, with the secret it was given.
   * @throws {TypeError} it has established no peering. {@link PeeringError} as `Transport.openStream`.
   */
  async connect(): Promise<FakeStream> {
    if (this.#dialed === undefined) throw new TypeError("a fake peer dials after establish()");
    const signal = new AbortController().signal;
    const stream = await this.#parts.transport.openStream(this.#dialed.target, { signal });
    return this.#serve(stream, "dialer");
  }

  /** All streams so far, the oldest first. */
  get streams(): readonly FakeStream[] {
    return this.#streams;
  }

  /** Waits for a stream that stands and is open, and returns it. @throws as {@link until}. */
  async connected(options: Abortable = {}): Promise<FakeStream> {
    let found: FakeStream | undefined;
    await this.until(() => {
      found = this.#streams.findLast((stream) => stream.opened && stream.end === undefined);
      return found !== undefined;
    }, options);
    return found ?? this.stream;
  }

  /** The newest stream. @throws {TypeError} there was none yet. */
  get stream(): FakeStream {
    const stream = this.#streams.at(-1);
    if (stream === undefined) throw new TypeError("no stream yet");
    return stream;
  }

  // --- What it offers ------------------------------------------------------------------------------------------------------

  /**
   * Exports these instances, beside those it exports already; one of the same node and id is replaced.
   * @throws {PeeringError} `invalid-registration`. TypeError for a registration without a service.
   */
  offer(...registrations: readonly Registration[]): void {
    const names = new Set<string>();
    for (const registration of registrations) {
      const { node, service, checks } = parseRegistration(registration, this.#parts.datacenter);
      if (service === undefined) throw new TypeError("a fake peer exports services: the registration has none");
      const instances = this.#offered.get(service.name) ?? new Map<string, ServiceInstance>();
      instances.set(`${node.name} ${service.id}`, { node, service, checks });
      this.#offered.set(service.name, instances);
      names.add(service.name);
    }
    this.#tellOffered([...names]);
  }

  /** Exports these services no more. */
  withdraw(...names: readonly string[]): void {
    for (const name of names) {
      this.#offered.delete(name);
      this.#answers.delete(name);
    }
    this.#tellOffered([]);
  }

  /** The host's answers, by service, or by type URL of the other resources. */
  get answers(): ReadonlyMap<string, HostAnswer> {
    return this.#answers;
  }

  /** Whether the host has acknowledged the newest version of this service, or without a name of everything it was sent. */
  acknowledged(service?: string): boolean {
    if (service !== undefined) return this.#answers.get(service)?.refusal === "";
    return this.#answers.size > 0 && [...this.#answers.values()].every(({ refusal }) => refusal === "");
  }

  // --- What it was told ----------------------------------------------------------------------------------------------------

  /** Services of the host with their instances, as of now. A service that was listed and never came is not among them. */
  get imported(): ReadonlyMap<string, readonly ServiceInstance[]> {
    return this.#imported;
  }

  /** Names of the last list of exported services. Undefined before there was one. */
  get listed(): readonly string[] | undefined {
    return this.#listed;
  }

  get trustBundle(): TrustBundlePayload | undefined {
    return this.#trustBundle;
  }

  /** The addresses to dial the host at, as it sent them. Only dialers get them. */
  get serverAddresses(): readonly string[] | undefined {
    return this.#serverAddresses;
  }

  /**
   * Waits until `holds` returns true of this peer's state. It is asked again after each event of the peer's.
   * @throws the error of a script, `signal.reason` when aborted, or {@link PeeringError} `closed`.
   */
  async until(holds: () => boolean, { signal }: Abortable = {}): Promise<void> {
    const wake = new Wake();
    const forget = this.#events.on(wake.call);
    try {
      for (;;) {
        wake.clear();
        this.#throwFailure();
        signal?.throwIfAborted();
        if (holds()) return;
        if (this.#disposed) throw new PeeringError("closed", "the fake peer was disposed of");
        await wake.wait(signal);
      }
    } finally {
      forget();
    }
  }

  // --- How it behaves ------------------------------------------------------------------------------------------------------

  get behaviour(): Behaviour {
    return this.#behaviour;
  }

  /** Behaves like this from now on, in all else as it did: `peer.behave("stops-reading")`, or `peer.behave(wellBehaved)`. */
  behave(change: Misbehaviour | Partial<Behaviour>): void {
    this.#behaviour = { ...this.#behaviour, ...behaviourOf(change) };
    const before = this.#change;
    this.#change = new AbortController();
    before.abort();
    this.#behaviourChanged.emit();
  }

  /** Loses every stream without a goodbye. */
  async drop(): Promise<void> {
    await Promise.all(this.#streams.map((stream) => (stream.end === undefined ? stream.close() : undefined)));
  }

  /** Deletes the peering on its side: says so on the newest stream, and refuses to know of it from then on. */
  async terminate(): Promise<void> {
    this.behave({ refuses: { code: StatusCode.Aborted, message: `peering is marked as deleted: ${this.#id}` } });
    await this.stream.send({ type: "terminated" });
    if (this.stream.role === "dialer") await this.stream.finish();
  }

  // --- For scripts -----------------------------------------------------------------------------------------------------------

  /** The `Open` of a dialer. @throws {TypeError} it has established no peering. */
  openMessage(): OpenMessage {
    if (this.#dialed === undefined) throw new TypeError("a fake peer opens streams after establish()");
    const { peerId, streamSecret } = this.#dialed;
    const remote = { partition: "", datacenter: this.#parts.datacenter };
    return { type: "open", peerId, streamSecretId: streamSecret, remote };
  }

  /** Why a stream that begins with this message is refused; undefined where it is not. */
  judge(open: ReplicationMessage): Status | undefined {
    if (this.#behaviour.refuses !== undefined) return this.#behaviour.refuses;
    if (open.type !== "open") {
      const message = "first message when initiating a peering must be: Open";
      return { code: StatusCode.InvalidArgument, message };
    }
    if (open.peerId === this.#id && this.#streamSecrets.has(open.streamSecretId)) return undefined;
    return { code: StatusCode.PermissionDenied, message: "invalid peering stream secret" };
  }

  /** All it has of one type, as responses of `stream`. */
  resourcesFor(stream: FakeStream, resourceUrl: string): readonly ResponseMessage[] {
    const { authority } = this.#parts;
    switch (resourceUrl) {
      case ResourceUrl.exportedService:
        return [
          ...[...this.#offered.keys()].map((name) => this.serviceResponse(stream, name)),
          this.listResponse(stream),
        ];
      case ResourceUrl.trustBundle: {
        const rootPems = authority.roots().map((root) => root.certificatePem);
        const bundle = { trustDomain: authority.trustDomain, rootPems, exportedPartition: "" };
        return [stream.response(resourceUrl, ResourceId.trustBundle, encodeTrustBundle(bundle))];
      }
      case ResourceUrl.serverAddresses: {
        if (stream.role === "dialer" || this.address === undefined) return [];
        return [stream.response(resourceUrl, ResourceId.serverAddresses, encodeServerAddresses([this.address]))];
      }
      default:
        return [];
    }
  }

  /** One service as it is offered now. */
  serviceResponse(stream: FakeStream, name: string): ResponseMessage {
    const instances = [...(this.#offered.get(name)?.values() ?? [])];
    const { value } = encodeServicePayload(name, instances, { strictConsul: true });
    return stream.response(ResourceUrl.exportedService, name, value);
  }

  /** The names of the services offered now. */
  listResponse(stream: FakeStream): ResponseMessage {
    const value = encodeExportedServiceList([...this.#offered.keys()].sort());
    return stream.response(ResourceUrl.exportedServiceList, ResourceId.exportedServiceList, value);
  }

  /** Calls `listener` with the services whose offer has changed; with none where only the list has changed. */
  onOffer(listener: (names: readonly string[]) => void): () => void {
    return this.#offerChanged.on(listener);
  }

  /** Calls `listener` when its behaviour has changed. */
  onBehaviour(listener: () => void): () => void {
    return this.#behaviourChanged.on(listener);
  }

  /**
   * Ends its streams and its transport.
   * @throws the error of a script, unless `until` did already.
   */
  async close(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const { transport, certificate, authority } = this.#parts;
    await this.drop();
    // Whatever still waits for it to read again goes on, and finds the stream closed.
    this.behave(wellBehaved);
    this.#notify();
    await certificate[Symbol.asyncDispose]();
    await transport[Symbol.asyncDispose]();
    await authority[Symbol.asyncDispose]();
    if (this.#failure?.seen === false) this.#throwFailure();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #exchange(peerId: string, secret: string): { readonly streamSecret: string } {
    const { refuses } = this.#behaviour;
    if (refuses !== undefined) throw refusal(refuses);
    if (peerId !== this.#id || !this.#establishmentSecrets.delete(secret)) {
      throw refusal({ code: StatusCode.PermissionDenied, message: "invalid peering establishment secret" });
    }
    const streamSecret = randomId(this.#parts.random);
    this.#streamSecrets.add(streamSecret);
    return { streamSecret };
  }

  #serve(stream: ReplicationStream, role: "acceptor" | "dialer"): FakeStream {
    const fake: FakeStream = new FakeStream({
      stream,
      role,
      clock: this.clock,
      behaviour: () => this.#behaviour,
      untilChange: () => this.#change.signal,
      onExchanged: (from, message) => this.#exchanged(fake, from, message),
      onEvent: () => this.#notify(),
    });
    this.#streams.push(fake);
    this.#answers.clear();
    this.#nonces.clear();
    void this.#play(fake);
    this.#notify();
    return fake;
  }

  async #play(stream: FakeStream): Promise<void> {
    const { script } = this.#parts;
    try {
      await script(stream, this);
    } catch (error) {
      // A failure because the stream has ended is no fault of the script's.
      if (stream.end !== undefined && error instanceof PeeringError && error.code === "stream-ended") return;
      this.#failure ??= { error, seen: false };
      this.#notify();
    }
  }

  #exchanged(stream: FakeStream, from: "peer" | "host", message: ReplicationMessage): void {
    if (from === "peer") {
      if (message.type === "response") {
        const key = resourceKey(message);
        this.#nonces.delete(this.#answers.get(key)?.nonce ?? "");
        this.#nonces.set(message.nonce, key);
        this.#answers.set(key, { nonce: message.nonce, refusal: undefined });
      }
      return;
    }
    // A replaced stream may still be read.
    if (stream !== this.#streams.at(-1)) return;
    if (message.type === "request" && message.responseNonce !== "")
      this.#answered(message.responseNonce, message.error);
    else if (message.type === "response") this.#import(message);
  }

  #answered(nonce: string, error: { readonly message: string } | undefined): void {
    const key = this.#nonces.get(nonce);
    if (key !== undefined) this.#answers.set(key, { nonce, refusal: error?.message ?? "" });
  }

  #import({ resourceUrl, resourceId, resource }: ResponseMessage): void {
    const { value = new Uint8Array() } = resource ?? {};
    switch (resourceUrl) {
      case ResourceUrl.exportedService: {
        const instances = decodePayload(value);
        if (instances.length === 0) this.#imported.delete(resourceId);
        else this.#imported.set(resourceId, instances);
        break;
      }
      case ResourceUrl.exportedServiceList: {
        this.#listed = decodeExportedServiceList(value);
        const kept = new Set(this.#listed.flatMap((name) => [name, `${name}-sidecar-proxy`]));
        for (const name of this.#imported.keys()) if (!kept.has(name)) this.#imported.delete(name);
        break;
      }
      case ResourceUrl.trustBundle:
        this.#trustBundle = decodeTrustBundle(value);
        break;
      case ResourceUrl.serverAddresses:
        this.#serverAddresses = decodeServerAddresses(value);
        break;
    }
  }

  #tellOffered(names: readonly string[]): void {
    // An answer to the version before is none to this one, also while this one is still on its way.
    for (const key of [...names, ResourceUrl.exportedServiceList]) {
      this.#nonces.delete(this.#answers.get(key)?.nonce ?? "");
      this.#answers.set(key, { nonce: "", refusal: undefined });
    }
    this.#offerChanged.emit(names);
  }

  #throwFailure(): void {
    if (this.#failure === undefined) return;
    this.#failure.seen = true;
    throw this.#failure.error;
  }

  #notify(): void {
    this.#events.emit();
  }
}

function behaviourOf(change: Misbehaviour | Partial<Behaviour>): Partial<Behaviour> {
  return typeof change === "string" ? misbehaviours[change] : change;
}

function refusal({ code, message }: Status): PeeringError {
  return new PeeringError("permission-denied", message, { status: code });
}

function resourceKey({ resourceUrl, resourceId }: ResponseMessage): string {
  return resourceUrl === ResourceUrl.exportedService ? resourceId : resourceUrl;
}
