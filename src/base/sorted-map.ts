/** The most entries of one chunk. */
const CHUNK = 128;

interface Chunk<Value> {
  readonly keys: readonly string[];
  readonly values: readonly Value[];
}

/** Of a map with one entry. Most maps of a catalog are such, and lists would take four times as much memory. */
class Entry<Value> {
  readonly key: string;
  readonly value: Value;

  constructor(key: string, value: Value) {
    this.key = key;
    this.value = value;
  }
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
  readonly #content: readonly Chunk<Value>[] | Entry<Value>;
  readonly #compare: KeyOrder;

  private constructor(content: readonly Chunk<Value>[] | Entry<Value>, size: number, compare: KeyOrder) {
    this.#content = content;
    this.size = size;
    this.#compare = compare;
  }

  static #made<Value>(chunks: readonly Chunk<Value>[], size: number, compare: KeyOrder): SortedMap<Value> {
    const [key, value] = size === 1 ? [chunks[0]?.keys[0], chunks[0]?.values[0]] : [];
    return new SortedMap(key === undefined || value === undefined ? chunks : new Entry(key, value), size, compare);
  }

  get #chunks(): readonly Chunk<Value>[] {
    const content = this.#content;
    return content instanceof Entry ? [{ keys: [content.key], values: [content.value] }] : content;
  }

  /** @param compare - orders the keys as texts, a prefix before longer keys. Default: as `<` does. */
  static of<Value>(entries: ReadonlyMap<string, Value>, compare: KeyOrder = compareUnits): SortedMap<Value> {
    const sorted = [...entries].sort(([left], [right]) => compare(left, right));
    return SortedMap.#made(chunksOf(sorted), sorted.length, compare);
  }

  /** The value of the last key; undefined: the map is empty. */
  get last(): Value | undefined {
    const content = this.#content;
    return content instanceof Entry ? content.value : content.at(-1)?.values.at(-1);
  }

  get(key: string): Value | undefined {
    const content = this.#content;
    if (content instanceof Entry) return content.key === key ? content.value : undefined;
    if (content.length === 0) return undefined;
    const { chunk, index, found } = this.#find(content, key);
    return found ? chunk?.values[index] : undefined;
  }

  has(key: string): boolean {
    const content = this.#content;
    return content instanceof Entry ? content.key === key : this.#find(this.#chunks, key).found;
  }

  with(key: string, value: Value): SortedMap<Value> {
    const content = this.#content;
    const replaces = content instanceof Entry && content.key === key;
    if ((this.size === 0 || replaces) && value !== undefined) {
      return new SortedMap(new Entry(key, value), 1, this.#compare);
    }
    const chunks = this.#chunks;
    const { position, chunk, index, found } = this.#find(chunks, key);
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
    return SortedMap.#made(chunks.toSpliced(position, 1, ...parts), this.size + 1 - replaced, this.#compare);
  }

  /** With many changes at once, each at about the cost of an entry. @param changes - undefined: there is no such key afterwards. */
  withAll(changes: ReadonlyMap<string, Value | undefined>): SortedMap<Value> {
    if (changes.size === 0) return this;
    const sorted = [...changes].sort(([left], [right]) => this.#compare(left, right));
    const former = this.#chunks;
    const chunks: Chunk<Value>[] = [];
    let size = this.size;
    let copied = 0;
    for (let next = 0; next < sorted.length; ) {
      const { position } = this.#find(former, sorted[next]?.[0] ?? "");
      for (; copied < position; copied++) chunks.push(former[copied] ?? NO_CHUNK);
      const behind = former[position + 1]?.keys[0];
      const first = next;
      while (next < sorted.length && (behind === undefined || this.#compare(sorted[next]?.[0] ?? "", behind) < 0))
        next++;
      const before = former[position] ?? NO_CHUNK;
      const merged = this.#merged(before, sorted.slice(first, next));
      size += merged.length - before.keys.length;
      chunks.push(...chunksOf(merged));
      copied = position + 1;
    }
    for (; copied < former.length; copied++) chunks.push(former[copied] ?? NO_CHUNK);
    return SortedMap.#made(chunks, size, this.#compare);
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
    const chunks = this.#chunks;
    const { position, chunk, index, found } = this.#find(chunks, key);
    if (chunk === undefined || !found) return this;
    const left = { keys: chunk.keys.toSpliced(index, 1), values: chunk.values.toSpliced(index, 1) };
    const parts = left.keys.length === 0 ? [] : [left];
    return SortedMap.#made(chunks.toSpliced(position, 1, ...parts), this.size - 1, this.#compare);
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
    const content = this.#content;
    if (content instanceof Entry) {
      if (content.key.startsWith(prefix)) yield [content.key, content.value];
      return;
    }
    const { position: first, index: start } = this.#find(content, prefix);
    for (let position = first; position < content.length; position++) {
      const { keys, values } = content[position] ?? NO_CHUNK;
      for (let index = position === first ? start : 0; index < keys.length; index++) {
        const [key, value] = [keys[index], values[index]];
        if (key === undefined || value === undefined || !key.startsWith(prefix)) return;
        yield [key, value];
      }
    }
  }

  /** Where a key is, or would be. */
  #find(
    chunks: readonly Chunk<Value>[],
    key: string,
  ): {
    readonly position: number;
    readonly chunk: Chunk<Value> | undefined;
    readonly index: number;
    readonly found: boolean;
  } {
    // The last chunk that does not begin behind it.
    const behind = firstWhere(chunks.length, (position) => this.#compare(chunks[position]?.keys[0] ?? "", key) > 0);
    const position = Math.max(0, behind - 1);
    const chunk = chunks[position];
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
