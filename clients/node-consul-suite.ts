import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isJsonObject, type Json, memberOf } from "../src/client/json-reader.js";
import type { Client, Outcome } from "./client.js";
import type { Installation } from "./installation.js";
import { GOSSIP, SCRIPTS, SERVER_PORT } from "./not-served.js";

/** A checkout of the client's repository: its package holds no tests. */
const SOURCE = process.env["NODE_CONSUL_SOURCE"] ?? "";

/** Of parts that Peerage serves: `event`, `kv`, `session`, `transaction` and `watch` use keys, sessions or events before each test. */
const FILES = ["agent", "catalog", "health", "status"];

/** How the suite learns that a server is ready: it writes a key. A read of the catalog needs a leader, too. */
const READY = 'client.kv.set("check", "ok")';
const RESULTS = "results.json";

/** The client of Node programs, with its own acceptance tests, which start three agents with Consul's flags. */
export const nodeConsulSuite: Client = {
  name: "node-consul-suite",
  packages: [
    ...["papi@1.1.0", "uuid@10.0.0", "async@3.2.6", "debug@4.4.3", "mocha@10.8.2", "should@13.2.3", "temp@0.9.4"],
  ],
  async missing() {
    return SOURCE === "" ? "NODE_CONSUL_SOURCE names no checkout of node-consul 2.0.1" : undefined;
  },
  async install(installation) {
    await installation.must("npm", ["install", "--prefix", ".", "--ignore-scripts", "--save-exact", ...this.packages]);
    for (const directory of ["lib", "test"]) {
      await cp(join(SOURCE, directory), installation.path(directory), { recursive: true });
    }
    const helper = installation.path("test/acceptance/helper.js");
    const text = await readFile(helper, "utf8");
    if (!text.includes(READY)) throw new Error(`${helper} has changed: it does not hold ${READY}`);
    await writeFile(helper, text.replace(READY, "client.catalog.node.list()"));
  },
  async run(installation, side) {
    const env = { ACCEPTANCE: "true", CONSUL_BIN: join(side.path, "consul") };
    const reporter = ["--reporter", "json", "--reporter-option", `output=${RESULTS}`];
    const files = FILES.map((name) => `test/acceptance/${name}.js`);
    const mocha = installation.path("node_modules/mocha/bin/mocha.js");
    const args = [mocha, "--check-leaks", "--timeout", "30000", ...reporter, ...files];
    const { output, code } = await installation.run(process.execPath, args, { env });
    const outcomes = await resultsOf(installation);
    // As many as failed, or the suite did not come to its end.
    const failed = outcomes.filter(({ passed }) => !passed).length;
    const ended = outcomes.length > 0 && code === failed;
    const message = ended ? "" : `exit code ${code} after ${outcomes.length} tests: ${output.slice(-2_000)}`;
    return [...outcomes, { check: "runs to its end", passed: ended, message }];
  },
  differences: [
    {
      reason: GOSSIP,
      checks: ["Agent join should make node2 join cluster", "Agent forceLeave should remove node2 from the cluster"],
    },
    { reason: SCRIPTS, checks: ["Agent service register should create service with script check"] },
    {
      reason: SERVER_PORT,
      checks: ["Status leader should return leader", "Status peers should return peers"],
    },
  ],
};

/** The tests that passed and failed, by their full titles. */
async function resultsOf(installation: Installation): Promise<readonly Outcome[]> {
  const results: Json = JSON.parse(await readFile(installation.path(RESULTS), "utf8"));
  const tests = isJsonObject(results) ? memberOf(results, "tests") : undefined;
  return (Array.isArray(tests) ? tests : []).filter(isJsonObject).map((test) => {
    const error = memberOf(test, "err");
    const text = isJsonObject(error) ? memberOf(error, "message") : undefined;
    const message = typeof text === "string" ? text : "";
    return { check: String(memberOf(test, "fullTitle")), passed: message === "", message };
  });
}
