import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, it } from "node:test";
import { dnsServer } from "../../../src/dns/index.js";
import { readGolden } from "../../golden/read.js";
import { HttpPair } from "../../support/http-pair.js";
import { readSteps, replay } from "../../support/replay.js";
import { ask } from "../dns/client.js";

// The questions to Consul 1.21.4 and its answers, in order; a host is asked the same. tools/record-replay.ts records it.

for (const file of readdirSync("test/golden/replay")) {
  describe(`answers are those of Consul 1.21.4: ${file}`, { timeout: 60_000 }, () => {
    it("to everything that was asked, in order", async (context) => {
      await using pair = await HttpPair.start(1, {}, "agent1");
      const { a } = pair;
      // The registration that a server of Consul makes of itself.
      await a.host.catalog.register({ node: "agent1", address: "127.0.0.1", service: { name: "consul", port: 8_300 } });
      await using dns = await dnsServer(a.host, { listen: "127.0.0.1:0" });
      const target = {
        http: async (method: string, path: string, body: string | undefined) => {
          const { status, text, headers } = await a.ask(method, path, body === undefined ? {} : { body });
          return { status, text, header: (name: string) => headers[name] };
        },
        dns: (name: string, type: string) => ask(dns.address, { name, type }),
      };
      let steps = 0;
      for await (const [step, answer] of replay(readSteps(readGolden(`replay/${file}`)), target)) {
        const asked = JSON.stringify(step.ask ?? step.dns);
        await context.test(asked.length > 200 ? `${asked.slice(0, 200)}…` : asked, () => {
          assert.deepEqual(answer, step.ours?.answer ?? step.answer);
        });
        steps++;
      }
      assert.ok(steps > 10);
    });
  });
}
