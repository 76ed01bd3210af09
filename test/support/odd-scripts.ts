// Requests that programs make by mistake, and what an agent tells of its own services.
import type { Script, ScriptedRequest } from "./scripted.js";

const get = (path: string, about = path): ScriptedRequest => ({ about, method: "GET", path });

const INVISIBLE = ["%01", "%0A", "%7F", "%C2%A0", "%C2%AD", "%E2%80%83", "%E2%80%AE", "%F3%B0%80%80"];
const VISIBLE = ["%20", "%C3%A9", "%F0%9F%98%80", "a%CC%81"];

export const oddScript: Script = {
  name: "odd",
  rights: false,
  requests: [
    ...INVISIBLE.flatMap((character) => [
      get(`/v1/catalog/service/a${character}b`),
      get(`/v1/agent/connect/ca/leaf/a${character}b`),
      get(`/v1/nothing${character}`),
    ]),
    ...VISIBLE.map((character) => get(`/v1/catalog/service/a${character}b`)),
    { about: "a write to an invisible name", method: "PUT", path: "/v1/agent/service/deregister/a%01" },
    ...["Service.Meta.v == 1", "NoSuch.Field == 1", "Service.ID matches `[`", ""].map((filter) => ({
      about: `a subset by ${filter}`,
      method: "PUT",
      path: "/v1/config",
      body: { Kind: "service-resolver", Name: "web", Subsets: { v1: { Filter: filter } } },
    })),
    get("/v1/query/none/execute"),
    get("/v1/query/none/execute?cached"),
    get("/v1/query/8c5e3d9a-1f7b-4a42-9d54-1f0d2c3b4a59/execute?cached"),
    get("/v1/query/none/explain?cached"),
    { about: "a token without ACLs", method: "PUT", path: "/v1/agent/token/default", body: { Token: "x" } },
    get("/v1/internal/ui/metrics-proxy/api/v1/query", "the proxy of metrics, which is off"),
    {
      about: "a service with a sidecar",
      method: "PUT",
      path: "/v1/agent/service/register",
      body: { Name: "web", Port: 80, Connect: { SidecarService: {} } },
    },
    {
      about: "a proxy by itself",
      method: "PUT",
      path: "/v1/agent/service/register",
      body: {
        Kind: "connect-proxy",
        Name: "api-proxy",
        Port: 81,
        Proxy: { DestinationServiceName: "api", EnvoyExtensions: [{ Name: "builtin/lua" }] },
      },
    },
    get("/v1/agent/services"),
    get("/v1/agent/services?filter=Service==web"),
  ],
};
