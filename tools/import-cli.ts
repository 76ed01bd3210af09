// Brings recorded command lines into test/golden/cli: `node --import tsx tools/import-cli.ts <fixtures folder>`.
// Of 1.21.4 all are kept; of 1.22 those whose output differs in more than ids, times, addresses and indexes. 1.18.2 differs
// in nothing. 1.15.4 and 1.13.8 are left out: they have no `exported-services`, and 1.13.8 another API.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Recorded {
  readonly origin: string;
  readonly args: readonly string[];
  readonly server: string;
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-cli.ts <fixtures folder>");
const base = "1.21.4";
// In the order they were recorded: later ones depend on earlier ones.
const files = ["generate-token", "establish", "list", "read", "exported-services", "delete"];

const block =
  /^\$ consul ([^\n]*?) {3}# at server (\w+)\n\[exit (\d+)\]\n\[stdout\]\n(.*?)\[stderr\]\n(.*?)\[end\]\n/gms;

function recorded(version: string, file: string): readonly Recorded[] {
  const text = readFileSync(join(String(fixtures), "cli", version, `${file}.txt`), "utf8");
  return [...text.matchAll(block)].map(([, command = "", server = "", exit, stdout = "", stderr = ""], index) => ({
    origin: `${version}/${file}.txt #${index + 1}`,
    args: command.split(" "),
    server,
    exit: Number(exit),
    stdout,
    stderr,
  }));
}

function withoutVarying({ exit, stdout, stderr }: Recorded): string {
  return `${exit}\n${stdout}\n${stderr}`
    .replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "ID")
    .replace(/(?:token|pem):[0-9a-f]{12}/g, "REFERENCE")
    .replace(/\d{4}-\d\d-\d\d[T ][\d:.]+/g, "TIME")
    .replace(/127\.0\.0\.\d+/g, "ADDRESS")
    .replace(/((?:Create|Modify) ?Index"?: ?)\d+/g, "$1N");
}

for (const version of [base, "1.22.0-dev"]) {
  const kept = files.flatMap((file) => {
    const originals = recorded(base, file);
    return recorded(version, file).filter((each, index) => {
      const original = originals[index];
      return version === base || original === undefined || withoutVarying(each) !== withoutVarying(original);
    });
  });
  const lines = kept.map((each) => JSON.stringify(each));
  writeFileSync(`test/golden/cli/${version}.json`, `[\n${lines.join(",\n")}\n]\n`);
}
