import { HttpError, type Json, type JsonObject } from "../client/index.js";
import { asList, isJsonObject, memberOf } from "../client/json-reader.js";
import { type Command, CommandError, type CommandGroup } from "./command.js";
import { clientFlags, partitionFlag, readOptions, serverFlags } from "./connection-flags.js";
import { table } from "./output.js";
import { attempt, requireFormat } from "./peering-commands.js";

const KIND = "exported-services";
const NAME = "default";

const exportService: Command = {
  summary: "Export a service from one peer or admin partition to another",
  help: `Usage: peerage services export [options] -name <service name> -consumer-peers <other cluster name>

  Export a service to a peered cluster.

      $ peerage services export -name=web -consumer-peers=other-cluster`,
  flags: [
    ...clientFlags,
    partitionFlag,
    { name: "name", kind: "text", usage: "(Required) Specify the name of the service you want to export." },
    {
      name: "consumer-peers",
      kind: "text",
      usage: "(Required) A comma-separated list of cluster peers to export the service to.",
    },
  ],
  async run({ flags, client, print }) {
    const name = flags.text("name");
    if (name === "") throw new CommandError("Missing the required -name flag");
    const peers = flags.text("consumer-peers");
    // Consul's text, though there are no partitions here.
    if (peers === "") throw new CommandError("Missing the required -consumer-peers or -consumer-partitions flag");
    const { config } = await client();
    const written = await attempt("Error writing config entry", async () => {
      const entry = await readEntry(() => config.read(KIND, NAME));
      const index = memberOf(entry, "ModifyIndex");
      const cas = typeof index === "number" ? BigInt(index) : 0n;
      return config.write(withConsumers(entry, name, peers.split(",")), { cas });
    });
    if (!written) throw new CommandError("Config entry was changed during update. Please try again");
    print(`Successfully exported service ${JSON.stringify(name)} to cluster peers ${JSON.stringify(peers)}`);
  },
};

async function readEntry(read: () => Promise<{ readonly value: JsonObject }>): Promise<JsonObject> {
  try {
    return (await read()).value;
  } catch (error) {
    if (error instanceof HttpError && error.text.includes("Config entry not found")) return { Kind: KIND, Name: NAME };
    throw error;
  }
}

function objects(value: Json | undefined): readonly JsonObject[] {
  return asList(value ?? null, "the config entry").filter(isJsonObject);
}

/** The entry with those peers added that it does not export the service to yet. */
function withConsumers(entry: JsonObject, name: string, peers: readonly string[]): JsonObject {
  const services = objects(memberOf(entry, "Services"));
  const present = services.find((service) => memberOf(service, "Name") === name);
  const consumers = objects(memberOf(present ?? {}, "Consumers"));
  const missing = peers.filter((peer) => !consumers.some((consumer) => memberOf(consumer, "Peer") === peer));
  const block = { ...(present ?? { Name: name }), Consumers: [...consumers, ...missing.map((Peer) => ({ Peer }))] };
  return {
    ...entry,
    Services: present === undefined ? [...services, block] : services.map((each) => (each === present ? block : each)),
  };
}

const exportedServices: Command = {
  summary: "Lists exported services",
  help: `Usage: peerage services exported-services [options]

  Lists all the exported services and their consumers. Wildcards are expanded.

  Example:

    $ peerage services exported-services`,
  flags: [
    ...serverFlags,
    { name: "filter", kind: "text", usage: "go-bexpr filter string to filter the response" },
    {
      name: "format",
      kind: "text",
      usage: "Output format {pretty|json} (default: pretty)",
      fallback: "pretty",
    },
  ],
  async run({ flags, client, print, printJson }) {
    const format = requireFormat(flags, "pretty|json");
    const server = await client();
    const { value } = await attempt("Error reading exported services", () =>
      server.exportedServices({ ...readOptions(flags), filter: flags.text("filter") }),
    );
    if (format === "json") {
      const services = value.map(({ Service, Consumers: { Peers } }) => ({
        Service,
        Consumers: Peers.length === 0 ? {} : { Peers },
      }));
      printJson(services, "indented");
    } else if (value.length === 0) {
      print("No exported services found");
    } else {
      const rows = value.map(({ Service, Consumers }) => [Service, Consumers.Peers.join(", ")]);
      print(table([["Service", "Consumer Peers"], ...rows]));
    }
  },
};

export const servicesCommands: CommandGroup = {
  summary: "Interact with services",
  help: `Usage: peerage services <subcommand> [options] [args]

  This command has subcommands for exporting services to peers.

  Export a service:

    $ peerage services export -name=web -consumer-peers=other-cluster

  List what is exported:

    $ peerage services exported-services`,
  commands: { export: exportService, "exported-services": exportedServices },
};
