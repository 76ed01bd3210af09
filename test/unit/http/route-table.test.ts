import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { cleanPath, RouteTable } from "../../../src/http/route-table.js";
import { operations } from "../../../src/http/routes.js";

const table = new RouteTable(operations);
const patterns = [...new Set(operations.map(({ pattern }) => pattern))];
const prefixes = patterns.filter((pattern) => pattern.endsWith("/")).sort((left, right) => right.length - left.length);

/** The rules, one pattern after another. */
function expected(path: string): string {
  if (cleanPath(path) !== path) return `redirect ${cleanPath(path)}`;
  if (patterns.includes(path) && !path.endsWith("/")) return `${path} `;
  for (const pattern of patterns) {
    const [begin = "", end] = pattern.split("*");
    if (end === undefined || path.length <= begin.length + end.length) continue;
    if (path.startsWith(begin) && path.endsWith(end)) return `${pattern} ${path.slice(begin.length, -end.length)}`;
  }
  for (const pattern of prefixes) {
    if (path.startsWith(pattern)) return `${pattern} ${path.slice(pattern.length)}`;
    if (`${path}/` === pattern) return `redirect ${pattern}`;
  }
  return "none";
}

function matched(path: string): string {
  const match = table.match(path);
  if (match.type === "route") return `${match.route.pattern} ${match.rest}`;
  return match.type === "redirect" ? `redirect ${match.path}` : "none";
}

describe("a path", () => {
  it("leads to its exact route, else to that of its longest prefix", () => {
    const words = [...new Set(patterns.flatMap((pattern) => pattern.split(/[/*]+/))), "web", "..", ""];
    const path = fc.oneof(
      fc.array(fc.constantFrom(...words), { maxLength: 6 }).map((parts) => `/${parts.join("/")}`),
      fc
        .tuple(fc.constantFrom(...patterns), fc.constantFrom("", "web", "a/b", "a/", "/"))
        .map(([pattern, name]) => (pattern.includes("*") ? pattern.replace("*", name) : pattern + name)),
    );
    fc.assert(
      fc.property(path, (each) => assert.equal(matched(each), expected(each), each)),
      { numRuns: 2_000 },
    );
  });
});
