// The watch API: what another program, or a page in a browser, sees of a cluster as it changes.
//
//   node build/examples/watch-api.js
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { createHost } from "peerage";
import { httpHandler } from "peerage/http";
import { httpServer, peeringRpc } from "peerage/rpc";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";
import { watchApi } from "peerage/wire";

const network = memoryNetwork();
await using east = await createHost({
  storage: memoryStorage(),
  transport: network.transport({ listen: "east:8503" }),
});
await using west = await createHost({ storage: memoryStorage(), transport: network.transport() });
await east.exports.set({ services: [{ name: "*", consumers: [{ peer: "west" }] }] });

// One port for Consul's HTTP API and for calls, over HTTP/1.1 and HTTP/2. Pages of this origin may call it, too.
const pages = { allowedOrigins: ["https://ui.example.com"] };
const stopping = new AbortController();
await using server = await httpServer({
  listen: "127.0.0.1:0",
  rpc: peeringRpc(west, { ...pages, signal: stopping.signal }),
  http: httpHandler(west, pages),
});

// The rest could run anywhere. A browser's transport is that of @connectrpc/connect-web.
const baseUrl = `http://${server.address}`;
const overGrpc = createClient(watchApi.WatchService, createGrpcTransport({ baseUrl }));
const overConnect = createClient(watchApi.WatchService, createConnectTransport({ baseUrl, httpVersion: "1.1" }));

const token = await east.peerings.generateToken({ peerName: "west" });
await west.peerings.establish({ peerName: "east", token });
for await (const { event } of overConnect.watchPeerings({ name: "east" })) {
  if (event.case !== "peering" || event.value.state !== watchApi.State.ACTIVE) continue;
  const phase = watchApi.Phase[event.value.status?.phase ?? 0];
  console.log(`${event.value.name} is ${watchApi.State[event.value.state]}, its stream ${phase}`);
  break;
}

// Changes at east, one step whenever west's watcher has seen the one before.
const web = { node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } };
const steps = [() => east.catalog.register(web), () => east.catalog.deregister({ node: "n1", serviceId: "web" })];
for await (const { event } of overGrpc.watchImportedServices({ peer: "east" })) {
  if (event.case === "heartbeat") continue;
  if (event.case === "snapshotComplete") console.log("that was the snapshot; from now on, changes");
  if (event.case === "change") {
    const { service, upserted, removed } = event.value;
    for (const { node, service: instance } of upserted) {
      console.log(`+ ${service} at ${node?.address}:${instance?.port}`);
    }
    for (const { node, serviceId } of removed) console.log(`- ${serviceId} of node ${node}`);
  }
  const next = steps.shift();
  if (next === undefined) break;
  await next();
}
// Clients that still watch are asked to come back later.
stopping.abort();
