import { stat } from "node:fs/promises";
import { errorText } from "../base/errors.js";
import { CommandError, type CommandLineIo } from "./command.js";

/** Keys that seal secrets at rest, and warnings about where they were found. */
export interface EncryptionKeys {
  /** The first seals, all open. */
  readonly keys: readonly Uint8Array[];
  /** Undefined: there is nothing to be warned of. */
  readonly warning: string | undefined;
}

/** 32 bytes in base64, as `consul keygen` and `openssl rand -base64 32` print them. */
const KEY = /^[A-Za-z0-9+/]{43}=$/;
const WRITABLE_BY_OTHERS = 0o022;
const READABLE_BY_OTHERS = 0o044;

/** @throws {CommandError} that names the place, and shows no key. */
export async function readEncryptionKeys(path: string, io: CommandLineIo): Promise<EncryptionKeys> {
  const fail = (problem: string, cause?: unknown): CommandError =>
    new CommandError(`Error reading the encryption keys ${path}: ${problem}`, { cause });
  let mode: number;
  let text: string;
  try {
    // Where there are no such permissions, as on Windows, these bits say nothing.
    mode = process.getuid === undefined ? 0 : (await stat(path)).mode;
    text = await io.readFile(path);
  } catch (error) {
    throw fail(errorText(error), error);
  }
  if ((mode & WRITABLE_BY_OTHERS) !== 0) {
    throw fail(`other users can write it (mode 0${(mode & 0o777).toString(8)}); chmod 0600 keeps them out`);
  }
  const lines = text.split("\n").map((line, index) => ({ line: line.trim(), place: `line ${index + 1}` }));
  const given = lines.filter(({ line }) => line !== "" && !line.startsWith("#"));
  if (given.length === 0) throw fail("it holds no key");
  return {
    keys: given.map(({ line, place }) => keyOf(line, () => fail(`${place} is no key of 32 bytes in base64`))),
    // Secrets that are mounted into containers are readable by all in there, so that is no reason to refuse.
    warning: (mode & READABLE_BY_OTHERS) === 0 ? undefined : `other users can read the encryption keys ${path}`,
  };
}

/** @param text - keys, separated by commas. @throws {CommandError} that shows no key. */
export function parseEncryptionKeys(text: string, name: string): EncryptionKeys {
  const parts = text.split(",").map((part) => part.trim());
  const fail = (index: number): CommandError =>
    new CommandError(`Invalid ${name}: part ${index + 1} is no key of 32 bytes in base64`);
  return { keys: parts.map((part, index) => keyOf(part, () => fail(index))), warning: undefined };
}

function keyOf(text: string, fail: () => CommandError): Uint8Array {
  if (!KEY.test(text)) throw fail();
  return new Uint8Array(Buffer.from(text, "base64"));
}
