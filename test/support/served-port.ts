import type { PeeringHost } from "../../src/host/host.js";
import { type HttpHandlerOptions, httpHandler } from "../../src/http/index.js";
import {
  type HttpServer,
  type HttpServerOptions,
  httpServer,
  type PeeringRpcOptions,
  peeringRpc,
} from "../../src/rpc/index.js";

/** A host whose HTTP API and calls are served on one port, as an agent serves them. */
export interface ServedPort extends AsyncDisposable {
  readonly host: PeeringHost;
  readonly server: HttpServer;
  readonly port: number;
}

/**
 * @param host - disposed of with what serves it.
 * @param calls - of the HTTP API and of calls.
 * @param options - of the server. It listens at a free port of `127.0.0.1` by default.
 */
export async function servePort(
  host: PeeringHost,
  calls: HttpHandlerOptions & PeeringRpcOptions = {},
  options: Partial<HttpServerOptions> = {},
): Promise<ServedPort> {
  const rpc = peeringRpc(host, calls);
  const server = await httpServer({ listen: "127.0.0.1:0", rpc, http: httpHandler(host, calls), ...options });
  return {
    host,
    server,
    port: Number(/\d+$/.exec(server.address)?.[0]),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await host[Symbol.asyncDispose]();
    },
  };
}
