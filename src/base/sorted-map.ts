/** The most entries of one chunk. */
const CHUNK = 128;

interface Chunk<Value> {
  readonly keys: readonly string[];
  readonly values: readonly Value[];
}

const NO_CHUNK: Chunk<never> = { keys: [], values: [] };

function chunksOf<Value>(sorted: readonly (readonly [string, Value])[]): readonly Chunk<Value>[] {
  const chunks: Chunk<Value>[] = [];
  for (let first = 0; first < sorted.length; first += CHUNK) {
    const some = sorted.slice(first, first + CHUNK);
    chunks.push({ keys: some.map(([key]) => key), values: some.map(([, value]) => value) });
  }
  return chunks;
}

/** Less than 0: the left key comes first. 0: they are the same key. */
export type KeyOrder = (left: string, right: string) => number;

function compareUnits(left: string, right: string): number {
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/**
 * A map in the order of its keys that never changes: a change makes another one, which shares all but one chunk with it. So a
 * change costs about the same with few entries and with many.
 */
export class SortedMap<Value> {
  readonly size: number;
  readonly #chunks: readonly Chunk<Value>[];
  readonly #compare: KeyOrder;

  private constructor(chunks: readonly Chunk<Value>[], size: number, compare: KeyOrder) {
    this.#chunks = chunks;
    this.size = size;
    this.#compare = compare;
  }

  /** @param compare - orders the keys as texts, a prefix before longer keys. Default: as `<` does. */
  static of<Value>(entries: ReadonlyMap<string, Value>, compare: KeyOrder = compareUnits): SortedMap<Value> {
    const sorted = [...entries].sort(([left], [right]) => compare(left, right));
    return new SortedMap(chunksOf(sorted), sorted.length, compare);
  }

  /** The value of the last key; undefined: the map is empty. */
  get last(): Value | undefined {
    return this.#chunks.at(-1)?.values.at(-1);
  }

  get(key: string): Value | undefined {
    const { chunk, index, found } = this.#find(key);
    return found ? chunk?.values[index] : undefined;
  }

  has(key: string): boolean {
    return this.#find(key).found;
  }

  with(key: string, value: Value): SortedMap<Value> {
    const { position, chunk, index, found } = this.#find(key);
    const replaced = found ? 1 : 0;
    const keys = chunk?.keys.toSpliced(index, replaced, key) ?? [key];
    const values = chunk?.values.toSpliced(index, replaced, value) ?? [value];
    const half = CHUNK / 2;
    const parts =
      keys.length <= CHUNK
        ? [{ keys, values }]
        : [
            { keys: keys.slice(0, half), values: values.slice(0, half) },
            { keys: keys.slice(half), values: values.slice(half) },
          ];
    return new SortedMap(this.#chunks.toSpliced(position, 1, ...parts), this.size + 1 - replaced, this.#compare);
  }

  /** With many changes at once, each at about the cost of an entry. @param changes - undefined: there is no such key afterwards. */
  withAll(changes: ReadonlyMap<string, Value | undefined>): SortedMap<Value> {
    if (changes.size === 0) return this;
    const sorted = [...changes].sort(([left], [right]) => this.#compare(left, right));
    const chunks: Chunk<Value>[] = [];
    let size = this.size;
    let copied = 0;
    for (let next = 0; next < sorted.length; ) {
      const { position } = this.#find(sorted[next]?.[0] ?? "");
      for (; copied < position; copied++) chunks.push(this.#chunks[copied] ?? NO_CHUNK);
      const behind = this.#chunks[position + 1]?.keys[0];
      const first = next;
      while (next < sorted.length && (behind === undefined || this.#compare(sorted[next]?.[0] ?? "", behind) < 0))
        next++;
      const before = this.#chunks[position] ?? NO_CHUNK;
      const merged = this.#merged(before, sorted.slice(first, next));
      size += merged.length - before.keys.length;
      chunks.push(...chunksOf(merged));
      copied = position + 1;
    }
    for (; copied < this.#chunks.length; copied++) chunks.push(this.#chunks[copied] ?? NO_CHUNK);
    return new SortedMap(chunks, size, this.#compare);
  }

  /** The entries of a chunk with changes of it, both in order. */
  #merged(
    { keys, values }: Chunk<Value>,
    changes: readonly (readonly [string, Value | undefined])[],
  ): readonly (readonly [string, Value])[] {
    const merged: (readonly [string, Value])[] = [];
    let index = 0;
    const keepUpTo = (limit: string | undefined): void => {
      for (; index < keys.length; index++) {
        const [key, value] = [keys[index], values[index]];
        if (key === undefined || value === undefined) continue;
        const order = limit === undefined ? -1 : this.#compare(key, limit);
        if (order > 0) return;
        if (order < 0) merged.push([key, value]);
      }
    };
    for (const [key, value] of changes) {
      keepUpTo(key);
      if (value !== undefined) merged.push([key, value]);
    }
    keepUpTo(undefined);
    return merged;
  }

  without(key: string): SortedMap<Value> {
    const { position, chunk, index, found } = this.#find(key);
    if (chunk === undefined || !found) return this;
    const left = { keys: chunk.keys.toSpliced(index, 1), values: chunk.values.toSpliced(index, 1) };
    const parts = left.keys.length === 0 ? [] : [left];
    return new SortedMap(this.#chunks.toSpliced(position, 1, ...parts), this.size - 1, this.#compare);
  }

  *[Symbol.iterator](): Generator<readonly [string, Value]> {
    yield* this.under("");
  }

  *keys(): Generator<string> {
    for (const [key] of this) yield key;
  }

  *values(): Generator<Value> {
    for (const [, value] of this) yield value;
  }

  /** The entries whose keys begin with `prefix`. */
  *under(prefix: string): Generator<readonly [string, Value]> {
    const { position: first, index: start } = this.#find(prefix);
    for (let position = first; position < this.#chunks.length; position++) {
      const { keys, values } = this.#chunks[position] ?? { keys: [], values: [] };
      for (let index = position === first ? start : 0; index < keys.length; index++) {
        const [key, value] = [keys[index], values[index]];
        if (key === undefined || value === undefined || !key.startsWith(prefix)) return;
        yield [key, value];
      }
    }
  }

  /** Where a key is, or would be. */
  #find(key: string): {
    readonly position: number;
    readonly chunk: Chunk<Value> | undefined;
    readonly index: number;
    readonly found: boolean;
  } {
    // The last chunk that does not begin behind it.
    const behind = firstWhere(
      this.#chunks.length,
      (position) => this.#compare(this.#chunks[position]?.keys[0] ?? "", key) > 0,
    );
    const position = Math.max(0, behind - 1);
    const chunk = this.#chunks[position];
    const keys = chunk?.keys ?? [];
    const index = firstWhere(keys.length, (place) => this.#compare(keys[place] ?? "", key) >= 0);
    return { position, chunk, index, found: keys[index] === key };
  }
}

/** The first of `length` numbers of which something holds, as it then does of all behind it; `length`: it holds of none. */
function firstWhere(length: number, holds: (index: number) => boolean): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
