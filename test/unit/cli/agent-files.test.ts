// An agent whose files become what cannot be read: it goes on with what it had, says why, and takes the next ones.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { readPolicies } from "../../../src/cli/agent-options.js";
import type { CommandLineIo } from "../../../src/cli/command.js";
import { readConsulFiles } from "../../../src/cli/consul-files.js";
import { ConsulClient } from "../../../src/client/index.js";
import { runPeerage, startAgent } from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";
import { turnsDuring } from "../../support/turns.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
const SECRET = "5e0b6a51-secret-of-an-operator";

function policies(secret: string): string {
  return `token "a" {\n  secret = "${secret}"\n  rules {\n    operator = "read"\n    peering = "read"\n  }\n}`;
}

describe("an agent", { skip: process.platform === "win32" }, () => {
  it("keeps its policies while their file cannot be read, whatever it is, and takes the next ones", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "policies.hcl");
    await writeFile(path, policies("first"));
    let hangUp = (): void => assert.fail("it does not listen for hang-ups");
    const log: string[] = [];
    const stopping = new AbortController();
    using _stop = { [Symbol.dispose]: () => stopping.abort() };
    const flags = ["-dev", ...ports, "-acl-policies", path, "-max-file-bytes=1000", "-pipe-wait-ms=50"];
    const agent = await startAgent(flags, stopping.signal, {
      onHangUp: (action) => {
        hangUp = action;
      },
      onLog: (text) => log.push(text),
    });
    const reloaded = async (): Promise<string> => {
      const before = log.length;
      hangUp();
      const isOver = (): boolean => log.slice(before).some((line) => line.includes('"message":"reloaded"'));
      await eventually(isOver, "it has read its files again");
      return log.slice(before).join("");
    };
    const isKnown = async (token: string): Promise<boolean> => {
      using client = new ConsulClient({ address: agent.http, token });
      return await client.peerings.list().then(
        () => true,
        () => false,
      );
    };
    const others: Readonly<Record<string, readonly [make: () => unknown, why: RegExp]>> = {
      "a pipe": [() => execFileSync("mkfifo", [path]), /is a pipe that was not written and closed within 50 ms/],
      "a device": [() => symlink("/dev/zero", path), /is larger than the 1000 bytes that are read of a file/],
      "a circle": [() => symlink(path, path), /ELOOP/],
      "a directory": [() => symlink(directory.path, path), /EISDIR/],
      "a large file": [
        async () => {
          await writeFile(path, "");
          await truncate(path, 2 ** 30);
        },
        /is larger than the 1000 bytes that are read of a file/,
      ],
    };
    for (const [what, [make, why]] of Object.entries(others)) {
      await rm(path);
      await make();
      const told = await reloaded();
      assert.match(told, /"level":"error","message":"not reloaded: the former configuration stays"/, what);
      assert.match(told, why, what);
      assert.equal(await isKnown("first"), true, what);
    }
    await rm(path);
    await writeFile(path, policies("second"));
    assert.doesNotMatch(await reloaded(), /"level":"error"/);
    assert.deepEqual([await isKnown("first"), await isKnown("second")], [false, true]);
    stopping.abort();
    assert.equal((await agent.result).exit, 0);
  });

  it("says where its configuration breaks, and quotes nothing of it", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "agent.json");
    for (const text of [
      `{"log_level": "info" "${SECRET}"}`,
      `{"token": ${SECRET}}`,
      `{"a": 1, ${SECRET}: 2}`,
      `["${SECRET}"}`,
      `{"a": "${SECRET}`,
      `"${SECRET}`,
    ]) {
      await writeFile(path, text);
      const { exit, stderr } = await runPeerage(["agent", "-dev", ...ports, "-config", path]);
      assert.equal(exit, 1);
      assert.match(stderr, /^Error reading the configuration file \S+: .* \(at byte \d+\)\n$/);
      for (let at = 0; at + 4 <= SECRET.length; at++) {
        assert.ok(!stderr.includes(SECRET.slice(at, at + 4)), `${text}: ${stderr}`);
      }
    }
  });

  const ioOf = (text: string): CommandLineIo => {
    const unused = (): never => assert.fail("it is not asked for");
    return {
      environment: {},
      stdout: unused,
      stderr: unused,
      stdin: unused,
      readFile: async () => text,
      readDirectory: async () => {
        throw Object.assign(new Error("a file"), { code: "ENOTDIR" });
      },
      holdPidFile: unused,
      wall: unused,
      people: false,
      untilStopped: unused,
      onHangUp: unused,
      onReport: unused,
      runProgram: unused,
      outputOf: unused,
      lookUp: unused,
    };
  };

  const rules = Array.from({ length: 6_000 }, (_, index) => `service "s${index}" { policy = "read" }`).join("\n");
  const inJson = JSON.stringify({
    policy: {
      many: { service: Object.fromEntries(Array.from({ length: 6_000 }, (_, i) => [`s${i}`, { policy: "read" }])) },
    },
  });
  for (const [what, text] of [
    ["one policy with many rules", `policy "many" {\n${rules}\n}`],
    ["one policy with many rules, in JSON", inJson],
    [
      "many tokens",
      Array.from({ length: 4_000 }, (_, index) => `token "t${index}" { secret = "${index}" }`).join("\n"),
    ],
  ] as const) {
    it(`reads ${what} in turns`, async () => {
      const turns = await turnsDuring(readPolicies({ file: "policies.hcl" }, ioOf(text)));
      assert.ok(turns > text.length / 100_000 + 2, `${turns} turns for ${text.length} characters`);
    });
  }

  it("reads many definitions of services in turns", async () => {
    const one = (index: number): string => `services { name = "s${index}" port = 80 tags = ["a", "b"] }`;
    const text = Array.from({ length: 4_000 }, (_, index) => one(index)).join("\n");
    const turns = await turnsDuring(readConsulFiles(["services.hcl"], "", ioOf(text)));
    assert.ok(turns > 5, `${turns} turns`);
  });
});
