import { randomBytes } from "node:crypto";
import { errorText } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import type { AgentClient, Json, JsonObject } from "../client/index.js";
import { isJsonObject, memberOf, textMapOf, textOf } from "../client/json-reader.js";
import { type Command, CommandError, type CommandGroup } from "./command.js";
import { clientFlags, partitionFlag, readOptions, serverFlags } from "./connection-flags.js";
import { readConsulConfig } from "./consul-config.js";
import { table } from "./output.js";
import { attempt } from "./peering-commands.js";

/** Of Serf, by its number. */
const MEMBER_STATUS = ["none", "alive", "leaving", "left", "failed"] as const;

function shown(value: Json | undefined): string {
  return typeof value === "string" ? value : String(value ?? "");
}

const members: Command = {
  summary: "Lists the members of a Consul cluster",
  help: `Usage: peerage members [options]

  Lists the servers and clients that the agent knows. An agent of Peerage
  is the one member of its cluster.`,
  flags: [
    ...clientFlags,
    partitionFlag,
    { name: "detailed", kind: "boolean", usage: "Shows all tags of each member." },
    { name: "filter", kind: "text", usage: "Filter to use with the request" },
    { name: "segment", kind: "text", fallback: "_all", usage: "Shows only members of this network segment." },
    {
      name: "status",
      kind: "text",
      fallback: ".*",
      usage: "Shows only members whose status matches this regular expression.",
    },
    { name: "wan", kind: "boolean", usage: "Shows the servers as other datacenters know them." },
  ],
  async run({ flags, client, print, exit }) {
    const status = statusPattern(flags.text("status"));
    const server = await client();
    const segment = flags.text("segment");
    const found = await attempt("Error retrieving members", () =>
      server.agent.members({ wan: flags.boolean("wan"), segment, filter: flags.text("filter") }),
    );
    const listed = found.map((member) => memberRow(member, segment)).filter((row) => status.test(row.status));
    if (listed.length === 0) return exit(NOBODY);
    listed.sort((left, right) => rank(left) - rank(right) || (left.name < right.name ? -1 : 1));
    if (flags.boolean("detailed")) {
      const rows = listed.map(({ name, address, status: own, tags }) => [name, address, own, tagsText(tags)]);
      print(table([["Node", "Address", "Status", "Tags"], ...rows]));
      return;
    }
    const titles = ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment"];
    const rows = listed.map(({ name, address, status: own, type, tags }) => {
      const [build = ""] = (tags["build"] ?? "").split(":");
      const known = [build || "< 0.3", tags["vsn"], tags["dc"], tags["partition"], tags["segment"]];
      return [name, address, own, type, ...(type === "unknown" ? [] : known)].map((cell) => cell ?? "");
    });
    print(table([titles, ...rows]));
  },
};

/** Consul's exit code where no member is as was asked for. */
const NOBODY = 2;

interface MemberRow {
  readonly name: string;
  readonly address: string;
  readonly status: string;
  readonly type: "server" | "client" | "unknown";
  readonly tags: Readonly<Record<string, string>>;
}

function memberRow(member: JsonObject, segment: string): MemberRow {
  const given = textMapOf(member, "Tags");
  const type = given["role"] === "consul" ? "server" : given["role"] === "node" ? "client" : "unknown";
  const all = segment === "_all" && type === "server";
  const tags = {
    ...given,
    partition: given["partition"] || "default",
    segment: all ? "<all>" : given["segment"] || "<default>",
  };
  const status = MEMBER_STATUS[Number(memberOf(member, "Status") ?? 0)] ?? "none";
  const address = joinHostPort(textOf(member, "Addr"), shown(memberOf(member, "Port")));
  return { name: textOf(member, "Name"), address, status, type, tags };
}

function rank({ type }: MemberRow): number {
  return type === "server" ? 0 : 1;
}

function tagsText({ partition, ...tags }: Readonly<Record<string, string>>): string {
  return Object.entries({ ...tags, ap: partition })
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

function statusPattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new CommandError(`Failed to compile status regexp: ${errorText(error)}`, { cause: error });
  }
}

const info: Command = {
  summary: "Provides debugging information for operators.",
  help: `Usage: peerage info [options]

  Shows the agent's description of itself, by parts.`,
  flags: clientFlags,
  async run({ client, print }) {
    const server = await client();
    const self = await attempt("Error querying agent", () => server.agent.self());
    const stats = memberOf(self, "Stats");
    if (!isJsonObject(stats)) throw new CommandError("Agent response did not contain 'Stats' key");
    for (const [part, values] of sortedEntries(stats)) {
      if (!isJsonObject(values)) throw new CommandError(`Got invalid subkey in stats: ${part}`);
      print([`${part}:`, ...sortedEntries(values).map(([key, value]) => `\t${key} = ${shown(value)}`)]);
    }
  },
};

function sortedEntries(object: JsonObject): readonly [string, Json][] {
  return Object.entries(object).sort(([left], [right]) => (left < right ? -1 : 1));
}

const NODE_MAINTENANCE = "_node_maintenance";
const SERVICE_MAINTENANCE = "_service_maintenance:";

const maint: Command = {
  summary: "Controls node or service maintenance mode",
  help: `Usage: peerage maint [options]

  Puts the node of the agent, or one service on it, into maintenance, or
  takes it out. Maintenance is a critical check, so that DNS
  and reads of healthy instances leave it out. It stays so over a restart.
  Without options, lists everything in maintenance, and why.

  Examples:

    $ peerage maint -enable -reason "new disks"
    $ peerage maint -service web-1 -disable`,
  flags: [
    ...clientFlags,
    { name: "enable", kind: "boolean", usage: "Enable maintenance mode." },
    { name: "disable", kind: "boolean", usage: "Disable maintenance mode." },
    { name: "reason", kind: "text", usage: "Text describing the maintenance reason." },
    { name: "service", kind: "text", usage: "Control maintenance mode for a specific service ID." },
  ],
  async run({ flags, client, print }) {
    const [enable, disable] = [flags.boolean("enable"), flags.boolean("disable")];
    const [reason, serviceId] = [flags.text("reason"), flags.text("service")];
    if (enable && disable) throw new CommandError("Only one of -enable or -disable may be provided");
    if (!enable && reason !== "") throw new CommandError("Reason may only be provided with -enable");
    if (!enable && !disable && serviceId !== "") {
      throw new CommandError("Service requires either -enable or -disable");
    }
    const server = await client();
    if (!enable && !disable) {
      print(await maintained(server.agent));
      return;
    }
    const word = enable ? "enabl" : "disabl";
    const what = serviceId === "" ? "node" : "service";
    await attempt(`Error ${word}ing ${what} maintenance`, () =>
      server.agent.maintenance({ enable, reason, ...(serviceId !== "" && { serviceId }) }),
    );
    print(
      serviceId === ""
        ? `Node maintenance is now ${word}ed`
        : `Service maintenance is now ${word}ed for ${JSON.stringify(serviceId)}`,
    );
  },
};

/** The node and services in maintenance, as Consul shows them. */
async function maintained(agent: AgentClient): Promise<readonly string[]> {
  const self = await attempt("Error querying agent", () => agent.self());
  const config = memberOf(self, "Config");
  const nodeName = isJsonObject(config) ? textOf(config, "NodeName") : "";
  const checks = await attempt("Error querying checks", () => agent.checks());
  const lines: string[] = [];
  for (const [id, check] of sortedEntries(checks)) {
    const reason = isJsonObject(check) ? textOf(check, "Notes") : "";
    if (id === NODE_MAINTENANCE) lines.push("Node:", `  Name:   ${nodeName}`, `  Reason: ${reason}`, "");
    else if (id.startsWith(SERVICE_MAINTENANCE)) {
      lines.push("Service:", `  ID:     ${id.slice(SERVICE_MAINTENANCE.length)}`, `  Reason: ${reason}`, "");
    }
  }
  return lines;
}

const reload: Command = {
  summary: "Triggers the agent to reload configuration files",
  help: `Usage: peerage reload [options]

  Has the agent read its files again, as SIGHUP does, and waits until it
  has. Settings that cannot be used are reported, and the former ones stay.`,
  flags: clientFlags,
  async run({ client, print }) {
    const server = await client();
    await attempt("Error reloading", () => server.agent.reload());
    print("Configuration reload triggered");
  },
};

const leave: Command = {
  summary: "Gracefully leaves the Consul cluster and shuts down",
  help: `Usage: peerage leave [options]

  Ends the agent in order. An agent of Peerage is the one member of its
  cluster: nobody goes on without it.`,
  flags: clientFlags,
  async run({ flags, client, print }) {
    if (flags.rest.length > 0) throw new CommandError(`Error found unexpected args: [${flags.rest.join(" ")}]`);
    const server = await client();
    await attempt("Error leaving", () => server.agent.leave());
    print("Graceful leave complete");
  },
};

const validate: Command = {
  summary: "Validate config files/directories",
  help: `Usage: peerage validate [options] FILE_OR_DIRECTORY...

  Reads configuration as "peerage agent -config-file" does, says whether an
  agent would take it, and which keys it would ignore.`,
  flags: [
    { name: "config-format", kind: "text", usage: "What the files are written in: hcl or json." },
    { name: "quiet", kind: "boolean", usage: "Says nothing when the configuration is valid." },
  ],
  async run({ flags, io, print, note }) {
    if (flags.rest.length === 0) throw new CommandError("Must specify at least one config file or directory");
    const config = await readConsulConfig(flags.rest, flags.text("config-format"), undefined, io).catch(
      (error: unknown) => {
        if (!(error instanceof CommandError)) throw error;
        throw new CommandError(`Config validation failed: ${error.message}`, { cause: error });
      },
    );
    if (!config.settings.has("data-dir")) throw new CommandError("Config validation failed: data_dir cannot be empty");
    if (config.ignored.length > 0) note(`Ignored: ${config.ignored.join(", ")}`);
    if (!flags.boolean("quiet")) print("Configuration is valid!");
  },
};

/** As long as gossip takes it, and `-encrypt-key-file`. */
const KEY_BYTES = 32;

const keygen: Command = {
  summary: "Generates a new encryption key",
  help: `Usage: peerage keygen

  Makes a key for -encrypt-key-file of an agent: 32 random bytes in base64.`,
  flags: [],
  async run({ print }) {
    print(randomBytes(KEY_BYTES).toString("base64"));
  },
};

const listPeers: Command = {
  summary: "Display the current Raft peer configuration",
  help: `Usage: peerage operator raft list-peers [options]

  Shows the servers of the cluster. An agent of Peerage is the only one.`,
  flags: serverFlags,
  async run({ flags, client, print }) {
    const server = await client();
    const servers = await attempt("Error getting peers: Failed to retrieve raft configuration", () =>
      server.servers(readOptions(flags)),
    );
    const indexOf = (each: JsonObject): number => Number(memberOf(each, "LastIndex") ?? 0);
    const leader = servers.find((each) => memberOf(each, "Leader") === true);
    const rows = servers.map((each) => {
      const behind = (leader === undefined ? 0 : indexOf(leader)) - indexOf(each);
      return [
        textOf(each, "Node"),
        textOf(each, "ID"),
        textOf(each, "Address"),
        each === leader ? "leader" : "follower",
        String(memberOf(each, "Voter") === true),
        textOf(each, "ProtocolVersion") || "<=1",
        String(indexOf(each)),
        each === leader ? "-" : `${behind} commit${behind === 1 ? "" : "s"}`,
      ];
    });
    const titles = ["Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"];
    print(table([titles, ...rows]));
  },
};

const raft: CommandGroup = {
  summary: "Provides cluster-level tools for Consul operators",
  help: "Usage: peerage operator raft <subcommand> [options]",
  commands: { "list-peers": listPeers },
};

const operator: CommandGroup = {
  summary: "Provides cluster-level tools for Consul operators",
  help: "Usage: peerage operator <subcommand> [options]",
  commands: { raft },
};

export type AgentCommandName = "info" | "keygen" | "leave" | "maint" | "members" | "operator" | "reload" | "validate";

/** Commands about the agent itself. */
export const agentCommands: Readonly<Record<AgentCommandName, Command | CommandGroup>> = {
  info,
  keygen,
  leave,
  maint,
  members,
  operator,
  reload,
  validate,
};
