import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { plainSecretBox, sealedSecretBox } from "../../../src/trust/secret-box.js";

const key = new Uint8Array(32).fill(7);
const unreadable = { name: "PeeringError", code: "invalid-argument" };

test("either box returns what it was given", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (secret) => {
      for (const box of [plainSecretBox, sealedSecretBox(key)]) {
        assert.deepEqual(box.open(box.seal(secret)), secret);
      }
    }),
  );
});

test("a sealed secret is not in its sealed form, and no two sealings are equal", () => {
  const box = sealedSecretBox(key);
  const secret = Buffer.from("a very recognisable secret");
  const sealed = Buffer.from(box.seal(secret));
  assert.equal(sealed.indexOf(secret), -1);
  assert.notDeepEqual(sealed, Buffer.from(box.seal(secret)));
});

test("another key, any changed byte and any truncation are refused without showing the secret", () => {
  const box = sealedSecretBox(key);
  const sealed = box.seal(Buffer.from("secret"));
  assert.throws(() => sealedSecretBox(new Uint8Array(32).fill(8)).open(sealed), unreadable);
  for (let at = 1; at < sealed.length; at++) {
    const damaged = Uint8Array.from(sealed);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    assert.throws(() => box.open(damaged), unreadable, `byte ${at}`);
    assert.throws(() => box.open(sealed.slice(0, at)), unreadable, `cut at ${at}`);
  }
  assert.throws(() => box.open(new Uint8Array()), unreadable);
  assert.throws(() => plainSecretBox.open(new Uint8Array()), unreadable);
});

test("a host given a key later still reads its plain secrets, one that lost its key is told so", () => {
  const secret = Buffer.from("secret");
  assert.deepEqual(Buffer.from(sealedSecretBox(key).open(plainSecretBox.seal(secret))), secret);
  assert.throws(() => plainSecretBox.open(sealedSecretBox(key).seal(secret)), {
    ...unreadable,
    remedy: "Give the host the key this data was sealed with.",
  });
});

test("a key of another length is the programmer's error", () => {
  assert.throws(() => sealedSecretBox(new Uint8Array(16)), TypeError);
});
