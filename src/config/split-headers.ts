import type { JsonObject, JsonValue } from "../model/instance.js";
import { isList, isObject, member } from "../model/kept-members.js";
import type { ServiceSplit } from "./config-entry.js";

const REMOVE = "Remove";
const MAPS = ["Add", "Set"] as const;

function isEmpty(value: JsonValue | undefined): boolean {
  return (
    value === undefined || (isObject(value) && Object.keys(value).length === 0) || (isList(value) && value.length === 0)
  );
}

function entriesOf(value: JsonValue | undefined): readonly [string, JsonValue][] {
  return isObject(value) ? Object.entries(value) : [];
}

/** The changes of two steps to headers, one after the other; undefined when both change nothing. */
function merged(base: JsonValue | undefined, overrides: JsonValue | undefined): JsonObject | undefined {
  const both = [base, overrides];
  const headers: Record<string, JsonValue> = {};
  for (const name of MAPS) {
    const map = Object.fromEntries(both.flatMap((each) => entriesOf(member(each, name))));
    if (!isEmpty(map)) headers[name] = map;
  }
  const removed = new Set(both.flatMap((each) => member(each, REMOVE) ?? []));
  if (removed.size > 0) headers[REMOVE] = [...removed];
  return isEmpty(headers) ? undefined : headers;
}

/**
 * A split of a splitter that stands behind another one: as if a request went through `parent` and then through `split`, and its
 * response the other way.
 */
export function mergedSplit(split: ServiceSplit, parent: ServiceSplit): ServiceSplit {
  const { extra, ...rest } = split;
  const request = merged(member(parent.extra, "RequestHeaders"), member(extra, "RequestHeaders"));
  const response = merged(member(extra, "ResponseHeaders"), member(parent.extra, "ResponseHeaders"));
  const headers = {
    ...(request === undefined ? {} : { RequestHeaders: request }),
    ...(response === undefined ? {} : { ResponseHeaders: response }),
  };
  return isEmpty(headers) ? rest : { ...rest, extra: headers };
}
