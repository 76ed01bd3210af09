import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { createHost } from "../../src/host/host.js";
import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { acceleratedClock, eventually, temporaryDirectory } from "../support/hosts.js";
import { LogRecorder } from "../support/log-recorder.js";

const BALLAST_BYTES = 4 * 1024 * 1024;

/** A disk of a few MiB of one's own; undefined where making one is not permitted. */
function mountSmallDisk(directory: string): Disposable | undefined {
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", directory], { stdio: "ignore" });
  } catch {
    return undefined;
  }
  return { [Symbol.dispose]: () => void execFileSync("umount", ["-l", directory], { stdio: "ignore" }) };
}

it("an importer whose disk is full: no ACK for services that are not stored, the rest stays whole, and with room again all arrives", async (context) => {
  await using directory = await temporaryDirectory();
  using disk = mountSmallDisk(directory.path);
  if (disk === undefined) return context.skip("a small disk cannot be mounted here");
  const ballast = join(directory.path, "ballast");
  writeFileSync(ballast, Buffer.alloc(BALLAST_BYTES));
  assert.ok(statfsSync(directory.path).bavail > 0);

  const network = memoryNetwork();
  const clock = acceleratedClock();
  await using exporter = await createHost({
    storage: memoryStorage(),
    transport: network.transport({ listen: "exporter:1" }),
    clock,
  });
  const logger = new LogRecorder();
  await using importer = await createHost({
    datacenter: "dc2",
    logger,
    // The write buffer is small, for as much must be free before the storage believes in the disk again.
    storage: await openLevel(join(directory.path, "data"), { writeBufferBytes: 256 * 1024 }),
    transport: network.transport(),
    clock,
  });
  await exporter.exports.set({ services: [{ name: "*", consumers: [{ peer: "importer" }] }] });
  await importer.peerings.establish({
    peerName: "exporter",
    token: await exporter.peerings.generateToken({ peerName: "importer" }),
  });
  const state = (): string => importer.peerings.read("exporter")?.state ?? "none";
  await eventually(() => state() === "active", "they are connected");

  const filling = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`k${index}`, "x".repeat(500)]));
  let registered = 0;
  const register = (): Promise<bigint> => {
    const name = `s${registered++}`;
    return exporter.catalog.register({
      node: "n1",
      address: "10.0.0.1",
      service: { id: name, name, port: registered, meta: filling },
    });
  };
  await eventually(async () => {
    await register();
    return state() === "failing";
  }, "the disk is full");
  const reason = importer.peerings.read("exporter")?.status.lastFailure;
  assert.ok(reason !== undefined);
  await assert.rejects(importer.catalog.register({ node: "n1", address: "10.0.0.1" }), { code: "storage-failed" });

  assert.ok((importer.incidents.counts().get("storage-commit-failed") ?? 0) >= 2);
  const reports = logger.lines.filter(({ fields }) => fields["incident"] === "storage-commit-failed");
  assert.match(String(reports[0]?.fields["error"]), /No space left on device/);

  const held = importer.imports.services({ peer: "exporter" });
  assert.ok(held.length > 0 && held.length < registered);
  for (const { name } of held) {
    const [instance] = await importer.imports.instances({ peer: "exporter", service: name });
    assert.equal(Object.keys(instance?.service.meta ?? {}).length, 60, "each is there as a whole");
  }

  rmSync(ballast);
  await eventually(
    () => state() === "active" && importer.imports.services({ peer: "exporter" }).length === registered,
    "all arrives",
  );
  await importer.catalog.register({ node: "n1", address: "10.0.0.1" });
});
