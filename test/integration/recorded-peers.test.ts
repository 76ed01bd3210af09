// The messages of a recorded peer to a real Consul are sent to our host, by a fake peer over the memory transport: our answers
// must mean what Consul's meant. Where ours is to differ, the deviation is named.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../src/host/host.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { type FakePeer, type FakePeerScript, type FakeStream, fakePeer } from "../../src/testing/fake-peer/index.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import type { ReplicationMessage, RequestMessage, ResponseMessage } from "../../src/wire/messages.js";
import { StatusCode } from "../../src/wire/status.js";
import {
  type Exchange,
  type ExchangeEvent,
  RECORDED_VERSIONS,
  type RecordedVersion,
  Recordings,
} from "../golden/exchanges.js";

const recordings = new Recordings();

/** Scenarios whose course hangs on what the recorder says alone, and not on calls of Consul's API in between. */
const SCENARIOS = [
  "dialer-bad-responses",
  "dialer-errors",
  "dialer-fatal-responses",
  "dialer-import",
  "dialer-partial-subscriptions",
  "acceptor-bad-requests",
  "acceptor-import",
] as const;

const NOT_READ =
  /^13 upsert error, .* did not increment imported services count for service="x": failed to read payload: /;
const NO_ROOTS = /^13 upsert error, .*: trust bundle without a usable root certificate$/;

interface Deviation {
  readonly why: string;
  readonly ours: RegExp;
  readonly versions?: readonly RecordedVersion[];
}

/** Answers of our host that differ from Consul's, by the recorder's attempt. */
const DEVIATIONS: Readonly<Record<string, Deviation>> = {
  "empty node name": { why: "D-30: Consul panics", ours: NOT_READ },
  "no service id": { why: "D-30: Consul panics", ours: NOT_READ },
  "instance without node": { why: "D-30: Consul panics", ours: NOT_READ },
  "instance without service": { why: "D-30: Consul panics", ours: NOT_READ },
  "empty service name": { why: "D-30: named otherwise than its resource", ours: NOT_READ },
  "resource bytes are not the message": {
    why: "the words are those of another protobuf library",
    ours: /^13 upsert error, .*: failed to unmarshal resource: /,
  },
  "bad node id": { why: "values are stored as they come (D-30)", ours: /^ack$/ },
  "check for another service id": { why: "values are stored as they come (D-30)", ours: /^ack$/ },
  "connect-proxy without a Proxy block": { why: "taken from Consul 1.18 on", ours: /^ack$/, versions: ["1.15.4"] },
  "trust bundle without trust domain; with text that is not PEM": { why: "D-23", ours: NO_ROOTS },
  "trust bundle with two roots, then an empty one; server addresses sent to an acceptor": {
    why: "D-23",
    ours: NO_ROOTS,
  },
  "empty server addresses": { why: "D-32", ours: /: Cannot switch peering dialing mode from true to false$/ },
  "a new stream with the same secret": { why: "D-1: Consul's panic has left its tracker connected", ours: /^goes on$/ },
  "empty resource URL": {
    why: "a text that ends in a space does not survive Node's HTTP/2",
    ours: /^3 subscription request to unknown resource URL: $/,
  },
};

/** `ack`, code and text of a NACK, code and text of the end of the stream, or `goes on`. */
type Answer = string;

const GOES_ON = "goes on";
const PANIC = "grpc: panic serving request";

function answerOf({ error }: RequestMessage): Answer {
  return error === undefined ? "ack" : `${error.code} ${error.message}`;
}

/** A subscription answers nothing. */
function isAnswer({ responseNonce, error }: RequestMessage): boolean {
  return responseNonce !== "" || error !== undefined;
}

/** Consul's answer to the response at `index`; undefined where the stream ended instead. */
function recordedAnswer(
  { events }: Exchange,
  index: number,
  { nonce, resourceUrl }: ResponseMessage,
): Answer | undefined {
  let earlier = 0;
  let answers = 0;
  for (const [at, event] of events.entries()) {
    const message = recordings.message(event);
    if (event.from === "recorder") {
      // A nonce may be used twice: the answers come in the order of what they answer.
      const same = message?.type === "response" && message.nonce === nonce && message.resourceUrl === resourceUrl;
      if (same && at < index) earlier++;
    } else if (message?.type === "request" && isAnswer(message)) {
      if (message.responseNonce !== nonce || message.resourceUrl !== resourceUrl) continue;
      if (answers === earlier) return answerOf(message);
      answers++;
    }
  }
  return undefined;
}

type StatusEnd = ExchangeEvent & { readonly end: "status" };

function isStatus(event: ExchangeEvent): event is StatusEnd {
  return event.from === "consul" && event.end === "status";
}

/** Ids differ from run to run. */
function withoutIds(text: string): string {
  return text.replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<id>");
}

/**
 * The recorder's messages, with the ids of this run: of a stream that Consul took, all of them; of one whose secret it
 * refused, that of the peering; else none.
 */
function inThisRun(message: ReplicationMessage, exchange: Exchange, peer: FakePeer): ReplicationMessage {
  if (exchange.recorder === "acceptor" || (message.type !== "open" && message.type !== "request")) return message;
  const own = peer.openMessage();
  if (message.type === "request") return message.peerId === "" ? message : { ...message, peerId: own.peerId };
  const taken = exchange.events.some(
    (event) => event.from === "consul" && recordings.message(event)?.type === "request",
  );
  const { peerId, streamSecretId } = own;
  if (taken) return { ...message, peerId, streamSecretId };
  const end = exchange.events.find(isStatus);
  if (end?.code === StatusCode.PermissionDenied) return { ...message, peerId };
  // The first stream was there still, and only that.
  return end?.message.startsWith("failed to register stream") === true
    ? { ...message, peerId, streamSecretId }
    : message;
}

interface Outcome {
  readonly about: string;
  readonly i: number;
  readonly consul: Answer;
  readonly ours: Answer;
}

/** Plays what the recorder said in an exchange, and notes both answers to each part of it. */
function recorderScript(exchange: Exchange, outcomes: Outcome[]): FakePeerScript {
  return async (stream, peer) => {
    const { events, recorder } = exchange;
    if (recorder === "acceptor") await stream.expect("open");
    stream.markOpened();
    const end = events.find(isStatus);
    for (const [index, event] of events.entries()) {
      const message = recordings.message(event);
      if (event.from !== "recorder" || message === undefined) continue;
      if (!(await stream.send(inThisRun(message, exchange, peer)))) break;
      if (message.type !== "response") continue;
      const consul = recordedAnswer(exchange, index, message);
      if (consul === undefined && end?.message !== PANIC) continue;
      const { about, i } = event;
      outcomes.push({ about, i, consul: consul ?? PANIC, ours: await answerTo(stream, message) });
    }
    const last = events.findLast(({ from }) => from === "recorder");
    if (last?.end === "half-close" && end !== undefined) await stream.finish();
    // A panic is told above; and what we dialed and ended has no status.
    if (end?.message === PANIC || recorder === "acceptor") return;
    const ours = await endOf(stream, end !== undefined);
    const consul = end === undefined ? GOES_ON : `${end.code} ${end.message}`;
    outcomes.push({ about: end?.about ?? last?.about ?? "", i: end?.i ?? last?.i ?? 0, consul, ours });
  };
}

async function answerTo(stream: FakeStream, { resourceUrl, nonce }: ResponseMessage): Promise<Answer> {
  for await (const message of stream) {
    if (message.type !== "request" || !isAnswer(message)) continue;
    if (message.resourceUrl === resourceUrl && message.responseNonce === nonce) return answerOf(message);
  }
  return endOf(stream, true);
}

/** How our host ended the stream. Nothing in the way of that takes more than a few turns of the loop. */
async function endOf(stream: FakeStream, expected: boolean): Promise<Answer> {
  for (let turn = 0; turn < (expected ? 200 : 20) && stream.end === undefined; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (stream.end === undefined) return GOES_ON;
  const { error } = stream.end;
  return error === undefined ? "0 " : `${error.status} ${error.message}`;
}

async function play(exchange: Exchange): Promise<readonly Outcome[]> {
  const network = memoryNetwork();
  const outcomes: Outcome[] = [];
  await using host = await createHost({
    storage: memoryStorage(),
    transport: network.transport({ listen: "host:1" }),
  });
  await host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "plain", port: 80 } });
  await host.exports.set({ services: [{ name: "*", consumers: [{ peer: "recorder" }] }] });
  let played: () => void = () => {};
  const over = new Promise<void>((resolve) => {
    played = resolve;
  });
  const script = recorderScript(exchange, outcomes);
  await using peer = await fakePeer({
    transport: network.transport({ listen: "recorder:1" }),
    script: (stream, self) => script(stream, self).finally(played),
  });
  if (exchange.recorder === "acceptor") await host.peerings.establish({ peerName: "recorder", token: peer.token() });
  else await peer.establish(await host.peerings.generateToken({ peerName: "recorder" }));
  await over;
  return outcomes;
}

for (const version of RECORDED_VERSIONS) {
  describe(`messages recorded with Consul ${version}, sent to our host`, () => {
    let compared = 0;
    const deviated = new Set<string>();
    for (const scenario of SCENARIOS) {
      for (const exchange of recordings.exchanges(version, scenario)) {
        const [first] = exchange.events;
        // Of the recorder's messages to other versions than the base often the meaning alone was kept, without nonces.
        if (version !== "1.21.4" && first?.about === "first subscription carries a nonce") continue;
        it(`${scenario}#${first?.i}: ${first?.about}`, async () => {
          for (const { about, i, consul, ours } of await play(exchange)) {
            compared++;
            const deviation = DEVIATIONS[about];
            if (withoutIds(ours) === withoutIds(consul)) continue;
            assert.ok(deviation !== undefined, `#${i}, ${about}: Consul "${consul}", we "${ours}"`);
            assert.match(ours, deviation.ours, `#${i}, ${about}, where Consul answers "${consul}"`);
            deviated.add(about);
          }
        });
      }
    }

    it("compared much, and every deviation is one still", () => {
      assert.ok(compared > 60, `${compared} answers compared`);
      const expected = Object.entries(DEVIATIONS).filter(([, { versions }]) => versions?.includes(version) ?? true);
      assert.deepEqual([...deviated].sort(), expected.map(([about]) => about).sort());
    });
  });
}
