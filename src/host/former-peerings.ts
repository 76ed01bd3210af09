import { damagedEntries } from "../storage/damaged-entries.js";
import { FORMER_SECRETS_PREFIX, gateKey, PEERING_SECRETS_PREFIX, PEERINGS_PREFIX } from "../storage/keys.js";
import { cutWrites } from "../storage/limits.js";
import type { Entry, Key, Storage, Write } from "../storage/storage.js";
import { decodeTrustBundle, encodeTrustBundle } from "../trust/trust-bundle-store.js";
import { bundleKey, recordKey } from "./held-peerings.js";
import { decodePeering, encodePeering } from "./record-codec.js";

/** Of early versions of 0.1. */
const GATES_PREFIX: Key = ["peering-gates"];
const BUNDLES_PREFIX: Key = ["trust-bundles"];
const NAMES_PREFIX: Key = ["peering-names"];

/** Read at a time, in bytes of values. */
const PAGE_BYTES = 1024 * 1024;

/**
 * Moves peerings to where they are kept today, from where early versions of 0.1 kept them. A crash in between leaves the rest for
 * the next start.
 * @throws {PeeringError} as `Storage.read` and `Storage.commit`; `storage-failed`: a record is damaged.
 */
export async function moveFormerRows(storage: Storage): Promise<void> {
  for (const prefix of [PEERINGS_PREFIX, FORMER_SECRETS_PREFIX, GATES_PREFIX, BUNDLES_PREFIX, NAMES_PREFIX]) {
    const former: Entry[] = [];
    const lost: Key[] = [];
    for await (const page of storage.pages(prefix, PAGE_BYTES)) {
      former.push(...page.entries.filter(({ key }) => isFormer(key)));
      lost.push(...page.damaged.filter(isFormer));
    }
    // A peer sends its bundle again.
    if (lost.length > 0 && prefix !== BUNDLES_PREFIX) throw damagedEntries(lost);
    const writes: Write[] = lost.map((key) => ({ key, value: undefined }));
    for (const entry of former) writes.push(...moved(entry), { key: entry.key, value: undefined });
    for (const together of cutWrites(writes, storage.limits)) await storage.commit(together);
  }
}

function isFormer([owner, id, rest]: Key): boolean {
  return rest === undefined && (owner !== PEERINGS_PREFIX[0] || id !== "head");
}

/** What a row is stored as today. Indexes are in it, where the revision of the row stood for them. */
function moved({ key: [owner, id = ""], value, revision }: Entry): readonly Write[] {
  switch (owner) {
    case PEERINGS_PREFIX[0]:
      return [{ key: recordKey(id), value: encodePeering(decodePeering(id, value, revision)) }];
    case FORMER_SECRETS_PREFIX[0]:
      return [{ key: [...PEERING_SECRETS_PREFIX, id], value }];
    case GATES_PREFIX[0]:
      return [{ key: gateKey(id), value }];
    case BUNDLES_PREFIX[0]: {
      const stored = decodeTrustBundle(value);
      if (stored === undefined) return [];
      return [{ key: bundleKey(id), value: encodeTrustBundle(stored.bundle, stored.since ?? revision) }];
    }
    default:
      // Names are unique without rows of their own.
      return [];
  }
}
