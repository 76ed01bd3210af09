import { AddressRanges } from "../base/address-ranges.js";
import type { Closable } from "../base/closable.js";
import type { Clock, Logger, Random, Timer } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { KeyedMutex, Mutex } from "../base/mutex.js";
import {
  type CheckDefinition,
  type CheckResult,
  type CheckStatus,
  isCheckStatus,
  type ProbeMethod,
} from "../checks/definition.js";
import { afterResult, firstStreak, type Streak } from "../checks/thresholds.js";
import { MEMBERSHIP_CHECK } from "../model/health.js";
import type { Registration } from "../model/registration.js";
import { CHECK_DEFINITIONS_PREFIX, CHECK_REPORTS_PREFIX } from "../storage/keys.js";
import { cutWrites } from "../storage/limits.js";
import type { CommitOptions, Entry, Key, Storage, Write } from "../storage/storage.js";
import type { Catalog, CatalogWriteOptions } from "../stores/catalog.js";
import { lowerCase } from "../syntax/names.js";

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
}

export interface AgentChecksOptions {
  readonly storage: Storage;
  readonly catalog: Catalog;
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
  writing: boolean;
}

const DEFAULT_OUTPUT_BYTES = 4_096;
const DEFAULT_PROBES = 1_000;
const DEFAULT_CHECKS = 100_000;
const DEFAULT_TIMEOUT_MS = 10_000;
/** Consul's defaults (1.21): outputs that change alone reach the catalog this late. */
const OUTPUT_DELAY_MS = 300_000;
/** A shorter time is taken as this one, as in Consul. */
const LEAST_REMOVAL_MS = 60_000;
const RETRY_MS = 1_000;
/** Reports of TTLs are stored together, this often at most. A crash loses so much of them. */
const REPORTS_EVERY_MS = 1_000;
/** Aliases are looked at again at most this often, however often the catalog changes. */
const ALIASES_EVERY_MS = 50;
/** Rows of one commit. */
const ROWS_BATCH = 256;

/**
 * The checks of one node, run as an agent of Consul runs them: probes at their intervals, TTLs that somebody must renew,
 * aliases that follow another service. Their definitions are stored, and go on after a restart.
 *
 * What a check found goes into the catalog: a new status at once, a new output alone up to five minutes later.
 */
export class AgentChecks implements Closable {
  readonly node: string;
  readonly #options: AgentChecksOptions;
  readonly #outputMaxBytes: number;
  readonly #allows: (address: string) => boolean;
  readonly #running = new Map<string, Running>();
  /** Those of them that are aliases, which each change of the catalog may concern. */
  readonly #aliases = new Set<Running>();
  readonly #closing = new AbortController();
  readonly #choices = new Mutex();
  /** By check: writes of one check keep their order, and the storage commits those of several together. */
  readonly #writes = new KeyedMutex();
  /** Checks that are being added. */
  #adding = 0;
  /** TTLs that were reported since the last commit of reports. */
  #unstored = new Set<Running>();
  #storeTimer: Timer | undefined;
  #aliasTimer: Timer | undefined;
  #aliasesSeenAt = Number.NEGATIVE_INFINITY;
  #probing = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #unsubscribe: () => void;

  /**
   * Goes on with the checks that `storage` has of this node. A TTL that ended meanwhile is critical.
   * @throws {PeeringError} what the storage throws.
   * @throws {TypeError} for an invalid range.
   */
  static async open(options: AgentChecksOptions): Promise<AgentChecks> {
    const checks = new AgentChecks(options);
    await checks.#load();
    return checks;
  }

  private constructor(options: AgentChecksOptions) {
    this.#options = options;
    this.node = options.node;
    this.#outputMaxBytes = options.limits?.outputMaxBytes ?? DEFAULT_OUTPUT_BYTES;
    const allowed = options.limits?.allowedAddresses;
    const ranges = allowed && new AddressRanges(allowed);
    this.#allows = (address) => ranges?.leadsInto(address) ?? true;
    this.#unsubscribe = options.catalog.onChange(() => this.#lookAtAliases());
  }

  /**
   * Stores the definitions, writes `registrations` to the catalog, and runs the checks. A check that is there already is
   * replaced, and keeps its status until it has run.
   * @param definitions - by check id; each id is one of a check in `registrations`.
   * @throws {PeeringError} as `Catalog.registerAll`, `resource-exhausted`: too many checks. Nothing was changed then.
   */
  async register(
    registrations: readonly Registration[],
    definitions: ReadonlyMap<string, CheckDefinition>,
    options: CatalogWriteOptions = {},
  ): Promise<void> {
    const ids = [...definitions.keys()];
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
  }

  async #store(
    registrations: readonly Registration[],
    definitions: ReadonlyMap<string, CheckDefinition>,
    options: CatalogWriteOptions,
  ): Promise<void> {
    // The definitions first: a crash in between leaves some without a check, which the next start removes; the other way
    // round it would leave checks that nobody runs.
    await this.#commit([...definitions].map(([id, definition]) => definitionRow(this.node, id, definition)));
    try {
      await this.#options.catalog.registerAll(registrations, options);
    } catch (error) {
      const before = [...definitions.keys()].map((id): Write => {
        const running = this.#running.get(lowerCase(id));
        return running === undefined
          ? { key: rowKey(CHECK_DEFINITIONS_PREFIX, this.node, id), value: undefined }
          : definitionRow(this.node, running.id, running.definition);
      });
      await this.#commit(before);
      throw error;
    }
    for (const [id, definition] of definitions) this.#start(id, definition);
  }

  /** Runs a registration that takes something which nothing else on the node has, such as a free port, after others that do. */
  choosing<Result>(registration: () => Promise<Result>): Promise<Result> {
    return this.#choices.run(registration);
  }

  /** Stops checks that were removed from the catalog, and forgets their definitions. Unknown ones are no failure. */
  async forget(checkIds: Iterable<string>): Promise<void> {
    const ids = [...checkIds];
    await this.#writes.run(ids.map(lowerCase), async () => {
      const writes: Write[] = [];
      for (const id of ids) {
        this.#end(id);
        for (const prefix of [CHECK_DEFINITIONS_PREFIX, CHECK_REPORTS_PREFIX]) {
          writes.push({ key: rowKey(prefix, this.node, id), value: undefined });
        }
      }
      await this.#commit(writes);
    });
  }

  /** Of a check that runs here. */
  definition(checkId: string): CheckDefinition | undefined {
    return this.#running.get(lowerCase(checkId))?.definition;
  }

  /** What a check that runs here found last, which the catalog may learn later. */
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
    this.#aliasTimer?.cancel();
    for (const id of [...this.#running.keys()]) this.#end(id, true);
    this.#storeTimer?.cancel();
    await this.#storeReports();
    await this.#writes.idle();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // Starting and ending.

  async #load(): Promise<void> {
    const { storage, clock, incidents, catalog } = this.#options;
    const node = lowerCase(this.node);
    const { entries } = await storage.read([...CHECK_DEFINITIONS_PREFIX, node]);
    const reports = new Map<string, number>();
    for (const { key, value } of (await storage.read([...CHECK_REPORTS_PREFIX, node])).entries) {
      reports.set(key.at(-1) ?? "", Number(Buffer.from(value).toString()));
    }
    const dropped: Write[] = [];
    for (const entry of entries) {
      const stored = readDefinition(entry);
      const check = stored && catalog.check(this.node, stored.id);
      if (stored === undefined) {
        const name = entry.key.join("/");
        incidents.report("check-damaged", "the stored definition of a check cannot be read, and is dropped", { name });
      }
      if (stored === undefined || check === undefined) {
        dropped.push({ key: entry.key, value: undefined });
        dropped.push({ key: [...CHECK_REPORTS_PREFIX, ...entry.key.slice(1)], value: undefined });
        continue;
      }
      const { method } = stored.definition;
      const running = this.#start(stored.id, stored.definition);
      if (method.type !== "ttl") continue;
      const expiresAt = reports.get(lowerCase(stored.id)) ?? 0;
      if (expiresAt <= clock.wall() && check.status !== "critical") this.#expire(running);
    }
    await this.#commit(dropped);
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
      writing: false,
    };
    this.#running.set(lowerCase(id), running);
    this.#armRemoval(running);
    const { method, intervalMs } = definition;
    switch (method.type) {
      case "ttl":
        this.#armTtl(running, method.ttlMs);
        break;
      case "alias":
        this.#aliases.add(running);
        this.#lookAtAliases();
        break;
      default:
        // Spread over the interval, so that a restart does not probe everything at once.
        this.#armProbe(running, method, intervalMs * random.fraction());
    }
    return running;
  }

  /** @param keepReport - the process ends, not the check. */
  #end(id: string, keepReport = false): void {
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

  /** It has no check in the catalog any more. */
  #lose(running: Running): void {
    if (running.stop.signal.aborted) return;
    this.#end(running.id);
    this.forget([running.id]).catch((error: unknown) => this.#failed(running, error));
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
      result = await probe(method, {
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
    const output = reported === "" ? "TTL expired" : `TTL expired (last output before timeout follows): ${reported}`;
    this.#options.logger.warn("a check was not reported in time and is critical", { check: running.id });
    this.#settle(running, { status: "critical", output }).catch((error: unknown) => this.#failed(running, error));
  }

  #lookAtAliases(): void {
    if (this.#aliases.size === 0 || this.#aliasTimer !== undefined || this.#closing.signal.aborted) return;
    const { clock } = this.#options;
    const wait = Math.max(0, this.#aliasesSeenAt + ALIASES_EVERY_MS - clock.now());
    this.#aliasTimer = clock.after(wait, () => {
      this.#aliasTimer = undefined;
      this.#aliasesSeenAt = clock.now();
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
    });
  }

  /** The worst of the checks of a service and of its node; without any it passes, as in Consul. */
  #aliased(ownId: string, named: string, service: string): CheckResult {
    const { catalog } = this.#options;
    const node = named || this.node;
    const all = catalog.healthOf(node, service);
    if (all === undefined) {
      return { status: "critical", output: `Service ${service} could not be found on node ${node}` };
    }
    const own = lowerCase(node) === lowerCase(this.node) ? lowerCase(ownId) : undefined;
    const others = own === undefined ? all : all.filter(({ checkId }) => lowerCase(checkId) !== own);
    // Where no node is named, those of the agent count: the node's membership is a check of the catalog.
    const checks = named === "" ? others.filter(({ checkId }) => checkId !== MEMBERSHIP_CHECK) : others;
    const worst =
      checks.find(({ status }) => status === "critical") ?? checks.find(({ status }) => status === "warning");
    if (worst !== undefined && isCheckStatus(worst.status)) {
      return { status: worst.status, output: `Aliased check ${JSON.stringify(worst.name)} failing: ${worst.output}` };
    }
    return { status: "passing", output: checks.length === 0 ? "No checks found." : "All checks passing." };
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
    } else if (!running.writing) {
      running.writeLater ??= this.#options.clock.after(OUTPUT_DELAY_MS, () => {
        running.writeLater = undefined;
        this.#write(running).catch((error: unknown) => this.#failed(running, error));
      });
    }
  }

  async #write(running: Running): Promise<void> {
    if (running.writing) return;
    running.writing = true;
    try {
      for (;;) {
        if (running.stop.signal.aborted) return;
        running.writeLater?.cancel();
        running.writeLater = undefined;
        const { result } = running;
        const found = await this.#options.catalog.updateCheck(this.node, running.id, result.status, result.output);
        if (!found) return this.#lose(running);
        if (running.result === result) return;
      }
    } catch (error) {
      if (!running.stop.signal.aborted) {
        running.writeLater = this.#options.clock.after(RETRY_MS, () => {
          running.writeLater = undefined;
          this.#write(running).catch((again: unknown) => this.#failed(running, again));
        });
      }
      throw error;
    } finally {
      running.writing = false;
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
    const rows = [...reported].flatMap(({ id, definition: { method } }): readonly Write[] => {
      if (method.type !== "ttl") return [];
      const value = Buffer.from(String(Math.round(clock.wall() + method.ttlMs)));
      return [{ key: rowKey(CHECK_REPORTS_PREFIX, this.node, id), value }];
    });
    try {
      const ids = [...reported].map(({ id }) => lowerCase(id));
      // Relaxed: a report that is lost is made again, or its check expires.
      await this.#writes.run(ids, () => this.#commit(rows, { durability: "relaxed" }));
    } catch (error) {
      this.#options.logger.warn("reports of TTL checks were not stored", { error: errorText(error) });
    }
  }

  async #commit(writes: readonly Write[], options?: CommitOptions): Promise<void> {
    const { storage } = this.#options;
    const limits = { ...storage.limits, writes: Math.min(ROWS_BATCH, storage.limits.writes) };
    for (const together of cutWrites(writes, limits)) await storage.commit(together, [], options);
  }

  #failed(running: Running, error: unknown): void {
    if (this.#closing.signal.aborted) return;
    this.#options.logger.warn("the result of a check was not stored", { check: running.id, error: errorText(error) });
  }

  #outputBytes({ outputMaxBytes }: CheckDefinition): number {
    return outputMaxBytes > 0 ? Math.min(outputMaxBytes, this.#outputMaxBytes) : this.#outputMaxBytes;
  }
}

function rowKey(prefix: Key, node: string, checkId: string): Key {
  return [...prefix, lowerCase(node), lowerCase(checkId)];
}

function definitionRow(node: string, id: string, definition: CheckDefinition): Write {
  return {
    key: rowKey(CHECK_DEFINITIONS_PREFIX, node, id),
    value: Buffer.from(JSON.stringify({ id, definition })),
  };
}

/** Undefined: damaged, or written by a later version. */
function readDefinition({ value }: Entry): { readonly id: string; readonly definition: CheckDefinition } | undefined {
  try {
    const stored: unknown = JSON.parse(Buffer.from(value).toString("utf8"));
    if (typeof stored !== "object" || stored === null || !("id" in stored) || !("definition" in stored))
      return undefined;
    const { id, definition } = stored;
    return typeof id === "string" && isDefinition(definition) ? { id, definition } : undefined;
  } catch {
    return undefined;
  }
}

const METHODS: readonly string[] = ["ttl", "http", "h2ping", "tcp", "udp", "grpc", "alias"];

function isDefinition(value: unknown): value is CheckDefinition {
  if (typeof value !== "object" || value === null || !("method" in value) || !("intervalMs" in value)) return false;
  const { method } = value;
  return typeof method === "object" && method !== null && "type" in method && METHODS.includes(String(method.type));
}
