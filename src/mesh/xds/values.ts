import { type AddressSchema, ApiVersion, type ConfigSourceSchema } from "../../wire/envoy.js";
import { type Any, anyPack, create, type DescMessage, type MessageFields } from "../../wire/schema.js";

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
