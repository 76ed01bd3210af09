import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { eventually } from "../../support/hosts.js";
import { LogRecorder } from "../../support/log-recorder.js";
import { storageWith } from "../../support/storage.js";

/** A storage that fails as it is told to. */
function failing(): Storage & Record<"failure" | "reading" | "readingPages", PeeringError | undefined> {
  const storage = memoryStorage();
  const self: ReturnType<typeof failing> = {
    ...storageWith(storage, {
      read: (...given) => (self.reading === undefined ? storage.read(...given) : Promise.reject(self.reading)),
      async *pages(...given) {
        if (self.readingPages !== undefined) throw self.readingPages;
        yield* storage.pages(...given);
      },
      commit: (...given) => (self.failure === undefined ? storage.commit(...given) : Promise.reject(self.failure)),
    }),
    failure: undefined,
    reading: undefined,
    readingPages: undefined,
  };
  return self;
}

const KIND = "storage-commit-failed";
const full = new PeeringError("storage-failed", "IO error: No space left on device");

describe("a storage that does not take a commit", () => {
  const writers: readonly (readonly [string, (host: PeeringHost) => Promise<unknown>])[] = [
    ["of a peering", (host) => host.peerings.generateToken({ peerName: "west" })],
    ["of the catalog", (host) => host.catalog.register({ node: "n1", address: "10.0.0.1" })],
    ["of a configuration entry", (host) => host.exports.set({ services: [] })],
    ["of a prepared query", (host) => host.queries.create({ name: "q", service: { name: "web" } })],
  ];
  for (const [what, write] of writers) {
    it(`is reported, and told to the writer: ${what}`, async () => {
      const storage = failing();
      const logger = new LogRecorder();
      await using host = await createHost({ storage, transport: memoryNetwork().transport({ listen: "a:1" }), logger });
      for (const failure of [full, new PeeringError("unavailable", "the backend did not answer")]) {
        storage.failure = failure;
        await assert.rejects(write(host), { code: failure.code });
      }
      storage.failure = undefined;
      assert.equal(host.incidents.counts().get(KIND), 2);
      assert.deepEqual(
        logger.lines.filter(({ fields }) => fields["incident"] === KIND),
        [
          {
            level: "warn",
            message: "the storage did not take a commit",
            fields: { incident: KIND, code: "storage-failed", error: full.message },
          },
        ],
      );
    });
  }

  it("is reported when it is the first of the certificate authority, and the host does not start", async () => {
    const storage = failing();
    storage.failure = full;
    const logger = new LogRecorder();
    await assert.rejects(createHost({ storage, transport: memoryNetwork().transport(), logger }), full);
    assert.ok(logger.lines.some(({ fields }) => fields["incident"] === KIND));
  });

  it("is reported when it is one of imports, though only a peer is told", async () => {
    const network = memoryNetwork();
    const storage = failing();
    await using a = await createHost({ storage: memoryStorage(), transport: network.transport({ listen: "a:1" }) });
    await using b = await createHost({ datacenter: "dc2", storage, transport: network.transport() });
    await a.exports.set({ services: [{ name: "*", consumers: [{ peer: "b" }] }] });
    await b.peerings.establish({ peerName: "a", token: await a.peerings.generateToken({ peerName: "b" }) });
    await eventually(() => b.peerings.read("a")?.state === "active", "they are connected");
    storage.failure = full;
    await a.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    await eventually(() => (b.incidents.counts().get(KIND) ?? 0) > 0, "the failure is reported");
    storage.failure = undefined;
  });

  it("is no incident where another writer was faster, or the host has stopped", async () => {
    const storage = failing();
    const host = await createHost({ storage, transport: memoryNetwork().transport() });
    for (const code of ["conflict", "closed"] as const) {
      storage.failure = new PeeringError(code, code);
      await assert.rejects(host.queries.create({ name: "q", service: { name: "web" } }));
    }
    storage.failure = undefined;
    await host[Symbol.asyncDispose]();
    assert.deepEqual(host.incidents.counts(), new Map());
  });
});

for (const how of ["reading", "readingPages"] as const) {
  it(`a storage that cannot be read is reported (${how})`, async () => {
    const storage = failing();
    const logger = new LogRecorder();
    await using authority = await builtInAuthority({ storage: memoryStorage() });
    storage[how] = full;
    await assert.rejects(createHost({ storage, authority, transport: memoryNetwork().transport(), logger }), full);
    assert.ok(logger.lines.some(({ fields }) => fields["incident"] === "storage-read-failed"));
  });
}
