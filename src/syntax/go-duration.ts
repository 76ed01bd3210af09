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
/** What a Go duration can hold, about 292 years. */
const MAX_NANOSECONDS = 2 ** 63;

/** Milliseconds of a Go duration such as `1h30m` or `1.5s`; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^([+-]?)(.*)$/s.exec(text);
  const [, sign = "", body = ""] = match ?? [];
  if (body === "0") return 0;
  if (body === "" || body.length > 200 || !/^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(body)) {
    return undefined;
  }
  let nanoseconds = 0;
  for (const [, amount, unit] of body.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    nanoseconds += Number(amount) * (UNIT_NANOSECONDS[unit ?? ""] ?? 0);
  }
  if (!(nanoseconds < MAX_NANOSECONDS)) return undefined;
  return (sign === "-" ? -nanoseconds : nanoseconds) / 1e6;
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
  if (milliseconds === 0) return "";
  const size = Math.abs(milliseconds);
  const sign = milliseconds < 0 ? "-" : "";
  if (size < 0.001) return `${sign}${Math.round(size * 1e6)}ns`;
  if (size < 1) return `${sign}${Number((size * 1e3).toFixed(3))}µs`;
  if (size < 1_000) return `${sign}${Number(size.toFixed(6))}ms`;
  const minutes = Math.floor(size / 60_000);
  const seconds = `${Number(((size - minutes * 60_000) / 1_000).toFixed(9))}s`;
  const hours = Math.floor(minutes / 60);
  return `${sign}${hours > 0 ? `${hours}h` : ""}${minutes > 0 ? `${minutes % 60}m` : ""}${seconds}`;
}
