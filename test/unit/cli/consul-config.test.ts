import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ConsulClient } from "../../../src/client/index.js";
import {
  AGENT_READY,
  type CommandLineResult,
  type CommandLineWorld,
  runPeerage,
  startAgent,
} from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";

let directory: AsyncDisposable & { readonly path: string };
let files = 0;
before(async () => {
  directory = await temporaryDirectory();
});
after(() => directory[Symbol.asyncDispose]());

/** A file with this in it, named by its place in the test run. */
async function file(content: unknown, extension = "json"): Promise<string> {
  const path = join(directory.path, `config-${files++}.${extension}`);
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

/** Flags that come before any file, so that tests do not meet. */
const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];

async function startAndStop(...args: readonly string[]): Promise<CommandLineResult> {
  return runPeerage(["agent", ...args], { signal: AbortSignal.abort() });
}

/** An agent that is stopped whatever becomes of the test. */
async function withAgent(
  args: readonly string[],
  use: (http: string) => Promise<void>,
  world: CommandLineWorld = {},
): Promise<CommandLineResult> {
  const stopping = new AbortController();
  const { http, result } = await startAgent(["-dev", ...args, ...ports], stopping.signal, world);
  try {
    await use(http);
  } finally {
    stopping.abort();
  }
  return result;
}

describe("peerage agent -config-file", () => {
  it("leads checks through sidecars at the ports of the file", async () => {
    const path = await file({ ports: { expose_min_port: 31_500, expose_max_port: 31_500 } });
    let exposed: unknown;
    await withAgent(["-config-file", path], async (http) => {
      const body = {
        ...{ Name: "web", Port: 80, Check: { HTTP: "http://127.0.0.1:1/", Interval: "10s" } },
        Connect: { SidecarService: { Proxy: { Expose: { Checks: true } } } },
      };
      const url = `http://${http}/v1/agent/service/register`;
      assert.equal((await fetch(url, { method: "PUT", body: JSON.stringify(body) })).status, 200);
      const checks = (await (await fetch(`http://${http}/v1/agent/checks`)).json()) as Record<string, object>;
      exposed = Object.entries(checks).map(([id, check]) => [id, (check as { ExposedPort?: number }).ExposedPort]);
    });
    assert.deepEqual(exposed, [
      ["service:web", 31_500],
      ["service:web-sidecar-proxy:1", 0],
      ["service:web-sidecar-proxy:2", 0],
    ]);
  });

  it("starts with the file that consul/sdk's testutil writes, and names ignored keys once", async () => {
    const data = join(directory.path, "testutil");
    const path = await file({
      node_name: "node-1",
      node_id: "ADF4238A-882B-9DDC-4A9D-5B6758E4159E",
      node_meta: { rack: "r1" },
      performance: { raft_multiplier: 1 },
      bootstrap: true,
      server: true,
      data_dir: data,
      datacenter: "dc7",
      segments: null,
      disable_update_check: true,
      log_level: "debug",
      bind_addr: "127.0.0.1",
      addresses: {},
      ports: { dns: -1, http: 1, https: 1, serf_lan: 1, serf_wan: 1, server: 1, grpc: -1, grpc_tls: 1 },
      acl: { tokens: {} },
      connect: { ca_config: { cluster_id: "11111111-2222-3333-4444-555555555555" }, enabled: true },
      skip_leave_on_interrupt: true,
      peering: { enabled: true },
      version: "1.21.4",
    });
    const { exit, stdout, stderr } = await startAndStop(
      ...["-config-file", path, "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0"],
    );
    assert.equal(exit, 0, stderr);
    const [, datacenter, node, http, , dns] = AGENT_READY.exec(stdout.trim()) ?? [];
    assert.deepEqual([datacenter, node, dns], ["dc7", "node-1", undefined]);
    assert.match(http ?? "", /^127\.0\.0\.1:/);
    const lines = stderr.split("\n").filter((line) => line.includes("are ignored"));
    assert.equal(lines.length, 1);
    assert.equal(
      JSON.parse(lines[0] ?? "").keys,
      "performance, ports.https, ports.serf_lan, ports.serf_wan, ports.server, skip_leave_on_interrupt, version",
    );
  });

  it("has the node id, metadata and certificates of HTTPS that files say; flags come first and later files win", async () => {
    const config = join(directory.path, "conf.d");
    await mkdir(join(config, "below.json"), { recursive: true });
    await writeFile(join(config, "10.hcl"), 'node_name = "first" node_meta { a = "1" } ports { dns = 1 }');
    await writeFile(join(config, "20.json"), '{"Node_Name":"second","node_meta":{"b":"2"},"log_level":"ERR"}');
    await writeFile(join(config, "README"), "none of it");
    const first = await file('node_id = "adf4238a-882b-9ddc-4a9d-5b6758e4159e"\ndatacenter = "dc3"', "hcl");
    const { exit, stderr } = await withAgent(["-config-file", first, "-config-dir", config], async (http) => {
      using client = new ConsulClient({ address: http });
      const { value } = await client.catalog.nodes();
      assert.deepEqual(
        value.map(({ Node, ID, Datacenter, Meta }) => [Node, ID, Datacenter, Meta?.["a"], Meta?.["b"]]),
        [["second", "adf4238a-882b-9ddc-4a9d-5b6758e4159e", "dc3", "1", "2"]],
      );
    });
    assert.deepEqual([exit, stderr], [0, ""]);
  });

  it("founds the cluster with the id that a file says", async () => {
    const path = await file({ connect: { ca_config: { cluster_id: "11111111-2222-3333-4444-555555555555" } } });
    const { exit } = await withAgent(["-config-file", path], async (http) => {
      const answer = await fetch(`http://${http}/v1/connect/ca/roots`);
      assert.match(await answer.text(), /"TrustDomain":"11111111-2222-3333-4444-555555555555\.consul"/);
    });
    assert.equal(exit, 0);
  });

  it("decides by default_intention_policy about calls of which no intention speaks", async () => {
    const path = await file({ default_intention_policy: "deny" });
    const { exit } = await withAgent(["-config-file", path], async (http) => {
      const ClientCertURI = "spiffe://x.consul/ns/default/dc/dc1/svc/web";
      const body = JSON.stringify({ Target: "db", ClientCertURI });
      const authorized = await fetch(`http://${http}/v1/agent/connect/authorize`, { method: "POST", body });
      assert.deepEqual(await authorized.json(), { Authorized: false, Reason: "Default intention policy" });
      const check = await fetch(`http://${http}/v1/connect/intentions/check?source=web&destination=db`);
      assert.deepEqual(await check.json(), { Allowed: false });
    });
    assert.equal(exit, 0);
  });

  it("takes a file without content for one that says nothing, as Consul does", async () => {
    for (const extension of ["json", "hcl"]) {
      const { exit, stderr } = await startAndStop("-dev", "-config-file", await file("", extension), ...ports);
      assert.equal(exit, 0, stderr);
    }
  });

  it("takes the tokens of acl, of which initial_management may do everything", async () => {
    const secret = "8c5e3d9a-1f7b-4a42-9d54-1f0d2c3b4a59";
    const path = await file({ acl: { enabled: true, default_policy: "deny", tokens: { master: secret } } });
    const { exit } = await withAgent(["-config-file", path], async (http) => {
      for (const [token, status] of [
        ["", 403],
        [secret, 200],
      ] as const) {
        for (const [method, place, body] of [
          ["PUT", "agent/service/register", '{"Name":"web"}'],
          ["PUT", "config", '{"Kind":"service-intentions","Name":"web","Sources":[{"Name":"*","Action":"allow"}]}'],
          ["POST", "peering/token", '{"PeerName":"east"}'],
          ["GET", "operator/raft/configuration", undefined],
          ["GET", "agent/metrics", undefined],
        ] as const) {
          const headers = { "X-Consul-Token": token };
          const response = await fetch(`http://${http}/v1/${place}`, { method, headers, ...(body && { body }) });
          assert.equal(response.status, status, `${method} ${place}: ${await response.text()}`);
        }
      }
    });
    assert.equal(exit, 0);
  });

  it("takes the token of agent_recovery for the agent itself, by the name it really has", async () => {
    const acl = { enabled: true, default_policy: "deny", tokens: { agent_recovery: "r3c0very" } };
    const path = await file({ node_name: "of-the-file", acl });
    const { exit } = await withAgent(["-config-file", path, "-node=of-the-flag"], async (http) => {
      const headers = { "X-Consul-Token": "r3c0very" };
      assert.equal((await fetch(`http://${http}/v1/agent/self`, { headers })).status, 200);
      const body = '{"Name":"web"}';
      const refused = await fetch(`http://${http}/v1/agent/service/register`, { method: "PUT", headers, body });
      assert.equal(refused.status, 403);
    });
    assert.equal(exit, 0);
  });

  it("registers the services and checks it defines, and on SIGHUP those of the changed file alone", async () => {
    const path = await file({
      service: {
        name: "web",
        port: 80,
        meta: { some_key: "kept" },
        tagged_addresses: { my_lan: { address: "10.0.0.1", port: 1 } },
        check: { id: "web-ttl", ttl: "30s", status: "passing", success_before_passing: 1 },
        connect: { sidecar_service: { proxy: { upstreams: [{ destination_name: "db", local_bind_port: 9 }] } } },
      },
      services: [
        { id: "api-1", name: "api", port: 1 },
        // Of two the last one counts.
        { id: "api-1", name: "api", check: { h2ping: "127.0.0.1:1", h2ping_use_tls: false, interval: "1h" } },
      ],
      checks: [{ name: "node-ttl", ttl: "1h", deregistercriticalserviceafter: "2h" }],
    });
    let hangUp = (): void => {};
    const world: CommandLineWorld = {
      onHangUp: (action) => {
        hangUp = action;
      },
    };
    const { exit } = await withAgent(
      ["-config-file", path],
      async (http) => {
        const read = async (what: string): Promise<Record<string, Record<string, unknown>>> =>
          (await fetch(`http://${http}/v1/agent/${what}`)).json() as never;
        const services = await read("services");
        assert.deepEqual(Object.keys(services).sort(), ["api-1", "web", "web-sidecar-proxy"]);
        assert.deepEqual(services["web"]?.["Meta"], { some_key: "kept" });
        assert.equal(services["api-1"]?.["Port"], 0);
        assert.deepEqual(services["web"]?.["TaggedAddresses"], { my_lan: { Address: "10.0.0.1", Port: 1 } });
        assert.match(JSON.stringify(services["web-sidecar-proxy"]), /"DestinationName":"db".*"LocalBindPort":9/);
        const checks = await read("checks");
        assert.deepEqual(
          Object.values(checks)
            .filter(({ ServiceID }) => ServiceID !== "web-sidecar-proxy")
            .map(({ CheckID, Type, Status, ServiceID }) => [CheckID, Type, Status, ServiceID]),
          [
            ["node-ttl", "ttl", "critical", ""],
            ["service:api-1", "h2ping", "critical", "api-1"],
            ["web-ttl", "ttl", "passing", "web"],
          ],
        );
        await fetch(`http://${http}/v1/agent/check/warn/web-ttl?note=half`, { method: "PUT" });
        await writeFile(
          path,
          JSON.stringify({ service: { name: "web", port: 81, check: { id: "web-ttl", ttl: "30s" } } }),
        );
        hangUp();
        await eventually(async () => !Object.hasOwn(await read("services"), "api-1"), "the service is gone");
        assert.equal((await read("services"))["web"]?.["Port"], 81);
        await eventually(
          async () => !/"(?:node-ttl|service:api-1)"/.test(JSON.stringify(await read("checks"))),
          "the other checks are gone",
        );
        const kept = (await read("checks"))["web-ttl"];
        assert.deepEqual([kept?.["Status"], kept?.["Output"]], ["warning", "half"]);
      },
      world,
    );
    assert.equal(exit, 0);
  });

  it("switches peering off", async () => {
    const path = await file({ peering: { enabled: false } });
    const { exit } = await withAgent(["-config-file", path], async (http) => {
      const response = await fetch(`http://${http}/v1/peering/token`, { method: "POST", body: '{"PeerName":"east"}' });
      assert.equal(response.status, 500);
      assert.match(await response.text(), /peering must be enabled to use this endpoint/);
    });
    assert.equal(exit, 0);
  });

  it("refuses in Consul's words the files that Consul refuses, and those that cannot work here", async () => {
    const refusals: readonly (readonly [content: string, extension: string, error: string])[] = [
      ['{"foo":1}', "json", "1 error occurred: invalid config key foo"],
      [
        '{"ports":{"httpx":1,"y":2},"bar":3}',
        "json",
        "3 errors occurred: invalid config key ports.httpx; invalid config key ports.y; invalid config key bar",
      ],
      [
        'services { name = "x" foo = 2 } services { name = "y" foo = 1 }',
        "hcl",
        "2 errors occurred: invalid config key services[0].foo; invalid config key services[1].foo",
      ],
      [
        '{"service":{"name":"x","connect":{"sidecar_service":{"foo":1}},"check":{"bar":1}}}',
        "json",
        "2 errors occurred: invalid config key service.connect.sidecar_service.foo; invalid config key service.check.bar",
      ],
      [
        '{"ports":{"http":"x"}}',
        "json",
        "1 error decoding: 'ports.http' expected type 'int', got unconvertible type 'string'",
      ],
      ['{"ports":3}', "json", "1 error decoding: 'ports' expected a map, got 'float64'"],
      ['{"server":"yes"}', "json", "1 error decoding: 'server' expected type 'bool', got unconvertible type 'string'"],
      [
        '{"node_meta":{"a":1},"retry_join":["a",3]}',
        "json",
        "2 errors decoding: 'node_meta[a]' expected type 'string', got unconvertible type 'float64'; 'retry_join[1]' expected type 'string', got unconvertible type 'float64'",
      ],
      ["[1]", "json", "the file holds no JSON object"],
      [" ", "json", "the file holds no JSON object"],
      ['{"data_dir":', "json", "At 1:13: unexpected end of JSON input"],
      ["{}", "txt", "has unknown extension; must be .hcl or .json, or config format must be set"],
      ["ports { http = 70000 }", "hcl", "ports.http: invalid port: 70000"],
      [
        "ports { expose_min_port = 9 expose_max_port = 8 }",
        "hcl",
        "expose_min_port must be less than expose_max_port. To disable, set both to zero.",
      ],
      ['log_level = "foo"', "hcl", "Invalid log level: foo. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]"],
      ['connect { ca_config { cluster_id = "xyz" } }', "hcl", "cluster_id was supplied but was not a valid UUID"],
      ["connect { ca_config { cluster_id = 7 } }", "hcl", "cluster_id was supplied but was not a string"],
      ['default_intention_policy = "ask"', "hcl", "Unsupported default intention policy: ask"],
      ['node_id = "xyz"', "hcl", "failed to setup node ID: specified NodeID is invalid"],
      ['datacenter = "x y"', "hcl", "datacenter can only contain lowercase alphanumeric, - or _ characters"],
      ['bind_addr = "127.0.0.999"', "hcl", "bind_addr: invalid ip address: 127.0.0.999"],
      ['client_addr = "127.0.0.1 ::1"', "hcl", "client_addr: multiple addresses found: 127.0.0.1 ::1"],
      ['addresses { http = "unix:///tmp/x" }', "hcl", "addresses.http cannot be a unix socket"],
      ['bind_addr = "{{ GetPrivateIP }}"', "hcl", "bind_addr: error parsing"],
      ["server = false", "hcl", "this agent is always the server of its datacenter"],
      ['acl { enabled = true default_policy = "x" }', "hcl", "Invalid acl.default_policy"],
      ['acl { enabled = true tokens { default = "s3cret" } }', "hcl", "Invalid acl.tokens.default"],
      ['acl { tokens { default = "x" s3cret } }', "hcl", "a key needs '=' or '{', got \"}\""],
      ["encrypt = s3cret", "hcl", "unexpected token a name, expected a value"],
      ['service { name = "web" check { http = "http://x" } }', "hcl", 'Failed to register service "web": '],
    ];
    for (const [content, extension, error] of refusals) {
      const path = await file(content, extension);
      const { exit, stdout, stderr } = await startAndStop("-dev", "-config-file", path, ...ports);
      assert.deepEqual([exit, stdout], [1, ""], content);
      assert.ok(stderr.includes(error), `${content}: ${stderr}`);
      assert.doesNotMatch(stderr, /s3cret/);
    }
    for (const [args, error] of [
      [
        ["-config-file", "/nowhere.json"],
        /config: Open failed on \/nowhere\.json\. open \/nowhere\.json: no such file/,
      ],
      [["-config-dir", "/nowhere"], /config: Open failed on \/nowhere\. /],
      [
        ["-config-file", await file("{}", "txt"), "-config-format=xml"],
        /-config-format must be either 'hcl' or 'json'/,
      ],
    ] as const) {
      const { exit, stderr } = await startAndStop("-dev", ...args, ...ports);
      assert.equal(exit, 1);
      assert.match(stderr, error);
    }
    const { exit } = await startAndStop(
      "-dev",
      "-config-file",
      await file("{}", "txt"),
      "-config-format=json",
      ...ports,
    );
    assert.equal(exit, 0);
  });
});

describe("peerage agent with the flags of consul agent", () => {
  it("goes by them before Consul's files, and after its own flags", async () => {
    const path = await file({ node_meta: { rack: "r1", row: "1" }, client_addr: "127.0.0.9", ports: { grpc_tls: 1 } });
    const nodeId = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
    const flags = ["-server", "-bootstrap-expect=1", "-client", "127.0.0.1", "-node-id", nodeId];
    const metas = ["-node-meta", "rack:r2", "-node-meta=address:a:b", "-node-meta=bare"];
    const { stderr } = await withAgent(["-config-file", path, ...flags, ...metas], async (http) => {
      const self = await fetch(`http://${http}/v1/agent/self`);
      const { Config, Meta } = JSON.parse(await self.text());
      assert.equal(Config.NodeID, nodeId);
      const { rack, row, address, bare } = Meta;
      assert.deepEqual({ rack, row, address, bare }, { rack: "r2", row: "1", address: "a:b", bare: "" });
    });
    assert.doesNotMatch(stderr, /are ignored/);
  });

  it("switches ports off by them, and reads pieces of HCL after them", async () => {
    const off = ["-http-port=-1", "-dns-port=9", "-grpc-tls-port=-1", "-hcl", "ports { dns = -1 }"];
    const { exit, stdout } = await startAndStop("-dev", "-node=n", ...off);
    assert.deepEqual([exit, stdout], [0, "Peerage agent ready: datacenter=dc1 node=n \n"]);
    const { exit: refused, stderr } = await startAndStop("-dev", "-hcl", "ports { nope = 1 }", ...ports);
    assert.equal(refused, 1);
    assert.match(stderr, /^failed to parse flags-0\.hcl: 1 error occurred: invalid config key ports\.nope\n$/);
  });

  it("names those that it does not go by, without their values", async () => {
    const joining = ["-encrypt=s3cret", "-retry-join=10.0.0.1", "-retry-join", "10.0.0.2", "-raft-protocol=3", "-ui"];
    const { exit, stderr } = await startAndStop("-dev", ...joining, ...ports);
    assert.equal(exit, 0);
    const [line = "{}", ...others] = stderr.split("\n").filter((each) => each.includes("are ignored"));
    assert.deepEqual(others, []);
    assert.equal(JSON.parse(line).keys, "encrypt, raft_protocol, retry_join, ui_config");
    assert.doesNotMatch(stderr, /s3cret/);
  });

  it("refuses values that cannot be meant", async () => {
    for (const [args, error] of [
      [["-client", ""], "Invalid client: it cannot be empty"],
      [["-node-meta", " "], "Invalid node-meta: it cannot be empty"],
      [["-client", "localhost"], "client_addr: invalid ip address: localhost"],
      [["-http-port", "x"], 'invalid value "x" for flag -http-port: strconv.Atoi: parsing "x": invalid syntax'],
      [["-server=false"], "Invalid server: false: this agent is always the server of its datacenter"],
      [["-pid-file", join(directory.path, "nowhere", "pid")], "Could not open pid file: ENOENT"],
    ] as const) {
      const { exit, stderr } = await startAndStop("-dev", ...args, "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0");
      assert.equal(exit, 1, args.join(" "));
      assert.ok(stderr.startsWith(error), stderr);
    }
  });

  it("takes Consul's number for any number of connections of a client", async () => {
    const { exit } = await startAndStop("-dev", "-hcl", "limits { http_max_conns_per_client = -1 }", ...ports);
    assert.equal(exit, 0);
  });

  it("writes the number of its process to -pid-file, and removes the file when it ends", async () => {
    const path = join(directory.path, "agent.pid");
    await withAgent(["-pid-file", path], async () => assert.match(await readFile(path, "utf8"), /^\d+$/));
    await assert.rejects(readFile(path), /ENOENT/);
  });
});

describe("peerage version", () => {
  it("tells the version of Consul that it follows to programs, and both to people", async () => {
    const { exit, stdout } = await runPeerage(["version", "-format=json"]);
    assert.equal(exit, 0);
    const { Version, Peerage } = JSON.parse(stdout);
    assert.deepEqual([Version, Peerage], ["1.21.4", "0.0.0"]);
    assert.deepEqual(await runPeerage(["version"]), {
      exit: 0,
      stdout: "Peerage v0.0.0\nHas the interfaces of Consul v1.21.4\n",
      stderr: "",
    });
    assert.deepEqual(await runPeerage(["version", "-format=x"]), {
      exit: 1,
      stdout: "",
      stderr: "Unknown format: x\n",
    });
  });
});
