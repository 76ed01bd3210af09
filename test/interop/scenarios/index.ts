import type { Scenario } from "../scenario.js";
import { legacyScenarios } from "./legacy.js";
import { lifecycleScenarios } from "./lifecycle.js";
import { meshScenarios } from "./mesh.js";
import { peeringScenarios } from "./peering.js";
import { serviceScenarios } from "./services.js";
import { trustScenarios } from "./trust.js";

/** Every scenario, in the order of the table. */
export const scenarios: readonly Scenario[] = [
  ...peeringScenarios,
  ...serviceScenarios,
  ...meshScenarios,
  ...lifecycleScenarios,
  ...trustScenarios,
  ...legacyScenarios,
];
