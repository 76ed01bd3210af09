import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { fuzz } from "./fuzzer.js";
import { targets } from "./targets.js";

/** A sample of what `npm run fuzz` does. */
const INPUTS = 5_000;
const SEED = 20_261_129;

for (const [name, target] of Object.entries(targets)) {
  describe(`what reads ${name}`, () => {
    it(`takes or refuses each of ${INPUTS} recorded, structured and mutated inputs`, async () => {
      const { findings, inputs, refused, blocks } = await fuzz(target, { inputs: INPUTS, seed: SEED, slowMs: 2_000 });
      assert.deepEqual(
        findings.map(({ input, what }) => `${input.toString("base64")}: ${what}`),
        [],
      );
      // Neither all good nor all bad, and guided by what has run.
      assert.ok(refused < inputs && blocks > 10, `${refused} of ${inputs} refused, ${blocks} blocks`);
    });

    const directory = `test/fuzz/cases/${name}`;
    const cases = existsSync(directory) ? readdirSync(directory) : [];
    for (const file of cases) {
      it(`takes or refuses what was found once: ${file}`, () => {
        try {
          target.run(readFileSync(`${directory}/${file}`));
        } catch (error) {
          assert.ok(target.isRefusal(error), String(error));
        }
      });
    }
  });
}
