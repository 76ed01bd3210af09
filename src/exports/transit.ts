import { setImmediate } from "node:timers/promises";
import { Alarm } from "../base/alarm.js";
import { compareUtf8 } from "../base/byte-order.js";
import type { Clock, Logger } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { retry } from "../base/retry.js";
import type { ExportReason } from "../config/exports.js";
import { carryOver, type TransitObstacle } from "../config/transit.js";
import type { ServiceInstance } from "../model/instance.js";
import { encodeServicePayload, payloadDigest, SIDECAR_SUFFIX } from "../payload/exported-payload.js";
import { isActive } from "../peering/peering.js";
import type { ExportedResource, SessionInput } from "../replication/types.js";
import type { ImportDifference, ImportStore } from "../stores/import-store.js";
import type { PeeringRecords } from "../stores/records.js";
import { lowerCase } from "../syntax/names.js";
import type { TrustBundles } from "../trust/trust-bundle-store.js";
import { ResourceUrl } from "../wire/messages.js";
import { type ExportEngine, type ExportPeer, listResource, serviceResource } from "./export-engine.js";

/** Services that one peer exports to us and that we export to another. */
export interface TransitRule {
  /** Our name of the peer they come from. */
  readonly from: string;
  /** Our name of the peer they go to. */
  readonly to: string;
  /** Names, without regard to case; `*` is every one. */
  readonly services: readonly string[];
}

export interface TransitOptions {
  readonly rules: readonly TransitRule[];
  /** By how many clusters a service may be carried over, this one included. */
  readonly mostHops: number;
  readonly engine: ExportEngine;
  readonly imports: ImportStore;
  readonly records: PeeringRecords;
  readonly trustBundles: TrustBundles;
  readonly trustDomain: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Encoded before others get a turn, in instances. */
const ENCODED_BATCH = 500;
/** Changes that come closer together than this are passed on together, because each change sends the whole list. */
const TOLD_TOGETHER_MS = 50;
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 60_000;

/** Consul 1.13 exports its own servers under this name. */
const RESERVED = "consul";

interface Rule {
  /** As written, and lower-cased. */
  readonly from: string;
  readonly fromKey: string;
  readonly toKey: string;
  readonly all: boolean;
  readonly names: ReadonlySet<string>;
}

/** The services that one source peer exports to us, encoded as we export them again. */
interface Source {
  readonly peeringId: string;
  readonly peerName: string;
  readonly trustDomain: string;
  readonly stop: AbortController;
  /** By lower-cased name. */
  readonly services: Map<string, Carried>;
  /** How many instances there are of each service, whether or not they are carried over. */
  readonly counts: Map<string, number>;
  running: Promise<void>;
}

type Carried = CarriedResource | { readonly obstacle: TransitObstacle };

interface CarriedResource {
  readonly name: string;
  readonly resource: ExportedResource;
  readonly path: readonly string[];
  readonly clusters: ReadonlySet<string>;
}

/** A stream of a peer that services are carried over to. */
interface Destination {
  readonly peer: ExportPeer;
  readonly sink: (input: SessionInput) => void;
  /** The list the export engine gave, and its names lower-cased; undefined before the first. */
  list: readonly string[] | undefined;
  local: ReadonlySet<string>;
  /** The versions given to the stream, by lower-cased name. */
  readonly carried: Map<string, ExportedResource>;
  trustDomain: string | undefined;
}

/** The changes that one event makes for one stream. */
interface Batch {
  readonly withdrawn: string[];
  readonly resources: ExportedResource[];
  listChanged: boolean;
}

/** One rule that covers a service, and whether it can be followed. */
interface Candidate {
  readonly from: string;
  readonly carried: Carried | undefined;
  readonly obstacle: TransitObstacle | undefined;
}

/**
 * Carries services over from peer to peer: stands between the export engine and the streams of those peers that a rule
 * names, and adds to their exports. Each cluster that a service passes through is written into its metadata, and it goes to no
 * cluster that is there already, so no ring of hosts carries anything round. Of several peers that export a name the one
 * nearest to its origin counts, for any other preference could make hosts change their minds for ever.
 *
 * Only instances that are reached at their own addresses are carried over; the mesh knows no way through a host.
 */
export class Transit implements AsyncDisposable {
  readonly #options: TransitOptions;
  readonly #rules: readonly Rule[];
  readonly #sources = new Map<string, Source>();
  readonly #destinations = new Set<Destination>();
  readonly #ending = new Set<Promise<void>>();
  /** Services that changed and were not passed on yet, by the key of their source. */
  readonly #untold = new Map<string, Set<string>>();
  readonly #telling: Alarm;
  #toldAtMs = Number.NEGATIVE_INFINITY;
  readonly #forget: () => void;

  /** @throws {TypeError} for a rule from a peer to itself, or without services. */
  constructor(options: TransitOptions) {
    this.#options = options;
    this.#rules = options.rules.map(ruleOf);
    this.#telling = new Alarm(options.clock, () => {
      this.#toldAtMs = options.clock.now();
      this.#tell();
    });
    this.#forget = options.records.onChange(() => this.#recordsChanged());
    this.#recordsChanged();
  }

  /** As {@link ExportEngine.attach}, with the services that are carried over to the peer. */
  attach(peer: ExportPeer, sink: (input: SessionInput) => void): () => void {
    const { engine } = this.#options;
    const key = lowerCase(peer.name);
    if (!this.#rules.some(({ toKey }) => toKey === key)) return engine.attach(peer, sink);
    const destination: Destination = {
      peer,
      sink,
      list: undefined,
      local: new Set(),
      carried: new Map(),
      trustDomain: this.#trustDomainOf(peer.name),
    };
    this.#destinations.add(destination);
    const detach = engine.attach(peer, (input) => this.#fromEngine(destination, input));
    return () => {
      detach();
      this.#destinations.delete(destination);
    };
  }

  /** Names of the services that are carried over to this peer, whether or not it is connected. */
  names(peerName: string): readonly string[] {
    const local = new Set(this.#options.engine.exportsFor(peerName).list.map(lowerCase));
    const names: string[] = [];
    for (const key of this.#keysFor(lowerCase(peerName))) {
      const best = local.has(key) ? undefined : this.#best(peerName, key);
      if (best !== undefined) names.push(best.name);
    }
    return names;
  }

  /** How the rules treat this service for this peer; nothing where no rule covers it. */
  explain(service: string, peerName: string): readonly ExportReason[] {
    const key = lowerCase(service);
    const best = this.#best(peerName, key);
    const local = this.#options.engine.exportsFor(peerName).list.some((name) => lowerCase(name) === key);
    return this.#candidates(peerName, key).map(({ from, carried, obstacle }): ExportReason => {
      if (obstacle !== undefined) return { type: "not-carried-over", from, because: obstacle };
      if (local) return { type: "not-carried-over", from, because: "local-name" };
      if (best === undefined || carried !== best) {
        return { type: "not-carried-over", from, because: "nearer-elsewhere" };
      }
      return { type: "carried-over", from, path: best.path };
    });
  }

  /** Stops following. Streams that are attached are the export engine's alone from now on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#forget();
    this.#telling.cancel();
    this.#destinations.clear();
    for (const key of [...this.#sources.keys()]) this.#end(key);
    await Promise.all(this.#ending);
  }

  // --- Peerings that come and go -----------------------------------------------------------------------------------------

  #recordsChanged(): void {
    for (const { from, fromKey } of this.#rules) this.#follow(from, fromKey);
    for (const destination of this.#destinations) {
      const trustDomain = this.#trustDomainOf(destination.peer.name);
      if (destination.trustDomain === trustDomain) continue;
      destination.trustDomain = trustDomain;
      this.#resolve(destination, this.#keysFor(lowerCase(destination.peer.name)));
    }
  }

  #trustDomainOf(peerName: string): string | undefined {
    const { records, trustBundles } = this.#options;
    const trustDomain = isActive(records.byName(peerName)) ? trustBundles.read(peerName)?.trustDomain : undefined;
    return trustDomain === "" ? undefined : trustDomain?.toLowerCase();
  }

  #follow(from: string, key: string): void {
    const peering = this.#options.records.byName(from);
    const trustDomain = this.#trustDomainOf(from);
    const known = this.#sources.get(key);
    if (known !== undefined && known.peeringId === peering?.id && known.trustDomain === trustDomain) return;
    if (known !== undefined) {
      this.#end(key);
      this.#sourceChanged(key, [...known.services.keys()]);
    }
    if (peering === undefined || trustDomain === undefined) return;
    const source: Source = {
      peeringId: peering.id,
      peerName: peering.name,
      trustDomain,
      stop: new AbortController(),
      services: new Map(),
      counts: new Map(),
      running: Promise.resolve(),
    };
    this.#sources.set(key, source);
    source.running = this.#watch(source, key);
  }

  #end(key: string): void {
    const source = this.#sources.get(key);
    if (source === undefined) return;
    this.#sources.delete(key);
    source.stop.abort();
    const ending = source.running.finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }

  // --- Services that peers export to us ----------------------------------------------------------------------------------

  async #watch(source: Source, key: string): Promise<void> {
    const { imports, logger, clock } = this.#options;
    const { peeringId, peerName } = source;
    const { signal } = source.stop;
    const watched = async (works: () => void): Promise<void> => {
      // It ends quietly with the store.
      for await (const change of imports.watch({ peeringId, signal })) {
        if (signal.aborted) return;
        if (change.type === "snapshot") await this.#snapshot(source, key, change.services);
        else {
          const instances = await this.#instances(source, change);
          if (signal.aborted) return;
          this.#take(source, key, new Map([[change.service, instances]]));
        }
        works();
      }
    };
    try {
      await retry(watched, {
        clock,
        signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        onFailure: (error) =>
          logger.error("error watching imports to be carried over", { peer: peerName, error: errorText(error) }),
      });
    } catch {
      // The peering has gone, or the host is closed.
    }
  }

  /** All instances of a service after a change of it; read only where the change does not name them all. */
  #instances(
    { peeringId, counts }: Source,
    { service, added, removed }: ImportDifference,
  ): readonly ServiceInstance[] | Promise<readonly ServiceInstance[]> {
    const name = lowerCase(service);
    const count = (counts.get(name) ?? 0) + added.length - removed.length;
    if (count === 0) counts.delete(name);
    else counts.set(name, count);
    return count === added.length ? added : this.#options.imports.instances(peeringId, service);
  }

  async #snapshot(
    source: Source,
    key: string,
    services: ReadonlyMap<string, readonly ServiceInstance[]>,
  ): Promise<void> {
    const there = new Set([...services.keys()].map(lowerCase));
    const gone = [...source.services.keys()].filter((name) => !there.has(name));
    this.#take(source, key, new Map(gone.map((name) => [name, []])));
    source.counts.clear();
    for (const [name, all] of services) source.counts.set(lowerCase(name), all.length);
    let slice = new Map<string, readonly ServiceInstance[]>();
    let instances = 0;
    for (const [name, all] of services) {
      slice.set(name, all);
      instances += all.length;
      if (instances < ENCODED_BATCH) continue;
      this.#take(source, key, slice);
      slice = new Map();
      instances = 0;
      await setImmediate();
      if (source.stop.signal.aborted) return;
    }
    this.#take(source, key, slice);
  }

  /** Takes the instances that there are now of these services, and tells the streams they go to. */
  #take(source: Source, key: string, services: ReadonlyMap<string, readonly ServiceInstance[]>): void {
    const changed: string[] = [];
    for (const [name, instances] of services) {
      const service = lowerCase(name);
      if (!this.#rules.some((rule) => rule.fromKey === key && covers(rule, service))) continue;
      // Instances that are reached only through the mesh, such as its sidecars, cannot be reached through us.
      const plain = service.endsWith(SIDECAR_SUFFIX) ? [] : instances.filter((one) => one.service.kind === "");
      if (plain.length > 0) source.services.set(service, this.#carry(source, name, plain));
      else if (!source.services.delete(service)) continue;
      changed.push(service);
    }
    if (changed.length > 0) this.#sourceChanged(key, changed);
  }

  #carry(source: Source, name: string, instances: readonly ServiceInstance[]): Carried {
    const { trustDomain, mostHops, logger } = this.#options;
    const { peerName } = source;
    const carried = carryOver(instances, {
      peerName,
      trustDomain: source.trustDomain,
      ownTrustDomain: trustDomain,
      mostHops,
    });
    if (typeof carried === "string") return { obstacle: carried };
    const { path, clusters } = carried;
    try {
      const payload = encodeServicePayload(name, carried.instances);
      return { name, resource: serviceResource(name, payload), path, clusters };
    } catch (error) {
      logger.warn("a service cannot be carried over", { peer: peerName, service: name, error: errorText(error) });
      return { obstacle: "invalid" };
    }
  }

  // --- Services for other peers ------------------------------------------------------------------------------------------

  /** Tells the streams that these services go to: a single change at once, many that follow each other together. */
  #sourceChanged(key: string, services: readonly string[]): void {
    const { clock } = this.#options;
    const untold = this.#untold.get(key) ?? new Set();
    this.#untold.set(key, untold);
    for (const service of services) untold.add(service);
    this.#telling.ensure(Math.max(0, this.#toldAtMs + TOLD_TOGETHER_MS - clock.now()));
  }

  #tell(): void {
    const untold = new Map(this.#untold);
    this.#untold.clear();
    for (const destination of this.#destinations) {
      const toKey = lowerCase(destination.peer.name);
      const keys = new Set<string>();
      for (const rule of this.#rules) {
        if (rule.toKey === toKey) for (const key of untold.get(rule.fromKey) ?? []) keys.add(key);
      }
      if (keys.size > 0) this.#resolve(destination, keys);
    }
  }

  #fromEngine(destination: Destination, input: SessionInput): void {
    const { sink } = destination;
    const list =
      input.type === "exported"
        ? input.resources.find(({ resourceUrl }) => resourceUrl === ResourceUrl.exportedServiceList)
        : undefined;
    if (input.type !== "exported" || list === undefined) {
      sink(input);
      return;
    }
    const first = destination.list === undefined;
    const before = destination.local;
    destination.list = list.names ?? [];
    destination.local = new Set(destination.list.map(lowerCase));
    const moved = first
      ? this.#keysFor(lowerCase(destination.peer.name))
      : [...before, ...destination.local].filter((key) => before.has(key) !== destination.local.has(key));
    const batch = this.#changes(destination, moved);
    batch.listChanged = true;
    // Of a name that becomes a local one the engine's own payload counts, where it has one.
    this.#give(
      destination,
      batch,
      input.resources.filter((resource) => resource !== list),
    );
  }

  /** Brings a stream up to date on these services. */
  #resolve(destination: Destination, keys: Iterable<string>): void {
    // Before the first list nothing is known of the local names.
    if (destination.list === undefined) return;
    this.#give(destination, this.#changes(destination, keys), []);
  }

  #changes(destination: Destination, keys: Iterable<string>): Batch {
    const batch: Batch = { withdrawn: [], resources: [], listChanged: false };
    const { peer, carried, local } = destination;
    for (const key of keys) {
      const before = carried.get(key);
      const after = local.has(key) ? undefined : this.#best(peer.name, key)?.resource;
      if (before?.digest === after?.digest && before?.resourceId === after?.resourceId) continue;
      if (after === undefined) carried.delete(key);
      else carried.set(key, after);
      if (before !== undefined && before.resourceId !== after?.resourceId) {
        batch.withdrawn.push(before.resourceId);
        // Until the local service of this name is sent, the peer has none of it.
        if (local.has(key)) batch.resources.push(serviceResource(before.resourceId, EMPTY_PAYLOAD));
      }
      if (after !== undefined) batch.resources.push(after);
      batch.listChanged ||= before?.resourceId !== after?.resourceId;
    }
    return batch;
  }

  #give(destination: Destination, batch: Batch, others: readonly ExportedResource[]): void {
    const { sink, list = [], carried } = destination;
    if (batch.withdrawn.length > 0) sink({ type: "withdrawn", resourceIds: batch.withdrawn });
    const resources = [...batch.resources, ...others];
    if (batch.listChanged) {
      const names = [...list, ...[...carried.values()].map(({ resourceId }) => resourceId)];
      resources.unshift(listResource(names.sort(compareUtf8)));
    }
    if (resources.length > 0) sink({ type: "exported", resources });
  }

  /** Services that any rule could carry over to this peer now. */
  #keysFor(toKey: string): ReadonlySet<string> {
    const keys = new Set<string>();
    for (const rule of this.#rules) {
      if (rule.toKey !== toKey) continue;
      for (const key of this.#sources.get(rule.fromKey)?.services.keys() ?? []) if (covers(rule, key)) keys.add(key);
    }
    for (const { peer, carried } of this.#destinations) {
      if (lowerCase(peer.name) === toKey) for (const key of carried.keys()) keys.add(key);
    }
    return keys;
  }

  /** The service as it goes to this peer, if no local one had the name: of several candidates, the one with the shortest way. */
  #best(peerName: string, key: string): CarriedResource | undefined {
    let best: CarriedResource | undefined;
    for (const { carried, obstacle } of this.#candidates(peerName, key)) {
      if (obstacle !== undefined || carried === undefined || "obstacle" in carried) continue;
      if (best === undefined || carried.path.length < best.path.length) best = carried;
    }
    return best;
  }

  /** In the order of the rules. */
  #candidates(peerName: string, key: string): readonly Candidate[] {
    const toKey = lowerCase(peerName);
    const there = this.#trustDomainOf(peerName);
    return this.#rules.flatMap((rule) => {
      if (rule.toKey !== toKey || !covers(rule, key)) return [];
      const source = this.#sources.get(rule.fromKey);
      const carried = source?.services.get(key);
      return [{ from: rule.from, carried, obstacle: this.#obstacle(rule, source, carried, there) }];
    });
  }

  #obstacle(
    rule: Rule,
    source: Source | undefined,
    carried: Carried | undefined,
    there: string | undefined,
  ): TransitObstacle | undefined {
    if (source === undefined) {
      return isActive(this.#options.records.byName(rule.from)) ? "origin-unknown" : "not-imported";
    }
    if (carried === undefined) return "not-imported";
    if ("obstacle" in carried) return carried.obstacle;
    if (there === undefined) return "destination-unknown";
    return carried.clusters.has(there) ? "came-through-there" : undefined;
  }
}

const EMPTY_PAYLOAD = { value: new Uint8Array(0), digest: payloadDigest(new Uint8Array(0)) };

function ruleOf({ from, to, services }: TransitRule): Rule {
  const names = services.map(lowerCase);
  if (lowerCase(from) === lowerCase(to)) throw new TypeError(`nothing is carried over from ${from} to itself`);
  if (names.length === 0) throw new TypeError(`the rule from ${from} to ${to} names no services`);
  return { from, fromKey: lowerCase(from), toKey: lowerCase(to), all: names.includes("*"), names: new Set(names) };
}

function covers({ all, names }: Rule, key: string): boolean {
  return key !== RESERVED && (all || names.has(key));
}
