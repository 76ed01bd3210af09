// Needs no Consul: checks that the scenarios are named well, and that nothing is claimed where there is none to run them with.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { extname } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { mentionedCases } from "../test/support/cases.js";
import { scenarios } from "./scenarios/index.js";

describe("the scenarios with real Consuls", () => {
  it("have names of their own", () => {
    const names = scenarios.map(({ name }) => name);
    assert.deepEqual(
      names.filter((name, index) => names.indexOf(name) !== index),
      [],
    );
  });

  it("name their cases as the map of cases can read them", () => {
    const unread = scenarios.filter(({ proves }) => proves !== undefined && mentionedCases(proves).size === 0);
    assert.deepEqual(
      unread.map(({ name }) => name),
      [],
    );
  });

  it("are skipped, and say so, without CONSUL_BIN", () => {
    const program = fileURLToPath(new URL(`interop${extname(fileURLToPath(import.meta.url))}`, import.meta.url));
    const { CONSUL_BIN: _, NODE_TEST_CONTEXT: __, ...env } = process.env;
    const { status, stdout } = spawnSync(process.execPath, [...process.execArgv, program], { env, encoding: "utf8" });
    assert.match(stdout, /^skipped: CONSUL_BIN names no Consul/);
    assert.equal(status, 0);
  });
});
