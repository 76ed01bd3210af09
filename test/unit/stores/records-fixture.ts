import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { type Random, systemClock } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { machineryOf } from "../../../src/host/host.js";
import type { Peering } from "../../../src/peering/peering.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type {
  CommitOptions,
  Expectation,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
  Write,
} from "../../../src/storage/storage.js";
import { type EstablishingToken, PeeringRecords, type PeeringRecordsOptions } from "../../../src/stores/records.js";
import { virtualClock } from "../../../src/testing/simulator/scheduler.js";
import { plainSecretBox } from "../../../src/trust/secret-box.js";
import type { OpenMessage } from "../../../src/wire/messages.js";
import type { Status } from "../../../src/wire/status.js";
import type { Site, World } from "../../support/world.js";

/** Different bytes at every call, the same in every run. */
export function seededRandom(seed = 1): Random {
  let counter = 0;
  const bytes = (length: number): Uint8Array =>
    new Uint8Array(createHash("sha512").update(`${seed}/${counter++}`).digest().subarray(0, length));
  return { bytes, fraction: () => (bytes(1)[0] ?? 0) / 256 };
}

export type Fault =
  /** Refused, nothing written. */
  | "failed"
  /** No answer; nothing was written, or everything. */
  | "lost"
  | "committed-unanswered";

/** Memory storage whose next commits fail as they are told to. */
export class FaultyStorage implements Storage {
  readonly inner: Storage;
  readonly faults: Fault[] = [];
  readonly commits: { readonly writes: readonly Write[]; readonly expect: readonly Expectation[] }[] = [];
  /** Called before each commit is looked at. */
  beforeCommit: (() => Promise<unknown>) | undefined;

  constructor(inner: Storage = memoryStorage()) {
    this.inner = inner;
  }

  get limits(): StorageLimits {
    return this.inner.limits;
  }

  read(...given: Parameters<Storage["read"]>): Promise<Snapshot> {
    return this.inner.read(...given);
  }

  pages(...given: Parameters<Storage["pages"]>): AsyncIterable<StoragePage> {
    return this.inner.pages(...given);
  }

  async commit(
    writes: readonly Write[],
    expect: readonly Expectation[] = [],
    options?: CommitOptions,
  ): Promise<bigint> {
    const before = this.beforeCommit;
    this.beforeCommit = undefined;
    await before?.();
    const fault = this.faults.shift();
    if (fault === "failed") throw new PeeringError("storage-failed", "disk full");
    if (fault === "lost") throw new PeeringError("unavailable", "no answer");
    const revision = await this.inner.commit(writes, expect, options);
    this.commits.push({ writes, expect });
    if (fault === "committed-unanswered") throw new PeeringError("unavailable", "no answer");
    return revision;
  }

  changes(...given: Parameters<Storage["changes"]>): AsyncIterable<StorageChanges> {
    return this.inner.changes(...given);
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.inner[Symbol.asyncDispose]();
  }
}

/** Of every cluster here. */
export const OWN_TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul";

export interface Cluster {
  readonly storage: FaultyStorage;
  readonly records: PeeringRecords;
  /** The same storage after a restart. */
  restart(): Promise<PeeringRecords>;
}

export async function cluster(
  seed = 1,
  options: Partial<Pick<PeeringRecordsOptions, "secretBox">> = {},
): Promise<Cluster> {
  const storage = new FaultyStorage();
  let starts = 0;
  const open = (): Promise<PeeringRecords> =>
    PeeringRecords.open({
      storage,
      clock: { ...systemClock, wall: () => 1_700_000_000_000 },
      random: seededRandom(seed * 1_000 + starts++),
      secretBox: plainSecretBox,
      trustDomain: OWN_TRUST_DOMAIN,
      ...options,
    });
  return { storage, records: await open(), restart: open };
}

export type OpenVerdict =
  | { readonly verdict: "authorized"; readonly peering: Peering }
  | { readonly verdict: "refused"; readonly status: Status; readonly terminated: boolean };

/** The outcome of a stream that is opened with these words. */
export async function judged(records: PeeringRecords, open: OpenMessage): Promise<OpenVerdict> {
  const verdicts: OpenVerdict[] = [];
  await records.authorizeOpen(open, ({ peering, effects }) => {
    for (const effect of effects) {
      if (effect.type === "refuse-stream") {
        verdicts.push({ verdict: "refused", status: effect.status, terminated: effect.terminated });
      } else if (effect.type === "accept-stream" && peering !== undefined) {
        verdicts.push({ verdict: "authorized", peering });
      }
    }
  });
  const [verdict, ...others] = verdicts;
  assert.ok(verdict !== undefined && others.length === 0);
  return verdict;
}

export function tokenOf(peerId: string, changed: Partial<EstablishingToken> = {}): EstablishingToken {
  return {
    ca: ["token root\n"],
    manualServerAddresses: [],
    serverAddresses: ["10.0.0.1:8503"],
    serverName: "server.dc1.peering.a.consul",
    peerId,
    remote: { partition: "", datacenter: "dc1" },
    ...changed,
  };
}

export const REMOTE = { partition: "", datacenter: "dc2", locality: { region: "r", zone: "z" } };

/** Another process on the disk of a host, which follows it. */
export async function elsewhere(
  world: World,
  site: Site,
  work: (records: PeeringRecords) => Promise<unknown>,
): Promise<void> {
  const records = await PeeringRecords.open({
    storage: site.disk,
    clock: virtualClock(world.scheduler, { alive: true }),
    random: seededRandom(9),
    secretBox: plainSecretBox,
    trustDomain: site.authority.trustDomain,
  });
  await work(records);
  await records[Symbol.asyncDispose]();
  const { index } = records;
  await world.until(() => machineryOf(site.host).records.index >= index, "the host follows");
}
