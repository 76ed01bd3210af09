import type { Entry, Storage } from "../../src/storage/storage.js";

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

/** `inner`, but the values of some entries are not what was stored, as their checksums show. */
export function storageWithDamage(inner: Storage, isDamaged: (entry: Entry) => boolean): Storage {
  return storageWith(inner, {
    pages: async function* (...given) {
      for await (const page of inner.pages(...given)) {
        const damaged = page.entries.filter(isDamaged).map(({ key, revision }) => ({ key, revision }));
        const entries = page.entries.filter((entry) => !isDamaged(entry));
        yield { ...page, entries, damaged: [...page.damaged, ...damaged] };
      }
    },
  });
}
