export { type StorageSuiteOptions, storageSuite } from "./storage-suite.js";
