// The reads of Consul's pages about a gateway.
import type { Script, ScriptedRequest } from "./scripted.js";

const get = (path: string, about = path): ScriptedRequest => ({ about, method: "GET", path });
const entry = (
  body: { readonly Kind: string; readonly Name: string } & Readonly<Record<string, unknown>>,
): ScriptedRequest => ({
  about: `${body.Kind} ${body.Name}`,
  method: "PUT",
  path: "/v1/config",
  body,
});
const instance = (node: string, service: object, more: object = {}): ScriptedRequest => ({
  about: `an instance on ${node}`,
  method: "PUT",
  path: "/v1/catalog/register",
  body: { Node: node, Address: "10.0.0.1", Service: service, ...more },
});

const UI = "/v1/internal/ui";
const reads = (gateway: string, when: string): readonly ScriptedRequest[] => [
  get(`${UI}/gateway-services-nodes/${gateway}`, `services of ${gateway} ${when}`),
  get(`${UI}/gateway-intentions/${gateway}`, `intentions of ${gateway} ${when}`),
];

/** Places outside of the mesh, behind gateways that name them and behind one for all services. */
export const destinationsScript: Script = {
  name: "destinations",
  rights: false,
  requests: [
    entry({ Kind: "terminating-gateway", Name: "all", Services: [{ Name: "*", SNI: "s" }] }),
    instance("n1", { ID: "all", Service: "all", Kind: "terminating-gateway", Port: 3 }),
    get("/v1/health/connect/ext", "who speaks for a place that there is not"),
    entry({ Kind: "service-defaults", Name: "ext", Destination: { Addresses: ["a.example"], Port: 443 } }),
    entry({ Kind: "service-defaults", Name: "plain", Protocol: "tcp" }),
    entry({
      Kind: "terminating-gateway",
      Name: "exit",
      Services: [{ Name: "ext" }, { Name: "plain" }, { Name: "gone" }],
    }),
    instance("n1", { ID: "exit", Service: "exit", Kind: "terminating-gateway", Port: 4 }),
    get("/v1/catalog/gateway-services/exit", "behind a gateway that names it"),
    get("/v1/catalog/gateway-services/all", "behind one for all services"),
    get("/v1/health/connect/ext", "who speaks for it"),
    get("/v1/health/connect/plain", "who speaks for what has no place"),
    get("/v1/catalog/service/ext", "it is no service of the catalog"),
    get("/v1/internal/ui/gateway-services-nodes/exit", "as pages show it"),
    { about: "its entry is deleted", method: "DELETE", path: "/v1/config/service-defaults/ext" },
    get("/v1/catalog/gateway-services/exit", "behind the one that names it, without its entry"),
    get("/v1/catalog/gateway-services/all", "behind the one for all, without its entry"),
    get("/v1/health/connect/ext", "who speaks for it without its entry"),
  ],
};

export const gatewayPagesScript: Script = {
  name: "gateway-pages",
  rights: false,
  requests: [
    ...reads("exit", "that there is not"),
    get(`${UI}/gateway-services-nodes/`),
    get(`${UI}/gateway-intentions/`),
    entry({ Kind: "terminating-gateway", Name: "exit", Services: [{ Name: "db" }, { Name: "gone", SNI: "x" }] }),
    ...reads("exit", "without instances"),
    instance("n1", { ID: "db-1", Service: "db", Tags: ["b"], Port: 1, Meta: { "external-source": "nomad" } }),
    instance(
      "n2",
      { ID: "db-2", Service: "db", Tags: ["a"], Port: 2 },
      {
        Checks: [
          { CheckID: "c1", Name: "c1", Status: "critical", ServiceID: "db-2" },
          { CheckID: "n", Name: "n", Status: "passing" },
        ],
      },
    ),
    instance("n2", { ID: "exit", Service: "exit", Kind: "terminating-gateway", Port: 3 }),
    ...reads("exit", "without intentions"),
    entry({ Kind: "service-intentions", Name: "db", Sources: [{ Name: "web", Action: "allow" }] }),
    entry({ Kind: "service-intentions", Name: "*", Sources: [{ Name: "*", Action: "deny" }] }),
    entry({ Kind: "service-intentions", Name: "other", Sources: [{ Name: "web", Action: "allow" }] }),
    {
      about: "an intention with an id",
      method: "POST",
      path: "/v1/connect/intentions",
      body: { SourceName: "one", DestinationName: "gone", Action: "deny" },
      keep: "first",
    },
    ...reads("exit", "with intentions"),
    ...reads("Exit", "in capitals"),
    entry({ Kind: "proxy-defaults", Name: "global", Config: { protocol: "http" } }),
    entry({
      Kind: "ingress-gateway",
      Name: "enter",
      Listeners: [
        {
          Port: 8080,
          Protocol: "http",
          Services: [{ Name: "db", Hosts: ["db.example", "db.example:8080"] }, { Name: "none" }],
        },
        { Port: 8081, Protocol: "http", Services: [{ Name: "cache" }] },
      ],
    }),
    ...reads("enter", "for two listeners"),
    get(`${UI}/gateway-services-nodes/enter?dc=other`),
    get(`${UI}/gateway-intentions/enter?dc=other`),
    get(`${UI}/gateway-intentions/enter?ns=x`),
  ],
};
