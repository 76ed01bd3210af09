import assert from "node:assert/strict";
import { it } from "node:test";
import { goQuote } from "../../../src/syntax/go-escape.js";

it("a text is quoted as Go 1.26 prints it with %q", () => {
  const quoted: readonly (readonly [string, string])[] = [
    ["a b", '"a b"'],
    ['"\\', '"\\"\\\\"'],
    ["\u0000\u0007\b\f\n\r\t\u000b\u007f", '"\\x00\\a\\b\\f\\n\\r\\t\\v\\x7f"'],
    ["é ü 😀 \ufffd", '"é ü 😀 \ufffd"'],
    ["\u00a0\u00ad\u200b\u2028\ufeff\ue000", '"\\u00a0\\u00ad\\u200b\\u2028\\ufeff\\ue000"'],
    ["\u{e0001}", '"\\U000e0001"'],
  ];
  for (const [text, shown] of quoted) assert.equal(goQuote(text), shown);
});
