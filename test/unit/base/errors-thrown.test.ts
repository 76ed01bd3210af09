import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";

/** Where a broken invariant is found, and nothing that a caller gives: each of its errors says so by its class. */
const INVARIANT_FILES: readonly string[] = [
  "src/base/latest.ts",
  "src/host/effects.ts",
  "src/peering/state-machine.ts",
  "src/peering/transactions.ts",
  "src/rpc/rpc-call.ts",
  "src/stores/records.ts",
  "src/transport/bind.ts",
];

it("a broken invariant is no TypeError, which is a wrong argument", () => {
  for (const file of INVARIANT_FILES) {
    const text = readFileSync(file, "utf8");
    assert.match(text, /new InvariantError\(/, file);
    assert.doesNotMatch(text, /new TypeError\(/, file);
  }
  const others = readdirSync("src", { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .filter((file) => /class \w*Invariant\w* extends/.test(readFileSync(join("src", file), "utf8")));
  assert.deepEqual(others, [join("base", "errors.ts")], "there is one such class");
});
