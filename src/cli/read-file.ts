import { close, constants, fstat, open, read } from "node:fs";
import { Socket } from "node:net";
import { promisify } from "node:util";
import { errorCode, errorText } from "../base/errors.js";

/** Bounds on the reading of a file. */
export interface FileLimits {
  /** A larger file is refused. */
  readonly bytes: number;
  /** How long the other end of a pipe may take to write everything and close it, in milliseconds. */
  readonly pipeMs: number;
}

export const defaultFileLimits: FileLimits = { bytes: 16 * 1024 * 1024, pipeMs: 10_000 };

const CHUNK_BYTES = 64 * 1024;

/**
 * The text of a file. Others may have no end, or never begin: devices such as `/dev/zero` are read up to the limit, and pipes,
 * which shells make of `<(command)`, are waited for no longer than `pipeMs`.
 * @throws {Error} that names the file and the limit; of the system: it cannot be opened or read.
 */
export async function readTextFile(path: string, limits: FileLimits = defaultFileLimits): Promise<string> {
  // Node would wait for a pipe in one of the few threads that read and write all files.
  const descriptor = await promisify(open)(path, constants.O_RDONLY | constants.O_NONBLOCK);
  let isOwned = true;
  try {
    const stats = await promisify(fstat)(descriptor);
    if (stats.isFile() && stats.size > limits.bytes) throw tooLarge(path, limits);
    if (!stats.isFIFO()) return await readAll(descriptor, path, limits);
    isOwned = false;
    return await readPipe(descriptor, path, limits);
  } finally {
    if (isOwned) await promisify(close)(descriptor);
  }
}

async function readAll(descriptor: number, path: string, limits: FileLimits): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    const { bytesRead } = await promisify(read)(descriptor, chunk, 0, CHUNK_BYTES, null);
    if (bytesRead === 0) return Buffer.concat(chunks).toString();
    // Its size may say nothing, and it may be written meanwhile.
    bytes += bytesRead;
    if (bytes > limits.bytes) throw tooLarge(path, limits);
    chunks.push(chunk.subarray(0, bytesRead));
  }
}

/** Closes the descriptor. */
async function readPipe(fd: number, path: string, limits: FileLimits): Promise<string> {
  const pipe = new Socket({ fd, readable: true, writable: false });
  const late = setTimeout(
    () => pipe.destroy(new Error(`${path} is a pipe that was not written and closed within ${limits.pipeMs} ms`)),
    limits.pipeMs,
  );
  try {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of pipe) {
      if (!Buffer.isBuffer(chunk)) continue;
      bytes += chunk.length;
      if (bytes > limits.bytes) throw tooLarge(path, limits);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString();
  } finally {
    clearTimeout(late);
    pipe.destroy();
  }
}

function tooLarge(path: string, { bytes }: FileLimits): Error {
  return new Error(`${path} is larger than the ${bytes} bytes that are read of a file`);
}

/** Why a file could not be read; of one that is not there in the words of Consul's command. */
export function readProblem(path: string, error: unknown): string {
  return errorCode(error) === "ENOENT" ? `open ${path}: no such file or directory` : errorText(error);
}
