import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { ConsulClient } from "../../src/client/index.js";
import { createHost } from "../../src/host/host.js";
import type { HostOptions } from "../../src/host/options.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { AGENT_READY } from "../support/command-line.js";
import { acceleratedClock, eventually, temporaryDirectory } from "../support/hosts.js";
import { ask } from "../unit/dns/client.js";

const DESCRIPTORS = 256;

interface Program extends AsyncDisposable {
  readonly http: string;
  readonly grpc: string;
  readonly dns: string;
  readonly log: readonly string[];
  /** Undefined where the system does not tell. */
  descriptors(): number | undefined;
}

/** An agent with its data on disk, which may open {@link DESCRIPTORS} files and sockets. */
async function limitedAgent(directory: string): Promise<Program> {
  const entry = import.meta.url.endsWith(".ts") ? "--import tsx src/cli/main.ts" : "dist/cli/main.js";
  const listen = "-http 127.0.0.1:0 -grpc-tls 127.0.0.1:0 -dns 127.0.0.1:0";
  const command = `ulimit -n ${DESCRIPTORS}; exec "${process.execPath}" ${entry} agent -data-dir "${directory}" ${listen}`;
  const child = spawn("sh", ["-c", command], { stdio: ["ignore", "pipe", "pipe"] });
  const log: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => log.push(line));
  const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
  const [, , , http = "", grpc = "", dns = ""] = AGENT_READY.exec(String(line)) ?? [];
  const path = `/proc/${child.pid}/fd`;
  return {
    http,
    grpc,
    dns,
    log,
    descriptors: () => (existsSync(path) ? readdirSync(path).length : undefined),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
  };
}

/** Connections from ten addresses, that say `text` and no more. */
async function crowd(address: string, size: number, text: string | Uint8Array): Promise<readonly Socket[]> {
  const [host, port] = address.split(":");
  const sockets = Array.from({ length: size }, (_, index) => {
    const socket = connect({ host: host ?? "", port: Number(port), localAddress: `127.0.0.${10 + (index % 10)}` });
    socket.on("error", () => {});
    socket.resume();
    if (text.length > 0) socket.write(text);
    return socket;
  });
  await Promise.all(
    sockets.map((socket) => Promise.race([once(socket, "connect"), once(socket, "close")]).catch(() => {})),
  );
  return sockets;
}

function host(options: Partial<HostOptions>) {
  return createHost({ storage: memoryStorage(), transport: grpcTransport(), clock: acceleratedClock(), ...options });
}

it("a process that has used up its descriptors itself tells of it, and its listener goes on once there are some again", () => {
  const typescript = import.meta.url.endsWith(".ts");
  const file = fileURLToPath(new URL(`../support/out-of-descriptors.${typescript ? "ts" : "js"}`, import.meta.url));
  const command = `ulimit -n 250; exec "${process.execPath}" ${typescript ? "--import tsx" : ""} "${file}"`;
  const output = execFileSync("sh", ["-c", command], { encoding: "utf8" });
  const { before, whenExhausted, dialed, afterDial, again } = JSON.parse(output);
  assert.deepEqual([before, again], [true, true]);
  assert.match(dialed, /EMFILE/);
  assert.ok(whenExhausted >= 1 && afterDial > whenExhausted);
});

describe("connections of strangers", () => {
  it("leave an agent with 256 descriptors its API, its storage, its peers and new ones, and are reported", async () => {
    await using directory = await temporaryDirectory();
    await using agent = await limitedAgent(directory.path);
    using client = new ConsulClient({ address: agent.http });
    await using early = await host({ datacenter: "early" });
    await early.peerings.establish({
      peerName: "agent",
      token: await client.peerings.generateToken({ peerName: "early" }),
    });
    await eventually(() => early.peerings.read("agent")?.state === "active", "a peer is there");
    const { connectTime } = early.peerings.read("agent")?.status.facts ?? {};
    const before = agent.descriptors();

    const crowds = [
      await crowd(agent.grpc, 200, ""),
      await crowd(agent.http, 200, ""),
      await crowd(agent.dns, 200, Uint8Array.of(0)),
      await crowd(agent.grpc, 100, Uint8Array.of(0x16, 3, 1)),
      await crowd(agent.http, 100, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
      await crowd(agent.http, 100, "GET /v1/catalog/service/none?index=1&wait=10m HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
      await crowd(agent.grpc, 200, ""),
    ];
    const open = agent.descriptors();
    if (open !== undefined) assert.ok(open <= DESCRIPTORS - 40, `${open} descriptors are open`);

    // Each over connections of its own, beside the crowd.
    for (let count = 0; count < 20; count++) {
      using another = new ConsulClient({ address: agent.http });
      await another.catalog.register({
        Node: "n1",
        Address: "10.0.0.1",
        Service: { Service: `web${count}`, Port: 80 },
      });
    }
    using another = new ConsulClient({ address: agent.http });
    assert.equal((await another.health.service("web19")).value.length, 1);
    const { code } = await ask(agent.dns, { name: "web0.service.consul", type: "A", transport: "tcp" });
    assert.equal(code, "NOERROR");
    await using late = await host({ datacenter: "late" });
    await late.peerings.establish({
      peerName: "agent",
      token: await another.peerings.generateToken({ peerName: "late" }),
    });
    await eventually(() => late.peerings.read("agent")?.state === "active", "a new peer gets in");
    assert.equal(early.peerings.read("agent")?.status.facts.connectTime, connectTime, "the other one was left alone");
    assert.ok(
      agent.log.some((line) => line.includes('"incident":"connection-displaced"')),
      agent.log.join("\n"),
    );
    assert.ok(agent.log.length < 60, `${agent.log.length} lines are logged`);

    for (const socket of crowds.flat()) socket.destroy();
    if (before === undefined) return;
    await eventually(() => (agent.descriptors() ?? 0) <= before + 6, "what they held is given back");
  });

  it("take none of its places from a host that hundreds read from through one proxy", async () => {
    await using directory = await temporaryDirectory();
    await using agent = await limitedAgent(directory.path);
    const readers = await crowd(
      agent.http,
      120,
      "GET /v1/catalog/services?index=1000000&wait=10m HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    );
    await crowd(agent.grpc, 300, "");
    await crowd(agent.dns, 300, "");
    using client = new ConsulClient({ address: agent.http });
    await client.catalog.register({ Node: "n1", Address: "10.0.0.1" });
    assert.equal(readers.filter(({ closed }) => closed).length, 0);
  });
});
