import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { type DnsServer, type DnsServerOptions, type DnsSource, dnsServer } from "../../../src/dns/index.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { Scheduler, virtualClock } from "../../../src/testing/simulator/scheduler.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { ask, exchange, framed, placeOf, query, readAnswer, readFrame } from "./client.js";
import { instance, sourceOf } from "./setup.js";

const WEB = "web.service.consul";

interface Served extends AsyncDisposable {
  readonly host: PeeringHost;
  readonly server: DnsServer;
}

async function serve(options: Partial<DnsServerOptions> = {}): Promise<Served> {
  const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport() });
  const server = await dnsServer(host, { listen: "127.0.0.1:0", ...options });
  return {
    host,
    server,
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await host[Symbol.asyncDispose]();
    },
  };
}

async function connected(server: DnsServer): Promise<Socket> {
  const { host, port } = placeOf(server.address);
  const socket = connect(port, host);
  await once(socket, "connect");
  return socket;
}

/** Settles when it is closed, also by a reset. */
function closing(socket: Socket): Promise<void> {
  socket.on("error", () => {});
  socket.resume();
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

/** Resolves when so many framed answers have come. */
async function readFrames(socket: Socket, count: number): Promise<void> {
  let received = Buffer.alloc(0);
  let frames = 0;
  for await (const chunk of socket) {
    received = Buffer.concat([received, chunk]);
    while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      received = received.subarray(2 + received.readUInt16BE(0));
      if (++frames === count) return;
    }
  }
  throw new Error(`the connection ended after ${frames} answers`);
}

const source: DnsSource = sourceOf({ instances: { "": [instance({ service: { name: "web" } })] } });

describe("the DNS server", () => {
  it("answers a host's catalog over UDP and TCP on one port, as it is now", async () => {
    await using served = await serve();
    const { catalog } = served.host;
    const none = await ask(served.server.address, { name: WEB, type: "A" });
    assert.equal(none.code, "NXDOMAIN");
    await catalog.register({
      node: "n1",
      address: "10.0.0.1",
      service: { name: "web", port: 80, address: "10.9.0.1" },
    });
    for (const transport of ["udp", "tcp"] as const) {
      const { answers } = await ask(served.server.address, { name: WEB, type: "A", transport });
      assert.deepEqual(answers, [`${WEB} 0 A 10.9.0.1`]);
    }
    const reverse = await ask(served.server.address, { name: "1.0.9.10.in-addr.arpa", type: "PTR" });
    assert.deepEqual(reverse.answers, ["1.0.9.10.in-addr.arpa 0 PTR web.service.dc1.consul"]);
    await catalog.deregister({ node: "n1" });
    assert.equal((await ask(served.server.address, { name: WEB, type: "A" })).code, "NXDOMAIN");
    const gone = await ask(served.server.address, { name: "1.0.9.10.in-addr.arpa", type: "PTR" });
    assert.equal(gone.code, "NXDOMAIN");
  });

  it("answers many questions of one TCP connection in their order, also cut in pieces, and after a half-close", async () => {
    await using served = await serve({ source });
    const socket = await connected(served.server);
    const packets = [1, 2, 3].map((id) => framed(query({ name: WEB, type: "A" }, id)));
    const bytes = Buffer.concat(packets);
    socket.write(bytes.subarray(0, 1));
    socket.write(bytes.subarray(1, bytes.length - 5));
    socket.end(bytes.subarray(bytes.length - 5));
    const received: Buffer[] = [];
    for await (const chunk of socket) received.push(chunk);
    let rest = Buffer.concat(received);
    const ids: number[] = [];
    while (rest.length > 0) {
      const length = rest.readUInt16BE(0);
      ids.push(rest.readUInt16BE(2));
      assert.deepEqual(readAnswer(rest.subarray(2, 2 + length)).answers, [`${WEB} 0 A 10.0.0.1`]);
      rest = rest.subarray(2 + length);
    }
    assert.deepEqual(ids, [1, 2, 3]);
  });

  it("answers one question in a turn of the event loop over TCP, however many come at once, and by however many connections", async () => {
    let turn = 0;
    const asked = new Map<number, number>();
    const counted: DnsSource = {
      ...source,
      instances: (...of) => {
        asked.set(turn, (asked.get(turn) ?? 0) + 1);
        return source.instances(...of);
      },
    };
    await using served = await serve({ source: counted });
    const sockets = await Promise.all(Array.from({ length: 4 }, () => connected(served.server)));
    const questions = 100;
    let next: NodeJS.Immediate | undefined;
    const count = (): void => {
      turn++;
      next = setImmediate(count);
    };
    count();
    try {
      const question = framed(query({ name: WEB, type: "A" }));
      await Promise.all(
        sockets.map(async (socket) => {
          socket.write(Buffer.concat(Array.from({ length: questions }, () => question)));
          await readFrames(socket, questions);
        }),
      );
    } finally {
      if (next !== undefined) clearImmediate(next);
      for (const socket of sockets) socket.destroy();
    }
    const total = [...asked.values()].reduce((sum, each) => sum + each, 0);
    assert.equal(total, questions * sockets.length);
    assert.equal(Math.max(...asked.values()), 1);
  });

  it("cuts off a TCP client that does not come to the point, and one that is out of step", async () => {
    const scheduler = new Scheduler();
    const clock = virtualClock(scheduler, { alive: true });
    await using served = await serve({ source, clock, tcpTimeoutMs: 5_000 });
    const slow = await connected(served.server);
    slow.write(framed(query({ name: WEB, type: "A" })));
    await readFrame(slow);
    // Half a question, and silence.
    slow.write(framed(query({ name: WEB, type: "A" })).subarray(0, 9));
    const closed = closing(slow);
    await scheduler.run(
      scheduler.now + 5_001,
      () => false,
      () => {},
    );
    await closed;

    const wrong = await connected(served.server);
    const ended = closing(wrong);
    wrong.write(Buffer.alloc(100, 0xff));
    await ended;
  });

  it("takes no more TCP connections than it is allowed, and one again when one has gone", async () => {
    await using served = await serve({ source, maxTcpConnections: 2 });
    const first = await connected(served.server);
    const second = await connected(served.server);
    const answered = async (socket: Socket): Promise<void> => {
      socket.write(framed(query({ name: WEB, type: "A" })));
      await readFrame(socket);
    };
    await answered(first);
    await answered(second);
    const third = await connected(served.server);
    if (!third.closed) await closing(third);
    const left = closing(first);
    first.end();
    await left;
    await answered(second);
    const fourth = await connected(served.server);
    await answered(fourth);
    for (const socket of [second, fourth]) socket.destroy();
  });

  it("closes a TCP client that sends half a length, or a byte now and then, and has the silent make room", async () => {
    const scheduler = new Scheduler();
    const clock = virtualClock(scheduler, { alive: true });
    const pass = (milliseconds: number): Promise<void> =>
      scheduler.run(
        scheduler.now + milliseconds,
        () => false,
        () => {},
      );
    const incidents = new Incidents({ clock });
    await using served = await serve({ source, clock, incidents, tcpTimeoutMs: 5_000, maxTcpConnections: 2 });
    const half = await connected(served.server);
    half.write(Uint8Array.of(0));
    const slow = await connected(served.server);
    const answered = async (socket: Socket): Promise<void> => {
      socket.write(framed(query({ name: WEB, type: "A" })));
      await readFrame(socket);
    };
    await answered(slow);
    const bytes = framed(query({ name: WEB, type: "A" }));
    await pass(2_500);
    const third = await connected(served.server);
    await closing(half);
    await answered(third);
    const closed = closing(slow);
    for (const byte of bytes.subarray(0, 10)) {
      slow.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
      await pass(250);
    }
    await closed;
    const silent = await connected(served.server);
    await answered(third);
    const ended = closing(silent);
    await pass(4_999);
    await pass(2);
    await ended;
    assert.deepEqual(Object.fromEntries(incidents.counts()), { "connection-displaced": 1, "connection-silent": 1 });
    third.destroy();
  });

  it("keeps on after rubbish, and says nothing to answers", async () => {
    await using served = await serve({ source });
    const { host, port } = placeOf(served.server.address);
    const socket = createSocket("udp4");
    const response = query({ name: WEB, type: "A" }, 7);
    response[2] = 0x80;
    for (const packet of [Buffer.alloc(0), Buffer.from([1, 2, 3]), response]) socket.send(packet, port, host);
    const messages: number[] = [];
    socket.on("message", (message) => messages.push(message.readUInt16BE(0)));
    const answered = once(socket, "message");
    socket.send(query({ name: WEB, type: "A" }, 8), port, host);
    await answered;
    socket.close();
    assert.deepEqual(messages, [8]);
  });

  it("says SERVFAIL when a read fails", async () => {
    const failing: DnsSource = { ...source, instances: () => Promise.reject(new Error("disk")) };
    await using served = await serve({ source: failing });
    assert.equal((await ask(served.server.address, { name: WEB, type: "A" })).code, "SERVFAIL");
  });

  it("gives its port back, and refuses one that is in use", async () => {
    const served = await serve({ source });
    const { address } = served.server;
    const refused = await dnsServer(served.host, { listen: address }).then(
      () => undefined,
      (error: unknown) => error,
    );
    assert.ok(refused instanceof PeeringError && refused.code === "unavailable");
    const open = await connected(served.server);
    const closed = closing(open);
    await served[Symbol.asyncDispose]();
    await closed;
    const { host, port } = placeOf(address);
    const other = createServer().listen(port, host);
    await once(other, "listening");
    other.close();
  });

  it("refuses options that cannot be", async () => {
    await using served = await serve();
    for (const options of [
      { domain: "a..b" },
      { nodeTtlSeconds: -1 },
      { serviceTtlSeconds: { "*": 1.5 } },
      { domain: "x".repeat(129) },
    ]) {
      await assert.rejects(dnsServer(served.host, { listen: "127.0.0.1:0", ...options }), TypeError);
    }
    const bad = await dnsServer(served.host, { listen: "nowhere" }).then(
      () => undefined,
      (error: unknown) => error,
    );
    assert.ok(bad instanceof PeeringError && bad.code === "invalid-argument");
  });

  it("answers below the domains it is given", async () => {
    await using served = await serve({ source, domain: "Test.", altDomain: "alt.test." });
    const { address } = served.server;
    assert.equal((await ask(address, { name: "web.service.test", type: "A" })).code, "NOERROR");
    assert.equal((await ask(address, { name: "web.service.alt.test", type: "A" })).code, "NOERROR");
    const foreign = readAnswer(await exchange(address, query({ name: WEB, type: "A" }), "udp"));
    assert.equal(foreign.code, "REFUSED");
  });
});
