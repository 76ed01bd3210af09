import { enablePatches, produceWithPatches } from "immer";
import { InvariantError, PeeringError } from "../base/errors.js";
import type { RemoteInfo } from "../wire/messages.js";
import { type Status, StatusCode } from "../wire/status.js";
import {
  COLUMN_OF,
  isActive,
  isRemoteEmpty,
  type Peering,
  type PeeringState,
  type Role,
  roleOf,
  type StateColumn,
  type StoredState,
  withNewline,
} from "./peering.js";

// immer keeps patches in a plug-in that is to be switched on once; doing it again changes nothing.
enablePatches();

/** A peering as the machine moves it. `active` and `failing` come only from records that were written by hand. */
export type MachinePeering = Omit<Peering, "state"> & { readonly state: Exclude<PeeringState, "initial"> };

/** The fields that an establishing dialer takes from a token and its caller. */
export interface EstablishFields {
  readonly peerId: string;
  readonly peerCaPems: readonly string[];
  readonly peerServerName: string;
  readonly peerServerAddresses: readonly string[];
  readonly manualServerAddresses: readonly string[];
  readonly remote: RemoteInfo;
  readonly meta: Readonly<Record<string, string>>;
}

/** Everything that can happen to a peering. */
export type PeeringEvent =
  /** A caller asks for a token. `id` and `meta` serve a new record only. */
  | {
      readonly type: "generate-token";
      readonly id: string;
      readonly name: string;
      readonly meta: Readonly<Record<string, string>>;
    }
  /** A caller establishes with a token: the first write. A record with a stream secret keeps the cluster it belongs to. */
  | {
      readonly type: "establish-begun";
      readonly id: string;
      readonly name: string;
      readonly fields: EstablishFields;
    }
  /** The exchange of secrets failed. */
  | { readonly type: "establish-failed" }
  /** The acceptor gave its stream secret: the second write. */
  | { readonly type: "establish-finished"; readonly fields: EstablishFields }
  /** A dialer presented the establishment secret of the last token. */
  | { readonly type: "secret-exchanged" }
  /** A dialer opened a stream; `peerId` as it said, `remote` about itself. */
  | { readonly type: "opened-with-pending-secret"; readonly peerId: string; readonly remote: RemoteInfo }
  | { readonly type: "opened-with-active-secret"; readonly peerId: string }
  | { readonly type: "opened-with-other-secret"; readonly peerId: string; readonly secretsKnown: boolean }
  /** A stream was accepted, or our own dial succeeded; `peerId`: the record's when it was dialed. Observed, never stored. */
  | { readonly type: "stream-connected"; readonly peerId?: string }
  /** A dial failed, or its stream ended without `Terminated`. Observed, never stored. */
  | { readonly type: "stream-lost" }
  /**
   * The host starts, comes to lead, or finds the record written by another process: the stored state decides the effects. Never
   * stored itself.
   */
  | { readonly type: "resumed" }
  /** `servers`: whether the peer's servers are trusted by these roots; those of Consul 1.13 are not. Default true. */
  | {
      readonly type: "trust-bundle-received";
      readonly name: string;
      readonly rootPems: readonly string[];
      readonly servers?: boolean;
    }
  | { readonly type: "server-addresses-received"; readonly addresses: readonly string[] }
  /** The peer deleted the peering; `peerId`: the record's when the stream was opened, where that is known. */
  | { readonly type: "peer-terminated"; readonly peerId?: string }
  /** An operator deletes it; `at` in milliseconds since the Unix epoch. */
  | { readonly type: "delete-requested"; readonly at: number }
  /** Imported data and trust bundle are gone. */
  | { readonly type: "cleanup-finished" };

export type PeeringEventType = PeeringEvent["type"];

/** An observation, which is never stored: it has effects, and leaves the record as it is. */
export type ObservedEvent = Extract<PeeringEvent, { readonly type: keyof Observed }>;

/** The effects that each of them may have. */
interface Observed {
  readonly "establish-failed": never;
  readonly "stream-connected": "send-terminated" | "end-stream";
  readonly "stream-lost": "redial";
  readonly resumed: Exclude<HostEffect["type"], "accept-stream" | "refuse-stream" | "redial">;
}

/**
 * Work besides keeping the new record. `CommitEffect`s belong into the same commit and are performed by
 * `transactions.ts`, the others by the host once that is stored.
 */
export type PeeringEffect =
  /** E becomes a new secret; an unused former token dies. */
  | { readonly type: "store-establishment-secret" }
  /** E is used up, P becomes a new secret. */
  | { readonly type: "exchange-secret" }
  /** P becomes S, the old S dies. */
  | { readonly type: "promote-secret" }
  /** The dialer's one secret is replaced. */
  | { readonly type: "store-stream-secret" }
  | { readonly type: "drop-secrets" }
  | { readonly type: "store-trust-bundle" }
  | { readonly type: "accept-stream" }
  /** Ends the call with `status`, after a `Terminated` where `terminated` is set. */
  | { readonly type: "refuse-stream"; readonly status: Status; readonly terminated: boolean }
  /** Tells the peer over its stream, if one is up, then drains it. */
  | { readonly type: "send-terminated" }
  /** Closes the stream without a message. `peerId`: only one that was opened for that peer. */
  | { readonly type: "end-stream"; readonly peerId?: string }
  /** Dials the cluster that the record names; a stream to another one ends. */
  | { readonly type: "start-dialing" }
  /** Dials again, after a while. */
  | { readonly type: "redial" }
  | { readonly type: "stop-dialing" }
  | { readonly type: "remove-imports" }
  | { readonly type: "remove-trust-bundle" }
  /** Once imports and bundle are removed; then say `cleanup-finished`. */
  | { readonly type: "remove-record" };

export type PeeringEffectType = PeeringEffect["type"];

/** Who performs each effect: the commit of the record, or the host after it. */
interface PerformedBy {
  readonly "store-establishment-secret": "commit";
  readonly "exchange-secret": "commit";
  readonly "promote-secret": "commit";
  readonly "store-stream-secret": "commit";
  readonly "drop-secrets": "commit";
  readonly "store-trust-bundle": "commit";
  readonly "accept-stream": "host";
  readonly "refuse-stream": "host";
  readonly "send-terminated": "host";
  readonly "end-stream": "host";
  readonly "start-dialing": "host";
  readonly redial: "host";
  readonly "stop-dialing": "host";
  readonly "remove-imports": "host";
  readonly "remove-trust-bundle": "host";
  readonly "remove-record": "host";
}

type EffectsOf<By extends "commit" | "host"> = Extract<
  PeeringEffect,
  { readonly type: { [T in PeeringEffectType]: PerformedBy[T] extends By ? T : never }[PeeringEffectType] }
>;

/** Effects on secrets and trust bundles, stored with the record. */
export type CommitEffect = EffectsOf<"commit">;
/** Effects on streams, dialing and imports. */
export type HostEffect = EffectsOf<"host">;

const PERFORMED_BY: PerformedBy = {
  "store-establishment-secret": "commit",
  "exchange-secret": "commit",
  "promote-secret": "commit",
  "store-stream-secret": "commit",
  "drop-secrets": "commit",
  "store-trust-bundle": "commit",
  "accept-stream": "host",
  "refuse-stream": "host",
  "send-terminated": "host",
  "end-stream": "host",
  "start-dialing": "host",
  redial: "host",
  "stop-dialing": "host",
  "remove-imports": "host",
  "remove-trust-bundle": "host",
  "remove-record": "host",
};

export function isCommitEffect(effect: PeeringEffect): effect is CommitEffect {
  return PERFORMED_BY[effect.type] === "commit";
}

export function isHostEffect(effect: PeeringEffect): effect is HostEffect {
  return PERFORMED_BY[effect.type] === "host";
}

/** A JSON-patch-like change of the record; an empty path replaces it as a whole (`undefined`: it is gone). */
export interface PeeringPatch {
  readonly op: "add" | "remove" | "replace";
  readonly path: readonly (string | number)[];
  readonly value?: unknown;
}

/** The record stays as it is. */
export interface Unchanged<E extends PeeringEffectType> extends Reached {
  readonly outcome: "unchanged";
  readonly effects: readonly E[];
}

/** The effects of a cell that a host performs. */
export interface Reached {
  /** Why no host reaches this cell; undefined: hosts do. The cell is for programs that use the machine without a host. */
  readonly unreachable?: string;
  /** Why its effects find nothing to do in a host any more, though one reaches it. */
  readonly redundant?: string;
}

/** The outcome of one event for one kind of peering. */
export type Cell = Outcome & Reached;

export type Outcome =
  | Unchanged<PeeringEffectType>
  /** The record is written, its state stays. */
  | { readonly outcome: "updated"; readonly effects: readonly PeeringEffectType[] }
  /** The record is written in a new state; `initial`: it is removed. */
  | {
      readonly outcome: "moved";
      readonly to: StoredState | "initial";
      readonly effects: readonly PeeringEffectType[];
    }
  /** A stream is refused; the record stays. */
  | { readonly outcome: "stream-refused"; readonly refusal: StreamRefusal }
  /** A call is refused with an error; the record stays. */
  | { readonly outcome: "refused"; readonly refusal: Refusal };

export type Refusal =
  | "already-established"
  | "expecting-to-be-dialed"
  | "marked-for-deletion"
  | "write-marked-for-deletion"
  | "terminated-by-peer"
  | "not-active"
  | "unknown-peering"
  | "not-a-dialer"
  | "establish-by-acceptor"
  | "invalid-establishment-secret"
  | "not-marked"
  | "unknown-state";

export type StreamRefusal =
  | "unknown-peer-id"
  | "deleting"
  | "terminated"
  | "wrong-end"
  | "wrong-secret"
  | "unknown-state";

/** The cell of an acceptor and that of a dialer. A peering that is not there yet has no role: both are one. */
export interface RoleCells<C extends Cell = Cell> {
  readonly acceptor: C;
  readonly dialer: C;
}

/** The whole table: every event in every state and role. */
export type TransitionTable = Readonly<Record<PeeringEventType, Readonly<Record<PeeringState, RoleCells>>>>;

export interface Transition<P extends MachinePeering = MachinePeering> {
  readonly event: PeeringEventType;
  /** The record before, undefined where there was none. */
  readonly before: P | undefined;
  /** The record afterwards, undefined where there is none. The store sets its indexes. */
  readonly peering: P | undefined;
  /** Whether the record is to be written, also where no field but its index changes. */
  readonly written: boolean;
  /** From the record before to the one after. */
  readonly patches: readonly PeeringPatch[];
  readonly effects: readonly PeeringEffect[];
}

/** All states, in the order of a peering's life. */
export const PEERING_STATES: readonly PeeringState[] = [
  "initial",
  "pending",
  "establishing",
  "active",
  "failing",
  "deleting",
  "terminated",
  "undefined",
];

const unchanged = <E extends PeeringEffectType>(...effects: E[]): Unchanged<E> => ({ outcome: "unchanged", effects });
const updated = (...effects: PeeringEffectType[]): Cell => ({ outcome: "updated", effects });
const moved = (to: StoredState | "initial", ...effects: PeeringEffectType[]): Cell => ({
  outcome: "moved",
  to,
  effects,
});
const refused = (refusal: Refusal): Cell => ({ outcome: "refused", refusal });
const streamRefused = (refusal: StreamRefusal): Cell => ({ outcome: "stream-refused", refusal });
const unreachable = <C extends Cell>(unreachable: string, cell: C): C => ({ ...cell, unreachable });
const redundant = <C extends Cell>(redundant: string, cell: C): C => ({ ...cell, redundant });
const both = <C extends Cell>(cell: C): RoleCells<C> => ({ acceptor: cell, dialer: cell });
const byRole = <C extends Cell>(acceptor: C, dialer: C): RoleCells<C> => ({ acceptor, dialer });

/**
 * Columns that differ. While a peering lives, the outcome of an event depends on its role alone, or on its state as well. A state
 * this version does not know (`undefined`) can be ended, but nothing is built on it.
 */
type Row<C extends Cell> = { readonly initial: C } & Readonly<Record<Exclude<StateColumn, "initial">, RoleCells<C>>>;

type Rows = {
  readonly [T in PeeringEventType]: Row<T extends keyof Observed ? Unchanged<Observed[T]> : Cell>;
};

const NO_DIALER = "an establish is of a dialer, and a record keeps its role";
const NO_TOKEN = "a dialer keeps no secret of a token";
const NO_PENDING = "a dialer keeps no pending secret";
const NO_SECRETS = "the secrets go in the commit that marks a record";
const SAME_TURN = "a stream is accepted in the turn in which its record is judged";
const NO_LOOP = "only a dial loop is lost, and it is stopped in the turn in which its record ceases to be dialed";
const UNKNOWN_STATE = "a host does not start on a stored state that it does not know";
const STREAM_ENDED = "the stream drains by itself, and the one that took its place was ended with the record";

/** Removals that follow the deletion of a record, in this order. */
const REMOVAL = ["remove-imports", "remove-trust-bundle", "remove-record"] as const;

/** The outcome of each event, decided here and in no other place: docs/state-machine.md shows all. */
const rows: Rows = {
  "generate-token": {
    initial: moved("pending", "store-establishment-secret"),
    living: byRole(updated("store-establishment-secret"), refused("already-established")),
    // Consul answers with a token that was never stored (D-15).
    deleting: byRole(refused("write-marked-for-deletion"), refused("already-established")),
    terminated: byRole(refused("terminated-by-peer"), refused("already-established")),
    undefined: byRole(refused("unknown-state"), refused("already-established")),
  },
  "establish-begun": {
    initial: moved("pending"),
    living: byRole(refused("expecting-to-be-dialed"), updated()),
    deleting: byRole(refused("expecting-to-be-dialed"), refused("write-marked-for-deletion")),
    terminated: byRole(refused("expecting-to-be-dialed"), updated("drop-secrets")),
    undefined: byRole(refused("expecting-to-be-dialed"), refused("unknown-state")),
  },
  "establish-failed": {
    initial: unchanged(),
    living: byRole(unreachable(NO_DIALER, unchanged()), unchanged()),
    deleting: byRole(unreachable(NO_DIALER, unchanged()), unchanged()),
    terminated: byRole(unreachable(NO_DIALER, unchanged()), unchanged()),
    undefined: both(unchanged()),
  },
  "establish-finished": {
    // Removed meanwhile: Consul would create it again (D-19).
    initial: refused("write-marked-for-deletion"),
    living: byRole(
      unreachable(NO_DIALER, refused("establish-by-acceptor")),
      moved("establishing", "store-stream-secret", "start-dialing"),
    ),
    deleting: byRole(unreachable(NO_DIALER, refused("establish-by-acceptor")), refused("write-marked-for-deletion")),
    terminated: byRole(
      unreachable(NO_DIALER, refused("establish-by-acceptor")),
      moved("establishing", "store-stream-secret", "start-dialing"),
    ),
    undefined: byRole(refused("establish-by-acceptor"), refused("unknown-state")),
  },
  "secret-exchanged": {
    initial: refused("invalid-establishment-secret"),
    living: byRole(unchanged("exchange-secret"), unreachable(NO_TOKEN, refused("invalid-establishment-secret"))),
    deleting: byRole(
      refused("invalid-establishment-secret"),
      unreachable(NO_TOKEN, refused("invalid-establishment-secret")),
    ),
    // An unused secret may have survived the peer's `Terminated`; it opens nothing any more (D-20).
    terminated: byRole(
      refused("invalid-establishment-secret"),
      unreachable(NO_TOKEN, refused("invalid-establishment-secret")),
    ),
    undefined: both(refused("invalid-establishment-secret")),
  },
  "opened-with-pending-secret": {
    initial: streamRefused("unknown-peer-id"),
    living: byRole(updated("promote-secret", "accept-stream"), unreachable(NO_PENDING, streamRefused("wrong-end"))),
    deleting: byRole(streamRefused("deleting"), unreachable(NO_PENDING, streamRefused("deleting"))),
    terminated: byRole(streamRefused("terminated"), unreachable(NO_PENDING, streamRefused("terminated"))),
    undefined: both(streamRefused("unknown-state")),
  },
  "opened-with-active-secret": {
    initial: unreachable(NO_SECRETS, streamRefused("unknown-peer-id")),
    living: byRole(unchanged("accept-stream"), streamRefused("wrong-end")),
    deleting: both(unreachable(NO_SECRETS, streamRefused("deleting"))),
    terminated: both(streamRefused("terminated")),
    undefined: both(streamRefused("unknown-state")),
  },
  "opened-with-other-secret": {
    initial: streamRefused("unknown-peer-id"),
    living: both(streamRefused("wrong-secret")),
    deleting: both(streamRefused("deleting")),
    terminated: both(streamRefused("terminated")),
    undefined: both(streamRefused("unknown-state")),
  },
  "stream-connected": {
    initial: unchanged("end-stream"),
    living: both(unchanged()),
    deleting: byRole(unreachable(SAME_TURN, unchanged("send-terminated")), unchanged("send-terminated")),
    terminated: byRole(unreachable(SAME_TURN, unchanged("end-stream")), unchanged("end-stream")),
    undefined: both(unchanged("end-stream")),
  },
  "stream-lost": {
    initial: unreachable(NO_LOOP, unchanged()),
    living: byRole(unreachable(NO_LOOP, unchanged()), unchanged("redial")),
    deleting: both(unreachable(NO_LOOP, unchanged())),
    terminated: both(unreachable(NO_LOOP, unchanged())),
    undefined: both(unchanged()),
  },
  resumed: {
    initial: unchanged("end-stream", "stop-dialing"),
    living: byRole(unchanged(), unchanged("start-dialing")),
    deleting: byRole(
      unchanged("send-terminated", ...REMOVAL),
      unchanged("stop-dialing", "send-terminated", ...REMOVAL),
    ),
    terminated: byRole(
      unchanged("end-stream", "remove-imports", "remove-trust-bundle"),
      unchanged("end-stream", "stop-dialing", "remove-imports", "remove-trust-bundle"),
    ),
    undefined: both(unchanged()),
  },
  "trust-bundle-received": {
    initial: refused("unknown-peering"),
    living: both(updated("store-trust-bundle")),
    deleting: both(refused("marked-for-deletion")),
    // Consul stores it and never removes it; nothing is imported for a record that is not active (D-54).
    terminated: both(refused("not-active")),
    undefined: both(refused("unknown-state")),
  },
  "server-addresses-received": {
    initial: refused("not-active"),
    living: byRole(refused("not-a-dialer"), updated()),
    deleting: both(refused("not-active")),
    terminated: both(refused("not-active")),
    undefined: both(refused("unknown-state")),
  },
  "peer-terminated": {
    initial: redundant(STREAM_ENDED, unchanged("end-stream")),
    living: byRole(
      moved("terminated", "end-stream", "remove-imports", "remove-trust-bundle"),
      moved("terminated", "end-stream", "stop-dialing", "remove-imports", "remove-trust-bundle"),
    ),
    // Consul brings the record back as TERMINATED, and never removes it (D-12).
    deleting: both(redundant(STREAM_ENDED, unchanged("end-stream"))),
    terminated: both(redundant(STREAM_ENDED, unchanged("end-stream"))),
    undefined: byRole(
      moved("terminated", "end-stream", "remove-imports", "remove-trust-bundle"),
      moved("terminated", "end-stream", "stop-dialing", "remove-imports", "remove-trust-bundle"),
    ),
  },
  "delete-requested": {
    initial: unchanged(),
    living: deletion(),
    deleting: both(unchanged()),
    terminated: both(moved("deleting", "drop-secrets", ...REMOVAL)),
    undefined: deletion(),
  },
  "cleanup-finished": {
    initial: unchanged(),
    living: both(refused("not-marked")),
    deleting: both(moved("initial")),
    terminated: both(unchanged()),
    undefined: both(refused("not-marked")),
  },
};

function deletion(): RoleCells {
  return byRole(
    moved("deleting", "drop-secrets", "send-terminated", ...REMOVAL),
    moved("deleting", "drop-secrets", "stop-dialing", "send-terminated", ...REMOVAL),
  );
}

function expand(row: Row<Cell>): Readonly<Record<PeeringState, RoleCells>> {
  const cells = (state: PeeringState): RoleCells => {
    const column = COLUMN_OF[state];
    if (column === "initial") return both(row.initial);
    if (column !== "undefined") return row[column];
    const { acceptor, dialer } = row.undefined;
    return byRole(unreachable(UNKNOWN_STATE, acceptor), unreachable(UNKNOWN_STATE, dialer));
  };
  return {
    initial: cells("initial"),
    pending: cells("pending"),
    establishing: cells("establishing"),
    active: cells("active"),
    failing: cells("failing"),
    deleting: cells("deleting"),
    terminated: cells("terminated"),
    undefined: cells("undefined"),
  };
}

/** Every event in every state and role, as data: documentation and tests are made from it. */
export const TRANSITIONS: TransitionTable = {
  "generate-token": expand(rows["generate-token"]),
  "establish-begun": expand(rows["establish-begun"]),
  "establish-failed": expand(rows["establish-failed"]),
  "establish-finished": expand(rows["establish-finished"]),
  "secret-exchanged": expand(rows["secret-exchanged"]),
  "opened-with-pending-secret": expand(rows["opened-with-pending-secret"]),
  "opened-with-active-secret": expand(rows["opened-with-active-secret"]),
  "opened-with-other-secret": expand(rows["opened-with-other-secret"]),
  "stream-connected": expand(rows["stream-connected"]),
  "stream-lost": expand(rows["stream-lost"]),
  resumed: expand(rows.resumed),
  "trust-bundle-received": expand(rows["trust-bundle-received"]),
  "server-addresses-received": expand(rows["server-addresses-received"]),
  "peer-terminated": expand(rows["peer-terminated"]),
  "delete-requested": expand(rows["delete-requested"]),
  "cleanup-finished": expand(rows["cleanup-finished"]),
};

/** Whether a host that leads keeps dialing this peering, as it starts to when it resumes. */
export function isDialed(peering: Peering): boolean {
  return transition(peering, { type: "resumed" }).effects.some(({ type }) => type === "start-dialing");
}

/**
 * The outcome of `event` for `peering` (undefined: there is none yet). The given record is unchanged; nothing is stored.
 * @throws {PeeringError} The event is a call that is refused here, with Consul's text: `wrong-role`, `invalid-record`,
 *   `permission-denied`, `invalid-token`, `invalid-transition` (a state this version does not know).
 */
export function transition(peering: Peering | undefined, event: PeeringEvent): Transition<Peering>;
export function transition(peering: MachinePeering | undefined, event: PeeringEvent): Transition;
export function transition(peering: MachinePeering | undefined, event: PeeringEvent): Transition {
  const role: Role = peering === undefined ? "acceptor" : roleOf(peering);
  const cell = TRANSITIONS[event.type][peering?.state ?? "initial"][role];
  if (event.type === "server-addresses-received" && event.addresses.length === 0 && isActive(peering)) {
    // Refused whatever the role, and also where manual addresses would do (D-32).
    throw wrongRole("Cannot switch peering dialing mode from true to false");
  }
  const stays = (effects: readonly PeeringEffect[]): Transition => ({
    event: event.type,
    before: peering,
    peering,
    written: false,
    patches: [],
    effects,
  });
  if ((event.type === "peer-terminated" || event.type === "stream-connected") && isStale(peering, event)) {
    return stays([{ type: "end-stream", ...(event.peerId === undefined ? {} : { peerId: event.peerId }) }]);
  }
  switch (cell.outcome) {
    case "refused":
      throw refusalError(cell.refusal, peering, event);
    case "stream-refused":
      return stays([refuseStream(cell.refusal, event)]);
    case "unchanged":
      return stays(effectsOf(cell.effects));
    case "updated":
    case "moved": {
      const to = cell.outcome === "moved" ? cell.to : peering?.state;
      const effects = effectsOf(cell.effects);
      return { event: event.type, before: peering, ...write(peering, event, to), written: true, effects };
    }
  }
}

/** Holds one peering, and moves it by events. {@link transition} is the same without an object. */
export class PeeringStateMachine {
  #peering: MachinePeering | undefined;

  /** @param peering - undefined: there is none yet (INITIAL). */
  constructor(peering?: MachinePeering) {
    this.#peering = peering;
  }

  get peering(): MachinePeering | undefined {
    return this.#peering;
  }

  get state(): PeeringState {
    return this.#peering?.state ?? "initial";
  }

  /** Moves the peering. @throws {PeeringError} as {@link transition}; the peering stays as it was. */
  handle(event: PeeringEvent): Transition {
    const result = transition(this.#peering, event);
    this.#peering = result.peering;
    return result;
  }
}

type Draft<T> = { -readonly [K in keyof T]: T[K] };

function write(
  peering: MachinePeering | undefined,
  event: PeeringEvent,
  to: PeeringState | undefined,
): Pick<Transition, "peering" | "patches"> {
  if (to === "initial" || to === undefined) {
    return { peering: undefined, patches: [{ op: "replace", path: [], value: undefined }] };
  }
  if (peering === undefined) {
    const created = create(event);
    return { peering: created, patches: [{ op: "replace", path: [], value: created }] };
  }
  const [next, patches] = produceWithPatches(peering, (draft: Draft<MachinePeering>) => {
    draft.state = to;
    change(draft, event);
  });
  // Writing a record unchanged is no change.
  const old = new Map<string, unknown>(Object.entries(peering));
  const isChange = ({ path, value }: PeeringPatch): boolean =>
    path.length !== 1 || JSON.stringify(old.get(String(path[0]))) !== JSON.stringify(value);
  return { peering: next, patches: patches.filter(isChange) };
}

function create(event: PeeringEvent): MachinePeering {
  switch (event.type) {
    case "generate-token":
      return { ...blank(event.id, event.name), meta: event.meta };
    case "establish-begun":
      requireDialable(event.fields);
      return { ...blank(event.id, event.name), ...event.fields };
    default:
      throw new InvariantError(`${event.type} creates no peering`);
  }
}

function blank(id: string, name: string): MachinePeering {
  return {
    id,
    name,
    state: "pending",
    meta: {},
    peerId: "",
    peerCaPems: [],
    peerServerName: "",
    peerServerAddresses: [],
    manualServerAddresses: [],
    remote: { partition: "", datacenter: "" },
    createIndex: 0n,
    modifyIndex: 0n,
  };
}

function change(draft: Draft<MachinePeering>, event: PeeringEvent): void {
  switch (event.type) {
    case "establish-begun":
    case "establish-finished": {
      const { fields } = event;
      requireDialable(fields);
      draft.meta = fields.meta;
      // It has a secret, which belongs to the cluster it names. Consul replaces that cluster before the exchange.
      if (event.type === "establish-begun" && isEstablished(draft)) return;
      draft.peerId = fields.peerId;
      draft.peerCaPems = fields.peerCaPems;
      draft.peerServerName = fields.peerServerName;
      draft.manualServerAddresses = fields.manualServerAddresses;
      if (!isRemoteEmpty(fields.remote)) draft.remote = fields.remote;
      draft.peerServerAddresses = fields.peerServerAddresses;
      return;
    }
    case "opened-with-pending-secret":
      if (!isRemoteEmpty(event.remote)) draft.remote = event.remote;
      return;
    case "trust-bundle-received":
      if (event.servers !== false) draft.peerCaPems = event.rootPems.map(withNewline);
      return;
    case "server-addresses-received":
      draft.peerServerAddresses = event.addresses;
      return;
    case "delete-requested":
      draft.deletedAt = event.at;
      draft.peerId = "";
      draft.peerCaPems = [];
      draft.peerServerName = "";
      draft.meta = {};
      return;
    default:
      return;
  }
}

function requireDialable(fields: EstablishFields): void {
  if (fields.peerServerAddresses.length === 0 && fields.manualServerAddresses.length === 0) {
    throw new PeeringError("invalid-token", "peering token server addresses value is empty");
  }
  if (fields.peerId === "") throw new PeeringError("invalid-token", "peering token peer ID value is empty");
}

/** As a dialer that has exchanged secrets, which PENDING and, for the first write, TERMINATED have not. */
function isEstablished({ state }: Pick<MachinePeering, "state">): boolean {
  return state === "establishing" || state === "active" || state === "failing";
}

/** Of a stream that was opened before this record was established again with another peer (D-12). */
function isStale(peering: MachinePeering | undefined, event: { readonly peerId?: string }): boolean {
  // A record that is being deleted has forgotten its peer.
  if (peering === undefined || peering.state === "deleting") return false;
  return event.peerId !== undefined && event.peerId !== peering.peerId;
}

function effectsOf(types: readonly PeeringEffectType[]): readonly PeeringEffect[] {
  return types.map((type) => {
    if (type === "refuse-stream") throw new InvariantError("a refused stream is a cell of its own");
    return { type };
  });
}

function refuseStream(refusal: StreamRefusal, event: PeeringEvent): PeeringEffect {
  const peerId = "peerId" in event && event.peerId !== undefined ? event.peerId : "";
  return {
    type: "refuse-stream",
    status: streamStatusOf(refusal, peerId, event.type !== "opened-with-other-secret" || event.secretsKnown),
    terminated: refusal === "deleting",
  };
}

function streamStatusOf(refusal: StreamRefusal, peerId: string, secretsKnown: boolean): Status {
  switch (refusal) {
    case "unknown-peer-id":
      return {
        code: StatusCode.InvalidArgument,
        message: `initial subscription for unknown PeerID: ${peerId}`,
      };
    case "deleting":
    case "terminated":
      return { code: StatusCode.Aborted, message: `peering is marked as deleted: ${peerId}` };
    case "wrong-end":
      return {
        code: StatusCode.InvalidArgument,
        message: "expected PeerID to be empty; the wrong end of peering is being dialed",
      };
    case "wrong-secret":
      return secretsKnown
        ? { code: StatusCode.PermissionDenied, message: "invalid peering stream secret" }
        : NOT_AUTHORIZABLE;
    case "unknown-state":
      return NOT_AUTHORIZABLE;
  }
}

const NOT_AUTHORIZABLE: Status = {
  code: StatusCode.Internal,
  message: "unable to authorize connection, peering must be re-established",
};

function refusalError(refusal: Refusal, peering: MachinePeering | undefined, event: PeeringEvent): PeeringError {
  // The caller's spelling where it named the peering, as Consul does.
  const name = "name" in event ? event.name : (peering?.name ?? "");
  switch (refusal) {
    case "already-established":
      return wrongRole(`cannot create peering with name: "${name}"; there is already an established peering`);
    case "expecting-to-be-dialed":
      return wrongRole(
        `cannot create peering with name: "${name}"; there is an existing peering expecting to be dialed`,
      );
    case "not-a-dialer":
      return wrongRole("Cannot switch peering dialing mode from false to true");
    case "establish-by-acceptor":
      return wrongRole("failed to write peering: Cannot switch peering dialing mode from false to true");
    case "marked-for-deletion":
      return invalidRecord("cannot write to peering that is marked for deletion");
    case "write-marked-for-deletion":
      return invalidRecord(
        "failed to write peering: cannot write to peering that is marked for deletion",
        "Wait until the peering is gone, then try again.",
      );
    case "terminated-by-peer":
      return invalidRecord(
        `cannot create peering with name: "${name}"; the peering was terminated by the peer and must be deleted first`,
        "Delete the peering, wait until it is gone, then generate a token.",
      );
    case "not-active":
      return invalidRecord("peering does not exist or has been marked for deletion");
    case "unknown-peering":
      return invalidRecord(`cannot write peering trust bundle for unknown peering ${name}`);
    case "not-marked":
      return invalidRecord("cannot delete a peering without first marking for deletion");
    case "invalid-establishment-secret":
      return new PeeringError("permission-denied", "invalid peering establishment secret", {
        status: StatusCode.PermissionDenied,
        remedy: "Generate a new token: a token works once, and only until the next one is generated.",
      });
    case "unknown-state":
      return new PeeringError(
        "invalid-transition",
        `peering "${peering?.name ?? name}" is in a state this version does not know; it can only be deleted`,
      );
  }
}

function wrongRole(text: string): PeeringError {
  return new PeeringError("wrong-role", text);
}

function invalidRecord(text: string, remedy?: string): PeeringError {
  return new PeeringError("invalid-record", text, remedy === undefined ? {} : { remedy });
}
