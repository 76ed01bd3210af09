// Writes src/wire/gen/envoy-types.ts: names, numbers and types of the fields of Envoy's messages, from the files that `@grpc/grpc-js-xds`
// ships, for resources that operators write themselves.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs";

const FOLDERS = ["envoy-api", "xds", "googleapis", "protoc-gen-validate"].map((folder) =>
  join("node_modules/@grpc/grpc-js-xds/deps", folder),
);
const [API = ""] = FOLDERS;
/** Messages that may stand by themselves, in a field of type `Any`. */
const STARTS = /^\.envoy\.(?:config\.(?:listener|cluster|trace|accesslog|route)|extensions)\./;

const root = new protobuf.Root();
root.resolvePath = (_origin, target) =>
  [...FOLDERS, "node_modules/protobufjs"].map((folder) => join(folder, target)).find(existsSync) ?? target;

/** Files of other projects are not there; those that need them are left out. */
const complete = new Map<string, boolean>();
function isComplete(path: string): boolean {
  const known = complete.get(path);
  if (known !== undefined) return known;
  const file = FOLDERS.map((folder) => join(folder, path)).find(existsSync);
  complete.set(path, true);
  const imports =
    file === undefined ? [] : readFileSync(file, "utf8").matchAll(/^import (?:public |weak )?"([^"]+)";/gm);
  const isThere = file !== undefined || path.startsWith("google/protobuf/");
  const result = isThere && [...imports].every(([, imported = ""]) => isComplete(imported));
  complete.set(path, result);
  return result;
}
const files = readdirSync(API, { recursive: true, encoding: "utf8" })
  .filter((path) => /^envoy\/(?:config|extensions|type)\/.*\/v3\/[a-z0-9_]+\.proto$/.test(path) && isComplete(path))
  .sort();
await root.load(files, { keepCase: true });
root.resolveAll();

type Declared = protobuf.Type | protobuf.Enum;

function* declared(space: protobuf.NamespaceBase): Generator<Declared> {
  for (const one of space.nestedArray) {
    if (one instanceof protobuf.Type || one instanceof protobuf.Enum) yield one;
    if (one instanceof protobuf.Namespace) yield* declared(one);
  }
}

const found = new Map<string, Declared>();
function add(type: Declared): void {
  if (found.has(type.fullName)) return;
  found.set(type.fullName, type);
  if (type instanceof protobuf.Enum) return;
  for (const field of type.fieldsArray) {
    const { resolvedType } = field.resolve();
    if (resolvedType !== null) add(resolvedType);
  }
}
for (const type of declared(root)) if (STARTS.test(type.fullName)) add(type);

const nameOf = ({ fullName }: Declared): string => fullName.slice(1);
const sorted = [...found.values()].sort((left, right) => (nameOf(left) < nameOf(right) ? -1 : 1));
const numbers = new Map(sorted.map((type, at) => [type.fullName, at]));

function fieldText(field: protobuf.Field): string {
  const { name, id, repeated, resolvedType, type, partOf, options } = field.resolve();
  const own = resolvedType === null ? type : String(numbers.get(resolvedType.fullName));
  const kind = field instanceof protobuf.MapField ? `{${field.keyType} ${own}` : repeated ? `*${own}` : own;
  const isOptional = options?.["proto3_optional"] === true;
  return [name, id, kind, ...(partOf !== null && !isOptional ? [partOf.name] : [])].join(":");
}

const lines = sorted.map((type) =>
  type instanceof protobuf.Enum
    ? `${nameOf(type)}=${Object.entries(type.values)
        .map(([name, value]) => `${name}:${value}`)
        .join(",")}`
    : `${nameOf(type)} ${type.fieldsArray.map(fieldText).join(",")}`,
);
const text = `// Made by tools/generate-envoy-types.ts. One type a line: "name field:number:type[:oneof],…" or "name=value:number,…"; types are scalars or lines.
export const ENVOY_TYPES: string = ${JSON.stringify(lines.join("\n"))};
`;
writeFileSync("src/wire/gen/envoy-types.ts", text);
console.log(`${lines.length} types, ${text.length} characters`);
