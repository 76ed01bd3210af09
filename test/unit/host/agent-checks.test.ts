import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { describe, it } from "node:test";
import { systemRandom } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { CheckDefinition, CheckMethod } from "../../../src/checks/definition.js";
import { AgentChecks, type CheckLimits } from "../../../src/host/agent-checks.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { type TestClock, testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { eventually } from "../../support/hosts.js";
import { LogRecorder } from "../../support/log-recorder.js";
import { storageWith } from "../../support/storage.js";

function definition(method: CheckMethod, fields: Partial<CheckDefinition> = {}): CheckDefinition {
  return {
    method,
    intervalMs: 10_000,
    timeoutMs: 0,
    successBeforePassing: 0,
    failuresBeforeWarning: 0,
    failuresBeforeCritical: 0,
    deregisterCriticalServiceAfterMs: 0,
    outputMaxBytes: 0,
    ...fields,
  };
}

const ttl = (ttlMs = 10_000, fields: Partial<CheckDefinition> = {}): CheckDefinition =>
  definition({ type: "ttl", ttlMs }, fields);

class Agent implements AsyncDisposable {
  readonly clock: TestClock = testClock();
  readonly logger: LogRecorder = new LogRecorder();
  readonly incidents: Incidents = new Incidents({ clock: this.clock, logger: this.logger });
  readonly storage: Storage;
  readonly #limits: CheckLimits;
  #catalog: Catalog | undefined;
  #checks: AgentChecks | undefined;

  private constructor(storage: Storage, limits: CheckLimits) {
    this.storage = storage;
    this.#limits = limits;
  }

  static async start(limits: CheckLimits = {}, storage: Storage = memoryStorage()): Promise<Agent> {
    const agent = new Agent(storage, limits);
    await agent.open();
    return agent;
  }

  async open(): Promise<void> {
    const { storage, clock, logger, incidents } = this;
    this.#catalog = await Catalog.open({ storage, datacenter: "dc1", clock });
    this.#checks = await AgentChecks.open({
      storage,
      catalog: this.#catalog,
      node: "n0",
      clock,
      random: { bytes: systemRandom.bytes, fraction: () => 0.5 },
      logger,
      incidents,
      limits: this.#limits,
    });
  }

  get catalog(): Catalog {
    assert.ok(this.#catalog !== undefined);
    return this.#catalog;
  }

  get checks(): AgentChecks {
    assert.ok(this.#checks !== undefined);
    return this.#checks;
  }

  /** A service with one check of the id `<service>-check`. */
  async serve(service: string, check: CheckDefinition, status = ""): Promise<void> {
    const checkId = `${service}-check`;
    await this.checks.register(
      [
        {
          node: "n0",
          address: "10.0.0.1",
          service: { name: service, port: 80 },
          checks: [{ checkId, serviceId: service, status }],
        },
      ],
      new Map([[checkId, check]]),
    );
  }

  status(service: string): readonly [string, string] | undefined {
    const check = this.catalog.check("n0", `${service}-check`);
    return check && [check.status, check.output];
  }

  async close(): Promise<void> {
    await this.checks[Symbol.asyncDispose]();
    await this.catalog[Symbol.asyncDispose]();
  }

  async restart(awayMs = 0): Promise<void> {
    await this.close();
    await this.clock.advance(awayMs);
    await this.open();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    await this.storage[Symbol.asyncDispose]();
  }
}

describe("a TTL check", () => {
  it("is critical until it is reported, stays as reported for its time, and is critical again afterwards", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl());
    assert.deepEqual(agent.status("web"), ["critical", ""]);
    await agent.checks.report("web-check", "passing", "fine");
    assert.deepEqual(agent.status("web"), ["passing", "fine"]);
    await agent.clock.advance(9_999);
    await agent.checks.report("WEB-CHECK", "passing", "fine");
    await agent.clock.advance(9_999);
    assert.deepEqual(agent.status("web"), ["passing", "fine"]);
    await agent.clock.advance(1);
    assert.deepEqual(agent.status("web"), ["critical", "TTL expired (last output before timeout follows): fine"]);
    await agent.checks.report("web-check", "warning", "");
    assert.deepEqual(agent.status("web"), ["warning", ""]);
  });

  it("writes a changed output later and together, and a changed status at once", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl(3_600_000), "passing");
    let commits = 0;
    agent.catalog.onChange(() => commits++);
    for (let round = 0; round < 100; round++) await agent.checks.report("web-check", "passing", `round ${round}`);
    assert.equal(commits, 0);
    assert.deepEqual(agent.checks.result("web-check"), { status: "passing", output: "round 99" });
    await agent.clock.advance(300_000);
    assert.deepEqual(agent.status("web"), ["passing", "round 99"]);
    assert.equal(commits, 1);
  });

  it("cuts an output that is too long, and says so", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl(10_000, { outputMaxBytes: 4 }));
    await agent.checks.report("web-check", "passing", "123456");
    assert.deepEqual(agent.status("web"), ["passing", "1234 ... (captured 4 of 6 bytes)"]);
  });

  it("is the same after a restart in time, and critical after a longer one", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl(60_000));
    await agent.checks.report("web-check", "passing", "fine");
    await agent.restart(50_000);
    assert.deepEqual(agent.status("web"), ["passing", "fine"]);
    // Its time begins again.
    await agent.clock.advance(59_999);
    assert.deepEqual(agent.status("web"), ["passing", "fine"]);
    await agent.checks.report("web-check", "passing", "fine");
    await agent.restart(60_001);
    await eventually(() => agent.status("web")?.[0] === "critical", "the check is critical");
  });

  it("cannot be reported where another kind of check, or none, has the id", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", definition({ type: "tcp", address: "127.0.0.1:1", tls: undefined }));
    for (const id of ["web-check", "none"]) {
      await assert.rejects(agent.checks.report(id, "passing", ""), {
        code: "not-found",
        message: `CheckID "${id}" does not have associated TTL`,
      });
    }
  });
});

describe("a probe", () => {
  it("runs within its interval, then once an interval after each end, and goes on after a restart", async () => {
    let asked = 0;
    let status = 200;
    const server = createServer((_, response) => {
      asked++;
      response.writeHead(status).end("x");
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const bound = server.address();
    assert.ok(typeof bound === "object" && bound !== null);
    await using agent = await Agent.start();
    const url = `http://127.0.0.1:${bound.port}/`;
    const tls = { serverName: "", skipVerify: false };
    await agent.serve(
      "web",
      definition({ type: "http", url, method: "GET", headers: {}, body: "", followRedirects: true, tls }),
    );
    await agent.clock.advance(4_999);
    assert.equal(asked, 0);
    await agent.clock.advance(1);
    await eventually(() => agent.status("web")?.[0] === "passing", "the check passes");
    status = 500;
    await agent.clock.advance(9_999);
    assert.equal(asked, 1);
    await agent.clock.advance(1);
    await eventually(() => agent.status("web")?.[0] === "critical", "the check is critical");
    await agent.restart();
    assert.equal(agent.status("web")?.[0], "critical");
    status = 200;
    await agent.clock.advance(5_000);
    await eventually(() => agent.status("web")?.[0] === "passing", "the check passes again");
    assert.equal(asked, 3);
    server.close();
  });

  it("ends with its check, however that was removed", async () => {
    await using agent = await Agent.start();
    for (const service of ["a", "b"]) {
      await agent.serve(service, definition({ type: "tcp", address: "127.0.0.1:1", tls: undefined }));
    }
    await agent.catalog.deregister({ node: "n0", serviceId: "a" });
    await agent.catalog.deregister({ node: "n0", checkId: "b-check" });
    await agent.checks.forget(["b-check"]);
    assert.equal(agent.checks.definition("b-check"), undefined);
    await agent.clock.advance(5_000);
    await eventually(() => agent.checks.definition("a-check") === undefined, "the check is forgotten");
    await eventually(
      async () => (await agent.storage.read(["check-definitions"])).entries.length === 0,
      "nothing of it is stored",
    );
    assert.equal(agent.status("a"), undefined);
  });

  it("waits for its turn when too many are under way, which is counted", async () => {
    let open = 0;
    let most = 0;
    const waiting: (() => void)[] = [];
    const server = createServer((_, response) => {
      most = Math.max(most, ++open);
      waiting.push(() => {
        open--;
        response.end();
      });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const bound = server.address();
    assert.ok(typeof bound === "object" && bound !== null);
    await using agent = await Agent.start({ concurrentProbes: 2 });
    const url = `http://127.0.0.1:${bound.port}/`;
    const tls = { serverName: "", skipVerify: false };
    const http: CheckMethod = { type: "http", url, method: "GET", headers: {}, body: "", followRedirects: true, tls };
    const services = ["a", "b", "c", "d", "e"];
    for (const service of services) await agent.serve(service, definition(http));
    await agent.clock.advance(5_000);
    for (let answered = 0; answered < services.length; ) {
      await eventually(() => waiting.length > 0, "a probe is under way");
      waiting.shift()?.();
      answered++;
    }
    await eventually(() => services.every((each) => agent.status(each)?.[0] === "passing"), "all pass");
    assert.equal(most, 2);
    assert.ok((agent.incidents.counts().get("check-probes") ?? 0) >= 3);
    server.close();
  });

  it("goes nowhere that is not allowed", async () => {
    await using agent = await Agent.start({ allowedAddresses: ["10.0.0.0/8", "fd00::/8"] });
    await agent.serve("web", definition({ type: "tcp", address: "127.0.0.1:1", tls: undefined }), "passing");
    await agent.clock.advance(5_000);
    await eventually(() => agent.status("web")?.[0] === "critical", "the check is critical");
    assert.match(agent.status("web")?.[1] ?? "", /127\.0\.0\.1 is not one that checks may connect to/);
    await assert.rejects(Agent.start({ allowedAddresses: ["10.0.0.0/33"] }), TypeError);
  });
});

describe("an alias", () => {
  it("follows the checks of the service and of its node, by their worst", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl(3_600_000), "passing");
    await agent.serve("alias", definition({ type: "alias", node: "", service: "web" }, { intervalMs: 0 }));
    const becomes = async (status: string, output: string): Promise<void> => {
      await agent.clock.advance(50);
      await eventually(() => agent.status("alias")?.[0] === status, `the alias is ${status}`);
      assert.equal(agent.checks.result("alias-check")?.output, output);
    };
    await becomes("passing", "All checks passing.");
    await agent.checks.report("web-check", "warning", "hot");
    await becomes("warning", 'Aliased check "" failing: hot');
    await agent.catalog.register({ node: "n0", skipNodeUpdate: true, checks: [{ checkId: "disk", name: "disk" }] });
    await becomes("critical", 'Aliased check "disk" failing: ');
    await agent.catalog.deregister({ node: "n0", checkId: "disk" });
    await becomes("warning", 'Aliased check "" failing: hot');
    await agent.catalog.deregister({ node: "n0", serviceId: "web" });
    await becomes("critical", "Service web could not be found on node n0");
  });
});

describe("an alias of a service without checks", () => {
  for (const [node, output] of [
    // As in Consul, whose agent does not know that its membership is a check of the catalog.
    ["", "No checks found."],
    ["n0", "All checks passing."],
  ] as const) {
    it(`with ${node === "" ? "no node" : "its node"} named finds: ${output}`, async () => {
      await using agent = await Agent.start();
      await agent.catalog.register({
        node: "n0",
        address: "10.0.0.1",
        service: { id: "web", name: "web" },
        checks: [{ checkId: "serfHealth", name: "Serf Health Status", status: "passing" }],
      });
      await agent.serve("alias", definition({ type: "alias", node, service: "web" }, { intervalMs: 0 }));
      await agent.clock.advance(50);
      await eventually(() => agent.checks.result("alias-check")?.output === output, "the alias has looked");
      assert.equal(agent.status("alias")?.[0], "passing");
    });
  }
});

describe("a service with a critical check", () => {
  it("is removed with its checks when it stays critical for longer than it may, and not when it recovers", async () => {
    await using agent = await Agent.start();
    await agent.serve("gone", ttl(3_600_000, { deregisterCriticalServiceAfterMs: 120_000 }));
    await agent.serve("back", ttl(3_600_000, { deregisterCriticalServiceAfterMs: 120_000 }));
    await agent.serve("soon", ttl(3_600_000, { deregisterCriticalServiceAfterMs: 1 }));
    await agent.clock.advance(59_999);
    assert.notEqual(agent.status("soon"), undefined);
    await agent.clock.advance(1);
    await eventually(() => agent.status("soon") === undefined, "a minute is the least");
    await agent.checks.report("back-check", "passing", "");
    await agent.clock.advance(60_000);
    await eventually(() => agent.status("gone") === undefined, "the service is removed");
    assert.notEqual(agent.status("back"), undefined);
    assert.ok(agent.logger.has("warn", "a service was removed: one of its checks was critical for too long"));
    await eventually(
      async () => (await agent.storage.read(["check-definitions"])).entries.length === 1,
      "its definition is removed, too",
    );
  });
});

describe("the stored state of checks", () => {
  it("is as before when the catalog refuses a registration", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl(1_000));
    await assert.rejects(
      agent.checks.register(
        [{ node: "", checks: [] }],
        new Map([
          ["web-check", ttl(2_000)],
          ["new", ttl()],
        ]),
      ),
      {
        code: "invalid-registration",
      },
    );
    assert.deepEqual(agent.checks.definition("web-check"), ttl(1_000));
    await agent.restart();
    assert.deepEqual(agent.checks.definition("web-check"), ttl(1_000));
    assert.equal(agent.checks.definition("new"), undefined);
  });

  it("does not keep a damaged definition, or one without a check, from being passed over at the start", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl());
    for (const [id, text] of [
      ["x", "{"],
      ["y", "[]"],
      ["z", JSON.stringify({ id: "z", definition: ttl() })],
    ] as const) {
      await agent.storage.commit([{ key: ["check-definitions", "n0", id], value: Buffer.from(text) }]);
    }
    await agent.restart();
    assert.deepEqual(agent.checks.definition("web-check"), ttl());
    assert.equal(agent.incidents.counts().get("check-damaged"), 2);
    assert.equal((await agent.storage.read(["check-definitions"])).entries.length, 1);
  });

  it("writes a status again that the storage refused", async () => {
    const inner = memoryStorage();
    let full = false;
    const storage = storageWith(inner, {
      commit: (...given) => (full ? Promise.reject(new Error("no space left on device")) : inner.commit(...given)),
    });
    await using agent = await Agent.start({}, storage);
    await agent.serve("web", ttl(), "passing");
    full = true;
    await assert.rejects(agent.checks.report("web-check", "critical", "down"));
    assert.equal(agent.status("web")?.[0], "passing");
    full = false;
    await agent.clock.advance(1_000);
    await eventually(() => agent.status("web")?.[0] === "critical", "the status is written");
  });

  it("is bounded: more checks than the node may have are refused and counted", async () => {
    await using agent = await Agent.start({ checks: 1 });
    await agent.serve("web", ttl());
    await agent.serve("web", ttl(2_000));
    await assert.rejects(agent.serve("db", ttl()), { code: "resource-exhausted" });
    assert.equal(agent.status("db"), undefined);
    assert.equal(agent.incidents.counts().get("checks-per-node"), 1);
  });

  it("is bounded also while several are registered at the same time", async () => {
    await using agent = await Agent.start({ checks: 2 });
    const results = await Promise.allSettled(["a", "b", "c"].map((name) => agent.serve(name, ttl())));
    assert.deepEqual(
      results.map(({ status }) => status),
      ["fulfilled", "fulfilled", "rejected"],
    );
    // What is refused has no share of the limit.
    await agent.checks.forget(["a-check"]);
    await agent.serve("d", ttl());
  });

  it("waits for those before it of the same check, and for no others", async () => {
    const inner = memoryStorage();
    let commits = 0;
    const held: (() => void)[] = [];
    const storage = storageWith(inner, {
      async commit(...given) {
        commits++;
        if (commits === 1) await new Promise<void>((go) => held.push(go));
        return inner.commit(...given);
      },
    });
    await using agent = await Agent.start({}, storage);
    const first = agent.serve("web", ttl(1_000));
    const again = agent.serve("web", ttl(2_000));
    await agent.serve("db", ttl());
    assert.equal(agent.checks.definition("web-check"), undefined);
    held.pop()?.();
    await Promise.all([first, again]);
    assert.deepEqual(agent.checks.definition("web-check")?.method, { type: "ttl", ttlMs: 2_000 });
  });
});
