import { parseDuration } from "../../src/syntax/go-duration.js";

/** Where in `shown` something of `given` is missing or another; undefined: nowhere. */
export function missing(given: unknown, shown: unknown, path: string): string | undefined {
  if (isEmpty(given) || path.endsWith(".Status")) return undefined;
  if (Array.isArray(given)) {
    // Consul takes the only item out of a list in what it knows no type of.
    if (!Array.isArray(shown)) return given.length === 1 ? missing(given[0], shown, path) : path;
    if (shown.length !== given.length) return path;
    return first(given.map((item, index) => missing(item, shown[index], `${path}[${index}]`)));
  }
  if (typeof given === "object") {
    const members = new Map<string, unknown>(Object.entries(shown ?? {}));
    return first(Object.entries(given ?? {}).map(([key, item]) => missing(item, members.get(key), `${path}.${key}`)));
  }
  return given === shown || canonical(given) === canonical(shown) ? undefined : path;
}

function first(found: readonly (string | undefined)[]): string | undefined {
  return found.find((each) => each !== undefined);
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === "" || value === 0 || value === false) return true;
  return typeof value === "object" && Object.values(value).every(isEmpty);
}

/** Durations are one however they are written; so are protocols and methods. */
function canonical(value: unknown): string {
  if (typeof value === "number") return String(value);
  const milliseconds = parseDuration(String(value));
  return milliseconds === undefined ? String(value).toLowerCase() : String(Math.round(milliseconds * 1e6));
}
