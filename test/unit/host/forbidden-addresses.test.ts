import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { grpcTransport } from "../../../src/transport/grpc.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import { acceleratedClock, borrowed, eventually } from "../../support/hosts.js";
import { peered, type Site, type SiteOptions, World } from "../../support/world.js";

function withAddresses(token: string, manual: boolean, ...addresses: readonly string[]): string {
  const changed = manual ? { manualServerAddresses: addresses } : { serverAddresses: addresses };
  return TokenCodec.encode({ ...TokenCodec.decode(token), ...changed });
}

const FORBIDDEN = [
  "169.254.169.254:80",
  "[::ffff:169.254.169.254]:80",
  "[64:ff9b::a9fe:a9fe]:80",
  "[fe80::1%eth0]:8503",
  "[fd00:ec2::254]:80",
  "100.100.100.200:80",
  "0.0.0.0:8503",
  "[::]:8503",
  "224.0.0.1:8503",
];

describe("addresses of a token", () => {
  it("are refused where one may not be dialed, by its name, before anything is written", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    const commits = dialer.commits;
    for (const address of FORBIDDEN) {
      for (const manual of [true, false]) {
        const bad = withAddresses(token, manual, acceptor.address, address);
        const refusal = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token: bad }));
        assert.equal(refusal.code, "invalid-token");
        assert.ok(refusal.message.startsWith(`${address} is not a valid peering server address: `), refusal.message);
      }
    }
    assert.deepEqual([dialer.state("acceptor"), dialer.commits], ["none", commits]);
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("are taken where the host forbids none, and refused where it forbids others", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const establish = async (name: string, options: SiteOptions, address: string): Promise<string> => {
      const site = await world.site(name, options);
      const token = await world.result(acceptor.host.peerings.generateToken({ peerName: name }));
      const both = withAddresses(token, false, acceptor.address, address);
      return (await world.result(
        site.host.peerings.establish({ peerName: "acceptor", token: both }).then(
          () => "established",
          (error: unknown) => String(error),
        ),
      )) as string;
    };
    assert.equal(await establish("open", { forbiddenAddresses: [] }, "169.254.169.254:80"), "established");
    assert.match(
      await establish("closed", { forbiddenAddresses: ["10.0.0.0/8"] }, "10.1.2.3:80"),
      /10\.1\.2\.3:80 is not/,
    );
    assert.equal(await establish("default", {}, "10.1.2.3:80"), "established");
    await assert.rejects(world.site("broken", { forbiddenAddresses: ["10.0.0.0/99"] }), TypeError);
  });
});

describe("addresses that a peer sends", () => {
  it("are refused where one may not be dialed; those known stay", async () => {
    for (const address of [...FORBIDDEN.slice(0, 4), "fe80::1:8503"]) {
      const world = new World();
      const { acceptor, dialer } = await peered(world);
      const known = dialer.peering("acceptor").peerServerAddresses;
      await acceptor.restart({ advertise: [acceptor.address, address] });
      const refused = (): string | undefined =>
        world
          .messages(dialer, "request")
          .findLast(({ resourceUrl, error }) => resourceUrl === ResourceUrl.serverAddresses && error !== undefined)
          ?.error?.message;
      await world.until(() => refused() !== undefined, `${address} is refused`);
      assert.ok(refused()?.includes(`${address} is not a valid peering server address`), refused());
      assert.deepEqual(dialer.peering("acceptor").peerServerAddresses, known);
      assert.ok(dialer.peering("acceptor").status.facts.lastReceiveErrorMessage.includes(address));
      assert.equal(dialer.host.incidents.counts().get("server-addresses-refused"), 1);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    }
  });

  it("are taken as Consul writes them: an IPv6 address without brackets", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    await acceptor.restart({ advertise: [acceptor.address, "2001:db8::1:8503"] });
    const known = (site: Site): readonly string[] => site.peering("acceptor").peerServerAddresses;
    await world.until(() => known(dialer).includes("2001:db8::1:8503"), "it is stored");
  });
});

describe("what a name stands for", () => {
  it("is not dialed where it is forbidden: the status names it, and nobody hears of the secret", async () => {
    const clock = acceleratedClock();
    const host = (name: string, forbiddenAddresses: readonly string[]) =>
      createHost({
        datacenter: name,
        storage: memoryStorage(),
        transport: grpcTransport({ listen: "127.0.0.1:0" }),
        clock,
        forbiddenAddresses,
      });
    await using acceptor = await host("acceptor", []);
    const port = acceptor.listenAddress?.split(":").at(-1);
    const names = withAddresses(
      await acceptor.peerings.generateToken({ peerName: "dialer" }),
      false,
      `localhost:${port}`,
      `2130706433:${port}`,
    );
    await using dialer = await host("dialer", ["127.0.0.0/8", "::1"]);
    await assert.rejects(dialer.peerings.establish({ peerName: "acceptor", token: names }), {
      code: "unavailable",
      message: new RegExp(`localhost:${port} must not be dialed: it is .*127\\.0\\.0\\.1`),
    });
    assert.ok((dialer.incidents.counts().get("dial-forbidden") ?? 0) >= 2);
    // A record made while it was allowed.
    const storage = memoryStorage();
    const open = (forbiddenAddresses: readonly string[]) =>
      createHost({
        datacenter: "d",
        storage: borrowed(storage),
        transport: grpcTransport(),
        clock,
        forbiddenAddresses,
      });
    {
      await using before = await open([]);
      await before.peerings.establish({ peerName: "acceptor", token: names });
      await eventually(() => before.peerings.read("acceptor")?.state === "active", "it connects");
    }
    await using after = await open(["127.0.0.0/8", "::1"]);
    const failure = (): string => after.peerings.read("acceptor")?.status.lastFailure?.message ?? "";
    await eventually(() => failure() !== "", "dialing fails");
    assert.match(failure(), /must not be dialed: it is .*127\.0\.0\.1/);
    assert.ok((after.incidents.counts().get("dial-forbidden") ?? 0) >= 1);
  });
});
