import { createHash } from "node:crypto";
import fc from "fast-check";
import { SeededRandom } from "../../src/testing/simulator/scheduler.js";
import { Coverage } from "./coverage.js";
import { MAX_INPUT_BYTES, Mutator } from "./mutator.js";
import type { Target } from "./targets.js";

export interface FuzzOptions {
  readonly inputs: number;
  readonly seed: number;
  /** An input that takes longer, in milliseconds of this process, is a finding. */
  readonly slowMs: number;
  /** Whether inputs that run something new are kept. Default true; false shows what that is worth. */
  readonly guided?: boolean;
  /** Called with how far it is. */
  readonly progress?: (done: number, blocks: number, corpus: number) => void;
}

export interface Finding {
  readonly input: Buffer;
  readonly what: string;
}

export interface FuzzReport {
  readonly inputs: number;
  readonly refused: number;
  /** Blocks of the sources that have run. */
  readonly blocks: number;
  /** Inputs that were kept, since each ran something new. */
  readonly corpus: number;
  readonly findings: readonly Finding[];
}

/** Inputs between two looks at the coverage: a look costs as much as some hundred inputs. */
const BATCH = 512;
/** Findings that are told; one fault gives many. */
const MAX_FINDINGS = 20;
const STRUCTURED_SEEDS = 200;

/**
 * Feeds a target with recorded inputs, with structured ones, and with mutations of both. Inputs that run a block of the
 * sources that none before has run are kept, and mutated in turn.
 */
export async function fuzz(target: Target, options: FuzzOptions): Promise<FuzzReport> {
  const { inputs, seed, slowMs, guided = true } = options;
  const random = new SeededRandom(seed);
  const mutator = new Mutator(random, target.words, target.json);
  const corpus: Buffer[] = [
    ...target.corpus(),
    ...fc.sample(target.structured, { numRuns: STRUCTURED_SEEDS, seed }).map((made) => Buffer.from(made)),
    Buffer.alloc(0),
  ].map((input) => input.subarray(0, MAX_INPUT_BYTES));
  const findings: Finding[] = [];
  let refused = 0;
  const feed = (input: Buffer): void => {
    const begun = performance.now();
    try {
      // A copy: what is kept of an input must not be part of a pool that others write to.
      target.run(Buffer.from(input));
    } catch (error) {
      if (target.isRefusal(error)) refused++;
      else if (findings.length < MAX_FINDINGS)
        findings.push({ input, what: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    }
    const tookMs = performance.now() - begun;
    if (tookMs > slowMs && findings.length < MAX_FINDINGS && isSlow(target, input, slowMs)) {
      findings.push({ input, what: `took ${Math.round(tookMs)} ms` });
    }
  };
  await using coverage = await Coverage.start();
  for (const input of corpus) feed(input);
  const seen = new Set(await coverage.look());
  /** Those of `batch` that run something of `wanted`, one for each thing. */
  const interesting = async (batch: readonly Buffer[], wanted: Set<string>): Promise<readonly Buffer[]> => {
    for (const input of batch) attempt(target, input);
    const ran = await coverage.look();
    if (![...wanted].some((block) => ran.has(block))) return [];
    const [only] = batch;
    if (batch.length === 1 && only !== undefined) {
      for (const block of ran) wanted.delete(block);
      return [only];
    }
    const half = batch.length >>> 1;
    return [...(await interesting(batch.slice(0, half), wanted)), ...(await interesting(batch.slice(half), wanted))];
  };
  let done = corpus.length;
  while (done < inputs && findings.length < MAX_FINDINGS) {
    const batch = Array.from({ length: Math.min(BATCH, inputs - done) }, () =>
      mutator.mutate(corpus[random.below(corpus.length)] ?? Buffer.alloc(0), corpus),
    );
    for (const input of batch) feed(input);
    done += batch.length;
    const fresh = new Set([...(await coverage.look())].filter((block) => !seen.has(block)));
    for (const block of fresh) seen.add(block);
    if (guided && fresh.size > 0) corpus.push(...(await interesting(batch, fresh)));
    options.progress?.(done, seen.size, corpus.length);
  }
  return { inputs: done, refused, blocks: seen.size, corpus: corpus.length, findings };
}

function attempt(target: Target, input: Buffer): void {
  try {
    target.run(Buffer.from(input));
  } catch {
    // Judged when it was fed.
  }
}

/** Whether an input is slow each time: once may be the collector's, or another process's, turn. */
function isSlow(target: Target, input: Buffer, slowMs: number): boolean {
  return [1, 2, 3].every(() => {
    const begun = performance.now();
    attempt(target, input);
    return performance.now() - begun > slowMs;
  });
}

/** The name of a case. */
export function caseName(input: Buffer): string {
  return createHash("sha256").update(input).digest("hex").slice(0, 16);
}
