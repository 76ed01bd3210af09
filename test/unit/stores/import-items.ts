import type { ImportItem } from "../../../src/stores/import-store.js";
import { payload, type WireInstance } from "../payload/import-fixtures.js";

export const PEER = "11111111-0000-0000-0000-000000000000";
export const OTHER = "22222222-0000-0000-0000-000000000000";

export function upsert(name: string, ...instances: readonly WireInstance[]): ImportItem {
  return { type: "service", name, value: payload(...instances) };
}

export function list(...names: readonly string[]): ImportItem {
  return { type: "list", names };
}
