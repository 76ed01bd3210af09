// Brings recorded peering tokens into test/golden/tokens: `node --import tsx tools/import-tokens.ts <fixtures folder>`.
// Kept are two tokens of each version as their servers wrote them, and every token a server was asked to establish with,
// with its answer where that was about the token itself.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Json {
  readonly [key: string]: unknown;
  // The fields that are read of requests, answers and tokens.
  readonly body?: unknown;
  readonly PeeringToken?: unknown;
  readonly status?: unknown;
  readonly bodyText?: unknown;
  readonly text?: unknown;
  readonly decoded?: unknown;
  readonly consul?: unknown;
  readonly cases?: unknown;
  readonly name?: unknown;
  readonly request?: unknown;
  readonly response?: unknown;
}

const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-tokens.ts <fixtures folder>");
const read = (path: string): Json => JSON.parse(readFileSync(join(fixtures, path), "utf8"));
const isJson = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

const pems = read("pems.json");
const tokens = read("tokens.json");

/** With certificates in place of their references. */
function resolved(value: unknown): unknown {
  if (typeof value === "string") return pems[value] ?? value;
  if (Array.isArray(value)) return value.map(resolved);
  if (!isJson(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, resolved(inner)]));
}

/** The token itself; the recordings keep most of them decoded only. */
function textOf(reference: string): string {
  const token = tokens[reference];
  if (!isJson(token)) return reference;
  const { text, decoded } = token;
  return typeof text === "string" ? text : Buffer.from(JSON.stringify(resolved(decoded))).toString("base64");
}

const written: unknown[] = [];
const counts = new Map<string, number>();
for (const [id, token] of Object.entries(tokens)) {
  if (!isJson(token)) continue;
  const { consul, text, decoded } = token;
  const count = counts.get(String(consul)) ?? 0;
  if (typeof text !== "string" || count === 2) continue;
  counts.set(String(consul), count + 1);
  written.push({ origin: `${consul} ${id}`, text, decoded: resolved(decoded) });
}

const aboutTheToken =
  /^(failed to decode|invalid character|peering token |json:|unexpected end of JSON|\S+ is not a valid)/;
const judged: unknown[] = [];
for (const version of readdirSync(join(fixtures, "http")).sort()) {
  const { cases } = read(`http/${version}/peering-establish.json`);
  if (!Array.isArray(cases)) continue;
  for (const { name, request, response } of cases.filter(isJson)) {
    // Cases without an answer of their own are answered as in the base.
    if (!isJson(request) || !isJson(response)) continue;
    const { PeeringToken: token } = isJson(request.body) ? request.body : {};
    const { status, body, bodyText } = response;
    const answer = body ?? bodyText;
    if (typeof token !== "string" || typeof answer !== "string") continue;
    const origin = `${version} peering-establish: ${name}`;
    const error = answer.replace(/^rpc error: code = \w+ desc = /, "");
    // Of a token kept decoded only, nobody knows what was wrong with its base64.
    if (error.startsWith("failed to decode") && token in tokens) continue;
    if (aboutTheToken.test(error) && !error.includes("peer name")) judged.push({ origin, text: textOf(token), error });
    // It got as far as the acceptor.
    else if (status === 403) judged.push({ origin, text: textOf(token) });
  }
}

const lines = (entries: readonly unknown[]): string => entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
writeFileSync("test/golden/tokens/written.jsonl", lines(written));
writeFileSync("test/golden/tokens/judged.jsonl", lines(judged));
console.log(`${written.length} written by servers, ${judged.length} judged by them`);
