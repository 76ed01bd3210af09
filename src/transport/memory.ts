/**
 * Clusters that reach each other inside one process, for tests.
 *
 * @module
 */

import type { Closable } from "../base/closable.js";
import { PeeringError } from "../base/errors.js";
import { Signal } from "../base/signal.js";
import { certificatesIn, isIssuedBy } from "../token/pem.js";
import { type Status, StatusCode } from "../wire/status.js";
import { parseAddress } from "./address.js";
import { statusError, thrownStatus } from "./grpc-status.js";
import type {
  AcceptHandler,
  DialTarget,
  ExchangeSecretRequest,
  Listener,
  ReplicationStream,
  ServerIdentity,
  Transport,
} from "./transport.js";

export interface MemoryTransportOptions {
  /** `name:port` others dial; need not exist anywhere. Port 0 takes a free one. Default: none, dial only. */
  readonly listen?: string;
  /** Largest message taken from a dialer, in bytes. Default 50 MiB, as over gRPC. */
  readonly maxReceiveFromDialerBytes?: number;
  /** Largest message taken from an acceptor, in bytes. Default 50 MiB, as over gRPC. */
  readonly maxReceiveFromAcceptorBytes?: number;
}

/** A network of one process. Nothing in it takes time but turns of the microtask queue. */
export interface MemoryNetwork {
  transport(options?: MemoryTransportOptions): Transport & Closable;
  /** Loses every connection, or those to `address`, without a goodbye. New ones can be made at once. */
  cut(address?: string): void;
  /** Streams that are open now. */
  readonly openStreams: number;
}

/** Sent and not yet received: above this `send` waits, in bytes. */
const BUFFER_BYTES = 256 * 1024;
const FIRST_FREE_PORT = 20_000;

/** An empty network of its own. */
export function memoryNetwork(): MemoryNetwork {
  return new Network();
}

interface MemoryListener {
  readonly handler: AcceptHandler;
  readonly identity: ServerIdentity;
  readonly maxReceiveBytes: number;
}

class Network implements MemoryNetwork {
  readonly listeners = new Map<string, MemoryListener>();
  readonly calls = new Set<Call>();
  #nextPort = FIRST_FREE_PORT;
  #nextDialer = 1;

  get openStreams(): number {
    return this.calls.size;
  }

  transport(options: MemoryTransportOptions = {}): Transport & Closable {
    return new MemoryTransport(this, options, `dialer-${this.#nextDialer++}:1`);
  }

  cut(address?: string): void {
    for (const call of [...this.calls]) {
      if (address === undefined || call.address === address) call.fail(lost("error reading from server: EOF"));
    }
  }

  bind(address: string, listener: MemoryListener): string {
    const bound = parseAddress(address).port === 0 ? address.replace(/:0+$/, `:${this.#nextPort++}`) : address;
    if (this.listeners.has(bound)) {
      throw new PeeringError("unavailable", `cannot listen on ${bound}: address already in use`);
    }
    this.listeners.set(bound, listener);
    return bound;
  }

  /** @throws {PeeringError} as `Transport.openStream`. */
  find(target: DialTarget): MemoryListener {
    parseAddress(target.address);
    const listener = this.listeners.get(target.address);
    if (listener === undefined) throw lost("transport: Error while dialing: connection refused");
    if (target.caPems.length > 0) checkIdentity(listener.identity, target);
    return listener;
  }
}

function lost(reason: string): PeeringError {
  return new PeeringError("unavailable", `connection error: desc = "${reason}"`, { status: StatusCode.Unavailable });
}

/** Refuses as TLS would, as far as tests of hosts need it: times and key usages are not looked at. */
function checkIdentity(identity: ServerIdentity, target: DialTarget): void {
  const refuse = (reason: string): PeeringError =>
    new PeeringError(
      "unauthenticated",
      `connection error: desc = "transport: authentication handshake failed: x509: ${reason}"`,
      { status: StatusCode.Unavailable },
    );
  if (identity.serverName.toLowerCase() !== target.serverName.toLowerCase()) {
    throw refuse(`certificate is valid for ${identity.serverName}, not ${target.serverName}`);
  }
  const chain = identity.current().certificateChainPem;
  if (!target.caPems.some((root) => vouches(root, chain))) {
    throw refuse(`certificate signed by unknown authority (valid for ${identity.serverName})`);
  }
}

/** Whether `root` is part of the chain, as text, or has signed one of its certificates. Texts need not be certificates. */
function vouches(root: string, chain: string): boolean {
  if (chain.includes(root.trim())) return true;
  const anchors = certificatesIn(root);
  return certificatesIn(chain).some((one) => anchors.some((anchor) => isIssuedBy(one.certificate, anchor.certificate)));
}

class MemoryTransport implements Transport, Closable {
  readonly #network: Network;
  readonly #options: MemoryTransportOptions;
  readonly #name: string;
  readonly #addresses = new Set<string>();
  /** Ends a waiting call or an open stream when the transport is closed. */
  readonly #open = new Set<(error: PeeringError) => void>();
  #disposed: PeeringError | undefined;

  constructor(network: Network, options: MemoryTransportOptions, name: string) {
    this.#network = network;
    this.#options = options;
    this.#name = name;
  }

  async listen(handler: AcceptHandler, identity: ServerIdentity): Promise<Listener | undefined> {
    if (this.#disposed !== undefined) throw this.#disposed;
    const { listen, maxReceiveFromDialerBytes: maxReceiveBytes = 50 * 1024 * 1024 } = this.#options;
    if (listen === undefined) return undefined;
    const address = this.#network.bind(listen, { handler, identity, maxReceiveBytes });
    this.#addresses.add(address);
    return { address, [Symbol.asyncDispose]: async () => this.#stopListening(address) };
  }

  exchangeSecret(
    target: DialTarget,
    request: ExchangeSecretRequest,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<{ readonly streamSecret: string }> {
    const { timeoutMs, signal } = options;
    return new Promise((resolve, reject) => {
      const settle = (action: () => void): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", abort);
        this.#open.delete(reject);
        action();
      };
      const abort = (): void => settle(() => reject(signal.reason));
      const timer = setTimeout(() => {
        const message = `no answer from ${target.address} within ${timeoutMs} ms`;
        settle(() => reject(new PeeringError("timeout", message, { status: StatusCode.DeadlineExceeded })));
      }, timeoutMs);
      signal.addEventListener("abort", abort, { once: true });
      this.#open.add(reject);
      if (signal.aborted) abort();
      else {
        this.#exchange(target, request).then(
          (answer) => settle(() => resolve(answer)),
          (error: unknown) => settle(() => reject(error)),
        );
      }
    });
  }

  async #exchange(target: DialTarget, request: ExchangeSecretRequest): Promise<{ readonly streamSecret: string }> {
    await undefined;
    if (this.#disposed !== undefined) throw this.#disposed;
    const { handler } = this.#network.find(target);
    try {
      return { streamSecret: (await handler.exchangeSecret({ ...request }, this.#name)).streamSecret };
    } catch (error) {
      throw statusError(thrownStatus(error));
    }
  }

  async openStream(target: DialTarget, { signal }: { readonly signal: AbortSignal }): Promise<ReplicationStream> {
    await undefined;
    signal.throwIfAborted();
    if (this.#disposed !== undefined) throw this.#disposed;
    const listener = this.#network.find(target);
    const call: Call = new Call(target.address, () => {
      this.#network.calls.delete(call);
      this.#open.delete(close);
    });
    const close = (error: PeeringError): void => call.fail(error);
    const maxReceive = this.#options.maxReceiveFromAcceptorBytes ?? 50 * 1024 * 1024;
    const toAcceptor = new Pipe(listener.maxReceiveBytes);
    const toDialer = new Pipe(maxReceive);
    call.pipes = [toAcceptor, toDialer];
    this.#network.calls.add(call);
    this.#open.add(close);
    const acceptorEnd = new AcceptorEnd(this.#name, call, toAcceptor, toDialer);
    queueMicrotask(() => listener.handler.stream(acceptorEnd));
    return new DialerEnd(target.address, call, toDialer, toAcceptor);
  }

  async close(): Promise<void> {
    for (const address of [...this.#addresses]) this.#stopListening(address);
    this.#disposed ??= new PeeringError("closed", "the transport is closed", { status: StatusCode.Canceled });
    for (const end of [...this.#open]) end(this.#disposed);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #stopListening(address: string): void {
    if (!this.#addresses.delete(address)) return;
    this.#network.listeners.delete(address);
    this.#network.cut(address);
  }
}

/** The state that both ends of a stream share. */
class Call {
  readonly address: string;
  pipes: readonly Pipe[] = [];
  readonly #onOver: () => void;

  constructor(address: string, onOver: () => void) {
    this.address = address;
    this.#onOver = onOver;
  }

  /** The connection is gone: both directions end with `error`. */
  fail(error: PeeringError): void {
    for (const pipe of this.pipes) pipe.end(error);
    this.over();
  }

  over(): void {
    this.#onOver();
  }
}

/** One direction. */
class Pipe {
  readonly #maxBytes: number;
  #messages: Uint8Array[] = [];
  #bytes = 0;
  #end: { readonly error: PeeringError | undefined } | undefined;
  #released = false;
  readonly #changed = new Signal();

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Adds messages and waits until few enough are left. @throws {PeeringError} why the direction has ended. */
  async write(messages: readonly Uint8Array[]): Promise<void> {
    this.#refuseIfEnded();
    for (const message of messages) {
      if (message.length > this.#maxBytes) {
        const text = `grpc: received message larger than max (${message.length} vs. ${this.#maxBytes})`;
        this.end(new PeeringError("resource-exhausted", text, { status: StatusCode.ResourceExhausted }));
        break;
      }
      // Copied, as over a wire: the sender may use its bytes again.
      this.#messages.push(message.slice());
      this.#bytes += message.length;
    }
    this.#changed.emit();
    while (this.#bytes > BUFFER_BYTES) {
      await this.#changed.next();
      this.#refuseIfEnded();
    }
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    // Never synchronously: code that relied on that would have a bug that only a real network shows.
    await undefined;
    while (this.#messages.length === 0) {
      if (this.#released) return undefined;
      if (this.#end !== undefined) {
        if (this.#end.error === undefined) return undefined;
        throw this.#end.error;
      }
      await this.#changed.next();
    }
    const messages = this.#messages;
    this.#messages = [];
    this.#bytes = 0;
    this.#changed.emit();
    return messages;
  }

  /** Nothing more goes through; earlier messages can still be read. The first call counts. */
  end(error?: PeeringError): void {
    this.#end ??= { error };
    this.#changed.emit();
  }

  /** The reader lets go: it reads nothing more, and the writer fails with `error`. */
  release(error: PeeringError | undefined): void {
    this.#released = true;
    this.#messages = [];
    this.#bytes = 0;
    this.end(error);
  }

  #refuseIfEnded(): void {
    if (this.#end === undefined) return;
    throw this.#end.error ?? new PeeringError("stream-ended", "the call has ended", { status: StatusCode.Ok });
  }
}

function closedError(): PeeringError {
  return new PeeringError("closed", "the stream is closed", { status: StatusCode.Canceled });
}

abstract class End implements ReplicationStream {
  readonly remoteAddress: string;
  protected readonly call: Call;
  protected readonly incoming: Pipe;
  protected readonly outgoing: Pipe;
  #closed = false;
  #receiving = false;

  constructor(remoteAddress: string, call: Call, incoming: Pipe, outgoing: Pipe) {
    this.remoteAddress = remoteAddress;
    this.call = call;
    this.incoming = incoming;
    this.outgoing = outgoing;
  }

  async receive(): Promise<readonly Uint8Array[] | undefined> {
    if (this.#receiving) throw new TypeError("receive() is already waiting");
    this.#receiving = true;
    try {
      return await this.incoming.read();
    } finally {
      this.#receiving = false;
    }
  }

  async send(messages: readonly Uint8Array[]): Promise<void> {
    if (this.#closed) throw closedError();
    if (messages.length > 0) await this.outgoing.write(messages);
  }

  abstract halfClose(): Promise<void>;

  async close(status: Status = { code: StatusCode.Ok, message: "" }): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.finish(status);
    this.call.over();
  }

  protected abstract finish(status: Status): void;
}

class DialerEnd extends End {
  override async halfClose(): Promise<void> {
    this.outgoing.end();
  }

  protected override finish(): void {
    const cancelled = new PeeringError("stream-ended", "context canceled", { status: StatusCode.Canceled });
    this.outgoing.end(cancelled);
    this.incoming.release(cancelled);
  }
}

class AcceptorEnd extends End {
  override async halfClose(): Promise<void> {}

  protected override finish(status: Status): void {
    const error = status.code === StatusCode.Ok ? undefined : statusError(status);
    this.outgoing.end(error);
    this.incoming.release(error);
  }
}
