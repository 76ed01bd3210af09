import type { Storage } from "../../src/storage/storage.js";

/** `inner`, but for what is given: for tests that see, delay or fail what it is asked for. */
export function storageWith(inner: Storage, own: Partial<Storage>): Storage {
  return {
    limits: inner.limits,
    read: (...given) => inner.read(...given),
    pages: (...given) => inner.pages(...given),
    commit: (...given) => inner.commit(...given),
    changes: (...given) => inner.changes(...given),
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
    ...own,
  };
}
