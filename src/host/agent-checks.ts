import { setImmediate } from "node:timers/promises";
import { AddressRanges } from "../base/address-ranges.js";
import type { Closable } from "../base/closable.js";
import type { Clock, Logger, Random, Timer } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { KeyedMutex, Mutex } from "../base/mutex.js";
import { retry } from "../base/retry.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import { unquoted } from "../base/unquoted.js";
import {
  type CheckDefinition,
  type CheckResult,
  type CheckStatus,
  isCheckStatus,
  type ProbeMethod,
} from "../checks/definition.js";
import { afterResult, firstStreak, type Streak } from "../checks/thresholds.js";
import type { CheckGroup } from "../model/check-groups.js";
import { MEMBERSHIP_CHECK } from "../model/health.js";
import type { Check } from "../model/instance.js";
import type { Registration } from "../model/registration.js";
import { CHECK_DEFINITIONS_PREFIX, CHECK_REPORTS_PREFIX } from "../storage/keys.js";
import type { Key, Storage } from "../storage/storage.js";
import { type RowFormat, type RowWrite, StoredTable, type TableChange } from "../storage/stored-table.js";
import type { Catalog, CatalogWriteOptions } from "../stores/catalog.js";
import type { ConfigEntries } from "../stores/config-entries.js";
import { lowerCase } from "../syntax/names.js";
import { defaultExposedPorts, type ExposedCheck, ExposedChecks, type ExposedPortRange } from "./exposed-checks.js";

/** Bounds of the checks that an agent runs. */
export interface CheckLimits {
  /**
   * Ranges that checks may connect to, as `10.0.0.0/8` or `fd00::/8`; also what a name or a redirect leads to. Default:
   * every address, as in Consul.
   */
  readonly allowedAddresses?: readonly string[] | undefined;
  /** Probes under way at once. Default 1 000; further ones wait for their turn. */
  readonly concurrentProbes?: number | undefined;
  /** Checks that one node may have. Default 100 000; beyond: `resource-exhausted`. */
  readonly checks?: number | undefined;
  /** Bytes kept of an output. Default 4 096, as in Consul. */
  readonly outputMaxBytes?: number | undefined;
  /**
   * Ports at which sidecars lead to checks, where `Expose.Checks` asks for it. Hosts of one node name are to have the same. A last port of 0:
   * none, so that all checks go to the services. Default 21 500 to 21 755, as in Consul.
   */
  readonly exposedPorts?: ExposedPortRange | undefined;
}

export interface AgentChecksOptions {
  readonly storage: Storage;
  readonly catalog: Catalog;
  readonly configEntries: ConfigEntries;
  /** The node whose checks these are. */
  readonly node: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly incidents: Incidents;
  readonly limits?: CheckLimits | undefined;
}

/** A check that runs. */
interface Running {
  readonly id: string;
  readonly definition: CheckDefinition;
  /** Aborts when the check is removed or replaced. */
  readonly stop: AbortController;
  /** Of the next probe, or of the end of a TTL. */
  timer: Timer | undefined;
  streak: Streak;
  /** Newer than the catalog has it, when a write waits. */
  result: CheckResult;
  /** The last report of a TTL check, without the text about its end. */
  reported: string;
  /** Since when it is critical, and when its service is to go for that. */
  removal: Timer | undefined;
  /** Of an output alone, which is written later. */
  writeLater: Timer | undefined;
  /** An attempt to write the result that is under way. */
  writing: Promise<void> | undefined;
  /** Whether attempts go on until one succeeds. */
  retrying: boolean;
}

interface StoredDefinition {
  /** As it was given: its path is in lower case. */
  readonly id: string;
  readonly definition: CheckDefinition;
}

const DEFAULT_OUTPUT_BYTES = 4_096;
const DEFAULT_PROBES = 1_000;
const DEFAULT_CHECKS = 100_000;
const DEFAULT_TIMEOUT_MS = 10_000;
/** Consul's defaults (1.21): outputs that change alone reach the catalog this late. */
const OUTPUT_DELAY_MS = 300_000;
/** A shorter time is taken as this one, as in Consul. */
const LEAST_REMOVAL_MS = 60_000;
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;
/** Reports of TTLs are stored together, this often at most. A crash loses so much of them. */
const REPORTS_EVERY_MS = 1_000;
/** The catalog is looked at again at most this often, however often it changes. */
const CATALOG_EVERY_MS = 50;
/**
 * So long a definition may be there without its check: a host stores the one, then the other, and another host is told of either
 * by itself.
 */
const MISSING_MS = 60_000;
/** Definitions that are stored in one turn. */
const STORED_BATCH = 1_000;
/** Weight of the start of a check in a step: it takes as long as so many fields to read. */
const START_FIELDS = 50;
/** The head of a table whose rows are named by check ids, none of which is empty. */
const HEAD = "";

/**
 * The checks of one node, run as an agent of Consul runs them: probes at their intervals, TTLs that a program must renew,
 * aliases that follow another service. Their definitions are stored, and go on after a restart. Every host of the same storage
 * and node name runs them, also those that another one registers.
 *
 * The result of a check goes into the catalog: a new status at once, a new output alone up to five minutes later.
 */
export class AgentChecks implements Closable {
  readonly node: string;
  readonly #options: AgentChecksOptions;
  readonly #definitions: StoredTable<StoredDefinition>;
  /** When the last reports of TTL checks end, on the wall clock in milliseconds. */
  readonly #reports: StoredTable<number>;
  readonly #outputMaxBytes: number;
  readonly #allows: (address: string) => boolean;
  readonly #running = new Map<string, Running>();
  /** Those of them that are aliases, which each change of the catalog may concern. */
  readonly #aliases = new Set<Running>();
  /** Definitions whose checks are not in the catalog, by lower-cased id, until they are forgotten. */
  readonly #missing = new Map<string, Timer>();
  readonly #exposed: ExposedChecks;
  readonly #closing = new AbortController();
  readonly #choices = new Mutex();
  /** By check: writes of one check keep their order, and those of several share commits. */
  readonly #writes = new KeyedMutex();
  /** Checks that are being added. */
  #adding = 0;
  /** TTLs that were reported since the last commit of reports. */
  #unstored = new Set<Running>();
  #storeTimer: Timer | undefined;
  #catalogTimer: Timer | undefined;
  #catalogSeenAt = Number.NEGATIVE_INFINITY;
  #probing = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #unsubscribe: () => void;

  /**
   * Goes on with the checks that `storage` has of this node. A TTL that ended meanwhile is critical.
   * @throws {PeeringError} as the storage does.
   * @throws {TypeError} for an invalid range.
   */
  static async open(options: AgentChecksOptions): Promise<AgentChecks> {
    const { clock, incidents, storage } = options;
    const node = lowerCase(options.node);
    const allowed = options.limits?.allowedAddresses;
    const ranges = allowed && new AddressRanges(allowed);
    const shared = { storage, head: HEAD, clock, incidents };
    const definitions = await StoredTable.open<StoredDefinition>({
      ...shared,
      prefix: [...CHECK_DEFINITIONS_PREFIX, node],
      rowName: "check definition",
      format: definitionFormat,
      // Of a later version, most often: one check does not keep a host from starting, and is not lost.
      expendable: {
        has: () => true,
        mayDelete: () => false,
        incident: "check-damaged",
        message:
          "the stored definition of a check cannot be read: it is kept and does not run, until it is registered again or removed",
      },
    });
    try {
      const reports = await StoredTable.open<number>({
        ...shared,
        prefix: [...CHECK_REPORTS_PREFIX, node],
        rowName: "report of a check",
        format: reportFormat,
        // One that is lost is made again, or its check expires.
        durability: "relaxed",
        expendable: {
          has: () => true,
          incident: "check-report-damaged",
          message: "the stored report of a TTL check cannot be read, and is dropped",
        },
      });
      const checks = new AgentChecks(options, definitions, reports, (address) => ranges?.leadsInto(address) ?? true);
      // Before the first probe, which would miss the proxy.
      await checks.#exposed.settled();
      return checks;
    } catch (error) {
      await definitions[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(
    options: AgentChecksOptions,
    definitions: StoredTable<StoredDefinition>,
    reports: StoredTable<number>,
    allows: (address: string) => boolean,
  ) {
    this.#options = options;
    this.#definitions = definitions;
    this.#reports = reports;
    this.node = options.node;
    this.#outputMaxBytes = options.limits?.outputMaxBytes ?? DEFAULT_OUTPUT_BYTES;
    this.#allows = allows;
    const { catalog, configEntries, clock, logger, incidents, limits } = options;
    this.#exposed = new ExposedChecks({
      ...{ catalog, configEntries, node: options.node, clock, logger, incidents },
      range: limits?.exposedPorts ?? defaultExposedPorts,
      definition: (checkId) => this.definition(checkId),
    });
    this.#unsubscribe = catalog.onChange(() => this.#lookAtCatalog());
    definitions.onChange((change) => this.#followDefinitions(change));
    reports.onChange((change) => this.#followReports(change));
    this.#load();
  }

  /**
   * Stores the definitions, writes `registrations` to the catalog, and runs the checks, of many some in each turn. A check that is
   * there already is replaced, and keeps its status until it has run.
   * @param registrations - are not to be changed before the write is over.
   * @param definitions - by check id; each id is one of a check in `registrations`.
   * @throws {PeeringError} as `Catalog.registerAll`, `resource-exhausted`: too many checks, `invalid-registration`: a check has no id.
   *   Nothing was changed then, but with `unavailable`: it may have been.
   */
  async register(
    registrations: readonly Registration[],
    definitions: ReadonlyMap<string, CheckDefinition>,
    options: CatalogWriteOptions = {},
  ): Promise<void> {
    const ids = [...definitions.keys()];
    if (ids.includes("")) throw new PeeringError("invalid-registration", "a check that is to be run needs an id");
    await this.#writes.run(ids.map(lowerCase), async () => {
      const added = ids.filter((id) => !this.#running.has(lowerCase(id))).length;
      const most = this.#options.limits?.checks ?? DEFAULT_CHECKS;
      if (this.#running.size + this.#adding + added > most) {
        this.#options.incidents.report("checks-per-node", "a check was refused: the node has too many", {
          limit: most,
        });
        throw new PeeringError("resource-exhausted", `this node has ${most} checks, which is its limit`);
      }
      this.#adding += added;
      try {
        await this.#store(registrations, definitions, options);
      } finally {
        this.#adding -= added;
      }
    });
    await this.#exposed.settled();
  }

  async #store(
    registrations: readonly Registration[],
    definitions: ReadonlyMap<string, CheckDefinition>,
    options: CatalogWriteOptions,
  ): Promise<void> {
    const rows = Array.from(definitions, ([id, definition]) => ({ path: [lowerCase(id)], row: { id, definition } }));
    const stored = (path: readonly string[]): StoredDefinition | undefined => this.#definitions.get(...path)?.row;
    // The definitions first: a crash in between leaves some without a check, which are forgotten later; the other way round it
    // would leave checks that never run. One that cannot be read stays until the catalog has taken the one in its place.
    const first = rows.filter(({ path }) => this.#definitions.fault(...path) === undefined);
    const before = first.map(({ path }) => ({ path, row: stored(path) }));
    try {
      await this.#put(first);
      await this.#options.catalog.registerAll(registrations, { ...options, inTurns: true });
    } catch (error) {
      // Where the catalog may have taken them all the same, new checks keep their definitions: if they do not come, those are
      // forgotten.
      const isOpen = error instanceof PeeringError && error.code === "unavailable";
      await this.#putBack(isOpen ? before.filter(({ row }) => row !== undefined) : before);
      if (isOpen) for (const { path, row } of first) if (stored(path) === row) this.#begin(row);
      throw error;
    }
    // Those of the other services, and definitions that another host has dropped meanwhile, for want of a check.
    await this.#put(rows.filter(({ path, row }) => stored(path) !== row));
    await inTurns(this.#startAll(rows));
  }

  /** Stores rows, a part of many in each turn. What was stored stays when a later part fails. */
  async #put(rows: readonly RowWrite<StoredDefinition>[]): Promise<void> {
    for (let first = 0; first < rows.length; first += STORED_BATCH) {
      if (first > 0) await setImmediate();
      await this.#definitions.put(rows.slice(first, first + STORED_BATCH));
    }
  }

  *#startAll(rows: readonly { readonly path: Key; readonly row: StoredDefinition }[]): Steps<void> {
    const meter = new StepMeter();
    for (const { path, row } of rows) {
      if (this.#closing.signal.aborted) return;
      // Another host may have stored another one meanwhile, which runs then.
      if (this.#definitions.get(...path)?.row === row) this.#start(row.id, row.definition);
      if (meter.isOver(START_FIELDS)) yield;
    }
  }

  async #putBack(before: readonly RowWrite<StoredDefinition>[]): Promise<void> {
    try {
      await this.#definitions.put(before);
      // A definition that was stored without an answer runs already.
      for (const { path, row } of before) this.#run(path.join("/"), row);
    } catch (error) {
      this.#options.logger.warn("definitions of checks that were refused may be stored", { error: errorText(error) });
    }
  }

  /** Runs a registration that takes something which nothing else on the node has, such as a free port, after others that do. */
  choosing<Result>(registration: () => Promise<Result>): Promise<Result> {
    return this.#choices.run(registration);
  }

  /** Stops checks that were removed from the catalog, and forgets their definitions. Unknown ones are no failure. */
  async forget(checkIds: Iterable<string>): Promise<void> {
    const ids = [...checkIds];
    await this.#writes.run(ids.map(lowerCase), async () => {
      for (const id of ids) this.#end(id);
      await this.#remove(ids);
    });
  }

  async #remove(ids: readonly string[]): Promise<void> {
    // First, because nothing would remove them after a crash in between.
    await this.#removeReports(ids);
    // Also where none is known: there may be one that cannot be read.
    await this.#definitions.put(ids.map((id) => ({ path: [lowerCase(id)], row: undefined })));
  }

  async #removeReports(ids: readonly string[]): Promise<void> {
    const rows = ids.map((id) => ({ path: [lowerCase(id)], row: undefined }));
    await this.#reports.put(rows.filter(({ path }) => this.#reports.get(...path) !== undefined));
  }

  /** Of a check that runs here. */
  definition(checkId: string): CheckDefinition | undefined {
    return this.#running.get(lowerCase(checkId))?.definition;
  }

  /** The checks of a service of this node whose proxy exposes them, and how; empty where none does. */
  exposed(serviceId: string): readonly ExposedCheck[] {
    return this.#exposed.checksOf(serviceId);
  }

  /** Calls `listener` when exposed checks may be others, until the returned function is called. */
  onExposedChange(listener: () => void): () => void {
    return this.#exposed.onChange(listener);
  }

  /** The last result of a check that runs here; the catalog may get it later. */
  result(checkId: string): CheckResult | undefined {
    return this.#running.get(lowerCase(checkId))?.result;
  }

  /**
   * Somebody reports how a TTL check is, which begins its time again. Resolves once the catalog has a changed status.
   * @throws {PeeringError} `not-found`: no TTL check of this id runs here. As `Catalog.register`.
   */
  async report(checkId: string, status: CheckStatus, output: string): Promise<void> {
    const running = this.#running.get(lowerCase(checkId));
    if (running === undefined || running.definition.method.type !== "ttl") {
      throw new PeeringError("not-found", `CheckID ${JSON.stringify(checkId)} does not have associated TTL`);
    }
    const most = this.#outputBytes(running.definition);
    const bytes = Buffer.from(output);
    const kept =
      bytes.length <= most
        ? output
        : `${bytes.toString("utf8", 0, most)} ... (captured ${most} of ${bytes.length} bytes)`;
    running.reported = kept;
    this.#armTtl(running, running.definition.method.ttlMs);
    this.#unstored.add(running);
    this.#storeTimer ??= this.#options.clock.after(REPORTS_EVERY_MS, () => this.#storeReports());
    await this.#settle(running, { status, output: kept });
  }

  async close(): Promise<void> {
    this.#closing.abort(new PeeringError("closed", "the host was disposed of"));
    this.#unsubscribe();
    await this.#exposed.close();
    this.#catalogTimer?.cancel();
    for (const id of [...this.#running.keys(), ...this.#missing.keys()]) this.#end(id, true);
    this.#storeTimer?.cancel();
    await this.#storeReports();
    await this.#writes.idle();
    for (const table of [this.#reports, this.#definitions]) await table[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // Starting and ending.

  #load(): void {
    const { clock, catalog } = this.#options;
    for (const { row } of this.#definitions.rows()) {
      const running = this.#begin(row);
      if (running?.definition.method.type !== "ttl") continue;
      const expiresAt = this.#reports.get(lowerCase(row.id))?.row ?? 0;
      const status = catalog.check(this.node, row.id)?.status;
      if (expiresAt <= clock.wall() && status !== "critical") this.#expire(running);
    }
  }

  /** Runs a check as it is stored, once the catalog has it. */
  #begin({ id, definition }: StoredDefinition): Running | undefined {
    if (this.#options.catalog.hasCheck(this.node, id)) return this.#start(id, definition);
    this.#end(id);
    this.#expectCheck(id);
    return undefined;
  }

  #expectCheck(id: string): void {
    const timer = this.#options.clock.after(MISSING_MS, () => {
      this.#giveUp(id).catch((error: unknown) => {
        if (this.#closing.signal.aborted) return;
        this.#options.logger.warn("the definition of a check that is gone was not removed", {
          check: id,
          error: errorText(error),
        });
        this.#expectCheck(id);
      });
    });
    this.#missing.get(lowerCase(id))?.cancel();
    this.#missing.set(lowerCase(id), timer);
  }

  async #giveUp(id: string): Promise<void> {
    const key = lowerCase(id);
    const hasCheck = (): boolean => this.#options.catalog.hasCheck(this.node, id);
    await this.#writes.run([key], async () => {
      const known = this.#definitions.get(key);
      if (!this.#missing.delete(key) || known === undefined) return;
      if (hasCheck()) {
        this.#begin(known.row);
        return;
      }
      await this.#removeReports([id]);
      await this.#definitions.write(() => {
        // Another host may register it at this moment.
        const isSame = this.#definitions.get(key)?.revision === known.revision && !hasCheck();
        return { writes: isSame ? [{ path: [key], row: undefined }] : [], result: () => {} };
      });
    });
  }

  /** Another host stored definitions, or removed them. One that cannot be read does not run, neither as it was before. */
  #followDefinitions({ changes, faults, own }: TableChange<StoredDefinition>): void {
    if (own || this.#closing.signal.aborted) return;
    for (const path of faults) this.#end(path.join("/"));
    for (const { path, after } of changes) this.#run(path.join("/"), after?.row);
  }

  /** Has a check run as it is stored. */
  #run(id: string, stored: StoredDefinition | undefined): void {
    if (stored === undefined) this.#end(id);
    else if (this.#running.get(id)?.definition !== stored.definition) this.#begin(stored);
  }

  /** Another host was told of TTL checks, and wrote their status. */
  #followReports({ changes, own }: TableChange<number>): void {
    if (own || this.#closing.signal.aborted) return;
    for (const { path, after } of changes) {
      const running = this.#running.get(path.join("/"));
      if (after === undefined || running?.definition.method.type !== "ttl") continue;
      this.#takeOver(running);
      // It is told as much later here.
      this.#armTtl(running, running.definition.method.ttlMs + REPORTS_EVERY_MS);
    }
  }

  /** The status that another host wrote is the last result of a check. */
  #takeOver(running: Running): void {
    const check = this.#options.catalog.check(this.node, running.id);
    if (check === undefined || !isCheckStatus(check.status) || running.retrying) return;
    const before = running.result.status;
    running.result = { status: check.status, output: check.output };
    if (!check.output.startsWith("TTL expired")) running.reported = check.output;
    if (check.status !== before) this.#armRemoval(running);
  }

  #start(id: string, definition: CheckDefinition): Running {
    this.#end(id);
    const { catalog, random } = this.#options;
    const check = catalog.check(this.node, id);
    const status = check !== undefined && isCheckStatus(check.status) ? check.status : "critical";
    const running: Running = {
      id,
      definition,
      stop: new AbortController(),
      timer: undefined,
      streak: firstStreak(definition),
      result: { status, output: check?.output ?? "" },
      reported: check?.output ?? "",
      removal: undefined,
      writeLater: undefined,
      writing: undefined,
      retrying: false,
    };
    this.#running.set(lowerCase(id), running);
    this.#exposed.checkChanged(id);
    this.#armRemoval(running);
    const { method, intervalMs } = definition;
    switch (method.type) {
      case "ttl":
        this.#armTtl(running, method.ttlMs);
        break;
      case "alias":
        this.#aliases.add(running);
        this.#lookAtCatalog();
        break;
      default:
        // Spread over the interval, so that a restart does not probe everything at once.
        this.#armProbe(running, method, intervalMs * random.fraction());
    }
    return running;
  }

  /** @param keepReport - the process ends, not the check. */
  #end(id: string, keepReport = false): void {
    this.#missing.get(lowerCase(id))?.cancel();
    this.#missing.delete(lowerCase(id));
    const running = this.#running.get(lowerCase(id));
    if (running === undefined) return;
    this.#running.delete(lowerCase(id));
    this.#aliases.delete(running);
    running.stop.abort();
    running.timer?.cancel();
    running.removal?.cancel();
    running.writeLater?.cancel();
    if (!keepReport) this.#unstored.delete(running);
  }

  /** It has no check in the catalog any more, or not yet. */
  #lose(running: Running): void {
    if (running.stop.signal.aborted) return;
    this.#end(running.id);
    this.#expectCheck(running.id);
  }

  // Finding out.

  #armProbe(running: Running, method: ProbeMethod, delayMs: number): void {
    running.timer = this.#options.clock.after(delayMs, () => {
      this.#probe(running, method).catch((error: unknown) => this.#failed(running, error));
    });
  }

  async #probe(running: Running, method: ProbeMethod): Promise<void> {
    const { catalog, incidents, limits } = this.#options;
    const { signal } = running.stop;
    if (!catalog.hasCheck(this.node, running.id)) return this.#lose(running);
    const most = limits?.concurrentProbes ?? DEFAULT_PROBES;
    if (this.#probing >= most) {
      incidents.report("check-probes", "probes wait for others to end", { limit: most });
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#probing++;
    let result: CheckResult;
    try {
      if (signal.aborted) return;
      // Loaded by the first probe: a host without checks needs no client of any protocol.
      const { probe } = await import("../checks/probe.js");
      result = await probe(this.#exposed.proxied(running.id, method), {
        timeoutMs: running.definition.timeoutMs || DEFAULT_TIMEOUT_MS,
        outputMaxBytes: this.#outputBytes(running.definition),
        allows: this.#allows,
        signal,
      });
    } finally {
      // The place goes to the probe that waits longest; it is free when none waits.
      const next = this.#waiting.shift();
      if (next === undefined) this.#probing--;
      else next();
    }
    if (signal.aborted) return;
    const after = afterResult(running.streak, result, running.definition);
    running.streak = after.streak;
    this.#armProbe(running, method, running.definition.intervalMs);
    if (after.result !== undefined) await this.#settle(running, after.result);
  }

  #armTtl(running: Running, ttlMs: number): void {
    running.timer?.cancel();
    running.timer = this.#options.clock.after(ttlMs, () => this.#expire(running));
  }

  #expire(running: Running): void {
    const { reported } = running;
    const status = this.#options.catalog.check(this.node, running.id)?.status ?? "";
    // Another host that runs it may have written another status since: the last result here is then not the status to be replaced.
    if (isCheckStatus(status) && status !== "critical") running.result = { ...running.result, status };
    const output = reported === "" ? "TTL expired" : `TTL expired (last output before timeout follows): ${reported}`;
    this.#options.logger.warn("a check was not reported in time and is critical", { check: running.id });
    this.#settle(running, { status: "critical", output }).catch((error: unknown) => this.#failed(running, error));
  }

  /** A change there may concern aliases, and definitions that wait for their checks. */
  #lookAtCatalog(): void {
    if (this.#aliases.size + this.#missing.size === 0) return;
    if (this.#catalogTimer !== undefined || this.#closing.signal.aborted) return;
    const { clock } = this.#options;
    const wait = Math.max(0, this.#catalogSeenAt + CATALOG_EVERY_MS - clock.now());
    this.#catalogTimer = clock.after(wait, () => {
      this.#catalogTimer = undefined;
      this.#catalogSeenAt = clock.now();
      this.#lookForMissing();
      this.#lookAtAliases();
    });
  }

  #lookForMissing(): void {
    for (const id of [...this.#missing.keys()]) {
      const stored = this.#definitions.get(id);
      if (stored !== undefined && this.#options.catalog.hasCheck(this.node, id)) this.#begin(stored.row);
    }
  }

  #lookAtAliases(): void {
    for (const running of [...this.#aliases]) {
      const { method } = running.definition;
      if (method.type !== "alias") continue;
      if (!this.#options.catalog.hasCheck(this.node, running.id)) {
        this.#lose(running);
        continue;
      }
      const result = this.#aliased(running.id, method.node, method.service);
      this.#settle(running, result).catch((error: unknown) => this.#failed(running, error));
    }
  }

  /** The worst of the checks of a service and of its node; without any it passes, as in Consul. */
  #aliased(ownId: string, named: string, service: string): CheckResult {
    const { catalog } = this.#options;
    const node = named || this.node;
    const groups = catalog.healthOf(node, service);
    if (groups === undefined) {
      return { status: "critical", output: `Service ${service} could not be found on node ${node}` };
    }
    const ownKey = lowerCase(node) === lowerCase(this.node) ? lowerCase(ownId) : undefined;
    // Where no node is named, those of the agent count: the node's membership is a check of the catalog.
    const counts = ({ checkId }: Check): boolean =>
      lowerCase(checkId) !== ownKey && !(named === "" && checkId === MEMBERSHIP_CHECK);
    // At most two of each list do not count, so this costs the same with many checks.
    const first = (pick: (group: CheckGroup) => readonly Check[]): Check | undefined =>
      pick(groups.ofNode).find(counts) ?? pick(groups.own).find(counts);
    const worst = first((group) => group.failing("critical")) ?? first((group) => group.failing("warning"));
    if (worst !== undefined && isCheckStatus(worst.status)) {
      return { status: worst.status, output: `Aliased check ${JSON.stringify(worst.name)} failing: ${worst.output}` };
    }
    const any = first(({ list }) => list);
    return { status: "passing", output: any === undefined ? "No checks found." : "All checks passing." };
  }

  // The result.

  /** Takes a result over, and writes it. @throws {PeeringError} as `Catalog.register`; it is tried again by itself. */
  async #settle(running: Running, result: CheckResult): Promise<void> {
    const before = running.result;
    if (before.status === result.status && before.output === result.output) return;
    running.result = result;
    if (before.status !== result.status) {
      this.#armRemoval(running);
      await this.#write(running);
    } else if (!running.retrying) {
      running.writeLater ??= this.#options.clock.after(OUTPUT_DELAY_MS, () => {
        running.writeLater = undefined;
        this.#write(running).catch((error: unknown) => this.#failed(running, error));
      });
    }
  }

  /** Writes the newest result. @throws {PeeringError} the first failure; attempts go on until one succeeds. */
  #write(running: Running): Promise<void> {
    if (running.retrying) return this.#attempt(running);
    running.retrying = true;
    return new Promise((resolve, reject) => {
      let isFirst = true;
      const trying = retry(() => this.#attempt(running), {
        clock: this.#options.clock,
        signal: running.stop.signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        onFailure: (error) => {
          if (isFirst) reject(error);
          else this.#failed(running, error);
          isFirst = false;
        },
      });
      const end = (): void => {
        running.retrying = false;
        resolve();
      };
      // It fails only with the end of the check.
      trying.then(end, end);
    });
  }

  /** One attempt, which who comes meanwhile waits for, too. */
  #attempt(running: Running): Promise<void> {
    if (running.stop.signal.aborted) return Promise.resolve();
    running.writing ??= this.#writeNewest(running);
    return running.writing;
  }

  async #writeNewest(running: Running): Promise<void> {
    try {
      for (;;) {
        running.writeLater?.cancel();
        running.writeLater = undefined;
        const { result } = running;
        const found = await this.#options.catalog.updateCheck(this.node, running.id, result.status, result.output);
        if (running.stop.signal.aborted) return;
        if (!found) return this.#lose(running);
        if (running.result === result) return;
      }
    } finally {
      running.writing = undefined;
    }
  }

  /** Begins, or ends, the time after which a critical check takes its service with it. */
  #armRemoval(running: Running): void {
    running.removal?.cancel();
    running.removal = undefined;
    const { deregisterCriticalServiceAfterMs: given } = running.definition;
    if (given <= 0 || running.result.status !== "critical") return;
    const afterMs = Math.max(given, LEAST_REMOVAL_MS);
    running.removal = this.#options.clock.after(afterMs, () => {
      this.#removeService(running, afterMs).catch((error: unknown) => {
        this.#failed(running, error);
        this.#armRemoval(running);
      });
    });
  }

  async #removeService(running: Running, afterMs: number): Promise<void> {
    const { catalog, logger } = this.#options;
    const check = catalog.check(this.node, running.id);
    if (check === undefined) return this.#lose(running);
    if (check.serviceId === "") return;
    // Another host that runs it finds otherwise.
    if (check.status !== "critical") return this.#armRemoval(running);
    const gone = catalog.checksOf(this.node, check.serviceId);
    await catalog.deregister({ node: this.node, serviceId: check.serviceId });
    logger.warn("a service was removed: one of its checks was critical for too long", {
      service: check.serviceId,
      check: running.id,
      afterMs,
    });
    await this.forget(gone.map(({ checkId }) => checkId));
  }

  async #storeReports(): Promise<void> {
    this.#storeTimer = undefined;
    const { clock } = this.#options;
    const reported = this.#unstored;
    this.#unstored = new Set();
    const rows = [...reported].flatMap(({ id, definition: { method } }) =>
      method.type === "ttl" ? [{ path: [lowerCase(id)], row: Math.round(clock.wall() + method.ttlMs) }] : [],
    );
    try {
      const ids = [...reported].map(({ id }) => lowerCase(id));
      await this.#writes.run(ids, () => this.#reports.put(rows));
    } catch (error) {
      this.#options.logger.warn("reports of TTL checks were not stored", { error: errorText(error) });
    }
  }

  #failed(running: Running, error: unknown): void {
    if (this.#closing.signal.aborted) return;
    this.#options.logger.warn("the result of a check was not stored", { check: running.id, error: errorText(error) });
  }

  #outputBytes({ outputMaxBytes }: CheckDefinition): number {
    return outputMaxBytes > 0 ? Math.min(outputMaxBytes, this.#outputMaxBytes) : this.#outputMaxBytes;
  }
}

const definitionFormat: RowFormat<StoredDefinition> = {
  encode: (stored) => Buffer.from(JSON.stringify(stored)),
  decode: (_path, value) => ({ row: readDefinition(value) }),
};

const reportFormat: RowFormat<number> = {
  encode: (expiresAt) => Buffer.from(String(expiresAt)),
  decode: (_path, value) => {
    const text = Buffer.from(value).toString();
    if (!/^\d{1,15}$/.test(text)) throw new TypeError("it is no time");
    return { row: Number(text) };
  },
};

/** @throws {TypeError} why it is none. Nothing of it is quoted: there may be a password in it. */
function readDefinition(value: Uint8Array): StoredDefinition {
  const stored: unknown = unquoted(() => JSON.parse(Buffer.from(value).toString("utf8")));
  if (typeof stored !== "object" || stored === null || !("id" in stored) || !("definition" in stored)) {
    throw new TypeError("it is no definition of a check");
  }
  const { id, definition } = stored;
  if (typeof id !== "string" || !isDefinition(definition)) {
    throw new TypeError("it is of a kind that this version does not know");
  }
  return { id, definition };
}

const METHODS: readonly string[] = ["ttl", "http", "h2ping", "tcp", "udp", "grpc", "alias"];

function isDefinition(value: unknown): value is CheckDefinition {
  if (typeof value !== "object" || value === null || !("method" in value) || !("intervalMs" in value)) return false;
  const { method } = value;
  return typeof method === "object" && method !== null && "type" in method && METHODS.includes(String(method.type));
}
