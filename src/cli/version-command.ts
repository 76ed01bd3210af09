import { type Command, CommandError } from "./command.js";

export const versionCommand: Command = {
  summary: "Prints the version of Peerage, and that of Consul that it follows",
  help: `Usage: peerage version [options]

  Prints the version of this program, and the version of Consul whose
  interfaces it has. With -format=json the key Version holds the latter:
  programs that start Consul read it to learn which features they can use.`,
  flags: [
    {
      name: "format",
      kind: "text",
      fallback: "pretty",
      usage: "Output format. Can be pretty or json. Default: pretty.",
    },
  ],
  async run({ flags, version, print, printJson }) {
    // Loaded only here: the other commands start faster without it.
    const { FOLLOWED_VERSION } = await import("../http/index.js");
    const format = flags.text("format");
    if (format === "json") {
      printJson(
        {
          Version: FOLLOWED_VERSION,
          Revision: "",
          Prerelease: "",
          BuildDate: "1970-01-01T00:00:00Z",
          RPC: { Default: 2, Min: 2, Max: 3 },
          Peerage: version,
        },
        "indented",
      );
    } else if (format === "pretty") {
      print([`Peerage v${version}`, `Has the interfaces of Consul v${FOLLOWED_VERSION}`]);
    } else throw new CommandError(`Unknown format: ${format}`);
  },
};
