import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { PeeringErrorCode } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { peered, type Site, World } from "../../support/world.js";

/** Everything the disk holds and everything a host tells of itself, to see that nothing changed. */
async function contentOf(world: World, site: Site): Promise<unknown> {
  const { entries, revision } = await world.result(site.disk.read([]));
  const { peerings, exports, catalog, imports, trustBundles } = site.host;
  const views = peerings.list();
  return {
    revision,
    entries: entries.map(({ key, value }) => [key, Buffer.from(value).toString("base64")]),
    records: views.map(({ status: _, ...record }) => record),
    imports: views.map(({ name }) => imports.services({ peer: name })),
    exports: exports.get(),
    services: [catalog.instances("web"), catalog.instances("api"), catalog.instances("x")],
    bundles: trustBundles.list(),
  };
}

async function refused(
  world: World,
  site: Site,
  call: () => Promise<unknown>,
  code: PeeringErrorCode,
  text: string | RegExp,
): Promise<void> {
  const before = await contentOf(world, site);
  const error = await world.refusal(call());
  assert.equal(error.code, code, error.message);
  if (typeof text === "string") assert.equal(error.message, text);
  else assert.match(error.message, text);
  assert.deepEqual(await contentOf(world, site), before, "nothing changed");
}

const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

describe("tokens", () => {
  const good = {
    CA: [] as readonly string[],
    ManualServerAddresses: [] as readonly string[] | null,
    ServerAddresses: ["10.0.0.1:8503"] as readonly string[] | null,
    ServerName: "server.dc9.peering.x.consul",
    PeerID: "99999999-8888-7777-6666-555555555555",
    EstablishmentSecret: "99999999-0000-0000-0000-000000000001",
    Remote: { Partition: "", Datacenter: "dc9" },
  };
  const encode = (fields: object): string => Buffer.from(JSON.stringify({ ...good, ...fields })).toString("base64");
  const cases: readonly (readonly [string, string, string | RegExp])[] = [
    ["is empty", "", /unexpected end of JSON input/],
    ["is not base64", "+++/+++", /illegal base64 data/],
    ["is not JSON", Buffer.from("peer with me").toString("base64"), /invalid character 'p'/],
    ["is JSON of another kind", Buffer.from("[]").toString("base64"), /json: cannot unmarshal array/],
    ["has a field of another type", encode({ ServerName: 7 }), /json: cannot unmarshal number/],
    ["lacks addresses", encode({ ServerAddresses: undefined }), "peering token server addresses value is empty"],
    ["empties addresses", encode({ ServerAddresses: [] }), "peering token server addresses value is empty"],
    ["has null addresses", encode({ ServerAddresses: null }), "peering token server addresses value is empty"],
    [
      "has an address without port",
      encode({ ServerAddresses: ["1.2.3.4"] }),
      /^1\.2\.3\.4 is not a valid peering server/,
    ],
    ["has a bad port", encode({ ServerAddresses: ["a:99999"] }), "a:99999 is not a valid peering server address"],
    [
      "has a bad manual address",
      encode({ ManualServerAddresses: ["a:http"] }),
      "a:http is not a valid peering server address",
    ],
    [
      "has a CA that is no PEM",
      encode({ CA: ["notavalidcert"] }),
      "peering token invalid CA: no PEM-encoded data found",
    ],
    ["has a broken certificate", encode({ CA: [PEM] }), "peering token invalid CA: x509: malformed certificate"],
    ["lacks the peer ID", encode({ PeerID: undefined }), "peering token peer ID value is empty"],
    ["empties the peer ID", encode({ PeerID: "" }), "peering token peer ID value is empty"],
  ];
  for (const [what, token, text] of cases) {
    it(`one that ${what} is refused, and nothing changes`, async () => {
      const world = new World();
      const { dialer } = await peered(world);
      const { peerings } = dialer.host;
      await refused(world, dialer, () => peerings.establish({ peerName: "new", token }), "invalid-token", text);
      await refused(world, dialer, () => peerings.establish({ peerName: "acceptor", token }), "invalid-token", text);
    });
  }

  it("one with a CA must have a server name", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const real = TokenCodec.decode(await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" })));
    const token = TokenCodec.encode({ ...real, serverName: "" });
    const { peerings } = dialer.host;
    const text = "peering token server name value is empty";
    await refused(world, dialer, () => peerings.establish({ peerName: "new", token }), "invalid-token", text);
  });

  it("one that has more than it may is refused, and counted", async () => {
    const world = new World();
    const incidents = new Incidents();
    const limits = { tokenCharacters: 2_000, addressesPerPeer: 2, rootsPerPeer: 2 };
    const { dialer } = await peered(world, { dialer: { limits, incidents } });
    const { peerings } = dialer.host;
    const addresses = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];
    const long = "A".repeat(2_001);
    const cases: readonly (readonly [string, string])[] = [
      [long, "peering token has too many characters (2001 > 2000)"],
      [encode({ CA: [PEM, PEM, PEM] }), "peering token has too many certificates (3 > 2)"],
      [encode({ ServerAddresses: addresses }), "peering token has too many server addresses (3 > 2)"],
      [encode({ ManualServerAddresses: addresses }), "peering token has too many server addresses (3 > 2)"],
    ];
    for (const [token, text] of cases) {
      await refused(world, dialer, () => peerings.establish({ peerName: "new", token }), "invalid-token", text);
      assert.throws(() => peerings.requireSound(token), { code: "invalid-token", message: text });
    }
    const generate = (): Promise<string> =>
      peerings.generateToken({ peerName: "new", serverExternalAddresses: addresses });
    await refused(world, dialer, generate, "invalid-token", "peering token has too many server addresses (3 > 2)");
    assert.equal(incidents.counts().get("token-too-large"), 2 * cases.length + 1);
    assert.throws(() => peerings.requireSound(encode({ CA: [PEM, PEM] })), /malformed certificate/);
    peerings.requireSound(encode({ ServerAddresses: addresses.slice(1) }));
  });

  it("our own is refused", async () => {
    const world = new World();
    const { acceptor } = await peered(world);
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "new" }));
    const { peerings } = acceptor.host;
    const establish = (): Promise<unknown> => peerings.establish({ peerName: "myself", token });
    await refused(world, acceptor, establish, "same-cluster", /^cannot create a peering within the same cluster "/);
  });

  it("one that was used is refused; the acceptor is as before, and the dialer keeps what Consul keeps", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = await world.site("other");
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "spare" }));
    await world.result(other.host.peerings.establish({ peerName: "acceptor", token }));
    await world.settled(acceptor, "spare", other, "acceptor");
    const before = await contentOf(world, acceptor);
    const error = await world.refusal(dialer.host.peerings.establish({ peerName: "again", token }));
    assert.deepEqual(
      [error.code, error.message],
      ["permission-denied", "a new peering token must be generated: invalid peering establishment secret"],
    );
    assert.deepEqual(await contentOf(world, acceptor), before);
    assert.equal(dialer.state("again"), "pending");
    assert.deepEqual([acceptor.state("spare"), acceptor.state("dialer")], ["active", "active"]);
  });

  it("an unused secret in another token is refused and is not used up", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    await world.result(acceptor.host.peerings.generateToken({ peerName: "elsewhere" }));
    const mixed = TokenCodec.encode({ ...TokenCodec.decode(token), peerId: acceptor.peering("elsewhere").id });
    const before = await contentOf(world, acceptor);
    const error = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token: mixed }));
    assert.equal(error.code, "permission-denied");
    assert.deepEqual(await contentOf(world, acceptor), before);
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });
});

describe("names and metadata", () => {
  const names = ["", "--AA--", "Upper", "a_b", "-a", "a-", "a.b", "ü", "x".repeat(64), "a b"];
  for (const name of names) {
    it(`the peer name ${JSON.stringify(name.length > 20 ? `${name.slice(0, 20)}…` : name)} is refused`, async () => {
      const world = new World();
      const { acceptor, dialer } = await peered(world);
      const { peerings } = acceptor.host;
      const token = await world.result(dialer.host.peerings.generateToken({ peerName: "x" }));
      const check = new RegExp(`^${name}.*is not a valid peer name: `);
      await refused(world, acceptor, () => peerings.generateToken({ peerName: name }), "invalid-name", check);
      await refused(world, acceptor, () => peerings.establish({ peerName: name, token }), "invalid-name", check);
    });
  }

  it("metadata over its limits is refused", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { peerings } = acceptor.host;
    const token = await world.result(dialer.host.peerings.generateToken({ peerName: "x" }));
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`k${index}`, "v"]));
    for (const meta of [{ "": "v" }, many, { ["k".repeat(129)]: "v" }, { k: "v".repeat(513) }]) {
      await refused(world, acceptor, () => peerings.generateToken({ peerName: "new", meta }), "invalid-argument", /./);
      await refused(
        world,
        acceptor,
        () => peerings.establish({ peerName: "new", token, meta }),
        "invalid-argument",
        /./,
      );
    }
  });

  it("an invalid external address goes into the token as in Consul, and the dialer names it", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    for (const address of ["noport", "a:0", "a:http", ""]) {
      const options = { peerName: "new", serverExternalAddresses: [address] };
      const token = await world.result(acceptor.host.peerings.generateToken(options));
      const establish = (): Promise<unknown> => dialer.host.peerings.establish({ peerName: "new", token });
      await refused(world, dialer, establish, "invalid-token", `${address} is not a valid peering server address`);
    }
  });
});

describe("catalog and exports", () => {
  it("a registration without node, without address, with a bad port or for a peer is refused whole", async () => {
    const world = new World();
    const { acceptor } = await peered(world);
    const { catalog } = acceptor.host;
    const node = { node: "n1", address: "10.0.0.1" };
    for (const [registration, text] of [
      [{ node: "", address: "10.0.0.1" }, "Must provide node"],
      [{ node: "n1", address: "" }, "Must provide address if SkipNodeUpdate is not set"],
      [{ ...node, service: { name: "" } }, "Must provide service name (Service.Service)"],
      [{ ...node, service: { name: "x", port: 0.5 } }, /^service\.port must be a whole number/],
      [{ ...node, service: { name: "x", port: 2 ** 53 } }, /^service\.port must be a whole number/],
      [{ ...node, service: { name: "x" }, checks: [{ name: "c", serviceId: "missing" }] }, /missing/],
    ] as const) {
      await refused(world, acceptor, () => catalog.register(registration), "invalid-registration", text);
      const several = [{ ...node, service: { name: "x" } }, registration];
      await refused(world, acceptor, () => catalog.registerAll(several), "invalid-registration", /./);
    }
    await refused(world, acceptor, () => catalog.deregister({ node: "" }), "invalid-registration", "Must provide node");
  });

  it("an exported-services entry against its rules is refused, and the one there is stays", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { exports } = acceptor.host;
    for (const [services, text] of [
      [[{ name: "", consumers: [{ peer: "dialer" }] }], /^Services\[0\]: service name cannot be empty/],
      [[{ name: "web", consumers: [] }], "Services[0]: must have at least one consumer"],
      [[{ name: "web", consumers: [{ peer: "*" }] }], /exporting to all peers \(wildcard\) is not supported$/],
      [
        [{ name: "web", consumers: [{ peer: "a", partition: "b" }] }],
        "Services[0].Consumers[0]: must define at most one of Peer, Partition, or SamenessGroup",
      ],
    ] as const) {
      await refused(world, acceptor, () => exports.set({ services }), "invalid-entry", text);
    }
    await world.pass(1_000);
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
  });
});

describe("a failing disk", () => {
  it("every call that writes is refused with `storage-failed`, nothing is half there, and afterwards it works", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const token = await world.result(dialer.host.peerings.generateToken({ peerName: "x" }));
    const { peerings, catalog, exports, configEntries } = acceptor.host;
    acceptor.fate = () => "fail";
    for (const call of [
      () => peerings.generateToken({ peerName: "new" }),
      () => peerings.generateToken({ peerName: "dialer" }),
      () => peerings.establish({ peerName: "new", token }),
      () => peerings.delete("dialer"),
      () => catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "x" } }),
      () => catalog.deregister({ node: "node-1" }),
      () => exports.set({ services: [{ name: "x", consumers: [{ peer: "dialer" }] }] }),
      () => exports.delete(),
      () => configEntries.set({ kind: "service-defaults", name: "web", protocol: "http" }),
    ]) {
      await refused(world, acceptor, call, "storage-failed", /the simulated disk refuses to write/);
    }
    acceptor.fate = () => "succeed";
    assert.equal(acceptor.state("dialer"), "active");
    await world.result(catalog.register({ node: "n1", address: "10.0.0.1", service: { id: "w", name: "web" } }));
    await world.until(() => dialer.count("acceptor", "web") === 2, "replication goes on");
    await world.result(peerings.delete("dialer"));
    await world.until(() => dialer.state("acceptor") === "terminated", "and so does a deletion");
  });

  it("`Terminated` that cannot be stored: nothing is removed, and the deletion can still be done by hand", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    dialer.fate = () => "fail";
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "the acceptor is done");
    assert.ok(dialer.log.has("error", "failed to mark peering as terminated"));
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
    dialer.fate = () => "succeed";
    await world.pass(120_000);
    assert.notEqual(dialer.state("acceptor"), "active");
    await world.result(dialer.host.peerings.delete("acceptor"));
    await world.until(() => dialer.state("acceptor") === "none", "its operator deletes");
  });

  it("an Open whose promotion cannot be stored is INTERNAL, and the next one is taken", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    const commits = acceptor.commits;
    acceptor.fate = (commit) => (commit === commits + 1 ? "fail" : "succeed");
    await world.until(() => dialer.peering("acceptor").status.lastFailure !== undefined, "it is refused");
    assert.match(
      dialer.peering("acceptor").status.lastFailure?.message ?? "",
      /failed to persist peering: .*the simulated disk refuses to write/,
    );
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });
});
