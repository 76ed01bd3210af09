import assert from "node:assert/strict";
import { PeeringError } from "../../../src/base/errors.js";
import { type GrpcTransportOptions, grpcTransport } from "../../../src/transport/grpc.js";
import type { AcceptHandler, DialTarget, ReplicationStream, ServerIdentity } from "../../../src/transport/transport.js";

export const never: AbortSignal = new AbortController().signal;

export const plaintext = (address: string): DialTarget => ({ address, serverName: "", caPems: [] });

export async function failure(action: Promise<unknown>): Promise<PeeringError> {
  const error = await action.then(
    () => assert.fail("a PeeringError was expected"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof PeeringError, String(error));
  return error;
}

export interface Acceptor extends AsyncDisposable {
  readonly address: string;
  /** The next stream that was opened to it. */
  next(): Promise<ReplicationStream>;
}

/** A grpc transport that listens, answers exchanges with "granted", and keeps the streams it is handed. */
export async function startAcceptor(
  options: GrpcTransportOptions,
  identity: ServerIdentity,
  exchangeSecret: AcceptHandler["exchangeSecret"] = async () => ({ streamSecret: "granted" }),
): Promise<Acceptor> {
  const transport = grpcTransport(options);
  const streams: ReplicationStream[] = [];
  let arrived: () => void = () => {};
  const listener = await transport.listen(
    {
      exchangeSecret,
      stream(stream) {
        streams.push(stream);
        arrived();
      },
    },
    identity,
  );
  assert.ok(listener !== undefined);
  return {
    address: listener.address,
    async next() {
      for (;;) {
        const stream = streams.shift();
        if (stream !== undefined) return stream;
        await new Promise<void>((resolve) => {
          arrived = resolve;
        });
      }
    },
    [Symbol.asyncDispose]: () => transport[Symbol.asyncDispose](),
  };
}
