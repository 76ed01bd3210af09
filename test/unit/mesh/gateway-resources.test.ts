import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { JsonValue } from "@bufbuild/protobuf";
import {
  A_DOMAIN,
  at,
  B_DOMAIN,
  bundle,
  imported,
  instance,
  made,
  OWN_DOMAIN,
  root,
  sidecar,
  type ViewParts,
} from "../../support/mesh-view.js";

const gateway = instance({
  kind: "mesh-gateway",
  name: "mesh-gateway",
  address: "1.2.3.4",
  port: 8443,
  taggedAddresses: { lan: { address: "1.2.3.4", port: 8443 }, wan: { address: "198.18.0.1", port: 443 } },
});
const LISTENER = "default:1.2.3.4:8443";
const bundles = [bundle("peer-a", A_DOMAIN), bundle("peer-b", B_DOMAIN, [root(2)])];
const http = [{ kind: "proxy-defaults", name: "global", config: { protocol: "http" } }] as const;
const instances = { foo: [sidecar("foo")], bar: [sidecar("bar")], gir: [sidecar("gir")] };
const exported = [
  { service: "gir", peers: ["peer-b"] },
  { service: "foo", peers: ["peer-a"] },
  { service: "bar", peers: ["peer-a"] },
];
const TRUST = ["transportSocket", "typedConfig", "commonTlsContext", "validationContext"] as const;

function chains(parts: ViewParts): readonly JsonValue[] {
  const found = at(made(gateway, parts).shown.listener[LISTENER], "filterChains");
  assert.ok(Array.isArray(found));
  return found;
}

describe("a mesh gateway that exports", () => {
  it("passes connections of tcp services on by the names that peers know, and others by their own", () => {
    const found = chains({ bundles, instances, exported });
    assert.deepEqual(
      found.map((chain) => at(chain, "filterChainMatch", "serverNames")),
      [
        [`bar.default.default.peer-a.external.${OWN_DOMAIN}`],
        [`foo.default.default.peer-a.external.${OWN_DOMAIN}`],
        [`gir.default.default.peer-b.external.${OWN_DOMAIN}`],
        undefined,
      ],
    );
    assert.equal(
      at(found[0], "filters", 0, "typedConfig", "cluster"),
      `exported~bar.default.dc1.internal.${OWN_DOMAIN}`,
    );
    assert.equal(
      at(found[0], "filters", 0, "typedConfig", "statPrefix"),
      "mesh_gateway_local_peered.bar.default.default.dc1",
    );
    assert.equal(at(found[0], "transportSocket"), undefined);
    assert.equal(at(found[3], "filters", 0, "name"), "envoy.filters.network.sni_cluster");
    assert.equal(at(found[3], "filters", 1, "typedConfig", "cluster"), "");
    const { shown } = made(gateway, { bundles, instances, exported });
    assert.ok(shown.cluster[`bar.default.dc1.internal.${OWN_DOMAIN}`] !== undefined);
    assert.equal(at(shown.cluster[`exported~bar.default.dc1.internal.${OWN_DOMAIN}`], "transportSocket"), undefined);
  });

  it("ends connections of http services, and takes the callers of exactly the peers that the service is exported to", () => {
    const found = chains({ bundles, instances, exported, entries: http });
    const domains = (chain: JsonValue | undefined): readonly (JsonValue | undefined)[] => {
      const list = at(chain, ...TRUST, "customValidatorConfig", "typedConfig", "trustDomains");
      return Array.isArray(list) ? list.map((domain) => at(domain, "name")) : [];
    };
    assert.deepEqual(found.map(domains), [[OWN_DOMAIN, A_DOMAIN], [OWN_DOMAIN, A_DOMAIN], [OWN_DOMAIN, B_DOMAIN], []]);
    const filter = at(found[0], "filters", 0, "typedConfig");
    assert.equal(at(filter, "rds", "routeConfigName"), "bar");
    assert.equal(at(filter, "forwardClientCertDetails"), "SANITIZE_SET");
    const { shown } = made(gateway, { bundles, instances, exported, entries: http });
    assert.deepEqual(Object.keys(shown.route), ["bar", "foo", "gir"]);
    const cluster = shown.cluster[`exported~bar.default.dc1.internal.${OWN_DOMAIN}`];
    assert.deepEqual(at(cluster, ...TRUST, "matchTypedSubjectAltNames"), [
      { sanType: "URI", matcher: { exact: `spiffe://${OWN_DOMAIN}/ns/default/dc/dc1/svc/bar` } },
    ]);
  });

  it("has one chain for a service of several peers", () => {
    const [chain] = chains({ bundles, instances, exported: [{ service: "foo", peers: ["peer-b", "peer-a"] }] });
    assert.deepEqual(at(chain, "filterChainMatch", "serverNames"), [
      `foo.default.default.peer-a.external.${OWN_DOMAIN}`,
      `foo.default.default.peer-b.external.${OWN_DOMAIN}`,
    ]);
  });

  it("leaves http services out without a certificate, and says so; tcp services stay", () => {
    const entries = [{ kind: "service-defaults", name: "foo", protocol: "http" }] as const;
    const parts = { bundles, instances, exported, entries, gatewayLeaf: "the authority cannot sign" };
    assert.deepEqual(chains(parts).length, 3);
    assert.match(made(gateway, parts).missing.join(), /no certificate of the mesh gateway: the authority cannot sign/);
  });

  it("leaves out what has no instances, and passes no call on to another cluster", () => {
    assert.equal(chains({ bundles, exported }).length, 1);
    const entries = [
      { kind: "service-resolver", name: "foo", failover: { "*": { targets: [{ peer: "peer-b" }] } } },
    ] as const;
    const imports = { "foo?peer=peer-b": [imported("foo", "peer-b")] };
    const { shown } = made(gateway, { bundles, instances, exported, entries, imports });
    assert.deepEqual(
      Object.keys(shown.cluster).filter((name) => name.startsWith("exported~") || name.startsWith("failover")),
      ["bar", "foo", "gir"].map((name) => `exported~${name}.default.dc1.internal.${OWN_DOMAIN}`),
    );
    const redirected = [{ kind: "service-resolver", name: "foo", redirect: { peer: "peer-b" } }] as const;
    assert.equal(chains({ bundles, instances, exported, entries: redirected, imports }).length, 3);
  });

  it("has the whole chain of routes, splits and rewrites", () => {
    const entries = [
      { kind: "proxy-defaults", name: "global", config: { protocol: "http" } },
      {
        kind: "service-router",
        name: "foo",
        routes: [
          { match: { HTTP: { PathPrefix: "/split" } }, destination: { service: "bar", extra: { PrefixRewrite: "/" } } },
        ],
      },
      {
        kind: "service-splitter",
        name: "bar",
        splits: [
          { weight: 60, service: "gir" },
          { weight: 40, service: "bar" },
        ],
      },
    ] as const;
    const { shown } = made(gateway, { bundles, instances, exported: [{ service: "foo", peers: ["peer-a"] }], entries });
    const routes = at(shown.route["foo"], "virtualHosts", 0, "routes");
    assert.deepEqual(at(routes, 0, "match"), { prefix: "/split" });
    assert.equal(at(routes, 0, "route", "prefixRewrite"), "/");
    assert.deepEqual(at(routes, 0, "route", "weightedClusters", "clusters"), [
      { name: `exported~gir.default.dc1.internal.${OWN_DOMAIN}`, weight: 6000 },
      { name: `exported~bar.default.dc1.internal.${OWN_DOMAIN}`, weight: 4000 },
    ]);
    assert.equal(at(routes, 1, "route", "cluster"), `exported~foo.default.dc1.internal.${OWN_DOMAIN}`);
  });
});

describe("a mesh gateway that imports", () => {
  it("has a cluster under the name that sidecars give, in small letters, at the WAN addresses of the peer", () => {
    const imports = { "Web?peer=peer-a": [imported("Web", "peer-a", { wan: "10.40.1.1" })] };
    const { shown } = made(gateway, { bundles, imports });
    const name = `web.default.default.peer-a.external.${A_DOMAIN}`;
    assert.deepEqual(Object.keys(shown.cluster), [name]);
    assert.equal(
      at(shown.endpoint[name], "endpoints", 0, "lbEndpoints", 0, "endpoint", "address", "socketAddress", "address"),
      "10.40.1.1",
    );
    assert.equal(at(shown.cluster[name], "transportSocket"), undefined);
    assert.equal(chains({ bundles, imports }).length, 1);
  });

  it("passes over a service without a name, and says so", () => {
    const { shown, missing } = made(gateway, {
      bundles,
      imports: { "web?peer=peer-a": [imported("web", "peer-a", { meta: false })] },
    });
    assert.deepEqual(shown.cluster, {});
    assert.match(missing.join(), /no name under which to reach it/);
  });

  it("is told that there is no cluster where there is none", () => {
    assert.ok(made(gateway, {}).set.mayBeEmpty.has("cluster"));
    assert.ok(!made(sidecar("web"), {}).set.mayBeEmpty.has("cluster"));
  });
});

describe("a mesh gateway that carries the control plane", () => {
  const entries = [{ kind: "mesh", name: "mesh", peering: { peerThroughMeshGateways: true } }] as const;
  const server = (node: string, address: string, meta: Readonly<Record<string, string>>) =>
    instance({ name: "consul", port: 8300, meta }, { node, address });

  it("leads peers to our servers, and our servers to those of peers", () => {
    const servers = [
      server("replica", "127.0.0.10", { read_replica: "true", grpc_tls_port: "8503" }),
      server("node1", "127.0.0.1", { grpc_tls_port: "8503" }),
      server("node4", "127.0.0.4", { grpc_tls_port: "bad" }),
    ];
    const peerServers = [
      { serverName: "server.dc2.peering.c", addresses: ["5.6.7.8:5200"], index: 10n },
      { serverName: "server.dc2.peering.c", addresses: ["13.14.15.16:5200", "9.10.11.12:5200"], index: 20n },
      { serverName: "server.dc2.peering.d", addresses: ["d.example:8080"], index: 1n },
      { serverName: "server.dc2.peering.b", addresses: [], index: 1n },
    ];
    const { shown } = made(gateway, { entries, servers, peerServers });
    const own = `server.dc1.peering.${OWN_DOMAIN}`;
    assert.deepEqual(Object.keys(shown.cluster), [own, "server.dc2.peering.c", "server.dc2.peering.d"]);
    assert.deepEqual(at(shown.endpoint[own], "endpoints", 0, "lbEndpoints"), [
      { endpoint: { address: { socketAddress: { address: "127.0.0.1", portValue: 8503 } } } },
    ]);
    const addresses = at(shown.endpoint["server.dc2.peering.c"], "endpoints", 0, "lbEndpoints");
    assert.deepEqual(
      Array.isArray(addresses) && addresses.map((one) => at(one, "endpoint", "address", "socketAddress", "address")),
      ["13.14.15.16", "9.10.11.12"],
    );
    assert.equal(at(shown.cluster["server.dc2.peering.d"], "type"), "STRICT_DNS");
    assert.deepEqual(
      chains({ entries, servers, peerServers }).map((chain) => at(chain, "filters", 0, "typedConfig", "statPrefix")),
      [
        "mesh_gateway_local_peering_server.default.dc1",
        "mesh_gateway_remote_peering_servers.server.dc2.peering.c",
        "mesh_gateway_remote_peering_servers.server.dc2.peering.d",
        undefined,
      ],
    );
    assert.equal(chains({ servers, peerServers }).length, 1);
  });
});
