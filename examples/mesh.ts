// A program of node:http calls a service of a peered cluster by its name, through the mesh, and without Envoy on either side.
//
//   node build/examples/mesh.js
import { once } from "node:events";
import { type Agent, get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { createHost } from "peerage";
import { meshAgent, meshListener } from "peerage/mesh";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

const network = memoryNetwork();
const transport = network.transport({ listen: "east:8503" });
await using east = await createHost({ datacenter: "east", storage: memoryStorage(), transport });
await using west = await createHost({ datacenter: "west", storage: memoryStorage(), transport: network.transport() });
await west.peerings.establish({ peerName: "east", token: await east.peerings.generateToken({ peerName: "west" }) });

// East serves `kitchen` in the mesh. Its listener has the service's certificate, and asks everybody for one.
await using kitchen = await meshListener(east, {
  service: "kitchen",
  listen: "127.0.0.1:0",
  onRequest: ({ url }, response, { service, peer }) => {
    response.end(`hello ${service} of ${peer}, you asked for ${url}`);
  },
});
const port = Number(kitchen.address.split(":").at(-1));
await east.catalog.register({
  node: "n1",
  address: "127.0.0.1",
  service: { name: "kitchen", port, connect: { native: true } },
});
// Peers reach a cluster through its mesh gateways. With one service, its own listener can stand for one.
await east.catalog.register({
  node: "n1",
  address: "127.0.0.1",
  service: { name: "gateway", kind: "mesh-gateway", port },
});

// East exports the service to west, and lets one service of west call it.
await east.configEntries.set({ kind: "service-defaults", name: "kitchen", protocol: "http" });
await east.configEntries.set({
  kind: "service-intentions",
  name: "kitchen",
  sources: [
    {
      name: "checkout",
      peer: "west",
      permissions: [{ action: "allow", http: { pathPrefix: "/menu", methods: ["GET"] } }],
    },
  ],
});
await east.exports.set({ services: [{ name: "kitchen", consumers: [{ peer: "west" }] }] });

// West knows the service once the stream has carried it.
const stop = new AbortController();
for await (const _ of west.imports.watch({ peer: "east", signal: stop.signal })) {
  if ((await west.imports.instances({ peer: "east", service: "kitchen-sidecar-proxy" })).length > 0) break;
}

async function ask(agent: Agent): Promise<string> {
  const [response]: IncomingMessage[] = await once(
    get("http://kitchen.virtual.east.consul/menu", { agent }),
    "response",
  );
  if (response === undefined) throw new Error("no answer");
  return response.statusCode === 200 ? `"${await text(response)}"` : `${response.statusCode} ${await text(response)}`;
}

// The agent of a program calls in the name of one service of its cluster.
const checkout = meshAgent(west, { as: "checkout" });
console.log(`east says ${await ask(checkout)}`);
const stranger = meshAgent(west, { as: "stranger" });
console.log(`and to a stranger: ${await ask(stranger)}`);
checkout.destroy();
stranger.destroy();
