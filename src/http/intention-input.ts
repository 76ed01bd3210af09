import type { GivenSource } from "../config/intention-writes.js";
import {
  decodeGoSteps,
  type GoJsonError,
  type GoType,
  goBool,
  goInt,
  goList,
  goMap,
  goOptional,
  goString,
  goStruct,
  goText,
  goUint64,
} from "../syntax/go-json.js";
import type { Call } from "./call.js";
import { badRequest, decodeFailed, HttpRefusal } from "./http-refusal.js";

// Reads requests about intentions, with Consul's texts for their faults (1.21).

/** One end of an intention: `api`, `default/api`, `default/default/api`, and at a source `peer:<peer>/api`. */
export interface End {
  readonly peer: string;
  readonly partition: string;
  readonly namespace: string;
  readonly service: string;
}

const DEFAULT = "default";
export const NO_NAMESPACES = "Namespaces is a Consul Enterprise feature";
const NO_PARTITIONS = "Partitions is a Consul Enterprise feature";

function endOf(given: string, withPeer: boolean, refuse: (why: string) => HttpRefusal): End {
  const peered = given.startsWith("peer:");
  if (peered && !withPeer) throw refuse("cannot specify a peer here");
  const parts = given.replace(/^peer:/, "").split("/");
  const [peer = "", ...names] = peered ? parts : ["", ...parts];
  if (names.length === 0) throw refuse("need to specify the service name as well");
  if (names.length > (peered ? 2 : 3)) throw refuse("input can contain at most two '/'");
  const [service = "", namespace = DEFAULT, partition = DEFAULT] = names.toReversed();
  return { peer, partition, namespace, service };
}

/** The one value of a parameter. @throws {HttpRefusal} 500. */
function onlyValue(call: Call, parameter: string): string {
  const [value, ...others] = call.query.getAll(parameter);
  if (value !== undefined && others.length === 0) return value;
  throw new HttpRefusal(500, `required query parameter '${parameter}' not set`);
}

/** @throws {HttpRefusal} 500. */
export function endIn(call: Call, parameter: "source" | "destination", withPeer = false): End {
  const given = onlyValue(call, parameter);
  return endOf(
    given,
    withPeer,
    (why) => new HttpRefusal(500, `${parameter} ${JSON.stringify(given)} is invalid: ${why}`),
  );
}

/** Both ends of an intention to write: local services, named. @throws {HttpRefusal} 500. */
export function endsToWrite(call: Call): { readonly source: string; readonly destination: string } {
  for (const parameter of ["source", "destination"] as const) {
    if (onlyValue(call, parameter) === "")
      throw new HttpRefusal(500, `required query parameter '${parameter}' not set`);
  }
  const source = endIn(call, "source");
  const destination = endIn(call, "destination");
  // Consul ignores them, and writes another intention than was asked for (D-62).
  requireDefaults("Source", source);
  requireDefaults("Destination", destination);
  return { source: source.service, destination: destination.service };
}

function requireDefaults(end: "Source" | "Destination", { namespace, partition }: End): void {
  if (namespace !== DEFAULT) throw new HttpRefusal(500, `Invalid ${end}NS "${namespace}": ${NO_NAMESPACES}`);
  if (partition !== DEFAULT) throw new HttpRefusal(500, `Invalid ${end}Partition "${partition}": ${NO_PARTITIONS}`);
}

/** @throws {HttpRefusal} 500. */
export function requireDefaultNamespace(namespace: string, what: string): void {
  if (namespace !== DEFAULT) throw new HttpRefusal(500, `Invalid ${what} "${namespace}": ${NO_NAMESPACES}`);
}

export interface MatchQuestion {
  readonly by: "source" | "destination";
  /** In their order: as given, and the service that is meant. */
  readonly names: ReadonlyMap<string, string>;
}

/** @throws {HttpRefusal} 500. */
export function matchQuestion(call: Call): MatchQuestion {
  const by = onlyValue(call, "by");
  if (by !== "source" && by !== "destination") {
    throw new HttpRefusal(500, "'by' parameter must be one of 'source' or 'destination'");
  }
  const given = call.query.getAll("name");
  if (given.length === 0) throw new HttpRefusal(500, "required query parameter 'name' not set");
  const ends = given.map((name) => {
    const refuse = (why: string): HttpRefusal =>
      new HttpRefusal(500, `name ${JSON.stringify(name)} is invalid: ${why}`);
    return [name, endOf(name, false, refuse)] as const;
  });
  for (const [, { namespace, partition }] of ends) {
    requireDefaultNamespace(namespace, "match entry namespace");
    if (partition !== DEFAULT) {
      throw new HttpRefusal(500, `Invalid match entry partition "${partition}": ${NO_PARTITIONS}`);
    }
  }
  return { by, names: new Map(ends.map(([name, { service }]) => [name, service])) };
}

// Bodies.

interface HeaderBody {
  readonly Name: string;
  readonly Present: boolean;
  readonly Exact: string;
  readonly Prefix: string;
  readonly Suffix: string;
  readonly Contains: string;
  readonly Regex: string;
  readonly Invert: boolean;
  readonly IgnoreCase: boolean;
}

interface HttpBody {
  readonly PathExact: string;
  readonly PathPrefix: string;
  readonly PathRegex: string;
  readonly Header: readonly HeaderBody[];
  readonly Methods: readonly string[];
}

interface JwtBody {
  readonly Providers: readonly {
    readonly Name: string;
    readonly VerifyClaims: readonly { readonly Path: readonly string[]; readonly Value: string }[];
  }[];
}

interface PermissionBody {
  readonly Action: string;
  readonly HTTP: HttpBody | undefined;
  readonly JWT: JwtBody | undefined;
}

/** An intention in a body. */
export interface IntentionBody {
  readonly ID: string;
  readonly Description: string;
  readonly SourceNS: string;
  readonly SourceName: string;
  readonly DestinationNS: string;
  readonly DestinationName: string;
  readonly SourcePartition: string;
  readonly DestinationPartition: string;
  readonly SourcePeer: string;
  readonly SourceSamenessGroup: string;
  readonly SourceType: string;
  readonly Action: string;
  readonly Permissions: readonly PermissionBody[];
  readonly JWT: JwtBody | undefined;
  readonly DefaultAddr: string;
  readonly DefaultPort: number;
  readonly Meta: Readonly<Record<string, string>>;
  readonly Precedence: number;
  readonly CreatedAt: string;
  readonly UpdatedAt: string;
  readonly Hash: string;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

const action = goText("structs.IntentionAction");

const jwt: GoType<JwtBody | undefined> = goOptional(
  goStruct<JwtBody>("structs.IntentionJWTRequirement", {
    Providers: goList(
      goStruct<JwtBody["Providers"][number]>("structs.IntentionJWTProvider", {
        Name: goString,
        VerifyClaims: goList(
          goStruct<JwtBody["Providers"][number]["VerifyClaims"][number]>("structs.IntentionJWTClaimVerification", {
            Path: goList(goString),
            Value: goString,
          }),
        ),
      }),
    ),
  }),
);

const permission = goStruct<PermissionBody>("structs.IntentionPermission", {
  Action: action,
  HTTP: goOptional(
    goStruct<HttpBody>("structs.IntentionHTTPPermission", {
      PathExact: goString,
      PathPrefix: goString,
      PathRegex: goString,
      Header: goList(
        goStruct<HeaderBody>("structs.IntentionHTTPHeaderPermission", {
          Name: goString,
          Present: goBool,
          Exact: goString,
          Prefix: goString,
          Suffix: goString,
          Contains: goString,
          Regex: goString,
          Invert: goBool,
          IgnoreCase: goBool,
        }),
      ),
      Methods: goList(goString),
    }),
  ),
  JWT: jwt,
});

/** The older form, and that of `exact`. */
export const intentionBodyType: GoType<IntentionBody> = goStruct<IntentionBody>(
  "struct { Hash string; CreatedAt string; UpdatedAt string; *structs.Alias }",
  {
    ID: goString,
    Description: goString,
    SourceNS: goString,
    SourceName: goString,
    DestinationNS: goString,
    DestinationName: goString,
    SourcePartition: goString,
    DestinationPartition: goString,
    SourcePeer: goString,
    SourceSamenessGroup: goString,
    SourceType: goText("structs.IntentionSourceType"),
    Action: action,
    Permissions: goList(permission),
    JWT: jwt,
    DefaultAddr: goString,
    DefaultPort: goInt,
    Meta: goMap(goString),
    Precedence: goInt,
    CreatedAt: goString,
    UpdatedAt: goString,
    Hash: goString,
    CreateIndex: goUint64,
    ModifyIndex: goUint64,
  },
  { shown: ".Alias" },
);

/** @param refuse - as of {@link Call.decoded}. */
function bodyOf(call: Call, refuse: (error: GoJsonError) => HttpRefusal): Promise<IntentionBody> {
  return call.decoded((body) => decodeGoSteps(body, intentionBodyType), refuse);
}

/** The body of a write by id. @throws {HttpRefusal} 400, 500. */
export async function legacyBody(call: Call, refuse: (error: GoJsonError) => HttpRefusal): Promise<IntentionBody> {
  const body = await bodyOf(call, refuse);
  for (const [what, partition] of [
    ["destination", body.DestinationPartition],
    ["source", body.SourcePartition],
  ] as const) {
    if (partition !== "" && partition !== DEFAULT) {
      throw badRequest(`Cannot specify a ${what} partition with this endpoint`);
    }
  }
  return body;
}

/** The body of a write by names, which has them from its path. @throws {HttpRefusal} 400, 500. */
export async function exactBody(call: Call): Promise<IntentionBody> {
  const body = await bodyOf(call, decodeFailed);
  refusePeer(body);
  return body;
}

/** @throws {HttpRefusal} 500: a source of a peer is written with the whole entry. */
export function refusePeer({ SourcePeer }: IntentionBody): void {
  if (SourcePeer === "") return;
  throw new HttpRefusal(500, "SourcePeer field is not supported on this endpoint. Use config entries instead");
}

/** @throws {HttpRefusal} with Consul's texts, which differ from one operation to the other. */
export function requireDefaultNamespaces(
  body: IntentionBody,
  refuse: (field: string, namespace: string) => HttpRefusal,
): void {
  for (const field of ["SourceNS", "DestinationNS"] as const) {
    const namespace = body[field];
    if (namespace !== "" && namespace !== DEFAULT) throw refuse(field, namespace);
  }
}

/** The source of a body, in the form of a config entry. */
export function sourceOf(name: string, body: IntentionBody): GivenSource {
  const { Action, SourceType, Description, Permissions } = body;
  return {
    name,
    ...(Action !== "" && { action: Action }),
    ...(SourceType !== "" && { type: SourceType }),
    ...(Description !== "" && { description: Description }),
    ...(Permissions.length > 0 && { permissions: Permissions.map(permissionOf) }),
  };
}

function permissionOf({ Action, HTTP, JWT }: PermissionBody): unknown {
  return {
    action: Action,
    ...(HTTP !== undefined && {
      http: {
        pathExact: HTTP.PathExact,
        pathPrefix: HTTP.PathPrefix,
        pathRegex: HTTP.PathRegex,
        methods: HTTP.Methods,
        header: HTTP.Header.map((header) => ({
          name: header.Name,
          present: header.Present,
          exact: header.Exact,
          prefix: header.Prefix,
          suffix: header.Suffix,
          contains: header.Contains,
          regex: header.Regex,
          invert: header.Invert,
          ignoreCase: header.IgnoreCase,
        })),
      },
    }),
    ...(JWT !== undefined && {
      jwt: {
        providers: JWT.Providers.map(({ Name, VerifyClaims }) => ({
          name: Name,
          verifyClaims: VerifyClaims.map(({ Path, Value }) => ({ path: Path, value: Value })),
        })),
      },
    }),
  };
}
