// Streams of HTTP/2 that a client opens by the hundred, or opens and resets, at the server that an agent runs.
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from "node:http2";
import { Socket } from "node:net";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { AnswerTurns } from "../../../src/http/answer-turns.js";
import { CallLimits } from "../../../src/http/index.js";
import { ConnectionLimits, type ConnectionLimitsOptions } from "../../../src/transport/connection-limits.js";
import { eventually } from "../../support/hosts.js";
import { type ServedPort, servePort } from "../../support/served-port.js";
import { lonelyHost } from "./support.js";

const LIMIT = { timeout: 20_000 };
const WAITING = "/v1/catalog/services?index=1000000&wait=10m";
const ANSWERED = "/v1/status/leader";

interface Served extends ServedPort {
  readonly incidents: Incidents;
  connect(): Promise<ClientHttp2Session>;
}

async function served(limits: ConnectionLimitsOptions, waitingPerSource = 2_048): Promise<Served> {
  const incidents = new Incidents();
  const calls = { limits: new CallLimits({ incidents, waitingPerSource }) };
  const connectionLimits = new ConnectionLimits({ ...limits, incidents });
  const one = await servePort(await lonelyHost(), calls, { connectionLimits, incidents, drainMs: 0 });
  return {
    ...one,
    incidents,
    connect: async () => {
      const session = connect(`http://127.0.0.1:${one.port}`).on("error", () => {});
      await once(session, "connect");
      return session;
    },
  };
}

/** As much of a socket as is looked at. */
function socketFrom(remoteAddress: string): Socket {
  const socket = new Socket();
  Object.defineProperty(socket, "remoteAddress", { value: remoteAddress });
  return socket;
}

function ask(session: ClientHttp2Session, path: string): ClientHttp2Stream {
  return session
    .request({ ":path": path })
    .on("error", () => {})
    .resume();
}

async function statusOf(stream: ClientHttp2Stream): Promise<unknown> {
  const [headers]: { readonly ":status"?: number }[] = await once(stream, "response");
  return headers?.[":status"];
}

describe("streams of HTTP/2", () => {
  it("end the work that waits for them when their client resets them", LIMIT, async () => {
    await using one = await served({}, 1);
    const session = await one.connect();
    for (let round = 0; round < 3; round++) {
      const waiting = ask(session, WAITING);
      await new Promise<void>((resolve) => session.ping(() => resolve()));
      assert.equal(await statusOf(ask(session, WAITING)), 429, "the one place is taken");
      waiting.close(constants.NGHTTP2_CANCEL);
      await once(waiting, "close");
      await new Promise<void>((resolve) => session.ping(() => resolve()));
    }
    session.destroy();
  });

  it(
    "are no more of one source than may be, on all its connections, and are refused as not begun beyond",
    LIMIT,
    async () => {
      await using one = await served({ streamsPerSource: 3 });
      const sessions = [await one.connect(), await one.connect()] as const;
      const waiting = [ask(sessions[0], WAITING), ask(sessions[0], WAITING), ask(sessions[1], WAITING)];
      for (const session of sessions) await new Promise<void>((resolve) => session.ping(() => resolve()));
      for (const session of sessions) {
        const refused = ask(session, ANSWERED);
        await new Promise((resolve) => refused.once("close", resolve));
        assert.equal(refused.rstCode, constants.NGHTTP2_REFUSED_STREAM);
      }
      assert.deepEqual(Object.fromEntries(one.incidents.counts()), { "stream-refused-to-source": 2 });
      waiting[0]?.close(constants.NGHTTP2_CANCEL);
      await new Promise<void>((resolve) => sessions[0].ping(() => resolve()));
      assert.equal(await statusOf(ask(sessions[1], ANSWERED)), 200);
      for (const session of sessions) session.destroy();
    },
  );

  it("leave some to other sources, however many sources have as many as they may", () => {
    const limits = new ConnectionLimits({ streams: 100, streamsPerSource: 20 });
    const guard = limits.listener("http", { perSource: 1_000, inAll: 1_000, firstRequestMs: 1_000, idleMs: 1_000 });
    const connectionOf = (source: number) => guard.admit(socketFrom(`192.0.2.${source}`));
    for (let source = 1; source <= 20; source++) {
      const connection = connectionOf(source);
      assert.ok(connection?.stream() !== undefined, `of source ${source}`);
      while (connection.stream() !== undefined);
    }
    guard.close();
  });

  it("are closed with their connection when it resets very many of them, and cost no answers", LIMIT, async (test) => {
    await using one = await served({});
    const answers = test.mock.method(AnswerTurns.prototype, "wait");
    const session = await one.connect();
    const closed = once(session, "close");
    for (let count = 0; count < 2_000 && !session.destroyed; count++) {
      const stream = ask(session, "/v1/catalog/services");
      stream.close(constants.NGHTTP2_CANCEL);
      if (count % 100 === 99) await new Promise((resolve) => setImmediate(resolve));
    }
    await closed;
    assert.deepEqual(Object.fromEntries(one.incidents.counts()), { "session-flooded": 1 });
    assert.ok(answers.mock.callCount() <= 2_000, `${answers.mock.callCount()} looks for a turn`);
    const other = await one.connect();
    assert.equal(await statusOf(ask(other, ANSWERED)), 200);
    other.destroy();
  });

  it("may be reset by the hundred by a client that asks for much and changes its mind", LIMIT, async () => {
    await using one = await served({});
    const session = await one.connect();
    for (let round = 0; round < 8; round++) {
      const streams = Array.from({ length: 100 }, () => ask(session, WAITING));
      await new Promise<void>((resolve) => session.ping(() => resolve()));
      for (const stream of streams) stream.close(constants.NGHTTP2_CANCEL);
      await eventually(() => streams.every(({ closed }) => closed), "all are closed");
    }
    assert.equal(await statusOf(ask(session, ANSWERED)), 200);
    assert.deepEqual(Object.fromEntries(one.incidents.counts()), {});
    session.destroy();
  });
});
