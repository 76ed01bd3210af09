import { compareUtf8 } from "../base/byte-order.js";
import type { Incidents } from "../base/incidents.js";
import { pauses } from "../base/turns.js";
import { type Listing, recordsOf } from "../model/listing.js";
import { type ElementTexts, type Json, KeptList, LazyList, LazyMap } from "./json.js";

/** A text that is kept by itself is about so long: of a list in which one element has changed, so much is written again. */
const RUN_BYTES = 16 * 1_024;
/** Shorter ones are joined with those behind them. */
const LEAST_RUN_BYTES = RUN_BYTES / 4;
/** Lists of fewer elements are written each time. */
const FEW = 32;
/** A list that was asked for among so many last ones keeps its texts when others want their place. */
const LATELY = 16;
const MOST_LISTS = 1_024;
/** Neighbours that are compared between two looks at the clock. */
const COMPARED = 100;
/** Of a reference to the record of an element. */
const REFERENCE_BYTES = 8;

/** Elements that follow one another, and what is written of them. */
interface Run {
  readonly records: readonly object[];
  readonly text: Buffer;
}

interface ListTexts {
  /** By the record of the first element. */
  readonly runs: Map<object, Run>;
  /** Changes with everything beside the records that the texts depend on. */
  basis: bigint;
  bytes: number;
  /** Of a map: the records of the last one, which were in the order of their keys. */
  inOrder: readonly object[];
  /** When it was asked for last, in questions. */
  asked: number;
}

/**
 * The texts of long lists, kept for later answers that show the same records: of a list of which one element has changed, one piece
 * is written again. Texts belong to records, so it does not matter who asks: a text shows what the answer would.
 */
export class KeptTexts {
  readonly #most: number;
  readonly #incidents: Incidents;
  /** By form, the one that was asked for last comes last. */
  readonly #lists = new Map<string, ListTexts>();
  #asked = 0;
  #bytes = 0;

  /** @param most - bytes of texts. */
  constructor(most: number, incidents: Incidents) {
    this.#most = most;
    this.#incidents = incidents;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /**
   * A list as an answer shows it. Its texts are kept where its elements are those of records that do not change.
   * @param form - names the question and the way in which its elements are written.
   * @param json - must tell the same of the same record, as long as `basis` is the same.
   */
  list<Item>(form: string, items: Listing<Item>, json: (item: Item) => Json, basis = 0n): Json {
    const records = recordsOf(items);
    if (records === undefined || records.length < FEW) return LazyList.of(items, json);
    return new KeptList(items.length, elementsOf(items, json), this.#texts(form, records, basis));
  }

  /** As {@link list}, a map. @param items - in byte order of their keys; others are put in it, and not kept. */
  async map<Item>(
    form: string,
    items: Listing<Item>,
    keyOf: (item: Item) => string,
    json: (item: Item) => Json,
  ): Promise<Json> {
    const records = recordsOf(items);
    if (records === undefined || records.length < FEW || !(await this.#isSorted(form, records, items, keyOf))) {
      return LazyMap.of(
        Array.from(items, (item) => [keyOf(item), item] as const),
        json,
      );
    }
    const keyAt = (index: number): string => {
      const item = items.at(index);
      return item === undefined ? "" : keyOf(item);
    };
    const texts = this.#texts(form, records, 0n);
    const list = this.#lists.get(form);
    if (list !== undefined) list.inOrder = records;
    return new KeptList(items.length, elementsOf(items, json), texts, keyAt);
  }

  /** Keys of neighbours that were neighbours in the last list of the form are not compared again. */
  async #isSorted<Item>(
    form: string,
    records: readonly object[],
    items: Listing<Item>,
    keyOf: (item: Item) => string,
  ): Promise<boolean> {
    const before = this.#lists.get(form)?.inOrder ?? [];
    const pause = pauses();
    for (let index = 1; index < records.length; index++) {
      const pausing = index % COMPARED === 0 ? pause() : undefined;
      if (pausing !== undefined) await pausing;
      if (records[index] === before[index] && records[index - 1] === before[index - 1]) continue;
      const [left, right] = [items.at(index - 1), items.at(index)];
      if (left === undefined || right === undefined || compareUtf8(keyOf(left), keyOf(right)) >= 0) return false;
    }
    return true;
  }

  #texts(form: string, records: readonly object[], basis: bigint): ElementTexts {
    if (this.#lists.get(form)?.basis !== basis) this.#drop(form);
    const list: ListTexts = this.#lists.get(form) ?? { runs: new Map(), basis, bytes: 0, inOrder: [], asked: 0 };
    this.#lists.delete(form);
    this.#lists.set(form, list);
    list.asked = ++this.#asked;
    const [oldest] = this.#lists.keys();
    if (this.#lists.size > MOST_LISTS && oldest !== undefined) this.#drop(oldest);
    const used = new Map<object, Run>();
    return {
      at: (index) => {
        const first = records[index];
        const run = first === undefined ? undefined : list.runs.get(first);
        if (first === undefined || run === undefined || !isAt(run, records, index)) return undefined;
        used.set(first, run);
        return { text: run.text, end: index + run.records.length };
      },
      isWhole: (end, bytes) => {
        if (bytes >= RUN_BYTES) return true;
        const next = records[end];
        return bytes >= LEAST_RUN_BYTES && next !== undefined && list.runs.has(next);
      },
      keep: (start, end, text) => {
        const run = { records: records.slice(start, end), text };
        const [first] = run.records;
        if (first === undefined || this.#lists.get(form) !== list) return;
        const former = list.runs.get(first);
        if (former !== undefined) this.#count(list, former, -1);
        list.runs.delete(first);
        if (!this.#makeRoom(form, bytesOf(run))) return;
        list.runs.set(first, run);
        this.#count(list, run, 1);
        used.set(first, run);
      },
      over: () => {
        if (this.#lists.get(form) !== list) return;
        // Those of elements that are not there any more, or begin elsewhere.
        for (const [first, run] of list.runs) {
          if (used.get(first) === run) continue;
          list.runs.delete(first);
          this.#count(list, run, -1);
        }
      },
    };
  }

  /** Drops the texts of lists that nobody has asked for lately, until there is room; false: there is none. */
  #makeRoom(form: string, bytes: number): boolean {
    for (const [name, { asked }] of this.#lists) {
      if (this.#bytes + bytes <= this.#most) return true;
      if (name === form || this.#asked - asked < LATELY) break;
      this.#drop(name);
    }
    if (this.#bytes + bytes <= this.#most) return true;
    this.#incidents.report(
      "kept-texts-full",
      "long lists are written each time: they do not fit in the memory for them",
      {
        limit: this.#most,
      },
    );
    return false;
  }

  #drop(form: string): void {
    this.#bytes -= this.#lists.get(form)?.bytes ?? 0;
    this.#lists.delete(form);
  }

  #count(list: ListTexts, run: Run, sign: 1 | -1): void {
    const bytes = sign * bytesOf(run);
    list.bytes += bytes;
    this.#bytes += bytes;
  }
}

/** Each element as it is written, by its place. */
function elementsOf<Item>(items: Listing<Item>, json: (item: Item) => Json): (index: number) => Json {
  return (index) => {
    const item = items.at(index);
    return item === undefined ? null : json(item);
  };
}

function bytesOf({ records, text }: Run): number {
  return text.length + REFERENCE_BYTES * records.length;
}

function isAt(run: Run, records: readonly object[], index: number): boolean {
  for (let place = 0; place < run.records.length; place++) {
    if (run.records[place] !== records[index + place]) return false;
  }
  return true;
}
