import type { Key } from "./storage.js";

// UTF-8 never holds the byte FF. Each part ends in 00, and a 00 inside a part becomes 00 FF, so encoded keys sort as
// their parts do, no key is mistaken for another, and the keys that begin with an encoded prefix and do not go on with FF are
// exactly those under it.
const END = "\0";
const ESCAPED_ZERO = "\0\u00ff";
const ABOVE = "\u00ff";

/** Sorts after every key below an encoded prefix it is appended to; keys of the backend's own may begin with it. */
export const ABOVE_EVERY_KEY: string = ABOVE;

// Printable ASCII is its own encoding.
const NEEDS_ENCODING = /[^ -~]/;
const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * A key, or a prefix, as bytes, one per UTF-16 unit ("binary" or latin1 string). Comparing two with `<` compares the keys
 * part by part as UTF-8 bytes.
 * @throws TypeError for text that is not well-formed Unicode: it would be stored as something else.
 */
export function encodeKey(key: Key): string {
  let encoded = "";
  for (const part of key) {
    if (!NEEDS_ENCODING.test(part)) {
      encoded += part + END;
      continue;
    }
    if (LONE_SURROGATE.test(part)) throw new TypeError("a key part is not well-formed Unicode");
    encoded += Buffer.from(part, "utf8").toString("latin1").replaceAll(END, ESCAPED_ZERO) + END;
  }
  return encoded;
}

/** The key of {@link encodeKey}. @throws TypeError for bytes that no key encodes to. */
export function decodeKey(encoded: string): Key {
  const key: string[] = [];
  for (let start = 0; start < encoded.length; ) {
    let end = encoded.indexOf(END, start);
    while (end >= 0 && encoded[end + 1] === ABOVE) end = encoded.indexOf(END, end + 2);
    if (end < 0) throw new TypeError("not an encoded key");
    const part = encoded.slice(start, end);
    key.push(
      NEEDS_ENCODING.test(part) ? Buffer.from(part.replaceAll(ESCAPED_ZERO, END), "latin1").toString("utf8") : part,
    );
    start = end + 1;
  }
  return key;
}

/** As {@link encodeKey}, for a key that names an entry. @throws TypeError also for the empty key. */
export function encodeEntryKey(key: Key): string {
  if (key.length === 0) throw new TypeError("the empty key names every entry, not one");
  return encodeKey(key);
}

/** Whether an encoded key is the encoded prefix or lies below it. */
export function isUnder(encodedKey: string, encodedPrefix: string): boolean {
  return encodedKey.startsWith(encodedPrefix) && encodedKey[encodedPrefix.length] !== ABOVE;
}
