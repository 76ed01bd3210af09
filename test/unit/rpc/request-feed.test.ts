import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import { systemClock } from "../../../src/base/environment.js";
import { feedInPieces } from "../../../src/rpc/request-feed.js";
import { eventually } from "../../support/hosts.js";

const REQUEST = "GET /v1/status/leader HTTP/1.1\r\nhost: x\r\n\r\n";

describe("the bytes of a connection", () => {
  it("wait while pieces of a kept answer are still to be written, and are parsed afterwards", async () => {
    const server = createServer({ pauseOnConnect: true }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const client = connect((server.address() as AddressInfo).port, "127.0.0.1");
    const [socket]: [Socket] = (await once(server, "connection")) as [Socket];
    try {
      let parsed = "";
      socket.on("data", (piece: Buffer) => {
        parsed += piece.toString();
      });
      const repeating = { isSending: true, answer: () => false, parsed: () => {} };
      feedInPieces(socket, () => false, systemClock, repeating);
      socket.resume();
      client.write(REQUEST);
      await eventually(() => socket.bytesRead > 0 && (socket.isPaused() || parsed !== ""), "the request has come");
      assert.equal(parsed, "");
      repeating.isSending = false;
      socket.resume();
      await eventually(() => parsed === REQUEST, "the request is parsed");
    } finally {
      client.destroy();
      socket.destroy();
      server.close();
    }
  });
});
