import assert from "node:assert/strict";
import { TokenCodec } from "../../src/token/token-codec.js";
import { ask, type Speech } from "../../test/support/applications.js";
import type { Envoy } from "../envoy.js";
import { MeshPair, type MeshSide, type SideService, type UpstreamOf } from "../mesh.js";
import type { Scenario } from "../scenario.js";
import { settles } from "../settles.js";
import { stateOf } from "../stage.js";

const DENIED: Readonly<Record<Speech, string>> = {
  // An orderly end without a byte.
  tcp: "",
  http: "403 RBAC: access denied",
  grpc: "7 ",
};

/** Resolves once `port` answers so. */
async function answers(port: number, speech: Speech, path: string, expected: string): Promise<void> {
  await settles(
    async () => assert.equal(await ask(port, speech, path), expected),
    `port ${port} answers ${path} with ${JSON.stringify(expected)}`,
    ANSWER_MS,
  );
}

/** How long it takes until `port` answers so, in seconds. */
async function secondsUntil(port: number, speech: Speech, path: string, expected: string): Promise<string> {
  const began = performance.now();
  await answers(port, speech, path, expected);
  return ((performance.now() - began) / 1_000).toFixed(1);
}

/** An Envoy to which five calls in a row failed, such as before others were told of them, makes none there for half a minute. */
const ANSWER_MS = 90_000;
/** Longer than anything waits with a new certificate. */
const ROTATION_MS = 35_000;

/** Names of services, as the program behind each speaks. */
const SERVICES: Readonly<Record<string, Speech>> = { web: "tcp", api: "http", rpc: "grpc" };

function serviceOf(side: MeshSide, name: string, speech: Speech): SideService {
  // The sidecars of Consul take no word of whose request a gateway carries for gRPC, and deny all callers of peers.
  const protocol = side.name === "consul" && speech === "grpc" ? "http2" : speech;
  return { speech, protocol, says: `${side.name} ${name}` };
}

/** The server name by which the Envoys of `importer` reach a service of the peer. */
function serverName(service: string, importer: MeshSide, trustDomain: string): string {
  return `${service}.default.default.${importer.name}.external.${trustDomain}`;
}

async function callEachOther(mesh: MeshPair, mode: "remote" | "local"): Promise<void> {
  const gateways = new Map<MeshSide, Envoy>();
  for (const { near, far } of mesh.directions) {
    gateways.set(near, await near.gateway());
    for (const [name, speech] of Object.entries(SERVICES)) await near.service(name, serviceOf(near, name, speech));
    await near.export(far, ...Object.keys(SERVICES));
  }
  await mesh.peer();
  for (const { near, far } of mesh.directions) {
    const upstreams = Object.keys(SERVICES).map((name) => ({ DestinationName: name, DestinationPeer: far.name }));
    const [web = 0, api = 0, rpc = 0] = await near.client("client", upstreams, { MeshGateway: { Mode: mode } });

    await answers(api, "http", "/v1/x", DENIED.http);
    await answers(rpc, "grpc", "/v1/x", DENIED.grpc);
    const from = { Name: "client", Peer: near.name };
    const permissions = [{ Action: "allow", HTTP: { PathPrefix: "/v1/" } }];
    await far.intend("web", { ...from, Action: "allow" });
    await far.intend("api", { ...from, Permissions: permissions });
    await far.intend("rpc", { ...from, Permissions: permissions });
    await answers(web, "tcp", "hello", `${far.name} web hello`);
    await answers(api, "http", "/v1/x", `200 ${far.name} api /v1/x`);
    await answers(rpc, "grpc", "/v1/x", `0 ${far.name} rpc /v1/x`);
    assert.equal(await ask(api, "http", "/v2"), DENIED.http);
    assert.equal(await ask(rpc, "grpc", "/v2"), DENIED.grpc);
    await far.intend("web", { ...from, Name: "other", Action: "allow" });
    await answers(web, "tcp", "hello", DENIED.tcp);

    const domain = await far.cluster.trustDomain();
    const passed = (side: MeshSide, name: string): Promise<number> =>
      gateways.get(side)?.statistic(name) ?? Promise.resolve(0);
    const counter = `cluster.${serverName("web", near, domain)}.upstream_cx_total`;
    assert.equal((await passed(near, counter)) > 0, mode === "local", "whether our own gateway was on the way");
    const local = `tcp.mesh_gateway_local_peered.web.default.default.${far.cluster.datacenter}.downstream_cx_total`;
    assert.ok((await passed(far, local)) > 0, "the gateway of the other side was on the way");
  }
}

/** Roots of both are replaced while calls go on, of which none may fail. */
async function rotateUnderCalls(mesh: MeshPair): Promise<void> {
  for (const { near, far } of mesh.directions) {
    await near.gateway();
    await near.service("web", serviceOf(near, "web", "tcp"));
    await near.service("api", serviceOf(near, "api", "http"));
    await near.export(far, "web", "api");
    for (const name of ["web", "api"]) await near.intend(name, { Name: "client", Peer: far.name, Action: "allow" });
  }
  await mesh.peer();
  const calls: (() => Promise<void>)[] = [];
  for (const { near, far } of mesh.directions) {
    const upstreams = ["web", "api"].map((name) => ({ DestinationName: name, DestinationPeer: far.name }));
    const [web = 0, api = 0] = await near.client("client", upstreams);
    await answers(web, "tcp", "hello", `${far.name} web hello`);
    await answers(api, "http", "/x", `200 ${far.name} api /x`);
    calls.push(async () => assert.equal(await ask(web, "tcp", "hello"), `${far.name} web hello`));
    calls.push(async () => assert.equal(await ask(api, "http", "/x"), `200 ${far.name} api /x`));
  }
  const callAll = async (): Promise<void> => {
    for (const call of calls) await call();
  };
  await callAll();
  for (const { near, far } of mesh.directions) {
    const first = await near.activeRoot();
    await near.put("/v1/connect/ca/configuration", {
      Provider: "consul",
      Config: { PrivateKeyType: "ec", PrivateKeyBits: 384 },
    });
    assert.notEqual(await near.activeRoot(), first);
    // Certificates are issued again at random moments of half a minute.
    const end = performance.now() + ROTATION_MS;
    do await callAll();
    while (performance.now() < end);
    assert.equal(await stateOf(far.cluster, near.cluster), "ACTIVE");
  }
}

/** The near side with a service that the far one has, too. */
async function failOver(
  stage: { remark(text: string): void },
  mesh: MeshPair,
  mode: "remote" | "local",
): Promise<void> {
  for (const { near, far } of mesh.directions) {
    await near.gateway();
    await near.service("db", serviceOf(near, "db", "tcp"));
    await near.service("api", serviceOf(near, "api", "http"));
    await near.export(far, "db", "api");
  }
  await mesh.peer();
  for (const { near, far } of mesh.directions) {
    const sources = [near, far].map(({ name }) => ({ Name: "client", Action: "allow", Peer: name }));
    const own = { Name: "client", Action: "allow" };
    const peers = (side: MeshSide) => sources.filter(({ Peer }) => Peer !== side.name);
    for (const service of ["db", "api"]) await near.intend(service, own, ...peers(near));
    await near.config({
      ...{ Kind: "service-resolver", Name: "db" },
      Failover: { "*": { Targets: [{ Peer: far.name }] } },
    });
    await near.config({ Kind: "service-defaults", Name: "moved", Protocol: "http" });
    await near.config({
      ...{ Kind: "service-resolver", Name: "moved" },
      Redirect: { Service: "api", Peer: far.name },
    });
  }
  for (const { near, far } of mesh.directions) {
    const upstreams: UpstreamOf[] = [{ DestinationName: "db" }, { DestinationName: "moved" }];
    const [db = 0, moved = 0] = await near.client("client", upstreams, { MeshGateway: { Mode: mode } });
    await answers(moved, "http", "/x", `200 ${far.name} api /x`);
    await answers(db, "tcp", "hello", `${near.name} db hello`);
    await near.sayWell("db", false);
    const away = await secondsUntil(db, "tcp", "hello", `${far.name} db hello`);
    await near.sayWell("db", true);
    const back = await secondsUntil(db, "tcp", "hello", `${near.name} db hello`);
    stage.remark(`${near.name} failed over in ${away} s and back in ${back} s`);
  }
}

/** The servers of both sides reach each other through gateways, and a gateway that moves is followed. */
async function controlPlane(mesh: MeshPair): Promise<void> {
  const gateways = new Map<MeshSide, Envoy>();
  for (const { near, far } of mesh.directions) {
    await near.config({ Kind: "mesh", Peering: { PeerThroughMeshGateways: true } } as never);
    gateways.set(near, await near.gateway());
    await near.service("api", serviceOf(near, "api", "http"));
    await near.export(far, "api");
    await near.intend("api", { Name: "client", Peer: far.name, Action: "allow" });
  }
  const { acceptor, dialer } = mesh;
  const token = await acceptor.cluster.client.peerings.generateToken({ peerName: dialer.name });
  assert.deepEqual(TokenCodec.decode(token).serverAddresses, [acceptor.gatewayAddress]);
  await dialer.cluster.client.peerings.establish({ peerName: acceptor.name, token });
  await mesh.active();
  const domain = await acceptor.cluster.trustDomain();
  const counter = `cluster.server.${acceptor.cluster.datacenter}.peering.${domain}.upstream_cx_total`;
  for (const [side, envoy] of gateways) {
    assert.ok((await envoy.statistic(counter)) > 0, `the gateway of ${side.name} was on the way`);
  }
  const ports = new Map<MeshSide, number>();
  for (const { near, far } of mesh.directions) {
    const [port = 0] = await near.client("client", [{ DestinationName: "api", DestinationPeer: far.name }]);
    ports.set(near, port);
    await answers(port, "http", "/x", `200 ${far.name} api /x`);
  }

  // The gateways move. Where servers and sidecars of the other side reach them is told over the peering, which they carry themselves.
  for (const { near: moving } of mesh.directions) await moving.registerGateway();
  await settles(async () => {
    const { value } = await dialer.cluster.client.peerings.read(acceptor.name);
    assert.deepEqual(value?.PeerServerAddresses, [acceptor.gatewayAddress]);
  }, "the dialer knows the new gateway of the acceptor");
  for (const { near, far } of mesh.directions) {
    await settles(async () => {
      const { value } = await near.cluster.client.health.connect("api", { peer: far.name });
      const known = value.map(({ Service }) => `${Service.Address}:${Service.Port}`);
      assert.deepEqual(known, [far.gatewayAddress]);
    }, `${near.name} knows the new gateway of ${far.name}`);
  }
  // The ports before lead nowhere any more: the Envoys begin again, with the new ones alone.
  for (const [side, envoy] of gateways) {
    await envoy[Symbol.asyncDispose]();
    gateways.set(side, await side.envoy(["-gateway=mesh"], [Number(side.gatewayAddress.split(":")[1])]));
  }
  for (const { near, far } of mesh.directions) {
    await answers(ports.get(near) ?? 0, "http", "/x", `200 ${far.name} api /x`);
  }
  // A service that is exported now gets there by a stream through the new gateways.
  for (const { near, far } of mesh.directions) {
    await near.service("late", serviceOf(near, "late", "http"));
    await near.export(far, "api", "late");
  }
  for (const { near, far } of mesh.directions) {
    await settles(async () => {
      const names = await near.cluster.importedNames(far.name);
      assert.ok(names.includes("late"), names.join());
    }, `${near.name} imports what ${far.name} exports now`);
  }
  // Its own gateway the dialer goes around when it happens not to be there.
  const used = await gateways.get(acceptor)?.statistic(counter);
  assert.ok((used ?? 0) > 0, `the new gateway of ${acceptor.name} was on the way`);
}

function scenario(name: string, run: (mesh: MeshPair, remark: (text: string) => void) => Promise<void>): Scenario {
  return {
    name,
    async run(stage) {
      const mesh = await MeshPair.start(stage);
      if (mesh !== undefined) await run(mesh, (text) => stage.remark(text));
    },
  };
}

/** Envoys on both sides: Consul tells those of its cluster what to do, and our agent those of ours. */
export const meshEnvoyScenarios: readonly Scenario[] = [
  scenario("sidecars of both call each other through the gateway of the other", (mesh) =>
    callEachOther(mesh, "remote"),
  ),
  scenario("sidecars of both call each other through both gateways", (mesh) => callEachOther(mesh, "local")),
  scenario("sidecars of both call each other while roots of both are replaced", rotateUnderCalls),
  scenario("sidecars of both fail over to the other side and back, and are redirected there", (mesh, remark) =>
    failOver({ remark }, mesh, "remote"),
  ),
  scenario("sidecars of both fail over through both gateways", (mesh, remark) => failOver({ remark }, mesh, "local")),
  scenario("servers of both reach each other through both gateways, which move", controlPlane),
];
