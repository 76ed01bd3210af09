import { setImmediate } from "node:timers/promises";
import type { Access, Right } from "../access/authorizer.js";
import { sortByKeys } from "../base/turns.js";
import type { ConfigEntry } from "../config/config-entry.js";
import { CONFIG_ENTRY_KINDS, type ConfigEntryKind, isConfigEntryKind } from "../model/entry-kinds.js";
import { derived } from "../model/listing.js";
import type { StoredConfigEntry } from "../stores/config-entries.js";
import { firstValueSteps, type GoJson } from "../syntax/go-json.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import type { BlockingQuery } from "./blocking.js";
import type { Call } from "./call.js";
import {
  configEntryBody,
  configEntryFields,
  configEntryJson,
  configEntrySchema,
  type DecodedEntry,
  decodeConfigEntry,
} from "./config-json.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { filterFor, gathered, kept } from "./in-turns.js";
import { LazyList } from "./json.js";
import { basisOf, RECORDS } from "./kept-answers.js";
import type { Operation } from "./operation.js";
import {
  casParameter,
  datacenterParameter,
  filterParameter,
  flag,
  listOf,
  objectOf,
  readParameters,
  text,
  texts,
} from "./operation-docs.js";
import { parseUint64 } from "./query.js";

/** The right to read an entry of a kind (Consul 1.21). */
const READ: Readonly<Record<ConfigEntryKind, "nothing" | "mesh" | "service" | "intention" | "mesh or any service">> = {
  "api-gateway": "service",
  "bound-api-gateway": "service",
  "exported-services": "mesh",
  "file-system-certificate": "mesh",
  "http-route": "mesh",
  "ingress-gateway": "service",
  "inline-certificate": "mesh",
  // Sidecars read it, with the token of their service.
  "jwt-provider": "mesh or any service",
  mesh: "nothing",
  "proxy-defaults": "nothing",
  "sameness-group": "nothing",
  "service-defaults": "service",
  "service-intentions": "intention",
  "service-resolver": "service",
  "service-router": "service",
  "service-splitter": "service",
  "tcp-route": "mesh",
  "terminating-gateway": "service",
};

/** Kinds that are written with a right on the service they are named after; the others need `mesh:write`. */
const NAMED_KINDS: readonly ConfigEntryKind[] = [
  "service-defaults",
  "service-intentions",
  "service-resolver",
  "service-router",
  "service-splitter",
];

/** The right that reading an entry needs; undefined: none. */
function rightToRead(access: Access, kind: ConfigEntryKind, name: string): Right | undefined {
  const need = READ[kind];
  switch (need) {
    case "nothing":
      return undefined;
    case "service":
    case "intention":
      return { resource: need, access: "read", name };
    case "mesh":
      return { resource: "mesh", access: "read" };
    case "mesh or any service":
      return access.may({ resource: "service", access: "write", scope: "any" })
        ? undefined
        : { resource: "mesh", access: "read" };
  }
}

/**
 * The rights that writing or deleting an entry needs, in the order in which they are checked.
 * @param stored - the name of the entry that is there: it may be spelled in another way, as names compare without case.
 */
function rightsToWrite(
  kind: ConfigEntryKind,
  name: string,
  stored: string | undefined,
  entry: unknown,
): readonly Right[] {
  if (!NAMED_KINDS.includes(kind)) return [{ resource: "mesh", access: "write" }];
  const resource = kind === "service-intentions" ? "intention" : "service";
  const names = [...new Set([name, stored ?? name])];
  return [
    ...names.map((each): Right => ({ resource, access: "write", name: each })),
    ...[...referencedServices(entry)]
      .filter((service) => !names.includes(service))
      .map((service): Right => ({ resource: "service", access: "read", name: service })),
  ];
}

/** Names under any `service` of an entry: where its traffic may go. */
function referencedServices(value: unknown, found: Set<string> = new Set()): Set<string> {
  if (Array.isArray(value)) for (const item of value) referencedServices(item, found);
  else if (typeof value === "object" && value !== null) {
    for (const [key, item] of Object.entries(value)) {
      if (key === "service" && typeof item === "string" && item !== "") found.add(item);
      else if (key === "targets" && Array.isArray(item)) referencedServices(item.filter(isLocalTarget), found);
      // Kinds that are only stored name no services.
      else if (key !== "extra" && key !== "meta" && key !== "match") referencedServices(item, found);
    }
  }
  return found;
}

/** Rules of this cluster do not decide which callers see the services of a peer. */
function isLocalTarget(target: unknown): boolean {
  return !(typeof target === "object" && target !== null && "peer" in target && target.peer !== "");
}

async function requireWrite(call: Call, kind: ConfigEntryKind, name: string, entry: unknown): Promise<void> {
  const access = await call.access();
  const stored = call.host.configEntries.stored(kind, name)?.entry.name;
  if (kind === "bound-api-gateway") throw new HttpRefusal(403, "Permission denied: only writeable by controller");
  for (const right of rightsToWrite(kind, name, stored, entry)) access.require(right);
}

async function write(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const given = await parsedBody(call);
  // A long entry takes its time: others have their turn between the steps.
  await setImmediate();
  const decoded = decodeConfigEntry(given);
  await setImmediate();
  const cas = casOf(call);
  await requireWrite(call, decoded.kind, decoded.name, decoded.entry);
  checkName(decoded);
  const written = await call.host.configEntries.setUntyped(decoded.entry, cas === undefined ? {} : { cas });
  // The next read finds the addresses that belong to the entry.
  await call.host.view.settled();
  return { json: written };
}

async function parsedBody(call: Call): Promise<GoJson> {
  return call.decoded(firstValueSteps, ({ message }) => badRequest(`Request decoding failed: ${message}`));
}

/** Over HTTP the name of this kind must be given, though there is only one. */
function checkName({ kind, name }: DecodedEntry): void {
  if (name !== "") return;
  if (kind === "exported-services") throw new HttpRefusal(500, 'exported-services Name must be "default"');
}

/** @throws {HttpRefusal} 500 with the text of Go's parser, as Consul. */
function casOf(call: Call): bigint | undefined {
  const given = call.query.get("cas") ?? "";
  if (given === "") return undefined;
  const cas = parseUint64(given);
  if (cas !== undefined) return cas;
  const why = /^\d+$/.test(given) ? "value out of range" : "invalid syntax";
  throw new HttpRefusal(500, `strconv.ParseUint: parsing ${JSON.stringify(given)}: ${why}`);
}

async function read(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const slash = call.rest.indexOf("/");
  return slash < 0 ? readKind(call, call.rest) : readOne(call, call.rest.slice(0, slash), call.rest.slice(slash + 1));
}

async function readOne(call: Call, kind: string, name: string): Promise<Answer> {
  const options = call.readOptions();
  ownDatacenter(call);
  if (!isConfigEntryKind(kind)) throw new HttpRefusal(500, `invalid config entry kind: ${kind}`);
  const access = await call.access();
  const right = rightToRead(access, kind, name);
  if (right !== undefined) access.require(right);
  const { configEntries } = call.host;
  const query = {
    read: () => {
      const stored = configEntries.stored(kind, name);
      return { index: configEntries.index, result: stored, found: stored !== undefined };
    },
    subscribe: (wake: () => void) =>
      configEntries.onChange((change) => {
        if (change.kind === kind && lowerCase(change.name) === lowerCase(name)) wake();
      }),
  };
  return call.answer(options, query, async ({ index, result }) => {
    if (result !== undefined) return { json: configEntryJson(result), read: { index } };
    const missing = `Config entry not found for ${JSON.stringify(kind)} / ${JSON.stringify(name)}`;
    return { status: 404, text: missing, read: { index } };
  });
}

/** The one kind that Consul filters (1.21). */
const FILTERED_KIND = "service-defaults";
const filteredFields = configEntryFields(FILTERED_KIND);

/** About the cost of an entry in a list, with its indexes. */
const ENTRY_BYTES = 150;

async function readKind(call: Call, kind: string): Promise<Answer> {
  const options = call.readOptions();
  ownDatacenter(call);
  if (kind !== "" && !isConfigEntryKind(kind)) throw new HttpRefusal(500, `invalid config entry kind: ${kind}`);
  if (options.filter !== "" && kind !== FILTERED_KIND) {
    throw new HttpRefusal(500, `filtering not supported for config entry kind=${kind}`);
  }
  const filter = filterFor(options, filteredFields);
  const access = await call.access();
  const wanted = kind === "" ? undefined : kind;
  const { configEntries } = call.host;
  const index = (): bigint => configEntries.index;
  const query: BlockingQuery<undefined> = {
    read: () => ({ index: index(), result: undefined }),
    index,
    subscribe: (wake) =>
      configEntries.onChange((change) => {
        if (wanted === undefined || change.kind === wanted) wake();
      }),
  };
  // The index is taken before the entries: newer ones among them are reported again.
  return call.answer(options, query, async ({ index }) => {
    const all = await entriesOf(call, wanted);
    await call.room(all.length * ENTRY_BYTES);
    const visible = await kept(all, ({ entry }) => mayRead(access, entry));
    return {
      json: LazyList.of(await filter(visible), configEntryJson),
      read: { index, filtered: visible.length < all.length },
    };
  });
}

/** The entries of a kind, or of all kinds, by kind and name; found in turns. */
export async function entriesOf(
  { host: { configEntries } }: Call,
  kind?: ConfigEntryKind,
): Promise<readonly StoredConfigEntry[]> {
  const { entries } = configEntries;
  const found: StoredConfigEntry[] = [];
  for (const each of kind === undefined ? CONFIG_ENTRY_KINDS : [kind]) {
    const names = await sortByKeys(entries.all(each).keys(), (name) => [name]);
    const stored = await gathered(names, (name) => {
      const one = configEntries.stored(each, name);
      return one === undefined ? [] : [one];
    });
    for (const one of stored) found.push(one);
  }
  return found;
}

function mayRead(access: Access, entry: ConfigEntry): boolean {
  const right = rightToRead(access, entry.kind, entry.name);
  return right === undefined || access.may(right);
}

async function remove(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const slash = call.rest.indexOf("/");
  const kind = slash < 0 ? call.rest : call.rest.slice(0, slash);
  const name = slash < 0 ? "" : call.rest.slice(slash + 1);
  if (kind === "" || name === "") throw new HttpRefusal(404, "Must provide both a kind and name to delete");
  if (!isConfigEntryKind(kind)) throw badRequest(`invalid config entry kind: ${kind}`);
  if (kind === "proxy-defaults" && name !== "global") {
    throw new HttpRefusal(500, `invalid name (${JSON.stringify(name)}), only "global" is supported`);
  }
  const cas = casOf(call);
  await requireWrite(call, kind, name, undefined);
  const deleted = await call.host.configEntries.delete(kind, name, cas === undefined ? {} : { cas });
  await call.host.view.settled();
  return { json: cas === undefined ? {} : deleted };
}

async function exportedServices(call: Call): Promise<Answer> {
  call.refusePartition();
  const options = call.readOptions();
  await call.require({ resource: "mesh", access: "read" });
  const { host } = call;
  const { exports } = host;
  const basis = basisOf(["config-entries"], () => [exports.resolvedIndex]);
  const query = {
    read: () => ({ index: exports.resolvedIndex, result: exports.resolved() }),
    index: () => exports.resolvedIndex,
    subscribe: (wake: () => void) => exports.onResolvedChange(wake),
  };
  return call.answer(options, query, async ({ index, result }) => {
    // A name with its peers never changes, it is replaced.
    const json = call.list(
      derived(result, (one) => one),
      ({ service, peers }) => ({ Service: service, Consumers: peers.length === 0 ? {} : { Peers: peers } }),
    );
    return { json, read: { index }, basis };
  });
}

export const configOperations: readonly Operation[] = [
  {
    method: "PUT",
    pattern: "/v1/config",
    run: write,
    docs: [
      {
        path: "/v1/config",
        id: "writeConfigEntry",
        summary: "Writes a configuration entry, whole; false: `cas` did not match.",
        parameters: [casParameter, datacenterParameter],
        body: configEntryBody,
        answer: flag,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/config/",
    sources: ["config-entries"],
    run: read,
    docs: [
      {
        path: "/v1/config/{kind}/{name}",
        id: "readConfigEntry",
        summary: "One configuration entry.",
        parameters: readParameters,
        answer: configEntrySchema,
      },
      {
        path: "/v1/config/{kind}",
        id: "listConfigEntries",
        summary:
          "The configuration entries of a kind that the caller may read, by name; `filter` is for service-defaults.",
        parameters: [...readParameters, filterParameter],
        answer: listOf(configEntrySchema),
      },
    ],
  },
  {
    method: "DELETE",
    pattern: "/v1/config/",
    run: remove,
    docs: [
      {
        path: "/v1/config/{kind}/{name}",
        id: "deleteConfigEntry",
        summary: "Deletes a configuration entry; deleting a missing one is a success.",
        parameters: [casParameter, datacenterParameter],
        answer: { type: ["object", "boolean"] },
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/exported-services",
    sources: RECORDS,
    run: exportedServices,
    docs: [
      {
        path: "/v1/exported-services",
        id: "listExportedServices",
        summary: "Which services are exported to which peers, with `*` resolved.",
        parameters: readParameters,
        answer: listOf(objectOf({ Service: text, Consumers: objectOf({ "Peers?": texts }) })),
      },
    ],
  },
];
