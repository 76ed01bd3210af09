import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { openLevel } from "../../../src/storage/level.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";
import { HttpPair, type ServedHost, serve } from "../../support/http-pair.js";

interface Fields {
  readonly [key: string]: unknown;
  readonly Status?: unknown;
  readonly CreateIndex?: unknown;
  readonly ModifyIndex?: unknown;
  readonly ServiceName?: unknown;
  readonly AggregatedStatus?: unknown;
  readonly Notes?: unknown;
  readonly Type?: unknown;
  readonly ServiceID?: unknown;
  readonly Output?: unknown;
  readonly Interval?: unknown;
  readonly Name?: unknown;
  readonly Port?: unknown;
  readonly ContentHash?: unknown;
  readonly Datacenter?: unknown;
}

describe("checks of the host's own node", () => {
  let served: ServedHost;
  before(async () => {
    const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
    served = await serve(await createHost({ storage: memoryStorage(), transport, nodeName: "n0" }));
  });
  after(() => served[Symbol.asyncDispose]());

  async function put(path: string, body?: unknown): Promise<readonly [number, string]> {
    const { status, text } = await served.ask(
      "PUT",
      path,
      body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) },
    );
    return [status, text];
  }

  async function get(
    path: string,
    headers = {},
  ): Promise<{ status: number; json: Fields; reason: string | undefined }> {
    const answer = await served.ask("GET", path, { headers });
    return { status: answer.status, json: JSON.parse(answer.text), reason: answer.headers["x-consul-reason"] };
  }

  async function check(id: string): Promise<Fields> {
    const { json } = await get("/v1/agent/checks");
    const found = json[id];
    assert.ok(typeof found === "object" && found !== null, `no check ${id}`);
    return { ...found };
  }

  const done: readonly [number, string] = [200, ""];

  it("a TTL check of a service turns healthy by each kind of report", async () => {
    assert.deepEqual(await put("/v1/agent/service/register", { Name: "a", Check: { TTL: "20s" } }), done);
    assert.equal((await check("service:a")).Status, "critical");
    for (const [path, body, status, output] of [
      ["pass/service:a?note=hi", undefined, "passing", "hi"],
      ["warn/service:a", undefined, "warning", ""],
      ["fail/service:a?note=no", undefined, "critical", "no"],
      ["update/service:a", { Status: "passing", Output: "out" }, "passing", "out"],
    ] as const) {
      assert.deepEqual(await put(`/v1/agent/check/${path}`, body), done);
      const { Status, Output, Type } = await check("service:a");
      assert.deepEqual([Status, Output, Type], [status, output, "ttl"]);
    }
  });

  it("a service that is registered again keeps what its check found", async () => {
    await put("/v1/agent/service/register", { Name: "again", Check: { TTL: "20s" } });
    await put("/v1/agent/check/pass/service:again?note=hi");
    await put("/v1/agent/service/register", { Name: "again", Port: 1, Check: { TTL: "20s", Status: "critical" } });
    const { Status, Output } = await check("service:again");
    assert.deepEqual([Status, Output], ["passing", "hi"]);
  });

  it("a service that is registered again loses other checks only where it is asked for as Consul asks", async () => {
    for (const [query, kept] of [
      ["", true],
      ["?replace-existing-checks=false", true],
      ["?replace-existing-checks=1", true],
      ["?replace-existing-checks", false],
      ["?replace-existing-checks=true", false],
    ] as const) {
      await put("/v1/agent/service/register", { Name: "r", Check: { CheckID: "r-old", TTL: "20s" } });
      await put(`/v1/agent/service/register${query}`, { Name: "r", Check: { CheckID: "r-new", TTL: "20s" } });
      const ids = served.host.catalog.instance("n0", "r")?.checks.map(({ checkId }) => checkId);
      assert.deepEqual(
        ids?.filter((id) => id.startsWith("r-")),
        kept ? ["r-new", "r-old"] : ["r-new"],
        query,
      );
      await put("/v1/agent/service/deregister/r");
    }
  });

  it("an HTTP check runs by itself, and is shown as Consul shows it", async () => {
    const url = `http://127.0.0.1:${served.port}/v1/status/leader`;
    const body = { Name: "b", Check: { HTTP: url, Interval: "1s", tls_skip_verify: true } };
    assert.deepEqual(await put("/v1/agent/service/register", body), done);
    let waited = 0;
    while ((await check("service:b")).Status !== "passing" && waited++ < 3_000) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.deepEqual(await check("service:b"), {
      Node: "n0",
      CheckID: "service:b",
      Name: "Service 'b' check",
      Status: "passing",
      Notes: "",
      Output: `HTTP GET ${url}: 200 OK Output: "127.0.0.1:8503"`,
      ServiceID: "b",
      ServiceName: "b",
      ServiceTags: [],
      Type: "http",
      Interval: "1s",
      Timeout: "",
      ExposedPort: 0,
      Definition: {},
      CreateIndex: (await check("service:b")).CreateIndex,
      ModifyIndex: (await check("service:b")).ModifyIndex,
    });
    assert.deepEqual(await put("/v1/agent/check/pass/service:b"), [
      500,
      'CheckID "service:b" does not have associated TTL',
    ]);
  });

  it("checks of the node and of a service are registered by themselves, and removed", async () => {
    const node = { Name: "mem", TTL: "5m", Status: "passing", Notes: "n" };
    assert.deepEqual(await put("/v1/agent/check/register", node), done);
    const { ServiceID, Interval, Notes } = await check("mem");
    assert.deepEqual([ServiceID, Interval, Notes], ["", "0s", "n"]);
    await put("/v1/agent/service/register", { Name: "c" });
    assert.deepEqual(await put("/v1/agent/check/register", { Name: "x", ID: "xx", TTL: "5m", ServiceID: "c" }), done);
    assert.equal((await check("xx")).ServiceName, "c");
    assert.deepEqual(await put("/v1/agent/check/deregister/xx"), done);
    assert.equal(served.host.checks.definition("xx"), undefined);
    const unknown = 'Unknown check ID "xx". Ensure that the check ID is passed, not the check name.';
    assert.deepEqual(await put("/v1/agent/check/deregister/xx"), [404, unknown]);
    assert.deepEqual(await put("/v1/agent/check/pass/xx"), [404, unknown]);
    assert.deepEqual(await put("/v1/agent/service/deregister/c"), done);
  });

  const scripts =
    "Scripts are disabled on this agent from remote calls: it runs no scripts, neither itself nor in containers";
  const needed = "Invalid check: TTL must be > 0 for TTL checks";
  const refusals: readonly (readonly [Fields, number, string])[] = [
    [{ Checks: [{}] }, 400, needed],
    [{ Check: { Status: "passing" } }, 400, needed],
    [{ Check: { Args: ["true"], Interval: "1s" } }, 500, scripts],
    [{ Check: { DockerContainerID: "x", ScriptArgs: ["true"], Interval: "1s" } }, 500, scripts],
    [{ Check: { TTL: "abc" } }, 400, 'Request decode failed: time: invalid duration "abc"'],
    [{ Check: { TTL: "10s", Foo: 1 } }, 400, 'Request decode failed: json: unknown field "Foo"'],
    [{ Check: { TTL: "10s", Interval: "1s" } }, 400, "Invalid check: Interval and TTL cannot both be specified"],
    [
      { Check: { HTTP: "http://a/" } },
      400,
      "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
    ],
    [
      { Check: { OSService: "x", Interval: "1s" } },
      500,
      "OSService checks are not run here: this agent asks no service manager",
    ],
    [
      { Check: { TTL: "1s", FailuresBeforeWarning: 2, FailuresBeforeCritical: 1 } },
      400,
      "Invalid check: FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
    ],
  ];
  for (const [body, status, text] of refusals) {
    it(`refuses ${JSON.stringify(body)}, and registers nothing`, async () => {
      assert.deepEqual(await put("/v1/agent/service/register", { Name: "refused", ...body }), [status, text]);
      assert.equal(served.host.catalog.instance("n0", "refused"), undefined);
    });
  }
  const ownRefusals: readonly (readonly [string, Fields, number, string])[] = [
    ["register", { TTL: "5s" }, 400, "Missing check name"],
    ["register", { Name: "x", TTL: "5s", ServiceID: "nope" }, 404, 'ServiceID "nope" does not exist'],
    ["register", { Name: "x", TTL: "5s", Status: "foo" }, 400, "Bad check status"],
    ["register", { Name: "x" }, 400, needed],
    ["update/mem", { Status: "bad" }, 400, "Invalid check status: 'bad'"],
  ];
  for (const [path, body, status, text] of ownRefusals) {
    it(`refuses ${path} with ${JSON.stringify(body)}`, async () => {
      assert.deepEqual(await put(`/v1/agent/check/${path}`, body), [status, text]);
    });
  }

  it("an empty check beside none is no check", async () => {
    assert.deepEqual(await put("/v1/agent/service/register", { Name: "empty", Check: {} }), done);
    assert.deepEqual(served.host.catalog.serviceChecks("empty"), []);
  });

  it("health of a service is a status of HTTP, by id and by name", async () => {
    await put("/v1/agent/check/deregister/mem");
    for (const id of ["h1", "h2"]) {
      await put("/v1/agent/service/register", { Name: "h", ID: id, Check: { TTL: "5m" } });
      await put(`/v1/agent/check/pass/service:${id}`);
    }
    const passing = await get("/v1/agent/health/service/id/h1");
    assert.deepEqual([passing.status, passing.json.AggregatedStatus, passing.reason], [200, "passing", "passing"]);
    await put("/v1/agent/check/warn/service:h2");
    assert.equal((await get("/v1/agent/health/service/id/h1")).status, 200);
    assert.equal((await get("/v1/agent/health/service/id/h2")).status, 429);
    assert.equal((await get("/v1/agent/health/service/name/h")).status, 429);
    await put("/v1/agent/check/fail/service:h1");
    assert.equal((await get("/v1/agent/health/service/name/h")).status, 503);
    const text = await served.ask("GET", "/v1/agent/health/service/name/h?format=text");
    assert.deepEqual([text.status, text.text], [503, "critical"]);
    const plain = await served.ask("GET", "/v1/agent/health/service/id/h1", { headers: { Accept: "text/plain" } });
    assert.deepEqual([plain.status, plain.text], [503, "critical"]);
    const unknown = await get("/v1/agent/health/service/id/nope");
    assert.deepEqual(unknown, {
      status: 404,
      json: { AggregatedStatus: "critical", Service: null, Checks: null },
      reason: "ServiceId nope not found",
    });
    const unnamed = await get("/v1/agent/health/service/name/nope");
    assert.deepEqual(unnamed, { status: 404, json: [], reason: "ServiceName nope Not Found" });
  });

  it("maintenance of a service and of the node is a critical check until it ends", async () => {
    await put("/v1/agent/service/register", { Name: "m" });
    assert.equal((await get("/v1/agent/health/service/id/m")).status, 200);
    assert.deepEqual(await put("/v1/agent/service/maintenance/m?enable=true&reason=why"), done);
    assert.deepEqual(await put("/v1/agent/service/maintenance/m?enable=true&reason=other"), done);
    const own = await check("_service_maintenance:m");
    assert.deepEqual([own.Status, own.Notes, own.Type, own.ServiceID], ["critical", "why", "maintenance", "m"]);
    const health = await get("/v1/agent/health/service/id/m");
    assert.deepEqual([health.status, health.reason], [503, "maintenance"]);
    assert.deepEqual(await put("/v1/agent/service/maintenance/m?enable=false"), done);
    assert.equal((await get("/v1/agent/health/service/id/m")).status, 200);
    assert.deepEqual(await put("/v1/agent/maintenance?enable=true"), done);
    const { Notes, Name } = await check("_node_maintenance");
    assert.equal(Name, "Node Maintenance Mode");
    assert.match(String(Notes), /^Maintenance mode is enabled for this node, but no reason was provided/);
    assert.equal((await get("/v1/agent/health/service/id/m")).status, 503);
    assert.deepEqual(await put("/v1/agent/maintenance?enable=false"), done);
    assert.equal((await get("/v1/agent/health/service/id/m")).status, 200);
    for (const [path, status, text] of [
      ["maintenance", 400, "Missing value for enable"],
      ["maintenance?enable=xx", 400, 'Invalid value for enable: "xx"'],
      ["service/maintenance/?enable=true", 400, "Missing service ID"],
      [
        "service/maintenance/nope?enable=true",
        404,
        'Unknown service ID "nope". Ensure that the service ID is passed, not the service name.',
      ],
    ] as const) {
      assert.deepEqual(await put(`/v1/agent/${path}`), [status, text]);
    }
  });

  it("one service is read by its id, and waited for by its hash", async () => {
    await put("/v1/agent/service/register", { Name: "one", Port: 1 });
    const first = await served.ask("GET", "/v1/agent/service/one");
    const hash = first.headers["x-consul-contenthash"] ?? "";
    const { Port, ContentHash, Datacenter } = JSON.parse(first.text);
    assert.deepEqual([Port, ContentHash, Datacenter], [1, hash, "dc1"]);
    assert.match(hash, /^[0-9a-f]{16}$/);
    let answered = false;
    const waiting = served.ask("GET", `/v1/agent/service/one?hash=${hash}&wait=1m`).then((answer) => {
      answered = true;
      return answer;
    });
    await put("/v1/agent/service/register", { Name: "another" });
    assert.equal(answered, false);
    await put("/v1/agent/service/register", { Name: "one", Port: 2 });
    assert.equal(JSON.parse((await waiting).text).Port, 2);
    const missing = await served.ask("GET", "/v1/agent/service/nope");
    assert.deepEqual([missing.status, missing.text], [404, "unknown service ID: nope"]);
  });
});

describe("maintenance across a peering", () => {
  it("keeps an instance from the importer's readers until it ends", async () => {
    await using pair = await HttpPair.start(10, {}, "n0");
    const { a, b } = pair;
    await a.ask("PUT", "/v1/agent/service/register", { body: '{"Name":"web","Port":80}' });
    await a.host.exports.set({ services: [{ name: "web", consumers: [{ peer: "b" }] }] });
    const token = await a.host.peerings.generateToken({ peerName: "b" });
    await b.host.peerings.establish({ peerName: "a", token });
    const statuses = async (): Promise<readonly string[] | undefined> => {
      const [instance] = await b.host.imports.instances({ peer: "a", service: "web" });
      return instance?.checks.map(({ status }) => status);
    };
    await eventually(async () => (await statuses())?.length === 0, "the service is imported");
    await a.ask("PUT", "/v1/agent/service/maintenance/web?enable=true");
    await eventually(async () => (await statuses())?.[0] === "critical", "the importer sees it critical");
    assert.deepEqual(JSON.parse((await b.ask("GET", "/v1/health/service/web?peer=a&passing")).text), []);
    await a.ask("PUT", "/v1/agent/service/maintenance/web?enable=false");
    await eventually(async () => (await statuses())?.length === 0, "the importer sees it healthy");
  });
});

describe("sidecars without a port", () => {
  it("get one each, also when they are registered at the same time", async () => {
    await using directory = await temporaryDirectory();
    const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
    // One that takes time to commit.
    const storage = await openLevel(directory.path);
    await using served = await serve(await createHost({ storage, transport, nodeName: "n0" }));
    const body = { Port: 80, Connect: { SidecarService: {} } };
    const names = Array.from({ length: 20 }, (_, index) => `side-${index}`);
    const answers = await Promise.all(
      names.map((Name) => served.ask("PUT", "/v1/agent/service/register", { body: JSON.stringify({ ...body, Name }) })),
    );
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    const ports = names.map((name) => served.host.catalog.service("n0", `${name}-sidecar-proxy`)?.port);
    assert.deepEqual(
      ports.sort(),
      names.map((_, index) => 21_000 + index),
    );
  });
});
