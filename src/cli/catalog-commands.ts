import type { CatalogReadOptions, Json, JsonObject, NodeRecord } from "../client/index.js";
import { isJsonObject, memberOf } from "../client/json-reader.js";
import { type Command, CommandError, type CommandGroup } from "./command.js";
import { decodeData, loadData } from "./config-commands.js";
import { readOptions, serverFlags } from "./connection-flags.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { pairTexts, table } from "./output.js";
import { attempt } from "./peering-commands.js";

const readFlags: readonly Flag[] = [
  ...serverFlags,
  {
    name: "node-meta",
    kind: "pairs",
    usage: "Metadata to filter nodes with, formatted as key=value. This flag may be specified multiple times.",
  },
  { name: "peer", kind: "text", usage: "The peer whose imported services are meant, instead of our own." },
];

function catalogRead(flags: ParsedFlags): CatalogReadOptions {
  return { ...readOptions(flags), peer: flags.text("peer"), nodeMeta: flags.pairs("node-meta") };
}

/** The input of a catalog write: a file, or flags. */
async function bodyOf(
  flags: ParsedFlags,
  load: (path: string) => Promise<JsonObject>,
  fromFlags: () => JsonObject,
): Promise<JsonObject> {
  const [path] = flags.rest;
  if (flags.rest.length > 1) throw new CommandError("Must provide at most one positional argument: a file, or '-'");
  if (path !== undefined) {
    if (flags.given("node")) throw new CommandError("Cannot specify both a file and the -node flag");
    return load(path);
  }
  if (flags.text("node") === "") throw new CommandError("Missing the required -node flag");
  return fromFlags();
}

const failed = "Failed to decode the input";
/** Consul sets this one table wider than others. */
const SERVICES_GAP = 6;

const register: Command = {
  summary: "Register a node, and a service on it",
  help: `Usage: peerage catalog register [options] (-node <name> -address <address> | <file> | -)

  Registers a node, with a service when one is named. A file, or '-' for the
  standard input, gives in HCL or JSON all that /v1/catalog/register takes.

  Example:

    $ peerage catalog register -node n1 -address 10.0.0.1 -service web -port 80 -tag primary

  Example (from file):

    $ peerage catalog register web.json`,
  flags: [
    ...serverFlags,
    { name: "node", kind: "text", usage: "Name of the node." },
    { name: "address", kind: "text", usage: "Address of the node." },
    {
      name: "node-meta",
      kind: "pairs",
      usage: "Metadata of the node, formatted as key=value. This flag may be specified multiple times.",
    },
    { name: "service", kind: "text", usage: "Name of the service. Default: only the node is registered." },
    { name: "id", kind: "text", usage: "ID of the service. Default: its name." },
    { name: "port", kind: "unsigned", usage: "Port of the service." },
    { name: "service-address", kind: "text", usage: "Address of the service. Default: that of the node." },
    { name: "tag", kind: "texts", usage: "Tag of the service. This flag may be specified multiple times." },
    {
      name: "meta",
      kind: "pairs",
      usage: "Metadata of the service, formatted as key=value. This flag may be specified multiple times.",
    },
  ],
  async run({ flags, io, client, print }) {
    const body = await bodyOf(
      flags,
      async (path) => decodeData(await loadData(path, io), failed),
      () => registrationOf(flags),
    );
    const { catalog } = await client();
    await attempt("Error registering", () => catalog.register(body));
    print(`Registered ${shownName(body)}`);
  },
};

function registrationOf(flags: ParsedFlags): JsonObject {
  const optional = (key: string, value: Json, given: boolean): JsonObject => (given ? { [key]: value } : {});
  const service = flags.text("service");
  const port = Number(flags.unsigned("port"));
  return {
    Node: flags.text("node"),
    Address: flags.text("address"),
    ...optional("NodeMeta", flags.pairs("node-meta"), flags.given("node-meta")),
    ...optional(
      "Service",
      {
        Service: service,
        ...optional("ID", flags.text("id"), flags.given("id")),
        ...optional("Port", port, flags.given("port")),
        ...optional("Address", flags.text("service-address"), flags.given("service-address")),
        ...optional("Tags", flags.texts("tag"), flags.given("tag")),
        ...optional("Meta", flags.pairs("meta"), flags.given("meta")),
      },
      service !== "",
    ),
  };
}

const deregister: Command = {
  summary: "Deregister a node, or a service or check of it",
  help: `Usage: peerage catalog deregister [options] (-node <name> [-service-id <id>] | <file> | -)

  Deregisters a service or a check, or a whole node with all that is on it.
  A file, or '-' for the standard input, gives in HCL or JSON what
  /v1/catalog/deregister takes.

  Example:

    $ peerage catalog deregister -node n1 -service-id web`,
  flags: [
    ...serverFlags,
    { name: "node", kind: "text", usage: "Name of the node." },
    { name: "service-id", kind: "text", usage: "ID of the service. Default: the whole node." },
    { name: "check-id", kind: "text", usage: "ID of the check. Default: the whole node." },
  ],
  async run({ flags, io, client, print }) {
    const body = await bodyOf(
      flags,
      async (path) => decodeData(await loadData(path, io), failed),
      () => ({
        Node: flags.text("node"),
        ...(flags.given("service-id") && { ServiceID: flags.text("service-id") }),
        ...(flags.given("check-id") && { CheckID: flags.text("check-id") }),
      }),
    );
    const { catalog } = await client();
    await attempt("Error deregistering", () => catalog.deregister(body));
    print(`Deregistered ${shownName(body)}`);
  },
};

/** The node, and the part of it that was meant. */
function shownName(body: JsonObject): string {
  const service = memberOf(body, "Service");
  const named = isJsonObject(service) ? service : {};
  const part =
    memberOf(named, "ID") ?? memberOf(named, "Service") ?? memberOf(body, "ServiceID") ?? memberOf(body, "CheckID");
  return [memberOf(body, "Node"), part].filter((name) => typeof name === "string").join("/");
}

const services: Command = {
  summary: "Lists all registered services",
  help: `Usage: peerage catalog services [options]

  Retrieves the list of registered services, or with -peer of those imported
  from a peer.

  To retrieve the list of services:

      $ peerage catalog services

  To include the services' tags in the output:

      $ peerage catalog services -tags

  To list services which run on a particular node:

      $ peerage catalog services -node=web`,
  flags: [
    ...readFlags,
    { name: "node", kind: "text", usage: "Node whose services are listed." },
    { name: "tags", kind: "boolean", usage: "Display each service's tags as a comma-separated list." },
  ],
  async run({ flags, client, print, note }) {
    const { catalog } = await client();
    const node = flags.text("node");
    const tagsByName = await attempt("Error listing services", async () => {
      if (node === "") return (await catalog.services(catalogRead(flags))).value;
      const { value } = await catalog.node(node, catalogRead(flags));
      return tagsOf(Object.values(value?.Services ?? {}));
    });
    const names = Object.keys(tagsByName).sort();
    if (names.length === 0) return note("No services match the given query - try expanding your search.");
    if (!flags.boolean("tags")) return print(names);
    const rows = names.map((name) => [name, [...(tagsByName[name] ?? [])].sort().join(",")]);
    print(table(rows, SERVICES_GAP));
  },
};

function tagsOf(
  instances: readonly { readonly Service: string; readonly Tags: readonly string[] }[],
): Readonly<Record<string, readonly string[]>> {
  const tags = new Map<string, Set<string>>();
  for (const { Service, Tags } of instances) {
    const known = tags.get(Service) ?? new Set();
    for (const tag of Tags) known.add(tag);
    tags.set(Service, known);
  }
  return Object.fromEntries([...tags].map(([name, known]) => [name, [...known]]));
}

const nodes: Command = {
  summary: "Lists all nodes",
  help: `Usage: peerage catalog nodes [options]

  Retrieves the list of registered nodes, or with -peer of those imported from
  a peer.

  To retrieve the list of nodes:

      $ peerage catalog nodes

  To print detailed information including full node IDs, tagged addresses, and
  metadata information:

      $ peerage catalog nodes -detailed

  To list nodes which are running a particular service:

      $ peerage catalog nodes -service=web`,
  flags: [
    ...readFlags,
    {
      name: "detailed",
      kind: "boolean",
      usage: "Output detailed information about the nodes including their addresses and metadata.",
    },
    { name: "filter", kind: "text", usage: "Filter to use with the request." },
    { name: "near", kind: "text", usage: "Node name to sort the nodes near." },
    { name: "service", kind: "text", usage: "Service that listed nodes run." },
  ],
  async run({ flags, client, print, note }) {
    const { catalog } = await client();
    const service = flags.text("service");
    const options: CatalogReadOptions = {
      ...catalogRead(flags),
      near: flags.text("near"),
      filter: flags.text("filter"),
    };
    const found = await attempt("Error listing nodes", async () =>
      service === "" ? (await catalog.nodes(options)).value : nodesOf((await catalog.service(service, options)).value),
    );
    if (found.length === 0) return note("No nodes match the given query - try expanding your search.");
    const sorted = [...found].sort((left, right) => (left.Node < right.Node ? -1 : 1));
    print(flags.boolean("detailed") ? detailedTable(sorted) : shortTable(sorted));
  },
};

const datacenters: Command = {
  summary: "Lists all known datacenters",
  help: `Usage: peerage catalog datacenters [options]

  Retrieves the list of all known datacenters.

  Example:

      $ peerage catalog datacenters`,
  flags: serverFlags,
  async run({ client, print }) {
    const { catalog } = await client();
    for (const name of await attempt("Error listing datacenters", () => catalog.datacenters())) print(name);
  },
};

type ListedNode = Pick<NodeRecord, "ID" | "Node" | "Address" | "Datacenter" | "TaggedAddresses" | "Meta">;

function nodesOf(
  instances: readonly (Omit<ListedNode, "Meta"> & { readonly NodeMeta: ListedNode["Meta"] })[],
): readonly ListedNode[] {
  const byName = new Map<string, ListedNode>();
  for (const { NodeMeta, ...node } of instances) byName.set(node.Node, { ...node, Meta: NodeMeta });
  return [...byName.values()];
}

function shortTable(found: readonly ListedNode[]): readonly string[] {
  const rows = found.map(({ Node, ID, Address, Datacenter }) => [Node, ID.split("-")[0] ?? "", Address, Datacenter]);
  return table([["Node", "ID", "Address", "DC"], ...rows]);
}

function detailedTable(found: readonly ListedNode[]): readonly string[] {
  const rows = found.map(({ Node, ID, Address, Datacenter, TaggedAddresses, Meta }) => [
    Node,
    ID,
    Address,
    Datacenter,
    pairTexts(TaggedAddresses).join(", "),
    pairTexts(Meta).join(", "),
  ]);
  return table([["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"], ...rows]);
}

export const catalogCommands: CommandGroup = {
  summary: "Interact with the catalog",
  help: `Usage: peerage catalog <subcommand> [options] [args]

  This command has subcommands for interacting with the catalog, also with
  the services imported from peers.

  Register a service:

      $ peerage catalog register -node n1 -address 10.0.0.1 -service web -port 80

  List all nodes:

      $ peerage catalog nodes

  List all services:

      $ peerage catalog services

  List the services of a peer:

      $ peerage catalog services -peer east-dc

  For more examples, ask for subcommand help or view the documentation.`,
  commands: { datacenters, deregister, nodes, register, services },
};
