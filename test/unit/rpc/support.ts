import assert from "node:assert/strict";
import { type Client, Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import type { Authorizer } from "../../../src/access/authorizer.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import type { HostOptions } from "../../../src/host/options.js";
import { type HttpServer, httpServer, type PeeringRpcOptions, peeringRpc } from "../../../src/rpc/index.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { PeeringService } from "../../../src/wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { WatchService } from "../../../src/wire/gen/peerage/watch/v1/watch_pb.js";

export type Protocol = "Connect" | "gRPC" | "gRPC-web";
export const PROTOCOLS: readonly Protocol[] = ["Connect", "gRPC", "gRPC-web"];

/** A host with its services on one port. */
export interface ServedRpc extends AsyncDisposable {
  readonly host: PeeringHost;
  readonly server: HttpServer;
  readonly url: string;
  peerings(protocol?: Protocol): Client<typeof PeeringService>;
  watches(protocol?: Protocol): Client<typeof WatchService>;
}

/** @param host - disposed of with what serves it. */
export async function serveRpc(host: PeeringHost, options: PeeringRpcOptions = {}): Promise<ServedRpc> {
  const stopping = new AbortController();
  const rpc = peeringRpc(host, { signal: stopping.signal, ...options });
  const server = await httpServer({ listen: "127.0.0.1:0", rpc });
  const url = `http://${server.address}`;
  const sessions: Http2SessionManager[] = [];
  const transport = (protocol: Protocol): Transport => {
    if (protocol === "Connect") return createConnectTransport({ baseUrl: url, httpVersion: "1.1" });
    if (protocol === "gRPC-web") return createGrpcWebTransport({ baseUrl: url, httpVersion: "1.1" });
    const sessionManager = new Http2SessionManager(url);
    sessions.push(sessionManager);
    return createGrpcTransport({ baseUrl: url, sessionManager });
  };
  return {
    host,
    server,
    url,
    peerings: (protocol = "Connect") => createClient(PeeringService, transport(protocol)),
    watches: (protocol = "Connect") => createClient(WatchService, transport(protocol)),
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.abort();
      stopping.abort();
      await server[Symbol.asyncDispose]();
      await host[Symbol.asyncDispose]();
    },
  };
}

/** A host without peerings. */
export async function lonelyHost(options: Partial<HostOptions> = {}): Promise<PeeringHost> {
  const transport = memoryNetwork().transport({ listen: "alone:8503" });
  return createHost({ datacenter: "dc1", storage: memoryStorage(), transport, ...options });
}

/** The code and the text of a refusal. */
export async function refusal(call: Promise<unknown>): Promise<readonly [string, string]> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof ConnectError, String(error));
    return [Code[error.code] ?? "", error.rawMessage];
  }
  return assert.fail("it succeeded");
}

/** Tokens by their rights, as `peering:read` or `service:write any`; a token that is not named does not exist. */
export function tokens(rights: Readonly<Record<string, readonly string[]>>): Authorizer {
  const granted = new Map(Object.entries(rights));
  return {
    defaultPolicy: "deny",
    resolve: async (token) => {
      if (token === "") return { accessorId: undefined };
      return granted.has(token) ? { accessorId: token } : undefined;
    },
    allowed: ({ accessorId }, { resource, access, name, scope }) => {
      const right = [
        `${resource}:${access}`,
        ...(name === undefined ? [] : [name]),
        ...(scope === undefined ? [] : [scope]),
      ];
      return granted.get(accessorId ?? "")?.includes(right.join(" ")) ?? false;
    },
  };
}
