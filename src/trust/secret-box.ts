import { createCipheriv, createDecipheriv } from "node:crypto";
import { type Random, systemRandom } from "../environment.js";
import { PeeringError } from "../errors.js";

/**
 * How secrets that must be readable again are kept at rest: CA keys, and the stream secrets of a dialer. What an
 * acceptor only has to verify is kept as a digest and never comes here.
 */
export interface SecretBox {
  /** The form in which `secret` is stored. */
  seal(secret: Uint8Array): Uint8Array;
  /** What was sealed. @throws {PeeringError} `invalid-argument`: another key, or damaged. */
  open(sealed: Uint8Array): Uint8Array;
}

// The first byte of everything a box writes says how the rest is kept, so that a wrong box is told from damage.
const FORM_PLAIN = 0;
const FORM_AES_256_GCM = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;

/** Stores secrets as they are: for storage that is protected by other means. */
export const plainSecretBox: SecretBox = {
  seal: (secret) => Uint8Array.of(FORM_PLAIN, ...secret),
  open(sealed) {
    if (sealed[0] === FORM_AES_256_GCM) {
      throw cannotOpen("it is sealed and no key was given", "Give the host the key this data was sealed with.");
    }
    return openPlain(sealed);
  },
};

/**
 * Encrypts secrets with AES-256-GCM under a key the host keeps elsewhere. It also opens what {@link plainSecretBox}
 * wrote, so that a host with data can be given a key later; what it writes from then on is sealed.
 * @param key - 32 bytes, random. Copied.
 * @throws {TypeError} A key of another length.
 */
export function sealedSecretBox(key: Uint8Array, random: Random = systemRandom): SecretBox {
  if (key.length !== KEY_BYTES)
    throw new TypeError(`a secret box needs a key of ${KEY_BYTES} bytes, not ${key.length}`);
  const secretKey = Uint8Array.from(key);
  return {
    seal(secret) {
      const nonce = random.bytes(NONCE_BYTES);
      const cipher = createCipheriv("aes-256-gcm", secretKey, nonce);
      const text = Buffer.concat([cipher.update(secret), cipher.final()]);
      return new Uint8Array(Buffer.concat([Buffer.of(FORM_AES_256_GCM), nonce, cipher.getAuthTag(), text]));
    },
    open(sealed) {
      if (sealed[0] === FORM_PLAIN) return openPlain(sealed);
      const textAt = 1 + NONCE_BYTES + TAG_BYTES;
      if (sealed[0] !== FORM_AES_256_GCM || sealed.length < textAt) throw cannotOpen("it is damaged");
      try {
        const decipher = createDecipheriv("aes-256-gcm", secretKey, sealed.subarray(1, 1 + NONCE_BYTES), {
          authTagLength: TAG_BYTES,
        });
        decipher.setAuthTag(sealed.subarray(1 + NONCE_BYTES, textAt));
        return new Uint8Array(Buffer.concat([decipher.update(sealed.subarray(textAt)), decipher.final()]));
      } catch {
        // The cause is left out: OpenSSL cannot tell a wrong key from damage either.
        throw cannotOpen(
          "the key is another one, or it is damaged",
          "Give the host the key this data was sealed with.",
        );
      }
    },
  };
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
