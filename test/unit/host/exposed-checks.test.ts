import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { systemRandom } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { CheckDefinition, CheckMethod } from "../../../src/checks/definition.js";
import { exposedTarget, throughProxy } from "../../../src/checks/exposed.js";
import { AgentChecks } from "../../../src/host/agent-checks.js";
import type { ExposedPortRange } from "../../../src/host/exposed-checks.js";
import type { ServiceRegistration } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { type TestClock, testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { eventually } from "../../support/hosts.js";
import { LogRecorder } from "../../support/log-recorder.js";
import { storageWith } from "../../support/storage.js";

const http = (url: string): CheckMethod => ({
  ...{ type: "http", url, method: "GET", headers: {}, body: "", followRedirects: true },
  tls: { serverName: "", skipVerify: false },
});
const grpc = (target: string): CheckMethod => ({ type: "grpc", target, tls: undefined });
const tcp: CheckMethod = { type: "tcp", address: "127.0.0.1:80", tls: undefined };

function definition(method: CheckMethod): CheckDefinition {
  return {
    ...{ method, intervalMs: 10_000, timeoutMs: 0, successBeforePassing: 0, failuresBeforeWarning: 0 },
    ...{ failuresBeforeCritical: 0, deregisterCriticalServiceAfterMs: 0, outputMaxBytes: 0 },
  };
}

/** A host of node `n0`. */
class Agent implements AsyncDisposable {
  private constructor(
    readonly catalog: Catalog,
    readonly entries: ConfigEntries,
    readonly checks: AgentChecks,
    readonly clock: TestClock,
    readonly logger: LogRecorder,
    readonly incidents: Incidents,
  ) {}

  static async open(
    options: { readonly range?: ExposedPortRange; readonly storage?: Storage; readonly clock?: TestClock } = {},
  ): Promise<Agent> {
    const { range = { first: 100, last: 109 }, storage = memoryStorage(), clock = testClock() } = options;
    const logger = new LogRecorder();
    const incidents = new Incidents({ clock, logger });
    const catalog = await Catalog.open({ storage, datacenter: "dc1", clock });
    const configEntries = await ConfigEntries.open({ storage, datacenter: "dc1", clock });
    const random = { bytes: systemRandom.bytes, fraction: () => 0.5 };
    const checks = await AgentChecks.open({
      ...{ storage, catalog, configEntries, node: "n0", clock, random, logger, incidents },
      limits: { exposedPorts: range },
    });
    return new Agent(catalog, configEntries, checks, clock, logger, incidents);
  }

  async serve(name: string, checks: Readonly<Record<string, CheckMethod>>): Promise<void> {
    const registrations = Object.keys(checks).map((checkId) => ({ checkId, serviceId: name }));
    const definitions = Object.entries(checks).map(([id, method]) => [id, definition(method)] as const);
    const service = { name, port: 80 };
    await this.checks.register(
      [{ node: "n0", address: "10.0.0.1", service, checks: registrations }],
      new Map(definitions),
    );
  }

  async sidecar(service: string, expose: object | undefined, more: Partial<ServiceRegistration> = {}): Promise<void> {
    const name = `${service}-sidecar-proxy`;
    const proxy = {
      ...{ destinationServiceName: service, destinationServiceId: service },
      ...(expose !== undefined && { extra: { Expose: expose as never } }),
    };
    await this.checks.register(
      [{ node: "n0", address: "10.0.0.1", service: { kind: "connect-proxy", name, port: 9_000, proxy, ...more } }],
      new Map(),
    );
  }

  /** After everything that was written. */
  async ports(): Promise<Readonly<Record<string, number>>> {
    await this.clock.advance(100);
    const all = this.catalog.node("n0")?.checks ?? [];
    return Object.fromEntries(all.map(({ checkId, exposedPort }) => [checkId, exposedPort]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const part of [this.checks, this.entries, this.catalog]) await part[Symbol.asyncDispose]();
  }
}

const EXPOSES = { Checks: true };

describe("the checks of a service whose sidecar exposes checks", () => {
  it("have a port each at once, where a proxy can lead to them", async () => {
    await using agent = await Agent.open();
    await agent.serve("web", { a: http("http://127.0.0.1:8080/health"), b: grpc("127.0.0.1:8081/web"), c: tcp });
    await agent.serve("other", { other: http("http://127.0.0.1:8080/health") });
    await agent.sidecar("web", EXPOSES, { address: "10.0.0.9" });
    assert.equal(agent.catalog.check("n0", "a")?.exposedPort, 100);
    assert.deepEqual(await agent.ports(), { a: 100, b: 101, c: 0, other: 0 });
    assert.deepEqual(agent.checks.exposed("web"), [
      { checkId: "a", target: { path: "/health", protocol: "http", localPort: 8_080 }, port: 100 },
      {
        checkId: "b",
        target: { path: "/grpc.health.v1.Health/Check", protocol: "http2", localPort: 8_081 },
        port: 101,
      },
    ]);
    assert.deepEqual(agent.checks.exposed("other"), []);
  });

  it("have one also where the sidecar comes first, and none of another node", async () => {
    await using agent = await Agent.open();
    await agent.sidecar("web", EXPOSES);
    await agent.serve("web", { a: http("http://127.0.0.1:8080/health") });
    assert.equal(agent.catalog.check("n0", "a")?.exposedPort, 100);
    await agent.serve("api", { b: http("http://127.0.0.1:8080/health") });
    const proxy = { destinationServiceName: "api", destinationServiceId: "api", extra: { Expose: EXPOSES } };
    const service = { kind: "connect-proxy" as const, name: "api-sidecar-proxy", port: 1, proxy };
    await agent.catalog.register({ node: "n1", address: "10.0.0.2", service });
    assert.deepEqual(await agent.ports(), { a: 100, b: 0 });
  });

  it("keep their ports over restarts and registrations, and give them back with the sidecar, its setting or the check", async () => {
    const storage = memoryStorage();
    const checks = { a: http("http://127.0.0.1:8080/a"), b: http("http://127.0.0.1:8080/b") };
    {
      await using agent = await Agent.open({ storage });
      await agent.serve("web", checks);
      await agent.sidecar("web", EXPOSES);
      await agent.catalog.deregister({ node: "n0", checkId: "a" });
      await agent.checks.forget(["a"]);
      assert.deepEqual(await agent.ports(), { b: 101 });
    }
    await using agent = await Agent.open({ storage });
    assert.deepEqual(await agent.ports(), { b: 101 });
    await agent.serve("web", { b: http("http://127.0.0.1:8080/other") });
    assert.deepEqual(await agent.ports(), { b: 101 });
    await agent.serve("web", checks);
    assert.deepEqual(await agent.ports(), { a: 100, b: 101 });
    await agent.serve("web", { a: tcp });
    assert.deepEqual(await agent.ports(), { a: 0, b: 101 });
    await agent.sidecar("web", { Checks: false });
    assert.deepEqual(await agent.ports(), { a: 0, b: 0 });
    await agent.sidecar("web", EXPOSES);
    assert.deepEqual(await agent.ports(), { a: 0, b: 100 });
    await agent.catalog.deregister({ node: "n0", serviceId: "web-sidecar-proxy" });
    assert.deepEqual(await agent.ports(), { a: 0, b: 0 });
  });

  it("lose ports that were given back while no host ran", async () => {
    const storage = memoryStorage();
    {
      await using agent = await Agent.open({ storage });
      await agent.serve("web", { a: http("http://127.0.0.1:8080/a") });
      await agent.sidecar("web", EXPOSES);
    }
    const catalog = await Catalog.open({ storage, datacenter: "dc1" });
    await catalog.deregister({ node: "n0", serviceId: "web-sidecar-proxy" });
    await catalog[Symbol.asyncDispose]();
    await using agent = await Agent.open({ storage });
    assert.deepEqual(await agent.ports(), { a: 0 });
  });

  it("move into a range that was changed, at the next start", async () => {
    const storage = memoryStorage();
    {
      await using agent = await Agent.open({ storage });
      await agent.serve("web", { a: http("http://127.0.0.1:8080/a") });
      await agent.sidecar("web", EXPOSES);
    }
    await using agent = await Agent.open({ storage, range: { first: 300, last: 300 } });
    assert.deepEqual(await agent.ports(), { a: 300 });
  });

  it("follow service-defaults and proxy-defaults", async () => {
    await using agent = await Agent.open();
    await agent.serve("web", { a: http("http://127.0.0.1:8080/health") });
    await agent.sidecar("web", undefined);
    assert.deepEqual(await agent.ports(), { a: 0 });
    const extra = { Expose: EXPOSES };
    for (const entry of [
      { kind: "service-defaults", name: "web", extra } as const,
      { kind: "proxy-defaults", name: "global", extra } as const,
    ]) {
      await agent.entries.set(entry);
      assert.deepEqual(await agent.ports(), { a: 100 }, entry.kind);
      await agent.entries.delete(entry.kind, entry.name);
      assert.deepEqual(await agent.ports(), { a: 0 }, entry.kind);
    }
    await agent.entries.set({ kind: "service-defaults", name: "other", extra: { Expose: EXPOSES } });
    assert.deepEqual(await agent.ports(), { a: 0 });
  });

  it("have none of the ports that paths are exposed at", async () => {
    await using agent = await Agent.open();
    await agent.serve("web", { a: http("http://127.0.0.1:8080/a"), b: http("http://127.0.0.1:8080/b") });
    await agent.sidecar("web", EXPOSES);
    assert.deepEqual(await agent.ports(), { a: 100, b: 101 });
    const Paths = [100, 102].map((ListenerPort) => ({ Path: "/m", ListenerPort, LocalPathPort: 80, Protocol: "http" }));
    await agent.sidecar("other", { Paths });
    assert.deepEqual(await agent.ports(), { a: 103, b: 101 });
  });

  it("go to the service when no port is left, which is counted, and get the next that is given back", async () => {
    await using agent = await Agent.open({ range: { first: 100, last: 101 } });
    for (const name of ["a", "b", "c"]) {
      await agent.serve(name, { [name]: http("http://127.0.0.1:8080/") });
      await agent.sidecar(name, EXPOSES);
    }
    assert.deepEqual(await agent.ports(), { a: 100, b: 101, c: 0 });
    assert.deepEqual(agent.checks.exposed("c"), [{ checkId: "c", problem: "no port is left for it" }]);
    assert.equal(agent.incidents.counts().get("exposed-ports"), 1);
    const logged = agent.logger.lines.find(({ fields }) => fields["incident"] === "exposed-ports");
    assert.deepEqual([logged?.level, logged?.fields["check"], logged?.fields["limit"]], ["warn", "c", 2]);
    await agent.catalog.deregister({ node: "n0", serviceId: "a-sidecar-proxy" });
    assert.deepEqual(await agent.ports(), { a: 0, b: 101, c: 100 });
    await using none = await Agent.open({ range: { first: 0, last: 0 } });
    await none.serve("a", { a: http("http://127.0.0.1:8080/") });
    await none.sidecar("a", EXPOSES);
    assert.deepEqual(await none.ports(), { a: 0 });
  });

  it("have one port for all hosts of the node's name, which do not write against each other", async () => {
    const storage = memoryStorage();
    const clock = testClock();
    await using one = await Agent.open({ storage, clock });
    await using two = await Agent.open({ storage, clock, range: { first: 200, last: 209 } });
    await Promise.all([
      one.serve("web", { a: http("http://127.0.0.1:8080/a") }),
      two.serve("api", { b: http("http://127.0.0.1:8080/b") }),
    ]);
    await Promise.all([one.sidecar("web", EXPOSES), two.sidecar("api", EXPOSES)]);
    const settled = async (): Promise<boolean> => {
      const [mine, theirs] = [await one.ports(), await two.ports()];
      return Object.values(mine).every((port) => port > 0) && JSON.stringify(mine) === JSON.stringify(theirs);
    };
    await eventually(settled, "both have all ports");
    const { revision } = await storage.read(["catalog"]);
    await clock.advance(1_000);
    assert.equal((await storage.read(["catalog"])).revision, revision);
  });

  it("have their ports once a storage that failed takes them", async () => {
    let fails = false;
    const inner = memoryStorage();
    const storage = storageWith(inner, {
      commit: async (writes, ...rest) => {
        const isExposing = writes.some(({ value }) => Buffer.from(value ?? []).includes('"exposedPort":1'));
        if (fails && isExposing) throw new PeeringError("storage-failed", "it is full");
        return inner.commit(writes, ...rest);
      },
    });
    await using agent = await Agent.open({ storage });
    await agent.serve("web", { a: http("http://127.0.0.1:8080/a") });
    fails = true;
    await agent.sidecar("web", EXPOSES);
    assert.deepEqual(await agent.ports(), { a: 0 });
    assert.ok(agent.logger.has("warn", "the ports of exposed checks were not written"));
    fails = false;
    await agent.clock.advance(1_000);
    assert.deepEqual(await agent.ports(), { a: 100 });
  });

  it("are probed at the sidecar, and at the service again when it exposes them no more", async () => {
    const asked: string[] = [];
    const answer = ({ url = "", headers }: IncomingMessage): void => void asked.push(`${headers.host}${url}`);
    const server = createServer((request, response) => {
      answer(request);
      response.setHeader("connection", "close").end("fine");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    try {
      await using agent = await Agent.open({ range: { first: port, last: port } });
      await agent.serve("web", { a: http("http://127.0.0.1:1/health?full") });
      await agent.sidecar("web", EXPOSES, { address: "127.0.0.1" });
      const becomes = (status: string): Promise<void> =>
        eventually(async () => {
          await agent.clock.advance(10_000);
          return agent.catalog.check("n0", "a")?.status === status;
        }, `it is ${status}`);
      await becomes("passing");
      assert.equal(asked[0], `127.0.0.1:${port}/health?full`);
      const output = `HTTP GET http://127.0.0.1:${port}/health?full: 200 OK Output: fine`;
      assert.equal(agent.catalog.check("n0", "a")?.output, output);
      await agent.sidecar("web", undefined);
      await becomes("critical");
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe("the target of a check at a proxy", () => {
  const tls = { serverName: "", skipVerify: true };

  it("is found for plain HTTP and gRPC alone", () => {
    assert.deepEqual(exposedTarget(http("http://[::1]:81")), { path: "/", protocol: "http", localPort: 81 });
    assert.equal(exposedTarget(http("http://web/a%20b?q#f"))?.path, "/a%20b");
    assert.equal(exposedTarget(http("http://web/a"))?.localPort, 80);
    assert.equal(exposedTarget(grpc("[::1]:81/name"))?.localPort, 81);
    const others: readonly CheckMethod[] = [
      ...[http("https://127.0.0.1:81/"), http("nonsense"), grpc("127.0.0.1"), grpc(""), tcp],
      ...[
        { type: "grpc" as const, target: "127.0.0.1:81", tls },
        { type: "ttl" as const, ttlMs: 1 },
      ],
    ];
    for (const method of others) assert.equal(exposedTarget(method), undefined, JSON.stringify(method));
  });

  it("differs from that of the service by host and port alone", () => {
    const through = (method: CheckMethod, host: string): unknown => {
      if (method.type === "ttl" || method.type === "alias") throw new TypeError("it opens no connection");
      const at = throughProxy(method, host, 21_500);
      return at.type === "http" ? at.url : at.type === "grpc" ? at.target : at;
    };
    assert.equal(through(http("http://u:p@web:81/a?b"), "10.0.0.1"), "http://u:p@10.0.0.1:21500/a?b");
    assert.equal(through(http("http://web/"), "fd00::1"), "http://[fd00::1]:21500/");
    assert.equal(through(grpc("web:81/name/x"), "fd00::1"), "[fd00::1]:21500/name/x");
    assert.equal(through(grpc("web:81"), "web.example"), "web.example:21500");
    assert.equal(through(tcp, "10.0.0.1"), tcp);
  });
});
