// The question of a program beside an agent about a connection that reached it: POST /v1/agent/connect/authorize.
import type { Script, ScriptedRequest } from "./scripted.js";

const PATH = "/v1/agent/connect/authorize";
const DOMAIN = "11111111-2222-3333-4444-555555555555.consul";
const uri = (service: string): string => `spiffe://${DOMAIN}/ns/default/dc/dc1/svc/${service}`;

function intentions(name: string, sources: readonly object[]): ScriptedRequest {
  return {
    about: `intentions of ${name}`,
    method: "PUT",
    path: "/v1/config",
    body: { Kind: "service-intentions", Name: name, Sources: sources },
  };
}

function ask(about: string, body: unknown, more: Partial<ScriptedRequest> = {}): ScriptedRequest {
  return { about, method: "POST", path: PATH, body, ...more };
}

function mayCall(source: string, target: string): ScriptedRequest {
  return ask(`${source} calls ${target}`, { Target: target, ClientCertURI: uri(source), ClientCertSerial: "0a:0b" });
}

export const authorizeScript: Script = {
  name: "authorize",
  rights: false,
  requests: [
    mayCall("web", "db"),
    {
      about: "protocol of db",
      method: "PUT",
      path: "/v1/config",
      body: { Kind: "service-defaults", Name: "db", Protocol: "http" },
    },
    intentions("db", [
      { Name: "web", Action: "allow" },
      {
        Name: "api",
        Permissions: [
          { Action: "allow", HTTP: { PathPrefix: "/" } },
          { Action: "deny", HTTP: { PathPrefix: "/x" } },
        ],
      },
      { Name: "*", Action: "deny" },
      { Name: "far", Peer: "west", Action: "allow" },
    ]),
    intentions("*", [
      { Name: "web", Action: "deny" },
      { Name: "*", Action: "allow" },
    ]),
    ...["web", "api", "other", "far", "Web"].map((source) => mayCall(source, "db")),
    ...["web", "other"].map((source) => mayCall(source, "nothing")),
    mayCall("web", "DB"),
    mayCall("web", "*"),
    {
      about: "an intention with an id",
      method: "POST",
      path: "/v1/connect/intentions",
      body: { SourceName: "one", DestinationName: "two", Action: "deny" },
      keep: "first",
    },
    mayCall("one", "two"),
    mayCall("web%2Fx", "db"),

    ask("nothing", ""),
    ask("no object", []),
    ask("broken", "{"),
    ask("no target", { ClientCertURI: uri("web") }),
    ask("no identity", { Target: "db" }),
    ask("an unknown field", { Target: "db", ClientCertURI: uri("web"), Other: 1 }),
    ask("a target of another type", { Target: 1, ClientCertURI: uri("web") }),
    ask("other capitals", { target: "db", clientcerturi: uri("web") }),
    ask("names with underscores", { target: "db", client_cert_uri: uri("web") }),
    ask("an invalid identity", { Target: "db", ClientCertURI: "web" }),
    ask("another scheme", { Target: "db", ClientCertURI: "https://example.com/ns/default/dc/dc1/svc/web" }),
    ask("a bad escape", { Target: "db", ClientCertURI: uri("%zz") }),
    ask("a path without meaning", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}/x` }),
    ask("an agent", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}/agent/client/dc/dc1/id/n1` }),
    ask("an authority", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}` }),
    ask("a gateway", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}/gateway/mesh/dc/dc1` }),
    ask("another trust domain", { Target: "db", ClientCertURI: "spiffe://other.consul/ns/default/dc/dc1/svc/web" }),
    ask("another datacenter", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}/ns/default/dc/dc9/svc/web` }),
    ask("another namespace", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}/ns/other/dc/dc1/svc/web` }),
    ask("another partition", { Target: "db", ClientCertURI: `spiffe://${DOMAIN}/ap/other/ns/default/dc/dc1/svc/web` }),
    ask("a namespace asked for", { Target: "db", ClientCertURI: uri("web") }, { path: `${PATH}?ns=other` }),
    ask("a namespace in the body", { Target: "db", Namespace: "other", ClientCertURI: uri("web") }),
    { about: "another method", method: "PUT", path: PATH, body: { Target: "db", ClientCertURI: uri("web") } },
    { about: "a read", method: "GET", path: PATH },
  ],
};

const WRITE_DB = 'service "db" { policy = "write" }';
const READ_DB = 'service "db" { policy = "read" intentions = "read" }';
const DENIED_DB = 'service "db" { policy = "write" intentions = "deny" }';
const WRITE_ALL = 'service_prefix "" { policy = "write" intentions = "write" }';

/** Who may ask about which target: the right to write it is needed. */
export const authorizeRightsScript: Script = {
  name: "authorize-rights",
  rights: true,
  requests: [
    mayCall("web", "other"),
    intentions("db", [{ Name: "web", Action: "allow" }]),
    ...["", READ_DB, WRITE_DB, DENIED_DB, WRITE_ALL].flatMap((rules) =>
      [
        mayCall("web", "db"),
        mayCall("other", "db"),
        mayCall("web", "other"),
        ask("no target", { ClientCertURI: uri("web") }),
        ask("no identity", { Target: "db", ClientCertURI: "x" }),
      ].map((each) => ({ ...each, rules, about: `${rules === "" ? "nobody" : rules}: ${each.about}` })),
    ),
  ],
};
