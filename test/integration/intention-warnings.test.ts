import assert from "node:assert/strict";
import { it } from "node:test";
import { intentionWarnings, reportIntentionWarnings } from "../../src/mesh/index.js";
import { eventually } from "../support/hosts.js";
import { intend, meshPair } from "../support/mesh.js";

it("an intention that leaves the callers of a peer in, or none of them, is reported once when it comes to be, and again when it comes back", async () => {
  await using pair = await meshPair();
  const { exporter, importer } = pair;
  const { host } = exporter;
  const count = (kind: string): number => host.incidents.counts().get(kind) ?? 0;
  const services = [{ name: "plain", consumers: [{ peer: importer.name }] }];
  await host.catalog.register({ node: "n1", address: "127.0.0.1", service: { name: "plain", port: 1 } });
  await host.exports.set({ services });
  await using _open = reportIntentionWarnings(host, { byDefault: "allow", gatherMs: 1 });
  await using _closed = reportIntentionWarnings(host, { byDefault: "deny", gatherMs: 1 });
  await pair.offer("web", "127.0.0.1:9");
  await eventually(() => count("intention-peer-not-allowed") === 1, "it is told that none may call");
  // An ordinary service has no intentions, and the default lets everyone in before there is one.
  assert.deepEqual(await intentionWarnings(host, { byDefault: "allow" }), []);
  assert.equal((await intentionWarnings(host, { byDefault: "deny" })).map(({ service }) => service).join(), "web");
  await intend(host, "*", [{ name: "*", action: "deny" }]);
  await eventually(() => count("intention-peer-not-denied") === 1, "it is told that all may call");
  await intend(host, "web", [{ name: "*", peer: importer.name, action: "allow" }]);
  await eventually(async () => (await intentionWarnings(host, { byDefault: "deny" })).length === 0, "it is mended");
  assert.deepEqual([count("intention-peer-not-allowed"), count("intention-peer-not-denied")], [1, 1]);
  // Whatever else changes, nothing is told a second time; a warning that comes back is.
  await host.catalog.register({
    node: "n2",
    address: "127.0.0.1",
    service: { name: "more", port: 1, connect: { native: true } },
  });
  await host.exports.set({
    services: [...(host.exports.get()?.services ?? []), { name: "more", consumers: [{ peer: importer.name }] }],
  });
  await eventually(() => count("intention-peer-not-allowed") === 2, "it is told of the other service");
  await eventually(() => count("intention-peer-not-denied") === 2, "it is told of the other service");
  await host.configEntries.delete("service-intentions", "web");
  await eventually(() => count("intention-peer-not-allowed") === 3, "it is told again");
  await eventually(() => count("intention-peer-not-denied") === 3, "it is told again");
});
