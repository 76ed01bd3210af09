// A storage of your own: here a Map that is written to a JSON file at every commit. Slow, but whole.
//
//   node build/examples/own-storage.js          a host on it, stopped and started again
//   node build/examples/own-storage.js --suite  what every storage must do, proven by the shipped suite
import { createHash } from "node:crypto";
import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Entry, Expectation, Key, Page, Snapshot, Storage, Write } from "peerage";
import { createHost, PeeringError } from "peerage";
import { storageSuite } from "peerage/testing";
import { memoryNetwork } from "peerage/transport/memory";

interface Watch {
  readonly prefix: Key;
  /** What it has not yielded yet. */
  changed: bigint | undefined;
  wake: () => void;
}

class JsonFileStorage implements Storage {
  readonly #file: string;
  readonly #watches = new Set<Watch>();
  #entries: ReadonlyMap<string, Entry>;
  #revision: bigint;
  #closed = false;

  /** @throws {PeeringError} `locked`: the file is in use. `storage-damaged`, `storage-failed`: it cannot be read. */
  constructor(file: string) {
    this.#file = file;
    ({ entries: this.#entries, revision: this.#revision } = load(file));
    lock(file);
  }

  async read(prefix: Key, signal?: AbortSignal, page?: Page): Promise<Snapshot> {
    signal?.throwIfAborted();
    this.#mustBeOpen();
    const entries = [...this.#entries.values()].filter(({ key }) => isUnder(key, prefix)).sort(byKey);
    return { entries: page === undefined ? entries : pageOf(entries, page), revision: this.#revision };
  }

  // There is no await in it, so commits take effect in the order of the calls.
  async commit(writes: readonly Write[], expect: readonly Expectation[] = []): Promise<bigint> {
    this.#mustBeOpen();
    for (const { key, revision } of expect) {
      if (this.#entries.get(JSON.stringify(key))?.revision === revision) continue;
      throw new PeeringError("conflict", `${key.join("/")} is not at the expected revision`);
    }
    const revision = this.#revision + 1n;
    const entries = new Map(this.#entries);
    for (const { key, value } of writes) {
      if (value === undefined) entries.delete(JSON.stringify(key));
      else entries.set(JSON.stringify(key), { key, value, revision });
    }
    // First the disk, then what reads see: a commit that fails has not happened.
    save(this.#file, entries, revision);
    this.#entries = entries;
    this.#revision = revision;
    for (const watch of this.#watches) {
      if (!writes.some(({ key }) => isUnder(key, watch.prefix))) continue;
      watch.changed = revision;
      watch.wake();
    }
    return revision;
  }

  async *watch(prefix: Key, after: bigint, signal: AbortSignal): AsyncGenerator<bigint, void> {
    // What was deleted meanwhile left no trace, so a watch that starts late yields once to be safe.
    const watch: Watch = { prefix, changed: after < this.#revision ? this.#revision : undefined, wake: () => {} };
    const wake = (): void => watch.wake();
    this.#watches.add(watch);
    signal.addEventListener("abort", wake);
    try {
      while (!signal.aborted && !this.#closed) {
        const revision = watch.changed;
        watch.changed = undefined;
        if (revision !== undefined) yield revision;
        else
          await new Promise<void>((resolve) => {
            watch.wake = resolve;
          });
      }
    } finally {
      this.#watches.delete(watch);
      signal.removeEventListener("abort", wake);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const watch of this.#watches) watch.wake();
    rmSync(lockOf(this.#file));
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new PeeringError("closed", "the storage is closed");
  }
}

/** A prefix names its own entry and everything below it. */
const isUnder = (key: Key, prefix: Key): boolean => prefix.every((part, index) => key[index] === part);

/** Parts compare as UTF-8 bytes, and a key comes before what lies below it. */
const byKey = (a: Entry, b: Entry): number => compareKeys(a.key, b.key);

function compareKeys(a: Key, b: Key): number {
  for (const [index, part] of a.entries()) {
    const other = b[index];
    if (other === undefined) return 1;
    if (part !== other) return Buffer.compare(Buffer.from(part), Buffer.from(other));
  }
  return a.length - b.length;
}

/** What is behind a key, until that makes so many bytes. */
function pageOf(entries: readonly Entry[], { after, bytes }: Page): readonly Entry[] {
  const behind = entries.filter((entry) => after === undefined || compareKeys(entry.key, after) > 0);
  let room = bytes;
  const full = behind.findIndex(({ value }) => {
    room -= value.length;
    return room <= 0;
  });
  return full < 0 ? behind : behind.slice(0, full + 1);
}

const lockOf = (file: string): string => `${file}.lock`;

/** A process that is killed leaves its lock behind; a storage for more than an example asks the operating system. */
function lock(file: string): void {
  try {
    closeSync(openSync(lockOf(file), "wx", 0o600));
  } catch (error) {
    throw new PeeringError("locked", `${file} is in use; if it is not, remove ${lockOf(file)}`, { cause: error });
  }
}

interface Saved {
  /** Kept by itself: it must not fall back when the newest entry is deleted. */
  readonly revision: string;
  readonly entries: readonly (readonly [key: Key, base64: string, revision: string])[];
}

/** Stands in the first line, so that a disk which returns something else is not believed. */
const digestOf = (json: string): string => createHash("sha256").update(json).digest("hex");

function load(file: string): { entries: Map<string, Entry>; revision: bigint } {
  let saved: Saved = { revision: "0", entries: [] };
  try {
    const [digest, json = ""] = readFileSync(file, "utf8").split("\n");
    if (digest !== digestOf(json)) {
      throw new PeeringError("storage-damaged", `${file} is not as it was written`, {
        remedy: "Restore a backup of it.",
      });
    }
    saved = JSON.parse(json);
  } catch (error) {
    if (error instanceof PeeringError) throw error;
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
      throw new PeeringError("storage-failed", `${file} cannot be read`, { cause: error });
    }
  }
  const entries = saved.entries.map(([key, base64, revision]): [string, Entry] => [
    JSON.stringify(key),
    { key, value: new Uint8Array(Buffer.from(base64, "base64")), revision: BigInt(revision) },
  ]);
  return { entries: new Map(entries), revision: BigInt(saved.revision) };
}

/** A new file, flushed, then put in the place of the old one: whatever happens, one of the two is there whole. */
function save(file: string, entries: ReadonlyMap<string, Entry>, revision: bigint): void {
  const rows = [...entries.values()].map(
    (entry) => [entry.key, Buffer.from(entry.value).toString("base64"), `${entry.revision}`] as const,
  );
  try {
    const descriptor = openSync(`${file}.new`, "w", 0o600);
    try {
      const json = JSON.stringify({ revision: `${revision}`, entries: rows } satisfies Saved);
      writeFileSync(descriptor, `${digestOf(json)}\n${json}`);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(`${file}.new`, file);
  } catch (error) {
    throw new PeeringError("storage-failed", `${file} cannot be written`, { cause: error });
  }
}

if (process.argv.includes("--suite")) {
  storageSuite("JSON file", async (directory) => new JsonFileStorage(join(directory, "data.json")), {
    durable: true,
    files: true,
  });
} else {
  const directory = mkdtempSync(join(tmpdir(), "peerage-"));
  const file = join(directory, "data.json");
  try {
    const start = () =>
      createHost({ storage: new JsonFileStorage(file), transport: memoryNetwork().transport({ listen: "here:8503" }) });
    {
      await using host = await start();
      await host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
      await host.peerings.generateToken({ peerName: "west" });
      console.log(`the first run wrote ${readFileSync(file).length} bytes`);
    }
    await using host = await start();
    const [peering] = host.peerings.list();
    console.log(`the second run found peering ${peering?.name} in state ${peering?.state}`);
    console.log(`and ${host.catalog.instances("web").length} instance of web`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
