// [CONSUL_BIN=/usr/bin/consul] npm run clients -- [NAME…] [--verbose]
//
// Installs clients that others wrote for Consul, and puts each to work at two peered agents of ours and, where CONSUL_BIN names
// one, at two peered Consuls. Prints a table, and exits with 1 when anything differs that has no reason given.
import { parseArgs } from "node:util";
import { type ConsulBinary, consulBinary } from "../interop/consul.js";
import { Processes } from "../interop/processes.js";
import { errorText } from "../src/base/errors.js";
import type { Client, Outcome } from "./client.js";
import { clients } from "./clients.js";
import { Installation } from "./installation.js";
import { Side } from "./side.js";
import { judge, type Verdict } from "./verdict.js";

const { values: options, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { verbose: { type: "boolean", default: false } },
});

async function atSide(title: string, started: Promise<Side>, client: Client, installation: Installation) {
  let outcomes: readonly Outcome[];
  try {
    await using side = await started;
    await side.peer();
    outcomes = await client.run(installation, side);
  } catch (error) {
    outcomes = [{ check: "runs to its end", passed: false, message: errorText(error) }];
  }
  const passed = outcomes.filter((outcome) => outcome.passed).length;
  console.log(`${client.name} at ${title}: ${passed} of ${outcomes.length} checks passed`);
  if (options.verbose) {
    for (const { check, message, passed: good } of outcomes) console.log(`  ${good ? "ok" : "NO"} ${check} ${message}`);
  }
  return outcomes;
}

/** @returns undefined for one that cannot be built on this machine. */
async function perform(
  client: Client,
  processes: Processes,
  binary: ConsulBinary | undefined,
): Promise<Verdict | undefined> {
  const missing = await client.missing?.(processes);
  if (missing !== undefined) {
    console.log(`${client.name}: skipped, ${missing}`);
    return undefined;
  }
  try {
    const installation = await Installation.of(client, processes);
    const consul =
      binary && (await atSide(`Consul ${binary.version}`, Side.consul(processes, binary), client, installation));
    const peerage = await atSide("Peerage", Side.peerage(processes), client, installation);
    return judge(client, consul, peerage);
  } catch (error) {
    return { consul: "-", peerage: "-", lines: [`WRONG: it cannot be installed: ${errorText(error)}`], failed: true };
  }
}

async function main(): Promise<number> {
  const unknown = names.filter((name) => !clients.some((client) => client.name === name));
  if (unknown.length > 0) {
    console.error(`no client is called ${unknown.join()}; there are ${clients.map(({ name }) => name).join(", ")}`);
    return 1;
  }
  const path = process.env["CONSUL_BIN"] ?? "";
  const binary = path === "" ? undefined : await consulBinary(path);
  const processes = Processes.untilExit();

  const verdicts = new Map<Client, Verdict | undefined>();
  for (const client of clients.filter(({ name }) => names.length === 0 || names.includes(name))) {
    verdicts.set(client, await perform(client, processes, binary));
  }
  console.log(`\n| Client | Packages | ${binary === undefined ? "Consul" : `Consul ${binary.version}`} | Peerage |`);
  console.log("|---|---|---|---|");
  for (const [client, verdict] of verdicts) {
    const { consul = "skipped", peerage = "skipped" } = verdict ?? {};
    console.log(`| ${client.name} | ${client.packages.join(", ")} | ${consul} | ${peerage} |`);
  }
  for (const [client, verdict] of verdicts) {
    for (const line of verdict?.lines ?? []) console.log(`\n${client.name}: ${line}`);
  }
  const judged = [...verdicts.values()].filter((verdict) => verdict !== undefined);
  const failed = judged.filter((verdict) => verdict.failed).length;
  const skipped = verdicts.size - judged.length;
  console.log(`\n${judged.length - failed} passed, ${failed} failed, ${skipped} skipped`);
  return failed === 0 ? 0 : 1;
}

process.exit(await main());
