import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Incidents } from "../../../src/base/incidents.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { certificatesIn } from "../../../src/token/pem.js";
import { peeringServerName } from "../../../src/trust/authority.js";
import {
  type BuiltInAuthority,
  type BuiltInAuthorityOptions,
  builtInAuthority,
} from "../../../src/trust/built-in-authority.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { givenRoot, newKey, pemOf } from "../../support/given-root.js";
import { storageWith } from "../../support/storage.js";
import { withUnreadableKey } from "../../support/unreadable-key.js";
import { fieldsOf, verifyAsGo } from "./go-verifier.js";
import { handshake, ManualClock } from "./support.js";

const HOUR = 3_600_000;
const WEB = { kind: "service", datacenter: "dc1", service: "web" } as const;
const DEFAULTS = { IntermediateCertTTL: "8760h", LeafCertTTL: "72h", RootCertTTL: "87600h" };

function open(options: Partial<BuiltInAuthorityOptions> = {}): Promise<BuiltInAuthority> {
  return builtInAuthority({ storage: memoryStorage(), ...options });
}

function activeRoot(authority: BuiltInAuthority): { readonly id: string; readonly certificatePem: string } {
  const active = authority.roots().find((root) => root.active);
  assert.ok(active);
  return active;
}

const configured = (config: Readonly<Record<string, unknown>>): { readonly config: typeof config } => ({ config });

describe("the configuration of the authority", () => {
  it("is Consul's default as long as nobody has written one, and has indexes that outlive a restart", async () => {
    const storage = memoryStorage();
    await using first = await open({ storage });
    const { config, forceWithoutCrossSigning, createIndex, modifyIndex } = first.configuration();
    assert.deepEqual([config, forceWithoutCrossSigning], [DEFAULTS, false]);
    assert.equal(createIndex, modifyIndex);
    await first.configure(configured({ LeafCertTTL: "50h" }));
    const changed = first.configuration();
    assert.deepEqual(changed.config, { LeafCertTTL: "50h" });
    assert.equal(changed.createIndex, createIndex);
    assert.ok(changed.modifyIndex > modifyIndex);
    await using again = await open({ storage });
    assert.deepEqual(again.configuration(), changed);
  });

  it("decides how long leafs live, from the next one on, and after a restart, too", async () => {
    const storage = memoryStorage();
    await using authority = await open({ storage });
    assert.equal(await authority.configure(configured({ LeafCertTTL: "50h" })), false);
    const { notBefore, notAfter } = await authority.issueServer("dc1");
    assert.equal(notAfter - notBefore, 50 * HOUR);
    await using again = await open({ storage });
    const later = await again.issueLeaf(WEB);
    assert.equal(later.notAfter - later.notBefore, 50 * HOUR);
  });

  it("decides how long old roots are kept", async () => {
    const clock = new ManualClock(Date.now());
    await using authority = await open({ clock });
    await authority.configure(configured({ LeafCertTTL: "1h" }));
    await authority.rotate();
    clock.skip(2 * HOUR);
    assert.equal(await authority.prune(), false);
    clock.skip(1);
    assert.equal(await authority.prune(), true);
  });

  it("keeps the root where nothing asks for another one, and tells nobody that roots have changed", async () => {
    await using authority = await open();
    const roots = authority.roots();
    let changes = 0;
    authority.onRootsChanged(() => changes++);
    for (const config of [
      { LeafCertTTL: "73h" },
      { RootCertTTL: "9000h" },
      { PrivateKeyType: "ec", PrivateKeyBits: 256 },
      { PrivateKeyBits: "256" },
      {},
    ]) {
      assert.equal(await authority.configure(configured(config)), false, JSON.stringify(config));
      assert.deepEqual(authority.configuration().config, config);
    }
    assert.deepEqual(authority.roots(), roots);
    assert.equal(changes, 0);
  });

  it("writes nothing when nothing is changed", async () => {
    let commits = 0;
    const inner = memoryStorage();
    const storage = storageWith(inner, {
      commit: (...given) => {
        commits++;
        return inner.commit(...given);
      },
    });
    const root = await givenRoot();
    await using authority = await open({ storage });
    const change = { PrivateKey: root.keyPem, RootCert: root.certificatePem };
    await authority.configure(configured(DEFAULTS));
    assert.equal(await authority.configure(configured(change)), true);
    const before = [commits, authority.configuration()];
    assert.equal(await authority.configure(configured(change)), false);
    assert.equal(await authority.configure(configured({ RootCert: root.certificatePem })), false);
    // The same key in another form.
    const sec1 = createPrivateKey(root.keyPem).export({ type: "sec1", format: "pem" }).toString();
    assert.equal(await authority.configure(configured({ ...change, PrivateKey: sec1 })), false);
    assert.equal(await authority.configure({ config: change, forceWithoutCrossSigning: true, modifyIndex: 1n }), false);
    assert.deepEqual([commits, authority.configuration()], before);
  });

  it("acts on the index that is expected, where the root stays", async () => {
    await using authority = await open();
    const { modifyIndex } = authority.configuration();
    await authority.configure({ config: { LeafCertTTL: "73h" }, modifyIndex });
    await assert.rejects(authority.configure({ config: { LeafCertTTL: "74h" }, modifyIndex }), {
      code: "conflict",
      message: "ModifyIndex did not match existing",
    });
    assert.deepEqual(authority.configuration().config, { LeafCertTTL: "73h" });
  });
});

describe("a configuration that asks for another root", () => {
  for (const [config, type, bits] of [
    [{ PrivateKeyType: "ec", PrivateKeyBits: 384 }, "ec", "secp384r1"],
    [{ privatekeybits: "521" }, "ec", "secp521r1"],
    [{ PrivateKeyType: "rsa", PrivateKeyBits: 2048 }, "rsa", 2048],
  ] as const) {
    it(`makes one with a key of the kind ${JSON.stringify(config)}, signed by the former one`, async () => {
      await using authority = await open();
      const [former] = authority.roots();
      const { trustDomain } = authority;
      assert.ok(former);
      assert.equal(await authority.configure(configured({ ...config, RootCertTTL: "9000h" })), true);
      const [old, fresh] = authority.roots();
      assert.deepEqual([old?.id, old?.active, fresh?.active], [former.id, false, true]);
      assert.ok(fresh);
      const { publicKey, validFrom, validTo } = new X509Certificate(fresh.certificatePem);
      const { namedCurve, modulusLength } = publicKey.asymmetricKeyDetails ?? {};
      assert.deepEqual([publicKey.asymmetricKeyType, namedCurve ?? modulusLength], [type, bits]);
      assert.equal(Date.parse(validTo) - Date.parse(validFrom), 9_000 * HOUR);
      assert.equal(authority.trustDomain, trustDomain);
      const leaf = await authority.issueServer("dc1");
      const servername = peeringServerName("dc1", trustDomain);
      for (const root of [old?.certificatePem ?? "", fresh.certificatePem]) {
        verifyAsGo(leaf.certificateChainPem, [root], servername, Date.now());
        await handshake(leaf, { ca: [root], servername });
      }
      // The same again is no reason for a third one; the default is.
      assert.equal(await authority.configure(configured({ ...config, RootCertTTL: "9000h" })), false);
      assert.equal(await authority.configure(configured({})), true);
    });
  }

  for (const key of ["P-256", "P-384", 2_048]) {
    it(`takes over a root with its key (${key}), whose id of the key is not ours, and signs with it`, async () => {
      const root = await givenRoot({ key });
      await using authority = await open();
      const [former] = authority.roots();
      const change = { LeafCertTTL: "80h", PrivateKey: root.keyPem, RootCert: root.certificatePem };
      assert.equal(await authority.configure(configured(change)), true);
      assert.equal(activeRoot(authority).certificatePem, root.certificatePem);
      const leaf = await authority.issueServer("dc1");
      const [, intermediate] = certificatesIn(leaf.certificateChainPem);
      assert.ok(intermediate);
      // Byte for byte, or OpenSSL would not find the way.
      assert.equal(fieldsOf(intermediate.pem).subjectKeyId, fieldsOf(root.certificatePem).subjectKeyId);
      assert.equal(fieldsOf(leaf.certificateChainPem).authorityKeyId, fieldsOf(root.certificatePem).subjectKeyId);
      const servername = peeringServerName("dc1", authority.trustDomain);
      for (const pem of [former?.certificatePem ?? "", root.certificatePem]) {
        verifyAsGo(leaf.certificateChainPem, [pem], servername, Date.now());
        await handshake(leaf, { ca: [pem], servername });
      }
    });
  }

  it("makes a root for a key that is given alone, and keeps it as long as the key or that root is given", async () => {
    const keyPem = pemOf(newKey());
    await using authority = await open();
    assert.equal(await authority.configure(configured({ PrivateKey: keyPem })), true);
    const root = activeRoot(authority);
    assert.ok(new X509Certificate(root.certificatePem).checkPrivateKey(createPrivateKey(keyPem)));
    assert.deepEqual(authority.configuration().config, { RootCert: root.certificatePem });
    assert.equal(await authority.configure(configured({ PrivateKey: keyPem })), false);
    // As an operator does who reads it, changes a value, and writes it.
    const shown = authority.configuration().config;
    assert.equal(await authority.configure(configured({ ...shown, LeafCertTTL: "50h" })), false);
    assert.deepEqual(authority.configuration().config, { LeafCertTTL: "50h", RootCert: root.certificatePem });
    assert.equal(activeRoot(authority).id, root.id);
    assert.equal(await authority.configure(configured({ PrivateKey: pemOf(newKey()) })), true);
  });

  it("shows no private key, stores none as it is, and takes back a root that it has rotated out", async () => {
    const storage = memoryStorage();
    const secretBox = sealedSecretBox([new Uint8Array(32).fill(7)]);
    const root = await givenRoot();
    await using authority = await open({ storage, secretBox });
    const given = { PrivateKey: root.keyPem, RootCert: root.certificatePem };
    await authority.configure(configured(given));
    assert.deepEqual(authority.configuration().config, { RootCert: root.certificatePem });
    const scalar = createPrivateKey(root.keyPem).export({ format: "jwk" }).d ?? "";
    const { entries } = await storage.read(["ca"]);
    for (const { value } of entries) {
      const text = Buffer.from(value).toString();
      assert.ok(!text.includes("PRIVATE KEY") && !text.includes(scalar));
    }
    await authority.configure(configured({}));
    assert.deepEqual(authority.configuration().config, {});
    assert.equal(authority.roots().length, 3);
    // Its key is gone, so that it must be given again.
    await assert.rejects(authority.configure(configured({ RootCert: root.certificatePem })), {
      message: "error configuring provider: must provide a private key when providing a root cert",
    });
    assert.equal(await authority.configure(configured(given)), true);
    assert.equal(authority.roots().length, 3);
    assert.equal(activeRoot(authority).certificatePem, root.certificatePem);
    // `rotate` makes one of its own, and what was given is not shown as if it still counted.
    await authority.rotate();
    assert.deepEqual(authority.configuration().config, {});
  });

  it("signs no cross-signed certificate when it is told not to, and needs to be told where it cannot", async () => {
    await using authority = await open();
    await authority.configure({ config: { PrivateKeyBits: 384 }, forceWithoutCrossSigning: true });
    assert.equal(certificatesIn((await authority.issueServer("dc1")).certificateChainPem).length, 1);
    assert.equal(authority.configuration().forceWithoutCrossSigning, true);
    await authority.configure(configured({ PrivateKeyBits: 384, DisableCrossSigning: true }));
    const roots = authority.roots();
    const message =
      "The current CA Provider does not support cross-signing. You can try again with ForceWithoutCrossSigningSet " +
      "but this may cause disruption - see documentation for more.";
    await assert.rejects(authority.configure(configured({})), { message });
    await assert.rejects(authority.rotate(), { message });
    assert.deepEqual(authority.roots(), roots);
    assert.equal(await authority.configure({ config: {}, forceWithoutCrossSigning: true }), true);
  });

  it("is done once where two ask for the same at once, and one after the other where they do not", async () => {
    const storage = memoryStorage();
    await using first = await open({ storage });
    await using second = await open({ storage });
    const same = await Promise.all(
      [first, second, first].map((node) => node.configure(configured({ PrivateKeyBits: 384 }))),
    );
    assert.deepEqual(same.filter((rotated) => rotated).length, 1);
    assert.equal(first.roots().length, 2);
    await Promise.all([
      first.configure(configured({ PrivateKeyBits: 521 })),
      second.configure(configured({ PrivateKeyBits: 256 })),
    ]);
    for (const node of [first, second]) {
      assert.equal(node.roots().filter(({ active }) => active).length, 1);
      await node.issueServer("dc1");
    }
    await using third = await open({ storage });
    assert.equal(third.roots().length, 4);
  });

  it("is refused while there are as many roots as may be, and is an incident", async () => {
    const incidents = new Incidents();
    const clock = new ManualClock(Date.now());
    await using authority = await open({ trustedRoots: 2, incidents, clock });
    const { config } = authority.configuration();
    await authority.rotate();
    const refused = { code: "resource-exhausted", message: /^2 roots are trusted already/ };
    await assert.rejects(authority.rotate(), refused);
    await assert.rejects(authority.configure(configured({ PrivateKeyBits: 384 })), refused);
    assert.deepEqual(authority.configuration().config, config);
    assert.equal(incidents.counts().get("trusted-roots"), 2);
    clock.skip(145 * HOUR);
    await authority.prune();
    assert.equal(await authority.configure(configured({ PrivateKeyBits: 384 })), true);
  });
});

describe("a configuration that cannot be", () => {
  // The answers of a server of Consul 1.21.4.
  const recorded: readonly (readonly [Readonly<Record<string, unknown>>, string])[] = [
    [{ LeafCertTTL: "1m" }, "leaf cert TTL must be greater or equal than 1h0m0s"],
    [{ LeafCertTTL: "9000h" }, "leaf cert TTL must be less than 8760h0m0s"],
    [{ LeafCertTTL: "-5h" }, "leaf cert TTL must be greater or equal than 1h0m0s"],
    [{ LeafCertTTL: true }, "leaf cert TTL must be greater or equal than 1h0m0s"],
    [
      { LeafCertTTL: "bla" },
      `error decoding config: 1 error(s) decoding:\n\n* error decoding 'LeafCertTTL': time: invalid duration "bla"`,
    ],
    [
      { LeafCertTTL: "" },
      `error decoding config: 1 error(s) decoding:\n\n* error decoding 'LeafCertTTL': time: invalid duration ""`,
    ],
    [
      { LeafCertTTL: "x", PrivateKeyBits: "y", RootCertTTL: "z" },
      "error decoding config: 3 error(s) decoding:\n\n" +
        `* cannot parse 'PrivateKeyBits' as int: strconv.ParseInt: parsing "y": invalid syntax\n` +
        `* error decoding 'LeafCertTTL': time: invalid duration "x"\n` +
        `* error decoding 'RootCertTTL': time: invalid duration "z"`,
    ],
    [{ IntermediateCertTTL: "1h" }, "Intermediate Cert TTL must be greater or equal than 3h"],
    [
      { IntermediateCertTTL: "100h" },
      "Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=216h0m0s).",
    ],
    [
      { RootCertTTL: "100h" },
      "root cert TTL is set and is not greater than intermediate cert ttl. root cert ttl: 100h0m0s, " +
        "intermediate cert ttl: 8760h0m0s",
    ],
    [{ PrivateKeyType: "dsa" }, "private key type must be either 'ec' or 'rsa'"],
    [{ PrivateKeyType: "EC" }, "private key type must be either 'ec' or 'rsa'"],
    [{ PrivateKeyType: 5 }, "private key type must be either 'ec' or 'rsa'"],
    [{ PrivateKeyType: "rsa" }, "RSA key length must be 2048 or 4096 bits"],
    [{ RootCert: 5 }, "must provide a private key when providing a root cert"],
    [{ PrivateKeyBits: 123 }, "EC key length must be one of (224, 256, 384, 521) bits"],
  ];
  // Where Consul takes what cannot work, or what we do not do.
  const ours: readonly (readonly [Readonly<Record<string, unknown>>, string])[] = [
    [{ PrivateKeyBits: 224 }, "EC keys of 224 bits are not supported: use 256, 384 or 521"],
    [{ SkipValidate: true, LeafCertTTL: "1m" }, "SkipValidate is not supported: every value is checked"],
    [{ leaf_cert_ttl: "50h" }, 'unknown key "leaf_cert_ttl" in Config'],
    [{ LeafCertTTL: "50h", leafcertttl: "51h" }, "LeafCertTTL stands twice in Config"],
    [
      { CSRMaxPerSecond: 0, CSRMaxConcurrent: 4 },
      "CSRMaxConcurrent is not supported without CSRMaxPerSecond, which comes first",
    ],
    [{ CSRMaxPerSecond: -1 }, "CSRMaxPerSecond and CSRMaxConcurrent must not be negative"],
    [
      { LeafCertTTL: { Hours: 5 } },
      "error decoding config: 1 error(s) decoding:\n\n" +
        "* 'LeafCertTTL' expected type 'time.Duration', got unconvertible type 'map[string]interface {}'",
    ],
  ];
  for (const [config, why] of [...recorded, ...ours]) {
    it(JSON.stringify(config), async () => {
      await using authority = await open();
      const before = [authority.configuration(), authority.roots()];
      await assert.rejects(authority.configure(configured(config)), {
        code: "invalid-argument",
        message: `error configuring provider: ${why}`,
      });
      assert.deepEqual([authority.configuration(), authority.roots()], before);
    });
  }

  it("takes numbers of nanoseconds, null for missing values, and Terraform's examples", async () => {
    await using authority = await open();
    await authority.configure(
      configured({ LeafCertTTL: 7_200_000_000_000, PrivateKeyType: null, RotationPeriod: "2160h" }),
    );
    const { notBefore, notAfter } = await authority.issueServer("dc1");
    assert.equal(notAfter - notBefore, 2 * HOUR);
  });

  it("names no key that is given, in whatever place it stands", async () => {
    await using authority = await open();
    const keyPem = pemOf(newKey());
    const body = keyPem.split("\n")[1] ?? "";
    for (const key of [
      "PrivateKeyBits",
      "PrivateKeyType",
      "LeafCertTTL",
      "RotationPeriod",
      "RootCert",
      "SkipValidate",
      body,
    ]) {
      const failure = await authority.configure(configured({ [key]: keyPem })).catch((error: unknown) => error);
      assert.ok(failure instanceof Error, key);
      assert.ok(!String(failure.stack).includes(body.slice(0, 30)), key);
    }
  });

  it("of a key or root that is invalid, that do not belong together, or that would not work", async () => {
    const now = Date.now();
    const root = await givenRoot();
    const other = await givenRoot();
    const issued = await givenRoot({ issuer: other });
    const withKeyOf = (of: { keyPem: string }, pem: string): Readonly<Record<string, unknown>> => ({
      PrivateKey: of.keyPem,
      RootCert: pem,
    });
    const notCa = await givenRoot({ ca: false });
    const expired = await givenRoot({ notBefore: now - 9 * HOUR, notAfter: now - HOUR });
    const future = await givenRoot({ notBefore: now + HOUR });
    const weak = await givenRoot({ key: 1_024 });
    const rsa = await givenRoot({ key: 2_048 });
    // Its public half is another one than it says: everything it signs is refused.
    const { d = "", ...jwk } = createPrivateKey(root.keyPem).export({ format: "jwk" });
    const { d: foreign = "" } = createPrivateKey(other.keyPem).export({ format: "jwk" });
    const forged = sec1(foreign, jwk.x ?? "", jwk.y ?? "");
    assert.notEqual(d, foreign);
    const cases: readonly (readonly [string, Readonly<Record<string, unknown>>, RegExp])[] = [
      ["no key", { PrivateKey: "x" }, /error parsing private key: it is no private key/],
      ["no root", { PrivateKey: root.keyPem, RootCert: "x" }, /root cert is no certificate/],
      ["another's key", withKeyOf(other, root.certificatePem), /private key is not the one of the root cert/],
      ["an RSA key for an EC root", withKeyOf(rsa, root.certificatePem), /private key is not the one/],
      ["an EC key for an RSA root", withKeyOf(root, rsa.certificatePem), /private key is not the one/],
      ["no authority", withKeyOf(notCa, notCa.certificatePem), /not a certificate authority/],
      ["expired", withKeyOf(expired, expired.certificatePem), /has expired on/],
      ["not valid yet", withKeyOf(future, future.certificatePem), /not valid before/],
      ["signed by another", withKeyOf(issued, issued.certificatePem), /not signed by itself/],
      ["a key that cannot be read", withKeyOf(root, withUnreadableKey(root.certificatePem)), /not signed by itself/],
      [
        "a root alone whose key cannot be read",
        { RootCert: withUnreadableKey(root.certificatePem) },
        /must provide a private key/,
      ],
      ["two roots", withKeyOf(root, root.certificatePem + other.certificatePem), /holds 2 certificates/],
      ["RSA of 1024 bits", withKeyOf(weak, weak.certificatePem), /must have 2048 to 8192 bits/],
      ["a weak key alone", { PrivateKey: weak.keyPem }, /must have 2048 to 8192 bits/],
      ["a curve that is not known", { PrivateKey: pemOf(newKey("secp256k1")) }, /must be EC \(P-256/],
      ["a key that is not what it says", { PrivateKey: forged }, /private key does not work/],
      [
        "such a key with the root",
        { PrivateKey: forged, RootCert: root.certificatePem },
        /is not the one of the root cert/,
      ],
      ["a root alone", { RootCert: root.certificatePem }, /must provide a private key when providing a root cert/],
    ];
    await using authority = await open();
    const before = [authority.configuration(), authority.roots()];
    for (const [what, config, message] of cases) {
      await assert.rejects(authority.configure(configured(config)), { code: "invalid-argument", message }, what);
    }
    assert.deepEqual([authority.configuration(), authority.roots()], before);
  });

  it("that is too large: before anything of it is read", async () => {
    const incidents = new Incidents();
    await using authority = await open({ incidents });
    const change = configured({ PrivateKey: "A".repeat(70_000) });
    await assert.rejects(authority.configure(change), {
      code: "invalid-argument",
      message: /of which 65536 are allowed/,
    });
    assert.equal(incidents.counts().get("ca-configuration-too-large"), 1);
    await using wide = await open({ configurationBytes: 80_000 });
    await assert.rejects(wide.configure(change), { message: /error parsing private key/ });
  });
});

describe("certificates of services", () => {
  it("hold the SPIFFE id alone, and a key of their own", async () => {
    await using authority = await open();
    const [one, two] = await Promise.all([authority.issueLeaf(WEB), authority.issueLeaf(WEB)]);
    assert.notEqual(one.privateKeyPem, two.privateKeyPem);
    const fields = fieldsOf(one.certificateChainPem);
    assert.deepEqual(fields.uris, [`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`]);
    assert.deepEqual(fields.dnsNames, []);
    assert.ok(!JSON.stringify(one).includes("PRIVATE"));
  });

  it("may be waited for by many without a warning of Node", async () => {
    const warnings: Error[] = [];
    const listener = (warning: Error): void => void warnings.push(warning);
    process.on("warning", listener);
    const clock = new ManualClock(Date.now());
    await using authority = await open({ clock });
    const asked = Promise.all(Array.from({ length: 20 }, () => authority.issueLeaf(WEB)));
    await clock.advance(500);
    await asked;
    await setImmediate();
    process.off("warning", listener);
    assert.deepEqual(warnings, []);
  });

  it("are signed as many in a second as are configured, others soon after, and the rest is refused", async () => {
    const incidents = new Incidents();
    const clock = new ManualClock(Date.now());
    await using authority = await open({ clock, incidents });
    await authority.configure(configured({ CSRMaxPerSecond: 10 }));
    const asked = Array.from({ length: 8 }, () => authority.issueLeaf(WEB));
    const settled = Promise.allSettled(asked);
    await clock.advance(500);
    const states = (await settled).map(({ status }) => status);
    assert.deepEqual(states, [...Array(6).fill("fulfilled"), ...Array(2).fill("rejected")]);
    await assert.rejects(asked[7] ?? Promise.resolve(), {
      code: "resource-exhausted",
      message: "Rate limit reached, try again later",
    });
    assert.equal(incidents.counts().get("signing-rate"), 2);
    // A rate at which the next turn never comes, and back.
    await authority.configure(configured({ CSRMaxPerSecond: 1e-300 }));
    await authority.issueLeaf(WEB);
    await assert.rejects(authority.issueLeaf(WEB), { code: "resource-exhausted" });
    await authority.configure(configured({ CSRMaxPerSecond: 10 }));
    await authority.issueLeaf(WEB);
    await authority.configure(configured({ CSRMaxPerSecond: 0 }));
    await Promise.all(Array.from({ length: 20 }, () => authority.issueLeaf(WEB)));
  });
});

/** An EC private key on P-256 whose parts are as given, whether or not they belong together. */
function sec1(d: string, x: string, y: string): string {
  const point = Buffer.concat([Buffer.from([4]), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")]);
  const der = Buffer.concat([
    Buffer.from("3077020101", "hex"),
    Buffer.from("0420", "hex"),
    Buffer.from(d, "base64url"),
    Buffer.from("a00a06082a8648ce3d030107", "hex"),
    Buffer.from("a144034200", "hex"),
    point,
  ]);
  return `-----BEGIN EC PRIVATE KEY-----\n${der.toString("base64")}\n-----END EC PRIVATE KEY-----\n`;
}
