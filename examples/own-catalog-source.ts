// Services from a registry of your own instead of the built-in catalog: implement CatalogSource, one method.
//
//   node build/examples/own-catalog-source.js
import { EventEmitter, on } from "node:events";
import { type CatalogChange, type CatalogSource, createHost, type ServiceInstance } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

/** Stands for whatever your program has: names, addresses, and an event when something changed. */
class Registry {
  readonly services = new Map<string, readonly string[]>();
  readonly events = new EventEmitter();

  set(name: string, addresses: readonly string[]): void {
    this.services.set(name, addresses);
    this.events.emit("changed", name);
  }
}

class RegistrySource implements CatalogSource {
  readonly #registry: Registry;

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  /** First everything, then what changed: always whole services, never differences. */
  async *watch({ signal }: { readonly signal: AbortSignal }): AsyncGenerator<CatalogChange, void> {
    // Listening starts before the snapshot is taken, so that nothing falls in between.
    const events = on(this.#registry.events, "changed", { signal });
    try {
      yield this.#change(this.#registry.services.keys());
      for await (const [name] of events) yield this.#change([String(name)]);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #change(names: Iterable<string>): CatalogChange {
    const services = new Map<string, readonly ServiceInstance[]>();
    for (const name of names) {
      // A name without instances is one that is gone.
      const addresses = this.#registry.services.get(name) ?? [];
      services.set(
        name,
        addresses.map((address, index) => instance(name, address, index)),
      );
    }
    return { services };
  }
}

/** Replication carries what Consul's catalog knows of an instance; most of it has a plain default. */
function instance(name: string, address: string, index: number): ServiceInstance {
  const id = `${name}-${index + 1}`;
  return {
    node: { id: "", name: `node-of-${id}`, address, datacenter: "dc1", taggedAddresses: {}, meta: {} },
    service: {
      kind: "",
      id,
      name,
      tags: ["from-registry"],
      address: "",
      port: 8080,
      socketPath: "",
      taggedAddresses: {},
      meta: {},
      weights: { passing: 1, warning: 1 },
      enableTagOverride: false,
    },
    checks: [],
  };
}

const registry = new Registry();
registry.set("web", ["10.0.0.1", "10.0.0.2"]);

const network = memoryNetwork();
await using mine = await createHost({
  storage: memoryStorage(),
  transport: network.transport({ listen: "mine:8503" }),
  catalogSource: new RegistrySource(registry),
});
await using theirs = await createHost({ storage: memoryStorage(), transport: network.transport() });
await mine.exports.set({ services: [{ name: "*", consumers: [{ peer: "theirs" }] }] });
await theirs.peerings.establish({
  peerName: "mine",
  token: await mine.peerings.generateToken({ peerName: "theirs" }),
});

/** Waits until the other side has as many instances of web. */
async function seen(count: number): Promise<void> {
  const stop = new AbortController();
  for await (const _ of theirs.imports.watch({ peer: "mine", signal: stop.signal })) {
    const instances = await theirs.imports.instances({ peer: "mine", service: "web" });
    if (instances.length !== count) continue;
    console.log(`the peer sees web at ${instances.map(({ node }) => node.address).join(", ")}`);
    return;
  }
}

await seen(2);
registry.set("web", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
await seen(3);
