import { Alarm } from "../../base/alarm.js";
import type { Clock } from "../../base/environment.js";
import { errorText } from "../../base/errors.js";
import type { Steps } from "../../base/steps.js";
import type { ServiceInstance } from "../../model/instance.js";
import type { SnapshotLimits } from "../snapshot/sidecar.js";
import { KeptParts } from "../xds/kept-parts.js";
import { isServedKind, type ProxyResources, proxyResources } from "../xds/proxy.js";
import { ResourceEncoder } from "../xds/resources.js";
import type { TlsPlacement } from "../xds/tls.js";
import type { HostSource, RecordedView } from "./host-source.js";

/** News for a proxy. */
export type ProxyNews =
  | { readonly type: "resources"; readonly registration: ServiceInstance; readonly resources: ProxyResources }
  | {
      readonly type: "waiting";
      readonly registration: ServiceInstance | undefined;
      readonly waitsFor: readonly string[];
    }
  /** It could not be made; the former resources stay. */
  | { readonly type: "failed"; readonly registration: ServiceInstance; readonly message: string };

export interface ProxyFeedsOptions {
  readonly source: HostSource;
  readonly clock: Clock;
  readonly placement: TlsPlacement;
  readonly limits: SnapshotLimits;
  /** How long changes are gathered before snapshots are made of them. */
  readonly gatherMs: number;
}

interface Feed {
  readonly node: string;
  readonly id: string;
  readonly tell: (news: ProxyNews) => void;
  recorded: RecordedView | undefined;
  /** Parts that the first snapshot waits for. A proxy that was told more by a former server would lose those that are only not read yet. */
  awaited: ReadonlySet<object> | undefined;
  readonly kept: KeptParts;
}

const NOTHING: ReadonlySet<object> = new Set();

/** How long snapshots are made before others have their turn, in milliseconds. */
const TURN_MS = 5;

/**
 * Snapshots of all connected proxies. One is made after the other, in steps with turns for others in between, and only where it may have
 * changed.
 */
export class ProxyFeeds {
  readonly #options: ProxyFeedsOptions;
  readonly #feeds = new Set<Feed>();
  /** Those to look at, each once. */
  readonly #due = new Set<Feed>();
  readonly #encoder = new ResourceEncoder();
  /** The one that is under way. */
  #making: { readonly feed: Feed; readonly steps: Steps<void> } | undefined;
  readonly #gather: Alarm;
  readonly #forget: () => void;
  #working = false;

  constructor(options: ProxyFeedsOptions) {
    this.#options = options;
    this.#gather = new Alarm(options.clock, () => {
      for (const feed of this.#feeds) this.#due.add(feed);
      this.#work();
    });
    this.#forget = options.source.onNews(() => {
      if (this.#feeds.size > 0) this.#gather.ensure(options.gatherMs);
    });
  }

  /** Tells `tell` the present state soon, and every newer one, until the returned function is called. */
  follow(node: string, id: string, tell: (news: ProxyNews) => void): () => void {
    const feed: Feed = { node, id, tell, recorded: undefined, awaited: undefined, kept: new KeptParts() };
    this.#feeds.add(feed);
    this.#due.add(feed);
    this.#work();
    return () => {
      this.#feeds.delete(feed);
      this.#due.delete(feed);
      if (this.#making?.feed === feed) this.#abandon();
      feed.recorded?.release();
      feed.recorded = undefined;
    };
  }

  close(): void {
    this.#forget();
    this.#gather.cancel();
    this.#due.clear();
    this.#abandon();
    for (const feed of this.#feeds) feed.recorded?.release();
    this.#feeds.clear();
  }

  #work(): void {
    if (this.#working) return;
    this.#working = true;
    const { clock } = this.#options;
    clock.after(0, () => {
      this.#working = false;
      const end = clock.now() + TURN_MS;
      while (this.#next()) {
        if (clock.now() < end) continue;
        this.#work();
        return;
      }
    });
  }

  /** Does a step. @returns whether there was one. */
  #next(): boolean {
    if (this.#making === undefined) {
      const [feed] = this.#due;
      if (feed === undefined) return false;
      this.#due.delete(feed);
      this.#making = { feed, steps: this.#look(feed) };
    }
    const { steps } = this.#making;
    if (steps.next().done === true && this.#making?.steps === steps) this.#making = undefined;
    return true;
  }

  /** Ends what is under way, which gives up what it holds. */
  #abandon(): void {
    const { steps } = this.#making ?? {};
    this.#making = undefined;
    steps?.return();
  }

  *#look(feed: Feed): Steps<void> {
    const isStale = feed.recorded === undefined || (yield* feed.recorded.isStale());
    if (isStale) yield* this.#make(feed);
  }

  *#make(feed: Feed): Steps<void> {
    const { source } = this.#options;
    const recorded = source.record();
    const { node, id } = feed;
    recorded.depend("registration", () => source.registrationMark(node, id));
    let isHandedOver = false;
    try {
      const told = yield* this.#news(feed, recorded);
      feed.recorded?.release();
      feed.recorded = recorded;
      isHandedOver = true;
      feed.tell(told);
    } finally {
      if (!isHandedOver) recorded.release();
    }
  }

  *#news(feed: Feed, { view, underWay }: RecordedView): Steps<ProxyNews> {
    const { node, id, kept } = feed;
    const { source, placement, limits } = this.#options;
    const registration = source.registration(node, id);
    if (registration === undefined) {
      return { type: "waiting", registration, waitsFor: [`no service "${id}" is registered at node "${node}"`] };
    }
    const { kind } = registration.service;
    if (!isServedKind(kind)) {
      return { type: "waiting", registration, waitsFor: [`services of kind ${JSON.stringify(kind)} are not served`] };
    }
    try {
      const made = yield* proxyResources(registration, view, { placement, limits, kept, encoder: this.#encoder });
      if (made.type === "not-ready") return { type: "waiting", registration, waitsFor: made.waitsFor };
      const pending = underWay();
      feed.awaited ??= new Set(pending.keys());
      // Parts that are found later are not waited for: a proxy that never had them loses nothing.
      const waitsFor = [...pending].flatMap(([each, text]) => (feed.awaited?.has(each) === true ? [text] : []));
      if (waitsFor.length > 0) return { type: "waiting", registration, waitsFor };
      feed.awaited = NOTHING;
      return { type: "resources", registration, resources: made };
    } catch (error) {
      return { type: "failed", registration, message: errorText(error) };
    }
  }
}
