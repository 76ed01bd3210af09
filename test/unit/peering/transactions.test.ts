import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import type { Peering, TrustBundle } from "../../../src/peering/peering.js";
import { type PeeringWrite, writePeering } from "../../../src/peering/peering-write.js";
import { RecordTables } from "../../../src/peering/record-tables.js";
import { type AcceptorSecrets, digestSecret, type SecretsRequest, sameSecret } from "../../../src/peering/secrets.js";
import { type PeeringEffectType, transition } from "../../../src/peering/state-machine.js";
import { deleteTrustBundle, isUnchanged, performStep, type RecordChanges } from "../../../src/peering/transactions.js";
import { blankPeering } from "../../support/peerings.js";

const A = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
const D = "dddddddd-dddd-dddd-dddd-dddddddddddd";
const NEW = "ffffffff-ffff-ffff-ffff-ffffffffffff";
const [E1, E2, P1, P2, S1] = ["e1", "e2", "p1", "p2", "s1"].map(digestSecret);
assert.ok(E1 && E2 && P1 && P2 && S1);

const EMPTY = new RecordTables();
const ACCEPTOR: Peering = {
  ...blankPeering,
  id: A,
  name: "acceptor",
  state: "pending",
  meta: { a: "b" },
  remote: { partition: "", datacenter: "dc2" },
  createIndex: 3n,
  modifyIndex: 4n,
};
const DIALER: Peering = {
  ...blankPeering,
  id: D,
  name: "dialer",
  state: "establishing",
  peerId: "x",
  peerServerAddresses: ["h:1"],
  createIndex: 5n,
  modifyIndex: 6n,
};
const NO_SECRETS: AcceptorSecrets = { role: "acceptor", establishment: "", pending: "", active: "" };

function tables(peerings: readonly Peering[], secrets: Partial<AcceptorSecrets> | undefined = undefined): RecordTables {
  const made = new RecordTables();
  for (const peering of peerings) made.setPeering(peering.id, peering);
  if (secrets !== undefined) made.setSecrets(A, { ...NO_SECRETS, ...secrets });
  return made;
}

function writeOf(peering: Peering, changed: Partial<PeeringWrite> = {}): PeeringWrite {
  const { createIndex: _created, modifyIndex: _modified, ...fields } = peering;
  return { ...fields, ...changed };
}

function withoutState(write: PeeringWrite): PeeringWrite {
  const { state: _, ...fields } = write;
  return fields;
}

function applied(before: RecordTables, changes: RecordChanges): RecordTables {
  const after = new RecordTables();
  for (const { peerings, secrets, bundles } of [before, changes]) {
    for (const [id, peering] of peerings) after.setPeering(id, peering);
    for (const [id, row] of secrets) after.setSecrets(id, row);
    for (const [name, bundle] of bundles) after.setBundle(name, bundle);
  }
  return after;
}

const EFFECTS = {
  generate_token: "store-establishment-secret",
  exchange_secret: "exchange-secret",
  promote_pending: "promote-secret",
  establish: "store-stream-secret",
} as const satisfies Record<SecretsRequest["type"], PeeringEffectType>;

/** The effect of a step on secrets alone. */
function writeSecrets(before: RecordTables, id: string, request?: SecretsRequest): RecordChanges {
  const peering = before.peerings.get(id);
  const effects = request === undefined ? [] : [{ type: EFFECTS[request.type] }];
  const event = "secret-exchanged";
  const step = { event, before: peering, peering, written: false, patches: [], effects } as const;
  return performStep(before, step, request === undefined ? {} : { secrets: request });
}

function terminatePeering(before: RecordTables, id: string): RecordChanges {
  return performStep(before, transition(before.peerings.get(id), { type: "peer-terminated" }));
}

function deletePeering(before: RecordTables, name: string): RecordChanges {
  return performStep(before, transition(before.byName(name), { type: "cleanup-finished" }));
}

function writeTrustBundle(before: RecordTables, bundle: TrustBundle, servers = true): RecordChanges {
  const { peerName: name, rootPems } = bundle;
  const step = transition(before.byName(name), { type: "trust-bundle-received", name, rootPems, servers });
  return performStep(before, step, { bundle });
}

function fails(text: string, run: () => unknown): void {
  assert.throws(run, (error: unknown) => {
    assert.ok(error instanceof PeeringError);
    assert.equal(error.message, text);
    return true;
  });
}

describe("record writes", () => {
  it("a write without id, name, or with a deletion time and state that do not fit (ST1)", () => {
    const write = writeOf(ACCEPTOR);
    fails("Missing Peering ID", () => writePeering(EMPTY, { ...write, id: "" }));
    fails("Missing Peering Name", () => writePeering(EMPTY, { ...write, name: "" }));
    for (const deletedAt of [undefined, 0]) {
      fails("Missing deletion time for peering in deleting state", () =>
        writePeering(EMPTY, { ...write, state: "deleting", ...(deletedAt === undefined ? {} : { deletedAt }) }),
      );
    }
    for (const deletedAt of [8.64e15 + 1, Number.NaN, Number.POSITIVE_INFINITY]) {
      fails("Invalid deletion time", () => writePeering(EMPTY, { ...write, state: "deleting", deletedAt }));
    }
    fails("Unexpected state for peering with deletion time: PENDING", () =>
      writePeering(EMPTY, { ...write, deletedAt: 9 }),
    );
    fails("Unexpected state for peering with deletion time: UNDEFINED", () =>
      writePeering(EMPTY, { ...withoutState(write), deletedAt: 9 }),
    );
  });

  it("a new record without a state is PENDING (ST2)", () => {
    const written = writePeering(EMPTY, withoutState(writeOf(ACCEPTOR))).peerings.get(A);
    assert.deepEqual(written, { ...ACCEPTOR, createIndex: 0n, modifyIndex: 0n });
  });

  it("the Unix epoch counts as no deletion time, and is not stored (I9)", () => {
    const written = writePeering(EMPTY, writeOf(ACCEPTOR, { deletedAt: 0 })).peerings.get(A);
    assert.equal(written !== undefined && "deletedAt" in written, false);
  });

  it("neither id nor role of a name can change (ST3, ch3 case 66)", () => {
    const before = tables([ACCEPTOR, DIALER]);
    fails(`A peering already exists with the name "acceptor" and a different ID "${A}"`, () =>
      writePeering(before, writeOf(ACCEPTOR, { id: NEW })),
    );
    fails("Cannot switch peering dialing mode from true to false", () =>
      writePeering(before, writeOf(DIALER, { peerServerAddresses: [] })),
    );
    fails("Cannot switch peering dialing mode from false to true", () =>
      writePeering(before, writeOf(ACCEPTOR, { manualServerAddresses: ["m:1"] })),
    );
  });

  it("an id can have no second name", () => {
    fails(`A peering already exists with the ID "${A}" and a different name "acceptor"`, () =>
      writePeering(tables([ACCEPTOR]), writeOf(ACCEPTOR, { name: "other" })),
    );
  });

  it("state and Remote are inherited, everything else is replaced (ST4, ch3 case 66)", () => {
    const remote = { partition: "", datacenter: "", locality: { region: "", zone: "" } };
    const write = withoutState(writeOf(DIALER, { meta: {}, remote }));
    const known = { ...DIALER, meta: { a: "b" }, remote: { partition: "", datacenter: "dc7" } };
    const written = writePeering(tables([known]), write).peerings.get(D);
    assert.equal(written?.state, "establishing");
    assert.deepEqual(written?.remote, known.remote);
    assert.deepEqual(written?.meta, {});
    assert.equal(written?.createIndex, 5n);
    assert.equal(written?.modifyIndex, 0n);
  });

  it("TERMINATED loses its secrets; TERMINATED again changes nothing (ST5, ch3 case 65)", () => {
    const before = tables([ACCEPTOR], { active: S1 });
    const after = applied(before, writePeering(before, writeOf(ACCEPTOR, { state: "terminated" })));
    assert.equal(after.peerings.get(A)?.state, "terminated");
    assert.equal(after.secrets.has(A), false);
    const again = writeOf(ACCEPTOR, { state: "terminated", meta: { c: "d" } });
    assert.equal(isUnchanged(writePeering(after, again)), true);
    assert.equal(
      isUnchanged(writePeering(after, again, { type: "generate_token", establishment: E1 })),
      true,
      "not even the secrets",
    );
  });

  it("a dialer written as one of another cluster loses the secret that the first one gave", () => {
    const dialer = { ...DIALER, peerCaPems: ["root\n"], peerServerName: "server.dc1.peering.a.consul" };
    const made = { type: "establish", sealedActive: Uint8Array.of(1) } as const;
    const before = applied(EMPTY, writePeering(EMPTY, writeOf(dialer), made));
    assert.ok(before.secrets.has(dialer.id));
    for (const changed of [
      { peerId: "other" },
      { peerCaPems: [] },
      { peerServerName: "server.dc1.peering.b.consul" },
    ]) {
      assert.ok(!applied(before, writePeering(before, writeOf(dialer, changed))).secrets.has(dialer.id));
      const renewed = applied(before, writePeering(before, writeOf(dialer, changed), made));
      assert.ok(renewed.secrets.has(dialer.id), "the new cluster's secret comes with it");
    }
    const moved = { ...dialer, peerServerAddresses: ["10.0.0.9:8503"], meta: { a: "b" } };
    assert.ok(applied(before, writePeering(before, writeOf(moved))).secrets.has(dialer.id), "addresses may change");
  });

  it("DELETING is written over by nothing (ST6, ch3 case 65)", () => {
    const deleting: Peering = { ...ACCEPTOR, state: "deleting", deletedAt: 9 };
    const before = tables([deleting]);
    assert.equal(isUnchanged(writePeering(before, writeOf(deleting, { deletedAt: 10 }))), true);
    assert.equal(isUnchanged(writePeering(before, writeOf(ACCEPTOR, { state: "terminated" }))), true);
    fails("cannot write to peering that is marked for deletion", () => writePeering(before, writeOf(ACCEPTOR)));
    fails("cannot write to peering that is marked for deletion", () =>
      writePeering(before, withoutState(writeOf(ACCEPTOR))),
    );
  });

  it("only an active record can be created, only an inactive one removed (ST7)", () => {
    for (const write of [
      writeOf(ACCEPTOR, { state: "deleting", deletedAt: 9 }),
      writeOf(ACCEPTOR, { state: "terminated" }),
    ]) {
      fails("cannot create a new peering marked for deletion", () => writePeering(EMPTY, write));
    }
    fails("cannot delete a peering without first marking for deletion", () =>
      deletePeering(tables([ACCEPTOR]), "acceptor"),
    );
    assert.equal(isUnchanged(deletePeering(EMPTY, "acceptor")), true);
    const deleting = tables([{ ...ACCEPTOR, state: "deleting", deletedAt: 9 }], { active: S1 });
    const after = applied(deleting, deletePeering(deleting, "ACCEPTOR"));
    assert.equal(after.peerings.size + after.secrets.size, 0);
  });

  it("names are compared without case (ST17)", () => {
    fails(`A peering already exists with the name "ACCEPTOR" and a different ID "${A}"`, () =>
      writePeering(tables([ACCEPTOR]), writeOf(ACCEPTOR, { id: NEW, name: "ACCEPTOR" })),
    );
  });

  it("TerminateByID marks an active record and nothing else (ST23, ch3 case 72)", () => {
    const before = tables([ACCEPTOR], { active: S1, establishment: E1 });
    const changes = terminatePeering(before, A);
    assert.deepEqual(changes.peerings.get(A), { ...ACCEPTOR, state: "terminated", modifyIndex: 0n });
    assert.equal(changes.secrets.size, 0);
    assert.equal(isUnchanged(terminatePeering(EMPTY, A)), true);
    assert.equal(isUnchanged(terminatePeering(tables([{ ...ACCEPTOR, state: "deleting", deletedAt: 9 }]), A)), true);
  });
});

describe("secrets", () => {
  const requests: readonly SecretsRequest[] = [
    { type: "generate_token", establishment: "" },
    { type: "exchange_secret", establishment: E1, pending: "" },
    { type: "promote_pending", active: "" },
    { type: "establish", sealedActive: new Uint8Array() },
  ];

  it("the secrets that a request must carry (ST8, ch3 case 78)", () => {
    const generate: SecretsRequest = { type: "generate_token", establishment: E1 };
    assert.equal(isUnchanged(writeSecrets(EMPTY, A, generate)), true);
    for (const request of requests) {
      fails("failed to write peering secret: invalid secret write request: missing secret ID", () =>
        writeSecrets(tables([ACCEPTOR]), A, request),
      );
      fails("failed to write peering establishment secret: invalid secret write request: missing secret ID", () =>
        writePeering(tables([ACCEPTOR]), writeOf(ACCEPTOR), request),
      );
    }
    assert.equal(isUnchanged(writeSecrets(tables([ACCEPTOR]), A)), true);
  });

  it("a dialer keeps one stream secret, which is not in the set of those in use (ST9, ch3 case 78)", () => {
    const before = tables([DIALER]);
    for (const request of [
      { type: "generate_token", establishment: E1 },
      { type: "exchange_secret", establishment: E1, pending: P1 },
      { type: "promote_pending", active: S1 },
    ] as const) {
      fails(
        `failed to write peering secret: invalid request type ${request.type} when persisting stream secret for dialing peer`,
        () => writeSecrets(before, D, request),
      );
    }
    const sealedActive = new TextEncoder().encode("s1");
    const after = applied(before, writeSecrets(before, D, { type: "establish", sealedActive }));
    assert.deepEqual(after.secrets.get(D), { role: "dialer", sealedActive });
    assert.equal(after.isSecretInUse(S1), false);
  });

  it("an acceptor never establishes", () => {
    fails("failed to write peering secret: an accepting peer should not have called Establish RPC", () =>
      writeSecrets(tables([ACCEPTOR]), A, { type: "establish", sealedActive: Uint8Array.of(1) }),
    );
  });

  it("a token keeps the stream secrets and replaces an unused one (ST10, ch3 case 79)", () => {
    const streaming = tables([ACCEPTOR], { pending: P1, active: S1 });
    const request: SecretsRequest = { type: "generate_token", establishment: E1 };
    const after = applied(streaming, writeSecrets(streaming, A, request));
    assert.deepEqual(after.secrets.get(A), { ...NO_SECRETS, establishment: E1, pending: P1, active: S1 });
    for (const digest of [E1, P1, S1]) assert.equal(after.isSecretInUse(digest), true);
    const again = applied(after, writeSecrets(after, A, { type: "generate_token", establishment: E2 }));
    assert.equal(again.isSecretInUse(E1), false);
    assert.equal(again.isSecretInUse(E2), true);
  });

  it("the exchange takes the establishment secret and gives a pending one (ST11, ch3 case 80)", () => {
    const exchange = (before: RecordTables, establishment = E1): RecordChanges =>
      writeSecrets(before, A, { type: "exchange_secret", establishment, pending: P2 });
    const prefix = "failed to write peering secret:";
    fails(`${prefix} cannot exchange peering secret: no known secrets for peering`, () => exchange(tables([ACCEPTOR])));
    fails(`${prefix} invalid establishment secret: peering was already established`, () =>
      exchange(tables([ACCEPTOR], { active: S1 })),
    );
    const before = tables([ACCEPTOR], { establishment: E1, pending: P1, active: S1 });
    fails(`${prefix} invalid establishment secret`, () => exchange(before, E2));
    const after = applied(before, exchange(before));
    assert.deepEqual(after.secrets.get(A), { ...NO_SECRETS, pending: P2, active: S1 });
    assert.equal(after.isSecretInUse(E1) || after.isSecretInUse(P1), false);
  });

  it("the promotion makes the pending secret the active one (ST12, ch3 case 81)", () => {
    const promote = (before: RecordTables, active = P1): RecordChanges =>
      writeSecrets(before, A, { type: "promote_pending", active });
    const prefix = "failed to write peering secret:";
    fails(`${prefix} cannot promote pending secret: no known secrets for peering`, () => promote(tables([ACCEPTOR])));
    fails(`${prefix} invalid pending stream secret`, () => promote(tables([ACCEPTOR], { active: S1 })));
    const before = tables([ACCEPTOR], { establishment: E1, pending: P1, active: S1 });
    fails(`${prefix} invalid pending stream secret`, () => promote(before, P2));
    const after = applied(before, promote(before));
    assert.deepEqual(after.secrets.get(A), { ...NO_SECRETS, establishment: E1, active: P1 });
    assert.equal(after.isSecretInUse(S1), false);
  });

  it("a secret in use by any slot is refused, and the record with it (ST13)", () => {
    const other: Peering = { ...ACCEPTOR, id: NEW, name: "other" };
    for (const slot of ["establishment", "pending", "active"] as const) {
      const before = tables([ACCEPTOR], { [slot]: E1 });
      fails("failed to write peering establishment secret: peering secret is already in use, retry the operation", () =>
        writePeering(before, writeOf(other), { type: "generate_token", establishment: E1 }),
      );
    }
  });

  it("a record marked for deletion frees all its secrets (ST14, ch3 case 82)", () => {
    const before = tables([ACCEPTOR], { establishment: E1, pending: P1, active: S1 });
    const after = applied(before, writePeering(before, writeOf(ACCEPTOR, { state: "deleting", deletedAt: 9 })));
    assert.equal(after.secrets.size, 0);
    for (const digest of [E1, P1, S1]) assert.equal(after.isSecretInUse(digest), false);
  });

  it("no secret equals nothing, not even no secret", () => {
    assert.equal(sameSecret("", ""), false);
    assert.equal(sameSecret(digestSecret(""), digestSecret("")), false);
    assert.equal(sameSecret(E1, ""), false);
    assert.equal(sameSecret(E1, E2), false);
    assert.equal(sameSecret(E1, E1), true);
  });
});

describe("trust bundles", () => {
  const bundle: TrustBundle = {
    trustDomain: "x.consul",
    peerName: "dialer",
    rootPems: ["one", "two\n"],
    exportedPartition: "",
  };

  it("needs a name and a record that is not DELETING (ST18, ch3 case 91)", () => {
    fails("cannot write peering trust bundle for unknown peering dialer", () => writeTrustBundle(EMPTY, bundle));
    fails("cannot write to peering that is marked for deletion", () =>
      writeTrustBundle(tables([{ ...DIALER, state: "deleting", deletedAt: 9 }]), bundle),
    );
  });

  it("gives its roots to the record, each ending in a newline, and is kept as received (ST18, ch3 case 91)", () => {
    const changes = writeTrustBundle(tables([DIALER]), bundle);
    assert.deepEqual(changes.peerings.get(D), { ...DIALER, peerCaPems: ["one\n", "two\n"], modifyIndex: 0n });
    assert.equal(changes.bundles.get("dialer"), bundle);
  });

  it("1.7: of Consul 1.13 it is kept and leaves the roots of the record as they are", () => {
    const changes = writeTrustBundle(tables([DIALER]), bundle, false);
    assert.deepEqual(changes.peerings.get(D), { ...DIALER, modifyIndex: 0n });
    assert.equal(changes.bundles.get("dialer"), bundle);
  });

  it("is removed alone; an unknown one is no failure", () => {
    const before = applied(tables([DIALER]), writeTrustBundle(tables([DIALER]), bundle));
    const after = applied(before, deleteTrustBundle(before, "DIALER"));
    assert.equal(after.bundles.size, 0);
    assert.deepEqual(after.peerings.get(D)?.peerCaPems, ["one\n", "two\n"]);
    assert.equal(isUnchanged(deleteTrustBundle(after, "dialer")), true);
  });
});
