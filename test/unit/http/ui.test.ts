import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Authorizer, parseAclPolicies, policyAuthorizer } from "../../../src/http/index.js";
import { eventually, HttpPair, type ServedHost } from "../../support/http-pair.js";

interface Summary {
  readonly Name: string;
  readonly PeerName?: string;
  readonly [key: string]: unknown;
}

async function read<Answer>(served: ServedHost, path: string): Promise<Answer> {
  const { status, text } = await served.ask("GET", path);
  assert.equal(status, 200, text);
  return JSON.parse(text);
}

function named({ Name, PeerName }: Summary): string {
  return PeerName === undefined ? Name : `${Name} of ${PeerName}`;
}

const address = "10.0.0.1";

/** `a` exports web with a sidecar behind a gateway, and db; `b` imports them and has a web of its own. */
async function peered(options: { readonly authorizer?: Authorizer } = {}): Promise<HttpPair> {
  const pair = await HttpPair.start(10, options);
  const { a, b } = pair;
  await a.host.catalog.registerAll([
    {
      node: "n1",
      address,
      service: { name: "web", port: 80, tags: ["b", "a"], meta: { "external-source": "k8s" } },
      checks: [{ name: "of the node", status: "warning" }],
    },
    { node: "n2", address, service: { id: "w2", name: "web", port: 80, tags: ["a"] } },
    { node: "n2", address, check: { checkId: "w2", name: "w2", serviceId: "w2", status: "passing" } },
    { node: "n2", address, service: { name: "db", port: 81 } },
    {
      node: "n2",
      address,
      service: {
        kind: "connect-proxy",
        name: "web-sidecar-proxy",
        port: 82,
        proxy: { destinationServiceName: "web", mode: "transparent" },
      },
    },
    {
      node: "n2",
      address,
      service: { kind: "connect-proxy", name: "lost-proxy", port: 83, proxy: { destinationServiceName: "lost" } },
    },
    { node: "n1", address, service: { kind: "mesh-gateway", name: "mgw", port: 443 } },
    { node: "n1", address, service: { kind: "terminating-gateway", name: "tgw", port: 444 } },
    { node: "n3", address },
  ]);
  await a.host.configEntries.set({
    kind: "terminating-gateway",
    name: "tgw",
    services: [{ name: "db" }, { name: "x" }],
  });
  await a.host.exports.set({ services: ["web", "db"].map((name) => ({ name, consumers: [{ peer: "cluster-b" }] })) });
  await b.host.catalog.register({ node: "l1", address, service: { name: "web", port: 80 } });
  const token = await a.host.peerings.generateToken({ peerName: "cluster-b" });
  await b.host.peerings.establish({ peerName: "cluster-a", token });
  const signal = AbortSignal.timeout(20_000);
  await eventually(() => b.host.imports.count({ peer: "cluster-a" }).instances === 5, signal);
  return pair;
}

describe("the reads of Consul's pages", { timeout: 60_000 }, () => {
  it("sums up local services: tags, nodes, checks once each, proxies and gateways", async () => {
    await using pair = await peered();
    const all = await read<readonly Summary[]>(pair.a, "/v1/internal/ui/services");
    const summary = {
      Datacenter: "dc1",
      Tags: null,
      Nodes: ["n2"],
      ExternalSources: null,
      InstanceCount: 1,
      ChecksPassing: 0,
      ChecksWarning: 0,
      ChecksCritical: 0,
      GatewayConfig: {},
      TransparentProxy: false,
      ConnectNative: false,
      ConnectedWithProxy: false,
      ConnectedWithGateway: false,
    };
    // As Consul 1.21.4 answered to the same registrations.
    assert.deepEqual(all, [
      { Name: "db", ...summary, ConnectedWithGateway: true },
      { Name: "lost", ...summary, Datacenter: "", Nodes: null, InstanceCount: 0, ConnectedWithProxy: true },
      { Kind: "connect-proxy", Name: "lost-proxy", ...summary },
      { Kind: "mesh-gateway", Name: "mgw", ...summary, Nodes: ["n1"], ChecksWarning: 1 },
      {
        Kind: "terminating-gateway",
        Name: "tgw",
        ...summary,
        Nodes: ["n1"],
        ChecksWarning: 1,
        GatewayConfig: { AssociatedServiceCount: 2 },
      },
      {
        Name: "web",
        ...summary,
        Tags: ["a", "b"],
        Nodes: ["n1", "n2"],
        ExternalSources: ["k8s"],
        InstanceCount: 2,
        ChecksPassing: 1,
        ChecksWarning: 1,
        TransparentProxy: true,
        ConnectedWithProxy: true,
      },
      { Kind: "connect-proxy", Name: "web-sidecar-proxy", ...summary },
    ]);
  });

  it("lists contain local and imported services, these with their peer; proxies show at their service (ch4 case 66)", async () => {
    await using pair = await peered();
    const { b } = pair;
    const all = await read<readonly Summary[]>(b, "/v1/internal/ui/services");
    assert.deepEqual(all.map(named), [
      "db of cluster-a",
      "db-sidecar-proxy of cluster-a",
      "web",
      "web of cluster-a",
      "web-sidecar-proxy of cluster-a",
    ]);
    assert.deepEqual(
      all.map(({ ConnectedWithProxy }) => ConnectedWithProxy),
      [true, false, false, true, false],
    );
    const ofPeer = await read<readonly Summary[]>(b, "/v1/internal/ui/services?peer=Cluster-A");
    assert.deepEqual(
      ofPeer,
      all.filter(({ PeerName }) => PeerName !== undefined),
    );
    assert.deepEqual(await read(b, "/v1/internal/ui/services?peer=nobody"), []);
    const filtered = await read<readonly Summary[]>(b, "/v1/internal/ui/services?filter=Service.Service==web");
    assert.deepEqual(filtered.map(named), ["web", "web of cluster-a"]);
    const nodes = await read<readonly { readonly Node: string; readonly PeerName?: string }[]>(
      b,
      "/v1/internal/ui/nodes",
    );
    assert.deepEqual(
      nodes.map(({ Node, PeerName }) => [Node, PeerName]),
      [
        ["l1", undefined],
        ["n1", "cluster-a"],
        ["n2", "cluster-a"],
      ],
    );
    const imported = await read(b, "/v1/internal/ui/nodes?filter=PeerName==%22cluster-a%22");
    assert.deepEqual(imported, nodes.slice(1));
    assert.deepEqual(await read(b, "/v1/internal/ui/node/n2?peer=cluster-a"), nodes[2]);
  });

  it("counts nodes by their own checks, instances by theirs, and checks by name", async () => {
    await using pair = await peered();
    const tally = (Total: number, Warning = 0, Critical = 0): unknown => ({
      Total,
      Passing: Total - Warning - Critical,
      Warning,
      Critical,
    });
    await pair.a.host.catalog.register({
      node: "n2",
      address,
      checks: [
        { checkId: "w2", name: "w2", serviceId: "w2", status: "critical" },
        { checkId: "w2-too", name: "w2", serviceId: "w2", status: "warning" },
      ],
    });
    // As Consul 1.21.4 counts.
    assert.deepEqual(await read(pair.a, "/v1/internal/ui/catalog-overview"), {
      Nodes: [tally(3, 1)],
      Services: [
        { Name: "db", ...Object(tally(1)) },
        { Name: "lost-proxy", ...Object(tally(1)) },
        { Name: "mgw", ...Object(tally(1)) },
        { Name: "tgw", ...Object(tally(1)) },
        { Name: "web", ...Object(tally(2, 0, 1)) },
        { Name: "web-sidecar-proxy", ...Object(tally(1)) },
      ],
      Checks: [
        { Name: "of the node", ...Object(tally(1, 1)) },
        { Name: "w2", ...Object(tally(2, 1, 1)) },
      ],
    });
  });

  it("lists the services behind a terminating gateway, and waits for changes", async () => {
    await using pair = await peered();
    const { a } = pair;
    const path = "/v1/catalog/gateway-services/tgw";
    const answer = await a.ask("GET", path);
    assert.equal(answer.headers["x-consul-effective-consistency"], "leader");
    const link = (service: string, more: object): unknown => ({
      Gateway: { Name: "tgw" },
      Service: { Name: service },
      GatewayKind: "terminating-gateway",
      ...more,
      AutoHostRewrite: true,
    });
    const withoutIndexes = (text: string): unknown =>
      (JSON.parse(text) as readonly Record<string, unknown>[]).map(
        ({ CreateIndex: _c, ModifyIndex: _m, ...rest }) => rest,
      );
    assert.deepEqual(withoutIndexes(answer.text), [link("db", { ServiceKind: "service" }), link("x", {})]);
    const waiting = a.ask("GET", `${path}?index=${answer.headers["x-consul-index"]}`);
    await a.host.configEntries.set({
      kind: "terminating-gateway",
      name: "tgw",
      services: [{ name: "x", extra: { SNI: "x.example", DisableAutoHostRewrite: true } }, { name: "*" }],
    });
    const { AutoHostRewrite: _, ...x } = Object(link("x", { SNI: "x.example" }));
    assert.deepEqual(withoutIndexes((await waiting).text), [
      link("db", { FromWildcard: true, ServiceKind: "service" }),
      link("web", { FromWildcard: true, ServiceKind: "service" }),
      x,
    ]);
    assert.deepEqual(await read(a, "/v1/catalog/gateway-services/nope"), []);
  });

  it("shows a node with nothing on it, and answers 404 without a body for none", async () => {
    await using pair = await peered();
    assert.deepEqual(await read(pair.a, "/v1/internal/ui/node/N3"), {
      ID: "",
      Node: "n3",
      Address: address,
      TaggedAddresses: null,
      Meta: null,
      Services: [],
      Checks: [],
    });
    for (const path of ["/v1/internal/ui/node/none", "/v1/internal/ui/node/n3?peer=cluster-b"]) {
      const { status, text } = await pair.a.ask("GET", path);
      assert.deepEqual([status, text], [404, ""], path);
    }
    const nameless = await pair.a.ask("GET", "/v1/internal/ui/node/");
    assert.deepEqual([nameless.status, nameless.text], [400, "Missing node name"]);
  });

  it("a read waits for imports, and for their removal (D-37)", async () => {
    await using pair = await peered();
    const { a, b } = pair;
    const index = (await b.ask("GET", "/v1/internal/ui/services")).headers["x-consul-index"];
    const waiting = b.ask("GET", `/v1/internal/ui/services?index=${index}&wait=10m`);
    await a.host.catalog.deregister({ node: "n2", serviceId: "w2" });
    const changed = await waiting;
    const web = (JSON.parse(changed.text) as readonly Summary[]).find((one) => named(one) === "web of cluster-a");
    assert.equal(web?.["InstanceCount"], 1);
    const next = b.ask("GET", `/v1/internal/ui/services?index=${changed.headers["x-consul-index"]}&wait=10m`);
    await b.host.peerings.delete("cluster-a");
    let left = JSON.parse((await next).text) as readonly Summary[];
    // Removals may come in several commits.
    const signal = AbortSignal.timeout(20_000);
    while (left.length > 1) {
      signal.throwIfAborted();
      left = await read<readonly Summary[]>(b, "/v1/internal/ui/services");
    }
    assert.deepEqual(left.map(named), ["web"]);
  });

  it("names the services whose instances a peer is sent", async () => {
    await using pair = await peered();
    const { a } = pair;
    const path = "/v1/internal/ui/exported-services";
    const exported = await read<readonly Summary[]>(a, `${path}?peer=cluster-b`);
    assert.deepEqual(exported.map(named), ["db", "web"]);
    await a.host.configEntries.set({ kind: "service-resolver", name: "chain-only" });
    await a.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "cluster-b" }] }] });
    assert.deepEqual((await read<readonly Summary[]>(a, `${path}?peer=cluster-b`)).map(named), ["db", "web"]);
    assert.deepEqual(await read(a, `${path}?peer=nobody`), []);
    const nameless = await a.ask("GET", path);
    assert.deepEqual([nameless.status, nameless.text], [500, "must provide PeerName"]);
  });

  it("shows the records that the token may read: local data by name, imported data as one", async () => {
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      resolve: async (token) => ({ accessorId: token || undefined }),
      allowed: ({ accessorId }, { resource, access, name, scope }) =>
        accessorId === "web"
          ? access === "read" &&
            scope === undefined &&
            (resource === "node" || (resource === "service" && name === "web"))
          : accessorId === "all" && access === "read",
    };
    await using pair = await peered({ authorizer });
    const { b } = pair;
    const shown = async (path: string): Promise<readonly [number, string | undefined]> => {
      const { text, headers } = await b.ask("GET", path, { headers: { "X-Consul-Token": "web" } });
      return [JSON.parse(text).length, headers["x-consul-results-filtered-by-acls"]];
    };
    assert.deepEqual(await shown("/v1/internal/ui/services"), [1, "true"]);
    assert.deepEqual(await shown("/v1/internal/ui/nodes"), [1, "true"]);
    const seen = await b.ask("GET", "/v1/internal/ui/services?token=all");
    assert.equal(JSON.parse(seen.text).length, 5);
    const none = await b.ask("GET", "/v1/internal/ui/node/n2?peer=cluster-a&token=web");
    assert.deepEqual([none.status, none.text], [404, ""]);
  });

  it("imports are seen with service:write on any name, or with read on every service and node (RPC8)", async () => {
    const authorizer = policyAuthorizer(
      parseAclPolicies(`
        token "reads-one" {
          secret = "reads-one"
          rules { service "x" { policy = "read" } }
        }
        token "writes-one" {
          secret = "writes-one"
          rules { service "x" { policy = "write" } }
        }
        token "reads-all" {
          secret = "reads-all"
          rules {
            service_prefix "" { policy = "read" }
            node_prefix "" { policy = "read" }
          }
        }
      `),
    );
    await using pair = await peered({ authorizer });
    const seen = async (token: string): Promise<number> => {
      const headers = { "X-Consul-Token": token };
      const { text } = await pair.b.ask("GET", "/v1/health/service/web?peer=cluster-a", { headers });
      return JSON.parse(text).length;
    };
    assert.deepEqual([await seen("reads-one"), await seen("writes-one"), await seen("reads-all")], [0, 2, 2]);
  });
});
