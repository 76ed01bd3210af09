// Writes test/golden/http/versions.jsonl: in what the answers that other versions of Consul gave differ from those of
// 1.21.4, which are replayed. `node --import tsx tools/import-http-versions.ts <fixtures folder>`.
// Indexes, ids, times, addresses, certificates and tokens are passed over, and cases that differ in nothing else.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const BASE = "1.21.4";
const MAX_VALUE = 80;

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
interface Case {
  readonly name: string;
  readonly sameAsVersion?: string;
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: Json;
    readonly bodyText?: string;
  };
}

const fixtures = process.argv[2];
if (fixtures === undefined) throw new TypeError("usage: import-http-versions.ts <fixtures folder>");
const folder = join(fixtures, "http");

function cases(version: string, group: string): readonly Case[] {
  return JSON.parse(readFileSync(join(folder, version, `${group}.json`), "utf8")).cases;
}

function groupsOf(version: string): readonly string[] {
  return readdirSync(join(folder, version)).map((file) => file.replace(/\.json$/, ""));
}

function masked(value: Json, key = ""): Json {
  if (/Index$/.test(key)) return 0;
  if (typeof value === "string") {
    return value
      .replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<uuid>")
      .replace(/127\.0\.0\.\d+/g, "<ip>")
      .replace(/^240\.\d+\.\d+\.\d+$/, "<virtual>")
      .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<time>")
      .replace(/^(pem|token):.*/, "<$1>");
  }
  if (value === null || typeof value !== "object") return value;
  if (isList(value)) return value.map((item) => masked(item));
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, masked(member, name)]));
}

function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

function short(value: Json): string {
  return JSON.stringify(value).slice(0, MAX_VALUE);
}

/** Adds to `found` in what two answers differ. */
function compare(base: Json, other: Json, path: string, found: Set<string>): void {
  if (JSON.stringify(base) === JSON.stringify(other)) return;
  if (base === null || other === null || typeof base !== "object" || typeof other !== "object") {
    found.add(`${path}: ${short(base)} -> ${short(other)}`);
  } else if (isList(base) && isList(other)) {
    if (base.length !== other.length) found.add(`${path} has ${base.length} -> ${other.length} items`);
    else for (const [index, item] of base.entries()) compare(item, other[index] ?? null, `${path}[]`, found);
  } else if (isList(base) || isList(other)) {
    found.add(`${path}: ${short(base)} -> ${short(other)}`);
  } else {
    for (const key of new Set([...Object.keys(base), ...Object.keys(other)])) {
      const [before, after] = [base[key], other[key]];
      if (before === undefined) found.add(`${path}.${key} added`);
      else if (after === undefined) found.add(`${path}.${key} gone`);
      else compare(before, after, `${path}.${key}`, found);
    }
  }
}

function answerOf({ response }: Case): Json {
  const { status, headers, body, bodyText = "" } = response;
  const { Date: _date, "X-Consul-Index": _index, ...kept }: Readonly<Record<string, string>> = headers;
  return { status, headers: kept, body: body ?? bodyText };
}

const lines: string[] = [];
for (const version of readdirSync(folder).filter((name) => name !== BASE)) {
  for (const group of groupsOf(version)) {
    const base = cases(BASE, group);
    for (const recorded of cases(version, group)) {
      if (recorded.sameAsVersion !== undefined) continue;
      // A name may stand for several requests in a row; the one that is most alike is the same.
      const candidates = base.filter(({ name }) => name === recorded.name);
      const differences = candidates.map((candidate) => {
        const found = new Set<string>();
        compare(masked(answerOf(candidate)), masked(answerOf(recorded)), "answer", found);
        return [...found];
      });
      const [least = ["not recorded of the base"]] = differences.sort((left, right) => left.length - right.length);
      if (least.length > 0)
        lines.push(JSON.stringify({ version, group, name: recorded.name, differs: least.slice(0, 6) }));
    }
  }
}
writeFileSync("test/golden/http/versions.jsonl", `${lines.join("\n")}\n`);
