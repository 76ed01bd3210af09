import { readFileSync } from "node:fs";

/** A case as the page names it: `ch1 12`, `ch2 LC3`. */
export type CaseName = string;

/** A row of test/CASES.md. */
export interface CaseRow {
  readonly name: CaseName;
  /** The condition that must be true. */
  readonly text: string;
  /** Files that prove it, or why there are none. */
  readonly proof: string;
}

export const CASES_PAGE = "test/CASES.md";

/** The cases, as the page has them. */
export function readCases(): readonly CaseRow[] {
  return [...readFileSync(CASES_PAGE, "utf8").matchAll(/^\| (ch\d \w+) \| (.*) \| (.+) \|$/gm)].map(
    ([, name = "", text = "", proof = ""]) => ({ name, text, proof }),
  );
}

/** Whether tests are among the proofs of files like this: tests, scenarios with a real Consul, suites that are shipped. */
export function provesCases(file: string): boolean {
  return /\.test\.ts$|^interop\/scenarios\/.*\.ts$|^src\/testing\/(?:transport|storage)-suite\.ts$/.test(file);
}

/** The cases that a test file says it proves: "ch1 case 44", "ch3 cases 13 and 14", "ch1 cases 53 to 55", "LC3". */
export function mentionedCases(text: string): ReadonlySet<CaseName> {
  const found = new Set<CaseName>();
  for (const [, chapter, list = ""] of text.matchAll(/\b(ch\d) cases? ((?:\d+(?:, | and | to )?)+)/g)) {
    let previous = 0;
    let range = false;
    for (const [word] of list.matchAll(/\d+|to/g)) {
      if (word === "to") {
        range = true;
        continue;
      }
      const last = Number(word);
      for (let number = range ? previous + 1 : last; number <= last; number++) found.add(`${chapter} ${number}`);
      previous = last;
      range = false;
    }
  }
  for (const [name] of text.matchAll(/\b(?:CL|HT|LC|RPC|ST|TOK)\d+\b/g)) found.add(`ch2 ${name}`);
  return found;
}
