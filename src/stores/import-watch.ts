import { setImmediate } from "node:timers/promises";
import type { Cursor, Untold } from "../base/change-feed.js";
import { PeeringError } from "../base/errors.js";
import { Wake } from "../base/latest.js";
import { StepMeter } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { ServiceInstance } from "../model/instance.js";
import type { InstanceDiff } from "../payload/imported-payload.js";
import { differenceParts, instanceParts, type Parts, type PayloadView } from "../payload/payload-parts.js";
import type { Turn } from "../storage/replica.js";
import type { StoredService } from "./import-index.js";
import { type ImportPayloads, READ_BATCH, READ_WHOLE_BYTES } from "./import-payloads.js";
import { ALL, type Former, type ImportFeed, type ImportPeer } from "./import-peer.js";

/**
 * Everything imported at one revision, by service name: the first thing a watch yields, also when there is nothing. A later one
 * replaces everything before it: another process wrote, and the state before is not known.
 */
export interface ImportSnapshot {
  readonly type: "snapshot";
  readonly revision: bigint;
  readonly services: ReadonlyMap<string, readonly ServiceInstance[]>;
}

/** The change of one service since a watch last reported it. */
export interface ImportDifference {
  readonly type: "difference";
  readonly service: string;
  /** The storage revision this leads to; within a watch it never falls. */
  readonly revision: bigint;
  readonly added: readonly ServiceInstance[];
  /** As they are now. */
  readonly changed: readonly ServiceInstance[];
  /** As they were. */
  readonly removed: readonly ServiceInstance[];
}

export type ImportChange = ImportSnapshot | ImportDifference;

/** A piece of a watch: a change, or the end of the initial state. */
export type ImportPart =
  | (Omit<ImportDifference, "type"> & {
      readonly type: "part";
      /** Whether the next part says more of the same change of the same service. */
      readonly more: boolean;
    })
  | { readonly type: "complete"; readonly revision: bigint }
  /** Everything told so far is void, see {@link ImportSnapshot}: the full state follows, as at first. */
  | { readonly type: "again" };

/** A change for a follower, encoded still. */
type FollowEvent =
  | { readonly type: "there"; readonly view: PayloadView; readonly revision: bigint }
  | { readonly type: "complete"; readonly revision: bigint }
  | {
      readonly type: "change";
      readonly before: PayloadView | undefined;
      readonly after: PayloadView | undefined;
      readonly revision: bigint;
    }
  | { readonly type: "again" };

export interface FollowOptions {
  readonly peer: ImportPeer;
  /** Lower-cased; {@link ALL}. */
  readonly key: string;
  readonly payloads: ImportPayloads;
  readonly signal: AbortSignal;
  /** Whether the store has been closed; the peer is woken when it is. */
  readonly isClosed: () => boolean;
  /** Runs a task in a turn of the peer. */
  readonly run: <Result>(task: (turn: Turn) => Promise<Result>) => Promise<Result>;
}

/**
 * The present services when it begins, one by one, then each that changed, until `signal` aborts or the peer is over. It keeps
 * nothing but its place in the feed, and the part of the last look that it has not told yet.
 */
async function* follow(options: FollowOptions): AsyncGenerator<FollowEvent, void> {
  const { peer, key, payloads, signal, run } = options;
  const isOver = (): boolean => signal.aborted || options.isClosed();
  if (isOver()) return;
  const wake = new Wake();
  const { feed, end } = peer.follow(key, wake.call);
  let cursor: Cursor | undefined;
  try {
    for (;;) {
      const start = await run((turn) => join(peer, key, feed, payloads, turn));
      cursor = start.cursor;
      const told: Told = { cursor: start.cursor, ahead: new Map() };
      const viewsOf = (keys: readonly string[]): Promise<ReadonlyMap<string, PayloadView>> =>
        run((turn) => viewsAt(peer, feed, told, payloads, keys, turn));
      for (const keys of groupsOf(start.keys)) {
        for (const view of (await viewsOf(keys)).values()) {
          if (isOver()) return;
          yield { type: "there", view, revision: start.revision };
        }
      }
      yield { type: "complete", revision: start.revision };
      let isLost = false;
      while (!isLost && !isOver()) {
        wake.clear();
        const { untold, revision } = await run(async () => ({
          untold: await inTurns<readonly Untold<Former>[]>(feed.catchUp(start.cursor)),
          revision: peer.index.revision,
        }));
        const before = new Map(untold.map((change) => [change.key, toldOf(told, change)]));
        isLost = [...before.values()].includes("lost");
        for (const group of isLost ? [] : groupsOf([...before])) {
          const after = await viewsOf(group.map(([changed]) => changed));
          for (const [changed, former] of group) {
            if (isOver()) return;
            if (former === "lost") continue;
            yield { type: "change", before: former, after: after.get(changed), revision };
          }
        }
        if (untold.length > 0) continue;
        if (peer.over) return;
        if (!isOver()) await wake.wait(signal);
      }
      if (isOver()) return;
      feed.leave(start.cursor);
      cursor = undefined;
      yield { type: "again" };
    }
  } catch (error) {
    // The storage was closed: the watch is over.
    if (!(error instanceof PeeringError && error.code === "closed")) throw error;
  } finally {
    if (cursor !== undefined) feed.leave(cursor);
    end();
  }
}

async function join(
  peer: ImportPeer,
  key: string,
  feed: ImportFeed,
  payloads: ImportPayloads,
  turn: Turn,
): Promise<{ readonly cursor: Cursor; readonly keys: readonly string[]; readonly revision: bigint }> {
  const { index } = peer;
  let keys: readonly string[] = [key];
  if (key === ALL) {
    const services = await inTurns(index.sortSteps());
    // Where it is not much, at once: service by service it takes many times as long.
    if (index.payloadBytes <= READ_WHOLE_BYTES) await payloads.views(peer, services, turn);
    keys = services.flatMap((service) => (index.get(service.key) === service ? service.key : []));
  }
  return { cursor: feed.join(), keys, revision: index.revision };
}

/** The state that a follower has been told. */
interface Told {
  readonly cursor: Cursor;
  /** Services of which something newer was told than they were at the moment of the cursor. */
  readonly ahead: Map<string, PayloadView | undefined>;
}

/** The state told last of a service that has changed since. */
function toldOf({ ahead }: Told, { key, before }: Untold<Former>): Former {
  if (!ahead.has(key)) return before;
  const newer = ahead.get(key);
  ahead.delete(key);
  return newer;
}

/** Services as they were at the moment of a cursor, by key; as they are now, where that is not known. None: it had no instances. */
async function viewsAt(
  peer: ImportPeer,
  feed: ImportFeed,
  { cursor, ahead }: Told,
  payloads: ImportPayloads,
  keys: readonly string[],
  turn: Turn,
): Promise<ReadonlyMap<string, PayloadView>> {
  const views = new Map<string, PayloadView>();
  const current: StoredService[] = [];
  const lost: string[] = [];
  for (const key of keys) {
    const past = feed.at(cursor, key);
    if (past !== undefined && past.version !== "lost") {
      if (past.version !== undefined) views.set(key, past.version);
      continue;
    }
    if (past !== undefined) lost.push(key);
    const service = peer.index.get(key);
    if (service !== undefined) current.push(service);
  }
  for (const [key, view] of await payloads.views(peer, current, turn)) views.set(key, view);
  for (const key of lost) ahead.set(key, views.get(key));
  return views;
}

/** A watch that tells everything there is at once, then whole differences. */
export async function* watchWhole(options: FollowOptions): AsyncGenerator<ImportChange, void> {
  const { payloads } = options;
  const meter = new StepMeter();
  let services = new Map<string, readonly ServiceInstance[]>();
  for await (const event of follow(options)) {
    if (event.type === "there") {
      const instances = await payloads.decode(event.view);
      const [first] = instances;
      if (first !== undefined) services.set(first.service.name, instances);
      if (meter.isOver(event.view.value.length >>> 2)) await setImmediate();
    } else if (event.type === "complete") {
      yield { type: "snapshot", revision: event.revision, services };
      // The consumer's alone from now on.
      services = new Map();
    } else if (event.type === "again") {
      services = new Map();
    } else {
      const { added, changed, removed } = await payloads.difference(event.before, event.after);
      const first = added[0] ?? changed[0] ?? removed[0];
      const service = first?.service.name;
      if (service !== undefined)
        yield { type: "difference", service, revision: event.revision, added, changed, removed };
    }
  }
}

/** A watch in parts of about `size` instances, made when they are asked for. */
export async function* watchParts(options: FollowOptions, size: number): AsyncGenerator<ImportPart, void> {
  for await (const event of follow(options)) {
    if (event.type === "complete" || event.type === "again") {
      yield event;
      continue;
    }
    const { revision } = event;
    const parts =
      event.type === "there" ? addedParts(event.view, size) : differenceParts(event.before, event.after, size);
    let last: Extract<ImportPart, { readonly type: "part" }> | undefined;
    for (const part of parts) {
      if (part === undefined) {
        await setImmediate();
        continue;
      }
      if (last !== undefined) yield { ...last, more: true };
      const { added, changed, removed } = part;
      const service = (added[0] ?? changed[0] ?? removed[0])?.service.name ?? "";
      last = { type: "part", service, revision, added, changed, removed, more: false };
    }
    if (last !== undefined) yield last;
  }
}

function* addedParts(view: PayloadView, size: number): Parts<InstanceDiff> {
  for (const part of instanceParts(view, size)) {
    yield part === undefined ? undefined : { added: part, changed: [], removed: [] };
  }
}

function* groupsOf<Item>(items: readonly Item[]): Generator<readonly Item[]> {
  for (let start = 0; start < items.length; start += READ_BATCH) yield items.slice(start, start + READ_BATCH);
}
