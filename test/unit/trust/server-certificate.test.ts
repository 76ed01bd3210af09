import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import fc from "fast-check";
import type { Random } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { type FixedAuthority, fixedAuthority } from "../../../src/testing/fixed-authority.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { ServerCertificate } from "../../../src/trust/server-certificate.js";
import { handshake, ManualClock, settle } from "./support.js";

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const LIFE = 72 * HOUR;
const START = Date.UTC(2026, 0, 1);
const trustDomain = "11111111-2222-3333-4444-555555555555.consul";

/** A certificate over an authority that counts what it issues, and fails while it is told to. */
function served(
  fraction = 0.5,
  failure?: Error,
): {
  certificate: ServerCertificate;
  authority: FixedAuthority;
  clock: ManualClock;
  issuedAt: number[];
  fail: { with: Error | undefined };
  warnings: string[];
} {
  const clock = new ManualClock(START);
  const authority = fixedAuthority({ trustDomain, clock });
  const issuedAt: number[] = [];
  const fail: { with: Error | undefined } = { with: failure };
  const random: Random = { bytes: (length) => new Uint8Array(length), fraction: () => fraction };
  const warnings: string[] = [];
  const ignore = (): void => {};
  const certificate = new ServerCertificate({
    authority: {
      ...authority,
      issueServer(datacenter) {
        issuedAt.push(clock.wall() - START);
        return fail.with === undefined ? authority.issueServer(datacenter) : Promise.reject(fail.with);
      },
    },
    datacenter: "dc1",
    clock,
    random,
    logger: { debug: ignore, info: ignore, error: ignore, warn: (message) => warnings.push(message) },
  });
  return { certificate, authority, clock, issuedAt, fail, warnings };
}

test("before the first certificate a handshake fails, afterwards it is served", async () => {
  const { certificate, authority } = served();
  await using _ = certificate;
  assert.equal(certificate.serverName, `server.dc1.peering.${trustDomain}`);
  assert.throws(() => certificate.current(), { name: "PeeringError", code: "unavailable" });
  assert.equal(certificate.status, undefined);
  await certificate.ready();
  assert.equal(certificate.current().certificateChainPem, authority.roots()[0]?.certificatePem);
  assert.deepEqual(certificate.status, {
    notBefore: START - 60 * SECOND,
    notAfter: START - 60 * SECOND + LIFE,
    rootId: authority.roots()[0]?.id,
    renewalError: undefined,
  });
});

test("renewed once, at a random point between 60 and 90 % of its life", async () => {
  await fc.assert(
    fc.asyncProperty(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), async (fraction) => {
      const { certificate, clock, issuedAt } = served(fraction);
      await using _ = certificate;
      await clock.advance(LIFE * 0.6 - 60 * SECOND - 1);
      assert.deepEqual(issuedAt, [0]);
      await clock.advance(LIFE * 0.3 + 1);
      assert.equal(issuedAt.length, 2);
      const age = ((issuedAt[1] ?? 0) + 60 * SECOND) / LIFE;
      assert.ok(Math.abs(age - (0.6 + 0.3 * fraction)) < 1e-6, `${age}`);
    }),
    { numRuns: 25 },
  );
});

test("renewed within 30 s of another root becoming active, once", async () => {
  for (const fraction of [0, 0.5, 0.999]) {
    const { certificate, authority, clock, issuedAt } = served(fraction);
    await using _ = certificate;
    await clock.advance(HOUR);
    authority.rotate();
    await clock.advance(30 * SECOND);
    assert.deepEqual(issuedAt, [0, HOUR + 30 * SECOND * fraction]);
    assert.equal(certificate.status?.rootId, authority.roots()[1]?.id);
    authority.prune();
    await clock.advance(HOUR);
    assert.equal(issuedAt.length, 2);
  }
});

test("a rotation while a certificate is being issued is not missed", async () => {
  const { certificate, authority, clock, issuedAt } = served();
  await using _ = certificate;
  authority.rotate(); // The first certificate is still under way, and of the old root.
  await clock.advance(30 * SECOND);
  assert.deepEqual(issuedAt, [0, 15 * SECOND]);
  assert.equal(certificate.status?.rootId, authority.roots()[1]?.id);
});

test("a failed renewal is tried again after 1 s, 2 s, 4 s, up to 5 min, and up to 20 % longer", async () => {
  for (const fraction of [0, 0.5]) {
    const { certificate, clock, issuedAt, fail, warnings } = served(fraction);
    await using _ = certificate;
    await certificate.ready();
    fail.with = new PeeringError("storage-failed", "disk full");
    await clock.advance(LIFE);
    const waits = issuedAt.slice(1).map((at, index, all) => (all[index + 1] ?? 0) - at);
    const jitter = 1 + 0.2 * fraction;
    assert.deepEqual(
      waits.slice(0, 11).map((wait) => Math.round(wait / jitter / SECOND)),
      [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300],
    );
    assert.equal(warnings.length, issuedAt.length - 1);
    assert.equal(certificate.status?.renewalError, "disk full");
    fail.with = undefined;
    await clock.advance(360 * SECOND);
    assert.equal(certificate.status?.renewalError, undefined);
    assert.ok((certificate.status?.notAfter ?? 0) > clock.wall());
  }
});

test("what could not be issued at first is issued later, and ready then", async () => {
  const { certificate, authority, clock, issuedAt, fail } = served(0, new Error("not yet"));
  await using _ = certificate;
  let isReady = false;
  const ready = certificate.ready().then(() => {
    isReady = true;
  });
  await clock.advance(2 * SECOND);
  assert.deepEqual(issuedAt, [0, SECOND]);
  assert.throws(() => certificate.current(), { code: "unavailable" });
  assert.equal(isReady, false);
  fail.with = undefined;
  await clock.advance(SECOND);
  await ready;
  assert.equal(certificate.current().certificateChainPem, authority.roots()[0]?.certificatePem);
});

test("after a machine slept past the end, the first handshake or the next look at the calendar renews", async () => {
  const first = served();
  await using _ = first.certificate;
  await settle();
  first.clock.skip(2 * LIFE);
  first.certificate.current();
  await settle();
  assert.deepEqual(first.issuedAt, [0, 2 * LIFE]);
  assert.ok((first.certificate.status?.notAfter ?? 0) > first.clock.wall());

  const second = served();
  await using __ = second.certificate;
  await settle();
  second.clock.skip(2 * LIFE);
  await second.clock.advance(600 * SECOND);
  assert.equal(second.issuedAt.length, 2);
});

test("disposed of, it leaves no timer and no listener, and a waiting ready ends", async () => {
  const { certificate, authority, clock, issuedAt } = served();
  const ready = certificate.ready();
  await certificate[Symbol.asyncDispose]();
  await assert.rejects(ready, { code: "closed" });
  authority.rotate();
  await clock.advance(2 * LIFE);
  assert.equal(clock.pending, 0);
  assert.deepEqual(issuedAt, [0]);
});

test("with the built-in authority: handshakes before and after a rotation, for dialers of either root", async () => {
  const storage = memoryStorage();
  const clock = new ManualClock(Date.now());
  await using authority = await builtInAuthority({ storage, clock });
  await using certificate = new ServerCertificate({ authority, datacenter: "dc1", clock });
  await certificate.ready();
  const servername = certificate.serverName;
  const [o] = authority.roots();
  assert.ok(o);
  await handshake(certificate.current(), { ca: [o.certificatePem], servername });
  const renewed = new Promise<void>((resolve) => authority.onRootsChanged(resolve));
  const n = await authority.rotate();
  await renewed;
  // The dialer that knows both roots, or only the old one, is served by the old certificate until it is renewed.
  await handshake(certificate.current(), { ca: [o.certificatePem, n.certificatePem], servername });
  await clock.advance(30 * SECOND);
  while (certificate.status?.rootId !== n.id) await settle();
  for (const ca of [[o.certificatePem], [n.certificatePem], [o.certificatePem, n.certificatePem]]) {
    await handshake(certificate.current(), { ca, servername });
  }
  assert.doesNotMatch(inspect(certificate, { depth: 9 }) + JSON.stringify(certificate), /PRIVATE KEY/);
});
