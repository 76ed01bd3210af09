import { isJsonObject, type Json, type JsonObject } from "../client/json-reader.js";
import { checkKeys, type Shape, serviceKeys } from "./consul-keys.js";

/** Second spellings that Consul takes in files. */
const ALIASES: Readonly<Record<string, string>> = {
  deregistercriticalserviceafter: "deregister_critical_service_after",
  dockercontainerid: "docker_container_id",
  scriptargs: "script_args",
  serviceid: "service_id",
  tlsskipverify: "tls_skip_verify",
};
/** Words that the HTTP API writes in capitals. */
const CAPITALS: ReadonlySet<string> = new Set(["grpc", "http", "id", "os", "tcp", "tls", "ttl", "udp"]);

function apiKey(key: string): string {
  if (key === "h2ping") return "H2PING";
  const words = (ALIASES[key] ?? key).split("_");
  return words
    .map((word) => (CAPITALS.has(word) ? word.toUpperCase() : word.slice(0, 1).toUpperCase() + word.slice(1)))
    .join("");
}

/** Keys that are names of the operator's, and what extensions read, stay as they are. */
function apiForm(value: Json, shape: Shape): Json {
  if (typeof shape !== "object") return value;
  if (Array.isArray(value))
    return value.map((element) => (shape.kind === "list" ? apiForm(element, shape.of) : element));
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => {
      if (shape.kind === "map") return [key, apiForm(member, shape.of)];
      const inner = shape.kind === "keys" ? shape.keys().get(key) : undefined;
      return [apiKey(key), inner === undefined ? member : apiForm(member, inner)];
    }),
  );
}

function objectForm(value: JsonObject, shape: Shape): JsonObject {
  const form = apiForm(value, shape);
  return isJsonObject(form) ? form : {};
}

/** A definition of a service in a file, as the HTTP API takes it. */
export function serviceForm(definition: JsonObject): JsonObject {
  const { Check: check, Checks: checks, ...service } = objectForm(definition, serviceKeys);
  return {
    ...service,
    ...(isJsonObject(check) && { Check: named(check) }),
    ...(Array.isArray(checks) && { Checks: checks.filter(isJsonObject).map(named) }),
  };
}

/** A definition of a check in a file, as the HTTP API takes it on its own. */
export function checkForm(definition: JsonObject): JsonObject {
  return objectForm(definition, checkKeys);
}

/** Within a service the API calls the id of a check by another name. */
function named(check: JsonObject): JsonObject {
  const { ID, ...others } = check;
  return ID === undefined ? check : { ...others, CheckID: ID };
}
