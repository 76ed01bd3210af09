import { asPeeringError, PeeringError } from "../base/errors.js";
import type { Steps } from "../base/steps.js";
import { payloadDigest, payloadDigestSteps, SIDECAR_SUFFIX } from "../payload/exported-payload.js";
import { nodeDigestSteps, nodeDigests } from "../payload/node-digest.js";
import {
  canonicalSteps,
  defaultPayloadLimits,
  inspectionSteps,
  inspectPayload,
  noPayloadLimits,
  type PayloadLimits,
  type PayloadSummary,
  serviceKeys,
} from "../payload/payload-inspection.js";
import { lowerCase } from "../syntax/names.js";
import { StatusCode } from "../wire/status.js";
import {
  type ImportTotals,
  indexBytesOf,
  type PeerIndex,
  type ServiceHead,
  type StoredService,
} from "./import-index.js";

/** Bounds on the data that peers can make us hold. Data beyond one are refused by name; the rest stays (D-56). Consul has none. */
export interface ImportLimits extends PayloadLimits {
  /** Services that one peer exports to us. Default 200 000. */
  readonly servicesPerPeer: number;
  /** Instances of one peer, of all its services together. Default 500 000. */
  readonly instancesPerPeer: number;
  /** Bytes that are stored of one peer. Default 256 MiB. */
  readonly payloadBytesPerPeer: number;
  /** The same of all peers together. Default 1 GiB. */
  readonly payloadBytesInAll: number;
  /**
   * Bytes of memory, about, for the index of the services of one peer, without their payloads: 400 for a service, 90 for
   * each node it is on, and 140 for a node, with their names. Default 64 MiB.
   */
  readonly indexBytesPerPeer: number;
  /** The same of all peers together. Default 128 MiB. */
  readonly indexBytesInAll: number;
  /**
   * Bytes of memory, about, for what lists show of services, of all peers that somebody lists: 400 for a service, with its texts. More is
   * read and decoded for each list. Default 64 MiB.
   */
  readonly summaryBytesInAll: number;
}

const MiB = 1024 * 1024;

export const defaultImportLimits: ImportLimits = {
  ...defaultPayloadLimits,
  servicesPerPeer: 200_000,
  instancesPerPeer: 500_000,
  payloadBytesPerPeer: 256 * MiB,
  payloadBytesInAll: 1024 * MiB,
  indexBytesPerPeer: 64 * MiB,
  indexBytesInAll: 128 * MiB,
  summaryBytesInAll: 64 * MiB,
};

/** A message of a peer: all instances of one service, or the names of all services it exports now. */
export type ImportItem =
  | { readonly type: "service"; readonly name: string; readonly value: Uint8Array }
  | { readonly type: "list"; readonly names: readonly string[] };

export interface PlannedWrite {
  readonly head: ServiceHead;
  readonly value: Uint8Array;
}

/** Amounts that services count against the limits. */
interface Share {
  services: number;
  instances: number;
  payloadBytes: number;
  indexBytes: number;
}

/** A payload that needs no steps: most are so small, and steps cost memory and time of their own. */
const SMALL_PAYLOAD = 16 * 1024;

/** Planned in one step, where payloads are small: a process that has done little of it yet takes ten times as long as later. */
const STEP_BYTES = 16 * 1024;

/** Names looked at in one step. */
const NAMES_BATCH = 5_000;

/** The writes that follow from messages of a peer. Planning writes nothing. */
export class ImportPlan {
  readonly #index: PeerIndex;
  readonly #totals: ImportTotals;
  readonly #limits: ImportLimits;
  /** By key; undefined: the service goes. In the order in which they are to be committed. */
  readonly writes: Map<string, PlannedWrite | undefined> = new Map();
  /** The growth of the peer's amounts by this plan, or an upper bound of it. */
  readonly #growth: Share = { services: 0, instances: 0, payloadBytes: 0, indexBytes: 0 };

  readonly #payloadBytes: number;

  /** @param payloadBytes - of one service, which the storage takes. */
  constructor(index: PeerIndex, totals: ImportTotals, limits: ImportLimits, payloadBytes: number) {
    this.#index = index;
    this.#totals = totals;
    this.#limits = limits;
    this.#payloadBytes = payloadBytes;
  }

  /**
   * Plans the valid items, in this order.
   * @returns for each item undefined, or why nothing of it is applied.
   */
  *steps(items: readonly ImportItem[]): Steps<readonly (PeeringError | undefined)[]> {
    const results: (PeeringError | undefined)[] = [];
    let bytes = 0;
    for (const item of items) {
      if (item.type === "list") {
        yield* this.#planList(item.names);
        results.push(undefined);
        continue;
      }
      results.push(yield* this.#planService(item.name, item.value));
      bytes += item.value.length;
      if (bytes < STEP_BYTES) continue;
      bytes = 0;
      yield;
    }
    return results;
  }

  *#planService(name: string, value: Uint8Array): Steps<PeeringError | undefined> {
    const isSmall = value.length <= SMALL_PAYLOAD;
    let summary: PayloadSummary;
    try {
      summary = isSmall ? inspectPayload(value, name, this.#limits) : yield* inspectionSteps(value, name, this.#limits);
    } catch (error) {
      return asPeeringError(error, "invalid-message");
    }
    if (summary.instances === 0) {
      const key = serviceKeys(name).find((candidate) => this.#known(candidate) !== undefined);
      if (key !== undefined) this.#set(key, undefined);
      return undefined;
    }
    const service = lowerCase(summary.service);
    // The same text as the resource's, mostly, which others keep: it is kept once then.
    const key = service === name ? name : service;
    const canonical = summary.sorted ? value : yield* canonicalSteps(value);
    const digest = isSmall ? payloadDigest(canonical) : yield* payloadDigestSteps(canonical);
    if (this.#known(key) === digest) return undefined;
    const { nodes } = summary;
    const digests = isSmall ? nodeDigests(canonical, nodes) : yield* nodeDigestSteps(canonical, nodes);
    const head = headOf(key, { summary, canonical, digest, digests });
    const known = this.#shareOf(key);
    const reason = this.#beyond(head, known);
    if (reason !== undefined) {
      return new PeeringError(
        "resource-exhausted",
        `did not increment imported services count for service=${JSON.stringify(name)}: failed to store payload: ${reason}`,
        { status: StatusCode.Internal },
      );
    }
    this.#set(key, { head, value }, known);
    return undefined;
  }

  /** A list creates nothing: it removes services that it does not name. */
  *#planList(names: readonly string[]): Steps<void> {
    // The first list of a stream comes ahead of the services, and removes nothing.
    if (this.writes.size === 0 && this.#index.size === 0) return;
    const allowed = new Set<string>();
    for (const [index, name] of names.entries()) {
      if (index % NAMES_BATCH === NAMES_BATCH - 1) yield;
      for (const key of serviceKeys(name)) allowed.add(key);
    }
    const isAllowed = (key: string): boolean =>
      allowed.has(key) || (key.endsWith(SIDECAR_SUFFIX) && allowed.has(key.slice(0, -SIDECAR_SUFFIX.length)));
    for (const key of [...this.writes.keys()]) if (!isAllowed(key)) this.#set(key, undefined);
    let looked = 0;
    for (const key of this.#index.keys()) {
      if (++looked % NAMES_BATCH === 0) yield;
      if (!isAllowed(key)) this.#set(key, undefined);
    }
  }

  /** The digest of the planned version of a service, else of the stored one. */
  #known(key: string): string | undefined {
    return this.writes.has(key) ? this.writes.get(key)?.head.digest : this.#index.get(key)?.digest;
  }

  /** @param known - the planned or stored version under the key. */
  #set(key: string, write: PlannedWrite | undefined, known: Share | undefined = this.#shareOf(key)): void {
    if (known !== undefined) this.#grow(known, -1);
    if (write !== undefined) this.#grow(shareOf(write.head), 1);
    // The later one speaks for its nodes, so it comes last.
    this.writes.delete(key);
    this.writes.set(key, write);
  }

  #grow({ services, instances, payloadBytes, indexBytes }: Share, sign: 1 | -1): void {
    const growth = this.#growth;
    growth.services += sign * services;
    growth.instances += sign * instances;
    growth.payloadBytes += sign * payloadBytes;
    growth.indexBytes += sign * indexBytes;
  }

  /** The share of the limits that the planned version of a service takes, else the stored one. */
  #shareOf(key: string): Share | undefined {
    if (this.writes.has(key)) {
      const head = this.writes.get(key)?.head;
      return head && shareOf(head);
    }
    const stored = this.#index.get(key);
    return stored && shareOfStored(stored);
  }

  /** The limit that a service would exceed in place of its known version. One that takes no more than before is accepted. */
  #beyond(head: ServiceHead, known: Share | undefined): string | undefined {
    const index = this.#index;
    const totals = this.#totals;
    const limits = this.#limits;
    const growth = this.#growth;
    const exceeds = (more: number, has: number, planned: number, most: number): boolean =>
      more > 0 && has + planned + more > most;
    if (exceeds(known === undefined ? 1 : 0, index.size, growth.services, limits.servicesPerPeer)) {
      return `more than ${limits.servicesPerPeer} services of one peer`;
    }
    const instances = head.instances - (known?.instances ?? 0);
    if (exceeds(instances, index.instances, growth.instances, limits.instancesPerPeer)) {
      return `more than ${limits.instancesPerPeer} instances of one peer`;
    }
    if (head.bytes > this.#payloadBytes)
      return `more than ${this.#payloadBytes} bytes, which are all that the storage takes`;
    const bytes = head.bytes - (known?.payloadBytes ?? 0);
    if (exceeds(bytes, index.payloadBytes, growth.payloadBytes, limits.payloadBytesPerPeer)) {
      return `more than ${limits.payloadBytesPerPeer} bytes of one peer`;
    }
    if (exceeds(bytes, totals.payloadBytes, growth.payloadBytes, limits.payloadBytesInAll)) {
      return `more than ${limits.payloadBytesInAll} bytes of all peers`;
    }
    const memory = indexBytesOf(head) - (known?.indexBytes ?? 0);
    if (exceeds(memory, index.indexBytes, growth.indexBytes, limits.indexBytesPerPeer)) {
      return `more than ${limits.indexBytesPerPeer} bytes of memory for names and nodes of one peer`;
    }
    if (exceeds(memory, totals.indexBytes, growth.indexBytes, limits.indexBytesInAll)) {
      return `more than ${limits.indexBytesInAll} bytes of memory for names and nodes of all peers`;
    }
    return undefined;
  }
}

/** The head of a stored payload. @throws {PeeringError} `invalid-message`: it is not that service. */
export function* storedHeadSteps(key: string, payload: Uint8Array): Steps<ServiceHead> {
  const isSmall = payload.length <= SMALL_PAYLOAD;
  const summary = isSmall
    ? inspectPayload(payload, key, noPayloadLimits)
    : yield* inspectionSteps(payload, key, noPayloadLimits);
  if (summary.instances === 0 || lowerCase(summary.service) !== key) {
    throw new PeeringError("invalid-message", "it is not that service");
  }
  const canonical = summary.sorted ? payload : yield* canonicalSteps(payload);
  const digest = isSmall ? payloadDigest(canonical) : yield* payloadDigestSteps(canonical);
  const { nodes } = summary;
  const digests = isSmall ? nodeDigests(canonical, nodes) : yield* nodeDigestSteps(canonical, nodes);
  return headOf(key, { summary, canonical, digest, digests });
}

interface Description {
  readonly summary: PayloadSummary;
  /** The payload, in order. */
  readonly canonical: Uint8Array;
  /** Of that payload. */
  readonly digest: string;
  /** Of its nodes. */
  readonly digests: readonly number[];
}

function headOf(key: string, { summary, canonical, digest, digests }: Description): ServiceHead {
  const { service, instances, read, nodes, mesh } = summary;
  return {
    key,
    name: service,
    digest,
    instances,
    apart: read === nodes.length,
    bytes: canonical.length,
    mesh,
    nodes: nodes.map(({ name }) => name),
    digests,
  };
}

function shareOf(head: ServiceHead): Share {
  const { instances, bytes } = head;
  return { services: 1, instances, payloadBytes: bytes, indexBytes: indexBytesOf(head) };
}

function shareOfStored({ key, name, mesh, instances, bytes, holds }: StoredService): Share {
  const indexBytes = indexBytesOf({ key, name, mesh, nodes: holds.map(({ node }) => node.name) });
  return { services: 1, instances, payloadBytes: bytes, indexBytes };
}
