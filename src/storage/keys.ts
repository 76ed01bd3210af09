import type { Key } from "./storage.js";

/*
 * The first part of every key. Everything a host keeps lies under one of these prefixes; what comes after is its owner's.
 */

/** `host/catalog.ts`: the local catalog. */
export const CATALOG_PREFIX: Key = ["catalog"];
