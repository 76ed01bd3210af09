import type { RequestMessage, ResponseMessage } from "../wire/messages.js";
import { Operation, ResourceUrl } from "../wire/messages.js";
import { StatusCode } from "../wire/status.js";
import { clip, laneOf } from "./outbound.js";
import type { ReceivedResource } from "./types.js";

/** Far above what names a service. */
const MAX_ID_CHARACTERS = 1_024;

/** Why a response is not applied. */
export interface Refusal {
  /** gRPC status code of the NACK. */
  readonly code: number;
  /** Text of the NACK. */
  readonly message: string;
  /** The same without the resource's name around it: what status shows, as in Consul 1.14 to 1.22. */
  readonly reason: string;
}

/** The operation of a response on its resource, as a NACK names it. */
export type Change = "upsert" | "delete";

/**
 * The resource in a response, or the rule of the envelope that it breaks (docs/protocol.md, "Updates, nonces, ACK and NACK").
 * A deletion, which only Consul 1.13 sends, is a service without instances.
 * @param legacy - whether the peer is Consul 1.13, which sends no nonces.
 */
export function openEnvelope(response: ResponseMessage, legacy: boolean): ReceivedResource | Refusal {
  const { resourceUrl, resourceId, operation, resource } = response;
  // Ours: names of services that are refused are kept for the status, and must be bounded.
  if (resourceId.length > MAX_ID_CHARACTERS) {
    return malformed(`received response with a ResourceID of ${resourceId.length} characters`);
  }
  if (laneOf(resourceUrl) === undefined) {
    return malformed(`received response for unknown resource type ${quote(resourceUrl)}`);
  }
  if (response.nonce === "" && !legacy) {
    return malformed(`received response without a nonce for: ${resourceUrl}:${resourceId}`);
  }
  if (operation === Operation.Delete && legacy) {
    if (resourceUrl === ResourceUrl.exportedService) return { resourceUrl, resourceId, value: new Uint8Array(0) };
    return notApplied("delete", resourceUrl, resourceId, `unexpected resourceURL: ${resourceUrl}`);
  }
  if (operation !== Operation.Upsert) {
    // Consul 1.14 and later know no other name: DELETE of 1.13 is a bare number to them.
    const name = operation === Operation.Unspecified ? quote("OPERATION_UNSPECIFIED") : String(operation);
    return malformed(`unsupported operation: ${name}`);
  }
  if (resource === undefined) return malformed("received upsert response with no content");
  if (resource.typeUrl !== resourceUrl) {
    return notApplied(
      "upsert",
      resourceUrl,
      resourceId,
      `mismatched resourceURL ${quote(resourceUrl)} and Any typeUrl ${quote(resource.typeUrl)}`,
    );
  }
  return { resourceUrl, resourceId, value: resource.value };
}

/** The refusal of a response whose payload was looked at and not applied. */
export function notApplied(change: Change, resourceUrl: string, resourceId: string, reason: string): Refusal {
  const where = `ResourceURL: ${quote(resourceUrl)}, ResourceID: ${quote(resourceId)}`;
  return {
    code: StatusCode.Internal,
    message: `${change} error, ${where}: ${reason}`,
    reason: `${change} error: ${reason}`,
  };
}

/** The one answer to a response: an ACK, or a NACK that carries `refusal`. */
export function answerTo(nonce: string, resourceUrl: string, refusal: Refusal | undefined): RequestMessage {
  if (refusal === undefined) return { type: "request", peerId: "", responseNonce: nonce, resourceUrl };
  const error = { code: refusal.code, message: refusal.message };
  return { type: "request", peerId: "", responseNonce: nonce, resourceUrl, error };
}

/** Answers that wait to be sent, first in, first out. */
export class AnswerQueue {
  #answers: RequestMessage[] = [];
  #next = 0;
  #bytes = 0;

  /** About how many bytes they hold; 0 when none waits. */
  get bytes(): number {
    return this.#bytes;
  }

  push(answer: RequestMessage): void {
    this.#answers.push(answer);
    this.#bytes += weightOf(answer);
  }

  take(): RequestMessage | undefined {
    const answer = this.#answers[this.#next];
    if (answer === undefined) return undefined;
    this.#next += 1;
    this.#bytes -= weightOf(answer);
    if (this.#next === this.#answers.length) {
      this.clear();
    } else if (this.#next > 1_024 && this.#next * 2 > this.#answers.length) {
      // The answered part is dropped once it is the larger one, which costs O(1) for each answer.
      this.#answers = this.#answers.slice(this.#next);
      this.#next = 0;
    }
    return answer;
  }

  clear(): void {
    this.#answers = [];
    this.#next = 0;
    this.#bytes = 0;
  }
}

function weightOf(answer: RequestMessage): number {
  return 100 + answer.responseNonce.length + answer.resourceUrl.length + (answer.error?.message.length ?? 0);
}

function malformed(message: string): Refusal {
  return { code: StatusCode.InvalidArgument, message, reason: message };
}

/** As Go's `%q` for what occurs in names and URLs. */
function quote(text: string): string {
  return JSON.stringify(clip(text));
}
