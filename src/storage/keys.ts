import type { Key } from "./storage.js";

/*
 * The first part of every key. Everything a host keeps lies under one of these prefixes; what comes after is its owner's.
 */

/** `trust/built-in-authority.ts`: cluster id, roots with the key of the active one, serial numbers. */
export const CA_PREFIX: Key = ["ca"];
export const CA_STATE_KEY: Key = ["ca", "state"];

/** `host/catalog.ts`: the local catalog. */
export const CATALOG_PREFIX: Key = ["catalog"];

/** `host/records.ts`: peering records, by local id. */
export const PEERINGS_PREFIX: Key = ["peerings"];

/** `host/records.ts`: secrets of peerings, by local id. */
export const PEERING_SECRETS_PREFIX: Key = ["peering-secrets"];

/** `host/records.ts`: local ids by lower-cased name, so that names are unique among all who write. */
export const PEERING_NAMES_PREFIX: Key = ["peering-names"];

/** `host/records.ts`: by local id; written when a record begins or ceases to be active, for imports to be bound to. */
export const PEERING_GATES_PREFIX: Key = ["peering-gates"];

/** `host/config-entries.ts`: configuration entries, by kind and lower-cased name. */
export const CONFIG_PREFIX: Key = ["config"];

/** `host/prepared-queries.ts`: prepared queries, by id. */
export const QUERIES_PREFIX: Key = ["queries"];

/** `host/agent-checks.ts`: checks that a node runs, by lower-cased node and check id. */
export const CHECK_DEFINITIONS_PREFIX: Key = ["check-definitions"];

/** `host/agent-checks.ts`: the last reports of TTL checks, by lower-cased node and check id. */
export const CHECK_REPORTS_PREFIX: Key = ["check-reports"];

/** `host/import-store.ts`: imported services as they came, by local id of the peering and lower-cased name. */
export const IMPORTS_PREFIX: Key = ["imports"];
