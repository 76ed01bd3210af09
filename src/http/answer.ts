import type { BodyPlace, WholeBody } from "./answer-body.js";
import type { Json } from "./json.js";
import type { Basis } from "./kept-answers.js";

/** A body that goes on for as long as its client listens. */
export interface BodyStream {
  readonly chunks: AsyncIterable<string>;
  /** Called once the client has gone, also where none was there. */
  readonly end: () => void;
}

/** The headers of a read, such as its index. */
export interface ReadHeaders {
  /** Told as at least 1. */
  readonly index: bigint;
  /** `X-Consul-Effective-Consistency`: catalog and health only. */
  readonly consistency?: "leader" | "stale" | "consistent";
  /** Something was hidden from the caller: shown to callers with a token only. */
  readonly filtered?: boolean;
}

/** The answer of an operation. Failures are thrown. */
export interface Answer {
  /** Default 200. */
  readonly status?: number;
  /** The body as JSON. */
  readonly json?: Json;
  /** The body as plain text, instead of JSON. */
  readonly text?: string;
  /** Content type of the text. Default: plain. */
  readonly textType?: string;
  /** The body as JSON that is written already, instead of `json`: the same for many answers. */
  readonly body?: WholeBody;
  /** Where the body is to be kept, once `json` is written. */
  readonly place?: BodyPlace;
  /** The body as plain text that goes on, instead of JSON. */
  readonly stream?: BodyStream;
  readonly read?: ReadHeaders;
  /** Default: it may be made of anything in the sources of its operation. */
  readonly basis?: Basis;
  /** For lists without an index, as {@link ReadHeaders.filtered}. */
  readonly filtered?: boolean;
  /** Of this answer alone. */
  readonly headers?: Readonly<Record<string, string>>;
}
