// Has a real Consul answer scripted requests: `node --import tsx tools/record-scripted.ts <script> http://127.0.0.1:8500`,
// into test/golden/scripted. The server must be fresh. Where rights are asked for it has `default_policy = "deny"`, and its
// management token in CONSUL_HTTP_TOKEN.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { recordingOf, ScriptRun } from "../test/support/scripted.js";
import { scripts } from "../test/support/scripts.js";

const [name, consul] = process.argv.slice(2);
const script = scripts.find((each) => each.name === name);
if (script === undefined || consul === undefined) throw new TypeError("usage: record-scripted.ts <script> <address>");
const management = process.env["CONSUL_HTTP_TOKEN"] ?? "";
const tokens = new Map<string, string>();

async function tokenFor(rules: string | undefined): Promise<string> {
  if (rules === undefined) return management;
  if (rules === "") return "";
  const known = tokens.get(rules);
  if (known !== undefined) return known;
  const put = async (path: string, body: unknown): Promise<{ readonly SecretID: string }> => {
    const headers = { "X-Consul-Token": management };
    const answer = await fetch(`${consul}${path}`, { method: "PUT", headers, body: JSON.stringify(body) });
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return JSON.parse(await answer.text());
  };
  const policy = `recorded-${process.pid}-${tokens.size}`;
  await put("/v1/acl/policy", { Name: policy, Rules: rules });
  const { SecretID } = await put("/v1/acl/token", { Policies: [{ Name: policy }] });
  tokens.set(rules, SecretID);
  return SecretID;
}

const run = new ScriptRun(consul, tokenFor);
const lines: string[] = [];
for (const request of script.requests) {
  const answer = await run.send(request);
  lines.push(JSON.stringify({ ...request, answer }));
  console.log(`${answer.status} ${request.about}: ${JSON.stringify(answer.body).slice(0, 200)}`);
}
const file = join("test/golden", recordingOf(script.name));
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, `${lines.join("\n")}\n`);
