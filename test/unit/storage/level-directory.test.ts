import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { openLevel } from "../../../src/storage/level.js";

async function withRoot(action: (root: string) => Promise<void>): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "peerage-directory-"));
  try {
    await action(root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

async function refused(directory: string, code: string, ...texts: readonly string[]): Promise<void> {
  await assert.rejects(openLevel(directory), (error) => {
    assert.ok(error instanceof PeeringError, String(error));
    assert.equal(error.code, code, error.message);
    for (const text of texts) assert.ok(error.message.includes(text), error.message);
    assert.ok(error.remedy !== undefined, error.message);
    return true;
  });
}

const value = new Uint8Array(40_000);
const modeOf = (path: string): number => statSync(path).mode & 0o777;

/** Whether the files of the directory are for their owner only. */
function assertPrivate(directory: string): void {
  const names = readdirSync(directory);
  assert.ok(names.includes("CURRENT"));
  for (const name of names) assert.equal(modeOf(join(directory, name)), 0o600, name);
}

const posix = process.getuid !== undefined;
const root = process.getuid?.() === 0;

describe("level, one directory by several names", () => {
  it("is in use, whatever leads there", () =>
    withRoot(async (parent) => {
      const directory = join(parent, "data");
      await using storage = await openLevel(directory);
      symlinkSync(directory, join(parent, "link"), "junction");
      symlinkSync(parent, join(parent, "around"), "junction");
      const names = [
        directory,
        `${directory}/`,
        `${directory}/.`,
        `${directory}//`,
        `${parent}/./data`,
        `${directory}/../data`,
        join(parent, "link"),
        `${join(parent, "link")}/`,
        join(parent, "around", "data"),
      ];
      for (const name of names) await refused(name, "locked", name);
      assert.equal(await storage.commit([{ key: ["a"], value }]), 1n);
    }));

  it("is in use by a relative path, and stays where it was when the working directory changes", () =>
    withRoot(async (parent) => {
      const before = process.cwd();
      process.chdir(parent);
      try {
        await using storage = await openLevel("data", { writeBufferBytes: 65_536 });
        await refused("./data", "locked", "./data");
        process.chdir(before);
        await refused(join(parent, "data"), "locked");
        for (let index = 0; index < 10; index++) await storage.commit([{ key: ["a", `${index}`], value }]);
        assert.equal((await storage.read([])).entries.length, 10);
      } finally {
        process.chdir(before);
      }
    }));

  it("is in use by way of a mount", (context) =>
    withRoot(async (parent) => {
      const [directory, mounted] = [join(parent, "data"), join(parent, "mounted")];
      mkdirSync(directory);
      mkdirSync(mounted);
      try {
        execFileSync("mount", ["--bind", directory, mounted], { stdio: "ignore" });
      } catch {
        return context.skip("nothing can be mounted here");
      }
      try {
        await using storage = await openLevel(directory);
        await refused(mounted, "locked");
        await storage.commit([{ key: ["a"], value }]);
      } finally {
        execFileSync("umount", ["-l", mounted]);
      }
    }));

  it("of two that open it at once, one gets it", () =>
    withRoot(async (parent) => {
      const directory = join(parent, "data");
      mkdirSync(directory);
      symlinkSync(directory, join(parent, "link"), "junction");
      const outcomes = await Promise.allSettled([openLevel(directory), openLevel(join(parent, "link"))]);
      const [opened, ...others] = outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
      assert.deepEqual(others, []);
      await opened?.[Symbol.asyncDispose]();
      await using again = await openLevel(join(parent, "link"));
      assert.equal(await again.commit([]), 1n);
    }));

  it("is free again when opening it failed", () =>
    withRoot(async (parent) => {
      const directory = join(parent, "data");
      await (await openLevel(directory))[Symbol.asyncDispose]();
      renameSync(join(directory, "CURRENT"), join(directory, "away"));
      await refused(directory, "storage-damaged");
      await refused(directory, "storage-damaged");
      renameSync(join(directory, "away"), join(directory, "CURRENT"));
      await using storage = await openLevel(directory);
      assert.equal(await storage.commit([]), 1n);
    }));

  it("is not in use where it is a copy of one that is", () =>
    withRoot(async (parent) => {
      await using storage = await openLevel(join(parent, "data"));
      await storage.commit([{ key: ["a"], value }]);
      cpSync(join(parent, "data"), join(parent, "copy"), { recursive: true });
      await using copy = await openLevel(join(parent, "copy"));
      assert.deepEqual((await copy.read([])).entries, (await storage.read([])).entries);
    }));

  it("is not in use by files that a killed process left", () =>
    withRoot(async (directory) => {
      writeFileSync(join(directory, "in-use-1-1"), "");
      // As in a container, where every process has the same number.
      writeFileSync(join(directory, `in-use-${process.pid}-1`), "");
      {
        await using storage = await openLevel(directory);
        await storage.commit([]);
        const marks = readdirSync(directory).filter((name) => name.startsWith("in-use-"));
        assert.equal(marks.length, 1);
        assert.ok(!marks.includes(`in-use-${process.pid}-1`));
      }
      assert.ok(!readdirSync(directory).some((name) => name.startsWith("in-use-")));
    }));
});

describe("level, a directory that cannot be used", () => {
  it("is a file, or lies in one", () =>
    withRoot(async (parent) => {
      const file = join(parent, "file");
      writeFileSync(file, "");
      await refused(file, "storage-failed", file, "is a file");
      await refused(join(file, "data"), "storage-failed", file);
    }));

  it("must not be written", { skip: !posix || root }, () =>
    withRoot(async (parent) => {
      const directory = join(parent, "data");
      mkdirSync(directory);
      chmodSync(directory, 0o500);
      await refused(directory, "storage-failed", directory);
      await refused(join(directory, "below"), "storage-failed", directory);
      chmodSync(directory, 0o700);
    }),
  );

  it("lies on a file system that must not be written", (context) =>
    withRoot(async (parent) => {
      try {
        execFileSync("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", parent], { stdio: "ignore" });
      } catch {
        return context.skip("nothing can be mounted here");
      }
      try {
        await refused(parent, "storage-failed", parent);
        await refused(join(parent, "below"), "storage-failed", parent);
      } finally {
        execFileSync("umount", ["-l", parent]);
      }
    }));

  it("belongs to another user, or a file in it does", { skip: !root }, () =>
    withRoot(async (directory) => {
      await (await openLevel(directory))[Symbol.asyncDispose]();
      chownSync(directory, 12_345, 12_345);
      await refused(directory, "storage-failed", directory, "user 12345", "user 0");
      chownSync(directory, 0, 0);
      chownSync(join(directory, "CURRENT"), 12_345, 12_345);
      await refused(directory, "storage-failed", join(directory, "CURRENT"), "user 12345");
      chownSync(join(directory, "CURRENT"), 0, 0);
      // A file that is not ours may belong to any program.
      writeFileSync(join(directory, "lost+found"), "");
      chownSync(join(directory, "lost+found"), 12_345, 12_345);
      await (await openLevel(directory))[Symbol.asyncDispose]();
    }),
  );
});

describe("level, permissions", { skip: !posix }, () => {
  it("a directory and files that others can read are closed to them, and that is reported", () =>
    withRoot(async (parent) => {
      const directory = join(parent, "data");
      await (await openLevel(directory))[Symbol.asyncDispose]();
      for (const name of readdirSync(directory)) chmodSync(join(directory, name), 0o644);
      chmodSync(directory, 0o755);
      const incidents = new Incidents();
      await using _storage = await openLevel(directory, { incidents });
      assert.equal(modeOf(directory), 0o700);
      assertPrivate(directory);
      assert.equal(incidents.counts().get("storage-directory-open"), 1);
      assert.equal(modeOf(parent), 0o700, "the test's own");
    }));

  it("one that is created again is closed with all that leads to it, and nothing is reported", () =>
    withRoot(async (parent) => {
      const incidents = new Incidents();
      await using _storage = await openLevel(join(parent, "a", "b"), { incidents });
      assert.deepEqual([modeOf(join(parent, "a")), modeOf(join(parent, "a", "b"))], [0o700, 0o700]);
      assertPrivate(join(parent, "a", "b"));
      assert.deepEqual([...incidents.counts()], []);
    }));

  it("a directory above it that all users can write is reported, and /tmp is none", () =>
    withRoot(async (parent) => {
      const above = join(parent, "above");
      mkdirSync(above);
      const reported = async (): Promise<number | undefined> => {
        const incidents = new Incidents();
        await (await openLevel(join(above, "data"), { incidents }))[Symbol.asyncDispose]();
        return incidents.counts().get("storage-parent-open");
      };
      assert.equal(await reported(), undefined);
      chmodSync(above, 0o777);
      assert.equal(await reported(), 1);
      chmodSync(above, 0o1777);
      assert.equal(await reported(), undefined);
    }));

  it("whatever the umask, new logs and tables are closed, too", () =>
    withRoot(async (directory) => {
      const umask = process.umask(0);
      try {
        {
          await using storage = await openLevel(directory, { writeBufferBytes: 65_536 });
          const tables = (): number => readdirSync(directory).filter((name) => name.endsWith(".ldb")).length;
          for (let index = 0; tables() < 3; index++) await storage.commit([{ key: ["a", `${index}`], value }]);
        }
        assertPrivate(directory);
      } finally {
        process.umask(umask);
      }
    }));
});
