import { errorText } from "../base/errors.js";
import type { Json, JsonObject } from "../client/index.js";
import { opaque } from "../mesh/snapshot/opaque.js";
import type { BootstrapKey } from "../model/bootstrap-keys.js";
import { CommandError } from "./command.js";

/** The settings of a proxy that its bootstrap is made of. Each read fails with the name of the setting that cannot be taken. */
export class BootstrapSettings {
  readonly #config: JsonObject;

  /** @param config - the opaque settings of the registration, with those of config entries. */
  constructor(config: JsonObject) {
    this.#config = config;
  }

  /** `""` where there is none. Numbers and truth values count as texts, as Consul's command takes them. */
  text(key: BootstrapKey): string {
    return textFrom(key, opaque(this.#config, key));
  }

  /** One value that is no list counts as a list of it. */
  texts(key: BootstrapKey): readonly string[] {
    const value = opaque(this.#config, key);
    if (value === undefined) return [];
    return (Array.isArray(value) ? value : [value]).map((each) => textFrom(key, each));
  }

  /** The value that a text of JSON stands for; undefined where there is none. */
  json(key: BootstrapKey): Json | undefined {
    const text = this.text(key);
    return text === "" ? undefined : jsonFrom(key, text);
  }

  /** The values of a text of JSON with commas between them. */
  jsonList(key: BootstrapKey): readonly Json[] {
    const value = jsonFrom(key, `[${this.text(key)}]`);
    if (!Array.isArray(value)) throw new CommandError(`${key}: no values with commas between them`);
    return value;
  }
}

function textFrom(key: BootstrapKey, value: unknown): string {
  switch (typeof value) {
    case "undefined":
      return "";
    case "string":
      return value;
    case "number":
      return String(value);
    case "boolean":
      return value ? "1" : "0";
    default:
      if (value === null) return "";
      throw new CommandError(`The setting ${key} is no text`);
  }
}

/**
 * Nothing of the text is quoted where it is no JSON: there may be a token in it, or a key of an operator's.
 * @throws {CommandError} also where a number would become another one.
 */
export function jsonFrom(what: string, text: string): Json {
  let parsed: Json;
  try {
    parsed = JSON.parse(text, (_, value: Json) => {
      if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value)) {
        throw new CommandError(`The setting ${what} has a number that is too large: write it as a text`);
      }
      return value;
    });
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const [place = ""] = / at position \d+/.exec(errorText(error)) ?? [];
    throw new CommandError(`The setting ${what} is no JSON${place}`);
  }
  return parsed;
}
