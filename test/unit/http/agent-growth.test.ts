// Calls to the agent take as long as what they name, however much else is on its node. A check of the node itself is part of
// the health of all its services, so its changes do take longer with more of them.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { assertLinear } from "../../support/growth.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

/** Services that are on the node already, for each one that is called for: so many that the cost of a look at all shows. */
const OTHERS = 60;

type Call = (index: number) => readonly [path: string, body?: unknown];

/** Sixteen clients at once. */
async function each(served: ServedHost, size: number, call: Call): Promise<void> {
  let next = 0;
  const client = async (): Promise<void> => {
    for (let index = next++; index < size; index = next++) {
      const [path, body] = call(index);
      const { status, text } = await served.ask("PUT", path, body === undefined ? {} : { body: JSON.stringify(body) });
      assert.equal(status, 200, text);
    }
  };
  await Promise.all(Array.from({ length: 16 }, client));
}

const kinds: Readonly<Record<string, Call>> = {
  "services with a TTL": (index) => ["/v1/agent/service/register", { Name: `s${index}`, Check: { TTL: "60s" } }],
  "services with an alias": (index) => [
    "/v1/agent/service/register",
    { Name: `s${index}`, Check: { AliasService: `s${Math.max(0, index - 1)}` } },
  ],
};

describe("the time of calls to the agent grows with what they name", () => {
  for (const [name, register] of Object.entries(kinds)) {
    it(name, () =>
      assertLinear({
        size: 50,
        prepare: async (size) => {
          const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
          const host = await createHost({ storage: memoryStorage(), transport, nodeName: "n0" });
          const service = (index: number) => ({ id: `other${index}`, name: "other" });
          await host.catalog.registerAll(
            Array.from({ length: OTHERS * size }, (_, index) => ({
              node: "n0",
              address: "127.0.0.1",
              service: service(index),
            })),
          );
          return serve(host);
        },
        dispose: (served) => served[Symbol.asyncDispose](),
        steps: {
          register: (served, size) => each(served, size, register),
          "register again": (served, size) => each(served, size, register),
          ...(name !== "services with an alias" && {
            report: (served: ServedHost, size: number) =>
              each(served, size, (index) => [`/v1/agent/check/pass/service:s${index}`]),
          }),
          deregister: (served, size) => each(served, size, (index) => [`/v1/agent/service/deregister/s${index}`]),
        },
      }),
    );
  }
});
