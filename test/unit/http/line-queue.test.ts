import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { LineQueue } from "../../../src/http/line-queue.js";

async function all(queue: LineQueue): Promise<string> {
  let text = "";
  for await (const chunk of queue) text += chunk;
  return text;
}

describe("lines for one reader", () => {
  it("come in their order, then the end", async () => {
    const queue = new LineQueue(10, () => assert.fail("there is room"));
    const read = all(queue);
    queue.push("a\n");
    queue.push("b\n");
    await Promise.resolve();
    queue.push("c\n");
    queue.end();
    queue.push("d\n");
    assert.equal(await read, "a\nb\nc\n");
  });

  it("are left out when so many wait, which is told once until there is room again, also where telling is a line", async () => {
    let told = 0;
    const queue = new LineQueue(2, () => {
      told++;
      queue.push("left out\n");
    });
    for (const line of ["a\n", "b\n", "c\n", "d\n"]) queue.push(line);
    assert.equal(told, 1);
    const iterator = queue[Symbol.asyncIterator]();
    assert.equal((await iterator.next()).value, "a\nb\n");
    for (const line of ["e\n", "f\n", "g\n"]) queue.push(line);
    assert.equal(told, 2);
    queue.end();
    assert.equal((await iterator.next()).value, "e\nf\n");
    assert.equal((await iterator.next()).done, true);
  });
});
