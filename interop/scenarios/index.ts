import type { Scenario } from "../scenario.js";
import { legacyScenarios } from "./legacy.js";
import { lifecycleScenarios } from "./lifecycle.js";
import { loadScenarios } from "./load.js";
import { meshScenarios } from "./mesh.js";
import { meshEnvoyScenarios } from "./mesh-envoy.js";
import { meshNodeScenarios } from "./mesh-node.js";
import { outageScenarios } from "./outages.js";
import { peeringScenarios } from "./peering.js";
import { serviceScenarios } from "./services.js";
import { trustScenarios } from "./trust.js";
import { wireScenarios } from "./wire.js";

/** Every scenario, in the order of the table. */
export const scenarios: readonly Scenario[] = [
  ...peeringScenarios,
  ...serviceScenarios,
  ...meshScenarios,
  ...meshNodeScenarios,
  ...meshEnvoyScenarios,
  ...lifecycleScenarios,
  ...trustScenarios,
  ...wireScenarios,
  ...outageScenarios,
  ...loadScenarios,
  ...legacyScenarios,
];
