// Where a field of a service must stand besides its description: each test says the name of one that is missing.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseJson } from "../../../src/client/json-reader.js";
import { readCatalogService, readService } from "../../../src/client/records.js";
import { writeJson } from "../../../src/http/json.js";
import { flatJson, serviceJson } from "../../../src/http/records.js";
import { type ServiceBody, serviceFields, serviceRegistration } from "../../../src/http/registration-json.js";
import {
  decodeCheckRecord,
  decodeInstanceRecord,
  decodeNodeRecord,
  encodeCheckRecord,
  encodeInstanceRecord,
  encodeNodeRecord,
  noChecks,
} from "../../../src/model/catalog-record.js";
import { sameCheck, sameNode, sameService } from "../../../src/model/equality.js";
import type { Check, JsonObject, Proxy as ProxyDefinition, Service, StringMap } from "../../../src/model/instance.js";
import { keysOf, readerOf, type Table, text, type Uses, useFields } from "../../../src/model/record-table.js";
import { checkTable, emptyCheck, emptyService, nodeTable, serviceTable } from "../../../src/model/records.js";
import { parseCheckShape, parseNodeShape, parseServiceShape, plainReading } from "../../../src/model/registration.js";
import { encodeServicePayload } from "../../../src/payload/exported-payload.js";
import { decodePayload } from "../../../src/payload/imported-payload.js";
import { instanceMessage } from "../../../src/rpc/watch-message.js";
import { goStruct, readFirstValue, readGo } from "../../../src/syntax/go-json.js";

/** A value of each kind that is not the default. */
class Samples<Item> implements Uses<Item, unknown> {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  text = (): string => `a ${this.#name}`;
  flag = (): boolean => true;
  int = (): number => 7;
  index = (): bigint => 7n;
  texts = (): readonly string[] => [`one ${this.#name}`];
  textMap = (): StringMap => ({ k: `a ${this.#name}` });
  one = <Inner>(_: (item: Item) => Inner | undefined, table: Table<Inner>): object => sampleOf(table);
  list = <Inner>(_: (item: Item) => readonly Inner[] | undefined, table: Table<Inner>): readonly object[] => [
    sampleOf(table),
  ];
  map = <Inner>(_: (item: Item) => Readonly<Record<string, Inner>>, table: Table<Inner>): object => ({
    lan: sampleOf(table),
  });
  kept = (): JsonObject => ({ Name: "kept" });
  proxy = (): ProxyDefinition => ({
    destinationServiceName: "web",
    destinationServiceId: "web-1",
    localServiceAddress: "127.0.0.1",
    localServicePort: 80,
    localServiceSocketPath: "/s",
    mode: "transparent",
    meshGatewayMode: "local",
  });
}

function sampleOf<Item>(table: Table<Item>): Readonly<Record<string, unknown>> {
  const keys = keysOf(table.fields);
  const values = useFields<Item, unknown>(table, ({ name }) => new Samples<Item>(name));
  return Object.fromEntries(keys.map((key, at) => [key, values[at]]));
}

const given = { ...sampleOf(serviceTable), kind: "connect-proxy", name: "web", port: 80 };
const full = parseServiceShape(given);
const keys = keysOf(serviceTable.fields);

describe("a field of the description of a service", () => {
  for (const key of keys) {
    it(`is read of a registration: ${key}`, () => assert.notDeepEqual(full[key], serviceTable.empty[key]));

    it(`is stored: ${key}`, () => {
      const stamp = { index: 1n };
      const rest = { nodeKey: "n1", key: "web", checks: noChecks, view: undefined, viewOf: undefined };
      const row = encodeInstanceRecord({ ...rest, service: full, created: stamp, modified: stamp }, { index: 2n });
      const { service } = decodeInstanceRecord("n1", "web", row, 1n, () => stamp, new Map());
      assert.deepEqual(service[key], full[key]);
    });

    it(`is compared: ${key}`, () => {
      assert.equal(sameService(full, { ...full }), true);
      const { [key]: _, ...without } = full;
      assert.equal(sameService(full, { ...emptyService(), ...without }), false);
    });

    it(`is taken from the body of a registration: ${key}`, () => {
      const json = writeJson(serviceJson({ peer: "", service: { ...full, createIndex: 1n, modifyIndex: 1n } }));
      const type = goStruct<ServiceBody>("structs.NodeService", serviceFields);
      const read = parseServiceShape(serviceRegistration(readGo(readFirstValue(Buffer.from(json)), type)));
      assert.deepEqual(read[key], full[key]);
    });
  }
});

const fullCheck = parseCheckShape({ ...sampleOf(checkTable), definition: { HTTP: "http://a" } }, "");
const ignoredOfChecks: ReadonlySet<keyof Check> = new Set(["type", "interval", "timeout", "exposedPort"]);

describe("a field of the description of a check", () => {
  for (const key of keysOf(checkTable.fields)) {
    it(`is read of a registration: ${key}`, () => assert.notDeepEqual(fullCheck[key], checkTable.empty[key]));

    it(`is stored: ${key}`, () => {
      const stamp = { index: 1n };
      const row = encodeCheckRecord({ check: fullCheck, created: stamp, modified: stamp }, "n1", { index: 2n });
      assert.deepEqual(decodeCheckRecord("n1", row, 1n, () => stamp).check[key], fullCheck[key]);
    });

    it(`is compared, unless Consul ignores it: ${key}`, () => {
      assert.equal(sameCheck(fullCheck, { ...fullCheck }), true);
      const { [key]: _, ...without } = fullCheck;
      assert.equal(sameCheck(fullCheck, { ...emptyCheck(), ...without }), ignoredOfChecks.has(key));
    });
  }
});

const fullNode = parseNodeShape(sampleOf(nodeTable), "");

describe("a field of the description of a node", () => {
  for (const key of keysOf(nodeTable.fields)) {
    it(`is read of a registration: ${key}`, () => assert.notDeepEqual(fullNode[key], nodeTable.empty[key]));

    it(`is stored: ${key}`, () => {
      const stamp = { index: 1n };
      const row = encodeNodeRecord(
        { node: fullNode, checks: noChecks, created: stamp, modified: stamp },
        { index: 2n },
      );
      assert.deepEqual(decodeNodeRecord(row, 1n, () => stamp, new Map()).node[key], fullNode[key]);
    });

    it(`is compared: ${key}`, () => {
      assert.equal(sameNode(fullNode, { ...fullNode }), true);
      const { [key]: _, ...without } = fullNode;
      assert.equal(sameNode(fullNode, { ...nodeTable.empty, ...without }), false);
    });
  }
});

/** A record with a field that nothing writes out. */
interface Extended {
  readonly known: string;
  readonly added: string;
}

describe("a field that is not written out", () => {
  const table: Table<Extended> = {
    empty: { known: "", added: "" },
    fields: { known: { name: "Known", kind: text }, added: { name: "Added", kind: text } },
  };
  const writtenOut: ReadonlySet<keyof Extended> = new Set<keyof Extended>(["known"]);

  it("is read as its kind says", () => {
    const draft = { known: "", added: "" };
    readerOf(table, "record", plainReading, writtenOut)(draft, { known: "a", added: "b" });
    assert.deepEqual(draft, { known: "", added: "b" });
    assert.throws(() => readerOf(table, "record", plainReading, writtenOut)(draft, { added: 1 }), /record\.added/);
  });

  it("is used as its kind says", () => {
    assert.deepEqual(
      useFields<Extended, unknown>(table, ({ name }) => new Samples<Extended>(name), writtenOut),
      ["a Added"],
    );
  });
});

/** Fields that the payload of an ordinary service leaves out: an importer gets them from its sidecar, or not at all. */
const notExported: ReadonlySet<keyof Service> = new Set(["kind", "proxy", "connect"]);

describe("a field that the message of Consul has", () => {
  const service: Service = { ...full, kind: "" };
  const instance = { node: { ...nodeTable.empty, name: "n1" }, service, checks: [] };
  const [imported] = decodePayload(encodeServicePayload("web", [instance]).value);
  for (const key of keys.filter((key) => !notExported.has(key))) {
    it(`crosses to the importer: ${key}`, () => assert.deepEqual(imported?.service[key], service[key]));
  }
});

/** Told of in another way, or not to readers of imports. */
const inWatch: Readonly<Partial<Record<keyof Service, string>>> = {
  proxy: "destinationService",
  connect: "peerMeta",
  enableTagOverride: "",
};

describe("a field of a service", () => {
  const told = instanceMessage({ node: nodeTable.empty, service: full, checks: [] }).service;
  const nothing = instanceMessage({ node: nodeTable.empty, service: serviceTable.empty, checks: [] }).service;
  const member = (message: typeof told, name: string): unknown =>
    new Map<string, unknown>(Object.entries(message ?? {})).get(name);
  for (const key of keys) {
    const name = inWatch[key] ?? key;
    if (name === "") continue;
    it(`is told by a watch: ${key}`, () => assert.notDeepEqual(member(told, name), member(nothing, name)));
  }

  const view = { peer: "p", service: { ...full, createIndex: 1n, modifyIndex: 1n } };
  const node = {
    ...nodeTable.empty,
    taggedAddresses: { lan: "a" },
    meta: { k: "v" },
    createIndex: 1n,
    modifyIndex: 1n,
  };
  const shown = (json: string): Readonly<Record<string, unknown>> => JSON.parse(json);
  const own = writeJson(serviceJson(view));
  const flat = writeJson(flatJson({ ...view, node }));
  for (const [name, value] of Object.entries(shown(own))) {
    it(`is read by the client: ${name}`, () => {
      assert.deepEqual(Object.entries(readService(parseJson(own, ""))).find(([key]) => key === name)?.[1], value);
    });
  }
  for (const [name, value] of Object.entries(shown(flat))) {
    it(`is read by the client in a list of the catalog: ${name}`, () => {
      assert.deepEqual(
        Object.entries(readCatalogService(parseJson(flat, ""))).find(([key]) => key === name)?.[1],
        value,
      );
    });
  }
});
