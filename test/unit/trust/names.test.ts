import assert from "node:assert/strict";
import { test } from "node:test";
import { peeringServerName } from "../../../src/trust/authority.js";
import {
  formatUpstreamId,
  gatewaySni,
  parseUpstreamId,
  peeredClusterName,
  peeredServiceSni,
  querySni,
  serviceSni,
  upstreamIdOfTarget,
} from "../../../src/trust/names.js";

const trustDomain = "11111111-2222-3333-4444-555555555555.consul";
const upstream = { type: "", name: "foo", datacenter: "", peer: "" };

test("names: SNI of a peered service, which needs a peer", () => {
  const name = { service: "api", namespace: "billing", partition: "", trustDomain };
  assert.equal(peeredServiceSni({ ...name, peer: "webstuff" }), `api.billing.default.webstuff.external.${trustDomain}`);
  assert.throws(() => peeredServiceSni({ ...name, peer: "" }), TypeError);
});

test("names: the four forms of a service's SNI", () => {
  const api = { service: "api", datacenter: "dc1", trustDomain };
  assert.equal(serviceSni(api), `api.default.dc1.internal.${trustDomain}`);
  assert.equal(serviceSni({ ...api, subset: "v2" }), `v2.api.default.dc1.internal.${trustDomain}`);
  assert.equal(serviceSni({ ...api, partition: "part1" }), `api.default.part1.dc1.internal-v1.${trustDomain}`);
  assert.equal(
    serviceSni({ ...api, partition: "part1", namespace: "ns1", subset: "v2" }),
    `v2.api.ns1.part1.dc1.internal-v1.${trustDomain}`,
  );
});

test("names: gateways, servers, prepared queries", () => {
  assert.equal(gatewaySni("dc1", trustDomain), `dc1.internal.${trustDomain}`);
  assert.equal(gatewaySni("dc1", trustDomain, "part1"), `part1.dc1.internal-v1.${trustDomain}`);
  assert.equal(peeringServerName("dc1", trustDomain), `server.dc1.peering.${trustDomain}`);
  assert.equal(querySni("geo", "dc1", trustDomain), `geo.default.dc1.query.${trustDomain}`);
});

test("names: the sidecar's cluster has no partition", () => {
  assert.equal(
    peeredClusterName({ service: "web", peer: "peer-x", trustDomain }),
    `web.default.peer-x.external.${trustDomain}`,
  );
});

test("names: upstream ids read back", () => {
  for (const [text, id] of [
    ["foo", upstream],
    ["foo?peer=payments", { ...upstream, peer: "payments" }],
    ["foo?dc=dc2", { ...upstream, datacenter: "dc2" }],
    ["prepared_query:foo?dc=dc2", { ...upstream, type: "prepared_query", datacenter: "dc2" }],
  ] as const) {
    assert.equal(formatUpstreamId(id), text);
    assert.deepEqual(parseUpstreamId(text), id);
  }
  assert.equal(formatUpstreamId({ ...upstream, peer: "payments", datacenter: "dc2" }), "foo?peer=payments");
});

test("names: targets of discovery chains become upstreams", () => {
  assert.deepEqual(upstreamIdOfTarget("v1.foo.default.default.dc2"), { ...upstream, datacenter: "dc2" });
  assert.deepEqual(upstreamIdOfTarget("foo.default.default.dc2"), { ...upstream, datacenter: "dc2" });
  assert.deepEqual(upstreamIdOfTarget("foo.default.default.external.cluster-01"), { ...upstream, peer: "cluster-01" });
  for (const text of ["", "foo", "foo.default.dc2", "a.b.foo.default.default.dc2"]) {
    assert.equal(upstreamIdOfTarget(text), undefined);
  }
});
