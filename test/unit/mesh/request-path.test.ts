import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { normalizedTarget } from "../../../src/mesh/connect/request-path.js";

describe("the path of a request in the mesh", () => {
  for (const [target, path, query = ""] of [
    ["/", "/"],
    ["/a/b?x=1&y=/../z", "/a/b", "?x=1&y=/../z"],
    ["/a?", "/a", "?"],
    ["/a/../b", "/b"],
    ["/a/./b/.", "/a/b/"],
    ["/a/b/..", "/a/"],
    ["/../../a", "/a"],
    ["/..", "/"],
    ["/%2e%2E/a", "/a"],
    ["/a/.%2e/b", "/b"],
    ["/%61dm%69n", "/admin"],
    ["/a%2fb", "/a%2Fb"],
    ["/a%20b%zz%", "/a%20b%zz%"],
    ["/%252e%252e/a", "/%252e%252e/a"],
    ["\\a", undefined],
    ["/a\\..\\b", "/b"],
    ["//a//b", "//a//b"],
    ["/a#b?c", "/a"],
    ["http://web.example/a/../b?c", "/b", "?c"],
    ["http://web.example", "/"],
    ["http://web.example?c", "/", "?c"],
    ["*", "*"],
    ["", undefined],
    ["a/b", undefined],
    ["web.example:443", undefined],
  ] as const) {
    it(`${JSON.stringify(target)} is ${JSON.stringify(path)}`, () => {
      assert.deepEqual(normalizedTarget(target), path === undefined ? undefined : { path, query });
    });
  }

  it("stays as it is once it is normalised", () => {
    for (const target of ["/a/../b", "/%2e%2e/x/%41", "/a\\b/./", "//..//x", "/%25%32%65"]) {
      const once = normalizedTarget(target);
      assert.deepEqual(normalizedTarget(once?.path ?? ""), once);
    }
  });
});
