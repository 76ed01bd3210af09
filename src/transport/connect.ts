import type { ClientHttp2Stream, IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createClient,
  createConnectRouter,
  createContextKey,
  createContextValues,
} from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { errorText, PeeringError } from "../errors.js";
import { PeerStreamService } from "../wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { decodeStatusDetails, encodeStatusDetails } from "../wire/status-details.js";
import { formatAddress } from "./address.js";
import type { ClientConnection } from "./client-connection.js";
import { statusError, thrownStatus } from "./grpc-status.js";
import { endRequest } from "./grpc-stream.js";
import type { AcceptHandler, ExchangeSecretRequest } from "./transport.js";

export {
  Code,
  ConnectError,
  type ConnectRouter,
  cors,
  createConnectRouter,
  type HandlerContext,
  type ServiceImpl,
} from "@connectrpc/connect";
export type { UniversalHandler } from "@connectrpc/connect/protocol";

/** Calls served beside the replication stream. */
export interface UnaryCalls {
  /** Full names of the services that exist. */
  readonly services: ReadonlySet<string>;
  has(path: string): boolean;
  /** Answers the call on `stream`. Rejects when the peer is gone. */
  serve(path: string, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void>;
}

/**
 * Node loads what implements `fetch` at the first use of any part of it, which takes tens of milliseconds: better at the
 * start than within the first call.
 */
export function prepareCalls(): void {
  setImmediate(() => new Headers()).unref();
}

/** What a handler throws, as Connect answers it: the status of a {@link PeeringError}, else UNKNOWN with the bare text. */
export function connectError(error: unknown): ConnectError {
  const status = thrownStatus(error);
  // The detail as this library writes it for streams, rather than through Connect, which wants a schema for it.
  const details = status.leaderAddress === undefined ? undefined : encodeStatusDetails(status);
  const metadata = details === undefined ? undefined : { "grpc-status-details-bin": details };
  return new ConnectError(status.message, status.code, metadata, undefined, error);
}

/** ExchangeSecret of `handler`, and whatever `routes` adds. */
export function unaryCalls(
  handler: AcceptHandler,
  routes: ((router: ConnectRouter) => void) | undefined,
  maxReceiveBytes: number,
): UnaryCalls {
  const router = createConnectRouter({
    connect: false,
    grpcWeb: false,
    acceptCompression: [],
    readMaxBytes: maxReceiveBytes,
  });
  router.rpc(PeerStreamService.method.exchangeSecret, async (request, context) => {
    try {
      const { PeerID: peerId, EstablishmentSecret: establishmentSecret } = request;
      const remoteAddress = context.values.get(callerAddress);
      const { streamSecret } = await handler.exchangeSecret({ peerId, establishmentSecret }, remoteAddress);
      return { StreamSecret: streamSecret };
    } catch (error) {
      throw connectError(error);
    }
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

/** Where a call comes from, `host:port`. */
const callerAddress = createContextKey("", { description: "remote address" });

function remoteAddressOf(stream: ServerHttp2Stream): string {
  const { remoteAddress = "", remotePort = 0 } = stream.session?.socket ?? {};
  return formatAddress(remoteAddress, remotePort);
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
  const header = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) header.append(name, one);
  }
  const response = await universal({
    httpVersion: "2.0",
    method: "POST",
    url: `https://localhost${path}`,
    header,
    // An iterator that is left early would otherwise destroy the stream, and with it the answer that says why.
    body: stream.iterator({ destroyOnReturn: false }),
    signal: controller.signal,
    contextValues: createContextValues().set(callerAddress, remoteAddressOf(stream)),
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

function plainHeaders(headers: Headers | undefined): OutgoingHttpHeaders {
  return headers === undefined ? {} : Object.fromEntries(headers.entries());
}

/**
 * ExchangeSecret over an open connection.
 * @throws {PeeringError} with the status of the answer.
 */
export async function callExchangeSecret(
  connection: ClientConnection,
  request: ExchangeSecretRequest,
  options: { readonly signal: AbortSignal; readonly maxReceiveBytes: number },
): Promise<{ readonly streamSecret: string }> {
  // The name stands for the connection; requests carry the authority that the acceptor expects.
  const baseUrl = `${connection.scheme}://peer.invalid`;
  const transport = createGrpcTransport({
    baseUrl,
    acceptCompression: [],
    readMaxBytes: options.maxReceiveBytes,
    sessionManager: {
      authority: baseUrl,
      async request(method, path, headers, streamOptions): Promise<ClientHttp2Stream> {
        const failure = connection.failure();
        if (failure !== undefined) throw failure;
        return connection.session.request(
          { ...headers, ":method": method, ":path": path, ":authority": connection.authority },
          streamOptions,
        );
      },
      notifyResponseByteRead() {},
    },
  });
  try {
    const { peerId, establishmentSecret } = request;
    const response = await createClient(PeerStreamService, transport).exchangeSecret(
      { PeerID: peerId, EstablishmentSecret: establishmentSecret },
      // The caller bounds connection and call together by its signal; a cancelled call ends at the acceptor too.
      { signal: options.signal },
    );
    return { streamSecret: response.StreamSecret };
  } catch (error) {
    const failure = connection.failure();
    if (failure !== undefined) throw failure;
    throw error instanceof ConnectError ? fromConnect(error) : new PeeringError("unavailable", errorText(error));
  }
}

function fromConnect(error: ConnectError): PeeringError {
  const details = error.metadata.get("grpc-status-details-bin");
  const leaderAddress = details === null ? undefined : decodeStatusDetails(details)?.leaderAddress;
  const message = error.rawMessage;
  return statusError({ code: error.code, message, ...(leaderAddress === undefined ? {} : { leaderAddress }) }, error);
}
