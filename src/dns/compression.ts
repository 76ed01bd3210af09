/** The last place that a pointer of 14 bits can name. */
const LAST_TARGET = 0x3fff;
const POINTER_BYTES = 2;

/** How much of a name has to be written out; the rest is at `pointer`, or else it is the root. */
export interface PlacedName {
  /** In bytes, the pointer included. */
  readonly length: number;
  /** Where in the name the part begins that need not be written. */
  readonly end: number;
  readonly pointer: number | undefined;
}

/**
 * Where the names of a message begin, and the names above them, so that later ones can point there (RFC 1035, 4.1.4). It
 * compares byte for byte, as Consul does: a name asked in capitals comes back in capitals.
 */
export class NameTable {
  readonly #offsets = new Map<string, number>();

  /** Takes note of a name that is written at `offset`, behind everything that was placed before. */
  place(name: string, offset: number): PlacedName {
    let at = offset;
    let start = 0;
    while (start < name.length) {
      const rest = start === 0 ? name : name.slice(start);
      const pointer = this.#offsets.get(rest);
      if (pointer !== undefined) return { length: at - offset + POINTER_BYTES, end: start, pointer };
      if (at <= LAST_TARGET) this.#offsets.set(rest, at);
      const end = labelEnd(name, start);
      at += 1 + Buffer.byteLength(name.slice(start, end));
      start = end + 1;
    }
    return { length: at - offset + 1, end: name.length, pointer: undefined };
  }

  /** How many bytes a name would take. */
  lengthOf(name: string): number {
    let bytes = 0;
    for (let start = 0; start < name.length; ) {
      if (this.#offsets.has(start === 0 ? name : name.slice(start))) return bytes + POINTER_BYTES;
      const end = labelEnd(name, start);
      bytes += 1 + Buffer.byteLength(name.slice(start, end));
      start = end + 1;
    }
    return bytes + 1;
  }
}

/** Where the label that begins at `start` ends. */
export function labelEnd(name: string, start: number): number {
  const dot = name.indexOf(".", start);
  return dot < 0 ? name.length : dot;
}

/** How many bytes a name takes that is written out. */
export function nameLength(name: string): number {
  return name === "" ? 1 : Buffer.byteLength(name) + 2;
}
