import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import type { SourceEdit } from "./faults.js";

/** How often the snippet of an edit occurs in its file: once, or the list of faults is out of date. */
export function occurrences({ find }: SourceEdit, source: string): number {
  return source.split(find).length - 1;
}

/** @throws {Error} when the snippet is not there exactly once. */
export function plantedIn(source: string, edit: SourceEdit): string {
  const count = occurrences(edit, source);
  if (count !== 1) throw new Error(`${edit.file}: the snippet is there ${count} times: ${edit.find}`);
  // Not `replace`, which gives `$&` in the replacement a meaning.
  return source.split(edit.find).join(edit.replace);
}

/** The JavaScript that Node runs for a TypeScript file; types are not checked. @throws {Error} when it is no TypeScript. */
export function transpiled(source: string, file: string): string {
  const { outputText, diagnostics = [] } = ts.transpileModule(source, {
    fileName: file,
    reportDiagnostics: true,
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  const [error] = diagnostics;
  if (error !== undefined) throw new Error(`${file}: ${ts.flattenDiagnosticMessageText(error.messageText, " ")}`);
  return outputText;
}

/** Every TypeScript file under these folders, as paths from the root of the repository. */
export function sourcesUnder(folders: readonly string[]): readonly string[] {
  return folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
      .map((name) => join(folder, name)),
  );
}

export function readSource(file: string): string {
  return readFileSync(file, "utf8");
}
