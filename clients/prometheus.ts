import { type Client, outcomesOf } from "./client.js";
import { buildGoModule, GO_PROGRAMS, missingGo } from "./go.js";

/** Prometheus' discovery of Consul's services, in a program of ours: `prometheus/main.go`. */
export const prometheus: Client = {
  name: "prometheus",
  packages: ["github.com/prometheus/prometheus@v0.315.1"],
  sources: [GO_PROGRAMS],
  missing: missingGo,
  install: (installation) => buildGoModule(installation, "build", "-o", "discover", "."),
  async run(installation, side) {
    return outcomesOf(await installation.run(installation.path("discover"), [], { env: side.environment }));
  },
  differences: [],
};
