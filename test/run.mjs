// Runs every compiled test with node's own runner, prints its report, and ends with one plain line of counts.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { run } from "node:test";
import { spec } from "node:test/reporters";

const filter = process.argv.slice(2);
const files = ["test", "interop"]
  .flatMap((folder) => readdirSync(`build/${folder}`, { recursive: true }).map((name) => `${folder}/${name}`))
  .filter((name) => name.endsWith(".test.js") && existsSync(`${name.slice(0, -3)}.ts`))
  .filter((name) => filter.length === 0 || filter.some((part) => name.includes(part)))
  .map((name) => `${process.cwd()}/build/${name}`)
  .sort();
if (files.length === 0) {
  console.error(`no test matches ${filter.join(" ")}`);
  process.exit(1);
}

let passed = 0;
let failed = 0;
let skipped = 0;

if (filter.length === 0) {
  const lint = spawnSync("npx", ["biome", "check", "."], { stdio: "inherit" });
  if (lint.status !== 0) {
    // Counted, so that the closing line never reads better than the exit code.
    failed++;
    process.exitCode = 1;
  }
}

// A test that waits for what never comes must fail, not hang.
const stream = run({ files, concurrency: 2, timeout: 180_000 });
// A suite is only the sum of its tests; a file that dies reports itself as one failed test.
stream.on("test:pass", (event) => {
  if (event.details.type === "suite") return;
  if (event.skip !== undefined) skipped++;
  else passed++;
});
stream.on("test:fail", (event) => {
  if (event.details.type !== "suite") failed++;
  process.exitCode = 1;
});
stream.compose(new spec()).pipe(process.stdout);
stream.on("end", () => {
  process.once("exit", () => {
    console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  });
});
