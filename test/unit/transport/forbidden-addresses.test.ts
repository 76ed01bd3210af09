import assert from "node:assert/strict";
import { test } from "node:test";
import { AddressRanges } from "../../../src/base/address-ranges.js";
import { grpcTransport } from "../../../src/transport/grpc.js";
import type { DialTarget } from "../../../src/transport/transport.js";
import { fixedIdentity, newAuthority, newLeaf, SERVER_NAME } from "./certificates.js";
import { failure, never, startAcceptor } from "./grpc-harness.js";

const root = await newAuthority("Root");
const identity = fixedIdentity(await newLeaf(root));
const loopback = new AddressRanges(["127.0.0.0/8", "::1"]);

test("an address that may not be dialed is not connected to, whatever it is called, with TLS and without", async () => {
  for (const [options, caPems] of [
    [{ listen: "127.0.0.1:0" }, [root.certificatePem]],
    [{ plaintextListen: "127.0.0.1:0" }, []],
  ] as const) {
    const asked: string[] = [];
    await using acceptor = await startAcceptor(options, identity, async () => {
      asked.push("exchange");
      return { streamSecret: "granted" };
    });
    await using dialer = grpcTransport();
    const port = acceptor.address.split(":").at(-1);
    const judged = new Set<string>();
    const target = (host: string, mayDial: (ip: string) => boolean): DialTarget => ({
      address: `${host}:${port}`,
      serverName: SERVER_NAME,
      caPems,
      mayDial: (ip) => {
        judged.add(ip);
        return mayDial(ip);
      },
    });
    const request = { peerId: "id", establishmentSecret: "secret" };
    // The address of a name, or of another spelling of 127.0.0.1, is known once it is looked up.
    for (const host of [
      "127.0.0.1",
      "localhost",
      "",
      "2130706433",
      "0x7f000001",
      "0177.0.0.1",
      "127.1",
      "[::ffff:127.0.0.1]",
      "[::1]",
    ]) {
      judged.clear();
      const forbidding = target(host, (ip) => !loopback.includes(ip));
      for (const call of [
        () => dialer.openStream(forbidding, { signal: never }),
        () => dialer.exchangeSecret(forbidding, request, { timeoutMs: 10_000, signal: never }),
      ]) {
        const error = await failure(call());
        assert.deepEqual([error.code, error.status], ["unavailable", 14]);
        assert.match(
          error.message,
          /transport: Error while dialing: \S*:\d+ must not be dialed: it is \S*(?:127\.0\.0\.1|::1)/,
          host,
        );
      }
      assert.ok(
        [...judged].some((ip) => loopback.includes(ip)),
        host,
      );
    }
    assert.deepEqual(asked, []);
    for (const host of ["127.0.0.1", "localhost"]) {
      judged.clear();
      await using _ = { [Symbol.asyncDispose]: () => stream.close() };
      const stream = await dialer.openStream(
        target(host, () => true),
        { signal: never },
      );
      assert.ok(judged.has("127.0.0.1"));
    }
    // Of several addresses of a name those that may be dialed are.
    const stream = await dialer.openStream(
      target("localhost", (ip) => ip === "127.0.0.1"),
      { signal: never },
    );
    await stream.close();
  }
});
