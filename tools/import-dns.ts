import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/*
 * Brings recorded DNS answers of Consul servers into test/golden/dns, one line a case:
 *   node --import tsx tools/import-dns.ts <folder of recordings> 1.21.4 1.15.4 1.18.2 1.22.0-dev 1.13.8
 * The first version is written out; of the others, what equals it is left out.
 */

interface Recorded {
  readonly name: string;
  readonly type: string;
  readonly transport: string;
  readonly edns: boolean;
  readonly sameAsVersion?: string;
  readonly rcode: string;
  readonly flags: Readonly<Record<string, boolean>>;
  readonly answers?: readonly RecordedRecord[] | "soa";
  readonly authorities?: readonly RecordedRecord[] | "soa";
  readonly additionals?: readonly RecordedRecord[] | "soa";
}

interface RecordedRecord {
  readonly name: string;
  readonly type: string;
  readonly ttl?: number;
  readonly data: unknown;
}

interface Recording {
  readonly consul: string;
  readonly server: string;
  readonly soa: readonly RecordedRecord[];
  readonly cases: readonly Recorded[];
}

function line(recording: Recording, recorded: Recorded): string {
  const section = (records: Recorded["answers"]): readonly string[] => {
    const list = records === "soa" ? recording.soa : (records ?? []);
    return list.map(({ name, type, ttl, data }) => `${name} ${ttl ?? ""} ${type} ${text(data)}`).sort();
  };
  const { name, type, transport, edns, rcode, flags } = recorded;
  const set = Object.keys(flags).filter((flag) => flags[flag]);
  const sections = [section(recorded.answers), section(recorded.authorities), section(recorded.additionals)];
  return JSON.stringify([name, type, edns ? `${transport}+edns` : transport, rcode, set.join(" "), ...sections]);
}

/** The serial of an SOA record is the time. */
function text(data: unknown): string {
  if (typeof data === "string") return data;
  if (typeof data !== "object" || data === null) return JSON.stringify(data);
  const fields = Object.entries(data).map(([key, value]: [string, unknown]) => (key === "serial" ? "time" : value));
  return fields
    .map((value) => (typeof value === "string" && Array.isArray(data) ? JSON.stringify(value) : value))
    .join(" ");
}

const [folder = "", ...versions] = process.argv.slice(2);
mkdirSync("test/golden/dns", { recursive: true });
const base = new Set<string>();
for (const version of versions) {
  const recording: Recording = JSON.parse(readFileSync(join(folder, version, "answers.json"), "utf8"));
  const written = recording.cases.filter(({ sameAsVersion }) => sameAsVersion === undefined);
  const lines = written.map((recorded) => line(recording, recorded)).filter((text) => !base.has(text));
  if (base.size === 0) for (const text of lines) base.add(text);
  const origin = { consul: recording.consul, server: recording.server, file: `dns/${version}/answers.json` };
  writeFileSync(`test/golden/dns/${version}.jsonl`, `${[JSON.stringify(origin), ...lines].join("\n")}\n`);
}
