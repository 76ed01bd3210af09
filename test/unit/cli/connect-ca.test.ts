// `peerage connect ca` against a live host, and what Consul 1.21.4's own program printed for the same against its own server.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { readGolden } from "../../golden/read.js";
import { type CommandLineResult, runPeerage } from "../../support/command-line.js";
import { givenRoot } from "../../support/given-root.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

interface Recorded {
  readonly files: Readonly<Record<string, string>>;
  readonly lines: readonly (CommandLineResult & { readonly args: readonly string[]; readonly server: string })[];
}

const { files, lines }: Recorded = JSON.parse(readGolden("cli/connect-ca.json"));
/** A port nobody listens on, at an address that every machine has. */
const NOWHERE = "127.0.0.101:1";

describe("peerage connect ca", () => {
  let at: ServedHost;
  let directory: string;
  before(async () => {
    const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport({}) });
    at = await serve(host);
    directory = await mkdtemp(join(tmpdir(), "peerage-cli-"));
    for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content);
  });
  after(async () => {
    await at[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  const run = (args: readonly string[], server = "a"): Promise<CommandLineResult> =>
    runPeerage(
      args.map((arg) => (arg.endsWith(".json") ? join(directory, arg) : arg)),
      { environment: { CONSUL_HTTP_ADDR: server === "a" ? `127.0.0.1:${at.port}` : NOWHERE } },
    );
  const withoutIndexes = (text: string): string => text.replace(/("(?:Create|Modify)Index": )\d+/g, "$1N");

  it("prints what Consul's program printed, line by line", async () => {
    assert.ok(lines.length >= 17);
    for (const { args, server, exit, stdout, stderr } of lines) {
      const result = await run(args, server);
      const name = args.join(" ");
      assert.equal(result.stderr.replaceAll(`${directory}/`, ""), stderr, name);
      assert.equal(withoutIndexes(result.stdout), withoutIndexes(stdout), name);
      assert.equal(result.exit, exit, name);
    }
    assert.equal(at.host.authority.roots().length, 2);
  });

  it("writes what it has read, and prints no key", async () => {
    const root = await givenRoot();
    const given = { Provider: "consul", Config: { PrivateKey: root.keyPem, RootCert: root.certificatePem } };
    await writeFile(join(directory, "given.json"), JSON.stringify(given));
    const set = await run(["connect", "ca", "set-config", "-config-file", "given.json"]);
    assert.deepEqual(set, { exit: 0, stdout: "Configuration updated!\n", stderr: "" });
    const shown = await run(["connect", "ca", "get-config"]);
    assert.ok(shown.stdout.includes("RootCert") && !shown.stdout.includes("PRIVATE"));
    await writeFile(join(directory, "shown.json"), shown.stdout);
    const roots = at.host.authority.roots();
    assert.equal((await run(["connect", "ca", "set-config", "-config-file", "shown.json"])).exit, 0);
    assert.deepEqual(at.host.authority.roots(), roots);
    await writeFile(join(directory, "broken.json"), JSON.stringify(given).replace(/\}$/, ""));
    const broken = await run(["connect", "ca", "set-config", "-config-file", "broken.json"]);
    assert.equal(broken.stderr, "Error parsing config file: unexpected end of JSON input\n");
  });
});
