import { errorText, PeeringError } from "../../base/errors.js";
import {
  type Expression,
  type MatchExpression,
  type MatchOperator,
  parseExpression,
} from "../../syntax/filter-expression.js";
import { RegularExpression } from "../../syntax/regular-expression.js";
import { type Field, type Fields, type Match, own, type Predicate, type WholeNumber } from "./fields.js";

/** A filter that was understood. */
export interface Filter<Item> {
  /**
   * @throws {PeeringError} `invalid-argument` when it has an invalid pattern: as in Consul, found out with the first item;
   *   `resource-exhausted`: its patterns, all together, take too long for this item.
   */
  holds(item: Item): boolean;
}

const operatorNames: Readonly<Record<MatchOperator, string>> = {
  equal: "Equal",
  "not-equal": "Not Equal",
  in: "In",
  "not-in": "Not In",
  "is-empty": "Is Empty",
  "is-not-empty": "Is Not Empty",
  matches: "Matches",
  "not-matches": "Not Matches",
};

/**
 * Makes a filter for records whose fields are `fields` out of an expression of go-bexpr.
 * @throws {PeeringError} `invalid-argument` with Consul's text up to the list of expected tokens (1.21).
 */
export function compileFilter<Item>(expression: string, fields: Fields<Item>): Filter<Item> {
  const counter = { steps: 0 };
  let holds: Predicate<Item>;
  try {
    holds = compile(parseExpression(expression), fields, counter);
  } catch (error) {
    const message = `Failed to create boolean expression evaluator: ${errorText(error)}`;
    throw new PeeringError("invalid-argument", message, { cause: error });
  }
  return {
    holds(item) {
      counter.steps = 0;
      return holds(item);
    },
  };
}

/** Steps that the patterns of a filter have taken for one item. */
interface Counter {
  steps: number;
}

function compile<Item>(expression: Expression, fields: Fields<Item>, counter: Counter): Predicate<Item> {
  switch (expression.type) {
    case "or":
    case "and": {
      const operands = expression.operands.map((operand) => compile(operand, fields, counter));
      return expression.type === "or"
        ? (item) => operands.some((holds) => holds(item))
        : (item) => operands.every((holds) => holds(item));
    }
    case "not": {
      const holds = compile(expression.operand, fields, counter);
      return (item) => !holds(item);
    }
    case "match": {
      const field = fieldOf(expression.selector, fields);
      return field.predicate(matchOf(expression, field, counter));
    }
  }
}

function fieldOf<Item>(selector: readonly string[], fields: Fields<Item>): Field<Item> {
  let field: Field<Item> | undefined;
  for (const [index, name] of selector.entries()) {
    field = field === undefined ? own(fields, name) : field.child(name);
    if (field === undefined) throw new TypeError(`Selector ${quote(selector.slice(0, index + 1))} is not valid`);
  }
  if (field === undefined) throw new TypeError('Invalid selector: ""');
  return field;
}

function matchOf<Item>({ selector, operator, value }: MatchExpression, field: Field<Item>, counter: Counter): Match {
  if (!field.operators.has(operator)) {
    throw new TypeError(`Invalid match operator "${operatorNames[operator]}" for selector ${quote(selector)}`);
  }
  let scalar: bigint | boolean | undefined;
  if (value !== undefined && field.scalar !== "text") {
    try {
      scalar = field.scalar === "bool" ? parseBool(value) : parseInteger(value, field.scalar);
    } catch (error) {
      const problem = `Failed to coerce value ${JSON.stringify(value)} for selector ${quote(selector)}`;
      throw new TypeError(`${problem}: ${errorText(error)}`, { cause: error });
    }
  }
  let compiled: RegularExpression | undefined;
  const pattern = (): RegularExpression => {
    try {
      compiled ??= new RegularExpression(value ?? "", counter);
    } catch (error) {
      const problem = `Failed to compile regular expression ${JSON.stringify(value)}: ${errorText(error)}`;
      throw new PeeringError("invalid-argument", problem, { cause: error });
    }
    return compiled;
  };
  return { operator, value: value ?? "", scalar, pattern };
}

function quote(selector: readonly string[]): string {
  return JSON.stringify(selector.join("."));
}

const INTEGER =
  /^[+-]?(?:0[xX]_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*|0[bB]_?[01]+(?:_[01]+)*|0[oO]?_?[0-7]+(?:_[0-7]+)*|0|[1-9][0-9]*(?:_[0-9]+)*)$/;
const LARGEST: Readonly<Record<WholeNumber, bigint>> = {
  int64: 2n ** 63n - 1n,
  uint32: 2n ** 32n - 1n,
  uint64: 2n ** 64n - 1n,
};

/** As Go's `strconv.ParseInt` and `strconv.ParseUint` read numbers whose prefix gives the base. */
function parseInteger(value: string, type: WholeNumber): bigint {
  const isSigned = type === "int64";
  const refused = (why: string): TypeError =>
    new TypeError(`strconv.${isSigned ? "ParseInt" : "ParseUint"}: parsing ${JSON.stringify(value)}: ${why}`);
  if (!INTEGER.test(value) || (!isSigned && /^[+-]/.test(value))) throw refused("invalid syntax");
  const negative = value.startsWith("-");
  const digits = value.replace(/^[+-]/, "").replaceAll("_", "");
  const magnitude = BigInt(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (magnitude > LARGEST[type] + (negative ? 1n : 0n)) throw refused("value out of range");
  return negative ? -magnitude : magnitude;
}

/** As Go's `strconv.ParseBool`. */
function parseBool(value: string): boolean {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(value)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(value)) return false;
  throw new TypeError(`strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`);
}
