import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { readFileSync } from "node:fs";
import { dirname, posix } from "node:path";
import { describe, it } from "node:test";
import ts from "typescript";
import { type Abortable, unlessAborted } from "../../src/base/abortable.js";
import type { Closable } from "../../src/base/closable.js";
import { ConsulClient } from "../../src/client/consul-client.js";
import { dnsServer } from "../../src/dns/server.js";
import { createHost } from "../../src/host/host.js";
import { meshListener, xdsServer } from "../../src/mesh/index.js";
import { httpServer } from "../../src/rpc/http-server.js";
import { peeringRpc } from "../../src/rpc/peering-rpc.js";
import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { fakePeer } from "../../src/testing/fake-peer/start.js";
import { fixedAuthority } from "../../src/testing/fixed-authority.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { builtInAuthority } from "../../src/trust/built-in-authority.js";
import { TrustBundleStore } from "../../src/trust/trust-bundle-store.js";
import { temporaryDirectory } from "../support/hosts.js";

/** Contracts that a program implements for the library, which disposes of what it is given. */
const CONTRACTS: readonly string[] = ["CertificateAuthority", "Listener", "Storage", "Transport", "TransportFixture"];

interface Exported {
  readonly name: string;
  readonly file: string;
}

function parsed(file: string): ts.SourceFile {
  return ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true);
}

/** The names that the entries of the package export, and where each is declared. */
function exported(): readonly Exported[] {
  const { exports } = JSON.parse(readFileSync("package.json", "utf8")) as { exports: Record<string, unknown> };
  const entries = Object.values(exports).flatMap((target) => {
    const { default: path } = Object(target) as { readonly default?: string };
    return path === undefined ? [] : [path.replace(/^\.\/dist\/(.*)\.js$/, "src/$1.ts")];
  });
  return entries.flatMap((entry) =>
    parsed(entry).statements.flatMap((statement) => {
      const isOwn =
        (ts.isClassDeclaration(statement) || ts.isInterfaceDeclaration(statement)) &&
        statement.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
      const own = isOwn ? [statement.name?.text ?? ""] : [];
      if (!ts.isExportDeclaration(statement)) return own.map((name) => ({ name, file: entry }));
      const { moduleSpecifier, exportClause } = statement;
      if (moduleSpecifier === undefined || !ts.isStringLiteral(moduleSpecifier)) return [];
      const file = posix.join(dirname(entry), moduleSpecifier.text.replace(/\.js$/, ".ts"));
      const clause = exportClause !== undefined && ts.isNamedExports(exportClause) ? exportClause.elements : [];
      return clause.map(({ name, propertyName }) => ({ name: (propertyName ?? name).text, file }));
    }),
  );
}

/** The parents of the classes and interfaces of a file, and whether each has a method `close`. */
function declarations(
  file: string,
): ReadonlyMap<string, { readonly bases: readonly string[]; readonly closes: boolean }> {
  const found = new Map<string, { readonly bases: readonly string[]; readonly closes: boolean }>();
  for (const statement of parsed(file).statements) {
    if (!ts.isClassDeclaration(statement) && !ts.isInterfaceDeclaration(statement)) continue;
    const bases = (statement.heritageClauses ?? []).flatMap(({ types }) =>
      types.map((type) => type.expression.getText()),
    );
    const members: readonly (ts.ClassElement | ts.TypeElement)[] = [...statement.members];
    const closes = members.some((member) => member.name?.getText() === "close");
    found.set(statement.name?.text ?? "", { bases, closes });
  }
  return found;
}

/** Contracts whose methods are called with a signal of their own place by the library alone. */
const POSITIONAL: readonly string[] = ["Storage.read", "Storage.pages", "Storage.changes"];

/** The methods of exported classes and interfaces, and the exported functions, that take a signal as a parameter of its own. */
function positionalSignals(names: readonly Exported[]): ReadonlySet<string> {
  const wanted = new Map<string, Set<string>>();
  for (const { name, file } of names) wanted.set(file, (wanted.get(file) ?? new Set()).add(name));
  const found = new Set<string>();
  const isSignal = ({ type }: ts.ParameterDeclaration): boolean => type?.getText() === "AbortSignal";
  for (const [file, of] of wanted) {
    for (const statement of parsed(file).statements) {
      if (ts.isFunctionDeclaration(statement) && of.has(statement.name?.text ?? "")) {
        if (statement.parameters.some(isSignal)) found.add(statement.name?.text ?? "");
      }
      if (!ts.isClassDeclaration(statement) && !ts.isInterfaceDeclaration(statement)) continue;
      const owner = statement.name?.text ?? "";
      if (!of.has(owner)) continue;
      for (const member of statement.members) {
        const name = member.name?.getText() ?? "";
        if (name.startsWith("#") || !(ts.isMethodDeclaration(member) || ts.isMethodSignature(member))) continue;
        if (member.parameters.some(isSignal)) found.add(`${owner}.${name}`);
      }
    }
  }
  return found;
}

describe("calls that wait or go on", () => {
  it("takes its signal in its options", () => {
    assert.deepEqual([...positionalSignals(exported())].sort(), [...POSITIONAL].sort());
  });

  it("needs no signal, and ends with the reason of the one it is given", async () => {
    const storage = memoryStorage();
    await using host = await createHost({ storage, transport: memoryNetwork().transport() });
    const first = async (watch: AsyncIterable<unknown>): Promise<boolean> => {
      for await (const _ of watch) return true;
      return false;
    };
    const ended = { signal: AbortSignal.abort(new Error("enough")) };
    for (const watch of [
      (options?: Abortable) => host.peerings.watch(options),
      (options?: Abortable) => host.trustBundles.watch(options),
      (options?: Abortable) => host.catalog.watch(options),
    ]) {
      assert.equal(await first(watch()), true);
      assert.equal(await first(watch(ended)), false);
    }
    const { revision } = host.catalog;
    assert.equal(await host.catalog.indexAfter(() => revision, revision - 1n), revision);
    await assert.rejects(
      host.catalog.indexAfter(() => revision, revision, ended),
      { message: "enough" },
    );
    await host.peerings.deleted("nobody", ended);
  });

  it("gives up a wait where the signal aborts first, and leaves no listener behind", async () => {
    const stop = new AbortController();
    const never = new Promise<void>(() => {});
    const waiting = unlessAborted(never, stop);
    stop.abort(new Error("enough"));
    await assert.rejects(waiting, { message: "enough" });
    await assert.rejects(unlessAborted(never, stop), { message: "enough" });
    const other = new AbortController();
    assert.equal(await unlessAborted(Promise.resolve(1), other), 1);
    await assert.rejects(unlessAborted(Promise.reject(new Error("no")), other), { message: "no" });
    assert.equal(getEventListeners(other.signal, "abort").length, 0);
    assert.equal(await unlessAborted(Promise.resolve(2), {}), 2);
  });
});

describe("what holds resources", () => {
  it("has close() wherever it can be disposed of", () => {
    const names = exported();
    assert.ok(names.length > 200 && names.some(({ name }) => name === "PeeringHost"));
    const missing: string[] = [];
    let looked = 0;
    const byFile = new Map([...new Set(names.map(({ file }) => file))].map((file) => [file, declarations(file)]));
    for (const { name, file } of names) {
      const { bases = [], closes = false } = byFile.get(file)?.get(name) ?? {};
      if (bases.includes("Closable")) looked++;
      const disposable = bases.some((base) => /^(Async)?Disposable$/.test(base));
      if (disposable && !closes && name !== "Closable" && !CONTRACTS.includes(name)) missing.push(`${name} in ${file}`);
    }
    assert.ok(looked > 10, `${looked} are closable`);
    assert.deepEqual([...new Set(missing)], []);
  });

  it("knows contracts that exist", () => {
    const names = new Set(exported().map(({ name }) => name));
    assert.deepEqual(
      CONTRACTS.filter((name) => !names.has(name)),
      [],
    );
  });

  it("is closed by close(), and may be closed again and disposed of afterwards", async () => {
    await using directory = await temporaryDirectory();
    await using keeping = memoryStorage();
    const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport() });
    const rpc = peeringRpc(host);
    const network = memoryNetwork();
    const memory = memoryStorage();
    const fixed = fixedAuthority({ trustDomain: "11111111-2222-3333-4444-555555555555.consul" });
    const mesh = { service: "web", listen: "127.0.0.1:0" } as const;
    const closables: Readonly<Record<string, Closable>> = {
      tcp: await meshListener(host, { ...mesh, onConnection: () => {} }),
      api: await meshListener(host, { ...mesh, onRequest: () => {} }),
      xds: await xdsServer(host, { listen: "127.0.0.1:0" }),
      http: await httpServer({ listen: "127.0.0.1:0", rpc }),
      dns: await dnsServer(host, { listen: "127.0.0.1:0" }),
      host,
      memory,
      level: await openLevel(directory.path),
      grpc: grpcTransport(),
      network: network.transport(),
      authority: await builtInAuthority({ storage: keeping }),
      fixed,
      bundles: await TrustBundleStore.open({ storage: keeping, authority: fixed }),
      peer: await fakePeer({ transport: network.transport() }),
    };
    for (const [name, closable] of Object.entries(closables)) {
      await closable.close();
      await closable.close();
      await closable[Symbol.asyncDispose]();
      assert.equal(typeof closable.close, "function", name);
    }
    await assert.rejects(memory.read([]), { code: "closed" });
    await assert.rejects(host.exports.delete(), { code: "closed" });
    // The directory is free again, so it can be opened.
    await (await openLevel(directory.path)).close();
    const client = new ConsulClient();
    client.close();
    client[Symbol.dispose]();
  });
});
