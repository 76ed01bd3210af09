import { compareUtf8 } from "../base/byte-order.js";
import { type EntryReader, invalidEntry, listProblems, present, refuseEnterprise } from "../model/entry-reader.js";
import type { StringMap } from "../model/instance.js";

export type IntentionAction = "allow" | "deny";

/** A header that a request must have; one of the six ways to look at it, and never several. */
export interface IntentionHeader {
  readonly name: string;
  readonly present?: boolean;
  readonly exact?: string;
  readonly prefix?: string;
  readonly suffix?: string;
  readonly contains?: string;
  readonly regex?: string;
  readonly invert?: boolean;
  readonly ignoreCase?: boolean;
}

/** Conditions on a request; of the three forms of a path one at most. */
export interface IntentionHttp {
  readonly pathExact?: string;
  readonly pathPrefix?: string;
  readonly pathRegex?: string;
  readonly header?: readonly IntentionHeader[];
  /** In capitals. */
  readonly methods?: readonly string[];
}

/** A claim that a token must hold. */
export interface IntentionClaim {
  /** Names, one below the other. */
  readonly path?: readonly string[];
  readonly value?: string;
}

/** Whose tokens a request may bring: each provider is the name of an entry of kind `jwt-provider`. */
export interface IntentionJwt {
  readonly providers?: readonly { readonly name: string; readonly verifyClaims?: readonly IntentionClaim[] }[];
}

/** The decision on requests of one form. */
export interface IntentionPermission {
  readonly action: IntentionAction;
  readonly http: IntentionHttp;
  readonly jwt?: IntentionJwt;
}

/** The callers of the service that the entry is named after. Each has an action or permissions, and never both. */
export interface IntentionSource {
  /** A service, or `*` for every one; of another cluster where `peer` is given. */
  readonly name: string;
  /** Our name of a peering, compared byte for byte. A source without it speaks of local services alone. */
  readonly peer?: string;
  readonly action?: IntentionAction;
  /** For services of an HTTP-like protocol, in the order in which they are tried. */
  readonly permissions?: readonly IntentionPermission[];
  /**
   * The higher one decides: 9 from name to name, 8 from `*`, 6 to `*`, 5 from `*` to `*`. Computed; a given value is not
   * looked at.
   */
  readonly precedence?: number;
  /** At most 512 bytes. */
  readonly description?: string;
  /** Set by a write of the older form, which gives an id to each intention. The next write of another form takes it away. */
  readonly legacyID?: string;
  /** Metadata of an intention with an id, which has none of its entry's. */
  readonly legacyMeta?: StringMap;
  /** When an intention with an id was written first, and last: RFC 3339. */
  readonly legacyCreateTime?: string;
  readonly legacyUpdateTime?: string;
}

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
const DESCRIPTION_BYTES = 512;

/** A source as it was read: its content is judged once no unknown key was found in the whole entry. */
interface ReadSource {
  readonly name: string;
  readonly peer: string;
  readonly partition: string;
  readonly samenessGroup: string;
  readonly action: string;
  readonly type: string;
  readonly description: string;
  readonly permissions: readonly ReadPermission[] | undefined;
  readonly legacy: Required<Pick<IntentionSource, "legacyID" | "legacyMeta" | "legacyCreateTime" | "legacyUpdateTime">>;
  readonly reader: EntryReader;
}

/** With its place in texts, which speak of fields as Consul spells them. */
type PlacedSource = ReadSource & { readonly at: string };

interface ReadPermission {
  readonly action: string;
  readonly http: (IntentionHttp & { readonly header: readonly IntentionHeader[] }) | undefined;
  readonly jwt: IntentionJwt | undefined;
}

/** Reads the sources of an entry. Their content is for {@link checkedIntentions}. */
export function readIntentions(entry: EntryReader): {
  readonly sources: readonly ReadSource[];
  readonly jwt: IntentionJwt | undefined;
} {
  const sources = entry.list("sources").map((source): ReadSource => {
    const permissions = source.list("permissions").map(readPermission);
    const read = {
      name: source.text("name"),
      peer: source.text("peer"),
      partition: source.text("partition"),
      samenessGroup: source.text("samenessGroup"),
      action: source.text("action"),
      type: source.text("type"),
      description: source.text("description"),
      permissions: permissions.length === 0 ? undefined : permissions,
      legacy: {
        legacyID: source.text("legacyID"),
        legacyMeta: source.textMap("legacyMeta"),
        legacyCreateTime: source.text("legacyCreateTime"),
        legacyUpdateTime: source.text("legacyUpdateTime"),
      },
      reader: source,
    };
    source.number("precedence");
    source.end();
    return read;
  });
  return { sources, jwt: readJwt(entry) };
}

function readPermission(permission: EntryReader): ReadPermission {
  const source = permission.object("http");
  const http = source && {
    pathExact: source.text("pathExact"),
    pathPrefix: source.text("pathPrefix"),
    pathRegex: source.text("pathRegex"),
    header: source.list("header").map(readHeader),
    methods: source.texts("methods").map((method) => method.toUpperCase()),
  };
  source?.end();
  const read = { action: permission.text("action"), http, jwt: readJwt(permission) };
  permission.end();
  return read;
}

function readHeader(header: EntryReader): IntentionHeader {
  const name = header.text("name");
  const rest = {
    present: header.flag("present"),
    exact: header.text("exact"),
    prefix: header.text("prefix"),
    suffix: header.text("suffix"),
    contains: header.text("contains"),
    regex: header.text("regex"),
    invert: header.flag("invert"),
    ignoreCase: header.flag("ignoreCase"),
  };
  header.end();
  return { name, ...present(rest) };
}

function readJwt(source: EntryReader): IntentionJwt | undefined {
  const jwt = source.object("jwt");
  if (jwt === undefined) return undefined;
  const providers = jwt.list("providers").map((provider) => {
    const verifyClaims = provider.list("verifyClaims").map((claim) => {
      const read = { path: claim.texts("path"), value: claim.text("value") };
      claim.end();
      return present(read);
    });
    const name = provider.text("name");
    provider.end();
    return { name, ...present({ verifyClaims }) };
  });
  jwt.end();
  return present({ providers });
}

/** Names of the JWT providers that are referred to. */
export function jwtProviders(entry: {
  readonly jwt?: IntentionJwt | undefined;
  readonly sources: readonly IntentionSource[];
}): ReadonlySet<string> {
  const permissions = entry.sources.flatMap((source) => source.permissions ?? []);
  return new Set([entry, ...permissions].flatMap(({ jwt }) => (jwt?.providers ?? []).map(({ name }) => name)));
}

function checkJwt(jwt: IntentionJwt | undefined): void {
  const nameless = (jwt?.providers ?? []).filter(({ name }) => name === "");
  if (nameless.length > 0) throw invalidEntry(listProblems(nameless.map(() => "JWT provider name is required")));
}

/**
 * The sources in the order of their precedence, with Consul's texts for their faults (1.21).
 * @param destination - the name of the entry.
 * @throws {PeeringError} `invalid-entry`.
 */
export function checkedIntentions(
  destination: string,
  { sources, jwt }: ReturnType<typeof readIntentions>,
): readonly IntentionSource[] {
  checkName("Name", destination);
  checkJwt(jwt);
  if (sources.length === 0) throw invalidEntry("At least one source is required");
  const seen = new Set<string>();
  // They are judged in the order in which they are kept, and named by their place in it.
  const inOrder = sources.toSorted((a, b) => precedenceOf(b.name, destination) - precedenceOf(a.name, destination));
  return inOrder.map((given, index): IntentionSource => {
    const at = `Sources[${index}]`;
    const source = { ...given, at };
    const { name, peer } = source;
    if (name === "") throw invalidEntry(`${at}.Name is required`);
    checkName(`${at}.Name`, name);
    checkPeer(source);
    if (Buffer.byteLength(source.description) > DESCRIPTION_BYTES) {
      throw invalidEntry(`${at}.Description exceeds maximum length ${DESCRIPTION_BYTES}`);
    }
    checkLegacy(source);
    const decision = checkedDecision(destination, source);
    const shown = peer === "" ? JSON.stringify(name) : `peer(${JSON.stringify(peer)}) ${JSON.stringify(name)}`;
    if (seen.has(shown)) throw invalidEntry(`${at} defines ${shown} more than once`);
    seen.add(shown);
    return {
      name,
      ...decision,
      precedence: precedenceOf(name, destination),
      ...present({ peer, description: source.description, ...source.legacy }),
    };
  });
}

function checkName(at: string, name: string): void {
  if (name !== "*" && name.includes("*")) {
    throw invalidEntry(`${at}: wildcard character '*' cannot be used with partial values`);
  }
}

function checkPeer({ at, peer, partition, samenessGroup, reader }: PlacedSource): void {
  if (peer.includes("*")) throw invalidEntry(`${at}.Peer: cannot use wildcard '*' in peer`);
  if (peer !== "" && partition !== "") {
    throw invalidEntry(`${at}.Peer: cannot set Peer and Partition at the same time.`);
  }
  if (samenessGroup !== "") {
    // With a blank at the end, as in Consul.
    throw invalidEntry(`${at}.SamenessGroup: Sameness groups are a Consul Enterprise feature. `);
  }
  refuseEnterprise(reader);
}

/** Metadata and times belong to an id. */
function checkLegacy({ at, legacy: { legacyID, legacyMeta, legacyCreateTime, legacyUpdateTime } }: PlacedSource): void {
  if (legacyID !== "") return;
  if (Object.keys(legacyMeta).length > 0) throw invalidEntry(`${at}.LegacyMeta must be omitted`);
  if (legacyCreateTime !== "") throw invalidEntry(`${at}.LegacyCreateTime must be omitted`);
  if (legacyUpdateTime !== "") throw invalidEntry(`${at}.LegacyUpdateTime must be omitted`);
}

function checkedDecision(destination: string, source: PlacedSource): Partial<IntentionSource> {
  const { at, action, permissions, type } = source;
  const whole = permissions === undefined ? { action: checkedAction(at, action) } : {};
  if (permissions !== undefined && action !== "") {
    throw invalidEntry(`${at}.Action must be omitted if Permissions are specified`);
  }
  if (permissions !== undefined && destination === "*") {
    throw invalidEntry(`${at}.Permissions cannot be specified on intentions with wildcarded destinations`);
  }
  if (type !== "" && type !== "consul") throw invalidEntry(`${at}.Type must be set to 'consul'`);
  if (permissions === undefined) return whole;
  return {
    permissions: permissions.map((permission, index): IntentionPermission => {
      const place = `${at}.Permissions[${index}]`;
      const { jwt } = permission;
      const decided = checkedAction(place, permission.action);
      const http = checkedHttp(`${place}.HTTP`, permission.http);
      checkJwt(jwt);
      return { action: decided, http, ...(jwt && { jwt }) };
    }),
  };
}

function checkedAction(at: string, action: string): IntentionAction {
  if (action !== "allow" && action !== "deny") throw invalidEntry(`${at}.Action must be set to 'allow' or 'deny'`);
  return action;
}

function checkedHttp(at: string, http: ReadPermission["http"]): IntentionHttp {
  if (http === undefined) throw invalidEntry(`${at} is required`);
  const { header, methods = [], pathExact, pathPrefix, pathRegex } = http;
  const paths = [pathExact, pathPrefix, pathRegex].filter((path) => path !== "");
  if (paths.length > 1) {
    throw invalidEntry(`${at} should only contain at most one of PathExact, PathPrefix, or PathRegex`);
  }
  for (const [field, path] of Object.entries({ PathExact: pathExact, PathPrefix: pathPrefix })) {
    if (path !== undefined && path !== "" && !path.startsWith("/")) {
      throw invalidEntry(`${at}.${field} doesn't start with '/': ${JSON.stringify(path)}`);
    }
  }
  for (const [
    index,
    { name, present: there, exact, prefix, suffix, contains, regex, ignoreCase },
  ] of header.entries()) {
    const place = `${at}.Header[${index}]`;
    if (name === "") throw invalidEntry(`${place} missing required Name field`);
    if ([there, exact, prefix, suffix, contains, regex].filter((way) => way !== undefined).length !== 1) {
      throw invalidEntry(`${place} should only contain one of Present, Exact, Prefix, Suffix, Contains, or Regex`);
    }
    if (ignoreCase === true && (there !== undefined || regex !== undefined)) {
      throw invalidEntry(`${place} should set one of Exact, Prefix, Suffix, or Contains when using IgnoreCase`);
    }
  }
  const seen = new Set<string>();
  for (const method of methods) {
    if (!METHODS.includes(method)) throw invalidEntry(`${at}.Methods contains an invalid method "${method}"`);
    if (seen.has(method)) throw invalidEntry(`${at}.Methods contains "${method}" more than once`);
    seen.add(method);
  }
  if (paths.length + header.length + methods.length === 0) throw invalidEntry(`${at} should not be empty`);
  return present(http);
}

function precedenceOf(source: string, destination: string): number {
  if (destination === "*") return source === "*" ? 5 : 6;
  return source === "*" ? 8 : 9;
}

/** A call from one service to another. */
export interface IntendedCall {
  readonly source: string;
  /** Our name of the peering that the caller belongs to; `""` for a local one. */
  readonly peer: string;
  readonly destination: string;
}

/**
 * The source that decides about a call: of all that match, the first one by precedence; undefined when none does, and the
 * default decides. A `*` without a peer covers local callers alone, one with a peer that peer's.
 * @param intentions - gives the sources of a destination, or of `*`.
 */
export function intentionFor(
  { source, peer, destination }: IntendedCall,
  intentions: (destination: string) => readonly IntentionSource[],
): IntentionSource | undefined {
  const matches = (candidate: IntentionSource): boolean =>
    (candidate.peer ?? "") === peer && (candidate.name === source || candidate.name === "*");
  // Whatever names the destination goes before whatever is for all of them.
  return intentions(destination).find(matches) ?? intentions("*").find(matches);
}

/** One source of one destination. */
export interface Intention {
  readonly destination: string;
  readonly source: IntentionSource;
}

/** The order in which intentions are looked at: by precedence, then by the names of both ends. */
export function compareIntentions(left: Intention, right: Intention): number {
  return (
    (right.source.precedence ?? 0) - (left.source.precedence ?? 0) ||
    compareUtf8(left.source.peer ?? "", right.source.peer ?? "") ||
    compareUtf8(left.source.name, right.source.name) ||
    compareUtf8(left.destination, right.destination)
  );
}
