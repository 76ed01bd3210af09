import { PeeringError } from "../base/errors.js";
import {
  decodeExchangeRequest,
  decodeExchangeResponse,
  encodeExchangeRequest,
  encodeExchangeResponse,
} from "../wire/exchange.js";
import { StatusCode } from "../wire/status.js";
import { thrownStatus } from "./grpc-status.js";
import type { AcceptHandler, ExchangeSecretRequest, ReplicationStream } from "./transport.js";

// The one call of a peer beside the stream. It runs over what carries the stream, too: less code, and that of the stream is
// warm when it opens.

/**
 * Asks over a call that was just opened.
 * @throws {PeeringError} with the status of the answer.
 */
export async function callExchangeSecret(
  call: ReplicationStream,
  request: ExchangeSecretRequest,
): Promise<{ readonly streamSecret: string }> {
  await call.send([encodeExchangeRequest(request.peerId, request.establishmentSecret)]);
  const [answer] = await Promise.all([onlyMessage(call), call.halfClose()]);
  return { streamSecret: decodeExchangeResponse(answer) };
}

/** How long a caller may take to say what it wants: nothing is known of it until then. */
const REQUEST_TIMEOUT_MS = 10_000;

/** Answers a call and ends it. Never rejects. */
export async function serveExchangeSecret(
  call: ReplicationStream,
  handler: AcceptHandler,
  timeoutMs: number = REQUEST_TIMEOUT_MS,
): Promise<void> {
  const timer = setTimeout(() => {
    void call.close({ code: StatusCode.DeadlineExceeded, message: "the request took too long to arrive" });
  }, timeoutMs);
  timer.unref();
  try {
    const request = decodeExchangeRequest(await onlyMessage(call));
    clearTimeout(timer);
    const { streamSecret } = await handler.exchangeSecret(request, call.remoteAddress);
    await call.send([encodeExchangeResponse(streamSecret)]);
    await call.close();
  } catch (error) {
    await call.close(thrownStatus(error));
  } finally {
    clearTimeout(timer);
  }
}

/** What one side of a unary call says, once it has ended its half. */
async function onlyMessage(call: ReplicationStream): Promise<Uint8Array> {
  const messages: Uint8Array[] = [];
  for (let batch = await call.receive(); batch !== undefined; batch = await call.receive()) {
    messages.push(...batch);
    if (messages.length > 1) break;
  }
  const [message] = messages;
  if (message !== undefined && messages.length === 1) return message;
  throw new PeeringError("invalid-message", `a unary call has one message, not ${messages.length}`, {
    status: StatusCode.Internal,
  });
}
