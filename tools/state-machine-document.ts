import { PeeringError } from "../src/base/errors.js";
import type { PeeringState, Role } from "../src/peering/peering.js";
import {
  type Cell,
  type MachinePeering,
  PEERING_STATES,
  type PeeringEvent,
  type PeeringEventType,
  TRANSITIONS,
  transition,
} from "../src/peering/state-machine.js";

const ROLES: readonly Role[] = ["acceptor", "dialer"];

const fields = {
  peerId: "<peer id>",
  peerCaPems: [],
  peerServerName: "",
  peerServerAddresses: ["<address>"],
  manualServerAddresses: [],
  remote: { partition: "", datacenter: "" },
  meta: {},
};

/** One of each event, with what it says about itself. */
const events: { readonly [T in PeeringEventType]: readonly [Extract<PeeringEvent, { readonly type: T }>, string] } = {
  "generate-token": [{ type: "generate-token", id: "<id>", name: "<name>", meta: {} }, "A caller asks for a token."],
  "establish-begun": [
    { type: "establish-begun", id: "<id>", name: "<name>", fields },
    "A caller establishes with a token: the first write, before the exchange of secrets. A record that has a secret takes nothing but metadata.",
  ],
  "establish-failed": [{ type: "establish-failed" }, "The exchange of secrets failed."],
  "establish-finished": [
    { type: "establish-finished", fields },
    "The acceptor gave its stream secret: the second write.",
  ],
  "secret-exchanged": [{ type: "secret-exchanged" }, "A dialer presented the establishment secret of the last token."],
  "opened-with-pending-secret": [
    { type: "opened-with-pending-secret", peerId: "<id>", remote: fields.remote },
    "A dialer opened a stream with the secret it was given last.",
  ],
  "opened-with-active-secret": [
    { type: "opened-with-active-secret", peerId: "<id>" },
    "A dialer opened a stream with the secret it opened the last one with.",
  ],
  "opened-with-other-secret": [
    { type: "opened-with-other-secret", peerId: "<id>", secretsKnown: true },
    "A dialer opened a stream with any other secret.",
  ],
  "stream-connected": [
    { type: "stream-connected" },
    "A stream was accepted, or a dial succeeded. Opened for what the record was before it was established again: the stream ends. Observed, never stored.",
  ],
  "stream-lost": [
    { type: "stream-lost" },
    "A dial failed, or its stream ended without `Terminated`. Observed, never stored.",
  ],
  resumed: [
    { type: "resumed" },
    "The host starts, comes to lead, or finds the record written by another process: what is to be done follows from what is stored.",
  ],
  "trust-bundle-received": [
    { type: "trust-bundle-received", name: "<name>", rootPems: [] },
    "The peer sent its roots.",
  ],
  "server-addresses-received": [
    { type: "server-addresses-received", addresses: ["<address>"] },
    "The peer sent where it can be dialed. An empty list is refused.",
  ],
  "peer-terminated": [
    { type: "peer-terminated" },
    "The peer deleted the peering. Meant for what the record was before it was established again: only the stream ends.",
  ],
  "delete-requested": [{ type: "delete-requested", at: 1 }, "An operator deletes the peering."],
  "cleanup-finished": [{ type: "cleanup-finished" }, "Imported data and trust bundle are gone."],
};

const eventTypes = Object.keys(TRANSITIONS).filter((type): type is PeeringEventType => type in events);

/** `docs/state-machine.md`, made from the table that the code runs on. */
export function stateMachineDocument(): string {
  return `# The states of a peering

<!-- Made from src/peering/state-machine.ts by \`npm run generate:docs\`. Do not edit. -->

What is stored is PENDING, ESTABLISHING, DELETING or TERMINATED. ACTIVE and FAILING are never stored: they are computed from
the stored record and the live stream whenever somebody reads. INITIAL is a peering before its first write; it is never on the
wire. UNDEFINED is a number this version does not know: nothing is built on such a record, but it can be ended.

A record is that of a dialer when it has addresses to dial, else that of an acceptor.

## Life of a record

\`\`\`mermaid
${diagram()}
\`\`\`

## Shown while it lives

\`\`\`mermaid
stateDiagram-v2
  state "as stored: PENDING (acceptor), ESTABLISHING (dialer)" as stored
  [*] --> stored
  stored --> ACTIVE: a stream is up
  stored --> FAILING: the first stream was refused
  ACTIVE --> FAILING: the stream ended with an error
  FAILING --> ACTIVE: a stream is up
  ACTIVE --> stored: the process restarted
  FAILING --> stored: the process restarted
\`\`\`

A stored DELETING or TERMINATED is shown as it is, whatever the last stream still does.

## Events

${eventTypes.map(section).join("\n\n")}
`;
}

/** Edges of what is stored, with the events that lead along them. */
function diagram(): string {
  const edges = new Map<string, string[]>();
  for (const type of eventTypes) {
    for (const state of PEERING_STATES) {
      if (state === "active" || state === "failing" || state === "undefined") continue;
      for (const role of ROLES) {
        const cell: Cell = TRANSITIONS[type][state][role];
        if (cell.outcome !== "moved" || cell.to === state) continue;
        // Neither role reaches what the other one stores.
        if (state === "establishing" && role === "acceptor") continue;
        const edge = `${node(state)} --> ${node(cell.to)}`;
        const label = state === "initial" || bothMove(type, state) ? type : `${type} (${role})`;
        const labels = edges.get(edge) ?? [];
        edges.set(edge, labels.includes(label) ? labels : [...labels, label]);
      }
    }
  }
  const lines = [...edges].map(([edge, labels]) => `  ${edge}: ${labels.join("<br>")}`);
  return ["stateDiagram-v2", ...lines].join("\n");
}

function bothMove(type: PeeringEventType, state: PeeringState): boolean {
  return state === "establishing" || ROLES.every((role) => TRANSITIONS[type][state][role].outcome === "moved");
}

function node(state: PeeringState): string {
  return state === "initial" ? "[*]" : state.toUpperCase();
}

function section(type: PeeringEventType): string {
  const [event, meaning] = events[type];
  const rows = groups(type).map(
    ([states, role, cell]) =>
      `| ${states.map((state) => state.toUpperCase()).join(", ")} | ${role} | ${told(states[0], role, cell, event)} |`,
  );
  return [`### ${type}`, "", meaning, "", "| State | Role | What happens |", "|---|---|---|", ...rows].join("\n");
}

type Group = readonly [readonly PeeringState[], Role | "both", Cell];

/** Neighbouring states with equal cells are one row, and so are equal roles. */
function groups(type: PeeringEventType): readonly Group[] {
  const row = TRANSITIONS[type];
  const key = (state: PeeringState): string => JSON.stringify(row[state]);
  const merged: PeeringState[][] = [];
  for (const state of PEERING_STATES) {
    const last = merged.at(-1);
    if (last?.[0] !== undefined && key(last[0]) === key(state)) last.push(state);
    else merged.push([state]);
  }
  return merged.flatMap((states): readonly Group[] => {
    const cells = row[states[0] ?? "initial"];
    if (JSON.stringify(cells.acceptor) === JSON.stringify(cells.dialer)) return [[states, "both", cells.acceptor]];
    return [
      [states, "acceptor", cells.acceptor],
      [states, "dialer", cells.dialer],
    ];
  });
}

function told(state: PeeringState | undefined, role: Role | "both", cell: Cell, event: PeeringEvent): string {
  const text = outcome(state, role, cell, event);
  if (cell.unreachable !== undefined) return `${text}. No host gets here: ${cell.unreachable}`;
  return cell.redundant === undefined ? text : `${text}. A host has nothing left to do: ${cell.redundant}`;
}

function outcome(state: PeeringState | undefined, role: Role | "both", cell: Cell, event: PeeringEvent): string {
  switch (cell.outcome) {
    case "unchanged":
      return withEffects("the record stays as it is", cell.effects);
    case "updated":
      return withEffects("written, state stays", cell.effects);
    case "moved":
      return withEffects(cell.to === "initial" ? "the record is removed" : `→ ${cell.to.toUpperCase()}`, cell.effects);
    case "stream-refused":
    case "refused":
      return refusal(state, role, event);
  }
}

function withEffects(text: string, effects: readonly string[]): string {
  return effects.length === 0 ? text : `${text}; ${effects.map((effect) => `\`${effect}\``).join(", ")}`;
}

/** The very text that a caller or a peer is told. */
function refusal(state: PeeringState | undefined, role: Role | "both", event: PeeringEvent): string {
  const peering = state === undefined || state === "initial" ? undefined : sample(state, role);
  try {
    for (const effect of transition(peering, event).effects) {
      if (effect.type !== "refuse-stream") continue;
      const { code, message } = effect.status;
      return `stream refused${effect.terminated ? " after `Terminated`" : ""}, status ${code}: ${cited(message)}`;
    }
  } catch (error) {
    if (error instanceof PeeringError) return `refused, \`${error.code}\`: ${cited(error.message)}`;
    throw error;
  }
  throw new TypeError(`${event.type} is not refused while ${state}`);
}

function cited(text: string): string {
  return `\`${text}\``;
}

function sample(state: Exclude<PeeringState, "initial">, role: Role | "both"): MachinePeering {
  return {
    id: "<id>",
    name: "<name>",
    state,
    ...fields,
    peerServerAddresses: role === "dialer" ? ["<address>"] : [],
    createIndex: 1n,
    modifyIndex: 1n,
  };
}
