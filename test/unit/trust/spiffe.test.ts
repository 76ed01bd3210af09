import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { canSign, formatSpiffeId, parseSpiffeId, type SpiffeId } from "../../../src/trust/spiffe.js";

const trustDomain = "11111111-2222-3333-4444-555555555555.consul";
const web = { kind: "service", trustDomain, partition: "", namespace: "", datacenter: "dc1", service: "web" } as const;

test("identities: a service in the default partition, whatever its namespace", () => {
  const expected = `spiffe://${trustDomain}/ns/default/dc/dc1/svc/web`;
  assert.equal(formatSpiffeId(web), expected);
  assert.equal(formatSpiffeId({ ...web, namespace: "other" }), expected);
  assert.equal(formatSpiffeId({ ...web, partition: "default" }), expected);
  assert.equal(formatSpiffeId({ ...web, partition: "Default" }), expected);
});

test("identities: another partition of a service precedes the namespace, in lower case", () => {
  assert.equal(
    formatSpiffeId({ ...web, partition: "Part1" }),
    `spiffe://${trustDomain}/ap/part1/ns/default/dc/dc1/svc/web`,
  );
});

test("identities: the partition of gateways and agents is ignored", () => {
  for (const partition of ["", "default", "part1"]) {
    assert.equal(
      formatSpiffeId({ kind: "mesh-gateway", trustDomain, partition, datacenter: "dc1" }),
      `spiffe://${trustDomain}/gateway/mesh/dc/dc1`,
    );
    assert.equal(
      formatSpiffeId({ kind: "agent", trustDomain, partition, datacenter: "dc1", node: "n1" }),
      `spiffe://${trustDomain}/agent/client/dc/dc1/id/n1`,
    );
  }
});

test("identities: servers", () => {
  const id = { kind: "server", trustDomain, datacenter: "dc1" } as const;
  assert.equal(formatSpiffeId(id), `spiffe://${trustDomain}/agent/server/dc/dc1`);
  assert.deepEqual(parseSpiffeId(formatSpiffeId(id)), id);
});

test("identities: every form reads back, with and without a partition", () => {
  for (const [prefix, partition] of [
    ["", "default"],
    ["/ap/part1", "part1"],
  ] as const) {
    assert.deepEqual(parseSpiffeId(`spiffe://${trustDomain}${prefix}/ns/team/dc/dc1/svc/web`), {
      ...web,
      partition,
      namespace: "team",
    });
    assert.deepEqual(parseSpiffeId(`spiffe://${trustDomain}${prefix}/agent/client/dc/dc1/id/n1`), {
      kind: "agent",
      trustDomain,
      partition,
      datacenter: "dc1",
      node: "n1",
    });
    assert.deepEqual(parseSpiffeId(`spiffe://${trustDomain}${prefix}/gateway/mesh/dc/dc1`), {
      kind: "mesh-gateway",
      trustDomain,
      partition,
      datacenter: "dc1",
    });
  }
});

test("identities: percent-encoded segments are decoded; bad ones name the field", () => {
  const id = parseSpiffeId(`spiffe://${trustDomain}/ap/a%2Fp/ns/foo%2Fbar/dc/d%2Fc/svc/s%2Fv`);
  assert.deepEqual(id, {
    kind: "service",
    trustDomain,
    partition: "a/p",
    namespace: "foo/bar",
    datacenter: "d/c",
    service: "s/v",
  });
  for (const [path, what] of [
    ["/ap/%zz/ns/default/dc/dc1/svc/web", "admin partition"],
    ["/ns/%zz/dc/dc1/svc/web", "namespace"],
    ["/ns/default/dc/%zz/svc/web", "datacenter"],
    ["/ns/default/dc/dc1/svc/%zz", "service"],
  ]) {
    assert.throws(() => parseSpiffeId(`spiffe://${trustDomain}${path}`), {
      name: "PeeringError",
      code: "invalid-argument",
      message: new RegExp(`^Invalid ${what}: `),
    });
  }
});

test("identities: another scheme and an unknown path are refused", () => {
  for (const uri of ["http://example.com/ns/default/dc/dc1/svc/web", "", "nonsense"]) {
    assert.throws(() => parseSpiffeId(uri), {
      code: "invalid-argument",
      message: "SPIFFE ID must have 'spiffe' scheme",
    });
  }
  for (const uri of [
    `spiffe://${trustDomain}/foo`,
    `spiffe://${trustDomain}/`,
    `spiffe://${trustDomain}/ap/x/agent/server/dc/dc1`,
    `spiffe://${trustDomain}/ns/default/dc/dc1/svc/web/more`,
    "spiffe://nodot",
    "spiffe://.consul",
  ]) {
    assert.throws(() => parseSpiffeId(uri), {
      code: "invalid-argument",
      message: `SPIFFE ID is not in the expected format: ${uri}`,
    });
  }
});

test("identities: a signing id", () => {
  const id = parseSpiffeId("spiffe://1234.consul");
  assert.deepEqual(id, { kind: "signing", clusterId: "1234", domain: "consul" });
  assert.equal(formatSpiffeId(id), "spiffe://1234.consul");
});

test("identities: any name of a service reads back", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1, unit: "grapheme" }), (service) => {
      assert.deepEqual(parseSpiffeId(formatSpiffeId({ ...web, service })), {
        ...web,
        partition: "default",
        namespace: "default",
        service,
      });
    }),
  );
});

test("identities: whom an authority may sign", () => {
  const own = (domain: string): SpiffeId[] => [
    { ...web, trustDomain: domain },
    { kind: "mesh-gateway", trustDomain: domain, partition: "default", datacenter: "dc1" },
    { kind: "server", trustDomain: domain, datacenter: "dc1" },
  ];
  for (const id of [...own(trustDomain), ...own(trustDomain.toUpperCase())])
    assert.equal(canSign(trustDomain, id), true);
  assert.equal(canSign(trustDomain, parseSpiffeId(`spiffe://${trustDomain}`)), true);
  for (const id of [
    ...own("99999999-2222-3333-4444-555555555555.consul"),
    ...own(trustDomain.replace(".consul", ".other")),
    parseSpiffeId("spiffe://1234.consul"),
    { kind: "agent", trustDomain, partition: "default", datacenter: "dc1", node: "n1" } as const,
    undefined,
  ]) {
    assert.equal(canSign(trustDomain, id), false);
  }
});
