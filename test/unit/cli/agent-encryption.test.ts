import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chmodSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type CommandLineResult, type CommandLineWorld, runPeerage } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
const posix = process.getuid !== undefined;

/** An agent that is told to stop at once: what counts is whether it starts, and what it leaves. */
async function agent(args: readonly string[], world: CommandLineWorld = {}): Promise<CommandLineResult> {
  return runPeerage(["agent", ...ports, ...args], { signal: AbortSignal.abort(), ...world });
}

const newKey = (): string => randomBytes(32).toString("base64");

/** The CA key as the files of the directory hold it: `plain`, or the name of the key it is sealed with. */
function storedKeys(data: string): ReadonlySet<string> {
  const text = readdirSync(data)
    .map((name) => readFileSync(join(data, name), "latin1"))
    .join("\n");
  assert.ok(!text.includes("PRIVATE KEY"), "it is stored in base64");
  const keys = [...text.matchAll(/"sealedKey":"([^"]+)"/g)].map(([, each]) => Buffer.from(each ?? "", "base64"));
  assert.ok(keys.length > 0);
  return new Set(keys.map((key) => (key.includes("PRIVATE KEY") ? "plain" : key.toString("hex", 1, 9))));
}

describe("peerage agent -encrypt-key-file", () => {
  it("seals the stored secrets, takes another key, and keeps nothing of the former form in its files", async () => {
    await using directory = await temporaryDirectory();
    const data = join(directory.path, "data");
    const file = join(directory.path, "keys");
    const start = async (...lines: readonly string[]): Promise<ReadonlySet<string>> => {
      writeFileSync(file, lines.join("\n"), { mode: 0o600 });
      const options = lines.length === 0 ? [] : ["-encrypt-key-file", file];
      const { exit, stderr } = await agent(["-data-dir", data, ...options]);
      assert.equal(exit, 0, stderr);
      for (const line of lines) assert.ok(line === "" || !stderr.includes(line));
      return storedKeys(data);
    };
    const [first, second] = [newKey(), newKey()];
    assert.deepEqual([...(await start())], ["plain"]);
    const [sealed, ...others] = await start("# made in May", "", `${first}\r`);
    assert.deepEqual(others, []);
    assert.notEqual(sealed, "plain");
    const [sealedAnew, ...more] = await start(second, first);
    assert.deepEqual(more, []);
    assert.notEqual(sealedAnew, sealed);
    assert.deepEqual([...(await start(second))], [sealedAnew]);
  });

  it("seals the key of a root that -rotate-root makes, too", async () => {
    await using directory = await temporaryDirectory();
    const data = join(directory.path, "data");
    const world = { environment: { PEERAGE_ENCRYPT_KEY: newKey() } };
    for (const flags of [[], ["-rotate-root"], []]) {
      const { exit, stderr } = await agent(["-data-dir", data, ...flags], world);
      assert.equal(exit, 0, stderr);
      assert.ok(!storedKeys(data).has("plain"));
    }
  });

  it("with a wrong key, or without one, does not start, says which one it needs, and changes nothing", async () => {
    await using directory = await temporaryDirectory();
    const data = join(directory.path, "data");
    const [right, wrong] = [newKey(), newKey()];
    const withKey = (key: string) => agent(["-data-dir", data], { environment: { PEERAGE_ENCRYPT_KEY: key } });
    assert.equal((await withKey(right)).exit, 0);
    const [name] = storedKeys(data);
    for (const [result, text] of [
      [await withKey(wrong), `it is sealed with key ${name}, and the given keys are `],
      [await agent(["-data-dir", data]), `it is sealed with key ${name} and no key was given\n`],
    ] as const) {
      assert.equal(result.exit, 1);
      assert.ok(
        result.stderr.startsWith("Error starting the agent: a stored secret cannot be opened: "),
        result.stderr,
      );
      assert.ok(result.stderr.includes(text), result.stderr);
      assert.ok(result.stderr.endsWith("Give the host the key this data was sealed with.\n"), result.stderr);
      for (const key of [right, wrong]) assert.ok(!result.stderr.includes(key));
      assert.deepEqual([...storedKeys(data)], [name]);
    }
    assert.equal((await withKey(`${wrong}, ${right}`)).exit, 0);
  });

  it("refuses a file that is not a list of keys, naming the place and showing nothing of it", async () => {
    await using directory = await temporaryDirectory();
    const file = join(directory.path, "keys");
    const key = newKey();
    const refused = async (expected: RegExp, environment: Readonly<Record<string, string>> = {}): Promise<void> => {
      const { exit, stderr } = await agent(["-dev", "-encrypt-key-file", file], { environment });
      assert.equal(exit, 1);
      assert.match(stderr, expected);
      assert.ok(!stderr.includes(key.slice(0, 20)), "keys are never shown");
    };
    const where = `Error reading the encryption keys ${file}:`;
    await refused(new RegExp(`^${where} ENOENT`));
    for (const [text, problem] of [
      ["", "it holds no key"],
      ["# nothing\n\n", "it holds no key"],
      [`${key}\n${key.slice(0, 40)}`, "line 2 is no key of 32 bytes in base64"],
      [randomBytes(31).toString("base64"), "line 1 is no key of 32 bytes in base64"],
      [`"${key}"`, "line 1 is no key of 32 bytes in base64"],
    ] as const) {
      writeFileSync(file, text, { mode: 0o600 });
      await refused(new RegExp(`^${where} ${problem}\n$`));
    }
    writeFileSync(file, key);
    await refused(/^Cannot specify both PEERAGE_ENCRYPT_KEY and a file of keys\n$/, { PEERAGE_ENCRYPT_KEY: key });
    const { exit, stderr } = await agent(["-dev"], { environment: { PEERAGE_ENCRYPT_KEY: `${key},${key}x` } });
    assert.deepEqual([exit, stderr], [1, "Invalid PEERAGE_ENCRYPT_KEY: part 2 is no key of 32 bytes in base64\n"]);
  });

  it("refuses a file that others can write, and warns of one they can read", { skip: !posix }, async () => {
    await using directory = await temporaryDirectory();
    const file = join(directory.path, "keys");
    writeFileSync(file, newKey());
    for (const mode of [0o620, 0o602, 0o666]) {
      chmodSync(file, mode);
      const { exit, stderr } = await agent(["-dev", "-encrypt-key-file", file]);
      assert.equal(exit, 1);
      assert.match(stderr, new RegExp(`other users can write it \\(mode 0${mode.toString(8)}\\); chmod 0600`));
    }
    for (const mode of [0o440, 0o444, 0o644, 0o600, 0o400]) {
      chmodSync(file, mode);
      const { exit, stderr } = await agent(["-dev", "-encrypt-key-file", file]);
      assert.equal(exit, 0, stderr);
      const warned = stderr.includes(`other users can read the encryption keys ${file}`);
      assert.equal(warned, (mode & 0o044) !== 0, mode.toString(8));
    }
  });

  it("can be given as a variable, and as a key of the configuration file", async () => {
    await using directory = await temporaryDirectory();
    const file = join(directory.path, "keys");
    const config = join(directory.path, "agent.json");
    writeFileSync(file, newKey(), { mode: 0o600 });
    const data = join(directory.path, "data");
    const environment = { PEERAGE_ENCRYPT_KEY_FILE: file };
    assert.equal((await agent(["-data-dir", data], { environment })).exit, 0);
    const [name] = storedKeys(data);
    assert.notEqual(name, "plain");
    writeFileSync(config, JSON.stringify({ data_dir: data, encrypt_key_file: file }));
    assert.equal((await agent(["-config", config])).exit, 0);
    assert.deepEqual([...storedKeys(data)], [name]);
  });
});
