import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readGolden } from "../../golden/read.js";
import { comparable, pathRead } from "../../support/config-recording.js";
import { HttpPair } from "../../support/http-pair.js";

interface Recorded {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
  readonly answer: unknown;
  /** The entry as read after a write that was taken. */
  readonly stored?: unknown;
}

const recorded: readonly Recorded[] = readGolden("config-entries/1.21.4.jsonl")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line));

describe("config entries of every kind", { timeout: 60_000 }, () => {
  it("are taken, refused, filled in and given back as Consul 1.21 does", async () => {
    await using pair = await HttpPair.start();
    const ask = async (method: string, path: string, body?: unknown): Promise<{ status: number; answer: unknown }> => {
      const sent = body === undefined ? {} : { body: JSON.stringify(body) };
      const { status, text } = await pair.a.ask(method, path, sent);
      return { status, answer: comparable(text) };
    };
    const differing: unknown[] = [];
    for (const { method, path, body, status, answer, stored } of recorded) {
      const expected = { status, answer, ...(stored === undefined ? {} : { stored }) };
      const ours = await ask(method, path, body);
      const read = pathRead(method, ours.status, body);
      const given = read === undefined ? ours : { ...ours, stored: (await ask("GET", read)).answer };
      try {
        assert.deepEqual(given, expected);
      } catch {
        differing.push({ method, path, body, given, expected });
      }
    }
    assert.deepEqual(differing, []);
    assert.ok(recorded.length > 240);
  });

  it("are refused with a number that a double does not hold, and print a zero with its sign", async () => {
    await using pair = await HttpPair.start();
    const put = async (body: string): Promise<readonly [number, string]> => {
      const { status, text } = await pair.a.ask("PUT", "/v1/config", { body });
      return [status, text];
    };
    const refused = "Request decoding failed: json: cannot unmarshal number 1e400 into Go value of type float64";
    for (const body of ['{"Kind":"mesh","a":1e400}', '{"Kind":1,"a":[{"b":[1e400]}]}']) {
      assert.deepEqual(await put(body), [400, refused]);
    }
    assert.deepEqual(await put('{"Kind":"mesh","Meta":{"a":-0}}'), [200, "true"]);
    const { text } = await pair.a.ask("GET", "/v1/config/mesh/mesh");
    assert.deepEqual(JSON.parse(text).Meta, { a: "-0" });
  });
});
