import { join } from "node:path";
import { errorText } from "../base/errors.js";
import { inTurns } from "../base/turns.js";
import { isJsonObject, type Json, type JsonObject } from "../client/json-reader.js";
import { HclError, hclSteps } from "../syntax/hcl.js";
import { CommandError, type CommandLineIo } from "./command.js";
import { type FlagConfig, NO_FLAGS } from "./consul-flags.js";
import { configKeys, type Shape } from "./consul-keys.js";

type Format = "json" | "hcl";

/**
 * Reads configuration files as Consul 1.21 does, those of a directory by their names; later ones win, and add to lists. Keys come
 * in the one spelling they have, without those that are null.
 * @param format - of files with any name; `""`: by their extension.
 * @param flags - they come after all files.
 * @returns undefined: no file and no flag says anything.
 * @throws {CommandError} with Consul's texts: what cannot be read, or has an unknown key or a value of a wrong type.
 */
export async function readConsulFiles(
  paths: readonly string[],
  format: string,
  io: CommandLineIo,
  flags: FlagConfig = NO_FLAGS,
): Promise<JsonObject | undefined> {
  if (format !== "" && !isFormat(format)) {
    throw new CommandError("config: -config-format must be either 'hcl' or 'json'");
  }
  let merged: JsonObject = {};
  let found = false;
  for (const path of paths) {
    for (const file of await filesAt(path, format, io)) {
      merged = merge(merged, await decode(file));
      found = true;
    }
  }
  merged = merge(merged, flags.keys);
  for (const [index, text] of flags.pieces.entries()) {
    merged = merge(merged, await decode({ path: `flags-${index}.hcl`, text, format: "hcl" }));
  }
  return found || Object.keys(merged).length > 0 ? merged : undefined;
}

function isFormat(text: string): text is Format {
  return text === "json" || text === "hcl";
}

interface ConfigFile {
  readonly path: string;
  readonly text: string;
  readonly format: Format;
}

function formatOf(path: string, given: string): Format | undefined {
  if (isFormat(given)) return given;
  const extension = /\.(json|hcl)$/.exec(path)?.[1] ?? "";
  return isFormat(extension) ? extension : undefined;
}

async function filesAt(path: string, given: string, io: CommandLineIo): Promise<readonly ConfigFile[]> {
  const names = await directoryAt(path, io);
  if (names === undefined) {
    const format = formatOf(path, given);
    if (format === undefined) {
      throw new CommandError(`file ${path} has unknown extension; must be .hcl or .json, or config format must be set`);
    }
    return [{ path, format, text: await io.readFile(path) }];
  }
  const files: ConfigFile[] = [];
  for (const name of [...names].sort()) {
    const file = join(path, name);
    const format = formatOf(file, given);
    // As Consul does: other files, and folders below, are not configuration.
    if (format === undefined || (await directoryAt(file, io)) !== undefined) continue;
    files.push({ path: file, format, text: await io.readFile(file) });
  }
  return files;
}

/** Undefined: it is a file. @throws {CommandError} */
async function directoryAt(path: string, io: CommandLineIo): Promise<readonly string[] | undefined> {
  try {
    return await io.readDirectory(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOTDIR") return undefined;
    const reason = code === "ENOENT" ? `open ${path}: no such file or directory` : errorText(error);
    throw new CommandError(`config: Open failed on ${path}. ${reason}`, { cause: error });
  }
}

/** One file with its keys in their one spelling, without nulls. @throws {CommandError} with Consul's text. */
async function decode({ path, text, format }: ConfigFile): Promise<JsonObject> {
  // As one that is made first and written later.
  if (text === "") return {};
  const fail = (problem: string, cause?: unknown): CommandError =>
    new CommandError(`failed to parse ${path}: ${problem}`, { cause });
  let raw: JsonObject;
  try {
    if (format === "json" && !text.trimStart().startsWith("{")) throw new HclError("the file holds no JSON object");
    raw = await inTurns(hclSteps(text, { secret: true }));
  } catch (error) {
    if (!(error instanceof HclError)) throw error;
    throw fail(error.message, error);
  }
  const decoder = new Decoder(format === "hcl");
  const decoded = decoder.read(raw, configKeys, "");
  if (decoder.mismatches.length > 0) throw fail(errorsText(decoder.mismatches, "decoding"));
  if (decoder.unknown.length > 0) {
    throw fail(
      errorsText(
        decoder.unknown.map((key) => `invalid config key ${key}`),
        "occurred",
      ),
    );
  }
  return isJsonObject(decoded) ? decoded : {};
}

/** As Consul counts them, on one line. */
function errorsText(errors: readonly string[], what: string): string {
  return `${errors.length} error${errors.length === 1 ? "" : "s"} ${what}: ${errors.join("; ")}`;
}

/** Reads values by their shapes, and collects the faults. */
class Decoder {
  readonly mismatches: string[] = [];
  readonly unknown: string[] = [];
  /** Whether one block stands for a list of one. */
  readonly #blocks: boolean;

  constructor(blocks: boolean) {
    this.#blocks = blocks;
  }

  read(given: Json, shape: Shape, path: string): Json | undefined {
    if (given === null) return undefined;
    const list = typeof shape === "object" && shape.kind === "list";
    // Consul takes a list of one for its element: so HCL gives blocks.
    const value = !list && shape !== "any" && Array.isArray(given) && given.length === 1 ? given[0] : given;
    if (shape === "any") return value;
    if (typeof shape === "object") {
      switch (shape.kind) {
        case "list":
          return this.#list(value, shape.of, path);
        case "map":
          return this.#map(value, shape.of, path);
        case "keys":
          return this.#keys(value, shape.keys(), path);
      }
    }
    const type = { text: "string", flag: "boolean", integer: "number", number: "number" }[shape];
    if (typeof value !== type) return this.#mismatch(path, GO_TYPES[shape], value);
    return shape === "integer" ? Math.trunc(Number(value)) : value;
  }

  #list(value: Json, of: Shape, path: string): Json | undefined {
    const elements: readonly Json[] | undefined = Array.isArray(value) ? value : undefined;
    if (elements === undefined && !(this.#blocks && isJsonObject(value))) {
      this.mismatches.push(`'${path}': source data must be an array or slice, got ${goKind(value)}`);
      return undefined;
    }
    return (elements ?? [value]).flatMap((element, index) => this.read(element, of, `${path}[${index}]`) ?? []);
  }

  #map(value: Json, of: Shape, path: string): Json | undefined {
    if (!isJsonObject(value)) return this.#noMap(value, path);
    return Object.fromEntries(
      Object.entries(value).flatMap(([key, element]) => {
        const read = this.read(element, of, `${path}[${key}]`);
        return read === undefined ? [] : [[key, read]];
      }),
    );
  }

  #keys(value: Json, keys: ReadonlyMap<string, Shape>, path: string): Json | undefined {
    if (!isJsonObject(value)) return this.#noMap(value, path);
    const read: [string, Json][] = [];
    const unknown: string[] = [];
    for (const [given, member] of Object.entries(value)) {
      // Consul's decoder does not look at capitals.
      const key = given.toLowerCase();
      const shape = keys.get(key);
      const place = path === "" ? key : `${path}.${key}`;
      if (shape === undefined) unknown.push(path === "" ? given : `${path}.${given}`);
      else {
        const decoded = this.read(member, shape, place);
        if (decoded !== undefined) read.push([key, decoded]);
      }
    }
    this.unknown.push(...unknown.sort());
    return Object.fromEntries(read);
  }

  #mismatch(path: string, expected: string, value: Json): undefined {
    // Consul tells the value, too, which may be a secret.
    this.mismatches.push(`'${path}' expected type '${expected}', got unconvertible type '${goKind(value)}'`);
    return undefined;
  }

  #noMap(value: Json, path: string): undefined {
    this.mismatches.push(`'${path}' expected a map, got '${goKind(value)}'`);
    return undefined;
  }
}

const GO_TYPES = { text: "string", flag: "bool", integer: "int", number: "float64" } as const;

/** How Go names the type of a value that was read from JSON. */
function goKind(value: Json): string {
  if (Array.isArray(value)) return "[]interface {}";
  if (isJsonObject(value)) return "map[string]interface {}";
  return typeof value === "number" ? "float64" : typeof value === "boolean" ? "bool" : "string";
}

function merge(earlier: JsonObject, later: JsonObject): JsonObject {
  const merged = new Map(Object.entries(earlier));
  for (const [key, value] of Object.entries(later)) {
    const before = merged.get(key);
    if (isJsonObject(before) && isJsonObject(value)) merged.set(key, merge(before, value));
    else if (Array.isArray(before) && Array.isArray(value)) merged.set(key, [...before, ...value]);
    else merged.set(key, value);
  }
  return Object.fromEntries(merged);
}
