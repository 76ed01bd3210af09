export type { ForcedCrash } from "./sim-world.js";
export { type SimulationOptions, type SimulationResult, simulate } from "./world.js";
