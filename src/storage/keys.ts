import type { Key } from "./storage.js";

/*
 * The first part of every key. Everything a host keeps lies under one of these prefixes; the rest of a key is its owner's.
 */

/** `trust/built-in-authority.ts`: cluster id, roots with the key of the active one, the next serial number. */
export const CA_PREFIX: Key = ["ca"];
export const CA_STATE_KEY: Key = ["ca", "state"];

/** `stores/catalog.ts`: the local catalog. */
export const CATALOG_PREFIX: Key = ["catalog"];

/**
 * `stores/held-peerings.ts`: peering records, secrets and fences by local id, trust bundles by lower-cased peer name; the second
 * part says which.
 */
export const PEERINGS_PREFIX: Key = ["peerings"];

/** Secrets of peerings. */
export const PEERING_SECRETS_PREFIX: Key = [...PEERINGS_PREFIX, "secrets"];

/** The fence of a peering: written when its record begins or ceases to be active, for imports to be bound to. */
export function fenceKey(id: string): Key {
  return [...PEERINGS_PREFIX, "gate", id];
}

/** Where early versions of 0.1 kept peerings; see `stores/former-peerings.ts`. */
export const FORMER_SECRETS_PREFIX: Key = ["peering-secrets"];

/** `stores/config-entries.ts`: configuration entries, by kind and lower-cased name. */
export const CONFIG_PREFIX: Key = ["config"];

/** `stores/prepared-queries.ts`: prepared queries, by id. */
export const QUERIES_PREFIX: Key = ["queries"];

/** `host/agent-checks.ts`: checks that a node runs, by lower-cased node and check id; the head under `""`. */
export const CHECK_DEFINITIONS_PREFIX: Key = ["check-definitions"];

/** `host/agent-checks.ts`: when the last reports of TTL checks end, by lower-cased node and check id; the head under `""`. */
export const CHECK_REPORTS_PREFIX: Key = ["check-reports"];

/** `stores/import-store.ts`: imported services as they came, by local id of the peering and lower-cased name; their heads under `""`. */
export const IMPORTS_PREFIX: Key = ["imports"];
