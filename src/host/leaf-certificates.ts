import { Alarm } from "../base/alarm.js";
import type { Closable } from "../base/closable.js";
import type { Clock, Random } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import type { CertificateAuthority, IssuedCertificate } from "../trust/authority.js";
import { cannotSign, meshGatewayUri, serviceUri } from "../trust/leaf.js";
import { CLOCK_STEP_MS, MAX_WAIT_MS, renewalTime, retryDelay, rotationTime, validityFault } from "../trust/renewal.js";

export interface LeafLimits {
  /**
   * Certificates of services that are held with their keys for further requests. Default 16 384; beyond, the one that was
   * not asked for the longest is dropped, and issued again when it is asked for.
   */
  readonly leafCertificates: number;
  /** How long an unused one is held, in milliseconds. Default 72 hours, as in Consul. */
  readonly leafCertificateUnusedMs: number;
}

export const defaultLeafLimits: LeafLimits = {
  leafCertificates: 16_384,
  leafCertificateUnusedMs: 72 * 3_600_000,
};

const SWEEP_INTERVAL_MS = 3_600_000;
/** A certificate can hold no longer name. */
const MAX_URI = 2_048;

/** Stands for the mesh gateways where a service is asked for; no name that a caller gives is equal to it. */
export const MESH_GATEWAY: unique symbol = Symbol("mesh gateway");

/** Whose certificate it is: a service, by its name, or the mesh gateways. */
export type LeafHolder = string | typeof MESH_GATEWAY;

/** A certificate of a service as it is held. */
export interface ServiceLeaf {
  /** `""`: that of the mesh gateways. */
  readonly service: string;
  readonly serviceUri: string;
  readonly certificate: IssuedCertificate;
  /** Grows with each certificate of this host, also over a restart. */
  readonly index: bigint;
  /** When it was issued, on the monotonic clock. */
  readonly issuedAtMs: number;
}

/** A service that was asked for. */
interface Held {
  readonly holder: LeafHolder;
  leaf: ServiceLeaf | undefined;
  /** When to renew, on the calendar. */
  dueAt: number;
  /** How far the calendar was ahead of the monotonic clock when the certificate was issued. */
  calendarAheadMs: number;
  /** Whether its root has ceased to be the active one. */
  rotated: boolean;
  usedAtMs: number;
  failures: number;
  /** Why the last attempt failed. */
  problem: string | undefined;
  /** After a failure: not before this, on the monotonic clock. */
  retryAtMs: number;
  issuing: Promise<void> | undefined;
  readonly renewal: Alarm;
  readonly renewed: Signal;
}

export interface LeafCertificatesOptions {
  readonly authority: CertificateAuthority;
  readonly datacenter: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly incidents: Incidents;
  readonly limits: LeafLimits;
}

/**
 * Certificates of services, with their keys, for programs beside this host. One is held until it is due for renewal (between 60
 * and 90 % of its life) or its root is not the active one any more, and is issued again when it is asked for then. While a watch
 * waits for its renewal that happens by itself; after a rotation within 30 seconds, so that not all are signed at once.
 */
export class LeafCertificates implements Closable {
  readonly #options: LeafCertificatesOptions;
  /** By service, the least recently used first. */
  readonly #held = new Map<LeafHolder, Held>();
  readonly #stopListening: () => void;
  #lastIndex = 0n;
  readonly #sweep: Alarm;
  #closed = false;

  constructor(options: LeafCertificatesOptions) {
    this.#options = options;
    this.#sweep = new Alarm(options.clock, () => this.#dropUnused());
    this.#stopListening = options.authority.onRootsChanged(() => {
      for (const held of this.#held.values()) this.#schedule(held);
    });
  }

  /** @throws {PeeringError} `invalid-argument`, with Consul's texts: no certificate can hold this name. */
  requireName(service: string): void {
    const { authority, datacenter } = this.#options;
    const { trustDomain } = authority;
    if (service === "") {
      throw new PeeringError("invalid-argument", "URI must be either service, agent, server, or kind");
    }
    // It would read as another path, and so as another identity.
    if (service.includes("/")) {
      const uri = `spiffe://${trustDomain}/ns/default/dc/${datacenter}/svc/${service}`;
      throw new PeeringError("invalid-argument", `SPIFFE ID is not in the expected format: ${uri}`);
    }
    const length = this.#uriOf(service)?.length;
    if (length === undefined || length > MAX_URI) {
      const why =
        length === undefined
          ? "is no Unicode"
          : `makes a SPIFFE ID of ${length} characters, and ${MAX_URI} are allowed`;
      throw new PeeringError("invalid-argument", `the name of the service ${why}`);
    }
  }

  /**
   * A certificate that is valid and of the active root.
   * @throws {PeeringError} `invalid-argument`: no certificate can hold this name. `resource-exhausted`: there is no room, or the
   *   authority is to sign no more at the moment. As the authority, where there is none yet.
   */
  async current(holder: LeafHolder): Promise<ServiceLeaf> {
    if (holder !== MESH_GATEWAY) this.requireName(holder);
    const held = this.#hold(holder);
    // A renewal that failed a moment ago is not tried again for a service with a certificate: its root is still trusted.
    const mayWait = held.leaf !== undefined && !this.#isInvalid(held.leaf);
    if (this.#isDue(held) && !(mayWait && this.#options.clock.now() < held.retryAtMs)) {
      try {
        await this.#issue(held);
      } catch (error) {
        if (!mayWait) throw error;
      }
    }
    if (held.leaf === undefined) throw new PeeringError("closed", "the host is closed");
    return held.leaf;
  }

  /** The one that is held and valid, whether or not it is due for renewal; otherwise as {@link LeafCertificates.current}. */
  async known(holder: LeafHolder): Promise<ServiceLeaf> {
    const held = this.#held.get(holder);
    if (held?.leaf === undefined || this.#isInvalid(held.leaf) || this.#clockWasSet(held)) return this.current(holder);
    this.#hold(holder);
    return held.leaf;
  }

  /** The certificate held now; undefined: none. */
  peek(holder: LeafHolder): ServiceLeaf | undefined {
    return this.#held.get(holder)?.leaf;
  }

  /** Why there is no valid certificate, and can be none now; undefined: there is one, or nothing speaks against issuing one. */
  problem(holder: LeafHolder): string | undefined {
    const held = this.#held.get(holder);
    if (held?.leaf !== undefined && !this.#isInvalid(held.leaf)) return undefined;
    try {
      if (holder !== MESH_GATEWAY) this.requireName(holder);
    } catch (error) {
      return errorText(error);
    }
    const problem = this.#options.authority.signingProblem();
    return problem === undefined ? held?.problem : errorText(cannotSign(problem));
  }

  /** Keeps the certificate of a service valid, and calls `wake` when there is a new one, until the returned function is called. */
  watch(holder: LeafHolder, wake: () => void): () => void {
    const held = this.#hold(holder);
    const forget = held.renewed.on(wake);
    this.#schedule(held);
    return () => {
      forget();
      this.#schedule(held);
    };
  }

  /** How many are held. */
  get size(): number {
    return this.#held.size;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#stopListening();
    this.#sweep.cancel();
    const issuing = [...this.#held.values()].map((held) => {
      held.renewal.cancel();
      return held.issuing;
    });
    this.#held.clear();
    await Promise.allSettled(issuing);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Undefined: half a character can be in no URI. */
  #uriOf(service: LeafHolder): string | undefined {
    const { authority, datacenter } = this.#options;
    if (service === MESH_GATEWAY) return meshGatewayUri({ trustDomain: authority.trustDomain, datacenter });
    if (/\p{Surrogate}/u.test(service)) return undefined;
    return serviceUri({ trustDomain: authority.trustDomain, datacenter, service });
  }

  #hold(holder: LeafHolder): Held {
    if (this.#closed) throw new PeeringError("closed", "the host is closed");
    const { clock } = this.#options;
    const held = this.#held.get(holder) ?? this.#make(holder);
    held.usedAtMs = clock.now();
    this.#held.delete(holder);
    this.#held.set(holder, held);
    this.#sweep.ensure(SWEEP_INTERVAL_MS);
    return held;
  }

  #make(holder: LeafHolder): Held {
    const { clock, incidents, limits } = this.#options;
    if (this.#held.size >= limits.leafCertificates) {
      incidents.report(
        "leaf-certificates",
        "as many certificates of services are held as may be: the oldest is dropped",
        {
          limit: limits.leafCertificates,
        },
      );
      const dropped = this.#unwatched();
      if (dropped === undefined) {
        throw new PeeringError("resource-exhausted", "too many certificates of services are waited for");
      }
      this.#held.delete(dropped.holder);
    }
    const held: Held = {
      holder,
      leaf: undefined,
      dueAt: 0,
      calendarAheadMs: 0,
      rotated: false,
      usedAtMs: 0,
      failures: 0,
      problem: undefined,
      retryAtMs: 0,
      issuing: undefined,
      renewal: new Alarm(clock, () => this.#considerRenewal(held)),
      renewed: new Signal(incidents),
    };
    return held;
  }

  #unwatched(): Held | undefined {
    for (const held of this.#held.values()) if (held.renewed.size === 0 && held.issuing === undefined) return held;
    return undefined;
  }

  #dropUnused(): void {
    const { clock, limits } = this.#options;
    for (const held of this.#held.values()) {
      const unused = held.renewed.size === 0 && held.issuing === undefined;
      if (unused && clock.now() - held.usedAtMs >= limits.leafCertificateUnusedMs) this.#held.delete(held.holder);
    }
    if (this.#held.size > 0) this.#sweep.set(SWEEP_INTERVAL_MS);
  }

  #isInvalid({ certificate }: ServiceLeaf): boolean {
    return validityFault(certificate, this.#options.clock.wall()) !== undefined;
  }

  #clockWasSet({ calendarAheadMs }: Held): boolean {
    const { clock } = this.#options;
    return Math.abs(clock.wall() - clock.now() - calendarAheadMs) >= CLOCK_STEP_MS;
  }

  #isOfActiveRoot({ certificate }: ServiceLeaf): boolean {
    return this.#options.authority.roots().some(({ active, id }) => active && id === certificate.rootId);
  }

  #isDue(held: Held): boolean {
    const { leaf } = held;
    if (leaf === undefined) return true;
    return this.#options.clock.wall() >= held.dueAt || !this.#isOfActiveRoot(leaf) || this.#clockWasSet(held);
  }

  /** Issues one; once for all who ask meanwhile. */
  #issue(held: Held): Promise<void> {
    held.issuing ??= this.#attempt(held).finally(() => {
      held.issuing = undefined;
      this.#schedule(held);
    });
    return held.issuing;
  }

  async #attempt(held: Held): Promise<void> {
    const { authority, datacenter, clock, random, incidents } = this.#options;
    const { holder } = held;
    const service = holder === MESH_GATEWAY ? "" : holder;
    const calendarAheadMs = clock.wall() - clock.now();
    try {
      const problem = authority.signingProblem();
      if (problem !== undefined) throw cannotSign(problem);
      const certificate = await authority.issueLeaf(
        holder === MESH_GATEWAY
          ? { kind: "mesh-gateway", datacenter }
          : { kind: "service", datacenter, service: holder },
      );
      if (this.#closed) return;
      const index = this.#nextIndex();
      const uri = this.#uriOf(holder) ?? "";
      held.leaf = { service, serviceUri: uri, certificate, index, issuedAtMs: clock.now() };
      held.dueAt = renewalTime(certificate, clock.wall(), random);
      held.calendarAheadMs = calendarAheadMs;
      held.rotated = false;
      held.failures = 0;
      held.problem = undefined;
      held.retryAtMs = 0;
    } catch (error) {
      held.failures++;
      held.problem = errorText(error);
      held.retryAtMs = clock.now() + retryDelay(held.failures, random);
      incidents.report("leaf-certificate-not-issued", "a certificate of a service could not be issued", {
        service,
        error: errorText(error),
      });
      throw error;
    }
    held.renewed.emit();
  }

  /** Seconds outlive a restart, and certificates are issued more seldom. */
  #nextIndex(): bigint {
    const seconds = BigInt(Math.trunc(this.#options.clock.wall() / 1_000));
    this.#lastIndex = seconds > this.#lastIndex ? seconds : this.#lastIndex + 1n;
    return this.#lastIndex;
  }

  /** Renews a certificate in time while a watch waits for that. */
  #schedule(held: Held): void {
    held.renewal.cancel();
    if (this.#closed || held.renewed.size === 0 || held.issuing !== undefined || held.leaf === undefined) return;
    const { clock, random } = this.#options;
    if (!held.rotated && !this.#isOfActiveRoot(held.leaf)) {
      held.rotated = true;
      held.dueAt = Math.min(held.dueAt, rotationTime(clock.wall(), random));
    }
    const waitMs = Math.max(held.dueAt - clock.wall(), held.retryAtMs - clock.now(), 0);
    held.renewal.set(Math.min(waitMs, MAX_WAIT_MS));
  }

  #considerRenewal(held: Held): void {
    const { clock } = this.#options;
    const isDue = clock.wall() >= held.dueAt || this.#clockWasSet(held);
    // A failure is logged, and tried again.
    if (isDue && clock.now() >= held.retryAtMs) this.#issue(held).catch(() => {});
    else this.#schedule(held);
  }
}
