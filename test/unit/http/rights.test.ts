import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { AgentControl } from "../../../src/http/index.js";
import { operations } from "../../../src/http/routes.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { eventually, HttpPair, type RawAnswer } from "../../support/http-pair.js";

// Which right opens which endpoint, for every line of the route table: a route without an entry here
// fails the test. Where a server of Consul 1.21.4 was asked the same with the same rules, it decided alike.

/** One request to a route, and what it takes. */
interface Probe {
  readonly path: string;
  readonly body?: unknown;
  /** Rules that together suffice and of which none can be missing, as they stand in a policy. */
  readonly rules: readonly string[];
  /** Rules that suffice as well. */
  readonly instead?: readonly string[];
  /**
   * The parts that are shown only to callers with the rights, where an answer is filtered and not refused. Absent: a caller without
   * the right is refused.
   */
  readonly shows?: RegExp;
  /** A refusal does not say which right is missing, as in Consul. */
  readonly terse?: true;
}

/** Operations that are open to anyone, even with a token that does not exist. */
const PUBLIC = "public";

const read = (kind: string, name: string): string => `${kind} "${name}" { policy = "read" }`;
const write = (kind: string, name: string): string => `${kind} "${name}" { policy = "write" }`;

const web = read("service", "web");
const n1 = read("node", "n1");
const own = read("node", "peerage");
const ownService = read("service", "own");
const proxy = read("service", "web-proxy");
const everyService = read("service_prefix", "");
const everyNode = read("node_prefix", "");
/** Imports are read by who may read everything, or write anything. */
const imports = { rules: [everyService, everyNode], instead: [write("service", "any")] };
const importedServices = { rules: [everyService], instead: [write("service", "any")] };
const peeringWrite = { rules: ['peering = "write"'], instead: ['operator = "write"'] };
const peeringRead = { rules: ['peering = "read"'], instead: ['operator = "read"'] };
const meshWrite = { rules: ['mesh = "write"'], instead: ['operator = "write"'] };
const meshRead = { rules: ['mesh = "read"'], instead: ['operator = "read"'] };
const resolver = { Kind: "service-resolver", Name: "web", Redirect: { Service: "db" } };
const node = { Node: "n1", Address: "10.0.0.1" };
const service = { ID: "web-1", Service: "web", Port: 80 };
/** A proxy that speaks for `web` in the mesh. */
const speaker = { Kind: "connect-proxy", Service: "mine", Port: 1, Proxy: { DestinationServiceName: "web" } };
const mine = write("service", "mine");
/** Of an intention from `db` to `legacy`. */
const LEGACY_ID = "6f1c7a5e-0000-4000-8000-000000000001";
const intentionsOnly = (name: string, access: string): string =>
  `service "${name}" { policy = "deny" intentions = "${access}" }`;
const legacyWrite = { rules: [intentionsOnly("legacy", "write")], terse: true } as const;
const check = { Node: "n1", CheckID: "web-check", Name: "c", ServiceID: "web-1", Status: "passing" };

const matrix: Readonly<Record<string, readonly Probe[] | typeof PUBLIC>> = {
  "GET /v1/status/leader": PUBLIC,
  "GET /v1/status/peers": PUBLIC,
  "GET /v1/catalog/datacenters": PUBLIC,
  "GET /v1/connect/ca/roots": PUBLIC,
  "GET /v1/agent/self": [{ path: "", rules: [read("agent", "peerage")] }],
  "GET /v1/internal/peerage/proxies": [{ path: "", rules: [read("agent", "peerage")] }],
  "GET /v1/internal/peerage/explain/connection": [
    {
      path: "?source=own&destination=web",
      rules: ['operator = "read"', ownService, web],
    },
    { path: "?source=own&destination=web&peer=p", rules: ['operator = "read"', ownService] },
    { path: "?source=own&destination=web&source-peer=p", rules: ['operator = "read"', web] },
  ],
  "GET /v1/internal/peerage/explain/intentions": [{ path: "", rules: ['operator = "read"'] }],
  "GET /v1/agent/version": [{ path: "", rules: [read("agent", "peerage")] }],
  "GET /v1/agent/host": [{ path: "", rules: ['operator = "read"'] }],
  "GET /v1/operator/autopilot/health": [{ path: "", rules: ['operator = "read"'] }],
  "GET /v1/operator/raft/configuration": [{ path: "", rules: ['operator = "read"'] }],
  "GET /v1/agent/connect/ca/roots": PUBLIC,
  "GET /v1/agent/connect/ca/leaf/": [{ path: "web", rules: [write("service", "web")] }],
  "GET /v1/internal/ui/gateway-services-nodes/": [{ path: "web", rules: [read("service", "web")] }],
  "GET /v1/internal/ui/gateway-intentions/": [{ path: "web", rules: [read("service", "web")] }],
  "POST /v1/agent/connect/authorize": [
    {
      path: "",
      body: { Target: "web", ClientCertURI: "spiffe://x.consul/ns/default/dc/dc1/svc/own" },
      rules: [write("service", "web")],
    },
  ],
  // The configuration may say where keys are: Consul asks for the same since 1.8.6.
  "GET /v1/connect/ca/configuration": [{ path: "", rules: ['operator = "write"'] }],
  "PUT /v1/connect/ca/configuration": [
    { path: "", body: { Provider: "consul", Config: { LeafCertTTL: "73h" } }, rules: ['operator = "write"'] },
  ],
  "GET /v1/agent/metrics": [{ path: "", rules: [read("agent", "peerage")] }],
  "GET /v1/agent/members": [{ path: "", rules: [own], shows: /"Name":"peerage"/ }],
  "GET /v1/agent/services": [{ path: "", rules: [ownService], shows: /"own"/ }],
  "GET /v1/agent/checks": [{ path: "", rules: [ownService], shows: /"service:own"/ }],
  "PUT /v1/agent/service/register": [
    { path: "", body: { Name: "more", Port: 1 }, rules: [write("service", "more")] },
    {
      path: "",
      body: { Name: "more", Port: 1, Connect: { SidecarService: { Name: "side" } } },
      rules: [write("service", "more"), write("service", "side")],
    },
    {
      path: "",
      body: { Name: "most", Port: 1, Connect: { SidecarService: {} } },
      rules: [write("service", "most"), write("service", "most-sidecar-proxy")],
    },
    // In place of what has the id, whatever its case.
    {
      path: "",
      body: { ID: "GONE", Name: "mine", Port: 1 },
      rules: [mine, write("service", "gone")],
    },
    {
      path: "",
      body: { Name: "mine", Port: 1, Check: { CheckID: "service:own", TTL: "1m" } },
      rules: [mine, write("service", "own")],
    },
    {
      path: "",
      body: { Name: "mine", Port: 1, Check: { CheckID: "own-node", TTL: "1m" } },
      rules: [mine, write("node", "peerage")],
    },
    {
      path: "?replace-existing-checks",
      body: { Name: "mine", Port: 1, Checks: [{ CheckID: "SERVICE:OWN", TTL: "1m" }] },
      rules: [mine, write("service", "own")],
    },
    {
      path: "",
      body: {
        Name: "mine",
        Port: 1,
        Connect: { SidecarService: { Name: "mine", Check: { CheckID: "service:own", TTL: "1m" } } },
      },
      rules: [mine, write("service", "own")],
    },
    {
      path: "",
      body: { ...speaker, Service: undefined, Name: "mine" },
      rules: [mine, write("service", "web")],
    },
  ],
  "PUT /v1/agent/service/deregister/": [
    { path: "gone", rules: [write("service", "gone")] },
    // Checks beside it are removed with it.
    { path: "pair", rules: [write("service", "pair"), write("service", "beside")] },
  ],
  "GET /v1/agent/service/": [{ path: "own", rules: [ownService] }],
  "GET /v1/agent/health/service/id/": [{ path: "own", rules: [ownService] }],
  "GET /v1/agent/health/service/name/": [{ path: "own", rules: [ownService] }],
  "PUT /v1/agent/service/maintenance/": [{ path: "own?enable=true", rules: [write("service", "own")] }],
  "GET /v1/agent/monitor": [{ path: "", rules: [read("agent", "peerage")] }],
  "PUT /v1/agent/reload": [{ path: "", rules: [write("agent", "peerage")] }],
  "PUT /v1/agent/leave": [{ path: "", rules: [write("agent", "peerage")] }],
  "PUT /v1/agent/maintenance": [{ path: "?enable=true", rules: [write("node", "peerage")] }],
  "PUT /v1/agent/check/register": [
    { path: "", body: { Name: "of-the-node", TTL: "1m" }, rules: [write("node", "peerage")] },
    { path: "", body: { Name: "more", TTL: "1m", ServiceID: "own" }, rules: [write("service", "own")] },
    // In place of a check of another service.
    {
      path: "",
      body: { ID: "more", Name: "mine", TTL: "1m", ServiceID: "gone" },
      rules: [write("service", "gone"), write("service", "own")],
    },
  ],
  "PUT /v1/agent/check/deregister/": [{ path: "of-the-node", rules: [write("node", "peerage")] }],
  "PUT /v1/agent/check/pass/": [{ path: "service:own", rules: [write("service", "own")] }],
  "PUT /v1/agent/check/warn/": [{ path: "service:own", rules: [write("service", "own")] }],
  "PUT /v1/agent/check/fail/": [{ path: "service:own", rules: [write("service", "own")] }],
  "PUT /v1/agent/check/update/": [
    { path: "service:own", body: { Status: "passing" }, rules: [write("service", "own")] },
  ],

  "POST /v1/peering/token": [{ path: "", body: { PeerName: "made" }, ...peeringWrite }],
  "POST /v1/peering/establish": [{ path: "", body: { PeerName: "other", PeeringToken: "<token>" }, ...peeringWrite }],
  "GET /v1/peering/": [
    { path: "peer", ...peeringRead },
    { path: "nobody", ...peeringRead },
  ],
  "DELETE /v1/peering/": [{ path: "nobody", ...peeringWrite }],
  "GET /v1/peerings": [{ path: "", ...peeringRead }],
  "GET /v1/peerage/peering-tokens": [{ path: "", ...peeringRead }],
  "DELETE /v1/peerage/peering-tokens/": [{ path: "nobody", ...peeringWrite }],

  "PUT /v1/config": [
    { path: "", body: { Kind: "mesh" }, ...meshWrite },
    { path: "", body: { Kind: "proxy-defaults", Name: "global" }, ...meshWrite },
    { path: "", body: { Kind: "exported-services", Name: "default", Services: [] }, ...meshWrite },
    { path: "", body: { Kind: "service-defaults", Name: "web", Protocol: "http" }, rules: [write("service", "web")] },
    { path: "", body: resolver, rules: [write("service", "web"), read("service", "db")] },
    {
      path: "",
      body: { Kind: "service-splitter", Name: "web", Splits: [{ Weight: 50 }, { Weight: 50, Service: "db" }] },
      rules: [write("service", "web"), read("service", "db")],
    },
    {
      path: "",
      body: {
        Kind: "service-resolver",
        Name: "web",
        Failover: { "*": { Targets: [{ Service: "db" }, { Service: "theirs", Peer: "peer" }] } },
      },
      rules: [write("service", "web"), read("service", "db")],
    },
    // The entry that is there, by its own name.
    {
      path: "",
      body: { Kind: "service-defaults", Name: "WEB", Protocol: "tcp" },
      rules: [write("service", "WEB"), write("service", "web")],
    },
    {
      path: "",
      body: { Kind: "service-intentions", Name: "*", Sources: [{ Name: "db", Action: "allow" }] },
      rules: ['service_prefix "" { policy = "deny" intentions = "write" }'],
    },
    {
      path: "",
      body: { Kind: "service-intentions", Name: "web", Sources: [{ Name: "db", Action: "allow" }] },
      rules: ['service "web" { policy = "deny" intentions = "write" }'],
    },
  ],
  "GET /v1/config/": [
    { path: "exported-services/default", ...meshRead },
    { path: "exported-services", ...meshRead, shows: /"Kind":"exported-services"/ },
    { path: "mesh/mesh", rules: [] },
    { path: "proxy-defaults/global", rules: [] },
    { path: "service-defaults/web", rules: [web] },
    { path: "service-defaults", rules: [web], shows: /"Name":"web"/ },
    { path: "service-intentions/web", rules: [web] },
    { path: "service-intentions/web", rules: ['service "web" { policy = "deny" intentions = "read" }'] },
    { path: "service-intentions", rules: [web], shows: /"Name":"web"/ },
  ],
  "DELETE /v1/config/": [
    { path: "mesh/mesh", ...meshWrite },
    { path: "proxy-defaults/global", ...meshWrite },
    { path: "exported-services/default", ...meshWrite },
    { path: "service-splitter/web", rules: [write("service", "web")] },
    { path: "service-defaults/WEB", rules: [write("service", "WEB"), write("service", "web")] },
    { path: "service-intentions/web", rules: ['service "web" { policy = "deny" intentions = "write" }'] },
  ],
  "GET /v1/exported-services": [{ path: "", ...meshRead }],

  "PUT /v1/catalog/register": [
    { path: "", body: { Node: "new", Address: "10.0.0.2" }, rules: [write("node", "new")] },
    // A node that stays as it is takes no right.
    { path: "", body: { ...node, Service: service }, rules: [write("service", "web")] },
    { path: "", body: { ...node, Address: "10.0.0.9" }, rules: [write("node", "n1")] },
    {
      path: "",
      body: { Node: "n2", Address: "10.0.0.2", Service: { Service: "far", Port: 80 } },
      rules: [write("service", "far"), write("node", "n2")],
    },
    {
      path: "",
      body: { ...node, Service: { ID: "WEB-9", Service: "mine", Port: 80 } },
      rules: [mine, write("service", "web")],
    },
    // All fields of a node need the rights of the node, and so does an id that belongs to another one.
    { path: "", body: { ...node, NodeMeta: { a: "b" } }, rules: [write("node", "n1")] },
    { path: "", body: { ...node, TaggedAddresses: { wan: "1.2.3.4" } }, rules: [write("node", "n1")] },
    { path: "", body: { ...node, Locality: { Region: "r" } }, rules: [write("node", "n1")] },
    { path: "", body: { ...node, Node: "N1", Address: "10.0.0.9" }, rules: [write("node", "N1"), write("node", "n1")] },
    {
      path: "",
      body: { Node: "fresh", ID: "11111111-1111-1111-1111-111111111111", Address: "10.0.0.3" },
      rules: [write("node", "fresh"), write("node", "old")],
    },
    { path: "", body: { ...node, Service: speaker }, rules: [mine, write("service", "web")] },
    {
      path: "",
      body: { ...node, Service: { Service: "WEB", Port: 1 } },
      rules: [write("service", "WEB"), write("service", "web")],
    },
    // A check keeps its id, and leaves what it belonged to.
    {
      path: "",
      body: { ...node, Service: { Service: "mine", Port: 1 }, Check: { ...check, ServiceID: "mine" } },
      rules: [mine, write("service", "web")],
    },
    {
      path: "",
      body: {
        ...node,
        Service: { Service: "mine", Port: 1 },
        Checks: [{ ...check, CheckID: "NODE-CHECK", ServiceID: "mine" }],
      },
      rules: [mine, write("node", "n1")],
    },
    { path: "", body: { ...node, Check: { ...check, ServiceID: "" } }, rules: [write("node", "n1")] },
    { path: "", body: { ...node, Check: check }, rules: [write("service", "web")] },
    { path: "", body: { ...node, Check: { ...check, ServiceID: "WEB-1" } }, rules: [write("service", "web")] },
    { path: "", body: { ...node, Check: { ...check, CheckID: "n", ServiceID: "" } }, rules: [write("node", "n1")] },
  ],
  "PUT /v1/catalog/deregister": [
    { path: "", body: { Node: "old" }, rules: [write("node", "old")] },
    { path: "", body: { Node: "n1", ServiceID: "WEB-9" }, rules: [write("service", "web")] },
    { path: "", body: { Node: "n1", CheckID: "web-check" }, rules: [write("service", "web")] },
  ],
  "GET /v1/catalog/nodes": [
    { path: "", rules: [n1], shows: /"Node":"n1"/ },
    { path: "?peer=peer", rules: [everyNode], instead: imports.instead, shows: /"Node":"far-node"/ },
  ],
  "GET /v1/catalog/services": [
    { path: "", rules: [n1, web], shows: /"web":/ },
    { path: "?peer=peer", ...imports, shows: /"remote":/ },
  ],
  "GET /v1/catalog/service/": [
    { path: "web", rules: [n1, web], shows: /"ServiceID":"web-1"/ },
    { path: "remote?peer=peer", ...imports, shows: /"ServiceID":"remote"/ },
  ],
  "GET /v1/catalog/connect/": [
    { path: "web", rules: [n1, web, proxy], shows: /"ServiceID":"proxy-1"/ },
    { path: "remote?peer=peer", ...imports, shows: /"ServiceName":"remote-sidecar-proxy"/ },
  ],
  "GET /v1/catalog/node/": [
    { path: "n1", rules: [n1], shows: /"Node":"n1"/ },
    { path: "n1", rules: [n1, web], shows: /"Service":"web"/ },
    { path: "far-node?peer=peer", ...imports, shows: /"Service":"remote"/ },
  ],
  "GET /v1/catalog/node-services/": [
    { path: "n1", rules: [n1, web], shows: /"Service":"web"/ },
    { path: "far-node?peer=peer", ...imports, shows: /"Service":"remote"/ },
  ],

  "GET /v1/health/service/": [
    { path: "web", rules: [n1, web], shows: /"ID":"web-1"/ },
    { path: "remote?peer=peer", ...imports, shows: /"ID":"remote"/ },
  ],
  "GET /v1/health/connect/": [
    { path: "web", rules: [web] },
    { path: "web", rules: [n1, web, proxy], shows: /"ID":"proxy-1"/ },
    { path: "remote?peer=peer", ...importedServices },
    { path: "remote?peer=peer", ...imports, shows: /"Service":"remote-sidecar-proxy"/ },
  ],
  "GET /v1/health/ingress/": [
    { path: "web", rules: [web] },
    { path: "remote?peer=peer", ...importedServices },
  ],
  "GET /v1/health/checks/": [
    { path: "web", rules: [n1, web], shows: /"CheckID":"web-check"/ },
    { path: "remote?peer=peer", ...imports, shows: /"ServiceName":"remote"/ },
  ],
  "GET /v1/health/node/": [
    { path: "n1", rules: [n1], shows: /"CheckID":"node-check"/ },
    { path: "n1", rules: [n1, web], shows: /"CheckID":"web-check"/ },
    { path: "far-node?peer=peer", ...imports, shows: /"ServiceName":"remote"/ },
  ],
  "GET /v1/health/state/": [
    { path: "any", rules: [n1], shows: /"CheckID":"node-check"/ },
    { path: "any", rules: [n1, web], shows: /"CheckID":"web-check"/ },
    { path: "any?peer=peer", ...imports, shows: /"ServiceName":"remote"/ },
  ],

  "PUT /v1/txn": [
    { path: "", body: [{ Node: { Verb: "set", Node: node } }], rules: [write("node", "n1")] },
    { path: "", body: [{ Service: { Verb: "set", Node: "n1", Service: service } }], rules: [write("service", "web")] },
    // In one transaction with its service.
    {
      path: "",
      body: [
        { Service: { Verb: "set", Node: "n1", Service: { Service: "mine", Port: 1 } } },
        { Check: { Verb: "set", Check: { ...check, CheckID: "mine", ServiceID: "mine" } } },
      ],
      rules: [mine],
    },
    // Whose check it is does not depend on what is said of it.
    {
      path: "",
      body: [{ Check: { Verb: "set", Check: { ...check, ServiceID: "kept" } } }],
      rules: [write("service", "kept"), write("service", "web")],
    },
    {
      path: "",
      body: [{ Check: { Verb: "delete", Check: { ...check, ServiceID: "kept" } } }],
      rules: [write("service", "kept"), write("service", "web")],
      instead: [write("service", "kept"), write("node", "n1")],
    },
    {
      path: "",
      body: [{ Check: { Verb: "delete", Check: { ...check, CheckID: "node-check", ServiceID: "kept" } } }],
      rules: [write("service", "kept"), write("node", "n1")],
    },
    {
      path: "",
      body: [
        {
          Node: {
            Verb: "set",
            Node: { ID: "11111111-1111-1111-1111-111111111111", Node: "fresh", Address: "1.2.3.4" },
          },
        },
      ],
      rules: [write("node", "fresh"), write("node", "old")],
    },
    {
      path: "",
      body: [{ Service: { Verb: "set", Node: "n1", Service: speaker } }],
      rules: [mine, write("service", "web")],
    },
    // Under another name, or by the id that a name is: the instance is still the other's.
    {
      path: "",
      body: [{ Service: { Verb: "cas", Node: "n1", Service: { ...service, Service: "mine", ModifyIndex: 1 } } }],
      rules: [mine, write("service", "web")],
    },
    {
      path: "",
      body: [{ Service: { Verb: "cas", Node: "n1", Service: { Service: "WEB-1", Port: 1, ModifyIndex: 1 } } }],
      rules: [write("service", "WEB-1"), write("service", "web")],
    },
    {
      path: "",
      body: [{ Check: { Verb: "set", Check: { ...check, ServiceID: "WEB-1" } } }],
      rules: [write("service", "web")],
    },
    { path: "", body: [{ Check: { Verb: "set", Check: { ...check, ServiceID: "" } } }], rules: [write("node", "n1")] },
    { path: "", body: [{ Node: { Verb: "get", Node: node } }], rules: [n1], shows: /"Node":"n1"/ },
    {
      path: "",
      body: [{ Service: { Verb: "get", Node: "n1", Service: { ID: "web-1" } } }],
      rules: [web],
      shows: /"Service":"web"/,
    },
    {
      path: "",
      body: [{ Check: { Verb: "get", Check: { Node: "n1", CheckID: "web-check" } } }],
      rules: [web],
      shows: /"CheckID":"web-check"/,
    },
    {
      path: "",
      body: [{ Check: { Verb: "get", Check: { Node: "n1", CheckID: "node-check" } } }],
      rules: [n1],
      shows: /"CheckID":"node-check"/,
    },
  ],

  "GET /v1/discovery-chain/": [{ path: "web", rules: [web] }],
  "POST /v1/discovery-chain/": [{ path: "web", body: {}, rules: [web] }],
  "GET /v1/connect/intentions": [
    { path: "", rules: [web], instead: [read("service", "db")], shows: /"DestinationName":"web"/ },
  ],
  "POST /v1/connect/intentions": [
    { path: "", body: { SourceName: "db", DestinationName: "legacy", Action: "allow" }, ...legacyWrite },
  ],
  "GET /v1/connect/intentions/exact": [
    { path: "?source=db&destination=web", rules: [web], instead: [read("service", "db")], terse: true },
  ],
  "PUT /v1/connect/intentions/exact": [
    { path: "?source=db&destination=legacy", body: { Action: "deny" }, ...legacyWrite },
    {
      path: "?source=db&destination=*",
      body: { Action: "deny" },
      rules: ['service_prefix "" { policy = "deny" intentions = "write" }'],
      terse: true,
    },
  ],
  "DELETE /v1/connect/intentions/exact": [{ path: "?source=db&destination=legacy", ...legacyWrite }],
  "GET /v1/connect/intentions/match": [
    { path: "?by=destination&name=web", rules: [web], instead: [intentionsOnly("web", "read")] },
    { path: "?by=source&name=db&name=web", rules: [read("service", "db"), web] },
  ],
  "GET /v1/connect/intentions/": [
    {
      path: LEGACY_ID,
      rules: [read("service", "legacy")],
      instead: [read("service", "db")],
      terse: true,
    },
  ],
  "PUT /v1/connect/intentions/": [
    { path: LEGACY_ID, body: { SourceName: "db", DestinationName: "legacy", Action: "allow" }, ...legacyWrite },
  ],
  "DELETE /v1/connect/intentions/": [{ path: LEGACY_ID, ...legacyWrite }],
  "GET /v1/connect/intentions/check": [{ path: "?source=db&destination=web", rules: [web] }],

  "GET /v1/query": [{ path: "", rules: [read("query", "kept")], shows: /"Name":"kept"/ }],
  "POST /v1/query": [
    { path: "", body: { Name: "another", Service: { Service: "web" } }, rules: [write("query", "another")] },
  ],
  "GET /v1/query/": [{ path: "<kept>", rules: [read("query", "kept")] }],
  "GET /v1/query/*/explain": [{ path: "kept", rules: [read("query", "kept")] }],
  "GET /v1/query/*/execute": [{ path: "kept", rules: [n1, web], shows: /"ID":"web-1"/ }],
  "PUT /v1/query/": [
    { path: "<kept>", body: { Name: "kept", Service: { Service: "web" } }, rules: [write("query", "kept")] },
    {
      path: "<gone>",
      body: { Name: "renamed", Service: { Service: "web" } },
      rules: [write("query", "gone"), write("query", "renamed")],
    },
  ],
  "DELETE /v1/query/": [{ path: "<gone>", rules: [write("query", "gone")] }],

  "GET /v1/catalog/gateway-services/": [{ path: "web", rules: [web] }],
  "GET /v1/internal/ui/catalog-overview": [{ path: "", rules: ['operator = "read"'] }],
  "GET /v1/internal/ui/services": [
    { path: "", rules: [n1, web], shows: /"Name":"web"/ },
    { path: "", ...imports, shows: /"Name":"remote"/ },
  ],
  "GET /v1/internal/ui/exported-services": [{ path: "?peer=peer", rules: [web], shows: /"web"/ }],
  "GET /v1/internal/ui/nodes": [
    { path: "", rules: [n1], shows: /"Node":"n1"/ },
    { path: "", rules: [n1, web], shows: /"Service":"web"/ },
    { path: "", rules: [everyNode], instead: imports.instead, shows: /"Node":"far-node"/ },
    { path: "", ...imports, shows: /"Service":"remote"/ },
  ],
  "GET /v1/internal/ui/node/": [{ path: "n1", rules: [n1], shows: /"Node":"n1"/ }],
  "PUT /v1/internal/service-virtual-ip": [{ path: "", body: { Service: "web", ManualVIPs: [] }, ...meshWrite }],
};

const routes = operations.filter((each) => each.unserved !== true).map(({ method, pattern }) => `${method} ${pattern}`);
const DENIED = /Permission denied: token with AccessorID 'token-\d+' lacks permission '/;

/** The rules without one of them, and with one that may only read what it may write. */
function weaker(rules: readonly string[]): readonly (readonly string[])[] {
  return rules.flatMap((rule, index) => {
    const others = rules.toSpliced(index, 1);
    const reading = rule.replace('"write"', '"read"');
    return reading === rule ? [others] : [others, [...others, reading]];
  });
}

function textOf(rules: readonly string[]): string {
  return rules.join("\n");
}

/** Every set of rules that is tried. */
function* everyText(): Iterable<string> {
  for (const probes of Object.values(matrix)) {
    if (probes === PUBLIC) continue;
    for (const { rules, instead = [] } of probes) {
      yield textOf(rules);
      yield textOf(instead);
      yield* weaker(rules).map(textOf);
    }
  }
}

describe("which right opens which endpoint", { timeout: 60_000 }, () => {
  let pair: HttpPair;
  let token: string;
  const queryIds = new Map<string, string>();

  before(async () => {
    const control: AgentControl = {
      reload: async () => [],
      leave: () => {},
      monitor: (_, { end }) => {
        end();
        return () => {};
      },
    };
    pair = await HttpPair.start(10, { authorizer: tokensFor([...everyText(), ""]), control });
    const { a, b } = pair;
    for (const name of ["remote", "web"]) {
      await a.host.catalog.registerAll([
        {
          node: "far-node",
          address: "10.9.0.1",
          service: { name, port: 1 },
          check: { checkId: name, name: "c", serviceId: name },
        },
        {
          node: "far-node",
          address: "10.9.0.1",
          service: { kind: "connect-proxy", name: `${name}-proxy`, port: 2, proxy: { destinationServiceName: name } },
        },
        { node: "far-node", address: "10.9.0.1", service: { kind: "mesh-gateway", name: "gateway", port: 3 } },
      ]);
    }
    await a.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "peer" }] }] });
    await b.host.peerings.establish({
      peerName: "peer",
      token: await a.host.peerings.generateToken({ peerName: "peer" }),
    });
    token = await a.host.peerings.generateToken({ peerName: "another" });
    await b.host.catalog.registerAll([
      { node: "n1", address: "10.0.0.1", check: { checkId: "node-check", name: "c", status: "passing" } },
      {
        node: "n1",
        address: "10.0.0.1",
        service: { id: "web-1", name: "web", port: 80 },
        check: { checkId: "web-check", name: "c", serviceId: "web-1" },
      },
      {
        node: "n1",
        address: "10.0.0.1",
        service: {
          kind: "connect-proxy",
          id: "proxy-1",
          name: "web-proxy",
          port: 81,
          proxy: { destinationServiceName: "web" },
        },
      },
      {
        node: "peerage",
        address: "127.0.0.1",
        service: { name: "own", port: 1 },
        check: { checkId: "service:own", name: "c", serviceId: "own" },
      },
    ]);
    await restore();
    await eventually(() => b.host.imports.services({ peer: "peer" }).length >= 4, AbortSignal.timeout(30_000));
  });
  after(() => pair[Symbol.asyncDispose]());

  /** Records that probes remove; they are made again for each. */
  async function restore(): Promise<void> {
    const { host } = pair.b;
    // The next probe must not find the records of this one.
    for (const node of ["n1", "peerage"]) {
      for (const { id, name } of host.catalog.node(node)?.services ?? []) {
        if (name === "mine" || name === "WEB") await host.catalog.deregister({ node, serviceId: id });
      }
    }
    await host.catalog.deregister({ node: "fresh" });
    await host.catalog.registerAll([
      { node: "old", id: "11111111-1111-1111-1111-111111111111", address: "10.0.0.3" },
      { node: "n1", address: "10.0.0.1", service: { id: "kept", name: "kept", port: 90 } },
      { node: "n1", address: "10.0.0.1", service: { id: "web-9", name: "web", port: 89 } },
      {
        node: "n1",
        address: "10.0.0.1",
        check: { checkId: "web-check", name: "c", serviceId: "web-1", status: "passing" },
      },
      { node: "n1", address: "10.0.0.1", check: { checkId: "node-check", name: "c", status: "passing" } },
      { node: "peerage", address: "127.0.0.1", service: { id: "gone", name: "gone", port: 2 } },
      { node: "peerage", address: "127.0.0.1", service: { id: "pair", name: "pair", port: 3 } },
      {
        node: "peerage",
        address: "127.0.0.1",
        service: {
          kind: "connect-proxy",
          id: "pair-sidecar-proxy",
          name: "beside",
          port: 4,
          proxy: { destinationServiceName: "pair", destinationServiceId: "pair" },
        },
      },
      { node: "peerage", address: "127.0.0.1", check: { checkId: "own-node", name: "c" } },
      { node: "peerage", address: "127.0.0.1", check: { checkId: "service:own", name: "c", serviceId: "own" } },
    ]);
    const { configEntries, queries } = host;
    for (const name of ["kept", "gone"]) {
      const id = queries.find(name)?.query.id ?? (await queries.create({ name, service: { name: "web" } }));
      queryIds.set(`<${name}>`, id);
    }
    const renamed = queries.find("renamed");
    if (renamed !== undefined) await queries.delete(renamed.query.id);
    await configEntries.set({ kind: "service-defaults", name: "web", protocol: "http" });
    await configEntries.set({ kind: "mesh" });
    await configEntries.set({ kind: "proxy-defaults", name: "global" });
    await configEntries.set({ kind: "service-intentions", name: "web", sources: [{ name: "db", action: "allow" }] });
    await configEntries.set({
      kind: "service-intentions",
      name: "legacy",
      sources: [{ name: "db", action: "allow", legacyID: LEGACY_ID }],
    });
    await host.exports.set({ services: [{ name: "web", consumers: [{ peer: "peer" }] }] });
  }

  async function ask(route: string, { path, body }: Pick<Probe, "path" | "body">, secret: string): Promise<RawAnswer> {
    const [method = "", pattern = ""] = route.split(" ");
    const text = body === undefined ? undefined : JSON.stringify(body).replace("<token>", token);
    const given = queryIds.get(path) ?? path;
    return pair.b.ask(method, pattern.includes("*") ? pattern.replace("*", given) : `${pattern}${given}`, {
      headers: { "X-Consul-Token": secret },
      ...(text !== undefined && { body: text }),
    });
  }

  it("has an entry for every line of the route table", () => {
    assert.deepEqual(
      routes.filter((route) => !Object.hasOwn(matrix, route)),
      [],
      "routes without a decision",
    );
    assert.deepEqual(
      Object.keys(matrix).filter((route) => !routes.includes(route)),
      [],
      "entries without a route",
    );
  });

  for (const [route, probes] of Object.entries(matrix)) {
    if (probes === PUBLIC) {
      it(`${route} is open to anyone`, async () => {
        const open = await ask(route, { path: "" }, "");
        assert.equal(open.status, 200, open.text);
        assert.equal((await ask(route, { path: "" }, "unknown")).text, open.text);
      });
      continue;
    }
    for (const probe of probes) {
      const { path, body, rules, instead, shows, terse } = probe;
      const what = [route, path, body === undefined ? "" : JSON.stringify(body)].join(" ").trim();
      const wanted = rules.length === 0 ? "a token" : rules.join(" and ");
      it(`${what} takes ${wanted}`, async () => {
        const granted = async (text: string): Promise<void> => {
          await restore();
          const answer = await ask(route, probe, secretFor(text));
          assert.doesNotMatch(answer.text, /Permission denied|ACL not found/, text);
          if (shows !== undefined) assert.match(answer.text, shows, text);
        };
        const denied = async (secret: string, text: string): Promise<void> => {
          await restore();
          const answer = await ask(route, probe, secret);
          if (shows !== undefined) assert.doesNotMatch(answer.text, shows, text);
          else if (terse === true) assert.deepEqual([answer.status, answer.text], [403, "Permission denied"], text);
          else assert.match(answer.text, secret === "" ? /anonymous token lacks permission/ : DENIED, text);
        };
        for (const less of weaker(rules)) await denied(secretFor(textOf(less)), textOf(less));
        if (rules.length > 0) {
          await denied(secretFor(""), "no rules");
          await denied("", "no token");
        }
        const unknown = await ask(route, probe, "unknown");
        assert.deepEqual([unknown.status, unknown.text], [403, "ACL not found"]);
        await granted(textOf(rules));
        if (instead !== undefined) await granted(textOf(instead));
      });
    }
  }

  it("tells only callers with a token that something was left out", async () => {
    const told = async (path: string, secret: string): Promise<boolean> => {
      const { headers } = await pair.b.ask("GET", path, { headers: { "X-Consul-Token": secret } });
      return headers["x-consul-results-filtered-by-acls"] === "true";
    };
    for (const path of [
      "/v1/catalog/nodes",
      "/v1/catalog/services",
      "/v1/catalog/service/web",
      "/v1/catalog/node/n1",
      "/v1/catalog/node-services/n1",
      "/v1/health/service/web",
      "/v1/health/checks/web",
      "/v1/health/node/n1",
      "/v1/health/state/any",
      "/v1/health/service/remote?peer=peer",
      "/v1/catalog/services?peer=peer",
      "/v1/config/service-defaults",
      "/v1/config/exported-services",
      "/v1/connect/intentions",
      "/v1/internal/ui/services",
      "/v1/agent/services",
      "/v1/agent/members",
      "/v1/agent/checks",
    ]) {
      assert.equal(await told(path, secretFor("")), true, path);
      assert.equal(await told(path, ""), false, path);
    }
    assert.equal(await told("/v1/health/service/web", secretFor(textOf([n1, web]))), false);
  });

  it("imports take more than a rule for their name (RPC8)", async () => {
    const seen = async (rules: string): Promise<number> => {
      const answer = await ask("GET /v1/health/service/", { path: "remote?peer=peer" }, secretFor(rules));
      return JSON.parse(answer.text).length;
    };
    assert.equal(await seen(web), 0);
    assert.equal(await seen(textOf(imports.instead)), 1);
    assert.equal(await seen(textOf(imports.rules)), 1);
  });
});
