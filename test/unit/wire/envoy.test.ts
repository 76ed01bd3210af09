import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import protobuf from "protobufjs";

// The messages in `proto/envoy` against Envoy's own files, as `@grpc/grpc-js-xds` ships them.

const OFFICIAL = ["envoy-api", "xds", "googleapis", "protoc-gen-validate"].map((folder) =>
  join("node_modules/@grpc/grpc-js-xds/deps", folder),
);

function rootOf(folders: readonly string[]): protobuf.Root {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => {
    const found = [...folders, "node_modules/protobufjs"].map((folder) => join(folder, target)).find(existsSync);
    // Files of Google's that protobufjs has in itself are found by their names.
    return found ?? target;
  };
  return root;
}

function filesIn(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".proto"));
}

/** The official files of the packages that a subset has parts of. */
function officialFiles(packages: ReadonlySet<string>): readonly string[] {
  const [api = ""] = OFFICIAL;
  return [...packages].flatMap((name) => {
    const folder = name.replaceAll(".", "/");
    return readdirSync(join(api, folder)).flatMap((file) => (file.endsWith(".proto") ? [`${folder}/${file}`] : []));
  });
}

function* declared(space: protobuf.NamespaceBase): Generator<protobuf.Type | protobuf.Enum | protobuf.Service> {
  for (const one of space.nestedArray) {
    if (one instanceof protobuf.Type || one instanceof protobuf.Enum || one instanceof protobuf.Service) yield one;
    if (one instanceof protobuf.Namespace) yield* declared(one);
  }
}

function shape(field: protobuf.Field): object {
  field.resolve();
  const { id, repeated, map, partOf, resolvedType, type } = field;
  const keyType = field instanceof protobuf.MapField ? field.keyType : undefined;
  const isOptional = field.options?.["proto3_optional"] === true;
  return {
    id,
    repeated,
    map,
    keyType,
    type: resolvedType?.fullName ?? type,
    oneof: isOptional ? undefined : partOf?.name,
    isOptional,
  };
}

describe("the part of Envoy's messages that is served", () => {
  let own: protobuf.Root;
  let official: protobuf.Root;
  const types: (protobuf.Type | protobuf.Enum | protobuf.Service)[] = [];

  before(async () => {
    own = rootOf(["proto", ...OFFICIAL]);
    await own.load(
      filesIn("proto/envoy").map((path) => `envoy/${path}`),
      { keepCase: true },
    );
    own.resolveAll();
    types.push(...[...declared(own)].filter(({ fullName }) => fullName.startsWith(".envoy.")));
    const packages = new Set(filesIn("proto/envoy").map((path) => `envoy.${path.split("/").slice(0, -1).join(".")}`));
    official = rootOf(OFFICIAL);
    await official.load([...officialFiles(packages)], { keepCase: true });
    official.resolveAll();
  });

  it("has messages to compare", () => {
    assert.ok(types.filter((type) => type instanceof protobuf.Type).length > 80, `${types.length} types`);
  });

  it("has every message and field as Envoy has it: number, type, repetition and oneof", () => {
    let fields = 0;
    for (const type of types) {
      if (!(type instanceof protobuf.Type)) continue;
      const theirs = official.lookupType(type.fullName);
      for (const field of type.fieldsArray) {
        fields++;
        const their = theirs.fields[field.name];
        assert.ok(their, `${type.fullName}.${field.name} exists`);
        assert.deepEqual(shape(field), shape(their), `${type.fullName}.${field.name}`);
      }
    }
    assert.ok(fields > 200, `${fields} fields`);
  });

  it("has every value of an enum as Envoy has it", () => {
    const enums = types.filter((type) => type instanceof protobuf.Enum);
    assert.ok(enums.length > 5);
    for (const type of enums) {
      const theirs = official.lookupEnum(type.fullName);
      for (const [name, value] of Object.entries(type.values)) {
        assert.equal(theirs.values[name], value, `${type.fullName}.${name}`);
      }
    }
  });

  it("has the calls of the discovery service as Envoy has them", () => {
    const [service] = types.filter((type) => type instanceof protobuf.Service);
    assert.ok(service instanceof protobuf.Service);
    const theirs = official.lookupService(service.fullName);
    assert.deepEqual(Object.keys(service.methods).sort(), Object.keys(theirs.methods).sort());
    for (const [name, method] of Object.entries(service.methods)) {
      const their = theirs.methods[name];
      method.resolve();
      their?.resolve();
      assert.equal(method.resolvedRequestType?.fullName, their?.resolvedRequestType?.fullName);
      assert.equal(method.resolvedResponseType?.fullName, their?.resolvedResponseType?.fullName);
      assert.equal(method.requestStream, their?.requestStream);
      assert.equal(method.responseStream, their?.responseStream);
    }
  });
});
