import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer, request } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { connect, createServer } from "node:net";
import { type MeshConnection, meshAgent, meshDial, meshHttp2, meshListener } from "../../src/mesh/index.js";
import { served } from "../../test/support/applications.js";
import { registerGateway, registerNative, serverName } from "../../test/support/mesh.js";
import { SniGateway } from "../../test/support/sni-gateway.js";
import { type ConsulServer, isBefore } from "../consul.js";
import { Envoy, envoyBinary } from "../envoy.js";
import { SIDECAR_CHECKS } from "../mesh.js";
import type { Ours } from "../ours.js";
import type { Relay } from "../relay.js";
import type { Scenario } from "../scenario.js";
import { exportTo } from "../services.js";
import { settles } from "../settles.js";
import type { Stage } from "../stage.js";

interface MeshOfPrograms {
  readonly ours: Ours;
  readonly consul: ConsulServer;
  readonly envoy: Runner;
  /** Between the servers. */
  readonly relay: Relay;
}

/** A pair whose Consul runs Envoys, and where nobody may call anybody unless an intention says so; undefined: it cannot be had. */
async function meshOf(stage: Stage): Promise<MeshOfPrograms | undefined> {
  const binary = envoyBinary();
  if (binary === undefined) {
    stage.remark("skipped: ENVOY_BIN names no Envoy to test with");
    return undefined;
  }
  if (isBefore(stage.binary.version, "1.18.0")) {
    stage.remark("skipped: this Consul knows no default for intentions");
    return undefined;
  }
  const [grpcPort = 0] = await stage.processes.ports(1);
  const hcl = `ports { grpc = ${grpcPort} } default_intention_policy = "deny"`;
  const pair = await stage.strangers({ consul: { hcl } });
  const { ours, consul } = pair;
  const relay = await stage.relay(pair.acceptorAddress);
  await pair.peer([relay.address]);
  await pair.active();
  const envoy: Runner = async (proxy, ports) => {
    const { http, binary: program } = consul;
    stage.use(await Envoy.start(stage.processes, { binary, consul: program.path, http, proxy, grpcPort, ports }));
  };
  return { ours, consul, envoy, relay };
}

type Runner = (proxy: readonly string[], ports: readonly number[]) => Promise<void>;

async function registerSidecar(
  consul: ConsulServer,
  service: string,
  ports: { readonly service: number; readonly sidecar: number },
  proxy: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  await consul.put("/v1/agent/service/register", {
    Name: service,
    Port: ports.service,
    Address: "127.0.0.1",
    Connect: {
      SidecarService: {
        ...{ Port: ports.sidecar, Address: "127.0.0.1", Proxy: proxy as never },
        Checks: SIDECAR_CHECKS,
      },
    },
  } as never);
}

async function registerConsulGateway(consul: ConsulServer, port: number): Promise<void> {
  const address = { Address: "127.0.0.1", Port: port };
  await consul.put("/v1/agent/service/register", {
    Kind: "mesh-gateway",
    Name: "mesh-gateway",
    ...address,
    TaggedAddresses: { lan: address, wan: address },
  });
}

async function intend(consul: ConsulServer, destination: string, sources: readonly unknown[]): Promise<void> {
  await consul.client.config.write({ Kind: "service-intentions", Name: destination, Sources: sources } as never);
}

async function allOf(stream: AsyncIterable<unknown>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return text;
}

/** Sends a word, ends, and returns all that comes back. */
async function asked(connection: MeshConnection, word: string): Promise<string> {
  connection.end(word);
  return allOf(connection);
}

export const meshNodeScenarios: readonly Scenario[] = [
  {
    name: "a program of Node calls services behind Consul's mesh gateway",
    roles: ["dialer"],
    async run(stage) {
      const mesh = await meshOf(stage);
      if (mesh === undefined) return;
      const { ours, consul, envoy, relay } = mesh;
      await using web = await served(createServer((socket) => socket.on("error", () => {}).pipe(socket)));
      await using api = await served(
        createHttpServer((incoming, response) => response.end(`${incoming.method} ${incoming.url}`)),
      );
      await using rpc = await served(
        createHttp2Server((incoming, response) => void response.end(`${incoming.httpVersion} ${incoming.url}`)),
      );
      const [gatewayPort = 0, webPort = 0, apiPort = 0, rpcPort = 0] = await stage.processes.ports(4);
      await consul.client.config.write({ Kind: "service-defaults", Name: "api", Protocol: "http" });
      await consul.client.config.write({ Kind: "service-defaults", Name: "rpc", Protocol: "http2" });
      await registerConsulGateway(consul, gatewayPort);
      await registerSidecar(consul, "web", { service: web.port, sidecar: webPort });
      await registerSidecar(consul, "api", { service: api.port, sidecar: apiPort });
      await registerSidecar(consul, "rpc", { service: rpc.port, sidecar: rpcPort });
      await exportTo(consul, ours, ["web", "api", "rpc"]);
      await envoy(["-sidecar-for", "web"], [webPort]);
      await envoy(["-sidecar-for", "api"], [apiPort]);
      await envoy(["-sidecar-for", "rpc"], [rpcPort]);
      await envoy(["-gateway=mesh"], [gatewayPort]);
      await settles(async () => {
        const names = await ours.importedNames(consul.name);
        for (const name of ["api", "rpc", "web"]) assert.ok(names.includes(`${name}-sidecar-proxy`), names.join());
      }, "the services are imported");

      const dial = (as: string, service = "web"): Promise<MeshConnection> =>
        meshDial(ours.host, { service, peer: consul.name, as });
      const agent = meshAgent(ours.host, { as: "client" });
      const get = async (path: string): Promise<readonly [number | undefined, string]> => {
        const sent = request(`http://api.virtual.${consul.name}.consul${path}`, { agent });
        sent.end();
        const [response] = await once(sent, "response");
        return [response.statusCode, await allOf(response)];
      };
      // Nothing is allowed yet: an orderly end without a byte over TCP, 403 over HTTP.
      await settles(async () => {
        await assert.rejects(asked(await dial("client"), "hello"), /before its first byte: perhaps it is denied/);
      }, "TCP is denied");
      await settles(async () => assert.deepEqual(await get("/v1/x"), [403, "RBAC: access denied"]), "HTTP is denied");

      const from = { Name: "client", Peer: ours.name };
      await intend(consul, "web", [{ ...from, Action: "allow" }]);
      const permissions = [{ Action: "allow", HTTP: { PathPrefix: "/v1/", Methods: ["GET"] } }];
      await intend(consul, "api", [{ ...from, Permissions: permissions }]);
      await settles(async () => assert.equal(await asked(await dial("client"), "hello"), "hello"), "TCP is allowed");
      await settles(async () => assert.deepEqual(await get("/v1/x"), [200, "GET /v1/x"]), "HTTP is allowed");
      assert.deepEqual(await get("/v2"), [403, "RBAC: access denied"]);
      await assert.rejects(asked(await dial("stranger"), "hello"), /perhaps it is denied/);
      await intend(consul, "rpc", [{ ...from, Action: "allow" }]);
      await settles(async () => {
        const session = await meshHttp2(ours.host, { service: "rpc", peer: consul.name, as: "client" });
        const stream = session.request({ ":path": "/call" });
        stream.end();
        assert.equal(await allOf(stream), "2.0 /call");
        session.close();
      }, "HTTP/2 is allowed");

      // Roots of both sides are replaced while requests go on.
      const domains = [await consul.trustDomain(), ours.host.trustDomain];
      await ours.authority.rotate();
      for (let call = 0; call < 20; call++) assert.equal(await asked(await dial("client"), `${call}`), `${call}`);
      await consul.put("/v1/connect/ca/configuration", {
        Provider: "consul",
        Config: { PrivateKeyType: "ec", PrivateKeyBits: 384 },
      });
      const rooted = (): number => ours.host.view.trustBundle(consul.name)?.rootPems.length ?? 0;
      for (let call = 0; call < 20 || rooted() < 2; call++) {
        assert.equal(await asked(await dial("client"), `${call}`), `${call}`);
      }
      assert.deepEqual(await get("/v1/x"), [200, "GET /v1/x"]);

      // A root that nothing leads to is refused until it has got there, which takes no time where nothing keeps it.
      relay.silence();
      await ours.authority.configure({
        config: { PrivateKeyType: "ec", PrivateKeyBits: 384 },
        forceWithoutCrossSigning: true,
      });
      for (let call = 0; call < 20; call++) {
        // Node loses the alert that says so where this side has ended its own half before: it is not ended here.
        const connection = await dial("client");
        connection.write("hello");
        await assert.rejects(allOf(connection), {
          code: "permission-denied",
          message: /^the other side refused our certificate: /,
        });
      }
      relay.heal();
      await settles(async () => assert.equal(await asked(await dial("client"), "hello"), "hello"), "it has got there");
      assert.deepEqual([await consul.trustDomain(), ours.host.trustDomain], domains);
      agent.destroy();
    },
  },
  {
    name: "a sidecar of Consul calls services of a program of Node",
    roles: ["dialer"],
    async run(stage) {
      const mesh = await meshOf(stage);
      if (mesh === undefined) return;
      const { ours, consul, envoy } = mesh;
      await using web = await meshListener(ours.host, {
        service: "web",
        listen: "127.0.0.1:0",
        onConnection: (connection, { service, peer }) => connection.on("error", () => {}).end(`${service} of ${peer}`),
      });
      await using api = await meshListener(ours.host, {
        service: "api",
        listen: "127.0.0.1:0",
        onRequest: (incoming, response, { service, peer }) => response.end(`${incoming.url} ${service} of ${peer}`),
      });
      await using rpc = await meshListener(ours.host, {
        service: "rpc",
        listen: "127.0.0.1:0",
        onRequest: (incoming, response) => response.end(incoming.httpVersion),
      });
      await using gateway = await SniGateway.open();
      for (const [service, { address }] of Object.entries({ web, api, rpc })) {
        gateway.routes.set(serverName(service, ours.host, consul.name), address);
        await registerNative(ours.host, service, address);
      }
      await ours.host.configEntries.set({ kind: "service-defaults", name: "api", protocol: "http" });
      await ours.host.configEntries.set({ kind: "service-defaults", name: "rpc", protocol: "http2" });
      await registerGateway(ours.host, "gateway-1", gateway.port);
      await exportTo(ours, consul, ["web", "api", "rpc"]);
      const [sidecar = 0, webPort = 0, apiPort = 0, rpcPort = 0] = await stage.processes.ports(4);
      const upstream = (DestinationName: string, LocalBindPort: number) => ({
        ...{ DestinationName, LocalBindPort, DestinationPeer: ours.name },
      });
      const upstreams = [upstream("web", webPort), upstream("api", apiPort), upstream("rpc", rpcPort)];
      await registerSidecar(consul, "client", { service: 1, sidecar }, { Upstreams: upstreams });
      await envoy(["-sidecar-for", "client"], [sidecar, webPort, apiPort, rpcPort]);

      const tcp = async (): Promise<string> => {
        const socket = connect(webPort, "127.0.0.1");
        return allOf(socket);
      };
      const get = async (path: string): Promise<readonly [number, string]> => {
        const answer = await fetch(`http://127.0.0.1:${apiPort}${path}`);
        return [answer.status, await answer.text()];
      };
      await settles(async () => {
        assert.equal(await tcp(), "");
        assert.ok((ours.host.incidents.counts().get("mesh-intention-denied") ?? 0) > 0);
      }, "TCP is denied");
      await settles(async () => assert.deepEqual(await get("/v1/x"), [403, "RBAC: access denied"]), "HTTP is denied");
      const from = { name: "client", peer: consul.name };
      await ours.host.configEntries.set({
        ...{ kind: "service-intentions", name: "web" },
        sources: [{ ...from, action: "allow" as const }],
      });
      const permissions = [{ action: "allow" as const, http: { pathPrefix: "/v1/" } }];
      await ours.host.configEntries.set({
        ...{ kind: "service-intentions", name: "api" },
        sources: [{ ...from, permissions }],
      });
      assert.equal(await tcp(), `client of ${consul.name}`);
      assert.deepEqual(await get("/v1/x"), [200, `/v1/x client of ${consul.name}`]);
      assert.deepEqual(await get("/v2"), [403, "RBAC: access denied"]);
      assert.deepEqual(await get("/v1/../v2"), [403, "RBAC: access denied"]);
      await ours.host.configEntries.set({
        ...{ kind: "service-intentions", name: "rpc" },
        sources: [{ ...from, action: "allow" as const }],
      });
      const session = connectHttp2(`http://127.0.0.1:${rpcPort}`);
      const stream = session.request({ ":path": "/call" });
      stream.end();
      assert.equal(await allOf(stream), "2.0");
      session.close();
      await ours.authority.rotate();
      for (let call = 0; call < 20; call++) assert.equal(await tcp(), `client of ${consul.name}`);
    },
  },
];
