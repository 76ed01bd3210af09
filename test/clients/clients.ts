import type { Client } from "./client.js";
import { consulTemplate } from "./consul-template.js";
import { javaClients } from "./java-clients.js";
import { nodeConsul } from "./node-consul.js";
import { prometheus } from "./prometheus.js";

/** In the order in which they are run. */
export const clients: readonly Client[] = [nodeConsul, consulTemplate, prometheus, javaClients];
