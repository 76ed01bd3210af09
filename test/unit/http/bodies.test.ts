// Bodies of requests to the server that an agent runs: who may send how much, and how much is held of all of them together.
import assert from "node:assert/strict";
import { once } from "node:events";
import { afterEach, describe, it, mock } from "node:test";
import { setImmediate } from "node:timers/promises";
import { type Clock, systemClock } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import { CallAllowance } from "../../../src/http/call-limits.js";
import { CallLimits, type CallLimitsOptions } from "../../../src/http/index.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { eventually } from "../../support/http-pair.js";
import { RawClient, type RawResponse, requestText } from "../../support/raw-http.js";
import { type ServedPort, servePort } from "../../support/served-port.js";
import { lonelyHost } from "../rpc/support.js";

const LIMIT_MS = 20_000;
const KIB = 1024;
const WRITER = 'mesh = "write"';
const READER = 'service_prefix "" { policy = "read" }';
const writer = `X-Consul-Token: ${secretFor(WRITER)}`;
const reader = `X-Consul-Token: ${secretFor(READER)}`;
const unknown = "X-Consul-Token: nobody";

interface Served extends ServedPort {
  readonly incidents: Incidents;
  /** How many bytes of bodies there was room made for. */
  readonly taken: () => number;
  open(localAddress?: string): Promise<RawClient>;
}

async function served(options: CallLimitsOptions & { readonly clock?: Clock } = {}): Promise<Served> {
  const { clock = systemClock, ...rest } = options;
  const incidents = new Incidents();
  const limits = new CallLimits({ ...rest, incidents });
  const body = mock.method(CallAllowance.prototype, "body");
  const calls = { authorizer: tokensFor([WRITER, READER]), limits };
  const one = await servePort(await lonelyHost(), calls, { clock, drainMs: 0 });
  return {
    ...one,
    incidents,
    taken: () => body.mock.calls.reduce((sum, { arguments: [bytes], error }) => sum + (error ? 0 : bytes), 0),
    open: (localAddress) => RawClient.open(one.port, localAddress),
  };
}

/** A config entry, whose text has so many bytes. */
function entry(bytes: number): string {
  return '{"Kind":"mesh"}'.padEnd(bytes);
}

function putText(bytes: number, headers: readonly string[] = []): string {
  return requestText("PUT", "/v1/config", [`Content-Length: ${bytes}`, ...headers]);
}

function chunks(body: string, each: number): string {
  const parts: string[] = [];
  for (let start = 0; start < body.length; start += each) {
    const part = body.slice(start, start + each);
    parts.push(`${part.length.toString(16)}\r\n${part}\r\n`);
  }
  return parts.join("");
}

const CHUNKED = "Transfer-Encoding: chunked";

function isClosing({ headers }: RawResponse): boolean {
  return /^connection: close/im.test(headers);
}

afterEach(() => mock.restoreAll());

describe("a body of a caller who may write nothing", { timeout: 60_000 }, () => {
  for (const [who, headers, text] of [
    ["without a token", [], "Permission denied: anonymous token may write nothing"],
    ["with a token that is not known", [unknown], "ACL not found"],
    [
      "with a token that may only read",
      [reader],
      "Permission denied: token with AccessorID 'token-1' may write nothing",
    ],
  ] as const) {
    it(`${who}: is refused before it is sent, where it is long, and the connection goes on`, async () => {
      await using one = await served();
      const client = await one.open();
      const bytes = 1_024 * KIB;
      client.write(putText(bytes, headers));
      const refused = await client.answer();
      assert.deepEqual([refused.status, refused.body, isClosing(refused)], [403, text, false]);
      assert.equal(one.taken(), 0);
      assert.equal(one.incidents.counts().get("body-of-stranger-too-large"), 1);
      client.write(entry(bytes));
      client.write(requestText("GET", "/v1/status/leader"));
      assert.equal((await client.answer()).status, 200);
      client.socket.destroy();
    });

    it(`${who}: is read where it is short, and what is wrong with it is told first`, async () => {
      await using one = await served();
      const client = await one.open();
      client.write(requestText("PUT", "/v1/config", ["Content-Length: 1", ...headers], "{"));
      const malformed = await client.answer();
      assert.deepEqual([malformed.status, malformed.body], [400, "Request decoding failed: unexpected EOF"]);
      client.write(putText(64 * KIB, headers) + entry(64 * KIB));
      const { status, body } = await client.answer();
      assert.deepEqual([status, /lacks permission 'mesh:write'|ACL not found/.test(body)], [403, true], body);
      client.socket.destroy();
    });

    it(`${who}: is cut off where it does not say how long it is`, async () => {
      await using one = await served();
      const client = await one.open();
      client.write(requestText("PUT", "/v1/config", [CHUNKED, ...headers]) + chunks(entry(64 * KIB), 4 * KIB));
      client.write(chunks("x", 1));
      const refused = await client.answer();
      assert.deepEqual([refused.status, refused.body, isClosing(refused)], [403, text, true]);
      assert.ok(one.taken() <= 64 * KIB, String(one.taken()));
      await once(client.socket.resume(), "close");
    });
  }

  it("takes nothing from those who may write", async () => {
    await using one = await served({ bodyBytesPerSource: 400 * KIB, bodyBytesInAll: 400 * KIB });
    const strangers = await Promise.all(Array.from({ length: 3 }, () => one.open()));
    for (const { socket } of strangers) socket.write(`${putText(50 * KIB)}{`);
    await eventually(() => one.incidents.counts().has("body-refused-to-source"), AbortSignal.timeout(LIMIT_MS));
    const client = await one.open();
    client.write(putText(300 * KIB, [writer]) + entry(300 * KIB));
    assert.equal((await client.answer()).status, 200);
    for (const { socket } of [client, ...strangers]) socket.destroy();
  });
});

describe("bodies that are received at the same time", { timeout: 60_000 }, () => {
  it("are bounded for each source, and for all of them; room is free again when a call ends, or its client goes", async () => {
    await using one = await served({ bodyBytesPerSource: 500 * KIB, bodyBytesInAll: 700 * KIB });
    const begin = async (bytes: number, source?: string): Promise<RawClient> => {
      const client = await one.open(source);
      const before = one.taken();
      client.write(`${putText(bytes, [writer])}{`);
      await eventually(() => one.taken() > before, AbortSignal.timeout(LIMIT_MS));
      return client;
    };
    const put = async (bytes: number, source?: string): Promise<RawResponse> => {
      const client = await one.open(source);
      client.write(putText(bytes, [writer]) + entry(bytes));
      const answer = await client.answer();
      // A refusal leaves the connection as it is.
      client.write(requestText("GET", "/v1/status/leader"));
      assert.equal((await client.answer()).status, 200);
      client.socket.destroy();
      return answer;
    };
    const first = await begin(400 * KIB);
    const refused = await put(200 * KIB);
    assert.deepEqual([refused.status, refused.body], [429, "too many bodies from 127.0.0.1 are being received"]);
    const second = await begin(250 * KIB, "127.0.0.2");
    const full = await put(100 * KIB, "127.0.0.3");
    assert.deepEqual([full.status, full.body], [503, "too many bodies are being received"]);
    assert.equal((await put(40 * KIB, "127.0.0.3")).status, 200);
    first.write(entry(400 * KIB).slice(1));
    assert.equal((await first.answer()).status, 200);
    assert.equal((await put(400 * KIB)).status, 200);
    const third = await begin(400 * KIB);
    third.socket.resetAndDestroy();
    let again = await put(400 * KIB);
    while (again.status === 429) again = await put(400 * KIB);
    assert.equal(again.status, 200);
    assert.ok((one.incidents.counts().get("body-refused") ?? 0) >= 1);
    for (const { socket } of [first, second]) socket.destroy();
  });

  it("are counted as they come where they do not say how long they are", async () => {
    await using one = await served({ bodyBytesPerSource: 500 * KIB });
    const client = await one.open();
    client.write(requestText("PUT", "/v1/config", [CHUNKED, writer]) + chunks(entry(600 * KIB), 8 * KIB));
    const { status, body } = await client.answer();
    assert.deepEqual([status, body], [429, "too many bodies from 127.0.0.1 are being received"]);
    assert.ok(one.taken() <= 500 * KIB);
    const another = await one.open();
    another.write(
      `${requestText("PUT", "/v1/config", [CHUNKED, writer])}${chunks(entry(200 * KIB), 8 * KIB)}0\r\n\r\n`,
    );
    assert.equal((await another.answer()).status, 200);
    for (const { socket } of [client, another]) socket.destroy();
  });

  it("cost no more where each byte of them comes by itself", async () => {
    await using one = await served();
    const client = await one.open();
    const body = entry(100 * KIB);
    client.write(`${requestText("PUT", "/v1/config", [CHUNKED, writer])}${chunks(body, 1)}0\r\n\r\n`);
    assert.equal((await client.answer()).status, 200);
    assert.ok(one.taken() <= 2 * body.length, `${one.taken()} bytes for ${body.length}`);
    client.socket.destroy();
  });

  it("leave others their turn, however many chunks they come in", async () => {
    let now = 0;
    // Each look at the clock finds it later than a connection may be parsed in one turn.
    await using one = await served({ clock: { ...systemClock, now: () => (now += 2) } });
    const client = await one.open();
    const text = `${requestText("PUT", "/v1/config", [CHUNKED, writer])}${chunks(entry(50 * KIB), 1)}0\r\n\r\n`;
    let turns = 0;
    let answered = false;
    const counting = (async () => {
      for (; !answered; turns++) await setImmediate();
    })();
    client.write(text);
    assert.equal((await client.answer()).status, 200);
    answered = true;
    await counting;
    assert.ok(turns >= text.length / (8 * KIB), `${turns} turns for ${text.length} bytes`);
    client.socket.destroy();
  });
});

describe("a body that no operation takes", { timeout: 60_000 }, () => {
  for (const [method, path, status] of [
    ["PUT", "/v1/nothing", 404],
    ["PUT", "/v1/catalog/nodes", 405],
    ["GET", "/v1/status/leader", 200],
    ["PUT", "/v1//config", 307],
  ] as const) {
    it(`${method} ${path}: is answered ${status} before it comes, is not kept, and the connection goes on`, async () => {
      await using one = await served();
      const client = await one.open();
      client.write(requestText(method, path, ["Content-Length: 1000000", writer]));
      const answer = await client.answer();
      assert.deepEqual([answer.status, isClosing(answer), one.taken()], [status, false, 0]);
      client.write(entry(1_000_000));
      client.write(requestText("GET", "/v1/status/peers"));
      assert.equal((await client.answer()).status, 200);
      client.socket.destroy();
    });

    it(`${method} ${path}: ends the connection where there is no end to it`, async () => {
      await using one = await served();
      for (const header of [CHUNKED, `Content-Length: ${2 ** 40}`]) {
        const client = await one.open();
        client.write(requestText(method, path, [header, writer]));
        const answer = await client.answer();
        assert.deepEqual([answer.status, isClosing(answer)], [status, true]);
        await once(client.socket.resume(), "close");
      }
    });
  }
});

describe("a client that asks whether to send its body", { timeout: 60_000 }, () => {
  const EXPECT = "Expect: 100-continue";

  it("is told to when it is read, and goes on with its connection", async () => {
    await using one = await served();
    const client = await one.open();
    for (let round = 0; round < 2; round++) {
      client.write(putText(100 * KIB, [writer, EXPECT]));
      assert.equal((await client.answer()).status, 100);
      client.write(entry(100 * KIB));
      const { status, headers } = await client.answer();
      assert.deepEqual([status, /^connection: close/im.test(headers)], [200, false]);
    }
    client.socket.destroy();
  });

  it("is told what is wrong instead, where it is not read, and its connection ends", async () => {
    await using one = await served();
    for (const [text, status] of [
      [putText(100 * KIB, [EXPECT]), 403],
      [putText(9 * KIB * KIB, [writer, EXPECT]), 413],
      [requestText("PUT", "/v1/nothing", ["Content-Length: 10", EXPECT]), 404],
    ] as const) {
      const client = await one.open();
      client.write(text);
      const answer = await client.answer();
      assert.deepEqual([answer.status, isClosing(answer)], [status, true]);
      await once(client.socket.resume(), "close");
    }
  });
});
