// Prints the rows of test/CASES.md that the tests themselves answer for.
//
//   node --import tsx test/tools/cases.ts
import { readdirSync, readFileSync } from "node:fs";
import { coreCases, mentionedCases } from "../support/cases.js";

const files = readdirSync("test", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".test.ts") || /^interop.scenarios/.test(name))
  .map((name) => `test/${name.replaceAll("\\", "/")}`)
  .concat("src/testing/transport-suite.ts", "src/testing/storage-suite.ts")
  .sort();
const proofs = new Map<string, string[]>();
for (const file of files) {
  for (const name of mentionedCases(readFileSync(file, "utf8"))) proofs.set(name, [...(proofs.get(name) ?? []), file]);
}
for (const name of coreCases()) {
  const found = proofs.get(name) ?? [];
  console.log(`| ${name} | ${found.length === 0 ? "?" : found.map((file) => `\`${file}\``).join(", ")} |`);
}
