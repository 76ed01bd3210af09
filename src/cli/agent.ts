import type { Authorizer } from "../access/authorizer.js";
import { policyAuthorizer } from "../access/policies.js";
import type { Logger } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { joinHostPort, splitHostPort } from "../base/host-port.js";
import { Incidents } from "../base/incidents.js";
import { createHost, type PeeringHost } from "../host/host.js";
import { reportIntentionWarnings } from "../host/intention-warnings.js";
import { type AgentControl, CallLimits, httpHandler } from "../http/index.js";
import type { XdsServer, XdsServerOptions } from "../mesh/index.js";
import { type HttpServer, type HttpServerOptions, httpServer, peeringRpc } from "../rpc/index.js";
import type { ServerTls } from "../rpc/server-tls.js";
import { memoryStorage } from "../storage/memory.js";
import type { Storage } from "../storage/storage.js";
import { ConnectionLimits } from "../transport/connection-limits.js";
import { grpcTransport } from "../transport/grpc.js";
import { type BuiltInAuthorityOptions, builtInAuthority } from "../trust/built-in-authority.js";
import { sealedSecretBox } from "../trust/secret-box.js";
import { ServerCertificate } from "../trust/server-certificate.js";
import { DefinedServices } from "./agent-definitions.js";
import {
  type AgentOptions,
  fileLimits,
  type ListenAddress,
  readAgentOptions,
  readPolicies,
  readTls,
} from "./agent-options.js";
import { AgentReload } from "./agent-reload.js";
import { registerServer } from "./agent-server.js";
import { type CommandContext, CommandError, type CommandLineIo } from "./command.js";
import { LogFeed, levelOf, lineLogger } from "./log.js";

/** The parts that a process has one of. */
interface Shared {
  readonly logger: Logger;
  readonly incidents: Incidents;
  readonly connectionLimits: ConnectionLimits;
}

/** Decides the rights of callers over HTTP, RPC and DNS. Undefined: everyone may do everything. */
type Authorizing = { readonly authorizer?: Authorizer };

/** Runs an agent until it is stopped. @throws {CommandError} when it cannot start. */
export async function runAgent({ flags, io: world, print }: CommandContext): Promise<void> {
  const ofFiles = fileLimits(flags, world);
  const io: CommandLineIo = { ...world, readFile: (path) => world.readFile(path, ofFiles) };
  const readOptions = (): Promise<AgentOptions> => readAgentOptions(flags, io);
  const reload = new AgentReload(io, readOptions);
  io.onHangUp(() => void reload.request());
  const options = await readOptions();
  let level = options.logLevel;
  const feed = new LogFeed();
  const logger = lineLogger({
    level: () => level,
    form: io.people && !options.consul.logJson ? "pretty" : "json",
    wall: io.wall,
    write: io.stderr,
    feed,
  });
  const authorizer = options.acl === undefined ? undefined : policyAuthorizer(await readPolicies(options.acl, io));
  const authorizing = authorizer === undefined ? {} : { authorizer };
  const tls = options.tlsFiles === undefined ? undefined : await readTls(options.tlsFiles, io);
  const incidents = new Incidents({ logger });
  const connectionLimits = await starting(async () => new ConnectionLimits({ ...options.connectionLimits, incidents }));
  const shared = { logger, incidents, connectionLimits };
  // As Consul tells its measurements on this signal.
  io.onReport(() => logger.info("incidents since the start", Object.fromEntries(incidents.counts())));
  if (options.encryption?.warning !== undefined) logger.warn(options.encryption.warning);
  const { ignored } = options.consul;
  if (ignored.length > 0) logger.warn("keys of the configuration are ignored", { keys: ignored.join(", ") });
  const stopping = new AbortController();
  const stopped = stopping.signal;
  const told = io.untilStopped();
  if (told.aborted) stopping.abort();
  told.addEventListener("abort", () => stopping.abort(), { once: true });
  await using host = await starting(() => openHost(options, shared));
  // After the data directory was made: the file may lie beside it.
  await using _pidFile = await pidFile(options, io);
  const { nodeId, nodeMeta } = options.consul;
  await starting(() => registerServer(host, { node: options.node, advertised: options.advertise, nodeId, nodeMeta }));
  const defined = new DefinedServices(host);
  await starting(() => defined.replace(options.consul));
  await using dns = await starting(() => openDns(host, options, authorizing, shared));
  const perSource = options.httpConnectionsPerSource;
  const limits = new CallLimits({ ...options.callLimits, incidents: shared.incidents });
  const serving = { ...options.requests, ...authorizing, limits, logger };
  const control: AgentControl = {
    reload: () => reload.request(),
    leave: () => stopping.abort(),
    monitor: ({ level: name, json }, listener) => {
      const least = levelOf(name);
      return least && feed.listen({ level: least, form: json ? "json" : "pretty", ...listener });
    },
  };
  const { defaultIntentionPolicy } = options.consul;
  const intentionPolicy = defaultIntentionPolicy === undefined ? {} : { defaultIntentionPolicy };
  const byDefault = defaultIntentionPolicy ?? authorizer?.defaultPolicy ?? "allow";
  await using _warnings = reportIntentionWarnings(host, { byDefault });
  const openingXds = { ...authorizing, ...intentionPolicy };
  await using xds = options.grpc && (await starting(() => openXds(host, options.grpc, openingXds, shared)));
  await using xdsIdentity =
    options.xdsTls && tls === undefined
      ? new ServerCertificate({ authority: host.authority, datacenter: host.datacenter, ...shared })
      : undefined;
  await using xdsTls =
    options.xdsTls &&
    (await starting(async () => {
      await xdsIdentity?.ready();
      const certificates = tls ?? (xdsIdentity && servedBy(xdsIdentity));
      return openXds(host, options.xdsTls, { ...openingXds, ...(certificates && { tls: certificates }) }, shared);
    }));
  if (xdsIdentity) xdsIdentity.onRenewed(() => xdsTls?.replaceCertificates(servedBy(xdsIdentity)));
  const xdsPort = splitHostPort(xds?.address ?? "")?.port;
  const xdsTlsPort = splitHostPort(xdsTls?.address ?? "")?.port;
  const xdsServers = [xds, xdsTls].filter((server) => server !== undefined);
  const listeners = await starting(async () => ({
    rpc: peeringRpc(host, { ...serving, allowPeeringWrite: options.allowPeeringWrite, signal: stopped }),
    http: httpHandler(host, {
      ...serving,
      ...options.bodyLimits,
      ...options.keptAnswers,
      control,
      ...intentionPolicy,
      ...(xdsPort !== undefined && { xdsPort }),
      ...(xdsTlsPort !== undefined && { xdsTlsPort }),
      ...(xdsServers.length > 0 && { proxies: () => xdsServers.flatMap((server) => server.proxies()) }),
      explainConnection: async (question) => (await import("../mesh/explain.js")).explainConnection(host, question),
    }),
    ...(perSource !== undefined && { connectionsPerSource: perSource }),
    ...shared,
  }));
  const serve = (listen: ListenAddress, more: Partial<HttpServerOptions> = {}): Promise<HttpServer> =>
    starting(() => httpServer({ listen: addressText(listen), ...listeners, ...more }));
  await using http = options.http && (await serve(options.http));
  await using https =
    options.https && tls && (await serve(options.https.listen, { tls, verifiesClients: options.https.verifyIncoming }));
  const { datacenter, node } = options;
  const places = [
    ...(http === undefined ? [] : [`http=${http.address}`]),
    ...(host.listenAddress === undefined ? [] : [`grpc-tls=${host.listenAddress}`]),
    ...(dns === undefined ? [] : [`dns=${dns.address}`]),
    ...(https === undefined ? [] : [`https=${https.address}`]),
    ...(xds === undefined ? [] : [`grpc=${xds.address}`]),
    ...(xdsTls === undefined ? [] : [`xds-tls=${xdsTls.address}`]),
  ];
  print(`Peerage agent ready: datacenter=${datacenter} node=${node} ${places.join(" ")}`);
  reload.start(options, logger, {
    setLogLevel: (next) => {
      level = next;
    },
    replacePolicies: authorizer?.replace,
    replaceCertificates: (certificates) => {
      https?.replaceCertificates(certificates);
      xdsTls?.replaceCertificates(certificates);
    },
    replaceDefinitions: (definitions) => defined.replace(definitions),
  });
  if (!stopped.aborted) await new Promise((resolve) => stopped.addEventListener("abort", resolve, { once: true }));
  logger.info("stopping");
  feed.end();
}

/** @throws {CommandError} for failures that an operator can mend. */
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

/** @throws {CommandError} with Consul's text. */
async function pidFile({ consul }: AgentOptions, io: CommandLineIo): Promise<AsyncDisposable | undefined> {
  if (consul.pidFile === undefined) return undefined;
  try {
    return await io.holdPidFile(consul.pidFile);
  } catch (error) {
    throw new CommandError(`Could not open pid file: ${errorText(error)}`, { cause: error });
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
  const storage = await openStorage(options.dataDirectory, incidents);
  const sealing = options.encryption === undefined ? {} : { secretBox: sealedSecretBox(options.encryption.keys) };
  const { clusterId } = options.consul;
  const keeping = { storage, logger, incidents, ...sealing, ...(clusterId !== undefined && { clusterId }) };
  if (options.rotateRoot) await rotateRoot(keeping);
  return createHost({
    datacenter: options.datacenter,
    nodeName: options.node,
    storage,
    transport: grpcTransport({ ...(options.grpcTls && { listen: addressText(options.grpcTls) }), ...shared }),
    peeringEnabled: options.consul.peeringEnabled,
    ...(options.advertise.length > 0 && { advertise: options.advertise }),
    transit: options.transit,
    limits: options.hostLimits,
    ...(options.forbiddenAddresses && { forbiddenAddresses: options.forbiddenAddresses }),
    ...sealing,
    ...(clusterId !== undefined && { authority: await builtInAuthority(keeping) }),
    checks: {
      exposedPorts: options.exposedPorts,
      ...(options.checkAddresses.length > 0 && { allowedAddresses: options.checkAddresses }),
    },
    logger,
    incidents,
  });
}

/** @param options - with the secret box of the host, which is to open the new key. */
async function rotateRoot(options: BuiltInAuthorityOptions & { readonly logger: Logger }): Promise<void> {
  try {
    await using authority = await builtInAuthority(options);
    const { id } = await authority.rotate();
    options.logger.info("made a new root certificate", { root: id });
  } catch (error) {
    await options.storage[Symbol.asyncDispose]();
    throw error;
  }
}

/** Loaded by agents that serve Envoys. */
async function openXds(
  host: PeeringHost,
  listen: ListenAddress | undefined,
  options: Authorizing & Pick<XdsServerOptions, "defaultIntentionPolicy" | "tls">,
  shared: Shared,
): Promise<XdsServer | undefined> {
  if (listen === undefined) return undefined;
  const { xdsServer } = await import("../mesh/ads/server.js");
  return xdsServer(host, { listen: addressText(listen), ...options, ...shared });
}

/** The certificate of a server of this cluster, as Consul's is for Envoys where it makes its own. */
function servedBy(identity: ServerCertificate): ServerTls {
  const { certificateChainPem, privateKeyPem } = identity.current();
  return { certificate: certificateChainPem, key: privateKeyPem };
}

/** Undefined when DNS is not asked for, and the package it needs is missing. */
async function openDns(
  host: PeeringHost,
  options: AgentOptions,
  authorizing: Authorizing,
  shared: Shared,
): Promise<(AsyncDisposable & { readonly address: string }) | undefined> {
  if (options.dns === undefined) return undefined;
  const module = await optional(() => import("../dns/index.js"));
  if (module !== undefined) {
    const listen = addressText(options.dns);
    return module.dnsServer(host, {
      listen,
      strict: options.dnsStrict,
      ...options.dnsLimits,
      ...authorizing,
      ...shared,
    });
  }
  if (options.dns.given) throw new CommandError("-dns needs the package dns-packet to be installed");
  shared.logger.warn("DNS is not served: the package dns-packet is not installed");
  return undefined;
}

function addressText({ host, port }: ListenAddress): string {
  return joinHostPort(host, port);
}
