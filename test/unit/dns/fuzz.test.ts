import assert from "node:assert/strict";
import { connect } from "node:net";
import { describe, it } from "node:test";
import { decode } from "dns-packet";
import { dnsServer } from "../../../src/dns/index.js";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { SeededRandom } from "../../../src/testing/simulator/scheduler.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { exchange, framed, placeOf, query, readAnswer } from "./client.js";
import { instance, originOf, responderOf, sourceOf } from "./setup.js";

const PACKETS = 100_000;
const CONNECTIONS = 500;
/** Addresses of beta's, which nobody may see who did not ask for beta. */
const BETA = "10.66.66.66";

describe("malformed packets", () => {
  it(`${PACKETS} random and mutated ones: no crash, no answer over its limit, nothing of another peer`, async () => {
    const random = new SeededRandom(20_261_122);
    const responder = responderOf(
      sourceOf({
        instances: {
          "": [instance({ service: { name: "web" }, node: { meta: { rack: "r1" } } })],
          alpha: Array.from({ length: 5 }, (_, index) =>
            instance({ node: { name: `a${index}`, address: `10.1.0.${index}` }, service: { name: "web" } }),
          ),
          beta: [instance({ node: { name: "b1", address: BETA }, service: { name: "secret", address: BETA } })],
        },
      }),
      { bareLabelIsPeer: true },
    );
    const seeds = [
      query({ name: "web.service.alpha.peer.consul", type: "SRV" }),
      query({ name: "web.service.alpha.peer.consul", type: "A", edns: 1_232 }),
      query({ name: "a1.node.alpha.consul", type: "ANY" }),
      query({ name: "_web._tcp.alpha.peer.consul", type: "SRV", edns: 65_535 }),
      query({ name: "0a000001.addr.consul", type: "A" }),
      query({ name: "1.0.0.10.in-addr.arpa", type: "PTR" }),
      query({ name: "consul", type: "SOA", edns: 0 }),
      withSubnet(query({ name: "web.service.consul", type: "A", edns: 4_096 })),
    ];
    const secret = Buffer.from(BETA.split(".").map(Number));
    let answered = 0;
    for (let index = 0; index < PACKETS; index++) {
      const packet = index % 4 === 0 ? Buffer.from(random.bytes(random.below(600))) : mutated(random, seeds);
      const transport = index % 2 === 0 ? "udp" : "tcp";
      const reply = await responder.respond(packet, originOf(transport));
      if (reply === undefined) continue;
      answered++;
      // Spelled out only when it is wanted: there are many.
      const check = (holds: boolean): void => {
        if (!holds) assert.fail(`packet ${packet.toString("hex")} over ${transport}: ${reply.toString("hex")}`);
      };
      check(reply.readUInt16BE(0) === packet.readUInt16BE(0));
      check((reply.readUInt16BE(2) & 0x8000) !== 0);
      check(reply.length <= (transport === "tcp" ? 65_535 : udpLimit(packet)));
      // Whatever was asked, what is answered can be read.
      const code = reply.readUInt16BE(2) & 15;
      if (code !== 1 && reply.length > 12) decode(reply);
      if (reply.includes(secret)) check(/beta|0a424242/i.test(packet.toString("latin1")));
    }
    assert.ok(answered > PACKETS / 10, "hardly anything was taken for a question");
  });
});

describe("malformed TCP streams", { timeout: 60_000 }, () => {
  it(`${CONNECTIONS} with frames that are cut, too long, too short or not theirs: answers are whole, and the next is served`, async () => {
    const random = new SeededRandom(20_261_123);
    await using host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport() });
    const source = sourceOf({ instances: { "": [instance({ service: { name: "web" } })] } });
    await using server = await dnsServer(host, { listen: "127.0.0.1:0", source });
    const question = query({ name: "web.service.consul", type: "A" }, 7);
    for (let index = 0; index < CONNECTIONS; index++) {
      const frames = Array.from({ length: 1 + random.below(4) }, () => {
        const packet = random.below(3) === 0 ? mutated(random, [question]) : question;
        const frame = framed(packet);
        // A length that is not that of what follows.
        if (random.below(4) === 0) frame.writeUInt16BE(random.below(65_536), 0);
        return frame;
      });
      const bytes = Buffer.concat(frames);
      const received = await answeredTo(server.address, bytes.subarray(0, 1 + random.below(bytes.length)));
      for (let rest = received; rest.length > 0; ) {
        const length = rest.length < 2 ? Number.POSITIVE_INFINITY : rest.readUInt16BE(0);
        assert.ok(rest.length >= 2 + length, `${bytes.toString("hex")}: ${received.toString("hex")}`);
        assert.ok((rest.readUInt16BE(4) & 0x8000) !== 0, "an answer");
        rest = rest.subarray(2 + length);
      }
    }
    const { answers } = readAnswer(await exchange(server.address, question, "tcp"));
    assert.deepEqual(answers, ["web.service.consul 0 A 10.0.0.1"]);
  });
});

/** All that comes back until the connection is closed, also by a reset. */
function answeredTo(address: string, bytes: Buffer): Promise<Buffer> {
  const { host, port } = placeOf(address);
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(port, host, () => socket.end(bytes));
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.on("error", () => {});
    socket.once("close", () => resolve(Buffer.concat(chunks)));
  });
}

/** The size that the sender accepts, read strictly: the largest that any OPT record could mean. */
function udpLimit(packet: Buffer): number {
  let limit = 512;
  for (let offset = 12; offset + 5 <= packet.length; offset++) {
    if (packet[offset] === 0 && packet.readUInt16BE(offset + 1) === 41) {
      limit = Math.max(limit, packet.readUInt16BE(offset + 3));
    }
  }
  return limit;
}

function mutated(random: SeededRandom, seeds: readonly Buffer[]): Buffer {
  let packet = Buffer.from(seeds[random.below(seeds.length)] ?? []);
  const times = random.below(4);
  for (let time = 0; time < times; time++) {
    const at = random.below(packet.length + 1);
    switch (random.below(5)) {
      case 0:
        packet = packet.subarray(0, at);
        break;
      case 1:
        packet = Buffer.concat([
          packet.subarray(0, at),
          Buffer.from(random.bytes(random.below(20))),
          packet.subarray(at),
        ]);
        break;
      case 2:
        // Pointers and long labels are what decoders stumble over.
        if (at < packet.length) packet[at] = 0xc0 | random.below(64);
        break;
      case 3:
        packet = Buffer.concat([packet, packet.subarray(at)]);
        break;
      default:
        if (at < packet.length) packet[at] = random.below(256);
    }
  }
  return packet;
}

/** With a client subnet of 10.0.0.0/24 in the OPT record, which is the last one. */
function withSubnet(packet: Buffer): Buffer {
  const option = Buffer.from([0, 8, 0, 7, 0, 1, 24, 0, 10, 0, 0]);
  const whole = Buffer.concat([packet, option]);
  whole.writeUInt16BE(option.length, packet.length - 2);
  return whole;
}
