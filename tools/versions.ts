// npm run test:versions                                  all of VERSIONS, one after another
// npm run test:versions -- node@24 unit/storage           every test, or those whose file matches, under that version of Node
// npm run test:versions -- typescript@5.9                 the published types, as a user of that compiler reads them
// npm brings the versions.
import { spawnSync } from "node:child_process";

const VERSIONS: readonly string[] = [
  ...["node@20", "node@22", "node@24", "node@26"],
  ...["typescript@5.9", "typescript@latest"],
];

const isVersion = (text: string): boolean => /^(node|typescript)@/.test(text);
const given = process.argv.slice(2);
const versions = given.some(isVersion) ? given.filter(isVersion) : VERSIONS;
const filter = given.filter((text) => !isVersion(text));

function test(version: string): string {
  const [command, ...rest] = version.startsWith("node@")
    ? ["npx", "--yes", `--package=${version}`, "--", "node", "test/run.mjs", ...filter]
    : [process.execPath, "test/run.mjs", "packaging/package"];
  const { status, stdout } = spawnSync(command, rest, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1024 ** 3,
    env: version.startsWith("node@") ? process.env : { ...process.env, TYPESCRIPT: version },
  });
  if (status !== 0) {
    process.exitCode = 1;
    console.log(stdout);
  }
  return `${version}: ${stdout.trimEnd().split("\n").at(-1)}`;
}

console.log(versions.map(test).join("\n"));
