import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { ReplicationSession } from "../../../src/replication/session.js";
import { redactMessage } from "../../../src/replication/trace.js";
import type { AppliedResult, ReceivedResource, SessionInput, SessionOutput } from "../../../src/replication/types.js";
import type { ReplicationMessage } from "../../../src/wire/messages.js";
import {
  ack,
  bytes,
  EL,
  ES,
  list,
  nack,
  open,
  optionsOf,
  roots,
  SA,
  SECRET,
  service,
  subscription,
  TB,
} from "./driver.js";

const names = ["a", "b", "c", "d", "e"] as const;

/** A host of the simplest kind around one session: exports, imports, and a pipe to the other side. */
class Side {
  readonly session: ReplicationSession;
  readonly exports = new Map<string, string>();
  readonly imports = new Map<string, string>();
  importedNames: readonly string[] = [];
  importedRoots = "";
  /** Sent and not delivered yet. */
  readonly pipe: (ReplicationMessage | "end")[] = [];
  readonly toApply: { readonly id: number; readonly resource: ReceivedResource }[] = [];
  readonly sentNonces: string[] = [];
  readonly answeredNonces: string[] = [];
  readonly trace: ReplicationMessage[] = [];
  now = 0;
  mute = false;
  peerTerminated = false;
  close: Extract<SessionOutput, { type: "close" }> | undefined;

  constructor(readonly role: "acceptor" | "dialer") {
    this.session = new ReplicationSession(optionsOf(role));
  }

  feed(input: SessionInput): void {
    const before = this.close;
    for (const output of this.session.handle(input, this.now)) {
      assert.equal(before, undefined, "nothing comes out of a closed session");
      assert.equal(this.close, undefined, "close is the last output");
      this.#perform(output);
    }
    const { status } = this.session;
    assert.ok(status.queuedResources <= names.length + 2, "what waits is bounded by the resources");
    assert.ok(status.unacknowledged <= names.length + 2);
    assert.equal(status.applying, status.phase === "connected" ? this.toApply.length : 0);
    assert.equal(this.session.deadlineMs === undefined, this.close !== undefined);
  }

  #perform(output: SessionOutput): void {
    switch (output.type) {
      case "send":
        assert.equal(this.mute, false, "nothing is sent after a half-close");
        this.trace.push(redactMessage(output.message));
        this.pipe.push(output.message);
        if (output.message.type === "response") this.sentNonces.push(output.message.nonce);
        if (output.message.type === "request" && output.message.responseNonce !== "") {
          this.answeredNonces.push(output.message.responseNonce);
        }
        break;
      case "authorize":
        this.toAuthorize = true;
        break;
      case "apply":
        this.toApply.push(output);
        break;
      case "peer-terminated":
        assert.equal(this.peerTerminated, false);
        this.peerTerminated = true;
        break;
      case "half-close":
        assert.equal(this.role, "dialer");
        this.mute = true;
        this.pipe.push("end");
        break;
      case "close":
        this.close = output;
        if (!this.mute) this.pipe.push("end");
        this.mute = true;
        break;
      case "held-back":
        assert.fail("nothing is too large here");
    }
  }

  toAuthorize = false;

  export(name: string, content: string): void {
    this.exports.set(name, content);
    this.#exported([service(name, content)]);
  }

  withdraw(name: string): void {
    this.exports.delete(name);
    this.feed({ type: "withdrawn", resourceIds: [name] });
    this.#exported([]);
  }

  exportRoots(content: string): void {
    this.feed({ type: "exported", resources: [roots(content)] });
  }

  #exported(services: readonly ReturnType<typeof service>[]): void {
    this.feed({ type: "exported", resources: [list(...[...this.exports.keys()].sort()), ...services] });
  }

  deliver(to: Side, count: number): void {
    const messages: ReplicationMessage[] = [];
    while (this.pipe.length > 0 && messages.length < count) {
      const next = this.pipe.shift();
      if (next === "end") {
        if (messages.length > 0) to.feed({ type: "received", messages });
        to.feed({ type: "receive-ended" });
        return;
      }
      if (next !== undefined) messages.push(next);
    }
    if (messages.length > 0) to.feed({ type: "received", messages });
  }

  /** Applies the first `count`, in order; a payload that begins with `bad` is refused. */
  apply(count: number): void {
    const results: AppliedResult[] = [];
    for (const { id, resource } of this.toApply.splice(0, count)) {
      const content = new TextDecoder().decode(resource.value);
      if (content.startsWith("bad")) {
        results.push({ id, error: new PeeringError("invalid-message", `refused: ${content}`) });
        continue;
      }
      if (resource.resourceUrl === ES) this.imports.set(resource.resourceId, content);
      if (resource.resourceUrl === TB) this.importedRoots = content;
      if (resource.resourceUrl === EL) {
        this.importedNames = content === "" ? [] : content.split(",");
        for (const name of [...this.imports.keys()]) {
          if (!this.importedNames.includes(name)) this.imports.delete(name);
        }
      }
      results.push({ id });
    }
    this.feed({ type: "applied", results });
  }
}

type Step =
  | { readonly type: "export"; readonly side: number; readonly name: string; readonly content: string }
  | { readonly type: "withdraw"; readonly side: number; readonly name: string }
  | { readonly type: "roots"; readonly side: number; readonly content: string }
  | { readonly type: "writable"; readonly side: number; readonly bytes: number }
  | { readonly type: "deliver"; readonly side: number; readonly count: number }
  | { readonly type: "apply"; readonly side: number; readonly count: number }
  | { readonly type: "authorize" }
  | { readonly type: "pass"; readonly ms: number };

const side = fc.nat(1);
const content = fc.constantFrom("1", "2", "3", "bad1", "bad2");
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ type: fc.constant("export"), side, name: fc.constantFrom(...names), content }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("withdraw"), side, name: fc.constantFrom(...names) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("roots"), side, content: fc.constantFrom("r1", "r2") }) },
  {
    weight: 6,
    arbitrary: fc.record({ type: fc.constant("writable"), side, bytes: fc.constantFrom(1, 201, 900, 1e6) }),
  },
  { weight: 8, arbitrary: fc.record({ type: fc.constant("deliver"), side, count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 5, arbitrary: fc.record({ type: fc.constant("apply"), side, count: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("authorize") }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("pass"), ms: fc.constantFrom(1, 5_000, 16_000) }) },
) as fc.Arbitrary<Step>;

function pair(): readonly [Side, Side] {
  const sides = [new Side("dialer"), new Side("acceptor")] as const;
  for (const each of sides) each.feed({ type: "start" });
  return sides;
}

function take(sides: readonly [Side, Side], action: Step): void {
  const [dialer, acceptor] = sides;
  const of = (index: number): Side => (index === 0 ? dialer : acceptor);
  switch (action.type) {
    case "export":
      of(action.side).export(action.name, action.content);
      break;
    case "withdraw":
      of(action.side).withdraw(action.name);
      break;
    case "roots":
      of(action.side).exportRoots(action.content);
      break;
    case "writable":
      of(action.side).feed({ type: "writable", bytes: action.bytes });
      break;
    case "deliver":
      of(action.side).deliver(of(1 - action.side), action.count);
      break;
    case "apply":
      of(action.side).apply(action.count);
      break;
    case "authorize":
      if (acceptor.toAuthorize) {
        acceptor.toAuthorize = false;
        acceptor.feed({ type: "authorized" });
      }
      break;
    case "pass":
      for (const each of sides) {
        each.now += action.ms;
        each.feed({ type: "tick" });
      }
  }
}

/** Lets everything flow until nothing is left to do. */
function settle(sides: readonly [Side, Side]): void {
  const busy = (each: Side): boolean => each.session.wantsToSend || each.pipe.length > 0 || each.toApply.length > 0;
  take(sides, { type: "authorize" });
  for (let round = 0; sides.some(busy); round++) {
    assert.ok(round < 10_000, "it comes to rest");
    for (const index of [0, 1]) {
      if (sides[index]?.session.wantsToSend) take(sides, { type: "writable", side: index, bytes: 500 });
      take(sides, { type: "deliver", side: index, count: 3 });
      take(sides, { type: "authorize" });
      take(sides, { type: "apply", side: index, count: 2 });
    }
  }
}

test("two sessions over any interleaving end with equal tables, one answer each, and growing nonces", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.nat(1), (steps, stopping) => {
      const sides = pair();
      let passed = 0;
      for (const action of steps) {
        // Longer than this without delivery is another property: the heartbeat timeout.
        if (action.type === "pass") {
          if (passed + action.ms > 100_000) continue;
          passed += action.ms;
        }
        take(sides, action);
      }
      settle(sides);
      const [dialer, acceptor] = sides;
      for (const [exporter, importer] of [
        [dialer, acceptor],
        [acceptor, dialer],
      ] as const) {
        assert.equal(exporter.close, undefined);
        assert.equal(exporter.session.status.phase, "connected");
        assert.equal(exporter.session.status.unacknowledged, 0);
        const known = [...exporter.exports.keys()].sort();
        assert.deepEqual(importer.importedNames, known);
        const wanted = [...exporter.exports].filter(([, value]) => !value.startsWith("bad")).sort();
        const refused = [...exporter.exports].filter(([, value]) => value.startsWith("bad"));
        const taken = [...importer.imports].filter(([name]) => wanted.some(([other]) => other === name)).sort();
        assert.deepEqual(taken, wanted);
        assert.deepEqual(
          [...exporter.session.status.refusedByPeer.keys()].sort(),
          refused.map(([name]) => name).sort(),
        );
        for (const name of importer.imports.keys()) assert.ok(exporter.exports.has(name));
        assert.deepEqual(exporter.sentNonces, [...new Set(exporter.sentNonces)].sort());
        assert.deepEqual([...importer.answeredNonces].sort(), exporter.sentNonces, "one answer for each response");
        assert.ok(!inspect([exporter.trace, exporter.session], { depth: 9, showHidden: true }).includes(SECRET));
        assert.ok(!JSON.stringify([exporter.trace, exporter.session.status]).includes(SECRET));
      }
      const stopper = stopping === 0 ? dialer : acceptor;
      const other = stopping === 0 ? acceptor : dialer;
      stopper.feed({ type: "stop" });
      settle(sides);
      assert.deepEqual([stopper.peerTerminated, other.peerTerminated], [false, true]);
      for (const each of sides) {
        assert.deepEqual(each.close, { type: "close", status: { code: 0, message: "" } });
      }
    }),
    { numRuns: 1_000 },
  );
});

const url = fc.constantFrom(ES, EL, TB, SA, "nomad.Job", "");
const nonce = fc.constantFrom("", "00000001", "00000002", "x");
const anyMessage: fc.Arbitrary<ReplicationMessage> = fc.oneof(
  fc.constantFrom<ReplicationMessage>({ type: "heartbeat" }, { type: "unknown" }, open(), open({ peerId: "" })),
  { weight: 1, arbitrary: fc.constant<ReplicationMessage>({ type: "terminated" }) },
  { weight: 6, arbitrary: url.map((value) => subscription(value)) },
  { weight: 3, arbitrary: fc.tuple(url, nonce).map(([value, number]) => ack(value, number)) },
  { weight: 2, arbitrary: fc.tuple(url, nonce, fc.string()).map(([value, number, text]) => nack(value, number, text)) },
  {
    weight: 6,
    arbitrary: fc.tuple(url, url, nonce, fc.string(), fc.integer({ min: -1, max: 3 }), fc.boolean()).map(
      ([resourceUrl, typeUrl, number, resourceId, operation, present]): ReplicationMessage => ({
        type: "response",
        nonce: number,
        resourceUrl,
        resourceId,
        operation,
        ...(present ? { resource: { typeUrl, value: bytes(resourceId) } } : {}),
      }),
    ),
  },
);
const failure = fc.constantFrom(
  undefined,
  new PeeringError("invalid-message", "bad"),
  new PeeringError("storage-failed", "disk full"),
);
const anyInput: fc.Arbitrary<SessionInput> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.array(anyMessage, { maxLength: 5 }).map((messages): SessionInput => ({ type: "received", messages })),
  },
  {
    weight: 4,
    arbitrary: fc
      .tuple(fc.integer({ min: 0, max: 8 }), failure)
      .map(
        ([id, error]): SessionInput => ({ type: "applied", results: [error === undefined ? { id } : { id, error }] }),
      ),
  },
  {
    weight: 4,
    arbitrary: fc.constantFrom<SessionInput>(
      { type: "writable", bytes: 500 },
      { type: "exported", resources: [service("a"), list("a"), roots()] },
      { type: "withdrawn", resourceIds: ["a", "b"] },
      { type: "tick" },
      { type: "authorized" },
      { type: "start" },
    ),
  },
  fc.constantFrom<SessionInput>(
    { type: "leadership", leader: false, leaderAddress: "x" },
    { type: "leadership", leader: true, leaderAddress: "x" },
    { type: "receive-ended" },
    { type: "receive-ended", error: new PeeringError("unavailable", "reset") },
    { type: "undecodable", error: new PeeringError("invalid-message", "no message") },
    { type: "refused", status: { code: 7, message: "no" }, terminated: true },
    { type: "stop" },
    { type: "abort", status: { code: 14, message: "replaced" } },
  ),
);

test("whatever a peer and a host say, a session never throws, closes once, and then is silent", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("acceptor" as const, "dialer" as const),
      fc.array(fc.tuple(anyInput, fc.constantFrom(0, 1, 15_000, 60_000)), { maxLength: 60 }),
      (role, inputs) => {
        const session = new ReplicationSession(optionsOf(role));
        let now = 0;
        let closed = false;
        let halfClosed = false;
        let responses = 0;
        let answers = 0;
        for (const [input, ms] of [[{ type: "start" }, 0] as const, ...inputs]) {
          now += ms;
          for (const output of session.handle(input, now)) {
            assert.equal(closed, false);
            if (output.type === "close") closed = true;
            if (output.type === "half-close") halfClosed = true;
            if (output.type !== "send") continue;
            assert.equal(halfClosed, false);
            const { message } = output;
            if (message.type === "request" && message.error === undefined && message.responseNonce === "") continue;
            if (message.type === "request") answers += 1;
          }
          if (input.type === "received") {
            responses += input.messages.filter((message) => message.type === "response").length;
          }
          assert.ok(answers <= responses);
          assert.equal(session.status.phase === "closed", closed);
          assert.equal(session.deadlineMs === undefined, closed);
          if (closed) assert.equal(session.wantsToSend, false);
          assert.ok(!inspect(session, { depth: 5, showHidden: true }).includes(SECRET));
        }
      },
    ),
    { numRuns: 1_000 },
  );
});
