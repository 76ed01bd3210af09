import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { type Authorizer, parseAclPolicies, policyAuthorizer } from "../../../src/http/index.js";
import { KeptBodies } from "../../../src/http/kept-bodies.js";
import { ImportStore } from "../../../src/stores/import-store.js";
import { eventually, HttpPair, type ServedHost } from "../../support/http-pair.js";

const address = "10.0.0.1";
const PEER = "peer=cluster-a";
const PATHS = [
  `/v1/catalog/services?${PEER}`,
  `/v1/catalog/nodes?${PEER}`,
  `/v1/catalog/node/n1?${PEER}`,
  `/v1/catalog/node-services/n1?${PEER}`,
  `/v1/health/state/any?${PEER}`,
  `/v1/health/node/n1?${PEER}`,
  `/v1/internal/ui/services?${PEER}`,
  "/v1/internal/ui/services",
  "/v1/internal/ui/nodes",
] as const;

const register = (served: ServedHost, name: string, status: string): Promise<bigint> =>
  served.host.catalog.register({
    node: "n1",
    address,
    service: { name, port: 80, tags: [`of-${name}`] },
    checks: [{ checkId: name, name, serviceId: name, status }],
  });

const byTokens = (): Authorizer =>
  policyAuthorizer(
    parseAclPolicies(`
      token "all" {
        secret = "all"
        rules {
          service_prefix "" { policy = "write" }
          node_prefix "" { policy = "read" }
        }
      }
      token "some" {
        secret = "some"
        rules { service "other" { policy = "read" } }
      }
    `),
  );

/** `b` has all services of `a`. */
async function peered(authorizer: Authorizer = byTokens()): Promise<HttpPair> {
  const pair = await HttpPair.start(10, { authorizer });
  const { a, b } = pair;
  await register(a, "web", "passing");
  await a.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
  const token = await a.host.peerings.generateToken({ peerName: "cluster-b" });
  await b.host.peerings.establish({ peerName: "cluster-a", token });
  await eventually(() => b.host.imports.count({ peer: "cluster-a" }).instances === 1, AbortSignal.timeout(20_000));
  return pair;
}

const text = async (served: ServedHost, path: string, token = "all"): Promise<string> =>
  (await served.ask("GET", `${path}${path.includes("?") ? "&" : "?"}token=${token}`)).text;

describe("whole answers that list imports", { timeout: 60_000 }, () => {
  it("are made once, until something changes that they tell", async () => {
    await using pair = await peered();
    const { a, b } = pair;
    const reads = (["watch", "instances", "nodes", "summaries"] as const).map((name) =>
      mock.method(ImportStore.prototype, name),
    );
    const count = (): number => reads.reduce((sum, each) => sum + each.mock.callCount(), 0);
    for (const path of PATHS) {
      const first = await text(b, path);
      assert.match(first, path.includes("node") ? /n1/ : /web/, path);
      const made = count();
      assert.equal(await text(b, path), first, path);
      assert.equal(count(), made, `${path} is read again`);
    }
    const before = await Promise.all(PATHS.map((path) => text(b, path)));
    await register(a, "late", "critical");
    const { imports } = b.host;
    await eventually(
      () => imports.service({ peer: "cluster-a", service: "late" }) !== undefined,
      AbortSignal.timeout(20_000),
    );
    for (const [index, path] of PATHS.entries()) {
      const after = await text(b, path);
      // A node tells which service told of it last.
      assert.notEqual(after, before[index], path);
      if (!path.includes("/catalog/nodes")) assert.match(after, /late/, path);
    }
    mock.restoreAll();
  });

  it("tell the same as all that is decoded for a filter that holds of all", async () => {
    await using pair = await peered();
    const { a, b } = pair;
    const at = { node: "n2", address };
    await register(a, "Web-2", "critical");
    await a.host.catalog.register({ ...at, service: { name: "web", port: 81, tags: ["late", "a"] } });
    await a.host.catalog.register({ ...at, checks: [{ checkId: "disk", name: "disk", status: "warning" }] });
    await b.host.catalog.register({ ...at, service: { name: "web", port: 82 } });
    await b.host.catalog.register({ ...at, service: { name: "local", port: 82 } });
    const proxy = {
      kind: "connect-proxy" as const,
      id: "p",
      name: "web-sidecar-proxy",
      port: 9,
      proxy: { destinationServiceName: "web" },
    };
    await b.host.catalog.register({ ...at, service: proxy });
    const { imports } = b.host;
    await eventually(() => imports.count({ peer: "cluster-a" }).instances === 3, AbortSignal.timeout(20_000));
    for (const [path, filter] of [
      [`/v1/catalog/services?${PEER}`, "ServiceName != none"],
      [`/v1/catalog/nodes?${PEER}`, "Node != none"],
      [`/v1/internal/ui/services?${PEER}`, "Service.Service != none"],
      ["/v1/internal/ui/services?", "Service.Service != none"],
    ] as const) {
      const whole = await text(b, path);
      assert.match(whole, /web|n1/i, path);
      assert.equal(await text(b, `${path}&filter=${encodeURIComponent(filter)}`), whole, path);
    }
  });

  it("are not for callers who may see less", async () => {
    await using pair = await peered();
    for (const path of PATHS) {
      const all = await text(pair.b, path);
      const some = await text(pair.b, path, "some");
      assert.match(all, path.includes("node") ? /n1/ : /web/, path);
      assert.ok(!/n1|web/.test(some.replaceAll("n1?", "")), `${path}: ${some}`);
      assert.equal(await text(pair.b, path), all);
    }
  });

  it("are not for a caller who has lost a right since", async () => {
    let mayRead = true;
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      resolve: async () => ({ accessorId: "one" }),
      allowed: () => mayRead,
    };
    await using pair = await peered(authorizer);
    for (const path of PATHS) {
      mayRead = true;
      assert.match(await text(pair.b, path), path.includes("node") ? /n1/ : /web/, path);
      mayRead = false;
      assert.ok(!/"n1"|web/.test(await text(pair.b, path)), path);
    }
  });

  it("end with the peering", async () => {
    await using pair = await peered();
    const { b } = pair;
    for (const path of PATHS) await text(b, path);
    await b.host.peerings.delete("cluster-a");
    await eventually(() => b.host.peerings.list().length === 0, AbortSignal.timeout(20_000));
    for (const path of PATHS) assert.ok(!/web|of-web/.test(await text(b, path)), path);
  });
});

describe("the place of a whole answer", () => {
  const fill = (bodies: KeptBodies, question: string, basis: string, ...pieces: readonly number[]): void => {
    const gathering = bodies.at(question, basis).gather();
    for (const size of pieces) gathering?.add(Buffer.alloc(size));
    gathering?.done();
  };

  it("has the answer of the same basis alone", () => {
    const bodies = new KeptBodies(1_000, new Incidents());
    fill(bodies, "a", "1", 10, 20);
    assert.equal(bodies.at("a", "1").body?.bytes, 30);
    assert.equal(bodies.at("b", "1").body, undefined);
    assert.equal(bodies.at("a", "2").body, undefined);
    assert.equal(bodies.at("a", "1").body, undefined);
    assert.equal(bodies.bytes, 0);
  });

  it("is filled by one call at a time, and by the next one where that gives up", () => {
    const bodies = new KeptBodies(1_000, new Incidents());
    const place = bodies.at("a", "1");
    const first = place.gather();
    first?.add(Buffer.alloc(10));
    assert.equal(place.gather(), undefined);
    first?.giveUp();
    assert.equal(bodies.bytes, 0);
    first?.done();
    assert.equal(bodies.at("a", "1").body, undefined);
    fill(bodies, "a", "1", 10);
    assert.equal(bodies.at("a", "1").body?.bytes, 10);
  });

  it("makes room for newer answers, and takes none that is too long, which it reports", () => {
    const incidents = new Incidents();
    const bodies = new KeptBodies(100, incidents);
    fill(bodies, "a", "1", 40);
    fill(bodies, "b", "1", 40);
    assert.equal(bodies.at("a", "1").body?.bytes, 40);
    fill(bodies, "c", "1", 30, 10);
    assert.equal(bodies.at("b", "1").body, undefined);
    assert.equal(bodies.at("a", "1").body?.bytes, 40);
    assert.equal(incidents.counts().get("kept-bodies-full"), undefined);
    fill(bodies, "d", "1", 90, 20);
    assert.equal(bodies.at("d", "1").body, undefined);
    assert.equal(bodies.bytes, 0);
    assert.equal(incidents.counts().get("kept-bodies-full"), 1);
  });
});
