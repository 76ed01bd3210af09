// Which services go to which peers, where there are many of both.
import assert from "node:assert/strict";
import { it } from "node:test";
import { exportedServicesView } from "../../../src/config/exports.js";
import { bytesInUse } from "../../support/heap.js";
import { entrySet } from "./export-fixtures.js";

it("the peers of all services are held once, however many services there are", async () => {
  const peers = Array.from({ length: 2_000 }, (_, index) => `p${index}`).sort();
  const names = Array.from({ length: 2_000 }, (_, index) => `s${index}`).sort();
  const consumers = peers.map((peer) => ({ peer }));
  const entries = entrySet({
    kind: "exported-services",
    name: "default",
    services: [
      { name: "*", consumers },
      { name: "s0", consumers: [{ peer: "z" }, { peer: "p1" }] },
    ],
  });
  const typical = new Map(names.map((name) => [name, name]));
  const before = await bytesInUse();
  const views = exportedServicesView({ entries, names: { typical, connectEnabled: new Set() } });
  const more = (await bytesInUse()) - before;
  assert.ok(more < 8_000_000, `${more} bytes`);
  assert.deepEqual(
    views.map(({ service }) => service),
    names,
  );
  assert.deepEqual(views[0]?.peers, [...peers, "z"]);
  for (const view of views.slice(1)) assert.equal(view.peers, views[1]?.peers);
  assert.deepEqual(views[1]?.peers, peers);
});
