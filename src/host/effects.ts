import { InvariantError } from "../base/errors.js";
import type { HostEffect } from "../peering/state-machine.js";
import type { HostTask, PeeringRecords } from "../stores/records.js";
import type { Deletion, Removal } from "./deletion.js";
import type { Dialer } from "./dialer.js";
import type { OpenedStream, Streams } from "./streams.js";

export interface EffectsOptions {
  readonly records: Pick<PeeringRecords, "list" | "observe">;
  readonly streams: Pick<Streams, "terminate" | "dismiss" | "retire">;
  readonly dialer: Pick<Dialer, "start" | "redial" | "end" | "endAll">;
  readonly deletion: Pick<Deletion, "replace">;
  /** Whether this host leads its cluster and has peering enabled. */
  readonly leads: () => boolean;
}

/**
 * Performs the effects that the state machine asks of a host: each effect here and nowhere else. A follower must not
 * tell a peer, dial or remove: the machine asks the leader for these effects again when it resumes.
 */
export class Effects {
  readonly #options: EffectsOptions;

  constructor(options: EffectsOptions) {
    this.#options = options;
  }

  /** @param stream - which the effects accept or refuse. */
  perform(task: HostTask, stream?: OpenedStream): void {
    const removals: Removal[] = [];
    for (const effect of task.effects) this.#perform(effect, task, removals, stream);
    if (task.replaces) this.#options.deletion.replace(task.peeringId, removals);
  }

  /** Goes on with every peering as it is stored: after a start, and when this host comes to lead. A follower does not dial. */
  resume(): void {
    const { records, dialer, leads } = this.#options;
    if (!leads()) {
      dialer.endAll();
      return;
    }
    for (const { id } of records.list()) records.observe(id, { type: "resumed" });
  }

  #perform(effect: HostEffect, task: HostTask, removals: Removal[], stream: OpenedStream | undefined): void {
    const { streams, dialer, leads } = this.#options;
    const { peeringId, peering } = task;
    switch (effect.type) {
      case "accept-stream":
        if (peering === undefined || stream === undefined) throw new InvariantError("there is no stream to accept");
        stream.accept(peering);
        break;
      case "refuse-stream":
        if (stream === undefined) throw new InvariantError("there is no stream to refuse");
        stream.refuse(effect.status, effect.terminated);
        break;
      case "send-terminated":
        if (leads()) streams.terminate(peeringId);
        break;
      case "end-stream":
        streams.dismiss(peeringId, effect.peerId);
        break;
      case "start-dialing":
        if (peering !== undefined) streams.retire(peeringId, peering.peerId);
        dialer.start(peeringId);
        break;
      case "redial":
        dialer.redial(peeringId);
        break;
      case "stop-dialing":
        dialer.end(peeringId);
        break;
      case "remove-imports":
      case "remove-trust-bundle":
      case "remove-record":
        removals.push(effect.type);
        break;
      default:
        effect satisfies never;
    }
  }
}
