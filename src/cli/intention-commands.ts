import { HttpError, type IntentionEnds, type IntentionRecord, type JsonObject } from "../client/index.js";
import { memberOf } from "../client/json-reader.js";
import { decodeGo, GoJsonError, goAny, isGoObject, plainJson } from "../syntax/go-json.js";
import { type Command, CommandError, type CommandGroup, type CommandLineIo } from "./command.js";
import { readOptions, serverFlags } from "./connection-flags.js";
import { table } from "./output.js";
import { attempt } from "./peering-commands.js";
import { readProblem } from "./read-file.js";

const DEFAULT = "default";
/** The zero time of Go, which those intentions show that were written without an id. */
const NO_TIME = "0001-01-01T00:00:00Z";

function inNamespace(namespace: string, name: string): string {
  return namespace === "" || namespace === DEFAULT ? name : `${namespace}/${name}`;
}

/** `web => db (allow)` */
function shown(intention: Ends & { readonly decision: string }): string {
  const { SourceNS, SourceName, DestinationNS, DestinationName, decision } = intention;
  return `${inNamespace(SourceNS, SourceName)} => ${inNamespace(DestinationNS, DestinationName)} (${decision})`;
}

type Ends = Pick<IntentionRecord, "SourceNS" | "SourceName" | "DestinationNS" | "DestinationName">;

function decisionOf({ Action, Permissions }: IntentionRecord): string {
  if (Permissions.length === 0) return Action;
  return Permissions.length === 1 ? "1 permission" : `${Permissions.length} permissions`;
}

/** One that is to be made. */
interface NewIntention {
  readonly ends: Ends;
  readonly action: string;
  readonly body: JsonObject;
}

interface End {
  readonly partition: string;
  readonly namespace: string;
  readonly name: string;
}

function endOf(given: string, what: string): End {
  const parts = given.split("/");
  if (parts.length > 3) throw new CommandError(`Error: Invalid intention ${what}: input can contain at most two '/'`);
  const [name = "", namespace = "", partition = ""] = parts.toReversed();
  return { partition, namespace, name };
}

function fromArguments(args: readonly string[], action: string, meta: Readonly<Record<string, string>>): NewIntention {
  const [first, second] = args;
  if (first === undefined || second === undefined || args.length > 2) {
    throw new CommandError("Error: Must specify two arguments: source and destination");
  }
  const source = endOf(first, "source");
  const destination = endOf(second, "destination");
  const ends = {
    SourceNS: source.namespace,
    SourceName: source.name,
    DestinationNS: destination.namespace,
    DestinationName: destination.name,
  };
  const partitions = {
    ...(source.partition !== "" && { SourcePartition: source.partition }),
    ...(destination.partition !== "" && { DestinationPartition: destination.partition }),
  };
  const body = { ...ends, ...partitions, SourceType: "consul", Action: action };
  return { ends, action, body: Object.keys(meta).length === 0 ? body : { ...body, Meta: meta } };
}

async function fromFile(path: string, io: CommandLineIo): Promise<NewIntention> {
  const body = decoded(await contentOf(path, io));
  const member = (name: string): string => {
    const value = memberOf(body, name);
    return typeof value === "string" ? value : "";
  };
  const permissions = memberOf(body, "Permissions");
  if (Array.isArray(permissions) && permissions.length > 0) {
    throw new CommandError(
      `Error: cannot create L7 intention from file ${JSON.stringify(path)} using this CLI; use 'consul config write' instead`,
    );
  }
  const ends = {
    SourceNS: member("SourceNS"),
    SourceName: member("SourceName"),
    DestinationNS: member("DestinationNS"),
    DestinationName: member("DestinationName"),
  };
  return { ends, action: member("Action"), body };
}

async function contentOf(path: string, io: CommandLineIo): Promise<string> {
  try {
    return path === "-" ? await io.stdin() : await io.readFile(path);
  } catch (error) {
    throw new CommandError(`Error: ${readProblem(path, error)}`, { cause: error });
  }
}

function decoded(text: string): JsonObject {
  try {
    const value = decodeGo(Buffer.from(text), goAny);
    if (!isGoObject(value)) throw new CommandError("Error: an intention must be an object");
    return Object.fromEntries(value.members.map((member) => [member.key, plainJson(member.value)]));
  } catch (error) {
    if (error instanceof GoJsonError) throw new CommandError(`Error: ${error.message}`, { cause: error });
    throw error;
  }
}

/** The source and destination as `/exact` takes them. */
function exactEnds({ SourceNS, SourceName, DestinationNS, DestinationName }: Ends): IntentionEnds {
  const named = (namespace: string, name: string): string => (namespace === "" ? name : `${namespace}/${name}`);
  return { source: named(SourceNS, SourceName), destination: named(DestinationNS, DestinationName) };
}

function quotedEnds({ source, destination }: IntentionEnds): string {
  return `source ${JSON.stringify(source)} and destination ${JSON.stringify(destination)}`;
}

/** As Consul's own client tells of reads that fail. */
async function reading<Value>(what: string, action: () => Promise<Value>): Promise<Value> {
  return attempt(what, async () => {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      throw new CommandError(`${what}: Unexpected response ${error.status}: ${error.text}`, { cause: error });
    }
  });
}

const create: Command = {
  summary: "Create intentions for service connections.",
  help: `Usage: peerage intention create [options] SRC DST
Usage: peerage intention create [options] -file FILE...

  Create one or more intentions. The data can be specified as a single
  source and destination pair or via a set of files when the "-file" flag
  is specified.

      $ peerage intention create web db

  To consume data from a set of files:

      $ peerage intention create -file one.json two.json

  When specifying the "-file" flag, "-" may be used once to read from stdin:

      $ echo "{ ... }" | peerage intention create -file -

  An "allow" intention is created by default (allowlist). To create a
  "deny" intention, the "-deny" flag should be specified.

  If a conflicting intention is found, creation will fail. To replace any
  conflicting intentions, specify the "-replace" flag. This will replace any
  conflicting intentions with the intention specified in this command.
  Metadata and any other fields of the previous intention will not be
  preserved.`,
  flags: [
    { name: "allow", kind: "boolean", usage: "Create an intention that allows when matched." },
    { name: "deny", kind: "boolean", usage: "Create an intention that denies when matched." },
    { name: "file", kind: "boolean", usage: "Read intention data from one or more files." },
    { name: "replace", kind: "boolean", usage: "Replace matching intentions." },
    {
      name: "meta",
      kind: "pairs",
      usage:
        "Metadata to set on the intention, formatted as key=value. This flag may be specified multiple times to set multiple meta fields.",
    },
    ...serverFlags,
  ],
  async run({ flags, io, client, print }) {
    const deny = flags.boolean("deny");
    if (deny && flags.boolean("allow")) throw new CommandError("Only one of -allow or -deny may be specified.");
    const action = deny ? "deny" : "allow";
    const wanted: NewIntention[] = [];
    if (flags.boolean("file")) for (const path of flags.rest) wanted.push(await fromFile(path, io));
    else wanted.push(fromArguments(flags.rest, action, flags.pairs("meta")));
    const { intentions } = await client();
    for (const { ends, action: decision, body } of wanted) {
      const exact = exactEnds(ends);
      const old = flags.boolean("replace")
        ? await reading(`Error looking up intention for replacement with ${quotedEnds(exact)}`, () =>
            intentions.read(exact),
          )
        : undefined;
      if (old?.value !== undefined) {
        const { ID } = old.value;
        await attempt(`Error replacing intention with ${quotedEnds(exact)}`, () =>
          intentions.updateById(ID, { ...body, ID }),
        );
        continue;
      }
      const line = shown({ ...ends, decision });
      await attempt(`Error creating intention ${JSON.stringify(line)}`, () => intentions.create(body));
      print(`Created: ${line}`);
    }
  },
};

const check: Command = {
  summary: "Check whether a connection between two services is allowed.",
  help: `Usage: peerage intention check [options] SRC DST

  Check whether a connection between SRC and DST would be allowed by
  Connect given the current Consul configuration.

      $ peerage intention check web db`,
  flags: serverFlags,
  failureCodes: { flags: 2, others: 2 },
  async run({ flags, client, print, exit }) {
    const [source, destination] = flags.rest;
    if (source === undefined || destination === undefined || flags.rest.length > 2) {
      throw new CommandError("Error: command requires exactly two arguments: src and dst");
    }
    const { intentions } = await client();
    const allowed = await attempt("Error checking the connection", () => intentions.check({ source, destination }));
    print(allowed ? "Allowed" : "Denied");
    if (!allowed) exit(1);
  },
};

const EITHER = "command requires exactly 1 or 2 arguments";

const deleteIntention: Command = {
  summary: "Delete an intention.",
  help: `Usage: peerage intention delete [options] SRC DST
Usage: peerage intention delete [options] ID

  Delete an intention. This cannot be reversed. The intention can be looked
  up via an exact source/destination match or via the unique intention ID.

      $ peerage intention delete web db`,
  flags: serverFlags,
  async run({ flags, client, print }) {
    const [first, second] = flags.rest;
    if (first === undefined || flags.rest.length > 2) throw new CommandError(EITHER);
    const { intentions } = await client();
    await attempt("Error deleting the intention", () =>
      second === undefined ? intentions.deleteById(first) : intentions.delete({ source: first, destination: second }),
    );
    print("Intention deleted.");
  },
};

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** RFC 850, in UTC. */
function timeText(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${two(date.getUTCDate())}-${MONTHS[date.getUTCMonth()]}-${two(date.getUTCFullYear() % 100)}`;
  const clock = [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()].map(two).join(":");
  return `${DAYS[date.getUTCDay()]}, ${day} ${clock} UTC`;
}

const get: Command = {
  summary: "Show information about an intention.",
  help: `Usage: peerage intention get [options] SRC DST
Usage: peerage intention get [options] ID

  Read and show the details about an intention. The intention can be looked
  up via an exact source/destination match or via the unique intention ID.

      $ peerage intention get web db`,
  flags: serverFlags,
  async run({ flags, client, print, printJson }) {
    const [first, second] = flags.rest;
    if (first === undefined || flags.rest.length > 2) throw new CommandError(EITHER);
    const { intentions } = await client();
    const options = readOptions(flags);
    const { value } = await reading("Error reading the intention", () =>
      second === undefined
        ? intentions.readById(first, options)
        : intentions.read({ source: first, destination: second }, options),
    );
    if (value === undefined) {
      const which =
        second === undefined ? `ID ${JSON.stringify(first)}` : quotedEnds({ source: first, destination: second });
      throw new CommandError(`Intention not found with ${which}`);
    }
    const { Action, ID, Description, Meta, Permissions, CreatedAt } = value;
    const rows = [
      ["Source:", inNamespace(value.SourceNS, value.SourceName)],
      ["Destination:", inNamespace(value.DestinationNS, value.DestinationName)],
      ["Action:", Action],
      ["ID:", ID],
      ["Description:", Description],
      ...Object.entries(Meta)
        .sort(([left], [right]) => (left < right ? -1 : 1))
        .map(([key, text]) => [`Meta[${key}]:`, text]),
      ["Created At:", timeText(CreatedAt ?? NO_TIME)],
    ];
    print(table(rows.filter(([label, text]) => text !== "" || label?.startsWith("Meta["))));
    if (Permissions.length === 0) return;
    print("Permissions:");
    printJson(Permissions, "narrow");
  },
};

const list: Command = {
  summary: "List intentions.",
  help: `Usage: peerage intention list

  List all intentions.`,
  flags: serverFlags,
  async run({ flags, client, print }) {
    const { intentions } = await client();
    const { value } = await attempt("Failed to retrieve the intentions list", () =>
      intentions.list(readOptions(flags)),
    );
    if (value.length === 0) throw new CommandError("There are no intentions.", { exit: 2 });
    const rows = value.map(({ ID, SourceName, Action, DestinationName, Precedence }) => [
      ...[ID, SourceName, Action, DestinationName],
      String(Precedence),
    ]);
    print(table([["ID", "Source", "Action", "Destination", "Precedence"], ...rows]));
  },
};

const match: Command = {
  summary: "Show intentions that match a source or destination.",
  help: `Usage: peerage intention match [options] SRC|DST

  Show the list of intentions that would be enforced for a given source
  or destination. The intentions are listed in the order they would be
  evaluated.

      $ peerage intention match db
      $ peerage intention match -source web`,
  flags: [
    { name: "source", kind: "boolean", usage: "Match intentions with the given source." },
    { name: "destination", kind: "boolean", usage: "Match intentions with the given destination." },
    ...serverFlags,
  ],
  failureCodes: { flags: 2, others: 1 },
  async run({ flags, client, print }) {
    const [name] = flags.rest;
    if (name === undefined || flags.rest.length > 1) {
      throw new CommandError("Error: command requires exactly one argument: src or dst");
    }
    const bySource = flags.boolean("source");
    if (bySource && flags.boolean("destination")) {
      throw new CommandError("Error: only one of -source or -destination may be specified");
    }
    const { intentions } = await client();
    const { value } = await attempt("Error matching the connection", () =>
      intentions.match(bySource ? "source" : "destination", [name], readOptions(flags)),
    );
    const found = Object.hasOwn(value, name) ? (value[name] ?? []) : [];
    print(found.map((intention) => shown({ ...intention, decision: decisionOf(intention) })));
  },
};

export const intentionCommands: CommandGroup = {
  summary: "Interact with Connect service intentions",
  help: `Usage: peerage intention <subcommand> [options] [args]

  This command has subcommands for interacting with intentions. Intentions
  are permissions describing which services are allowed to communicate via
  Connect. Here are some simple examples, and more detailed examples are
  available in the subcommands or the documentation.

  Create an intention to allow "web" to talk to "db":

      $ peerage intention create web db

  Test whether a "web" is allowed to connect to "db":

      $ peerage intention check web db

  List all intentions:

      $ peerage intention list

  Find all intentions for communicating to the "db" service:

      $ peerage intention match db

  For more examples, ask for subcommand help or view the documentation.`,
  commands: { check, create, delete: deleteIntention, get, list, match },
};
