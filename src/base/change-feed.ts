import type { Steps } from "./steps.js";

/** The value of a key between two of its changes, for readers that have not seen the second one. */
interface Past<Version> {
  readonly version: Version;
  /** The change that ended it. */
  readonly until: number;
  /** How many cursors are at a moment at which it was so. */
  cursors: number;
}

interface Change<Version> {
  readonly key: string;
  /** The last one of the key. */
  sequence: number;
  /** Its former values that some cursor still needs, the oldest first. */
  readonly past: Past<Version>[];
}

/** The moment up to which a follower knows everything: all that it costs the feed. */
export interface Cursor {
  moment: number;
}

/** A change that a follower has not seen: the value before it. Its cursor is past the change already, so it can read the new value. */
export interface Untold<Version> {
  readonly key: string;
  readonly before: Version;
}

/** Changes looked at in one step. */
const LOOKED_AT_BATCH = 5_000;

/**
 * Changed keys, for followers that each read at their own pace. A follower is at a moment. The feed keeps the values of keys at
 * those moments, once for all followers, and no values in between. So a follower that never reads costs no more
 * than the changes since its moment, and a second follower at the same moment costs almost nothing.
 */
export class ChangeFeed<Version> {
  /** By key, the keys that have changed since the moment of some cursor. */
  readonly #changes = new Map<string, Change<Version>>();
  /** In order of time; undefined: the key has changed again, or all know of it. */
  #log: { readonly sequence: number; change: Change<Version> | undefined }[] = [];
  #sequence = 0;
  #cursors = 0;

  get followers(): number {
    return this.#cursors;
  }

  /** For tests: the keys that changed, and their former values. */
  get size(): { readonly changes: number; readonly versions: number } {
    let versions = 0;
    for (const { past } of this.#changes.values()) versions += past.length;
    return { changes: this.#changes.size, versions };
  }

  /** A follower that knows how everything is now. To be given to {@link leave} at last. */
  join(): Cursor {
    this.#cursors++;
    return { moment: this.#sequence };
  }

  leave(cursor: Cursor): void {
    for (let index = this.#firstAfter(cursor.moment); index < this.#log.length; index++) {
      const change = this.#log[index]?.change;
      if (change !== undefined) this.#pass(change, cursor);
    }
    this.#cursors--;
    this.#compact();
  }

  /** Whether some follower has the current value of `key`: then the value is needed once it changes. */
  isKnown(key: string): boolean {
    return this.#upToDate(this.#changes.get(key)) > 0;
  }

  /** @param before - what `key` was until now; needed where {@link isKnown} says so. */
  changed(key: string, before: Version): void {
    if (this.#cursors === 0) return;
    const sequence = ++this.#sequence;
    let change = this.#changes.get(key);
    const cursors = this.#upToDate(change);
    if (change === undefined) {
      change = { key, sequence, past: [] };
      this.#changes.set(key, change);
    } else this.#takeOut(change);
    if (cursors > 0) change.past.push({ version: before, until: sequence, cursors });
    change.sequence = sequence;
    this.#log.push({ sequence, change });
    this.#compact();
  }

  /** Moves a cursor to now, and returns the changes in between. Nothing may change until all steps are done. */
  *catchUp(cursor: Cursor): Steps<readonly Untold<Version>[]> {
    const untold: Untold<Version>[] = [];
    const first = this.#firstAfter(cursor.moment);
    for (let index = first; index < this.#log.length; index++) {
      if (index % LOOKED_AT_BATCH === LOOKED_AT_BATCH - 1) yield;
      const change = this.#log[index]?.change;
      const past = change && this.#pass(change, cursor);
      if (change !== undefined && past !== undefined) untold.push({ key: change.key, before: past.version });
    }
    cursor.moment = this.#sequence;
    this.#compact();
    return untold;
  }

  /** The value of a key at the moment of a cursor; undefined: the present value. */
  at(cursor: Cursor, key: string): { readonly version: Version } | undefined {
    return pastAt(this.#changes.get(key), cursor);
  }

  /** How many cursors know how a key is now. */
  #upToDate(change: Change<Version> | undefined): number {
    let behind = 0;
    for (const { cursors } of change?.past ?? []) behind += cursors;
    return this.#cursors - behind;
  }

  /** A cursor needs no past of this key any more. Returns the one it needed. */
  #pass(change: Change<Version>, cursor: Cursor): Past<Version> | undefined {
    const past = pastAt(change, cursor);
    if (past === undefined) return undefined;
    past.cursors--;
    if (past.cursors === 0) change.past.splice(change.past.indexOf(past), 1);
    if (change.past.length === 0) {
      this.#takeOut(change);
      this.#changes.delete(change.key);
    }
    return past;
  }

  #takeOut({ sequence }: Change<Version>): void {
    const entry = this.#log[this.#firstAfter(sequence - 1)];
    if (entry !== undefined) entry.change = undefined;
  }

  /** Keeps the empty places no more than the others, so that looking for the next change costs little on average. */
  #compact(): void {
    if (this.#log.length <= 2 * this.#changes.size + 16) return;
    this.#log = this.#log.filter(({ change }) => change !== undefined);
  }

  /** Where in the log that begins which came after a moment. */
  #firstAfter(moment: number): number {
    let low = 0;
    let high = this.#log.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#log[middle]?.sequence ?? 0) <= moment) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function pastAt<Version>(change: Change<Version> | undefined, { moment }: Cursor): Past<Version> | undefined {
  return change?.past.find(({ until }) => moment < until);
}
