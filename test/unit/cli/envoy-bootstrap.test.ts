import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { readGolden } from "../../golden/read.js";
import {
  BOOTSTRAPS,
  type BootstrapAnswer,
  bootstrapAnswer,
  bootstrapCases,
  writeBootstrapFiles,
} from "../../support/bootstrap-cases.js";
import { fakeServer, type RunningAgent, runPeerage, startAgent } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

const ports: readonly string[] = ["-dev", "-node=n1", "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=off"];

interface Named {
  readonly name: string;
  readonly type?: string;
}
interface Bootstrap {
  readonly static_resources: {
    readonly clusters: readonly Named[];
    readonly listeners?: readonly Named[];
    readonly secrets?: readonly Named[];
  };
}

describe("peerage connect envoy -bootstrap", () => {
  const recorded: Readonly<Record<string, BootstrapAnswer>> = JSON.parse(readGolden(BOOTSTRAPS));
  const stopping = new AbortController();
  let agent: RunningAgent;
  let files: AsyncDisposable & { readonly path: string };

  before(async () => {
    files = await temporaryDirectory();
    await writeBootstrapFiles(files.path);
    agent = await startAgent([...ports, "-datacenter=dc1"], stopping.signal);
  });
  after(async () => {
    stopping.abort();
    await agent.result;
    await files[Symbol.asyncDispose]();
  });

  it("has an answer of Consul's own command for each case", () => {
    assert.deepEqual(
      Object.keys(recorded),
      bootstrapCases.map(({ name }) => name),
    );
    assert.ok(Object.values(recorded).filter(({ bootstrap }) => bootstrap !== undefined).length > 60);
  });

  const run = (args: readonly string[], environment: Readonly<Record<string, string>> = {}) =>
    runPeerage(["connect", "envoy", "-bootstrap", `-http-addr=${agent.http}`, ...args], { environment });
  const register = async (config: Readonly<Record<string, unknown>>): Promise<void> => {
    const body = { Name: "web", Port: 80, Connect: { SidecarService: { Port: 21_000, Proxy: { Config: config } } } };
    const resource = `http://${agent.http}/v1/agent/service/register`;
    assert.equal((await fetch(resource, { method: "PUT", body: JSON.stringify(body) })).status, 200);
  };
  const printed = async (...args: readonly string[]): Promise<Bootstrap> => {
    const { exit, stdout, stderr } = await run(["-sidecar-for=web", "-grpc-addr=127.0.0.1:8502", ...args]);
    assert.equal(exit, 0, stderr);
    return JSON.parse(stdout) as Bootstrap;
  };
  const metrics = { envoy_prometheus_bind_addr: "127.0.0.1:20200" };
  const tls = ["-prometheus-cert-file=/c", "-prometheus-key-file=/k", "-prometheus-ca-file=/a"];

  it("refuses by name what cannot go together, or has nothing behind it", async () => {
    await register({});
    const grpc = "-grpc-addr=127.0.0.1:8502";
    const refused: readonly (readonly [readonly string[], RegExp])[] = [
      [[grpc], /Must specify one of -sidecar-for, -proxy-id and -gateway/],
      [[grpc, "-sidecar-for=web", "-proxy-id=gw1"], /Must specify one of/],
      [[grpc, "-sidecar-for=web", "-gateway=mesh"], /Must specify one of/],
      [[grpc, "-sidecar-for=db"], /No sidecar proxy for db is registered/],
      [[grpc, "-gateway=ingress"], /no other kind is served/],
      [[grpc, "-proxy-id=web"], /Service web is not a Connect proxy or gateway/],
      [[grpc, "-gateway=mesh", "-register", "-expose-servers"], /-expose-servers is for federation/],
      [[grpc, "-gateway=mesh", "-register", "-address={{ GetPrivateIP }}:1"], /-address: templates/],
      [[grpc, "-sidecar-for=web", "-envoy-ready-bind-address=127.0.0.1"], /-envoy-ready-bind-port belong together/],
      [[grpc, "-sidecar-for=web", "-envoy-ready-bind-port=1"], /-envoy-ready-bind-port belong together/],
      [[grpc, "-sidecar-for=web", "-prometheus-key-file=x"], /-prometheus-key-file.*belong together/],
      [[grpc, "-sidecar-for=web", "-prometheus-backend-port=x"], /-prometheus-backend-port: no port: x/],
      [[grpc, "-sidecar-for=web", "-admin-bind=x"], /-admin-bind: no host:port/],
      [["-sidecar-for=web", "-grpc-addr=https://127.0.0.1:1"], /Must specify -grpc-ca-file or -grpc-ca-path/],
      [["-sidecar-for=web", "-grpc-addr=https://127.0.0.1:1", "-grpc-ca-file=/no/such"], /Error reading \/no\/such/],
      [["-sidecar-for=web", "-grpc-addr=https://127.0.0.1:1", "-grpc-ca-path=/no/such"], /Error reading \/no\/such/],
      [[grpc, "-sidecar-for=web", "-admin-bind=no-such-host.invalid:1"], /-admin-bind: .*no-such-host.invalid/],
      [["-sidecar-for=web"], /The agent serves no Envoys/],
    ];
    for (const [args, why] of refused) {
      const { exit, stdout, stderr } = await run(args);
      assert.deepEqual([exit, stdout], [1, ""], args.join(" "));
      assert.match(stderr, why);
    }
  });

  it("names the setting that cannot be taken", async () => {
    const refused: readonly (readonly [Readonly<Record<string, unknown>>, RegExp])[] = [
      [{ envoy_statsd_url: { a: 1 } }, /setting envoy_statsd_url is no text/],
      [{ envoy_dogstatsd_url: "tcp://127.0.0.1:1" }, /setting envoy_dogstatsd_url is no address of/],
      [{ envoy_prometheus_bind_addr: "127.0.0.1" }, /envoy_prometheus_bind_addr: no host:port/],
      [{ envoy_stats_bind_addr: "127.0.0.1" }, /envoy_stats_bind_addr: no host:port/],
      [{ envoy_tracing_json: '{}, "admin": {}' }, /setting envoy_tracing_json is no JSON/],
      [{ envoy_stats_config_json: "{" }, /setting envoy_stats_config_json is no JSON/],
      [{ envoy_extra_static_clusters_json: "{}], [" }, /setting envoy_extra_static_clusters_json is no JSON/],
      [{ envoy_extra_static_listeners_json: "x" }, /setting envoy_extra_static_listeners_json is no JSON/],
      [{ envoy_extra_stats_sinks_json: '{"a":12345678901234567890}' }, /envoy_extra_stats_sinks_json.*too large/],
      [{ envoy_bootstrap_json_tpl: '{{ printf "%d" 1 }}' }, /envoy_bootstrap_json_tpl: the function "printf"/],
      [{ envoy_bootstrap_json_tpl: "{" }, /setting envoy_bootstrap_json_tpl is no JSON/],
    ];
    for (const [config, why] of refused) {
      await register(config);
      const { exit, stderr } = await run(["-sidecar-for=web", "-grpc-addr=127.0.0.1:8502"]);
      assert.equal(exit, 1);
      assert.match(stderr, why);
    }
  });

  it("quotes no token, and nothing of the environment, where a setting cannot be taken", async () => {
    for (const config of [
      { envoy_bootstrap_json_tpl: "{{ .Token }}" },
      { envoy_bootstrap_json_tpl: '{ "a": {{ .Token }} }' },
      { envoy_statsd_url: "$STATSD" },
    ]) {
      await register(config);
      const asked = ["-sidecar-for=web", "-grpc-addr=127.0.0.1:8502", "-token=hush"];
      const { exit, stderr } = await run(asked, { STATSD: "hush://hush" });
      assert.equal(exit, 1);
      assert.match(stderr, /envoy_/);
      assert.ok(!stderr.includes("hush"), stderr);
    }
  });

  it("names flags that do nothing with the settings of the proxy", async () => {
    await register({});
    const idle = ["-prometheus-backend-port=1", "-prometheus-scrape-path=/m", ...tls, "-envoy-version=1.30.0"];
    const asked = ["-sidecar-for=web", "-grpc-addr=127.0.0.1:8502", ...idle];
    const { exit, stderr } = await run(asked);
    assert.equal(exit, 0);
    for (const flag of idle) assert.ok(stderr.includes(`${flag.split("=")[0]} does nothing`), `${flag}: ${stderr}`);
    await register(metrics);
    assert.equal((await run(asked.slice(0, -1))).stderr, "");
  });

  it("writes the secrets of pages over TLS once, and the cluster of a program beside one of an operator", async () => {
    await register({
      ...metrics,
      envoy_stats_bind_addr: "127.0.0.1:20300",
      envoy_extra_static_clusters_json: '{"name":"self_admin"}',
    });
    const { static_resources: made } = await printed(...tls, "-prometheus-backend-port=20201");
    const names = (resources: readonly { readonly name: string }[] = []) => resources.map(({ name }) => name);
    assert.deepEqual(names(made.secrets), ["prometheus_cert", "prometheus_validation_context"]);
    assert.deepEqual(names(made.listeners), ["envoy_prometheus_metrics_listener", "envoy_metrics_listener"]);
    assert.deepEqual(names(made.clusters), ["local_agent", "self_admin", "prometheus_backend"]);
  });

  it("takes the port of Consul where the token may not ask the agent, and says so", async () => {
    await using server = await fakeServer(({ url: { pathname } }) => {
      if (pathname === "/v1/agent/self") return { status: 403, body: "Permission denied" };
      if (pathname !== "/v1/agent/service/web-proxy") return { status: 404, body: "none" };
      return { body: { Kind: "connect-proxy", Service: "web-proxy", Proxy: { DestinationServiceName: "web" } } };
    });
    const { exit, stdout, stderr } = await run(["-proxy-id=web-proxy", `-http-addr=${server.address}`]);
    assert.equal(exit, 0, stderr);
    assert.match(stderr, /The token may not ask the agent where it serves Envoys: port 8502 is taken/);
    assert.match(stdout, /"port_value": 8502/);
  });

  it("has Envoy look up a name of the agent", async () => {
    await register({});
    const [agentAt] = (await printed("-grpc-addr=agent.example:8502")).static_resources.clusters;
    assert.equal(agentAt?.type, "STRICT_DNS");
  });

  for (const given of bootstrapCases) {
    it(`answers as Consul's own command: ${given.name}`, async () => {
      const answer = await bootstrapAnswer(given, agent.http, files.path, (args, environment) =>
        runPeerage(args, { environment }),
      );
      assert.deepEqual(answer, recorded[given.name]);
    });
  }
});
