import { errorText, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import type { Storage } from "../storage/storage.js";

const NOT_READ = "the storage could not be read";

/**
 * `storage`, whose failures are counted and logged. The caller that gets the error, such as a peer, often cannot do anything about
 * a full disk; the operator can. Disposing of it disposes of `storage`.
 */
export function reportedStorage(storage: Storage, incidents: Incidents): Storage {
  // Observed on the side, so that the caller gets its promise unchanged.
  const observed = <Result>(
    result: Promise<Result>,
    kind: string,
    message: string,
    signal?: AbortSignal,
  ): Promise<Result> => {
    result.catch((error: unknown) => {
      const code = error instanceof PeeringError ? error.code : undefined;
      // Another writer was faster, the host stops, or the reader has gone: the storage is well.
      if (code === "conflict" || code === "closed" || signal?.aborted === true) return;
      const isTooLarge = code === "resource-exhausted";
      const [what, text] = isTooLarge
        ? ["storage-limit", "a commit was over the limits of the storage"]
        : [kind, message];
      incidents.report(what, text, { code, error: errorText(error) });
    });
    return result;
  };
  return {
    limits: storage.limits,
    read: (prefix, signal) => observed(storage.read(prefix, signal), "storage-read-failed", NOT_READ, signal),
    async *pages(prefix, bytes, signal) {
      const pages = storage.pages(prefix, bytes, signal)[Symbol.asyncIterator]();
      try {
        for (;;) {
          const page = await observed(pages.next(), "storage-read-failed", NOT_READ, signal);
          if (page.done === true) return;
          yield page.value;
        }
      } finally {
        await pages.return?.();
      }
    },
    commit: (writes, expect, options) =>
      observed(storage.commit(writes, expect, options), "storage-commit-failed", "the storage did not take a commit"),
    changes: (prefix, after, signal) => storage.changes(prefix, after, signal),
    [Symbol.asyncDispose]: () => storage[Symbol.asyncDispose](),
  };
}
