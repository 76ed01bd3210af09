// A real Envoy that the command starts, which an agent serves over TLS with a certificate of its own authority.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { startAgent } from "../support/command-line.js";
import { envoyProgram, freePorts, withoutEnvoy } from "../support/envoy.js";
import { eventually, temporaryDirectory } from "../support/hosts.js";

const ports: readonly string[] = ["-dev", "-node=n1", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];

describe("peerage connect envoy, with an agent that serves Envoys over TLS", { skip: withoutEnvoy }, () => {
  it("starts an Envoy, which is told everything and ends when it is told to", async () => {
    assert.ok("path" in envoyProgram);
    await using directory = await temporaryDirectory();
    const stopping = new AbortController();
    const agent = await startAgent([...ports, "-xds-tls=127.0.0.1:0"], stopping.signal);
    const [admin, sidecar] = await freePorts(2);
    const ask = (resource: string, init: RequestInit = {}) => fetch(`http://${agent.http}${resource}`, init);
    const service = { Name: "web", Port: 80, Connect: { SidecarService: { Port: sidecar } } };
    assert.equal(
      (await ask("/v1/agent/service/register", { method: "PUT", body: JSON.stringify(service) })).status,
      200,
    );
    const authority = join(directory.path, "roots.pem");
    await writeFile(authority, await (await ask("/v1/connect/ca/roots?pem=true")).text());
    const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
    const flags = [`-http-addr=${agent.http}`, "-sidecar-for=web", `-admin-bind=127.0.0.1:${admin}`];
    const files = [`-grpc-ca-file=${authority}`, `-envoy-binary=${envoyProgram.path}`];
    const rest = ["--", "--concurrency", "1", "-l", "error"];
    const child = spawn(process.execPath, [...entry, "connect", "envoy", ...flags, ...files, ...rest], {
      stdio: "ignore",
    });
    const ended = once(child, "exit");
    try {
      const proxies = async (): Promise<readonly Readonly<Record<string, unknown>>[]> =>
        (await (await ask("/v1/internal/peerage/proxies")).json()) as never;
      await eventually(async () => JSON.stringify(await proxies()).includes("web-sidecar-proxy"), "Envoy is connected");
      await eventually(async () => {
        const told = await fetch(`http://127.0.0.1:${admin}/listeners`).catch(() => undefined);
        return (await told?.text())?.includes(`public_listener:`) === true;
      }, "Envoy listens for callers");
      child.kill("SIGTERM");
      assert.deepEqual(await ended, [0, null]);
    } finally {
      // It hands that on: a kill would leave the other one running.
      child.kill("SIGTERM");
      await ended;
      stopping.abort();
      await agent.result;
    }
  });
});
