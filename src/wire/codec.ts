import { asPeeringError, errorText, PeeringError } from "../base/errors.js";
import type {
  AnyResource,
  OpenMessage,
  RemoteInfo,
  ReplicationMessage,
  RequestMessage,
  ResponseMessage,
} from "./messages.js";
import { ResourceUrl } from "./messages.js";
import {
  type KnownText,
  lengthTag,
  ProtobufReader,
  ProtobufWriter,
  ReadBudget,
  varintSize,
  varintTag,
} from "./protobuf.js";
import { StatusCode } from "./status.js";

// The envelope is written by hand: the schema's own codec takes several times as long for each of a stream's messages.
// The generated schemas of `peerstream` stay the oracle of its tests.

// Tags that are compared with for every message.
const REQUEST_PEER_ID = lengthTag(1);
const REQUEST_NONCE = lengthTag(2);
const REQUEST_URL = lengthTag(3);
const RESPONSE_NONCE = lengthTag(1);
const RESPONSE_URL = lengthTag(2);
const RESPONSE_ID = lengthTag(3);
const RESPONSE_RESOURCE = lengthTag(4);
const RESPONSE_OPERATION = varintTag(5);
const ANY_URL = lengthTag(1);
const ANY_VALUE = lengthTag(2);

const resourceUrls: readonly KnownText[] = Object.values(ResourceUrl).map((url) => ({
  text: url,
  bytes: Buffer.from(url, "latin1"),
}));

/** The same with their lengths, as they are written: most messages hold one of them, many twice. */
const encodedUrls: ReadonlyMap<string, Uint8Array> = new Map(
  Object.values(ResourceUrl).map((url) => [url, new ProtobufWriter().string(url).finish()]),
);

/** Members of the oneof `Payload`. */
const Member = {
  Open: lengthTag(1),
  Request: lengthTag(2),
  Response: lengthTag(3),
  Terminated: lengthTag(4),
  Heartbeat: lengthTag(5),
} as const;

/**
 * The encoding of one message, without gRPC framing; made to be sent, it may share memory with others. A message of type
 * `unknown` is empty.
 */
export function encodeMessage(message: ReplicationMessage): Uint8Array {
  const size = payloadSize(message);
  const writer = new ProtobufWriter(fieldSize(size));
  writeMessage(writer, message, size);
  return writer.finishView();
}

/** As {@link encodeMessage} of each, in order, but faster: they share one buffer, which lives as long as any of them. */
export function encodeMessages(messages: readonly ReplicationMessage[]): Uint8Array[] {
  const sizes = messages.map(payloadSize);
  const writer = new ProtobufWriter(sizes.reduce((sum, size) => sum + fieldSize(size), 0));
  const ends = messages.map((message, index) => writeMessage(writer, message, sizes[index] ?? 0).length);
  const all = writer.finishView();
  return ends.map((end, index) => all.subarray(ends[index - 1] ?? 0, end));
}

// Sizes are known before a byte is written: the content of a response, nearly all of it, is then copied once.

function payloadSize(message: ReplicationMessage): number {
  switch (message.type) {
    case "open":
      return (
        stringSize(message.peerId) +
        stringSize(message.streamSecretId) +
        (message.remote === undefined ? 0 : fieldSize(remoteSize(message.remote)))
      );
    case "request":
      return (
        stringSize(message.peerId) +
        stringSize(message.responseNonce) +
        urlSize(message.resourceUrl) +
        (message.error === undefined ? 0 : fieldSize(errorSize(message.error)))
      );
    case "response":
      return (
        stringSize(message.nonce) +
        urlSize(message.resourceUrl) +
        stringSize(message.resourceId) +
        (message.resource === undefined ? 0 : fieldSize(anySize(message.resource))) +
        int32Size(message.operation)
      );
    default:
      return 0;
  }
}

function writeMessage(writer: ProtobufWriter, message: ReplicationMessage, size: number): ProtobufWriter {
  switch (message.type) {
    case "open":
      writer.uint32(Member.Open).uint32(size);
      writer.stringField(1, message.peerId).stringField(2, message.streamSecretId);
      return message.remote === undefined ? writer : writeRemote(writer, message.remote);
    case "request":
      writer.uint32(Member.Request).uint32(size);
      writer.stringField(1, message.peerId).stringField(2, message.responseNonce);
      writeUrl(writer, 3, message.resourceUrl);
      if (message.error === undefined) return writer;
      writer.uint32(lengthTag(5)).uint32(errorSize(message.error));
      return writer.int32Field(1, message.error.code).stringField(2, message.error.message);
    case "response":
      writer.uint32(Member.Response).uint32(size);
      writer.stringField(1, message.nonce);
      writeUrl(writer, 2, message.resourceUrl).stringField(3, message.resourceId);
      if (message.resource !== undefined) {
        writer.uint32(lengthTag(4)).uint32(anySize(message.resource));
        writeUrl(writer, 1, message.resource.typeUrl).bytesField(2, message.resource.value);
      }
      return writer.int32Field(5, message.operation);
    case "terminated":
      return writer.uint32(Member.Terminated).uint32(0);
    case "heartbeat":
      return writer.uint32(Member.Heartbeat).uint32(0);
    case "unknown":
      return writer;
  }
}

function writeUrl(writer: ProtobufWriter, field: number, url: string): ProtobufWriter {
  const encoded = encodedUrls.get(url);
  return encoded === undefined ? writer.stringField(field, url) : writer.uint32(lengthTag(field)).raw(encoded);
}

function writeRemote(writer: ProtobufWriter, remote: RemoteInfo): ProtobufWriter {
  writer.uint32(lengthTag(3)).uint32(remoteSize(remote));
  writer.stringField(1, remote.partition).stringField(2, remote.datacenter);
  if (remote.locality === undefined) return writer;
  writer.uint32(lengthTag(3)).uint32(localitySize(remote.locality));
  return writer.stringField(1, remote.locality.region).stringField(2, remote.locality.zone);
}

function remoteSize({ partition, datacenter, locality }: RemoteInfo): number {
  const own = stringSize(partition) + stringSize(datacenter);
  return locality === undefined ? own : own + fieldSize(localitySize(locality));
}

function localitySize(locality: { readonly region: string; readonly zone: string }): number {
  return stringSize(locality.region) + stringSize(locality.zone);
}

function errorSize(error: { readonly code: number; readonly message: string }): number {
  return int32Size(error.code) + stringSize(error.message);
}

function anySize({ typeUrl, value }: AnyResource): number {
  return urlSize(typeUrl) + (value.length === 0 ? 0 : fieldSize(value.length));
}

/** Bytes of a length-delimited field with a number below 16. */
function fieldSize(contentSize: number): number {
  return 1 + varintSize(contentSize) + contentSize;
}

function int32Size(value: number): number {
  return value === 0 ? 0 : value < 0 ? 11 : 1 + varintSize(value);
}

function urlSize(url: string): number {
  const encoded = encodedUrls.get(url);
  return encoded === undefined ? stringSize(url) : 1 + encoded.length;
}

function stringSize(value: string): number {
  return value === "" ? 0 : fieldSize(Buffer.byteLength(value, "utf8"));
}

/** Bounds on the envelope of a message: on all of it but the value of its resource. Ours; Consul has none. */
export interface EnvelopeLimits {
  /** Fields of one message, those of its parts included. Consul's have a dozen. Default 1 000. */
  readonly envelopeFields: number;
  /**
   * Bytes of one text, such as a nonce, a secret or a type URL. A longer one ends the stream, as whatever cannot be decoded
   * does; but of the text of a NACK the beginning is read. Default 64 KiB.
   */
  readonly envelopeTextBytes: number;
}

export const defaultEnvelopeLimits: EnvelopeLimits = { envelopeFields: 1_000, envelopeTextBytes: 64 * 1024 };

/**
 * Decodes one message, without gRPC framing. `resource.value` is a view of `bytes`. Unknown fields are ignored, unknown
 * numbers of `operation` survive, and presence of `remote` and `resource` is kept.
 *
 * @throws {PeeringError} `invalid-message` with status INTERNAL, as Consul 1.13 to 1.22 answer: malformed or truncated
 *   protobuf, or text that is not UTF-8. `resource-exhausted`, with the same status: beyond a limit.
 */
export function decodeMessage(bytes: Uint8Array, limits: EnvelopeLimits = defaultEnvelopeLimits): ReplicationMessage {
  try {
    const budget = new ReadBudget(limits.envelopeFields, limits.envelopeTextBytes);
    return readMessage(new ProtobufReader(bytes, 0, bytes.length, budget));
  } catch (error) {
    const { code } = asPeeringError(error, "invalid-message");
    throw new PeeringError(code, `failed to unmarshal the received message: ${errorText(error)}`, {
      status: StatusCode.Internal,
      cause: error,
    });
  }
}

type Draft<Type> = { -readonly [Key in keyof Type]: Type[Key] };

function readMessage(reader: ProtobufReader): ReplicationMessage {
  // Of a oneof the last member counts; a message given in pieces is one message.
  let message: Draft<ReplicationMessage> = { type: "unknown" };
  while (!reader.done) {
    const tag = reader.tag();
    switch (tag) {
      case Member.Open:
        message = readOpen(reader.message(), message.type === "open" ? message : undefined);
        break;
      case Member.Request:
        message = readRequest(reader.message(), message.type === "request" ? message : undefined);
        break;
      case Member.Response:
        message = readResponse(reader.message(), message.type === "response" ? message : undefined);
        break;
      case Member.Terminated:
        skipAll(reader.message());
        message = { type: "terminated" };
        break;
      case Member.Heartbeat:
        skipAll(reader.message());
        message = { type: "heartbeat" };
        break;
      default:
        reader.skip(tag);
    }
  }
  return message;
}

function readOpen(reader: ProtobufReader, before: Draft<OpenMessage> | undefined): Draft<OpenMessage> {
  const open: Draft<OpenMessage> = before ?? { type: "open", peerId: "", streamSecretId: "" };
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(1)) open.peerId = reader.string();
    else if (tag === lengthTag(2)) open.streamSecretId = reader.string();
    else if (tag === lengthTag(3)) open.remote = readRemote(reader.message(), open.remote);
    else reader.skip(tag);
  }
  return open;
}

function readRemote(reader: ProtobufReader, before: RemoteInfo | undefined): RemoteInfo {
  const remote: Draft<RemoteInfo> = before ?? { partition: "", datacenter: "" };
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(1)) remote.partition = reader.string();
    else if (tag === lengthTag(2)) remote.datacenter = reader.string();
    else if (tag === lengthTag(3)) remote.locality = readLocality(reader.message(), remote.locality);
    else reader.skip(tag);
  }
  return remote;
}

function readLocality(reader: ProtobufReader, before: RemoteInfo["locality"]): { region: string; zone: string } {
  const locality = { region: "", zone: "", ...before };
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(1)) locality.region = reader.string();
    else if (tag === lengthTag(2)) locality.zone = reader.string();
    else reader.skip(tag);
  }
  return locality;
}

function readRequest(reader: ProtobufReader, before: Draft<RequestMessage> | undefined): Draft<RequestMessage> {
  const request: Draft<RequestMessage> = before ?? { type: "request", peerId: "", responseNonce: "", resourceUrl: "" };
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === REQUEST_PEER_ID) request.peerId = reader.string();
    else if (tag === REQUEST_NONCE) request.responseNonce = reader.string();
    else if (tag === REQUEST_URL) request.resourceUrl = reader.oneOf(resourceUrls);
    else if (tag === lengthTag(5)) request.error = readError(reader.message(), request.error);
    else reader.skip(tag);
  }
  return request;
}

function readError(reader: ProtobufReader, before: RequestMessage["error"]): { code: number; message: string } {
  const error = { code: 0, message: "", ...before };
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varintTag(1)) error.code = reader.int32();
    else if (tag === lengthTag(2)) error.message = reader.beginning();
    // Details mean nothing here, but must be well-formed.
    else if (tag === lengthTag(3)) readAny(reader.message(), undefined);
    else reader.skip(tag);
  }
  return error;
}

function readResponse(reader: ProtobufReader, before: Draft<ResponseMessage> | undefined): Draft<ResponseMessage> {
  const response: Draft<ResponseMessage> = before ?? {
    type: "response",
    nonce: "",
    resourceUrl: "",
    resourceId: "",
    operation: 0,
  };
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === RESPONSE_NONCE) response.nonce = reader.string();
    else if (tag === RESPONSE_URL) response.resourceUrl = reader.oneOf(resourceUrls);
    else if (tag === RESPONSE_ID) response.resourceId = reader.string();
    else if (tag === RESPONSE_RESOURCE) response.resource = readAny(reader.message(), response.resource);
    else if (tag === RESPONSE_OPERATION) response.operation = reader.int32();
    else reader.skip(tag);
  }
  return response;
}

function readAny(reader: ProtobufReader, before: AnyResource | undefined): AnyResource {
  let typeUrl = before?.typeUrl ?? "";
  let value = before?.value;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === ANY_URL) typeUrl = reader.oneOf(resourceUrls);
    else if (tag === ANY_VALUE) value = reader.bytes();
    else reader.skip(tag);
  }
  return { typeUrl, value: value ?? new Uint8Array() };
}

function skipAll(reader: ProtobufReader): void {
  while (!reader.done) reader.skip(reader.tag());
}
