import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Registration } from "../../../src/model/registration.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { eventually, HttpPair, type RawAnswer, type ServedHost } from "../../support/http-pair.js";

const gateway = (kind: "terminating-gateway" | "ingress-gateway", name: string): Registration => ({
  node: `node-${name}`,
  address: "10.0.0.3",
  service: { id: name, name, kind, port: 8_443 },
});
const db: Registration = { node: "n1", address: "10.0.0.1", service: { name: "db", port: 80 } };

/** Asks, and waits until there is a newer answer than that of before; fails when nothing wakes it. */
class Waiter {
  readonly #served: ServedHost;
  readonly #path: string;
  #index = "1";

  constructor(served: ServedHost, path: string) {
    this.#served = served;
    this.#path = path;
  }

  async now(): Promise<string> {
    return this.#take(await this.#served.ask("GET", this.#path));
  }

  /** The last answer after `change`; each answer must be newer than the one before. */
  async after(change: () => Promise<unknown>, seen: RegExp): Promise<void> {
    const signal = AbortSignal.timeout(20_000);
    const wait = (): Promise<RawAnswer> =>
      this.#served.ask("GET", `${this.#path}?index=${this.#index}&wait=10m`, { signal });
    const waiting = wait();
    await change();
    let answer = await waiting;
    for (;;) {
      assert.ok(BigInt(answer.headers["x-consul-index"] ?? "") > BigInt(this.#index));
      if (seen.test(this.#take(answer))) return;
      answer = await wait();
    }
  }

  #take(answer: RawAnswer): string {
    assert.equal(answer.status, 200, answer.text);
    this.#index = answer.headers["x-consul-index"] ?? "";
    return answer.text;
  }
}

describe("who waits for what gateways front", { timeout: 60_000 }, () => {
  it("is woken by each change of entries, gateways and services, and told all of it", async () => {
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    const { catalog, configEntries } = a.host;
    const waiter = new Waiter(a, "/v1/health/connect/db");
    assert.equal(await waiter.now(), "[]");
    const link = { kind: "terminating-gateway", name: "tgw" } as const;
    await configEntries.set({ ...link, services: [{ name: "db" }] });
    await waiter.now();
    await waiter.after(() => catalog.register(gateway("terminating-gateway", "tgw")), /"Service":"tgw"/);
    await waiter.after(() => configEntries.set({ ...link, services: [{ name: "other" }] }), /^\[\]$/);
    await waiter.after(() => configEntries.set({ ...link, services: [{ name: "db" }] }), /"consul-virtual:db"/);
    await waiter.after(() => configEntries.delete("terminating-gateway", "tgw"), /^\[\]$/);
    // Of all services it becomes one with its first instance.
    await configEntries.set({ ...link, services: [{ name: "*" }] });
    await waiter.now();
    await waiter.after(() => catalog.register(db), /"Service":"tgw"/);
    await waiter.after(() => catalog.deregister({ node: "n1", serviceId: "db" }), /^\[\]$/);
    await catalog.register(db);
    await waiter.now();
    await waiter.after(() => catalog.deregister({ node: "node-tgw" }), /^\[\]$/);
  });

  it("gets the virtual addresses of the services behind a terminating gateway, as they come and go", async () => {
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    const { catalog, configEntries } = a.host;
    await catalog.register(gateway("terminating-gateway", "tgw"));
    for (const path of ["/v1/health/service/tgw", "/v1/catalog/service/tgw"]) {
      const waiter = new Waiter(a, path);
      assert.doesNotMatch(await waiter.now(), /consul-virtual/);
      const link = { kind: "terminating-gateway", name: "tgw", services: [{ name: "db" }] } as const;
      await waiter.after(() => configEntries.set(link), /"consul-virtual:db":\{"Address":"240\.0\.0\.1","Port":0\}/);
      await waiter.after(() => configEntries.delete("terminating-gateway", "tgw"), /^(?!.*consul-virtual)/);
      await eventually(() => catalog.virtualIp("db") === undefined, AbortSignal.timeout(10_000));
    }
  });

  it("finds an ingress gateway by its entry and the services of the mesh", async () => {
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    const { catalog, configEntries } = a.host;
    const waiter = new Waiter(a, "/v1/health/ingress/db");
    assert.equal(await waiter.now(), "[]");
    const entry = (service: string, Protocol = "tcp") => ({
      kind: "ingress-gateway" as const,
      name: "igw",
      extra: { Listeners: [{ Port: 1, Protocol, Services: [{ Name: service }] }] },
    });
    await catalog.register(gateway("ingress-gateway", "igw"));
    await waiter.now();
    await waiter.after(() => configEntries.set(entry("db")), /"Service":"igw"/);
    await waiter.after(() => configEntries.set(entry("other")), /^\[\]$/);
    await configEntries.set(entry("*", "http"));
    await catalog.register(db);
    assert.equal(await waiter.now(), "[]");
    const proxy = {
      name: "db-proxy",
      kind: "connect-proxy",
      port: 1,
      proxy: { destinationServiceName: "db" },
    } as const;
    await waiter.after(() => catalog.register({ ...db, service: proxy }), /"Service":"igw"/);
    await waiter.after(() => catalog.deregister({ node: "node-igw" }), /^\[\]$/);
  });

  it("needs the right to read the service, and the gateway to be shown it", async () => {
    const both =
      'service "db" { policy = "read" }\nservice "tgw" { policy = "read" }\nnode_prefix "" { policy = "read" }';
    const one = 'service "db" { policy = "read" }\nnode_prefix "" { policy = "read" }';
    const none = 'service "tgw" { policy = "read" }\nnode_prefix "" { policy = "read" }';
    await using pair = await HttpPair.start(1, { authorizer: tokensFor([both, one, none]) });
    const { a } = pair;
    await a.host.catalog.register(gateway("terminating-gateway", "tgw"));
    await a.host.configEntries.set({ kind: "terminating-gateway", name: "tgw", services: [{ name: "db" }] });
    const shown = async (rules: string, path: string): Promise<readonly [number, number]> => {
      const { status, text } = await a.ask("GET", path, { headers: { "X-Consul-Token": secretFor(rules) } });
      return [status, status === 200 ? JSON.parse(text).length : 0];
    };
    for (const path of ["/v1/health/connect/db", "/v1/catalog/connect/db"]) {
      assert.deepEqual(await shown(both, path), [200, 1]);
      assert.deepEqual(await shown(one, path), [200, 0]);
    }
    assert.deepEqual(await shown(none, "/v1/health/connect/db"), [403, 0]);
    assert.deepEqual(await shown(none, "/v1/catalog/connect/db"), [200, 0]);
  });
});

describe("a place outside of the mesh, which service-defaults name", () => {
  it("comes and goes behind a gateway for all services, for those who wait for it, too", async () => {
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    const { catalog, configEntries } = a.host;
    await configEntries.set({ kind: "terminating-gateway", name: "all", services: [{ name: "*" }] });
    await catalog.register(gateway("terminating-gateway", "all"));
    const speaking = new Waiter(a, "/v1/health/connect/ext");
    const links = new Waiter(a, "/v1/catalog/gateway-services/all");
    assert.equal(await speaking.now(), "[]");
    assert.equal(await links.now(), "[]");
    const place = { kind: "service-defaults", name: "ext" } as const;
    const outside = { ...place, extra: { Destination: { Addresses: ["a.example"], Port: 443 } } };
    await speaking.after(() => configEntries.set(outside), /"Service":"all"/);
    await links.after(() => configEntries.set(outside), /"ServiceKind":"destination"/);
    await speaking.after(() => configEntries.set({ ...place, protocol: "tcp" }), /^\[\]$/);
    await links.after(() => configEntries.delete("service-defaults", "ext"), /^\[\]$/);
  });
});
