import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import type { Peering, TrustBundle } from "../../../src/peering/peering.js";
import type { PeeringChange } from "../../../src/stores/peering-changes.js";
import type { PeeringRecords } from "../../../src/stores/records.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { encodeTrustBundle } from "../../../src/trust/trust-bundle-store.js";
import type { OpenMessage } from "../../../src/wire/messages.js";
import { cluster, judged, OWN_TRUST_DOMAIN, REMOTE, tokenOf } from "./records-fixture.js";

const UNKNOWN = "99999999-9999-9999-9999-999999999999";
const [ROOT_1 = "", ROOT_2 = "", ROOT_3 = ""] = fixedRootPems;
const BUNDLE = { trustDomain: "d.consul", rootPems: [ROOT_1, ROOT_2.trimEnd()], exportedPartition: "" };

async function failure(promise: Promise<unknown>): Promise<PeeringError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    return error;
  }
  return assert.fail("it succeeded");
}

async function failsWith(promise: Promise<unknown>, code: string, message: string, status?: number): Promise<void> {
  const error = await failure(promise);
  assert.deepEqual([error.code, error.message, error.status], [code, message, status]);
}

/** An acceptor and a dialer that hold the two ends of one peering, up to the stored stream secret. */
async function peered(a: PeeringRecords, d: PeeringRecords): Promise<{ id: string; dialerId: string; secret: string }> {
  const { peering, establishmentSecret } = await a.generateToken({ peerName: "west" });
  const begun = await d.beginEstablish({ peerName: "east", token: tokenOf(peering.id), connected: false });
  const secret = await a.exchangeSecret({ peerId: peering.id, establishmentSecret });
  await d.finishEstablish(begun, secret);
  return { id: peering.id, dialerId: begun.id, secret };
}

function open(peerId: string, streamSecretId: string, remote = REMOTE): OpenMessage {
  return { type: "open", peerId, streamSecretId, remote };
}

async function refusalOf(records: PeeringRecords, peerId: string, secret: string): Promise<string> {
  const verdict = await judged(records, open(peerId, secret));
  if (verdict.verdict === "authorized") return "authorized";
  return `${verdict.terminated ? "Terminated, " : ""}${verdict.status.code} ${verdict.status.message}`;
}

async function secretOf(records: PeeringRecords, id: string): Promise<string | undefined> {
  return (await records.dialable(id))?.streamSecret;
}

function must(peering: Peering | undefined): Peering {
  assert.ok(peering !== undefined);
  return peering;
}

describe("tokens", () => {
  it("a token makes a PENDING acceptor; the next one has the same record and another secret (LC1, ST2, ST10)", async () => {
    const { records } = await cluster();
    const first = await records.generateToken({ peerName: "west", meta: { a: "b" } });
    assert.equal(first.peering.state, "pending");
    assert.equal(first.peering.createIndex, first.peering.modifyIndex);
    assert.equal(records.index, first.peering.modifyIndex);
    const second = await records.generateToken({ peerName: "west", meta: { c: "d" } });
    assert.equal(second.peering.id, first.peering.id);
    assert.deepEqual(second.peering.meta, { a: "b" });
    assert.equal(second.peering.createIndex, first.peering.createIndex);
    assert.ok(second.peering.modifyIndex > first.peering.modifyIndex);
    const old = { peerId: first.peering.id, establishmentSecret: first.establishmentSecret };
    await failsWith(records.exchangeSecret(old), "permission-denied", "invalid peering establishment secret", 7);
    await records.exchangeSecret({ ...old, establishmentSecret: second.establishmentSecret });
  });

  it("refuses bad names and metadata before anything is written (RPC1)", async () => {
    const { records, storage } = await cluster();
    assert.equal((await failure(records.generateToken({ peerName: "--AA--" }))).code, "invalid-name");
    const meta = { "": "x" };
    assert.equal((await failure(records.generateToken({ peerName: "west", meta }))).code, "invalid-argument");
    assert.equal(
      (await failure(records.beginEstablish({ peerName: "west", token: tokenOf(UNKNOWN), meta, connected: false })))
        .code,
      "invalid-argument",
    );
    assert.equal(storage.commits.length, 0);
  });

  it("no token for a TERMINATED or DELETING acceptor; a new id after the removal (LC13, ch3 case 69, D-15)", async () => {
    const { records } = await cluster();
    const { peering } = await records.generateToken({ peerName: "west" });
    await records.terminate(peering.id);
    await failsWith(
      records.generateToken({ peerName: "west" }),
      "invalid-record",
      'cannot create peering with name: "west"; the peering was terminated by the peer and must be deleted first',
    );
    await records.markDeleting("west");
    await failsWith(
      records.generateToken({ peerName: "west" }),
      "invalid-record",
      "failed to write peering: cannot write to peering that is marked for deletion",
    );
    await records.remove(peering.id);
    assert.notEqual((await records.generateToken({ peerName: "west" })).peering.id, peering.id);
  });

  it("a name belongs to one role (LC6, ch3 case 35)", async () => {
    const { records } = await cluster();
    await records.generateToken({ peerName: "acceptor" });
    await records.beginEstablish({ peerName: "dialer", token: tokenOf(UNKNOWN), connected: false });
    await failsWith(
      records.generateToken({ peerName: "dialer" }),
      "wrong-role",
      'cannot create peering with name: "dialer"; there is already an established peering',
    );
    await failsWith(
      records.beginEstablish({ peerName: "acceptor", token: tokenOf(UNKNOWN), connected: false }),
      "wrong-role",
      'cannot create peering with name: "acceptor"; there is an existing peering expecting to be dialed',
    );
  });

  it("eight first tokens at once are one record, and the last token works (ch3 case 88, D-17)", async () => {
    const { records } = await cluster();
    const tokens = await Promise.all(Array.from({ length: 8 }, () => records.generateToken({ peerName: "west" })));
    assert.equal(new Set(tokens.map(({ peering }) => peering.id)).size, 1);
    assert.equal(new Set(tokens.map(({ establishmentSecret }) => establishmentSecret)).size, 8);
    const last = tokens.at(-1);
    assert.ok(last !== undefined);
    await records.exchangeSecret({ peerId: last.peering.id, establishmentSecret: last.establishmentSecret });
  });

  it("the race with another process ends with the winner's record (D-17)", async () => {
    const { records, storage, restart } = await cluster();
    const other = await restart();
    let winner: string | undefined;
    storage.beforeCommit = async () => {
      winner = (await other.generateToken({ peerName: "west" })).peering.id;
    };
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    assert.equal(peering.id, winner);
    await records.exchangeSecret({ peerId: peering.id, establishmentSecret });
  });

  it("an unused token is listed and can be revoked, a used one not", async () => {
    const { records } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    assert.deepEqual(
      records.outstandingTokens().map(({ name }) => name),
      ["west"],
    );
    assert.equal(await records.revokeToken("WEST"), true);
    assert.equal(await records.revokeToken("west"), false);
    assert.deepEqual(records.outstandingTokens(), []);
    const request = { peerId: peering.id, establishmentSecret };
    await failsWith(records.exchangeSecret(request), "permission-denied", "invalid peering establishment secret", 7);
  });
});

describe("establishing", () => {
  it("the record is the token's, first PENDING, then ESTABLISHING with its secret (LC2)", async () => {
    const { records } = await cluster();
    const token = tokenOf(UNKNOWN, { manualServerAddresses: ["m:1"] });
    const begun = await records.beginEstablish({ peerName: "east", token, meta: { a: "b" }, connected: false });
    const before = must(records.byId(begun.id));
    assert.equal(before.state, "pending");
    assert.equal(await secretOf(records, begun.id), undefined);
    const finished = await records.finishEstablish(begun, "the secret");
    assert.deepEqual(
      { ...finished, modifyIndex: 0n },
      {
        id: begun.id,
        name: "east",
        state: "establishing",
        meta: { a: "b" },
        peerId: UNKNOWN,
        peerCaPems: token.ca,
        peerServerName: token.serverName,
        peerServerAddresses: token.serverAddresses,
        manualServerAddresses: ["m:1"],
        remote: token.remote,
        createIndex: before.createIndex,
        modifyIndex: 0n,
      },
    );
    assert.equal(await secretOf(records, begun.id), "the secret");
  });

  it("a token of our own is refused, before anything else about the name (LC7, ch3 case 34)", async () => {
    const { records } = await cluster();
    await records.generateToken({ peerName: "west" });
    const ownServerName = "server.dc1.peering.a.consul";
    const token = tokenOf(UNKNOWN, { serverName: ownServerName });
    await failsWith(
      records.beginEstablish({ peerName: "west", token, connected: false, ownServerName }),
      "same-cluster",
      `cannot create a peering within the same cluster "${ownServerName}". Refer to the \`exported-services\` ` +
        "documentation if you want to export between partitions without peering",
    );
  });

  it("after a failed exchange the record stays, and a later establish takes it over (LC5, ch3 case 36)", async () => {
    const { records, restart } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    const after = await restart();
    assert.deepEqual(after.byName("east"), records.byName("east"));
    assert.equal(after.byName("east")?.state, "pending");
    const again = await after.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    assert.equal(again.id, begun.id);
  });

  it("with a stream up the stored addresses stay, through both writes (LC8, ch1 case 73, ch3 case 19)", async () => {
    const { records } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await records.finishEstablish(begun, "s1");
    const token = tokenOf(UNKNOWN, { serverAddresses: ["bad:1"], manualServerAddresses: ["bad:2"] });
    const again = await records.beginEstablish({ peerName: "east", token, connected: true });
    const finished = await records.finishEstablish(again, "s2");
    assert.deepEqual(finished.peerServerAddresses, ["10.0.0.1:8503"]);
    assert.deepEqual(finished.manualServerAddresses, ["bad:2"]);
    assert.deepEqual(finished.meta, {});
  });

  it("a record with a secret stays as it is until the exchange has succeeded, whatever the token says (I23)", async () => {
    const { records, storage, restart } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    const before = await records.finishEstablish(begun, "s1");
    const other = tokenOf("88888888-8888-8888-8888-888888888888", {
      ca: ["other root\n"],
      serverName: "server.dc1.peering.other.consul",
      serverAddresses: ["10.9.9.9:8503"],
    });
    for (const connected of [true, false]) {
      const again = await records.beginEstablish({ peerName: "east", token: other, meta: { a: "b" }, connected });
      assert.deepEqual([again.id, again.fields.peerServerAddresses], [begun.id, other.serverAddresses]);
      const { modifyIndex, ...kept } = must(records.byId(begun.id));
      // Metadata is the caller's, not the token's, and taken at once as in Consul.
      assert.deepEqual({ ...kept, modifyIndex: before.modifyIndex }, { ...before, meta: { a: "b" } });
      assert.deepEqual((await restart()).byId(begun.id), { ...kept, modifyIndex });
      assert.equal(await secretOf(records, begun.id), "s1");
    }
    const commits = storage.commits.length;

    const again = await records.beginEstablish({ peerName: "east", token: other, connected: true });
    const finished = await records.finishEstablish(again, "s2");
    assert.equal(storage.commits.length, commits + 2, "metadata, then cluster and secret are replaced in one commit");
    assert.deepEqual(
      [finished.peerId, finished.peerCaPems, finished.peerServerName, finished.peerServerAddresses],
      [other.peerId, other.ca, other.serverName, other.serverAddresses],
    );
    assert.deepEqual(await records.dialable(begun.id), { peering: finished, streamSecret: "s2" });
  });

  it("a failed establish over a TERMINATED record leaves it TERMINATED and without a secret (I23)", async () => {
    const { records } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await records.finishEstablish(begun, "s1");
    await records.terminate(begun.id);
    const again = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    assert.equal(records.byId(begun.id)?.state, "terminated");
    assert.equal(await secretOf(records, begun.id), undefined);
    assert.equal((await records.finishEstablish(again, "s2")).state, "establishing");
    assert.equal(await secretOf(records, begun.id), "s2");
  });

  it("of two establishes at once the one that finishes last counts, each with its own cluster and secret", async () => {
    const { records } = await cluster();
    const token = (peerId: string) =>
      tokenOf(peerId, { serverName: `server.dc1.peering.${peerId.slice(0, 1)}.consul` });
    const tokens = [token("77777777-7777-7777-7777-777777777777"), token("88888888-8888-8888-8888-888888888888")];
    const begin = (index: number) =>
      records.beginEstablish({ peerName: "east", token: tokens[index] ?? assert.fail(), connected: true });
    const [first, second] = await Promise.all([begin(0), begin(1)]);
    assert.equal(first.id, second.id);
    for (const [begun, secret, peerId] of [
      [first, "s7", tokens[0]?.peerId],
      [second, "s8", tokens[1]?.peerId],
    ] as const) {
      await records.finishEstablish(begun, secret);
      const { peering, streamSecret } = (await records.dialable(begun.id)) ?? assert.fail();
      assert.deepEqual(
        [peering.peerId, peering.peerServerName, streamSecret],
        [peerId, begun.fields.peerServerName, secret],
      );
    }
  });

  it("the second write never brings back a record deleted meanwhile, nor one of the same name (D-19)", async () => {
    const text = "failed to write peering: cannot write to peering that is marked for deletion";
    const { records } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await records.markDeleting("east");
    await failsWith(records.finishEstablish(begun, "s"), "invalid-record", text);
    await records.remove(begun.id);
    await failsWith(records.finishEstablish(begun, "s"), "invalid-record", text);
    const namesake = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await failsWith(records.finishEstablish(begun, "s"), "invalid-record", text);
    assert.equal(records.byName("east")?.state, "pending");
    await records.finishEstablish(namesake, "s");
  });

  it("while DELETING, the first write is refused too (D-19)", async () => {
    const { records } = await cluster();
    await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await records.markDeleting("east");
    await failsWith(
      records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false }),
      "invalid-record",
      "failed to write peering: cannot write to peering that is marked for deletion",
    );
  });
});

describe("the exchange of secrets", () => {
  const denied = ["permission-denied", "invalid peering establishment secret", 7] as const;

  it("an unknown secret is refused; the right one works, once (ch1 cases 12, 13, 14)", async () => {
    const { records } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    const peerId = peering.id;
    await failsWith(records.exchangeSecret({ peerId, establishmentSecret: UNKNOWN }), ...denied);
    await failsWith(records.exchangeSecret({ peerId: UNKNOWN, establishmentSecret }), ...denied);
    const secret = await records.exchangeSecret({ peerId, establishmentSecret });
    assert.match(secret, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    await failsWith(records.exchangeSecret({ peerId, establishmentSecret }), ...denied);
    assert.equal(await refusalOf(records, peerId, secret), "authorized");
  });

  it("of two at once one wins, the other is told, a third is refused (ch1 case 15, ch3 case 84, LC4)", async () => {
    const { records } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    const request = { peerId: peering.id, establishmentSecret };
    const [first, second] = await Promise.allSettled([
      records.exchangeSecret(request),
      records.exchangeSecret(request),
    ]);
    assert.equal(first.status, "fulfilled");
    assert.equal(second.status, "rejected");
    const error: unknown = second.reason;
    assert.ok(error instanceof PeeringError);
    assert.equal(error.status, 13);
    assert.equal(
      error.message,
      "failed to persist peering secret: failed to write peering secret: invalid establishment secret: peering was already established",
    );
    await failsWith(records.exchangeSecret(request), ...denied);
  });

  it("the old stream secret works until the new one was used (ch1 case 16, ch3 case 86)", async () => {
    const { records } = await cluster();
    const other = (await cluster(2)).records;
    const { id, secret } = await peered(records, other);
    assert.equal(await refusalOf(records, id, secret), "authorized");
    const { establishmentSecret } = await records.generateToken({ peerName: "west" });
    const newer = await records.exchangeSecret({ peerId: id, establishmentSecret });
    assert.equal(await refusalOf(records, id, secret), "authorized");
    assert.equal(await refusalOf(records, id, newer), "authorized");
    assert.equal(await refusalOf(records, id, secret), "7 invalid peering stream secret");
    assert.equal(await refusalOf(records, id, newer), "authorized");
  });

  it("an empty secret is refused before and after the exchange (ch3 case 85, D-20)", async () => {
    const { records } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    const empty = { peerId: peering.id, establishmentSecret: "" };
    await failsWith(records.exchangeSecret(empty), ...denied);
    await records.exchangeSecret({ peerId: peering.id, establishmentSecret });
    await failsWith(records.exchangeSecret(empty), ...denied);
  });

  it("an unused secret of a record that is not active is refused (D-20)", async () => {
    const { records } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    await records.terminate(peering.id);
    await failsWith(records.exchangeSecret({ peerId: peering.id, establishmentSecret }), ...denied);
    await records.markDeleting("west");
    await failsWith(records.exchangeSecret({ peerId: peering.id, establishmentSecret }), ...denied);
  });

  it("a malformed id is an internal error, as in Consul (ch3 case 45)", async () => {
    const { records } = await cluster();
    const error = await failure(records.exchangeSecret({ peerId: "x", establishmentSecret: "y" }));
    assert.equal(error.status, 13);
    assert.match(error.message, /^failed to read peering secret: /);
  });

  it("a storage that refuses is told with Consul's prefix, and the secret is not used up", async () => {
    const { records, storage } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    storage.faults.push("failed");
    await failsWith(
      records.exchangeSecret({ peerId: peering.id, establishmentSecret }),
      "storage-failed",
      "failed to persist peering secret: disk full",
      13,
    );
    await records.exchangeSecret({ peerId: peering.id, establishmentSecret });
  });
});

describe("opening a stream", () => {
  it("no id, an unknown one, a malformed one (ch1 cases 22, 23, 24)", async () => {
    const { records } = await cluster();
    assert.equal(await refusalOf(records, "", "s"), "3 initial subscription request must specify a PeerID");
    assert.equal(await refusalOf(records, UNKNOWN, "s"), `3 initial subscription for unknown PeerID: ${UNKNOWN}`);
    assert.equal(await refusalOf(records, "x", "s"), "13 failed to find PeerID: x");
  });

  it("with an establishment secret alone, no stream secret opens (ch1 case 26)", async () => {
    const { records } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    for (const secret of ["", UNKNOWN, establishmentSecret]) {
      assert.equal(await refusalOf(records, peering.id, secret), "7 invalid peering stream secret");
    }
  });

  it("the pending secret is promoted with Remote in one commit, once (ch1 cases 27, 28, 30, ch3 case 44)", async () => {
    const { records, storage } = await cluster();
    const { id, secret } = await peered(records, (await cluster(2)).records);
    const commits = storage.commits.length;
    const first = await judged(records, open(id, secret));
    assert.ok(first.verdict === "authorized");
    assert.deepEqual(first.peering.remote, REMOTE);
    assert.deepEqual(
      storage.commits.slice(commits).map(({ writes }) => writes.map(({ key }) => key[1])),
      [["record", "secrets", "head"]],
    );
    const second = await judged(records, open(id, secret, { ...REMOTE, datacenter: "dc9" }));
    assert.ok(second.verdict === "authorized");
    assert.deepEqual(second.peering.remote, REMOTE);
    assert.equal(storage.commits.length, commits + 1);
  });

  it("two streams with one pending secret: the second is refused as in Consul, and works when it tries again", async () => {
    const { records } = await cluster();
    const { id, secret } = await peered(records, (await cluster(2)).records);
    const verdicts = await Promise.all([refusalOf(records, id, secret), refusalOf(records, id, secret)]);
    assert.deepEqual(verdicts, [
      "authorized",
      "13 failed to persist peering: failed to write peering establishment secret: invalid pending stream secret",
    ]);
    assert.equal(await refusalOf(records, id, secret), "authorized");
  });

  it("DELETING gets Terminated then Aborted, TERMINATED only Aborted (ch1 case 31, ch3 case 46, LC17)", async () => {
    const { records } = await cluster();
    const { id, secret } = await peered(records, (await cluster(2)).records);
    await records.terminate(id);
    assert.equal(await refusalOf(records, id, secret), `10 peering is marked as deleted: ${id}`);
    await records.markDeleting("west");
    assert.equal(await refusalOf(records, id, secret), `Terminated, 10 peering is marked as deleted: ${id}`);
  });

  it("a dialer that is dialed (ch1 cases 25, 32)", async () => {
    const { records } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    assert.equal(
      await refusalOf(records, begun.id, "s"),
      "13 unable to authorize connection, peering must be re-established",
    );
    await records.finishEstablish(begun, "s");
    assert.equal(
      await refusalOf(records, begun.id, "s"),
      "3 expected PeerID to be empty; the wrong end of peering is being dialed",
    );
    assert.equal(await refusalOf(records, begun.id, "t"), "7 invalid peering stream secret");
  });

  it("a promotion that cannot be stored authorises nothing", async () => {
    const { records, storage } = await cluster();
    const { id, secret } = await peered(records, (await cluster(2)).records);
    storage.faults.push("failed");
    assert.equal(await refusalOf(records, id, secret), "13 failed to persist peering: disk full");
    assert.deepEqual(records.byId(id)?.remote, { partition: "", datacenter: "" });
    assert.equal(await refusalOf(records, id, secret), "authorized");
  });
});

/** Resolves once `holds` does, which is asked again after each change, of another process, too. */
function until(records: PeeringRecords, holds: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (!holds()) return;
      for (const end of ends) end();
      resolve();
    };
    const ends = [records.onChange(look), records.onBundlesChange(look)];
    look();
  });
}

describe("pushes of peers", () => {
  it("a bundle goes to the store and to the record, in one commit (ch1 case 108, ST18)", async () => {
    const told: (TrustBundle | undefined)[] = [];
    const { records, storage, restart } = await cluster();
    records.onBundlesChange(() => told.push(records.trustBundle("east")));
    const { dialerId } = await peered((await cluster(2)).records, records);
    const before = must(records.byId(dialerId));
    const commits = storage.commits.length;
    await records.writeTrustBundle(dialerId, BUNDLE);
    assert.equal(storage.commits.length, commits + 1);
    assert.deepEqual(records.trustBundle("EAST"), { ...BUNDLE, peerName: "east" });
    assert.deepEqual(records.byId(dialerId)?.peerCaPems, [ROOT_1, ROOT_2]);
    assert.ok(must(records.byId(dialerId)).modifyIndex > before.modifyIndex);
    const again = await restart();
    assert.deepEqual(again.trustBundles(), records.trustBundles());
    await again.removeTrustBundle("east");
    assert.deepEqual(again.trustBundles(), records.trustBundles(), "it belongs to an active peering");
    await again.terminate(dialerId);
    await again.removeTrustBundle("east");
    assert.deepEqual(again.trustBundles(), []);
    await until(records, () => records.trustBundle("east") === undefined);
    assert.deepEqual(told, [{ ...BUNDLE, peerName: "east" }, undefined]);
  });

  it("a bundle without usable roots is refused on both roles, the old one stays (ch1 case 122, ch3 case 94)", async () => {
    const a = await cluster();
    const d = await cluster(2);
    const { id, dialerId } = await peered(a.records, d.records);
    for (const [records, peering, name] of [
      [a.records, id, "west"],
      [d.records, dialerId, "east"],
    ] as const) {
      await records.writeTrustBundle(peering, BUNDLE);
      for (const rootPems of [[], [""], [ROOT_1, "no certificate"]]) {
        await failsWith(
          records.writeTrustBundle(peering, { ...BUNDLE, rootPems }),
          "invalid-bundle",
          "trust bundle without a usable root certificate",
        );
      }
      assert.deepEqual(records.trustBundle(name)?.rootPems, BUNDLE.rootPems);
    }
  });

  it("no bundle for a record that is gone, DELETING or TERMINATED (ch1 case 109)", async () => {
    const { records } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    await records.terminate(dialerId);
    await failsWith(
      records.writeTrustBundle(dialerId, BUNDLE),
      "invalid-record",
      "peering does not exist or has been marked for deletion",
    );
    await records.markDeleting("east");
    await failsWith(
      records.writeTrustBundle(dialerId, BUNDLE),
      "invalid-record",
      "cannot write to peering that is marked for deletion",
    );
    await records.remove(dialerId);
    assert.match(
      (await failure(records.writeTrustBundle(dialerId, BUNDLE))).message,
      /^cannot write peering trust bundle for unknown peering /,
    );
    assert.deepEqual(records.trustBundles(), []);
  });

  it("a trust domain stays with the peering that named it first, through restarts, and is free when it is gone (D-24)", async () => {
    const { records, restart } = await cluster();
    const [first, second] = [
      (await records.generateToken({ peerName: "z-first" })).peering.id,
      (await records.generateToken({ peerName: "a-second" })).peering.id,
    ];
    const other = { ...BUNDLE, rootPems: [ROOT_3] };
    await records.writeTrustBundle(first, BUNDLE);
    const refused = { code: "invalid-bundle", message: /of another peering, with other roots: "d.consul"/ };
    await assert.rejects(records.writeTrustBundle(second, other), refused);
    await records.writeTrustBundle(first, { ...BUNDLE, rootPems: [ROOT_2] });
    const after = await restart();
    await assert.rejects(after.writeTrustBundle(second, other), refused);
    assert.equal(after.byId(second)?.peerCaPems.length, 0);
    await assert.rejects(after.writeTrustBundle(second, { ...other, trustDomain: OWN_TRUST_DOMAIN.toUpperCase() }), {
      code: "invalid-bundle",
    });
    await after.markDeleting("z-first");
    await assert.rejects(after.writeTrustBundle(second, other), refused);
    await after.remove(first);
    await after.writeTrustBundle(second, other);
    assert.deepEqual(after.trustBundle("a-second")?.rootPems, [ROOT_3]);
    assert.deepEqual(after.trustBundle("z-first"), undefined);
  });

  it("a stored bundle with another's trust domain is not handed out until its owner is gone (D-24)", async () => {
    const { records, storage, restart } = await cluster();
    for (const peerName of ["first", "second", "third"]) await records.generateToken({ peerName });
    const stored = (peerName: string, trustDomain: string, root: string): Promise<unknown> => {
      const value = encodeTrustBundle({ peerName, trustDomain, rootPems: [root], exportedPartition: "" });
      return storage.commit([{ key: ["peerings", "bundle", peerName], value }]);
    };
    await stored("first", "x.consul", ROOT_1);
    await stored("second", "X.consul", ROOT_2);
    await stored("third", OWN_TRUST_DOMAIN.toUpperCase(), ROOT_3);
    const after = await restart();
    const told = (): readonly string[] => after.trustBundles().map(({ peerName }) => peerName);
    assert.deepEqual(told(), ["first"]);
    assert.deepEqual([after.trustBundle("second"), after.trustBundle("third")], [undefined, undefined]);
    await after.markDeleting("first");
    await after.remove(must(after.byName("first")).id);
    assert.deepEqual(told(), ["second"]);
    await after.markDeleting("third");
    await after.remove(must(after.byName("third")).id);
    assert.equal((await storage.read(["peerings", "bundle"])).entries.length, 1, "its bundle goes with it");
  });

  it("establishing with another cluster drops the bundle of the former one, with the same cluster it does not", async () => {
    const { records } = await cluster();
    const begun = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await records.finishEstablish(begun, "s1");
    await records.writeTrustBundle(begun.id, BUNDLE);
    const again = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    await records.finishEstablish(again, "s2");
    assert.equal(records.trustBundle("east")?.trustDomain, "d.consul");
    const token = tokenOf(UNKNOWN, { serverName: "server.dc1.peering.b.consul" });
    const other = await records.beginEstablish({ peerName: "east", token, connected: false });
    assert.equal(records.trustBundle("east")?.trustDomain, "d.consul");
    await records.finishEstablish(other, "s3");
    assert.equal(records.trustBundle("east"), undefined);
  });

  it("addresses go to a dialer, never empty, never over manual ones (ch1 cases 53, 54, 55, ch3 case 23)", async () => {
    const a = await cluster();
    const d = await cluster(2);
    const { id, dialerId } = await peered(a.records, d.records);
    const token = tokenOf(id, { manualServerAddresses: ["m:1"] });
    const again = await d.records.beginEstablish({ peerName: "east", token, connected: true });
    await d.records.writeServerAddresses(dialerId, ["10.0.0.9:8503"]);
    await d.records.finishEstablish(again, "s2");
    const record = must(d.records.byId(dialerId));
    assert.deepEqual(record.peerServerAddresses, ["10.0.0.9:8503"]);
    assert.deepEqual(record.manualServerAddresses, ["m:1"]);
    await failsWith(
      d.records.writeServerAddresses(dialerId, []),
      "wrong-role",
      "Cannot switch peering dialing mode from true to false",
    );
    await failsWith(
      a.records.writeServerAddresses(id, ["10.0.0.9:8503"]),
      "wrong-role",
      "Cannot switch peering dialing mode from false to true",
    );
    await d.records.terminate(dialerId);
    await failsWith(
      d.records.writeServerAddresses(dialerId, ["x:1"]),
      "invalid-record",
      "peering does not exist or has been marked for deletion",
    );
  });
});

describe("ends", () => {
  it("deleting twice keeps the first time; unknown is success; removal needs the mark (LC14, ch3 case 65)", async () => {
    const { records } = await cluster();
    assert.equal(await records.markDeleting("nobody"), undefined);
    const { dialerId } = await peered((await cluster(2)).records, records);
    await failsWith(
      records.remove(dialerId),
      "invalid-record",
      "cannot delete a peering without first marking for deletion",
    );
    const first = must(await records.markDeleting("EAST"));
    assert.equal(first.state, "deleting");
    assert.equal(first.name, "east");
    assert.ok(first.deletedAt !== undefined);
    assert.deepEqual(first.peerServerAddresses, ["10.0.0.1:8503"]);
    assert.deepEqual([first.peerId, first.peerCaPems, first.meta], ["", [], {}]);
    assert.equal(await records.markDeleting("east"), first);
    assert.equal(await records.terminate(dialerId), false);
    assert.equal(records.byId(dialerId), first);
    await records.remove(dialerId);
    await records.remove(dialerId);
    assert.deepEqual(records.list(), []);
  });

  it("a late `Terminated` of the former peering does nothing (ch3 case 71, D-12)", async () => {
    const { records } = await cluster();
    const first = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    const newer = tokenOf("88888888-8888-8888-8888-888888888888");
    const again = await records.beginEstablish({ peerName: "east", token: newer, connected: true });
    await records.finishEstablish(again, "s");
    assert.equal(await records.terminate(first.id, { peerId: first.fields.peerId }), false);
    assert.equal(records.byId(first.id)?.state, "establishing");
    assert.equal(await records.terminate(first.id, { peerId: newer.peerId }), true);
    assert.equal(records.byId(first.id)?.state, "terminated");
    assert.equal(await records.terminate(UNKNOWN), false);
  });

  it("a TERMINATED record keeps everything but its bundle's use, until it is deleted (ST20)", async () => {
    const { records } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    const before = must(records.byId(dialerId));
    await records.terminate(dialerId);
    const after = must(records.byId(dialerId));
    assert.deepEqual(after, { ...before, state: "terminated", modifyIndex: after.modifyIndex });
    await records.remove(dialerId);
    assert.equal(records.byId(dialerId), after, "the operator still sees it");
  });

  it("removal takes bundle, secrets, name and fence with it", async () => {
    const { records, storage } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    await records.writeTrustBundle(dialerId, BUNDLE);
    await records.markDeleting("east");
    await records.remove(dialerId);
    assert.deepEqual(
      (await storage.read([])).entries.map(({ key }) => key),
      [["peerings", "head"]],
    );
  });
});

describe("the fence of imports", () => {
  const data = [{ key: ["imports", "x"], value: new Uint8Array() }];

  it("what expects it commits exactly while the record is active (I17, ch3 case 70)", async () => {
    const { records, storage } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    const atFirst = records.expectation(dialerId);
    await storage.commit(data, atFirst);
    await records.writeServerAddresses(dialerId, ["10.0.0.9:8503"]);
    await records.writeTrustBundle(dialerId, BUNDLE);
    assert.deepEqual(records.expectation(dialerId), atFirst, "updates of the record do not move it");
    await storage.commit(data, atFirst);
    await records.terminate(dialerId);
    for (const expect of [atFirst, records.expectation(dialerId), records.expectation(UNKNOWN)]) {
      assert.equal((await failure(storage.commit(data, expect))).code, "conflict");
    }
    const again = await records.beginEstablish({ peerName: "east", token: tokenOf(UNKNOWN), connected: false });
    assert.equal((await failure(storage.commit(data, records.expectation(dialerId)))).code, "conflict");
    await records.finishEstablish(again, "s");
    await storage.commit(data, records.expectation(dialerId));
    assert.equal((await failure(storage.commit(data, atFirst))).code, "conflict", "of the former life");
    await records.markDeleting("east");
    await records.remove(dialerId);
    assert.equal((await failure(storage.commit(data, atFirst))).code, "conflict");
  });
});

describe("restarts and faults", () => {
  it("after a restart everything is as it was (ST19, ch3 case 83)", async () => {
    const a = await cluster();
    const d = await cluster(2);
    const { id, dialerId, secret } = await peered(a.records, d.records);
    await a.records.generateToken({ peerName: "other", meta: { "odd-key": "ü" } });
    await judged(a.records, open(id, secret));
    await d.records.writeTrustBundle(dialerId, BUNDLE);
    await a.records.markDeleting("other");
    for (const { records, restart } of [a, d]) {
      const again = await restart();
      assert.deepEqual(again.list(), records.list());
      assert.deepEqual(again.trustBundles(), records.trustBundles());
      assert.ok(again.index >= records.index);
      for (const peering of records.list()) {
        assert.deepEqual(again.expectation(peering.id), records.expectation(peering.id));
      }
    }
    assert.equal(await refusalOf(await a.restart(), id, secret), "authorized");
    assert.equal(await secretOf(await d.restart(), dialerId), secret);
  });

  // The durable state at each crash, and how it heals.
  it("after a crash behind the token, generating again works (ch3 case 87)", async () => {
    const { restart, records } = await cluster();
    await records.generateToken({ peerName: "west" });
    const again = await restart();
    const { peering, establishmentSecret } = await again.generateToken({ peerName: "west" });
    await again.exchangeSecret({ peerId: peering.id, establishmentSecret });
  });

  it("the answer of the exchange is lost: the token is burnt, a new one heals (ch3 cases 37, 87)", async () => {
    const a = await cluster();
    const d = await cluster(2);
    const { peering, establishmentSecret } = await a.records.generateToken({ peerName: "west" });
    await d.records.beginEstablish({ peerName: "east", token: tokenOf(peering.id), connected: false });
    const request = { peerId: peering.id, establishmentSecret };
    await a.records.exchangeSecret(request);
    const after = await d.restart();
    const begun = await after.beginEstablish({ peerName: "east", token: tokenOf(peering.id), connected: false });
    const acceptor = await a.restart();
    await failsWith(acceptor.exchangeSecret(request), "permission-denied", "invalid peering establishment secret", 7);
    const token = await acceptor.generateToken({ peerName: "west" });
    const secret = await acceptor.exchangeSecret({ ...request, establishmentSecret: token.establishmentSecret });
    await after.finishEstablish(begun, secret);
    assert.equal(await refusalOf(acceptor, peering.id, secret), "authorized");
  });

  it("both sides restart after each later step, and the stream still opens (ch3 case 87)", async () => {
    const a = await cluster();
    const d = await cluster(2);
    const { id, dialerId } = await peered(a.records, d.records);
    for (let round = 0; round < 3; round++) {
      const secret = await secretOf(await d.restart(), dialerId);
      assert.ok(secret !== undefined);
      assert.equal(await refusalOf(await a.restart(), id, secret), "authorized");
    }
  });

  it("a crash at each step of a deletion leaves a state from which it goes on (ch3 case 77)", async () => {
    const { records, restart } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    await records.writeTrustBundle(dialerId, BUNDLE);
    await records.markDeleting("east");
    const marked = await restart();
    assert.equal(marked.byId(dialerId)?.state, "deleting");
    await marked.removeTrustBundle("east");
    const cleaned = await restart();
    assert.deepEqual(cleaned.trustBundles(), []);
    await cleaned.remove(dialerId);
    assert.deepEqual((await restart()).list(), []);
  });

  it("a refused commit changes neither storage nor memory, and no listener is called", async () => {
    const { records, storage, restart } = await cluster();
    const { peering } = await records.generateToken({ peerName: "west" });
    let told = 0;
    records.onChange(() => told++);
    for (const step of [
      () => records.generateToken({ peerName: "west" }),
      () => records.generateToken({ peerName: "new" }),
      () => records.beginEstablish({ peerName: "new", token: tokenOf(UNKNOWN), connected: false }),
      () => records.terminate(peering.id),
      () => records.markDeleting("west"),
      () => records.writeTrustBundle(peering.id, BUNDLE),
      () => records.revokeToken("west"),
    ]) {
      storage.faults.push("failed");
      assert.equal((await failure(step())).code, "storage-failed");
      assert.deepEqual(records.list(), [peering]);
      assert.deepEqual((await restart()).list(), [peering]);
    }
    assert.equal(told, 0);
    assert.equal(records.outstandingTokens().length, 1);
  });

  it("a commit without an answer is read again, whatever became of it", async () => {
    const { records, storage } = await cluster();
    const { peering } = await records.generateToken({ peerName: "west" });
    const told: (string | undefined)[] = [];
    records.onChange(({ peering }) => told.push(peering?.state));
    storage.faults.push("lost");
    assert.equal((await failure(records.terminate(peering.id))).code, "unavailable");
    assert.equal(records.byId(peering.id)?.state, "pending");
    storage.faults.push("committed-unanswered");
    assert.equal((await failure(records.terminate(peering.id))).code, "unavailable");
    assert.equal(records.byId(peering.id)?.state, "terminated");
    assert.deepEqual(told, ["terminated"]);
  });

  it("another process on the same storage: a stale step is planned again, on the newest state", async () => {
    const { records, restart } = await cluster();
    const other = await restart();
    const { peering } = await records.generateToken({ peerName: "west" });
    const second = await other.generateToken({ peerName: "west" });
    assert.equal(second.peering.id, peering.id);
    assert.equal(await records.terminate(peering.id), true);
    await until(other, () => other.byId(peering.id)?.state === "terminated");
  });

  it("damaged entries are refused at open, and the key is named, not the content", async () => {
    for (const [type, value] of [
      ["record", "not json"],
      ["record", "{}"],
      ["record", "[]"],
      ["secrets", '{"role":"acceptor","establishment":"hunter2","pending":"","active":""}'],
      ["secrets", '{"role":"dialer","sealedActive":"aGk="}'],
    ] as const) {
      const { storage, records, restart } = await cluster();
      const { peering } = await records.generateToken({ peerName: "west" });
      await storage.commit([{ key: ["peerings", type, peering.id], value: new TextEncoder().encode(value) }]);
      const error = await failure(restart());
      assert.equal(error.code, "storage-failed");
      assert.match(error.message, new RegExp(`^stored peering entry peerings/${type}/${peering.id} is damaged: `));
      assert.doesNotMatch(error.message, /hunter2/);
    }
  });

  it("a damaged trust bundle is left out: the peer sends it again", async () => {
    const { storage, records, restart } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    await records.writeTrustBundle(dialerId, BUNDLE);
    await storage.commit([{ key: ["peerings", "bundle", "east"], value: new TextEncoder().encode("{") }]);
    const again = await restart();
    assert.equal(again.trustBundle("east"), undefined);
    await again.writeTrustBundle(dialerId, BUNDLE);
    assert.deepEqual(again.trustBundle("east")?.rootPems, BUNDLE.rootPems);
  });

  it("each damaged field of a record is found", async () => {
    const { storage, records, restart } = await cluster();
    const { dialerId } = await peered((await cluster(2)).records, records);
    const key = ["peerings", "record", dialerId];
    const stored = (await storage.read(key)).entries[0];
    assert.ok(stored !== undefined);
    const fields = new Map<string, unknown>(Object.entries(JSON.parse(new TextDecoder().decode(stored.value))));
    for (const name of fields.keys()) {
      const damaged = Object.fromEntries([...fields].map(([field, value]) => [field, field === name ? 7 : value]));
      await storage.commit([{ key, value: new TextEncoder().encode(JSON.stringify(damaged)) }]);
      assert.match((await failure(restart())).message, /is damaged: bad /, name);
    }
    await storage.commit([{ key, value: stored.value }]);
    await restart();
  });

  it("is closed once disposed of", async () => {
    const { records } = await cluster();
    await records[Symbol.asyncDispose]();
    assert.equal((await failure(records.generateToken({ peerName: "west" }))).code, "closed");
    assert.equal((await failure(records.dialable(UNKNOWN))).code, "closed");
  });
});

describe("secrets at rest", () => {
  it("the acceptor's storage holds no secret, the dialer's only sealed ones (D-21)", async () => {
    const key = new Uint8Array(32).fill(7);
    const a = await cluster(1, { secretBox: sealedSecretBox(key) });
    const d = await cluster(2, { secretBox: sealedSecretBox(key) });
    const { peering, establishmentSecret } = await a.records.generateToken({ peerName: "west" });
    const begun = await d.records.beginEstablish({ peerName: "east", token: tokenOf(peering.id), connected: false });
    const secret = await a.records.exchangeSecret({ peerId: peering.id, establishmentSecret });
    await d.records.finishEstablish(begun, secret);
    await judged(a.records, open(peering.id, secret));
    for (const { storage } of [a, d]) {
      for (const { writes } of storage.commits) {
        for (const { value } of writes) {
          const text = Buffer.from(value ?? []).toString("latin1");
          for (const hidden of [establishmentSecret, secret]) {
            assert.equal(text.includes(hidden), false);
            assert.equal(text.includes(Buffer.from(hidden).toString("base64")), false);
          }
        }
      }
    }
    assert.equal(await secretOf(d.records, begun.id), secret);
  });
});

describe("reading", () => {
  it("lists by name, finds names without case (ST16, ST17)", async () => {
    const { records } = await cluster();
    for (const peerName of ["foo", "bar", "baz"]) await records.generateToken({ peerName });
    assert.deepEqual(
      records.list().map(({ name }) => name),
      ["bar", "baz", "foo"],
    );
    assert.equal(records.byName("FOO")?.name, "foo");
  });

  it("the index moves with every record written and with nothing else (ST15, ST19)", async () => {
    const { records, storage } = await cluster();
    const { peering, establishmentSecret } = await records.generateToken({ peerName: "west" });
    const before = records.index;
    await records.exchangeSecret({ peerId: peering.id, establishmentSecret });
    await storage.commit([{ key: ["else"], value: new Uint8Array() }]);
    assert.equal(records.index, before);
    await records.markDeleting("west");
    const marked = records.index;
    assert.ok(marked > before);
    await records.remove(peering.id);
    assert.ok(records.index > marked);
  });

  it("onChange tells at once, with patches from record to record", async () => {
    const { records } = await cluster();
    const changes: PeeringChange[] = [];
    const stop = records.onChange((change) => {
      assert.equal(records.byId(change.peeringId), change.peering, "memory has it already");
      changes.push(change);
    });
    const { peering } = await records.generateToken({ peerName: "west" });
    await records.terminate(peering.id);
    stop();
    await records.markDeleting("west");
    assert.deepEqual(
      changes.map(({ patches }) => patches),
      [
        [{ op: "replace", path: [], value: peering }],
        [
          { op: "replace", path: ["state"], value: "terminated" },
          { op: "replace", path: ["modifyIndex"], value: changes[1]?.revision },
        ],
      ],
    );
    assert.deepEqual(
      changes.map(({ event, before, beside }) => [event, before?.state, beside]),
      [
        ["generate-token", undefined, ["secrets"]],
        ["peer-terminated", "pending", []],
      ],
    );
  });

  it("onChangeOf tells the changes of one record, in any spelling of its name, and of the next one of that name", async () => {
    const { records } = await cluster();
    const told: string[] = [];
    const stop = records.onChangeOf("West", ({ event, peering }) => told.push(`${event} ${peering?.state}`));
    const { peering } = await records.generateToken({ peerName: "west" });
    await records.generateToken({ peerName: "east" });
    await records.markDeleting("east");
    await records.markDeleting("WEST");
    await records.remove(peering.id);
    await records.generateToken({ peerName: "west" });
    const expected = ["generate-token pending", "delete-requested deleting", "cleanup-finished undefined"];
    assert.deepEqual(told, [...expected, "generate-token pending"]);
    stop();
    await records.markDeleting("west");
    assert.equal(told.length, 4);
  });

  it("a listener that throws keeps neither the commit from memory nor the others from hearing of it", async () => {
    const { records } = await cluster();
    let told = 0;
    records.onChange(() => {
      throw new Error("a fault of the application");
    });
    records.onChange(() => told++);
    records.onBundlesChange(() => {
      throw new Error("another fault");
    });
    const { dialerId } = await peered((await cluster(2)).records, records);
    await records.writeTrustBundle(dialerId, BUNDLE);
    assert.equal(told, 3);
    assert.deepEqual(records.trustBundle("east"), { ...BUNDLE, peerName: "east" });
  });
});

describe("a record written as it is given", () => {
  const given = {
    name: "west",
    meta: { a: "b" },
    peerId: "",
    peerCaPems: [],
    peerServerName: "",
    peerServerAddresses: [],
    manualServerAddresses: [],
    remote: { partition: "", datacenter: "" },
  };
  const dialing = { ...given, name: "east", peerServerAddresses: ["10.0.0.1:8503"], peerId: UNKNOWN };

  it("is made with a new id, then replaced as a whole under the same", async () => {
    const { records } = await cluster();
    await records.write(given);
    const first = must(records.byName("west"));
    assert.deepEqual([first.state, first.meta], ["pending", { a: "b" }]);
    await records.write({ ...given, meta: {}, state: "terminated" });
    const second = must(records.byName("west"));
    assert.deepEqual([second.id, second.state, second.meta], [first.id, "terminated", {}]);
  });

  it("takes secrets that then authorise, kept as an acceptor and a dialer keep them", async () => {
    const { records } = await cluster();
    await records.write(given, { type: "generate_token", establishmentSecret: "E" });
    const { id } = must(records.byName("west"));
    const first = await records.exchangeSecret({ peerId: id, establishmentSecret: "E" });
    await records.write(given, { type: "promote_pending", activeStreamSecret: first });
    assert.equal(await refusalOf(records, id, first), "authorized");
    await records.write(given, { type: "generate_token", establishmentSecret: "E2" });
    await records.write(given, { type: "exchange_secret", establishmentSecret: "E2", pendingStreamSecret: "P" });
    assert.equal(await refusalOf(records, id, "P"), "authorized");
    await records.write(dialing, { type: "establish", activeStreamSecret: "S" });
    assert.equal(await secretOf(records, must(records.byName("east")).id), "S");
  });

  it("keeps the rules of the store, with its texts", async () => {
    const { records } = await cluster();
    await failsWith(records.write({ ...given, name: "" }), "invalid-record", "Missing Peering Name");
    assert.equal((await failure(records.write({ ...given, name: "Not a name" }))).code, "invalid-name");
    await failsWith(
      records.write({ ...given, state: "deleting" }),
      "invalid-record",
      "Missing deletion time for peering in deleting state",
    );
    await records.write(given);
    await failsWith(
      records.write({ ...dialing, name: "west" }),
      "wrong-role",
      "Cannot switch peering dialing mode from false to true",
    );
    await failsWith(
      records.write(dialing, { type: "generate_token", establishmentSecret: "E" }),
      "invalid-secret",
      "failed to write peering establishment secret: invalid request type generate_token when persisting stream secret for dialing peer",
    );
    for (const secrets of [
      { type: "establish", activeStreamSecret: "" },
      { type: "promote_pending", activeStreamSecret: "" },
    ] as const) {
      await failsWith(
        records.write(dialing, secrets),
        "invalid-secret",
        "failed to write peering establishment secret: invalid secret write request: missing secret ID",
      );
    }
    assert.equal(records.byName("east"), undefined);
  });
});
