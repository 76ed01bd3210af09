import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../base/errors.js";

/** A row takes no more than so many bytes in memory beside its key and value: its number, its place in order, and rounding. */
const ROW_BYTES = 256;

/**
 * The engine syncs the log that it writes, and begins another when the writes in memory are too many: what was not synced in the one
 * before may still be lost then, though later writes are synced. So all logs are synced once it has begun another. From then on
 * everything before the newest log is on disk, and the beginning of that one.
 */
export class LevelLogs {
  readonly #path: string;
  /** It begins another log no sooner than that many bytes are written. */
  readonly #writeBufferBytes: number;
  #newest = "";
  #written = 0;
  /** Tables that are being merged, which begins another log at any time. */
  #merges = 0;
  #merged = false;

  constructor(path: string, writeBufferBytes: number) {
    this.#path = path;
    this.#writeBufferBytes = writeBufferBytes;
  }

  /** Call it after each write, before it is answered. */
  async written(bytes: number, rows: number): Promise<void> {
    this.#written += bytes + rows * ROW_BYTES;
    if (this.#merges === 0 && !this.#merged && this.#written < this.#writeBufferBytes / 2) return;
    this.#merged = false;
    const logs = (await readdir(this.#path)).filter((name) => /^\d+\.log$/.test(name));
    const newest = logs.reduce(
      (first, second) => (Number.parseInt(first, 10) > Number.parseInt(second, 10) ? first : second),
      "",
    );
    if (newest === this.#newest) return;
    for (const log of logs) await syncFile(join(this.#path, log));
    this.#newest = newest;
    this.#written = 0;
  }

  /** Call what merges tables by way of this. */
  async merging(action: () => Promise<void>): Promise<void> {
    this.#merges++;
    try {
      await action();
    } finally {
      this.#merges--;
      this.#merged = true;
    }
  }
}

/** Gone means that its rows are in a table, which the engine has synced. */
async function syncFile(path: string): Promise<void> {
  try {
    const file = await open(path, "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}
