import { type Client, outcomesOf } from "./client.js";
import { EVENTS, GOSSIP, KEY_VALUE, SESSIONS } from "./not-served.js";

/** The client of Node programs. `node-consul/checks.mjs` calls all of it. */
export const nodeConsul: Client = {
  name: "node-consul",
  packages: ["consul@2.0.1"],
  async install(installation) {
    await installation.must("npm", ["install", "--prefix", ".", "--ignore-scripts", "--save-exact", ...this.packages]);
  },
  async run(installation, side) {
    return outcomesOf(await installation.run(process.execPath, ["checks.mjs"], { env: side.environment }));
  },
  differences: [
    { reason: KEY_VALUE, checks: ["kv.set, get, keys, del", "transaction.create with a key"] },
    { reason: SESSIONS, checks: ["session.create, get, renew, destroy"] },
    { reason: EVENTS, checks: ["event.fire and list"] },
    { reason: GOSSIP, checks: ["agent.forceLeave of a stranger fails"] },
  ],
};
