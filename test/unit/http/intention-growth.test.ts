import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { assertLinear } from "../../support/growth.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

/** Intentions that there are already, for each one that is called for: so many that the cost of a look at all shows. */
const OTHERS = 40;

/** With intentions of services of their own, and with as many from the service that is asked about. */
async function served(size: number): Promise<ServedHost> {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport });
  await Promise.all(
    Array.from({ length: OTHERS * size }, (_, index) =>
      host.configEntries.set({
        kind: "service-intentions",
        name: `other${index}`,
        sources: [{ name: index % 2 === 0 ? "a" : `source${index}`, action: "allow" }],
      }),
    ),
  );
  return serve(host);
}

async function each(
  size: number,
  call: (index: number) => Promise<{ readonly status: number; readonly text: string }>,
): Promise<void> {
  for (let index = 0; index < size; index++) {
    const { status, text } = await call(index);
    assert.equal(status, 200, text);
  }
}

const exact = (source: string, destination: string): string =>
  `/v1/connect/intentions/exact?source=${source}&destination=${destination}`;
const put = (server: ServedHost, path: string, Action: string): ReturnType<ServedHost["ask"]> =>
  server.ask("PUT", path, { body: JSON.stringify({ Action }) });

describe("calls about intentions", () => {
  it("take as long with many intentions as with few", () =>
    assertLinear<ServedHost>({
      size: 20,
      prepare: served,
      dispose: (server) => server[Symbol.asyncDispose](),
      steps: {
        write: (server, of) => each(of, (index) => put(server, exact("a", `b${index}`), "allow")),
        "write again": (server, of) => each(of, (index) => put(server, exact("a", `b${index}`), "deny")),
        read: (server, of) => each(of, (index) => server.ask("GET", exact("a", `b${index}`))),
        match: (server, of) =>
          each(of, (index) => server.ask("GET", `/v1/connect/intentions/match?by=destination&name=b${index}`)),
        check: (server, of) =>
          each(of, async (index) => {
            const path = `/v1/connect/intentions/check?source=a&destination=b${index}`;
            const answer = await server.ask("GET", path);
            assert.match(answer.text, /"Allowed":\s*false/);
            return answer;
          }),
        list: (server) => each(1, () => server.ask("GET", "/v1/connect/intentions")),
        delete: (server, of) => each(of, (index) => server.ask("DELETE", exact("a", `b${index}`))),
      },
    }));
});
