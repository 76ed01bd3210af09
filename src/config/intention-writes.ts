import { invalidEntry, listProblems } from "../model/entry-reader.js";
import type { StringMap } from "../model/instance.js";
import type { ServiceIntentionsEntry } from "./config-entry.js";
import type { IntentionSource } from "./intentions.js";

// Writes of single intentions, as changes of the entry of their destination (Consul 1.21). The changed entry is checked
// when it is written, as any entry is.

/** A source as a caller wrote it, not checked yet. */
export interface GivenSource {
  readonly name: string;
  readonly action?: string;
  readonly type?: string;
  readonly description?: string;
  readonly permissions?: readonly unknown[];
}

type Given = Omit<ServiceIntentionsEntry, "sources"> & { readonly sources: readonly (GivenSource | IntentionSource)[] };
type Before = ServiceIntentionsEntry | undefined;

function withSources(before: Before, destination: string, sources: Given["sources"]): Given {
  return { ...(before ?? { kind: "service-intentions", name: destination }), sources };
}

/** Ids end with a write by names; metadata that an id had would be lost with it, and is refused when it is checked. */
function withoutIds(source: IntentionSource): IntentionSource {
  const { legacyID: _, legacyCreateTime: _created, legacyUpdateTime: _updated, ...rest } = source;
  return rest;
}

/** Local callers alone can be named where intentions are written one by one. */
function isLocal(source: IntentionSource, name: string): boolean {
  return source.name === name && source.peer === undefined;
}

/** With this source, which takes the place of a local one of its name. */
export function withIntention(before: Before, destination: string, given: GivenSource): Given {
  const sources: (GivenSource | IntentionSource)[] = (before?.sources ?? []).map(withoutIds);
  const place = (before?.sources ?? []).findIndex((source) => isLocal(source, given.name));
  if (place < 0) sources.push(given);
  else sources[place] = given;
  return withSources(before, destination, sources);
}

/** Without the local source of this name: as it was where there is none, and undefined when nothing is left. */
export function withoutIntention(before: Before, name: string): Given | undefined {
  if (before === undefined || !before.sources.some((source) => isLocal(source, name))) return before;
  const sources = before.sources.filter((source) => !isLocal(source, name)).map(withoutIds);
  return sources.length === 0 ? undefined : withSources(before, before.name, sources);
}

/** An intention with an id. */
export interface LegacyIntention extends GivenSource {
  readonly id: string;
  readonly meta: StringMap;
  /** RFC 3339. */
  readonly now: string;
}

function legacySource({ id, meta, now, ...given }: LegacyIntention, created: string): GivenSource {
  return {
    ...given,
    ...{ legacyID: id, legacyMeta: meta, legacyCreateTime: created, legacyUpdateTime: now },
  };
}

/** Once an entry was written in another way, ids have no place in it. */
function checkAllHaveIds(before: ServiceIntentionsEntry): void {
  if (before.sources.every(({ legacyID }) => legacyID !== undefined)) return;
  throw invalidEntry(
    `cannot use legacy intention API to edit intentions with a destination of "${before.name}" after editing them via a service-intentions config entry`,
  );
}

/** @throws {PeeringError} `invalid-entry`: the entry has intentions without ids. */
export function withLegacyIntention(before: Before, destination: string, intention: LegacyIntention): Given {
  if (before !== undefined) checkAllHaveIds(before);
  return withSources(before, destination, [...(before?.sources ?? []), legacySource(intention, intention.now)]);
}

/** @throws {PeeringError} `invalid-entry`: there is no such intention, or the entry has intentions without ids. */
export function withChangedLegacyIntention(before: Before, intention: LegacyIntention): Given {
  const found = before?.sources.find(({ legacyID }) => legacyID === intention.id);
  if (before === undefined || found === undefined) throw noSuchIntention("modify", intention.id);
  checkAllHaveIds(before);
  const changed = legacySource(intention, found.legacyCreateTime ?? intention.now);
  return withSources(
    before,
    before.name,
    before.sources.map((source) => (source === found ? changed : source)),
  );
}

/** Undefined when nothing is left. @throws as {@link withChangedLegacyIntention}. */
export function withoutLegacyIntention(before: Before, id: string): Given | undefined {
  const found = before?.sources.find(({ legacyID }) => legacyID === id);
  if (before === undefined || found === undefined) throw noSuchIntention("delete", id);
  checkAllHaveIds(before);
  const sources = before.sources.filter((source) => source !== found);
  return sources.length === 0 ? undefined : withSources(before, before.name, sources);
}

export function noSuchIntention(what: "modify" | "delete", id: string): Error {
  return invalidEntry(`Cannot ${what} non-existent intention: '${id}'`);
}

/** The two ends of an intention, in the older form of writing. */
export interface LegacyEnds {
  readonly source: string;
  readonly destination: string;
}

const MAX_VALUE = 512;
const MAX_KEY = 128;
const MAX_PAIRS = 64;

/** @throws {PeeringError} `invalid-entry`: all that is wrong with an intention of the older form. */
export function checkLegacyIntention({ source, destination }: LegacyEnds, given: LegacyIntention): void {
  const problems: string[] = [];
  const check = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  const fits = (name: string): boolean => name === "*" || !name.includes("*");
  check(source !== "", "SourceName must be set");
  check(destination !== "", "DestinationName must be set");
  check(fits(source), "SourceName: wildcard character '*' cannot be used with partial values");
  check(fits(destination), "DestinationName: wildcard character '*' cannot be used with partial values");
  check(Buffer.byteLength(given.description ?? "") <= MAX_VALUE, `Description exceeds maximum length ${MAX_VALUE}`);
  const meta = Object.entries(given.meta);
  check(meta.length <= MAX_PAIRS, `Meta exceeds maximum element count ${MAX_PAIRS}`);
  for (const [key, value] of meta) {
    const shown = JSON.stringify(key);
    check(Buffer.byteLength(key) <= MAX_KEY, `Meta key ${shown} exceeds maximum length ${MAX_KEY}`);
    check(Buffer.byteLength(value) <= MAX_VALUE, `Meta value for key ${shown} exceeds maximum length ${MAX_VALUE}`);
  }
  check(given.action === "allow" || given.action === "deny", "Action must be set to 'allow' or 'deny'");
  check((given.permissions ?? []).length === 0, "Permissions must not be set when using the legacy APIs");
  check((given.type ?? "consul") === "consul", "SourceType must be set to 'consul'");
  if (problems.length > 0) throw invalidEntry(listProblems(problems));
}
