import { isIP } from "node:net";
import { setImmediate } from "node:timers/promises";
import type { Access, Authorizer, Right } from "../access/authorizer.js";
import type { Clock, LogFields, Random } from "../base/environment.js";
import type { Mutex } from "../base/mutex.js";
import { doAll, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { PeeringHost } from "../host/host.js";
import type { ConnectedProxy } from "../model/connected-proxy.js";
import type { ExplainConnection } from "../model/connection-explanation.js";
import type { Listing } from "../model/listing.js";
import { GoJsonError, valuesAtMost } from "../syntax/go-json.js";
import type { Answer } from "./answer.js";
import { type BodyPlace, WholeBody } from "./answer-body.js";
import { type BlockingQuery, blocking, type Reading, type Waiting } from "./blocking.js";
import { type BodyLimits, readBody } from "./body.js";
import type { CallAllowance } from "./call-limits.js";
import { Caller } from "./caller.js";
import type { CentralNames } from "./central-names.js";
import type { HeldAnswers, Holder, Kept } from "./held-answers.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import type { Json } from "./json.js";
import type { KeptBodies } from "./kept-bodies.js";
import type { KeptTexts } from "./kept-texts.js";
import type { HttpRequest } from "./messages.js";
import { type Consistency, parseConsistency, parseReadOptions, type ReadOptions } from "./query.js";
import type { SharedAnswer, SharedAnswers } from "./shared-answers.js";

/** The program that serves, as seen by callers with the right to write the agent. */
export interface AgentControl {
  /** Has it read its configuration again. @returns why parts of it could not be used, a text each. */
  readonly reload: () => Promise<readonly string[]>;
  /** Has it end in order; returns at once. */
  readonly leave: () => void;
  /**
   * Calls `listener` with each line of the log of a level or a more urgent one, until the returned function is called.
   * @returns undefined: there is no such level.
   */
  readonly monitor: (
    options: { readonly level: string; readonly json: boolean },
    listener: { readonly line: (line: string) => void; readonly end: () => void },
  ) => (() => void) | undefined;
}

/** The parts of the server that every call can reach; one per handler. */
export interface Server {
  readonly host: PeeringHost;
  readonly authorizer: Authorizer;
  readonly clock: Clock;
  readonly random: Random;
  readonly nodeName: string;
  /** `host:port` told as the leader's; `""` when this host listens nowhere. */
  readonly address: string;
  /** Version shown by `agent/self`. */
  readonly version: string;
  readonly bodyLimits: BodyLimits;
  /**
   * Long bodies are read one after another: what is made of them takes many times their bytes, and a step of each in every turn would be
   * a long turn.
   */
  readonly longBodies: Mutex;
  /** Values that the JSON of a body may have. */
  readonly maxBodyValues: number;
  /** Checks that one registration may have. */
  readonly maxChecks: number;
  /** Objects that the JSON of one registration, transaction or prepared query may have. */
  readonly maxRecords: number;
  /** How many services one question about intentions may name. */
  readonly maxMatchNames: number;
  /** Undefined: as the authorizer does where no rule speaks. */
  readonly defaultIntentionPolicy: "allow" | "deny" | undefined;
  /** The port at which Envoys are served in plaintext; undefined: they are not. */
  readonly xdsPort: number | undefined;
  /** The same over TLS. */
  readonly xdsTlsPort: number | undefined;
  /** The Envoys that are connected; undefined: none are served. */
  readonly proxies: (() => readonly ConnectedProxy[]) | undefined;
  readonly explainConnection: ExplainConnection | undefined;
  readonly sharedAnswers: SharedAnswers;
  readonly heldAnswers: HeldAnswers;
  readonly keptTexts: KeptTexts;
  readonly keptBodies: KeptBodies;
  readonly centralNames: CentralNames;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  /** Lines of the log that are kept for a client that does not read them. */
  readonly monitorLines: number;
  /** Undefined: the program takes no orders. */
  readonly control: AgentControl | undefined;
  /** Grows when the roots of the cluster change, also over a restart. */
  readonly rootsIndex: () => bigint;
}

/** One request, before its operation runs. */
export interface CallParts {
  /** Percent-decoded. */
  readonly path: string;
  /** The rest of the path after the prefix of the route; `""` for an exact path. */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly allowance: CallAllowance;
}

/** A body that is no longer is read at once. */
export const SHORT_BODY_BYTES: number = 16 * 1024;

/** Parameters that do not change an answer: how long to wait for it, and the token, which stands for the caller's identity. */
const NOT_ASKED: ReadonlySet<string> = new Set(["index", "wait", "token"]);

/** One request to an operation of the route table. */
export class Call implements Waiting, Holder {
  readonly server: Server;
  readonly method: string;
  /** The rest of the path after the prefix of the route, percent-decoded; `""` for an exact path. */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  readonly #request: HttpRequest;
  readonly #path: string;
  readonly #caller: Caller;
  readonly kept: Kept[] = [];
  #isOwn = false;
  #asks: string | undefined;
  #shared: SharedAnswer | undefined;

  constructor(server: Server, request: HttpRequest, parts: CallParts) {
    this.server = server;
    this.#request = request;
    this.method = request.method ?? "GET";
    this.#path = parts.path;
    this.rest = parts.rest;
    this.query = parts.query;
    this.signal = parts.signal;
    this.#caller = new Caller(server.authorizer, this.#givenToken(), parts.allowance);
  }

  /** The list that it asks for, as {@link KeptTexts.list}. */
  list<Item>(items: Listing<Item>, json: (item: Item) => Json, basis = 0n): Json {
    return this.server.keptTexts.list(this.#listForm, items, json, basis);
  }

  /** The map that it asks for, as {@link KeptTexts.map}. */
  map<Item>(items: Listing<Item>, keyOf: (item: Item) => string, json: (item: Item) => Json): Promise<Json> {
    return this.server.keptTexts.map(this.#listForm, items, keyOf, json);
  }

  /**
   * Where its whole answer is kept, for callers who may see all of what it tells.
   * @param basis - grow with everything that the answer depends on beside the question.
   */
  place(basis: readonly (bigint | number)[]): BodyPlace {
    return this.server.keptBodies.at(this.#question, basis.join(" "));
  }

  get #listForm(): string {
    return `${this.#path}?${this.query.get("peer") ?? ""}`;
  }

  get host(): PeeringHost {
    return this.server.host;
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name.toLowerCase()];
    return Array.isArray(value) ? value[0] : value;
  }

  /** Whether its answer depends on when it came, or from where: the same bytes may have to be answered otherwise. */
  get isOwn(): boolean {
    return this.#isOwn;
  }

  /** Its answer tells of the time, or is one of several. */
  answerIsOwn(): void {
    this.#isOwn = true;
  }

  /** The address that the call claims to come from: the one that a proxy names, else that of the connection. Proves nothing. */
  get source(): string {
    this.#isOwn = true;
    const [forwarded = ""] = (this.header("x-forwarded-for") ?? "").split(",");
    const named = forwarded.trim();
    const given = isIP(named) > 0 ? named : (this.#request.socket.remoteAddress ?? "");
    return given.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
  }

  /** The whole body. @throws as {@link readBody}, {@link HttpRefusal} 413 when its JSON has too many values. */
  async body(): Promise<Buffer> {
    const body = await readBody(this.#request, this.server.bodyLimits, this.#caller, this.server.clock);
    const { maxBodyValues: limit } = this.server;
    if (body.length <= limit || valuesAtMost(body) <= limit) return body;
    this.report("body-values", "the JSON of a body has more values than it may", { limit });
    throw new HttpRefusal(413, `Request body has too many JSON values, max: ${limit}.`);
  }

  /**
   * The body as `read` reads it. Other calls have their turn between its steps, where the body is long.
   * @param refuse - makes the refusal of a body that cannot be read.
   * @throws as {@link body}; `signal.reason` where the client goes away before a long one is read.
   */
  async decoded<T>(read: (body: Buffer) => Steps<T>, refuse: (error: GoJsonError) => HttpRefusal): Promise<T> {
    const body = await this.body();
    try {
      if (body.length <= SHORT_BODY_BYTES) return doAll(read(body));
      return await this.server.longBodies.run(async () => {
        await setImmediate();
        return inTurns(read(body), this.signal);
      });
    } catch (error) {
      if (error instanceof GoJsonError) throw refuse(error);
      throw error;
    }
  }

  /** Counts a limit that the call has hit, as {@link CallAllowance.report}. */
  report(kind: string, message: string, fields: LogFields): void {
    this.#caller.allowance.report(kind, message, fields);
  }

  get token(): string {
    return this.#caller.token;
  }

  /** `?token=`, else `X-Consul-Token`, else a bearer token; `""` when there is none. */
  #givenToken(): string {
    const inQuery = this.query.get("token") ?? "";
    if (inQuery !== "") return inQuery;
    const inHeader = this.header("x-consul-token") ?? "";
    if (inHeader !== "") return inHeader;
    const [scheme = "", token = ""] = (this.header("authorization") ?? "").trim().split(/\s+/);
    return scheme.toLowerCase() === "bearer" ? token : "";
  }

  /** The rights of the caller. @throws {PeeringError} `permission-denied`: `ACL not found`. */
  access(): Promise<Access> {
    return this.#caller.access();
  }

  /** @throws {PeeringError} `permission-denied`, which names the missing right. */
  require(right: Right): Promise<void> {
    return this.#caller.require(right);
  }

  /** Looks again at whom the token belongs to, and at the rights that were required. @throws {PeeringError} as `require`. */
  confirm(): Promise<void> {
    return this.#caller.confirm();
  }

  wait(over: () => void): () => void {
    this.#isOwn = true;
    const leave = this.#caller.allowance.wait(over);
    if (this.#isAsked) this.#shared ??= this.server.sharedAnswers.join(this.#question);
    return leave;
  }

  /** To be awaited before a read whose answer may be large; {@link blocking} does. */
  turn(changed = false): Promise<void> {
    if (changed) this.#shared?.woken();
    return this.#caller.allowance.turn(this.signal);
  }

  /**
   * To be awaited before so many bytes, about, are made that stay in memory until it is answered. Where they are many, the
   * call waits until there is room for one more long answer.
   * @param what - is in memory once for all calls that have it. Default: something of this call.
   * @throws {PeeringError} `resource-exhausted`: too many calls wait.
   */
  async room(bytes: number, what: object = {}): Promise<void> {
    const long = await this.#caller.allowance.long(bytes, this.signal);
    this.hold({ what, bytes, long });
  }

  hold(kept: Kept): void {
    this.kept.push(kept);
    this.#caller.allowance.share(kept.what, kept.bytes, kept.long);
  }

  whenSent(action: () => void): void {
    this.#caller.allowance.whenSent(action);
  }

  pause(): void {
    this.#shared?.asleep();
    this.giveTurn();
  }

  giveTurn(): void {
    this.#caller.allowance.rest();
  }

  /**
   * Answers a read, at once or when its index has grown, as {@link blocking} does. All calls that ask the same with the same
   * rights, and whose wait the same change has ended, have one answer, which is made and written once. Those that ask at the same time
   * have one list, which each of them writes.
   */
  async answer<Result>(
    options: Pick<ReadOptions, "minIndex" | "waitMs">,
    query: BlockingQuery<Result>,
    make: (reading: Reading<Result>) => Promise<Answer>,
  ): Promise<Answer> {
    const reading = await blocking(this, options, query);
    const asked = { index: reading.index, identity: this.#caller.identity };
    const held = (): Promise<Answer> => {
      if (!this.#isAsked || query.unsteady === true) return make(reading);
      const { catalog, configEntries, imports, view } = this.host;
      const state = [catalog.revision, configEntries.index, imports.newestIndex, view.index];
      return this.server.heldAnswers.answer(this.#question, { ...asked, state }, this, () => make(reading));
    };
    if (this.#shared === undefined) return held();
    return this.#shared.answer(asked, this, async (forOthers) => {
      if (!forOthers) return held();
      const { json, ...answer } = await make(reading);
      if (json === undefined) return answer;
      return { ...answer, body: await WholeBody.json(json, this.query.has("pretty")) };
    });
  }

  /** Gives up its part in an answer that is shared. */
  end(): void {
    this.#shared?.leave();
    this.#shared = undefined;
  }

  /** Whether all that it asks is in its question: a body is not. */
  get #isAsked(): boolean {
    return this.method === "GET";
  }

  /** All that its answer depends on beside the data and the rights of its caller. */
  get #question(): string {
    this.#asks ??= this.#questionText();
    return this.#asks;
  }

  #questionText(): string {
    const parameters = [...this.query].filter(([name]) => !NOT_ASKED.has(name));
    parameters.sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0));
    return JSON.stringify([this.method, this.#path, parameters, this.token]);
  }

  /** @throws {HttpRefusal} 400 for a bad one. */
  readOptions(): ReadOptions {
    return parseReadOptions(this.query, this.header("cache-control"));
  }

  /** How fresh the answer must be. @throws {HttpRefusal} 400 for what contradicts itself. */
  consistency(): Consistency {
    return parseConsistency(this.query, this.header("cache-control"));
  }

  /** @throws {HttpRefusal} 400: Community Edition has no partitions. */
  refusePartition(): void {
    this.#refuse("X-Consul-Partition", "partition", "Partitions");
  }

  /** @throws {HttpRefusal} 400: Community Edition has no namespaces. */
  refuseNamespace(): void {
    this.#refuse("X-Consul-Namespace", "ns", "Namespaces");
  }

  #refuse(header: string, parameter: string, what: string): void {
    const why = `${what} are a Consul Enterprise feature`;
    if ((this.header(header) ?? "") !== "") throw badRequest(`Invalid header: "${header}" - ${why}`);
    if ((this.query.get(parameter) ?? "") !== "") throw badRequest(`Invalid query parameter: "${parameter}" - ${why}`);
  }
}
