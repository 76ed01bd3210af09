import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { ApplyQueue, type QueuedUpdate } from "../../../src/host/apply-queue.js";
import type { AppliedResult, ReceivedResource } from "../../../src/replication/types.js";

function resource(resourceId: string, byte: number): ReceivedResource {
  return { resourceUrl: "type", resourceId, value: Uint8Array.of(byte) };
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

test("a batch has so many resources, however small they are", async () => {
  const batches: number[] = [];
  const done: AppliedResult[] = [];
  const queue = new ApplyQueue({
    clock: systemClock,
    apply: async (items) => {
      batches.push(items.length);
      return items.map(() => undefined);
    },
    done: (results) => done.push(...results),
    batchResources: 3,
  });
  for (let id = 0; id < 8; id++) queue.add(id, { ...resource(`r${id}`, 0), value: new Uint8Array(0) });
  while (done.length < 8) await turns();
  assert.deepEqual(batches, [3, 3, 2]);
  assert.deepEqual(
    done.map(({ id }) => id),
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
});

test("what arrives while a batch is applied is the next one, and the newest speaks for what it supersedes", async () => {
  const batches: (readonly QueuedUpdate[])[] = [];
  const done: AppliedResult[] = [];
  let release = (): void => {};
  const queue = new ApplyQueue({
    clock: systemClock,
    apply: async (items) => {
      batches.push(items);
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return items.map(() => undefined);
    },
    done: (results) => done.push(...results),
  });
  queue.add(1, resource("a", 1));
  await turns();
  assert.equal(batches.length, 1);
  queue.add(2, resource("a", 2));
  queue.add(3, resource("b", 3));
  queue.add(4, resource("a", 4));
  release();
  await turns();
  assert.deepEqual(
    batches[1]?.map(({ resource: { value }, ids }) => ({ value: value[0], ids })),
    [
      { value: 3, ids: [3] },
      { value: 4, ids: [2, 4] },
    ],
  );
  release();
  await turns();
  assert.deepEqual(done, [{ id: 1 }, { id: 3 }, { id: 2 }, { id: 4 }]);
});

test("a storage that fails is asked three times, with growing waits; a refusal is final", async () => {
  const waits: number[] = [];
  const clock = {
    ...systemClock,
    after: (delayMs: number, action: () => void) => {
      waits.push(delayMs);
      queueMicrotask(action);
      return { cancel: () => {} };
    },
  };
  for (const [code, attempts] of [
    ["storage-failed", 3],
    ["unavailable", 3],
    ["conflict", 1],
  ] as const) {
    let made = 0;
    const done: AppliedResult[] = [];
    const queue = new ApplyQueue({
      clock,
      apply: async () => {
        made++;
        throw new PeeringError(code, "no");
      },
      done: (results) => done.push(...results),
    });
    waits.length = 0;
    queue.add(1, resource("a", 1));
    for (let turn = 0; turn < 20; turn++) await turns();
    assert.deepEqual([made, done.map(({ id, error }) => [id, error?.code])], [attempts, [[1, code]]]);
    assert.deepEqual(waits, [100, 200].slice(0, attempts - 1));
  }
});

test("a queue that is closed during a wait attempts nothing again, answers nothing, and leaves no timer", async () => {
  let [timers, made] = [0, 0];
  const clock = {
    ...systemClock,
    after: () => {
      timers++;
      return { cancel: () => timers-- };
    },
  };
  const queue = new ApplyQueue({
    clock,
    apply: async () => {
      made++;
      throw new PeeringError("storage-failed", "the disk is full");
    },
    done: () => assert.fail("a closed queue answers nothing"),
  });
  queue.add(1, resource("a", 1));
  await turns();
  assert.deepEqual([made, timers], [1, 1]);
  queue.close();
  await turns();
  assert.deepEqual([made, timers], [1, 0]);
});
