import { Alarm } from "../base/alarm.js";
import { compareUtf8 } from "../base/byte-order.js";
import { type Clock, type Logger, type Random, systemClock, systemRandom } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { retry } from "../base/retry.js";
import { Signal } from "../base/signal.js";
import { type ChainInfo, equalChainInfo } from "../config/chain.js";
import { EVERY_SERVICE, frontedBy } from "../config/config-entry-set.js";
import type { PeerRules } from "../config/export-rules.js";
import {
  candidateNames,
  type ExportExplanation,
  type ExportInput,
  explainExport,
  listedName,
  peersForService,
  peersReachingService,
  type ResolvedExports,
  type ResolvedName,
  resolveExports,
  resolveName,
} from "../config/exports.js";
import type { CatalogSource } from "../model/catalog-source.js";
import { unknownChecks } from "../model/check-groups.js";
import type { ServiceInstance } from "../model/instance.js";
import { type LocalNames, ServiceIndex } from "../model/service-index.js";
import {
  type EncodedPayload,
  PayloadEncoder,
  payloadDigest,
  SIDECAR_SUFFIX,
  sidecarName,
} from "../payload/exported-payload.js";
import type { ExportedResource, SessionInput } from "../replication/types.js";
import type { ConfigEntries, ConfigEntryChange } from "../stores/config-entries.js";
import { lowerCase } from "../syntax/names.js";
import { ResourceId, ResourceUrl } from "../wire/messages.js";
import { encodeExportedServiceList } from "../wire/resources.js";

/** Wait before a failed catalog watch is begun again: none, then this, doubling up to the maximum, plus up to as much. */
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 60_000;

/** A peering as exports see it. */
export interface ExportPeer {
  /** Our id of the peering. */
  readonly id: string;
  /** Our name of it, which consumers of the exported-services entry name. */
  readonly name: string;
}

export interface ExportEngineOptions {
  readonly catalog: CatalogSource;
  readonly configEntries: ConfigEntries;
  readonly datacenter: string;
  readonly trustDomain: string;
  /** Whether mesh services are exported. */
  readonly connect: boolean;
  /** Keeps chain-only names out of the list (D-25). */
  readonly strictConsul: boolean;
  readonly logger: Logger;
  /**
   * A service is not sent to this peer, because no Consul could take it: the reason names the instance. Instances of it sent
   * before stay with the peer (D-28).
   */
  readonly onHeldBack?: (peer: ExportPeer, service: string, reason: string) => void;
  /** A service that was held back is sent again, or exported no more. */
  readonly onReleased?: (peer: ExportPeer, service: string) => void;
  /** For the waits after a failed watch, and between slices of encoding. Default: the system's. */
  readonly clock?: Clock;
  readonly random?: Random;
  /** Gets a report of each listener that throws. Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
  /** Instances encoded in one go, about, so that streams are served in between. Default 500. */
  readonly sliceInstances?: number;
}

/** With more names than this to move, a list is sorted as a whole instead of name by name. */
const MANY_NAMES = 32;

/** A few milliseconds of encoding. */
const SLICE_INSTANCES = 500;
/** So many checks take about as long to look at as one instance to encode. */
const CHECKS_AS_AN_INSTANCE = 100;

/** An attached stream of one peer, with what it was given. Keys are lower-cased names. */
interface Attachment {
  readonly peer: ExportPeer;
  readonly sink: (input: SessionInput) => void;
  rules: PeerRules;
  /** Ordinary services, as spelled. */
  readonly services: Map<string, string>;
  readonly chains: Map<string, Chain>;
  /** Names in the exported-service list. */
  readonly listed: Map<string, string>;
  /** The list itself, in byte order; undefined before the first. */
  list: readonly string[] | undefined;
  /** Why services are held back, by resource id. */
  readonly heldBack: Map<string, string>;
}

interface Chain {
  readonly name: string;
  readonly info: ChainInfo;
  /** The last payload given to the stream; undefined: none yet, it is held back. */
  digest: string | undefined;
}

/** One exported name, spelled in one way, and all who see it. */
interface Published {
  readonly key: string;
  readonly name: string;
  readonly peers: Set<Attachment>;
  payload: Payload | undefined;
  /** Whether `payload` is of the instances as they are now. */
  current: boolean;
}

type Payload = ExportedResource | { readonly heldBack: string };

/** The changes that one event makes for one stream. */
interface Batch {
  readonly withdrawn: string[];
  list: ExportedResource | undefined;
  /** By resource id: the newest state only, where one event changes a resource twice. */
  readonly services: Map<string, ExportedResource>;
  readonly sidecars: Map<string, ExportedResource>;
}

const noRules: PeerRules = { exact: new Map(), wildcard: false };

/** Where `name` stands in a list in byte order, or would. */
function placeOf(list: readonly string[], name: string): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareUtf8(list[middle] ?? "", name) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function serviceResource(resourceId: string, { value, digest }: EncodedPayload): ExportedResource {
  return { resourceUrl: ResourceUrl.exportedService, resourceId, value, digest };
}

type ListResource = ExportedResource & { readonly names: readonly string[] };

/** @param names - in byte order. */
export function listResource(names: readonly string[]): ListResource {
  const value = encodeExportedServiceList(names);
  return {
    resourceUrl: ResourceUrl.exportedServiceList,
    resourceId: ResourceId.exportedServiceList,
    value,
    digest: payloadDigest(value),
    names,
  };
}

/**
 * Follows the catalog and the configuration entries, and gives every attached stream the exports for its peer: the whole
 * state when it attaches, then changes. A service is encoded once a change for all peers; an unchanged payload is
 * not sent.
 *
 * Encoding is done in slices, so that heartbeats and finished payloads are sent in between: of a large change the
 * first slice is given at once, the others one by one in later turns. Services that the entries export to any peer are encoded
 * beforehand, so that a stream which attaches later finds it ready.
 */
export class ExportEngine implements AsyncDisposable {
  readonly #options: ExportEngineOptions;
  readonly #index = new ServiceIndex();
  readonly #encoder: PayloadEncoder;
  readonly #emptyPayload: EncodedPayload = { value: new Uint8Array(0), digest: payloadDigest(new Uint8Array(0)) };
  /** By lower-cased name; more than one where blocks spell a name differently. */
  readonly #published = new Map<string, Published[]>();
  readonly #attachments = new Set<Attachment>();
  /** To be encoded, and then given to the peers that see them, in a later turn. */
  readonly #due = new Set<Published>();
  readonly #nextSlice: Alarm;
  /** Instances that may still be encoded in this turn. */
  #budget = 0;
  readonly #gatewaysChanged: Signal;
  readonly #namesChanged: Signal;
  readonly #abort = new AbortController();
  readonly #forgetEntries: () => void;
  readonly #running: Promise<void>;
  /** The services that are exported to any peer. */
  #anyPeer: PeerRules;
  #known = false;
  #lastList: ListResource | undefined;

  /** @throws {TypeError} without a datacenter or trust domain. */
  constructor(options: ExportEngineOptions) {
    if (options.datacenter === "") throw new TypeError("datacenter cannot be empty");
    if (options.trustDomain === "") throw new TypeError("trust domain cannot be empty");
    this.#options = options;
    this.#nextSlice = new Alarm(options.clock ?? systemClock, () => this.#encodeSlice());
    this.#encoder = new PayloadEncoder(options);
    const { logger, incidents = new Incidents({ logger }) } = options;
    this.#gatewaysChanged = new Signal(incidents);
    this.#namesChanged = new Signal(incidents);
    this.#anyPeer = options.configEntries.entries.exportRules.any;
    this.#forgetEntries = options.configEntries.onChange((change) => this.#entryChanged(change));
    this.#running = this.#follow();
  }

  /** Whether the catalog has told its first state; until then nothing is given to anybody. */
  get known(): boolean {
    return this.#known;
  }

  /** All local mesh gateways, ordered by node and service id. */
  get meshGateways(): readonly ServiceInstance[] {
    return this.#index.gateways;
  }

  /** The names of the catalog that is followed. */
  get names(): LocalNames {
    return this.#index;
  }

  /** Calls `listener` after each change of {@link names}, until the returned function is called. */
  onNamesChanged(listener: () => void): () => void {
    return this.#namesChanged.on(listener);
  }

  /** Calls `listener` after each change of {@link meshGateways}, until the returned function is called. */
  onGatewaysChanged(listener: () => void): () => void {
    return this.#gatewaysChanged.on(listener);
  }

  /**
   * Feeds a stream with the exports for its peer, as `exported` and `withdrawn` inputs. The first input is the list, with the
   * services that are encoded already; it is given before `attach` returns when the catalog is known by then. The others follow.
   *
   * @param sink - must not throw; must not attach or detach.
   * @returns detaches: nothing is given any more.
   */
  attach(peer: ExportPeer, sink: (input: SessionInput) => void): () => void {
    const attachment: Attachment = {
      peer,
      sink,
      rules: noRules,
      services: new Map(),
      chains: new Map(),
      listed: new Map(),
      list: undefined,
      heldBack: new Map(),
    };
    this.#attachments.add(attachment);
    if (this.#known) {
      const batches = this.#begin();
      this.#resolveAll(attachment, batches);
      this.#dispatch(batches);
    }
    return () => {
      if (!this.#attachments.delete(attachment)) return;
      // Payloads stay, for the next stream of this peer.
      for (const [key, name] of attachment.services) this.#find(key, name)?.peers.delete(attachment);
    };
  }

  /** The exports for a peering of this name, whether or not it exists. */
  exportsFor(peerName: string): ResolvedExports {
    return resolveExports(this.#input, peerName);
  }

  /** The names of the services among them, without the chains, which take nearly all of the time. */
  servicesFor(peerName: string): readonly string[] {
    return resolveExports({ ...this.#input, connect: false }, peerName).services;
  }

  /** Why the peering of this name is shown `service`, or why it is not. */
  explain(service: string, peerName: string): ExportExplanation {
    const explanation = explainExport(this.#input, peerName, service);
    if (!explanation.ordinary) return explanation;
    const payload = this.#payload(
      this.#find(lowerCase(service), service) ?? {
        key: lowerCase(service),
        name: service,
        peers: new Set(),
        payload: undefined,
        current: false,
      },
    );
    return "heldBack" in payload ? explainExport(this.#input, peerName, service, payload.heldBack) : explanation;
  }

  /** Names that the exported-services entry gives `service` to, sorted. */
  peersFor(service: string): readonly string[] {
    return peersForService(this.#input, service);
  }

  /** Names of peers that are given `service` or one whose discovery chain leads to it, sorted. */
  peersReaching(service: string): readonly string[] {
    return peersReachingService(this.#input, service);
  }

  /** Stops following. Streams that are attached hear nothing more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#forgetEntries();
    this.#attachments.clear();
    this.#due.clear();
    this.#nextSlice.cancel();
    this.#abort.abort();
    await this.#running;
  }

  get #input(): ExportInput {
    const { configEntries, datacenter, connect, strictConsul } = this.#options;
    return { entries: configEntries.entries, names: this.#index, datacenter, connect, strictConsul };
  }

  /** Watches the catalog until disposed of, again from the start whenever a watch ends. */
  async #follow(): Promise<void> {
    const { catalog, logger, clock = systemClock, random = systemRandom } = this.#options;
    const { signal } = this.#abort;
    const followed = async (works: () => void): Promise<void> => {
      let complete = true;
      for await (const { services } of catalog.watch({ signal })) {
        if (signal.aborted) return;
        this.#catalogChanged(services, complete);
        complete = false;
        works();
      }
      if (!signal.aborted) throw new Error("the watch ended");
    };
    try {
      await retry(followed, {
        clock,
        signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        jitter: { share: 1, random },
        atOnce: true,
        onFailure: (error) => logger.error("error watching the catalog for exports", { error: errorText(error) }),
      });
    } catch {
      // Disposed of.
    }
  }

  #catalogChanged(services: ReadonlyMap<string, readonly ServiceInstance[]>, complete: boolean): void {
    const change = this.#index.apply(services, complete);
    const first = !this.#known;
    this.#known = true;
    const batches = this.#begin();
    for (const key of change.services) this.#serviceChanged(key, batches);
    if (change.gateways && !first) this.#offerSidecars(batches);
    for (const attachment of this.#attachments) {
      if (first) this.#resolveAll(attachment, batches);
      else if (change.names.size > 0) this.#resolve(attachment, change.names, batches);
    }
    this.#encodeAhead(first ? undefined : change.names);
    this.#dispatch(batches);
    if (change.gateways) this.#gatewaysChanged.emit();
    if (first || change.names.size > 0) this.#namesChanged.emit();
  }

  /** A change of an entry about one service affects the exports of it, and of services whose chains lead to it. */
  #entryChanged({ kind, name, former, entry }: ConfigEntryChange): void {
    switch (kind) {
      case "exported-services":
      case "proxy-defaults":
        this.#entriesChanged();
        return;
      case "terminating-gateway": {
        const fronted = new Set([...frontedBy(former), ...frontedBy(entry)]);
        // A wildcard may stand for any service.
        if (fronted.has(EVERY_SERVICE)) this.#entriesChanged();
        else this.#resolveNames(fronted);
        return;
      }
      case "service-defaults":
      case "service-resolver":
      case "service-router":
      case "service-splitter":
        this.#resolveNames(this.#options.configEntries.entries.leadingTo(name));
        return;
      // The others say nothing of where a service is found.
    }
  }

  /** After a change that concerns these names only. */
  #resolveNames(names: ReadonlySet<string>): void {
    if (!this.#known) return;
    const batches = this.#begin();
    const keys = [...names].sort();
    for (const attachment of this.#attachments) this.#resolve(attachment, keys, batches);
    this.#dispatch(batches);
  }

  #entriesChanged(): void {
    this.#anyPeer = this.#options.configEntries.entries.exportRules.any;
    if (!this.#known) return;
    const batches = this.#begin();
    for (const attachment of this.#attachments) this.#resolveAll(attachment, batches);
    for (const list of [...this.#published.values()]) for (const published of list) this.#forgetUnexported(published);
    this.#encodeAhead(undefined);
    this.#dispatch(batches);
  }

  #serviceChanged(key: string, batches: Map<Attachment, Batch>): void {
    for (const published of this.#published.get(key) ?? []) {
      published.current = false;
      if (this.#postponed(published)) continue;
      const before = published.payload;
      const after = this.#payload(published);
      // Unchanged, and no peer waits for it: every peer that may see it has it.
      if (!this.#due.delete(published) && before === after) continue;
      for (const attachment of published.peers) this.#offer(attachment, published, batches);
    }
  }

  /** Encodes in later turns the services that the entries export to any peer: all of them, or those of these names. */
  #encodeAhead(keys: Iterable<string> | undefined): void {
    const { exact, wildcard } = this.#anyPeer;
    for (const key of keys ?? candidateNames(this.#input, this.#anyPeer)) {
      const name = exact.get(key) ?? (wildcard ? this.#index.typical.get(key) : undefined);
      const known = this.#published.get(key);
      if (name !== undefined && known === undefined) this.#later(this.#publish(key, name));
      else if (name === undefined) for (const published of known ?? []) this.#forgetUnexported(published);
    }
  }

  /** Begins a turn in which some encoding may be done at once. */
  #begin(): Map<Attachment, Batch> {
    this.#budget = this.#options.sliceInstances ?? SLICE_INSTANCES;
    return new Map();
  }

  /** Whether a later turn encodes this and gives it to the peers that see it; if so, that is scheduled. */
  #postponed(published: Published): boolean {
    if (published.current) return false;
    // No stream has asked for it, so it can wait.
    if (this.#budget > 0 && published.peers.size > 0) return false;
    this.#later(published);
    return true;
  }

  #later(published: Published): void {
    this.#due.add(published);
    if (!this.#abort.signal.aborted) this.#nextSlice.ensure(0);
  }

  #encodeSlice(): void {
    const batches = this.#begin();
    for (const published of this.#due) {
      if (this.#budget <= 0) break;
      this.#due.delete(published);
      // It may have been forgotten, and the name published again.
      if (this.#find(published.key, published.name) !== published) continue;
      this.#payload(published);
      for (const attachment of published.peers) this.#offer(attachment, published, batches);
    }
    this.#dispatch(batches);
    const [next] = this.#due;
    if (next !== undefined) this.#later(next);
  }

  #offerSidecars(batches: Map<Attachment, Batch>): void {
    for (const attachment of this.#attachments) {
      for (const chain of attachment.chains.values()) this.#offerSidecar(attachment, chain, batches);
    }
  }

  /** Brings a stream up to date after a change that may concern any name. */
  #resolveAll(attachment: Attachment, batches: Map<Attachment, Batch>): void {
    attachment.rules = this.#options.configEntries.entries.exportRules.of(attachment.peer.name);
    const keys = new Set(candidateNames(this.#input, attachment.rules));
    for (const key of attachment.services.keys()) keys.add(key);
    for (const key of attachment.chains.keys()) keys.add(key);
    // In one order, whatever that of the blocks and of the catalog: runs can be compared.
    this.#resolve(attachment, [...keys].sort(), batches);
  }

  /** Brings a stream up to date on these names. */
  #resolve(attachment: Attachment, keys: Iterable<string>, batches: Map<Attachment, Batch>): void {
    const input = this.#input;
    const resolved: (readonly [string, ResolvedName | undefined])[] = [];
    for (const key of keys) resolved.push([key, resolveName(input, attachment.rules, key)]);
    // Chains first: they decide which ordinary services are hidden behind their sidecars.
    for (const [key, due] of resolved) this.#resolveChain(attachment, key, due, batches);
    for (const [key, due] of resolved) this.#resolveService(attachment, key, due, batches);
    this.#resolveList(attachment, resolved, batches);
  }

  #resolveChain(
    attachment: Attachment,
    key: string,
    due: ResolvedName | undefined,
    batches: Map<Attachment, Batch>,
  ): void {
    const known = attachment.chains.get(key);
    const kept = known !== undefined && due?.chain !== undefined && known.name === due.name;
    if (known !== undefined && !kept) {
      attachment.chains.delete(key);
      const resourceId = sidecarName(known.name);
      this.#release(attachment, resourceId);
      batchOf(batches, attachment).sidecars.set(resourceId, serviceResource(resourceId, this.#emptyPayload));
    }
    if (due?.chain === undefined || (kept && equalChainInfo(known.info, due.chain))) return;
    const chain = { name: due.name, info: due.chain, digest: kept ? known.digest : undefined };
    attachment.chains.set(key, chain);
    this.#offerSidecar(attachment, chain, batches);
  }

  #resolveService(
    attachment: Attachment,
    key: string,
    due: ResolvedName | undefined,
    batches: Map<Attachment, Batch>,
  ): void {
    const known = attachment.services.get(key);
    const name = due?.ordinary === true ? due.name : undefined;
    if (known === name) return;
    if (known !== undefined) {
      attachment.services.delete(key);
      const published = this.#find(key, known);
      published?.peers.delete(attachment);
      if (published !== undefined) this.#forgetUnexported(published);
      this.#release(attachment, known);
      const batch = batchOf(batches, attachment);
      batch.services.delete(known);
      // Where the id is that of a chain's sidecars too, queued updates under it are theirs.
      if (!this.#hiddenBySidecar(attachment, key) && !batch.sidecars.has(known)) {
        // The list takes its instances from the peer, unless it goes on naming it for its chain alone (D-25).
        const listed = name === undefined && listedName(due, this.#options.strictConsul) !== undefined;
        if (listed) batch.services.set(known, serviceResource(known, this.#emptyPayload));
        else batch.withdrawn.push(known);
      }
    }
    if (name !== undefined) {
      attachment.services.set(key, name);
      const published = this.#find(key, name) ?? this.#publish(key, name);
      published.peers.add(attachment);
      this.#offer(attachment, published, batches);
    }
  }

  #resolveList(
    attachment: Attachment,
    resolved: readonly (readonly [string, ResolvedName | undefined])[],
    batches: Map<Attachment, Batch>,
  ): void {
    const { listed } = attachment;
    const { strictConsul } = this.#options;
    const first = attachment.list === undefined;
    let list = attachment.list ?? [];
    let changed = first;
    const few = !first && resolved.length <= MANY_NAMES;
    for (const [key, due] of resolved) {
      const before = listed.get(key);
      const after = listedName(due, strictConsul);
      if (before === after) continue;
      changed = true;
      if (after === undefined) listed.delete(key);
      else listed.set(key, after);
      if (!few) continue;
      if (before !== undefined) list = list.toSpliced(placeOf(list, before), 1);
      if (after !== undefined) list = list.toSpliced(placeOf(list, after), 0, after);
    }
    if (!changed) return;
    const made = this.#listOf(few ? list : [...listed.values()].sort(compareUtf8));
    attachment.list = made.names;
    batchOf(batches, attachment).list = made;
  }

  /** Encoded once for all peers that are to have the same list: mostly it is made for one after another. */
  #listOf(names: readonly string[]): ListResource {
    const last = this.#lastList;
    if (last?.names.length === names.length && names.every((name, index) => name === last.names[index])) return last;
    this.#lastList = listResource(names);
    return this.#lastList;
  }

  /** Puts the service into the batch, or reports why it is not sent. */
  #offer(attachment: Attachment, published: Published, batches: Map<Attachment, Batch>): void {
    if (this.#hiddenBySidecar(attachment, published.key) || this.#postponed(published)) return;
    const payload = this.#payload(published);
    if ("heldBack" in payload) {
      this.#holdBack(attachment, published.name, payload.heldBack);
    } else {
      this.#release(attachment, published.name);
      batchOf(batches, attachment).services.set(published.name, payload);
    }
  }

  /** An ordinary service named like the sidecars of an exported chain would overwrite them (D-27). */
  #hiddenBySidecar({ chains }: Attachment, key: string): boolean {
    return key.endsWith(SIDECAR_SUFFIX) && chains.has(key.slice(0, -SIDECAR_SUFFIX.length));
  }

  #offerSidecar(attachment: Attachment, chain: Chain, batches: Map<Attachment, Batch>): void {
    const { name } = chain;
    const resourceId = sidecarName(name);
    const { trustDomain, datacenter } = this.#options;
    let payload: EncodedPayload;
    try {
      payload = this.#encoder.sidecar({
        name,
        chain: chain.info,
        gateways: this.#index.gateways,
        peerName: attachment.peer.name,
        trustDomain,
        datacenter,
      });
    } catch (error) {
      this.#holdBack(attachment, resourceId, errorText(error));
      return;
    }
    this.#release(attachment, resourceId);
    if (payload.digest === chain.digest) return;
    chain.digest = payload.digest;
    batchOf(batches, attachment).sidecars.set(resourceId, serviceResource(resourceId, payload));
  }

  /** The payload of now; the one of before where that is the same. */
  #payload(published: Published): Payload {
    const { payload: before } = published;
    if (published.current && before !== undefined) return before;
    published.current = true;
    const instances = this.#index.instances(published.name);
    this.#budget -= Math.max(1, costOf(instances));
    try {
      const encoded = this.#encoder.service(published.name, instances);
      if (before !== undefined && "digest" in before && before.digest === encoded.digest) return before;
      published.payload = serviceResource(published.name, encoded);
    } catch (error) {
      // A catalog of the host's own may give values that are not instances at all: they must not stop the others.
      const heldBack = errorText(error);
      if (before !== undefined && "heldBack" in before && before.heldBack === heldBack) return before;
      published.payload = { heldBack };
    }
    return published.payload;
  }

  #holdBack(attachment: Attachment, resourceId: string, reason: string): void {
    if (attachment.heldBack.get(resourceId) === reason) return;
    attachment.heldBack.set(resourceId, reason);
    this.#options.logger.warn("an exported service is held back", {
      peer: attachment.peer.name,
      service: resourceId,
      reason,
    });
    this.#options.onHeldBack?.(attachment.peer, resourceId, reason);
  }

  #release(attachment: Attachment, resourceId: string): void {
    if (attachment.heldBack.delete(resourceId)) this.#options.onReleased?.(attachment.peer, resourceId);
  }

  #find(key: string, name: string): Published | undefined {
    return this.#published.get(key)?.find((published) => published.name === name);
  }

  #publish(key: string, name: string): Published {
    const published: Published = { key, name, peers: new Set(), payload: undefined, current: false };
    const others = this.#published.get(key);
    if (others === undefined) this.#published.set(key, [published]);
    else others.push(published);
    return published;
  }

  /** Drops an encoding that no block exports to anybody. That of peers without a stream now is kept for their next one. */
  #forgetUnexported(published: Published): void {
    const { key, peers } = published;
    if (peers.size > 0 || this.#anyPeer.exact.has(key)) return;
    if (this.#anyPeer.wildcard && this.#index.typical.has(key)) return;
    const left = (this.#published.get(key) ?? []).filter((other) => other !== published);
    if (left.length === 0) this.#published.delete(key);
    else this.#published.set(key, left);
  }

  #dispatch(batches: ReadonlyMap<Attachment, Batch>): void {
    for (const [attachment, { withdrawn, list, services, sidecars }] of batches) {
      if (withdrawn.length > 0) this.#give(attachment, { type: "withdrawn", resourceIds: withdrawn });
      const resources = [...(list === undefined ? [] : [list]), ...services.values(), ...sidecars.values()];
      if (resources.length > 0) this.#give(attachment, { type: "exported", resources });
    }
  }

  /** One stream that fails must not keep the others from their changes, nor stop the watch. */
  #give({ peer, sink }: Attachment, input: SessionInput): void {
    try {
      sink(input);
    } catch (error) {
      this.#options.logger.error("error handing exports to a stream", {
        peer: peer.name,
        error: errorText(error),
      });
    }
  }
}

/** The cost of encoding instances, as a number of plain ones: an instance may have many checks of its own. */
function costOf(instances: readonly ServiceInstance[]): number {
  let cost = instances.length;
  for (const instance of instances) cost += Math.floor(unknownChecks(instance) / CHECKS_AS_AN_INSTANCE);
  return cost;
}

function batchOf(batches: Map<Attachment, Batch>, attachment: Attachment): Batch {
  let batch = batches.get(attachment);
  if (batch === undefined) {
    batch = { withdrawn: [], list: undefined, services: new Map(), sidecars: new Map() };
    batches.set(attachment, batch);
  }
  return batch;
}
