import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { test } from "node:test";
import { inspect } from "node:util";
import { PeeringError } from "../../../src/base/errors.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage, Write } from "../../../src/storage/storage.js";
import { certificatesIn } from "../../../src/token/pem.js";
import { peeringServerName } from "../../../src/trust/authority.js";
import { type BuiltInAuthority, builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { storageWith } from "../../support/storage.js";
import { fieldsOf, verifyAsGo } from "./go-verifier.js";
import { handshake, ManualClock, settle } from "./support.js";

const HOUR = 3_600_000;
const START = Date.UTC(2026, 0, 1);

// X.509 key usage bits.
const DIGITAL_SIGNATURE = 1;
const KEY_ENCIPHERMENT = 4;
const DATA_ENCIPHERMENT = 8;
const KEY_AGREEMENT = 16;
const KEY_CERT_SIGN = 32;
const CRL_SIGN = 64;

async function open(options: { storage?: Storage; clock?: ManualClock } = {}): Promise<{
  authority: BuiltInAuthority;
  storage: Storage;
  clock: ManualClock;
}> {
  const storage = options.storage ?? memoryStorage();
  const clock = options.clock ?? new ManualClock(START);
  return { authority: await builtInAuthority({ storage, clock }), storage, clock };
}

function pems(authority: BuiltInAuthority): string[] {
  return authority.roots().map(({ certificatePem }) => certificatePem);
}

function only(list: readonly string[]): string {
  const [first, ...more] = list;
  assert.ok(first);
  assert.equal(more.length, 0);
  return first;
}

test("a cluster id that is given is that of a new authority, and no other one's", async () => {
  const [first, second] = ["AAAAAAAA-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"];
  const storage = memoryStorage();
  for (const clusterId of [first, second]) {
    await using authority = await builtInAuthority({ storage, clusterId });
    assert.equal(authority.trustDomain, "aaaaaaaa-2222-3333-4444-555555555555.consul");
  }
  for (const clusterId of ["", "aaaaaaaa", `${second}0`, `${second}.x`]) {
    await assert.rejects(builtInAuthority({ storage: memoryStorage(), clusterId }), TypeError);
  }
});

test("a fresh authority makes a root with Consul's profile", async () => {
  const { authority } = await open();
  await using _ = authority;
  assert.match(authority.clusterId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.equal(authority.trustDomain, `${authority.clusterId}.consul`);
  const pem = only(pems(authority));
  assert.ok(pem.startsWith("-----BEGIN CERTIFICATE-----\n") && pem.endsWith("-----END CERTIFICATE-----\n"));
  const fields = fieldsOf(pem);
  assert.match(
    fields.subject,
    new RegExp(`^CN=pri-[0-9a-z]{8}\\.peerage\\.ca\\.${authority.clusterId.slice(0, 8)}\\.consul$`),
  );
  assert.ok(fields.subject.length - 3 <= 64);
  assert.equal(fields.issuer, fields.subject);
  assert.deepEqual(fields.uris, [`spiffe://${authority.trustDomain}`]);
  assert.deepEqual(fields.dnsNames, []);
  assert.equal(fields.namesCritical, false);
  assert.deepEqual([fields.ca, fields.constraintsCritical, fields.pathLength], [true, true, undefined]);
  assert.equal(fields.usages, KEY_CERT_SIGN | CRL_SIGN | DIGITAL_SIGNATURE);
  assert.equal(fields.usagesCritical, true);
  assert.equal(fields.extendedUsages, undefined);
  assert.equal(fields.subjectKeyId, fields.keyId);
  assert.equal(fields.authorityKeyId, fields.keyId);
  assert.equal(fields.curve, "prime256v1");
  assert.equal(fields.notBefore, START);
  assert.equal(fields.notAfter, START + 87_600 * HOUR);
  assert.equal(fields.serialNumber, 1n);
  const certificate = new X509Certificate(pem);
  assert.ok(certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey));
});

test("the id of a root is the SHA-1 of its DER in colon hex", async () => {
  const { authority } = await open();
  await using _ = authority;
  const [root] = authority.roots();
  assert.ok(root);
  const hex = createHash("sha1").update(new X509Certificate(root.certificatePem).raw).digest("hex");
  assert.equal(root.id, hex.replace(/(..)(?=.)/g, "$1:"));
  assert.equal(root.notAfter, START + 87_600 * HOUR);
});

test("a server leaf has the profile, and Go would accept it", async () => {
  const { authority } = await open();
  await using _ = authority;
  const issued = await authority.issueServer("dc1");
  const name = peeringServerName("dc1", authority.trustDomain);
  assert.equal(name, `server.dc1.peering.${authority.trustDomain}`);
  assert.equal(certificatesIn(issued.certificateChainPem).length, 1);
  const fields = fieldsOf(issued.certificateChainPem);
  assert.equal(fields.subject, "");
  assert.equal(fields.namesCritical, true);
  assert.deepEqual(fields.uris, [`spiffe://${authority.trustDomain}/agent/server/dc/dc1`]);
  assert.deepEqual(fields.dnsNames, [name]);
  assert.equal(fields.otherNames, 0);
  assert.deepEqual([fields.ca, fields.constraintsCritical], [false, true]);
  assert.equal(fields.usages, DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | DATA_ENCIPHERMENT | KEY_AGREEMENT);
  assert.equal(fields.usagesCritical, true);
  assert.deepEqual(fields.extendedUsages, ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"]);
  assert.equal(fields.curve, "prime256v1");
  assert.equal(fields.subjectKeyId, fields.keyId);
  assert.equal(fields.authorityKeyId, fieldsOf(only(pems(authority))).subjectKeyId);
  assert.equal(fields.notBefore, START - 60_000);
  assert.equal(fields.notAfter, START - 60_000 + 72 * HOUR);
  assert.deepEqual([issued.notBefore, issued.notAfter], [fields.notBefore, fields.notAfter]);
  assert.equal(issued.rootId, authority.roots()[0]?.id);
  assert.match(issued.privateKeyPem, /^-----BEGIN EC PRIVATE KEY-----\n/);
  verifyAsGo(issued.certificateChainPem, pems(authority), name, START);
});

test("a real handshake accepts the leaf under its root and name, and under no other", async () => {
  const storage = memoryStorage();
  await using authority = await builtInAuthority({ storage });
  await using stranger = await builtInAuthority({ storage: memoryStorage() });
  const issued = await authority.issueServer("dc1");
  const servername = peeringServerName("dc1", authority.trustDomain);
  await handshake(issued, { ca: pems(authority), servername });
  await handshake(issued, { ca: [...pems(stranger), ...pems(authority)], servername });
  await assert.rejects(handshake(issued, { ca: pems(stranger), servername }));
  await assert.rejects(
    handshake(issued, { ca: pems(authority), servername: peeringServerName("dc2", authority.trustDomain) }),
    { code: "ERR_TLS_CERT_ALTNAME_INVALID" },
  );
});

test("after a rotation leafs verify under the old root alone and under the new root alone", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const before = await authority.issueServer("dc1");
  const oldPem = only(pems(authority));
  const rotated = await authority.rotate();
  const [old, fresh] = authority.roots();
  assert.ok(old && fresh);
  assert.deepEqual([old.active, old.certificatePem], [false, oldPem]);
  assert.ok(old.rotatedOutAt);
  assert.deepEqual([fresh.active, fresh.rotatedOutAt, fresh.id], [true, undefined, rotated.id]);

  const after = await authority.issueServer("dc1");
  assert.equal(after.rootId, fresh.id);
  const [, intermediate, ...more] = certificatesIn(after.certificateChainPem);
  assert.ok(intermediate);
  assert.equal(more.length, 0);
  assert.ok(intermediate.certificate.verify(new X509Certificate(oldPem).publicKey));
  const [crossSigned, newRoot] = [fieldsOf(intermediate.pem), fieldsOf(fresh.certificatePem)];
  assert.equal(crossSigned.subject, newRoot.subject);
  assert.equal(crossSigned.subjectKeyId, newRoot.subjectKeyId);
  assert.equal(crossSigned.authorityKeyId, fieldsOf(oldPem).subjectKeyId);
  assert.notEqual(crossSigned.serialNumber, newRoot.serialNumber);
  assert.deepEqual(crossSigned.uris, newRoot.uris);

  const servername = peeringServerName("dc1", authority.trustDomain);
  const now = Date.now();
  for (const [leaf, ca] of [
    [after, [oldPem]],
    [after, [fresh.certificatePem]],
    [after, pems(authority)],
    [before, [oldPem]],
    [before, pems(authority)],
  ] as const) {
    verifyAsGo(leaf.certificateChainPem, ca, servername, now);
    await handshake(leaf, { ca, servername });
  }
  await assert.rejects(handshake(before, { ca: [fresh.certificatePem], servername }));
});

test("after several rotations who knows only the first root still gets through", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const first = only(pems(authority));
  await authority.rotate();
  await authority.rotate();
  const issued = await authority.issueServer("dc1");
  const servername = peeringServerName("dc1", authority.trustDomain);
  for (const root of [first, ...pems(authority)]) {
    verifyAsGo(issued.certificateChainPem, [root], servername, Date.now());
    await handshake(issued, { ca: [root], servername });
  }
});

test("the old root is pruned when it has been out for more than twice the life of a leaf", async () => {
  const { authority, clock } = await open();
  await using _ = authority;
  const [old] = authority.roots();
  const fresh = await authority.rotate();
  let changes = 0;
  authority.onRootsChanged(() => changes++);
  clock.skip(144 * HOUR);
  assert.equal(await authority.prune(), false);
  assert.deepEqual(
    authority.roots().map(({ id }) => id),
    [old?.id, fresh.id],
  );
  clock.skip(1);
  assert.equal(await authority.prune(), true);
  assert.deepEqual(authority.roots(), [fresh]);
  assert.equal(await authority.prune(), false);
  assert.equal(changes, 1);
});

test("pruning happens by itself, every hour", async () => {
  const { authority, clock } = await open();
  await using _ = authority;
  await authority.rotate();
  await clock.advance(144 * HOUR);
  assert.equal(authority.roots().length, 2);
  await clock.advance(HOUR);
  assert.equal(authority.roots().length, 1);
});

test("what peers are sent goes O, O N, N in a rotation, and never holds an intermediate", async () => {
  const { authority, clock } = await open();
  await using _ = authority;
  const sent = [pems(authority)];
  authority.onRootsChanged(() => sent.push(pems(authority)));
  await authority.rotate();
  clock.skip(145 * HOUR);
  await authority.prune();
  const [o, on, n] = sent;
  assert.equal(sent.length, 3);
  assert.deepEqual(on, [...(o ?? []), ...(n ?? [])]);
  for (const pem of sent.flat()) {
    const certificate = new X509Certificate(pem);
    assert.ok(certificate.checkIssued(certificate), "self-signed");
  }
});

test("a reopened authority is the same one, and serial numbers never come twice", async () => {
  const { authority, storage, clock } = await open();
  await authority.rotate();
  const roots = authority.roots();
  const serials = [
    ...roots.map(({ certificatePem }) => fieldsOf(certificatePem).serialNumber),
    ...certificatesIn((await authority.issueServer("dc1")).certificateChainPem).map(
      ({ pem }) => fieldsOf(pem).serialNumber,
    ),
  ];
  await authority[Symbol.asyncDispose]();
  const again = await open({ storage, clock });
  await using _ = again.authority;
  assert.equal(again.authority.trustDomain, authority.trustDomain);
  assert.deepEqual(again.authority.roots(), roots);
  const issued = await again.authority.issueServer("dc1");
  serials.push(fieldsOf(issued.certificateChainPem).serialNumber);
  assert.equal(new Set(serials).size, 5);
  assert.equal(clock.pending, 1);
});

test("two nodes that start on an empty storage found one authority, and see each other's rotations", async () => {
  const storage = memoryStorage();
  const clock = new ManualClock(START);
  const [a, b] = await Promise.all([open({ storage, clock }), open({ storage, clock })]);
  await using first = a.authority;
  await using second = b.authority;
  assert.equal(first.trustDomain, second.trustDomain);
  assert.deepEqual(first.roots(), second.roots());
  const seen = new Promise<void>((resolve) => second.onRootsChanged(resolve));
  await first.rotate();
  await seen;
  assert.deepEqual(second.roots(), first.roots());
  const leafs = await Promise.all([first, second, first, second].map((node) => node.issueServer("dc1")));
  const serials = leafs.map((leaf) => fieldsOf(leaf.certificateChainPem).serialNumber);
  assert.equal(new Set(serials).size, leafs.length);
  const rootId = first.roots().find(({ active }) => active)?.id;
  for (const leaf of leafs) assert.equal(leaf.rootId, rootId);
});

test("a rotation is one commit; one that fails changes nothing", async () => {
  const inner = memoryStorage();
  let failure: PeeringError | undefined;
  const commits: (readonly Write[])[] = [];
  const storage = storageWith(inner, {
    async commit(...given) {
      if (failure !== undefined) throw failure;
      commits.push(given[0]);
      return inner.commit(...given);
    },
  });
  const { authority } = await open({ storage });
  await using _ = authority;
  const before = authority.roots();
  let changes = 0;
  authority.onRootsChanged(() => changes++);
  for (const code of ["storage-failed", "unavailable"] as const) {
    failure = new PeeringError(code, "disk full");
    await assert.rejects(authority.rotate(), { code, message: "disk full" });
    await assert.rejects(authority.issueServer("dc1"), { code });
  }
  assert.deepEqual(authority.roots(), before);
  assert.equal(changes, 0);
  failure = undefined;
  commits.length = 0;
  await authority.rotate();
  assert.equal(commits.length, 1);
  assert.equal(changes, 1);
});

test("a rotation whose commit is reported lost but happened is found", async () => {
  const inner = memoryStorage();
  let lose = false;
  const storage = storageWith(inner, {
    async commit(...given) {
      const revision = await inner.commit(...given);
      if (lose) throw new PeeringError("unavailable", "no answer");
      return revision;
    },
  });
  const { authority } = await open({ storage });
  await using _ = authority;
  lose = true;
  await assert.rejects(authority.rotate(), { code: "unavailable" });
  lose = false;
  assert.equal(authority.roots().length, 2);
  assert.equal((await authority.issueServer("dc1")).rootId, authority.roots()[1]?.id);
});

test("keys are sealed at rest, only the active root keeps one, and another key opens nothing", async () => {
  const storage = memoryStorage();
  const clock = new ManualClock(START);
  const secretBox = sealedSecretBox(new Uint8Array(32).fill(1));
  const authority = await builtInAuthority({ storage, clock, secretBox });
  await authority.rotate();
  await authority[Symbol.asyncDispose]();
  const { entries } = await storage.read([]);
  const text = entries.map(({ value }) => Buffer.from(value).toString()).join("\n");
  assert.doesNotMatch(text, /PRIVATE KEY|LS0tLS1CRUdJTi/);
  assert.equal(text.match(/"sealedKey"/g)?.length, 1);
  for (const options of [{ secretBox: sealedSecretBox(new Uint8Array(32).fill(2)) }, {}]) {
    await assert.rejects(builtInAuthority({ storage, clock, ...options }), { code: "invalid-argument" });
  }
  await using again = await builtInAuthority({ storage, clock, secretBox });
  assert.deepEqual(again.roots(), authority.roots());
});

test("a private key shows in no JSON and no printed object", async () => {
  const { authority } = await open();
  await using _ = authority;
  const issued = await authority.issueServer("dc1");
  const shown = [authority, issued, { ...issued }].map((value) => inspect(value, { depth: 9 }) + JSON.stringify(value));
  assert.ok(issued.privateKeyPem.includes("PRIVATE KEY"));
  assert.doesNotMatch(shown.join(), /PRIVATE KEY/);
});

test("a damaged authority is reported, not replaced, and its content is not quoted", async () => {
  const { authority, storage } = await open();
  await authority[Symbol.asyncDispose]();
  const { entries } = await storage.read(["ca", "state"]);
  const text = Buffer.from(entries[0]?.value ?? []).toString();
  const refused = (error: unknown): boolean => {
    assert.ok(error instanceof PeeringError);
    assert.equal(error.code, "storage-failed");
    assert.match(error.message, /^stored part of the certificate authority ca\/(state|serial) is damaged: /);
    assert.match(
      error.remedy ?? "",
      /^(Restore the directory from a backup|Start the version of Peerage that wrote it)/,
    );
    assert.doesNotMatch(inspect(error), /sealedKey|BEGIN/);
    return true;
  };
  for (const broken of [
    "",
    "null",
    "{}",
    text.slice(0, -1),
    text.replace('"version":1', '"version":2'),
    text.replace("BEGIN CERTIFICATE", "BEGIN NOTHING"),
    text.replace('"sealedKey":"', '"sealedKey":"AAAA'),
    text.replace(/,"sealedKey":"[^"]*"/, ""),
    text.replace(/"roots":\[.*\]/s, '"roots":[]'),
    text.replace(/"roots":\[(.*)\]/s, '"roots":[$1,$1]'),
    text.replace(/"roots":\[.*\]/s, '"roots":7'),
    text.replace(/"clusterId":"[^"]*"/, '"clusterId":""'),
  ]) {
    assert.notEqual(broken, text);
    const copy = memoryStorage();
    await copy.commit([
      { key: ["ca", "state"], value: Buffer.from(broken) },
      { key: ["ca", "serial"], value: Buffer.from("2") },
    ]);
    await assert.rejects(open({ storage: copy }), refused, broken);
  }
  await storage.commit([{ key: ["ca", "serial"], value: Buffer.from("x") }]);
  await assert.rejects(open({ storage }), refused);
  await storage.commit([{ key: ["ca", "serial"], value: undefined }]);
  await assert.rejects(open({ storage }), refused);
});

test("an authority of which all rows are gone is not made new where there was one", async () => {
  const { authority, storage } = await open();
  await authority[Symbol.asyncDispose]();
  await storage.commit([
    { key: ["ca", "state"], value: undefined },
    { key: ["ca", "serial"], value: undefined },
  ]);
  const { entries } = await storage.read([]);
  await assert.rejects(open({ storage }), {
    code: "storage-failed",
    message: "stored part of the certificate authority ca/state is damaged: it is missing",
  });
  assert.deepEqual((await storage.read([])).entries, entries);
});

test("no leaf outlives its root, and an expired root signs nothing", async () => {
  const { authority, clock } = await open();
  await using _ = authority;
  clock.skip(87_600 * HOUR - HOUR);
  assert.equal((await authority.issueServer("dc1")).notAfter, START + 87_600 * HOUR);
  clock.skip(HOUR);
  await assert.rejects(authority.issueServer("dc1"), { code: "unavailable" });
});

test("a listener that throws does not keep the others from hearing", async () => {
  const { authority } = await open();
  await using _ = authority;
  let heard = 0;
  authority.onRootsChanged(() => {
    throw new Error("mine");
  });
  const stop = authority.onRootsChanged(() => heard++);
  await authority.rotate();
  stop();
  await authority.rotate();
  assert.equal(heard, 1);
});

test("a disposed authority has no timers, and refuses", async () => {
  const { authority, clock } = await open();
  await authority[Symbol.asyncDispose]();
  await settle();
  assert.equal(clock.pending, 0);
  await assert.rejects(authority.rotate(), { code: "closed" });
});

test("the life of leafs is from one hour to a year", async () => {
  for (const leafTtlMs of [0, HOUR - 1, 8_760 * HOUR + 1, Number.NaN]) {
    await assert.rejects(builtInAuthority({ storage: memoryStorage(), leafTtlMs }), TypeError);
  }
  const clock = new ManualClock(START);
  await using authority = await builtInAuthority({ storage: memoryStorage(), leafTtlMs: HOUR, clock });
  const { notBefore, notAfter } = await authority.issueServer("dc1");
  assert.equal(notAfter - notBefore, HOUR);
});
