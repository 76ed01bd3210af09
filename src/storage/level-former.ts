import { errorText } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { ABOVE_EVERY_KEY, encodeKey, isUnder } from "./key-encoding.js";
import { CA_STATE_KEY, FORMER_SECRETS_PREFIX, PEERING_SECRETS_PREFIX } from "./keys.js";

/** Where secrets lie: former values must not stay in the files. */
const SECRET_PREFIXES: readonly string[] = [CA_STATE_KEY, PEERING_SECRETS_PREFIX, FORMER_SECRETS_PREFIX].map(encodeKey);

/** Kept from the commit that replaced a secret until its former value is gone, for the next start to know of it. */
export const FORMER_KEY: Buffer = Buffer.from(`${ABOVE_EVERY_KEY}former`, "latin1");

/**
 * The rounds it takes until no file holds a former value. The first writes to a table what was only in the log; it may hold
 * the former and the new value. The second merges that table. The third removes files which reads held open meanwhile.
 */
const ROUNDS = 3;

/** The parts of the storage that it needs. */
export interface Surroundings {
  /** Resolves when all reads under way are over: each keeps the files that it sees. */
  readonly readsEnded: () => Promise<unknown>;
  /** Rejects where the storage cannot be written, as commits do. */
  readonly deleteBetweenCommits: (keys: readonly Buffer[]) => Promise<void>;
  /** Merges all tables that hold keys between these two. */
  readonly mergeTables: (first: Buffer, last: Buffer) => Promise<void>;
  readonly incidents: Incidents;
}

export function isSecret(encodedKey: string): boolean {
  return SECRET_PREFIXES.some((prefix) => isUnder(encodedKey, prefix));
}

/**
 * Removes former values of secrets from the files of one open database, in the background: at once, but no sooner than a pause after
 * the removal before. It rewrites tables, and peerings that are established one after another replace secrets all the time.
 */
export class FormerSecrets {
  readonly #surroundings: Surroundings;
  readonly #pauseMs: number;
  #asked = false;
  #done = false;
  #removing: Promise<void> | undefined;
  /** On the monotonic clock. */
  #notBefore = Number.NEGATIVE_INFINITY;
  #endPause: () => void = () => {};
  #isHurried = false;
  #isLeft = false;

  /**
   * @param marked - whether {@link FORMER_KEY} is there: the process before did not get to it.
   * @param pauseMs - between two removals.
   */
  constructor(surroundings: Surroundings, marked: boolean, pauseMs: number) {
    this.#surroundings = surroundings;
    this.#pauseMs = pauseMs;
    if (marked) this.remove();
  }

  /** Call it after the commit that replaced a secret; calls while it works are done together. */
  remove(): void {
    this.#asked = true;
    this.#done = false;
    this.#removing ??= this.#removeAll();
  }

  /** Whether all are gone that {@link FORMER_KEY} stands for. Then it is to be deleted, and this says no again. */
  takeDone(): boolean {
    const done = this.#done;
    this.#done = false;
    return done;
  }

  /** Makes no more pauses, and resolves when nothing is left to do; never rejects. */
  async finish(): Promise<void> {
    this.#isHurried = true;
    this.#endPause();
    await this.#removing;
  }

  /** Leaves a removal that has not begun to the next one who opens the database; resolves when nothing is under way. Never rejects. */
  async leave(): Promise<void> {
    this.#isLeft = true;
    this.#endPause();
    await this.#removing;
  }

  async #removeAll(): Promise<void> {
    try {
      while (this.#asked) {
        await this.#pause();
        if (this.#isLeft) return;
        this.#asked = false;
        for (let round = 0; round < ROUNDS; round++) {
          await this.#surroundings.readsEnded();
          for (const prefix of SECRET_PREFIXES) await this.#merge(prefix);
        }
        this.#notBefore = performance.now() + this.#pauseMs;
      }
      this.#done = true;
    } catch (error) {
      this.#surroundings.incidents.report("storage-former-secret-kept", "former values of secrets are still in files", {
        error: errorText(error),
      });
    }
    this.#removing = undefined;
  }

  async #pause(): Promise<void> {
    const leftMs = this.#notBefore - performance.now();
    if (leftMs <= 0 || this.#isHurried || this.#isLeft) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, leftMs);
      // A process that ends meanwhile leaves the mark.
      timer.unref();
      this.#endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** The engine merges tables that overlap, so something must be written that overlaps all under the prefix. */
  async #merge(prefix: string): Promise<void> {
    // Both are keys of nothing: a key ends in a zero byte.
    const first = Buffer.from(prefix.slice(0, -1), "latin1");
    const last = Buffer.from(prefix + ABOVE_EVERY_KEY, "latin1");
    await this.#surroundings.deleteBetweenCommits([first, last]);
    await this.#surroundings.mergeTables(first, last);
  }
}
