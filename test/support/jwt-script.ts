import type { Script, ScriptedRequest } from "./scripted.js";

function put(about: string, body: object): ScriptedRequest {
  return { about, method: "PUT", path: "/v1/config", body };
}

function remove(kind: string, name: string): ScriptedRequest {
  return { about: `delete ${kind} ${name}`, method: "DELETE", path: `/v1/config/${kind}/${name}` };
}

const get = (path: string): ScriptedRequest => ({ about: `read ${path}`, method: "GET", path });

function intentions(about: string, fields: object, name = "web"): ScriptedRequest {
  return put(about, { Kind: "service-intentions", Name: name, ...fields });
}

const jwks = { Local: { JWKS: "e30=" } };
const okta = { Providers: [{ Name: "okta", VerifyClaims: [{ Path: ["perms", "role"], Value: "admin" }] }] };
const source = (...Permissions: readonly object[]): object => ({ Sources: [{ Name: "api", Permissions }] });
const HTTP = { PathPrefix: "/" };

/** Intentions that ask for a JWT, and the providers that they name. */
export const jwtScript: Script = {
  name: "intention-jwt",
  rights: false,
  requests: [
    put("protocol", { Kind: "service-defaults", Name: "web", Protocol: "http" }),
    intentions("of all sources, of no provider", { JWT: okta, Sources: [{ Name: "api", Action: "allow" }] }),
    intentions(
      "of two unknown ones",
      source({ Action: "allow", HTTP, JWT: okta }, { Action: "allow", HTTP, JWT: okta }),
    ),
    put("provider", { Kind: "jwt-provider", Name: "okta", JSONWebKeySet: jwks }),
    put("another provider", { Kind: "jwt-provider", Name: "auth0", JSONWebKeySet: jwks }),
    intentions("of all sources", { JWT: okta, Sources: [{ Name: "api", Action: "allow" }] }),
    get("/v1/config/service-intentions/web"),
    get("/v1/connect/intentions/exact?source=api&destination=web"),
    get("/v1/connect/intentions"),
    {
      about: "by names",
      method: "PUT",
      path: "/v1/connect/intentions/exact?source=new&destination=web",
      body: { Action: "deny" },
    },
    get("/v1/config/service-intentions/web"),
    remove("jwt-provider", "okta"),
    remove("jwt-provider", "auth0"),
    remove("jwt-provider", "auth0"),
    intentions("of a permission", source({ Action: "allow", HTTP, JWT: okta }, { Action: "deny", HTTP })),
    get("/v1/config/service-intentions/web"),
    get("/v1/connect/intentions/exact?source=api&destination=web"),
    remove("jwt-provider", "okta"),
    intentions("of a permission alone", source({ Action: "allow", JWT: okta })),
    intentions("of a permission without providers", source({ Action: "allow", HTTP, JWT: {} })),
    get("/v1/config/service-intentions/web"),
    intentions("of a permission without providers alone", source({ Action: "allow", JWT: {} })),
    intentions("of a nameless provider", { JWT: { Providers: [{}] }, Sources: [{ Name: "api", Action: "allow" }] }),
    intentions("of two nameless ones", { JWT: { Providers: [{}, {}] }, Sources: [{ Name: "api", Action: "allow" }] }),
    intentions("of a nameless one in a permission", source({ Action: "allow", HTTP, JWT: { Providers: [{}] } })),
    intentions("without providers", { JWT: {}, Sources: [{ Name: "api", Action: "allow" }] }),
    get("/v1/config/service-intentions/web"),
    intentions("over tcp", { JWT: okta, Sources: [{ Name: "api", Action: "allow" }] }, "db"),
    intentions("of all services", { JWT: okta, Sources: [{ Name: "api", Action: "allow" }] }, "*"),
    {
      about: "a permission by names",
      method: "PUT",
      path: "/v1/connect/intentions/exact?source=api&destination=web",
      body: { Permissions: [{ Action: "allow", HTTP, JWT: okta }] },
    },
    get("/v1/connect/intentions/exact?source=api&destination=web"),
    {
      about: "an unknown provider by names",
      method: "PUT",
      path: "/v1/connect/intentions/exact?source=api&destination=web",
      body: { Permissions: [{ Action: "allow", HTTP, JWT: { Providers: [{ Name: "nope" }] } }] },
    },
    remove("service-intentions", "web"),
    remove("service-intentions", "db"),
    remove("service-intentions", "*"),
    remove("jwt-provider", "okta"),
  ],
};
