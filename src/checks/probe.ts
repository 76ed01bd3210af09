import { createSocket } from "node:dgram";
import { lookup as resolve } from "node:dns";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { connect as connectHttp2, constants, type IncomingHttpHeaders } from "node:http2";
import { request as requestHttps } from "node:https";
import { connect as connectTcp, isIP, type LookupFunction, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { errorText } from "../base/errors.js";
import { joinHostPort, withoutBrackets } from "../base/host-port.js";
import { parseAddress } from "../transport/address.js";
import { encodeFrames, FrameReader } from "../transport/grpc-framing.js";
import { statusFromHeaders, statusFromHttp } from "../transport/grpc-status.js";
import { ProtobufReader, ProtobufWriter, varintTag } from "../wire/protobuf.js";
import type { CheckResult, CheckTls, ProbeMethod } from "./definition.js";

export interface ProbeOptions {
  readonly timeoutMs: number;
  /** How many of the last bytes of a body are shown. */
  readonly outputMaxBytes: number;
  /** Whether checks may connect to an IP address. Asked for each address, also those that a name or a redirect leads to. */
  readonly allows: (address: string) => boolean;
  /** Ends the probe; its result is of no use then. */
  readonly signal: AbortSignal;
}

type HttpMethod = Extract<ProbeMethod, { readonly type: "http" }>;

/** As Go's HTTP client. */
const MAX_REDIRECTS = 10;
/** More of a body is not read: a target that never stops sending must not cost more than this. */
const MAX_BODY_BYTES = 1024 * 1024;
const GRPC_STATUSES: readonly string[] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING = 1;
/** Field 1 of a `HealthCheckResponse`. */
const STATUS_TAG = varintTag(1);
/** Headers that a redirect to another host does not get (as in Go). */
const PRIVATE_HEADERS: ReadonlySet<string> = new Set(["authorization", "cookie", "cookie2", "www-authenticate"]);

/** Probes once, and reports the result with Consul's texts (1.21). Never rejects, and is over in time. */
export async function probe(method: ProbeMethod, options: ProbeOptions): Promise<CheckResult> {
  // Released as soon as the probe is over: signals made by `AbortSignal.timeout` and `AbortSignal.any` stay for the whole
  // timeout, and leave a little behind at the signal of the check for as long as that lives.
  const over = new AbortController();
  let isLate = false;
  const stop = (): void => over.abort(options.signal.reason);
  const timer = setTimeout(() => {
    isLate = true;
    over.abort();
  }, options.timeoutMs);
  if (options.signal.aborted) stop();
  else options.signal.addEventListener("abort", stop, { once: true });
  const bounded = { ...options, signal: over.signal };
  try {
    switch (method.type) {
      case "http":
        return await probeHttp(method, bounded);
      case "tcp":
        return await probeTcp(method.address, method.tls, bounded);
      case "udp":
        return await probeUdp(method.address, bounded, () => isLate);
      case "grpc":
        return await probeGrpc(method.target, method.tls, bounded);
      case "h2ping":
        return await probeHttp2(method.address, method.tls, bounded);
    }
  } catch (error) {
    const told = isLate ? undefined : dialFailure(error);
    if (told !== undefined) return { status: "critical", output: dialText(method, told) };
    const output = isLate ? `timed out after ${options.timeoutMs / 1_000} s` : errorText(error);
    return { status: "critical", output: `${target(method)}: ${output}` };
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener("abort", stop);
  }
}

/** As Go names them. */
const DIAL_FAILURES: ReadonlyMap<string, string> = new Map([
  ["ECONNREFUSED", "connection refused"],
  ["ECONNRESET", "connection reset by peer"],
  ["EHOSTUNREACH", "no route to host"],
  ["ENETUNREACH", "network is unreachable"],
  ["ETIMEDOUT", "connection timed out"],
]);

/** Why a connection over TCP was not made, in Go's words; undefined: it failed otherwise. */
function dialFailure(error: unknown): string | undefined {
  // Of several addresses of a name the error names the first, as in Go.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (!(first instanceof Error)) return undefined;
  const facts: Readonly<Record<string, unknown>> = Object.fromEntries(Object.entries(first));
  if (facts["syscall"] === "getaddrinfo") return `dial tcp: lookup ${facts["hostname"]}: no such host`;
  const reason = DIAL_FAILURES.get(String(facts["code"]));
  if (facts["syscall"] !== "connect" || reason === undefined) return undefined;
  return `dial tcp ${joinHostPort(String(facts["address"]), Number(facts["port"]))}: connect: ${reason}`;
}

/** With Consul's texts (1.21). */
function dialText(method: ProbeMethod, failure: string): string {
  switch (method.type) {
    case "http": {
      const verb = method.method || "GET";
      const shown = verb.slice(0, 1).toUpperCase() + verb.slice(1).toLowerCase();
      return `${shown} ${JSON.stringify(method.url)}: ${failure}`;
    }
    case "grpc":
      return `rpc error: code = Unavailable desc = connection error: desc = ${JSON.stringify(`transport: Error while dialing: ${failure}`)}`;
    case "h2ping":
      return `Failed to dial to ${method.address}: ${failure}`;
    default:
      return failure;
  }
}

function target(method: ProbeMethod): string {
  switch (method.type) {
    case "http":
      return `${method.method} ${method.url}`;
    case "grpc":
      return method.target;
    default:
      return `${method.type} ${method.address}`;
  }
}

function forbidden(address: string): Error {
  return new Error(`the address ${address} is not one that checks may connect to`);
}

/** Resolves names for `connect`, and lets only addresses through that are allowed. */
function guardedLookup(allows: ProbeOptions["allows"]): LookupFunction {
  return (host, lookupOptions, callback) => {
    resolve(host, { ...lookupOptions, all: true }, (error, addresses) => {
      const allowed = (addresses ?? []).filter(({ address }) => allows(address));
      const [first] = allowed;
      if (error !== null) callback(error, []);
      else if (first === undefined) callback(forbidden(addresses[0]?.address ?? host), []);
      else if (lookupOptions.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

/** @throws the reason why checks may not connect to an address; names are judged when they are resolved. */
function requireAllowed(host: string, allows: ProbeOptions["allows"]): void {
  if (isIP(host) !== 0 && !allows(host)) throw forbidden(host);
}

function tlsOptions(
  { serverName, skipVerify }: CheckTls,
  host: string,
): { readonly servername: string; readonly rejectUnauthorized: boolean } {
  const name = serverName || host;
  // An address is no server name (RFC 6066); it is verified by the host that is connected to.
  return { servername: isIP(name) === 0 ? name : "", rejectUnauthorized: !skipVerify };
}

/** A connected socket. Rejects when it cannot be had before `signal` aborts. */
function connect(address: string, tls: CheckTls | undefined, alpn: string, options: ProbeOptions): Promise<Socket> {
  const { host, port } = parseAddress(address);
  const { allows, signal } = options;
  requireAllowed(host, allows);
  return new Promise((done, reject) => {
    const to = { host: host || "localhost", port, lookup: guardedLookup(allows) };
    const socket =
      tls === undefined
        ? connectTcp(to)
        : connectTls({ ...to, ...tlsOptions(tls, host), ...(alpn === "" ? {} : { ALPNProtocols: [alpn] }) });
    const abort = (): void => {
      socket.destroy();
      reject(signal.reason);
    };
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    // Stays: a socket that fails later must not end the process.
    socket.on("error", (error) => {
      socket.destroy();
      reject(error);
    });
    socket.once(tls === undefined ? "connect" : "secureConnect", () => done(socket));
    socket.once("close", () => {
      signal.removeEventListener("abort", abort);
      reject(new Error("the connection was closed"));
    });
  });
}

async function probeTcp(address: string, tls: CheckTls | undefined, options: ProbeOptions): Promise<CheckResult> {
  const socket = await connect(address, tls, "", options);
  socket.destroy();
  return { status: "passing", output: `${tls === undefined ? "TCP" : "TCP+TLS"} connect ${address}: Success` };
}

/** Passes when something answers, and when the system reports no refusal: over UDP nothing more can be known. */
async function probeUdp(address: string, options: ProbeOptions, isLate: () => boolean): Promise<CheckResult> {
  const { host, port } = parseAddress(address);
  const { allows, signal } = options;
  requireAllowed(host, allows);
  const passing: CheckResult = { status: "passing", output: `UDP connect ${address}: Success` };
  return new Promise((done, reject) => {
    resolve(host || "localhost", { all: true }, (failure, addresses) => {
      const found = addresses?.find((candidate) => allows(candidate.address));
      if (failure !== null) return reject(failure);
      if (found === undefined) return reject(forbidden(addresses[0]?.address ?? host));
      if (signal.aborted) return reject(signal.reason);
      const socket = createSocket(found.family === 6 ? "udp6" : "udp4");
      let over = false;
      const finish = (settle: () => void): void => {
        if (over) return;
        over = true;
        signal.removeEventListener("abort", abort);
        socket.close();
        settle();
      };
      const abort = (): void => finish(() => (isLate() ? done(passing) : reject(signal.reason)));
      signal.addEventListener("abort", abort, { once: true });
      socket.on("error", (error) => finish(() => reject(error)));
      socket.on("message", () => finish(() => done(passing)));
      socket.connect(port, found.address, () => {
        if (!over) socket.send("");
      });
    });
  });
}

async function probeHttp(method: HttpMethod, options: ProbeOptions): Promise<CheckResult> {
  let call: HttpCall = {
    url: new URL(method.url),
    method: method.method || "GET",
    body: method.body,
    headers: requestHeaders(method.headers),
  };
  for (let redirects = 0; ; redirects++) {
    const response = await send(call, method.tls, options);
    const next = method.followRedirects ? redirected(call, response) : undefined;
    if (next === undefined) return judge(method, response, await readOutput(response, options));
    response.destroy();
    if (redirects >= MAX_REDIRECTS) throw new Error(`stopped after ${MAX_REDIRECTS} redirects`);
    call = next;
  }
}

interface HttpCall {
  readonly url: URL;
  readonly method: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, readonly string[]>>;
}

function requestHeaders(
  given: Readonly<Record<string, readonly string[]>>,
): Readonly<Record<string, readonly string[]>> {
  const lower = Object.entries(given).map(([name, values]) => [name.toLowerCase(), values] as const);
  return {
    "user-agent": ["Consul Health Check"],
    accept: ["text/plain, text/*, */*"],
    ...Object.fromEntries(lower),
  };
}

function send(call: HttpCall, tls: CheckTls, options: ProbeOptions): Promise<IncomingMessage> {
  const { url, method, body } = call;
  const { allows, signal } = options;
  const host = withoutBrackets(url.hostname);
  requireAllowed(host, allows);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new Error(`unsupported protocol scheme ${JSON.stringify(url.protocol.slice(0, -1))}`);
  }
  return new Promise((done, reject) => {
    const headers = Object.fromEntries(
      // Node takes a host as a text alone.
      Object.entries(call.headers).map(([name, values]) => [name, name === "host" ? (values[0] ?? "") : [...values]]),
    );
    const common = {
      method,
      headers: body === "" ? headers : { ...headers, "content-length": Buffer.byteLength(body) },
      lookup: guardedLookup(allows),
      // A connection of its own for each probe, as in Consul: a kept one would hide that new connections are not accepted any more.
      agent: false,
      signal,
    };
    const request =
      url.protocol === "https:"
        ? requestHttps(url, { ...common, ...tlsOptions(tls, host) }, done)
        : requestHttp(url, common, done);
    request.on("error", reject);
    request.end(body);
  });
}

/** Where a redirect leads; undefined: the response is none. */
function redirected(call: HttpCall, response: IncomingMessage): HttpCall | undefined {
  const { statusCode = 0, headers } = response;
  const { location } = headers;
  if (![301, 302, 303, 307, 308].includes(statusCode) || location === undefined) return undefined;
  const url = new URL(location, call.url);
  const sameHost = url.host === call.url.host;
  const kept = Object.entries(call.headers).filter(
    ([name]) => sameHost || (name !== "host" && !PRIVATE_HEADERS.has(name)),
  );
  const repeat = statusCode === 307 || statusCode === 308;
  return {
    url,
    method: repeat || call.method === "HEAD" ? call.method : "GET",
    body: repeat ? call.body : "",
    headers: Object.fromEntries(kept),
  };
}

/** The last bytes of a body. A body that breaks off is no failure: the status was told already. */
async function readOutput(response: IncomingMessage, { outputMaxBytes }: ProbeOptions): Promise<string> {
  let kept = Buffer.alloc(0);
  let read = 0;
  try {
    for await (const chunk of response) {
      const bytes: Buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
      read += bytes.length;
      kept = Buffer.concat([kept, bytes]).subarray(-outputMaxBytes);
      if (read >= MAX_BODY_BYTES) break;
    }
  } catch {
    // The output shows the bytes that came.
  } finally {
    response.destroy();
  }
  return kept.toString("utf8");
}

function judge(method: HttpMethod, response: IncomingMessage, body: string): CheckResult {
  const { statusCode = 0, statusMessage = "" } = response;
  const status = `${statusCode} ${statusMessage}`.trim();
  return {
    status: statusCode >= 200 && statusCode <= 299 ? "passing" : statusCode === 429 ? "warning" : "critical",
    output: `HTTP ${method.method || "GET"} ${method.url}: ${status} Output: ${body}`,
  };
}

async function probeHttp2(address: string, tls: CheckTls | undefined, options: ProbeOptions): Promise<CheckResult> {
  await withHttp2(address, tls, options, async (session) => {
    await new Promise<void>((done, reject) => {
      session.once("close", () => reject(new Error("the connection was closed")));
      session.once("error", reject);
      session.ping((error) => (error === null ? done() : reject(error)));
    });
  });
  return { status: "passing", output: "HTTP2 ping was successful" };
}

async function withHttp2<Result>(
  address: string,
  tls: CheckTls | undefined,
  options: ProbeOptions,
  use: (session: ReturnType<typeof connectHttp2>) => Promise<Result>,
): Promise<Result> {
  const socket = await connect(address, tls, "h2", options);
  const scheme = tls === undefined ? "http" : "https";
  const session = connectHttp2(`${scheme}://${address}`, { createConnection: () => socket });
  session.on("error", () => {});
  try {
    return await use(session);
  } finally {
    session.destroy();
    socket.destroy();
  }
}

async function probeGrpc(text: string, tls: CheckTls | undefined, options: ProbeOptions): Promise<CheckResult> {
  const slash = text.indexOf("/");
  const address = slash < 0 ? text : text.slice(0, slash);
  const service = slash < 0 ? "" : text.slice(slash + 1);
  const serving = await withHttp2(address, tls, options, (session) => {
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: "POST",
      [constants.HTTP2_HEADER_PATH]: "/grpc.health.v1.Health/Check",
      [constants.HTTP2_HEADER_CONTENT_TYPE]: "application/grpc",
      te: "trailers",
    });
    const asked = new ProtobufWriter().stringField(1, service).finish();
    for (const frame of encodeFrames([asked])) stream.write(frame);
    stream.end();
    return new Promise<number>((done, reject) => {
      const messages: Uint8Array[] = [];
      const reader = new FrameReader(options.outputMaxBytes);
      let status = statusFromHeaders({});
      const take = (headers: IncomingHttpHeaders): void => {
        status = statusFromHeaders(headers) ?? status;
      };
      stream.on("response", (headers) => {
        take(headers);
        status ??= statusFromHttp(Number(headers[constants.HTTP2_HEADER_STATUS]), headers["content-type"]);
      });
      stream.on("trailers", take);
      stream.on("data", (chunk: Buffer) => {
        try {
          reader.push(chunk, messages);
        } catch (error) {
          stream.destroy(error instanceof Error ? error : undefined);
        }
      });
      stream.on("error", reject);
      stream.on("close", () => {
        const [message] = messages;
        if (status === undefined || status.code !== 0) {
          reject(new Error(`rpc error: code = ${status?.code ?? 14} desc = ${status?.message ?? "no answer"}`));
        } else done(message === undefined ? 0 : servingStatus(message));
      });
      options.signal.addEventListener("abort", () => reject(options.signal.reason), { once: true });
    });
  });
  if (serving === SERVING) return { status: "passing", output: `gRPC check ${text}: success` };
  return { status: "critical", output: `gRPC ${text} serving status: ${GRPC_STATUSES[serving] ?? serving}` };
}

/** Of a `HealthCheckResponse`. */
function servingStatus(message: Uint8Array): number {
  const reader = new ProtobufReader(message);
  let status = 0;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === STATUS_TAG) status = reader.uint32();
    else reader.skip(tag);
  }
  return status;
}
