import type { ResponseMessage } from "../wire/messages.js";
import { Operation, ResourceUrl } from "../wire/messages.js";
import type { ExportedResource, ExportProgress, SessionDialect } from "./types.js";

/** The four resource types, in the order in which they are sent. The list goes ahead of the services (D-25). */
export const Lane = { trustBundle: 0, serverAddresses: 1, exportedServiceList: 2, exportedService: 3 } as const;
export type Lane = (typeof Lane)[keyof typeof Lane];

/** The type URL of each lane. */
export const laneUrls: readonly [string, string, string, string] = [
  ResourceUrl.trustBundle,
  ResourceUrl.serverAddresses,
  ResourceUrl.exportedServiceList,
  ResourceUrl.exportedService,
];

/** The lane of a type URL; undefined when it is not one of the four. */
export function laneOf(resourceUrl: string): Lane | undefined {
  switch (resourceUrl) {
    case ResourceUrl.exportedService:
      return Lane.exportedService;
    case ResourceUrl.exportedServiceList:
      return Lane.exportedServiceList;
    case ResourceUrl.trustBundle:
      return Lane.trustBundle;
    case ResourceUrl.serverAddresses:
      return Lane.serverAddresses;
    default:
      return undefined;
  }
}

/** The state of one resource on a stream: the version that waits, and the version that was sent. */
interface Row {
  readonly lane: Lane;
  readonly id: string;
  waiting: ExportedResource | undefined;
  /** The newest version, where it is too large for the peer. */
  tooLarge: ExportedResource | undefined;
  /** A deletion of the service waits to be sent. */
  withdrawn: boolean;
  sentDigest: string | undefined;
  /** Of the newest version sent, until it is answered. */
  nonce: string | undefined;
  /** Neighbours in the queue of the lane, while something waits. */
  previous: Row | undefined;
  next: Row | undefined;
}

/** Rows in the order in which they began to wait; a linked list, because a withdrawn one leaves from the middle. */
interface Queue {
  readonly rows: Map<string, Row>;
  first: Row | undefined;
  last: Row | undefined;
  length: number;
  /** Whether the peer wants this type. Until then its resources wait. */
  open: boolean;
}

const NO_BYTES = new Uint8Array(0);

/** Texts of the peer are kept up to this length: a peer must not fill our memory with them. */
const MAX_TEXT = 1_024;

/**
 * Upper bound of the encoded size of the message that carries `resource`: beside the payload both type URLs, the id as
 * UTF-8, the nonce, and the tags and lengths around them.
 */
export function messageBytes(resource: ExportedResource): number {
  return resource.value.length + 2 * resource.resourceUrl.length + 3 * resource.resourceId.length + 64;
}

/**
 * All that one stream has to send of our exports: a table keyed by type and id, with the newest version only.
 * Its size is bounded by the number of resources, however often they change and however slowly the peer reads.
 */
export class OutboundTable {
  #maxSendBytes: number;
  #dialect: SessionDialect = "unknown";
  readonly #queues: readonly [Queue, Queue, Queue, Queue] = [newQueue(), newQueue(), newQueue(), newQueue()];
  readonly #unanswered = new Map<string, Row>();
  #sent = 0;
  #bytes = 0;
  #names: readonly string[] | undefined;
  /** Services of which the peer was sent instances last; not kept for a peer that is sent a list. */
  readonly #present = new Set<string>();

  /** Too large for the peer: service id, or type URL of the other types, to size in bytes. */
  readonly heldBack: Map<string, number> = new Map();
  /** Refused by the peer, keyed as `heldBack`, with its message. */
  readonly refused: Map<string, string> = new Map();

  /** @param maxSendBytes - largest message the peer is sent until more is known of it. */
  constructor(maxSendBytes: number) {
    this.#maxSendBytes = maxSendBytes;
  }

  /** Largest message the peer is sent, in bytes. */
  get maxSendBytes(): number {
    return this.#maxSendBytes;
  }

  /** Names of the last exported-service list sent; for Consul 1.13, which knows none, of the services it has instances of. */
  get sentNames(): readonly string[] | undefined {
    return this.#dialect === "legacy" ? [...this.#present].sort() : this.#names;
  }

  /** Resources that are held back, with their sizes in bytes. */
  get tooLarge(): readonly (readonly [ExportedResource, number])[] {
    if (this.heldBack.size === 0) return [];
    return this.#heldRows().map((resource) => [resource, messageBytes(resource)] as const);
  }

  /** Resources that wait, also those of types that the peer did not ask for yet. */
  get length(): number {
    const [bundle, addresses, list, services] = this.#queues;
    return bundle.length + addresses.length + list.length + services.length;
  }

  /** Payload bytes of those. */
  get bytes(): number {
    return this.#bytes;
  }

  get unanswered(): number {
    return this.#unanswered.size;
  }

  /** Whether something waits that the peer has asked for. */
  get ready(): boolean {
    for (const queue of this.#queues) if (queue.open && queue.first !== undefined) return true;
    return false;
  }

  open(lane: Lane): void {
    this.#queues[lane].open = true;
  }

  /** The peer's version was detected: a resource that was too large may fit now. */
  learned(dialect: SessionDialect, maxSendBytes: number): void {
    this.#dialect = dialect;
    this.#maxSendBytes = maxSendBytes;
    if (dialect === "modern") this.#present.clear();
    if (this.heldBack.size > 0) for (const resource of this.#heldRows()) this.put(resource);
  }

  /**
   * Takes the newest version of a resource. Returns its size when it is too large for the peer and that was not known.
   * @throws {TypeError} for a type URL other than the four.
   */
  put(resource: ExportedResource): number | undefined {
    const lane = laneOf(resource.resourceUrl);
    if (lane === undefined) throw new TypeError(`unknown resource URL: ${resource.resourceUrl}`);
    const queue = this.#queues[lane];
    const { resourceId: id, digest } = resource;
    let row = queue.rows.get(id);
    if (row === undefined) {
      row = {
        lane,
        id,
        waiting: undefined,
        tooLarge: undefined,
        withdrawn: false,
        sentDigest: undefined,
        nonce: undefined,
        previous: undefined,
        next: undefined,
      };
      queue.rows.set(id, row);
    }
    const size = messageBytes(resource);
    row.withdrawn = false;
    row.tooLarge = undefined;
    if (size > this.#maxSendBytes) {
      // An older version that still waits is outdated: the peer keeps the version it has.
      this.#unqueue(row);
      row.tooLarge = resource;
      const key = keyOf(row);
      const known = this.heldBack.get(key) === size;
      this.heldBack.set(key, size);
      return known ? undefined : size;
    }
    if (this.heldBack.size > 0) this.heldBack.delete(keyOf(row));
    if (digest === row.sentDigest) this.#unqueue(row);
    else this.#enqueue(row, resource);
    return undefined;
  }

  /**
   * Drops and forgets a service, so that exporting it again sends it again. A peer that has a list learns from the list
   * that the service is gone; any other is sent a deletion if it has instances of it.
   */
  withdraw(id: string): void {
    const { rows } = this.#queues[Lane.exportedService];
    const row = rows.get(id);
    if (row === undefined) return;
    this.heldBack.delete(id);
    this.refused.delete(id);
    row.tooLarge = undefined;
    if (this.#dialect !== "modern" && this.#present.has(id)) {
      row.withdrawn = true;
      this.#enqueue(row, { resourceUrl: ResourceUrl.exportedService, resourceId: id, value: NO_BYTES, digest: "" });
      return;
    }
    this.#unqueue(row);
    if (row.nonce !== undefined) this.#unanswered.delete(row.nonce);
    rows.delete(id);
  }

  /** The next message of the open lanes, with the next nonce of the stream; undefined when nothing is ready. */
  take(): ResponseMessage | undefined {
    for (const queue of this.#queues) {
      if (!queue.open) continue;
      const row = queue.first;
      const resource = row?.waiting;
      if (row === undefined || resource === undefined) continue;
      this.#unqueue(row);
      // Consul counts in 64 bits; no stream lives to see the difference to 2^53.
      this.#sent += 1;
      const nonce = this.#sent.toString(16).padStart(8, "0");
      if (row.nonce !== undefined) this.#unanswered.delete(row.nonce);
      row.nonce = nonce;
      row.sentDigest = resource.digest;
      this.#unanswered.set(nonce, row);
      if (row.lane === Lane.exportedServiceList) this.#names = resource.names ?? [];
      const { resourceUrl, resourceId, value } = resource;
      if (row.withdrawn) queue.rows.delete(resourceId);
      if (row.lane === Lane.exportedService && this.#dialect !== "modern") {
        if (value.length > 0) {
          this.#present.add(resourceId);
        } else {
          this.#present.delete(resourceId);
          // To Consul 1.13 an empty UPSERT would still be a service that it imports.
          if (this.#dialect === "legacy") {
            return { type: "response", nonce, resourceUrl, resourceId, operation: Operation.Delete };
          }
        }
      }
      return {
        type: "response",
        nonce,
        resourceUrl,
        resourceId,
        operation: Operation.Upsert,
        resource: { typeUrl: resourceUrl, value },
      };
    }
    return undefined;
  }

  /**
   * Notes the peer's answer. Only diagnostics hang on it: nonces that we never used, or used for a version that was
   * superseded since, are accepted as well.
   */
  answered(nonce: string, refusal: string | undefined): void {
    const row = this.#unanswered.get(nonce);
    if (row === undefined) return;
    this.#unanswered.delete(nonce);
    row.nonce = undefined;
    if (refusal !== undefined) this.refused.set(keyOf(row), clip(refusal));
    else if (this.refused.size > 0) this.refused.delete(keyOf(row));
  }

  /** How far each service has come. */
  progress(): ReadonlyMap<string, ExportProgress> {
    const found = new Map<string, ExportProgress>();
    for (const row of this.#queues[Lane.exportedService].rows.values()) {
      if (row.withdrawn) continue;
      if (row.tooLarge !== undefined) found.set(row.id, "held-back");
      else if (row.waiting !== undefined) found.set(row.id, "queued");
      else if (row.nonce !== undefined) found.set(row.id, "sent");
      else found.set(row.id, this.refused.has(row.id) ? "refused" : "acknowledged");
    }
    return found;
  }

  /** Lets go of everything but the facts for status. */
  clear(): void {
    for (const queue of this.#queues) {
      queue.rows.clear();
      queue.first = undefined;
      queue.last = undefined;
      queue.length = 0;
    }
    this.#unanswered.clear();
    this.#bytes = 0;
  }

  #heldRows(): readonly ExportedResource[] {
    return this.#queues.flatMap(({ rows }) => [...rows.values()].flatMap(({ tooLarge }) => tooLarge ?? []));
  }

  #enqueue(row: Row, resource: ExportedResource): void {
    if (row.waiting !== undefined) {
      this.#bytes -= row.waiting.value.length;
    } else {
      const queue = this.#queues[row.lane];
      row.previous = queue.last;
      if (queue.last === undefined) queue.first = row;
      else queue.last.next = row;
      queue.last = row;
      queue.length += 1;
    }
    row.waiting = resource;
    this.#bytes += resource.value.length;
  }

  #unqueue(row: Row): void {
    if (row.waiting === undefined) return;
    const queue = this.#queues[row.lane];
    this.#bytes -= row.waiting.value.length;
    row.waiting = undefined;
    if (row.previous === undefined) queue.first = row.next;
    else row.previous.next = row.next;
    if (row.next === undefined) queue.last = row.previous;
    else row.next.previous = row.previous;
    row.previous = undefined;
    row.next = undefined;
    queue.length -= 1;
  }
}

/** `text`, cut where a peer says more than a status needs. */
export function clip(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

function newQueue(): Queue {
  return { rows: new Map(), first: undefined, last: undefined, length: 0, open: false };
}

function keyOf(row: Row): string {
  return row.lane === Lane.exportedService ? row.id : laneUrls[row.lane];
}
