import type { MatchOperator } from "../../syntax/filter-expression.js";
import type { RegularExpression } from "../../syntax/regular-expression.js";

/** A match whose value has been read as what its field holds. */
export interface Match {
  readonly operator: MatchOperator;
  readonly value: string;
  /** The value of a match on a number or a bool. */
  readonly scalar: bigint | boolean | undefined;
  /** The value as a pattern. @throws {SyntaxError} when it is none. */
  readonly pattern: () => RegularExpression;
}

/**
 * What a selector may name in records of one kind: how to look at it, which operators it knows, and what lies below it.
 * Nothing of the record is copied or made into JSON to be looked at.
 */
export interface Field<Item> {
  readonly operators: ReadonlySet<MatchOperator>;
  /** How a value of this field is written. */
  readonly scalar: "text" | "integer" | "bool";
  /** The field below this one; undefined: there is none of that name. */
  child(name: string): Field<Item> | undefined;
  holds(item: Item, match: Match): boolean;
}

export type Fields<Item> = Readonly<Record<string, Field<Item>>>;

const textOperators: ReadonlySet<MatchOperator> = new Set<MatchOperator>([
  "equal",
  "not-equal",
  "in",
  "not-in",
  "matches",
  "not-matches",
]);
const scalarOperators: ReadonlySet<MatchOperator> = new Set<MatchOperator>(["equal", "not-equal"]);
const mapOperators: ReadonlySet<MatchOperator> = new Set<MatchOperator>(["in", "not-in", "is-empty", "is-not-empty"]);
const listOperators: ReadonlySet<MatchOperator> = new Set<MatchOperator>([...mapOperators, "matches", "not-matches"]);
const emptinessOperators: ReadonlySet<MatchOperator> = new Set<MatchOperator>(["is-empty", "is-not-empty"]);
const noOperators: ReadonlySet<MatchOperator> = new Set<MatchOperator>();

const noChild = (): undefined => undefined;

/** What a match says of something that is not there, such as the key of a map. */
function holdsForNothing({ operator }: Match): boolean {
  return operator.startsWith("not-") || operator === "is-empty";
}

function textHolds(text: string, match: Match): boolean {
  switch (match.operator) {
    case "equal":
      return text === match.value;
    case "not-equal":
      return text !== match.value;
    case "in":
      return text.includes(match.value);
    case "not-in":
      return !text.includes(match.value);
    case "matches":
      return match.pattern().test(text);
    case "not-matches":
      return !match.pattern().test(text);
    case "is-empty":
      return text === "";
    case "is-not-empty":
      return text !== "";
  }
}

export function text<Item>(get: (item: Item) => string): Field<Item> {
  return {
    operators: textOperators,
    scalar: "text",
    child: noChild,
    holds: (item, match) => textHolds(get(item), match),
  };
}

export function integer<Item>(get: (item: Item) => number | bigint): Field<Item> {
  return {
    operators: scalarOperators,
    scalar: "integer",
    child: noChild,
    holds: (item, match) => (BigInt(get(item)) === match.scalar) === (match.operator === "equal"),
  };
}

export function bool<Item>(get: (item: Item) => boolean): Field<Item> {
  return {
    operators: scalarOperators,
    scalar: "bool",
    child: noChild,
    holds: (item, match) => (get(item) === match.scalar) === (match.operator === "equal"),
  };
}

export function textList<Item>(get: (item: Item) => readonly string[]): Field<Item> {
  const holds = (list: readonly string[], match: Match): boolean => {
    switch (match.operator) {
      case "in":
      case "equal":
        return list.includes(match.value);
      case "not-in":
      case "not-equal":
        return !list.includes(match.value);
      case "matches":
        return list.some((element) => match.pattern().test(element));
      case "not-matches":
        return !list.some((element) => match.pattern().test(element));
      case "is-empty":
        return list.length === 0;
      case "is-not-empty":
        return list.length > 0;
    }
  };
  return { operators: listOperators, scalar: "text", child: noChild, holds: (item, match) => holds(get(item), match) };
}

function mapHolds(map: Readonly<Record<string, unknown>>, match: Match): boolean {
  switch (match.operator) {
    case "in":
      return Object.hasOwn(map, match.value);
    case "not-in":
      return !Object.hasOwn(map, match.value);
    case "is-empty":
      return Object.keys(map).length === 0;
    default:
      return Object.keys(map).length > 0;
  }
}

/** A map whose values are looked at as `element` says. */
export function map<Item, Element>(
  get: (item: Item) => Readonly<Record<string, Element>>,
  element: Field<Element>,
): Field<Item> {
  const at = (key: string, field: Field<Element>): Field<Item> => ({
    operators: field.operators,
    scalar: field.scalar,
    child: (name) => {
      const child = field.child(name);
      return child && at(key, child);
    },
    holds: (item, match) => {
      const entries = get(item);
      const value = Object.hasOwn(entries, key) ? entries[key] : undefined;
      return value === undefined ? holdsForNothing(match) : field.holds(value, match);
    },
  });
  return {
    operators: mapOperators,
    scalar: "text",
    child: (key) => at(key, element),
    holds: (item, match) => mapHolds(get(item), match),
  };
}

export function textMap<Item>(get: (item: Item) => Readonly<Record<string, string>>): Field<Item> {
  return map(
    get,
    text((value: string) => value),
  );
}

export function structMap<Item, Element>(
  get: (item: Item) => Readonly<Record<string, Element>>,
  fields: Fields<Element>,
): Field<Item> {
  return map(
    get,
    struct((value: Element) => value, fields),
  );
}

/** A list of objects: a match on a field of theirs holds when it does for any of them. */
export function structList<Item, Element>(
  get: (item: Item) => readonly Element[],
  fields: Fields<Element>,
): Field<Item> {
  const anyOf = (field: Field<Element>): Field<Item> => ({
    operators: field.operators,
    scalar: field.scalar,
    child: (name) => {
      const child = field.child(name);
      return child && anyOf(child);
    },
    holds: (item, match) => get(item).some((element) => field.holds(element, match)),
  });
  return {
    operators: emptinessOperators,
    scalar: "text",
    child: (name) => {
      const field = own(fields, name);
      return field && anyOf(field);
    },
    holds: (item, match) => (get(item).length === 0) === (match.operator === "is-empty"),
  };
}

/** A field of a part of an item. */
export function within<Item, Inner>(get: (item: Item) => Inner, field: Field<Inner>): Field<Item> {
  return {
    operators: field.operators,
    scalar: field.scalar,
    child: (name) => {
      const child = field.child(name);
      return child && within(get, child);
    },
    holds: (item, match) => field.holds(get(item), match),
  };
}

export function struct<Item, Inner>(get: (item: Item) => Inner, fields: Fields<Inner>): Field<Item> {
  return {
    operators: noOperators,
    scalar: "text",
    child: (name) => {
      const field = own(fields, name);
      return field && within(get, field);
    },
    holds: () => false,
  };
}

export function own<Item>(fields: Fields<Item>, name: string): Field<Item> | undefined {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}
