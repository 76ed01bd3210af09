import type { JsonObject, Proxy as ProxyDefinition, StringMap } from "../model/instance.js";
import { isEmptyMap } from "../model/kept-members.js";
import { listing } from "../model/listing.js";
import { type Emptiness, type FieldName, type Table, type Uses, useFields, type View } from "../model/record-table.js";
import { agentProxyShape, proxyShape, type Shape, type Field as ShapeField } from "../model/shapes.js";
import {
  bool,
  type Elements,
  elementsOf,
  type Field,
  type Fields,
  group,
  integer,
  struct,
  structList,
  structMap,
  text,
  textList,
  textMap,
  within,
} from "./filter/fields.js";
import { type Json, LazyList, LazyStruct, StructForm, type StructMember, textMap as textMapJson } from "./json.js";
import type { JsonSchema } from "./operation.js";
import * as docs from "./operation-docs.js";
import { shapeField, shapeFields } from "./shape-fields.js";
import { fieldJson, fieldSchema, structJson, structSchema } from "./shape-json.js";

// Members of answers, of their document and of filters, made from the tables of `model/records.ts`.

/** One member of the JSON of an item. */
export interface Member<Item> {
  readonly name: string;
  /** Undefined: it is left out. */
  readonly json: StructMember<Item>;
  readonly schema: JsonSchema;
  /** Whether it is never left out. */
  readonly always: boolean;
  /** The field as filters see it; undefined: they cannot name it. */
  readonly filter: Field<Item> | undefined;
}

export type Members<Item> = readonly Member<Item>[];

/** How items are written that have these members. */
export function writerOf<Item>(members: Members<Item>): (item: Item) => LazyStruct {
  const form = new StructForm(members.map(({ name, json }) => [name, json] as const));
  return (item) => LazyStruct.of(item, form);
}

/** The schema of items that have these members, for the API's document. */
export function schemaOf<Item>(members: Members<Item>): JsonSchema {
  return docs.objectOf(
    Object.fromEntries(members.map(({ name, always, schema }) => [always ? name : `${name}?`, schema])),
  );
}

/** The fields that filters may name in items that have these members. */
export function filterOf<Item>(members: Members<Item>): Fields<Item> {
  return Object.fromEntries(members.flatMap(({ name, filter }) => (filter === undefined ? [] : [[name, filter]])));
}

/** The members of a table in a view. @param empty - where the view shows empty values in another way than usual. */
export function membersOf<Item>(
  table: Table<Item>,
  view: View,
  empty?: Readonly<Partial<Record<keyof Item, Emptiness>>>,
): Members<Item> {
  const made = useFields(table, (field, key) => new MemberUses<Item>(field, view, empty?.[key]));
  return made.filter((member) => member !== undefined);
}

/** Members of a part of an item. */
export function membersIn<Item, Part>(members: Members<Part>, part: (item: Item) => Part): Members<Item> {
  return members.map(({ json, filter, ...member }) => ({
    ...member,
    json: (item: Item) => json(part(item)),
    filter: filter && within(part, filter),
  }));
}

/** A member that other items do not show. */
export function onlyWhere<Item>(member: Member<Item>, isShown: (item: Item) => boolean): Member<Item> {
  return { ...member, always: false, json: (item) => (isShown(item) ? member.json(item) : undefined) };
}

/** Members in the order of an answer, by name: the first, those that are not named, and the last. */
export function ordered<Item>(
  members: Members<Item>,
  first: readonly string[],
  last: readonly string[] = [],
): Members<Item> {
  const named = (names: readonly string[]): Members<Item> =>
    names.flatMap((name) => members.filter((member) => member.name === name));
  return [
    ...named(first),
    ...members.filter(({ name }) => !first.includes(name) && !last.includes(name)),
    ...named(last),
  ];
}

/** A member that is an object, with members that are found in the item itself. */
export function groupMember<Item>(name: string, members: Members<Item>): Member<Item> {
  return { name, always: true, json: writerOf(members), schema: schemaOf(members), filter: group(filterOf(members)) };
}

/** A member that is a list of objects with members of their own. */
export function listMember<Item, Source, Inner>(
  name: string,
  elements: Elements<Item, Source, Inner>,
  members: Members<Inner>,
): Member<Item> {
  const write = writerOf(members);
  const { sources, make } = elements;
  return {
    name,
    always: true,
    json: (item) =>
      LazyList.of(
        listing(sources(item), (source) => make(source, item)),
        write,
      ),
    schema: docs.listOf(schemaOf(members)),
    filter: structList(elements, filterOf(members)),
  };
}

/** A member that is a text; an empty one is left out, unless it is `always` written. */
export function textMember<Item>(name: string, get: (item: Item) => string, always = false): Member<Item> {
  const json: StructMember<Item> = always ? get : (item) => get(item) || undefined;
  return { name, always, json, schema: docs.text, filter: text(get) };
}

/** A member in the form of a field of Consul's records; undefined: it is left out, unless the field is `always` written. */
export function shapeMember<Item>(name: string, get: (item: Item) => unknown, field: ShapeField): Member<Item> {
  const json: StructMember<Item> = (item) => {
    const value = get(item);
    return value === undefined ? field.always : fieldJson(value, field);
  };
  return { name, always: field.always !== undefined, json, schema: fieldSchema(field), filter: shapeField(field, get) };
}

/** A member by the kind of its value. */
class MemberUses<Item> implements Uses<Item, Member<Item> | undefined> {
  readonly #name: string;
  readonly #view: View;
  readonly #empty: Emptiness;

  constructor({ name, flat = name, empty = {} }: FieldName, view: View, instead: Emptiness | undefined) {
    this.#name = view === "flat" ? flat : name;
    this.#view = view;
    this.#empty = instead ?? empty[view] ?? "written";
  }

  text(get: (item: Item) => string): Member<Item> | undefined {
    return this.#member(get, (value) => value === "", same, docs.text, text(get));
  }

  flag(get: (item: Item) => boolean): Member<Item> | undefined {
    return this.#member(get, (value) => !value, same, docs.flag, bool(get));
  }

  int(get: (item: Item) => number): Member<Item> | undefined {
    return this.#member(get, (value) => value === 0, same, { type: "integer" }, integer(get));
  }

  index(get: (item: Item) => bigint): Member<Item> | undefined {
    return this.#member(get, (value) => value === 0n, same, docs.index, integer(get));
  }

  texts(get: (item: Item) => readonly string[]): Member<Item> | undefined {
    return this.#member(get, (value) => value.length === 0, same, docs.texts, textList(get));
  }

  textMap(get: (item: Item) => StringMap): Member<Item> | undefined {
    return this.#member(get, isEmptyMap, textMapJson, docs.textsByKey, textMap(get));
  }

  one<Inner>(get: (item: Item) => Inner | undefined, table: Table<Inner>): Member<Item> | undefined {
    const members = membersOf(table, this.#view);
    const write = writerOf(members);
    const there = (item: Item): Inner => get(item) ?? table.empty;
    const json = (value: Inner | undefined): Json => write(value ?? table.empty);
    return this.#member(get, isNothing, json, schemaOf(members), struct(there, filterOf(members)));
  }

  list<Inner>(get: (item: Item) => readonly Inner[] | undefined, table: Table<Inner>): Member<Item> | undefined {
    const members = membersOf(table, this.#view);
    const write = writerOf(members);
    const isEmpty = (values: readonly Inner[] = []): boolean => values.length === 0;
    const json = (values: readonly Inner[] = []): Json => LazyList.of(values, write);
    const filter = structList(
      elementsOf((item: Item) => get(item) ?? []),
      filterOf(members),
    );
    return this.#member(get, isEmpty, json, docs.listOf(schemaOf(members)), filter);
  }

  map<Inner>(get: (item: Item) => Readonly<Record<string, Inner>>, table: Table<Inner>): Member<Item> | undefined {
    const members = membersOf(table, this.#view);
    const write = writerOf(members);
    const json = (values: Readonly<Record<string, Inner>>): Json =>
      new Map(Object.entries(values).map(([key, value]) => [key, write(value)]));
    const schema = { type: "object", additionalProperties: schemaOf(members) };
    return this.#member(get, isEmptyMap, json, schema, structMap(get, filterOf(members)));
  }

  kept(get: (item: Item) => JsonObject | undefined, shape: Shape): Member<Item> | undefined {
    const json = (value: JsonObject = {}): Json => structJson(value, shape, "consul");
    const filter = struct(get, shapeFields(shape, same, "consul"));
    return this.#member(get, isNothing, json, structSchema(shape), filter);
  }

  proxy(get: (item: Item) => ProxyDefinition | undefined): Member<Item> | undefined {
    const shape = this.#view === "agent" ? agentProxyShape : proxyShape;
    const nothing = structJson({}, shape);
    const json = (value: ProxyDefinition | undefined): Json =>
      value === undefined ? nothing : proxyJson(value, shape);
    return this.#member(get, isNothing, json, structSchema(shape), struct(get, proxyFields));
  }

  #member<Value>(
    get: (item: Item) => Value,
    isEmpty: (value: Value) => boolean,
    json: (value: Value) => Json,
    schema: JsonSchema,
    filter: Field<Item>,
  ): Member<Item> | undefined {
    const name = this.#name;
    switch (this.#empty) {
      case "hidden":
        return undefined;
      case "written":
        return { name, always: true, json: (item) => json(get(item)), schema, filter };
      case "null":
      case "absent": {
        const isNull = this.#empty === "null";
        const nothing = isNull ? null : undefined;
        const jsonOf: StructMember<Item> = (item) => {
          const value = get(item);
          return isEmpty(value) ? nothing : json(value);
        };
        return { name, always: isNull, json: jsonOf, schema: isNull ? docs.orNull(schema) : schema, filter };
      }
    }
  }
}

function same<Value>(value: Value): Value {
  return value;
}

function isNothing(value: unknown): boolean {
  return value === undefined;
}

// Proxies, and what the catalog keeps in Consul's form.

function proxyJson({ destinationServiceId, meshGatewayMode, ...rest }: ProxyDefinition, shape: Shape): Json {
  const own = { ...rest, destinationServiceID: destinationServiceId, meshGateway: { mode: meshGatewayMode } };
  return structJson(own, shape);
}

const proxyFields: Fields<ProxyDefinition | undefined> = {
  ...shapeFields(proxyShape, (proxy: ProxyDefinition | undefined) => proxy),
  DestinationServiceID: text((proxy) => proxy?.destinationServiceId ?? ""),
  MeshGateway: struct((proxy: ProxyDefinition | undefined) => proxy, {
    Mode: text((proxy) => proxy?.meshGatewayMode ?? ""),
  }),
};
