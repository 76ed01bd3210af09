import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import { extensionsOf } from "../../../src/mesh/identity/extensions.js";
import { type MeshRole, type MeshTrust, verifyChain } from "../../../src/mesh/identity/verify-chain.js";
import { ExtendedKeyUsage, type Issued, issue, KeyUsageFlags, type Wanted } from "../../support/mesh-certificates.js";

const A = "aaaaaaaa-0000-0000-0000-000000000000.consul";
const B = "bbbbbbbb-0000-0000-0000-000000000000.consul";
const WEB = `spiffe://${A}/ns/default/dc/dc1/svc/web`;
const HOUR_MS = 3_600_000;

let rootA: Issued;
let rootB: Issued;
let trust: MeshTrust;

before(async () => {
  rootA = await issue({ ca: true, uris: [`spiffe://${A}`] });
  rootB = await issue({ ca: true, uris: [`spiffe://${B}`] });
  trust = new Map([
    [A, [rootA.certificate]],
    [B, [rootB.certificate]],
  ]);
});

function verify(chain: readonly Issued[], role: MeshRole = "client", trusted: MeshTrust = trust): string {
  const certificates = chain.map(({ certificate }) => certificate);
  return verifyChain(certificates, { trust: trusted, role, nowMs: Date.now() }).uri;
}

function refuses(chain: readonly Issued[], why: RegExp, role: MeshRole = "client", trusted: MeshTrust = trust): void {
  assert.throws(() => verify(chain, role, trusted), { code: "unauthenticated", message: why });
}

const leaf = (wanted: Wanted = {}, issuer: Issued = rootA): Promise<Issued> =>
  issue({ uris: [WEB], ...wanted }, issuer);

describe("a chain in the mesh", () => {
  it("has the identity that a root of its trust domain has signed", async () => {
    const shown = await leaf();
    assert.equal(verify([shown]), WEB);
    assert.equal(verify([shown], "server"), WEB);
    // Some show their root, too.
    assert.equal(verify([shown, rootA]), WEB);
    for (const path of ["/gateway/mesh/dc/dc1", "/agent/server/dc/dc1", "/ap/part1/ns/default/dc/dc1/svc/web"]) {
      assert.equal(verify([await leaf({ uris: [`spiffe://${A}${path}`] })]), `spiffe://${A}${path}`);
    }
  });

  it("is refused where the root of another trust domain has signed it, though that is trusted as well", async () => {
    const forged = await leaf({}, rootB);
    refuses([forged], /no root of its trust domain aaaaaaaa-/);
    refuses([forged, rootB], /no root of its trust domain/);
    refuses([forged, rootB, rootA], /no root of its trust domain/);
    const below = await issue({ ca: true }, rootB);
    refuses([await leaf({}, below), below, rootB], /no root of its trust domain/);
  });

  it("leads through intermediates, such as a root that the former one has signed", async () => {
    const intermediate = await issue({ ca: true, pathLength: 0 }, rootA);
    assert.equal(verify([await leaf({}, intermediate), intermediate]), WEB);
    refuses([await leaf({}, intermediate)], /no root of its trust domain/);
    const second = await issue({ ca: true }, rootA);
    const third = await issue({ ca: true }, second);
    assert.equal(verify([await leaf({}, third), third, second]), WEB);
    refuses([await leaf({}, third), second, third], /no root of its trust domain/);
  });

  it("is not led to by a root whose signatures take too long to verify", async () => {
    const under = async (rsaExponent: number): Promise<readonly [Issued, MeshTrust]> => {
      const root = await issue({ ca: true, rsaExponent });
      return [await leaf({}, root), new Map([[A, [root.certificate]]])];
    };
    const [usual, usualTrust] = await under(65_537);
    assert.equal(verify([usual], "client", usualTrust), WEB);
    const [slow, slowTrust] = await under(2_147_483_659);
    refuses([slow], /no root of its trust domain/, "client", slowTrust);
  });

  it("is refused where more roots have the name of its issuer than are tried", async () => {
    const roots = await Promise.all(Array.from({ length: 21 }, () => issue({ ca: true, name: "one of many" })));
    const shown = await Promise.all(roots.map((root) => leaf({}, root)));
    const [first, last] = [shown[0], shown.at(-1)];
    assert.ok(first && last);
    const trusted = (count: number): MeshTrust =>
      new Map([[A, roots.slice(-count).map(({ certificate }) => certificate)]]);
    assert.equal(verify([last], "client", trusted(20)), WEB);
    refuses([last], /more than 20 authorities could have signed it/, "client", trusted(21));
    refuses([first], /no root of its trust domain/, "client", trusted(20));
  });

  it("is not longer than an authority of it allows", async () => {
    const last = await issue({ ca: true, pathLength: 0 }, rootA);
    const beyond = await issue({ ca: true }, last);
    refuses([await leaf({}, beyond), beyond, last], /no root of its trust domain/);
  });

  it("goes through authorities alone", async () => {
    const service = await leaf({ name: "no authority" });
    const below = await leaf({}, service);
    refuses([below, service], /no root of its trust domain/);
  });

  it("is refused where nothing is trusted for its trust domain", async () => {
    const shown = await leaf();
    refuses([shown], /nothing is trusted for the trust domain aaaaaaaa-/, "client", new Map());
    refuses([shown], /nothing is trusted/, "client", new Map([[A, []]]));
    refuses([shown], /nothing is trusted/, "client", new Map([[B, [rootB.certificate]]]));
    refuses([], /no certificate was shown/);
  });

  it("compares trust domains without case", async () => {
    const uri = WEB.replace("aaaaaaaa", "AAAAaaaa");
    assert.equal(verify([await leaf({ uris: [uri] })]), uri);
  });

  it("holds exactly one URI, which is a SPIFFE id of Consul", async () => {
    refuses([await leaf({ uris: [], dnsNames: ["web"] })], /it holds 0 URIs/);
    refuses([await leaf({ uris: [WEB, `${WEB}2`] })], /it holds 2 URIs/);
    refuses([await leaf({ uris: [WEB, "https://example.com/"] })], /it holds 2 URIs/);
    for (const uri of [
      "https://example.com/",
      `spiffe://${A}`,
      `spiffe://${A}/`,
      `spiffe://${A}/ns/default/dc/dc1/svc/web?x=1`,
      `spiffe://${A}/ns/default/dc/dc1/svc/web#x`,
      `spiffe://${A}/ns/default/dc/dc1/svc/web/more`,
      `spiffe://${A}/ns//dc/dc1/svc/web`,
      `spiffe://user@${A}/ns/default/dc/dc1/svc/web`,
      `spiffe://${A}:443/ns/default/dc/dc1/svc/web`,
      "spiffe:///ns/default/dc/dc1/svc/web",
      `spiffe://${A}/ns/default/dc/dc1/svc/%zz`,
      `spiffe://${A}/ns/default/dc/dc1/svc/${"w".repeat(2_048)}`,
    ]) {
      refuses([await leaf({ uris: [uri] })], /SPIFFE id/);
    }
    // Names of other types do no harm: those of ingress gateways have them.
    assert.equal(verify([await leaf({ dnsNames: ["web.example.com"] })]), WEB);
  });

  it("does not begin with an authority, nor with a key that may sign certificates", async () => {
    refuses([await issue({ ca: true, uris: [WEB] }, rootA)], /that of a certificate authority/);
    for (const usage of [KeyUsageFlags.keyCertSign, KeyUsageFlags.cRLSign]) {
      refuses([await leaf({ keyUsages: KeyUsageFlags.digitalSignature | usage })], /that of a certificate authority/);
    }
  });

  it("is for what it is used for", async () => {
    const client = await leaf({ usages: [ExtendedKeyUsage.clientAuth] });
    assert.equal(verify([client], "client"), WEB);
    refuses([client], /not for a TLS server/, "server");
    const server = await leaf({ usages: [ExtendedKeyUsage.serverAuth] });
    assert.equal(verify([server], "server"), WEB);
    refuses([server], /not for a TLS client/, "client");
    assert.equal(verify([await leaf({ usages: [] })]), WEB);
  });

  it("is valid now, all of it", async () => {
    const now = Date.now();
    refuses([await leaf({ notBefore: now + HOUR_MS, notAfter: now + 2 * HOUR_MS })], /is valid from/);
    refuses([await leaf({ notAfter: now - HOUR_MS })], /is valid from/);
    const intermediate = await issue({ ca: true, notAfter: now - HOUR_MS }, rootA);
    refuses([await leaf({}, intermediate), intermediate], /is valid from/);
    const expired = await issue({ ca: true, notAfter: now - HOUR_MS });
    refuses([await leaf({}, expired)], /no root of its trust domain/, "client", new Map([[A, [expired.certificate]]]));
  });
});

describe("extensions of a certificate", () => {
  it("are read from their places, whatever stands in names", async () => {
    // The bytes of key usage with `keyCertSign`, and of a second URI, as a text of a name.
    const bait = Buffer.from("0603551d0f0404030202040606551d1186").toString("latin1");
    const read = extensionsOf((await leaf({ name: `bait ${bait.replace(/[^ -~]/g, "U")}` })).certificate);
    assert.deepEqual(read, { uris: [WEB], signs: false, pathLength: undefined });
    assert.deepEqual(extensionsOf((await issue({ ca: true, pathLength: 3 })).certificate), {
      uris: [],
      signs: true,
      pathLength: 3,
    });
  });

  it("are refused where they are cut off, at any byte", async () => {
    const { raw } = (await leaf()).certificate;
    for (let length = 0; length < raw.length; length += 7) {
      assert.throws(() => extensionsOf({ raw: raw.subarray(0, length) }), TypeError);
    }
  });
});
