// Writes of configuration entries that Consul 1.21.4 took or refused, in the same order; recorded by
// tools/record-config-writes.ts.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { HttpPair } from "../../support/http-pair.js";
import { recordedWrites, type WriteSequence } from "../../support/recorded-writes.js";

describe("writes that decide about discovery chains", () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start();
  });
  after(() => pair[Symbol.asyncDispose]());

  /** Entries that others need go after those. */
  async function clear(): Promise<void> {
    const { configEntries } = pair.a.host;
    for (let entries = configEntries.list(); entries.length > 0; entries = configEntries.list()) {
      for (const { entry } of entries) await configEntries.delete(entry.kind, entry.name).catch(() => undefined);
    }
  }

  async function replay(sequence: WriteSequence): Promise<void> {
    await clear();
    for (const { method, path, body, status, texts } of sequence) {
      const what = `${method} ${path} ${JSON.stringify(body ?? "")} in ${JSON.stringify(sequence.map((one) => one.body))}`;
      const answer = await pair.a.ask(method, path, body === undefined ? {} : { body: JSON.stringify(body) });
      assert.equal(answer.status, status, `${what}: ${answer.text}`);
      assert.ok(texts.includes(answer.text.trimEnd()), `${what}: ${answer.text}`);
    }
  }

  const sequences = recordedWrites();
  it("are recorded by the hundred, taken and refused", () => {
    const writes = sequences.flat();
    assert.ok(writes.length > 500);
    assert.ok(writes.filter(({ status }) => status !== 200).length > 100);
  });
  for (const start of Array.from({ length: Math.ceil(sequences.length / 10) }, (_, index) => index * 10)) {
    it(`are answered as by Consul 1.21.4: sequences from ${start}`, async () => {
      for (const sequence of sequences.slice(start, start + 10)) await replay(sequence);
    });
  }
});
