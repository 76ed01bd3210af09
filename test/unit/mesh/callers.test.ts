import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { callerOf, callerTrust, type MeshCaller } from "../../../src/mesh/connect/callers.js";
import { parseSpiffeId } from "../../../src/trust/spiffe.js";

const OWN = "aaaaaaaa-0000-0000-0000-000000000000.consul";
const EAST = "bbbbbbbb-0000-0000-0000-000000000000.consul";
const PART = "cccccccc-0000-0000-0000-000000000000.consul";
const GATEWAY = `spiffe://${OWN}/gateway/mesh/dc/dc1`;
const CLIENT = `spiffe://${EAST}/ns/default/dc/dc2/svc/client`;

const trust = callerTrust([
  { trustDomain: EAST, peer: "east", partition: "", rootPems: [] },
  { trustDomain: PART, peer: "part", partition: "part1", rootPems: [] },
  { trustDomain: OWN, peer: "", partition: "", rootPems: [] },
]);

function caller(uri: string, carriedFor?: string): MeshCaller | undefined {
  return callerOf({ id: parseSpiffeId(uri), uri }, trust, { trustDomain: OWN, carriedFor });
}

/** A service of the second peer. */
const OTHER = `spiffe://${PART}/ap/part1/ns/default/dc/dc2/svc/other`;

/** As Envoy writes the header: at our gateway, then at the service. */
function carried(uri: string, first = `By=${GATEWAY};Hash=0a;Cert="%2D";Chain="%2D";Subject="";URI=${uri}`): string {
  return `${first},By=spiffe://${OWN}/ns/default/dc/dc1/svc/web;Hash=0b;Subject="";URI=${GATEWAY}`;
}

describe("who calls in the mesh", () => {
  it("is the service in the certificate, of this cluster or of a peer", () => {
    const local = `spiffe://${OWN}/ns/default/dc/dc1/svc/api`;
    assert.deepEqual(caller(local), { service: "api", peer: "", spiffeId: local });
    assert.deepEqual(caller(CLIENT), { service: "client", peer: "east", spiffeId: CLIENT });
  });

  it("is nobody that intentions name in another namespace or partition, and of no other kind", () => {
    for (const uri of [
      `spiffe://${EAST}/ns/other/dc/dc2/svc/client`,
      `spiffe://${EAST}/ap/part1/ns/default/dc/dc2/svc/client`,
      `spiffe://${PART}/ns/default/dc/dc2/svc/client`,
      `spiffe://${OWN}/agent/server/dc/dc1`,
      `spiffe://${EAST}/gateway/mesh/dc/dc2`,
      "spiffe://dddddddd.consul/ns/default/dc/dc2/svc/client",
    ]) {
      assert.equal(caller(uri), undefined, uri);
    }
    assert.equal(caller(`spiffe://${PART}/ap/part1/ns/default/dc/dc2/svc/client`)?.peer, "part");
  });

  it("is the service of a peer for which a mesh gateway of this cluster carries a request", () => {
    assert.deepEqual(caller(GATEWAY, carried(CLIENT)), { service: "client", peer: "east", spiffeId: CLIENT });
    for (const header of [
      undefined,
      "",
      `URI=${CLIENT}`,
      // A service of this cluster needs no gateway, and has none speak for it.
      carried(`spiffe://${OWN}/ns/default/dc/dc1/svc/api`),
      carried(GATEWAY),
      // As for Consul, the identity is the last field of the first element.
      carried(CLIENT, `By=${GATEWAY};URI=${CLIENT};DNS=x`),
      carried(CLIENT, `By=${GATEWAY};Subject="CN=a,b";URI=${CLIENT}`),
      `By=${GATEWAY};Hash=0a,By=x;URI=${CLIENT}`,
      // A peer that makes its certificates tell of a service of another peer.
      carried(OTHER, `By=${GATEWAY};Hash=0a;Subject="CN=a;URI=${CLIENT},O=b";URI=${OTHER}`),
      carried(OTHER, `By=${GATEWAY};Hash=0a;Subject="\\";URI=${CLIENT},O=b";URI=${OTHER}`),
      carried(OTHER, `By=${GATEWAY};Hash=0a;Subject="";URI=${OTHER};URI=${CLIENT}`),
      carried(OTHER, `By=${GATEWAY};Hash=0a;Subject="";URI=${CLIENT};URI=${OTHER}`),
    ]) {
      assert.equal(caller(GATEWAY, header), undefined, header);
    }
  });

  it("is never taken from the header of another client", () => {
    const forged = carried(CLIENT);
    assert.equal(caller(`spiffe://${OWN}/ns/default/dc/dc1/svc/api`, forged)?.service, "api");
    assert.equal(caller(`spiffe://${EAST}/gateway/mesh/dc/dc2`, forged), undefined);
    assert.equal(caller(`spiffe://${OWN}/agent/server/dc/dc1`, forged), undefined);
  });
});
