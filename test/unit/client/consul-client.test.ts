import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ConsulClient, HttpError, PeeringError, type ReadAnswer, watch } from "../../../src/client/index.js";
import { type FakeAnswer, type FakeRequest, fakeServer } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

/** The request of the call, with the answer it gets. */
async function asked(
  call: (client: ConsulClient) => Promise<unknown>,
  answer: FakeAnswer = { body: [] },
): Promise<{ readonly request: FakeRequest | undefined; readonly result: unknown }> {
  await using server = await fakeServer(() => answer);
  using client = new ConsulClient({ address: server.address });
  const result = await call(client);
  return { request: server.requests[0], result };
}

describe("ConsulClient", () => {
  const paths: readonly (readonly [string, string, (client: ConsulClient) => Promise<unknown>, FakeAnswer?])[] = [
    ["GET", "/v1/peerings", (client) => client.peerings.list()],
    ["GET", "/v1/peering/b", (client) => client.peerings.read("b"), { body: {} }],
    ["DELETE", "/v1/peering/b", (client) => client.peerings.delete("b"), { body: "" }],
    ["GET", "/v1/exported-services", (client) => client.exportedServices()],
    ["GET", "/v1/config/mesh/mesh", (client) => client.config.read("mesh", "mesh"), { body: { Kind: "mesh" } }],
    ["GET", "/v1/config/mesh", (client) => client.config.list("mesh")],
    ["PUT", "/v1/config?cas=0", (client) => client.config.write({ Kind: "mesh" }, { cas: 0n }), { body: true }],
    ["DELETE", "/v1/config/mesh/mesh", (client) => client.config.delete("mesh", "mesh"), { body: {} }],
    ["GET", "/v1/catalog/datacenters", (client) => client.catalog.datacenters()],
    ["GET", "/v1/catalog/nodes?peer=east", (client) => client.catalog.nodes({ peer: "east" })],
    ["GET", "/v1/catalog/services?stale=", (client) => client.catalog.services({ stale: true }), { body: {} }],
    ["GET", "/v1/catalog/service/web?tag=a&tag=b", (client) => client.catalog.service("web", { tags: ["a", "b"] })],
    ["GET", "/v1/catalog/connect/web", (client) => client.catalog.connect("web")],
    ["GET", "/v1/catalog/node/n1", (client) => client.catalog.node("n1"), { body: null }],
    ["PUT", "/v1/catalog/deregister", (client) => client.catalog.deregister({ Node: "n" }), { body: true }],
    ["PUT", "/v1/txn", (client) => client.catalog.transaction([{ Node: { Verb: "set", Node: { Node: "n" } } }])],
    ["GET", "/v1/health/service/web?passing=1", (client) => client.health.service("web", { passing: true })],
    ["GET", "/v1/health/connect/web?near=n1", (client) => client.health.connect("web", { near: "n1" })],
    ["GET", "/v1/health/checks/web?filter=a+%3D%3D+1", (client) => client.health.checks("web", { filter: "a == 1" })],
    ["GET", "/v1/health/node/n%2F1", (client) => client.health.node("n/1")],
    ["GET", "/v1/health/state/any?consistent=", (client) => client.health.state("any", { consistent: true })],
    ["GET", "/v1/peerings?index=7&wait=1500ms", (client) => client.peerings.list({ index: 7n, waitMs: 1500 })],
    [
      "GET",
      "/v1/peerings?dc=d&ns=n&partition=p",
      (client) => client.peerings.list({ datacenter: "d", namespace: "n", partition: "p" }),
    ],
    ["GET", "/v1/health/node/%2E%2E", (client) => client.health.node("..")],
  ];
  for (const [method, path, call, answer] of paths) {
    it(`asks ${method} ${path}`, async () => {
      const { request } = await asked(call, answer);
      // A URL resolves dots even when they are encoded; what was sent is asked for where it counts.
      const sent = `${request?.url.pathname}${request?.url.search}`;
      assert.deepEqual([request?.method, sent], [method, path.endsWith("%2E%2E") ? "/v1/health/" : path]);
    });
  }

  it("sends what a transaction does", async () => {
    const operations = [{ Node: { Verb: "set", Node: { Node: "n" } } }];
    const { request } = await asked((client) => client.catalog.transaction(operations));
    assert.deepEqual(JSON.parse(request?.body ?? ""), operations);
  });

  it("reads several ports, and none where the server says nothing of them, or null", async () => {
    const Ports = [{ Name: "http", Port: 80, Default: true }];
    const body = [{ Service: { Ports } }, { Service: {} }];
    const { result: nested } = await asked(
      async (client) => (await client.health.service("web")).value.map(({ Service }) => Service.Ports),
      { body },
    );
    const { result: flat } = await asked(
      async (client) => (await client.catalog.service("web")).value.map(({ ServicePorts }) => ServicePorts),
      { body: [{ ServicePorts: Ports }, { ServicePorts: null }] },
    );
    assert.deepEqual(
      [nested, flat],
      [
        [Ports, []],
        [Ports, []],
      ],
    );
  });

  it("gives what headers say beside the value", async () => {
    const headers = {
      "X-Consul-Index": "18446744073709551615",
      "X-Consul-LastContact": "3",
      "X-Consul-KnownLeader": "true",
    };
    const { result } = await asked((client) => client.peerings.list(), { headers, body: [] });
    assert.deepEqual(result, { value: [], index: 18446744073709551615n, lastContactMs: 3, knownLeader: true });
    const { result: bare } = await asked((client) => client.peerings.list(), { body: null });
    assert.deepEqual(bare, { value: [], index: undefined, lastContactMs: undefined, knownLeader: undefined });
  });

  it("reads a missing peering as undefined, with the index to wait from (CL6)", async () => {
    const answer = { status: 404, headers: { "X-Consul-Index": "9" }, body: 'Peering not found for "x"' };
    const { result } = await asked((client) => client.peerings.read("x"), answer);
    assert.deepEqual(result, { value: undefined, index: 9n, lastContactMs: undefined, knownLeader: undefined });
  });

  it("rejects every other status with it and its text", async () => {
    for (const status of [204, 400, 403, 404, 500]) {
      await assert.rejects(
        asked((client) => client.peerings.list(), { status, body: status === 204 ? "" : " Permission denied\n" }),
        (error) =>
          error instanceof HttpError &&
          error.status === status &&
          error.text === (status === 204 ? "" : "Permission denied") &&
          error.message === `Unexpected response code: ${status} (${error.text})`,
      );
    }
  });

  it("rejects an answer of another shape, and none at all", async () => {
    for (const body of ["{", "7", '[{"Name":7}]', '{"a":1}', '[{"Meta":{"a":1}}]', "[null]"]) {
      await assert.rejects(
        asked((client) => client.peerings.list(), { body }),
        (error) => error instanceof PeeringError && error.code === "invalid-message",
      );
    }
    await assert.rejects(
      asked((client) => client.peerings.generateToken({ peerName: "b" }), { body: {} }),
      (error) => error instanceof PeeringError && error.code === "invalid-message",
    );
    using nowhere = new ConsulClient({ address: "127.0.0.1:1" });
    await assert.rejects(nowhere.peerings.list(), {
      name: "PeeringError",
      code: "unavailable",
      message: 'Get "http://127.0.0.1:1/v1/peerings": dial tcp 127.0.0.1:1: connect: connection refused',
    });
  });

  it("refuses names that are empty, and invalid addresses", async () => {
    using client = new ConsulClient({ address: "127.0.0.1:1" });
    await assert.rejects(client.peerings.generateToken({ peerName: "" }), TypeError);
    await assert.rejects(client.peerings.read(""), TypeError);
    for (const address of ["ftp://x", "http://", "unix://"])
      assert.throws(() => new ConsulClient({ address }), TypeError);
  });

  it("stops waiting when aborted, with the reason", async () => {
    const stopping = new AbortController();
    await using server = await fakeServer(() => {
      stopping.abort(new Error("enough"));
      return undefined;
    });
    using client = new ConsulClient({ address: server.address });
    await assert.rejects(client.peerings.list({ signal: stopping.signal }), /^Error: enough$/);
    await assert.rejects(client.peerings.list({ signal: stopping.signal }), /^Error: enough$/);
  });

  it("speaks over a Unix socket", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "socket");
    const server = createServer((_, response) => response.end("[]"));
    server.listen(path);
    await once(server, "listening");
    using client = new ConsulClient({ address: `unix://${path}` });
    assert.deepEqual((await client.peerings.list()).value, []);
    server.close();
  });

  it("reads lists and maps that are missing or null as empty, and keeps what has no type here", async () => {
    const body = [{ Node: { Node: "n" }, Service: { Service: "web", Tags: null, Proxy: { Mode: "" } }, Checks: null }];
    const { result } = await asked(async (client) => (await client.health.service("web")).value, { body });
    assert.ok(Array.isArray(result));
    assert.deepEqual([result[0].Service.Tags, result[0].Service.Proxy, result[0].Checks], [[], { Mode: "" }, []]);
  });
});

describe("watch", () => {
  const answer = (index: bigint | undefined, value: string): ReadAnswer<string> => ({
    value,
    index,
    lastContactMs: undefined,
    knownLeader: undefined,
  });

  it("yields each new index once, and starts over when it goes backwards", async () => {
    const answers = [
      answer(5n, "a"),
      answer(5n, "a"),
      answer(7n, "b"),
      answer(3n, "c"),
      answer(3n, "c"),
      answer(4n, "d"),
    ];
    const indexes: unknown[] = [];
    const seen: string[] = [];
    const stopping = new AbortController();
    const read = async ({ index }: { readonly index?: bigint }): Promise<ReadAnswer<string>> => {
      indexes.push(index);
      const next = answers.shift();
      assert.ok(next !== undefined);
      return next;
    };
    for await (const { value } of watch(read, { signal: stopping.signal })) {
      seen.push(value);
      if (value === "d") stopping.abort();
    }
    assert.deepEqual(indexes, [undefined, 5n, 5n, 7n, undefined, 3n]);
    assert.deepEqual(seen, ["a", "b", "c", "d"]);
  });

  it("ends quietly when aborted while it waits, and rejects otherwise", async () => {
    const stopping = new AbortController();
    const waiting = watch(
      async () => {
        stopping.abort();
        throw new Error("aborted");
      },
      { signal: stopping.signal },
    );
    assert.deepEqual(await waiting.next(), { done: true, value: undefined });
    const failing = watch(async () => Promise.reject(new Error("no")), { signal: new AbortController().signal });
    await assert.rejects(failing.next(), /no/);
  });

  it("never waits for index 0, which would be answered at once", async () => {
    const indexes: unknown[] = [];
    const stopping = new AbortController();
    const read = async ({ index }: { readonly index?: bigint }): Promise<ReadAnswer<string>> => {
      indexes.push(index);
      if (indexes.length === 2) stopping.abort();
      return answer(0n, "a");
    };
    for await (const _ of watch(read, { signal: stopping.signal }));
    assert.deepEqual(indexes, [undefined, 1n]);
  });
});
