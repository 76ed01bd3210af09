import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemRandom } from "../../src/base/environment.js";
import { Incidents } from "../../src/base/incidents.js";
import { createHost, machineryOf, type PeeringHost } from "../../src/host/host.js";
import type { HostOptions } from "../../src/host/options.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { TokenCodec } from "../../src/token/token-codec.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { type CertificateAuthority, type IssuedCertificate, peeringServerName } from "../../src/trust/authority.js";
import { builtInAuthority } from "../../src/trust/built-in-authority.js";
import { BACKDATE_MS } from "../../src/trust/leaf.js";
import { providedAuthority } from "../../src/trust/provided-authority.js";
import { acceleratedClock, borrowed, eventually, inStep, offerServices, peerThem, twoHosts } from "../support/hosts.js";
import { newAuthority, newLeaf, type TestAuthority } from "../unit/transport/certificates.js";
import { startRelay } from "../unit/transport/relay.js";

const TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul";

function host(options: Partial<HostOptions> = {}): Promise<PeeringHost> {
  return createHost({
    datacenter: "dc1",
    storage: memoryStorage(),
    transport: grpcTransport({ listen: "127.0.0.1:0" }),
    clock: acceleratedClock(),
    // A rotation is followed at once, not at a random moment of the next 30 s.
    random: { ...systemRandom, fraction: () => 0 },
    ...options,
  });
}

function ownAuthority(root: TestAuthority, leafTtlMs = 3_600_000): ReturnType<typeof providedAuthority> {
  return providedAuthority({
    trustDomain: TRUST_DOMAIN,
    rootPems: [root.certificatePem],
    signingCertificatePem: root.certificatePem,
    signingKeyPem: root.keyPem,
    leafTtlMs,
  });
}

describe("a clock that was wrong", () => {
  for (const [name, aheadMs] of [
    ["ahead", 720 * 3_600_000],
    ["behind", -720 * 3_600_000],
  ] as const) {
    it(`at the start of an acceptor, ${name}: once it is right, the dialer gets in`, async () => {
      let wrongByMs = 0;
      const clock = acceleratedClock();
      const wall = (): number => Date.now() + wrongByMs;
      const incidents = new Incidents();
      const storage = memoryStorage();
      const open = (listen: string): Promise<PeeringHost> =>
        host({
          storage: borrowed(storage),
          transport: grpcTransport({ listen }),
          clock: { ...clock, wall },
          incidents,
        });
      await using dialer = await host({ datacenter: "dc2" });
      const state = (): string | undefined => dialer.peerings.read("acceptor")?.state;
      let address = "127.0.0.1:0";
      {
        await using before = await open(address);
        address = before.listenAddress ?? "";
        const token = await before.peerings.generateToken({ peerName: "dialer" });
        await dialer.peerings.establish({ peerName: "acceptor", token });
        await eventually(() => state() === "active", "it connects");
      }
      wrongByMs = aheadMs;
      await using _ = await open(address);
      const failure = (): string => dialer.peerings.read("acceptor")?.status.lastFailure?.message ?? "";
      await eventually(
        () => failure().includes("has expired or is not yet valid"),
        "the dialer refuses the certificate",
      );
      wrongByMs = 0;
      await eventually(() => state() === "active", "it connects again");
      assert.equal(incidents.counts().get("clock-set"), 1);
    });
  }

  it("at the founding of a cluster: no unusable token is given out, and the refusal says what helps", async () => {
    let wrongByMs = 365 * 24 * 3_600_000;
    const clock = { ...acceleratedClock(), wall: (): number => Date.now() + wrongByMs };
    const storage = memoryStorage();
    const authority = await builtInAuthority({ storage, clock });
    await using acceptor = await host({ storage, clock, authority });
    wrongByMs = 0;
    await assert.rejects(acceptor.peerings.generateToken({ peerName: "dialer" }), {
      code: "unavailable",
      message: /^the root certificate that a token would name is not valid now: it is not valid before /,
      remedy: /^Set the clock of this machine/,
    });
    assert.deepEqual(acceptor.peerings.list(), []);
    await authority.rotate();
    const token = await acceptor.peerings.generateToken({ peerName: "dialer" });
    await using dialer = await host({ datacenter: "dc2" });
    await eventually(
      () =>
        dialer.peerings.establish({ peerName: "acceptor", token }).then(
          () => true,
          () => false,
        ),
      "the server certificate is of the new root",
    );
  });
});

describe("rotation over real TLS", () => {
  for (const role of ["acceptor", "dialer"] as const) {
    it(`the ${role} rotates: the other has both roots over the stream, and a new stream stands on the new one (ch3 cases 90, 92 and 93)`, async () => {
      await using pair = await twoHosts("grpc and level");
      const { acceptor, dialer } = pair;
      await offerServices(acceptor.host, "dialer", ["web"]);
      await peerThem(pair);
      await inStep(pair);
      const [rotating, other] = role === "acceptor" ? [acceptor, dialer] : [dialer, acceptor];
      const root = await rotating.authority.rotate();
      const known = (): readonly string[] => other.host.trustBundles.read(rotating.name)?.rootPems ?? [];
      await eventually(() => known().length === 2, "both are known");
      assert.ok(known().includes(root.certificatePem));
      assert.deepEqual(other.host.peerings.read(rotating.name)?.peerCaPems, known());
      assert.ok(other.host.trustBundles.union().includes(root.certificatePem));
      // The restarted one issues its server certificate under the new root at once.
      await rotating.restart();
      await inStep(pair);
      assert.equal(known().length, 2);
    });
  }

  it("the dialer was away during the rotation: it comes back with the old root, and gets the new one (L6)", async () => {
    await using pair = await twoHosts("grpc and level");
    const { acceptor, dialer } = pair;
    await offerServices(acceptor.host, "dialer", ["web"]);
    await peerThem(pair);
    await inStep(pair);
    await dialer.stop();
    await acceptor.authority.rotate();
    await acceptor.authority.rotate();
    await acceptor.restart();
    await dialer.start();
    assert.equal(dialer.host.peerings.read("acceptor")?.peerCaPems.length, 1);
    await inStep(pair);
    await eventually(() => dialer.host.peerings.read("acceptor")?.peerCaPems.length === 3, "all roots arrive");
  });

  it("a server certificate that ends is renewed before, and a dialer that comes later gets through", async () => {
    await using relay = await startRelay();
    const own = ownAuthority(await newAuthority("root"), BACKDATE_MS + 2_000);
    const issued: IssuedCertificate[] = [];
    const authority: CertificateAuthority = {
      ...own,
      issueServer: async (datacenter) => {
        const certificate = await own.issueServer(datacenter);
        issued.push(certificate);
        return certificate;
      },
    };
    await using acceptor = await host({ authority, advertise: [relay.address] });
    await using dialer = await host({ datacenter: "dc2", transport: grpcTransport() });
    relay.forwardTo(acceptor.listenAddress ?? "");
    const token = await acceptor.peerings.generateToken({ peerName: "dialer" });
    await dialer.peerings.establish({ peerName: "acceptor", token });
    await eventually(() => dialer.peerings.read("acceptor")?.state === "active", "it is connected");
    const { connectTime } = dialer.peerings.read("acceptor")?.status.facts ?? {};
    const [first] = issued;
    assert.ok(first !== undefined);
    await eventually(
      () => Date.now() > first.notAfter && (issued.at(-1)?.notAfter ?? 0) > Date.now(),
      "it was renewed",
    );
    assert.equal(dialer.peerings.read("acceptor")?.status.facts.connectTime, connectTime, "the stream does not mind");
    relay.cut();
    await eventually(() => dialer.peerings.read("acceptor")?.state === "failing", "the stream is cut");
    await eventually(() => dialer.peerings.read("acceptor")?.state === "active", "it comes back");
  });
});

describe("certificates that are not the expected ones", () => {
  /** An authority that announces `root`, and shows what `issue` gives. */
  function showing(
    root: TestAuthority,
    issue: () => ReturnType<typeof newLeaf>,
    rootId: () => string = () => "root",
  ): CertificateAuthority {
    const own = ownAuthority(root);
    return {
      ...own,
      // Whatever is shown counts as of the active root; with another id a new certificate is issued.
      roots: () => own.roots().map((one) => ({ ...one, id: rootId() })),
      issueServer: async () => {
        const certificate = await issue();
        const [notBefore, notAfter] = [Date.now() - 60_000, Date.now() + 3_600_000];
        return { ...certificate, notBefore, notAfter, rootId: rootId() };
      },
    };
  }

  const serverName = peeringServerName("dc1", TRUST_DOMAIN);
  const cases: readonly (readonly [string, RegExp, (root: TestAuthority) => ReturnType<typeof newLeaf>])[] = [
    [
      "of another CA",
      /certificate signed by unknown authority/,
      async () => newLeaf(await newAuthority("other"), { dnsNames: [serverName] }),
    ],
    [
      "that is expired",
      /certificate has expired/,
      (root) => newLeaf(root, { dnsNames: [serverName], notAfter: Date.now() - 1_000 }),
    ],
    [
      "of another name",
      /certificate is valid for other\.example, not /,
      (root) => newLeaf(root, { dnsNames: ["other.example"] }),
    ],
  ];
  for (const [what, text, issue] of cases) {
    it(`one ${what}: establish fails and says why, and no secret was sent (ch1 cases 4 and 5, ch3 case 22)`, async () => {
      const root = await newAuthority("root");
      const authority = showing(root, () => issue(root));
      await using acceptor = await host({ authority });
      await using dialer = await host({ datacenter: "dc2", transport: grpcTransport() });
      const token = await acceptor.peerings.generateToken({ peerName: "dialer" });
      await assert.rejects(dialer.peerings.establish({ peerName: "acceptor", token }), {
        name: "PeeringError",
        message: text,
      });
      assert.equal(dialer.peerings.read("acceptor")?.state, "pending");
      const row = machineryOf(acceptor).records.tables.secrets.get(acceptor.peerings.read("dialer")?.id ?? "");
      assert.ok(
        row?.role === "acceptor" && row.establishment !== "" && row.pending === "",
        "the token is unused still",
      );
    });

    it(`one ${what} on a later stream: FAILING with the reason, and ACTIVE again with a right one`, async () => {
      const root = await newAuthority("root");
      let wrong = false;
      let issued = 0;
      const listeners = new Set<() => void>();
      const authority: CertificateAuthority = {
        ...showing(
          root,
          () => {
            issued++;
            return wrong ? issue(root) : newLeaf(root, { dnsNames: [serverName] });
          },
          () => String(wrong),
        ),
        onRootsChanged: (listener) => {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      };
      await using relay = await startRelay();
      await using acceptor = await host({ authority, advertise: [relay.address] });
      await using dialer = await host({ datacenter: "dc2", transport: grpcTransport() });
      relay.forwardTo(acceptor.listenAddress ?? "");
      const token = await acceptor.peerings.generateToken({ peerName: "dialer" });
      await dialer.peerings.establish({ peerName: "acceptor", token });
      await eventually(() => dialer.peerings.read("acceptor")?.state === "active", "it is connected");
      const view = (): ReturnType<typeof dialer.peerings.read> => dialer.peerings.read("acceptor");
      const change = async (to: boolean): Promise<void> => {
        wrong = to;
        const before = issued;
        for (const listener of listeners) listener();
        await eventually(() => issued > before, "another certificate is shown");
      };
      await change(true);
      relay.cut();
      await eventually(() => view()?.status.lastFailure?.code === "unauthenticated", "it is refused");
      assert.equal(view()?.state, "failing");
      assert.match(view()?.status.lastFailure?.message ?? "", text);
      assert.equal(view()?.status.lastFailure?.address, relay.address);
      await change(false);
      await eventually(() => view()?.state === "active", "it is taken again");
    });
  }

  it("a token with another server name or another CA is recognised by the text of its error (ch3 case 22)", async () => {
    await using acceptor = await host();
    await using dialer = await host({ datacenter: "dc2", transport: grpcTransport() });
    const token = TokenCodec.decode(await acceptor.peerings.generateToken({ peerName: "dialer" }));
    const other = await newAuthority("other");
    for (const [changed, text] of [
      [{ ca: [other.certificatePem] }, /certificate signed by unknown authority/],
      [
        { serverName: "server.dc9.peering.x.consul" },
        /certificate is valid for server\.dc1\.peering\..*, not server\.dc9/,
      ],
    ] as const) {
      const wrong = TokenCodec.encode({ ...token, ...changed });
      await assert.rejects(dialer.peerings.establish({ peerName: "acceptor", token: wrong }), { message: text });
    }
    await dialer.peerings.establish({ peerName: "acceptor", token: TokenCodec.encode(token) });
    await eventually(() => acceptor.peerings.read("dialer")?.state === "active", "the right one works");
  });
});

it("a host whose authority cannot issue starts, dials, and is dialed once it can", async () => {
  const own = ownAuthority(await newAuthority("root"));
  let failing = true;
  const authority: CertificateAuthority = {
    ...own,
    issueServer: (datacenter) =>
      failing ? Promise.reject(new Error("the signer is away")) : own.issueServer(datacenter),
  };
  await using odd = await host({ authority });
  await using other = await host({ datacenter: "dc2" });
  const token = await other.peerings.generateToken({ peerName: "odd" });
  await odd.peerings.establish({ peerName: "other", token });
  await eventually(() => odd.peerings.read("other")?.state === "active", "it dials");
  const back = await odd.peerings.generateToken({ peerName: "again" });
  await assert.rejects(other.peerings.establish({ peerName: "back", token: back }), { code: "unavailable" });
  failing = false;
  await eventually(
    () =>
      other.peerings.establish({ peerName: "back", token: back }).then(
        () => true,
        () => false,
      ),
    "it can be dialed",
  );
  await eventually(() => odd.peerings.read("again")?.state === "active", "it is dialed");
});
