import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { machineryOf } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { fixedAuthority } from "../../../src/testing/fixed-authority.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { encodeTrustBundle } from "../../../src/trust/trust-bundle-store.js";
import { PeeringState } from "../../../src/wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { eventually, inStep, offerServices, peerThem, twoHosts } from "../../support/hosts.js";
import { lonelyHost, PROTOCOLS, refusal, serveRpc, tokens } from "./support.js";

describe("PeeringService", () => {
  for (const protocol of PROTOCOLS) {
    it(`peers two clusters over ${protocol}, describes them, and parts them`, async () => {
      await using pair = await twoHosts("memory");
      await using east = await serveRpc(pair.acceptor.host);
      await using west = await serveRpc(pair.dialer.host);
      const [accepting, dialing] = [east.peerings(protocol), west.peerings(protocol)];
      const { PeeringToken } = await accepting.generateToken({ PeerName: "west", Meta: { a: "b" } });
      await dialing.establish({ PeerName: "east", PeeringToken });
      await eventually(
        async () => (await dialing.peeringRead({ Name: "EAST" })).Peering?.State === PeeringState.ACTIVE,
        "the dialer reads ACTIVE",
      );
      const { Peering: read } = await accepting.peeringRead({ Name: "west" });
      assert.ok(read !== undefined);
      const view = pair.acceptor.host.peerings.read("west");
      assert.deepEqual(
        [read.ID, read.Name, read.Meta, read.CreateIndex, read.ModifyIndex, read.PeerID],
        [view?.id, "west", { a: "b" }, view?.createIndex, view?.modifyIndex, ""],
      );
      assert.equal(read.Remote?.Datacenter, "dialer");
      assert.ok(read.StreamStatus?.LastReceive !== undefined);
      const { Peering: other } = await dialing.peeringRead({ Name: "east" });
      assert.deepEqual([other?.PeerID, other?.PeerServerName], [read.ID, TokenCodec.decode(PeeringToken).serverName]);
      assert.ok(other !== undefined && other.PeerServerAddresses.length === 1 && other.PeerCAPems.length === 1);
      await accepting.peeringDelete({ Name: "west" });
      await eventually(async () => (await accepting.peeringList({})).Peerings.length === 0, "the record is gone");
      await eventually(
        async () => (await dialing.peeringRead({ Name: "east" })).Peering?.State === PeeringState.TERMINATED,
        "the peer hears of it",
      );
    });

    it(`tells failures over ${protocol} with code and text`, async () => {
      await using served = await serveRpc(await lonelyHost());
      const client = served.peerings(protocol);
      assert.deepEqual(await refusal(client.generateToken({ PeerName: "--AA--" })), [
        "Unknown",
        "--AA-- is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
      ]);
      assert.deepEqual(await refusal(client.peeringList({ Partition: "test" })), [
        "InvalidArgument",
        "Partitions are a Consul Enterprise feature",
      ]);
    });
  }

  it("bad names and metadata are told before who may ask, with code Unknown (RPC1)", async () => {
    await using served = await serveRpc(await lonelyHost(), { authorizer: tokens({}) });
    const client = served.peerings();
    const Meta = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`k${index}`, ""]));
    const text = "meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs";
    assert.deepEqual(await refusal(client.generateToken({ PeerName: "a", Meta })), ["Unknown", text]);
    assert.match((await refusal(client.establish({ PeerName: "A" })))[1], /^A is not a valid peer name/);
    assert.deepEqual(await refusal(client.establish({ PeerName: "a", PeeringToken: "+++/+++" })), [
      "Unknown",
      "failed to decode token: illegal base64 data at input byte 4",
    ]);
  });

  it("partitions and namespaces but the default ones are refused, by Establish alone not looked at (RPC2)", async () => {
    await using served = await serveRpc(await lonelyHost());
    const client = served.peerings();
    const partitions = ["InvalidArgument", "Partitions are a Consul Enterprise feature"];
    const Partition = "test";
    for (const call of [
      client.generateToken({ PeerName: "a", Partition }),
      client.peeringRead({ Name: "a", Partition }),
      client.peeringList({ Partition }),
      client.peeringDelete({ Name: "a", Partition }),
      client.peeringWrite({ Peering: { Name: "a", Partition } }),
      client.trustBundleRead({ Name: "a", Partition }),
      client.trustBundleListByService({ ServiceName: "web", Partition }),
    ]) {
      assert.deepEqual(await refusal(call), partitions);
    }
    assert.deepEqual(await refusal(client.trustBundleListByService({ ServiceName: "web", Namespace: "test" })), [
      "InvalidArgument",
      "Namespaces are a Consul Enterprise feature",
    ]);
    assert.equal((await refusal(client.establish({ PeerName: "a", PeeringToken: "Cg==", Partition })))[0], "Unknown");
    await client.generateToken({ PeerName: "a", Partition: "DeFaUlT" });
    assert.equal((await client.peeringList({ Partition: "DEFAULT" })).Peerings.length, 1);
    await client.trustBundleListByService({ ServiceName: "web", Namespace: "Default" });
  });

  it("a missing peering is no failure, and without a stream the status is empty (RPC3)", async () => {
    await using served = await serveRpc(await lonelyHost());
    const client = served.peerings("gRPC");
    assert.equal((await client.peeringRead({ Name: "baz" })).Peering, undefined);
    assert.equal((await client.trustBundleRead({ Name: "baz" })).Bundle, undefined);
    await client.peeringDelete({ Name: "baz" });
    await client.generateToken({ PeerName: "foo" });
    const { Peering } = await client.peeringRead({ Name: "foo" });
    const { $typeName, ...status } = Peering?.StreamStatus ?? {};
    assert.deepEqual(status, { ImportedServices: [], ExportedServices: [] });
    assert.equal(Peering?.State, PeeringState.PENDING);
  });

  it("where peering is disabled every method says so (LC20)", async () => {
    await using served = await serveRpc(await lonelyHost({ peeringEnabled: false }));
    const client = served.peerings("gRPC");
    for (const call of [
      client.generateToken({ PeerName: "a" }),
      client.establish({ PeerName: "a" }),
      client.peeringRead({ Name: "a" }),
      client.peeringList({}),
      client.peeringDelete({ Name: "a" }),
      client.peeringWrite({}),
      client.trustBundleRead({ Name: "a" }),
      client.trustBundleListByService({}),
    ]) {
      assert.deepEqual(await refusal(call), ["FailedPrecondition", "peering must be enabled to use this endpoint"]);
    }
  });

  it("refuses a token that was used with the code of the peer's answer", async () => {
    await using pair = await twoHosts("memory");
    await using east = await serveRpc(pair.acceptor.host);
    await using west = await serveRpc(pair.dialer.host);
    const { PeeringToken } = await east.peerings().generateToken({ PeerName: "west" });
    await west.peerings().establish({ PeerName: "east", PeeringToken });
    assert.deepEqual(await refusal(west.peerings("gRPC").establish({ PeerName: "east", PeeringToken })), [
      "PermissionDenied",
      "a new peering token must be generated: invalid peering establishment secret",
    ]);
    assert.deepEqual(await refusal(east.peerings().establish({ PeerName: "east", PeeringToken })), [
      "Unknown",
      `cannot create a peering within the same cluster "${TokenCodec.decode(PeeringToken).serverName}". Refer to the ` +
        "`exported-services` documentation if you want to export between partitions without peering",
    ]);
  });
});

describe("PeeringService's reads", () => {
  it("wait for a change after the index they are given, and tell the next one in metadata (RPC4)", async () => {
    await using served = await serveRpc(await lonelyHost());
    for (const protocol of PROTOCOLS) {
      const client = served.peerings(protocol);
      let header = new Headers();
      const first = await client.peeringList({}, { onHeader: (headers) => (header = headers) });
      const index = header.get("index") ?? "";
      assert.equal(first.OBSOLETEIndex, BigInt(index));
      const told = [
        "lastcontact",
        "knownleader",
        "consistencylevel",
        "notmodified",
        "backend",
        "resultsfilteredbyacls",
      ];
      assert.deepEqual(
        told.map((name) => header.get(name)),
        ["0s", "true", "", "false", "blocking-query", "false"],
      );
      const headers = { "Min-Query-Index": index, "max-query-time": "1m" };
      const waiting = client.peeringList({}, { headers, onHeader: (headers) => (header = headers) });
      await client.peeringList({});
      for (const name of ["foo", "baz", "bar"])
        await client.generateToken({ PeerName: `${name}-${protocol.toLowerCase()}` });
      const second = await waiting;
      assert.ok(second.OBSOLETEIndex > BigInt(index));
      assert.equal(String(second.OBSOLETEIndex), header.get("index"));
      const names = (await client.peeringList({})).Peerings.map(({ Name }) => Name);
      assert.deepEqual(names, names.toSorted());
    }
  });

  it("answer with the present state once the time is over", async () => {
    await using served = await serveRpc(await lonelyHost());
    const client = served.peerings("gRPC");
    await client.generateToken({ PeerName: "foo" });
    let header = new Headers();
    await client.peeringRead({ Name: "foo" }, { onHeader: (headers) => (header = headers) });
    const index = header.get("index") ?? "";
    const headers = { "min-query-index": index, "max-query-time": "20ms" };
    const { Peering } = await client.peeringRead({ Name: "foo" }, { headers, onHeader: (told) => (header = told) });
    assert.deepEqual([Peering?.Name, header.get("index")], ["foo", index]);
    const missing = await client.peeringRead({ Name: "bar" }, { headers });
    assert.equal(missing.Peering, undefined);
  });

  it("refuse an invalid index and an invalid time", async () => {
    await using served = await serveRpc(await lonelyHost());
    const client = served.peerings();
    const reading = (headers: Record<string, string>) => refusal(client.peeringList({}, { headers }));
    assert.deepEqual(await reading({ "min-query-index": "x" }), ["InvalidArgument", 'invalid min-query-index: "x"']);
    assert.deepEqual(await reading({ "max-query-time": "5" }), ["InvalidArgument", 'invalid max-query-time: "5"']);
  });

  it("take the first of several values, and ignore what they do not know", async () => {
    await using served = await serveRpc(await lonelyHost());
    const headers = new Headers({ "x-other": "?", "allow-stale": "maybe" });
    headers.append("max-query-time", "1s");
    headers.append("max-query-time", "nonsense");
    await served.peerings("gRPC").peeringList({}, { headers });
  });

  it("end when their caller has no more time", async () => {
    await using served = await serveRpc(await lonelyHost());
    for (const protocol of PROTOCOLS) {
      const headers = { "min-query-index": "1000000" };
      const waiting = served.peerings(protocol).peeringList({}, { headers, timeoutMs: 30 });
      assert.equal((await refusal(waiting))[0], "DeadlineExceeded");
    }
  });

  it("bundles are told by peer and by service while a peer may reach it, and waited for (RPC5)", async () => {
    await using pair = await twoHosts("memory");
    await offerServices(pair.acceptor.host, "dialer", ["web", "db"]);
    await peerThem(pair);
    await inStep(pair);
    await using east = await serveRpc(pair.acceptor.host);
    const client = east.peerings("gRPC");
    const read = await client.trustBundleRead({ Name: "Dialer" });
    const { TrustDomain, PeerName, RootPEMs, ModifyIndex } = read.Bundle ?? {};
    assert.deepEqual([TrustDomain, PeerName, RootPEMs?.length], [pair.dialer.host.trustDomain, "dialer", 1]);
    assert.equal(read.OBSOLETEIndex, ModifyIndex);

    const byService = async (ServiceName: string, Kind = "", headers = {}) => {
      const { Bundles, OBSOLETEIndex } = await client.trustBundleListByService({ ServiceName, Kind }, { headers });
      return { peers: Bundles.map((bundle) => bundle.PeerName), index: String(OBSOLETEIndex) };
    };
    assert.deepEqual((await byService("web")).peers, ["dialer"]);
    assert.deepEqual((await byService("consul")).peers, []);
    assert.deepEqual((await byService("consul", "mesh-gateway")).peers, ["dialer"]);
    assert.deepEqual(await refusal(client.trustBundleListByService({})), ["Unknown", "missing service name"]);

    // Each read waits for the index of the one before it: none is repeated without news.
    let told = await byService("web");
    const gone = (async () => {
      while (told.peers.length > 0) told = await byService("web", "", { "min-query-index": told.index });
    })();
    await pair.acceptor.host.exports.delete();
    await gone;

    let bundle = read;
    const until = async (roots: number | undefined): Promise<void> => {
      while (bundle.Bundle?.RootPEMs.length !== roots) {
        const headers = { "min-query-index": String(bundle.OBSOLETEIndex) };
        const next = await client.trustBundleRead({ Name: "dialer" }, { headers });
        assert.ok(next.OBSOLETEIndex > bundle.OBSOLETEIndex);
        bundle = next;
      }
    };
    const rotated = until(2);
    await pair.dialer.authority.rotate();
    await rotated;
    const removed = until(undefined);
    await pair.dialer.host.peerings.delete("acceptor");
    await removed;
    assert.deepEqual((await byService("consul", "mesh-gateway")).peers, []);
  });
});

describe("a bundle that names our own trust domain, or another peer's", () => {
  it("is not told, not by peer and not by service, until it may be, and who waits learns of it then (D-24)", async () => {
    const storage = memoryStorage();
    const trustDomain = "11111111-2222-3333-4444-555555555555.consul";
    const [root1 = "", root2 = "", root3 = ""] = fixedRootPems;
    const stored = (peerName: string, claimed: string, root: string): Promise<unknown> => {
      const value = encodeTrustBundle({ peerName, trustDomain: claimed, rootPems: [root], exportedPartition: "" });
      return storage.commit([{ key: ["peerings", "bundle", peerName], value }]);
    };
    await stored("first", "shared.consul", root1);
    await stored("second", "SHARED.consul", root2);
    await stored("third", trustDomain.toUpperCase(), root3);
    const authority = fixedAuthority({ trustDomain });
    await using served = await serveRpc(await lonelyHost({ storage, authority }));
    const client = served.peerings("gRPC");
    for (const PeerName of ["first", "second", "third"]) await client.generateToken({ PeerName });
    await served.host.exports.set({
      services: [{ name: "web", consumers: ["first", "second", "third"].map((peer) => ({ peer })) }],
    });
    const listed = async (ServiceName: string, Kind = ""): Promise<readonly string[]> =>
      (await client.trustBundleListByService({ ServiceName, Kind })).Bundles.map(({ PeerName }) => PeerName);
    assert.deepEqual(await listed("consul", "mesh-gateway"), ["first"]);
    assert.deepEqual(await listed("web"), ["first"]);
    assert.equal((await client.trustBundleRead({ Name: "third" })).Bundle, undefined);
    const { Bundle, OBSOLETEIndex } = await client.trustBundleRead({ Name: "second" });
    assert.equal(Bundle, undefined);
    const told = client.trustBundleRead({ Name: "second" }, { headers: { "min-query-index": String(OBSOLETEIndex) } });
    await client.peeringDelete({ Name: "first" });
    assert.deepEqual((await told).Bundle?.RootPEMs, [root2]);
    assert.deepEqual(await listed("consul", "mesh-gateway"), ["second"]);
  });
});

describe("the bundles of a service", () => {
  it("are those of the peers it is exported to by any block, if they are peered with and not being deleted (ST21, ST22)", async () => {
    await using served = await serveRpc(await lonelyHost());
    const { host } = served;
    const client = served.peerings("gRPC");
    const { records } = machineryOf(host);
    const peers = async (ServiceName = "web"): Promise<readonly string[]> =>
      (await client.trustBundleListByService({ ServiceName })).Bundles.map(({ PeerName }) => PeerName);
    for (const PeerName of ["foo", "baz", "bar"]) await client.generateToken({ PeerName });
    const [root = ""] = fixedRootPems;
    const bundle = (name: string): Promise<void> =>
      records.writeTrustBundle(records.byName(name)?.id ?? "", {
        trustDomain: `${name}.consul`,
        rootPems: [root],
        exportedPartition: "",
      });
    for (const name of ["foo", "baz"]) await bundle(name);
    await host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    assert.deepEqual(await peers(), [], "nothing is exported");
    const consumers = (...names: readonly string[]) => names.map((peer) => ({ peer }));
    await host.exports.set({
      services: [
        { name: "web", consumers: consumers("foo", "bar", "unknown", "Baz") },
        { name: "*", consumers: consumers("baz") },
      ],
    });
    await eventually(async () => (await peers()).join() === "baz,foo", "both blocks count");
    await bundle("bar");
    assert.deepEqual(await peers(), ["bar", "baz", "foo"]);
    for (const name of ["shop", "db"]) {
      await host.configEntries.set({ kind: "service-defaults", name, protocol: "http" });
    }
    await host.configEntries.set({ kind: "service-resolver", name: "shop", redirect: { service: "db" } });
    assert.deepEqual(await peers("db"), ["baz"], "through a chain that the wildcard exports");
    await host.catalog.deregister({ node: "n1" });
    assert.ok((await peers()).includes("foo"), "an exact block outlives the instances");
    await client.peeringDelete({ Name: "foo" });
    assert.ok(!(await peers()).includes("foo"));
    await host.exports.delete();
    assert.deepEqual(await peers(), []);
  });
});

describe("PeeringWrite", () => {
  it("is refused where no option asks for it, and writes nothing; the other methods are served", async () => {
    await using served = await serveRpc(await lonelyHost());
    for (const protocol of PROTOCOLS) {
      const client = served.peerings(protocol);
      assert.deepEqual(await refusal(client.peeringWrite({ Peering: { Name: "west", State: PeeringState.ACTIVE } })), [
        "Unimplemented",
        "PeeringWrite goes round the rules of peerings and is not served",
      ]);
      assert.deepEqual((await client.peeringList({})).Peerings, []);
    }
  });

  it("writes a record as it is given, with its secrets", async () => {
    await using served = await serveRpc(await lonelyHost(), { allowPeeringWrite: true });
    const client = served.peerings();
    const { records } = machineryOf(served.host);
    assert.deepEqual(await refusal(client.peeringWrite({})), ["Unknown", "missing required peering body"]);
    const Peering = { Name: "west", Meta: { a: "b" }, State: PeeringState.ACTIVE, Remote: { Datacenter: "dc9" } };
    const Request = { case: "generateToken", value: { establishmentSecret: "E" } } as const;
    await client.peeringWrite({ Peering, SecretsRequest: { Request } });
    const acceptor = records.byName("west");
    assert.deepEqual([acceptor?.state, acceptor?.meta, acceptor?.remote.datacenter], ["pending", { a: "b" }, "dc9"]);
    assert.notEqual(await records.exchangeSecret({ peerId: acceptor?.id ?? "", establishmentSecret: "E" }), "");
    await client.peeringWrite({
      Peering: {
        Name: "east",
        State: PeeringState.FAILING,
        PeerServerAddresses: ["127.0.0.1:1"],
        PeerID: acceptor?.id ?? "",
      },
    });
    assert.equal(records.byName("east")?.state, "establishing");
    const deleted = { Name: "east", State: PeeringState.DELETING, PeerServerAddresses: ["127.0.0.1:1"] };
    assert.deepEqual(await refusal(client.peeringWrite({ Peering: deleted })), [
      "Unknown",
      "Missing deletion time for peering in deleting state",
    ]);
    await client.peeringWrite({ Peering: { ...deleted, DeletedAt: { seconds: 1_700_000_000n, nanos: 0 } } });
    await eventually(() => records.byName("east") === undefined, "the deletion is carried out");
  });
});

describe("rights", () => {
  const authorizer = tokens({
    reader: ["peering:read", "service:read all", "node:read all"],
    writer: ["peering:read", "peering:write"],
    service: ["service:write web", "service:write any"],
  });
  const as = (token: string) => ({ headers: { "X-Consul-Token": token } });

  it("writing needs peering:write, reading peering:read, and the refusal names it (RPC6)", async () => {
    await using served = await serveRpc(await lonelyHost(), { authorizer });
    for (const protocol of PROTOCOLS) {
      const client = served.peerings(protocol);
      const anonymous = (right: string) => [
        "Unknown",
        `Permission denied: anonymous token lacks permission '${right}'. The anonymous token is used implicitly when a request does not specify a token.`,
      ];
      const reader = (right: string) => [
        "Unknown",
        `Permission denied: token with AccessorID 'reader' lacks permission '${right}'`,
      ];
      const { PeeringToken } = await client.generateToken({ PeerName: "a" }, as("writer"));
      for (const write of [
        (options?: ReturnType<typeof as>) => client.generateToken({ PeerName: "a" }, options),
        (options?: ReturnType<typeof as>) => client.establish({ PeerName: "b", PeeringToken }, options),
        (options?: ReturnType<typeof as>) => client.peeringDelete({ Name: "a" }, options),
        (options?: ReturnType<typeof as>) => client.peeringWrite({ Peering: { Name: "a" } }, options),
      ]) {
        assert.deepEqual(await refusal(write()), anonymous("peering:write"));
        assert.deepEqual(await refusal(write(as("reader"))), reader("peering:write"));
      }
      for (const read of [
        (options?: ReturnType<typeof as>) => client.peeringRead({ Name: "a" }, options),
        (options?: ReturnType<typeof as>) => client.peeringList({}, options),
      ]) {
        assert.deepEqual(await refusal(read()), anonymous("peering:read"));
        await read(as("reader"));
      }
      assert.deepEqual(await refusal(client.peeringList({}, as("nobody"))), ["Unknown", "ACL not found"]);
      const { Peerings } = await client.peeringList({}, { headers: { authorization: "Bearer reader" } });
      assert.equal(Peerings.length, 1);
    }
  });

  it("trust bundles need service:write, on any service or on the one that is named (RPC7)", async () => {
    await using served = await serveRpc(await lonelyHost(), { authorizer });
    const client = served.peerings("gRPC");
    const lacks = "Permission denied: token with AccessorID 'reader' lacks permission 'service:write'";
    assert.deepEqual(await refusal(client.trustBundleRead({ Name: "a" }, as("reader"))), ["Unknown", lacks]);
    await client.trustBundleRead({ Name: "a" }, as("service"));
    assert.deepEqual(await refusal(client.trustBundleListByService({ ServiceName: "web" }, as("reader"))), [
      "Unknown",
      `${lacks} on "web"`,
    ]);
    assert.equal((await refusal(client.trustBundleListByService({ ServiceName: "db" }, as("service"))))[0], "Unknown");
    await client.trustBundleListByService({ ServiceName: "web" }, as("service"));
  });
});
