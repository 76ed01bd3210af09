// Writes into test/CASES.md which files prove each case, as the tests themselves say. A reason instead of files is kept.
//
//   node --import tsx tools/cases.ts
import { readFileSync, writeFileSync } from "node:fs";
import { CASES_PAGE, mentionedCases, provesCases, readCases } from "../test/support/cases.js";
import { writtenFiles } from "../test/support/citations.js";

const proofs = new Map<string, string[]>();
for (const file of writtenFiles().filter(provesCases).sort()) {
  for (const name of mentionedCases(readFileSync(file, "utf8"))) proofs.set(name, [...(proofs.get(name) ?? []), file]);
}
let page = readFileSync(CASES_PAGE, "utf8");
for (const { name, text, proof } of readCases()) {
  const files = proofs.get(name)?.map((file) => `\`${file}\``);
  page = page.replace(
    `| ${name} | ${text} | ${proof} |`,
    () => `| ${name} | ${text} | ${files?.join(", ") ?? proof} |`,
  );
}
writeFileSync(CASES_PAGE, page);
