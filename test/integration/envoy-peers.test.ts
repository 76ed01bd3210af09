// Two clusters of ours with real Envoys: the servers and the sidecars of both reach each other through mesh gateways.
import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { connect as connectTls } from "node:tls";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { TokenCodec } from "../../src/token/token-codec.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { peeringServerName } from "../../src/trust/authority.js";
import { providedAuthority } from "../../src/trust/provided-authority.js";
import { application, ask, type Speech } from "../support/applications.js";
import { freePorts, RunningEnvoy, withoutEnvoy } from "../support/envoy.js";
import { addGateway, addService, EnvoyCluster, sayWell } from "../support/envoy-clusters.js";
import { acceleratedClock, eventually, temporaryDirectory } from "../support/hosts.js";
import { intend, serverName } from "../support/mesh.js";
import { type Issued, issue } from "../support/mesh-certificates.js";

const UPSTREAMS = ["web", "api", "rpc", "db", "moved"] as const;
type Upstream = (typeof UPSTREAMS)[number];

/** Paths, and the answers to them where calls are allowed. */
const RIGHT = {
  web: ["hello", "dc1 web hello"],
  api: ["/v1/x", "200 dc1 api /v1/x"],
  rpc: ["/v1/x", "0 dc1 rpc /v1/x"],
} as const;

/** Cluster `one` offers services to cluster `two`, whose program `client` calls them. */
class Mesh implements AsyncDisposable {
  readonly one: EnvoyCluster;
  readonly two: EnvoyCluster;
  readonly envoys: Map<string, RunningEnvoy> = new Map<string, RunningEnvoy>();
  readonly #directory: string;
  readonly #owned: AsyncDisposable[];
  #upstreams: readonly number[] = [];
  #gateways: readonly number[] = [];

  private constructor(one: EnvoyCluster, two: EnvoyCluster, directory: string, owned: AsyncDisposable[]) {
    this.one = one;
    this.two = two;
    this.#directory = directory;
    this.#owned = owned;
  }

  static async open(): Promise<Mesh> {
    const directory = await temporaryDirectory();
    // Peers that were cut off find each other soon.
    const clock = acceleratedClock(2);
    const one = await EnvoyCluster.open("dc1", { host: { clock } });
    const two = await EnvoyCluster.open("dc2", { host: { clock } });
    const mesh = new Mesh(one, two, directory.path, [directory, one, two]);
    try {
      await mesh.#fill();
    } catch (error) {
      await mesh[Symbol.asyncDispose]();
      throw error;
    }
    return mesh;
  }

  async #fill(): Promise<void> {
    const { one, two } = this;
    for (const { host } of [one, two]) {
      await host.configEntries.set({ kind: "mesh", peering: { peerThroughMeshGateways: true } });
      for (const [name, protocol] of [
        ["api", "http"],
        ["rpc", "grpc"],
        ["moved", "http"],
      ] as const) {
        await host.configEntries.set({ kind: "service-defaults", name, protocol });
      }
    }
    this.#gateways = await freePorts(3);
    const [gateway1 = 0, gateway2 = 0, gateway = 0] = this.#gateways;
    await addGateway(one, gateway1, "gateway-1");
    await addGateway(one, gateway2, "gateway-2");
    await addGateway(two, gateway);
    // Gateways lead peers to it.
    for (const { host } of [one, two]) {
      const port = host.listenAddress?.split(":")[1] ?? "";
      await host.catalog.register({
        ...{ node: "n1", address: "127.0.0.1" },
        service: { name: "consul", port: 8_300, meta: { grpc_tls_port: port } },
      });
    }
    for (const [id, side] of [
      ["gateway-1", one],
      ["gateway-2", one],
      ["gateway", two],
    ] as const) {
      await this.start(id, side);
    }
    for (const [name, speech] of [
      ["web", "tcp"],
      ["api", "http"],
      ["rpc", "grpc"],
    ] as const) {
      await this.#service(one, name, speech);
    }
    await this.#service(two, "db", "tcp");
    const consumers = [{ peer: "two" }, { peer: "three" }];
    await one.host.exports.set({ services: ["web", "api", "rpc"].map((name) => ({ name, consumers })) });
    await two.host.configEntries.set({
      ...{ kind: "service-resolver", name: "db" },
      failover: { "*": { targets: [{ peer: "one", service: "web" }] } },
    });
    await two.host.configEntries.set({
      ...{ kind: "service-resolver", name: "moved" },
      redirect: { peer: "one", service: "api" },
    });
    await intend(two.host, "db", [{ name: "client", action: "allow" }]);

    // On a busy machine the answer may come too late, and a token works once.
    const established = async (): Promise<boolean> => {
      const token = await one.host.peerings.generateToken({ peerName: "two" });
      const { serverAddresses } = TokenCodec.decode(token);
      assert.deepEqual(serverAddresses, [`127.0.0.1:${gateway1}`, `127.0.0.1:${gateway2}`]);
      return two.host.peerings.establish({ peerName: "one", token }).then(
        () => true,
        () => false,
      );
    };
    await eventually(established, "the clusters are peered");

    const [app = 0, proxy = 0, ...upstreams] = await freePorts(2 + UPSTREAMS.length);
    this.#upstreams = upstreams;
    // Else five calls that fail before all are told keep it from calling for half a minute.
    const config = { passive_health_check: { enforcing_consecutive_5xx: 0 } };
    const peered = { destinationPeer: "one" };
    const details: Readonly<Partial<Record<Upstream, object>>> = {
      web: peered,
      api: peered,
      // Through the gateway of this cluster, too.
      rpc: { ...peered, meshGateway: { mode: "local" } },
    };
    await addService(
      two,
      "client",
      { app, proxy },
      UPSTREAMS.map((name, at) => ({ destinationName: name, localBindPort: upstreams[at], config, ...details[name] })),
    );
    await this.start("client-sidecar-proxy", two);
    await eventually(() => one.hasTold(5) && two.hasTold(3), "all have been told everything");
  }

  async #service(side: EnvoyCluster, name: string, speech: Speech): Promise<void> {
    const program = await application(`${side.host.datacenter} ${name}`, speech);
    this.#owned.push(program);
    const [proxy = 0] = await freePorts(1);
    await addService(side, name, { app: program.port, proxy });
    await this.start(`${name}-sidecar-proxy`, side);
  }

  /** Starts an Envoy, and waits until it has been told all that it asked for. */
  async start(id: string, { xds }: EnvoyCluster): Promise<RunningEnvoy> {
    const [adminPort = 0] = await freePorts(1);
    const envoy = await RunningEnvoy.start({ id, xds: xds.address, adminPort, directory: this.#directory });
    this.#owned.push(envoy);
    this.envoys.set(id, envoy);
    await eventually(() => envoy.isReady(), `${id} is ready`);
    return envoy;
  }

  envoy(id: string): RunningEnvoy {
    const envoy = this.envoys.get(id);
    if (envoy === undefined) throw new TypeError(`there is no Envoy ${id}`);
    return envoy;
  }

  /** Asks one of the upstreams of the program `client`. */
  ask(upstream: Upstream, path: string): Promise<string> {
    const speech = { web: "tcp", api: "http", rpc: "grpc", db: "tcp", moved: "http" } as const;
    return ask(this.#upstreams[UPSTREAMS.indexOf(upstream)] ?? 0, speech[upstream], path);
  }

  async becomes(upstream: Upstream, path: string, expected: string): Promise<void> {
    let last = "";
    const right = async (): Promise<boolean> => {
      last = await this.ask(upstream, path).catch(String);
      return last === expected;
    };
    await eventually(right, `${upstream} ${path} is answered with "${expected}"`).catch((error: unknown) => {
      throw new Error(`the last answer was "${last}"`, { cause: error });
    });
  }

  /** Ports: two of cluster `one`, and that of cluster `two`. */
  get gateways(): readonly number[] {
    return this.#gateways;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#owned.splice(0).reverse()) await each[Symbol.asyncDispose]();
  }
}

/** Calls again and again, one call after another. */
class Calls {
  done = 0;
  readonly wrong: string[] = [];
  readonly #running: Promise<void>;
  #stopped = false;

  constructor(call: () => Promise<string>, name: string, expected: string) {
    this.#running = (async () => {
      while (!this.#stopped) {
        const answer = await call().catch(String);
        if (answer !== expected) this.wrong.push(`${name}, call ${this.done}, got ${answer}`);
        this.done++;
        // A call that fails at once must not keep all others waiting.
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }
}

/** Asks at a gateway, as a TLS client with this certificate: the answer, or that it is refused. */
async function answerTo(
  { certificatePem, keyPem }: { readonly certificatePem: string; readonly keyPem: string },
  port: number,
  name: string,
  says: string,
): Promise<string> {
  const socket = connectTls({
    ...{ host: "127.0.0.1", port, servername: name, cert: certificatePem, key: keyPem },
    rejectUnauthorized: false,
    // The refusal comes in the handshake then.
    maxVersion: "TLSv1.2",
  });
  const closed = new AbortController();
  socket.once("close", () => closed.abort(new Error("closed in the handshake")));
  try {
    await once(socket, "secureConnect", { signal: closed.signal });
    socket.write(says);
    let text = "";
    for await (const chunk of socket) text += String(chunk);
    return text;
  } catch (error) {
    return `refused: ${error instanceof Error && "code" in error ? String(error.code) : String(error)}`;
  } finally {
    socket.destroy();
  }
}

/** The names in the certificate that a server shows. */
async function namesShown(port: number, servername: string): Promise<string> {
  const socket = connectTls({ host: "127.0.0.1", port, servername, rejectUnauthorized: false });
  try {
    await once(socket, "secureConnect");
    return socket.getPeerCertificate().subjectaltname ?? "";
  } finally {
    socket.destroy();
  }
}

describe("Envoys of two clusters whose servers are peered through mesh gateways", { skip: withoutEnvoy }, () => {
  let mesh: Mesh;
  before(async () => {
    mesh = await Mesh.open();
  });
  after(() => mesh?.[Symbol.asyncDispose]());

  it("carry connections, requests and calls of gRPC, as intentions allow", async () => {
    const { host } = mesh.one;
    await mesh.becomes("api", "/v1/x", "403 RBAC: access denied");
    await mesh.becomes("rpc", "/v1/x", "7 ");
    assert.equal(await mesh.ask("web", "hello"), "");
    const client = { name: "client", peer: "two" };
    const permissions = [{ action: "allow", http: { pathPrefix: "/v1/" } }];
    await intend(host, "web", [{ ...client, action: "allow" }]);
    await intend(host, "api", [{ ...client, permissions }]);
    await intend(host, "rpc", [{ ...client, permissions }]);
    for (const upstream of ["web", "api", "rpc"] as const) {
      const [path, expected] = RIGHT[upstream];
      // Each gateway may have a connection to the sidecar left from before, which ends after one more request.
      for (let inTurn = 0; inTurn < 3; inTurn++) await mesh.becomes(upstream, path, expected);
    }
    assert.equal(await mesh.ask("api", "/v2"), "403 RBAC: access denied");
    assert.equal(await mesh.ask("api", "/v1/../v2"), "403 RBAC: access denied");
    assert.equal(await mesh.ask("rpc", "/v2"), "7 ");
    const passed = (service: string): Promise<number> =>
      mesh.envoy("gateway").statistic(`cluster.${serverName(service, host, "two")}.upstream_cx_total`);
    assert.ok((await passed("rpc")) > 0, "mode local goes through the gateway of the caller");
    assert.equal(await passed("web"), 0, "others go straight to the gateways of the peer");
  });

  it("carry the stream between the servers, through a gateway of each cluster", async () => {
    const { one, two } = mesh;
    const name = peeringServerName("dc1", one.host.trustDomain);
    const passed = (id: string): Promise<number> => mesh.envoy(id).statistic(`cluster.${name}.upstream_cx_total`);
    const atAcceptor = async (): Promise<number> => (await passed("gateway-1")) + (await passed("gateway-2"));
    assert.ok((await atAcceptor()) > 0, "a gateway of the acceptor was on the way of the stream");
    // The dialer may have gone around its own gateway, while that was not told of the peering yet.
    const former = await passed("gateway");
    assert.match(await namesShown(mesh.gateways[2] ?? 0, name), new RegExp(`DNS:${name}`));
    assert.equal(await passed("gateway"), former + 1, "the gateway of the dialer leads to that of the acceptor");
    assert.equal(two.host.peerings.read("one")?.state, "active");
  });

  it("fail over to the peer while the own instances are critical, and come back", async () => {
    await mesh.becomes("db", "hello", "dc2 db hello");
    await sayWell(mesh.two, "db-sidecar-proxy", false);
    await mesh.becomes("db", "hello", "dc1 web hello");
    await sayWell(mesh.two, "db-sidecar-proxy", true);
    await mesh.becomes("db", "hello", "dc2 db hello");
  });

  it("are redirected to the peer", async () => {
    await mesh.becomes("moved", "/v1/x", "200 dc1 api /v1/x");
    assert.equal(await mesh.ask("moved", "/v2"), "403 RBAC: access denied");
  });

  it("lose no call while roots change, hosts begin again, and gateways are restarted in turn", async () => {
    const { one, two } = mesh;
    const calls = (["web", "api", "rpc"] as const).map((upstream) => {
      const [path, expected] = RIGHT[upstream];
      return new Calls(() => mesh.ask(upstream, path), upstream, expected);
    });
    const more = async (count: number): Promise<void> => {
      const until = calls.map(({ done }) => done + count);
      await eventually(() => calls.every(({ done }, at) => done >= (until[at] ?? 0)), "more calls are made");
    };
    try {
      await more(5);
      for (const [side, other, name, ids] of [
        [one, two, "one", ["web-sidecar-proxy", "api-sidecar-proxy", "rpc-sidecar-proxy", "gateway-1", "gateway-2"]],
        [two, one, "two", ["client-sidecar-proxy"]],
      ] as const) {
        const former = await Promise.all(ids.map((id) => mesh.envoy(id).leafSerials()));
        await rotate(side.host);
        await eventually(
          () => other.host.view.trustBundle(name)?.rootPems.length === 2,
          `the new root of ${name} has got there`,
        );
        const renewed = async (): Promise<boolean> => {
          const now = await Promise.all(ids.map((id) => mesh.envoy(id).leafSerials()));
          return now.every((serials, at) => serials.some((serial) => former[at]?.includes(serial) !== true));
        };
        await eventually(renewed, `the proxies of ${name} have certificates of the new root`);
        await more(10);
      }
      for (const [side, proxies] of [
        [one, 5],
        [two, 3],
      ] as const) {
        await side.restart();
        await eventually(() => side.hasTold(proxies), "all proxies are back");
        await more(5);
      }
      const healthy = (count: number): Promise<void> =>
        eventually(async () => {
          const client = mesh.envoy("client-sidecar-proxy");
          const names = ["web", "api"].map((service) => `${service}.default.one.external.${one.host.trustDomain}`);
          const members = await Promise.all(
            names.map((each) => client.statistic(`cluster.${each}.membership_healthy`)),
          );
          const through = `cluster.${serverName("rpc", one.host, "two")}.membership_healthy`;
          members.push(await mesh.envoy("gateway").statistic(through));
          return members.every((found) => found === count);
        }, `${count} gateways are well`);
      for (const id of ["gateway-1", "gateway-2"]) {
        await sayWell(one, id, false);
        await healthy(1);
        // Connections that go through it end, each after one more request.
        await mesh.envoy(id).drain();
        await more(5);
        await mesh.envoy(id)[Symbol.asyncDispose]();
        await more(5);
        await mesh.start(id, one);
        await sayWell(one, id, true);
        await healthy(2);
        await more(5);
      }
    } finally {
      await Promise.all(calls.map((each) => each.stop()));
    }
    assert.deepEqual(
      calls.flatMap(({ wrong }) => wrong),
      [],
    );
  });

  it("refuse a certificate that one peer has signed in the name of another, or of this cluster", async () => {
    const { one, two } = mesh;
    // A third cluster, which `one` trusts as well: it signs what it likes.
    const trustDomain = "33333333-2222-3333-4444-555555555555.consul";
    const root = await issue({ ca: true, uris: [`spiffe://${trustDomain}`] });
    const authority = await providedAuthority({
      trustDomain,
      rootPems: [root.certificatePem],
      signingCertificatePem: root.certificatePem,
      signingKeyPem: root.keyPem,
    });
    await using three = await createHost({
      ...{ datacenter: "dc3", storage: memoryStorage(), transport: grpcTransport(), authority },
    });
    await three.peerings.establish({
      peerName: "one",
      token: await one.host.peerings.generateToken({ peerName: "three" }),
    });
    const client = (domain: string, datacenter: string): Promise<Issued> =>
      issue({ uris: [`spiffe://${domain}/ns/default/dc/${datacenter}/svc/client`] }, root);
    const [port = 0] = mesh.gateways;
    const allowed = [
      { name: "client", peer: "two", action: "allow" },
      { name: "client", peer: "three", action: "allow" },
      { name: "client", action: "allow" },
    ];
    for (const service of ["web", "api"]) await intend(one.host, service, allowed);
    const request = "GET /v1/x HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n";
    const honest = await client(trustDomain, "dc3");
    const nameFor = (service: string, peer: string): string => serverName(service, one.host, peer);
    // First what is right, so that nothing else can be the reason.
    await eventually(
      async () => (await answerTo(honest, port, nameFor("web", "three"), "hello")) === "dc1 web hello",
      "the third cluster gets to the service for connections",
    );
    await eventually(
      async () => (await answerTo(honest, port, nameFor("api", "three"), request)).startsWith("HTTP/1.1 200"),
      "and to the one for requests",
    );
    for (const forged of [await client(two.host.trustDomain, "dc2"), await client(one.host.trustDomain, "dc1")]) {
      for (const peer of ["two", "three"]) {
        assert.match(await answerTo(forged, port, nameFor("web", peer), "hello"), /^refused: /);
        assert.match(await answerTo(forged, port, nameFor("api", peer), request), /^refused: /);
      }
    }
  });
});

async function rotate({ builtInAuthority: authority }: PeeringHost): Promise<void> {
  if (authority === undefined) throw new TypeError("the host has an authority of its own");
  await authority.rotate();
}
