import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  A_DOMAIN,
  at,
  B_DOMAIN,
  bundle,
  imported,
  instance,
  LEAF,
  made,
  OWN_DOMAIN,
  resourcesOf,
  root,
  sidecar,
  type ViewParts,
  viewOf,
} from "../../support/mesh-view.js";

const PAYMENTS = `payments.default.cloud.external.${A_DOMAIN}`;
const bundles = [bundle("cloud", A_DOMAIN)];

function calling(...upstreams: readonly Readonly<Record<string, string | number | object>>[]) {
  return sidecar("web", {
    upstreams: upstreams.map((each) => ({ destinationPeer: "cloud", localBindPort: 9090, ...each })) as never,
  });
}

const peered: ViewParts = { bundles, imports: { "payments?peer=cloud": [imported("payments", "cloud")] } };
const TLS = ["transportSocket", "typedConfig"] as const;
const VALIDATION = [...TLS, "commonTlsContext", "validationContext"] as const;

describe("a sidecar with an upstream of a peer", () => {
  it("is told a cluster with the name, the roots and the identities of the peer", () => {
    const { shown, missing } = made(calling({ destinationName: "payments" }), peered);
    const cluster = shown.cluster[PAYMENTS];
    assert.equal(at(cluster, "type"), "EDS");
    assert.equal(at(cluster, "altStatName"), undefined);
    assert.equal(at(cluster, "outlierDetection", "maxEjectionPercent"), 100);
    assert.deepEqual(at(cluster, "commonLbConfig"), { healthyPanicThreshold: {} });
    assert.equal(at(cluster, ...TLS, "sni"), `payments.default.default.cloud.external.${A_DOMAIN}`);
    assert.equal(at(cluster, ...VALIDATION, "trustedCa", "inlineString"), root(1));
    assert.deepEqual(at(cluster, ...VALIDATION, "matchTypedSubjectAltNames"), [
      { sanType: "URI", matcher: { exact: `spiffe://${A_DOMAIN}/ns/default/dc/dc9/svc/payments` } },
      { sanType: "URI", matcher: { exact: `spiffe://${A_DOMAIN}/gateway/mesh/dc/dc9` } },
    ]);
    const listener = shown.listener["payments?peer=cloud:127.0.0.1:9090"];
    assert.equal(at(listener, "trafficDirection"), "OUTBOUND");
    const filter = at(listener, "filterChains", 0, "filters", 0, "typedConfig");
    assert.equal(at(filter, "statPrefix"), "upstream_peered.payments.default.cloud");
    assert.equal(at(filter, "cluster"), PAYMENTS);
    const address = at(
      shown.endpoint[PAYMENTS],
      "endpoints",
      0,
      "lbEndpoints",
      0,
      "endpoint",
      "address",
      "socketAddress",
    );
    assert.deepEqual(address, { address: "198.18.0.1", portValue: 8080 });
    assert.deepEqual(missing, []);
  });

  it("takes the protocol from the peer, with routes in place", () => {
    const imports = { "payments?peer=cloud": [imported("payments", "cloud", { protocol: "http2" })] };
    const { shown } = made(calling({ destinationName: "payments", config: { protocol: "tcp" } }), { bundles, imports });
    const filter = at(
      shown.listener["payments?peer=cloud:127.0.0.1:9090"],
      "filterChains",
      0,
      "filters",
      0,
      "typedConfig",
    );
    assert.equal(at(filter, "routeConfig", "name"), "payments?peer=cloud");
    assert.equal(at(filter, "routeConfig", "virtualHosts", 0, "name"), "payments.default.cloud");
    assert.deepEqual(at(filter, "http2ProtocolOptions"), {});
    assert.ok(at(shown.cluster[PAYMENTS], "typedExtensionProtocolOptions") !== undefined);
    assert.deepEqual(shown.route, {});
  });

  it("carries an unknown protocol as bytes", () => {
    const imports = { "payments?peer=cloud": [imported("payments", "cloud", { protocol: "carrier-pigeon" })] };
    const { shown } = made(calling({ destinationName: "payments" }), { bundles, imports });
    const filter = at(shown.listener["payments?peer=cloud:127.0.0.1:9090"], "filterChains", 0, "filters", 0);
    assert.equal(at(filter, "name"), "envoy.filters.network.tcp_proxy");
  });

  it("goes through our own gateways with mode local, at their LAN addresses, and not with none", () => {
    const gateways = [
      instance({
        kind: "mesh-gateway",
        name: "mesh-gateway",
        address: "10.0.0.1",
        port: 1234,
        taggedAddresses: { wan: { address: "172.100.0.14", port: 8080 } },
      }),
    ];
    const expected: Readonly<Record<string, string>> = {
      "": "198.18.0.1",
      none: "198.18.0.1",
      remote: "198.18.0.1",
      local: "10.0.0.1",
    };
    for (const [mode, address] of Object.entries(expected)) {
      const { shown } = made(calling({ destinationName: "payments", meshGateway: { mode } }), { ...peered, gateways });
      const place = at(
        shown.endpoint[PAYMENTS],
        "endpoints",
        0,
        "lbEndpoints",
        0,
        "endpoint",
        "address",
        "socketAddress",
      );
      assert.equal(at(place, "address"), address, mode);
      assert.equal(at(shown.cluster[PAYMENTS], ...TLS, "sni"), `payments.default.default.cloud.external.${A_DOMAIN}`);
    }
  });

  it("looks up names of gateways: one alone as LOGICAL_DNS, several as STRICT_DNS, and addresses beside names not at all", () => {
    const named = (...hosts: readonly string[]): ViewParts => ({
      bundles,
      imports: {
        "payments?peer=cloud": hosts.map((wan, node) =>
          imported("payments", "cloud", { wan, node: `gateway-${node}` }),
        ),
      },
    });
    const one = made(calling({ destinationName: "payments" }), named("a.example", "198.18.0.1")).shown;
    assert.equal(at(one.cluster[PAYMENTS], "type"), "LOGICAL_DNS");
    assert.deepEqual(one.endpoint, {});
    const several = made(calling({ destinationName: "payments" }), named("b.example", "a.example")).shown;
    assert.equal(at(several.cluster[PAYMENTS], "type"), "STRICT_DNS");
    const list = at(several.cluster[PAYMENTS], "loadAssignment", "endpoints", 0, "lbEndpoints");
    assert.ok(Array.isArray(list) && list.length === 2);
  });

  it("says what is missing, and is told nothing of an upstream without a bundle, instances, or a name and identity to check", () => {
    const instances = [imported("payments", "cloud")];
    const cases: readonly (readonly [ViewParts, RegExp])[] = [
      [{ imports: { "payments?peer=cloud": instances } }, /trust bundle of the peer has not come/],
      [{ bundles }, /being read/],
      [{ bundles, imports: { "payments?peer=cloud": [] } }, /does not export it to the mesh/],
      [
        { bundles, imports: { "payments?peer=cloud": [imported("payments", "cloud", { meta: false })] } },
        /says nothing of how/,
      ],
      [
        { bundles: [bundle("cloud", OWN_DOMAIN)], imports: { "payments?peer=cloud": instances } },
        /names our trust domain/,
      ],
      [{ bundles: [bundle("cloud", A_DOMAIN, [])], imports: { "payments?peer=cloud": instances } }, /no roots/],
      [
        { bundles: [bundle("cloud", A_DOMAIN, ["nonsense"])], imports: { "payments?peer=cloud": instances } },
        /no certificate/,
      ],
    ];
    for (const [parts, why] of cases) {
      const { shown, missing } = made(calling({ destinationName: "payments" }), parts);
      assert.deepEqual(Object.keys(shown.cluster), ["local_app"]);
      assert.deepEqual(
        Object.keys(shown.listener),
        ["public_listener:10.0.0.1:9999"].map((name) => name.replace("10.0.0.1", "0.0.0.0")),
      );
      assert.match(missing.join("\n"), why);
    }
  });

  it("is led to no address that may not be dialed", () => {
    const instances = ["169.254.169.254", "198.18.0.1"].map((wan, node) =>
      imported("payments", "cloud", { wan, node: `${node}` }),
    );
    const parts = { bundles, imports: { "payments?peer=cloud": instances }, forbidden: ["169.254.169.254"] };
    const list = at(
      made(calling({ destinationName: "payments" }), parts).shown.endpoint[PAYMENTS],
      "endpoints",
      0,
      "lbEndpoints",
    );
    assert.ok(Array.isArray(list));
    const addresses = list.map((one) => at(one, "endpoint", "address", "socketAddress", "address"));
    assert.deepEqual(addresses, ["198.18.0.1"]);
  });

  it("counts weights, warnings and maintenance", () => {
    const check = (status: string, checkId = "c") => ({ ...imported("x", "y").checks[0], checkId, status });
    const states: readonly (readonly [string, string])[] = [
      ["passing", "HEALTHY"],
      ["warning", "HEALTHY"],
      ["critical", "UNHEALTHY"],
      ["maintenance", "UNHEALTHY"],
    ];
    for (const [status, health] of states) {
      const told = { ...imported("payments", "cloud"), checks: [check(status) as never] };
      const { shown } = made(calling({ destinationName: "payments" }), {
        bundles,
        imports: { "payments?peer=cloud": [told] },
      });
      assert.equal(at(shown.endpoint[PAYMENTS], "endpoints", 0, "lbEndpoints", 0, "healthStatus"), health, status);
    }
  });
});

describe("a sidecar with a local upstream", () => {
  const db = instance({
    kind: "connect-proxy",
    id: "db-p",
    name: "db-p",
    port: 8080,
    address: "10.10.1.1",
    proxy: { destinationServiceName: "db" },
  });
  const upstream = (more: object = {}) =>
    sidecar("web", { upstreams: [{ destinationName: "db", localBindPort: 9191, ...more }] as never });
  const base = `db.default.dc1.internal.${OWN_DOMAIN}`;

  it("is told a cluster with the identity of the service", () => {
    const { shown } = made(upstream(), { instances: { db: [db] } });
    assert.equal(at(shown.cluster[base], "altStatName"), base);
    assert.equal(at(shown.cluster[base], ...TLS, "sni"), base);
    assert.deepEqual(at(shown.cluster[base], ...VALIDATION, "matchTypedSubjectAltNames"), [
      { sanType: "URI", matcher: { exact: `spiffe://${OWN_DOMAIN}/ns/default/dc/dc1/svc/db` } },
    ]);
    const filter = at(shown.listener["db:127.0.0.1:9191"], "filterChains", 0, "filters", 0, "typedConfig");
    assert.equal(at(filter, "statPrefix"), "upstream.db.default.default.dc1");
  });

  it("fails over to a peer by an aggregate of one cluster for each side, each with roots of its own", () => {
    const entries = [
      {
        kind: "service-resolver",
        name: "db",
        connectTimeout: "33s",
        failover: { "*": { targets: [{ peer: "cluster-01" }] } },
      },
    ] as const;
    const { shown } = made(upstream(), {
      entries,
      instances: { db: [db] },
      bundles: [bundle("cluster-01", "peer1.domain", [root(2)])],
      imports: { "db?peer=cluster-01": [imported("db", "cluster-01")] },
    });
    assert.deepEqual(at(shown.cluster[base], "clusterType", "typedConfig", "clusters"), [
      `failover-target~0~${base}`,
      `failover-target~1~${base}`,
    ]);
    assert.equal(at(shown.cluster[`failover-target~0~${base}`], ...VALIDATION, "trustedCa", "inlineString"), root(0));
    assert.equal(at(shown.cluster[`failover-target~1~${base}`], ...VALIDATION, "trustedCa", "inlineString"), root(2));
    assert.equal(at(shown.cluster[`failover-target~1~${base}`], "connectTimeout"), "33s");
    assert.equal(at(shown.cluster[`failover-target~1~${base}`], "outlierDetection", "maxEjectionPercent"), undefined);
    assert.ok(shown.endpoint[`failover-target~1~${base}`] !== undefined);
  });

  it("follows a redirect to a peer", () => {
    const entries = [{ kind: "service-resolver", name: "db", redirect: { peer: "cluster-01" } }] as const;
    const name = "db.default.cluster-01.external.peer1.domain";
    const parts = { entries, imports: { "db?peer=cluster-01": [imported("db", "cluster-01")] } };
    const { shown } = made(upstream(), { ...parts, bundles: [bundle("cluster-01", "peer1.domain")] });
    assert.equal(at(shown.cluster[name], ...TLS, "sni"), `db.default.default.cluster-01.external.${A_DOMAIN}`);
    assert.equal(
      at(shown.listener["db:127.0.0.1:9191"], "filterChains", 0, "filters", 0, "typedConfig", "cluster"),
      name,
    );
    const without = made(upstream(), parts);
    assert.deepEqual(Object.keys(without.shown.cluster), ["local_app"]);
    assert.match(without.missing.join(), /trust bundle/);
  });
});

describe("the inbound listener of a sidecar", () => {
  const NAME = "public_listener:0.0.0.0:9999";

  it("judges callers by our roots alone, and with callers of peers by the roots of the trust domain that they name", () => {
    const alone = made(sidecar("web"), {}).shown.listener[NAME];
    assert.equal(at(alone, "filterChains", 0, ...VALIDATION, "trustedCa", "inlineString"), root(0));
    assert.equal(at(alone, "filterChains", 0, ...TLS, "requireClientCertificate"), true);
    const both = made(sidecar("web"), { inbound: [bundle("peer-b", B_DOMAIN), bundle("peer-a", A_DOMAIN)] }).shown
      .listener[NAME];
    assert.equal(at(both, "filterChains", 0, ...VALIDATION, "trustedCa"), undefined);
    const domains = at(both, "filterChains", 0, ...VALIDATION, "customValidatorConfig", "typedConfig", "trustDomains");
    assert.deepEqual(Array.isArray(domains) && domains.map((domain) => at(domain, "name")), [
      OWN_DOMAIN,
      A_DOMAIN,
      B_DOMAIN,
    ]);
  });

  it("never takes the roots of a peer for our own trust domain, and names a trust domain of two peerings once", () => {
    const inbound = [bundle("evil", OWN_DOMAIN.toUpperCase()), bundle("a1", A_DOMAIN), bundle("a2", A_DOMAIN)];
    const { shown, missing } = made(sidecar("web"), { inbound });
    const domains = at(
      shown.listener[NAME],
      "filterChains",
      0,
      ...VALIDATION,
      "customValidatorConfig",
      "typedConfig",
      "trustDomains",
    );
    assert.deepEqual(
      Array.isArray(domains) &&
        domains.map((domain) => [at(domain, "name"), at(domain, "trustBundle", "inlineString")]),
      [
        [OWN_DOMAIN, root(0)],
        [A_DOMAIN, root(1)],
      ],
    );
    assert.match(missing.join(), /evil.*names our trust domain/);
  });

  it("waits without a certificate or without roots", () => {
    for (const parts of [{ leaf: "the authority cannot sign" }, { rootPems: [] }]) {
      const told = resourcesOf(sidecar("web"), viewOf(parts));
      assert.equal(told.type, "not-ready");
    }
    const told = resourcesOf(sidecar("web"), viewOf({ leaf: "the authority cannot sign" }));
    assert.match(told.type === "not-ready" ? told.waitsFor.join() : "", /service "web": the authority cannot sign/);
  });

  it("offers the protocols of the service, and tells the caller's identity on where requests are looked at", () => {
    const offered = (protocol: string) =>
      at(
        made(sidecar("web", { config: { protocol } }), {}).shown.listener[NAME],
        "filterChains",
        0,
        ...TLS,
        "commonTlsContext",
        "alpnProtocols",
      );
    assert.deepEqual(offered("tcp"), undefined);
    assert.deepEqual(offered("http"), ["http/1.1"]);
    assert.deepEqual(offered("grpc"), ["h2", "http/1.1"]);
    const http = at(
      made(sidecar("web", { config: { protocol: "http" } }), {}).shown.listener[NAME],
      "filterChains",
      0,
      "filters",
      0,
      "typedConfig",
    );
    assert.equal(at(http, "forwardClientCertDetails"), "APPEND_FORWARD");
    assert.equal(at(http, "httpFilters", 0, "name"), "envoy.filters.http.rbac");
    assert.equal(at(http, "httpFilters", 1, "name"), "envoy.filters.http.header_to_metadata");
  });
});

describe("settings that are not served", () => {
  const extended = (required: boolean) =>
    [
      {
        kind: "proxy-defaults",
        name: "global",
        extra: { EnvoyExtensions: [{ Name: "builtin/ext-authz", Required: required, Arguments: {} }] },
      },
    ] as const;

  it("are named, and a proxy with an extension that is required is told nothing", () => {
    const { missing } = made(sidecar("web", { config: { envoy_public_listener_json: "{}" } }), {
      entries: extended(false),
    });
    assert.match(missing.join(), /envoy_public_listener_json.*extension "builtin\/ext-authz"/);
    for (const proxy of [
      sidecar("web"),
      instance({ kind: "mesh-gateway", name: "gateway", address: "127.0.0.1", port: 8443 }),
    ]) {
      const told = resourcesOf(proxy, viewOf({ entries: extended(true) }));
      assert.equal(told.type, "not-ready");
      assert.match(told.type === "not-ready" ? told.waitsFor.join() : "", /builtin\/ext-authz/);
    }
  });
});

describe("a transparent proxy", () => {
  const transparent = sidecar("web", { mode: "transparent" });
  const parts: ViewParts = {
    ...peered,
    virtualIps: { "payments?peer=cloud": "240.0.0.2" },
  };

  it("knows services of peers by their virtual addresses", () => {
    const { shown } = made(transparent, parts);
    const outbound = shown.listener["outbound_listener:127.0.0.1:15001"];
    assert.deepEqual(at(outbound, "filterChains", 0, "filterChainMatch", "prefixRanges"), [
      { addressPrefix: "240.0.0.2", prefixLen: 32 },
    ]);
    assert.equal(at(outbound, "defaultFilterChain", "filters", 0, "typedConfig", "cluster"), "original-destination");
    assert.ok(shown.cluster[PAYMENTS] !== undefined && shown.cluster["original-destination"] !== undefined);
  });

  it("passes nothing on with destinations of the mesh only", () => {
    const entries = [
      { kind: "mesh", name: "mesh", extra: { TransparentProxy: { MeshDestinationsOnly: true } } },
    ] as const;
    const { shown } = made(transparent, { ...parts, entries });
    assert.equal(shown.cluster["original-destination"], undefined);
    assert.equal(at(shown.listener["outbound_listener:127.0.0.1:15001"], "defaultFilterChain"), undefined);
  });

  it("gives an address that two services have to one of them", () => {
    const shared = imported("refunds", "cloud");
    const hijacking = {
      ...shared,
      service: {
        ...shared.service,
        taggedAddresses: { ...shared.service.taggedAddresses, virtual: { address: "240.0.0.2", port: 0 } },
      },
    };
    const { shown } = made(transparent, {
      ...parts,
      imports: { ...peered.imports, "refunds?peer=cloud": [hijacking] },
      virtualIps: { ...parts.virtualIps, "refunds?peer=cloud": "240.0.0.3" },
    });
    const chains = at(shown.listener["outbound_listener:127.0.0.1:15001"], "filterChains");
    assert.ok(Array.isArray(chains));
    const prefixes = chains.flatMap((chain) => at(chain, "filterChainMatch", "prefixRanges"));
    assert.deepEqual(prefixes, [
      { addressPrefix: "240.0.0.2", prefixLen: 32 },
      { addressPrefix: "240.0.0.3", prefixLen: 32 },
    ]);
  });
});

describe("secrets by themselves", () => {
  it("leave no PEM in clusters and listeners, and every one that is named exists", () => {
    const parts = { ...peered, inbound: [bundle("peer-a", A_DOMAIN)] };
    const { shown } = made(calling({ destinationName: "payments" }), parts, "sds");
    const text = JSON.stringify([shown.cluster, shown.listener]);
    assert.doesNotMatch(text, /CERTIFICATE|the key/);
    const names = [...text.matchAll(/"name":"((?:leaf|roots|union)\/[^"]*)"/g)].map(([, name]) => name);
    assert.deepEqual([...new Set(names)].sort(), Object.keys(shown.secret));
    assert.deepEqual(Object.keys(shown.secret), ["leaf/web", "roots/peer/cloud", "union/web"]);
    const combined = at(
      shown.cluster[PAYMENTS],
      ...TLS,
      "commonTlsContext",
      "combinedValidationContext",
      "defaultValidationContext",
    );
    assert.ok(at(combined, "matchTypedSubjectAltNames", 0) !== undefined);
  });

  it("change alone when a certificate is renewed", () => {
    const versions = (leaf: typeof LEAF) => {
      const view = { ...viewOf(peered), leaf: () => leaf };
      const told = resourcesOf(calling({ destinationName: "payments" }), view, "sds");
      assert.equal(told.type, "ready");
      return told.type === "ready" ? told.set.resources : undefined;
    };
    const [before, after] = [versions(LEAF), versions({ ...LEAF, certificateChainPem: "another one" })];
    for (const type of ["cluster", "listener", "endpoint", "route"] as const)
      assert.deepEqual(after?.[type], before?.[type]);
    assert.notDeepEqual(after?.secret, before?.secret);
  });
});

describe("the same state", () => {
  it("makes the same bytes in whichever order its parts come", () => {
    const names = ["payments", "refunds", "orders"];
    const peers = ["cloud", "edge"];
    const domains: Readonly<Record<string, string>> = { cloud: A_DOMAIN, edge: B_DOMAIN };
    const upstreams = names.flatMap((destinationName, service) =>
      peers.map((destinationPeer, peer) => ({
        destinationName,
        destinationPeer,
        localBindPort: 9000 + 10 * service + peer,
      })),
    );
    const told = peers.flatMap((peer) =>
      names.map((name) => {
        const trustDomain = domains[peer] ?? "";
        const wide = ["198.18.0.1", "198.18.0.2", "198.18.0.3"];
        const instances = wide.map((wan, node) =>
          imported(name, peer, { wan, node: `gateway-${node}`, protocol: "http", trustDomain }),
        );
        return [`${name}?peer=${peer}`, instances] as const;
      }),
    );
    const sources = [
      { name: "a", peer: "cloud", action: "allow", precedence: 9 },
      { name: "b", action: "allow", precedence: 9 },
      { name: "*", peer: "cloud", action: "deny", precedence: 8 },
    ] as const;
    const make = (order: <Item>(list: readonly Item[]) => readonly Item[]) => {
      const all = order(peers.map((peer) => bundle(peer, domains[peer] ?? "")));
      const view = viewOf({
        bundles: all,
        inbound: all,
        entries: [{ kind: "service-intentions", name: "web", sources: [...order(sources)] }],
        imports: Object.fromEntries(order(told).map(([name, instances]) => [name, order(instances)])),
      });
      const proxy = sidecar("web", { config: { protocol: "http" }, upstreams: [...order(upstreams)] as never });
      const resources = resourcesOf(proxy, view);
      return resources.type === "ready" ? resources.set.resources : undefined;
    };
    const expected = make((list) => list);
    assert.equal(expected?.cluster.size, 7);
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat()), (numbers) => {
        const order = <Item>(list: readonly Item[]): readonly Item[] =>
          list
            .map((item) => ({ item, rank: numbers.next().value }))
            .sort((left, right) => left.rank - right.rank)
            .map(({ item }) => item);
        assert.deepEqual(make(order), expected);
      }),
      { numRuns: 30 },
    );
  });
});
