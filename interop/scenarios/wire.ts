import assert from "node:assert/strict";
import { asPeeringError, type PeeringError } from "../../src/base/errors.js";
import { machineryOf } from "../../src/host/host.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { type PeeringToken, TokenCodec } from "../../src/token/token-codec.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import type { DialTarget, Transport } from "../../src/transport/transport.js";
import type { CertificateAuthority } from "../../src/trust/authority.js";
import { builtInAuthority } from "../../src/trust/built-in-authority.js";
import { decodeMessage, encodeMessage } from "../../src/wire/codec.js";
import { StatusCode } from "../../src/wire/status.js";
import type { Cluster } from "../cluster.js";
import type { ConsulServer } from "../consul.js";
import type { Scenario } from "../scenario.js";
import { change, exchange, exchanged } from "../services.js";
import { present, settles } from "../settles.js";
import { type Pair, stateOf } from "../stage.js";

const ANSWER_MS = 5_000;
const NOBODY = "00000000-0000-0000-0000-000000000000";

function targetOf({ serverName, ca }: PeeringToken, { grpc }: ConsulServer): DialTarget {
  return { address: grpc, serverName, caPems: ca };
}

/** How Consul refuses an exchange. */
async function refusal(
  transport: Transport,
  target: DialTarget,
  request: { readonly peerId: string; readonly establishmentSecret: string },
): Promise<PeeringError> {
  const { signal } = new AbortController();
  try {
    await transport.exchangeSecret(target, request, { timeoutMs: ANSWER_MS, signal });
  } catch (error) {
    return asPeeringError(error, "unavailable");
  }
  throw new Error("the exchange was not refused");
}

interface Opened {
  /** Types of the messages that came before the end. */
  readonly received: readonly string[];
  /** Undefined: it was ended by us, as it would have gone on. */
  readonly error: PeeringError | undefined;
}

/** The outcome of a stream that is opened so. */
async function opened(
  transport: Transport,
  target: DialTarget,
  open: { readonly peerId: string; readonly streamSecretId: string },
): Promise<Opened> {
  const stream = await transport.openStream(target, { signal: new AbortController().signal });
  const received: string[] = [];
  try {
    await stream.send([encodeMessage({ type: "open", ...open, remote: { partition: "", datacenter: "dc9" } })]);
    // An acceptor that agrees says what it subscribes to, and ends nothing.
    while (received.length < 3) {
      for (const bytes of present(await stream.receive(), "message")) received.push(decodeMessage(bytes).type);
    }
    return { received, error: undefined };
  } catch (error) {
    return { received, error: asPeeringError(error, "unavailable") };
  } finally {
    await stream.close();
  }
}

/** An authority whose certificates are those of `own`, and whose roots, for peers, are those of `shown` from `swap` on. */
function deceiving(own: CertificateAuthority, shown: CertificateAuthority): CertificateAuthority & { swap(): void } {
  let swapped = false;
  return {
    trustDomain: own.trustDomain,
    roots: () => (swapped ? shown : own).roots(),
    onRootsChanged: (listener) => own.onRootsChanged(listener),
    issueServer: (datacenter) => own.issueServer(datacenter),
    signingProblem: () => own.signingProblem(),
    issueLeaf: (identity) => own.issueLeaf(identity),
    signRequest: (requestPem, identity) => own.signRequest(requestPem, identity),
    swap: () => {
      swapped = true;
    },
    async [Symbol.asyncDispose]() {
      await own[Symbol.asyncDispose]();
      await shown[Symbol.asyncDispose]();
    },
  };
}

async function failing(cluster: Cluster, peer: Cluster): Promise<void> {
  await settles(async () => assert.equal(await stateOf(cluster, peer), "FAILING"), `${cluster.name} reads FAILING`);
}

/** The wire itself: what Consul answers to whom it should refuse, and what it takes for granted. */
export const wireScenarios: readonly Scenario[] = [
  {
    name: "control: whose exchange Consul refuses, and how",
    proves: "ch1 cases 12, 13, 14; ch3 cases 45, 85",
    roles: ["dialer"],
    async run(stage) {
      const consul = await stage.consul();
      await consul.ready();
      const token = TokenCodec.decode(await consul.client.peerings.generateToken({ peerName: "somebody" }));
      const { peerId, establishmentSecret } = token;
      const target = targetOf(token, consul);
      await using transport = grpcTransport();
      const refused = async (request: { peerId: string; establishmentSecret: string }, code: number, text: RegExp) => {
        const error = await refusal(transport, target, request);
        assert.equal(error.status, code, error.message);
        assert.match(error.message, text);
      };
      await refused({ peerId: "no-uuid", establishmentSecret }, StatusCode.Internal, /failed to read peering secret/);
      const invalid = /invalid peering establishment secret/;
      await refused({ peerId: NOBODY, establishmentSecret }, StatusCode.PermissionDenied, invalid);
      await refused({ peerId, establishmentSecret: NOBODY }, StatusCode.PermissionDenied, invalid);
      await refused({ peerId, establishmentSecret: "" }, StatusCode.PermissionDenied, invalid);
      const { signal } = new AbortController();
      const answer = await transport.exchangeSecret(
        target,
        { peerId, establishmentSecret },
        { timeoutMs: ANSWER_MS, signal },
      );
      assert.notEqual(answer.streamSecret, "");
      await refused({ peerId, establishmentSecret }, StatusCode.PermissionDenied, invalid);
      // Empty equals empty, and only the write finds out (ours answers as before).
      await refused({ peerId, establishmentSecret: "" }, StatusCode.Internal, /peering was already established/);
    },
  },
  {
    name: "control: whose stream Consul refuses, and how",
    proves: "ch1 cases 22, 23, 24, 29, 31, 35; ch3 cases 46, 47",
    roles: ["dialer"],
    async run(stage) {
      const pair = await stage.pair();
      const { ours, consul } = pair;
      const peering = ours.peering(consul.name);
      const target = { address: consul.grpc, serverName: peering.peerServerName, caPems: peering.peerCaPems };
      const { streamSecret } = present(await machineryOf(ours.host).records.dialable(peering.id), "stream secret");
      const good = { peerId: peering.peerId, streamSecretId: streamSecret };
      await using transport = grpcTransport();
      const refused = async (open: typeof good, code: number, text: RegExp): Promise<void> => {
        const { error } = await opened(transport, target, open);
        assert.equal(error?.status, code, error?.message);
        assert.match(error?.message ?? "", text);
      };
      await refused({ ...good, peerId: "" }, StatusCode.InvalidArgument, /must specify a PeerID/);
      await refused({ ...good, peerId: NOBODY }, StatusCode.InvalidArgument, /for unknown PeerID: 0{8}/);
      await refused({ ...good, peerId: "no-uuid" }, StatusCode.Internal, /failed to find PeerID: no-uuid/);
      await refused({ ...good, streamSecretId: NOBODY }, StatusCode.PermissionDenied, /invalid peering stream secret/);
      assert.equal(await stateOf(consul, ours), "ACTIVE");
      // A second one is refused, and yet it changes what Consul says of the first, which goes on; a third one is taken.
      await refused(good, StatusCode.Unknown, /there is an active stream for the given PeerID/);
      assert.equal(await stateOf(consul, ours), "FAILING");
      const third = await opened(transport, target, good);
      assert.deepEqual([third.received, third.error], [["request", "request", "request"], undefined]);
      await exchange(pair);

      await ours.host.peerings.delete(consul.name);
      await settles(async () => assert.equal(await stateOf(consul, ours), "TERMINATED"), "Consul reads TERMINATED");
      const late = await opened(transport, target, good);
      assert.deepEqual(late.received, []);
      assert.equal(late.error?.status, StatusCode.Aborted);
      assert.match(late.error?.message ?? "", /peering is marked as deleted/);
    },
  },
  {
    name: "control: Consul dials by the last bundle, not by the token",
    proves: "ch1 case 10",
    roles: ["acceptor"],
    async run(stage) {
      const shown = await builtInAuthority({ storage: memoryStorage() });
      let deceiver: ReturnType<typeof deceiving> | undefined;
      const pair: Pair = await stage.strangers({
        consul: { durable: true },
        ours: {
          authority: (own) => {
            deceiver = deceiving(own, shown);
            return deceiver;
          },
        },
      });
      const { ours, consul } = pair;
      const relay = await stage.relay(ours.address);
      const token = await pair.token([relay.address]);
      present(deceiver, "authority").swap();
      await pair.establish(token);
      await pair.active();
      await exchange(pair);
      // The loop that dials goes on with what it began with.
      relay.cut();
      await settles(() => assert.notEqual(ours.peering(consul.name).state, "active"), "the stream is gone");
      await pair.active();
      await change(pair, "cut");
      await exchanged(pair);
      await consul.restart();
      await failing(ours, consul);
      await settles(
        () => assert.match(consul.output, /certificate signed by unknown authority/),
        "Consul says that it trusts somebody else",
      );
      assert.notEqual(await stateOf(consul, ours), "ACTIVE");
    },
  },
];
