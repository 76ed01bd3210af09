import { lengthTag, ProtobufReader, ProtobufWriter } from "./protobuf.js";

// An acceptor reads and writes both messages of ExchangeSecret by hand: they are a few texts, and come from strangers.

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
    if (tag === lengthTag(1)) peerId = reader.string();
    else if (tag === lengthTag(2)) establishmentSecret = reader.string();
    else reader.skip(tag);
  }
  return { peerId, establishmentSecret };
}

/** An `ExchangeSecretResponse`. */
export function encodeExchangeResponse(streamSecret: string): Uint8Array {
  return new ProtobufWriter().stringField(1, streamSecret).finish();
}
