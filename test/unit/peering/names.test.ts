import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { validatePeeringMeta, validatePeerName } from "../../../src/peering/names.js";
import { lowerCase } from "../../../src/syntax/names.js";

function textOf(run: () => void): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof PeeringError);
    return `${error.code}: ${error.message}`;
  }
  return "valid";
}

describe("peer names", () => {
  for (const name of ["a", "0", "cluster-02", "a--b", "token", "establish", "x".repeat(63)]) {
    it(`accepts ${name}`, () =>
      assert.equal(
        textOf(() => validatePeerName(name)),
        "valid",
      ));
  }

  for (const name of ["", "-a", "a-", "--AA--", "Upper", "a.b", "a_b", "é", "a\n", "x".repeat(64)]) {
    it(`refuses ${JSON.stringify(name)}`, () => {
      assert.equal(
        textOf(() => validatePeerName(name)),
        `invalid-name: ${name} is not a valid peer name: a valid peering name must consist of lower case ` +
          "alphanumeric characters or '-', and must start and end with an alphanumeric character",
      );
    });
  }

  it("names that differ by case alone are one (ST17)", () => {
    assert.equal(lowerCase("TheName"), lowerCase("TheNAME"));
  });
});

describe("metadata", () => {
  const pair = (key: string, value: string, why: string): string =>
    `invalid-argument: meta tags failed validation: Couldn't load metadata pair ('${key}', '${value}'): ${why}`;
  const long = "k".repeat(129);
  const value = "v".repeat(513);
  const umlauts = "ü".repeat(257);

  for (const [meta, expected] of [
    [{}, "valid"],
    [{ a: "", "A_b-9": "ü" }, "valid"],
    [{ ["k".repeat(128)]: "v".repeat(512) }, "valid"],
    [{ "": "v" }, pair("", "v", "Key cannot be blank")],
    [{ "a b": "v" }, pair("a b", "v", "Key contains invalid characters")],
    [{ "a\n": "v" }, pair("a\n", "v", "Key contains invalid characters")],
    [{ [long]: "v" }, pair(long, "v", "Key is too long (limit: 128 characters)")],
    [{ "consul-x": "v" }, pair("consul-x", "v", "Key prefix 'consul-' is reserved for internal use")],
    [{ k: value }, pair("k", value, "Value is too long (limit: 512 characters)")],
    [{ k: umlauts }, pair("k", umlauts, "Value is too long (limit: 512 characters)")],
  ] as const) {
    const shown = JSON.stringify(meta);
    it(`judges ${shown.length > 40 ? `${shown.slice(0, 40)}…` : shown}`, () => {
      assert.equal(
        textOf(() => validatePeeringMeta(meta)),
        expected,
      );
    });
  }

  it("takes 64 pairs and no more", () => {
    const pairs = (count: number): Record<string, string> =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, "v"]));
    assert.equal(
      textOf(() => validatePeeringMeta(pairs(64))),
      "valid",
    );
    assert.equal(
      textOf(() => validatePeeringMeta(pairs(65))),
      "invalid-argument: meta tags failed validation: Node metadata cannot contain more than 64 key/value pairs",
    );
  });
});
