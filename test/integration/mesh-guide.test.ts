// Runs the guide in docs/mesh.md as a reader would, with other ports: all of it where there is an Envoy, else what needs none.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { chmod, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { envoyProgram } from "../support/envoy.js";
import { temporaryDirectory } from "../support/hosts.js";

const DEADLINE_MS = 120_000;
const PORTS = /\b(?:8500|8502|8503|9500|9502|9503|9001|9002|9191|8443|19001|19002|19003|21001|21002)\b/g;

const blocks = [...readFileSync("docs/mesh.md", "utf8").matchAll(/^```sh guide( envoy)?\n([\s\S]*?)^```$/gm)].map(
  ([, envoy, text = ""]) => ({ needsEnvoy: envoy !== undefined, text }),
);

/** Ports that nothing listens on, for those of the guide. */
async function freePorts(text: string): Promise<ReadonlyMap<string, number>> {
  const servers = new Map(
    await Promise.all(
      [...new Set(text.match(PORTS))].map(async (port) => {
        const server = createServer().listen(0, "127.0.0.1");
        await once(server, "listening");
        return [port, server] as const;
      }),
    ),
  );
  const ports = new Map<string, number>();
  for (const [port, server] of servers) {
    const address = server.address();
    assert.ok(address !== null && typeof address === "object");
    ports.set(port, address.port);
  }
  await Promise.all([...servers.values()].map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** Runs a script in its own group of processes, which ends with it. */
async function run(
  script: string,
  directory: string,
): Promise<{ readonly code: number | null; readonly output: string }> {
  const child: ChildProcess = spawn("bash", ["-c", script], {
    cwd: directory,
    detached: true,
    env: { ...process.env, PATH: `${directory}:${process.env["PATH"]}`, CONSUL_HTTP_ADDR: "" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const end = (): void => {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGTERM");
  };
  const late = setTimeout(end, DEADLINE_MS);
  const [code]: (number | null)[] = await once(child, "exit");
  clearTimeout(late);
  try {
    end();
  } catch {
    // Everything has ended already.
  }
  return { code: code ?? null, output };
}

async function guide(
  chosen: typeof blocks,
  after: string,
): Promise<{ readonly code: number | null; readonly output: string }> {
  await using directory = await temporaryDirectory();
  const shim = join(directory.path, "peerage");
  await writeFile(shim, `#!/bin/sh\nexec "${process.execPath}" "${process.cwd()}/dist/cli/main.js" "$@"\n`);
  await chmod(shim, 0o755);
  if ("path" in envoyProgram) await symlink(envoyProgram.path, join(directory.path, "envoy"));
  const text = ["set -e", ...chosen.map((block) => block.text), after].join("\n");
  const ports = await freePorts(text);
  // Several Envoys of other tests may run: each needs an id of its own.
  const base = 100 + Math.trunc((ports.get("9191") ?? 0) / 10) * 10;
  const script = text
    .replace(PORTS, (port) => String(ports.get(port)))
    .replace(/--base-id (\d)/g, (_, id: string) => `--base-id ${base + Number(id)} --concurrency 1`);
  return await run(script, directory.path);
}

describe("the guide of the mesh", () => {
  it("gets two agents to where they lack Envoys alone, and explains that", async () => {
    const wanted = blocks.filter(({ needsEnvoy }) => !needsEnvoy);
    assert.equal(wanted.length, 4);
    const explained = `
      until peerage explain connection kitchen -http-addr 127.0.0.1:9500 -source checkout -peer east; do sleep 0.2; done
      peerage explain connection kitchen -source checkout -source-peer west -path /menu || true
      peerage explain connection kitchen -source checkout -source-peer west -path /admin || true
      peerage connect envoy -gateway mesh -bootstrap -admin-bind 127.0.0.1:19001 | grep -c mesh-gateway`;
    const { code, output } = await guide(wanted, explained);
    assert.equal(code, 0, output);
    assert.match(output, /^ok +gateway +- +the mesh gateways of "east" are dialed: 127\.0\.0\.1:\d+$/m);
    assert.match(output, /^ok +intention +"kitchen" +GET \/menu without headers is allowed by permission 1 /m);
    assert.match(output, /^failed +intention +"kitchen" +GET \/admin without headers is denied by permission 2 /m);
  });

  it("gets a curl through three Envoys", {
    skip: "missing" in envoyProgram ? envoyProgram.missing : false,
  }, async () => {
    const { code, output } = await guide(blocks, "");
    assert.equal(code, 0, output);
    assert.match(output, /^soup of the day$/m);
    assert.match(output, /^RBAC: access denied/m);
    assert.match(output, /^kitchen-sidecar-proxy +east +kitchen +connect-proxy +1\.\d+\.\d+ +told$/m);
    assert.match(output, /^Nothing that is known here keeps the connection from being made\.$/m);
  });
});
