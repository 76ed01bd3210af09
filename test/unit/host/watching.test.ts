import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { applyPatches, enablePatches, type Patch } from "immer";
import type { PeeringsChange } from "../../../src/host/peerings.js";
import type { ImportChange } from "../../../src/stores/import-store.js";
import { exportTo, peer, peered, register, World } from "../../support/world.js";
import { elsewhere } from "../stores/records-fixture.js";

enablePatches();

/** Reads a watch one change at a time, when the test says so. */
class Reader<T> {
  readonly seen: T[] = [];
  readonly stop: AbortController = new AbortController();
  readonly #world: World;
  readonly #iterator: AsyncIterator<T>;

  constructor(world: World, open: (signal: AbortSignal) => AsyncIterable<T>) {
    this.#world = world;
    this.#iterator = open(this.stop.signal)[Symbol.asyncIterator]();
  }

  async next(): Promise<T | undefined> {
    const result = await this.#world.result(this.#iterator.next());
    if (result.done === true) return undefined;
    this.seen.push(result.value);
    return result.value;
  }

  async until(condition: (value: T) => boolean): Promise<T> {
    for (let value = await this.next(); value !== undefined; value = await this.next()) {
      if (condition(value)) return value;
    }
    throw new Error("the watch ended");
  }
}

/** The records as a reader has them who knows nothing but the patches. */
class Mirror {
  #records: Record<string, { readonly id: string; readonly modifyIndex: bigint } | undefined> = {};

  apply({ changes }: PeeringsChange): void {
    for (const { id, patches } of changes) {
      const copies = patches.map((patch): Patch => ({ ...patch, path: [id, ...patch.path] }));
      this.#records = applyPatches(this.#records, copies);
    }
  }

  indexes(): readonly (readonly [string, bigint])[] {
    return Object.values(this.#records).flatMap((record) =>
      record === undefined ? [] : [[record.id, record.modifyIndex]],
    );
  }
}

/** Services and instance ids as a watcher that applies every change has them. */
function applied(changes: readonly ImportChange[]): Readonly<Record<string, readonly string[]>> {
  const all = new Map<string, Set<string>>();
  for (const change of changes) {
    if (change.type === "snapshot") {
      all.clear();
      for (const [name, instances] of change.services)
        all.set(name, new Set(instances.map(({ service }) => service.id)));
    } else {
      const ids = all.get(change.service) ?? new Set();
      for (const { service } of change.removed) assert.ok(ids.delete(service.id), `${service.id} was there`);
      for (const { service } of change.added) {
        assert.ok(!ids.has(service.id), `${service.id} is new`);
        ids.add(service.id);
      }
      for (const { service } of change.changed) assert.ok(ids.has(service.id), `${service.id} was there`);
      if (ids.size === 0) all.delete(change.service);
      else all.set(change.service, ids);
    }
  }
  return Object.fromEntries([...all].toSorted().map(([name, ids]) => [name, [...ids].toSorted()]));
}

describe("peerings.watch", () => {
  it("begins with the current state, also an empty one, then tells each change of a record and of a stream (ch3 case 59)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const reader = new Reader<PeeringsChange>(world, (signal) => dialer.host.peerings.watch({ signal }));
    assert.deepEqual(await reader.next(), { peerings: [], changes: [] });
    await peer(world, acceptor, dialer);
    const state = (change: PeeringsChange): string => change.peerings[0]?.state ?? "none";
    assert.ok(["pending", "establishing"].includes(state(await reader.until(() => true))));
    await reader.until((change) => state(change) === "active");
    for (const connection of world.network.connections) world.network.cut(connection);
    await reader.until((change) => state(change) === "failing");
    await reader.until((change) => state(change) === "active");
    await world.result(acceptor.host.peerings.delete("dialer"));
    await reader.until((change) => state(change) === "terminated");
    await world.result(dialer.host.peerings.delete("acceptor"));
    await reader.until((change) => state(change) === "none");
  });

  it("a reader that sleeps finds the newest state, once", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const reader = new Reader<PeeringsChange>(world, (signal) => acceptor.host.peerings.watch({ signal }));
    await reader.next();
    const { id } = acceptor.peering("dialer");
    for (let round = 0; round < 3; round++) await peer(world, acceptor, dialer);
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "it goes");
    const removed = { id, name: "dialer", patches: [{ op: "replace", path: [], value: undefined }] };
    assert.deepEqual(await reader.next(), { peerings: [], changes: [removed] });
    reader.stop.abort();
    assert.equal(await reader.next(), undefined);
  });

  it("tells the patches of the state machine, which lead from each record to the next", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const reader = new Reader<PeeringsChange>(world, (signal) => dialer.host.peerings.watch({ signal }));
    await reader.next();
    await peer(world, acceptor, dialer);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const mirror = new Mirror();
    const fields = new Set<string>();
    const follow = async (condition: (change: PeeringsChange) => boolean): Promise<void> => {
      await reader.until((change) => {
        for (const { patches } of change.changes) for (const { path } of patches) fields.add(String(path[0] ?? "all"));
        mirror.apply(change);
        const shown = change.peerings.map(({ id, modifyIndex }) => [id, modifyIndex]);
        assert.deepEqual(mirror.indexes(), shown, "the patches say what the list shows");
        return condition(change);
      });
    };
    await follow(({ peerings }) => peerings[0]?.state === "active");
    fields.clear();
    await world.result(acceptor.host.peerings.delete("dialer"));
    await follow(({ peerings }) => peerings[0]?.state === "terminated");
    assert.deepEqual([...fields].sort(), ["modifyIndex", "state"]);
    await world.result(dialer.host.peerings.delete("acceptor"));
    await follow(({ peerings }) => peerings.length === 0);
    assert.deepEqual(mirror.indexes(), []);
  });

  it("tells the patches of what another host on the same storage has written", async () => {
    const world = new World();
    const site = await world.site("site");
    const reader = new Reader<PeeringsChange>(world, (signal) => site.host.peerings.watch({ signal }));
    await reader.next();
    await elsewhere(world, site, (records) => records.generateToken({ peerName: "west" }));
    const made = await reader.next();
    const { id } = site.peering("west");
    assert.deepEqual(
      made?.changes.map((change) => [change.id, change.name, change.patches.map(({ path }) => path)]),
      [[id, "west", [[]]]],
    );
    await elsewhere(world, site, (records) => records.terminate(id));
    const terminated = await reader.next();
    assert.deepEqual(terminated?.changes[0]?.patches, [
      { op: "replace", path: ["state"], value: "terminated" },
      { op: "replace", path: ["modifyIndex"], value: site.peering("west").modifyIndex },
    ]);
    assert.equal(terminated?.peerings[0]?.state, "terminated");
  });

  it("of one name tells that peering alone, and sleeps while others change", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = await world.site("other");
    const reader = new Reader<PeeringsChange>(world, (signal) =>
      acceptor.host.peerings.watch({ signal, name: "OTHER" }),
    );
    assert.deepEqual(await reader.next(), { peerings: [], changes: [] });
    const next = reader.next();
    let woken = false;
    void next.then(() => {
      woken = true;
    });
    // A record, a stream and a removal of another peering.
    await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    for (const connection of world.network.connections) world.network.cut(connection);
    await world.until(() => acceptor.state("dialer") === "active" && dialer.state("acceptor") === "active", "again");
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "it goes");
    await world.pass(10);
    assert.equal(woken, false);
    await peer(world, acceptor, other);
    assert.deepEqual(
      (await next)?.peerings.map(({ name }) => name),
      ["other"],
    );
    await reader.until(({ peerings }) => peerings[0]?.state === "active");
  });

  it("ends quietly when aborted: before, while it waits, and between two changes", async () => {
    const world = new World();
    const site = await world.site("alone");
    const before = new AbortController();
    before.abort();
    for await (const _ of site.host.peerings.watch({ signal: before.signal })) assert.fail("nothing is told");
    const waiting = new Reader<PeeringsChange>(world, (signal) => site.host.peerings.watch({ signal }));
    await waiting.next();
    const next = waiting.next();
    await world.pass(10);
    waiting.stop.abort();
    assert.equal(await next, undefined);
  });

  it("ends when the host is disposed of", async () => {
    const world = new World();
    const site = await world.site("alone");
    const reader = new Reader<PeeringsChange>(world, (signal) => site.host.peerings.watch({ signal }));
    await reader.next();
    const next = reader.next();
    await world.pass(10);
    await site.stop();
    assert.equal(await next, undefined);
  });
});

describe("imports.watch", () => {
  it("begins with a snapshot; every change follows and leads to the current state", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const reader = new Reader<ImportChange>(world, (signal) => dialer.host.imports.watch({ peer: "acceptor", signal }));
    const first = await reader.next();
    assert.equal(first?.type, "snapshot");
    assert.deepEqual(applied(reader.seen), { db: ["db-1"], web: ["web-1"] });
    await world.result(register(acceptor.host, "web", "2"));
    const second = await reader.next();
    assert.deepEqual(
      second?.type === "difference" && [
        second.service,
        second.added.length,
        second.changed.length,
        second.removed.length,
      ],
      ["web", 1, 0, 0],
    );
    await world.result(
      acceptor.host.catalog.register({
        node: "node-2",
        address: "10.0.0.2",
        service: { id: "web-2", name: "web", port: 81 },
      }),
    );
    const third = await reader.next();
    assert.equal(third?.type === "difference" && third.changed[0]?.service.port, 81);
    await exportTo(world, acceptor, "dialer", "db");
    await reader.until(() => !("web" in applied(reader.seen)));
    assert.deepEqual(applied(reader.seen), { db: ["db-1"] });
    assert.ok(
      reader.seen.every(({ revision }, index) => index === 0 || revision >= (reader.seen[index - 1]?.revision ?? 0n)),
    );
  });

  it("a reader that sleeps through many changes ends with the newest state", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const reader = new Reader<ImportChange>(world, (signal) => dialer.host.imports.watch({ peer: "acceptor", signal }));
    await reader.next();
    for (let port = 1; port <= 30; port++) {
      const service = { id: `web-${port % 5}`, name: "web", port };
      await world.result(acceptor.host.catalog.register({ node: "node-1", address: "10.0.0.1", service }));
      if (port % 7 === 0) await world.result(acceptor.host.catalog.deregister({ node: "node-1", serviceId: "web-1" }));
    }
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const ids = acceptor.host.catalog.instances("web").map(({ service }) => service.id);
    await reader.until(() => {
      const { web = [] } = applied(reader.seen);
      return web.join() === ids.toSorted().join();
    });
    assert.ok(reader.seen.length < 10, "states in between may be skipped");
  });

  it("of one service tells that one alone", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const reader = new Reader<ImportChange>(world, (signal) =>
      dialer.host.imports.watch({ peer: "acceptor", service: "WEB", signal }),
    );
    await reader.next();
    assert.deepEqual(applied(reader.seen), { web: ["web-1"] });
    await world.result(register(acceptor.host, "db", "2"));
    await world.until(() => dialer.count("acceptor", "db") === 2, "the other one changes");
    await world.result(register(acceptor.host, "web", "2"));
    const change = await reader.next();
    assert.equal(change?.type === "difference" && change.service, "web");
  });

  it("everything goes when the peering does, and survives a stream that fails", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const reader = new Reader<ImportChange>(world, (signal) => dialer.host.imports.watch({ peer: "acceptor", signal }));
    await reader.next();
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the stream is lost");
    await acceptor.start();
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    await world.result(acceptor.host.peerings.delete("dialer"));
    await reader.until(() => Object.keys(applied(reader.seen)).length === 0);
    assert.equal(reader.seen.length, 3, "a snapshot, then one end for each service");
  });

  it("ends when the peering is deleted, and not when it is terminated", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const reader = new Reader<ImportChange>(world, (signal) => dialer.host.imports.watch({ peer: "acceptor", signal }));
    await reader.next();
    await world.result(acceptor.host.peerings.delete("dialer"));
    await reader.until(() => Object.keys(applied(reader.seen)).length === 0);
    await world.until(() => dialer.state("acceptor") === "terminated", "it hears of the deletion");
    let over = false;
    const next = reader.next().then((change) => {
      over = true;
      return change;
    });
    await world.pass(10);
    assert.equal(over, false, "a peering that is terminated can be established again");
    await world.result(dialer.host.peerings.delete("acceptor"));
    assert.equal(await next, undefined);
  });

  it("ends quietly when aborted or when the host is disposed of; an unknown peer is refused", async () => {
    const world = new World();
    const { dialer } = await peered(world);
    const { imports } = dialer.host;
    assert.throws(() => imports.watch({ peer: "nobody", signal: new AbortController().signal }), {
      name: "PeeringError",
      code: "not-found",
      message: 'Peering not found for "nobody"',
    });
    const readers = [1, 2].map(
      () => new Reader<ImportChange>(world, (signal) => imports.watch({ peer: "acceptor", signal })),
    );
    const pending: Promise<ImportChange | undefined>[] = [];
    for (const reader of readers) {
      await reader.next();
      pending.push(reader.next());
    }
    await world.pass(10);
    readers[0]?.stop.abort();
    assert.equal(await pending[0], undefined);
    await dialer.stop();
    assert.equal(await pending[1], undefined);
  });
});
