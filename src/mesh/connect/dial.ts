import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import { type Abortable, signalOf } from "../../base/abortable.js";
import { type Random, systemRandom } from "../../base/environment.js";
import { PeeringError, type PeeringErrorCode } from "../../base/errors.js";
import type { PeeringHost } from "../../host/host.js";
import { parseAddress } from "../../transport/address.js";
import { forbidden, lookupAllowed } from "../../transport/allowed-lookup.js";
import type { IssuedCertificate } from "../../trust/authority.js";
import { shownChain, verifyChain } from "../identity/verify-chain.js";
import { connectionError, type MeshConnection, MeshSocket } from "./connection.js";
import { type MeshGatewayMode, type MeshRoute, routesTo } from "./routes.js";

/** How the mesh is dialed. */
export interface MeshDialLimits {
  /**
   * How long one gateway or instance may take, its TLS handshake included, in milliseconds. Default: as the resolver of the service says, else
   * 5 000; then the next one is tried.
   */
  readonly connectTimeoutMs?: number;
  /**
   * Gateways or instances that are tried for one connection, of each place that its chain leads or fails over to. Default 4; then the dial
   * fails with what each one failed with.
   */
  readonly attempts?: number;
  /**
   * How a call to a peer goes out: `local` through our own mesh gateways first, `remote` and `none` straight to those of the peer. Default: as the
   * config entries of `as` and of all proxies say.
   */
  readonly meshGateway?: MeshGatewayMode;
  /** Draws the order of gateways, and the branches of splitters. Default: the system's. */
  readonly random?: Random;
}

/** `signal` ends the attempt to connect; of a connection that stands it knows nothing. */
export interface MeshDialOptions extends Abortable, MeshDialLimits {
  readonly service: string;
  /** Our name of the peering whose service it is. Default: a service of this cluster. */
  readonly peer?: string;
  /** The service of this cluster in whose name we call: intentions of the other side name it. */
  readonly as: string;
}

export const defaultDialLimits: { readonly connectTimeoutMs: number; readonly attempts: number } = {
  connectTimeoutMs: 5_000,
  attempts: 4,
};

/**
 * A connection to a service of the mesh, as its sidecar would make it: mutual TLS in the name of `as`, through the mesh gateways of
 * the peer or straight to an instance here. The certificate of the other side is verified before a byte is sent.
 *
 * Over TLS 1.3 the other side may refuse our certificate after this has resolved: the connection then fails with
 * `permission-denied`. A connection that ends before its first byte fails, too: so a sidecar closes what no intention allows.
 * @throws {PeeringError} `not-found`: no such peering or service. `unavailable`: no gateway could be connected to, or there are no roots
 *   to trust. `unauthenticated`: the other side is not the service. `permission-denied`: it refused our certificate. As the
 *   authority, where it issues none. `signal.reason` when aborted.
 */
export async function meshDial(host: PeeringHost, options: MeshDialOptions): Promise<MeshConnection> {
  const { service, peer = "", as, meshGateway = "", random = systemRandom } = options;
  const limits = given(options);
  const { attempts } = { ...defaultDialLimits, ...limits };
  const signal = signalOf(options);
  signal.throwIfAborted();
  const { certificate } = await host.leafCertificates.current(as);
  const places = await routesTo(host, { service, peer, as, meshGateway }, () => random.fraction());
  signal.throwIfAborted();
  const failures: Failure[] = [];
  let known = 0;
  for (const route of places) {
    if (route instanceof PeeringError) continue;
    known += route.addresses.length;
    const timeoutMs = limits.connectTimeoutMs ?? (route.connectTimeoutMs || defaultDialLimits.connectTimeoutMs);
    for (const address of route.addresses.slice(0, attempts)) {
      try {
        return await connectTo(address, route, certificate, timeoutMs, signal);
      } catch (error) {
        signal.throwIfAborted();
        failures.push({ address, error: connectionError(error) });
      }
    }
  }
  const unusable = places.filter((route) => route instanceof PeeringError);
  const [first] = unusable;
  if (failures.length === 0 && first !== undefined) throw first;
  const error = summary(options, failures, known, unusable);
  host.incidents.report("mesh-dial-failed", "a service of the mesh could not be connected to", {
    service,
    peer,
    caller: as,
    attempts: failures.length,
    error: error.message,
  });
  throw error;
}

function given({ connectTimeoutMs, attempts }: MeshDialLimits): Partial<typeof defaultDialLimits> {
  for (const [name, value] of Object.entries({ connectTimeoutMs, attempts })) {
    if (value !== undefined && !(value >= 1)) throw new TypeError(`${name} must be a number from 1`);
  }
  return {
    ...(connectTimeoutMs !== undefined && { connectTimeoutMs }),
    ...(attempts !== undefined && { attempts }),
  };
}

/** An address that could not be connected to. */
interface Failure {
  readonly address: string;
  readonly error: PeeringError;
}

/** One error of all attempts. An answer of the other side weighs more than a gateway that was not reached. */
function summary(
  { service, peer, as }: MeshDialOptions,
  failures: readonly Failure[],
  known: number,
  unusable: readonly PeeringError[],
): PeeringError {
  const codes: readonly PeeringErrorCode[] = ["permission-denied", "unauthenticated"];
  const code = codes.find((one) => failures.some(({ error }) => error.code === one)) ?? "unavailable";
  const what = peer === undefined ? `"${service}"` : `"${service}" of the peer "${peer}"`;
  const attempts = failures.map(({ address, error }) => `${address}: ${error.message}`);
  const tried = [...attempts, ...unusable.map(({ message }) => message)].join("; ");
  const left = known > failures.length ? ` (${known - failures.length} more were not tried)` : "";
  const cause = failures.find(({ error }) => error.code === code)?.error;
  return new PeeringError(code, `"${as}" could not connect to ${what}: ${tried}${left}`, { cause });
}

function connectTo(
  address: string,
  route: MeshRoute,
  certificate: IssuedCertificate,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<MeshConnection> {
  const { host, port } = parseAddress(address);
  if (isIP(host) !== 0 && !route.mayDial(host)) {
    throw new PeeringError("unavailable", forbidden(address, [host]));
  }
  const { serverName, rootPems } = route;
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      lookup: lookupAllowed(address, route.mayDial),
      servername: serverName,
      ca: [...rootPems],
      allowPartialTrustChain: true,
      cert: certificate.certificateChainPem,
      key: certificate.privateKeyPem,
      minVersion: "TLSv1.2",
      // Consul's clients send no ALPN. Names are compared below, before a byte is sent: the certificate has no DNS name.
      checkServerIdentity: () => undefined,
      rejectUnauthorized: false,
    });
    socket.setNoDelay(true);
    const settle = (): void => {
      signal.removeEventListener("abort", abort);
      clearTimeout(timer);
      socket.off("close", closed).off("error", fail);
    };
    const fail = (error: unknown): void => {
      settle();
      // A socket that is destroyed may still fail.
      socket.on("error", () => {});
      socket.destroy();
      reject(error);
    };
    const abort = (): void => fail(signal.reason);
    const closed = (): void => fail(new PeeringError("unavailable", "the connection was closed during its handshake"));
    const timer = setTimeout(() => {
      fail(new PeeringError("timeout", `there was no connection within ${timeoutMs} ms`));
    }, timeoutMs);
    signal.addEventListener("abort", abort, { once: true });
    socket.once("close", closed).on("error", fail);
    socket.once("secureConnect", () => {
      let identity: string;
      try {
        identity = identityOf(socket, route);
      } catch (error) {
        fail(error);
        return;
      }
      settle();
      resolve(new MeshSocket(socket, { identity, address }));
    });
  });
}

/** @throws {PeeringError} `unauthenticated`: it is not the service that was dialed. */
function identityOf(socket: TLSSocket, { identities, trustDomain, rootPems }: MeshRoute): string {
  if (!socket.authorized) {
    // Types say Error, Node gives the code of the error as a string.
    throw new PeeringError("unauthenticated", `its certificate is not trusted: ${String(socket.authorizationError)}`);
  }
  const trust = new Map([[trustDomain, rootPems.map((pem) => new X509Certificate(pem))]]);
  const { uri } = verifyChain(shownChain(socket), { trust, role: "server", nowMs: Date.now() });
  if (identities.includes(uri)) return uri;
  throw new PeeringError("unauthenticated", `it is ${uri}, and not ${identities.join(" or ")}`);
}
