import type { Clock, Logger, Random } from "../base/environment.js";
import { sleep } from "../base/environment.js";
import { asPeeringError, errorText, PeeringError } from "../base/errors.js";
import { joinHostPort, splitPushedAddress } from "../base/host-port.js";
import { retry } from "../base/retry.js";
import type { Peering } from "../peering/peering.js";
import { dialBackoffMs, exchangeDelayMs, STABLE_STREAM_MS, statusCodeOf } from "../replication/backoff.js";
import type { Dialable } from "../stores/records.js";
import type { DialTarget, ExchangeSecretRequest, Transport } from "../transport/transport.js";
import { StatusCode } from "../wire/status.js";
import type { DialPlace, DialPlaces } from "./dial-places.js";
import type { LinkEnd } from "./stream-link.js";

export interface DialerOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The record and secret to dial a peering with, read again before every attempt (D-4); undefined while it must not be dialed. */
  readonly plan: (peeringId: string) => Promise<Dialable | undefined>;
  readonly places: Pick<DialPlaces, "of">;
  /** Serves an open stream until its end. `stableMs`: how long the acceptor had been speaking. */
  readonly serve: (
    plan: Dialable,
    target: DialTarget,
    signal: AbortSignal,
  ) => Promise<{ readonly end: LinkEnd; readonly connectedMs: number }>;
  /** An attempt failed; the next one comes in `waitMs`. */
  readonly onFailure: (peeringId: string, error: PeeringError, address: string | undefined, waitMs: number) => void;
  /** An attempt failed or its stream was lost. Unless {@link Dialer.redial} is called meanwhile, the loop ends. */
  readonly onLost: (peeringId: string) => void;
  /** The loop has ended. */
  readonly onStopped: (peeringId: string) => void;
}

/** A record that has changed is dialed at once, but no sooner than this after the attempt before began. */
const CHANGED_MS = 1_000;

interface Loop {
  readonly stop: AbortController;
  readonly finished: Promise<void>;
  /** Ends the wait between attempts and starts the count of failures over: the record that the dial depends on has changed. */
  restart: () => void;
  fingerprint: string;
  /** Asked for since the plan of the running attempt was read: begin again when the loop ends. */
  again: boolean;
  /** The loop goes on after its attempt. */
  redial: boolean;
}

/** The attempts of a loop that dial with the same secret, addresses and certificates. */
interface Round {
  places: readonly DialPlace[];
  /** The next one of them. */
  position: number;
  /** The address of the last attempt. Undefined: it failed before it dialed. */
  address: string | undefined;
  begunMs: number;
}

/**
 * Keeps one dial loop per active peering that has addresses and a secret. A loop dies with its record (D-3), reads what
 * it needs before each attempt (D-4), walks the addresses in order, and knows no permanent error: only a graceful end
 * stops it, as in Consul.
 */
export class Dialer implements AsyncDisposable {
  readonly #options: DialerOptions;
  readonly #loops = new Map<string, Loop>();
  #disposed = false;

  constructor(options: DialerOptions) {
    this.#options = options;
  }

  /** Whether a loop runs for this peering. */
  isDialing(peeringId: string): boolean {
    return this.#loops.has(peeringId);
  }

  /** Starts the loop of `peeringId`. One that ends just now begins again. */
  start(peeringId: string): void {
    if (this.#disposed) return;
    const loop = this.#loops.get(peeringId);
    if (loop === undefined) this.#start(peeringId);
    else {
      loop.again = true;
      this.changed(peeringId);
    }
  }

  /** Has the loop of `peeringId`, whose attempt was lost, go on. */
  redial(peeringId: string): void {
    const loop = this.#loops.get(peeringId);
    if (loop !== undefined) loop.redial = true;
  }

  /** Ends the loop of `peeringId`, with its wait or its attempt to connect. */
  end(peeringId: string): void {
    const loop = this.#loops.get(peeringId);
    if (loop === undefined) return;
    loop.again = false;
    loop.stop.abort();
  }

  /** Ends all of them. */
  endAll(): void {
    for (const peeringId of this.#loops.keys()) this.end(peeringId);
  }

  /** Something that all dials depend on has changed, such as the gateways of this cluster. */
  allChanged(): void {
    for (const peeringId of this.#loops.keys()) this.changed(peeringId);
  }

  /** A record has changed. If its loop dials with something else now, it does so without waiting any longer. */
  changed(peeringId: string): void {
    const loop = this.#loops.get(peeringId);
    if (loop === undefined) return;
    this.#options.plan(peeringId).then(
      (plan) => {
        if (plan === undefined || loop.fingerprint === this.#fingerprintOf(plan)) return;
        loop.fingerprint = this.#fingerprintOf(plan);
        loop.restart();
      },
      // The loop asks again, with its back-off.
      () => {},
    );
  }

  /** Ends every wait and every attempt to connect. Streams that stand are not touched: they belong to `Streams`. */
  stop(): void {
    this.#disposed = true;
    this.endAll();
  }

  /** Stops, and waits until the last stream has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await Promise.all([...this.#loops.values()].map((loop) => loop.finished));
  }

  #start(peeringId: string): void {
    const { logger } = this.#options;
    const stop = new AbortController();
    const loop: Loop = {
      stop,
      restart: () => {},
      fingerprint: "",
      again: false,
      redial: false,
      finished: Promise.resolve(),
    };
    const finished = this.#run(peeringId, loop)
      .catch((error: unknown) => {
        if (!stop.signal.aborted) logger.error("dial loop ended", { peering: peeringId, error: errorText(error) });
      })
      .then(() => {
        if (this.#loops.get(peeringId) === running) this.#loops.delete(peeringId);
        this.#options.onStopped(peeringId);
        // Such as a record that was established again while the stream of the old one was still draining.
        if (running.again) this.start(peeringId);
      });
    const running = Object.assign(loop, { finished });
    this.#loops.set(peeringId, running);
  }

  async #run(peeringId: string, loop: Loop): Promise<void> {
    const { signal } = loop.stop;
    const { clock, onFailure } = this.#options;
    while (!signal.aborted) {
      const changed = new AbortController();
      loop.restart = () => changed.abort();
      const round: Round = { places: [], position: 0, address: undefined, begunMs: Number.NEGATIVE_INFINITY };
      try {
        await retry((works) => this.#attempt(peeringId, loop, round, works), {
          clock,
          signal: AbortSignal.any([signal, changed.signal]),
          waitMs: (failures, error) => dialBackoffMs(failures, statusCodeOf(error)),
          onFailure: (error, waitMs) => {
            onFailure(peeringId, asPeeringError(error, "unavailable"), round.address, waitMs);
          },
        });
        return;
      } catch (error) {
        // Such as a stream that ended because the peering was established with another cluster: no failure of the new one.
        if (!changed.signal.aborted) throw error;
      }
      // At once, but for an acceptor that pushes another address on each stream before it hangs up.
      await sleep(clock, Math.max(0, round.begunMs + CHANGED_MS - clock.now()), signal).catch(() => {});
    }
  }

  /** Dials the next address and serves the stream. Resolves when there is nothing to dial any more. @throws if the stream was lost. */
  async #attempt(peeringId: string, loop: Loop, round: Round, works: () => void): Promise<void> {
    const { clock, places: all, serve, onLost } = this.#options;
    const { signal } = loop.stop;
    loop.again = false;
    round.address = undefined;
    const plan = await this.#plan(peeringId);
    if (plan === undefined || signal.aborted) return;
    loop.fingerprint = this.#fingerprintOf(plan);
    const places = all.of(plan.peering);
    if (addressesOf(places) !== addressesOf(round.places)) {
      round.places = places;
      round.position = 0;
    }
    const place = places[round.position % places.length];
    if (place === undefined) return;
    round.position = (round.position + 1) % places.length;
    round.address = place.address;
    round.begunMs = clock.now();
    let failure: PeeringError | undefined;
    try {
      const { end, connectedMs } = await serve(plan, targetOf(plan.peering, place), signal);
      failure = end.error;
      if (connectedMs >= STABLE_STREAM_MS) works();
    } catch (error) {
      failure = asPeeringError(error, "unavailable");
    }
    if (failure === undefined || signal.aborted) return;
    loop.redial = false;
    onLost(peeringId);
    if (loop.redial) throw failure;
  }

  #fingerprintOf({ peering, streamSecret }: Dialable): string {
    const { peerId, peerServerName, peerCaPems } = peering;
    const addresses = addressesOf(this.#options.places.of(peering));
    return JSON.stringify([peerId, streamSecret, peerServerName, peerCaPems, addresses]);
  }

  async #plan(peeringId: string): Promise<Dialable | undefined> {
    try {
      return await this.#options.plan(peeringId);
    } catch (error) {
      // Such as a storage that cannot be read now: no reason to give a peer up for ever.
      throw asPeeringError(error, "storage-failed");
    }
  }
}

export function targetOf(
  peering: Pick<Peering, "peerServerName" | "peerCaPems">,
  { address: known, mayDial }: DialPlace,
): DialTarget {
  // Consul pushes IPv6 addresses without brackets.
  const parts = splitPushedAddress(known);
  const address = parts === undefined ? known : joinHostPort(parts.host, parts.port);
  const target = { address, serverName: peering.peerServerName, caPems: peering.peerCaPems };
  return mayDial === undefined ? target : { ...target, mayDial };
}

function addressesOf(places: readonly DialPlace[]): string {
  return places.map(({ address }) => address).join();
}

const EXCHANGE_WINDOW_MS = 3_000;
const EXCHANGE_ATTEMPT_MS = 2_000;

interface ExchangeParts {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly places: DialPlaces;
}

type Exchanging = Parameters<DialPlaces["of"]>[0] & Parameters<typeof targetOf>[0];

/**
 * Trades the establishment secret of a token for a stream secret, as Consul's Establish does: addresses in order, round
 * and round for 3 s, and at least once each, 2 s an attempt (D-18). Own gateways, which learn of the peering while this runs, get 3 s of
 * their own before.
 * @throws {PeeringError} `permission-denied`: the token is used up; `unavailable`: no address answered, with every error.
 */
export async function exchangeSecret(
  parts: ExchangeParts,
  peering: Exchanging,
  request: ExchangeSecretRequest,
): Promise<string> {
  const { places, signal } = parts;
  const gateways = places.ownGateways();
  if (gateways.length > 0) {
    try {
      return await exchangeAt(gateways, parts, peering, request);
    } catch (error) {
      if (signal.aborted || asPeeringError(error, "unavailable").code === "permission-denied") throw error;
    }
  }
  return exchangeAt(places.of(peering), parts, peering, request);
}

async function exchangeAt(
  places: readonly DialPlace[],
  { transport, clock, random, signal }: ExchangeParts,
  peering: Exchanging,
  request: ExchangeSecretRequest,
): Promise<string> {
  const endsAt = clock.now() + EXCHANGE_WINDOW_MS;
  const errors: PeeringError[] = [];
  const texts: string[] = [];
  for (let attempt = 0; attempt < places.length || clock.now() < endsAt; attempt++) {
    const place = places[attempt % places.length] ?? { address: "" };
    try {
      const target = targetOf(peering, place);
      const answer = await transport.exchangeSecret(target, request, { timeoutMs: EXCHANGE_ATTEMPT_MS, signal });
      return answer.streamSecret;
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      const error = asPeeringError(thrown, "unavailable");
      if (error.status === StatusCode.PermissionDenied) {
        throw new PeeringError("permission-denied", `a new peering token must be generated: ${error.message}`, {
          status: StatusCode.PermissionDenied,
          cause: error,
          remedy: "Generate a new token on the other cluster: a token works once.",
        });
      }
      errors.push(error);
      texts.push(`failed to exchange peering secret through address "${place.address}": ${error.message}`);
    }
    await sleep(clock, exchangeDelayMs(random.fraction()), signal);
  }
  const count = texts.length === 1 ? "1 error occurred:" : `${texts.length} errors occurred:`;
  const first = errors[0];
  throw new PeeringError("unavailable", `${count}\n${texts.map((text) => `\t* ${text}`).join("\n")}\n\n`, {
    status: first?.status ?? StatusCode.Unknown,
    cause: first,
    remedy: "Check that one of the addresses of the token is reachable from here.",
  });
}
