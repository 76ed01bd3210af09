import { latest } from "../host/gateways.js";
import type { PeeringHost } from "../host/host.js";
import type { CatalogIndexes } from "../stores/catalog.js";
import type { ConfigEntryChange } from "../stores/config-entries.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import type { Json } from "./json.js";
import { consistencyOf, type ReadOptions } from "./query.js";

/** Whose data a read is about, and the query that it waits with. */
export interface Scope {
  /** The name of the peering as its record spells it; as asked for when there is none; `""` for local data. */
  readonly peer: string;
  /** The one service that the read is about, but for gateways; undefined: everything of the peer, or of the catalog. */
  readonly service?: string;
  /** The index of a read of local data. */
  readonly local: (indexes: CatalogIndexes) => bigint;
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
    const read = { index: reading.index, consistency: consistencyOf(options), filtered: false };
    const place = isKept ? call.place(importBasis(call.host, peer)) : undefined;
    if (place?.body !== undefined) return { body: place.body, read };
    const { json, filtered } = await load();
    return { json, read: { ...read, filtered }, ...(place !== undefined && !filtered && { place }) };
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
