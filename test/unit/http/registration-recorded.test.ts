import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readGolden } from "../../golden/read.js";
import { comparable } from "../../support/config-recording.js";
import { HttpPair } from "../../support/http-pair.js";

interface Recorded {
  readonly path: string;
  readonly body: unknown;
  readonly read?: string;
  readonly status: number;
  readonly answer: unknown;
  /** Read after a registration that was accepted. */
  readonly stored?: unknown;
}

const recorded: readonly Recorded[] = readGolden("registrations/1.21.4.jsonl")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line));

/** Nothing and an empty map are one; a proxy's extensions are shown by our agent, too; indexes are each server's own. */
function settled(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(settled);
  if (typeof value === "string") return value.replace(/(struct field )\S+( of type).*/, "$1…$2 …");
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).map(([key, item]): [string, unknown] => [key, settled(item)]);
  return Object.fromEntries(members.filter(([key, item]) => key !== "Index" && !(MAPS.has(key) && isNothing(item))));
}

const MAPS = new Set(["TaggedAddresses", "Meta"]);

function isNothing(value: unknown): boolean {
  return value === null || (typeof value === "object" && Object.keys(value).length === 0);
}

describe("registrations", { timeout: 60_000 }, () => {
  it("are taken, refused and given back as Consul 1.21 does, of several mistakes the same one told", async () => {
    await using pair = await HttpPair.start(10, {}, "agent1");
    const ask = async (method: string, path: string, body?: unknown): Promise<{ status: number; answer: unknown }> => {
      const sent = body === undefined ? {} : { body: JSON.stringify(body) };
      const { status, text } = await pair.a.ask(method, path, sent);
      return { status, answer: settled(comparable(text)) };
    };
    const differing: unknown[] = [];
    for (const { path, body, read, status, answer, stored } of recorded) {
      const expected = {
        status,
        answer: settled(answer),
        ...(stored === undefined ? {} : { stored: settled(stored) }),
      };
      const ours = await ask("PUT", path, body);
      const given =
        ours.status === 200 && read !== undefined ? { ...ours, stored: (await ask("GET", read)).answer } : ours;
      try {
        assert.deepEqual(given, expected);
      } catch {
        differing.push({ path, body, given, expected });
      }
    }
    assert.deepEqual(differing, []);
    assert.ok(recorded.length > 200);
  });

  it("answer for `null` and for what is not written, where Consul 1.21 breaks or says that all went well", async () => {
    await using pair = await HttpPair.start();
    const put = async (path: string, body: unknown): Promise<readonly [number, string]> => {
      const { status, text } = await pair.a.ask("PUT", path, { body: JSON.stringify(body) });
      return [status, text];
    };
    const node = { Node: "n", Address: "10.0.0.9" };
    assert.deepEqual(await put("/v1/catalog/register", { ...node, Service: { Service: "s", Proxy: null } }), [
      200,
      "true",
    ]);
    assert.deepEqual(await put("/v1/catalog/register", { ...node, Check: { Name: "c", Definition: null } }), [
      200,
      "true",
    ]);
    assert.deepEqual(await put("/v1/txn", [null]), [400, "Failed to parse body: an operation is null"]);
    for (const [fields, what] of [
      [{ Node: "nobody" }, "Missing node registration"],
      [{ Node: "n", ServiceID: "nobody" }, "Missing service registration"],
    ] as const) {
      const [status, text] = await put("/v1/txn", [{ Check: { Verb: "cas", Check: { CheckID: "new", ...fields } } }]);
      assert.deepEqual([status, JSON.parse(text)], [409, { Results: null, Errors: [{ OpIndex: 0, What: what }] }]);
    }
  });

  it("are found by the parts of their proxies", async () => {
    await using pair = await HttpPair.start();
    const registration = {
      Node: "n",
      Address: "10.0.0.9",
      Service: {
        Kind: "connect-proxy",
        Service: "p",
        Port: 1,
        Proxy: {
          DestinationServiceName: "web",
          TransparentProxy: { OutboundListenerPort: 7, DialedDirectly: true },
          AccessLogs: { Path: "/log" },
          Expose: { Checks: true, Paths: [{ Path: "/a", ListenerPort: 9 }] },
          EnvoyExtensions: [{ Name: "x" }],
          Upstreams: [
            { DestinationName: "db", DestinationPeer: "east", LocalBindPort: 3, MeshGateway: { Mode: "local" } },
          ],
        },
      },
    };
    await pair.a.ask("PUT", "/v1/catalog/register", { body: JSON.stringify(registration) });
    const found = async (filter: string): Promise<number> => {
      const path = `/v1/health/service/p?filter=${encodeURIComponent(filter)}`;
      const { status, text } = await pair.a.ask("GET", path);
      assert.equal(status, 200, text);
      return JSON.parse(text).length;
    };
    for (const [yes, no] of [
      ["TransparentProxy.OutboundListenerPort == 7", "TransparentProxy.DialedDirectly == false"],
      ['AccessLogs.Path == "/log"', "AccessLogs.Enabled == true"],
      ["Expose.Paths.ListenerPort == 9", "Expose.Checks == false"],
      ["EnvoyExtensions.Name == x", "EnvoyExtensions.Required == true"],
      ["Upstreams.DestinationPeer == east", "Upstreams.DestinationName == x"],
      ["Upstreams.MeshGateway.Mode == local", "Upstreams.LocalBindPort == 4"],
    ]) {
      assert.deepEqual([await found(`Service.Proxy.${yes}`), await found(`Service.Proxy.${no}`)], [1, 0], yes);
    }
  });
});
