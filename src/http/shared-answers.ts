import type { Identity } from "../access/authorizer.js";
import type { Answer } from "./answer.js";

/** Everything besides its question that an answer depends on. */
export interface Asked {
  readonly index: bigint;
  /** Undefined: it depends on no rights. */
  readonly identity: Identity | undefined;
}

interface MadeAnswer extends Asked {
  /** Undefined: the call that made it ended meanwhile, and it may be incomplete. */
  readonly answer: Promise<Answer | undefined>;
}

/** Calls that wait for the answer to the same question. */
interface Group {
  /** Calls that belong to it. */
  calls: number;
  /** Calls of these that the last change has ended the wait of, and that are not answered yet. */
  woken: number;
  made: MadeAnswer | undefined;
}

/** The call that asks. */
export interface Sharer {
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  /** Another call makes its answer: it is the turn of others. */
  giveTurn(): void;
}

/** One call's part in a group. */
export interface SharedAnswer {
  /** A change has ended its wait. */
  woken(): void;
  /** It waits again. */
  asleep(): void;
  /**
   * The answer that was made for another call of the group which the same change woke, and whose index and identity are the same,
   * or what `make` returns.
   * @param make - gets whether the answer is for others, too.
   * @throws what `make` throws, for whichever call, and `caller.signal.reason` when this call has ended.
   */
  answer(asked: Asked, caller: Sharer, make: (forOthers: boolean) => Promise<Answer>): Promise<Answer>;
  /** The call has ended. */
  leave(): void;
}

/** Lets all who wait for the same have one answer, which is made once, when the first of them is answered. */
export class SharedAnswers {
  readonly #groups = new Map<string, Group>();

  /** @param question - everything that the answer depends on but the index that is waited for, and rights. */
  join(question: string): SharedAnswer {
    const groups = this.#groups;
    const group = groups.get(question) ?? { calls: 0, woken: 0, made: undefined };
    groups.set(question, group);
    group.calls++;
    let isWoken = false;
    const asleep = (): void => {
      if (!isWoken) return;
      isWoken = false;
      // The last one takes it along: later calls are answered from the data of their time.
      if (--group.woken === 0) group.made = undefined;
    };
    return {
      woken: () => {
        if (isWoken) return;
        isWoken = true;
        group.woken++;
      },
      asleep,
      answer: async ({ index, identity }, caller, make) => {
        const isAlone = group.calls === 1 && group.made === undefined;
        if (!isWoken || isAlone) return make(false);
        for (;;) {
          let { made } = group;
          if (made?.index !== index || made.identity !== identity) {
            made = { index, identity, answer: unlessAborted(() => make(true), caller.signal) };
            group.made = made;
          } else caller.giveTurn();
          const answer = await made.answer;
          if (answer !== undefined) return answer;
          if (group.made === made) group.made = undefined;
          caller.signal.throwIfAborted();
        }
      },
      leave: () => {
        asleep();
        if (--group.calls === 0) groups.delete(question);
      },
    };
  }
}

/** Undefined: the call of `signal` ended meanwhile, so that the answer may be incomplete. @throws what `make` throws before that. */
export async function unlessAborted(make: () => Promise<Answer>, signal: AbortSignal): Promise<Answer | undefined> {
  try {
    const answer = await make();
    return signal.aborted ? undefined : answer;
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}
