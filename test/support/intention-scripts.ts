import type { Script, ScriptedRequest } from "./scripted.js";

const INTENTIONS = "/v1/connect/intentions";
const EXACT = `${INTENTIONS}/exact`;

function request(about: string, method: string, path: string, more: Partial<ScriptedRequest> = {}): ScriptedRequest {
  return { about, method, path, ...more };
}

function list(about: string, query = ""): ScriptedRequest {
  return request(about, "GET", `${INTENTIONS}${query}`);
}

function create(about: string, body: unknown, more: Partial<ScriptedRequest> = {}): ScriptedRequest {
  return request(about, "POST", INTENTIONS, { body, ...more });
}

function exact(method: string, source: string, destination: string, body?: unknown): ScriptedRequest {
  const query = `source=${encodeURIComponent(source)}&destination=${encodeURIComponent(destination)}`;
  return request(`exact ${method} from ${source} to ${destination}`, method, `${EXACT}?${query}`, {
    ...(body === undefined ? {} : { body }),
  });
}

function entry(about: string, body: object): ScriptedRequest {
  return request(about, "PUT", "/v1/config", { body: { Kind: "service-intentions", ...body } });
}

function readEntry(name: string): ScriptedRequest {
  return request(`the entry of ${name}`, "GET", `/v1/config/service-intentions/${name}`);
}

function match(query: string): ScriptedRequest {
  return request(`match ${query}`, "GET", `${INTENTIONS}/match?${query}`);
}

function check(query: string): ScriptedRequest {
  return request(`check ${query}`, "GET", `${INTENTIONS}/check?${query}`);
}

const allow = { SourceName: "web", DestinationName: "db", Action: "allow" };
const long = "x".repeat(513);

/** Everything that the endpoints of intentions do where everyone may do everything. */
export const intentionScript: Script = {
  name: "intentions",
  rights: false,
  requests: [
    list("nothing is there"),
    match("by=source&name=web"),
    match("by=destination&name=web&name=db"),
    request("head", "PATCH", INTENTIONS),
    request("no such method of exact", "POST", EXACT),
    request("no such method of one", "POST", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`),
    request("no such method of match", "POST", `${INTENTIONS}/match`),
    request("no such method of check", "PUT", `${INTENTIONS}/check`),

    // Created with an id.
    create("create", { ...allow, Description: "first", Meta: { team: "x" } }, { keep: "first" }),
    list("with its id"),
    request("one by its id", "GET", `${INTENTIONS}/{first}`),
    readEntry("db"),
    exact("GET", "web", "db"),
    create("the same once more", allow),
    create("another source", { SourceName: "api", DestinationName: "db", Action: "deny" }, { keep: "second" }),
    create("all services", { SourceName: "*", DestinationName: "db", Action: "deny", SourceType: "consul" }),
    create("with an id of its own", { ...allow, ID: "3d3b4f9e-0000-0000-0000-000000000001", SourceName: "q" }),
    create("of a peer", { ...allow, SourcePeer: "p", SourceName: "q" }),
    create("nothing", {}),
    create("no destination", { SourceName: "a", Action: "allow" }),
    create("no source", { DestinationName: "a", Action: "allow" }),
    create("no action", { SourceName: "a", DestinationName: "b" }),
    create("another action", { SourceName: "a", DestinationName: "b", Action: "maybe" }),
    create("partial wildcards", { SourceName: "a*", DestinationName: "*b", Action: "allow" }),
    create("another type", { ...allow, SourceName: "q", SourceType: "vm" }),
    create("a long description", { ...allow, SourceName: "q", Description: long }),
    create("a long value of its metadata", { ...allow, SourceName: "q", Meta: { a: long } }),
    create("a long key of its metadata", { ...allow, SourceName: "q", Meta: { ["k".repeat(129)]: "a" } }),
    create("much metadata", {
      ...allow,
      SourceName: "q",
      Meta: Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`k${index}`, "v"])),
    }),
    create("permissions", {
      SourceName: "q",
      DestinationName: "db",
      Permissions: [{ Action: "allow", HTTP: { PathPrefix: "/" } }],
    }),
    create("another namespace of the source", { ...allow, SourceName: "q", SourceNS: "team" }),
    create("another namespace of the destination", { ...allow, SourceName: "q", DestinationNS: "team" }),
    create("the default namespaces", { ...allow, SourceName: "n", SourceNS: "default", DestinationNS: "default" }),
    create("another partition of the source", { ...allow, SourceName: "q", SourcePartition: "p" }),
    create("another partition of the destination", { ...allow, SourceName: "q", DestinationPartition: "p" }),
    create("the default partitions", {
      ...allow,
      SourceName: "m",
      SourcePartition: "default",
      DestinationPartition: "default",
    }),
    create("no JSON", "{"),
    create("no body", ""),
    create("a list", "[]"),
    create("a wrong type", '{"SourceName": 5}'),
    create("an unknown field", { ...allow, SourceName: "u", Nope: 1 }),
    create("small letters", { sourcename: "v", destinationname: "db", action: "allow" }),
    request("a namespace in the query", "POST", `${INTENTIONS}?ns=team`, { body: allow }),
    request("a partition in the query", "POST", `${INTENTIONS}?partition=team`, { body: allow }),
    request("a namespace in a header", "POST", INTENTIONS, { body: allow, headers: { "X-Consul-Namespace": "t" } }),

    // Changed by its id.
    request("change", "PUT", `${INTENTIONS}/{first}`, {
      body: { ...allow, Action: "deny", Description: "changed", Meta: { team: "y" } },
    }),
    request("one by its id, changed", "GET", `${INTENTIONS}/{first}`),
    request("change the source", "PUT", `${INTENTIONS}/{first}`, { body: { ...allow, SourceName: "web2" } }),
    request("change the source to another's", "PUT", `${INTENTIONS}/{first}`, {
      body: { ...allow, SourceName: "api" },
    }),
    request("change the destination", "PUT", `${INTENTIONS}/{first}`, { body: { ...allow, DestinationName: "x" } }),
    request("change to nothing", "PUT", `${INTENTIONS}/{first}`, { body: {} }),
    request("change without a source", "PUT", `${INTENTIONS}/{first}`, {
      body: { DestinationName: "db", Action: "allow" },
    }),
    request("change with no JSON", "PUT", `${INTENTIONS}/{first}`, { body: "{" }),
    request("change with an id in the body", "PUT", `${INTENTIONS}/{first}`, { body: { ...allow, ID: "other" } }),
    request("change what is not there", "PUT", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`, { body: allow }),
    request("change with a bad id", "PUT", `${INTENTIONS}/nope`, { body: allow }),
    request("read what is not there", "GET", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`),
    request("read with a bad id", "GET", `${INTENTIONS}/nope`),
    request("read with a bad id as long as one", "GET", `${INTENTIONS}/zd3b4f9e-0000-0000-0000-000000000000`),
    request("read with an empty id", "GET", `${INTENTIONS}/`),
    request("delete what is not there", "DELETE", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`),
    request("delete with a bad id", "DELETE", `${INTENTIONS}/nope`),
    request("delete", "DELETE", `${INTENTIONS}/{second}`),
    request("delete once more", "DELETE", `${INTENTIONS}/{second}`),
    list("what is left"),
    readEntry("db"),

    // As config entries.
    entry("an entry over those with ids", {
      Name: "db",
      Sources: [
        { Name: "web", Action: "allow", LegacyID: "{first}" },
        { Name: "m", Action: "deny" },
      ],
    }),
    list("ids are gone"),
    request("one by its id, gone", "GET", `${INTENTIONS}/{first}`),
    create("create beside an entry", { ...allow, SourceName: "late" }),
    entry("with metadata of an older form", {
      Name: "db",
      Sources: [{ Name: "web", Action: "allow", LegacyMeta: { a: "b" } }],
    }),
    entry("with times of an older form", {
      Name: "db",
      Sources: [{ Name: "web", Action: "allow", LegacyCreateTime: "2020-01-01T00:00:00Z" }],
    }),
    readEntry("db"),
    entry("sources of a peer and of here", {
      Name: "shop",
      Meta: { team: "shop" },
      Sources: [
        { Name: "*", Action: "deny", Peer: "west" },
        { Name: "web", Action: "allow", Peer: "west", Description: "from afar" },
        { Name: "mob", Action: "deny" },
        { Name: "*", Action: "allow" },
      ],
    }),
    entry("for all services", {
      Name: "*",
      Sources: [
        { Name: "*", Action: "deny" },
        { Name: "web", Action: "allow" },
      ],
    }),
    list("with all of them"),
    exact("GET", "peer:west/web", "shop"),
    exact("GET", "peer:west/default/web", "shop"),
    exact("GET", "web", "shop"),
    exact("GET", "default/mob", "default/shop"),
    exact("GET", "peer:east/web", "shop"),
    exact("GET", "nobody", "shop"),
    exact("GET", "web", "nothing"),
    exact("GET", "*", "*"),
    exact("GET", "team/web", "shop"),
    exact("GET", "default/default/mob", "shop"),
    exact("GET", "team/default/mob", "shop"),
    exact("GET", "a/b/c/d", "shop"),
    exact("GET", "", "shop"),
    exact("GET", "web", ""),
    exact("GET", "peer:west", "shop"),
    exact("GET", "web", "peer:west/shop"),
    request("exact without a source", "GET", `${EXACT}?destination=shop`),
    request("exact without a destination", "GET", `${EXACT}?source=web`),
    request("exact with two sources", "GET", `${EXACT}?source=web&source=a&destination=shop`),

    // Written by source and destination.
    exact("PUT", "mob", "shop", { Action: "allow", Description: "now by name" }),
    exact("GET", "mob", "shop"),
    readEntry("shop"),
    exact("PUT", "late", "shop", { Action: "deny", Meta: { team: "shop" } }),
    exact("PUT", "late", "shop", { Action: "deny", Meta: { team: "other" } }),
    exact("PUT", "first", "fresh", { Action: "deny", Meta: { team: "other" } }),
    exact("PUT", "first", "fresh", { Action: "allow" }),
    exact("PUT", "first", "fresh", { Action: "deny", SourceName: "ignored", DestinationName: "ignored", ID: "x" }),
    exact("PUT", "first", "fresh", { Action: "deny", Precedence: 3, SourceNS: "ignored", CreatedAt: "nonsense" }),
    exact("GET", "first", "fresh"),
    exact("PUT", "first", "fresh", { Permissions: [{ Action: "allow", HTTP: { PathPrefix: "/" } }] }),
    exact("PUT", "first", "fresh", {}),
    exact("PUT", "first", "fresh", { Action: "maybe" }),
    exact("PUT", "first", "fresh", "{"),
    exact("PUT", "first", "fresh", ""),
    exact("PUT", "first", "fresh", '{"Action": 5}'),
    exact("PUT", "a*", "fresh", { Action: "allow" }),
    exact("PUT", "a", "f*", { Action: "allow" }),
    exact("PUT", "peer:west/a", "fresh", { Action: "allow" }),
    exact("PUT", "a", "fresh", { Action: "allow", SourcePeer: "west" }),
    exact("PUT", "", "fresh", { Action: "allow" }),
    exact("PUT", "a", "", { Action: "allow" }),
    exact("PUT", "a", "fresh", { Action: "allow", SourceType: "vm" }),
    exact("PUT", "a", "fresh", { Action: "allow", Description: long }),
    request("protocol of one that is looked into", "PUT", "/v1/config", {
      body: { Kind: "service-defaults", Name: "http", Protocol: "http" },
    }),
    exact("PUT", "first", "http", {
      Permissions: [
        { Action: "deny", HTTP: { PathPrefix: "/admin", Methods: ["get"] } },
        { Action: "allow", HTTP: { PathExact: "/", Header: [{ Name: "x", Present: true, Invert: true }] } },
      ],
    }),
    exact("GET", "first", "http"),
    exact("PUT", "first", "http", { Action: "allow", Permissions: [{ Action: "allow", HTTP: { PathPrefix: "/" } }] }),
    exact("PUT", "first", "http", { Permissions: [{ Action: "allow" }] }),
    exact("PUT", "*", "*", { Permissions: [{ Action: "allow", HTTP: { PathPrefix: "/" } }] }),
    exact("PUT", "*", "*", { Action: "allow" }),

    // Asked.
    match("by=source&name=web"),
    match("by=destination&name=shop"),
    match("by=destination&name=shop&name=fresh&name=nothing"),
    match("by=destination&name=*"),
    match("by=source&name=*"),
    match("by=source&name=default/web"),
    match("by=source&name=team/web"),
    match("by=source&name=peer:west/web"),
    match("by=source&name=default/default/web"),
    match("by=source&name=team/default/web"),
    match("by=source&name=a/b/c/d"),
    match("by=both&name=web"),
    match("by=source"),
    match("name=web"),
    match("by=source&by=destination&name=web"),
    match("by=source&name="),
    check("source=mob&destination=shop"),
    check("source=other&destination=shop"),
    check("source=first&destination=http"),
    check("source=web&destination=nothing"),
    check("source=default/web&destination=default/shop"),
    check("source=team/web&destination=shop"),
    check("source=web&destination=team/shop"),
    check("source=peer:west/web&destination=shop"),
    check("source=web"),
    check("destination=shop"),
    check("source=&destination=shop"),
    check("source=web&destination="),
    check("source=mob&destination=shop&source-type=consul"),
    check("source=mob&destination=shop&source-type=vm"),
    check("source=*&destination=shop"),
    list("of a peer", "?filter=SourcePeer%3D%3Dwest"),
    list("with metadata", "?filter=Meta.team%3D%3Dshop"),
    list("by precedence", "?filter=Precedence%3D%3D9"),
    list("with a bad filter", "?filter=Nope%3D%3D1"),
    list("in a namespace", "?ns=team"),
    list("in all namespaces", "?ns=*"),
    list("in a partition", "?partition=team"),
    request("one in a namespace", "GET", `${EXACT}?source=web&destination=shop&ns=team`),
    request("match in a namespace", "GET", `${INTENTIONS}/match?by=source&name=web&ns=team`),
    request("check in a namespace", "GET", `${INTENTIONS}/check?source=web&destination=shop&ns=team`),
    list("consistent and stale", "?consistent&stale"),

    // Deleted by source and destination.
    exact("DELETE", "late", "shop"),
    exact("DELETE", "late", "shop"),
    exact("DELETE", "web", "nothing"),
    exact("DELETE", "peer:west/web", "shop"),
    exact("DELETE", "", "shop"),
    exact("DELETE", "first", "fresh"),
    readEntry("fresh"),
    exact("DELETE", "web", "db"),
    readEntry("db"),
    list("what is left at the end"),

    // With ids again, where the entries are gone.
    request("delete the entry", "DELETE", "/v1/config/service-intentions/db"),
    create("create again", allow, { keep: "third" }),
    exact("PUT", "web", "db", { Action: "deny" }),
    readEntry("db"),
    request("change by id after a write by name", "PUT", `${INTENTIONS}/{third}`, { body: allow }),
    request("delete by id after a write by name", "DELETE", `${INTENTIONS}/{third}`),
    exact("DELETE", "web", "db"),
    create("create once more", allow, { keep: "fourth" }),
    create("beside it", { ...allow, SourceName: "api", Meta: { a: "b" } }),
    exact("DELETE", "web", "db"),
    readEntry("db"),
    request("delete the entry once more", "DELETE", "/v1/config/service-intentions/db"),
    create("the last one", { ...allow, DestinationName: "gone" }, { keep: "fifth" }),
    request("delete the last one of an entry", "DELETE", `${INTENTIONS}/{fifth}`),
    readEntry("gone"),

    // Where Consul confuses one with another.
    entry("a source of a peer and one of here, of one name", {
      Name: "two",
      Sources: [
        { Name: "web", Action: "allow", Peer: "west" },
        { Name: "web", Action: "deny" },
      ],
    }),
    match("by=source&name=web"),
    exact("PUT", "web", "two", { Action: "allow" }),
    entry("the one of the peer alone", { Name: "two", Sources: [{ Name: "web", Action: "allow", Peer: "west" }] }),
    match("by=source&name=web"),
    exact("PUT", "team/web", "elsewhere", { Action: "allow" }),
    exact("PUT", "web", "team/elsewhere", { Action: "allow" }),
    exact("PUT", "team/default/web", "elsewhere", { Action: "allow" }),
    exact("DELETE", "team/web", "elsewhere"),
    exact("DELETE", "web", "two"),
    readEntry("two"),
  ],
};

const READ_DB = 'service "db" { policy = "read" }';
const WRITE_DB = 'service "db" { policy = "write" }';
const INTENTIONS_DB = 'service "db" { policy = "read" intentions = "write" }';
const DENIED_DB = 'service "db" { policy = "write" intentions = "deny" }';
const READ_WEB = 'service "web" { policy = "read" intentions = "read" }';
const READ_ALL = 'service_prefix "" { policy = "read" intentions = "read" }';
const WRITE_ALL = 'service_prefix "" { policy = "write" intentions = "write" }';

/** Who may what, for each of these tokens: on an intention of `db`, one of `other`, and one of all services. */
export const intentionRightsScript: Script = {
  name: "intention-rights",
  rights: true,
  requests: [
    create("of db", allow, { keep: "db" }),
    exact("PUT", "web", "other", { Action: "allow" }),
    exact("PUT", "web", "*", { Action: "deny" }),
    ...["", READ_DB, WRITE_DB, INTENTIONS_DB, DENIED_DB, READ_WEB, READ_ALL, WRITE_ALL].flatMap((rules) =>
      [
        list("list"),
        request("one by its id", "GET", `${INTENTIONS}/{db}`),
        request("what is not there", "GET", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`),
        exact("GET", "web", "db"),
        exact("GET", "web", "other"),
        exact("GET", "web", "*"),
        exact("GET", "web", "nothing"),
        match("by=source&name=web"),
        match("by=destination&name=db"),
        match("by=destination&name=other"),
        match("by=destination&name=*"),
        match("by=destination&name=db&name=other"),
        check("source=web&destination=db"),
        check("source=web&destination=other"),
        check("source=web&destination=*"),
        check("source=none&destination=db"),
        create("create for db", { ...allow, SourceName: "web" }),
        create("create for other", { ...allow, DestinationName: "other" }),
        create("create for all", { ...allow, SourceName: "x", DestinationName: "*" }),
        create("create for nothing", {}),
        request("change by id", "PUT", `${INTENTIONS}/{db}`, { body: allow }),
        request("change to another", "PUT", `${INTENTIONS}/{db}`, { body: { ...allow, DestinationName: "other" } }),
        request("change what is not there", "PUT", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`, {
          body: allow,
        }),
        request("delete what is not there", "DELETE", `${INTENTIONS}/3d3b4f9e-0000-0000-0000-000000000000`),
        exact("PUT", "web", "other", { Action: "deny" }),
        exact("PUT", "web", "*", { Action: "deny" }),
        exact("DELETE", "nobody", "db"),
        exact("DELETE", "nobody", "other"),
        exact("DELETE", "nobody", "*"),
      ].map((each) => ({ ...each, about: `${rules === "" ? "nobody" : rules}: ${each.about}`, rules })),
    ),
    request("delete by id without the right", "DELETE", `${INTENTIONS}/{db}`, { rules: READ_ALL }),
    request("delete by id with the right", "DELETE", `${INTENTIONS}/{db}`, { rules: INTENTIONS_DB }),
  ],
};
