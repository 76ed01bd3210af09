import type { CatalogSource } from "../catalog/catalog-source.js";
import { type ChainInfo, equalChainInfo } from "../catalog/chain.js";
import { type EncodedPayload, PayloadEncoder, payloadDigest, SIDECAR_SUFFIX } from "../catalog/exported-payload.js";
import {
  type ExportExplanation,
  type ExportedServiceView,
  type ExportInput,
  explainExport,
  exportedServicesView,
  peersForService,
  type ResolvedExports,
  resolveExports,
} from "../catalog/exports.js";
import type { ServiceInstance } from "../catalog/instance.js";
import { lowerCase } from "../catalog/names.js";
import { type IndexChange, ServiceIndex } from "../catalog/service-index.js";
import { type Clock, type Logger, type Random, sleep, systemClock, systemRandom } from "../environment.js";
import { errorText } from "../errors.js";
import type { ExportedResource, SessionInput } from "../replication/types.js";
import { ResourceId, ResourceUrl } from "../wire/messages.js";
import { encodeExportedServiceList } from "../wire/resources.js";
import type { ConfigEntries } from "./config-entries.js";

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
   * A service is not sent to this peer, because no Consul could take it: the reason names the instance. What was sent of
   * it before stays with the peer (D-28).
   */
  readonly onHeldBack?: (peer: ExportPeer, service: string, reason: string) => void;
  /** A service that was held back is sent again, or exported no more. */
  readonly onReleased?: (peer: ExportPeer, service: string) => void;
  /** For the waits after a failed watch. Default: the system's. */
  readonly clock?: Clock;
  readonly random?: Random;
}

/** An attached stream of one peer. */
interface Attachment {
  readonly peer: ExportPeer;
  readonly sink: (input: SessionInput) => void;
  exports: ResolvedExports | undefined;
  readonly chains: Map<string, Chain>;
  /** Why services are held back, by resource id. */
  readonly heldBack: Map<string, string>;
}

interface Chain {
  readonly info: ChainInfo;
  /** What was given to the stream last; undefined: nothing yet, it is held back. */
  digest: string | undefined;
}

/** One exported name, spelled in one way, and all who see it. */
interface Published {
  readonly name: string;
  readonly peers: Set<Attachment>;
  /** Undefined: not encoded since it changed. */
  payload: ExportedResource | { readonly heldBack: string } | undefined;
}

/** What one event has for one stream. */
interface Batch {
  readonly withdrawn: string[];
  list: ExportedResource | undefined;
  /** By resource id: of what one event moves twice, the newest state alone is given. */
  readonly services: Map<string, ExportedResource>;
  readonly sidecars: Map<string, ExportedResource>;
}

function sameNames(left: readonly string[], right: readonly string[]): boolean {
  return left === right || (left.length === right.length && left.every((name, index) => name === right[index]));
}

function serviceResource(resourceId: string, { value, digest }: EncodedPayload): ExportedResource {
  return { resourceUrl: ResourceUrl.exportedService, resourceId, value, digest };
}

function listResource(names: readonly string[]): ExportedResource {
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
 * Follows the catalog and the configuration entries, and tells every attached stream what its peer shall have: the whole
 * state when it attaches, then changes. A service is encoded once a change for all peers; what comes out as it was is
 * told to nobody.
 */
export class ExportEngine implements AsyncDisposable {
  readonly #options: ExportEngineOptions;
  readonly #index = new ServiceIndex();
  readonly #encoder = new PayloadEncoder();
  readonly #emptyPayload: EncodedPayload = { value: new Uint8Array(0), digest: payloadDigest(new Uint8Array(0)) };
  /** By lower-cased name; more than one where blocks spell a name differently. */
  readonly #published = new Map<string, Published[]>();
  readonly #attachments = new Set<Attachment>();
  readonly #gatewayListeners = new Set<() => void>();
  readonly #abort = new AbortController();
  readonly #forgetEntries: () => void;
  readonly #running: Promise<void>;
  #known = false;

  /** @throws {TypeError} without a datacenter or trust domain. */
  constructor(options: ExportEngineOptions) {
    if (options.datacenter === "") throw new TypeError("datacenter cannot be empty");
    if (options.trustDomain === "") throw new TypeError("trust domain cannot be empty");
    this.#options = options;
    this.#forgetEntries = options.configEntries.onChange(({ kind }) => {
      if (kind !== "mesh") this.#dispatch(this.#resolveAll());
    });
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

  /** Calls `listener` after each change of {@link meshGateways}, until the returned function is called. */
  onGatewaysChanged(listener: () => void): () => void {
    const own = (): void => listener();
    this.#gatewayListeners.add(own);
    return () => this.#gatewayListeners.delete(own);
  }

  /**
   * Feeds a stream with what its peer shall have: `exported` and `withdrawn` inputs. The first is the whole state, with
   * the list first; it is given before `attach` returns when the catalog is known by then.
   *
   * @param sink - must not throw; must not attach or detach.
   * @returns detaches: nothing is given any more.
   */
  attach(peer: ExportPeer, sink: (input: SessionInput) => void): () => void {
    const attachment: Attachment = { peer, sink, exports: undefined, chains: new Map(), heldBack: new Map() };
    this.#attachments.add(attachment);
    if (this.#known) {
      const batches = new Map<Attachment, Batch>();
      this.#resolve(attachment, batches);
      this.#dispatch(batches);
    }
    return () => {
      if (!this.#attachments.delete(attachment)) return;
      for (const name of attachment.exports?.services ?? []) this.#find(name)?.peers.delete(attachment);
    };
  }

  /** What a peering of this name is shown, whether or not it exists. */
  exportsFor(peerName: string): ResolvedExports {
    return resolveExports(this.#input, peerName);
  }

  /** Why the peering of this name is shown `service`, or why it is not. */
  explain(service: string, peerName: string): ExportExplanation {
    const explanation = explainExport(this.#input, peerName, service);
    if (!explanation.ordinary) return explanation;
    const payload = this.#payload(this.#find(service) ?? { name: service, peers: new Set(), payload: undefined });
    return "heldBack" in payload ? explainExport(this.#input, peerName, service, payload.heldBack) : explanation;
  }

  /** Names that the exported-services entry gives `service` to, sorted. */
  peersFor(service: string): readonly string[] {
    return peersForService(this.#input, service);
  }

  /** The exported-services entry with `*` expanded, by service. */
  view(): readonly ExportedServiceView[] {
    return exportedServicesView(this.#input);
  }

  /** Stops following. Streams that are attached hear nothing more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#forgetEntries();
    this.#attachments.clear();
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
    let failures = 0;
    while (!signal.aborted) {
      try {
        let complete = true;
        for await (const { services } of catalog.watch(signal)) {
          if (signal.aborted) return;
          this.#catalogChanged(services, complete);
          complete = false;
          failures = 0;
        }
        if (signal.aborted) return;
        throw new Error("the watch ended");
      } catch (error) {
        if (signal.aborted) return;
        logger.error("error watching the catalog for exports", { error: errorText(error) });
        const wait = failures === 0 ? 0 : Math.min(FIRST_RETRY_MS * 2 ** (failures - 1), MAX_RETRY_MS);
        failures++;
        await sleep(clock, wait * (1 + random.fraction()), signal).catch(() => {});
      }
    }
  }

  #catalogChanged(services: ReadonlyMap<string, readonly ServiceInstance[]>, complete: boolean): void {
    const change = this.#index.apply(services, complete);
    const first = !this.#known;
    this.#known = true;
    const batches = new Map<Attachment, Batch>();
    for (const key of change.services) this.#serviceChanged(key, batches);
    if (change.gateways && !first) this.#gatewaysChanged(batches);
    if (first || this.#movesExports(change)) this.#resolveAll(batches);
    this.#dispatch(batches);
    if (change.gateways) for (const listener of [...this.#gatewayListeners]) listener();
  }

  /** Whether names that came or went can change what is exported, not only what is sent of it. */
  #movesExports(change: IndexChange): boolean {
    if (change.connectEnabled) return this.#options.connect;
    if (!change.typical) return false;
    const { entries } = this.#options.configEntries;
    return entries.gatewayLinks.wildcard || (entries.exportedServices?.services ?? []).some(({ name }) => name === "*");
  }

  #serviceChanged(key: string, batches: Map<Attachment, Batch>): void {
    for (const published of this.#published.get(key) ?? []) {
      const before = published.payload;
      published.payload = undefined;
      // Encoded when a stream attaches; until then nobody waits for it.
      if (published.peers.size === 0) continue;
      const after = this.#payload(published);
      if (before !== undefined && "digest" in before && "digest" in after && before.digest === after.digest) {
        published.payload = before;
        continue;
      }
      for (const attachment of published.peers) this.#offer(attachment, published, batches);
    }
  }

  #gatewaysChanged(batches: Map<Attachment, Batch>): void {
    for (const attachment of this.#attachments) {
      for (const [name, chain] of attachment.chains) this.#offerSidecar(attachment, name, chain, batches);
    }
  }

  #resolveAll(batches: Map<Attachment, Batch> = new Map()): Map<Attachment, Batch> {
    if (!this.#known) return batches;
    for (const attachment of this.#attachments) this.#resolve(attachment, batches);
    this.#forgetUnexported();
    return batches;
  }

  /** Brings one stream from the exports it knows to those that are due. */
  #resolve(attachment: Attachment, batches: Map<Attachment, Batch>): void {
    const before = attachment.exports;
    const after = resolveExports(this.#input, attachment.peer.name);
    attachment.exports = after;
    const batch = batchOf(batches, attachment);
    if (before === undefined || !sameNames(before.list, after.list)) batch.list = listResource(after.list);
    if (!sameNames(before?.services ?? [], after.services)) {
      const kept = new Set(after.services);
      for (const name of before?.services ?? []) {
        if (kept.has(name)) continue;
        this.#find(name)?.peers.delete(attachment);
        this.#release(attachment, name);
        batch.services.delete(name);
        // The id is that of a chain's sidecars still: what is queued under it is theirs.
        if (!this.#hiddenBySidecar(attachment, name)) batch.withdrawn.push(name);
      }
      for (const name of after.services) {
        const published = this.#find(name) ?? this.#publish(name);
        if (published.peers.has(attachment)) continue;
        published.peers.add(attachment);
        this.#offer(attachment, published, batches);
      }
    }
    for (const [name, info] of after.chains) {
      const known = attachment.chains.get(name);
      if (known !== undefined && equalChainInfo(known.info, info)) continue;
      const chain = { info, digest: known?.digest };
      attachment.chains.set(name, chain);
      this.#offerSidecar(attachment, name, chain, batches);
    }
    for (const name of attachment.chains.keys()) {
      if (after.chains.has(name)) continue;
      attachment.chains.delete(name);
      const resourceId = name + SIDECAR_SUFFIX;
      this.#release(attachment, resourceId);
      batch.sidecars.set(resourceId, serviceResource(resourceId, this.#emptyPayload));
    }
  }

  /** Puts the service into the batch, or reports why it is not sent. */
  #offer(attachment: Attachment, published: Published, batches: Map<Attachment, Batch>): void {
    if (this.#hiddenBySidecar(attachment, published.name)) return;
    const payload = this.#payload(published);
    if ("heldBack" in payload) {
      this.#holdBack(attachment, published.name, payload.heldBack);
    } else {
      this.#release(attachment, published.name);
      batchOf(batches, attachment).services.set(published.name, payload);
    }
  }

  /** An ordinary service named like the sidecars of an exported chain would overwrite them (D-27). */
  #hiddenBySidecar({ exports }: Attachment, name: string): boolean {
    if (!name.endsWith(SIDECAR_SUFFIX)) return false;
    return exports?.chains.has(name.slice(0, -SIDECAR_SUFFIX.length)) ?? false;
  }

  #offerSidecar(attachment: Attachment, name: string, chain: Chain, batches: Map<Attachment, Batch>): void {
    const resourceId = name + SIDECAR_SUFFIX;
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

  #payload(published: Published): ExportedResource | { readonly heldBack: string } {
    if (published.payload === undefined) {
      try {
        const encoded = this.#encoder.service(published.name, this.#index.instances(published.name));
        published.payload = serviceResource(published.name, encoded);
      } catch (error) {
        // Also what a catalog of the host's own gives that is no instance at all: it must not stop the others.
        published.payload = { heldBack: errorText(error) };
      }
    }
    return published.payload;
  }

  #holdBack(attachment: Attachment, resourceId: string, reason: string): void {
    if (attachment.heldBack.get(resourceId) === reason) return;
    attachment.heldBack.set(resourceId, reason);
    this.#options.logger.warn("an exported service is held back", {
      peer_name: attachment.peer.name,
      service: resourceId,
      reason,
    });
    this.#options.onHeldBack?.(attachment.peer, resourceId, reason);
  }

  #release(attachment: Attachment, resourceId: string): void {
    if (attachment.heldBack.delete(resourceId)) this.#options.onReleased?.(attachment.peer, resourceId);
  }

  #find(name: string): Published | undefined {
    return this.#published.get(lowerCase(name))?.find((published) => published.name === name);
  }

  #publish(name: string): Published {
    const published: Published = { name, peers: new Set(), payload: undefined };
    const key = lowerCase(name);
    const others = this.#published.get(key);
    if (others === undefined) this.#published.set(key, [published]);
    else others.push(published);
    return published;
  }

  /** Drops encodings that no entry exports any more. Those of peers without a stream now are kept for the next one. */
  #forgetUnexported(): void {
    const exact = new Set<string>();
    let wildcard = false;
    for (const { name, consumers } of this.#options.configEntries.entries.exportedServices?.services ?? []) {
      if (!consumers.some(({ peer }) => peer !== undefined)) continue;
      if (name === "*") wildcard = true;
      else exact.add(lowerCase(name));
    }
    for (const [key, list] of this.#published) {
      if (exact.has(key) || (wildcard && this.#index.typical.has(key))) continue;
      if (list.every(({ peers }) => peers.size === 0)) this.#published.delete(key);
    }
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
        peer_name: peer.name,
        error: errorText(error),
      });
    }
  }
}

function batchOf(batches: Map<Attachment, Batch>, attachment: Attachment): Batch {
  let batch = batches.get(attachment);
  if (batch === undefined) {
    batch = { withdrawn: [], list: undefined, services: new Map(), sidecars: new Map() };
    batches.set(attachment, batch);
  }
  return batch;
}
