import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it, type Mock, mock } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Incidents } from "../../../src/base/incidents.js";
import type { PeeringHost } from "../../../src/host/host.js";
import { WholeBody } from "../../../src/http/answer-body.js";
import { CallLimits, type CallLimitsOptions } from "../../../src/http/index.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { eventually, HttpPair, type ServedHost, serve } from "../../support/http-pair.js";
import { RawClient, type RawResponse, requestText } from "../../support/raw-http.js";

const LIMIT_MS = 30_000;
const LARGE_BYTES = 512 * 1024;
const EVERYTHING = 'service_prefix "" { policy = "read" }\nnode_prefix "" { policy = "read" }';
const NO_NODES = 'service_prefix "" { policy = "read" }';

describe("reads that wait", { timeout: 60_000 }, () => {
  let host: PeeringHost;
  let reads: Mock<PeeringHost["catalog"]["indexedInstances"]>;
  let close: () => Promise<void>;
  let changes = 0;
  const meta = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`key-${index}`, "x".repeat(500)]));

  before(async () => {
    const pair = await HttpPair.start();
    host = pair.a.host;
    close = () => pair[Symbol.asyncDispose]();
    await host.catalog.registerAll(
      Array.from({ length: LARGE_BYTES / 32_768 }, (_, index) => ({
        node: "n1",
        address: "10.0.0.1",
        service: { id: `large-${index}`, name: "large", port: 1, meta },
      })),
    );
    await change("small");
  });
  after(() => close());
  beforeEach(() => {
    mock.restoreAll();
    // The source of every answer about the instances of a service.
    reads = mock.method(host.catalog, "indexedInstances");
  });

  async function change(service: string): Promise<void> {
    const tags = [`change-${++changes}`];
    await host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: service, port: 1, tags } });
  }

  /** Serves the host once more. Disposing of it leaves the host. */
  async function served(
    limits: CallLimitsOptions = {},
  ): Promise<Pick<ServedHost, "port"> & AsyncDisposable & { readonly incidents: Incidents }> {
    const incidents = new Incidents();
    const options = { limits: new CallLimits({ ...limits, incidents }), authorizer: tokensFor([EVERYTHING, NO_NODES]) };
    const { server, port } = await serve(host, options);
    return {
      port,
      incidents,
      async [Symbol.asyncDispose]() {
        server.close();
        server.closeAllConnections();
      },
    };
  }

  function waitText(service: string, options: { readonly query?: string; readonly headers?: readonly string[] } = {}) {
    const { query = "", headers = [`X-Consul-Token: ${secretFor(EVERYTHING)}`] } = options;
    const index = host.catalog.index.service(service);
    return requestText("GET", `/v1/health/service/${service}?index=${index}&wait=10m${query}`, headers);
  }

  /** Clients that wait, each with its own question; resolves when all of them do. */
  async function waiting(port: number, texts: readonly string[], localAddress?: string): Promise<readonly RawClient[]> {
    const wait = mock.method(CallLimits.prototype, "takeWait");
    const clients = await Promise.all(texts.map(() => RawClient.open(port, localAddress)));
    for (const [index, client] of clients.entries()) client.write(texts[index] ?? "");
    await eventually(() => wait.mock.callCount() === texts.length, AbortSignal.timeout(LIMIT_MS));
    wait.mock.restore();
    return clients;
  }

  async function answersOf(clients: readonly RawClient[]): Promise<readonly RawResponse[]> {
    const answers = await Promise.all(clients.map((client) => client.answer()));
    for (const { socket } of clients) socket.destroy();
    return answers;
  }

  it("have one answer where they ask the same, however many they are, which is made once, and compressed once", async () => {
    await using server = await served();
    const gzips = mock.method(WholeBody.prototype, "gzip");
    for (const headers of [[], ["Accept-Encoding: gzip"]]) {
      const text = waitText("large", { headers: [`X-Consul-Token: ${secretFor(EVERYTHING)}`, ...headers] });
      // The order of parameters, how long they wait, and what they wait for, is theirs.
      const texts = [text, text.replace("wait=10m", "wait=5m"), text.replace(/(index=\d+)&(wait=10m)/, "$2&$1")];
      const clients = await waiting(server.port, Array.from({ length: 40 }, () => texts).flat());
      reads.mock.resetCalls();
      await change("large");
      const answers = await answersOf(clients);
      assert.equal(reads.mock.callCount(), 1);
      for (const { status, body } of answers) assert.deepEqual([status, body === answers[0]?.body], [200, true]);
      if (headers.length === 0) assert.ok(answers[0]?.body.includes(`"change-${changes}"`));
      const promises = new Set(gzips.mock.calls.map(({ result }) => result));
      assert.equal(promises.size, headers.length);
    }
  });

  it("have an answer of their own for their own rights", async () => {
    await using server = await served();
    const headers = [EVERYTHING, NO_NODES].map((rules) => [`X-Consul-Token: ${secretFor(rules)}`]);
    const texts = [...headers, ...headers].map((each) => waitText("small", { headers: each }));
    const clients = await waiting(server.port, texts);
    reads.mock.resetCalls();
    await change("small");
    const answers = await answersOf(clients);
    const shown = answers.map(({ body }) => body.includes(`"change-${changes}"`));
    assert.deepEqual(shown, [true, false, true, false]);
    assert.equal(reads.mock.callCount(), 2);
  });

  it("have the answer to their own question", async () => {
    await using server = await served();
    const queries = ["", "&passing", "&filter=Service.Port==2", "&pretty", `&tag=change-${changes + 1}`, "&tag=none"];
    const clients = await waiting(
      server.port,
      queries.map((query) => waitText("small", { query })),
    );
    await change("small");
    const answers = await answersOf(clients);
    assert.deepEqual(
      answers.map(({ body }) => body.includes(`"change-${changes}"`)),
      [true, true, false, true, true, false],
    );
    assert.deepEqual(
      answers.map(({ body }) => body.includes("\n")),
      [false, false, false, true, false, false],
    );
  });

  it("are answered one after the other where each asks something else, with turns for others in between", async () => {
    await using server = await served();
    const count = 60;
    const texts = Array.from({ length: count }, (_, index) => waitText("large", { query: `&near=n${index}` }));
    const clients = await waiting(server.port, texts);
    let most = 0;
    let watched = true;
    const watching = (async () => {
      for (let before = reads.mock.callCount(); watched; before = reads.mock.callCount()) {
        await setImmediate();
        most = Math.max(most, reads.mock.callCount() - before);
      }
    })();
    reads.mock.resetCalls();
    await change("large");
    await answersOf(clients);
    watched = false;
    await watching;
    assert.deepEqual([reads.mock.callCount(), most], [count, 1]);
  });

  it("are not read for anyone who lets too much unread, while others are", async () => {
    // More than the system takes of a connection that is not read.
    const bytes = 12 * 1024 * 1024;
    await host.catalog.registerAll(
      Array.from({ length: bytes / 32_768 }, (_, index) => ({
        node: "n1",
        address: "10.0.0.1",
        service: { id: `huge-${index}`, name: "huge", port: 1, meta },
      })),
    );
    // One at once: making a long answer takes several turns on a busy machine, and nothing of it is unread until it is made.
    await using server = await served({ unsentPerSource: 1, answersAtOnce: 1 });
    const texts = ["a", "b", "c", "d"].map((name) => waitText("huge", { query: `&near=${name}` }));
    const deaf = await waiting(server.port, texts, "127.0.0.2");
    for (const { socket } of deaf) socket.pause();
    const [other] = await waiting(server.port, [waitText("small")], "127.0.0.3");
    const made = (): number => reads.mock.calls.filter(({ arguments: [service] }) => service === "huge").length;
    reads.mock.resetCalls();
    await change("huge");
    await eventually(() => made() > 0, AbortSignal.timeout(LIMIT_MS));
    await change("small");
    assert.equal((await other?.answer())?.status, 200);
    // Each of these has its turn, in which it could be that of the others, too.
    for (let turn = 0; turn < 20; turn++) {
      other?.write(requestText("GET", "/v1/health/service/small"));
      assert.equal((await other?.answer())?.status, 200);
    }
    assert.equal(made(), 1, "the first one is not read");
    assert.deepEqual(
      (await answersOf(deaf)).map(({ status }) => status),
      [200, 200, 200, 200],
    );
    assert.equal(made(), texts.length);
    other?.socket.destroy();
  });

  it("are refused to a source that has as many as it may, which may go on otherwise", async () => {
    await using server = await served({ waitingPerSource: 3 });
    const clients = await waiting(server.port, Array(3).fill(waitText("small")));
    const one = await RawClient.open(server.port);
    one.write(waitText("small"));
    const refused = await one.answer();
    assert.deepEqual([refused.status, refused.body], [429, "too many calls from 127.0.0.1 wait: at most 3 may"]);
    assert.equal(server.incidents.counts().get("wait-refused-to-source"), 1);
    // Neither its connection nor what does not wait has suffered, nor has another source.
    one.write(requestText("GET", "/v1/status/leader"));
    assert.equal((await one.answer()).status, 200);
    const [elsewhere] = await waiting(server.port, [waitText("small")], "127.0.0.2");
    // A place is free again when its client goes, and when it is answered.
    clients[0]?.socket.destroy();
    for (let status = 429; status === 429; ) {
      one.write(waitText("small").replace("wait=10m", "wait=1ms"));
      ({ status } = await one.answer());
    }
    await change("small");
    const answers = await answersOf([...clients.slice(1), ...(elsewhere === undefined ? [] : [elsewhere])]);
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200],
    );
    await waiting(server.port, Array(3).fill(waitText("small")));
    one.socket.destroy();
  });

  it("end early for the source that has most, when all places are taken", async () => {
    await using server = await served({ waitingInAll: 4 });
    const [first, ...others] = await waiting(server.port, Array(4).fill(waitText("small")), "127.0.0.2");
    const [newcomer] = await waiting(server.port, [waitText("small")], "127.0.0.3");
    const early = await first?.answer();
    const index = host.catalog.index.service("small");
    assert.deepEqual([early?.status, /^x-consul-index: (\d+)/im.exec(early?.headers ?? "")?.[1]], [200, String(index)]);
    assert.equal(server.incidents.counts().get("wait-cut-short"), 1);
    await change("small");
    const answers = await answersOf(newcomer === undefined ? others : [...others, newcomer]);
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 200],
    );
    first?.socket.destroy();
  });

  it("pass by the thousand", async () => {
    await using server = await served();
    const texts = Array.from({ length: 1_000 }, (_, index) => waitText(`service-${index}`));
    const clients = await waiting(server.port, texts);
    await change("service-7");
    assert.match((await clients[7]?.answer())?.body ?? "", /"Service":"service-7"/);
    for (const { socket } of clients) socket.destroy();
    assert.deepEqual([...server.incidents.counts()], []);
  });
});
