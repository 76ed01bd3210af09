import type { Incidents } from "../base/incidents.js";
import { SHORT_STEP_FIELDS, StepMeter, type Steps } from "../base/steps.js";
import { inShortTurns, mergeSteps, pauses, sortByKeys, sortSteps } from "../base/turns.js";
import type { ServiceInstance } from "../model/instance.js";
import { proxiedName, type ServiceSummary, SummaryMaker } from "../model/service-summary.js";
import type { PayloadView } from "../payload/payload-parts.js";
import type { Turn } from "../storage/replica.js";
import { lowerCase } from "../syntax/names.js";
import type { PeerIndex, StoredService } from "./import-index.js";
import { type ImportPayloads, READ_BATCH } from "./import-payloads.js";
import type { ImportPeer } from "./import-peer.js";
import { byName, type ImportedSummary, type KeptSummary, type MadeSummaries, PeerSummaries } from "./peer-lists.js";

/** About the memory of a summary beside its texts, and of a place in a list and of a text. */
const SUMMARY_BYTES = 400;
const PLACE_BYTES = 8;
const TEXT_BYTES = 24;
/** A peer whose list was asked for among so many last ones keeps its summaries when others want their place. */
const LATELY = 16;

export interface ImportSummariesOptions {
  readonly payloads: ImportPayloads;
  /** Bytes of summaries that are kept, of all peers. */
  readonly most: number;
  readonly incidents: Incidents;
}

/** Runs a task while nothing of the peer changes. */
type InTurn = <Result>(task: (turn: Turn) => Promise<Result>) => Promise<Result>;

/** One list while it is made. */
interface Listed {
  readonly peer: ImportPeer;
  /** Of the peering. */
  readonly name: string;
  readonly summaries: PeerSummaries;
  readonly made: MadeSummaries;
  /** Some did not fit in the memory for them. */
  isFull: boolean;
}

/** The name that a summary is made for, and what it is made of. */
interface Sources {
  readonly key: string;
  readonly services: readonly { readonly key: string; readonly view: PayloadView | undefined }[];
}

/**
 * The summaries of imported services that lists show, made of the payloads of a service at most once per change of it. What does not fit in the
 * memory for it is made for each list.
 */
export class ImportSummaries {
  readonly #payloads: ImportPayloads;
  readonly #most: number;
  readonly #incidents: Incidents;
  /** Those with summaries, the one that was asked for last comes last. */
  readonly #peers = new Set<ImportPeer>();
  #bytes = 0;
  #asked = 0;

  constructor({ payloads, most, incidents }: ImportSummariesOptions) {
    this.#payloads = payloads;
    this.#most = most;
    this.#incidents = incidents;
  }

  /** Of all peers. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Every service of a peer at one moment, in byte order of the names.
   * @param name - of the peering.
   */
  async list(peer: ImportPeer, name: string, run: InTurn): Promise<readonly ImportedSummary[]> {
    const made: MadeSummaries = new Map();
    const summaries = await run(() => this.#begin(peer, made));
    const listed: Listed = { peer, name, summaries, made, isFull: false };
    try {
      // Much is made while the peer goes on, and what has changed meanwhile in the last turn.
      if (summaries.missing.size > READ_BATCH) await this.#makePages(listed);
      const many = summaries.missing.size > READ_BATCH ? await inShortTurns(leftSteps(listed)) : [];
      for (let start = 0; start < many.length; start += READ_BATCH) {
        await this.#make(listed, many.slice(start, start + READ_BATCH), run);
      }
      return await run(async (turn) => {
        for (;;) {
          const left = await inShortTurns(leftSteps(listed));
          if (left.length === 0) return inShortTurns(sortedSteps(listed));
          await this.#make(listed, left, (task) => task(turn));
        }
      });
    } finally {
      summaries.making.delete(made);
    }
  }

  /** Forgets the summaries of a peer, unless a list is being made of them. */
  release(peer: ImportPeer): void {
    const { summaries } = peer;
    if (summaries === undefined || summaries.making.size > 0) return;
    peer.summaries = undefined;
    this.#peers.delete(peer);
    this.#bytes -= summaries.bytes;
  }

  async #begin(peer: ImportPeer, made: MadeSummaries): Promise<PeerSummaries> {
    const count = (bytes: number): void => {
      this.#bytes += bytes;
    };
    peer.summaries ??= new PeerSummaries(await inShortTurns(namesIn(peer.index)), count);
    const { summaries } = peer;
    summaries.making.add(made);
    summaries.asked = ++this.#asked;
    this.#peers.delete(peer);
    this.#peers.add(peer);
    return summaries;
  }

  /** Makes summaries of the rows in the order of the storage, which takes a fraction of the time of reading each by itself. */
  async #makePages(listed: Listed): Promise<void> {
    const { peer, summaries, made } = listed;
    for await (const views of this.#payloads.pages(peer)) {
      const sources: Sources[] = [];
      for (const { key, mesh } of views.keys()) {
        for (const name of [key, ...mesh]) {
          if (!summaries.missing.has(name) || made.has(name)) continue;
          const services = peer.index.shownWith(name);
          if (!services.every((service) => views.has(service))) continue;
          made.set(name, undefined);
          sources.push(sourcesOf(name, services, (service) => views.get(service)));
        }
      }
      await this.#makeEach(listed, sources);
    }
  }

  /** Makes the summaries of some services. Those that change before they are made are not among the made ones. */
  async #make(listed: Listed, keys: readonly string[], run: InTurn): Promise<void> {
    const { peer, made } = listed;
    const sources = await run(async (turn) => {
      const services = new Set(keys.flatMap((key) => peer.index.shownWith(key)));
      const views = await this.#payloads.views(peer, [...services], turn);
      // Damaged ones have gone meanwhile.
      return keys.map((key) => {
        made.set(key, undefined);
        return sourcesOf(key, peer.index.shownWith(key), (service) => views.get(service.key));
      });
    });
    await this.#makeEach(listed, sources);
  }

  async #makeEach(listed: Listed, sources: readonly Sources[]): Promise<void> {
    const { summaries, made } = listed;
    const pause = pauses();
    for (const each of sources) {
      const pausing = pause();
      if (pausing !== undefined) await pausing;
      const summary = await this.#summary(each);
      const kept = summary && (await inShortTurns(compactSteps(summary, listed)));
      if (!made.has(each.key) || summaries.kept.has(each.key)) continue;
      if (kept === undefined) summaries.missing.delete(each.key);
      else this.#keep(listed, each.key, kept);
    }
  }

  /** Undefined: there is no service of the name any more. */
  async #summary({ key, services }: Sources): Promise<ServiceSummary | undefined> {
    let maker: SummaryMaker | undefined;
    for (const { key: source, view } of services) {
      if (view === undefined) continue;
      const instances = await sorted(await this.#payloads.decode(view));
      const pause = pauses();
      for (const instance of instances) {
        const pausing = pause();
        if (pausing !== undefined) await pausing;
        const { service } = instance;
        if (source === key) {
          maker ??= new SummaryMaker(service.name);
          maker.add(instance);
        }
        const proxied = proxiedName(service);
        if (lowerCase(proxied) !== key) continue;
        maker ??= new SummaryMaker(proxied);
        maker.addProxy(instance);
      }
    }
    return maker?.summary();
  }

  #keep(listed: Listed, key: string, one: KeptSummary): void {
    const { peer, summaries, made } = listed;
    for (const other of this.#peers) {
      if (this.#bytes + one.bytes <= this.#most || other === peer) break;
      if (this.#asked - (other.summaries?.asked ?? 0) < LATELY) break;
      this.release(other);
    }
    if (this.#bytes + one.bytes <= this.#most) {
      summaries.keep(key, one);
      return;
    }
    made.set(key, one);
    if (!listed.isFull) {
      this.#incidents.report(
        "import-summaries-full",
        "what lists show of imported services does not fit in the memory for it: some of it is made for each list",
        { limit: this.#most },
      );
    }
    listed.isFull = true;
  }
}

function sourcesOf(
  key: string,
  services: readonly StoredService[],
  viewOf: (service: StoredService) => PayloadView | undefined,
): Sources {
  return { key, services: services.map((service) => ({ key: service.key, view: viewOf(service) })) };
}

/** The names of all services, and of those that others speak for. */
function* namesIn(index: PeerIndex): Steps<Set<string>> {
  const names = new Set<string>();
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  for (const keys of [index.keys(), index.meshNames()]) {
    for (const key of keys) {
      names.add(key);
      if (meter.isOver(2)) yield;
    }
  }
  return names;
}

/** The names of the summaries that are still to be made. */
function* leftSteps({ summaries, made }: Listed): Steps<readonly string[]> {
  const left: string[] = [];
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  for (const key of summaries.missing) {
    if (made.get(key) === undefined) left.push(key);
    if (meter.isOver(2)) yield;
  }
  return left;
}

function* sortedSteps({ summaries, made }: Listed): Steps<readonly ImportedSummary[]> {
  const { order, kept, missing } = summaries;
  const all = yield* order.steps(() => Array.from(kept.values(), ({ summary }) => summary));
  const others: ImportedSummary[] = [];
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  for (const [key, one] of made) {
    if (one !== undefined && missing.has(key)) others.push(one.summary);
    if (meter.isOver(2)) yield;
  }
  return others.length === 0 ? all : yield* mergeSteps(all, yield* sortSteps(others, byName), byName);
}

/** Instances by node and id, as a list has them. */
async function sorted(instances: readonly ServiceInstance[]): Promise<readonly ServiceInstance[]> {
  const keysOf = ({ node, service }: ServiceInstance): readonly string[] => [
    lowerCase(node.name),
    lowerCase(service.id),
  ];
  return instances.length < 2 ? instances : sortByKeys(instances, keysOf);
}

/** A summary that has its texts in common with others, and with the index. */
function* compactSteps(summary: ServiceSummary, { peer, name, summaries }: Listed): Steps<KeptSummary> {
  let bytes = SUMMARY_BYTES + PLACE_BYTES * (summary.tags.length + summary.nodes.length + summary.sources.length);
  const own = (text: string): string => {
    bytes += TEXT_BYTES + text.length;
    return text;
  };
  const common = (text: string): string => summaries.common(text) ?? own(text);
  const nodes: string[] = [];
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  for (const node of summary.nodes) {
    const known = peer.index.node(lowerCase(node))?.name;
    nodes.push(known === node ? known : own(node));
    if (meter.isOver(5)) yield;
  }
  const shownName = own(summary.name);
  const compact: ImportedSummary = {
    ...summary,
    peer: name,
    name: shownName,
    ownName: summary.ownName === shownName ? shownName : own(summary.ownName),
    kind: common(summary.kind),
    datacenter: common(summary.datacenter),
    tags: summary.tags.map(common),
    nodes,
    sources: summary.sources.map(common),
  };
  return { summary: compact, bytes };
}
