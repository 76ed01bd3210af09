import type { ChainOverrides, CompiledChain } from "./chain.js";

// Consul marks a chain that overrides have changed by a digest of them (hashstructure 1 with FNV-1 of 64 bits).

const BASIS = 0xcbf29ce484222325n;
const PRIME = 0x100000001b3n;
const NANOSECONDS = 1_000_000;

function digest(bytes: Uint8Array): bigint {
  let hash = BASIS;
  for (const byte of bytes) hash = BigInt.asUintN(64, hash * PRIME) ^ BigInt(byte);
  return hash;
}

function ofText(text: string): bigint {
  return digest(Buffer.from(text));
}

function littleEndian(...values: readonly bigint[]): Uint8Array {
  const bytes = Buffer.alloc(values.length * 8);
  for (const [index, value] of values.entries()) bytes.writeBigUInt64LE(BigInt.asUintN(64, value), index * 8);
  return bytes;
}

function ofStruct(name: string, fields: Readonly<Record<string, bigint>>): bigint {
  return Object.entries(fields).reduce(
    (hash, [field, value]) => hash ^ digest(littleEndian(ofText(field), value)),
    ofText(name),
  );
}

/** The digest of those overrides that made a difference; `""` when none did. */
export function customizationHash({ customized }: CompiledChain, overrides: ChainOverrides): string {
  if (customized.size === 0) return "";
  const { meshGateway = "", protocol = "", connectTimeoutMs = 0 } = overrides;
  const nanoseconds = BigInt(Math.round(connectTimeoutMs * NANOSECONDS));
  const hash = ofStruct("", {
    OverrideMeshGateway: ofStruct("MeshGatewayConfig", {
      Mode: ofText(customized.has("meshGateway") ? meshGateway : ""),
    }),
    OverrideProtocol: ofText(customized.has("protocol") ? protocol : ""),
    OverrideConnectTimeout: digest(littleEndian(customized.has("connectTimeoutMs") ? nanoseconds : 0n)),
  });
  return hash.toString(16).slice(0, 8);
}
