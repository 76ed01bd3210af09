import type { Socket } from "node:net";
import type { Authorizer } from "../access/authorizer.js";
import type { Clock } from "../base/environment.js";
import type { PeeringHost } from "../host/host.js";
import type { CallLimits } from "./call-limits.js";
import type { HttpRequest, RepeatedRequests, Repeater } from "./messages.js";
import type { RequestGuard } from "./request-guard.js";
import { ReadTime } from "./send.js";

/** The data of a host that an answer may be made of. Each is looked at as a whole. */
export type AnswerSource = "catalog" | "config-entries" | "imports" | "peerings" | "roots" | "streams";

/** Those of a read of services, nodes and checks, local or imported. */
export const RECORDS: readonly AnswerSource[] = ["catalog", "config-entries", "imports", "peerings"];

/** Everything that the answers of an operation depend on, at one moment. */
export interface Standing {
  readonly sources: readonly AnswerSource[];
  readonly counts: readonly number[];
  /** Undefined: it tells nothing of streams. */
  readonly streams: number | undefined;
  readonly rights: number;
  readonly defaultPolicy: string;
  readonly isLeader: boolean;
  readonly leaderAddress: string;
}

/** An answer as it goes over a connection of HTTP/1.1. */
export interface WrittenAnswer {
  readonly status: number;
  readonly statusText: string;
  readonly headers: Iterable<readonly [string, string]>;
  readonly body: Buffer;
}

interface Kept {
  readonly table: Map<string, Kept>;
  readonly head: string;
  readonly standing: Standing;
  /** All changes that it has been compared with. */
  checkedAt: number;
  /** Before the text of the date, and all behind it. */
  readonly before: string;
  readonly after: Buffer;
  /** The whole answer, with the date of a second. */
  bytes: Buffer;
  second: number;
}

interface Note {
  readonly table: Map<string, Kept>;
  readonly head: string;
  readonly keepAliveMs: number;
}

export interface KeptAnswersOptions {
  /** Bytes of all of them, and of the requests that they answer. */
  readonly maxBytes: number;
  /** Longer answers are not kept. */
  readonly maxAnswerBytes: number;
  /** How long a client may take to read one. */
  readonly writeTimeoutMs: number;
}

/** About the cost of what is noted of an answer beside its bytes. */
const NOTED_BYTES = 600;

/**
 * Answers that are kept while nothing that they were made of has changed, by the very bytes of their requests: a client that asks
 * the same again, on any connection, is answered without reading the request again.
 *
 * An answer is made again after any change of its sources, or of the rights of any token; so none is older than the last write.
 */
export class KeptAnswers implements Repeater {
  readonly #host: PeeringHost;
  readonly #authorizer: Authorizer;
  readonly #guard: RequestGuard;
  readonly #limits: CallLimits;
  readonly #clock: Clock;
  readonly #options: KeptAnswersOptions;
  readonly #changes: Record<AnswerSource, number> = {
    catalog: 0,
    "config-entries": 0,
    imports: 0,
    peerings: 0,
    roots: 0,
    // Read from the host: there is no event for each of its observations.
    streams: 0,
  };
  /** Of all sources. */
  #changed = 0;
  /** The one that was asked for longest ago comes first. */
  readonly #all = new Set<Kept>();
  #bytes = 0;
  readonly #notes = new WeakMap<HttpRequest, Note>();

  constructor(
    parts: {
      readonly host: PeeringHost;
      readonly authorizer: Authorizer;
      readonly guard: RequestGuard;
      readonly limits: CallLimits;
      readonly clock: Clock;
    },
    options: KeptAnswersOptions,
  ) {
    this.#host = parts.host;
    this.#authorizer = parts.authorizer;
    this.#guard = parts.guard;
    this.#limits = parts.limits;
    this.#clock = parts.clock;
    this.#options = options;
    const { catalog, configEntries, imports, view, authority } = parts.host;
    const changed = (source: AnswerSource) => (): void => {
      this.#changes[source]++;
      this.#changed++;
    };
    catalog.onChange(changed("catalog"));
    configEntries.onChange(changed("config-entries"));
    imports.onAnyChange(changed("imports"));
    view.onChange(changed("peerings"));
    authority.onRootsChanged(changed("roots"));
  }

  /** To be called before an answer is made of these sources. Undefined: it must not be kept. */
  standing(sources: readonly AnswerSource[]): Standing | undefined {
    const { revision: rights, defaultPolicy } = this.#authorizer;
    if (rights === undefined || this.#options.maxBytes === 0) return undefined;
    const { isLeader, leaderAddress } = this.#host.leadership;
    const counts = sources.map((source) => this.#changes[source]);
    const streams = sources.includes("streams") ? this.#host.peerings.observations : undefined;
    return { sources, counts, streams, rights, defaultPolicy, isLeader, leaderAddress };
  }

  /** Keeps the answer to a request, if it can be asked again and nothing has changed since `standing`. */
  keep(request: HttpRequest, standing: Standing, answer: WrittenAnswer): void {
    const note = this.#notes.get(request);
    if (note === undefined || answer.body.length > this.#options.maxAnswerBytes || !this.#holds(standing)) return;
    let before = `HTTP/1.1 ${answer.status} ${answer.statusText}\r\n`;
    for (const [name, value] of answer.headers) before += `${name}: ${value}\r\n`;
    before += "Date: ";
    const keepAlive = `Keep-Alive: timeout=${Math.floor(note.keepAliveMs / 1_000)}\r\n`;
    const end = `\r\nConnection: keep-alive\r\n${note.keepAliveMs === 0 ? "" : keepAlive}\r\n`;
    const kept: Kept = {
      ...note,
      standing,
      checkedAt: this.#changed,
      before,
      after: Buffer.concat([Buffer.from(end, "latin1"), answer.body]),
      bytes: Buffer.alloc(0),
      second: Number.NaN,
    };
    const former = note.table.get(note.head);
    if (former !== undefined) this.#drop(former);
    note.table.set(note.head, kept);
    this.#all.add(kept);
    this.#bytes += costOf(kept);
    for (const oldest of this.#all) {
      if (this.#bytes <= this.#options.maxBytes) break;
      this.#drop(oldest);
    }
  }

  /** The requests of one server, whose judgement of a request may differ from that of another one. */
  requests({ keepAliveMs }: { readonly keepAliveMs: number }): RepeatedRequests {
    const table = new Map<string, Kept>();
    return {
      note: (request, head) => void this.#notes.set(request, { table, head, keepAliveMs }),
      answer: (head, socket) => this.#find(table, head, socket),
      unread: (socket, bytes) => this.#unread(socket, bytes),
    };
  }

  #unread(socket: Socket, bytes: number): () => void {
    const allowance = this.#limits.allowance({ socket }, socket);
    allowance.made(bytes);
    const cancel = new ReadTime(this.#options.writeTimeoutMs, this.#clock).limit(socket, allowance);
    return () => {
      cancel();
      allowance.end();
    };
  }

  #find(table: ReadonlyMap<string, Kept>, head: string, socket: Socket): Buffer | undefined {
    const kept = table.get(head);
    if (kept === undefined) return undefined;
    if (!this.#isCurrent(kept)) {
      this.#drop(kept);
      return undefined;
    }
    if (!this.#limits.mayAnswer(socket) || !this.#guard.admits(socket)) return undefined;
    this.#all.delete(kept);
    this.#all.add(kept);
    const wall = this.#clock.wall();
    const second = Math.floor(wall / 1_000);
    if (kept.second !== second) {
      kept.second = second;
      // Not in place: the system may be sending the former one.
      kept.bytes = Buffer.concat([Buffer.from(kept.before + new Date(wall).toUTCString(), "latin1"), kept.after]);
    }
    return kept.bytes;
  }

  #isCurrent(kept: Kept): boolean {
    const { standing } = kept;
    if (kept.checkedAt === this.#changed) return this.#isAsBefore(standing);
    kept.checkedAt = this.#changed;
    return this.#holds(standing);
  }

  #holds(standing: Standing): boolean {
    const { sources, counts } = standing;
    for (let place = 0; place < sources.length; place++) {
      const source = sources[place];
      if (source !== undefined && this.#changes[source] !== counts[place]) return false;
    }
    return this.#isAsBefore(standing);
  }

  #isAsBefore({ streams, rights, defaultPolicy, isLeader, leaderAddress }: Standing): boolean {
    const { leadership, peerings } = this.#host;
    return (
      (streams === undefined || peerings.observations === streams) &&
      this.#authorizer.revision === rights &&
      this.#authorizer.defaultPolicy === defaultPolicy &&
      leadership.isLeader === isLeader &&
      leadership.leaderAddress === leaderAddress
    );
  }

  #drop(kept: Kept): void {
    if (!this.#all.delete(kept)) return;
    kept.table.delete(kept.head);
    this.#bytes -= costOf(kept);
  }
}

/** With the bytes that were put together last, as they may be at any time. */
function costOf({ head, before, after }: Kept): number {
  return NOTED_BYTES + head.length + 2 * (before.length + after.length);
}
