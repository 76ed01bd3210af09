// Brings recorded gRPC messages into test/golden/frames: `node --import tsx tools/import-frames.ts <fixtures folder>`.
// Each different message is kept once, with the recording it was first seen in, and where the recorder wrote it for
// exactly these bytes, its proto3 JSON. Certificates stay in that JSON as `pem:` and the start of their SHA-256.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

interface Frame {
  /** `<Consul version>/<scenario>#<line>`. */
  readonly origin: string;
  readonly from: string;
  /** Absent: ReplicationMessage. */
  readonly message?: string;
  /** Base64. */
  readonly raw: string;
  readonly json?: unknown;
  /** The value of the resource is deliberately malformed. */
  readonly decodeError?: string;
}

type Line = Readonly<Record<string, unknown>>;

const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-frames.ts <fixtures folder>");

const byteWise = (left: string, right: string): number => (left < right ? -1 : left > right ? 1 : 0);
const seen = new Map<string, Frame>();
// The base comes first: there every value is written out.
const versions = readdirSync(join(fixtures, "wire")).sort(
  (left, right) => Number(right === "1.21.4") - Number(left === "1.21.4") || byteWise(left, right),
);
for (const version of versions) {
  const folder = join(fixtures, "wire", version);
  for (const file of readdirSync(folder).sort(byteWise)) {
    const scenario = file.replace(/\.jsonl$/, "");
    for (const text of readFileSync(join(folder, file), "utf8").split("\n")) {
      if (text === "") continue;
      const line: Line = JSON.parse(text);
      // `sameAs` repeats a message that is here already.
      const { type, i, from, message, raw, json, decodeError } = line;
      if (type !== "message" || typeof raw !== "string") continue;
      const key = `${message ?? ""} ${raw}`;
      const known = seen.get(key);
      if (known?.json !== undefined || (known !== undefined && json === undefined)) continue;
      seen.set(key, {
        origin: `${version}/${scenario}#${i}`,
        from: String(from),
        ...(typeof message === "string" && { message }),
        raw,
        ...(json !== undefined && { json }),
        ...(typeof decodeError === "string" && { decodeError }),
      });
    }
  }
}

for (const version of versions) {
  const frames = [...seen.values()].filter(({ origin }) => origin.startsWith(`${version}/`));
  const lines = frames.map((frame) => `${JSON.stringify(frame)}\n`).join("");
  writeFileSync(join("test/golden/frames", `${version}.jsonl`), lines);
  console.log(`${version}: ${frames.length} messages, ${lines.length} bytes`);
}
