import { Buffer } from "node:buffer";

const SIMPLE: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  '"': '"',
};

const ESCAPE = /\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))/y;

/** An escape of Go's interpreted strings. */
export interface GoEscape {
  /** With its backslash. */
  readonly length: number;
  /** UTF-8, or one byte of it: `\xc3\xa9` are two escapes and one character. */
  readonly bytes: Buffer;
}

/** @param at - the position of the backslash. @returns undefined: no valid escape stands there. */
export function goEscape(text: string, at: number): GoEscape | undefined {
  ESCAPE.lastIndex = at;
  const found = ESCAPE.exec(text);
  if (found === null) return undefined;
  const [{ length }, simple, hexadecimal, octal, short, long] = found;
  if (simple !== undefined) return { length, bytes: Buffer.from(SIMPLE[simple] ?? "") };
  const character = short ?? long;
  if (character !== undefined) {
    const code = Number.parseInt(character, 16);
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return undefined;
    return { length, bytes: Buffer.from(String.fromCodePoint(code)) };
  }
  const byte = hexadecimal === undefined ? Number.parseInt(octal ?? "", 8) : Number.parseInt(hexadecimal, 16);
  return byte > 255 ? undefined : { length, bytes: Buffer.of(byte) };
}

const SHORT: ReadonlyMap<string, string> = new Map(
  Object.entries(SIMPLE).map(([letter, character]) => [character, `\\${letter}`]),
);

/** A text between quotes, as Go's `%q` prints it: invisible characters are escaped. */
export function goQuote(text: string): string {
  const escaped = (character: string): string => {
    const short = SHORT.get(character);
    if (short !== undefined) return short;
    const code = character.codePointAt(0) ?? 0;
    const [mark, digits] = code < 0x80 ? ["x", 2] : code < 0x1_0000 ? ["u", 4] : ["U", 8];
    return `\\${mark}${code.toString(16).padStart(digits, "0")}`;
  };
  return `"${text.replace(/["\\]|(?! )[\p{C}\p{Z}]/gu, escaped)}"`;
}
