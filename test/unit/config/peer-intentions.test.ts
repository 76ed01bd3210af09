import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { doAll } from "../../../src/base/steps.js";
import { ConfigEntrySet } from "../../../src/config/config-entry-set.js";
import type { IntentionAction, IntentionSource } from "../../../src/config/intentions.js";
import { peerIntentionWarnings } from "../../../src/config/peer-intentions.js";

type Sources = readonly IntentionSource[];

/** The type of the warning where `web` is exported to `east`, with these intentions for it and for every service. */
function warned(byDefault: IntentionAction, web: Sources, every: Sources = []): string {
  const entries = ConfigEntrySet.of(
    [
      { name: "web", sources: web },
      { name: "*", sources: every },
    ].flatMap(({ name, sources }) =>
      sources.length === 0 ? [] : ([{ kind: "service-intentions", name, sources }] as const),
    ),
  );
  const [warning, ...more] = doAll(peerIntentionWarnings(entries, byDefault, [{ service: "web", peers: ["east"] }]));
  assert.deepEqual(more, []);
  if (warning === undefined) return "nothing";
  assert.match(warning.text, /^"web" is exported to the peer "east", and /);
  return warning.type;
}

const denyAll: Sources = [{ name: "*", action: "deny" }];
const denyEast: Sources = [{ name: "*", peer: "east", action: "deny" }];
const allowOne: Sources = [{ name: "client", peer: "east", action: "allow" }];

describe("warnings of intentions where callers are allowed by default", () => {
  it("tell of a deny for every caller of this cluster that leaves those of a peer in", () => {
    assert.equal(warned("allow", denyAll), "peer-not-denied");
    assert.equal(warned("allow", [], denyAll), "peer-not-denied");
    // Some are denied, the others are not.
    assert.equal(warned("allow", [...denyAll, { name: "bad", peer: "east", action: "deny" }]), "peer-not-denied");
    assert.equal(warned("allow", denyAll, [{ name: "*", peer: "north", action: "deny" }]), "peer-not-denied");
  });

  it("tell of nothing where every caller of the peer is named, or those of this cluster are not denied", () => {
    assert.equal(warned("allow", []), "nothing");
    assert.equal(warned("allow", [...denyAll, ...denyEast]), "nothing");
    assert.equal(warned("allow", denyAll, denyEast), "nothing");
    assert.equal(warned("allow", [], [...denyAll, ...denyEast]), "nothing");
    assert.equal(warned("allow", [{ name: "*", peer: "east", action: "allow" }, ...denyAll]), "nothing");
    assert.equal(warned("allow", [{ name: "*", action: "allow" }], denyAll), "nothing");
    assert.equal(warned("allow", [{ name: "bad", action: "deny" }]), "nothing");
  });
});

describe("warnings of intentions where callers are denied by default", () => {
  it("tell of a service that is exported to a peer, and that none of its services may call", () => {
    assert.equal(warned("deny", []), "peer-not-allowed");
    assert.equal(warned("deny", [{ name: "client", action: "allow" }]), "peer-not-allowed");
    assert.equal(
      warned("deny", [{ name: "*", action: "allow" }], [{ name: "*", action: "allow" }]),
      "peer-not-allowed",
    );
    assert.equal(warned("deny", [{ name: "client", peer: "north", action: "allow" }]), "peer-not-allowed");
    const onlyDenied = [
      { name: "client", peer: "east", permissions: [{ action: "deny", http: { pathPrefix: "/" } }] },
    ] as const;
    assert.equal(warned("deny", onlyDenied), "peer-not-allowed");
    // The service's own source for every caller of the peer goes first.
    assert.equal(warned("deny", denyEast, allowOne), "peer-not-allowed");
  });

  it("tell of nothing where one of them may", () => {
    assert.equal(warned("deny", allowOne), "nothing");
    assert.equal(warned("deny", [], allowOne), "nothing");
    assert.equal(warned("deny", [{ name: "bad", peer: "east", action: "deny" }], allowOne), "nothing");
    const permissions = [{ action: "allow", http: { pathPrefix: "/" } }] as const;
    assert.equal(warned("deny", [{ name: "*", peer: "east", permissions }]), "nothing");
  });
});

it("warnings of intentions look at each source once, however many services and peers there are", () => {
  let looked = 0;
  const source = (name: string): IntentionSource => ({
    get name() {
      looked++;
      return name;
    },
    action: "allow",
  });
  const sources = Array.from({ length: 50 }, (_, index) => source(`s${index}`));
  const entries = ConfigEntrySet.of([{ kind: "service-intentions", name: "*", sources }]);
  looked = 0;
  const peers = Array.from({ length: 20 }, (_, index) => `p${index}`);
  const exported = Array.from({ length: 100 }, (_, index) => ({ service: `web-${index}`, peers }));
  assert.equal(doAll(peerIntentionWarnings(entries, "deny", exported)).length, 2_000);
  assert.ok(looked > 0 && looked <= 100, String(looked));
});
