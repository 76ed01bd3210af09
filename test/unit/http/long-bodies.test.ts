// A long body is read in steps, with turns of the event loop in between for everybody else.
import assert from "node:assert/strict";
import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { httpHandler } from "../../../src/http/index.js";
import type { HttpListener } from "../../../src/http/messages.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { turnsDuring } from "../../support/turns.js";

/** A call without a network: all turns that pass are turns of the work on it. */
interface Asked {
  readonly answered: Promise<{ readonly status: number; readonly text: string }>;
  /** The client goes away. */
  readonly leave: () => void;
}

function ask(handler: HttpListener, method: string, url: string, body: unknown): Asked {
  const request = new IncomingMessage(new Socket());
  Object.assign(request, { method, url, httpVersion: "1.1" });
  const response = new ServerResponse(request);
  const answered = new Promise<{ readonly status: number; readonly text: string }>((resolve) => {
    response.end = (text?: unknown) => {
      resolve({ status: response.statusCode, text: String(text) });
      setImmediate().then(() => response.emit("close"));
      return response;
    };
  });
  request.push(typeof body === "string" ? body : JSON.stringify(body));
  request.push(null);
  handler(request, response);
  return { answered, leave: () => response.emit("close") };
}

async function served(): Promise<{ readonly host: PeeringHost; readonly handler: HttpListener }> {
  const transport = memoryNetwork().transport({});
  const host = await createHost({ storage: memoryStorage(), transport, nodeName: "n1" });
  return { host, handler: httpHandler(host) };
}

/** How many turns pass until a call is answered 200. */
async function turnsOf({ answered }: Asked): Promise<number> {
  const turns = await turnsDuring(answered);
  const { status, text } = await answered;
  assert.equal(status, 200, text);
  return turns;
}

/** Requests with so many things inside. */
const kinds: Readonly<Record<string, (count: number) => readonly [method: string, url: string, body: object]>> = {
  "a registration with many upstreams": (count) => [
    "PUT",
    "/v1/catalog/register",
    {
      Node: "n2",
      Address: "10.0.0.2",
      Service: {
        Kind: "connect-proxy",
        Service: "web-proxy",
        Port: 1,
        Proxy: {
          DestinationServiceName: "web",
          Upstreams: Array.from({ length: count }, (_, index) => ({
            DestinationName: `db${index}`,
            LocalBindPort: index + 1,
          })),
        },
      },
    },
  ],
  "a registration with many checks": (count) => [
    "PUT",
    "/v1/catalog/register",
    {
      Node: "n2",
      Address: "10.0.0.2",
      Checks: Array.from({ length: Math.ceil(count / 3) }, (_, index) => ({ CheckID: `c${index}`, Name: "c" })),
    },
  ],
  "an agent's service with many checks": (count) => [
    "PUT",
    "/v1/agent/service/register",
    {
      Name: "web",
      Checks: Array.from({ length: Math.ceil(count / 3) }, (_, index) => ({ Name: `c${index}`, TTL: "60s" })),
    },
  ],
  "a transaction of services with many upstreams": (count) => [
    "PUT",
    "/v1/txn",
    [
      { Node: { Verb: "set", Node: { Node: "n2", Address: "10.0.0.2" } } },
      ...Array.from({ length: Math.ceil(count / 200) }, (_, service) => ({
        Service: {
          // Whose answer is short.
          Verb: "delete",
          Node: "n2",
          Service: {
            Kind: "connect-proxy",
            Service: `web${service}-proxy`,
            Port: 1,
            Proxy: {
              DestinationServiceName: "web",
              Upstreams: Array.from({ length: 100 }, (_, index) => ({
                DestinationName: `db${index}`,
                LocalBindPort: index + 1,
              })),
            },
          },
        },
      })),
    ],
  ],
  "a config entry with many subsets": (count) => [
    "PUT",
    "/v1/config",
    {
      Kind: "service-resolver",
      Name: "web",
      Subsets: Object.fromEntries(Array.from({ length: count }, (_, index) => [`v${index}`, { OnlyPassing: true }])),
    },
  ],
  "an intention with many permissions": (count) => [
    "PUT",
    "/v1/connect/intentions/exact?source=a&destination=web",
    {
      Permissions: Array.from({ length: count / 2 }, (_, index) => ({
        Action: "allow",
        HTTP: { PathExact: `/${index}` },
      })),
    },
  ],
};

describe("others have turns while the agent works on", () => {
  for (const [name, make] of Object.entries(kinds)) {
    it(name, async () => {
      const { host, handler } = await served();
      await using _ = host;
      await host.configEntries.set({ kind: "proxy-defaults", name: "global", config: { protocol: "http" } });
      const few = await turnsOf(ask(handler, ...make(2)));
      const many = await turnsOf(ask(handler, ...make(12_000)));
      assert.ok(many >= few + 3, `${few} and ${many} turns`);
    });
  }
});

describe("a long body", () => {
  const long = (name: string, tags = 40_000): object => ({
    Name: name,
    Service: { Service: "web", Tags: Array.from({ length: tags }, (_, index) => `t${index}`) },
  });

  it("is read after the ones before it, while a short call is answered at once", async () => {
    const { host, handler } = await served();
    await using _ = host;
    const order: string[] = [];
    const note = async (name: string, { answered }: Asked): Promise<void> => {
      assert.equal((await answered).status, 200);
      order.push(name);
    };
    await Promise.all([
      note("long 1", ask(handler, "POST", "/v1/query", long("q1"))),
      note("long 2", ask(handler, "POST", "/v1/query", long("q2", 5_000))),
      note("short", ask(handler, "POST", "/v1/query", { Name: "q3", Service: { Service: "web" } })),
    ]);
    assert.deepEqual(order, ["short", "long 1", "long 2"]);
  });

  it("of a client that has gone away is read no further, and does not hold up the next one", async () => {
    const { host, handler } = await served();
    await using _ = host;
    const gone = ask(handler, "POST", "/v1/query", long("q1"));
    const next = ask(handler, "POST", "/v1/query", long("q2"));
    gone.leave();
    assert.equal((await next.answered).status, 200);
    assert.deepEqual(
      host.queries.list().map(({ query }) => query.name),
      ["q2"],
    );
  });
});
