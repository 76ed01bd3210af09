import { crc32c } from "./crc32c.js";

/*
 * LevelDB's files, as far as they must be read to know that they are whole (version 1.20; the formats have not changed since
 * 2012). The engine checks some of their checksums and silently skips blocks that do not match.
 */

const LOG_BLOCK_BYTES = 32_768;
const LOG_HEADER_BYTES = 7;
const FULL = 1;
const FIRST = 2;
const LAST = 4;

/** The records of a log, or of a manifest, which is of the same form. */
export interface LogContents {
  /** Up to the first thing that cannot be read. */
  readonly records: readonly Buffer[];
  /** Where the record begins that cannot be read; undefined: all can. */
  readonly unreadableAt: number | undefined;
  /** A record begins behind it, so this is not the end of a write that was cut short. */
  readonly goesOn: boolean;
  /** The file ends in the midst of it, or in nothing but zeros. */
  readonly cutShort: boolean;
}

interface Fragment {
  readonly type: number;
  readonly payload: Buffer;
  readonly end: number;
}

/** The records of a log, as the engine would read them. */
export function readLog(file: Buffer): LogContents {
  const records: Buffer[] = [];
  let begun: { readonly at: number; readonly parts: Buffer[] } | undefined;
  let unreadableAt: number | undefined;
  let goesOn = false;
  let cutShort = false;
  const fail = (at: number): void => {
    if (unreadableAt === undefined) cutShort = endsWithin(file, at);
    unreadableAt ??= begun?.at ?? at;
    begun = undefined;
  };
  for (let at = 0; at < file.length; ) {
    const blockEnd = Math.min(at - (at % LOG_BLOCK_BYTES) + LOG_BLOCK_BYTES, file.length);
    const fragment = readFragment(file, at, blockEnd);
    if (fragment === undefined) {
      // The rest of a block that is too short for a header is padding.
      if (blockEnd - at >= LOG_HEADER_BYTES || blockEnd % LOG_BLOCK_BYTES !== 0) {
        fail(at);
        goesOn ||= beginsBetween(file, at + 1, blockEnd);
      }
      at = blockEnd;
      continue;
    }
    const begins = fragment.type === FULL || fragment.type === FIRST;
    if (begins === (begun !== undefined)) fail(at);
    if (begins) {
      goesOn ||= unreadableAt !== undefined;
      begun = { at, parts: [] };
    }
    begun?.parts.push(fragment.payload);
    if (begun !== undefined && (fragment.type === FULL || fragment.type === LAST)) {
      if (unreadableAt === undefined) records.push(Buffer.concat(begun.parts));
      begun = undefined;
    }
    at = fragment.end;
  }
  if (begun !== undefined) fail(file.length);
  return { records, unreadableAt, goesOn, cutShort };
}

function readFragment(file: Buffer, at: number, blockEnd: number): Fragment | undefined {
  if (at + LOG_HEADER_BYTES > blockEnd) return undefined;
  const end = at + LOG_HEADER_BYTES + file.readUInt16LE(at + 4);
  const type = file.readUInt8(at + 6);
  if (end > blockEnd || type < FULL || type > LAST) return undefined;
  if (masked(crc32c(file, at + 6, end)) !== file.readUInt32LE(at)) return undefined;
  return { type, payload: file.subarray(at + LOG_HEADER_BYTES, end), end };
}

/** Whether a record begins anywhere there: where the length before it is damaged, nothing says where. */
function beginsBetween(file: Buffer, start: number, blockEnd: number): boolean {
  for (let at = start; at + LOG_HEADER_BYTES < blockEnd; at++) {
    const type = file[at + 6];
    if ((type === FULL || type === FIRST) && readFragment(file, at, blockEnd) !== undefined) return true;
  }
  return false;
}

function endsWithin(file: Buffer, at: number): boolean {
  if (at + LOG_HEADER_BYTES > file.length) return true;
  if (at + LOG_HEADER_BYTES + file.readUInt16LE(at + 4) > file.length) return true;
  return file.subarray(at).every((byte) => byte === 0);
}

/** As LevelDB stores a CRC, so that one of data that holds CRCs is still a good one. */
function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** The writes of one record of a log: a batch. */
export interface BatchHeader {
  /** The number of its first write; each write of a database has the next number. */
  readonly sequence: number;
  readonly count: number;
}

/** @throws {RangeError} It is too short to be one. */
export function readBatchHeader(record: Buffer): BatchHeader {
  return { sequence: Number(record.readBigUInt64LE(0)), count: record.readUInt32LE(8) };
}

/** The files that make up a database. */
export interface Manifest {
  /** The oldest log that is still needed; 0 in a database that has none yet. */
  readonly logNumber: number;
  readonly previousLogNumber: number;
  /** All writes up to this one are in tables, or in logs. */
  readonly lastSequence: number;
  /** Sizes of tables in bytes, by number. */
  readonly tables: ReadonlyMap<number, number>;
}

/** @throws {RangeError} It is malformed. */
export function readManifest(records: readonly Buffer[]): Manifest {
  let logNumber = 0;
  let previousLogNumber = 0;
  let lastSequence = 0;
  const tables = new Map<string, { readonly number: number; readonly bytes: number }>();
  for (const record of records) {
    const cursor = new Cursor(record);
    const added: [place: string, number: number, bytes: number][] = [];
    while (!cursor.done) {
      const tag = cursor.varint();
      // The comparator's name, numbers, where the last compaction of a level ended, tables that go and that come.
      if (tag === 1) cursor.bytes();
      else if (tag === 2) logNumber = cursor.varint();
      else if (tag === 3) cursor.varint();
      else if (tag === 4) lastSequence = cursor.varint();
      else if (tag === 9) previousLogNumber = cursor.varint();
      else if (tag === 5) {
        cursor.varint();
        cursor.bytes();
      } else if (tag === 6) tables.delete(`${cursor.varint()}/${cursor.varint()}`);
      else if (tag === 7) {
        const level = cursor.varint();
        const number = cursor.varint();
        added.push([`${level}/${number}`, number, cursor.varint()]);
        cursor.bytes();
        cursor.bytes();
      } else throw new RangeError(`it has an entry of unknown kind ${tag}`);
    }
    for (const [place, number, bytes] of added) tables.set(place, { number, bytes });
  }
  if (records.length === 0) throw new RangeError("it holds nothing");
  return {
    logNumber,
    previousLogNumber,
    lastSequence,
    tables: new Map([...tables.values()].map(({ number, bytes }) => [number, bytes])),
  };
}

const FOOTER_BYTES = 48;
const TABLE_MAGIC = Buffer.from("57fb808b247547db", "hex");
/** After a block: how it is compressed, and its checksum. */
const TRAILER_BYTES = 5;

interface Block {
  readonly content: Buffer;
  readonly sound: boolean;
}

/**
 * The blocks of rows in a table whose checksum does not match.
 * @throws {RangeError} The index of the rows is damaged, so the missing rows cannot be named.
 */
export function damagedBlocks(file: Buffer): readonly Buffer[] {
  const footerAt = file.length - FOOTER_BYTES;
  if (footerAt < 0 || !file.subarray(-TABLE_MAGIC.length).equals(TABLE_MAGIC)) throw new RangeError("it has no end");
  const footer = new Cursor(file.subarray(footerAt));
  const meta = readBlock(file, footer);
  const index = readBlock(file, footer);
  for (const { value } of blockEntries(mustBeSound(meta))) mustBeSound(readBlock(file, new Cursor(value)));
  const damaged: Buffer[] = [];
  for (const { value } of blockEntries(mustBeSound(index))) {
    const { content, sound } = readBlock(file, new Cursor(value));
    if (!sound) damaged.push(content);
  }
  return damaged;
}

function readBlock(file: Buffer, handle: Cursor): Block {
  const offset = handle.varint();
  const end = offset + handle.varint();
  if (end + TRAILER_BYTES > file.length) throw new RangeError("it names a place behind its end");
  const sound = masked(crc32c(file, offset, end + 1)) === file.readUInt32LE(end + 1);
  if (file.readUInt8(end) !== 0 && sound) throw new RangeError("it is compressed, which ours never are");
  return { content: file.subarray(offset, end), sound };
}

function mustBeSound({ content, sound }: Block): Buffer {
  if (!sound) throw new RangeError("the checksum of its index does not match");
  return content;
}

/** The entries of a block. @throws {RangeError} It is malformed. */
function blockEntries(block: Buffer): readonly { readonly key: Buffer; readonly value: Buffer }[] {
  const restarts = block.length < 4 ? 0 : block.readUInt32LE(block.length - 4);
  const end = block.length - 4 * (restarts + 1);
  if (restarts === 0 || end < 0) throw new RangeError("it has no end");
  const cursor = new Cursor(block.subarray(0, end));
  const entries: { key: Buffer; value: Buffer }[] = [];
  const wholeKeysAt = new Set<number>();
  let key = Buffer.alloc(0);
  while (!cursor.done) {
    const at = cursor.at;
    const shared = cursor.varint();
    const added = cursor.varint();
    const valueBytes = cursor.varint();
    if (shared > key.length) throw new RangeError("a key goes on with one that is shorter");
    if (shared === 0) wholeKeysAt.add(at);
    key = Buffer.concat([key.subarray(0, shared), cursor.take(added)]);
    entries.push({ key, value: cursor.take(valueBytes) });
  }
  // Searches begin at these places; one that lies elsewhere leads past entries.
  for (let index = 0, before = -1; index < restarts; index++) {
    const at = block.readUInt32LE(end + 4 * index);
    if (at <= before || (index === 0 && at !== 0) || (entries.length > 0 && !wholeKeysAt.has(at))) {
      throw new RangeError("it begins again where no key does");
    }
    before = at;
  }
  return entries;
}

/** A row of a table: the newest of its key, or an older one that is not yet dropped. */
export interface TableRow {
  readonly key: Buffer;
  /** undefined: the key was deleted. */
  readonly value: Buffer | undefined;
}

/** The rows of a block that may be damaged. @throws {RangeError} It is malformed, so that the engine must not read it. */
export function blockRows(block: Buffer): readonly TableRow[] {
  let before: { readonly key: Buffer; readonly tag: bigint } | undefined;
  return blockEntries(block).map((entry) => {
    if (entry.key.length < 8) throw new RangeError("a key is too short");
    const key = entry.key.subarray(0, -8);
    const tag = entry.key.readBigUInt64LE(key.length);
    const kind = tag & 0xffn;
    if (kind > 1n || (kind === 0n && entry.value.length > 0)) throw new RangeError("a row is of unknown kind");
    const order = before === undefined ? -1 : before.key.compare(key);
    if (order > 0 || (order === 0 && (before?.tag ?? 0n) <= tag)) throw new RangeError("its keys are out of order");
    before = { key, tag };
    return { key, value: kind === 0n ? undefined : entry.value };
  });
}

/** Reads LevelDB's numbers and texts one after the other. @throws {RangeError} at the end of its bytes. */
class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get at(): number {
    return this.#at;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; scale < 2 ** 63; scale *= 128) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) break;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError("a number is cut short");
  }

  bytes(): Buffer {
    return this.take(this.varint());
  }

  take(count: number): Buffer {
    const end = this.#at + count;
    if (end > this.#bytes.length) throw new RangeError("it is cut short");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}
