import { Buffer } from "node:buffer";

/**
 * Whether `text` is a UUID in its usual spelling: 36 characters, hex 8-4-4-4-12, in either case. Version and variant
 * bits are not looked at, for Consul's ids set none (1.13 to 1.22).
 */
export function isUuid(text: string): boolean {
  return text.length === 36 && /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
}

/** Why `text` is no UUID, in the words of Consul's parser (1.21); undefined when it is one. */
export function uuidProblem(text: string): string | undefined {
  if (isUuid(text)) return undefined;
  if (Buffer.byteLength(text) !== 36) return "uuid string is wrong length";
  if ([8, 13, 18, 23].some((place) => text[place] !== "-")) return "uuid is improperly formatted";
  const digits = text.slice(0, 8) + text.slice(9, 13) + text.slice(14, 18) + text.slice(19, 23) + text.slice(24);
  const [odd = ""] = /[^0-9a-fA-F]/u.exec(digits) ?? [];
  const code = (odd.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return `encoding/hex: invalid byte: U+${code} '${odd}'`;
}
