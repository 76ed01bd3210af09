// A peer that acknowledges whatever it is sent and keeps nothing.
import { TokenCodec } from "../src/token/token-codec.js";
import type { ReplicationStream, Transport } from "../src/transport/transport.js";
import { decodeMessage, encodeMessage } from "../src/wire/codec.js";
import { ResourceUrl } from "../src/wire/messages.js";
import { sharedNow } from "./figures.js";

const HEARTBEAT_MS = 15_000;
const SUBSCRIBED = [ResourceUrl.exportedService, ResourceUrl.exportedServiceList, ResourceUrl.trustBundle];

export class RawPeer {
  readonly #stream: ReplicationStream;
  /** Services of which instances have been sent. */
  readonly #services = new Set<string>();
  #onService: (service: string) => void = () => {};
  readonly #heartbeat: NodeJS.Timeout;
  #sending: Promise<void> = Promise.resolve();
  #failure: unknown;
  #fail: (error: unknown) => void = () => {};

  private constructor(stream: ReplicationStream) {
    this.#stream = stream;
    this.#heartbeat = setInterval(() => {
      this.#send([encodeMessage({ type: "heartbeat" })]).catch(() => {});
    }, HEARTBEAT_MS);
    this.#read().catch((error: unknown) => {
      this.#failure = error;
      this.#fail(error);
    });
  }

  /** Exchanges the secret of a token, and opens the stream. */
  static async connect(transport: Transport, token: string): Promise<RawPeer> {
    const { serverAddresses, serverName, ca, peerId, establishmentSecret } = TokenCodec.decode(token);
    const target = { address: serverAddresses[0] ?? "", serverName, caPems: ca };
    const { signal } = new AbortController();
    const request = { peerId, establishmentSecret };
    const { streamSecret } = await transport.exchangeSecret(target, request, { timeoutMs: 60_000, signal });
    const stream = await transport.openStream(target, { signal });
    const remote = { partition: "", datacenter: "dc2" };
    await stream.send([
      encodeMessage({ type: "open", peerId, streamSecretId: streamSecret, remote }),
      ...SUBSCRIBED.map((resourceUrl) => encodeMessage({ type: "request", peerId, responseNonce: "", resourceUrl })),
    ]);
    return new RawPeer(stream);
  }

  /** When instances of so many services had been sent. */
  sent(services: number): Promise<number> {
    return this.#when(() => this.#services.size >= services);
  }

  /** When a service is sent the next time. */
  sees(service: string): Promise<number> {
    return this.#when((sent) => sent === service);
  }

  async close(): Promise<void> {
    clearInterval(this.#heartbeat);
    await this.#stream.close();
  }

  /** One call after another, as the stream wants it. */
  #send(messages: readonly Uint8Array[]): Promise<void> {
    this.#sending = this.#sending.then(() => this.#stream.send(messages));
    return this.#sending;
  }

  #when(isThere: (sent: string | undefined) => boolean): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      if (isThere(undefined)) return resolve(sharedNow());
      this.#fail = reject;
      this.#onService = (service) => {
        if (!isThere(service)) return;
        this.#onService = () => {};
        resolve(sharedNow());
      };
    });
  }

  async #read(): Promise<void> {
    for (let batch = await this.#stream.receive(); batch !== undefined; batch = await this.#stream.receive()) {
      const answers: Uint8Array[] = [];
      for (const bytes of batch) {
        const message = decodeMessage(bytes);
        if (message.type !== "response") continue;
        const { resourceUrl, resourceId, nonce, resource } = message;
        answers.push(encodeMessage({ type: "request", peerId: "", responseNonce: nonce, resourceUrl }));
        if (resourceUrl !== ResourceUrl.exportedService || (resource?.value.length ?? 0) === 0) continue;
        this.#services.add(resourceId);
        this.#onService(resourceId);
      }
      if (answers.length > 0) await this.#send(answers);
    }
    throw new Error("the stream ended");
  }
}
