import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { it } from "node:test";
import { stateMachineDocument } from "../../../tools/state-machine-document.js";

it("docs/state-machine.md follows from the code; else run `npm run generate:docs`", async () => {
  assert.equal(await readFile("docs/state-machine.md", "utf8"), stateMachineDocument());
});
