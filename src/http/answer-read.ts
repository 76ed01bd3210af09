import { latest } from "../host/gateways.js";
import type { PeeringHost } from "../host/host.js";
import type { CatalogIndexes } from "../stores/catalog.js";
import type { ConfigEntryChange } from "../stores/config-entries.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import type { Json } from "./json.js";
import { type AnswerSource, type Basis, basisOf, type Marks } from "./kept-answers.js";
import { consistencyOf, type ReadOptions } from "./query.js";

/** Whose data a read is about, and the query that it waits with. */
export interface Scope {
  /** The name of the peering as its record spells it; as asked for when there is none; `""` for local data. */
  readonly peer: string;
  /** The one service that the read is about, but for gateways; undefined: everything of the peer, or of the catalog. */
  readonly service?: string;
  /** The index of a read of local data. */
  readonly local: (indexes: CatalogIndexes) => bigint;
  /**
   * Others after each change of local data that the answer tells, beside its index. Default: it may tell anything of the catalog.
   */
  readonly marks?: (() => Marks) | undefined;
  /** Config entries of gateways change the answer, too. Default false. */
  readonly gateways?: boolean;
  /** Whether the caller may see everything that a read of imports tells: then its answer is kept. Default false. */
  readonly everything?: boolean;
  /** Whether a change of `proxy-defaults` or `service-defaults` may change the answer. Default: none does. */
  readonly central?: (change: ConfigEntryChange) => boolean;
}

/**
 * Answers a read, at once or when its index has grown. The index is taken before the data: newer records among these are reported
 * again, and nothing is missed.
 */
export async function answerRead(
  call: Call,
  options: ReadOptions,
  scope: Scope,
  load: () => Promise<{ readonly json: Json; readonly filtered: boolean }>,
): Promise<Answer> {
  const { catalog, configEntries, imports } = call.host;
  const { peer, service, gateways = false, central } = scope;
  const of = service === undefined ? { peer } : { peer, service };
  const ofRecords = peer === "" ? (): bigint => scope.local(catalog.index) : (): bigint => imports.index(of);
  const index = central === undefined ? ofRecords : (): bigint => latest(ofRecords(), centralIndex(call.host));
  const ofService = peer === "" && service !== undefined && !gateways;
  const subscribe = (wake: () => void): (() => void) => {
    const forget: (() => void)[] = [];
    const wakeIfGrown = (): void => void (ofRecords() > options.minIndex && wake());
    if (peer !== "") forget.push(imports.onChange(of, wake));
    else if (ofService) forget.push(catalog.onServiceChange(service, wakeIfGrown));
    else forget.push(catalog.onChange(wakeIfGrown));
    if (peer === "" && gateways) forget.push(configEntries.onChange(wakeIfGrown));
    if (central !== undefined) forget.push(configEntries.onChange((change) => void (central(change) && wake())));
    return () => {
      for (const each of forget) each();
    };
  };
  const query = { read: () => ({ index: index(), result: undefined }), index, subscribe };
  const isKept = peer !== "" && scope.everything === true && central === undefined;
  return call.answer(options, query, async (reading) => {
    const basis = basisOfRead(call.host, scope, index);
    const read = { index: reading.index, consistency: consistencyOf(options), filtered: false };
    const place = isKept ? call.place(importBasis(call.host, peer)) : undefined;
    if (place?.body !== undefined) return { body: place.body, read, basis };
    const { json, filtered } = await load();
    return { json, read: { ...read, filtered }, basis, ...(place !== undefined && !filtered && { place }) };
  });
}

/** Local answers tell nothing of imports. Of local data, imported services show the virtual addresses that they have here. */
function basisOfRead({ catalog, imports }: PeeringHost, { peer, service, marks }: Scope, index: () => bigint): Basis {
  const sources: AnswerSource[] = ["config-entries", "peerings"];
  if (peer === "") {
    if (marks === undefined) sources.push("catalog");
    return basisOf(sources, () => [index(), ...(marks?.() ?? [])]);
  }
  if (service === undefined) {
    sources.push("imports");
    return basisOf(sources, () => [index(), catalog.index.virtualIps]);
  }
  return basisOf(sources, () => {
    // An import that turns out to be damaged goes without a commit.
    const found = imports.service({ peer, service });
    return [index(), catalog.index.virtualIps, found?.revision ?? 0n, found?.instances ?? 0];
  });
}

/** Everything that a read of the imports of a peer depends on. */
export function importBasis({ catalog, imports, view }: PeeringHost, peer: string): readonly (bigint | number)[] {
  // An import that turns out to be damaged goes without a commit.
  const { services, instances } = imports.count({ peer });
  return [view.index, imports.index({ peer }), services, instances, catalog.index.virtualIps];
}

/** Grows with each write of an entry that changes how proxies are shown. */
function centralIndex({ configEntries }: PeeringHost): bigint {
  return latest(configEntries.kindIndex("proxy-defaults"), configEntries.kindIndex("service-defaults"));
}
