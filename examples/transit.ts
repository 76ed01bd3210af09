// A host in the middle that carries services over: what one peer exports to it, another peer sees. In life the first may
// be a Consul 1.13, with which no later Consul can peer.
//
//   node build/examples/transit.js
import { createHost, type PeeringHost, TRANSIT_PATH_KEY } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

const network = memoryNetwork();
const cluster = (name: string, transit = {}): Promise<PeeringHost> =>
  createHost({
    datacenter: name,
    storage: memoryStorage(),
    transport: network.transport({ listen: `${name}:8503` }),
    ...transit,
  });
const peer = async (acceptor: PeeringHost, dialer: PeeringHost): Promise<void> => {
  const token = await acceptor.peerings.generateToken({ peerName: dialer.datacenter });
  await dialer.peerings.establish({ peerName: acceptor.datacenter, token });
};

await using old = await cluster("old");
// From which peer, to which, and what: here all it exports. Nothing is carried over without a rule.
await using middle = await cluster("middle", { transit: [{ from: "old", to: "new", services: ["*"] }] });
await using modern = await cluster("new");
await peer(old, middle);
await peer(middle, modern);

await old.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
await old.exports.set({ services: [{ name: "web", consumers: [{ peer: "middle" }] }] });

const { signal } = new AbortController();
for await (const _ of modern.imports.watch({ peer: "middle", signal })) {
  const [web] = await modern.imports.instances({ peer: "middle", service: "web" });
  if (web === undefined) continue;
  const hops = web.service.meta[TRANSIT_PATH_KEY]?.split(" ").length ?? 0;
  console.log(`new has ${web.service.name} on ${web.node.name}, which came through ${hops} clusters`);
  break;
}
// Why it goes there, and why nothing goes round in a ring: the way it came is written into its metadata.
console.log(middle.exports.explain("web", "new").text);

// Services that came from a peer go when that peering ends.
await middle.peerings.delete("old");
for await (const _ of modern.imports.watch({ peer: "middle", signal })) {
  if (modern.imports.services({ peer: "middle" }).length === 0) break;
}
console.log("after the deletion new has nothing of it");
