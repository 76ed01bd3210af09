import { PeeringError } from "../base/errors.js";
import { durationText, parseDuration } from "../syntax/go-duration.js";
import type { KeyKind } from "./leaf.js";

// The configuration of Consul's built-in provider, as Consul 1.21 reads it: keys without regard to case, values of the wrong
// type where they can be taken for one of the right type, and its texts for refused values.

/** A value of a configuration: Consul's are of no other kind. */
export type CaConfigurationValue = string | number | boolean | null;

/** The settings of an authority. Times in milliseconds. */
export interface CaSettings {
  readonly leafTtlMs: number;
  readonly rootTtlMs: number;
  /** Of roots that the authority makes itself. */
  readonly key: KeyKind;
  /** False: this authority's roots sign no root that comes after them. */
  readonly crossSigning: boolean;
  /** How many leafs of services are signed in a second at most; 0: no limit. */
  readonly signaturesPerSecond: number;
}

/** A configuration, read and checked. */
export interface ReadCaConfiguration {
  readonly settings: CaSettings;
  /** The parts that may be shown: everything as given, without the private key and its root. */
  readonly shown: Readonly<Record<string, CaConfigurationValue>>;
  /** PEM; undefined: the authority makes its own. */
  readonly privateKeyPem: string | undefined;
  readonly rootCertPem: string | undefined;
}

const HOUR_MS = 3_600_000;
const MIN_LEAF_TTL_MS = HOUR_MS;
const MAX_LEAF_TTL_MS = 8_760 * HOUR_MS;
const MIN_INTERMEDIATE_TTL_MS = 3 * HOUR_MS;
const INTERMEDIATE_TTL_MS = 8_760 * HOUR_MS;
const ROOT_TTL_MS = 87_600 * HOUR_MS;
const RSA_BITS = [2_048, 4_096];
/** Consul's, without 224: no library here signs with that curve. */
const EC_BITS = [256, 384, 521];
const SIGNATURES_PER_SECOND = 50;
const NANOSECONDS = 1e6;

/** Keys that are known, as Consul spells them. `RotationPeriod` stands in Terraform's examples and has no effect in Consul either. */
const KEYS = [
  "CSRMaxConcurrent",
  "CSRMaxPerSecond",
  "DisableCrossSigning",
  "IntermediateCertTTL",
  "LeafCertTTL",
  "PrivateKey",
  "PrivateKeyBits",
  "PrivateKeyType",
  "RootCert",
  "RootCertTTL",
  "RotationPeriod",
  "SkipValidate",
] as const;
type Key = (typeof KEYS)[number];

/** The configuration of an authority that was never configured, as Consul shows its own. */
export function defaultConfiguration(leafTtlMs: number): Readonly<Record<string, CaConfigurationValue>> {
  return {
    IntermediateCertTTL: shortDuration(Math.max(INTERMEDIATE_TTL_MS, 3 * leafTtlMs)),
    LeafCertTTL: shortDuration(leafTtlMs),
    RootCertTTL: shortDuration(ROOT_TTL_MS),
  };
}

function shortDuration(milliseconds: number): string {
  return durationText(milliseconds).replace(/h0m0s$/, "h");
}

/**
 * Reads a configuration.
 * @param leafTtlMs - lifetime of leafs where the configuration does not say one.
 * @throws {PeeringError} `invalid-argument`, with Consul's texts where it refuses the same; none quotes a key.
 */
export function readCaConfiguration(config: Readonly<Record<string, unknown>>, leafTtlMs: number): ReadCaConfiguration {
  const given = byKey(config);
  const values = new Values(given);
  const leaf = values.duration("LeafCertTTL") ?? leafTtlMs;
  const intermediate = values.duration("IntermediateCertTTL") ?? Math.max(INTERMEDIATE_TTL_MS, 3 * leafTtlMs);
  const root = values.duration("RootCertTTL") ?? ROOT_TTL_MS;
  const type = values.text("PrivateKeyType") ?? "ec";
  const bits = values.integer("PrivateKeyBits") ?? 256;
  const perSecond = values.number("CSRMaxPerSecond") ?? SIGNATURES_PER_SECOND;
  const concurrent = values.integer("CSRMaxConcurrent") ?? 0;
  const crossSigning = !(values.boolean("DisableCrossSigning") ?? false);
  const skipsValidation = values.boolean("SkipValidate") ?? false;
  values.duration("RotationPeriod");
  const privateKeyPem = values.text("PrivateKey") || undefined;
  const rootCertPem = values.text("RootCert") || undefined;
  values.complete();
  if (skipsValidation) throw unconfigurable("SkipValidate is not supported: every value is checked");
  checkTimes(leaf, intermediate, root);
  if (perSecond < 0 || concurrent < 0)
    throw unconfigurable("CSRMaxPerSecond and CSRMaxConcurrent must not be negative");
  if (perSecond === 0 && concurrent > 0) {
    throw unconfigurable("CSRMaxConcurrent is not supported without CSRMaxPerSecond, which comes first");
  }
  const settings = {
    leafTtlMs: leaf,
    rootTtlMs: root,
    key: keyKind(type, bits),
    crossSigning,
    signaturesPerSecond: perSecond,
  };
  return { settings, shown: shownOf(config), privateKeyPem, rootCertPem };
}

/** Why a configuration is refused, in Consul's form. */
export function unconfigurable(why: string): PeeringError {
  return new PeeringError("invalid-argument", `error configuring provider: ${why}`);
}

/** The order and the texts are Consul's. */
function checkTimes(leaf: number, intermediate: number, root: number): void {
  if (root < intermediate) {
    throw unconfigurable(
      "root cert TTL is set and is not greater than intermediate cert ttl. " +
        `root cert ttl: ${goDuration(root)}, intermediate cert ttl: ${goDuration(intermediate)}`,
    );
  }
  if (leaf < MIN_LEAF_TTL_MS) {
    throw unconfigurable(`leaf cert TTL must be greater or equal than ${goDuration(MIN_LEAF_TTL_MS)}`);
  }
  if (leaf > MAX_LEAF_TTL_MS) throw unconfigurable(`leaf cert TTL must be less than ${goDuration(MAX_LEAF_TTL_MS)}`);
  if (intermediate < MIN_INTERMEDIATE_TTL_MS) {
    throw unconfigurable("Intermediate Cert TTL must be greater or equal than 3h");
  }
  if (intermediate < 3 * leaf) {
    throw unconfigurable(
      `Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=${goDuration(3 * leaf)}).`,
    );
  }
}

function keyKind(type: string, bits: number): KeyKind {
  switch (type) {
    case "ec":
      if (bits === 224) throw unconfigurable("EC keys of 224 bits are not supported: use 256, 384 or 521");
      if (!EC_BITS.includes(bits)) throw unconfigurable("EC key length must be one of (224, 256, 384, 521) bits");
      return { type, bits };
    case "rsa":
      if (!RSA_BITS.includes(bits)) throw unconfigurable("RSA key length must be 2048 or 4096 bits");
      return { type, bits };
    default:
      throw unconfigurable("private key type must be either 'ec' or 'rsa'");
  }
}

/** @throws {PeeringError} for an unknown key: its value might be a secret under a misspelled key. */
function byKey(config: Readonly<Record<string, unknown>>): ReadonlyMap<Key, unknown> {
  const found = new Map<Key, unknown>();
  for (const [spelled, value] of Object.entries(config)) {
    const key = knownKey(spelled);
    if (key === undefined) throw unconfigurable(`unknown key ${shown(spelled)} in Config`);
    if (found.has(key)) throw unconfigurable(`${key} stands twice in Config`);
    found.set(key, value);
  }
  return found;
}

function knownKey(spelled: string): Key | undefined {
  return KEYS.find((key) => key.toLowerCase() === spelled.toLowerCase());
}

function shownOf(config: Readonly<Record<string, unknown>>): Readonly<Record<string, CaConfigurationValue>> {
  const shown: Record<string, CaConfigurationValue> = {};
  for (const [spelled, value] of Object.entries(config)) {
    const key = knownKey(spelled);
    if (key !== "PrivateKey" && key !== "RootCert" && isConfigurationValue(value)) shown[spelled] = value;
  }
  return shown;
}

export function isConfigurationValue(value: unknown): value is CaConfigurationValue {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}

/** Takes values as Go's lenient `mapstructure` does, and gathers those that it cannot take. */
class Values {
  readonly #given: ReadonlyMap<Key, unknown>;
  readonly #faults: string[] = [];

  constructor(given: ReadonlyMap<Key, unknown>) {
    this.#given = given;
  }

  /** @throws {PeeringError} when a value could not be taken. */
  complete(): void {
    if (this.#faults.length === 0) return;
    const lines = this.#faults.sort().map((fault) => `* ${fault}`);
    throw unconfigurable(`error decoding config: ${lines.length} error(s) decoding:\n\n${lines.join("\n")}`);
  }

  /** In milliseconds; a number counts nanoseconds. */
  duration(key: Key): number | undefined {
    const value = this.#given.get(key) ?? undefined;
    if (typeof value === "string") {
      const read = parseDuration(value);
      if (read === undefined) this.#faults.push(`error decoding '${key}': time: invalid duration ${shown(value)}`);
      return read;
    }
    const nanoseconds = numberOf(value);
    if (value !== undefined && nanoseconds === undefined) this.#refuse(key, "time.Duration", value);
    return nanoseconds === undefined ? undefined : Math.trunc(nanoseconds) / NANOSECONDS;
  }

  integer(key: Key): number | undefined {
    const value = this.#given.get(key) ?? undefined;
    if (typeof value !== "string") {
      const read = numberOf(value);
      if (value !== undefined && read === undefined) this.#refuse(key, "int", value);
      return read === undefined ? undefined : Math.trunc(read);
    }
    if (value === "") return 0;
    if (/^[+-]?\d{1,15}$/.test(value)) return Number(value);
    this.#faults.push(`cannot parse '${key}' as int: strconv.ParseInt: parsing ${shown(value)}: invalid syntax`);
    return undefined;
  }

  number(key: Key): number | undefined {
    const value = this.#given.get(key) ?? undefined;
    if (typeof value !== "string") {
      const read = numberOf(value);
      if (value !== undefined && read === undefined) this.#refuse(key, "float32", value);
      return read;
    }
    if (value === "") return 0;
    if (/^[+-]?\d{1,15}(?:\.\d{1,15})?$/.test(value)) return Number(value);
    this.#faults.push(`cannot parse '${key}' as float: strconv.ParseFloat: parsing ${shown(value)}: invalid syntax`);
    return undefined;
  }

  boolean(key: Key): boolean | undefined {
    const value = this.#given.get(key) ?? undefined;
    if (typeof value === "boolean" || typeof value === "number") return Boolean(value);
    if (value === undefined || value === "") return value === undefined ? undefined : false;
    if (typeof value === "string" && /^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
    if (typeof value === "string" && /^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
    if (typeof value !== "string") this.#refuse(key, "bool", value);
    else this.#faults.push(`cannot parse '${key}' as bool: strconv.ParseBool: parsing ${shown(value)}: invalid syntax`);
    return undefined;
  }

  text(key: Key): string | undefined {
    const value = this.#given.get(key) ?? undefined;
    if (value === undefined || typeof value === "string") return value;
    if (typeof value === "boolean") return value ? "1" : "0";
    if (typeof value === "number") return String(value);
    this.#refuse(key, "string", value);
    return undefined;
  }

  #refuse(key: Key, type: string, value: unknown): void {
    this.#faults.push(unconvertible(key, type, value));
  }
}

/** Without the value, which Consul quotes: it might be a key. */
function unconvertible(key: Key, type: string, value: unknown): string {
  const found = Array.isArray(value) ? "[]interface {}" : "map[string]interface {}";
  return `'${key}' expected type '${type}', got unconvertible type '${found}'`;
}

function numberOf(value: unknown): number | undefined {
  if (typeof value === "boolean") return value ? 1 : 0;
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** Enough for a key of ours that is spelled wrong, and nothing of a private key. */
const SHOWN_CHARACTERS = 24;

function shown(text: string): string {
  return JSON.stringify(text.slice(0, SHOWN_CHARACTERS));
}

function goDuration(milliseconds: number): string {
  return durationText(milliseconds) || "0s";
}
