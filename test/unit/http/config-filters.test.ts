// Filters over config entries and intentions, where Consul's answers are not ours: it refuses the field, or drops the connection.
// Their common behaviour is recorded (`filters` of scripted.test.ts).
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { compileFilter } from "../../../src/http/filter/filter.js";
import { shapeFields } from "../../../src/http/shape-fields.js";
import type { Shape } from "../../../src/model/shapes.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";

describe("a field that is added to the shape of a config entry", () => {
  const text = { as: "text" } as const;
  const shape: Shape = {
    Note: text,
    JWT: text,
    Kept: { as: "uint32", kept: "extra" },
    Always: { as: { many: "one", shape: { Inner: text } }, kept: "extra" },
    Pointer: { as: { many: "one", shape: { Inner: text, Limit: { as: "int", pointer: true } } }, pointer: true },
    List: { as: { many: "list", shape: { Inner: text } }, kept: "extra" },
    Map: { as: { many: "map", shape: { Inner: text } }, kept: "extra" },
    Any: { as: "json", kept: "extra" },
  };
  const fields = shapeFields<object>(shape, (entry) => entry);
  const full = {
    ...{ note: "a", jwt: "b", pointer: { inner: "c", limit: 0 } },
    extra: { Kept: 5, Always: { Inner: "d" }, List: [{ Inner: "e" }], Map: { k: { Inner: "f" } }, Any: { a: 1 } },
  };
  const holds = (expression: string, entry: object): boolean => compileFilter(expression, fields).holds(entry);

  for (const [expression, ofFull, ofEmpty] of [
    ["Note == a", true, false],
    ["Note != a", false, true],
    ["JWT == b", true, false],
    ["Kept == 5", true, false],
    ["Kept == 0", false, true],
    ["Always.Inner == d", true, false],
    ["Always.Inner != d", false, true],
    ["Pointer.Inner == c", true, false],
    ["Pointer.Inner != c", false, false],
    ["Pointer.Limit == 0", true, false],
    ["Pointer.Limit != 0", false, false],
    ["List.Inner == e", true, false],
    ["List.Inner != x", true, false],
    ["List is empty", false, true],
    ["Map.k.Inner == f", true, false],
    ["Map.k.Inner != f", false, true],
    ["k in Map", true, false],
  ] as const) {
    it(`is found by ${expression}`, () => {
      assert.deepEqual([holds(expression, full), holds(expression, {})], [ofFull, ofEmpty]);
    });
  }

  it("cannot be named where it has no fixed form", () => {
    assert.throws(() => compileFilter("Any is empty", fields), /Selector "Any" is not valid/);
    assert.throws(() => compileFilter("extra.Kept == 5", fields), /Selector "extra" is not valid/);
  });

  it("takes the numbers that fit its type alone", () => {
    assert.throws(
      () => compileFilter("Kept == 4294967296", fields),
      /ParseUint: parsing "4294967296": value out of range/,
    );
    assert.throws(() => compileFilter("Kept == -1", fields), /ParseUint: parsing "-1": invalid syntax/);
  });
});

describe("filters over HTTP", () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start(1);
    const { a } = pair;
    const limits = { Limits: { MaxConnections: 3 } };
    const http = { PathPrefix: "/a", Methods: ["GET"], Header: [{ Name: "h", Exact: "v" }] };
    const jwt = { Providers: [{ Name: "auth", VerifyClaims: [{ Path: ["aud"], Value: "x" }] }] };
    for (const body of [
      { Kind: "service-defaults", Name: "bare" },
      { Kind: "service-defaults", Name: "part", UpstreamConfig: { Overrides: [{ Name: "db" }] } },
      {
        Kind: "service-defaults",
        Name: "full",
        UpstreamConfig: { Overrides: [{ Name: "db", ...limits }], Defaults: limits },
      },
      { Kind: "service-defaults", Name: "dest", Destination: { Addresses: ["a.example"], Port: 443 } },
      { Kind: "service-defaults", Name: "web", Protocol: "http" },
      { Kind: "jwt-provider", Name: "auth", JSONWebKeySet: { Local: { JWKS: "e30=" } } },
      {
        ...{ Kind: "service-intentions", Name: "web", JWT: jwt, Meta: { k: "v" } },
        Sources: [{ Name: "api", Permissions: [{ Action: "allow", HTTP: http, JWT: jwt }] }],
      },
    ]) {
      assert.deepEqual(await ask(a, "PUT", "/v1/config", body), [200, true]);
    }
    const body = { SourceName: "old", DestinationName: "db", Action: "allow" };
    const [status] = await ask(a, "POST", "/v1/connect/intentions", body);
    assert.equal(status, 200);
  });
  after(async () => {
    await pair[Symbol.asyncDispose]();
  });

  async function ask(served: ServedHost, method: string, path: string, body?: unknown): Promise<[number, unknown]> {
    const { status, text } = await served.ask(method, path, body === undefined ? {} : { body: JSON.stringify(body) });
    return [status, status === 200 ? JSON.parse(text) : text];
  }

  async function found(path: string, member: string, expression: string): Promise<readonly unknown[]> {
    const [status, body] = await ask(pair.a, "GET", `${path}?filter=${encodeURIComponent(expression)}`);
    assert.ok(status === 200 && Array.isArray(body), `${expression}: ${status} ${String(body)}`);
    return body.map((item) => Object(item)[member]);
  }

  // Consul 1.21.4 drops the connection for each of these.
  for (const [expression, names] of [
    ["UpstreamConfig.Overrides.Name == db", ["full", "part"]],
    ["UpstreamConfig.Overrides.Name != x", ["full", "part"]],
    ["UpstreamConfig.Overrides.Name == x", []],
    ["UpstreamConfig.Overrides is empty", []],
    ["UpstreamConfig.Overrides is not empty", ["full", "part"]],
    ["not UpstreamConfig.Overrides is not empty", ["bare", "dest", "web"]],
    ["UpstreamConfig.Overrides.Limits.MaxConnections == 3", ["full"]],
    ["UpstreamConfig.Overrides.Limits.MaxConnections != 3", []],
    ["UpstreamConfig.Overrides.Limits.MaxPendingRequests == 0", []],
    ["UpstreamConfig.Overrides.PassiveHealthCheck.Interval != 1", []],
    ["UpstreamConfig.Defaults.Limits.MaxConnections == 3", ["full"]],
    ['UpstreamConfig.Defaults.Protocol == ""', ["full"]],
    ["UpstreamConfig.Defaults.Protocol != x", ["full"]],
    ["Destination.Port == 443", ["dest"]],
    ["Destination.Port != 5", ["dest"]],
    ["Destination.Addresses is empty", []],
    ["x not in Destination.Addresses", ["dest"]],
    ["RateLimits.InstanceLevel.RequestsPerSecond == 0", []],
    ["RateLimits.InstanceLevel.Routes is empty", []],
  ] as const) {
    it(`find no entry without the object that ${expression} looks into`, async () => {
      assert.deepEqual(await found("/v1/config/service-defaults", "Name", expression), names);
    });
  }

  // Consul 1.21.4 refuses each of these.
  for (const [expression, names] of [
    ["CreateIndex == 0", []],
    ["CreateIndex != 0 and Name == bare", ["bare"]],
    ["ModifyIndex != 0 and Name == bare", ["bare"]],
    ["MaxRequestHeadersKB == 1", []],
  ] as const) {
    it(`know what the JSON of config entries shows: ${expression}`, async () => {
      assert.deepEqual(await found("/v1/config/service-defaults", "Name", expression), names);
    });
  }

  for (const [expression, names] of [
    ["Permissions.HTTP.PathPrefix == `/a`", ["api"]],
    ["Permissions.HTTP.PathPrefix != `/a`", []],
    ["Permissions.HTTP.Methods contains GET", ["api"]],
    ["Permissions.HTTP.Header.Name == h", ["api"]],
    ["Permissions.JWT.Providers.Name == auth", ["api"]],
    ["Permissions.Action == allow", ["api"]],
    ["Permissions is empty", ["old"]],
    ["JWT.Providers.Name == auth", ["api"]],
    ["JWT.Providers.VerifyClaims.Path contains aud", ["api"]],
    ["JWT.Providers.Name != x", ["api"]],
    ["JWT.Providers is empty", []],
    ["CreatedAt matches `^20`", ["old"]],
    ['UpdatedAt == ""', ["api"]],
    ["CreateIndex == 0", []],
    ["ModifyIndex != 0", ["api", "old"]],
  ] as const) {
    it(`know what the JSON of intentions shows: ${expression}`, async () => {
      assert.deepEqual(await found("/v1/connect/intentions", "SourceName", expression), names);
    });
  }

  it("are passed over by the list of peerings, as in Consul 1.21.4", async () => {
    const [status] = await ask(pair.a, "POST", "/v1/peering/token", { PeerName: "west" });
    assert.equal(status, 200);
    for (const filter of ["Name == other", "Nope == 1", "(("]) {
      const [answered, body] = await ask(pair.a, "GET", `/v1/peerings?filter=${encodeURIComponent(filter)}`);
      assert.equal(answered, 200);
      assert.deepEqual(
        (body as readonly unknown[]).map((peering) => Object(peering).Name),
        ["west"],
      );
    }
  });

  it("are parameters in the document of the operations that take them alone", async () => {
    const [, document] = await ask(pair.a, "GET", "/v1/openapi.json");
    const takesFilter = (path: string): boolean =>
      Object(document).paths[path].get.parameters.some((parameter: object) => Object(parameter).name === "filter");
    assert.equal(takesFilter("/v1/config/{kind}"), true);
    assert.equal(takesFilter("/v1/connect/intentions"), true);
    assert.equal(takesFilter("/v1/config/{kind}/{name}"), false);
    assert.equal(takesFilter("/v1/peerings"), false);
  });
});
