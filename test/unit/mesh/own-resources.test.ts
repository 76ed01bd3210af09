import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { JsonValue } from "@bufbuild/protobuf";
import type { ServiceRegistration } from "../../../src/model/registration.js";
import { A_DOMAIN, at, bundle, imported, instance, made, sidecar } from "../../support/mesh-view.js";

type Parts = Parameters<typeof made>[1];
type Json = Readonly<Record<string, unknown>>;

const TYPE = "type.googleapis.com/envoy";
const MANAGER = `${TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`;
const TCP = {
  name: "envoy.filters.network.tcp_proxy",
  typedConfig: {
    "@type": `${TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy`,
    statPrefix: "own",
    cluster: "local_app",
  },
};
const http = (name = "envoy.filters.network.http_connection_manager", type = MANAGER) => ({
  name,
  typed_config: {
    "@type": type,
    stat_prefix: "own",
    route_config: { name: "own", virtual_hosts: [{ name: "own", domains: ["*"], routes: [] }] },
    http_filters: [
      {
        name: "envoy.filters.http.router",
        typed_config: { "@type": `${TYPE}.extensions.filters.http.router.v3.Router` },
      },
    ],
  },
});

function listener(parts: Json): string {
  return JSON.stringify({
    "@type": `${TYPE}.config.listener.v3.Listener`,
    name: "own",
    address: { socketAddress: { address: "0.0.0.0", portValue: 9_000 } },
    ...parts,
  });
}

function cluster(parts: Json = {}): string {
  return JSON.stringify({
    "@type": `${TYPE}.config.cluster.v3.Cluster`,
    name: "own-cluster",
    type: "STATIC",
    connect_timeout: "1.5s",
    ...parts,
  });
}

function web(config: Json, parts: Parts = {}, proxy: ServiceRegistration["proxy"] = {}) {
  return made(sidecar("web", { ...proxy, config: config as never }), parts);
}

const chainsOf = (of: JsonValue | undefined): readonly (JsonValue | undefined)[] => {
  const chains = at(of, "filterChains");
  return [...(Array.isArray(chains) ? chains : []), at(of, "defaultFilterChain")].filter(
    (chain) => chain !== undefined,
  );
};
const filterNames = (chain: JsonValue | undefined): readonly unknown[] => {
  const filters = at(chain, "filters");
  return (Array.isArray(filters) ? filters : []).map((filter) => at(filter, "name"));
};

describe("a listener for callers that an operator writes", () => {
  it("judges callers in all of its filter chains, the default one too, by their certificates and the intentions", () => {
    const text = listener({
      filterChains: [{ filters: [TCP] }, { filters: [TCP], transport_socket: { name: "raw_buffer" } }],
      default_filter_chain: { filters: [TCP] },
    });
    const { shown, missing } = web({ envoy_public_listener_json: text });
    assert.deepEqual(missing, []);
    const own = shown.listener["own"];
    assert.deepEqual(Object.keys(shown.listener), ["own"]);
    assert.equal(chainsOf(own).length, 3);
    for (const chain of chainsOf(own)) {
      assert.deepEqual(filterNames(chain), ["envoy.filters.network.rbac", "envoy.filters.network.tcp_proxy"]);
      assert.equal(at(chain, "transportSocket", "name"), "tls");
      assert.equal(at(chain, "transportSocket", "typedConfig", "requireClientCertificate"), true);
    }
  });

  it("judges requests where each chain manages them, and connections where one does not", () => {
    const both = (...filters: readonly object[]) =>
      web({
        protocol: "http",
        envoy_public_listener_json: listener({ filter_chains: filters.map((filter) => ({ filters: [filter] })) }),
      });
    const requests = both(http(), http("envoy.http_connection_manager"));
    assert.deepEqual(requests.missing, []);
    for (const chain of chainsOf(requests.shown.listener["own"])) {
      assert.equal(at(chain, "filters", 0, "typedConfig", "httpFilters", 0, "name"), "envoy.filters.http.rbac");
      assert.equal(at(chain, "filters", 0, "typedConfig", "httpFilters", 1, "name"), "envoy.filters.http.router");
    }
    for (const mixed of [both(http(), TCP), both(http("my manager"))]) {
      assert.match(mixed.missing.join(), /envoy_public_listener_json.*connections alone are judged/);
      for (const chain of chainsOf(mixed.shown.listener["own"]))
        assert.equal(filterNames(chain)[0], "envoy.filters.network.rbac");
    }
  });

  it("trusts the callers of peers as the usual one does", () => {
    const parts = { inbound: [bundle("east", A_DOMAIN)] };
    const text = listener({ filterChains: [{ filters: [TCP] }] });
    const socket = (shown: JsonValue | undefined) => at(shown, "filterChains", 0, "transportSocket");
    const own = web({ envoy_public_listener_json: text }, parts).shown.listener["own"];
    const usual = web({}, parts).shown.listener["public_listener:0.0.0.0:9999"];
    assert.notEqual(socket(usual), undefined);
    assert.deepEqual(socket(own), socket(usual));
  });

  it("is refused by name where it is none, and no caller gets in", () => {
    const refused = [
      ["{", /it is no JSON/],
      ["[]", /an object is expected/],
      ["{}", /filter chain/],
      [listener({}), /no filter chain/],
      [listener({ filterChains: [] }), /no filter chain/],
      [listener({ filterChains: {} }), /a list is expected/],
      [listener({ filterChains: [{ filters: [TCP] }], filter_chains: [] }), /given twice/],
      [listener({ filterChains: [{ filters: [TCP] }], noSuchField: 1 }), /noSuchField: .*no such field/],
      [
        listener({ filterChains: [{ filters: [{ ...TCP, typedConfig: { "@type": `${TYPE}.none` } }] }] }),
        /there is no type/,
      ],
      [listener({ name: "", filterChains: [{ filters: [TCP] }] }), /name: it has none/],
      [cluster({ filterChains: [{ filters: [TCP] }] }), /@type is envoy.config.cluster.v3.Cluster/],
      [`${"[".repeat(50_000)}${"]".repeat(50_000)}`, /./],
      [listener({ filterChains: [{ filters: [TCP] }], per_connection_buffer_limit_bytes: -1 }), /is no uint32/],
    ] as const;
    for (const [text, expected] of refused) {
      const { shown, missing } = web({ envoy_public_listener_json: text });
      assert.match(missing.join(), /^envoy_public_listener_json: /, text.slice(0, 80));
      assert.match(missing.join(), expected);
      assert.deepEqual(shown.listener, {});
    }
  });

  it("tells no value of a text that is refused", () => {
    const secret = listener({ filterChains: [{ filters: [TCP] }], per_connection_buffer_limit_bytes: "hunter2" });
    for (const text of [secret, '{"name": "hunter2"', `${secret}hunter2`]) {
      const { missing } = web({ envoy_public_listener_json: text });
      assert.ok(missing.length > 0 && !missing.join().includes("hunter2"), missing.join());
    }
  });
});

describe("other resources that operators write", () => {
  it("take the place of the cluster of the service", () => {
    const { shown, missing } = web({ envoy_local_cluster_json: cluster({ lb_policy: 2, name: "local_app" }) });
    assert.deepEqual(missing, []);
    assert.equal(at(shown.cluster["local_app"], "connectTimeout"), "1.500s");
    assert.equal(at(shown.cluster["local_app"], "lbPolicy"), "RING_HASH");
    const refused = web({ envoy_local_cluster_json: "no" });
    assert.deepEqual(refused.shown.cluster, {});
    assert.match(refused.missing.join(), /^envoy_local_cluster_json: it is no JSON/);
  });

  const peered: Parts = {
    bundles: [bundle("east", A_DOMAIN)],
    imports: { "payments?peer=east": [imported("payments", "east")] },
    instances: { db: [instance({ name: "db", port: 80 })] },
  };
  const upstream = (destinationName: string, config: Json, destinationPeer = "") => ({
    upstreams: [{ destinationName, destinationPeer, localBindPort: 1_234, config }] as never,
  });

  it("take the place of listener and cluster of an upstream, which checks the identity of the other side still", () => {
    for (const [name, peer, identity] of [
      ["payments", "east", A_DOMAIN],
      ["db", "", "svc/db"],
    ] as const) {
      const config = {
        envoy_listener_json: listener({ filterChains: [{ filters: [TCP] }] }),
        envoy_cluster_json: cluster({ transport_socket: { name: "raw_buffer" } }),
      };
      const { shown, missing } = web({}, peered, upstream(name, config, peer));
      assert.deepEqual(missing, []);
      assert.deepEqual(Object.keys(shown.listener), ["own", "public_listener:0.0.0.0:9999"]);
      assert.deepEqual(Object.keys(shown.cluster), ["local_app", "own-cluster"]);
      // As from Consul 1.21.4: those of a local upstream come under the name that its cluster has.
      if (peer === "") assert.deepEqual(Object.keys(shown.endpoint), ["own-cluster"]);
      const socket = at(shown.cluster["own-cluster"], "transportSocket");
      assert.equal(at(socket, "name"), "tls");
      const names = at(socket, "typedConfig", "commonTlsContext", "validationContext", "matchTypedSubjectAltNames");
      assert.ok(JSON.stringify(names).includes(identity), JSON.stringify(names));
    }
  });

  it("are refused by name, and leave out what they stand for", () => {
    const config = { envoy_listener_json: "{}", envoy_cluster_json: "[" };
    const { shown, missing } = web({}, peered, upstream("payments", config, "east"));
    assert.match(missing.join(), /envoy_cluster_json of upstream "payments\?peer=east"/);
    assert.match(missing.join(), /envoy_listener_json of upstream "payments\?peer=east"/);
    assert.deepEqual(Object.keys(shown.listener), ["public_listener:0.0.0.0:9999"]);
    assert.deepEqual(Object.keys(shown.cluster), ["local_app"]);
  });

  it("do not count for an upstream with a discovery chain", () => {
    const entries = [{ kind: "service-resolver", name: "db", redirect: { service: "db2" } }] as const;
    const config = {
      envoy_listener_json: listener({ filterChains: [{ filters: [TCP] }] }),
      envoy_cluster_json: cluster(),
    };
    const { shown, missing } = web({}, { ...peered, entries }, upstream("db", config));
    assert.equal(missing.filter((text) => text.includes("a discovery chain is configured")).length, 2);
    assert.equal(shown.listener["own"], undefined);
    assert.equal(shown.cluster["own-cluster"], undefined);
  });

  it("say how requests are traced, at all listeners that manage them", () => {
    const tracing = {
      "@type": `${MANAGER}.Tracing`,
      randomSampling: { value: 12.5 },
      provider: {
        name: "envoy.tracers.zipkin",
        typedConfig: {
          "@type": `${TYPE}.config.trace.v3.ZipkinConfig`,
          collectorCluster: "zipkin",
          sharedSpanContext: false,
        },
      },
    };
    const config = { protocol: "http", envoy_listener_tracing_json: JSON.stringify(tracing) };
    const { set, missing } = web(config, peered, upstream("db", { protocol: "http" }));
    assert.deepEqual(missing, []);
    for (const { bytes } of set.resources.listener.values()) assert.ok(Buffer.from(bytes).includes("ZipkinConfig"));
    const refused = web({ ...config, envoy_listener_tracing_json: '{"@type": "a/b"}' });
    assert.match(refused.missing.join(), /^envoy_listener_tracing_json: @type is b/);
    assert.equal(Object.keys(refused.shown.listener).length, 1);
  });
});
