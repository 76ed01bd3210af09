import { openLevel } from "../../src/storage/level.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { storageSuite } from "../../src/testing/storage-suite.js";

storageSuite("memory", async () => memoryStorage());
storageSuite("level", (directory) => openLevel(directory), { durable: true, files: true, losesRelaxed: true });
