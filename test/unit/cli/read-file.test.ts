// Pipes, devices, directories and large files in place of small files: reading them ends all the same, and takes no more memory than the limit.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { constants } from "node:fs";
import { mkdir, open, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { readTextFile } from "../../../src/cli/read-file.js";
import { temporaryDirectory } from "../../support/hosts.js";

const LIMITS = { bytes: 100_000, pipeMs: 60_000 };

describe("reading a file", { skip: process.platform === "win32" }, () => {
  let directory: AsyncDisposable & { readonly path: string };
  before(async () => {
    directory = await temporaryDirectory();
  });
  after(() => directory[Symbol.asyncDispose]());
  const file = (name: string): string => join(directory.path, name);
  const pipe = (name: string): string => {
    execFileSync("mkfifo", [file(name)]);
    return file(name);
  };

  it("gives its text, also where it is empty, is a link, or takes several reads", async () => {
    const text = "ä".repeat(49_999);
    await writeFile(file("text"), text);
    await symlink("text", file("link"));
    await writeFile(file("empty"), "");
    assert.equal(await readTextFile(file("text"), LIMITS), text);
    assert.equal(await readTextFile(file("link"), LIMITS), text);
    assert.equal(await readTextFile(file("empty"), LIMITS), "");
    assert.equal(await readTextFile("/dev/null", LIMITS), "");
  });

  it("refuses a larger one before it is read, and what has no end at the limit", async () => {
    await writeFile(file("sparse"), "");
    await truncate(file("sparse"), 2 ** 30);
    for (const path of [file("sparse"), "/dev/zero", "/dev/urandom"]) {
      await assert.rejects(readTextFile(path, LIMITS), {
        message: `${path} is larger than the 100000 bytes that are read of a file`,
      });
    }
    await writeFile(file("fits"), "x".repeat(100_000));
    assert.equal((await readTextFile(file("fits"), LIMITS)).length, 100_000);
  });

  it("refuses a directory, links in a circle, and what is not there", async () => {
    await mkdir(file("directory"));
    await symlink("circle", file("circle"));
    for (const [name, code] of [
      ["directory", "EISDIR"],
      ["circle", "ELOOP"],
      ["nothing", "ENOENT"],
    ] as const) {
      await assert.rejects(readTextFile(file(name), LIMITS), { code });
    }
  });

  it("waits for a pipe only so long, however many are read at the same time, and other files are read meanwhile", async () => {
    const path = pipe("silent");
    await writeFile(file("other"), "other");
    const late = Array.from({ length: 20 }, () => readTextFile(path, { ...LIMITS, pipeMs: 100 }));
    const refused = late.map((each) =>
      assert.rejects(each, { message: `${path} is a pipe that was not written and closed within 100 ms` }),
    );
    assert.equal(await readTextFile(file("other"), LIMITS), "other");
    await Promise.all(refused);
  });

  it("reads a pipe that is written and closed, and refuses one that is written without an end", async () => {
    const path = pipe("written");
    const reading = readTextFile(path, LIMITS);
    const writer = await open(path, constants.O_RDWR);
    await writer.write("first ");
    await writer.write("second");
    await writer.close();
    assert.equal(await reading, "first second");

    const endless = readTextFile(path, { ...LIMITS, bytes: 10 });
    const refused = assert.rejects(endless, { message: `${path} is larger than the 10 bytes that are read of a file` });
    const another = await open(path, constants.O_RDWR);
    await another.write("x".repeat(11));
    await refused;
    await another.close();
  });
});
