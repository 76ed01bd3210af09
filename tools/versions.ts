// npm run test:versions                                  all of VERSIONS, one after another
// npm run test:versions -- node@24 unit/storage           every test, or those whose file matches, under that version of Node
// npm run test:versions -- typescript@5.9                 the published types, as a user of that compiler reads them
// npm brings the versions.
import { spawnSync } from "node:child_process";
import { delimiter, dirname } from "node:path";

const VERSIONS: readonly string[] = [
  ...["node@20", "node@22", "node@24", "node@26"],
  ...["typescript@5.9", "typescript@latest"],
];

const isVersion = (text: string): boolean => /^(node|typescript)@/.test(text);
const given = process.argv.slice(2);
const versions = given.some(isVersion) ? given.filter(isVersion) : VERSIONS;
const filter = given.filter((text) => !isVersion(text));

function output(command: string, rest: readonly string[], env: NodeJS.ProcessEnv): { text: string; isGood: boolean } {
  const { status, stdout } = spawnSync(command, rest, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 1024 ** 3,
    env,
  });
  return { text: stdout.trimEnd(), isGood: status === 0 };
}

/** By its path: what npx runs would hand its settings on to each npx in the tests. */
function nodeOf(version: string): string {
  return output("npx", ["--yes", `--package=${version}`, "--", "node", "-p", "process.execPath"], process.env).text;
}

function test(version: string): string {
  const isNode = version.startsWith("node@");
  const node = isNode ? nodeOf(version) : process.execPath;
  const { text, isGood } = output(node, ["test/run.mjs", ...(isNode ? filter : ["packaging/package"])], {
    ...process.env,
    ...(isNode ? { PATH: `${dirname(node)}${delimiter}${process.env["PATH"] ?? ""}` } : { TYPESCRIPT: version }),
  });
  if (!isGood) {
    process.exitCode = 1;
    console.log(text);
  }
  return `${version}: ${text.split("\n").at(-1)}`;
}

console.log(versions.map(test).join("\n"));
