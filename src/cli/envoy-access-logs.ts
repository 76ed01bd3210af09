import { type ConsulClient, HttpError, type JsonObject } from "../client/index.js";
import { booleanOf, objectOf, textOf } from "../client/json-reader.js";
import { ACCESS_LOG_FIELDS } from "../mesh/xds/access-log-fields.js";
import { CommandError } from "./command.js";
import { typed } from "./envoy-parts.js";
import { jsonFrom } from "./envoy-settings.js";
import type { Printable } from "./output.js";
import { attempt } from "./peering-commands.js";

const FILE = "envoy.extensions.access_loggers.file.v3.FileAccessLog";

/** The log of requests for an Envoy's own pages, into a file. */
export function fileAccessLog(path: string): Printable {
  return { name: "envoy.access_loggers.file", typed_config: typed(FILE, { path }) };
}

/** The same as `proxy-defaults` has it; undefined where it says nothing of logs, or the token may not read it. */
export async function centralAccessLog(client: ConsulClient): Promise<Printable | undefined> {
  const logs = objectOf(await proxyDefaults(client), "AccessLogs");
  if (!booleanOf(logs, "Enabled")) return undefined;
  return { name: "Consul Listener Filter Log", typedConfig: sinkOf(logs) };
}

async function proxyDefaults({ config }: ConsulClient): Promise<JsonObject> {
  return attempt("Error reading proxy-defaults", async () => {
    try {
      return (await config.read("proxy-defaults", "global")).value;
    } catch (error) {
      // There is none, or the token may not read it: a proxy needs neither.
      if (error instanceof HttpError) return {};
      throw error;
    }
  });
}

function sinkOf(logs: JsonObject): Printable {
  const logFormat = formatOf(textOf(logs, "JSONFormat"), textOf(logs, "TextFormat"));
  const type = textOf(logs, "Type");
  switch (type) {
    case "":
    case "stdout":
      return typed("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", { logFormat });
    case "stderr":
      return typed("envoy.extensions.access_loggers.stream.v3.StderrAccessLog", { logFormat });
    case "file":
      return typed(FILE, { path: textOf(logs, "Path"), logFormat });
    default:
      throw new CommandError(`AccessLogs of proxy-defaults: no type of logs: ${type}`);
  }
}

function formatOf(json: string, text: string): Printable {
  if (json !== "") return { jsonFormat: jsonFrom("JSONFormat of AccessLogs", json) };
  if (text === "") return { jsonFormat: ACCESS_LOG_FIELDS };
  return { textFormatSource: { inlineString: text.endsWith("\n") ? text : `${text}\n` } };
}
