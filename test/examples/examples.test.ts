// Every example runs as it stands, ends well, and says what it is there to show.
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";

const DEADLINE_MS = 120_000;

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

class Run {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  stdout = "";
  stderr = "";

  constructor(example: string, ...exampleArguments: readonly string[]) {
    // A test runner's own settings would make a test inside an example report to it instead of to us.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    this.#child = spawn(process.execPath, [join("build/examples", example), ...exampleArguments], {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: DEADLINE_MS,
      env,
    });
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
  }

  async outcome(): Promise<Outcome> {
    const [code]: (number | null)[] = await once(this.#child, "close");
    return { code: code ?? null, stdout: this.stdout, stderr: this.stderr };
  }

  /** Resolves once the output holds `text`. Rejects when the process ends before. */
  prints(text: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (this.stdout.includes(text)) resolve();
      };
      this.#child.stdout.on("data", look);
      this.#child.once("close", () => reject(new Error(`it ended without "${text}":\n${this.stdout}\n${this.stderr}`)));
      look();
    });
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }
}

/** The line each must print. */
const EXPECTED: Readonly<Record<string, RegExp>> = {
  "fake-peer.js": /^[#ℹ] pass 3$/m,
  "inspect-token.js": /^dial +peering\.example\.com:8503$/m,
  "mesh.js": /^east says "hello checkout of west, you asked for \/menu"\nand to a stranger: 403 RBAC: access denied$/m,
  "own-catalog-source.js": /^the peer sees web at 10\.0\.0\.1, 10\.0\.0\.2, 10\.0\.0\.3$/m,
  "own-certificates.js": /^south trusts CN=Example Root 1 and CN=Example Root 2\nsouth trusts CN=Example Root 2\n/m,
  "own-storage.js": /^the second run found peering west in state pending$/m,
  "peer-in-a-test.js": /^[#ℹ] pass 3$/m,
  "transit.js":
    /^new has web on n1\.old, which came through 2 clusters$[\s\S]*^after the deletion new has nothing of it$/m,
  "two-hosts.js": /^west found web of east at 10\.0\.0\.1:80$[\s\S]*^after the deletion west reads terminated,$/m,
  "watch-api.js":
    /^east is ACTIVE, its stream CONNECTED\nthat was the snapshot; from now on, changes\n\+ web at 10\.0\.0\.1:80\n- web of node n1$/m,
  "watching-imports.js": /^~ web at 10\.0\.0\.1:80 \[v2\]$[\s\S]*^- db at 10\.0\.0\.2:5432 \[\]$/m,
};

describe("examples", () => {
  it("are all known here", () => {
    const files = readdirSync("examples").filter((name) => name.endsWith(".ts"));
    assert.deepEqual(files.map((name) => name.replace(/ts$/, "js")).sort(), Object.keys(EXPECTED).sort());
  });

  for (const [example, expected] of Object.entries(EXPECTED)) {
    it(`${example} runs`, async () => {
      const { code, stdout, stderr } = await new Run(example).outcome();
      assert.equal(code, 0, stdout + stderr);
      assert.match(stdout, expected);
    });
  }

  it("own-storage.js passes the suite of all storages", async () => {
    const { code, stdout, stderr } = await new Run("own-storage.js", "--suite").outcome();
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^[#ℹ] fail 0$/m);
  });

  it("inspect-token.js names what is wrong with a token, and ends with 1", async () => {
    const { code, stderr } = await new Run("inspect-token.js", "e30=!").outcome();
    assert.equal(code, 1);
    assert.match(stderr, /^not a peering token: /);
  });
});

describe("the main job", () => {
  let directory = "";
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), "peerage-examples-"));
  });
  after(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  it("replicates the services that come with it, through a rotation, a kill and a restart", async () => {
    const { code, stdout, stderr } = await new Run("main-job/main.js").outcome();
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /rotated its CA/);
    assert.match(stdout, /was killed/);
    assert.match(stdout, /^Summary: 5 services, 6 instances replicated; 0 differences\.$/m);
  });

  it("takes services of the user's own, and with --keep runs until it is interrupted", async () => {
    const file = join(directory, "mine.json");
    const own = [{ node: "n1", address: "192.0.2.1", service: { name: "mine", port: 1234 } }];
    await writeFile(file, JSON.stringify(own));
    const run = new Run("main-job/main.js", "--services", file, "--keep");
    await run.prints("Ctrl-C");
    run.interrupt();
    const { code, stdout, stderr } = await run.outcome();
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^Summary: 1 services, 1 instances replicated; 0 differences\.$/m);
  });

  for (const [what, content, complaint] of [
    ["is not there", undefined, /ENOENT/],
    ["is not JSON", "[{", /JSON/],
    ["is not an array", "{}", /a JSON array of registrations is expected/],
    ["is empty", "[]", /no service/],
    ["has a registration without a node", '[{"address": "192.0.2.1", "service": {"name": "x"}}]', /node/i],
    ["has a bad port", '[{"node": "n", "address": "a", "service": {"name": "x", "port": 1.5}}]', /port/i],
  ] as const) {
    it(`ends with 1 and says why when the file ${what}`, async () => {
      const file = join(directory, "bad.json");
      await rm(file, { force: true });
      if (content !== undefined) await writeFile(file, content);
      const { code, stdout, stderr } = await new Run("main-job/main.js", "--services", file).outcome();
      assert.equal(code, 1, stdout);
      assert.match(stderr, complaint);
      assert.ok(stderr.includes(file) && !stderr.includes("    at "), stderr);
    });
  }
});
