import { createHash } from "node:crypto";
import type { Write } from "../../storage/storage.js";
import type { SimCluster } from "./cluster.js";
import type { Court } from "./record-judge.js";

/** An index of at most 1 may be that of nothing. */
const FIRST = 1n;

/**
 * Hears what readers of a host are told is its newest index, over all lives of its processes: an index that was told once is never told
 * again with another commit behind it (I28). The commits themselves are read from the disk.
 */
export class IndexJudge {
  readonly #court: Court;
  /** By cluster and revision: a digest of the commit that has it now. */
  readonly #commits = new Map<string, string>();
  /** The same of the commits that readers have seen. */
  readonly #told = new Map<string, string>();

  constructor(court: Court) {
    this.#court = court;
  }

  committed(cluster: SimCluster, writes: readonly Write[], revision: bigint): void {
    const digest = createHash("sha256");
    for (const { key, value } of writes) {
      digest.update(`${JSON.stringify(key)} ${value?.length ?? "deleted"} `);
      digest.update(value ?? "");
    }
    this.#commits.set(`${cluster.name} ${revision}`, digest.digest("hex"));
  }

  /** Reads as clients of the host do that wait for a change. */
  look(cluster: SimCluster): void {
    const { host } = cluster;
    if (host === undefined) return;
    this.#hear(cluster, host.catalog.revision, "the catalog");
    this.#hear(cluster, host.configEntries.index, "the config entries");
    this.#hear(cluster, host.imports.newestIndex, "all imports");
    for (const { name, modifyIndex } of host.view.peerings()) {
      this.#hear(cluster, modifyIndex, `peering ${name}`);
      this.#hear(cluster, host.imports.index({ peer: name }), `the imports of ${name}`);
      for (const service of host.imports.services({ peer: name })) {
        this.#hear(cluster, service.revision, `${service.name} of ${name}`);
      }
    }
  }

  #hear(cluster: SimCluster, index: bigint, what: string): void {
    if (index <= FIRST) return;
    const at = `${cluster.name} ${index}`;
    const commit = this.#commits.get(at) ?? "none";
    const told = this.#told.get(at);
    if (told === undefined) this.#told.set(at, commit);
    else if (told !== commit) {
      this.#court.fail(`${cluster.name}: index ${index} of ${what} was given before, with another commit (I28)`);
    }
  }
}
