import { isDeepStrictEqual } from "node:util";
import { errorText, PeeringError } from "../../base/errors.js";
import type { PeeringHost } from "../../host/host.js";
import type { ServiceInstance } from "../../model/instance.js";
import type { SimCluster } from "./cluster.js";
import { virtualClock } from "./scheduler.js";
import type { SimWorld } from "./sim-world.js";

/** An observer that follows the imports of a host from a peer, and builds its copy from the watch alone. */
export interface Observer {
  /** Where its copy differs from a read, in words; nothing while there is nothing to compare. */
  differs(): Promise<string | undefined>;
}

/** @param pauseMs - it takes up to so long for each change. */
export function observe(
  world: SimWorld,
  cluster: SimCluster,
  host: PeeringHost,
  peer: string,
  pauseMs: number,
): Observer {
  const { random, scheduler, checker } = world;
  const known = new Map<string, Map<string, ServiceInstance>>();
  const peeringId = host.peerings.read(peer)?.id;
  const clock = virtualClock(scheduler, cluster.life);
  let over = peeringId === undefined;
  let lastRevision = 0n;

  const take = (service: string, instances: readonly ServiceInstance[], there: boolean): void => {
    const held = known.get(service.toLowerCase()) ?? new Map<string, ServiceInstance>();
    for (const instance of instances) {
      const key = `${instance.node.name} ${instance.service.id}`;
      if (there) held.set(key, instance);
      else held.delete(key);
    }
    if (held.size > 0) known.set(service.toLowerCase(), held);
    else known.delete(service.toLowerCase());
  };

  const follow = async (): Promise<void> => {
    for await (const change of host.imports.watch({ peer, signal: new AbortController().signal })) {
      if (change.revision < lastRevision) checker.fail(`${cluster.name}: a watch of ${peer} goes back in time`);
      lastRevision = change.revision;
      if (change.type === "snapshot") {
        known.clear();
        for (const [service, instances] of change.services) take(service, instances, true);
      } else {
        take(change.service, change.removed, false);
        take(change.service, [...change.added, ...change.changed], true);
      }
      if (pauseMs > 0) await new Promise<void>((resolve) => clock.after(random.between(0, pauseMs), resolve));
    }
  };
  if (!over) {
    follow().then(
      () => {
        over = true;
      },
      (error: unknown) => {
        over = true;
        // A disk may fail a read, and who watches starts over then.
        if (!(error instanceof PeeringError)) checker.fail(`${cluster.name}: a watch failed: ${errorText(error)}`);
      },
    );
  }
  return {
    async differs() {
      if (over || cluster.host !== host || host.peerings.read(peer)?.id !== peeringId) return undefined;
      const read = new Map<string, Map<string, ServiceInstance>>();
      for (const { name } of host.imports.services({ peer })) {
        const instances = await host.imports.instances({ peer, service: name });
        read.set(
          name.toLowerCase(),
          new Map(instances.map((instance) => [`${instance.node.name} ${instance.service.id}`, instance])),
        );
      }
      return isDeepStrictEqual(known, read) ? undefined : `who watches ${peer} at ${cluster.name} sees something else`;
    },
  };
}
