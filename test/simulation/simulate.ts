// npm run simulate -- --seed N [--hosts 2..5] [--steps N]     replays one run and prints its trace
// npm run simulate -- --runs N [--from N] [--until-failure]    tries N seeds and prints those that fail, or the first
import { parseArgs } from "node:util";
import { type SimulationResult, simulate } from "../../src/testing/index.js";

const { values: options } = parseArgs({
  options: {
    seed: { type: "string" },
    hosts: { type: "string" },
    steps: { type: "string" },
    runs: { type: "string", default: "100" },
    from: { type: "string", default: "1" },
    "until-failure": { type: "boolean", default: false },
  },
});

const shape = {
  ...(options.hosts === undefined ? {} : { hosts: Number(options.hosts) }),
  ...(options.steps === undefined ? {} : { steps: Number(options.steps) }),
};

/** Consequences of the first ones are seldom worth reading. */
const MAX_FAILURES = 10;

function report(result: SimulationResult): void {
  for (const failure of result.failures.slice(0, MAX_FAILURES)) console.error(`seed ${result.seed}: ${failure}`);
}

if (options.seed !== undefined) {
  const result = await simulate({ seed: Number(options.seed), ...shape, onTrace: (line) => console.log(line) });
  report(result);
  console.log(`seed ${result.seed}: trace ${result.digest}, ${(result.virtualMs / 1_000).toFixed(0)} virtual seconds`);
  process.exitCode = result.failures.length === 0 ? 0 : 1;
} else {
  const counts: Record<string, number> = {};
  let failed = 0;
  let virtualMs = 0;
  const from = Number(options.from);
  let tried = 0;
  for (; tried < Number(options.runs) && !(failed > 0 && options["until-failure"]); tried++) {
    const seed = from + tried;
    const result = await simulate({ seed, ...shape });
    report(result);
    if (result.failures.length > 0) failed++;
    virtualMs += result.virtualMs;
    for (const [kind, count] of Object.entries(result.counts)) counts[kind] = (counts[kind] ?? 0) + count;
  }
  console.log(`${tried} runs, ${failed} failed, ${(virtualMs / 3_600_000).toFixed(1)} virtual hours`);
  console.log(JSON.stringify(counts));
  if (failed > 0) console.log("npm run simulate -- --seed N replays one of them");
  process.exitCode = failed === 0 ? 0 : 1;
}
