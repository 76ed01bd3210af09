// A client's input may come back in the text of an error: never more of it than a bound, wherever the value stood.
import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { MAX_TOLD_CHARACTERS, toldText } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { type ServedPort, servePort } from "../../support/served-port.js";
import { lonelyHost } from "../rpc/support.js";

/** A value that stands in a body, and one that stands in a head. */
const BODY = "y".repeat(100_000);
const HEAD = "x".repeat(12_000);
/** Beside the text, what it stands in: JSON, and frames. */
const AROUND = 300;
const PEERING = "/hashicorp.consul.internal.peering.PeeringService";
const WATCH = "/peerage.watch.v1.WatchService";
const JSON_TYPE = { "Content-Type": "application/json" };

interface Told {
  readonly status: number;
  readonly text: string;
  readonly head: string;
}

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const node = { Node: "n", Address: "192.0.2.1" };
const get = (path: string): Asked => ({ method: "GET", path });
const put = (path: string, body: unknown): Asked => ({ method: "PUT", path, body: JSON.stringify(body) });
const post = (path: string, body: unknown): Asked => ({ ...put(path, body), method: "POST" });
const call = (method: string, body: unknown, headers: Readonly<Record<string, string>> = JSON_TYPE): Asked => ({
  ...post(method, body),
  headers,
});

const asked: readonly Asked[] = [
  get(`/v1/${HEAD}`),
  ...["dc", "index", "wait", "filter", "peer", "ns", "partition", "near", "tag"].map((name) =>
    get(`/v1/health/service/web?${name}=${HEAD}`),
  ),
  get(`/v1/health/service/web?stale&consistent&max_stale=${HEAD}`),
  get(`/v1/health/state/${HEAD}`),
  get(`/v1/agent/service/${HEAD}`),
  get(`/v1/agent/health/service/id/${HEAD}`),
  get(`/v1/agent/health/service/name/${HEAD}`),
  get(`/v1/peering/${HEAD}`),
  get(`/v1/config/${HEAD}`),
  get(`/v1/config/${HEAD}/name`),
  get(`/v1/query/${HEAD}`),
  get(`/v1/kv/${HEAD}`),
  get(`/v1/connect/intentions/match?by=${HEAD}`),
  put("/v1/catalog/register", { ...node, Node: BODY }),
  put("/v1/catalog/register", { ...node, ID: BODY }),
  put("/v1/catalog/register", { ...node, [BODY]: 1 }),
  put("/v1/catalog/register", { ...node, Datacenter: BODY }),
  put("/v1/catalog/register", { ...node, Service: { Service: "a", Kind: BODY } }),
  put("/v1/catalog/register", { ...node, Service: { Service: "a", Port: BODY } }),
  put("/v1/catalog/register", { ...node, Check: { Name: "a", ServiceID: BODY } }),
  put("/v1/catalog/register", { ...node, Check: { Name: "a", Status: BODY } }),
  put("/v1/agent/service/register", { Name: "a", Kind: BODY }),
  put("/v1/agent/service/register", { Name: "a", Check: { TTL: BODY } }),
  put("/v1/agent/check/register", { Name: "a", TTL: "10s", ServiceID: BODY }),
  put("/v1/agent/check/register", { Name: "a", TCP: BODY, Interval: BODY }),
  put("/v1/agent/check/update/a", { Status: BODY }),
  put(`/v1/agent/check/pass/${HEAD}`, {}),
  put(`/v1/agent/service/deregister/${HEAD}`, {}),
  put(`/v1/agent/maintenance?enable=${HEAD}`, {}),
  put(`/v1/agent/service/maintenance/${HEAD}?enable=true`, {}),
  put("/v1/config", { Kind: BODY, Name: "x" }),
  put("/v1/config", { Kind: "service-defaults", Name: "x", [BODY]: 1 }),
  put("/v1/config", { Kind: "service-defaults", Name: "x", Protocol: BODY }),
  put("/v1/config", { Kind: "service-resolver", Name: "x", DefaultSubset: BODY }),
  put("/v1/config", { Kind: "service-resolver", Name: "x", Subsets: { [BODY]: { Filter: BODY } } }),
  put("/v1/config", { Kind: "service-intentions", Name: "x", Sources: [{ Name: BODY, Action: BODY }] }),
  put(`/v1/config?cas=${HEAD}`, { Kind: "mesh" }),
  put("/v1/txn", [{ [BODY]: {} }]),
  put("/v1/txn", [{ Node: { Verb: BODY, Node: node } }]),
  put("/v1/txn", [{ Service: { Verb: "set", Node: BODY, Service: { Service: "x" } } }]),
  put("/v1/connect/intentions/exact?source=a&destination=b", { Action: BODY }),
  post("/v1/peering/token", { PeerName: BODY }),
  post("/v1/peering/token", { PeerName: "a", Meta: { [BODY]: BODY } }),
  post("/v1/peering/establish", { PeerName: "a", PeeringToken: BODY }),
  post("/v1/query", { Name: "x", Service: { Service: "y", Near: BODY }, DNS: { TTL: BODY } }),
  post("/v1/query", { Name: "x", Template: { Type: BODY, Regexp: `(${BODY}` }, Service: { Service: "y" } }),
  post("/v1/discovery-chain/a", { OverrideConnectTimeout: BODY }),
  call(`${PEERING}/PeeringRead`, { Name: BODY }),
  call(`${PEERING}/PeeringRead`, { [BODY]: 5 }),
  call(`${PEERING}/PeeringRead`, { Partition: BODY }),
  call(`${PEERING}/GenerateToken`, { PeerName: BODY }),
  call(`${PEERING}/Establish`, { PeerName: "a", PeeringToken: BODY }),
  call(`${PEERING}/TrustBundleListByService`, { Kind: BODY, ServiceName: BODY }),
  call(`${PEERING}/${HEAD}`, {}),
  ...["Connect-Timeout-Ms", "Connect-Protocol-Version", "Content-Encoding", "min-query-index", "max-query-time"].map(
    (name) => call(`${PEERING}/PeeringRead`, {}, { ...JSON_TYPE, [name]: HEAD }),
  ),
  call(`${PEERING}/PeeringRead`, {}, { "Content-Type": `application/${HEAD}` }),
  call(`${PEERING}/PeeringRead`, {}, { "Content-Type": "application/grpc-web+json", "grpc-timeout": HEAD }),
  call(`${WATCH}/WatchPeerings`, { name: BODY }, { "Content-Type": "application/connect+json" }),
];

describe("the text of an error", () => {
  const incidents = new Incidents();
  let one: ServedPort;
  before(async () => {
    one = await servePort(await lonelyHost({ incidents }), { maxMessageBytes: 4 * BODY.length });
  });
  after(() => one[Symbol.asyncDispose]());

  function ask({ method, path, body, headers = {} }: Asked): Promise<Told> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ host: "127.0.0.1", port: one.port, method, path, headers }, (incoming) => {
        let text = "";
        incoming.setEncoding("latin1");
        incoming.on("data", (part: string) => {
          text += part;
        });
        incoming.on("end", () => {
          const head = JSON.stringify({ ...incoming.headers, ...incoming.trailers });
          resolve({ status: incoming.statusCode ?? 0, text, head });
        });
      });
      outgoing.on("error", reject);
      outgoing.end(body);
    });
  }

  it("is bounded, whatever value of a request it repeats", async () => {
    let refused = 0;
    for (const one of asked) {
      const { status, text, head } = await ask(one);
      const what = `${status} ${one.method} ${one.path.slice(0, 60)} ${one.body?.slice(0, 60) ?? ""}`;
      assert.ok(text.length <= MAX_TOLD_CHARACTERS + AROUND, `${what}: ${text.length} characters`);
      assert.ok(head.length <= MAX_TOLD_CHARACTERS + 3 * AROUND, `${what}: ${head.length} characters of headers`);
      if (status >= 400) refused++;
    }
    assert.ok(refused > 45, `${refused} of ${asked.length} were refused`);
  });

  it("keeps the beginning and the end of a long one, and a short one as it is", () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 20 }),
        fc.nat(100_000),
        fc.string({ maxLength: 20 }),
        (first, length, last) => {
          const text = `${first}${"-".repeat(length)}${last}`;
          const told = toldText(text);
          if (text.length <= MAX_TOLD_CHARACTERS) assert.equal(told, text);
          assert.ok(told.length <= MAX_TOLD_CHARACTERS && told.startsWith(first) && told.endsWith(last));
        },
      ),
    );
  });

  it("is told also where a header that repeats a name could not hold it", async () => {
    for (const [name, wanted] of [
      ["a%0Ab", 400],
      ["a%0D%0AX-Evil:%201", 400],
      ["a%00b", 400],
      ["a%7Fb", 400],
      ["a%E2%82%ACb", 404],
      ["%F0%9F%98%80", 404],
    ] as const) {
      for (const kind of ["id", "name"]) {
        const { status, head } = await ask(get(`/v1/agent/health/service/${kind}/${name}`));
        assert.equal(status, wanted, name);
        assert.doesNotMatch(head, /"x-evil"/);
        if (wanted === 400) continue;
        assert.match(head, /"x-consul-reason":"[ -~]+"/);
      }
    }
    assert.equal(incidents.counts().get("answer-failed"), undefined);
  });
});
