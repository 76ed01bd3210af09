import { PeeringError } from "../base/errors.js";
import { damagedEntries } from "../storage/damaged-entries.js";
import { FORMER_SECRETS_PREFIX, fenceKey, PEERING_SECRETS_PREFIX, PEERINGS_PREFIX } from "../storage/keys.js";
import { cutWrites } from "../storage/limits.js";
import { headKey } from "../storage/replica.js";
import type { Entry, Expectation, Key, Storage, Write } from "../storage/storage.js";
import { decodeTrustBundle, encodeTrustBundle, TRUST_BUNDLES_PREFIX } from "../trust/trust-bundle-store.js";
import { bundleKey, recordKey } from "./held-peerings.js";
import { decodePeering, encodePeering } from "./record-codec.js";

/** Of early versions of 0.1. */
const FENCES_PREFIX: Key = ["peering-gates"];
const NAMES_PREFIX: Key = ["peering-names"];

/** Read at a time, in bytes of values. */
const PAGE_BYTES = 1024 * 1024;

/** Attempts while other processes do the same. */
const MAX_ATTEMPTS = 20;

/**
 * Moves peerings to where they are kept today, from where early versions of 0.1 kept them. A crash in between leaves the rest for
 * the next start. The head of the peerings, which every later write needs, is written last: where there is one, nothing is left.
 * @throws {PeeringError} as `Storage.read` and `Storage.commit`; `storage-failed`: a record is damaged.
 */
export async function moveFormerRows(storage: Storage): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const { entries } = await storage.read(headKey(PEERINGS_PREFIX));
    if (entries.length > 0) return;
    try {
      return await moveAll(storage);
    } catch (error) {
      // Another process has moved some of them.
      if (attempt < MAX_ATTEMPTS && error instanceof PeeringError && error.code === "conflict") continue;
      throw error;
    }
  }
}

async function moveAll(storage: Storage): Promise<void> {
  /** Which row each write is about: it is made only while that one is as it was read. */
  const rows = new Map<Write, Expectation>();
  for (const prefix of [PEERINGS_PREFIX, FORMER_SECRETS_PREFIX, FENCES_PREFIX, TRUST_BUNDLES_PREFIX, NAMES_PREFIX]) {
    for await (const page of storage.pages(prefix, PAGE_BYTES)) {
      const lost = page.damaged.filter(({ key }) => isFormer(key));
      // A peer sends its bundle again.
      if (lost.length > 0 && prefix !== TRUST_BUNDLES_PREFIX) throw damagedEntries(lost);
      for (const entry of lost) rows.set({ key: entry.key, value: undefined }, entry);
      for (const entry of page.entries.filter(({ key }) => isFormer(key))) {
        for (const write of moved(entry)) rows.set(write, entry);
        rows.set({ key: entry.key, value: undefined }, entry);
      }
    }
  }
  if (rows.size === 0) return;
  for (const together of cutWrites(rows.keys(), storage.limits)) {
    const expected = new Set(together.flatMap((write) => rows.get(write) ?? []));
    await storage.commit(
      together,
      Array.from(expected, ({ key, revision }) => ({ key, revision })),
    );
  }
  const head = headKey(PEERINGS_PREFIX);
  await storage.commit([{ key: head, value: new Uint8Array() }], [{ key: head, revision: undefined }]);
}

function isFormer([owner, id, rest]: Key): boolean {
  return rest === undefined && (owner !== PEERINGS_PREFIX[0] || id !== "head");
}

/** The row in its present form. Indexes are in it, where the revision of the row stood for them. */
function moved({ key: [owner, id = ""], value, revision }: Entry): readonly Write[] {
  switch (owner) {
    case PEERINGS_PREFIX[0]:
      return [{ key: recordKey(id), value: encodePeering(decodePeering(id, value, revision)) }];
    case FORMER_SECRETS_PREFIX[0]:
      return [{ key: [...PEERING_SECRETS_PREFIX, id], value }];
    case FENCES_PREFIX[0]:
      return [{ key: fenceKey(id), value }];
    case TRUST_BUNDLES_PREFIX[0]: {
      const stored = decodeTrustBundle(value);
      if (stored === undefined) return [];
      return [{ key: bundleKey(id), value: encodeTrustBundle(stored.bundle, stored.since ?? revision) }];
    }
    default:
      // Names are unique without rows of their own.
      return [];
  }
}
