import { withoutTrailing } from "../base/trailing.js";
import { LEADER_ADDRESS_URL } from "./messages.js";
import { lengthTag, ProtobufReader, ProtobufWriter, varintTag } from "./protobuf.js";
import { decodeLeaderAddress, encodeLeaderAddress } from "./resources.js";
import type { Status } from "./status.js";

/** The trailer `grpc-status-details-bin` of `status`: base64 of a `google.rpc.Status`, padding left out as gRPC does. */
export function encodeStatusDetails(status: Status): string {
  const writer = new ProtobufWriter().int32Field(1, status.code).stringField(2, status.message);
  if (status.leaderAddress !== undefined) {
    const mark = writer.beginMessage(3);
    writer.stringField(1, LEADER_ADDRESS_URL).bytesField(2, encodeLeaderAddress(status.leaderAddress)).endMessage(mark);
  }
  return withoutTrailing(Buffer.from(writer.finish()).toString("base64"), "=");
}

/**
 * The content of a trailer `grpc-status-details-bin`; padding is optional, details of other types are ignored. `undefined`
 * when it is malformed: the details are a hint, and a status stands without them.
 */
export function decodeStatusDetails(trailer: string): Status | undefined {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(trailer)) return undefined;
  try {
    return readStatus(new ProtobufReader(Buffer.from(trailer, "base64")));
  } catch {
    return undefined;
  }
}

function readStatus(reader: ProtobufReader): Status {
  let code = 0;
  let message = "";
  let leaderAddress: string | undefined;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varintTag(1)) code = reader.int32();
    else if (tag === lengthTag(2)) message = reader.string();
    else if (tag === lengthTag(3)) leaderAddress = readLeaderAddress(reader.message()) ?? leaderAddress;
    else reader.skip(tag);
  }
  return leaderAddress === undefined ? { code, message } : { code, message, leaderAddress };
}

function readLeaderAddress(reader: ProtobufReader): string | undefined {
  let typeUrl = "";
  let value = new Uint8Array();
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(1)) typeUrl = reader.string();
    else if (tag === lengthTag(2)) value = new Uint8Array(reader.bytes());
    else reader.skip(tag);
  }
  return typeUrl === LEADER_ADDRESS_URL ? decodeLeaderAddress(value) : undefined;
}
