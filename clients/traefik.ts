import { type Client, outcomesOf } from "./client.js";
import { buildGoModule, GO_PROGRAMS, missingGo } from "./go.js";

/** Traefik's provider of Consul's catalog, aware of the mesh too, in a program of ours: `traefik/main.go`. */
export const traefik: Client = {
  name: "traefik",
  packages: ["github.com/traefik/traefik/v3@v3.6.12"],
  sources: [GO_PROGRAMS],
  missing: missingGo,
  install: (installation) => buildGoModule(installation, "build", "-o", "discover", "."),
  async run(installation, side) {
    return outcomesOf(await installation.run(installation.path("discover"), [], { env: side.environment }));
  },
  differences: [],
};
