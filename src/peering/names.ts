import { PeeringError } from "../base/errors.js";

const PEER_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const META_KEY = /^[a-zA-Z0-9_-]+$/;
const META_PAIRS = 64;
const META_KEY_BYTES = 128;
const META_VALUE_BYTES = 512;

/**
 * Checks a name for a new peering: a lower-case DNS label of 1 to 63 characters (Consul 1.14.4 and later).
 * @throws {PeeringError} `invalid-name`, with Consul's text.
 */
export function validatePeerName(name: string): void {
  if (PEER_NAME.test(name)) return;
  throw new PeeringError(
    "invalid-name",
    `${name} is not a valid peer name: a valid peering name must consist of lower case alphanumeric characters or '-', ` +
      "and must start and end with an alphanumeric character",
  );
}

/** What names are compared by. Records of Consul before 1.14.4 may hold capitals; no two names differ by case alone. */
export function nameKey(name: string): string {
  return name.toLowerCase();
}

/**
 * Checks the metadata of a peering: at most 64 pairs, keys of 1 to 128 bytes of `[a-zA-Z0-9_-]` that do not start with
 * `consul-`, values of at most 512 bytes.
 * @throws {PeeringError} `invalid-argument`, with Consul's text.
 */
export function validatePeeringMeta(meta: Readonly<Record<string, string>>): void {
  const pairs = Object.entries(meta);
  if (pairs.length > META_PAIRS) fail(`Node metadata cannot contain more than ${META_PAIRS} key/value pairs`);
  for (const [key, value] of pairs) {
    const why = metaPairFault(key, value);
    if (why !== undefined) fail(`Couldn't load metadata pair ('${key}', '${value}'): ${why}`);
  }
}

function metaPairFault(key: string, value: string): string | undefined {
  if (key === "") return "Key cannot be blank";
  if (!META_KEY.test(key)) return "Key contains invalid characters";
  if (Buffer.byteLength(key) > META_KEY_BYTES) return `Key is too long (limit: ${META_KEY_BYTES} characters)`;
  if (key.startsWith("consul-")) return "Key prefix 'consul-' is reserved for internal use";
  if (Buffer.byteLength(value) > META_VALUE_BYTES) return `Value is too long (limit: ${META_VALUE_BYTES} characters)`;
  return undefined;
}

function fail(text: string): never {
  throw new PeeringError("invalid-argument", `meta tags failed validation: ${text}`);
}
