import { PeeringError } from "../errors.js";
import { ProtobufReader, ProtobufWriter, WireType } from "./protobuf.js";
import { StatusCode } from "./status.js";

/** A cluster's identity as it crosses the stream. Consul sends no peer name, partition or index (1.13 to 1.22). */
export interface TrustBundlePayload {
  readonly trustDomain: string;
  /** PEM, one certificate each. */
  readonly rootPems: readonly string[];
  /** Enterprise; `""` in Community Edition. */
  readonly exportedPartition: string;
}

const text = (field: number): number => (field << 3) | WireType.LengthDelimited;

/** The value of a resource of type `ExportedServiceList`. */
export function encodeExportedServiceList(names: readonly string[]): Uint8Array {
  return encodeStrings(names);
}

/**
 * @param most - names that a list may have.
 * @throws {PeeringError} `invalid-message`, or `resource-exhausted` for more or for longer names than services have; both
 *   with status INTERNAL.
 */
export function decodeExportedServiceList(value: Uint8Array, most: number = Number.POSITIVE_INFINITY): string[] {
  return readStrings(value, most);
}

/** The value of a resource of type `PeeringServerAddresses`: `host:port` each. */
export function encodeServerAddresses(addresses: readonly string[]): Uint8Array {
  return encodeStrings(addresses);
}

/** More than a cluster has servers, or gateways. */
const MOST_ADDRESSES = 10_000;

/** The addresses as they came, unchecked. @throws {PeeringError} as {@link decodeExportedServiceList}. */
export function decodeServerAddresses(value: Uint8Array): string[] {
  return readStrings(value, MOST_ADDRESSES);
}

/** The value of a resource of type `PeeringTrustBundle`. */
export function encodeTrustBundle(bundle: TrustBundlePayload): Uint8Array {
  return new ProtobufWriter(2048)
    .stringField(1, bundle.trustDomain)
    .repeatedStringField(4, bundle.rootPems)
    .stringField(5, bundle.exportedPartition)
    .finish();
}

/**
 * The bundle as it came: whether its roots are certificates is for the receiver to judge. The sender's own peer name,
 * partition and indexes mean nothing here and are left out.
 *
 * @throws {PeeringError} `invalid-message`, status INTERNAL.
 */
export function decodeTrustBundle(value: Uint8Array): TrustBundlePayload {
  const reader = new ProtobufReader(value);
  let trustDomain = "";
  const rootPems: string[] = [];
  let exportedPartition = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) trustDomain = reader.string();
    else if (tag === text(4)) rootPems.push(reader.string());
    else if (tag === text(5)) exportedPartition = reader.string();
    // Unused, but text all the same: Consul refuses the whole message when it is no UTF-8.
    else if (tag === text(2) || tag === text(3)) reader.string();
    else reader.skip(tag);
  }
  return { trustDomain, rootPems, exportedPartition };
}

/** The value of the status detail `LeaderAddress`. */
export function encodeLeaderAddress(address: string): Uint8Array {
  return new ProtobufWriter().stringField(1, address).finish();
}

/** @throws {PeeringError} `invalid-message`, status INTERNAL. */
export function decodeLeaderAddress(value: Uint8Array): string {
  return readStrings(value).at(-1) ?? "";
}

/** A message whose only field is number 1, `repeated string`. */
function encodeStrings(values: readonly string[]): Uint8Array {
  return new ProtobufWriter().repeatedStringField(1, values).finish();
}

/** Far above what names a service, or a server. */
const MOST_CHARACTERS = 1_024;

function readStrings(value: Uint8Array, most: number = Number.POSITIVE_INFINITY): string[] {
  const reader = new ProtobufReader(value);
  const values: string[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag !== text(1)) {
      reader.skip(tag);
      continue;
    }
    const string = reader.string();
    const problem =
      string.length > MOST_CHARACTERS
        ? `a text of ${string.length} characters`
        : values.length >= most
          ? `more than ${most} texts`
          : undefined;
    if (problem !== undefined) {
      throw new PeeringError("resource-exhausted", problem, { status: StatusCode.Internal });
    }
    values.push(string);
  }
  return values;
}
