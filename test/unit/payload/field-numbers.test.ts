// The fields that payloads are read and written by, against the schemas that are generated from `proto/`.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, type DescField, type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { PeeringError } from "../../../src/base/errors.js";
import { Field } from "../../../src/payload/field-numbers.js";
import { inspectPayload } from "../../../src/payload/payload-inspection.js";
import { file_hashicorp_consul_internal_common_common as commonFile } from "../../../src/wire/gen/hashicorp/consul/internal/common/common_pb.js";
import {
  ExportedServiceSchema,
  file_hashicorp_consul_internal_peerstream_peerstream as streamFile,
} from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import {
  CheckServiceNodeSchema,
  file_hashicorp_consul_internal_service_service as serviceFile,
} from "../../../src/wire/gen/hashicorp/consul/internal/service/service_pb.js";
import { wireInstance } from "./import-fixtures.js";

const schemas: ReadonlyMap<string, DescMessage> = new Map(
  [commonFile, streamFile, serviceFile].flatMap((file) => file.messages.map((message) => [message.name, message])),
);

describe("the numbers of fields", () => {
  for (const [name, numbers] of Object.entries(Field)) {
    it(`of ${name} are those of its schema`, () => {
      const fields = new Map(schemas.get(name)?.fields.map((field) => [field.name, field.number]));
      for (const [field, number] of Object.entries(numbers)) assert.equal(number, fields.get(field), field);
    });
  }
});

const MARK = "MARKED";

/** A text somewhere in a message: its path, and how to put the mark there. */
type Place = readonly [path: string, mark: (message: ReflectMessage) => void];

/** Every text that a message may hold. @param passed - messages that are passed over whole: nothing reads them. */
function places(message: DescMessage, passed: ReadonlySet<string>, path = ""): readonly Place[] {
  return message.fields.flatMap((field) => placesOf(field, passed, `${path}${field.name}`));
}

function placesOf(field: DescField, passed: ReadonlySet<string>, path: string): readonly Place[] {
  if (passed.has(path)) return [];
  const inside = (inner: DescMessage, put: (message: ReflectMessage, made: Message) => void): readonly Place[] =>
    places(inner, passed, `${path}.`).map(([place, mark]) => [
      place,
      (message) => {
        const made = reflect(inner);
        mark(made);
        put(message, made.message);
      },
    ]);
  switch (field.fieldKind) {
    case "scalar":
      return field.scalar === 9 ? [[path, (message) => message.set(field, MARK)]] : [];
    case "message":
      return inside(field.message, (message, made) => message.set(field, reflect(field.message, made)));
    case "list":
      if (field.listKind === "scalar" && field.scalar === 9) return [[path, (message) => message.get(field).add(MARK)]];
      if (field.listKind !== "message") return [];
      return inside(field.message, (message, made) => message.get(field).add(reflect(field.message, made)));
    case "map": {
      const key: Place = [
        `${path}[key]`,
        (message) => message.get(field).set(MARK, field.mapKind === "message" ? reflect(field.message) : "v"),
      ];
      if (field.mapKind === "scalar") return [key, [`${path}[value]`, (message) => message.get(field).set("k", MARK)]];
      if (field.mapKind !== "message") return [key];
      return [
        key,
        ...inside(field.message, (message, made) => message.get(field).set("k", reflect(field.message, made))),
      ];
    }
    default:
      return [];
  }
}

/** Left out of what Consul sends, and not read by us: their content is not looked at. */
const passedOver: ReadonlySet<string> = new Set([
  "Service.Proxy.Config",
  "Service.Proxy.Upstreams",
  "Service.Proxy.Expose",
  "Service.Proxy.TransparentProxy",
  "Service.Proxy.EnvoyExtensions",
  "Service.Proxy.AccessLogs",
  "Service.Connect.SidecarService",
  "Service.EnterpriseMeta",
  "Checks.Definition",
  "Checks.EnterpriseMeta",
]);

describe("a payload whose text is no UTF-8", () => {
  const all = places(CheckServiceNodeSchema, passedOver);

  it("has texts at many places", () => assert.ok(all.length > 40, `${all.length}`));

  for (const [path, mark] of all) {
    it(`is refused for ${path}`, () => {
      const message = create(CheckServiceNodeSchema, wireInstance("web", { status: "passing" }));
      mark(reflect(CheckServiceNodeSchema, message));
      const bytes = Buffer.from(toBinary(ExportedServiceSchema, create(ExportedServiceSchema, { Nodes: [message] })));
      const at = bytes.indexOf(MARK);
      assert.ok(at > 0, "the mark is there");
      bytes[at] = 0xff;
      assert.throws(
        () => inspectPayload(bytes, "web"),
        (error) => error instanceof PeeringError && /contains invalid UTF-8$/.test(error.message),
      );
    });
  }
});
