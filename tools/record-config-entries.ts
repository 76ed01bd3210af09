import { mkdirSync, writeFileSync } from "node:fs";
import { configCases } from "../test/support/config-cases.js";
import { comparable, pathRead } from "../test/support/config-recording.js";
import { registrationCases } from "../test/support/registration-cases.js";

/*
 * Asks a Consul server, in which there are no config entries, all of test/support/config-cases.ts and registration-cases.ts, and
 * writes what it answers:
 *   node --import tsx tools/record-config-entries.ts http://127.0.0.1:8500 1.21.4
 */

const [address = "", version = ""] = process.argv.slice(2);

async function ask(method: string, path: string, body?: unknown): Promise<{ status: number; answer: unknown }> {
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const response = await fetch(address + path, { method, headers: { Connection: "close" }, ...sent });
  return { status: response.status, answer: comparable(await response.text()) };
}

const registered: string[] = [];
for (const { path, body, read } of registrationCases) {
  const { status, answer } = await ask("PUT", path, body);
  const stored = status === 200 && read !== undefined ? { stored: (await ask("GET", read)).answer } : {};
  registered.push(JSON.stringify({ path, body, ...(read === undefined ? {} : { read }), status, answer, ...stored }));
}
mkdirSync("test/golden/registrations", { recursive: true });
writeFileSync(`test/golden/registrations/${version}.jsonl`, `${registered.join("\n")}\n`);

const lines: string[] = [];
for (const { method = "PUT", path = "/v1/config", body } of configCases) {
  const { status, answer } = await ask(method, path, body);
  const read = pathRead(method, status, body);
  const stored = read === undefined ? {} : { stored: (await ask("GET", read)).answer };
  lines.push(JSON.stringify({ method, path, ...(body === undefined ? {} : { body }), status, answer, ...stored }));
}
mkdirSync("test/golden/config-entries", { recursive: true });
writeFileSync(`test/golden/config-entries/${version}.jsonl`, `${lines.join("\n")}\n`);
