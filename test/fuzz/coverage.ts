import { Session } from "node:inspector/promises";

/** Which blocks of the sources run, as V8 counts them in this process. */
export class Coverage implements AsyncDisposable {
  readonly #session = new Session();

  static async start(): Promise<Coverage> {
    const coverage = new Coverage();
    coverage.#session.connect();
    await coverage.#session.post("Profiler.enable");
    await coverage.#session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
    return coverage;
  }

  /** The blocks that have run since the last look. */
  async look(): Promise<ReadonlySet<string>> {
    const { result } = await this.#session.post("Profiler.takePreciseCoverage");
    const ran = new Set<string>();
    for (const { url, functions } of result) {
      if (!/\/(?:src|dist)\/(?!testing\/)/.test(url) || url.includes("node_modules")) continue;
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) {
          if (count > 0) ran.add(`${url}:${startOffset}-${endOffset}`);
        }
      }
    }
    return ran;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session.post("Profiler.stopPreciseCoverage");
    this.#session.disconnect();
  }
}
