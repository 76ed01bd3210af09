import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import type { PeeringHost } from "../../../src/host/host.js";
import { type MeshRoute, routeTo } from "../../../src/mesh/connect/routes.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { issue } from "../../support/mesh-certificates.js";

const DOMAIN = "Bbbbbbbb-0000-0000-0000-000000000000.consul";
const META = { sni: ["web.default.default.us.external.x"], spiffeId: ["spiffe://x/web", "spiffe://x/gateway"] };

let root = "";
before(async () => {
  root = (await issue({ ca: true })).certificatePem;
});

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

function instance(gateway: Gateway): ServiceInstance {
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

/** A host that has imported these, with the bundle of their peer. */
function host(gateways: readonly Gateway[], rootPems: readonly string[] | null = [root]): PeeringHost {
  return {
    view: {
      peering: (name: string) => (name === "east" ? {} : undefined),
      trustBundle: () => (rootPems === null ? undefined : { trustDomain: DOMAIN, rootPems }),
      mayDial: () => true,
    },
    imports: {
      instances: async ({ service }: { readonly service: string }) =>
        service === "web-sidecar-proxy" ? gateways.map(instance) : [],
    },
  } as unknown as PeeringHost;
}

function route(of: PeeringHost, fraction: () => number = () => 0, peer = "east"): Promise<MeshRoute> {
  return routeTo(of, { service: "web", peer }, fraction);
}

describe("the way to a service of a peer", () => {
  it("has the names and roots that the peer gave, word for word", async () => {
    const found = await route(host([{ id: "a", address: "10.0.0.1" }]));
    assert.equal(found.serverName, META.sni[0]);
    assert.deepEqual(found.identities, META.spiffeId);
    assert.deepEqual(found.rootPems, [root]);
    assert.equal(found.trustDomain, DOMAIN.toLowerCase());
    assert.deepEqual(found.addresses, ["10.0.0.1:443"]);
  });

  it("is none without roots of the peer: with none, Node would trust every public authority", async () => {
    for (const rootPems of [[], ["no certificate"], [""]]) {
      await assert.rejects(route(host([{ id: "a", address: "10.0.0.1" }], rootPems)), {
        code: "unavailable",
        message: /^no root certificate of the peer "east" is known/,
      });
    }
    await assert.rejects(route(host([{ id: "a", address: "10.0.0.1" }], null)), {
      code: "unavailable",
      message: /no root certificate/,
    });
  });

  it("is none where the peer has not said by which names", async () => {
    for (const meta of [null, { ...META, sni: [] }, { ...META, sni: [""] }, { ...META, spiffeId: [] }]) {
      await assert.rejects(route(host([{ id: "a", address: "10.0.0.1", meta }])), {
        code: "unavailable",
        message: /has not said by which names/,
      });
    }
    // One instance that says it speaks for all.
    const two = [
      { id: "a", address: "10.0.0.1", meta: null },
      { id: "b", address: "10.0.0.2" },
    ];
    assert.equal((await route(host(two))).serverName, META.sni[0]);
  });

  it("leads to no instance that is not a proxy of the service", async () => {
    const others = [
      { id: "a", address: "10.0.0.1", kind: "" },
      { id: "b", address: "10.0.0.2", destination: "other" },
    ];
    await assert.rejects(route(host(others)), { code: "not-found" });
    await assert.rejects(route(host([]), undefined, "west"), { code: "not-found", message: /Peering not found/ });
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
      assert.deepEqual((await route(host([{ id: "a", ...gateway }]))).addresses, [address]);
    }
    await assert.rejects(route(host([{ id: "a", address: "10.0.0.1", port: 0 }])), { code: "unavailable" });
  });

  it("leaves out gateways that are critical or have no weight", async () => {
    const gateways: readonly Gateway[] = [
      { id: "a", address: "10.0.0.1", status: "critical" },
      { id: "b", address: "10.0.0.2", weights: { passing: 0, warning: 1 } },
      { id: "c", address: "10.0.0.3", status: "warning" },
      { id: "d", address: "10.0.0.4", status: "warning", weights: { passing: 1, warning: 0 } },
      { id: "e", address: "10.0.0.5", status: "maintenance" },
    ];
    assert.deepEqual((await route(host(gateways))).addresses, ["10.0.0.3:443"]);
    await assert.rejects(route(host(gateways.slice(0, 2))), { code: "unavailable", message: /is healthy/ });
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
      const { addresses } = await route(host(gateways), fraction);
      assert.equal(addresses.length, 2);
      const [one = ""] = addresses;
      first.set(one, (first.get(one) ?? 0) + 1);
    }
    // 3 of 5.
    assert.ok(Math.abs((first.get("10.0.0.1:443") ?? 0) - 600) < 60, `${first.get("10.0.0.1:443")} of 1000`);
  });
});
