// The bounds on a peering token that is given, through the HTTP API and by calls.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { servePort } from "../../support/served-port.js";
import { lonelyHost } from "../rpc/support.js";

const PEERING = "/hashicorp.consul.internal.peering.PeeringService";
const ADDRESSES = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];
const LIMITS = { tokenCharacters: 2_000, addressesPerPeer: 2, rootsPerPeer: 2 };

function encode(fields: object): string {
  const whole = { CA: [], ServerAddresses: [], ServerName: "server.dc1.consul", PeerID: "id", ...fields };
  return Buffer.from(JSON.stringify(whole)).toString("base64");
}

describe("a peering token that is given", () => {
  for (const [what, PeeringToken, text] of [
    ["characters", "A".repeat(2_001), "peering token has too many characters (2001 > 2000)"],
    ["certificates", encode({ CA: ["a", "b", "c"] }), "peering token has too many certificates (3 > 2)"],
    [
      "certificates in one entry",
      encode({ CA: ["-----BEGIN CERTIFICATE-----\n".repeat(3)] }),
      "peering token has too many certificates (3 > 2)",
    ],
    ["addresses", encode({ ServerAddresses: ADDRESSES }), "peering token has too many server addresses (3 > 2)"],
    [
      "addresses of the operator",
      encode({ ManualServerAddresses: ADDRESSES }),
      "peering token has too many server addresses (3 > 2)",
    ],
  ] as const) {
    it(`is refused over HTTP and by a call when it has too many ${what}, and counted`, async () => {
      const incidents = new Incidents();
      await using served = await servePort(await lonelyHost({ limits: LIMITS, incidents }));
      const post = async (path: string): Promise<readonly [number, string]> => {
        const answer = await fetch(`http://127.0.0.1:${served.port}${path}`, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ PeerName: "a", PeeringToken }),
        });
        return [answer.status, await answer.text()];
      };
      assert.deepEqual(await post("/v1/peering/establish"), [500, text]);
      const [status, told] = await post(`${PEERING}/Establish`);
      assert.deepEqual([status, JSON.parse(told)], [500, { code: "unknown", message: text }]);
      assert.equal(incidents.counts().get("token-too-large"), 2);
      assert.deepEqual(served.host.peerings.list(), [], "no peering was begun");
    });
  }

  it("may name as many addresses to be made with, over HTTP and by a call, and no more", async () => {
    await using served = await servePort(await lonelyHost({ limits: LIMITS }));
    for (const path of ["/v1/peering/token", `${PEERING}/GenerateToken`]) {
      const answer = await fetch(`http://127.0.0.1:${served.port}${path}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ PeerName: "a", ServerExternalAddresses: ADDRESSES }),
      });
      assert.equal(answer.status, 500);
      assert.match(await answer.text(), /peering token has too many server addresses \(3 > 2\)/);
    }
    assert.deepEqual(served.host.peerings.list(), []);
  });
});
