// A real Envoy that the command starts, which an agent serves over TLS with a certificate of its own authority.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { bootstrapAnswer, bootstrapCases, writeBootstrapFiles } from "../support/bootstrap-cases.js";
import { TestAuthority } from "../support/certificates.js";
import { runPeerage, startAgent } from "../support/command-line.js";
import { envoyProgram, freePorts, withoutEnvoy } from "../support/envoy.js";
import { eventually, temporaryDirectory } from "../support/hosts.js";

/** One of each shape of a bootstrap. */
const SHAPES: readonly string[] = [
  "a gateway",
  "an agent at a socket with TLS",
  "an agent with TLS",
  "prometheus over TLS",
  "prometheus over TLS with a folder",
  "all pages",
  "all sinks",
  "tags",
  "an own configuration of statistics",
  "a flush interval",
  "a collector beside others",
  "own listeners",
  "own tracing",
  "a template with everything",
  "logs",
  "logs on standard error",
  "logs in a file",
];

const ports: readonly string[] = ["-dev", "-node=n1", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];

describe("peerage connect envoy, with an agent that serves Envoys over TLS", { skip: withoutEnvoy }, () => {
  it("starts an Envoy, which is told everything and ends when it is told to", async () => {
    assert.ok("path" in envoyProgram);
    await using directory = await temporaryDirectory();
    const stopping = new AbortController();
    const agent = await startAgent([...ports, "-xds-tls=127.0.0.1:0"], stopping.signal);
    const [admin, sidecar, metrics, stats, ready] = await freePorts(5);
    const ask = (resource: string, init: RequestInit = {}) => fetch(`http://${agent.http}${resource}`, init);
    const Config = {
      envoy_prometheus_bind_addr: `127.0.0.1:${metrics}`,
      envoy_stats_bind_addr: `127.0.0.1:${stats}`,
    };
    const service = { Name: "web", Port: 80, Connect: { SidecarService: { Port: sidecar, Proxy: { Config } } } };
    assert.equal(
      (await ask("/v1/agent/service/register", { method: "PUT", body: JSON.stringify(service) })).status,
      200,
    );
    const authority = join(directory.path, "roots.pem");
    await writeFile(authority, await (await ask("/v1/connect/ca/roots?pem=true")).text());
    const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
    const flags = [`-http-addr=${agent.http}`, "-sidecar-for=web", `-admin-bind=127.0.0.1:${admin}`];
    const files = [`-grpc-ca-file=${authority}`, `-envoy-binary=${envoyProgram.path}`];
    const pages = ["-envoy-ready-bind-address=127.0.0.1", `-envoy-ready-bind-port=${ready}`];
    const rest = ["--", "--concurrency", "1", "-l", "error"];
    const child = spawn(process.execPath, [...entry, "connect", "envoy", ...flags, ...files, ...pages, ...rest], {
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
      const page = (port: number | undefined, path: string) => fetch(`http://127.0.0.1:${port}${path}`);
      assert.equal(await (await page(ready, "/ready")).text(), "LIVE\n");
      assert.match(await (await page(metrics, "/metrics")).text(), /consul_source_service="web"/);
      assert.match(await (await page(stats, "/stats?filter=^server.live$")).text(), /^server.live: 1/);
      // Nothing else of Envoy's own pages is shown there.
      for (const port of [ready, metrics, stats]) assert.equal((await page(port, "/config_dump")).status, 404);
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

  it("prints bootstraps that Envoy takes, of every shape", async () => {
    assert.ok("path" in envoyProgram);
    const program = envoyProgram.path;
    await using directory = await temporaryDirectory();
    const stopping = new AbortController();
    const agent = await startAgent([...ports], stopping.signal);
    try {
      await writeBootstrapFiles(directory.path);
      const { certificate, key } = await (await TestAuthority.create()).issue("web");
      await writeFile(join(directory.path, "cert.pem"), certificate);
      await writeFile(join(directory.path, "key.pem"), key);
      const cases = bootstrapCases.filter(({ name }) => SHAPES.includes(name));
      assert.equal(cases.length, SHAPES.length);
      for (const given of cases) {
        const asked = { ...given, whole: true } as const;
        const { bootstrap } = await bootstrapAnswer(asked, agent.http, directory.path, (args, environment) =>
          runPeerage(args, { environment }),
        );
        const path = join(directory.path, "bootstrap.json");
        await writeFile(path, JSON.stringify(bootstrap).replaceAll("{files}", directory.path));
        const judged = await promisify(execFile)(program, ["--mode", "validate", "-c", path, "-l", "error"]).then(
          ({ stdout }) => stdout,
          (error: unknown) => String(error),
        );
        assert.match(judged, /configuration .* OK/, given.name);
      }
    } finally {
      stopping.abort();
      await agent.result;
    }
  });
});
