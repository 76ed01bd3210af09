import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServiceRegistration } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { Catalog } from "../../../src/stores/catalog.js";

const datacenter = "dc1";

function sidecar(proxy: ServiceRegistration["proxy"]): { node: string; address: string; service: ServiceRegistration } {
  const service = { kind: "connect-proxy", id: "p", name: "p", port: 1 } as const;
  return {
    node: "n",
    address: "10.0.0.1",
    service: { ...service, proxy: { destinationServiceName: "web", ...proxy } },
  };
}

const whole = {
  upstreams: [{ destinationName: "db", destinationPeer: "east", localBindPort: 9, meshGateway: { mode: "local" } }],
  extra: {
    EnvoyExtensions: [{ Name: "x", Arguments: { list: ["only"] } }],
    Expose: { Paths: [{ Path: "/a", ListenerPort: 2 }] },
    TransparentProxy: { DialedDirectly: true },
    AccessLogs: { Enabled: true },
  },
};

test("all of a proxy is kept, survives a restart, and counts as a change", async () => {
  const storage = memoryStorage();
  const before = await Catalog.open({ storage, datacenter });
  await before.register(sidecar(whole));
  const proxy = before.instance("n", "p")?.service.proxy;
  assert.deepEqual([proxy?.upstreams, proxy?.extra], [whole.upstreams, whole.extra]);
  const index = before.instance("n", "p")?.service.modifyIndex ?? 0n;
  await before.register(sidecar(whole));
  assert.equal(before.instance("n", "p")?.service.modifyIndex, index);
  await before.register(sidecar({ ...whole, extra: { ...whole.extra, AccessLogs: { Enabled: false } } }));
  assert.ok((before.instance("n", "p")?.service.modifyIndex ?? 0n) > index);
  const { AccessLogs: _, ...rest } = whole.extra;
  assert.deepEqual(before.instance("n", "p")?.service.proxy?.extra, rest);
  const after = await Catalog.open({ storage, datacenter });
  assert.deepEqual(after.instance("n", "p")?.service, before.instance("n", "p")?.service);
});

test("fields that Consul's proxy does not have are refused by name", async () => {
  const catalog = await Catalog.open({ storage: memoryStorage(), datacenter });
  const refused = (proxy: ServiceRegistration["proxy"], why: RegExp): Promise<void> =>
    assert.rejects(catalog.register(sidecar(proxy)), { code: "invalid-registration", message: why });
  await refused({ extra: { Expose: { Nope: 1 } } }, /service\.proxy\.extra\.Expose\.Nope/);
  await refused({ extra: { MutualTLSMode: "strict" } }, /service\.proxy\.extra\.MutualTLSMode/);
  await refused(
    { upstreams: [{ destinationName: "a", localBindPort: 1, nope: 1 }] },
    /service\.proxy\.upstreams\[0\]\.nope/,
  );
  await refused({ upstreams: [{ destinationName: "a" }] }, /local bind port or local socket path must be defined/);
});
