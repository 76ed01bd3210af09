import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type RunningAgent, runPeerage, startAgent } from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";

const ports: readonly string[] = ["-dev", "-node=n1", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
const SECRET = "the-token-of-web";

/** A program that writes down how it was started, in place of an Envoy. */
async function fakeEnvoy(directory: string, version = "1.36.2", last = "exit 0"): Promise<string> {
  const path = join(directory, `envoy-${version}`);
  const script = `#!/bin/sh
if [ "$1" = --version ]; then echo "envoy  version: 9e5580933739/${version}/Clean/RELEASE/BoringSSL"; exit 0; fi
printf '%s\\n' "$@" > ${directory}/arguments
umask > ${directory}/umask
cat "$2" > ${directory}/configuration
${last}
`;
  await writeFile(path, script);
  await chmod(path, 0o755);
  return path;
}

describe("peerage connect envoy, without -bootstrap", () => {
  let agent: RunningAgent;
  let directory: AsyncDisposable & { readonly path: string };
  const stopping = new AbortController();
  const kept = (name: string): Promise<string> => readFile(join(directory.path, name), "utf8");
  const args = (...more: readonly string[]) => ["connect", "envoy", `-http-addr=${agent.http}`, ...more];
  const services = async (): Promise<Readonly<Record<string, Readonly<Record<string, unknown>>>>> =>
    (await (await fetch(`http://${agent.http}/v1/agent/services`)).json()) as never;

  before(async () => {
    directory = await temporaryDirectory();
    agent = await startAgent([...ports, "-grpc=127.0.0.1:0"], stopping.signal);
    const service = { Name: "web", Port: 80, Connect: { SidecarService: { Port: 21_000 } } };
    const resource = `http://${agent.http}/v1/agent/service/register`;
    assert.equal((await fetch(resource, { method: "PUT", body: JSON.stringify(service) })).status, 200);
  });
  after(async () => {
    stopping.abort();
    await agent.result;
    await directory[Symbol.asyncDispose]();
  });

  it("starts an Envoy with the configuration, its own arguments, and the exit code of Envoy", async () => {
    const envoy = await fakeEnvoy(directory.path, "1.36.2", "exit 42");
    const before = (await readdir(tmpdir())).filter((name) => name.startsWith("peerage-"));
    const told = ["-sidecar-for=web", `-token=${SECRET}`, `-envoy-binary=${envoy}`];
    const { exit, stderr } = await runPeerage(args(...told, "--", "-l", "debug"));
    assert.equal(exit, 42, stderr);
    assert.equal(await kept("arguments"), "--config-path\n/dev/fd/3\n--disable-hot-restart\n-l\ndebug\n");
    const started: unknown = JSON.parse(await kept("configuration"));
    const printed = await runPeerage(args("-sidecar-for=web", `-token=${SECRET}`, "-bootstrap"));
    assert.deepEqual(started, JSON.parse(printed.stdout));
    assert.ok(printed.stdout.includes(SECRET));
    // Nothing is left, and it was under no name.
    assert.deepEqual(
      (await readdir(tmpdir())).filter((name) => name.startsWith("peerage-") && !before.includes(name)),
      [],
    );
    assert.ok(!(await kept("arguments")).includes(SECRET));
  });

  it("leaves hot restarts to those who ask for them", async () => {
    const envoy = await fakeEnvoy(directory.path);
    await runPeerage(args("-sidecar-for=web", `-envoy-binary=${envoy}`, "--", "--restart-epoch", "1"));
    assert.equal(await kept("arguments"), "--config-path\n/dev/fd/3\n--restart-epoch\n1\n");
  });

  it("refuses an Envoy that is too old, or of no known version, unless it is told to take any", async () => {
    for (const [version, why] of [
      ["1.19.5", /1\.19 is not supported: 1\.20 is the oldest/],
      ["unknown", /Couldn't tell the version/],
    ] as const) {
      const envoy = await fakeEnvoy(directory.path, version);
      const told = args("-sidecar-for=web", `-envoy-binary=${envoy}`);
      const refused = await runPeerage(told);
      assert.equal(refused.exit, 1);
      assert.match(refused.stderr, why);
      assert.equal((await runPeerage([...told, "-ignore-envoy-compatibility"])).exit, 0);
    }
    const missing = await runPeerage(args("-sidecar-for=web", "-envoy-binary=/no/such/envoy"));
    assert.match(missing.stderr, /Couldn't start \/no\/such\/envoy/);
  });

  it("hands signals on to Envoy, and ends with it", async () => {
    const last = `trap 'exit 7' TERM\ntrap 'echo hung up >> ${directory.path}/hung-up' HUP\ntouch ${directory.path}/ready\nwhile :; do sleep 0.05; done`;
    const envoy = await fakeEnvoy(directory.path, "1.36.2", last);
    const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
    const child = spawn(process.execPath, [...entry, ...args("-sidecar-for=web", `-envoy-binary=${envoy}`)], {
      stdio: "ignore",
    });
    const ended = once(child, "exit");
    try {
      await eventually(() => existsSync(join(directory.path, "ready")), "Envoy runs");
      assert.match(await kept("umask"), /^0*22\n$/);
      child.kill("SIGHUP");
      await eventually(() => existsSync(join(directory.path, "hung-up")), "it gets the signal");
      child.kill("SIGTERM");
      assert.deepEqual(await ended, [7, null]);
    } finally {
      // It hands that on: a kill would leave the other one running.
      child.kill("SIGTERM");
      await ended;
    }
  });

  it("tells how Envoy was killed", async () => {
    const envoy = await fakeEnvoy(directory.path, "1.36.2", "kill -KILL $$");
    assert.equal((await runPeerage(args("-sidecar-for=web", `-envoy-binary=${envoy}`))).exit, 137);
  });

  it("registers a mesh gateway as Consul's command does", async () => {
    const register = args("-gateway=mesh", "-register", "-bootstrap");
    const both = [
      "-address=127.0.0.1:8443",
      "-wan-address=127.0.0.1:8444",
      "-service=edge",
      "-deregister-after-critical=5m",
    ];
    const { exit, stdout, stderr } = await runPeerage([...register, ...both]);
    assert.equal(exit, 0, stderr);
    const { node } = JSON.parse(stdout) as { readonly node: { readonly id: string; readonly cluster: string } };
    assert.deepEqual([node.id, node.cluster], ["edge", "edge"]);
    const edge = (await services())["edge"];
    assert.equal(edge?.["Kind"], "mesh-gateway");
    assert.equal(edge["Address"], "127.0.0.1");
    assert.equal(edge["Port"], 8443);
    const addresses = edge["TaggedAddresses"] as Readonly<Record<string, unknown>>;
    assert.deepEqual(addresses["lan"], { Address: "127.0.0.1", Port: 8443 });
    assert.deepEqual(addresses["wan"], { Address: "127.0.0.1", Port: 8444 });
    const bindsTagged = { envoy_gateway_no_default_bind: true, envoy_gateway_bind_tagged_addresses: true };
    assert.deepEqual((edge["Proxy"] as { readonly Config: object }).Config, bindsTagged);
    const checks = (await (await fetch(`http://${agent.http}/v1/agent/checks`)).json()) as Readonly<
      Record<string, { readonly Name: string; readonly ServiceID: string; readonly Type: string }>
    >;
    const check = Object.values(checks).find(({ ServiceID }) => ServiceID === "edge");
    assert.equal(check?.Name, "mesh-gateway listening");
    assert.equal(check.Type, "tcp");
    const bound = ["-address=198.51.100.1:8443", "-bind-address=lan=127.0.0.1:1", "-bind-address=wan=127.0.0.1:2"];
    assert.equal((await runPeerage([...register, ...bound])).exit, 0);
    const { Proxy: proxied } = (await services())["mesh-gateway"] ?? {};
    assert.deepEqual((proxied as { readonly Config: object }).Config, {
      envoy_gateway_no_default_bind: true,
      envoy_gateway_bind_addresses: { lan: { Address: "127.0.0.1", Port: 1 }, wan: { Address: "127.0.0.1", Port: 2 } },
    });
  });

  it("registers nothing that Consul's command would not", async () => {
    const refused = [
      [["-sidecar-for=web", "-register"], /can only be used for gateways/],
      [["-gateway=mesh", "-proxy-id=gw", "-register", "-node-name=n"], /'-register' cannot be used with '-node-name'/],
      [
        ["-gateway=mesh", "-register", "-address=198.51.100.1:8443"],
        /The LAN address "198.51.100.1" will not be bindable/,
      ],
      [["-gateway=mesh", "-register", "-address=nowhere"], /-address: no host:port/],
      [["-gateway=mesh", "-register", "-bind-address=127.0.0.1:1"], /-bind-address: no name=ip:port/],
    ] as const;
    const before = Object.keys(await services());
    for (const [flags, why] of refused) {
      const { exit, stderr } = await runPeerage(args(...flags, "-bootstrap"));
      assert.equal(exit, 1);
      assert.match(stderr, why);
    }
    assert.deepEqual(Object.keys(await services()), before);
  });
});
