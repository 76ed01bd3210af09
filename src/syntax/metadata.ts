const KEY = /^[a-zA-Z0-9_-]+$/;
const PAIRS = 64;
const KEY_BYTES = 128;
const VALUE_BYTES = 512;
const RESERVED = "consul-";

/** The fault of metadata, in Consul's words (1.13 to 1.22). */
export type MetadataFault =
  | { readonly type: "pairs"; readonly reason: string }
  | { readonly type: "pair"; readonly key: string; readonly value: string; readonly reason: string };

/**
 * The broken rule, of those that Consul has for all metadata, of nodes, services and peerings: at most 64 pairs, keys of 1 to
 * 128 bytes of `[a-zA-Z0-9_-]` that do not start with `consul-`, values of at most 512 bytes.
 * @param mayUse - reserved keys that are allowed all the same. Default: none.
 */
export function metadataFault(
  meta: Readonly<Record<string, string>>,
  mayUse: (reservedKey: string) => boolean = () => false,
): MetadataFault | undefined {
  const keys = Object.keys(meta);
  if (keys.length > PAIRS) return { type: "pairs", reason: `cannot contain more than ${PAIRS} key/value pairs` };
  for (const key of keys) {
    const value = meta[key] ?? "";
    const reason = keyFault(key, mayUse) ?? valueFault(value);
    if (reason !== undefined) return { type: "pair", key, value, reason };
  }
  return undefined;
}

/** As {@link metadataFault}, in one sentence of Consul, which calls all metadata that of nodes. */
export function metadataProblem(
  meta: Readonly<Record<string, string>>,
  mayUse?: (reservedKey: string) => boolean,
): string | undefined {
  const fault = metadataFault(meta, mayUse);
  if (fault === undefined) return undefined;
  if (fault.type === "pairs") return `Node metadata ${fault.reason}`;
  return `Couldn't load metadata pair ('${fault.key}', '${fault.value}'): ${fault.reason}`;
}

function keyFault(key: string, mayUse: (reservedKey: string) => boolean): string | undefined {
  if (key === "") return "Key cannot be blank";
  if (!KEY.test(key)) return "Key contains invalid characters";
  if (key.length > KEY_BYTES) return `Key is too long (limit: ${KEY_BYTES} characters)`;
  if (key.startsWith(RESERVED) && !mayUse(key)) return `Key prefix '${RESERVED}' is reserved for internal use`;
  return undefined;
}

function valueFault(value: string): string | undefined {
  // A character is at most three bytes per UTF-16 unit, so most values need no counting.
  if (value.length * 3 <= VALUE_BYTES || Buffer.byteLength(value) <= VALUE_BYTES) return undefined;
  return `Value is too long (limit: ${VALUE_BYTES} characters)`;
}
