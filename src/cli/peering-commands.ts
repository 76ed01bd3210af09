import { errorText, PeeringError } from "../base/errors.js";
import { HttpError, type PeeringRecord, type PeeringTroubles } from "../client/index.js";
import { TokenCodec, type TokenDescription } from "../token/token-codec.js";
import { type Command, type CommandContext, CommandError, type CommandGroup } from "./command.js";
import { clientFlags, partitionFlag } from "./connection-flags.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { goTime, type Printable, pairTexts, table } from "./output.js";

const nameFlag: Flag = {
  name: "name",
  kind: "text",
  usage: "(Required) The local name assigned to the peer cluster.",
};

export const formatFlag: Flag = {
  name: "format",
  kind: "text",
  usage: "Output format {json|pretty} (default: pretty)",
  fallback: "pretty",
};

const shared: readonly Flag[] = [...clientFlags, partitionFlag];

function requireName(flags: ParsedFlags): string {
  const name = flags.text("name");
  if (name === "") throw new CommandError("Missing the required -name flag");
  return name;
}

export function requireFormat(flags: ParsedFlags, choices = "json|pretty"): "json" | "pretty" {
  const format = flags.text("format");
  if (format !== "json" && format !== "pretty") {
    throw new CommandError(`Invalid format, valid formats are {${choices}}`);
  }
  return format;
}

/** Names what was tried in front of why it failed. @throws {CommandError} */
export async function attempt<Value>(what: string, action: () => Promise<Value>): Promise<Value> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof CommandError) throw error;
    if (!(error instanceof HttpError || error instanceof PeeringError || error instanceof TypeError)) throw error;
    throw new CommandError(`${what}: ${errorText(error)}`, { cause: error });
  }
}

const generateToken: Command = {
  summary: "Generate a peering token",
  help: `Usage: peerage peering generate-token [options] -name <peer name>

  Generate a peering token. The name provided will be used locally by
  this cluster to refer to the peering connection. Re-generating a token
  for a given name will not interrupt any active connection, but will
  invalidate any unused token for that name.

  Example:

    $ peerage peering generate-token -name west-dc

  Example using a load balancer in front of the servers:

    $ peerage peering generate-token -name west-dc -server-external-addresses load-balancer.elb.us-west-1.amazonaws.com:8503`,
  flags: [
    ...shared,
    nameFlag,
    formatFlag,
    {
      name: "meta",
      kind: "pairs",
      usage:
        "Metadata to associate with the peering, formatted as key=value. This flag may be specified multiple times to set multiple metadata fields.",
    },
    {
      name: "server-external-addresses",
      kind: "text",
      usage:
        'A list of addresses to put into the generated token, formatted as a comma-separate list. Addresses are the form of <host or IP>:port. This could be used to specify load balancer(s) or external IPs to reach the servers from the dialing side, and will override any server addresses obtained from the "consul" service.',
    },
  ],
  async run({ flags, client, print, printJson }) {
    const name = requireName(flags);
    const format = requireFormat(flags);
    const { peerings } = await client();
    const addresses = flags.text("server-external-addresses");
    const token = await attempt(`Error generating peering token for ${name}`, () =>
      peerings.generateToken({
        peerName: name,
        meta: flags.pairs("meta"),
        ...(addresses !== "" && { serverExternalAddresses: addresses.split(",") }),
      }),
    );
    if (format === "json") printJson({ PeeringToken: token }, "compact");
    else print(token);
  },
};

const establish: Command = {
  summary: "Establish a peering connection",
  help: `Usage: peerage peering establish [options] -name <peer name> -peering-token <token>

  Establish a peering connection. The name provided will be used locally by
  this cluster to refer to the peering connection. The peering token can
  only be used once to establish the connection.

  Example:

    $ peerage peering establish -name west-dc -peering-token <token>`,
  flags: [
    ...shared,
    nameFlag,
    {
      name: "meta",
      kind: "pairs",
      usage:
        "Metadata to associate with the peering, formatted as key=value. This flag may be specified multiple times to set multiple meta fields.",
    },
    {
      name: "peering-token",
      kind: "text",
      usage: "(Required) The peering token from the accepting cluster.",
    },
  ],
  async run({ flags, client, print }) {
    const name = requireName(flags);
    const token = flags.text("peering-token");
    if (token === "") throw new CommandError("Missing the required -peering-token flag");
    const { peerings } = await client();
    await attempt(`Error establishing peering for ${name}`, () =>
      peerings.establish({ peerName: name, token, meta: flags.pairs("meta") }),
    );
    print(`Successfully established peering connection with ${name}`);
  },
};

const list: Command = {
  summary: "List peering connections",
  help: `Usage: peerage peering list [options]

  List all peering connections. The results will be filtered according
  to what the ACL token may read.

  Example:

    $ peerage peering list

  Show beside each why it does not work, and since when:

    $ peerage peering list -detailed`,
  flags: [
    ...shared,
    formatFlag,
    { name: "detailed", kind: "boolean", usage: "Output the last failure of each peering, and since when it fails." },
  ],
  async run({ flags, client, print, printJson }) {
    const format = requireFormat(flags);
    const { peerings } = await client();
    const answer = await attempt("Error listing peerings", () => peerings.list());
    const sorted = [...answer.value].sort((left, right) => (left.Name < right.Name ? -1 : 1));
    if (format === "json") {
      printJson(sorted.map(peeringJson), "compact");
    } else if (sorted.length === 0) {
      print("There are no peering connections.");
    } else {
      const detailed = flags.boolean("detailed");
      const rows = sorted.map(({ Name, State, StreamStatus, Meta, Peerage }) => [
        Name,
        State,
        String(StreamStatus.ImportedServices.length),
        String(StreamStatus.ExportedServices.length),
        pairTexts(Meta).join(","),
        ...(detailed ? [goTime(Peerage?.LastFailure?.Since), failureText(Peerage)] : []),
      ]);
      const titles = ["Name", "State", "Imported Svcs", "Exported Svcs", "Meta"];
      print(table([detailed ? [...titles, "Failing Since", "Last Failure"] : titles, ...rows]));
    }
  },
};

async function readPeering({ flags, client }: CommandContext): Promise<PeeringRecord> {
  const name = requireName(flags);
  requireFormat(flags);
  const { peerings } = await client();
  const { value } = await attempt("Error reading peering", () => peerings.read(name));
  if (value === undefined) throw new CommandError(`No peering with name ${name} found.`);
  return value;
}

const read: Command = {
  summary: "Read a peering connection",
  help: `Usage: peerage peering read [options] -name <peer name>

  Read a peering connection with the provided name.  If one is not found,
  the command will exit with a non-zero code. The result will be filtered according
  to ACL policy configuration.

  Example:

    $ peerage peering read -name west-dc`,
  flags: [...shared, nameFlag, formatFlag],
  async run(context) {
    const peering = await readPeering(context);
    if (requireFormat(context.flags) === "json") context.printJson(peeringJson(peering), "compact");
    else context.print(peeringText(peering));
  },
};

const exportedServices: Command = {
  summary: "Lists exported services to a peer",
  help: `Usage: peerage peering exported-services [options] -name <peer name>

  Lists services exported to the peer with the provided name. If the peer is not found,
  the command will exit with a non-zero code. The result will be filtered according
  to ACL policy configuration.

  Example:

    $ peerage peering exported-services -name west-dc`,
  flags: [...shared, nameFlag, formatFlag],
  async run(context) {
    const { ExportedServices: names } = (await readPeering(context)).StreamStatus;
    if (requireFormat(context.flags) === "json") {
      context.printJson(
        names.map((ID) => ({ ID })),
        "compact",
      );
    } else context.print(names.length === 0 ? "" : names);
  },
};

const deletePeering: Command = {
  summary: "Delete a peering connection",
  help: `Usage: peerage peering delete [options] -name <peer name>

  Delete a peering connection. All imported data is removed, and the peer is
  told. It does not matter whether a peering of this name exists.

  Example:

    $ peerage peering delete -name west-dc`,
  flags: [...shared, nameFlag],
  async run({ flags, client, print }) {
    const name = requireName(flags);
    const { peerings } = await client();
    await attempt(`Error deleting peering for ${name}`, () => peerings.delete(name));
    print(`Successfully submitted peering connection, ${name}, for deletion`);
  },
};

const inspectToken: Command = {
  summary: "Show the content of a peering token, without its secret",
  help: `Usage: peerage peering token inspect [options] <token | ->

  Shows what a peering token says without asking any server: where it leads,
  which certificates it trusts, and what is wrong with it. Its secret is not
  shown. With '-' the token is read from the standard input. The command exits
  with a non-zero code when no cluster can establish with the token.

  Example:

    $ peerage peering generate-token -name west-dc | peerage peering token inspect -`,
  flags: [formatFlag],
  async run({ flags, io, print, printJson }) {
    const format = requireFormat(flags);
    const [given] = flags.rest;
    if (given === undefined || flags.rest.length > 1) {
      throw new CommandError("Must provide exactly one positional argument: the token, or '-' to read it from stdin");
    }
    const text = (given === "-" ? await io.stdin() : given).trim();
    const description = await attempt("Error inspecting the peering token", async () =>
      TokenCodec.inspect(text, io.wall()),
    );
    if (format === "json") printJson(descriptionJson(description), "indented");
    else print(descriptionText(description));
    if (description.problems.length > 0) throw new CommandError("No cluster can establish with this token.");
  },
};

const listTokens: Command = {
  summary: "List the peerings whose last token is unused",
  help: `Usage: peerage peering token list [options]

  Lists the names of the peerings whose last token has not been used. The
  holder of such a token can peer under that name.

  Example:

    $ peerage peering token list`,
  flags: [...shared, formatFlag],
  async run({ flags, client, print, printJson }) {
    const format = requireFormat(flags);
    const { peerings } = await client();
    const names = await attempt("Error listing peering tokens", () => peerings.outstandingTokens());
    if (format === "json") printJson(names, "compact");
    else print(names.length === 0 ? "There are no unused peering tokens." : names);
  },
};

const revokeToken: Command = {
  summary: "Make the unused token of a peering worthless",
  help: `Usage: peerage peering token revoke [options] -name <peer name>

  Makes the last token of a peering worthless, if it has not been used. A
  connection that is up goes on. The command exits with a non-zero code when
  there is no unused token for that name.

  Example:

    $ peerage peering token revoke -name west-dc`,
  flags: [...shared, nameFlag],
  async run({ flags, client, print }) {
    const name = requireName(flags);
    const { peerings } = await client();
    const revoked = await attempt(`Error revoking peering token for ${name}`, () => peerings.revokeToken(name));
    if (!revoked) throw new CommandError(`There is no unused peering token for ${name}.`);
    print(`Revoked the unused peering token for ${name}`);
  },
};

export const peeringCommands: CommandGroup = {
  summary: "Create and manage peering connections between clusters",
  help: `Usage: peerage peering <subcommand> [options] [args]

  This command has subcommands for interacting with Cluster Peering 
  connections. Here are some simple examples, and more detailed
  examples are available in the subcommands or the documentation.

  Generate a peering token:

    $ peerage peering generate-token -name west-dc

  Establish a peering connection:

    $ peerage peering establish -name east-dc -peering-token <token>

  List all the local peering connections:

    $ peerage peering list

  Print the status of a peering connection:

    $ peerage peering read -name west-dc

  Lists services exported to a peering connection:

    $ peerage peering exported-services -name west-dc

  Delete and close a peering connection:

    $ peerage peering delete -name west-dc

  For more examples, ask for subcommand help or view the documentation.`,
  commands: {
    delete: deletePeering,
    establish,
    "exported-services": exportedServices,
    generate: { ...generateToken, summary: "The same as generate-token" },
    "generate-token": generateToken,
    list,
    read,
    token: {
      summary: "Look into peering tokens, and revoke them",
      help: `Usage: peerage peering token <subcommand> [options] [args]

  This command has subcommands for peering tokens themselves.

  Show what a token says, without asking any server:

    $ peerage peering token inspect <token>

  List the peerings whose last token is unused:

    $ peerage peering token list

  Make the unused token of a peering worthless:

    $ peerage peering token revoke -name west-dc`,
      commands: { inspect: inspectToken, list: listTokens, revoke: revokeToken },
    },
  },
};

function listOrAbsent(values: readonly string[]): readonly string[] | undefined {
  return values.length === 0 ? undefined : values;
}

function listOrNull(values: readonly string[]): readonly string[] | null {
  return values.length === 0 ? null : values;
}

/** The keys, their order and the omitted ones are the API's. */
function peeringJson(peering: PeeringRecord): Printable {
  const { StreamStatus: status, Remote: remote } = peering;
  return {
    ID: peering.ID,
    Name: peering.Name,
    Partition: peering.Partition || undefined,
    DeletedAt: peering.DeletedAt,
    Meta: Object.keys(peering.Meta).length === 0 ? undefined : sortedMap(peering.Meta),
    State: peering.State,
    PeerID: peering.PeerID || undefined,
    PeerCAPems: listOrAbsent(peering.PeerCAPems),
    PeerServerName: peering.PeerServerName || undefined,
    PeerServerAddresses: listOrAbsent(peering.PeerServerAddresses),
    StreamStatus: {
      ImportedServices: listOrNull(status.ImportedServices),
      ExportedServices: listOrNull(status.ExportedServices),
      LastHeartbeat: status.LastHeartbeat ?? null,
      LastReceive: status.LastReceive ?? null,
      LastSend: status.LastSend ?? null,
    },
    CreateIndex: peering.CreateIndex,
    ModifyIndex: peering.ModifyIndex,
    Remote: {
      Partition: remote.Partition,
      Datacenter: remote.Datacenter,
      Locality: remote.Locality && { Region: remote.Locality.Region, Zone: remote.Locality.Zone },
    },
    Peerage: peering.Peerage && troublesJson(peering.Peerage),
  };
}

function troublesJson(troubles: PeeringTroubles): Printable {
  const { LastFailure: failure } = troubles;
  return {
    LastFailure: failure && { ...failure, Address: failure.Address || undefined },
    WithheldServices: troubles.WithheldServiceCount > 0 ? sortedMap(troubles.WithheldServices) : undefined,
    WithheldServiceCount: troubles.WithheldServiceCount || undefined,
    RefusedImports: troubles.RefusedImportCount > 0 ? sortedMap(troubles.RefusedImports) : undefined,
    RefusedImportCount: troubles.RefusedImportCount || undefined,
  };
}

function sortedMap(map: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(map).sort(([left], [right]) => (left < right ? -1 : 1)));
}

function peeringText(peering: PeeringRecord): readonly string[] {
  const { StreamStatus: status, PeerServerAddresses: addresses } = peering;
  const meta = pairTexts(peering.Meta);
  const lines = [`Name:         ${peering.Name}`, `ID:           ${peering.ID}`];
  if (peering.Partition !== "") lines.push(`Partition:    ${peering.Partition}`);
  if (peering.DeletedAt !== undefined) lines.push(`DeletedAt:    ${peering.DeletedAt.replace(/\.\d+/, "")}`);
  lines.push(`State:        ${peering.State}`);
  if (meta.length > 0) lines.push("Meta:", ...meta.map((pair) => `    ${pair}`));
  lines.push(
    "",
    `Peer ID:               ${peering.PeerID}`,
    `Peer Server Name:      ${peering.PeerServerName}`,
    `Peer CA Pems:          ${peering.PeerCAPems.length}`,
  );
  // All on one line, as Consul prints them.
  if (addresses.length > 0) lines.push("Peer Server Addresses:", addresses.map((address) => `    ${address}`).join(""));
  else lines.push("");
  lines.push(
    `Imported Services: ${status.ImportedServices.length}`,
    `Exported Services: ${status.ExportedServices.length}`,
    "",
    `Last Heartbeat:    ${goTime(status.LastHeartbeat)}`,
    `Last Send:         ${goTime(status.LastSend)}`,
    `Last Receive:      ${goTime(status.LastReceive)}`,
    "",
    `Create Index: ${peering.CreateIndex}`,
    `Modify Index: ${peering.ModifyIndex}`,
    "",
    ...troubleLines(peering.Peerage),
  );
  return lines;
}

function failureText(troubles: PeeringTroubles | undefined): string {
  const failure = troubles?.LastFailure;
  if (failure === undefined) return "";
  return failure.Address === "" ? failure.Error : `${failure.Address}: ${failure.Error}`;
}

/** None while there is nothing wrong: the output is Consul's then. */
function troubleLines(troubles: PeeringTroubles | undefined): readonly string[] {
  if (troubles === undefined) return [];
  const { LastFailure: failure } = troubles;
  const lines: string[] = [];
  if (failure !== undefined) {
    lines.push(
      `Last Failure:      ${failureText(troubles)}`,
      `Failing Since:     ${goTime(failure.Since)}`,
      `Failed Attempts:   ${failure.FailedAttempts}`,
      `Next Attempt:      ${goTime(failure.NextAttempt)}`,
      "",
    );
  }
  for (const [title, count, reasons] of [
    ["Withheld Services", troubles.WithheldServiceCount, troubles.WithheldServices],
    ["Refused Imports", troubles.RefusedImportCount, troubles.RefusedImports],
  ] as const) {
    if (count > 0)
      lines.push(`${title}: ${count}`, ...Object.entries(reasons).map(([name, why]) => `    ${name}: ${why}`), "");
  }
  return lines;
}

function descriptionJson(token: TokenDescription): Printable {
  const { partition, datacenter, locality } = token.remote;
  return {
    PeerID: token.peerId,
    ServerName: token.serverName,
    ServerAddresses: token.serverAddresses,
    ManualServerAddresses: token.manualServerAddresses,
    DialAddresses: token.dialAddresses,
    Remote: {
      Partition: partition,
      Datacenter: datacenter,
      Locality: locality === undefined ? null : { Region: locality.region, Zone: locality.zone },
    },
    Certificates: token.certificates.map(({ subject, fingerprint, notAfter }) => ({
      Subject: subject,
      Fingerprint: fingerprint,
      NotAfter: new Date(notAfter).toISOString(),
    })),
    Plaintext: token.plaintext,
    WrittenBy: token.writtenBy,
    Problems: token.problems,
    Warnings: token.warnings,
  };
}

function descriptionText(token: TokenDescription): readonly string[] {
  const { partition, datacenter, locality } = token.remote;
  const lines = [
    `Peer ID:           ${token.peerId}`,
    `Server Name:       ${token.serverName}`,
    `Server Addresses:  ${token.serverAddresses.join(", ")}`,
  ];
  if (token.manualServerAddresses.length > 0) {
    lines.push(`Manual Addresses:  ${token.manualServerAddresses.join(", ")} (these are dialed)`);
  }
  lines.push(`Datacenter:        ${datacenter}`);
  if (partition !== "") lines.push(`Partition:         ${partition}`);
  if (locality !== undefined) lines.push(`Locality:          ${locality.region} ${locality.zone}`);
  lines.push(`Encryption:        ${token.plaintext ? "none" : "TLS"}`, `Written by:        Consul ${token.writtenBy}`);
  for (const { subject, fingerprint, notAfter } of token.certificates) {
    lines.push(
      "",
      `Certificate:       ${subject}`,
      `    SHA-256:       ${fingerprint}`,
      `    Expires:       ${new Date(notAfter).toISOString()}`,
    );
  }
  for (const [title, texts] of [
    ["Problems:", token.problems],
    ["Warnings:", token.warnings],
  ] as const) {
    if (texts.length > 0) lines.push("", title, ...texts.map((text) => `    ${text}`));
  }
  return lines;
}
