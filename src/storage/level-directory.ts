import { closeSync, constants, fsyncSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { chmod, lstat, mkdir, open, readdir, readFile, realpath, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errorCode, errorText, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { crc32c } from "./crc32c.js";

const PRIVATE_DIRECTORY = 0o700;
const PRIVATE_FILE = 0o600;
const OTHERS = 0o077;
const WRITABLE_BY_ALL = 0o002;
/** As for `/tmp`: only owners can rename entries. */
const STICKY = 0o1000;

/** Files of the engine and of ours; others in the directory are left alone. */
const OURS = /^(?:\d+\.(?:log|ldb|sst|dbtmp)|MANIFEST-\d+|CURRENT|LOCK|LOG|LOG\.old|acknowledged|in-use-.*)$/;
const IN_USE = /^in-use-/;
const ACKNOWLEDGED = "acknowledged";

/**
 * A data directory that belongs to one storage of this process until it is released. Whether another process has it is the
 * engine's to find out; but within a process the engine knows directories by the texts that lead there, and locks of the
 * operating system are held by processes. So each process marks the directory with a file of its own name: wherever it
 * comes from (another spelling, a link, a mount), it finds the mark.
 */
export class DataDirectory {
  /** As it was asked for; for messages. */
  readonly name: string;
  /** Where it is, whatever the working directory becomes. */
  readonly path: string;
  readonly #mark: string;
  readonly #incidents: Incidents;

  private constructor(name: string, path: string, mark: string, incidents: Incidents) {
    this.name = name;
    this.path = path;
    this.#mark = mark;
    this.#incidents = incidents;
  }

  /**
   * Makes the directory if there is none, and keeps other users out of it.
   * @throws {PeeringError} `locked`: this process has it open already. `storage-failed`: it cannot be used.
   */
  static async claim(name: string, incidents: Incidents): Promise<DataDirectory> {
    const path = await directoryAt(name);
    const directory = new DataDirectory(name, path, await markOf(path), incidents);
    try {
      await directory.#closeToOthers();
      await directory.#lookAtParents();
      await directory.#markInUse();
    } catch (error) {
      throw error instanceof PeeringError ? error : cannotOpen(name, error);
    }
    try {
      await directory.tighten();
      return directory;
    } catch (error) {
      await directory.release();
      throw error instanceof PeeringError ? error : cannotOpen(name, error);
    }
  }

  /**
   * Makes the files unreadable for other users. The engine makes new ones as the umask has it.
   * @throws {PeeringError} `storage-failed`: one belongs to another user.
   */
  async tighten(): Promise<void> {
    const user = process.getuid?.();
    if (user === undefined) return;
    for (const file of await readdir(this.path)) {
      if (!OURS.test(file)) continue;
      try {
        const { uid, mode } = await lstat(join(this.path, file));
        if (uid !== user) throw belongsTo(join(this.name, file), uid, user);
        if ((mode & OTHERS) !== 0) await chmod(join(this.path, file), PRIVATE_FILE);
      } catch (error) {
        // The engine removes files meanwhile.
        if (errorCode(error) !== "ENOENT") throw error;
      }
    }
  }

  /** Removes what processes that were killed left behind. Call it when the engine has found out that there is no other. */
  async sweep(): Promise<void> {
    for (const file of await readdir(this.path)) {
      if (IN_USE.test(file) && file !== this.#mark) await rm(join(this.path, file), { force: true });
    }
  }

  async release(): Promise<void> {
    await rm(join(this.path, this.#mark), { force: true });
  }

  async #closeToOthers(): Promise<void> {
    const user = process.getuid?.();
    // There is nothing of the kind on Windows.
    if (user === undefined) return;
    const { uid, mode } = await stat(this.path);
    if (uid !== user) throw belongsTo(this.name, uid, user);
    if ((mode & OTHERS) === 0) return;
    await chmod(this.path, PRIVATE_DIRECTORY);
    if (((await stat(this.path)).mode & OTHERS) !== 0) {
      throw new PeeringError("storage-failed", `the data directory ${this.name} cannot be kept from other users`, {
        remedy: "Give the data a directory on a file system that keeps permissions.",
      });
    }
    this.#incidents.report(
      "storage-directory-open",
      "the data directory was open to other users, and is not any more",
      {
        directory: this.name,
        mode: `0${(mode & 0o777).toString(8)}`,
      },
    );
  }

  /** A user who can rename a folder above the data can replace the data. */
  async #lookAtParents(): Promise<void> {
    if (process.getuid === undefined) return;
    for (let parent = dirname(this.path); ; parent = dirname(parent)) {
      const { mode } = await stat(parent);
      if ((mode & WRITABLE_BY_ALL) !== 0 && (mode & STICKY) === 0) {
        this.#incidents.report(
          "storage-parent-open",
          "a directory above the data directory can be written by all users",
          {
            directory: this.name,
            parent,
          },
        );
      }
      if (parent === dirname(parent)) return;
    }
  }

  async #markInUse(): Promise<void> {
    try {
      await (await open(join(this.path, this.#mark), "wx", PRIVATE_FILE)).close();
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
      throw inUse(this.name, error);
    }
  }
}

/**
 * The newest revision that was acknowledged as durable, in a file beside the database. An acknowledged commit that is not found
 * again was lost, while a write that was cut short before, or was not synced, may be missing. The file is written without a sync,
 * after that of the database, so it is never ahead of the disk.
 */
export class AcknowledgedRevision {
  readonly #descriptor: number;
  readonly #incidents: Incidents;

  private constructor(descriptor: number, incidents: Incidents) {
    this.#descriptor = descriptor;
    this.#incidents = incidents;
  }

  /**
   * As the last process left it; undefined when there is none, as in data of 0.1, or it is damaged.
   */
  static async read(directory: DataDirectory): Promise<bigint | undefined> {
    const text = await readFile(join(directory.path, ACKNOWLEDGED), "latin1").catch((error: unknown) => {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    });
    if (text === undefined) return undefined;
    const revision = BigInt(/^(\d{20}) /.exec(text)?.[1] ?? "0");
    return text === lineOf(revision).toString("latin1") ? revision : undefined;
  }

  static async open(directory: DataDirectory, revision: bigint, incidents: Incidents): Promise<AcknowledgedRevision> {
    const path = join(directory.path, ACKNOWLEDGED);
    const acknowledged = new AcknowledgedRevision(
      openSync(path, constants.O_CREAT | constants.O_WRONLY, PRIVATE_FILE),
      incidents,
    );
    acknowledged.write(revision);
    ftruncateSync(acknowledged.#descriptor, lineOf(revision).length);
    fsyncSync(acknowledged.#descriptor);
    return acknowledged;
  }

  /** Never throws: the commit that it notes is durable already. */
  write(revision: bigint): void {
    const line = lineOf(revision);
    try {
      writeSync(this.#descriptor, line, 0, line.length, 0);
    } catch (error) {
      this.#incidents.report("storage-revision-unwritten", "the newest revision cannot be written beside the data", {
        error: errorText(error),
      });
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

/** Always of the same length, so that it is written over itself. */
function lineOf(revision: bigint): Buffer {
  const digits = String(revision).padStart(20, "0");
  const check = crc32c(Buffer.from(digits)).toString(16).padStart(8, "0");
  return Buffer.from(`${digits} ${check}\n`, "latin1");
}

/**
 * With all folders above it. Node's own way to do that never ends, and takes all memory, where a system has a directory in which
 * nothing can be made, such as /proc.
 */
async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: PRIVATE_DIRECTORY });
  } catch (error) {
    const code = errorCode(error);
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || parent === path) throw error;
    await makeDirectory(parent);
    await mkdir(path, { mode: PRIVATE_DIRECTORY }).catch(async (failure: unknown) => {
      // Another process may have made it.
      if (errorCode(failure) !== "EEXIST" || !(await stat(path)).isDirectory()) throw failure;
    });
  }
}

/** @throws {PeeringError} `storage-failed`: there is none and none can be made. */
async function directoryAt(name: string): Promise<string> {
  try {
    await makeDirectory(name);
    return await realpath(name);
  } catch (error) {
    const code = errorCode(error);
    if (code !== "EEXIST" && code !== "ENOTDIR") throw cannotOpen(name, error);
    throw new PeeringError("storage-failed", `the data directory ${name} is a file, or lies in one`, {
      cause: error,
      remedy: "Name a directory.",
    });
  }
}

/**
 * The same for every copy of this module and in every thread of this process, and another one after a restart with the same
 * process id. With the directory's own number, so that one which is copied while it is open can be opened, too.
 */
async function markOf(path: string): Promise<string> {
  const { dev, ino } = await stat(path, { bigint: true });
  return `in-use-${process.pid}-${Math.trunc(performance.timeOrigin * 1000)}-${dev}-${ino}`;
}

function belongsTo(name: string, owner: number, user: number): PeeringError {
  const message = `${name} belongs to user ${owner}, and this process runs as user ${user}`;
  return new PeeringError("storage-failed", message, {
    remedy: "Run the process as the owner of its data, or give it a directory of its own.",
  });
}

export function inUse(name: string, cause?: unknown): PeeringError {
  return new PeeringError("locked", `the data directory ${name} is in use by another process`, {
    cause,
    remedy: "Stop the other process, or give this one a directory of its own. A process can open a directory once.",
  });
}

export function cannotOpen(name: string, error: unknown): PeeringError {
  return new PeeringError("storage-failed", `cannot open the data directory ${name}: ${errorText(error)}`, {
    cause: error,
    remedy: "Let the user of this process write there, or name another directory.",
  });
}
