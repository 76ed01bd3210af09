import { Alarm } from "../../base/alarm.js";
import type { Closable } from "../../base/closable.js";
import type { Clock, Random } from "../../base/environment.js";
import { errorText } from "../../base/errors.js";
import { Signal } from "../../base/signal.js";
import { StepMeter, type Steps } from "../../base/steps.js";
import type { PeeringHost } from "../../host/host.js";
import type { LeafHolder } from "../../host/leaf-certificates.js";
import type { ServiceInstance } from "../../model/instance.js";
import { sidecarName } from "../../payload/exported-payload.js";
import { lowerCase } from "../../syntax/names.js";
import { retryDelay } from "../../trust/renewal.js";
import { hostView } from "../host-view.js";
import { speakersFor } from "../snapshot/peered.js";
import type { MeshView, ProxyLeaf } from "../snapshot/view.js";
import { ViewMemory } from "../view-memory.js";

/** The instances of one mesh service of a peer, as they were read last. */
interface ImportedRead {
  readonly peer: string;
  readonly service: string;
  users: number;
  /** Of the state that `instances` is of; undefined: none was read. */
  index: bigint | undefined;
  instances: readonly ServiceInstance[] | undefined;
  reading: boolean;
  /** It was never read, and could not be. */
  failed: boolean;
}

/** A certificate that proxies use. */
interface UsedLeaf {
  readonly holder: LeafHolder;
  users: number;
  stop: () => void;
  problem: string;
  failures: number;
  issuing: boolean;
  readonly retry: Alarm;
}

/** A fact that a snapshot was made of: asked again, to see whether it would be the same. */
interface Dependency {
  readonly read: () => unknown;
  readonly seen: unknown;
}

/** A moment of the host as a {@link MeshView}, which remembers what was looked at. */
export interface RecordedView {
  readonly view: MeshView;
  /** Remembers one more fact. */
  depend(key: string, read: () => unknown): void;
  /** Whether a fact that was looked at has changed. */
  isStale(): Steps<boolean>;
  /** Parts that were looked at and are under way for the first time, each with a text: they are neither there nor missing. */
  underWay(): ReadonlyMap<object, string>;
  /** Gives up what is kept for it. */
  release(): void;
}

/** Cost of looking at one dependency, in the fields of a step. */
const DEPENDENCY_SIZE = 25;

/** The state of a host, for the proxies of its mesh. What is read or issued for several proxies is kept once for all of them. */
export class HostSource implements Closable {
  readonly #host: PeeringHost;
  readonly #allowsByDefault: boolean;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #news: Signal;
  readonly #forget: readonly (() => void)[];
  readonly #memory = new ViewMemory();
  readonly #imported = new Map<string, ImportedRead>();
  readonly #leafs = new Map<LeafHolder, UsedLeaf>();
  /** Certificates to be issued, in the order in which they were asked for. */
  readonly #toIssue = new Set<UsedLeaf>();
  #issuing = 0;
  #reaching = 0;
  #closed = false;

  constructor(options: {
    readonly host: PeeringHost;
    readonly allowsByDefault: boolean;
    readonly clock: Clock;
    readonly random: Random;
  }) {
    const { host } = options;
    this.#host = host;
    this.#allowsByDefault = options.allowsByDefault;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#news = new Signal(host.incidents);
    const tell = (): void => this.#news.emit();
    this.#forget = [
      host.catalog.onChange(tell),
      host.configEntries.onChange(tell),
      host.view.onChange(tell),
      host.imports.onAnyChange(tell),
      host.authority.onRootsChanged(tell),
      host.exports.onReachingChange(() => {
        this.#reaching++;
        tell();
      }),
      host.exports.onGatewaysChange(tell),
      host.checks.onExposedChange(tell),
    ];
  }

  /** Calls `listener` when a snapshot may have changed, until the returned function is called. */
  onNews(listener: () => void): () => void {
    return this.#news.on(listener);
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const stop of this.#forget) stop();
    for (const leaf of this.#leafs.values()) {
      leaf.stop();
      leaf.retry.cancel();
    }
    this.#leafs.clear();
    this.#imported.clear();
    this.#news.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The registration of a proxy; undefined: there is none. */
  registration(node: string, id: string): ServiceInstance | undefined {
    return this.#host.catalog.instance(node, id);
  }

  /** Changes with the registration, and when there comes to be one or none. */
  registrationMark(node: string, id: string): bigint {
    return this.#host.catalog.service(node, id)?.modifyIndex ?? -1n;
  }

  /** The state of this moment. */
  record(): RecordedView {
    const dependencies = new Map<string, Dependency>();
    const imported = new Set<ImportedRead>();
    const leafs = new Set<UsedLeaf>();
    // As they were when they were looked at: what is read while a snapshot is made is not in it.
    const unread = new Set<ImportedRead>();
    const unissued = new Set<UsedLeaf>();
    const depend = (key: string, read: () => unknown): void => {
      if (!dependencies.has(key)) dependencies.set(key, { read, seen: read() });
    };
    const host = this.#host;
    const leafOf = (holder: LeafHolder): ProxyLeaf | string => {
      const used = this.#useLeaf(holder, leafs);
      depend(`leaf ${String(holder)}`, () => host.leafCertificates.peek(holder)?.index ?? used.problem);
      const found = host.leafCertificates.peek(holder)?.certificate;
      if (found === undefined) unissued.add(used);
      return found ?? (used.problem || "it is being issued");
    };
    const memory = this.#memory.user();
    const readAgain = (read: ImportedRead): void => this.#readAgain(read);
    const view = hostView(host, {
      memory,
      allowsByDefault: this.#allowsByDefault,
      depend,
      exportsMark: () => this.#reaching,
      leaf: leafOf,
      imported: (peer, service) => {
        const read = this.#useImported(peer, service, imported);
        depend(`imported ${lowerCase(peer)} ${lowerCase(service)}`, () => read.index ?? read.failed);
        if (read.instances === undefined) unread.add(read);
        return read.instances;
      },
    });
    return {
      view,
      depend,
      *isStale() {
        const meter = new StepMeter();
        for (const read of imported) {
          readAgain(read);
          if (meter.isOver(DEPENDENCY_SIZE)) yield;
        }
        for (const { read, seen } of dependencies.values()) {
          if (read() !== seen) return true;
          if (meter.isOver(DEPENDENCY_SIZE)) yield;
        }
        return false;
      },
      underWay: () => {
        const found = new Map<object, string>();
        for (const read of unread) {
          if (read.failed) continue;
          found.set(read, `service "${read.service}" of peer "${read.peer}": its instances are being read`);
        }
        for (const used of unissued) {
          if (used.problem !== "") continue;
          found.set(used, `the certificate of ${describeHolder(used.holder)}: it is being issued`);
        }
        return found;
      },
      release: () => {
        for (const read of imported) this.#releaseImported(read);
        for (const used of leafs) this.#releaseLeaf(used);
        memory.release();
      },
    };
  }

  #useImported(peer: string, service: string, by: Set<ImportedRead>): ImportedRead {
    const key = `${lowerCase(peer)} ${lowerCase(service)}`;
    let read = this.#imported.get(key);
    if (read === undefined) {
      read = { peer, service, users: 0, index: undefined, instances: undefined, reading: false, failed: false };
      this.#imported.set(key, read);
    }
    if (!by.has(read)) {
      by.add(read);
      read.users++;
    }
    this.#readAgain(read);
    return read;
  }

  /** Reads a service whose imports are newer than what was read of it. */
  #readAgain(read: ImportedRead): void {
    const { imports, incidents } = this.#host;
    const asked = { peer: read.peer, service: sidecarName(read.service) };
    const index = imports.index(asked);
    if (read.reading || read.index === index || this.#closed) return;
    read.reading = true;
    imports.instances(asked).then(
      (instances) => {
        read.reading = false;
        read.index = index;
        read.instances = speakersFor(read.service, instances);
        if (!this.#closed) this.#news.emit();
      },
      (error: unknown) => {
        // The former state stays; it is read again with the next news.
        read.reading = false;
        if (read.index === undefined && !read.failed) {
          // Nobody is to wait for it any longer.
          read.failed = true;
          if (!this.#closed) this.#news.emit();
        }
        incidents.report("mesh-import-not-read", "an imported service could not be read for the proxies of the mesh", {
          peer: read.peer,
          service: read.service,
          error: errorText(error),
        });
      },
    );
  }

  #releaseImported(read: ImportedRead): void {
    if (--read.users === 0) this.#imported.delete(`${lowerCase(read.peer)} ${lowerCase(read.service)}`);
  }

  #useLeaf(holder: LeafHolder, by: Set<UsedLeaf>): UsedLeaf {
    const known = this.#leafs.get(holder);
    const used = known ?? this.#makeLeaf(holder);
    if (!by.has(used)) {
      by.add(used);
      used.users++;
    }
    if (this.#host.leafCertificates.peek(holder) === undefined) this.#issue(used);
    return used;
  }

  #makeLeaf(holder: LeafHolder): UsedLeaf {
    const used: UsedLeaf = {
      holder,
      users: 0,
      stop: () => {},
      problem: "",
      failures: 0,
      issuing: false,
      retry: new Alarm(this.#clock, () => this.#issue(used)),
    };
    this.#leafs.set(holder, used);
    try {
      // Kept valid for as long as a proxy uses it.
      used.stop = this.#host.leafCertificates.watch(holder, () => this.#news.emit());
    } catch (error) {
      used.problem = errorText(error);
    }
    return used;
  }

  #issue(used: UsedLeaf): void {
    if (used.issuing || used.retry.isSet || this.#closed) return;
    used.issuing = true;
    this.#toIssue.add(used);
    this.#issueNext();
  }

  /**
   * An authority signs so many certificates a second, and refuses what would have to wait too long. A thousand proxies that connect at once
   * ask for theirs one after the other, so that none is refused and has to come again.
   */
  #issueNext(): void {
    for (const used of this.#toIssue) {
      if (this.#issuing >= ISSUED_AT_ONCE || this.#closed) return;
      this.#toIssue.delete(used);
      this.#issuing++;
      const done = (): void => {
        used.issuing = false;
        this.#issuing--;
        this.#issueNext();
      };
      this.#host.leafCertificates.current(used.holder).then(
        () => {
          done();
          used.failures = 0;
          used.problem = "";
          if (!this.#closed) this.#news.emit();
        },
        (error: unknown) => {
          done();
          used.problem = errorText(error);
          if (this.#closed || used.users === 0) return;
          used.retry.set(retryDelay(++used.failures, this.#random));
          this.#news.emit();
        },
      );
    }
  }

  #releaseLeaf(used: UsedLeaf): void {
    if (--used.users > 0) return;
    used.stop();
    used.retry.cancel();
    if (this.#toIssue.delete(used)) used.issuing = false;
    this.#leafs.delete(used.holder);
  }
}

/**
 * Certificates: few, so that the last of them waits less than an authority lets anyone wait, also where it signs ten a second, and so
 * that no turn of the event loop makes many.
 */
const ISSUED_AT_ONCE = 2;

function describeHolder(holder: LeafHolder): string {
  return typeof holder === "string" ? `service "${holder}"` : "the mesh gateways";
}
