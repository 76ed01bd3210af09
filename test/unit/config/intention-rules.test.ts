import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type IntendedRequest,
  IntentionRules,
  type IntentionsOfDestination,
} from "../../../src/config/intention-rules.js";
import type { IntentionHttp, IntentionPermission, IntentionSource } from "../../../src/config/intentions.js";

type Entries = Readonly<Record<string, IntentionsOfDestination>>;

function rules(entries: Entries, byDefault: "allow" | "deny" = "deny"): IntentionRules {
  return new IntentionRules((destination) => entries[destination], { byDefault });
}

const CALL = { source: "web", peer: "", destination: "db" };
const OF_PEER = { ...CALL, peer: "east" };

interface Asked extends Partial<Omit<IntendedRequest, "header">> {
  readonly headers?: Readonly<Record<string, string>>;
}

function request({ method = "GET", path = "/", headers = {} }: Asked = {}): IntendedRequest {
  return { method, path, header: (name) => headers[name] };
}

function withPermissions(...permissions: readonly IntentionPermission[]): Entries {
  return { db: { sources: [{ name: "web", permissions }] } };
}

/** Whether a permission with these conditions lets a request through that nothing else allows. */
function matches(http: IntentionHttp, asked: Asked = {}): boolean {
  return rules(withPermissions({ action: "allow", http })).request(CALL, request(asked)).allowed;
}

describe("intentions of connections", () => {
  it("decide by the source with the highest precedence, and else by the default", () => {
    const entries: Entries = {
      db: {
        sources: [
          { name: "web", action: "deny" },
          { name: "*", action: "allow" },
        ],
      },
      "*": { sources: [{ name: "web", action: "allow" }] },
    };
    const judge = rules(entries);
    assert.deepEqual(judge.connection(CALL), { allowed: false, reason: 'denied by its source "web"' });
    assert.equal(judge.connection({ ...CALL, source: "api" }).allowed, true);
    assert.equal(judge.connection({ ...CALL, destination: "cache" }).allowed, true);
    for (const byDefault of ["allow", "deny"] as const) {
      const { allowed, reason } = rules(entries, byDefault).connection(OF_PEER);
      assert.deepEqual([allowed, reason.includes("no intention matches")], [byDefault === "allow", true]);
    }
  });

  it("that name no peer are not about the callers of one, and the other way round", () => {
    const local: IntentionSource = { name: "*", action: "allow" };
    assert.equal(rules({ db: { sources: [local] } }).connection(OF_PEER).allowed, false);
    const peered: IntentionSource = { name: "*", peer: "east", action: "allow" };
    const judge = rules({ db: { sources: [peered] } });
    assert.equal(judge.connection(OF_PEER).allowed, true);
    assert.equal(judge.connection({ ...CALL, peer: "west" }).allowed, false);
    assert.equal(judge.connection(CALL).allowed, false);
  });

  it("with permissions for requests deny all connections, whatever the default", () => {
    const entries = withPermissions({ action: "allow", http: { pathPrefix: "/" } });
    for (const byDefault of ["allow", "deny"] as const) {
      assert.equal(rules(entries, byDefault).connection(CALL).allowed, false);
    }
  });
});

describe("intentions of requests", () => {
  it("let the first permission that matches decide, and else the default", () => {
    const entries = withPermissions(
      { action: "deny", http: { pathExact: "/v1/secret" } },
      { action: "allow", http: { pathPrefix: "/v1/" } },
    );
    const judge = rules(entries);
    const allowed = (path: string, of = judge): boolean => of.request(CALL, request({ path })).allowed;
    assert.deepEqual([allowed("/v1/secret"), allowed("/v1/x"), allowed("/v2")], [false, true, false]);
    assert.equal(allowed("/v2", rules(entries, "allow")), true);
    assert.match(judge.request(CALL, request({ path: "/v1/x" })).reason, /permission 2 of the source "web"/);
  });

  it("match paths whole, by their beginning, or by a pattern of the whole path", () => {
    assert.deepEqual(
      ["/a", "/a/", "/A", "/ab"].map((path) => matches({ pathExact: "/a" }, { path })),
      [true, false, false, false],
    );
    assert.deepEqual(
      ["/a", "/a/b", "/b/a"].map((path) => matches({ pathPrefix: "/a" }, { path })),
      [true, true, false],
    );
    assert.deepEqual(
      ["/a/12", "/a/12/b", "/x/a/12"].map((path) => matches({ pathRegex: "/a/[0-9]+" }, { path })),
      [true, false, false],
    );
    assert.deepEqual(
      ["/a", "/ab", "/xb"].map((path) => matches({ pathRegex: "/a|b" }, { path })),
      [true, false, false],
    );
  });

  it("match methods", () => {
    const http: IntentionHttp = { methods: ["GET", "HEAD"] };
    assert.deepEqual(
      ["GET", "HEAD", "POST", "get"].map((method) => matches(http, { method })),
      [true, true, false, false],
    );
  });

  for (const [rule, values] of [
    [{ present: true }, [true, true, false]],
    [{ present: true, invert: true }, [false, false, true]],
    [{ exact: "one" }, [true, false, false]],
    [{ exact: "ONE", ignoreCase: true }, [true, false, false]],
    [{ exact: "one", invert: true }, [false, true, false]],
    [{ prefix: "on" }, [true, false, false]],
    [{ suffix: "WO", ignoreCase: true }, [false, true, false]],
    [{ contains: "w" }, [false, true, false]],
    [{ regex: "[a-z]{3}" }, [true, true, false]],
    [{ regex: "n" }, [false, false, false]],
  ] as const) {
    it(`match a header by ${JSON.stringify(rule)}`, () => {
      const http: IntentionHttp = { header: [{ name: "X-Kind", ...rule }] };
      const asked: readonly Asked[] = [{ headers: { "x-kind": "one" } }, { headers: { "x-kind": "two" } }, {}];
      assert.deepEqual(
        asked.map((each) => matches(http, each)),
        values,
      );
    });
  }

  it("need every condition of a permission", () => {
    const http: IntentionHttp = {
      pathPrefix: "/v1",
      methods: ["POST"],
      header: [
        { name: "a", exact: "1" },
        { name: "b", exact: "2" },
      ],
    };
    const good = { path: "/v1", method: "POST", headers: { a: "1", b: "2" } };
    assert.equal(matches(http, good), true);
    for (const bad of [{ path: "/v2" }, { method: "GET" }, { headers: { a: "1" } }, { headers: { a: "1", b: "3" } }]) {
      assert.equal(matches(http, { ...good, ...bad }), false, JSON.stringify(bad));
    }
  });

  it("deny where a pattern cannot be matched, whatever stands behind it", () => {
    for (const pathRegex of ["(", "a)|(.*", "x{1001}", "(?=a)"]) {
      for (const action of ["allow", "deny"] as const) {
        const entries = withPermissions(
          { action, http: { pathRegex } },
          { action: "allow", http: { pathPrefix: "/" } },
        );
        const { allowed, reason } = rules(entries, "allow").request(CALL, request());
        assert.deepEqual([allowed, /cannot be matched/.test(reason)], [false, true], pathRegex);
      }
    }
  });

  it("that ask for a token allow nothing, for tokens are not verified", () => {
    const jwt = { providers: [{ name: "okta" }] };
    const http = { pathPrefix: "/" };
    const ofPermission = rules(withPermissions({ action: "allow", http, jwt }), "allow");
    assert.match(ofPermission.request(CALL, request()).reason, /asks for a token/);
    assert.equal(ofPermission.request(CALL, request()).allowed, false);
    const ofEntry = rules({ db: { sources: [{ name: "web", action: "allow" }], jwt } }, "allow");
    assert.equal(ofEntry.request(CALL, request()).allowed, false);
    assert.equal(ofEntry.connection(CALL).allowed, false);
    // One that denies does so without a token, too.
    assert.equal(
      rules(withPermissions({ action: "deny", http, jwt }), "allow").request(CALL, request()).allowed,
      false,
    );
    // Of an entry for others nothing is asked.
    const others: Entries = { "*": { sources: [{ name: "web", action: "allow" }] }, db: { sources: [], jwt } };
    assert.equal(rules(others).request(CALL, request()).allowed, true);
    assert.equal(
      rules(withPermissions({ action: "allow", http, jwt: { providers: [] } })).request(CALL, request()).allowed,
      true,
    );
  });
});
