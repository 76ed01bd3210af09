import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { type Answer, type DecodedPacket, decode, encode, type Question } from "dns-packet";

export interface Ask {
  readonly name: string;
  readonly type: string;
  readonly transport?: "udp" | "tcp";
  /** The size that the client accepts; undefined: no EDNS. */
  readonly edns?: number;
}

export interface Asked {
  readonly code: string;
  /** Those that are set, `aa rd`. */
  readonly flags: string;
  /** Each record as `owner ttl TYPE data`, sorted. */
  readonly answers: readonly string[];
  readonly authorities: readonly string[];
  readonly additionals: readonly string[];
  readonly packet: Buffer;
}

export function query({ name, type, edns }: Ask, id = 4_711): Buffer {
  // The package's types leave out ANY and numbered ones; its code does not.
  const question = { name, type } as Question;
  const additionals: Answer[] = [];
  if (edns !== undefined) {
    additionals.push({
      type: "OPT",
      name: ".",
      udpPayloadSize: edns,
      extendedRcode: 0,
      ednsVersion: 0,
      flags: 0,
      flag_do: false,
      options: [],
    });
  }
  return encode({ type: "query", id, flags: 0x0100, questions: [question], additionals });
}

/** Asks a server over a socket of its own. */
export async function ask(address: string, question: Ask): Promise<Asked> {
  return readAnswer(await exchange(address, query(question), question.transport ?? "udp"));
}

export async function exchange(address: string, packet: Buffer, transport: "udp" | "tcp"): Promise<Buffer> {
  const { host, port } = placeOf(address);
  if (transport === "tcp") {
    const socket = connect(port, host);
    try {
      socket.write(framed(packet));
      return await readFrame(socket);
    } finally {
      socket.destroy();
    }
  }
  const socket = createSocket("udp4");
  try {
    const answer = once(socket, "message");
    socket.send(packet, port, host);
    const [message] = await answer;
    if (!Buffer.isBuffer(message)) throw new TypeError("no message");
    return message;
  } finally {
    socket.close();
  }
}

export function placeOf(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

export function framed(packet: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(packet.length);
  return Buffer.concat([length, packet]);
}

/** One framed answer; what comes behind it is dropped. */
export async function readFrame(socket: Socket): Promise<Buffer> {
  let received = Buffer.alloc(0);
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    received = Buffer.concat([received, chunk]);
    if (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
      return received.subarray(2, 2 + received.readUInt16BE(0));
    }
  }
  throw new Error("the connection ended before an answer");
}

export function readAnswer(packet: Buffer): Asked {
  const decoded = decode(packet) as DecodedPacket & Readonly<Record<string, unknown>>;
  const field = (key: string): unknown => decoded[key];
  const set = ["aa", "tc", "rd", "ra"].filter((flag) => field(`flag_${flag}`) === true);
  return {
    code: String(field("rcode")),
    flags: set.join(" "),
    answers: (decoded.answers ?? []).map(recordText).sort(),
    authorities: (decoded.authorities ?? []).map(recordText).sort(),
    additionals: (decoded.additionals ?? []).map(recordText).sort(),
    packet,
  };
}

function recordText(record: Answer): string {
  switch (record.type) {
    case "OPT":
      return `.  OPT ${record.udpPayloadSize}`;
    case "SRV": {
      const { priority, weight, port, target } = record.data;
      return `${record.name} ${record.ttl} SRV ${priority} ${weight} ${port} ${target}`;
    }
    case "SOA": {
      // The serial is the time.
      const { mname, rname, refresh, retry, expire, minimum } = record.data;
      return `${record.name} ${record.ttl} SOA ${mname} ${rname} time ${refresh} ${retry} ${expire} ${minimum}`;
    }
    case "TXT":
      return `${record.name} ${record.ttl} TXT ${[record.data]
        .flat()
        .map((text) => JSON.stringify(text.toString()))
        .join(" ")}`;
    case "A":
    case "AAAA":
    case "CNAME":
    case "NS":
    case "PTR":
      return `${record.name} ${record.ttl} ${record.type} ${record.data}`;
    default:
      throw new TypeError(`an unexpected record of type ${record.type}`);
  }
}
