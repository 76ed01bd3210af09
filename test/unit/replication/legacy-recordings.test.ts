import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import type { SessionOutput } from "../../../src/replication/types.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { ImportStore } from "../../../src/stores/import-store.js";
import { decodeMessage, encodeMessage } from "../../../src/wire/codec.js";
import { ExportedServiceSchema } from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import type { ReplicationMessage, ResponseMessage } from "../../../src/wire/messages.js";
import { Operation } from "../../../src/wire/messages.js";
import { decodeTrustBundle } from "../../../src/wire/resources.js";
import { readGolden } from "../../golden/read.js";
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
  open,
  optionsOf,
  response,
  roots,
  SA,
  sent,
  service,
  subscription,
  TB,
} from "./driver.js";

type Event = { readonly i: number } & (
  | { readonly raw: string }
  | { readonly sameAs: string }
  | { readonly end: "half-close" }
  | { readonly end: "status"; readonly code: number; readonly message: string }
);

/** One stream as Consul 1.13.8 said its part of it to the recorder. */
interface RecordedStream {
  readonly origin: string;
  /** The role that our session takes over. */
  readonly recorder: "acceptor" | "dialer";
  readonly events: readonly Event[];
}

const streams: readonly RecordedStream[] = readGolden("legacy/1.13.8.jsonl")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line));

const bytesAt = new Map<string, Uint8Array>();
for (const { origin, events } of streams) {
  for (const event of events) {
    const bytes =
      "raw" in event ? Buffer.from(event.raw, "base64") : bytesAt.get("sameAs" in event ? event.sameAs : "");
    if (bytes !== undefined) bytesAt.set(`${origin}#${event.i}`, bytes);
  }
}

function messageAt(place: string): ReplicationMessage {
  const bytes = bytesAt.get(place);
  assert.ok(bytes, `${place} is recorded`);
  return decodeMessage(bytes);
}

function messageOf(origin: string, event: Event): ReplicationMessage | undefined {
  return "end" in event ? undefined : messageAt(`${origin}#${event.i}`);
}

/** Our session in the recorder's place, with imports that are really stored. */
class Replay {
  readonly driver: Driver;
  readonly outputs: SessionOutput[] = [];
  readonly #imports: ImportStore;
  /** By service: how many instances the recording says there are. */
  readonly #expected = new Map<string, number>();

  constructor(role: "acceptor" | "dialer", imports: ImportStore) {
    this.driver = new Driver(role);
    this.#imports = imports;
    // Exports wait until the peer subscribes.
    this.outputs.push(
      ...this.driver.feed({ type: "start" }, exported(list("ours"), service("ours"), roots(), addresses())),
    );
  }

  async say(message: ReplicationMessage): Promise<void> {
    // The recorder also sent what no peer sends, and asked for what we have no use for.
    if (message.type === "request" && ![ES, TB, SA].includes(message.resourceUrl)) return;
    if (message.type === "response" && message.resourceUrl === SA && this.driver.role === "acceptor") return;
    let outputs = this.driver.receive(message);
    if (outputs.some(({ type }) => type === "authorize")) {
      outputs = [...outputs, ...this.driver.feed({ type: "authorized" })];
    }
    this.outputs.push(...outputs);
    if (message.type !== "response") return;
    const [apply] = appliesOf(outputs);
    assert.ok(apply, "every response of a real 1.13 is to be applied");
    await this.#apply(message, apply.resource.value);
    const answers = this.driver.feed({ type: "applied", results: [{ id: apply.id }] });
    assert.deepEqual(sent(answers), [ack(message.resourceUrl, "")], "1.13 sends no nonces");
    this.outputs.push(...answers);
  }

  async #apply(message: ResponseMessage, value: Uint8Array): Promise<void> {
    const { resourceUrl, resourceId: name, operation, resource } = message;
    assert.equal(message.nonce, "");
    if (resourceUrl === TB) {
      assert.ok(decodeTrustBundle(value).rootPems.length > 0);
      return;
    }
    assert.equal(resourceUrl, ES);
    assert.equal(operation === Operation.Delete, resource === undefined);
    const nodes = resource === undefined ? [] : fromBinary(ExportedServiceSchema, resource.value).Nodes;
    if (nodes.length === 0) this.#expected.delete(name);
    else this.#expected.set(name, nodes.length);
    const { results } = await this.#imports.apply("peer", [{ type: "service", name, value }]);
    assert.deepEqual(results, [undefined]);
    const stored = this.#imports.services("peer").map((one) => [one.name, one.instances] as const);
    assert.deepEqual(new Map(stored), this.#expected);
  }
}

describe("recorded streams of Consul 1.13.8", () => {
  const counts = { streams: 0, responses: 0, deletions: 0 };

  for (const { origin, recorder, events } of streams) {
    it(`${origin}#${events[0]?.i}, we are the ${recorder} (ch1 cases 112, 113 and 116)`, async () => {
      const imports = await ImportStore.open(memoryStorage());
      const replay = new Replay(recorder, imports);
      let asked = 0;
      for (const event of events) {
        const message = messageOf(origin, event);
        if (message === undefined) continue;
        await replay.say(message);
        if (message.type === "request" && message.responseNonce === "") asked++;
        if (message.type === "response") {
          counts.responses++;
          if (message.operation === Operation.Delete) counts.deletions++;
        }
        if (message.type === "terminated") {
          assert.equal(replay.driver.status.phase, "draining");
          assert.ok(replay.outputs.some(({ type }) => type === "peer-terminated"));
        } else {
          assert.equal(closeOf(replay.outputs), undefined);
        }
      }
      const said = sent(replay.outputs);
      const urls = said.flatMap((message) => ("resourceUrl" in message ? [message.resourceUrl] : []));
      assert.ok(!urls.includes(EL), "a list would end the stream");
      // A stream that was refused, or ended by something we never do, may not have come to its subscriptions.
      if (asked >= 3) {
        counts.streams++;
        assert.equal(replay.driver.status.dialect, "legacy");
        assert.deepEqual([...replay.driver.status.subscriptions], [ES, TB, SA]);
        const own = said.flatMap((message) => (message.type === "response" ? [message.resourceUrl] : []));
        assert.deepEqual(new Set(own), new Set(recorder === "acceptor" ? [TB, SA, ES] : [TB, ES]));
      }
      await imports[Symbol.asyncDispose]();
    });
  }

  it("there was something to replay", () => {
    assert.deepEqual(counts, { streams: 69, responses: 225, deletions: 50 });
  });
});

describe("our frames beside those of Consul 1.13.8", () => {
  it("our DELETE is byte for byte its DELETE, but for the nonce (ch1 case 114)", () => {
    const driver = new Driver("acceptor");
    const { remote: _, ...bare } = open();
    driver.feed({ type: "start" });
    driver.receive(bare);
    driver.feed({ type: "authorized" });
    driver.receive(subscription(ES));
    driver.feed(exported(service("web")));
    const [removal] = sent(driver.feed({ type: "withdrawn", resourceIds: ["web"] }));
    assert.equal(removal?.type, "response");
    const bytes = encodeMessage(removal?.type === "response" ? { ...removal, nonce: "" } : { type: "unknown" });
    assert.deepEqual(Buffer.from(bytes), bytesAt.get("1.13.8/acceptor-export#80"));
  });

  /** A message that 1.13 received, and the line of its answer. */
  const refused: readonly (readonly [string, ResponseMessage, number])[] = [
    ["an unknown URL", response("x", { resourceUrl: "type.googleapis.com/nope.Nope" }), 22],
    ["no URL", response("x", { resourceUrl: "" }), 25],
    ["an UPSERT without a resource", without(response("x")), 31],
    ["no operation", response("x", { operation: 0 }), 34],
    ["operation 99", response("x", { operation: 99 }), 40],
    ["another type inside", response("x", { resource: { typeUrl: TB, value: new Uint8Array(0) } }), 43],
  ];
  for (const [what, message, line] of refused) {
    it(`we refuse ${what} of a 1.13 as it does`, () => {
      const driver = new Driver("dialer", optionsOf("dialer"));
      driver.feed({ type: "start" });
      driver.receive(subscription(ES), subscription(TB), subscription(SA));
      const [answer] = sent(driver.receive(message));
      const recorded = messageAt(`1.13.8/dialer-bad-responses#${line}`);
      assert.deepEqual(errorOf(answer), errorOf(recorded));
      assert.notEqual(errorOf(answer), undefined);
    });
  }
});

function errorOf(message: ReplicationMessage | undefined): unknown {
  return message?.type === "request" ? message.error : undefined;
}

function without({ resource: _, ...message }: ResponseMessage): ResponseMessage {
  return message;
}
