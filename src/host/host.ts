import { createHash } from "node:crypto";
import type { Closable } from "../base/closable.js";
import { type Clock, type Logger, type Random, silentLogger, systemClock, systemRandom } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { ExportEngine } from "../exports/export-engine.js";
import { Exports } from "../exports/exports.js";
import { Transit } from "../exports/transit.js";
import type { CatalogSource } from "../model/catalog-source.js";
import { serverAddressesToSend } from "../model/server-addresses.js";
import type { ExportedResource } from "../replication/types.js";
import type { Storage } from "../storage/storage.js";
import { Catalog } from "../stores/catalog.js";
import { ConfigEntries } from "../stores/config-entries.js";
import { ImportStore } from "../stores/import-store.js";
import { PreparedQueries } from "../stores/prepared-queries.js";
import { PeeringRecords } from "../stores/records.js";
import { TokenCodec } from "../token/token-codec.js";
import type { Listener, Transport } from "../transport/transport.js";
import type { CertificateAuthority } from "../trust/authority.js";
import { type BuiltInAuthority, builtInAuthority, isBuiltIn } from "../trust/built-in-authority.js";
import { plainSecretBox } from "../trust/secret-box.js";
import { ServerCertificate } from "../trust/server-certificate.js";
import { TrustBundles } from "../trust/trust-bundle-store.js";
import { type RemoteInfo, ResourceId, ResourceUrl } from "../wire/messages.js";
import { encodeServerAddresses, encodeTrustBundle } from "../wire/resources.js";
import { AgentChecks } from "./agent-checks.js";
import { Deletion } from "./deletion.js";
import { DialFailures } from "./dial-failures.js";
import { DialPlaces } from "./dial-places.js";
import { DialRule, defaultForbiddenAddresses } from "./dial-rule.js";
import { Dialer } from "./dialer.js";
import { Effects } from "./effects.js";
import { Gateways } from "./gateways.js";
import { GivenTokens } from "./given-tokens.js";
import { Imports } from "./imports.js";
import { alwaysLeader, type Leadership } from "./leadership.js";
import { LeafCertificates } from "./leaf-certificates.js";
import { defaultLimits, type HostOptions } from "./options.js";
import { Peerings } from "./peerings.js";
import { reportedStorage } from "./reported-storage.js";
import { StatusBoard } from "./status-board.js";
import { Streams } from "./streams.js";
import {
  advertisedAddresses,
  checkExposedPorts,
  checkNodeName,
  checkNumbers,
  checkTransitRules,
  datacenterName,
  datacenterWarning,
  listeningAddress,
  nodeNameWarning,
} from "./validate-options.js";
import { HostView } from "./view.js";
import { VirtualIpClaims } from "./virtual-ip-claims.js";

/**
 * A cluster in this process: peerings with others, its own services and exports, and its imports.
 *
 * Made by {@link createHost}. Disposing of it ends every stream (the peers will redial), stops every loop, and closes the
 * storage and transport it was given.
 */
export class PeeringHost implements Closable {
  readonly datacenter: string;
  /** `<cluster uuid>.consul`. */
  readonly trustDomain: string;
  readonly peerings: Peerings;
  /** The built-in catalog. With a `catalogSource` of the host's own it stays empty and is not exported. */
  readonly catalog: Catalog;
  readonly exports: Exports;
  readonly configEntries: ConfigEntries;
  /** Which gateways stand in front of which services. */
  readonly gateways: Gateways;
  /** The name of the node that this host is. */
  readonly nodeName: string;
  /** The checks of that node that are run here. */
  readonly checks: AgentChecks;
  readonly imports: Imports;
  /** Questions about services that are kept under a name, for HTTP and DNS. */
  readonly queries: PreparedQueries;
  readonly trustBundles: TrustBundles;
  readonly authority: CertificateAuthority;
  /** The authority where it is a built-in one, and can be configured; undefined: the program that runs this host keeps its own. */
  readonly builtInAuthority: BuiltInAuthority | undefined;
  /** Certificates of services, for programs beside this host. */
  readonly leafCertificates: LeafCertificates;
  /** Which node of the cluster leads, as far as this one knows. */
  readonly leadership: Leadership;
  /** `host:port` the transport really listens on; undefined for a host that only dials. */
  readonly listenAddress: string | undefined;
  /** Counts refusals by limits, and failures that no caller sees. */
  readonly incidents: Incidents;
  /** The stored peerings and trust bundles, for programs that serve this host. */
  readonly view: HostView;
  readonly #machinery: HostMachinery;
  readonly #parts: readonly AsyncDisposable[];
  #disposed: Promise<void> | undefined;

  /** @internal */
  constructor(parts: HostParts) {
    this.datacenter = parts.datacenter;
    this.trustDomain = parts.authority.trustDomain;
    this.peerings = parts.peerings;
    this.catalog = parts.catalog;
    this.exports = parts.exports;
    this.configEntries = parts.configEntries;
    this.gateways = new Gateways(parts);
    this.nodeName = parts.checks.node;
    this.checks = parts.checks;
    this.imports = parts.imports;
    this.queries = parts.queries;
    this.leadership = parts.leadership;
    this.trustBundles = parts.trustBundles;
    this.authority = parts.authority;
    this.builtInAuthority = isBuiltIn(parts.authority) ? parts.authority : undefined;
    this.leafCertificates = parts.leafCertificates;
    this.listenAddress = parts.listener?.address;
    this.incidents = parts.incidents;
    this.view = new HostView(parts.machinery);
    this.#machinery = parts.machinery;
    this.#parts = parts.disposables;
  }

  close(): Promise<void> {
    this.#disposed ??= disposeAll(this.#parts);
    return this.#disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal As {@link machineryOf}. */
  static machineryOf(host: PeeringHost): HostMachinery {
    return host.#machinery;
  }
}

/** @internal The parts behind the public ones. */
export interface HostMachinery {
  readonly records: PeeringRecords;
  readonly imports: ImportStore;
  readonly streams: Streams;
  readonly dialer: Dialer;
  readonly board: StatusBoard;
  readonly virtualIps: VirtualIpClaims;
  readonly dialRule: DialRule;
}

/** @internal For the simulator and for tests alone: programs that serve a host read its `view`. */
export function machineryOf(host: PeeringHost): HostMachinery {
  return PeeringHost.machineryOf(host);
}

/** @internal */
export interface HostParts {
  readonly datacenter: string;
  readonly authority: CertificateAuthority;
  readonly leafCertificates: LeafCertificates;
  readonly peerings: Peerings;
  readonly catalog: Catalog;
  readonly exports: Exports;
  readonly configEntries: ConfigEntries;
  readonly checks: AgentChecks;
  readonly imports: Imports;
  readonly queries: PreparedQueries;
  readonly leadership: Leadership;
  readonly trustBundles: TrustBundles;
  readonly listener: Listener | undefined;
  readonly incidents: Incidents;
  readonly machinery: HostMachinery;
  readonly disposables: readonly AsyncDisposable[];
}

/**
 * Starts a host: loads the storage, listens, and goes on where the last process stopped, whatever state that
 * left.
 * @throws {PeeringError} `unavailable` when the address cannot be bound, `storage-failed` when the storage cannot be read.
 *   Everything given to it is disposed of then, too.
 */
export async function createHost(options: HostOptions): Promise<PeeringHost> {
  // In the order of opening; closed in reverse, also when a later step fails.
  const opened: AsyncDisposable[] = [options.storage, options.transport];
  try {
    return await composeHost(options, opened);
  } catch (error) {
    await disposeAll(opened.reverse());
    throw error;
  }
}

async function composeHost(options: HostOptions, opened: AsyncDisposable[]): Promise<PeeringHost> {
  const open = <T extends AsyncDisposable>(part: T): T => {
    opened.push(part);
    return part;
  };
  const transport: Transport = options.transport;
  const clock: Clock = options.clock ?? systemClock;
  const random: Random = options.random ?? systemRandom;
  const logger: Logger = options.logger ?? silentLogger;
  const incidents = options.incidents ?? new Incidents({ clock, logger });
  const storage: Storage = reportedStorage(options.storage, incidents);
  const leadership = options.leadership ?? alwaysLeader;
  const secretBox = options.secretBox ?? plainSecretBox;
  const datacenter = datacenterName(options.datacenter ?? "dc1");
  const nodeName = options.nodeName ?? "peerage";
  checkNodeName(nodeName);
  checkTransitRules(options.transit ?? []);
  for (const warning of [datacenterWarning(datacenter), nodeNameWarning(nodeName)]) {
    if (warning !== undefined) logger.warn(warning);
  }
  const connect = options.connect ?? true;
  const strictConsul = options.strictConsul ?? false;
  const enabled = options.peeringEnabled ?? true;
  checkNumbers("limits", { ...options.limits });
  checkNumbers("timings", { ...options.timings });
  checkExposedPorts(options.checks?.exposedPorts);
  checkNumbers("checks", { concurrentProbes: options.checks?.concurrentProbes, checks: options.checks?.checks });
  const limits = { ...defaultLimits, ...options.limits };
  const leads = (): boolean => enabled && leadership.isLeader;
  const dialRule = new DialRule(options.forbiddenAddresses ?? defaultForbiddenAddresses, incidents);

  const authority: CertificateAuthority = open(
    options.authority ?? (await builtInAuthority({ storage, clock, random, secretBox, logger, incidents })),
  );
  const stop = new AbortController();
  const records: PeeringRecords = open(
    await PeeringRecords.open({
      storage,
      clock,
      random,
      secretBox,
      trustDomain: authority.trustDomain,
      identityLimits: limits,
      incidents,
    }),
  );
  const trustBundles = open(new TrustBundles(records.trustDomains, { authority, logger, incidents }));
  records.onBundlesChange((withheld) => trustBundles.changed(withheld));
  const configEntries = open(await ConfigEntries.open({ storage, datacenter, limits, incidents, secretBox, clock }));
  const queries = open(await PreparedQueries.open({ storage, random, limits, incidents, secretBox, clock }));
  const catalog = open(await Catalog.open({ storage, datacenter, limits, incidents, clock }));
  const checks = open(
    await AgentChecks.open({
      storage,
      catalog,
      configEntries,
      node: nodeName,
      clock,
      random,
      logger,
      incidents,
      limits: options.checks,
    }),
  );
  const virtualIps = open(new VirtualIpClaims({ catalog, configEntries, records, leadership, clock, logger }));
  const importStore = open(
    await ImportStore.open(storage, {
      limits,
      addresses: virtualIps,
      incidents,
      clock,
      mayDelete: () => leadership.isLeader,
    }),
  );
  await virtualIps.repair(importStore);
  const catalogSource: CatalogSource = options.catalogSource ?? catalog;
  const board = new StatusBoard(clock, incidents);
  const certificate = open(new ServerCertificate({ authority, datacenter, clock, random, logger, incidents }));
  const leafCertificates = open(new LeafCertificates({ authority, datacenter, clock, random, incidents, limits }));
  // An authority that cannot issue now, such as one whose root has expired, must not keep others from dialing and reading.
  await certificate.attempted();

  const engine = open(
    new ExportEngine({
      catalog: catalogSource,
      configEntries,
      datacenter,
      trustDomain: authority.trustDomain,
      connect,
      strictConsul,
      logger,
      incidents,
      clock,
      random,
      onHeldBack: (peer, service, reason) => board.heldBack(peer.id, service, reason),
      onReleased: (peer, service) => board.released(peer.id, service),
    }),
  );

  const transit = open(
    new Transit({
      rules: options.transit ?? [],
      mostHops: limits.transitHops,
      engine,
      imports: importStore,
      records,
      trustBundles,
      trustDomain: authority.trustDomain,
      clock,
      logger,
    }),
  );

  let advertised = advertisedAddresses(options.advertise ?? []);
  const remote: RemoteInfo = {
    partition: "",
    datacenter,
    ...(options.locality === undefined ? {} : { locality: options.locality }),
  };
  const throughGateways = (): boolean => configEntries.entries.peerThroughMeshGateways;
  const serverAddresses = (): readonly string[] | undefined =>
    serverAddressesToSend(advertised, engine.meshGateways, throughGateways());
  const clusterResources = (role: "acceptor" | "dialer"): readonly ExportedResource[] => {
    const resources: ExportedResource[] = [];
    if (connect) {
      const rootPems = authority.roots().map((root) => root.certificatePem);
      const value = encodeTrustBundle({ trustDomain: authority.trustDomain, rootPems, exportedPartition: "" });
      resources.push(exportedResource(ResourceUrl.trustBundle, ResourceId.trustBundle, value));
    }
    // A dialer never sends addresses, and an empty list is never sent.
    const addresses = role === "acceptor" ? serverAddresses() : undefined;
    if (addresses !== undefined) {
      const value = encodeServerAddresses(addresses);
      resources.push(exportedResource(ResourceUrl.serverAddresses, ResourceId.serverAddresses, value));
    }
    return resources;
  };

  const streams: Streams = new Streams({
    dialRule,
    clock,
    logger,
    incidents,
    transport,
    records,
    imports: importStore,
    exports: transit,
    board,
    leadership,
    limits,
    timings: options.timings ?? {},
    strictConsul,
    remote,
    clusterResources,
    perform: (task, stream) => effects.perform(task, stream),
  });
  const dialFailures = new DialFailures(clock, logger);
  const places = new DialPlaces({ dialRule, incidents, throughGateways, gateways: () => engine.meshGateways });
  const dialer = new Dialer({
    transport,
    clock,
    logger,
    plan: async (peeringId) => (leads() ? records.dialable(peeringId) : undefined),
    onLost: (peeringId) => records.observe(peeringId, { type: "stream-lost" }),
    places,
    serve: (plan, target, signal) => streams.dial(plan, target, signal),
    onFailure: (peeringId, error, address, waitMs) => {
      dialFailures.failed(records.byId(peeringId)?.name ?? peeringId, error, address, waitMs);
      board.dialFailed(peeringId, error, address, waitMs);
    },
    onStopped: (peeringId) => {
      dialFailures.stopped(records.byId(peeringId)?.name ?? peeringId);
      board.dialStopped(peeringId);
    },
  });
  const deletion = new Deletion({ clock, logger, records, streams, imports: importStore, board, mayRemove: leads });
  const effects: Effects = new Effects({ records, streams, dialer, deletion, leads });
  records.performWith((task) => effects.perform(task));

  const listener = !enabled
    ? undefined
    : await transport.listen(
        {
          exchangeSecret: async (request, remoteAddress) => {
            if (!streams.admit(remoteAddress)) {
              throw new PeeringError("resource-exhausted", Streams.rateLimited.message, {
                status: Streams.rateLimited.code,
              });
            }
            return { streamSecret: await records.exchangeSecret(request) };
          },
          stream: (stream) => streams.accept(stream),
        },
        certificate,
      );
  if (listener !== undefined) open(listener);
  // An empty list says that no peer can reach this host; one whose elements are all empty says nothing.
  if (advertised.length === 0 && options.advertise?.length !== 0 && listener !== undefined) {
    advertised = [listeningAddress(listener.address)];
  }

  const peerings = new Peerings({
    records,
    streams,
    dialer,
    deletion,
    board,
    imports: importStore,
    transport,
    dialRule,
    places,
    clock,
    random,
    authority,
    datacenter,
    remote,
    serverAddresses,
    throughGateways,
    leadership,
    enabled,
    codec: TokenCodec,
    givenTokens: new GivenTokens(TokenCodec, limits, incidents),
  });

  const forget = [
    records.onChange(({ peeringId }) => dialer.changed(peeringId)),
    authority.onRootsChanged(() => streams.clusterResourcesChanged()),
    records.onChange(({ peeringId, peering }) => {
      if (peering === undefined) void importStore.end(peeringId);
    }),
    importStore.onDamage((peeringId) => streams.fetchAgain(peeringId)),
    engine.onGatewaysChanged(() => {
      if (!throughGateways()) return;
      streams.clusterResourcesChanged();
      dialer.allChanged();
    }),
    configEntries.onChange(({ kind }) => {
      if (kind !== "mesh") return;
      streams.clusterResourcesChanged();
      dialer.allChanged();
    }),
    leadership.onChange(() => {
      streams.leadershipChanged();
      void virtualIps.repair(importStore);
      effects.resume();
    }),
  ];
  open({
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      for (const stop of forget) stop();
      // First nothing new is begun, then what runs is ended, then waited for.
      dialer.stop();
      await peerings[Symbol.asyncDispose]();
      await streams[Symbol.asyncDispose]();
      await dialer[Symbol.asyncDispose]();
      await deletion[Symbol.asyncDispose]();
    },
  });
  effects.resume();

  return new PeeringHost({
    datacenter,
    authority,
    leafCertificates,
    peerings,
    catalog,
    exports: new Exports({
      configEntries,
      engine,
      records,
      transit,
      catalog: options.catalogSource === undefined ? catalog : undefined,
      // Seconds outlive a restart, and names change more seldom.
      firstIndex: BigInt(Math.trunc(clock.wall() / 1_000)),
    }),
    configEntries,
    checks,
    imports: new Imports({ records, store: importStore }),
    queries,
    leadership,
    trustBundles,
    listener,
    incidents,
    machinery: { records, imports: importStore, streams, dialer, board, virtualIps, dialRule },
    disposables: [...opened].reverse(),
  });
}

/** Every part is disposed of, in order, also when one fails; the first failure is thrown at the end. */
async function disposeAll(parts: readonly AsyncDisposable[]): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  for (const part of parts) {
    try {
      await part[Symbol.asyncDispose]();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
}

function exportedResource(resourceUrl: string, resourceId: string, value: Uint8Array): ExportedResource {
  return { resourceUrl, resourceId, value, digest: createHash("sha256").update(value).digest("base64") };
}
