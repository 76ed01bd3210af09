import type { Http2Session } from "node:http2";

export interface KeepaliveOptions {
  /** Silence after which a PING is sent, in milliseconds. */
  readonly intervalMs: number;
  /** How long its answer may take, in milliseconds. */
  readonly timeoutMs: number;
}

/**
 * Pings a session that has been silent, until its connection closes.
 * @param bytesRead - a count that grows whenever the other side says anything. Not called once the session has ended: its
 *   socket must not be asked any more.
 * @param onDead - ends the connection. Called once, when a PING was not answered in time, or when the session has ended
 *   and the other side did not close the connection.
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
    // Of a session that ends there may be no event for as long as the other side likes.
    if (session.destroyed || session.closed) {
      schedule(options.timeoutMs, onDead);
      return;
    }
    const now = bytesRead();
    if (now !== heard) {
      heard = now;
      schedule(options.intervalMs, check);
      return;
    }
    try {
      session.ping(() => {});
    } catch {
      return;
    }
    schedule(options.timeoutMs, () => {
      // After a stall of our own loop the answer may wait unread: look after the next round of I/O.
      setImmediate(() =>
        setImmediate(() => {
          if (session.destroyed || bytesRead() === heard) onDead();
          else check();
        }),
      );
    });
  };

  session.once("close", () => clearTimeout(timer));
  schedule(options.intervalMs, check);
}
