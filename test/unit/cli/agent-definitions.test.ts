// Services and checks of configuration files that are read again: nothing stays that no file defines, and nothing goes that one does.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DefinedServices, type Definitions } from "../../../src/cli/agent-definitions.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { storageWith } from "../../support/storage.js";

const NODE = "agent";

class Agent implements AsyncDisposable {
  readonly host: PeeringHost;
  readonly #defined: DefinedServices;

  private constructor(host: PeeringHost) {
    this.host = host;
    this.#defined = new DefinedServices(host);
  }

  static async start(storage: Storage = memoryStorage()): Promise<Agent> {
    const transport = memoryNetwork().transport({});
    return new Agent(await createHost({ storage, transport, nodeName: NODE }));
  }

  replace({ services = [], checks = [] }: Partial<Definitions>): Promise<void> {
    return this.#defined.replace({ services, checks });
  }

  get services(): readonly string[] {
    return (this.host.catalog.node(NODE)?.services ?? []).map(({ id }) => id);
  }

  get checks(): readonly string[] {
    return (this.host.catalog.node(NODE)?.checks ?? []).map(({ checkId }) => checkId);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.host[Symbol.asyncDispose]();
  }
}

const good = { Name: "good", Port: 1 };
const bad = { Name: "bad", Port: 1, Weights: { Passing: -1, Warning: -1 } };

describe("services and checks of a configuration", () => {
  it("are removed later, also when another one could not be registered", async () => {
    await using agent = await Agent.start();
    await agent.replace({ services: [{ Name: "kept" }] });
    await assert.rejects(
      agent.replace({ services: [{ Name: "kept" }, good, bad], checks: [{ Name: "c", TTL: "1h" }] }),
      {
        code: "invalid-argument",
        message: /^Failed to register service "bad": /,
      },
    );
    assert.deepEqual(agent.services, ["good", "kept"]);
    await agent.replace({ services: [{ Name: "kept" }] });
    assert.deepEqual(agent.services, ["kept"]);
    await assert.rejects(
      agent.replace({
        services: [good],
        checks: [
          { Name: "c", TTL: "1h" },
          { Name: "d", TTL: "x" },
        ],
      }),
    );
    assert.deepEqual(agent.checks, ["c"]);
    await agent.replace({});
    assert.deepEqual([agent.services, agent.checks], [[], []]);
  });

  it("stay when only the case of an id changes", async () => {
    await using agent = await Agent.start();
    await agent.replace({ services: [{ Name: "Web" }], checks: [{ ID: "Alive", Name: "alive", TTL: "1h" }] });
    await agent.replace({ services: [{ Name: "web" }], checks: [{ ID: "alive", Name: "alive", TTL: "1h" }] });
    assert.deepEqual(
      agent.services.map((id) => id.toLowerCase()),
      ["web"],
    );
    assert.deepEqual(
      agent.checks.map((id) => id.toLowerCase()),
      ["alive"],
    );
  });

  it("are known by their names where their ids are empty", async () => {
    await using agent = await Agent.start();
    await agent.replace({ services: [{ ID: "", Name: "web" }] });
    await agent.replace({});
    assert.deepEqual(agent.services, []);
  });

  it("lose a sidecar that is not defined any more", async () => {
    await using agent = await Agent.start();
    const web = { Name: "web", Port: 1 };
    await agent.replace({ services: [{ ...web, Connect: { SidecarService: {} } }] });
    assert.deepEqual(agent.services, ["web", "web-sidecar-proxy"]);
    await agent.replace({ services: [web] });
    assert.deepEqual(agent.services, ["web"]);
    await agent.replace({ services: [{ ...web, Connect: { SidecarService: {} } }] });
    await agent.replace({});
    assert.deepEqual(agent.services, []);
  });

  it("are registered and removed in many turns of the event loop", async () => {
    await using agent = await Agent.start();
    const services = Array.from({ length: 64 }, (_, index) => ({ Name: `s${index}` }));
    let turns = 0;
    let counting = true;
    const count = (): void => {
      turns++;
      if (counting) setImmediate(count);
    };
    count();
    await agent.replace({ services });
    const registered = turns;
    assert.ok(registered >= 4, `${registered} turns to register`);
    await agent.replace({});
    assert.ok(turns - registered >= 64, `${turns - registered} turns to remove`);
    counting = false;
    assert.deepEqual(agent.services, []);
  });

  it("leave alone what others have registered", async () => {
    await using agent = await Agent.start();
    const node = { node: NODE, address: "127.0.0.1" };
    await agent.host.catalog.register({ ...node, service: { name: "other", port: 1 } });
    await assert.rejects(agent.replace({ services: [{ ...bad, Name: "other" }] }));
    await agent.replace({});
    assert.deepEqual(agent.services, ["other"]);
  });

  it("are removed at the next time where the storage has failed, and the others at once", async () => {
    const storage = memoryStorage();
    let refused = 0;
    const failing = storageWith(storage, {
      commit: async (writes, expect) => {
        const removes = writes.some(({ key, value }) => value === undefined && key.includes("one"));
        if (removes && refused++ === 0) throw new Error("the disk is full");
        return storage.commit(writes, expect);
      },
    });
    await using agent = await Agent.start(failing);
    await agent.replace({ services: [{ Name: "one" }, { Name: "two" }] });
    await assert.rejects(agent.replace({}), /Failed to deregister service "one"/);
    assert.deepEqual(agent.services, ["one"]);
    await agent.replace({});
    assert.deepEqual(agent.services, []);
  });
});
