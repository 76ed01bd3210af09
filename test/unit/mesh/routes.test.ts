import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { type MeshCall, type MeshRoute, routesOf } from "../../../src/mesh/connect/routes.js";
import { speakersFor } from "../../../src/mesh/snapshot/peered.js";
import type { MeshView } from "../../../src/mesh/snapshot/view.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import {
  A_DOMAIN,
  bundle,
  imported,
  instance,
  OWN_DOMAIN,
  root,
  sidecar,
  type ViewParts,
  viewOf,
} from "../../support/mesh-view.js";

const DOMAIN = "Bbbbbbbb-0000-0000-0000-000000000000.consul";
const META = { sni: ["web.default.default.us.external.x"], spiffeId: ["spiffe://x/web", "spiffe://x/gateway"] };

interface Gateway {
  readonly id: string;
  readonly address?: string;
  readonly port?: number;
  readonly wan?: { readonly address: string; readonly port: number };
  readonly node?: { readonly address?: string; readonly wan?: string };
  readonly status?: string;
  readonly weights?: { readonly passing: number; readonly warning: number };
  readonly meta?: { readonly sni: readonly string[]; readonly spiffeId: readonly string[] } | null;
  readonly kind?: string;
  readonly destination?: string;
}

function instanceOf(gateway: Gateway): ServiceInstance {
  const { id, address = "", port = 443, wan, node = {}, status = "passing", meta = META } = gateway;
  return {
    node: {
      name: `node-${id}`,
      address: node.address ?? "",
      taggedAddresses: node.wan === undefined ? {} : { wan: node.wan },
    },
    service: {
      kind: gateway.kind ?? "connect-proxy",
      id,
      address,
      port,
      taggedAddresses: wan === undefined ? {} : { wan },
      weights: gateway.weights ?? { passing: 1, warning: 1 },
      proxy: { destinationServiceName: gateway.destination ?? "Web" },
      connect: { native: false, ...(meta === null ? {} : { peerMeta: { ...meta, protocol: "tcp" } }) },
    },
    checks: [{ checkId: "alive", status }],
  } as unknown as ServiceInstance;
}

/** A cluster that has imported these, with the bundle of their peer. */
function cluster(
  gateways: readonly Gateway[],
  rootPems: readonly string[] | null = [root(0)],
  parts: ViewParts = {},
): MeshView {
  return viewOf({
    bundles: rootPems === null ? [] : [bundle("east", DOMAIN, rootPems)],
    imports: { "web?peer=east": speakersFor("web", gateways.map(instanceOf)) },
    ...parts,
  });
}

function routes(of: MeshView, call: Partial<MeshCall> = {}, fraction: () => number = () => 0) {
  return routesOf(of, { service: "web", peer: "east", as: "client", meshGateway: "", ...call }, fraction);
}

/** The one way that there is. */
function route(of: MeshView, fraction: () => number = () => 0, call: Partial<MeshCall> = {}): MeshRoute {
  const [found, ...more] = routes(of, call, fraction);
  if (found === undefined || more.length > 0) throw new Error(`${1 + more.length} ways`);
  if (found instanceof PeeringError) throw found;
  return found;
}

describe("the way to a service of a peer", () => {
  it("has the names and roots that the peer gave, word for word", async () => {
    const found = route(cluster([{ id: "a", address: "10.0.0.1" }]));
    assert.equal(found.serverName, META.sni[0]);
    assert.deepEqual(found.identities, META.spiffeId);
    assert.deepEqual(found.rootPems, [`${root(0).trimEnd()}\n`]);
    assert.equal(found.trustDomain, DOMAIN.toLowerCase());
    assert.deepEqual(found.addresses, ["10.0.0.1:443"]);
  });

  it("is none without roots of the peer: with none, Node would trust every public authority", async () => {
    for (const rootPems of [[], ["no certificate"], [""]]) {
      assert.throws(() => route(cluster([{ id: "a", address: "10.0.0.1" }], rootPems)), {
        code: "unavailable",
        message: /^"web" of the peer "east": its trust bundle has (no roots|a root that is no certificate)$/,
      });
    }
    assert.throws(() => route(cluster([{ id: "a", address: "10.0.0.1" }], null)), {
      code: "unavailable",
      message: /the trust bundle of the peer has not come yet/,
    });
  });

  it("is none where the peer has not said by which names", async () => {
    for (const meta of [null, { ...META, sni: [] }, { ...META, sni: [""] }, { ...META, spiffeId: [] }]) {
      assert.throws(() => route(cluster([{ id: "a", address: "10.0.0.1", meta }])), {
        code: "unavailable",
        message: /the peer says (nothing of how|no name under which|no identity by which)/,
      });
    }
    // One instance that says it speaks for all.
    const two = [
      { id: "a", address: "10.0.0.1", meta: null },
      { id: "b", address: "10.0.0.2" },
    ];
    assert.equal(route(cluster(two)).serverName, META.sni[0]);
  });

  it("leads to no instance that is not a proxy of the service", async () => {
    const others = [
      { id: "a", address: "10.0.0.1", kind: "" },
      { id: "b", address: "10.0.0.2", destination: "other" },
    ];
    assert.throws(() => route(cluster(others)), { code: "not-found" });
  });

  it("prefers addresses that are meant for other clusters", async () => {
    for (const [gateway, address] of [
      [{ address: "10.0.0.1", wan: { address: "192.0.2.1", port: 8443 } }, "192.0.2.1:8443"],
      [{ address: "10.0.0.1", wan: { address: "192.0.2.1", port: 0 } }, "192.0.2.1:443"],
      [{ address: "10.0.0.1", node: { address: "10.9.9.9", wan: "192.0.2.9" } }, "10.0.0.1:443"],
      [{ node: { address: "10.9.9.9", wan: "192.0.2.9" } }, "192.0.2.9:443"],
      [{ node: { address: "10.9.9.9" } }, "10.9.9.9:443"],
      [{ wan: { address: "2001:db8::1", port: 443 } }, "[2001:db8::1]:443"],
      [{ wan: { address: "gateway.example.com", port: 443 } }, "gateway.example.com:443"],
    ] as const) {
      assert.deepEqual(route(cluster([{ id: "a", ...gateway }])).addresses, [address]);
    }
    assert.throws(() => route(cluster([{ id: "a", address: "10.0.0.1", port: 0 }])), { code: "unavailable" });
  });

  it("leaves out gateways that are critical or have no weight", async () => {
    const gateways: readonly Gateway[] = [
      { id: "a", address: "10.0.0.1", status: "critical" },
      { id: "b", address: "10.0.0.2", weights: { passing: 0, warning: 1 } },
      { id: "c", address: "10.0.0.3", status: "warning" },
      { id: "d", address: "10.0.0.4", status: "warning", weights: { passing: 1, warning: 0 } },
      { id: "e", address: "10.0.0.5", status: "maintenance" },
    ];
    assert.deepEqual(route(cluster(gateways)).addresses, ["10.0.0.3:443"]);
    assert.throws(() => route(cluster(gateways.slice(0, 2))), { code: "unavailable", message: /is healthy/ });
  });

  it("draws the order of gateways, each first as often as its weight says", async () => {
    const gateways = [
      { id: "a", address: "10.0.0.1", weights: { passing: 3, warning: 1 } },
      { id: "b", address: "10.0.0.2" },
      { id: "b2", address: "10.0.0.2" },
    ];
    let state = 1;
    const fraction = (): number => {
      state = (state * 48_271) % 2_147_483_647;
      return state / 2_147_483_647;
    };
    const first = new Map<string, number>();
    for (let draw = 0; draw < 1_000; draw++) {
      const { addresses } = route(cluster(gateways), fraction);
      assert.equal(addresses.length, 2);
      const [one = ""] = addresses;
      first.set(one, (first.get(one) ?? 0) + 1);
    }
    // 3 of 5.
    assert.ok(Math.abs((first.get("10.0.0.1:443") ?? 0) - 600) < 60, `${first.get("10.0.0.1:443")} of 1000`);
  });

  it("leads to gateways that may be dialed alone, and says where that leaves none", () => {
    const gateways = [
      { id: "a", address: "10.0.0.1" },
      { id: "b", address: "10.0.0.2" },
    ];
    assert.deepEqual(route(cluster(gateways, [root(0)], { forbidden: ["10.0.0.1"] })).addresses, ["10.0.0.2:443"]);
    assert.throws(() => route(cluster(gateways, [root(0)], { forbidden: ["10.0.0.1", "10.0.0.2"] })), {
      code: "unavailable",
      message: /a mesh gateway of the peer "east", and they must not be dialed \(forbiddenAddresses\)/,
    });
  });

  it("goes through our own gateways where the mode says so: by the call, or by config entries", () => {
    const own = (id: string, port: number, status = "passing") =>
      instance(
        { kind: "mesh-gateway", id, name: "gateway", address: "10.9.0.1", port },
        { checks: [{ checkId: "alive", status }] as never },
      );
    const gateways = [own("a", 8_443), own("b", 8_444), own("c", 8_445, "critical")];
    const remote = [{ id: "a", address: "10.0.0.1" }];
    const defaults = (mode: string) =>
      [{ kind: "proxy-defaults", name: "global", extra: { MeshGateway: { Mode: mode } } }] as never;
    const ofCaller = [{ kind: "service-defaults", name: "client", extra: { MeshGateway: { Mode: "local" } } }] as never;
    const addresses = (parts: ViewParts, call: Partial<MeshCall> = {}) =>
      [...route(cluster(remote, [root(0)], { gateways, ...parts }), undefined, call).addresses].sort();
    const through = ["10.9.0.1:8443", "10.9.0.1:8444"];
    assert.deepEqual(addresses({}), ["10.0.0.1:443"]);
    assert.deepEqual(addresses({}, { meshGateway: "local" }), through);
    assert.deepEqual(addresses({ entries: defaults("local") }), through);
    assert.deepEqual(addresses({ entries: ofCaller }), through);
    assert.deepEqual(addresses({ entries: ofCaller }, { as: "other" }), ["10.0.0.1:443"]);
    assert.deepEqual(addresses({ entries: defaults("local") }, { meshGateway: "remote" }), ["10.0.0.1:443"]);
    for (const mode of ["remote", "none"]) assert.deepEqual(addresses({ entries: defaults(mode) }), ["10.0.0.1:443"]);
    // The names are those of the peer's service all the same.
    const found = route(cluster(remote, [root(0)], { gateways }), undefined, { meshGateway: "local" });
    assert.deepEqual([found.serverName, found.identities], [META.sni[0], META.spiffeId]);
    assert.deepEqual([found.mayDial("127.0.0.1"), found.trustDomain], [true, DOMAIN.toLowerCase()]);
    assert.throws(() => addresses({ gateways: [] }, { meshGateway: "local" }), {
      code: "unavailable",
      message: /a mesh gateway of ours \(mode "local"\), and there is none with an address and a port/,
    });
    assert.throws(
      () => addresses({ gateways: [own("c", 1, "critical")] }, { meshGateway: "local" }),
      /and none is healthy/,
    );
  });
});

describe("the way to a service of this cluster", () => {
  const at = (service: string, port: number): ServiceInstance => sidecar(service, {}, port);
  const peered: ViewParts = {
    bundles: [bundle("east", A_DOMAIN, [root(1)])],
    imports: { "web?peer=east": [imported("web", "us")], "new?peer=east": [imported("new", "us")] },
  };
  const to = (parts: ViewParts, fraction: () => number = () => 0, call: Partial<MeshCall> = {}): readonly string[] =>
    routes(viewOf(parts), { peer: "", ...call }, fraction).map((found) =>
      found instanceof PeeringError
        ? found.message
        : `${found.place} at ${found.addresses.join()} as ${found.serverName}`,
    );
  const web = `"web" at 10.0.0.1:1 as web.default.dc1.internal.${OWN_DOMAIN}`;
  const east = `"web" of the peer "east" at 198.18.0.1:8080 as web.default.default.us.external.${A_DOMAIN}`;

  it("leads to its instances, where no config entry says otherwise", () => {
    assert.deepEqual(to({ instances: { web: [at("web", 1)] } }), [web]);
    assert.deepEqual(to({}), ['there is no service "web" in the mesh']);
    assert.deepEqual(to({ instances: { web: [at("web", 1)] }, rootPems: [] }), [
      "no root certificate of this cluster is known: nothing there can be trusted",
    ]);
  });

  it("follows a redirect: to another service, to a subset, and to a peer", () => {
    const instances = { web: [at("web", 1)], new: [at("new", 2)] };
    const resolver = (redirect: object, more: object = {}) =>
      [{ kind: "service-resolver", name: "web", redirect, ...more }] as never;
    assert.deepEqual(to({ instances, entries: resolver({ service: "new" }) }), [
      `"new" at 10.0.0.1:2 as new.default.dc1.internal.${OWN_DOMAIN}`,
    ]);
    assert.deepEqual(to({ instances, ...peered, entries: resolver({ peer: "east" }) }), [east]);
    const subsets = [{ kind: "service-resolver", name: "web", defaultSubset: "v2", subsets: { v2: {} } }] as const;
    assert.deepEqual(to({ instances, entries: subsets }), [
      `subset "v2" of "web" at 10.0.0.1:1 as v2.web.default.dc1.internal.${OWN_DOMAIN}`,
    ]);
    assert.deepEqual(to({ instances, entries: resolver({ datacenter: "dc2" }) }), [
      '"web" is in the datacenter "dc2", and others are not served',
    ]);
  });

  it("fails over to a peer and to other services, in the order of the resolver", () => {
    const targets = [{ peer: "east" }, { service: "new" }];
    const entries = [
      { kind: "service-resolver", name: "web", failover: { "*": { targets } }, connectTimeout: "7s" },
    ] as const;
    const instances = { web: [at("web", 1)], new: [at("new", 2)] };
    assert.deepEqual(to({ ...peered, instances, entries }), [
      web,
      east,
      `"new" at 10.0.0.1:2 as new.default.dc1.internal.${OWN_DOMAIN}`,
    ]);
    assert.deepEqual(to({ ...peered, entries, bundles: [] }), [
      'there is no service "web" in the mesh',
      '"web" of the peer "east": the trust bundle of the peer has not come yet',
      'there is no service "new" in the mesh',
    ]);
    const [first] = routes(viewOf({ ...peered, instances, entries }), { peer: "" });
    assert.equal(first instanceof PeeringError ? 0 : first?.connectTimeoutMs, 7_000);
  });

  it("draws the branch of a splitter for each connection, as often as its weight says", () => {
    const entries = [
      { kind: "proxy-defaults", name: "global", config: { protocol: "http" } },
      { kind: "service-splitter", name: "web", splits: [{ weight: 25 }, { weight: 75, service: "new" }] },
      {
        kind: "service-splitter",
        name: "new",
        splits: [
          { weight: 0, service: "never" },
          { weight: 100, service: "newest" },
        ],
      },
    ] as never;
    const instances = { web: [at("web", 1)], new: [at("new", 2)], newest: [at("newest", 3)], never: [at("never", 4)] };
    const drawn = new Map<string, number>();
    for (let draw = 0; draw < 100; draw++) {
      const [found = ""] = to({ instances, entries }, () => draw / 100);
      const name = found.split(" ")[0] ?? "";
      drawn.set(name, (drawn.get(name) ?? 0) + 1);
    }
    assert.deepEqual(Object.fromEntries(drawn), { '"web"': 25, '"newest"': 75 });
  });

  it("refuses a router and a chain that cannot be compiled, and passes over neither", () => {
    const instances = { web: [at("web", 1)] };
    const http = { kind: "service-defaults", name: "web", protocol: "http" } as const;
    const routed = [http, { kind: "service-router", name: "web", routes: [] }] as const;
    assert.throws(() => to({ instances, entries: routed }), {
      code: "unavailable",
      message: '"web" has a service-router, which chooses by the request',
    });
    assert.throws(
      () => to({ instances, entries: [{ kind: "service-splitter", name: "web", splits: [{ weight: 100 }] }] }),
      {
        code: "unavailable",
        message: /the discovery chain of "web" cannot be used: .*protocol/,
      },
    );
  });

  it("goes through our own gateways to a peer that its chain leads to, where the resolver's service or the call says so", () => {
    const gateways = [instance({ kind: "mesh-gateway", name: "gateway", address: "10.9.0.1", port: 8_443 })];
    const redirect = { kind: "service-resolver", name: "web", redirect: { peer: "east" } };
    const entries = [
      redirect,
      { kind: "service-defaults", name: "web", extra: { MeshGateway: { Mode: "local" } } },
    ] as never;
    const ours = `"web" of the peer "east" at 10.9.0.1:8443 as web.default.default.us.external.${A_DOMAIN}`;
    assert.deepEqual(to({ ...peered, gateways, entries }), [ours]);
    assert.deepEqual(to({ ...peered, gateways, entries: [redirect] as never }, undefined, { meshGateway: "local" }), [
      ours,
    ]);
    assert.deepEqual(to({ ...peered, gateways, entries: [redirect] as never }), [east]);
  });
});
