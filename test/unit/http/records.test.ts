// All that follows from the description of a record alone: its JSON, its schema in the document, and the fields of filters.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { compileFilter } from "../../../src/http/filter/filter.js";
import { writeJson } from "../../../src/http/json.js";
import { filterOf, membersOf, schemaOf, writerOf } from "../../../src/http/record-members.js";
import { fieldJson } from "../../../src/http/shape-json.js";
import type { Service } from "../../../src/model/instance.js";
import { type Table, text } from "../../../src/model/record-table.js";
import { serviceTable } from "../../../src/model/records.js";
import { upstreamShape } from "../../../src/model/shapes.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

describe("a field that is added to the description of a service", () => {
  type Noted = Service & { readonly note: string };
  const table: Table<Noted> = {
    empty: { ...serviceTable.empty, note: "" },
    fields: {
      ...serviceTable.fields,
      note: { name: "Note", flat: "ServiceNote", kind: text, empty: { own: "absent", flat: "null" } },
    },
  };
  const noted: Noted = { ...table.empty, id: "web-1", name: "web", note: "<new>" };

  for (const [view, name, empty] of [
    ["own", "Note", undefined],
    ["flat", "ServiceNote", null],
    ["agent", "Note", ""],
  ] as const) {
    it(`is written, described and filtered in the view ${view}`, () => {
      const members = membersOf(table, view);
      const shown = (service: Noted): unknown => JSON.parse(writeJson(writerOf(members)(service)))[name];
      assert.equal(shown(noted), "<new>");
      assert.equal(shown(table.empty), empty);
      const { properties, required } = schemaOf(members);
      assert.ok(typeof properties === "object" && Object.hasOwn(properties, name));
      assert.equal(Array.isArray(required) && required.includes(name), empty !== undefined);
      const filter = compileFilter(`${name} matches "^<n"`, filterOf(members));
      assert.deepEqual([filter.holds(noted), filter.holds(table.empty)], [true, false]);
    });
  }

  it("is refused by filters where the description has none", () => {
    const members = membersOf(serviceTable, "own");
    assert.throws(() => compileFilter("Note == a", filterOf(members)), /Selector "Note" is not valid/);
  });
});

const upstream = {
  ...{ Protocol: "grpc", ConnectTimeoutMs: 7, EnvoyListenerJSON: "l", EnvoyClusterJSON: "c" },
  Limits: { MaxConnections: 3, MaxPendingRequests: 0, MaxConcurrentRequests: 4 },
  PassiveHealthCheck: {
    ...{ Interval: "10s", MaxFailures: 5, EnforcingConsecutive5xx: 9, MaxEjectionPercent: 8, BaseEjectionTime: "3s" },
  },
  MeshGateway: { Mode: "remote" },
  BalanceOutboundConnections: "exact_balance",
};
const http = {
  ...{ PathPrefix: "/a", Methods: ["GET"] },
  Header: [
    { Name: "h", Exact: "v", Invert: true, IgnoreCase: true },
    { Name: "p", Present: true },
  ],
};
const jwt = { Providers: [{ Name: "auth", VerifyClaims: [{ Path: ["a"], Value: "b" }] }] };
const configEntries: readonly object[] = [
  {
    ...{ Kind: "service-defaults", Name: "web", Protocol: "http", Mode: "transparent", MutualTLSMode: "strict" },
    TransparentProxy: { OutboundListenerPort: 5, DialedDirectly: true },
    MeshGateway: { Mode: "local" },
    Expose: { Checks: true, Paths: [{ ListenerPort: 1, Path: "/p", LocalPathPort: 2, Protocol: "http" }] },
    ExternalSNI: "sni.example",
    UpstreamConfig: {
      Overrides: [
        { Name: "db", Peer: "", ...upstream },
        { Name: "far", Peer: "p" },
      ],
      Defaults: upstream,
    },
    ...{ MaxInboundConnections: 11, LocalConnectTimeoutMs: 12, LocalRequestTimeoutMs: 13, MaxRequestHeadersKB: 14 },
    BalanceInboundConnections: "exact_balance",
    EnvoyExtensions: [{ Name: "builtin/lua", Required: true, Arguments: { a: 1 }, ConsulVersion: ">1" }],
    Meta: { k: "v" },
  },
  { Kind: "service-defaults", Name: "out", Destination: { Addresses: ["a.example"], Port: 443 } },
  { Kind: "jwt-provider", Name: "auth", JSONWebKeySet: { Local: { JWKS: "e30=" } } },
  {
    ...{ Kind: "service-intentions", Name: "web", JWT: jwt },
    Sources: [{ Name: "api", Permissions: [{ Action: "allow", HTTP: http, JWT: jwt }] }],
  },
  { Kind: "service-intentions", Name: "db", Sources: [{ Name: "api", Peer: "west", Action: "deny" }] },
];

/** Objects of any content, of which filters know nothing, in Consul either. */
const FREE = /(^|\.)(Config|Arguments)$/;

describe("filters", () => {
  let served: ServedHost;
  before(async () => {
    const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
    const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport, nodeName: "n0" });
    served = await serve(host);
    const locality = { Region: "r", Zone: "z" };
    const proxy = {
      DestinationServiceName: "web",
      DestinationServiceID: "web-1",
      LocalServiceAddress: "127.0.0.1",
      LocalServicePort: 80,
      Mode: "transparent",
      Config: { a: 1 },
      MeshGateway: { Mode: "local" },
      Upstreams: [{ DestinationName: "db", LocalBindPort: 99, Datacenter: "dc1", Config: { p: "q" } }],
      Expose: { Checks: true, Paths: [{ ListenerPort: 1, Path: "/p", LocalPathPort: 2, Protocol: "http" }] },
      TransparentProxy: { OutboundListenerPort: 5, DialedDirectly: true },
      AccessLogs: { Enabled: true, Type: "file", Path: "/x", TextFormat: "t", DisableListenerLogs: true },
      EnvoyExtensions: [{ Name: "builtin/lua", Required: true, Arguments: { Script: "x" }, ConsulVersion: ">1" }],
    };
    const full = {
      ID: "web-1",
      Service: "web",
      Kind: "connect-proxy",
      Tags: ["a"],
      Address: "1.2.3.4",
      Port: 80,
      SocketPath: "/s",
      TaggedAddresses: { lan: { Address: "1.1.1.1", Port: 3 } },
      Meta: { k: "v" },
      Weights: { Passing: 2, Warning: 3 },
      EnableTagOverride: true,
      Locality: locality,
      Proxy: proxy,
      Connect: { PeerMeta: { SNI: ["s"], SpiffeID: ["i"], Protocol: "tcp" } },
    };
    const ports = {
      ID: "web-2",
      Service: "web",
      SocketPath: "/t",
      Ports: [{ Name: "http", Port: 80, Default: true }],
      Connect: { Native: true, SidecarService: { Port: 7, Tags: ["t"], Meta: { k: "v" } } },
    };
    const definition = { HTTP: "http://x", Interval: "10s", Header: { a: ["b"] }, ScriptArgs: ["x"], TTL: "5s" };
    const check = { CheckID: "c", Name: "c", Status: "passing", ServiceID: "web-1", Definition: definition };
    const node = {
      Node: "n1",
      Address: "10.0.0.1",
      TaggedAddresses: { lan: "a" },
      NodeMeta: { k: "v" },
      Locality: locality,
    };
    for (const body of [
      { ...node, Service: full, Check: check },
      { ...node, Service: ports },
    ]) {
      const { status, text } = await served.ask("PUT", "/v1/catalog/register", { body: JSON.stringify(body) });
      assert.equal(status, 200, text);
    }
    for (const body of configEntries) {
      const { status, text } = await served.ask("PUT", "/v1/config", { body: JSON.stringify(body) });
      assert.equal(status, 200, text);
    }
    const intention = {
      SourceName: "web",
      DestinationName: "old",
      Action: "allow",
      Description: "d",
      Meta: { k: "v" },
    };
    const created = await served.ask("POST", "/v1/connect/intentions", { body: JSON.stringify(intention) });
    assert.equal(created.status, 200, created.text);
    const { ID: _, Service: __, ...rest } = full;
    const own = { ...rest, Name: "own", Connect: {}, Check: { TTL: "10s" } };
    const { status, text } = await served.ask("PUT", "/v1/agent/service/register", { body: JSON.stringify(own) });
    assert.equal(status, 200, text);
  });
  after(async () => {
    await served[Symbol.asyncDispose]();
  });

  /** Every name that the JSON of items shows, but what is inside of objects of any content. */
  function selectors(json: unknown, path = "", found: Set<string> = new Set()): ReadonlySet<string> {
    if (Array.isArray(json)) for (const element of json) selectors(element, path, found);
    else if (typeof json === "object" && json !== null && !FREE.test(path)) {
      for (const [key, value] of Object.entries(json)) {
        const name = path === "" ? key : `${path}.${key}`;
        found.add(name);
        selectors(value, name, found);
      }
    }
    return found;
  }

  const values = (json: object): readonly unknown[] => Object.values(json);
  const reads: readonly (readonly [path: string, items: (json: never) => unknown, enough: number])[] = [
    ["/v1/catalog/nodes", (json) => json, 12],
    ["/v1/catalog/service/web", (json) => json, 70],
    ["/v1/catalog/node/n1", ({ Services }: { readonly Services: object }) => values(Services), 70],
    ["/v1/catalog/node-services/n1", ({ Services }: { readonly Services: readonly unknown[] }) => Services, 70],
    ["/v1/health/service/web", (json) => json, 100],
    ["/v1/health/checks/web", (json) => json, 20],
    ["/v1/health/state/any", (json) => json, 20],
    ["/v1/agent/services", (json) => values(json), 50],
    ["/v1/agent/checks", (json) => values(json), 16],
    ["/v1/internal/ui/nodes", (json) => json, 100],
    ["/v1/config/service-defaults", (json) => json, 76],
    ["/v1/connect/intentions", (json) => json, 35],
  ];
  for (const [path, items, enough] of reads) {
    it(`know every field that ${path} shows, and no object of any content (D-65)`, async () => {
      const { text } = await served.ask("GET", path);
      const names = selectors(items(JSON.parse(text) as never));
      assert.ok(names.size >= enough, `${names.size} names`);
      for (const name of names) {
        const filter = encodeURIComponent(`${name} is not empty or ${name} == 1`);
        const { text: answer } = await served.ask("GET", `${path}?filter=${filter}`);
        const isUnknown = answer.includes(`Selector "${name}" is not valid`);
        assert.equal(isUnknown, FREE.test(name), `${name}: ${answer.slice(0, 200)}`);
      }
    });
  }

  const kept: readonly (readonly [filter: string, count: number])[] = [
    ["Service.Ports is not empty", 1],
    ["Service.Ports.Name == http and Service.Ports.Port == 80 and Service.Ports.Default == true", 1],
    ["Service.Ports is empty", 1],
    ["Service.Locality.Region == r", 1],
    ["Node.Locality.Zone == z", 2],
    ["Service.Connect.PeerMeta.SNI contains s", 1],
    ["Service.Connect.SidecarService.Port == 7", 1],
    ["Checks.Definition.HTTP == `http://x`", 1],
    ["Checks.Definition.Header.a contains b", 1],
    ["Service.CreateIndex == 0", 0],
    ["Service.CreateIndex != 0", 2],
  ];
  for (const [filter, count] of kept) {
    it(`keep the instances of which ${filter}`, async () => {
      const { status, text } = await served.ask("GET", `/v1/health/service/web?filter=${encodeURIComponent(filter)}`);
      assert.equal(status, 200, text);
      assert.equal(JSON.parse(text).length, count);
    });
  }
});

describe("a list inside of a record", () => {
  it("is made when it is written, record by record", () => {
    let made = 0;
    const upstreams = Array.from({ length: 100 }, (_, index) => ({
      get DestinationName() {
        made++;
        return `db${index}`;
      },
    }));
    const json = fieldJson([null, ...upstreams], { as: { many: "list", shape: upstreamShape } }, "consul");
    assert.equal(made, 0);
    assert.ok(json !== undefined);
    const written: unknown = JSON.parse(writeJson(json));
    assert.equal(made, 100);
    assert.ok(Array.isArray(written));
    assert.deepEqual([written.length, written[99].DestinationName], [100, "db99"]);
  });
});
