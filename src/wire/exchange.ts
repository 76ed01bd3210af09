import { ProtobufReader, ProtobufWriter, WireType } from "./protobuf.js";

// An acceptor reads and writes both messages of ExchangeSecret by hand: they are a few texts, and come from strangers.

const text = (field: number): number => (field << 3) | WireType.LengthDelimited;

/** @throws {PeeringError} `invalid-message`, status INTERNAL. */
export function decodeExchangeRequest(bytes: Uint8Array): {
  readonly peerId: string;
  readonly establishmentSecret: string;
} {
  const reader = new ProtobufReader(bytes);
  let peerId = "";
  let establishmentSecret = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) peerId = reader.string();
    else if (tag === text(2)) establishmentSecret = reader.string();
    else reader.skip(tag);
  }
  return { peerId, establishmentSecret };
}

/** An `ExchangeSecretResponse`. */
export function encodeExchangeResponse(streamSecret: string): Uint8Array {
  return new ProtobufWriter().stringField(1, streamSecret).finish();
}
