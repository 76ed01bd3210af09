import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import {
  type Client,
  Code,
  ConnectError,
  type ConnectRouter,
  createClient,
  createConnectRouter,
} from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { toldText } from "../base/errors.js";
import type { Status } from "../wire/status.js";
import { decodeStatusDetails, encodeStatusDetails } from "../wire/status-details.js";
import type { ClientConnection } from "./client-connection.js";
import { MAX_MESSAGE_CHARACTERS, thrownStatus } from "./grpc-status.js";
import { endRequest } from "./grpc-stream.js";

export {
  Code,
  ConnectError,
  type ConnectRouter,
  type ContextValues,
  cors,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
  type ServiceImpl,
} from "@connectrpc/connect";
export type { UniversalHandler } from "@connectrpc/connect/protocol";

/** Calls of a program's own, served beside those of peers. */
export interface UnaryCalls {
  /** Full names of the services that exist. */
  readonly services: ReadonlySet<string>;
  has(path: string): boolean;
  /** Answers the call on `stream`. Rejects when the peer is gone. */
  serve(path: string, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void>;
}

/** The answer of Connect to an error of a handler: the status of a {@link PeeringError}, else UNKNOWN with the bare text. */
export function connectError(error: unknown): ConnectError {
  const status = thrownStatus(error);
  // The detail as this library writes it for streams, rather than through Connect, which wants a schema for it.
  const details = status.leaderAddress === undefined ? undefined : encodeStatusDetails(status);
  const metadata = details === undefined ? undefined : { "grpc-status-details-bin": details };
  return new ConnectError(toldText(status.message), status.code, metadata, undefined, error);
}

/** A client for unary calls of `service` over a connection that stands already, with its certificate checked. */
export function clientOver<Service extends Parameters<typeof createClient>[0]>(
  { session, scheme, authority }: ClientConnection,
  service: Service,
  maxReceiveBytes: number,
): Client<Service> {
  const { origin } = new URL(`${scheme}://${authority}`);
  const transport = createGrpcTransport({
    baseUrl: origin,
    acceptCompression: [],
    readMaxBytes: maxReceiveBytes,
    sessionManager: {
      authority: origin,
      request: async (method, path, headers, options) =>
        session.request(
          {
            ...headers,
            ":method": method,
            ":scheme": scheme,
            ":authority": authority,
            ":path": path,
            "user-agent": "peerage",
          },
          options,
        ),
      notifyResponseByteRead: () => {},
    },
  });
  return createClient(service, transport);
}

/** The status that a call of {@link clientOver} failed with. */
export function connectStatus(error: unknown): Status {
  const { code, rawMessage, metadata } = ConnectError.from(error);
  const message = rawMessage.slice(0, MAX_MESSAGE_CHARACTERS);
  const details = metadata.get("grpc-status-details-bin");
  const leaderAddress = details === null ? undefined : decodeStatusDetails(details)?.leaderAddress;
  return { code, message, ...(leaderAddress === undefined ? {} : { leaderAddress }) };
}

/** Whatever `routes` adds. */
export function unaryCalls(routes: ((router: ConnectRouter) => void) | undefined, maxReceiveBytes: number): UnaryCalls {
  const router = createConnectRouter({
    connect: false,
    grpcWeb: false,
    acceptCompression: [],
    readMaxBytes: maxReceiveBytes,
  });
  routes?.(router);
  const handlers = new Map<string, UniversalHandler>();
  for (const universal of router.handlers) handlers.set(universal.requestPath, universal);
  return {
    services: new Set(router.handlers.map((universal) => universal.service.typeName)),
    has: (path) => handlers.has(path),
    async serve(path, stream, headers) {
      const universal = handlers.get(path);
      if (universal === undefined) throw new TypeError(`nothing is served at ${path}`);
      await answer(universal, stream, headers, path);
    },
  };
}

/** Carries one call between node:http2 and a handler of Connect. Its own adapter writes to the console. */
async function answer(
  universal: UniversalHandler,
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  path: string,
): Promise<void> {
  const controller = new AbortController();
  stream.once("close", () => controller.abort(new ConnectError("the call was cancelled", Code.Canceled)));
  const response = await universal({
    httpVersion: "2.0",
    method: "POST",
    url: `https://localhost${path}`,
    header: fetchHeaders(headers),
    // An iterator that is left early would otherwise destroy the stream, and with it the answer that says why.
    body: stream.iterator({ destroyOnReturn: false }),
    signal: controller.signal,
  });
  const outgoing = { ":status": response.status, ...plainHeaders(response.header) };
  let started = false;
  const start = (): void => {
    if (started || stream.destroyed || stream.closed) return;
    started = true;
    // Evaluated when the body is out: only then the trailers are known.
    stream.once("wantTrailers", () => {
      stream.sendTrailers(plainHeaders(response.trailer));
      endRequest(stream);
    });
    stream.respond(outgoing, { waitForTrailers: true });
  };
  for await (const chunk of response.body ?? []) {
    start();
    if (stream.destroyed) return;
    await new Promise<void>((resolve, reject) => {
      stream.write(chunk, (error) => (error ? reject(error) : resolve()));
    });
  }
  start();
  await new Promise<void>((resolve) => {
    stream.once("close", resolve);
    stream.end(resolve);
  });
}

/** @internal Headers of Node as a handler of Connect takes them. */
export function fetchHeaders(headers: IncomingHttpHeaders): Headers {
  const found = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) found.append(name, one);
  }
  return found;
}

/** @internal Headers of a handler of Connect as Node takes them. */
export function plainHeaders(headers: Headers | undefined): OutgoingHttpHeaders {
  return headers === undefined ? {} : Object.fromEntries(headers.entries());
}
