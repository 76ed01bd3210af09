// Programs of Node on both sides of a real mesh gateway, an Envoy that our own server of xDS configures.
import assert from "node:assert/strict";
import { once } from "node:events";
import { type Agent, get, type IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { meshAgent, meshDial, meshHttp2, meshListener, xdsServer } from "../../src/mesh/index.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { freePorts, RunningEnvoy, withoutEnvoy } from "../support/envoy.js";
import { eventually, temporaryDirectory } from "../support/hosts.js";
import { intend, registerGateway, registerNative } from "../support/mesh.js";

async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return text;
}

describe("programs of Node at a mesh gateway that is an Envoy", { skip: withoutEnvoy }, () => {
  it("call and are called, each in its own name, over TCP, HTTP/1.1 and HTTP/2", async () => {
    await using directory = await temporaryDirectory();
    const network = memoryNetwork();
    const host = (datacenter: string, listen?: string): Promise<PeeringHost> =>
      createHost({
        datacenter,
        // Where the gateway is registered.
        nodeName: "gateway",
        storage: memoryStorage(),
        transport: network.transport(listen === undefined ? {} : { listen }),
      });
    await using east = await host("east", "east:8503");
    await using west = await host("west");
    await west.peerings.establish({ peerName: "east", token: await east.peerings.generateToken({ peerName: "west" }) });
    await using xds = await xdsServer(east, { listen: "127.0.0.1:0", defaultIntentionPolicy: "deny" });
    const [gatewayPort = 0, adminPort = 0] = await freePorts(2);

    const listen = "127.0.0.1:0";
    await using web = await meshListener(east, {
      service: "web",
      listen,
      onConnection: (connection, { service, peer }) => connection.end(`${service} of ${peer}`),
    });
    await using api = await meshListener(east, {
      service: "api",
      listen,
      onRequest: ({ url, httpVersion }, response, { service, peer }) =>
        response.end(`${httpVersion} ${url} ${service} of ${peer}`),
    });
    await using rpc = await meshListener(east, {
      service: "rpc",
      listen,
      onRequest: ({ url, httpVersion }, response, { service, peer }) =>
        response.end(`${httpVersion} ${url} ${service} of ${peer}`),
    });
    for (const [name, protocol, { address }] of [
      ["web", "tcp", web],
      ["api", "http", api],
      ["rpc", "http2", rpc],
    ] as const) {
      await east.configEntries.set({ kind: "service-defaults", name, protocol });
      await registerNative(east, name, address);
    }
    await registerGateway(east, "gateway", gatewayPort);
    const client = { name: "client", peer: "west" };
    await intend(east, "web", [{ ...client, action: "allow" }]);
    const permissions = [{ action: "allow", http: { pathPrefix: "/v1/" } }];
    await intend(east, "api", [{ ...client, permissions }]);
    await intend(east, "rpc", [{ ...client, permissions }]);
    const consumers = [{ peer: "west" }];
    await east.exports.set({ services: ["web", "api", "rpc"].map((name) => ({ name, consumers })) });
    const own = { xds: xds.address, adminPort, directory: directory.path };
    await using _ = await RunningEnvoy.start({ id: "gateway", ...own });

    const agent = meshAgent(west, { as: "client" });
    const stranger = meshAgent(west, { as: "stranger" });
    const asked = async (by: Agent, path: string): Promise<readonly [number | undefined, string]> => {
      const [response]: IncomingMessage[] = await once(
        get(`http://api.virtual.east.consul${path}`, { agent: by }),
        "response",
      );
      return [response?.statusCode, response === undefined ? "" : await textOf(response)];
    };
    await eventually(
      () =>
        asked(agent, "/v1/x").then(
          ([status]) => status === 200,
          () => false,
        ),
      "the gateway leads to the service",
    );
    // The gateway ends TLS for HTTP, and says whose request it carries.
    assert.deepEqual(await asked(agent, "/v1/x"), [200, "1.1 /v1/x client of west"]);
    assert.deepEqual(await asked(agent, "/v2"), [403, "RBAC: access denied"]);
    assert.deepEqual(await asked(stranger, "/v1/x"), [403, "RBAC: access denied"]);

    const session = await meshHttp2(west, { service: "rpc", peer: "east", as: "client" });
    const stream = session.request({ ":path": "/v1/call" });
    stream.end();
    assert.equal(await textOf(stream), "2.0 /v1/call client of west");
    session.destroy();

    // Connections of TCP it passes on as they are.
    const dial = (as: string) => meshDial(west, { service: "web", peer: "east", as });
    assert.equal(await textOf(await dial("client")), "client of west");
    await assert.rejects(textOf(await dial("stranger")), /perhaps it is denied by an intention/);
    for (const each of [agent, stranger]) each.destroy();

    // Roots of both sides are replaced, and no call fails: each is made on a connection of its own.
    const call = async (): Promise<void> => {
      const once = meshAgent(west, { as: "client", agent: { keepAlive: false } });
      assert.deepEqual(await asked(once, "/v1/x"), [200, "1.1 /v1/x client of west"]);
      once.destroy();
      assert.equal(await textOf(await dial("client")), "client of west");
    };
    for (const [side, other, name] of [
      [west, east, "west"],
      [east, west, "east"],
    ] as const) {
      await side.builtInAuthority?.rotate();
      do await call();
      while (other.view.trustBundle(name)?.rootPems.length !== 2);
      for (let more = 0; more < 10; more++) await call();
    }
  });
});
