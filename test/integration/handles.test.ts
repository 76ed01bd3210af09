import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { TokenCodec } from "../../src/token/token-codec.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { eventually, inStep, offerServices, peerThem, temporaryDirectory, twoHosts } from "../support/hosts.js";

// This file is its own child process, so that it runs the same way compiled and not.
const TASK = "PEERAGE_TEST_HANDLES";
const task = process.env[TASK];

const unroutable = "10.255.255.1:8503";

/** Handles that keep a process alive, without those of its own output. */
function handles(): string {
  return process.getActiveResourcesInfo().toSorted().join();
}

async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

/** Two hosts with live streams, one that dials into the void, watches that wait: then all of it is disposed of. */
async function live(): Promise<void> {
  const watching: Promise<void>[] = [];
  const never = new AbortController().signal;
  const watch = async (changes: AsyncIterable<unknown>): Promise<void> => {
    for await (const _ of changes);
  };
  {
    await using pair = await twoHosts("grpc and level");
    const { acceptor, dialer } = pair;
    await offerServices(acceptor.host, "dialer", ["web"]);
    await peerThem(pair);
    await inStep(pair);
    const token = TokenCodec.decode(await acceptor.host.peerings.generateToken({ peerName: "other" }));
    const void_ = TokenCodec.encode({ ...token, serverAddresses: [unroutable] });
    const establishing = dialer.host.peerings.establish({ peerName: "nowhere", token: void_ });
    establishing.catch(() => {});
    await eventually(() => dialer.host.peerings.read("nowhere") !== undefined, "it is being dialed");
    watching.push(
      watch(dialer.host.peerings.watch({ signal: never })),
      watch(dialer.host.imports.watch({ peer: "acceptor", signal: never })),
      watch(dialer.host.trustBundles.watch({ signal: never })),
      watch(dialer.host.catalog.watch({ signal: never })),
    );
    await turn();
    if (!handles().includes("TCP")) throw new Error(`streams show in what is counted: ${handles()}`);
  }
  await Promise.all(watching);
}

if (task !== undefined) {
  const before = handles();
  if (task === "live") await live();
  await turn();
  process.stdout.write(JSON.stringify({ before, after: handles() }));
  // No process.exit(): the process must end by itself.
} else {
  registerTests();
}

async function child(name: string): Promise<{ readonly before: string; readonly after: string }> {
  const file = fileURLToPath(import.meta.url);
  const loader = file.endsWith(".ts") ? ["--import", "tsx"] : [];
  const process_ = spawn(process.execPath, [...loader, file], {
    env: { ...process.env, [TASK]: name, NODE_TEST_CONTEXT: undefined },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  process_.stdout.on("data", (data) => {
    output += String(data);
  });
  const [code] = await once(process_, "close");
  assert.equal(code, 0);
  return JSON.parse(output);
}

function registerTests(): void {
  describe("disposing of a host", { timeout: 120_000 }, () => {
    it("releases every handle of live streams, pending dials and open watches, and lets the process end", async () => {
      const [idle, live] = await Promise.all([child("idle"), child("live")]);
      assert.equal(live.before, idle.before);
      assert.equal(live.after, idle.after);
    });

    it("twice is once, and afterwards calls are refused", async () => {
      const host = await createHost({
        storage: memoryStorage(),
        transport: memoryNetwork().transport({ listen: "a:1" }),
      });
      await Promise.all([host[Symbol.asyncDispose](), host[Symbol.asyncDispose]()]);
      await host[Symbol.asyncDispose]();
      await assert.rejects(host.catalog.register({ node: "n", address: "10.0.0.1" }), { code: "closed" });
      await assert.rejects(host.peerings.generateToken({ peerName: "x" }), { code: "closed" });
    });

    it("ends an establish under way with `closed`", async () => {
      await using acceptor = await createHost({
        storage: memoryStorage(),
        transport: grpcTransport({ listen: "127.0.0.1:0" }),
      });
      const token = TokenCodec.decode(await acceptor.peerings.generateToken({ peerName: "dialer" }));
      const dialer = await createHost({ datacenter: "dc2", storage: memoryStorage(), transport: grpcTransport() });
      const nowhere = TokenCodec.encode({ ...token, serverAddresses: [unroutable] });
      const establishing = dialer.peerings.establish({ peerName: "acceptor", token: nowhere });
      const outcome = assert.rejects(establishing, { name: "PeeringError", code: "closed" });
      await eventually(() => dialer.peerings.read("acceptor") !== undefined, "it has begun");
      await dialer[Symbol.asyncDispose]();
      await outcome;
    });
  });

  describe("what cannot be opened", () => {
    it("a data directory in use is refused with `locked`, naming it, and its user is not disturbed", async () => {
      await using directory = await temporaryDirectory();
      const host = await hostIn(directory.path);
      await assert.rejects(hostIn(directory.path), (error: Error & { code?: string }) => {
        assert.equal(error.code, "locked");
        assert.ok(error.message.includes(directory.path));
        return true;
      });
      await host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web" } });
      await host[Symbol.asyncDispose]();
      await using again = await hostIn(directory.path);
      assert.equal(again.catalog.instances("web").length, 1);
    });

    it("an address in use is refused with `unavailable`, and the listener opened before it is closed again", async () => {
      await using directory = await temporaryDirectory();
      await using first = await createHost({
        storage: memoryStorage(),
        transport: grpcTransport({ listen: "127.0.0.1:0" }),
      });
      const listen = first.listenAddress ?? "";
      const open = async (): Promise<PeeringHost> =>
        createHost({ storage: await openLevel(directory.path), transport: grpcTransport({ listen }) });
      for (let attempt = 0; attempt < 2; attempt++) {
        await assert.rejects(open(), (error: Error & { code?: string }) => {
          assert.equal(error.code, "unavailable");
          assert.ok(error.message.includes(listen));
          return true;
        });
      }
    });
  });
}

async function hostIn(directory: string): Promise<PeeringHost> {
  return createHost({
    storage: await openLevel(directory),
    transport: memoryNetwork().transport({ listen: "a:1" }),
  });
}
