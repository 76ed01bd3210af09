import { type Client, outcomesOf } from "./client.js";
import { missingCommand } from "./installation.js";
import { KEY_VALUE } from "./not-served.js";

/** Two clients of Java programs, in a program of ours: `java-clients/src`. */
export const javaClients: Client = {
  name: "java-clients",
  packages: ["com.ecwid.consul:consul-api:1.4.5", "com.orbitz.consul:consul-client:1.5.3"],
  missing: (processes) => missingCommand(processes, "mvn", "-version"),
  install: async (installation) => {
    await installation.must("mvn", ["-q", "-B", "package"]);
  },
  async run(installation, side) {
    const args = ["-cp", "target/classes:target/dependency/*", "Main"];
    return outcomesOf(await installation.run("java", args, { env: side.environment }));
  },
  differences: [{ reason: KEY_VALUE, checks: ["ecwid key that is set", "orbitz key that is set"] }],
};
