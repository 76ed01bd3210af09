import type { Client } from "./client.js";
import { consulCli } from "./consul-cli.js";
import { consulTemplate } from "./consul-template.js";
import { goApi } from "./go-api.js";
import { goTestutil } from "./go-testutil.js";
import { javaClients } from "./java-clients.js";
import { nodeConsul } from "./node-consul.js";
import { nodeConsulSuite } from "./node-consul-suite.js";
import { prometheus } from "./prometheus.js";
import { pyConsul } from "./py-consul.js";
import { springCloudConsul } from "./spring-cloud-consul.js";
import { terraformProvider } from "./terraform-provider.js";
import { traefik } from "./traefik.js";

/** In the order in which they are run. */
export const clients: readonly Client[] = [
  consulCli,
  nodeConsul,
  nodeConsulSuite,
  pyConsul,
  consulTemplate,
  prometheus,
  traefik,
  terraformProvider,
  javaClients,
  springCloudConsul,
  goTestutil,
  goApi,
];
