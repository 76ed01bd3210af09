import type { PeeringErrorCode } from "../base/errors.js";
import { isStorageFault, PeeringError } from "../base/errors.js";
import type { OpenMessage, ReplicationMessage, RequestMessage, ResponseMessage } from "../wire/messages.js";
import { Operation, ResourceUrl } from "../wire/messages.js";
import type { Status } from "../wire/status.js";
import { StatusCode } from "../wire/status.js";
import { AnswerQueue, answerTo, type Change, notApplied, openEnvelope, type Refusal } from "./answer.js";
import { errorOf, rpcErrorText } from "./ends.js";
import { clip, Lane, laneOf, OutboundTable } from "./outbound.js";
import type {
  AppliedResult,
  ExportedResource,
  Session,
  SessionDialect,
  SessionInput,
  SessionLimits,
  SessionOptions,
  SessionOutput,
  SessionPhase,
  SessionServices,
  SessionStatus,
  SessionTimings,
} from "./types.js";

/** Consul's, 1.13 to 1.22; `sendStallMs` and `drainMs` are ours (D-10, D-2). */
export const defaultSessionTimings: SessionTimings = {
  heartbeatIntervalMs: 15_000,
  heartbeatTimeoutMs: 120_000,
  sendStallMs: 120_000,
  drainMs: 5_000,
};

/** Far above the needs of a peer that keeps the protocol. */
export const defaultSessionLimits: SessionLimits = {
  answerBytes: 64 * 1024 * 1024,
  applies: 1_000_000,
  applyBytes: 512 * 1024 * 1024,
};

/** The most messages that may arrive behind an `Open` while it is judged. A dialer has five small messages to send there. */
const MAX_BEHIND_OPEN = 64;
const MAX_BYTES_BEHIND_OPEN = 1024 * 1024;

/** The largest message that Consul 1.13 receives, in either role: the default of its gRPC library. */
const LEGACY_RECEIVE_BYTES = 4 * 1024 * 1024;

/** About how many bytes a message takes on the wire beside its payload, for `writable`. */
const ENVELOPE_BYTES = 200;

const NOTHING: readonly SessionOutput[] = [];
const OK: Status = { code: StatusCode.Ok, message: "" };

interface Applying {
  readonly change: Change;
  readonly nonce: string;
  readonly resourceUrl: string;
  readonly resourceId: string;
  readonly bytes: number;
}

/**
 * One replication stream as a value: both roles, from the `Open` to the drain (docs/protocol.md, "The stream").
 * Whether the peer is Consul 1.13 is detected on each stream, without an option (D-50).
 *
 * It reads no clock and performs nothing. The owner gives it inputs and performs the outputs, in order. Outgoing messages
 * wait in a table keyed by resource and are given out only against `writable`; incoming ones are answered when the
 * owner says how storing them ended. So neither direction ever waits for the other, nor for storage (D-10).
 */
export class ReplicationSession implements Session {
  readonly #role: "acceptor" | "dialer";
  readonly #timings: SessionTimings;
  readonly #limits: SessionLimits;
  readonly #strictConsul: boolean;
  readonly #remoteId: string;
  readonly #maxSendBytes: number;

  #phase: SessionPhase = "opening";
  #started = false;
  #dialect: SessionDialect = "unknown";
  #nowMs = 0;
  #leader = true;
  #leaderAddress = "";

  // Opening, acceptor.
  #judged: OpenMessage | undefined;
  #behindOpen: ReplicationMessage[] = [];
  #bytesBehindOpen = 0;
  #endBehindOpen: { readonly error: PeeringError | undefined } | undefined;

  // Messages that wait to be sent, in the order of the lanes: see #pump.
  #open: OpenMessage | undefined;
  #terminatedWaits = false;
  #heartbeatWaits = false;
  readonly #answers = new AnswerQueue();
  #subscriptions: string[] = [];
  readonly #exports: OutboundTable;
  /** Whether our subscription to the list is held back until the peer shows that it knows the type. */
  #listWithheld = false;
  #credit = 0;
  /** Whether something was given out that the transport has not confirmed to have taken. */
  #unconfirmed = false;

  readonly #applying = new Map<number, Applying>();
  #applyingBytes = 0;
  #lastApplyId = 0;
  readonly #subscribed = new Set<string>();

  // When the timers are due; Infinity for one that does not run.
  #heartbeatOutAtMs = Number.POSITIVE_INFINITY;
  #heartbeatInByMs = Number.POSITIVE_INFINITY;
  #acceptedByMs = Number.POSITIVE_INFINITY;
  #drainedByMs = Number.POSITIVE_INFINITY;

  #connectedAtMs: number | undefined;
  #lastAckMs: number | undefined;
  #lastNackMs: number | undefined;
  #lastNackMessage = "";
  #lastSendSuccessMs: number | undefined;
  #lastHeartbeatInMs: number | undefined;
  #lastHeartbeatOutMs: number | undefined;
  #lastReceiveSuccessMs: number | undefined;
  #lastReceiveErrorMs: number | undefined;
  #lastReceiveErrorMessage = "";

  constructor(options: SessionOptions) {
    this.#role = options.role;
    this.#timings = { ...defaultSessionTimings, ...options.timings };
    this.#limits = { ...defaultSessionLimits, ...options.limits };
    this.#strictConsul = options.strictConsul ?? false;
    this.#maxSendBytes = options.maxSendBytes;
    // Until the peer proves newer, assume Consul 1.13, whose stream breaks on larger messages.
    this.#exports = new OutboundTable(Math.min(options.maxSendBytes, LEGACY_RECEIVE_BYTES));
    if (options.role === "dialer") {
      this.#remoteId = options.remoteId;
      this.#open = {
        type: "open",
        peerId: options.remoteId,
        streamSecretId: options.streamSecretId,
        remote: options.remote,
      };
    } else {
      this.#remoteId = "";
    }
  }

  get wantsToSend(): boolean {
    if (this.#phase === "closed" || !this.#started) return false;
    if (this.#unconfirmed || this.#open !== undefined || this.#terminatedWaits) return true;
    if (this.#phase === "draining") return false;
    return this.#heartbeatWaits || this.#answers.bytes > 0 || this.#subscriptions.length > 0 || this.#exports.ready;
  }

  get deadlineMs(): number | undefined {
    const due = this.#dueMs();
    return due === Number.POSITIVE_INFINITY ? undefined : due;
  }

  get status(): SessionStatus {
    const exports = this.#exports;
    return {
      phase: this.#phase,
      connectedAtMs: this.#connectedAtMs,
      dialect: this.#dialect,
      subscriptions: this.#subscribed,
      lastAckMs: this.#lastAckMs,
      lastNackMs: this.#lastNackMs,
      lastNackMessage: this.#lastNackMessage,
      lastSendSuccessMs: this.#lastSendSuccessMs,
      lastHeartbeatInMs: this.#lastHeartbeatInMs,
      lastHeartbeatOutMs: this.#lastHeartbeatOutMs,
      lastReceiveSuccessMs: this.#lastReceiveSuccessMs,
      lastReceiveErrorMs: this.#lastReceiveErrorMs,
      lastReceiveErrorMessage: this.#lastReceiveErrorMessage,
      get exportedServices() {
        return exports.sentNames;
      },
      queuedResources: this.#exports.length,
      queuedBytes: this.#exports.bytes,
      unacknowledged: this.#exports.unanswered,
      answerBytes: this.#answers.bytes,
      stalledSinceMs: this.#stalledSinceMs,
      applying: this.#applying.size,
      applyingBytes: this.#applyingBytes,
      heldBack: this.#exports.heldBack,
      refusedByPeer: this.#exports.refused,
    };
  }

  services(): SessionServices {
    const applying = new Set<string>();
    for (const { resourceUrl, resourceId } of this.#applying.values()) {
      if (resourceUrl === ResourceUrl.exportedService) applying.add(resourceId);
    }
    return { exported: this.#exports.progress(), applying };
  }

  handle(input: SessionInput, nowMs: number): readonly SessionOutput[] {
    if (this.#phase === "closed") return NOTHING;
    this.#nowMs = nowMs;
    const out: SessionOutput[] = [];
    this.#perform(input, out);
    // After the input: a message that has just arrived, perhaps a heartbeat after a stall of the whole process, counts first.
    if (nowMs >= this.#dueMs()) this.#fireTimers(out);
    this.#pump(out);
    if (!this.wantsToSend) this.#acceptedByMs = Number.POSITIVE_INFINITY;
    else if (this.#acceptedByMs === Number.POSITIVE_INFINITY) this.#acceptedByMs = nowMs + this.#timings.sendStallMs;
    return out;
  }

  #perform(input: SessionInput, out: SessionOutput[]): void {
    switch (input.type) {
      case "start":
        this.#start(out);
        break;
      case "received":
        this.#receive(input.messages, out);
        break;
      case "undecodable":
        this.#undecodable(input.error, out);
        break;
      case "receive-ended":
        this.#receiveEnded(input.error, out);
        break;
      case "authorized":
        this.#authorized(out);
        break;
      case "refused":
        this.#refused(input.status, input.terminated, out);
        break;
      case "exported":
        this.#exported(input.resources, out);
        break;
      case "withdrawn":
        for (const id of input.resourceIds) this.#exports.withdraw(id);
        break;
      case "applied":
        this.#applied(input.results, out);
        break;
      case "writable":
        this.#credit = input.bytes;
        this.#unconfirmed = false;
        this.#acceptedByMs = Number.POSITIVE_INFINITY;
        break;
      case "leadership":
        this.#leader = input.leader;
        this.#leaderAddress = input.leaderAddress;
        break;
      case "stop":
        this.#stop(out);
        break;
      case "abort":
        this.#abort(input.status, out);
        break;
      case "tick":
        break;
    }
  }

  // --- Opening ---------------------------------------------------------------------------------------------------------

  #start(out: SessionOutput[]): void {
    if (this.#started) return;
    this.#started = true;
    if (this.#role === "acceptor") {
      if (!this.#leader) {
        this.#notLeader("cannot establish a peering stream on a follower node", out);
        return;
      }
      // A caller that never sends `Open` cannot keep a stream for ever (D-55).
      this.#heartbeatInByMs = this.#nowMs + this.#timings.heartbeatTimeoutMs;
      return;
    }
    if (this.#remoteId === "") {
      this.#open = undefined;
      const text = "expected PeerID to be non empty; the wrong end of peering is being dialed";
      this.#fail("invalid-argument", StatusCode.InvalidArgument, text, out);
      return;
    }
    // Consul 1.13 would end the stream on a subscription to the list: it waits for the acceptor's own (D-50).
    this.#listWithheld = true;
    this.#startLoop();
  }

  /** From here on both roles do the same, apart from the dialer's subscription to server addresses. */
  #startLoop(): void {
    this.#heartbeatOutAtMs = this.#nowMs + this.#timings.heartbeatIntervalMs;
    this.#heartbeatInByMs = this.#nowMs + this.#timings.heartbeatTimeoutMs;
    this.#subscriptions.push(ResourceUrl.exportedService);
    if (!this.#listWithheld) this.#subscriptions.push(ResourceUrl.exportedServiceList);
    this.#subscriptions.push(ResourceUrl.trustBundle);
    if (this.#role === "dialer") this.#subscriptions.push(ResourceUrl.serverAddresses);
  }

  #connected(): void {
    this.#phase = "connected";
    this.#connectedAtMs = this.#nowMs;
  }

  /** The first message to an acceptor, and those that arrive while that one is judged. */
  #receiveOpening(message: ReplicationMessage, out: SessionOutput[]): void {
    if (this.#judged !== undefined) {
      if (this.#endBehindOpen !== undefined) return;
      this.#behindOpen.push(message);
      this.#bytesBehindOpen += message.type === "response" ? (message.resource?.value.length ?? 0) : 0;
      if (this.#behindOpen.length > MAX_BEHIND_OPEN || this.#bytesBehindOpen > MAX_BYTES_BEHIND_OPEN) {
        const text = "too many messages before the stream was authorized";
        this.#fail("resource-exhausted", StatusCode.ResourceExhausted, text, out);
      }
      return;
    }
    if (!this.#leader) {
      this.#notLeader("cannot establish a peering stream on a follower node", out);
      return;
    }
    if (message.type !== "open") {
      this.#violation("first message when initiating a peering must be: Open", out);
      return;
    }
    if (message.peerId === "") {
      this.#violation("initial subscription request must specify a PeerID", out);
      return;
    }
    this.#judged = message;
    out.push({ type: "authorize", open: message });
  }

  #authorized(out: SessionOutput[]): void {
    if (this.#phase !== "opening" || this.#judged === undefined) return;
    // A dialer that says where it runs is not Consul 1.13. One that does not may still be newer: its subscriptions show it.
    this.#learned(this.#judged.remote === undefined ? "legacy" : "modern", out);
    this.#listWithheld = this.#dialect === "legacy";
    this.#judged = undefined;
    this.#connected();
    this.#startLoop();
    const behind = this.#behindOpen;
    const end = this.#endBehindOpen;
    this.#behindOpen = [];
    this.#endBehindOpen = undefined;
    this.#receive(behind, out);
    if (end !== undefined && !this.#isClosed()) this.#receiveEnded(end.error, out);
  }

  #refused(status: Status, terminated: boolean, out: SessionOutput[]): void {
    if (this.#phase !== "opening" || this.#judged === undefined) return;
    // Without waiting for credit: nothing was sent before it, and nothing hangs on its arrival.
    if (terminated) out.push({ type: "send", message: { type: "terminated" } });
    this.#close(out, status, errorOf(status));
  }

  // --- Receiving -------------------------------------------------------------------------------------------------------

  #receive(messages: readonly ReplicationMessage[], out: SessionOutput[]): void {
    for (const message of messages) {
      // While draining and after the end everything is discarded, also what follows in the same batch.
      if (this.#phase === "draining" || this.#phase === "closed") return;
      if (this.#phase === "opening" && this.#role === "acceptor") this.#receiveOpening(message, out);
      else this.#receiveMessage(message, out);
    }
  }

  #receiveMessage(message: ReplicationMessage, out: SessionOutput[]): void {
    if (!this.#leader) {
      this.#notLeader("node is not a leader anymore; cannot continue streaming", out);
      return;
    }
    // A dialer is connected once the acceptor has spoken (D-7), unless all it has to say is that the peering is gone.
    if (this.#phase === "opening" && message.type !== "terminated") this.#connected();
    switch (message.type) {
      case "response":
        this.#receiveResponse(message, out);
        break;
      case "request":
        this.#receiveRequest(message, out);
        break;
      case "heartbeat":
        this.#lastHeartbeatInMs = this.#nowMs;
        this.#heartbeatInByMs = this.#nowMs + this.#timings.heartbeatTimeoutMs;
        break;
      case "terminated":
        out.push({ type: "peer-terminated" });
        this.#open = undefined;
        this.#drain();
        if (this.#role === "dialer") out.push({ type: "half-close" });
        break;
      case "open":
      case "unknown":
        // Ignored, as Consul does: a second Open changes nothing, and a newer version may say more than we know.
        break;
    }
  }

  #receiveRequest(request: RequestMessage, out: SessionOutput[]): void {
    const { resourceUrl, error } = request;
    const lane = laneOf(resourceUrl);
    if (lane === undefined) {
      this.#violation(`subscription request to unknown resource URL: ${clip(resourceUrl)}`, out);
      return;
    }
    if (this.#subscribed.has(resourceUrl)) {
      if (error === undefined) {
        this.#lastAckMs = this.#nowMs;
      } else {
        this.#lastNackMs = this.#nowMs;
        this.#lastNackMessage = `client peer was unable to apply resource: ${clip(error.message)}`;
      }
      this.#exports.answered(request.responseNonce, error?.message);
      return;
    }
    if (this.#role === "dialer" && request.peerId !== "" && request.peerId !== this.#remoteId) {
      this.#violation(
        "initial subscription requests for a resource type must have consistent PeerID values: " +
          `got=${JSON.stringify(clip(request.peerId))} expected=${JSON.stringify(this.#remoteId)}`,
        out,
      );
      return;
    }
    if (request.responseNonce !== "") {
      this.#violation("initial subscription requests for a resource type must not contain a nonce", out);
      return;
    }
    if (error !== undefined) {
      this.#violation("initial subscription request for a resource type must not contain an error", out);
      return;
    }
    this.#subscribed.add(resourceUrl);
    this.#lastAckMs = this.#nowMs;
    this.#learnBand(lane, out);
    if (lane === Lane.exportedService || lane === Lane.trustBundle) this.#exports.open(lane);
    // Addresses go from the acceptor to the dialer only: the other way round they are always refused.
    if (lane === Lane.serverAddresses && this.#role === "acceptor") this.#exports.open(lane);
    // The subscription to the services brings the list too, whether or not the list was asked for. Consul 1.13
    // does not know it, so it waits until the dialect is known.
    if (this.#dialect === "modern" && this.#subscribed.has(ResourceUrl.exportedService)) {
      this.#exports.open(Lane.exportedServiceList);
    }
  }

  /** Detects the peer's version by its subscriptions (D-50). */
  #learnBand(lane: Lane, out: SessionOutput[]): void {
    if (lane === Lane.exportedServiceList) {
      this.#learned("modern", out);
      if (!this.#listWithheld) return;
      this.#listWithheld = false;
      this.#subscriptions.push(ResourceUrl.exportedServiceList);
    } else if (lane === Lane.serverAddresses && this.#role === "dialer" && this.#dialect === "unknown") {
      this.#learned("legacy", out);
    }
  }

  #learned(dialect: SessionDialect, out: SessionOutput[]): void {
    if (this.#dialect === dialect) return;
    this.#dialect = dialect;
    if (dialect === "modern") this.#exports.learned(dialect, this.#maxSendBytes);
    else this.#exports.learned(dialect, this.#exports.maxSendBytes);
    // Resources too large for any peer were reported before; those too large only for Consul 1.13 are known now.
    for (const [resource, bytes] of this.#exports.tooLarge) {
      if (bytes <= this.#maxSendBytes) this.#heldBack(resource, bytes, out);
    }
  }

  #receiveResponse(response: ResponseMessage, out: SessionOutput[]): void {
    const { nonce } = response;
    const received = openEnvelope(response, this.#dialect === "legacy");
    if ("code" in received) {
      this.#noteReceiveError(received.reason);
      this.#answer(nonce, response.resourceUrl, received, out);
      return;
    }
    const { resourceUrl, resourceId, value } = received;
    this.#lastApplyId += 1;
    const bytes = value.length + ENVELOPE_BYTES + nonce.length + resourceId.length;
    const change = response.operation === Operation.Delete ? "delete" : "upsert";
    this.#applying.set(this.#lastApplyId, { change, nonce, resourceUrl, resourceId, bytes });
    this.#applyingBytes += bytes;
    if (this.#applying.size > this.#limits.applies || this.#applyingBytes > this.#limits.applyBytes) {
      const text = `too much received and not stored yet: ${this.#applying.size} resources, ${this.#applyingBytes} bytes`;
      this.#fail("resource-exhausted", StatusCode.ResourceExhausted, text, out);
      return;
    }
    out.push({ type: "apply", id: this.#lastApplyId, resource: received });
  }

  #applied(results: readonly AppliedResult[], out: SessionOutput[]): void {
    if (this.#phase !== "connected") return;
    let failure: PeeringError | undefined;
    for (const { id, error } of results) {
      const applying = this.#applying.get(id);
      if (applying === undefined) continue;
      const { change, nonce, resourceUrl, resourceId } = applying;
      this.#applying.delete(id);
      this.#applyingBytes -= applying.bytes;
      let refusal: Refusal | undefined;
      if (error === undefined) {
        this.#lastReceiveSuccessMs = this.#nowMs;
      } else {
        refusal = notApplied(change, resourceUrl, resourceId, error.message);
        this.#noteReceiveError(refusal.reason);
        if (isStorageFault(error)) failure ??= error;
      }
      this.#answer(nonce, resourceUrl, refusal, out);
      if (this.#isClosed()) return;
    }
    if (failure === undefined || this.#strictConsul) return;
    // Resources that storage refused would be missing until they change: the next stream brings everything again (D-31). The answers
    // go first, without waiting for credit.
    for (let answer = this.#answers.take(); answer !== undefined; answer = this.#answers.take()) {
      out.push({ type: "send", message: answer });
    }
    const text = `failed to store a replicated resource: ${failure.message}`;
    this.#close(
      out,
      { code: StatusCode.Unavailable, message: text },
      new PeeringError("storage-failed", text, { status: StatusCode.Unavailable, cause: failure }),
    );
  }

  #answer(nonce: string, resourceUrl: string, refusal: Refusal | undefined, out: SessionOutput[]): void {
    this.#answers.push(answerTo(nonce, resourceUrl, refusal));
    if (this.#answers.bytes > this.#limits.answerBytes) {
      const text = `too many answers wait for the peer to read: ${this.#answers.bytes} bytes`;
      this.#fail("resource-exhausted", StatusCode.ResourceExhausted, text, out);
    }
  }

  #noteReceiveError(text: string): void {
    this.#lastReceiveErrorMs = this.#nowMs;
    this.#lastReceiveErrorMessage = clip(text);
  }

  // --- Sending ---------------------------------------------------------------------------------------------------------

  #exported(resources: readonly ExportedResource[], out: SessionOutput[]): void {
    if (this.#phase === "draining") return;
    for (const resource of resources) {
      const bytes = this.#exports.put(resource);
      if (bytes === undefined) continue;
      // It goes out once the peer has shown that it can take it.
      if (this.#dialect !== "unknown" || bytes > this.#maxSendBytes) this.#heldBack(resource, bytes, out);
    }
  }

  #heldBack({ resourceUrl, resourceId }: ExportedResource, bytes: number, out: SessionOutput[]): void {
    const limit = this.#dialect === "unknown" ? this.#maxSendBytes : this.#exports.maxSendBytes;
    out.push({ type: "held-back", resourceUrl, resourceId, bytes, limit });
  }

  /**
   * Gives out waiting messages, lane by lane, while there is credit. The message that uses up the last of it may exceed it, so
   * that a small window never holds a large message for ever.
   */
  #pump(out: SessionOutput[]): void {
    if (this.#credit <= 0 || this.#phase === "closed" || !this.#started) return;
    if (this.#open !== undefined) {
      this.#send(this.#open, 0, out);
      this.#open = undefined;
    }
    if (this.#phase === "draining") {
      if (!this.#terminatedWaits || this.#credit <= 0) return;
      this.#terminatedWaits = false;
      this.#send({ type: "terminated" }, 0, out);
      if (this.#role === "dialer") out.push({ type: "half-close" });
      return;
    }
    if (this.#heartbeatWaits && this.#credit > 0) {
      this.#heartbeatWaits = false;
      this.#lastHeartbeatOutMs = this.#nowMs;
      this.#heartbeatOutAtMs = this.#nowMs + this.#timings.heartbeatIntervalMs;
      this.#send({ type: "heartbeat" }, 0, out);
    }
    // Ahead of the answers: an answer for a type that was not subscribed to ends the stream.
    while (this.#credit > 0) {
      const resourceUrl = this.#subscriptions.shift();
      if (resourceUrl === undefined) break;
      this.#send({ type: "request", peerId: this.#remoteId, responseNonce: "", resourceUrl }, 0, out);
    }
    while (this.#credit > 0 && this.#subscriptions.length === 0) {
      const answer = this.#answers.take();
      if (answer === undefined) break;
      this.#send(answer, answer.error?.message.length ?? 0, out);
    }
    while (this.#credit > 0) {
      const response = this.#exports.take();
      if (response === undefined) break;
      this.#lastSendSuccessMs = this.#nowMs;
      this.#send(response, response.resource?.value.length ?? 0, out);
    }
  }

  #send(message: ReplicationMessage, payloadBytes: number, out: SessionOutput[]): void {
    this.#credit -= payloadBytes + ENVELOPE_BYTES;
    this.#unconfirmed = true;
    out.push({ type: "send", message });
  }

  // --- Ends ------------------------------------------------------------------------------------------------------------

  #stop(out: SessionOutput[]): void {
    if (this.#phase === "draining") return;
    if (this.#role === "acceptor" && this.#phase === "opening") {
      // The caller is not known to be the peer yet, so it gets no more than this.
      const text = `peering is marked as deleted: ${this.#judged?.peerId ?? ""}`;
      this.#fail("aborted", StatusCode.Aborted, text, out);
      return;
    }
    if (!this.#started) {
      this.#close(out, OK);
      return;
    }
    this.#terminatedWaits = true;
    this.#drain();
  }

  #abort(status: Status, out: SessionOutput[]): void {
    // After `Terminated` both sides have nothing more to learn, and the end stays a graceful one.
    const graceful = this.#phase === "draining" && !this.#terminatedWaits;
    this.#close(out, status, graceful ? undefined : errorOf(status));
  }

  /** After `Terminated` in either direction: nothing is sent or applied any more, and what arrives is discarded. */
  #drain(): void {
    this.#phase = "draining";
    this.#drainedByMs = this.#nowMs + this.#timings.drainMs;
    this.#heartbeatOutAtMs = Number.POSITIVE_INFINITY;
    this.#heartbeatInByMs = Number.POSITIVE_INFINITY;
    this.#release();
  }

  #receiveEnded(error: PeeringError | undefined, out: SessionOutput[]): void {
    if (this.#phase === "draining") {
      this.#drainEnded(error, out);
      return;
    }
    if (this.#judged !== undefined) {
      // Messages that arrived before the end count, in particular `Terminated`.
      this.#endBehindOpen ??= { error };
      return;
    }
    const opening = this.#role === "acceptor" && this.#phase === "opening";
    if (error === undefined) {
      // Before the loop begins an acceptor of Consul returns the error of receiving, as Go words it.
      const text = opening ? "EOF" : "stream ended unexpectedly";
      this.#noteReceiveError(text);
      this.#fail("stream-ended", StatusCode.Unknown, text, out);
      return;
    }
    const status = error.status ?? StatusCode.Unknown;
    const text = opening ? error.message : `unexpected error receiving from the stream: ${rpcErrorText(error)}`;
    this.#noteReceiveError(text);
    this.#close(
      out,
      { code: status, message: text },
      new PeeringError(error.code, text, {
        status,
        cause: error,
        ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
      }),
    );
  }

  #drainEnded(error: PeeringError | undefined, out: SessionOutput[]): void {
    if (!this.#terminatedWaits) {
      this.#close(out, OK);
      return;
    }
    if (error === undefined && this.#role === "acceptor") {
      // The dialer half-closed but listens still.
      out.push({ type: "send", message: { type: "terminated" } });
      this.#close(out, OK);
      return;
    }
    const reason = error === undefined ? "stream ended unexpectedly" : rpcErrorText(error);
    this.#fail("stream-ended", StatusCode.Unknown, `failed to send to stream: ${reason}`, out);
  }

  #undecodable(error: PeeringError, out: SessionOutput[]): void {
    if (this.#phase === "draining" || this.#judged !== undefined) {
      this.#receiveEnded(error, out);
      return;
    }
    this.#noteReceiveError(error.message);
    this.#close(
      out,
      { code: StatusCode.Internal, message: error.message },
      new PeeringError(error.code, error.message, { status: StatusCode.Internal, cause: error }),
    );
  }

  #violation(text: string, out: SessionOutput[]): void {
    this.#fail("invalid-message", StatusCode.InvalidArgument, text, out);
  }

  #notLeader(text: string, out: SessionOutput[]): void {
    const code = StatusCode.FailedPrecondition;
    this.#close(
      out,
      { code, message: text, leaderAddress: this.#leaderAddress },
      new PeeringError("not-leader", text, { status: code }),
    );
  }

  #fail(code: PeeringErrorCode, status: number, text: string, out: SessionOutput[]): void {
    this.#close(out, { code: status, message: text }, new PeeringError(code, text, { status }));
  }

  #close(out: SessionOutput[], status: Status, error?: PeeringError): void {
    this.#phase = "closed";
    out.push(error === undefined ? { type: "close", status } : { type: "close", status, error });
    this.#open = undefined;
    this.#terminatedWaits = false;
    this.#unconfirmed = false;
    this.#judged = undefined;
    this.#behindOpen = [];
    this.#release();
  }

  /** Frees the state that a closed session no longer needs. */
  #release(): void {
    this.#heartbeatWaits = false;
    this.#answers.clear();
    this.#subscriptions = [];
    this.#exports.clear();
    this.#applying.clear();
    this.#applyingBytes = 0;
  }

  get #stalledSinceMs(): number | undefined {
    return this.#acceptedByMs === Number.POSITIVE_INFINITY ? undefined : this.#acceptedByMs - this.#timings.sendStallMs;
  }

  /** Through a call, because the compiler takes a field for unchanged across calls of methods. */
  #isClosed(): boolean {
    return this.#phase === "closed";
  }

  // --- Timers ----------------------------------------------------------------------------------------------------------

  #dueMs(): number {
    if (this.#phase === "closed") return Number.POSITIVE_INFINITY;
    if (this.#phase === "draining") return this.#drainedByMs;
    return Math.min(this.#heartbeatOutAtMs, this.#heartbeatInByMs, this.#acceptedByMs);
  }

  #fireTimers(out: SessionOutput[]): void {
    const now = this.#nowMs;
    if (this.#phase === "draining") {
      if (!this.#terminatedWaits) {
        this.#close(out, OK);
        return;
      }
      const text = "failed to send to stream: peer accepts no data";
      this.#fail("peer-stalled", StatusCode.Unknown, text, out);
      return;
    }
    if (now >= this.#heartbeatInByMs) {
      this.#fail("peer-silent", StatusCode.Unknown, "heartbeat timeout", out);
      return;
    }
    if (now >= this.#acceptedByMs) {
      this.#fail("peer-stalled", StatusCode.Unknown, "peer accepts no data", out);
      return;
    }
    if (now >= this.#heartbeatOutAtMs) {
      this.#heartbeatWaits = true;
      // The next one is due an interval after this one was sent: one at most waits.
      this.#heartbeatOutAtMs = Number.POSITIVE_INFINITY;
    }
  }
}
