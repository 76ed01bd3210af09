import type { SeededRandom } from "../../src/testing/simulator/scheduler.js";

/** Values at which kinds, signs and bounds turn over. */
const EDGES: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1,
  1.5,
  65_536,
  2 ** 31,
  2 ** 53,
  1e300,
  "",
  "*",
  "x",
  "10s",
  "-1s",
  "9999999h",
  "\u0000",
  "\u00e9",
  "x".repeat(300),
  [],
  {},
  [null],
  [[]],
  { "": null },
];

/** How an input holds JSON. */
export interface JsonForm {
  readonly open: (input: Buffer) => Buffer;
  readonly close: (json: Buffer) => Buffer;
}

export const plainForm: JsonForm = { open: (input) => input, close: (json) => json };

export const base64Form: JsonForm = {
  open: (input) => Buffer.from(input.toString(), "base64"),
  close: (json) => Buffer.from(json.toString("base64")),
};

/** A value within another one. */
interface Place {
  readonly holder: object;
  readonly key: string;
  readonly value: unknown;
}

/**
 * JSON with one value changed, taken from `other`, left out, renamed or repeated: bytes that change at random are seldom JSON
 * any more, and what reads it is never reached. Undefined where the input is none.
 */
export function changedJson(
  input: Buffer,
  other: Buffer,
  { open, close }: JsonForm,
  random: SeededRandom,
): Buffer | undefined {
  const tree = parsed(open(input));
  const place = tree === undefined ? undefined : random.pick(placesIn(tree));
  if (tree === undefined || place === undefined) return undefined;
  const { holder, key, value } = place;
  const strange = random.pick(placesIn(parsed(open(other)) ?? tree));
  switch (random.below(5)) {
    case 0:
      Reflect.set(holder, key, random.pick(EDGES));
      break;
    case 1:
      // A copy, for it may be what holds this place.
      Reflect.set(holder, key, structuredClone(strange?.value));
      break;
    case 2:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else Reflect.deleteProperty(holder, key);
      break;
    case 3:
      Reflect.set(holder, Array.isArray(holder) ? key : (strange?.key ?? key), value);
      break;
    default:
      Reflect.set(holder, key, [value, value]);
  }
  const text: string | undefined = JSON.stringify(tree[0]);
  return text === undefined ? undefined : close(Buffer.from(text));
}

/** In a list, so that the whole is a place, too. */
function parsed(input: Buffer): readonly unknown[] | undefined {
  try {
    return [JSON.parse(input.toString("utf8"))];
  } catch {
    return undefined;
  }
}

function placesIn(tree: object): readonly Place[] {
  const places: Place[] = [];
  const open: object[] = [tree];
  for (let holder = open.pop(); holder !== undefined; holder = open.pop()) {
    for (const [key, value] of Object.entries(holder)) {
      places.push({ holder, key, value });
      if (typeof value === "object" && value !== null) open.push(value);
    }
  }
  return places;
}
