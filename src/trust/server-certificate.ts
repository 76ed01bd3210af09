import { Alarm } from "../base/alarm.js";
import { type Clock, type Logger, type Random, silentLogger, systemClock, systemRandom } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import type { ServerIdentity } from "../transport/transport.js";
import { type CertificateAuthority, type IssuedCertificate, peeringServerName } from "./authority.js";
import { CLOCK_STEP_MS, MAX_WAIT_MS, renewalTime, retryDelay, rotationTime, validityFault } from "./renewal.js";
import { activeRootFault, ROOT_REMEDY } from "./root-validity.js";

const SECOND_MS = 1_000;

export interface ServerCertificateOptions {
  readonly authority: Pick<CertificateAuthority, "trustDomain" | "roots" | "onRootsChanged" | "issueServer">;
  readonly datacenter: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Default: silent. */
  readonly logger?: Logger;
  /**
   * Gets a report when the clock was set (`clock-set`), and when the active root is not valid (`root-not-valid`). Default: one that writes
   * to `logger`.
   */
  readonly incidents?: Incidents;
}

/** Facts about the certificate served. Times in milliseconds since the epoch. */
export interface ServerCertificateStatus {
  readonly notBefore: number;
  readonly notAfter: number;
  readonly rootId: string;
  /** Why the last attempt to renew it failed; undefined when it did not. */
  readonly renewalError: string | undefined;
}

/**
 * The TLS identity of an acceptor, kept valid: it is renewed at a random point between 60 and 90 % of its life, within
 * 30 seconds of a new root becoming active, and at once when it is older. When the clock has been set since it was issued, in
 * either direction, it is issued again within five minutes, or at the next handshake: what was issued while the clock was
 * ahead is not valid for as long. A renewal that fails is tried again after 1 s, 2 s, 4 s and so on up to 5 min, each up to 20 %
 * longer; the certificate at hand is served meanwhile.
 */
export class ServerCertificate implements ServerIdentity, AsyncDisposable {
  readonly serverName: string;
  readonly #options: Required<ServerCertificateOptions>;
  readonly #stopListening: () => void;
  readonly #renewed: Signal;
  readonly #ready: Promise<void>;
  readonly #firstAttempt: Promise<void> | undefined;
  #resolveReady: () => void = () => {};
  #rejectReady: (error: PeeringError) => void = () => {};
  #certificate: IssuedCertificate | undefined;
  #renewalError: string | undefined;
  /** When to renew, on the calendar. */
  #dueAt = 0;
  /** How far the calendar was ahead of the monotonic clock when the certificate was issued. */
  #calendarAheadMs = 0;
  /** Why the active root is not valid now, as told last. */
  #rootFault: string | undefined;
  /** After a failure: how long to wait instead, whatever the calendar says. */
  #retryMs: number | undefined;
  #failures = 0;
  readonly #due: Alarm;
  #renewing: Promise<void> | undefined;
  #closed = false;

  constructor(options: ServerCertificateOptions) {
    this.#options = {
      ...options,
      clock: options.clock ?? systemClock,
      random: options.random ?? systemRandom,
      logger: options.logger ?? silentLogger,
      incidents: options.incidents ?? new Incidents(options),
    };
    this.#renewed = new Signal(this.#options.incidents);
    this.#due = new Alarm(this.#options.clock, () => this.#considerRenewal());
    this.serverName = peeringServerName(options.datacenter, options.authority.trustDomain);
    this.#ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Waiting for it is optional; a caller that waits gets the failure.
    this.#ready.catch(() => undefined);
    this.#stopListening = options.authority.onRootsChanged(() => this.#rootsChanged());
    this.#renew();
    this.#firstAttempt = this.#renewing;
  }

  /** Resolves when there is a certificate. @throws {PeeringError} `closed`: disposed of before there was one. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** Resolves when the first attempt to get a certificate is over, whether or not it succeeded. Others follow by themselves. */
  async attempted(): Promise<void> {
    await this.#firstAttempt;
  }

  /** @throws {PeeringError} `unavailable`: none was issued yet. */
  current(): { readonly certificateChainPem: string; readonly privateKeyPem: string } {
    const certificate = this.#certificate;
    if (certificate === undefined) {
      throw new PeeringError("unavailable", "no server certificate has been issued yet");
    }
    // After a long sleep of the machine, or when the clock was set, a handshake may come before the timer.
    if (this.#failures === 0 && (this.#clockWasSet() || this.#faultOf(certificate) !== undefined)) this.#renew();
    return certificate;
  }

  /** Calls `listener` when there is a new certificate, until the returned function is called. */
  onRenewed(listener: () => void): () => void {
    return this.#renewed.on(listener);
  }

  /** Undefined before the first certificate. */
  get status(): ServerCertificateStatus | undefined {
    if (this.#certificate === undefined) return undefined;
    const { notBefore, notAfter, rootId } = this.#certificate;
    return { notBefore, notAfter, rootId, renewalError: this.#renewalError };
  }

  /** Stops renewing. The authority is the caller's and stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#stopListening();
    this.#due.cancel();
    this.#rejectReady(new PeeringError("closed", "the server certificate was disposed of"));
    await this.#renewing;
  }

  #renew(): void {
    if (this.#closed || this.#renewing !== undefined) return;
    this.#due.cancel();
    this.#retryMs = undefined;
    this.#renewing = this.#attempt().finally(() => {
      this.#renewing = undefined;
      if (this.#closed) return;
      if (this.#certificate !== undefined && this.#retryMs === undefined) this.#considerRotation(this.#certificate);
      this.#schedule();
    });
  }

  async #attempt(): Promise<void> {
    const { authority, datacenter, clock, random, logger } = this.#options;
    this.#calendarAheadMs = clock.wall() - clock.now();
    try {
      const certificate = await authority.issueServer(datacenter);
      if (this.#closed) return;
      this.#certificate = certificate;
      this.#resolveReady();
      this.#renewed.emit();
      const fault = this.#faultOf(certificate);
      if (fault !== undefined) throw new PeeringError("unavailable", `it ${fault} when it was issued`);
      this.#failures = 0;
      this.#renewalError = undefined;
      this.#dueAt = renewalTime(certificate, clock.wall(), random);
    } catch (error) {
      if (this.#closed) return;
      this.#renewalError = errorText(error);
      this.#failures++;
      logger.warn("server certificate could not be renewed", {
        error: this.#renewalError,
        failures: this.#failures,
      });
      this.#retryMs = retryDelay(this.#failures, random);
    }
  }

  #faultOf(certificate: IssuedCertificate): string | undefined {
    return validityFault(certificate, this.#options.clock.wall());
  }

  /** Whether it was since the last attempt to issue a certificate, for which this is a reason then. */
  #clockWasSet(): boolean {
    const { clock, incidents } = this.#options;
    const byMs = clock.wall() - clock.now() - this.#calendarAheadMs;
    if (Math.abs(byMs) < CLOCK_STEP_MS || this.#renewing !== undefined) return false;
    incidents.report("clock-set", "the clock was set or the machine slept: the server certificate is issued again", {
      bySeconds: Math.round(byMs / SECOND_MS),
    });
    return true;
  }

  /** Says so when the root that peers are to trust begins not to be valid: they refuse all that it signs. */
  #considerRoot(): void {
    const { authority, clock, incidents } = this.#options;
    const fault = activeRootFault(authority, clock.wall());
    if (fault !== undefined && fault !== this.#rootFault) {
      incidents.report("root-not-valid", "the active root certificate is not valid now: peers refuse this cluster", {
        reason: fault,
        remedy: ROOT_REMEDY,
      });
    }
    this.#rootFault = fault;
  }

  #rootsChanged(): void {
    // While a renewal runs, the root of the new certificate is not known yet; the renewal looks again afterwards.
    if (this.#renewing !== undefined) return;
    // With no certificate yet, such as under a root that had expired, the new root ends the wait.
    if (this.#certificate === undefined) this.#renew();
    else if (this.#considerRotation(this.#certificate)) this.#schedule();
  }

  /** Whether the certificate is of a root that is not active any more; it is renewed soon then. */
  #considerRotation(certificate: IssuedCertificate): boolean {
    const { authority, clock, random } = this.#options;
    const active = authority.roots().find((root) => root.active);
    if (active === undefined || active.id === certificate.rootId) return false;
    this.#dueAt = Math.min(this.#dueAt, rotationTime(clock.wall(), random));
    // The authority has just shown that it works: the wait after a failure is over.
    this.#retryMs = undefined;
    return true;
  }

  #schedule(): void {
    this.#considerRoot();
    const leftMs = Math.max(this.#dueAt - this.#options.clock.wall(), 0);
    this.#due.set(this.#retryMs ?? Math.min(leftMs, MAX_WAIT_MS));
  }

  #considerRenewal(): void {
    const isRetry = this.#retryMs !== undefined;
    if (isRetry || this.#clockWasSet() || this.#options.clock.wall() >= this.#dueAt) this.#renew();
    else this.#schedule();
  }
}
