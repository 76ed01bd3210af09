import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { connect as connectHttp2, createServer as createHttp2 } from "node:http2";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { after, before, beforeEach, describe, it, mock } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import type { PeeringHost } from "../../../src/host/host.js";
import { PIECE_BYTES } from "../../../src/http/answer-body.js";
import { CallLimits, httpHandler } from "../../../src/http/index.js";
import { JsonWriter } from "../../../src/http/json.js";
import { testClock } from "../../../src/testing/index.js";
import { eventually, HttpPair, serveLimited } from "../../support/http-pair.js";
import { keepsStill, RawClient, requestText } from "../../support/raw-http.js";

const LIMIT_MS = 30_000;
/** More than the system takes of a connection that is not read. */
const BYTES = 12 * 1_024 * 1_024;
const INSTANCES = 768;
const SLOW_MS = 5_000;
const PATH = "/v1/health/service/long";

describe("clients that do not read", { timeout: 60_000 }, () => {
  let host: PeeringHost;
  let close: () => Promise<void>;
  /** Bytes of long answers that have been made. */
  let made = 0;

  before(async () => {
    const pair = await HttpPair.start();
    host = pair.a.host;
    close = () => pair[Symbol.asyncDispose]();
    const meta = Object.fromEntries(Array.from({ length: 32 }, (_, index) => [`key-${index}`, "x".repeat(500)]));
    await host.catalog.registerAll(
      Array.from({ length: INSTANCES }, (_, index) => ({
        node: "n1",
        address: "10.0.0.1",
        service: { id: `long-${index}`, name: "long", port: 1, meta },
      })),
    );
  });
  after(() => close());
  beforeEach(() => {
    mock.restoreAll();
    made = 0;
    const { taken } = JsonWriter.prototype;
    mock.method(JsonWriter.prototype, "taken", function (this: JsonWriter) {
      const written = taken.call(this);
      // Pieces are shorter where making them takes long, and those of short answers are much shorter.
      if (written.length >= PIECE_BYTES / 8) made += written.length;
      return written;
    });
  });

  /** Asks, and reads nothing of the answer but what comes with its head. */
  async function deaf(port: number, path: string, localAddress = "127.0.0.1"): Promise<IncomingMessage> {
    const outgoing = request({ host: "127.0.0.1", port, path, localAddress, agent: false }).end();
    outgoing.on("error", () => {});
    const [response]: IncomingMessage[] = await once(outgoing, "response");
    if (response === undefined) assert.fail("no response");
    response.on("error", () => {});
    response.pause();
    return response;
  }

  async function instancesIn(response: IncomingMessage): Promise<number> {
    return JSON.parse(await text(response)).length;
  }

  /** Until no further piece is made. */
  const settled = (port: number): Promise<void> => keepsStill(port, () => made, "127.0.0.9");

  it("are sent no more than the system takes: a long answer is made as far as it is read", async () => {
    await using server = await serveLimited(host, {});
    const client = await deaf(server.port, PATH);
    await settled(server.port);
    assert.ok(made < BYTES * 0.75, `${made} bytes`);
    assert.equal(await instancesIn(client), INSTANCES);
    assert.ok(made >= BYTES * 0.95);
  });

  it("get the same, piece by piece, as one who reads at once, compressed and indented, too", async () => {
    await using server = await serveLimited(host, {});
    const get = async (path: string, headers: Readonly<Record<string, string>> = {}) => {
      const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { headers });
      return { text: await response.text(), encoding: response.headers.get("content-encoding") };
    };
    const plain = await get(PATH, { "accept-encoding": "identity" });
    const compressed = await get(PATH, { "accept-encoding": "gzip" });
    assert.deepEqual([plain.encoding, compressed.encoding], [null, "gzip"]);
    assert.ok(compressed.text === plain.text);
    const indented = await get(`${PATH}?pretty`, { "accept-encoding": "identity" });
    assert.deepEqual(JSON.parse(indented.text), JSON.parse(plain.text));
    assert.ok(indented.text.startsWith('[\n    {\n        "Node": {') && indented.text.endsWith("\n]\n"));
  });

  it("are cut off when others of their source wait for them, and only then", async () => {
    await using server = await serveLimited(host, { unsentPerSource: 1, slowReaderMs: SLOW_MS });
    const alone = await deaf(server.port, PATH, "127.0.0.3");
    const slow = await deaf(server.port, PATH, "127.0.0.2");
    await settled(server.port);
    await server.clock.advance(SLOW_MS);
    assert.deepEqual([...server.incidents.counts()], []);
    // It has let its time pass already: who waits need not wait for it.
    const waiting = await deaf(server.port, PATH, "127.0.0.2");
    assert.equal(server.incidents.counts().get("reader-cut-off"), 1);
    assert.equal(await instancesIn(waiting), INSTANCES);
    await assert.rejects(text(slow), { message: "aborted" });
    assert.equal(await instancesIn(alone), INSTANCES);
  });

  it("are cut off when their time is over, if others have come to wait before", async () => {
    await using server = await serveLimited(host, { unsentPerSource: 1, slowReaderMs: SLOW_MS });
    const slow = await deaf(server.port, PATH);
    await settled(server.port);
    const waiting = await RawClient.open(server.port);
    waiting.write(requestText("GET", "/v1/catalog/services"));
    await eventually(() => server.incidents.counts().has("answers-unread-by-source"), AbortSignal.timeout(LIMIT_MS));
    await server.clock.advance(SLOW_MS - 1);
    await settled(server.port);
    assert.equal(server.incidents.counts().get("reader-cut-off"), undefined);
    await server.clock.advance(1);
    assert.equal((await waiting.answer()).status, 200);
    assert.equal(server.incidents.counts().get("reader-cut-off"), 1);
    for (const { socket } of [slow, waiting]) socket.destroy();
  });

  it("have one stream of a connection of HTTP/2 cut off, and the others go on", async () => {
    const clock = testClock();
    const incidents = new Incidents({ clock });
    const limits = new CallLimits({ clock, incidents, slowReaderMs: SLOW_MS });
    const server = createHttp2(httpHandler(host, { limits, clock }));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const ask = (path: string) => session.request({ ":path": path });
    const slow = ask(PATH);
    await once(slow, "response");
    slow.pause();
    await eventually(() => made > 0, AbortSignal.timeout(LIMIT_MS));
    const other = ask("/v1/catalog/services");
    await eventually(() => incidents.counts().has("answers-unread-by-connection"), AbortSignal.timeout(LIMIT_MS));
    await clock.advance(SLOW_MS);
    const [headers] = await once(other, "response");
    assert.equal(headers[":status"], 200);
    assert.equal(incidents.counts().get("reader-cut-off"), 1);
    session.destroy();
    server.close();
  });
});
