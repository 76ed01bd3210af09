import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate } from "node:timers/promises";
import type { Clock } from "../../src/base/environment.js";
import { Incidents } from "../../src/base/incidents.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { CallLimits, type CallLimitsOptions, type HttpHandlerOptions, httpHandler } from "../../src/http/index.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { type TestClock, testClock } from "../../src/testing/index.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { assertDocumented } from "./openapi.js";

/** The system's clock, so many times as fast: what waits for seconds waits for less. */
export function fastClock(factor: number): Clock {
  const start = performance.now();
  const wall = Date.now();
  const elapsed = (): number => (performance.now() - start) * factor;
  return {
    now: elapsed,
    wall: () => wall + elapsed(),
    after: (delayMs, action) => {
      const timer = setTimeout(action, Math.min(Math.max(delayMs, 0) / factor, 2 ** 31 - 1));
      timer.unref();
      return { cancel: () => clearTimeout(timer) };
    },
  };
}

export interface RawAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  readonly bytes: Buffer;
}

/** A host that is served over HTTP. */
export class ServedHost implements AsyncDisposable {
  readonly host: PeeringHost;
  readonly server: Server;
  readonly port: number;

  constructor(host: PeeringHost, server: Server, port: number) {
    this.host = host;
    this.server = server;
    this.port = port;
  }

  /** The path goes out as it is written. Fails when the answer is not of the form that the OpenAPI document says. */
  async ask(
    method: string,
    path: string,
    options: {
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<RawAnswer> {
    const { body, headers = {}, signal } = options;
    const outgoing = request({
      host: "127.0.0.1",
      port: this.port,
      method,
      path,
      agent: false,
      headers: { ...(body === undefined ? {} : { "Content-Length": String(Buffer.byteLength(body)) }), ...headers },
      ...(signal === undefined ? {} : { signal }),
    });
    outgoing.end(body);
    const [incoming] = await once(outgoing, "response");
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    if (incoming.headers["content-encoding"] === undefined) {
      const contentType = incoming.headers["content-type"];
      assertDocumented(method, path, { status: incoming.statusCode, contentType, text: bytes.toString() });
    }
    return { status: incoming.statusCode, headers: incoming.headers, text: bytes.toString(), bytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.close();
    this.server.closeAllConnections();
    await this.host[Symbol.asyncDispose]();
  }
}

/** Serves a host on a free port. */
export async function serve(host: PeeringHost, options: HttpHandlerOptions = {}): Promise<ServedHost> {
  const server = createServer(httpHandler(host, options)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address() as AddressInfo;
  return new ServedHost(host, server, address.port);
}

/** The same with limits on calls, whose incidents are counted. Without a clock of its own it stands still. */
export async function serveLimited(host: PeeringHost, limits: CallLimitsOptions, clock: TestClock = testClock()) {
  const incidents = new Incidents({ clock });
  const { server, port } = await serve(host, { limits: new CallLimits({ ...limits, clock, incidents }), clock });
  return {
    port,
    clock,
    incidents,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Two hosts of one network in the set-up of the recordings: `a` makes tokens, `b` establishes. Nothing is peered yet. */
export class HttpPair implements AsyncDisposable {
  readonly a: ServedHost;
  readonly b: ServedHost;

  private constructor(a: ServedHost, b: ServedHost) {
    this.a = a;
    this.b = b;
  }

  /** @param factor - how fast time passes. */
  static async start(factor = 10, options: HttpHandlerOptions = {}, nodeName = "peerage"): Promise<HttpPair> {
    const network = memoryNetwork();
    const clock = fastClock(factor);
    const [a, b] = await Promise.all(
      ["dc1", "dc2"].map(async (datacenter, index) => {
        const listen = `127.0.0.1${index + 1}:8503`;
        const host = await createHost({
          datacenter,
          storage: memoryStorage(),
          transport: network.transport({ listen }),
          clock,
          nodeName,
        });
        return serve(host, { clock, ...options });
      }),
    );
    if (a === undefined || b === undefined) throw new TypeError("two were asked for");
    return new HttpPair(a, b);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.a[Symbol.asyncDispose]();
    await this.b[Symbol.asyncDispose]();
  }
}

/** Looks again and again until it is so; the test's own time limit ends a wait in vain. */
export async function eventually(condition: () => boolean, signal: AbortSignal): Promise<void> {
  while (!condition()) {
    signal.throwIfAborted();
    await setImmediate();
  }
}
