import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import type { PeeringState, Role } from "../../../src/peering/peering.js";
import {
  type MachinePeering,
  PEERING_STATES,
  type PeeringEvent,
  type PeeringEventType,
  type PeeringPatch,
  PeeringStateMachine,
  TRANSITIONS,
  type Transition,
  transition,
} from "../../../src/peering/state-machine.js";

const ID = "11111111-1111-1111-1111-111111111111";
const PEER_ID = "22222222-2222-2222-2222-222222222222";
const NEW_PEER_ID = "33333333-3333-3333-3333-333333333333";

function sample(state: Exclude<PeeringState, "initial">, role: Role): MachinePeering {
  const dialer = role === "dialer";
  const deleting = state === "deleting";
  return {
    id: ID,
    name: "west",
    state,
    ...(deleting ? { deletedAt: 1_000 } : {}),
    meta: deleting ? {} : { team: "a" },
    peerId: dialer && !deleting ? PEER_ID : "",
    peerCaPems: dialer && !deleting ? ["old root\n"] : [],
    peerServerName: dialer && !deleting ? "server.dc1.peering.x.consul" : "",
    peerServerAddresses: dialer ? ["10.0.0.1:8503"] : [],
    manualServerAddresses: [],
    remote: { partition: "", datacenter: "dc1" },
    createIndex: 5n,
    modifyIndex: 7n,
  };
}

const FIELDS = {
  peerId: NEW_PEER_ID,
  peerCaPems: ["new root\n"],
  peerServerName: "server.dc9.peering.y.consul",
  peerServerAddresses: ["10.9.9.9:8503"],
  manualServerAddresses: [],
  remote: { partition: "", datacenter: "dc9" },
  meta: { team: "b" },
};

const EVENTS: { readonly [T in PeeringEventType]: Extract<PeeringEvent, { readonly type: T }> } = {
  "generate-token": { type: "generate-token", id: ID, name: "west", meta: { team: "b" } },
  "establish-begun": { type: "establish-begun", id: ID, name: "west", fields: FIELDS },
  "establish-failed": { type: "establish-failed" },
  "establish-finished": { type: "establish-finished", fields: FIELDS },
  "secret-exchanged": { type: "secret-exchanged" },
  "opened-with-pending-secret": {
    type: "opened-with-pending-secret",
    peerId: ID,
    remote: { partition: "", datacenter: "dc9" },
  },
  "opened-with-active-secret": { type: "opened-with-active-secret", peerId: ID },
  "opened-with-other-secret": { type: "opened-with-other-secret", peerId: ID, secretsKnown: true },
  "stream-connected": { type: "stream-connected" },
  "stream-lost": { type: "stream-lost" },
  resumed: { type: "resumed" },
  "trust-bundle-received": { type: "trust-bundle-received", name: "west", rootPems: ["pushed root"] },
  "server-addresses-received": { type: "server-addresses-received", addresses: ["10.0.0.2:8503"] },
  "peer-terminated": { type: "peer-terminated" },
  "delete-requested": { type: "delete-requested", at: 4_000 },
  "cleanup-finished": { type: "cleanup-finished" },
};

// The table, written down once more, apart from the code. Columns: no record | living acceptor | living dialer |
// deleting acceptor | deleting dialer | terminated acceptor | terminated dialer | unknown state, acceptor | and dialer.
// `=` nothing is written, `~` written in the same state, `> state` moved; then the effects. `! text` an error.
// `x code text` the stream is refused, `xT` after a `Terminated`.
const established = '! wrong-role cannot create peering with name: "west"; there is already an established peering';
const expecting =
  '! wrong-role cannot create peering with name: "west"; there is an existing peering expecting to be dialed';
const marked = "! invalid-record failed to write peering: cannot write to peering that is marked for deletion";
const noSwitch = "Cannot switch peering dialing mode from false to true";
const badSecret = "! permission-denied invalid peering establishment secret";
const unknownState =
  '! invalid-transition peering "west" is in a state this version does not know; it can only be deleted';
const gone = "! invalid-record peering does not exist or has been marked for deletion";
const noPeer = `x 3 initial subscription for unknown PeerID: ${ID}`;
const aborted = `x 10 peering is marked as deleted: ${ID}`;
const tellAndAbort = `xT 10 peering is marked as deleted: ${ID}`;
const wrongEnd = "x 3 expected PeerID to be empty; the wrong end of peering is being dialed";
const reestablish = "x 13 unable to authorize connection, peering must be re-established";
const clean = "remove-imports remove-trust-bundle";

type Columns = readonly [string, string, string, string, string, string, string, string, string];
const same = (value: string): Columns => [value, value, value, value, value, value, value, value, value];

const EXPECTED: Readonly<Record<PeeringEventType, Columns>> = {
  "generate-token": [
    "> pending store-establishment-secret",
    "~ store-establishment-secret",
    established,
    marked,
    established,
    '! invalid-record cannot create peering with name: "west"; the peering was terminated by the peer and must be deleted first',
    established,
    unknownState,
    established,
  ],
  "establish-begun": [
    "> pending",
    expecting,
    "~",
    expecting,
    marked,
    expecting,
    "~ drop-secrets",
    expecting,
    unknownState,
  ],
  "establish-failed": same("="),
  "establish-finished": [
    marked,
    `! wrong-role failed to write peering: ${noSwitch}`,
    "> establishing store-stream-secret start-dialing",
    `! wrong-role failed to write peering: ${noSwitch}`,
    marked,
    `! wrong-role failed to write peering: ${noSwitch}`,
    "> establishing store-stream-secret start-dialing",
    `! wrong-role failed to write peering: ${noSwitch}`,
    unknownState,
  ],
  "secret-exchanged": [
    badSecret,
    "= exchange-secret",
    badSecret,
    badSecret,
    badSecret,
    badSecret,
    badSecret,
    badSecret,
    badSecret,
  ],
  "opened-with-pending-secret": [
    noPeer,
    "~ promote-secret accept-stream",
    wrongEnd,
    tellAndAbort,
    tellAndAbort,
    aborted,
    aborted,
    reestablish,
    reestablish,
  ],
  "opened-with-active-secret": [
    noPeer,
    "= accept-stream",
    wrongEnd,
    tellAndAbort,
    tellAndAbort,
    aborted,
    aborted,
    reestablish,
    reestablish,
  ],
  "opened-with-other-secret": [
    noPeer,
    "x 7 invalid peering stream secret",
    "x 7 invalid peering stream secret",
    tellAndAbort,
    tellAndAbort,
    aborted,
    aborted,
    reestablish,
    reestablish,
  ],
  "stream-connected": [
    "= end-stream",
    "=",
    "=",
    "= send-terminated",
    "= send-terminated",
    "= end-stream",
    "= end-stream",
    "= end-stream",
    "= end-stream",
  ],
  "stream-lost": ["=", "=", "= redial", "=", "=", "=", "=", "=", "="],
  resumed: [
    "= end-stream stop-dialing",
    "=",
    "= start-dialing",
    `= send-terminated ${clean} remove-record`,
    `= stop-dialing send-terminated ${clean} remove-record`,
    `= end-stream ${clean}`,
    `= end-stream stop-dialing ${clean}`,
    "=",
    "=",
  ],
  "trust-bundle-received": [
    "! invalid-record cannot write peering trust bundle for unknown peering west",
    "~ store-trust-bundle",
    "~ store-trust-bundle",
    "! invalid-record cannot write to peering that is marked for deletion",
    "! invalid-record cannot write to peering that is marked for deletion",
    gone,
    gone,
    unknownState,
    unknownState,
  ],
  "server-addresses-received": [
    gone,
    `! wrong-role ${noSwitch}`,
    "~",
    gone,
    gone,
    gone,
    gone,
    unknownState,
    unknownState,
  ],
  "peer-terminated": [
    "= end-stream",
    `> terminated end-stream ${clean}`,
    `> terminated end-stream stop-dialing ${clean}`,
    "= end-stream",
    "= end-stream",
    "= end-stream",
    "= end-stream",
    `> terminated end-stream ${clean}`,
    `> terminated end-stream stop-dialing ${clean}`,
  ],
  "delete-requested": [
    "=",
    `> deleting drop-secrets send-terminated ${clean} remove-record`,
    `> deleting drop-secrets stop-dialing send-terminated ${clean} remove-record`,
    "=",
    "=",
    `> deleting drop-secrets ${clean} remove-record`,
    `> deleting drop-secrets ${clean} remove-record`,
    `> deleting drop-secrets send-terminated ${clean} remove-record`,
    `> deleting drop-secrets stop-dialing send-terminated ${clean} remove-record`,
  ],
  "cleanup-finished": [
    "=",
    "! invalid-record cannot delete a peering without first marking for deletion",
    "! invalid-record cannot delete a peering without first marking for deletion",
    "> initial",
    "> initial",
    "=",
    "=",
    "! invalid-record cannot delete a peering without first marking for deletion",
    "! invalid-record cannot delete a peering without first marking for deletion",
  ],
};

function columnOf(state: PeeringState, role: Role): number {
  const second = role === "dialer" ? 1 : 0;
  switch (state) {
    case "initial":
      return 0;
    case "deleting":
      return 3 + second;
    case "terminated":
      return 5 + second;
    case "undefined":
      return 7 + second;
    default:
      return 1 + second;
  }
}

/** The outcome, in the notation of the table above. */
function outcome(peering: MachinePeering | undefined, event: PeeringEvent): string {
  let result: Transition;
  try {
    result = transition(peering, event);
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    return `! ${error.code} ${error.message}`;
  }
  const refused = result.effects.find((effect) => effect.type === "refuse-stream");
  if (refused !== undefined && refused.type === "refuse-stream") {
    assert.equal(result.effects.length, 1);
    assert.equal(result.peering, peering);
    return `${refused.terminated ? "xT" : "x"} ${refused.status.code} ${refused.status.message}`;
  }
  const before = peering?.state ?? "initial";
  const after = result.peering?.state ?? "initial";
  if (!result.written) {
    assert.equal(result.peering, peering);
    assert.deepEqual(result.patches, []);
  }
  const moved = result.written ? (before === after ? "~" : `> ${after}`) : "=";
  return [moved, ...result.effects.map((effect) => effect.type)].join(" ");
}

describe("every cell of the table", () => {
  const types = Object.keys(EXPECTED).filter((type): type is PeeringEventType => type in TRANSITIONS);

  it("names the same events and states as the table", () => {
    assert.deepEqual(new Set(Object.keys(TRANSITIONS)), new Set(types));
    assert.equal(types.length, Object.keys(EXPECTED).length);
    for (const type of types) assert.deepEqual(Object.keys(TRANSITIONS[type]), PEERING_STATES);
  });

  for (const type of types) {
    for (const state of PEERING_STATES) {
      for (const role of ["acceptor", "dialer"] as const) {
        if (state === "initial" && role === "dialer") continue;
        it(`${type} while ${state}${state === "initial" ? "" : ` as ${role}`}`, () => {
          const peering = state === "initial" ? undefined : sample(state, role);
          const copy = structuredClone(peering);
          const found = outcome(peering, EVENTS[type]);
          const expected = EXPECTED[type][columnOf(state, role)];
          // Establishing an ESTABLISHING dialer again stays in its state, and is written.
          const stays = expected?.startsWith(`> ${state} `) ? expected.replace(`> ${state}`, "~") : expected;
          assert.equal(found, stays);
          assert.deepEqual(peering, copy, "the given record is unchanged");
        });
      }
    }
  }
});

describe("the writes of an event", () => {
  it("a second token leaves the record as it is, its metadata too (LC1)", () => {
    const before = sample("pending", "acceptor");
    const { peering, written, patches } = transition(before, EVENTS["generate-token"]);
    assert.deepEqual(peering, before);
    assert.equal(written, true);
    assert.deepEqual(patches, []);
  });

  it("a first token makes an acceptor record with the caller's metadata", () => {
    const { peering } = transition(undefined, EVENTS["generate-token"]);
    assert.equal(peering?.state, "pending");
    assert.deepEqual(peering?.meta, { team: "b" });
    assert.equal(peering?.peerId, "");
  });

  it("establishing a TERMINATED dialer keeps its id and takes the rest from the token (LC12)", () => {
    const begun = transition(sample("terminated", "dialer"), EVENTS["establish-begun"]).peering;
    assert.equal(begun?.state, "terminated");
    assert.equal(begun?.id, ID);
    assert.equal(begun?.peerId, NEW_PEER_ID);
    assert.deepEqual(begun?.meta, { team: "b" });
    const finished = transition(begun, EVENTS["establish-finished"]).peering;
    assert.equal(finished?.state, "establishing");
    assert.equal(finished?.id, ID);
  });

  it("establishing replaces the cluster of a PENDING dialer at once, that of one with a secret at the end (ch1 case 73, LC8)", () => {
    const taken = (peering: MachinePeering | undefined): unknown =>
      peering && [
        peering.peerId,
        peering.peerCaPems,
        peering.peerServerName,
        peering.peerServerAddresses,
        peering.meta,
      ];
    const wanted = [NEW_PEER_ID, ["new root\n"], FIELDS.peerServerName, FIELDS.peerServerAddresses, FIELDS.meta];
    assert.deepEqual(taken(transition(sample("pending", "dialer"), EVENTS["establish-begun"]).peering), wanted);
    const before = sample("establishing", "dialer");
    const begun = transition(before, EVENTS["establish-begun"]).peering;
    assert.deepEqual(begun, { ...before, meta: FIELDS.meta });
    assert.deepEqual(taken(transition(before, EVENTS["establish-finished"]).peering), wanted);
  });

  it("an empty Remote does not replace a known one", () => {
    const remote = { partition: "", datacenter: "" };
    const fields = { ...FIELDS, remote };
    const before = sample("establishing", "dialer");
    assert.deepEqual(transition(before, { ...EVENTS["establish-finished"], fields }).peering?.remote, before.remote);
    const opened = { ...EVENTS["opened-with-pending-secret"], remote };
    const acceptor = sample("pending", "acceptor");
    assert.deepEqual(transition(acceptor, opened).peering?.remote, acceptor.remote);
  });

  it("the promotion stores the dialer's description of itself (ch1 case 30)", () => {
    const { peering, patches } = transition(sample("pending", "acceptor"), EVENTS["opened-with-pending-secret"]);
    assert.deepEqual(peering?.remote, { partition: "", datacenter: "dc9" });
    assert.equal(patches.length, 1);
  });

  it("pushed addresses replace the known ones, manual ones stay (ch1 case 53)", () => {
    const before = { ...sample("establishing", "dialer"), manualServerAddresses: ["m:1"] };
    const { peering } = transition(before, EVENTS["server-addresses-received"]);
    assert.deepEqual(peering?.peerServerAddresses, ["10.0.0.2:8503"]);
    assert.deepEqual(peering?.manualServerAddresses, ["m:1"]);
  });

  it("an empty list is refused, also with manual addresses and on an acceptor (ch1 case 55)", () => {
    const event = { ...EVENTS["server-addresses-received"], addresses: [] };
    const dialer = sample("establishing", "dialer");
    for (const peering of [dialer, { ...dialer, manualServerAddresses: ["m:1"] }, sample("pending", "acceptor")]) {
      assert.equal(outcome(peering, event), "! wrong-role Cannot switch peering dialing mode from true to false");
    }
    assert.equal(outcome(sample("terminated", "dialer"), event), gone);
  });

  it("a received bundle gives its roots to the record, each ending in a newline", () => {
    const { peering } = transition(sample("establishing", "dialer"), EVENTS["trust-bundle-received"]);
    assert.deepEqual(peering?.peerCaPems, ["pushed root\n"]);
  });

  it("1.7: a bundle of Consul 1.13 leaves them as they are", () => {
    const before = sample("establishing", "dialer");
    const event = { type: "trust-bundle-received", name: "west", rootPems: ["pushed root"], servers: false } as const;
    const { peering, patches } = transition(before, event);
    assert.deepEqual(peering, before);
    assert.deepEqual(patches, []);
  });

  it("`Terminated` for the peering this record was before does nothing (ch3 case 71)", () => {
    const peering = sample("establishing", "dialer");
    assert.equal(outcome(peering, { type: "peer-terminated", peerId: NEW_PEER_ID }), "= end-stream");
    assert.match(outcome(peering, { type: "peer-terminated", peerId: PEER_ID }), /^> terminated/);
  });

  it("`Terminated` keeps everything but the state", () => {
    const before = sample("establishing", "dialer");
    const { peering, patches } = transition(before, { type: "peer-terminated" });
    assert.deepEqual(peering, { ...before, state: "terminated" });
    assert.deepEqual(patches, [{ op: "replace", path: ["state"], value: "terminated" }]);
  });

  it("DELETING keeps id, name, addresses and Remote, and drops the rest (LC14)", () => {
    const before = sample("establishing", "dialer");
    const { peering } = transition(before, { type: "delete-requested", at: 4_000 });
    assert.deepEqual(peering, {
      ...before,
      state: "deleting",
      deletedAt: 4_000,
      meta: {},
      peerId: "",
      peerCaPems: [],
      peerServerName: "",
    });
  });

  it("refuses to become a dialer without addresses or without the acceptor's id", () => {
    for (const before of [undefined, sample("pending", "dialer"), sample("establishing", "dialer")]) {
      const begin = (fields: typeof FIELDS): string => outcome(before, { ...EVENTS["establish-begun"], fields });
      assert.match(begin({ ...FIELDS, peerServerAddresses: [] }), /^! invalid-token/);
      assert.match(begin({ ...FIELDS, peerId: "" }), /^! invalid-token/);
    }
  });

  it("an acceptor without any secret must be re-established (ch1 case 25)", () => {
    const event = { ...EVENTS["opened-with-other-secret"], secretsKnown: false };
    assert.equal(outcome(sample("pending", "acceptor"), event), reestablish);
  });

  it("a refused secret carries the status that goes to the peer", () => {
    assert.throws(
      () => transition(undefined, { type: "secret-exchanged" }),
      (error: unknown) => error instanceof PeeringError && error.status === 7 && error.remedy !== undefined,
    );
  });
});

describe("PeeringStateMachine", () => {
  it("holds one peering and moves it; a refusal leaves it where it was", () => {
    const machine = new PeeringStateMachine();
    assert.equal(machine.state, "initial");
    machine.handle(EVENTS["establish-begun"]);
    assert.equal(machine.state, "pending");
    machine.handle(EVENTS["establish-finished"]);
    assert.equal(machine.state, "establishing");
    machine.handle(EVENTS["delete-requested"]);
    assert.throws(() => machine.handle(EVENTS["establish-begun"]), PeeringError);
    assert.equal(machine.state, "deleting");
    machine.handle(EVENTS["cleanup-finished"]);
    assert.equal(machine.state, "initial");
    assert.equal(machine.peering, undefined);
  });

  it("any run of events: patches lead from record to record, and I8 to I11 hold", () => {
    const event = fc.constantFrom(...Object.values(EVENTS));
    fc.assert(
      fc.property(fc.array(event, { maxLength: 25 }), (events) => {
        const machine = new PeeringStateMachine();
        for (const next of events) {
          const before = machine.peering;
          let result: Transition;
          try {
            result = machine.handle(next);
          } catch (error) {
            assert.ok(error instanceof PeeringError);
            assert.equal(machine.peering, before);
            continue;
          }
          const after = machine.peering;
          assert.deepEqual(patched(before, result.patches), after);
          if (before !== undefined && after !== undefined) {
            assert.equal(after.id, before.id);
            assert.equal(after.name, before.name);
            assert.equal(after.peerServerAddresses.length > 0, before.peerServerAddresses.length > 0);
          }
          if (after !== undefined) assert.equal(after.deletedAt !== undefined, after.state === "deleting");
          if (before === undefined && after !== undefined) assert.equal(after.state, "pending");
          if (before !== undefined && after === undefined) assert.equal(before.state, "deleting");
          if (before?.state === "deleting" && after !== undefined) assert.equal(after.state, "deleting");
        }
      }),
    );
  });
});

/** `record` after `patches`, by an implementation of its own. */
function patched(record: MachinePeering | undefined, patches: readonly PeeringPatch[]): unknown {
  let root: unknown = structuredClone(record);
  for (const { op, path, value } of patches) {
    const last = path.at(-1);
    if (last === undefined) {
      root = value;
      continue;
    }
    let holder: unknown = root;
    for (const part of path.slice(0, -1))
      holder = typeof holder === "object" && holder ? Reflect.get(holder, part) : holder;
    assert.ok(typeof holder === "object" && holder !== null);
    if (op === "remove") Reflect.deleteProperty(holder, last);
    else Reflect.set(holder, last, structuredClone(value));
  }
  return root;
}
