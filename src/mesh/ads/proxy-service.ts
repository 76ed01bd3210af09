import { setMaxListeners } from "node:events";
import type { Http2ServerRequest } from "node:http2";
import { Access, type Authorizer, type Right } from "../../access/authorizer.js";
import type { Closable } from "../../base/closable.js";
import type { Clock, Random } from "../../base/environment.js";
import { errorText, PeeringError } from "../../base/errors.js";
import type { Incidents } from "../../base/incidents.js";
import type { PeeringHost } from "../../host/host.js";
import type { HttpRequest, HttpResponse } from "../../http/messages.js";
import type { ConnectedProxy } from "../../model/connected-proxy.js";
import type { ServiceInstance } from "../../model/instance.js";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createConnectRouter,
  fetchHeaders,
  plainHeaders,
  type UniversalHandler,
} from "../../transport/connect.js";
import { endRequest } from "../../transport/grpc-stream.js";
import { AggregatedDiscoveryService } from "../../wire/envoy.js";
import type { TlsPlacement } from "../xds/tls.js";
import { HostSource } from "./host-source.js";
import type { XdsLimits } from "./limits.js";
import { ProxyFeeds } from "./proxy-feed.js";
import { ProxyStream, type StreamEnd, StreamEnded } from "./proxy-stream.js";

export interface ProxyServiceOptions {
  readonly authorizer: Authorizer;
  /** Whether a call that no intention speaks of is allowed. */
  readonly allowsByDefault: boolean;
  readonly placement: TlsPlacement;
  readonly gatherMs: number;
  readonly limits: XdsLimits;
  readonly clock: Clock;
  readonly random: Random;
  readonly incidents: Incidents;
}

const CODES: Readonly<Record<StreamEnd["code"], Code>> = {
  aborted: Code.Aborted,
  internal: Code.Internal,
  "invalid-argument": Code.InvalidArgument,
  "permission-denied": Code.PermissionDenied,
  "resource-exhausted": Code.ResourceExhausted,
  unauthenticated: Code.Unauthenticated,
  unavailable: Code.Unavailable,
};
const TOO_MANY: StreamEnd = {
  code: "resource-exhausted",
  message: "this server has too many xDS streams open, please try another",
};
/** The streams of the proxies of a host. */
export class ProxyService implements Closable {
  readonly #host: PeeringHost;
  readonly #options: ProxyServiceOptions;
  readonly #source: HostSource;
  readonly #feeds: ProxyFeeds;
  readonly #streams = new Set<ProxyStream>();
  readonly #closing = new AbortController();
  readonly #handlers: ReadonlyMap<string, UniversalHandler>;

  constructor(host: PeeringHost, options: ProxyServiceOptions) {
    const { allowsByDefault, placement, gatherMs, limits, clock, random } = options;
    this.#host = host;
    this.#options = options;
    this.#source = new HostSource({ host, allowsByDefault, clock, random });
    this.#feeds = new ProxyFeeds({ source: this.#source, clock, placement, limits, gatherMs });
    setMaxListeners(0, this.#closing.signal);
    const router = createConnectRouter({
      connect: false,
      grpcWeb: false,
      acceptCompression: [],
      readMaxBytes: limits.messageBytes,
    });
    this.#route(router);
    this.#handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  }

  /** The proxies that are connected, in the order in which they came. */
  proxies(): readonly ConnectedProxy[] {
    return [...this.#streams].map((stream) => stream.shown);
  }

  /** Answers a call. Rejects when the client is gone. */
  async serve(request: HttpRequest & Http2ServerRequest, response: HttpResponse): Promise<void> {
    const handler = this.#handlers.get(request.url.split("?", 1)[0] ?? "");
    if (handler !== undefined) return carry(handler, request, response, this.#options);
    response.writeHead(404, { "Content-Type": "text/plain; charset=utf-8" });
    response.end("Not found: gRPC is served here\n");
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#feeds.close();
    await this.#source.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #route(router: ConnectRouter): void {
    const [feeds, streams, closing] = [this.#feeds, this.#streams, this.#closing];
    const { nodeName } = this.#host;
    const { authorizer, limits, clock, incidents } = this.#options;
    const readingFailed = (error: unknown): StreamEnd => {
      const { code, rawMessage } = ConnectError.from(error);
      if (code !== Code.ResourceExhausted) return { code: "unavailable", message: rawMessage };
      incidents.report("xds-message-too-large", "a proxy sent a message that is too large: its stream was ended", {
        limit: limits.messageBytes,
      });
      return { code: "resource-exhausted", message: rawMessage };
    };
    router.service(AggregatedDiscoveryService, {
      // biome-ignore lint/correctness/useYield: as Consul, it answers every call with an error.
      async *streamAggregatedResources() {
        throw new ConnectError("not implemented", Code.Unimplemented);
      },
      async *deltaAggregatedResources(requests, { signal, requestHeader }) {
        if (streams.size >= limits.proxies) {
          incidents.report("xds-proxies", "more proxies want to connect than may: they are refused", {
            limit: limits.proxies,
          });
          throw endError(TOO_MANY);
        }
        const token = requestHeader.get("x-consul-token") ?? "";
        const authorize = (registration: ServiceInstance | undefined) =>
          authorizeProxy(authorizer, token, registration);
        const stream = new ProxyStream({ feeds, clock, incidents, nodeName, limits, authorize });
        streams.add(stream);
        const ended = AbortSignal.any([signal, closing.signal]);
        try {
          await authorize(undefined);
          const reading = stream.read(requests, readingFailed);
          yield* stream.responses(ended);
          if (closing.signal.aborted) throw new ConnectError("the server is shutting down", Code.Unavailable);
          void reading;
        } catch (error) {
          throw error instanceof StreamEnded ? endError(error.end) : error;
        } finally {
          stream.close();
          streams.delete(stream);
        }
      },
    });
  }
}

function endError({ code, message }: StreamEnd): ConnectError {
  return new ConnectError(message, CODES[code]);
}

/** @throws {StreamEnded} the caller may not have what the registration is told. */
async function authorizeProxy(
  authorizer: Authorizer,
  token: string,
  registration: ServiceInstance | undefined,
): Promise<void> {
  let access: Access;
  try {
    access = await Access.of(authorizer, token);
  } catch (error) {
    if (!(error instanceof PeeringError)) throw error;
    if (error.code !== "permission-denied") {
      throw new StreamEnded({ code: "internal", message: `error resolving acl token: ${error.message}` });
    }
    throw new StreamEnded({ code: "unauthenticated", message: `unauthenticated: ${error.message}` });
  }
  if (registration === undefined) return;
  const { service } = registration;
  const name = service.kind === "connect-proxy" ? (service.proxy?.destinationServiceName ?? "") : service.name;
  const right: Right = { resource: "service", access: "write", name };
  try {
    access.require(right);
  } catch (error) {
    throw new StreamEnded({ code: "permission-denied", message: errorText(error) });
  }
}

/** Carries one stream between Node and a handler of Connect: what the client does not read waits, and is waited for. */
async function carry(
  handler: UniversalHandler,
  request: HttpRequest & Http2ServerRequest,
  response: HttpResponse,
  { clock, limits: { writeTimeoutMs }, incidents }: Pick<ProxyServiceOptions, "clock" | "limits" | "incidents">,
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort(new ConnectError("the call was cancelled", Code.Canceled)));
  const answer = await handler({
    httpVersion: request.httpVersion,
    method: request.method,
    url: `http://localhost${request.url}`,
    header: fetchHeaders(request.headers),
    // An iterator that is left early would otherwise destroy the stream, and with it the answer that says why.
    body: request.stream.iterator({ destroyOnReturn: false }),
    signal: gone.signal,
  });
  let started = false;
  const start = (): void => {
    if (started) return;
    started = true;
    response.writeHead(answer.status, plainHeaders(answer.header));
  };
  for await (const chunk of answer.body ?? []) {
    if (gone.signal.aborted) return;
    start();
    const late = clock.after(writeTimeoutMs, () => {
      incidents.report("xds-slow-proxy", "a proxy did not take what it was told: its stream was cut off", {
        limitMs: writeTimeoutMs,
      });
      response.destroy();
    });
    try {
      await new Promise<void>((resolve, reject) => {
        const lost = (): void => reject(new PeeringError("aborted", "the proxy has gone"));
        response.once("close", lost);
        response.write(chunk, (error) => {
          response.off("close", lost);
          if (error) reject(error);
          else resolve();
        });
      });
    } finally {
      late.cancel();
    }
  }
  if (gone.signal.aborted) return;
  start();
  if (answer.trailer !== undefined) response.addTrailers(plainHeaders(answer.trailer));
  const { stream } = request;
  // Node sends the trailers at this event; a stream that is closed before loses them.
  stream.once("wantTrailers", () => endRequest(stream));
  response.end();
}
