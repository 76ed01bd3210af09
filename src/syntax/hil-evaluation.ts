import { HilError, type HilNode, type HilOperator, type HilValue } from "./hil.js";

type HilType = HilValue["type"];

/** Variables and functions that the expressions of a text may name. */
export interface HilScope {
  readonly variables: ReadonlyMap<string, string>;
  readonly functions: ReadonlyMap<string, HilFunction>;
}

/** Takes one integer, and cannot fail. */
export type HilFunction = (parameter: bigint) => string;

/** A checked expression with its type, to be evaluated in a scope with the same names. */
interface Typed {
  readonly type: HilType;
  readonly compute: (scope: HilScope) => HilValue;
}

/**
 * Checks a text against the names of a scope.
 * @returns what computes the text in a scope with the same names. @throws {HilError} with HIL's text when it cannot be computed.
 * @throws {HilError} with HIL's text, for unknown names first, then for types that do not fit.
 */
export function compileHil(node: HilNode, scope: HilScope): (scope: HilScope) => string {
  checkNames(node, scope);
  const text = converted(typed(node, scope), "string");
  if (text === undefined) throw new HilError("not a text");
  return (values) => String(text.compute(values).value);
}

function childrenOf(node: HilNode): readonly HilNode[] {
  switch (node.kind) {
    case "output":
      return node.parts;
    case "operation":
      return node.operands;
    case "conditional":
      return [node.condition, node.yes, node.no];
    case "call":
      return node.parameters;
    case "index":
      return [node.target, node.key];
    default:
      return [];
  }
}

function checkNames(node: HilNode, scope: HilScope): void {
  for (const child of childrenOf(node)) checkNames(child, scope);
  const refuse = (why: string): HilError => new HilError(`${node.at.line}:${node.at.column}: ${why}`);
  if (node.kind === "variable" && !scope.variables.has(node.name)) {
    throw refuse(`unknown variable accessed: ${node.name}`);
  }
  if (node.kind === "call") {
    if (!scope.functions.has(node.name)) throw refuse(`unknown function called: ${node.name}`);
    const { length } = node.parameters;
    if (length !== 1) throw refuse(`${node.name}: expected 1 arguments, got ${length}`);
  }
}

function typed(node: HilNode, scope: HilScope): Typed {
  const children = childrenOf(node).map((child) => typed(child, scope));
  try {
    return combined(node, children);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new HilError(`At column ${node.at.column}, line ${node.at.line}: ${error.message}`);
  }
}

/** @throws {TypeError} when the types of the children do not fit. */
function combined(node: HilNode, children: readonly Typed[]): Typed {
  const [first, second, third] = children;
  switch (node.kind) {
    case "literal":
      return { type: node.value.type, compute: () => node.value };
    case "variable":
      return { type: "string", compute: ({ variables }) => string(variables.get(node.name) ?? "") };
    case "output": {
      const parts = children.map((child) => required(child, "string", "output of an HIL expression must be a string"));
      return { type: "string", compute: (scope) => string(parts.map((part) => part.compute(scope).value).join("")) };
    }
    case "operation":
      return operation(node.operator, children);
    case "conditional":
      return conditional(required(first, "bool", `condition must be type bool, not ${printed(first)}`), second, third);
    case "call": {
      const wanted = `${node.name}: argument 1 should be type int, got ${printed(first)}`;
      const parameter = required(first, "int", wanted);
      return {
        type: "string",
        compute: (scope) => {
          const { value } = parameter.compute(scope);
          return string(typeof value === "bigint" ? (scope.functions.get(node.name)?.(value) ?? "") : "");
        },
      };
    }
    case "index":
      // Every variable is a string.
      throw new TypeError("invalid index operation into non-indexable type: TypeString");
  }
}

function conditional(condition: Typed, yes: Typed | undefined, no: Typed | undefined): Typed {
  if (yes === undefined || no === undefined) throw new TypeError("a conditional has three parts");
  // A string on the true side is converted to the type of the other side, else it is the other way round.
  const type = yes.type === "string" ? no.type : yes.type;
  const unequal = `true and false expression types must match; have ${printed(yes)} and ${printed(no)}`;
  const sides = [required(yes, type, unequal), required(no, type, unequal)] as const;
  return {
    type,
    compute: (scope) => {
      const chosen = condition.compute(scope).value === true;
      // As in HIL both sides are computed, and either can fail.
      const [left, right] = [sides[0].compute(scope), sides[1].compute(scope)];
      return chosen ? left : right;
    },
  };
}

function operation(operator: HilOperator, operands: readonly Typed[]): Typed {
  const anyFloat = operands.some(({ type }) => type === "float");
  const numeric = anyFloat ? "float" : "int";
  if (operator === "&&" || operator === "||") {
    const [left, right] = operands.map((operand) =>
      required(operand, "bool", `logical operators require boolean operands, not ${named(operand.type)}`),
    );
    return computed("bool", left, right, (one, other) => bool(operator === "&&" ? one && other : one || other));
  }
  const equality = operator === "==" || operator === "!=";
  // For equality the first operand decides the type; only numbers are larger or smaller.
  const type = equality ? (operands[0]?.type ?? "string") : numeric;
  const [left, right] = operands.map((operand, index) =>
    required(operand, type, `operand ${index + 1} should be ${named(type)}, got ${named(operand.type)}`),
  );
  switch (operator) {
    case "==":
      return computed("bool", left, right, (one, other) => bool(one === other));
    case "!=":
      return computed("bool", left, right, (one, other) => bool(one !== other));
    case "<":
      return computed("bool", left, right, (one, other) => bool(one < other));
    case "<=":
      return computed("bool", left, right, (one, other) => bool(one <= other));
    case ">":
      return computed("bool", left, right, (one, other) => bool(one > other));
    case ">=":
      return computed("bool", left, right, (one, other) => bool(one >= other));
    default: {
      if (operator === "%" && anyFloat) throw new TypeError("modulo cannot be used with floats");
      return computed(numeric, left, right, (one, other) => arithmetic(operator, one, other));
    }
  }
}

type Raw = HilValue["value"];

function computed(
  type: HilType,
  left: Typed | undefined,
  right: Typed | undefined,
  combine: (left: Raw, right: Raw) => HilValue,
): Typed {
  if (left === undefined || right === undefined) throw new TypeError("an operator has two operands");
  return {
    type,
    compute: (scope) => {
      const one = left.compute(scope).value;
      return combine(one, right.compute(scope).value);
    },
  };
}

function arithmetic(operator: "+" | "-" | "*" | "/" | "%", left: Raw, right: Raw): HilValue {
  if (typeof left === "bigint" && typeof right === "bigint") {
    if (right === 0n && (operator === "/" || operator === "%")) {
      throw new HilError("__builtin_IntMath: divide by zero");
    }
    return int(wholeNumbers[operator](left, right));
  }
  const [one, other] = [Number(left), Number(right)];
  if (operator === "+") return float(one + other);
  if (operator === "-") return float(one - other);
  return float(operator === "*" ? one * other : one / other);
}

const wholeNumbers: Readonly<Record<"+" | "-" | "*" | "/" | "%", (left: bigint, right: bigint) => bigint>> = {
  "+": (left, right) => left + right,
  "-": (left, right) => left - right,
  "*": (left, right) => left * right,
  "/": (left, right) => left / right,
  "%": (left, right) => left % right,
};

// Conversions, as in HIL.

type Conversion = (value: HilValue) => HilValue;

const conversions: Readonly<Record<HilType, Readonly<Partial<Record<HilType, Conversion>>>>> = {
  float: { int: ({ value }) => int(truncated(Number(value))), string: ({ value }) => string(floatText(Number(value))) },
  int: { float: ({ value }) => float(Number(value)), string: ({ value }) => string(String(value)) },
  string: {
    int: ({ value }) => int(integer(String(value))),
    float: ({ value }) => float(number(String(value))),
    bool: ({ value }) => bool(truth(String(value))),
  },
  bool: { string: ({ value }) => string(String(value)) },
};

/** Undefined: there is no such conversion. */
function converted(given: Typed, type: HilType): Typed | undefined {
  if (given.type === type) return given;
  const convert = conversions[given.type][type];
  return convert && { type, compute: (scope) => convert(given.compute(scope)) };
}

/** @throws {TypeError} `otherwise`: it cannot be had as that type. */
function required(given: Typed | undefined, type: HilType, otherwise: string): Typed {
  const fitting = given && converted(given, type);
  if (fitting === undefined) throw new TypeError(otherwise);
  return fitting;
}

const MIN_INT = -(2n ** 63n);

function truncated(value: number): bigint {
  // The result of Go for others depends on the machine; this is that of amd64.
  return Math.abs(value) < 2 ** 63 ? BigInt(Math.trunc(value)) : MIN_INT;
}

function integer(text: string): bigint {
  const refuse = (why: string): HilError =>
    new HilError(`__builtin_StringToInt: strconv.ParseInt: parsing ${JSON.stringify(text)}: ${why}`);
  const [, sign = "", digits = ""] = /^([+-]?)(.*)$/s.exec(text) ?? [];
  // `0` in front means octal, as in Go.
  const plain = digits.replace(/^0(?=[0-7_])/, "0o").replace(/(?<=[0-9a-fA-FxXoObB])_(?=[0-9a-fA-F])/g, "");
  if (!/^(?:0|[1-9]\d*|0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+)$/.test(plain)) throw refuse("invalid syntax");
  if (plain.length > 80) throw refuse("value out of range");
  const value = sign === "-" ? -BigInt(plain) : BigInt(plain);
  if (value >= -MIN_INT || value < MIN_INT) throw refuse("value out of range");
  return value;
}

function number(text: string): number {
  if (/^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/.test(text)) return Number(text);
  if (/^nan$/i.test(text)) return Number.NaN;
  if (/^[+-]?inf(?:inity)?$/i.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  throw new HilError(`__builtin_StringToFloat: strconv.ParseFloat: parsing ${JSON.stringify(text)}: invalid syntax`);
}

function truth(text: string): boolean {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(text)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(text)) return false;
  throw new HilError(`__builtin_StringToBool: strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

/** The shortest text of a float, as Go's `%g` writes it. */
function floatText(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  if (Object.is(value, -0)) return "-0";
  const [digits = "", exponent = "0"] = value.toExponential().split("e");
  const power = Number(exponent);
  if (power >= -4 && power < 6) return value.toFixed(Math.max(0, digits.replace(/[-.]/g, "").length - 1 - power));
  return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

function string(value: string): HilValue {
  return { type: "string", value };
}

function int(value: bigint): HilValue {
  return { type: "int", value: BigInt.asIntN(64, value) };
}

function float(value: number): HilValue {
  return { type: "float", value };
}

function bool(value: unknown): HilValue {
  return { type: "bool", value: value === true };
}

/** As HIL names types in some of its errors. */
function named(type: HilType): string {
  return `Type${type.charAt(0).toUpperCase()}${type.slice(1)}`;
}

/** As HIL names them in others. */
function printed(given: Typed | undefined): string {
  return `type ${given?.type ?? "invalid"}`;
}
