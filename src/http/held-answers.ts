import type { Answer } from "./answer.js";
import { type Asked, type Sharer, unlessAborted } from "./shared-answers.js";

/** Something in memory until an answer has been sent, and about how many bytes. */
export interface Kept {
  readonly what: object;
  readonly bytes: number;
  /** Its place was waited for, as {@link Holder.wait}. */
  readonly long: boolean;
}

/** Everything besides its question that an answer depends on which is made at once. */
export interface AskedAt extends Asked {
  /** Differs after each write: a read that begins after a write must tell it, whatever its index counts. */
  readonly state: readonly bigint[];
}

/** The call that asks. */
export interface Holder extends Sharer {
  /** The list of things that it has noted while it made its answer; it grows. */
  readonly kept: readonly Kept[];
  /** Resolves when it may go on. @throws `signal.reason` */
  turn(): Promise<void>;
  /** Notes that it holds something, too. */
  hold(kept: Kept): void;
  /** Calls `action` when the answer has been sent, or never will be. */
  whenSent(action: () => void): void;
}

interface Held extends AskedAt {
  /** Undefined: the call that made it ended meanwhile, and it may be incomplete. */
  readonly answer: Promise<Answer | undefined>;
  readonly kept: readonly Kept[];
  /** Calls that it is made for, or sent to. */
  calls: number;
}

/**
 * Lets all reads that ask the same at the same time have one list, of which each writes its answer: it is made once, for the
 * first of them, and is in memory once, as long as one of them is being answered.
 */
export class HeldAnswers {
  readonly #held = new Map<string, Held>();

  /**
   * The answer that another call asked for, with the same rights and after the same write, if that call is not over; or what
   * `make` returns.
   * @param question - everything that the answer depends on but the parts of `asked`.
   * @throws what `make` throws, for whichever call, and `signal.reason` when this call has ended.
   */
  async answer(question: string, asked: AskedAt, holder: Holder, make: () => Promise<Answer>): Promise<Answer> {
    for (;;) {
      const held = this.#held.get(question);
      if (held === undefined || !isSame(held, asked)) return this.#make(question, asked, holder, make);
      this.#join(question, held, holder);
      holder.giveTurn();
      const answer = await held.answer;
      // Those who had to wait for it begin to write it one after another.
      await holder.turn();
      if (answer === undefined) continue;
      for (const kept of held.kept) holder.hold(kept);
      return answer;
    }
  }

  async #make(question: string, asked: AskedAt, holder: Holder, make: () => Promise<Answer>): Promise<Answer> {
    const answer = unlessAborted(make, holder.signal);
    const held: Held = { ...asked, answer, kept: holder.kept, calls: 0 };
    this.#held.set(question, held);
    this.#join(question, held, holder);
    try {
      const made = await answer;
      if (made !== undefined) return made;
    } catch (error) {
      this.#forget(question, held);
      throw error;
    }
    this.#forget(question, held);
    throw holder.signal.reason;
  }

  #join(question: string, held: Held, holder: Holder): void {
    held.calls++;
    holder.whenSent(() => {
      if (--held.calls === 0) this.#forget(question, held);
    });
  }

  #forget(question: string, held: Held): void {
    if (this.#held.get(question) === held) this.#held.delete(question);
  }
}

function isSame(held: AskedAt, asked: AskedAt): boolean {
  return (
    held.index === asked.index &&
    held.identity === asked.identity &&
    held.state.every((part, place) => part === asked.state[place])
  );
}
