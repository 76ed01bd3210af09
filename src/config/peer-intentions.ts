import { StepMeter, type Steps } from "../base/steps.js";
import type { ConfigEntrySet } from "./config-entry-set.js";
import type { IntentionAction, IntentionSource } from "./intentions.js";

/** A place where intentions treat the callers of a peer in a way that is seldom meant. */
export interface PeerIntentionWarning {
  /**
   * `peer-not-denied`: callers of this cluster are denied, those of the peer are not. `peer-not-allowed`: the service is exported to the
   * peer, and none of its callers may come.
   */
  readonly type: "peer-not-denied" | "peer-not-allowed";
  readonly service: string;
  readonly peer: string;
  readonly text: string;
}

/** The sources of one destination for the callers of one cluster. */
interface Callers {
  /** The source for every one of them. */
  every: IntentionSource | undefined;
  /** Whether any source lets any of them in. */
  letsIn: boolean;
}

/**
 * Where intentions and exports do not go together. A source without a peer covers callers of this cluster alone, `*` included, which is easily missed.
 * @param exported - the services of the mesh that are exported, each with the names of its peers; those without any are passed over.
 */
export function* peerIntentionWarnings(
  entries: ConfigEntrySet,
  byDefault: IntentionAction,
  exported: Iterable<{ readonly service: string; readonly peers: readonly string[] }>,
): Steps<readonly PeerIntentionWarning[]> {
  const meter = new StepMeter();
  const found: PeerIntentionWarning[] = [];
  const known = new Map<readonly IntentionSource[], ReadonlyMap<string, Callers>>();
  const callersOf = (destination: string): ReadonlyMap<string, Callers> => {
    const sources = entries.get("service-intentions", destination)?.sources ?? [];
    const callers = known.get(sources) ?? byPeer(sources);
    known.set(sources, callers);
    return callers;
  };
  for (const { service, peers } of exported) {
    if (meter.isOver(PAIR)) yield;
    const levels = [callersOf(service), callersOf("*")];
    for (const peer of peers) {
      if (meter.isOver(PAIR)) yield;
      const judge = byDefault === "allow" ? openTo : closedTo;
      const warning = judge(service, peer, levels);
      if (warning !== undefined) found.push(warning);
    }
  }
  return found;
}

function byPeer(sources: readonly IntentionSource[]): ReadonlyMap<string, Callers> {
  const found = new Map<string, Callers>();
  for (const source of sources) {
    const { name, peer = "", action, permissions = [] } = source;
    const callers = found.get(peer) ?? { every: undefined, letsIn: false };
    found.set(peer, callers);
    if (name === "*") callers.every ??= source;
    if (action === "allow" || permissions.some((permission) => permission.action === "allow")) callers.letsIn = true;
  }
  return found;
}

/** Takes as long as reading so many fields. */
const PAIR = 10;

type Levels = readonly ReadonlyMap<string, Callers>[];

function openTo(service: string, peer: string, levels: Levels): PeerIntentionWarning | undefined {
  const every = (from: string): IntentionSource | undefined =>
    levels.map((callers) => callers.get(from)?.every).find((source) => source !== undefined);
  if (every(peer) !== undefined || every("")?.action !== "deny") return undefined;
  const text =
    `"${service}" is exported to the peer "${peer}", and an intention denies every caller ("*") of this cluster but not those of the peer: ` +
    `with the default "allow" every service of "${peer}" may call it. Add a source "*" with peer "${peer}" and action deny.`;
  return { type: "peer-not-denied", service, peer, text };
}

function closedTo(service: string, peer: string, levels: Levels): PeerIntentionWarning | undefined {
  for (const callers of levels) {
    const own = callers.get(peer);
    if (own?.letsIn === true) return undefined;
    // It decides for every caller of the peer, before intentions for all services are looked at.
    if (own?.every !== undefined) break;
  }
  const text =
    `"${service}" is exported to the peer "${peer}", and no intention lets any service of "${peer}" call it. ` +
    `Add a source with peer "${peer}" and action allow to its service-intentions.`;
  return { type: "peer-not-allowed", service, peer, text };
}
