import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Answer, encodingLength, type Packet } from "dns-packet";
import fc from "fast-check";
import type { DnsRecord } from "../../../src/dns/records.js";
import { emptyAnswer } from "../../../src/dns/records.js";
import { fit, recordLength, type SizeLimits, sizeLimits } from "../../../src/dns/size.js";
import { record } from "./setup.js";

function wire(records: readonly DnsRecord[]): number {
  const answers: Answer[] = records.map((one) => (one.type === "TXT" ? { ...one, data: [...one.data] } : one));
  const packet: Packet = { type: "response", questions: [], answers, authorities: [], additionals: [] };
  return encodingLength(packet) - 12;
}

describe("sizes", () => {
  it("of records are those on the wire", () => {
    fc.assert(fc.property(record, (one) => assert.equal(recordLength(one), wire([one]))));
  });

  it("are kept, whatever an answer holds, with the first answers", () => {
    const records = fc.array(record, { maxLength: 30 });
    fc.assert(
      fc.property(
        records,
        fc.array(record, { maxLength: 2 }),
        records,
        fc.integer({ min: 20, max: 280 }),
        fc.integer({ min: 504, max: 4_096 }),
        fc.integer({ min: 1, max: 40 }),
        (answers, authorities, additionals, questionBytes, bytes, most) => {
          const answer = { ...emptyAnswer("NOERROR", true), answers, authorities, additionals };
          const frame = { name: "", headerBytes: 12, questionBytes, optionBytes: 11 };
          const fitted = fit(answer, frame, limitsOf(bytes, most));
          const kept = [...fitted.answers, ...fitted.authorities, ...fitted.additionals];
          assert.ok(fitted.answers.length <= most);
          assert.deepEqual(fitted.answers, answers.slice(0, fitted.answers.length));
          const all = [...answers, ...authorities, ...additionals];
          const lost = fitted.answers.length < answers.length ? "answers" : "others";
          assert.equal(fitted.missing, kept.length === all.length && fitted.missing === "nothing" ? "nothing" : lost);
          // Nothing that is no answer is why one is missing.
          if (lost === "answers") assert.deepEqual(fitted.authorities, []);
          for (const each of kept) assert.ok(all.includes(each));
          if (answers.length > 0) assert.equal(fitted.hopeless, fitted.answers.length === 0);
        },
      ),
    );
  });

  const srv = (index: number): DnsRecord => ({
    type: "SRV",
    name: "web",
    ttl: 0,
    data: { priority: 1, weight: 1, port: 80, target: `n${index}` },
  });
  const address = (index: number): DnsRecord => ({ type: "A", name: `N${index}`, ttl: 0, data: "10.0.0.1" });
  const meta = (index: number): DnsRecord => ({ type: "TXT", name: `n${index}`, ttl: 0, data: ["rack=r1"] });
  const soa: DnsRecord = { type: "NS", name: "consul", ttl: 0, data: "ns.consul" };
  const answer = {
    ...emptyAnswer("NOERROR", true),
    answers: [srv(0), srv(1), srv(2)],
    authorities: [soa],
    additionals: [address(0), meta(0), address(1), meta(1), address(2), meta(2)],
  };
  const frame = { name: "web", headerBytes: 12, questionBytes: 9, optionBytes: 11 };
  /** Of header, question, OPT record, and so many answers with an address each. */
  const withAnswers = (count: number): number => 32 + count * (2 + 10 + 6 + 4 + (4 + 10 + 4));

  it("give up authorities and metadata first, then answers from the end, and addresses only with the answers they serve", () => {
    const whole = fit(answer, frame, limitsOf(4_096));
    assert.deepEqual([whole.answers.length, whole.authorities.length, whole.additionals.length], [3, 1, 6]);
    const first = fit(answer, frame, limitsOf(withAnswers(3)));
    assert.deepEqual(first.answers, answer.answers);
    assert.deepEqual([first.authorities, first.missing], [[], "others"]);
    assert.deepEqual(first.additionals, [address(0), address(1), address(2)]);
    const second = fit(answer, frame, limitsOf(withAnswers(3) - 1));
    assert.deepEqual([second.answers, second.missing], [answer.answers.slice(0, 2), "answers"]);
    assert.deepEqual(second.additionals, [address(0), address(1)]);
    const one = fit(answer, frame, limitsOf(withAnswers(1) - 1));
    assert.deepEqual([one.answers.length, one.additionals.length, one.hopeless], [1, 0, false]);
    assert.equal(fit(answer, frame, limitsOf(40)).hopeless, true);
  });

  it("leave as many answers as are allowed, though there is room for more", () => {
    const fitted = fit(answer, frame, limitsOf(4_096, 2));
    assert.deepEqual([fitted.answers.length, fitted.additionals.length, fitted.missing], [2, 2, "answers"]);
  });

  it("are those of names that are not compressed, where an asker without EDNS has its answer cut", () => {
    const long = "a-name-of-a-service-that-is-rather-long-as-names-of-services-go.service.consul";
    const answers = Array.from(
      { length: 8 },
      (_, index): DnsRecord => ({ type: "A", name: long, ttl: 0, data: `10.0.0.${index}` }),
    );
    const asked = { name: long, headerBytes: 12, questionBytes: long.length + 6, optionBytes: 0 };
    const request = { transport: "udp", questionType: "A", ednsBytes: undefined, maxUdpBytes: 1_232 } as const;
    const all = fit({ ...answer, answers, additionals: [] }, asked, sizeLimits({ ...request, udpAnswerLimit: 8 }));
    assert.equal(all.answers.length, 8);
    const few = fit({ ...answer, answers, additionals: [] }, asked, sizeLimits({ ...request, udpAnswerLimit: 7 }));
    assert.equal(few.answers.length, 4);
  });

  it("lose only as many additional records as needed where there is no answer", () => {
    const negative = { ...answer, answers: [], additionals: [address(0), meta(0)] };
    const fitted = fit(negative, frame, limitsOf(32 + recordLength(address(0))));
    assert.deepEqual([fitted.additionals, fitted.missing, fitted.hopeless], [[address(0)], "others", false]);
  });

  it("follow Consul's limits for each transport, and our own over UDP", () => {
    const request = {
      transport: "udp",
      questionType: "A",
      ednsBytes: undefined,
      udpAnswerLimit: 3,
      maxUdpBytes: 65_467,
    } as const;
    const least = { bytes: 512, bytesWithoutOption: 504, answers: 3, plainWhenCut: true, ours: false };
    const more = { answers: 4_096, plainWhenCut: false, ours: false };
    assert.deepEqual(sizeLimits(request), least);
    assert.deepEqual(sizeLimits({ ...request, udpAnswerLimit: 100 }), { ...least, answers: 8 });
    // Who can take no more than without EDNS is answered as without.
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 0 }), least);
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 512 }), least);
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 1_232 }), {
      ...more,
      bytes: 1_232,
      bytesWithoutOption: 1_224,
    });
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 65_535 }), {
      ...more,
      bytes: 65_467,
      bytesWithoutOption: 65_459,
    });
    const ours = { bytes: 1_232, bytesWithoutOption: 1_224, answers: 4_096, plainWhenCut: false, ours: true };
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 1_233, maxUdpBytes: 1_232 }), ours);
    assert.deepEqual(sizeLimits({ ...request, ednsBytes: 1_232, maxUdpBytes: 1_232 }), { ...ours, ours: false });
    const tcp = { bytes: 65_523, bytesWithoutOption: 65_523, answers: 1_024, plainWhenCut: false, ours: false };
    assert.deepEqual(sizeLimits({ ...request, transport: "tcp", questionType: "SRV", maxUdpBytes: 512 }), tcp);
  });
});

function limitsOf(bytes: number, answers = 1_000): SizeLimits {
  return { bytes, bytesWithoutOption: bytes, answers, plainWhenCut: false, ours: false };
}
