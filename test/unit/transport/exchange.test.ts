import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, connectStatus } from "../../../src/transport/connect.js";
import { serveExchangeSecret } from "../../../src/transport/exchange.js";
import { MAX_MESSAGE_CHARACTERS } from "../../../src/transport/grpc-status.js";
import type { ReplicationStream } from "../../../src/transport/transport.js";
import type { Status } from "../../../src/wire/status.js";

test("a caller that does not say what it wants is not waited for", async () => {
  let end: (messages: undefined) => void = () => {};
  const closes: (Status | undefined)[] = [];
  const silent: ReplicationStream = {
    remoteAddress: "198.51.100.1:1",
    receive: () =>
      new Promise((resolve) => {
        end = resolve;
      }),
    send: async () => {},
    halfClose: async () => {},
    async close(status) {
      closes.push(status);
      end(undefined);
    },
  };
  const exchangeSecret = async () => assert.fail("nothing was asked");
  // The bound alone does not keep a program alive.
  const alive = setInterval(() => {}, 60_000);
  await serveExchangeSecret(silent, { exchangeSecret, stream: () => {} }, 1).finally(() => clearInterval(alive));
  assert.deepEqual(closes[0], { code: 4, message: "the request took too long to arrive" });
});

test("an acceptor's error text is cut where that of a stream is", () => {
  const error = new ConnectError("x".repeat(MAX_MESSAGE_CHARACTERS + 1), Code.Unknown);
  assert.deepEqual(connectStatus(error), { code: 2, message: "x".repeat(MAX_MESSAGE_CHARACTERS) });
});
