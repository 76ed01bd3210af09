import assert from "node:assert/strict";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import type { JsonObject } from "../../../src/model/instance.js";
import { CONFIG_PREFIX } from "../../../src/storage/keys.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { readGolden } from "../../golden/read.js";

const datacenter = "dc1";
const { ec } = JSON.parse(readGolden("config-entries/certificates.json"));
const certificate = { kind: "inline-certificate", name: "gw", extra: ec } as const;
const oldKey = new Uint8Array(32).fill(1);
const newKey = new Uint8Array(32).fill(2);

async function bytes(storage: Storage): Promise<string> {
  const { entries } = await storage.read(CONFIG_PREFIX);
  return entries.map(({ value }) => Buffer.from(value).toString("utf8")).join("\n");
}

test("the private key of a certificate is sealed at rest, and given back after a restart", async () => {
  const storage = memoryStorage();
  const secretBox = sealedSecretBox(oldKey);
  const before = await ConfigEntries.open({ storage, datacenter, secretBox });
  await before.set(certificate);
  const stored = await bytes(storage);
  const [, line = ""] = ec.PrivateKey.split("\n");
  assert.ok(line.length > 20);
  assert.ok(stored.includes("BEGIN CERTIFICATE"));
  assert.ok(!stored.includes("PRIVATE KEY") && !stored.includes(line));
  const after = await ConfigEntries.open({ storage, datacenter, secretBox });
  assert.deepEqual(after.stored("inline-certificate", "gw"), before.stored("inline-certificate", "gw"));
  assert.deepEqual(after.get("inline-certificate", "gw")?.extra, ec);
});

test("a start with another first key seals stored secrets again, so that the old key can go", async () => {
  const storage = memoryStorage();
  const plain = await ConfigEntries.open({ storage, datacenter });
  await plain.set(certificate);
  await ConfigEntries.open({ storage, datacenter, secretBox: sealedSecretBox(oldKey) });
  await ConfigEntries.open({ storage, datacenter, secretBox: sealedSecretBox([newKey, oldKey]) });
  const last = await ConfigEntries.open({ storage, datacenter, secretBox: sealedSecretBox(newKey) });
  assert.deepEqual(last.get("inline-certificate", "gw")?.extra, ec);
  await assert.rejects(
    ConfigEntries.open({ storage, datacenter, secretBox: sealedSecretBox(oldKey) }),
    (error) => error instanceof PeeringError && !error.message.includes("BEGIN"),
  );
});

test("a refused certificate is told without its key", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  const key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----\n";
  for (const PrivateKey of [key, [key, key], { [key]: key }]) {
    await assert.rejects(
      entries.setUntyped({ kind: "inline-certificate", name: "gw", extra: { ...ec, PrivateKey } }),
      (error) => error instanceof PeeringError && !error.message.includes("c2VjcmV0"),
    );
  }
});

test("fields that a caller of the library gives to be kept have Consul's form, or are refused by name", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  const set = (extra: JsonObject): Promise<boolean> => entries.set({ kind: "service-defaults", name: "s", extra });
  await assert.rejects(set({ Expose: { Checks: true }, Nope: 1 }), {
    code: "invalid-entry",
    message: 'invalid config key "extra.Nope"',
  });
  await assert.rejects(set({ Expose: { checks: true, Nope: 1 } }), {
    message: 'invalid config key "extra.Expose.Nope"',
  });
  await assert.rejects(set({ Expose: 7 }), { message: "'extra.Expose' expected a map, got 'float64'" });
  await set({ upstream_config: { defaults: { protocol: "HTTP", limits: { max_connections: 0 } } }, Expose: {} });
  assert.deepEqual(entries.get("service-defaults", "s")?.extra, {
    UpstreamConfig: { Defaults: { Protocol: "http", Limits: { MaxConnections: 0 } } },
  });
  await entries.set({ kind: "proxy-defaults", config: { protocol: "http" } });
  const route = { match: { HTTP: { PathPrefix: "/", Nope: 1 } } };
  await assert.rejects(entries.set({ kind: "service-router", name: "s", routes: [route] }), {
    message: 'invalid config key "routes[0].match.HTTP.Nope"',
  });
});
