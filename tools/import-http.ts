// Brings recorded HTTP cases into test/golden/http: `node --import tsx tools/import-http.ts <fixtures folder>`.
// Of a token in a request is kept which good one it was made from, and what was changed in it: the test puts a live one
// in its place. Certificates stay references: they are matched by form.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const VERSION = "1.21.4";
const GROUPS = [
  "peering-token",
  "peering-establish",
  "peering-read",
  "peering-list",
  "peering-delete",
  "two-names-one-acceptor",
  "exported-services",
  "acl",
  "imported",
];
/** Token of which all broken ones are copies. */
const MODEL = "token:880072bf098b";

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
type JsonObject = { readonly [key: string]: Json };

const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-http.ts <fixtures folder>");
const read = (path: string): JsonObject => JSON.parse(readFileSync(join(fixtures, path), "utf8"));
const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const tokens = read("tokens.json");
const pems = read("pems.json");

function decoded(reference: string): JsonObject {
  const token = tokens[reference];
  const { decoded: content }: JsonObject = isObject(token) ? token : {};
  if (!isObject(content)) throw new TypeError(`${reference} is not known`);
  return content;
}

/** A broken token as a change of the good one; a good one as itself. */
function requestToken(reference: string): Json {
  const model = decoded(MODEL);
  const content = decoded(reference);
  const names = ({ ServerName = null, EstablishmentSecret = null, PeerID = null }: JsonObject) => ({
    ServerName,
    EstablishmentSecret,
    PeerID,
  });
  const { ServerName, EstablishmentSecret, PeerID } = names(content);
  const good = names(model);
  const isCopy =
    ServerName === "" ||
    (ServerName === good.ServerName && (EstablishmentSecret === good.EstablishmentSecret || PeerID === good.PeerID));
  if (!isCopy) return { good: reference };
  const change = Object.fromEntries(
    Object.entries(content).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(model[key])),
  );
  return { good: MODEL, ...(Object.keys(change).length > 0 ? { change: withCertificates(change) } : {}) };
}

function withCertificates(value: Json): Json {
  if (typeof value === "string") return pems[value] ?? value;
  if (Array.isArray(value)) return value.map(withCertificates);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withCertificates(item)]));
}

mkdirSync("test/golden/http", { recursive: true });
for (const group of GROUPS) {
  const path = `http/${VERSION}/${group}.json`;
  const { cases } = read(path);
  if (!Array.isArray(cases)) throw new TypeError(`${path} has no cases`);
  const lines = cases.map((recorded: Json) => {
    if (!isObject(recorded)) throw new TypeError(`${path} has a case that is no object`);
    const { name, server, request, response } = recorded;
    const { body, ...rest } = isObject(request) ? request : {};
    const { PeeringToken: token }: JsonObject = isObject(body) ? body : {};
    const given =
      isObject(body) && typeof token === "string" && token.startsWith("token:")
        ? { ...body, PeeringToken: requestToken(token) }
        : body;
    const { body: answered }: JsonObject = isObject(response) ? response : {};
    const { PeeringToken: answer }: JsonObject = isObject(answered) ? answered : {};
    return JSON.stringify({
      name,
      server,
      request: { ...rest, ...(given === undefined ? {} : { body: given }) },
      response,
      ...(typeof answer === "string" ? { token: decoded(answer) } : {}),
    });
  });
  const header = JSON.stringify({ origin: path });
  writeFileSync(join("test/golden/http", `${group}.jsonl`), `${[header, ...lines].join("\n")}\n`);
}
