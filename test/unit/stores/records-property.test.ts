import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { isActive, type Peering, roleOf } from "../../../src/peering/peering.js";
import { decodeSecrets } from "../../../src/stores/record-codec.js";
import type { BegunEstablish, PeeringRecords } from "../../../src/stores/records.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { type Cluster, cluster, type Fault, judged, REMOTE, tokenOf } from "./records-fixture.js";

// Random runs of two clusters, with storage that fails and processes that restart: the invariants I1 to I11
// of docs/invariants.md are checked after every step, on what is stored and on what is in memory.

const NAMES = ["one", "two"] as const;
type Name = (typeof NAMES)[number];

type Step =
  | { readonly type: "token" | "revoke" | "delete" | "remove"; readonly side: number; readonly name: Name }
  | { readonly type: "terminate" | "bundle" | "addresses"; readonly side: number; readonly name: Name }
  | { readonly type: "begin"; readonly side: number; readonly name: Name; readonly token: number; readonly up: boolean }
  | { readonly type: "exchange"; readonly token: number }
  | { readonly type: "exchange-twice"; readonly token: number }
  | { readonly type: "finish"; readonly begun: number; readonly secret: number }
  | { readonly type: "open" | "open-twice"; readonly token: number; readonly secret: number }
  | { readonly type: "restart"; readonly side: number }
  | { readonly type: "fault"; readonly side: number; readonly fault: Fault };

const side = fc.nat(1);
const name = fc.constantFrom(...NAMES);
const pick = fc.nat(5);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant("token" as const), side, name }) },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constantFrom("delete", "remove", "revoke"), side, name }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constantFrom("terminate", "bundle", "addresses"), side, name }) },
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant("begin" as const), side, name, token: pick, up: fc.boolean() }),
  },
  { weight: 4, arbitrary: fc.record({ type: fc.constantFrom("exchange", "exchange-twice"), token: pick }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant("finish" as const), begun: pick, secret: pick }) },
  { weight: 6, arbitrary: fc.record({ type: fc.constantFrom("open", "open-twice"), token: pick, secret: pick }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("restart" as const), side }) },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant("fault" as const),
      side,
      fault: fc.constantFrom<Fault>("failed", "lost", "committed-unanswered"),
    }),
  },
);

interface Token {
  readonly side: number;
  readonly id: string;
  readonly secret: string;
}

class World {
  readonly #clusters: readonly Cluster[];
  readonly #records: PeeringRecords[];
  readonly #tokens: Token[] = [];
  readonly #begun: { readonly side: number; readonly establish: BegunEstablish }[] = [];
  readonly #secrets: string[] = [];
  /** Establishment secrets that were exchanged, by how often. */
  readonly #exchanged = new Map<string, number>();
  readonly #before: ReadonlyMap<string, Peering>[] = [new Map(), new Map()];
  /** Stream secrets an acceptor has ever replaced, by its id (I4). */
  readonly #dead = new Map<string, Set<string>>();
  readonly #active = new Map<string, string>();

  constructor(clusters: readonly Cluster[]) {
    this.#clusters = clusters;
    this.#records = clusters.map(({ records }) => records);
  }

  async perform(step: Step): Promise<void> {
    try {
      await this.#perform(step);
    } catch (error) {
      assert.ok(error instanceof PeeringError, String(error));
      assert.ok(!["closed", "conflict", "invalid-transition"].includes(error.code), error.message);
    }
    for (const index of [0, 1]) await this.#check(index);
  }

  async #perform(step: Step): Promise<void> {
    const token = "token" in step ? at(this.#tokens, step.token) : undefined;
    switch (step.type) {
      case "token": {
        const made = await this.#side(step.side).generateToken({ peerName: step.name });
        this.#tokens.push({ side: step.side, id: made.peering.id, secret: made.establishmentSecret });
        return;
      }
      case "revoke":
        await this.#side(step.side).revokeToken(step.name);
        return;
      case "begin": {
        if (token === undefined) return;
        const establish = await this.#side(step.side).beginEstablish({
          peerName: step.name,
          token: tokenOf(token.id),
          connected: step.up,
        });
        this.#begun.push({ side: step.side, establish });
        return;
      }
      case "exchange":
        if (token !== undefined) await this.#exchange(token);
        return;
      case "exchange-twice":
        if (token !== undefined) await Promise.allSettled([this.#exchange(token), this.#exchange(token)]);
        return;
      case "finish": {
        const begun = at(this.#begun, step.begun);
        const secret = at(this.#secrets, step.secret);
        if (begun === undefined || secret === undefined) return;
        await this.#side(begun.side).finishEstablish(begun.establish, secret);
        return;
      }
      case "open":
        await this.#open(token, at(this.#secrets, step.secret));
        return;
      case "open-twice": {
        const secret = at(this.#secrets, step.secret);
        await Promise.all([this.#open(token, secret), this.#open(token, secret)]);
        return;
      }
      case "terminate": {
        const peering = this.#side(step.side).byName(step.name);
        if (peering !== undefined) await this.#side(step.side).terminate(peering.id, { peerId: peering.peerId });
        return;
      }
      case "delete":
        await this.#side(step.side).markDeleting(step.name);
        return;
      case "remove": {
        const peering = this.#side(step.side).byName(step.name);
        if (peering !== undefined) await this.#side(step.side).remove(peering.id);
        return;
      }
      case "bundle": {
        const peering = this.#side(step.side).byName(step.name);
        const bundle = { trustDomain: "x", rootPems: fixedRootPems.slice(0, 1), exportedPartition: "" };
        if (peering !== undefined) await this.#side(step.side).writeTrustBundle(peering.id, bundle);
        return;
      }
      case "addresses": {
        const peering = this.#side(step.side).byName(step.name);
        if (peering !== undefined) await this.#side(step.side).writeServerAddresses(peering.id, ["h:1"]);
        return;
      }
      case "restart": {
        const restarted = await this.#clusters[step.side]?.restart();
        if (restarted !== undefined) this.#records[step.side] = restarted;
        return;
      }
      case "fault":
        this.#clusters[step.side]?.storage.faults.push(step.fault);
        return;
    }
  }

  async #exchange(token: Token): Promise<void> {
    const secret = await this.#side(token.side).exchangeSecret({
      peerId: token.id,
      establishmentSecret: token.secret,
    });
    this.#secrets.push(secret);
    const count = (this.#exchanged.get(token.secret) ?? 0) + 1;
    this.#exchanged.set(token.secret, count);
    assert.equal(count, 1, "I5: a token works once");
  }

  async #open(token: Token | undefined, secret: string | undefined): Promise<void> {
    if (token === undefined || secret === undefined) return;
    const verdict = await judged(this.#side(token.side), {
      type: "open",
      peerId: token.id,
      streamSecretId: secret,
      remote: REMOTE,
    });
    if (verdict.verdict === "refused") return;
    assert.equal(isActive(verdict.peering), true, "I12");
    assert.equal(roleOf(verdict.peering), "acceptor");
    assert.equal(this.#dead.get(token.id)?.has(secret) ?? false, false, "I4: a replaced secret opens nothing");
    const former = this.#active.get(token.id);
    this.#active.set(token.id, secret);
    if (former === undefined || former === secret) return;
    const dead = this.#dead.get(token.id) ?? new Set();
    this.#dead.set(token.id, dead.add(former));
  }

  async #check(index: number): Promise<void> {
    const records = this.#side(index);
    const storage = this.#clusters[index]?.storage;
    assert.ok(storage !== undefined);
    const stored = await this.#stored(index);
    const now = new Map(stored.list().map((peering) => [peering.id, peering]));
    assert.deepEqual(records.list(), stored.list(), "memory is what storage holds");

    const digests: string[] = [];
    for (const entry of (await storage.read(["peerings", "secrets"])).entries) {
      const row = decodeSecrets(entry.value);
      const peering = now.get(entry.key.at(-1) ?? "");
      assert.ok(peering !== undefined && peering.state !== "deleting", "I7: no secrets without a record, or DELETING");
      assert.equal(row.role, roleOf(peering), "I1: a dialer has one secret, an acceptor three slots");
      if (row.role === "acceptor") {
        digests.push(...[row.establishment, row.pending, row.active].filter((digest) => digest !== ""));
      }
    }
    assert.equal(new Set(digests).size, digests.length, "I2: no secret twice");

    const names = stored.list().map((peering) => peering.name);
    assert.equal(new Set(names).size, names.length);
    for (const peering of now.values()) {
      const before = this.#before[index]?.get(peering.id);
      assert.equal(peering.deletedAt !== undefined, peering.state === "deleting", "I9");
      if (isActive(peering)) assert.equal(peering.peerId === "", roleOf(peering) === "acceptor", "I8");
      if (before === undefined) {
        assert.equal(peering.state, "pending", "I11: created active");
        continue;
      }
      assert.equal(peering.name, before.name, "I8");
      assert.equal(roleOf(peering), roleOf(before), "I8");
      assert.equal(peering.createIndex, before.createIndex);
      if (before.state === "deleting") assert.equal(peering.state, "deleting", "I10");
      if (before.state === "terminated" && isActive(peering)) {
        assert.deepEqual([roleOf(peering), peering.state], ["dialer", "establishing"], "I10");
      }
    }
    for (const [id, before] of this.#before[index] ?? []) {
      if (!now.has(id)) assert.equal(isActive(before), false, "I11: removed only when not active");
    }
    for (const bundle of stored.trustBundles()) {
      assert.ok(stored.byName(bundle.peerName) !== undefined, "I17: no bundle without a record");
    }
    this.#before[index] = now;
  }

  /** The records as another process would read them. */
  async #stored(index: number): Promise<PeeringRecords> {
    const records = await this.#clusters[index]?.restart();
    return records ?? assert.fail("no such cluster");
  }

  #side(index: number): PeeringRecords {
    return this.#records[index] ?? assert.fail("no such cluster");
  }
}

function at<T>(list: readonly T[], position: number): T | undefined {
  // Newer ones first: most steps should be about what just happened.
  return list.length === 0 ? undefined : list[list.length - 1 - (position % Math.min(list.length, 3))];
}

it("the invariants of records hold after every step of any run, with faults and restarts (I1 to I11)", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60, size: "max" }), async (steps) => {
      const world = new World([await cluster(1), await cluster(2)]);
      for (const next of steps) await world.perform(next);
    }),
    { numRuns: 80 },
  );
});
