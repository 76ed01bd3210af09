// What Consul's pages ask about a gateway.
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
