// Calls of clients that do not read what they are answered, or that wait in numbers.

import assert from "node:assert/strict";
import { once, setMaxListeners } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from "node:http2";
import { createConnection } from "node:net";
import { describe, it, mock } from "node:test";
import { type Authorizer, allowAll } from "../../../src/access/authorizer.js";
import { Incidents } from "../../../src/base/incidents.js";
import { machineryOf } from "../../../src/host/host.js";
import { CallAllowance } from "../../../src/http/call-limits.js";
import { CallLimits } from "../../../src/http/index.js";
import { eventually } from "../../support/http-pair.js";
import { lonelyHost, PROTOCOLS, refusal, type ServedRpc, serveRpc, tokens } from "./support.js";

const SERVICE = "/hashicorp.consul.internal.peering.PeeringService";
const WATCH = "/peerage.watch.v1.WatchService/WatchPeerings";
const LIMIT_MS = 20_000;
const EMPTY_MESSAGE = Buffer.alloc(5);

/** How many calls were begun: each looks at its caller. */
interface Counting extends Authorizer {
  begun: number;
}

function counting(): Counting {
  const authorizer: Counting = {
    ...allowAll,
    begun: 0,
    resolve: (token) => {
      authorizer.begun++;
      return allowAll.resolve(token);
    },
  };
  return authorizer;
}

/** A host whose list of peerings has some 400 KiB. */
async function served(authorizer: Authorizer, limits: CallLimits): Promise<ServedRpc> {
  const host = await lonelyHost();
  const meta = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`key-${index}`, "x".repeat(500)]));
  for (let index = 0; index < 13; index++) await host.peerings.generateToken({ peerName: `peer-${index}`, meta });
  return serveRpc(host, { authorizer, limits });
}

function call(session: ClientHttp2Session, path: string): ClientHttp2Stream {
  const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
  stream.on("error", () => {});
  stream.end(EMPTY_MESSAGE);
  return stream;
}

/** Has another client answered many times: as long as it takes for everything that happens of itself. */
async function settled({ url }: ServedRpc): Promise<void> {
  const session = connectHttp2(url);
  for (let turn = 0; turn < 200; turn++) {
    const stream = call(session, `${SERVICE}/Nothing`);
    stream.resume();
    await once(stream, "close");
  }
  session.destroy();
}

describe("a client of HTTP/2 that reads nothing", { timeout: 60_000 }, () => {
  it("has few calls begun, whatever it asks for on one connection, and the others when it reads", async () => {
    const authorizer = counting();
    const incidents = new Incidents();
    await using one = await served(authorizer, new CallLimits({ incidents }));
    const lists = mock.method(one.host.peerings, "list");
    const session = connectHttp2(one.url, { settings: { initialWindowSize: 0 } });
    await once(session, "connect");
    const streams = Array.from({ length: 200 }, () => call(session, `${SERVICE}/PeeringList`));
    await eventually(() => incidents.counts().has("answers-unread-by-connection"), AbortSignal.timeout(LIMIT_MS));
    await settled(one);
    assert.ok(lists.mock.callCount() <= 2, `${lists.mock.callCount()} of ${streams.length} answers made`);
    // A call that is made now is not even begun.
    const begun = authorizer.begun;
    streams.push(...Array.from({ length: 20 }, () => call(session, `${SERVICE}/PeeringList`)));
    await settled(one);
    assert.equal(authorizer.begun, begun);
    // Another connection is not concerned.
    assert.equal((await one.peerings("gRPC").peeringList({})).Peerings.length, 13);
    session.settings({ initialWindowSize: 1024 * 1024 });
    session.setLocalWindowSize(16 * 1024 * 1024);
    const statuses = streams.map(async (stream) => {
      const [tail] = await Promise.all([once(stream, "trailers"), stream.resume()]);
      return tail[0]["grpc-status"];
    });
    assert.deepEqual(new Set(await Promise.all(statuses)), new Set(["0"]));
    session.destroy();
  });

  it("has its calls forgotten when it cancels them, or goes", async () => {
    const authorizer = counting();
    const incidents = new Incidents();
    await using one = await served(authorizer, new CallLimits({ incidents, unsentPerSource: 256 * 1024 }));
    for (const end of ["cancels", "goes"] as const) {
      const session = connectHttp2(one.url, { settings: { initialWindowSize: 0 } });
      await once(session, "connect");
      const streams = Array.from({ length: 50 }, () => call(session, `${SERVICE}/PeeringList`));
      const told = (): number => incidents.counts().get("answers-unread-by-source") ?? 0;
      const before = told();
      await eventually(() => told() > before, AbortSignal.timeout(LIMIT_MS));
      if (end === "cancels") for (const stream of streams) stream.close(constants.NGHTTP2_CANCEL);
      else session.destroy();
      // Its share is free again: this is the same source.
      assert.equal((await one.peerings("gRPC").peeringList({})).Peerings.length, 13, end);
      session.destroy();
    }
  });

  it("has few messages of its watches made, however many it opens on one connection", async () => {
    const incidents = new Incidents();
    await using one = await served(allowAll, new CallLimits({ incidents }));
    const made = mock.method(CallAllowance.prototype, "made");
    const session = connectHttp2(one.url, { settings: { initialWindowSize: 0 } });
    await once(session, "connect");
    const streams = Array.from({ length: 100 }, () => call(session, WATCH));
    await eventually(() => incidents.counts().has("answers-unread-by-connection"), AbortSignal.timeout(LIMIT_MS));
    await settled(one);
    // Each message has some 30 KiB, and two may be made before the first is told.
    assert.ok(made.mock.callCount() <= 5, `${made.mock.callCount()} messages for ${streams.length} watches`);
    made.mock.restore();
    session.destroy();
  });
});

describe("calls that wait", { timeout: 60_000 }, () => {
  it("are refused with RESOURCE_EXHAUSTED beyond what a source may have, reads and watches together", async () => {
    const incidents = new Incidents();
    const limits = new CallLimits({ incidents, waitingPerSource: 2 });
    const places = mock.method(limits, "takeWait");
    const waits = (count: number): Promise<void> =>
      eventually(() => places.mock.callCount() === count, AbortSignal.timeout(LIMIT_MS));
    await using one = await served(allowAll, limits);
    const stop = new AbortController();
    const events = one.watches("gRPC").watchPeerings({}, { signal: stop.signal })[Symbol.asyncIterator]();
    await events.next();
    const headers = { "min-query-index": String(machineryOf(one.host).records.index), "max-query-time": "10m" };
    const read = one.peerings("Connect").peeringList({}, { headers, signal: stop.signal });
    await waits(2);
    const refused = ["ResourceExhausted", "too many calls from 127.0.0.1 wait: at most 2 may"];
    assert.deepEqual(await refusal(one.peerings("gRPC").peeringList({}, { headers })), refused);
    const another = (): Promise<unknown> => one.watches("gRPC-web").watchPeerings({})[Symbol.asyncIterator]().next();
    assert.deepEqual(await refusal(another()), refused);
    assert.equal(incidents.counts().get("wait-refused-to-source"), 2);
    // A call that does not wait is answered.
    assert.equal((await one.peerings("Connect").peeringList({})).Peerings.length, 13);
    await one.host.peerings.generateToken({ peerName: "one-more" });
    assert.equal((await read).Peerings.length, 14);
    const { signal } = stop;
    await one.watches("gRPC-web").watchPeerings({}, { signal })[Symbol.asyncIterator]().next();
    stop.abort();
    await assert.rejects(async () => {
      for (;;) await events.next();
    });
  });

  it("end with RESOURCE_EXHAUSTED for the source that has most, when all places are taken", async () => {
    await using one = await served(allowAll, new CallLimits({ waitingInAll: 3 }));
    const stop = new AbortController();
    const oldest = one.watches("gRPC").watchPeerings({})[Symbol.asyncIterator]();
    await oldest.next();
    for (let index = 0; index < 2; index++) {
      await one.watches("Connect").watchPeerings({}, { signal: stop.signal })[Symbol.asyncIterator]().next();
    }
    const { hostname, port } = new URL(one.url);
    const elsewhere = connectHttp2(one.url, {
      createConnection: () => createConnection({ host: hostname, port: Number(port), localAddress: "127.0.0.2" }),
    });
    const stream = call(elsewhere, WATCH);
    await once(stream, "data");
    const ended = (async () => {
      for (;;) await oldest.next();
    })();
    assert.deepEqual(await refusal(ended), ["ResourceExhausted", "too many calls wait for a change: the oldest end"]);
    elsewhere.destroy();
    stop.abort();
  });
});

describe("messages of requests", { timeout: 60_000 }, () => {
  const rights = { writer: ["peering:write"], reader: ["peering:read"] };
  const meta = Array.from({ length: 300 }, (_, index) => [`key-${index}`, "x".repeat(400)] as const);
  const request = { PeerName: "west", Meta: Object.fromEntries(meta) };

  it("that are long are refused to callers who may write nothing, and others are told what is wrong with them", async () => {
    const incidents = new Incidents();
    await using one = await served(tokens(rights), new CallLimits({ incidents }));
    for (const protocol of PROTOCOLS) {
      const generate = (token: string): Promise<readonly [string, string]> => {
        const headers = { "x-consul-token": token };
        return refusal(one.peerings(protocol).generateToken(request, { headers }));
      };
      assert.deepEqual(
        await generate(""),
        ["Unknown", "Permission denied: anonymous token may write nothing"],
        protocol,
      );
      const reader = "Permission denied: token with AccessorID 'reader' may write nothing";
      assert.deepEqual(await generate("reader"), ["Unknown", reader], protocol);
      assert.deepEqual(await generate("nobody"), ["Unknown", "ACL not found"], protocol);
      assert.match((await generate("writer"))[1], /^meta tags failed validation/, protocol);
    }
    assert.equal(incidents.counts().get("body-of-stranger-too-large"), 3 * PROTOCOLS.length);
  });

  it("are bounded together", async () => {
    const incidents = new Incidents();
    await using one = await served(allowAll, new CallLimits({ incidents, bodyBytesPerSource: 50_000 }));
    for (const protocol of PROTOCOLS) {
      assert.deepEqual(
        await refusal(one.peerings(protocol).generateToken(request)),
        ["ResourceExhausted", "too many bodies from 127.0.0.1 are being received"],
        protocol,
      );
    }
    assert.equal(incidents.counts().get("body-refused-to-source"), PROTOCOLS.length);
    // Those of watches, which are read once and for all, take no room.
    const stop = new AbortController();
    // Each call listens to it until it ends, and 100 are open at a time.
    setMaxListeners(0, stop.signal);
    for (let index = 0; index < 100; index++) {
      await one.watches("gRPC").watchPeerings({}, { signal: stop.signal })[Symbol.asyncIterator]().next();
    }
    assert.equal((await one.peerings("gRPC").peeringList({})).Peerings.length, 13);
    stop.abort();
  });
});
