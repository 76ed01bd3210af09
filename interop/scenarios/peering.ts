import assert from "node:assert/strict";
import type { Scenario } from "../scenario.js";
import { pause, settles } from "../settles.js";
import { recordOf, stateOf } from "../stage.js";

const LIMIT_MS = 2_000;
const SETTLING_MS = 16_000;

/** Tokens, the way to ACTIVE, and what both sides then say of each other. */
export const peeringScenarios: readonly Scenario[] = [
  {
    name: "active within 2 s of establish",
    proves: "ch1 case 9; ch2 LC2; ch3 case 2",
    async run(stage) {
      const pair = await stage.strangers();
      const { acceptor, dialer } = pair;
      // Consul looks for whom to dial five times at once and then every 5 s. Starting uses that up; one in service has it.
      if (stage.role === "acceptor") await pause(SETTLING_MS);
      const token = await pair.token();
      const began = performance.now();
      await dialer.client.peerings.establish({ peerName: acceptor.name, token });
      const answered = performance.now();
      await pair.active();
      const ended = performance.now();
      stage.remark(`${Math.round(answered - began)} + ${Math.round(ended - answered)} ms`);
      assert.ok(ended - answered < LIMIT_MS, `ACTIVE ${ended - answered} ms after establish`);

      const accepting = await recordOf(acceptor, dialer);
      const dialing = await recordOf(dialer, acceptor);
      const inToken = JSON.parse(Buffer.from(token, "base64").toString("utf8"));
      assert.equal(dialing.PeerID, accepting.ID);
      assert.equal(accepting.PeerID, "");
      assert.equal(dialing.PeerID, inToken.PeerID);
      assert.equal(dialing.PeerServerName, inToken.ServerName);
      assert.deepEqual(dialing.PeerServerAddresses, inToken.ServerAddresses);
      assert.deepEqual(dialing.PeerCAPems, inToken.CA);
      assert.equal(dialing.Remote.Datacenter, acceptor.datacenter);
      assert.equal(accepting.Remote.Datacenter, dialer.datacenter);
    },
  },
  {
    name: "peered from Consul's command line",
    proves: "ch2 LC2",
    async run(stage) {
      const pair = await stage.strangers();
      const { ours, consul } = pair;
      if (stage.role === "dialer") {
        const token = (await consul.command("peering", "generate-token", "-name", ours.name)).trim();
        await ours.host.peerings.establish({ peerName: consul.name, token });
      } else {
        const token = await ours.host.peerings.generateToken({ peerName: consul.name });
        const said = await consul.command("peering", "establish", "-name", ours.name, "-peering-token", token);
        assert.match(said, /Successfully established peering connection with peerage/);
      }
      await pair.active();
      assert.match(await consul.command("peering", "read", "-name", ours.name), /State:\s+ACTIVE/);
      assert.match(await consul.command("peering", "list"), /peerage\s.*ACTIVE/);
      await consul.command("peering", "delete", "-name", ours.name);
      await settles(() => assert.equal(ours.peering(consul.name).state, "terminated"), "we hear of the deletion");
    },
  },
  {
    name: "a token works once",
    proves: "ch1 case 18; ch2 LC3; ch3 case 33",
    async run(stage) {
      const pair = await stage.strangers();
      const { acceptor, dialer } = pair;
      const token = await pair.token();
      await dialer.client.peerings.establish({ peerName: acceptor.name, token });
      await pair.active();
      await assert.rejects(
        dialer.client.peerings.establish({ peerName: "again", token }),
        /403 .*a new peering token must be generated: .*invalid peering establishment secret/,
      );
      assert.equal(await stateOf(dialer, acceptor), "ACTIVE");
    },
  },
];
