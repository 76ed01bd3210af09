import type { Scenario } from "../scenario.js";
import { peeringScenarios } from "./peering.js";

/** Every scenario, in the order of the table. */
export const scenarios: readonly Scenario[] = [...peeringScenarios];
