import { type AddressSchema, ApiVersion, type ConfigSourceSchema } from "../../wire/envoy.js";
import {
  type Any,
  AnySchema,
  anyPack,
  create,
  type DescMessage,
  type MessageFields,
  type MessageInit,
  toBinary,
} from "../../wire/schema.js";

/** A message inside another one whose type is open. */
export function packed<Desc extends DescMessage>(schema: Desc, init: MessageFields<Desc>): Any {
  return anyPack(schema, create(schema, init));
}

/** The part of a named extension, such as a filter. */
export function named<Desc extends DescMessage>(
  name: string,
  schema: Desc,
  init: MessageFields<Desc>,
): { readonly name: string; readonly configType: { readonly case: "typedConfig"; readonly value: Any } } {
  return { name, configType: { case: "typedConfig", value: packed(schema, init) } };
}

/** The same, with one more field that is encoded already; without it where that is undefined. */
export function namedWith<Desc extends DescMessage>(
  name: string,
  schema: Desc,
  init: MessageFields<Desc>,
  field: number,
  encoded: Uint8Array | undefined,
): ReturnType<typeof named> {
  if (encoded === undefined) return named(name, schema, init);
  const value = withMembers(bytesOf(schema, init), field, [encoded]);
  const typeUrl = `type.googleapis.com/${schema.typeName}`;
  return { name, configType: { case: "typedConfig", value: create(AnySchema, { typeUrl, value }) } };
}

export function bytesOf<Desc extends DescMessage>(schema: Desc, init: MessageInit<Desc>): Uint8Array {
  return toBinary(schema, create(schema, init));
}

/** A message with more members of a field. On the wire fields may come in any order. */
export function withMembers(message: Uint8Array, field: number, members: readonly Uint8Array[]): Uint8Array {
  if (members.length === 0) return message;
  return Buffer.concat(members.flatMap((member) => [lengthPrefix(field, member.length), member]).concat(message));
}

const LENGTH_DELIMITED = 2;

function lengthPrefix(field: number, length: number): Uint8Array {
  const bytes: number[] = [];
  for (let value of [(field << 3) | LENGTH_DELIMITED, length]) {
    for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
    bytes.push(value);
  }
  return Uint8Array.from(bytes);
}

/** @param milliseconds - not negative. */
export function duration(milliseconds: number): { readonly seconds: bigint; readonly nanos: number } {
  const whole = Math.floor(milliseconds / 1_000);
  return { seconds: BigInt(whole), nanos: Math.round((milliseconds - whole * 1_000) * 1e6) };
}

/** The stream that the resource which names this comes from. */
export function adsSource(fetchTimeoutMs: number | undefined): MessageFields<typeof ConfigSourceSchema> {
  return {
    configSourceSpecifier: { case: "ads", value: {} },
    resourceApiVersion: ApiVersion.V3,
    ...(fetchTimeoutMs !== undefined && { initialFetchTimeout: duration(fetchTimeoutMs) }),
  };
}

export function socketAddress(address: string, port: number): MessageFields<typeof AddressSchema> {
  return {
    address: { case: "socketAddress", value: { address, portSpecifier: { case: "portValue", value: port } } },
  };
}

export function pipeAddress(path: string, mode: number): MessageFields<typeof AddressSchema> {
  return { address: { case: "pipe", value: { path, mode } } };
}
