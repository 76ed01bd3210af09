import { PeeringError } from "../base/errors.js";
import { type ClientTlsOptions, type HttpAnswer, HttpConnection, type HttpRequest } from "./http-connection.js";
import { HttpError } from "./http-error.js";
import {
  asList,
  asObject,
  asTexts,
  booleanOf,
  type Json,
  type JsonObject,
  membersOf,
  parseJson,
  textOf,
} from "./json-reader.js";
import {
  type CaConfigurationRecord,
  type CatalogNodeRecord,
  type CatalogServiceRecord,
  type CheckRecord,
  type ConfigEntryRecord,
  type ExportedServiceRecord,
  type InstanceRecord,
  type IntentionRecord,
  listOf,
  type NodeRecord,
  type NodeServicesRecord,
  type PeeringRecord,
  readCaConfiguration,
  readCatalogNode,
  readCatalogService,
  readCheck,
  readConfigEntry,
  readExportedService,
  readInstance,
  readIntention,
  readIntentionsByName,
  readNode,
  readNodeServices,
  readPeering,
  readTagsByName,
} from "./records.js";

const CA_CONFIGURATION = "/v1/connect/ca/configuration";

/** Where the server is, and who asks. */
export interface ConsulClientOptions {
  /** `host:port`, a URL (`http:` or `https:`, also with a path in front of the API's), or `unix:///path`. Default `127.0.0.1:8500`. */
  readonly address?: string;
  /** ACL token, sent as `X-Consul-Token`. Default: none. */
  readonly token?: string;
  /** `user:password` for a proxy that wants Basic authentication. */
  readonly basicAuth?: string;
  /** Defaults of the requests' options of the same names. */
  readonly datacenter?: string;
  readonly partition?: string;
  readonly namespace?: string;
  readonly tls?: ClientTlsOptions;
}

/** The options of every request. */
export interface RequestOptions {
  readonly datacenter?: string;
  readonly partition?: string;
  readonly namespace?: string;
  readonly signal?: AbortSignal;
}

/** The options of a read. */
export interface ReadOptions extends RequestOptions {
  /** Waits until the index of the answer exceeds this one, or `waitMs` is over. Take it from the answer before. */
  readonly index?: bigint;
  /** How long to wait, in milliseconds. Default 300 000, at most 600 000, as the server decides. */
  readonly waitMs?: number;
  /** Any server may answer, also one that is behind. */
  readonly stale?: boolean;
  /** The leader proves first that it still leads. */
  readonly consistent?: boolean;
  /** A filter expression, such as `Service.Port == 80`. */
  readonly filter?: string;
}

/** The options of a read of the catalog. */
export interface CatalogReadOptions extends ReadOptions {
  /** Reads the imports from this peer instead of the local data. */
  readonly peer?: string;
  /** Nearest first, seen from this node. */
  readonly near?: string;
  /** Only nodes with all of these. */
  readonly nodeMeta?: Readonly<Record<string, string>>;
}

export interface NodeServicesReadOptions extends CatalogReadOptions {
  /** Proxies with what config entries say of them. */
  readonly mergeCentralConfig?: boolean;
}

export interface ServiceReadOptions extends CatalogReadOptions {
  /** Only instances with all of these. */
  readonly tags?: readonly string[];
}

export interface HealthReadOptions extends ServiceReadOptions {
  /** Only instances all of whose checks pass. */
  readonly passing?: boolean;
}

/** An answer with what its headers say. */
export interface ReadAnswer<Value> {
  readonly value: Value;
  /** For the next `index`; undefined where the endpoint has none. */
  readonly index: bigint | undefined;
  /** Milliseconds since the answering server last heard of the leader. */
  readonly lastContactMs: number | undefined;
  readonly knownLeader: boolean | undefined;
}

export interface ClientGenerateTokenOptions extends RequestOptions {
  readonly peerName: string;
  readonly meta?: Readonly<Record<string, string>>;
  /** `host:port` under which dialers reach the servers, instead of the servers' own addresses. */
  readonly serverExternalAddresses?: readonly string[];
}

export interface ClientEstablishOptions extends RequestOptions {
  readonly peerName: string;
  readonly token: string;
  readonly meta?: Readonly<Record<string, string>>;
}

export interface ConfigWriteRequestOptions extends RequestOptions {
  /** Acts only on an entry last modified at this index; `0n`: writes only if there is none. */
  readonly cas?: bigint;
}

/** `/v1/peering…` */
export interface PeeringsClient {
  /** The token for the cluster that is to establish. */
  generateToken(options: ClientGenerateTokenOptions): Promise<string>;
  establish(options: ClientEstablishOptions): Promise<void>;
  /** The peering; undefined when there is none of this name. */
  read(name: string, options?: ReadOptions): Promise<ReadAnswer<PeeringRecord | undefined>>;
  list(options?: ReadOptions): Promise<ReadAnswer<readonly PeeringRecord[]>>;
  /** Marks it for deletion, which goes on at the server. Nothing happens when there is none. */
  delete(name: string, options?: RequestOptions): Promise<void>;
  /** Names of the peerings whose last token is unused. Of Peerage alone. */
  outstandingTokens(options?: RequestOptions): Promise<readonly string[]>;
  /** Makes the unused token of a peering worthless. False: there is none. Of Peerage alone. */
  revokeToken(name: string, options?: RequestOptions): Promise<boolean>;
}

const TOKENS = "/v1/peerage/peering-tokens";

/** Both ends of an intention: a service, `*`, and of a source that is read `peer:<peer>/<service>`. */
export interface IntentionEnds {
  readonly source: string;
  readonly destination: string;
}

/** `/v1/connect/intentions…` */
export interface IntentionsClient {
  list(options?: ReadOptions): Promise<ReadAnswer<readonly IntentionRecord[]>>;
  /** Undefined when nothing is said of these ends. */
  read(ends: IntentionEnds, options?: ReadOptions): Promise<ReadAnswer<IntentionRecord | undefined>>;
  /** Undefined when there is none with this id. */
  readById(id: string, options?: ReadOptions): Promise<ReadAnswer<IntentionRecord | undefined>>;
  /** Intentions of which each service is this end, by its name. */
  match(
    by: keyof IntentionEnds,
    names: readonly string[],
    options?: ReadOptions,
  ): Promise<ReadAnswer<Readonly<Record<string, readonly IntentionRecord[]>>>>;
  /** Whether one local service may call the other. */
  check(ends: IntentionEnds, options?: RequestOptions): Promise<boolean>;
  /** @param intention - of the form that is read, without its ends. */
  write(ends: IntentionEnds, intention: JsonObject, options?: RequestOptions): Promise<void>;
  /** Makes one with an id, which is returned. Consul deprecates it. */
  create(intention: JsonObject, options?: RequestOptions): Promise<string>;
  /** Writes one with an id, whole. Consul deprecates it. */
  updateById(id: string, intention: JsonObject, options?: RequestOptions): Promise<void>;
  /** Nothing there is a success. */
  delete(ends: IntentionEnds, options?: RequestOptions): Promise<void>;
  deleteById(id: string, options?: RequestOptions): Promise<void>;
}

/** `/v1/config…` */
export interface ConfigClient {
  /** @throws {HttpError} 404 when there is none. */
  read(kind: string, name: string, options?: ReadOptions): Promise<ReadAnswer<ConfigEntryRecord>>;
  list(kind: string, options?: ReadOptions): Promise<ReadAnswer<readonly ConfigEntryRecord[]>>;
  /** @returns false when another write was faster than this one with `cas`. */
  write(entry: JsonObject, options?: ConfigWriteRequestOptions): Promise<boolean>;
  /** @returns as `write`; true also when there was none. */
  delete(kind: string, name: string, options?: ConfigWriteRequestOptions): Promise<boolean>;
}

/** `/v1/connect/ca…` */
export interface ConnectClient {
  /** The configuration of the certificate authority. It takes `operator:write`: servers of Consul show private keys. */
  caConfiguration(options?: ReadOptions): Promise<ReadAnswer<CaConfigurationRecord>>;
  /** Configures the certificate authority, whole. Another kind of key, a key or a root makes a new root active. */
  setCaConfiguration(configuration: JsonObject, options?: RequestOptions): Promise<void>;
}

/** `/v1/catalog…` */
export interface CatalogClient {
  /** @param registration - the body as the API documents it: `Node`, `Address`, `Service`, `Check`, … */
  register(registration: JsonObject, options?: RequestOptions): Promise<void>;
  /** @param deregistration - `Node`, and `ServiceID` or `CheckID` for less than the whole node. */
  deregister(deregistration: JsonObject, options?: RequestOptions): Promise<void>;
  /**
   * Applies every operation of `/v1/txn`, or none.
   * @param operations - at most 128: each with one of `Node`, `Service` and `Check`, and a `Verb` in that. Servers of
   *   Consul keep less of a service here than `register` does: no `Ports`, `Connect`, `SocketPath` or `Locality`.
   * @throws {HttpError} status 409: one of them cannot be applied. The text is the answer, which says which, and why.
   */
  transaction(operations: readonly JsonObject[], options?: RequestOptions): Promise<void>;
  datacenters(options?: RequestOptions): Promise<readonly string[]>;
  nodes(options?: CatalogReadOptions): Promise<ReadAnswer<readonly NodeRecord[]>>;
  /** The tags of every service, by its name. */
  services(options?: CatalogReadOptions): Promise<ReadAnswer<Readonly<Record<string, readonly string[]>>>>;
  service(name: string, options?: ServiceReadOptions): Promise<ReadAnswer<readonly CatalogServiceRecord[]>>;
  /** Instances that can be reached over the mesh: connect-native ones, and proxies. */
  connect(name: string, options?: ServiceReadOptions): Promise<ReadAnswer<readonly CatalogServiceRecord[]>>;
  /** Undefined when there is no such node. */
  node(name: string, options?: CatalogReadOptions): Promise<ReadAnswer<CatalogNodeRecord | undefined>>;
  /** A node and its services, as the API documents them. */
  nodeServices(name: string, options?: NodeServicesReadOptions): Promise<ReadAnswer<NodeServicesRecord>>;
}

/** `/v1/health…` */
export interface HealthClient {
  service(name: string, options?: HealthReadOptions): Promise<ReadAnswer<readonly InstanceRecord[]>>;
  connect(name: string, options?: HealthReadOptions): Promise<ReadAnswer<readonly InstanceRecord[]>>;
  checks(service: string, options?: CatalogReadOptions): Promise<ReadAnswer<readonly CheckRecord[]>>;
  node(name: string, options?: CatalogReadOptions): Promise<ReadAnswer<readonly CheckRecord[]>>;
  /** @param state - `passing`, `warning`, `critical` or `any`. */
  state(state: string, options?: CatalogReadOptions): Promise<ReadAnswer<readonly CheckRecord[]>>;
}

export interface MembersOptions extends RequestOptions {
  /** As other datacenters know them. */
  readonly wan?: boolean;
  /** Network segment. Default: all. */
  readonly segment?: string;
  readonly filter?: string;
}

export interface MaintenanceOptions extends RequestOptions {
  readonly enable: boolean;
  /** The id of a service. Default: the whole node. */
  readonly serviceId?: string;
  readonly reason?: string;
}

/** `/v1/agent…`: the agent, and the services and checks registered at it. Bodies and answers are as the API documents them. */
export interface AgentClient {
  self(options?: RequestOptions): Promise<JsonObject>;
  members(options?: MembersOptions): Promise<readonly JsonObject[]>;
  /** By their ids. */
  services(options?: ReadOptions): Promise<JsonObject>;
  /** One of them. Of a proxy, with what config entries say. */
  service(id: string, options?: RequestOptions): Promise<JsonObject>;
  /** By their ids. */
  checks(options?: ReadOptions): Promise<JsonObject>;
  registerService(service: JsonObject, options?: RequestOptions): Promise<void>;
  deregisterService(id: string, options?: RequestOptions): Promise<void>;
  maintenance(options: MaintenanceOptions): Promise<void>;
  /** Has it read its configuration again. */
  reload(options?: RequestOptions): Promise<void>;
  /** Ends it in order. */
  leave(options?: RequestOptions): Promise<void>;
}

/** A question about a connection of the mesh. */
export interface ConnectionQuestion {
  /** The service that calls. */
  readonly source: string;
  /** The service that is called. */
  readonly destination: string;
  /** The peering that the destination belongs to. Default: the cluster that is asked. */
  readonly peer?: string;
  /** The peering that the source belongs to. Default: the cluster that is asked. */
  readonly sourcePeer?: string;
  /** Of a request, for intentions with permissions. */
  readonly path?: string;
  readonly method?: string;
}

/**
 * The HTTP API of a Peerage agent or of a Consul server (1.14 to 1.22), as far as peering needs it.
 *
 * Every call rejects with {@link HttpError} when the server refuses, with {@link PeeringError} `unavailable` when it
 * cannot be reached or `invalid-message` when it answers something else, and with `signal.reason` when aborted.
 *
 * Names are part of a path here, so that only whole ones are sent: one that is empty is a TypeError.
 */
export class ConsulClient implements Disposable {
  readonly peerings: PeeringsClient;
  readonly config: ConfigClient;
  readonly intentions: IntentionsClient;
  readonly catalog: CatalogClient;
  readonly health: HealthClient;
  readonly agent: AgentClient;
  readonly connect: ConnectClient;
  readonly #connection: HttpConnection;
  readonly #defaults: RequestOptions;

  /** Connects when first used. @throws {TypeError} for an invalid address. */
  constructor(options: ConsulClientOptions = {}) {
    const { address, token, basicAuth, datacenter, partition, namespace, tls } = options;
    this.#connection = new HttpConnection({
      address: address ?? "127.0.0.1:8500",
      tls: tls ?? {},
      headers: {
        ...(token !== undefined && token !== "" && { "X-Consul-Token": token }),
        ...(basicAuth !== undefined && { Authorization: `Basic ${Buffer.from(basicAuth).toString("base64")}` }),
      },
    });
    this.#defaults = {
      ...(datacenter !== undefined && { datacenter }),
      ...(partition !== undefined && { partition }),
      ...(namespace !== undefined && { namespace }),
    };
    this.peerings = this.#peerings();
    this.config = this.#config();
    this.intentions = this.#intentions();
    this.catalog = this.#catalog();
    this.health = this.#health();
    this.agent = this.#agent();
    this.connect = {
      caConfiguration: (options = {}) => this.#read(CA_CONFIGURATION, options, readCaConfiguration),
      setCaConfiguration: async (configuration, options = {}) => {
        await this.#call("PUT", CA_CONFIGURATION, options, configuration);
      },
    };
  }

  /** Which services are exported to which peers, wildcards expanded: `/v1/exported-services` (Consul 1.17 and later). */
  exportedServices(options: ReadOptions = {}): Promise<ReadAnswer<readonly ExportedServiceRecord[]>> {
    return this.#read("/v1/exported-services", options, listOf(readExportedService));
  }

  /**
   * The Envoys that are connected to an agent of Peerage, as `/v1/internal/peerage/proxies` documents them. Other servers of Consul's API
   * have nothing there.
   */
  async connectedProxies(options: ReadOptions = {}): Promise<readonly JsonObject[]> {
    const { value } = await this.#read("/v1/internal/peerage/proxies", options, (json) => asList(json, "the answer"));
    return value.map((proxy) => asObject(proxy, "a proxy"));
  }

  /**
   * Whether a service reaches another through the mesh of an agent of Peerage, as `/v1/internal/peerage/explain/connection` documents it.
   * Other servers of Consul's API have nothing there. Where a part of the question is `""`, it is not asked.
   */
  async explainConnection(question: ConnectionQuestion, options: ReadOptions = {}): Promise<JsonObject> {
    const { source, destination, peer = "", sourcePeer = "", path = "", method = "" } = question;
    const parameters = Object.entries({ source, destination, peer, "source-peer": sourcePeer, path, method });
    const { value } = await this.#read(
      "/v1/internal/peerage/explain/connection",
      options,
      (json) => asObject(json, "the answer"),
      parameters.filter(([, text]) => text !== ""),
    );
    return value;
  }

  /**
   * Intentions that let in all callers of a peer, or none, in a way that is seldom meant, as `/v1/internal/peerage/explain/intentions` of an agent of Peerage documents it. Other
   * servers of Consul's API have nothing there.
   */
  async intentionWarnings(options: ReadOptions = {}): Promise<readonly JsonObject[]> {
    const path = "/v1/internal/peerage/explain/intentions";
    const { value } = await this.#read(path, options, (json) => asList(json, "the answer"));
    return value.map((warning) => asObject(warning, "a warning"));
  }

  /** The servers of the cluster, as `/v1/operator/raft/configuration` documents them. */
  async servers(options: ReadOptions = {}): Promise<readonly JsonObject[]> {
    const { value } = await this.#read("/v1/operator/raft/configuration", options, (json) =>
      asObject(json, "the answer"),
    );
    return membersOf(value, "Servers").map((server) => asObject(server, "a server"));
  }

  /** Closes the connections that are kept open; requests under way fail. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #peerings(): PeeringsClient {
    const partitionOf = (options: RequestOptions): { readonly Partition?: string } => {
      const partition = options.partition ?? this.#defaults.partition;
      return partition === undefined ? {} : { Partition: partition };
    };
    return {
      generateToken: async (options) => {
        const { peerName, meta, serverExternalAddresses } = options;
        requireName(peerName);
        const answer = await this.#call("POST", "/v1/peering/token", options, {
          PeerName: peerName,
          ...partitionOf(options),
          ...(hasMembers(meta) && { Meta: meta }),
          ...(serverExternalAddresses !== undefined &&
            serverExternalAddresses.length > 0 && { ServerExternalAddresses: serverExternalAddresses }),
        });
        const token = textOf(asObject(parseJson(answer.text, "the answer"), "the answer"), "PeeringToken");
        if (token === "") throw new PeeringError("invalid-message", "the answer holds no token");
        return token;
      },
      establish: async (options) => {
        const { peerName, token, meta } = options;
        requireName(peerName);
        await this.#call("POST", "/v1/peering/establish", options, {
          PeerName: peerName,
          PeeringToken: token,
          ...partitionOf(options),
          ...(hasMembers(meta) && { Meta: meta }),
        });
      },
      read: async (name, options = {}) => this.#readOrNone(`/v1/peering/${segment(name)}`, options, readPeering),
      list: (options = {}) => this.#read("/v1/peerings", options, listOf(readPeering)),
      delete: async (name, options = {}) => {
        await this.#call("DELETE", `/v1/peering/${segment(name)}`, options);
      },
      outstandingTokens: async (options = {}) => {
        const { value } = await this.#read(
          TOKENS,
          options,
          listOf((json) => textOf(asObject(json, "a token"), "Name")),
        );
        return value;
      },
      revokeToken: async (name, options = {}) => {
        try {
          await this.#call("DELETE", `${TOKENS}/${segment(name)}`, options);
          return true;
        } catch (error) {
          if (error instanceof HttpError && error.status === 404 && /no unused peering token/.test(error.message))
            return false;
          throw error;
        }
      },
    };
  }

  #config(): ConfigClient {
    const cas = (options: ConfigWriteRequestOptions): Readonly<Record<string, string>> =>
      options.cas === undefined ? {} : { cas: String(options.cas) };
    return {
      read: (kind, name, options = {}) =>
        this.#read(`/v1/config/${segment(kind)}/${segment(name)}`, options, readConfigEntry),
      list: (kind, options = {}) => this.#read(`/v1/config/${segment(kind)}`, options, listOf(readConfigEntry)),
      write: async (entry, options = {}) => {
        const answer = await this.#call("PUT", "/v1/config", options, entry, cas(options));
        return answer.text.includes("true");
      },
      delete: async (kind, name, options = {}) => {
        const path = `/v1/config/${segment(kind)}/${segment(name)}`;
        const answer = await this.#call("DELETE", path, options, undefined, cas(options));
        // Without `cas` the answer is an empty object, whatever there was.
        return options.cas === undefined || answer.text.includes("true");
      },
    };
  }

  #intentions(): IntentionsClient {
    const path = "/v1/connect/intentions";
    const exact = `${path}/exact`;
    const byId = (id: string): string => `${path}/${id === "" ? "" : segment(id)}`;
    const query = ({ source, destination }: IntentionEnds): Record<string, string> => ({ destination, source });
    return {
      list: (options = {}) => this.#read(path, options, listOf(readIntention)),
      read: (ends, options = {}) => this.#readOrNone(exact, options, readIntention, Object.entries(query(ends))),
      readById: async (id, options = {}) => this.#readOrNone(byId(id), options, readIntention),
      match: (by, names, options = {}) => {
        const asked = [["by", by], ...names.map((name) => ["name", name])];
        return this.#read(`${path}/match`, options, readIntentionsByName, asked);
      },
      check: async (ends, options = {}) => {
        const answer = await this.#call("GET", `${path}/check`, options, undefined, {
          ...query(ends),
          "source-type": "consul",
        });
        return booleanOf(asObject(parseJson(answer.text, "the answer"), "the answer"), "Allowed");
      },
      write: async (ends, intention, options = {}) => {
        await this.#call("PUT", exact, options, intention, query(ends));
      },
      create: async (intention, options = {}) => {
        const answer = await this.#call("POST", path, options, intention);
        return textOf(asObject(parseJson(answer.text, "the answer"), "the answer"), "ID");
      },
      updateById: async (id, intention, options = {}) => {
        await this.#call("PUT", byId(id), options, intention);
      },
      delete: async (ends, options = {}) => {
        await this.#call("DELETE", exact, options, undefined, query(ends));
      },
      deleteById: async (id, options = {}) => {
        await this.#call("DELETE", byId(id), options);
      },
    };
  }

  #catalog(): CatalogClient {
    return {
      register: async (registration, options = {}) => {
        await this.#call("PUT", "/v1/catalog/register", options, registration);
      },
      deregister: async (deregistration, options = {}) => {
        await this.#call("PUT", "/v1/catalog/deregister", options, deregistration);
      },
      transaction: async (operations, options = {}) => {
        await this.#call("PUT", "/v1/txn", options, operations);
      },
      datacenters: async (options = {}) => {
        const answer = await this.#call("GET", "/v1/catalog/datacenters", options);
        return asTexts(parseJson(answer.text, "the answer"), "the answer");
      },
      nodes: (options = {}) => this.#read("/v1/catalog/nodes", options, listOf(readNode)),
      services: (options = {}) => this.#read("/v1/catalog/services", options, readTagsByName),
      service: (name, options = {}) =>
        this.#read(`/v1/catalog/service/${segment(name)}`, options, listOf(readCatalogService)),
      connect: (name, options = {}) =>
        this.#read(`/v1/catalog/connect/${segment(name)}`, options, listOf(readCatalogService)),
      node: (name, options = {}) => this.#read(`/v1/catalog/node/${segment(name)}`, options, readCatalogNode),
      nodeServices: (name, { mergeCentralConfig = false, ...options } = {}) =>
        this.#read(
          `/v1/catalog/node-services/${segment(name)}`,
          options,
          readNodeServices,
          mergeCentralConfig ? [["merge-central-config", ""]] : [],
        ),
    };
  }

  #health(): HealthClient {
    return {
      service: (name, options = {}) => this.#read(`/v1/health/service/${segment(name)}`, options, listOf(readInstance)),
      connect: (name, options = {}) => this.#read(`/v1/health/connect/${segment(name)}`, options, listOf(readInstance)),
      checks: (service, options = {}) =>
        this.#read(`/v1/health/checks/${segment(service)}`, options, listOf(readCheck)),
      node: (name, options = {}) => this.#read(`/v1/health/node/${segment(name)}`, options, listOf(readCheck)),
      state: (state, options = {}) => this.#read(`/v1/health/state/${segment(state)}`, options, listOf(readCheck)),
    };
  }

  #agent(): AgentClient {
    const objectAt = async (path: string, options: ReadOptions): Promise<JsonObject> =>
      (await this.#read(path, options, (json) => asObject(json, "the answer"))).value;
    return {
      self: (options = {}) => objectAt("/v1/agent/self", options),
      members: async ({ wan = false, segment: network = "_all", filter = "", ...options } = {}) => {
        const query = { ...(wan && { wan: "1" }), segment: network, ...(filter !== "" && { filter }) };
        const { text } = await this.#call("GET", "/v1/agent/members", options, undefined, query);
        return asList(parseJson(text, "the answer"), "the answer").map((member) => asObject(member, "a member"));
      },
      checks: (options = {}) => objectAt("/v1/agent/checks", options),
      services: (options = {}) => objectAt("/v1/agent/services", options),
      service: (id, options = {}) => objectAt(`/v1/agent/service/${segment(id)}`, options),
      registerService: async (service, options = {}) => {
        await this.#call("PUT", "/v1/agent/service/register", options, service);
      },
      deregisterService: async (id, options = {}) => {
        await this.#call("PUT", `/v1/agent/service/deregister/${segment(id)}`, options);
      },
      maintenance: async ({ enable, serviceId, reason = "", ...options }) => {
        const path =
          serviceId === undefined ? "/v1/agent/maintenance" : `/v1/agent/service/maintenance/${segment(serviceId)}`;
        await this.#call("PUT", path, options, undefined, { enable: String(enable), ...(reason !== "" && { reason }) });
      },
      reload: async (options = {}) => {
        await this.#call("PUT", "/v1/agent/reload", options);
      },
      leave: async (options = {}) => {
        await this.#call("PUT", "/v1/agent/leave", options);
      },
    };
  }

  async #read<Value>(
    path: string,
    options: HealthReadOptions,
    read: (json: Json) => Value,
    parameters: readonly (readonly string[])[] = [],
  ): Promise<ReadAnswer<Value>> {
    const query = readQuery(options);
    for (const [name = "", value = ""] of parameters) query.append(name, value);
    const answer = await this.#send("GET", path, options, undefined, query);
    return { ...factsOf(answer), value: read(parseJson(answer.text, `the answer of ${path}`)) };
  }

  /** As `#read`; undefined for a missing record. */
  async #readOrNone<Value>(
    path: string,
    options: HealthReadOptions,
    read: (json: Json) => Value,
    parameters: readonly (readonly string[])[] = [],
  ): Promise<ReadAnswer<Value | undefined>> {
    try {
      return await this.#read(path, options, read, parameters);
    } catch (error) {
      if (!(error instanceof Missing)) throw error;
      return { ...factsOf(error.answer), value: undefined };
    }
  }

  #call(
    method: HttpRequest["method"],
    path: string,
    options: RequestOptions,
    body?: Json,
    query: Readonly<Record<string, string>> = {},
  ): Promise<HttpAnswer> {
    return this.#send(method, path, options, body, new URLSearchParams(query));
  }

  async #send(
    method: HttpRequest["method"],
    path: string,
    options: RequestOptions,
    body: Json | undefined,
    query: URLSearchParams,
  ): Promise<HttpAnswer> {
    const { datacenter, partition, namespace } = { ...this.#defaults, ...options };
    if (datacenter !== undefined && datacenter !== "") query.set("dc", datacenter);
    if (namespace !== undefined && namespace !== "") query.set("ns", namespace);
    if (partition !== undefined && partition !== "") query.set("partition", partition);
    const answer = await this.#connection.send({
      method,
      path,
      query,
      body: body === undefined ? undefined : `${JSON.stringify(body)}\n`,
      signal: options.signal,
    });
    if (answer.status === 200) return answer;
    throw answer.status === 404 ? new Missing(answer) : new HttpError(answer.status, answer.text);
  }
}

/** A 404 with what came with it: for the reads that take it for an answer. */
class Missing extends HttpError {
  readonly answer: HttpAnswer;
  constructor(answer: HttpAnswer) {
    super(answer.status, answer.text);
    this.answer = answer;
  }
}

function requireName(name: string): void {
  if (name === "") throw new TypeError("peer name cannot be empty");
}

function segment(name: string): string {
  if (name === "") throw new TypeError("a name cannot be empty");
  // A segment of dots would be taken for a step in the path.
  return /^\.{1,2}$/.test(name) ? name.replaceAll(".", "%2E") : encodeURIComponent(name);
}

function hasMembers(map: Readonly<Record<string, string>> | undefined): map is Readonly<Record<string, string>> {
  return map !== undefined && Object.keys(map).length > 0;
}

function readQuery(options: HealthReadOptions): URLSearchParams {
  const { index, waitMs, stale, consistent, filter, peer, near, nodeMeta, tags, passing } = options;
  const query = new URLSearchParams();
  if (peer !== undefined && peer !== "") query.set("peer", peer);
  if (stale === true) query.set("stale", "");
  if (consistent === true) query.set("consistent", "");
  if (index !== undefined && index > 0n) query.set("index", String(index));
  if (waitMs !== undefined) query.set("wait", `${Math.max(0, Math.round(waitMs))}ms`);
  if (near !== undefined && near !== "") query.set("near", near);
  if (filter !== undefined && filter !== "") query.set("filter", filter);
  for (const [key, value] of Object.entries(nodeMeta ?? {})) query.append("node-meta", `${key}:${value}`);
  for (const tag of tags ?? []) query.append("tag", tag);
  if (passing === true) query.set("passing", "1");
  return query;
}

function factsOf({ headers }: HttpAnswer): Omit<ReadAnswer<unknown>, "value"> {
  const unsigned = (name: string): string | undefined => {
    const value = headers[name];
    return typeof value === "string" && /^\d{1,20}$/.test(value) ? value : undefined;
  };
  const index = unsigned("x-consul-index");
  const lastContact = unsigned("x-consul-lastcontact");
  const knownLeader = headers["x-consul-knownleader"];
  return {
    index: index === undefined ? undefined : BigInt(index),
    lastContactMs: lastContact === undefined ? undefined : Number(lastContact),
    knownLeader: knownLeader === undefined ? undefined : knownLeader === "true",
  };
}
