import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { openLevel } from "../../../src/storage/level.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { type SecretBox, sealedSecretBox } from "../../../src/trust/secret-box.js";
import { acceleratedClock, eventually, temporaryDirectory } from "../../support/hosts.js";

const firstKey = new Uint8Array(32).fill(1);
const secondKey = new Uint8Array(32).fill(2);

/** Two clusters, of which the acceptor keeps a key and the dialer a stream secret, too; each life of them may have other keys. */
async function live(directory: string, secretBox: SecretBox | undefined): Promise<void> {
  const network = memoryNetwork();
  const clock = acceleratedClock();
  const open = async (name: string): Promise<PeeringHost> =>
    createHost({
      datacenter: name,
      storage: await openLevel(join(directory, name)),
      transport: network.transport({ listen: `${name}:1` }),
      clock,
      ...(secretBox === undefined ? {} : { secretBox }),
    });
  await using acceptor = await open("acceptor");
  await using dialer = await open("dialer");
  if (dialer.peerings.list().length === 0) {
    const token = await acceptor.peerings.generateToken({ peerName: "dialer" });
    await dialer.peerings.establish({ peerName: "acceptor", token });
  }
  await eventually(() => dialer.peerings.read("acceptor")?.state === "active", "they are connected");
}

/** Every file of both. */
function filesOf(directory: string): readonly string[] {
  return ["acceptor", "dialer"].flatMap((name) =>
    readdirSync(join(directory, name)).map((file) => readFileSync(join(directory, name, file), "latin1")),
  );
}

/** The stored secrets: keys of roots, and the dialer's stream secret. */
async function storedSecrets(directory: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const name of ["acceptor", "dialer"]) {
    await using storage = await openLevel(join(directory, name));
    for (const prefix of [
      ["ca", "state"],
      ["peerings", "secrets"],
    ]) {
      for (const { value } of (await storage.read(prefix)).entries) {
        const text = Buffer.from(value).toString();
        found.push(...[...text.matchAll(/"sealed(?:Key|Active)":"([^"]+)"/g)].map(([, sealed]) => sealed ?? ""));
      }
    }
  }
  return found;
}

it("given a key, and later another one, a host seals its stored secrets with that key, and no file keeps the former form", async () => {
  await using directory = await temporaryDirectory();
  await live(directory.path, undefined);
  const plain = await storedSecrets(directory.path);
  assert.equal(plain.length, 3);
  const bytes = plain.map((each) => Buffer.from(each, "base64"));
  assert.ok(bytes.every((each) => each[0] === 0));
  // As they are stored, and as they are.
  const shown = [...plain, ...bytes.map((each) => each.toString("latin1", 1, 60))];
  const before = filesOf(directory.path);
  for (const text of plain) assert.ok(before.some((file) => file.includes(text)));

  await live(directory.path, sealedSecretBox(firstKey));
  for (const file of filesOf(directory.path)) for (const text of shown) assert.ok(!file.includes(text));
  const sealed = await storedSecrets(directory.path);
  assert.equal(sealed.length, 3);

  await live(directory.path, sealedSecretBox([secondKey, firstKey]));
  for (const file of filesOf(directory.path)) for (const text of [...shown, ...sealed]) assert.ok(!file.includes(text));
  await live(directory.path, sealedSecretBox([secondKey]));
});

it("with a wrong key, or none, it does not start, says which one it needs, and changes nothing", async () => {
  await using directory = await temporaryDirectory();
  await live(directory.path, sealedSecretBox(firstKey));
  const sealed = await storedSecrets(directory.path);
  for (const [secretBox, text] of [
    [sealedSecretBox(secondKey), /sealed with key [0-9a-f]{16}, and the given keys are [0-9a-f]{16}$/],
    [undefined, /sealed with key [0-9a-f]{16} and no key was given$/],
  ] as const) {
    await assert.rejects(live(directory.path, secretBox), (error) => {
      assert.ok(error instanceof PeeringError);
      assert.equal(error.code, "invalid-argument");
      assert.match(error.message, text);
      assert.equal(error.remedy, "Give the host the key this data was sealed with.");
      return true;
    });
    assert.deepEqual(await storedSecrets(directory.path), sealed);
  }
  await live(directory.path, sealedSecretBox(firstKey));
});

it("a root that was rotated out leaves its key in no file", async () => {
  await using directory = await temporaryDirectory();
  const path = join(directory.path, "data");
  const keyOf = (): string => /"sealedKey":"([^"]+)"/.exec(readdirSync(path).map(contentOf).join())?.[1] ?? "";
  const contentOf = (name: string): string => readFileSync(join(path, name), "latin1");
  let former: string;
  {
    await using storage = await openLevel(path);
    await using authority = await builtInAuthority({ storage });
    former = keyOf();
    assert.ok(former.length > 100);
    await authority.rotate();
  }
  assert.ok(!readdirSync(path).some((name) => contentOf(name).includes(former)));
  assert.notEqual(keyOf(), "");
});
