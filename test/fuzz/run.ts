// Feeds each parser of what strangers send with so many inputs, and keeps those that are findings as cases.
import { mkdirSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { caseName, fuzz } from "./fuzzer.js";
import { targets } from "./targets.js";

const { values } = parseArgs({
  options: {
    target: { type: "string" },
    inputs: { type: "string", default: "1000000" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    "slow-ms": { type: "string", default: "250" },
    blind: { type: "boolean", default: false },
  },
});
const names = values.target === undefined ? Object.keys(targets) : [values.target];
let failed = 0;
for (const name of names) {
  const target = targets[name];
  if (target === undefined) throw new TypeError(`no target ${name}: ${Object.keys(targets).join(", ")}`);
  const begun = performance.now();
  let shown = 0;
  const report = await fuzz(target, {
    inputs: Number(values.inputs),
    seed: Number(values.seed),
    slowMs: Number(values["slow-ms"]),
    guided: !values.blind,
    progress: (done, blocks, corpus) => {
      if (done - shown < 100_000) return;
      shown = done;
      console.error(`${name}: ${done} inputs, ${blocks} blocks, corpus of ${corpus}`);
    },
  });
  const seconds = (performance.now() - begun) / 1_000;
  const { inputs, refused, blocks, corpus, findings } = report;
  console.log(
    `${name}: ${inputs} inputs in ${seconds.toFixed(1)} s (seed ${values.seed}), ${((100 * refused) / inputs).toFixed(1)} % refused, ` +
      `${blocks} blocks, corpus of ${corpus}, ${findings.length} findings`,
  );
  for (const { input, what } of findings) {
    failed++;
    const directory = `test/fuzz/cases/${name}`;
    mkdirSync(directory, { recursive: true });
    writeFileSync(`${directory}/${caseName(input)}`, input);
    console.log(`  ${directory}/${caseName(input)}: ${what.split("\n").slice(0, 4).join("\n    ")}`);
  }
}
process.exitCode = failed === 0 ? 0 : 1;
