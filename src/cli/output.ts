import type { Json } from "../client/index.js";

/** What goes through JSON: members that are undefined are left out. */
export type Printable = Json | undefined | readonly Printable[] | { readonly [key: string]: Printable };

const INDENT = 4;

/** JSON as Consul's commands print it: `<`, `>` and `&` escaped. */
export function jsonText(value: Printable, form: "compact" | "indented"): string {
  return JSON.stringify(value, undefined, form === "compact" ? 0 : INDENT).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Rows under each other: every cell but the last as wide as the widest of its column, then a gap.
 * @param gap - in spaces. Default 2.
 */
export function table(rows: readonly (readonly string[])[], gap = 2): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, [...cell].length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === row.length - 1 ? cell : cell + " ".repeat((widths[column] ?? 0) - [...cell].length + gap),
        )
        .join(""),
    )
    .join("\n");
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
  const digits = fraction.replace(/\.?0+$/, "");
  const zone = hours === undefined ? "+0000 UTC" : `${hours}${minutes} ${hours}${minutes}`;
  return `${date} ${clock}${digits} ${zone}`;
}
