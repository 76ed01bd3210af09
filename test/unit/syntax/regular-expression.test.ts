import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { RegularExpression } from "../../../src/syntax/regular-expression.js";
import { readGolden } from "../../golden/read.js";

interface Recorded {
  readonly pattern: string;
  readonly subject: string;
  /** Absent: it is a pattern. */
  readonly error?: string;
  /** Absent: it does not match. */
  readonly groups?: readonly string[];
}

describe("patterns that cannot stall", () => {
  const table: readonly (readonly [string, string, boolean])[] = [
    ["", "", true],
    ["b", "abc", true],
    ["^b", "abc", false],
    ["^a.c$", "abc", true],
    ["a.c", "a\nc", false],
    ["(?s)a.c", "a\nc", true],
    ["^b$", "a\nb\nc", false],
    ["(?m)^b$", "a\nb\nc", true],
    ["(?i)STRASSE|Ä", "ä", true],
    ["a(?i:B)c", "abc", true],
    ["a(?i:B)c", "abC", false],
    ["(?i)a(?-i)b", "AB", false],
    ["^(?:ab|cd)+$", "abcdab", true],
    ["^(?:ab|cd)+$", "abc", false],
    ["^(?P<name>a)(?<other>b)$", "ab", true],
    ["^a{2,3}$", "a", false],
    ["^a{2,3}$", "aaa", true],
    ["^a{2,3}$", "aaaa", false],
    ["^a{2}$", "aa", true],
    ["^a{2,}$", "aaaaa", true],
    ["a{,2}", "a{,2}", true],
    ["^a*?b+?c??$", "aabb", true],
    ["^(a*)*$", "aaa", true],
    ["^(|a)*$", "aab", false],
    ["^[a-c\\d-]+$", "ab-9", true],
    ["^[^a-c]+$", "xyz", true],
    ["^[]a]+$", "]a", true],
    ["^[[:alpha:]_[:^space:]]+$", "a_9", true],
    ["^[\\w.]+$", "web.1", true],
    ["\\bweb\\b", "my web app", true],
    ["\\bweb\\b", "website", false],
    ["\\Beb", "web", true],
    ["\\Aweb\\z", "web", true],
    ["^\\Qa.b*\\E$", "a.b*", true],
    ["^\\Qa.b", "a.b", true],
    ["^\\x41\\x{1F600}\\n\\101$", "A😀\nA", true],
    ["^\\pL+\\p{Greek}\\P{Lu}\\p{^Lu}$", "xλyz", true],
    ["^[\\p{Lu}\\d]+$", "A1", true],
    ["^.$", "😀", true],
    ["\\.", "a", false],
  ];
  for (const [pattern, subject, expected] of table) {
    it(`${JSON.stringify(pattern)} ${expected ? "matches" : "does not match"} ${JSON.stringify(subject)}`, () => {
      assert.equal(new RegularExpression(pattern).test(subject), expected);
    });
  }

  // The matches that Go 1.26 found.
  const groups: readonly (readonly [string, string, readonly string[] | undefined])[] = [
    ["^geo-(.*?)-([^-]+?)$", "geo-a-b-c", ["geo-a-b-c", "a-b", "c"]],
    ["(a)(b)?", "ac", ["a", "a", ""]],
    ["(a|ab)(c|bcd)(d*)", "abcd", ["abcd", "a", "bcd", ""]],
    ["(a*)(a*)", "aaa", ["aaa", "aaa", ""]],
    ["(a*?)(a*)", "aaa", ["aaa", "", "aaa"]],
    ["(?U)(a*)(a*)", "aaa", ["", "", ""]],
    ["(?U)(a*?)(a*)", "aaa", ["aaa", "aaa", ""]],
    ["(a*)*", "b", ["", ""]],
    ["(a*)+", "aab", ["aa", "aa"]],
    ["(a|b)*", "abab", ["abab", "b"]],
    ["(?P<x>b)(?<y>c)", "abcd", ["bc", "b", "c"]],
    ["(?:a)(b)", "ab", ["ab", "b"]],
    ["x", "abc", undefined],
    ["(|a)*", "aa", ["", ""]],
    ["(|a)+", "aa", ["", ""]],
    ["(a){2,3}", "aaaa", ["aaa", "a"]],
    ["(a){2,3}?", "aaaa", ["aa", "a"]],
    ["((a)|b)+", "ab", ["ab", "b", "a"]],
    ["(a?){3}", "aa", ["aa", ""]],
    ["(é)(.)", "aé😀b", ["é😀", "é", "😀"]],
    ["^(.*)-(.*)$", "a-b-c", ["a-b-c", "a-b", "c"]],
    ["b|(a)", "ab", ["a", "a"]],
    ["(a+)(b+)?$", "xaab", ["aab", "aa", "b"]],
    ["()", "abc", ["", ""]],
    ["(a??)(a*)", "aa", ["aa", "", "aa"]],
    ["((a*)b)*", "aabab", ["aabab", "ab", "a"]],
  ];
  for (const [pattern, subject, expected] of groups) {
    it(`${JSON.stringify(pattern)} takes its groups of ${JSON.stringify(subject)} as Go does`, () => {
      assert.deepEqual(new RegularExpression(pattern).match(subject), expected);
    });
  }

  it("reads, refuses and matches the recorded patterns as Go 1.26 does", () => {
    const records = readGolden("regexp.jsonl").trim().split("\n");
    const found = { refused: 0, matched: 0, unmatched: 0 };
    for (const line of records) {
      const { pattern, subject, error, groups }: Recorded = JSON.parse(line);
      const answer = (): readonly string[] | undefined => new RegularExpression(pattern).match(subject);
      if (error !== undefined) {
        found.refused++;
        assert.throws(answer, { name: "SyntaxError", message: error }, line);
      } else {
        found[groups === undefined ? "unmatched" : "matched"]++;
        assert.deepEqual(answer(), groups, line);
        assert.equal(new RegularExpression(pattern).test(subject), groups !== undefined, line);
      }
    }
    for (const count of Object.values(found)) assert.ok(count > 300, JSON.stringify(found));
  });

  it("ignores case as JavaScript does, which knows the same folding", () => {
    const cased: string[] = [];
    for (let code = 0; code < 0x1f000; code++) {
      const character = String.fromCodePoint(code);
      if (/^\p{Changes_When_Casemapped}$/u.test(character)) cased.push(character);
    }
    assert.ok(cased.length > 2_500);
    const all = cased.join("");
    for (const character of cased) {
      // Only these differ from it in case alone.
      const expected: readonly string[] = all.match(new RegExp(character, "giu")) ?? [];
      assert.ok(expected.includes(character));
      for (const other of expected) assert.equal(new RegularExpression(`(?i)^${character}$`).test(other), true);
      const near = [character.toLowerCase(), character.toUpperCase()].filter((each) => !expected.includes(each));
      for (const other of near) assert.equal(new RegularExpression(`(?i)^${character}$`).test(other), false);
    }
  });

  // Limits of ours, or of both.
  const refused: readonly (readonly [string, RegExp])[] = [
    ["a{1000}{2}", /invalid nested repetition operator: `\{1000\}\{2\}`$/],
    ["(a{1000}b{1000}c){1}", /expression too large/],
    ["(?:a{500}b{500}c{500}d{500}e){1}", /expression too large/],
    ["(?:a{99}b{99}c{99}){9}", /expression too large/],
    [`(${"()".repeat(60)}){1000}`, /expression too large/],
    [`a{${"9".repeat(1_000)}}`, /invalid repeat count: `\{9+\}`$/],
    [`a{1,${"9".repeat(1_000)}}`, /invalid repeat count: `\{1,9+\}`$/],
    ["(".repeat(200), /nests too deeply/],
    [`a${"*(?i)".repeat(20_000)}`, /nests too deeply/],
    [`a${"*\\Q\\E".repeat(20_000)}`, /nests too deeply/],
  ];
  for (const [pattern, reason] of refused) {
    it(`refuses ${JSON.stringify(pattern.slice(0, 40))}`, () => {
      assert.throws(() => new RegularExpression(pattern), { name: "SyntaxError", message: reason });
    });
  }

  it("takes steps in proportion to the text, whatever the pattern", () => {
    for (const pattern of ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*b$", "(x+x+)+y"]) {
      const stepsFor = (length: number): number => {
        const counter = { steps: 0 };
        new RegularExpression(pattern, counter).test(`${"a".repeat(length)}!`);
        return counter.steps;
      };
      const small = stepsFor(1_000);
      assert.ok(stepsFor(10_000) <= small * 11, pattern);
    }
  });

  it("gives up on a long text under a large pattern", () => {
    const pattern = new RegularExpression("(a?){900}b");
    assert.equal(pattern.test("a".repeat(100)), false);
    assert.throws(() => pattern.test("a".repeat(1_000_000)), { code: "resource-exhausted" });
    assert.throws(() => pattern.test("a".repeat(8_000_000)), { code: "resource-exhausted" });
  });

  it("counts the members of a class: a large one under a long text is refused", () => {
    const letters = Array.from({ length: 2_000 }, (_, index) => String.fromCodePoint(0x4e00 + index)).join("");
    for (const pattern of [`[${letters}]`, `[^${letters}]a`, `(?i)[${letters}]`, `[${"\\pL".repeat(2_000)}]`]) {
      const steps = { steps: 0 };
      assert.equal(new RegularExpression(pattern, steps).test("1".repeat(100)), false, pattern);
      assert.ok(steps.steps >= 200_000, pattern);
      const expression = new RegularExpression(pattern);
      assert.throws(() => expression.test("1".repeat(50_000)), { code: "resource-exhausted" }, pattern);
    }
    // One of ordinary size is none.
    assert.equal(new RegularExpression("^[a-zA-Z0-9_.-]{1,512}$").test("web.1".repeat(100)), true);
  });

  // Syntax that both engines know: no Unicode, no flags.
  const atom = fc.constantFrom("a", "b", ".", "[ab]", "[^a]", "\\w", "\\b", "(?:a|b)", "^", "$");
  const piece = fc.tuple(atom, fc.constantFrom("", "", "*", "+", "?", "{1,2}")).map(([what, often]) =>
    // A repeated assertion means something else to JavaScript, or nothing.
    /^[\^$]$|^\\b$/.test(what) ? what : what + often,
  );
  const branch = fc.array(piece, { maxLength: 4 }).map((parts) => parts.join(""));
  const pattern = fc.array(branch, { minLength: 1, maxLength: 3 }).map((branches) => branches.join("|"));
  it("agrees with JavaScript where both know the syntax", () => {
    fc.assert(
      fc.property(
        pattern,
        fc.string({ unit: fc.constantFrom("a", "b", "c", "-", "\n"), maxLength: 8 }),
        (source, subject) => {
          // RE2 counts no line separator but \n as the end of a line; the alphabet has no other.
          const expression = new RegularExpression(source);
          assert.equal(expression.test(subject), new RegExp(source, "u").test(subject));
          assert.deepEqual(expression.match(subject)?.[0], new RegExp(source, "u").exec(subject)?.[0]);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it("accepts any text as a pattern, or says why it is invalid", () => {
    const parts = fc.constantFrom(
      "a",
      "(",
      ")",
      "[",
      "]",
      "{",
      "}",
      "1",
      ",",
      "*",
      "?",
      "\\",
      "|",
      "^",
      "-",
      ":",
      "P",
      "<",
      ">",
      "p",
      "x",
      "Q",
      "E",
    );
    fc.assert(
      fc.property(fc.array(parts, { maxLength: 20 }), fc.string(), (source, subject) => {
        try {
          assert.equal(typeof new RegularExpression(source.join("")).test(subject), "boolean");
        } catch (error) {
          assert.ok(error instanceof SyntaxError, String(error));
        }
      }),
      { numRuns: 3_000 },
    );
  });
});
