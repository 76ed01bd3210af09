import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemClock } from "../../../src/base/environment.js";
import { defaultReceiveLimits, type LinkEffect, StreamLink } from "../../../src/host/stream-link.js";
import { ReplicationSession } from "../../../src/replication/session.js";
import type { ReplicationStream } from "../../../src/transport/transport.js";
import { encodeMessages } from "../../../src/wire/codec.js";
import type { ReplicationMessage } from "../../../src/wire/messages.js";
import { eventually } from "../../support/hosts.js";
import { upsert } from "../../support/messages.js";

/** A stream that gives its batches one after another, counts how often it was asked, and swallows what is sent. */
class Batches implements ReplicationStream {
  readonly remoteAddress = "peer:1";
  taken = 0;
  readonly #batches: (readonly Uint8Array[])[];
  #end = (): void => {};

  constructor(batches: readonly (readonly ReplicationMessage[])[]) {
    this.#batches = batches.map(encodeMessages);
  }

  async receive(): Promise<readonly Uint8Array[] | undefined> {
    const batch = this.#batches[this.taken++];
    if (batch !== undefined) return batch;
    await new Promise<void>((resolve) => {
      this.#end = resolve;
    });
    return undefined;
  }

  async send(): Promise<void> {}
  async halfClose(): Promise<void> {}
  async close(): Promise<void> {
    this.#end();
  }
}

/** In which turn of the event loop, counted from the first one that applies anything. */
type Apply = Extract<LinkEffect, { readonly type: "apply" }> & { readonly turn: number };

function linked(
  batches: readonly (readonly ReplicationMessage[])[],
  limits: Partial<typeof defaultReceiveLimits>,
): { readonly stream: Batches; readonly link: StreamLink; readonly applies: Apply[] } {
  const stream = new Batches(batches);
  const applies: Apply[] = [];
  let turn = 0;
  let counted = false;
  const link = new StreamLink({
    stream,
    clock: systemClock,
    limits: { ...defaultReceiveLimits, ...limits },
    session: new ReplicationSession({
      role: "dialer",
      remoteId: "id",
      streamSecretId: "secret",
      remote: { partition: "", datacenter: "dc1" },
      maxSendBytes: 1_000,
    }),
    perform: (effect) => {
      if (effect.type !== "apply") return;
      applies.push({ ...effect, turn });
      if (counted) return;
      counted = true;
      setImmediate(() => {
        counted = false;
        turn++;
      });
    },
  });
  void link.run();
  return { stream, link, applies };
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
}

describe("the reader of a stream", () => {
  const service = (index: number): ReplicationMessage => upsert(index, `s${index}`, Buffer.alloc(100));
  const batch = (first: number): readonly ReplicationMessage[] =>
    [0, 1, 2, 3, 4].map((index) => service(first + index));
  const batches = [batch(1), batch(6), batch(11), batch(16)];

  for (const [name, limits] of [
    ["resources", { unstoredResources: 8 }],
    ["bytes", { unstoredBytes: 8 * 330 }],
  ] as const) {
    it(`waits while too many ${name} are not stored, and goes on when half of them are`, async () => {
      const { stream, link, applies } = linked(batches, limits);
      await settled();
      assert.equal(stream.taken, 2);
      assert.equal(applies.length, 10);
      link.feed({ type: "applied", results: applies.slice(0, 5).map(({ id }) => ({ id })) });
      await settled();
      assert.equal(stream.taken, 2);
      link.feed({ type: "applied", results: applies.slice(5, 6).map(({ id }) => ({ id })) });
      await settled();
      assert.equal(stream.taken, 3);
      link.feed({ type: "abort", status: { code: 14, message: "over" } });
      await link.ended;
    });
  }

  it("lets go when the stream ends while it waits", async () => {
    const { link } = linked(batches, { unstoredResources: 3 });
    await settled();
    link.feed({ type: "stop" });
    link.feed({ type: "abort", status: { code: 14, message: "over" } });
    await link.ended;
  });

  it("lets others have a turn within a batch, and leaves nothing out", async () => {
    const many = Array.from({ length: 5_000 }, (_, index) => service(index));
    const { link, applies } = linked([many], {});
    await eventually(() => applies.length === many.length, "all arrived");
    link.feed({ type: "abort", status: { code: 14, message: "over" } });
    await link.ended;
    assert.deepEqual(
      applies.map(({ turn }) => turn),
      many.map((_, index) => Math.floor(index / 150)),
    );
    assert.deepEqual(
      applies.map(({ resource }) => resource.resourceId),
      many.map((_, index) => `s${index}`),
    );
  });
});
