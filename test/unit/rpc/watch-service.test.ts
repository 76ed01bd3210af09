import assert from "node:assert/strict";
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { describe, it } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Authorizer, Right } from "../../../src/access/authorizer.js";
import { machineryOf, type PeeringHost } from "../../../src/host/host.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import {
  type Instance,
  Phase,
  Role,
  State,
  type WatchImportedServicesResponse,
  type WatchPeeringsResponse,
} from "../../../src/wire/gen/peerage/watch/v1/watch_pb.js";
import { eventually, inStep, offerServices, peerThem, twoHosts } from "../../support/hosts.js";
import { lonelyHost, PROTOCOLS, refusal, serveRpc, tokens } from "./support.js";

/** Reads one watch message by message, without its heartbeats. */
class Reader<Message extends { readonly event: { readonly case: string | undefined } }> implements AsyncDisposable {
  readonly #iterator: AsyncIterator<Message>;
  heartbeats = 0;

  constructor(messages: AsyncIterable<Message>) {
    this.#iterator = messages[Symbol.asyncIterator]();
  }

  async next(): Promise<Message["event"]> {
    for (;;) {
      const { done, value } = await this.#iterator.next();
      assert.ok(done !== true, "the stream has ended");
      if (value.event.case !== "heartbeat") return value.event;
      this.heartbeats += 1;
    }
  }

  /** Everything up to and with the first that `is`. */
  async until(is: (event: Message["event"]) => boolean): Promise<readonly Message["event"][]> {
    const events: Message["event"][] = [];
    for (;;) {
      const event = await this.next();
      events.push(event);
      if (is(event)) return events;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#iterator.return?.();
  }
}

/** The copy of a client of the watch of imports: instances by service and key. */
class Mirror {
  readonly services = new Map<string, Map<string, Instance>>();
  revision = 0n;

  take(event: WatchImportedServicesResponse["event"]): void {
    if (event.case !== "change") return;
    const { service, revision, upserted, removed } = event.value;
    assert.ok(revision >= this.revision, "revisions never fall");
    this.revision = revision;
    const instances = this.services.get(service) ?? new Map<string, Instance>();
    for (const { node, serviceId } of removed)
      assert.ok(instances.delete(`${node}/${serviceId}`), "what goes was there");
    for (const instance of upserted) instances.set(`${instance.node?.name}/${instance.service?.id}`, instance);
    if (instances.size === 0) this.services.delete(service);
    else this.services.set(service, instances);
  }

  get text(): string {
    const lines = [...this.services].flatMap(([name, instances]) =>
      [...instances].map(([key, { service }]) => `${name} ${key} ${service?.port} ${service?.tags.join()}`),
    );
    return lines.sort().join("\n");
  }
}

/** The text that a browser gets, up to the end of the snapshot. */
async function rawSnapshot(url: string, method: string, body: string): Promise<string> {
  const answer = await fetch(`${url}/peerage.watch.v1.WatchService/${method}`, {
    method: "POST",
    headers: { "content-type": "application/connect+json" },
    body: Buffer.concat([Buffer.from([0, 0, 0, 0, body.length]), Buffer.from(body)]),
  });
  assert.ok(answer.body !== null);
  let text = "";
  for await (const chunk of answer.body) {
    text += Buffer.from(chunk).toString("latin1");
    if (text.includes("snapshotComplete")) break;
  }
  return text;
}

/** How many listen to the records of a host from now on. */
function countListeners(host: PeeringHost): () => number {
  const { records } = machineryOf(host);
  let listeners = 0;
  const onChange = records.onChange.bind(records);
  records.onChange = (listener) => {
    const forget = onChange(listener);
    listeners += 1;
    let forgotten = false;
    return () => {
      if (!forgotten) listeners -= 1;
      forgotten = true;
      forget();
    };
  };
  return () => listeners;
}

/** Connects as a client of HTTP/1.1 and asks for imports, by Connect with JSON; reading is up to the caller. */
function askForImports(address: string): Socket {
  const [host, port] = address.split(":");
  const socket = createConnection(Number(port), host);
  const body = Buffer.concat([Buffer.from([0, 0, 0, 0, 19]), Buffer.from('{"peer":"acceptor"}')]);
  socket.write(
    "POST /peerage.watch.v1.WatchService/WatchImportedServices HTTP/1.1\r\nHost: localhost\r\n" +
      `Content-Type: application/connect+json\r\nContent-Length: ${body.length}\r\n\r\n`,
  );
  socket.write(body);
  return socket;
}

async function truth(host: PeeringHost, peer: string): Promise<string> {
  const lines: string[] = [];
  for (const { name } of host.imports.services({ peer })) {
    for (const { node, service } of await host.imports.instances({ peer, service: name })) {
      lines.push(`${name} ${node.name}/${service.id} ${service.port} ${service.tags.join()}`);
    }
  }
  return lines.sort().join("\n");
}

const complete = (event: { readonly case: string | undefined }): boolean => event.case === "snapshotComplete";

describe("WatchPeerings", () => {
  for (const protocol of PROTOCOLS) {
    it(`sends over ${protocol} the present services, the end of these, then each change with its status, and each removal`, async () => {
      await using pair = await twoHosts("memory");
      await offerServices(pair.acceptor.host, "dialer", ["web"]);
      await using served = await serveRpc(pair.dialer.host, { statusIntervalMs: 20 });
      await pair.dialer.host.peerings.generateToken({ peerName: "waiting", meta: { a: "b" } });
      await using reader = new Reader(served.watches(protocol).watchPeerings({}));
      const [first, second] = await reader.until(complete);
      assert.ok(first?.case === "peering" && second?.case === "snapshotComplete");
      const { name, role, state, meta, status } = first.value;
      assert.deepEqual([name, role, state, meta], ["waiting", Role.ACCEPTOR, State.PENDING, { a: "b" }]);
      assert.deepEqual([status?.phase, status?.healthy, status?.lagMs], [Phase.IDLE, false, undefined]);

      await peerThem(pair);
      const inSync = (event: WatchPeeringsResponse["event"]): boolean =>
        event.case === "peering" &&
        event.value.name === "acceptor" &&
        event.value.state === State.ACTIVE &&
        event.value.status?.importedServices === 1 &&
        event.value.status.lastHeartbeatReceived !== undefined;
      const last = (await reader.until(inSync)).at(-1);
      assert.ok(last?.case === "peering");
      assert.deepEqual([last.value.role, last.value.status?.phase], [Role.DIALER, Phase.CONNECTED]);
      assert.equal(last.value.remote?.datacenter, "acceptor");
      assert.equal(last.value.status?.healthy, true);

      await pair.dialer.host.peerings.delete("waiting");
      const gone = (await reader.until((event) => event.case === "removed")).at(-1);
      assert.deepEqual(gone?.case === "removed" && [gone.value.id, gone.value.name], [first.value.id, "waiting"]);
    });
  }

  it("tells one peering alone, also one that does not exist yet", async () => {
    await using served = await serveRpc(await lonelyHost());
    await served.host.peerings.generateToken({ peerName: "other" });
    await using reader = new Reader(served.watches("gRPC").watchPeerings({ name: "West" }));
    assert.equal((await reader.until(complete)).length, 1);
    await served.host.peerings.generateToken({ peerName: "third" });
    await served.host.peerings.generateToken({ peerName: "west" });
    const event = await reader.next();
    assert.ok(event.case === "peering" && event.value.name === "west");
  });

  it("says why a stream failed, and when it is dialed again", async () => {
    await using pair = await twoHosts("memory");
    await using served = await serveRpc(pair.dialer.host);
    await peerThem(pair);
    await inStep(pair);
    await using reader = new Reader(served.watches().watchPeerings({ name: "acceptor" }));
    await reader.until(complete);
    await pair.acceptor.stop();
    const failing = (event: WatchPeeringsResponse["event"]): boolean =>
      event.case === "peering" && event.value.state === State.FAILING && event.value.status?.nextAttempt !== undefined;
    const last = (await reader.until(failing)).at(-1);
    assert.ok(last?.case === "peering");
    const { status } = last.value;
    assert.notEqual(status?.lastFailure?.message ?? "", "");
    assert.notEqual(status?.lastFailure?.code ?? "", "");
    assert.ok((status?.failedAttempts ?? 0) > 0);
  });

  it("sends a heartbeat where nothing changes", async () => {
    await using served = await serveRpc(await lonelyHost(), { heartbeatMs: 5 });
    const cases: (string | undefined)[] = [];
    for await (const { event } of served.watches().watchPeerings({})) {
      cases.push(event.case);
      if (cases.length === 3) break;
    }
    assert.deepEqual(cases, ["snapshotComplete", "heartbeat", "heartbeat"]);
  });
});

describe("WatchImportedServices", () => {
  for (const protocol of PROTOCOLS) {
    it(`tells over ${protocol} everything of one moment, says so, then each change`, async () => {
      await using pair = await twoHosts("memory");
      const { acceptor, dialer } = pair;
      await offerServices(acceptor.host, "dialer", ["web", "db"]);
      await peerThem(pair);
      await inStep(pair);
      await using served = await serveRpc(dialer.host);
      await using reader = new Reader(served.watches(protocol).watchImportedServices({ peer: "acceptor" }));
      const mirror = new Mirror();
      const snapshot = await reader.until(complete);
      for (const event of snapshot) mirror.take(event);
      const last = snapshot.at(-1);
      assert.ok(last?.case === "snapshotComplete" && last.value.revision === mirror.revision);
      assert.equal(mirror.text, await truth(dialer.host, "acceptor"));
      const instance = mirror.services.get("web")?.values().next().value;
      assert.deepEqual(
        [instance?.checks.map(({ status }) => status), instance?.service?.taggedAddresses["wan"]?.address],
        [["passing"], "192.0.2.1"],
      );

      await offerServices(acceptor.host, "dialer", ["cache"], 2);
      await acceptor.host.catalog.deregister({ node: "node-0", serviceId: "web-0" });
      const ports = [
        { name: "sql", port: 1, default: true },
        { name: "metrics", port: 2, default: false },
      ];
      const changed = { id: "db-0", name: "db", tags: ["new"], ports };
      await acceptor.host.catalog.register({ node: "node-1", address: "10.0.0.1", service: changed });
      await inStep(pair);
      const settled = await truth(dialer.host, "acceptor");
      await reader.until((event) => {
        mirror.take(event);
        return mirror.text === settled;
      });
      const several = [...(mirror.services.get("db")?.values() ?? [])].flatMap(({ service }) => service?.ports ?? []);
      assert.deepEqual(
        several.map(({ name, port, default: isDefault }) => ({ name, port, default: isDefault })),
        ports,
      );
      await acceptor.host.exports.delete();
      await reader.until((event) => {
        mirror.take(event);
        return mirror.services.size === 0;
      });
    });
  }

  it("tells one service alone, without regard to case", async () => {
    await using pair = await twoHosts("memory");
    await offerServices(pair.acceptor.host, "dialer", ["web", "db"]);
    await peerThem(pair);
    await inStep(pair);
    await using served = await serveRpc(pair.dialer.host);
    await using reader = new Reader(served.watches("gRPC").watchImportedServices({ peer: "acceptor", service: "WEB" }));
    const names = (await reader.until(complete)).map((event) => (event.case === "change" ? event.value.service : ""));
    assert.deepEqual(names, ["web", ""]);
  });

  it("sends many instances in parts, and says of all but the last that more follows", async () => {
    await using pair = await twoHosts("memory");
    await offerServices(pair.acceptor.host, "dialer", ["web"], 120);
    await peerThem(pair);
    await inStep(pair);
    await using served = await serveRpc(pair.dialer.host);
    await using reader = new Reader(served.watches().watchImportedServices({ peer: "acceptor" }));
    const parts = (await reader.until(complete)).flatMap((event) => (event.case === "change" ? [event.value] : []));
    assert.deepEqual(
      parts.map(({ upserted, more }) => [upserted.length, more]),
      [
        [50, true],
        [50, true],
        [20, false],
      ],
    );
    await pair.acceptor.host.exports.delete();
    const removed = await reader.until((event) => event.case === "change" && !event.value.more);
    assert.deepEqual(
      removed.map((event) => event.case === "change" && event.value.removed.length),
      [50, 50, 20],
    );
  });

  it("starts over with everything when it is opened again", async () => {
    await using pair = await twoHosts("memory");
    await offerServices(pair.acceptor.host, "dialer", ["web"]);
    await peerThem(pair);
    await inStep(pair);
    await using served = await serveRpc(pair.dialer.host);
    const client = served.watches("gRPC");
    for (let time = 0; time < 2; time++) {
      await using reader = new Reader(client.watchImportedServices({ peer: "acceptor" }));
      const mirror = new Mirror();
      for (const event of await reader.until(complete)) mirror.take(event);
      assert.equal(mirror.text, await truth(pair.dialer.host, "acceptor"));
      await offerServices(pair.acceptor.host, "dialer", ["db"]);
      await inStep(pair);
    }
  });

  it("ends with NOT_FOUND when there is no such peering, or when it goes", async () => {
    await using pair = await twoHosts("memory");
    await peerThem(pair);
    await inStep(pair);
    await using served = await serveRpc(pair.dialer.host);
    for (const protocol of PROTOCOLS) {
      const reader = new Reader(served.watches(protocol).watchImportedServices({ peer: "nobody" }));
      assert.deepEqual(await refusal(reader.next()), ["NotFound", 'Peering not found for "nobody"']);
    }
    const reader = new Reader(served.watches().watchImportedServices({ peer: "acceptor" }));
    await reader.until(complete);
    const next = refusal(reader.next());
    await pair.dialer.host.peerings.delete("acceptor");
    assert.deepEqual(await next, ["NotFound", 'Peering not found for "acceptor"']);
  });
});

describe("a watch", () => {
  it("holds no secret", async () => {
    await using pair = await twoHosts("memory");
    await offerServices(pair.acceptor.host, "dialer", ["web"]);
    await peerThem(pair);
    await inStep(pair);
    const again = await pair.acceptor.host.peerings.generateToken({ peerName: "dialer" });
    const { records } = machineryOf(pair.dialer.host);
    const dialable = await records.dialable(records.byName("acceptor")?.id ?? "");
    const secrets = [TokenCodec.decode(again).establishmentSecret, dialable?.streamSecret ?? ""];
    assert.ok(secrets.every((secret) => secret.length > 30));
    await using east = await serveRpc(pair.acceptor.host);
    await using west = await serveRpc(pair.dialer.host);
    for (const [served, method, body] of [
      [east, "WatchPeerings", "{}"],
      [west, "WatchPeerings", "{}"],
      [west, "WatchImportedServices", '{"peer":"acceptor"}'],
    ] as const) {
      const text = await rawSnapshot(served.url, method, body);
      assert.match(text, /"name":"(acceptor|dialer|web)"/);
      assert.doesNotMatch(text, /secret/i);
      for (const secret of secrets) assert.ok(!text.includes(secret));
    }
  });

  it("leaves nothing behind when its client goes", async () => {
    await using pair = await twoHosts("memory");
    await peerThem(pair);
    await inStep(pair);
    const { host } = pair.dialer;
    await using served = await serveRpc(host);
    const listeners = countListeners(host);
    for (const protocol of PROTOCOLS) {
      const leave = new AbortController();
      const watches = served.watches(protocol);
      const readers = [
        new Reader(watches.watchPeerings({}, { signal: leave.signal })),
        new Reader(watches.watchImportedServices({ peer: "acceptor" }, { signal: leave.signal })),
      ];
      for (const reader of readers) await reader.until(complete);
      assert.equal(listeners(), 2);
      const left = readers.map((reader) => refusal(reader.until(() => false)));
      leave.abort();
      for (const ended of left) assert.equal((await ended)[0], "Canceled");
      await eventually(() => listeners() === 0, "the host has forgotten them");
    }
  });

  it("ends with UNAVAILABLE when the host closes, and when its server is told to stop", async () => {
    await using pair = await twoHosts("memory");
    await peerThem(pair);
    await inStep(pair);
    const stopping = new AbortController();
    await using served = await serveRpc(pair.dialer.host, { signal: stopping.signal });
    const watches = (protocol: (typeof PROTOCOLS)[number]) => [
      new Reader(served.watches(protocol).watchPeerings({})),
      new Reader(served.watches(protocol).watchImportedServices({ peer: "acceptor" })),
    ];
    const closing = PROTOCOLS.flatMap(watches);
    for (const reader of closing) await reader.until(complete);
    await pair.dialer.stop();
    for (const reader of closing) {
      assert.deepEqual(await refusal(reader.until(() => false)), ["Unavailable", "the host is closing"]);
    }

    await using other = await serveRpc(await lonelyHost(), { signal: stopping.signal });
    const readers = PROTOCOLS.map((protocol) => new Reader(other.watches(protocol).watchPeerings({})));
    for (const reader of readers) await reader.until(complete);
    const waiting = other.peerings().peeringList({}, { headers: { "min-query-index": "1000000" } });
    const ends = [...readers.map((reader) => reader.until(() => false)), waiting].map(refusal);
    await other.peerings().peeringList({});
    stopping.abort();
    for (const end of ends) assert.deepEqual(await end, ["Unavailable", "the server is shutting down"]);
  });

  it("is one of many, each of which hears of a change", async () => {
    await using served = await serveRpc(await lonelyHost());
    const warnings: Error[] = [];
    const warned = (warning: Error): unknown => warnings.push(warning);
    process.on("warning", warned);
    const client = served.watches("gRPC");
    const readers = Array.from({ length: 40 }, () => new Reader(client.watchPeerings({})));
    for (const reader of readers) await reader.until(complete);
    await served.host.peerings.generateToken({ peerName: "west" });
    for (const reader of readers) {
      const event = await reader.next();
      assert.ok(event.case === "peering" && event.value.name === "west");
    }
    process.off("warning", warned);
    assert.deepEqual(warnings, []);
  });

  it("needs the rights that reading needs, and ends with PERMISSION_DENIED when they are gone", async () => {
    await using pair = await twoHosts("memory");
    await peerThem(pair);
    await inStep(pair);
    const { host } = pair.dialer;
    const rights: Record<string, string[]> = {
      peerings: ["peering:read"],
      imports: ["service:read all", "node:read all"],
      mesh: ["service:write granted"],
      names: ["service:read acceptor"],
      services: ["service:read all"],
    };
    const revoked = new Set<string>();
    const live: Authorizer = {
      defaultPolicy: "deny",
      resolve: async (token) => (revoked.has(token) ? undefined : tokens(rights).resolve(token)),
      allowed: (identity, right: Right) => tokens(rights).allowed(identity, right),
    };
    await using served = await serveRpc(host, { authorizer: live, heartbeatMs: 10, statusIntervalMs: 10 });
    const as = (token: string) => ({ headers: { "x-consul-token": token } });
    for (const protocol of PROTOCOLS) {
      const watches = served.watches(protocol);
      const denied = async (token: string): Promise<readonly string[]> => {
        const peerings = await refusal(new Reader(watches.watchPeerings({}, as(token))).next());
        const imports = await refusal(
          new Reader(watches.watchImportedServices({ peer: "acceptor" }, as(token))).next(),
        );
        assert.deepEqual([peerings[0], imports[0]], ["PermissionDenied", "PermissionDenied"]);
        return [peerings[1], imports[1]];
      };
      assert.deepEqual(await denied("nobody"), ["ACL not found", "ACL not found"]);
      assert.match((await denied("names")).join("\n"), /'peering:read'\n.*'service:read'$/);
      assert.match((await denied("services")).join("\n"), /'peering:read'\n.*'node:read'$/);
      for (const token of ["imports", "mesh"]) {
        await using reader = new Reader(watches.watchImportedServices({ peer: "acceptor" }, as(token)));
        await reader.until(complete);
      }
    }
    const losing = new Reader(served.watches().watchPeerings({}, as("peerings")));
    const expiring = new Reader(served.watches("gRPC").watchImportedServices({ peer: "acceptor" }, as("mesh")));
    await losing.until(complete);
    await expiring.until(complete);
    rights["peerings"] = [];
    revoked.add("mesh");
    const text = "Permission denied: token with AccessorID 'peerings' lacks permission 'peering:read'";
    assert.deepEqual(await refusal(losing.until(() => false)), ["PermissionDenied", text]);
    assert.deepEqual(await refusal(expiring.until(() => false)), ["PermissionDenied", "ACL not found"]);
  });

  it("sends a slow reader the newest state, and keeps no more than that", async () => {
    await using pair = await twoHosts("memory");
    const { acceptor, dialer } = pair;
    const ballast = "x".repeat(500);
    const register = async (round: number): Promise<void> => {
      await acceptor.host.catalog.registerAll(
        Array.from({ length: 200 }, (_, index) => ({
          node: "n1",
          address: "10.0.0.1",
          service: {
            id: `web-${index}`,
            name: `web-${index}`,
            port: round,
            meta: Object.fromEntries(Array.from({ length: 20 }, (_, key) => [`k${key}`, ballast])),
          },
        })),
      );
    };
    await acceptor.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "dialer" }] }] });
    await register(1);
    await peerThem(pair);
    await inStep(pair);
    await using served = await serveRpc(dialer.host);
    // A client of HTTP/1.1 that stops reading once it has the head of the answer.
    const socket = askForImports(served.server.address);
    await once(socket, "readable");
    const ROUNDS = 15;
    for (let round = 2; round <= ROUNDS; round++) {
      await register(round);
      await eventually(async () => {
        const [last] = await dialer.host.imports.instances({ peer: "acceptor", service: "web-199" });
        return last?.service.port === round;
      }, "the round arrives");
    }
    // 2 MB a round were imported. Then the client reads on: services come with the port they had when there was room for them.
    let text = "";
    let bytes = 0;
    const ports = new Map<string, number>();
    for await (const chunk of socket) {
      bytes += chunk.length;
      text += chunk.toString("latin1");
      for (const [, name = "", port] of text.matchAll(/"id":"(web-\d+)","name":"web-\d+","port":(\d+)/g)) {
        ports.set(name, Number(port));
      }
      text = text.slice(-200);
      if (ports.size === 200 && [...ports.values()].every((port) => port === ROUNDS)) break;
    }
    const round = 200 * 20 * 510;
    // The kernel has taken some of them, up to ten megabytes.
    assert.ok(bytes < 9 * round, `${bytes} bytes came, for ${ROUNDS} states of ${round} each`);
  });
});

describe("one who does not read at all", () => {
  it("is cut off, and forgotten", async () => {
    await using pair = await twoHosts("memory");
    await peerThem(pair);
    await inStep(pair);
    const listeners = countListeners(pair.dialer.host);
    await using served = await serveRpc(pair.dialer.host, { writeTimeoutMs: 30 });
    const socket = askForImports(served.server.address);
    await once(socket, "readable");
    assert.ok(listeners() > 0);
    await pair.acceptor.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "dialer" }] }] });
    // More than all buffers on the way hold.
    const ballast = Object.fromEntries(Array.from({ length: 60 }, (_, key) => [`k${key}`, "x".repeat(500)]));
    await pair.acceptor.host.catalog.registerAll(
      Array.from({ length: 1_000 }, (_, index) => ({
        node: "n1",
        address: "10.0.0.1",
        service: { name: `web-${index}`, port: 1, meta: ballast },
      })),
    );
    await eventually(() => listeners() === 0, "no listener is left");
    socket.destroy();
  });
});

describe("a client whose connection is cut", () => {
  it("is told so", async () => {
    const served = await serveRpc(await lonelyHost());
    const reader = new Reader(served.watches("gRPC").watchPeerings({}));
    await reader.until(complete);
    await served[Symbol.asyncDispose]();
    await assert.rejects(reader.next(), (error) => error instanceof ConnectError && error.code !== Code.Internal);
  });
});
