import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { storageSuite } from "../../src/testing/storage-suite.js";

const limits = { writes: 16, bytes: 64 * 1024 };

storageSuite("memory", async () => memoryStorage());
storageSuite("memory with limits", async () => memoryStorage({ limits }));
storageSuite("level", (directory) => openLevel(directory, { limits }), {
  durable: true,
  files: true,
  losesRelaxed: true,
});
