// Values that nest deeply, in each place of each body that the API takes: refused, or taken and then read, filtered, exported, loaded
// again and removed like any other.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { PeeringHost } from "../../../src/host/host.js";
import { operations } from "../../../src/http/routes.js";
import { MAX_JSON_DEPTH } from "../../../src/model/instance.js";
import { eventually, type Kind, peerThem, twoHosts } from "../../support/hosts.js";
import { HttpPair, type ServedHost, serve } from "../../support/http-pair.js";
import { isObject } from "../../support/json-schema.js";

const nestings = ["lists", "objects", "both"] as const;

/** The text of so many lists and objects in one another. */
function nested(depth: number, nesting: (typeof nestings)[number]): string {
  // From within: a deeper value has each that is less deep in it.
  const isListed = (level: number): boolean => nesting === "lists" || (nesting === "both" && level % 2 === 0);
  const levels = Array.from({ length: depth }, (_, level) => isListed(depth - level));
  // A list of one object stands for the object in some places.
  const list = nesting === "both" ? "[0," : "[";
  const opening = levels.map((isOfLists) => (isOfLists ? list : '{"a":'));
  const closing = levels.reverse().map((isOfLists) => (isOfLists ? "]" : "}"));
  return `${opening.join("")}1${closing.join("")}`;
}

/** Stands for the value in a body. */
const HOLE = "the nested value";

function filled(body: unknown, value: string): string {
  return JSON.stringify(body).replaceAll(JSON.stringify(HOLE), () => value);
}

interface Place {
  readonly path: string;
  /** A body with a hole in this place. */
  readonly body: unknown;
  /** Whether the schema says nothing of the value. */
  readonly isFree: boolean;
}

/** Each place that the schema of a body names. */
function* placesIn(schema: unknown): Generator<Place> {
  if (!isObject(schema)) return;
  const { anyOf, items, properties, additionalProperties, type } = schema;
  const types: readonly unknown[] = Array.isArray(type) ? type : [type];
  const says = anyOf ?? items ?? properties ?? additionalProperties;
  yield {
    path: "",
    body: HOLE,
    isFree: says === undefined && (type === undefined || types.includes("object") || types.includes("array")),
  };
  if (Array.isArray(anyOf)) for (const each of anyOf) yield* placesIn(each);
  for (const { path, body, isFree } of placesIn(items)) yield { path: `[]${path}`, body: [body], isFree };
  for (const { path, body, isFree } of placesIn(additionalProperties)) {
    yield { path: `.*${path}`, body: { key: body }, isFree };
  }
  if (!isObject(properties)) return;
  const fixed = fixedMembers(properties);
  for (const [name, property] of Object.entries(properties)) {
    for (const { path, body, isFree } of placesIn(property)) {
      yield { path: `.${name}${path}`, body: { ...fixed, [name]: body }, isFree };
    }
  }
}

/** Members that can have one value only: the kind of a config entry. */
function fixedMembers(properties: Readonly<Record<string, unknown>>): object {
  const found = Object.entries(properties).flatMap(([name, schema]) => {
    const values = isObject(schema) ? schema["enum"] : undefined;
    return Array.isArray(values) && values.length === 1 ? [[name, values[0]]] : [];
  });
  return Object.fromEntries(found);
}

/** Each operation that changes something. */
const writes = operations
  .filter(({ method }) => method !== "GET")
  .flatMap(({ method, pattern, docs }) => {
    const name = "name";
    if (docs.length === 0) return [{ method, path: pattern.replace(/\/$/, `/${name}`), schema: undefined }];
    return docs.map(({ path, body }) => ({ method, path: path.replace(/\{\w+\}/g, name), schema: body }));
  });

/** Sends a body that may be refused, and the connection ended, before all of it is sent. */
async function send(
  served: ServedHost,
  [method, path]: readonly [string, string],
  body: string,
): Promise<{ readonly status: number; readonly text: string }> {
  const answer = await fetch(`http://127.0.0.1:${served.port}${path}`, { method, body });
  return { status: answer.status, text: await answer.text() };
}

function assertJudged({ status, text }: { readonly status: number; readonly text: string }, what: string): void {
  assert.ok(status >= 200 && status < 600, what);
  assert.doesNotMatch(text, /call stack|RangeError|Cannot read|undefined/, what);
}

const bodied = writes.filter(({ schema }) => schema !== undefined);

describe("a body that nests deeply", { timeout: 120_000 }, () => {
  it("is refused, or passed over, by every operation that changes something", async () => {
    assert.ok(bodied.length >= 15, "the table of routes tells which operations have a body");
    await using pair = await HttpPair.start();
    for (const { method, path, schema } of writes) {
      for (const depth of schema === undefined ? [40_000] : [1_000, 10_000, 250_000]) {
        for (const nesting of schema === undefined ? nestings.slice(2) : nestings) {
          const what = `${method} ${path}: ${depth} ${nesting}`;
          const answer = await send(pair.a, [method, path], nested(depth, nesting));
          assertJudged(answer, what);
          if (schema !== undefined) assert.ok(answer.status >= 400, `${what}: ${answer.status} ${answer.text}`);
        }
      }
    }
    assert.equal(pair.a.host.incidents.counts().get("answer-failed"), undefined);
  });

  for (const { method, path, schema } of bodied) {
    it(`in any place of it is judged by ${method} ${path}`, async () => {
      await using pair = await HttpPair.start();
      let turn = 0;
      for (const place of placesIn(schema)) {
        for (const depth of [400, 9_000]) {
          const nesting = nestings[turn++ % nestings.length] ?? "lists";
          const what = `${place.path}: ${depth} ${nesting}`;
          assertJudged(await send(pair.a, [method, path], filled(place.body, nested(depth, nesting))), what);
        }
      }
      assert.ok(turn > 0);
      assert.equal(pair.a.host.incidents.counts().get("answer-failed"), undefined);
    });
  }
});

/** The texts of Consul 1.21.4, which it gives beyond 10,000 levels. */
const recorded: readonly (readonly [method: string, path: string, before: string, opening: "[" | "{", text: string])[] =
  [
    ["PUT", "/v1/config", '{"Kind":"proxy-defaults","Name":"global","Config":{"a":', "[", "Request decoding failed"],
    ["PUT", "/v1/config", '{"Kind":"proxy-defaults","Name":"global","Config":{"a":', "{", "Request decoding failed"],
    ["PUT", "/v1/catalog/register", '{"Node":', "[", "Request decode failed"],
    ["PUT", "/v1/catalog/deregister", "", "[", "Request decode failed"],
    ["PUT", "/v1/agent/service/register", '{"Name":', "[", "Request decode failed"],
    ["POST", "/v1/peering/token", '{"PeerName":', "[", "Body decoding failed"],
    ["PUT", "/v1/txn", "", "[", "Failed to parse body"],
    ["POST", "/v1/query", '{"Name":', "[", "Request decode failed"],
    ["PUT", "/v1/connect/intentions/exact?source=a&destination=b", '{"Action":', "{", "Request decode failed"],
    ["POST", "/v1/discovery-chain/web", '{"OverrideProtocol":', "[", "Request decoding failed"],
    ["PUT", "/v1/connect/ca/configuration", '{"Provider":"consul","Config":{"x":', "[", "Request decode failed"],
  ];

describe("a body that nests too deeply", () => {
  it("is refused with the text of Consul", async () => {
    await using pair = await HttpPair.start();
    for (const [method, path, before, opening, text] of recorded) {
      const body = `${before}${(opening === "[" ? "[" : '{"a":').repeat(20_000)}`;
      assert.deepEqual(
        await send(pair.a, [method, path], body),
        { status: 400, text: `${text}: invalid character '${opening}' exceeded max depth` },
        path,
      );
    }
  });
});

/** A value of any content, in a body that is taken. */
interface Free {
  readonly route: string;
  /** The places of the schema that it stands for. */
  readonly places: readonly string[];
  readonly body: unknown;
}

const config = { x: HOLE };
const extensions = [{ Name: "builtin/lua", Arguments: { Listener: "inbound", Script: "a", x: HOLE } }];
const upstreams = [{ DestinationName: "db", LocalBindPort: 9_000, Config: config }];
const withSidecar = { Connect: { SidecarService: { Proxy: { Config: config, Upstreams: upstreams } } } };
const sidecarOf = "Connect.SidecarService";

/** A proxy with each of them, and with all of them in its sidecar's definition. */
const kept: readonly (readonly [place: string, id: string, of: object])[] = [
  ["Proxy.Config.*", "config", { Config: config }],
  ["Proxy.EnvoyExtensions[].Arguments.*", "arguments", { EnvoyExtensions: extensions }],
  ["Proxy.Upstreams[].Config.*", "upstreams", { Upstreams: upstreams }],
];

/** The ways to register a service: what is before the places of a service, and the body. */
const registrations: readonly (readonly [route: string, before: string, body: (service: object) => unknown])[] = [
  ["/v1/catalog/register", ".Service.", (service) => ({ Node: "n", Address: "192.0.2.1", Service: service })],
  ["/v1/txn", "[].Service.Service.", (service) => [{ Service: { Verb: "set", Node: "n", Service: service } }]],
  ["/v1/agent/service/register", ".", ({ Service: Name, ...rest }: { Service?: string }) => ({ Name, ...rest })],
];

const frees: readonly Free[] = [
  {
    route: "/v1/config",
    places: [".Config"],
    body: { Kind: "proxy-defaults", Name: "global", Config: config },
  },
  {
    route: "/v1/config",
    places: [".EnvoyExtensions[].Arguments"],
    body: { Kind: "service-defaults", Name: "web", Protocol: "http", EnvoyExtensions: extensions },
  },
  ...registrations.flatMap(([route, before, body]) => [
    ...kept.map(([place, id, rest]) => ({
      route,
      places: [`${before}${place}`],
      body: body({
        Service: `${id}-${route.length}`,
        Kind: "connect-proxy",
        Port: 1,
        Proxy: { DestinationServiceName: "web", ...rest },
      }),
    })),
    {
      route,
      places: [sidecarOf, `${sidecarOf}.${sidecarOf}`].flatMap((sidecar) =>
        kept.map(([place]) => `${before}${sidecar}.${place}`),
      ),
      body: body({ Service: "web", Port: 1, ...withSidecar }),
    },
  ]),
];

/** Of the proxies among them. */
const ids = registrations.flatMap(([route]) => kept.map(([, id]) => `${id}-${route.length}`));

/** Keys that are not known are refused there. */
const refusedInFull: readonly string[] = ["/v1/connect/ca/configuration"];
/** Lists and objects of the one that has most of them: {@link MAX_JSON_DEPTH} without those around the value itself. */
const DEEPEST = 59;

/** Writes each of them with the deepest value that it takes. */
async function writeDeepest(served: ServedHost, nesting: (typeof nestings)[number]): Promise<void> {
  for (const { route, body, places } of frees) {
    const write = (depth: number): Promise<{ readonly status: number; readonly text: string }> =>
      send(served, ["PUT", route], filled(body, nested(depth, nesting)));
    const what = `${route} ${places[0]}`;
    // A transaction ignores members that it does not know.
    let depth = MAX_JSON_DEPTH + 1;
    let refusal = "";
    for (;;) {
      const { status, text } = await write(depth);
      if (status === 200) break;
      refusal = text;
      assert.match(text, /nested too deeply/, what);
      assert.ok(depth > DEEPEST, `${what}: ${depth}`);
      depth--;
    }
    assert.ok(refusal !== "" || route === "/v1/txn", what);
  }
}

describe("a value of any content", { timeout: 120_000 }, () => {
  it("stands in each place of a body that the schema leaves free", () => {
    const free = bodied.flatMap(({ path, schema }) =>
      refusedInFull.includes(path)
        ? []
        : [...placesIn(schema)].filter(({ isFree }) => isFree).map((place) => `${path} ${place.path}`),
    );
    const tried = new Set(frees.flatMap(({ route, places }) => places.map((place) => `${route} ${place}`)));
    assert.deepEqual(
      [...new Set(free)].filter((place) => !tried.has(place)),
      [],
    );
    assert.ok(free.length > 0);
  });

  for (const [kind, nesting] of [
    ["memory", "lists"],
    ["memory", "objects"],
    ["grpc and level", "both"],
  ] satisfies [Kind, (typeof nestings)[number]][]) {
    it(`is read, loaded again and removed where it nests as deeply as it may: ${nesting}, over ${kind}`, async () => {
      await using hosts = await twoHosts(kind);
      const { acceptor, dialer } = hosts;
      await peerThem(hosts);
      await served(acceptor.host, (one) => writeDeepest(one, nesting));
      await acceptor.host.exports.set({ services: [{ name: "*", consumers: [{ peer: dialer.name }] }] });
      const shown = (): Promise<readonly string[]> =>
        served(acceptor.host, (one) => pathsShowing(one, nested(DEEPEST, nesting)));
      const before = await shown();
      for (const path of SHOWN) assert.ok(before.includes(path), `${path} among ${before.join()}`);
      await eventually(() => dialer.host.imports.services({ peer: acceptor.name }).length > 0, "the peer has them");
      await acceptor.restart();
      assert.deepEqual(await shown(), before);
      await served(acceptor.host, async (one) => {
        for (const path of ["service-defaults/web", "proxy-defaults/global"])
          await one.ask("DELETE", `/v1/config/${path}`);
        for (const Node of ["n", acceptor.host.nodeName]) {
          await one.ask("PUT", "/v1/catalog/deregister", { body: JSON.stringify({ Node }) });
        }
      });
      assert.deepEqual(await shown(), []);
      await eventually(() => dialer.host.imports.services({ peer: acceptor.name }).length === 0, "the peer lost them");
      await acceptor.restart();
      assert.deepEqual(await shown(), []);
    });
  }
});

/** Reads that must show it, beside those of the table of routes that do. */
const SHOWN: readonly string[] = [
  "/v1/config/proxy-defaults/global",
  "/v1/config/proxy-defaults",
  "/v1/config/",
  "/v1/config/service-defaults/web",
  "/v1/config/service-defaults?filter=Name==web",
  "/v1/catalog/node/n",
  "/v1/catalog/node-services/n?merge-central-config",
  "/v1/catalog/service/config-20?pretty",
  "/v1/catalog/service/upstreams-7?filter=ServiceKind==%22connect-proxy%22",
  "/v1/health/service/arguments-20?merge-central-config",
  "/v1/health/connect/web?filter=Service.Kind==%22connect-proxy%22",
  "/v1/agent/services?filter=Kind==%22connect-proxy%22",
  "/v1/agent/service/config-26",
];

async function served<Result>(host: PeeringHost, use: (one: ServedHost) => Promise<Result>): Promise<Result> {
  const one = await serve(host);
  try {
    return await use(one);
  } finally {
    one.server.close();
    one.server.closeAllConnections();
  }
}

/** The reads whose answers have the text in them, of all that the table of routes has. */
async function pathsShowing(one: ServedHost, text: string): Promise<readonly string[]> {
  const named = operations
    .filter(({ method, pattern }) => method === "GET" && pattern !== "/v1/agent/monitor")
    .flatMap(({ docs }) => docs.map(({ path }) => path))
    .flatMap((path) =>
      ["web", "global", "n", one.host.nodeName, ...ids].map((name) =>
        path.replace("{kind}", "service-defaults").replace(/\{\w+\}/, name),
      ),
    );
  const found: string[] = [];
  for (const path of new Set([...SHOWN, ...named])) {
    const answer = await one.ask("GET", path);
    assertJudged(answer, path);
    if (answer.text.replace(/\s/g, "").includes(text)) found.push(path);
  }
  return found.sort();
}
