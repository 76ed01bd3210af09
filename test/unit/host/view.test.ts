import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HostChange } from "../../../src/host/view.js";
import { peered, World } from "../../support/world.js";

describe("the view of a host", () => {
  it("gives the records and trust bundles of one moment, with their indexes", async () => {
    const world = new World();
    const { acceptor } = await peered(world);
    const { view } = acceptor.host;
    assert.deepEqual(
      view.peerings().map(({ name }) => name),
      ["dialer"],
    );
    assert.equal(view.peering("DIALER"), view.peerings()[0]);
    assert.equal(view.peering("nobody"), undefined);
    assert.equal(view.trustBundle("dialer"), view.trustBundles()[0]);
    assert.equal(view.trustBundle("nobody"), undefined);
    assert.ok(view.trustBundleIndex("dialer") <= view.trustBundlesIndex);
    assert.equal(view.trustBundleIndex("nobody"), view.trustBundlesIndex);
    assert.ok((view.peering("dialer")?.modifyIndex ?? 0n) <= view.index);
  });

  it("tells each change by one signal, once it can be read and before the call returns", async () => {
    const world = new World();
    const { acceptor } = await peered(world);
    const { host } = acceptor;
    const { view } = host;
    const id = view.peering("dialer")?.id ?? "";
    const told: HostChange[] = [];
    const stop = view.onChange((change) => {
      if (change.type === "peering") assert.equal(view.peering("dialer"), change.peering);
      told.push(change);
    });
    const before = view.index;
    await world.result(host.peerings.delete("dialer"));
    assert.ok(view.index > before);
    assert.deepEqual(
      told.slice(0, 1).map((change) => change.type === "peering" && [change.id, change.peering?.state]),
      [[id, "deleting"]],
    );
    await world.until(() => view.peering("dialer") === undefined, "the record is removed");
    assert.ok(told.some(({ type }) => type === "trust-bundles"));
    assert.deepEqual(told.at(-1)?.type === "peering" && told.at(-1), { type: "peering", id, peering: undefined });
    assert.deepEqual(view.trustBundles(), []);
    const count = told.length;
    stop();
    await world.result(host.peerings.generateToken({ peerName: "dialer" }));
    assert.equal(told.length, count);
  });
});
