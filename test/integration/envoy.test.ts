import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { describe, it } from "node:test";
import type { CheckMethod } from "../../src/checks/definition.js";
import type { TlsPlacement } from "../../src/mesh/xds/tls.js";
import type { ServiceInstance } from "../../src/model/instance.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { builtInAuthority } from "../../src/trust/built-in-authority.js";
import { freePorts, patternRuntime, RunningEnvoy, validate, withoutEnvoy } from "../support/envoy.js";
import { addGateway, addService, EnvoyCluster } from "../support/envoy-clusters.js";
import { eventually, temporaryDirectory } from "../support/hosts.js";
import {
  A_DOMAIN,
  B_DOMAIN,
  bundle,
  imported,
  instance,
  type MadeResources,
  made as madeOf,
  root,
  sidecar,
  type ViewParts,
} from "../support/mesh-view.js";

/** A program that answers with its name and the path. */
async function application(name: string): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer((request, response) => {
    response.setHeader("connection", "close");
    response.end(`${name} ${request.url}`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The status of an answer; undefined: the connection was closed without one. */
async function ask(port: number, path: string): Promise<number | undefined> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: "close" } });
    await response.text();
    return response.status;
  } catch {
    return undefined;
  }
}

async function becomes(port: number, path: string, status: number | undefined): Promise<void> {
  await eventually(
    async () => (await ask(port, path)) === status,
    `${path} on port ${port} is answered with ${status}`,
  );
}

describe("Envoys of two peered clusters", { skip: withoutEnvoy }, () => {
  for (const tlsMaterial of ["inline", "sds"] as const) {
    it(`carry what intentions allow and nothing else, with keys ${tlsMaterial}`, async () => {
      await using directory = await temporaryDirectory();
      await using one = await EnvoyCluster.open("dc1", { xds: { tlsMaterial } });
      await using two = await EnvoyCluster.open("dc2", { xds: { tlsMaterial } });
      await using web = await application("web");
      await using api = await application("api");
      const ports = await freePorts(16);
      const port = (at: number): number => ports[at] ?? 0;
      await one.host.configEntries.set({ kind: "service-defaults", name: "api", protocol: "http" });
      await addService(one, "web", { app: web.port, proxy: port(0) });
      await addService(one, "api", { app: api.port, proxy: port(1) });
      await addGateway(one, port(2));
      await addGateway(two, port(3));
      const to = (destinationName: string, localBindPort: number, mode: string) => ({
        destinationName,
        destinationPeer: "one",
        localBindPort,
        meshGateway: { mode },
        // Tried while it is not there yet, a gateway would not be tried again for half a minute.
        config: { passive_health_check: { max_failures: 100_000 } },
      });
      await addService(two, "client", { app: 1, proxy: port(4) }, [
        to("web", port(5), "remote"),
        to("api", port(6), "local"),
      ]);
      await addService(two, "other", { app: 1, proxy: port(7) }, [
        to("web", port(8), "local"),
        to("api", port(9), "remote"),
      ]);
      const consumers = [{ peer: "two" }];
      await one.host.exports.set({
        services: [
          { name: "web", consumers },
          { name: "api", consumers },
        ],
      });
      await one.host.configEntries.set({
        kind: "service-intentions",
        name: "web",
        sources: [{ name: "client", peer: "two", action: "allow" }],
      });
      await one.host.configEntries.set({
        kind: "service-intentions",
        name: "api",
        sources: [{ name: "client", peer: "two", permissions: [{ action: "allow", http: { pathPrefix: "/ok" } }] }],
      });
      const token = await one.host.peerings.generateToken({ peerName: "two" });
      await two.host.peerings.establish({ peerName: "one", token });

      const start = (id: string, { xds }: EnvoyCluster, adminPort: number): Promise<RunningEnvoy> =>
        RunningEnvoy.start({ id, xds: xds.address, adminPort, directory: directory.path });
      await using webProxy = await start("web-sidecar-proxy", one, port(10));
      await using apiProxy = await start("api-sidecar-proxy", one, port(11));
      await using gatewayOne = await start("gateway", one, port(12));
      await using client = await start("client-sidecar-proxy", two, port(13));
      await using other = await start("other-sidecar-proxy", two, port(14));
      await using gatewayTwo = await start("gateway", two, port(15));

      const envoys = [webProxy, apiProxy, gatewayOne, client, other, gatewayTwo];
      await eventually(
        async () => (await Promise.all(envoys.map((envoy) => envoy.isReady()))).every(Boolean),
        "all are ready",
      );
      await eventually(() => one.hasTold(3) && two.hasTold(3), "all have been told everything");
      await becomes(port(5), "/", 200);
      await becomes(port(6), "/ok", 200);
      // All is in place: what is refused now is refused by rules.
      assert.equal(await ask(port(6), "/secret"), 403);
      await becomes(port(9), "/ok", 403);
      assert.equal(await ask(port(8), "/"), undefined);
      assert.ok((await gatewayTwo.statistic("tcp.mesh_gateway_local.default.downstream_cx_total")) > 0);
      for (const { xds } of [one, two]) {
        assert.deepEqual(
          xds.proxies().map(({ refusals, waitsFor }) => ({ refusals, waitsFor })),
          Array(3).fill({ refusals: [], waitsFor: [] }),
        );
      }

      // A change of intentions is carried out by proxies that run.
      await one.host.configEntries.set({
        kind: "service-intentions",
        name: "web",
        sources: [{ name: "other", peer: "two", action: "allow" }],
      });
      await becomes(port(8), "/", 200);
      await becomes(port(5), "/", undefined);
      await one.host.exports.set({ services: [{ name: "api", consumers }] });
      await becomes(port(8), "/", undefined);
      await becomes(port(6), "/ok", 200);
    });
  }
});

/** A program that answers to gRPC's health checks that it is well. */
async function healthServer(): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createHttp2Server();
  server.on("stream", (stream, headers) => {
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    const isCheck = headers[":path"] === "/grpc.health.v1.Health/Check";
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": isCheck ? "0" : "12" }));
    stream.end(Buffer.from([0, 0, 0, 0, 2, 8, 1]));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { port, [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())) };
}

describe("an Envoy of a service whose checks it exposes", { skip: withoutEnvoy }, () => {
  it("leads checks to a service that nothing else reaches, and callers from elsewhere to nothing", async () => {
    await using directory = await temporaryDirectory();
    await using app = await application("web");
    await using health = await healthServer();
    const [exposed = 0, proxy = 0, admin = 0] = await freePorts(3);
    await using cluster = await EnvoyCluster.open("dc1", {
      host: { checks: { exposedPorts: { first: exposed, last: exposed } } },
    });
    const { host } = cluster;
    const status = (): string | undefined => host.catalog.check("n1", "live")?.status;
    const register = (method: CheckMethod): Promise<void> =>
      host.checks.register(
        [
          {
            ...{ node: "n1", address: "127.0.0.1", service: { name: "web", port: app.port } },
            checks: [{ checkId: "live", serviceId: "web", status: "critical" }],
          },
        ],
        new Map([
          [
            "live",
            {
              ...{ method, intervalMs: 100, timeoutMs: 0, successBeforePassing: 0, failuresBeforeWarning: 0 },
              ...{ failuresBeforeCritical: 0, deregisterCriticalServiceAfterMs: 0, outputMaxBytes: 0 },
            },
          ],
        ]),
      );
    // No name of a machine: a probe that goes there directly fails.
    const http = (path: string): CheckMethod => ({
      ...{ type: "http", url: `http://web.invalid:${app.port}${path}`, method: "GET", headers: {}, body: "" },
      ...{ followRedirects: true, tls: { serverName: "", skipVerify: false } },
    });
    const expose = (checks: boolean): Promise<void> =>
      addService(cluster, "web", { app: app.port, proxy }, [], {
        ...{ destinationServiceId: "web", extra: { Expose: { Checks: checks } } },
      });
    await expose(true);
    await register(http("/live"));
    {
      await using envoy = await RunningEnvoy.start({
        ...{ id: "web-sidecar-proxy", xds: cluster.xds.address, adminPort: admin, directory: directory.path },
      });
      await eventually(() => status() === "passing", "the check passes through the listener");
      assert.match(host.catalog.check("n1", "live")?.output ?? "", new RegExp(`127\\.0\\.0\\.1:${exposed}/live: 200`));
      assert.equal(host.catalog.check("n1", "live")?.exposedPort, exposed);
      assert.equal(await ask(exposed, "/live"), 200);
      assert.equal(await ask(exposed, "/other"), 404);
      // A connection to another address of this machine comes from that address, and not from the agent's.
      const others = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
      const other = others.find(({ internal, family }) => !internal && family === "IPv4")?.address;
      if (other !== undefined) await assert.rejects(fetch(`http://${other}:${exposed}/live`));
      // Another path, then another protocol, at the same port.
      await register(http("/ready"));
      await becomes(exposed, "/ready", 200);
      assert.equal(await ask(exposed, "/live"), 404);
      await eventually(() => status() === "passing", "the check passes at its other path");
      await register({ type: "grpc", target: `web.invalid:${health.port}/web`, tls: undefined });
      await eventually(() => host.catalog.check("n1", "live")?.output.includes("gRPC check") === true, "by gRPC");
      assert.equal(status(), "passing");
      assert.deepEqual(
        cluster.xds.proxies().map(({ refusals, missing }) => ({ refusals, missing })),
        [{ refusals: [], missing: [] }],
      );
      await expose(false);
      await eventually(() => status() === "critical", "the check goes to the service, where nothing is");
      await becomes(exposed, "/live", undefined);
      await expose(true);
      await eventually(() => status() === "passing", "the check goes through the proxy again");
      assert.equal(await envoy.isReady(), true);
    }
    await eventually(() => status() === "critical", "no check passes without the proxy");
  });
});

/** Resources of all types as a configuration that stands alone: whatever would come by itself stands where it is named. */
function asStatic({ shown }: MadeResources): { static_resources: { clusters: object[] } } {
  const inPlace = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(inPlace);
    if (typeof value !== "object" || value === null) return value;
    const { rds, sdsConfig: _, ...members } = value as Readonly<Record<string, unknown>>;
    const kept = Object.fromEntries(Object.entries(members).map(([key, each]) => [key, inPlace(each)]));
    if (rds === undefined) return kept;
    const { routeConfigName } = rds as { readonly routeConfigName: string };
    return { ...kept, routeConfig: inPlace(shown.route[routeConfigName]) };
  };
  const withEndpoints = (cluster: unknown): object => {
    const { type, edsClusterConfig: _, ...members } = cluster as Readonly<Record<string, unknown>>;
    if (type !== "EDS") return inPlace(cluster) as object;
    const loadAssignment = shown.endpoint[String(members["name"])] ?? { clusterName: members["name"] };
    return inPlace({ ...members, type: "STATIC", loadAssignment }) as object;
  };
  return {
    node: { id: "validated", cluster: "validated" },
    layered_runtime: patternRuntime,
    dynamic_resources: {
      ads_config: {
        api_type: "DELTA_GRPC",
        transport_api_version: "V3",
        grpc_services: { envoy_grpc: { cluster_name: "ads" } },
      },
    },
    static_resources: {
      clusters: Object.values(shown.cluster).map(withEndpoints),
      listeners: Object.values(shown.listener).map(inPlace),
      secrets: Object.values(shown.secret).map(inPlace),
    },
  } as { static_resources: { clusters: object[] } };
}

describe("Envoy, asked whether it takes what proxies are told", { skip: withoutEnvoy }, async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const material = await authority.issueLeaf({ kind: "mesh-gateway", datacenter: "dc1" });
  const made = (proxy: ServiceInstance, parts: ViewParts, placement?: TlsPlacement): MadeResources =>
    madeOf(proxy, { material, ...parts }, placement);
  const bundles = [bundle("peer-a", A_DOMAIN), bundle("peer-b", B_DOMAIN, [root(2)])];
  const ads = {
    name: "ads",
    type: "STATIC",
    connectTimeout: "1s",
    typedExtensionProtocolOptions: {
      "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        explicitHttpConfig: { http2ProtocolOptions: {} },
      },
    },
    loadAssignment: { clusterName: "ads", endpoints: [] },
  };
  const gateway = instance({ kind: "mesh-gateway", name: "gateway", address: "127.0.0.1", port: 8443 });
  const http = { kind: "proxy-defaults", name: "global", config: { protocol: "http" } } as const;
  const logs = {
    kind: "proxy-defaults",
    name: "global",
    config: { protocol: "grpc", max_inbound_connections: 7 },
    extra: { AccessLogs: { Enabled: true, Type: "stderr" } },
  } as const;
  const services = { web: [sidecar("web")], api: [sidecar("api")] };
  const exported = [
    { service: "web", peers: ["peer-a", "peer-b"] },
    { service: "api", peers: ["peer-a"] },
  ];
  const calls = sidecar("web", {
    upstreams: [
      { destinationName: "db", destinationPeer: "peer-a", localBindPort: 9090 },
      { destinationName: "api", localBindPort: 9091 },
    ] as never,
  });
  const names = ["a.example", "b.example"].map((wan, at) =>
    imported("db", "peer-a", { wan, protocol: "http", node: `${at}` }),
  );
  const db = { "db?peer=peer-a": names };
  const sources = [
    { name: "*", peer: "peer-a", action: "allow", precedence: 8 },
    {
      name: "web",
      peer: "peer-a",
      permissions: [{ action: "allow", http: { pathRegex: "/a.*", methods: ["GET"] } }],
      precedence: 9,
    },
  ] as const;
  const intentions = { kind: "service-intentions", name: "web", sources } as const;
  const mesh = { kind: "mesh", name: "mesh", peering: { peerThroughMeshGateways: true } } as const;
  const servers = [instance({ name: "consul", port: 8300, meta: { grpc_tls_port: "8503" } })];
  const failing = {
    kind: "service-resolver",
    name: "api",
    failover: { "*": { targets: [{ peer: "peer-a", service: "db" }] } },
  } as const;
  const typed = (name: string, fields: object) => ({ "@type": `type.googleapis.com/envoy.${name}`, ...fields });
  const manager = typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", {
    stat_prefix: "own",
    route_config: {
      virtual_hosts: [
        { name: "own", domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: "local_app" } }] },
      ],
    },
    http_filters: [
      { name: "envoy.filters.http.router", typed_config: typed("extensions.filters.http.router.v3.Router", {}) },
    ],
  });
  const ownListener = typed("config.listener.v3.Listener", {
    name: "own",
    address: { socket_address: { address: "127.0.0.1", port_value: 21_000 } },
    filter_chains: [{ filters: [{ name: "envoy.filters.network.http_connection_manager", typed_config: manager }] }],
  });
  const ownCluster = typed("config.cluster.v3.Cluster", { name: "local_app", type: "STATIC", connect_timeout: "1.5s" });
  const written = {
    kind: "proxy-defaults",
    name: "global",
    config: {
      protocol: "http",
      envoy_public_listener_json: JSON.stringify(ownListener),
      envoy_local_cluster_json: JSON.stringify(ownCluster),
    },
  } as const;
  const paths = [{ Path: "/ready", ListenerPort: 21_001, LocalPathPort: 9_000, Protocol: "http2" }];
  const exposing = {
    kind: "service-defaults",
    name: "web",
    protocol: "http",
    extra: { Expose: { Paths: paths } },
  } as const;
  const hashing = {
    kind: "service-resolver",
    name: "api",
    extra: {
      LoadBalancer: {
        Policy: "ring_hash",
        RingHashConfig: { MinimumRingSize: 10, MaximumRingSize: 20 },
        HashPolicies: [{ Field: "cookie", FieldValue: "c", CookieConfig: { Session: true } }, { SourceIP: true }],
      },
    },
  } as const;
  const normalizing = {
    kind: "mesh",
    name: "mesh",
    extra: {
      HTTP: {
        Incoming: {
          RequestNormalization: {
            MergeSlashes: true,
            PathWithEscapedSlashesAction: "REJECT_REQUEST",
            HeadersWithUnderscoresAction: "DROP_HEADER",
          },
        },
      },
    },
  } as const;
  const routed = sidecar("web", {
    upstreams: ["api", "moved"].map((destinationName, at) => ({
      ...{ destinationName, localBindPort: 9_100 + at, meshGateway: { mode: "local" } },
    })) as never,
  });
  const router = {
    kind: "service-router",
    name: "api",
    routes: [
      {
        match: { http: { pathPrefix: "/db" } },
        destination: { service: "split", prefixRewrite: "/", requestTimeout: "3s", numRetries: 2 },
      },
    ],
  } as never;
  const splitter = {
    kind: "service-splitter",
    name: "split",
    splits: [
      { weight: 40, service: "db" },
      { weight: 60, service: "moved" },
    ],
  } as const;
  const redirect = {
    kind: "service-resolver",
    name: "moved",
    redirect: { peer: "peer-a", service: "db" },
  } as const;
  const limits = { max_connections: 3, max_pending_requests: 4, max_concurrent_requests: 5 };
  const passive = { interval: "10s", max_failures: 3, enforcing_consecutive_5xx: 0, base_ejection_time: "20s" };
  const limited = sidecar("web", {
    upstreams: [
      {
        ...{ destinationName: "db", destinationPeer: "peer-a", localBindSocketPath: "/tmp/db.sock" },
        config: { limits, passive_health_check: passive, balance_outbound_connections: "exact_balance" },
      },
    ] as never,
  });
  const versions = { TLSMinVersion: "TLSv1_2", TLSMaxVersion: "TLSv1_3" };
  const terms = {
    kind: "mesh",
    name: "mesh",
    extra: {
      TLS: { Incoming: versions, Outgoing: { ...versions, CipherSuites: ["ECDHE-ECDSA-AES256-GCM-SHA384"] } },
    },
  } as const;
  const cases: Readonly<Record<string, () => MadeResources>> = {
    "a sidecar with a listener and a cluster that an operator writes": () =>
      made(calls, { bundles, inbound: bundles, imports: db, instances: services, entries: [written, intentions] }),
    "a sidecar with exposed paths, a ring of hashes and normalized requests": () =>
      made(calls, { instances: services, entries: [http, exposing, hashing, normalizing], bundles, imports: db }),
    "a sidecar with exposed checks": () =>
      made(sidecar("web", { destinationServiceId: "web", extra: { Expose: { Checks: true } } }), {
        exposedChecks: [
          { checkId: "a", path: "/ready", protocol: "http", localPort: 8_080, listenerPort: 21_500 },
          { checkId: "b", path: "/x/y", protocol: "http2", localPort: 9_000, listenerPort: 21_501 },
          { checkId: "c", path: "/", protocol: "http2", localPort: 9_000, listenerPort: 21_502 },
        ],
        hasIpv6: true,
      }),
    "a sidecar with names of gateways and callers of two peers": () =>
      made(calls, { bundles, inbound: bundles, imports: db, instances: services, entries: [intentions] }),
    "a sidecar for requests, with failover to a peer": () =>
      made(calls, {
        bundles,
        inbound: bundles,
        imports: db,
        instances: services,
        entries: [http, intentions, failing],
      }),
    "a sidecar whose router, splitter and redirect lead to a peer, through its own gateways": () =>
      made(routed, {
        bundles,
        imports: { "db?peer=peer-a": [imported("db", "peer-a", { protocol: "http" })] },
        instances: { ...services, db: [sidecar("db")] },
        gateways: [gateway],
        entries: [http, router, splitter, redirect],
      }),
    "a sidecar with its keys as secrets, limits and terms of TLS": () =>
      made(
        limited,
        { bundles, inbound: bundles, imports: db, instances: services, entries: [intentions, terms] },
        "sds",
      ),
    "a mesh gateway with its keys as secrets": () =>
      made(gateway, { bundles, instances: services, exported, imports: db, entries: [http, router] }, "sds"),
    "a sidecar for gRPC with logs and a limit": () =>
      made(calls, { bundles, imports: db, inbound: bundles, instances: services, entries: [logs, intentions] }),
    "a transparent proxy": () =>
      made(sidecar("web", { mode: "transparent" }), {
        bundles,
        imports: db,
        virtualIps: { "db?peer=peer-a": "240.0.0.1" },
      }),
    "a mesh gateway for connections": () => made(gateway, { bundles, instances: services, exported, imports: db }),
    "a mesh gateway for requests, and the control plane": () =>
      made(gateway, {
        bundles,
        instances: services,
        exported,
        imports: db,
        entries: [http, mesh],
        servers,
        peerServers: [{ serverName: "server.dc2.peering.x", addresses: ["d.example:8503"], index: 1n }],
      }),
  };
  for (const [name, make] of Object.entries(cases)) {
    it(`takes ${name}`, async () => {
      await using directory = await temporaryDirectory();
      const resources = make();
      assert.deepEqual(resources.missing, []);
      const configuration = asStatic(resources);
      configuration.static_resources.clusters.push(ads);
      await validate(JSON.parse(JSON.stringify(configuration)), directory.path);
    });
  }
});
