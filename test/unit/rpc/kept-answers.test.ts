import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { type Authorizer, allowAll } from "../../../src/access/authorizer.js";
import { parseAclPolicies, policyAuthorizer } from "../../../src/access/policies.js";
import { systemClock } from "../../../src/base/environment.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import type { Leadership } from "../../../src/host/leadership.js";
import { CallLimits, type HttpHandlerOptions, httpHandler } from "../../../src/http/index.js";
import type { RepeatedRequests } from "../../../src/http/messages.js";
import { operations } from "../../../src/http/routes.js";
import type { ServiceRegistration } from "../../../src/model/registration.js";
import { type HttpServer, httpServer, peeringRpc } from "../../../src/rpc/index.js";
import { RepeatingConnection } from "../../../src/rpc/repeated-requests.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { SeededRandom } from "../../../src/testing/simulator/scheduler.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { secretFor } from "../../support/acl.js";
import { acceleratedClock, eventually } from "../../support/hosts.js";
import { RawClient, type RawResponse, requestText } from "../../support/raw-http.js";

/** A server of a host that counts the requests which its handler sees, with one connection to it. */
class Served implements AsyncDisposable {
  handled = 0;
  readonly port: number;
  readonly #server: HttpServer;
  client: RawClient;

  private constructor(server: HttpServer, port: number, client: RawClient) {
    this.#server = server;
    this.port = port;
    this.client = client;
  }

  static async start(host: PeeringHost, options: HttpHandlerOptions): Promise<Served> {
    const handler = httpHandler(host, options);
    let served: Served | undefined;
    const { repeater } = handler;
    assert.ok(repeater);
    const http = Object.assign(
      (...[request, response]: Parameters<typeof handler>) => {
        if (served !== undefined) served.handled++;
        handler(request, response);
      },
      { repeater },
    );
    const rpc = peeringRpc(host);
    const server = await httpServer({ listen: "127.0.0.1:0", rpc, http });
    const port = Number(/\d+$/.exec(server.address)?.[0]);
    served = new Served(server, port, await RawClient.open(port));
    return served;
  }

  async ask(request: string): Promise<RawResponse> {
    if (this.client.socket.destroyed) this.client = await RawClient.open(this.port);
    this.client.write(request);
    return this.client.answer();
  }

  /** Asks twice. @returns the second answer, and whether the handler has made it. */
  async repeat(request: string): Promise<{ readonly answer: RawResponse; readonly made: boolean }> {
    await this.ask(request);
    const before = this.handled;
    const answer = await this.ask(request);
    return { answer, made: this.handled > before };
  }

  /** Resolves when the server has read what was sent: it has answered others for a while since. */
  async read(): Promise<void> {
    const other = await RawClient.open(this.port);
    for (let count = 0; count < 10; count++) {
      other.write(requestText("GET", "/v1/status/peers"));
      await other.answer();
    }
    other.socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.socket.destroy();
    await this.#server.close();
  }
}

function undated({ status, headers, body }: RawResponse): RawResponse {
  return { status, headers: headers.replace(/^Date: .*\r\n/m, ""), body };
}

function isSame(one: RawResponse, other: RawResponse): boolean {
  return one.status === other.status && one.headers === other.headers && one.body === other.body;
}

/** A cluster with a handler that keeps answers, and one that does not. */
interface Cluster {
  readonly name: string;
  readonly host: PeeringHost;
  readonly keeping: Served;
  readonly fresh: Served;
}

/** Rules that a token has in turn. */
const RULES = [
  'node_prefix "" { policy = "read" }',
  'node_prefix "" { policy = "read" } service "web" { policy = "read" }',
  'node_prefix "" { policy = "read" } service_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }',
];
const EVERYTHING =
  'node_prefix "" { policy = "write" } service_prefix "" { policy = "write" intentions = "write" } agent_prefix "" { policy = "write" } operator = "write" mesh = "write" peering = "write"';
const ALMIGHTY = secretFor("almighty");
const CHANGING = secretFor("changing");

function policies(rules: string, defaultPolicy: "allow" | "deny", isThere: boolean) {
  const changing = isThere ? `token "changing" { secret = "${CHANGING}" rules { ${rules} } }` : "";
  return parseAclPolicies(
    `default_policy = "${defaultPolicy}"\ntoken "almighty" { secret = "${ALMIGHTY}" rules { ${EVERYTHING} } }\n${changing}`,
  );
}

const NAMES = ["web", "db", "api", "web-sidecar-proxy", "gate"];
const NODES = ["n1", "n2", "own"];
const KINDS = ["service-defaults", "service-resolver", "service-intentions", "terminating-gateway", "proxy-defaults"];
const QUERIES = [
  ...[
    "",
    "",
    "",
    "passing",
    "pretty",
    "stale",
    "cached",
    "consistent",
    "near=_agent",
    "merge-central-config",
    "tag=t1",
  ],
  ...["node-meta=a:b", "index=1&wait=1s", "index=99999999&wait=1ms", "dc=dc1", "dc=elsewhere", "ns=x", "sort=name"],
  ...["filter=Node+!=+n1", "filter=ServiceName+==+web", "peer=nobody", "wan=1", "hash=x&wait=1ms", "pem=1"],
];

function chosen<Item>(random: SeededRandom, items: readonly Item[]): Item {
  const item = items[random.below(items.length)];
  assert.ok(item !== undefined);
  return item;
}

const kept = operations.filter(({ method, sources }) => method === "GET" && sources !== undefined);
const others = operations.filter(({ method, sources }) => method === "GET" && sources === undefined);

function pathOf(pattern: string, name: string): string {
  const whole = pattern.replace("*", name);
  return whole.endsWith("/") ? whole + name : whole;
}

function randomQuestion(random: SeededRandom, peer: string): string {
  const { pattern } = chosen(random, kept);
  const kind = chosen(random, KINDS);
  const name =
    pattern === "/v1/config/"
      ? chosen(random, [kind, `${kind}/web`, `${kind}/gate`, `${kind}/global`])
      : chosen(random, [...NAMES, ...NODES, "nothing"]);
  const parts = [chosen(random, QUERIES), random.chance(0.3) ? `peer=${peer}` : ""];
  if (pattern.endsWith("/match")) parts.push("by=destination&name=web");
  if (/(?:exact|check)$/.test(pattern)) parts.push("source=api&destination=web");
  if (random.chance(0.1)) parts.push(`token=${CHANGING}`);
  const query = parts.filter((part) => part !== "").join("&");
  const headers = [
    ...(random.chance(0.6) ? [`X-Consul-Token: ${chosen(random, [ALMIGHTY, CHANGING, CHANGING, "unknown"])}`] : []),
    ...(random.chance(0.3) ? ["Accept-Encoding: gzip"] : []),
    ...(random.chance(0.1) ? ["Origin: https://ui.example.com"] : []),
    ...(random.chance(0.1) ? ["X-Forwarded-For: 10.0.0.1"] : []),
    ...(random.chance(0.1) ? ["Connection: keep-alive"] : []),
  ];
  return requestText("GET", `${pathOf(pattern, name)}${query === "" ? "" : `?${query}`}`, headers);
}

/** A write to a cluster, as its method, path and body. */
function randomWrite(random: SeededRandom): readonly [method: string, path: string, body?: unknown] {
  const name = chosen(random, NAMES);
  const node = chosen(random, ["n1", "n2"]);
  const number = random.below(1_000);
  const isProxy = name === "web-sidecar-proxy";
  const kind = isProxy ? "connect-proxy" : name === "gate" ? "terminating-gateway" : "";
  const service = {
    ...{ ID: `${name}-${random.below(2)}`, Port: 1 + number, Tags: [`t${random.below(3)}`], Kind: kind },
    ...(isProxy ? { Proxy: { DestinationServiceName: "web" } } : {}),
  };
  const status = chosen(random, ["passing", "warning", "critical"]);
  const writes: readonly (() => readonly [string, string, unknown?])[] = [
    () => [
      "PUT",
      "/v1/catalog/register",
      {
        ...{ Node: node, Address: `10.0.0.${random.below(9)}`, NodeMeta: random.chance(0.5) ? { a: "b" } : {} },
        Service: { Service: name, ...service },
        Check: { CheckID: `${service.ID}-check`, Name: "c", ServiceID: service.ID, Status: status },
      },
    ],
    () => [
      "PUT",
      "/v1/catalog/register",
      { Node: node, Address: "10.0.0.1", Check: { CheckID: "n", Name: "n", Status: status } },
    ],
    () => [
      "PUT",
      "/v1/catalog/deregister",
      random.chance(0.2) ? { Node: node } : { Node: node, ServiceID: service.ID },
    ],
    () => ["PUT", "/v1/agent/service/register", { Name: name, ...service }],
    () => ["PUT", `/v1/agent/service/deregister/${service.ID}`],
    () => ["PUT", "/v1/config", { Kind: "service-defaults", Name: "web", Protocol: chosen(random, ["http", "tcp"]) }],
    () => ["PUT", "/v1/config", { Kind: "service-resolver", Name: "web", ConnectTimeout: `${1 + random.below(9)}s` }],
    () => ["PUT", "/v1/config", { Kind: "proxy-defaults", Name: "global", Config: { number } }],
    () => [
      "PUT",
      "/v1/config",
      { Kind: "terminating-gateway", Name: "gate", Services: [{ Name: chosen(random, NAMES) }] },
    ],
    () => [
      "PUT",
      "/v1/config",
      {
        Kind: "service-intentions",
        Name: "web",
        Sources: [{ Name: "api", Action: chosen(random, ["allow", "deny"]) }],
      },
    ],
    () => ["DELETE", `/v1/config/${chosen(random, KINDS.slice(0, 4))}/${chosen(random, ["web", "gate"])}`],
    () => ["PUT", "/v1/internal/service-virtual-ip", { Service: "web", ManualVIPs: [`10.1.0.${random.below(200)}`] }],
    () => ["PUT", "/v1/connect/ca/configuration", { Provider: "consul", Config: { PrivateKeyType: "ec", number } }],
  ];
  return chosen(random, writes)();
}

function writeText(method: string, path: string, body: unknown): string {
  const text = body === undefined ? "" : JSON.stringify(body);
  return requestText(method, path, [`X-Consul-Token: ${ALMIGHTY}`, `Content-Length: ${Buffer.byteLength(text)}`], text);
}

describe("an answer that is kept", () => {
  it("is the one that would be made now, after whatever was written, and for whatever rights", async (t) => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 1_000_000));
    t.diagnostic(`SEED=${seed}`);
    const random = new SeededRandom(seed);
    const authorizer = policyAuthorizer(policies(RULES[0] ?? "", "deny", true));
    const network = memoryNetwork();
    let isLeader = true;
    const leadership: Leadership = {
      get isLeader() {
        return isLeader;
      },
      leaderAddress: "127.0.0.1:1",
      onChange: () => () => {},
    };
    // Both handlers begin at the same time, which some answers tell.
    const wall = Date.now();
    const clock = { ...systemClock, wall: () => wall };
    // So that a time of a stream is told alike whenever it is asked for.
    const whole = {
      ...systemClock,
      now: () => Math.floor(systemClock.now()),
      wall: () => wall + Math.floor(systemClock.now()),
    };
    const options = { authorizer, clock, allowedOrigins: ["https://ui.example.com"] };
    const start = async (name: string, number: number): Promise<Cluster> => {
      const host = await createHost({
        datacenter: `dc${number}`,
        storage: memoryStorage(),
        transport: network.transport({ listen: `127.0.0.${number}:8503` }),
        nodeName: "own",
        leadership,
        clock: whole,
      });
      const keeping = await Served.start(host, options);
      return { name, host, keeping, fresh: await Served.start(host, { ...options, keptAnswerBytes: 0 }) };
    };
    const exporter = await start("exporter", 1);
    const importer = await start("importer", 2);
    const clusters = [exporter, importer];
    const peer = async (): Promise<void> => {
      const token = await exporter.host.peerings.generateToken({ peerName: "importer" });
      await importer.host.peerings.establish({ peerName: "exporter", token });
    };
    try {
      await exporter.host.configEntries.set({
        kind: "exported-services",
        name: "default",
        services: NAMES.map((name) => ({ name, consumers: [{ peer: "importer" }] })),
      });
      await peer();
      const questions = new Map(
        clusters.map(({ name }) => {
          const other = name === "exporter" ? "importer" : "exporter";
          return [name, Array.from({ length: 30 }, () => randomQuestion(random, other))] as const;
        }),
      );
      let asked = 0;
      let compared = 0;
      const check = async ({ name, keeping, fresh }: Cluster): Promise<void> => {
        const question = chosen(random, questions.get(name) ?? []);
        // Updates of the peer may arrive in between.
        for (let attempt = 0; ; attempt++) {
          const before = undated(await fresh.ask(question));
          const answers = [undated(await keeping.ask(question)), undated(await keeping.ask(question))];
          const then = undated(await fresh.ask(question));
          asked += 2;
          if (!isSame(before, then) && attempt < 20) continue;
          for (const answer of answers) assert.deepEqual(answer, then, `SEED=${seed} ${name}: ${question}`);
          compared++;
          return;
        }
      };
      let isPeered = true;
      for (let step = 0; step < 60; step++) {
        const cluster = random.chance(0.6) ? exporter : importer;
        const dice = random.fraction();
        if (dice < 0.1) {
          authorizer.replace(policies(chosen(random, RULES), chosen(random, ["allow", "deny"]), random.chance(0.8)));
        } else if (dice < 0.15) isLeader = !isLeader;
        else if (dice < 0.2) {
          isLeader = true;
          if (isPeered) await importer.host.peerings.delete("exporter");
          else {
            await exporter.host.peerings.delete("importer");
            await eventually(
              () => [exporter, importer].every(({ host }) => host.view.peerings().length === 0),
              "the peerings are gone",
            );
            await peer();
          }
          isPeered = !isPeered;
        } else {
          const side = random.chance(0.5) ? cluster.keeping : cluster.fresh;
          const [method, path, body] = randomWrite(random);
          await side.ask(writeText(method, path, body));
        }
        for (let count = 0; count < 6; count++) await check(random.chance(0.5) ? exporter : importer);
      }
      assert.equal(compared, 360);
      const made = clusters.reduce((sum, { keeping }) => sum + keeping.handled, 0);
      assert.ok(made < 0.9 * asked, `the handler made ${made} of ${asked}: hardly any was kept`);
    } finally {
      for (const { keeping, fresh, host } of clusters) {
        await keeping[Symbol.asyncDispose]();
        await fresh[Symbol.asyncDispose]();
        await host[Symbol.asyncDispose]();
      }
    }
  });
});

/** A kind of change, a read that tells of it, and how it is made. */
interface Change {
  readonly name: string;
  /** Where it is seen. */
  readonly at: "exporter" | "importer";
  readonly request: string;
  readonly make: () => unknown;
  /** How the answer tells of it. Default: it is another one. */
  readonly told?: RegExp;
}

describe("an answer is void", () => {
  it("after a change of anything that it was made of", async () => {
    const network = memoryNetwork();
    const authorizer = policyAuthorizer(policies(RULES[2] ?? "", "deny", true));
    let isLeader = true;
    const leadership: Leadership = {
      get isLeader() {
        return isLeader;
      },
      leaderAddress: "127.0.0.9:1",
      onChange: () => () => {},
    };
    const start = async (name: Change["at"], number: number) => {
      const storage = memoryStorage();
      const authority = await builtInAuthority({ storage });
      const host = await createHost({
        datacenter: `dc${number}`,
        storage,
        authority,
        transport: network.transport({ listen: `127.0.0.${number}:8503` }),
        leadership,
        clock: acceleratedClock(50),
      });
      const [keeping, fresh] = [
        await Served.start(host, { authorizer }),
        await Served.start(host, { authorizer, keptAnswerBytes: 0 }),
      ];
      return { name, host, authority, keeping, fresh };
    };
    const exporter = await start("exporter", 1);
    const importer = await start("importer", 2);
    const ask = (path: string, token = ALMIGHTY): string => requestText("GET", path, [`X-Consul-Token: ${token}`]);
    const register = (port: number): Promise<unknown> =>
      exporter.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port } });
    const changes: readonly Change[] = [
      { name: "the catalog", at: "exporter", request: ask("/v1/health/service/web"), make: () => register(81) },
      {
        name: "imports",
        at: "importer",
        request: ask("/v1/health/service/web?peer=exporter"),
        make: () => register(82),
      },
      {
        name: "a config entry",
        at: "exporter",
        request: ask("/v1/config/service-defaults/web"),
        make: () => exporter.host.configEntries.set({ kind: "service-defaults", name: "web", protocol: "grpc" }),
      },
      {
        name: "roots",
        at: "exporter",
        request: ask("/v1/connect/ca/roots"),
        make: () => exporter.authority.rotate(),
      },
      {
        name: "a stream",
        at: "exporter",
        request: ask("/v1/peerings"),
        make: () =>
          exporter.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "another", port: 1 } }),
        told: /"ExportedServices":\["another"/,
      },
      {
        name: "who leads",
        at: "exporter",
        request: ask("/v1/status/leader"),
        make: () => {
          isLeader = false;
        },
      },
      {
        name: "rights",
        at: "exporter",
        request: ask("/v1/health/service/web", CHANGING),
        make: () => authorizer.replace(policies(RULES[0] ?? "", "deny", true)),
      },
      {
        name: "tokens",
        at: "exporter",
        request: ask("/v1/health/node/n1", CHANGING),
        make: () => authorizer.replace(policies("", "deny", false)),
      },
      {
        name: "a peering",
        at: "importer",
        request: ask("/v1/peerings"),
        make: () => {
          isLeader = true;
          return importer.host.peerings.delete("exporter");
        },
      },
    ];
    try {
      await register(80);
      await exporter.host.configEntries.set({ kind: "service-defaults", name: "web", protocol: "http" });
      await exporter.host.configEntries.set({
        kind: "exported-services",
        name: "default",
        services: [{ name: "*", consumers: [{ peer: "importer" }] }],
      });
      const token = await exporter.host.peerings.generateToken({ peerName: "importer" });
      await importer.host.peerings.establish({ peerName: "exporter", token });
      await eventually(
        () => importer.host.imports.newestIndex > 1n && importer.host.peerings.list()[0]?.state === "active",
        "it is imported",
      );
      for (const { name, at, request, make, told } of changes) {
        const { keeping, fresh } = at === "exporter" ? exporter : importer;
        await eventually(async () => !(await keeping.repeat(request)).made, `an answer about ${name} is kept`);
        const { body } = await keeping.ask(request);
        await make();
        const tells = (answer: RawResponse): boolean => told?.test(answer.body) ?? answer.body !== body;
        await eventually(async () => tells(await fresh.ask(request)), `${name} has changed`);
        const then = await keeping.ask(request);
        assert.ok(tells(then), `${name}: ${then.body}`);
      }
    } finally {
      for (const { keeping, fresh, host } of [importer, exporter]) {
        await keeping[Symbol.asyncDispose]();
        await fresh[Symbol.asyncDispose]();
        await host[Symbol.asyncDispose]();
      }
    }
  });
});

/** A read, writes that leave its answer as it was, and writes after each of which there is another one. */
interface Narrow {
  readonly path: string;
  readonly others: readonly (() => unknown)[];
  readonly own: readonly (() => unknown)[];
}

describe("an answer outlives changes of other things", () => {
  const isSameAsFresh = async (keeping: Served, fresh: Served, path: string, what: string): Promise<void> => {
    const request = requestText("GET", path);
    assert.deepEqual(undated(await keeping.ask(request)), undated(await fresh.ask(request)), `${path}: ${what}`);
  };

  const check = async (keeping: Served, fresh: Served, { path, others, own }: Narrow): Promise<void> => {
    const request = requestText("GET", path);
    const isKept = async (): Promise<boolean> => !(await keeping.repeat(request)).made;
    assert.ok(await isKept(), path);
    for (const [number, change] of others.entries()) {
      await change();
      const before = keeping.handled;
      await isSameAsFresh(keeping, fresh, path, `other change ${number}`);
      assert.equal(keeping.handled, before, `${path}: other change ${number} made it void`);
    }
    for (const [number, change] of own.entries()) {
      assert.ok(await isKept(), path);
      const { body, headers } = undated(await keeping.ask(request));
      await change();
      await isSameAsFresh(keeping, fresh, path, `own change ${number}`);
      const now = undated(await keeping.ask(request));
      assert.notDeepEqual(now, { ...now, body, headers }, `${path}: own change ${number} changed nothing`);
    }
  };

  it("of the catalog", async () => {
    await using host = await createHost({
      datacenter: "dc1",
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
      nodeName: "own",
    });
    await using keeping = await Served.start(host, {});
    await using fresh = await Served.start(host, { keptAnswerBytes: 0 });
    const { catalog, configEntries } = host;
    let port = 1_000;
    const addresses = new Map<string, string>();
    const at = (node: string): { readonly node: string; readonly address: string } => ({
      node,
      address: addresses.get(node) ?? "10.0.0.1",
    });
    const register =
      (node: string, name: string, more: object = {}) =>
      (): Promise<unknown> =>
        catalog.register({ ...at(node), service: { name, id: name, port: ++port, ...more } });
    const sidecar = (node: string, name: string, destination: string): (() => Promise<unknown>) =>
      register(node, name, { kind: "connect-proxy", proxy: { destinationServiceName: destination } });
    const nodeCheck = (node: string, status: string) => (): Promise<unknown> =>
      catalog.register({
        ...at(node),
        checks: [{ checkId: "alive", name: "alive", status, output: `${++port}` }],
      });
    const serviceCheck = (node: string, serviceId: string, status: string) => (): Promise<unknown> =>
      catalog.register({
        ...at(node),
        checks: [{ checkId: `${serviceId}-up`, name: "up", serviceId, status, output: `${++port}` }],
      });
    const move = (node: string) => (): Promise<unknown> => {
      addresses.set(node, `10.0.0.${(++port % 200) + 2}`);
      return catalog.register(at(node));
    };
    const front = async (): Promise<void> => {
      await configEntries.set({ kind: "terminating-gateway", name: "gate", services: [{ name: "db" }] });
      await host.view.settled();
    };
    for (const write of [
      register("n1", "web"),
      register("n2", "db"),
      register("own", "api"),
      register("n2", "gate", { kind: "terminating-gateway" }),
      sidecar("n1", "web-proxy", "web"),
      sidecar("n2", "web-proxy-2", "web"),
      sidecar("n2", "web-proxy-3", "web"),
      () =>
        configEntries.set({
          kind: "exported-services",
          name: "default",
          services: [{ name: "*", consumers: [{ peer: "importer" }] }],
        }),
      register("n2", "gone"),
      () => catalog.deregister({ node: "n2", serviceId: "gone" }),
      nodeCheck("n1", "passing"),
      serviceCheck("n1", "web", "passing"),
      serviceCheck("n2", "db", "passing"),
    ]) {
      await write();
    }
    const ofWeb: Pick<Narrow, "others" | "own"> = {
      others: [register("n2", "db"), serviceCheck("n2", "db", "critical"), nodeCheck("n2", "passing"), move("own")],
      own: [register("n1", "web"), serviceCheck("n1", "web", "warning"), nodeCheck("n1", "critical"), move("n1")],
    };
    const reads: readonly Narrow[] = [
      { path: "/v1/health/service/web", ...ofWeb },
      { path: "/v1/catalog/service/web", ...ofWeb },
      { path: "/v1/health/service/web?passing&filter=Service.Port+!=+1", ...ofWeb },
      {
        path: "/v1/health/service/nothing",
        others: [register("n2", "db")],
        own: [register("n1", "nothing"), () => catalog.deregister({ node: "n1", serviceId: "nothing" })],
      },
      {
        path: "/v1/health/service/gate",
        others: [register("n2", "db")],
        own: [
          front,
          () => catalog.releaseVirtualIps("", ["db"]),
          () => configEntries.delete("terminating-gateway", "gate"),
        ],
      },
      {
        path: "/v1/health/connect/web",
        others: [register("n2", "db"), sidecar("n1", "db-proxy", "db")],
        own: [
          sidecar("n1", "web-proxy", "web"),
          // The index of another one, which changed last, stays.
          sidecar("n2", "web-proxy-2", "db"),
          () => catalog.deregister({ node: "n2", serviceId: "web-proxy-3" }),
        ],
      },
      {
        path: "/v1/catalog/connect/db",
        others: [sidecar("n1", "web-proxy", "web")],
        own: [
          front,
          register("n2", "gate", { kind: "terminating-gateway" }),
          () => configEntries.delete("terminating-gateway", "gate"),
        ],
      },
      {
        path: "/v1/catalog/nodes",
        others: [serviceCheck("n1", "web", "passing"), nodeCheck("n1", "passing")],
        own: [move("n1"), register("n1", "web")],
      },
      {
        path: "/v1/catalog/services",
        others: [serviceCheck("n1", "web", "critical"), nodeCheck("n1", "critical"), move("n1")],
        own: [register("n1", "web", { tags: ["new"] }), register("n1", "api")],
      },
      {
        path: "/v1/catalog/services?node-meta=a:b",
        others: [],
        own: [() => catalog.register({ ...at("n2"), nodeMeta: { a: "b" } })],
      },
      ...["/v1/catalog/node/n1", "/v1/catalog/node-services/n1"].map(
        (path): Narrow => ({
          path,
          others: [register("n2", "db"), serviceCheck("n1", "web", "passing"), nodeCheck("n1", "passing"), move("n2")],
          own: [register("n1", "web"), move("n1"), register("n1", "api")],
        }),
      ),
      {
        path: "/v1/health/node/n1",
        others: [register("n2", "db"), move("n2")],
        own: [nodeCheck("n1", "passing"), serviceCheck("n1", "web", "passing"), nodeCheck("n2", "warning")],
      },
      {
        path: "/v1/health/checks/web",
        others: [register("n2", "db"), move("n2")],
        own: [serviceCheck("n1", "web", "critical"), nodeCheck("n2", "passing")],
      },
      {
        path: "/v1/discovery-chain/web",
        others: [register("n1", "web"), serviceCheck("n1", "web", "passing")],
        own: [() => configEntries.set({ kind: "service-defaults", name: "web", protocol: "http" })],
      },
      {
        path: "/v1/connect/intentions",
        others: [register("n1", "web")],
        own: [
          () =>
            configEntries.set({
              kind: "service-intentions",
              name: "web",
              sources: [{ name: "api", action: "allow" }],
            }),
        ],
      },
      {
        path: "/v1/exported-services",
        others: [sidecar("n1", "web-proxy", "web")],
        own: [
          register("n1", "exported"),
          () => catalog.deregister({ node: "n1", serviceId: "exported" }),
          () => configEntries.set({ kind: "exported-services", name: "default", services: [] }),
        ],
      },
      { path: "/v1/agent/services", others: [register("n1", "web"), move("n1")], own: [register("own", "api")] },
      { path: "/v1/agent/service/api", others: [register("n1", "web")], own: [register("own", "api")] },
      {
        path: "/v1/agent/members",
        others: [register("n1", "web")],
        own: [() => catalog.register({ node: "own", address: "10.0.0.1", id: "aaaaaaaa-0000-4000-8000-000000000001" })],
      },
    ];
    for (const read of reads) await check(keeping, fresh, read);
  });

  it("of imports", async () => {
    const network = memoryNetwork();
    const start = (number: number): Promise<PeeringHost> =>
      createHost({
        datacenter: `dc${number}`,
        storage: memoryStorage(),
        transport: network.transport({ listen: `127.0.0.${number}:8503` }),
        clock: acceleratedClock(50),
      });
    await using exporter = await start(1);
    await using importer = await start(2);
    await using keeping = await Served.start(importer, {});
    await using fresh = await Served.start(importer, { keptAnswerBytes: 0 });
    let port = 1_000;
    const register = async (host: PeeringHost, name: string): Promise<void> => {
      const service = { name, port: ++port };
      await host.catalog.register({ node: "n1", address: "10.0.0.1", service });
      if (host === importer) return;
      await eventually(async () => {
        const [instance] = await importer.imports.instances({ peer: "exporter", service: name });
        return instance?.service.port === service.port;
      }, `${name} is imported`);
    };
    await exporter.configEntries.set({
      kind: "exported-services",
      name: "default",
      services: [{ name: "*", consumers: [{ peer: "importer" }] }],
    });
    const token = await exporter.peerings.generateToken({ peerName: "importer" });
    await importer.peerings.establish({ peerName: "exporter", token });
    for (const name of ["web", "db"]) await register(exporter, name);
    await register(importer, "local");
    const local = [() => register(importer, "local")];
    for (const path of ["/v1/health/service/web?peer=exporter", "/v1/catalog/service/web?peer=exporter"]) {
      await check(keeping, fresh, {
        path,
        others: [...local, () => register(exporter, "db")],
        own: [() => register(exporter, "web")],
      });
    }
    for (const path of ["/v1/catalog/services?peer=exporter", "/v1/catalog/nodes?peer=exporter"]) {
      await check(keeping, fresh, { path, others: local, own: [() => register(exporter, "db")] });
    }
    await check(keeping, fresh, {
      path: "/v1/health/service/local",
      others: [() => register(exporter, "web")],
      own: local,
    });
    // An address that stands for an imported service here is part of how that is shown.
    const proxy = { destinationServiceName: "web" };
    const mesh: readonly ServiceRegistration[] = [
      { name: "gateway", kind: "mesh-gateway", port: 1 },
      { name: "web-sidecar-proxy", kind: "connect-proxy", port: 2, proxy },
    ];
    for (const service of mesh) {
      await exporter.catalog.register({ node: "n1", address: "10.0.0.1", service });
    }
    const path = "/v1/health/connect/web?peer=exporter";
    await eventually(
      async () => (await fresh.ask(requestText("GET", path))).body.includes("consul-virtual"),
      "it has an address",
    );
    await check(keeping, fresh, {
      path,
      others: [() => register(exporter, "db")],
      own: [() => importer.catalog.releaseVirtualIps("exporter", ["web"])],
    });
  });
});

const LEADER = requestText("GET", "/v1/status/leader");
const WEB = requestText("GET", "/v1/health/service/web");

describe("long answers are kept", () => {
  const NODES_READ = requestText("GET", "/v1/catalog/nodes");
  let host: PeeringHost;
  const register = (count: number): Promise<unknown> =>
    host.catalog.registerAll(
      Array.from({ length: count }, (_, number) => ({ node: `node-${number}`, address: "10.0.0.1" })),
    );
  before(async () => {
    host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport: memoryNetwork().transport({}) });
    await register(3_000);
  });
  after(() => host[Symbol.asyncDispose]());

  it("as they were sent, until they change", async () => {
    await using served = await Served.start(host, {});
    for (const parameters of ["", "?pretty"]) {
      for (const headers of [[], ["Accept-Encoding: gzip"]]) {
        const request = requestText("GET", `/v1/catalog/nodes${parameters}`, headers);
        const first = undated(await served.ask(request));
        assert.match(
          first.headers,
          headers.length > 0 ? /^Content-Encoding: gzip\r$/m : /^Transfer-Encoding: chunked\r$/m,
        );
        const { answer, made } = await served.repeat(request);
        assert.equal(made, false);
        assert.deepEqual(undated(answer), first);
      }
    }
    const { body } = await served.ask(NODES_READ);
    assert.equal((JSON.parse(body) as unknown[]).length, 3_000);
    await host.catalog.register({ node: "node-7", address: "10.0.0.7" });
    assert.match((await served.ask(NODES_READ)).body, /"10\.0\.0\.7"/);
  });

  it("and come whole and in the order of requests to a client that reads late", async () => {
    await using served = await Served.start(host, {});
    await served.repeat(NODES_READ);
    const { client } = served;
    client.socket.pause();
    // More than the system takes for a client that does not read: one of them is being sent when the others come.
    const questions = [...Array.from({ length: 24 }, () => NODES_READ), LEADER, NODES_READ];
    for (const question of questions) {
      client.write(question);
      await served.read();
    }
    const { handled } = served;
    const answers = await client.answers(questions.length);
    assert.ok(served.handled > handled, "they waited for the client to read");
    const told = answers.map(({ status, body }) =>
      body.length < 1_000 ? "short" : `${status} ${body === answers[0]?.body}`,
    );
    assert.deepEqual(
      told,
      questions.map((question) => (question === LEADER ? "short" : "200 true")),
    );
  });

  it("and come whole to a client that has ended its side", async () => {
    await using served = await Served.start(host, {});
    const { answer } = await served.repeat(NODES_READ);
    const { client } = served;
    client.socket.pause();
    client.write(NODES_READ);
    client.socket.end();
    await served.read();
    assert.equal((await client.answer()).body, answer.body);
    await eventually(() => client.socket.readableEnded || client.socket.destroyed, "the connection is closed");
  });

  it("as far as there is room for those that are being sent", async () => {
    await using small = await Served.start(host, { keptAnswerBytes: 1_000_000 });
    assert.equal((await small.repeat(NODES_READ)).made, true);
    assert.equal((await small.repeat(LEADER)).made, false);
  });

  it("of no client that went before the end, and none that is too long", async () => {
    await using served = await Served.start(host, {});
    const gone = await RawClient.open(served.port);
    gone.write(LEADER);
    await gone.answer();
    gone.socket.pause();
    gone.write(NODES_READ);
    await served.read();
    gone.socket.destroy();
    await served.read();
    assert.equal((await served.repeat(NODES_READ)).made, false, "it was kept for the next one");
    await register(12_000);
    assert.equal((await served.repeat(NODES_READ)).made, true);
  });
});

describe("answers are kept", () => {
  let host: PeeringHost;
  before(async () => {
    host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport: memoryNetwork().transport({}) });
    await host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
  });
  after(() => host[Symbol.asyncDispose]());

  it("of no operation that tells of more than its sources", async () => {
    await using served = await Served.start(host, {});
    for (const { pattern } of others) {
      const question = requestText("GET", pathOf(pattern, "web"));
      await served.ask(question);
      const { made } = await served.repeat(question);
      assert.ok(made, pattern);
    }
  });

  it("for requests of the same bytes alone, on whichever connection", async () => {
    await using served = await Served.start(host, {});
    assert.equal((await served.repeat(WEB)).made, false);
    for (const header of ["X-Consul-Token: t", "Accept-Encoding: gzip", "Host: 127.0.0.1", "x-other: 1"]) {
      assert.equal(
        (await served.repeat(requestText("GET", "/v1/health/service/web", [header]))).made,
        header.startsWith("Host"),
      );
    }
    const { client } = served;
    served.client = await RawClient.open(served.port);
    await served.ask(LEADER);
    const before = served.handled;
    const answer = await served.ask(WEB);
    assert.equal(served.handled, before);
    assert.match(answer.body, /"Service":"web"/);
    client.socket.destroy();
  });

  it("for no first request of a connection, which shows that it is not silent", async () => {
    await using served = await Served.start(host, {});
    await served.repeat(WEB);
    const other = await RawClient.open(served.port);
    const before = served.handled;
    other.write(WEB);
    await other.answer();
    assert.equal(served.handled, before + 1);
    other.socket.destroy();
  });

  it("and are given in the order of requests, also behind a call that waits", async () => {
    await using served = await Served.start(host, {});
    await served.repeat(LEADER);
    const waiting = requestText("GET", `/v1/health/service/web?index=${host.catalog.revision}`);
    const { handled } = served;
    served.client.write(waiting);
    await eventually(() => served.handled > handled, "it waits");
    served.client.write(LEADER);
    await served.read();
    await host.catalog.register({ node: "n1", address: "10.0.0.2", service: { name: "web", port: 81 } });
    const [first, second] = await served.client.answers(2);
    assert.match(first?.body ?? "", /"Port":81/);
    assert.doesNotMatch(second?.body ?? "", /Port/);
  });

  it("but the same bytes mean nothing in the middle of another request", async () => {
    await using served = await Served.start(host, {});
    await served.repeat(WEB);
    const body = LEADER.repeat(2) + WEB;
    const put = requestText("PUT", "/v1/config", [`Content-Length: ${body.length}`]);
    served.client.write(put);
    // Each comes by itself.
    for (const part of [LEADER, LEADER, WEB]) {
      await served.read();
      served.client.write(part);
    }
    const answer = await served.client.answer();
    assert.equal(answer.status, 400, answer.body);
    assert.match(answer.body, /decod/i);
    // The head of a request that is not complete is no place for another one, either.
    served.client.write("GET /v1/catalog/service/web HTTP/1.1\r\nX-Long: ");
    await served.read();
    served.client.write(WEB);
    const [both] = await served.client.answers(1);
    assert.match(both?.body ?? "", /"ServiceName":"web"/);
    assert.equal((await served.repeat(WEB)).answer.status, 200);
  });

  it("of no call that waited", async () => {
    await using served = await Served.start(host, {});
    const request = requestText("GET", `/v1/health/service/web?index=${host.catalog.index.service("web")}&wait=1ms`);
    assert.ok((await served.repeat(request)).made);
  });

  it("by no handler whose authorizer does not tell of changes, or that is told to keep none", async () => {
    const { revision: _, ...silent } = allowAll;
    const authorizer: Authorizer = silent;
    for (const options of [{ authorizer }, { keptAnswerBytes: 0 }]) {
      await using served = await Served.start(host, options);
      assert.ok((await served.repeat(WEB)).made);
    }
  });

  it("up to so many bytes; those that were asked for longest ago go first", async () => {
    await using served = await Served.start(host, { keptAnswerBytes: 10_000 });
    const questions = Array.from({ length: 20 }, (_, number) =>
      requestText("GET", "/v1/health/service/web", [`x-number: ${number}`]),
    );
    const isMade = async (question: string): Promise<boolean> => {
      const before = served.handled;
      await served.ask(question);
      return served.handled > before;
    };
    const [first = "", second = ""] = questions;
    for (const question of questions) {
      await served.ask(question);
      assert.equal(await isMade(first), false);
    }
    const dropped = (): number => host.incidents.counts().get("kept-answer-dropped") ?? 0;
    assert.ok(dropped() > 0);
    const before = dropped();
    assert.equal(await isMade(second), true);
    assert.equal(dropped(), before + 1);
  });

  it("and count as requests where their rate is bounded", async () => {
    await using served = await Served.start(host, { requestsPerSecond: 3 });
    const statuses: number[] = [];
    for (let count = 0; count < 4; count++) statuses.push((await served.ask(WEB)).status);
    assert.deepEqual(statuses, [200, 200, 200, 429]);
  });

  it("and give way where their source, or all, have not read enough of what they were answered", () => {
    const limits = new CallLimits({ unsentPerSource: 100, unsentInAll: 150 });
    const [one, other] = [new Socket(), new Socket()];
    Object.defineProperty(other, "remoteAddress", { value: "10.0.0.1" });
    const unread = (socket: Socket, bytes: number): (() => void) => {
      const allowance = limits.allowance({ socket }, socket);
      allowance.made(bytes);
      return () => allowance.end();
    };
    const mayAnswer = (): readonly boolean[] => [limits.mayAnswer(one), limits.mayAnswer(other)];
    assert.deepEqual(mayAnswer(), [true, true]);
    const read = unread(one, 100);
    assert.deepEqual(mayAnswer(), [false, true]);
    const readByOther = unread(other, 50);
    assert.deepEqual(mayAnswer(), [false, false]);
    read();
    assert.deepEqual(mayAnswer(), [true, true]);
    readByOther();
  });

  it("and are noted as unread from when the system takes no more until it does, or the client has gone", () => {
    const log: string[] = [];
    let writableLength = 0;
    let taken = (): void => {};
    const socket = Object.assign(new EventEmitter(), {
      write: (_: Uint8Array, done: () => void) => {
        writableLength = 7;
        taken = () => {
          writableLength = 0;
          done();
        };
      },
    });
    Object.defineProperty(socket, "writableLength", { get: () => writableLength });
    const requests: RepeatedRequests = {
      note: () => {},
      answer: () => [Buffer.from("answer!")],
      unread: () => ({
        wait: (bytes) => {
          log.push(`unread ${bytes}`);
          return () => void log.push("read");
        },
        end: () => void log.push("over"),
      }),
    };
    const connection = new RepeatingConnection(
      socket as unknown as Socket,
      requests,
      () => true,
      () => {
        log.push("begun");
        return () => void log.push("answered");
      },
    );
    const bytes = Buffer.from(LEADER);
    assert.equal(connection.answer(bytes), false);
    connection.begin({ method: "GET", httpVersion: "1.1", headers: {} } as IncomingMessage);
    connection.parsed(bytes, true);
    assert.equal(connection.answer(bytes), true);
    assert.equal(connection.answer(bytes), false);
    taken();
    assert.equal(connection.answer(bytes), true);
    socket.emit("close");
    assert.deepEqual(log, ["begun", "unread 7", "read", "answered", "over", "begun", "unread 7", "over"]);
  });
});
