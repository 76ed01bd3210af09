import { Alarm } from "../../base/alarm.js";
import type { Clock } from "../../base/environment.js";
import { errorText } from "../../base/errors.js";
import type { ServiceInstance } from "../../model/instance.js";
import type { SnapshotLimits } from "../snapshot/sidecar.js";
import { isServedKind, type ProxyResources, proxyResources } from "../xds/proxy.js";
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
}

/** Snapshots of all connected proxies. One is made after the other, with turns for others in between, and only where it may have changed. */
export class ProxyFeeds {
  readonly #options: ProxyFeedsOptions;
  readonly #feeds = new Set<Feed>();
  /** Those to look at, each once. */
  readonly #due = new Set<Feed>();
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
    const feed: Feed = { node, id, tell, recorded: undefined };
    this.#feeds.add(feed);
    this.#due.add(feed);
    this.#work();
    return () => {
      this.#feeds.delete(feed);
      this.#due.delete(feed);
      feed.recorded?.release();
      feed.recorded = undefined;
    };
  }

  close(): void {
    this.#forget();
    this.#gather.cancel();
    this.#due.clear();
    for (const feed of this.#feeds) feed.recorded?.release();
    this.#feeds.clear();
  }

  #work(): void {
    if (this.#working) return;
    this.#working = true;
    this.#options.clock.after(0, () => {
      this.#working = false;
      const [feed] = this.#due;
      if (feed === undefined) return;
      this.#due.delete(feed);
      if (feed.recorded?.isStale() !== false) this.#make(feed);
      if (this.#due.size > 0) this.#work();
    });
  }

  #make(feed: Feed): void {
    const { source, placement, limits } = this.#options;
    const recorded = source.record();
    const { node, id } = feed;
    recorded.depend("registration", () => source.registrationMark(node, id));
    const registration = source.registration(node, id);
    const news = (): ProxyNews => {
      if (registration === undefined) {
        return { type: "waiting", registration, waitsFor: [`no service "${id}" is registered at node "${node}"`] };
      }
      const { kind } = registration.service;
      if (!isServedKind(kind)) {
        const waitsFor = [`services of kind ${JSON.stringify(kind)} are not served`];
        return { type: "waiting", registration, waitsFor };
      }
      try {
        const made = proxyResources(registration, recorded.view, { placement, limits });
        if (made.type === "not-ready") return { type: "waiting", registration, waitsFor: made.waitsFor };
        return { type: "resources", registration, resources: made };
      } catch (error) {
        return { type: "failed", registration, message: errorText(error) };
      }
    };
    const told = news();
    feed.recorded?.release();
    feed.recorded = recorded;
    feed.tell(told);
  }
}
