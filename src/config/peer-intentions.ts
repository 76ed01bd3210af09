import type { ConfigEntrySet } from "./config-entry-set.js";
import type { IntentionAction, IntentionSource } from "./intentions.js";

/** Something that intentions do to the callers of a peer, and that is seldom meant. */
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

/**
 * Where intentions and exports do not go together. A source without a peer covers callers of this cluster alone, `*` included, which is easily missed.
 * @param exported - the services of the mesh that are exported, each with the names of its peers.
 */
export function peerIntentionWarnings(
  entries: ConfigEntrySet,
  byDefault: IntentionAction,
  exported: Iterable<{ readonly service: string; readonly peers: readonly string[] }>,
): readonly PeerIntentionWarning[] {
  const found: PeerIntentionWarning[] = [];
  for (const { service, peers } of exported) {
    const levels = [service, "*"].map((name) => entries.get("service-intentions", name)?.sources ?? []);
    for (const peer of peers) {
      const warning = byDefault === "allow" ? openTo(service, peer, levels) : closedTo(service, peer, levels);
      if (warning !== undefined) found.push(warning);
    }
  }
  return found;
}

function openTo(
  service: string,
  peer: string,
  levels: readonly (readonly IntentionSource[])[],
): PeerIntentionWarning | undefined {
  const every = (from: string): IntentionSource | undefined =>
    levels.flatMap((sources) => sources.find((source) => source.name === "*" && (source.peer ?? "") === from) ?? [])[0];
  const local = every("");
  if (every(peer) !== undefined || local?.action !== "deny") return undefined;
  const text =
    `"${service}" is exported to the peer "${peer}", and an intention denies every caller ("*") of this cluster but not those of the peer: ` +
    `with the default "allow" every service of "${peer}" may call it. Add a source "*" with peer "${peer}" and action deny.`;
  return { type: "peer-not-denied", service, peer, text };
}

function closedTo(
  service: string,
  peer: string,
  levels: readonly (readonly IntentionSource[])[],
): PeerIntentionWarning | undefined {
  for (const sources of levels) {
    const own = sources.filter((source) => source.peer === peer);
    if (own.some(letsIn)) return undefined;
    // It decides for every caller of the peer, before intentions for all services are looked at.
    if (own.some(({ name }) => name === "*")) break;
  }
  const text =
    `"${service}" is exported to the peer "${peer}", and no intention lets any service of "${peer}" call it. ` +
    `Add a source with peer "${peer}" and action allow to its service-intentions.`;
  return { type: "peer-not-allowed", service, peer, text };
}

function letsIn({ action, permissions = [] }: IntentionSource): boolean {
  return action === "allow" || permissions.some((permission) => permission.action === "allow");
}
