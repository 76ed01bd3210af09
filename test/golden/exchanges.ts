import { decodeMessage } from "../../src/wire/codec.js";
import type { ReplicationMessage } from "../../src/wire/messages.js";
import { readGolden } from "./read.js";

/** Versions of Consul whose streams are recorded; those of 1.13 are in `legacy/`. */
export const RECORDED_VERSIONS = ["1.15.4", "1.18.2", "1.21.4", "1.22.0-dev"] as const;
export type RecordedVersion = (typeof RECORDED_VERSIONS)[number];

type StoredEvent = {
  /** The line of the recording. */
  readonly i: number;
  readonly from: "consul" | "recorder";
} & (
  | { readonly end: "status"; readonly code: number; readonly message: string }
  | { readonly end: "half-close" | "reset" }
  /** Where the bytes are; a message of the recorder's that was too long to be kept has none. */
  | { readonly frame?: string; readonly end?: undefined }
);

/** What one side did. `recorder` is the small peer that Consul was recorded with. */
export type ExchangeEvent = StoredEvent & {
  /** What the recorder tried with this and what follows; `""` where it says nothing of it. */
  readonly about: string;
};

/** One recorded stream. */
export interface Exchange {
  /** `<Consul version>/<scenario>`. */
  readonly origin: string;
  /** The role of the recorder. */
  readonly recorder: "acceptor" | "dialer";
  readonly events: readonly ExchangeEvent[];
}

/** Everything recorded, with the bytes found. */
export class Recordings {
  readonly #frames = new Map<string, Uint8Array>();

  constructor() {
    for (const version of RECORDED_VERSIONS) {
      for (const line of lines(`frames/${version}.jsonl`)) {
        const { origin, raw }: { origin: string; raw: string } = JSON.parse(line);
        this.#frames.set(origin, Buffer.from(raw, "base64"));
      }
    }
  }

  /** The streams of a version, of one scenario or of all. */
  exchanges(version: RecordedVersion, scenario?: string): readonly Exchange[] {
    const all = lines(`exchanges/${version}.jsonl`).map((line): Exchange => withNotes(JSON.parse(line)));
    return scenario === undefined ? all : all.filter(({ origin }) => origin === `${version}/${scenario}`);
  }

  /** The bytes of a message; undefined for an end, and for what was not kept. */
  bytes(event: ExchangeEvent): Uint8Array | undefined {
    if (event.end !== undefined || event.frame === undefined) return undefined;
    const bytes = this.#frames.get(event.frame);
    if (bytes === undefined) throw new TypeError(`no frame ${event.frame}`);
    return bytes;
  }

  message(event: ExchangeEvent): ReplicationMessage | undefined {
    const bytes = this.bytes(event);
    return bytes === undefined ? undefined : decodeMessage(bytes);
  }
}

type Stored = Omit<Exchange, "events"> & {
  readonly events: readonly (StoredEvent | { readonly about: string; readonly i?: undefined })[];
};

/** In the file a note stands before the events it belongs to. */
function withNotes({ events, ...exchange }: Stored): Exchange {
  let about = "";
  return {
    ...exchange,
    events: events.flatMap((event) => {
      if (event.i !== undefined) return [{ ...event, about }];
      about = event.about;
      return [];
    }),
  };
}

function lines(path: string): readonly string[] {
  return readGolden(path)
    .split("\n")
    .filter((line) => line !== "");
}
