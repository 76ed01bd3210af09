import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { PeeringError } from "../../../src/base/errors.js";
import { openLevel } from "../../../src/storage/level.js";
import type { Storage } from "../../../src/storage/storage.js";

// This file is its own child process, so that it runs the same way compiled and not.
const DIRECTORY = "PEERAGE_TEST_CHILD_DIRECTORY";
const TASK = "PEERAGE_TEST_CHILD_TASK";

const WRITERS = 4;
const KEYS = 5;

const childDirectory = process.env[DIRECTORY];
if (childDirectory === undefined) registerTests();
else await runChild(childDirectory, process.env[TASK] ?? "");

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function runChild(directory: string, task: string): Promise<void> {
  const storage = await openLevel(directory).catch((error: unknown) => {
    say(error instanceof PeeringError ? `${error.code} ${error.message}` : String(error));
    process.exit(0);
  });
  if (task === "commit") {
    say("open");
    await Promise.all(Array.from({ length: WRITERS }, (_, writer) => commitForEver(storage, writer)));
  }
  if (task === "fill") await fillTheDisk(storage);
}

async function commitForEver(storage: Storage, writer: number): Promise<void> {
  const [last] = (await storage.read([`writer${writer}`, "0"])).entries;
  for (let round = last === undefined ? 1 : roundOf(last.value) + 1; ; round++) {
    const revision = await storage.commit(roundWrites(writer, round));
    say(`${writer} ${round} ${revision}`);
  }
}

/** One commit of a writer: the same round under several keys, so that half a commit would show. */
function roundWrites(writer: number, round: number): { key: string[]; value: Uint8Array }[] {
  return Array.from({ length: KEYS }, (_, index) => {
    const value = Buffer.alloc(700 * (index + 1), round % 251);
    value.writeUInt32BE(round);
    return { key: [`writer${writer}`, `${index}`], value };
  });
}

function roundOf(value: Uint8Array): number {
  return Buffer.from(value).readUInt32BE();
}

/** Run under a limit on the size of files, which is a full disk that can be had everywhere. */
async function fillTheDisk(storage: Storage): Promise<void> {
  let round = 0;
  let failure: unknown;
  while (failure === undefined) {
    try {
      await storage.commit(roundWrites(0, round + 1));
      round++;
    } catch (error) {
      failure = error;
    }
  }
  say(failure instanceof PeeringError ? failure.code : String(failure));
  const again = await storage.commit([{ key: ["after"], value: new Uint8Array() }]).catch((error: unknown) => error);
  say(again instanceof PeeringError ? again.code : String(again));
  const { entries } = await storage.read([]);
  say(
    `${round} ${new Set(entries.map((entry) => roundOf(entry.value))).size} ${roundOf(entries[0]?.value ?? Buffer.alloc(4))}`,
  );
  // The parent lifts the limit and says so.
  await once(process.stdin, "data");
  await storage.commit(roundWrites(0, round + 1));
  say(`${round + 1}`);
  await storage[Symbol.asyncDispose]();
  process.exit(0);
}

function startChild(directory: string, task: string, wrap: readonly string[] = []): ChildProcess {
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  const [command = process.execPath, ...rest] = [
    ...wrap,
    process.execPath,
    ...process.execArgv.filter((argument) => !argument.startsWith("--test")),
    fileURLToPath(import.meta.url),
  ];
  return spawn(command, rest, {
    env: { ...environment, [DIRECTORY]: directory, [TASK]: task },
    stdio: ["pipe", "pipe", "inherit"],
  });
}

function linesOf(child: ChildProcess): AsyncIterator<string> {
  assert.ok(child.stdout !== null);
  return createInterface({ input: child.stdout })[Symbol.asyncIterator]();
}

async function lineOf(lines: AsyncIterator<string>): Promise<string> {
  const { value, done } = await lines.next();
  assert.ok(done !== true, "the child ended early");
  return value;
}

async function withDirectory(action: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "peerage-level-"));
  try {
    await action(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function registerTests(): void {
  const timeout = 60_000;

  it("reopened after kill -9, it has every acknowledged commit and none by half", { timeout }, () =>
    withDirectory(async (directory) => {
      for (const acknowledgements of [1, 40, 150, 400]) {
        const child = startChild(directory, "commit");
        const exited = once(child, "exit");
        const lines = linesOf(child);
        assert.equal(await lineOf(lines), "open");
        const acknowledged = new Map<number, number>();
        let newest = 0n;
        const note = (line: string): void => {
          const [writer, round, revision] = line.split(" ");
          acknowledged.set(Number(writer), Number(round));
          newest = BigInt(revision ?? 0);
        };
        for (let count = 0; count < acknowledgements; count++) note(await lineOf(lines));
        child.kill("SIGKILL");
        // Its lines before its end count, too; only a line cut short does not.
        for (let next = await lines.next(); next.done !== true; next = await lines.next()) {
          if (/^\d+ \d+ \d+$/.test(next.value)) note(next.value);
        }
        await exited;

        await using storage = await openLevel(directory);
        assert.ok((await storage.read([])).revision >= newest);
        for (let writer = 0; writer < WRITERS; writer++) {
          const { entries } = await storage.read([`writer${writer}`]);
          const round = entries[0] === undefined ? 0 : roundOf(entries[0].value);
          assert.ok(round >= (acknowledged.get(writer) ?? 0), `writer ${writer} lost an acknowledged commit`);
          const expected = round === 0 ? [] : roundWrites(writer, round);
          assert.deepEqual(
            entries.map(({ key, value }) => ({ key, value: Buffer.from(value) })),
            expected,
          );
          assert.equal(new Set(entries.map((entry) => entry.revision)).size, expected.length === 0 ? 0 : 1);
        }
      }
    }),
  );

  it("a second process that opens the same directory gets locked, naming the directory", { timeout }, () =>
    withDirectory(async (directory) => {
      await using storage = await openLevel(directory);
      const lines = linesOf(startChild(directory, "open"));
      assert.equal(await lineOf(lines), `locked the data directory ${directory} is in use by another process`);
      await storage.commit([{ key: ["a"], value: new Uint8Array() }]);
    }),
  );

  const limits = process.platform === "linux";
  it("a full disk: commits are refused, reads go on; with room again, so do commits", { timeout, skip: !limits }, () =>
    withDirectory(async (directory) => {
      const child = startChild(directory, "fill", ["prlimit", "--fsize=3000000:unlimited"]);
      const exited = once(child, "exit");
      const lines = linesOf(child);
      assert.equal(await lineOf(lines), "storage-failed");
      assert.equal(await lineOf(lines), "storage-failed");
      const [rounds = "", distinct, found] = (await lineOf(lines)).split(" ");
      assert.ok(Number(rounds) > 1);
      assert.deepEqual([distinct, found], ["1", rounds]);

      const lift = spawn("prlimit", ["--fsize=unlimited", `--pid=${child.pid}`]);
      assert.deepEqual(await once(lift, "exit"), [0, null]);
      child.stdin?.write("lifted\n");
      assert.equal(await lineOf(lines), `${Number(rounds) + 1}`);
      assert.deepEqual(await exited, [0, null]);

      await using storage = await openLevel(directory);
      const { entries } = await storage.read([]);
      assert.deepEqual(
        entries.map(({ key, value }) => ({ key, value: Buffer.from(value) })),
        roundWrites(0, Number(rounds) + 1),
      );
    }),
  );

  it("files that another process writes are in use, and not damaged", { timeout }, () =>
    withDirectory(async (directory) => {
      await using storage = await openLevel(directory);
      // States that a read during a change may show.
      const current = await readFile(join(directory, "CURRENT"));
      await writeFile(join(directory, "CURRENT"), "");
      const expected = `locked the data directory ${directory} is in use by another process`;
      assert.equal(await lineOf(linesOf(startChild(directory, "open"))), expected);
      await writeFile(join(directory, "CURRENT"), current);
      const acknowledged = await readFile(join(directory, "acknowledged"));
      await writeFile(join(directory, "acknowledged"), "00000000000000000009 3469d464\n");
      assert.equal(await lineOf(linesOf(startChild(directory, "open"))), expected);
      await writeFile(join(directory, "acknowledged"), acknowledged);
      await storage.commit([{ key: ["a"], value: new Uint8Array() }]);
    }),
  );
}
