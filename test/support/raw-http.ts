import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { eventually } from "./http-pair.js";

/** One answer as it came over a connection. */
export interface RawResponse {
  readonly status: number;
  readonly headers: string;
  readonly body: string;
}

/** A client that writes bytes, and reads answers when it is told to. */
export class RawClient {
  readonly socket: Socket;
  #chunks: Buffer[] = [];
  #receivedBytes = 0;
  /** So much must have come before it is worth a look whether an answer is complete. */
  #neededBytes = 0;
  #chunked: ChunkedAnswer | undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
  }

  /** @param localAddress - where it comes from: any of `127.0.0.0/8`. */
  static async open(port: number, localAddress = "127.0.0.1"): Promise<RawClient> {
    // Each write is sent at once, also while the one before it has no answer.
    const socket = connect({ host: "127.0.0.1", port, localAddress, noDelay: true });
    // A server that refuses what is still being written resets the connection.
    socket.on("error", () => {});
    await once(socket, "connect");
    return new RawClient(socket);
  }

  write(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** The next answers. Reads no more of the connection than it takes, but for what comes with it. */
  async answers(count: number, signal: AbortSignal = AbortSignal.timeout(20_000)): Promise<readonly RawResponse[]> {
    const found: RawResponse[] = [];
    const take = (chunk: Buffer): void => {
      this.#chunks.push(chunk);
      this.#receivedBytes += chunk.length;
      while (found.length < count && this.#receivedBytes >= this.#neededBytes && this.#takeOne(found));
      if (found.length === count) this.socket.pause();
    };
    this.socket.on("data", take);
    take(Buffer.alloc(0));
    if (found.length < count) this.socket.resume();
    await eventually(() => found.length === count || this.socket.destroyed, signal);
    this.socket.off("data", take);
    return found;
  }

  /** The one answer that comes next. @throws when the connection ends before. */
  async answer(): Promise<RawResponse> {
    const [answer] = await this.answers(1);
    if (answer === undefined) throw new Error("the connection was closed without an answer");
    return answer;
  }

  #takeOne(found: RawResponse[]): boolean {
    const received = Buffer.concat(this.#chunks);
    this.#chunks = [received];
    if (this.#chunked !== undefined) return this.#takeChunks(this.#chunked, received, 0, found);
    const end = received.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const head = received.toString("latin1", 0, end + 2);
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1]);
    const headers = head.slice(head.indexOf("\r\n") + 2);
    const bodyAt = end + 4;
    if (/^transfer-encoding: chunked/im.test(head)) {
      return this.#takeChunks({ status, headers, parts: [] }, received, bodyAt, found);
    }
    const length = status < 200 ? 0 : Number(/^content-length: (\d+)/im.exec(head)?.[1] ?? 0);
    this.#neededBytes = bodyAt + length;
    if (received.length < this.#neededBytes) return false;
    found.push({ status, headers, body: received.toString("utf8", bodyAt, this.#neededBytes) });
    this.#keep(received.subarray(this.#neededBytes), 1);
    return true;
  }

  /** Takes all chunks that have come: what was taken is not looked at again. */
  #takeChunks(answer: ChunkedAnswer, received: Buffer, start: number, found: RawResponse[]): boolean {
    for (let at = start; ; ) {
      const line = received.indexOf("\r\n", at);
      const length = line < 0 ? 0 : Number.parseInt(received.toString("latin1", at, line), 16);
      const next = line < 0 ? received.length + 1 : line + 2 + length + 2;
      if (received.length < next) {
        this.#chunked = answer;
        this.#keep(received.subarray(at), next - at);
        return false;
      }
      if (length > 0) answer.parts.push(received.subarray(line + 2, next - 2));
      else {
        const { status, headers, parts } = answer;
        this.#chunked = undefined;
        found.push({ status, headers, body: Buffer.concat(parts).toString("utf8") });
        this.#keep(received.subarray(next), 1);
        return true;
      }
      at = next;
    }
  }

  #keep(rest: Buffer, neededBytes: number): void {
    this.#chunks = [rest];
    this.#receivedBytes = rest.length;
    this.#neededBytes = neededBytes;
  }
}

/** An answer whose body comes in chunks, as far as it has come. */
interface ChunkedAnswer {
  readonly status: number;
  readonly headers: string;
  readonly parts: Buffer[];
}

/** A request of HTTP/1.1. */
export function requestText(method: string, path: string, headers: readonly string[] = [], body = ""): string {
  return `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${headers.map((header) => `${header}\r\n`).join("")}\r\n${body}`;
}

/**
 * Asks until `count` has not changed for 50 answers: others have their turns in between, in which it could.
 * @param localAddress - as of {@link RawClient.open}.
 */
export async function keepsStill(port: number, count: () => number, localAddress?: string): Promise<void> {
  const other = await RawClient.open(port, localAddress);
  let before = -1;
  for (let still = 0; still < 50; still++) {
    if (count() !== before) still = 0;
    before = count();
    other.write(requestText("GET", "/v1/status/leader"));
    await other.answer();
  }
  other.socket.destroy();
}
