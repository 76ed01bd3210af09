import type { Json, JsonObject } from "../client/index.js";
import {
  type GoJson,
  GoJsonError,
  type GoType,
  goAny,
  goBool,
  goMap,
  goString,
  goStruct,
  goUint64,
  plainJson,
  readGo,
  readWholeValue,
} from "../syntax/go-json.js";
import { type Command, CommandError, type CommandGroup, type CommandLineIo } from "./command.js";
import { readOptions, serverFlags } from "./connection-flags.js";
import { envoyCommand } from "./envoy-command.js";
import { attempt } from "./peering-commands.js";
import { readProblem } from "./read-file.js";

interface ConfigurationFile {
  readonly Provider: string;
  readonly Config: Readonly<Record<string, GoJson>>;
  readonly State: Readonly<Record<string, string>>;
  readonly ForceWithoutCrossSigning: boolean;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

const configurationType: GoType<ConfigurationFile> = goStruct<ConfigurationFile>(
  "api.CAConfig",
  {
    Provider: goString,
    Config: goMap(goAny),
    State: goMap(goString),
    ForceWithoutCrossSigning: goBool,
    CreateIndex: goUint64,
    ModifyIndex: goUint64,
  },
  { strict: false },
);

async function readConfiguration(path: string, io: CommandLineIo): Promise<ConfigurationFile> {
  let text: string;
  try {
    text = await io.readFile(path);
  } catch (error) {
    throw new CommandError(`Error reading config file: ${readProblem(path, error)}`, { cause: error });
  }
  try {
    return readGo(readWholeValue(Buffer.from(text)), configurationType);
  } catch (error) {
    if (!(error instanceof GoJsonError)) throw error;
    throw new CommandError(`Error parsing config file: ${error.message}`, { cause: error });
  }
}

const getConfig: Command = {
  summary: "Display the current Connect Certificate Authority (CA) configuration",
  help: `Usage: peerage connect ca get-config [options]

  Displays the current Connect Certificate Authority (CA) configuration.`,
  flags: serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
  async run({ flags, client, printJson }) {
    const { connect } = await client();
    const { value } = await attempt("Error querying CA configuration", () =>
      connect.caConfiguration(readOptions(flags)),
    );
    printJson({ ...value }, "tabbed");
  },
};

const setConfig: Command = {
  summary: "Modify the current Connect CA configuration",
  help: `Usage: peerage connect ca set-config [options]

  Modifies the current Connect Certificate Authority (CA) configuration.`,
  flags: [
    ...serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
    { name: "config-file", kind: "text", usage: "The path to the config file to use." },
    {
      name: "force-without-cross-signing",
      kind: "boolean",
      usage:
        "Indicates that the CA reconfiguration should go ahead even if the current CA is unable to cross sign certificates. This risks temporary connection failures during the rollout as new leafs will be rejected by proxies that have not yet observed the new root cert but is the only option if a CA that doesn't support cross signing needs to be reconfigured or migrated away from.",
    },
  ],
  async run({ flags, io, client, print }) {
    const path = flags.text("config-file");
    if (path === "") throw new CommandError("The -config-file flag is required");
    const { Config, State, CreateIndex, ModifyIndex, ...file } = await readConfiguration(path, io);
    const config = Object.fromEntries(
      Object.entries(Config).map(([key, value]): readonly [string, Json] => [key, plainJson(value)]),
    );
    const body: JsonObject = {
      ...file,
      Config: config,
      State,
      // As with Consul's command: the file's own value does not count.
      ForceWithoutCrossSigning: flags.boolean("force-without-cross-signing"),
      CreateIndex: Number(CreateIndex),
      ModifyIndex: Number(ModifyIndex),
    };
    const { connect } = await client();
    await attempt("Error setting CA configuration", () => connect.setCaConfiguration(body));
    print("Configuration updated!");
  },
};

const caCommands: CommandGroup = {
  summary: "Interact with the Consul Connect Certificate Authority (CA)",
  help: `Usage: peerage connect ca <subcommand> [options] [args]

  This command has subcommands for interacting with Consul Connect's
  Certificate Authority (CA).

  Here are some simple examples, and more detailed examples are available
  in the subcommands or the documentation.

  Get the configuration:

      $ peerage connect ca get-config

  Update the configuration:

      $ peerage connect ca set-config -config-file ca.json

  For more examples, ask for subcommand help or view the documentation.`,
  commands: { "get-config": getConfig, "set-config": setConfig },
};

export const connectCommands: CommandGroup = {
  summary: "Interact with Consul Connect",
  help: `Usage: peerage connect <subcommand> [options] [args]

  This command has subcommands for interacting with Consul Connect.

  Here are some simple examples, and more detailed examples are available
  in the subcommands or the documentation.

  Get the configuration of the certificate authority:

      $ peerage connect ca get-config

  For more examples, ask for subcommand help or view the documentation.`,
  commands: { ca: caCommands, envoy: envoyCommand },
};
