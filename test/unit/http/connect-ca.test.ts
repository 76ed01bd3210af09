import assert from "node:assert/strict";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { describe, it, mock } from "node:test";
import { systemRandom } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import { createHost } from "../../../src/host/host.js";
import type { HostOptions } from "../../../src/host/options.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { certificatesIn } from "../../../src/token/pem.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { providedAuthority } from "../../../src/trust/provided-authority.js";
import { readGolden } from "../../golden/read.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { givenRoot } from "../../support/given-root.js";
import { type RawAnswer, type ServedHost, serve } from "../../support/http-pair.js";
import { verifyAsGo } from "../trust/go-verifier.js";
import { ManualClock } from "../trust/support.js";

const CONFIGURATION = "/v1/connect/ca/configuration";
const LEAF = "/v1/agent/connect/ca/leaf/";
const ROOTS = "/v1/connect/ca/roots";

interface Recorded {
  readonly name: string;
  readonly request: { readonly method: string; readonly path: string; readonly bodyText?: string };
  readonly response: {
    readonly status: number;
    readonly headers: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly bodyText?: string;
  };
}

interface Root {
  readonly ID: string;
  readonly Active: boolean;
  readonly SerialNumber: number;
  readonly SigningKeyID: string;
  readonly RootCert: string;
  readonly IntermediateCerts: readonly string[] | null;
}
interface Leaf {
  readonly SerialNumber: string;
  readonly CertPEM: string;
  readonly PrivateKeyPEM: string;
  readonly ServiceURI: string;
  readonly ModifyIndex: number;
}

const [, ...lines] = readGolden("http/connect-ca.jsonl").trimEnd().split("\n");
const recorded: readonly Recorded[] = lines.map((line) => JSON.parse(line));

async function served(options: Partial<HostOptions> = {}, more: Parameters<typeof serve>[1] = {}): Promise<ServedHost> {
  const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport({}), ...options });
  return serve(host, more);
}

/** On a clock that only the test moves, where no certificate waits for its turn to be signed. */
async function unhurried(options: Partial<HostOptions> & { readonly clock: ManualClock }): Promise<ServedHost> {
  const at = await served(options, { clock: options.clock });
  assert.equal((await put(at, UNHURRIED)).status, 200);
  return at;
}

const UNHURRIED = { CSRMaxPerSecond: 0 };

async function rootsOf(at: ServedHost): Promise<readonly Root[]> {
  const { Roots }: { readonly Roots: readonly Root[] } = JSON.parse((await at.ask("GET", ROOTS)).text);
  return Roots;
}

async function leafOf(at: ServedHost, service: string): Promise<Leaf> {
  const answer = await at.ask("GET", LEAF + service);
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text);
}

function put(at: ServedHost, config: Readonly<Record<string, unknown>>, more: object = {}): Promise<RawAnswer> {
  return at.ask("PUT", CONFIGURATION, { body: JSON.stringify({ Provider: "consul", Config: config, ...more }) });
}

/** The form of a JSON value: names of members in their order, and types. In which order roots stand is chance. */
function formOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => JSON.stringify(formOf(item))).sort();
  if (typeof value !== "object" || value === null) return value === null ? null : typeof value;
  return Object.entries(value).map(([name, member]) => [name, formOf(member)]);
}

/** Members that differ from cluster to cluster. */
function withoutIds(text: string): string {
  return text.replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "ID");
}

/** Headers that say the same at any server. The agent's roots come from memory here, too; clients look at the name alone. */
function comparable(headers: Readonly<Record<string, string>>): unknown {
  return Object.entries(headers)
    .filter(([name]) => name.startsWith("x-") || name === "content-type" || name === "age")
    .filter(([name]) => name !== "x-cache" && name !== "age")
    .map(([name, value]) => [name, name === "x-consul-index" ? "N" : value])
    .sort();
}

describe("answers of a server of Consul 1.21.4 about its authority", () => {
  it("is the answer here, in the same order", async () => {
    await using at = await served();
    assert.ok(recorded.length > 50);
    for (const { name, request, response } of recorded) {
      const { method, path, bodyText: body } = request;
      const answer = await at.ask(method, path, body === undefined ? {} : { body });
      const { status, text } = answer;
      assert.equal(status, response.status, `${name}: ${text}`);
      if (status === 200) assert.deepEqual(comparable(answer.headers), comparable(response.headers), name);
      if (path === CONFIGURATION && method === "GET") {
        const withoutIndexes = ({ CreateIndex: _, ModifyIndex: __, ...others }: Record<string, unknown>): unknown =>
          others;
        assert.deepEqual(
          withoutIndexes(JSON.parse(text)),
          withoutIndexes(response.body as Record<string, unknown>),
          name,
        );
      }
      if (response.body !== undefined) assert.deepEqual(formOf(JSON.parse(text)), formOf(response.body), name);
      else if (!text.startsWith("-----BEGIN"))
        assert.equal(withoutIds(text), withoutIds(response.bodyText ?? ""), name);
      if (path.startsWith(LEAF) && response.body !== undefined) {
        const { Service, ServiceURI } = response.body as Record<string, string>;
        const ours: Record<string, string> = JSON.parse(text);
        assert.deepEqual(
          [ours["Service"], withoutIds(ours["ServiceURI"] ?? "")],
          [Service, withoutIds(ServiceURI ?? "")],
          name,
        );
      }
    }
  });
});

describe("roots", () => {
  it("are told as PEM, with their intermediates, and by id", async () => {
    await using at = await served();
    await put(at, { PrivateKeyBits: 384 });
    const roots = await rootsOf(at);
    assert.equal(roots.length, 2);
    assert.deepEqual(
      roots.map(({ ID }) => ID).sort(),
      roots.map(({ ID }) => ID),
    );
    const [active] = roots.filter(({ Active }) => Active);
    assert.equal(active?.IntermediateCerts?.length, 1);
    const pem = await at.ask("GET", `${ROOTS}?pem=1`);
    const expected = roots.flatMap(({ RootCert, IntermediateCerts }) => [RootCert, ...(IntermediateCerts ?? [])]);
    assert.equal(pem.text, expected.join(""));
    assert.equal(pem.headers["content-type"], "application/pem-certificate-chain");
  });

  it("of others have the id of their key, and a serial number that Consul's clients can read", async () => {
    await using at = await served();
    const root = await givenRoot();
    assert.equal((await put(at, { PrivateKey: root.keyPem, RootCert: root.certificatePem })).status, 200);
    const text = (await at.ask("GET", ROOTS)).text;
    const serial = BigInt(/"SerialNumber":(\d+),"SigningKeyID":"(?:[0-9a-f]{2}:){19}[0-9a-f]{2}"/.exec(text)?.[1] ?? 0);
    assert.ok(serial > 0n && serial < 2n ** 64n);
    const { serialNumber } = new X509Certificate(root.certificatePem);
    assert.ok(serialNumber.toLowerCase().endsWith(serial.toString(16)));
  });

  it("wake those who wait for them when they rotate, and not when another value is configured", async () => {
    await using at = await served();
    const { headers } = await at.ask("GET", ROOTS);
    const waiting = at.ask("GET", `${ROOTS}?index=${headers["x-consul-index"]}&wait=1m`);
    await put(at, { LeafCertTTL: "73h" });
    assert.equal((await at.ask("GET", ROOTS)).headers["x-consul-index"], headers["x-consul-index"]);
    await put(at, { PrivateKeyBits: 384 });
    const { Roots }: { readonly Roots: readonly Root[] } = JSON.parse((await waiting).text);
    assert.equal(Roots.length, 2);
  });
});

describe("the certificate of a service", () => {
  it("leads to the active root, has the key that is told, and is the same until it is due", async () => {
    const clock = new ManualClock(Date.now());
    await using at = await unhurried({ clock });
    const leaf = await leafOf(at, "web");
    const [root] = await rootsOf(at);
    verifyAsGo(leaf.CertPEM, [root?.RootCert ?? ""], undefined, Date.now());
    assert.ok(new X509Certificate(leaf.CertPEM).checkPrivateKey(createPrivateKey(leaf.PrivateKeyPEM)));
    assert.match(leaf.PrivateKeyPEM, /^-----BEGIN EC PRIVATE KEY-----\n/);
    assert.match(leaf.SerialNumber, /^(?:[0-9a-f]{2}:)*[0-9a-f]{2}$/);
    assert.deepEqual(await leafOf(at, "web"), leaf);
    clock.skip(0.59 * 72 * 3_600_000);
    assert.deepEqual(await leafOf(at, "web"), leaf);
    clock.skip(0.32 * 72 * 3_600_000);
    const renewed = await leafOf(at, "web");
    assert.notEqual(renewed.PrivateKeyPEM, leaf.PrivateKeyPEM);
    assert.ok(renewed.ModifyIndex > leaf.ModifyIndex);
  });

  it("is one of its own for each service, whatever the case of its name", async () => {
    await using at = await served();
    const [web, capital, api] = [await leafOf(at, "web"), await leafOf(at, "WEB"), await leafOf(at, "api")];
    assert.equal(new Set([web, capital, api].map(({ PrivateKeyPEM }) => PrivateKeyPEM)).size, 3);
    for (const { CertPEM, ServiceURI } of [web, capital, api]) {
      assert.equal(new X509Certificate(CertPEM).subjectAltName, `URI:${ServiceURI}`);
    }
  });

  it("is of the new root as soon as one asks after a rotation, and those who wait get it within half a minute", async () => {
    const clock = new ManualClock(Date.now());
    await using at = await unhurried({ clock });
    const leaf = await leafOf(at, "web");
    const index = leaf.ModifyIndex;
    const api = await leafOf(at, "api");
    const waits = waiters(at);
    const waiting = at.ask("GET", `${LEAF}web?index=${index}&wait=5m`);
    const waitingToo = at.ask("GET", `${LEAF}api?index=${api.ModifyIndex}&wait=5m`);
    await waits(2);
    await put(at, { ...UNHURRIED, PrivateKeyBits: 384 });
    const active = at.host.authority.roots().find((root) => root.active);
    const now = await leafOf(at, "api");
    assert.equal(certificatesIn(now.CertPEM).length, 2);
    verifyAsGo(now.CertPEM, [active?.certificatePem ?? ""], undefined, Date.now());
    assert.deepEqual(JSON.parse((await waitingToo).text), now);
    await clock.advance(30_000);
    const renewed: Leaf = JSON.parse((await waiting).text);
    assert.notEqual(renewed.SerialNumber, leaf.SerialNumber);
    verifyAsGo(renewed.CertPEM, [active?.certificatePem ?? ""], undefined, Date.now());
    assert.deepEqual(await leafOf(at, "web"), renewed);
  });

  it("is renewed in time for those who wait, and told after the wait when nothing has changed", async () => {
    const clock = new ManualClock(Date.now());
    // Renewed as early as may be: at 60 % of its life, which began a minute ago.
    const random = { ...systemRandom, fraction: () => 0 };
    await using at = await unhurried({ clock, random });
    const leaf = await leafOf(at, "web");
    clock.skip(0.6 * 72 * 3_600_000 - 120_000);
    const waits = waiters(at);
    const short = at.ask("GET", `${LEAF}web?index=${leaf.ModifyIndex}&wait=10s`);
    const long = at.ask("GET", `${LEAF}web?index=${leaf.ModifyIndex}&wait=10m`);
    await waits(2);
    await clock.advance(11_000);
    const unchanged = await short;
    assert.deepEqual([JSON.parse(unchanged.text), unchanged.headers["x-cache"]], [leaf, "MISS"]);
    await clock.advance(60_000);
    assert.notEqual((JSON.parse((await long).text) as Leaf).SerialNumber, leaf.SerialNumber);
  });

  it("says whether it was held, and for how long", async () => {
    const clock = new ManualClock(Date.now());
    await using at = await unhurried({ clock });
    assert.equal((await at.ask("GET", `${LEAF}web?index=1`)).headers["x-cache"], "MISS");
    clock.skip(7_500);
    const { headers } = await at.ask("GET", `${LEAF}web?index=1`);
    assert.deepEqual([headers["x-cache"], headers["age"]], ["HIT", "7"]);
  });

  it("is given only to callers that may write the service, also when it is held already", async () => {
    const rules = (policy: string, name = "web"): string => `service "${name}" { policy = "${policy}" }`;
    const all = [rules("write"), rules("read"), rules("write", "api")];
    await using at = await served({}, { authorizer: tokensFor(all) });
    const ask = (token: string, query = ""): Promise<RawAnswer> =>
      at.ask("GET", `${LEAF}web${query}`, { headers: { "X-Consul-Token": token } });
    assert.equal((await ask(secretFor(rules("write")))).status, 200);
    for (const query of ["", "?index=1"]) {
      for (const other of [rules("read"), rules("write", "api")]) {
        const { status, text } = await ask(secretFor(other), query);
        assert.match(
          text,
          /^Permission denied: token with AccessorID 'token-\d' lacks permission 'service:write' on "web"$/,
        );
        assert.equal(status, 403);
      }
      assert.deepEqual([(await ask("bogus", query)).status, (await ask("bogus", query)).text], [403, "ACL not found"]);
      assert.match(
        (await ask("", query)).text,
        /^Permission denied: anonymous token lacks permission 'service:write' on "web"/,
      );
    }
  });

  it("is refused for names that no certificate can hold", async () => {
    await using at = await served();
    const long = await at.ask("GET", `${LEAF}${"x".repeat(3_000)}`);
    assert.deepEqual([long.status, /and 2048 are allowed$/.test(long.text)], [500, true]);
    for (const name of ["a%2Fb", "a/b", "x%2F..y"]) {
      assert.match((await at.ask("GET", LEAF + name)).text, /^SPIFFE ID is not in the expected format/, name);
    }
    // Such paths are led elsewhere, as by Consul's router, or name nothing.
    for (const name of ["..%2F..%2Fx", "a/../b", "%2F"]) {
      const { status, text } = await at.ask("GET", LEAF + name);
      assert.ok(status !== 200 && !text.includes("PRIVATE KEY"), name);
    }
    assert.equal((await at.ask("GET", `${LEAF}%00%0A%0D`)).status, 400);
    await leafOf(at, "__proto__");
    await leafOf(at, "constructor");
  });

  it("is dropped when there are too many others, and is an incident; those that are waited for stay", async () => {
    const incidents = new Incidents();
    await using at = await served({ limits: { leafCertificates: 2 }, incidents });
    const first = await leafOf(at, "a");
    const gone = new AbortController();
    const waits = waiters(at);
    const waiting = at.ask("GET", `${LEAF}a?index=${first.ModifyIndex}&wait=5m`, { signal: gone.signal });
    waiting.catch(() => {});
    await waits(1);
    const second = await leafOf(at, "b");
    assert.equal(incidents.counts().get("leaf-certificates"), undefined);
    await leafOf(at, "c");
    assert.equal(incidents.counts().get("leaf-certificates"), 1);
    assert.equal(at.host.leafCertificates.size, 2);
    assert.deepEqual(await leafOf(at, "a"), first);
    assert.notDeepEqual(await leafOf(at, "b"), second);
    gone.abort();
  });

  it("is dropped with its key when it was not asked for in a long time", async () => {
    const clock = new ManualClock(Date.now());
    await using at = await unhurried({ clock, limits: { leafCertificateUnusedMs: 7_200_000 } });
    await leafOf(at, "a");
    await clock.advance(3_600_001);
    await leafOf(at, "b");
    assert.equal(at.host.leafCertificates.size, 2);
    await clock.advance(3_600_001);
    assert.equal(at.host.leafCertificates.size, 1);
    assert.equal(at.host.leafCertificates.peek("a"), undefined);
  });

  it("is the old one while no new one can be issued, and none when there is none", async () => {
    const incidents = new Incidents();
    const clock = new ManualClock(Date.now());
    await using at = await unhurried({ clock, incidents });
    const leaf = await leafOf(at, "web");
    await put(at, { LeafCertTTL: "72h", CSRMaxPerSecond: 0.001 });
    await leafOf(at, "other");
    clock.skip(0.95 * 72 * 3_600_000);
    const asked = Array.from({ length: 3 }, (_, service) => at.ask("GET", `${LEAF}new${service}`));
    const refused = (await Promise.all(asked)).filter(({ status }) => status !== 200);
    assert.deepEqual(
      refused.map(({ status, text }) => [status, text]),
      [
        [429, "Rate limit reached, try again later"],
        [429, "Rate limit reached, try again later"],
      ],
    );
    assert.deepEqual(await leafOf(at, "web"), leaf);
    assert.ok((incidents.counts().get("signing-rate") ?? 0) >= 2);
  });

  it("is issued once for all who ask at the same time", async () => {
    await using at = await served();
    const leafs = await Promise.all(Array.from({ length: 20 }, () => leafOf(at, "web")));
    assert.equal(new Set(leafs.map(({ SerialNumber }) => SerialNumber)).size, 1);
  });

  it("is issued by an authority of the program's own, too", async () => {
    const root = await givenRoot();
    const authority = providedAuthority({
      trustDomain: "11111111-2222-3333-4444-555555555555.consul",
      rootPems: [root.certificatePem],
      signingCertificatePem: root.certificatePem,
      signingKeyPem: root.keyPem,
    });
    await using at = await served({ authority });
    verifyAsGo((await leafOf(at, "web")).CertPEM, [root.certificatePem], undefined, Date.now());
  });
});

describe("the configuration over HTTP", () => {
  it("shows no private key, and can be written as it was read", async () => {
    await using at = await served();
    const root = await givenRoot();
    const given = { LeafCertTTL: "80h", PrivateKey: root.keyPem, RootCert: root.certificatePem };
    assert.equal((await put(at, given)).status, 200);
    const { text } = await at.ask("GET", CONFIGURATION);
    assert.ok(!text.includes('PrivateKey"') && !text.includes("PRIVATE"));
    const roots = await rootsOf(at);
    const body = text.replace('"80h"', '"81h"');
    assert.equal((await at.ask("PUT", CONFIGURATION, { body })).status, 200);
    assert.deepEqual(await rootsOf(at), roots);
    assert.match((await at.ask("GET", CONFIGURATION)).text, /"LeafCertTTL":"81h"/);
    // The indexes of the first read are old now.
    const stale = await at.ask("PUT", CONFIGURATION, { body: text.replace('"80h"', '"82h"') });
    assert.deepEqual([stale.status, stale.text], [500, "ModifyIndex did not match existing"]);
  });

  it("is refused where the program keeps the authority, and says so", async () => {
    const root = await givenRoot();
    const authority = providedAuthority({
      trustDomain: "11111111-2222-3333-4444-555555555555.consul",
      rootPems: [root.certificatePem],
      signingCertificatePem: root.certificatePem,
      signingKeyPem: root.keyPem,
    });
    await using at = await served({ authority });
    const { Provider, Config } = JSON.parse((await at.ask("GET", CONFIGURATION)).text);
    assert.deepEqual([Provider, Config], ["external", {}]);
    const answer = await put(at, { PrivateKeyBits: 384 });
    assert.equal(answer.status, 400);
    assert.match(answer.text, /kept by the program that runs it/);
    assert.equal((await rootsOf(at)).length, 1);
  });

  it("is refused for providers that keep their keys elsewhere, and for JSON that is not an object", async () => {
    await using at = await served();
    for (const provider of ["vault", "aws-pca"]) {
      const { status, text } = await at.ask("PUT", CONFIGURATION, {
        body: JSON.stringify({ Provider: provider, Config: {} }),
      });
      assert.equal(status, 500);
      assert.equal(
        text,
        `could not initialize provider: CA provider "${provider}" is not supported here: the one provider is "consul"`,
      );
    }
    for (const body of ["null", "[]", '"consul"', '{"Provider":null}']) {
      assert.ok((await at.ask("PUT", CONFIGURATION, { body })).status >= 400, body);
    }
    assert.equal((await rootsOf(at)).length, 1);
  });

  it("is refused before it is read for those who may not write it", async () => {
    const rules = ['operator = "read"', 'operator = "write"'];
    await using at = await served({}, { authorizer: tokensFor(rules) });
    const ask = (method: string, rule: string): Promise<RawAnswer> =>
      at.ask(method, CONFIGURATION, {
        headers: { "X-Consul-Token": secretFor(rule) },
        ...(method === "PUT" && { body: "no JSON" }),
      });
    for (const method of ["GET", "PUT"]) {
      const { status, text } = await ask(method, 'operator = "read"');
      assert.equal(status, 403);
      assert.match(text, /lacks permission 'operator:write'$/);
    }
    assert.equal((await ask("PUT", 'operator = "write"')).status, 400);
    assert.equal((await ask("GET", 'operator = "write"')).status, 200);
  });

  it("rotates once when the same is written twice at once", async () => {
    await using at = await served();
    const answers = await Promise.all([put(at, { PrivateKeyBits: 384 }), put(at, { PrivateKeyBits: 384 })]);
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    );
    assert.equal((await rootsOf(at)).length, 2);
  });

  it("names no key in a log or an answer, whatever is wrong with it", async () => {
    const logged: string[] = [];
    const line = (message: string, fields?: unknown): void => void logged.push(message + JSON.stringify(fields));
    const logger = { debug: line, info: line, warn: line, error: line };
    await using at = await served({ logger });
    const [root, other] = [await givenRoot(), await givenRoot()];
    const told = [
      await put(at, { PrivateKey: other.keyPem, RootCert: root.certificatePem }),
      await put(at, { PrivateKey: `${root.keyPem}x`, RootCert: root.keyPem }),
      await put(at, { PrivateKey: root.keyPem.replace("PRIVATE KEY", "SECRET KEY") }),
      await put(at, { private_key: root.keyPem }),
      await put(at, { PrivateKeyBits: root.keyPem }),
      await put(at, { PrivateKey: [root.keyPem] }),
      await put(at, { PrivateKey: root.keyPem, RootCert: root.certificatePem }),
      await at.ask("GET", CONFIGURATION),
      await at.ask("GET", ROOTS),
    ];
    await leafOf(at, "web");
    const text = [...logged, ...told.map((answer) => answer.text)].join("\n");
    for (const { keyPem } of [root, other]) {
      const body = keyPem.split("\n")[1] ?? "";
      assert.ok(body.length > 40 && !text.includes(body.slice(0, 24)));
    }
    assert.ok(!text.includes("PRIVATE KEY-----\\n"));
  });
});

/** Resolves when so many calls wait for a certificate. Begins to count when it is called. */
function waiters(at: ServedHost): (count: number) => Promise<void> {
  const watched = mock.method(at.host.leafCertificates, "watch").mock;
  return async (count) => {
    while (watched.callCount() < count) await new Promise((resolve) => setImmediate(resolve));
  };
}
