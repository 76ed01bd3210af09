import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { DialPlaces } from "../../../src/host/dial-places.js";
import { DialRule } from "../../../src/host/dial-rule.js";

import { TokenCodec } from "../../../src/token/token-codec.js";
import type { ReplicationStream } from "../../../src/transport/transport.js";
import { StatusCode } from "../../../src/wire/status.js";
import { instance } from "../../support/mesh-view.js";
import { type Site, World } from "../../support/world.js";

const SERVERS = "a:1";

/** Stands for mesh gateways and servers at several addresses: what is dialed there, in order. */
class Addresses {
  readonly dialed: string[] = [];
  readonly streams: ReplicationStream[] = [];
  /** Answers an exchange of secrets at `address`. */
  exchange: (address: string) => void = () => {};
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  async listen(address: string): Promise<void> {
    await this.#world.rawAcceptor(address, {
      exchangeSecret: async () => {
        this.dialed.push(`exchange ${address}`);
        this.exchange(address);
        return { streamSecret: "99999999-0000-0000-0000-000000000001" };
      },
      stream: (stream) => {
        this.dialed.push(`stream ${address}`);
        this.streams.push(stream);
      },
    });
  }

  async endStreams(): Promise<void> {
    for (const stream of this.streams.splice(0)) await stream.close({ code: StatusCode.Internal, message: "no" });
  }
}

const token = TokenCodec.encode({
  ca: [],
  manualServerAddresses: [],
  serverAddresses: [SERVERS],
  serverName: "server.dc1.peering.aaaaaaaa-2222-3333-4444-555555555555.consul",
  peerId: "99999999-8888-7777-6666-555555555555",
  establishmentSecret: "99999999-0000-0000-0000-000000000002",
  remote: { partition: "", datacenter: "dc1" },
});

async function throughGateways(world: World, { host }: Site, on = true): Promise<void> {
  let written = false;
  const writing = host.configEntries.set({ kind: "mesh", peering: { peerThroughMeshGateways: on } });
  void writing.finally(() => {
    written = true;
  });
  // A write takes real turns, in which no more than a little of virtual time must pass.
  while (!written) await world.pass(1);
  await writing;
}

async function registerGateway(world: World, { host }: Site, node: string): Promise<void> {
  // Peers are told of the `wan` address; from here it is the other one.
  const taggedAddresses = { wan: { address: "198.51.100.1", port: 443 } };
  const service = { name: "gateway", kind: "mesh-gateway", port: 1, taggedAddresses } as const;
  await world.result(host.catalog.register({ node, address: node, service }));
}

function establish(world: World, { host }: Site): Promise<unknown> {
  return world.result(host.peerings.establish({ peerName: "acceptor", token }));
}

describe("a dialer whose peerings go through mesh gateways", () => {
  it("dials its own gateways first, for secrets and for streams, then the addresses of the peer, and so on in turn (ch2 LC18, ch3 case 28)", async () => {
    const world = new World();
    const addresses = new Addresses(world);
    for (const address of [SERVERS, "g:1", "h:1"]) await addresses.listen(address);
    const dialer = await world.site("dialer");
    await registerGateway(world, dialer, "g");
    await registerGateway(world, dialer, "h");
    await throughGateways(world, dialer);
    await establish(world, dialer);
    for (let stream = 1; stream <= 4; stream++) {
      await world.until(() => addresses.dialed.length === 1 + stream, "there is a stream");
      await addresses.endStreams();
    }
    assert.deepEqual(addresses.dialed, ["exchange g:1", "stream g:1", "stream h:1", `stream ${SERVERS}`, "stream g:1"]);
  });

  it("dials its own gateways first after a start, too", async () => {
    const world = new World();
    const addresses = new Addresses(world);
    for (const address of [SERVERS, "g:1"]) await addresses.listen(address);
    const dialer = await world.site("dialer");
    await registerGateway(world, dialer, "g");
    await throughGateways(world, dialer);
    await establish(world, dialer);
    await world.until(() => addresses.dialed.length === 2, "there is a stream");
    await dialer.restart();
    await world.until(() => addresses.dialed.length === 3, "there is another one");
    assert.deepEqual(addresses.dialed, ["exchange g:1", "stream g:1", "stream g:1"]);
  });

  it("waits for a gateway that does not know the way yet, and goes around one that leads nowhere (ch2 LC18, ch3 case 27)", async () => {
    for (const [refusals, secretFrom] of [
      [3, "g:1"],
      [Number.POSITIVE_INFINITY, SERVERS],
    ] as const) {
      const world = new World();
      const addresses = new Addresses(world);
      for (const address of [SERVERS, "g:1"]) await addresses.listen(address);
      let left = refusals;
      addresses.exchange = (address) => {
        if (address === SERVERS || --left < 0) return;
        throw new PeeringError("unavailable", "the connection was closed", { status: StatusCode.Unavailable });
      };
      const dialer = await world.site("dialer");
      await registerGateway(world, dialer, "g");
      await throughGateways(world, dialer);
      const began = world.scheduler.now;
      await establish(world, dialer);
      assert.ok(world.scheduler.now - began < 7_000);
      const exchanges = addresses.dialed.filter((dialed) => dialed.startsWith("exchange"));
      assert.equal(exchanges.at(-1), `exchange ${secretFrom}`);
      assert.ok(exchanges.length > 3);
    }
  });

  it("is told at once by a gateway that the token is used up", async () => {
    const world = new World();
    const addresses = new Addresses(world);
    for (const address of [SERVERS, "g:1"]) await addresses.listen(address);
    addresses.exchange = () => {
      throw new PeeringError("permission-denied", "used up", { status: StatusCode.PermissionDenied });
    };
    const dialer = await world.site("dialer");
    await registerGateway(world, dialer, "g");
    await throughGateways(world, dialer);
    const refusal = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    assert.equal(refusal.code, "permission-denied");
    assert.deepEqual(addresses.dialed, ["exchange g:1"]);
  });

  it("follows changes of its gateways and of the entry, without waiting any longer", async () => {
    const world = new World();
    const addresses = new Addresses(world);
    for (const address of [SERVERS, "g:1", "h:1"]) await addresses.listen(address);
    const dialer = await world.site("dialer");
    await establish(world, dialer);
    /** Ends the stream, so that the next attempt by itself comes after 2 s, and says what is dialed after a change. */
    const next = async (change: () => Promise<void>): Promise<string | undefined> => {
      await world.until(() => addresses.streams.length > 0, "there is a stream");
      await addresses.endStreams();
      const known = addresses.dialed.length;
      await world.pass(100);
      const began = world.scheduler.now;
      await change();
      await world.until(() => addresses.dialed.length > known, "it dials again");
      assert.ok(world.scheduler.now - began < 1_500, `${world.scheduler.now - began} ms`);
      return addresses.dialed.at(-1);
    };
    assert.deepEqual(addresses.dialed, [`exchange ${SERVERS}`]);
    await registerGateway(world, dialer, "g");
    assert.equal(await next(() => throughGateways(world, dialer)), "stream g:1");
    const moved = async (): Promise<void> => {
      await registerGateway(world, dialer, "h");
      await world.result(dialer.host.catalog.deregister({ node: "g" }));
    };
    assert.equal(await next(moved), "stream h:1");
    assert.equal(await next(() => throughGateways(world, dialer, false)), `stream ${SERVERS}`);
  });

  it("dials directly where no gateway is registered, and counts that (ch3 case 29)", async () => {
    const world = new World();
    const addresses = new Addresses(world);
    await addresses.listen(SERVERS);
    const dialer = await world.site("dialer");
    await throughGateways(world, dialer);
    assert.equal(dialer.host.incidents.counts().get("no-own-mesh-gateway"), undefined);
    await establish(world, dialer);
    await world.until(() => addresses.streams.length > 0, "there is a stream");
    assert.deepEqual(addresses.dialed, [`exchange ${SERVERS}`, `stream ${SERVERS}`]);
    assert.ok((dialer.host.incidents.counts().get("no-own-mesh-gateway") ?? 0) > 0);
  });
});

describe("the places at which a peer is dialed", () => {
  const gateways = ["10.0.0.1", "10.0.0.2"].map((address) =>
    instance({ kind: "mesh-gateway", name: "gateway", address, port: 8_443 }),
  );
  const incidents = new Incidents();
  const dialRule = new DialRule(["10.0.0.0/8"], incidents);
  const places = new DialPlaces({ dialRule, incidents, throughGateways: () => true, gateways: () => gateways });

  it("are own gateways, which no rule about addresses of peers forbids, and addresses of the peer, for which it holds", () => {
    const found = places.of({ name: "p", peerServerAddresses: ["a.example:1"], manualServerAddresses: [] });
    assert.deepEqual(
      found.map(({ address, mayDial }) => [address, mayDial?.("10.0.0.1") ?? true]),
      [
        ["10.0.0.1:8443", true],
        ["10.0.0.2:8443", true],
        ["a.example:1", false],
      ],
    );
  });

  it("are none without an address of the peer", () => {
    assert.deepEqual(places.of({ name: "p", peerServerAddresses: [], manualServerAddresses: [] }), []);
  });
});
