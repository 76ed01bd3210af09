// Reads that look at many records: other calls have their turn while they do.
import assert from "node:assert/strict";
import { after, before, describe, it, mock } from "node:test";
import type { ConfigEntryInput } from "../../../src/index.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";

/** Records of each kind. */
const MANY = 300;
/** More than the time after which others have their turn. */
const STEP_MS = 10;

const range = Array.from({ length: MANY }, (_, index) => index);

async function fill({ host }: ServedHost): Promise<void> {
  const { catalog, configEntries, exports, peerings } = host;
  await catalog.registerAll(
    range.map((index) => ({
      node: "n",
      address: "192.0.2.1",
      service: { name: `s${index}`, port: 80, connect: { native: true } },
    })),
  );
  await catalog.registerAll(
    range.map((index) => ({
      node: host.nodeName,
      address: "192.0.2.2",
      skipNodeUpdate: true,
      service: { id: `own${index}`, name: "own", port: 81 },
      checks: [{ checkId: `c${index}`, name: "c", status: "passing" }],
    })),
  );
  const entries: readonly ConfigEntryInput[] = range.flatMap((index) => [
    { kind: "service-defaults", name: `s${index}`, protocol: "http" },
    { kind: "service-intentions", name: `s${index}`, sources: [{ name: "caller", action: "allow" }] },
  ]);
  for (const entry of entries) await configEntries.set(entry);
  await configEntries.set({
    kind: "terminating-gateway",
    name: "named",
    services: range.map((index) => ({ name: `s${index}` })),
  });
  await configEntries.set({ kind: "terminating-gateway", name: "all", services: [{ name: "*" }] });
  await peerings.generateToken({ peerName: "peer" });
  await exports.set({ services: [{ name: "*", consumers: [{ peer: "peer" }] }] });
}

/** How often each record is looked at: to find it, to see whether the caller may see it, to filter it. */
const reads: Readonly<Record<string, number>> = {
  "/v1/config/": 6,
  "/v1/config/service-defaults": 3,
  "/v1/connect/intentions": 4,
  "/v1/connect/intentions/match?by=source&name=caller": 1,
  "/v1/catalog/gateway-services/named": 1,
  "/v1/catalog/gateway-services/all": 1,
  "/v1/internal/ui/gateway-services-nodes/all": 1,
  "/v1/internal/ui/gateway-intentions/all": 1,
  "/v1/internal/ui/exported-services?peer=peer": 1,
  "/v1/agent/self": 1,
  "/v1/agent/checks": 1,
  "/v1/agent/services": 1,
  "/v1/catalog/services": 1,
  "/v1/health/state/any": 1,
};

describe("a read that looks at many records", { timeout: 60_000 }, () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start(1);
    await fill(pair.a);
  });
  after(() => pair[Symbol.asyncDispose]());

  for (const [path, looks] of Object.entries(reads)) {
    it(`lets others have their turn between them: ${path}`, async () => {
      // To the reads, each look at a record takes long.
      let now = performance.now();
      const clock = mock.method(performance, "now", () => (now += STEP_MS));
      let turns = 0;
      let next: NodeJS.Immediate | undefined;
      const count = (): void => {
        turns++;
        next = setImmediate(count);
      };
      count();
      try {
        const { status, text } = await pair.a.ask("GET", path);
        assert.equal(status, 200, text);
      } finally {
        if (next !== undefined) clearImmediate(next);
        clock.mock.restore();
      }

      assert.ok(turns >= looks * MANY, `${turns} turns for ${MANY} records`);
    });
  }
});
