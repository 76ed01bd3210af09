import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { systemRandom } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { CheckDefinition, CheckMethod } from "../../../src/checks/definition.js";
import { AgentChecks, type CheckLimits } from "../../../src/host/agent-checks.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Entry, Snapshot, Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { type TestClock, testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { eventually } from "../../support/hosts.js";
import { LogRecorder } from "../../support/log-recorder.js";
import { storageWith, storageWithDamage } from "../../support/storage.js";

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
  readonly clock: TestClock;
  readonly logger: LogRecorder = new LogRecorder();
  readonly incidents: Incidents;
  readonly storage: Storage;
  readonly #limits: CheckLimits;
  #catalog: Catalog | undefined;
  #configEntries: ConfigEntries | undefined;
  #checks: AgentChecks | undefined;

  private constructor(storage: Storage, limits: CheckLimits, clock: TestClock) {
    this.storage = storage;
    this.#limits = limits;
    this.clock = clock;
    this.incidents = new Incidents({ clock, logger: this.logger });
  }

  static async start(
    limits: CheckLimits = {},
    storage: Storage = memoryStorage(),
    clock: TestClock = testClock(),
  ): Promise<Agent> {
    const agent = new Agent(storage, limits, clock);
    await agent.open();
    return agent;
  }

  async open(): Promise<void> {
    const { storage, clock, logger, incidents } = this;
    this.#catalog = await Catalog.open({ storage, datacenter: "dc1", clock });
    this.#configEntries = await ConfigEntries.open({ storage, datacenter: "dc1", clock });
    this.#checks = await AgentChecks.open({
      storage,
      catalog: this.#catalog,
      configEntries: this.#configEntries,
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

  /** The stored rows of its checks, without the heads. */
  async stored(): Promise<readonly string[]> {
    const all = [await this.storage.read(["check-definitions"]), await this.storage.read(["check-reports"])];
    return all.flatMap(({ entries }) => entries.map(({ key }) => key.join("/"))).filter((key) => !key.endsWith("/"));
  }

  status(service: string): readonly [string, string] | undefined {
    const check = this.catalog.check("n0", `${service}-check`);
    return check && [check.status, check.output];
  }

  async close(): Promise<void> {
    await this.checks[Symbol.asyncDispose]();
    await this.#configEntries?.[Symbol.asyncDispose]();
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
    assert.deepEqual(await agent.stored(), ["check-definitions/n0/a-check"]);
    await agent.clock.advance(60_000);
    await eventually(async () => (await agent.stored()).length === 0, "nothing of it is stored");
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
      async () => (await agent.stored()).join() === "check-definitions/n0/back-check,check-reports/n0/back-check",
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

  it("keeps a definition that it cannot read, names it, and runs the others", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl());
    await agent.checks.report("web-check", "passing", "");
    const later = { id: "later", definition: { ...ttl(), method: { type: "quantum", password: "s3cret" } } };
    const texts = { x: "{s3cret", y: "[]", later: JSON.stringify(later) };
    for (const [id, text] of Object.entries(texts)) {
      await agent.storage.commit([{ key: ["check-definitions", "n0", id], value: Buffer.from(text) }]);
    }
    for (let life = 1; life <= 2; life++) {
      await agent.restart();
      assert.deepEqual(agent.checks.definition("web-check"), ttl());
      assert.equal(agent.checks.definition("later"), undefined);
      assert.equal(agent.incidents.counts().get("check-damaged"), 3 * life);
    }
    const named = agent.logger.lines.filter(({ fields }) => fields["incident"] === "check-damaged");
    assert.ok(named.some(({ fields }) => String(fields["entry"]).startsWith("check-definitions/n0/")));
    assert.doesNotMatch(JSON.stringify(agent.logger.lines), /s3cret/);
    await agent.clock.advance(61_000);
    for (const [id, text] of Object.entries(texts)) {
      const { entries } = await agent.storage.read(["check-definitions", "n0", id]);
      assert.equal(Buffer.from(entries[0]?.value ?? []).toString(), text);
    }
  });

  const isBroken = ({ value }: Entry): boolean => Buffer.from(value).toString() === "[]";
  for (const [what, isSound] of [
    ["form", true],
    ["checksum", false],
  ] as const) {
    it(`loses one whose ${what} is damaged only to a registration that is taken, or to the removal of the check`, async () => {
      const storage = memoryStorage();
      await using agent = await Agent.start({}, isSound ? storage : storageWithDamage(storage, isBroken));
      const key = ["check-definitions", "n0", "web-check"];
      const text = async (): Promise<string> =>
        Buffer.from((await agent.storage.read(key)).entries[0]?.value ?? []).toString();
      const damage = async (): Promise<void> => {
        await agent.storage.commit([{ key, value: Buffer.from("[]") }]);
        await agent.restart();
      };
      await agent.serve("web", ttl());
      await damage();
      assert.equal(agent.checks.definition("web-check"), undefined);
      for (const refused of [
        new Map([["web-check", ttl()]]),
        new Map([
          ["Web-Check", ttl()],
          ["new", ttl()],
        ]),
      ]) {
        await assert.rejects(agent.checks.register([{ node: "", checks: [] }], refused), {
          code: "invalid-registration",
        });
        assert.equal(await text(), "[]");
      }
      await agent.restart();
      assert.equal(await text(), "[]");
      await agent.serve("web", ttl(2_000));
      assert.match(await text(), /"ttlMs":2000\}/);
      await agent.restart();
      assert.deepEqual(agent.checks.definition("web-check"), ttl(2_000));
      await damage();
      await agent.checks.forget(["web-check"]);
      assert.deepEqual(await agent.stored(), []);
    });
  }

  it("drops a report that it cannot read: the check is as one that was not reported", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl(60_000));
    await agent.checks.report("web-check", "passing", "");
    await agent.close();
    await agent.storage.commit([{ key: ["check-reports", "n0", "web-check"], value: Buffer.from("soon") }]);
    await agent.open();
    await eventually(() => agent.status("web")?.[0] === "critical", "the check is critical");
    assert.equal(agent.incidents.counts().get("check-report-damaged"), 1);
    assert.deepEqual(await agent.stored(), ["check-definitions/n0/web-check"]);
  });

  it("runs checks of any id, also that of the head of other tables, and none without an id", async () => {
    await using agent = await Agent.start();
    const checks = ["head", "Head/x"].map((checkId) => ({ checkId, serviceId: "", status: "passing" }));
    const definitions = new Map(checks.map(({ checkId }) => [checkId, ttl()]));
    const node = { node: "n0", address: "10.0.0.1" };
    await agent.checks.register([{ ...node, checks }], definitions);
    await agent.restart();
    for (const { checkId } of checks) assert.deepEqual(agent.checks.definition(checkId), ttl());
    await assert.rejects(agent.checks.register([{ ...node, checks: [] }], new Map([["", ttl()]])), {
      code: "invalid-registration",
    });
  });

  it("forgets a definition without a check after a minute, and runs one whose check comes before", async () => {
    await using agent = await Agent.start();
    await agent.serve("web", ttl());
    for (const id of ["y", "z"]) {
      const value = Buffer.from(JSON.stringify({ id, definition: ttl() }));
      await agent.storage.commit([{ key: ["check-definitions", "n0", id], value }]);
    }
    await agent.restart();
    assert.equal(agent.checks.definition("y"), undefined);
    await agent.catalog.register({ node: "n0", skipNodeUpdate: true, checks: [{ checkId: "y", status: "passing" }] });
    await agent.clock.advance(50);
    assert.deepEqual(agent.checks.definition("y"), ttl());
    await agent.clock.advance(60_000);
    await eventually(async () => (await agent.stored()).length === 2, "the other one is forgotten");
    assert.deepEqual(await agent.stored(), ["check-definitions/n0/web-check", "check-definitions/n0/y"]);
  });

  it("is right after a crash between any two commits of a registration", async () => {
    const inner = memoryStorage({ limits: { bytes: 800 } });
    const moments: Snapshot[] = [];
    const storage = storageWith(inner, {
      async commit(...given) {
        moments.push(await inner.read([]));
        return inner.commit(...given);
      },
    });
    await using agent = await Agent.start({}, storage);
    const ids = Array.from({ length: 8 }, (_, index) => `c${index}`);
    const definitions = new Map(ids.map((id) => [id, ttl()]));
    const checks = ids.map((checkId) => ({ checkId, serviceId: "", status: "passing" }));
    await agent.checks.register(
      checks.map((check) => ({ node: "n0", address: "10.0.0.1", checks: [check] })),
      definitions,
    );
    moments.push(await inner.read([]));
    assert.ok(moments.length >= 4, `${moments.length} moments`);
    for (const from of moments) {
      await using again = await Agent.start({}, memoryStorage({ from }));
      await again.clock.advance(60_000);
      const known = ids.filter((id) => again.catalog.check("n0", id) !== undefined);
      for (const id of known) assert.ok(again.checks.definition(id) !== undefined, "each check is run by somebody");
      await eventually(async () => (await again.stored()).length === known.length, "nothing else is kept");
    }
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

  /** Registers so many TTL checks of one service. @returns once the first of them runs, and the last does not yet. */
  async function startMany(agent: Agent, count: number): Promise<{ readonly registered: Promise<void> }> {
    const ids = Array.from({ length: count }, (_, index) => `c${index}`);
    const registration = {
      node: "n0",
      address: "10.0.0.1",
      service: { name: "web" },
      checks: ids.map((checkId) => ({ checkId, serviceId: "web", status: "passing" })),
    };
    const registered = agent.checks.register([registration], new Map(ids.map((id) => [id, ttl()])));
    const runs = (id: string): boolean => agent.checks.definition(id) !== undefined;
    while (!runs("c0")) await setImmediate();
    assert.equal(runs(`c${count - 1}`), false, "others have a turn before the last one runs");
    return { registered };
  }

  it("runs many of one registration, some in each turn", async () => {
    await using agent = await Agent.start();
    const { registered } = await startMany(agent, 3_000);
    await registered;
    assert.notEqual(agent.checks.definition("c2999"), undefined);
    assert.equal((await agent.stored()).length, 3_000);
  });

  it("runs no more of many once it is closed, and all of them after a restart", async () => {
    const agent = await Agent.start();
    const { registered } = await startMany(agent, 3_000);
    const { checks } = agent;
    await agent.restart();
    await registered;
    assert.deepEqual([checks.definition("c0"), checks.definition("c2999")], [undefined, undefined]);
    assert.notEqual(agent.checks.definition("c2999"), undefined);
    await agent.close();
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
    // A refused check has no share of the limit.
    await agent.checks.forget(["a-check"]);
    await agent.serve("d", ttl());
  });

  for (const isMade of [true, false]) {
    it(`is whole where the catalog does not answer and has ${isMade ? "" : "not "}taken a new check`, async () => {
      const inner = memoryStorage();
      let lose = false;
      const storage = storageWith(inner, {
        async commit(...given) {
          if (!lose || given[0].every(({ key }) => key[0] !== "catalog")) return inner.commit(...given);
          lose = false;
          if (isMade) await inner.commit(...given);
          throw new PeeringError("unavailable", "no answer");
        },
      });
      await using agent = await Agent.start({}, storage);
      await agent.serve("db", ttl());
      lose = true;
      await assert.rejects(agent.serve("web", ttl()), { code: "unavailable" });
      await agent.clock.advance(50);
      await eventually(() => (agent.status("web") !== undefined) === isMade, "what the catalog has is known");
      await agent.clock.advance(61_000);
      const kept = isMade
        ? ["check-definitions/n0/db-check", "check-definitions/n0/web-check"]
        : ["check-definitions/n0/db-check"];
      await eventually(async () => (await agent.stored()).join() === kept.join(), "what is stored fits the catalog");
      assert.equal(agent.checks.definition("web-check") !== undefined, isMade);
    });
  }

  it("tries again, later and later, and tells each report whether it was written", async () => {
    const inner = memoryStorage();
    let full = false;
    let refused = 0;
    const storage = storageWith(inner, {
      commit: (...given) => {
        if (!full) return inner.commit(...given);
        refused++;
        return Promise.reject(new Error("no space left on device"));
      },
    });
    await using agent = await Agent.start({}, storage);
    await agent.serve("web", ttl(3_600_000), "passing");
    full = true;
    await assert.rejects(agent.checks.report("web-check", "critical", "down"));
    await assert.rejects(agent.checks.report("web-check", "warning", "hot"));
    const before = refused;
    await agent.clock.advance(600_000);
    assert.ok(refused > before + 5 && refused < before + 40, `${refused - before} attempts in ten minutes`);
    full = false;
    await agent.checks.report("web-check", "passing", "fine");
    await agent.clock.advance(60_000);
    assert.deepEqual(agent.status("web"), ["passing", "fine"]);
  });

  it("is written in the order of the calls where they are of one check", async () => {
    const inner = memoryStorage();
    let held: (() => void) | undefined;
    let isHeld = false;
    const storage = storageWith(inner, {
      async commit(...given) {
        if (!isHeld && given[0].some(({ key }) => key[0] === "catalog")) {
          isHeld = true;
          await new Promise<void>((go) => {
            held = go;
          });
        }
        return inner.commit(...given);
      },
    });
    await using agent = await Agent.start({}, storage);
    const first = agent.serve("web", ttl(1_000));
    await eventually(() => held !== undefined, "the first one writes the catalog");
    const again = agent.serve("web", ttl(2_000));
    const other = agent.serve("db", ttl());
    await eventually(async () => (await agent.stored()).length === 2, "the other check is stored");
    const { entries } = await storage.read(["check-definitions", "n0", "web-check"]);
    held?.();
    await Promise.all([first, again, other]);
    assert.match(Buffer.from(entries[0]?.value ?? []).toString(), /"ttlMs":1000\}/);
    assert.deepEqual(agent.checks.definition("web-check")?.method, { type: "ttl", ttlMs: 2_000 });
  });

  it("shares commits with those of others that are registered at the same time", async () => {
    const inner = memoryStorage();
    let commits = 0;
    const storage = storageWith(inner, {
      commit: (...given) => {
        if (given[0].some(({ key }) => key[0] === "check-definitions")) commits++;
        return inner.commit(...given);
      },
    });
    await using agent = await Agent.start({}, storage);
    const services = Array.from({ length: 50 }, (_, index) => `s${index}`);
    await Promise.all(services.map((service) => agent.serve(service, ttl())));
    assert.equal((await agent.stored()).length, 50);
    assert.ok(commits < 10, `${commits} commits`);
    await agent.clock.advance(0);
    await Promise.all(services.map((service) => agent.checks.report(`${service}-check`, "passing", "")));
    const before = (await storage.read([])).revision;
    await agent.clock.advance(1_000);
    await eventually(async () => (await agent.stored()).length === 100, "the reports are stored");
    assert.equal((await storage.read([])).revision, before + 1n);
  });
});

describe("two hosts of one node on one storage", () => {
  async function both(): Promise<{ first: Agent; second: Agent } & AsyncDisposable> {
    const first = await Agent.start();
    const second = await Agent.start({}, first.storage, first.clock);
    return {
      first,
      second,
      async [Symbol.asyncDispose]() {
        await second.close();
        await first[Symbol.asyncDispose]();
      },
    };
  }

  /** Lets both be told of everything that is stored. */
  async function told(agents: { first: Agent; second: Agent }, holds: (second: Agent) => boolean): Promise<void> {
    await eventually(() => holds(agents.second), "the second host follows");
  }

  it("both run the checks that one of them registers, replaces and removes", async () => {
    await using hosts = await both();
    const { first, second } = hosts;
    await first.serve("web", ttl(60_000), "passing");
    await first.clock.advance(50);
    await told(hosts, ({ checks }) => checks.definition("web-check") !== undefined);
    await first.serve("web", ttl(90_000), "passing");
    await told(hosts, ({ checks }) => checks.definition("web-check")?.method.type === "ttl");
    await eventually(
      () => JSON.stringify(second.checks.definition("web-check")) === JSON.stringify(ttl(90_000)),
      "it is replaced",
    );
    await first.catalog.deregister({ node: "n0", serviceId: "web" });
    await first.checks.forget(["web-check"]);
    await told(hosts, ({ checks }) => checks.definition("web-check") === undefined);
    await first.clock.advance(60_000);
    assert.deepEqual(await first.stored(), []);
  });

  it("one does not go on with a definition in whose place a later version wrote another", async () => {
    await using hosts = await both();
    const { first, second } = hosts;
    await first.serve("web", ttl(10_000), "passing");
    await first.clock.advance(50);
    await told(hosts, ({ checks }) => checks.definition("web-check") !== undefined);
    const key = ["check-definitions", "n0", "web-check"];
    const [before] = (await first.storage.read(key)).entries;
    const later = JSON.stringify({ id: "web-check", definition: { ...ttl(), method: { type: "quantum" } } });
    await first.storage.commit([{ key, value: Buffer.from(later) }]);
    await told(hosts, ({ checks }) => checks.definition("web-check") === undefined);
    await first.clock.advance(120_000);
    assert.deepEqual(second.status("web"), ["passing", ""]);
    assert.deepEqual(await first.stored(), [key.join("/")]);
    await first.storage.commit([{ key, value: before?.value }]);
    await told(hosts, ({ checks }) => checks.definition("web-check") !== undefined);
  });

  it("one that starts later runs them, too, and goes on alone", async () => {
    const first = await Agent.start();
    await first.serve("web", ttl(60_000));
    await first.checks.report("web-check", "passing", "fine");
    await first.clock.advance(1_000);
    const second = await Agent.start({}, first.storage, first.clock);
    assert.deepEqual(second.checks.definition("web-check"), ttl(60_000));
    await first.close();
    await first.clock.advance(59_999);
    assert.deepEqual(second.status("web"), ["passing", "fine"]);
    await first.clock.advance(2);
    await eventually(() => second.status("web")?.[0] === "critical", "the check is critical");
    await second[Symbol.asyncDispose]();
  });

  it("a report to one of them counts for the other one, which has it critical only when none comes", async () => {
    await using hosts = await both();
    const { first, second } = hosts;
    await first.serve("web", ttl(10_000, { deregisterCriticalServiceAfterMs: 60_000 }));
    await first.clock.advance(50);
    await told(hosts, ({ checks }) => checks.definition("web-check") !== undefined);
    for (let count = 0; count < 20; count++) {
      await first.checks.report("web-check", "passing", "fine");
      await first.clock.advance(5_000);
      await eventually(() => second.checks.result("web-check")?.status === "passing", "the other one knows");
      assert.deepEqual(second.status("web"), ["passing", "fine"]);
    }
    await first.close();
    await second.clock.advance(12_000);
    const expired = "TTL expired (last output before timeout follows): fine";
    await eventually(() => second.status("web")?.join() === `critical,${expired}`, "the check is critical");
    await second.clock.advance(60_000);
    await eventually(() => second.status("web") === undefined, "its service is removed");
    await first.open();
  });

  it("one does not forget the definition of a check that the other is about to register", async () => {
    const inner = memoryStorage();
    let held: (() => void) | undefined;
    const storage = storageWith(inner, {
      async commit(...given) {
        if (held === undefined && given[0].some(({ key }) => key[0] === "catalog")) {
          await new Promise<void>((go) => {
            held = go;
          });
        }
        return inner.commit(...given);
      },
    });
    await using first = await Agent.start({}, storage);
    const registering = first.serve("web", definition({ type: "alias", node: "", service: "web" }, { intervalMs: 0 }));
    await eventually(() => held !== undefined, "the catalog is about to be written");
    const second = await Agent.start({}, inner, first.clock);
    assert.equal(second.checks.definition("web-check"), undefined);
    await first.clock.advance(59_000);
    assert.deepEqual(await second.stored(), ["check-definitions/n0/web-check"]);
    // Even where it takes longer, each check has its definition in the end.
    await first.clock.advance(2_000);
    await eventually(async () => (await second.stored()).length === 0, "it is given up");
    held?.();
    await registering;
    assert.deepEqual(await second.stored(), ["check-definitions/n0/web-check"]);
    await first.clock.advance(50);
    await eventually(() => second.checks.definition("web-check") !== undefined, "both run it");
    assert.notEqual(first.checks.definition("web-check"), undefined);
    await second.close();
  });

  it("run no check that a registration without an answer and without success has stored", async () => {
    const inner = memoryStorage();
    let lose = false;
    const storage = storageWith(inner, {
      async commit(...given) {
        const revision = await inner.commit(...given);
        if (!lose) return revision;
        lose = false;
        throw new PeeringError("unavailable", "no answer");
      },
    });
    await using agent = await Agent.start({}, storage);
    await agent.serve("web", ttl(1_000));
    lose = true;
    await assert.rejects(agent.serve("web", ttl(2_000)), { code: "unavailable" });
    await agent.clock.advance(0);
    assert.deepEqual(agent.checks.definition("web-check"), ttl(1_000));
    await agent.restart();
    assert.deepEqual(agent.checks.definition("web-check"), ttl(1_000));
  });
});
