import { splitHostPort } from "../base/host-port.js";
import type { JsonObject } from "../client/index.js";
import { asObject, isJsonObject, memberOf, numberOf, objectOf, textOf } from "../client/json-reader.js";
import { type Command, CommandError, type CommandLineIo } from "./command.js";
import { readOptions, serverFlags, tokenOf } from "./connection-flags.js";
import { envoyBootstrap } from "./envoy-bootstrap.js";
import type { ParsedFlags } from "./flags.js";
import { attempt } from "./peering-commands.js";

/** The registration of the proxy that is meant. */
interface Registration {
  readonly id: string;
  readonly service: string;
}

/** Writes the file that an Envoy starts with. */
export const envoyCommand: Command = {
  summary: "Prints the configuration with which an Envoy starts as a sidecar or mesh gateway",
  help: `Usage: peerage connect envoy -sidecar-for <service id> -bootstrap [options]
       peerage connect envoy -gateway mesh -bootstrap [options]

  Prints the configuration with which an Envoy starts: where it is told
  everything else, and who it is. The proxy must be registered with the
  agent, which must serve Envoys (-grpc). Envoy itself is started by you:

      $ peerage connect envoy -sidecar-for web -bootstrap > web.json
      $ envoy -c web.json`,
  flags: [
    ...serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
    { name: "bootstrap", kind: "boolean", usage: "Prints the configuration. Needed: no Envoy is started here." },
    { name: "sidecar-for", kind: "text", placeholder: "id", usage: "Id of the service whose sidecar is meant." },
    { name: "proxy-id", kind: "text", placeholder: "id", usage: "Id of the registration of the proxy." },
    { name: "gateway", kind: "text", placeholder: "kind", usage: "mesh: a mesh gateway of this agent is meant." },
    { name: "service", kind: "text", placeholder: "name", usage: "Name of the gateway, where there are several." },
    {
      name: "node-name",
      kind: "text",
      placeholder: "name",
      usage: "Node at which the proxy is registered. Default: that of the agent.",
    },
    {
      name: "admin-bind",
      kind: "text",
      placeholder: "host:port",
      usage: "Where Envoy serves its own pages. Default: localhost:19000.",
    },
    {
      name: "admin-access-log-path",
      kind: "text",
      placeholder: "path",
      usage: "Where Envoy logs requests for them. Default: /dev/null.",
    },
    {
      name: "grpc-addr",
      kind: "text",
      placeholder: "host:port",
      usage:
        "Where the agent serves Envoys; https:// before it asks for TLS. This can also be specified via the CONSUL_GRPC_ADDR environment variable. Default: the port that the agent tells, at the address of its HTTP API.",
    },
    {
      name: "grpc-ca-file",
      kind: "text",
      placeholder: "file",
      usage:
        "Authority of the agent's certificate, with TLS. This can also be specified via the CONSUL_GRPC_CACERT environment variable.",
    },
  ],
  async run({ flags, io, client, printJson }) {
    if (!flags.boolean("bootstrap")) {
      throw new CommandError("Must specify -bootstrap: no Envoy is started here", {
        remedy: "Write the configuration to a file, and run envoy -c <file>.",
      });
    }
    const { agent } = await client();
    const options = readOptions(flags);
    const self = await attempt("Error reading the agent", () => agent.self(options));
    const node = flags.text("node-name") || undefined;
    const proxy = await registrationOf(flags, () => attempt("Error listing services", () => agent.services(options)));
    const admin = place("admin-bind", flags.text("admin-bind") || "localhost:19000");
    printJson(
      envoyBootstrap({
        ...proxy,
        node,
        datacenter: textOf(objectOf(self, "Config"), "Datacenter"),
        token: await tokenOf(flags, io),
        admin: {
          host: admin.host === "localhost" ? "127.0.0.1" : admin.host,
          port: admin.port,
          accessLog: flags.text("admin-access-log-path") || "/dev/null",
        },
        grpc: await grpcPlace(flags, io, self),
      }),
      "narrow",
    );
  },
};

async function registrationOf(flags: ParsedFlags, list: () => Promise<JsonObject>): Promise<Registration> {
  const [sidecarFor, proxyId, gateway] = ["sidecar-for", "proxy-id", "gateway"].map((name) => flags.text(name));
  const given = [sidecarFor, proxyId, gateway].filter((text) => text !== "").length;
  if (given !== 1) throw new CommandError("Must specify one of -sidecar-for, -proxy-id and -gateway");
  if (gateway !== "" && gateway !== "mesh")
    throw new CommandError("Gateway must be mesh: no other kind is served here");
  const services = Object.values(await list()).filter(isJsonObject);
  const proxyOf = (service: JsonObject): JsonObject => objectOf(service, "Proxy");
  const found = services.filter((service) => {
    if (proxyId !== "") return textOf(service, "ID") === proxyId;
    if (gateway !== "") {
      const name = flags.text("service");
      return textOf(service, "Kind") === "mesh-gateway" && (name === "" || textOf(service, "Service") === name);
    }
    return (
      textOf(service, "Kind") === "connect-proxy" && textOf(proxyOf(service), "DestinationServiceID") === sidecarFor
    );
  });
  const [only, ...more] = found;
  const what =
    sidecarFor !== "" ? `sidecar proxy for ${sidecarFor}` : gateway !== "" ? "mesh gateway" : `proxy ${proxyId}`;
  if (only === undefined) throw new CommandError(`No ${what} is registered with this agent`);
  if (more.length > 0) {
    const ids = found.map((service) => textOf(service, "ID")).join(", ");
    throw new CommandError(`More than one ${what} is registered with this agent: ${ids}`, {
      remedy: "Pass -proxy-id.",
    });
  }
  const isSidecar = textOf(only, "Kind") === "connect-proxy";
  return {
    id: textOf(only, "ID"),
    service: isSidecar ? textOf(proxyOf(only), "DestinationServiceName") : textOf(only, "Service"),
  };
}

async function grpcPlace(flags: ParsedFlags, io: CommandLineIo, self: JsonObject) {
  const given = flags.text("grpc-addr") || (io.environment["CONSUL_GRPC_ADDR"] ?? "");
  const caFile = flags.text("grpc-ca-file") || (io.environment["CONSUL_GRPC_CACERT"] ?? "");
  const tls = given.startsWith("https://");
  if (tls && caFile === "") throw new CommandError("Must specify -grpc-ca-file with an address of https");
  const caPem = tls ? await attempt(`Error reading ${caFile}`, () => io.readFile(caFile)) : "";
  if (given !== "") return { ...place("grpc-addr", given.replace(/^https?:\/\//, "")), tls, caPem };
  const told = memberOf(self, "xDS");
  const ports = memberOf(asObject(told, "the answer"), "Ports");
  const port = numberOf(asObject(ports, "the answer"), "Plaintext");
  if (port <= 0) {
    throw new CommandError("The agent serves no Envoys", { remedy: "Start it with -grpc, or pass -grpc-addr." });
  }
  const http = (flags.text("http-addr") || (io.environment["CONSUL_HTTP_ADDR"] ?? "")).replace(/^https?:\/\//, "");
  return { host: splitHostPort(http)?.host || "127.0.0.1", port, tls, caPem };
}

function place(flag: string, text: string): { readonly host: string; readonly port: number } {
  const found = splitHostPort(text);
  if (found === undefined || found.host === "") throw new CommandError(`-${flag}: no host:port: ${text}`);
  return found;
}
