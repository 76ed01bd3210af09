import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseDuration } from "../../../src/syntax/go-duration.js";
import { apiEntry, entryTypes } from "../../support/api-values.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";

/** Where in `shown` something of `given` is missing or another; undefined: nowhere. */
function missing(given: unknown, shown: unknown, path: string): string | undefined {
  if (isEmpty(given) || path.endsWith(".Status")) return undefined;
  if (Array.isArray(given)) {
    // Consul takes the only item out of a list in what it knows no type of.
    if (!Array.isArray(shown)) return given.length === 1 ? missing(given[0], shown, path) : path;
    if (shown.length !== given.length) return path;
    return first(given.map((item, index) => missing(item, shown[index], `${path}[${index}]`)));
  }
  if (typeof given === "object") {
    const members = new Map<string, unknown>(Object.entries(shown ?? {}));
    return first(Object.entries(given ?? {}).map(([key, item]) => missing(item, members.get(key), `${path}.${key}`)));
  }
  return given === shown || canonical(given) === canonical(shown) ? undefined : path;
}

function first(found: readonly (string | undefined)[]): string | undefined {
  return found.find((each) => each !== undefined);
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === "" || value === 0 || value === false) return true;
  return typeof value === "object" && Object.values(value).every(isEmpty);
}

/** Durations are one however they are written; so are protocols and methods. */
function canonical(value: unknown): string {
  if (typeof value === "number") return String(value);
  const milliseconds = parseDuration(String(value));
  return milliseconds === undefined ? String(value).toLowerCase() : String(Math.round(milliseconds * 1e6));
}

function withoutIndexes(entry: object): object {
  return Object.fromEntries(Object.entries(entry).filter(([key]) => key !== "CreateIndex" && key !== "ModifyIndex"));
}

function nameOf(entry: object): string {
  return "Name" in entry ? String(entry.Name) : "mesh";
}

async function written(served: ServedHost, entry: object): Promise<object | undefined> {
  const { Kind = "" } = Object.fromEntries(Object.entries(entry));
  const answer = await served.ask("PUT", "/v1/config", { body: JSON.stringify(entry) });
  if (answer.status !== 200) return undefined;
  assert.equal(answer.text, "true");
  const read = await served.ask("GET", `/v1/config/${Kind}/${nameOf(entry)}`);
  assert.equal(read.status, 200, read.text);
  return JSON.parse(read.text);
}

const VALUES = 30;

describe("what Consul's own Go client can express", { timeout: 120_000 }, () => {
  for (const kind of Object.keys(entryTypes)) {
    it(`of ${kind} comes back, and is the same when it is written again`, async () => {
      await using pair = await HttpPair.start();
      await written(pair.a, { Kind: "proxy-defaults", Name: "global", Config: { protocol: "http" } });
      let taken = 0;
      await fc.assert(
        fc.asyncProperty(apiEntry(kind), async (entry) => {
          const shown = await written(pair.a, entry);
          if (shown === undefined) return;
          taken++;
          assert.equal(missing(sortedSources(entry), sortedSources(shown), kind), undefined, JSON.stringify(shown));
          const again = await written(pair.a, shown);
          assert.ok(again);
          assert.deepEqual(withoutIndexes(again), withoutIndexes(shown));
          const path = `/v1/config/${kind}/${nameOf(entry)}`;
          if (kind.endsWith("-gateway")) await pair.a.ask("DELETE", path);
        }),
        { numRuns: VALUES },
      );
      assert.ok(taken > VALUES / 5, `only ${taken} of ${VALUES} were taken`);
    });
  }
});

/** Sources are in the order of their precedence when they come back. */
function sortedSources(entry: object): object {
  if (!("Sources" in entry) || !Array.isArray(entry.Sources)) return entry;
  const id = ({ Peer = "", Name }: { Peer?: string; Name: string }): string => `${Peer}/${Name}`;
  return { ...entry, Sources: [...entry.Sources].sort((left, right) => (id(left) < id(right) ? -1 : 1)) };
}
