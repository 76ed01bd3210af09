import assert from "node:assert/strict";
import { Checks } from "./checks.js";
import { type Client, outcomesOf } from "./client.js";
import { missingCommand } from "./installation.js";

/** An application of Spring Cloud Consul: it registers itself, becomes healthy, discovers, and takes itself out again. */
export const springCloudConsul: Client = {
  name: "spring-cloud-consul",
  packages: [
    "org.springframework.boot:spring-boot-starter-parent:3.5.7",
    "org.springframework.cloud:spring-cloud-dependencies:2025.0.0",
  ],
  missing: (processes) => missingCommand(processes, "mvn", "-version"),
  install: async (installation) => {
    await installation.must("mvn", ["-q", "-B", "package"]);
  },
  async run(installation, side) {
    const result = await installation.run("java", ["-jar", "target/app.jar"], { env: side.environment });
    const checks = new Checks();
    await checks.check("it deregisters itself when it ends", async () => {
      const { value } = await side.alpha.client.health.service("spring-app");
      assert.deepEqual(value, []);
    });
    return [...outcomesOf(result), ...checks.outcomes];
  },
  differences: [],
};
