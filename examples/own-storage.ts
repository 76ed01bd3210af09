// A storage of your own: here a Map that is written to a JSON file at every commit. Slow, but whole.
//
//   node build/examples/own-storage.js          a host on it, stopped and started again
//   node build/examples/own-storage.js --suite  what every storage must do, proven by the shipped suite
import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type {
  Entry,
  Expectation,
  Key,
  Removal,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
  Write,
} from "peerage";
import { createHost, PeeringError } from "peerage";
import { storageSuite } from "peerage/testing";
import { memoryNetwork } from "peerage/transport/memory";

/** A commit that `changes` remembers. */
interface Commit {
  readonly revision: bigint;
  readonly writes: readonly Write[];
}

/** A reader that is further behind is told to read again. */
const REMEMBERED_COMMITS = 100;

class JsonFileStorage implements Storage {
  /** The whole file is written at every commit, so this is about how large it may grow at once. */
  readonly limits: StorageLimits = { writes: 10_000, bytes: 16 * 1024 * 1024 };
  readonly #file: string;
  readonly #events = new EventEmitter().setMaxListeners(0);
  #entries: ReadonlyMap<string, Entry>;
  #revision: bigint;
  #commits: Commit[] = [];
  /** Changes up to this revision are forgotten. */
  #horizon: bigint;
  #closed = false;

  /** @throws {PeeringError} `locked`: the file is in use. `storage-damaged`, `storage-failed`: it cannot be read. */
  constructor(file: string) {
    this.#file = file;
    ({ entries: this.#entries, revision: this.#revision } = load(file));
    this.#horizon = this.#revision;
    lock(file);
  }

  async read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    signal?.throwIfAborted();
    this.#mustBeOpen();
    const entries = [...this.#entries.values()].filter(({ key }) => isUnder(key, prefix)).sort(byKey);
    return { entries, revision: this.#revision };
  }

  // A snapshot is a list of its own, so what others write meanwhile does not change it.
  async *pages(prefix: Key, bytes: number, signal?: AbortSignal): AsyncGenerator<StoragePage, void> {
    const { entries, revision } = await this.read(prefix, signal);
    for (let start = 0; start === 0 || start < entries.length; ) {
      let end = start;
      for (let room = bytes; end < entries.length && (end === start || room > 0); end++) {
        room -= entries[end]?.value.length ?? 0;
      }
      yield { entries: entries.slice(start, end), damaged: [], revision };
      signal?.throwIfAborted();
      this.#mustBeOpen();
      start = Math.max(end, 1);
    }
  }

  // There is no await in it, so commits take effect in the order of the calls. All are durable, also those that need not be.
  async commit(writes: readonly Write[], expect: readonly Expectation[] = []): Promise<bigint> {
    this.#mustBeOpen();
    if (writes.length > this.limits.writes || sizeOf(writes) > this.limits.bytes) {
      throw new PeeringError("resource-exhausted", "the commit is over the limits of the storage");
    }
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
    // First the disk, then what readers see: a commit that fails has not happened.
    save(this.#file, entries, revision);
    this.#entries = entries;
    this.#revision = revision;
    this.#commits.push({ revision, writes });
    if (this.#commits.length > REMEMBERED_COMMITS) this.#horizon = this.#commits.shift()?.revision ?? 0n;
    this.#events.emit("commit");
    return revision;
  }

  async *changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncGenerator<StorageChanges, void> {
    for (let known = after; !signal.aborted && !this.#closed; ) {
      const revision = this.#revision;
      const isForgotten = known < this.#horizon;
      const newest = new Map<string, Entry | Removal>();
      for (const commit of this.#commits.filter((each) => each.revision > known)) {
        for (const { key, value } of commit.writes.filter((write) => isUnder(write.key, prefix))) {
          const { revision } = commit;
          newest.set(JSON.stringify(key), value === undefined ? { key, revision } : { key, value, revision });
        }
      }
      if (revision > known) known = revision;
      if (isForgotten) yield { type: "reset", revision };
      else if (newest.size > 0) {
        const entries = [...newest.values()].filter((change) => "value" in change);
        const removed = [...newest.values()].filter((change) => !("value" in change));
        yield { type: "changed", entries, removed, revision };
      } else await once(this.#events, "commit", { signal }).catch(() => {});
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#events.emit("commit");
    rmSync(lockOf(this.#file));
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new PeeringError("closed", "the storage is closed");
  }
}

/** A key counts as much as its parts do. */
function sizeOf(writes: readonly Write[]): number {
  return writes.reduce((sum, { key, value }) => sum + Buffer.byteLength(key.join("")) + (value?.length ?? 0), 0);
}

/** A prefix names its own entry and everything below it. */
const isUnder = (key: Key, prefix: Key): boolean => prefix.every((part, index) => key[index] === part);

/** Parts compare as UTF-8 bytes, and a key comes before what lies below it. */
function byKey(a: Entry, b: Entry): number {
  for (const [index, part] of a.key.entries()) {
    const other = b.key[index];
    if (other === undefined) return 1;
    if (part !== other) return Buffer.compare(Buffer.from(part), Buffer.from(other));
  }
  return a.key.length - b.key.length;
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
