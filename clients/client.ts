import type { Processes } from "../interop/processes.js";
import type { Installation } from "./installation.js";
import type { Side } from "./side.js";

/** A program or library of others that was written for Consul, and what it must find at an agent. */
export interface Client {
  readonly name: string;
  /** The packages it is installed from, with their versions. */
  readonly packages: readonly string[];
  /** Directories of `clients` that are copied into its installation, beside the one with its name. Default: none. */
  readonly sources?: readonly string[];
  /** Whether the machine has what it is built with; a text says what is missing. Default: it has. */
  missing?(processes: Processes): Promise<string | undefined>;
  /** Fetches and builds it. Called once; what it leaves in the directory serves all later runs. */
  install(installation: Installation): Promise<void>;
  /** Puts it to work at one side. A check that is not told of has not been made. */
  run(installation: Installation, side: Side): Promise<readonly Outcome[]>;
  /** Checks that pass at Consul and fail at Peerage, each with the reason. */
  readonly differences: readonly Known[];
  /** Checks of a client's own test suite that fail at Consul as well, where they are run here. Default: none. */
  readonly failAtConsul?: readonly Known[];
  /** Checks that fail at some builds of Consul, and must pass at Peerage. Default: none. */
  readonly failAtSomeConsuls?: readonly Known[];
}

export interface Known {
  readonly reason: string;
  readonly checks: readonly string[];
}

/** The outcome of one check. */
export interface Outcome {
  readonly check: string;
  readonly passed: boolean;
  /** The result in place of the expected one. */
  readonly message: string;
}

/**
 * The output of a program of `clients`: a line `ok NAME` or `not ok NAME: MESSAGE` for each check. One that does not end well
 * has failed a check more, so that those it did not come to are missed.
 */
export function outcomesOf({ output, code }: { readonly output: string; readonly code: number }): readonly Outcome[] {
  const outcomes: Outcome[] = [];
  for (const line of output.split("\n")) {
    const [, not, check = "", message = ""] = /^(not )?ok ([^:]+)(?:: (.*))?$/.exec(line.trimEnd()) ?? [];
    if (check !== "") outcomes.push({ check, passed: not === undefined, message });
  }
  const ended = code === 0 && outcomes.length > 0;
  const message = ended ? "" : `exit code ${code} after ${outcomes.length} checks: ${output.slice(-2_000)}`;
  return [...outcomes, { check: "runs to its end", passed: ended, message }];
}

/** The output of `go test -v`: a check for each test of the package, those that were skipped aside. */
export function goTestOutcomes({
  output,
  code,
}: {
  readonly output: string;
  readonly code: number;
}): readonly Outcome[] {
  const outcomes = new Map<string, Outcome>();
  for (const [, result, check = ""] of output.matchAll(/^--- (PASS|FAIL): (\S+)/gm)) {
    outcomes.set(check, { check, passed: result === "PASS", message: result === "PASS" ? "" : said(output, check) });
  }
  const failed = [...outcomes.values()].some(({ passed }) => !passed);
  const ended = outcomes.size > 0 && (code === 0 || (failed && /^FAIL$/m.test(output) && !/^panic: /m.test(output)));
  const message = ended ? "" : `exit code ${code} after ${outcomes.size} tests: ${output.slice(-2_000)}`;
  return [...outcomes.values(), { check: "runs to its end", passed: ended, message }];
}

/** The same for a run of one test; none when it was skipped. */
export function goTestOutcome(
  result: { readonly output: string; readonly code: number },
  test: string,
): readonly Outcome[] {
  const outcome = goTestOutcomes(result).find(({ check }) => check === test);
  if (outcome !== undefined) return [outcome];
  if (result.code === 0) return [];
  const message = /^(?:panic: |FAIL).*$/m.exec(result.output)?.[0] ?? result.output.slice(-500);
  return [{ check: test, passed: false, message }];
}

/** The lines of a Go test that name a place in the source: those of its failures. */
function said(output: string, test: string): string {
  const lines = output.split("\n");
  const found: string[] = [];
  let current = "";
  for (const line of lines) {
    current = /^=== (?:RUN|CONT|NAME|PAUSE)\s+(\S+)/.exec(line)?.[1] ?? current;
    if (current.split("/")[0] === test && /^\s+\w+\.go:\d+:/.test(line)) found.push(line.trim());
  }
  return found.slice(-4).join(" | ");
}
