/** A case as the map names it: `ch1 12`, `ch2 LC3`. */
export type CaseName = string;

/** The cases whose proof belongs to the library's core, transport, trust, command line, HTTP API, calls and DNS. */
export function coreCases(): readonly CaseName[] {
  return [
    ...numbered("ch1", [1, 119], [121, 123]),
    ...lettered("TOK", 10),
    ...lettered("ST", 23),
    ...lettered("LC", 21),
    ...lettered("CL", 7),
    ...lettered("RPC", 8),
    ...lettered("HT", 13),
    ...numbered("ch3", [1, 26], [32, 91], [93, 95], [97, 99]),
    ...numbered("ch4", [1, 86]),
  ];
}

function numbered(chapter: string, ...ranges: readonly (readonly [number, number])[]): readonly CaseName[] {
  return ranges.flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, index) => `${chapter} ${first + index}`),
  );
}

function lettered(prefix: string, count: number): readonly CaseName[] {
  return Array.from({ length: count }, (_, index) => `ch2 ${prefix}${index + 1}`);
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
