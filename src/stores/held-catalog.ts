import { PeeringError } from "../base/errors.js";
import type { StepMeter, Steps } from "../base/steps.js";
import type { AppliedDraft } from "../model/catalog-draft.js";
import {
  type CheckRecord,
  decodeCheckRecord,
  decodeInstanceRecord,
  decodeNodeRecord,
  decodeVirtualIpRecord,
  encodeCheckRecord,
  encodeInstanceRecord,
  encodeNodeRecord,
  encodeVirtualIpRecord,
  type Stamp,
  type StampOf,
} from "../model/catalog-record.js";
import { CatalogState, type RecordChange } from "../model/catalog-state.js";
import { RowDraft } from "../model/row-draft.js";
import { virtualIpKey } from "../model/virtual-ips.js";
import { CATALOG_PREFIX } from "../storage/keys.js";
import type { Expendable, Loader, Receiver, ReplicaContents } from "../storage/replica.js";
import type { Entry, Key, Write } from "../storage/storage.js";

/** A node. Names and ids in keys are lower-cased, as the catalog compares them. */
function nodeEntryKey(node: string): Key {
  return [...CATALOG_PREFIX, "node", node];
}

/** One instance of a service. Sorts behind every node, so that nodes are loaded first. */
function serviceEntryKey(node: string, id: string): Key {
  return [...CATALOG_PREFIX, "service", node, id];
}

/**
 * One check of a service on a node; `""`: of the node itself. Sorts before nodes and services, so that the owner of a check is
 * loaded with all of its checks.
 */
function checkEntryKey(node: string, service: string, id: string): Key {
  return [...CATALOG_PREFIX, "check", node, service, id];
}

/** Stands for the local cluster, which has no peer name. */
const LOCAL = "~";

function virtualIpEntryKey(peer: string, service: string): Key {
  return [...CATALOG_PREFIX, "virtual-ip", peer || LOCAL, service];
}

/** Virtual addresses of imported services are claimed again where they are missing. */
export const expendableAddresses: Expendable = {
  has: ([, type, peer]) => type === "virtual-ip" && peer !== undefined && peer !== LOCAL,
  incident: "virtual-ip-damaged",
  message: "the virtual address of an imported service is damaged: it gets another",
};

/** Weight of a record that is written in a step: so many fields, and one more for so many bytes of it. */
const RECORD_FIELDS = 20;
const FIELD_BYTES = 16;

/** The catalog in memory, and how its records are stored. */
export class HeldCatalog implements ReplicaContents {
  /** Another one after all entries were read again. */
  state: CatalogState = new CatalogState();
  /** Called after each change, with the services that changed: lower-cased names to the names as they are spelled. */
  onChange: (services: ReadonlyMap<string, string>) => void = () => {};

  /** The writes that store a draft of the state, made in steps; empty where it changes nothing. */
  *writesOf(draft: AppliedDraft, meter: StepMeter): Steps<readonly Write[]> {
    const writes: Write[] = [];
    for (const change of this.state.changes(draft)) {
      const write = writeOf(change, draft.stamp);
      writes.push(write);
      if (meter.isOver(RECORD_FIELDS + (write.value?.length ?? 0) / FIELD_BYTES)) yield;
    }
    return writes;
  }

  /** The state takes over a draft of it. */
  take(draft: AppliedDraft, revision: bigint): void {
    this.onChange(this.state.apply(draft, revision).services);
  }

  load(): Loader {
    const loading = new Loading();
    return {
      put: (entry) => loading.add(entry),
      damaged: () => {},
      remove: () => {},
      done: (revision) => {
        const before = this.state;
        this.state = loading.end(revision);
        const services = new Map<string, string>();
        for (const state of [before, this.state]) {
          for (const key of state.serviceKeys()) services.set(key, state.serviceName(key) ?? key);
        }
        this.onChange(services);
      },
    };
  }

  follow(): Receiver {
    const draft = new RowDraft(this.state);
    const stampOf = stamps();
    return {
      put: ({ key, value, revision }) => {
        const [, type, first = "", second = "", third = ""] = key;
        switch (type) {
          case "node":
            return draft.setNode(first, decodeNodeRecord(value, revision, stampOf, new Map()));
          case "service":
            return draft.setInstance(
              first,
              second,
              decodeInstanceRecord(first, second, value, revision, stampOf, new Map()),
            );
          case "check":
            return draft.setCheck(first, second, third, decodeCheckRecord(first, value, revision, stampOf));
          case "virtual-ip":
            return draft.setVirtualIp(peerOf(first), second, decodeVirtualIpRecord(peerOf(first), second, value));
          default:
            throw new TypeError("it is of no known type");
        }
      },
      remove: ([, type, first = "", second = "", third = ""]) => {
        if (type === "node") draft.setNode(first, undefined);
        else if (type === "service") draft.setInstance(first, second, undefined);
        else if (type === "check") draft.setCheck(first, second, third, undefined);
        else if (type === "virtual-ip") draft.setVirtualIp(peerOf(first), second, undefined);
      },
      done: (revision) => {
        draft.build();
        this.take(draft, revision);
      },
    };
  }
}

function peerOf(part: string): string {
  return part === LOCAL ? "" : part;
}

function writeOf(change: RecordChange, stamp: Stamp): Write {
  switch (change.type) {
    case "node":
      return {
        key: nodeEntryKey(change.nodeKey),
        value: change.record && encodeNodeRecord(change.record, stamp),
      };
    case "instance":
      return {
        key: serviceEntryKey(change.nodeKey, change.key),
        value: change.record && encodeInstanceRecord(change.record, stamp),
      };
    case "check":
      return {
        key: checkEntryKey(change.nodeKey, change.owner, change.key),
        value: change.record && encodeCheckRecord(change.record, change.nodeKey, stamp),
      };
    case "virtual-ip":
      return {
        key: virtualIpEntryKey(change.peer, change.service),
        value: change.record && encodeVirtualIpRecord(change.record),
      };
  }
}

/** Makes a state of stored entries, which come in the order of their keys. */
class Loading {
  readonly #state = new CatalogState();
  readonly #stampOf: StampOf = stamps();
  /** Checks that were loaded before their owners: by node, by service or `""`, by their own key. */
  readonly #checks = new Map<string, Map<string, Map<string, CheckRecord>>>();

  /** @throws why the entry is damaged. */
  add({ key, value, revision }: Entry): void {
    const [, type, first = "", second = "", third = ""] = key;
    switch (type) {
      case "check": {
        const ofNode = this.#checks.get(first) ?? new Map<string, Map<string, CheckRecord>>();
        const ofOwner = ofNode.get(second) ?? new Map<string, CheckRecord>();
        ofOwner.set(third, decodeCheckRecord(first, value, revision, this.#stampOf));
        this.#checks.set(first, ofNode.set(second, ofOwner));
        return;
      }
      case "node":
        this.#state.loadNode(first, decodeNodeRecord(value, revision, this.#stampOf, this.#take(first, "")));
        return;
      case "service": {
        const checks = this.#take(first, second);
        const record = decodeInstanceRecord(first, second, value, revision, this.#stampOf, checks);
        if (this.#state.loadInstance(record)) return;
        throw new TypeError("it has no node");
      }
      case "virtual-ip": {
        const peer = peerOf(first);
        this.#state.virtualIps.set(virtualIpKey(peer, second), decodeVirtualIpRecord(peer, second, value));
        return;
      }
      default:
        throw new TypeError("it is of no known type");
    }
  }

  /** @throws {PeeringError} `storage-failed`: a check belongs to nothing. */
  end(revision: bigint): CatalogState {
    for (const [node, ofNode] of this.#checks) {
      for (const [service, checks] of ofNode) {
        const [id = ""] = checks.keys();
        const key = checkEntryKey(node, service, id).join("/");
        throw new PeeringError(
          "storage-failed",
          `the stored entry ${key} has no ${service === "" ? "node" : "service"}`,
        );
      }
    }
    this.#state.loaded(revision);
    return this.#state;
  }

  #take(node: string, service: string): ReadonlyMap<string, CheckRecord> {
    const ofNode = this.#checks.get(node);
    const checks = ofNode?.get(service) ?? new Map<string, CheckRecord>();
    ofNode?.delete(service);
    return checks;
  }
}

/** Makes one stamp for each index. */
function stamps(): StampOf {
  const known = new Map<bigint, Stamp>();
  return (index) => {
    const stamp = known.get(index) ?? { index };
    known.set(index, stamp);
    return stamp;
  };
}
