export { type SimulationOptions, type SimulationResult, simulate } from "./world.js";
