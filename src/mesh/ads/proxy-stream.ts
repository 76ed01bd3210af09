import type { Clock, Timer } from "../../base/environment.js";
import type { Incidents } from "../../base/incidents.js";
import { Wake } from "../../base/latest.js";
import type { ConnectedProxy, ResourceType, ShownRefusal } from "../../model/connected-proxy.js";
import type { ServiceInstance } from "../../model/instance.js";
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from "../../wire/envoy.js";
import { type ResourceSet, TYPE_URLS } from "../xds/resources.js";
import type { ProxyFeeds, ProxyNews } from "./proxy-feed.js";
import { type DeltaLimits, type DeltaOutput, DeltaSession, type ProxyIdentity } from "./session.js";

/** Why a stream ends. */
export type StreamEnd = {
  readonly code:
    | "aborted"
    | "internal"
    | "invalid-argument"
    | "permission-denied"
    | "resource-exhausted"
    | "unauthenticated"
    | "unavailable";
  readonly message: string;
};

export interface ProxyStreamOptions {
  readonly feeds: ProxyFeeds;
  readonly clock: Clock;
  readonly incidents: Incidents;
  readonly nodeName: string;
  readonly limits: DeltaLimits & { readonly proxyResources: number; readonly unansweredMs: number };
  /** Rejects with a {@link StreamEnded} where the caller may not have what a registration is told. */
  readonly authorize: (registration: ServiceInstance | undefined) => Promise<void>;
}

/** Ends a stream with a status. */
export class StreamEnded extends Error {
  readonly end: StreamEnd;

  constructor(end: StreamEnd) {
    super(end.message);
    this.end = end;
  }
}

const NONE: Readonly<Record<ResourceType, number>> = { secret: 0, cluster: 0, endpoint: 0, listener: 0, route: 0 };
/** Looked at again although nothing happens: the token may be gone. */
const AUTHORIZE_EVERY_MS = 5 * 60_000;
/** Responses that wait for the client to read; its requests are not read meanwhile. */
const QUEUE = 10;

/** Performs one stream: feeds its session, and sends what that says. */
export class ProxyStream {
  readonly #options: ProxyStreamOptions;
  readonly #session: DeltaSession;
  readonly #wake = new Wake();
  readonly #room = new Wake();
  readonly #queue: DeltaDiscoveryResponse[] = [];
  readonly #refusals = new Map<ResourceType, ShownRefusal>();
  readonly connectedAt: number;
  #proxy: ProxyIdentity | undefined;
  #registration: ServiceInstance | undefined;
  #waitsFor: readonly string[] = ["its first request"];
  #missing: readonly string[] = [];
  #set: ResourceSet | undefined;
  #stopFollowing: (() => void) | undefined;
  /** Told, and not looked at yet. */
  #news: ProxyNews | undefined;
  #end: StreamEnd | undefined;
  #over = false;
  #recheck: Timer | undefined;
  #overdue: Timer | undefined;
  /** Inputs are worked off one after the other: a right is looked up before each. */
  #turn: Promise<void> = Promise.resolve();

  constructor(options: ProxyStreamOptions) {
    this.#options = options;
    this.#session = new DeltaSession(options.limits);
    this.connectedAt = options.clock.wall();
  }

  get shown(): ConnectedProxy {
    const { id = "", node = "", envoyVersion = "" } = this.#proxy ?? {};
    const registration = this.#registration?.service;
    const resources = { ...NONE };
    for (const type of Object.keys(TYPE_URLS) as ResourceType[]) resources[type] = this.#set?.resources[type].size ?? 0;
    return {
      id,
      node: node || this.#options.nodeName,
      service: registration?.proxy?.destinationServiceName || registration?.name || "",
      kind: registration?.kind ?? "",
      envoyVersion,
      connectedAt: this.connectedAt,
      waitsFor: this.#waitsFor,
      missing: this.#missing,
      refusals: [...this.#refusals.values()],
      unanswered: this.#session.unanswered,
      resources,
    };
  }

  /** Ends the stream from here. */
  end(end: StreamEnd): void {
    this.#end ??= end;
    this.#wake.call();
    this.#room.call();
  }

  /** Reads requests until the client ends them. Never rejects. @param failed - tells the end for an error of reading. */
  async read(requests: AsyncIterable<DeltaDiscoveryRequest>, failed: (error: unknown) => StreamEnd): Promise<void> {
    try {
      for await (const request of requests) {
        await this.#do(() => this.#session.handle({ type: "request", request }));
        // A client that does not read what it asks for is not read either.
        while (this.#queue.length >= QUEUE && this.#end === undefined && !this.#over) await this.#room.wait();
        if (this.#end !== undefined || this.#over) return;
      }
      this.#over = true;
    } catch (error) {
      this.end(error instanceof StreamEnded ? error.end : failed(error));
    }
    this.#wake.call();
    this.#room.call();
  }

  /** The responses to send, until the stream is over. @throws {StreamEnded} */
  async *responses(signal: AbortSignal): AsyncGenerator<DeltaDiscoveryResponse, void, undefined> {
    while (!signal.aborted) {
      this.#wake.clear();
      const next = this.#queue.shift();
      if (next !== undefined) {
        this.#room.call();
        yield next;
        continue;
      }
      if (this.#end !== undefined) throw new StreamEnded(this.#end);
      if (this.#over) return;
      await this.#wake.wait(signal);
    }
  }

  close(): void {
    this.#over = true;
    this.#stopFollowing?.();
    this.#recheck?.cancel();
    this.#overdue?.cancel();
    this.#wake.call();
    this.#room.call();
  }

  /** Takes the outputs of a step, once the right of the caller was looked at. */
  #do(step: () => readonly DeltaOutput[]): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      if (this.#over || this.#end !== undefined) return;
      try {
        // Nothing of a registration is told before the right on that one was looked at.
        for (;;) {
          const news = this.#news;
          await this.#options.authorize(news?.registration ?? this.#registration);
          if (news === this.#news) break;
        }
      } catch (error) {
        this.end(error instanceof StreamEnded ? error.end : { code: "internal", message: "error resolving acl token" });
        return;
      }
      if (this.#over || this.#end !== undefined) return;
      for (const output of step()) this.#perform(output);
      this.#wake.call();
      this.#recheckLater();
    });
    return this.#turn;
  }

  #recheckLater(): void {
    this.#recheck?.cancel();
    if (this.#over) return;
    this.#recheck = this.#options.clock.after(AUTHORIZE_EVERY_MS, () => void this.#do(() => []));
  }

  #perform(output: DeltaOutput): void {
    const { clock, incidents, feeds, nodeName } = this.#options;
    switch (output.type) {
      case "identified":
        this.#proxy = output.proxy;
        this.#waitsFor = ["its snapshot"];
        this.#stopFollowing = feeds.follow(output.proxy.node || nodeName, output.proxy.id, (news) => {
          const waits = this.#news !== undefined;
          this.#news = news;
          // The newest one takes the place of one that was not looked at yet.
          if (!waits) void this.#do(() => this.#takeNews());
        });
        return;
      case "send":
        this.#queue.push(output.response);
        this.#watchAnswers();
        return;
      case "acknowledged":
        this.#refusals.delete(output.resourceType);
        this.#watchAnswers();
        return;
      case "refused": {
        const { refusal } = output;
        this.#refusals.set(refusal.resourceType, { ...refusal, at: clock.wall() });
        incidents.report("xds-response-refused", "a proxy refused what it was told", {
          proxy: this.#proxy?.id ?? "",
          resourceType: refusal.resourceType,
          resourceNames: refusal.names.join(", "),
          error: refusal.message,
        });
        this.#watchAnswers();
        return;
      }
      case "close":
        if (output.code === "resource-exhausted") {
          incidents.report("xds-names", "a proxy asked for too many names: its stream was ended", {
            proxy: this.#proxy?.id ?? "",
            limit: this.#options.limits.subscribedNames,
          });
        }
        this.end({ code: output.code, message: output.message });
    }
  }

  /** Says so when a proxy leaves a response without an answer: it may wait for something that never comes. */
  #watchAnswers(): void {
    this.#overdue?.cancel();
    this.#overdue = undefined;
    if (this.#session.unanswered.length === 0) return;
    const { clock, incidents, limits } = this.#options;
    this.#overdue = clock.after(limits.unansweredMs, () => {
      incidents.report("xds-response-unanswered", "a proxy has not answered what it was told", {
        proxy: this.#proxy?.id ?? "",
        resourceType: this.#session.unanswered.join(", "),
      });
    });
  }

  #takeNews(): readonly DeltaOutput[] {
    const news = this.#news;
    this.#news = undefined;
    return news === undefined ? [] : this.#take(news);
  }

  #take(news: ProxyNews): readonly DeltaOutput[] {
    const { incidents, limits } = this.#options;
    // Another proxy begins with another stream, and with none of the state of this one.
    if (this.#isOther(news.registration)) return [];
    if (news.registration !== undefined) this.#registration = news.registration;
    if (news.type === "waiting") {
      this.#waitsFor = news.waitsFor;
      return [];
    }
    if (news.type === "failed") {
      const message = `failed to generate all xDS resources from the snapshot: ${news.message}`;
      incidents.report("xds-snapshot-failed", "the resources of a proxy could not be made", {
        proxy: this.#proxy?.id ?? "",
        error: news.message,
      });
      this.end({ code: "unavailable", message });
      return [];
    }
    const { set, missing } = news.resources;
    const count = Object.values(set.resources).reduce((sum, { size }) => sum + size, 0);
    if (count > limits.proxyResources) {
      incidents.report("xds-proxy-resources", "a proxy would have too many resources: it keeps those it has", {
        proxy: this.#proxy?.id ?? "",
        resources: count,
        limit: limits.proxyResources,
      });
      this.#waitsFor = [`${count} resources, of which ${limits.proxyResources} are allowed`];
      return [];
    }
    this.#waitsFor = [];
    this.#missing = missing;
    this.#set = set;
    return this.#session.handle({ type: "resources", set });
  }

  /** A registration that became one of another kind or service asks for other rights, and other state. */
  #isOther(registration: ServiceInstance | undefined): boolean {
    const before = this.#registration?.service;
    if (before === undefined) return false;
    const now = registration?.service;
    if (
      now !== undefined &&
      now.kind === before.kind &&
      now.proxy?.destinationServiceName === before.proxy?.destinationServiceName &&
      now.name === before.name
    ) {
      return false;
    }
    this.end({ code: "aborted", message: "xDS stream terminated due to an irrecoverable error, please try again" });
    return true;
  }
}
