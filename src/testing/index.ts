export { type FixedAuthority, type FixedAuthorityOptions, fixedAuthority } from "./fixed-authority.js";
export { type SimulationOptions, type SimulationResult, simulate } from "./simulator/index.js";
export { type StorageSuiteOptions, storageSuite } from "./storage-suite.js";
export { type TransportFixture, transportSuite } from "./transport-suite.js";
