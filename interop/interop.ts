// CONSUL_BIN=/usr/bin/consul[:/opt/consul-1.18/consul…] npm run interop -- [--only TEXT] [--skip TEXT] [--role dialer|acceptor] [--parallel 5] [--long]
//
// Every scenario against every Consul given, once as the side that dials and once as the side that is dialed. Prints a table
// and exits with 1 when anything failed.
import { parseArgs } from "node:util";
import { errorText } from "../src/base/errors.js";
import { type ConsulBinary, consulBinary } from "./consul.js";
import { Processes } from "./processes.js";
import { ROLES, type Role, type Scenario } from "./scenario.js";
import { scenarios } from "./scenarios/index.js";
import { Stage } from "./stage.js";

/** One that takes longer than this hangs. Those that take minutes by their nature have twice that. */
const LIMIT_MS = 300_000;
/** Of what the processes of a failed scenario printed. */
const SHOWN_OUTPUT = 6_000;
const SHOWN_ERROR = 1_500;

const { values: options } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    skip: { type: "string", multiple: true, default: [] },
    role: { type: "string" },
    parallel: { type: "string", default: "5" },
    long: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
  },
});

interface Job {
  readonly scenario: Scenario;
  readonly binary: ConsulBinary;
  readonly role: Role;
}

interface Outcome {
  readonly passed: boolean;
  readonly seconds: number;
  readonly remarks: string;
}

const key = ({ scenario, binary, role }: Job): string => `${scenario.name} ${binary.path} ${role}`;

async function perform(processes: Processes, job: Job): Promise<Outcome> {
  const { scenario, binary, role } = job;
  const began = performance.now();
  let failure: unknown;
  await using stage = new Stage(processes, binary, role);
  let timer: NodeJS.Timeout | undefined;
  try {
    const late = new Promise<never>((_, reject) => {
      const limitMs = scenario.long === true ? 2 * LIMIT_MS : LIMIT_MS;
      timer = setTimeout(() => reject(new Error(`not over after ${limitMs} ms`)), limitMs);
    });
    await Promise.race([scenario.run(stage), late]);
  } catch (error) {
    failure = error;
  } finally {
    clearTimeout(timer);
  }
  const seconds = (performance.now() - began) / 1_000;
  const passed = failure === undefined;
  const remarks = stage.remarks === "" ? "" : ` (${stage.remarks})`;
  console.log(
    `${passed ? "ok  " : "FAIL"} ${binary.version} ${role}: ${scenario.name} ${seconds.toFixed(1)} s${remarks}`,
  );
  if (!passed) {
    console.log(errorText(failure).slice(0, SHOWN_ERROR));
    if (options.verbose) console.log(stage.output.slice(-SHOWN_OUTPUT));
  }
  return { passed, seconds, remarks: stage.remarks };
}

/** Those that need the machine for themselves one after the other, the others several at a time. */
async function performAll(processes: Processes, jobs: readonly Job[]): Promise<ReadonlyMap<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const work = async (queue: Job[]): Promise<void> => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      outcomes.set(key(job), await perform(processes, job));
    }
  };
  // The long ones stand at the end of the list: begun first, none of them runs on alone after the others.
  const together = jobs.filter(({ scenario }) => scenario.alone !== true).toReversed();
  await Promise.all(Array.from({ length: Math.max(1, Number(options.parallel)) }, () => work(together)));
  await work(jobs.filter(({ scenario }) => scenario.alone === true));
  return outcomes;
}

function printTable(
  columns: readonly Job[],
  outcomes: ReadonlyMap<string, Outcome>,
  chosen: readonly Scenario[],
): void {
  const width = Math.max(...chosen.map(({ name }) => name.length));
  const head = columns.map(({ binary, role }) => `${binary.version} ${role}`);
  const line = (name: string, cells: readonly string[]): string =>
    `| ${name.padEnd(width)} | ${cells.map((cell, index) => cell.padEnd(head[index]?.length ?? 0)).join(" | ")} |`;
  console.log(`\nOur role, by version of the Consul on the other side:\n`);
  console.log(line("", head));
  console.log(
    line(
      "-".repeat(width),
      head.map((text) => "-".repeat(text.length)),
    ),
  );
  for (const scenario of chosen) {
    const cells = columns.map((column) => {
      const outcome = outcomes.get(key({ ...column, scenario }));
      return outcome === undefined ? "-" : `${outcome.passed ? "yes" : "NO"} ${outcome.seconds.toFixed(1)} s`;
    });
    console.log(line(scenario.name, cells));
  }
  for (const scenario of chosen) {
    for (const column of columns) {
      const remarks = outcomes.get(key({ ...column, scenario }))?.remarks ?? "";
      if (remarks !== "") console.log(`${scenario.name}, ${column.binary.version} ${column.role}: ${remarks}`);
    }
  }
}

async function main(): Promise<number> {
  const paths = (process.env["CONSUL_BIN"] ?? "").split(":").filter((path) => path !== "");
  if (paths.length === 0) {
    console.log("skipped: CONSUL_BIN names no Consul to test with (one path, or several separated by `:`)");
    return 0;
  }
  const roles = ROLES.filter((role) => options.role === undefined || options.role === role);
  const chosen = scenarios.filter(
    ({ name, long }) =>
      (options.only.length === 0 || options.only.some((text) => name.includes(text))) &&
      !options.skip.some((text) => name.includes(text)) &&
      (long !== true || options.long),
  );
  if (roles.length === 0 || chosen.length === 0) {
    console.error("nothing to run: no scenario or role is called so");
    return 1;
  }
  const binaries = await Promise.all(paths.map(consulBinary));
  const processes = Processes.untilExit();

  const began = performance.now();
  const outcomes = new Map<string, Outcome>();
  for (const binary of binaries) {
    const jobs = chosen
      .filter(({ bands = ["modern"] }) => bands.includes(binary.band))
      .flatMap((scenario) =>
        roles.filter((role) => (scenario.roles ?? ROLES).includes(role)).map((role) => ({ scenario, binary, role })),
      );
    for (const [name, outcome] of await performAll(processes, jobs)) outcomes.set(name, outcome);
  }
  const columns = binaries.flatMap((binary) => roles.map((role) => ({ binary, role })));
  const [scenario] = chosen;
  if (scenario !== undefined)
    printTable(
      columns.map((column) => ({ ...column, scenario })),
      outcomes,
      chosen,
    );
  const failed = [...outcomes.values()].filter(({ passed }) => !passed).length;
  const seconds = ((performance.now() - began) / 1_000).toFixed(0);
  console.log(`\n${outcomes.size - failed} passed, ${failed} failed, in ${seconds} s`);
  return failed === 0 ? 0 : 1;
}

process.exit(await main());
