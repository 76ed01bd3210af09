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
  readonly #ends: readonly Route[];
  readonly #prefixes: readonly Route[];

  constructor(operations: readonly Operation[]) {
    this.operations = operations;
    const byPattern = new Map<string, Map<string, Operation>>();
    for (const operation of operations) {
      const methods = byPattern.get(operation.pattern) ?? new Map<string, Operation>();
      methods.set(operation.method, operation);
      byPattern.set(operation.pattern, methods);
    }
    const prefixes: Route[] = [];
    const ends: Route[] = [];
    for (const [pattern, methods] of byPattern) {
      const route = { pattern, operations: methods };
      if (pattern.includes("*")) ends.push(route);
      else if (pattern.endsWith("/")) prefixes.push(route);
      else this.#exact.set(pattern, route);
    }
    this.#ends = ends;
    this.#prefixes = prefixes.sort((left, right) => right.pattern.length - left.pattern.length);
  }

  /** @param path - percent-decoded. */
  match(path: string): RouteMatch {
    const clean = cleanPath(path);
    if (clean !== path) return { type: "redirect", path: clean };
    const exact = this.#exact.get(path);
    if (exact !== undefined) return { type: "route", route: exact, rest: "" };
    for (const route of this.#ends) {
      const [prefix = "", end = ""] = route.pattern.split("*");
      if (path.length > prefix.length + end.length && path.startsWith(prefix) && path.endsWith(end)) {
        return { type: "route", route, rest: path.slice(prefix.length, -end.length) };
      }
    }
    for (const route of this.#prefixes) {
      if (path.startsWith(route.pattern)) return { type: "route", route, rest: path.slice(route.pattern.length) };
      if (`${path}/` === route.pattern) return { type: "redirect", path: route.pattern };
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
