import type { VirtualIpRecord } from "./catalog-record.js";
import { invalid } from "./registration.js";

/** The last offset Consul hands out: 255.255.255.253. */
const LAST_OFFSET = 0x0fff_fffd;

/** The address at `offset` of 240.0.0.0/4. */
export function virtualIpAddress(offset: number): string {
  return `${240 + (offset >>> 24)}.${(offset >>> 16) & 255}.${(offset >>> 8) & 255}.${offset & 255}`;
}

/** The key of a virtual IP. Neither peer nor service names hold a NUL. */
export function virtualIpKey(peer: string, service: string): string {
  return `${peer}\0${service}`;
}

/**
 * Which service has which virtual IP (specification 4.8): always the lowest one free, so that freed addresses are used
 * first and the assignments alone are the whole state.
 */
export class VirtualIps {
  readonly #records = new Map<string, VirtualIpRecord>();
  readonly #taken = new Set<number>();
  /** No offset below is free. */
  #floor = 1;

  get floor(): number {
    return this.#floor;
  }

  get(key: string): VirtualIpRecord | undefined {
    return this.#records.get(key);
  }

  isTaken(offset: number): boolean {
    return this.#taken.has(offset);
  }

  set(key: string, record: VirtualIpRecord | undefined): void {
    const before = this.#records.get(key);
    if (before !== undefined) {
      this.#taken.delete(before.offset);
      this.#floor = Math.min(this.#floor, before.offset);
      this.#records.delete(key);
    }
    if (record === undefined) return;
    this.#records.set(key, record);
    this.#taken.add(record.offset);
  }

  values(): IterableIterator<VirtualIpRecord> {
    return this.#records.values();
  }

  /** Where the next search may begin. */
  raiseFloor(): void {
    while (this.#taken.has(this.#floor)) this.#floor++;
  }
}

const MANUAL_ADDRESSES = 8;

/** @throws {PeeringError} `invalid-registration` with Consul's text when they cannot be addresses of one service. */
export function checkManualAddresses(addresses: readonly string[]): void {
  if (addresses.length > MANUAL_ADDRESSES) {
    throw invalid(`cannot associate more than ${MANUAL_ADDRESSES} manual virtual IPs with the same service`);
  }
  for (const address of addresses) {
    if (!/^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/.test(address)) {
      throw invalid(`${JSON.stringify(address)} is not a valid IPv4 address`);
    }
  }
}

/** Changes to {@link VirtualIps} that are not committed yet. */
export class VirtualIpDraft {
  readonly #base: VirtualIps;
  readonly changes: Map<string, VirtualIpRecord | undefined> = new Map();
  /** Offsets whose use differs from the base. */
  readonly #uses = new Map<number, boolean>();
  #floor: number;

  constructor(base: VirtualIps) {
    this.#base = base;
    this.#floor = base.floor;
  }

  get(key: string): VirtualIpRecord | undefined {
    return this.changes.has(key) ? this.changes.get(key) : this.#base.get(key);
  }

  /** All there would be after the commit. */
  *values(): IterableIterator<VirtualIpRecord> {
    for (const record of this.#base.values()) {
      if (!this.changes.has(virtualIpKey(record.peer, record.service))) yield record;
    }
    for (const record of this.changes.values()) if (record !== undefined) yield record;
  }

  /** Also undoes: setting what was there before restores it. */
  set(key: string, record: VirtualIpRecord | undefined): void {
    const before = this.get(key);
    if (before !== undefined) {
      this.#uses.set(before.offset, false);
      this.#floor = Math.min(this.#floor, before.offset);
    }
    if (record !== undefined) this.#uses.set(record.offset, true);
    this.changes.set(key, record);
  }

  /** @throws {PeeringError} `invalid-registration` with Consul's text when none is left. */
  lowestFree(): number {
    while (this.#uses.get(this.#floor) ?? this.#base.isTaken(this.#floor)) this.#floor++;
    if (this.#floor > LAST_OFFSET) throw invalid("cannot allocate any more unique service virtual IPs");
    return this.#floor;
  }
}
