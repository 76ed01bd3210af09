import type { Status } from "../wire/status.js";

/** Everything a dialer needs to reach one address of an acceptor. */
export interface DialTarget {
  /** `host:port`, IPv6 hosts in brackets. */
  readonly address: string;
  /** TLS server name: SNI, and the DNS SAN the certificate must carry. */
  readonly serverName: string;
  /** The only roots trusted, PEM. Empty: plaintext HTTP/2 with prior knowledge (acceptors of Consul 1.13). */
  readonly caPems: readonly string[];
  /**
   * Asked of each IP address that `address` is, or stands for, before a connection to it: false forbids that one. A transport
   * that connects to none does not ask. Default: every one may be dialed.
   */
  readonly mayDial?: (ip: string) => boolean;
}

/** The acceptor's TLS identity, asked for at every handshake so that renewals and rotations need no restart. */
export interface ServerIdentity {
  /** The SNI that selects it: `server.<dc>.peering.<trust domain>`. */
  readonly serverName: string;
  /** Leaf first, then intermediates, PEM; and its private key, PEM. */
  current(): { readonly certificateChainPem: string; readonly privateKeyPem: string };
}

/** One replication stream, seen as messages: whole protobuf encodings without gRPC framing. */
export interface ReplicationStream {
  /** Address of the other side, for logs. */
  readonly remoteAddress: string;
  /**
   * The next messages in order, at least one; `undefined` when the peer half-closed (to an acceptor) or ended the call
   * with status OK (to a dialer), or when we closed the stream. One call at a time. Messages may share one buffer with
   * others that arrived with them: copy messages that are kept for long.
   * @throws {PeeringError} with `status` when the call ended with an error, was reset, or the connection was lost.
   *   Messages that had arrived before are delivered first.
   */
  receive(): Promise<readonly Uint8Array[] | undefined>;
  /**
   * Writes the messages in order and resolves when the transport can take more, which may have to wait until the peer
   * reads. The arrays must not change afterwards. One call at a time. With its first message an acceptor shows that it has
   * authorised the dialer: until then a transport may take no more than 16 KiB a message from that, and 32 KiB in all.
   * @throws {PeeringError} with `status` as `receive`.
   */
  send(messages: readonly Uint8Array[]): Promise<void>;
  /** Flushes and ends our direction (dialer), or does nothing (acceptor: see `close`). */
  halfClose(): Promise<void>;
  /**
   * Ends the stream; later calls of `close` are no-ops. Acceptor: flushes, sends `status` (default OK) as trailers.
   * Dialer: cancels the call if it still runs, and closes its connection. Never throws. A pending `receive` ends.
   */
  close(status?: Status): Promise<void>;
}

export interface ExchangeSecretRequest {
  readonly peerId: string;
  readonly establishmentSecret: string;
}

/** The host's handlers for calls of dialers. */
export interface AcceptHandler {
  /**
   * @param remoteAddress - of the caller, `host:port`.
   * @throws {PeeringError} with `status`: the answer to the caller. Anything else thrown is answered UNKNOWN (2).
   */
  exchangeSecret(request: ExchangeSecretRequest, remoteAddress: string): Promise<{ readonly streamSecret: string }>;
  /** Takes over a new stream. The handler owns it and closes it. */
  stream(stream: ReplicationStream): void;
}

export interface Listener extends AsyncDisposable {
  /** `host:port` really bound. */
  readonly address: string;
}

/** How clusters reach each other. */
export interface Transport extends AsyncDisposable {
  /**
   * Starts to accept, or returns `undefined` where this transport was given no address to listen on (dial only).
   * @throws {PeeringError} `unavailable` when the address cannot be bound.
   */
  listen(handler: AcceptHandler, identity: ServerIdentity): Promise<Listener | undefined>;
  /**
   * The unary call of an establishing dialer. Its connection may be kept for the stream that follows to the same target.
   * @throws {PeeringError} with `status`; `timeout` after `timeoutMs`; `signal.reason` when aborted.
   */
  exchangeSecret(
    target: DialTarget,
    request: ExchangeSecretRequest,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<{ readonly streamSecret: string }>;
  /**
   * Opens a stream over a connection that carries nothing else; resolves once the connection stands, without waiting for the acceptor
   * to speak.
   * @param options - `signal` gives up opening; has no effect on a stream that is open.
   * @throws {PeeringError} `unavailable` (status 14), `unauthenticated` (status 14) for a certificate that does not
   *   verify, `invalid-argument` for an address or PEM that cannot be used.
   */
  openStream(target: DialTarget, options: { readonly signal: AbortSignal }): Promise<ReplicationStream>;
}
