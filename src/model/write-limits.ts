/** Bounds on one write: it is judged, compiled and stored in one go. */
export interface WriteLimits {
  /**
   * Values of one registration, config entry or prepared query, each element, and each member that says something, being one. Default
   * 100 000, twice what a body may have, for records have more than was given; beyond it, and the next four: RESOURCE_EXHAUSTED.
   */
  readonly recordValues: number;
  /** Characters of all texts of one query template, its pattern included, which are parsed when it is written. Default 65 536. */
  readonly templateCharacters: number;
  /** Characters of all texts of one query that a template is rendered to, whenever its name is asked for. Default 1 000 000. */
  readonly renderedCharacters: number;
  /**
   * Characters of the filters of all subsets of one `service-resolver`, which are parsed when it is written, and hold or not for each
   * instance. Default 65 536.
   */
  readonly filterCharacters: number;
  /** Characters of the certificate and the key of one `inline-certificate`, which are parsed in one go. Default 131 072. */
  readonly certificateCharacters: number;
}

export const defaultWriteLimits: WriteLimits = {
  recordValues: 100_000,
  templateCharacters: 65_536,
  renderedCharacters: 1_000_000,
  filterCharacters: 65_536,
  certificateCharacters: 131_072,
};

/** An object with more members is a map, which a caller filled; one with fewer may be a record that has all of its fields. */
const RECORD_MEMBERS = 64;

/** Whether something has more values than so many, fields of records that say nothing aside. Looks at no more than that. */
export function hasMoreValues(value: unknown, limit: number): boolean {
  const open: unknown[] = [value];
  let count = 1;
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (typeof next !== "object" || next === null) continue;
    const inside: readonly unknown[] = Array.isArray(next) ? next : membersIn(next);
    count += inside.length;
    if (count > limit) return true;
    for (const each of inside) if (typeof each === "object" && each !== null) open.push(each);
  }
  return false;
}

function membersIn(value: object): readonly unknown[] {
  const members: readonly unknown[] = Object.values(value);
  return members.length > RECORD_MEMBERS ? members : members.filter(saysSomething);
}

function saysSomething(value: unknown): boolean {
  if (typeof value !== "object") return value !== undefined && value !== "" && value !== 0 && value !== false;
  return value !== null && Object.keys(value).length > 0;
}
