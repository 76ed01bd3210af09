import { LISTED_AT_ONCE } from "../../model/check-groups.js";
import { isEmptyMap } from "../../model/kept-members.js";
import { type Listing, partsOf } from "../../model/listing.js";
import type { MatchOperator } from "../../syntax/filter-expression.js";
import type { RegularExpression } from "../../syntax/regular-expression.js";

/** A match whose value has been read as the type of its field. */
export interface Match {
  readonly operator: MatchOperator;
  readonly value: string;
  /** The value of a match on a number or a bool. */
  readonly scalar: bigint | boolean | undefined;
  /** The value as a pattern. @throws {SyntaxError} when it is not one. */
  readonly pattern: () => RegularExpression;
}

/** Whether something holds for an item. */
export type Predicate<Item> = (item: Item) => boolean;

/**
 * The fields that a selector may name in records of one kind: how to look at each, which operators it knows, and its own fields.
 * Nothing of the record is copied or made into JSON to be looked at.
 */
export interface Field<Item> {
  readonly operators: ReadonlySet<MatchOperator>;
  /** How a value of this field is written. */
  readonly scalar: "text" | "bool" | WholeNumber;
  /** The field below this one; undefined: there is none of that name. */
  child(name: string): Field<Item> | undefined;
  /** Made once for a filter, which may look at any number of items: decisions that depend on the match alone are made here. */
  predicate(match: Match): Predicate<Item>;
}

/** Go's type of a number: it says which values a filter may compare it with. */
export type WholeNumber = "int64" | "uint32" | "uint64";

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

/** The result of a match for a missing value, such as the key of a map. */
function holdsForNothing({ operator }: Match): boolean {
  return operator.startsWith("not-") || operator === "is-empty";
}

export function text<Item>(get: (item: Item) => string): Field<Item> {
  return {
    operators: textOperators,
    scalar: "text",
    child: noChild,
    predicate: ({ operator, value, pattern }) => {
      switch (operator) {
        case "equal":
          return (item) => get(item) === value;
        case "not-equal":
          return (item) => get(item) !== value;
        case "in":
          return (item) => get(item).includes(value);
        case "not-in":
          return (item) => !get(item).includes(value);
        case "matches":
          return (item) => pattern().test(get(item));
        case "not-matches":
          return (item) => !pattern().test(get(item));
        case "is-empty":
          return (item) => get(item) === "";
        case "is-not-empty":
          return (item) => get(item) !== "";
      }
    },
  };
}

export function integer<Item>(get: (item: Item) => number | bigint, scalar: WholeNumber = "int64"): Field<Item> {
  return {
    operators: scalarOperators,
    scalar,
    child: noChild,
    predicate: ({ operator, scalar: given }) => {
      const isEqual = operator === "equal";
      // An integer that no number is equals none.
      const wanted = typeof given === "bigint" && BigInt(Number(given)) === given ? Number(given) : Number.NaN;
      return (item) => {
        const value = get(item);
        return (typeof value === "number" ? value === wanted : value === given) === isEqual;
      };
    },
  };
}

export function bool<Item>(get: (item: Item) => boolean): Field<Item> {
  return {
    operators: scalarOperators,
    scalar: "bool",
    child: noChild,
    predicate: ({ operator, scalar }) => {
      const wanted = operator === "equal" ? scalar === true : scalar !== true;
      return (item) => get(item) === wanted;
    },
  };
}

export function textList<Item>(get: (item: Item) => readonly string[]): Field<Item> {
  return {
    operators: listOperators,
    scalar: "text",
    child: noChild,
    predicate: ({ operator, value, pattern }) => {
      switch (operator) {
        case "in":
        case "equal":
          return (item) => get(item).includes(value);
        case "not-in":
        case "not-equal":
          return (item) => !get(item).includes(value);
        case "matches":
          return (item) => get(item).some((element) => pattern().test(element));
        case "not-matches":
          return (item) => !get(item).some((element) => pattern().test(element));
        case "is-empty":
          return (item) => get(item).length === 0;
        case "is-not-empty":
          return (item) => get(item).length > 0;
      }
    },
  };
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
    predicate: (match) => {
      const holds = field.predicate(match);
      const ofNothing = holdsForNothing(match);
      return (item) => {
        const entries = get(item);
        const value = Object.hasOwn(entries, key) ? entries[key] : undefined;
        return value === undefined ? ofNothing : holds(value);
      };
    },
  });
  return {
    operators: mapOperators,
    scalar: "text",
    child: (key) => at(key, element),
    predicate: ({ operator, value }) => {
      switch (operator) {
        case "in":
          return (item) => Object.hasOwn(get(item), value);
        case "not-in":
          return (item) => !Object.hasOwn(get(item), value);
        case "is-empty":
          return (item) => isEmptyMap(get(item));
        default:
          return (item) => !isEmptyMap(get(item));
      }
    },
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

/** A list inside an item whose elements are made of records of it when they are looked at. */
export interface Elements<Item, Source, Element> {
  /** A long list, or part of one, that is that of several items has the same elements in each of them. */
  readonly sources: (item: Item) => Listing<Source>;
  readonly make: (source: Source, item: Item) => Element;
}

/** A list whose elements are in the item as they are looked at. */
export function elementsOf<Item, Element>(get: (item: Item) => Listing<Element>): Elements<Item, Element, Element> {
  return { sources: get, make: (element) => element };
}

/** A list of objects: a match on a field of theirs holds when it does for any of them. */
export function structList<Item, Source, Element>(
  { sources, make }: Elements<Item, Source, Element>,
  fields: Fields<Element>,
): Field<Item> {
  // Elements are made one by one, and none after the first that holds. No list of them is: it would be one for every item.
  const some = (list: Listing<Source>, item: Item, holds: Predicate<Element>): boolean => {
    for (let index = 0; index < list.length; index++) {
      const source = list.at(index);
      if (source !== undefined && holds(make(source, item))) return true;
    }
    return false;
  };
  const ofAny = (holds: Predicate<Element>): Predicate<Item> => {
    // Long lists that several items share, such as the checks of a node, are looked at once.
    const known = new WeakMap<Listing<Source>, boolean>();
    const someOf = (list: Listing<Source>, item: Item): boolean => {
      if (list.length <= LISTED_AT_ONCE) return some(list, item, holds);
      const found = known.get(list) ?? some(list, item, holds);
      known.set(list, found);
      return found;
    };
    return (item) => {
      const list = sources(item);
      if (list.length <= LISTED_AT_ONCE) return some(list, item, holds);
      return partsOf(list).some((part) => someOf(part, item));
    };
  };
  return {
    operators: emptinessOperators,
    scalar: "text",
    child: (name) => {
      const field = own(fields, name);
      return field && lifted(field, ofAny);
    },
    predicate: ({ operator }) => {
      const isEmpty = operator === "is-empty";
      return (item) => (sources(item).length === 0) === isEmpty;
    },
  };
}

/** A field of something inside an item. @param lift - says of an item what a match says of that. */
function lifted<Item, Inner>(field: Field<Inner>, lift: (holds: Predicate<Inner>) => Predicate<Item>): Field<Item> {
  return {
    operators: field.operators,
    scalar: field.scalar,
    child: (name) => {
      const child = field.child(name);
      return child && lifted(child, lift);
    },
    predicate: (match) => lift(field.predicate(match)),
  };
}

/** A field of a part of an item. */
export function within<Item, Inner>(get: (item: Item) => Inner, field: Field<Inner>): Field<Item> {
  return lifted(field, (holds) => (item) => holds(get(item)));
}

/** A field of a part that may be missing: no match on it holds then, as none on an element of an empty list does. */
export function ifThere<Item, Inner>(get: (item: Item) => Inner | undefined, field: Field<Inner>): Field<Item> {
  return lifted(field, (holds) => (item) => {
    const part = get(item);
    return part !== undefined && holds(part);
  });
}

/** An object whose fields are looked at in the item itself. */
export function group<Item>(fields: Fields<Item>): Field<Item> {
  return { operators: noOperators, scalar: "text", child: (name) => own(fields, name), predicate: () => () => false };
}

export function struct<Item, Inner>(get: (item: Item) => Inner, fields: Fields<Inner>): Field<Item> {
  return within(get, group(fields));
}

export function own<Item>(fields: Fields<Item>, name: string): Field<Item> | undefined {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}
