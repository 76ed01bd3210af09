import { isJsonObject, memberOf, membersOf, textOf, textsOf } from "../client/json-reader.js";
import { type Command, CommandError, type CommandGroup } from "./command.js";
import { readOptions, serverFlags } from "./connection-flags.js";
import { table, visible } from "./output.js";
import { attempt } from "./peering-commands.js";

/** Exit code where a step fails. */
const FAILED = 2;

/** Why a service reaches another one through the mesh, or does not. */
const connectionCommand: Command = {
  summary: "Explains whether a service reaches another one through the mesh",
  help: `Usage: peerage explain connection DESTINATION -source SOURCE [options]

  Tells step by step whether a service reaches another one through the
  mesh, and the first thing that keeps it from it, with what helps. One of
  both belongs to this cluster; the other may belong to a peer.

      $ peerage explain connection kitchen -source checkout -peer east
      $ peerage explain connection kitchen -source checkout -source-peer west

  What only the other cluster knows is said to be unknown: ask there, too.
  The exit code is 0 where no step fails, and ${FAILED} where one does.`,
  flagsAnywhere: true,
  flags: [
    { name: "source", kind: "text", fallback: "", usage: "The service that calls. Required." },
    {
      name: "peer",
      kind: "text",
      fallback: "",
      usage: "The peering that the destination belongs to. Default: this cluster.",
    },
    {
      name: "source-peer",
      kind: "text",
      fallback: "",
      usage: "The peering that the source belongs to. Default: this cluster.",
    },
    {
      name: "path",
      kind: "text",
      fallback: "",
      usage: "The path of a request, for intentions with permissions. Default: the connection alone is explained.",
    },
    { name: "method", kind: "text", fallback: "", usage: "The method of that request. Default: GET." },
    {
      name: "format",
      kind: "text",
      fallback: "pretty",
      usage: "Output format. Can be pretty or json. Default: pretty.",
    },
    ...serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
  ],
  async run({ flags, client, print, printJson, exit }) {
    const [destination, ...more] = flags.rest;
    if (destination === undefined || more.length > 0) throw new CommandError("Exactly one destination is required");
    const source = flags.text("source");
    if (source === "") throw new CommandError("Missing the required -source flag");
    const server = await client();
    const explained = await attempt("Error explaining the connection", () =>
      server.explainConnection(
        {
          source,
          destination,
          peer: flags.text("peer"),
          sourcePeer: flags.text("source-peer"),
          path: flags.text("path"),
          method: flags.text("method"),
        },
        readOptions(flags),
      ),
    );
    const failed = memberOf(explained, "Failed");
    if (isJsonObject(failed)) exit(FAILED);
    if (flags.text("format") === "json") return printJson(explained, "indented");
    const steps = membersOf(explained, "Steps").filter(isJsonObject);
    const rows = steps.map((step) =>
      ["Result", "Part", "Place", "Text"].map((key) => visible(textOf(step, key) || "-")),
    );
    print(table([["Result", "Step", "Place", "Reason"], ...rows]));
    for (const hint of textsOf(explained, "Hints")) print(visible(`Hint: ${hint}`));
    if (!isJsonObject(failed)) return print("Nothing that is known here keeps the connection from being made.");
    print(visible(`It fails at ${textOf(failed, "Part")}: ${textOf(failed, "Text")}`));
    print(visible(`What helps: ${textOf(failed, "Remedy")}`));
  },
};

/** Intentions that let in all callers of a peer, or none, in a way that is seldom meant. */
const intentionsCommand: Command = {
  summary: "Lists intentions that let in all callers of a peer, or none, as is seldom meant",
  help: `Usage: peerage explain intentions [options]

  Lists exported services of the mesh where every caller of this cluster is
  denied, and the default lets in those of a peer; and those that are
  exported to a peer, and no intention lets any of its services in.`,
  flags: [
    {
      name: "format",
      kind: "text",
      fallback: "pretty",
      usage: "Output format. Can be pretty or json. Default: pretty.",
    },
    ...serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
  ],
  async run({ flags, client, print, printJson }) {
    const server = await client();
    const warnings = await attempt("Error explaining intentions", () => server.intentionWarnings(readOptions(flags)));
    if (flags.text("format") === "json") return printJson([...warnings], "indented");
    if (warnings.length === 0) return print("There is nothing to warn of.");
    for (const warning of warnings) print(visible(textOf(warning, "Text")));
  },
};

/** Commands that say why something is as it is. */
export const explainCommands: CommandGroup = {
  summary: "Explains why something works, or does not",
  help: "Usage: peerage explain <subcommand> [options]\n\n  Says why something works, or does not.",
  commands: { connection: connectionCommand, intentions: intentionsCommand },
};
