// The status is true, and enough to distinguish one trouble from another.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { PeeringView } from "../../../src/host/peerings.js";
import { type FakePeer, type Misbehaviour, wellBehaved } from "../../../src/testing/fake-peer/index.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import { encodeExportedServiceList } from "../../../src/wire/resources.js";
import { StatusCode } from "../../../src/wire/status.js";
import { servicePayload } from "../../support/messages.js";
import { has, heavy, load, type Role, type Scene, scene } from "../../support/misbehaving.js";
import { storageWith } from "../../support/storage.js";

const SERVICES = 16;

async function up(role: Role, options: Parameters<typeof scene>[2] = {}): Promise<Scene> {
  const at = await scene("memory", role, options);
  await at.until(() => at.view().state === "active" && at.view().status.lagMs === 0, "the stream is up");
  // So that what follows is later than what came before.
  await at.pass(1_000);
  return at;
}

/** The facts that an operator would use. None of them is a text. */
function facts({ state, status }: PeeringView): string {
  const { phase, lastFailure, stalledMs, lagMs, withheldServices } = status;
  const trouble = state === "failing" ? `${lastFailure?.code}` : "";
  const stream = phase === "connected" ? "connected" : "none";
  return [
    state,
    stream,
    trouble,
    stalledMs > 60_000 ? "accepts nothing" : "",
    phase === "connected" && lagMs !== undefined && lagMs > 60_000 ? "lags" : "",
    withheldServices.size > 0 ? "refuses services" : "",
  ]
    .filter((part) => part !== "")
    .join(", ");
}

interface Row {
  readonly what: string;
  readonly role: Role;
  readonly facts: string;
  readonly happens: (at: Scene) => Promise<void>;
}

async function behaves(at: Scene, misbehaviour: Misbehaviour, forMs: number): Promise<void> {
  at.bad.behave(misbehaviour);
  await load(at.host, SERVICES, "v1");
  await at.pass(forMs);
}

const rows: readonly Row[] = [
  { what: "nothing", role: "acceptor", facts: "active, connected", happens: (at) => load(at.host, SERVICES, "v1") },
  {
    what: "a wedge that has begun",
    role: "acceptor",
    facts: "active, connected, accepts nothing, lags",
    happens: (at) => behaves(at, "stops-reading", 100_000),
  },
  {
    what: "a wedge",
    role: "dialer",
    facts: "failing, none, peer-stalled",
    happens: (at) => behaves(at, "stops-reading", 125_000),
  },
  {
    what: "a line of one byte a second",
    role: "dialer",
    facts: "failing, none, peer-stalled",
    happens: (at) => behaves(at, "one-byte-a-second", 125_000),
  },
  {
    what: "a partition under a stream, with nothing to send",
    role: "dialer",
    facts: "failing, none, peer-silent",
    async happens(at) {
      at.bad.behave("half-open");
      await at.pass(125_000);
    },
  },
  {
    what: "a peer that is there no more",
    role: "acceptor",
    facts: "failing, none, unavailable",
    async happens(at) {
      await at.bad[Symbol.asyncDispose]();
      await at.pass(5_000);
    },
  },
  {
    what: "a stream that is dropped",
    role: "dialer",
    facts: "failing, none, stream-ended",
    async happens(at) {
      await at.bad.drop();
      await at.pass(1_000);
    },
  },
  {
    what: "a refusal",
    role: "acceptor",
    facts: "failing, none, permission-denied",
    async happens(at) {
      at.bad.behave({ refuses: { code: StatusCode.PermissionDenied, message: "invalid peering stream secret" } });
      await at.bad.drop();
      await at.pass(3_000);
    },
  },
  {
    what: "a peer that has deleted the peering and was not heard saying so",
    role: "acceptor",
    facts: "failing, none, aborted",
    async happens(at) {
      at.bad.behave({ refuses: { code: StatusCode.Aborted, message: "peering is marked as deleted: 1" } });
      await at.bad.drop();
      await at.pass(3_000);
    },
  },
  {
    what: "a deletion by the peer",
    role: "acceptor",
    facts: "terminated, none",
    async happens(at) {
      await at.bad.terminate();
      await at.until(() => at.view().status.phase === "idle", "it is over");
    },
  },
  {
    what: "a peer that answers nothing",
    role: "acceptor",
    facts: "active, connected, lags",
    happens: (at) => behaves(at, "never-acknowledges", 100_000),
  },
  {
    what: "a peer that refuses services",
    role: "acceptor",
    facts: "active, connected, refuses services",
    happens: (at) => behaves(at, "refuses-everything", 100_000),
  },
  {
    what: "a peer that breaks the protocol",
    role: "dialer",
    facts: "failing, none, invalid-message",
    async happens(at) {
      await at.bad.stream.send({
        type: "request",
        peerId: "",
        responseNonce: "",
        resourceUrl: "type.googleapis.com/no",
      });
      await at.pass(1_000);
    },
  },
  {
    what: "a peer that sends no message at all",
    role: "dialer",
    facts: "failing, none, invalid-message",
    async happens(at) {
      await at.bad.stream.sendBytes(Uint8Array.of(0xff, 0xff, 0xff));
      await at.pass(1_000);
    },
  },
];

describe("status", () => {
  describe("tells apart", () => {
    for (const row of rows) {
      it(`${row.what}: ${row.facts}`, async () => {
        await using at = await up(row.role);
        await row.happens(at);
        await at.until(() => at.host.peerings.read("good")?.status.lagMs === 0, "the good peer is in step");
        assert.equal(facts(at.view()), row.facts);
        assert.equal(facts(at.host.peerings.read("good") ?? at.view()), "active, connected");
      });
    }

    it("each of them from all others, but for kinds of the same", () => {
      const kinds = new Map(rows.map((row) => [row.facts, row.what]));
      assert.equal(kinds.size, rows.length - 2);
    });
  });

  it("says of each service of the peer whether it was listed, received, applied or refused", async () => {
    await using at = await up("dialer");
    const { host, bad } = at;
    const { stream } = bad;
    const sync = (): Record<string, unknown> =>
      Object.fromEntries(
        [...(host.peerings.services("bad")?.imported ?? [])].map(([name, { progress, instances }]) => [
          name,
          [progress, instances],
        ]),
      );
    const list = (...names: readonly string[]) =>
      stream.response(ResourceUrl.exportedServiceList, "exported-service-list", encodeExportedServiceList(names));
    const service = (name: string, value: Uint8Array) => stream.response(ResourceUrl.exportedService, name, value);
    await stream.send(list("Web", "db", "junk", "late"), service("Web", servicePayload("Web", 2)));
    await stream.send(service("junk", Uint8Array.of(255)), service("db", new Uint8Array()));
    await at.until(() => bad.answers.get("db")?.refusal !== undefined, "all is answered");
    assert.deepEqual(sync(), { Web: ["applied", 2], db: ["applied", 0], junk: ["refused", 0], late: ["listed", 0] });
    assert.match(host.peerings.services("bad")?.imported.get("junk")?.reason ?? "", /^failed to unmarshal resource/);

    await stream.send(service("junk", servicePayload("junk")), list("junk", "Web"));
    await at.until(() => bad.acknowledged(ResourceUrl.exportedServiceList), "the list is answered");
    assert.deepEqual(sync(), { Web: ["applied", 2], junk: ["applied", 1] });

    // A new stream on which nothing was said yet: what is stored is from the old one.
    await bad.drop();
    await at.until(() => at.view().state === "failing", "the stream is lost");
    assert.deepEqual(sync(), { Web: ["applied", 2], junk: ["applied", 1] }, "as of the last stream");
    bad.behave({ sends: false });
    await bad.connect();
    bad.behave({ sends: true });
    await bad.stream.send(bad.openMessage());
    await at.until(() => at.view().state === "active", "the next one is up");
    assert.deepEqual(sync(), { Web: ["unknown", 2], junk: ["unknown", 1] });
    assert.equal(host.peerings.services("nobody"), undefined);
  });

  it("shows resources that are received and not stored yet", async () => {
    let commit = (): void => {};
    const { memoryStorage } = await import("../../../src/storage/memory.js");
    const disk = memoryStorage();
    let slow = false;
    const storage = storageWith(disk, {
      async commit(...given) {
        if (slow) {
          await new Promise<void>((resolve) => {
            commit = resolve;
          });
        }
        return disk.commit(...given);
      },
    });
    await using at = await up("dialer", { host: { storage } });
    const { host, bad } = at;
    slow = true;
    const value = servicePayload("web", 3);
    await bad.stream.send(bad.stream.response(ResourceUrl.exportedService, "web", value));
    await at.until(() => at.view().status.applying === 1, "it is received");
    assert.ok(at.view().status.applyingBytes > value.length);
    assert.deepEqual(host.peerings.services("bad")?.imported.get("web"), {
      progress: "received",
      instances: 0,
      reason: undefined,
    });
    slow = false;
    commit();
    await at.until(() => bad.acknowledged("web"), "it is stored");
    assert.equal(host.peerings.services("bad")?.imported.get("web")?.progress, "applied");
    assert.deepEqual([at.view().status.applying, at.view().status.applyingBytes], [0, 0]);
  });

  it("forgets what a flood of names left, and keeps the refusals that count", async () => {
    await using at = await up("dialer");
    const { bad, host } = at;
    const { stream } = bad;
    const empty = new Uint8Array();
    await stream.flood(2_000, (index) => stream.response(ResourceUrl.exportedService, `name-${index}`, empty));
    await at.until(() => bad.acknowledged("name-1999"), "all are answered");
    assert.equal(host.peerings.services("bad")?.imported.size, 2_000);
    await stream.send(
      stream.response(ResourceUrl.exportedServiceList, "exported-service-list", encodeExportedServiceList(["name-7"])),
    );
    await at.until(() => bad.acknowledged(ResourceUrl.exportedServiceList), "the list is answered");
    assert.deepEqual([...(host.peerings.services("bad")?.imported.keys() ?? [])], ["name-7"]);
  });
});

describe("a service that is too large", () => {
  for (const role of ["acceptor", "dialer"] as const satisfies readonly Role[]) {
    // Consul's dialers accept 8 MiB, its acceptors 50 MiB.
    const instances = role === "dialer" ? 270 : 1_700;

    it(`for a peer that is the ${role}, it is held back alone, and goes out when it shrinks (ch1 case 123)`, async () => {
      await using at = await up(role);
      const { host, bad } = at;
      const stop = new AbortController();
      const seen: string[] = [];
      const watching = (async () => {
        for await (const { peerings } of host.peerings.watch({ signal: stop.signal })) {
          const withheld = peerings.find(({ name }) => name === "bad")?.status.withheldServices;
          seen.push([...(withheld ?? [])].map(([name, reason]) => `${name}: ${reason}`).join());
        }
      })();
      await host.catalog.registerAll([...heavy("large", instances, "v0"), ...heavy("small", 2, "v0")]);
      await at.until(() => bad.imported.has("small"), "the others go out");
      await at.until(() => at.view().status.lagMs === 0, "nothing waits");
      const reason = at.view().status.withheldServices.get("large") ?? "";
      const bytes = Number(/^(\d+) bytes are more than the peer accepts in one message$/.exec(reason)?.[1]);
      assert.ok(bytes > (role === "dialer" ? 8 : 50) * 1024 * 1024, reason);
      assert.deepEqual(host.peerings.services("bad")?.exported.get("large"), { progress: "held-back", reason });
      assert.deepEqual([at.view().state, bad.streams.length, bad.imported.has("large")], ["active", 1, false]);
      assert.deepEqual([...(bad.listed ?? [])], ["large", "small"], "it is exported still");

      const slim = heavy("large", instances, "v1").map(({ service, ...registration }) => ({
        ...registration,
        service: service === undefined ? undefined : { ...service, meta: {} },
      }));
      await host.catalog.registerAll(slim);
      await at.until(() => bad.imported.get("large")?.length === instances, "it goes out");
      await at.until(() => at.view().status.lagMs === 0, "and is acknowledged");
      assert.equal(at.view().status.withheldServices.size, 0);
      assert.equal(bad.streams.length, 1);
      stop.abort();
      await watching;
      const first = seen.findIndex((text) => text.startsWith("large: "));
      assert.ok(first >= 0 && seen.indexOf("", first) > first, "who watches saw it come and go");
    });

    it(`from a peer that is the ${role} ends the stream with the reason, and it is back when it shrinks`, async () => {
      const network = memoryNetwork();
      const maxReceiveBytes = 64 * 1024;
      const limit = { maxReceiveFromAcceptorBytes: maxReceiveBytes, maxReceiveFromDialerBytes: maxReceiveBytes };
      const address = (name: string) => network.transport({ listen: `${name}:1`, ...limit });
      await using at = await up(role, {
        host: { transport: address("host"), advertise: ["host:1"] },
        bad: { transport: address("bad") },
        good: address("good"),
      });
      const { bad } = at;
      bad.offer(...heavy("large", 4, "v0"));
      await at.until(() => at.view().state === "failing", "the stream ends");
      const { lastFailure } = at.view().status;
      assert.equal(lastFailure?.code, "resource-exhausted");
      assert.match(lastFailure?.message ?? "", /grpc: received message larger than max \(\d+ vs\. 65536\)$/);
      bad.withdraw("large");
      bad.offer(...heavy("large", 1, "v1"));
      await at.again();
      await at.until(() => bad.acknowledged("large"), "it is taken");
      assert.equal(at.host.imports.services({ peer: "bad" })[0]?.instances, 1);
    });
  }
});

describe("time that jumps", () => {
  for (const role of ["acceptor", "dialer"] as const satisfies readonly Role[]) {
    it(`a calendar that is set does not touch a stream to a peer that is the ${role}`, async () => {
      await using at = await up(role);
      for (const days of [1, -3, 2]) {
        at.clock.jump(days * 86_400_000);
        await at.pass(60_000);
        const { state, status } = at.view();
        assert.deepEqual([state, status.healthy, status.lagMs, status.lastFailure], ["active", true, 0, undefined]);
        const age = at.clock.wall() - (status.stream.lastHeartbeat ?? 0);
        assert.ok(age >= 0 && age <= 15_000, `the last heartbeat is ${age} ms old on the new calendar`);
      }
      assert.equal(at.bad.streams.length, 1);
    });

    it(`a process that slept for ten minutes goes on, with a peer that is the ${role}`, async () => {
      await using at = await up(role);
      await at.clock.suspend(600_000);
      await load(at.host, 2, "v1");
      if (at.view().state !== "active") await at.again();
      await at.until(() => has(at.bad, 2, "v1"), "it is in step again");
      await at.until(() => at.view().status.lagMs === 0 && at.view().status.healthy, "and status says so");
    });
  }
});

describe("nonces", () => {
  it("answers with nonces that nobody gave out are taken, and say nothing of a service (ch1 case 42)", async () => {
    await using at = await up("acceptor");
    at.bad.behave("wrong-nonces");
    await load(at.host, 2, "v1");
    await at.until(() => has(at.bad, 2, "v1"), "it was sent everything");
    await at.pass(1_000);
    assert.deepEqual([at.view().state, at.view().status.unacknowledged], ["active", 3]);
    at.bad.behave(wellBehaved);
    await load(at.host, 2, "v2");
    await at.until(() => at.view().status.unacknowledged === 1, "what is answered rightly counts again");
  });

  it("responses without one are refused, and with the same one each time taken (ch1 case 46)", async () => {
    await using at = await up("acceptor");
    const { bad } = at;
    const answers = (of: FakePeer): readonly string[] =>
      of.stream.heard.flatMap((message) =>
        message.type === "request" && message.error !== undefined
          ? [`${message.error.code} ${message.error.message}`]
          : [],
      );
    bad.behave({ nonces: "wrong" });
    bad.offer(...heavy("a", 1, "v0"));
    bad.offer(...heavy("b", 1, "v0"));
    await at.until(() => at.host.imports.services({ peer: "bad" }).length === 2, "both are taken");
    assert.deepEqual(answers(bad), []);
    bad.behave({ nonces: "none" });
    bad.offer(...heavy("c", 1, "v0"));
    await at.until(() => answers(bad).length === 2, "service and list are refused");
    const text = `3 received response without a nonce for: ${ResourceUrl.exportedService}:c`;
    assert.equal(answers(bad)[0], text);
    assert.equal(at.view().status.facts.lastReceiveErrorMessage.startsWith("received response without a nonce"), true);
  });
});
