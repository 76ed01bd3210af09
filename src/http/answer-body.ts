import { promisify } from "node:util";
import { gzip } from "node:zlib";

const compress = promisify(gzip);

/** The bytes of an answer. They are compressed once, however often they are sent. */
export class AnswerBody {
  readonly plain: Buffer;
  #gzip: Promise<Buffer> | undefined;

  constructor(text: string) {
    this.plain = Buffer.from(text);
  }

  gzip(): Promise<Buffer> {
    this.#gzip ??= compress(this.plain);
    return this.#gzip;
  }
}
