import { type Client, goTestOutcomes } from "./client.js";
import { buildGoModule, missingGo } from "./go.js";

/** testutil, with which Go programs start a Consul in their tests, in tests of ours: `go-testutil/main_test.go`. */
export const goTestutil: Client = {
  name: "go-testutil",
  packages: ["github.com/hashicorp/consul/sdk@v0.16.3"],
  missing: missingGo,
  install: (installation) => buildGoModule(installation, "test", "-c", "-o", "testutil.test", "."),
  async run(installation, side) {
    const env = { PATH: `${side.path}:${process.env["PATH"] ?? ""}` };
    return goTestOutcomes(await installation.run(installation.path("testutil.test"), ["-test.v"], { env }));
  },
  differences: [],
};
