import { Alarm } from "../base/alarm.js";
import { compareUtf8 } from "../base/byte-order.js";
import type { Closable } from "../base/closable.js";
import type { Clock, Logger } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { isPort } from "../base/host-port.js";
import type { Incidents } from "../base/incidents.js";
import { Mutex } from "../base/mutex.js";
import { Signal } from "../base/signal.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { CheckDefinition, ProbeMethod } from "../checks/definition.js";
import { type ExposedTarget, exposedTarget, throughProxy } from "../checks/exposed.js";
import { centralExpose } from "../config/central-config.js";
import { listMember, member } from "../model/kept-members.js";
import type { Catalog, CheckExposure, IndexedService } from "../stores/catalog.js";
import type { ConfigEntries } from "../stores/config-entries.js";
import { lowerCase } from "../syntax/names.js";

/** Ports that proxies lead to checks, both ends included. */
export interface ExposedPortRange {
  readonly first: number;
  readonly last: number;
}

/** A check of a service whose proxy exposes checks. */
export type ExposedCheck =
  | { readonly checkId: string; readonly target: ExposedTarget; readonly port: number }
  /** It goes to the service directly. */
  | { readonly checkId: string; readonly problem: string };

export interface ExposedChecksOptions {
  readonly catalog: Catalog;
  readonly configEntries: ConfigEntries;
  readonly node: string;
  readonly range: ExposedPortRange;
  /** Of a check that runs here. */
  readonly definition: (checkId: string) => CheckDefinition | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly incidents: Incidents;
}

/** A proxy that leads to the checks of the service that it stands for. */
interface Exposing {
  readonly proxyId: string;
  readonly address: string;
}

/** Consul's range (1.21). */
export const defaultExposedPorts: ExposedPortRange = { first: 21_500, last: 21_755 };
/** News are looked at this often at most, however often they come. */
const LOOK_EVERY_MS = 50;
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;
/** Cost of looking at one proxy or one check in a step, in fields. */
const LOOK_FIELDS = 25;

/**
 * Ports for the checks of one node that `Expose.Checks` of a proxy asks for. A port stands in the check's record in the catalog, so that it
 * outlives restarts, and hosts of one node name agree on it. It is given back when the check, the proxy or its setting goes.
 */
export class ExposedChecks implements Closable {
  readonly #options: ExposedChecksOptions;
  /** The node's proxies for another service of the node, by the lower-cased name under which they are registered. */
  readonly #proxies = new Map<string, readonly IndexedService[]>();
  /** By lower-cased id of the service. */
  #exposing: ReadonlyMap<string, Exposing> = new Map();
  /** Lower-cased names of these services. */
  readonly #exposedNames = new Set<string>();
  /** Ports of listeners for `Expose.Paths`. */
  #avoided: ReadonlySet<number> = new Set();
  /** The checks that have each port, by their lower-cased ids, as they were written last. */
  #owners: ReadonlyMap<number, string> = new Map();
  /** How many checks are without a port, for want of one. */
  #left = 0;
  // News that wait for a look: names of the catalog, services of the node, and the settings of all proxies.
  #names = new Set<string>();
  #services = new Set<string>();
  #entriesChanged = false;
  #isFirst = true;
  #failures = 0;
  readonly #looks = new Mutex();
  readonly #alarm: Alarm;
  readonly #changes: Signal;
  readonly #forget: readonly (() => void)[];
  #closed = false;

  constructor(options: ExposedChecksOptions) {
    const { catalog, configEntries, clock, incidents } = options;
    this.#options = options;
    this.#changes = new Signal(incidents);
    this.#alarm = new Alarm(clock, () => void this.settled());
    this.#forget = [
      catalog.onChange((services) => this.#note(services.keys())),
      configEntries.onChange(({ kind }) => {
        if (kind !== "proxy-defaults" && kind !== "service-defaults") return;
        if (this.#proxies.size === 0) return;
        this.#entriesChanged = true;
        this.#alarm.ensure(LOOK_EVERY_MS);
      }),
    ];
    this.#note(catalog.kinds().keys());
  }

  /** Calls `listener` when {@link checksOf} may answer otherwise, until the returned function is called. */
  onChange(listener: () => void): () => void {
    return this.#changes.on(listener);
  }

  /** A check begins to run, or runs in another way. */
  checkChanged(checkId: string): void {
    const check = this.#options.catalog.check(this.#options.node, checkId);
    if (check === undefined || check.serviceId === "") return;
    const service = lowerCase(check.serviceId);
    if (check.exposedPort === 0 && !this.#exposing.has(service)) return;
    this.#services.add(service);
    this.#alarm.ensure(LOOK_EVERY_MS);
  }

  /** Resolves when ports are as all earlier news ask for, or could not be written and are tried again later. */
  settled(): Promise<void> {
    return this.#looks.run(() => this.#look());
  }

  /** The checks of a service whose proxy exposes them; empty where none does. */
  checksOf(serviceId: string): readonly ExposedCheck[] {
    const { catalog, node, definition } = this.#options;
    if (!this.#exposing.has(lowerCase(serviceId))) return [];
    return catalog.checksOf(node, serviceId).flatMap(({ checkId, exposedPort: port }): readonly ExposedCheck[] => {
      const method = definition(checkId)?.method;
      if (method?.type !== "http" && method?.type !== "grpc") return [];
      const target = exposedTarget(method);
      if (target === undefined)
        return [{ checkId, problem: "a proxy cannot lead to its target, such as one with TLS" }];
      return [port === 0 ? { checkId, problem: "no port is left for it" } : { checkId, target, port }];
    });
  }

  /** The probe of a check, through the proxy where that exposes it. */
  proxied(checkId: string, method: ProbeMethod): ProbeMethod {
    if (this.#exposing.size === 0 || exposedTarget(method) === undefined) return method;
    const check = this.#options.catalog.check(this.#options.node, checkId);
    const exposing = check && this.#exposing.get(lowerCase(check.serviceId));
    if (exposing === undefined || check === undefined || check.exposedPort === 0) return method;
    return throughProxy(method, exposing.address, check.exposedPort);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#forget) stop();
    this.#alarm.cancel();
    this.#changes.clear();
    await this.#looks.idle();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Most changes of the catalog concern no proxy of this node. */
  #note(names: Iterable<string>): void {
    const { catalog } = this.#options;
    const before = this.#names.size;
    for (const name of names) {
      const counts = this.#proxies.has(name) || this.#exposedNames.has(name) || catalog.isOf(name, "connect-proxy");
      if (counts) this.#names.add(name);
    }
    if (this.#names.size > before) this.#alarm.ensure(LOOK_EVERY_MS);
  }

  async #look(): Promise<void> {
    if (this.#closed) return;
    this.#alarm.cancel();
    const { catalog, node, range, logger, incidents } = this.#options;
    await inTurns(this.#findServices());
    const due = this.#services;
    this.#services = new Set();
    if (due.size === 0) return;
    try {
      const exposure = await inTurns(this.#exposureOf(due));
      if (exposure !== undefined) {
        const left = await catalog.exposeChecks(node, exposure);
        this.#left = left.length;
        if (left.length > 0) {
          incidents.report("exposed-ports", "no port is left to expose a check at its proxy: it goes to the service", {
            check: left[0] ?? "",
            count: left.length,
            limit: range.last === 0 ? 0 : range.last - range.first + 1,
          });
        }
        this.#remember(exposure);
      }
      this.#isFirst = false;
      this.#failures = 0;
      this.#changes.emit();
    } catch (error) {
      if (this.#closed || (error instanceof PeeringError && error.code === "closed")) return;
      logger.warn("the ports of exposed checks were not written", { error: errorText(error) });
      for (const service of due) this.#services.add(service);
      this.#alarm.set(Math.min(FIRST_RETRY_MS * 2 ** this.#failures++, MAX_RETRY_MS));
    }
  }

  /** Takes the news, and adds the services whose checks they concern. */
  *#findServices(): Steps<void> {
    const { catalog, node } = this.#options;
    const [names, entriesChanged] = [this.#names, this.#entriesChanged];
    this.#names = new Set();
    this.#entriesChanged = false;
    let changed = entriesChanged;
    const meter = new StepMeter();
    for (const name of names) {
      const instances = catalog.instancesOn(node, name);
      const proxies = instances.filter(({ kind, proxy }) => kind === "connect-proxy" && proxy?.destinationServiceId);
      if (!isSame(this.#proxies.get(name) ?? [], proxies)) changed = true;
      if (proxies.length > 0) this.#proxies.set(name, proxies);
      else this.#proxies.delete(name);
      for (const { id } of instances) if (this.#exposing.has(lowerCase(id))) this.#services.add(lowerCase(id));
      if (meter.isOver(LOOK_FIELDS * (instances.length + 1))) yield;
    }
    if (changed) yield* this.#findExposing(meter);
  }

  *#findExposing(meter: StepMeter): Steps<void> {
    const { entries } = this.#options.configEntries;
    const exposing = new Map<string, Exposing>();
    const avoided = new Set<number>();
    for (const proxies of this.#proxies.values()) {
      for (const service of proxies) {
        const expose = centralExpose(service, entries);
        for (const path of listMember(expose, "Paths")) {
          const port = member(path, "ListenerPort");
          if (typeof port === "number") avoided.add(port);
        }
        const id = lowerCase(service.proxy?.destinationServiceId ?? "");
        const before = exposing.get(id);
        // Of several proxies the first by its id, at every host.
        const isFirst = before === undefined || compareUtf8(service.id, before.proxyId) < 0;
        if (member(expose, "Checks") === true && isFirst) {
          // Where nothing is said, a proxy listens at all addresses.
          exposing.set(id, { proxyId: service.id, address: service.address || "127.0.0.1" });
        }
        if (meter.isOver(LOOK_FIELDS)) yield;
      }
    }
    const former = this.#exposing;
    const moved = avoided.size !== this.#avoided.size || [...avoided].some((port) => !this.#avoided.has(port));
    this.#exposing = exposing;
    this.#avoided = avoided;
    this.#exposedNames.clear();
    for (const id of new Set([...former.keys(), ...exposing.keys()])) {
      const name = this.#options.catalog.service(this.#options.node, id)?.name;
      if (name !== undefined && exposing.has(id)) this.#exposedNames.add(lowerCase(name));
      const [before, after] = [former.get(id), exposing.get(id)];
      if (moved || before?.proxyId !== after?.proxyId || before?.address !== after?.address) this.#services.add(id);
    }
  }

  /** Undefined: all is as it is to be. */
  *#exposureOf(due: Iterable<string>): Steps<CheckExposure | undefined> {
    const { catalog, node, definition, range } = this.#options;
    const meter = new StepMeter();
    const hidden: string[] = [];
    let isNeeded = this.#left > 0;
    for (const id of due) {
      const isExposing = this.#exposing.has(id);
      const name = isExposing ? catalog.service(node, id)?.name : undefined;
      if (name !== undefined) this.#exposedNames.add(lowerCase(name));
      for (const { checkId, exposedPort } of catalog.checksOf(node, id)) {
        const method = definition(checkId)?.method;
        // Another agent's, or somebody's who writes to the catalog.
        if (method === undefined) continue;
        if (isExposing && exposedTarget(method) !== undefined) {
          if (!this.#keeps(exposedPort) || this.#owners.get(exposedPort) !== lowerCase(checkId)) isNeeded = true;
        } else if (exposedPort !== 0) hidden.push(checkId);
        if (meter.isOver(LOOK_FIELDS)) yield;
      }
    }
    if (!isNeeded && hidden.length === 0) return undefined;
    const exposed: string[] = [];
    for (const id of [...this.#exposing.keys()].sort(compareUtf8)) {
      const ids = catalog.checksOf(node, id).map(({ checkId }) => checkId);
      for (const checkId of ids.sort(compareUtf8)) {
        const method = definition(checkId)?.method;
        if (method !== undefined && exposedTarget(method) !== undefined) exposed.push(checkId);
        if (meter.isOver(LOOK_FIELDS)) yield;
      }
    }
    return { exposed, hidden, ...range, avoided: this.#avoided, keeps: (port) => this.#keeps(port) };
  }

  /**
   * Whether a check may go on with the port that it has. A range that was changed counts from the start of a host: hosts of one node name with
   * different ranges would else write against each other for ever.
   */
  #keeps(port: number): boolean {
    const { first, last } = this.#options.range;
    return isPort(port) && !this.#avoided.has(port) && (!this.#isFirst || (port >= first && port <= last));
  }

  #remember({ exposed }: CheckExposure): void {
    const { catalog, node } = this.#options;
    const owners = new Map<number, string>();
    for (const id of exposed) {
      const port = catalog.check(node, id)?.exposedPort ?? 0;
      if (port !== 0) owners.set(port, lowerCase(id));
    }
    this.#owners = owners;
  }
}

function isSame(left: readonly IndexedService[], right: readonly IndexedService[]): boolean {
  return (
    left.length === right.length &&
    left.every(({ id, modifyIndex }, at) => right[at]?.id === id && right[at]?.modifyIndex === modifyIndex)
  );
}
