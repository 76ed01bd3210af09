import { withoutTrailing } from "../base/trailing.js";
import type { Json } from "../client/index.js";

/** Values that go through JSON: undefined members are left out. */
export type Printable = Json | undefined | readonly Printable[] | { readonly [key: string]: Printable };

const INDENTS = { compact: 0, narrow: 2, indented: 4, tabbed: "\t" };

/** How JSON is printed; most of Consul's commands indent by four. */
export type JsonForm = keyof typeof INDENTS;

// Characters that have no shape of their own, and can move, hide or turn round others: control characters, with all that begin a command to
// a terminal, format characters, with those that change the direction of text, line and paragraph separators, halves of a pair.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/**
 * A text as one line that a terminal shows as it is, escaped as Go does: what peers, servers and files name must not move the
 * cursor, fake a line, or read backwards.
 */
export function visible(text: string): string {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0) ?? 0;
    const hexadecimal = code.toString(16);
    if (code < 0x100) return SHORT[character] ?? `\\x${hexadecimal.padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${hexadecimal.padStart(4, "0")}` : `\\U${hexadecimal.padStart(8, "0")}`;
  });
}

/** JSON in which what {@link visible} escapes is escaped, too. The line breaks and tabs of its indentation stay: those of texts are escaped already. */
export function visibleJson(json: string): string {
  return json.replace(UNSEEN, (character) =>
    character === "\n" || character === "\t" ? character : unitsOf(character).map(escapedUnit).join(""),
  );
}

function unitsOf(character: string): readonly number[] {
  return Array.from({ length: character.length }, (_, index) => character.charCodeAt(index));
}

function escapedUnit(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, "0")}`;
}

/** JSON as Consul's commands print it: `<`, `>` and `&` escaped. */
export function jsonText(value: Printable, form: JsonForm): string {
  const json = JSON.stringify(value, undefined, INDENTS[form]);
  return visibleJson(json).replace(/[<>&]/g, (character) => escapedUnit(character.charCodeAt(0)));
}

/**
 * Rows, a line each: every cell but the last as wide as the widest of its column, then a gap.
 * @param gap - in spaces. Default 2.
 */
export function table(cells: readonly (readonly string[])[], gap = 2): readonly string[] {
  const rows = cells.map((row) => row.map(visible));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, [...cell].length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column === row.length - 1 ? cell : cell + " ".repeat((widths[column] ?? 0) - [...cell].length + gap),
      )
      .join(""),
  );
}

/** `k=v` of each member, sorted by key (D-49; Consul's order is random). */
export function pairTexts(map: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(map)
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([key, value]) => `${key}=${value}`);
}

/** An RFC 3339 time as Go prints one; `<nil>` for none. */
export function goTime(time: string | undefined): string {
  if (time === undefined) return "<nil>";
  const match = /^(\d{4,}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(?:Z|([+-]\d\d):(\d\d))$/.exec(time);
  if (match === null) return time;
  const [, date = "", clock = "", fraction = "", hours, minutes] = match;
  const digits = withoutTrailing(withoutTrailing(fraction, "0"), ".");
  const zone = hours === undefined ? "+0000 UTC" : `${hours}${minutes} ${hours}${minutes}`;
  return `${date} ${clock}${digits} ${zone}`;
}
