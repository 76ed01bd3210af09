// Runs a session of `intention` commands with Consul's own program against a fresh server of it:
// `node --import tsx tools/record-intention-cli.ts <consul> <address of the server>`, into test/golden/cli.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { idIn, RECORDED_SESSION, type RecordedSessionLine, session } from "../test/support/intention-command-lines.js";

const [consul, address] = process.argv.slice(2);
if (consul === undefined || address === undefined)
  throw new TypeError("usage: record-intention-cli.ts <consul> <address>");
const recorded: RecordedSessionLine[] = [];
let id = "";
for (const args of session) {
  const { status, stdout, stderr } = spawnSync(
    consul,
    args.map((arg) => arg.replace("{id}", id)),
    { env: { ...process.env, TZ: "UTC", CONSUL_HTTP_ADDR: address }, encoding: "utf8" },
  );
  id = idIn(stdout) ?? id;
  recorded.push({ args, exit: status ?? -1, stdout, stderr });
}
writeFileSync(
  join("test/golden", RECORDED_SESSION),
  `[\n${recorded.map((line) => JSON.stringify(line)).join(",\n")}\n]\n`,
);
