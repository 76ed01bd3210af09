import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { describe, it } from "node:test";
import type { JsonValue } from "@bufbuild/protobuf";
import type { CheckDefinition, CheckMethod } from "../../../src/checks/definition.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { type XdsServer, xdsServer } from "../../../src/mesh/index.js";
import { TYPE_URLS } from "../../../src/mesh/xds/resources.js";
import type { ResourceType } from "../../../src/model/connected-proxy.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { eventually } from "../../support/hosts.js";
import { dumped } from "../../support/mesh-view.js";
import { XdsClient } from "../../support/xds-client.js";

// Two peered clusters of ours, registered as two of Consul were when what they told six Envoys was recorded.

type Told = Record<Exclude<ResourceType, "secret">, Record<string, JsonValue>>;

interface Recorded {
  readonly proxies: Readonly<Record<string, Told>>;
}

const read = (name: string): Recorded => JSON.parse(readFileSync(`test/golden/envoy/${name}.json`, "utf8")) as Recorded;
const recorded = read("consul-1.21.4");
const TYPES = ["cluster", "endpoint", "listener", "route"] as const;
const node = { address: "127.0.0.1" };

async function addSidecar(
  host: PeeringHost,
  name: string,
  ports: readonly [app: number, proxy: number],
  upstreams: readonly object[],
) {
  const { nodeName } = host;
  const [app, port] = ports;
  const address = "127.0.0.1";
  await host.catalog.register({ node: nodeName, ...node, service: { name, address, port: app } });
  const id = `${name}-sidecar-proxy`;
  const proxy = {
    destinationServiceName: name,
    destinationServiceId: name,
    localServiceAddress: "127.0.0.1",
    localServicePort: app,
    upstreams: upstreams.map((upstream) => ({ destinationType: "service", ...upstream })) as never,
  };
  await host.catalog.register({
    node: nodeName,
    ...node,
    service: { kind: "connect-proxy", id, name: id, address, port, proxy },
  });
}

async function addGateway(host: PeeringHost, port: number): Promise<void> {
  const place = { address: "127.0.0.1", port };
  const taggedAddresses = { lan: place, wan: place };
  const service = {
    kind: "mesh-gateway",
    id: "mesh-gateway",
    name: "mesh-gateway",
    ...place,
    taggedAddresses,
  } as const;
  await host.catalog.register({ node: host.nodeName, ...node, service });
}

/** Everything that a proxy is told, as Envoy would dump it, once it has all the names that are expected. */
async function toldTo(server: XdsServer, id: string, expected: Told): Promise<Told> {
  const told: Told = { cluster: {}, endpoint: {}, listener: {}, route: {} };
  await using client = new XdsClient(server.address, { id });
  const wanted = (type: keyof Told): number => Object.keys(expected[type]).length;
  const isComplete = (): boolean => TYPES.every((type) => Object.keys(told[type]).length >= wanted(type));
  client.send("cluster");
  client.send("listener");
  while (!isComplete()) {
    const { typeUrl, resources, nonce } = await client.next();
    const type = TYPES.find((each) => TYPE_URLS[each] === typeUrl);
    assert.ok(type !== undefined, typeUrl);
    for (const { name, resource } of resources) told[type][name] = dumped(type, resource?.value ?? new Uint8Array());
    client.send(type, { responseNonce: nonce });
    const names = resources.map(({ name }) => name).filter((name) => name !== "local_app");
    if (type === "cluster" && names.length > 0) client.send("endpoint", { resourceNamesSubscribe: names });
    const text = JSON.stringify(type === "listener" ? told.listener : {});
    const routes = [...text.matchAll(/"route_config_name":"([^"]*)"/g)].map(([, name]) => name ?? "");
    if (routes.length > 0) client.send("route", { resourceNamesSubscribe: routes });
  }
  return told;
}

/** Our pattern of the fields before the caller in a forwarded header is stricter than Consul's. */
const STRICT = JSON.stringify(
  String.raw`^(?:(?:By=[^;,"]*|Hash=[^;,"]*|(?:Cert|Chain|Subject)="[^;,"\\]*");)+URI=`,
).slice(1, -1);
const CONSULS = "^[^,]+;URI=";

/** Without parts that differ from one run to another, and the backslash that we put before a dot in patterns. */
function plain(told: Told, domains: Readonly<Record<string, string>>): Told {
  let text = JSON.stringify(told)
    .replace(/-----BEGIN[^"]*/g, "PEM")
    .replaceAll(STRICT, CONSULS)
    .replaceAll("\\\\.", ".");
  for (const [domain, name] of Object.entries(domains)) text = text.replaceAll(domain, `${name}.consul`);
  return JSON.parse(text.replaceAll('"health_status":"HEALTHY",', "")) as Told;
}

describe("Envoys of peered clusters", () => {
  it("are told by us what Consul 1.21.4 tells them", async () => {
    const network = memoryNetwork();
    // Trust domains are told in the order of their names, which was this one.
    const clusterIds: Readonly<Record<string, string>> = {
      1: "bbbbbbbb-2222-4333-8444-555555555555",
      2: "aaaaaaaa-2222-4333-8444-555555555555",
    };
    const start = async (name: string) => {
      const storage = memoryStorage();
      const clusterId = clusterIds[name] ?? "";
      return createHost({
        datacenter: `dc${name}`,
        nodeName: `n${name}`,
        storage,
        authority: await builtInAuthority({ storage, clusterId }),
        transport: network.transport({ listen: `n${name}:8503` }),
      });
    };
    await using one = await start("1");
    await using two = await start("2");
    for (const host of [one, two]) {
      await host.configEntries.set({ kind: "service-intentions", name: "*", sources: [{ name: "*", action: "deny" }] });
    }
    await one.configEntries.set({ kind: "service-defaults", name: "api", protocol: "http" });
    await addSidecar(one, "web", [24_301, 24_311], [{ destinationName: "api", localBindPort: 24_321 }]);
    await addSidecar(one, "api", [24_302, 24_312], []);
    await addGateway(one, 24_331);
    await addGateway(two, 24_332);
    const peered = (destinationName: string, localBindPort: number, mode?: string) => ({
      destinationName,
      destinationPeer: "one",
      localBindPort,
      ...(mode !== undefined && { meshGateway: { mode } }),
    });
    await addSidecar(two, "client", [24_303, 24_313], [peered("web", 24_341), peered("api", 24_342, "local")]);
    await addSidecar(two, "other", [24_304, 24_314], [peered("web", 24_351), peered("api", 24_352)]);
    const consumers = [{ peer: "two" }];
    await one.exports.set({
      services: [
        { name: "web", consumers },
        { name: "api", consumers },
      ],
    });
    const caller = { name: "client", peer: "two" };
    await one.configEntries.set({ kind: "service-intentions", name: "web", sources: [{ ...caller, action: "allow" }] });
    await one.configEntries.set({
      kind: "service-intentions",
      name: "api",
      sources: [
        { ...caller, permissions: [{ action: "allow", http: { pathPrefix: "/ok" } }] },
        { name: "web", action: "allow" },
      ],
    });
    const token = await one.peerings.generateToken({ peerName: "two" });
    await two.peerings.establish({ peerName: "one", token });
    await eventually(
      () => two.imports.count({ peer: "one" }).services === 4,
      "both services and their sidecars are imported",
    );
    await eventually(() => one.view.trustBundle("two") !== undefined, "the roots of the caller are known");

    const options = { listen: "127.0.0.1:0", defaultIntentionPolicy: "deny" } as const;
    await using oneXds = await xdsServer(one, options);
    await using twoXds = await xdsServer(two, options);
    const domains = { [one.trustDomain]: "ONE", [two.trustDomain]: "TWO" };
    const proxies: readonly (readonly [string, XdsServer, string])[] = [
      ["web", oneXds, "web-sidecar-proxy"],
      ["api", oneXds, "api-sidecar-proxy"],
      ["gw1", oneXds, "mesh-gateway"],
      ["client", twoXds, "client-sidecar-proxy"],
      ["gw2", twoXds, "mesh-gateway"],
      ["other", twoXds, "other-sidecar-proxy"],
    ];
    assert.deepEqual(Object.keys(recorded.proxies).sort(), proxies.map(([name]) => name).sort());
    for (const [name, server, id] of proxies) {
      const expected = recorded.proxies[name];
      assert.ok(expected !== undefined);
      // Connects twice: the first time imports are read, and certificates issued, while it waits.
      await toldTo(server, id, expected);
      assert.deepEqual(plain(await toldTo(server, id, expected), domains), expected, name);
    }
  });
});

describe("an Envoy of a service whose checks it exposes", () => {
  it("is told by us what Consul 1.21.4 tells it", async () => {
    await using host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport({}) });
    const definition = (method: CheckMethod): CheckDefinition => ({
      ...{ method, intervalMs: 10_000, timeoutMs: 0, successBeforePassing: 0, failuresBeforeWarning: 0 },
      ...{ failuresBeforeCritical: 0, deregisterCriticalServiceAfterMs: 0, outputMaxBytes: 0 },
    });
    const http = (url: string): CheckDefinition =>
      definition({
        ...{ type: "http", url, method: "GET", headers: {}, body: "", followRedirects: true },
        tls: { serverName: "", skipVerify: false },
      });
    const checks = new Map([
      ["a", http("http://127.0.0.1:8080/health/live?x=1")],
      ["b", definition({ type: "grpc", target: "127.0.0.1:8081/web", tls: undefined })],
      ["c", definition({ type: "tcp", address: "127.0.0.1:8080", tls: undefined })],
      ["d", http("http://127.0.0.1:8082/")],
    ]);
    const proxy = {
      ...{ destinationServiceName: "web", destinationServiceId: "web" },
      ...{ localServiceAddress: "127.0.0.1", localServicePort: 8_080, extra: { Expose: { Checks: true } } },
    };
    const id = "web-sidecar-proxy";
    const own = { node: host.nodeName, ...node };
    await host.checks.register(
      [
        {
          ...own,
          service: { name: "web", port: 8_080 },
          checks: [...checks.keys()].map((checkId) => ({ checkId, serviceId: "web" })),
        },
        { ...own, service: { kind: "connect-proxy", id, name: id, port: 9_000, proxy } },
      ],
      checks,
    );
    await using server = await xdsServer(host, { listen: "127.0.0.1:0", defaultIntentionPolicy: "allow" });
    const expected = read("exposed-1.21.4").proxies["web"];
    assert.ok(expected !== undefined);
    // Consul's machine had IPv6.
    const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ family }) => family === "IPv6"));
    const ipv6 = ',{"address_prefix":"::1","prefix_len":128}';
    const text = JSON.stringify(expected);
    assert.ok(text.includes(ipv6));
    const told = plain(await toldTo(server, id, expected), { [host.trustDomain]: "ONE" });
    assert.deepEqual(told, JSON.parse(hasIpv6 ? text : text.replaceAll(ipv6, "")));
  });
});
