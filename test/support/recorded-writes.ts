// Writes of configuration entries as a real Consul answered them.
import { readGolden } from "../golden/read.js";

/** One write, and what Consul said. */
export interface RecordedWrite {
  readonly method: "PUT" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
  /** All that it said when asked again: of several faults Consul tells any. Refused writes change nothing. */
  readonly texts: readonly string[];
}

/** Writes to an empty server, in this order. */
export type WriteSequence = readonly RecordedWrite[];

export const RECORDED_WRITES = "config-writes/1.21.4.jsonl";

export function recordedWrites(): readonly WriteSequence[] {
  return readGolden(RECORDED_WRITES)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}
