import type { Http2Session } from "node:http2";

export interface KeepaliveOptions {
  /** Silence after which a PING is sent, in milliseconds. */
  readonly intervalMs: number;
  /** How long its answer may take, in milliseconds. */
  readonly timeoutMs: number;
}

/**
 * Pings a session that has been silent, until it closes.
 * @param bytesRead - a count that grows whenever the other side says anything.
 * @param onDead - called once when a PING was not answered in time.
 */
export function keepAlive(
  session: Http2Session,
  options: KeepaliveOptions,
  bytesRead: () => number,
  onDead: () => void,
): void {
  let timer: NodeJS.Timeout | undefined;
  let heard = bytesRead();

  const schedule = (delayMs: number, action: () => void): void => {
    timer = setTimeout(action, delayMs);
    timer.unref();
  };
  const check = (): void => {
    const now = bytesRead();
    if (now !== heard) {
      heard = now;
      schedule(options.intervalMs, check);
      return;
    }
    // A session may be destroyed between its last event and this timer; a ping on it throws.
    if (session.destroyed || session.closed) return;
    try {
      session.ping(() => {});
    } catch {
      return;
    }
    schedule(options.timeoutMs, () => {
      // After a stall of our own loop the answer may wait unread: look after the next round of I/O.
      setImmediate(() =>
        setImmediate(() => {
          if (session.destroyed) return;
          if (bytesRead() === heard) onDead();
          else check();
        }),
      );
    });
  };

  session.once("close", () => clearTimeout(timer));
  schedule(options.intervalMs, check);
}
