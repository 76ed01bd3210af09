import type { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import type { Closable } from "../../base/closable.js";
import { errorText, PeeringError } from "../../base/errors.js";
import { latest } from "../../base/latest.js";
import { type IntendedRequest, IntentionRules, type IntentionVerdict } from "../../config/intention-rules.js";
import type { IntendedCall, IntentionAction } from "../../config/intentions.js";
import type { PeeringHost } from "../../host/host.js";
import type { HttpRequest, HttpResponse } from "../../http/messages.js";
import { placeOf } from "../../rpc/handshakes-in-turn.js";
import { httpServer } from "../../rpc/http-server.js";
import type { ServerTls } from "../../rpc/server-tls.js";
import { ConnectionLimits } from "../../transport/connection-limits.js";
import { CARRIED_HEADER } from "../identity/carried.js";
import { shownChain, type VerifiedIdentity, verifyChain } from "../identity/verify-chain.js";
import { type CallerTrust, callerOf, callerTrust, callingClusters, type MeshCaller } from "./callers.js";
import { normalizedTarget } from "./request-path.js";
import { tcpServer } from "./tcp-server.js";

interface CommonOptions {
  /** The service of this cluster that is served: its certificate is shown, and its intentions decide. */
  readonly service: string;
  /** `host:port`. Port 0: any that is free. */
  readonly listen: string;
  /** The decision on callers that no intention names. Default `deny`. */
  readonly defaultIntention?: IntentionAction;
  /** How long the handshake of a connection may take, in milliseconds. Default 10 000; then it is closed. */
  readonly handshakeTimeoutMs?: number;
  /**
   * Connections of one source. Default 4 096, for a mesh gateway is the source of all that come through it; beyond this, new
   * ones are closed.
   */
  readonly connectionsPerSource?: number;
  /** Bounds the connections of all listeners that it is passed to. Default: one of its own. */
  readonly connectionLimits?: ConnectionLimits;
}

/** A listener for a service whose protocol is TCP: intentions decide about each connection. */
export interface MeshTcpListenerOptions extends CommonOptions {
  /** Serves a connection that is allowed. It owns the stream, and must take its errors. */
  readonly onConnection: (connection: Duplex, caller: MeshCaller) => void;
}

/** A listener for a service whose protocol is HTTP, HTTP/2 or gRPC: intentions decide about each request. */
export interface MeshHttpListenerOptions extends CommonOptions {
  /**
   * Serves a request that is allowed, as a listener of `node:http` or of `node:http2` does. The `url` of the request is normalised, as it was
   * judged.
   */
  readonly onRequest: (request: HttpRequest, response: HttpResponse, caller: MeshCaller) => void;
}

export type MeshListenerOptions = MeshTcpListenerOptions | MeshHttpListenerOptions;

/** A listener that runs until it is closed. */
export interface MeshListener extends Closable {
  /** `host:port` it really listens on. */
  readonly address: string;
}

/** Everything that a listener shows, and trusts. */
interface Material {
  readonly trust: CallerTrust;
  readonly tls: ServerTls;
}

const SHOWN_CHARACTERS = 200;

/**
 * Serves a service of this cluster in the mesh, as its sidecar would: mutual TLS with its certificate, open to callers of this cluster
 * and of the peers that it is exported to, as far as intentions let them. Certificate and roots are renewed
 * while it runs, and connections that stand are kept. Register the service with `connect: { native: true }` and the address of this listener,
 * so that mesh gateways lead to it.
 *
 * Tokens (JWT) are not verified: where an intention asks for one, everything that it would allow is refused.
 * @throws {PeeringError} `invalid-argument`: no certificate can hold the name of the service, or the address is none. `unavailable`: it
 *   cannot be bound. As the authority, where it issues none.
 */
export async function meshListener(host: PeeringHost, options: MeshListenerOptions): Promise<MeshListener> {
  const { service, listen, handshakeTimeoutMs = 10_000, connectionsPerSource = 4_096 } = options;
  const { incidents } = host;
  const connectionLimits = options.connectionLimits ?? new ConnectionLimits({ incidents });
  await host.leafCertificates.current(service);
  let material = materialReader(host, service)();
  if (material === undefined) throw new PeeringError("closed", "the host is closed");

  const rules = new IntentionRules((destination) => host.configEntries.get("service-intentions", destination), {
    byDefault: options.defaultIntention ?? "deny",
  });
  /** Identities of clients over HTTP, by where they come from. */
  const identities = new Map<string, VerifiedIdentity>();
  const verified = (client: TLSSocket): VerifiedIdentity | undefined => {
    try {
      // No root of all that are trusted leads to it. Which of them does is judged below.
      if (!client.authorized) throw new PeeringError("unauthenticated", String(client.authorizationError));
      const trust = material?.trust.roots ?? new Map<string, never>();
      return verifyChain(shownChain(client), { trust, role: "client", nowMs: Date.now() });
    } catch (error) {
      incidents.report("mesh-certificate-refused", "a caller in the mesh showed a certificate that is not trusted", {
        service,
        source: client.remoteAddress ?? "",
        error: errorText(error),
      });
      return undefined;
    }
  };
  /** The caller where it may go on. @param carriedFor - see {@link callerOf}. */
  const allowed = (
    identity: VerifiedIdentity,
    carriedFor: string | undefined,
    judge: (call: IntendedCall) => IntentionVerdict,
  ): MeshCaller | undefined => {
    const trust = material?.trust ?? callerTrust([]);
    const from = callerOf(identity, trust, { trustDomain: host.trustDomain, carriedFor });
    const verdict = from && judge({ source: from.service, peer: from.peer, destination: service });
    if (verdict?.allowed === true) return from;
    incidents.report("mesh-intention-denied", "a caller in the mesh was denied by intentions", {
      service,
      caller: (from?.spiffeId ?? identity.uri).slice(0, SHOWN_CHARACTERS),
      reason: verdict?.reason ?? "it is no service that intentions can name",
    });
    return undefined;
  };

  /** Whether it is served now. */
  const acceptConnection = (client: TLSSocket, serve: MeshTcpListenerOptions["onConnection"]): boolean => {
    // A reset that nobody listens for would end the process.
    client.on("error", () => {});
    const identity = verified(client);
    if (identity === undefined) {
      client.destroy();
      return false;
    }
    const caller = allowed(identity, undefined, (call) => rules.connection(call));
    if (caller !== undefined) {
      serve(client, caller);
      return true;
    }
    // As a sidecar: an orderly end without a byte. With unread bytes it would be a reset.
    client.resume();
    client.end();
    return false;
  };
  const serveRequest = (
    request: HttpRequest,
    response: HttpResponse,
    serve: MeshHttpListenerOptions["onRequest"],
  ): void => {
    const identity = identities.get(placeOf(request.socket));
    const target = normalizedTarget(request.url ?? "");
    if (identity === undefined || target === undefined) {
      refuse(response, 400, "bad request");
      return;
    }
    const asked: IntendedRequest = {
      method: request.method ?? "",
      path: target.path,
      header: (name) => headerOf(request, name),
    };
    const caller = allowed(identity, headerOf(request, CARRIED_HEADER), (call) => rules.request(call, asked));
    if (caller === undefined) {
      refuse(response, 403, "RBAC: access denied");
      return;
    }
    // Over HTTP/2 it stands in a header as well.
    const { headers }: { readonly headers: Record<string, unknown> } = request;
    const writable: { url?: string | undefined } = request;
    writable.url = target.path + target.query;
    if (headers[":path"] !== undefined) headers[":path"] = writable.url;
    serve(request, response, caller);
  };

  const server = await ("onRequest" in options
    ? httpServer({
        listen,
        tls: material.tls,
        verifiesClients: true,
        admits: (client) => {
          const identity = verified(client);
          if (identity === undefined) return false;
          const place = placeOf(client);
          identities.set(place, identity);
          client.once("close", () => {
            if (identities.get(place) === identity) identities.delete(place);
          });
          return true;
        },
        rpc: (_request, _response, next) => next?.(),
        http: (request, response) => serveRequest(request, response, options.onRequest),
        headersTimeoutMs: handshakeTimeoutMs,
        connectionsPerSource,
        connectionLimits,
        incidents,
      })
    : tcpServer({
        listen,
        tls: material.tls,
        connectionLimits,
        connectionsPerSource,
        connections: Number.POSITIVE_INFINITY,
        handshakeTimeoutMs,
        accept: (client) => acceptConnection(client, options.onConnection),
      }));

  const stop = new AbortController();
  const unusable = (error: unknown): void =>
    incidents.report("mesh-certificate-unusable", "a listener of the mesh goes on with its former certificates", {
      service,
      error: errorText(error),
    });
  // It fails only where the host was closed before its listener.
  const following = follow(host, service, stop.signal, (next) => {
    try {
      server.replaceCertificates(next.tls);
      material = next;
    } catch (error) {
      unusable(error);
    }
  }).catch(unusable);
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    stop.abort();
    closed ??= Promise.all([server.close(), following]).then(() => {});
    return closed;
  };
  return { address: server.address, close, [Symbol.asyncDispose]: close };
}

/** Tells the material after each change of it, until `signal` aborts. Keeps the certificate valid meanwhile. */
async function follow(
  host: PeeringHost,
  service: string,
  signal: AbortSignal,
  changed: (material: Material) => void,
): Promise<void> {
  const { authority, leafCertificates, view, exports } = host;
  const changes = latest({
    signal,
    subscribe: (wake) => {
      const forget = [
        leafCertificates.watch(service, wake),
        authority.onRootsChanged(wake),
        view.onChange(wake),
        exports.onReachingChange(wake),
      ];
      return () => {
        for (const end of forget) end();
      };
    },
    read: materialReader(host, service),
  });
  for await (const material of changes) changed(material);
}

/** Gives the material where it is not that of the last time; undefined where it is, or where there is no certificate. */
function materialReader(host: PeeringHost, service: string): () => Material | undefined {
  let former = "";
  return () => {
    const leaf = host.leafCertificates.peek(service);
    if (leaf === undefined) return undefined;
    const clusters = callingClusters(host, service);
    const now = JSON.stringify([String(leaf.index), clusters]);
    // Certificates are parsed only where one has changed.
    if (now === former) return undefined;
    former = now;
    const trust = callerTrust(clusters);
    const ca = [...trust.roots.values()].flatMap((roots) => roots.map((root) => root.toString())).join("");
    const { certificateChainPem, privateKeyPem } = leaf.certificate;
    return { trust, tls: { certificate: certificateChainPem, key: privateKeyPem, ca } };
  };
}

/** The values of a header, joined. Node drops all but the first of some. */
function headerOf({ rawHeaders, headers, method, url }: HttpRequest, name: string): string | undefined {
  if (name === ":method") return method;
  if (name === ":path") return url;
  if (name === ":authority" || name === "host") return String(headers[":authority"] ?? headers.host ?? "") || undefined;
  const values = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === name);
  return values.length === 0 ? undefined : values.join(",");
}

function refuse(response: HttpResponse, status: number, text: string): void {
  response.writeHead(status, { "content-type": "text/plain" });
  response.end(text);
}
