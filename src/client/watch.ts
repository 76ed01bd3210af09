import type { ReadAnswer, ReadOptions } from "./consul-client.js";

export interface WatchOptions {
  /** Ends the watch, quietly. Default: it goes on until its reader leaves. */
  readonly signal?: AbortSignal;
  /** Bound on each single wait, in milliseconds. Default: the server's. */
  readonly waitMs?: number;
}

/**
 * Yields the present answer, then a new one each time the index has moved. No newest state is skipped; states that were
 * replaced while the consumer was busy may be. An index that went backwards, as after a restore, starts the watch over.
 *
 * ```ts
 * for await (const { value } of watch((options) => client.peerings.list(options), { signal })) console.log(value);
 * ```
 *
 * @throws whatever `read` rejects with.
 */
export async function* watch<Value>(
  read: (options: ReadOptions) => Promise<ReadAnswer<Value>>,
  { signal, waitMs }: WatchOptions = {},
): AsyncGenerator<ReadAnswer<Value>, void, undefined> {
  const isOver = (): boolean => signal?.aborted === true;
  let index: bigint | undefined;
  while (!isOver()) {
    let answer: ReadAnswer<Value>;
    try {
      answer = await read({
        ...(signal !== undefined && { signal }),
        ...(index !== undefined && { index }),
        ...(index !== undefined && waitMs !== undefined && { waitMs }),
      });
    } catch (error) {
      if (isOver()) return;
      throw error;
    }
    // Index 0 would be answered at once, for ever.
    const next = answer.index === undefined || answer.index < 1n ? 1n : answer.index;
    if (index !== undefined && next < index) {
      index = undefined;
      continue;
    }
    const moved = next !== index;
    index = next;
    if (moved) yield answer;
  }
}
