import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import {
  type Connection,
  ConnectionLimits,
  type ConnectionLimitsOptions,
  type ListenerLimits,
} from "../../../src/transport/connection-limits.js";
import { eventually } from "../../support/hosts.js";

interface Client {
  readonly socket: Socket;
  /** The connection at the listener; undefined: it was refused. */
  readonly connection: Connection | undefined;
}

const listenerLimits: ListenerLimits = { perSource: 100, inAll: 100, firstRequestMs: 10_000, idleMs: 60_000 };

async function listener(limits: ConnectionLimits, name: string, own: Partial<ListenerLimits> = {}) {
  const guard = limits.listener(name, { ...listenerLimits, ...own });
  const server = createServer();
  const accepted: ((connection: Connection | undefined) => void)[] = [];
  server.on("connection", (socket) => {
    socket.on("error", () => {});
    accepted.shift()?.(guard.admit(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const clients: Socket[] = [];
  return {
    guard,
    /** @param source - the last byte of an address of the loopback interface. */
    async connect(source = 1): Promise<Client> {
      const admitted = new Promise<Connection | undefined>((resolve) => accepted.push(resolve));
      const socket = connect({ port: address.port, host: "127.0.0.1", localAddress: `127.0.0.${source}` });
      socket.on("error", () => {});
      socket.resume();
      clients.push(socket);
      return { socket, connection: await admitted };
    },
    async [Symbol.asyncDispose]() {
      guard.close();
      for (const socket of clients) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

function setup(options: ConnectionLimitsOptions = {}) {
  const clock = testClock();
  const incidents = new Incidents({ clock });
  const limits = new ConnectionLimits({ clock, incidents, descriptors: 1_000_000, ...options });
  return { clock, limits, counts: () => Object.fromEntries(incidents.counts()) };
}

async function closed({ socket }: Client): Promise<void> {
  if (!socket.closed) await once(socket, "close");
}

describe("limits on connections", () => {
  it("close connections beyond the limit of one source, and take one again when another has gone", async () => {
    const { limits, counts } = setup();
    await using http = await listener(limits, "http", { perSource: 2 });
    const first = await http.connect();
    const second = await http.connect();
    const third = await http.connect();
    assert.equal(third.connection, undefined);
    await closed(third);
    assert.ok((await http.connect(2)).connection !== undefined, "of another source");
    assert.ok(!first.socket.closed && !second.socket.closed);
    assert.deepEqual(counts(), { "connection-refused-to-source": 1 });
    first.socket.destroy();
    let next = await http.connect();
    while (next.connection === undefined) next = await http.connect();
  });

  it("close a connection that makes no first request in time, and later one that makes none for long", async () => {
    const { clock, limits, counts } = setup();
    await using http = await listener(limits, "http");
    const silent = await http.connect();
    const asking = await http.connect();
    await clock.advance(9_999);
    const answered = asking.connection?.request();
    assert.ok(!silent.socket.closed);
    await clock.advance(1);
    await closed(silent);
    assert.deepEqual(counts(), { "connection-silent": 1 });
    await clock.advance(600_000);
    const other = asking.connection?.request();
    answered?.();
    answered?.();
    await clock.advance(600_000);
    assert.ok(!asking.socket.closed, "as long as it waits for an answer");
    other?.();
    await clock.advance(59_999);
    assert.ok(!asking.socket.closed);
    await clock.advance(1);
    await closed(asking);
    assert.deepEqual(counts(), { "connection-silent": 1 }, "which is not reported");
  });

  it("give a place to a new source when others hold all of a listener, and to the longest silent last", async () => {
    const { clock, limits, counts } = setup();
    await using grpc = await listener(limits, "peering", { inAll: 4 });
    const peer = await grpc.connect(1);
    peer.connection?.authorized();
    const strangers = [await grpc.connect(2), await grpc.connect(2), await grpc.connect(3), await grpc.connect(3)];
    assert.ok(
      strangers.every(({ connection }) => connection !== undefined),
      "the peer does not count among them",
    );
    const fourth = await grpc.connect(4);
    assert.ok(fourth.connection !== undefined);
    const [first, second, third] = strangers;
    assert.ok(first !== undefined && second !== undefined && third !== undefined);
    await closed(first);
    second.connection?.request();
    await clock.advance(2_000);
    const fifth = await grpc.connect(3);
    assert.ok(fifth.connection !== undefined);
    await closed(third);
    assert.deepEqual(counts(), { "connection-displaced": 2 });
    assert.ok(!second.socket.closed && !peer.socket.closed);
  });

  it("keep to what all listeners may have together, and an eighth of it for each", async () => {
    const { limits, counts } = setup({ connections: 16 });
    await using http = await listener(limits, "http");
    await using grpc = await listener(limits, "peering");
    const readers: Client[] = [];
    const read = async (source: number): Promise<Client> => {
      const reader = await http.connect(source);
      reader.connection?.request();
      return reader;
    };
    for (let count = 0; count < 16; count++) readers.push(await read(1));
    assert.equal((await read(1)).connection, undefined, "of readers that wait nobody is displaced for another");
    assert.ok((await read(2)).connection !== undefined, "but for a source that has fewer");
    const peers = [await grpc.connect(), await grpc.connect()];
    assert.ok(
      peers.every(({ connection }) => connection !== undefined),
      "this listener has its eighth",
    );
    assert.equal((await grpc.connect()).connection, undefined, "and no more than that");
    assert.ok((await grpc.connect(3)).connection !== undefined, "within which sources share");
    const closedOf = (clients: readonly Client[]): number => clients.filter(({ socket }) => socket.closed).length;
    await eventually(() => closedOf(peers) === 1 && closedOf(readers) === 3, "those are closed that made room");
    assert.deepEqual(counts(), { "connection-refused": 2, "connection-displaced": 4 });
  });

  it("displace nobody for a source that has all it may, and none of a listener that has next to nothing", async () => {
    const { limits, counts } = setup({ connections: 16 });
    await using http = await listener(limits, "http", { perSource: 15 });
    await using grpc = await listener(limits, "peering");
    const handshake = await grpc.connect();
    const readers: Client[] = [];
    for (let count = 0; count < 40; count++) {
      const reader = await http.connect(count < 15 ? 1 : 2 + count);
      reader.connection?.request();
      readers.push(reader);
    }
    assert.equal((await http.connect(1)).connection === undefined, false);
    for (let count = 0; count < 20; count++) await http.connect(1);
    assert.ok(!handshake.socket.closed && handshake.connection !== undefined);
    assert.ok((counts()["connection-displaced"] ?? 0) >= 25);
    const displaced = counts()["connection-displaced"];
    await using dns = await listener(limits, "dns", { perSource: 1 });
    assert.ok((await dns.connect()).connection !== undefined);
    for (let count = 0; count < 10; count++) assert.equal((await dns.connect()).connection, undefined);
    assert.equal(counts()["connection-displaced"], (displaced ?? 0) + 1);
  });

  it("have a listener on which many wait make room for another one, before any that works does", async () => {
    const { limits, counts } = setup({ connections: 16 });
    await using http = await listener(limits, "http");
    await using grpc = await listener(limits, "peering");
    const readers: Client[] = [];
    for (let count = 0; count < 4; count++) {
      const reader = await http.connect();
      reader.connection?.request();
      readers.push(reader);
    }
    const strangers: Client[] = [];
    for (let count = 0; count < 20; count++) strangers.push(await grpc.connect(2 + count));
    for (let count = 0; count < 9; count++) {
      const reader = await http.connect();
      assert.ok(reader.connection !== undefined);
      reader.connection.request();
      readers.push(reader);
    }
    for (let count = 0; count < 20; count++) strangers.push(await grpc.connect(22 + count));
    assert.deepEqual(counts(), { "connection-displaced": 8 + 9 + 20 });
    await eventually(
      () => strangers.filter(({ socket }) => !socket.closed).length === 3,
      "three are left to strangers",
    );
    assert.ok(readers.every(({ socket }) => !socket.closed));
  });

  it("take a connection for a stranger's again when its peer's stream is over", async () => {
    const { clock, limits } = setup();
    await using grpc = await listener(limits, "peering", { perSource: 1 });
    const peer = await grpc.connect();
    const over = peer.connection?.authorized();
    const again = peer.connection?.authorized();
    assert.ok((await grpc.connect()).connection !== undefined, "it does not count for its source");
    over?.();
    over?.();
    await clock.advance(60_000);
    assert.ok(!peer.socket.closed, "the other one is not over");
    again?.();
    await clock.advance(60_000);
    await closed(peer);
  });

  it("leave the reserve of descriptors alone, whatever holds the others", async () => {
    // Also those of others, whom this process has more of than nine.
    const none = setup({ descriptors: 64, reservedDescriptors: 55 });
    await using full = await listener(none.limits, "http");
    const refused = await full.connect();
    assert.equal(refused.connection, undefined);
    await closed(refused);
    assert.deepEqual(none.counts(), { "connection-refused": 1 });

    // Those that the test opens itself are no connections of a listener either.
    const some = setup({ descriptors: readdirSync("/dev/fd").length + 60, reservedDescriptors: 20 });
    await using http = await listener(some.limits, "http");
    const clients: Client[] = [];
    for (let count = 0; count < 60; count++) {
      await some.clock.advance(1_000);
      const client = await http.connect(2 + count);
      client.connection?.request();
      clients.push(client);
    }
    const admitted = clients.filter(({ connection, socket }) => connection !== undefined && !socket.closed).length;
    assert.ok(admitted >= 15 && admitted <= 21, `${admitted} of 40, half of which are ends of the test`);
    assert.throws(() => new ConnectionLimits({ descriptors: 64, reservedDescriptors: 64 }), TypeError);
  });

  it("tell of a listener that fails, and when there is no descriptor left close who is silent", async () => {
    const { clock, limits, counts } = setup();
    await using http = await listener(limits, "http");
    http.guard.failed(new Error("accept failed"));
    assert.deepEqual(counts(), { "listener-failed": 1 });
    const silent = [await http.connect(), await http.connect()];
    const reader = await http.connect();
    reader.connection?.request();
    await clock.advance(2_000);
    const fresh = await http.connect();
    http.guard.failed(Object.assign(new Error("accept EMFILE"), { code: "EMFILE" }));
    await Promise.all(silent.map(closed));
    assert.ok(!reader.socket.closed && !fresh.socket.closed);
    assert.deepEqual(counts(), { "listener-failed": 1, "descriptors-exhausted": 1, "connection-displaced": 2 });
  });
});
