import type { Socket } from "node:net";
import type { Authorizer } from "../access/authorizer.js";
import type { Clock } from "../base/environment.js";
import type { PeeringHost } from "../host/host.js";
import { bytesOf, type Gathering } from "./answer-body.js";
import type { CallLimits } from "./call-limits.js";
import type { HttpRequest, RepeatedRequests, Repeater, UnreadAnswer } from "./messages.js";
import type { RequestGuard } from "./request-guard.js";
import { ReadTime } from "./send.js";

/** The data of a host that an answer may be made of. Each is looked at as a whole. */
export type AnswerSource = "catalog" | "config-entries" | "imports" | "peerings" | "roots" | "streams";

/** Those of a read of services, nodes and checks, local or imported. */
export const RECORDS: readonly AnswerSource[] = ["catalog", "config-entries", "imports", "peerings"];

/** Other ones after each change of something that an answer tells. */
export type Marks = readonly (bigint | number)[];

/** All data that one answer is made of, where that is less than the sources of its operation. */
export interface Basis {
  /** Those of them that it may tell anything of. */
  readonly sources: readonly AnswerSource[];
  /** Of all else that it is made of, as of before anything was read. */
  readonly marks: Marks;
  /** The same, as of now. */
  readonly marksNow: () => Marks;
}

export function basisOf(sources: readonly AnswerSource[], marksNow: () => Marks): Basis {
  return { sources, marks: marksNow(), marksNow };
}

/** Everything that the answers of an operation depend on, at one moment. */
export interface Standing {
  readonly sources: readonly AnswerSource[];
  readonly counts: readonly number[];
  /** Of the data that is not in the sources. */
  readonly basis: Basis | undefined;
  /** Undefined: it tells nothing of streams. */
  readonly streams: number | undefined;
  readonly rights: number;
  readonly defaultPolicy: string;
  readonly isLeader: boolean;
  readonly leaderAddress: string;
}

/** The head of an answer as it goes over a connection of HTTP/1.1. */
export interface WrittenHead {
  readonly status: number;
  readonly statusText: string;
  readonly headers: Iterable<readonly [string, string]>;
  /** The headers do not tell how long the body is: each of its pieces does. */
  readonly isChunked: boolean;
}

interface Kept {
  readonly table: AnswerTable;
  readonly head: string;
  readonly standing: Standing;
  /** All changes that it has been compared with. */
  checkedAt: number;
  /** Before the text of the date, and all behind it up to the end of the first piece of the body. */
  readonly before: string;
  readonly after: Buffer;
  /** As it is given: the head, with the date of a second, and the first piece of the body, then the other pieces. */
  pieces: readonly Buffer[];
  second: number;
  readonly cost: number;
}

/** The answers of one server. */
interface AnswerTable {
  readonly kept: Map<string, Kept>;
  /** The requests whose answers are being gathered. */
  readonly gathered: Set<string>;
}

interface Note {
  readonly table: AnswerTable;
  readonly head: string;
  readonly keepAliveMs: number;
}

export interface KeptAnswersOptions {
  /** Bytes of all of them, and of the requests that they answer. */
  readonly maxBytes: number;
  /** Longer ones are not kept. */
  readonly maxAnswerBytes: number;
  /** How long a client may take to read one. */
  readonly writeTimeoutMs: number;
}

/** About the cost of what is noted of an answer beside its bytes. */
const NOTED_BYTES = 600;
/** One in so many bytes is for answers that are being gathered. */
const GATHERED_PART = 8;
const LAST_CHUNK = Buffer.from("0\r\n\r\n", "latin1");

/**
 * Answers that are kept while nothing that they were made of has changed, by the very bytes of their requests: a client that asks
 * the same again, on any connection, is answered without reading the request again.
 *
 * An answer is made again after any change of what it is made of, or of the rights of any token; so none is older than the last write
 * that it tells of.
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
  /** Of those that are being gathered. */
  #gatheredBytes = 0;
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
    return { sources, counts, basis: undefined, streams, rights, defaultPolicy, isLeader, leaderAddress };
  }

  /** The same for an answer that is made of less. @param standing - of at least the sources of the basis. */
  narrowed(standing: Standing, basis: Basis | undefined): Standing {
    if (basis === undefined) return standing;
    const counts = basis.sources.map((source) => standing.counts[standing.sources.indexOf(source)] ?? Number.NaN);
    return { ...standing, sources: basis.sources, counts, basis };
  }

  /** Keeps a short answer to a request, if that can be asked again and nothing has changed since `standing`. */
  keep(request: HttpRequest, standing: Standing, head: WrittenHead, body: Buffer): void {
    const note = this.#notes.get(request);
    if (note !== undefined && this.#holds(standing)) this.#keep(note, standing, head, [body]);
  }

  /**
   * Begins to keep a long answer as it is sent. It is kept if nothing has changed since `standing` when all of it was.
   * @returns undefined: it cannot be asked for again, or is being gathered for another call.
   */
  gather(request: HttpRequest, standing: Standing, head: WrittenHead): Gathering | undefined {
    const note = this.#notes.get(request);
    if (note === undefined || note.table.gathered.has(note.head) || !this.#holds(standing)) return undefined;
    const { gathered } = note.table;
    let pieces: Buffer[] | undefined = [];
    let bytes = 0;
    const end = (): readonly Buffer[] | undefined => {
      const added = pieces;
      if (added === undefined) return undefined;
      pieces = undefined;
      gathered.delete(note.head);
      this.#gatheredBytes -= bytes;
      return added;
    };
    gathered.add(note.head);
    return {
      add: (piece) => {
        if (pieces === undefined) return;
        pieces.push(head.isChunked ? chunkOf(piece) : piece);
        bytes += piece.length;
        this.#gatheredBytes += piece.length;
        if (bytes > this.#options.maxAnswerBytes || this.#gatheredBytes > this.#mostGathered) end();
      },
      done: () => {
        const added = end();
        if (added === undefined || !this.#holds(standing)) return;
        this.#keep(note, standing, head, head.isChunked ? [...added, LAST_CHUNK] : added);
      },
      giveUp: () => void end(),
    };
  }

  get #mostGathered(): number {
    return this.#options.maxBytes / GATHERED_PART;
  }

  #keep(note: Note, standing: Standing, written: WrittenHead, pieces: readonly Buffer[]): void {
    const { table, head, keepAliveMs } = note;
    let before = `HTTP/1.1 ${written.status} ${written.statusText}\r\n`;
    for (const [name, value] of written.headers) before += `${name}: ${value}\r\n`;
    before += "Date: ";
    let end = "\r\nConnection: keep-alive\r\n";
    if (keepAliveMs > 0) end += `Keep-Alive: timeout=${Math.floor(keepAliveMs / 1_000)}\r\n`;
    if (written.isChunked) end += "Transfer-Encoding: chunked\r\n";
    const others = pieces.slice(1);
    const after = Buffer.concat([Buffer.from(`${end}\r\n`, "latin1"), ...pieces.slice(0, 1)]);
    const kept: Kept = {
      table,
      head,
      standing,
      checkedAt: this.#changed,
      before,
      after,
      pieces: [after, ...others],
      second: Number.NaN,
      // With the bytes that are put together each second.
      cost: NOTED_BYTES + head.length + 2 * (before.length + after.length) + bytesOf(others),
    };
    const former = table.kept.get(head);
    if (former !== undefined) this.#drop(former);
    table.kept.set(head, kept);
    this.#all.add(kept);
    this.#bytes += kept.cost;
    for (const oldest of this.#all) {
      if (this.#bytes <= this.#options.maxBytes - this.#mostGathered) break;
      if (this.#isCurrent(oldest)) {
        this.#host.incidents.report(
          "kept-answer-dropped",
          "kept answers take all their bytes: one that was not asked for is dropped",
          { limit: this.#options.maxBytes },
        );
      }
      this.#drop(oldest);
    }
  }

  /** The requests of one server, whose judgement of a request may differ from that of another one. */
  requests({ keepAliveMs }: { readonly keepAliveMs: number }): RepeatedRequests {
    const table: AnswerTable = { kept: new Map(), gathered: new Set() };
    return {
      note: (request, head) => void this.#notes.set(request, { table, head, keepAliveMs }),
      answer: (head, socket) => this.#find(table, head, socket),
      unread: (socket) => this.#unread(socket),
    };
  }

  #unread(socket: Socket): UnreadAnswer {
    const allowance = this.#limits.allowance({ socket }, socket);
    const time = new ReadTime(this.#options.writeTimeoutMs, this.#clock);
    return {
      wait: (bytes) => {
        allowance.made(bytes);
        const taken = time.limit(socket, allowance);
        return () => {
          taken();
          allowance.sent(bytes);
        };
      },
      end: () => allowance.end(),
    };
  }

  #find(table: AnswerTable, head: string, socket: Socket): readonly Buffer[] | undefined {
    const kept = table.kept.get(head);
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
      const begin = Buffer.from(kept.before + new Date(wall).toUTCString(), "latin1");
      // Not in place: the system may be sending the former one.
      kept.pieces = [Buffer.concat([begin, kept.after]), ...kept.pieces.slice(1)];
    }
    return kept.pieces;
  }

  #isCurrent(kept: Kept): boolean {
    const { standing } = kept;
    if (kept.checkedAt === this.#changed) return this.#isAsBefore(standing);
    kept.checkedAt = this.#changed;
    return this.#holds(standing);
  }

  #holds(standing: Standing): boolean {
    const { sources, counts, basis } = standing;
    for (let place = 0; place < sources.length; place++) {
      const source = sources[place];
      if (source !== undefined && this.#changes[source] !== counts[place]) return false;
    }
    if (basis !== undefined && !isSame(basis.marks, basis.marksNow())) return false;
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
    kept.table.kept.delete(kept.head);
    this.#bytes -= kept.cost;
  }
}

function isSame(marks: Marks, others: Marks): boolean {
  return marks.length === others.length && marks.every((mark, place) => mark === others[place]);
}

/** A piece of a body whose length is not told before (RFC 9112, 7.1). */
function chunkOf(piece: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`, "latin1"), piece, Buffer.from("\r\n")]);
}
