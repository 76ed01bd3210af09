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

/** Removes former values of secrets from the files of one open database, in the background. */
export class FormerSecrets {
  readonly #surroundings: Surroundings;
  #asked = false;
  #done = false;
  #removing: Promise<void> | undefined;

  /** @param marked - whether {@link FORMER_KEY} is there: the process before did not get to it. */
  constructor(surroundings: Surroundings, marked: boolean) {
    this.#surroundings = surroundings;
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

  /** Resolves when nothing is left to do; never rejects. */
  async idle(): Promise<void> {
    await this.#removing;
  }

  async #removeAll(): Promise<void> {
    try {
      while (this.#asked) {
        this.#asked = false;
        for (let round = 0; round < ROUNDS; round++) {
          await this.#surroundings.readsEnded();
          for (const prefix of SECRET_PREFIXES) await this.#merge(prefix);
        }
      }
      this.#done = true;
    } catch (error) {
      this.#surroundings.incidents.report("storage-former-secret-kept", "former values of secrets are still in files", {
        error: errorText(error),
      });
    }
    this.#removing = undefined;
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
