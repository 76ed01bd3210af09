import type { Clock } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { PIECE_BYTES } from "./answer-body.js";
import type { CallAllowance } from "./call-limits.js";
import type { HttpResponse } from "./messages.js";

/** How long a client may take to read an answer, or a message of one. Waiting for us does not count. */
export class ReadTime {
  readonly #limitMs: number;
  readonly #clock: Clock;
  #leftMs: number;

  constructor(limitMs: number, clock: Clock) {
    this.#limitMs = limitMs;
    this.#leftMs = limitMs;
    this.#clock = clock;
  }

  /**
   * Sends bytes in pieces; resolves when the client's side of the connection has room again. All of them count as unsent until then.
   * @throws {PeeringError} `aborted`: it is gone, or has been cut off because it was too slow.
   */
  async send(response: HttpResponse, bytes: Uint8Array, allowance: CallAllowance): Promise<void> {
    for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
      const piece = bytes.subarray(start, start + PIECE_BYTES);
      await this.#write(response, piece, allowance);
      allowance.sent(piece.length);
    }
  }

  /** Gives the client the rest of its time for bytes that the system has not taken yet. @returns it has taken them. */
  limit(response: { destroy(): unknown }, allowance: CallAllowance): () => void {
    const begin = this.#clock.now();
    const timer = this.#clock.after(Math.max(0, this.#leftMs), () => {
      allowance.readTooSlowly(this.#limitMs);
      response.destroy();
    });
    return () => {
      timer.cancel();
      this.#leftMs -= this.#clock.now() - begin;
    };
  }

  #write(response: HttpResponse, piece: Uint8Array, allowance: CallAllowance): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancel = this.limit(response, allowance);
      const settle = (error?: Error | null): void => {
        cancel();
        response.off("close", closed);
        if (error) reject(error);
        else resolve();
      };
      const closed = (): void => settle(new PeeringError("aborted", "the client has gone"));
      response.once("close", closed);
      if (response.destroyed) closed();
      else response.write(piece, settle);
    });
  }
}
