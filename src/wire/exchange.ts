import { ProtobufReader, ProtobufWriter, WireType } from "./protobuf.js";

// Both messages of ExchangeSecret are a few texts: written by hand, they need nothing that the stream does not use as well.

const text = (field: number): number => (field << 3) | WireType.LengthDelimited;

/** An `ExchangeSecretRequest`. */
export function encodeExchangeRequest(peerId: string, establishmentSecret: string): Uint8Array {
  return new ProtobufWriter().stringField(1, peerId).stringField(2, establishmentSecret).finish();
}

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

/** The stream secret. @throws {PeeringError} `invalid-message`, status INTERNAL. */
export function decodeExchangeResponse(bytes: Uint8Array): string {
  const reader = new ProtobufReader(bytes);
  let streamSecret = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) streamSecret = reader.string();
    else reader.skip(tag);
  }
  return streamSecret;
}
