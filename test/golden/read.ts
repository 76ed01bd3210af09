import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A recorded file below test/golden. Tests run in the project's root, from its sources or from build/. */
export function readGolden(path: string): string {
  return readFileSync(join(process.cwd(), "test/golden", path), "utf8");
}
