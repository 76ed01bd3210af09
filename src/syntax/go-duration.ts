import { Buffer } from "node:buffer";
import { withoutTrailing } from "../base/trailing.js";

const UNIT_NANOSECONDS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};
/** The longest Go duration, about 292 years; a negative one holds one nanosecond more. */
const MAX_NANOSECONDS = 2n ** 63n - 1n;
/** Digits of the largest whole number of nanoseconds. */
const MAX_DIGITS = 19;
/** Longer texts are refused: no real duration is as long, and each part takes time to read. */
const MAX_LENGTH = 1_000;

/** Milliseconds of a Go duration such as `1h30m` or `1.5s`; undefined: the text is not a duration. */
export function parseDuration(text: string): number | undefined {
  const nanoseconds = parseNanoseconds(text);
  return nanoseconds === undefined ? undefined : Number(nanoseconds) / 1e6;
}

/** The same in nanoseconds, to the last one. */
export function parseNanoseconds(text: string): bigint | undefined {
  const read = readDuration(text);
  return typeof read === "bigint" ? read : undefined;
}

/** The error of Go for a text that is not a duration. */
export function durationProblem(text: string): string {
  const read = readDuration(text);
  return typeof read === "bigint" ? "" : read;
}

/** All of them may be empty, so that no text is looked at twice. */
const PART = /(\d*)(\.?)(\d*)([^\d.]*)/y;

/** Nanoseconds, or what Go says of the first fault. */
function readDuration(text: string): bigint | string {
  const sign = text.startsWith("-") ? "-" : "";
  const begin = /^[+-]/.test(text) ? 1 : 0;
  const most = MAX_NANOSECONDS + (sign === "-" ? 1n : 0n);
  if (text.slice(begin) === "0") return 0n;
  const invalid = (): string => `time: invalid duration ${quoted(text)}`;
  if (begin === text.length || text.length > MAX_LENGTH) return invalid();
  let nanoseconds = 0n;
  for (PART.lastIndex = begin; PART.lastIndex < text.length; ) {
    const [, whole = "", , part = "", unit = ""] = PART.exec(text) ?? [];
    if (whole === "" && part === "") return invalid();
    const digits = whole.replace(/^0+/, "");
    if (digits.length > MAX_DIGITS || BigInt(digits) > MAX_NANOSECONDS + 1n) return invalid();
    if (unit === "") return `time: missing unit in duration ${quoted(text)}`;
    const size = Object.hasOwn(UNIT_NANOSECONDS, unit) ? UNIT_NANOSECONDS[unit] : undefined;
    if (size === undefined) return `time: unknown unit ${quoted(unit)} in duration ${quoted(text)}`;
    nanoseconds += BigInt(digits) * BigInt(size) + fractionOf(part, size);
    if (nanoseconds > MAX_NANOSECONDS + 1n) return invalid();
  }
  if (nanoseconds > most) return invalid();
  return sign === "-" ? -nanoseconds : nanoseconds;
}

/** As Go's package of times quotes: by bytes, where a character is not one of ASCII that is seen. */
function quoted(text: string): string {
  const escaped = (character: string): string =>
    character === '"' || character === "\\"
      ? `\\${character}`
      : [...Buffer.from(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  return `"${text.replace(/["\\]|[^ -\x7f]/gu, escaped)}"`;
}

/** The value of the digits behind a point, as part of a unit: a float in Go, too, of the digits that 64 bits hold. */
function fractionOf(digits: string, size: number): bigint {
  let value = 0n;
  let scale = 1;
  for (const digit of digits) {
    const longer = value * 10n + BigInt(digit);
    if (longer > MAX_NANOSECONDS + 1n) break;
    value = longer;
    scale *= 10;
  }
  return BigInt(Math.trunc(Number(value) * (size / scale)));
}

/** A duration as Go writes it: `1m30s`, `250ms`. `""` for none. */
export function durationText(milliseconds: number): string {
  return nanosecondsText(BigInt(Math.round(milliseconds * 1e6)));
}

/** The same of nanoseconds. */
export function nanosecondsText(nanoseconds: bigint): string {
  if (nanoseconds === 0n) return "";
  const sign = nanoseconds < 0n ? "-" : "";
  const size = nanoseconds < 0n ? -nanoseconds : nanoseconds;
  if (size < 1_000n) return `${sign}${size}ns`;
  if (size < 1_000_000n) return `${sign}${decimal(size, 3)}µs`;
  if (size < 1_000_000_000n) return `${sign}${decimal(size, 6)}ms`;
  const minutes = size / 60_000_000_000n;
  const hours = minutes / 60n;
  const seconds = decimal(size % 60_000_000_000n, 9);
  return `${sign}${hours > 0n ? `${hours}h` : ""}${minutes > 0n ? `${minutes % 60n}m` : ""}${seconds}s`;
}

/** A number with its last digits behind a point, without zeros at its end. */
function decimal(value: bigint, digits: number): string {
  const text = `${value}`.padStart(digits + 1, "0");
  const part = withoutTrailing(text.slice(-digits), "0");
  return `${text.slice(0, -digits)}${part === "" ? "" : `.${part}`}`;
}
