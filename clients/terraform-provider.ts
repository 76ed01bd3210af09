import { cp } from "node:fs/promises";
import { join } from "node:path";
import { type Client, goTestOutcome, type Outcome } from "./client.js";
import { buildGoModule, missingGo } from "./go.js";
import type { Installation } from "./installation.js";
import { OPERATOR, SERVER_PORT, UNKNOWN_CA_KEY } from "./not-served.js";
import type { Side } from "./side.js";

/** A checkout of the provider's repository: the proxy of Go modules does not serve all that it needs by its name. */
const SOURCE = process.env["TERRAFORM_PROVIDER_SOURCE"] ?? "";

/** Tests of parts that Peerage does not serve at all: keys, and the management of ACLs. */
const NOT_SERVED = /ACL|Key/;
/** It passes or fails at either by the order in which Terraform deletes a provider of tokens and the intention that names it. */
const UNSETTLED = "TestAccConsulConfigEntryCE_basic";

/** Terraform's provider for Consul, with its own acceptance tests: the engine of Terraform is part of their process. */
export const terraformProvider: Client = {
  name: "terraform-provider",
  packages: ["github.com/hashicorp/terraform-provider-consul@ad24a45d"],
  async missing(processes) {
    if (SOURCE === "") return "TERRAFORM_PROVIDER_SOURCE names no checkout of terraform-provider-consul";
    return missingGo(processes);
  },
  async install(installation) {
    await cp(SOURCE, installation.directory, { recursive: true });
    await buildGoModule(installation, "test", "-c", "-o", "provider.test", "./consul");
  },
  async run(installation, side) {
    const listed = await installation.must(installation.path("provider.test"), ["-test.list", "."]);
    const all = listed.split("\n").filter((name) => name.startsWith("Test"));
    const tests = all.filter((name) => !NOT_SERVED.test(name) && name !== UNSETTLED);
    const outcomes: Outcome[] = [];
    // One after another: each starts agents at Consul's own ports.
    for (const test of tests) outcomes.push(...(await runTest(installation, side, test)));
    return outcomes;
  },
  differences: [
    { reason: OPERATOR, checks: ["TestAccConsulAutopilotConfig_basic"] },
    { reason: SERVER_PORT, checks: ["TestAccDataConsulServiceHealth"] },
    { reason: UNKNOWN_CA_KEY, checks: ["TestAccConsulCertificateAuthority"] },
  ],
};

async function runTest(installation: Installation, side: Side, test: string): Promise<readonly Outcome[]> {
  const env = { TF_ACC: "1", SKIP_REMOTE_DATACENTER_TESTS: "1", CONSUL_TEST_BINARY: join(side.path, "consul") };
  const args = ["-test.v", "-test.run", `^${test}$`];
  const cwd = installation.path("consul");
  return goTestOutcome(await installation.run(installation.path("provider.test"), args, { env, cwd }), test);
}
