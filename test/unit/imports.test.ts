import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { describe, it } from "node:test";
import ts from "typescript";

/** Folders of src/ in groups, lowest first: an import may point downwards, or stay in its own folder. */
const GROUPS: readonly (readonly string[])[] = [
  ["base"],
  ["syntax"],
  ["wire"],
  ["access", "token", "peering", "model", "replication"],
  ["config"],
  ["payload"],
  ["storage", "transport"],
  ["trust", "checks"],
  ["stores"],
  ["exports"],
  ["host"],
  ["http", "dns", "client"],
  ["rpc"],
  ["mesh"],
  ["cli"],
  ["pieces.ts"],
  ["testing", "index.ts", "protocol.ts"],
];
const PURE: readonly string[] = [
  "syntax",
  "wire",
  "access",
  "token",
  "peering",
  "model",
  "config",
  "payload",
  "replication",
];
/** Parts of folders that are pure, too. */
const PURE_PARTS = /^mesh\/(snapshot\/|xds\/|ads\/session\.ts$)/;
/** The folders that make a host. */
const HOST: readonly string[] = ["stores", "exports", "host"];
/** All a host may know of its backends, so that unused ones are never loaded. */
const CONTRACTS: readonly string[] = [
  "storage/storage.ts",
  "storage/keys.ts",
  "storage/damaged-entries.ts",
  "storage/limits.ts",
  "storage/replica.ts",
  "storage/stored-table.ts",
  "transport/transport.ts",
];
const GENERATED = "wire/gen/";
/** Of Node, what computes and nothing else. */
const PURE_MODULES: readonly string[] = ["node:buffer", "node:crypto"];
const IMPURE =
  /^(Date\.now|Math\.random|performance|process|setTimeout|setInterval|setImmediate|queueMicrotask|fetch|randomBytes|randomUUID)$/;

interface Import {
  readonly from: string;
  /** A path in src/, a package, or a module of Node with its `node:`. */
  readonly to: string;
  readonly typesOnly: boolean;
}

interface SourceFile {
  readonly path: string;
  readonly tree: ts.SourceFile;
}

function sourceFiles(): readonly SourceFile[] {
  return readdirSync("src", { recursive: true, encoding: "utf8" })
    .map((path) => path.replaceAll("\\", "/"))
    .filter((path) => path.endsWith(".ts"))
    .sort()
    .map((path) => ({
      path,
      tree: ts.createSourceFile(path, readFileSync(join("src", path), "utf8"), ts.ScriptTarget.Latest, true),
    }));
}

function visit(node: ts.Node, action: (node: ts.Node) => void): void {
  action(node);
  ts.forEachChild(node, (child) => visit(child, action));
}

function importsOf({ path, tree }: SourceFile): readonly Import[] {
  const found: Import[] = [];
  const add = (specifier: ts.Expression, typesOnly: boolean): void => {
    assert.ok(ts.isStringLiteral(specifier), `${path} imports something that is not a literal`);
    const to = specifier.text.startsWith(".")
      ? posix.join(dirname(path), specifier.text).replace(/\.js$/, ".ts")
      : specifier.text;
    found.push({ from: path, to, typesOnly });
  };
  visit(tree, (node) => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypesOnly(node.importClause));
    else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
      const named =
        node.exportClause !== undefined && ts.isNamedExports(node.exportClause) ? node.exportClause : undefined;
      const allTypes = named?.elements.every(({ isTypeOnly }) => isTypeOnly) ?? false;
      add(node.moduleSpecifier, node.isTypeOnly || allTypes);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      for (const specifier of node.arguments.slice(0, 1)) add(specifier, false);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      const { literal } = node.argument;
      if (ts.isStringLiteral(literal)) add(literal, true);
    }
  });
  return found;
}

function isTypesOnly(clause: ts.ImportClause | undefined): boolean {
  if (clause === undefined) return false;
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return true;
  const { name, namedBindings } = clause;
  if (name !== undefined || namedBindings === undefined || !ts.isNamedImports(namedBindings)) return false;
  return namedBindings.elements.every(({ isTypeOnly }) => isTypeOnly);
}

const folderOf = (path: string): string => path.split("/")[0] ?? path;

function groupOf(path: string): number {
  const group = GROUPS.findIndex((folders) => folders.includes(folderOf(path)));
  assert.notEqual(group, -1, `${path} lies in a folder without a place in the order of imports`);
  return group;
}

function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

function dependencyNames(...fields: readonly string[]): readonly string[] {
  const manifest: Record<string, unknown> = JSON.parse(readFileSync("package.json", "utf8"));
  return fields.flatMap((field) => Object.keys(manifest[field] ?? {})).sort();
}

/** One line for each circle that a walk along the imports meets, from every file, its files in the order of importing. */
function circles(imports: readonly Pick<Import, "from" | "to">[]): readonly string[] {
  const targets = new Map<string, Set<string>>();
  for (const { from, to } of imports) targets.set(from, (targets.get(from) ?? new Set()).add(to));
  const found: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const walk = (file: string): void => {
    const start = path.indexOf(file);
    if (start >= 0) found.push([...path.slice(start), file].join(" > "));
    if (start >= 0 || done.has(file)) return;
    path.push(file);
    for (const target of targets.get(file) ?? []) walk(target);
    path.pop();
    done.add(file);
  };
  for (const file of targets.keys()) walk(file);
  return found;
}

const files = sourceFiles();
const imports = files.flatMap(importsOf);
const within = imports.filter(({ to }) => to.endsWith(".ts"));
const external = imports.filter(
  ({ from, to }) => !to.endsWith(".ts") && !to.startsWith("node:") && !from.startsWith(GENERATED),
);

describe("imports", () => {
  it("finds what it judges", () => {
    assert.ok(files.length > 50 && within.length > 100 && external.length > 0);
    const paths = new Set(files.map(({ path }) => path));
    assert.deepEqual(
      within.filter(({ to }) => !paths.has(to)),
      [],
    );
  });

  it("run one way between the folders; between equals only types cross", () => {
    const wrong = within.filter(({ from, to, typesOnly }) => {
      if (folderOf(from) === folderOf(to)) return false;
      const [upper, lower] = [groupOf(from), groupOf(to)];
      return lower > upper || (lower === upper && !typesOnly && from !== "index.ts" && upper !== 0);
    });
    assert.deepEqual(
      wrong.map(({ from, to }) => `${from} imports ${to}`),
      [],
    );
  });

  it("a host knows the contracts of storage and transport, and none of their implementations", () => {
    const wrong = within.filter(
      ({ from, to }) => HOST.includes(folderOf(from)) && /^(storage|transport)\//.test(to) && !CONTRACTS.includes(to),
    );
    assert.deepEqual(
      wrong.map(({ from, to }) => `${from} imports ${to}`),
      [],
    );
  });

  it("the judges of simulated hosts take nothing but types and constants from the judged code", () => {
    const judges = /^testing\/simulator\/(invariants|secret-ledger|stored-forms|[a-z]+-judge)\.ts$/;
    const harmless = /^(wire\/(codec|messages|resources|status)\.ts|storage\/keys\.ts)$/;
    const own = within.filter(({ from }) => judges.test(from));
    assert.ok(own.length > 20);
    const wrong = own.filter(({ to, typesOnly }) => !typesOnly && !judges.test(to) && !harmless.test(to));
    assert.deepEqual(
      wrong.map(({ from, to }) => `${from} imports ${to}`),
      [],
    );
  });

  it("what serves a host knows its public parts alone", () => {
    const users = new Set<string>();
    for (const file of files) {
      visit(file.tree, (node) => {
        if (ts.isIdentifier(node) && /^(machineryOf|HostMachinery)$/.test(node.text)) users.add(file.path);
      });
    }
    const simulator = /^testing\/simulator\//;
    assert.ok([...users].some((path) => simulator.test(path)));
    assert.deepEqual(
      [...users].filter((path) => !simulator.test(path)),
      ["host/host.ts"],
    );
  });

  it("no files import each other in a circle, not even types", () => {
    assert.ok(within.some(({ typesOnly }) => typesOnly));
    assert.deepEqual(circles(within), []);
  });

  it("a circle of imports is found", () => {
    const found = circles([
      { from: "a", to: "b" },
      { from: "b", to: "c" },
      { from: "c", to: "b" },
      { from: "d", to: "d" },
      { from: "a", to: "e" },
    ]);
    assert.deepEqual(found, ["b > c > b", "d > d"]);
  });

  it("one file imports each dependency", () => {
    const importers = new Map<string, Set<string>>();
    for (const { from, to } of external) {
      const name = packageOf(to);
      importers.set(name, (importers.get(name) ?? new Set()).add(from));
    }
    const wrong = [...importers].filter(([, by]) => by.size > 1).map(([name, by]) => `${name}: ${[...by].join(", ")}`);
    assert.deepEqual(wrong, []);
  });

  it("the package declares what it imports, and nothing else", () => {
    const used = imports
      .filter(({ to }) => !to.endsWith(".ts") && !to.startsWith("node:"))
      .map(({ to }) => packageOf(to));
    assert.deepEqual([...new Set(used)].sort(), dependencyNames("dependencies", "peerDependencies"));
  });

  it("the pure folders reach no clock, no randomness, no I/O, and wait for nothing", () => {
    const wrong: string[] = [];
    const isPure = ({ path }: SourceFile): boolean =>
      (PURE.includes(folderOf(path)) || PURE_PARTS.test(path)) && !path.startsWith(GENERATED);
    assert.ok(files.filter(({ path }) => PURE_PARTS.test(path)).length > 10);
    for (const file of files.filter(isPure)) {
      for (const { to, typesOnly } of importsOf(file)) {
        if (to.startsWith("node:") && !PURE_MODULES.includes(to)) wrong.push(`${file.path} imports ${to}`);
        if (to === "base/environment.ts" && !typesOnly) wrong.push(`${file.path} imports values of ${to}`);
      }
      visit(file.tree, (node) => {
        if (ts.isAwaitExpression(node) || (ts.isForOfStatement(node) && node.awaitModifier !== undefined)) {
          wrong.push(`${file.path} awaits`);
        } else if (
          IMPURE.test(node.getText(file.tree)) &&
          (ts.isPropertyAccessExpression(node) || ts.isIdentifier(node))
        ) {
          wrong.push(`${file.path} uses ${node.getText(file.tree)}`);
        } else if (ts.isNewExpression(node) && /^new Date(\(\))?$/.test(node.getText(file.tree))) {
          wrong.push(`${file.path} reads the clock`);
        }
      });
    }
    assert.deepEqual(wrong, []);
  });
});
