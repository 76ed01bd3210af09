import type { Access, Right } from "../access/authorizer.js";
import { PeeringError } from "../base/errors.js";
import { Wake } from "../base/latest.js";
import { exhausted } from "../stores/record-limit.js";
import { StatusCode } from "../wire/status.js";
import type { RpcCall } from "./rpc-call.js";

/** The right that the caller of a watch lacks; undefined when there is none. */
export type MissingRight = (access: Access) => Right | undefined;

/**
 * The common part of all watches: it has a place among the calls that wait, waits for a change or for the time to look
 * again, and then for its turn, sends a heartbeat where nothing else was sent, and looks at the caller's rights, the token's
 * included, while it runs.
 */
export class Watch implements Disposable {
  /** Aborts when the watch is over, however it ends. */
  readonly signal: AbortSignal;
  readonly #over = new AbortController();
  readonly #call: RpcCall;
  readonly #missing: MissingRight;
  #access: Access | undefined;
  #judgedAt = 0;
  #toldAt: number;
  #displaced = false;
  readonly #wake = new Wake();
  readonly #leave: () => void;

  /** @throws {PeeringError} `resource-exhausted`: too many calls wait already. */
  constructor(call: RpcCall, missing: MissingRight) {
    this.#leave = call.wait(() => {
      this.#displaced = true;
      this.notice();
    });
    this.#call = call;
    this.#missing = missing;
    this.#toldAt = call.server.clock.now();
    this.signal = this.#over.signal;
    call.signal.addEventListener("abort", this.#abort);
  }

  readonly #abort = (): void => {
    this.#over.abort(this.#call.signal.reason);
    this.notice();
  };

  /** Something may have changed: the wait there is, or the next one, is over at once. */
  readonly notice: () => void = this.#wake.call;

  /** Something was sent. */
  told(): void {
    this.#toldAt = this.#call.server.clock.now();
  }

  /** Whether it is time for a heartbeat. */
  get silent(): boolean {
    const { clock, heartbeatMs } = this.#call.server;
    return clock.now() - this.#toldAt >= heartbeatMs;
  }

  /**
   * To be called before each message: resolves in turn.
   * @throws {PeeringError} `permission-denied`: the token is unknown, or lacks a right; `resource-exhausted`: there is no place
   *   for it any more.
   * @throws `signal.reason` when the caller has gone.
   */
  async admit(): Promise<void> {
    const { server, signal } = this.#call;
    signal.throwIfAborted();
    const now = server.clock.now();
    if (this.#access === undefined || now - this.#judgedAt >= server.heartbeatMs) {
      this.#access = await (this.#access === undefined ? this.#call.access() : this.#call.accessNow());
      this.#judgedAt = now;
      signal.throwIfAborted();
    }
    const right = this.#missing(this.#access);
    if (right !== undefined) this.#access.require(right);
    if (this.#displaced) {
      throw exhausted("too many calls wait for a change: the oldest end");
    }
    await this.#call.turn();
  }

  /** Resolves after a {@link notice}, and after `delayMs` or when a heartbeat is due at the latest. */
  async wait(delayMs: number = Number.POSITIVE_INFINITY): Promise<void> {
    const { clock, heartbeatMs } = this.#call.server;
    this.#call.pause();
    const untilHeartbeat = Math.max(0, this.#toldAt + heartbeatMs - clock.now());
    const timer = clock.after(Math.min(delayMs, untilHeartbeat), this.#wake.call);
    await this.#wake.wait();
    timer.cancel();
  }

  [Symbol.dispose](): void {
    this.#call.signal.removeEventListener("abort", this.#abort);
    this.#leave();
    this.#over.abort();
  }
}

/** Takes one item at a time out of an iterable that waits, without anybody waiting for it. */
export class Source<Item> implements Disposable {
  readonly #iterator: AsyncIterator<Item>;
  readonly #notice: () => void;
  #asked = false;
  #answer: { readonly item: Item } | { readonly error: unknown } | "ended" | undefined;

  /** @param notice - called when there is an item, the end or a failure. */
  constructor(items: AsyncIterable<Item>, notice: () => void) {
    this.#iterator = items[Symbol.asyncIterator]();
    this.#notice = notice;
  }

  /**
   * The item that has come since the last call; undefined when there is none yet, and then one is asked for.
   * @throws the error of the iterable. {@link PeeringError} `closed` when it has ended: only the host ends it.
   */
  take(): Item | undefined {
    const answer = this.#answer;
    if (answer === undefined) {
      if (!this.#asked) this.#ask();
      return undefined;
    }
    if (answer === "ended") {
      throw new PeeringError("closed", "the host is closing", { status: StatusCode.Unavailable });
    }
    if ("error" in answer) throw answer.error;
    this.#answer = undefined;
    return answer.item;
  }

  /** To be called when the iterable's wait has been aborted, or it may go on for as long as that takes. */
  [Symbol.dispose](): void {
    // With an unread item it would wait for us, and keep listening.
    this.#iterator.return?.().then(
      () => {},
      () => {},
    );
  }

  #ask(): void {
    this.#asked = true;
    const settle = (answer: { readonly item: Item } | { readonly error: unknown } | "ended"): void => {
      this.#asked = false;
      this.#answer = answer;
      this.#notice();
    };
    this.#iterator.next().then(
      ({ done, value }) => settle(done === true ? "ended" : { item: value }),
      (error: unknown) => settle({ error }),
    );
  }
}
