import { compareUtf8 } from "../base/byte-order.js";
import { lowerCase } from "../syntax/names.js";
import type { Service, ServiceInstance } from "./instance.js";

/** The facts about local service names that exports need, keyed lower-cased. */
export interface LocalNames {
  /** Names with an ordinary instance, as registered. */
  readonly typical: ReadonlyMap<string, string>;
  /** Names that a local sidecar serves, or whose instances speak for themselves in the mesh. */
  readonly connectEnabled: { has(name: string): boolean };
}

/** The names that one change of the catalog touched. */
export interface IndexChange {
  /** Lower-cased. */
  readonly services: readonly string[];
  /** Those that became or ceased to be typical or connect-enabled, or are registered with another spelling; lower-cased. */
  readonly names: ReadonlySet<string>;
  readonly gateways: boolean;
}

const noInstances: readonly ServiceInstance[] = [];

/** The name whose chain this instance makes possible, lower-cased. */
function connectName(service: Service): string | undefined {
  if (service.kind === "connect-proxy") return lowerCase(service.proxy?.destinationServiceName ?? "");
  return service.connect?.native === true ? lowerCase(service.name) : undefined;
}

function byNodeThenId(left: ServiceInstance, right: ServiceInstance): number {
  return (
    compareUtf8(lowerCase(left.node.name), lowerCase(right.node.name)) ||
    compareUtf8(lowerCase(left.service.id), lowerCase(right.service.id))
  );
}

/** All local services by name, with what exports ask of them kept up to date at the cost of what changes. */
export class ServiceIndex implements LocalNames {
  readonly #instances = new Map<string, readonly ServiceInstance[]>();
  readonly #typical = new Map<string, string>();
  readonly #connect = new Map<string, number>();
  readonly #gatewayNames = new Set<string>();
  #gateways: readonly ServiceInstance[] = [];

  get typical(): ReadonlyMap<string, string> {
    return this.#typical;
  }

  get connectEnabled(): { has(name: string): boolean } {
    return this.#connect;
  }

  /** All local mesh-gateway instances, healthy or not, ordered by node and service id. */
  get gateways(): readonly ServiceInstance[] {
    return this.#gateways;
  }

  /** Instances of every kind under this name, compared without case. */
  instances(name: string): readonly ServiceInstance[] {
    return this.#instances.get(lowerCase(name)) ?? noInstances;
  }

  /** @param complete - `services` holds everything there is; what it does not name is gone. */
  apply(services: ReadonlyMap<string, readonly ServiceInstance[]>, complete: boolean): IndexChange {
    const touched: string[] = [];
    const change = { names: new Set<string>(), gateways: false };
    const connectBefore = new Map<string, boolean>();
    for (const [name, instances] of services) {
      const key = lowerCase(name);
      touched.push(key);
      this.#replace(key, name, instances, change, connectBefore);
    }
    if (complete) {
      const named = new Set(touched);
      for (const key of [...this.#instances.keys()]) {
        if (named.has(key)) continue;
        touched.push(key);
        this.#replace(key, key, noInstances, change, connectBefore);
      }
    }
    for (const [name, was] of connectBefore) {
      if (this.#connect.has(name) !== was) change.names.add(name);
    }
    if (change.gateways) {
      const gateways = [...this.#gatewayNames].flatMap((name) =>
        this.instances(name).filter((instance) => instance.service.kind === "mesh-gateway"),
      );
      this.#gateways = gateways.sort(byNodeThenId);
    }
    return { services: touched, ...change };
  }

  #replace(
    key: string,
    name: string,
    instances: readonly ServiceInstance[],
    change: { readonly names: Set<string>; gateways: boolean },
    connectBefore: Map<string, boolean>,
  ): void {
    let typical = false;
    let gateway = false;
    for (const { service } of instances) {
      if (service.kind === "") typical = true;
      else if (service.kind === "mesh-gateway") gateway = true;
      this.#count(connectName(service), 1, connectBefore);
    }
    for (const { service } of this.#instances.get(key) ?? noInstances) {
      this.#count(connectName(service), -1, connectBefore);
    }
    if (typical) {
      if (this.#typical.get(key) !== name) change.names.add(key);
      this.#typical.set(key, name);
    } else if (this.#typical.delete(key)) {
      change.names.add(key);
    }
    if (gateway) {
      this.#gatewayNames.add(key);
      change.gateways = true;
    } else if (this.#gatewayNames.delete(key)) {
      change.gateways = true;
    }
    if (instances.length === 0) this.#instances.delete(key);
    else this.#instances.set(key, instances);
  }

  #count(name: string | undefined, step: 1 | -1, before: Map<string, boolean>): void {
    if (name === undefined) return;
    const count = this.#connect.get(name) ?? 0;
    if (!before.has(name)) before.set(name, count > 0);
    if (count + step > 0) this.#connect.set(name, count + step);
    else this.#connect.delete(name);
  }
}
