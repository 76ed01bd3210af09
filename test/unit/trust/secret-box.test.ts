import assert from "node:assert/strict";
import { createCipheriv } from "node:crypto";
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

test("of several keys the first seals, and all open; what another one sealed is not current", () => {
  const first = new Uint8Array(32).fill(1);
  const second = new Uint8Array(32).fill(2);
  const third = new Uint8Array(32).fill(3);
  const secret = Uint8Array.of(1, 2, 3);
  const before = sealedSecretBox(first);
  const between = sealedSecretBox([second, first]);
  const after = sealedSecretBox([second]);
  const old = before.seal(secret);
  const sealed = between.seal(secret);
  assert.deepEqual(between.open(old), secret);
  assert.deepEqual(after.open(sealed), secret);
  assert.throws(() => after.open(old), {
    ...unreadable,
    message: /sealed with key [0-9a-f]{16}, and the given keys are /,
  });
  assert.throws(() => before.open(sealed), unreadable);
  assert.throws(() => sealedSecretBox([third, first]).open(sealed), unreadable);
  assert.deepEqual(
    [before, between, after].map((box) => box.isCurrent(old)),
    [true, false, false],
  );
  assert.deepEqual(
    [before, between, after].map((box) => box.isCurrent(sealed)),
    [false, true, true],
  );
  assert.deepEqual(
    [before, plainSecretBox].map((box) => box.isCurrent(plainSecretBox.seal(secret))),
    [false, true],
  );
  assert.equal(plainSecretBox.isCurrent(sealed), false);
});

test("a secret sealed before keys had names is opened, and not current", () => {
  // The form, the nonce, the tag, the ciphertext.
  const nonce = new Uint8Array(12);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  const text = Buffer.concat([cipher.update("secret"), cipher.final()]);
  const sealed = Buffer.concat([Buffer.of(1), nonce, cipher.getAuthTag(), text]);
  for (const box of [sealedSecretBox(key), sealedSecretBox([new Uint8Array(32), key])]) {
    assert.equal(Buffer.from(box.open(sealed)).toString(), "secret");
    assert.equal(box.isCurrent(sealed), false);
  }
  assert.throws(() => sealedSecretBox(new Uint8Array(32)).open(sealed), unreadable);
  assert.throws(() => plainSecretBox.open(sealed), unreadable);
});

test("a list without a key is the programmer's error", () => {
  assert.throws(() => sealedSecretBox([]), TypeError);
});

test("a key of another length is the programmer's error", () => {
  assert.throws(() => sealedSecretBox(new Uint8Array(16)), TypeError);
});
