import type { Client } from "./client.js";
import { consulCli } from "./consul-cli.js";
import { consulTemplate } from "./consul-template.js";
import { goApi } from "./go-api.js";
import { goTestutil } from "./go-testutil.js";
import { javaClients } from "./java-clients.js";
import { nodeConsul } from "./node-consul.js";
import { prometheus } from "./prometheus.js";
import { springCloudConsul } from "./spring-cloud-consul.js";

/** In the order in which they are run. */
export const clients: readonly Client[] = [
  consulCli,
  nodeConsul,
  consulTemplate,
  prometheus,
  javaClients,
  springCloudConsul,
  goTestutil,
  goApi,
];
