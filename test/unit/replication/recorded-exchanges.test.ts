// Real Consuls drive our session: what they sent to the recorder is said to a session in the recorder's place.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import type { SessionOutput } from "../../../src/replication/types.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { ImportStore } from "../../../src/stores/import-store.js";
import type { ReplicationMessage, RequestMessage, ResponseMessage } from "../../../src/wire/messages.js";
import { Operation } from "../../../src/wire/messages.js";
import { decodeExportedServiceList, decodeServerAddresses, decodeTrustBundle } from "../../../src/wire/resources.js";
import { type Exchange, type ExchangeEvent, RECORDED_VERSIONS, Recordings } from "../../golden/exchanges.js";
import {
  ack,
  addresses,
  appliesOf,
  closeOf,
  Driver,
  EL,
  ES,
  exported,
  list,
  PEER_ID,
  roots,
  SA,
  sent,
  service,
  subscription,
  TB,
} from "./driver.js";

const recordings = new Recordings();

/** Our session in the recorder's place, with imports that are really stored. */
class Replay {
  readonly driver: Driver;
  readonly outputs: SessionOutput[] = [];
  readonly #imports: ImportStore;
  #peerId: string = PEER_ID;

  constructor(role: "acceptor" | "dialer", imports: ImportStore) {
    this.driver = new Driver(role);
    this.#imports = imports;
    this.outputs.push(...this.driver.feed({ type: "start" }));
    // Exports wait until the peer subscribes.
    this.outputs.push(...this.driver.feed(exported(list("ours"), service("ours"), roots(), addresses())));
  }

  get closed(): Extract<SessionOutput, { type: "close" }> | undefined {
    return closeOf(this.outputs);
  }

  async say(message: ReplicationMessage): Promise<void> {
    // The recorder also sent what we never send; answers to that do not concern us.
    if (message.type === "request" && isAnswer(message) && !this.#isSent(message.resourceUrl)) return;
    if (message.type === "open") this.#peerId = message.peerId;
    let outputs = this.driver.receive(message);
    if (outputs.some(({ type }) => type === "authorize")) {
      outputs = [...outputs, ...this.driver.feed({ type: "authorized" })];
      // An acceptor subscribes to these, in this order, and names nobody.
      assert.deepEqual(sent(outputs), [subscription(ES), subscription(EL), subscription(TB)]);
    }
    this.outputs.push(...outputs);
    if (message.type === "response") await this.#answer(message, outputs);
    else if (message.type === "request" && message.responseNonce === "" && this.driver.role === "acceptor") {
      assert.equal(message.peerId, this.#peerId, "Consul's dialer names the peering in each subscription");
    }
  }

  async #answer(message: ResponseMessage, outputs: readonly SessionOutput[]): Promise<void> {
    const { resourceUrl, nonce, operation } = message;
    assert.equal(operation, Operation.Upsert);
    assert.match(nonce, /^[0-9a-f]{8}$/);
    const [apply] = appliesOf(outputs);
    assert.ok(apply, "every response of a real Consul is to be applied");
    assert.deepEqual(sent(outputs), [], "and not answered before it is");
    await this.#apply(message, apply.resource.value);
    const answers = this.driver.feed({ type: "applied", results: [{ id: apply.id }] });
    assert.deepEqual(sent(answers), [ack(resourceUrl, nonce)]);
    this.outputs.push(...answers);
  }

  async #apply({ resourceUrl, resourceId: name }: ResponseMessage, value: Uint8Array): Promise<void> {
    if (resourceUrl === TB) assert.ok(decodeTrustBundle(value).rootPems.length > 0);
    else if (resourceUrl === SA) assert.ok(decodeServerAddresses(value).length > 0);
    else {
      const item =
        resourceUrl === EL
          ? ({ type: "list", names: decodeExportedServiceList(value) } as const)
          : ({ type: "service", name, value } as const);
      const { results } = await this.#imports.apply("peer", [item]);
      assert.deepEqual(results, [undefined]);
    }
  }

  #isSent(resourceUrl: string): boolean {
    return [ES, EL, TB].includes(resourceUrl) || (resourceUrl === SA && this.driver.role === "acceptor");
  }

  end(event: ExchangeEvent & { readonly end: string }): void {
    const error =
      event.end === "status" && event.code !== 0
        ? new PeeringError("closed", event.message, { status: event.code })
        : undefined;
    this.outputs.push(...this.driver.feed({ type: "receive-ended", ...(error === undefined ? {} : { error }) }));
  }
}

function isAnswer({ responseNonce, error }: RequestMessage): boolean {
  return responseNonce !== "" || error !== undefined;
}

/** gRPC's names of the codes that Consul ended streams with. */
const codeNames: Readonly<Record<number, string>> = {
  2: "Unknown",
  3: "InvalidArgument",
  7: "PermissionDenied",
  9: "FailedPrecondition",
  10: "Aborted",
  13: "Internal",
  14: "Unavailable",
};

function checkEnd(replay: Replay, event: ExchangeEvent & { readonly end: string }, terminated: boolean): void {
  const { closed } = replay;
  assert.ok(closed, "the stream is over");
  if (terminated) assert.equal(closed.error, undefined, "a graceful end");
  else if (event.end === "status" && event.code !== 0) {
    const text = `rpc error: code = ${codeNames[event.code]} desc = ${event.message}`;
    assert.equal(closed.error?.message, `unexpected error receiving from the stream: ${text}`);
    assert.equal(closed.error?.status, event.code);
  } else {
    const begun = replay.driver.role === "dialer" || replay.driver.status.connectedAtMs !== undefined;
    assert.equal(closed.error?.message, begun ? "stream ended unexpectedly" : "EOF");
  }
}

for (const version of RECORDED_VERSIONS) {
  describe(`recorded streams of Consul ${version}`, () => {
    const counts = { streams: 0, responses: 0, subscriptions: 0, terminations: 0, ends: 0 };

    for (const exchange of recordings.exchanges(version)) {
      if (exchange.events.every(({ from }) => from === "recorder")) continue;
      const { origin, recorder, events } = exchange;
      const [first] = events;
      it(`${origin}#${first?.i}, we are the ${recorder}: ${first?.about}`, async () => {
        const imports = await ImportStore.open(memoryStorage());
        const replay = new Replay(recorder, imports);
        await play(replay, exchange, counts);
        await imports[Symbol.asyncDispose]();
      });
    }

    it("there was something to replay", () => {
      assert.ok(counts.streams > 20 && counts.responses > 280 && counts.ends > 50, JSON.stringify(counts));
    });
  });
}

async function play(replay: Replay, { recorder, events }: Exchange, counts: Record<string, number>): Promise<void> {
  const count = (what: string): void => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  const asked: string[] = [];
  let terminated = false;
  for (const event of events) {
    if (event.from === "recorder") continue;
    if (event.end !== undefined) {
      replay.end(event);
      checkEnd(replay, event, terminated);
      count("ends");
      return;
    }
    const message = recordings.message(event);
    assert.ok(message, `#${event.i} is kept`);
    assert.equal(replay.closed, undefined, `open at #${event.i}`);
    await replay.say(message);
    if (message.type === "response") count("responses");
    if (message.type === "request" && message.responseNonce === "" && message.error === undefined) {
      asked.push(message.resourceUrl);
      count("subscriptions");
    }
    if (message.type === "terminated") {
      terminated = true;
      count("terminations");
      assert.equal(replay.driver.status.phase, "draining");
      assert.ok(replay.outputs.some(({ type }) => type === "peer-terminated"));
      const halfClosed = replay.outputs.some(({ type }) => type === "half-close");
      assert.equal(halfClosed, recorder === "dialer", "a dialer half-closes at once");
    }
  }
  if (asked.length < 3) return;
  count("streams");
  const all = recorder === "acceptor" ? [ES, EL, TB, SA] : [ES, EL, TB];
  assert.deepEqual(asked, all, "what Consul subscribes to, in its order");
  assert.deepEqual([replay.driver.status.dialect, [...replay.driver.status.subscriptions]], ["modern", all]);
  const said = sent(replay.outputs);
  const subscribed = said.flatMap((one) =>
    one.type === "request" && one.responseNonce === "" ? [one.resourceUrl] : [],
  );
  // A dialer holds back the list until the acceptor has shown that it knows it (D-50).
  assert.deepEqual(subscribed, recorder === "acceptor" ? [ES, EL, TB] : [ES, TB, SA, EL]);
  const given = said.flatMap((one) => (one.type === "response" ? [one.resourceUrl] : []));
  assert.deepEqual([...given].sort(), (recorder === "acceptor" ? [ES, EL, TB, SA] : [ES, EL, TB]).toSorted());
}
