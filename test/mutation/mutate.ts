// npm run mutate                         plants every fault, one after another, and prints which check found it
// npm run mutate -- --only nonce,token   those whose name contains one of these
// npm run mutate -- --sample 4           so many of them, evenly spread over the list
// npm run mutate -- --list               prints the list
// --seeds 80  how many seeds the simulator tries; --jobs 2  how many faults are judged at a time
import { parseArgs } from "node:util";
import { type PlantedFault, plantedFaults } from "./faults.js";
import { type Finding, Workshop } from "./workshop.js";

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    sample: { type: "string" },
    list: { type: "boolean", default: false },
    seeds: { type: "string", default: "80" },
    jobs: { type: "string", default: "2" },
  },
});

function chosen(): readonly PlantedFault[] {
  const { only, sample } = options;
  const parts = only?.split(",") ?? [""];
  const named = plantedFaults.filter(({ name }) => parts.some((part) => name.includes(part)));
  const count = sample === undefined ? named.length : Math.min(Number(sample), named.length);
  return Array.from({ length: count }, (_, index) => named[Math.floor((index * named.length) / count)]).flatMap(
    (fault) => fault ?? [],
  );
}

function rowOf(fault: PlantedFault, findings: readonly Finding[]): string {
  const verdict = findings.every(({ found }) => found) ? "caught  " : "SURVIVED";
  const checks = findings.map(({ check, found, how, ms }) => {
    const seconds = `${(ms / 1_000).toFixed(1)} s`;
    return `    ${check}, ${seconds}: ${found ? how : "found nothing"}`;
  });
  return [`${verdict} ${fault.name}: ${fault.what}`, ...checks].join("\n");
}

const faults = chosen();
if (options.list) {
  for (const { name, what, foundBy } of faults) console.log(`${name}: ${what} (${foundBy.join(", ")})`);
} else {
  const folders = ["test"];
  const workshops = await Promise.all(
    Array.from({ length: Math.max(1, Number(options.jobs)) }, () =>
      Workshop.open({ seeds: Number(options.seeds), folders }),
    ),
  );
  const begun = performance.now();
  const survivors: string[] = [];
  /** Checks that fail without a fault, and so prove nothing. */
  const broken = new Set<string>();
  const left: PlantedFault[] = [];
  try {
    for (const check of new Set(faults.flatMap(({ foundBy }) => foundBy))) {
      try {
        const findings = await Promise.all(workshops.map((workshop) => workshop.baseline(check)));
        console.log(`without a fault ${check} passes in ${((findings[0]?.ms ?? 0) / 1_000).toFixed(1)} s`);
      } catch (error) {
        console.log(error instanceof Error ? error.message : String(error));
        broken.add(check);
      }
    }
    left.push(...faults.filter(({ foundBy }) => !foundBy.some((check) => broken.has(check))));
    await Promise.all(
      workshops.map(async (workshop) => {
        for (let fault = left.shift(); fault !== undefined; fault = left.shift()) {
          const findings = await workshop.judge(fault);
          if (!findings.every(({ found }) => found)) survivors.push(fault.name);
          console.log(rowOf(fault, findings));
        }
      }),
    );
  } finally {
    for (const workshop of workshops) await workshop[Symbol.asyncDispose]();
  }
  const minutes = ((performance.now() - begun) / 60_000).toFixed(1);
  const unjudged = faults.filter(({ foundBy }) => foundBy.some((check) => broken.has(check))).map(({ name }) => name);
  console.log(`${faults.length - unjudged.length} faults planted, ${survivors.length} survived, ${minutes} minutes`);
  if (survivors.length > 0) console.log(`survived: ${survivors.join(", ")}`);
  if (unjudged.length > 0) console.log(`not judged, for their checks fail without a fault: ${unjudged.join(", ")}`);
  process.exitCode = survivors.length + unjudged.length === 0 ? 0 : 1;
}
