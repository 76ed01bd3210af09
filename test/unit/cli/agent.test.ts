import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readdirSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ConsulClient, PeeringError } from "../../../src/client/index.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { PeeringService } from "../../../src/wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { WatchService } from "../../../src/wire/gen/peerage/watch/v1/watch_pb.js";
import {
  AGENT_READY,
  type CommandLineResult,
  type CommandLineWorld,
  type RunningAgent,
  runPeerage,
  startAgent,
} from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";
import { ask } from "../dns/client.js";

/** Ports that are free, so that tests do not meet. */
const ports: readonly string[] = ["-http=127.0.0.1:0", "--grpc-tls", "127.0.0.1:0", "-dns=127.0.0.1:0"];

/** @param stderr - a file that is open; default: a pipe. */
function program(args: readonly string[], stderr: number | "pipe" = "pipe"): ChildProcess {
  // Compiled tests run the compiled program.
  const entry = import.meta.url.endsWith(".ts") ? ["--import", "tsx", "src/cli/main.ts"] : ["dist/cli/main.js"];
  return spawn(process.execPath, [...entry, ...args], { stdio: ["ignore", "pipe", stderr] });
}

/** An agent that is told to stop at once: what counts is whether it starts. */
async function startAndStop(args: readonly string[], world: CommandLineWorld = {}): Promise<CommandLineResult> {
  return runPeerage(["agent", ...args], { signal: AbortSignal.abort(), ...world });
}

describe("peerage agent", () => {
  it("says when it is ready, serves, and on SIGTERM ends with code 0 though a reader waits", async () => {
    const child = program(["agent", "-dev", "-datacenter", "dc7", "-node=n7", ...ports]);
    try {
      assert.ok(child.stdout !== null && child.stderr !== null);
      child.stderr.resume();
      const lines = createInterface({ input: child.stdout });
      const [line]: unknown[] = await once(lines, "line");
      const [, datacenter, node, http, grpc] = AGENT_READY.exec(String(line)) ?? [];
      assert.deepEqual([datacenter, node], ["dc7", "n7"]);
      using client = new ConsulClient({ address: http ?? "" });
      await client.catalog.register({ Node: "n1", Address: "10.0.0.1", Service: { Service: "web", Port: 80 } });
      const { value, index } = await client.health.service("web");
      assert.deepEqual(
        value.map(({ Service, Node }) => [Service.Service, Service.Port, Node.Address, Node.Datacenter]),
        [["web", 80, "10.0.0.1", "dc7"]],
      );
      const token = await client.peerings.generateToken({ peerName: "east" });
      const inspected = await runPeerage(["peering", "token", "inspect", "-format=json", token]);
      assert.deepEqual(JSON.parse(inspected.stdout).ServerAddresses, [grpc]);
      const waiting = client.health.service("web", index === undefined ? {} : { index });
      const refused = assert.rejects(waiting, (error) => error instanceof PeeringError && error.code === "unavailable");
      // The server has the waiting request once it has answered a later one.
      await client.peerings.list();
      child.kill("SIGTERM");
      assert.deepEqual(await once(child, "exit"), [0, null]);
      await refused;
    } finally {
      child.kill("SIGKILL");
    }
  });

  it("is the one server of its catalog, also under another name later, and the name server of its domain", async () => {
    await using data = await temporaryDirectory();
    for (const node of ["first", "second"]) {
      const stopping = new AbortController();
      const flags = ["-node", node, "-data-dir", data.path, "-advertise=198.51.100.7:8503", ...ports];
      const { http, dns, result } = await startAgent(flags, stopping.signal);
      using client = new ConsulClient({ address: http });
      assert.deepEqual((await client.catalog.services()).value, { consul: [] });
      const { value } = await client.health.service("consul", { passing: true });
      assert.deepEqual(
        value.map(({ Node, Checks }) => [Node.Node, Node.Address, Checks.map(({ CheckID }) => CheckID)]),
        [[node, "198.51.100.7", ["serfHealth"]]],
      );
      // As recorded of Consul's servers.
      const { code, answers, additionals } = await ask(dns, { name: "consul", type: "NS" });
      assert.deepEqual(
        [code, answers, additionals],
        ["NOERROR", [`consul 0 NS ${node}.node.dc1.consul`], [`${node}.node.dc1.consul 0 A 198.51.100.7`]],
      );
      stopping.abort();
      assert.equal((await result).exit, 0);
    }
  });

  it("takes as many connections as its flags say, over all ports and to HTTP from one source", async () => {
    for (const [flag, incident] of [
      ["-http-connections-per-source=1", "connection-refused-to-source"],
      ["-max-connections=1", "connection-refused"],
    ] as const) {
      const stopping = new AbortController();
      const { http, result } = await startAgent(["-dev", ...ports, flag], stopping.signal);
      const [host = "", port] = http.split(":");
      const [first, second] = [connect(Number(port), host), connect(Number(port), host)];
      await once(first, "connect");
      await once(second.resume(), "close");
      assert.ok(!first.closed);
      first.destroy();
      stopping.abort();
      const { exit, stderr } = await result;
      assert.equal(exit, 0);
      assert.match(stderr, new RegExp(`\\b${incident}\\b`));
    }
  });

  it("bounds what its DNS sends over UDP as its flags say", async () => {
    const stopping = new AbortController();
    const flags = ["-dev", ...ports, "-dns-max-udp-bytes=600", "-dns-large-answers=1", "-dns-kept-reply-bytes=0"];
    const { http, dns, result } = await startAgent(flags, stopping.signal);
    using client = new ConsulClient({ address: http });
    for (let index = 0; index < 40; index++) {
      const Address = `10.0.0.${index}`;
      await client.catalog.register({ Node: `n${index}`, Address, Service: { Service: "web" } });
    }
    const question = { name: "web.service.consul", type: "A", edns: 4_096 };
    const first = await ask(dns, question);
    assert.deepEqual([first.answers.length, first.flags], [34, "aa tc rd"]);
    assert.ok(first.packet.length <= 600);
    // One a second: sooner or later two fall into one.
    let other = first;
    while (other.answers.length > 0) other = await ask(dns, question);
    assert.equal(other.flags, "aa tc rd");
    assert.equal((await ask(dns, { ...question, transport: "tcp" })).answers.length, 40);
    stopping.abort();
    assert.equal((await result).exit, 0);
  });

  it("bounds bodies and records as its flags say", async () => {
    const stopping = new AbortController();
    const limits = [
      "-http-max-body-values=1000",
      "-http-max-checks=1",
      "-http-max-records=5",
      "-query-template-characters=10",
      "-subset-filter-characters=20",
      "-inline-certificate-characters=30",
    ];
    const { http, result } = await startAgent(["-dev", ...ports, ...limits], stopping.signal);
    const answer = async (path: string, json: object, method = "PUT"): Promise<readonly unknown[]> => {
      const response = await fetch(`http://${http}${path}`, { method, body: JSON.stringify(json) });
      return [response.status, await response.text()];
    };
    const register = "/v1/agent/service/register";
    const many = { Name: "web", Tags: Array.from({ length: 1_000 }, () => "t") };
    assert.deepEqual(await answer(register, many), [413, "Request body has too many JSON values, max: 1000."]);
    const checks = [{ TTL: "1m" }, { TTL: "1m" }];
    assert.deepEqual(await answer(register, { Name: "web", Checks: checks }), [
      413,
      "Registration contains too many checks (2 > 1)",
    ]);
    const named = [1, 2, 3, 4, 5].map((port) => ({ Name: `p${port}`, Port: port }));
    assert.deepEqual(await answer(register, { Name: "web", Ports: named }), [
      413,
      "Request body has too many JSON objects, max: 5.",
    ]);
    const template = { Name: "q", Template: { Type: "name_prefix_match" }, Service: { Service: "longer than 10" } };
    assert.deepEqual(await answer("/v1/query", template, "POST"), [
      429,
      "the texts of a query template have more than 10 characters",
    ]);
    const resolver = { Kind: "service-resolver", Name: "web", Subsets: { a: { Filter: "Service.Meta.v == 12" } } };
    assert.deepEqual(await answer("/v1/config", resolver), [200, "true"]);
    const longer = { ...resolver, Subsets: { a: { Filter: "Service.Meta.v == 1" }, b: { Filter: "Checks is empty" } } };
    assert.deepEqual(await answer("/v1/config", longer), [
      429,
      "the filters of the subsets have more than 20 characters",
    ]);
    const certificate = {
      Kind: "inline-certificate",
      Name: "c",
      Certificate: "x".repeat(20),
      PrivateKey: "x".repeat(20),
    };
    assert.deepEqual(await answer("/v1/config", certificate), [
      429,
      "the certificate and its key have more than 30 characters",
    ]);
    stopping.abort();
    assert.equal((await result).exit, 0);
  });

  it("bounds what it keeps of answers as its flags say", async () => {
    const stopping = new AbortController();
    const limits = ["-http-kept-answer-bytes=5000", "-http-kept-text-bytes=500"];
    const { http, result } = await startAgent(["-dev", ...ports, ...limits], stopping.signal);
    using client = new ConsulClient({ address: http });
    for (let index = 0; index < 40; index++) {
      const service = { Service: `web-${index}` };
      await client.catalog.register({ Node: "n1", Address: "10.0.0.1", Service: service });
    }
    for (let index = 0; index < 10; index++) {
      const answer = await fetch(`http://${http}/v1/health/service/web-${index}`);
      assert.equal(answer.status, 200);
      await answer.text();
    }
    assert.equal(Object.keys((await client.catalog.services()).value).length, 41, "with `consul`");
    stopping.abort();
    const { exit, stderr } = await result;
    assert.equal(exit, 0);
    assert.match(stderr, /\bkept-answer-dropped\b/);
    assert.match(stderr, /\bkept-texts-full\b/);
  });

  it("bounds what calls hold as its flags say, those over HTTP and others together", async () => {
    const stopping = new AbortController();
    const limits = [
      "-http-waiting-per-source=1",
      "-http-body-bytes-per-source=2000",
      "-http-unsent-bytes-per-source=1",
    ];
    const { http, result } = await startAgent(["-dev", ...ports, ...limits], stopping.signal);
    const watches = createClient(
      WatchService,
      createConnectTransport({ baseUrl: `http://${http}`, httpVersion: "1.1" }),
    );
    const watching = new AbortController();
    await watches.watchPeerings({}, { signal: watching.signal })[Symbol.asyncIterator]().next();
    const answer = async (path: string, init?: RequestInit): Promise<readonly unknown[]> => {
      const response = await fetch(`http://${http}${path}`, init);
      return [response.status, await response.text()];
    };
    const waiting = "too many calls from 127.0.0.1 wait: at most 1 may";
    assert.deepEqual(await answer("/v1/peerings?index=1000"), [429, waiting]);
    const body = '{"Kind":"mesh"}'.padEnd(2_001);
    const bodies = "too many bodies from 127.0.0.1 are being received";
    assert.deepEqual(await answer("/v1/config", { method: "PUT", body }), [429, bodies]);
    assert.deepEqual(await answer("/v1/config", { method: "PUT", body: body.slice(0, -1) }), [200, "true"]);
    const [, metrics] = await answer("/v1/agent/metrics?format=prometheus");
    for (const kind of ["wait-refused-to-source", "body-refused-to-source"]) {
      assert.match(String(metrics), new RegExp(`^consul_peerage_incident{kind="${kind}"} 1$`, "m"));
    }
    watching.abort();
    stopping.abort();
    assert.equal((await result).exit, 0);
  });

  it("serves PeeringService and watches on its HTTP port, by gRPC over HTTP/2 and by Connect, until it is stopped", async () => {
    const stopping = new AbortController();
    const { http, result } = await startAgent(["-dev", ...ports], stopping.signal);
    const sessionManager = new Http2SessionManager(`http://${http}`);
    const grpc = createGrpcTransport({ baseUrl: `http://${http}`, sessionManager });
    await createClient(PeeringService, grpc).generateToken({ PeerName: "east" });
    using client = new ConsulClient({ address: http });
    assert.deepEqual(
      (await client.peerings.list()).value.map(({ Name }) => Name),
      ["east"],
    );
    const connect = createConnectTransport({ baseUrl: `http://${http}`, httpVersion: "1.1" });
    let complete = 0;
    const ends = [grpc, connect].map(async (transport) => {
      const seen: (string | undefined)[] = [];
      try {
        for await (const { event } of createClient(WatchService, transport).watchPeerings({})) {
          seen.push(event.case);
          if (event.case === "snapshotComplete" && ++complete === 2) stopping.abort();
        }
      } catch (error) {
        assert.ok(error instanceof ConnectError);
        seen.push(error.rawMessage);
      }
      return seen;
    });
    for (const end of ends) {
      const seen = await end;
      assert.deepEqual([seen[0], seen.at(-1)], ["peering", "the server is shutting down"]);
    }
    assert.equal((await result).exit, 0);
    sessionManager.abort();
  });

  it("peers with another one by command lines alone (CL2, CL4, CL6)", async () => {
    const stopping = new AbortController();
    const a = await startAgent(["-dev", "-datacenter=dc1", ...ports], stopping.signal);
    const b = await startAgent(["-dev", "-datacenter=dc2", ...ports], stopping.signal);
    const at = async ({ http }: { readonly http: string }, line: string, stdin?: string): Promise<string> => {
      const world = { environment: { CONSUL_HTTP_ADDR: http }, ...(stdin !== undefined && { stdin }) };
      const { exit, stdout, stderr } = await runPeerage(line.split(" "), world);
      assert.deepEqual([exit, stderr], [0, ""], line);
      return stdout;
    };
    for (const name of ["web", "db"]) {
      await at(a, `catalog register -node=n1 -address=10.0.0.1 -service=${name} -port=80`);
      await at(a, `services export -name=${name} -consumer-peers=b`);
    }
    const token = (await at(a, "peering generate-token -name=b")).trim();
    const establish = `peering establish -name=a -peering-token=${token}`;
    assert.equal(await at(b, establish), "Successfully established peering connection with a\n");
    await eventually(
      async () => (await at(b, "peering read -name=a -format=json")).includes('"ImportedServices":["db","web"]'),
      "both services arrive",
    );
    assert.match(await at(b, "peering list"), /^Name .*\na {5}ACTIVE {2}2 +0 +\n$/);
    const exported = await at(a, "peering exported-services -name=b -format=json");
    assert.equal(exported, '[{"ID":"db"},{"ID":"web"}]\n');
    assert.equal(await at(b, "catalog services -peer=a"), "db\nweb\n");
    assert.match(await at(b, "catalog nodes -peer=a"), /\nn1 .* 10\.0\.0\.1 {2}dc1\n$/);
    const again = await runPeerage(establish.split(" "), { environment: { CONSUL_HTTP_ADDR: b.http } });
    assert.deepEqual(
      [again.exit, again.stderr],
      [
        1,
        "Error establishing peering for a: Unexpected response code: 403 (a new peering token must be generated: invalid peering establishment secret)\n",
      ],
    );
    await at(b, "peering delete -name=a");
    using client = new ConsulClient({ address: b.http });
    await eventually(async () => (await client.peerings.read("a")).value === undefined, "the peering is gone");
    await eventually(async () => (await at(a, "peering list")).includes("TERMINATED"), "the other side hears of it");
    stopping.abort();
    assert.deepEqual([(await a.result).exit, (await b.result).exit], [0, 0]);
  });

  it("carries services over from one peer to another, as -transit says", async () => {
    const stopping = new AbortController();
    const start = (...more: readonly string[]) => startAgent(["-dev", ...ports, ...more], stopping.signal);
    const [east, west] = await Promise.all([start("-datacenter=east"), start("-datacenter=west")]);
    const hub = await start("-transit=east:west:web", "-transit", "east:west:api", "-transit=west:east:*");
    const at = async ({ http }: RunningAgent, line: string): Promise<string> => {
      const { exit, stdout, stderr } = await runPeerage(line.split(" "), { environment: { CONSUL_HTTP_ADDR: http } });
      assert.deepEqual([exit, stderr], [0, ""], line);
      return stdout;
    };
    for (const [name, agent] of Object.entries({ east, west })) {
      const token = (await at(hub, `peering generate-token -name=${name}`)).trim();
      await at(agent, `peering establish -name=hub -peering-token=${token}`);
      for (const service of ["web", "api", `only-${name}`]) {
        await at(agent, `catalog register -node=${name} -address=10.0.0.1 -service=${service} -port=80`);
        await at(agent, `services export -name=${service} -consumer-peers=hub`);
      }
    }
    const ofHub = async ({ http }: RunningAgent): Promise<string> => {
      using client = new ConsulClient({ address: http });
      return Object.keys((await client.catalog.services({ peer: "hub" })).value).join();
    };
    try {
      await eventually(async () => (await ofHub(west)) === "api,web", "the west has what the rules name of the east's");
      await eventually(async () => (await ofHub(east)) === "api,only-west,web", "the east has all of the west's");
    } finally {
      stopping.abort();
    }
    const results = await Promise.all([east, west, hub].map(({ result }) => result));
    assert.deepEqual(
      results.map(({ exit }) => exit),
      [0, 0, 0],
    );
  });

  it("dials what -forbidden-addresses leaves, and serves PeeringWrite where -allow-peering-write asks for it", async () => {
    const token = (address: string): string =>
      TokenCodec.encode({
        ca: [],
        manualServerAddresses: [],
        serverAddresses: [address],
        serverName: "",
        peerId: "00000000-0000-0000-0000-000000000000",
        establishmentSecret: "00000000-0000-0000-0000-000000000000",
        remote: { partition: "", datacenter: "dc2" },
      });
    const refused = /is not a valid peering server address/;
    for (const [flags, unspecified, loopback, write] of [
      [[], refused, /exchange peering secret/, Code.Unimplemented],
      [["-forbidden-addresses=127.0.0.0/8", "-allow-peering-write"], /exchange peering secret/, refused, undefined],
      [
        ["-forbidden-addresses", "none", "-allow-peering-write=false"],
        /exchange peering secret/,
        /exchange peering secret/,
        Code.Unimplemented,
      ],
    ] as const) {
      const stopping = new AbortController();
      const agent = await startAgent(["-dev", ...flags, ...ports], stopping.signal);
      try {
        using client = new ConsulClient({ address: agent.http });
        const establish = (address: string): Promise<unknown> =>
          client.peerings.establish({ peerName: "east", token: token(address) });
        await assert.rejects(establish("0.0.0.0:1"), unspecified);
        await assert.rejects(establish("127.0.0.1:1"), loopback);
        const baseUrl = `http://${agent.http}`;
        const calls = createClient(PeeringService, createConnectTransport({ baseUrl, httpVersion: "1.1" }));
        const outcome = await calls.peeringWrite({ Peering: { Name: "west" } }).then(
          () => undefined,
          (error: unknown) => error,
        );
        assert.equal(outcome instanceof ConnectError ? outcome.code : outcome, write);
      } finally {
        stopping.abort();
      }
      assert.equal((await agent.result).exit, 0);
    }
    const { exit, stderr } = await startAndStop(["-dev", "-forbidden-addresses=10.0.0.0/99", ...ports]);
    assert.deepEqual([exit, stderr.includes('"10.0.0.0/99" is not a range of addresses')], [1, true]);
  });

  it("makes no file that others can read, whatever the umask", { skip: process.getuid === undefined }, async () => {
    await using directory = await temporaryDirectory();
    const data = join(directory.path, "data");
    const umask = process.umask(0);
    const child = program(["agent", "-data-dir", data, ...ports]);
    process.umask(umask);
    try {
      assert.ok(child.stdout !== null);
      const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
      const [, , , http = ""] = AGENT_READY.exec(String(line)) ?? [];
      using client = new ConsulClient({ address: http });
      const logs = (): string =>
        readdirSync(data)
          .filter((name) => name.endsWith(".log"))
          .join();
      const before = logs();
      // The secret of the first is removed from the files, so the database makes others.
      for (let count = 0; count < 2; count++) await client.peerings.generateToken({ peerName: "east" });
      await eventually(() => logs() !== before, "a new log was begun");
      // The database may remove the former log meanwhile.
      const files = readdirSync(data).flatMap((name) => {
        const mode = statSync(join(data, name), { throwIfNoEntry: false })?.mode;
        return mode === undefined ? [] : [{ name, others: mode & 0o077 }];
      });
      assert.ok(files.length > 1);
      for (const { name, others } of files) assert.equal(others, 0, name);
    } finally {
      child.kill("SIGKILL");
    }
  });

  it("makes a new root with -rotate-root, beside the former one", async () => {
    await using directory = await temporaryDirectory();
    const roots = async (
      ...flags: readonly string[]
    ): Promise<readonly { readonly ID: string; readonly Active: boolean }[]> => {
      const stopping = new AbortController();
      const agent = await startAgent(["-data-dir", directory.path, ...flags, ...ports], stopping.signal);
      const answer: unknown = await (await fetch(`http://${agent.http}/v1/connect/ca/roots`)).json();
      stopping.abort();
      assert.equal((await agent.result).exit, 0);
      assert.ok(typeof answer === "object" && answer !== null && "Roots" in answer && Array.isArray(answer.Roots));
      return answer.Roots;
    };
    const [first] = await roots();
    assert.ok(first?.Active);
    const rotated = await roots("-rotate-root");
    // In the order of their ids, as Consul lists them.
    assert.deepEqual(rotated.map(({ ID, Active }) => [ID === first.ID, Active]).sort(), [
      [false, true],
      [true, false],
    ]);
    assert.deepEqual(
      (await roots()).map(({ ID }) => ID),
      rotated.map(({ ID }) => ID),
    );
  });

  it("goes on when nothing more can be logged", { skip: !existsSync("/dev/full") }, async () => {
    const full = openSync("/dev/full", "w");
    const child = program(["agent", "-dev", "-log-level=debug", ...ports], full);
    try {
      assert.ok(child.stdout !== null);
      const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
      const [, , , http = ""] = AGENT_READY.exec(String(line)) ?? [];
      using client = new ConsulClient({ address: http });
      // Its refusal is logged, and cannot be.
      const token = await client.peerings.generateToken({ peerName: "east" });
      await assert.rejects(client.peerings.establish({ peerName: "self", token }));
      assert.deepEqual((await client.catalog.datacenters()).length, 1);
      child.kill("SIGTERM");
      assert.deepEqual(await once(child, "exit"), [0, null]);
    } finally {
      closeSync(full);
      child.kill("SIGKILL");
    }
  });

  it("keeps its data in a directory, for one process at a time", async () => {
    await using directory = await temporaryDirectory();
    const stopping = new AbortController();
    const options = ["-data-dir", directory.path, ...ports];
    const first = await startAgent(options, stopping.signal);
    using client = new ConsulClient({ address: first.http });
    await client.catalog.register({ Node: "n1", Address: "10.0.0.1" });
    const second = await startAndStop(options);
    assert.equal(second.exit, 1);
    assert.match(second.stderr, /^Error starting the agent: the data directory .* is in use by another process\n/);
    stopping.abort();
    assert.equal((await first.result).exit, 0);
    const again = new AbortController();
    const third = await startAgent(options, again.signal);
    using reader = new ConsulClient({ address: third.http });
    assert.ok((await reader.catalog.nodes()).value.some(({ Node }) => Node === "n1"));
    again.abort();
    assert.equal((await third.result).exit, 0);
  });

  for (const taken of ["http", "grpc-tls", "grpc", "dns"]) {
    it(`fails with the address when the port for -${taken} is in use`, async () => {
      const other = createServer();
      other.listen(0, "127.0.0.1");
      await once(other, "listening");
      const bound = other.address();
      assert.ok(bound !== null && typeof bound === "object");
      const address = `127.0.0.1:${bound.port}`;
      const result = await startAndStop(["-dev", ...ports, `-${taken}=${address}`]);
      assert.equal(result.exit, 1);
      assert.equal(result.stdout, "");
      assert.match(result.stderr, new RegExp(`^Error starting the agent: cannot listen on ${address}: `, "m"));
      other.close();
    });
  }

  it("takes its options from flags, then from the environment, then from a file", async () => {
    await using directory = await temporaryDirectory();
    const config = join(directory.path, "agent.json");
    const [http, grpc, dns] = ["127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"];
    await writeFile(
      config,
      JSON.stringify({ dev: true, datacenter: "file", node: "file", http, "grpc-tls": grpc, dns, log_level: "error" }),
    );
    const environment = {
      PEERAGE_CONFIG: config,
      PEERAGE_NODE: "variable",
      PEERAGE_ADVERTISE: "a.example:1, b.example:2",
    };
    const result = await startAndStop(["--datacenter=flag"], { environment });
    assert.equal(result.exit, 0);
    const [, datacenter, node] = AGENT_READY.exec(result.stdout.trim()) ?? [];
    assert.deepEqual([datacenter, node], ["flag", "variable"]);
    assert.equal(result.stderr, "", "nothing is as urgent as an error");
  });

  it("logs JSON, one object a line, where no people read", async () => {
    const result = await startAndStop(["-dev", ...ports, "-log-level=debug"]);
    const lines = result.stderr.trimEnd().split("\n");
    const last: unknown = JSON.parse(lines.at(-1) ?? "");
    assert.deepEqual(last, { time: "2026-01-01T00:00:00.000Z", level: "info", message: "stopping" });
  });

  const wrong: readonly (readonly [string, readonly string[], RegExp, CommandLineWorld?])[] = [
    ["an unknown flag", ["-dev", "-nope"], /^flag provided but not defined: -nope\nUsage:\n/],
    ["no place for data", [], /^Must specify -data-dir, or -dev to keep no data\n$/],
    ["two places for data", ["-dev", "-data-dir=x"], /^Cannot specify both -dev and -data-dir\n$/],
    ["a bad address", ["-dev", "-http", "8500"], /^Invalid http: "8500" is not host:port\n$/],
    ["a port too large", ["-dev", "-dns", "127.0.0.1:65536"], /^Invalid dns: "127.0.0.1:65536" is not host:port\n$/],
    [
      "a bad level",
      ["-dev", "-log-level", "loud"],
      /^Invalid log-level: "loud" is none of debug, info, warn, error\n$/,
    ],
    [
      "less than no kept DNS replies",
      ["-dev", "-dns-kept-reply-bytes=-1"],
      /^Invalid dns-kept-reply-bytes: "-1" is no number/,
    ],
    [
      "too few bytes of DNS",
      ["-dev", "-dns-max-udp-bytes=511"],
      /^Invalid dns-max-udp-bytes: "511" is no number from 512 to 65467\n$/,
    ],
    [
      "answers of DNS that are not counted",
      ["-dev", "-dns-large-answers", "many"],
      /^Invalid dns-large-answers: "many" is no number from 0 to \d+\n$/,
    ],
    [
      "no room for connections",
      ["-dev", "-max-connections=0"],
      /^Invalid max-connections: "0" is no number from 1 to \d+\n$/,
    ],
    [
      "more descriptors in reserve than there are",
      ["-dev", "-reserved-descriptors=9000000000000000"],
      /^Error starting the agent: of \d+ descriptors, 9000000000000000 are reserved: none is left for connections\n$/,
    ],
    [
      "a limit that is no number",
      ["-dev", "-http-unsent-bytes-per-source=0"],
      /^Invalid http-unsent-bytes-per-source: "0" is no number from 1 to \d+\n$/,
    ],
    ["an invalid rule", ["-dev", "-transit=a:b"], /^Invalid transit: "a:b" is not from:to:service\n$/],
    ["an argument", ["-dev", "now"], /^Unexpected argument: now\n$/],
    ["every address, and none advertised", ["-dev", "-bind", "0.0.0.0"], /^Must specify -advertise: /],
    [
      "a variable that is no boolean",
      [],
      /^Invalid dev: "maybe" is no boolean\n$/,
      { environment: { PEERAGE_DEV: "maybe" } },
    ],
    [
      "a file that is not there",
      ["-config=/nowhere.json"],
      /^Error reading the configuration file \/nowhere\.json: ENOENT/,
    ],
    [
      "a file of another kind",
      ["-config=package.json"],
      /^Error reading the configuration file package\.json: unknown key "name"\n$/,
    ],
  ];
  for (const [what, args, expected, world] of wrong) {
    it(`refuses ${what} with exit code 1`, async () => {
      const result = await startAndStop(args, world);
      assert.equal(result.exit, 1);
      assert.match(result.stderr, expected);
    });
  }
});
