import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { errorText, PeeringError } from "../base/errors.js";
import { RESTORE } from "./damaged-entries.js";
import {
  blockRows,
  damagedBlocks,
  type LogContents,
  type Manifest,
  readBatchHeader,
  readLog,
  readManifest,
  type TableRow,
} from "./level-format.js";

/** A log, from there to its end. */
export interface LogPart {
  readonly file: string;
  readonly at: number;
}

/** Notes about files that can be opened. */
export interface FilesVerified {
  /**
   * The logs end in unreadable bytes: a write that was cut short, or several that were not synced when the power went. Parts of
   * logs are `lost` in which the engine would read something behind it.
   */
  readonly cut: (LogPart & { readonly bytes: number; readonly lost: readonly LogPart[] }) | undefined;
  /** Of the newest commit in the logs; undefined: there is none. */
  readonly revision: bigint | undefined;
  /** Keys of rows in tables whose values are damaged, and nothing else. They may have been written again since. */
  readonly damagedKeys: readonly Buffer[];
}

/** @param reason - why, for an operator: it names files and never their content. */
export function damagedDirectory(directory: string, reason: string, remedy: string = RESTORE): PeeringError {
  return new PeeringError("storage-damaged", `the data directory ${directory} is damaged: ${reason}`, { remedy });
}

/** How the files are to be read. */
export interface Reading {
  /** Whether a row of a damaged block is damaged in its value alone; undefined where it is more, or unclear. */
  readonly isDamaged: (row: TableRow) => boolean | undefined;
  /** The revision of the commit that a batch in the log is; undefined: the batch is not a commit. */
  readonly revisionOf: (batch: Buffer) => bigint | undefined;
  /** All up to this revision was synced; undefined: that is not known. */
  readonly acknowledged: bigint | undefined;
}

/**
 * Reads every file that the engine is about to read, and changes none. For the engine skips bytes that it cannot read: the rest
 * of a log's block, a manifest's end, a missing `CURRENT` with all the tables it led to.
 * @throws {PeeringError} `storage-damaged`: opening would lose something, or show something that was never written.
 */
export async function verifyFiles(directory: string, reading: Reading): Promise<FilesVerified> {
  const { isDamaged } = reading;
  const names = await readdir(directory);
  const current = await readCurrent(directory, names);
  if (current === undefined) return { cut: undefined, revision: undefined, damagedKeys: [] };
  const manifest = await readFileOf(directory, current, manifestOf);
  const numbers = (extension: RegExp): Map<number, string> =>
    new Map(names.filter((name) => extension.test(name)).map((name) => [Number.parseInt(name, 10), name]));
  const logs = await verifyLogs(directory, manifest, numbers(/^\d+\.log$/), reading);
  const damagedKeys: Buffer[] = [];
  const tables = numbers(/^\d+\.(?:ldb|sst)$/);
  for (const [number, bytes] of manifest.tables) {
    const name = tables.get(number);
    if (name === undefined) throw damagedDirectory(directory, `${numbered(number)}.ldb is missing`);
    damagedKeys.push(...(await readFileOf(directory, name, (table) => damagedRows(table, bytes, isDamaged))));
  }
  return { ...logs, damagedKeys };
}

/** The name of the manifest; undefined for a directory in which there is no database yet. */
async function readCurrent(directory: string, names: readonly string[]): Promise<string | undefined> {
  const manifests = names.filter((name) => /^MANIFEST-\d+$/.test(name));
  if (!names.includes("CURRENT")) {
    // A process that dies while it makes a database leaves the first manifest.
    const begun = manifests.every((name) => name === "MANIFEST-000001");
    if (begun && !names.some((name) => /^\d+\.(?:log|ldb|sst)$/.test(name))) return undefined;
    throw withoutCurrent(directory, "CURRENT is missing", manifests);
  }
  const [, name] = /^(MANIFEST-\d+)\n$/.exec(await readFile(join(directory, "CURRENT"), "latin1")) ?? [];
  if (name === undefined) throw withoutCurrent(directory, "CURRENT names no manifest", manifests);
  if (!names.includes(name)) throw withoutCurrent(directory, `${name}, which CURRENT names, is missing`, manifests);
  return name;
}

function withoutCurrent(directory: string, reason: string, manifests: readonly string[]): PeeringError {
  const [only, ...others] = manifests;
  if (only === undefined || others.length > 0) return damagedDirectory(directory, reason);
  const remedy = `Restore the directory from a backup. If nothing else was lost, make CURRENT a file of one line: ${only}`;
  return damagedDirectory(directory, reason, remedy);
}

/** @throws {PeeringError} `storage-damaged`, naming the file, when `read` throws. */
async function readFileOf<T>(directory: string, name: string, read: (file: Buffer) => T): Promise<T> {
  const file = await readFile(join(directory, name));
  try {
    return read(file);
  } catch (error) {
    throw damagedDirectory(directory, `${name} cannot be used: ${errorText(error)}`);
  }
}

function manifestOf(file: Buffer): Manifest {
  const { records, unreadableAt, goesOn, cutShort } = readLog(file);
  // An entry that was cut short was not in force: the files it would have replaced are still there, which is checked.
  if (unreadableAt !== undefined && (goesOn || !cutShort)) {
    throw new RangeError(`the checksum of the entry at byte ${unreadableAt} does not match`);
  }
  return readManifest(records);
}

async function verifyLogs(
  directory: string,
  manifest: Manifest,
  logs: ReadonlyMap<number, string>,
  { revisionOf, acknowledged }: Reading,
): Promise<Pick<FilesVerified, "cut" | "revision">> {
  const { logNumber, previousLogNumber } = manifest;
  if (logNumber > 0 && !logs.has(logNumber)) {
    throw damagedDirectory(directory, `${numbered(logNumber)}.log is missing`);
  }
  const needed = [...logs.keys()].filter((number) => number >= logNumber || number === previousLogNumber);
  let sequence: number | undefined;
  let revision: bigint | undefined;
  let cut: (LogPart & { bytes: number; lost: LogPart[] }) | undefined;
  /** Whether later commits may be missing: none was answered as durable, and a loss of power takes them in any order. */
  const mayBeLost = (): boolean => acknowledged !== undefined && revision !== undefined && revision >= acknowledged;
  for (const number of needed.sort((left, right) => left - right)) {
    const file = logs.get(number) ?? "";
    await readFileOf(directory, file, (bytes) => {
      const log = readLog(bytes);
      const { unreadableAt, records, goesOn } = log;
      const [first] = records;
      const isBehind = cut !== undefined || (first !== undefined && isGap(first, sequence, manifest));
      if (isBehind && first !== undefined && mayBeLost()) {
        cut ??= { file, at: 0, bytes: bytes.length, lost: [] };
        cut.lost.push({ file, at: 0 });
        return;
      }
      sequence = lastSequenceOf(log, sequence, manifest);
      for (const batch of records) revision = revisionOf(batch) ?? revision;
      if (unreadableAt === undefined) return;
      if (goesOn && !mayBeLost()) {
        throw new RangeError(`the write at byte ${unreadableAt} cannot be read, but later ones can`);
      }
      const lost = goesOn ? [{ file, at: unreadableAt }] : [];
      cut = { file, at: unreadableAt, bytes: bytes.length - unreadableAt, lost };
    });
  }
  return { cut, revision };
}

/** Whether writes are missing before the first one of a log. @param before - the number of the last write before it. */
function isGap(record: Buffer, before: number | undefined, manifest: Manifest): boolean {
  const { sequence } = readBatchHeader(record);
  // The first may be in tables already.
  return before === undefined ? sequence > manifest.lastSequence + 1 : sequence !== before + 1;
}

/**
 * The number of the last write of a log; `before` where it has none.
 * @param before - that of the logs before; undefined: this is the first write of all logs.
 * @throws {RangeError} Writes before one of the log are missing.
 */
function lastSequenceOf(log: LogContents, before: number | undefined, manifest: Manifest): number | undefined {
  let last = before;
  for (const record of log.records) {
    const { sequence, count } = readBatchHeader(record);
    if (isGap(record, last, manifest)) throw new RangeError(`writes before number ${sequence} are missing`);
    last = sequence + count - 1;
  }
  return last;
}

/** @throws {RangeError} More than the values of rows is damaged. */
function damagedRows(table: Buffer, bytes: number, isDamaged: Reading["isDamaged"]): readonly Buffer[] {
  if (table.length !== bytes) throw new RangeError(`it has ${table.length} bytes, and had ${bytes}`);
  const keys: Buffer[] = [];
  for (const block of damagedBlocks(table)) {
    const rows = blockRows(block).map((row) => ({ row, damaged: isDamaged(row) }));
    const found = rows.filter(({ damaged }) => damaged === true);
    if (found.length === 0 || rows.some(({ damaged }) => damaged === undefined)) {
      throw new RangeError("the checksum of a block does not match, and which rows are damaged is not certain");
    }
    keys.push(...found.map(({ row }) => row.key));
  }
  return keys;
}

/** As the engine names its files. */
function numbered(number: number): string {
  return String(number).padStart(6, "0");
}
