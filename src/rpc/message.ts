/** The input for a message: its fields, each of which may be left out. */
export type { MessageInit } from "../wire/schema.js";

/** The fields of `google.protobuf.Timestamp`. */
export interface TimestampFields {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** @param milliseconds - since the Unix epoch; may be negative, and may have a fraction. */
export function timestamp(milliseconds: number): TimestampFields {
  const seconds = Math.floor(milliseconds / 1_000);
  return { seconds: BigInt(seconds), nanos: Math.floor((milliseconds - seconds * 1_000) * 1e6) };
}

/** Unset for times of events that did not happen. */
export function timestampOrUnset(milliseconds: number | undefined): TimestampFields | undefined {
  return milliseconds === undefined ? undefined : timestamp(milliseconds);
}

/** Milliseconds since the Unix epoch. */
export function milliseconds({ seconds, nanos }: TimestampFields): number {
  return Number(seconds) * 1_000 + nanos / 1e6;
}
