import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Authorizer } from "../../../src/http/index.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";

async function ask(served: ServedHost, method: string, path: string, body?: unknown): Promise<[number, unknown]> {
  const { status, text, headers } = await served.ask(
    method,
    path,
    body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) },
  );
  return [status, headers["content-type"] === "application/json" ? JSON.parse(text) : text];
}

/** A mark that only this writer knows. */
function withoutIndexes(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutIndexes);
  const { CreateIndex: created, ModifyIndex: modified, ...rest } = Object(value);
  assert.ok(created >= 1 && modified >= created);
  return rest;
}

const written = {
  kind: "service-intentions",
  name: "web",
  sources: [
    { name: "*", action: "deny", description: "nobody else" },
    { name: "api", action: "allow", Peer: "p" },
    { name: "loc", action: "allow" },
  ],
  meta: { team: "x" },
};

const common = { SourceNS: "default", DestinationNS: "default", DestinationName: "web", SourceType: "consul" };

describe("intentions over HTTP, as Consul 1.21.4 answered", () => {
  it("are entries with precedence and type", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    assert.deepEqual(await ask(a, "PUT", "/v1/config", written), [200, true]);
    const [, entry] = await ask(a, "GET", "/v1/config/service-intentions/web");
    assert.deepEqual(withoutIndexes(entry), {
      Kind: "service-intentions",
      Name: "web",
      Sources: [
        { Name: "api", Action: "allow", Precedence: 9, Type: "consul", Peer: "p" },
        { Name: "loc", Action: "allow", Precedence: 9, Type: "consul" },
        { Name: "*", Action: "deny", Precedence: 8, Type: "consul", Description: "nobody else" },
      ],
      Meta: { team: "x" },
    });
    assert.deepEqual(await ask(a, "GET", "/v1/config/service-intentions"), [200, [entry]]);
    assert.deepEqual(await ask(a, "PUT", "/v1/config?cas=0", { ...written, sources: [] }), [
      500,
      "At least one source is required",
    ]);
    assert.deepEqual(await ask(a, "PUT", "/v1/config?cas=0", { ...written, meta: {} }), [200, false]);
    assert.deepEqual(await ask(a, "DELETE", "/v1/config/service-intentions/web"), [200, {}]);
    assert.deepEqual(await ask(a, "GET", "/v1/config/service-intentions"), [200, []]);
  });

  it("keep their permissions, and refuse keys they do not know", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const http = { PathPrefix: "/a", Header: [{ Name: "h", Exact: "v", Invert: true }], Methods: ["GET"] };
    const entry = (HTTP: unknown): unknown => ({
      Kind: "service-intentions",
      Name: "web",
      Sources: { Name: "api", Permissions: [{ Action: "allow", HTTP }] },
    });
    assert.deepEqual(await ask(a, "PUT", "/v1/config", entry(http)), [
      500,
      'service "web" has protocol "tcp", which is incompatible with L7 intentions permissions',
    ]);
    await a.host.configEntries.set({ kind: "service-defaults", name: "web", protocol: "http" });
    assert.deepEqual(await ask(a, "PUT", "/v1/config", entry(http)), [200, true]);
    const [, read] = await ask(a, "GET", "/v1/config/service-intentions/web");
    assert.deepEqual(Object(read).Sources, [
      { Name: "api", Permissions: [{ Action: "allow", HTTP: http }], Precedence: 9, Type: "consul" },
    ]);
    const [, [listed]] = (await ask(a, "GET", "/v1/connect/intentions")) as [number, readonly unknown[]];
    assert.deepEqual(withoutIndexes(listed), {
      ...common,
      SourceName: "api",
      Permissions: [{ Action: "allow", HTTP: http }],
      Precedence: 9,
    });
    for (const [source, key] of [
      [{ Name: "api", Action: "allow", Partition: "x" }, 'Sources[0].Partition"'],
      [
        { Name: "api", Action: "allow", Namespace: "x" },
        'Sources[0].Namespace", namespaces are a consul enterprise feature',
      ],
      [{ Name: "api", Permissions: [{ HTTP: { Nope: 1 } }] }, 'Sources[0].Permissions[0].HTTP.Nope"'],
    ] as const) {
      assert.deepEqual(
        await ask(a, "PUT", "/v1/config", { Kind: "service-intentions", Name: "web", Sources: [source] }),
        [400, `Request decoding failed: 1 error occurred:\n\t* invalid config key "${key}\n\n`],
      );
    }
  });

  it("are listed one by one, and found by source and destination", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    await ask(a, "PUT", "/v1/config", written);
    await ask(a, "PUT", "/v1/config", {
      kind: "service-intentions",
      name: "*",
      sources: [{ name: "x", action: "allow" }],
    });
    const of = { ...common, Meta: { team: "x" } };
    const fromPeer = { ...of, SourceName: "api", SourcePeer: "p", Action: "allow", Precedence: 9 };
    const [, list] = await ask(a, "GET", "/v1/connect/intentions");
    assert.deepEqual(withoutIndexes(list), [
      { ...of, SourceName: "loc", Action: "allow", Precedence: 9 },
      fromPeer,
      { ...of, Description: "nobody else", SourceName: "*", Action: "deny", Precedence: 8 },
      { ...common, DestinationName: "*", SourceName: "x", Action: "allow", Precedence: 6 },
    ]);
    const [, filtered] = await ask(a, "GET", "/v1/connect/intentions?filter=SourcePeer==p");
    assert.deepEqual(withoutIndexes(filtered), [fromPeer]);
    const exact = "/v1/connect/intentions/exact";
    const [, found] = await ask(a, "GET", `${exact}?source=peer:p/api&destination=web`);
    assert.deepEqual(withoutIndexes(found), fromPeer);
    assert.equal((await ask(a, "GET", `${exact}?source=default/loc&destination=web`))[0], 200);
    for (const [query, answer] of [
      ["source=api&destination=web", [404, "Intention not found"]],
      ["source=api", [500, "required query parameter 'destination' not set"]],
      ["", [500, "required query parameter 'source' not set"]],
      ["source=a/b/c/d&destination=x", [500, "source \"a/b/c/d\" is invalid: input can contain at most two '/'"]],
      ["source=a/b&destination=x", [500, 'Invalid SourceNS "a": Namespaces is a Consul Enterprise feature']],
      ["source=peer:p&destination=x", [500, 'source "peer:p" is invalid: need to specify the service name as well']],
      ["source=a&destination=peer:p/x", [500, 'destination "peer:p/x" is invalid: cannot specify a peer here']],
    ] as const) {
      assert.deepEqual(await ask(a, "GET", `${exact}?${query}`), answer);
    }
  });

  it("decide about local callers on request", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    await ask(a, "PUT", "/v1/config", written);
    const check = "/v1/connect/intentions/check";
    assert.deepEqual(await ask(a, "GET", `${check}?source=loc&destination=web`), [200, { Allowed: true }]);
    assert.deepEqual(await ask(a, "GET", `${check}?source=api&destination=web`), [200, { Allowed: false }]);
    assert.deepEqual(
      await ask(a, "GET", `${check}?source=api&destination=db`),
      [200, { Allowed: true }],
      "the default",
    );
    assert.deepEqual(await ask(a, "GET", `${check}?source=peer:p/api&destination=web`), [
      500,
      'source "peer:p/api" is invalid: cannot specify a peer here',
    ]);
  });

  it("written one by one they are of local services (ch4 case 86)", async () => {
    await using pair = await HttpPair.start();
    const path = "/v1/connect/intentions";
    const ofPeer = { SourceName: "a", DestinationName: "b", Action: "allow", SourcePeer: "p" };
    const refused = "SourcePeer field is not supported on this endpoint. Use config entries instead";
    assert.deepEqual(await ask(pair.a, "POST", path, ofPeer), [500, refused]);
    assert.deepEqual(await ask(pair.a, "PUT", `${path}/exact?source=a&destination=b`, ofPeer), [500, refused]);
    assert.deepEqual(await ask(pair.a, "POST", path, "{"), [500, "Failed to decode request body: unexpected EOF"]);
    assert.deepEqual(await ask(pair.a, "GET", path), [200, []]);
  });

  it("are matched for a bounded number of services at once", async () => {
    await using pair = await HttpPair.start(1, { maxMatchNames: 2 });
    const { a } = pair;
    const path = "/v1/connect/intentions/match?by=source";
    assert.equal((await ask(a, "GET", `${path}&name=a&name=b&name=a`))[0], 200);
    assert.deepEqual(await ask(a, "GET", `${path}&name=a&name=b&name=c`), [
      400,
      "at most 2 names can be matched at once",
    ]);
    assert.equal(a.host.incidents.counts().get("intention-match-names"), 1);
  });

  it("are one record with the entry of their destination, whichever is written", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const exact = "/v1/connect/intentions/exact?source=api&destination=web";
    assert.deepEqual(await ask(a, "PUT", exact, { Action: "allow" }), [200, true]);
    assert.deepEqual(a.host.configEntries.get("service-intentions", "web")?.sources, [
      { name: "api", action: "allow", precedence: 9 },
    ]);
    await a.host.configEntries.set({
      kind: "service-intentions",
      name: "web",
      sources: [{ name: "api", action: "deny" }],
    });
    assert.equal(Object((await ask(a, "GET", exact))[1]).Action, "deny");
    assert.deepEqual(await ask(a, "DELETE", exact), [200, true]);
    assert.equal(a.host.configEntries.get("service-intentions", "web"), undefined);
  });

  it("are written at once by many, and none is lost", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const names = Array.from({ length: 20 }, (_, index) => `s${index}`);
    const path = "/v1/connect/intentions";
    await Promise.all(
      names.map((name) => ask(a, "PUT", `${path}/exact?source=${name}&destination=web`, { Action: "allow" })),
    );
    await Promise.all(
      names.map((name) => ask(a, "POST", path, { SourceName: name, DestinationName: "db", Action: "allow" })),
    );
    for (const destination of ["web", "db"]) {
      const { sources = [] } = a.host.configEntries.get("service-intentions", destination) ?? {};
      assert.deepEqual(sources.map(({ name }) => name).sort(), names.toSorted(), destination);
    }
  });

  for (const path of ["/v1/connect/intentions", "/v1/connect/intentions/match?by=destination&name=web"]) {
    it(`are waited for: ${path}`, async () => {
      await using pair = await HttpPair.start();
      const { a } = pair;
      await ask(a, "PUT", "/v1/config", written);
      const { headers } = await a.ask("GET", path);
      const waiting = a.ask(
        "GET",
        `${path}${path.includes("?") ? "&" : "?"}index=${headers["x-consul-index"]}&wait=5m`,
      );
      await ask(a, "PUT", "/v1/connect/intentions/exact?source=new&destination=web", { Action: "allow" });
      const answer = await waiting;
      assert.ok(Number(answer.headers["x-consul-index"]) > Number(headers["x-consul-index"]));
      assert.match(answer.text, /"SourceName":"new"/);
    });
  }

  it("need intention:read and intention:write on the name of the destination", async () => {
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      resolve: async () => ({ accessorId: "id" }),
      allowed: (_, { resource, access, name }) => resource === "intention" && access === "read" && name === "web",
    };
    await using pair = await HttpPair.start(10, { authorizer });
    const { a } = pair;
    for (const name of ["web", "db"]) {
      await a.host.configEntries.set({ kind: "service-intentions", name, sources: [{ name: "api", action: "allow" }] });
    }
    const denied = "Permission denied: token with AccessorID 'id' lacks permission";
    assert.deepEqual(await ask(a, "PUT", "/v1/config", written), [403, `${denied} 'intention:write' on "web"`]);
    assert.deepEqual(await ask(a, "GET", "/v1/config/service-intentions/db"), [
      403,
      `${denied} 'intention:read' on "db"`,
    ]);
    assert.equal((await ask(a, "GET", "/v1/config/service-intentions/web"))[0], 200);
    for (const path of ["/v1/config/service-intentions", "/v1/connect/intentions"]) {
      assert.equal(((await ask(a, "GET", path)) as [number, unknown[]])[1].length, 1, path);
    }
    for (const what of ["exact", "check"]) {
      const [status] = await ask(a, "GET", `/v1/connect/intentions/${what}?source=api&destination=db`);
      assert.equal(status, 403, what);
    }
  });

  it("need the right on both spellings of the destination, that of the request and that of the entry", async () => {
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      resolve: async () => ({ accessorId: "id" }),
      allowed: (_, { resource, name }) => resource === "intention" && name === "WEB",
    };
    await using pair = await HttpPair.start(10, { authorizer });
    const { a } = pair;
    const sources = [{ name: "api", action: "allow" }] as const;
    await a.host.configEntries.set({ kind: "service-intentions", name: "web", sources });
    const before = a.host.configEntries.list();
    const exact = "/v1/connect/intentions/exact?destination=WEB&source=";
    const legacy = { SourceName: "new", DestinationName: "WEB", Action: "deny" };
    for (const [method, path, body] of [
      ["PUT", `${exact}new`, { Action: "deny" }],
      ["PUT", `${exact}api`, { Action: "deny" }],
      ["DELETE", `${exact}api`, undefined],
      ["POST", "/v1/connect/intentions", legacy],
      ["PUT", "/v1/config", { ...written, name: "WEB" }],
      ["DELETE", "/v1/config/service-intentions/WEB", undefined],
    ] as const) {
      assert.equal((await ask(a, method, path, body))[0], 403, `${method} ${path}`);
      assert.deepEqual(a.host.configEntries.list(), before, `${method} ${path}`);
    }
    await a.host.configEntries.delete("service-intentions", "web");
    assert.deepEqual(await ask(a, "PUT", `${exact}new`, { Action: "deny" }), [200, true]);
    assert.deepEqual(await ask(a, "PUT", `${exact}api`, { Action: "deny" }), [200, true]);
  });
});
