import { networkInterfaces } from "node:os";
import { errorText } from "../base/errors.js";
import { joinHostPort, splitHostPort } from "../base/host-port.js";
import type { JsonObject } from "../client/index.js";
import { asObject, isJsonObject, memberOf, numberOf, objectOf, textOf } from "../client/json-reader.js";
import { OLDEST_ENVOY } from "../model/connected-proxy.js";
import { type Command, CommandError, type CommandLineIo } from "./command.js";
import { readOptions, serverFlags, tokenOf } from "./connection-flags.js";
import { envoyBootstrap } from "./envoy-bootstrap.js";
import type { ParsedFlags } from "./flags.js";
import { attempt } from "./peering-commands.js";
import { CONFIGURATION_PATH } from "./run-program.js";

/** The registration of the proxy that is meant. */
interface Registration {
  readonly id: string;
  readonly service: string;
}

/** Starts an Envoy, or writes the file that it starts with. */
export const envoyCommand: Command = {
  summary: "Starts an Envoy as a sidecar or mesh gateway, or prints the configuration with which it starts",
  help: `Usage: peerage connect envoy -sidecar-for <service id> [options] [-- arguments of Envoy]
       peerage connect envoy -gateway mesh [-register] [options] [-- arguments of Envoy]

  Starts an Envoy that is told everything by the agent, which must serve
  Envoys (-grpc or -xds-tls), and stays until it ends: signals get to it,
  and its exit code is that of this command. Its configuration, with the
  token, is in no file that has a name. The proxy must be registered with
  the agent; -register does that for a mesh gateway:

      $ peerage connect envoy -sidecar-for web
      $ peerage connect envoy -gateway mesh -register -address 10.0.0.1:8443

  With -bootstrap it prints the configuration, and Envoy is started by you:

      $ peerage connect envoy -sidecar-for web -bootstrap > web.json
      $ envoy -c web.json`,
  flags: [
    ...serverFlags.filter(({ name }) => name !== "namespace" && name !== "partition"),
    { name: "bootstrap", kind: "boolean", usage: "Prints the configuration, and starts no Envoy." },
    { name: "sidecar-for", kind: "text", placeholder: "id", usage: "Id of the service whose sidecar is meant." },
    { name: "proxy-id", kind: "text", placeholder: "id", usage: "Id of the registration of the proxy." },
    { name: "gateway", kind: "text", placeholder: "kind", usage: "mesh: a mesh gateway of this agent is meant." },
    {
      name: "service",
      kind: "text",
      placeholder: "name",
      usage: "Name of the gateway, where there are several; with -register, its name. Default then: mesh-gateway.",
    },
    {
      name: "envoy-binary",
      kind: "text",
      placeholder: "path",
      usage: "The Envoy that is started. Default: envoy, as it is found in PATH.",
    },
    {
      name: "ignore-envoy-compatibility",
      kind: "boolean",
      usage: "Starts an Envoy of any version. Default: one that is too old is refused.",
    },
    { name: "register", kind: "boolean", usage: "Registers the mesh gateway with the agent first." },
    {
      name: "address",
      kind: "text",
      placeholder: "host:port",
      usage: "With -register: the address of the gateway for its own cluster.",
    },
    {
      name: "wan-address",
      kind: "text",
      placeholder: "host:port",
      usage: "With -register: its address for other clusters.",
    },
    {
      name: "bind-address",
      kind: "texts",
      placeholder: "name=ip:port",
      usage:
        "With -register: where the gateway listens instead. This flag may be specified multiple times. Default: at both addresses, where it can.",
    },
    {
      name: "deregister-after-critical",
      kind: "text",
      placeholder: "duration",
      fallback: "6h",
      usage: "With -register: how long its check may fail before it is deregistered. Default: 6h.",
    },
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
  async run({ flags, io, client, print, printJson, exit }) {
    const { agent } = await client();
    const options = readOptions(flags);
    const self = await attempt("Error reading the agent", () => agent.self(options));
    const node = flags.text("node-name") || undefined;
    const starts = !flags.boolean("bootstrap");
    const envoy = flags.text("envoy-binary") || "envoy";
    if (starts && !flags.boolean("ignore-envoy-compatibility")) await requireVersion(envoy, io);
    const registered = flags.boolean("register") ? registrationFor(flags) : undefined;
    if (registered !== undefined) {
      await attempt(`Error registering service "${registered.Name}"`, () => agent.registerService(registered, options));
      if (starts) print(`Registered service: ${registered.Name}`);
    }
    const proxy =
      registered !== undefined
        ? { id: registered.ID, service: registered.Name }
        : await registrationOf(flags, () => attempt("Error listing services", () => agent.services(options)));
    const admin = place("admin-bind", flags.text("admin-bind") || "localhost:19000");
    const bootstrap = envoyBootstrap({
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
    });
    if (starts) exit(await start(envoy, flags.rest, JSON.stringify(bootstrap), io));
    else printJson(bootstrap, "narrow");
  },
};

/** @returns the exit code of the Envoy. */
async function start(
  command: string,
  rest: readonly string[],
  configuration: string,
  io: CommandLineIo,
): Promise<number> {
  // Several Envoys on a machine would take each other for the one before a restart.
  const restarts = rest.some((argument) =>
    /^--(?:restart-epoch|hot-restart-version|drain-time-s|parent-shutdown-time-s)/.test(argument),
  );
  const args = ["--config-path", CONFIGURATION_PATH, ...(restarts ? [] : ["--disable-hot-restart"]), ...rest];
  return attemptToRun(command, () => io.runProgram({ command, args, configuration }));
}

async function attemptToRun<Result>(command: string, run: () => Promise<Result>): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    throw new CommandError(`Couldn't start ${command}: ${errorText(error)}`, {
      cause: error,
      remedy: "Pass -envoy-binary, or -bootstrap to start an Envoy yourself.",
    });
  }
}

async function requireVersion(command: string, io: CommandLineIo): Promise<void> {
  const printed = await attemptToRun(command, () => io.outputOf(command, ["--version"]));
  const [, major, minor] = /\bversion: [0-9a-f]+\/(\d+)\.(\d+)\./.exec(printed) ?? [];
  const [oldestMajor, oldestMinor] = OLDEST_ENVOY;
  if (major === undefined) {
    throw new CommandError(`Couldn't tell the version of ${command}`, { remedy: "Pass -ignore-envoy-compatibility." });
  }
  if (Number(major) < oldestMajor || (Number(major) === oldestMajor && Number(minor) < oldestMinor)) {
    throw new CommandError(
      `Envoy version ${major}.${minor} is not supported: ${oldestMajor}.${oldestMinor} is the oldest`,
      {
        remedy: "Pass -ignore-envoy-compatibility to start it nevertheless.",
      },
    );
  }
}

/** The registration of a mesh gateway, as `consul connect envoy -register` makes it (1.21). */
function registrationFor(flags: ParsedFlags) {
  if (flags.text("gateway") !== "mesh")
    throw new CommandError("Auto-Registration can only be used for gateways of kind mesh");
  if (flags.text("node-name") !== "") throw new CommandError("'-register' cannot be used with '-node-name'");
  const name = flags.text("service") || "mesh-gateway";
  const [lan, wan] = (["address", "wan-address"] as const).map((flag) => {
    const text = flags.text(flag);
    return text === "" ? undefined : place(flag, text);
  });
  const tagged = ({ host, port }: Place) => ({ Address: host, Port: port });
  return {
    Kind: "mesh-gateway",
    Name: name,
    ID: flags.text("proxy-id") || name,
    Address: lan?.host ?? "",
    Port: lan?.port ?? 0,
    TaggedAddresses: { ...(lan && { lan: tagged(lan) }), ...(wan && { wan: tagged(wan) }) },
    ...proxyOf(flags.texts("bind-address"), lan, wan),
    Check: {
      Name: "mesh-gateway listening",
      TCP: joinHostPort(lan?.host || "127.0.0.1", lan?.port ?? 0),
      Interval: "10s",
      DeregisterCriticalServiceAfter: flags.text("deregister-after-critical"),
    },
  };
}

function proxyOf(bound: readonly string[], lan: Place | undefined, wan: Place | undefined) {
  if (bound.length > 0) {
    const addresses = bound.map((text) => {
      const equals = text.indexOf("=");
      if (equals < 1) throw new CommandError(`-bind-address: no name=ip:port: ${text}`);
      const { host, port } = place("bind-address", text.slice(equals + 1));
      return [text.slice(0, equals), { Address: host, Port: port }] as const;
    });
    const config = { envoy_gateway_no_default_bind: true, envoy_gateway_bind_addresses: Object.fromEntries(addresses) };
    return { Proxy: { Config: config } };
  }
  if (lan !== undefined && !canBind(lan)) {
    throw new CommandError(
      `The LAN address "${lan.host}" will not be bindable. Either set a bindable address or override the bind addresses with -bind-address`,
    );
  }
  if (lan === undefined || wan === undefined || !canBind(wan)) return {};
  return { Proxy: { Config: { envoy_gateway_no_default_bind: true, envoy_gateway_bind_tagged_addresses: true } } };
}

/** Whether an address is one of this machine. */
function canBind({ host }: Place): boolean {
  if (/^(?:0\.0\.0\.0|::)$/.test(host)) return true;
  return Object.values(networkInterfaces()).some((addresses = []) => addresses.some(({ address }) => address === host));
}

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
  const [plaintext, overTls] = ["Plaintext", "TLS"].map((name) => numberOf(asObject(ports, "the answer"), name));
  const http = (flags.text("http-addr") || (io.environment["CONSUL_HTTP_ADDR"] ?? "")).replace(/^https?:\/\//, "");
  const host = splitHostPort(http)?.host || "127.0.0.1";
  // Without its authority the certificate of the agent could not be judged.
  if (overTls !== undefined && overTls > 0 && caFile !== "") {
    return {
      host,
      port: overTls,
      tls: true,
      caPem: await attempt(`Error reading ${caFile}`, () => io.readFile(caFile)),
    };
  }
  if (plaintext !== undefined && plaintext > 0) return { host, port: plaintext, tls, caPem };
  if (overTls !== undefined && overTls > 0) {
    throw new CommandError("The agent serves Envoys over TLS alone", { remedy: "Pass -grpc-ca-file." });
  }
  throw new CommandError("The agent serves no Envoys", {
    remedy: "Start it with -grpc or -xds-tls, or pass -grpc-addr.",
  });
}

interface Place {
  readonly host: string;
  readonly port: number;
}

function place(flag: string, text: string): Place {
  const found = splitHostPort(text);
  if (found === undefined || found.host === "") throw new CommandError(`-${flag}: no host:port: ${text}`);
  return found;
}
