// What the document promises, Consul 1.21.4 kept; that ours keeps it, too, is checked with every answer that any test of the
// HTTP API gets (`test/support/http-pair.ts`).
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { openApiDocument, openApiOperation } from "../../../src/http/openapi.js";
import { operations } from "../../../src/http/routes.js";
import { readGolden } from "../../golden/read.js";
import { HttpPair } from "../../support/http-pair.js";
import { schemaProblems } from "../../support/json-schema.js";
import { documentedOperation } from "../../support/openapi.js";

interface Case {
  readonly name: string;
  readonly request: { readonly method: string; readonly path: string };
  readonly response: {
    readonly status: number;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly bodyText?: string;
  };
}

/** Members that Consul has and ours leaves out, each with its reason. */
const leftOut: Readonly<Record<string, string>> = {
  Hash: "D-49: no number holds it",
};

function withoutLeftOut(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutLeftOut);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([key]) => leftOut[key] === undefined);
  return Object.fromEntries(kept.map(([key, member]) => [key, withoutLeftOut(member)]));
}

/** Files of recorded cases say where they come from. */
const recorded = readdirSync("test/golden/http")
  .filter((file) => readGolden(`http/${file}`).startsWith('{"origin"'))
  .sort();

for (const file of recorded) {
  describe(`the OpenAPI document and what Consul answered: ${file}`, () => {
    const [, ...lines] = readGolden(`http/${file}`).trimEnd().split("\n");
    const cases: readonly Case[] = lines.map((line) => JSON.parse(line));

    it("every success is of the form that is told", () => {
      const problems: string[] = [];
      for (const { name, request, response } of cases) {
        if (response.status !== 200) continue;
        if (request.method === "OPTIONS" || request.method === "HEAD") continue;
        const operation = documentedOperation(request.method, request.path);
        if (operation === undefined) {
          problems.push(`${name}: nothing serves it`);
          continue;
        }
        const { id, schema, texts } = operation;
        if (texts.includes(response.headers?.["content-type"] ?? "")) continue;
        if (schema === undefined) {
          if ((response.bodyText ?? "") !== "" || response.body !== undefined)
            problems.push(`${name}: ${id} has a body`);
        } else {
          const found = schemaProblems(withoutLeftOut(response.body), schema);
          problems.push(...found.map((problem) => `${name}: ${id}: ${problem}`));
        }
      }
      assert.deepEqual(problems, []);
    });
  });
}

describe("the OpenAPI document", () => {
  it("is what is served, with itself among the operations", async () => {
    await using pair = await HttpPair.start();
    const served: unknown = JSON.parse((await pair.a.ask("GET", "/v1/openapi.json")).text);
    assert.deepEqual(served, openApiDocument([...operations, openApiOperation(operations)]));
  });

  it("has an operation of its own name for every line of the route table", () => {
    const ids = operations.flatMap(({ docs }) => docs.map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(
      operations
        .filter(({ docs, unserved }) => docs.length === 0 && unserved !== true)
        .map(({ method, pattern }) => `${method} ${pattern}`),
      [],
    );
  });
});

describe("the validator", () => {
  const schema = {
    type: "object",
    properties: {
      Name: { type: "string" },
      Index: { type: "integer", minimum: 0 },
      At: { type: "string", format: "date-time" },
    },
    required: ["Name"],
  };
  for (const [value, problem] of [
    [{ Name: "x", Index: 1, At: "2026-01-01T00:00:00.5Z" }, undefined],
    [{}, "body: Name is missing"],
    [{ Name: 1 }, "body.Name: 1 is no string"],
    [{ Name: "x", Index: 1.5 }, "body.Index: 1.5 is no integer"],
    [{ Name: "x", Index: -1 }, "body.Index: too small"],
    [{ Name: "x", At: "now" }, "body.At: no time"],
    [{ Name: "x", Other: 1 }, "body: Other is not in the schema"],
    [[], "body: [] is no object"],
  ] as const) {
    it(`${JSON.stringify(value)}: ${problem ?? "fits"}`, () => {
      assert.deepEqual(schemaProblems(value, schema), problem === undefined ? [] : [problem]);
    });
  }

  it("takes one of many, goes into lists and maps, and knows what it does not know", () => {
    const either = { anyOf: [schema, { type: "null" }] };
    assert.deepEqual(schemaProblems(null, either), []);
    assert.deepEqual(schemaProblems([1, "x"], { type: "array", items: { type: "string" } }), [
      "body[0]: 1 is no string",
    ]);
    const map = { type: "object", additionalProperties: { type: "boolean" } };
    assert.deepEqual(schemaProblems({ a: true, b: 1 }, map), ["body.b: 1 is no boolean"]);
    assert.deepEqual(schemaProblems("c", { type: "string", enum: ["a", "b"] }), ['body: "c" is none of them']);
    assert.throws(() => schemaProblems(1, { oneOf: [] }), TypeError);
  });
});
