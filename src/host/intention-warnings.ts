import type { Abortable } from "../base/abortable.js";
import { Alarm } from "../base/alarm.js";
import type { Closable } from "../base/closable.js";
import { type Clock, systemClock } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { inTurns } from "../base/turns.js";
import type { ExportedServiceView } from "../config/exports.js";
import type { IntentionAction } from "../config/intentions.js";
import { type PeerIntentionWarning, peerIntentionWarnings } from "../config/peer-intentions.js";
import { isActive } from "../peering/peering.js";
import { lowerCase } from "../syntax/names.js";
import type { PeeringHost } from "./host.js";

/** The parts of a host that warnings look at. */
export type WarnedHost = Pick<PeeringHost, "catalog" | "configEntries" | "exports" | "view" | "incidents">;

export interface FindIntentionWarningsOptions extends Abortable {
  /** The decision on callers that no intention names. */
  readonly byDefault: IntentionAction;
}

/**
 * Places where intentions let in all callers of a peer though they deny those of this cluster, or none though the service is exported to the
 * peer: for all exported services of the mesh.
 */
export function intentionWarnings(
  { catalog, configEntries, exports, view }: WarnedHost,
  { byDefault, signal }: FindIntentionWarningsOptions,
): Promise<readonly PeerIntentionWarning[]> {
  const { entries } = configEntries;
  const kinds = catalog.kinds();
  const active = new Set(view.peerings().flatMap((peering) => (isActive(peering) ? [peering.name] : [])));
  // Intentions are about connections of the mesh. Made one by one, so that others have their turn in between.
  function* exported(): Iterable<ExportedServiceView> {
    for (const { service, peers } of exports.resolved()) {
      const key = lowerCase(service);
      const isInMesh = kinds.get(key)?.connectEnabled === true || entries.chainName(key) !== undefined;
      yield { service, peers: isInMesh ? peers.filter((peer) => active.has(peer)) : [] };
    }
  }
  return inTurns(peerIntentionWarnings(entries, byDefault, exported()), signal);
}

export interface IntentionWarningsOptions {
  /** The decision on callers that no intention names. */
  readonly byDefault: IntentionAction;
  /** How long changes are gathered before they are looked at, in milliseconds. Default 1 000. */
  readonly gatherMs?: number;
  readonly clock?: Clock;
}

/** Reports each warning of {@link intentionWarnings} once, when it comes to be, as an incident of the host, until it is closed. */
export function reportIntentionWarnings(host: WarnedHost, options: IntentionWarningsOptions): Closable {
  const { byDefault, gatherMs = 1_000, clock = systemClock } = options;
  const stop = new AbortController();
  let told: ReadonlySet<string> = new Set();
  let looking: Promise<void> | undefined;
  const report = ({ type, service, peer }: PeerIntentionWarning): void => {
    if (type === "peer-not-denied") {
      host.incidents.report(
        "intention-peer-not-denied",
        "an intention denies every caller of this cluster and none of a peer, which the default lets in",
        { service, peer, remedy: 'Add a source "*" with the peer and action deny.' },
      );
    } else {
      host.incidents.report("intention-peer-not-allowed", "a service is exported to a peer that no intention lets in", {
        service,
        peer,
        remedy: "Add a source with the peer and action allow, or export it no more.",
      });
    }
  };
  const look = async (): Promise<void> => {
    const warnings = await intentionWarnings(host, { byDefault, signal: stop.signal });
    const keyOf = ({ type, service, peer }: PeerIntentionWarning): string => `${type} ${lowerCase(service)} ${peer}`;
    for (const warning of warnings) if (!told.has(keyOf(warning))) report(warning);
    told = new Set(warnings.map(keyOf));
  };
  const alarm = new Alarm(clock, () => {
    // One look at a time; a change meanwhile is looked at after it.
    if (looking !== undefined) return alarm.set(gatherMs);
    looking = look()
      .catch((error: unknown) => {
        if (stop.signal.aborted) return;
        host.incidents.report("intention-warnings-failed", "intentions could not be compared with exports", {
          error: errorText(error),
        });
      })
      .finally(() => {
        looking = undefined;
      });
  });
  const changed = (): void => alarm.ensure(gatherMs);
  const forget = [host.exports.onReachingChange(changed), host.view.onChange(changed)];
  changed();
  const close = async (): Promise<void> => {
    for (const end of forget) end();
    alarm.cancel();
    stop.abort();
    await looking;
  };
  return { close, [Symbol.asyncDispose]: close };
}
