import { agentFlags } from "./agent-options.js";
import type { Command } from "./command.js";
import { consulFlags } from "./consul-flags.js";

export const agentCommand: Command = {
  summary: "Runs a Peerage agent",
  help: `Usage: peerage agent [options]

  Runs an agent: a cluster with its catalog, its peerings, the HTTP API, and
  DNS. It runs until it is interrupted, then finishes what it is doing.

  Each option can also be given as an environment variable, PEERAGE_DATA_DIR
  for -data-dir, and in a JSON file named by -config. The options of consul
  agent that have no counterpart here are taken as keys of Consul's
  configuration: they come before its files, and after everything else.

  Example:

    $ peerage agent -dev`,
  flags: [...agentFlags, ...consulFlags],
  // Loaded only to run an agent: the other commands start faster without it.
  run: async (context) => (await import("./agent.js")).runAgent(context),
};
