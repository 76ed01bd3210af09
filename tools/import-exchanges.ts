// Brings the recorded streams of Consul 1.14 and later into test/golden/exchanges: `node --import tsx
// tools/import-exchanges.ts <fixtures folder>`, after import-frames.ts. Of each stream all that both sides sent, in
// order, as references to the messages in test/golden/frames, and how it ended.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

type Line = Readonly<Record<string, unknown>>;

const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-exchanges.ts <fixtures folder>");
const VERSIONS = ["1.15.4", "1.18.2", "1.21.4", "1.22.0-dev"];
const BASE = "1.21.4";

function parsed(text: string): readonly Line[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** Where test/golden/frames has these bytes. */
const frames = new Map<string, string>();
for (const file of readdirSync("test/golden/frames")) {
  if (!file.endsWith(".jsonl")) continue;
  for (const { origin, raw, message } of parsed(readFileSync(join("test/golden/frames", file), "utf8"))) {
    if (message === undefined) frames.set(String(raw), String(origin));
  }
}

const recordings = new Map<string, ReadonlyMap<number, Line>>();
function recording(version: string, scenario: string): ReadonlyMap<number, Line> {
  const place = join("wire", version, `${scenario}.jsonl`);
  let lines = recordings.get(place);
  if (lines === undefined) {
    lines = new Map(parsed(readFileSync(join(fixtures ?? "", place), "utf8")).map((line) => [Number(line["i"]), line]));
    recordings.set(place, lines);
  }
  return lines;
}

/** The frame of a message; for one that was not kept, of a message that says the same. Undefined: too long to be kept. */
function frameOf(line: Line, version: string, scenario: string): string | undefined {
  if (typeof line["raw"] === "string") return frames.get(line["raw"]);
  const reference = line["sameAs"] ?? line["like"];
  if (reference === undefined) return undefined;
  const [elsewhere = version, at] = typeof reference === "string" ? reference.split("#") : [version, reference];
  const target = recording(elsewhere, scenario).get(Number(at));
  return target === undefined ? undefined : frameOf(target, elsewhere, scenario);
}

for (const version of [BASE, ...VERSIONS.filter((one) => one !== BASE)]) {
  const written: string[] = [];
  for (const file of readdirSync(join(fixtures, "wire", version)).sort()) {
    const scenario = file.replace(/\.jsonl$/, "");
    const lines = [...recording(version, scenario).values()];
    const recorder = lines[0]?.["recorder"];
    const streams: { readonly events: unknown[]; about: string }[] = [];
    const open = new Map<unknown, { readonly events: unknown[]; about: string }>();
    let about = "";
    for (const line of lines) {
      const { type, from, rpc, message, stream, i, grpcStatus, grpcMessage } = line;
      if (type === "note") about = String(line["text"]);
      if (stream === undefined || message !== undefined || (rpc !== undefined && rpc !== "StreamResources")) continue;
      let at = open.get(stream);
      const isEnd = type === "half-close" || grpcStatus !== undefined || type === "reset";
      if (type !== "message" && !isEnd) continue;
      if (at === undefined) {
        at = { about: "", events: [] };
        open.set(stream, at);
        streams.push(at);
      }
      const { events } = at;
      if (at.about !== about) {
        at.about = about;
        events.push({ about });
      }
      if (type === "message") {
        const frame = frameOf(line, version, scenario);
        // A message whose bytes were not kept holds its place.
        events.push(frame === undefined ? { i, from } : { i, from, frame });
      } else if (grpcStatus !== undefined) {
        events.push({ i, from, end: "status", code: grpcStatus, message: grpcMessage ?? "" });
      } else {
        events.push({ i, from, end: type });
      }
    }
    for (const { events } of streams) {
      written.push(JSON.stringify({ origin: `${version}/${scenario}`, recorder, events }));
    }
  }
  writeFileSync(join("test/golden/exchanges", `${version}.jsonl`), `${written.join("\n")}\n`);
  console.log(`${version}: ${written.length} streams, ${written.join("\n").length} bytes`);
}
