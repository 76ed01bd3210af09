// Two clusters in one process, from the first token to the deletion. Nothing here touches disk or network.
//
//   node build/examples/two-hosts.js
import { createHost } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

const network = memoryNetwork();
await using east = await createHost({
  datacenter: "east",
  storage: memoryStorage(),
  transport: network.transport({ listen: "east:8503" }),
});
// This one only dials, so it needs no address.
await using west = await createHost({
  datacenter: "west",
  storage: memoryStorage(),
  transport: network.transport(),
});

// East has a service and says who may see it. The names of peers are each side's own.
await east.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
await east.exports.set({ services: [{ name: "web", consumers: [{ peer: "west" }] }] });

// The token goes from one operator to the other, once.
const token = await east.peerings.generateToken({ peerName: "west" });
await west.peerings.establish({ peerName: "east", token });

// West sees the service as soon as the stream has carried it.
const stop = new AbortController();
for await (const _ of west.imports.watch({ peer: "east", signal: stop.signal })) {
  const [web] = await west.imports.instances({ peer: "east", service: "web" });
  if (web === undefined) continue;
  console.log(`west found ${web.service.name} of east at ${web.node.address}:${web.service.port}`);
  break;
}
console.log(`east reads ${east.peerings.read("west")?.state}, west reads ${west.peerings.read("east")?.state}`);

// Either side may end it. The other is told, and what it had imported goes.
await east.peerings.delete("west");
for await (const { peerings } of west.peerings.watch({ signal: stop.signal })) {
  if (peerings[0]?.state === "terminated") break;
}
await west.peerings.deleted("east");
console.log(`after the deletion west reads ${west.peerings.read("east")?.state},`);
console.log(`and has ${west.imports.services({ peer: "east" }).length} imported services`);
