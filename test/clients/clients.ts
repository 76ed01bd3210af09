import type { Client } from "./client.js";
import { nodeConsul } from "./node-consul.js";

/** In the order in which they are run. */
export const clients: readonly Client[] = [nodeConsul];
