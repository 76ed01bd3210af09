import type { Access, Right } from "../access/authorizer.js";
import { randomId } from "../base/environment.js";
import { inShortTurns, mergeSteps, sortSteps } from "../base/turns.js";
import type { ServiceIntentionsEntry } from "../config/config-entry.js";
import {
  checkLegacyIntention,
  type LegacyIntention,
  noSuchIntention,
  withChangedLegacyIntention,
  withIntention,
  withLegacyIntention,
  withoutIntention,
  withoutLegacyIntention,
} from "../config/intention-writes.js";
import {
  compareIntentions,
  type Intention,
  type IntentionJwt,
  type IntentionSource,
  intentionFor,
} from "../config/intentions.js";
import { listProblems } from "../model/entry-reader.js";
import type { StringMap } from "../model/instance.js";
import { isEmptyMap } from "../model/kept-members.js";
import { jwtField, permissionsField } from "../model/shapes.js";
import type { ConfigEntryChange, StoredConfigEntry } from "../stores/config-entries.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import { type BlockingQuery, onlyChanges } from "./blocking.js";
import type { Call, Server } from "./call.js";
import { entriesOf } from "./config.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, decodeFailed, HttpRefusal } from "./http-refusal.js";
import { filterFor, gathered, kept } from "./in-turns.js";
import {
  endIn,
  endsToWrite,
  exactBody,
  type IntentionBody,
  intentionBodyType,
  legacyBody,
  matchQuestion,
  NO_NAMESPACES,
  refusePeer,
  requireDefaultNamespace,
  requireDefaultNamespaces,
  sourceOf,
} from "./intention-input.js";
import { type Json, LazyList } from "./json.js";
import type { JsonSchema, Operation, ParameterDoc } from "./operation.js";
import { filterParameter, flag, listOf, objectOf, readParameters, text } from "./operation-docs.js";
import { consistencyOf } from "./query.js";
import {
  filterOf,
  type Member,
  type Members,
  membersIn,
  schemaOf,
  shapeMember,
  textMember,
  writerOf,
} from "./record-members.js";
import { indexMembers } from "./records.js";
import { bodySchema } from "./shape-json.js";

// Intentions one by one: each is a source of the config entry of its destination.

export interface StoredIntention extends Intention {
  readonly stored: StoredConfigEntry;
}

export function intentionsOf(stored: StoredConfigEntry): readonly StoredIntention[] {
  const { entry } = stored;
  if (entry.kind !== "service-intentions") return [];
  return entry.sources.map((source) => ({ destination: entry.name, source, stored }));
}

/** Undefined where there is none. */
function metaOf({ source, stored }: StoredIntention): StringMap | undefined {
  const meta = (source.legacyID === undefined ? stored.entry.meta : source.legacyMeta) ?? {};
  return isEmptyMap(meta) ? undefined : meta;
}

function jwtOf({ stored: { entry } }: StoredIntention): IntentionJwt | undefined {
  return entry.kind === "service-intentions" ? entry.jwt : undefined;
}

function constant(name: string, value: string): Member<StoredIntention> {
  return textMember(name, () => value, true);
}

/** Consul's `Intention`, without `Hash` (D-49). Partitions and sameness groups are Consul Enterprise's: they are empty. */
const members: Members<StoredIntention> = [
  shapeMember("CreatedAt", ({ source }) => source.legacyCreateTime, { as: "time" }),
  shapeMember("UpdatedAt", ({ source }) => source.legacyUpdateTime, { as: "time" }),
  textMember("ID", ({ source }) => source.legacyID ?? ""),
  textMember("Description", ({ source }) => source.description ?? ""),
  constant("SourceNS", "default"),
  textMember("SourceName", ({ source }) => source.name, true),
  constant("DestinationNS", "default"),
  textMember("DestinationName", ({ destination }) => destination, true),
  textMember("SourcePartition", () => ""),
  textMember("DestinationPartition", () => ""),
  textMember("SourcePeer", ({ source }) => source.peer ?? ""),
  textMember("SourceSamenessGroup", () => ""),
  constant("SourceType", "consul"),
  textMember("Action", ({ source }) => source.action ?? ""),
  shapeMember("Permissions", ({ source }) => source.permissions, permissionsField),
  shapeMember("JWT", jwtOf, jwtField),
  shapeMember("Meta", metaOf, { as: "textMap" }),
  shapeMember("Precedence", ({ source }) => source.precedence, { as: "int", always: 0 }),
  ...membersIn(indexMembers, ({ stored }: StoredIntention) => stored),
];

/** As Consul prints it. */
export const intentionJson: (intention: StoredIntention) => Json = writerOf(members);
export const intentionSchema: JsonSchema = schemaOf(members);
const fields = filterOf(members);

function rightToRead(name: string): Right {
  return { resource: "intention", access: "read", name };
}

/** An intention concerns both of its ends, as far as they are ours (Consul 1.21). */
export function mayRead(access: Access, { source, destination }: Intention): boolean {
  return access.may(rightToRead(destination)) || (source.peer === undefined && access.may(rightToRead(source.name)));
}

/** Consul does not say here which right is missing. */
function denied(): HttpRefusal {
  return new HttpRefusal(403, "Permission denied");
}

function mayWrite(access: Access, destination: string): boolean {
  return destination !== "" && access.may({ resource: "intention", access: "write", name: destination });
}

async function requireWrite(call: Call, destination: string): Promise<void> {
  if (!mayWrite(await call.access(), destination)) throw denied();
}

/**
 * Writes the entry of a destination. A stored one may be spelled in another way, as names compare without case: it
 * takes the right on both.
 */
async function change(
  call: Call,
  destination: string,
  make: (before: ServiceIntentionsEntry | undefined) => unknown,
): Promise<void> {
  await requireWrite(call, destination);
  const access = await call.access();
  await call.host.configEntries.change("service-intentions", destination, (before) => {
    if (before !== undefined && !mayWrite(access, before.name)) throw denied();
    return make(before);
  });
}

/** A query about intentions, of one destination or of all. */
function query<Result>(
  call: Call,
  read: () => { readonly result: Result; readonly found?: boolean },
  concerns: (change: ConfigEntryChange) => boolean = () => true,
): BlockingQuery<Result> {
  const { configEntries } = call.host;
  return {
    read: () => ({ index: configEntries.index, ...read() }),
    subscribe: (wake) =>
      configEntries.onChange((change) => {
        if (change.kind === "service-intentions" && concerns(change)) wake();
      }),
  };
}

/** The entries that name a source, or have an intention with an id. */
function entriesReferring(
  { host: { configEntries } }: Call,
  what: "source" | "intention-id",
  name: string,
): readonly StoredConfigEntry[] {
  return Array.from(configEntries.entries.referring(what, name)).flatMap(
    (entry) => configEntries.stored(entry.kind, entry.name) ?? [],
  );
}

/** About the cost of an intention that is made of its entry. */
const INTENTION_BYTES = 200;

async function list(call: Call): Promise<Answer> {
  const options = call.readOptions();
  call.refusePartition();
  call.refuseNamespace();
  ownDatacenter(call);
  const filter = filterFor(options, fields);
  await call.access();
  const all = query(call, () => ({ result: undefined }));
  // The index is taken before the intentions: newer ones among them are reported again.
  return call.answer(options, all, async ({ index }) => {
    const access = await call.access();
    const found = await gathered(await entriesOf(call, "service-intentions"), intentionsOf);
    await call.room(found.length * INTENTION_BYTES);
    const visible = await kept(found, (intention) => mayRead(access, intention));
    const sorted = await inShortTurns(sortSteps([...visible], compareIntentions));
    return {
      json: LazyList.of(await filter(sorted), intentionJson),
      read: { index, filtered: visible.length < found.length },
    };
  });
}

function noIntention(): HttpRefusal {
  return new HttpRefusal(404, "Intention not found");
}

/** Answers with one intention, which both of its ends may read. */
async function answerOne(call: Call, one: BlockingQuery<StoredIntention | undefined>): Promise<Answer> {
  const options = call.readOptions();
  await call.access();
  // A missing one is not waited for, as in Consul.
  if (one.read().result === undefined) throw noIntention();
  return call.answer(options, one, async ({ index, result }) => {
    if (result === undefined) throw noIntention();
    if (!mayRead(await call.access(), result)) throw denied();
    return { json: intentionJson(result), read: { index } };
  });
}

async function exact(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const from = endIn(call, "source", true);
  const to = endIn(call, "destination");
  ownDatacenter(call);
  requireDefaultNamespace(from.namespace, "SourceNS");
  requireDefaultNamespace(to.namespace, "DestinationNS");
  for (const [what, { service }] of Object.entries({ SourceName: from, DestinationName: to })) {
    if (service === "") throw new HttpRefusal(500, listProblems([`${what} is missing`]));
  }
  const find = (): StoredIntention | undefined => {
    const stored = call.host.configEntries.stored("service-intentions", to.service);
    return (
      stored &&
      intentionsOf(stored).find(({ source: { name, peer = "" } }) => name === from.service && peer === from.peer)
    );
  };
  const one = query(
    call,
    () => ({ result: find() }),
    ({ name }) => lowerCase(name) === lowerCase(to.service),
  );
  return answerOne(call, one);
}

/** Whether a local service may call another. Of a caller whose requests are looked at one by one nothing can be said: no. */
/** Whether a call is allowed of which no intention speaks. */
export function intendedByDefault({ defaultIntentionPolicy, authorizer }: Server): boolean {
  return (defaultIntentionPolicy ?? authorizer.defaultPolicy) === "allow";
}

async function check(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const from = endIn(call, "source");
  const to = endIn(call, "destination");
  ownDatacenter(call);
  requireDefaultNamespace(from.namespace, "source namespace");
  requireDefaultNamespace(to.namespace, "destination namespace");
  const type = call.query.get("source-type") ?? "consul";
  if (type !== "consul") throw new HttpRefusal(500, `unsupported SourceType: ${JSON.stringify(type)}`);
  if (to.service === "") await call.access();
  else await call.require({ resource: "service", access: "read", name: to.service });
  const { entries } = call.host.configEntries;
  const sourcesOf = (name: string): readonly IntentionSource[] =>
    entries.get("service-intentions", name)?.sources ?? [];
  const found = intentionFor({ source: from.service, peer: "", destination: to.service }, sourcesOf);
  const allowed = found === undefined ? intendedByDefault(call.server) : found.action === "allow";
  return { json: { Allowed: allowed } };
}

/** Each name may bring all intentions of `*` into the answer. @throws {HttpRefusal} 400. */
function requireFewNames(call: Call, names: number): void {
  const { maxMatchNames: limit } = call.server;
  if (names <= limit) return;
  call.host.incidents.report("intention-match-names", "refused a question about the intentions of too many services", {
    names,
    limit,
  });
  throw badRequest(`at most ${limit} names can be matched at once`);
}

/** The entry of a destination, if there is one. */
export function toDestination({ host: { configEntries } }: Call, name: string): readonly StoredConfigEntry[] {
  const stored = configEntries.stored("service-intentions", name);
  return stored === undefined ? [] : [stored];
}

/** The entries that name a local service as a source: those of peers that have its name are shown with it (Consul 1.21). */
function fromSource(call: Call, name: string): readonly StoredConfigEntry[] {
  return entriesReferring(call, "source", name).filter(
    ({ entry }) =>
      entry.kind === "service-intentions" &&
      entry.sources.some((source) => source.name === name && source.peer === undefined),
  );
}

/** About the memory that one more place in a list takes. */
const REFERENCE_BYTES = 8;

/** A service, as it was asked for and by its name, and the entries of the intentions that it is one end of. */
interface Matched {
  readonly given: string;
  readonly own: readonly StoredConfigEntry[];
}

/** Intentions that a service is one end of, those for all services included. */
async function match(call: Call): Promise<Answer> {
  const options = call.readOptions();
  call.refusePartition();
  call.refuseNamespace();
  const { by, names } = matchQuestion(call);
  ownDatacenter(call);
  requireFewNames(call, names.size);
  for (const name of names.values()) if (name !== "") await call.require(rightToRead(name));
  const entriesFor = (name: string): readonly StoredConfigEntry[] =>
    by === "destination" ? toDestination(call, name) : fromSource(call, name);
  const matches = query(call, () => {
    const forAll = entriesFor("*");
    const own = Array.from(names, ([given, name]): Matched => ({ given, own: name === "*" ? [] : entriesFor(name) }));
    return { result: { forAll, own }, found: forAll.length > 0 || own.some((each) => each.own.length > 0) };
  });
  // Without a change of these entries it is not answered again, as in Consul.
  const form = ({ forAll, own }: { readonly forAll: Matched["own"]; readonly own: readonly Matched[] }): string =>
    [forAll, ...own.map((each) => each.own)]
      .map((entries) => entries.map(({ entry, modifyIndex }) => `${entry.name} ${modifyIndex}`).join())
      .join(";");
  return call.answer(options, onlyChanges(matches, options.minIndex, form), async ({ index, result }) => {
    const sorted = async (entries: readonly StoredConfigEntry[], name: string): Promise<readonly StoredIntention[]> => {
      const found = await gathered(entries, (stored) =>
        intentionsOf(stored).filter(({ source }) => by === "destination" || source.name === name),
      );
      return inShortTurns(sortSteps(found, compareIntentions));
    };
    const forAll = await sorted(result.forAll, "*");
    const json = new Map<string, Json>();
    for (const { given, own } of result.own) {
      const found = await inShortTurns(
        mergeSteps(await sorted(own, names.get(given) ?? ""), forAll, compareIntentions),
      );
      await call.room(found.length * REFERENCE_BYTES);
      // Consul writes `null` where there are none.
      json.set(given, found.length === 0 ? null : LazyList.of(found, intentionJson));
    }
    return { json, read: { index, consistency: consistencyOf(options) } };
  });
}

// Writes.

async function putExact(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const { source, destination } = endsToWrite(call);
  const body = await exactBody(call);
  refusePeer(body);
  await change(call, destination, (before) => {
    checkMeta(before, body);
    return withIntention(before, destination, sourceOf(source, body));
  });
  return { json: true };
}

/** Metadata belongs to the whole entry: sending back an answer unchanged changes nothing. */
function checkMeta(before: ServiceIntentionsEntry | undefined, { Meta }: IntentionBody): void {
  const given = Object.entries(Meta);
  if (given.length === 0) return;
  if (before === undefined) throw new HttpRefusal(500, "Meta must not be specified");
  const meta = new Map(Object.entries(before.meta ?? {}));
  if (meta.size === given.length && given.every(([key, value]) => meta.get(key) === value)) return;
  throw new HttpRefusal(500, "Meta must not be specified, or should be unchanged during an update.");
}

async function deleteExact(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const { source, destination } = endsToWrite(call);
  await change(call, destination, (before) => withoutIntention(before, source));
  return { json: true };
}

/** Makes an intention with an id, as Consul before 1.9 did. */
async function create(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const body = await legacyBody(
    call,
    ({ message }) => new HttpRefusal(500, `Failed to decode request body: ${message}`),
  );
  requireDefaultNamespaces(body, (field, namespace) => badRequest(`Invalid ${field}(${namespace}): ${NO_NAMESPACES}`));
  refusePeer(body);
  const destination = body.DestinationName;
  await requireWrite(call, destination);
  if (body.ID !== "") throw new HttpRefusal(500, "ID must be empty when creating a new intention");
  const intention = legacyIntention(call, randomId(call.server.random), body);
  await change(call, destination, (before) => withLegacyIntention(before, destination, intention));
  return { json: { ID: intention.id } };
}

/** @throws {PeeringError} `invalid-entry`. */
function legacyIntention(call: Call, id: string, body: IntentionBody): LegacyIntention {
  const { SourceName: source, DestinationName: destination, Meta: meta } = body;
  const now = new Date(call.server.clock.wall()).toISOString();
  const intention = { ...sourceOf(source, body), id, meta, now };
  checkLegacyIntention({ source, destination }, intention);
  return intention;
}

/** Why an id is none, in the words of Consul's index of them. */
function idFault(id: string): string | undefined {
  if (Buffer.byteLength(id) !== 36) return "UUID must be 36 characters";
  const hyphens = id.split("-").length - 1;
  if (hyphens > 4) return `UUID should have maximum of 4 "-"; got ${hyphens}`;
  const digits = id.replaceAll("-", "");
  if (digits.length % 2 !== 0) return "UUID (without hyphens) must be even length";
  const bad = /[^0-9a-fA-F]/u.exec(digits)?.[0];
  if (bad === undefined) return undefined;
  const code = bad.codePointAt(0) ?? 0;
  return `Invalid UUID: encoding/hex: invalid byte: U+${code.toString(16).toUpperCase().padStart(4, "0")} '${bad}'`;
}

const NO_LOOKUP = "failed config entry lookup: index error:";

function byId(call: Call, id: string): StoredIntention | undefined {
  return entriesReferring(call, "intention-id", id)
    .flatMap(intentionsOf)
    .find(({ source }) => source.legacyID === id);
}

async function readById(call: Call): Promise<Answer> {
  const id = call.rest;
  const fault = id === "" ? undefined : idFault(id);
  ownDatacenter(call);
  if (fault !== undefined) throw badRequest(`${NO_LOOKUP} ${fault}`);
  const one = query(call, () => ({ result: id === "" ? undefined : byId(call, id) }));
  return answerOne(call, one);
}

/** The destination of an intention that the caller may write. */
async function destinationOf(call: Call, what: "modify" | "delete"): Promise<string> {
  await call.access();
  const id = call.rest;
  const fault = idFault(id);
  if (fault !== undefined) throw new HttpRefusal(500, `Intention lookup failed: ${NO_LOOKUP} ${fault}`);
  const found = byId(call, id);
  if (found === undefined) throw noSuchIntention(what, id);
  await requireWrite(call, found.destination);
  return found.destination;
}

async function updateById(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const body = await legacyBody(call, decodeFailed);
  refusePeer(body);
  const destination = await destinationOf(call, "modify");
  if (body.DestinationName !== destination) {
    throw new HttpRefusal(500, "Cannot modify Destination partition/namespace/name for an intention once it exists.");
  }
  requireDefaultNamespaces(body, (field, namespace) => {
    const end = field === "SourceNS" ? "source" : "destination";
    return new HttpRefusal(500, `Invalid ${end} namespace "${namespace}": ${NO_NAMESPACES}`);
  });
  const intention = legacyIntention(call, call.rest, body);
  await change(call, destination, (before) => withChangedLegacyIntention(before, intention));
  return { json: { ID: intention.id } };
}

async function deleteById(call: Call): Promise<Answer> {
  const destination = await destinationOf(call, "delete");
  await change(call, destination, (before) => withoutLegacyIntention(before, call.rest));
  return { json: true };
}

const sourceParameter: ParameterDoc = {
  name: "source",
  in: "query",
  description: "The calling service; where it is read also `peer:<peer>/<service>` for one of a peer.",
};
const destinationParameter: ParameterDoc = { name: "destination", in: "query", description: "The called service." };
const ends = [sourceParameter, destinationParameter];

const PATTERN = "/v1/connect/intentions";

/** `/v1/connect/intentions`. */
export const intentionOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: PATTERN,
    sources: ["config-entries"],
    run: list,
    docs: [
      {
        path: PATTERN,
        id: "listIntentions",
        summary: "Intentions, by precedence: the sources of the config entries of kind service-intentions.",
        parameters: [...readParameters, filterParameter],
        answer: listOf(intentionSchema),
      },
    ],
  },
  {
    method: "POST",
    pattern: PATTERN,
    run: create,
    docs: [
      {
        path: PATTERN,
        id: "createIntention",
        summary: "Deprecated: makes an intention with an id.",
        body: bodySchema(intentionBodyType.form),
        answer: objectOf({ ID: text }),
      },
    ],
  },
  {
    method: "GET",
    pattern: `${PATTERN}/exact`,
    sources: ["config-entries"],
    run: exact,
    docs: [
      {
        path: `${PATTERN}/exact`,
        id: "readIntention",
        summary: "The intention of one source and one destination.",
        parameters: [...readParameters, ...ends],
        answer: intentionSchema,
      },
    ],
  },
  {
    method: "PUT",
    pattern: `${PATTERN}/exact`,
    run: putExact,
    docs: [
      {
        path: `${PATTERN}/exact`,
        id: "writeIntention",
        summary:
          "Writes the intention of one local source and one destination, into the config entry of the destination.",
        parameters: ends,
        body: bodySchema(intentionBodyType.form),
        answer: flag,
      },
    ],
  },
  {
    method: "DELETE",
    pattern: `${PATTERN}/exact`,
    run: deleteExact,
    docs: [
      {
        path: `${PATTERN}/exact`,
        id: "deleteIntention",
        summary: "Deletes the intention of one local source and one destination; a missing one is a success.",
        parameters: ends,
        answer: flag,
      },
    ],
  },
  {
    method: "GET",
    pattern: `${PATTERN}/match`,
    sources: ["config-entries"],
    cacheable: true,
    run: match,
    docs: [
      {
        path: `${PATTERN}/match`,
        id: "matchIntentions",
        summary: "Intentions of which services are one end, by precedence, those for all services included.",
        parameters: [
          ...readParameters,
          { name: "by", in: "query", description: "Which end: `source` or `destination`." },
          { name: "name", in: "query", description: "A service; may be given several times." },
        ],
        answer: { type: "object", additionalProperties: { type: ["array", "null"], items: intentionSchema } },
      },
    ],
  },
  {
    method: "GET",
    pattern: `${PATTERN}/check`,
    sources: ["config-entries"],
    run: check,
    docs: [
      {
        path: `${PATTERN}/check`,
        id: "checkIntention",
        summary: "Whether a local service may call another.",
        parameters: ends,
        answer: objectOf({ Allowed: flag }),
      },
    ],
  },
  {
    method: "GET",
    pattern: `${PATTERN}/`,
    sources: ["config-entries"],
    run: readById,
    docs: [
      {
        path: `${PATTERN}/{id}`,
        id: "readIntentionById",
        summary: "Deprecated: an intention with an id.",
        parameters: readParameters,
        answer: intentionSchema,
      },
    ],
  },
  {
    method: "PUT",
    pattern: `${PATTERN}/`,
    run: updateById,
    docs: [
      {
        path: `${PATTERN}/{id}`,
        id: "updateIntentionById",
        summary: "Deprecated: writes an intention with an id, whole.",
        body: bodySchema(intentionBodyType.form),
        answer: objectOf({ ID: text }),
      },
    ],
  },
  {
    method: "DELETE",
    pattern: `${PATTERN}/`,
    run: deleteById,
    docs: [
      {
        path: `${PATTERN}/{id}`,
        id: "deleteIntentionById",
        summary: "Deprecated: deletes an intention with an id.",
        answer: flag,
      },
    ],
  },
];
