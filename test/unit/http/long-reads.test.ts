import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { text } from "node:stream/consumers";
import { after, before, beforeEach, describe, it, type Mock, mock } from "node:test";
import type { PeeringHost } from "../../../src/host/host.js";
import { GrowingBody } from "../../../src/http/answer-body.js";
import { Call } from "../../../src/http/call.js";
import { eventually, HttpPair, serveLimited } from "../../support/http-pair.js";
import { keepsStill } from "../../support/raw-http.js";

const LIMIT_MS = 20_000;
const SERVICES = 1_000;
const SLOW_MS = 5_000;
const PATH = "/v1/internal/ui/services";
const MIB = 1_024 * 1_024;
const CLIENTS = 50;

describe("long reads of many clients at once", { timeout: 60_000 }, () => {
  let host: PeeringHost;
  let close: () => Promise<void>;
  /** Each list of services begins with them. */
  let lists: Mock<PeeringHost["catalog"]["servicesWithProxies"]>;

  let pieces: Mock<GrowingBody["next"]>;

  before(async () => {
    const pair = await HttpPair.start();
    host = pair.a.host;
    close = () => pair[Symbol.asyncDispose]();
    // The answer is more than the system takes of a connection that is not read.
    const tags = Array.from({ length: 24 }, (_, index) => `${index}-${"x".repeat(500)}`);
    const at = { node: host.nodeName, address: "10.0.0.1" };
    await host.catalog.registerAll(
      Array.from({ length: SERVICES }, (_, index) => ({
        ...at,
        service: { id: `service-${index}`, name: `service-${index}`, port: 1, tags },
        checks: [{ checkId: `check-${index}`, name: "check", status: "passing", serviceId: `service-${index}` }],
      })),
    );
  });
  after(() => close());
  beforeEach(() => {
    mock.restoreAll();
    lists = mock.method(host.catalog, "servicesWithProxies");
    pieces = mock.method(GrowingBody.prototype, "next");
  });

  /** Asks, and reads nothing of the answer. */
  function deaf(port: number, path: string): ClientRequest {
    const outgoing = request({ host: "127.0.0.1", port, path, agent: false }).end();
    outgoing.on("error", () => {});
    outgoing.on("response", (response) => response.on("error", () => {}).pause());
    return outgoing;
  }

  async function reads(port: number, path: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal: AbortSignal.timeout(LIMIT_MS) });
    assert.equal(response.status, 200);
    return response.text();
  }

  /** Until no further list is made, nor a piece of an answer. Short reads of the same source are answered meanwhile. */
  const settled = (port: number): Promise<void> =>
    keepsStill(port, () => lists.mock.callCount() + pieces.mock.callCount());

  it("make one list where they ask the same, and a read after a write has that write", async () => {
    await using server = await serveLimited(host, {});
    const clients = Array.from({ length: CLIENTS }, () => deaf(server.port, PATH));
    const responses = await Promise.all(clients.map((client): Promise<IncomingMessage[]> => once(client, "response")));
    await settled(server.port);
    assert.equal(lists.mock.callCount(), 1);
    await host.catalog.register({ node: "other", address: "10.0.0.2", service: { name: "late", port: 1 } });
    assert.ok((await reads(server.port, PATH)).includes('"Name":"late"'));
    assert.equal(lists.mock.callCount(), 2);
    const [first, second] = await Promise.all(responses.slice(0, 2).map(([response]) => response && text(response)));
    assert.equal(JSON.parse(first ?? "").length, SERVICES);
    assert.ok(first === second);
    for (const client of clients) client.destroy();
    await host.catalog.deregister({ node: "other" });
  });

  it("make no more lists than there is room for, and short reads of the same source go on", async () => {
    await using server = await serveLimited(host, { longBytesPerSource: 3 * MIB, slowReaderMs: SLOW_MS });
    const clients = Array.from({ length: CLIENTS }, (_, index) => deaf(server.port, `${PATH}?client=${index}`));
    await eventually(
      () => server.incidents.counts().has("long-answers-unread-by-source"),
      AbortSignal.timeout(LIMIT_MS),
    );
    await settled(server.port);
    const made = lists.mock.callCount();
    assert.ok(made >= 1 && made <= 4, `${made} lists`);
    assert.equal(JSON.parse(await reads(server.port, "/v1/health/service/service-1")).length, 1);
    // The clients that do not read give their room to those who wait.
    const waiting = reads(server.port, `${PATH}?client=reads`);
    for (const client of clients.slice(made)) client.destroy();
    await settled(server.port);
    await server.clock.advance(SLOW_MS);
    assert.equal(JSON.parse(await waiting).length, SERVICES);
    assert.ok((server.incidents.counts().get("reader-cut-off") ?? 0) >= 1);
    for (const client of clients) client.destroy();
  });

  it("are refused where too many wait for room", async () => {
    await using server = await serveLimited(host, { longBytesPerSource: 1, waitingPerSource: 2 });
    const holder = deaf(server.port, `${PATH}?client=0`);
    await once(holder, "response");
    const clients = [1, 2].map((index) => deaf(server.port, `${PATH}?client=${index}`));
    await settled(server.port);
    const refused = await fetch(`http://127.0.0.1:${server.port}${PATH}?client=3`);
    assert.equal(refused.status, 429);
    assert.match(await refused.text(), /^too many calls from 127\.0\.0\.1 wait: at most 2 may/);
    assert.equal(server.incidents.counts().get("wait-refused-to-source"), 1);
    for (const client of [holder, ...clients]) client.destroy();
  });

  it("note what they hold, whatever they list", async () => {
    await using server = await serveLimited(host, {});
    await host.configEntries.set({
      kind: "service-intentions",
      name: "service-1",
      sources: Array.from({ length: SERVICES }, (_, index) => ({ name: `service-${index}`, action: "allow" as const })),
    });
    const room = mock.method(Call.prototype, "room");
    for (const path of [
      PATH,
      "/v1/catalog/services",
      "/v1/catalog/services?filter=ServiceName!=other",
      `/v1/catalog/node/${host.nodeName}`,
      "/v1/agent/services",
      "/v1/agent/checks",
      "/v1/connect/intentions",
    ]) {
      room.mock.resetCalls();
      await reads(server.port, path);
      let bytes = 0;
      for (const {
        arguments: [each],
      } of room.mock.calls)
        bytes += each;
      assert.ok(bytes >= SERVICES * 200, `${path}: ${bytes} bytes`);
    }
    await host.configEntries.delete("service-intentions", "service-1");
  });

  it("give their room back when they have been read, and when their clients go away", async () => {
    await using server = await serveLimited(host, { longBytesPerSource: 1 });
    for (let count = 0; count < 3; count++) {
      const client = deaf(server.port, `${PATH}?client=${count}`);
      await once(client, "response");
      client.destroy();
      assert.equal(JSON.parse(await reads(server.port, `${PATH}?client=reads`)).length, SERVICES);
    }
  });

  it("wait in no place of a short read", async () => {
    await using server = await serveLimited(host, { longBytesPerSource: 1, answersAtOnce: 1 });
    const clients = [0, 1, 2].map((index) => deaf(server.port, `${PATH}?client=${index}`));
    await eventually(
      () => server.incidents.counts().has("long-answers-unread-by-source"),
      AbortSignal.timeout(LIMIT_MS),
    );
    assert.equal(JSON.parse(await reads(server.port, "/v1/health/service/service-2")).length, 1);
    for (const client of clients) client.destroy();
  });
});
