import { Alarm } from "../base/alarm.js";
import { compareUtf8 } from "../base/byte-order.js";
import { type Clock, type Logger, type Random, systemClock, systemRandom } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { retry } from "../base/retry.js";
import { Signal } from "../base/signal.js";
import type { Steps } from "../base/steps.js";
import { sortSteps } from "../base/turns.js";
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
  /** Names resolved for streams in one go, for the same reason. Default 500. */
  readonly sliceNames?: number;
  /** Streams that are given something in one go. Default 25. */
  readonly sliceStreams?: number;
}

/** To look at a name takes about this part of the time to resolve one, and a step of sorting as long as to resolve so many. */
const LOOKED_AT_AS_NAMES = 0.1;
const SORTED_AS_NAMES = 100;

/** With more names than this to move, a list is sorted as a whole instead of name by name. */
const MANY_NAMES = 32;

/** A few milliseconds of encoding, of resolving, and of handing over, in a process that has done little of it yet. */
const SLICE_INSTANCES = 500;
const SLICE_NAMES = 500;
const SLICE_STREAMS = 25;
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
  /** The work that is left for it; undefined: it has been given everything. */
  backlog: Backlog | undefined;
}

/** Everything that a stream has not been given yet: it is worked off in turns. Keys are lower-cased names. */
interface Backlog {
  readonly steps: Steps<void>;
  /** Of the turn that works on it. */
  batches: Batches;
  /** While any name may be resolved otherwise than before: what is given once all are. */
  whole: Batch | undefined;
  /** Whether the list is another one, which has not been given yet. */
  isListChanged: boolean;
  /** Names that are to be resolved, whatever became of the others. */
  readonly names: Set<string>;
  /** Of services and chains that are to be offered. */
  readonly services: Set<string>;
  readonly chains: Set<string>;
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
  /** Those of them that are to be offered it in a later turn; the one that waits longest comes first. */
  readonly waiting: Set<Attachment>;
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

type Batches = Map<Attachment, Batch>;

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
 * All of that is done in slices, so that heartbeats and finished payloads are sent in between: of a large change the
 * first slice is done at once, the others one by one in later turns. A slice has so many names that are resolved, so many instances that
 * are encoded, and so many streams that are given something. Services that the entries export to any peer are encoded
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
  /** Streams with a backlog; the one that was worked on last comes last. */
  readonly #behind = new Set<Attachment>();
  /** Services that streams wait to be offered. */
  readonly #spreading = new Set<Published>();
  /** Publishes what the entries export to any peer, and forgets the rest; undefined: that is done. */
  #publishing: Steps<void> | undefined;
  readonly #nextSlice: Alarm;
  /** Kinds of work for slices: the one that was done last comes last. @returns Whether there was any. */
  readonly #works: ((batches: Batches) => boolean)[] = [
    (batches) => this.#spread(batches),
    (batches) => this.#workOff(batches),
    (batches) => this.#encodeSlice(batches),
    () => this.#publishAhead(),
  ];
  /** Instances that may still be encoded in this turn, and names that may be resolved. */
  #budget = 0;
  #namesLeft = 0;
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
    this.#nextSlice = new Alarm(options.clock ?? systemClock, () => this.#workSlice());
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
   * Feeds a stream with the exports for its peer, as `exported` and `withdrawn` inputs. The first input is the list, with
   * services that are encoded already; it is given before `attach` returns when the catalog is known by then and few names are to be
   * looked at. The others follow.
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
      backlog: undefined,
    };
    this.#attachments.add(attachment);
    if (this.#known) {
      const batches = this.#begin();
      this.#resolveAll(attachment);
      this.#workOff(batches);
      this.#dispatch(batches);
    }
    return () => {
      if (!this.#attachments.delete(attachment)) return;
      this.#behind.delete(attachment);
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
        waiting: new Set(),
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
    this.#behind.clear();
    this.#spreading.clear();
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
    if (change.gateways && !first) this.#sidecarsChanged();
    if (first) for (const attachment of this.#attachments) this.#resolveAll(attachment);
    else this.#namesToResolve(change.names);
    this.#workOff(batches);
    if (first) this.#encodeAll();
    else for (const key of change.names) this.#encodeAhead(key);
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
        else this.#entriesChangedOf(fronted);
        return;
      }
      case "service-defaults":
      case "service-resolver":
      case "service-router":
      case "service-splitter":
        this.#entriesChangedOf(this.#options.configEntries.entries.leadingTo(name));
        return;
      // The others say nothing of where a service is found.
    }
  }

  /** After a change that concerns these names only. */
  #entriesChangedOf(names: ReadonlySet<string>): void {
    if (!this.#known) return;
    const batches = this.#begin();
    this.#namesToResolve(names);
    this.#workOff(batches);
    this.#dispatch(batches);
  }

  #entriesChanged(): void {
    this.#anyPeer = this.#options.configEntries.entries.exportRules.any;
    if (!this.#known) return;
    const batches = this.#begin();
    for (const attachment of this.#attachments) this.#resolveAll(attachment);
    this.#workOff(batches);
    this.#encodeAll();
    this.#dispatch(batches);
  }

  #serviceChanged(key: string, batches: Batches): void {
    for (const published of this.#published.get(key) ?? []) {
      published.current = false;
      if (this.#postponed(published)) continue;
      const before = published.payload;
      const after = this.#payload(published);
      // Unchanged, and no peer waits for it: every peer that may see it has it.
      if (!this.#due.delete(published) && before === after) continue;
      this.#offerToAll(published, batches);
    }
  }

  /** Encodes in later turns the services that the entries export to any peer. */
  #encodeAll(): void {
    this.#publishing = this.#publishSteps();
    this.#publishAhead();
  }

  #publishAhead(): boolean {
    if (this.#publishing === undefined) return false;
    if (this.#publishing.next().done === true) this.#publishing = undefined;
    else this.#moreToDo();
    return true;
  }

  *#publishSteps(): Steps<void> {
    for (const list of this.#published.values()) {
      if (this.#namesLeft <= 0) yield;
      this.#namesLeft--;
      for (const published of list) this.#forgetUnexported(published);
    }
    for (const key of candidateNames(this.#input, this.#anyPeer)) {
      if (this.#namesLeft <= 0) yield;
      this.#namesLeft--;
      this.#encodeAhead(key);
    }
  }

  #encodeAhead(key: string): void {
    const { exact, wildcard } = this.#anyPeer;
    const name = exact.get(key) ?? (wildcard ? this.#index.typical.get(key) : undefined);
    const known = this.#published.get(key);
    if (name !== undefined && known === undefined) this.#later(this.#publish(key, name));
    else if (name === undefined) for (const published of known ?? []) this.#forgetUnexported(published);
  }

  /** Begins a turn in which some work may be done at once. */
  #begin(): Batches {
    this.#budget = this.#options.sliceInstances ?? SLICE_INSTANCES;
    this.#namesLeft = this.#options.sliceNames ?? SLICE_NAMES;
    return new Map();
  }

  /** Whether a stream may be given something in this turn: so many may, and as much as there is for them. */
  #hasRoom(attachment: Attachment, batches: Batches): boolean {
    return batches.size < (this.#options.sliceStreams ?? SLICE_STREAMS) || batches.has(attachment);
  }

  #moreToDo(): void {
    if (!this.#abort.signal.aborted) this.#nextSlice.ensure(0);
  }

  /** Does some work of one kind; the other kinds have their turns after it. */
  #workSlice(): void {
    const batches = this.#begin();
    for (const work of [...this.#works]) {
      this.#works.push(...this.#works.splice(0, 1));
      if (work(batches)) break;
    }
    this.#dispatch(batches);
    const waiting = this.#due.size + this.#behind.size + this.#spreading.size;
    if (waiting > 0 || this.#publishing !== undefined) this.#moreToDo();
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
    this.#moreToDo();
  }

  #encodeSlice(batches: Batches): boolean {
    if (this.#due.size === 0) return false;
    for (const published of this.#due) {
      if (this.#budget <= 0) break;
      this.#due.delete(published);
      // It may have been forgotten, and the name published again.
      if (this.#find(published.key, published.name) !== published) continue;
      this.#payload(published);
      this.#offerToAll(published, batches);
    }
    return true;
  }

  /** Offers a service to some of its peers, and to the others in later turns. */
  #offerToAll(published: Published, batches: Batches): void {
    for (const attachment of published.peers) {
      if (this.#hasRoom(attachment, batches)) {
        published.waiting.delete(attachment);
        this.#offer(attachment, published, batches);
      } else {
        published.waiting.add(attachment);
        this.#spreading.add(published);
        this.#moreToDo();
      }
    }
  }

  #spread(batches: Batches): boolean {
    if (this.#spreading.size === 0) return false;
    for (const published of this.#spreading) {
      for (const attachment of published.waiting) {
        if (!this.#hasRoom(attachment, batches)) return true;
        published.waiting.delete(attachment);
        if (published.peers.has(attachment)) this.#offer(attachment, published, batches);
      }
      this.#spreading.delete(published);
    }
    return true;
  }

  /** Each stream is to be brought up to date on these names. */
  #namesToResolve(names: Iterable<string>): void {
    const keys = [...names].sort();
    if (keys.length === 0) return;
    for (const attachment of this.#attachments) {
      const backlog = this.#backlogOf(attachment);
      for (const key of keys) backlog.names.add(key);
    }
  }

  #sidecarsChanged(): void {
    for (const attachment of this.#attachments) {
      if (attachment.chains.size === 0) continue;
      const { chains } = this.#backlogOf(attachment);
      for (const key of attachment.chains.keys()) chains.add(key);
    }
  }

  /** A stream is to be brought up to date after a change that may concern any name. */
  #resolveAll(attachment: Attachment): void {
    attachment.rules = this.#options.configEntries.entries.exportRules.of(attachment.peer.name);
    const before = attachment.backlog;
    attachment.backlog = undefined;
    const backlog = this.#backlogOf(attachment);
    backlog.whole = before?.whole ?? newBatch();
    backlog.isListChanged = before?.isListChanged ?? attachment.list === undefined;
    // All names are looked at. Those that are to be offered are known by now, and would not be taken for new.
    for (const key of before?.services ?? []) backlog.services.add(key);
    for (const key of before?.chains ?? []) backlog.chains.add(key);
  }

  #backlogOf(attachment: Attachment): Backlog {
    if (attachment.backlog === undefined) {
      attachment.backlog = {
        steps: this.#stepsFor(attachment),
        batches: new Map(),
        whole: undefined,
        isListChanged: false,
        names: new Set(),
        services: new Set(),
        chains: new Set(),
      };
      this.#behind.add(attachment);
    }
    return attachment.backlog;
  }

  /** Works on the streams that have a backlog, as long as the turn has room. */
  #workOff(batches: Batches): boolean {
    if (this.#behind.size === 0) return false;
    for (const attachment of [...this.#behind]) {
      if (this.#namesLeft <= 0 || !this.#hasRoom(attachment, batches)) break;
      const { backlog } = attachment;
      if (backlog === undefined) continue;
      backlog.batches = batches;
      this.#behind.delete(attachment);
      if (this.#isDone(backlog)) attachment.backlog = undefined;
      else this.#behind.add(attachment);
    }
    if (this.#behind.size > 0) this.#moreToDo();
    return true;
  }

  /** Works on one stream, as long as the turn has room. */
  #isDone({ steps }: Backlog): boolean {
    while (steps.next().done !== true) {
      this.#namesLeft -= SORTED_AS_NAMES;
      if (this.#namesLeft <= 0) return false;
    }
    return true;
  }

  *#stepsFor(attachment: Attachment): Steps<void> {
    const { backlog } = attachment;
    if (backlog === undefined) return;
    const { names, services, chains } = backlog;
    if (backlog.whole !== undefined) yield* this.#allNames(attachment, backlog, backlog.whole);
    while (names.size + services.size + chains.size > 0) {
      while (names.size > 0) {
        if (this.#namesLeft <= 0) yield;
        const some = takeSome(names, this.#namesLeft);
        this.#namesLeft -= some.length;
        this.#resolve(attachment, some, backlog.batches);
      }
      // Names that change meanwhile go first.
      for (const key of services) {
        if (this.#namesLeft <= 0) yield;
        if (names.size > 0) break;
        this.#namesLeft--;
        services.delete(key);
        const published = this.#find(key, attachment.services.get(key) ?? "");
        if (published !== undefined) this.#offer(attachment, published, backlog.batches);
      }
      for (const key of chains) {
        if (this.#namesLeft <= 0) yield;
        if (names.size > 0) break;
        this.#namesLeft--;
        chains.delete(key);
        const chain = attachment.chains.get(key);
        if (chain !== undefined) this.#offerSidecar(attachment, chain, backlog.batches);
      }
    }
  }

  /**
   * Resolves all names, and gives the list. Names that change meanwhile are resolved again by the caller: the list is that of
   * some moment, the next one follows.
   */
  *#allNames(attachment: Attachment, backlog: Backlog, whole: Batch): Steps<void> {
    const keys = new Set<string>();
    const { services, chains, rules, listed } = attachment;
    for (const some of [candidateNames(this.#input, rules), services.keys(), chains.keys()]) {
      for (const key of some) {
        if (this.#namesLeft <= 0) yield;
        this.#namesLeft -= LOOKED_AT_AS_NAMES;
        keys.add(key);
      }
    }
    // In one order, whatever that of the blocks and of the catalog: runs can be compared.
    const sorted = yield* sortSteps([...keys], compareUtf8);
    const strict = this.#options.strictConsul;
    for (const key of sorted) {
      if (this.#namesLeft <= 0) yield;
      this.#namesLeft--;
      const due = resolveName(this.#input, rules, key);
      this.#resolveChain(attachment, key, due, whole);
      this.#resolveService(attachment, key, due, whole);
      if (setListed(listed, key, listedName(due, strict))) backlog.isListChanged = true;
    }
    if (backlog.isListChanged) {
      const made = this.#listOf(yield* sortSteps([...listed.values()], compareUtf8));
      attachment.list = made.names;
      whole.list = made;
      backlog.isListChanged = false;
    }
    backlog.whole = undefined;
    addTo(backlog.batches, attachment, whole);
  }

  /** Brings a stream up to date on these names. */
  #resolve(attachment: Attachment, keys: Iterable<string>, batches: Batches): void {
    const input = this.#input;
    const resolved: (readonly [string, ResolvedName | undefined])[] = [];
    for (const key of keys) resolved.push([key, resolveName(input, attachment.rules, key)]);
    const batch = newBatch();
    for (const [key, due] of resolved) this.#resolveChain(attachment, key, due, batch);
    for (const [key, due] of resolved) this.#resolveService(attachment, key, due, batch);
    this.#resolveList(attachment, resolved, batch);
    addTo(batches, attachment, batch);
  }

  #resolveChain(attachment: Attachment, key: string, due: ResolvedName | undefined, batch: Batch): void {
    const known = attachment.chains.get(key);
    const kept = known !== undefined && due?.chain !== undefined && known.name === due.name;
    if (known !== undefined && !kept) {
      attachment.chains.delete(key);
      const resourceId = sidecarName(known.name);
      this.#release(attachment, resourceId);
      batch.sidecars.set(resourceId, serviceResource(resourceId, this.#emptyPayload));
    }
    if (due?.chain === undefined || (kept && equalChainInfo(known.info, due.chain))) return;
    attachment.chains.set(key, { name: due.name, info: due.chain, digest: kept ? known.digest : undefined });
    this.#backlogOf(attachment).chains.add(key);
  }

  #resolveService(attachment: Attachment, key: string, due: ResolvedName | undefined, batch: Batch): void {
    const known = attachment.services.get(key);
    const name = due?.ordinary === true ? due.name : undefined;
    if (known === name) return;
    if (known !== undefined) {
      attachment.services.delete(key);
      const published = this.#find(key, known);
      published?.peers.delete(attachment);
      if (published !== undefined) this.#forgetUnexported(published);
      this.#release(attachment, known);
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
      this.#backlogOf(attachment).services.add(key);
    }
  }

  #resolveList(
    attachment: Attachment,
    resolved: readonly (readonly [string, ResolvedName | undefined])[],
    batch: Batch,
  ): void {
    const { listed } = attachment;
    let list = attachment.list ?? [];
    let changed = false;
    const few = resolved.length <= MANY_NAMES;
    for (const [key, due] of resolved) {
      const before = listed.get(key);
      const after = listedName(due, this.#options.strictConsul);
      if (!setListed(listed, key, after)) continue;
      changed = true;
      if (!few) continue;
      if (before !== undefined) list = list.toSpliced(placeOf(list, before), 1);
      if (after !== undefined) list = list.toSpliced(placeOf(list, after), 0, after);
    }
    if (!changed) return;
    const made = this.#listOf(few ? list : [...listed.values()].sort(compareUtf8));
    attachment.list = made.names;
    batch.list = made;
  }

  /** Encoded once for all peers that are to have the same list: mostly it is made for one after another. */
  #listOf(names: readonly string[]): ListResource {
    const last = this.#lastList;
    if (last?.names.length === names.length && names.every((name, index) => name === last.names[index])) return last;
    this.#lastList = listResource(names);
    return this.#lastList;
  }

  /** Puts the service into the batch, or reports why it is not sent. */
  #offer(attachment: Attachment, published: Published, batches: Batches): void {
    if (!this.#mayBeOffered(attachment, published)) return;
    attachment.backlog?.services.delete(published.key);
    if (this.#hiddenBySidecar(attachment, published.key) || this.#postponed(published)) return;
    const payload = this.#payload(published);
    if ("heldBack" in payload) {
      this.#holdBack(attachment, published.name, payload.heldBack);
    } else {
      this.#release(attachment, published.name);
      batchOf(batches, attachment).services.set(published.name, payload);
    }
  }

  /** While all names are resolved, a peer is given nothing that the entries do not export to it, and nothing ahead of its first list. */
  #mayBeOffered({ backlog, list, rules }: Attachment, { key, name }: Published): boolean {
    if (backlog?.whole === undefined) return true;
    // It is given after the list.
    if (list === undefined || backlog.services.has(key)) return false;
    return resolveName({ ...this.#input, connect: false }, rules, key)?.name === name;
  }

  /** An ordinary service named like the sidecars of an exported chain would overwrite them (D-27). */
  #hiddenBySidecar({ chains }: Attachment, key: string): boolean {
    return key.endsWith(SIDECAR_SUFFIX) && chains.has(key.slice(0, -SIDECAR_SUFFIX.length));
  }

  #offerSidecar(attachment: Attachment, chain: Chain, batches: Batches): void {
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
    const published: Published = {
      key,
      name,
      peers: new Set(),
      waiting: new Set(),
      payload: undefined,
      current: false,
    };
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

function newBatch(): Batch {
  return { withdrawn: [], list: undefined, services: new Map(), sidecars: new Map() };
}

function batchOf(batches: Batches, attachment: Attachment): Batch {
  let batch = batches.get(attachment);
  if (batch === undefined) {
    batch = newBatch();
    batches.set(attachment, batch);
  }
  return batch;
}

/** @param earlier - what `batches` have of a resource already is newer. */
function addTo(batches: Batches, attachment: Attachment, earlier: Batch): void {
  const { withdrawn, list, services, sidecars } = earlier;
  if (withdrawn.length + services.size + sidecars.size === 0 && list === undefined) return;
  const batch = batchOf(batches, attachment);
  for (const id of withdrawn) {
    batch.services.delete(id);
    batch.withdrawn.push(id);
  }
  batch.list = list ?? batch.list;
  for (const [id, resource] of services) if (!batch.services.has(id)) batch.services.set(id, resource);
  for (const [id, resource] of sidecars) if (!batch.sidecars.has(id)) batch.sidecars.set(id, resource);
}

/** Returns whether the list is another one then. @param name - undefined: it is not in the list. */
function setListed(listed: Map<string, string>, key: string, name: string | undefined): boolean {
  if (listed.get(key) === name) return false;
  if (name === undefined) listed.delete(key);
  else listed.set(key, name);
  return true;
}

/** Takes so many out of a set. */
function takeSome(from: Set<string>, most: number): readonly string[] {
  const taken: string[] = [];
  for (const item of from) {
    if (taken.length >= most) break;
    taken.push(item);
    from.delete(item);
  }
  return taken;
}
