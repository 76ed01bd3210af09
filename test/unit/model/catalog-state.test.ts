import assert from "node:assert/strict";
import { test } from "node:test";
import { type InstanceRecord, noChecks } from "../../../src/model/catalog-record.js";
import { CatalogState } from "../../../src/model/catalog-state.js";
import { parseDeregistration, parseRegistration } from "../../../src/model/registration.js";

/**
 * How often it is looked at when instances were written, for each change, while those written last go first of `size` instances
 * whose name is spelled in two ways.
 */
function looksPerChange(size: number): number {
  const state = new CatalogState();
  let looks = 0;
  for (let index = 0; index < size; index++) {
    const name = index % 2 === 0 ? "web" : "Web";
    const parsed = parseRegistration({ node: `n${index}`, address: "10.0.0.1", service: { id: "x", name } }, "dc1");
    const stamp = { index: BigInt(index + 1) };
    const nodeKey = parsed.node.name;
    const { service = assert.fail() } = parsed;
    state.loadNode(nodeKey, { node: parsed.node, checks: noChecks, created: stamp, modified: stamp });
    const record: InstanceRecord = {
      nodeKey,
      key: "x",
      service,
      checks: noChecks,
      created: stamp,
      get modified() {
        looks++;
        return stamp;
      },
      view: undefined,
      viewOf: undefined,
    };
    assert.ok(state.loadInstance(record));
  }
  state.loaded(BigInt(size));
  looks = 0;
  const left = 10;
  let revision = BigInt(size);
  for (let index = size - 1; index >= left; index--) {
    const draft = state.draft();
    draft.deregister(parseDeregistration({ node: `n${index}` }, "dc1"));
    state.apply(draft, ++revision);
    assert.equal(state.serviceName("web"), index % 2 === 0 ? "Web" : "web");
  }
  // Another spelling that comes and goes.
  for (let times = 0; times < size; times++) {
    const register = state.draft();
    register.register(parseRegistration({ node: "z", address: "10.0.0.1", service: { id: "x", name: "WEB" } }, "dc1"));
    state.apply(register, ++revision);
    assert.equal(state.serviceName("web"), "WEB");
    const deregister = state.draft();
    deregister.deregister(parseDeregistration({ node: "z" }, "dc1"));
    state.apply(deregister, ++revision);
    assert.equal(state.serviceName("web"), "Web");
  }
  return looks / size;
}

test("a change of a name that is spelled in two ways costs the same with few and with many instances", () => {
  const few = looksPerChange(50);
  const many = looksPerChange(800);
  assert.ok(few > 0);
  assert.ok(many < 2 * few, `${few} looks for each change, but ${many} with more instances`);
});
