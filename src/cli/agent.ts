import type { Authorizer } from "../access/authorizer.js";
import type { Logger } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import { createHost, type PeeringHost } from "../host/host.js";
import { httpHandler } from "../http/index.js";
import { Incidents } from "../incidents.js";
import { type HttpServer, httpServer, peeringRpc } from "../rpc/index.js";
import { memoryStorage } from "../storage/memory.js";
import type { Storage } from "../storage/storage.js";
import { joinHostPort } from "../token/address.js";
import { ConnectionLimits } from "../transport/connection-limits.js";
import { grpcTransport } from "../transport/grpc.js";
import { type AgentOptions, type ListenAddress, readAgentOptions } from "./agent-options.js";
import { registerServer } from "./agent-server.js";
import { type CommandContext, CommandError } from "./command.js";
import { lineLogger } from "./log.js";

/** What is one of in a process. */
interface Shared {
  readonly logger: Logger;
  readonly incidents: Incidents;
  readonly connectionLimits: ConnectionLimits;
}

/** Runs an agent until it is told to stop. @throws {CommandError} when it cannot start. */
export async function runAgent({ flags, io, print }: CommandContext): Promise<void> {
  const options = await readAgentOptions(flags, io);
  const logger = lineLogger({
    level: options.logLevel,
    form: io.people ? "pretty" : "json",
    wall: io.wall,
    write: io.stderr,
  });
  const incidents = new Incidents({ logger });
  const connectionLimits = await starting(async () => new ConnectionLimits({ ...options.connectionLimits, incidents }));
  const shared = { logger, incidents, connectionLimits };
  const stopped = io.untilStopped();
  await using host = await starting(() => openHost(options, shared));
  await starting(() => registerServer(host, options.node, options.advertise));
  await using dns = await starting(() => openDns(host, options, shared));
  await using http = await starting(() => openHttp(host, options, shared, stopped));
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
    const remedy = error instanceof PeeringError ? error.remedy : undefined;
    throw new CommandError(`Error starting the agent: ${errorText(error)}`, { cause: error, remedy });
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

async function openStorage(directory: string | undefined, incidents: Incidents): Promise<Storage> {
  if (directory === undefined) return memoryStorage();
  const level = await optional(() => import("../storage/level.js"));
  if (level === undefined) throw new CommandError("-data-dir needs the package classic-level to be installed");
  return level.openLevel(directory, { incidents });
}

async function openHost(options: AgentOptions, shared: Shared): Promise<PeeringHost> {
  const { logger, incidents } = shared;
  return createHost({
    datacenter: options.datacenter,
    nodeName: options.node,
    storage: await openStorage(options.dataDirectory, incidents),
    transport: grpcTransport({ listen: addressText(options.grpcTls), ...shared }),
    ...(options.advertise.length > 0 && { advertise: options.advertise }),
    transit: options.transit,
    ...(options.forbiddenAddresses && { forbiddenAddresses: options.forbiddenAddresses }),
    ...(options.checkAddresses.length > 0 && { checks: { allowedAddresses: options.checkAddresses } }),
    logger,
    incidents,
  });
}

/** Undefined when nobody asked for DNS, and the package it needs is missing. */
async function openDns(
  host: PeeringHost,
  options: AgentOptions,
  shared: Shared,
): Promise<(AsyncDisposable & { readonly address: string }) | undefined> {
  const module = await optional(() => import("../dns/index.js"));
  if (module !== undefined) {
    const listen = addressText(options.dns);
    return module.dnsServer(host, {
      listen,
      strict: options.dnsStrict,
      ...options.dnsLimits,
      ...authorizing(options),
      ...shared,
    });
  }
  if (options.dns.given) throw new CommandError("-dns needs the package dns-packet to be installed");
  shared.logger.warn("DNS is not served: the package dns-packet is not installed");
  return undefined;
}

/** @param stopped - ends the calls that are under way: a watch would go on for ever. */
async function openHttp(
  host: PeeringHost,
  options: AgentOptions,
  shared: Shared,
  stopped: AbortSignal,
): Promise<HttpServer> {
  const { logger } = shared;
  const perSource = options.httpConnectionsPerSource;
  return httpServer({
    listen: addressText(options.http),
    rpc: peeringRpc(host, {
      ...options.requests,
      ...authorizing(options),
      allowPeeringWrite: options.allowPeeringWrite,
      logger,
      signal: stopped,
    }),
    http: httpHandler(host, { ...options.requests, ...authorizing(options), logger }),
    ...(perSource !== undefined && { connectionsPerSource: perSource }),
    ...shared,
  });
}

/** Of the options for HTTP, calls and DNS. */
function authorizing({ authorizer }: AgentOptions): { readonly authorizer?: Authorizer } {
  return authorizer === undefined ? {} : { authorizer };
}

function addressText({ host, port }: ListenAddress): string {
  return joinHostPort(host, port);
}
