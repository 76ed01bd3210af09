import { Access, type Authorizer, type Right } from "../access/authorizer.js";
import type { Clock, Random } from "../environment.js";
import type { PeeringHost } from "../host/host.js";
import type { AnswerBody } from "./answer-body.js";
import { type BodyLimits, readBody } from "./body.js";
import { badRequest } from "./http-error.js";
import type { Json } from "./json.js";
import type { HttpRequest } from "./messages.js";
import { parseReadOptions, type ReadOptions } from "./query.js";

/** What every call can reach; one per handler. */
export interface Server {
  readonly host: PeeringHost;
  readonly authorizer: Authorizer;
  readonly clock: Clock;
  readonly random: Random;
  readonly nodeName: string;
  /** `host:port` told as the leader's; `""` when this host listens nowhere. */
  readonly address: string;
  /** Version told by `agent/self`. */
  readonly version: string;
  readonly bodyLimits: BodyLimits;
  /** Grows when the roots of the cluster change, also over a restart. */
  readonly rootsIndex: () => bigint;
}

/** The headers of a read (specification 2.6.3). */
export interface ReadHeaders {
  /** Told as at least 1. */
  readonly index: bigint;
  /** `X-Consul-Effective-Consistency`: catalog and health only. */
  readonly consistency?: "leader" | "stale" | "consistent";
  /** Something was hidden from the caller: told to callers with a token only. */
  readonly filtered?: boolean;
}

/** What an operation answers. Failures are thrown. */
export interface Answer {
  /** Default 200. */
  readonly status?: number;
  /** The body as JSON. */
  readonly json?: Json;
  /** The body as plain text, instead of JSON. */
  readonly text?: string;
  /** Content type of the text. Default: plain. */
  readonly textType?: string;
  /** The body as JSON that is written already, instead of `json`: the same for many answers. */
  readonly body?: AnswerBody;
  readonly read?: ReadHeaders;
  /** For lists without an index, as {@link ReadHeaders.filtered}. */
  readonly filtered?: boolean;
  /** Of this answer alone. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** One request to an operation of the route table. */
export class Call {
  readonly server: Server;
  readonly method: string;
  /** What follows the prefix of the route, percent-decoded; `""` for an exact path. */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly #request: HttpRequest;
  readonly #required: Right[] = [];
  #access: Promise<Access> | undefined;

  constructor(
    server: Server,
    request: HttpRequest,
    parts: { readonly rest: string; readonly query: URLSearchParams; readonly signal: AbortSignal },
  ) {
    this.server = server;
    this.#request = request;
    this.method = request.method ?? "GET";
    this.rest = parts.rest;
    this.query = parts.query;
    this.signal = parts.signal;
  }

  get host(): PeeringHost {
    return this.server.host;
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name.toLowerCase()];
    return Array.isArray(value) ? value[0] : value;
  }

  /** The whole body. @throws {HttpError} 413 when it is too long, 408 when it comes too slowly. */
  body(): Promise<Buffer> {
    return readBody(this.#request, this.server.bodyLimits, this.server.clock);
  }

  /** `?token=`, else `X-Consul-Token`, else a bearer token; `""` when there is none. */
  get token(): string {
    const inQuery = this.query.get("token") ?? "";
    if (inQuery !== "") return inQuery;
    const inHeader = this.header("x-consul-token") ?? "";
    if (inHeader !== "") return inHeader;
    const [scheme = "", token = ""] = (this.header("authorization") ?? "").trim().split(/\s+/);
    return scheme.toLowerCase() === "bearer" ? token : "";
  }

  /** What the caller may do. @throws {PeeringError} `permission-denied`: `ACL not found`. */
  access(): Promise<Access> {
    this.#access ??= Access.of(this.server.authorizer, this.token);
    return this.#access;
  }

  /** @throws {PeeringError} `permission-denied`, which names the missing right. */
  async require(right: Right): Promise<void> {
    const access = await this.access();
    access.require(right);
    this.#required.push(right);
  }

  /** Looks again at whom the token belongs to, and at the rights that were required. @throws {PeeringError} as `require`. */
  async confirm(): Promise<void> {
    this.#access = undefined;
    const access = await this.access();
    for (const right of this.#required) access.require(right);
  }

  /** @throws {HttpError} 400 for a bad one. */
  readOptions(): ReadOptions {
    return parseReadOptions(this.query, this.header("cache-control"));
  }

  /** @throws {HttpError} 400: Community Edition has no partitions. */
  refusePartition(): void {
    this.#refuse("X-Consul-Partition", "partition", "Partitions");
  }

  /** @throws {HttpError} 400: Community Edition has no namespaces. */
  refuseNamespace(): void {
    this.#refuse("X-Consul-Namespace", "ns", "Namespaces");
  }

  #refuse(header: string, parameter: string, what: string): void {
    const why = `${what} are a Consul Enterprise feature`;
    if ((this.header(header) ?? "") !== "") throw badRequest(`Invalid header: "${header}" - ${why}`);
    if ((this.query.get(parameter) ?? "") !== "") throw badRequest(`Invalid query parameter: "${parameter}" - ${why}`);
  }
}
