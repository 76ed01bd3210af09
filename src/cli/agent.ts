import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { Authorizer } from "../access/authorizer.js";
import { type Logger, systemClock } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import { createHost, type PeeringHost } from "../host/host.js";
import { httpHandler } from "../http/index.js";
import { memoryStorage } from "../storage/memory.js";
import type { Storage } from "../storage/storage.js";
import { joinHostPort } from "../token/address.js";
import { grpcTransport } from "../transport/grpc.js";
import { type AgentOptions, type ListenAddress, readAgentOptions } from "./agent-options.js";
import { type CommandContext, CommandError } from "./command.js";
import { lineLogger } from "./log.js";

/** How long requests that are being answered may go on once the agent is told to stop. */
const DRAIN_MS = 2_000;
/** A client that takes longer to send its headers, or a whole request, is hung up on. */
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 60_000;
const KEEP_ALIVE_MS = 60_000;

/** Runs an agent until it is told to stop. @throws {CommandError} when it cannot start. */
export async function runAgent({ flags, io, print }: CommandContext): Promise<void> {
  const options = await readAgentOptions(flags, io);
  const logger = lineLogger({
    level: options.logLevel,
    form: io.people ? "pretty" : "json",
    wall: io.wall,
    write: io.stderr,
  });
  const stopped = io.untilStopped();
  await using host = await starting(() => openHost(options, logger));
  await using dns = await starting(() => openDns(host, options, logger));
  await using http = await starting(() => openHttp(host, options, logger));
  const { datacenter, node } = options;
  const places = [
    `http=${http.address}`,
    `grpc-tls=${host.listenAddress ?? ""}`,
    ...(dns === undefined ? [] : [`dns=${dns.address}`]),
  ];
  print(`Peerage agent ready: datacenter=${datacenter} node=${node} ${places.join(" ")}`);
  if (!stopped.aborted) await new Promise((resolve) => stopped.addEventListener("abort", resolve, { once: true }));
  logger.info("stopping");
}

/** @throws {CommandError} for what an operator can act on. */
async function starting<Part>(action: () => Promise<Part>): Promise<Part> {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof PeeringError || error instanceof TypeError)) throw error;
    const remedy = error instanceof PeeringError && error.remedy !== undefined ? `\n${error.remedy}` : "";
    throw new CommandError(`Error starting the agent: ${errorText(error)}${remedy}`, { cause: error });
  }
}

/** The module; undefined when the package it stands on is not installed, which is optional. */
async function optional<Module>(load: () => Promise<Module>): Promise<Module | undefined> {
  try {
    return await load();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND") return undefined;
    throw error;
  }
}

async function openStorage(directory: string | undefined): Promise<Storage> {
  if (directory === undefined) return memoryStorage();
  const level = await optional(() => import("../storage/level.js"));
  if (level === undefined) throw new CommandError("-data-dir needs the package classic-level to be installed");
  return level.openLevel(directory);
}

async function openHost(options: AgentOptions, logger: Logger): Promise<PeeringHost> {
  return createHost({
    datacenter: options.datacenter,
    storage: await openStorage(options.dataDirectory),
    transport: grpcTransport({ listen: addressText(options.grpcTls), logger }),
    ...(options.advertise.length > 0 && { advertise: options.advertise }),
    logger,
  });
}

/** Undefined when nobody asked for DNS, and the package it needs is missing. */
async function openDns(
  host: PeeringHost,
  options: AgentOptions,
  logger: Logger,
): Promise<(AsyncDisposable & { readonly address: string }) | undefined> {
  const module = await optional(() => import("../dns/index.js"));
  if (module !== undefined) {
    const listen = addressText(options.dns);
    return module.dnsServer(host, { listen, strict: options.dnsStrict, ...authorizing(options), logger });
  }
  if (options.dns.given) throw new CommandError("-dns needs the package dns-packet to be installed");
  logger.warn("DNS is not served: the package dns-packet is not installed");
  return undefined;
}

async function openHttp(
  host: PeeringHost,
  options: AgentOptions,
  logger: Logger,
): Promise<AsyncDisposable & { readonly address: string }> {
  const server = createServer(
    { headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: KEEP_ALIVE_MS },
    httpHandler(host, { nodeName: options.node, ...authorizing(options), logger }),
  );
  const { host: name, port } = options.http;
  try {
    server.listen({ port, ...(name !== "" && { host: name }) });
    await once(server, "listening");
  } catch (error) {
    const problem = `cannot listen on ${addressText(options.http)}: ${errorText(error)}`;
    throw new PeeringError("unavailable", problem, { cause: error });
  }
  server.on("error", (error) => logger.warn("the HTTP listener failed", { error: errorText(error) }));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new TypeError("a listener on a port has a port");
  return {
    address: joinHostPort(bound.address, bound.port),
    [Symbol.asyncDispose]: () => drain(server),
  };
}

/** Takes no more requests; those under way are given a moment, but waiting reads could stay for minutes. */
async function drain(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const timer = systemClock.after(DRAIN_MS, () => server.closeAllConnections());
  await closed;
  timer.cancel();
}

/** Of the options for HTTP and DNS. */
function authorizing({ authorizer }: AgentOptions): { readonly authorizer?: Authorizer } {
  return authorizer === undefined ? {} : { authorizer };
}

function addressText({ host, port }: ListenAddress): string {
  return joinHostPort(host, port);
}
