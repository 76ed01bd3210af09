import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Flag, FlagError, flagHelp, parseFlags } from "../../../src/cli/flags.js";

const flags: readonly Flag[] = [
  { name: "name", kind: "text", usage: "A name." },
  { name: "format", kind: "text", usage: "A format.", fallback: "pretty" },
  { name: "cas", kind: "boolean", usage: "Compares." },
  { name: "index", kind: "unsigned", usage: "An index." },
  { name: "meta", kind: "pairs", usage: "Pairs." },
  { name: "port", kind: "integer", usage: "A port.", section: "consul" },
  { name: "tag", kind: "texts", usage: "Tags." },
  { name: "token", kind: "text", placeholder: "value", usage: "A token.", section: "http" },
];

describe("flags", () => {
  it("are taken with one dash or two, with = or without", () => {
    for (const args of [["-name", "x"], ["--name", "x"], ["-name=x"], ["--name=x"]]) {
      assert.equal(parseFlags(flags, args).text("name"), "x");
    }
  });

  it("end at the first argument that is not a flag, at a lone dash, and after --", () => {
    assert.deepEqual(parseFlags(flags, ["-cas", "x", "-name", "y"]).rest, ["x", "-name", "y"]);
    assert.deepEqual(parseFlags(flags, ["-", "-cas"]).rest, ["-", "-cas"]);
    assert.deepEqual(parseFlags(flags, ["--", "-cas"]).rest, ["-cas"]);
  });

  it("take the next argument as their value, also when it looks like a flag", () => {
    assert.equal(parseFlags(flags, ["-name", "-cas"]).text("name"), "-cas");
  });

  it("keep the last of texts, all of lists, and split pairs at the first = (CL1)", () => {
    const parsed = parseFlags(flags, ["-name=a", "-name=b=c", "-tag=x", "-tag=y", "-meta", "a=b", "-meta", "c=d=e"]);
    assert.equal(parsed.text("name"), "b=c");
    assert.deepEqual(parsed.texts("tag"), ["x", "y"]);
    assert.deepEqual(parsed.pairs("meta"), { a: "b", c: "d=e" });
  });

  it("have defaults", () => {
    const parsed = parseFlags(flags, []);
    assert.deepEqual(
      [
        parsed.text("name"),
        parsed.text("format"),
        parsed.boolean("cas"),
        parsed.unsigned("index"),
        parsed.given("name"),
      ],
      ["", "pretty", false, 0n, false],
    );
  });

  it("read booleans as Go does, without a value, too", () => {
    assert.equal(parseFlags(flags, ["-cas"]).boolean("cas"), true);
    assert.equal(parseFlags(flags, ["-cas=T"]).boolean("cas"), true);
    assert.equal(parseFlags(flags, ["-cas=F"]).boolean("cas"), false);
  });

  const wrong: readonly (readonly [readonly string[], string])[] = [
    [["-nope"], "flag provided but not defined: -nope"],
    [["--nope=1"], "flag provided but not defined: -nope"],
    [["-name"], "flag needs an argument: -name"],
    [["---name"], "bad flag syntax: ---name"],
    [["-=x"], "bad flag syntax: -=x"],
    [["-cas=maybe"], 'invalid boolean value "maybe" for -cas: parse error'],
    [["-index", "x"], 'invalid value "x" for flag -index: parse error'],
    [["-index", "18446744073709551616"], 'invalid value "18446744073709551616" for flag -index: value out of range'],
    [["-port", "x"], 'invalid value "x" for flag -port: strconv.Atoi: parsing "x": invalid syntax'],
    [
      ["-port=99999999999999999999"],
      'invalid value "99999999999999999999" for flag -port: strconv.Atoi: parsing "99999999999999999999": value out of range',
    ],
    [["-meta", "x"], 'invalid value "x" for flag -meta: Missing "=" value in argument: x'],
  ];
  for (const [args, text] of wrong) {
    it(`refuse ${args.join(" ")}, and say which there are`, () => {
      assert.throws(
        () => parseFlags(flags, args),
        (error) =>
          error instanceof FlagError &&
          error.message === text &&
          error.usage.startsWith("Usage:\n  -cas\n    \tCompares.\n"),
      );
    });
  }

  it("are listed in the help of a command by their sections", () => {
    const help = flagHelp(flags);
    assert.match(
      help,
      /^HTTP API Options\n\n {2}-token=<value>\n {5}A token\.\n\nCommand Options\n\n {2}-cas\n {5}Compares\.\n/,
    );
    assert.match(help, /\n\nOptions of consul agent\n\n {2}-port=<int>\n {5}A port\.$/);
  });
});
