import { type ClientRequest, type IncomingMessage, Agent as PlainAgent, request as plainRequest } from "node:http";
import { type AgentOptions, Agent as TlsAgent, request as tlsRequest } from "node:https";
import { isIP } from "node:net";
import { checkServerIdentity } from "node:tls";
import { errorText, PeeringError } from "../base/errors.js";
import { joinHostPort, withoutBrackets } from "../base/host-port.js";
import { withoutTrailing } from "../base/trailing.js";

/** Certificates and names for a server that is reached over TLS. */
export interface ClientTlsOptions {
  /** PEM certificates to trust. Default: those of Node. */
  readonly ca?: readonly string[];
  /** PEM certificate and key shown to a server that asks for them. Both or none. */
  readonly certificate?: string;
  readonly key?: string;
  /** Name the server's certificate must carry. Default: the host of the address. */
  readonly serverName?: string;
  /** False: any certificate will do. Only for tests. Default true. */
  readonly verify?: boolean;
}

export interface ConnectionOptions {
  readonly address: string;
  readonly tls: ClientTlsOptions;
  readonly headers: Readonly<Record<string, string>>;
}

export interface HttpRequest {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: string | undefined;
  readonly signal: AbortSignal | undefined;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

interface Address {
  readonly secure: boolean;
  /** Path of a Unix socket. */
  readonly socketPath: string | undefined;
  readonly host: string;
  readonly port: number | undefined;
  /** In front of every path, without a slash at its end. */
  readonly prefix: string;
  /** As it stands in messages. */
  readonly shown: string;
}

/** Connections to one server, kept open between requests. */
export class HttpConnection {
  readonly #address: Address;
  readonly #agent: PlainAgent;
  readonly #headers: Readonly<Record<string, string>>;

  /** @throws {TypeError} for an invalid address, or a certificate without its key. */
  constructor(options: ConnectionOptions) {
    this.#address = parseAddress(options.address);
    this.#headers = options.headers;
    const tls = agentOptions(options.tls);
    this.#agent = this.#address.secure
      ? new TlsAgent({ keepAlive: true, ...tls })
      : new PlainAgent({ keepAlive: true });
  }

  /**
   * @throws {PeeringError} `unavailable` when the server cannot be reached or goes away before it has answered.
   * @throws `signal.reason` when aborted.
   */
  send({ method, path, query, body, signal }: HttpRequest): Promise<HttpAnswer> {
    const { secure, socketPath, host, port, prefix, shown } = this.#address;
    const search = query.toString();
    const target = `${prefix}${path}${search === "" ? "" : `?${search}`}`;
    return new Promise((resolve, reject) => {
      const fail = (error: unknown): void => {
        if (signal?.aborted === true) {
          reject(signal.reason);
          return;
        }
        const operation = `${method.charAt(0)}${method.slice(1).toLowerCase()}`;
        reject(
          new PeeringError("unavailable", `${operation} "${shown}${target}": ${networkErrorText(error)}`, {
            cause: error,
          }),
        );
      };
      if (signal?.aborted === true) return reject(signal.reason);
      const options = {
        agent: this.#agent,
        method,
        path: target,
        headers: {
          "Content-Type": "application/json",
          ...(body !== undefined && { "Content-Length": String(Buffer.byteLength(body)) }),
          ...this.#headers,
        },
        ...(socketPath === undefined ? { host, ...(port !== undefined && { port }) } : { socketPath }),
        ...(signal !== undefined && { signal }),
      };
      let request: ClientRequest;
      try {
        request = (secure ? tlsRequest : plainRequest)(options, (response) => {
          readText(response).then(
            (text) => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
            fail,
          );
        });
      } catch (error) {
        // Node judges a path or a header before it connects.
        return fail(error);
      }
      request.on("error", fail);
      request.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}

/** @throws {TypeError} as Consul's client words it. */
function agentOptions({ ca, certificate, key, serverName, verify }: ClientTlsOptions): AgentOptions {
  if ((certificate === undefined) !== (key === undefined)) {
    throw new TypeError("both client cert and client key must be provided");
  }
  return {
    ...(ca !== undefined && { ca: [...ca] }),
    ...(certificate !== undefined && { cert: certificate }),
    ...(key !== undefined && { key }),
    ...(serverName !== undefined && {
      // An address is no name to ask for (RFC 6066, 3), but one that a certificate may carry.
      servername: isIP(serverName) === 0 ? serverName : "",
      checkServerIdentity: (_, shown) => checkServerIdentity(serverName, shown),
    }),
    rejectUnauthorized: verify ?? true,
  };
}

function parseAddress(address: string): Address {
  if (address.startsWith("unix://")) {
    const socketPath = address.slice("unix://".length);
    if (socketPath === "") throw new TypeError("the address names no socket");
    return { secure: false, socketPath, host: "localhost", port: undefined, prefix: "", shown: `http://${socketPath}` };
  }
  const withScheme = address.includes("://") ? address : `http://${address}`;
  let url: URL;
  try {
    url = new URL(withScheme);
  } catch (error) {
    throw new TypeError(`${address} is not an address`, { cause: error });
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new TypeError(`Unknown protocol scheme: ${url.protocol.slice(0, -1)}`);
  }
  const prefix = withoutTrailing(url.pathname, "/");
  return {
    secure: url.protocol === "https:",
    socketPath: undefined,
    host: withoutBrackets(url.hostname),
    port: url.port === "" ? undefined : Number(url.port),
    prefix,
    shown: `${url.protocol}//${url.host}`,
  };
}

/** The text of Go for the same failure: scripts and people look for these texts. */
function networkErrorText(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return networkErrorText(error.errors[0]);
  if (!(error instanceof Error) || !("code" in error)) return errorText(error);
  const tls = tlsErrorText(error, String(error.code));
  if (tls !== undefined) return tls;
  const address = "address" in error ? String(error.address) : "";
  const target = "port" in error ? `tcp ${joinHostPort(address, String(error.port))}` : `unix ${address}`;
  switch (error.code) {
    case "ECONNREFUSED":
      return `dial ${target}: connect: connection refused`;
    case "EHOSTUNREACH":
      return `dial ${target}: connect: no route to host`;
    case "ENETUNREACH":
      return `dial ${target}: connect: network is unreachable`;
    case "ETIMEDOUT":
      return `dial ${target}: i/o timeout`;
    case "ENOENT":
      return `dial ${target}: connect: no such file or directory`;
    case "ENOTFOUND":
      return `dial tcp: lookup ${"hostname" in error ? String(error.hostname) : ""}: no such host`;
    case "ECONNRESET":
      return "EOF";
    default:
      return error.message;
  }
}

/** As above, of TLS; undefined for any other failure. */
function tlsErrorText(error: Error, code: string): string | undefined {
  const unverified = (why: string): string => `tls: failed to verify certificate: x509: ${why}`;
  switch (code) {
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "UNABLE_TO_GET_ISSUER_CERT":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
      return unverified("certificate signed by unknown authority");
    case "CERT_HAS_EXPIRED":
    case "CERT_NOT_YET_VALID":
      return unverified("certificate has expired or is not yet valid");
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return unverified("reason" in error ? String(error.reason) : error.message);
  }
  if (error.message.includes("wrong version number") || error.message.includes("packet length too long")) {
    return "http: server gave HTTP response to HTTPS client";
  }
  const [, alert] = /SSL alert number (\d+)/.exec(error.message) ?? [];
  return alert === undefined ? undefined : `remote error: tls: ${ALERTS.get(alert) ?? `alert(${alert})`}`;
}

/** The text of Go for an alert of a server. */
const ALERTS: ReadonlyMap<string, string> = new Map([
  ["40", "handshake failure"],
  ["42", "bad certificate"],
  ["45", "expired certificate"],
  ["46", "unknown certificate"],
  ["48", "unknown certificate authority"],
  ["70", "protocol version not supported"],
  ["116", "certificate required"],
]);
