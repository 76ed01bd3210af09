import { ClassicLevel, type Iterator } from "classic-level";
import { errorCode } from "../base/errors.js";

/** LevelDB, with keys and values as bytes. */
export type Database = ClassicLevel<Buffer, Uint8Array>;
export type DatabaseIterator = Iterator<Database, Buffer, Uint8Array>;

export interface EngineOptions {
  readonly writeBufferBytes: number;
  readonly cacheBytes: number;
}

/** Not open yet. */
export function databaseAt(path: string, { writeBufferBytes, cacheBytes }: EngineOptions): Database {
  return new ClassicLevel<Buffer, Uint8Array>(path, {
    keyEncoding: "buffer",
    valueEncoding: "view",
    // Compressing costs more time than it saves here: values are rarely read back.
    compression: false,
    writeBufferSize: writeBufferBytes,
    cacheSize: cacheBytes,
  });
}

/** Whether another process has it open. It makes the engine lock the directory, and then refuse to open it. */
export async function isInUse(path: string): Promise<boolean> {
  try {
    await new ClassicLevel(path).open({ createIfMissing: false, errorIfExists: true });
  } catch (error) {
    return errorCode(causeOf(error)) === "LEVEL_LOCKED";
  }
  return false;
}

/** The engine wraps its errors. */
export function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? error.cause : error;
}
