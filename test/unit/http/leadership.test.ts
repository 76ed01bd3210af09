import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import type { Leadership } from "../../../src/host/leadership.js";
import type { HostOptions } from "../../../src/host/options.js";
import type { CatalogSource } from "../../../src/model/catalog-source.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

async function served(options: Partial<HostOptions>): Promise<ServedHost> {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  return serve(await createHost({ storage: memoryStorage(), transport, ...options }));
}

describe("a node's answers about its leader", () => {
  const cases: readonly (readonly [
    string,
    Pick<Leadership, "isLeader" | "leaderAddress">,
    string,
    readonly string[],
    string,
  ])[] = [
    ["itself", { isLeader: true, leaderAddress: "" }, "127.0.0.1:8503", ["127.0.0.1:8503"], "true"],
    [
      "another",
      { isLeader: false, leaderAddress: "127.0.0.2:8503" },
      "127.0.0.2:8503",
      ["127.0.0.2:8503", "127.0.0.1:8503"],
      "true",
    ],
    ["nobody", { isLeader: false, leaderAddress: "" }, "", ["127.0.0.1:8503"], "false"],
  ];
  for (const [who, facts, leader, peers, known] of cases) {
    it(`${who} leads`, async () => {
      await using node = await served({ leadership: { ...facts, onChange: () => () => {} } });
      assert.equal((await node.ask("GET", "/v1/status/leader")).text, JSON.stringify(leader));
      assert.equal((await node.ask("GET", "/v1/status/peers")).text, JSON.stringify(peers));
      assert.equal((await node.ask("GET", "/v1/catalog/nodes")).headers["x-consul-knownleader"], known);
    });
  }
});

/** A registry of a user's own, whose names can be changed. */
function registry(): CatalogSource & { readonly put: (name: string, instances: readonly ServiceInstance[]) => void } {
  const services = new Map<string, readonly ServiceInstance[]>();
  let changed = (): void => {};
  let pending: [string, readonly ServiceInstance[]][] = [];
  return {
    put: (name, instances) => {
      services.set(name, instances);
      pending.push([name, instances]);
      changed();
    },
    async *watch({ signal }) {
      pending = [];
      yield { services: new Map(services) };
      while (!signal.aborted) {
        await new Promise<void>((resolve) => {
          changed = resolve;
          if (pending.length > 0) resolve();
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
        const now = new Map(pending);
        pending = [];
        yield { services: now };
      }
    },
  };
}

function instanceOf(name: string): ServiceInstance {
  return {
    node: { id: "", name: "n1", address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, meta: {} },
    service: {
      kind: "",
      id: name,
      name,
      tags: [],
      address: "",
      port: 80,
      socketPath: "",
      taggedAddresses: {},
      meta: {},
      weights: { passing: 1, warning: 1 },
      enableTagOverride: false,
    },
    checks: [],
  };
}

describe("exported services of a host with a catalog source of its own (HT10)", () => {
  it("exported services are those of that source, and a wait for them ends when they change", {
    timeout: 30_000,
  }, async () => {
    const source = registry();
    source.put("web", [instanceOf("web")]);
    await using node = await served({ catalogSource: source });
    await node.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "b" }] }] });
    const named = (text: string): readonly string[] =>
      JSON.parse(text).map(({ Service }: { Service: string }) => Service);
    let answer = await node.ask("GET", "/v1/exported-services");
    // The source is followed, not asked.
    while (named(answer.text).length === 0) {
      answer = await node.ask("GET", `/v1/exported-services?index=${answer.headers["x-consul-index"]}`);
    }
    assert.deepEqual(named(answer.text), ["web"]);
    const waiting = node.ask("GET", `/v1/exported-services?index=${answer.headers["x-consul-index"]}`);
    source.put("db", [instanceOf("db")]);
    answer = await waiting;
    assert.deepEqual(named(answer.text), ["db", "web"]);
    const next = node.ask("GET", `/v1/exported-services?index=${answer.headers["x-consul-index"]}`);
    await node.host.exports.delete();
    assert.equal((await next).text, "[]");
  });
});
