// npm run mutate:table                            changes every cell of the table of the state machine, one after another
// npm run mutate:table -- --only delete-requested  those whose name contains this; several separated by commas
// npm run mutate:table -- --sample 20              so many of them, evenly spread
// npm run mutate:table -- --list                   prints them, and the cells that no host reaches
// --seeds 40  how many seeds the simulator tries where the host test finds nothing
import { parseArgs } from "node:util";
import { cells, mutants, TABLE_TEST, type TableMutant, tripwire } from "./table.js";
import { Workshop } from "./workshop.js";

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    sample: { type: "string" },
    list: { type: "boolean", default: false },
    seeds: { type: "string", default: "40" },
  },
});
const SIMULATOR = "simulator";
/** Those that go furthest with peerings. */
const HOST_TESTS = ["table", "races", "deletion", "dialing", "accepting", "lifecycle", "restart", "bad-input"];

function chosen(): readonly TableMutant[] {
  const parts = options.only?.split(",") ?? [""];
  const named = mutants().filter(({ fault }) => parts.some((part) => fault.name.includes(part)));
  const count = options.sample === undefined ? named.length : Math.min(Number(options.sample), named.length);
  return Array.from({ length: count }, (_, index) => named[Math.floor((index * named.length) / count)]).flatMap(
    (mutant) => mutant ?? [],
  );
}

/** Checks that reach a cell which, as the table says, no host reaches. */
async function reaching(workshop: Workshop): Promise<readonly string[]> {
  const reached: string[] = [];
  for (const check of [SIMULATOR, ...HOST_TESTS.map((name) => `test/unit/host/${name}.test.ts`)]) {
    const [finding] = await workshop.judge({ ...tripwire, foundBy: [check] });
    if (finding?.found === true) reached.push(`${check}: ${finding.how}`);
  }
  return reached;
}

if (options.list) {
  for (const { fault } of mutants()) console.log(fault.name);
  for (const { event, column, role, cell } of cells()) {
    const why = cell.unreachable ?? cell.redundant;
    if (why !== undefined) console.log(`${event}/${column}/${role ?? "both"} is not changed: ${why}`);
  }
} else {
  await using workshop = await Workshop.open({ seeds: Number(options.seeds), folders: ["test"] });
  const begun = performance.now();
  for (const check of [TABLE_TEST, SIMULATOR]) await workshop.baseline(check);
  const survivors: string[] = [];
  const all = chosen();
  for (const { fault } of all) {
    let found: string | undefined;
    for (const check of [TABLE_TEST, SIMULATOR]) {
      const [finding] = await workshop.judge({ ...fault, foundBy: [check] });
      if (finding?.found !== true) continue;
      found = `${check}: ${finding.how}`;
      break;
    }
    if (found === undefined) survivors.push(fault.name);
    console.log(
      `${found === undefined ? "SURVIVED" : "caught  "} ${fault.name}${found === undefined ? "" : `\n    ${found}`}`,
    );
  }
  const reached = options.only === undefined ? await reaching(workshop) : [];
  const minutes = ((performance.now() - begun) / 60_000).toFixed(1);
  console.log(`${all.length} changes, ${survivors.length} survived, ${minutes} minutes`);
  for (const name of survivors) console.log(`survived: ${name}`);
  for (const where of reached) console.log(`a cell that no host is said to reach is reached by ${where}`);
  process.exitCode = survivors.length + reached.length === 0 ? 0 : 1;
}
