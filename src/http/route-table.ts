import type { Operation } from "./operation.js";

/** All operations under one pattern, in the order in which `Allow` names their methods. */
export interface Route {
  readonly pattern: string;
  readonly operations: ReadonlyMap<string, Operation>;
}

/** The operations of a path. */
export type RouteMatch =
  | { readonly type: "route"; readonly route: Route; readonly rest: string }
  | { readonly type: "redirect"; readonly path: string }
  | { readonly type: "none" };

/** Matches paths to operations as Consul's request multiplexer does. */
export class RouteTable {
  readonly operations: readonly Operation[];
  readonly #exact = new Map<string, Route>();
  readonly #ends: readonly { readonly prefix: string; readonly end: string; readonly route: Route }[];
  /** By pattern, as are the exact ones. */
  readonly #prefixes = new Map<string, Route>();
  readonly #longestPrefix: number;

  constructor(operations: readonly Operation[]) {
    this.operations = operations;
    const byPattern = new Map<string, Map<string, Operation>>();
    for (const operation of operations) {
      const methods = byPattern.get(operation.pattern) ?? new Map<string, Operation>();
      methods.set(operation.method, operation);
      byPattern.set(operation.pattern, methods);
    }
    const ends: { readonly prefix: string; readonly end: string; readonly route: Route }[] = [];
    for (const [pattern, methods] of byPattern) {
      const route = { pattern, operations: methods };
      const [prefix = "", end] = pattern.split("*");
      if (end !== undefined) ends.push({ prefix, end, route });
      else if (pattern.endsWith("/")) this.#prefixes.set(pattern, route);
      else this.#exact.set(pattern, route);
    }
    this.#ends = ends;
    this.#longestPrefix = Math.max(0, ...Array.from(this.#prefixes.keys(), ({ length }) => length));
  }

  /** @param path - percent-decoded. */
  match(path: string): RouteMatch {
    const clean = cleanPath(path);
    if (clean !== path) return { type: "redirect", path: clean };
    const exact = this.#exact.get(path);
    if (exact !== undefined) return { type: "route", route: exact, rest: "" };
    for (const { prefix, end, route } of this.#ends) {
      if (path.length > prefix.length + end.length && path.startsWith(prefix) && path.endsWith(end)) {
        return { type: "route", route, rest: path.slice(prefix.length, -end.length) };
      }
    }
    const asFolder = `${path}/`;
    if (this.#prefixes.has(asFolder)) return { type: "redirect", path: asFolder };
    // The longest one first.
    for (
      let slash = path.lastIndexOf("/", this.#longestPrefix - 1);
      slash >= 0;
      slash = path.lastIndexOf("/", slash - 1)
    ) {
      const route = this.#prefixes.get(path.slice(0, slash + 1));
      if (route !== undefined) return { type: "route", route, rest: path.slice(slash + 1) };
      if (slash === 0) break;
    }
    return { type: "none" };
  }
}

/** Without doubled slashes, `.` and `..`; a slash at the end stays. */
export function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  const clean = `/${parts.join("/")}`;
  return clean !== "/" && /\/(?:\.{1,2})?$/.test(path) && path.endsWith("/") ? `${clean}/` : clean;
}
