import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SERVED_PROXY_KEYS, SERVED_UPSTREAM_KEYS } from "../../../src/mesh/snapshot/unserved.js";
import { BOOTSTRAP_KEYS } from "../../../src/model/bootstrap-keys.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { at, instance, made, sidecar } from "../../support/mesh-view.js";

type Config = Readonly<Record<string, unknown>>;

/** Keys of the opaque settings that Consul 1.21.4 reads for sidecars, mesh gateways, and the bootstrap of either. */
const PROXY_KEYS = [...SERVED_PROXY_KEYS, ...BOOTSTRAP_KEYS];
const COLLECTOR = "envoy_telemetry_collector_bind_socket_dir";

const web = (config: Config, parts: Parameters<typeof made>[1] = {}) =>
  made(sidecar("web", { config: config as never }), parts);
const named = (missing: readonly string[], key: string) => missing.some((text) => text.includes(key));
const http = (shown: ReturnType<typeof made>["shown"], name = "public_listener:0.0.0.0:9999") =>
  at(shown.listener[name], "filterChains", 0, "filters", 0, "typedConfig");
const upstreams = (config: Config) => ({ upstreams: [{ destinationName: "db", localBindPort: 80, config }] as never });

describe("settings of proxies", () => {
  it("are served or named, every one of those that Consul knows, in any of their spellings", () => {
    const served = new Set<string>(PROXY_KEYS.filter((key) => key !== COLLECTOR));
    for (const key of PROXY_KEYS) {
      const camel = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
      for (const spelled of [key, camel]) {
        const { missing } = web({ [spelled]: "1" });
        const refused = missing.some((text) => text.startsWith(`${key}: `));
        assert.equal(named(missing, spelled) && !refused, !served.has(key), `${spelled}: ${missing.join()}`);
      }
    }
    assert.ok(named(web({ no_such_key: 1 }).missing, '"no_such_key", which is not served'));
    for (const key of SERVED_UPSTREAM_KEYS) {
      const { missing } = made(sidecar("web", upstreams({ [key]: {} })), {});
      assert.ok(!named(missing, "which is not served"), missing.join());
    }
    const { missing } = made(sidecar("web", upstreams({ no_such_key: 1 })), {});
    assert.ok(named(missing, '"no_such_key" of upstream "db", which is not served'), missing.join());
  });

  it("name the parts of config entries that are not served", () => {
    const extra = (kind: string, name: string, fields: Config) => [{ kind, name, extra: fields }] as never;
    const cases = [
      [extra("service-defaults", "web", { RateLimits: { InstanceLevel: {} } }), "RateLimits"],
      [extra("proxy-defaults", "global", { MutualTLSMode: "permissive" }), "MutualTLSMode"],
      [extra("proxy-defaults", "global", { TransparentProxy: { DialedDirectly: true } }), "DialedDirectly"],
      [extra("proxy-defaults", "global", { PrioritizeByLocality: { Mode: "failover" } }), "PrioritizeByLocality"],
      [extra("proxy-defaults", "global", { FailoverPolicy: { Mode: "order-by-locality" } }), "FailoverPolicy"],
      [extra("service-defaults", "db", { ExternalSNI: "db.example" }), "ExternalSNI"],
      [extra("service-resolver", "db", { PrioritizeByLocality: { Mode: "failover" } }), "PrioritizeByLocality"],
      [extra("proxy-defaults", "global", { EnvoyExtensions: [{ Name: "builtin/lua" }] }), "builtin/lua"],
    ] as const;
    for (const [entries, expected] of cases) {
      const { missing } = made(sidecar("web", upstreams({})), { entries });
      assert.ok(named(missing, expected), `${expected}: ${missing.join()}`);
    }
    assert.deepEqual(made(sidecar("web", upstreams({})), {}).missing, []);
  });

  it("take the former names of the settings of gateways", () => {
    const gateway = (config: Config) =>
      Object.keys(
        made(
          instance({ kind: "mesh-gateway", name: "gw", address: "10.0.0.9", port: 8443, proxy: { config } as never }),
          {},
        ).shown.listener,
      );
    const addresses = { lan: { Address: "10.0.0.8", Port: 9 } };
    const config = { envoy_mesh_gateway_no_default_bind: true, envoy_mesh_gateway_bind_addresses: addresses };
    assert.deepEqual(gateway(config), ["lan:10.0.0.8:9"]);
  });

  it("bound the connections to the service as well", () => {
    const { shown } = web({ max_inbound_connections: 7 });
    assert.equal(at(shown.cluster["local_app"], "circuitBreakers", "thresholds", 0, "maxConnections"), 7);
  });

  it("say how requests are made the same before they are judged", () => {
    const normalization = (fields: Config) =>
      http(
        web(
          { protocol: "http" },
          {
            entries: [
              { kind: "mesh", name: "mesh", extra: { HTTP: { Incoming: { RequestNormalization: fields } } } },
            ] as never,
          },
        ).shown,
      );
    assert.equal(at(normalization({}), "normalizePath"), true);
    assert.equal(at(normalization({}), "mergeSlashes"), undefined);
    const all = normalization({
      InsecureDisablePathNormalization: true,
      MergeSlashes: true,
      PathWithEscapedSlashesAction: "REJECT_REQUEST",
      HeadersWithUnderscoresAction: "DROP_HEADER",
    });
    assert.equal(at(all, "normalizePath"), undefined);
    assert.equal(at(all, "mergeSlashes"), true);
    assert.equal(at(all, "pathWithEscapedSlashesAction"), "REJECT_REQUEST");
    assert.equal(at(all, "commonHttpProtocolOptions", "headersWithUnderscoresAction"), "DROP_HEADER");
  });
});

describe("exposed paths", () => {
  it("have a listener each, for this path alone and without certificates", () => {
    const paths = [
      { Path: "/health/ready", ListenerPort: 20_200, LocalPathPort: 8080 },
      { Path: "/metrics", ListenerPort: 20_201, LocalPathPort: 9_100, Protocol: "http2" },
    ];
    const { shown, missing } = made(sidecar("web"), {
      entries: [{ kind: "service-defaults", name: "web", extra: { Expose: { Paths: paths } } }] as never,
    });
    assert.deepEqual(missing, []);
    const ready = shown.listener["exposed_path_healthready:0.0.0.0:20200"];
    const route = at(http(shown, "exposed_path_healthready:0.0.0.0:20200"), "routeConfig", "virtualHosts", 0, "routes");
    assert.deepEqual(route, [{ match: { path: "/health/ready" }, route: { cluster: "local_app" } }]);
    assert.equal(at(ready, "filterChains", 0, "transportSocket"), undefined);
    const name = "exposed_path_metrics:0.0.0.0:20201";
    assert.equal(at(http(shown, name), "statPrefix"), "exposed_path_filter_metrics_20201");
    assert.deepEqual(at(http(shown, name), "routeConfig", "virtualHosts", 0, "routes", 0, "route"), {
      cluster: "exposed_cluster_9100",
    });
    const cluster = shown.cluster["exposed_cluster_9100"];
    assert.ok(JSON.stringify(cluster).includes("explicitHttpConfig"), JSON.stringify(cluster));
  });

  it("are named where they say no path or port", () => {
    const { shown, missing } = made(sidecar("web"), {
      entries: [
        { kind: "service-defaults", name: "web", extra: { Expose: { Paths: [{ Path: "/", ListenerPort: 70_000 }] } } },
      ] as never,
    });
    assert.match(missing.join(), /exposed path "\/": it needs/);
    assert.equal(Object.keys(shown.listener).length, 1);
  });
});

describe("exposed checks", () => {
  const proxy = (checks: boolean): ServiceInstance =>
    sidecar("web", { destinationServiceId: "web", extra: { Expose: { Checks: checks } } });
  const check = { checkId: "a", path: "/ready", protocol: "http", localPort: 8080, listenerPort: 21_500 };
  const listeners = (shown: ReturnType<typeof made>["shown"]): readonly string[] =>
    Object.keys(shown.listener).filter((name) => name.startsWith("exposed"));

  it("have a listener each, for the machine of the agent alone", () => {
    const { shown, missing } = made(proxy(true), { exposedChecks: [check], hasIpv6: true });
    assert.deepEqual(missing, []);
    const name = "exposed_path_ready:0.0.0.0:21500";
    assert.deepEqual(listeners(shown), [name]);
    assert.deepEqual(at(shown.listener[name], "filterChains", 0, "filterChainMatch"), {
      sourcePrefixRanges: [
        { addressPrefix: "127.0.0.1", prefixLen: 8 },
        { addressPrefix: "10.0.0.1", prefixLen: 32 },
        { addressPrefix: "::1", prefixLen: 128 },
      ],
    });
    assert.equal(Object.keys(shown.listener[name] ?? {}).includes("defaultFilterChain"), false);
    const without = made(proxy(true), { exposedChecks: [check] }).shown.listener[name];
    assert.equal(JSON.stringify(without).includes("::1"), false);
    assert.deepEqual(listeners(made(proxy(false), { exposedChecks: [check] }).shown), []);
  });

  it("are named where a proxy cannot lead to them", () => {
    const { shown, missing } = made(proxy(true), { exposedChecks: [{ checkId: "b", problem: "no port" }] });
    assert.deepEqual([listeners(shown), missing], [[], ['Expose.Checks: check "b": no port']]);
    const elsewhere = made(proxy(true), {}).missing;
    assert.deepEqual(elsewhere, ['Expose.Checks: the checks of node "node" are not run by this agent']);
  });
});

describe("load balancers of resolvers", () => {
  const chain = (loadBalancer: Config) =>
    made(sidecar("web", { upstreams: [{ destinationName: "db", localBindPort: 80 }] as never }), {
      instances: { db: [instance({ name: "db", port: 80 })] },
      entries: [
        { kind: "service-defaults", name: "db", protocol: "http" },
        { kind: "service-resolver", name: "db", extra: { LoadBalancer: loadBalancer } },
      ] as never,
    }).shown;
  const balancing = (shown: ReturnType<typeof chain>) =>
    Object.values(shown.cluster).find((one) => at(one, "name") !== "local_app");

  it("spread calls over endpoints", () => {
    const least = balancing(chain({ Policy: "least_request", LeastRequestConfig: { ChoiceCount: 3 } }));
    assert.equal(at(least, "lbPolicy"), "LEAST_REQUEST");
    assert.deepEqual(at(least, "leastRequestLbConfig"), { choiceCount: 3 });
    const ring = balancing(
      chain({ Policy: "ring_hash", RingHashConfig: { MinimumRingSize: 10, MaximumRingSize: 20 } }),
    );
    assert.equal(at(ring, "lbPolicy"), "RING_HASH");
    assert.deepEqual(at(ring, "ringHashLbConfig"), { minimumRingSize: "10", maximumRingSize: "20" });
    assert.equal(at(balancing(chain({ Policy: "maglev" })), "lbPolicy"), "MAGLEV");
    assert.equal(at(balancing(chain({ Policy: "random" })), "lbPolicy"), "RANDOM");
    assert.equal(at(balancing(chain({ Policy: "round_robin" })), "lbPolicy"), undefined);
  });

  it("choose an endpoint by parts of a request", () => {
    const HashPolicies = [
      { SourceIP: true, Terminal: true },
      { Field: "header", FieldValue: "x-user" },
      { Field: "query_parameter", FieldValue: "q" },
      { Field: "cookie", FieldValue: "c", CookieConfig: { TTL: "5s", Path: "/p" } },
      { Field: "cookie", FieldValue: "s", CookieConfig: { Session: true } },
    ];
    const of = (Policy: string) =>
      at(chain({ Policy, HashPolicies }).route["db"], "virtualHosts", 0, "routes", 0, "route", "hashPolicy");
    assert.deepEqual(of("maglev"), [
      { connectionProperties: { sourceIp: true }, terminal: true },
      { header: { headerName: "x-user" } },
      { queryParameter: { name: "q" } },
      { cookie: { name: "c", ttl: "5s", path: "/p" } },
      { cookie: { name: "s", ttl: "0s" } },
    ]);
    assert.equal(of("least_request"), undefined);
  });
});
