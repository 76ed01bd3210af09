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
/** What a Go duration can hold, about 292 years; one more where it is negative. */
const MAX_NANOSECONDS = 2n ** 63n - 1n;

/** Milliseconds of a Go duration such as `1h30m` or `1.5s`; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const nanoseconds = parseNanoseconds(text);
  return nanoseconds === undefined ? undefined : Number(nanoseconds) / 1e6;
}

/** The same in nanoseconds, to the last one. */
export function parseNanoseconds(text: string): bigint | undefined {
  const match = /^([+-]?)(.*)$/s.exec(text);
  const [, sign = "", body = ""] = match ?? [];
  if (body === "0") return 0n;
  if (body === "" || body.length > 200 || !/^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(body)) {
    return undefined;
  }
  let nanoseconds = 0n;
  for (const [, whole = "", part = "", unit = ""] of body.matchAll(/(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)/g)) {
    const size = UNIT_NANOSECONDS[unit] ?? 0;
    nanoseconds += BigInt(whole) * BigInt(size) + fractionOf(part, size);
  }
  if (nanoseconds > MAX_NANOSECONDS + (sign === "-" ? 1n : 0n)) return undefined;
  return sign === "-" ? -nanoseconds : nanoseconds;
}

/** What the digits behind a point are of a unit: a float in Go, too, of the digits that 64 bits hold. */
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

/** What Go says of a text that is no duration. */
export function durationProblem(text: string): string {
  const quoted = JSON.stringify(text);
  const [, ...parts] = /^[+-]?((?:\d+\.?\d*|\.\d+)[^\d.]*)+$/s.exec(text) ?? [];
  if (parts.length > 0) {
    for (const [, unit = ""] of text.matchAll(/(?:\d+\.?\d*|\.\d+)([^\d.]*)/gs)) {
      if (unit === "") return `time: missing unit in duration ${quoted}`;
      if (!Object.hasOwn(UNIT_NANOSECONDS, unit)) {
        return `time: unknown unit ${JSON.stringify(unit)} in duration ${quoted}`;
      }
    }
  }
  return `time: invalid duration ${quoted}`;
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
  const part = text.slice(-digits).replace(/0+$/, "");
  return `${text.slice(0, -digits)}${part === "" ? "" : `.${part}`}`;
}
