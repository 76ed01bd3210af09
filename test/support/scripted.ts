// Requests in an order, which a real Consul has answered; recorded by tools/record-scripted.ts.
import { readGolden } from "../golden/read.js";
import { withoutVarying } from "./varying.js";

export interface ScriptedRequest {
  readonly about: string;
  readonly method: string;
  readonly path: string;
  /** JSON, or a text that is sent as it is. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Rules of the token that it is sent with; absent: the management token, `""`: none. Only where rules count. */
  readonly rules?: string;
  /** The `ID` of the answer is `{<name>}` in later requests, and in all answers. */
  readonly keep?: string;
  /** Of each item of a list in the answer, this member alone is looked at. */
  readonly only?: string;
}

/** The answer of a server, without values that change each time. */
export interface ScriptedAnswer {
  readonly status: number;
  readonly contentType: string;
  /** Names of those headers that say something of a read. */
  readonly headers: readonly string[];
  readonly body: unknown;
}

export interface RecordedRequest extends ScriptedRequest {
  readonly answer: ScriptedAnswer;
}

export interface Script {
  readonly name: string;
  /** Rights are asked for: default deny. */
  readonly rights: boolean;
  readonly requests: readonly ScriptedRequest[];
}

export function recordingOf(name: string): string {
  return `scripted/${name}.jsonl`;
}

export function recorded(name: string): readonly RecordedRequest[] {
  return readGolden(recordingOf(name))
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

const TOLD_HEADERS = ["x-consul-index", "x-consul-results-filtered-by-acls"];

function membersOf(items: readonly unknown[], name: string): readonly unknown[] {
  return items.map((item) => Object(item)[name]);
}

/** Sends one request after another, and remembers the ids that were given. */
export class ScriptRun {
  readonly #address: string;
  readonly #tokenFor: (rules: string | undefined) => string | Promise<string>;
  readonly #ids = new Map<string, string>();

  /** @param tokenFor - the secret of the token that has these rules; undefined: the one that may do everything. */
  constructor(address: string, tokenFor: (rules: string | undefined) => string | Promise<string>) {
    this.#address = address;
    this.#tokenFor = tokenFor;
  }

  async send(request: ScriptedRequest): Promise<ScriptedAnswer> {
    const { method, path, body, headers, rules, keep, only } = request;
    const token = await this.#tokenFor(rules);
    const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    const answer = await fetch(`${this.#address}${this.#filled(path)}`, {
      method,
      headers: { ...(token === "" ? {} : { "X-Consul-Token": token }), ...headers },
      ...(sent === undefined ? {} : { body: this.#filled(sent) }),
    });
    const contentType = (answer.headers.get("content-type") ?? "").split(";")[0] ?? "";
    const text = await answer.text();
    const json: unknown = contentType === "application/json" && text !== "" ? JSON.parse(text) : undefined;
    if (keep !== undefined) this.#ids.set(keep, String(Object(json).ID));
    return {
      status: answer.status,
      contentType,
      headers: TOLD_HEADERS.filter((name) => answer.headers.has(name)),
      body: withoutVarying(
        only !== undefined && Array.isArray(json) ? membersOf(json, only) : (json ?? text),
        this.#ids,
      ),
    };
  }

  #filled(text: string): string {
    return text.replace(/\{(\w+)\}/g, (whole, name: string) => this.#ids.get(name) ?? whole);
  }
}
