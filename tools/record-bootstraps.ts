// Has Consul's own program answer the command lines of `test/support/bootstrap-cases.ts` at a server of it whose node is `n1`, and keeps the answers:
// `node --import tsx tools/record-bootstraps.ts <consul> <address of the server>`. With `--compare` nothing is kept: the answers of Consul's
// program and of ours at that server, which may be one of ours, are compared with the recorded ones.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { isDeepStrictEqual } from "node:util";
import { readGolden } from "../test/golden/read.js";
import {
  BOOTSTRAPS,
  type BootstrapAnswer,
  bootstrapAnswer,
  bootstrapCases,
  type RunsEnvoyCommand,
  writeBootstrapFiles,
} from "../test/support/bootstrap-cases.js";
import { runPeerage } from "../test/support/command-line.js";

const args = process.argv.slice(2);
const [consul, address] = args.filter((arg) => !arg.startsWith("-"));
if (consul === undefined || address === undefined) {
  throw new TypeError("usage: record-bootstraps.ts <consul> <address> [--compare]");
}
const theirs: RunsEnvoyCommand = async (given, environment) => {
  const child = spawn(consul, given, { env: environment, stdio: ["ignore", "pipe", "ignore"] });
  const [stdout, [exit]] = await Promise.all([text(child.stdout), once(child, "exit") as Promise<[number]>]);
  return { exit, stdout };
};
const ours: RunsEnvoyCommand = (given, environment) => runPeerage(given, { environment });

const files = await mkdtemp(join(tmpdir(), "bootstraps-"));
await writeBootstrapFiles(files);
if (args.includes("--compare")) await compare(address);
else await record(address);
await rm(files, { recursive: true });

async function record(server: string): Promise<void> {
  const lines: string[] = [];
  for (const given of bootstrapCases) {
    const answer = await bootstrapAnswer(given, server, files, theirs);
    lines.push(`${JSON.stringify(given.name)}: ${JSON.stringify(answer)}`);
  }
  await writeFile(join("test/golden", BOOTSTRAPS), `{\n${lines.join(",\n")}\n}\n`);
}

async function compare(server: string): Promise<void> {
  const recorded: Readonly<Record<string, BootstrapAnswer>> = JSON.parse(readGolden(BOOTSTRAPS));
  let differences = 0;
  for (const given of bootstrapCases) {
    for (const [who, run] of Object.entries({ theirs, ours })) {
      const answer = await bootstrapAnswer(given, server, files, run);
      if (isDeepStrictEqual(answer, recorded[given.name])) continue;
      differences++;
      console.log(`${who}: ${given.name}: ${JSON.stringify(answer)} and not ${JSON.stringify(recorded[given.name])}`);
    }
  }
  console.log(`${bootstrapCases.length} cases, ${differences} differences`);
  process.exitCode = differences > 0 ? 1 : 0;
}
