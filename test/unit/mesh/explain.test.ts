import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ExportExplanation } from "../../../src/config/exports.js";
import { type ConnectionFacts, explain } from "../../../src/mesh/snapshot/explain.js";
import { upstreamsOf } from "../../../src/mesh/snapshot/settings.js";
import type { ConnectionExplanation, ConnectionQuestion } from "../../../src/model/connection-explanation.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import {
  A_DOMAIN,
  bundle,
  imported,
  instance,
  OWN_DOMAIN,
  sidecar,
  type ViewParts,
  viewOf,
} from "../../support/mesh-view.js";

interface FactParts {
  readonly states?: Readonly<Record<string, string>>;
  readonly exported?: Partial<ExportExplanation>;
  readonly reaching?: readonly string[];
  readonly plain?: readonly string[];
  readonly certificates?: string;
  readonly gatewayCertificates?: string;
  readonly sidecars?: readonly ServiceInstance[];
}

function factsOf(parts: FactParts = {}, gateways: readonly ServiceInstance[] = []): ConnectionFacts {
  const { states = { east: "active" }, exported, reaching = [], plain = [], sidecars = [] } = parts;
  return {
    peeringState: (peer) => states[peer],
    exportOf: (service, peer) => ({
      ...{ service, peer, exported: true, ordinary: true, mesh: true, reasons: [] },
      text: `${service} is exported to ${peer}.`,
      ...exported,
    }),
    peersReaching: () => reaching,
    isImported: (_peer, service) => plain.includes(service),
    certificateProblem: (service) => (service === undefined ? parts.gatewayCertificates : parts.certificates),
    meshGateways: () => gateways,
    registeredUpstreams: () => sidecars.flatMap(({ service }) => upstreamsOf(service)),
  };
}

function asked(question: ConnectionQuestion, view: ViewParts, facts: FactParts = {}): ConnectionExplanation {
  return explain(viewOf(view), factsOf(facts, view.gateways), question);
}

/** Each step as `part result`, and which one failed first. */
function shape({ steps, failed }: ConnectionExplanation): readonly string[] {
  return [...steps.map(({ part, result }) => `${part} ${result}`), `failed: ${failed?.part ?? "nothing"}`];
}

const OUT: ConnectionQuestion = { source: "client", destination: "web", peer: "east" };
const IN: ConnectionQuestion = { source: "client", destination: "web", sourcePeer: "east" };
const WITHIN: ConnectionQuestion = { source: "client", destination: "web" };
const outward: ViewParts = {
  bundles: [bundle("east", A_DOMAIN)],
  imports: { "web?peer=east": [imported("web", "us")] },
};
const gateway = instance({ kind: "mesh-gateway", name: "gateway", address: "10.0.0.9", port: 8443 });
const allowed = [
  {
    kind: "service-intentions",
    name: "web",
    sources: [{ name: "client", peer: "east", action: "allow", precedence: 9 }],
  },
] as const;
const inward: ViewParts = {
  bundles: [bundle("east", A_DOMAIN)],
  instances: { web: [sidecar("web")] },
  gateways: [gateway],
  entries: allowed,
};
const local = [
  { kind: "service-intentions", name: "web", sources: [{ name: "client", action: "allow", precedence: 9 }] },
] as const;
const within: ViewParts = { instances: { web: [sidecar("web")] }, entries: local };
const down = { checks: [{ checkId: "alive", status: "critical" }] as never };

describe("a connection to a service of a peer, explained", () => {
  it("goes through each part, and says that the other cluster decides about intentions", () => {
    const explanation = asked(OUT, outward);
    assert.deepEqual(shape(explanation), [
      "peering ok",
      "import ok",
      "protocol ok",
      "names ok",
      "trust ok",
      "gateway ok",
      "certificate ok",
      "intention unknown",
      "failed: nothing",
    ]);
    assert.deepEqual(explanation.source, { service: "client", peer: "" });
    assert.deepEqual(explanation.destination, { service: "web", peer: "east" });
    const texts = explanation.steps.map(({ text }) => text).join("\n");
    assert.match(
      texts,
      new RegExp(`reached as web\\.default\\.default\\.us\\.external\\.${A_DOMAIN}, and must show spiffe://`),
    );
    assert.match(texts, /the mesh gateways of "east" are dialed: 198\.18\.0\.1:8080/);
    assert.match(
      texts,
      /only "east" knows: ask there with `peerage explain connection web -source client -source-peer/,
    );
  });

  const failing: readonly (readonly [string, string, RegExp, ViewParts, FactParts?])[] = [
    ["there is no peering", "peering", /there is no peering "east"/, outward, { states: {} }],
    [
      "the peering is pending",
      "peering",
      /is pending: its peer has never connected/,
      outward,
      { states: { east: "pending" } },
    ],
    ["the peering is over", "peering", /is terminated/, outward, { states: { east: "terminated" } }],
    ["the peering is being deleted", "peering", /is deleting/, outward, { states: { east: "deleting" } }],
    [
      "the peer exports nothing",
      "import",
      /does not export it to the mesh/,
      { ...outward, imports: { "web?peer=east": [] } },
    ],
    [
      "the peer exports it outside of the mesh",
      "import",
      /it is exported as an ordinary service: it has no sidecar there/,
      { ...outward, imports: { "web?peer=east": [] } },
      { plain: ["web"] },
    ],
    [
      "the peer says no names",
      "names",
      /says nothing of how to reach it/,
      { ...outward, imports: { "web?peer=east": [imported("web", "us", { meta: false })] } },
    ],
    ["the bundle has not come", "trust", /has not come yet/, { ...outward, bundles: [] }],
    [
      "the bundle is of our domain",
      "trust",
      /names our trust domain/,
      { ...outward, bundles: [bundle("east", OWN_DOMAIN)] },
    ],
    ["the bundle is empty", "trust", /has no roots/, { ...outward, bundles: [bundle("east", A_DOMAIN, [])] }],
    [
      "the gateway has no address",
      "gateway",
      /tells no address of a mesh gateway/,
      { ...outward, imports: { "web?peer=east": [withPort0(imported("web", "us"))] } },
    ],
    [
      "the gateway may not be dialed",
      "gateway",
      /may not be dialed \(forbiddenAddresses\): 198\.18\.0\.1:8080/,
      { ...outward, forbidden: ["198.18.0.1"] },
    ],
    [
      "no gateway is healthy",
      "gateway",
      /none of them is healthy: 198\.18\.0\.1:8080/,
      { ...outward, imports: { "web?peer=east": [{ ...imported("web", "us"), ...down }] } },
    ],
    [
      "the mode wants our own gateways, and there is none",
      "gateway",
      /our own mesh gateways first \(mode "local"\), and this cluster has none/,
      {
        ...outward,
        entries: [{ kind: "proxy-defaults", name: "global", extra: { MeshGateway: { Mode: "local" } } }] as never,
      },
    ],
    ["there is no certificate", "certificate", /for "client": no key/, outward, { certificates: "no key" }],
  ];
  for (const [what, part, text, view, facts] of failing) {
    it(`fails where ${what}, and says what helps`, () => {
      const { failed, steps } = asked(OUT, view, facts);
      assert.equal(failed?.part, part, JSON.stringify(steps));
      assert.match(failed?.text ?? "", text);
      assert.notEqual(failed?.remedy, "");
      assert.ok(steps.includes(failed as never));
    });
  }

  it("says that imports which are being read are not known yet", () => {
    assert.equal(asked(OUT, { ...outward, imports: {} }).steps[1]?.result, "unknown");
  });

  it("goes on by what was known where the stream is lost, and carries a protocol that it does not know as bytes", () => {
    const view = { ...outward, imports: { "web?peer=east": [imported("web", "us", { protocol: "mqtt" })] } };
    const { failed, steps } = asked(OUT, view, { states: { east: "failing" } });
    assert.equal(failed, undefined);
    assert.match(steps[0]?.text ?? "", /has lost its stream/);
    assert.match(steps[2]?.text ?? "", /"mqtt", which is carried as tcp/);
  });

  it("goes through our own gateways by the mode of its sidecar, of the question, or of config entries", () => {
    const { gateways } = inward;
    const view: ViewParts = { ...outward, ...(gateways && { gateways }) };
    const through = (question: ConnectionQuestion, parts: ViewParts, facts: FactParts = {}): string =>
      asked(question, parts, facts).steps.find(({ part }) => part === "gateway")?.text ?? "";
    assert.match(through(OUT, view), /the mesh gateways of "east"/);
    assert.match(
      through({ ...OUT, meshGateway: "local" }, view),
      /our own mesh gateways first \(mode "local"\): 10\.0\.0\.9:8443/,
    );
    const mode = { destinationName: "web", destinationPeer: "east", localBindPort: 1, meshGateway: { mode: "local" } };
    const sidecars = [sidecar("client", { upstreams: [mode] })];
    assert.match(through(OUT, view, { sidecars }), /our own mesh gateways/);
    const entries = [{ kind: "service-defaults", name: "client", extra: { MeshGateway: { Mode: "local" } } }] as never;
    assert.match(through(OUT, { ...view, entries }), /our own mesh gateways/);
  });

  it("hints at a sidecar that has upstreams, and not this one", () => {
    const sidecars = [sidecar("client", { upstreams: [{ destinationName: "db", localBindPort: 1 }] })];
    assert.match(asked(OUT, outward, { sidecars }).hints[0] ?? "", /none of them is this service/);
    assert.deepEqual(asked(OUT, outward).hints, []);
  });
});

function withPort0(of: ServiceInstance): ServiceInstance {
  return { ...of, service: { ...of.service, port: 0, taggedAddresses: {} } };
}

describe("a connection of a service of a peer to one here, explained", () => {
  it("goes through each part, and says that the other cluster has its own", () => {
    const explanation = asked(IN, inward);
    assert.deepEqual(shape(explanation), [
      "peering ok",
      "export ok",
      "chain ok",
      "instances ok",
      "certificate ok",
      "intention ok",
      "names ok",
      "trust ok",
      "trust ok",
      "gateway ok",
      "other-cluster unknown",
      "failed: nothing",
    ]);
    assert.deepEqual(explanation.hints, []);
    const texts = explanation.steps.map(({ text }) => text).join("\n");
    assert.match(texts, new RegExp(`ask the gateway for web\\.default\\.default\\.east\\.external\\.${OWN_DOMAIN}`));
    assert.match(texts, /peers come in by our mesh gateways: 10\.0\.0\.9:8443/);
    assert.match(texts, /allowed by its source "client" of peer "east"/);
  });

  const other = [
    { kind: "service-intentions", name: "web", sources: [{ name: "client", action: "allow", precedence: 9 }] },
  ] as const;
  const http = [{ kind: "service-defaults", name: "web", protocol: "http" }] as const;
  const elsewhere = [{ kind: "service-resolver", name: "web", redirect: { service: "web", peer: "north" } }] as const;
  const failing: readonly (readonly [string, string, RegExp, ViewParts, FactParts?])[] = [
    ["there is no peering", "peering", /there is no peering/, inward, { states: {} }],
    [
      "it is not exported",
      "export",
      /is not exported to east/,
      inward,
      { exported: { exported: false, mesh: false, text: "web is not exported to east: no block names it." } },
    ],
    [
      "it is exported outside of the mesh",
      "export",
      /as an ordinary service, which is outside of the mesh/,
      inward,
      { exported: { mesh: false } },
    ],
    [
      "its chain cannot be compiled",
      "chain",
      /cannot be used: .*protocol/,
      { ...inward, entries: [{ kind: "service-splitter", name: "web", splits: [{ weight: 100 }] }] },
    ],
    [
      "its chain leads to another cluster alone",
      "instances",
      /passes no call of a peer on/,
      { ...inward, entries: elsewhere },
    ],
    ["nothing speaks for it", "instances", /nothing with an address/, { ...inward, instances: {} }],
    [
      "nothing of it is healthy",
      "instances",
      /none of its 1 instance\(s\) is healthy/,
      { ...inward, instances: { web: [{ ...sidecar("web"), ...down }] } },
    ],
    ["there is no certificate", "certificate", /for "web": no key/, inward, { certificates: "no key" }],
    [
      "no intention lets it in",
      "intention",
      /denied by the default, since no intention matches/,
      { ...inward, entries: other },
    ],
    ["the bundle has not come", "trust", /has not come yet/, { ...inward, bundles: [] }],
    ["we have no roots", "trust", /the roots of this cluster are not known/, { ...inward, rootPems: [] }],
    ["we have no gateway", "gateway", /and this cluster has none/, { ...inward, gateways: [] }],
    ["no gateway is healthy", "gateway", /none of them is healthy/, { ...inward, gateways: [{ ...gateway, ...down }] }],
    [
      "the gateway has no certificate to end requests with",
      "certificate",
      /for the mesh gateways: no key/,
      { ...inward, entries: [...http, ...allowed] },
      { gatewayCertificates: "no key" },
    ],
  ];
  for (const [what, part, text, view, facts] of failing) {
    it(`fails where ${what}, and says what helps`, () => {
      const { failed, steps } = asked(IN, view, facts);
      assert.equal(failed?.part, part, JSON.stringify(steps));
      assert.match(failed?.text ?? "", text);
      assert.notEqual(failed?.remedy, "");
    });
  }

  it("is exported where only a service is whose chain leads to it", () => {
    const explanation = asked(IN, inward, { exported: { exported: false, mesh: false }, reaching: ["east"] });
    assert.equal(explanation.failed, undefined);
    assert.match(explanation.steps[1]?.text ?? "", /through the chain of another service/);
  });

  it("judges a request by its method and path, and says what it lacks without them", () => {
    const permissions = [
      { action: "deny", http: { pathPrefix: "/admin" } },
      { action: "allow", http: { pathPrefix: "/", methods: ["GET"] } },
    ] as const;
    const sources = [{ name: "client", peer: "east", permissions, precedence: 9 }] as const;
    const entries = [...http, { kind: "service-intentions", name: "web", sources }] as const;
    const intention = (question: Partial<ConnectionQuestion>, more: ViewParts["entries"] = entries) => {
      const { steps, failed } = asked({ ...IN, ...question }, { ...inward, entries: more });
      const [found] = steps.filter(({ part }) => part === "intention");
      return [found?.result, found?.text, failed?.part];
    };
    const [result, text, failed] = intention({});
    assert.deepEqual([result, failed], ["unknown", undefined]);
    assert.match(text ?? "", /2 permission\(s\) for requests: give a path and a method/);
    assert.deepEqual(intention({ path: "/x" })[0], "ok");
    assert.deepEqual(intention({ path: "/admin/x" })[0], "failed");
    assert.deepEqual(intention({ path: "/x", method: "POST" })[0], "failed");
    // As bytes, requests are not looked at.
    assert.match(
      intention({ path: "/x" }, entries.slice(1))[1] ?? "",
      /has permissions for HTTP, and this is a connection/,
    );
  });

  it("hints at intentions that do not do to callers of a peer what they seem to", () => {
    const denyAll = [
      { kind: "service-intentions", name: "*", sources: [{ name: "*", action: "deny", precedence: 5 }] },
    ] as const;
    const open = asked(IN, { ...inward, entries: denyAll, allowsByDefault: true });
    assert.equal(open.failed, undefined);
    assert.match(open.hints.join(), /denies every caller \("\*"\) of this cluster but not those of the peer/);
    const closed = asked(IN, { ...inward, entries: [] });
    assert.equal(closed.failed?.part, "intention");
    assert.match(closed.hints.join(), /no intention lets any service of "east" call it/);
  });
});

describe("a connection between services of this cluster, explained", () => {
  it("goes through each part", () => {
    assert.deepEqual(shape(asked(WITHIN, within)), [
      "chain ok",
      "instances ok",
      "intention ok",
      "trust ok",
      "certificate ok",
      "failed: nothing",
    ]);
  });

  const failing: readonly (readonly [string, string, ViewParts, FactParts?])[] = [
    ["nothing speaks for it", "instances", { ...within, instances: {} }],
    ["no intention lets it in", "intention", { ...within, entries: [] }],
    ["we have no roots", "trust", { ...within, rootPems: [] }],
    ["there is no certificate", "certificate", within, { certificates: "no key" }],
    [
      "it is in another datacenter",
      "instances",
      { ...within, entries: [...local, { kind: "service-resolver", name: "web", redirect: { datacenter: "dc2" } }] },
    ],
  ];
  for (const [what, part, view, facts] of failing) {
    it(`fails where ${what}`, () => {
      const { failed } = asked(WITHIN, view, facts);
      assert.equal(failed?.part, part);
      assert.notEqual(failed?.remedy, "");
    });
  }

  it("follows a redirect to a peer, with the parts that count there", () => {
    const entries = [{ kind: "service-resolver", name: "web", redirect: { peer: "east" } }] as const;
    const explanation = asked(WITHIN, { ...outward, entries });
    assert.equal(explanation.failed, undefined);
    assert.ok(explanation.steps.some(({ part, place }) => part === "gateway" && place === '"web" of the peer "east"'));
    assert.equal(asked(WITHIN, { ...outward, bundles: [], entries }).failed?.part, "trust");
  });

  it("fails over: one place that works is enough, and without one the first failure of the first place counts", () => {
    const resolver = {
      kind: "service-resolver",
      name: "web",
      failover: { "*": { targets: [{ peer: "east" }] } },
    } as const;
    const view: ViewParts = { ...outward, entries: [...local, resolver] };
    const explanation = asked(WITHIN, view);
    assert.equal(explanation.failed, undefined);
    assert.ok(
      explanation.steps.some(
        ({ part, result, place }) => part === "instances" && result === "failed" && place === '"web"',
      ),
    );
    const { failed } = asked(WITHIN, { ...view, bundles: [] });
    assert.deepEqual([failed?.part, failed?.place], ["instances", '"web"']);
    const here = asked(WITHIN, { ...view, bundles: [], instances: { web: [sidecar("web")] } });
    assert.equal(here.failed, undefined);
  });

  it("fails where one of the ways of a splitter leads nowhere", () => {
    const entries = [
      ...local,
      { kind: "service-defaults", name: "web", protocol: "http" },
      { kind: "service-defaults", name: "new", protocol: "http" },
      { kind: "service-splitter", name: "web", splits: [{ weight: 50 }, { weight: 50, service: "new" }] },
      { kind: "service-intentions", name: "new", sources: [{ name: "client", action: "allow", precedence: 9 }] },
    ] as const;
    const { failed, steps } = asked(WITHIN, { ...within, entries });
    assert.deepEqual([failed?.part, failed?.place], ["instances", '"new"']);
    assert.match(steps[0]?.text ?? "", /its splitter leads to "new", "web"; the protocol is http/);
    const both = { web: [sidecar("web")], new: [sidecar("new")] };
    assert.equal(asked(WITHIN, { ...within, entries, instances: both }).failed, undefined);
  });
});
