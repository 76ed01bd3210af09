import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, readFile, readlink, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { AGENT_READY } from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];

interface RunningProcess extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly http: string;
  readonly log: () => string;
}

/** An agent in a process of its own, that is killed whatever becomes of the test. */
async function start(
  args: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
): Promise<RunningProcess> {
  // Compiled tests run the compiled program.
  const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
  const child = spawn(process.execPath, [...entry, "agent", "-dev", ...ports, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  let log = "";
  child.stderr.on("data", (data: Buffer) => {
    log += data.toString();
  });
  const ended = once(child, "exit");
  try {
    const [line]: unknown[] = await Promise.race([once(createInterface({ input: child.stdout }), "line"), ended]);
    const [, , , http] = AGENT_READY.exec(String(line)) ?? [];
    assert.ok(http !== undefined, log);
    const end = async (): Promise<void> => {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await ended;
    };
    return { child, http, log: () => log, [Symbol.asyncDispose]: end };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
}

async function serves({ http }: RunningProcess): Promise<boolean> {
  return (await fetch(`http://${http}/v1/status/leader`)).ok;
}

describe("peerage agent, on signals,", () => {
  it("goes on after those that Consul goes on after, tells of itself on SIGUSR1, and opens no port for debuggers", async () => {
    await using agent = await start();
    for (const signal of ["SIGUSR2", "SIGPIPE", "SIGALRM", "SIGWINCH", "SIGVTALRM", "SIGXFSZ", "SIGIO"] as const) {
      agent.child.kill(signal);
    }
    agent.child.kill("SIGUSR1");
    await eventually(() => agent.log().includes("incidents since the start"), "the agent tells of itself");
    assert.ok(await serves(agent));
    assert.doesNotMatch(agent.log(), /debugger|inspector/i);
    const { pid = 0 } = agent.child;
    // Where the system tells: HTTP, DNS and the port for peers, and no fourth one.
    if (existsSync(`/proc/${pid}/net/tcp`)) assert.equal(await listening(pid), 3);
  });

  it("opens no port for debuggers for other commands either", async () => {
    await using server = await listenSilently();
    const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
    const child = spawn(process.execPath, [...entry, "catalog", "nodes", "-http-addr", server.address], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let log = "";
    child.stderr.on("data", (data: Buffer) => {
      log += data.toString();
    });
    try {
      await server.connected;
      child.kill("SIGUSR1");
      server.hangUp();
      await once(child, "exit");
      assert.doesNotMatch(log, /debugger|inspector/i);
      assert.match(log, /Error/);
    } finally {
      child.kill("SIGKILL");
    }
  });

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it(`ends with code 0 on ${signal}, and at once on a second signal while it waits for calls`, async () => {
      await using first = await start();
      first.child.kill(signal);
      assert.deepEqual(await once(first.child, "exit"), [0, null]);
      await using second = await start();
      // A body that does not come is waited for a while.
      const [host = "", port] = second.http.split(":");
      const socket = connect(Number(port), host);
      socket.on("error", () => {});
      socket.write(`PUT /v1/agent/service/register HTTP/1.1\r\nHost: ${second.http}\r\nContent-Length: 100\r\n\r\n{`);
      await serves(second);
      second.child.kill(signal);
      await eventually(() => second.log().includes("stopping"), "the agent stops");
      // The other one: whichever comes second kills.
      const other = signal === "SIGINT" ? "SIGTERM" : "SIGINT";
      second.child.kill(other);
      assert.deepEqual(await once(second.child, "exit"), [null, other]);
      socket.destroy();
    });
  }

  it("ends at once with code 2 on SIGQUIT", async () => {
    await using agent = await start();
    agent.child.kill("SIGQUIT");
    assert.deepEqual(await once(agent.child, "exit"), [2, null]);
    assert.match(agent.log(), /incidents since the start/);
  });

  it("reads its files again on SIGHUP, also on many, and goes on", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "agent.hcl");
    await writeFile(path, 'service { name = "first" }');
    await using agent = await start(["-config-file", path]);
    await writeFile(path, 'log_level = "debug"\ndatacenter = "dc9"\nservice { name = "second" }');
    for (let times = 0; times < 10; times++) agent.child.kill("SIGHUP");
    const services = async (): Promise<unknown> => (await fetch(`http://${agent.http}/v1/agent/services`)).json();
    await eventually(async () => JSON.stringify(await services()).includes('"second"'), "the service is registered");
    assert.doesNotMatch(JSON.stringify(await services()), /"first"/);
    await eventually(() => agent.log().includes("take effect when the agent starts again"), "the rest is told");
    assert.match(agent.log(), /"options":"datacenter"/);
  });

  it("goes on when nobody reads its output any more", async () => {
    await using agent = await start(["-log-level=debug"]);
    agent.child.stdout?.destroy();
    agent.child.stderr?.destroy();
    for (let times = 0; times < 5; times++) agent.child.kill(times % 2 === 0 ? "SIGUSR1" : "SIGHUP");
    for (let times = 0; times < 20; times++) assert.ok(await serves(agent));
    agent.child.kill("SIGTERM");
    assert.deepEqual(await once(agent.child, "exit"), [0, null]);
  });
});

/** Sockets that a process listens on over TCP. */
async function listening(pid: number): Promise<number> {
  const open = new Set<string>();
  for (const name of await readdir(`/proc/${pid}/fd`)) {
    const target = await readlink(`/proc/${pid}/fd/${name}`).catch(() => "");
    const [, inode] = /^socket:\[(\d+)\]$/.exec(target) ?? [];
    if (inode !== undefined) open.add(inode);
  }
  const LISTEN = "0A";
  const rows = (await readFile(`/proc/${pid}/net/tcp`, "utf8")).split("\n").map((row) => row.trim().split(/\s+/));
  return rows.filter((row) => row[3] === LISTEN && open.has(row[9] ?? "")).length;
}

/** A server that takes connections and answers nothing. */
async function listenSilently(): Promise<
  AsyncDisposable & { readonly address: string; readonly connected: Promise<unknown>; readonly hangUp: () => void }
> {
  const server = createServer();
  const connected = once(server, "connection");
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  return {
    address: `127.0.0.1:${bound.port}`,
    connected,
    hangUp: () => void connected.then(([socket]) => socket.destroy()),
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
