import type { Access, Right } from "../access/authorizer.js";
import type { ServiceIntentionsEntry } from "../catalog/config-entry.js";
import { type IntentionSource, intentionFor } from "../catalog/intentions.js";
import { lowerCase } from "../catalog/names.js";
import type { StoredConfigEntry } from "../host/config-entries.js";
import { decodeGo, GoJsonError, type GoType, goString, goStruct } from "../syntax/go-json.js";
import type { Answer, Call } from "./call.js";
import { permissionsJson, permissionsSchema } from "./config-json.js";
import { filterFor } from "./discovery.js";
import { type Fields, text as filterText, integer, textMap } from "./filter/fields.js";
import { HttpError } from "./http-error.js";
import type { Json } from "./json.js";
import { anyObject, flag, index, listOf, objectOf, readParameters, text, textsByKey } from "./operation-docs.js";
import type { JsonSchema, Operation, ParameterDoc } from "./routes.js";

// The older view of intentions, one object each (specification 4.9.3). They are written as config entries.

interface Intention {
  readonly destination: string;
  readonly source: IntentionSource;
  readonly stored: StoredConfigEntry;
}

function intentionsOf(stored: StoredConfigEntry): readonly Intention[] {
  const { entry } = stored;
  if (entry.kind !== "service-intentions") return [];
  return entry.sources.map((source) => ({ destination: entry.name, source, stored }));
}

function intentionJson({ destination, source, stored }: Intention): Json {
  const { meta } = stored.entry;
  return {
    Description: source.description,
    SourceNS: "default",
    SourceName: source.name,
    DestinationNS: "default",
    DestinationName: destination,
    SourcePeer: source.peer,
    SourceType: "consul",
    Action: source.action,
    Permissions: permissionsJson(source),
    Meta: meta && new Map(Object.entries(meta)),
    Precedence: source.precedence ?? 0,
    CreateIndex: stored.createIndex,
    ModifyIndex: stored.modifyIndex,
  };
}

const fields: Fields<Intention> = {
  Description: filterText(({ source }) => source.description ?? ""),
  SourceNS: filterText(() => "default"),
  SourceName: filterText(({ source }) => source.name),
  SourcePeer: filterText(({ source }) => source.peer ?? ""),
  SourceType: filterText(() => "consul"),
  DestinationNS: filterText(() => "default"),
  DestinationName: filterText(({ destination }) => destination),
  Action: filterText(({ source }) => source.action ?? ""),
  Precedence: integer(({ source }) => source.precedence ?? 0),
  Meta: textMap(({ stored }) => stored.entry.meta ?? {}),
};

async function list(call: Call): Promise<Answer> {
  const options = call.readOptions();
  const filter = filterFor(options, fields);
  const access = await call.access();
  const { configEntries } = call.host;
  const query = {
    read: () => ({
      index: configEntries.index,
      result: configEntries.list("service-intentions").flatMap(intentionsOf),
    }),
    subscribe: (wake: () => void) =>
      configEntries.onChange(({ kind }) => {
        if (kind === "service-intentions") wake();
      }),
  };
  return call.answer(options, query, async ({ index, result }) => {
    const visible = result.filter(({ source, destination }) => mayRead(access, source, destination));
    const sorted = visible.toSorted((left, right) => (right.source.precedence ?? 0) - (left.source.precedence ?? 0));
    return {
      json: (await filter(sorted)).map(intentionJson),
      read: { index, filtered: visible.length < result.length },
    };
  });
}

function rightToRead(name: string): Right {
  return { resource: "intention", access: "read", name };
}

/** An intention concerns both of its ends, as far as they are ours (Consul 1.21). */
function mayRead(access: Access, source: Pick<IntentionSource, "name" | "peer">, destination: string): boolean {
  return access.may(rightToRead(destination)) || ((source.peer ?? "") === "" && access.may(rightToRead(source.name)));
}

interface IntentionBody {
  readonly SourcePeer: string;
}

/** What else an intention may say is not looked at: it is refused in any case. */
const bodyType: GoType<IntentionBody> = goStruct<IntentionBody>(
  "structs.Intention",
  { SourcePeer: goString },
  { strict: false },
);

async function create(call: Call): Promise<Answer> {
  const body = await call.body();
  await call.access();
  let peer: string;
  try {
    peer = decodeGo(body, bodyType).SourcePeer;
  } catch (error) {
    if (!(error instanceof GoJsonError)) throw error;
    throw new HttpError(500, `Failed to decode request body: ${error.message}`);
  }
  throw new HttpError(
    500,
    peer === ""
      ? "legacy intentions are not supported. Use config entries of kind service-intentions instead"
      : "SourcePeer field is not supported on this endpoint. Use config entries instead",
  );
}

/** `api`, `default/api`, and at a source `peer:<peer>/api`. */
interface Name {
  readonly peer: string;
  readonly service: string;
}

/** @throws {HttpError} 500 with Consul's text. */
function nameIn(call: Call, parameter: string, withPeer: boolean): Name {
  const given = call.query.get(parameter) ?? "";
  if (given === "") throw new HttpError(500, `required query parameter '${parameter}' not set`);
  const refuse = (why: string): HttpError => new HttpError(500, `${parameter} "${given}" is invalid: ${why}`);
  const peered = given.startsWith("peer:");
  if (peered && !withPeer) throw refuse("cannot specify a peer here");
  const parts = given.replace(/^peer:/, "").split("/");
  const [peer = "", ...names] = peered ? parts : ["", ...parts];
  if (names.length === 0) throw refuse("need to specify the service name as well");
  if (names.length > 3) throw refuse("input can contain at most two '/'");
  const [service = "", namespace = "default"] = names.toReversed();
  if (namespace !== "default") {
    const field = parameter === "source" ? "SourceNS" : "DestinationNS";
    throw new HttpError(500, `Invalid ${field} "${namespace}": Namespaces is a Consul Enterprise feature`);
  }
  return { peer, service };
}

async function exact(call: Call): Promise<Answer> {
  const options = call.readOptions();
  const source = nameIn(call, "source", true);
  const { service: destination } = nameIn(call, "destination", false);
  const access = await call.access();
  if (!mayRead(access, { ...source, name: source.service }, destination)) access.require(rightToRead(destination));
  const { configEntries } = call.host;
  const find = (): Intention | undefined => {
    const stored = configEntries.stored("service-intentions", destination);
    return (
      stored &&
      intentionsOf(stored).find(({ source: { name, peer = "" } }) => name === source.service && peer === source.peer)
    );
  };
  const query = {
    read: () => {
      const found = find();
      return { index: configEntries.index, result: found, found: found !== undefined };
    },
    subscribe: (wake: () => void) =>
      configEntries.onChange(({ kind, name }) => {
        if (kind === "service-intentions" && lowerCase(name) === lowerCase(destination)) wake();
      }),
  };
  return call.answer(options, query, async ({ index, result }) => {
    if (result === undefined) throw new HttpError(404, "Intention not found");
    return { json: intentionJson(result), read: { index } };
  });
}

/** Whether a local service may call another. Of a caller whose requests are looked at one by one nothing can be said: no. */
async function check(call: Call): Promise<Answer> {
  const { service: source } = nameIn(call, "source", false);
  const { service: destination } = nameIn(call, "destination", false);
  await call.require({ resource: "service", access: "read", name: destination });
  const { entries } = call.host.configEntries;
  const sourcesOf = (name: string): readonly IntentionSource[] => {
    const entry: ServiceIntentionsEntry | undefined = entries.get("service-intentions", name);
    return entry?.sources ?? [];
  };
  const found = intentionFor({ source, peer: "", destination }, sourcesOf);
  const allowed = found === undefined ? call.server.authorizer.defaultPolicy === "allow" : found.action === "allow";
  return { json: { Allowed: allowed } };
}

const sourceParameter: ParameterDoc = {
  name: "source",
  in: "query",
  description: "The calling service; `peer:<peer>/<service>` for one of a peer.",
};
const destinationParameter: ParameterDoc = { name: "destination", in: "query", description: "The called service." };

const intentionSchema: JsonSchema = objectOf({
  "Description?": text,
  SourceNS: text,
  SourceName: text,
  DestinationNS: text,
  DestinationName: text,
  "SourcePeer?": text,
  SourceType: text,
  "Action?": text,
  "Permissions?": permissionsSchema,
  "Meta?": textsByKey,
  Precedence: index,
  CreateIndex: index,
  ModifyIndex: index,
});

/** `/v1/connect/intentions` (specification 4.9.3). */
export const intentionOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/connect/intentions",
    run: list,
    docs: [
      {
        path: "/v1/connect/intentions",
        id: "listIntentions",
        summary: "Who may call whom, by precedence: the sources of the config entries of kind service-intentions.",
        parameters: readParameters,
        answer: listOf(intentionSchema),
      },
    ],
  },
  {
    method: "POST",
    pattern: "/v1/connect/intentions",
    run: create,
    docs: [
      {
        path: "/v1/connect/intentions",
        id: "refuseIntention",
        summary: "Always refused: intentions are written as config entries.",
        body: anyObject,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/connect/intentions/exact",
    run: exact,
    docs: [
      {
        path: "/v1/connect/intentions/exact",
        id: "readIntention",
        summary: "What is said of one source and one destination.",
        parameters: [...readParameters, sourceParameter, destinationParameter],
        answer: intentionSchema,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/connect/intentions/check",
    run: check,
    docs: [
      {
        path: "/v1/connect/intentions/check",
        id: "checkIntention",
        summary: "Whether a local service may call another.",
        parameters: [sourceParameter, destinationParameter],
        answer: objectOf({ Allowed: flag }),
      },
    ],
  },
];
