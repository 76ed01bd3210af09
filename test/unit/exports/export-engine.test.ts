import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { type Clock, silentLogger, type Timer } from "../../../src/base/environment.js";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import { ExportEngine, type ExportEngineOptions } from "../../../src/exports/export-engine.js";
import type { CatalogChange, CatalogSource } from "../../../src/model/catalog-source.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import type { ExportedResource, SessionInput } from "../../../src/replication/types.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { ExportedServiceSchema } from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import { check, exporting, gateway, instance, node, sidecarOf, TRUST_DOMAIN } from "../config/export-fixtures.js";

/** A catalog that tells what the test gives it, one change at a time. */
class FakeCatalog implements CatalogSource {
  readonly watches: { readonly changes: (CatalogChange | Error | undefined)[] }[] = [];
  #wake: (() => void) | undefined;

  async *watch({ signal }: { readonly signal: AbortSignal }): AsyncIterable<CatalogChange> {
    const watch = { changes: [] as (CatalogChange | Error | undefined)[] };
    this.watches.push(watch);
    signal.addEventListener("abort", () => this.#wake?.(), { once: true });
    while (!signal.aborted) {
      if (watch.changes.length > 0) {
        const change = watch.changes.shift();
        if (change === undefined) return;
        if (change instanceof Error) throw change;
        yield change;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  /** Gives a change to the newest watch, or ends it (`undefined`), and waits until it was taken in. */
  async give(change: readonly ServiceInstance[] | Map<string, readonly ServiceInstance[]> | Error | undefined) {
    await settled();
    const watch = this.watches.at(-1);
    assert.ok(watch !== undefined);
    watch.changes.push(
      change === undefined || change instanceof Error
        ? change
        : { services: change instanceof Map ? change : grouped(change) },
    );
    this.#wake?.();
    await settled();
  }
}

function grouped(instances: readonly ServiceInstance[]): ReadonlyMap<string, readonly ServiceInstance[]> {
  const map = new Map<string, ServiceInstance[]>();
  for (const item of instances) map.set(item.service.name, [...(map.get(item.service.name) ?? []), item]);
  return map;
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

class FakeClock implements Clock {
  readonly waits: { readonly delayMs: number; readonly action: () => void }[] = [];
  now(): number {
    return 0;
  }
  wall(): number {
    return 0;
  }
  after(delayMs: number, action: () => void): Timer {
    this.waits.push({ delayMs, action });
    return { cancel: () => {} };
  }
  /** Fires what waits now. */
  fire(): void {
    for (const { action } of this.waits.splice(0)) action();
  }
}

type Given = { readonly sent: readonly string[] } | { readonly withdrawn: readonly string[] };

/** The inputs of a stream: list names and payload sizes, in order. */
function described(input: SessionInput): Given {
  if (input.type === "withdrawn") return { withdrawn: input.resourceIds };
  assert.equal(input.type, "exported");
  return { sent: input.type === "exported" ? input.resources.map(describe) : [] };
}

function describe(resource: ExportedResource): string {
  if (resource.resourceUrl === ResourceUrl.exportedServiceList) return `list(${(resource.names ?? []).join(",")})`;
  return `${resource.resourceId}:${fromBinary(ExportedServiceSchema, resource.value).Nodes.length}`;
}

class Stream {
  readonly inputs: SessionInput[] = [];
  readonly detach: () => void;

  constructor(engine: ExportEngine, name = "b") {
    this.detach = engine.attach({ id: `id-of-${name}`, name }, (input) => this.inputs.push(input));
  }

  /** The inputs since the last call. */
  take(): readonly Given[] {
    return this.inputs.splice(0).map(described);
  }
}

async function open(
  options: Partial<ExportEngineOptions> = {},
  ...entries: readonly ConfigEntryInput[]
): Promise<{ engine: ExportEngine; catalog: FakeCatalog; configEntries: ConfigEntries }> {
  const configEntries = await ConfigEntries.open({ storage: memoryStorage(), datacenter: "dc1" });
  for (const entry of entries) await configEntries.set(entry);
  const catalog = new FakeCatalog();
  const engine = new ExportEngine({
    catalog,
    configEntries,
    datacenter: "dc1",
    trustDomain: TRUST_DOMAIN,
    connect: true,
    strictConsul: false,
    logger: silentLogger,
    ...options,
  });
  return { engine, catalog, configEntries };
}

test("list, services and sidecars come together once the catalog is known, then what changes (ch1 cases 75 to 77)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["mysql", "b"], ["mongo", "b"]));
  const stream = new Stream(engine);
  assert.deepEqual(stream.take(), []);
  await catalog.give([instance("mysql"), sidecarOf("mysql"), instance("unrelated")]);
  assert.deepEqual(stream.take(), [{ sent: ["list(mongo,mysql)", "mongo:0", "mysql:1", "mysql-sidecar-proxy:0"] }]);
  await catalog.give([gateway("gw", "gw")]);
  assert.deepEqual(stream.take(), [{ sent: ["mysql-sidecar-proxy:1"] }]);
  await configEntries.set({ kind: "service-defaults", name: "mongo", protocol: "grpc" });
  assert.deepEqual(stream.take(), []);
  await configEntries.set({ kind: "service-resolver", name: "mongo" });
  assert.deepEqual(stream.take(), [{ sent: ["mongo-sidecar-proxy:1"] }]);
  await engine[Symbol.asyncDispose]();
});

test("without an entry the list is sent, and it is empty (ch4 case 12)", async () => {
  const { engine, catalog } = await open();
  const stream = new Stream(engine);
  await catalog.give([instance("web")]);
  assert.deepEqual(stream.take(), [{ sent: ["list()"] }]);
  await engine[Symbol.asyncDispose]();
});

test("a stream that attaches later gets the whole state at once", async () => {
  const { engine, catalog } = await open({}, exporting(["web", "b", "c"]));
  await catalog.give([instance("web")]);
  const b = new Stream(engine);
  assert.deepEqual(b.take(), [{ sent: ["list(web)", "web:1"] }]);
  const first = new Stream(engine, "c");
  const second = new Stream(engine, "c");
  const [one, two] = [first, second].map(({ inputs }) => (inputs[0]?.type === "exported" ? inputs[0].resources : []));
  // Encoded once, for all of them.
  assert.equal(one?.[1], two?.[1]);
  await engine[Symbol.asyncDispose]();
});

test("un-exporting withdraws, and sends a list and an empty chain (ch4 case 38, ch1 case 79)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["web", "b"], ["db", "b"]));
  const stream = new Stream(engine);
  await catalog.give([instance("web"), sidecarOf("web"), instance("db")]);
  stream.take();
  await configEntries.set(exporting(["db", "b"]));
  assert.deepEqual(stream.take(), [{ withdrawn: ["web"] }, { sent: ["list(db)", "web-sidecar-proxy:0"] }]);
  await configEntries.delete("exported-services", "default");
  assert.deepEqual(stream.take(), [{ withdrawn: ["db"] }, { sent: ["list()"] }]);
  await engine[Symbol.asyncDispose]();
});

test("a name exported again is sent again (ch4 case 43, ch1 case 83)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["web", "b"], ["db", "b"]));
  const stream = new Stream(engine);
  await catalog.give([instance("web"), instance("db")]);
  await configEntries.set(exporting(["db", "b"]));
  stream.take();
  await configEntries.set(exporting(["web", "b"], ["db", "b"]));
  assert.deepEqual(stream.take(), [{ sent: ["list(db,web)", "web:1"] }]);
  await engine[Symbol.asyncDispose]();
});

test("a change of a name that is un-exported is not sent (ch1 case 95)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["web", "b"]));
  const stream = new Stream(engine);
  await catalog.give([instance("web")]);
  await configEntries.set(exporting(["web", "c"]));
  stream.take();
  await catalog.give([instance("web", { port: 81 })]);
  assert.deepEqual(stream.take(), []);
  await engine[Symbol.asyncDispose]();
});

test("an unchanged payload is not sent (ch4 case 39, ch1 case 82)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["web", "b"]));
  const stream = new Stream(engine);
  const web = [instance("web", {}, "n", [check("c", "passing")]), sidecarOf("web"), gateway("g", "gw")];
  await catalog.give(web);
  stream.take();
  await catalog.give(web);
  await catalog.give([{ ...instance("web"), node: node("n"), checks: [check("other", "passing")] }]);
  await catalog.give([instance("other")]);
  await configEntries.set(exporting(["web", "b", "c"]));
  await configEntries.set({ kind: "service-defaults", name: "web", protocol: "TCP" });
  await configEntries.set({ kind: "mesh", peering: { peerThroughMeshGateways: true } });
  assert.deepEqual(stream.take(), []);
  await engine[Symbol.asyncDispose]();
});

test("a change of a node that carries three exported services gives three payloads (ch4 case 40)", async () => {
  const { engine, catalog } = await open({}, exporting(["*", "b"]));
  const stream = new Stream(engine);
  const on = (meta: Record<string, string>): readonly ServiceInstance[] =>
    ["a", "b", "c"].map((name) => ({ ...instance(name), node: node("n", { meta }) }));
  await catalog.give(on({}));
  stream.take();
  await catalog.give(on({ rack: "2" }));
  assert.deepEqual(stream.take(), [{ sent: ["a:1", "b:1", "c:1"] }]);
  await engine[Symbol.asyncDispose]();
});

test("registering and deregistering gives full payloads (ch1 cases 80 and 81)", async () => {
  const { engine, catalog } = await open({}, exporting(["web", "b"]));
  const stream = new Stream(engine);
  await catalog.give([]);
  assert.deepEqual(stream.take(), [{ sent: ["list(web)", "web:0"] }]);
  await catalog.give([instance("web", { id: "1" })]);
  await catalog.give([instance("web", { id: "1" }), instance("web", { id: "2" })]);
  await catalog.give([instance("web", { id: "2" })]);
  await catalog.give(new Map([["web", []]]));
  assert.deepEqual(stream.take(), [{ sent: ["web:1"] }, { sent: ["web:2"] }, { sent: ["web:1"] }, { sent: ["web:0"] }]);
  await engine[Symbol.asyncDispose]();
});

test("under * the list grows with a service and shrinks with its last instance (ch4 case 18)", async () => {
  const { engine, catalog } = await open({}, exporting(["*", "b"]));
  const stream = new Stream(engine);
  await catalog.give([instance("web")]);
  stream.take();
  await catalog.give([instance("api"), sidecarOf("api")]);
  assert.deepEqual(stream.take(), [{ sent: ["list(api,web)", "api:1", "api-sidecar-proxy:0"] }]);
  await catalog.give(new Map([["web", []]]));
  assert.deepEqual(stream.take(), [{ withdrawn: ["web"] }, { sent: ["list(api)"] }]);
  await engine[Symbol.asyncDispose]();
});

test("gateways come and go (ch4 case 34, ch1 case 86)", async () => {
  const { engine, catalog } = await open({}, exporting(["web", "b"]));
  const stream = new Stream(engine);
  let told = 0;
  engine.onGatewaysChanged(() => told++);
  await catalog.give([instance("web"), sidecarOf("web")]);
  stream.take();
  await catalog.give([gateway("1", "n1"), gateway("2", "n2")]);
  assert.deepEqual(stream.take(), [{ sent: ["web-sidecar-proxy:2"] }]);
  assert.equal(engine.meshGateways.length, 2);
  await catalog.give(new Map([["mesh-gateway", []]]));
  assert.deepEqual(stream.take(), [{ sent: ["web-sidecar-proxy:0"] }]);
  assert.equal(told, 2);
  await engine[Symbol.asyncDispose]();
});

test("only chains whose protocol or targets changed are sent again (ch1 case 85)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["web", "b"], ["db", "b"]));
  const stream = new Stream(engine);
  await catalog.give([sidecarOf("web"), sidecarOf("db"), gateway("g", "n")]);
  stream.take();
  await configEntries.set({ kind: "service-resolver", name: "web", failover: { "*": { service: "failover" } } });
  assert.deepEqual(stream.take(), [{ sent: ["web-sidecar-proxy:1"] }]);
  await configEntries.set({ kind: "service-resolver", name: "web" });
  assert.deepEqual(stream.take(), [{ sent: ["web-sidecar-proxy:1"] }]);
  await configEntries.set({ kind: "service-defaults", name: "web", protocol: "grpc" });
  assert.deepEqual(stream.take(), [{ sent: ["web-sidecar-proxy:1"] }]);
  await configEntries.delete("service-resolver", "web");
  assert.deepEqual(stream.take(), []);
  await engine[Symbol.asyncDispose]();
});

test("a chain-only name is in our list, and its sidecar is sent (ch1 case 121)", async () => {
  for (const strictConsul of [false, true]) {
    const { engine, catalog } = await open({ strictConsul }, exporting(["*", "b"]), {
      kind: "service-resolver",
      name: "virtual",
    });
    const stream = new Stream(engine);
    await catalog.give([instance("web"), gateway("g", "n")]);
    assert.deepEqual(stream.take(), [
      { sent: [strictConsul ? "list(web)" : "list(virtual,web)", "web:1", "virtual-sidecar-proxy:1"] },
    ]);
    await engine[Symbol.asyncDispose]();
  }
});

test("without a mesh nothing but lists and services is sent (ch4 case 27)", async () => {
  const { engine, catalog } = await open({ connect: false }, exporting(["*", "b"]));
  const stream = new Stream(engine);
  await catalog.give([instance("web"), sidecarOf("web"), gateway("g", "n")]);
  assert.deepEqual(stream.take(), [{ sent: ["list(web)", "web:1"] }]);
  await engine[Symbol.asyncDispose]();
});

test("a service named like the sidecars of an exported one never overwrites them (D-27)", async () => {
  const { engine, catalog, configEntries } = await open({}, exporting(["x", "b"], ["x-sidecar-proxy", "b"]));
  const stream = new Stream(engine);
  await catalog.give([sidecarOf("x"), instance("x-sidecar-proxy"), gateway("g", "n")]);
  assert.deepEqual(stream.take(), [{ sent: ["list(x,x-sidecar-proxy)", "x:0", "x-sidecar-proxy:1"] }]);
  await configEntries.set(exporting(["x", "b"]));
  assert.deepEqual(stream.take(), [{ sent: ["list(x)"] }]);
  await engine[Symbol.asyncDispose]();
});

test("an invalid service alone is held back, named, and goes out when it is valid (ch1 cases 110 and 123, D-28)", async () => {
  const told: string[] = [];
  const { engine, catalog } = await open(
    {
      onHeldBack: (peer, service, reason) => told.push(`${peer.name} ${service}: ${reason}`),
      onReleased: (peer, service) => told.push(`${peer.name} ${service} released`),
    },
    exporting(["*", "b"]),
  );
  const stream = new Stream(engine);
  await catalog.give([instance("good"), instance("bad", { id: "x", port: 1e12 })]);
  assert.deepEqual(stream.take(), [{ sent: ["list(bad,good)", "good:1"] }]);
  const reason = 'service "bad" is not sent: instance "x" on node "node-1": port 1000000000000 is not a 32-bit integer';
  assert.deepEqual(told.splice(0), [`b bad: ${reason}`]);
  assert.deepEqual(engine.explain("bad", "b").reasons.at(-1), { type: "held-back", problem: reason });
  await catalog.give([instance("bad", { id: "x", port: 1e12, tags: ["more"] })]);
  assert.deepEqual(told.splice(0), []);
  await catalog.give([instance("bad", { id: "x" })]);
  assert.deepEqual(stream.take(), [{ sent: ["bad:1"] }]);
  assert.deepEqual(told.splice(0), ["b bad released"]);
  // A catalog of the host's own may give anything; the others are sent all the same.
  const broken: ServiceInstance = JSON.parse(JSON.stringify(instance("bad")).replace('"tags":[]', '"tags":7'));
  await catalog.give([broken, instance("good", { port: 1 })]);
  assert.deepEqual(stream.take(), [{ sent: ["good:1"] }]);
  assert.equal(told.length, 1);
  await engine[Symbol.asyncDispose]();
});

test("a watch that fails begins again: at once, then after growing waits, and removed services go", async () => {
  const clock = new FakeClock();
  const random = { bytes: () => new Uint8Array(0), fraction: () => 0.5 };
  const { engine, catalog } = await open({ clock, random }, exporting(["*", "b"]));
  const stream = new Stream(engine);
  await catalog.give([instance("web"), instance("db")]);
  stream.take();
  await catalog.give(new Error("registry down"));
  for (const expectedMs of [0, 750, 1500]) {
    const wait = clock.waits.shift();
    assert.equal(wait?.delayMs, expectedMs);
    wait.action();
    await catalog.give(undefined);
  }
  clock.waits.shift()?.action();
  await catalog.give([instance("db")]);
  assert.deepEqual(stream.take(), [{ withdrawn: ["web"] }, { sent: ["list(db)"] }]);
  await engine[Symbol.asyncDispose]();
});

test("a stream that is detached, or fails, does not disturb the others", async () => {
  const { engine, catalog } = await open({}, exporting(["web", "b", "c"]));
  engine.attach({ id: "id", name: "b" }, () => {
    throw new Error("stream is gone");
  });
  const gone = new Stream(engine);
  const stream = new Stream(engine, "c");
  await catalog.give([instance("web")]);
  gone.take();
  stream.take();
  gone.detach();
  gone.detach();
  await catalog.give([instance("web", { port: 1 })]);
  assert.deepEqual(gone.take(), []);
  assert.deepEqual(stream.take(), [{ sent: ["web:1"] }]);
  await engine[Symbol.asyncDispose]();
  await engine[Symbol.asyncDispose]();
});

test("questions are answered without a stream", async () => {
  const { engine, catalog } = await open({}, exporting(["*", "b"], ["db", "c"]));
  await catalog.give([instance("web"), instance("db")]);
  assert.deepEqual(engine.exportsFor("b").list, ["db", "web"]);
  assert.deepEqual(engine.exportsFor("nobody").list, []);
  assert.deepEqual(engine.peersFor("db"), ["b", "c"]);
  assert.equal(engine.explain("web", "c").exported, false);
  assert.deepEqual([...engine.names.typical.keys()].sort(), ["db", "web"]);
  await engine[Symbol.asyncDispose]();
});

/** The state of a peer that is sent all its inputs, as its session has them, and applies them in order. */
class Importer {
  list: readonly string[] = [];
  readonly services = new Map<string, string>();
  /** Digests of the versions that it was sent last, as long as they were not withdrawn. */
  readonly #sent = new Map<string, string>();

  apply(input: SessionInput): void {
    if (input.type === "withdrawn") for (const id of input.resourceIds) this.#sent.delete(id);
    if (input.type !== "exported") return;
    for (const { resourceUrl, resourceId, digest, value, names } of input.resources) {
      if (resourceUrl === ResourceUrl.exportedServiceList) {
        this.list = names ?? [];
        for (const name of this.services.keys()) if (!this.isListed(name)) this.services.delete(name);
        continue;
      }
      if (this.#sent.get(resourceId) === digest) continue;
      this.#sent.set(resourceId, digest);
      if (value.length === 0) this.services.delete(resourceId);
      else this.services.set(resourceId, digest);
    }
  }

  isListed(resourceId: string): boolean {
    return this.list.some((name) => name === resourceId || `${name}-sidecar-proxy` === resourceId);
  }
}

type Step =
  | { readonly register: string; readonly count: number; readonly as: "" | "native" | "sidecar" }
  | { readonly export: readonly (readonly [string, string])[] }
  | { readonly resolver: string; readonly there: boolean }
  | { readonly terminating: string; readonly fronts: readonly string[] };

async function perform(step: Step, catalog: FakeCatalog, entries: ConfigEntries): Promise<void> {
  if ("export" in step) {
    await entries.set(exporting(...step.export));
  } else if ("resolver" in step) {
    const { resolver: name, there } = step;
    if (there) await entries.set({ kind: "service-resolver", name, failover: { "*": { service: "dr" } } });
    else await entries.delete("service-resolver", name);
  } else if ("terminating" in step) {
    const { terminating: name, fronts } = step;
    const services = fronts.map((service) => ({ name: service }));
    if (fronts.length > 0) await entries.set({ kind: "terminating-gateway", name, services });
    else await entries.delete("terminating-gateway", name);
  } else {
    const { register: name, count, as } = step;
    const proxy = as === "sidecar" ? sidecarOf("b").service.proxy : undefined;
    const instances = Array.from({ length: count }, (_, index) =>
      instance(name, {
        id: `${index}`,
        ...(name === "gw" ? { kind: "mesh-gateway" } : {}),
        ...(proxy === undefined ? {} : { kind: "connect-proxy", proxy }),
        ...(as === "native" ? { connect: { native: true } } : {}),
      }),
    );
    await catalog.give(new Map([[name, instances]]));
  }
}

test("of a large state the list and a first slice are given at once, the rest in later turns", async () => {
  const clock = new FakeClock();
  const exports = exporting(["a", "b"], ["c", "b"], ["d", "b"], ["e", "b"], ["f", "b"]);
  const { engine, catalog, configEntries } = await open({ clock, sliceInstances: 2 }, exports);
  const stream = new Stream(engine);
  await catalog.give(["a", "c", "d", "e", "f"].map((name) => instance(name)));
  assert.deepEqual(stream.take(), [{ sent: ["list(a,c,d,e,f)", "a:1", "c:1"] }]);
  // A service that changes meanwhile is given once, in its new state; one that is removed is not given at all.
  await catalog.give(new Map([["d", [instance("d"), instance("d", { id: "2" })]]]));
  assert.deepEqual(stream.take(), [{ sent: ["d:2"] }]);
  await configEntries.set(exporting(["a", "b"], ["c", "b"], ["d", "b"], ["f", "b"]));
  assert.deepEqual(stream.take(), [{ withdrawn: ["e"] }, { sent: ["list(a,c,d,f)"] }]);
  clock.fire();
  assert.deepEqual(stream.take(), [{ sent: ["f:1"] }]);
  clock.fire();
  assert.deepEqual(stream.take(), []);
  assert.equal(clock.waits.length, 0);
  await engine[Symbol.asyncDispose]();
});

/** Does what is left to do. @returns In how many slices. */
function finish(clock: FakeClock): number {
  let slices = 0;
  for (; clock.waits.length > 0; slices++) clock.fire();
  return slices;
}

test("many names are resolved in slices: the list comes whole, and nothing that changes meanwhile is lost", async () => {
  const clock = new FakeClock();
  const { engine, catalog, configEntries } = await open({ clock, sliceNames: 2 }, exporting(["*", "b"]));
  const names = Array.from({ length: 40 }, (_, index) => `s${index}`);
  await catalog.give(names.map((name) => instance(name)));
  finish(clock);
  const stream = new Stream(engine);
  for (let slice = 0; slice < 10; slice++) clock.fire();
  assert.deepEqual(stream.take(), []);
  await catalog.give(new Map([["s7", [instance("s7"), instance("s7", { id: "2" })]]]));
  await catalog.give(new Map([["s8", []]]));
  await catalog.give([instance("late")]);
  assert.deepEqual(stream.take(), []);
  const slices = finish(clock);
  assert.ok(slices >= names.length / 2, `${slices}`);
  const given = stream.take().flatMap((input) => ("sent" in input ? input.sent : []));
  assert.match(given[0] ?? "", /^list\(/);
  const last = given.filter((text) => text.startsWith("list")).at(-1);
  const left = names.filter((name) => name !== "s8").sort();
  assert.equal(last, `list(${["late", ...left].join(",")})`);
  const services = given.filter((text) => !text.startsWith("list")).sort();
  assert.deepEqual(services, [...left.map((name) => (name === "s7" ? "s7:2" : `${name}:1`)), "late:1"].sort());
  // The entries change twice: the second change, which is not about this peer, comes when the first name has been looked at.
  const each = left.map((name): readonly [string, string] => [name, "b"]);
  await configEntries.set(exporting(...each));
  for (let slice = 0; slice < 8; slice++) clock.fire();
  await configEntries.set(exporting(...each, ["late", "c"]));
  assert.deepEqual(stream.take(), []);
  finish(clock);
  assert.deepEqual(stream.take(), [{ withdrawn: ["late"] }, { sent: [`list(${left.join(",")})`] }]);
  await engine[Symbol.asyncDispose]();
});

test("while names are resolved, no change of a service is given to a peer that it is not exported to any more", async () => {
  const clock = new FakeClock();
  const names = ["a", "c", "d", "e", "web", "x", "y"];
  const all = exporting(...names.map((name): readonly [string, string] => [name, "b"]));
  const { engine, catalog, configEntries } = await open({ clock, sliceNames: 1 }, all);
  const stream = new Stream(engine);
  await catalog.give(names.map((name) => instance(name)));
  finish(clock);
  stream.take();
  await configEntries.set(exporting(["a", "b"]));
  await catalog.give([instance("web", { port: 81 })]);
  await catalog.give([instance("a", { port: 81 })]);
  assert.deepEqual(stream.take(), [{ sent: ["a:1"] }]);
  finish(clock);
  assert.deepEqual(stream.take(), [{ withdrawn: names.filter((name) => name !== "a") }, { sent: ["list(a)"] }]);
  await engine[Symbol.asyncDispose]();
});

test("a change is given to many streams in slices, to each the newest, and all have their turns", async () => {
  const clock = new FakeClock();
  const peers = ["p0", "p1", "p2", "p3", "p4"];
  const { engine, catalog } = await open({ clock, sliceStreams: 2 }, exporting(["web", ...peers]));
  await catalog.give([instance("web")]);
  const streams = peers.map((name) => new Stream(engine, name));
  finish(clock);
  for (const stream of streams) stream.take();
  const told = (): readonly (readonly Given[])[] => streams.map((stream) => stream.take());
  const [one, two] = [[{ sent: ["web:1"] }], [{ sent: ["web:2"] }]];
  await catalog.give([instance("web", { port: 81 })]);
  assert.deepEqual(told(), [one, one, [], [], []]);
  await catalog.give([instance("web"), instance("web", { id: "2" })]);
  assert.deepEqual(told(), [two, two, [], [], []]);
  clock.fire();
  assert.deepEqual(told(), [[], [], two, two, []]);
  streams[4]?.detach();
  assert.equal(finish(clock), 1);
  assert.deepEqual(told(), [[], [], [], [], []]);
  await engine[Symbol.asyncDispose]();
});

test("a slice takes fewer instances where they have many checks", async () => {
  const clock = new FakeClock();
  const { engine, catalog } = await open({ clock, sliceInstances: 4 }, exporting(["*", "b"]));
  const stream = new Stream(engine);
  const checks = Array.from({ length: 350 }, (_, index) => check(`c${index}`, "passing"));
  await catalog.give(["a", "b", "c"].map((name) => ({ ...instance(name), checks })));
  assert.deepEqual(stream.take(), [{ sent: ["list(a,b,c)", "a:1"] }]);
  clock.fire();
  assert.deepEqual(stream.take(), [{ sent: ["b:1"] }]);
  clock.fire();
  assert.deepEqual(stream.take(), [{ sent: ["c:1"] }]);
  await engine[Symbol.asyncDispose]();
});

test("exports are encoded before a peer comes, and again when they change", async () => {
  const clock = new FakeClock();
  const { engine, catalog } = await open({ clock, sliceInstances: 1 }, exporting(["*", "b"]));
  await catalog.give([instance("a"), instance("c"), instance("d")]);
  for (let slice = 0; slice < 3; slice++) clock.fire();
  assert.equal(clock.waits.length, 0);
  assert.deepEqual(new Stream(engine).take(), [{ sent: ["list(a,c,d)", "a:1", "c:1", "d:1"] }]);
  await catalog.give(new Map([["a", []]]));
  assert.deepEqual(new Stream(engine).take(), [{ sent: ["list(c,d)", "c:1", "d:1"] }]);
  await engine[Symbol.asyncDispose]();
});

test("an engine that is disposed of encodes nothing more", async () => {
  const clock = new FakeClock();
  const { engine, catalog } = await open({ clock, sliceInstances: 1 }, exporting(["*", "b"]));
  await catalog.give([instance("a"), instance("c")]);
  const stream = new Stream(engine);
  stream.take();
  await engine[Symbol.asyncDispose]();
  clock.fire();
  assert.deepEqual(stream.take(), []);
  assert.equal(clock.waits.length, 0);
});

test("after any changes a peer that followed holds the same as one that attaches now", async () => {
  const exportable = fc.constantFrom("a", "b", "c", "A", "a-sidecar-proxy", "*");
  const step: fc.Arbitrary<Step | "slice" | "attach"> = fc.oneof(
    fc.record({
      register: fc.constantFrom("a", "b", "c", "a-sidecar-proxy", "gw"),
      count: fc.integer({ min: 0, max: 3 }),
      as: fc.constantFrom("", "native", "sidecar"),
    }),
    fc.record({ export: fc.array(fc.tuple(exportable, fc.constantFrom("peer", "other")), { maxLength: 4 }) }),
    fc.record({ resolver: fc.constantFrom("a", "b", "virtual"), there: fc.boolean() }),
    fc.record({ terminating: fc.constantFrom("t1", "t2"), fronts: fc.subarray(["A", "b", "c", "*"]) }),
    fc.constant("slice" as const),
    fc.constant("attach" as const),
  );
  const slice = fc.constantFrom(1, 2, 500);
  const slices = fc.record({ sliceInstances: slice, sliceNames: slice, sliceStreams: slice });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), slices, async (steps, sizes) => {
      const clock = new FakeClock();
      const { engine, catalog, configEntries } = await open({ clock, ...sizes });
      await catalog.give([]);
      const problems: string[] = [];
      const attach = (): Importer => {
        const importer = new Importer();
        engine.attach({ id: "1", name: "peer" }, (input) => {
          importer.apply(input);
          if (input.type !== "exported") return;
          for (const { resourceId, resourceUrl, value } of input.resources) {
            if (resourceUrl !== ResourceUrl.exportedService || value.length === 0) continue;
            const name = resourceId.replace(/-sidecar-proxy$/, "");
            const { list, services } = engine.exportsFor("peer");
            if (!services.includes(resourceId) && !list.includes(name)) problems.push(`${resourceId} is not exported`);
            if (!importer.isListed(resourceId)) problems.push(`${resourceId} is not listed`);
          }
        });
        return importer;
      };
      const followers = [attach(), attach()];
      for (const one of steps) {
        if (one === "slice") clock.fire();
        else if (one === "attach") followers.push(attach());
        else await perform(one, catalog, configEntries);
      }
      while (clock.waits.length > 0) clock.fire();
      assert.deepEqual(problems, []);
      const fresh = attach();
      while (clock.waits.length > 0) clock.fire();
      for (const follower of followers) {
        assert.deepEqual(follower.list, fresh.list);
        assert.deepEqual(follower.list, engine.exportsFor("peer").list);
        assert.deepEqual([...follower.services].sort(), [...fresh.services].sort());
      }
      await engine[Symbol.asyncDispose]();
    }),
    {
      numRuns: 400,
      examples: [
        // A service that stays in the list for its chain alone must still lose its instances.
        [
          [
            { register: "a", count: 1, as: "" },
            { export: [["*", "peer"]] },
            { resolver: "a", there: true },
            { register: "a", count: 0, as: "" },
          ],
          { sliceInstances: 1, sliceNames: 1, sliceStreams: 1 },
        ],
        // A gateway that is gone, and one that fronts others than before, take the sidecars back.
        [
          [
            { register: "gw", count: 1, as: "" },
            { register: "a", count: 1, as: "" },
            { register: "b", count: 1, as: "" },
            { export: [["*", "peer"]] },
            { terminating: "t1", fronts: ["A", "b"] },
            { terminating: "t1", fronts: ["b"] },
            { terminating: "t1", fronts: [] },
          ],
          { sliceInstances: 500, sliceNames: 500, sliceStreams: 500 },
        ],
      ],
    },
  );
});
