import type { ConsulClient } from "../client/index.js";
import type { AgentCommandName } from "./agent-commands.js";
import { type Command, CommandError, type CommandGroup, type CommandLineIo, loaded, type Member } from "./command.js";
import { FlagError, flagHelp, parseFlags } from "./flags.js";
import { jsonText, visible } from "./output.js";

const UNKNOWN_COMMAND = 127;

/** Commands of Consul whose part of the API is not served, or which work as they are. */
const NOT_SERVED: Readonly<Record<string, string>> = {
  acl: "tokens and policies are those of the agent's policy file: reading and changing them is not served",
  debug: "no profiles are served: peerage info and /v1/agent/metrics tell of an agent",
  event: "events are not served",
  exec: "remote execution is not served",
  "force-leave": "there is no gossip here, and no other member",
  join: "there is no gossip here: clusters are connected by peerings",
  keyring: "there is no gossip here, and no keyring",
  kv: "the key-value store is not served",
  lock: "sessions and the key-value store are not served",
  login: "auth methods are not served",
  logout: "auth methods are not served",
  monitor: "use consul monitor, which works with this agent, or read its standard error",
  rtt: "there is no gossip here, and no network coordinates",
  resource: "resources are not served",
  snapshot: "snapshots are not served: copy the -data-dir of an agent that does not run",
  tls: "no certificates are made for operators: consul tls works without an agent",
  troubleshoot: "no proxies are run here",
  watch: "use consul watch, which works with this agent",
};

/** One of the commands about the agent itself. */
function ofAgent(name: AgentCommandName): Member {
  return async () => (await import("./agent-commands.js")).agentCommands[name];
}

/** All of them. */
export const commands: CommandGroup = {
  summary: "",
  help: "Usage: peerage [--version] [--help] <command> [<args>]",
  commands: {
    agent: async () => (await import("./agent-command.js")).agentCommand,
    catalog: async () => (await import("./catalog-commands.js")).catalogCommands,
    config: async () => (await import("./config-commands.js")).configCommands,
    connect: async () => (await import("./connect-commands.js")).connectCommands,
    explain: async () => (await import("./explain-command.js")).explainCommands,
    info: ofAgent("info"),
    intention: async () => (await import("./intention-commands.js")).intentionCommands,
    keygen: ofAgent("keygen"),
    leave: ofAgent("leave"),
    maint: ofAgent("maint"),
    members: ofAgent("members"),
    operator: ofAgent("operator"),
    peering: async () => (await import("./peering-commands.js")).peeringCommands,
    proxies: async () => (await import("./proxies-command.js")).proxiesCommand,
    reload: ofAgent("reload"),
    services: async () => (await import("./services-commands.js")).servicesCommands,
    validate: ofAgent("validate"),
    version: async () => (await import("./version-command.js")).versionCommand,
  },
};

/**
 * Runs one command line.
 * @param args - the arguments after the program's name.
 * @returns the exit code: 0 for success; 1 for a failure, which was told on the standard error, with some commands 2, as Consul's;
 *   127 for no such command.
 */
export async function runCommandLine(args: readonly string[], version: string, io: CommandLineIo): Promise<number> {
  if (args[0] === "--version" || args[0] === "-version" || args[0] === "-v") {
    io.stdout(`Peerage v${version}\n`);
    return 0;
  }
  let target: Command | CommandGroup = commands;
  let position = 0;
  for (; "commands" in target; position++) {
    const name = args[position] ?? "";
    const next: Member | undefined = Object.hasOwn(target.commands, name) ? target.commands[name] : undefined;
    const reason = target === commands && Object.hasOwn(NOT_SERVED, name) ? NOT_SERVED[name] : undefined;
    if (reason !== undefined) {
      io.stderr(`peerage ${name}: ${reason}\n`);
      return 1;
    }
    if (next === undefined) {
      const help = await groupHelp(target);
      if (isHelp(name)) io.stdout(`${help}\n`);
      else io.stderr(`${help}\n`);
      if (isHelp(name)) return 0;
      return target === commands && position === 0 ? UNKNOWN_COMMAND : 1;
    }
    target = await loaded(next);
  }
  return runCommand(target, args.slice(position), version, io);
}

function isHelp(argument: string): boolean {
  return argument === "-h" || argument === "-help" || argument === "--help";
}

async function groupHelp({ help, commands: members }: CommandGroup): Promise<string> {
  const width = Math.max(...Object.keys(members).map((name) => name.length)) + 4;
  const lines: string[] = [];
  for (const [name, member] of Object.entries(members)) {
    lines.push(`    ${name.padEnd(width)}${(await loaded(member)).summary}`);
  }
  lines.sort();
  return [`${help}\n`, members === commands.commands ? "Available commands are:" : "Subcommands:", ...lines].join("\n");
}

async function runCommand(
  command: Command,
  args: readonly string[],
  version: string,
  io: CommandLineIo,
): Promise<number> {
  if (args.some(isHelp)) {
    io.stdout(`${command.help}\n\n${flagHelp(command.flags)}\n`);
    return 0;
  }
  let opened: ConsulClient | undefined;
  let exit = 0;
  try {
    const flags = parseFlags(command.flags, args, command.flagsAnywhere);
    await command.run({
      io,
      flags,
      version,
      client: async () => {
        opened ??= await (await import("./connection-flags.js")).connect(flags, io);
        return opened;
      },
      print: (lines) => io.stdout(textOf(lines)),
      printJson: (value, form) => io.stdout(`${jsonText(value, form)}\n`),
      note: (lines) => io.stderr(textOf(lines)),
      exit: (code) => {
        exit = code;
      },
    });
    return exit;
  } catch (error) {
    io.stderr(failureText(error));
    return failureCode(command, error);
  } finally {
    opened?.[Symbol.dispose]();
  }
}

function failureCode({ failureCodes = { flags: 1, others: 1 } }: Command, error: unknown): number {
  if (error instanceof FlagError) return failureCodes.flags;
  return (error instanceof CommandError ? error.exit : undefined) ?? failureCodes.others;
}

/** The one place where lines are written to a terminal. */
function textOf(lines: string | readonly string[]): string {
  return (
    [lines]
      .flat()
      // A tab in front moves nothing but the line that it begins.
      .map((line) => (line.startsWith("\t") ? `\t${visible(line.slice(1))}\n` : `${visible(line)}\n`))
      .join("")
  );
}

function failureText(error: unknown): string {
  if (error instanceof FlagError) return `${textOf(error.message)}${error.usage}\n`;
  if (error instanceof CommandError)
    return textOf([error.message, ...(error.remedy === undefined ? [] : [error.remedy])]);
  // A bug of ours: a report needs the place.
  return textOf((error instanceof Error ? (error.stack ?? error.message) : String(error)).split("\n"));
}
