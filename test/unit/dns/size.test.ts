import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Answer, encodingLength, type Packet } from "dns-packet";
import fc from "fast-check";
import type { DnsRecord } from "../../../src/dns/records.js";
import { emptyAnswer } from "../../../src/dns/records.js";
import { fit, recordLength, sizeLimits } from "../../../src/dns/size.js";

const label = fc.stringMatching(/^[a-z0-9é-]{1,12}$/);
const name = fc.array(label, { minLength: 1, maxLength: 5 }).map((labels) => labels.join("."));
const base = { name, ttl: fc.nat() };
const record: fc.Arbitrary<DnsRecord> = fc.oneof(
  fc.record({ ...base, type: fc.constant("A" as const), data: fc.ipV4() }),
  fc.record({ ...base, type: fc.constant("AAAA" as const), data: fc.constant("fd00::1") }),
  fc.record({ ...base, type: fc.constantFrom("CNAME" as const, "NS" as const, "PTR" as const), data: name }),
  fc.record({
    ...base,
    type: fc.constant("SRV" as const),
    data: fc.record({ priority: fc.constant(1), weight: fc.constant(1), port: fc.nat(65_535), target: name }),
  }),
  fc.record({
    ...base,
    type: fc.constant("TXT" as const),
    data: fc.array(fc.string({ maxLength: 60 }), { minLength: 1, maxLength: 3 }),
  }),
);

function wire(records: readonly DnsRecord[]): number {
  const answers: Answer[] = records.map((one) => (one.type === "TXT" ? { ...one, data: [...one.data] } : one));
  const packet: Packet = { type: "response", questions: [], answers, authorities: [], additionals: [] };
  return encodingLength(packet) - 12;
}

describe("sizes", () => {
  it("of records are what they take on the wire", () => {
    fc.assert(fc.property(record, (one) => assert.equal(recordLength(one), wire([one]))));
  });

  it("are kept, whatever an answer holds, and what is left answers first", () => {
    const records = fc.array(record, { maxLength: 30 });
    fc.assert(
      fc.property(
        records,
        fc.array(record, { maxLength: 2 }),
        records,
        fc.integer({ min: 20, max: 280 }),
        fc.integer({ min: 504, max: 4_096 }),
        fc.integer({ min: 1, max: 40 }),
        (answers, authorities, additionals, otherBytes, bytes, most) => {
          const answer = { ...emptyAnswer("NOERROR", true), answers, authorities, additionals };
          const fitted = fit(answer, otherBytes, { bytes, answers: most });
          const kept = [...fitted.answers, ...fitted.authorities, ...fitted.additionals];
          assert.ok(otherBytes + wire(kept) <= bytes);
          assert.ok(fitted.answers.length <= most);
          assert.deepEqual(fitted.answers, answers.slice(0, fitted.answers.length));
          const total = answers.length + authorities.length + additionals.length;
          assert.equal(fitted.cut, kept.length < total || fitted.hopeless);
          if (answers.length > 0) assert.equal(fitted.hopeless, fitted.answers.length === 0);
        },
      ),
    );
  });

  it("authorities go first, then answers from the end, and additionals only with the answers they serve", () => {
    const srv = (index: number): DnsRecord => ({
      type: "SRV",
      name: "web",
      ttl: 0,
      data: { priority: 1, weight: 1, port: 80, target: `n${index}` },
    });
    const address = (index: number): DnsRecord => ({ type: "A", name: `N${index}`, ttl: 0, data: "10.0.0.1" });
    const soa: DnsRecord = { type: "NS", name: "consul", ttl: 0, data: "ns.consul" };
    const answer = {
      ...emptyAnswer("NOERROR", true),
      answers: [srv(0), srv(1), srv(2)],
      authorities: [soa],
      additionals: [address(0), address(1), address(2)],
    };
    const whole = wire([...answer.answers, ...answer.additionals]);
    const first = fit(answer, 0, { bytes: whole, answers: 10 });
    assert.deepEqual([first.answers.length, first.authorities.length, first.additionals.length], [3, 0, 3]);
    const second = fit(answer, 0, { bytes: whole - 1, answers: 10 });
    assert.deepEqual(
      [second.answers, second.additionals],
      [answer.answers.slice(0, 2), answer.additionals.slice(0, 2)],
    );
    const one = fit(answer, 0, { bytes: wire([srv(0)]), answers: 10 });
    assert.deepEqual([one.answers.length, one.additionals.length, one.hopeless], [1, 0, false]);
    assert.equal(fit(answer, 0, { bytes: 10, answers: 10 }).hopeless, true);
  });

  it("follow Consul's limits for each transport", () => {
    const request = { transport: "udp", questionType: "A", ednsBytes: undefined, udpAnswerLimit: 3 } as const;
    assert.deepEqual(sizeLimits(request), { bytes: 512, answers: 3 });
    assert.deepEqual(sizeLimits({ ...request, udpAnswerLimit: 100 }), { bytes: 512, answers: 8 });
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 1_232 }), { bytes: 1_224, answers: 4_096 });
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 0 }), { bytes: 504, answers: 4_096 });
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 65_535 }), { bytes: 65_459, answers: 4_096 });
    assert.deepEqual(sizeLimits({ ...request, transport: "tcp", questionType: "SRV" }), {
      bytes: 65_523,
      answers: 1_024,
    });
  });
});
