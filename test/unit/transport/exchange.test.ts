import assert from "node:assert/strict";
import { test } from "node:test";
import { serveExchangeSecret } from "../../../src/transport/exchange.js";
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
