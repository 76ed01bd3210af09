import { silentLogger } from "../../../src/base/environment.js";
import { ExportEngine } from "../../../src/exports/export-engine.js";
import type { Catalog } from "../../../src/stores/catalog.js";
import type { ConfigEntries } from "../../../src/stores/config-entries.js";

/** An export engine over a catalog of `dc1`. */
export function exportEngine(catalog: Catalog, configEntries: ConfigEntries): ExportEngine {
  return new ExportEngine({
    catalog,
    configEntries,
    datacenter: "dc1",
    trustDomain: "11111111-2222-3333-4444-555555555555.consul",
    connect: true,
    strictConsul: false,
    logger: silentLogger,
  });
}
