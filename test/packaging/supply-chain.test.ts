// The packages that come into this one, and the files that go out of it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";

interface LockedPackage {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly inBundle?: boolean;
  readonly hasInstallScript?: boolean;
  readonly license?: string;
  readonly dev?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
}

interface Manifest {
  readonly allowScripts: Readonly<Record<string, boolean>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly scripts: Readonly<Record<string, string>>;
}

const manifest: Manifest = JSON.parse(readFileSync("package.json", "utf8"));
const lock: { readonly lockfileVersion: number; readonly packages: Readonly<Record<string, LockedPackage>> } =
  JSON.parse(readFileSync("package-lock.json", "utf8"));
const { "": own, ...locked } = lock.packages;
const packages = Object.entries(locked);

/** `node_modules/a/node_modules/@b/c` is `@b/c`. */
function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
}

/**
 * Everything that runs in a process of a user's, the two drivers included. Each is one more to trust: a change that adds one says
 * why.
 */
const RUNTIME: readonly string[] = [
  "@bufbuild/protobuf",
  "@connectrpc/connect",
  "@connectrpc/connect-node",
  "@peculiar/x509",
  "immer",
  "reflect-metadata",
  // Those that these need.
  ...["asn1-asym-key", "asn1-cms", "asn1-csr", "asn1-ecc", "asn1-pfx", "asn1-pkcs8", "asn1-pkcs9", "asn1-rsa"].map(
    (name) => `@peculiar/${name}`,
  ),
  ...["asn1-schema", "asn1-x509", "asn1-x509-attr", "asn1-x509-post-quantum", "utils"].map(
    (name) => `@peculiar/${name}`,
  ),
  ...["asn1js", "pvtsutils", "pvutils", "tslib", "tsyringe"],
  // The driver of DNS, and what it needs.
  ...["dns-packet", "@leichtgewicht/ip-codec"],
  // The driver of LevelDB, and what it needs.
  ...["classic-level", "abstract-level", "base64-js", "buffer", "ieee754", "is-buffer", "level-supports"],
  ...["level-transcoder", "maybe-combine-errors", "module-error", "napi-macros", "node-gyp-build"],
];

/** The further packages for building and testing. */
const TOOLS: readonly string[] = [
  "@arethetypeswrong/cli",
  "@biomejs/biome",
  "@bufbuild/buf",
  "@bufbuild/protoc-gen-es",
  "@grpc/grpc-js-xds",
  "@types/autocannon",
  "@types/dns-packet",
  "@types/node",
  // The load of the benchmark of reads.
  "autocannon",
  "fast-check",
  "protobufjs",
  "publint",
  "tsx",
  "typedoc",
  "typescript",
];

/** Those that run something when they are installed, and why that need not be run here. */
const INSTALL_SCRIPTS: Readonly<Record<string, string>> = {
  "@bufbuild/buf": "fetches the program where npm did not: it is an optional dependency, one for each platform",
  "classic-level": "compiles LevelDB where there is no binary for the platform: there is one for each that we test on",
  esbuild: "replaces a small script by the program: it works without",
  protobufjs: "warns of versions in package.json that it finds odd",
};

/** Licences that allow what we do with what is under them, to all who get it from us. */
const LICENCES: readonly string[] = [
  "MIT",
  "Apache-2.0",
  "MIT OR Apache-2.0",
  "ISC",
  "0BSD",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "(Apache-2.0 AND BSD-3-Clause)",
  "(MIT AND Zlib)",
  "(BSD-3-Clause OR GPL-2.0)",
  "BlueOak-1.0.0",
  "Python-2.0",
];

describe("installed packages", () => {
  it("is locked, to one version each whose content is known", () => {
    assert.equal(lock.lockfileVersion, 3);
    assert.ok(packages.length > 100);
    for (const [path, { version, integrity, link, inBundle }] of packages) {
      assert.match(path, /^(?:node_modules\/(?:@[\w.-]+\/)?[\w.-]+\/?)+$/);
      assert.match(version ?? "", /^\d+\.\d+\.\d+(?:[-+][\w.+-]+)?$/, path);
      assert.match(integrity ?? "", /^sha512-[A-Za-z0-9+/]{86}==$/, `${path} has no checksum`);
      assert.equal(link ?? inBundle, undefined, `${path} comes with another package, or from a directory`);
    }
  });

  it("comes from the registry that the user has, and from nowhere else", () => {
    // Without an address npm asks the registry that it is configured with; an address could be that of anybody.
    assert.deepEqual(
      packages.filter(([, { resolved }]) => resolved !== undefined).map(([path]) => path),
      [],
    );
    // No addresses, repositories, directories or other names in what is asked for.
    const asked = [manifest, own ?? {}, ...packages.map(([, each]) => each)].flatMap((each) => {
      const { dependencies = {}, peerDependencies = {}, devDependencies = {} } = each as Partial<Manifest>;
      return Object.entries({ ...dependencies, ...peerDependencies, ...devDependencies });
    });
    assert.ok(asked.length > 100);
    for (const [name, range] of asked) assert.match(range, /^[\dxX*~^<>=|. \w-]+$/, `${name} is wanted from ${range}`);
    for (const [name, range] of asked)
      assert.doesNotMatch(range, /^[a-z][\w-]*:|\//i, `${name} is wanted from ${range}`);
    // The registries that this clone's npm is configured with.
    const settings = readFileSync(".npmrc", "utf8").trim().split("\n");
    assert.deepEqual(settings.sort(), ["audit=false", "fund=false"]);
  });

  it("runs nothing when it is installed, with a reason for each that would", () => {
    const running = packages
      .filter(([, { hasInstallScript }]) => hasInstallScript === true)
      .map(([path]) => nameOf(path));
    assert.deepEqual(running.sort(), Object.keys(INSTALL_SCRIPTS).sort());
    assert.deepEqual(
      manifest.allowScripts,
      Object.fromEntries(Object.keys(INSTALL_SCRIPTS).map((name) => [name, false])),
    );
    // Nor do we run anything at a user's: `prepare` is for those who clone this.
    for (const script of ["preinstall", "install", "postinstall"]) assert.equal(manifest.scripts[script], undefined);
  });

  it("holds the packages that were chosen to run at a user's, and no others", () => {
    const closure = new Set<string>();
    const add = (name: string, from: string): void => {
      // As Node resolves it: nested in the package that asks, else one level up, and so on.
      for (let parent = from; ; parent = parent.slice(0, Math.max(0, parent.lastIndexOf("/node_modules/")))) {
        const path = `${parent === "" ? "" : `${parent}/`}node_modules/${name}`;
        const found = locked[path];
        if (found === undefined) {
          assert.notEqual(parent, "", `${name} is not in the lock`);
          continue;
        }
        if (closure.has(path)) return;
        closure.add(path);
        for (const needed of Object.keys(found.dependencies ?? {})) add(needed, path);
        return;
      }
    };
    const direct = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
    for (const name of direct) add(name, "");
    assert.deepEqual([...new Set([...closure].map(nameOf))].sort(), [...RUNTIME].sort());
    for (const name of direct) assert.ok(RUNTIME.includes(name));
    // The drivers are installed here to be tested.
    const tools = Object.keys(manifest.devDependencies).filter((name) => !direct.includes(name));
    assert.deepEqual(tools.sort(), [...TOOLS].sort());
    // Of tools one exact version each: what builds the package does not change by itself.
    for (const [name, range] of Object.entries(manifest.devDependencies)) assert.match(range, /^\d+\.\d+\.\d+$/, name);
    for (const [name, range] of Object.entries(manifest.devDependencies)) {
      assert.equal(locked[`node_modules/${name}`]?.version, range, name);
    }
  });

  it("is under a licence that is known", () => {
    const unknown = packages.filter(([, { license }]) => license === undefined || !LICENCES.includes(license));
    assert.deepEqual(
      unknown.map(([path, { license }]) => `${path}: ${license}`),
      [],
    );
  });
});

describe("the published package", () => {
  const report = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    encoding: "utf8",
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_TEST)/i.test(name))),
  });
  const [packed] = JSON.parse(report) as readonly { readonly files: readonly { readonly path: string }[] }[];
  const files = (packed?.files ?? []).map(({ path }) => path);

  it("is what each source becomes, the messages, and four texts: no sources, no tests, no maps", () => {
    const below = (directory: string): readonly string[] =>
      readdirSync(directory, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.parentPath}/${entry.name}`.slice(directory.length + 1));
    const sources = below("src").filter((path) => path.endsWith(".ts"));
    const built = sources.flatMap((path) => [".js", ".d.ts"].map((end) => `dist/${path.replace(/\.ts$/, end)}`));
    const messages = below("proto").map((path) => `proto/${path}`);
    const texts = ["CHANGELOG.md", "LICENSE", "README.md", "package.json"];
    assert.ok(sources.length > 100 && messages.length > 5);
    assert.deepEqual(
      files.filter((path) => path.startsWith("dist/") && !built.includes(path)),
      [],
      "left over from sources that are gone: remove dist/ and build again",
    );
    assert.deepEqual(files.toSorted(), [...built, ...messages, ...texts].sort());
    for (const path of messages) assert.match(path, /\.proto$/);
  });

  it("tells nothing of the machine that built it", () => {
    const here = process.cwd();
    const telling = files.filter((path) => {
      const text = readFileSync(path, "utf8");
      return text.includes(here) || /sourceMappingURL|-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[A-Za-z0-9+/]/.test(text);
    });
    assert.deepEqual(telling, []);
  });
});
