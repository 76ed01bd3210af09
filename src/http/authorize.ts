import { PeeringError } from "../base/errors.js";
import { intentionFor } from "../config/intentions.js";
import { decodeGoSteps, type GoType, goString, goStruct } from "../syntax/go-json.js";
import { parseSpiffeId, type SpiffeId } from "../trust/spiffe.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { badRequest, decodeFailed } from "./http-refusal.js";
import { intendedByDefault } from "./intentions.js";
import type { Operation } from "./operation.js";
import { flag, objectOf, text } from "./operation-docs.js";
import { bodySchema } from "./shape-json.js";

// Whether a service may call another one, for a program beside the agent that was called (Consul 1.21).

interface AuthorizeBody {
  readonly Target: string;
  readonly ClientCertURI: string;
  /** Nothing is revoked one by one, here and in Consul. */
  readonly ClientCertSerial: string;
}

const authorizeType: GoType<AuthorizeBody> = goStruct<AuthorizeBody>("structs.ConnectAuthorizeRequest", {
  Target: goString,
  ClientCertURI: goString,
  ClientCertSerial: goString,
});

const DEFAULT = "default";
const EVERY = "*";

async function authorize(call: Call): Promise<Answer> {
  call.refuseNamespace();
  const { Target: target, ClientCertURI: uri } = await call.decoded(
    (body) => decodeGoSteps(body, authorizeType),
    decodeFailed,
  );
  call.refusePartition();
  if (target === "") throw badRequest("Target service must be specified");
  const caller = serviceIn(uri);
  await call.require({ resource: "service", access: "write", name: target });
  const partition = caller.partition || DEFAULT;
  if (partition.toLowerCase() !== DEFAULT) {
    throw badRequest(`Mismatched partitions: ${JSON.stringify(partition)} != ${JSON.stringify(DEFAULT)}`);
  }
  await requireIntentions(call, target);
  const [authorized, reason] = decision(call, caller, target);
  return { json: { Authorized: authorized, Reason: reason }, headers: { "X-Cache": "MISS" } };
}

/** @throws {HttpRefusal} 400: the identity is of no service. Its trust domain was judged with the certificate, by the program. */
function serviceIn(uri: string): Extract<SpiffeId, { readonly kind: "service" }> {
  let id: SpiffeId;
  try {
    id = parseSpiffeId(uri);
  } catch (error) {
    if (!(error instanceof PeeringError)) throw error;
    throw badRequest("ClientCertURI not a valid Connect identifier");
  }
  if (id.kind !== "service") throw badRequest("ClientCertURI not a valid Service identifier");
  return id;
}

/** @throws {PeeringError} `permission-denied` */
async function requireIntentions(call: Call, target: string): Promise<void> {
  try {
    await call.require({ resource: "intention", access: "read", name: target });
  } catch (error) {
    if (!(error instanceof PeeringError)) throw error;
    throw new PeeringError(error.code, `failed getting intention match: ${error.message}`, { cause: error });
  }
}

function decision(
  { host, server }: Call,
  { service, namespace }: { readonly service: string; readonly namespace: string },
  target: string,
): readonly [boolean, string] {
  const entryOf = (name: string) => host.configEntries.get("service-intentions", name);
  // Nothing speaks of other namespaces.
  const found =
    namespace === DEFAULT
      ? intentionFor({ source: service, peer: "", destination: target }, (name) => entryOf(name)?.sources ?? [])
      : undefined;
  if (found === undefined) {
    const isConfigured = server.defaultIntentionPolicy !== undefined;
    return [
      intendedByDefault(server),
      isConfigured ? "Default intention policy" : "Default behavior configured by ACLs",
    ];
  }
  const own = entryOf(target);
  const destination = own?.sources.includes(found) ? own.name : EVERY;
  const id = found.legacyID === undefined ? "" : `ID: ${found.legacyID}, `;
  const { permissions, action, precedence } = found;
  const says = permissions === undefined ? `Action: ${action?.toUpperCase()}` : `Permissions: ${permissions.length}`;
  const intention = `${DEFAULT}/${found.name} => ${DEFAULT}/${destination} (${id}Precedence: ${precedence}, ${says})`;
  // A judge of connections does not know the requests on them.
  if (permissions !== undefined) return [false, `Matched L7 intention: ${intention}`];
  return [action === "allow", `Matched L4 intention: ${intention}`];
}

export const authorizeOperations: readonly Operation[] = [
  {
    method: "POST",
    pattern: "/v1/agent/connect/authorize",
    run: authorize,
    docs: [
      {
        path: "/v1/agent/connect/authorize",
        id: "authorizeConnection",
        summary: "Whether a service may call another one: by intentions, else by the default.",
        parameters: [],
        body: bodySchema(authorizeType.form),
        answer: objectOf({ Authorized: flag, Reason: text }),
      },
    ],
  },
];
