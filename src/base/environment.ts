import { randomBytes } from "node:crypto";

/** A pending timer. */
export interface Timer {
  cancel(): void;
}

/** Time as a host sees it. The system's is {@link systemClock}; the simulator passes a virtual one. */
export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin: for waits, timeouts and back-off. */
  now(): number;
  /** Milliseconds since the Unix epoch: for times shown to people and certificates. */
  wall(): number;
  /**
   * Calls `action` once, at least `delayMs` from now. The system's clock keeps the process alive until then: a host that
   * waits to dial again must not let its program end.
   */
  after(delayMs: number, action: () => void): Timer;
}

/** Randomness as a host sees it. */
export interface Random {
  bytes(length: number): Uint8Array;
  /** A number in [0, 1). */
  fraction(): number;
}

/** Fields of a log line. Never secrets, tokens or keys. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** The log of a host; shaped so that pino and console fit with a line of glue. Default: silent. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(delayMs, action) {
    // Node fires at once for delays over 2^31 - 1 ms; such a wait is as good as the longest it can do.
    const timer = setTimeout(action, Math.min(Math.max(delayMs, 0), 2_147_483_647));
    return { cancel: () => clearTimeout(timer) };
  },
};

export const systemRandom: Random = {
  bytes: (length) => new Uint8Array(randomBytes(length)),
  fraction: () => randomBytes(4).readUInt32BE() / 2 ** 32,
};

const ignore = (): void => {};
export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

/** 16 random bytes as lower-case hex 8-4-4-4-12. Not RFC 4122 v4: Consul sets no version bits either (1.13 to 1.22). */
export function randomId(random: Random): string {
  const hex = Buffer.from(random.bytes(16)).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Waits `delayMs` on `clock`. @throws `signal.reason` when aborted first. */
export function sleep(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const timer = clock.after(delayMs, () => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
    const abort = (): void => {
      timer.cancel();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
  });
}
