import assert from "node:assert/strict";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { after, before, describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import type { Registration } from "../../../src/model/registration.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";

const LIMIT_MS = 300_000;
const SERVICES = 1_200;
/** Of each service, and of one that has as many as all others together. */
const INSTANCES = 5;
const LARGE = 6_000;
const BATCH = 1_000;
/** No turn may be a larger part of the time that the whole answer takes. */
const PART = 4;
/** Others on the machine, and collections of garbage, make a turn longer, and none makes it shorter. */
const ROUNDS = 6;

interface Measured {
  readonly longestMs: number;
  readonly wholeMs: number;
  /** Short calls on another connection that were answered meanwhile. */
  readonly others: number;
}

function* registrations(): Generator<Registration> {
  const of = (name: string, number: number, node: number): Registration => {
    const id = `${name}-${number}`;
    return {
      node: `node-${node}`,
      address: "10.0.0.1",
      service: { id, name, port: 80, tags: [`t${number % 3}`] },
      checks: [{ checkId: id, name: "alive", serviceId: id, status: "passing" }],
    };
  };
  for (let service = 0; service < SERVICES; service++) {
    for (let number = 0; number < INSTANCES; number++) yield of(`web-${service}`, number, service + number);
  }
  for (let number = 0; number < LARGE; number++) yield of("large", number, number % SERVICES);
}

describe("turns of the event loop while a long answer is made", { timeout: LIMIT_MS }, () => {
  let pair: HttpPair;

  before(async () => {
    pair = await HttpPair.start();
    const { catalog, exports, peerings } = pair.a.host;
    let batch: Registration[] = [];
    for (const registration of registrations()) {
      batch.push(registration);
      if (batch.length === BATCH) await catalog.registerAll(batch.splice(0));
    }
    await catalog.registerAll(batch);
    batch = [];
    await exports.set({ services: [{ name: "*", consumers: [{ peer: "b" }] }] });
    const token = await peerings.generateToken({ peerName: "b" });
    const { imports } = pair.b.host;
    await pair.b.host.peerings.establish({ peerName: "a", token });
    const isThere = (): boolean => imports.count({ peer: "a" }).instances === SERVICES * INSTANCES + LARGE;
    while (!isThere()) await setImmediate();
  });
  after(() => pair[Symbol.asyncDispose]());

  async function measured(server: ServedHost, path: string): Promise<Measured> {
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const url = `http://127.0.0.1:${server.port}`;
    let others = 0;
    let isOver = false;
    const ask = async (): Promise<void> => {
      while (!isOver) {
        const { status } = await fetch(`${url}/v1/status/leader`);
        assert.equal(status, 200);
        others++;
      }
    };
    delay.enable();
    const began = performance.now();
    const asking = ask();
    const response = await fetch(url + path);
    assert.equal(response.status, 200, path);
    await response.arrayBuffer();
    const wholeMs = performance.now() - began;
    isOver = true;
    await asking;
    // The last turn counts when the next look comes.
    for (const { count } = delay; delay.count === count; ) await setImmediate();
    delay.disable();
    return { longestMs: delay.max / 1e6, wholeMs, others };
  }

  const reads: readonly (readonly ["a" | "b", string])[] = [
    ["a", "/v1/catalog/services?filter=ServicePort!=1"],
    ["a", "/v1/health/state/any?filter=Status==none"],
    ["a", "/v1/health/service/large?filter=Service.Port==1"],
    ["a", "/v1/health/checks/large"],
    ["a", "/v1/internal/ui/services?filter=Service.Port!=1"],
    ["a", "/v1/internal/ui/nodes"],
    ["b", "/v1/catalog/services?peer=a"],
    ["b", "/v1/catalog/services?peer=a&filter=ServicePort!=1"],
    ["b", "/v1/health/service/large?peer=a&filter=Service.Port==1"],
    ["b", "/v1/internal/ui/nodes"],
  ];
  for (const [side, path] of reads) {
    it(`are a small part of it: ${side} ${path}`, async (context) => {
      const { host } = pair.a;
      const found: Measured[] = [];
      const isShort = ({ longestMs, wholeMs, others }: Measured): boolean =>
        longestMs * PART <= wholeMs && others >= PART;
      while (found.length < ROUNDS && !found.some(isShort)) {
        // So that nothing that was kept of the answer is of use.
        const [first] = registrations();
        if (first !== undefined) {
          const tag = `round-${found.length}-${reads.findIndex((read) => read[1] === path)}`;
          await host.catalog.register({ ...first, service: { id: "web-0-0", name: "web-0", port: 80, tags: [tag] } });
          const service = { peer: "a", service: "web-0" };
          const hasCome = async (): Promise<boolean> =>
            (await pair.b.host.imports.instances(service)).some((one) => one.service.tags.includes(tag));
          while (!(await hasCome())) await setImmediate();
        }
        found.push(await measured(pair[side], path));
      }
      const told = found.map(({ longestMs, wholeMs, others }) => {
        return `${longestMs.toFixed(1)} of ${wholeMs.toFixed(0)} ms, ${others} others`;
      });
      context.diagnostic(told.join("; "));
      assert.ok(found.some(isShort), told.join("; "));
    });
  }
});
