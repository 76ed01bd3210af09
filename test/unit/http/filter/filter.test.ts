import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../../src/base/errors.js";
import {
  bool,
  elementsOf,
  type Fields,
  integer,
  struct,
  structList,
  structMap,
  text,
  textList,
  textMap,
} from "../../../../src/http/filter/fields.js";
import { compileFilter } from "../../../../src/http/filter/filter.js";
import { type Expression, parseExpression } from "../../../../src/syntax/filter-expression.js";

interface Thing {
  readonly name: string;
  readonly port: number;
  readonly native: boolean;
  readonly tags: readonly string[];
  readonly meta: Readonly<Record<string, string>>;
  readonly addresses: Readonly<Record<string, { readonly address: string; readonly port: number }>>;
  readonly checks: readonly { readonly status: string; readonly tags: readonly string[] }[];
}

const addressFields: Fields<Thing["addresses"][string]> = {
  Address: text(({ address }) => address),
  Port: integer(({ port }) => port),
};
const thingFields: Fields<Thing> = {
  Service: text(({ name }) => name),
  Port: integer(({ port }) => port),
  Native: bool(({ native }) => native),
  Tags: textList(({ tags }) => tags),
  Meta: textMap(({ meta }) => meta),
  TaggedAddresses: structMap(({ addresses }) => addresses, addressFields),
};
const checkFields: Fields<Thing["checks"][number]> = {
  Status: text(({ status }) => status),
  Tags: textList(({ tags }) => tags),
};
const fields: Fields<{ readonly service: Thing }> = {
  Service: struct(({ service }) => service, thingFields),
  Checks: structList(
    elementsOf(({ service }) => service.checks),
    checkFields,
  ),
};

const web: Thing = {
  name: "web",
  port: 8080,
  native: false,
  tags: ["v1", "Primary"],
  meta: { version: "1", "a-b": "c", empty: "" },
  addresses: { lan: { address: "10.0.0.1", port: 80 } },
  checks: [
    { status: "passing", tags: [] },
    { status: "warning", tags: ["x"] },
  ],
};
const bare: Thing = { name: "", port: 0, native: true, tags: [], meta: {}, addresses: {}, checks: [] };

function holds(expression: string, thing: Thing = web): boolean {
  return compileFilter(expression, fields).holds({ service: thing });
}

function refused(expression: string): string {
  try {
    holds(expression);
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    assert.equal(error.code, "invalid-argument");
    return error.message;
  }
  return assert.fail(`${expression} was accepted`);
}

describe("the table of filter expressions (ch4 case 64)", () => {
  const table: readonly (readonly [string, boolean, Thing?])[] = [
    // Text: `in` and `contains` look for a part of it.
    ["Service.Service == web", true],
    ['Service.Service == "web"', true],
    ["Service.Service == `web`", true],
    ["Service.Service != web", false],
    ["Service.Service == Web", false],
    ['"e" in Service.Service', true],
    ["e in Service.Service", true],
    ['"x" not in Service.Service', true],
    ["Service.Service contains eb", true],
    ["Service.Service not contains eb", false],
    ["Service.Service matches `^w.b$`", true],
    ["Service.Service not matches `^w.b$`", false],
    ["Service.Service matches e", true],
    // Numbers and bools, also in quotes and in other bases.
    ["Service.Port == 8080", true],
    ['Service.Port == "8080"', true],
    ["Service.Port==8080", true],
    ["Service.Port != 8080", false],
    ['Service.Port == "0x1f90"', true],
    ['Service.Port == "017620"', true],
    ["Service.Port == -1", false],
    ["Service.Native == false", true],
    ["Service.Native != true", true],
    ["Service.Native == f", true],
    // Lists: membership.
    ["v1 in Service.Tags", true],
    ["v2 in Service.Tags", false],
    ["v not in Service.Tags", true],
    ["Service.Tags contains Primary", true],
    ["Service.Tags is empty", false],
    ["Service.Tags is not empty", true],
    ["Service.Tags is empty", true, bare],
    ["Service.Tags matches `^Pri`", true],
    ["Service.Tags not matches `^Pri`", true, bare],
    // Lists of objects: any of them.
    ["Checks.Status == warning", true],
    ["Checks.Status == critical", false],
    ["Checks.Status != warning", true],
    ["Checks.Status != warning", false, bare],
    ["x in Checks.Tags", true],
    ["Checks is empty", true, bare],
    ["Checks is not empty", true],
    // Maps, and keys that are not there.
    ["Service.Meta.version == 1", true],
    ['Service.Meta["a-b"] == c', true],
    ['Service["Meta"].version == "1"', true],
    ["version in Service.Meta", true],
    ['"a-b" in Service.Meta', true],
    ["other not in Service.Meta", true],
    ["Service.Meta is empty", false],
    ["Service.Meta is empty", true, bare],
    ["Service.Meta.other == x", false],
    ["Service.Meta.other != x", true],
    ["x in Service.Meta.other", false],
    ["x not in Service.Meta.other", true],
    ["Service.Meta.other matches `.`", false],
    ["Service.Meta.other not matches `.`", true],
    ["Service.Meta.constructor != x", true],
    ["toString in Service.Meta", false],
    ['Service.Meta.empty == ""', true],
    ["Service.TaggedAddresses.lan.Address == `10.0.0.1`", true],
    ["Service.TaggedAddresses.lan.Port == 80", true],
    ["Service.TaggedAddresses.wan.Port == 80", false],
    ["Service.TaggedAddresses.wan.Port != 80", true],
    ["lan in Service.TaggedAddresses", true],
    // And, or, not: `and` binds more tightly.
    ["Service.Port == 1 and Service.Port == 2 or Service.Service == web", true],
    ["Service.Service == web or Service.Port == 1 and Service.Port == 2", true],
    ["(Service.Service == web or Service.Port == 1) and Service.Port == 2", false],
    ["not Service.Service == web", false],
    ["not not Service.Service == web", true],
    ["not (Service.Port == 1 or Service.Port == 2)", true],
    ["not Service.Port == 1 and Service.Service == web", true],
    ["  ( ( Service.Port == 8080 ) )  ", true],
    ["Service.Port == 8080\n\tand\n\tService.Service == web", true],
    // Words of the language are names and values as well.
    ["not in Service.Service", false],
    ["in in Service.Service", false],
    ["and not in Service.Tags", true],
    ["Service.Service == or or Service.Service == web", true],
  ];
  for (const [expression, expected, thing] of table) {
    it(`${JSON.stringify(expression)} is ${expected}${thing === undefined ? "" : " for what is empty"}`, () => {
      assert.equal(holds(expression, thing), expected);
    });
  }

  const texts: readonly (readonly [string, string])[] = [
    ["Service.Nope == x", 'Selector "Service.Nope" is not valid'],
    ["Nope.Service == x", 'Selector "Nope" is not valid'],
    ["Service.Meta.a.b == x", 'Selector "Service.Meta.a.b" is not valid'],
    ["constructor == x", 'Selector "constructor" is not valid'],
    ["Service.toString == x", 'Selector "Service.toString" is not valid'],
    ["x in Service.Port", 'Invalid match operator "In" for selector "Service.Port"'],
    ["Service.Port is empty", 'Invalid match operator "Is Empty" for selector "Service.Port"'],
    ["Service.Service is not empty", 'Invalid match operator "Is Not Empty" for selector "Service.Service"'],
    ["Service.Tags == v1", 'Invalid match operator "Equal" for selector "Service.Tags"'],
    ["Service == v1", 'Invalid match operator "Equal" for selector "Service"'],
    ["Service.Meta matches x", 'Invalid match operator "Matches" for selector "Service.Meta"'],
    [
      "Service.Port == abc",
      'Failed to coerce value "abc" for selector "Service.Port": strconv.ParseInt: parsing "abc": invalid syntax',
    ],
    [
      'Service.Port == "08"',
      'Failed to coerce value "08" for selector "Service.Port": strconv.ParseInt: parsing "08": invalid syntax',
    ],
    [
      "Service.Port == 99999999999999999999",
      'Failed to coerce value "99999999999999999999" for selector "Service.Port": strconv.ParseInt: parsing "99999999999999999999": value out of range',
    ],
    [
      "Service.Native == 2",
      'Failed to coerce value "2" for selector "Service.Native": strconv.ParseBool: parsing "2": invalid syntax',
    ],
  ];
  for (const [expression, expected] of texts) {
    it(`refuses ${JSON.stringify(expression)}`, () => {
      assert.equal(refused(expression), `Failed to create boolean expression evaluator: ${expected}`);
    });
  }

  const places: readonly (readonly [string, string])[] = [
    ["Service.Port ==", "1:16 (15)"],
    ["", "1:1 (0)"],
    ["Service.Port == 80a", "1:19 (18)"],
    ["(Service.Port == 80", "1:20 (19)"],
    ["Service.Port == 80 and", "1:23 (22)"],
    ["Service.Port == 80\nor ä", "2:4 (22)"],
    ['Service.Service == "web', "1:20 (19)"],
    ["Service.Port == 80)", "1:19 (18)"],
  ];
  for (const [expression, place] of places) {
    it(`says where ${JSON.stringify(expression)} goes wrong`, () => {
      const start = `Failed to create boolean expression evaluator: ${place}: no match found, expected: `;
      assert.equal(refused(expression).slice(0, start.length), start);
    });
  }

  it("bounds what all patterns of a filter take for one item, and begins again with the next", () => {
    const slow = "Service.Service matches `(a?){100}z`";
    const service: Thing = { ...web, name: "a".repeat(1_000) };
    const one = compileFilter(slow, fields);
    for (let item = 0; item < 3; item++) assert.equal(one.holds({ service }), false);
    const many = compileFilter(Array.from({ length: 20 }, () => slow).join(" or "), fields);
    assert.throws(() => many.holds({ service }), { code: "resource-exhausted" });
    assert.equal(many.holds({ service: web }), false);
  });

  it("refuses an invalid pattern when there is something to match", () => {
    const filter = compileFilter("Service.Service matches `(`", fields);
    assert.throws(
      () => filter.holds({ service: web }),
      (error) =>
        error instanceof PeeringError &&
        error.message === 'Failed to compile regular expression "(": error parsing regexp: missing closing ): `(`',
    );
  });

  it("refuses endless nesting instead of running out of stack", () => {
    assert.match(refused(`${"(".repeat(100_000)}a == b`), /nested more than 200 levels deep$/);
    assert.match(refused(`${"not ".repeat(100_000)}a == b`), /nested more than 200 levels deep$/);
  });

  it("takes long chains", () => {
    assert.equal(holds(Array(2_000).fill("Service.Port == 1").join(" or ")), false);
    assert.equal(holds(Array(2_000).fill("Service.Port == 8080").join(" and ")), true);
  });
});

describe("the work of a filter", () => {
  it("decides once, for any number of items, all that depends on the expression alone", () => {
    let made = 0;
    const name = text(({ name }: Thing) => name);
    const counted: Fields<Thing> = {
      Service: {
        ...name,
        predicate: (match) => {
          made++;
          return name.predicate(match);
        },
      },
    };
    const filter = compileFilter("Service == web and Service != db and Service matches `^w`", counted);
    for (let item = 0; item < 100; item++) assert.equal(filter.holds(web), true);
    assert.equal(made, 3);
  });

  it("makes elements of a list one by one, up to the first that matches", () => {
    let made = 0;
    const sources = Array.from({ length: 100 }, (_, index) => (index === 2 ? "critical" : "passing"));
    const make = (status: string): Thing["checks"][number] => {
      made++;
      return { status, tags: [] };
    };
    const listed: Fields<undefined> = { Checks: structList({ sources: () => sources, make }, checkFields) };
    assert.equal(compileFilter("Checks.Status == critical", listed).holds(undefined), true);
    assert.equal(made, 3);
    assert.equal(compileFilter("Checks is not empty", listed).holds(undefined), true);
    assert.equal(made, 3);
  });

  it("compares whole numbers exactly, those that a number cannot hold among them", () => {
    const number: Fields<{ readonly of: number | bigint }> = { N: integer(({ of }) => of) };
    const equal = (value: string, of: number | bigint): boolean => {
      const unequal = compileFilter(`N != ${JSON.stringify(value)}`, number).holds({ of });
      const holds = compileFilter(`N == ${JSON.stringify(value)}`, number).holds({ of });
      assert.notEqual(holds, unequal);
      return holds;
    };
    assert.equal(equal("9007199254740993", 9_007_199_254_740_992), false);
    assert.equal(equal("9007199254740992", 9_007_199_254_740_992), true);
    assert.equal(equal("9007199254740993", 9_007_199_254_740_993n), true);
    assert.equal(equal("9007199254740993", 9_007_199_254_740_992n), false);
    assert.equal(equal("0x10", 16), true);
    assert.equal(equal("0x10", 16n), true);
    assert.equal(equal("-0", 0), true);
  });
});

describe("the filter language", () => {
  const quoted = fc.string({ unit: "grapheme" }).map((value) => JSON.stringify(value));
  it("reads every quoted value back", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (value) => {
        // JSON writes a solidus and most characters as they are, and the rest as Go does.
        const expression = parseExpression(`a == ${JSON.stringify(value)}`);
        assert.deepEqual(expression, { type: "match", selector: ["a"], operator: "equal", value });
      }),
    );
  });

  const identifier = fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9_]{0,5}$/);
  const match: fc.Arbitrary<Expression> = fc.record(
    {
      type: fc.constant("match" as const),
      selector: fc.tuple(identifier, fc.string({ maxLength: 4 })).map(([first, second]) => [first, second]),
      operator: fc.constantFrom("equal", "not-equal", "in", "not-in", "matches", "not-matches"),
      value: fc.string({ maxLength: 4 }),
    },
    { noNullPrototype: true },
  );
  const { expression } = fc.letrec<{ expression: Expression }>((tie) => ({
    expression: fc.oneof(
      { depthSize: "small" },
      match,
      fc.record(
        {
          type: fc.constantFrom("and" as const, "or" as const),
          operands: fc.array(tie("expression"), { minLength: 2, maxLength: 3 }),
        },
        { noNullPrototype: true },
      ),
      fc.record({ type: fc.constant("not" as const), operand: match }, { noNullPrototype: true }),
    ),
  }));
  const signs: Readonly<Record<string, string>> = {
    equal: "==",
    "not-equal": "!=",
    in: "contains",
    "not-in": "not contains",
    matches: "matches",
    "not-matches": "not matches",
  };
  function written(tree: Expression): string {
    switch (tree.type) {
      case "match": {
        const [first, ...rest] = tree.selector;
        const selector = [first, ...rest.map((key) => `[${JSON.stringify(key)}]`)].join("");
        return `${selector} ${signs[tree.operator]} ${JSON.stringify(tree.value)}`;
      }
      case "not":
        return `not ${written(tree.operand)}`;
      default:
        return `(${tree.operands.map(written).join(` ${tree.type} `)})`;
    }
  }
  it("reads back whatever it can say", () => {
    fc.assert(fc.property(expression, (tree) => assert.deepEqual(parseExpression(written(tree)), tree)));
  });

  it("answers anything with a filter or a reason", () => {
    const pieces = fc.constantFrom(
      "Service",
      ".",
      "Port",
      "==",
      " ",
      "not",
      "in",
      "(",
      ")",
      "and",
      "or",
      '"',
      "`",
      "8",
      "[",
      "\\",
      "ü",
    );
    const anything = fc.oneof(
      fc.string(),
      fc.array(fc.oneof(pieces, quoted)).map((parts) => parts.join("")),
    );
    fc.assert(
      fc.property(anything, (source) => {
        try {
          assert.equal(typeof holds(source), "boolean");
        } catch (error) {
          assert.ok(error instanceof PeeringError);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
