// Brings the recorded streams of Consul 1.13 into test/golden/legacy:
// `node --import tsx tools/import-legacy-streams.ts <fixtures folder>`. Of each stream all that Consul sent, in order;
// bytes that came before are a reference to the line that has them.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

type Line = Readonly<Record<string, unknown>>;

const VERSION = "1.13.8";
const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-legacy-streams.ts <fixtures folder>");

function linesOf(version: string, scenario: string): readonly Line[] {
  const text = readFileSync(join(fixtures ?? "", "wire", version, `${scenario}.jsonl`), "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** The bytes of a message, wherever the recordings keep them. */
function rawOf(line: Line, scenario: string, version: string): string {
  if (typeof line["raw"] === "string") return line["raw"];
  const { sameAs } = line;
  const [elsewhere, at] = typeof sameAs === "string" ? sameAs.split("#") : [version, sameAs];
  const target = linesOf(elsewhere ?? version, scenario).find(({ i }) => i === Number(at));
  if (target === undefined) throw new TypeError(`${version}/${scenario}#${line["i"]} has no bytes`);
  return rawOf(target, scenario, elsewhere ?? version);
}

const known = new Map<string, string>();
const written: { readonly origin: string; readonly recorder: unknown; readonly events: readonly unknown[] }[] = [];
for (const file of readdirSync(join(fixtures, "wire", VERSION)).sort()) {
  const scenario = file.replace(/\.jsonl$/, "");
  const lines = linesOf(VERSION, scenario);
  const recorder = lines[0]?.["recorder"];
  // A call's number comes again with the next peering of a scenario, after its end.
  const open = new Map<unknown, unknown[]>();
  for (const line of lines) {
    const { type, from, rpc, stream, i, grpcStatus, grpcMessage } = line;
    if (from !== "consul" || (rpc !== undefined && rpc !== "StreamResources")) continue;
    let events = open.get(stream);
    if (events === undefined) {
      events = [];
      open.set(stream, events);
      written.push({ origin: `${VERSION}/${scenario}`, recorder, events });
    }
    if (type === "message") {
      const raw = rawOf(line, scenario, VERSION);
      const before = known.get(raw);
      events.push(before === undefined ? { i, raw } : { i, sameAs: before });
      if (before === undefined) known.set(raw, `${VERSION}/${scenario}#${i}`);
    } else if (type === "half-close") {
      events.push({ i, end: "half-close" });
      open.delete(stream);
    } else if (grpcStatus !== undefined) {
      events.push({ i, end: "status", code: grpcStatus, message: grpcMessage ?? "" });
      open.delete(stream);
    }
  }
}

const said = written.filter(({ events }) => events.length > 0);
const text = said.map((stream) => `${JSON.stringify(stream)}\n`).join("");
writeFileSync(join("test/golden/legacy", `${VERSION}.jsonl`), text);
console.log(`${said.length} streams, ${text.length} bytes`);
