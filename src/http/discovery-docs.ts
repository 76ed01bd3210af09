import type { JsonSchema, ParameterDoc } from "./operation.js";
import { datacenterParameter, filterParameter, listOf, readParameters, text } from "./operation-docs.js";

function query(name: string, description: string): ParameterDoc {
  return { name, in: "query", description };
}

/** Those of every read of the catalog and of health. */
export const discoveryParameters: readonly ParameterDoc[] = [
  ...readParameters,
  datacenterParameter,
  query("peer", "Reads the imports from this peer instead of local data."),
  filterParameter,
];
export const nodeMetaParameter: ParameterDoc = query(
  "node-meta",
  "`key:value` that the node's meta must have; repeatable.",
);
export const tagParameter: ParameterDoc = query("tag", "A tag that the instance must have, in any case; repeatable.");
export const passingParameter: ParameterDoc = query(
  "passing",
  "Leaves out instances with a check that is not passing.",
);
export const nearParameter: ParameterDoc = query("near", "Accepted; nodes have no network coordinates.");

export const registeredSchema: JsonSchema = { type: "boolean" };
export const nameListSchema: JsonSchema = { type: "object", additionalProperties: listOf(text) };
