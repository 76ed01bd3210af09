import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ChangeLog } from "../../../src/storage/change-log.js";
import { encodeKey } from "../../../src/storage/key-encoding.js";
import type { StorageChanges } from "../../../src/storage/storage.js";

const never = new AbortController().signal;

function write(name: string, bytes: number): Parameters<ChangeLog["add"]>[1][number] {
  const key = ["a", name];
  return { key, value: new Uint8Array(bytes), encoded: encodeKey(key) };
}

const LARGE = 5 * 1024 * 1024;

describe("the log of changes", () => {
  const told = async (changes: AsyncGenerator<StorageChanges, void>): Promise<string> => {
    const { value } = await changes.next();
    return value?.type === "changed" ? value.entries.map(({ key }) => key.join("/")).join() : (value?.type ?? "end");
  };

  it("keeps a commit that is over its bounds for the readers that wait, and for nobody else", async () => {
    const log = new ChangeLog(0n);
    const [first, second] = [log.changes(["a"], 0n, never), log.changes(["a"], 0n, never)];
    const [one, two] = [told(first), told(second)];
    log.add(1n, [write("large", LARGE)]);
    assert.equal(await one, "a/large");
    assert.equal(await two, "a/large");
    assert.equal(await told(log.changes(["a"], 0n, never)), "reset", "it is not kept any more");
    const next = told(first);
    log.add(2n, [write("small", 1)]);
    assert.equal(await next, "a/small");
    assert.equal(await told(log.changes(["a"], 1n, never)), "a/small", "within the bounds, late readers are told");
  });

  it("has a reader that falls behind read everything again, and one that does not, never", async () => {
    const log = new ChangeLog(0n);
    const slow = log.changes(["a"], 0n, never);
    const quick = log.changes(["a"], 0n, never);
    let waiting = told(quick);
    for (let index = 1; index <= 10_000; index++) {
      log.add(BigInt(index), [write(`k${index}`, 10)]);
      if (index % 100 !== 0) continue;
      assert.match(await waiting, /^a\/k/);
      waiting = told(quick);
    }
    assert.equal(await told(slow), "reset");
  });
});
