/*
 * Asks a real Consul what a recording in test/golden/replay asks, and writes its answers there:
 *   consul agent -dev -node agent1
 *   node --import tsx tools/record-replay.ts queries http://127.0.0.1:8500 127.0.0.1:8600
 * The server must be a fresh one. New steps need no answer yet.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { readSteps, replay } from "../test/support/replay.js";
import { ask } from "../test/unit/dns/client.js";

const [name = "", base = "", dns = ""] = process.argv.slice(2);
const path = `test/golden/replay/${name}.jsonl`;
const text = readFileSync(path, "utf8");
const answers: unknown[] = [];
const target = {
  http: async (method: string, where: string, body: string | undefined) => {
    const response = await fetch(base + where, { method, ...(body !== undefined && { body }) });
    const read = await response.text();
    return { status: response.status, text: read, header: (key: string) => response.headers.get(key) ?? undefined };
  },
  dns: (question: string, type: string) => ask(dns, { name: question, type }),
};
for await (const [, answer] of replay(readSteps(text), target)) answers.push(answer);
const lines = text.split("\n").map((line) => {
  if (line === "" || line.startsWith("//")) return line;
  const { answer: _, ours, ...step } = JSON.parse(line);
  return JSON.stringify({ ...step, answer: answers.shift(), ...(ours !== undefined && { ours }) });
});
writeFileSync(path, lines.join("\n"));
