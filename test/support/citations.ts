import { readdirSync, readFileSync } from "node:fs";

/** Files that people read or run: code, tests, examples, and Markdown. Recordings and generated code are none. */
export function writtenFiles(): readonly string[] {
  const folders = ["src", "test", "examples", "docs", "proto", "interop", "clients", "bench", "soak", "tools"];
  const inFolders = folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => `${folder}/${name.replaceAll("\\", "/")}`),
  );
  const pages = readdirSync(".").filter((name) => name.endsWith(".md"));
  return [...inFolders, ...pages].filter(
    (name) => /\.(?:ts|mjs|md|proto|go|py|java)$/.test(name) && !/\/(?:gen|golden|node_modules)\//.test(name),
  );
}

/** Where each match of `pattern`, a global expression, is found: the text of its first group, or of all of it, to files. */
export function citations(files: readonly string[], pattern: RegExp): ReadonlyMap<string, ReadonlySet<string>> {
  const found = new Map<string, Set<string>>();
  for (const file of files) {
    for (const [whole, group] of readFileSync(file, "utf8").matchAll(pattern)) {
      const text = group ?? whole;
      found.set(text, (found.get(text) ?? new Set()).add(file));
    }
  }
  return found;
}
