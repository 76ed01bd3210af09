import {
  type AccessLogSchema,
  FileAccessLogSchema,
  StderrAccessLogSchema,
  StdoutAccessLogSchema,
  type SubstitutionFormatStringSchema,
} from "../../wire/envoy.js";
import type { MessageFields } from "../../wire/schema.js";
import type { AccessLogSettings } from "../snapshot/settings.js";
import { ACCESS_LOG_FIELDS } from "./access-log-fields.js";
import { named } from "./values.js";

type AccessLogInit = MessageFields<typeof AccessLogSchema>;
type Format = MessageFields<typeof SubstitutionFormatStringSchema>;

/** The logs of a listener, for connections that no filter chain takes. */
export function listenerLogs(logs: AccessLogSettings | undefined): AccessLogInit[] {
  if (logs === undefined || !logs.listenerLogs) return [];
  const filter: AccessLogInit["filter"] = { filterSpecifier: { case: "responseFlagFilter", value: { flags: ["NR"] } } };
  return sinks("Consul Listener Log", logs).map((sink) => ({ ...sink, filter }));
}

/** The logs of a filter. */
export function filterLogs(logs: AccessLogSettings | undefined): AccessLogInit[] {
  return logs === undefined ? [] : sinks("Consul Listener Filter Log", logs);
}

/** None for a type that does not exist. */
function sinks(name: string, logs: AccessLogSettings): AccessLogInit[] {
  const accessLogFormat = { case: "logFormat", value: formatOf(logs) } as const;
  switch (logs.type) {
    case "":
    case "stdout":
      return [named(name, StdoutAccessLogSchema, { accessLogFormat })];
    case "stderr":
      return [named(name, StderrAccessLogSchema, { accessLogFormat })];
    case "file":
      return logs.path === "" ? [] : [named(name, FileAccessLogSchema, { path: logs.path, accessLogFormat })];
    default:
      return [];
  }
}

function formatOf({ jsonFormat, textFormat }: AccessLogSettings): Format {
  if (jsonFormat === "" && textFormat !== "") {
    const value = textFormat.endsWith("\n") ? textFormat : `${textFormat}\n`;
    return { format: { case: "textFormatSource", value: { specifier: { case: "inlineString", value } } } };
  }
  return { format: { case: "jsonFormat", value: givenFields(jsonFormat) ?? { ...ACCESS_LOG_FIELDS } } };
}

/** Undefined: it is no object of texts. Fields in the order of their names. */
function givenFields(jsonFormat: string): Record<string, string> | undefined {
  if (jsonFormat === "") return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(jsonFormat);
  } catch {
    return undefined;
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return undefined;
  const texts = Object.entries(parsed).filter((entry): entry is [string, string] => typeof entry[1] === "string");
  return Object.fromEntries(texts.sort(([left], [right]) => (left < right ? -1 : 1)));
}
