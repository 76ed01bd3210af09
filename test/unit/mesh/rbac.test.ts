import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, type JsonValue, toJson } from "@bufbuild/protobuf";
import fc from "fast-check";
import { IntentionRules } from "../../../src/config/intention-rules.js";
import { compareIntentions, type IntentionSource } from "../../../src/config/intentions.js";
import { type RbacInput, rbacRules } from "../../../src/mesh/xds/rbac.js";
import { RBACSchema } from "../../../src/wire/envoy.js";
import { at } from "../../support/mesh-view.js";

// The decisions that Envoy would make by the rules, for callers and requests.

interface Asked {
  /** URI in the certificate of the connection. */
  readonly uri: string;
  readonly path?: string;
  readonly method?: string;
  readonly xfcc?: string;
}

function textHolds(matcher: JsonValue | undefined, text: string): boolean {
  const ignoresCase = at(matcher, "ignoreCase") === true;
  const folded = (value: string): string => (ignoresCase ? value.toLowerCase() : value);
  for (const [kind, value] of Object.entries((matcher ?? {}) as Record<string, JsonValue>)) {
    if (kind === "exact") return folded(text) === folded(String(value));
    if (kind === "prefix") return folded(text).startsWith(folded(String(value)));
    if (kind === "suffix") return folded(text).endsWith(folded(String(value)));
    if (kind === "contains") return folded(text).includes(folded(String(value)));
    if (kind === "safeRegex") return new RegExp(`^(?:${String(at(value, "regex"))})$`).test(text);
  }
  throw new Error(`no matcher: ${JSON.stringify(matcher)}`);
}

function headerHolds(matcher: JsonValue | undefined, asked: Asked): boolean {
  const name = at(matcher, "name");
  const value =
    name === ":method" ? (asked.method ?? "GET") : name === "x-forwarded-client-cert" ? asked.xfcc : undefined;
  const string = at(matcher, "stringMatch");
  const holds = string === undefined ? value !== undefined : value !== undefined && textHolds(string, value);
  return at(matcher, "invertMatch") === true ? !holds : holds;
}

/** A principal or a permission. */
function holds(rule: JsonValue | undefined, asked: Asked): boolean {
  const [[kind, value] = ["", undefined]] = Object.entries((rule ?? {}) as Record<string, JsonValue>);
  const parts = (name: string): readonly JsonValue[] => (at(value, name) as readonly JsonValue[] | undefined) ?? [];
  switch (kind) {
    case "any":
      return true;
    case "andIds":
      return parts("ids").every((one) => holds(one, asked));
    case "andRules":
      return parts("rules").every((one) => holds(one, asked));
    case "orRules":
      return parts("rules").some((one) => holds(one, asked));
    case "notId":
    case "notRule":
      return !holds(value, asked);
    case "authenticated":
      return textHolds(at(value, "principalName"), asked.uri);
    case "header":
      return headerHolds(value, asked);
    case "urlPath":
      return textHolds(at(value, "path"), asked.path ?? "/");
    default:
      throw new Error(`unknown rule: ${kind}`);
  }
}

function allows(rules: JsonValue, asked: Asked): boolean {
  const policies = Object.values((at(rules, "policies") ?? {}) as Record<string, JsonValue>);
  const fits = policies.some((policy) => {
    const some = (name: string): boolean =>
      ((at(policy, name) ?? []) as readonly JsonValue[]).some((one) => holds(one, asked));
    return some("permissions") && some("principals");
  });
  return at(rules, "action") === "DENY" ? !fits : fits;
}

const PEER = { trustDomain: "peer1.domain", peerName: "peer1", rootPems: [], exportedPartition: "part1" };

function rules(sources: readonly IntentionSource[], more: Partial<RbacInput> = {}): JsonValue {
  const intentions = sources.map((source) => ({
    destination: "web",
    source: { precedence: source.name === "*" ? 8 : 9, ...source },
  }));
  const input: RbacInput = {
    intentions: intentions.sort(compareIntentions),
    allowsByDefault: false,
    trustDomain: "test.consul",
    bundles: [PEER],
    http: false,
    asksForTokens: new Set(),
    ...more,
  };
  return toJson(RBACSchema, create(RBACSchema, rbacRules(input)));
}

const local = (service: string): string => `spiffe://test.consul/ns/default/dc/dc1/svc/${service}`;
const remote = (service: string): string => `spiffe://peer1.domain/ap/part1/ns/default/dc/dc2/svc/${service}`;
const GATEWAY = "spiffe://test.consul/gateway/mesh/dc/dc1";
const through = (uri: string, more: Partial<Asked> = {}): Asked => ({
  uri: GATEWAY,
  xfcc: `By=${GATEWAY};Hash=1;Cert="a";Chain="b";Subject="";URI=${uri},By=${local("web")};Hash=2;Cert="c";Chain="d";Subject="";URI=${GATEWAY}`,
  ...more,
});

const mixed: readonly IntentionSource[] = [
  { name: "web", action: "allow" },
  { name: "*", peer: "peer1", action: "allow" },
  { name: "web", peer: "peer1", action: "deny" },
];

describe("rules of connections", () => {
  it("allow whom intentions allow, by trust domain and partition, with exceptions", () => {
    const made = rules(mixed);
    assert.equal(allows(made, { uri: local("web") }), true);
    assert.equal(allows(made, { uri: local("db") }), false);
    assert.equal(allows(made, { uri: remote("db") }), true);
    assert.equal(allows(made, { uri: remote("web") }), false);
    assert.equal(allows(made, { uri: "spiffe://peer1.domain/ns/default/dc/dc2/svc/db" }), false);
  });

  it("allow nobody without intentions, and everyone where that is the default", () => {
    assert.equal(allows(rules([]), { uri: local("web") }), false);
    assert.equal(allows(rules([], { allowsByDefault: true }), { uri: local("web") }), true);
    assert.deepEqual(rules([], { allowsByDefault: true }), { action: "DENY" });
  });

  it("say nothing of a peer without a bundle, and nothing of peers by a local wildcard", () => {
    const sources: readonly IntentionSource[] = [
      { name: "*", action: "deny" },
      { name: "db", peer: "other", action: "allow" },
      { name: "db", peer: "peer1", action: "allow" },
    ];
    const made = rules(sources);
    assert.equal(allows(made, { uri: remote("db") }), true);
    assert.equal(allows(made, { uri: "spiffe://other.domain/ns/default/dc/dc2/svc/db" }), false);
    const denying = rules([{ name: "*", action: "deny" }], { allowsByDefault: true });
    assert.equal(allows(denying, { uri: remote("db") }), true);
    assert.equal(allows(denying, { uri: local("db") }), false);
  });

  it("take a name for nothing but itself", () => {
    const made = rules([{ name: "a.b", action: "allow" }]);
    assert.equal(allows(made, { uri: local("a.b") }), true);
    assert.equal(allows(made, { uri: local("axb") }), false);
    assert.equal(allows(made, { uri: local("a.b").replace("test.consul", "testxconsul") }), false);
  });

  it("deny callers that are let in for some requests only, where requests are not looked at", () => {
    const made = rules([{ name: "web", permissions: [{ action: "allow", http: { pathPrefix: "/" } }] }]);
    assert.equal(allows(made, { uri: local("web") }), false);
  });
});

/** As an entry has it. */
const precedences = (destination: string, sources: readonly IntentionSource[]): readonly IntentionSource[] =>
  sources
    .map((source) => ({ ...source, precedence: (destination === "*" ? 6 : 9) - (source.name === "*" ? 1 : 0) }))
    .sort((left, right) => right.precedence - left.precedence);

const permission = fc.record({
  action: fc.constantFrom("allow" as const, "deny" as const),
  http: fc.record(
    {
      pathPrefix: fc.constantFrom("/", "/a", "/b"),
      methods: fc.constantFrom<("GET" | "PUT")[][]>(["GET"], ["GET", "PUT"]),
    },
    { requiredKeys: ["pathPrefix"] },
  ),
});
const decision = fc.oneof(
  fc.constantFrom("allow" as const, "deny" as const).map((action) => ({ action })),
  fc.array(permission, { minLength: 1, maxLength: 3 }).map((permissions) => ({ permissions })),
);
const entry = fc
  .array(fc.record({ name: fc.constantFrom("a", "b", "*"), peer: fc.constantFrom("", "peer1"), decision }), {
    maxLength: 5,
  })
  .map((sources) => {
    const unique = new Map(sources.map((source) => [`${source.peer} ${source.name}`, source]));
    return Array.from(
      unique.values(),
      ({ name, peer, decision: decided }): IntentionSource => ({
        name,
        ...(peer !== "" && { peer }),
        ...decided,
      }),
    );
  });

describe("rules for Envoy", () => {
  it("decide as the intentions themselves do, whichever there are", () => {
    let allowed = 0;
    let denied = 0;
    const cases = fc.record({ own: entry, every: entry, http: fc.boolean(), allowsByDefault: fc.boolean() });
    fc.assert(
      fc.property(cases, ({ own, every, http, allowsByDefault }) => {
        const entries: Readonly<Record<string, readonly IntentionSource[]>> = {
          web: precedences("web", own),
          "*": precedences("*", every),
        };
        const intended = new IntentionRules((destination) => ({ sources: entries[destination] ?? [] }), {
          byDefault: allowsByDefault ? "allow" : "deny",
        });
        const intentions = Object.entries(entries)
          .flatMap(([destination, sources]) => sources.map((source) => ({ destination, source })))
          .sort(compareIntentions);
        const made = rules([], { intentions, http, allowsByDefault });
        const isForwarded = http && intentions.some(({ source }) => source.peer !== undefined);
        for (const source of ["a", "b", "c"]) {
          for (const peer of ["", "peer1"]) {
            for (const [path, method] of [
              ["/", "GET"],
              ["/a", "GET"],
              ["/a", "PUT"],
              ["/b/x", "POST"],
            ] as const) {
              const call = { source, peer, destination: "web" };
              const expected = http
                ? intended.request(call, { path, method, header: () => undefined })
                : intended.connection(call);
              const uri = peer === "" ? local(source) : remote(source);
              // Requests of peers come by a gateway of ours.
              const asked = peer !== "" && isForwarded ? through(uri, { path, method }) : { uri, path, method };
              const told = JSON.stringify({ call, path, method, http, allowsByDefault, entries });
              assert.equal(allows(made, asked), expected.allowed, told);
              if (expected.allowed) allowed++;
              else denied++;
            }
          }
        }
      }),
      { numRuns: 300 },
    );
    assert.ok(allowed > 1_000 && denied > 1_000, `${allowed} allowed, ${denied} denied`);
  });
});

describe("rules of requests", () => {
  it("take a caller of a peer only from our own gateway, and only from what the gateway says first", () => {
    const made = rules(mixed, { http: true });
    assert.equal(allows(made, through(remote("db"))), true);
    assert.equal(allows(made, through(remote("web"))), false);
    assert.equal(allows(made, { uri: remote("db") }), false);
    assert.equal(allows(made, { ...through(remote("db")), uri: local("web2") }), false);
    assert.equal(allows(made, through("spiffe://other.domain/ap/part1/ns/default/dc/dc2/svc/db")), false);
    const forged = `By=${GATEWAY};Hash=1;URI=${remote("web")},By=x;URI=${remote("db")}`;
    assert.equal(allows(made, { uri: GATEWAY, xfcc: forged }), false);
    assert.equal(allows(made, { uri: local("web") }), true);
  });

  it("take no caller of a peer whose certificate tells of another in its subject, or of two", () => {
    const web = remote("web");
    const db = remote("db");
    const headers = [
      `By=${GATEWAY};Hash=1;Subject="CN=a;URI=${db},O=b";URI=${web}`,
      `By=${GATEWAY};Hash=1;Subject="\\";URI=${db},O=b";URI=${web}`,
      `By=${GATEWAY};Hash=1;Subject="";URI=${db};URI=${web}`,
      `By=${GATEWAY};Hash=1;Subject="";URI=${web};URI=${db}`,
      `By=${GATEWAY};Hash=1;Subject="";URI=${db};DNS=x`,
    ];
    const allowing = rules([{ name: "db", peer: "peer1", action: "allow" }], { http: true });
    assert.equal(allows(allowing, through(db)), true);
    const denying = rules([{ name: "web", peer: "peer1", action: "deny" }], { http: true, allowsByDefault: true });
    assert.equal(allows(denying, through(web)), false);
    assert.equal(allows(denying, through(db)), true);
    assert.equal(allows(denying, { uri: GATEWAY }), false);
    assert.equal(allows(denying, { uri: local("x"), xfcc: "x" }), true);
    for (const xfcc of headers) {
      assert.equal(allows(allowing, { uri: GATEWAY, xfcc }), false, xfcc);
      assert.equal(allows(denying, { uri: GATEWAY, xfcc }), false, xfcc);
    }
  });

  it("decide by the first permission that fits", () => {
    const made = rules(
      [
        {
          name: "web",
          permissions: [
            { action: "deny", http: { pathPrefix: "/admin/secret" } },
            { action: "allow", http: { pathPrefix: "/admin", methods: ["GET", "HEAD"] } },
          ],
        },
        { name: "*", action: "allow" },
      ],
      { http: true },
    );
    const web = local("web");
    assert.equal(allows(made, { uri: web, path: "/admin/x" }), true);
    assert.equal(allows(made, { uri: web, path: "/admin/x", method: "PUT" }), false);
    assert.equal(allows(made, { uri: web, path: "/admin/secret" }), false);
    assert.equal(allows(made, { uri: web, path: "/" }), false);
    assert.equal(allows(made, { uri: local("db"), path: "/admin/secret" }), true);
  });

  it("deny by permissions what is allowed by default", () => {
    const sources: readonly IntentionSource[] = [
      {
        name: "web",
        permissions: [
          { action: "allow", http: { pathExact: "/admin" } },
          { action: "deny", http: { pathPrefix: "/" } },
        ],
      },
    ];
    const made = rules(sources, { http: true, allowsByDefault: true });
    assert.equal(allows(made, { uri: local("web"), path: "/admin" }), true);
    assert.equal(allows(made, { uri: local("web"), path: "/admin2" }), false);
    assert.equal(allows(made, { uri: local("db"), path: "/admin2" }), true);
  });

  it("allow nothing for a token, which is not looked at", () => {
    const jwt = { providers: [{ name: "okta" }] };
    const sources: readonly IntentionSource[] = [
      { name: "web", permissions: [{ action: "allow", http: { pathPrefix: "/" }, jwt }] },
      { name: "db", action: "allow" },
    ];
    assert.equal(allows(rules(sources, { http: true }), { uri: local("web") }), false);
    assert.equal(allows(rules(sources, { http: true, asksForTokens: new Set(["web"]) }), { uri: local("db") }), false);
  });
});
