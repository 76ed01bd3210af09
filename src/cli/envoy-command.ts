import { errorText } from "../base/errors.js";
import { ipVersion, isPort, joinHostPort, splitHostPort } from "../base/host-port.js";
import { type ConsulClient, HttpError, type JsonObject } from "../client/index.js";
import { numberOf, objectOf } from "../client/json-reader.js";
import { OLDEST_ENVOY } from "../model/connected-proxy.js";
import { type Command, type CommandContext, CommandError, type CommandLineIo } from "./command.js";
import { filesIn, readOptions, serverFlags, tokenOf } from "./connection-flags.js";
import { centralAccessLog, fileAccessLog } from "./envoy-access-logs.js";
import { envoyBootstrap, type GrpcPlace } from "./envoy-bootstrap.js";
import { envoyFlags } from "./envoy-flags.js";
import type { PrometheusParts } from "./envoy-pages.js";
import { type AskedProxy, askedProxy, foundProxy } from "./envoy-proxy.js";
import { gatewayRegistration } from "./envoy-registration.js";
import { BootstrapSettings } from "./envoy-settings.js";
import type { ParsedFlags } from "./flags.js";
import { attempt } from "./peering-commands.js";
import { CONFIGURATION_PATH } from "./run-program.js";

/** Where an agent serves Envoys, where nothing says otherwise. */
const GRPC_PORT = 8502;

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
  flags: [...serverFlags, ...envoyFlags],
  async run(context) {
    const { flags, io, client, print, note, printJson, exit } = context;
    const step = flags.boolean("enable-config-gen-logging") ? note : () => {};
    const asked = askedProxy(flags, io);
    if (flags.boolean("expose-servers")) {
      throw new CommandError("-expose-servers is for federation over the WAN, which is not served here");
    }
    const [prometheus, ready] = [prometheusParts(flags), readyBind(flags)];
    const starts = !flags.boolean("bootstrap");
    const envoy = flags.text("envoy-binary") || "envoy";
    if (starts && !flags.boolean("ignore-envoy-compatibility")) await requireVersion(envoy, io);
    const connected = await client();
    const registers = flags.boolean("register");
    if (registers) {
      const registration = registrationFor(flags, asked);
      await attempt(`Error registering service "${registration.Name}"`, () =>
        connected.agent.registerService(registration, readOptions(flags)),
      );
      step(`Registered service ${registration.ID}`);
      if (starts) print(`Registered service: ${registration.Name}`);
    }
    const proxy = await foundProxy(connected, flags, asked, registers);
    step(`Read the registration of proxy ${proxy.id}`);
    const settings = new BootstrapSettings(flags.boolean("no-central-config") ? {} : proxy.config);
    const central = await centralAccessLog(connected);
    const accessLogPath = flags.text("admin-access-log-path") || "/dev/null";
    if (central !== undefined && accessLogPath !== "/dev/null") {
      note("-admin-access-log-path does nothing: AccessLogs of proxy-defaults goes before it");
    }
    const grpc = await grpcPlace(context);
    step("Know where the agent serves Envoys");
    const bootstrap = envoyBootstrap({
      ...proxy,
      settings,
      prometheus,
      readyBind: ready,
      node: asked.node,
      token: await tokenOf(flags, io),
      admin: await adminPlace(flags, io),
      accessLogs: [central ?? fileAccessLog(accessLogPath)],
      accessLogPath: central === undefined ? accessLogPath : "",
      grpc,
      deprecatedTags: !flags.boolean("omit-deprecated-tags"),
      environment: io.environment,
    });
    for (const text of idleFlags(flags, settings, ready)) note(text);
    if (starts) exit(await start(envoy, flags.rest, JSON.stringify(bootstrap), io));
    else printJson(bootstrap, "narrow");
  },
};

function registrationFor(flags: ParsedFlags, { isGateway, node, id, service }: AskedProxy) {
  if (node !== "") throw new CommandError("'-register' cannot be used with '-node-name'");
  if (!isGateway) throw new CommandError("Auto-Registration can only be used for gateways of kind mesh");
  const name = service || "mesh-gateway";
  return gatewayRegistration(flags, id || name, name);
}

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

/** Where an authority is read; `""`: nowhere. */
interface AuthorityPaths {
  readonly file: string;
  readonly path: string;
}

/** Those for Envoys alone. */
function ownAuthority(flags: ParsedFlags, io: CommandLineIo): AuthorityPaths {
  return {
    file: flags.text("grpc-ca-file") || (io.environment["CONSUL_GRPC_CACERT"] ?? ""),
    path: flags.text("grpc-ca-path") || (io.environment["CONSUL_GRPC_CAPATH"] ?? ""),
  };
}

/** Where there is none for Envoys, that for the HTTP API. */
function authorityPaths(flags: ParsedFlags, io: CommandLineIo): AuthorityPaths {
  const own = ownAuthority(flags, io);
  if (isGiven(own)) return own;
  return {
    file: flags.text("ca-file") || (io.environment["CONSUL_CACERT"] ?? ""),
    path: flags.text("ca-path") || (io.environment["CONSUL_CAPATH"] ?? ""),
  };
}

function isGiven({ file, path }: AuthorityPaths): boolean {
  return file !== "" || path !== "";
}

async function authorityOf({ file, path }: AuthorityPaths, io: CommandLineIo): Promise<string> {
  if (file !== "") return readPart(file, io);
  const paths = await attemptToRead(path, () => filesIn(path, io));
  const texts = await Promise.all(paths.map((each) => readPart(each, io)));
  if (texts.length === 0) throw new CommandError(`There is no file in ${path}`);
  return texts.join("");
}

function readPart(path: string, io: CommandLineIo): Promise<string> {
  return attemptToRead(path, () => io.readFile(path));
}

async function attemptToRead<Result>(path: string, read: () => Promise<Result>): Promise<Result> {
  try {
    return await read();
  } catch (error) {
    throw new CommandError(`Error reading ${path}: ${errorText(error)}`, { cause: error });
  }
}

async function grpcPlace({ flags, io, client, note }: CommandContext): Promise<GrpcPlace> {
  const paths = authorityPaths(flags, io);
  const hasAuthority = isGiven(paths);
  const withTls = async (tls: boolean) => ({ tls, caPem: tls ? await authorityOf(paths, io) : "" });
  const given = flags.text("grpc-addr") || (io.environment["CONSUL_GRPC_ADDR"] ?? "");
  if (given.startsWith("unix://")) {
    return { socket: given.slice("unix://".length), ...(await withTls(isGiven(ownAuthority(flags, io)))) };
  }
  if (given !== "") {
    const tls = /^https:\/\//i.test(given);
    if (tls && !hasAuthority) {
      throw new CommandError("Must specify -grpc-ca-file or -grpc-ca-path with an address of https");
    }
    const { host, port } = place("grpc-addr", given.replace(/^https?:\/\//i, ""));
    return { ...(await dialed(host, io)), port, ...(await withTls(tls)) };
  }
  const { plaintext, overTls } = await toldPorts(await client(), flags, note);
  const http = (flags.text("http-addr") || (io.environment["CONSUL_HTTP_ADDR"] ?? "")).replace(/^https?:\/\//, "");
  const agent = await dialed(splitHostPort(http)?.host || "127.0.0.1", io);
  // Without its authority the certificate of the agent could not be judged (D-71).
  if (overTls > 0 && hasAuthority) return { ...agent, port: overTls, ...(await withTls(true)) };
  if (plaintext > 0) return { ...agent, port: plaintext, ...(await withTls(false)) };
  if (overTls > 0) {
    throw new CommandError("The agent serves Envoys over TLS alone", { remedy: "Pass -grpc-ca-file." });
  }
  throw new CommandError("The agent serves no Envoys", {
    remedy: "Start it with -grpc or -xds-tls, or pass -grpc-addr.",
  });
}

/** Ports at which the agent says that it serves Envoys. */
async function toldPorts({ agent }: ConsulClient, flags: ParsedFlags, note: CommandContext["note"]) {
  let self: JsonObject;
  try {
    self = await attempt("Error reading the agent", () => agent.self(readOptions(flags)));
  } catch (error) {
    // The token of a proxy need not read the agent.
    if (!(error instanceof CommandError && error.cause instanceof HttpError && error.cause.status === 403)) throw error;
    note(
      `The token may not ask the agent where it serves Envoys: port ${GRPC_PORT} is taken. Pass -grpc-addr for another.`,
    );
    return { plaintext: GRPC_PORT, overTls: 0 };
  }
  const ports = objectOf(objectOf(self, "xDS"), "Ports");
  return { plaintext: numberOf(ports, "Plaintext"), overTls: numberOf(ports, "TLS") };
}

/** Envoy takes `localhost` for another address than an agent does. Other names it follows. */
async function dialed(host: string, io: CommandLineIo) {
  if (host === "localhost") return { host: await addressOf("grpc-addr", host, io), isName: false };
  return { host, isName: ipVersion(host) === 0 };
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

/** Envoy listens at addresses alone. */
async function adminPlace(flags: ParsedFlags, io: CommandLineIo): Promise<Place> {
  const { host, port } = place("admin-bind", flags.text("admin-bind") || "localhost:19000");
  return { host: ipVersion(host) === 0 ? await addressOf("admin-bind", host, io) : host, port };
}

async function addressOf(flag: string, name: string, io: CommandLineIo): Promise<string> {
  try {
    return await io.lookUp(name);
  } catch (error) {
    throw new CommandError(`-${flag}: ${errorText(error)}`, { cause: error });
  }
}

const TLS_FLAGS = ["prometheus-cert-file", "prometheus-key-file", "prometheus-ca-file", "prometheus-ca-path"] as const;

function prometheusParts(flags: ParsedFlags): PrometheusParts {
  const [certificateFile = "", keyFile = "", caFile = "", caPath = ""] = TLS_FLAGS.map((flag) => flags.text(flag));
  const given = [certificateFile, keyFile, caFile || caPath];
  if (given.some((path) => path !== "") && given.includes("")) {
    throw new CommandError(
      "-prometheus-cert-file, -prometheus-key-file and one of -prometheus-ca-file and -prometheus-ca-path belong together",
    );
  }
  const backendPort = flags.text("prometheus-backend-port");
  if (backendPort !== "" && !isPortText(backendPort)) {
    throw new CommandError(`-prometheus-backend-port: no port: ${backendPort}`);
  }
  return { backendPort, scrapePath: flags.text("prometheus-scrape-path"), certificateFile, keyFile, caFile, caPath };
}

function isPortText(text: string): boolean {
  return /^\d{1,5}$/.test(text) && isPort(Number(text));
}

/** `""`: it is not asked for. */
function readyBind(flags: ParsedFlags): string {
  const [host, port] = [flags.text("envoy-ready-bind-address"), flags.text("envoy-ready-bind-port")];
  if (host === "" && (port === "" || port === "0")) return "";
  if (host === "" || !isPortText(port)) {
    throw new CommandError("-envoy-ready-bind-address and a port in -envoy-ready-bind-port belong together");
  }
  return joinHostPort(host, port);
}

/** Flags that do nothing with these settings are named: nobody must take them for done. */
function idleFlags(flags: ParsedFlags, settings: BootstrapSettings, ready: string): readonly string[] {
  const idle: string[] = [];
  const metrics = settings.text("envoy_prometheus_bind_addr");
  const pages = metrics || settings.text("envoy_stats_bind_addr") || ready;
  const without = (names: readonly string[], what: string): void => {
    for (const name of names) if (flags.text(name) !== "") idle.push(`-${name} does nothing: ${what}`);
  };
  if (metrics === "") {
    const given = ["prometheus-backend-port", "prometheus-scrape-path"].filter((name) => flags.given(name));
    without(given, "the proxy has no envoy_prometheus_bind_addr");
  }
  if (pages === "") without(TLS_FLAGS, "the proxy has no envoy_prometheus_bind_addr");
  without(["envoy-version"], "the Envoy of -envoy-binary is started, or that in PATH");
  return idle;
}
