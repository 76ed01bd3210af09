import { authorizeRightsScript, authorizeScript } from "./authorize-scripts.js";
import { centralConfigScript } from "./central-config-script.js";
import { chainRightsScript, chainScript } from "./chain-scripts.js";
import { filterScript } from "./filter-script.js";
import { destinationsScript, gatewayPagesScript } from "./gateway-scripts.js";
import { intentionRightsScript, intentionScript } from "./intention-scripts.js";
import { jwtScript } from "./jwt-script.js";
import { oddScript } from "./odd-scripts.js";
import type { Script } from "./scripted.js";

export const scripts: readonly Script[] = [
  intentionScript,
  intentionRightsScript,
  jwtScript,
  chainScript,
  chainRightsScript,
  centralConfigScript,
  authorizeScript,
  authorizeRightsScript,
  oddScript,
  gatewayPagesScript,
  destinationsScript,
  filterScript,
];
