import { compareUtf8 } from "../base/byte-order.js";
import { lowerCase } from "../syntax/names.js";
import { type CheckGroup, groupsOf, LISTED_AT_ONCE } from "./check-groups.js";
import { isCritical } from "./health.js";
import type { Check, ServiceInstance } from "./instance.js";

/** A service as a list of services shows it, made of its instances and of the proxies for it. It never changes. */
export interface ServiceSummary {
  /** As the first of these spells it. */
  readonly name: string;
  /** As the first of its own instances spells it; `""`: there are only proxies for it. */
  readonly ownName: string;
  readonly kind: string;
  readonly datacenter: string;
  /** These three are in byte order. */
  readonly tags: readonly string[];
  readonly nodes: readonly string[];
  readonly sources: readonly string[];
  readonly instances: number;
  /** Checks of its instances and proxies: one that several of them share counts once. */
  readonly passing: number;
  readonly warning: number;
  readonly critical: number;
  readonly transparent: boolean;
  readonly native: boolean;
  readonly proxied: boolean;
}

const none: readonly string[] = [];

/** Makes the summary of one service. Its instances and proxies are added in the order of a list. */
export class SummaryMaker {
  readonly name: string;
  #ownName = "";
  #kind = "";
  #datacenter = "";
  #instances = 0;
  #transparent = false;
  #native = false;
  #proxied = false;
  readonly #nodes = new Set<string>();
  readonly #tags = new Set<string>();
  readonly #sources = new Set<string>();
  /** Status by node and id. */
  readonly #checks = new Map<string, string>();
  /** Many checks at once, by node and the service they are of; `""`: they are of the node. */
  readonly #groups = new Map<string, CheckGroup<Check>>();

  constructor(name: string) {
    this.name = name;
  }

  add(instance: ServiceInstance): void {
    const { node, service } = instance;
    if (this.#instances++ === 0) this.#ownName = service.name;
    this.#kind = service.kind;
    this.#datacenter = node.datacenter;
    this.#nodes.add(node.name);
    for (const tag of service.tags) this.#tags.add(tag);
    const { "external-source": source = "" } = service.meta;
    if (source !== "") this.#sources.add(source);
    this.#native ||= service.connect?.native === true;
    this.#addChecks(instance);
  }

  /** A proxy of this service: its checks are checks of the service, too. */
  addProxy(instance: ServiceInstance): void {
    const transparent = instance.service.proxy?.mode === "transparent";
    // One instance that is not makes the whole service not.
    this.#transparent = transparent && (this.#transparent || !this.#proxied);
    this.#proxied = true;
    this.#addChecks(instance);
  }

  summary(): ServiceSummary {
    let [passing, warning, critical] = [0, 0, 0];
    for (const status of this.#checks.values()) {
      if (status === "passing") passing++;
      else if (status === "warning") warning++;
      else if (isCritical(status)) critical++;
    }
    for (const { health } of this.#groups.values()) {
      passing += health.passing;
      warning += health.warning;
      critical += health.critical;
    }
    return {
      name: this.name,
      ownName: this.#ownName === this.name ? this.name : this.#ownName,
      kind: this.#kind,
      datacenter: this.#datacenter,
      tags: sorted(this.#tags),
      nodes: sorted(this.#nodes),
      sources: sorted(this.#sources),
      instances: this.#instances,
      passing,
      warning,
      critical,
      transparent: this.#transparent,
      native: this.#native,
      proxied: this.#proxied,
    };
  }

  #addChecks(instance: ServiceInstance): void {
    const groups = groupsOf<Check>(instance);
    if (groups === undefined) {
      this.#addEach(instance.checks);
      return;
    }
    const { node, service } = instance;
    const add = (group: CheckGroup<Check>, owner: string): void => {
      if (group.size > LISTED_AT_ONCE) this.#groups.set(`${lowerCase(node.name)}\0${lowerCase(owner)}`, group);
      else this.#addEach(group.list);
    };
    add(groups.ofNode, "");
    add(groups.own, service.id);
  }

  #addEach(checks: readonly Check[]): void {
    for (const { node, checkId, status } of checks) this.#checks.set(`${lowerCase(node)}\0${checkId}`, status);
  }
}

/** The service of the mesh that a proxy is for, as it spells it; `""`: it is none. */
export function proxiedName({ kind, proxy }: ServiceInstance["service"]): string {
  return kind === "connect-proxy" ? (proxy?.destinationServiceName ?? "") : "";
}

function sorted(texts: ReadonlySet<string>): readonly string[] {
  return texts.size === 0 ? none : [...texts].sort(compareUtf8);
}
