import type { JsonObject } from "../client/index.js";
import { memberOf } from "../client/json-reader.js";
import { HclError, parseHcl } from "../syntax/hcl.js";
import { type Command, CommandError, type CommandGroup, type CommandLineIo } from "./command.js";
import { readOptions, serverFlags } from "./connection-flags.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { attempt } from "./peering-commands.js";
import { readProblem } from "./read-file.js";

const casFlag: Flag = {
  name: "cas",
  kind: "boolean",
  usage:
    "Perform a Check-And-Set operation. Specifying this value also requires the -modify-index flag to be set. The default value is false.",
};

const modifyIndexFlag: Flag = {
  name: "modify-index",
  kind: "unsigned",
  usage:
    "Unsigned integer representing the ModifyIndex of the config entry. This is used in combination with the -cas flag.",
};

function requireText(flags: ParsedFlags, name: string): string {
  const value = flags.text(name);
  if (value === "") throw new CommandError(`Must specify the -${name} parameter`);
  return value;
}

/** The text of a file, or of the standard input for `-`. @throws {CommandError} */
export async function loadData(path: string, io: CommandLineIo): Promise<string> {
  try {
    return path === "-" ? await io.stdin() : await io.readFile(path);
  } catch (error) {
    throw new CommandError(`Failed to load data: Failed to read file: ${readProblem(path, error)}`, { cause: error });
  }
}

/** HCL or JSON. @throws {CommandError} with `what` in front. */
export function decodeData(text: string, what: string): JsonObject {
  try {
    return parseHcl(text);
  } catch (error) {
    if (!(error instanceof HclError)) throw error;
    throw new CommandError(`${what}: ${error.message}`, { cause: error });
  }
}

function kindOf(entry: JsonObject): string {
  const kind = memberOf(entry, "Kind") ?? memberOf(entry, "kind");
  const problem =
    kind === undefined
      ? "Payload does not contain a kind/Kind key at the top level"
      : "Kind value in payload is not a string";
  if (typeof kind !== "string") throw new CommandError(`Failed to decode config entry input: ${problem}`);
  return kind;
}

const write: Command = {
  summary: "Create or update a centralized config entry",
  help: `Usage: peerage config write [options] <configuration>

  Request a config entry to be created or updated. The configuration
  argument is either a file path or '-' to indicate that the config
  should be read from stdin. The data should be either in HCL or
  JSON form.

  Example (from file):

    $ peerage config write web.service.hcl

  Example (from stdin):

    $ peerage config write -`,
  flags: [...serverFlags, casFlag, modifyIndexFlag],
  async run({ flags, io, client, print }) {
    const [path] = flags.rest;
    if (path === undefined || flags.rest.length > 1) {
      throw new CommandError("Must provide exactly one positional argument to specify the config entry to write");
    }
    const failed = "Failed to decode config entry input";
    const entry = decodeData(await loadData(path, io), `${failed}: ${failed}`);
    const kind = kindOf(entry);
    const name = memberOf(entry, "Name") ?? memberOf(entry, "name") ?? (kind === "mesh" ? "mesh" : "");
    const shown = `${kind}/${typeof name === "string" ? name : ""}`;
    const { config } = await client();
    const written = await attempt(`Error writing config entry ${shown}`, () =>
      config.write(entry, flags.boolean("cas") ? { cas: flags.unsigned("modify-index") } : {}),
    );
    if (!written) throw new CommandError(`Config entry not updated: ${shown}`);
    print(`Config entry written: ${shown}`);
  },
};

const read: Command = {
  summary: "Read a centralized config entry",
  help: `Usage: peerage config read [options] -kind <config kind> -name <config name>

  Reads the config entry specified by the given kind and name and outputs its
  JSON representation.

  Example:

    $ peerage config read -kind proxy-defaults -name global`,
  flags: [
    ...serverFlags,
    { name: "kind", kind: "text", usage: "The kind of configuration to read." },
    { name: "name", kind: "text", usage: "The name of configuration to read." },
  ],
  async run({ flags, client, printJson }) {
    const kind = requireText(flags, "kind");
    const name = requireText(flags, "name");
    const { config } = await client();
    const { value } = await attempt(`Error reading config entry ${kind}/${name}`, () =>
      config.read(kind, name, readOptions(flags)),
    );
    printJson(value, "indented");
  },
};

const list: Command = {
  summary: "List centralized config entries of a given kind",
  help: `Usage: peerage config list [options] -kind <config kind>

  Lists all of the config entries for a given kind. The -kind parameter
  is required.

  Example:

    $ peerage config list -kind service-defaults`,
  flags: [
    ...serverFlags,
    { name: "filter", kind: "text", usage: "Filter to use with the request." },
    { name: "kind", kind: "text", usage: "The kind of configurations to list." },
  ],
  async run({ flags, client, print }) {
    const kind = requireText(flags, "kind");
    const { config } = await client();
    const { value } = await attempt(`Error listing config entries for kind ${JSON.stringify(kind)}`, () =>
      config.list(kind, { ...readOptions(flags), filter: flags.text("filter") }),
    );
    for (const entry of value) {
      const name = memberOf(entry, "Name");
      print(typeof name === "string" ? name : kind);
    }
  },
};

const deleteEntry: Command = {
  summary: "Delete a centralized config entry",
  help: `Usage: peerage config delete [options] -kind <config kind> -name <config name>

  Deletes the configuration entry specified by the kind and name.

  Example:

    $ peerage config delete -kind service-defaults -name web`,
  flags: [
    ...serverFlags,
    { name: "kind", kind: "text", usage: "The kind of configuration to delete." },
    { name: "name", kind: "text", usage: "The name of configuration to delete." },
    casFlag,
    modifyIndexFlag,
  ],
  async run({ flags, client, print }) {
    const kind = requireText(flags, "kind");
    const name = requireText(flags, "name");
    const cas = flags.unsigned("modify-index");
    if (flags.boolean("cas") && cas === 0n) {
      throw new CommandError("Must specify a -modify-index greater than 0 with -cas");
    }
    const { config } = await client();
    const deleted = await attempt(`Error deleting config entry ${kind}/${name}`, () =>
      config.delete(kind, name, flags.boolean("cas") ? { cas } : {}),
    );
    if (!deleted) throw new CommandError(`Config entry not deleted: ${kind}/${name}`);
    print(`Config entry deleted: ${kind}/${name}`);
  },
};

export const configCommands: CommandGroup = {
  summary: "Interact with centralized config entries",
  help: `Usage: peerage config <subcommand> [options] [args]

  This command has subcommands for interacting with the centralized
  configuration. Here are some simple examples, and more detailed
  examples are available in the subcommands or the documentation.

  Write a config:

    $ peerage config write web.serviceconf.hcl

  Read a config:

    $ peerage config read -kind service-defaults -name web

  List all configs for a type:

    $ peerage config list -kind service-defaults

  Delete a config:

    $ peerage config delete -kind service-defaults -name web

  For more examples, ask for subcommand help or view the documentation.`,
  commands: { delete: deleteEntry, list, read, write },
};
