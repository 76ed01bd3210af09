// The package as a user gets it: packed, installed into an empty project, compiled against and run.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

const root = process.cwd();
const DEADLINE_MS = 300_000;

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly exports: Readonly<Record<string, unknown>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

interface LockedPackage {
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const run = async (directory: string, command: string, ...commandArguments: readonly string[]): Promise<string> => {
  try {
    const options = { cwd: directory, timeout: DEADLINE_MS, maxBuffer: 64 * 1024 * 1024, env: environment() };
    return (await promisify(execFile)(command, commandArguments, options)).stdout;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`${basename(command)} ${commandArguments.join(" ")} failed\n${stdout}\n${stderr}`, {
      cause: error,
    });
  }
};

/** Without what `npm test` tells its children, which npm inside of it would take for its own settings. */
function environment(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(npm_(package|lifecycle|command)|NODE_TEST)/.test(name),
  );
  return { ...Object.fromEntries(inherited), NO_COLOR: "1" };
}

const readJson = async <T>(file: string): Promise<T> => JSON.parse(await readFile(file, "utf8")) as T;

/** The entries of our own lock that these packages need, so that the installation takes nothing we have not taken. */
function lockedClosure(
  packages: Readonly<Record<string, LockedPackage>>,
  names: Iterable<string>,
): Record<string, LockedPackage> {
  const closure: Record<string, LockedPackage> = {};
  const add = (name: string, from: string): void => {
    // As Node resolves it: nested in the package that asks, else one level up, and so on.
    for (let parent = from; ; parent = parent.slice(0, Math.max(0, parent.lastIndexOf("/node_modules/")))) {
      const path = `${parent === "" ? "" : `${parent}/`}node_modules/${name}`;
      const entry = packages[path];
      if (entry !== undefined) {
        if (closure[path] !== undefined) return;
        const { dev: _, peer: __, devOptional: ___, ...kept } = entry as LockedPackage & Record<string, unknown>;
        closure[path] = kept;
        for (const needed of Object.keys({ ...entry.dependencies })) add(needed, path);
        return;
      }
      assert.notEqual(parent, "", `${name} is not in the lock`);
    }
  };
  for (const name of names) add(name, "");
  return closure;
}

/** The compiler that reads the published types, such as `typescript@5.9`. Default: the one that builds them. */
const TYPESCRIPT = process.env["TYPESCRIPT"];

describe("the package", () => {
  let work = "";
  let tarball = "";
  let packed: readonly string[] = [];
  let project = "";
  /** Those of the README, by name. The others than the tour are run by a test of their own. */
  const programs = new Map<string, string>();
  let promised = "";

  before(async () => {
    work = await mkdtemp(join(tmpdir(), "peerage-package-"));
    // Packs the build that `npm test` has just made; building it again here would pull it from under the other tests.
    const output = await run(root, "npm", "pack", "--json", "--ignore-scripts", "--pack-destination", work);
    const [report] = JSON.parse(output) as { filename: string; files: { path: string }[] }[];
    assert.ok(report !== undefined);
    tarball = join(work, report.filename);
    packed = report.files.map(({ path }) => path);

    const readme = await readFile("README.md", "utf8");
    for (const [, text = "", name = ""] of readme.matchAll(/```ts\n(\/\/ ([\w-]+\.mts)\n[\s\S]*?)```/g)) {
      programs.set(name, text);
    }
    promised = /```ts\n\/\/ tour\.mts\n[\s\S]*?```[\s\S]*?```text\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    assert.ok(programs.has("tour.mts") && promised !== "", "README.md has a tour and what it prints");

    project = join(work, "project");
    await mkdir(project);
    await install();
  });

  after(async () => {
    await rm(work, { recursive: true, force: true });
  });

  async function install(): Promise<void> {
    const manifest = await readJson<Manifest>("package.json");
    const { packages } = await readJson<{ packages: Record<string, LockedPackage> }>("package-lock.json");
    const versionOf = (name: string): string => packages[`node_modules/${name}`]?.version ?? "";
    const dependencies = {
      peerage: `file:${tarball}`,
      ...Object.fromEntries(
        ["classic-level", "dns-packet", "typescript", "@types/node"].map((name) => [name, versionOf(name)]),
      ),
    };
    const own = { name: "a-user", version: "1.0.0", private: true, type: "commonjs", dependencies };
    await writeFile(join(project, "package.json"), JSON.stringify(own));
    const needed = new Set([...Object.keys(manifest.dependencies), ...Object.keys(dependencies)]);
    needed.delete("peerage");
    const { version, dependencies: ofPeerage, peerDependencies } = manifest;
    const lock = {
      name: own.name,
      version: own.version,
      lockfileVersion: 3,
      requires: true,
      packages: {
        "": own,
        ...lockedClosure(packages, needed),
        "node_modules/peerage": { version, resolved: `file:${tarball}`, dependencies: ofPeerage, peerDependencies },
      },
    };
    await writeFile(join(project, "package-lock.json"), JSON.stringify(lock));
    await run(project, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund");
  }

  it("holds the needed files and no others", async () => {
    const allowed = /^(dist\/.+\.(js|d\.ts)|proto\/.+\.proto|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/;
    assert.deepEqual(
      packed.filter((path) => !allowed.test(path)),
      [],
    );
    const sources = new Set(packed.map((path) => path.replace(/^dist\/(.+?)(\.d\.ts|\.js)$/, "src/$1.ts")));
    assert.deepEqual(
      [...sources].filter((path) => path.startsWith("src/") && !existsSync(path)),
      [],
      "left over from sources that are gone: remove dist/ and build again",
    );
    const { exports } = await readJson<Manifest>("package.json");
    for (const conditions of Object.values(exports)) {
      const targets = typeof conditions === "string" ? [conditions] : Object.values(conditions ?? {});
      for (const target of targets) assert.ok(packed.includes(String(target).slice(2)), `${target} is packed`);
    }
    assert.ok(packed.some((path) => path.startsWith("proto/")) && packed.includes("LICENSE"));
  });

  it("is what publint and attw call correct", async () => {
    await run(root, "npx", "--no-install", "publint", tarball, "--strict");
    await run(root, "npx", "--no-install", "attw", tarball, "--profile", "esm-only", "--no-emoji");
  });

  for (const { moduleResolution, module } of [
    { moduleResolution: "node16", module: "node16" },
    { moduleResolution: "bundler", module: "esnext" },
  ]) {
    it(`lets the README's programs compile, and its tour run (${moduleResolution})`, async () => {
      const directory = join(project, moduleResolution);
      await mkdir(directory);
      for (const [name, text] of programs) await writeFile(join(directory, name), text);
      // Every entry point, with its declarations checked as strictly as the user's own code.
      const { exports } = await readJson<Manifest>("package.json");
      const entries = Object.keys(exports).filter((path) => !path.endsWith(".json"));
      const imports = entries.map((path, index) => `import * as entry${index} from "peerage${path.slice(1)}";`);
      const uses = `console.log([${entries.map((_, index) => `entry${index}`).join(", ")}].length);`;
      await writeFile(join(directory, "entries.mts"), [...imports, uses].join("\n"));
      const compilerOptions = {
        target: "es2022",
        types: ["node"],
        module,
        moduleResolution,
        strict: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: false,
        outDir: "out",
        rootDir: ".",
      };
      await writeFile(join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.mts"] }));
      if (TYPESCRIPT !== undefined)
        await run(directory, "npx", "--yes", `--package=${TYPESCRIPT}`, "--", "tsc", "-p", ".");
      else await run(directory, process.execPath, join(project, "node_modules/typescript/bin/tsc"), "-p", ".");
      assert.equal(await run(directory, process.execPath, "out/entries.mjs"), `${entries.length}\n`);
      assert.equal(await run(directory, process.execPath, "out/tour.mjs"), promised);
    });
  }

  it("loads without the drivers that are not used", async () => {
    for (const driver of ["classic-level", "dns-packet"]) {
      await rm(join(project, "node_modules", driver), { recursive: true });
    }
    const script = `
      for (const path of ["", "/protocol", "/storage/memory", "/transport/memory", "/transport/grpc", "/wire", "/testing"]) {
        await import("peerage" + path);
      }
      for (const path of ["/storage/level", "/dns"]) {
        const failure = await import("peerage" + path).catch((error) => error);
        console.log(failure.code);
      }`;
    assert.equal(
      await run(project, process.execPath, "--input-type=module", "--eval", script),
      "ERR_MODULE_NOT_FOUND\n".repeat(2),
    );
  });
});

describe("the API reference", () => {
  it("is built without a warning", async () => {
    await run(root, "npx", "--no-install", "typedoc", "--emit", "none");
  });
});
