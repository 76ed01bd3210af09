// Consul 1.21.4 kept all that the document promises; that ours keeps it, too, is checked with every answer that any test of the
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
  describe(`the OpenAPI document and the answers of Consul: ${file}`, () => {
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

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly body?: unknown;
  readonly status?: number;
  readonly answer?: { readonly status?: number };
}

/** Null is nothing for every field. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([, member]) => member !== null);
  return Object.fromEntries(kept.map(([key, member]) => [key, withoutNulls(member)]));
}

describe("the bodies in the OpenAPI document", () => {
  const bodyOf = (method: string, path: string): unknown => documentedOperation(method, path)?.body;
  const files = [
    "registrations/1.21.4.jsonl",
    ...readdirSync("test/golden/scripted").map((file) => `scripted/${file}`),
  ];

  /** Other spellings of members, what Consul passes over, and an invalid duration. */
  const untold =
    /: (?:[a-z_]+|Foo) is not in the schema$|Check\.Definition: (?:TTL|OutputMaxSize) is not in|Definition\.Interval: true is no string or integer$/;

  it("fit all that Consul took", () => {
    const problems: string[] = [];
    const tried = new Map<string, number>();
    for (const file of files) {
      const lines = readGolden(file).trimEnd().split("\n");
      for (const sent of lines.map((line): Sent => JSON.parse(line))) {
        const { method = "PUT", path = "/v1/config", body, status = sent.answer?.status } = sent;
        if (status !== 200 || typeof body !== "object" || body === null || "kind" in body) continue;
        // Overrides of a chain are converted to their types.
        if (path.startsWith("/v1/discovery-chain/")) continue;
        const schema = bodyOf(method, path);
        const place = `${method} ${path.replace(/\?.*/s, "")}`;
        tried.set(place, (tried.get(place) ?? 0) + 1);
        const found =
          schema === undefined ? ["the document has no schema for it"] : schemaProblems(withoutNulls(body), schema);
        problems.push(...found.filter((each) => !untold.test(each)).map((problem) => `${place}: ${problem}`));
      }
    }
    assert.deepEqual(problems, []);
    for (const place of ["/v1/config", "/v1/catalog/register", "/v1/agent/service/register"]) {
      assert.ok((tried.get(`PUT ${place}`) ?? 0) > 0, place);
    }
  });

  it("describe each member", () => {
    const refused: readonly (readonly [string, string, unknown])[] = [
      ["PUT", "/v1/catalog/register", { Service: { Proxy: { Upstreams: [{ LocalBindPort: "x" }] } } }],
      ["PUT", "/v1/catalog/register", { Checks: [{ Definition: { Interval: true } }] }],
      ["PUT", "/v1/catalog/deregister", { Node: 1 }],
      ["PUT", "/v1/agent/service/register", { Name: "web", Check: { Header: { a: "b" } } }],
      ["PUT", "/v1/agent/check/register", { Name: "c", TTL: false }],
      ["PUT", "/v1/agent/check/update/c", { Status: 1 }],
      ["PUT", "/v1/txn", [{ Service: { Service: { Weights: { Passing: "1" } } } }]],
      ["PUT", "/v1/config", { Kind: "service-defaults", Name: "web", UpstreamConfig: { Defaults: { Limits: 1 } } }],
      ["PUT", "/v1/config", { Kind: "unknown", Name: "web" }],
      ["POST", "/v1/query", { Service: { Tags: "a" } }],
      ["POST", "/v1/connect/intentions", { SourceName: 1 }],
      ["PUT", "/v1/connect/intentions/exact", { Permissions: [{ Action: 1 }] }],
      ["POST", "/v1/discovery-chain/web", { OverrideMeshGateway: { Mode: 1 } }],
    ];
    for (const [method, path, body] of refused) {
      assert.notDeepEqual(schemaProblems(body, bodyOf(method, path)), [], `${method} ${path} ${JSON.stringify(body)}`);
    }
  });
});

describe("the OpenAPI document", () => {
  it("lists the served operations, itself among them", async () => {
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

  it("takes one of many, goes into lists and maps, and reports unknown keys", () => {
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
