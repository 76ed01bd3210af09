import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Answer, decode, encode } from "dns-packet";
import fc from "fast-check";
import { decodeQuery, encodeReply, frameOf, type Reply } from "../../../src/dns/packet.js";
import type { DnsRecord } from "../../../src/dns/records.js";
import { fit, recordLength } from "../../../src/dns/size.js";
import { query } from "./client.js";
import { record } from "./setup.js";

const CLASS_IN = 1;

/** A reply to a question of that name, and what it is made of. */
function reply(name: string, parts: Partial<Reply>, edns?: number): Buffer {
  return encodeReply(questionOf(name, edns), replyOf(parts));
}

function questionOf(name: string, edns?: number): Parameters<typeof encodeReply>[0] {
  const decoded = decodeQuery(query({ name, type: "A", ...(edns !== undefined && { edns }) }));
  if (decoded.type !== "query") throw new TypeError(`${name} is no question`);
  return decoded.query;
}

function replyOf(parts: Partial<Reply>): Reply {
  return {
    code: "NOERROR",
    authoritative: true,
    truncated: false,
    answers: [],
    authorities: [],
    additionals: [],
    ...parts,
  };
}

/** Every pointer in a message: where it stands and where it leads. Read by the rules of RFC 1035 alone. */
function pointersIn(packet: Buffer): readonly { readonly at: number; readonly to: number }[] {
  const pointers: { at: number; to: number }[] = [];
  let at = 12;
  const skipName = (): void => {
    for (;;) {
      const length = packet.readUInt8(at);
      if (length >= 0xc0) {
        pointers.push({ at, to: packet.readUInt16BE(at) & 0x3fff });
        at += 2;
        return;
      }
      at += 1 + length;
      if (length === 0) return;
    }
  };
  for (let left = packet.readUInt16BE(4); left > 0; left--) {
    skipName();
    at += 4;
  }
  const records = [6, 8, 10].reduce((sum, offset) => sum + packet.readUInt16BE(offset), 0);
  for (let left = records; left > 0; left--) {
    skipName();
    const type = packet.readUInt16BE(at);
    const end = at + 10 + packet.readUInt16BE(at + 8);
    at += 10;
    if (type === 33) {
      at += 6;
      const before = pointers.length;
      skipName();
      assert.equal(pointers.length, before, "RFC 2782: the target of SRV is not compressed");
    } else if ([2, 5, 6, 12].includes(type)) {
      skipName();
      if (type === 6) skipName();
    }
    at = end;
  }
  assert.equal(at, packet.length, "nothing stands behind the records");
  return pointers;
}

/** A record as the package that decodes for us encodes it, without compression. */
function viaPackage(records: readonly DnsRecord[]): unknown {
  const answers = records.map((one): Answer => (one.type === "TXT" ? { ...one, data: [...one.data] } : one));
  return decode(encode({ type: "response", id: 0, flags: 0, answers })).answers;
}

describe("compressed names", () => {
  it("are read back as they were, by pointers that lead back, to a place that 14 bits can name", () => {
    const records = fc.array(record, { maxLength: 40 });
    const name = record.map((one) => one.name);
    let compressed = 0;
    fc.assert(
      fc.property(
        name,
        records,
        fc.array(record, { maxLength: 3 }),
        records,
        fc.option(fc.constant(4_096), { nil: undefined }),
        (asked, answers, authorities, additionals, edns) => {
          const packet = reply(asked, { answers, authorities, additionals }, edns);
          const decoded = decode(packet);
          assert.equal(decoded.questions?.[0]?.name, asked);
          assert.deepEqual(decoded.answers, viaPackage(answers));
          assert.deepEqual(decoded.authorities, viaPackage(authorities));
          const [option, ...others] = (decoded.additionals ?? []).toReversed();
          const rest = edns === undefined ? decoded.additionals : others.toReversed();
          assert.deepEqual(rest, viaPackage(additionals));
          if (edns !== undefined) assert.equal(option?.type, "OPT");
          for (const { at, to } of pointersIn(packet)) {
            assert.ok(to < at && to >= 12, `the pointer at ${at} leads to ${to}`);
            compressed++;
          }
        },
      ),
      { numRuns: 500 },
    );
    assert.ok(compressed > 1_000, `${compressed} pointers`);
  });

  it("take the bytes that were foreseen when the answer was cut", () => {
    const records = fc.array(record, { maxLength: 40 });
    fc.assert(
      fc.property(
        record,
        records,
        records,
        fc.integer({ min: 512, max: 4_096 }),
        ({ name }, answers, additionals, bytes) => {
          const question = questionOf(name, bytes);
          const answer = replyOf({ answers, additionals });
          const whole = encodeReply(question, answer).length;
          const limits = { bytes, bytesWithoutOption: bytes, answers: 1_000, plainWhenCut: false, ours: false };
          const fitted = fit(answer, frameOf(question), limits);
          const packet = encodeReply(question, { ...answer, ...fitted });
          assert.ok(packet.length <= bytes, `${packet.length} of ${bytes}`);
          // Whatever fits is left as it is.
          assert.equal(fitted.answers === answers && fitted.additionals === additionals, whole <= bytes);
          // And no answer is left out that there was room for.
          const next = answers[fitted.answers.length];
          if (next !== undefined) assert.ok(packet.length + recordLength(next) + uncompressed(additionals) > bytes);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("does not point where 14 bits do not reach", () => {
    const answers = Array.from(
      { length: 1_000 },
      (_, index): DnsRecord => ({
        type: "SRV",
        name: "web.service.consul",
        ttl: 0,
        data: { priority: 1, weight: 1, port: 80, target: `n${index}.node.dc1.consul` },
      }),
    );
    const additionals = answers.map(
      (_, index): DnsRecord => ({
        type: "A",
        name: `n${index}.node.dc1.consul`,
        ttl: 0,
        data: "10.0.0.1",
      }),
    );
    const packet = reply("web.service.consul", { answers, additionals });
    assert.ok(packet.length > 0x4000);
    const pointers = pointersIn(packet);
    assert.equal(pointers.length, 2_000);
    assert.deepEqual(decode(packet).additionals, viaPackage(additionals));
    // Names beyond that are written out down to the part that is in reach.
    assert.ok(pointers.some(({ at, to }) => at > 0x4000 && to < 0x4000));
  });

  it("keeps the asker's capitals, and compares byte for byte", () => {
    const answers: DnsRecord[] = [
      { type: "A", name: "WEB.service.consul", ttl: 0, data: "10.0.0.1" },
      { type: "A", name: "web.service.consul", ttl: 0, data: "10.0.0.2" },
    ];
    const packet = reply("WEB.service.consul", { answers });
    assert.deepEqual(
      decode(packet).answers?.map(({ name }) => name),
      ["WEB.service.consul", "web.service.consul"],
    );
    const [first, second] = pointersIn(packet);
    assert.equal(first?.to, 12);
    assert.equal(second?.to, 12 + 4);
  });

  it("refuses a record that cannot be written, rather than write something else", () => {
    const long = "a".repeat(64);
    const wrong: readonly DnsRecord[] = [
      { type: "A", name: `${long}.consul`, ttl: 0, data: "10.0.0.1" },
      { type: "CNAME", name: "web.consul", ttl: 0, data: `${long}.example` },
      { type: "TXT", name: "web.consul", ttl: 0, data: ["x".repeat(256)] },
    ];
    for (const one of wrong) assert.throws(() => reply("web.consul", { answers: [one] }), RangeError);
  });

  it("answers questions about the root", () => {
    const packet = reply(".", { code: "REFUSED" });
    assert.deepEqual([packet.readUInt16BE(4), packet.length], [CLASS_IN, 12 + 5]);
  });
});

function uncompressed(records: readonly DnsRecord[]): number {
  return records.reduce((sum, one) => sum + recordLength(one), 0);
}
