// Runs the README: its programs and its commands, in their order, as a reader would, and compares what they print with what it
// says they print. Only addresses are others: ports that are free, and this machine for a name that does not exist.
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { parseAclPolicies } from "../../src/access/policies.js";
import { temporaryDirectory } from "../support/hosts.js";

const root = process.cwd();
const DEADLINE_MS = 60_000;
const LOOK_AGAIN_MS = 200;

interface Block {
  readonly section: string;
  readonly language: string;
  readonly text: string;
  /** The output that it promises. */
  readonly promised: string | undefined;
}

/** Commands that other tests have run, or that started the tests. */
const elsewhere: Readonly<Record<string, string>> = {
  "npm ci && npm start": "test/examples/examples.test.ts",
  "npm ci && npm test": ".ci/run",
  "npm i peerage classic-level dns-packet": "test/packaging/package.test.ts",
};
/** The program that the text says how to run; `test/packaging/package.test.ts` compiles it, too. */
const TOUR = "tour.mts";
/** A command that runs until it is interrupted; it prints a line when it is ready. */
const GOES_ON = /^npx (?:peerage agent|tsx (?:listen|serve)\.mts)\b/;
/** Values that later commands of a section may use. */
const VARIABLES = "TOKEN PEERING_TOKEN CONSUL_HTTP_ADDR";
const PORTS = /\b(?:7500|7503|7600|8500|8501|8503|8600|9500|9503|9504|9600|9601)\b/g;

const blocks: readonly Block[] = blocksOf(readFileSync("README.md", "utf8"));

function blocksOf(markdown: string): readonly Block[] {
  let section = "";
  const found: Block[] = [];
  for (const [, heading, language = "", text = ""] of markdown.matchAll(/^## (.*)$|^```(.*)\n([\s\S]*?)^```$/gm)) {
    if (heading !== undefined) section = heading;
    else if (language !== "text") found.push({ section, language, text, promised: undefined });
    else {
      const before = found.pop();
      assert.ok(before !== undefined && before.promised === undefined, `something prints this:\n${text}`);
      found.push({ ...before, promised: text });
    }
  }
  return found;
}

function fileName({ text }: Block): string | undefined {
  return /^\/\/ ([\w-]+\.mts)\n/.exec(text)?.[1];
}

function isElsewhere({ language, text }: Block): boolean {
  return language === "sh" && commandsOf(text).every((command) => elsewhere[command] !== undefined);
}

/** Lines without their comments. */
function commandsOf(text: string): readonly string[] {
  return text
    .trimEnd()
    .split("\n")
    .map((line) => line.replace(/\s+# .*$/, ""));
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => (address === null || typeof address === "string" ? reject(address) : resolve(address.port)));
    });
  });
}

/** Answers `dig +short @HOST -p PORT NAME [TYPE]` where there is no `dig`. */
const DIG = `#!/usr/bin/env node
import { createSocket } from "node:dgram";
import packet from "dns-packet";
const [host, , port, name, type = "A"] = process.argv.slice(3);
const socket = createSocket("udp4");
socket.on("message", (message) => {
  for (const { data } of packet.decode(message).answers) console.log(typeof data === "string" ? data : Object.values(data).join(" "));
  socket.close();
});
socket.send(packet.encode({ type: "query", id: 1, flags: 256, questions: [{ name, type }] }), Number(port), host.slice(1));
`;

/** Where a section of the README is run: a project with the package, and programs that go on. */
class Project implements AsyncDisposable {
  readonly #directory: AsyncDisposable & { readonly path: string };
  readonly #ports = new Map<string, number>();
  readonly #processes: ChildProcess[] = [];
  #consul = false;

  private constructor(directory: AsyncDisposable & { readonly path: string }) {
    this.#directory = directory;
  }

  static async open(): Promise<Project> {
    const project = new Project(await temporaryDirectory());
    const { path } = project.#directory;
    const modules = join(path, "node_modules");
    const programs = join(path, "bin");
    await mkdir(modules);
    await mkdir(programs);
    await symlink(root, join(modules, "peerage"));
    for (const name of ["classic-level", "dns-packet"])
      await symlink(join(root, "node_modules", name), join(modules, name));
    // As a newcomer makes a project; npm says in it that programs are CommonJS.
    await promisify(execFile)("npm", ["init", "-y"], { cwd: path });
    await writeFile(join(programs, "package.json"), '{"type":"module"}');
    await writeFile(join(path, "variables"), "");
    const scripts: Record<string, string> = {
      npx: '#!/bin/sh\nexec "$@"\n',
      peerage: `#!/bin/sh\nexec "${process.execPath}" "${join(root, "dist/cli/main.js")}" "$@"\n`,
      tsx: `#!/bin/sh\nexec "${process.execPath}" --import "${join(root, "node_modules/tsx/dist/loader.mjs")}" "$@"\n`,
      // Whose place ours takes.
      consul: '#!/bin/sh\nexec peerage "$@"\n',
    };
    if (!(process.env["PATH"] ?? "").split(":").some((folder) => existsSync(join(folder, "dig")))) scripts["dig"] = DIG;
    for (const [name, text] of Object.entries(scripts)) {
      await writeFile(join(programs, name), text);
      await chmod(join(programs, name), 0o755);
    }
    for (const port of new Set(blocks.flatMap(({ text }) => text.match(PORTS) ?? []).concat("8500", "8503", "8600"))) {
      project.#ports.set(port, await freePort());
    }
    return project;
  }

  /** With addresses that can be used here. */
  local(text: string): string {
    return text.replace(PORTS, (port) => String(this.#ports.get(port))).replaceAll("peerage.example.com", "127.0.0.1");
  }

  async write(name: string, text: string): Promise<void> {
    await writeFile(join(this.#directory.path, name), this.local(text));
  }

  /** @returns what was printed. */
  async run({ text, promised }: Block): Promise<string> {
    if (/^(?:.*\$\()?consul /m.test(text) && !this.#consul) {
      this.#consul = true;
      await this.#start(`peerage agent --dev --grpc-tls 127.0.0.1:${await freePort()}`);
      await this.#bash("peerage catalog register -node n1 -address 10.0.0.1 -service web -port 80");
    }
    const lines = text.split("\n");
    for (const line of lines.filter((each) => GOES_ON.test(each))) await this.#start(line);
    const rest = lines.filter((line) => !GOES_ON.test(line)).join("\n");
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
      const printed = await this.#bash(rest);
      // A write that was just made takes a moment to arrive.
      if (promised === undefined || printed === this.local(promised) || performance.now() > end) return printed;
      await delay(LOOK_AGAIN_MS);
    }
  }

  async #bash(script: string): Promise<string> {
    const whole = `. ./variables\n${this.local(script)}\n{ declare -p ${VARIABLES} 2>&3 || true; } 3>/dev/null > variables\n`;
    return new Promise((resolve, reject) => {
      const options = { cwd: this.#directory.path, env: this.#environment(), timeout: DEADLINE_MS };
      execFile("bash", ["--norc", "-euo", "pipefail", "-c", whole], options, (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(new Error(`${script}\n${stdout}\n${stderr}`, { cause: error }));
      });
    });
  }

  /** Starts what goes on; a token it prints is a variable from now on. */
  async #start(command: string): Promise<void> {
    const child = spawn("bash", ["-c", `exec ${this.local(command).replace(/^npx /, "")}`], {
      cwd: this.#directory.path,
      env: this.#environment(),
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#processes.push(child);
    let errors = "";
    child.stderr.on("data", (chunk) => (errors += String(chunk)));
    const [line]: unknown[] = await Promise.race([
      once(createInterface({ input: child.stdout }), "line", { signal: AbortSignal.timeout(DEADLINE_MS) }),
      once(child, "exit").then(() => assert.fail(`${command} ended: ${errors}`)),
    ]);
    if (/^[\w+/]{400,}=*$/.test(String(line))) await this.#bash(`TOKEN=${String(line)}`);
  }

  #environment(): NodeJS.ProcessEnv {
    const at = (port: string): string => `127.0.0.1:${this.#ports.get(port)}`;
    const { path } = this.#directory;
    return {
      PATH: `${join(path, "bin")}:${process.env["PATH"]}`,
      HOME: path,
      // The defaults of everything.
      CONSUL_HTTP_ADDR: at("8500"),
      PEERAGE_HTTP: at("8500"),
      PEERAGE_GRPC_TLS: at("8503"),
      PEERAGE_DNS: at("8600"),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#processes) {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGINT");
        await once(child, "exit");
      }
      assert.equal(child.exitCode, 0, `${child.spawnargs.at(-1)} ends well when it is interrupted`);
    }
    await this.#directory[Symbol.asyncDispose]();
  }
}

describe("README.md", () => {
  it("shows nothing that cannot be run", () => {
    const commands = blocks.filter(({ language }) => language === "sh").map(({ text }) => text);
    for (const block of blocks) {
      assert.ok(["sh", "ts", "hcl"].includes(block.language), `a block of ${block.language}:\n${block.text}`);
      if (block.language !== "ts") continue;
      const name = fileName(block);
      assert.ok(name !== undefined, `a program begins with its name:\n${block.text}`);
      assert.ok(
        name === TOUR || commands.some((text) => text.includes(`npx tsx ${name}`)),
        `${name} is run by a command`,
      );
    }
    for (const file of Object.values(elsewhere)) assert.ok(existsSync(file), file);
    assert.ok(readFileSync(".ci/run", "utf8").includes("npm ci\nnpm test\n"));
  });

  const sections = new Set(blocks.filter((block) => !isElsewhere(block)).map(({ section }) => section));
  for (const section of sections) {
    describe(section, { timeout: 170_000 }, () => {
      let project: Project;
      before(async () => {
        project = await Project.open();
      });
      after(() => project[Symbol.asyncDispose]());

      for (const block of blocks.filter((each) => each.section === section && !isElsewhere(each))) {
        const title = block.text.split("\n")[0] ?? "";
        it(title, async () => {
          const name = fileName(block);
          if (block.language === "ts" && name !== undefined) {
            await project.write(name, block.text);
            if (name !== TOUR) return;
            const printed = await project.run({ ...block, text: `npx tsx ${name}` });
            assert.equal(printed, project.local(block.promised ?? ""));
            return;
          }
          // The first step of `agent --acl-policies` with such a file.
          if (block.language === "hcl") return void parseAclPolicies(block.text);
          const printed = await project.run(block);
          if (block.promised !== undefined) assert.equal(printed, project.local(block.promised));
        });
      }
    });
  }
});
