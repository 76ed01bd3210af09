import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type DeltaOutput, DeltaSession } from "../../../src/mesh/ads/session.js";
import { type ResourceSet, TYPE_URLS } from "../../../src/mesh/xds/resources.js";
import type { ResourceType } from "../../../src/model/connected-proxy.js";
import { DeltaDiscoveryRequestSchema, type DeltaDiscoveryResponse } from "../../../src/wire/envoy.js";

type Versions = Partial<Record<ResourceType, Readonly<Record<string, string>>>>;
type Request = MessageInitShape<typeof DeltaDiscoveryRequestSchema>;

/** Resources of given versions. Each cluster has its endpoints for a child, and each listener the route of its name. */
function set(versions: Versions, mayBeEmpty: readonly ResourceType[] = []): ResourceSet {
  const of = (type: ResourceType) =>
    new Map(
      Object.entries(versions[type] ?? {}).map(([name, version]) => {
        const children = type === "cluster" || type === "listener" ? [name] : [];
        return [name, { version, bytes: Buffer.from(version), children }];
      }),
    );
  return {
    resources: {
      secret: of("secret"),
      cluster: of("cluster"),
      endpoint: of("endpoint"),
      listener: of("listener"),
      route: of("route"),
    },
    mayBeEmpty: new Set(mayBeEmpty),
  };
}

const responses = (outputs: readonly DeltaOutput[]): readonly DeltaDiscoveryResponse[] =>
  outputs.flatMap((output) => (output.type === "send" ? [output.response] : []));

/** Each response as `type: +added -removed`. */
function told(outputs: readonly DeltaOutput[]): readonly string[] {
  return responses(outputs).map(({ typeUrl, resources, removedResources }) => {
    const type = Object.entries(TYPE_URLS).find(([, url]) => url === typeUrl)?.[0];
    return [`${type}:`, ...resources.map(({ name }) => `+${name}`), ...removedResources.map((name) => `-${name}`)].join(
      " ",
    );
  });
}

class Envoy {
  readonly session: DeltaSession;
  readonly #nonces = new Map<string, string>();

  /** @param responseBytes - each resource has as many bytes as its version has characters. */
  constructor(responseBytes = 100) {
    this.session = new DeltaSession({ subscribedNames: 5, responseBytes });
  }

  state(versions: Versions, mayBeEmpty: readonly ResourceType[] = []): readonly string[] {
    return this.#heard(this.session.handle({ type: "resources", set: set(versions, mayBeEmpty) }));
  }

  ask(type: ResourceType, request: Request = {}): readonly string[] {
    return this.#heard(this.outputs({ typeUrl: TYPE_URLS[type], ...request }));
  }

  ack(type: ResourceType): readonly string[] {
    return this.ask(type, { responseNonce: this.#nonces.get(TYPE_URLS[type]) ?? "" });
  }

  nack(type: ResourceType): readonly string[] {
    return this.ask(type, {
      responseNonce: this.#nonces.get(TYPE_URLS[type]) ?? "",
      errorDetail: { code: 13, message: "no" },
    });
  }

  outputs(request: Request): readonly DeltaOutput[] {
    return this.session.handle({ type: "request", request: create(DeltaDiscoveryRequestSchema, request) });
  }

  #heard(outputs: readonly DeltaOutput[]): readonly string[] {
    for (const { typeUrl, nonce } of responses(outputs)) this.#nonces.set(typeUrl, nonce);
    return told(outputs);
  }
}

const both: Versions = {
  cluster: { a: "1", b: "1" },
  endpoint: { a: "1", b: "1" },
  listener: { l: "1" },
  route: { l: "1" },
};

/** A proxy that has all of {@link both}. */
function ready(): Envoy {
  const proxy = new Envoy();
  proxy.state(both);
  proxy.ask("cluster");
  proxy.ask("endpoint", { resourceNamesSubscribe: ["a", "b"] });
  proxy.ack("cluster");
  proxy.ack("endpoint");
  proxy.ask("listener");
  proxy.ask("route", { resourceNamesSubscribe: ["l"] });
  proxy.ack("listener");
  proxy.ack("route");
  return proxy;
}

describe("a delta session", () => {
  it("sends endpoints before the clusters are acknowledged, and listeners after both", () => {
    const proxy = new Envoy();
    assert.deepEqual(proxy.state(both), []);
    assert.deepEqual(proxy.ask("listener"), ["listener: +l"]);
    const other = new Envoy();
    other.state(both);
    assert.deepEqual(other.ask("cluster"), ["cluster: +a +b"]);
    assert.deepEqual(other.ask("listener"), []);
    assert.deepEqual(other.ask("endpoint", { resourceNamesSubscribe: ["a", "b"] }), ["endpoint: +a +b"]);
    assert.deepEqual(other.ack("cluster"), []);
    assert.deepEqual(other.ack("endpoint"), ["listener: +l"]);
    assert.deepEqual(other.ask("route", { resourceNamesSubscribe: ["l"] }), ["route: +l"]);
  });

  it("numbers responses across types, and ignores a nonce that it has not given", () => {
    const proxy = new Envoy();
    proxy.state(both);
    const nonces = [
      ...responses(proxy.outputs({ typeUrl: TYPE_URLS.cluster })),
      ...responses(proxy.outputs({ typeUrl: TYPE_URLS.endpoint, resourceNamesSubscribe: ["a"] })),
    ].map(({ nonce }) => nonce);
    assert.deepEqual(nonces, ["00000001", "00000002"]);
    assert.deepEqual(proxy.ask("cluster", { responseNonce: "00000009" }), []);
    assert.deepEqual(proxy.session.unanswered, ["cluster", "endpoint"]);
  });

  it("sends nothing for a state that is the same, and the newest of several that came while a response was under way", () => {
    const proxy = ready();
    assert.deepEqual(proxy.state(both), []);
    assert.deepEqual(proxy.state({ ...both, listener: { l: "2" } }), ["listener: +l", "route: +l"]);
    assert.deepEqual(proxy.state({ ...both, listener: { l: "3" } }), []);
    assert.deepEqual(proxy.state({ ...both, listener: { l: "4" } }), []);
    const [response] = responses(proxy.outputs({ typeUrl: TYPE_URLS.listener, responseNonce: "00000005" }));
    assert.equal(response?.resources[0]?.version, "4");
  });

  it("sends the endpoints of a cluster that is replaced again, in the same pass, and so the routes of a listener", () => {
    const proxy = ready();
    assert.deepEqual(proxy.state({ ...both, cluster: { a: "2", b: "1" } }), ["cluster: +a", "endpoint: +a"]);
    proxy.ack("endpoint");
    assert.deepEqual(proxy.ack("cluster"), []);
  });

  it("does not take a late answer for one about what the proxy has forgotten meanwhile", () => {
    const proxy = new Envoy();
    proxy.state(both);
    proxy.ask("cluster");
    proxy.ask("endpoint", { resourceNamesSubscribe: ["a"] });
    proxy.ack("cluster");
    assert.deepEqual(proxy.state({ ...both, cluster: { a: "2", b: "1" } }), ["cluster: +a"]);
    assert.deepEqual(proxy.ack("endpoint"), ["endpoint: +a"]);
  });

  it("withdraws listeners before clusters, and endpoints never", () => {
    const proxy = ready();
    const rest = { cluster: { a: "1" }, endpoint: { a: "1" } };
    assert.deepEqual(proxy.state(rest), ["listener: -l", "cluster: -b"]);
    assert.deepEqual(proxy.ack("listener"), []);
    assert.deepEqual(proxy.ack("cluster"), []);
  });

  it("sends nothing after a refusal until there is another state or request, and then the whole difference", () => {
    const proxy = ready();
    proxy.state({ ...both, listener: { l: "2" } });
    proxy.ack("route");
    const outputs = proxy.outputs({
      typeUrl: TYPE_URLS.listener,
      responseNonce: "00000005",
      errorDetail: { code: 13, message: "bad" },
    });
    assert.deepEqual(outputs, [
      { type: "refused", refusal: { resourceType: "listener", nonce: "00000005", names: ["l"], message: "bad" } },
    ]);
    assert.deepEqual(proxy.state({ ...both, listener: { l: "3", m: "1" } }), ["listener: +l +m", "route: +l"]);
  });

  it("sends many bytes in several responses, each after the answer to the one before it, and listeners after the last", () => {
    const envoy = new Envoy(2);
    envoy.ask("cluster");
    const state = { cluster: { a: "1", b: "1", c: "12345", d: "1" }, listener: { l: "1" } };
    assert.deepEqual(envoy.state(state), ["cluster: +a +b"]);
    assert.deepEqual(envoy.ask("listener"), []);
    assert.deepEqual(envoy.ack("cluster"), ["cluster: +c"]);
    assert.deepEqual(envoy.ack("cluster"), ["cluster: +d"]);
    assert.deepEqual(envoy.ack("cluster"), ["listener: +l"]);
  });

  it("goes on with the next part after a refusal, and tries the refused one with the next state", () => {
    const envoy = new Envoy(1);
    envoy.ask("cluster");
    const state = { cluster: { a: "1", b: "1", c: "1" } };
    assert.deepEqual(envoy.state(state), ["cluster: +a"]);
    assert.deepEqual(envoy.nack("cluster"), ["cluster: +b"]);
    assert.deepEqual(envoy.ack("cluster"), ["cluster: +c"]);
    assert.deepEqual(envoy.ack("cluster"), []);
    assert.deepEqual(envoy.state(state), ["cluster: +a"]);
  });

  it("sends what is asked for again, and nothing of names that were given up", () => {
    const proxy = ready();
    assert.deepEqual(proxy.ask("endpoint", { resourceNamesSubscribe: ["a"] }), ["endpoint: +a"]);
    proxy.ack("endpoint");
    proxy.ask("endpoint", { resourceNamesUnsubscribe: ["b"] });
    assert.deepEqual(proxy.state({ ...both, endpoint: { a: "1", b: "2" } }), []);
    assert.deepEqual(proxy.ask("endpoint", { resourceNamesSubscribe: ["nothing"] }), []);
  });

  it("goes on with what a proxy that comes back has", () => {
    const proxy = new Envoy();
    proxy.state(both);
    assert.deepEqual(proxy.ask("cluster", { initialResourceVersions: { a: "1", gone: "1" } }), ["cluster: +b"]);
    const names = { resourceNamesSubscribe: ["a"], initialResourceVersions: { a: "1" } };
    assert.deepEqual(proxy.ask("endpoint", names), ["endpoint: +a"]);
    proxy.ack("endpoint");
    assert.deepEqual(proxy.ack("cluster"), ["cluster: -gone"]);
  });

  it("tells once that there is nothing where that is to be told, and is silent elsewhere", () => {
    const proxy = new Envoy();
    proxy.state({}, ["cluster"]);
    assert.deepEqual(proxy.ask("cluster"), ["cluster:"]);
    assert.deepEqual(proxy.ack("cluster"), []);
    const silent = new Envoy();
    silent.state({});
    assert.deepEqual(silent.ask("cluster"), []);
  });

  it("takes a star for all names", () => {
    const proxy = new Envoy();
    proxy.state(both);
    assert.deepEqual(proxy.ask("cluster", { resourceNamesSubscribe: ["*"] }), ["cluster: +a +b"]);
  });

  it("tells who the proxy is, once", () => {
    const proxy = new Envoy();
    const node = {
      id: "web-sidecar-proxy",
      metadata: { node_name: "n1" },
      userAgentName: "envoy",
      userAgentVersionType: {
        case: "userAgentBuildVersion",
        value: { version: { majorNumber: 1, minorNumber: 40, patch: 0 } },
      },
    } as const;
    const identified = { type: "identified", proxy: { id: "web-sidecar-proxy", node: "n1", envoyVersion: "1.40.0" } };
    assert.deepEqual(proxy.outputs({ node, typeUrl: TYPE_URLS.cluster }), [identified]);
    assert.deepEqual(proxy.outputs({ node, typeUrl: TYPE_URLS.listener }), []);
  });

  it("ends with a proxy that is too old, a request without a type, and one for too many names", () => {
    const old = {
      userAgentName: "envoy",
      userAgentVersionType: { case: "userAgentBuildVersion", value: { version: { majorNumber: 1, minorNumber: 19 } } },
    } as const;
    const ends = (request: Request): DeltaOutput | undefined =>
      new Envoy().outputs(request).find(({ type }) => type === "close");
    assert.deepEqual(ends({ node: old, typeUrl: TYPE_URLS.cluster }), {
      type: "close",
      code: "invalid-argument",
      message: "Envoy 1.19.0 is too old and is not supported by Consul",
    });
    assert.deepEqual(ends({}), { type: "close", code: "invalid-argument", message: "type URL is required for ADS" });
    const names = ["1", "2", "3", "4", "5", "6"];
    assert.equal(ends({ typeUrl: TYPE_URLS.endpoint, resourceNamesSubscribe: names })?.type, "close");
    assert.equal(ends({ typeUrl: TYPE_URLS.endpoint, resourceNamesSubscribe: names.slice(1) }), undefined);
  });

  it("ignores types that there are none of", () => {
    const proxy = new Envoy();
    proxy.state(both);
    assert.deepEqual(
      told(proxy.outputs({ typeUrl: "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration" })),
      [],
    );
  });
});
