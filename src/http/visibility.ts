import type { Access, ReadableNames } from "../access/authorizer.js";
import type { Call } from "./call.js";
import type { CheckView, NodeView, ServiceView } from "./records.js";

/** Of imports all are readable, or none are. */
const ANY_NAME = "";

/** Decides which of one scope's data may be shown, and whether some were hidden. */
export class Visibility {
  readonly #readable: ReadableNames;
  /** No node needs to be looked at: whether a service may be seen does not depend on its node. */
  readonly everyNode: boolean;
  /** Everything may be seen: nothing needs to be looked at. */
  readonly everything: boolean;
  filtered = false;

  constructor(access: Access, peer: string) {
    this.#readable = access.readable(peer);
    const mayReadAll = (resource: "node" | "service"): boolean =>
      access.may({ resource, access: "read", scope: "all" });
    this.everything =
      peer === ""
        ? mayReadAll("node") && mayReadAll("service")
        : this.#readable.service(ANY_NAME) && this.#readable.node(ANY_NAME);
    this.everyNode = peer !== "" || access.may({ resource: "node", access: "read", scope: "all" });
  }

  /** @throws {PeeringError} `permission-denied` for an unknown token. */
  static async of(call: Call, peer: string): Promise<Visibility> {
    return new Visibility(await call.access(), peer);
  }

  service(name: string): boolean {
    return this.#seen(this.#readable.service(name));
  }

  node(name: string): boolean {
    return this.#seen(this.#readable.node(name));
  }

  instance({ node, service }: NodeView & ServiceView): boolean {
    return this.#seen(this.#readable.node(node.name) && this.#readable.service(service.name));
  }

  /** A check of a service is where the service is: it takes both rights. */
  check({ check }: CheckView): boolean {
    const service = check.serviceName === "" || this.#readable.service(check.serviceName);
    return this.#seen(service && this.#readable.node(check.node));
  }

  #seen(seen: boolean): boolean {
    if (!seen) this.filtered = true;
    return seen;
  }
}
