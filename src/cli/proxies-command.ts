import type { JsonObject } from "../client/index.js";
import { isJsonObject, membersOf, textOf, textsOf } from "../client/json-reader.js";
import type { Command } from "./command.js";
import { readOptions, serverFlags } from "./connection-flags.js";
import { table, visible } from "./output.js";
import { attempt } from "./peering-commands.js";

/** The Envoys that are connected to an agent. */
export const proxiesCommand: Command = {
  summary: "Lists the Envoys that are connected to an agent, and what they refuse or wait for",
  help: `Usage: peerage proxies [options]

  Lists the Envoys that are connected to an agent of Peerage. Below the
  table stands for each what it waits for, what it is not told of and
  why, and what it has refused.`,
  flags: [
    ...serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
    {
      name: "format",
      kind: "text",
      fallback: "pretty",
      usage: "Output format. Can be pretty or json. Default: pretty.",
    },
  ],
  async run({ flags, client, print, printJson }) {
    const server = await client();
    const proxies = await attempt("Error listing proxies", () => server.connectedProxies(readOptions(flags)));
    if (flags.text("format") === "json") return printJson([...proxies], "indented");
    if (proxies.length === 0) return print("There is no proxy connected.");
    const rows = proxies.map((proxy) => [
      ...["ID", "Node", "Service", "Kind", "EnvoyVersion"].map((key) => visible(textOf(proxy, key))),
      textsOf(proxy, "WaitsFor").length > 0 ? "waiting" : membersOf(proxy, "Refusals").length > 0 ? "refused" : "told",
    ]);
    print(table([["ID", "Node", "Service", "Kind", "Envoy", "State"], ...rows]));
    for (const proxy of proxies) for (const line of detailsOf(proxy)) print(line);
  },
};

function detailsOf(proxy: JsonObject): readonly string[] {
  const refusals = membersOf(proxy, "Refusals")
    .filter(isJsonObject)
    .map((one) => `refused ${textOf(one, "Type")} ${textsOf(one, "Names").join(", ")}: ${textOf(one, "Message")}`);
  const lines = [
    ...textsOf(proxy, "WaitsFor").map((what) => `waits for ${what}`),
    ...textsOf(proxy, "Missing").map((what) => `is not told of ${what}`),
    ...refusals,
  ];
  return lines.map((line) => visible(`${textOf(proxy, "ID")} ${line}`));
}
