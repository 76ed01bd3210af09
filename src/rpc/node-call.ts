import { Http2ServerRequest } from "node:http2";
import type { Authorizer } from "../access/authorizer.js";
import type { Clock } from "../base/environment.js";
import { type BodyLimits, type BodySender, readBody } from "../http/body.js";
import type { CallAllowance } from "../http/call-limits.js";
import { Caller } from "../http/caller.js";
import { HttpRefusal } from "../http/http-refusal.js";
import type { HttpRequest, HttpResponse } from "../http/messages.js";
import { ReadTime } from "../http/send.js";
import {
  Code,
  ConnectError,
  connectError,
  fetchHeaders,
  plainHeaders,
  type UniversalHandler,
} from "../transport/connect.js";
import { endRequest } from "../transport/grpc-stream.js";
import { callContext, tokenOf } from "./rpc-call.js";

/** How calls are carried. */
export interface Carrying {
  readonly authorizer: Authorizer;
  readonly body: BodyLimits;
  /** How long a client may take to accept one message. */
  readonly writeTimeoutMs: number;
  readonly clock: Clock;
}

/** Carries one call between Node and a handler of Connect, whose own adapter writes failures to the console. */
export async function carryCall(
  handler: UniversalHandler,
  request: HttpRequest,
  response: HttpResponse,
  allowance: CallAllowance,
  { authorizer, body, writeTimeoutMs, clock }: Carrying,
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => {
    gone.abort(new ConnectError("the call was cancelled", Code.Canceled));
    allowance.end();
  });
  await allowance.begin(gone.signal);
  const header = fetchHeaders(request.headers);
  const caller = new Caller(authorizer, tokenOf(header), allowance);
  const answer = await handler({
    httpVersion: request.httpVersion,
    method: request.method ?? "",
    url: `http://localhost${request.url ?? "/"}`,
    header,
    body: bodyOf(request, body, caller, clock),
    signal: gone.signal,
    contextValues: callContext(caller),
  });
  let started = false;
  const start = (): void => {
    if (started) return;
    started = true;
    // The rest of the client's body is not read then, so that nothing else can come over its connection.
    const last = request.readableEnded || isHttp2(request) ? {} : { Connection: "close" };
    response.writeHead(answer.status, { ...plainHeaders(answer.header), ...last });
  };
  for await (const chunk of answer.body ?? []) {
    if (gone.signal.aborted) return;
    start();
    allowance.made(chunk.length);
    await new ReadTime(writeTimeoutMs, clock).send(response, chunk, allowance);
  }
  allowance.rest();
  if (gone.signal.aborted) return;
  start();
  if (answer.trailer !== undefined) response.addTrailers(plainHeaders(answer.trailer));
  if (isHttp2(request)) {
    const { stream } = request;
    // Node sends the trailers at this event; a stream that is closed before loses them.
    stream.once("wantTrailers", () => endRequest(stream));
  }
  response.end();
}

function isHttp2(request: HttpRequest): request is HttpRequest & Http2ServerRequest {
  return request instanceof Http2ServerRequest;
}

/** The codes of what HTTP refuses a body with. */
const BODY_CODES: Readonly<Record<number, Code>> = {
  408: Code.DeadlineExceeded,
  413: Code.ResourceExhausted,
  429: Code.ResourceExhausted,
  503: Code.ResourceExhausted,
};

/** The whole body at once: no method takes more than one message. */
async function* bodyOf(
  request: HttpRequest,
  limits: BodyLimits,
  sender: BodySender,
  clock: Clock,
): AsyncGenerator<Uint8Array, void> {
  try {
    yield await readBody(request, limits, sender, clock);
  } catch (error) {
    if (!(error instanceof HttpRefusal)) throw connectError(error);
    throw new ConnectError(error.message, BODY_CODES[error.status] ?? Code.Canceled);
  }
}
