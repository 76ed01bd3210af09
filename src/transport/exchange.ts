import { PeeringError } from "../base/errors.js";
import { decodeExchangeRequest, encodeExchangeResponse } from "../wire/exchange.js";
import { PeerStreamService } from "../wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { StatusCode } from "../wire/status.js";
import type { ClientConnection } from "./client-connection.js";
import { clientOver, connectStatus } from "./connect.js";
import { statusError, thrownStatus } from "./grpc-status.js";
import type { AcceptHandler, ExchangeSecretRequest, ReplicationStream } from "./transport.js";

/** The answer to an exchange holds an id. */
const MAX_ANSWER_BYTES = 64 * 1024;

/**
 * Exchanges a secret over a connection that was just opened.
 * @throws {PeeringError} with the status of the answer.
 */
export async function callExchangeSecret(
  connection: ClientConnection,
  { peerId, establishmentSecret }: ExchangeSecretRequest,
  signal: AbortSignal,
): Promise<{ readonly streamSecret: string }> {
  const client = clientOver(connection, PeerStreamService, MAX_ANSWER_BYTES);
  try {
    const request = { PeerID: peerId, EstablishmentSecret: establishmentSecret };
    const { StreamSecret } = await client.exchangeSecret(request, { signal });
    return { streamSecret: StreamSecret };
  } catch (error) {
    throw connection.failure() ?? statusError(connectStatus(error), error);
  }
}

// The acceptor answers over what carries the streams of peers, too: a caller is a stranger until then, and is bounded there.

/** How long a caller may take to send its request: nothing is known of it until then. */
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

/** The messages and the end of one side of a unary call. */
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
