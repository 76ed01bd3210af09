import { splitHostPort } from "../base/host-port.js";
import { HttpError, type Json, type JsonObject } from "../client/index.js";
import { asList, isJsonObject, memberOf, textOf } from "../client/json-reader.js";
import { type Command, CommandError, type CommandGroup, type CommandLineIo } from "./command.js";
import { clientFlags, partitionFlag, readOptions, serverFlags } from "./connection-flags.js";
import { readConsulFiles } from "./consul-files.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { table } from "./output.js";
import { attempt, requireFormat } from "./peering-commands.js";
import { serviceForm } from "./service-definitions.js";

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

/** The services that files define. @throws {CommandError} with Consul's words. */
async function definedIn(paths: readonly string[], io: CommandLineIo): Promise<readonly JsonObject[]> {
  try {
    const config = (await readConsulFiles(paths, "", io)) ?? {};
    return [memberOf(config, "service"), ...asList(memberOf(config, "services") ?? null, "services")]
      .filter(isJsonObject)
      .map(serviceForm);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new CommandError(`Error: ${error.message}`, { cause: error });
  }
}

function definedByFlags(flags: ParsedFlags): JsonObject {
  const port = flags.text("port");
  if (!/^\d{0,5}$/.test(port))
    throw new CommandError(`invalid value ${JSON.stringify(port)} for flag -port: parse error`);
  const addresses = Object.entries(flags.pairs("tagged-address")).map(([name, value]): [string, JsonObject] => {
    const parts = splitHostPort(value);
    if (parts === undefined) {
      throw new CommandError(
        `Error: Tagged address ${JSON.stringify(name)} is not host:port: ${JSON.stringify(value)}`,
      );
    }
    return [name, { Address: parts.host, Port: parts.port }];
  });
  return {
    Kind: flags.text("kind"),
    ID: flags.text("id"),
    Name: flags.text("name"),
    Address: flags.text("address"),
    Port: Number(port || "0"),
    SocketPath: flags.text("socket"),
    Tags: flags.texts("tag"),
    Meta: flags.pairs("meta"),
    TaggedAddresses: Object.fromEntries(addresses),
  };
}

const registerFlags: readonly Flag[] = [
  { name: "id", kind: "text", usage: "Id of the service. Default: its name." },
  { name: "name", kind: "text", usage: "Name of the service." },
  { name: "address", kind: "text", usage: "Address of the service. Default: that of the node." },
  { name: "port", kind: "text", placeholder: "int", usage: "Port of the service." },
  { name: "socket", kind: "text", usage: "Path of the service's Unix socket, instead of an address and a port." },
  { name: "meta", kind: "pairs", usage: "Metadata, as key=value. This flag may be specified multiple times." },
  { name: "tag", kind: "texts", usage: "Tag of the service. This flag may be specified multiple times." },
  {
    name: "tagged-address",
    kind: "pairs",
    usage: "Further address, as name=host:port. This flag may be specified multiple times.",
  },
  { name: "kind", kind: "text", usage: "Kind of the service." },
];

const register: Command = {
  summary: "Register services with the local agent",
  help: `Usage: peerage services register [options] [FILE...]

  Registers one service that flags describe, or those that files define,
  at the agent.

  Examples:

    $ peerage services register -name web -port 8080
    $ peerage services register web.hcl`,
  flags: [...serverFlags, ...registerFlags],
  async run({ flags, io, client, print }) {
    const described = registerFlags.some(({ name }) => flags.given(name));
    if (!described && flags.rest.length === 0) {
      throw new CommandError("Service registration requires at least one argument or flags.");
    }
    if (described && flags.rest.length > 0) {
      throw new CommandError("Service registration requires arguments or -id, not both.");
    }
    const services = described ? [definedByFlags(flags)] : await definedIn(flags.rest, io);
    const { agent } = await client();
    for (const service of services) {
      const name = textOf(service, "Name");
      await attempt(`Error registering service ${JSON.stringify(name)}`, () => agent.registerService(service));
      print(`Registered service: ${name}`);
    }
  },
};

const deregister: Command = {
  summary: "Deregister services with the local agent",
  help: `Usage: peerage services deregister [options] [FILE...]

  Deregisters the service with an id, or those that files define, at the
  agent.

  Examples:

    $ peerage services deregister -id web
    $ peerage services deregister web.hcl`,
  flags: [...serverFlags, { name: "id", kind: "text", usage: "Id of the service." }],
  async run({ flags, io, client, print }) {
    const id = flags.text("id");
    if (id === "" && flags.rest.length === 0) {
      throw new CommandError("Service deregistration requires at least one argument or -id.");
    }
    if (id !== "" && flags.rest.length > 0) {
      throw new CommandError("Service deregistration requires arguments or -id, not both.");
    }
    const services = id === "" ? await definedIn(flags.rest, io) : [{ ID: id }];
    const { agent } = await client();
    for (const service of services) {
      const own = textOf(service, "ID") || textOf(service, "Name");
      const name = textOf(service, "Name");
      await attempt(`Error deregistering service ${JSON.stringify(name)}`, () => agent.deregisterService(own));
      print(`Deregistered service: ${own}`);
    }
  },
};

export const servicesCommands: CommandGroup = {
  summary: "Interact with services",
  help: `Usage: peerage services <subcommand> [options] [args]

  This command has subcommands for registering services at the agent, and
  for exporting them to peers.

  Register a service:

    $ peerage services register -name web -port 8080

  Export a service:

    $ peerage services export -name=web -consumer-peers=other-cluster

  List the exported services:

    $ peerage services exported-services`,
  commands: { deregister, export: exportService, "exported-services": exportedServices, register },
};
