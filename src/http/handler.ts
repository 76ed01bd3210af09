import { STATUS_CODES } from "node:http";
import { type Authorizer, allowAll } from "../access/authorizer.js";
import { type Clock, type Random, systemClock, systemRandom } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { Mutex } from "../base/mutex.js";
import type { PeeringHost } from "../host/host.js";
import type { Leadership } from "../host/leadership.js";
import type { ConnectedProxy } from "../model/connected-proxy.js";
import type { ExplainConnection } from "../model/connection-explanation.js";
import type { Answer, BodyStream, ReadHeaders } from "./answer.js";
import {
  type AnswerBody,
  bytesOf,
  COMPRESSOR_BYTES,
  Compressor,
  type Gathering,
  GrowingBody,
  jsonBody,
  PIECE_BYTES,
  WholeBody,
} from "./answer-body.js";
import { announcedLength } from "./body.js";
import { type AgentControl, Call, type CallParts, type Server } from "./call.js";
import { type CallAllowance, CallLimits } from "./call-limits.js";
import { CentralNames } from "./central-names.js";
import { type CorsHeaders, corsHeaders, isPreflight, preflightHeaders } from "./cors.js";
import { HeldAnswers } from "./held-answers.js";
import { HttpRefusal, refusalOf } from "./http-refusal.js";
import { KeptAnswers, type Standing, type WrittenHead } from "./kept-answers.js";
import { KeptBodies } from "./kept-bodies.js";
import { KeptTexts } from "./kept-texts.js";
import type { HttpListener, HttpRequest, HttpResponse } from "./messages.js";
import { openApiOperation } from "./openapi.js";
import type { Operation } from "./operation.js";
import { Pipeline } from "./pipeline.js";
import { RequestGuard, type RequestGuardOptions } from "./request-guard.js";
import { RouteTable } from "./route-table.js";
import { operations } from "./routes.js";
import { ReadTime } from "./send.js";
import { SharedAnswers } from "./shared-answers.js";

/** How a host is served over HTTP. */
export interface HttpHandlerOptions extends RequestGuardOptions {
  /** The rights of callers. Default: everyone may do everything. */
  readonly authorizer?: Authorizer;
  /** `host:port` told as the leader's by `status/leader`. Default: where the host's transport listens. */
  readonly address?: string;
  /** Version shown by `agent/self`; clients compare it with Consul's. Default: `1.21.4`, the one that is followed. */
  readonly version?: string;
  /** Services that one question about the intentions of services may name. Default 256; beyond: 400. */
  readonly maxMatchNames?: number;
  /** The decision on a call between services that no intention names. Default: the `defaultPolicy` of the authorizer. */
  readonly defaultIntentionPolicy?: "allow" | "deny";
  /**
   * The port of the `xdsServer` of `peerage/mesh` for the same host, in plaintext: `agent/self` shows it, and `consul connect envoy` reads it there.
   * Default: none.
   */
  readonly xdsPort?: number;
  /** The same over TLS. */
  readonly xdsTlsPort?: number;
  /** The Envoys that are connected, as `proxies` of that server tells them, for `/v1/internal/peerage/proxies`. Default: none are served. */
  readonly proxies?: () => readonly ConnectedProxy[];
  /**
   * Explains a connection of the mesh, as `explainConnection` of `peerage/mesh` does, for `/v1/internal/peerage/explain/connection`. Default:
   * none is explained.
   */
  readonly explainConnection?: ExplainConnection;
  /** Checks that one registration of a service or a node may have, sidecars included. Default 4 096; beyond: 413. */
  readonly maxChecks?: number;
  /**
   * Objects that the JSON of one registration, transaction or prepared query may have: upstreams, ports, addresses and whatever else has
   * fields. Each becomes a record with all of its fields. Default 16 384; beyond: 413.
   */
  readonly maxRecords?: number;
  /**
   * Values that the JSON of a body may have, each element and member being one. In memory a value is many times as large as its text,
   * and each takes its time. Default 50 000; beyond: 413.
   */
  readonly maxBodyValues?: number;
  /** Longest body of a request, no more than `limits` have for one source. Default 8 MiB; beyond: 413. */
  readonly maxBodyBytes?: number;
  /** How long a body may take to arrive, in milliseconds. Default 30 000; then 408. */
  readonly bodyTimeoutMs?: number;
  /** How long a client may take to read an answer, in milliseconds. Default 60 000; then the connection is closed. */
  readonly writeTimeoutMs?: number;
  /**
   * Bytes of short answers, with their requests, that are kept as long as nothing has changed that they tell of: clients over HTTP/1.1 that ask
   * the same again are given them again, where `httpServer` of `peerage/rpc` serves. Default 32 MiB; beyond, the one that was asked for
   * longest ago is forgotten. 0: none are kept.
   */
  readonly keptAnswerBytes?: number;
  /**
   * Texts of long lists that are kept for later answers, in bytes: an answer writes only the part of a list that has changed since.
   * Whole answers that list imports are kept within as many bytes, until anything of the peer changes. Default 64 MiB; lists that do not
   * fit are written each time.
   */
  readonly keptTextBytes?: number;
  /** Bounds what calls hold. Default: one of its own, with the limits that {@link CallLimits} has by default. */
  readonly limits?: CallLimits;
  /**
   * Lines of the log that are kept for a client of `agent/monitor` which does not read them; further ones are left out. Default
   * 512, as in Consul.
   */
  readonly monitorLines?: number;
  /** Serves `agent/reload`, `agent/leave` and `agent/monitor`. Default: they are answered 501. */
  readonly control?: AgentControl;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Default: the system's. */
  readonly random?: Random;
}

const DEFAULT_MATCH_NAMES = 256;
const DEFAULT_CHECKS = 4_096;
const DEFAULT_RECORDS = 16_384;
const DEFAULT_BODY_VALUES = 50_000;
const DEFAULT_BODY_BYTES = 8 * 1024 * 1024;
const DEFAULT_BODY_TIMEOUT_MS = 30_000;
const DEFAULT_WRITE_TIMEOUT_MS = 60_000;
const DEFAULT_KEPT_ANSWER_BYTES = 32 * 1024 * 1024;
/** Longer answers are not kept whole. */
const KEPT_ANSWER_BYTES = 1024 * 1024;
/** The version of Consul whose behaviour is followed, and which clients see. */
export const FOLLOWED_VERSION = "1.21.4";
/** Longer answers are compressed for clients that accept it, as in Consul. */
const GZIP_BYTES = 1_400;
const DEFAULT_TEXT_BYTES = 64 * 1024 * 1024;
const DEFAULT_MONITOR_LINES = 512;
const PLAIN = "text/plain; charset=utf-8";
const EMPTY = WholeBody.text("");
const EMPTY_BYTES = Buffer.alloc(0);
const CORS: CorsHeaders = {
  request: [
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "X-Consul-Namespace",
    "X-Consul-Partition",
    "X-Consul-Token",
  ],
  response: [
    "X-Consul-Default-Acl-Policy",
    "X-Consul-Effective-Consistency",
    "X-Consul-Index",
    "X-Consul-Knownleader",
    "X-Consul-Lastcontact",
    "X-Consul-Query-Backend",
    "X-Consul-Results-Filtered-By-Acls",
  ],
};

/**
 * Consul's HTTP API of a host, as a listener for a server of `node:http`, `createServer(httpHandler(host))`, or `node:http2`.
 * Timeouts of request headers are those of that server.
 */
export function httpHandler(host: PeeringHost, options: HttpHandlerOptions = {}): HttpListener {
  const clock = options.clock ?? systemClock;
  const writeTimeoutMs = options.writeTimeoutMs ?? DEFAULT_WRITE_TIMEOUT_MS;
  // Roots have no index of their own: seconds outlive a restart, and roots change more seldom.
  let rootsIndex = BigInt(Math.trunc(clock.wall() / 1_000));
  host.authority.onRootsChanged(() => {
    rootsIndex += 1n;
  });
  const server: Server = {
    host,
    rootsIndex: () => rootsIndex,
    clock,
    random: options.random ?? systemRandom,
    authorizer: options.authorizer ?? allowAll,
    nodeName: host.nodeName,
    address: options.address ?? host.listenAddress ?? "",
    version: options.version ?? FOLLOWED_VERSION,
    bodyLimits: {
      maxBytes: options.maxBodyBytes ?? DEFAULT_BODY_BYTES,
      timeoutMs: options.bodyTimeoutMs ?? DEFAULT_BODY_TIMEOUT_MS,
    },
    longBodies: new Mutex(),
    maxBodyValues: options.maxBodyValues ?? DEFAULT_BODY_VALUES,
    maxChecks: options.maxChecks ?? DEFAULT_CHECKS,
    maxRecords: options.maxRecords ?? DEFAULT_RECORDS,
    maxMatchNames: options.maxMatchNames ?? DEFAULT_MATCH_NAMES,
    defaultIntentionPolicy: options.defaultIntentionPolicy,
    xdsPort: options.xdsPort,
    xdsTlsPort: options.xdsTlsPort,
    proxies: options.proxies,
    explainConnection: options.explainConnection,
    sharedAnswers: new SharedAnswers(),
    heldAnswers: new HeldAnswers(),
    keptTexts: new KeptTexts(options.keptTextBytes ?? DEFAULT_TEXT_BYTES, host.incidents),
    keptBodies: new KeptBodies(options.keptTextBytes ?? DEFAULT_TEXT_BYTES, host.incidents),
    centralNames: new CentralNames(),
    startedAt: clock.wall(),
    monitorLines: options.monitorLines ?? DEFAULT_MONITOR_LINES,
    control: options.control,
  };
  const table = new RouteTable([...operations, openApiOperation(operations)]);
  const guard = new RequestGuard(options, host.incidents, clock);
  const pipeline = new Pipeline();
  const limits = options.limits ?? new CallLimits({ clock, incidents: host.incidents });
  const kept = new KeptAnswers(
    { host, authorizer: server.authorizer, guard, limits, clock },
    {
      maxBytes: options.keptAnswerBytes ?? DEFAULT_KEPT_ANSWER_BYTES,
      maxAnswerBytes: KEPT_ANSWER_BYTES,
      writeTimeoutMs,
    },
  );
  const answer = (request: HttpRequest, response: HttpResponse): void => {
    // A client that went away is no failure of ours; the signal ends the work for it.
    request.on("error", () => {});
    response.on("error", () => {});
    const gone = new AbortController();
    const allowance = limits.allowance(request, response);
    // Node takes the response on a stream of HTTP/2 that was reset for finished.
    let answered = false;
    response.on("close", () => {
      if (!answered) gone.abort(new PeeringError("aborted", "the client has gone"));
      allowance.end();
    });
    allowance
      .begin(gone.signal)
      .then(() => serve({ table, server, guard, kept }, request, { signal: gone.signal, allowance }))
      .then(async (outgoing) => {
        const { stream } = outgoing;
        if (stream !== undefined) {
          gone.signal.addEventListener("abort", stream.end, { once: true });
          if (gone.signal.aborted) stream.end();
          else await sendStream(response, outgoing, stream);
          stream.end();
          return;
        }
        if (gone.signal.aborted) return;
        const last = isEndless(request, server.bodyLimits.maxBytes) ? headersFor(request, { Connection: "close" }) : {};
        const time = new ReadTime(writeTimeoutMs, clock);
        const told = { ...outgoing, headers: { ...outgoing.headers, ...last } };
        await send(request, response, told, { allowance, time, signal: gone.signal, kept });
        answered = true;
        if (response.writableFinished || response.destroyed) return;
        response.once("close", time.limit(response, allowance));
      })
      .catch((error: unknown) => {
        const isGone = gone.signal.aborted || response.destroyed;
        response.destroy();
        if (isGone) return;
        host.incidents.report("answer-failed", "a call could not be answered", { error: errorText(error) });
      });
  };
  const listener: HttpListener = (request, response) =>
    pipeline.enter(request, response, () => answer(request, response));
  return Object.assign(listener, { repeater: kept });
}

/** An answer ready to be written. */
interface Outgoing {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: AnswerBody;
  /** Instead of the body. */
  readonly stream?: BodyStream;
  /** All that it was made of; undefined: it is of one call alone. */
  readonly standing?: Standing | undefined;
}

/** The parts of a handler that serve each request. */
interface Serving {
  readonly table: RouteTable;
  readonly server: Server;
  readonly guard: RequestGuard;
  readonly kept: KeptAnswers;
}

async function serve(
  { table, server, guard, kept }: Serving,
  request: HttpRequest,
  parts: Pick<CallParts, "signal" | "allowance">,
): Promise<Outgoing> {
  const refusal = guard.judge(request);
  if (refusal !== undefined) return plain(refusal.status, refusal.text);
  const target = splitTarget(request.url ?? "/");
  const path = decodePath(target.path);
  if (path === undefined) return plain(400, "400 Bad Request");
  // As Consul does, silently: invisible characters are part of no name.
  if (UNPRINTABLE.test(path)) return { status: 400, headers: {}, body: EMPTY };
  const match = table.match(path);
  switch (match.type) {
    case "none":
      // Load balancers and uptime probes ask for it; Consul without its pages answers 200, too.
      if (path === "/") return plain(200, "Peerage agent: the HTTP API is below /v1/.\n");
      return plain(404, notFoundText(path));
    case "redirect":
      return redirect(request.method, match.path, target.search);
    case "route":
  }
  const { route, rest } = match;
  const origin = guard.allowedOrigin(request.headers);
  const common = {
    Vary: guard.variesByOrigin ? "Accept-Encoding, Origin" : "Accept-Encoding",
    "X-Consul-Default-Acl-Policy": server.authorizer.defaultPolicy,
    ...(origin === undefined ? {} : corsHeaders(origin, CORS)),
  };
  const methods = [...route.operations.keys()];
  const allow = { Allow: ["OPTIONS", ...methods].join(",") };
  const method = request.method ?? "GET";
  if (method === "OPTIONS") {
    const preflight =
      origin !== undefined && isPreflight(method, request.headers) ? preflightHeaders(methods, CORS) : {};
    return {
      status: 200,
      headers: { ...common, ...allow, ...preflight, "Content-Type": "application/json" },
      body: EMPTY,
    };
  }
  const operation = route.operations.get(method);
  if (operation === undefined) {
    return { ...plain(405, `method ${method} not allowed`), headers: { ...common, ...allow, "Content-Type": PLAIN } };
  }
  const restricted = method === "GET" ? undefined : guard.judgeWriter(request);
  if (restricted !== undefined) {
    return { ...plain(restricted.status, restricted.text), headers: { ...common, "Content-Type": PLAIN } };
  }
  const query = new URLSearchParams(target.search);
  const call = new Call(server, request, { path, rest, query, ...parts });
  // As of before anything is read.
  const standing = operation.sources && kept.standing(operation.sources);
  try {
    const answer = await operation.run(call);
    const made = await outgoing(answer, call, common, operation);
    if (standing === undefined || made.status !== 200 || call.isOwn) return made;
    return { ...made, standing: kept.narrowed(standing, answer.basis) };
  } catch (error) {
    const { status, text } = refusalOf(error);
    const extra = error instanceof HttpRefusal ? headersFor(request, error.headers) : {};
    return { status, headers: { ...common, "Content-Type": PLAIN, ...extra }, body: WholeBody.text(text) };
  } finally {
    call.end();
  }
}

async function outgoing(
  answer: Answer,
  call: Call,
  common: Readonly<Record<string, string>>,
  { cacheable }: Operation,
): Promise<Outgoing> {
  const { json, text, textType = PLAIN, status = 200, read, filtered = read?.filtered ?? false } = answer;
  const headers = {
    ...common,
    "Content-Type": text === undefined ? "application/json" : textType,
    ...(read === undefined ? {} : readHeaders(read, call.host.leadership)),
    // Nothing is cached here, and clients that ask for it look for the header.
    ...(cacheable && call.query.has("cached") ? { "X-Cache": "MISS" } : {}),
    ...answer.headers,
    ...(filtered && call.token !== "" ? { "X-Consul-Results-Filtered-By-ACLs": "true" } : {}),
  };
  const { stream } = answer;
  if (stream !== undefined) return { status, headers: { ...headers, "Content-Type": PLAIN }, body: EMPTY, stream };
  if (answer.body !== undefined) return { status, headers, body: answer.body };
  if (json === undefined) return { status, headers, body: WholeBody.text(text ?? "") };
  return { status, headers, body: await jsonBody(json, call.query.has("pretty"), answer.place) };
}

/** Without a leader the answer is the last state of this node; how old it is cannot be known. */
function readHeaders(read: ReadHeaders, { isLeader, leaderAddress }: Leadership): Readonly<Record<string, string>> {
  return {
    ...(read.consistency === undefined ? {} : { "X-Consul-Effective-Consistency": read.consistency }),
    "X-Consul-Index": String(read.index < 1n ? 1n : read.index),
    "X-Consul-Knownleader": String(isLeader || leaderAddress !== ""),
    "X-Consul-Lastcontact": "0",
    "X-Consul-Query-Backend": "blocking-query",
  };
}

/** The call whose answer is sent, and its share of the limits. */
interface Sending {
  readonly allowance: CallAllowance;
  readonly time: ReadTime;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly kept: KeptAnswers;
}

/** A short answer at once, a long one in pieces, as fast as the client reads. */
async function send(request: HttpRequest, response: HttpResponse, outgoing: Outgoing, sending: Sending): Promise<void> {
  const { body, standing, status } = outgoing;
  const { kept } = sending;
  const bytes = body instanceof WholeBody ? body.bytes : Number.POSITIVE_INFINITY;
  const compressed =
    Object.hasOwn(outgoing.headers, "Vary") && bytes >= GZIP_BYTES && acceptsGzip(request.headers["accept-encoding"]);
  const encoding = compressed ? { "Content-Encoding": "gzip" } : {};
  const begin = (length: Readonly<Record<string, string>>): WrittenHead => {
    const headers = Object.entries({ ...outgoing.headers, ...encoding, ...length }).map(
      ([name, value]) => [name, headerValue(value)] as const,
    );
    response.writeHead(status, Object.fromEntries(headers));
    return { status, statusText: STATUS_CODES[status] ?? "unknown", headers, isChunked: body instanceof GrowingBody };
  };
  if (body instanceof GrowingBody) {
    const head = begin({});
    await sendGrowing(response, body, compressed, {
      ...sending,
      gathering: standing && kept.gather(request, standing, head),
    });
    return;
  }
  const pieces = compressed ? await body.gzip() : body.pieces;
  const length = bytesOf(pieces);
  const head = begin({ "Content-Length": String(length) });
  if (request.method === "HEAD" || length <= PIECE_BYTES) {
    sending.allowance.made(length);
    const [first = EMPTY_BYTES, second] = pieces;
    const whole = second === undefined ? first : Buffer.concat(pieces);
    response.end(request.method === "HEAD" ? undefined : whole);
    if (standing !== undefined) kept.keep(request, standing, head, whole);
    return;
  }
  // No part of it is made for this call alone.
  sending.allowance.share(pieces, length);
  sending.allowance.rest();
  const gathering = standing && kept.gather(request, standing, head);
  try {
    for (const piece of pieces) {
      await sendPiece(response, piece, sending);
      gathering?.add(piece);
    }
    response.end();
    gathering?.done();
  } finally {
    gathering?.giveUp();
  }
}

/** Each piece in turn, so that others are answered in between, and none before the one before it has been read. */
async function sendGrowing(
  response: HttpResponse,
  body: GrowingBody,
  compressed: boolean,
  sending: Sending & { readonly gathering: Gathering | undefined },
): Promise<void> {
  const { allowance, signal, gathering } = sending;
  const sendMade = async (made: Buffer): Promise<void> => {
    if (made.length === 0) return;
    await sendPiece(response, made, sending);
    gathering?.add(made);
  };
  const compressor = compressed ? new Compressor() : undefined;
  allowance.share(body.kept, body.keptBytes);
  if (compressed) allowance.keep(COMPRESSOR_BYTES);
  allowance.rest();
  try {
    for (let piece = body.next(); piece !== undefined; piece = body.next()) {
      await sendMade(compressor === undefined ? piece : await compressor.add(piece));
      await allowance.goOn(signal);
    }
    if (compressor !== undefined) await sendMade(await compressor.end());
    response.end();
    gathering?.done();
  } finally {
    gathering?.giveUp();
    body.end();
    compressor?.destroy();
  }
}

async function sendPiece(response: HttpResponse, piece: Buffer, { allowance, time, signal }: Sending): Promise<void> {
  signal.throwIfAborted();
  allowance.made(piece.length);
  await time.send(response, piece, allowance);
}

/** As fast as the client reads, until the stream ends or the client has gone. */
async function sendStream(response: HttpResponse, { status, headers }: Outgoing, stream: BodyStream): Promise<void> {
  response.writeHead(status, { ...headers });
  // There may be nothing to send for long: the client learns at once that it was let in.
  response.flushHeaders?.();
  for await (const chunk of stream.chunks) {
    if (response.destroyed) return;
    if (!response.write(chunk)) {
      await new Promise<void>((resolve) => {
        const go = (): void => {
          response.off("drain", go);
          response.off("close", go);
          resolve();
        };
        response.on("drain", go);
        response.on("close", go);
      });
    }
  }
  response.end();
}

/** A header may repeat a name that a client sent: characters that no header can hold become spaces, as a newline does in Go's. */
function headerValue(text: string): string {
  return text.replace(/[^\t -~]/gu, " ");
}

/** HTTP/2 knows nothing of closing a connection after an answer. */
function headersFor(
  { httpVersion }: HttpRequest,
  { Connection, ...others }: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return Connection === undefined || httpVersion.startsWith("2") ? others : { Connection, ...others };
}

/** Whether the unread rest of a request is more than is worth waiting for on its connection. */
function isEndless(request: HttpRequest, maxBytes: number): boolean {
  return !request.complete && (announcedLength(request) ?? Number.POSITIVE_INFINITY) > maxBytes;
}

function acceptsGzip(header: string | string[] | undefined): boolean {
  return String(header ?? "")
    .split(",")
    .some((offer) => {
      const [coding = "", ...parameters] = offer.split(";").map((part) => part.trim().toLowerCase());
      const quality = parameters.find((parameter) => parameter.startsWith("q="));
      return coding === "gzip" && (quality === undefined || Number(quality.slice(2)) > 0);
    });
}

function plain(status: number, text: string): Outgoing {
  return { status, headers: { "Content-Type": PLAIN }, body: WholeBody.text(text) };
}

function splitTarget(url: string): { readonly path: string; readonly search: string } {
  const question = url.indexOf("?");
  return question < 0 ? { path: url, search: "" } : { path: url.slice(0, question), search: url.slice(question + 1) };
}

/** The characters that Go does not take for printable: of white space, it prints the plain space alone. */
const UNPRINTABLE = /[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/u;

function decodePath(path: string): string | undefined {
  if (!path.startsWith("/")) return undefined;
  try {
    return decodeURIComponent(path);
  } catch {
    // No UTF-8, or no escape at all. Names of ours are texts, so that nothing can be found there.
    return undefined;
  }
}

function notFoundText(path: string): string {
  return path.includes("/v1/")
    ? "Invalid URL path: not a recognized HTTP API endpoint\n"
    : "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n";
}

function redirect(method: string | undefined, path: string, search: string): Outgoing {
  const escaped = encodeURI(path).replace(/[?#]/g, encodeURIComponent);
  const location = search === "" ? escaped : `${escaped}?${search}`;
  // Only answers that a browser shows have a body, and only then a type.
  const shown = method === "GET" || method === "HEAD";
  return {
    status: 307,
    headers: { Location: location, ...(shown ? { "Content-Type": "text/html; charset=utf-8" } : {}) },
    body: method === "GET" ? WholeBody.text(`<a href="${escapeHtml(location)}">Temporary Redirect</a>.\n\n`) : EMPTY,
  };
}

function escapeHtml(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&#34;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}
