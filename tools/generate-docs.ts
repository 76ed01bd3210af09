import { mkdir, writeFile } from "node:fs/promises";
import { stateMachineDocument } from "./state-machine-document.js";

// Run from the package's folder, as npm scripts are.
await mkdir("docs", { recursive: true });
await writeFile("docs/state-machine.md", stateMachineDocument());
