import { createCipheriv, createDecipheriv, createHash } from "node:crypto";
import { type Random, systemRandom } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";

/**
 * How secrets that must be readable again are kept at rest: CA keys, and the stream secrets of a dialer. A secret that an
 * acceptor only has to verify is kept as a digest and never comes here.
 */
export interface SecretBox {
  /** The form in which `secret` is stored. */
  seal(secret: Uint8Array): Uint8Array;
  /** The opened secret. @throws {PeeringError} `invalid-argument`: it is damaged, or sealed with an unknown key. */
  open(sealed: Uint8Array): Uint8Array;
  /** Whether it is sealed with the newest key. A host seals the others again when it starts. */
  isCurrent(sealed: Uint8Array): boolean;
}

// The first byte of a sealed secret names its form, so that a wrong box is distinguished from damage.
const FORM_PLAIN = 0;
/** Nonce, tag, ciphertext. Written before keys had names. */
const FORM_UNNAMED_KEY = 1;
/** The name of the key, nonce, tag, ciphertext. Several bits from the others: a flipped one does not make it plain. */
const FORM_NAMED_KEY = 7;
const NAME_BYTES = 8;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const REMEDY = "Give the host the key this data was sealed with.";

/** Stores secrets as they are: for storage that is protected by other means. */
export const plainSecretBox: SecretBox = {
  seal: (secret) => Uint8Array.of(FORM_PLAIN, ...secret),
  open(sealed) {
    if (sealed[0] === FORM_UNNAMED_KEY) throw cannotOpen("it is sealed and no key was given", REMEDY);
    if (sealed[0] === FORM_NAMED_KEY) {
      throw cannotOpen(`it is sealed with key ${nameIn(sealed)} and no key was given`, REMEDY);
    }
    return openPlain(sealed);
  },
  isCurrent: (sealed) => sealed[0] === FORM_PLAIN,
};

/**
 * Encrypts secrets with AES-256-GCM under a key the host keeps elsewhere. It also opens secrets that {@link plainSecretBox} wrote, and
 * those sealed with other keys of the list: a host that starts with it seals them all with the first key.
 * @param keys - one key, or several, of which the first seals and all open. 32 random bytes each. Copied.
 * @throws {TypeError} A key of another length, or none.
 */
export function sealedSecretBox(keys: Uint8Array | readonly Uint8Array[], random: Random = systemRandom): SecretBox {
  const named = (keys instanceof Uint8Array ? [keys] : keys).map(namedKey);
  const [first] = named;
  if (first === undefined) throw new TypeError("a secret box needs a key");
  return {
    seal(secret) {
      const nonce = random.bytes(NONCE_BYTES);
      const head = Buffer.concat([Buffer.of(FORM_NAMED_KEY), first.name]);
      const cipher = createCipheriv("aes-256-gcm", first.key, nonce).setAAD(head);
      const text = Buffer.concat([cipher.update(secret), cipher.final()]);
      return new Uint8Array(Buffer.concat([head, nonce, cipher.getAuthTag(), text]));
    },
    open(sealed) {
      if (sealed[0] === FORM_PLAIN) return openPlain(sealed);
      if (sealed[0] === FORM_UNNAMED_KEY) {
        for (const { key } of named) {
          const secret = decrypted(key, sealed, 1);
          if (secret !== undefined) return secret;
        }
        // OpenSSL cannot tell a wrong key from damage either.
        throw cannotOpen("it is sealed with none of the keys given, or it is damaged", REMEDY);
      }
      if (sealed[0] !== FORM_NAMED_KEY || sealed.length < 1 + NAME_BYTES) throw cannotOpen("it is damaged");
      const name = nameIn(sealed);
      const known = named.find((each) => each.name.toString("hex") === name);
      if (known === undefined) {
        const given = named.map((each) => each.name.toString("hex")).join(", ");
        throw cannotOpen(`it is sealed with key ${name}, and the given keys are ${given}`, REMEDY);
      }
      const secret = decrypted(known.key, sealed, 1 + NAME_BYTES);
      if (secret === undefined) throw cannotOpen("it is damaged");
      return secret;
    },
    isCurrent: (sealed) => sealed[0] === FORM_NAMED_KEY && nameIn(sealed) === first.name.toString("hex"),
  };
}

interface NamedKey {
  readonly key: Uint8Array;
  /** Identifies a key without revealing it: keys are random, so none is found by trying. */
  readonly name: Buffer;
}

function namedKey(key: Uint8Array): NamedKey {
  if (key.length !== KEY_BYTES) {
    throw new TypeError(`a secret box needs keys of ${KEY_BYTES} bytes, not ${key.length}`);
  }
  const digest = createHash("sha256").update("peerage secret box").update(key).digest();
  return { key: Uint8Array.from(key), name: digest.subarray(0, NAME_BYTES) };
}

function nameIn(sealed: Uint8Array): string {
  return Buffer.from(sealed.subarray(1, 1 + NAME_BYTES)).toString("hex");
}

/** @param nonceAt - the bytes before it are authenticated, except in the oldest form. */
function decrypted(key: Uint8Array, sealed: Uint8Array, nonceAt: number): Uint8Array | undefined {
  const tagAt = nonceAt + NONCE_BYTES;
  const textAt = tagAt + TAG_BYTES;
  if (sealed.length < textAt) return undefined;
  try {
    const nonce = sealed.subarray(nonceAt, tagAt);
    const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
    if (sealed[0] === FORM_NAMED_KEY) decipher.setAAD(sealed.subarray(0, nonceAt));
    decipher.setAuthTag(sealed.subarray(tagAt, textAt));
    return new Uint8Array(Buffer.concat([decipher.update(sealed.subarray(textAt)), decipher.final()]));
  } catch {
    return undefined;
  }
}

function openPlain(sealed: Uint8Array): Uint8Array {
  if (sealed[0] !== FORM_PLAIN) throw cannotOpen("it is damaged");
  return sealed.slice(1);
}

function cannotOpen(why: string, remedy?: string): PeeringError {
  return new PeeringError("invalid-argument", `a stored secret cannot be opened: ${why}`, {
    ...(remedy === undefined ? {} : { remedy }),
  });
}
