import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { createGzip, type Gzip, gzip, gzipSync } from "node:zlib";
import { turnEnd } from "../base/turns.js";
import { type Json, JsonWriter } from "./json.js";

const compress = promisify(gzip);

/**
 * Bytes of an answer, about, that are made in one turn of the event loop, which takes a millisecond or two, and that are given
 * to the system at once.
 */
export const PIECE_BYTES: number = 64 * 1_024;
/** About the memory that compressing an answer bit by bit takes, with the two settings below. */
export const COMPRESSOR_BYTES: number = 128 * 1_024;
const WINDOW_BITS = 13;
const MEMORY_LEVEL = 7;
/** Answers grow by a sixth beside those of zlib's default, and take a third of its time. */
const LEVEL = 3;

/** An answer of which all is made: its pieces, which are compressed once, however often they are sent. */
export class WholeBody {
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
  #gzip: Promise<readonly Buffer[]> | undefined;

  constructor(pieces: readonly Buffer[]) {
    this.pieces = pieces;
    this.bytes = bytesOf(pieces);
  }

  static text(text: string): WholeBody {
    return new WholeBody([Buffer.from(text)]);
  }

  /** Made for several answers: others have their turn between the pieces. */
  static async json(json: Json, pretty: boolean): Promise<WholeBody> {
    const writer = new JsonWriter(json, pretty);
    const pieces = [shortPiece(writer)];
    while (!writer.done) {
      await setImmediate();
      pieces.push(shortPiece(writer));
    }
    return new WholeBody(pieces);
  }

  gzip(): Promise<readonly Buffer[]> {
    this.#gzip ??= this.#compress();
    return this.#gzip;
  }

  async #compress(): Promise<readonly Buffer[]> {
    const [first, second] = this.pieces;
    if (first === undefined || second === undefined) {
      const whole = first ?? Buffer.alloc(0);
      // Another thread would take longer to be asked than this takes.
      return [
        whole.length <= PIECE_BYTES ? gzipSync(whole, { level: LEVEL }) : await compress(whole, { level: LEVEL }),
      ];
    }
    const compressor = new Compressor();
    const compressed: Buffer[] = [];
    for (const piece of this.pieces) compressed.push(await compressor.add(piece));
    compressed.push(await compressor.end());
    return compressed;
  }
}

/** Where the whole answer to one question is kept. */
export interface BodyPlace {
  /** The answer that was made while everything that it depends on was the same. */
  readonly body: WholeBody | undefined;
  /** Begins to gather the answer; undefined: that of another call is being gathered. */
  gather(): Gathering | undefined;
}

/** The pieces of an answer while they are made. */
export interface Gathering {
  add(piece: Buffer): void;
  /** All pieces were added. */
  done(): void;
  /** No more will be made. */
  giveUp(): void;
}

/** An answer that is made as fast as it is read, piece by piece. */
export class GrowingBody {
  /** The value that it is written from, which may be that of others, too. */
  readonly kept: object;
  /** Its bytes in memory until the last piece is made. */
  readonly keptBytes: number;
  readonly #writer: JsonWriter;
  readonly #place: BodyPlace | undefined;
  #gathering: Gathering | undefined;
  #first: Buffer | undefined;

  constructor(kept: object, first: Buffer, writer: JsonWriter, place: BodyPlace | undefined) {
    this.kept = kept;
    this.#first = first;
    this.#writer = writer;
    this.#place = place;
    this.keptBytes = writer.openBytes;
  }

  /** The next piece, or undefined after the last one. */
  next(): Buffer | undefined {
    const first = this.#first;
    this.#first = undefined;
    if (first !== undefined) {
      this.#gathering = this.#place?.gather();
      return this.#gathered(first);
    }
    return this.#writer.done ? undefined : this.#gathered(shortPiece(this.#writer));
  }

  /** No further piece is asked for. */
  end(): void {
    this.#gathering?.giveUp();
  }

  #gathered(piece: Buffer): Buffer {
    this.#gathering?.add(piece);
    if (this.#writer.done) this.#gathering?.done();
    return piece;
  }
}

export type AnswerBody = WholeBody | GrowingBody;

/** The body of one answer; others have their turn before its first piece is made, if that takes long. @param place - where it is to be kept. */
export async function jsonBody(json: Json, pretty: boolean, place?: BodyPlace): Promise<AnswerBody> {
  const writer = new JsonWriter(json, pretty);
  while (!writer.writeOn(PIECE_BYTES, turnEnd())) await setImmediate();
  const first = writer.taken();
  const kept = typeof json === "object" && json !== null ? json : {};
  if (!writer.done) return new GrowingBody(kept, first, writer, place);
  const gathering = place?.gather();
  gathering?.add(first);
  gathering?.done();
  return new WholeBody([first]);
}

/** Compresses bit by bit, in a thread of its own. */
export class Compressor {
  readonly #gzip: Gzip = createGzip({ level: LEVEL, windowBits: WINDOW_BITS, memLevel: MEMORY_LEVEL });
  #out: Buffer[] = [];

  constructor() {
    this.#gzip.on("data", (chunk: Buffer) => this.#out.push(chunk));
  }

  /** The bytes that have been compressed by then, maybe none. */
  add(piece: Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#gzip.write(piece, (error) => (error ? reject(error) : resolve(this.#take())));
    });
  }

  end(): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#gzip.once("error", reject).once("end", () => resolve(this.#take()));
      this.#gzip.end();
    });
  }

  /** Gives back its memory. To be called when it is not ended. */
  destroy(): void {
    this.#gzip.destroy();
  }

  #take(): Buffer {
    const out = Buffer.concat(this.#out);
    this.#out = [];
    return out;
  }
}

export function bytesOf(pieces: readonly Buffer[]): number {
  let bytes = 0;
  for (const piece of pieces) bytes += piece.length;
  return bytes;
}

/** One that is shorter where making it takes long. */
function shortPiece(writer: JsonWriter): Buffer {
  writer.writeOn(PIECE_BYTES, turnEnd());
  return writer.taken();
}
