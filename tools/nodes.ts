// npm run test:nodes                       every test under each version of Node that is supported, one after another
// npm run test:nodes -- 24,26 unit/storage those versions, and the tests whose file matches
// The npm package `node` brings the versions.
import { spawnSync } from "node:child_process";

const [versions = "20,22,24,26", ...filter] = process.argv.slice(2);
const rows = versions.split(",").map((version) => {
  const command = ["--yes", `--package=node@${version}`, "--", "node", "test/run.mjs", ...filter];
  const { status, stdout } = spawnSync("npx", command, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1024 ** 3,
  });
  if (status !== 0) {
    process.exitCode = 1;
    console.log(stdout);
  }
  return `node ${version}: ${stdout.trimEnd().split("\n").at(-1)}`;
});
console.log(rows.join("\n"));
