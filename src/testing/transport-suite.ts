import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../base/errors.js";
import type {
  AcceptHandler,
  DialTarget,
  ExchangeSecretRequest,
  Listener,
  ReplicationStream,
  ServerIdentity,
  Transport,
} from "../transport/transport.js";
import { StatusCode } from "../wire/status.js";

/** Two transports that can reach each other, made for one test. Disposing of it disposes of both. */
export interface TransportFixture extends AsyncDisposable {
  /** Has an address to listen on. */
  readonly acceptor: Transport;
  /** Has none. */
  readonly dialer: Transport;
  /** The certificate and name that the acceptor shows. */
  readonly identity: ServerIdentity;
  /** How the dialer reaches the acceptor, once that listens at `address`. Without roots where there are none to check. */
  target(address: string): DialTarget;
  /** A further transport, to listen on `address`. */
  another(address: string): Transport;
  /** Loses every connection between the two, without a goodbye. */
  cut(): void;
  /** Limits of the two, small enough for a test to exceed: at most 1 MiB each. */
  readonly maxReceiveFromDialerBytes: number;
  readonly maxReceiveFromAcceptorBytes: number;
  /** Open sockets and other handles of the process. */
  openHandles(): number;
}

/**
 * Registers with `node:test` what every {@link Transport} must do, for the ones `open` returns. The suite disposes of
 * those that it opens.
 */
export function transportSuite(name: string, open: () => Promise<TransportFixture>): void {
  const test = (title: string, action: (pair: Pair) => Promise<void>): void => {
    it(title, { timeout: 60_000 }, async () => {
      await using fixture = await open();
      await using pair = await Pair.start(fixture);
      await action(pair);
    });
  };

  describe(`${name} transport`, () => {
    test("messages arrive in order and unchanged, both ways", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await answer(acceptor, dialer);
      const sent = Array.from({ length: 300 }, (_, index) => message(index * 7, index));
      // Sending may wait for the reader, so neither is awaited before the other.
      const there = take(acceptor, 300);
      await dialer.send(sent.slice(0, 100));
      await dialer.send(sent.slice(100));
      assert.deepEqual(await there, sent);
      const back = take(dialer, 300);
      await acceptor.send(sent);
      assert.deepEqual(await back, sent);
    });

    test("empty messages and lists of none: the first arrive, the second are nothing", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await dialer.send([]);
      await dialer.send([new Uint8Array(0), message(3, 1), new Uint8Array(0)]);
      assert.deepEqual(await take(acceptor, 3), [new Uint8Array(0), message(3, 1), new Uint8Array(0)]);
    });

    test("messages of exactly the limit arrive", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      const { maxReceiveFromDialerBytes, maxReceiveFromAcceptorBytes } = pair.fixture;
      const [fromDialer, fromAcceptor] = [
        message(maxReceiveFromDialerBytes, 5),
        message(maxReceiveFromAcceptorBytes, 6),
      ];
      const [atAcceptor, atDialer] = await Promise.all([
        take(acceptor, 2),
        take(dialer, 2),
        dialer.send([fromDialer, message(1, 1)]),
        acceptor.send([fromAcceptor, message(1, 2)]),
      ]);
      assert.deepEqual(atAcceptor, [fromDialer, message(1, 1)]);
      assert.deepEqual(atDialer, [fromAcceptor, message(1, 2)]);
    });

    test("a message over the limit ends the stream with RESOURCE_EXHAUSTED at an acceptor that tells", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await answer(acceptor, dialer);
      const max = pair.fixture.maxReceiveFromDialerBytes;
      const sending = dialer.send([message(10, 1), message(max + 1, 2)]).catch(() => {});
      assert.deepEqual(await take(acceptor, 1), [message(10, 1)]);
      const text = `grpc: received message larger than max (${max + 1} vs. ${max})`;
      await rejects(acceptor.receive(), "resource-exhausted", StatusCode.ResourceExhausted, text);
      await acceptor.close({ code: StatusCode.ResourceExhausted, message: text });
      await rejects(dialer.receive(), "resource-exhausted", StatusCode.ResourceExhausted, text);
      await sending;
    });

    test("a message over the limit ends the stream with RESOURCE_EXHAUSTED at a dialer", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      const max = pair.fixture.maxReceiveFromAcceptorBytes;
      const sending = acceptor.send([message(10, 1), message(max + 1, 2)]).catch(() => {});
      assert.deepEqual(await take(dialer, 1), [message(10, 1)]);
      const text = `grpc: received message larger than max (${max + 1} vs. ${max})`;
      await rejects(dialer.receive(), "resource-exhausted", StatusCode.ResourceExhausted, text);
      await dialer.close();
      await assert.rejects(untilEnd(acceptor), PeeringError);
      await sending;
    });

    test("neither side has to speak first", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await acceptor.send([message(4, 1)]);
      assert.deepEqual(await take(dialer, 1), [message(4, 1)]);
      await dialer.send([message(4, 2)]);
      assert.deepEqual(await take(acceptor, 1), [message(4, 2)]);
    });

    test("half-close: the acceptor reads all and then the end, and can still send", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await dialer.send([message(5, 1)]);
      await dialer.halfClose();
      assert.deepEqual(await take(acceptor, 1), [message(5, 1)]);
      assert.equal(await acceptor.receive(), undefined);
      await acceptor.halfClose();
      await acceptor.send([message(6, 2)]);
      await acceptor.close();
      assert.deepEqual(await take(dialer, 1), [message(6, 2)]);
      assert.equal(await dialer.receive(), undefined);
    });

    test("status OK ends the dialer's receive, after the messages, and its sends", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await acceptor.send([message(5, 1), message(6, 2)]);
      await acceptor.close();
      assert.deepEqual(await take(dialer, 2), [message(5, 1), message(6, 2)]);
      assert.equal(await dialer.receive(), undefined);
      assert.equal(await dialer.receive(), undefined);
      await assert.rejects(dialer.send([message(1, 1)]), PeeringError);
    });

    test("a status reaches the dialer with code, text and detail, after the messages", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await acceptor.send([message(20_000, 1), message(7, 2)]);
      const text = "cannot establish a peering stream on a follower node: 100 % “é”\n";
      const status = { code: StatusCode.FailedPrecondition, message: text, leaderAddress: "10.1.2.3:8300" };
      const closing = acceptor.close(status);
      assert.deepEqual(await take(dialer, 2), [message(20_000, 1), message(7, 2)]);
      const error = await rejects(dialer.receive(), "not-leader", StatusCode.FailedPrecondition, text);
      assert.equal(error.leaderAddress, "10.1.2.3:8300");
      await rejects(dialer.receive(), "not-leader", StatusCode.FailedPrecondition, text);
      await rejects(dialer.send([message(1, 1)]), "not-leader", StatusCode.FailedPrecondition, text);
      await closing;
    });

    test("a status without any message", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await acceptor.close({ code: StatusCode.PermissionDenied, message: "invalid peering stream secret" });
      await rejects(
        dialer.receive(),
        "permission-denied",
        StatusCode.PermissionDenied,
        "invalid peering stream secret",
      );
    });

    test("each status code keeps its number", async (pair) => {
      for (const code of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 99]) {
        const [dialer, acceptor] = await pair.stream();
        await acceptor.close({ code, message: `code ${code}` });
        const error = await dialer.receive().then(
          () => assert.fail("a status other than OK is an error"),
          (thrown: unknown) => thrown,
        );
        assert.ok(error instanceof PeeringError);
        assert.deepEqual([error.status, error.message], [code, `code ${code}`]);
        await dialer.close();
      }
    });

    test("the dialer's close cancels the call: the acceptor reads the messages that came, then an error", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await dialer.send([message(5, 1)]);
      assert.deepEqual(await take(acceptor, 1), [message(5, 1)]);
      await dialer.close();
      const error = await assertPeeringError(untilEnd(acceptor));
      assert.ok(error.status === StatusCode.Canceled || error.status === StatusCode.Unavailable);
      await assert.rejects(sendUntilFailure(acceptor), PeeringError);
    });

    test("close ends a pending receive, comes back twice, and later calls do nothing", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      const [atDialer, atAcceptor] = [dialer.receive(), acceptor.receive()];
      await Promise.all([dialer.close(), acceptor.close()]);
      assert.equal(await atDialer, undefined);
      // Which of the two closes was first decides whether the acceptor was cancelled.
      await atAcceptor.catch((error: unknown) => assert.ok(error instanceof PeeringError));
      await Promise.all([dialer.close(), acceptor.close({ code: 2, message: "too late" })]);
      await Promise.all([dialer.halfClose(), acceptor.halfClose()]);
      assert.equal((await assertPeeringError(dialer.send([message(1, 1)]))).code, "closed");
      assert.equal((await assertPeeringError(acceptor.send([message(1, 1)]))).code, "closed");
    });

    test("a slow reader makes the sender wait, and loses nothing", async (pair) => {
      const [reader1, writer1] = await pair.stream();
      const [writer2, reader2] = await pair.stream();
      await answer(reader2, writer2);
      for (const [reader, writer] of [
        [reader1, writer1],
        [reader2, writer2],
      ] as const) {
        const size = 256 * 1024;
        const count = 256;
        let sent = 0;
        const sending = (async () => {
          for (let index = 0; index < count; index += 1) {
            await writer.send([message(size, index)]);
            sent += 1;
          }
        })();
        let received = 0;
        while (received < count) {
          // A sender that were never made to wait would finish in the turns it is given here.
          for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
          assert.ok((sent - received) * size <= 40 * 1024 * 1024, `${sent - received} messages are on their way`);
          for (const one of await next(reader)) {
            assert.equal(one[0], received & 0xff);
            assert.equal(one.length, size);
            received += 1;
          }
        }
        await sending;
      }
    });

    test("a reader that stopped does not keep its stream from being closed by either side", async (pair) => {
      for (const closer of ["dialer", "acceptor"] as const) {
        const [dialer, acceptor] = await pair.stream();
        const sending = assert.rejects(sendUntilFailure(acceptor), PeeringError);
        if (closer === "dialer") await dialer.close();
        else await acceptor.close();
        await sending;
        await dialer.close();
      }
    });

    test("a cut connection is UNAVAILABLE on both sides, for receive and send", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      await dialer.send([message(5, 1)]);
      assert.deepEqual(await take(acceptor, 1), [message(5, 1)]);
      const waiting = [assertPeeringError(dialer.receive()), assertPeeringError(acceptor.receive())];
      pair.fixture.cut();
      for (const error of await Promise.all(waiting)) {
        assert.deepEqual([error.code, error.status], ["unavailable", StatusCode.Unavailable]);
      }
      for (const stream of [dialer, acceptor]) {
        const error = await assertPeeringError(stream.send([message(1, 1)]));
        assert.equal(error.status, StatusCode.Unavailable);
        await stream.close();
      }
    });

    test("after a cut the next stream works", async (pair) => {
      await pair.stream();
      pair.fixture.cut();
      const [dialer, acceptor] = await pair.stream();
      await dialer.send([message(5, 1)]);
      assert.deepEqual(await take(acceptor, 1), [message(5, 1)]);
    });

    test("thirty streams at once do not mix", async (pair) => {
      const streams = await Promise.all(Array.from({ length: 30 }, () => pair.dial()));
      await Promise.all(streams.map((stream, index) => stream.send([message(4, index), message(7_000, index)])));
      const seen = new Set<number>();
      for (let index = 0; index < streams.length; index += 1) {
        const acceptor = await pair.accepted();
        const [first, second] = await take(acceptor, 2);
        assert.deepEqual(second, message(7_000, first?.[0] ?? -1));
        seen.add(first?.[0] ?? -1);
        await acceptor.send([message(8, first?.[0] ?? -1)]);
      }
      assert.equal(seen.size, 30);
      const answers = await Promise.all(streams.map((stream) => take(stream, 1)));
      assert.deepEqual(
        answers,
        streams.map((_, index) => [message(8, index)]),
      );
    });

    test("only one receive may wait", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      const first = dialer.receive();
      await assert.rejects(dialer.receive(), TypeError);
      await acceptor.send([message(1, 9)]);
      assert.deepEqual(await first, [message(1, 9)]);
    });

    test("exchangeSecret: request and answer", async (pair) => {
      const asked: ExchangeSecretRequest[] = [];
      pair.exchange = async (request, remoteAddress) => {
        asked.push(request);
        assert.match(remoteAddress, /^.+:\d+$/);
        return { streamSecret: "stream-secret" };
      };
      const request = { peerId: "an id", establishmentSecret: "a secret" };
      assert.deepEqual(await pair.ask(request), { streamSecret: "stream-secret" });
      assert.deepEqual(asked, [request]);
    });

    test("exchangeSecret: the handler's status, text and detail", async (pair) => {
      pair.exchange = async () => {
        throw new PeeringError("not-leader", "no – 100 %", { status: 9, leaderAddress: "10.0.0.1:8300" });
      };
      const error = await rejects(pair.ask(), "not-leader", StatusCode.FailedPrecondition, "no – 100 %");
      assert.equal(error.leaderAddress, "10.0.0.1:8300");
      pair.exchange = async () => {
        throw new PeeringError("permission-denied", "invalid peering establishment secret", { status: 7 });
      };
      await rejects(pair.ask(), "permission-denied", 7, "invalid peering establishment secret");
    });

    test("exchangeSecret: anything else thrown is UNKNOWN with its text", async (pair) => {
      pair.exchange = async () => {
        throw new Error("No cluster leader");
      };
      const error = await assertPeeringError(pair.ask());
      assert.deepEqual([error.status, error.message], [StatusCode.Unknown, "No cluster leader"]);
    });

    test("exchangeSecret: no answer in time", async (pair) => {
      pair.exchange = () => new Promise(() => {});
      const error = await assertPeeringError(pair.ask(undefined, { timeoutMs: 50 }));
      assert.deepEqual([error.code, error.status], ["timeout", StatusCode.DeadlineExceeded]);
    });

    test("exchangeSecret: aborted before and during the call", async (pair) => {
      let reached: () => void = () => {};
      const asked = new Promise<void>((resolve) => {
        reached = resolve;
      });
      pair.exchange = () => {
        reached();
        return new Promise(() => {});
      };
      const reason = new Error("changed my mind");
      await assert.rejects(pair.ask(undefined, { signal: AbortSignal.abort(reason) }), reason);
      const controller = new AbortController();
      const call = assert.rejects(pair.ask(undefined, { signal: controller.signal }), reason);
      await asked;
      controller.abort(reason);
      await call;
    });

    test("openStream: aborted before, and not affected by its signal afterwards", async (pair) => {
      const reason = new Error("changed my mind");
      await assert.rejects(pair.dial(AbortSignal.abort(reason)), reason);
      const controller = new AbortController();
      const dialer = await pair.dial(controller.signal);
      controller.abort(reason);
      await dialer.send([message(3, 1)]);
      assert.deepEqual(await take(await pair.accepted(), 1), [message(3, 1)]);
    });

    test("no listener at the address: unavailable, status 14", async (pair) => {
      await pair.listener[Symbol.asyncDispose]();
      for (const attempt of [pair.dial(), pair.ask()]) {
        const error = await assertPeeringError(attempt);
        assert.deepEqual([error.code, error.status], ["unavailable", StatusCode.Unavailable]);
      }
    });

    test("an address without a port is refused with its text (ch1 case 72, ch3 case 18)", async (pair) => {
      const target = { ...pair.target, address: "bad" };
      const signal = new AbortController().signal;
      for (const attempt of [
        pair.fixture.dialer.openStream(target, { signal }),
        pair.fixture.dialer.exchangeSecret(target, anyRequest, { timeoutMs: 5000, signal }),
      ]) {
        const error = await assertPeeringError(attempt);
        assert.equal(error.code, "invalid-argument");
        assert.match(error.message, /address bad: missing port in address/);
      }
    });

    test("another server name is refused, naming the real one (ch1 case 4)", async (pair) => {
      if (pair.target.caPems.length === 0) return;
      const target = { ...pair.target, serverName: "server.other.peering.example.consul" };
      const error = await assertPeeringError(
        pair.fixture.dialer.openStream(target, { signal: new AbortController().signal }),
      );
      assert.deepEqual([error.code, error.status], ["unauthenticated", StatusCode.Unavailable]);
      assert.ok(error.message.includes(pair.fixture.identity.serverName), error.message);
    });

    test("a transport without an address does not listen", async (pair) => {
      assert.equal(await pair.fixture.dialer.listen(pair.handler, pair.fixture.identity), undefined);
    });

    test("an address in use cannot be listened on", async (pair) => {
      await using other = pair.fixture.another(pair.listener.address);
      assert.equal((await assertPeeringError(other.listen(pair.handler, pair.fixture.identity))).code, "unavailable");
    });

    test("disposing of the dialer ends its streams, and its calls are refused", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      const waiting = [assertPeeringError(dialer.receive()), assertPeeringError(untilEnd(acceptor))];
      await pair.fixture.dialer[Symbol.asyncDispose]();
      await Promise.all(waiting);
      assert.equal((await assertPeeringError(pair.dial())).code, "closed");
      assert.equal((await assertPeeringError(pair.ask())).code, "closed");
    });

    test("disposing of the listener ends its streams", async (pair) => {
      const [dialer, acceptor] = await pair.stream();
      const waiting = [assertPeeringError(dialer.receive()), assertPeeringError(untilEnd(acceptor))];
      await pair.listener[Symbol.asyncDispose]();
      await Promise.all(waiting);
    });

    test("a listener's address is free again after its disposal", async (pair) => {
      await pair.listener[Symbol.asyncDispose]();
      await using other = pair.fixture.another(pair.listener.address);
      await using listener = await other.listen(pair.handler, pair.fixture.identity);
      assert.equal(listener?.address, pair.listener.address);
    });

    it("disposing of everything leaves no handle open", { timeout: 60_000 }, async () => {
      await using fixture = await open();
      // Handles of the test before are freed a few turns of the loop after they were closed.
      for (let turn = 0; turn < 500; turn += 1) await new Promise(setImmediate);
      const before = fixture.openHandles();
      const pair = await Pair.start(fixture);
      const [dialer] = await pair.stream();
      await pair.stream();
      await dialer.send([message(100_000, 1)]);
      await pair.ask();
      await Promise.all([fixture.dialer[Symbol.asyncDispose](), fixture.acceptor[Symbol.asyncDispose]()]);
      await pair[Symbol.asyncDispose]();
      for (let turn = 0; turn < 10_000 && fixture.openHandles() > before; turn += 1) await new Promise(setImmediate);
      assert.equal(fixture.openHandles(), before);
    });
  });
}

type Stream = ReplicationStream;

const anyRequest: ExchangeSecretRequest = { peerId: "id", establishmentSecret: "secret" };

/** A message told from others by its length and first byte. */
function message(length: number, mark: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.fill(mark & 0xff);
  if (length > 3) new DataView(bytes.buffer).setUint16(1, length & 0xffff);
  return bytes;
}

async function next(stream: Stream): Promise<readonly Uint8Array[]> {
  const messages = await stream.receive();
  assert.ok(messages !== undefined && messages.length > 0, "the stream has ended");
  return messages;
}

/** The acceptor sends a message: before that it may take only a little from a dialer, which is not authorised yet. */
async function answer(acceptor: ReplicationStream, dialer: ReplicationStream): Promise<void> {
  await acceptor.send([message(1, 1)]);
  await take(dialer, 1);
}

/** The next `count` messages, which must not be followed by more. */
async function take(stream: Stream, count: number): Promise<Uint8Array[]> {
  const messages: Uint8Array[] = [];
  while (messages.length < count) messages.push(...(await next(stream)));
  assert.equal(messages.length, count);
  return messages;
}

async function untilEnd(stream: Stream): Promise<void> {
  while ((await stream.receive()) !== undefined);
}

async function sendUntilFailure(stream: Stream): Promise<never> {
  for (;;) {
    await stream.send([message(64 * 1024, 1)]);
    await new Promise(setImmediate);
  }
}

async function assertPeeringError(action: Promise<unknown>): Promise<PeeringError> {
  const error = await action.then(
    () => assert.fail("a PeeringError was expected"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof PeeringError, String(error));
  return error;
}

async function rejects(
  action: Promise<unknown>,
  code: PeeringError["code"],
  status: number,
  text: string,
): Promise<PeeringError> {
  const error = await assertPeeringError(action);
  assert.deepEqual([error.code, error.status, error.message], [code, status, text]);
  return error;
}

/** A fixture whose acceptor listens. */
class Pair implements AsyncDisposable {
  readonly fixture: TransportFixture;
  readonly listener: Listener;
  readonly handler: AcceptHandler;
  readonly target: DialTarget;
  exchange: AcceptHandler["exchangeSecret"] = async () => ({ streamSecret: "stream" });
  readonly #streams: Stream[] = [];
  readonly #arrived: Stream[] = [];
  #waiting: (stream: Stream) => void = () => {};

  static async start(fixture: TransportFixture): Promise<Pair> {
    const handler: AcceptHandler = {
      exchangeSecret: (request, remoteAddress) => pair.exchange(request, remoteAddress),
      stream: (stream) => pair.#arrive(stream),
    };
    const listener = await fixture.acceptor.listen(handler, fixture.identity);
    assert.ok(listener !== undefined);
    const pair: Pair = new Pair(fixture, handler, listener);
    return pair;
  }

  private constructor(fixture: TransportFixture, handler: AcceptHandler, listener: Listener) {
    this.fixture = fixture;
    this.handler = handler;
    this.listener = listener;
    this.target = fixture.target(listener.address);
  }

  async dial(signal: AbortSignal = new AbortController().signal): Promise<Stream> {
    const stream = await this.fixture.dialer.openStream(this.target, { signal });
    this.#streams.push(stream);
    return stream;
  }

  /** The next stream that the acceptor was handed. */
  async accepted(): Promise<Stream> {
    return (
      this.#arrived.shift() ??
      (await new Promise<Stream>((resolve) => {
        this.#waiting = (stream) => {
          this.#waiting = () => {};
          this.#arrived.splice(this.#arrived.indexOf(stream), 1);
          resolve(stream);
        };
      }))
    );
  }

  /** Both ends of a new stream: the dialer's first. */
  async stream(): Promise<[Stream, Stream]> {
    const dialer = await this.dial();
    return [dialer, await this.accepted()];
  }

  ask(
    request: ExchangeSecretRequest = anyRequest,
    options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<{ readonly streamSecret: string }> {
    const { timeoutMs = 10_000, signal = new AbortController().signal } = options;
    return this.fixture.dialer.exchangeSecret(this.target, request, { timeoutMs, signal });
  }

  #arrive(stream: Stream): void {
    this.#streams.push(stream);
    this.#arrived.push(stream);
    this.#waiting(stream);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#streams.map((stream) => stream.close()));
    await this.listener[Symbol.asyncDispose]();
  }
}
