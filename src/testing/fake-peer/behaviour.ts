import type { Status } from "../../wire/status.js";

/** How a fake peer behaves. It can be changed at any moment, also while a stream stands. */
export interface Behaviour {
  /** Off: it takes nothing from the stream any more, so that messages to it pile up at the sender. Default on. */
  readonly reads: boolean;
  /** Off: its messages are lost on the way. Default on. */
  readonly sends: boolean;
  /** Its answer to every resource it is sent. Default `ack`. */
  readonly answers: "ack" | "nack" | "none";
  /** The nonces in its messages: right ones, invented ones, or none at all. Default `right`. */
  readonly nonces: "right" | "wrong" | "none";
  /** Whether it says every 15 s that it is there. Default on. */
  readonly heartbeats: boolean;
  /** Passes before each message it sends or takes, in milliseconds. Default 0. */
  readonly delayMs: number;
  /** How fast its line is in each direction; a message passes once all of its bytes have. Default: without limit. */
  readonly bytesPerSecond: number;
  /** The error with which it refuses secrets and streams. Default: it refuses none. */
  readonly refuses: Status | undefined;
}

/** A peer that keeps to the protocol. */
export const wellBehaved: Behaviour = {
  reads: true,
  sends: true,
  answers: "ack",
  nonces: "right",
  heartbeats: true,
  delayMs: 0,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  refuses: undefined,
};

/** The ways to misbehave that have names. */
export type Misbehaviour =
  | "stops-reading"
  | "never-acknowledges"
  | "refuses-everything"
  | "one-byte-a-second"
  | "half-open"
  | "wrong-nonces";

/** The behaviour that each of them changes. A flood is an action of a peer: see `FakeStream.flood`. */
export const misbehaviours: Readonly<Record<Misbehaviour, Partial<Behaviour>>> = {
  "stops-reading": { reads: false },
  "never-acknowledges": { answers: "none" },
  "refuses-everything": { answers: "nack" },
  "one-byte-a-second": { bytesPerSecond: 1 },
  "half-open": { reads: false, sends: false },
  "wrong-nonces": { nonces: "wrong" },
};
