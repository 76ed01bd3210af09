import type { ConfigEntryKind } from "../catalog/config-entry.js";
import { isConfigEntryKind } from "../catalog/config-entry.js";
import { listProblems } from "../catalog/entry-reader.js";
import type { IntentionSource } from "../catalog/intentions.js";
import type { StoredConfigEntry } from "../host/config-entries.js";
import { durationText, parseDuration } from "../syntax/go-duration.js";
import { type GoJson, GoNumber, GoObject, isGoList, isGoObject, type PlainJson, plainJson } from "../syntax/go-json.js";
import { badRequest } from "./http-error.js";
import type { Json } from "./json.js";
import { index, texts, textsByKey } from "./operation-docs.js";
import type { JsonSchema } from "./routes.js";

/** How a field is read and written. The library's name of it is Consul's with a small first letter. */
type Field = {
  readonly as: "text" | "flag" | "number" | "duration" | "texts" | "textMap" | "json" | "opaque" | "ignored" | Nested;
  /** Written where the entry does not have it; absent: nothing is written then. */
  readonly always?: Json;
  /** Other spellings, besides the one with underscores. */
  readonly aliases?: readonly string[];
};

interface Nested {
  readonly many: "one" | "list" | "map";
  readonly shape: Shape;
}

/** Consul's names in the order in which it writes them. */
type Shape = Readonly<Record<string, Field>>;

const text: Field = { as: "text" };
const flag: Field = { as: "flag" };
const duration: Field = { as: "duration" };
/** Kept in `extra`, as it came. */
const opaque: Field = { as: "opaque" };
const emptyOpaque: Field = { as: "opaque", always: {} };
const ignored: Field = { as: "ignored" };

function one(shape: Shape): Field {
  return { as: { many: "one", shape } };
}

function list(shape: Shape, always?: Json): Field {
  return { as: { many: "list", shape }, ...(always === undefined ? {} : { always }) };
}

function map(shape: Shape): Field {
  return { as: { many: "map", shape } };
}

const proxyFields: Shape = {
  Mode: opaque,
  TransparentProxy: emptyOpaque,
  MutualTLSMode: opaque,
  MeshGateway: emptyOpaque,
  Expose: emptyOpaque,
};

const target: Shape = {
  Service: text,
  ServiceSubset: text,
  Partition: text,
  Namespace: text,
  Datacenter: text,
  Peer: text,
};

/** Read, so that they can be refused. */
const providers = one({ Providers: list({ Name: text, VerifyClaims: list({ Path: { as: "texts" }, Value: text }) }) });

const permissions = list({
  Action: text,
  HTTP: one({
    PathExact: text,
    PathPrefix: text,
    PathRegex: text,
    Header: list({
      Name: text,
      Present: flag,
      Exact: text,
      Prefix: text,
      Suffix: text,
      Contains: text,
      Regex: text,
      Invert: flag,
      IgnoreCase: flag,
    }),
    Methods: { as: "texts" },
  }),
  JWT: providers,
});

const shapes: Readonly<Record<ConfigEntryKind, Shape>> = {
  "exported-services": {
    Name: text,
    Services: list({
      Name: text,
      // One namespace in Community Edition: which one is said has no effect.
      Namespace: ignored,
      Consumers: list({ Partition: text, Peer: { as: "text", aliases: ["peer_name"] }, SamenessGroup: text }, null),
    }),
  },
  mesh: {
    TransparentProxy: { as: "opaque", always: { MeshDestinationsOnly: false } },
    AllowEnablingPermissiveMutualTLS: opaque,
    TLS: opaque,
    HTTP: opaque,
    Peering: one({ PeerThroughMeshGateways: flag }),
    ValidateClusters: opaque,
    Limits: opaque,
  },
  "proxy-defaults": {
    Name: text,
    Config: { as: "json", always: null },
    ...proxyFields,
    AccessLogs: emptyOpaque,
    EnvoyExtensions: opaque,
    FailoverPolicy: opaque,
    PrioritizeByLocality: opaque,
  },
  "service-defaults": {
    Name: text,
    Protocol: { as: "text", always: "" },
    ...proxyFields,
    ExternalSNI: opaque,
    UpstreamConfig: opaque,
    Destination: opaque,
    MaxInboundConnections: opaque,
    LocalConnectTimeoutMs: opaque,
    LocalRequestTimeoutMs: opaque,
    BalanceInboundConnections: opaque,
    RateLimits: opaque,
    EnvoyExtensions: opaque,
    MaxRequestHeadersKB: opaque,
  },
  "service-intentions": {
    Name: text,
    JWT: providers,
    Sources: list(
      {
        Name: text,
        Action: text,
        Permissions: permissions,
        Precedence: { as: "number" },
        LegacyID: ignored,
        Type: { as: "text", always: "consul" },
        Description: text,
        LegacyMeta: ignored,
        LegacyCreateTime: ignored,
        LegacyUpdateTime: ignored,
        Peer: text,
        SamenessGroup: text,
      },
      null,
    ),
  },
  "service-resolver": {
    Name: text,
    DefaultSubset: text,
    Subsets: map({ Filter: text, OnlyPassing: flag }),
    Redirect: one({ ...target, SamenessGroup: text }),
    Failover: map({
      Service: text,
      ServiceSubset: text,
      Namespace: text,
      Datacenters: { as: "texts" },
      Targets: list(target),
      Policy: { as: "json" },
    }),
    ConnectTimeout: duration,
    RequestTimeout: duration,
    LoadBalancer: opaque,
    PrioritizeByLocality: opaque,
  },
  "service-router": {
    Name: text,
    Routes: list(
      {
        Match: { as: "json" },
        Destination: one({
          Service: text,
          ServiceSubset: text,
          Namespace: text,
          Partition: text,
          PrefixRewrite: opaque,
          RequestTimeout: opaque,
          IdleTimeout: opaque,
          NumRetries: opaque,
          RetryOnConnectFailure: opaque,
          RetryOn: opaque,
          RetryOnStatusCodes: opaque,
          RequestHeaders: opaque,
          ResponseHeaders: opaque,
        }),
      },
      null,
    ),
  },
  "service-splitter": {
    Name: text,
    Splits: list(
      {
        Weight: { as: "number", always: 0 },
        Service: text,
        ServiceSubset: text,
        Namespace: text,
        Partition: text,
        RequestHeaders: opaque,
        ResponseHeaders: opaque,
      },
      null,
    ),
  },
  "terminating-gateway": {
    Name: text,
    Services: list(
      {
        Name: text,
        CAFile: opaque,
        CertFile: opaque,
        KeyFile: opaque,
        SNI: opaque,
        DisableAutoHostRewrite: opaque,
        Namespace: ignored,
      },
      null,
    ),
  },
};

/** What every entry may have, before and after its own fields. */
const common: Shape = { Meta: { as: "textMap" }, CreateIndex: ignored, ModifyIndex: ignored, Hash: ignored };

// Reading.

/** An entry as read from a request: of the library's form, not checked yet. */
export interface DecodedEntry {
  readonly kind: ConfigEntryKind;
  /** `""` when not given. */
  readonly name: string;
  readonly entry: Readonly<Record<string, PlainJson>>;
}

/**
 * Reads an entry with Consul's leniency: keys in any case or with underscores, one object where a list is expected and
 * the reverse, numbers, truth values and texts for each other.
 * @throws {HttpError} 400 `Request decoding failed: …`
 */
export function decodeConfigEntry(body: GoJson): DecodedEntry {
  if (body !== null && !isGoObject(body)) throw refused(`'' expected a map, got '${goKind(body)}'`);
  const top = body ?? new GoObject([]);
  const given = membersOf(top);
  const kind = given.get("Kind") ?? given.get("kind") ?? null;
  if (kind === null) throw refused("Payload does not contain a kind/Kind key at the top level");
  if (typeof kind !== "string") throw refused("Kind value in payload is not a string");
  if (!isConfigEntryKind(kind)) throw refused(`invalid config entry kind: ${kind}`);
  const reader = new Reader();
  const fields = reader.object(top, { Kind: ignored, ...shapes[kind], ...common }, "");
  if (reader.mismatches.length > 0) {
    const { mismatches } = reader;
    throw refused(`${mismatches.length} error(s) decoding:\n\n${mismatches.map((text) => `* ${text}`).join("\n")}`);
  }
  if (reader.unknown.length > 0) throw refused(listProblems(reader.unknown));
  const { name } = fields;
  return { kind, name: typeof name === "string" ? name : "", entry: { kind, ...fields } };
}

/** Of equal keys the last, as in a Go map. */
function membersOf({ members }: GoObject): ReadonlyMap<string, GoJson> {
  return new Map(members.map(({ key, value }) => [key, value]));
}

function refused(why: string): Error {
  return badRequest(`Request decoding failed: ${why}`);
}

function goKind(value: GoJson): string {
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  return value instanceof GoNumber ? "float64" : isGoList(value) ? "slice" : "map";
}

function withUnderscores(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/([A-Z])([A-Z][a-z])/g, "$1_$2")
    .toLowerCase();
}

/** `jwt`, `http`, `pathExact`: an abbreviation at the front is small as a whole. */
function ownName(name: string): string {
  return name.replace(/^(?:[A-Z]+$|[A-Z])/, (front) => front.toLowerCase());
}

class Reader {
  readonly unknown: string[] = [];
  readonly mismatches: string[] = [];

  object(given: GoObject, shape: Shape, path: string): Record<string, PlainJson> {
    const taken = new Map<string, { readonly rank: number; readonly value: GoJson; readonly path: string }>();
    for (const [key, value] of membersOf(given)) {
      const at = path === "" ? key : `${path}.${key}`;
      const found = find(shape, key);
      if (found === undefined) {
        const hint = /namespace$/i.test(key) ? ", namespaces are a consul enterprise feature" : "";
        this.unknown.push(`invalid config key "${at}"${hint}`);
        continue;
      }
      const before = taken.get(found.name);
      if (before === undefined || found.rank < before.rank)
        taken.set(found.name, { rank: found.rank, value, path: at });
    }
    const fields: Record<string, PlainJson> = {};
    const extra: Record<string, PlainJson> = {};
    for (const [name, field] of Object.entries(shape)) {
      const found = taken.get(name);
      if (found === undefined || found.value === null || field.as === "ignored") continue;
      if (field.as === "opaque") extra[name] = plainJson(found.value);
      else {
        const read = this.#field(found.value, field.as, found.path);
        if (read !== undefined) fields[ownName(name)] = read;
      }
    }
    return Object.keys(extra).length > 0 ? { ...fields, extra } : fields;
  }

  #field(
    value: Exclude<GoJson, null>,
    as: Exclude<Field["as"], "opaque" | "ignored">,
    path: string,
  ): PlainJson | undefined {
    if (typeof as === "object") return this.#nested(value, as, path);
    switch (as) {
      case "text":
        return this.#text(value, path);
      case "flag":
        return this.#flag(value, path);
      case "number":
        return this.#number(value, path);
      case "duration":
        return this.#duration(value, path);
      case "texts":
        return (isGoList(value) ? value : [value]).map((item, index) => this.#text(item ?? "", `${path}[${index}]`));
      case "textMap": {
        if (!isGoObject(value)) return this.#mismatch(value, path, "map");
        return Object.fromEntries(
          value.members.map(({ key, value: item }) => [key, this.#text(item ?? "", `${path}[${key}]`)]),
        );
      }
      case "json":
        return plainJson(value);
    }
  }

  #nested(value: Exclude<GoJson, null>, { many, shape }: Nested, path: string): PlainJson | undefined {
    if (many === "list") {
      const items = isGoList(value) ? value : [value];
      return items.flatMap((item, index) => this.#struct(item ?? new GoObject([]), shape, `${path}[${index}]`) ?? []);
    }
    if (many === "one") {
      const only = isGoList(value) && value.length === 1 ? value[0] : value;
      return this.#struct(only ?? new GoObject([]), shape, path);
    }
    if (!isGoObject(value)) return this.#mismatch(value, path, "map");
    const members: Record<string, PlainJson> = {};
    for (const [key, item] of membersOf(value)) {
      const read = this.#struct(item ?? new GoObject([]), shape, `${path}[${key}]`);
      if (read !== undefined) members[key] = read;
    }
    return members;
  }

  #struct(value: Exclude<GoJson, null>, shape: Shape, path: string): { [key: string]: PlainJson } | undefined {
    if (isGoObject(value)) return this.object(value, shape, path);
    this.mismatches.push(`'${path}' expected a map, got '${goKind(value)}'`);
    return undefined;
  }

  #text(value: GoJson, path: string): string {
    if (typeof value === "string") return value;
    if (typeof value === "boolean") return value ? "1" : "0";
    if (value instanceof GoNumber) return value.text;
    this.#mismatch(value, path, "string");
    return "";
  }

  #flag(value: GoJson, path: string): boolean {
    if (typeof value === "boolean") return value;
    if (value instanceof GoNumber) return Number(value.text) !== 0;
    if (value === "" || (typeof value === "string" && /^(?:0|f|F|false|FALSE|False)$/.test(value))) return false;
    if (typeof value === "string" && /^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
    this.#mismatch(value, path, "bool");
    return false;
  }

  #number(value: GoJson, path: string): number {
    if (value instanceof GoNumber) return Number(value.text);
    if (typeof value === "boolean") return value ? 1 : 0;
    if (typeof value === "string" && value.trim() === value && value !== "" && Number.isFinite(Number(value))) {
      return Number(value);
    }
    this.#mismatch(value, path, "float32");
    return 0;
  }

  #duration(value: GoJson, path: string): string {
    const milliseconds =
      value instanceof GoNumber
        ? Number(value.text) / 1e6
        : typeof value === "string"
          ? value === ""
            ? 0
            : parseDuration(value)
          : undefined;
    if (milliseconds === undefined) this.#mismatch(value, path, "time.Duration");
    return durationText(milliseconds ?? 0);
  }

  #mismatch(value: GoJson, path: string, type: string): undefined {
    this.mismatches.push(
      type === "map"
        ? `'${path}' expected a map, got '${goKind(value)}'`
        : `'${path}' expected type '${type}', got unconvertible type '${goKind(value)}'`,
    );
    return undefined;
  }
}

/** The field that a key means; the smaller the rank, the better the spelling. */
function find(shape: Shape, key: string): { readonly name: string; readonly rank: number } | undefined {
  const folded = key.toLowerCase();
  let found: { readonly name: string; readonly rank: number } | undefined;
  for (const [name, { aliases = [] }] of Object.entries(shape)) {
    if (name === key) return { name, rank: 0 };
    if (name.toLowerCase() === folded) found = { name, rank: 1 };
    else if (withUnderscores(name) === folded || aliases.includes(folded)) found ??= { name, rank: 2 };
  }
  return found;
}

// Writing.

/** An entry as Consul prints it, without `Hash` (D-49). */
export function configEntryJson({ entry, createIndex, modifyIndex }: StoredConfigEntry): Json {
  return {
    Kind: entry.kind,
    ...structJson(entry, shapes[entry.kind]),
    ...structJson(entry, { Meta: { as: "textMap" } }),
    CreateIndex: createIndex,
    ModifyIndex: modifyIndex,
  };
}

/** The permissions of an intention; undefined when it has an action instead. */
export function permissionsJson(source: IntentionSource): Json | undefined {
  return fieldJson(source.permissions, permissions.as);
}

function structJson(value: object, shape: Shape): { readonly [key: string]: Json | undefined } {
  const fields = new Map<string, unknown>(Object.entries(value));
  const extra = fields.get("extra");
  const extras = new Map<string, unknown>(isRecord(extra) ? Object.entries(extra) : []);
  const written: Record<string, Json | undefined> = {};
  for (const [name, field] of Object.entries(shape)) {
    const member = field.as === "opaque" ? extras.get(name) : fields.get(ownName(name));
    written[name] = (member === undefined ? undefined : fieldJson(member, field.as)) ?? field.always;
  }
  return written;
}

function fieldJson(value: unknown, as: Field["as"]): Json | undefined {
  if (typeof as !== "object") return as === "json" || as === "textMap" ? sorted(value) : plain(value);
  if (as.many === "one") return isRecord(value) ? structJson(value, as.shape) : undefined;
  if (as.many === "list") {
    return Array.isArray(value)
      ? value.flatMap((item: unknown) => (isRecord(item) ? [structJson(item, as.shape)] : []))
      : undefined;
  }
  if (!isRecord(value)) return undefined;
  return new Map(
    Object.entries(value).map(([key, item]): [string, Json] => [
      key,
      isRecord(item) ? structJson(item, as.shape) : null,
    ]),
  );
}

/** What {@link configEntryJson} writes, of whatever kind. */
export const configEntrySchema: JsonSchema = {
  anyOf: Object.entries(shapes).map(([kind, shape]) => {
    const { properties, required } = structSchema({ ...shape, Meta: { as: "textMap" } });
    return {
      type: "object",
      properties: { Kind: { type: "string", enum: [kind] }, ...properties, CreateIndex: index, ModifyIndex: index },
      required: ["Kind", ...required, "CreateIndex", "ModifyIndex"],
    };
  }),
};

/** What {@link permissionsJson} writes. */
export const permissionsSchema: JsonSchema = fieldSchema(permissions);

function structSchema(shape: Shape): {
  readonly type: "object";
  readonly properties: Readonly<Record<string, JsonSchema>>;
  readonly required: readonly string[];
} {
  const written = Object.entries(shape).filter(([, { as }]) => as !== "ignored");
  return {
    type: "object",
    properties: Object.fromEntries(written.map(([name, field]) => [name, fieldSchema(field)])),
    required: written.filter(([, { always }]) => always !== undefined).map(([name]) => name),
  };
}

function fieldSchema({ as, always }: Field): JsonSchema {
  if (typeof as === "object") {
    const shape = structSchema(as.shape);
    if (as.many === "one") return shape;
    if (as.many === "map") return { type: "object", additionalProperties: shape };
    return { type: always === null ? ["array", "null"] : "array", items: shape };
  }
  switch (as) {
    case "text":
    case "duration":
      return { type: "string" };
    case "flag":
      return { type: "boolean" };
    case "number":
      return { type: "number" };
    case "texts":
      return texts;
    case "textMap":
      return textsByKey;
    default:
      // Whatever was written.
      return {};
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JSON in the order it was given. */
function plain(value: unknown): Json {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
    return value;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (isRecord(value)) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  return null;
}

/** JSON of Go maps: with sorted keys at every level. */
function sorted(value: unknown): Json {
  if (Array.isArray(value)) return value.map(sorted);
  if (isRecord(value)) return new Map(Object.entries(value).map(([key, item]) => [key, sorted(item)]));
  return plain(value);
}
