import type { Timer } from "../../base/environment.js";
import {
  type ReplicationMessage,
  type RequestMessage,
  ResourceUrl,
  type ResponseMessage,
} from "../../wire/messages.js";
import { StatusCode } from "../../wire/status.js";
import type { Behaviour } from "./behaviour.js";
import type { FakePeer, FakePeerScript } from "./fake-peer.js";
import type { FakeStream, TranscriptEntry } from "./fake-stream.js";

const HEARTBEAT_MS = 15_000;
const WRONG_NONCE = "deadbeef";

const acceptorUrls = [ResourceUrl.exportedService, ResourceUrl.exportedServiceList, ResourceUrl.trustBundle];
const dialerUrls = [...acceptorUrls, ResourceUrl.serverAddresses];

/** A subscription, as `peerId` the dialer's one carries. */
function subscription(resourceUrl: string, peerId: string): RequestMessage {
  return { type: "request", peerId, responseNonce: "", resourceUrl };
}

/**
 * Opens the stream as Consul 1.14 to 1.22 do: a dialer says `Open` and subscribes to everything; an acceptor waits for an
 * `Open`, judges it, and subscribes to the resources of a dialer.
 * @returns whether the stream is open. If not, it was refused and closed.
 */
export async function openStream(stream: FakeStream, peer: FakePeer): Promise<boolean> {
  if (stream.role === "dialer") {
    const open = peer.openMessage();
    await stream.send(open, ...dialerUrls.map((url) => subscription(url, open.peerId)));
  } else {
    const open = await stream.next();
    if (open === undefined) return false;
    const refusal = peer.judge(open);
    if (refusal !== undefined) {
      await stream.close(refusal);
      return false;
    }
    await stream.send(...acceptorUrls.map((url) => subscription(url, "")));
  }
  stream.markOpened();
  return true;
}

/** The script of a peer that keeps the protocol, within its {@link Behaviour}. The default. */
export async function keepProtocol(stream: FakeStream, peer: FakePeer): Promise<void> {
  if (!stream.opened && !(await openStream(stream, peer))) return;
  const subscribed = new Set<string>();
  const push = (...responses: readonly ResponseMessage[]): void => {
    if (responses.length > 0) void stream.send(...responses.map((response) => withNonce(response, peer.behaviour)));
  };
  const forget = peer.onOffer((names) => {
    if (!subscribed.has(ResourceUrl.exportedService)) return;
    push(...names.map((name) => peer.serviceResponse(stream, name)), peer.listResponse(stream));
  });
  // Silence is no answer: unanswered messages are answered once it answers again.
  const unanswered: ResponseMessage[] = [];
  const answer = (): void => {
    if (peer.behaviour.answers === "none") return;
    void stream.send(...unanswered.splice(0).map((response) => answerTo(response, peer.behaviour)));
  };
  const forgetBehaviour = peer.onBehaviour(answer);
  const stopHeartbeats = sayHeartbeats(stream, peer);
  try {
    for await (const message of stream) {
      if (message.type === "terminated") {
        await stream.finish();
        return;
      }
      if (message.type === "response") {
        unanswered.push(message);
        answer();
      } else if (message.type === "request" && !subscribed.has(message.resourceUrl)) {
        subscribed.add(message.resourceUrl);
        push(...peer.resourcesFor(stream, message.resourceUrl));
      }
    }
  } finally {
    forget();
    forgetBehaviour();
    stopHeartbeats();
  }
}

/** The answer of such a peer. */
function answerTo(response: ResponseMessage, { answers, nonces }: Behaviour): ReplicationMessage {
  const { resourceUrl, nonce } = response;
  const responseNonce = nonces === "right" ? nonce : nonces === "wrong" ? WRONG_NONCE : "";
  const ack: RequestMessage = { type: "request", peerId: "", responseNonce, resourceUrl };
  return answers === "ack"
    ? ack
    : { ...ack, error: { code: StatusCode.Internal, message: "refused by the fake peer" } };
}

function withNonce(response: ResponseMessage, { nonces }: Behaviour): ResponseMessage {
  return nonces === "right" ? response : { ...response, nonce: nonces === "wrong" ? WRONG_NONCE : "" };
}

function sayHeartbeats(stream: FakeStream, peer: FakePeer): () => void {
  let timer: Timer | undefined;
  const wait = (): void => {
    timer = peer.clock.after(HEARTBEAT_MS, () => {
      if (stream.end !== undefined) return;
      if (peer.behaviour.heartbeats) void stream.send({ type: "heartbeat" });
      wait();
    });
  };
  wait();
  return () => timer?.cancel();
}

/**
 * Plays the peer's side of a recorded exchange again: its messages in their order, each response only after the host has
 * answered the one before, as it had in the recording. The host's messages are in the transcript, to be compared. `Open` is
 * said, or waited for and judged, with the secrets of this run; everything else is said as it was.
 * @param recording - such as a {@link FakeStream.transcript}. Messages `from` the host are ignored.
 */
export function recordedScript(recording: readonly Pick<TranscriptEntry, "from" | "message">[]): FakePeerScript {
  return async (stream, peer) => {
    if (stream.role === "acceptor") {
      const open = await stream.expect("open");
      const refusal = peer.judge(open);
      if (refusal !== undefined) return stream.close(refusal);
    }
    stream.markOpened();
    for (const { from, message } of recording) {
      if (from === "host") continue;
      if (!(await stream.send(message.type === "open" ? peer.openMessage() : message))) return;
      if (message.type === "response") {
        await stream.expect("request", ({ resourceUrl, responseNonce }) => {
          return resourceUrl === message.resourceUrl && responseNonce === message.nonce;
        });
      }
    }
    // Read on, so that the host is never stuck on a peer that has nothing more to say.
    for await (const _ of stream) {
      // Kept in the transcript.
    }
  };
}
