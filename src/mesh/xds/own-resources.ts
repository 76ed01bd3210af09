import { EncodedMessage, type EnvoyFields, EnvoyJson, EnvoyJsonError, type EnvoyValue } from "../../wire/envoy-json.js";

// Listeners and clusters that operators write themselves, in Envoy's JSON. Rules for callers and certificates are put into them.

const LISTENER = "envoy.config.listener.v3.Listener";
const CLUSTER = "envoy.config.cluster.v3.Cluster";
const MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const MANAGER_NAMES: ReadonlySet<EnvoyValue | undefined> = new Set([
  "envoy.http_connection_manager",
  "envoy.filters.network.http_connection_manager",
]);

/** A resource that is encoded, under its own name. */
export interface OwnResource {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Names of the routes that it asks for. */
  readonly routes: readonly string[];
}

/** The parts that protect a listener, encoded. */
export interface Protection {
  /** The rules for requests, a filter of HTTP; undefined: connections alone are looked at. */
  readonly http: Uint8Array | undefined;
  /** The rules for connections, a filter of the listener. */
  readonly network: Uint8Array;
  readonly transportSocket: Uint8Array;
}

/** Reads resources that operators write. All methods throw an {@link EnvoyJsonError} where a text is no such resource. */
export class OwnResources {
  readonly #json = new EnvoyJson();

  tracing(text: string): Uint8Array {
    return this.#json.readAny(read(text), `${MANAGER}.Tracing`);
  }

  /** @param transportSocket - takes the place of its own one. */
  cluster(text: string, transportSocket: Uint8Array | undefined): OwnResource {
    const fields = objectOf(read(text), "the cluster");
    return this.#resource(
      CLUSTER,
      transportSocket === undefined ? fields : replaced(fields, "transportSocket", new EncodedMessage(transportSocket)),
    );
  }

  listener(text: string): OwnResource {
    return this.#resource(LISTENER, objectOf(read(text), "the listener"));
  }

  /**
   * A listener for callers: every one of its filter chains, the default one too, judges them by the certificate that they show and by the
   * intentions. Where one has no manager of HTTP connections to put rules for requests into, connections are judged in all of them.
   */
  publicListener(
    text: string,
    { http, network, transportSocket }: Protection,
  ): OwnResource & { readonly byRequests: boolean } {
    const listener = objectOf(read(text), "the listener");
    const chains = listOf(member(listener, "filterChains"), "filterChains").map((chain) =>
      objectOf(chain, "filterChains"),
    );
    const given = member(listener, "defaultFilterChain");
    const byDefault = given === undefined ? undefined : objectOf(given, "defaultFilterChain");
    const all = [...chains, ...(byDefault === undefined ? [] : [byDefault])];
    if (all.length === 0) throw new EnvoyJsonError("it has no filter chain in which callers could be judged");
    const byRequests = http !== undefined && all.every((chain) => managerOf(chain) !== undefined);
    const protect = (chain: EnvoyFields): EnvoyFields =>
      replaced(
        byRequests && http !== undefined ? withRequestRules(chain, http) : withConnectionRules(chain, network),
        "transportSocket",
        new EncodedMessage(transportSocket),
      );
    const withChains = replaced(listener, "filterChains", chains.map(protect));
    // Consul leaves this one as it is (D-70).
    const protectedOne =
      byDefault === undefined ? withChains : replaced(withChains, "defaultFilterChain", protect(byDefault));
    return { ...this.#resource(LISTENER, protectedOne), byRequests };
  }

  #resource(type: string, fields: EnvoyFields): OwnResource {
    const name = fields["name"];
    if (typeof name !== "string" || name === "") throw new EnvoyJsonError("name: it has none");
    return { name, bytes: this.#json.readAny(fields, type), routes: type === LISTENER ? routesOf(fields) : [] };
  }
}

function withConnectionRules(chain: EnvoyFields, network: Uint8Array): EnvoyFields {
  const filters = listOf(member(chain, "filters"), "filters");
  return replaced(chain, "filters", [new EncodedMessage(network), ...filters]);
}

function withRequestRules(chain: EnvoyFields, http: Uint8Array): EnvoyFields {
  const manager = managerOf(chain);
  if (manager === undefined) throw new EnvoyJsonError("filters: there is no manager of HTTP connections");
  const { filter, config } = manager;
  const filters = listOf(member(config, "httpFilters"), "httpFilters");
  const judging = replaced(config, "httpFilters", [new EncodedMessage(http), ...filters]);
  return replaced(
    chain,
    "filters",
    listOf(member(chain, "filters"), "filters").map((each) =>
      each === filter ? replaced(filter, "typedConfig", judging) : each,
    ),
  );
}

/** The first filter of a chain that manages HTTP connections, by its name and its type. */
function managerOf(chain: EnvoyFields): { readonly filter: EnvoyFields; readonly config: EnvoyFields } | undefined {
  const found = listOf(member(chain, "filters"), "filters").find(
    (filter) => isObject(filter) && MANAGER_NAMES.has(filter["name"]),
  );
  if (!isObject(found)) return undefined;
  const config = member(found, "typedConfig");
  if (!isObject(config) || !String(config["@type"]).endsWith(`/${MANAGER}`)) return undefined;
  return { filter: found, config };
}

function routesOf(listener: EnvoyFields): readonly string[] {
  const chains = [...listOf(member(listener, "filterChains"), "filterChains"), member(listener, "defaultFilterChain")];
  return chains.flatMap((chain) => {
    const manager = isObject(chain) ? managerOf(chain) : undefined;
    const rds = manager && member(manager.config, "rds");
    const name = isObject(rds) ? member(rds, "routeConfigName") : undefined;
    return typeof name === "string" ? [name] : [];
  });
}

function read(text: string): EnvoyValue {
  try {
    return JSON.parse(text);
  } catch {
    // Errors of the parser show the text, which may hold keys.
    throw new EnvoyJsonError("it is no JSON");
  }
}

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** Under either of its names. */
function member(fields: EnvoyFields, name: string): EnvoyValue | undefined {
  const other = snakeCase(name);
  const [camel, snake] = [fields[name], fields[other]];
  if (other !== name && camel !== undefined && snake !== undefined)
    throw new EnvoyJsonError(`${name}: it is given twice`);
  return camel ?? snake ?? undefined;
}

function replaced(fields: EnvoyFields, name: string, value: EnvoyValue): EnvoyFields {
  const others = Object.entries(fields).filter(([key]) => key !== name && key !== snakeCase(name));
  return { ...Object.fromEntries(others), [name]: value };
}

function isObject(value: EnvoyValue | undefined): value is EnvoyFields {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof EncodedMessage);
}

function objectOf(value: EnvoyValue, what: string): EnvoyFields {
  if (!isObject(value)) throw new EnvoyJsonError(`${what}: an object is expected`);
  return value;
}

function listOf(value: EnvoyValue | undefined, what: string): readonly EnvoyValue[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new EnvoyJsonError(`${what}: a list is expected`);
  return value;
}
