import { X509Certificate } from "node:crypto";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { checkServerIdentity, connect as connectTls, type PeerCertificate, type TLSSocket } from "node:tls";
import { errorText, PeeringError } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import type { Incidents } from "../base/incidents.js";
import { StatusCode } from "../wire/status.js";
import { parseAddress } from "./address.js";
import { forbidden, lookupAllowed } from "./allowed-lookup.js";
import { isOutOfDescriptors, reportOutOfDescriptors } from "./connection-limits.js";
import { http2ErrorName } from "./grpc-status.js";
import { type KeepaliveOptions, keepAlive } from "./keepalive.js";
import { sessionOptions, shortSessionOptions, WINDOW_BYTES } from "./session-options.js";
import type { DialTarget } from "./transport.js";
import type { RootsReader } from "./trusted-roots.js";

/** An HTTP/2 connection to one acceptor: for a call, or a stream, or both one after the other. */
export interface ClientConnection {
  readonly session: ClientHttp2Session;
  readonly scheme: "http" | "https";
  /** `:authority` as grpc-go sets it: the server name with TLS, else the address. */
  readonly authority: string;
  readonly remoteAddress: string;
  /** It is to carry a stream: it gets pings, and windows for much that is sent over it. Call it once. */
  carryStream(keepalive: KeepaliveOptions): void;
  /** Why the connection is gone; undefined while it stands. */
  failure(): PeeringError | undefined;
  /** Lets open streams end, for at most a second, then frees the socket. Never rejects. */
  close(): Promise<void>;
  /** Ends everything at once, for the reason given. Never rejects. */
  abort(reason: PeeringError): Promise<void>;
}

const CLOSE_GRACE_MS = 1000;
/** Characters that an error quotes of a foreign certificate, or of an acceptor's last words. */
const SHOWN_CHARACTERS = 1_024;

function unavailable(reason: string, cause?: unknown): PeeringError {
  return new PeeringError("unavailable", `connection error: desc = "${reason}"`, {
    status: StatusCode.Unavailable,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** The DNS names a certificate is valid for, for messages. */
function namesOf(certificate: PeerCertificate): string {
  const names = (certificate.subjectaltname ?? "")
    .split(", ")
    .filter((name) => /^(DNS|IP Address):/.test(name))
    .map((name) => name.slice(name.indexOf(":") + 1));
  return names.join(", ") || "no name";
}

/** Why the certificate shown is not the one expected, in the words of Go where Consul's operators know them. */
function certificateError(socket: TLSSocket, serverName: string, roots: readonly string[]): PeeringError {
  const certificate = socket.getPeerCertificate(false);
  const names = namesOf(certificate);
  // Types say Error, Node gives the code of the error as a string.
  const reason = String(socket.authorizationError);
  const text = ((): string => {
    switch (reason) {
      case "ERR_TLS_CERT_ALTNAME_INVALID":
        return `certificate is valid for ${names}, not ${serverName}`;
      case "CERT_HAS_EXPIRED":
      case "CERT_NOT_YET_VALID":
        return `certificate has expired or is not yet valid: ${validityFault(certificate, roots)} (valid for ${names})`;
      case "INVALID_PURPOSE":
        return `certificate specifies an incompatible key usage (valid for ${names})`;
      case "DEPTH_ZERO_SELF_SIGNED_CERT":
      case "SELF_SIGNED_CERT_IN_CHAIN":
      case "UNABLE_TO_GET_ISSUER_CERT":
      case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
      case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
      case "CERT_SIGNATURE_FAILURE":
        return `certificate signed by unknown authority (valid for ${names}; ${reason})`;
      default:
        return `${reason} (valid for ${names})`;
    }
  })();
  return unauthenticated(text);
}

/** Which of the certificates is not valid now: the one shown, or one of those it is to be trusted by. */
function validityFault({ valid_from, valid_to }: PeerCertificate, roots: readonly string[]): string {
  const fault = (from: string, to: string): string | undefined => {
    if (Date.parse(to) <= Date.now()) return `expired at ${to}`;
    return Date.parse(from) > Date.now() ? `valid from ${from}` : undefined;
  };
  const ofRoots = roots.flatMap((pem) => {
    const { validFrom, validTo, subject } = new X509Certificate(pem);
    const found = fault(validFrom, validTo);
    return found === undefined ? [] : [`its authority ${subject.replaceAll("\n", ", ")} ${found}`];
  });
  return fault(valid_from, valid_to) ?? ofRoots[0] ?? "one of its authorities";
}

function unauthenticated(text: string): PeeringError {
  return new PeeringError(
    "unauthenticated",
    `connection error: desc = "transport: authentication handshake failed: x509: ${text}"`,
    { status: StatusCode.Unavailable },
  );
}

/** As Node writes alternative names: values that could be mistaken for others are JSON. */
const URI_NAME = /(?:^|, )URI:("(?:[^"\\]|\\.)*"|[^,]*)/g;
const SERVER_IDENTITY = /^spiffe:\/\/[^/?#]+\/agent\/server\/dc\/[^/?#]+$/i;

/**
 * The SPIFFE id of a certificate that is not a server's, such as a service's; undefined for a server's. An authority signs those for many, and one
 * that lets them choose DNS names would let them be the server. Consul looks at the DNS name alone (D-63).
 */
function foreignIdentity(socket: TLSSocket): string | undefined {
  const names = socket.getPeerX509Certificate()?.subjectAltName ?? "";
  for (const [, text = ""] of names.matchAll(URI_NAME)) {
    const uri = text.startsWith('"') ? String(JSON.parse(text)) : text;
    if (/^spiffe:/i.test(uri) && !SERVER_IDENTITY.test(uri)) return uri;
  }
  return undefined;
}

/** Connects TCP, and TLS where there are roots, and resolves with a verified socket. */
function openSocket(target: DialTarget, rootsReader: RootsReader, signal: AbortSignal): Promise<Socket> {
  const { host: given, port } = parseAddress(target.address);
  const host = given || "localhost";
  const { mayDial } = target;
  if (mayDial !== undefined && isIP(host) !== 0 && !mayDial(host)) {
    throw unavailable(`transport: Error while dialing: ${forbidden(target.address, [host])}`);
  }
  const resolver = mayDial === undefined ? {} : { lookup: lookupAllowed(target.address, mayDial) };
  const roots = rootsReader.read(target.caPems);
  return new Promise((resolve, reject) => {
    const tls = roots.context !== undefined;
    const socket: Socket = roots.context
      ? connectTls({
          host,
          port,
          ...resolver,
          servername: target.serverName,
          secureContext: roots.context,
          ALPNProtocols: ["h2"],
          checkServerIdentity: (name, certificate) =>
            // Without any alternative name Node would fall back to the subject's common name; Go does not.
            certificate.subjectaltname === undefined
              ? Object.assign(new Error("no alternative names"), { code: "ERR_TLS_CERT_ALTNAME_INVALID" })
              : checkServerIdentity(name, certificate),
          // Verified below, before a byte is sent: here the names of the certificate could not be told any more.
          rejectUnauthorized: false,
        })
      : connectTcp({ host, port, ...resolver });
    socket.setNoDelay(true);
    const settle = (): void => {
      signal.removeEventListener("abort", abort);
      socket.off("close", closed);
    };
    const fail = (error: unknown): void => {
      settle();
      socket.destroy();
      reject(error);
    };
    const abort = (): void => fail(signal.reason);
    const closed = (): void => fail(unavailable("error reading server preface: EOF"));
    signal.addEventListener("abort", abort, { once: true });
    socket.once("close", closed);
    socket.on("error", (error: Error & { readonly errors?: readonly Error[] }) => {
      // Several addresses of one name fail as an AggregateError, whose own message is empty.
      const text = error.message || (error.errors ?? []).map(errorText).join("; ") || error.name;
      fail(unavailable(`transport: Error while dialing: ${text}`, error));
    });
    socket.once(tls ? "secureConnect" : "connect", () => {
      if (tls && !(socket as TLSSocket).authorized) {
        fail(certificateError(socket as TLSSocket, target.serverName, roots.pems));
        return;
      }
      const foreign = tls ? foreignIdentity(socket as TLSSocket) : undefined;
      if (foreign !== undefined) {
        fail(unauthenticated(`certificate is one of ${foreign.slice(0, SHOWN_CHARACTERS)}, not of a server`));
        return;
      }
      settle();
      resolve(socket);
    });
  });
}

/**
 * Connects to `target` and resolves when its HTTP/2 settings have arrived.
 * @param signal - gives up; has no effect afterwards.
 * @throws {PeeringError} as `Transport.openStream`; `signal.reason` when aborted.
 */
export async function connectTo(
  target: DialTarget,
  options: {
    readonly timeoutMs: number;
    /** Undefined: the connection is for one short call. It gets no pings, and little may be sent over it. */
    readonly keepalive: KeepaliveOptions | undefined;
    readonly roots: RootsReader;
    readonly incidents: Incidents;
    readonly signal: AbortSignal;
  },
): Promise<ClientConnection> {
  options.signal.throwIfAborted();
  const attempt = new AbortController();
  const abort = (): void => attempt.abort(options.signal.reason);
  const timer = setTimeout(() => {
    const error = unavailable(`transport: Error while dialing: no connection within ${options.timeoutMs} ms`);
    attempt.abort(error);
  }, options.timeoutMs);
  options.signal.addEventListener("abort", abort, { once: true });
  try {
    const socket = await openSocket(target, options.roots, attempt.signal).catch((error: unknown) => {
      const cause = error instanceof Error ? error.cause : undefined;
      if (isOutOfDescriptors(cause)) reportOutOfDescriptors(options.incidents, cause);
      throw error;
    });
    return await startSession(target, socket, options.keepalive, attempt.signal);
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener("abort", abort);
  }
}

function startSession(
  target: DialTarget,
  socket: Socket,
  keepalive: KeepaliveOptions | undefined,
  signal: AbortSignal,
): Promise<ClientConnection> {
  const scheme = target.caPems.length > 0 ? "https" : "http";
  const authority = scheme === "https" ? target.serverName : target.address;
  const remoteAddress = joinHostPort(socket.remoteAddress ?? "", socket.remotePort ?? 0);
  let failure: PeeringError | undefined;
  // The URL only selects the scheme: the socket stands already, and every request names its own authority.
  const own = keepalive === undefined ? shortSessionOptions : sessionOptions;
  const session = connectHttp2(`${scheme}://localhost`, { ...own, createConnection: () => socket });
  const closed = new Promise<void>((resolve) => session.once("close", () => resolve()));
  const fail = (error: PeeringError): void => {
    failure ??= error;
  };
  // These listeners stay for life: an error without a listener, even of an idle session, ends the process.
  session.on("error", (error: Error) => fail(unavailable(`transport: ${error.message}`, error)));
  session.on("goaway", (code: number, _lastStreamId: number, data: Uint8Array | undefined) => {
    if (code === 0) return;
    const text = data === undefined ? "" : String(data).slice(0, SHOWN_CHARACTERS);
    const debug = text === "" ? "" : `, debug data: ${JSON.stringify(text)}`;
    fail(unavailable(`received prior goaway: code: ${http2ErrorName(code)}${debug}`));
  });
  socket.on("error", (error: Error) => fail(unavailable(`error reading from server: ${error.message}`, error)));
  socket.on("close", () => fail(unavailable("error reading from server: EOF")));
  const ping = (options: KeepaliveOptions): void =>
    keepAlive(
      session,
      options,
      () => socket.bytesRead,
      () => {
        fail(unavailable("keepalive ping failed to receive ACK within timeout"));
        session.destroy();
        socket.destroy();
      },
    );
  if (keepalive !== undefined) ping(keepalive);

  const connection: ClientConnection = {
    session,
    scheme,
    authority,
    remoteAddress,
    carryStream: (options) => {
      ping(options);
      session.setLocalWindowSize(WINDOW_BYTES);
      session.settings(sessionOptions.settings ?? {});
    },
    failure: () => failure ?? (session.destroyed ? unavailable("error reading from server: EOF") : undefined),
    close: () => {
      const timer = setTimeout(() => {
        session.destroy();
        socket.destroy();
      }, CLOSE_GRACE_MS);
      timer.unref();
      if (!session.destroyed) session.close();
      return closed.then(() => clearTimeout(timer));
    },
    abort: (reason) => {
      fail(reason);
      session.destroy();
      socket.destroy();
      return closed;
    },
  };
  return new Promise((resolve, reject) => {
    const refuse = (error: unknown): void => {
      signal.removeEventListener("abort", abort);
      session.off("close", lost);
      session.destroy();
      socket.destroy();
      reject(error);
    };
    const abort = (): void => refuse(signal.reason);
    const lost = (): void => refuse(connection.failure() ?? unavailable("error reading server preface: EOF"));
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) {
      abort();
      return;
    }
    session.once("close", lost);
    if (keepalive !== undefined) {
      session.once("connect", () => session.destroyed || session.setLocalWindowSize(WINDOW_BYTES));
    }
    session.once("remoteSettings", () => {
      signal.removeEventListener("abort", abort);
      session.off("close", lost);
      resolve(connection);
    });
  });
}
