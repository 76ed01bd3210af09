// Watching what a peer exports: everything there is first, then every change as a difference between instances.
//
//   node build/examples/watching-imports.js
import { createHost, type Registration, type ServiceInstance } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

const network = memoryNetwork();
await using east = await createHost({
  storage: memoryStorage(),
  transport: network.transport({ listen: "east:8503" }),
});
await using west = await createHost({ storage: memoryStorage(), transport: network.transport() });
await east.exports.set({ services: [{ name: "*", consumers: [{ peer: "west" }] }] });
const token = await east.peerings.generateToken({ peerName: "west" });
await west.peerings.establish({ peerName: "east", token });

const web = (port: number, ...tags: string[]): Registration => ({
  node: "n1",
  address: "10.0.0.1",
  service: { name: "web", port, tags },
});
// Changes at east, one step whenever west has seen the one before.
const steps = [
  () => east.catalog.register(web(80)),
  () => east.catalog.register(web(80, "v2")),
  () => east.catalog.register({ node: "n2", address: "10.0.0.2", service: { name: "db", port: 5432 } }),
  () => east.catalog.deregister({ node: "n1", serviceId: "web" }),
  () => east.exports.delete(),
];

const show = (sign: string, instances: readonly ServiceInstance[]): void => {
  for (const { node, service } of instances) {
    console.log(`${sign} ${service.name} at ${node.address}:${service.port} [${service.tags.join(", ")}]`);
  }
};

const stop = new AbortController();
// `service: "web"` would watch one service alone. A slow reader gets the newest state, not every one in between.
for await (const change of west.imports.watch({ peer: "east", signal: stop.signal })) {
  if (change.type === "snapshot") {
    console.log(`the watch begins with ${change.services.size} services`);
    for (const instances of change.services.values()) show("+", instances);
  } else {
    show("+", change.added);
    show("~", change.changed);
    show("-", change.removed);
  }
  const next = steps.shift();
  if (next === undefined) stop.abort();
  else await next();
}
console.log("the watch ended quietly when its signal aborted");
