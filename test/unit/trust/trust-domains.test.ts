import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { TrustBundle } from "../../../src/peering/peering.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { claimedSince, type StoredClaim, TrustDomains } from "../../../src/trust/trust-domains.js";
import { assertLinear } from "../../support/growth.js";

const OWN = "11111111-2222-3333-4444-555555555555.consul";
const [A = "", B = "", C = ""] = fixedRootPems;

function bundle(trustDomain: string, ...rootPems: readonly string[]): TrustBundle {
  return { trustDomain, peerName: "peer", rootPems, exportedPartition: "" };
}

/** By peer: when it claimed, the trust domain, the roots. */
function withheld(claims: Readonly<Record<string, readonly [bigint, string, ...string[]]>>): object {
  const stored = Object.entries(claims).map(([name, [since, trustDomain, ...roots]]): [string, StoredClaim] => [
    name,
    { since, bundle: bundle(trustDomain, ...roots) },
  ]);
  return Object.fromEntries(new TrustDomains(OWN, stored).allWithheld());
}

describe("which trust domains a bundle may name", () => {
  const bad = { reason: "invalid-trust-domain" };

  for (const [name, expected] of [
    ["east.consul", undefined],
    ["East.Consul", undefined],
    ["22222222-2222-3333-4444-555555555555.consul", undefined],
    ["under_score", undefined],
    [`a.${OWN}`, undefined],
    [OWN, { reason: "own-trust-domain" }],
    [OWN.toUpperCase(), { reason: "own-trust-domain" }],
    ["", bad],
    [" ", bad],
    [`${OWN}.`, bad],
    [`.${OWN}`, bad],
    [` ${OWN}`, bad],
    [`${OWN}\n`, bad],
    [`${OWN}\u0000`, bad],
    [OWN.replace(".", ".."), bad],
    [OWN.replace("c", "\uff43"), bad],
    [OWN.replace("consul", "con\u017ful"), bad],
    [`spiffe://${OWN}`, bad],
    [`${OWN}:443`, bad],
    [`user@${OWN}`, bad],
    [`${OWN}/ns/default`, bad],
    [OWN.replace("c", "%63"), bad],
    [`${"a".repeat(256)}`, bad],
  ] as const) {
    it(`${JSON.stringify(name.slice(0, 60))}: ${expected?.reason ?? "it may"}`, () => {
      assert.deepEqual(withheld({ peer: [1n, name, A] }), expected === undefined ? {} : { peer: expected });
    });
  }

  it("our own compares without case, however it was given to us", () => {
    const domains = new TrustDomains(OWN.toUpperCase());
    assert.throws(() => domains.requireFree("peer", bundle(OWN, A)), { code: "invalid-bundle" });
  });
});

describe("who a trust domain belongs to", () => {
  const other = { reason: "trust-domain-of-another-peering", owner: "b" };

  it("the first who named it, whatever the names of the peers and the order of the rows", () => {
    assert.deepEqual(withheld({ a: [7n, "x.consul", A], b: [3n, "X.consul", B] }), { a: other });
    assert.deepEqual(withheld({ b: [3n, "X.consul", B], a: [7n, "x.consul", A] }), { a: other });
    const stored = new TrustDomains(OWN, [["b", { since: 3n, bundle: bundle("x.consul", B) }]]);
    assert.throws(() => stored.requireFree("a", bundle("x.consul", A)), { code: "invalid-bundle" });
  });

  it("a later one may name it with roots of the first one, and with none besides", () => {
    assert.deepEqual(withheld({ a: [7n, "x.consul", A, B], b: [3n, "x.consul", B, A] }), {});
    assert.deepEqual(withheld({ a: [7n, "x.consul", A], b: [3n, "x.consul", B, A] }), {});
    assert.deepEqual(withheld({ a: [7n, "x.consul", A, C], b: [3n, "x.consul", B, A] }), { a: other });
    assert.deepEqual(withheld({ a: [7n, "x.consul", `${A}${C}`], b: [3n, "x.consul", A] }), { a: other });
  });

  it("a bundle that may not be served owns nothing", () => {
    assert.deepEqual(withheld({ a: [7n, "x.consul", A], b: [3n, "x.consul", "no certificate"] }), {
      b: { reason: "no-usable-root" },
    });
  });

  it("a claim lasts while the peering goes on naming the domain", () => {
    const former = { since: 3n, bundle: bundle("x.consul", A) };
    assert.equal(claimedSince(former, bundle("X.Consul", B)), 3n);
    assert.equal(claimedSince(former, bundle("y.consul", A)), undefined);
    assert.equal(claimedSince(undefined, bundle("x.consul", A)), undefined);
  });

  it("the peer that is refused is told why, and not who has it", () => {
    const domains = new TrustDomains(OWN, [["secret-name", { since: 3n, bundle: bundle("x.consul", A) }]]);
    assert.throws(() => domains.requireFree("peer", bundle("x.consul", B)), {
      code: "invalid-bundle",
      message: 'trust bundle claims the trust domain of another peering, with other roots: "x.consul"',
    });
    domains.requireFree("secret-name", bundle("x.consul", B));
    assert.throws(() => domains.requireFree("peer", bundle("y".repeat(1_000_000), B)), /^.{0,300}$/s);
  });
});

describe("trust domains, as bundles come and go", () => {
  const names = ["a", "b", "c", "d"];
  const domains = ["x.consul", "X.consul", "y.consul", "no domain", OWN];
  const roots = [[A], [B], [A, B], [B, C], ["no certificate"]];
  const step = fc.record({
    name: fc.constantFrom(...names),
    bundle: fc.option(
      fc
        .record({ domain: fc.constantFrom(...domains), pems: fc.constantFrom(...roots) })
        .map(({ domain, pems }) => bundle(domain, ...pems)),
      { nil: undefined },
    ),
  });

  it("are what they are when all bundles are judged from the start, and each change tells what it changes", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const kept = new TrustDomains(OWN);
        const stored = new Map<string, StoredClaim>();
        for (const [index, { name, bundle }] of steps.entries()) {
          const before = new Set(kept.allWithheld().keys());
          const claim = bundle && { bundle, since: claimedSince(stored.get(name), bundle) ?? BigInt(index) };
          let free = true;
          try {
            if (bundle !== undefined) kept.requireFree(name, bundle);
          } catch {
            free = false;
          }
          if (claim === undefined) stored.delete(name);
          else stored.set(name, claim);
          const changes = kept.set(name, claim);
          const rebuilt = new TrustDomains(OWN, stored);
          assert.deepEqual(sorted(kept.allWithheld()), sorted(rebuilt.allWithheld()));
          for (const each of names) assert.deepEqual(kept.withheld(each), rebuilt.withheld(each));
          if (bundle !== undefined) assert.equal(free, kept.withheld(name) === undefined);
          const after = new Set(kept.allWithheld().keys());
          assert.deepEqual(new Set(changes.withheld), new Set([...after].filter((each) => !before.has(each))));
          assert.deepEqual(
            new Set(changes.served),
            new Set([...before].filter((each) => !after.has(each) && stored.has(each))),
          );
        }
      }),
      { numRuns: 300 },
    );
  });

  function sorted(withheld: ReadonlyMap<string, unknown>): object {
    return [...withheld].sort(([left], [right]) => (left < right ? -1 : 1));
  }
});

describe("the time of a change of one bundle does not grow with how many there are", () => {
  for (const [name, domain] of [
    ["of clusters of their own", (index: number) => `d${index}.consul`],
    ["of one cluster", () => "d.consul"],
  ] as const) {
    it(name, () =>
      assertLinear({
        size: 250,
        prepare: (size) =>
          Promise.resolve({
            domains: new TrustDomains(OWN),
            bundles: Array.from({ length: size }, (_, index) => bundle(domain(index), A)),
          }),
        steps: {
          "ask and take": ({ domains, bundles }) => {
            for (const [index, each] of bundles.entries()) {
              domains.requireFree(`p${index}`, each);
              domains.set(`p${index}`, { bundle: each, since: BigInt(index) });
            }
          },
          "ask and take again": ({ domains, bundles }) => {
            for (const [index, each] of bundles.entries()) {
              domains.requireFree(`p${index}`, each);
              domains.set(`p${index}`, { bundle: each, since: BigInt(index) });
            }
            assert.equal(domains.allWithheld().size, 0);
          },
          // Each time the trust domain of one cluster goes to the next one.
          "remove the oldest": ({ domains, bundles }) => {
            for (const index of bundles.keys()) domains.set(`p${index}`, undefined);
            assert.equal(domains.claims.size, 0);
          },
        },
      }),
    );
  }
});
