/**
 * Where a value is not what a schema says, each as `path: why`. Of JSON Schema it knows what our OpenAPI document uses, and
 * refuses the rest. It is stricter in one thing: a member that an object's schema does not name is a problem, unless the
 * schema names none, or says what others look like.
 * @throws {TypeError} for a keyword it does not know.
 */
export function schemaProblems(value: unknown, schema: unknown, path = "body"): readonly string[] {
  if (!isObject(schema)) throw new TypeError(`the schema of ${path} is no object`);
  for (const keyword of Object.keys(schema)) {
    if (!KEYWORDS.has(keyword)) throw new TypeError(`${path}: the keyword ${keyword} is not known`);
  }
  const { anyOf, type, enum: values, format, minimum } = schema;
  if (Array.isArray(anyOf)) {
    const attempts = anyOf.map((each: unknown) => schemaProblems(value, each, path));
    // The one that nearly fits says most.
    return attempts.reduce((best, each) => (each.length < best.length ? each : best));
  }
  const problems: string[] = [];
  const types: readonly unknown[] = Array.isArray(type) ? type : [type];
  if (type !== undefined && !types.some((each) => isOfType(value, each))) {
    return [`${path}: ${JSON.stringify(value)} is no ${types.join(" or ")}`];
  }
  if (Array.isArray(values) && !values.includes(value))
    problems.push(`${path}: ${JSON.stringify(value)} is none of them`);
  if (format === "date-time" && typeof value === "string" && !DATE_TIME.test(value)) problems.push(`${path}: no time`);
  if (typeof minimum === "number" && typeof value === "number" && value < minimum) problems.push(`${path}: too small`);
  if (Array.isArray(value) && schema["items"] !== undefined) {
    for (const [index, item] of value.entries()) {
      problems.push(...schemaProblems(item, schema["items"], `${path}[${index}]`));
    }
  }
  if (isObject(value)) problems.push(...memberProblems(value, schema, path));
  return problems;
}

const KEYWORDS: ReadonlySet<string> = new Set([
  ...["anyOf", "type", "enum", "format", "minimum"],
  ...["items", "properties", "required", "additionalProperties"],
]);
const DATE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

function memberProblems(value: JsonRecord, schema: JsonRecord, path: string): readonly string[] {
  const { properties, required, additionalProperties: others } = schema;
  const known = isObject(properties) ? properties : {};
  const problems: string[] = [];
  for (const name of Array.isArray(required) ? required : []) {
    if (!Object.hasOwn(value, String(name))) problems.push(`${path}: ${name} is missing`);
  }
  for (const [name, member] of Object.entries(value)) {
    if (Object.hasOwn(known, name)) problems.push(...schemaProblems(member, known[name], `${path}.${name}`));
    else if (others !== undefined) problems.push(...schemaProblems(member, others, `${path}.${name}`));
    else if (isObject(properties)) problems.push(`${path}: ${name} is not in the schema`);
  }
  return problems;
}

function isOfType(value: unknown, type: unknown): boolean {
  switch (type) {
    case "null":
      return value === null;
    case "array":
      return Array.isArray(value);
    case "object":
      return isObject(value);
    case "integer":
      return Number.isInteger(value);
    default:
      return typeof value === type;
  }
}

type JsonRecord = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
