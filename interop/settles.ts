const PATIENCE_MS = 30_000;
const LOOK_AGAIN_MS = 20;

/**
 * Resolves to what `look` returns once it no longer throws.
 * @throws what it threw last, when that does not happen `withinMs` (default: half a minute).
 */
export async function settles<Value>(
  look: () => Value | Promise<Value>,
  what: string,
  withinMs: number = PATIENCE_MS,
): Promise<Value> {
  const end = performance.now() + withinMs;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (performance.now() > end) {
        const text = error instanceof Error ? error.message : String(error);
        throw new Error(`within ${withinMs} ms it did not happen that ${what}: ${text}`, { cause: error });
      }
      await pause(LOOK_AGAIN_MS);
    }
  }
}

/** For proof that something does not happen, and for outages that must last. */
export function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

/** @throws {Error} for `undefined`. */
export function present<Value>(value: Value | undefined, what: string): Value {
  if (value === undefined) throw new Error(`there is no ${what}`);
  return value;
}
