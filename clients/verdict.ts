import type { Client, Outcome } from "./client.js";

/** The findings of a client at one side; undefined where it was not run. */
export type Found = readonly Outcome[] | undefined;

export interface Verdict {
  /** One line of the table. */
  readonly consul: string;
  readonly peerage: string;
  /** The differences, each with its reason where there is one. */
  readonly lines: readonly string[];
  /** Whether something is wrong that nobody has given a reason for. */
  readonly failed: boolean;
}

/** Judges what a client found at both sides by what is known of it. */
export function judge(
  client: Pick<Client, "differences" | "failAtConsul" | "failAtSomeConsuls">,
  consul: Found,
  peerage: Found,
): Verdict {
  const differences = reasonsOf(client.differences);
  const failures = reasonsOf(client.failAtConsul ?? []);
  const failuresOfSome = reasonsOf(client.failAtSomeConsuls ?? []);
  const lines: string[] = [];
  const wrong: string[] = [];
  const atConsul = new Map(consul?.map((outcome) => [outcome.check, outcome]));
  for (const { check, passed, message } of consul ?? []) {
    if (!passed && !failures.has(check) && !failuresOfSome.has(check))
      wrong.push(`${check} fails at Consul: ${message}`);
    if (passed && failures.has(check)) wrong.push(`${check} passes at Consul, though it is said to fail there`);
  }
  for (const { check, passed, message } of peerage ?? []) {
    if (failures.has(check)) continue;
    const reason = differences.get(check);
    if (!passed && reason === undefined) wrong.push(`${check} fails at Peerage: ${message}`);
    if (passed && reason !== undefined)
      wrong.push(`${check} passes at Peerage, though it is said to differ: ${reason}`);
    if (consul !== undefined && !atConsul.has(check)) wrong.push(`${check} was made at Peerage alone`);
  }
  const made = new Set(peerage?.map(({ check }) => check));
  if (peerage !== undefined) {
    for (const { check } of consul ?? []) if (!made.has(check)) wrong.push(`${check} was made at Consul alone`);
    for (const check of differences.keys())
      if (!made.has(check)) wrong.push(`${check} is said to differ and was not made`);
  }
  for (const { reason, checks } of client.differences) lines.push(`${checks.join(", ")}: ${reason}`);
  return {
    consul: countOf(consul, failures),
    peerage: countOf(peerage, failures),
    lines: [...lines, ...wrong.map((text) => `WRONG: ${text}`)],
    failed: wrong.length > 0,
  };
}

/** Checks that fail at Consul as well say nothing of either side. */
function countOf(found: Found, failures: ReadonlyMap<string, string>): string {
  if (found === undefined) return "-";
  const counted = found.filter(({ check }) => !failures.has(check));
  return `${counted.filter(({ passed }) => passed).length} of ${counted.length}`;
}

function reasonsOf(known: Client["differences"]): ReadonlyMap<string, string> {
  return new Map(known.flatMap(({ reason, checks }) => checks.map((check) => [check, reason] as const)));
}
